//! Slabs and their copies: what is read at one place is written at all of them.
//!
//! A copy that misses a write is marked before the write is answered; what cannot be read at one
//! place is read at another one, and written anew where it could not be read.

use std::time::Duration;

use block::{Answer, Buffer, Error, ErrorKind, Request, Sgl};

use super::super::home::PoolError;
use super::super::journal::Spot;
use super::super::owner::regions_of;
use super::super::page::Page;
use super::super::places::{Copy, Home, State};
use super::super::shape::BLOCK_BYTES;
use super::look::{DOUBT_RETRY, DOUBT_TRIES};
use super::sums::{SumPages, are_right};
use super::{Disks, Looker, gone};

const BLOCK: usize = BLOCK_BYTES as usize;

/// How often it is tried to mark a copy, before what it has missed is said to have failed.
const MARK_TRIES: u32 = 20;
const MARK_RETRY: Duration = Duration::from_millis(250);

/// What came of a write at one place.
type Written = (Copy, Result<(), Error>);

/// A read that is under way.
pub struct Reading {
    at: Spot,
    skip: u64,
    /// None: it takes more than to read it at one place.
    answer: Option<Answer>,
}

impl Reading {
    /// Waits for it; what could not be read, or is not what was written, is looked for elsewhere.
    pub async fn end(self, disks: &Disks, data: &Sgl<'_>) -> Result<(), Error> {
        let Self { at, skip, answer } = self;
        if let Some(answer) = answer {
            let failed = match answer.outcome().await {
                Ok(_) if disks.is_right(at, data).await? => return Ok(()),
                Ok(_) => None,
                Err(error) => Some(error),
            };
            let is_sole = disks.shared().places.sole(at.slab).is_some();
            if let Some(error) = failed.filter(|_| is_sole) {
                return Err(error);
            }
        }
        // Nobody changes it meanwhile, and the client does not see what is wrong.
        let count = (skip + data.len() as u64).div_ceil(BLOCK_BYTES);
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        let pages = disks.sum_pages(at, count).await?;
        let _locked = disks.shared().locks.lock(at.slab, at.block.into(), count).await;
        disks.read_any(at, &buffer, &pages).await?;
        data.copy_from(&buffer.sgl().slice(skip as usize, data.len()));
        Ok(())
    }
}

impl Disks {
    /// Reads bytes of blocks of a slab: from this byte of the first one on.
    pub async fn read(&self, at: (Spot, u64), data: &Sgl<'_>) -> Result<(), Error> {
        self.begin_read(at, data)?.end(self, data).await
    }

    /// Begins to read; [`Reading::end`] waits for it.
    pub fn begin_read(&self, (at, skip): (Spot, u64), data: &Sgl<'_>) -> Result<Reading, Error> {
        let is_whole = skip == 0 && (data.len() as u64).is_multiple_of(BLOCK_BYTES);
        if self.shared().sums.is_some() && !is_whole {
            return Ok(Reading { at, skip, answer: None });
        }
        let home = self.shared().places.get_plainly(at.slab);
        let answer = home
            .and_then(|home| self.find(home, at))
            .map(|(device, offset)| device.ask(&Request::read(offset + skip, *data)));
        Ok(Reading { at, skip, answer })
    }

    /// Reads blocks wherever they are as they should be, and writes them anew where they are not.
    /// The caller has their locks.
    pub(super) async fn read_any(
        &self,
        at: Spot,
        buffer: &Buffer,
        pages: &SumPages,
    ) -> Result<(), Error> {
        let count = buffer.len() / BLOCK;
        let (error, bad) = match self.read_somewhere(at, buffer, (pages, 0)).await {
            Ok(()) => return Ok(()),
            // Each copy may have others that are bad.
            Err((_, bad)) if count > 1 && bad.len() > 1 => {
                return self.read_each(at, buffer, pages).await;
            }
            Err(found) => found,
        };
        self.shared().note_damage(bad, (count as u64, false));
        Err(error)
    }

    /// The same block by block.
    async fn read_each(&self, at: Spot, buffer: &Buffer, pages: &SumPages) -> Result<(), Error> {
        let block = Buffer::zeroed(BLOCK);
        for index in 0..buffer.len() / BLOCK {
            let at = Spot { block: at.block + index as u32, ..at };
            self.read_somewhere(at, &block, (pages, index)).await.map_err(|(error, bad)| {
                self.shared().note_damage(bad, (1, false));
                error
            })?;
            buffer.sgl().slice(index * BLOCK, BLOCK).copy_from(&block.sgl());
        }
        Ok(())
    }

