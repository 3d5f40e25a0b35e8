//! The extents of an LU's slabs: which are free, which are used, and which are free as soon as that
//! is certain.
//!
//! An extent that was given back is kept until the record that says so is sealed: before that a
//! crash may bring back the map in which it was used. Whoever gives it back has seen to it that
//! nobody is on the way to it.
//!
//! A root has all of it in a few bytes, so that whoever opens the LU need not read its maps for it:
//! slabs in their order, with how many, from this one on, are wholly used; or none, and then the
//! bits of this one. What is not named is free.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::journal::Serial;
use super::map::Place;
use super::shape::Shape;

const WORD_BITS: u64 = 64;

/// What begins an entry of the short form.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawSlabs {
    slab: U32,
    /// Slabs from this one on that are wholly used. None: the bits of this one follow.
    count: U32,
}

/// What an LU has to write to.
#[derive(Debug)]
pub struct Space {
    extents: u64,
    /// For each slab a bit for each extent that is used, or not free yet.
    slabs: BTreeMap<u32, Box<[u64]>>,
    /// Slabs with a free extent.
    open: BTreeSet<u32>,
    /// Slabs of which nothing is used.
    idle: BTreeSet<u32>,
    /// In the order of their serials.
    waiting: VecDeque<(Serial, Place)>,
    free: u64,
    /// A slab that is kept even if nothing of it is used.
    pinned: Option<u32>,
}

impl Space {
    pub fn new(shape: Shape) -> Self {
        let (slabs, waiting) = (BTreeMap::new(), VecDeque::new());
        let (open, idle) = (BTreeSet::new(), BTreeSet::new());
        let extents = shape.extents_per_slab();
        Self { extents, slabs, open, idle, waiting, free: 0, pinned: None }
    }

    /// What a root says that is used of these slabs. An error: a place that is not there.
    pub fn decode(shape: Shape, slabs: &[u32], mut bytes: &[u8]) -> Result<Self, Place> {
        let mut space = Self::new(shape);
        slabs.iter().for_each(|slab| space.grant(*slab));
        let words = none_used(space.extents).len();
        while let Ok((raw, rest)) = RawSlabs::read_from_prefix(bytes) {
            let (slab, count) = (raw.slab.get(), raw.count.get());
            let nowhere = |slab| Place { slab, extent: 0 };
            let end = slab.checked_add(count).ok_or(nowhere(slab))?;
            bytes = rest;
            for slab in slab..end {
                space.take_all(slab, |_| u64::MAX).ok_or(nowhere(slab))?;
            }
            if count == 0 {
                let bits = words * size_of::<u64>();
                let (own, rest) = bytes.split_at_checked(bits).ok_or(nowhere(slab))?;
                let (own, _) = own.as_chunks::<{ size_of::<u64>() }>();
                let word = |word: usize| u64::from_le_bytes(own[word]);
                space.take_all(slab, word).ok_or(nowhere(slab))?;
                bytes = rest;
            }
        }
        Ok(space)
    }

    /// The same in short, without what waits and without these.
    pub fn encode(&self, without: impl IntoIterator<Item = Place>) -> Vec<u8> {
        let mut left_out: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let waiting = self.waiting.iter().map(|(_, place)| *place);
        for place in without.into_iter().chain(waiting) {
            left_out.entry(place.slab).or_default().push(place.extent);
        }
        let (mut bytes, mut whole) = (Vec::new(), None::<(u32, u32)>);
        let mut put = |slab: u32, count: u32, bits: &[u64]| {
            bytes.extend_from_slice(RawSlabs { slab: slab.into(), count: count.into() }.as_bytes());
            bits.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        };
        for (&slab, used) in &self.slabs {
            let mut used = used.clone();
            for extent in left_out.remove(&slab).unwrap_or_default() {
                used[extent as usize / WORD_BITS as usize] &=
                    !(1 << (u64::from(extent) % WORD_BITS));
            }
            let is_whole = used.iter().all(|word| *word == u64::MAX);
            match &mut whole {
                Some((first, count)) if is_whole && *first + *count == slab => *count += 1,
                _ => {
                    if let Some((first, count)) = whole.take() {
                        put(first, count, &[]);
                    }
                    whole = is_whole.then_some((slab, 1));
                }
            }
            if !is_whole && *used != *none_used(self.extents) {
                put(slab, 0, &used);
            }
        }
        if let Some((first, count)) = whole {
            put(first, count, &[]);
        }
        bytes
    }

