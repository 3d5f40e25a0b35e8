//! Blocks of slabs, each of which is written by one at a time.
//!
//! A block has a bit of a word. Who finds all that he wants of a word free takes it in one step,
//! without a list. Who does not waits in a queue, and whoever comes meanwhile goes behind those who
//! want blocks of his: so who wants a whole extent gets it, however many write there.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Words of locks, for all slabs of a pool: two blocks of different slabs may share a lock.
const LOCK_WORDS: usize = 1024;
const WORD_BLOCKS: u64 = 64;

/// The locks of all blocks of a pool.
pub struct Locks {
    words: Box<[AtomicU64]>,
    /// How many are in the queue, or are about to be.
    waits: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// In the order in which they came.
    waiting: Vec<Waiting>,
    last_turn: u64,
}

struct Waiting {
    turn: u64,
    key: Key,
    waker: Waker,
}

impl Queue {
    /// Whether nobody waits before this one who wants what he wants.
    fn is_next(&self, at: usize) -> bool {
        let key = self.waiting[at].key;
        !self.waiting[..at].iter().any(|before| before.key.meets(key))
    }
}

impl Default for Locks {
    fn default() -> Self {
        let words = (0..LOCK_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, waits: AtomicUsize::new(0), queue: Mutex::default() }
    }
}

/// Blocks that are somebody's alone until this is dropped.
pub struct Locked<'a> {
    locks: &'a Locks,
    held: Vec<Key>,
}

/// Locks of one word, which whoever has them gives back.
#[must_use = "what is locked is to be unlocked"]
#[derive(Clone, Copy)]
pub struct Key {
    slot: usize,
    bits: u64,
}

impl Key {
    /// The locks of blocks from this one on as far as they have the same word, and how many those
    /// are.
    fn of(slab: u32, first: u64, most: u64) -> (Self, u64) {
        let (word, bit) = (first / WORD_BLOCKS, first % WORD_BLOCKS);
        let blocks = (WORD_BLOCKS - bit).min(most);
        let ones = u64::MAX >> (WORD_BLOCKS - blocks);
        (Self { slot: slot_of(slab, word), bits: ones << bit }, blocks)
    }

    fn meets(self, other: Self) -> bool {
        self.slot == other.slot && self.bits & other.bits != 0
    }
}

/// Neighbours have different locks.
fn slot_of(slab: u32, word: u64) -> usize {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    (u64::from(slab).wrapping_mul(SPREAD) >> 32).wrapping_add(word) as usize % LOCK_WORDS
}

impl Locks {
    /// Waits for these blocks of a slab.
    pub async fn lock(&self, slab: u32, first: u64, count: u64) -> Locked<'_> {
        // Everybody takes words in the same order, and each word once.
        let mut wanted: BTreeMap<usize, u64> = BTreeMap::new();
        let mut at = first;
        while at < first + count {
            let (Key { slot, bits }, blocks) = Key::of(slab, at, first + count - at);
            *wanted.entry(slot).or_default() |= bits;
            at += blocks;
        }
        let mut locked = Locked { locks: self, held: Vec::with_capacity(wanted.len()) };
        for (slot, bits) in wanted {
            let key = Key { slot, bits };
            if !self.take_at_once(key) {
                Turn { locks: self, key, number: None }.await;
            }
            locked.held.push(key);
        }
        locked
    }

    /// These blocks of a slab, if they have one word and nobody has any of them, or waits.
    #[inline]
    pub fn try_lock(&self, slab: u32, first: u64, count: u64) -> Option<Key> {
        let (key, blocks) = Key::of(slab, first, count);
        (blocks == count && self.take_at_once(key)).then_some(key)
    }

    #[inline]
    pub fn unlock(&self, key: Key) {
        self.give_back(key);
        self.wake(&[key]);
    }

    #[inline]
    fn take_at_once(&self, key: Key) -> bool {
        self.waits.load(Ordering::SeqCst) == 0 && self.take(key)
    }

    fn take(&self, Key { slot, bits }: Key) -> bool {
        let take = |word: u64| (word & bits == 0).then_some(word | bits);
        self.words[slot].fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    fn give_back(&self, Key { slot, bits }: Key) {
        self.words[slot].fetch_and(!bits, Ordering::SeqCst);
    }

    /// Those who may have what has just become free look again.
    #[inline]
    fn wake(&self, free: &[Key]) {
        // Whoever has found nothing free counts before he looks: one of the two sees the other.
        if self.waits.load(Ordering::SeqCst) > 0 {
            self.wake_next(free);
        }
    }

    #[cold]
    fn wake_next(&self, free: &[Key]) {
        let queue = self.queue();
        let wants = |at: &usize| free.iter().any(|key| key.meets(queue.waiting[*at].key));
        let next = (0..queue.waiting.len()).filter(wants).filter(|at| queue.is_next(*at));
        let woken: Vec<Waker> = next.map(|at| queue.waiting[at].waker.clone()).collect();
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.held.iter().for_each(|key| self.locks.give_back(*key));
        self.locks.wake(&self.held);
    }
}

