//! What a journal says to the next owner.

use std::collections::BTreeMap;

use super::super::page::{Flaw, Owner, Page};
use super::record::{Carried, Record, Serial, Spot, carried};
use super::{KIND, Past, Start};

/// Reads the journal, page after page, from where the last checkpoint says.
pub struct Replay {
    owner: Owner,
    next_page: u64,
    epoch: u64,
    /// Behind the last record, or what the checkpoint says.
    next: Serial,
    is_behind_start: bool,
    mark: Serial,
    pages: Vec<Past>,
    records: Vec<(Serial, Record)>,
}

/// What lies behind the end of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    Nothing,
    /// A page of this journal, which knows of nothing that was not found. Others may be behind it.
    Page,
    /// A page of this journal which knows of records that were durable and were not found.
    More,
    /// A page of a time for which there is another checkpoint.
    Later,
}

/// What was found.
#[derive(Debug)]
pub struct Replayed {
    /// Of the last owner that wrote a page, or the checkpoint.
    pub epoch: u64,
    pub next_page: u64,
    pub next: Serial,
    pub sealed: Serial,
    /// Pages that another reader would need.
    pub(super) pages: Vec<Past>,
    records: Vec<(Serial, Record)>,
}

/// A change of the map that has come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// These blocks lie here, one behind the other, each with its sum.
    Written { block: u64, at: Spot, sums: Vec<u32> },
    /// Everything else is as it was recorded.
    Other(Record),
}

impl Replay {
    pub fn new(owner: Owner, start: Start) -> Self {
        Self {
            owner,
            next_page: start.page,
            epoch: start.epoch,
            next: start.next,
            is_behind_start: false,
            mark: start.sealed,
            pages: Vec::new(),
            records: Vec::new(),
        }
    }

    /// The page to read next.
    pub fn wants(&self) -> u64 {
        self.next_page
    }

    /// Takes the page that was read; false when it is not the next one of this journal, which is
    /// its end.
    pub fn push(&mut self, page: &Page) -> bool {
        let number = self.next_page;
        let Ok(header) = page.check(KIND, &self.owner, number) else { return false };
        // One that an owner before has left behind a gap.
        if header.epoch < self.epoch {
            return false;
        }
        let Some(Carried { first, mark, records }) = carried(page.payload()) else { return false };
        if self.is_behind_start && self.next != first {
            return false;
        }
        let epoch = header.epoch;
        (self.epoch, self.is_behind_start) = (epoch, true);
        self.next = first + records.len() as u64;
        self.records.extend((first..).zip(records));
        self.mark = self.mark.max(mark);
        self.pages.push(Past { number, epoch, next: self.next, mark, is_written: true });
        self.next_page += 1;
        true
    }

    /// What a page says that was found so far behind the end. Pages are handed out in their order
    /// and a few at a time, so one behind a page that was lost is no wonder, unless it says that
    /// what was lost was durable.
    pub fn behind(&self, pages: u64, page: &Page) -> Behind {
        let number = self.next_page + pages;
        match page.check(KIND, &self.owner, number) {
            Ok(header) if header.epoch >= self.epoch => match carried(page.payload()) {
                Some(carried) if carried.mark > self.next => Behind::More,
                _ => Behind::Page,
            },
            // From a later round of the ring.
            Err(Flaw::OtherNumber(found)) if found > number => Behind::Later,
            _ => Behind::Nothing,
        }
    }

    /// Whether the page behind the end was one of this journal and is not whole.
    pub fn is_torn(&self, page: &Page) -> bool {
        page.was(KIND, &self.owner, self.next_page)
    }

    /// There is no more.
    pub fn end(self) -> Replayed {
        let Self { epoch, next_page, next, mark, pages, records, .. } = self;
        Replayed { epoch, next_page, next, sealed: mark, pages, records }
    }
}

impl Replayed {
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// In their order.
    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().map(|(_, record)| record)
    }

    /// Places whose data must be looked at: of records that are not sealed, each block with the
    /// sum that it should have.
    pub fn doubtful(&self) -> impl Iterator<Item = Spot> + '_ {
        let voids = self.voids();
        self.records.iter().filter(|(serial, _)| *serial >= self.sealed).flat_map(
            move |(serial, record)| {
                let Record::Written { block, at, sums } = record else { return Vec::new() };
                let blocks = (0..sums.len() as u32)
                    .filter(|index| !is_void(&voids, *serial, block + u64::from(*index)));
                blocks.map(|index| Spot { block: at.block + index, ..*at }).collect()
            },
        )
    }

    /// What has come about, in its order, and what has not: records to be appended before
    /// anything else, so that nobody takes later what was not there now. `is_there` tells whether a
    /// doubtful place has data with this sum.
    pub fn settle(
        &self,
        is_there: impl Fn(Spot, u32) -> bool,
    ) -> (Vec<(Serial, Accepted)>, Vec<Record>) {
        let voids = self.voids();
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for (serial, record) in &self.records {
            let (block, at, sums) = match record {
                Record::Void { .. } => continue,
                Record::Written { block, at, sums } => (*block, *at, sums),
                other => {
                    accepted.push((*serial, Accepted::Other(other.clone())));
                    continue;
                }
            };
            for (index, sum) in (0_u32..).zip(sums) {
                let (block, spot) = (block + u64::from(index), at.block + index);
                let spot = Spot { block: spot, ..at };
                if is_void(&voids, *serial, block) {
                    continue;
                }
                if *serial < self.sealed || is_there(spot, *sum) {
                    append_block(&mut accepted, (*serial, block, spot), *sum);
                } else {
                    append_void(&mut refused, (*serial, block));
                }
            }
        }
        (accepted, refused)
    }

    fn voids(&self) -> BTreeMap<Serial, Vec<(u64, u64)>> {
        let mut voids: BTreeMap<Serial, Vec<(u64, u64)>> = BTreeMap::new();
        for (_, record) in &self.records {
            if let Record::Void { of, block, count } = record {
                voids.entry(*of).or_default().push((*block, *count));
            }
        }
        voids
    }
}

fn is_void(voids: &BTreeMap<Serial, Vec<(u64, u64)>>, serial: Serial, block: u64) -> bool {
    let of = voids.get(&serial);
    of.is_some_and(|all| all.iter().any(|&(from, count)| (from..from + count).contains(&block)))
}

fn append_block(
    accepted: &mut Vec<(Serial, Accepted)>,
    (serial, block, spot): (u64, u64, Spot),
    sum: u32,
) {
    if let Some((last, Accepted::Written { block: from, at, sums })) = accepted.last_mut()
        && *last == serial
        && *from + sums.len() as u64 == block
        && at.block + sums.len() as u32 == spot.block
    {
        sums.push(sum);
        return;
    }
    accepted.push((serial, Accepted::Written { block, at: spot, sums: vec![sum] }));
}

fn append_void(refused: &mut Vec<Record>, (serial, at): (Serial, u64)) {
    if let Some(Record::Void { of, block, count }) = refused.last_mut()
        && *of == serial
        && *block + *count == at
    {
        *count += 1;
        return;
    }
    refused.push(Record::Void { of: serial, block: at, count: 1 });
}
