//! The owner of an LU's map: every first write, every discard, every snapshot of the LU passes
//! through it. A machine without I/O: it orders what is to be written, and is told what has become
//! of that.
//!
//! Writes and discards come in pieces that lie within one extent, so that each has one place:
//!
//! ```text
//!   write ─▶ extent open? ─▶ all blocks sealed? ─┬ all written: the data alone
//!              │ no             │ no             └ else: its data and a record, side by side
//!              └ waits          └ waits for a seal
//! ```
//!
//! Reads, and writes to blocks that are written and sealed, need not come here: whoever has the
//! page of the map goes straight to the place ([`MapPage::look`]), and only has to be over before
//! the place is used for something else ([`Order::Quiesce`]).
//!
//! Not here: reading what an owner before has left (`open`), making the journal short again
//! (`checkpoint`), making layers fewer (`fold`), what lies below them (`bring`), pages of maps that
//! are not in memory (`load`), and that leave it (`pages`), having all space at once (`thick`),
//! what may be overwritten where there are several copies (`regions`).

mod bring;
mod checkpoint;
mod copy;
mod fold;
mod gate;
mod growth;
mod layers;
mod load;
mod open;
mod pages;
mod regions;
mod scrub;
#[cfg(test)]
mod tests;
mod thick;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::take;
use std::sync::Arc;

pub use super::journal::LayerNumber;
pub use bring::{Bringing, Fetched};
pub use checkpoint::Witness;
pub use layers::{Chunk, Chunks, LayerId, Layers, PageId, page_of_map};
pub use open::{LOOK_BEHIND_PAGES, Opening, Read, Unopened};
pub use regions::{ALL_REGIONS, Regions, regions_of};
pub use scrub::Lies;
pub use thick::{Room, extents_of_new};

use super::journal::{Full, Journal, Lack, Record, Serial, Spot, Sync, Write};
use super::map::{MapPage, Place};
use super::numbers::NumberMap;
use super::page::{Flaw, Page};
use super::root::Site;
use super::space::Space;
use checkpoint::{Checkpoint, Rooted};
use fold::Folds;
use gate::Gates;
use growth::Growth;
use load::Loads;
use regions::Opened;

/// Extents that are kept for what has to be written so that others become free.
const RESERVED_EXTENTS: u64 = 2;

/// Records that are not sealed, before that is seen to unasked.
const UNSEALED_MAX: usize = 4096;

/// How full the journal may become, in hundredths, before a checkpoint is begun.
const CHECKPOINT_PERCENT: u64 = 50;

/// Whatever leads back to who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the owner wants done. Orders may be carried out at once and in any order.
#[derive(Debug)]
pub enum Order {
    /// Write the data of this piece here, then [`Owner::data_written`]. Some of the blocks may be
    /// written already.
    Data {
        ticket: Ticket,
        at: Spot,
        count: u64,
        overwrites: bool,
    },
    /// Write a page of the journal, then [`Owner::journal_written`].
    Journal {
        number: u64,
        at: Spot,
        page: Page,
    },
    /// Let those go on who are answered now, so that what they want next is in the same page of the
    /// journal, then [`Owner::gathered`].
    Gather,
    /// Sync everything below, then [`Owner::synced`].
    Sync,
    /// Write a page of the root, then [`Owner::page_written`].
    Page {
        at: Spot,
        page: Page,
    },
    /// Write all that [`Owner::next_image`] gives, some at a time, and then each time
    /// [`Owner::page_written`].
    Images,
    /// Write the head of the root, then [`Owner::root_written`].
    Root {
        at: Spot,
        page: Page,
    },
    /// See to it that nobody is on the way by what the map said before, then [`Owner::quiet`]; with
    /// a page that everybody shall ask for anew.
    Quiesce {
        ticket: Ticket,
        page: Option<u64>,
    },
    /// Copy blocks from one extent to another, then [`Owner::copied`].
    Copy {
        ticket: Ticket,
        /// The first block of each extent.
        from: Spot,
        to: Spot,
        /// First blocks in the extent, and counts.
        runs: Vec<(u64, u64)>,
    },
    /// Write what was [fetched](Owner::bring) of these blocks, then [`Owner::copied`].
    Bring {
        ticket: Ticket,
        /// The first block of the extent.
        to: Spot,
        /// First blocks in the extent, and counts.
        runs: Vec<(u64, u64)>,
    },
    /// Read a page of a map, then [`Owner::loaded`].
    Load {
        id: PageId,
        at: Spot,
    },
    /// What was [looked](Owner::look) for.
    Found {
        ticket: Ticket,
        found: Result<Vec<Arc<MapPage>>, Refusal>,
    },
    /// Get so many slabs for the LU, then [`Owner::granted`].
    Grow {
        slabs: u64,
    },
    /// These slabs are not the LU's any more.
    Shrink {
        slabs: Vec<u32>,
    },
    Answer {
        ticket: Ticket,
        done: Result<(), Refusal>,
    },
}

