//! What can be asked of a device: one operation on one byte range, with a scatter list.
//!
//! A [`Request`] is borrowed for the call of `begin` only; whoever answers later keeps a
//! [`RequestBuf`], which owns the parts and pins the memory.

use crate::mem::{Sgl, SglBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    /// `fua`: answered when this data would survive a power loss. `atomic`: after a crash all of it
    /// is there or none; only devices that offer [`OpSet::WRITE_ATOMIC`](crate::OpSet) take it.
    Write {
        fua: bool,
        atomic: bool,
    },
    /// The data is twice `len`: what must be there, then what to write. One step against every
    /// other write to the LU, on whatever core.
    CompareAndWrite {
        fua: bool,
    },
    /// The data is OR-ed, bit by bit, into what is there. One step as above.
    OrWrite {
        fua: bool,
    },
    /// Everything answered before this request began survives a power loss.
    Flush,
    /// The range reads zero afterwards and its space may be given back.
    Discard,
    /// The range reads zero afterwards; `unmap` allows giving the space back.
    WriteZeroes {
        unmap: bool,
        fua: bool,
    },
    /// Fills the data with [extent records](crate::extent); the outcome is their number.
    Status,
    /// Copies `len` bytes from `from` on the same device.
    Copy {
        from: u64,
    },
}

impl Op {
    /// Changes what a later read returns.
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::Read | Self::Flush | Self::Status)
    }

    /// Looks at what is there and writes what follows from it, as one step (see
    /// [`step`](crate::step)).
    pub const fn is_exclusive(self) -> bool {
        matches!(self, Self::CompareAndWrite { .. } | Self::OrWrite { .. })
    }

    /// Bytes of data that belong to a request of `len` bytes; None where the client chooses.
    pub const fn data_bytes(self, len: u64) -> Option<u64> {
        match self {
            Self::Read | Self::Write { .. } | Self::OrWrite { .. } => Some(len),
            Self::CompareAndWrite { .. } => len.checked_mul(2),
            Self::Flush | Self::Discard | Self::WriteZeroes { .. } | Self::Copy { .. } => Some(0),
            Self::Status => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write { .. } => "write",
            Self::CompareAndWrite { .. } => "compare-and-write",
            Self::OrWrite { .. } => "or-write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes { .. } => "write-zeroes",
            Self::Status => "status",
            Self::Copy { .. } => "copy",
        }
    }
}

/// One request, on a byte range, valid for the call it is handed to.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub op: Op,
    pub offset: u64,
    pub len: u64,
    pub data: Sgl<'a>,
}

impl<'a> Request<'a> {
    pub fn read(offset: u64, data: Sgl<'a>) -> Self {
        Self { op: Op::Read, offset, len: data.len() as u64, data }
    }

    pub fn write(offset: u64, data: Sgl<'a>) -> Self {
        let op = Op::Write { fua: false, atomic: false };
        Self { op, offset, len: data.len() as u64, data }
    }

    /// An operation without data: flush, discard, write-zeroes, copy.
    pub fn plain(op: Op, offset: u64, len: u64) -> Self {
        Self { op, offset, len, data: Sgl::empty() }
    }

    pub fn flush() -> Self {
        Self::plain(Op::Flush, 0, 0)
    }

    /// Takes parts and pin along, for an answer that comes later.
    pub fn to_buf(&self) -> RequestBuf {
        RequestBuf { op: self.op, offset: self.offset, len: self.len, data: self.data.to_buf() }
    }

    /// Whether two byte ranges share a byte.
    pub fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.offset < offset.saturating_add(len) && offset < self.offset.saturating_add(self.len)
    }
}

/// A request that owns its parts and its pin.
#[derive(Debug)]
pub struct RequestBuf {
    pub op: Op,
    pub offset: u64,
    pub len: u64,
    pub data: SglBuf,
}

impl RequestBuf {
    pub fn as_request(&self) -> Request<'_> {
        Request { op: self.op, offset: self.offset, len: self.len, data: self.data.sgl() }
    }
}
