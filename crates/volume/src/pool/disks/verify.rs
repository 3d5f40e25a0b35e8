//! Whether blocks are as they should be at every place, which is more than whoever only reads them
//! asks for: what is not is written anew where another place knows better.
//!
//! At first nobody is kept waiting: what is found good needs no lock, however it was written
//! meanwhile. What is not is looked at once more with its locks, because somebody may just have
//! been overwriting it.
//!
//! Copies that differ while no sum tells which of them is right stay as they are: each may be what
//! was written last.

use block::{Buffer, Error, ErrorKind, Request, Sgl};

use super::super::journal::Spot;
use super::super::owner::Unread;
use super::super::page::{Flaw, Page};
use super::super::places::{Home, State};
use super::super::shape::BLOCK_BYTES;
use super::copies::unread;
use super::sums::{SumPages, are_right, is_known};
use super::{Disks, page_of};

const BLOCK: usize = BLOCK_BYTES as usize;

/// What has become of blocks that were not as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// They were written anew, as another place has them.
    Mended,
    /// Places differ, and nothing tells which of them is right.
    Differing,
    /// They are good nowhere.
    Lost,
}

/// Blocks of a slab, one behind the other, of which the same was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub block: u32,
    pub count: u64,
    pub outcome: Outcome,
    /// Where they were not as they should be; all that differ.
    pub homes: Vec<Home>,
}

/// What was read, and found.
#[derive(Debug, Default)]
pub struct Verified {
    /// At all places together.
    pub bytes: u64,
    pub bad: Vec<Bad>,
}

/// A page of metadata at all its places.
#[derive(Debug)]
pub enum Seen {
    Good(Page),
    /// It was written anew where it was not good.
    Mended(Page, Vec<Home>),
    Bad(Unread),
}

impl Seen {
    /// The page, with where it was not good.
    pub fn page(self) -> Result<(Page, Vec<Home>), Unread> {
        match self {
            Self::Good(page) => Ok((page, Vec::new())),
            Self::Mended(page, homes) => Ok((page, homes)),
            Self::Bad(why) => Err(why),
        }
    }
}

/// The same blocks, read at every place that counts.
type Copies = Vec<(Home, Result<Buffer, Error>)>;

impl Disks {
    /// Whether blocks of a slab are good everywhere. The caller sees to it that nobody uses them
    /// for something else meanwhile.
    pub async fn verify(&self, at: Spot, count: u64) -> Result<Verified, Error> {
        let _guard = self.passage.guard();
        let pages = self.sum_pages(at, count).await?;
        let copies = self.read_copies(at, count).await;
        let bytes = copies.len() as u64 * count * BLOCK_BYTES;
        let mut verified = Verified { bytes, bad: Vec::new() };
        if are_good(&copies, (&pages, 0)) {
            return Ok(verified);
        }
        drop(copies);
        let _locked = self.shared().locks.lock(at.slab, at.block.into(), count).await;
        for index in 0..count as u32 {
            let at = Spot { block: at.block + index, ..at };
            if let Some((outcome, homes)) = self.verify_block(at, (&pages, index as usize)).await? {
                verified.add(at.block, outcome, homes);
            }
        }
        for Bad { count, outcome, homes, .. } in &verified.bad {
            match outcome {
                Outcome::Mended => self.shared().note_damage(homes.clone(), (*count, true)),
                Outcome::Lost => self.shared().note_damage(homes.clone(), (*count, false)),
                Outcome::Differing => {}
            }
        }
        Ok(verified)
    }

    /// One block, by who has its lock: its sum is this one of those.
    async fn verify_block(
        &self,
        at: Spot,
        sum: (&SumPages, usize),
    ) -> Result<Option<(Outcome, Vec<Home>)>, Error> {
        let copies = self.read_copies(at, 1).await;
        if are_good(&copies, sum) {
            return Ok(None);
        }
        let is_good = |(_, read): &&(Home, Result<Buffer, Error>)| {
            read.as_ref().is_ok_and(|data| are_right(sum, &data.sgl()))
        };
        let (good, bad): (Vec<_>, Vec<_>) = copies.iter().partition(is_good);
        let homes_of = |of: &[&(Home, _)]| of.iter().map(|(home, _)| *home).collect::<Vec<Home>>();
        let Some((_, Ok(data))) = good.first() else {
            // A disk that is gone has not lost what is on it.
            let mut errors = bad.iter().filter_map(|(_, read)| read.as_ref().err());
            let gone = errors.find(|error| error.kind() != ErrorKind::Medium);
            return match (gone, bad.is_empty()) {
                (Some(error), _) => Err(error.clone()),
                (None, true) => Err(unread(at)),
                (None, false) => Ok(Some((Outcome::Lost, homes_of(&bad)))),
            };
        };
        let is_alike = |(_, read): &(Home, Result<Buffer, Error>)| {
            read.as_ref().is_ok_and(|other| are_alike(&data.sgl(), &other.sgl()))
        };
        if !is_known(sum) && !good.iter().all(|copy| is_alike(copy)) {
            return Ok(Some((Outcome::Differing, homes_of(&good))));
        }
        let mut mended = Vec::new();
        for home in homes_of(&bad) {
            self.write_copy(at, home, data).await?;
            // One that cannot be written is not up to date from here on, and known as such.
            if self.shared().places.state(at.slab, home) == Some(State::Whole) {
                mended.push(home);
            }
        }
        Ok((!mended.is_empty()).then_some((Outcome::Mended, mended)))
    }

