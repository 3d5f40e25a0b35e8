//! The device: one trait between protocols and media.
//!
//! # Contract
//!
//! **Who validates what.** The caller gives a scatter list that is as long as [`Op::data_bytes`]
//! says; the device checks everything else with [`Geometry::check`] and survives any offset and
//! length, because a size may change between the caller's look and the device's work.
//!
//! **Answers.** `begin` answers in place (`Some`, through [`Asked::now`]) or takes a completion
//! ([`Asked::later`]) and answers through it from the executor, never from within `begin`. Every
//! request is answered exactly once.
//!
//! **Order.** Requests in flight together may take effect in any order, block by block. A flush
//! covers exactly what was answered before it began. Compare-and-write and or-write are each one
//! step ([`Op::is_exclusive`]): between its look at the range and its writing there is no write to
//! the same LU, of whatever kind and through whatever handle, that overlaps it.
//!
//! **Memory.** The request is borrowed for the call only. Who answers later takes parts and pin
//! along ([`Request::to_buf`]) until the work has ended, even if nobody waits any more.
//!
//! **Handles.** A handle belongs to one core. Handles of one LU share what they must among
//! themselves; a change of size, health or access reaches each through its [`Watch`].
//!
//! # Who implements it
//!
//! | leaf | | device of devices | |
//! |---|---|---|---|
//! | `store::file` | files and block devices | `volume::delay` | later, by a set time |
//! | `store::memory` | memory of the node | `volume::fault` | errors on demand |
//! | `store::null` | nothing | `volume::drive` | media that come and go |
//! | | | `volume::limit` | later, when there was too much |
//! | | | `volume::switch` | later, while the device below is exchanged |
//!
//! All of them pass the suite in `block::conformance`, less what their geometry
//! says that they do not keep.

use std::fmt;
use std::ops::BitOr;

use crate::completion::{Asked, Outcome};
use crate::error::{Error, ErrorKind};
use crate::request::{Op, Request};
use crate::watch::Watch;

pub trait Device {
    /// Shape and abilities as they are now.
    fn geometry(&self) -> Geometry;

    /// Asks. `Some`: answered in place. `None`: answered later.
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome>;

    /// Wakes when geometry or health have changed.
    fn watch(&self) -> &Watch;

    fn health(&self) -> Health {
        Health::Good
    }

    /// Somebody waits until everything in flight has ended: what is held back on purpose goes on.
    fn hasten(&self) {}
}

/// How well the device does, for access states and listings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Good,
    /// Serves, with less redundancy or slower than it should.
    Degraded,
    /// Does not serve.
    Failed,
}

/// A set of optional operations.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct OpSet(u16);

impl OpSet {
    /// Only read, write and flush.
    pub const BASE: Self = Self(0);
    pub const WRITE_ATOMIC: Self = Self(1);
    pub const COMPARE_AND_WRITE: Self = Self(1 << 1);
    pub const DISCARD: Self = Self(1 << 2);
    pub const WRITE_ZEROES: Self = Self(1 << 3);
    pub const STATUS: Self = Self(1 << 4);
    pub const COPY: Self = Self(1 << 5);
    pub const OR_WRITE: Self = Self(1 << 6);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What an operation needs of the device.
    pub const fn needed_by(op: Op) -> Self {
        match op {
            Op::Read | Op::Write { atomic: false, .. } | Op::Flush => Self::BASE,
            Op::Write { atomic: true, .. } => Self::WRITE_ATOMIC,
            Op::CompareAndWrite { .. } => Self::COMPARE_AND_WRITE,
            Op::OrWrite { .. } => Self::OR_WRITE,
            Op::Discard => Self::DISCARD,
            Op::WriteZeroes { .. } => Self::WRITE_ZEROES,
            Op::Status => Self::STATUS,
            Op::Copy { .. } => Self::COPY,
        }
    }
}

impl BitOr for OpSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for OpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 7] = [
            "write-atomic",
            "compare-and-write",
            "discard",
            "write-zeroes",
            "status",
            "copy",
            "or-write",
        ];
        let set = NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        f.debug_set().entries(set.map(|(_, name)| name)).finish()
    }
}

/// What a device promises of the data given to it; the conformance suite asks for no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Reads return what was written.
    Data,
    /// Reads may return anything: a device for measurements, or one that fails on purpose.
    Nothing,
}

/// Shape and abilities of a device. All sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub size: u64,
    /// Every offset and length is a multiple of this; a power of two from 512 to 4096.
    pub block_size: u32,
    /// What the medium writes in one step; at least the block size.
    pub physical_block_size: u32,
    /// Preferred multiple for large transfers; 0 where there is no preference.
    pub optimal_io_size: u32,
    /// Best unit and alignment of discards; at least the block size.
    pub discard_granularity: u32,
    /// Longest exclusive step (compare-and-write, or-write); 0 where there is none.
    pub exclusive_max: u32,
    /// Longest atomic write; 0 where there is none.
    pub atomic_max: u32,
    pub ops: OpSet,
    pub read_only: bool,
    /// Answered writes need a flush to survive power loss.
    pub volatile_cache: bool,
    pub keeps: Keeps,
}

