//! Checkpoints: what is in the journal goes into pages of the map, so that the journal may forget
//! it.
//!
//! ```text
//!   pages ── sync ──▶ root ── sync ──▶ the journal lets go
//! ```
//!
//! A page is written as it was when the checkpoint began, at the place that does not count; the
//! root says that it counts from now on. So
//! a crash at any step leaves the former root with its pages and the whole journal behind it. The
//! first sync covers the pages and the data that they speak of, the second one the root.

use super::super::journal::{LayerNumber, Spot, Start};
use super::super::map::Place;
use super::super::page::Page;
use super::super::root::{About, Missed, Root};
use super::copy::Copies;
use super::{Bringing, Order, Owner, Ticket};

/// How far one is. What waits for a sync waits for one that began after so many others.
#[derive(Debug, Default)]
pub(super) enum Checkpoint {
    #[default]
    None,
    Pages {
        left: usize,
        next: Next,
    },
    PagesWritten {
        next: Next,
        syncs: u64,
    },
    Root {
        start: Start,
        left: Left,
    },
    RootWritten {
        start: Start,
        left: Left,
        syncs: u64,
    },
}

/// What follows when the pages are durable.
#[derive(Debug)]
pub(super) struct Next {
    head: (Spot, Page),
    start: Start,
    left: Left,
}

/// What the root before may have named and this one does not.
#[derive(Debug)]
pub(super) struct Left {
    extents: Vec<Place>,
    /// Nothing of them is used: whoever opened the LU by the former root would miss them.
    slabs: Vec<u32>,
}

/// What an LU is, and how the last root said it.
#[derive(Debug)]
pub(super) struct Rooted {
    /// The last one that was written or is being written. Its layers are left out.
    pub root: Root,
    /// Those who wait until what they said of the LU is durable, in the next checkpoint.
    pub described: Vec<Ticket>,
    /// The same for the one that is under way.
    pub describing: Vec<Ticket>,
    pub copies: Copies,
    /// Who knows what copies may lack.
    pub witness: Option<Box<dyn Witness>>,
}

/// Knows what copies of the LU may lack that do not have everything.
pub trait Witness: std::fmt::Debug {
    /// Of these slabs, which are all. What is on its way has a record, or an open region. None:
    /// there are no copies.
    fn missed(&mut self, slabs: &mut dyn Iterator<Item = u32>) -> Option<Missed>;
}

impl Rooted {
    pub fn of(root: Root) -> Self {
        let (described, describing) = (Vec::new(), Vec::new());
        Self { root, described, describing, copies: Copies::default(), witness: None }
    }
}

impl Owner {
    pub fn about(&self) -> &About {
        &self.rooted.root.about
    }

    /// What copies may lack, as the owner before has left it: told once.
    pub fn take_missed(&mut self) -> Option<Missed> {
        self.rooted.root.missed.take()
    }

    /// From now on it is known what copies may lack.
    pub fn ask_witness(&mut self, witness: Box<dyn Witness>) {
        self.rooted.witness = Some(witness);
    }

    /// Says what the LU is from now on. Answered when that is durable.
    pub fn describe(&mut self, ticket: Ticket, about: About) -> Vec<Order> {
        self.may_have_surplus |= about.size < self.about().size;
        self.rooted.root.about = about;
        self.rooted.described.push(ticket);
        self.given()
    }

    /// Makes one, if it would make the journal shorter and there is room for it.
    pub fn checkpoint(&mut self) -> Vec<Order> {
        self.begin_checkpoint();
        self.given()
    }

    /// Says what a frozen layer is called from now on. Answered when that is durable.
    pub fn name_layer(&mut self, ticket: Ticket, layer: LayerNumber, name: String) -> Vec<Order> {
        self.layers.rename(layer, name);
        self.rooted.described.push(ticket);
        self.given()
    }