    /// The same of what is as it should be at one place altogether. Blocks have their sums from
    /// this one on. An error with the places where it is not.
    async fn read_somewhere(
        &self,
        at: Spot,
        buffer: &Buffer,
        (pages, first): (&SumPages, usize),
    ) -> Result<(), (Error, Vec<Home>)> {
        let _guard = self.passage.guard();
        let (mut bad, mut failed) = (Vec::new(), unread(at));
        let mut copies = self.copies(at.slab);
        copies.retain(|copy| matches!(copy.state, State::Whole | State::Doubtful));
        for &Copy { home, .. } in &copies {
            let Some((device, offset)) = self.find(home, at) else { continue };
            match device.io(&Request::read(offset, buffer.sgl())).await {
                Ok(_) if are_right((pages, first), &buffer.sgl()) => {
                    let others = copies.iter().filter(|copy| copy.home != home);
                    let doubtful = others.filter(|copy| copy.state == State::Doubtful);
                    let doubtful: Vec<Home> = doubtful.map(|copy| copy.home).collect();
                    let told = self.tell_doubtful(at, &doubtful, buffer).await;
                    told.map_err(|error| (error, Vec::new()))?;
                    for home in &bad {
                        // Without the mark, if that is needed, the next one who reads finds out.
                        let _ = self.write_copy(at, *home, buffer).await;
                    }
                    self.shared().note_damage(bad, ((buffer.len() / BLOCK) as u64, true));
                    return Ok(());
                }
                Ok(_) => failed = rotten(at),
                Err(error) => failed = error,
            }
            bad.push(home);
        }
        Err((failed, bad))
    }