impl Order {
    /// Whether nothing is written for it, nor said of anything that was.
    pub fn is_to_read(&self) -> bool {
        matches!(self, Self::Load { .. } | Self::Found { .. })
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the LU has no free extent")]
    NoSpace,
    #[error("a block cannot be copied")]
    NotCopied,
    #[error("block {block} cannot be read where the LU is brought from")]
    Below { block: u64 },
    #[error("{} cannot be read: {why}", page_of_map(*.id))]
    Map { id: PageId, why: Unread },
}

/// Why a page of a map cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("its disk has failed")]
    Disk,
    #[error(transparent)]
    Flaw(#[from] Flaw),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    ticket: Ticket,
    block: u64,
    count: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// With the sum of each block's data.
    Write(Vec<u32>),
    Zero,
    /// What this layer says of the extent is to be its child's; who has asked for that.
    Fold {
        layer: LayerNumber,
        asked: Ticket,
    },
    /// What lies below the lowest layer is to be in that.
    Bring(Fetched),
}

/// What waits for its record, or its data, to be written.
#[derive(Debug)]
struct Begun {
    wish: Wish,
    /// Data that is on its way.
    is_carrying: bool,
    /// Of a fold: its record, which says what becomes of the map.
    fold: Option<Record>,
}

/// A change of the layers. It waits for what is under way, and everything else for it.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A new top layer, on this one or on what is the top then.
    Branch {
        from: Option<LayerNumber>,
        top: LayerId,
    },
    Drop {
        layer: LayerNumber,
    },
}

/// A sync that is under way.
struct Syncing {
    sync: Sync,
    flushes: Vec<Ticket>,
}

pub struct Owner {
    journal: Journal,
    layers: Layers,
    space: Space,
    gates: Gates,
    /// By serial.
    recorded: BTreeMap<Serial, Begun>,
    /// Writes to places that are theirs already.
    direct: NumberMap<Ticket, Wish>,
    /// Of writes whose data is on its way.
    serials: NumberMap<Ticket, Serial>,
    /// What could not be written, and is to be said in the journal.
    lost: VecDeque<(Serial, u64, u64)>,
    /// The last record that says so.
    voided: Serial,
    /// Blocks of the top layer with a record that is not sealed.
    unsealed: NumberMap<u64, Serial>,
    /// Wishes that wait until this record is sealed.
    for_seal: BTreeMap<Serial, Vec<Wish>>,
    /// Wishes that wait for room in the journal, or for space that is about to become free.
    for_room: VecDeque<Wish>,
    /// The journal had no room for a record, so it is time for a checkpoint.
    is_journal_full: bool,
    /// Somebody wants memory.
    is_pressed: bool,
    /// There was no room for the last checkpoint that was tried.
    is_cramped: bool,
    /// One after the other.
    changes: VecDeque<(Ticket, Change)>,
    for_change: VecDeque<Wish>,
    /// The record of the first of them, once it is appended.
    changing: Option<(Serial, Record)>,
    /// The record of the last new layer.
    branched: Serial,
    folds: Folds,
    loads: Loads,
    opened: Opened,
    flushes: Vec<Ticket>,
    syncing: Option<Syncing>,
    syncs_begun: u64,
    syncs_ended: u64,
    /// What was discarded while somebody may still be on the way there, with the place that
    /// becomes free by it.
    quiescing: NumberMap<Ticket, (Wish, Option<Place>)>,
    growth: Growth,
    /// A thick LU may have more than it needs.
    may_have_surplus: bool,
    /// Slabs that go back to the pool when a root is durable that does not name them.
    surplus: Vec<u32>,
    site: Site,
    rooted: Rooted,
    checkpoint: Checkpoint,
    orders: Vec<Order>,
}

