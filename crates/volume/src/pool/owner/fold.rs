//! Folding a frozen layer into the one that stands on it, extent by extent, so that it can go.
//!
//! ```text
//!   extent alone, all sealed ─▶ copies ── sync ──▶ record ─▶ in the map ─▶ quiet ─▶ place free
//! ```
//!
//! Most extents only change hands: the layer above has no place for them, and takes over the one
//! below. Where both have one, the blocks that only the lower layer has are copied to where the
//! upper one says nothing yet, and are durable before the record says so: a reader of the journal
//! has nothing to look at. What nobody stands on is given to nobody.

use std::collections::BTreeMap;

use super::super::journal::{BELOW, LayerNumber, Record, Serial};
use super::super::numbers::NumberMap;
use super::layers::Fold;
use super::{Begun, Order, Owner, Refusal, Ticket, What, Wish};

/// Tickets from here on are the owner's own.
const OWN_TICKETS: u64 = 1 << 63;

#[derive(Default)]
pub(super) struct Folds {
    /// Of those who have asked: extents that are not done yet, and what has become of the others.
    asked: NumberMap<Ticket, (usize, Result<(), Refusal>)>,
    pub(super) copying: NumberMap<Ticket, (Wish, Fold)>,
    /// What is copied waits for a sync that began after so many others.
    copied: Vec<(u64, Wish, Fold)>,
    tickets: u64,
    /// Extents of the top layer with blocks of which only this record, or one before it, says that
    /// they lie there. Who writes these in place, durably, must know that it is durable as well.
    pub unsealed: BTreeMap<u64, Serial>,
}

impl Folds {
    pub fn new(unsealed: BTreeMap<u64, Serial>) -> Self {
        Self { unsealed, ..Self::default() }
    }

    /// Those whose blocks are being copied, or are and are not in the map.
    pub fn wishes(&self) -> impl Iterator<Item = &Wish> {
        let copying = self.copying.values().map(|(wish, _)| wish);
        copying.chain(self.copied.iter().map(|(_, wish, _)| wish))
    }
}

impl Owner {
    /// Folds some extents of a layer into the one that stands on it. The layer is not the top, not
    /// more than one stands on it, and nobody reads it but through that. It is folded when it has
    /// no [pages left](super::Layers::pages_left). One layer at a time.
    pub fn fold(&mut self, ticket: Ticket, layer: LayerNumber, most: usize) -> Vec<Order> {
        self.begin_folds(ticket, layer, most);
        self.given()
    }

    pub(super) fn begin_folds(&mut self, ticket: Ticket, layer: LayerNumber, most: usize) {
        let extents = match self.layers.next_extents(layer, most) {
            Ok(extents) => extents,
            Err(absent) => return self.load_for_folds(absent, (ticket, layer, most)),
        };
        if extents.is_empty() {
            return self.answer(ticket, Ok(()));
        }
        let count = self.site.shape.blocks_per_extent();
        self.folds.asked.insert(ticket, (extents.len(), Ok(())));
        for extent in extents {
            self.folds.tickets += 1;
            let own = Ticket(OWN_TICKETS | self.folds.tickets);
            let what = What::Fold { layer, asked: ticket };
            self.begin(Wish { ticket: own, block: extent * count, count, what });
        }
    }

    /// What was ordered to be copied is, or could not be.
    pub fn copied(&mut self, ticket: Ticket, is_done: bool) -> Vec<Order> {
        if let Some((wish, fold)) = self.folds.copying.remove(&ticket) {
            if is_done {
                self.folds.copied.push((self.syncs_begun, wish, fold));
            } else {
                self.fold_ended(&wish, Err(Refusal::NotCopied));
                self.leave(&wish);
            }
        }
        self.given()
    }

    /// An error: there is no room now.
    pub(super) fn begin_fold(&mut self, wish: Wish, layer: LayerNumber) -> Result<(), Wish> {
        if !self.journal.is_sealed(self.branched) {
            // What was written last into the frozen layer may still be doubtful.
            self.leave_gate(&wish);
            self.for_seal.entry(self.branched).or_default().push(wish);
            return Ok(());
        }
        if self.must_wait(layer, wish.block) {
            return Err(wish);
        }
        let fold = self.layers.fold_of(layer, self.layers.extent_of(wish.block));
        if fold.into.is_some_and(|into| !self.has_room(0, into, wish.block)) {
            return self.refuse(wish);
        }
        let (Some(from), Some(to), false) = (fold.from, fold.place, fold.copies.is_empty()) else {
            return self.record_fold(wish, fold);
        };
        let [from, to] = [from, to].map(|place| self.layers.spot(place, wish.block));
        let (ticket, runs) = (wish.ticket, fold.copies.clone());
        self.orders.push(Order::Copy { ticket, from, to, runs });
        self.folds.copying.insert(ticket, (wish, fold));
        Ok(())
    }

    fn record_fold(&mut self, wish: Wish, fold: Fold) -> Result<(), Wish> {
        let layer = if let What::Fold { layer, .. } = wish.what { layer } else { BELOW };
        let extent = self.layers.extent_of(wish.block);
        let (into, place) = (fold.into, fold.place);
        let record = Record::Folded { layer, into, extent, place };
        let Ok(serial) = self.journal.append(&record) else {
            self.is_journal_full = true;
            return Err(wish);
        };
        self.recorded.insert(serial, Begun { wish, is_carrying: false, fold: Some(record) });
        Ok(())
    }

    /// The record of a fold is written.
    pub(super) fn folded(&mut self, serial: Serial, wish: Wish, record: &Record) {
        let ticket = wish.ticket;
        if let Some(extent) = self.layers.freshen(record) {
            self.folds.unsealed.insert(extent, serial);
        }
        let left = self.layers.apply(record, self.about().size);
        self.is_brought(record);
        let page = Some(self.layers.form().locate(wish.block).0);
        self.orders.push(Order::Quiesce { ticket, page });
        self.quiescing.insert(ticket, (wish, left));
        self.change();
    }

    pub(super) fn fold_ended(&mut self, wish: &Wish, done: Result<(), Refusal>) {
        let asked = match wish.what {
            What::Fold { asked, .. } => asked,
            What::Bring(_) => return self.answer(wish.ticket, done),
            What::Write(_) | What::Zero => return,
        };
        let Some((left, all)) = self.folds.asked.get_mut(&asked) else { return };
        *left -= 1;
        *all = all.and(done);
        if *left == 0 {
            let all = *all;
            self.folds.asked.remove(&asked);
            self.answer(asked, all);
        }
    }

    pub(super) fn folds_want_sync(&self) -> bool {
        self.folds.copied.iter().any(|(syncs, ..)| *syncs >= self.syncs_begun)
    }

    /// A sync has ended.
    pub(super) fn advance_folds(&mut self) {
        let ended = self.syncs_ended;
        let durable: Vec<_> =
            self.folds.copied.extract_if(.., |(syncs, ..)| ended > *syncs).collect();
        for (_, wish, fold) in durable {
            if let Err(wish) = self.record_fold(wish, fold) {
                self.leave_gate(&wish);
                self.for_room.push_back(wish);
            }
        }
    }

    pub(super) fn is_folding(&self) -> bool {
        !self.folds.asked.is_empty()
    }
}
