//! Scrubbing: everything that counts in a pool is read at every place, while the pool is used, and
//! compared with its checksums, or with its other copies. What is not as it should be is written
//! anew where that is known, and told in any case.
//!
//! An LU is walked over in steps, by whoever calls: so he has the pace, and may stop at any time.
//! A step begins where the last one has ended, whatever has become of the LU meanwhile: each block
//! that is written when the walk begins, and stays, is looked at once at least.
//!
//! | step | what is read |
//! |---|---|
//! | [`Cursor::Root`] | both heads of the root, and the body of the one that counts |
//! | [`Cursor::Journal`] | pages that a reader would need |
//! | [`Cursor::Sums`] | pages of checksums, slab by slab |
//! | [`Cursor::Map`] | each page of a map on disk, and the blocks that it speaks of |
//!
//! Not here: labels and slab tables (`home::scrub`), and how a step is done (`lu::service::scrub`).

use super::check::{Counts, Finding};
use super::disks::Outcome;
use super::owner::{LayerId, LayerNumber};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Metadata,
    Everything,
}

/// Where a walk over an LU goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    #[default]
    Root,
    /// From this page on.
    Journal(u64),
    /// From this slab on.
    Sums(u32),
    /// From this extent of a page on.
    Map { number: u64, layer: LayerNumber, extent: usize },
}

/// Blocks of a client, one behind the other, that were not as they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub outcome: Outcome,
    /// Whose they are: the LU's as it is, or a snapshot's.
    pub layer: LayerId,
    /// Blocks of the LU.
    pub block: u64,
    pub count: u64,
    /// Where; of those that differ, all of them.
    pub disks: Vec<String>,
}

/// What a step has read, and found.
#[derive(Debug, Default)]
pub struct Step {
    /// Where the next one begins; none: that was the last one.
    pub next: Option<Cursor>,
    /// At all places together.
    pub bytes: u64,
    /// Extents of which the data was read.
    pub extents: u64,
    pub counts: Counts,
    pub damage: Vec<Damage>,
    pub findings: Vec<Finding>,
}