/// Somebody's turn to take what he wants of a word.
struct Turn<'a> {
    locks: &'a Locks,
    key: Key,
    /// Since he is in the queue.
    number: Option<u64>,
}

impl Turn<'_> {
    fn leave(&mut self, queue: &mut Queue) {
        if let Some(number) = self.number.take() {
            queue.waiting.retain(|it| it.turn != number);
            self.locks.waits.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (locks, key) = (self.locks, self.key);
        if self.number.is_none() {
            locks.waits.fetch_add(1, Ordering::SeqCst);
        }
        let mut queue = locks.queue();
        let turn = *self.number.get_or_insert_with(|| {
            queue.last_turn += 1;
            let (turn, waker) = (queue.last_turn, cx.waker().clone());
            queue.waiting.push(Waiting { turn, key, waker });
            turn
        });
        let at = queue.waiting.partition_point(|it| it.turn < turn);
        if queue.is_next(at) && locks.take(key) {
            self.leave(&mut queue);
            return Poll::Ready(());
        }
        queue.waiting[at].waker.clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.leave(&mut self.locks.queue());
            // Somebody may have waited for nobody but this one.
            self.locks.wake(&[self.key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

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

    /// A whole extent under a load that never leaves all of it alone.
    #[test]
    fn who_comes_later_goes_behind_those_who_want_the_same() {
        let locks = Locks::default();
        let mut cx = Context::from_waker(Waker::noop());
        let first = locks.try_lock(1, 3, 1).unwrap();
        let mut whole = Box::pin(locks.lock(1, 0, 64));
        assert!(whole.as_mut().poll(&mut cx).is_pending());
        // Free, and wanted.
        assert!(locks.try_lock(1, 5, 1).is_none());
        let mut later = pin!(locks.lock(1, 5, 1));
        assert!(later.as_mut().poll(&mut cx).is_pending());
        // What nobody wants is nobody's turn.
        let mut beside = pin!(locks.lock(1, 64, 1));
        assert!(beside.as_mut().poll(&mut cx).is_ready());
        locks.unlock(first);
        assert!(later.as_mut().poll(&mut cx).is_pending());
        let Poll::Ready(locked) = whole.as_mut().poll(&mut cx) else { panic!("it is free") };
        assert!(later.as_mut().poll(&mut cx).is_pending());
        drop(locked);
        let Poll::Ready(later) = later.as_mut().poll(&mut cx) else { panic!("it is free") };
        // One who waits no more is in nobody's way.
        let mut whole = Box::pin(locks.lock(1, 0, 64));
        assert!(whole.as_mut().poll(&mut cx).is_pending());
        let mut last = pin!(locks.lock(1, 7, 1));
        assert!(last.as_mut().poll(&mut cx).is_pending());
        drop(whole);
        assert!(last.as_mut().poll(&mut cx).is_ready());
        drop(later);
        assert!(locks.try_lock(1, 5, 1).is_some());
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
