//! Checksums of blocks, in pools that keep them: one for each block of each slab, in pages behind
//! the slab.
//!
//! ```text
//!   first write   ─▶ sum in its record ─▶ in its page ── checkpoint ─▶ on disk, record gone
//!   overwrite     ─▶ region open ───────▶ in its page ── quiet ──────▶ on disk, region closed
//!   after a crash ─▶ of records: in them; of open regions: taken anew from what is there
//! ```
//!
//! Every core looks into the same pages, and whoever has the locks of blocks changes theirs. A page
//! on disk is older than what it speaks of only where the journal knows better: it is written
//! before the journal forgets. What a page says of blocks that are not written means nothing, so
//! slabs are granted and extents are freed without a look at it.
//!
//! Not here: reading and writing pages (`disks`), and when (`lu::service`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::Sgl;

use super::journal::Spot;
use super::locks::Locks;
use super::memory::{Held, Memory};
use super::numbers::NumberMap;
use super::owner::{Regions, regions_of};
use super::page::{Flaw, Header, Kind, Owner, Page};
use super::shape::{BLOCK_BYTES, SUMS_PER_PAGE, Shape};

pub(super) const KIND: Kind = Kind(*b"VDcs");

/// Nothing is known of a block: whatever is there is right.
const UNKNOWN: u32 = 0;
/// The block had a sum, and that is lost: nothing is right until the block is written again.
const LOST: u32 = u32::MAX;
const SUM_BYTES: usize = size_of::<u32>();

/// Nobody writes it.
const DIRTY: u8 = 1;
/// Somebody does, and does not know yet whether that succeeds.
const UNDER_WAY: u8 = 2;

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 64;
/// Pages that a part keeps in memory, if it can: 16 MiB in all, which is 16 GiB of blocks.
const SHARD_PAGES_MAX: usize = 64;

/// A page of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SumsId {
    pub slab: u32,
    pub page: u32,
}

/// The sum of a block as it is kept: none has one of those that mean something else.
fn kept(sum: u32) -> u32 {
    sum.clamp(UNKNOWN + 1, LOST - 1)
}

/// The sums of whole blocks, as records have them.
pub fn sums_of(blocks: &Sgl<'_>) -> impl Iterator<Item = u32> {
    let mut block = [0; BLOCK_BYTES as usize];
    (0..blocks.len()).step_by(block.len()).map(move |at| {
        blocks.copy_out(at, &mut block);
        sum_of(&block)
    })
}

pub fn sum_of(block: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(block)
}

/// A page in memory.
pub struct SumPage {
    sums: Box<[AtomicU32]>,
    /// Of the newest on disk.
    turn: AtomicU64,
    /// What it says that is not on disk, as far as anybody knows: [`DIRTY`], [`UNDER_WAY`].
    unwritten: AtomicU8,
    /// Since somebody looked for one that can go.
    is_used: AtomicBool,
    _held: Held,
}

impl SumPage {
    fn of(sum: u32, turn: u64) -> Self {
        let sums = (0..SUMS_PER_PAGE).map(|_| AtomicU32::new(sum)).collect();
        let (unwritten, is_used) = (AtomicU8::new(0), AtomicBool::new(true));
        Self { sums, turn: AtomicU64::new(turn), unwritten, is_used, _held: Held::default() }
    }

    /// Whether a block may have this sum.
    pub fn allows(&self, index: usize, sum: u32) -> bool {
        let known = self.sums[index].load(Ordering::Acquire);
        known == kept(sum) || known == UNKNOWN
    }

    pub fn is_known(&self, index: usize) -> bool {
        self.sums[index].load(Ordering::Acquire) != UNKNOWN
    }

    /// Blocks from this one on have these sums from now on, as [`sum_of`] gives them; none: nobody
    /// knows what is there.
    pub fn set(&self, first: usize, sums: impl IntoIterator<Item = Option<u32>>) {
        for (here, sum) in self.sums[first..].iter().zip(sums) {
            here.store(sum.map_or(UNKNOWN, kept), Ordering::Release);
        }
        self.make_dirty();
    }

