//! Where the slabs are: which places each number has.
//!
//! Maps name numbers. Where a number lies is looked up here, by every core for every request and
//! without a lock: places are atomics in chunks that are made once and stay. A number has one place
//! in each failure group of its pool, and one more while it moves. Of those that are whole it is
//! read in the lowest group, and written at all that are not broken, by one at a time for each
//! block ([`locks`](super::locks)), so that they never differ in what was answered.
//!
//! ```text
//!              a copy is added          it has everything        a crash
//!   (nowhere) ───────────────▶ filling ─────────────────▶ whole ◀─────────▶ doubtful
//!                                 │   ▲                     │ it has missed     │
//!                                 ▼   │ it is brought up    ▼ a write           ▼
//!                                broken ◀───────────────────┴───────────────────┘
//! ```
//!
//! What a broken place lacks is known by regions: of a slab with several places those are noted
//! that are written, and forgotten when all places have everything durably. Where nobody knows what
//! was written, a place lacks all of them.
//!
//! A slab moves by getting another place and then losing the first one. What a reader or a writer
//! finds at any moment of that is right as long as it is on the way; who takes a place away, or
//! begins to fill one, waits until nobody is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use model::limits::GROUPS_MAX;

/// Numbers in one chunk of the table.
const CHUNK_NUMBERS: usize = 4096;
const CHUNKS_MAX: usize = 4096;

/// Places of a number: one in each group, and one that it moves to.
pub const PLACES_MAX: usize = GROUPS_MAX + 1;

/// Numbers of groups are below this.
pub const GROUP_NUMBERS: u16 = 8;

/// Each group has so many numbers of its own: slabs of 256 TiB, of the default size.
const GROUP_SLABS: u32 = (CHUNK_NUMBERS * CHUNKS_MAX) as u32;
pub const SLABS_MAX: u32 = GROUP_SLABS * GROUP_NUMBERS as u32;

/// The numbers that are given by a failure group that knows all of them. Where other groups give
/// numbers that it does not hear of, because it is not there, those are never the same.
pub fn numbers_of(group: u16) -> Range<u32> {
    let start = GROUP_SLABS * u32::from(group % GROUP_NUMBERS);
    start..start + GROUP_SLABS
}

/// A slab on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    /// Which of the pool's disks.
    pub disk: u32,
    pub index: u32,
}

/// A place of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub home: Home,
    /// The failure group of its disk.
    pub group: u16,
    pub state: State,
}

/// What a place of a number is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything is there.
    Whole,
    /// What is written is written there too; other blocks may not be there yet.
    Filling,
    /// It has missed something: nothing is read or written there.
    Broken,
    /// It counts, and may have something else than the whole ones, where a crash has cut writes
    /// short or a write has failed everywhere. What is read is written here before it is answered.
    Doubtful,
}

/// In the first word: the number has more places than that one.
const HAS_MORE: u64 = 1 << 63;
const STATES: [(State, u64); 4] = [
    (State::Whole, 0),
    (State::Filling, 1 << 62),
    (State::Broken, 1 << 61),
    (State::Doubtful, 3 << 61),
];
const STATE_BITS: u64 = 3 << 61;
const GROUP_SHIFT: u32 = 58;
const GROUP_BITS: u64 = (GROUP_NUMBERS as u64 - 1) << GROUP_SHIFT;

/// The words of so many numbers. Pools with one group have hardly any but the first ones.
struct Chunk {
    firsts: Box<[AtomicU64]>,
    more: OnceLock<Box<[More]>>,
}

/// Some disk of the pool that is not here may have a place of the slab.
const ANYBODY: u64 = 1 << GROUP_NUMBERS;

/// What a number has besides its first place.
#[derive(Default)]
struct More {
    places: [AtomicU64; PLACES_MAX - 1],
    /// Regions of the slab that may be overwritten in place: the journal says so, durably.
    open: AtomicU64,
    /// Regions that were written since all places had everything durably, see [`Places::dirty`].
    touched: AtomicU64,
    aging: AtomicU64,
    /// Failure groups, as bits, whose place was lost and knows everything but those; [`ANYBODY`].
    left: AtomicU64,
    /// See [`Places::stop`].
    is_stopped: AtomicBool,
}

impl Chunk {
    fn make_more(&self) -> &[More] {
        self.more.get_or_init(|| (0..CHUNK_NUMBERS).map(|_| More::default()).collect())
    }
}

/// The chunks of the numbers of a group.
type Chunks = Box<[OnceLock<Chunk>]>;

