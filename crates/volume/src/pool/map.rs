//! A page of a layer's map: for each of some extents its place, and for each block in them what is
//! known of it here.
//!
//! | block | means | a read |
//! |---|---|---|
//! | absent | this layer says nothing | looks into the layer below; below the last it is zero, or what the LU is brought from has |
//! | zero | it was discarded or zeroed | is zero, whatever is below |
//! | written | it lies at its extent's place | is what lies there |
//!
//! One page is looked into by every core and changed by one, its LU's owner, without a lock: every
//! word is atomic, and the words of an entry are changed in an order in which no reader sees
//! anything but before or after. Written is stronger than zero, so a block becomes zero when its
//! written bit goes, and written when that comes. Its zero bit never goes in memory: who finds no
//! written bit and then no zero bit knows that it was absent when he found the first. A place is
//! set before the first block is written there, and a reader that finds another place behind the
//! bits than before them looks again.
//!
//! A page of which little is known takes little memory: entries are kept in parts, made when
//! something is said of an extent of theirs.
//!
//! Not here: how long a place must be left alone that a reader may still go to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::journal::Spot;
use super::memory::{Held, Memory};
use super::page::{Flaw, Header, Kind, Owner, PAYLOAD_BYTES, Page};
use super::shape::Shape;

pub(super) const KIND: Kind = Kind(*b"VDmp");

const PLACE_BYTES: usize = 8;
const WORD_BITS: u64 = 64;
/// A slab has no such extent.
const NOWHERE: u64 = u64::MAX;

/// What a map says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Absent,
    Zero,
    Written,
}

/// An extent of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub slab: u32,
    pub extent: u32,
}

/// Blocks one behind the other of which the same is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Absent { count: u64 },
    Zero { count: u64 },
    Written { at: Spot, count: u64 },
}

impl Run {
    pub fn count(self) -> u64 {
        match self {
            Self::Absent { count } | Self::Zero { count } | Self::Written { count, .. } => count,
        }
    }
}

/// What the pages of a map have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Blocks of an extent, a power of two.
    blocks: u64,
    /// Words of one kind of bits, for an extent.
    words: usize,
    /// Extents of a page.
    extents: usize,
}

impl Form {
    pub fn new(shape: Shape) -> Self {
        let blocks = shape.blocks_per_extent();
        let words = blocks.div_ceil(WORD_BITS) as usize;
        let extents = PAYLOAD_BYTES / (PLACE_BYTES + 2 * bits_bytes(blocks));
        Self { blocks, words, extents }
    }

    pub fn extents(&self) -> u64 {
        self.extents as u64
    }

    /// Blocks of an extent.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes of memory that a page takes of which everything is known, with what an allocator adds.
    pub fn bytes(&self) -> usize {
        self.least_bytes() + self.parts() * self.part_bytes()
    }

    /// The same of a page that says nothing.
    fn least_bytes(&self) -> usize {
        let own = size_of::<MapPage>() + 2 * size_of::<usize>();
        own + self.parts() * size_of::<OnceLock<Part>>() + 2 * BESIDE
    }

    /// What it takes more when something is said of an extent of another part.
    fn part_bytes(&self) -> usize {
        self.part_words() * size_of::<u64>() + BESIDE
    }

    fn parts(&self) -> usize {
        self.extents.div_ceil(PART_EXTENTS)
    }

    fn part_words(&self) -> usize {
        1 + PART_EXTENTS * self.entry_words()
    }

    fn entry_words(&self) -> usize {
        1 + 2 * self.words
    }

    /// The page that a block is in, the extent in that, and the block in that.
    #[inline]
    pub fn locate(&self, block: u64) -> (u64, usize, u64) {
        let (extent, block) = (block >> self.blocks.trailing_zeros(), block & (self.blocks - 1));
        let extents = self.extents as u64;
        (extent / extents, (extent % extents) as usize, block)
    }
}

/// Extents of a part of a page.
const PART_EXTENTS: usize = 8;
/// What an allocator adds to each piece of memory.
const BESIDE: usize = 16;

/// Some extents of a page. First a bit for each extent of which some block has a record that is not
/// sealed: writes there are the owner's. Then their entries.
type Part = Box<[AtomicU64]>;

/// A page in memory.
#[derive(Debug)]
pub struct MapPage {
    form: Form,
    /// Somebody has looked into it since that was last asked.
    is_used: AtomicBool,
    held: Held,
    parts: Box<[OnceLock<Part>]>,
}

