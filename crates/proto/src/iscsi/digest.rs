//! CRC32C over headers and data (RFC 7143, 13.1), fed in pieces as they come.

/// A digest under way: a number, so that an owner may carry it along a scatter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u32);

/// State of the register before the first byte.
const INITIAL: u32 = u32::MAX;
/// The register is sent inverted.
const FINAL_XOR: u32 = u32::MAX;
/// What is copied and digested at a time: it stays in the processor's nearest cache.
const PIECE_BYTES: usize = 4096;

impl Digest {
    pub const fn new() -> Self {
        Self(INITIAL)
    }

    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return self;
        }
        if self == Self::new() {
            return Self(crc_fast::crc32_iscsi(bytes) ^ FINAL_XOR);
        }
        let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
        let mut crc = crc_fast::Digest::new_with_init_state(algorithm, u64::from(self.0));
        crc.update(bytes);
        Self(u32::try_from(crc.get_state() & u64::from(u32::MAX)).expect("it was masked"))
    }

    /// Feeds it with `length` bytes that can only be copied, by `copy` from an offset.
    #[must_use]
    pub fn update_by(self, length: usize, copy: impl Fn(usize, &mut [u8])) -> Self {
        let mut piece = [0; PIECE_BYTES];
        let (mut digest, mut at) = (self, 0);
        while at < length {
            let piece = &mut piece[..PIECE_BYTES.min(length - at)];
            copy(at, piece);
            digest = digest.update(piece);
            at += piece.len();
        }
        digest
    }

    /// The four bytes as they are sent: the register, least significant byte first (13.1).
    pub const fn finish(self) -> [u8; 4] {
        (self.0 ^ FINAL_XOR).to_le_bytes()
    }

    /// The digest of a segment that is all in one place.
    pub fn of(bytes: &[u8]) -> [u8; 4] {
        crc_fast::crc32_iscsi(bytes).to_le_bytes()
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7143, appendix A.4: CRC examples.
    #[test]
    fn the_examples_of_the_standard() {
        let increasing: Vec<u8> = (0..32).collect();
        let decreasing: Vec<u8> = (0..32).rev().collect();
        let read10: [u8; 48] = [
            0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0,
            0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
        ];
        for (bytes, expected) in [
            (&[0; 32][..], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&increasing, [0x4e, 0x79, 0xdd, 0x46]),
            (&decreasing, [0x5c, 0xdb, 0x3f, 0x11]),
            (&read10, [0x56, 0x3a, 0x96, 0xd9]),
        ] {
            assert_eq!(Digest::of(bytes), expected);
            assert_eq!(Digest::new().update(bytes).finish(), expected);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            cuts in prop::collection::vec(0_usize..600, 0..5),
        ) {
            let mut digest = Digest::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                digest = digest.update(piece);
                rest = more;
            }
            prop_assert_eq!(digest.update(rest).finish(), Digest::of(&bytes));
        }

        #[test]
        fn copies_make_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let copy = |at: usize, piece: &mut [u8]| {
                piece.copy_from_slice(&bytes[at..][..piece.len()]);
            };
            let digest = Digest::new().update_by(bytes.len(), copy);
            prop_assert_eq!(digest.finish(), Digest::of(&bytes));
        }
    }
}