#[derive(Default)]
pub struct Places {
    groups: [OnceLock<Chunks>; GROUP_NUMBERS as usize],
    /// Some number has several places, or had.
    has_copies: AtomicBool,
    /// Whoever changes places; nobody who looks needs it.
    changing: Mutex<()>,
}

/// Zero is nowhere: what is kept is one more than the disk's number.
fn word_of(copy: Copy) -> u64 {
    let Copy { home, group, state } = copy;
    let home = u64::from(home.disk + 1) << 32 | u64::from(home.index);
    home | bits_of(state) | u64::from(group) << GROUP_SHIFT & GROUP_BITS
}

fn home_of(word: u64) -> Option<Home> {
    let word = word & !(HAS_MORE | STATE_BITS | GROUP_BITS);
    let disk = ((word >> 32) as u32).checked_sub(1)?;
    Some(Home { disk, index: word as u32 })
}

fn copy_of(word: u64) -> Option<Copy> {
    let state = STATES.iter().find(|(_, bits)| word & STATE_BITS == *bits);
    let state = state.map_or(State::Broken, |(state, _)| *state);
    let group = ((word & GROUP_BITS) >> GROUP_SHIFT) as u16;
    Some(Copy { home: home_of(word)?, group, state })
}

fn bits_of(state: State) -> u64 {
    STATES.iter().find(|(it, _)| *it == state).map_or(0, |(_, bits)| *bits)
}

impl Places {
    fn chunk(&self, number: u32) -> Option<(&Chunk, usize)> {
        let chunks = self.groups.get((number / GROUP_SLABS) as usize)?.get()?;
        let chunk = chunks[(number % GROUP_SLABS) as usize / CHUNK_NUMBERS].get()?;
        Some((chunk, number as usize % CHUNK_NUMBERS))
    }

    fn more(&self, number: u32) -> Option<&More> {
        let (chunk, at) = self.chunk(number)?;
        Some(&chunk.more.get()?[at])
    }

    /// The one place of a slab, if it has no other.
    #[inline]
    pub fn sole(&self, number: u32) -> Option<Home> {
        let (chunk, at) = self.chunk(number)?;
        let word = chunk.firsts[at].load(Ordering::Acquire);
        if word & (HAS_MORE | STATE_BITS) == 0 { home_of(word) } else { None }
    }

    /// Where a slab is read.
    pub fn get(&self, number: u32) -> Option<Home> {
        let whole = self.all(number).filter(|copy| copy.state == State::Whole);
        whole.min_by_key(|copy| copy.group).map(|copy| copy.home)
    }

    /// The same, if nothing else has to be done for that.
    #[inline]
    pub fn get_plainly(&self, number: u32) -> Option<Home> {
        self.sole(number).or_else(|| self.get(number).filter(|_| !self.is_doubtful(number)))
    }

    /// A place of the slab is in doubt.
    #[inline]
    pub fn is_doubtful(&self, number: u32) -> bool {
        self.all(number).any(|copy| copy.state == State::Doubtful)
    }

    /// Whether any number has several places, or had.
    pub fn has_copies(&self) -> bool {
        self.has_copies.load(Ordering::Acquire)
    }

    /// All its places.
    pub fn all(&self, number: u32) -> impl Iterator<Item = Copy> + use<> {
        let mut found = [None; PLACES_MAX];
        if let Some((chunk, at)) = self.chunk(number) {
            let first = &chunk.firsts[at];
            let word = first.load(Ordering::Acquire);
            found[0] = copy_of(word);
            let more = if word & HAS_MORE == 0 { None } else { chunk.more.get() };
            if let Some(more) = more {
                for (found, word) in found[1..].iter_mut().zip(&more[at].places) {
                    *found = copy_of(word.load(Ordering::Acquire));
                }
                // One that has become the first meanwhile is found twice rather than not at all.
                found[0] = copy_of(first.load(Ordering::Acquire));
            }
        }
        found.into_iter().flatten()
    }

    /// Whether a number has a place at all.
    pub fn is_known(&self, number: u32) -> bool {
        self.all(number).next().is_some()
    }

    /// What the place there is good for.
    pub fn state(&self, number: u32, home: Home) -> Option<State> {
        self.all(number).find(|copy| copy.home == home).map(|copy| copy.state)
    }

    /// Takes all places of a number away.
    pub fn clear(&self, number: u32) {
        let _changing = self.lock();
        let Some((chunk, at)) = self.chunk(number) else { return };
        chunk.firsts[at].store(0, Ordering::Release);
        if let Some(more) = chunk.more.get() {
            let More { places, open, touched, aging, left, is_stopped } = &more[at];
            let words = places.iter().chain([open, touched, aging, left]);
            words.for_each(|word| word.store(0, Ordering::Release));
            is_stopped.store(false, Ordering::Release);
        }
    }