    /// A page of metadata, of which `check` says whether it is what is asked for. Of places that
    /// have a good one the newest counts.
    pub async fn verify_page(
        &self,
        at: Spot,
        check: impl Fn(&Page) -> Result<(), Flaw>,
    ) -> Result<Seen, Error> {
        let _guard = self.passage.guard();
        let flaw = |read: &Result<Page, Error>| match read {
            Ok(page) => check(page).err().map(Unread::Flaw),
            Err(_) => Some(Unread::Disk),
        };
        let mut copies = self.read_page_copies(at).await;
        let are_alike = copies.iter().all(|(_, read)| flaw(read).is_none())
            && copies.windows(2).all(|two| two[0].1.as_ref().ok() == two[1].1.as_ref().ok());
        if let (true, Some((_, Ok(page)))) = (are_alike, copies.pop()) {
            return Ok(Seen::Good(page));
        }
        let _locked = self.shared().locks.lock(at.slab, at.block.into(), 1).await;
        let copies = self.read_page_copies(at).await;
        let first = copies.first().ok_or_else(|| unread(at))?;
        let why = flaw(&first.1);
        let good = copies.iter().filter(|(_, read)| flaw(read).is_none());
        let pages = good.filter_map(|(_, read)| read.as_ref().ok());
        let rank = |page: &&Page| {
            let header = page.says().0;
            (header.epoch, header.turn, header.number)
        };
        let Some(newest) = pages.max_by_key(rank) else {
            return Ok(Seen::Bad(why.unwrap_or(Unread::Disk)));
        };
        let is_other =
            |(_, read): &&(Home, Result<Page, Error>)| read.as_ref().ok() != Some(newest);
        let others: Vec<Home> = copies.iter().filter(is_other).map(|(home, _)| *home).collect();
        let data = Buffer::from_bytes(newest.bytes());
        for home in &others {
            self.write_copy(at, *home, &data).await?;
        }
        Ok(match others.is_empty() {
            true => Seen::Good(newest.clone()),
            false => Seen::Mended(newest.clone(), others),
        })
    }

    async fn read_page_copies(&self, at: Spot) -> Vec<(Home, Result<Page, Error>)> {
        let copies = self.read_copies(at, 1).await.into_iter();
        copies.map(|(home, read)| (home, read.map(|buffer| page_of(&buffer)))).collect()
    }

    /// Blocks of a slab at all places that are whole, in the order in which they are read.
    async fn read_copies(&self, at: Spot, count: u64) -> Copies {
        let whole = self.copies(at.slab).into_iter().filter(|copy| copy.state == State::Whole);
        let asked = whole.filter_map(|copy| {
            let (device, offset) = self.find(copy.home, at)?;
            let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
            let answer = device.ask(&Request::read(offset, buffer.sgl()));
            Some((copy.home, buffer, answer))
        });
        let mut copies = Copies::new();
        for (home, buffer, answer) in asked.collect::<Vec<_>>() {
            copies.push((home, answer.outcome().await.map(|_| buffer)));
        }
        copies
    }
}

impl Verified {
    fn add(&mut self, block: u32, outcome: Outcome, homes: Vec<Home>) {
        if let Some(last) = self.bad.last_mut()
            && u64::from(last.block) + last.count == u64::from(block)
            && (last.outcome, &last.homes) == (outcome, &homes)
        {
            last.count += 1;
            return;
        }
        self.bad.push(Bad { block, count: 1, outcome, homes });
    }
}

/// Whether there is nothing to be said of these copies: their first block has this one of the sums.
fn are_good(copies: &Copies, sums: (&SumPages, usize)) -> bool {
    let Some((_, Ok(first))) = copies.first() else { return false };
    let others = copies[1..].iter();
    let mut others = others.map(|(_, read)| read.as_ref().map(|other| other.sgl()));
    are_right(sums, &first.sgl())
        && others.all(|other| other.is_ok_and(|other| are_alike(&first.sgl(), &other)))
}

fn are_alike(one: &Sgl<'_>, other: &Sgl<'_>) -> bool {
    let (mut left, mut right) = ([0; BLOCK], [0; BLOCK]);
    (0..one.len()).step_by(BLOCK).all(|at| {
        one.copy_out(at, &mut left);
        other.copy_out(at, &mut right);
        left == right
    })
}