    /// Bytes that so many slabs take at most in short.
    pub fn encoded_bytes_max(shape: Shape, slabs: u64) -> u64 {
        let words = shape.extents_per_slab().div_ceil(WORD_BITS);
        slabs * (size_of::<RawSlabs>() as u64 + words * size_of::<u64>() as u64)
    }

    /// The LU was granted another slab.
    pub fn grant(&mut self, slab: u32) {
        let used = none_used(self.extents);
        let is_new = self.slabs.insert(slab, used).is_none();
        assert!(is_new, "a slab is granted once");
        self.open.insert(slab);
        self.idle.insert(slab);
        self.free += self.extents;
    }

    /// An extent is used, as a map or a root says; false if it is not there or used already, which
    /// no owner writes.
    pub fn claim(&mut self, place: Place) -> bool {
        let Some((word, bit)) = self.bit(place) else { return false };
        let used = self.slabs.get_mut(&place.slab).expect("found by `bit`");
        if used[word] & bit != 0 {
            return false;
        }
        used[word] |= bit;
        self.free -= 1;
        self.idle.remove(&place.slab);
        if used.iter().all(|word| *word == u64::MAX) {
            self.open.remove(&place.slab);
        }
        true
    }

    /// The bits of a slab of which nothing was used. `None`: it is not there, or there was.
    fn take_all(&mut self, slab: u32, word: impl Fn(usize) -> u64) -> Option<()> {
        if !self.idle.remove(&slab) {
            return None;
        }
        let none = none_used(self.extents);
        let used = self.slabs.get_mut(&slab).expect("it is idle");
        let mut taken = 0;
        for (index, bits) in used.iter_mut().enumerate() {
            *bits |= word(index);
            taken += u64::from((*bits & !none[index]).count_ones());
        }
        self.free -= taken;
        if used.iter().all(|word| *word == u64::MAX) {
            self.open.remove(&slab);
        }
        if taken == 0 {
            self.idle.insert(slab);
        }
        Some(())
    }

    /// Nothing is known of an extent any more that was used, or not.
    pub fn disclaim(&mut self, place: Place) {
        if self.is_used(place) {
            self.release(place);
        }
    }

    /// A free extent, of the lowest slab that has one: LUs that shrink leave whole slabs behind.
    pub fn take(&mut self) -> Option<Place> {
        let slab = *self.open.first()?;
        let used = &self.slabs[&slab];
        let word = used.iter().position(|word| *word != u64::MAX).expect("it is open");
        let extent = word as u64 * WORD_BITS + u64::from(used[word].trailing_ones());
        let place = Place { slab, extent: extent as u32 };
        assert!(self.claim(place), "it was free a moment ago");
        Some(place)
    }

    /// An extent that was taken and never used.
    pub fn untake(&mut self, place: Place) {
        self.release(place);
    }

    /// The record of this serial says that an extent is not used any more.
    pub fn give_back(&mut self, serial: Serial, place: Place) {
        debug_assert!(self.waiting.back().is_none_or(|(last, _)| *last <= serial));
        self.waiting.push_back((serial, place));
    }

    /// Records before this one are sealed.
    pub fn sealed(&mut self, before: Serial) {
        while let Some((_, place)) = self.waiting.pop_front_if(|(serial, _)| *serial < before) {
            self.release(place);
        }
    }

