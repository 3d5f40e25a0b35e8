//! A page of metadata: what stands in front of each, and what it is checked for when it is read.
//!
//! A page says what it is, whose, which one and of which turn, under a checksum of the whole. So a
//! rotten page is an error, and a page that strayed, or is left over from another owner, is never
//! taken for the one that was asked for.
//!
//! A page that is rewritten has two places, written in turn: while one is being written the other
//! holds what was before. [`newest`] tells which one counts.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The unit of metadata, and of what a write to storage may tear at worst.
pub const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = size_of::<RawHeader>();
/// What a page holds behind its header.
pub const PAYLOAD_BYTES: usize = PAGE_BYTES - HEADER_BYTES;

/// The form of pages that this program writes, and the newest that it reads.
const FORM: u16 = 1;

/// What a page is: the bytes that it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub [u8; 4]);

/// Whose page it is: the UUID of a pool or of an LU.
pub type Owner = [u8; 16];

/// What a page says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub owner: Owner,
    pub number: u64,
    /// Of two places the one with the higher turn counts.
    pub turn: u64,
    /// Who wrote it, of all owners in their order.
    pub epoch: u64,
}

/// A page as it is found, or is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page(Box<[u8; PAGE_BYTES]>);

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("it was never written")]
    Blank,
    #[error("it does not have its checksum")]
    Rotten,
    #[error("it is another kind of page")]
    OtherKind,
    #[error("it belongs to another pool or LU")]
    OtherOwner,
    #[error("it is page {0}")]
    OtherNumber(u64),
    #[error("it is of another time than what names it")]
    Later,
    #[error("it names an extent that nobody uses")]
    Unused,
    #[error("it has form {0}, and this program knows forms up to {FORM}")]
    Newer(u16),
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    kind: [u8; 4],
    /// CRC32C of the page with zeroes here.
    sum: U32,
    owner: [u8; 16],
    number: U64,
    turn: U64,
    epoch: U64,
    form: U16,
    reserved: [u8; 6],
}

const SUM: std::ops::Range<usize> = 4..8;

impl Page {
    /// A page with this payload, zeroes behind it.
    pub fn new(header: Header, payload: &[u8]) -> Self {
        assert!(payload.len() <= PAYLOAD_BYTES, "a page holds {PAYLOAD_BYTES} bytes");
        let raw = RawHeader {
            kind: header.kind.0,
            sum: U32::ZERO,
            owner: header.owner,
            number: header.number.into(),
            turn: header.turn.into(),
            epoch: header.epoch.into(),
            form: FORM.into(),
            reserved: [0; 6],
        };
        let mut bytes = Box::new([0; PAGE_BYTES]);
        bytes[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
        bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let sum = sum_of(&bytes);
        bytes[SUM].copy_from_slice(&sum.to_le_bytes());
        Self(bytes)
    }

    /// As it was read.
    pub fn of_bytes(bytes: &[u8; PAGE_BYTES]) -> Self {
        Self(Box::new(*bytes))
    }

    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        &self.0
    }

    pub fn payload(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }

    /// What it says of itself, if it is what was asked for.
    pub fn check(&self, kind: Kind, owner: &Owner, number: u64) -> Result<Header, Flaw> {
        let header = self.header(kind)?;
        if header.owner != *owner {
            return Err(Flaw::OtherOwner);
        }
        header.check_number(number)
    }

    /// The same where whose it is becomes known by it.
    pub fn check_any(&self, kind: Kind, number: u64) -> Result<Header, Flaw> {
        self.header(kind)?.check_number(number)
    }

    /// What it says of itself, and its form, true or not.
    pub fn says(&self) -> (Header, u16) {
        let (raw, _) = RawHeader::read_from_prefix(&self.0[..]).expect("shorter than a page");
        let (kind, owner, number) = (Kind(raw.kind), raw.owner, raw.number.get());
        let (turn, epoch) = (raw.turn.get(), raw.epoch.get());
        (Header { kind, owner, number, turn, epoch }, raw.form.get())
    }

