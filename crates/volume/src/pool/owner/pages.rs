//! Pages of maps that leave memory, and what has to come before that.
//!
//! ```text
//!   changed ── checkpoint ──▶ on disk ── nobody looks ──▶ handles forget it ──▶ gone
//! ```
//!
//! What something under way will look into or change stays, with everything of its number: whoever
//! waits for pages finds all of them when the last one has come, however few there may be.

use std::collections::BTreeSet;

use super::checkpoint::Checkpoint;
use super::{LayerNumber, Order, Owner, PageId};

impl Owner {
    /// Pages of maps that are in memory.
    pub fn pages_here(&self) -> usize {
        self.layers.here()
    }

    /// Numbers of pages that may go when all who read have forgotten them: see [`Owner::let_go`].
    /// It goes on where it has ended the last time, looks at so many and gives so many at most,
    /// with how many it has looked at.
    pub fn idle_pages(&mut self, looks: usize, most: usize) -> (Vec<u64>, usize) {
        let pinned = self.pinned();
        self.layers.idle((looks, most), &pinned)
    }

    /// Lets pages of these numbers go that nobody has, and says how many that were, and their
    /// bytes.
    pub fn let_go(&mut self, numbers: &[u64]) -> (usize, usize) {
        let pinned = self.pinned();
        self.layers.let_go_of(numbers, &pinned)
    }

    /// The same of one that was read for somebody who has looked at all of it now, with what else
    /// is of its number. It stays if anybody has it.
    pub fn let_page_go(&mut self, id: PageId) {
        if let Some(page) = self.layers.page_here(id) {
            page.take_used();
        }
        self.let_go(&[id.1]);
    }

    /// Sees to it that pages may go later.
    pub fn make_clean(&mut self) -> Vec<Order> {
        self.is_pressed = true;
        self.want_all_sealed();
        self.given()
    }

    /// What is fresh is known nowhere but in pages that stay for that.
    pub(super) fn want_all_sealed(&mut self) {
        if let Some(last) = self.unsealed.values().chain(self.folds.unsealed.values()).max() {
            self.for_seal.entry(*last).or_default();
        }
    }

    /// Numbers of which something under way may need any page.
    fn pinned(&self) -> BTreeSet<u64> {
        let recorded = self.recorded.values().map(|begun| &begun.wish);
        let wishes = recorded.chain(self.folds.wishes());
        let form = self.layers.form();
        let begun = wishes.map(|wish| form.locate(wish.block).0);
        begun.chain(self.loads.numbers()).collect()
    }

    /// It is time for a checkpoint so that pages may go.
    pub(super) fn wants_clean(&self) -> bool {
        let is_wanted = self.is_pressed || self.layers.is_crowded(false);
        is_wanted && self.layers.dirty() > 0 && !self.is_cramped
    }

    /// Whether another page must not change before a checkpoint has ended. Without one that is
    /// under way nobody waits.
    pub(super) fn must_wait(&self, layer: LayerNumber, block: u64) -> bool {
        let id = (layer, self.layers.form().locate(block).0);
        let is_under_way = !matches!(self.checkpoint, Checkpoint::None);
        is_under_way && self.layers.is_crowded(true) && !self.layers.is_dirty(id)
    }
}
