//! Regions of slabs with several copies that may be overwritten in place.
//!
//! A crash in the middle of an overwrite may leave copies that differ, and no record tells: so a
//! region is *open*, durably in the journal, before anything in it is overwritten, and whoever
//! opens the LU makes one copy of an open region all others' before any but that one is read. A
//! region that nobody has wanted for a while is closed, behind a sync.
//!
//! First writes need none of this: their records have sums.

use std::collections::{BTreeMap, VecDeque};

use super::super::journal::{Record, Serial};
use super::super::shape::Shape;
use super::{Order, Owner, Ticket};

/// Parts of a slab that are opened each by itself.
const REGIONS_PER_SLAB: u64 = 16;

/// Everything of a slab, its checksums with it.
pub const ALL_REGIONS: u64 = u64::MAX;

/// Regions of slabs, as bits: by slab.
pub type Regions = BTreeMap<u32, u64>;

/// The regions that these blocks of a slab lie in; checksums lie in one behind the last.
pub fn regions_of(shape: Shape, first: u64, count: u64) -> u64 {
    let blocks = shape.blocks_per_extent() * shape.extents_per_slab() / REGIONS_PER_SLAB;
    let (from, to) = (first / blocks, (first + count - 1) / blocks);
    (from..=to).fold(0, |bits, region| bits | 1 << region)
}

#[derive(Default)]
pub(super) struct Opened {
    /// What the journal says, or is about to.
    pub open: Regions,
    /// By records that are not written yet.
    recorded: BTreeMap<Serial, Asked>,
    /// By records that are written and not durable: whoever waits for a sync, with the slab.
    unsynced: BTreeMap<Ticket, u32>,
    /// Who waits for room in the journal.
    waiting: VecDeque<Asked>,
}

#[derive(Clone, Copy)]
struct Asked {
    ticket: Ticket,
    slab: u32,
    regions: u64,
}

impl Opened {
    pub fn new(open: Regions) -> Self {
        Self { open, ..Self::default() }
    }

    /// What a record says.
    pub fn apply(&mut self, record: &Record) {
        match *record {
            Record::Opened { slab, regions } => *self.open.entry(slab).or_default() |= regions,
            Record::Closed { slab, regions } => {
                if let Some(open) = self.open.get_mut(&slab) {
                    *open &= !regions;
                }
                self.open.retain(|_, open| *open != 0);
            }
            _ => {}
        }
    }
}

impl Owner {
    /// Says that these regions of a slab may be overwritten. Answered when that is durable.
    pub fn open_regions(&mut self, ticket: Ticket, slab: u32, regions: u64) -> Vec<Order> {
        self.begin_opening(Asked { ticket, slab, regions });
        self.given()
    }

    /// Nobody overwrites them any more, and what was written there is durable.
    pub fn close_regions(&mut self, closed: &Regions) -> Vec<Order> {
        for (&slab, &regions) in closed {
            let record = Record::Closed { slab, regions };
            // Without room they stay open, which is as right.
            if self.journal.append(&record).is_ok() {
                self.opened.apply(&record);
            }
        }
        self.given()
    }

    /// What is open, or was when the LU was opened.
    pub fn regions(&self) -> &Regions {
        &self.opened.open
    }

    fn begin_opening(&mut self, asked: Asked) {
        let Asked { ticket, slab, regions } = asked;
        let is_open = self.opened.open.get(&slab).is_some_and(|open| open & regions == regions);
        let recorded = self.opened.recorded.values().map(|other| other.slab);
        let is_said = recorded.chain(self.opened.unsynced.values().copied()).all(|it| it != slab);
        if is_open && is_said {
            return self.answer(ticket, Ok(()));
        }
        let record = Record::Opened { slab, regions };
        match self.journal.append(&record) {
            Ok(serial) => {
                // A root that is written before the record is says it too, which is as right.
                self.opened.apply(&record);
                self.opened.recorded.insert(serial, asked);
            }
            Err(_) => {
                self.is_journal_full = true;
                self.opened.waiting.push_back(asked);
            }
        }
    }

    /// Records are written: now they are to be durable.
    pub(super) fn regions_written(&mut self) {
        let written = ..self.journal.written();
        let done = self.opened.recorded.extract_if(written, |_, _| true);
        for Asked { ticket, slab, .. } in done.map(|(_, asked)| asked) {
            self.flushes.push(ticket);
            self.opened.unsynced.insert(ticket, slab);
        }
    }

    /// They are durable.
    pub(super) fn regions_synced(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            self.opened.unsynced.remove(ticket);
        }
    }

    pub(super) fn retry_regions(&mut self) {
        let waiting = std::mem::take(&mut self.opened.waiting);
        waiting.into_iter().for_each(|asked| self.begin_opening(asked));
    }
}