    /// What is to be written, and where of the two places, if anything has changed. Whoever wants
    /// that is alone with it until he says [`SumPage::is_written`] or not.
    pub fn image(&self, id: SumsId, (pool, shape): (Owner, Shape)) -> Option<(Spot, Page)> {
        if self.unwritten.load(Ordering::Acquire) & DIRTY == 0 {
            return None;
        }
        self.unwritten.swap(UNDER_WAY, Ordering::AcqRel);
        let sums = self.sums.iter().flat_map(|sum| sum.load(Ordering::Acquire).to_le_bytes());
        let payload: Vec<u8> = sums.collect();
        let turn = self.turn.load(Ordering::Acquire) + 1;
        let number = id.number(shape);
        let page = Page::new(Header { kind: KIND, owner: pool, number, turn, epoch: 0 }, &payload);
        Some((id.places(shape)[(turn % 2) as usize], page))
    }

    pub fn is_written(&self, is_written: bool) {
        match is_written {
            true => drop(self.turn.fetch_add(1, Ordering::AcqRel)),
            false => self.make_dirty(),
        }
        self.unwritten.fetch_and(!UNDER_WAY, Ordering::AcqRel);
    }

    /// It is written anew, whatever is on disk.
    pub fn make_dirty(&self) {
        self.unwritten.fetch_or(DIRTY, Ordering::AcqRel);
    }

    /// Of the newest on disk.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Whether it says something that is not on disk, also while somebody writes that.
    pub fn is_dirty(&self) -> bool {
        self.unwritten.load(Ordering::Acquire) != 0
    }

    /// What its two places say; none: it could not be read.
    pub fn decode(id: SumsId, (pool, shape): (Owner, Shape), places: [Option<Page>; 2]) -> Self {
        let number = id.number(shape);
        let check = |page: &Option<Page>| {
            page.as_ref().ok_or(Flaw::Rotten).and_then(|it| it.check(KIND, &pool, number))
        };
        let newest = super::page::newest([check(&places[0]), check(&places[1])]).ok();
        if let Some(page) = newest.and_then(|newest| places[newest].as_ref()) {
            let sums = sums_in(page).map(AtomicU32::new).collect();
            return Self { sums, ..Self::of(UNKNOWN, page.says().0.turn) };
        }
        // One that was written once only may have been torn then: what it said the journal knows.
        let was = |page: &Page| page.was(KIND, &pool, number) && page.says().0.turn > 1;
        match places.iter().any(|page| page.as_ref().is_none_or(was)) {
            true => Self::of(LOST, 0),
            false => Self::of(UNKNOWN, 0),
        }
    }
}

fn sums_in(page: &Page) -> impl Iterator<Item = u32> {
    let all = page.payload().chunks_exact(SUM_BYTES).take(SUMS_PER_PAGE as usize);
    all.map(|bytes| u32::from_le_bytes(bytes.try_into().expect("so many")))
}

/// What a page says, in words; nothing of blocks of which nothing is known.
pub fn said(page: &Page) -> impl Iterator<Item = Option<String>> {
    sums_in(page).map(|sum| match sum {
        UNKNOWN => None,
        LOST => Some("lost".to_owned()),
        sum => Some(format!("{sum:08x}")),
    })
}

impl SumsId {
    /// The pages that these blocks of a slab have their sums in, with the first one's place there
    /// and their number.
    pub fn of(at: Spot, count: u64) -> impl Iterator<Item = (Self, usize, usize)> {
        let (first, end) = (u64::from(at.block), u64::from(at.block) + count);
        (first / SUMS_PER_PAGE..=(end - 1) / SUMS_PER_PAGE).map(move |page| {
            let from = first.max(page * SUMS_PER_PAGE);
            let to = end.min((page + 1) * SUMS_PER_PAGE);
            let id = Self { slab: at.slab, page: page as u32 };
            (id, (from - page * SUMS_PER_PAGE) as usize, (to - from) as usize)
        })
    }

    /// Its two places, behind the slab's blocks.
    pub fn places(self, shape: Shape) -> [Spot; 2] {
        let first = shape.blocks_per_slab() as u32 + 2 * self.page;
        [first, first + 1].map(|block| Spot { slab: self.slab, block })
    }

    /// Its number in the pool.
    pub(super) fn number(self, shape: Shape) -> u64 {
        u64::from(self.slab) * shape.sum_pages() + u64::from(self.page)
    }

    /// The blocks of its slab that have their sums in it.
    pub fn blocks(self, shape: Shape) -> Range<u64> {
        let first = u64::from(self.page) * SUMS_PER_PAGE;
        first..(first + SUMS_PER_PAGE).min(shape.blocks_per_slab())
    }
}