impl Geometry {
    /// A plain device of this size and block size that offers only reads, writes and flushes.
    pub const fn plain(size: u64, block_size: u32) -> Self {
        Self {
            size,
            block_size,
            physical_block_size: block_size,
            optimal_io_size: 0,
            discard_granularity: block_size,
            exclusive_max: 0,
            atomic_max: 0,
            ops: OpSet::BASE,
            read_only: false,
            volatile_cache: true,
            keeps: Keeps::Data,
        }
    }

    pub const fn with_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// Whether this is a plain read or write in good order: for fast paths. Of anything else it
    /// says nothing; [`Geometry::check`] does.
    #[inline]
    pub fn suits(&self, request: &Request<'_>) -> bool {
        let plain = match request.op {
            Op::Read => true,
            Op::Write { atomic, .. } => !atomic && !self.read_only,
            _ => false,
        };
        let mask = u64::from(self.block_size) - 1;
        let aligned = (request.offset | request.len) & mask == 0;
        let whole = request.data.len() as u64 == request.len;
        let fits = request.len <= self.size && request.offset <= self.size - request.len;
        plain && aligned && whole && fits
    }

    /// The one check of a request against a device, in the order a client would expect to be told.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let op = request.op;
        if !self.ops.contains(OpSet::needed_by(op)) {
            return Err(ErrorKind::Unsupported.into());
        }
        if op == Op::Flush {
            return Ok(());
        }
        if op.data_bytes(request.len).is_some_and(|bytes| bytes != request.data.len() as u64) {
            return Err(ErrorKind::Invalid.into());
        }
        let in_range = |from: u64| from.checked_add(request.len).is_some_and(|e| e <= self.size);
        let source = if let Op::Copy { from } = op { from } else { request.offset };
        if !in_range(request.offset) || !in_range(source) {
            return Err(ErrorKind::OutOfRange.into());
        }
        let mask = u64::from(self.block_size) - 1;
        if (request.offset | request.len | source) & mask != 0 {
            return Err(ErrorKind::Misaligned.into());
        }
        if op.is_write() && self.read_only {
            return Err(ErrorKind::ReadOnly.into());
        }
        let limit = match op {
            Op::CompareAndWrite { .. } | Op::OrWrite { .. } => u64::from(self.exclusive_max),
            Op::Write { atomic: true, .. } => u64::from(self.atomic_max),
            _ => u64::MAX,
        };
        if request.len > limit {
            return Err(Error::from(ErrorKind::Invalid).note("longer than the device's limit"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Buffer;

    fn kind(geometry: &Geometry, request: &Request<'_>) -> Option<ErrorKind> {
        geometry.check(request).err().map(|error| error.kind())
    }

    #[test]
    fn ranges_are_checked_without_overflow() {
        let geometry = Geometry::plain(1 << 20, 512);
        let block = Buffer::zeroed(512);
        let none = Buffer::zeroed(0);
        let cases = [
            (0, None),
            ((1 << 20) - 512, None),
            (1 << 20, Some(ErrorKind::OutOfRange)),
            (u64::MAX - 511, Some(ErrorKind::OutOfRange)),
            (256, Some(ErrorKind::Misaligned)),
        ];
        for (offset, expected) in cases {
            assert_eq!(kind(&geometry, &Request::read(offset, block.sgl())), expected, "{offset}");
        }
        assert_eq!(kind(&geometry, &Request::read(1 << 20, none.sgl())), None);
        assert_eq!(
            kind(&geometry, &Request::read((1 << 20) + 512, none.sgl())),
            Some(ErrorKind::OutOfRange)
        );
    }

    #[test]
    fn abilities_and_access_are_checked() {
        let block = Buffer::zeroed(512);
        let mut geometry = Geometry::plain(4096, 512);
        let discard = Request::plain(Op::Discard, 0, 512);
        assert_eq!(kind(&geometry, &discard), Some(ErrorKind::Unsupported));
        geometry.ops = OpSet::DISCARD | OpSet::COMPARE_AND_WRITE | OpSet::COPY;
        assert_eq!(kind(&geometry, &discard), None);
        let far = Request::plain(Op::Copy { from: 4096 }, 0, 512);
        assert_eq!(kind(&geometry, &far), Some(ErrorKind::OutOfRange));
        let mut compare = Request::write(0, block.sgl());
        compare.op = Op::CompareAndWrite { fua: false };
        assert_eq!(kind(&geometry, &compare), Some(ErrorKind::Invalid));
        geometry.read_only = true;
        assert_eq!(kind(&geometry, &Request::write(0, block.sgl())), Some(ErrorKind::ReadOnly));
        assert_eq!(kind(&geometry, &Request::flush()), None);
    }
}
