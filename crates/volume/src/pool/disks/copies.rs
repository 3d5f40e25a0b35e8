//! Slabs and their copies: what is read at one place is written at all of them.
//!
//! A copy that misses a write is marked before the write is answered; what cannot be read at one
//! place is read at another one, and written anew where it could not be read.

use std::time::Duration;

use block::{Answer, Buffer, Error, ErrorKind, Request, Sgl};

use super::super::home::PoolError;
use super::super::journal::Spot;
use super::super::page::Page;
use super::super::places::{Copy, Home, State};
use super::super::shape::BLOCK_BYTES;
use super::{Disks, Looker, gone};

/// How often it is tried to mark a copy, before what it has missed is said to have failed.
const MARK_TRIES: u32 = 20;
const MARK_RETRY: Duration = Duration::from_millis(250);

/// A read that is under way.
pub struct Reading {
    at: Spot,
    skip: u64,
    from: Home,
    answer: Answer,
}

impl Reading {
    /// Waits for it; what could not be read is looked for elsewhere.
    pub async fn end(self, disks: &Disks, data: &Sgl<'_>) -> Result<(), Error> {
        let Self { at, skip, from, answer } = self;
        let Err(error) = answer.outcome().await else { return Ok(()) };
        for copy in disks.copies(at.slab) {
            if copy.home == from || copy.state != State::Whole {
                continue;
            }
            let Some((device, offset)) = disks.find(copy.home, at) else { continue };
            if device.io(&Request::read(offset + skip, *data)).await.is_ok() {
                let blocks = (skip + data.len() as u64).div_ceil(BLOCK_BYTES);
                disks.mend((at, blocks), copy.home, from).await;
                return Ok(());
            }
        }
        Err(error)
    }
}

impl Disks {
    /// Reads bytes of blocks of a slab: from this byte of the first one on.
    pub async fn read(&self, at: (Spot, u64), data: &Sgl<'_>) -> Result<(), Error> {
        self.begin_read(at, data)?.end(self, data).await
    }

    /// Begins to read; [`Reading::end`] waits for it.
    pub fn begin_read(&self, (at, skip): (Spot, u64), data: &Sgl<'_>) -> Result<Reading, Error> {
        let whole = self.shared().places.get(at.slab);
        let found = whole.and_then(|from| Some((from, self.find(from, at)?)));
        let (from, (device, offset)) = found.ok_or_else(|| unread(at))?;
        let answer = device.ask(&Request::read(offset + skip, *data));
        Ok(Reading { at, skip, from, answer })
    }

    /// Writes whole blocks of a slab, at all its places. A copy that misses it is known to be stale
    /// when this is done.
    pub async fn write(&self, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        let _guard = self.passage.guard();
        if let Some((device, offset)) = self.locate_sole(at) {
            return device.io(&Request::write(offset, *data)).await.map(drop);
        }
        // A client may change its memory meanwhile, and all places shall have the same.
        let copy = Buffer::zeroed(data.len());
        copy.sgl().copy_from(data);
        let (first, count) = (u64::from(at.block), data.len() as u64 / BLOCK_BYTES);
        let _locked = self.shared().locks.lock(at.slab, first, count).await;
        self.write_all(at, &copy.sgl()).await
    }

    /// The same for one who has the locks.
    async fn write_all(&self, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        let mut asked = Vec::new();
        for copy in self.copies(at.slab) {
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
        let (_, mut answer) = written.swap_remove(kept);
        let is_there = answer.is_ok();
        for (copy, outcome) in written {
            if is_there && outcome.is_ok() {
                continue;
            }
            let is_filling = (State::Filling, State::Broken);
            if !self.shared().places.mark(at.slab, copy.home, is_filling) {
                answer = answer.and(self.mark(at.slab, copy.home).await);
            }
        }
        answer
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

    /// Brings blocks of a slab to a place of it that fills. The caller has their locks.
    pub async fn fill(&self, (at, count): (Spot, u64), to: Home) -> Result<(), Error> {
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        self.read((at, 0), &buffer.sgl()).await?;
        let (device, offset) = self.find(to, at).ok_or_else(gone)?;
        device.io(&Request::write(offset, buffer.sgl())).await.map(drop)
    }

    /// Writes blocks anew where they could not be read, as they are at another place.
    async fn mend(&self, (at, count): (Spot, u64), from: Home, to: Home) {
        let _guard = self.passage.guard();
        let _locked = self.shared().locks.lock(at.slab, at.block.into(), count).await;
        if self.shared().places.state(at.slab, to) != Some(State::Whole) {
            return;
        }
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        let (Some(good), Some(bad)) = (self.find(from, at), self.find(to, at)) else { return };
        if good.0.io(&Request::read(good.1, buffer.sgl())).await.is_err() {
            return;
        }
        if bad.0.io(&Request::write(bad.1, buffer.sgl())).await.is_err() {
            // Without this mark the next one who reads finds out again.
            let _ = self.mark(at.slab, to).await;
        }
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

pub(super) fn unread(at: Spot) -> Error {
    Error::new(ErrorKind::Medium).note(format!("slab {} is on no disk", at.slab))
}
