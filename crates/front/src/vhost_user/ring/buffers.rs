//! The buffers of one request: its parts with the view of memory that they were found in.
//!
//! The fields are private and only a ring fills them, so every scatter list made here lies in the
//! memory that its pin holds.

use std::sync::atomic::{AtomicU64, Ordering};

use block::{MemPin, Part, Sgl};

use super::memory::View;

/// Parts of a request, those that the device reads first. Used again for the next request.
pub struct Buffers {
    pub(super) parts: Vec<Part>,
    pub(super) readable_parts: usize,
    pub(super) view: View,
}

impl Buffers {
    pub fn new(view: View) -> Self {
        Self { parts: Vec::new(), readable_parts: 0, view }
    }

    /// What the device reads.
    #[inline]
    pub fn readable(&self) -> Sgl<'_> {
        // SAFETY: a ring found these parts in the regions of `view`, whose pin is given; a fault on
        // them is handled by the mapping.
        unsafe { Sgl::new(&self.parts[..self.readable_parts], self.view.pin()) }
    }

    /// What the device writes.
    #[inline]
    pub fn writable(&self) -> Sgl<'_> {
        // SAFETY: as in `readable`.
        unsafe { Sgl::new(&self.parts[self.readable_parts..], self.view.pin()) }
    }

    /// The first sixteen bytes that the device reads.
    #[inline]
    pub fn header(&self) -> Option<[u8; 16]> {
        let first = self.parts[..self.readable_parts].first()?;
        if first.len() >= 16 && first.at().addr().is_multiple_of(8) {
            let at = first.at().cast::<u64>();
            let mut bytes = [0; 16];
            for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
                // SAFETY: sixteen aligned bytes of a part, which is mapped while the view lives.
                let value = unsafe { AtomicU64::from_ptr(at.add(index)) };
                word.copy_from_slice(&value.load(Ordering::Relaxed).to_ne_bytes());
            }
            return Some(bytes);
        }
        self.header_slowly()
    }

    #[cold]
    fn header_slowly(&self) -> Option<[u8; 16]> {
        let readable = self.readable();
        let mut bytes = [0; 16];
        if readable.len() < bytes.len() {
            return None;
        }
        readable.copy_out(0, &mut bytes);
        Some(bytes)
    }

    /// Where the last byte that the device writes lies: the status of a block request.
    #[inline]
    pub fn last_byte(&self) -> Option<Spot> {
        let last = self.parts[self.readable_parts..].last()?;
        let at = last.at().wrapping_add(last.len().checked_sub(1)?);
        Some(Spot { at, _pin: self.view.pin().clone() })
    }
}

/// One byte of client memory, to be written later.
pub struct Spot {
    at: *mut u8,
    _pin: MemPin,
}

impl Spot {
    #[inline]
    pub fn write(self, byte: u8) {
        // SAFETY: the byte is mapped while the pin lives, which ends with this value; volatile,
        // because the driver may look meanwhile.
        unsafe { self.at.write_volatile(byte) };
    }
}
