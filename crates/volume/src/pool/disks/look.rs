//! Looking at what an owner has left, in all copies: which of them counts, and which are unlike it.
//!
//! A crash may leave one copy of a page or of a block written and another one not. What counts is
//! chosen once, when the LU is opened, and made the same everywhere before anything else is done: a
//! copy that is asked later must not tell of another past.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use block::{Answer, Buffer, Error, Request};

use super::super::journal::Spot;
use super::super::page::Page;
use super::super::places::{Home, State};
use super::super::shape::BLOCK_BYTES;
use super::copies::unread;
use super::{Disks, gone, page_of};

/// Blocks that are read at one time, by one who wants many.
const READS_MAX: usize = 32;

/// How long what cannot be read is looked for again, where a copy is about to be out of doubt.
pub(super) const DOUBT_TRIES: u32 = 200;
pub(super) const DOUBT_RETRY: Duration = Duration::from_millis(5);

/// A block that is not the same everywhere.
pub struct Unlike {
    at: Spot,
    /// Where it is as it counts.
    good: Home,
    others: Vec<Home>,
}

/// One who looks.
pub struct Looker<'a> {
    disks: &'a Disks,
    /// Of blocks that are there or not: the sums that their copies have.
    sums: RefCell<HashMap<Spot, Sums>>,
    unlike: RefCell<Vec<Unlike>>,
}

/// Of a block, as far as it can be read.
type Sums = Vec<(Home, Option<u32>)>;

/// A block that is being read from all its copies.
type Asked = Vec<(Home, Buffer, Answer)>;

impl<'a> Looker<'a> {
    pub fn new(disks: &'a Disks) -> Self {
        Self { disks, sums: RefCell::default(), unlike: RefCell::default() }
    }

    /// What was found that is not the same everywhere.
    pub fn unlike(&self) -> Vec<Unlike> {
        self.unlike.take()
    }

    /// Pages, several at a time, each taken in its turn with what was said of it. Of copies that
    /// differ the newest counts: nobody overwrites what something else still names.
    pub async fn read_pages<T, E: From<Error>>(
        &self,
        all: impl IntoIterator<Item = (T, Spot)>,
        mut take: impl FnMut(T, Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let choose = |which, at, mut copies: Vec<(Home, Option<Page>)>| {
            let rank = |page: &Option<Page>| {
                let says = page.as_ref().map(|page| (page.is_whole(), page.says().0));
                says.map(|(is_whole, it)| (is_whole, it.epoch, it.turn, it.number))
            };
            let newest = (0..copies.len()).rev().max_by_key(|copy| rank(&copies[*copy].1));
            let newest = newest.map(|copy| copies.swap_remove(copy));
            let Some((good, Some(page))) = newest else { return Err(unread(at).into()) };
            if page.is_whole() {
                let is_other = |other: &Option<Page>| other.as_ref() != Some(&page);
                self.note((at, good), copies.into_iter().map(|(home, it)| (home, is_other(&it))));
            }
            take(which, page)
        };
        self.read_each(all, choose).await
    }

    /// Blocks of which it will be asked what is [there](Looker::has).
    pub async fn read_doubtful(&self, all: Vec<Spot>) -> Result<(), Error> {
        let take = |(), at, copies: Vec<(Home, Option<Page>)>| {
            let sum = |page: Option<Page>| page.map(|it| crc_fast::crc32_iscsi(it.bytes()));
            let sums = copies.into_iter().map(|(home, page)| (home, sum(page))).collect();
            self.sums.borrow_mut().insert(at, sums);
            Ok(())
        };
        self.read_each(all.into_iter().map(|at| ((), at)), take).await
    }

    /// Whether a copy of a block has this sum: then it is the one that counts.
    pub fn has(&self, at: Spot, sum: u32) -> bool {
        let sums = self.sums.borrow();
        let Some(copies) = sums.get(&at) else { return false };
        let Some((good, _)) = copies.iter().find(|(_, it)| *it == Some(sum)) else { return false };
        self.note((at, *good), copies.iter().map(|(home, it)| (*home, *it != Some(sum))));
        true
    }

    fn note(&self, (at, good): (Spot, Home), others: impl Iterator<Item = (Home, bool)>) {
        let others = others.filter(|(_, is_other)| *is_other).map(|(home, _)| home);
        let others: Vec<Home> = others.collect();
        if !others.is_empty() {
            self.unlike.borrow_mut().push(Unlike { at, good, others });
        }
    }

    /// The same block of all copies that are whole; nothing of those that cannot be read.
    async fn read_each<T, E: From<Error>>(
        &self,
        all: impl IntoIterator<Item = (T, Spot)>,
        mut take: impl FnMut(T, Spot, Vec<(Home, Option<Page>)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut all = all.into_iter();
        let mut under_way = VecDeque::new();
        loop {
            while under_way.len() < READS_MAX
                && let Some((which, at)) = all.next()
            {
                under_way.push_back((which, at, self.ask(at)));
            }
            let Some((which, at, asked)) = under_way.pop_front() else { return Ok(()) };
            let mut copies = self.answers(at, asked).await;
            for _ in 0..DOUBT_TRIES {
                if copies.is_ok() || !self.disks.shared().places.is_doubtful(at.slab) {
                    break;
                }
                self.disks.core.sleep(DOUBT_RETRY).await;
                copies = self.answers(at, self.ask(at)).await;
            }
            take(which, at, copies?)?;
        }
    }

    /// An error: none of them can be read. A bad sector is one only where all copies have one.
    async fn answers(&self, at: Spot, asked: Asked) -> Result<Vec<(Home, Option<Page>)>, Error> {
        let (mut copies, mut failed) = (Vec::new(), None);
        for (home, buffer, answer) in asked {
            let read = answer.outcome().await.map(|_| page_of(&buffer));
            self.disks.give_back(buffer);
            if let Err(error) = &read
                && failed.as_ref().is_none_or(Error::is_bad_sector)
            {
                failed = Some(error.clone());
            }
            copies.push((home, read.ok()));
        }
        match copies.iter().any(|(_, page)| page.is_some()) {
            true => Ok(copies),
            false => Err(failed.unwrap_or_else(|| unread(at))),
        }
    }

    fn ask(&self, at: Spot) -> Asked {
        let whole = self.disks.copies(at.slab).into_iter();
        let whole = whole.filter(|copy| copy.state == State::Whole);
        let asked = whole.filter_map(|copy| {
            let (device, offset) = self.disks.find(copy.home, at)?;
            let buffer = self.disks.buffer();
            let answer = device.ask(&Request::read(offset, buffer.sgl()));
            Some((copy.home, buffer, answer))
        });
        asked.collect()
    }
}

impl Disks {
    /// Makes all copies of these blocks like the one that counts.
    pub async fn make_alike(&self, all: Vec<Unlike>) -> Result<(), Error> {
        for Unlike { at, good, others } in all {
            let buffer = Buffer::zeroed(BLOCK_BYTES as usize);
            let (device, offset) = self.find(good, at).ok_or_else(gone)?;
            device.io(&Request::read(offset, buffer.sgl())).await?;
            for to in others {
                self.write_copy(at, to, &buffer).await?;
            }
        }
        Ok(())
    }
}