/// What is known of an extent: its place, then words of written bits, and as many of zero bits.
#[derive(Clone, Copy)]
struct Entry<'a>(&'a [AtomicU64]);

#[derive(Clone, Copy)]
enum Bits {
    Written,
    Zero,
}

impl MapPage {
    /// A page that says nothing.
    pub fn new(form: Form) -> Self {
        let parts = (0..form.parts()).map(|_| OnceLock::new()).collect();
        Self { form, is_used: AtomicBool::new(true), held: Held::default(), parts }
    }

    /// The same page, counted as long as it is in memory.
    pub fn counted(self, memory: &Arc<Memory>) -> Arc<Self> {
        Arc::new(Self { held: memory.hold(self.bytes()), ..self })
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        let parts = self.parts.iter().filter(|part| part.get().is_some()).count();
        self.form.least_bytes() + parts * self.form.part_bytes()
    }

    /// The same when something is said of this extent.
    pub fn bytes_with(&self, extent: usize) -> usize {
        let is_new = self.entry(extent).is_none();
        self.bytes() + if is_new { self.form.part_bytes() } else { 0 }
    }

    /// Somebody needs it.
    #[inline]
    pub fn touch(&self) {
        // It is another core's line too, and seldom written.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Whether somebody has needed it since this was last asked.
    pub fn take_used(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed)
    }

    /// What is known from this block of an extent on, at most so many blocks far and within the
    /// extent.
    #[inline]
    pub fn look(&self, extent: usize, block: u64, most: u64) -> Run {
        debug_assert!(block < self.form.blocks && most > 0);
        self.touch();
        let most = most.min(self.form.blocks - block);
        let Some(entry) = self.entry(extent) else { return Run::Absent { count: most } };
        let (written, zero) = (entry.words(Bits::Written), entry.words(Bits::Zero));
        loop {
            let place = load(entry.place());
            let count = run(block, most, |word| load(&written[word]));
            if count == 0 {
                break;
            }
            // A place that was left and given anew meanwhile has other blocks. It is not the same
            // again: that waits for everybody who is looking.
            if place != NOWHERE && load(entry.place()) == place {
                let first = u64::from(place as u32) * self.form.blocks + block;
                let at = Spot { slab: (place >> 32) as u32, block: first as u32 };
                return Run::Written { at, count };
            }
        }
        // The first block was looked at already, and may have become something else since.
        if entry.is_set(Bits::Zero, block) {
            let is_zero = |word| !load(&written[word]) & load(&zero[word]);
            return Run::Zero { count: run(block, most, is_zero).max(1) };
        }
        // The other way round a block that becomes zero in between would seem absent.
        let is_absent = |word: usize| {
            let is_unwritten = !load(&written[word]);
            is_unwritten & !load(&zero[word])
        };
        Run::Absent { count: run(block, most, is_absent).max(1) }
    }

    pub fn state(&self, extent: usize, block: u64) -> State {
        match self.look(extent, block, 1) {
            Run::Absent { .. } => State::Absent,
            Run::Zero { .. } => State::Zero,
            Run::Written { .. } => State::Written,
        }
    }

    /// Where the written blocks of an extent lie.
    pub fn place(&self, extent: usize) -> Option<Place> {
        let place = load(self.entry(extent)?.place());
        let at = Place { slab: (place >> 32) as u32, extent: place as u32 };
        (place != NOWHERE).then_some(at)
    }

    /// Whether blocks of this extent that are written may be written again by whoever finds them.
    #[inline]
    pub fn is_fresh(&self, extent: usize) -> bool {
        let part = self.parts[extent / PART_EXTENTS].get();
        part.is_some_and(|part| load(&part[0]) >> (extent % PART_EXTENTS) & 1 != 0)
    }

    /// Whether that is so of any extent.
    pub fn has_fresh(&self) -> bool {
        self.parts.iter().filter_map(OnceLock::get).any(|part| load(&part[0]) != 0)
    }

    /// Said before a block is written there whose record is not sealed, and taken back after the
    /// last one is.
    pub fn set_fresh(&self, extent: usize, is_fresh: bool) {
        let bit = 1 << (extent % PART_EXTENTS);
        match is_fresh {
            true => drop(self.part(extent)[0].fetch_or(bit, Ordering::AcqRel)),
            false => {
                let part = self.parts[extent / PART_EXTENTS].get();
                part.map(|part| part[0].fetch_and(!bit, Ordering::AcqRel));
            }
        }
    }