    /// What is read is written where it is in doubt, before it is answered.
    async fn tell_doubtful(&self, at: Spot, to: &[Home], data: &Buffer) -> Result<(), Error> {
        for home in to {
            self.write_copy(at, *home, data).await?;
        }
        if to.is_empty() || !self.shared().is_ending_doubt() {
            return Ok(());
        }
        // They may be all that there is, and power may fail.
        let disks: Vec<u32> = to.iter().map(|home| home.disk).collect();
        let failed = self.sync_some(|disk| disks.contains(&disk)).await.pop();
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Writes whole blocks of a slab, at all its places. A copy that misses it is known to be stale
    /// when this is done.
    pub async fn write(&self, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        let _guard = self.passage.guard();
        if let Some(home) = self.shared().places.sole(at.slab) {
            return self.write_sole(home, at, data).await;
        }
        // A client may change its memory meanwhile, and all places shall be of the same.
        let copy = self.copy_of(data);
        let (first, count) = (u64::from(at.block), data.len() as u64 / BLOCK_BYTES);
        let _locked = self.shared().locks.lock(at.slab, first, count).await;
        let written = self.write_all(at, &copy.sgl()).await;
        self.give_back(copy);
        written
    }

    async fn write_sole(&self, home: Home, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        let (device, offset) = self.find(home, at).ok_or_else(|| unread(at))?;
        device.io(&Request::write(offset, *data)).await.map(drop)
    }

    /// The same for one who has the locks.
    pub(super) async fn write_all(&self, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        let shared = self.shared();
        // One that has checksums and no copies.
        if let Some(home) = shared.places.sole(at.slab) {
            return self.write_sole(home, at, data).await;
        }
        if shared.places.is_stopped(at.slab) {
            let note = format!("it is not known which places of slab {} count", at.slab);
            return Err(Error::new(ErrorKind::Medium).note(note));
        }
        let (first, count) = (u64::from(at.block), data.len() as u64 / BLOCK_BYTES);
        shared.places.touch(at.slab, regions_of(shared.shape, first, count));
        let mut asked = Vec::new();
        for copy in self.copies_that_count(at.slab).await {
            if copy.state != State::Broken
                && let Some((device, offset)) = self.find(copy.home, at)
            {
                asked.push((copy, device.ask(&Request::write(offset, *data))));
            }
        }
        let mut written = Vec::new();
        for (copy, answer) in asked {
            written.push((copy, answer.outcome().await.map(drop)));
        }
        // It counts for the answer, and the others are not to differ from it.
        let whole = |(copy, _): &(Copy, _)| copy.state == State::Whole;
        let first = written.iter().position(whole);
        let kept = written.iter().position(|it| whole(it) && it.1.is_ok()).or(first);
        let kept = kept.ok_or_else(|| unread(at))?;
        let (kept, mut answer) = written.swap_remove(kept);
        let mut others = vec![kept];
        if answer.is_err() && self.has_another(at.slab, kept.home, &written).await {
            (answer, others) = (Ok(()), Vec::new());
        }
        let (is_there, mut are_marked) = (answer.is_ok(), true);
        for (copy, outcome) in written {
            if is_there && outcome.is_ok() {
                others.push(copy);
                continue;
            }
            let is_filling = (State::Filling, State::Broken);
            if !self.shared().places.mark(at.slab, copy.home, is_filling) {
                let marked = self.mark(at.slab, copy.home).await;
                are_marked &= marked.is_ok();
                answer = answer.and(marked);
            }
        }
        if !are_marked {
            // The one that counts does not have it, as far as is known: what others have is not
            // read by anybody.
            for copy in others {
                let _ = self.mark(at.slab, copy.home).await;
            }
            // Where that cannot be said either, one is read until the others are like it, and they
            // are before anything else is written.
            shared.places.doubt(at.slab, shared.places.get(at.slab));
            if shared.places.is_doubtful(at.slab) {
                shared.places.stop(at.slab);
            }
        }
        answer
    }

    /// Where the only one that was whole could not be written: whether one counts in its stead that
    /// a crash had left in doubt, and was.
    async fn has_another(&self, slab: u32, failed: Home, written: &[Written]) -> bool {
        let mut there = written.iter().filter(|(_, outcome)| outcome.is_ok());
        let state = |copy: &Copy| self.shared().places.state(slab, copy.home);
        let counts = |state| matches!(state, Some(State::Doubtful | State::Whole));
        if !there.clone().any(|(copy, _)| counts(state(copy))) {
            return false;
        }
        self.mark(slab, failed).await.is_ok()
            && there.any(|(copy, _)| state(copy) == Some(State::Whole))
    }

    /// The copy of which this is a part has missed something.
    pub async fn mark(&self, slab: u32, home: Home) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            match self.shared().mark_stale(slab, home).await {
                Ok(()) => return Ok(()),
                Err(error @ (PoolError::LastCopy { .. } | PoolError::Closed)) => {
                    return Err(Error::new(ErrorKind::Medium).note(error.to_string()));
                }
                Err(error) if tries == MARK_TRIES => {
                    let note = format!("a copy cannot be marked as stale: {error}");
                    return Err(Error::new(ErrorKind::Medium).note(note));
                }
                Err(_) => tries += 1,
            }
            self.core.sleep(MARK_RETRY).await;
        }
    }

    /// Brings blocks of a slab to a place of it that fills, as they are. The caller has their
    /// locks.
    pub async fn fill(&self, (at, count): (Spot, u64), to: Home) -> Result<(), Error> {
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        self.read_any(at, &buffer, &SumPages::new()).await?;
        let (device, offset) = self.find(to, at).ok_or_else(gone)?;
        device.io(&Request::write(offset, buffer.sgl())).await.map(drop)
    }

    /// Makes blocks of a slab the same at its places that are in doubt. The caller has their locks.
    pub async fn make_same(&self, at: Spot, count: u64) -> Result<(), Error> {
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        self.read_any(at, &buffer, &SumPages::new()).await
    }

    /// The same, when one is whole: where all that count are in doubt, one is about to be.
    async fn copies_that_count(&self, slab: u32) -> Vec<Copy> {
        let mut copies = self.copies(slab);
        for _ in 0..DOUBT_TRIES {
            let is_in = |state| copies.iter().any(|copy| copy.state == state);
            if is_in(State::Whole) || !is_in(State::Doubtful) {
                break;
            }
            self.core.sleep(DOUBT_RETRY).await;
            copies = self.copies(slab);
        }
        copies
    }

    /// All places of a slab, in the order in which they are read.
    pub(super) fn copies(&self, slab: u32) -> Vec<Copy> {
        let mut copies: Vec<Copy> = self.shared().places.all(slab).collect();
        copies.sort_by_key(|copy| (copy.state != State::Whole, copy.group));
        copies
    }

    /// Pages, several at a time, each taken in its turn with what was said of it.
    pub async fn read_pages<T, E: From<Error>>(
        &self,
        all: impl IntoIterator<Item = (T, Spot)>,
        take: impl FnMut(T, Page) -> Result<(), E>,
    ) -> Result<(), E> {
        Looker::new(self).read_pages(all, take).await
    }

    /// Writes what another copy has; a place that cannot be written is not up to date.
    pub(super) async fn write_copy(&self, at: Spot, to: Home, data: &Buffer) -> Result<(), Error> {
        let (device, offset) = self.find(to, at).ok_or_else(gone)?;
        match device.io(&Request::write(offset, data.sgl())).await {
            Ok(_) => Ok(()),
            Err(_) => self.mark(at.slab, to).await,
        }
    }
}

fn rotten(at: Spot) -> Error {
    let Spot { slab, block } = at;
    let note = format!("blocks from block {block} of slab {slab} on do not have their checksums");
    Error::new(ErrorKind::Medium).note(note)
}

pub(super) fn unread(at: Spot) -> Error {
    Error::new(ErrorKind::Medium).note(format!("slab {} is on no disk", at.slab))
}
