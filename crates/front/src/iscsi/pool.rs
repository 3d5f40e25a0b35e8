//! Memory for the data of commands: buffers of a core, used again and again.
//!
//! A buffer may outlive its command (the kernel sends from it, a device still writes to it); one
//! that somebody else holds is not kept.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use block::{Buffer, Sgl};

/// The smallest buffer, as a power of two.
const SMALLEST_SHIFT: u32 = 12;
/// Sizes that are kept: 4 KiB to 4 MiB, each twice the one before.
const SIZES: usize = 11;
/// Bytes of each size that are kept.
const KEPT_BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Pool {
    spare: [RefCell<Vec<Buffer>>; SIZES],
}

/// A buffer that goes back to its pool, and its bytes to the account of its session.
pub(super) struct Held {
    buffer: Option<Buffer>,
    len: usize,
    pool: Rc<Pool>,
    account: Rc<Cell<usize>>,
}

impl Pool {
    /// A buffer of at least this length; what it holds is whatever was there before.
    #[inline]
    pub fn take(self: &Rc<Self>, len: usize, account: &Rc<Cell<usize>>) -> Held {
        let class = class_of(len);
        let spare = self.spare.get(class).and_then(|spare| spare.borrow_mut().pop());
        let buffer = spare.unwrap_or_else(|| Buffer::zeroed(size_of_class(class)));
        account.set(account.get() + buffer.len());
        Held { buffer: Some(buffer), len, pool: self.clone(), account: account.clone() }
    }
}

#[inline]
fn class_of(len: usize) -> usize {
    len.next_power_of_two().trailing_zeros().saturating_sub(SMALLEST_SHIFT) as usize
}

fn size_of_class(class: usize) -> usize {
    1 << (class + SMALLEST_SHIFT as usize)
}

impl Held {
    #[inline]
    pub fn sgl(&self) -> Sgl<'_> {
        self.buffer.as_ref().map_or(Sgl::empty(), |buffer| buffer.sgl().slice(0, self.len))
    }

    /// The bytes where they lie, unless somebody else holds the memory.
    pub fn bytes(&mut self) -> Option<&[u8]> {
        let bytes = self.buffer.as_mut()?.bytes()?;
        Some(&bytes[..self.len])
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Only the beginning counts.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        self.account.set(self.account.get() - buffer.len());
        let class = class_of(buffer.len());
        let Some(spare) = self.pool.spare.get(class) else { return };
        let mut spare = spare.borrow_mut();
        if buffer.is_unshared() && (spare.len() + 1) * buffer.len() <= KEPT_BYTES_MAX {
            spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_unless_somebody_holds_it() {
        let (pool, account) = (Rc::new(Pool::default()), Rc::new(Cell::new(0)));
        let held = pool.take(5000, &account);
        assert_eq!((held.sgl().len(), account.get()), (5000, 8192));
        let at = held.sgl().parts().next().map(block::Part::at);
        drop(held);
        assert_eq!(account.get(), 0);
        let again = pool.take(8192, &account);
        assert_eq!(again.sgl().parts().next().map(block::Part::at), at);
        let taken = again.sgl().to_buf();
        drop(again);
        let other = pool.take(8192, &account);
        assert_ne!(other.sgl().parts().next().map(block::Part::at), at);
        drop(taken);
    }

    #[test]
    fn sizes_are_powers_of_two_and_the_largest_are_not_kept() {
        let (pool, account) = (Rc::new(Pool::default()), Rc::new(Cell::new(0)));
        for (len, size) in [(1, 4096), (4096, 4096), (4097, 8192), (9 << 20, 16 << 20)] {
            drop(pool.take(len, &account));
            let held = pool.take(len, &account);
            assert_eq!(account.get(), size);
            drop(held);
        }
        assert!(pool.spare.iter().all(|spare| spare.borrow().len() <= 1));
    }
}