    /// Whether it was this page once and is not whole: a crash has cut it off, or it has rotted.
    /// One that says that it is another one was that, unless its checksum says otherwise.
    pub fn was(&self, kind: Kind, owner: &Owner, number: u64) -> bool {
        if self.is_whole() {
            return false;
        }
        let (mut raw, _) = RawHeader::read_from_prefix(&self.0[..]).expect("shorter than a page");
        (raw.kind, raw.owner, raw.number) = (kind.0, *owner, number.into());
        let mut own = self.clone();
        own.0[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
        own.0[..HEADER_BYTES] == self.0[..HEADER_BYTES] || own.is_whole()
    }

    /// Whether it has its checksum.
    pub fn is_whole(&self) -> bool {
        self.0[SUM] == sum_of(&self.0).to_le_bytes()
    }

    fn header(&self, kind: Kind) -> Result<Header, Flaw> {
        let (header, form) = self.says();
        if self.0.iter().all(|&byte| byte == 0) {
            return Err(Flaw::Blank);
        }
        if !self.is_whole() {
            return Err(Flaw::Rotten);
        }
        if header.kind != kind {
            return Err(Flaw::OtherKind);
        }
        if form > FORM {
            return Err(Flaw::Newer(form));
        }
        Ok(header)
    }
}

impl Header {
    fn check_number(self, number: u64) -> Result<Self, Flaw> {
        if self.number == number { Ok(self) } else { Err(Flaw::OtherNumber(self.number)) }
    }
}

/// Which of two places counts: of the good ones the one of the later owner, and of one owner's the
/// later turn. Where neither is good: why the first is not, or the second if the first is blank.
pub fn newest(places: [Result<Header, Flaw>; 2]) -> Result<usize, Flaw> {
    let age = |header: &Header| (header.epoch, header.turn);
    match places {
        [Ok(one), Ok(other)] => Ok(usize::from(age(&other) > age(&one))),
        [Ok(_), Err(_)] => Ok(0),
        [Err(_), Ok(_)] => Ok(1),
        [Err(Flaw::Blank), Err(why)] | [Err(why), Err(_)] => Err(why),
    }
}

fn sum_of(bytes: &[u8; PAGE_BYTES]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..SUM.start]);
    digest.update(&[0; SUM.end - SUM.start]);
    digest.update(&bytes[SUM.end..]);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: Kind = Kind(*b"test");
    const OWNER: Owner = [7; 16];

    fn header(number: u64, turn: u64, epoch: u64) -> Header {
        Header { kind: KIND, owner: OWNER, number, turn, epoch }
    }

    #[test]
    fn a_page_is_taken_only_for_what_it_is() {
        let page = Page::new(header(3, 4, 5), b"payload");
        assert_eq!(page.check(KIND, &OWNER, 3), Ok(header(3, 4, 5)));
        assert!(page.payload().starts_with(b"payload\0"));
        assert_eq!(page.check(Kind(*b"text"), &OWNER, 3), Err(Flaw::OtherKind));
        assert_eq!(page.check(KIND, &[8; 16], 3), Err(Flaw::OtherOwner));
        assert_eq!(page.check(KIND, &OWNER, 4), Err(Flaw::OtherNumber(3)));
        assert_eq!(Page::of_bytes(&[0; PAGE_BYTES]).check(KIND, &OWNER, 3), Err(Flaw::Blank));
    }

    #[test]
    fn what_a_page_was_that_is_not_whole_is_told_from_what_was_there_before() {
        let page = Page::new(header(3, 4, 5), b"payload");
        let was = |page: &Page| page.was(KIND, &OWNER, 3);
        let changed = |page: &Page, at: usize| {
            let mut bytes = *page.bytes();
            bytes[at] ^= 0x10;
            Page::of_bytes(&bytes)
        };
        assert!(!was(&page));
        for at in 0..PAGE_BYTES {
            assert!(was(&changed(&page, at)), "byte {at}");
        }
        // Another one, and what a crash has left of that.
        let other = Page::new(header(2, 4, 5), b"other");
        assert!(!was(&other) && !was(&changed(&other, PAGE_BYTES - 1)));
        assert!(!was(&Page::of_bytes(&[0; PAGE_BYTES])));
    }

    #[test]
    fn the_newest_good_place_counts() {
        let (old, new, later) = (header(1, 6, 1), header(1, 7, 1), header(1, 2, 2));
        assert_eq!(newest([Ok(old), Ok(new)]), Ok(1));
        assert_eq!(newest([Ok(new), Ok(old)]), Ok(0));
        assert_eq!(newest([Ok(new), Ok(later)]), Ok(1), "a later owner knows better");
        assert_eq!(newest([Err(Flaw::Rotten), Ok(old)]), Ok(1));
        assert_eq!(newest([Err(Flaw::Blank), Err(Flaw::Rotten)]), Err(Flaw::Rotten));
        assert_eq!(newest([Err(Flaw::Blank), Err(Flaw::Blank)]), Err(Flaw::Blank));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found(bit in 0..PAGE_BYTES * 8, payload: Vec<u8>) {
            let page = Page::new(header(3, 4, 5), &payload[..payload.len().min(PAYLOAD_BYTES)]);
            let mut bytes = *page.bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Page::of_bytes(&bytes).check(KIND, &OWNER, 3), Err(Flaw::Rotten));
        }
    }
}
