//! The journal of an LU: which changes of its map are written, which are durable, and what was
//! true of it when an owner died. A machine without I/O: it says which pages to write, and is told
//! what has become of them.
//!
//! A write to a block that has no place yet goes out together with its record: side by side, in any
//! order. It is answered when both are written, and so are all records before it: then a process
//! that is killed loses nothing. Whoever reads the journal later takes the record if the data is
//! there.
//!
//! ```text
//!   appended ─▶ written: its page and all before        answered, survives the process
//!                  │ a sync that began after that
//!                  ▼
//!               durable: with its data                  what FLUSH waits for
//!                  │ a page that says so (its mark), and a sync behind that page
//!                  ▼
//!               sealed: taken without looking           its blocks may be written again in place
//! ```
//!
//! A block with a record that is not sealed is not written a second time: its data would not have
//! the record's sum any more, and a power loss in the middle of the second write would take the
//! first one too, which may have been flushed. For the same reason a place that became free is not
//! used again before the record that freed it is sealed.
//!
//! An owner syncs what it opens before it trusts what it reads: after a process that was killed,
//! marks and checkpoints may be written that are not durable. One sync of a disk does for every LU
//! on it.
//!
//! Pages have numbers that only grow, and lie in a ring. Of an owner that died some later page may
//! be there without the one before it. It is never taken: the next owner's pages have a higher
//! epoch, and epochs never fall from one page to the next.

mod record;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

pub use record::{BELOW, LayerNumber, RUN_BLOCKS_MAX, Record, Serial, Spot};
pub use replay::{Accepted, Behind, Replay, Replayed};

use super::page::{Header, Kind, Owner, Page};
use record::Filling;

pub(super) const KIND: Kind = Kind(*b"VDjl");

/// The first record of an LU.
const FIRST: Serial = 1;

/// Full pages on their way at one time. One that is not full goes alone: while it is on its way
/// records gather in the next one. Records are written only when all before them are, so more pages
/// on their way would not make any of them faster, but more of them wait for the slowest.
const IN_FLIGHT_MAX: usize = 4;

/// Pages that are kept free for marks and voids.
const RESERVED_PAGES: u64 = 4;

/// Fewest pages of a ring.
pub const RING_PAGES_MIN: u64 = 4 * RESERVED_PAGES;

/// The journal of one LU, for its owner.
pub struct Journal {
    owner: Owner,
    epoch: u64,
    ring: u64,
    filling: Filling,
    /// Records in a page at most: few where many pages shall be on their way.
    page_records: u64,
    /// Pages that have no room for another record and are not on their way yet.
    full: VecDeque<Filling>,
    /// A page shall be written even if it has no record.
    mark_wanted: bool,
    is_gathering: bool,
    next_page: u64,
    /// Pages that a reader would need, with what follows their last record: one number after the
    /// other.
    pages: VecDeque<Past>,
    /// So many of them, from the front on, are written.
    written_pages: usize,
    on_their_way: usize,
    /// Records whose data is on its way.
    carrying: BTreeSet<Serial>,
    /// Each of these is the first record that is not.
    written: Serial,
    durable: Serial,
    sealed: Serial,
    /// The highest mark in a written page.
    marked: Serial,
    /// The first record of an owner before that was refused, and what is behind the last void.
    /// Until all voids are written no mark may come by the record: a reader would take it.
    refused: Option<(Serial, Serial)>,
}

/// A page that has been handed out.
#[derive(Clone, Debug)]
struct Past {
    number: u64,
    epoch: u64,
    /// The first record behind it.
    next: Serial,
    mark: Serial,
    is_written: bool,
}

/// A page to be written at its place in the ring.
#[derive(Debug)]
pub struct Write {
    pub number: u64,
    pub page: Page,
}

/// Where a reader begins: part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub page: u64,
    /// Whoever wrote that page. What lies there from an earlier owner was never found.
    pub epoch: u64,
    /// What the first record gets for a serial if the journal ends here.
    pub next: Serial,
    pub sealed: Serial,
}

/// There is no room for another record before a checkpoint has let go of old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full; it waits for a checkpoint")]
pub struct Full;

/// A sync of everything below the LU, and what it will have achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what the sync achieved counts only when the journal is told of its end"]
pub struct Sync {
    durable: Serial,
    sealed: Serial,
}

/// What is missing until a record is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    Nothing,
    /// Its page or its data are on their way.
    Writing,
    /// [`Journal::begin_sync`].
    Sync,
    /// [`Journal::want_mark`].
    Mark,
}

/// What a page says, whose ever it is: the serial of the first record, the mark, the records.
pub fn said(page: &Page) -> Option<(Serial, Serial, Vec<Record>)> {
    let record::Carried { first, mark, records } = record::carried(page.payload())?;
    Some((first, mark, records))
}

