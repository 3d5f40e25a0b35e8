//! Where the slabs are: which places each number has.
//!
//! Maps name numbers. Where a number lies is looked up here, by every core for every request and
//! without a lock: places are atomics in chunks that are made once and stay. Most numbers have one
//! place. One with more is written at all of them, by one at a time for each block ([`Locks`]), so
//! that they never differ in what was answered; and read at the first. A slab moves like that:
//!
//! ```text
//!   one ─▶ one, and another that fills ─▶ two that are whole ─▶ the other one
//! ```
//!
//! What a reader or a writer finds at any moment of that is right as long as it is on the way; who
//! takes the old place away waits until nobody is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

/// Numbers in one chunk of the table.
const CHUNK_NUMBERS: usize = 4096;
const CHUNKS_MAX: usize = 4096;
/// Slabs of a pool: 256 TiB of the default size.
pub const SLABS_MAX: u32 = (CHUNK_NUMBERS * CHUNKS_MAX) as u32;

/// A slab on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    /// Which of the pool's disks.
    pub disk: u32,
    pub index: u32,
}

/// What the second place of a number is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// What is written is written there too; other blocks are not there yet.
    Filling,
    /// Something could not be written there: it will never be whole.
    Broken,
    /// Everything is there.
    Whole,
}

/// In the first word: the number has another place, in the second word.
const HAS_SECOND: u64 = 1 << 63;
const STATES: [(Second, u64); 3] =
    [(Second::Whole, 0), (Second::Filling, 1 << 63), (Second::Broken, 1 << 62)];
const STATE_BITS: u64 = 3 << 62;

type Chunk = Box<[[AtomicU64; 2]]>;

pub struct Places(Box<[OnceLock<Chunk>]>);

impl Default for Places {
    fn default() -> Self {
        Self((0..CHUNKS_MAX).map(|_| OnceLock::new()).collect())
    }
}

/// Zero is nowhere: what is kept is one more than the disk's number.
fn word_of(home: Option<Home>) -> u64 {
    home.map_or(0, |home| u64::from(home.disk + 1) << 32 | u64::from(home.index))
}

fn home_of(word: u64) -> Option<Home> {
    let word = word & !STATE_BITS;
    let disk = ((word >> 32) as u32).checked_sub(1)?;
    Some(Home { disk, index: word as u32 })
}

impl Places {
    fn words(&self, number: u32) -> Option<&[AtomicU64; 2]> {
        let chunk = self.0.get(number as usize / CHUNK_NUMBERS)?.get()?;
        Some(&chunk[number as usize % CHUNK_NUMBERS])
    }

    /// Where a slab is read.
    #[inline]
    pub fn get(&self, number: u32) -> Option<Home> {
        home_of(self.words(number)?[0].load(Ordering::Acquire))
    }

    /// Where a slab is written, if that is one place.
    #[inline]
    pub fn sole(&self, number: u32) -> Option<Home> {
        let word = self.words(number)?[0].load(Ordering::Acquire);
        if word & HAS_SECOND == 0 { home_of(word) } else { None }
    }

    /// The other place, if there is one.
    pub fn second(&self, number: u32) -> Option<(Home, Second)> {
        let words = self.words(number)?;
        if words[0].load(Ordering::Acquire) & HAS_SECOND == 0 {
            return None;
        }
        let word = words[1].load(Ordering::Acquire);
        let state = STATES.iter().find(|(_, bits)| word & STATE_BITS == *bits);
        Some((home_of(word)?, state.map_or(Second::Broken, |(state, _)| *state)))
    }

    /// Gives a number one place, or none. Panics where it is beyond [`SLABS_MAX`].
    pub fn set(&self, number: u32, home: Option<Home>) {
        let new = || (0..CHUNK_NUMBERS).map(|_| Default::default()).collect();
        let chunk = self.0[number as usize / CHUNK_NUMBERS].get_or_init(new);
        let words = &chunk[number as usize % CHUNK_NUMBERS];
        words[0].store(word_of(home), Ordering::Release);
        words[1].store(0, Ordering::Release);
    }

    /// Gives a number that has a place another one.
    pub fn add(&self, number: u32, home: Home) {
        let Some(words) = self.words(number) else { return };
        words[1].store(word_of(Some(home)) | bits_of(Second::Filling), Ordering::Release);
        words[0].fetch_or(HAS_SECOND, Ordering::AcqRel);
    }

    /// Says something else of the second place. What is broken stays so: false.
    pub fn mark(&self, number: u32, state: Second) -> bool {
        let Some(words) = self.words(number) else { return false };
        let mark = |word: u64| {
            let is_broken = word & STATE_BITS == bits_of(Second::Broken);
            (!is_broken).then_some(word & !STATE_BITS | bits_of(state))
        };
        words[1].fetch_update(Ordering::AcqRel, Ordering::Acquire, mark).is_ok()
    }
}

fn bits_of(state: Second) -> u64 {
    STATES.iter().find(|(it, _)| *it == state).map_or(0, |(_, bits)| *bits)
}

/// Words of locks, for all slabs of a pool: two blocks of different slabs may share a lock.
const LOCK_WORDS: usize = 1024;
const WORD_BLOCKS: u64 = 64;

/// Blocks of slabs with several places, each of which is written by one at a time.
pub struct Locks {
    words: Box<[AtomicU64]>,
    /// How many have looked in vain, or are about to.
    waits: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
}

impl Default for Locks {
    fn default() -> Self {
        let words = (0..LOCK_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, waits: AtomicUsize::new(0), waiting: Mutex::default() }
    }
}