    /// Begins one, unless one is under way or would change nothing.
    pub(super) fn begin_checkpoint(&mut self) {
        let changing = self.changing.as_ref().map(|(serial, _)| *serial);
        let first = [self.recorded.first_key_value().map(|(serial, _)| *serial), changing];
        let first = first.into_iter().flatten().min().unwrap_or(self.journal.next_serial());
        let start = self.journal.start_for(first);
        let is_of_use = self.journal.would_let_go(start) || self.wants_root() || self.wants_clean();
        let may_begin = matches!(self.checkpoint, Checkpoint::None) && !self.holds_roots();
        if !may_begin || !is_of_use {
            return;
        }
        if self.wants_clean() {
            self.want_all_sealed();
        }
        self.is_pressed = false;
        let (space, epoch) = (&mut self.space, self.journal.epoch());
        let witness = self.rooted.witness.as_mut();
        let missed = witness.and_then(|witness| witness.missed(&mut space.slabs()));
        let root = &mut self.rooted.root;
        let turn = root.turn + 1;
        // Nothing names what is left, and nobody has what is about to become free.
        let freed = self.quiescing.values().filter_map(|(_, place)| *place);
        let unnamed: Vec<Place> = freed.chain(self.layers.left().iter().copied()).collect();
        let opened = self.opened.open.iter().filter(|(slab, _)| space.has(**slab));
        let opened = opened.map(|(slab, regions)| (*slab, *regions)).collect();
        // What is taken is kept when there is too little, so that trying again takes no more.
        let top = self.layers.top_number();
        let brought = self.layers.bringing().map_or(0, Bringing::all_before);
        let mut next = Root { turn, start, top, opened, missed, brought, ..root.clone() };
        let has_room = self.layers.pay(|| space.take()) && {
            next.layers = self.layers.for_root();
            let dirty = self.layers.dirty();
            loop {
                // What is taken for it is in it too.
                next.used = Some(space.encode(unnamed.iter().copied()));
                let free = space.free_extents();
                if !next.make_room(&self.site, dirty, || space.take()) {
                    // Without that nothing is lost but time.
                    if next.missed.take().is_some() {
                        continue;
                    }
                    break false;
                }
                if space.free_extents() == free {
                    break true;
                }
            }
        };
        root.beyond.clone_from(&next.beyond);
        if !has_room {
            self.is_cramped = true;
            return self.grow();
        }
        let images = self.layers.begin_images();
        next.layers = self.layers.for_root();
        root.turn = turn;
        let (body, head) = next.encode(&self.site, epoch);
        let (extents, slabs) = (self.layers.take_left(), std::mem::take(&mut self.surplus));
        let next = Next { head, start, left: Left { extents, slabs } };
        self.rooted.describing = std::mem::take(&mut self.rooted.described);
        self.copy_again();
        self.checkpoint = Checkpoint::Pages { left: images + body.len(), next };
        self.orders.extend(body.into_iter().map(|(at, page)| Order::Page { at, page }));
        if images > 0 {
            self.orders.push(Order::Images);
        }
    }

    /// The next page of a map that the checkpoint writes, as it was when that began.
    pub fn next_image(&mut self) -> Option<(Spot, Page)> {
        self.layers.next_image((self.journal.epoch(), self.rooted.root.turn))
    }

    /// Something waits for the next root.
    pub(super) fn wants_root(&self) -> bool {
        !self.rooted.described.is_empty() || self.layers.has_left() || !self.surplus.is_empty()
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
            Checkpoint::PagesWritten { next, syncs } if ended > syncs => {
                let Next { head: (at, page), start, left } = next;
                self.orders.push(Order::Root { at, page });
                Checkpoint::Root { start, left }
            }
            Checkpoint::RootWritten { start, left, syncs } if ended > syncs => {
                self.journal.let_go(start);
                let Left { extents, slabs } = left;
                self.may_have_surplus |= !extents.is_empty();
                extents.into_iter().for_each(|place| self.space.untake(place));
                if !slabs.is_empty() {
                    self.orders.push(Order::Shrink { slabs });
                }
                self.is_journal_full = false;
                let told = std::mem::take(&mut self.rooted.describing);
                told.into_iter().for_each(|ticket| self.answer(ticket, Ok(())));
                Checkpoint::None
            }
            same => same,
        };
    }

    /// A page of a map is written.
    pub fn page_written(&mut self) -> Vec<Order> {
        self.checkpoint = match std::mem::take(&mut self.checkpoint) {
            Checkpoint::Pages { left: 1, next } => {
                self.layers.images_written();
                Checkpoint::PagesWritten { next, syncs: self.syncs_begun }
            }
            Checkpoint::Pages { left, next } => Checkpoint::Pages { left: left - 1, next },
            same => same,
        };
        self.given()
    }

    /// The root is written, and one of its two places has what was before.
    pub fn root_written(&mut self) -> Vec<Order> {
        self.checkpoint = match std::mem::take(&mut self.checkpoint) {
            Checkpoint::Root { start, left } => {
                Checkpoint::RootWritten { start, left, syncs: self.syncs_begun }
            }
            same => same,
        };
        self.given()
    }
}