    /// Blocks of an extent that was given this place are to be written there.
    pub fn settle(&self, extent: usize, place: Place) {
        let place = u64::from(place.slab) << 32 | u64::from(place.extent);
        self.entry_or_new(extent).place().store(place, Ordering::Release);
    }

    /// These blocks lie at their extent's place now.
    pub fn write(&self, extent: usize, block: u64, count: u64) {
        self.entry_or_new(extent).set(Bits::Written, block, count);
    }

    /// These blocks read zero now. The place of an extent of which nothing is written any more is
    /// given back, for when nobody can be on the way there any more.
    pub fn zero(&self, extent: usize, block: u64, count: u64) -> Option<Place> {
        let entry = self.entry_or_new(extent);
        entry.set(Bits::Zero, block, count);
        entry.clear(Bits::Written, block, count);
        let is_empty = entry.words(Bits::Written).iter().all(|word| load(word) == 0);
        let place = self.place(extent).filter(|_| is_empty)?;
        entry.place().store(NOWHERE, Ordering::Release);
        Some(place)
    }

    /// The written blocks of an extent: first ones and counts. Who looks only for that does not
    /// need the page.
    pub fn written(&self, extent: usize) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let Some(entry) = self.entry(extent) else { return runs };
        let mut block = 0;
        let words = entry.words(Bits::Written);
        while block < self.form.blocks {
            let left = self.form.blocks - block;
            let count = run(block, left, |word| load(&words[word]));
            if count > 0 {
                runs.push((block, count));
            }
            block += count;
            block += run(block, left - count, |word| !load(&words[word]));
        }
        runs
    }

    /// Whether nothing is known here of an extent.
    pub fn is_absent(&self, extent: usize) -> bool {
        let is_zero = |entry: Entry<'_>| entry.0[1..].iter().all(|word| load(word) == 0);
        self.entry(extent).is_none_or(is_zero)
    }

    /// Blocks of an extent that are written in the layer below and of which nothing is known here:
    /// first ones and counts.
    pub fn lacks(&self, below: &Self, extent: usize) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (index, word) in self.lacked(below, extent).into_iter().enumerate() {
            for bit in (0..WORD_BITS).filter(|bit| word >> bit & 1 != 0) {
                let block = index as u64 * WORD_BITS + bit;
                match runs.last_mut() {
                    Some((first, count)) if *first + *count == block => *count += 1,
                    _ => runs.push((block, 1)),
                }
            }
        }
        runs
    }

    /// Blocks of an extent of which nothing is known here: first ones and counts.
    pub fn absent_runs(&self, extent: usize) -> Vec<(u64, u64)> {
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < self.form.blocks {
            let run = self.look(extent, at, self.form.blocks - at);
            if let Run::Absent { count } = run {
                match runs.last_mut() {
                    Some((first, before)) if *first + *before == at => *before += count,
                    _ => runs.push((at, count)),
                }
            }
            at += run.count();
        }
        runs
    }

    /// Blocks of an extent of which nothing is known here lie at its place: they do already.
    pub fn fill(&self, extent: usize) {
        for (first, count) in self.absent_runs(extent) {
            self.entry_or_new(extent).set(Bits::Written, first, count);
        }
    }

    /// Takes over what the layer below knows of an extent and this one does not: its blocks lie at
    /// this extent's place already.
    pub fn fold(&self, below: &Self, extent: usize) {
        let Some(of_below) = below.entry(extent) else { return };
        let (lacked, entry) = (self.lacked(below, extent), self.entry_or_new(extent));
        let (written, zero) = (entry.words(Bits::Written), entry.words(Bits::Zero));
        for (index, lacked) in lacked.into_iter().enumerate() {
            let known = load(&written[index]) | load(&zero[index]) | lacked;
            let below = load(&of_below.words(Bits::Zero)[index]);
            zero[index].fetch_or(below & !known, Ordering::AcqRel);
            written[index].fetch_or(lacked, Ordering::AcqRel);
        }
    }

    /// Written bits of the layer below where nothing is known here.
    fn lacked(&self, below: &Self, extent: usize) -> Vec<u64> {
        let Some(below) = below.entry(extent) else { return Vec::new() };
        let own = self.entry(extent);
        let known = |index: usize| {
            own.map_or(0, |own| {
                let [written, zero] = [Bits::Written, Bits::Zero].map(|bits| own.words(bits));
                load(&written[index]) | load(&zero[index])
            })
        };
        let below = below.words(Bits::Written).iter().enumerate();
        below.map(|(index, below)| load(below) & !known(index)).collect()
    }

    /// The same page for whoever looks from now on, with nothing known of these extents.
    pub fn without(&self, extents: impl IntoIterator<Item = usize>) -> Self {
        let copied =
            |part: &Part| -> Part { part.iter().map(|it| AtomicU64::new(load(it))).collect() };
        let copy = |part: &OnceLock<Part>| -> OnceLock<Part> {
            part.get().map(copied).map_or_else(OnceLock::new, OnceLock::from)
        };
        let parts = self.parts.iter().map(copy).collect();
        let page = Self { parts, ..Self::new(self.form) };
        for entry in extents.into_iter().filter_map(|extent| page.entry(extent)) {
            entry.place().store(NOWHERE, Ordering::Relaxed);
            entry.0[1..].iter().for_each(|it| it.store(0, Ordering::Relaxed));
        }
        page
    }

    pub fn encode(&self, (owner, number): (Owner, u64), turn: u64, epoch: u64) -> Page {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        let bytes = bits_bytes(self.form.blocks);
        for extent in 0..self.form.extents {
            let Some(entry) = self.entry(extent) else {
                payload.extend_from_slice(&NOWHERE.to_le_bytes());
                payload.resize(payload.len() + 2 * bytes, 0);
                continue;
            };
            payload.extend_from_slice(&load(entry.place()).to_le_bytes());
            let (written, zero) = (entry.words(Bits::Written), entry.words(Bits::Zero));
            let zero = zero.iter().zip(written).map(|(zero, written)| load(zero) & !load(written));
            for words in [written.iter().map(load).collect(), zero.collect::<Vec<u64>>()] {
                let all: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
                payload.extend_from_slice(&all[..bytes]);
            }
        }
        Page::new(Header { kind: KIND, owner, number, turn, epoch }, &payload)
    }

    /// What a page says that was read as this one; `turn` is that of the root which names it.
    pub fn decode(
        page: &Page,
        form: Form,
        (owner, number): (&Owner, u64),
        turn: u64,
    ) -> Result<Self, Flaw> {
        if page.check(KIND, owner, number)?.turn > turn {
            return Err(Flaw::Later);
        }
        let map = Self::new(form);
        let bytes = bits_bytes(form.blocks);
        let entries = page.payload().chunks_exact(PLACE_BYTES + 2 * bytes);
        for (extent, entry) in entries.enumerate().take(form.extents) {
            let (place, bits) = entry.split_at(PLACE_BYTES);
            let place = u64::from_le_bytes(place.try_into().expect("of its size"));
            if place == NOWHERE && bits.iter().all(|byte| *byte == 0) {
                continue;
            }
            let entry = map.entry_or_new(extent);
            entry.place().store(place, Ordering::Relaxed);
            let (written, zero) = bits.split_at(bytes);
            for (kind, bits) in [(Bits::Written, written), (Bits::Zero, zero)] {
                for (word, bytes) in entry.words(kind).iter().zip(bits.chunks(8)) {
                    let mut whole = [0; 8];
                    whole[..bytes.len()].copy_from_slice(bytes);
                    word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
                }
            }
            // A block that lies nowhere would be another one's: nobody writes that.
            if place == NOWHERE && entry.words(Bits::Written).iter().any(|it| load(it) != 0) {
                return Err(Flaw::Rotten);
            }
        }
        Ok(map)
    }

    /// What is known of an extent; none: nothing, nor of its neighbours.
    #[inline]
    fn entry(&self, extent: usize) -> Option<Entry<'_>> {
        let part = self.parts[extent / PART_EXTENTS].get()?;
        Some(self.entry_in(part, extent))
    }

    /// The same for the owner, who is about to say something of it.
    fn entry_or_new(&self, extent: usize) -> Entry<'_> {
        self.entry_in(self.part(extent), extent)
    }

    #[inline]
    fn entry_in<'a>(&self, part: &'a Part, extent: usize) -> Entry<'a> {
        let words = self.form.entry_words();
        let first = 1 + (extent % PART_EXTENTS) * words;
        Entry(&part[first..first + words])
    }

    fn part(&self, extent: usize) -> &Part {
        self.parts[extent / PART_EXTENTS].get_or_init(|| {
            self.held.grow(self.form.part_bytes());
            let (all, entry) = (self.form.part_words(), self.form.entry_words());
            let is_place = |word: usize| word > 0 && (word - 1).is_multiple_of(entry);
            let word = |word| AtomicU64::new(if is_place(word) { NOWHERE } else { 0 });
            (0..all).map(word).collect()
        })
    }
}