    /// The first record that is waited for.
    pub fn waits_for(&self) -> Option<Serial> {
        self.waiting.front().map(|(serial, _)| *serial)
    }

    /// Extents that are free as soon as that is certain.
    pub fn waiting_extents(&self) -> u64 {
        self.waiting.len() as u64
    }

    pub fn free_extents(&self) -> u64 {
        self.free
    }

    /// Used or not.
    pub fn extents(&self) -> u64 {
        self.slabs.len() as u64 * self.extents
    }

    pub fn slabs(&self) -> impl Iterator<Item = u32> + '_ {
        self.slabs.keys().copied()
    }

    pub fn has(&self, slab: u32) -> bool {
        self.slabs.contains_key(&slab)
    }

    /// Takes a slab away of which nothing is used, the highest one: it may go back to the pool.
    pub fn withdraw(&mut self) -> Option<u32> {
        let slab = *self.idle.iter().rfind(|slab| Some(**slab) != self.pinned)?;
        self.idle.remove(&slab);
        self.slabs.remove(&slab);
        self.open.remove(&slab);
        self.free -= self.extents;
        Some(slab)
    }

    /// Keeps a slab, until that is taken back; false if it is not there.
    pub fn pin(&mut self, slab: u32) -> bool {
        let is_there = self.slabs.contains_key(&slab);
        self.pinned = is_there.then_some(slab);
        is_there
    }

    pub fn unpin(&mut self) {
        self.pinned = None;
    }

    /// Whether something may be in an extent that somebody still wants.
    pub fn is_used(&self, place: Place) -> bool {
        let Some((word, bit)) = self.bit(place) else { return false };
        self.slabs[&place.slab][word] & bit != 0
    }

    fn release(&mut self, place: Place) {
        let Some((word, bit)) = self.bit(place) else { return };
        let used = self.slabs.get_mut(&place.slab).expect("found by `bit`");
        debug_assert!(used[word] & bit != 0, "it was used");
        used[word] &= !bit;
        self.free += 1;
        self.open.insert(place.slab);
        if **used == *none_used(self.extents) {
            self.idle.insert(place.slab);
        }
    }

    fn bit(&self, place: Place) -> Option<(usize, u64)> {
        let extent = u64::from(place.extent);
        let is_there = extent < self.extents && self.slabs.contains_key(&place.slab);
        is_there.then(|| ((extent / WORD_BITS) as usize, 1 << (extent % WORD_BITS)))
    }
}