impl Owner {
    /// A piece of a write: within one extent, with the sum of each block.
    pub fn write(&mut self, ticket: Ticket, block: u64, sums: Vec<u32>) -> Vec<Order> {
        let count = sums.len() as u64;
        self.begin(Wish { ticket, block, count, what: What::Write(sums) });
        self.given()
    }

    /// A piece of a discard or of a write of zeroes: within one extent.
    pub fn zero(&mut self, ticket: Ticket, block: u64, count: u64) -> Vec<Order> {
        self.begin(Wish { ticket, block, count, what: What::Zero });
        self.given()
    }

    /// Everything that was answered shall survive loss of power.
    pub fn flush(&mut self, ticket: Ticket) -> Vec<Order> {
        self.flushes.push(ticket);
        self.given()
    }

    /// Freezes the top layer as it is when everything that was begun has ended, and puts a new one
    /// on top of it.
    pub fn snapshot(&mut self, ticket: Ticket, top: LayerId) -> Vec<Order> {
        self.ask_change(ticket, Change::Branch { from: None, top })
    }

    /// The same, with the new layer on this one: what the LU reads is what that was when it was
    /// frozen.
    pub fn roll_back(&mut self, ticket: Ticket, from: LayerNumber, top: LayerId) -> Vec<Order> {
        self.ask_change(ticket, Change::Branch { from: Some(from), top })
    }

    /// Lets go of a layer that is [folded](Owner::fold).
    pub fn drop_layer(&mut self, ticket: Ticket, layer: LayerNumber) -> Vec<Order> {
        assert!(self.layers.pages_left(layer) == 0, "it is folded first");
        self.ask_change(ticket, Change::Drop { layer })
    }

    fn ask_change(&mut self, ticket: Ticket, change: Change) -> Vec<Order> {
        self.changes.push_back((ticket, change));
        self.change();
        self.given()
    }

    /// The data of a piece is written.
    pub fn data_written(&mut self, ticket: Ticket) -> Vec<Order> {
        if let Some(wish) = self.direct.remove(&ticket) {
            self.leave(&wish);
            self.answer(ticket, Ok(()));
        } else if let Some(serial) = self.serials.remove(&ticket) {
            if let Some(begun) = self.recorded.get_mut(&serial) {
                begun.is_carrying = false;
            }
            self.journal.arrived(serial);
            self.finish();
        }
        self.given()
    }

    /// The data of a piece could not be written, or only in part. It is not answered.
    pub fn data_lost(&mut self, ticket: Ticket) -> Vec<Order> {
        if let Some(wish) = self.direct.remove(&ticket) {
            self.leave(&wish);
        } else if let Some(serial) = self.serials.remove(&ticket)
            && let Some(Begun { wish, .. }) = self.recorded.remove(&serial)
        {
            self.lost.push_back((serial, wish.block, wish.count));
            self.void_lost();
            self.leave(&wish);
        }
        self.given()
    }

    /// What is in the next page of the journal by now is written.
    pub fn gathered(&mut self) -> Vec<Order> {
        self.journal.end_gathering();
        while let Some(Write { number, page }) = self.journal.next_write() {
            let at = self.ring_spot(number);
            self.orders.push(Order::Journal { number, at, page });
        }
        self.given()
    }

    pub fn journal_written(&mut self, number: u64) -> Vec<Order> {
        self.journal.page_written(number);
        self.finish();
        self.given()
    }

    /// The sync that was ordered has ended well.
    pub fn synced(&mut self) -> Vec<Order> {
        let Some(Syncing { sync, flushes }) = self.syncing.take() else { return Vec::new() };
        self.journal.synced(sync);
        self.syncs_ended = self.syncs_begun;
        self.regions_synced(&flushes);
        flushes.into_iter().for_each(|ticket| self.answer(ticket, Ok(())));
        self.unfreshen();
        let journal = &self.journal;
        let sealed = self.for_seal.extract_if(.., |serial, _| journal.is_sealed(*serial));
        let wishes: Vec<Wish> = sealed.flat_map(|(_, wishes)| wishes).collect();
        self.space.sealed(self.journal.sealed());
        wishes.into_iter().for_each(|wish| self.begin(wish));
        self.advance_checkpoint();
        self.advance_folds();
        self.retry_for_room();
        self.given()
    }