    /// Gives a number another place. False: it has as many as there can be. Panics where it is
    /// beyond [`SLABS_MAX`].
    pub fn add(&self, number: u32, copy: Copy) -> bool {
        let _changing = self.lock();
        let chunks = self.groups[(number / GROUP_SLABS) as usize]
            .get_or_init(|| (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect());
        let chunk = &chunks[(number % GROUP_SLABS) as usize / CHUNK_NUMBERS];
        let chunk = chunk.get_or_init(|| Chunk {
            firsts: (0..CHUNK_NUMBERS).map(|_| AtomicU64::new(0)).collect(),
            more: OnceLock::new(),
        });
        let at = number as usize % CHUNK_NUMBERS;
        if let Some(more) = chunk.more.get() {
            more[at].left.fetch_and(!(1 << copy.group), Ordering::AcqRel);
        }
        let (first, word) = (&chunk.firsts[at], word_of(copy));
        if first.load(Ordering::Acquire) == 0 {
            first.store(word, Ordering::Release);
            return true;
        }
        let more = &chunk.make_more()[at];
        let Some(free) = more.places.iter().find(|word| word.load(Ordering::Acquire) == 0) else {
            return false;
        };
        free.store(word, Ordering::Release);
        first.fetch_or(HAS_MORE, Ordering::AcqRel);
        self.has_copies.store(true, Ordering::Release);
        true
    }

    /// What was in one state is in another one from now on. False: it was not in that one.
    pub fn mark(&self, number: u32, home: Home, (from, to): (State, State)) -> bool {
        let _changing = self.lock();
        let Some((chunk, at)) = self.chunk(number) else { return false };
        let more = chunk.more.get().into_iter().flat_map(|more| &more[at].places);
        let mut words = std::iter::once(&chunk.firsts[at]).chain(more);
        let is_it = |word: &&AtomicU64| {
            let copy = copy_of(word.load(Ordering::Acquire));
            copy.is_some_and(|copy| (copy.home, copy.state) == (home, from))
        };
        let Some(word) = words.find(is_it) else { return false };
        let other = word.load(Ordering::Acquire) & !STATE_BITS | bits_of(to);
        word.store(other, Ordering::Release);
        true
    }

    /// All but this one may have something else from now on, of those that are whole.
    pub fn doubt(&self, number: u32, kept: Option<Home>) {
        for copy in self.all(number).filter(|copy| Some(copy.home) != kept) {
            self.mark(number, copy.home, (State::Whole, State::Doubtful));
        }
    }

    /// Takes a place away.
    pub fn remove(&self, number: u32, home: Home) {
        let _changing = self.lock();
        self.take_away(number, home);
    }

    /// The same of one that may come back: what is written meanwhile is known then, in the stead of
    /// nothing at all.
    pub fn lose(&self, number: u32, copy: Copy) {
        let _changing = self.lock();
        if let Some((chunk, at)) = self.chunk(number) {
            chunk.make_more()[at].left.fetch_or(1 << copy.group, Ordering::AcqRel);
            self.take_away(number, copy.home);
        }
    }

    /// A disk that is not here may have a place: what is written is known until it is back, in
    /// another process.
    pub fn leave_to_anybody(&self, number: u32) {
        let _changing = self.lock();
        if let Some((chunk, at)) = self.chunk(number) {
            self.has_copies.store(true, Ordering::Release);
            chunk.make_more()[at].left.fetch_or(ANYBODY, Ordering::AcqRel);
            chunk.firsts[at].fetch_or(HAS_MORE, Ordering::AcqRel);
        }
    }

    /// No such disk is missed any more.
    pub fn leave_to_nobody(&self, number: u32) {
        let _changing = self.lock();
        if let Some(more) = self.more(number) {
            more.left.fetch_and(!ANYBODY, Ordering::AcqRel);
            self.note_whether_sole(number);
        }
    }

    /// Which of its places counts when the pool is opened again nobody knows: nothing is written at
    /// any, from when whoever has the locks of all its blocks lets go of them.
    pub fn stop(&self, number: u32) {
        let _changing = self.lock();
        if let Some((chunk, at)) = self.chunk(number) {
            chunk.make_more()[at].is_stopped.store(true, Ordering::Release);
            chunk.firsts[at].fetch_or(HAS_MORE, Ordering::AcqRel);
        }
    }

    /// It is known now.
    pub fn go_on(&self, number: u32) {
        let _changing = self.lock();
        if let Some(more) = self.more(number) {
            more.is_stopped.store(false, Ordering::Release);
            self.note_whether_sole(number);
        }
    }

    pub fn is_stopped(&self, number: u32) -> bool {
        self.more(number).is_some_and(|more| more.is_stopped.load(Ordering::Acquire))
    }

    fn take_away(&self, number: u32, home: Home) {
        let Some((chunk, at)) = self.chunk(number) else { return };
        let first = &chunk.firsts[at];
        let places: &[AtomicU64] = chunk.more.get().map_or(&[], |more| &more[at].places);
        let has = |word: &&AtomicU64| word.load(Ordering::Acquire) != 0;
        if home_of(first.load(Ordering::Acquire)) == Some(home) {
            // Another one is the first from now on.
            let next = places.iter().find(has);
            let word = next.map_or(0, |next| next.load(Ordering::Acquire) | HAS_MORE);
            first.store(word, Ordering::Release);
            next.iter().for_each(|next| next.store(0, Ordering::Release));
        } else {
            let is_it = |word: &&AtomicU64| home_of(word.load(Ordering::Acquire)) == Some(home);
            places.iter().filter(is_it).for_each(|word| word.store(0, Ordering::Release));
        }
        self.note_whether_sole(number);
    }

    fn note_whether_sole(&self, number: u32) {
        let Some((chunk, at)) = self.chunk(number) else { return };
        let Some(More { places, left, is_stopped, .. }) = chunk.more.get().map(|more| &more[at])
        else {
            return;
        };
        // Who writes where another place was lost is not to take the one that is left for all.
        let has_left = left.load(Ordering::Acquire) != 0 || is_stopped.load(Ordering::Acquire);
        if !has_left && places.iter().all(|word| word.load(Ordering::Acquire) == 0) {
            chunk.firsts[at].fetch_and(!HAS_MORE, Ordering::AcqRel);
        }
    }

    /// Takes what a failure group has of a slab away for good, and what is known of what it lost.
    pub fn forget_group(&self, number: u32, group: u16) {
        let _changing = self.lock();
        if let Some(more) = self.more(number) {
            more.left.fetch_and(!(1 << group), Ordering::AcqRel);
        }
        let own = self.all(number).filter(|copy| copy.group == group);
        own.for_each(|copy| self.take_away(number, copy.home));
        self.note_whether_sole(number);
    }

    /// Regions of a slab that may be overwritten in place, as bits.
    #[inline]
    pub fn open(&self, number: u32) -> u64 {
        self.more(number).map_or(0, |more| more.open.load(Ordering::Acquire))
    }

    /// These may be from now on, besides others.
    pub fn set_open(&self, number: u32, regions: u64) {
        if let Some((chunk, at)) = self.chunk(number) {
            chunk.make_more()[at].open.fetch_or(regions, Ordering::AcqRel);
        }
    }

    /// Whoever begins to overwrite one of these asks first.
    pub fn set_closed(&self, number: u32, regions: u64) {
        if let Some(more) = self.more(number) {
            more.open.fetch_and(!regions, Ordering::AcqRel);
        }
    }

    /// What is written of a slab with several places, before anybody looks for these.
    #[inline]
    pub fn touch(&self, number: u32, regions: u64) {
        let Some((chunk, at)) = self.chunk(number) else { return };
        let touched = &chunk.make_more()[at].touched;
        if touched.load(Ordering::Acquire) & regions != regions {
            touched.fetch_or(regions, Ordering::AcqRel);
        }
    }

    /// A place that has missed something lacks no more than these regions, as far as is known.
    pub fn lacks_only(&self, number: u32, regions: u64) {
        if let Some(more) = self.more(number) {
            more.touched.store(regions, Ordering::Release);
        }
    }

    /// Regions that a place which has missed something, or was lost, may lack: all others are there
    /// durably.
    pub fn dirty(&self, number: u32) -> u64 {
        let words =
            |more: &More| more.touched.load(Ordering::Acquire) | more.aging.load(Ordering::Acquire);
        self.more(number).map_or(0, words)
    }

    /// Some place of the slab does not have everything, or was lost.
    pub fn is_lacking(&self, number: u32) -> bool {
        let has_left = self.more(number).is_some_and(|it| it.left.load(Ordering::Acquire) != 0);
        has_left || self.all(number).any(|copy| copy.state != State::Whole)
    }

    /// The slab was lost in this failure group, and it is known what it has missed.
    pub fn is_left(&self, number: u32, group: u16) -> bool {
        self.more(number).is_some_and(|it| it.left.load(Ordering::Acquire) & 1 << group != 0)
    }

    /// A disk that is not here may have a place, of which it is known what it has missed.
    pub fn is_left_to_anybody(&self, number: u32) -> bool {
        self.more(number).is_some_and(|it| it.left.load(Ordering::Acquire) & ANYBODY != 0)
    }

    /// Something was, since nothing of it was lacking anywhere.
    pub fn is_touched(&self, number: u32) -> bool {
        self.more(number).is_some_and(|more| more.touched.load(Ordering::Acquire) != 0)
    }

    /// What was touched is about to be durable everywhere. False: nothing was, or it must be known
    /// longer. [`Places::end_aging`] follows, with nobody on the way in between.
    pub fn begin_aging(&self, number: u32) -> bool {
        let Some(more) = self.more(number) else { return false };
        let touched = more.touched.load(Ordering::Acquire);
        if touched == 0 || self.is_lacking(number) {
            return false;
        }
        more.aging.fetch_or(touched, Ordering::AcqRel);
        more.touched.fetch_and(!touched, Ordering::AcqRel);
        true
    }

    pub fn end_aging(&self, number: u32, is_durable: bool) {
        let Some(more) = self.more(number) else { return };
        if !is_durable || self.is_lacking(number) {
            more.touched.fetch_or(more.aging.load(Ordering::Acquire), Ordering::AcqRel);
        }
        more.aging.store(0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Home = Home { disk: 0, index: 7 };
    const NEW: Home = Home { disk: 3, index: 0 };

    fn copy(home: Home, state: State) -> Copy {
        Copy { home, group: home.disk as u16 % GROUP_NUMBERS, state }
    }

    #[test]
    fn a_slab_moves_from_place_to_place() {
        let places = Places::default();
        assert_eq!((places.get(5), places.sole(5), places.all(5).next()), (None, None, None));
        assert!(places.add(5, copy(OLD, State::Whole)));
        assert_eq!((places.get(5), places.sole(5)), (Some(OLD), Some(OLD)));
        assert!(places.add(5, copy(NEW, State::Filling)));
        let both = vec![copy(OLD, State::Whole), copy(NEW, State::Filling)];
        assert_eq!((places.get(5), places.sole(5)), (Some(OLD), None));
        assert_eq!(places.all(5).collect::<Vec<_>>(), both);
        assert!(places.mark(5, NEW, (State::Filling, State::Whole)));
        places.remove(5, OLD);
        assert_eq!((places.get(5), places.sole(5)), (Some(NEW), Some(NEW)));
        assert_eq!(places.all(5).count(), 1);
        places.clear(5);
        assert!(!places.is_known(5) && !places.is_known(SLABS_MAX - 1));
    }

    #[test]
    fn what_is_broken_is_neither_read_nor_whole_by_itself() {
        let places = Places::default();
        places.add(0, copy(OLD, State::Whole));
        places.add(0, copy(NEW, State::Whole));
        assert!(places.mark(0, OLD, (State::Whole, State::Doubtful)));
        assert_eq!((places.get(0), places.get_plainly(0)), (Some(NEW), None));
        assert!(places.mark(0, OLD, (State::Doubtful, State::Whole)));
        assert_eq!(places.get_plainly(0), places.get(0));
        assert!(places.mark(0, OLD, (State::Whole, State::Broken)));
        assert!(!places.mark(0, OLD, (State::Filling, State::Whole)));
        assert_eq!((places.get(0), places.sole(0)), (Some(NEW), None));
        assert_eq!(places.state(0, OLD), Some(State::Broken));
        places.remove(0, NEW);
        // Alone, and still broken.
        assert_eq!((places.get(0), places.sole(0)), (None, None));
        assert!(places.is_known(0));
    }

    #[test]
    fn a_number_is_read_in_its_lowest_group_wherever_that_is() {
        let places = Places::default();
        let home = |disk| Home { disk, index: disk };
        for disk in (0..PLACES_MAX as u32).rev() {
            assert!(places.add(9, copy(home(disk), State::Whole)));
            assert_eq!(places.get(9), Some(home(disk)));
        }
        assert!(!places.add(9, copy(home(8), State::Whole)));
        places.remove(9, home(3));
        places.remove(9, home(0));
        assert_eq!((places.get(9), places.all(9).count()), (Some(home(1)), 2));
        assert_eq!(places.open(9), 0);
        places.set_open(9, 6);
        places.set_closed(9, 2);
        assert_eq!((places.open(9), places.open(10)), (4, 0));
    }
}
