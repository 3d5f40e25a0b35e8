//! What an LU has had done below it, since it was opened: for benchmarks, and whoever wonders why
//! it is slow.

use std::time::Duration;

/// Everything that is not a read or a write of sealed blocks, which nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pieces of data that the owner gave a place.
    pub data: u64,
    /// Pages of the journal.
    pub journal: u64,
    /// Pages of maps and of root's bodies.
    pub pages: u64,
    /// Pages of maps that were read.
    pub loads: u64,
    /// Pages of maps that left memory.
    pub let_go: u64,
    /// Heads of roots.
    pub roots: u64,
    pub syncs: u64,
    /// Times that the LU grew, and how long that took together.
    pub growths: u64,
    pub growing: Duration,
    /// Pieces that did not have a place at once, and how long they waited together.
    pub held: u64,
    pub holding: Duration,
}

impl Counts {
    /// What was added to those.
    pub fn since(self, before: Self) -> Self {
        Self {
            data: self.data - before.data,
            journal: self.journal - before.journal,
            pages: self.pages - before.pages,
            loads: self.loads - before.loads,
            let_go: self.let_go - before.let_go,
            roots: self.roots - before.roots,
            syncs: self.syncs - before.syncs,
            growths: self.growths - before.growths,
            growing: self.growing - before.growing,
            held: self.held - before.held,
            holding: self.holding - before.holding,
        }
    }
}
