//! The label of a disk: which pool it is part of, and as what. It stands at both ends, so that one
//! of them may be overwritten, and tells a disk that has been cut off.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::page::{Flaw, Header, Kind, Owner, Page};
use super::shape::{Shape, Unshapely};

pub(super) const KIND: Kind = Kind(*b"VDlb");

/// Longest name of a pool, in bytes.
pub const POOL_NAME_BYTES_MAX: usize = 64;

/// What a disk is in its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub pool: Owner,
    pub pool_name: String,
    pub pv: [u8; 16],
    /// How many disks the pool has. Zero: this one has left it.
    pub members: u16,
    /// The failure group that it is in.
    pub group: u16,
    /// How many disks that has.
    pub group_members: u16,
    pub shape: Shape,
    /// Bytes that it had when it was labelled, or last grew.
    pub size: u64,
    /// Of two labels the one with the higher epoch counts.
    pub epoch: u64,
    /// The last epoch in which a disk was missing: one that was not there then, and so has a lower
    /// epoch, does not know what has become of its slabs.
    pub missed: u64,
    /// Its failure group may lack some of what others have: the disk joined it, or was missing, or
    /// another one was given up, and not everything has been brought there since.
    pub is_behind: bool,
}

/// Which of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Front,
    Back,
}

/// What is wrong with a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlabelled {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("it names impossible sizes: {0}")]
    Shape(#[from] Unshapely),
    #[error("the name of its pool is not text")]
    Name,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawLabel {
    pv: [u8; 16],
    size: U64,
    /// With the checksums behind it: programs that know none find no power of two.
    stride: U64,
    extent_bytes: U64,
    group: U16,
    name_len: U16,
    members: U16,
    /// Zero before there was more than one group.
    group_members: U16,
    name: [u8; POOL_NAME_BYTES_MAX],
    missed: U64,
    /// Not zero: it is.
    is_behind: U16,
}

impl Label {
    /// It was a disk of the pool, and is none any more.
    pub fn has_left(&self) -> bool {
        self.members == 0
    }

    pub fn encode(&self, end: End) -> Page {
        let mut name = [0; POOL_NAME_BYTES_MAX];
        name[..self.pool_name.len()].copy_from_slice(self.pool_name.as_bytes());
        let raw = RawLabel {
            pv: self.pv,
            size: self.size.into(),
            stride: self.shape.stride().into(),
            extent_bytes: self.shape.extent_bytes().into(),
            group: self.group.into(),
            name_len: (self.pool_name.len() as u16).into(),
            members: self.members.into(),
            group_members: self.group_members.into(),
            name,
            missed: self.missed.into(),
            is_behind: u16::from(self.is_behind).into(),
        };
        let (owner, number, epoch) = (self.pool, end as u64, self.epoch);
        let header = Header { kind: KIND, owner, number, turn: 0, epoch };
        Page::new(header, raw.as_bytes())
    }

    /// What the page at this end says.
    pub fn decode(page: &Page, end: End) -> Result<Self, Unlabelled> {
        let header = page.check_any(KIND, end as u64)?;
        let (raw, _) = RawLabel::read_from_prefix(page.payload()).expect("shorter than a page");
        let name = raw.name.get(..usize::from(raw.name_len.get())).ok_or(Unlabelled::Name)?;
        Ok(Self {
            pool: header.owner,
            pool_name: str::from_utf8(name).map_err(|_| Unlabelled::Name)?.to_owned(),
            pv: raw.pv,
            members: raw.members.get(),
            group: raw.group.get(),
            group_members: raw.group_members.get(),
            shape: Shape::of_stride(raw.stride.get(), raw.extent_bytes.get())?,
            size: raw.size.get(),
            epoch: header.epoch,
            missed: raw.missed.get(),
            is_behind: raw.is_behind.get() != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_at_the_end_where_it_was_written() {
        let label = Label {
            pool: [1; 16],
            pool_name: "default".to_owned(),
            pv: [2; 16],
            members: 2,
            group: 3,
            group_members: 1,
            shape: Shape::default(),
            size: 1 << 40,
            epoch: 4,
            missed: 3,
            is_behind: true,
        };
        let page = label.encode(End::Back);
        assert_eq!(Label::decode(&page, End::Back), Ok(label));
        let flaw = Unlabelled::Flaw(Flaw::OtherNumber(1));
        assert_eq!(Label::decode(&page, End::Front), Err(flaw));
    }
}
