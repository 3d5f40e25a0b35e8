//! Checkpoints: what is in the journal goes into pages of the map, so that the journal may forget
//! it.
//!
//! ```text
//!   images ─▶ pages ── sync ──▶ root ── sync ──▶ the journal lets go
//! ```
//!
//! A page is written at the place that does not count; the root says that it counts from now on. So
//! a crash at any step leaves the former root with its pages and the whole journal behind it. The
//! first sync covers the pages and the data that they speak of, the second one the root.

use super::super::journal::Start;
use super::layers::{Chunks, LayerId};
use super::{Order, Owner};

/// What an owner begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The top one first.
    pub layers: Vec<(LayerId, Chunks)>,
    pub start: Start,
}

/// How far one is. What waits for a sync waits for one that began after so many others.
#[derive(Debug, Default)]
pub(super) enum Checkpoint {
    #[default]
    None,
    Pages {
        left: usize,
        root: Root,
    },
    PagesWritten {
        root: Root,
        syncs: u64,
    },
    Root {
        start: Start,
    },
    RootWritten {
        start: Start,
        syncs: u64,
    },
}

impl Owner {
    /// Begins one, unless one is under way or would change nothing.
    pub(super) fn begin_checkpoint(&mut self) {
        let first = [self.recorded.first_key_value().map(|(serial, _)| *serial), self.freezing];
        let first = first.into_iter().flatten().min().unwrap_or(self.journal.next_serial());
        let start = self.journal.start_for(first);
        let is_of_use = self.journal.would_let_go(start);
        if !matches!(self.checkpoint, Checkpoint::None) || !is_of_use {
            return;
        }
        let space = &mut self.space;
        let Some(pages) = self.layers.images(self.journal.epoch(), || space.take()) else { return };
        let root = Root { layers: self.layers.chunks(), start };
        self.checkpoint = match pages.len() {
            0 => Checkpoint::PagesWritten { root, syncs: self.syncs_begun },
            left => Checkpoint::Pages { left, root },
        };
        self.orders.extend(pages.into_iter().map(|(at, page)| Order::Page { at, page }));
    }

    pub(super) fn checkpoint_wants_sync(&self) -> bool {
        match &self.checkpoint {
            Checkpoint::PagesWritten { syncs, .. } | Checkpoint::RootWritten { syncs, .. } => {
                *syncs >= self.syncs_begun
            }
            Checkpoint::None | Checkpoint::Pages { .. } | Checkpoint::Root { .. } => false,
        }
    }

    /// A sync has ended.
    pub(super) fn advance_checkpoint(&mut self) {
        let ended = self.syncs_ended;
        self.checkpoint = match std::mem::take(&mut self.checkpoint) {
            Checkpoint::PagesWritten { root, syncs } if ended > syncs => {
                let start = root.start;
                self.orders.push(Order::Root(root));
                Checkpoint::Root { start }
            }
            Checkpoint::RootWritten { start, syncs } if ended > syncs => {
                self.journal.let_go(start);
                Checkpoint::None
            }
            same => same,
        };
    }

    /// A page of a map is written.
    pub fn page_written(&mut self) -> Vec<Order> {
        if let Checkpoint::Pages { left, root } = &mut self.checkpoint {
            *left -= 1;
            if *left == 0 {
                let (root, syncs) = (root.clone(), self.syncs_begun);
                self.checkpoint = Checkpoint::PagesWritten { root, syncs };
            }
        }
        self.given()
    }

    /// The root is written, and one of its two places has what was before.
    pub fn root_written(&mut self) -> Vec<Order> {
        if let Checkpoint::Root { start } = self.checkpoint {
            self.checkpoint = Checkpoint::RootWritten { start, syncs: self.syncs_begun };
        }
        self.given()
    }
}
