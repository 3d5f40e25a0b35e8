//! What a scrub wants to know of an owner: which pages there are and where, as they are at this
//! moment. Whoever reads one looks once more when it has: what is not named any more is nobody's.

use std::sync::Arc;

use super::super::journal::Spot;
use super::super::map::MapPage;
use super::super::root::Site;
use super::checkpoint::Checkpoint;
use super::{LayerId, LayerNumber, Order, Owner, PageId, Ticket};

/// Where a page of a map lies, and what it has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lies {
    pub at: Spot,
    pub layer: LayerId,
    /// Of the root that names it, or a later one.
    pub turn: u64,
}

impl Owner {
    pub fn site(&self) -> Site {
        self.site
    }

    /// The first page from this one on: in the order of their numbers, and of one number from the
    /// lowest layer up, as layers are folded into each other.
    pub fn page_from(&self, from: (u64, LayerNumber)) -> Option<PageId> {
        let layers = self.layers.ids().map(|(layer, _)| layer);
        let first = |layer: LayerNumber| {
            let number = from.0 + u64::from(layer < from.1);
            let first = self.layers.numbers(layer, number).next();
            first.map(|number| (number, layer))
        };
        layers.filter_map(first).min().map(|(number, layer)| (layer, number))
    }

    /// A page that is in memory.
    pub fn page_here(&self, id: PageId) -> Option<Arc<MapPage>> {
        self.layers.page_here(id).cloned()
    }

    /// Whether a page has to be read before anybody looks into it.
    pub fn is_absent(&self, id: PageId) -> bool {
        self.layers.is_absent(id)
    }

    /// Where a page lies that the newest root names. None: it is not on disk yet, or just being
    /// written.
    pub fn lies(&self, id: PageId) -> Option<Lies> {
        let (at, layer) = (self.layers.written_at(id)?, self.layers.id(id.0)?);
        Some(Lies { at, layer, turn: self.rooted.root.turn })
    }

    /// What a page says that is in memory will be written anew with the next checkpoint.
    pub fn write_anew(&mut self, id: PageId) -> bool {
        let is_here = self.layers.page_here(id).is_some();
        if is_here {
            self.layers.make_dirty(id);
        }
        is_here
    }

    /// The turn of the root, if that is not just being written.
    pub fn settled_turn(&self) -> Option<u64> {
        matches!(self.checkpoint, Checkpoint::None).then_some(self.rooted.root.turn)
    }

    /// The first page of the journal from this one on that a reader would need, with its place and
    /// who wrote it.
    pub fn journal_page(&self, from: u64) -> Option<(u64, Spot, u64)> {
        let (number, epoch) = self.journal.needed(from)?;
        Some((number, self.ring_spot(number), epoch))
    }

    /// A page, with [`Order::Found`] when it is in memory; nothing if there is none.
    pub fn fetch(&mut self, ticket: Ticket, id: PageId) -> Vec<Order> {
        self.begin_fetch(ticket, id);
        self.given()
    }
}