/// Blocks that are somebody's alone until this is dropped.
pub struct Locked<'a> {
    locks: &'a Locks,
    held: Vec<(usize, u64)>,
}

impl Locks {
    /// Waits for these blocks of a slab.
    pub async fn lock(&self, slab: u32, first: u64, count: u64) -> Locked<'_> {
        // Everybody takes words in the same order, and each word once.
        let mut wanted: BTreeMap<usize, u64> = BTreeMap::new();
        let mut at = first;
        while at < first + count {
            let (word, bit) = (at / WORD_BLOCKS, at % WORD_BLOCKS);
            let blocks = (WORD_BLOCKS - bit).min(first + count - at);
            let ones = u64::MAX >> (WORD_BLOCKS - blocks);
            *wanted.entry(slot_of(slab, word)).or_default() |= ones << bit;
            at += blocks;
        }
        let mut locked = Locked { locks: self, held: Vec::with_capacity(wanted.len()) };
        for (slot, bits) in wanted {
            if !self.try_take(slot, bits) {
                self.wait_for(slot, bits).await;
            }
            locked.held.push((slot, bits));
        }
        locked
    }

    fn try_take(&self, slot: usize, bits: u64) -> bool {
        let take = |word: u64| (word & bits == 0).then_some(word | bits);
        self.words[slot].fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    async fn wait_for(&self, slot: usize, bits: u64) {
        std::future::poll_fn(|cx| {
            // Whoever lets go looks at this after it has: one of the two sees the other.
            self.waits.fetch_add(1, Ordering::SeqCst);
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if self.try_take(slot, bits) {
                self.waits.fetch_sub(1, Ordering::SeqCst);
                return Poll::Ready(());
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Neighbours have different locks.
fn slot_of(slab: u32, word: u64) -> usize {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    (u64::from(slab).wrapping_mul(SPREAD) >> 32).wrapping_add(word) as usize % LOCK_WORDS
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for (slot, bits) in &self.held {
            self.locks.words[*slot].fetch_and(!bits, Ordering::SeqCst);
        }
        if self.locks.waits.load(Ordering::SeqCst) == 0 {
            return;
        }
        let woken = {
            let waiting = &self.locks.waiting;
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.locks.waits.fetch_sub(waiting.len(), Ordering::SeqCst);
            std::mem::take(&mut *waiting)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    const OLD: Home = Home { disk: 0, index: 7 };
    const NEW: Home = Home { disk: 3, index: 0 };

    #[test]
    fn a_slab_moves_from_place_to_place() {
        let places = Places::default();
        assert_eq!((places.get(5), places.sole(5), places.second(5)), (None, None, None));
        places.set(5, Some(OLD));
        assert_eq!((places.get(5), places.sole(5), places.second(5)), (Some(OLD), Some(OLD), None));
        places.add(5, NEW);
        let second = Some((NEW, Second::Filling));
        assert_eq!((places.get(5), places.sole(5), places.second(5)), (Some(OLD), None, second));
        assert!(places.mark(5, Second::Whole));
        assert_eq!(places.second(5), Some((NEW, Second::Whole)));
        places.set(5, Some(NEW));
        assert_eq!((places.get(5), places.sole(5), places.second(5)), (Some(NEW), Some(NEW), None));
    }

    #[test]
    fn what_is_broken_is_never_whole() {
        let places = Places::default();
        places.set(0, Some(OLD));
        places.add(0, NEW);
        assert!(places.mark(0, Second::Broken));
        assert!(!places.mark(0, Second::Whole));
        assert_eq!(places.second(0), Some((NEW, Second::Broken)));
        assert_eq!(places.get(SLABS_MAX - 1), None);
    }

    #[test]
    fn a_block_is_one_writers_at_a_time() {
        let locks = Locks::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = pin!(locks.lock(1, 60, 10));
        let Poll::Ready(first) = first.as_mut().poll(&mut cx) else { panic!("it is free") };
        let mut beside = pin!(locks.lock(1, 70, 4000));
        let mut over = pin!(locks.lock(1, 0, 61));
        let Poll::Ready(beside) = beside.as_mut().poll(&mut cx) else { panic!("it is free") };
        assert!(over.as_mut().poll(&mut cx).is_pending());
        drop(beside);
        assert!(over.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(over.as_mut().poll(&mut cx).is_ready());
        assert!(locks.words.iter().all(|word| word.load(Ordering::SeqCst) == 0));
    }

    #[test]
    fn threads_that_want_the_same_blocks_all_get_them() {
        const TURNS: u64 = 20_000;
        let (locks, seen) = (Locks::default(), AtomicU64::new(0));
        std::thread::scope(|threads| {
            for thread in 0..3 {
                let (locks, seen) = (&locks, &seen);
                threads.spawn(move || {
                    for turn in 0..TURNS {
                        let (first, count) = [(0, 65), (63, 2), (64, 640)][(turn % 3) as usize];
                        let locked = block_on(locks.lock(thread % 2, first, count));
                        if thread % 2 == 0 {
                            // All of these have block 64.
                            let before = seen.load(Ordering::Relaxed);
                            seen.store(before + 1, Ordering::Relaxed);
                        }
                        drop(locked);
                    }
                });
            }
        });
        assert_eq!(seen.into_inner(), 2 * TURNS);
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        struct Thread(std::thread::Thread);
        impl std::task::Wake for Thread {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(std::sync::Arc::new(Thread(std::thread::current())));
        let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(done) => return done,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}