/// What an owner's journal knows better than the pages do, when it is opened.
#[derive(Debug, Default)]
pub struct Known {
    /// Of blocks whose records are there.
    pub sums: BTreeMap<Spot, u32>,
    /// Where nobody knows what a crash has left.
    pub doubtful: Regions,
}

/// Some of the pages that are in memory.
type Shard = NumberMap<SumsId, Arc<SumPage>>;

/// The pages that are in memory, of all slabs of a pool.
pub struct Sums {
    pool: Owner,
    shape: Shape,
    shards: Box<[Mutex<Shard>]>,
    /// What pages have to be told when they are read. Whoever tells one keeps this until that is in
    /// memory, so that it is known here or there at any moment.
    known: Mutex<Known>,
    /// Where they are counted.
    memory: Mutex<Arc<Memory>>,
    /// Each page is read, or written, by one at a time.
    pub locks: Locks,
}

impl Sums {
    pub fn new(pool: Owner, shape: Shape) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            pool,
            shape,
            shards,
            known: Mutex::default(),
            memory: Mutex::default(),
            locks: Locks::default(),
        }
    }

    pub fn of(&self) -> (Owner, Shape) {
        (self.pool, self.shape)
    }

    pub fn get(&self, id: SumsId) -> Option<Arc<SumPage>> {
        let shard = lock(self.shard(id));
        let page = shard.get(&id)?;
        // It is other cores' line too, and seldom written.
        if !page.is_used.load(Ordering::Relaxed) {
            page.is_used.store(true, Ordering::Relaxed);
        }
        Some(page.clone())
    }

    /// The one page that these blocks of a slab have their sums in, if it is in memory, with the
    /// place of the first one in it.
    pub fn page_of(&self, at: Spot, count: u64) -> Option<(Arc<SumPage>, usize)> {
        let (id, first, here) = SumsId::of(at, count).next()?;
        if here as u64 == count { Some((self.get(id)?, first)) } else { None }
    }

    /// Whether a page is in memory; it is not used by that.
    pub fn has(&self, id: SumsId) -> bool {
        lock(self.shard(id)).contains_key(&id)
    }

    /// Lets a page go that can be read again, unless somebody has it.
    pub fn let_go(&self, id: SumsId) {
        let mut shard = lock(self.shard(id));
        if shard.get(&id).is_some_and(can_be_read_again) {
            shard.remove(&id);
        }
    }

    /// A page that was read, corrected by what is known better.
    pub fn insert(&self, id: SumsId, page: SumPage) -> Arc<SumPage> {
        let mut known = lock(&self.known);
        if let Some(doubtful) = known.doubtful.get(&id.slab) {
            let blocks = id.blocks(self.shape).enumerate();
            let is_doubtful = |block| regions_of(self.shape, block, 1) & doubtful != 0;
            let doubtful = blocks.filter(|(_, it)| is_doubtful(*it));
            doubtful.for_each(|(index, _)| page.set(index, [None]));
        }
        let blocks = id.blocks(self.shape);
        let spot = |block: u64| Spot { slab: id.slab, block: block as u32 };
        for (at, sum) in known.sums.extract_if(spot(blocks.start)..spot(blocks.end), |_, _| true) {
            page.set((u64::from(at.block) - blocks.start) as usize, [Some(sum)]);
        }
        let _held = lock(&self.memory).hold(size_of::<SumPage>() + page.sums.len() * SUM_BYTES);
        let page = Arc::new(SumPage { _held, ..page });
        let mut shard = lock(self.shard(id));
        make_room(&mut shard);
        shard.insert(id, page.clone());
        page
    }

    /// An owner begins, with what its journal knows of its slabs, and where memory is counted.
    pub fn begin(&self, slabs: &[u32], known: Known, memory: &Arc<Memory>) {
        lock(&self.memory).clone_from(memory);
        let slabs: BTreeSet<u32> = slabs.iter().copied().collect();
        // Some may be reading what the owner before has left.
        let mut all = lock(&self.known);
        self.forget_with(&mut all, |slab| slabs.contains(&slab));
        all.sums.extend(known.sums);
        all.doubtful.extend(known.doubtful);
    }

    /// Nobody uses these slabs as he who has used them so far.
    pub fn forget(&self, is_one: impl Fn(u32) -> bool) {
        self.forget_with(&mut lock(&self.known), is_one);
    }

    fn forget_with(&self, known: &mut Known, is_one: impl Fn(u32) -> bool) {
        known.sums.retain(|at, _| !is_one(at.slab));
        known.doubtful.retain(|slab, _| !is_one(*slab));
        self.shards.iter().for_each(|shard| lock(shard).retain(|id, _| !is_one(id.slab)));
    }

    /// Pages with what is not on disk, of these slabs: they have to be read if they are not here.
    pub fn unwritten(&self, is_one: impl Fn(u32) -> bool) -> Vec<SumsId> {
        let known = lock(&self.known);
        let told = known.sums.keys().filter(|at| is_one(at.slab));
        let told = told.flat_map(|at| SumsId::of(*at, 1)).map(|(id, ..)| id);
        // What the journal says of these it may be about to forget.
        let doubtful = known.doubtful.iter().filter(|(slab, _)| is_one(**slab));
        let doubtful = doubtful.flat_map(|(slab, regions)| self.pages_of(*slab, *regions));
        let mut all: Vec<SumsId> = told.chain(doubtful).collect();
        drop(known);
        for shard in &self.shards {
            let shard = lock(shard);
            let dirty = shard.iter().filter(|(id, page)| is_one(id.slab) && page.is_dirty());
            all.extend(dirty.map(|(id, _)| *id));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Regions of these slabs of whose blocks sums have to be taken anew.
    pub fn doubtful(&self, is_one: impl Fn(u32) -> bool) -> Regions {
        let known = lock(&self.known);
        let all = known.doubtful.iter().filter(|(slab, _)| is_one(**slab));
        all.map(|(slab, regions)| (*slab, *regions)).collect()
    }

    /// The sums of these were taken.
    pub fn settled(&self, slab: u32, regions: u64) {
        let mut known = lock(&self.known);
        if let Some(doubtful) = known.doubtful.get_mut(&slab) {
            *doubtful &= !regions;
        }
        known.doubtful.retain(|_, regions| *regions != 0);
    }

    /// Where blocks of these regions have their sums.
    pub fn pages_of(&self, slab: u32, regions: u64) -> impl Iterator<Item = SumsId> {
        let shape = self.shape;
        let all = (0..shape.sum_pages() as u32).map(move |page| SumsId { slab, page });
        all.filter(move |id| {
            let blocks = id.blocks(shape);
            regions_of(shape, blocks.start, blocks.end - blocks.start) & regions != 0
        })
    }

    fn shard(&self, id: SumsId) -> &Mutex<Shard> {
        &self.shards[(id.slab as usize).wrapping_mul(31).wrapping_add(id.page as usize) % SHARDS]
    }
}

/// Lets go of a page that nobody has and nobody has looked into of late. One that is not on disk
/// stays: there are no more of these than open regions and records in journals.
fn make_room(shard: &mut Shard) {
    if shard.len() < SHARD_PAGES_MAX {
        return;
    }
    let can_go = |page: &Arc<SumPage>| {
        let was_used = page.is_used.swap(false, Ordering::Relaxed);
        !was_used && can_be_read_again(page)
    };
    let second_look = || shard.iter().find(|(_, page)| can_go(page)).map(|(id, _)| *id);
    if let Some(id) = second_look().or_else(second_look) {
        shard.remove(&id);
    }
}

fn can_be_read_again(page: &Arc<SumPage>) -> bool {
    !page.is_dirty() && Arc::strong_count(page) == 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint makes the journal forget sums when they are on disk, and looks here for those
    /// that are not.
    #[test]
    fn what_the_journal_knew_is_unwritten_until_it_is_on_disk() {
        const ROUNDS: u32 = 40;
        const PAGES: u32 = 500;
        for _ in 0..ROUNDS {
            let sums = Sums::new([7; 16], Shape::default().with_sums());
            let known = (0..PAGES).map(|slab| (Spot { slab, block: 3 }, 5)).collect();
            sums.begin(&[], Known { sums: known, ..Known::default() }, &Arc::default());
            std::thread::scope(|threads| {
                let reader = threads.spawn(|| {
                    for slab in 0..PAGES {
                        let id = SumsId { slab, page: 0 };
                        sums.insert(id, SumPage::decode(id, sums.of(), [None, None]));
                    }
                });
                while !reader.is_finished() {
                    assert_eq!(sums.unwritten(|_| true).len(), PAGES as usize);
                }
            });
        }
    }
}
