//! What goes out in front of and behind a data segment: the header with its digest, and padding
//! with the segment's digest.

use super::digest::Digest;
use wire::iscsi::{BHS_BYTES, DIGEST_BYTES, PAD_BYTES, Pdu};

/// Longest head: a basic header segment and its digest.
pub const HEAD_BYTES_MAX: usize = BHS_BYTES + DIGEST_BYTES;
/// Longest trailer: padding and a digest.
pub const TRAILER_BYTES_MAX: usize = PAD_BYTES - 1 + DIGEST_BYTES;

/// A header ready to be sent, in memory of the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    has_digest: bool,
}

impl Head {
    pub const fn new() -> Self {
        Self { bytes: [0; HEAD_BYTES_MAX], has_digest: false }
    }

    pub fn as_bytes(&self) -> &[u8] {
        if self.has_digest { &self.bytes } else { &self.bytes[..BHS_BYTES] }
    }

    #[inline]
    pub(super) fn set<P: Pdu>(&mut self, pdu: &P, with_digest: bool) {
        self.bytes[..BHS_BYTES].copy_from_slice(pdu.as_bytes());
        self.has_digest = with_digest;
        if with_digest {
            let digest = Digest::of(&self.bytes[..BHS_BYTES]);
            self.bytes[BHS_BYTES..].copy_from_slice(&digest);
        }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

/// What follows a data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    bytes: [u8; TRAILER_BYTES_MAX],
    length: u8,
}

impl Trailer {
    /// Behind `length` bytes of data; `digest` was fed with all of them, and covers the padding
    /// too (RFC 7143, 11.2.3). An empty segment has no trailer.
    pub fn new(length: u32, digest: Option<Digest>) -> Self {
        let mut bytes = [0; TRAILER_BYTES_MAX];
        let pad = pad_bytes(length);
        let mut end = pad;
        if let (Some(digest), true) = (digest, length > 0) {
            let digest = digest.update(&bytes[..pad]).finish();
            end += DIGEST_BYTES;
            bytes[pad..end].copy_from_slice(&digest);
        }
        Self { bytes, length: end as u8 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Padding behind a segment of `length` bytes.
pub const fn pad_bytes(length: u32) -> usize {
    (PAD_BYTES - length as usize % PAD_BYTES) % PAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_pads_and_then_proves() {
        for (length, pad) in [(0, 0), (1, 3), (2, 2), (3, 1), (4, 0), (4095, 1)] {
            let data = vec![7; length as usize];
            let plain = Trailer::new(length, None);
            assert_eq!(plain.as_bytes(), &[0; 3][..pad]);
            let sealed = Trailer::new(length, Some(Digest::new().update(&data)));
            if length == 0 {
                assert_eq!(sealed.as_bytes(), &[]);
                continue;
            }
            let padded = [data, vec![0; pad]].concat();
            assert_eq!(sealed.as_bytes(), [vec![0; pad], Digest::of(&padded).to_vec()].concat());
        }
    }
}
