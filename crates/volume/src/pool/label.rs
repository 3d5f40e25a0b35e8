//! The label of a disk: which pool it is part of, and as what. It stands at both ends, so that one
//! of them may be overwritten, and tells a disk that has been cut off.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::lineage::Lineage;
use super::page::{Flaw, Header, Kind, Owner, Page};
use super::shape::{Shape, Unshapely};

pub(super) const KIND: Kind = Kind(*b"VDlb");

/// Longest name of a pool, in bytes.
pub const POOL_NAME_BYTES_MAX: usize = 64;

/// What a disk is in its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub pool: Owner,
    /// The pool that its pages name: itself, or the first one of those that it was split off from.
    pub origin: Owner,
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
    /// Where it was missing: its epoch of before, until its failure group has everything. It knows
    /// nothing that came later.
    pub as_of: Option<u64>,
    /// Its failure group is about to leave, and to be a pool: see
    /// [`split_off`](super::home::Pool::split_off).
    pub becomes: Option<Becomes>,
    /// What it was split off from.
    pub was: Option<Was>,
    /// How often the pool was forced.
    pub forces: u16,
    /// The epoch of the last time, until all disks have been here since: zero then.
    pub forced: u64,
}

/// What a failure group is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Becomes {
    pub pool: Owner,
    /// The disk of the group that decides: when its label is of that pool, all are.
    pub by: [u8; 16],
}

/// A pool of which a disk was one, before the failure group that it is in became a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Was {
    pub pool: Owner,
    /// Of the label that said so first, among those of that pool.
    pub epoch: u64,
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
    /// Zeroes: the pool itself; or nothing.
    origin: Owner,
    becomes: Owner,
    becomes_by: [u8; 16],
    was: Owner,
    was_until: U64,
    forces: U16,
    forced: U64,
    /// Zero: it knows everything.
    as_of: U64,
}

const NOBODY: Owner = [0; 16];

impl Label {
    /// It was a disk of the pool, and is none any more.
    pub fn has_left(&self) -> bool {
        self.members == 0
    }

    /// The last epoch of which it knows everything.
    pub fn knows(&self) -> u64 {
        self.as_of.unwrap_or(self.epoch)
    }

    /// What its pages say.
    pub fn lineage(&self) -> Lineage {
        Lineage::new(self.pool, self.origin)
    }

    /// It was a disk of that pool until it became one of another pool.
    pub fn was_of(&self, pool: &Owner) -> bool {
        self.was.is_some_and(|was| was.pool == *pool && self.pool != *pool)
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
            origin: if self.origin == self.pool { NOBODY } else { self.origin },
            becomes: self.becomes.map_or(NOBODY, |it| it.pool),
            becomes_by: self.becomes.map_or(NOBODY, |it| it.by),
            was: self.was.map_or(NOBODY, |was| was.pool),
            was_until: self.was.map_or(0, |was| was.epoch).into(),
            forces: self.forces.into(),
            forced: self.forced.into(),
            as_of: self.as_of.unwrap_or(0).into(),
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
        let said = |id: Owner| (id != NOBODY).then_some(id);
        Ok(Self {
            pool: header.owner,
            origin: said(raw.origin).unwrap_or(header.owner),
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
            becomes: said(raw.becomes).map(|pool| Becomes { pool, by: raw.becomes_by }),
            was: said(raw.was).map(|pool| Was { pool, epoch: raw.was_until.get() }),
            forces: raw.forces.get(),
            forced: raw.forced.get(),
            as_of: Some(raw.as_of.get()).filter(|epoch| *epoch > 0),
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
            origin: [6; 16],
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
            becomes: Some(Becomes { pool: [7; 16], by: [2; 16] }),
            was: Some(Was { pool: [6; 16], epoch: 2 }),
            forces: 2,
            forced: 3,
            as_of: Some(2),
        };
        let page = label.encode(End::Back);
        assert_eq!(Label::decode(&page, End::Back), Ok(label));
        let flaw = Unlabelled::Flaw(Flaw::OtherNumber(1));
        assert_eq!(Label::decode(&page, End::Front), Err(flaw));
    }
}