impl Journal {
    /// A journal without records. No page in its ring is of this LU.
    pub fn new(owner: Owner, epoch: u64, ring: u64) -> Self {
        assert!(ring >= RING_PAGES_MIN, "a ring has at least {RING_PAGES_MIN} pages");
        Self {
            owner,
            epoch,
            ring,
            filling: Filling::new(FIRST),
            page_records: u64::MAX,
            full: VecDeque::new(),
            mark_wanted: false,
            is_gathering: false,
            next_page: 0,
            pages: VecDeque::new(),
            written_pages: 0,
            on_their_way: 0,
            carrying: BTreeSet::new(),
            written: FIRST,
            durable: FIRST,
            sealed: FIRST,
            marked: FIRST,
            refused: None,
        }
    }

    /// Goes on behind what the owners before have left. `refused` is what [`Replayed::settle`] gave
    /// for records whose data was not there. Where they find no room, a checkpoint is made first
    /// of everything that came about, and the journal begins [anew](Journal::after) behind it.
    pub fn resume(
        (owner, epoch, ring): (Owner, u64, u64),
        replayed: &Replayed,
        refused: &[Record],
    ) -> Result<Self, Full> {
        let mut journal = Self::after((owner, epoch, ring), replayed);
        journal.pages = replayed.pages.iter().cloned().collect();
        journal.written_pages = journal.pages.len();
        (journal.durable, journal.sealed) = (replayed.sealed, replayed.sealed);
        journal.marked = replayed.sealed;
        for record in refused {
            journal.append(record)?;
        }
        let first = refused.iter().filter_map(|record| match record {
            Record::Void { of, .. } => Some(*of),
            _ => None,
        });
        journal.refused = first.min().map(|first| (first, journal.next_serial()));
        Ok(journal)
    }

    /// Goes on behind a checkpoint that has everything, so that no reader needs what was before.
    pub fn after((owner, epoch, ring): (Owner, u64, u64), replayed: &Replayed) -> Self {
        assert!(epoch > replayed.epoch, "an owner has a higher epoch than all before it");
        let next = replayed.next;
        let mut journal = Self::new(owner, epoch, ring);
        journal.filling = Filling::new(next);
        journal.next_page = replayed.next_page;
        (journal.written, journal.durable) = (next, next);
        (journal.sealed, journal.marked) = (next, next);
        journal
    }

    /// Appends a record. One that comes with data is [carried](Journal::arrived) until that is
    /// written.
    pub fn append(&mut self, record: &Record) -> Result<Serial, Full> {
        let is_void = matches!(record, Record::Void { .. });
        let kept_free = if is_void { 0 } else { RESERVED_PAGES };
        let is_full = self.filling.count() >= self.page_records;
        let fits = !is_full && self.filling.has_room_for(record);
        if self.taken() + u64::from(!fits) + 1 + kept_free > self.ring {
            return Err(Full);
        }
        if !fits {
            let next = Filling::new(self.filling.next());
            self.full.push_back(std::mem::replace(&mut self.filling, next));
        }
        let serial = self.filling.next();
        self.filling.push(record);
        if matches!(record, Record::Written { .. }) {
            self.carrying.insert(serial);
        }
        Ok(serial)
    }

    /// From here on.
    #[cfg(test)]
    pub fn keep_pages_short(&mut self, page_records: u64) {
        self.page_records = page_records;
    }

    /// The data of a record is written.
    pub fn arrived(&mut self, serial: Serial) {
        self.carrying.remove(&serial);
    }

    /// Whether a page is to be written, and nobody is about to do so. Whoever asks is: a little
    /// later there may be more in it.
    pub fn begin_gathering(&mut self) -> bool {
        let begins = !self.is_gathering && self.has_next_write();
        self.is_gathering |= begins;
        begins
    }

    /// It is about to be written.
    pub fn end_gathering(&mut self) {
        self.is_gathering = false;
    }

    /// Whether a page is to be written now.
    fn has_next_write(&self) -> bool {
        // A page beyond the ring would lie on one that a reader needs. Marks stay in what is
        // reserved, and when that is used up they wait for a checkpoint too.
        let wants_mark = self.mark_wanted && self.taken() < self.ring;
        let is_wanted = !self.filling.is_empty() || wants_mark;
        let may_fill = self.on_their_way < IN_FLIGHT_MAX && !self.full.is_empty();
        may_fill || self.on_their_way == 0 && is_wanted
    }

