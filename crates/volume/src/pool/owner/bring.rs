//! Bringing an LU from where it was before: a disk or a file that is none of the pool's lies below
//! its lowest layer, and what no layer says of a block is what that has there. It is never written,
//! so what it has can be brought into the lowest layer at any time, extent by extent.
//!
//! ```text
//!   read there ─▶ extent alone, all sealed ─▶ data of blocks that are absent ── sync ──▶
//!                                                 record ─▶ in the map ─▶ quiet
//! ```
//!
//! It is the fold of a layer that says something of every block, and so is the record: none of the
//! lower layer, whose number no layer has. What reads zero there need not be brought: it reads zero
//! as well when nothing lies below any more. Until then a discarded block is said to be zero.
//!
//! The lowest layer stays the same meanwhile: it is not folded into the next one before all is
//! brought. That it may be frozen matters to nobody, because nobody reads anything else by it.

use std::collections::BTreeSet;

use super::super::journal::{BELOW, LayerNumber, Record};
use super::super::root::{About, Source};
use super::super::shape::Shape;
use super::layers::Fold;
use super::{Order, Owner, Ticket, What, Wish};

/// Extents that were tried and are not brought, before no others are tried.
const MISSED_MAX: usize = 4096;

/// How far an LU is brought, of what lies below it.
#[derive(Clone, Debug)]
pub struct Bringing {
    /// Extents of it.
    extents: u64,
    /// All before this one are brought, or begun and missing.
    next: u64,
    missing: BTreeSet<u64>,
}

/// What was read below an extent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// All that could be read is zero.
    pub is_zero: bool,
    /// Blocks in the extent that cannot be read.
    pub unread: Vec<u64>,
}

impl Bringing {
    pub(super) fn of(source: &Source, shape: Shape, next: u64) -> Self {
        let extents = source.size.div_ceil(shape.extent_bytes());
        Self { extents, next: next.min(extents), missing: BTreeSet::new() }
    }

    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// Extents that are brought.
    pub fn done(&self) -> u64 {
        self.next - self.missing.len() as u64
    }

    pub fn is_done(&self) -> bool {
        self.done() == self.extents
    }

    /// Extents before this one are brought.
    pub(super) fn all_before(&self) -> u64 {
        self.missing.first().copied().unwrap_or(self.next)
    }

    /// One that is brought, also if it was not begun here.
    pub(super) fn has(&mut self, extent: u64) {
        self.missing.remove(&extent);
    }

    /// The next extents to be brought: new ones, or behind the last one those again that are
    /// missing.
    fn take(&mut self, most: usize) -> Vec<u64> {
        if self.next == self.extents || self.missing.len() >= MISSED_MAX {
            return self.missing.iter().take(most).copied().collect();
        }
        let end = self.extents.min(self.next + most as u64);
        let taken: Vec<u64> = (self.next..end).collect();
        self.missing.extend(&taken);
        self.next = end;
        taken
    }
}

impl Owner {
    /// How far the LU is brought, if there is anything below it.
    pub fn bringing(&self) -> Option<&Bringing> {
        self.layers.bringing()
    }

    /// Whether what lies below is brought into this layer.
    pub fn is_brought_into(&self, layer: LayerNumber) -> bool {
        self.bringing().is_some() && self.layers.lowest() == layer
    }

    /// Numbers of the extents that are to be brought next.
    pub fn next_to_bring(&mut self, most: usize) -> Vec<u64> {
        self.layers.bringing_mut().map(|it| it.take(most)).unwrap_or_default()
    }

    /// Of the extent this was read below it. Whoever asks has the data until that is answered.
    pub fn bring(&mut self, ticket: Ticket, extent: u64, fetched: Fetched) -> Vec<Order> {
        if fetched.is_zero && fetched.unread.is_empty() {
            self.layers.brought(extent);
            self.answer(ticket, Ok(()));
            return self.given();
        }
        let count = self.site.shape.blocks_per_extent();
        self.begin(Wish { ticket, block: extent * count, count, what: What::Bring(fetched) });
        self.given()
    }

    /// Whether the lowest layer says all of an extent, as far as can be told at once.
    pub fn is_brought_anyway(&self, extent: u64) -> bool {
        let block = extent * self.site.shape.blocks_per_extent();
        let page = (self.layers.lowest(), self.layers.form().locate(block).0);
        !self.layers.is_absent(page) && self.layers.lacking(extent).is_empty()
    }

    /// How far the LU is brought shall be in the root. Answered when it is.
    pub fn keep_brought(&mut self, ticket: Ticket) -> Vec<Order> {
        self.rooted.described.push(ticket);
        self.given()
    }

    /// Nothing is needed any more of what lies below. Answered when the root says so.
    pub fn end_bringing(&mut self, ticket: Ticket) -> Vec<Order> {
        assert!(self.bringing().is_none_or(Bringing::is_done), "it is brought first");
        let about = About { source: None, ..self.about().clone() };
        self.layers.end_bringing();
        self.describe(ticket, about)
    }

    /// An error: there is no room now.
    pub(super) fn begin_bring(&mut self, wish: Wish) -> Result<(), Wish> {
        let What::Bring(fetched) = &wish.what else { unreachable!("asked before") };
        let (into, extent) = (self.layers.lowest(), self.layers.extent_of(wish.block));
        let copies = self.layers.lacking(extent);
        let is_in =
            |block: u64| copies.iter().any(|(at, count)| (*at..at + count).contains(&block));
        if let Some(&block) = fetched.unread.iter().find(|block| is_in(**block)) {
            let block = wish.block + block;
            self.give_up(&wish, super::Refusal::Below { block });
            return Ok(());
        }
        if copies.is_empty() || fetched.is_zero {
            self.layers.brought(extent);
            self.answer(wish.ticket, Ok(()));
            self.leave(&wish);
            return Ok(());
        }
        if self.must_wait(into, wish.block) {
            return Err(wish);
        }
        let is_there = self.layers.place_in(into, wish.block);
        if !self.has_room(u64::from(is_there.is_none()), into, wish.block) {
            return self.refuse(wish);
        }
        let place = is_there.unwrap_or_else(|| {
            // It is the extent's from now on, with or without blocks.
            let place = self.space.take().expect("there are some");
            self.layers.settle_in(into, wish.block, place);
            place
        });
        let to = self.layers.spot(place, wish.block);
        let (ticket, runs) = (wish.ticket, copies.clone());
        self.orders.push(Order::Bring { ticket, to, runs });
        let fold = Fold { into: Some(into), place: Some(place), copies, from: None };
        self.folds.copying.insert(ticket, (wish, fold));
        Ok(())
    }

    /// The record of what was brought is written.
    pub(super) fn is_brought(&mut self, record: &Record) {
        if let Record::Folded { layer: BELOW, extent, .. } = *record {
            self.layers.brought(extent);
        }
    }
}