/// The words of a slab of which nothing is used. What is behind the last extent is never free.
fn none_used(extents: u64) -> Box<[u64]> {
    let mut used = vec![0; extents.div_ceil(WORD_BITS) as usize];
    if !extents.is_multiple_of(WORD_BITS) {
        used[0] = u64::MAX << extents;
    }
    used.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_extent_is_given_out_twice(
            log in 16_u32..=20,
            steps in proptest::collection::vec((0..10_u8, any::<u16>()), 1..600),
        ) {
            let shape = Shape::new(4 << 20, 1 << log).unwrap();
            let mut space = Space::new(shape);
            let (mut granted, mut serial, mut sealed) = (0, 1, 1);
            let mut used = BTreeSet::new();
            let mut waiting: Vec<(Serial, Place)> = Vec::new();
            for (what, which) in steps {
                match what {
                    0 => {
                        space.grant(granted);
                        granted += 1;
                    }
                    1..6 => match space.take() {
                        Some(place) => {
                            let is_waiting = waiting.iter().any(|(_, it)| *it == place);
                            prop_assert!(used.insert(place) && !is_waiting);
                        }
                        None => prop_assert_eq!(space.free_extents(), 0),
                    },
                    6..9 => {
                        let nth = usize::from(which) % used.len().max(1);
                        let Some(place) = used.iter().nth(nth).copied() else { continue };
                        used.remove(&place);
                        space.give_back(serial, place);
                        waiting.push((serial, place));
                        serial += 1;
                    }
                    _ => {
                        sealed += u64::from(which) % (serial - sealed + 1);
                        space.sealed(sealed);
                        waiting.retain(|(serial, _)| *serial >= sealed);
                    }
                }
                prop_assert_eq!(space.waits_for(), waiting.first().map(|(serial, _)| *serial));
                let all = u64::from(granted) * shape.extents_per_slab();
                prop_assert_eq!(space.waiting_extents(), waiting.len() as u64);
                let taken = (used.len() + waiting.len()) as u64;
                prop_assert_eq!(space.free_extents(), all - taken);
            }
            let taken = used.iter().chain(waiting.iter().map(|(_, place)| place));
            let busy: BTreeSet<u32> = taken.map(|place| place.slab).collect();
            let mut idle: Vec<u32> = (0..granted).filter(|slab| !busy.contains(slab)).collect();
            if let Some(last) = idle.pop() {
                // One that is pinned stays.
                prop_assert!(!space.pin(granted) && space.pin(last));
                prop_assert_eq!(space.withdraw(), idle.pop());
                space.unpin();
                prop_assert_eq!(space.withdraw(), Some(last));
            }
            for slab in idle.into_iter().rev() {
                prop_assert_eq!(space.withdraw(), Some(slab));
            }
            prop_assert_eq!(space.withdraw(), None);
        }
    }

    proptest! {
        #[test]
        fn in_short_it_says_the_same(
            log in 16_u32..=20,
            slabs in proptest::collection::btree_set(0..40_u32, 1..30),
            used in proptest::collection::vec((0..40_u32, 0..64_u32, any::<bool>()), 0..60),
            bytes: Vec<u8>,
        ) {
            let shape = Shape::new(4 << 20, 1 << log).unwrap();
            let slabs: Vec<u32> = slabs.into_iter().collect();
            let mut space = Space::new(shape);
            slabs.iter().for_each(|slab| space.grant(*slab));
            let (mut left_out, mut serial) = (Vec::new(), 1);
            for (slab, extent, is_whole) in used {
                let all = 0..shape.extents_per_slab() as u32;
                for extent in if is_whole { all } else { extent..extent + 1 } {
                    let place = Place { slab, extent };
                    if space.claim(place) && extent % 7 == 3 {
                        left_out.push(place);
                    }
                }
            }
            let short = space.encode([]);
            let most = Space::encoded_bytes_max(shape, slabs.len() as u64);
            prop_assert!(short.len() as u64 <= most);
            let again = Space::decode(shape, &slabs, &short).unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{space:?}"));
            // What waits, or is named, is free in what is written.
            let waiting = left_out.split_off(left_out.len() / 2);
            for place in &waiting {
                space.give_back(serial, *place);
                serial += 1;
            }
            let short = space.encode(left_out.iter().copied());
            let again = Space::decode(shape, &slabs, &short).unwrap();
            left_out.into_iter().chain(waiting).for_each(|place| space.disclaim(place));
            prop_assert_eq!(again.free_extents(), space.free_extents());
            prop_assert_eq!(again.slabs, space.slabs);
            if let Some((gone, rest)) = slabs.split_last() {
                let is_free = again.idle.contains(gone);
                prop_assert_eq!(Space::decode(shape, rest, &short).is_ok(), is_free);
            }
            drop(Space::decode(shape, &slabs, &bytes));
        }
    }

    #[test]
    fn what_is_claimed_twice_or_does_not_exist_is_noticed() {
        let mut space = Space::new(Shape::default());
        space.grant(4);
        let place = Place { slab: 4, extent: 63 };
        assert!(space.claim(place) && !space.claim(place));
        for (slab, extent) in [(4, 64), (5, 0)] {
            assert!(!space.claim(Place { slab, extent }));
        }
        assert_eq!(space.free_extents(), 63);
    }
}