impl<'a> Entry<'a> {
    #[inline]
    fn place(self) -> &'a AtomicU64 {
        &self.0[0]
    }

    #[inline]
    fn words(self, bits: Bits) -> &'a [AtomicU64] {
        let words = self.0.len() / 2;
        let first = 1 + bits as usize * words;
        &self.0[first..first + words]
    }

    #[inline]
    fn is_set(self, bits: Bits, block: u64) -> bool {
        let word = load(&self.words(bits)[(block / WORD_BITS) as usize]);
        word >> (block % WORD_BITS) & 1 != 0
    }

    fn set(self, bits: Bits, block: u64, count: u64) {
        for (word, mask) in masks(block, count) {
            self.words(bits)[word].fetch_or(mask, Ordering::AcqRel);
        }
    }

    fn clear(self, bits: Bits, block: u64, count: u64) {
        for (word, mask) in masks(block, count) {
            self.words(bits)[word].fetch_and(!mask, Ordering::AcqRel);
        }
    }
}

/// How many blocks from this one on, at most so many, have their bits set in what is said of words.
#[inline]
fn run(block: u64, most: u64, of: impl Fn(usize) -> u64) -> u64 {
    let mut count = 0;
    while count < most {
        let (word, bit) = ((block + count) / WORD_BITS, (block + count) % WORD_BITS);
        let ones = u64::from((of(word as usize) >> bit).trailing_ones());
        count += ones;
        if bit + ones < WORD_BITS {
            break;
        }
    }
    count.min(most)
}