    /// Nobody is on the way any more by what the map said before this.
    pub fn quiet(&mut self, ticket: Ticket) -> Vec<Order> {
        if let Some((wish, place)) = self.quiescing.remove(&ticket) {
            if let Some(place) = place {
                // Later than the record that freed it is late enough.
                self.space.give_back(self.journal.next_serial() - 1, place);
                self.space.sealed(self.journal.sealed());
            }
            self.fold_ended(&wish, Ok(()));
            self.leave(&wish);
        }
        self.given()
    }

    /// The pages of the map, for those who read.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    pub fn space(&mut self) -> &mut Space {
        &mut self.space
    }

    /// Nothing is under way or waits.
    pub fn is_idle(&self) -> bool {
        let waits = !self.for_seal.is_empty() || !self.for_room.is_empty();
        let runs = !self.recorded.is_empty() || !self.direct.is_empty();
        let changes = !self.changes.is_empty() || self.is_folding() || self.is_loading();
        !waits && !runs && !changes && self.flushes.is_empty()
    }

    /// Begins what is asked for, or puts it where it waits.
    fn begin(&mut self, wish: Wish) {
        if !self.changes.is_empty() {
            return self.for_change.push_back(wish);
        }
        let extent = self.layers.extent_of(wish.block);
        let is_alone = !matches!(wish.what, What::Write(_));
        let Some(wish) = self.gates.enter(extent, is_alone, wish) else { return };
        if let Err(wish) = self.begin_inside(wish) {
            self.gates.leave(extent).into_iter().for_each(|other| self.begin(other));
            self.for_room.push_back(wish);
        }
    }

    /// An error: there is no room now.
    fn begin_inside(&mut self, wish: Wish) -> Result<(), Wish> {
        let absent = self.absent_for(&wish);
        if !absent.is_empty() {
            self.load_for(wish, &absent);
            return Ok(());
        }
        let unsealed = self.unsealed_of(&wish);
        match (&wish.what, unsealed) {
            (What::Write(_) | What::Fold { .. } | What::Bring(_), Some(serial)) => {
                self.leave_gate(&wish);
                self.for_seal.entry(serial).or_default().push(wish);
                Ok(())
            }
            (What::Write(_), None) => self.begin_write(wish),
            (&What::Fold { layer, .. }, None) => self.begin_fold(wish, layer),
            (What::Bring(_), None) => self.begin_bring(wish),
            (What::Zero, _) => self.begin_zero(wish),
        }
    }

    /// The last record that is not sealed and says where these blocks lie.
    fn unsealed_of(&self, wish: &Wish) -> Option<Serial> {
        let blocks = wish.block..wish.block + wish.count;
        let written = blocks.filter_map(|block| self.unsealed.get(&block)).max();
        // Until then the layer below may be found again as it was, with its blocks there.
        let folded = self.folds.unsealed.get(&self.layers.extent_of(wish.block));
        written.max(folded).copied()
    }

    fn begin_write(&mut self, wish: Wish) -> Result<(), Wish> {
        let What::Write(sums) = &wish.what else { unreachable!("asked before") };
        let (settled, written) = self.layers.top().look(wish.block, wish.count);
        let (is_direct, overwrites) = (written == wish.count, written > 0);
        if !is_direct && self.must_wait(self.layers.top_number(), wish.block) {
            return Err(wish);
        }
        let place = match settled {
            Some(place) => place,
            None if !self.has_room(1, self.layers.top_number(), wish.block) => {
                return self.refuse(wish);
            }
            // It is settled only when the record has found room.
            None => self.space.take().expect("there are some"),
        };
        let at = self.layers.spot(place, wish.block);
        let (ticket, count) = (wish.ticket, wish.count);
        if is_direct {
            self.direct.insert(ticket, wish);
        } else {
            let record = Record::Written { block: wish.block, at, sums: sums.clone() };
            match self.journal.append(&record) {
                Ok(serial) => {
                    self.layers.settle(wish.block, place);
                    self.serials.insert(ticket, serial);
                    let (is_carrying, fold) = (true, None);
                    self.recorded.insert(serial, Begun { wish, is_carrying, fold });
                }
                Err(Full) => {
                    self.is_journal_full = true;
                    if settled.is_none() {
                        self.space.untake(place);
                    }
                    return Err(wish);
                }
            }
        }
        self.orders.push(Order::Data { ticket, at, count, overwrites });
        Ok(())
    }

    /// Whether there are so many extents left, besides what is kept for the next checkpoint and
    /// what a change of this block in this layer would add to that.
    fn has_room(&self, extents: u64, layer: LayerNumber, block: u64) -> bool {
        let owed = self.layers.owed() + u64::from(self.layers.would_owe(layer, block));
        let kept = if extents == 0 { 0 } else { RESERVED_EXTENTS };
        self.space.free_extents() >= owed + kept + extents
    }

    /// There is no space: said at once, unless some is about to come.
    fn refuse(&mut self, wish: Wish) -> Result<(), Wish> {
        let is_freed = self.quiescing.values().any(|(_, place)| place.is_some());
        let is_to_come = self.space.waits_for().is_some() || is_freed;
        self.grow();
        self.growth.is_behind |= self.growth.is_asked();
        if is_to_come || self.growth.is_asked() {
            return Err(wish);
        }
        self.give_up(&wish, Refusal::NoSpace);
        Ok(())
    }

    /// A wish that is inside ends before it has begun.
    fn give_up(&mut self, wish: &Wish, why: Refusal) {
        self.leave_gate(wish);
        match wish.what {
            What::Fold { .. } | What::Bring(_) => self.fold_ended(wish, Err(why)),
            What::Write(_) | What::Zero => self.answer(wish.ticket, Err(why)),
        }
    }

    fn begin_zero(&mut self, wish: Wish) -> Result<(), Wish> {
        // What could not be written may be there after all, until it is said that it is not.
        let is_certain = self.lost.is_empty() && self.journal.is_written(self.voided);
        if is_certain && self.layers.reads_zero(wish.block, wish.count) {
            self.leave_gate(&wish);
            self.answer(wish.ticket, Ok(()));
            return Ok(());
        }
        if self.must_wait(self.layers.top_number(), wish.block) {
            return Err(wish);
        }
        if !self.has_room(0, self.layers.top_number(), wish.block) {
            return self.refuse(wish);
        }
        let record = Record::Zeroed { block: wish.block, count: wish.count };
        let Ok(serial) = self.journal.append(&record) else {
            self.is_journal_full = true;
            return Err(wish);
        };
        self.recorded.insert(serial, Begun { wish, is_carrying: false, fold: None });
        Ok(())
    }

    /// Ends what has all that it waits for, in any order but that of its record.
    fn finish(&mut self) {
        self.regions_written();
        let written = ..self.journal.written();
        let done = self.recorded.extract_if(written, |_, begun| !begun.is_carrying);
        let done: Vec<(Serial, Begun)> = done.collect();
        for (serial, Begun { wish, fold, .. }) in done {
            if let Some(record) = fold {
                self.folded(serial, wish, &record);
                continue;
            }
            let Wish { ticket, block, count, what } = &wish;
            self.unsealed.extend((*block..*block + *count).map(|block| (block, serial)));
            self.answer(*ticket, Ok(()));
            if let What::Write(_) = what {
                self.layers.write_fresh(*block, *count);
                self.leave(&wish);
                continue;
            }
            // Whoever has looked before may still write there: nobody else does until that is
            // over.
            let place = self.layers.zero(*block, *count);
            self.orders.push(Order::Quiesce { ticket: *ticket, page: None });
            self.quiescing.insert(*ticket, (wish, place));
            self.change();
        }
        if self.changing.as_ref().is_some_and(|(serial, _)| self.journal.is_written(*serial)) {
            self.changed();
        }
    }

    /// Lets others write where everything is sealed.
    fn unfreshen(&mut self) {
        let journal = &self.journal;
        let sealed = self.unsealed.extract_if(|_, serial| journal.is_sealed(*serial));
        let mut extents: BTreeSet<u64> =
            sealed.map(|(block, _)| self.layers.extent_of(block)).collect();
        let folded = self.folds.unsealed.extract_if(.., |_, serial| journal.is_sealed(*serial));
        extents.extend(folded.map(|(extent, _)| extent));
        let fresh = self.unsealed.keys().map(|block| self.layers.extent_of(*block));
        let fresh: BTreeSet<u64> = fresh.chain(self.folds.unsealed.keys().copied()).collect();
        let blocks = self.site.shape.blocks_per_extent();
        for extent in extents.difference(&fresh) {
            self.layers.set_fresh(extent * blocks, false);
        }
        if !extents.is_empty() {
            self.layers.may_go();
        }
    }

    /// Says in the journal what could not be written.
    fn void_lost(&mut self) {
        while let Some(&(of, block, count)) = self.lost.front() {
            let Ok(serial) = self.journal.append(&Record::Void { of, block, count }) else {
                self.is_journal_full = true;
                return;
            };
            self.voided = serial;
            // Whoever reads as far as a mark that covers the record finds this too.
            self.journal.arrived(of);
            self.lost.pop_front();
        }
    }

    /// The next change of the layers begins once nothing is under way.
    fn change(&mut self) {
        let Some((_, change)) = self.changes.front() else { return };
        let is_quiet = self.recorded.is_empty() && self.direct.is_empty();
        if !is_quiet || self.changing.is_some() {
            return;
        }
        let record = match *change {
            Change::Branch { from, top } => {
                let from = from.unwrap_or(self.layers.top_number());
                Record::Branched { from, number: self.layers.next_number(), top }
            }
            Change::Drop { layer } => Record::Dropped { layer },
        };
        // Without room it is tried again behind the next checkpoint.
        self.changing = self.journal.append(&record).ok().map(|serial| (serial, record));
        self.is_journal_full |= self.changing.is_none();
    }

    fn changed(&mut self) {
        let Some((serial, record)) = self.changing.take() else { return };
        let size = self.about().size;
        self.layers.apply(&record, size);
        if let Record::Branched { .. } = record {
            // Nothing is written into the frozen layer again.
            self.unsealed.clear();
            self.folds.unsealed.clear();
            self.branched = serial;
        }
        if let Some((ticket, _)) = self.changes.pop_front() {
            self.answer(ticket, Ok(()));
        }
        take(&mut self.for_change).into_iter().for_each(|wish| self.begin(wish));
        self.change();
    }

    /// A wish is over: others may have waited for it.
    fn leave(&mut self, wish: &Wish) {
        self.leave_gate(wish);
        self.change();
    }

    fn leave_gate(&mut self, wish: &Wish) {
        let next = self.gates.leave(self.layers.extent_of(wish.block));
        next.into_iter().for_each(|wish| self.begin(wish));
    }

    fn retry_for_room(&mut self) {
        self.is_cramped = false;
        self.void_lost();
        self.retry_regions();
        take(&mut self.for_room).into_iter().for_each(|wish| self.begin(wish));
        self.change();
    }

    fn answer(&mut self, ticket: Ticket, done: Result<(), Refusal>) {
        self.orders.push(Order::Answer { ticket, done });
    }

    /// What is to be done now, with what the journal needs.
    fn given(&mut self) -> Vec<Order> {
        let is_full = self.journal.fill_percent() >= CHECKPOINT_PERCENT;
        if is_full || self.is_journal_full || self.wants_root() || self.wants_clean() {
            self.begin_checkpoint();
        }
        self.size_up();
        if !self.surplus.is_empty() {
            self.begin_checkpoint();
        }
        let lack = self.wanted_seal().map(|serial| self.journal.lacks(serial));
        if lack == Some(Lack::Mark) {
            self.journal.want_mark();
        }
        if self.journal.begin_gathering() {
            self.orders.push(Order::Gather);
        }
        let for_others = self.checkpoint_wants_sync() || self.folds_want_sync();
        let wants_sync = lack == Some(Lack::Sync) || !self.flushes.is_empty() || for_others;
        if wants_sync && self.syncing.is_none() {
            let (sync, flushes) = (self.journal.begin_sync(), take(&mut self.flushes));
            self.syncing = Some(Syncing { sync, flushes });
            self.syncs_begun += 1;
            self.orders.push(Order::Sync);
        }
        take(&mut self.orders)
    }

    /// Where a page of the journal lies.
    fn ring_spot(&self, number: u64) -> Spot {
        self.rooted.root.ring_spot(&self.site, self.journal.place(number))
    }

    /// The last record that somebody wants sealed.
    fn wanted_seal(&self) -> Option<Serial> {
        let wished = self.for_seal.last_key_value().map(|(serial, _)| *serial);
        let for_space = self.space.waits_for().filter(|_| !self.for_room.is_empty());
        // A slab's worth that waits may be a slab that goes back to the pool.
        let is_much = self.space.waiting_extents() >= self.site.shape.extents_per_slab();
        let unsealed = self.unsealed.len() + self.folds.unsealed.len();
        let unasked = unsealed > UNSEALED_MAX || is_much;
        wished.max(for_space).max(unasked.then(|| self.journal.sealed()))
    }
}
