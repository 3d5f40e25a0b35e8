//! Rings in client memory: the one place of this crate that touches raw addresses.
//!
//! | what | where |
//! |---|---|
//! | regions of client memory, translation, the dirty log | `memory` |
//! | the buffers of one request | `buffers` |
//! | the split virtqueue | `split` |
//! | the in-flight region, which outlives this process | `inflight` |
//!
//! Everything read here was written by somebody we do not trust and may change while we look: each
//! value is read once, into a local, and checked there. An index or address that is not valid is a
//! [`Fault`], which ends the ring, never the process.

#![allow(unsafe_code)]

mod buffers;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod inflight;
mod memory;
mod split;

pub use buffers::{Buffers, Spot};
pub use inflight::{Inflight, InflightMemory};
pub use memory::{Log, MapError, Memory, Region, View};
pub use split::{Chain, Misplaced, Placement, Split};

use std::fmt;

/// What a driver did to its ring that cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More requests announced than the ring has places.
    AvailIndex { announced: u16, size: u16 },
    /// A head that is not an index of the table.
    Head { head: u16, size: u16 },
    /// A head whose request has not been answered yet.
    HeadInUse { head: u16 },
    /// A `next` that is not an index of the table.
    Next { next: u16, size: u16 },
    /// More descriptors than there are: the chain loops.
    Loop { head: u16 },
    /// An indirect table inside another one, with NEXT, of no or odd length, or not negotiated.
    Indirect { head: u16, len: u32 },
    /// A buffer that the device reads after one that it writes.
    Order { head: u16 },
    /// A buffer outside of the declared memory.
    Address { head: u16, at: u64, len: u32 },
    /// No room for the command's header or its status.
    Short { head: u16 },
    /// Buffers longer than 4 GiB together.
    Length { head: u16 },
    /// The client has cut the memory that it shared.
    MemoryGone,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AvailIndex { announced, size } => {
                write!(f, "{announced} requests announced in a ring of {size}")
            }
            Self::Head { head, size } => write!(f, "head {head} in a ring of {size}"),
            Self::HeadInUse { head } => write!(f, "head {head} announced while it is in use"),
            Self::Next { next, size } => write!(f, "next descriptor {next} in a table of {size}"),
            Self::Loop { head } => write!(f, "the descriptors of head {head} loop"),
            Self::Indirect { head, len } => {
                write!(f, "head {head} has an invalid indirect table of {len} bytes")
            }
            Self::Order { head } => {
                write!(f, "head {head} has a readable buffer behind a writable one")
            }
            Self::Address { head, at, len } => {
                write!(f, "head {head} has {len} bytes at {at:#x}, outside of the shared memory")
            }
            Self::Short { head } => {
                write!(f, "head {head} has no room for a request's header or status")
            }
            Self::Length { head } => write!(f, "the buffers of head {head} exceed 4 GiB"),
            Self::MemoryGone => f.write_str("the client truncated the memory that it shares"),
        }
    }
}

impl std::error::Error for Fault {}