/// What a stack of layers says, the top one first: the first of them that says anything of the
/// first block, for as many blocks as nobody above says anything of. Absent: none says anything.
#[inline]
pub fn resolve<'a>(
    layers: impl IntoIterator<Item = &'a MapPage>,
    extent: usize,
    block: u64,
    most: u64,
) -> Run {
    let mut most = most;
    for layer in layers {
        match layer.look(extent, block, most) {
            Run::Absent { count } => most = count,
            known => return known,
        }
    }
    Run::Absent { count: most }
}

/// The words that a range of bits lies in, with its bits in each.
fn masks(first: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = first + count;
    (first / WORD_BITS..end.div_ceil(WORD_BITS)).map(move |word| {
        let from = first.saturating_sub(word * WORD_BITS);
        let to = (end - word * WORD_BITS).min(WORD_BITS);
        let ones = u64::MAX >> (WORD_BITS - (to - from));
        (word as usize, ones << from)
    })
}

fn bits_bytes(blocks: u64) -> usize {
    (blocks / u64::from(u8::BITS)) as usize
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { slab: 7, extent: 3 };

    fn forms() -> impl Strategy<Value = Form> {
        (16_u32..=22).prop_map(|log| Form::new(Shape::new(64 << 20, 1 << log).unwrap()))
    }

    #[test]
    fn a_page_of_the_default_shape_maps_42_mib() {
        let form = Form::new(Shape::default());
        assert_eq!((form.blocks, form.words, form.extents), (64, 1, 168));
        assert_eq!(form.locate(168 * 64 + 65), (1, 1, 1));
    }

    #[test]
    fn the_place_goes_with_the_last_block() {
        let page = MapPage::new(Form::new(Shape::default()));
        page.settle(5, PLACE);
        page.write(5, 10, 4);
        let at = |block: u32| Spot { slab: 7, block: 3 * 64 + block };
        assert_eq!(page.look(5, 11, 64), Run::Written { at: at(11), count: 3 });
        assert_eq!(page.zero(5, 10, 2), None);
        assert_eq!(page.zero(5, 0, 64), Some(PLACE));
        assert_eq!((page.place(5), page.look(5, 0, 99)), (None, Run::Zero { count: 64 }));
        assert_eq!(page.state(4, 0), State::Absent);
    }

    /// Places with an even slab have block 0 in them and no other, odd ones block 1.
    #[test]
    fn a_reader_sees_no_place_with_the_bits_of_another() {
        const PLACES: u32 = 50_000;
        let page = MapPage::new(Form::new(Shape::default()));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for slab in 0..PLACES {
                    page.settle(0, Place { slab, extent: 0 });
                    page.write(0, u64::from(slab % 2), 1);
                    page.zero(0, 0, 64);
                }
                page.settle(0, Place { slab: PLACES, extent: 0 });
                page.write(0, 0, 2);
            });
            let mut seen = 0;
            while seen < PLACES {
                for block in 0..2 {
                    if let Run::Written { at, .. } = page.look(0, block, 2) {
                        assert!(at.slab == PLACES || u64::from(at.slab % 2) == block, "{at:?}");
                        seen = at.slab;
                    }
                }
            }
        });
    }

    /// Whoever takes it for absent looks into the layer below, for what was there long ago.
    #[test]
    fn a_reader_sees_no_block_as_absent_that_this_layer_knows() {
        const CHANGES: u64 = 2_000_000;
        let page = MapPage::new(Form::new(Shape::default()));
        page.settle(0, PLACE);
        // The place stays.
        page.write(0, 9, 1);
        page.zero(0, 0, 2);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for change in 0..CHANGES {
                    match change % 2 {
                        0 => page.write(0, change / 2 % 2, 1),
                        _ => drop(page.zero(0, change / 2 % 2, 1)),
                    }
                }
                is_over.store(true, Ordering::Release);
            });
            while !is_over.load(Ordering::Acquire) {
                for block in 0..2 {
                    let run = page.look(0, block, 2);
                    assert!(!matches!(run, Run::Absent { .. }), "block {block}");
                }
            }
        });
    }

    proptest! {
        #[test]
        fn a_page_says_what_was_said_last(
            form in forms(),
            steps: Vec<(bool, u16, u16)>,
            (from, most) in (any::<u16>(), 1..2000_u64),
        ) {
            let page = MapPage::new(form);
            let last = form.extents - 1;
            let mut model = vec![State::Absent; form.blocks as usize];
            for (write, first, count) in steps {
                let first = u64::from(first) % form.blocks;
                let count = 1 + u64::from(count) % (form.blocks - first);
                if write {
                    page.settle(last, PLACE);
                    page.write(last, first, count);
                } else {
                    page.zero(last, first, count);
                }
                let state = if write { State::Written } else { State::Zero };
                model[first as usize..(first + count) as usize].fill(state);
            }
            let again = page.encode(([1; 16], 9), 2, 3);
            let later = MapPage::decode(&again, form, (&[1; 16], 9), 1);
            prop_assert!(matches!(later, Err(Flaw::Later)));
            let again = MapPage::decode(&again, form, (&[1; 16], 9), 2);
            for page in [page, again.unwrap()] {
                let from = u64::from(from) % form.blocks;
                let run = page.look(last, from, most);
                let rest = &model[from as usize..];
                let alike = rest.iter().take_while(|state| **state == rest[0]).count() as u64;
                prop_assert_eq!(run.count(), alike.min(most));
                prop_assert_eq!(page.state(last, from), rest[0]);
            }
        }

        #[test]
        fn of_layers_the_first_that_says_anything_counts(
            steps: Vec<(u8, bool, u8, u8)>,
            from in 0..64_u64,
            most in 1..70_u64,
        ) {
            let form = Form::new(Shape::default());
            let layers: Vec<MapPage> = (0..3).map(|_| MapPage::new(form)).collect();
            let mut model = [[State::Absent; 64]; 3];
            for (layer, write, first, count) in steps {
                let (layer, first) = (usize::from(layer) % 3, u64::from(first) % 64);
                let count = 1 + u64::from(count) % (64 - first);
                layers[layer].settle(0, Place { slab: layer as u32, extent: 0 });
                let state = if write { State::Written } else { State::Zero };
                match write {
                    true => layers[layer].write(0, first, count),
                    false => drop(layers[layer].zero(0, first, count)),
                }
                model[layer][first as usize..(first + count) as usize].fill(state);
            }
            let says = |block: u64| {
                let all = model.iter().map(|layer| layer[block as usize]).enumerate();
                let mut known = all.filter(|(_, state)| *state != State::Absent);
                known.next().map_or((3, State::Absent), |it| it)
            };
            let mut at = from;
            let end = 64.min(from + most);
            while at < end {
                let run = resolve(&layers, 0, at, end - at);
                prop_assert!(run.count() >= 1 && at + run.count() <= end);
                for block in at..at + run.count() {
                    match (says(block), run) {
                        ((layer, State::Written), Run::Written { at: spot, .. }) => {
                            prop_assert_eq!(spot.slab as usize, layer);
                            prop_assert_eq!(u64::from(spot.block), at);
                        }
                        ((_, State::Zero), Run::Zero { .. }) => {}
                        ((_, State::Absent), Run::Absent { .. }) => {}
                        (says, run) => prop_assert!(false, "{:?} {:?}", says, run),
                    }
                }
                at += run.count();
            }
        }
    }
}