    /// The next page to write, if one is to be written now.
    pub fn next_write(&mut self) -> Option<Write> {
        if !self.has_next_write() {
            return None;
        }
        let next = Filling::new(self.filling.next());
        let full = self.full.pop_front();
        let filled = full.unwrap_or_else(|| std::mem::replace(&mut self.filling, next));
        let (number, mark) = (self.next_page, self.durable);
        self.mark_wanted = false;
        self.on_their_way += 1;
        self.next_page += 1;
        let (kind, owner, epoch) = (KIND, self.owner, self.epoch);
        let next = filled.next();
        self.pages.push_back(Past { number, epoch, next, mark, is_written: false });
        let header = Header { kind, owner, number, turn: 0, epoch };
        Some(Write { number, page: Page::new(header, &filled.payload(mark)) })
    }

    /// A page is written.
    pub fn page_written(&mut self, number: u64) {
        let first = self.pages.front().map_or(0, |past| past.number);
        let past = number.checked_sub(first).and_then(|at| self.pages.get_mut(at as usize));
        if let Some(past) = past.filter(|past| !past.is_written) {
            past.is_written = true;
            self.on_their_way -= 1;
        }
        // One that is there without those before it is not found by a reader.
        while let Some(past) = self.pages.get(self.written_pages).filter(|past| past.is_written) {
            self.written = self.written.max(past.next);
            self.marked = self.marked.max(past.mark);
            self.written_pages += 1;
        }
    }

    /// Whether a record outlives the process: its page is written, and those before it. Its data
    /// is for whoever asks to know.
    pub fn is_written(&self, serial: Serial) -> bool {
        serial < self.written
    }

    /// The first record that is not.
    pub fn written(&self) -> Serial {
        self.written
    }

    /// Whether a record is taken without a look at its data, so that its blocks may be written
    /// again.
    pub fn is_sealed(&self, serial: Serial) -> bool {
        serial < self.sealed
    }

    /// The first record that is not.
    pub fn sealed(&self) -> Serial {
        self.sealed
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A sync is about to begin.
    pub fn begin_sync(&self) -> Sync {
        let carried = self.carrying.first().copied().unwrap_or(Serial::MAX);
        let refused = self.refused.filter(|(_, behind)| self.written < *behind);
        let refused = refused.map_or(Serial::MAX, |(first, _)| first);
        Sync { durable: self.written.min(carried).min(refused), sealed: self.marked }
    }

    /// It has ended well.
    pub fn synced(&mut self, sync: Sync) {
        self.durable = self.durable.max(sync.durable);
        self.sealed = self.sealed.max(sync.sealed);
    }

    /// What is to be done, as a next step, so that this record becomes sealed.
    pub fn lacks(&self, serial: Serial) -> Lack {
        if serial < self.sealed {
            return Lack::Nothing;
        }
        if serial < self.marked {
            return Lack::Sync;
        }
        // Marks only grow.
        let is_announced = self.pages.back().is_some_and(|past| serial < past.mark);
        if is_announced {
            return Lack::Writing;
        }
        if serial < self.durable {
            return Lack::Mark;
        }
        if serial < self.begin_sync().durable { Lack::Sync } else { Lack::Writing }
    }

    /// The next page shall be written even if no record needs it.
    pub fn want_mark(&mut self) {
        self.mark_wanted = true;
    }

    /// Where to begin to read once everything before `serial` is in the map: part of a checkpoint.
    pub fn start_for(&self, serial: Serial) -> Start {
        let needed = self.pages.partition_point(|past| past.next <= serial);
        let first = self.pages.get(needed.min(self.written_pages));
        let (page, epoch) =
            first.map_or((self.next_page, self.epoch), |past| (past.number, past.epoch));
        Start { page, epoch, next: self.next_serial(), sealed: self.sealed }
    }

    /// Whether a checkpoint that begins here would make room.
    pub fn would_let_go(&self, start: Start) -> bool {
        self.pages.front().is_some_and(|past| past.number < start.page)
    }

    /// A checkpoint that begins here is durable: what is before it may be overwritten.
    pub fn let_go(&mut self, start: Start) {
        while self.pages.front().is_some_and(|past| past.number < start.page && past.is_written) {
            self.pages.pop_front();
            self.written_pages -= 1;
        }
    }

    /// The first written page from this one on that a reader would need, with the epoch of its
    /// owner.
    pub fn needed(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.pages.front()?.number;
        let at = from.saturating_sub(first) as usize;
        let past = self.pages.get(at).filter(|_| at < self.written_pages)?;
        Some((past.number, past.epoch))
    }

    /// How much of the ring is taken, in hundredths: whoever makes checkpoints begins one in time.
    pub fn fill_percent(&self) -> u64 {
        self.taken() * 100 / self.ring
    }

    /// The first serial that has not been given out.
    pub fn next_serial(&self) -> Serial {
        self.filling.next()
    }

    /// Where a page lies in the ring.
    pub fn place(&self, number: u64) -> u64 {
        number % self.ring
    }

    /// Pages that a reader would need, and those that are about to be written.
    fn taken(&self) -> u64 {
        self.pages.len() as u64 + self.full.len() as u64
    }
}
