//! What a disk or file holds: per sector what is durable, and what came since.
//!
//! A write adds a change to each sector that it touches; reads see the last change. A sync makes
//! durable what had been *answered* when it was asked for, and not one change more, because nobody
//! may rely on more. When power is lost, every unit that the disk writes in one step keeps all of
//! its changes, none, or those up to some moment, independently of its neighbours: so a long write
//! is torn, and later writes may survive where earlier ones do not.
//!
//! A failed sync leaves what it covered of the page cache *stuck*: readable, but no later sync
//! makes it durable (what Linux does to pages after a failed write-back). Writing again does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use block::extent::{Extent, ExtentState};

use super::random::Random;
use super::ranges::Ranges;
use super::room::OpId;

/// What every disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// The unit in which files have a place.
pub(super) const PLACE: u64 = 4096;
const PLACE_SECTORS: u64 = PLACE / SECTOR as u64;

/// None: zeroes.
type Bytes = Option<Arc<[u8; SECTOR]>>;

#[derive(Default)]
struct Sector {
    durable: Bytes,
    changes: Vec<Change>,
}

struct Change {
    op: OpId,
    /// The same for all sectors that were written in one step.
    serial: u64,
    /// When it was answered, in answers of this image; 0 while it is not.
    answered: u64,
    cached: bool,
    stuck: bool,
    bytes: Bytes,
}

impl Sector {
    fn current(&self) -> &Bytes {
        self.changes.last().map_or(&self.durable, |change| &change.bytes)
    }

    /// Makes durable what this change left, and all before it.
    fn settle(&mut self, index: usize) {
        if let Some(last) = self.changes.drain(..=index).next_back() {
            self.durable = last.bytes;
        }
    }
}

pub(super) struct Image {
    size: u64,
    durable_size: u64,
    sectors: BTreeMap<u64, Sector>,
    /// Sectors with changes.
    dirty: BTreeSet<u64>,
    /// Blocks of [`PLACE`] bytes that have a place.
    placed: Ranges,
    serial: u64,
    answers: u64,
    /// Sectors that the disk writes in one step.
    unit: u64,
    /// Something was written through the page cache.
    is_cached: bool,
}

impl Image {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            durable_size: size,
            sectors: BTreeMap::new(),
            dirty: BTreeSet::new(),
            placed: Ranges::default(),
            serial: 0,
            answers: 0,
            unit: 1,
            is_cached: false,
        }
    }

    /// What is written in one step: between units of so many bytes writes are torn and mixed.
    pub(super) fn set_unit(&mut self, bytes: u32) {
        self.unit = u64::from(bytes).div_ceil(SECTOR as u64).max(1);
    }

    /// In bytes.
    pub(super) fn unit(&self) -> u64 {
        self.unit * SECTOR as u64
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn allocated(&self) -> u64 {
        self.placed.total() * PLACE
    }

    /// How many changes a power loss could undo, in sectors.
    pub(super) fn unsettled(&self) -> usize {
        self.dirty.len()
    }

    /// Beyond the end there is nothing: the caller has checked.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        for (index, within, part) in sectors(offset, out.len()) {
            let source = self.sectors.get(&index).and_then(|sector| sector.current().as_ref());
            match source {
                Some(bytes) => out[part].copy_from_slice(&bytes[within]),
                None => out[part].fill(0),
            }
        }
    }

    /// What is durable, as a power loss now would leave it if it kept nothing else.
    pub(super) fn read_durable(&self, offset: u64, out: &mut [u8]) {
        for (index, within, part) in sectors(offset, out.len()) {
            let source = self.sectors.get(&index).and_then(|sector| sector.durable.as_ref());
            match source {
                Some(bytes) => out[part].copy_from_slice(&bytes[within]),
                None => out[part].fill(0),
            }
        }
    }

    /// Writes, and grows where it must; `cached` says whether through the page cache.
    pub(super) fn write(&mut self, op: OpId, offset: u64, bytes: &[u8], cached: bool) {
        self.serial += 1;
        for (index, within, part) in sectors(offset, bytes.len()) {
            let mut whole = self.current(index);
            whole[within].copy_from_slice(&bytes[part]);
            self.change(op, index, Some(Arc::new(whole)), cached);
        }
        let end = offset + bytes.len() as u64;
        self.size = self.size.max(end);
        self.placed.insert(offset / PLACE..end.div_ceil(PLACE));
    }

    /// The range reads zero; `give_back` lets go of whole blocks.
    pub(super) fn zero(&mut self, op: OpId, range: Range<u64>, give_back: bool) {
        self.serial += 1;
        let first = range.start / SECTOR as u64;
        let held: Vec<u64> = self
            .sectors
            .range(first..range.end.div_ceil(SECTOR as u64))
            .filter(|(_, sector)| sector.current().is_some())
            .map(|(index, _)| *index)
            .collect();
        for index in held {
            let at = index * SECTOR as u64;
            let from = range.start.saturating_sub(at).min(SECTOR as u64) as usize;
            let to = (range.end - at).min(SECTOR as u64) as usize;
            let mut whole = self.current(index);
            whole[from..to].fill(0);
            let bytes = (to - from < SECTOR).then(|| Arc::new(whole));
            self.change(op, index, bytes, false);
        }
        if give_back {
            self.placed.remove(range.start.div_ceil(PLACE)..range.end / PLACE);
        } else {
            self.reserve(range);
        }
    }

    /// The range has a place from now on.
    pub(super) fn reserve(&mut self, range: Range<u64>) {
        self.placed.insert(range.start / PLACE..range.end.div_ceil(PLACE));
    }

    pub(super) fn set_size(&mut self, op: OpId, size: u64) {
        if size < self.size {
            self.zero(op, size..self.size, true);
            self.placed.remove(size.div_ceil(PLACE)..u64::MAX);
        }
        self.size = size;
    }

    fn current(&self, index: u64) -> [u8; SECTOR] {
        let sector = self.sectors.get(&index).and_then(|sector| sector.current().as_deref());
        sector.copied().unwrap_or([0; SECTOR])
    }

    fn change(&mut self, op: OpId, index: u64, bytes: Bytes, cached: bool) {
        let serial = self.serial;
        let change = Change { op, serial, answered: 0, cached, stuck: false, bytes };
        let changes = &mut self.sectors.entry(index).or_default().changes;
        // What a later answered change has covered is one possible outcome less, no promise less.
        if changes.len() >= CHANGES_MAX
            && let Some(newest) = changes.iter().rposition(|c| c.answered > 0 && !c.stuck)
            && newest > 0
        {
            changes.remove(newest - 1);
        }
        changes.push(change);
        self.is_cached |= cached;
        self.dirty.insert(index);
    }

    /// The operation has been answered: a sync asked for from now on covers it.
    pub(super) fn answered(&mut self, op: OpId, range: Range<u64>) {
        self.answers += 1;
        let answers = self.answers;
        for index in self.dirty_in(range) {
            let sector = self.sectors.entry(index).or_default();
            let mine = sector.changes.iter_mut().filter(|change| change.op == op);
            mine.for_each(|change| change.answered = answers);
        }
    }

    /// What a sync that is asked for now covers: to be handed to [`Image::settle`] when it ends.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Makes durable what was answered up to then.
    pub(super) fn settle(&mut self, answers: u64) {
        let covered =
            |change: &Change| change.answered > 0 && change.answered <= answers && !change.stuck;
        for index in self.dirty_in(0..u64::MAX) {
            self.settle_sector(index, covered);
        }
        self.durable_size = self.size;
    }

    /// Makes durable what this operation wrote.
    pub(super) fn settle_op(&mut self, op: OpId, range: Range<u64>) {
        self.durable_size = self.durable_size.max(range.end.min(self.size));
        for index in self.dirty_in(range) {
            self.settle_sector(index, |change| change.op == op);
        }
    }

    fn settle_sector(&mut self, index: u64, covered: impl Fn(&Change) -> bool) {
        let sector = self.sectors.entry(index).or_default();
        if let Some(last) = sector.changes.iter().rposition(covered) {
            sector.settle(last);
        }
        self.tidy(index);
    }

    /// A sync has failed: what it covered of the page cache stays unsettled for good.
    pub(super) fn stick(&mut self, answers: u64) {
        // A disk that fails for long has many of these to go over everything.
        if !self.is_cached {
            return;
        }
        for index in self.dirty_in(0..u64::MAX) {
            for change in &mut self.sectors.entry(index).or_default().changes {
                let covered = change.answered > 0 && change.answered <= answers;
                change.stuck |= covered && change.cached;
            }
        }
    }

    /// Everything that is not durable survives or not, as the seed says.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let keep_ppm = *random.pick(&KEEP_PPM);
        let (dirty, sectors) = (self.dirty_in(0..u64::MAX), self.unit);
        for unit in dirty.chunk_by(|a, b| a / sectors == b / sectors) {
            let changes = unit.iter().flat_map(|index| &self.sectors[index].changes);
            let mut serials: Vec<u64> = changes.map(|change| change.serial).collect();
            serials.sort_unstable();
            serials.dedup();
            // Kept up to here: before all of them, or after one that is not the last.
            let moments = serials.len() as u64;
            let last = match random.below(moments) as usize {
                _ if random.chance(keep_ppm) => u64::MAX,
                0 => 0,
                moment => serials[moment - 1],
            };
            for &index in unit {
                let sector = self.sectors.entry(index).or_default();
                let kept = sector.changes.iter().rposition(|change| change.serial <= last);
                if let Some(kept) = kept {
                    sector.settle(kept);
                }
                sector.changes.clear();
                self.tidy(index);
            }
        }
        if self.size != self.durable_size && !random.chance(keep_ppm) {
            self.size = self.durable_size;
        }
        self.durable_size = self.size;
        self.cut_to_size();
    }

    /// What lies beyond the end does not come back when the file grows again.
    fn cut_to_size(&mut self) {
        self.sectors.split_off(&self.size.div_ceil(SECTOR as u64));
        self.placed.remove(self.size.div_ceil(PLACE)..u64::MAX);
        let within = (self.size % SECTOR as u64) as usize;
        let last = self.sectors.get_mut(&(self.size / SECTOR as u64));
        if let Some(Sector { durable: Some(bytes), .. }) = last {
            Arc::make_mut(bytes)[within..].fill(0);
        }
        // A block that has kept data has a place, whatever became of the record of it.
        for (index, _) in self.sectors.iter().filter(|(_, sector)| sector.durable.is_some()) {
            self.placed.insert(index / PLACE_SECTORS..index / PLACE_SECTORS + 1);
        }
    }

    /// Flips a bit in a sector: decay of the medium. False: there is nothing to decay.
    pub(super) fn decay(&mut self, range: Range<u64>, random: &mut Random) -> bool {
        let (first, end) = (range.start / SECTOR as u64, range.end.div_ceil(SECTOR as u64));
        let held: Vec<u64> = self
            .sectors
            .range(first..end)
            .filter(|(_, sector)| sector.current().is_some())
            .map(|(index, _)| *index)
            .collect();
        if held.is_empty() {
            return false;
        }
        let sector = self.sectors.entry(*random.pick(&held)).or_default();
        let (byte, bit) = (random.below(SECTOR as u64) as usize, random.below(8));
        let current = match sector.changes.last_mut() {
            Some(change) => &mut change.bytes,
            None => &mut sector.durable,
        };
        if let Some(bytes) = current {
            Arc::make_mut(bytes)[byte] ^= 1 << bit;
        }
        true
    }

    /// What lies where, as `lseek` tells it: in blocks, zeroes without data being holes.
    pub(super) fn extents(&self, range: Range<u64>, max: usize) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = range.start;
        let end = range.end.min(self.size.max(range.start));
        let first = range.start / PLACE * PLACE_SECTORS;
        let held = self.sectors.range(first..end.div_ceil(SECTOR as u64));
        let held = held.filter(|(_, sector)| sector.current().is_some());
        for (index, _) in held {
            let block = index / PLACE_SECTORS * PLACE;
            let data = block.max(range.start)..(block + PLACE).min(end);
            if data.end <= at {
                continue;
            }
            push(&mut extents, data.start - at, ExtentState::Hole);
            push(&mut extents, data.end - data.start, ExtentState::Data);
            at = data.end;
        }
        push(&mut extents, range.end - at, ExtentState::Hole);
        extents.truncate(max);
        extents
    }

    fn dirty_in(&self, range: Range<u64>) -> Vec<u64> {
        let last = range.end.div_ceil(SECTOR as u64);
        self.dirty.range(range.start / SECTOR as u64..last).copied().collect()
    }

    fn tidy(&mut self, index: u64) {
        let Some(sector) = self.sectors.get(&index) else { return };
        if !sector.changes.is_empty() {
            return;
        }
        self.dirty.remove(&index);
        if sector.durable.is_none() {
            self.sectors.remove(&index);
        }
    }
}

/// Changes of a sector that are told apart; beyond it the oldest answered ones are forgotten.
const CHANGES_MAX: usize = 8;
/// How much of what was not durable a power loss keeps.
const KEEP_PPM: [u32; 5] = [0, 125_000, 500_000, 875_000, 1_000_000];

fn push(extents: &mut Vec<Extent>, len: u64, state: ExtentState) {
    match extents.last_mut() {
        _ if len == 0 => {}
        Some(last) if last.state == state => last.len += len,
        _ => extents.push(Extent { len, state }),
    }
}

/// The sectors that a range touches: number, bytes within the sector, bytes within the range.
fn sectors(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % SECTOR as u64) as usize;
        let count = (len - done).min(SECTOR - within);
        let part = done..done + count;
        done += count;
        (count > 0).then(|| (at / SECTOR as u64, within..within + count, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OP: OpId = OpId(1);

    fn filled(image: &Image, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0xee; len];
        image.read(offset, &mut out);
        out
    }

    fn put(image: &mut Image, op: u64, offset: u64, bytes: &[u8]) {
        image.write(OpId(op), offset, bytes, true);
        let end = offset + bytes.len() as u64;
        image.answered(OpId(op), offset..end);
    }

    #[test]
    fn reads_agree_with_plain_bytes_whatever_the_shape() {
        let mut random = Random::new(1);
        let (mut image, mut plain) = (Image::new(0), Vec::new());
        for op in 0..500 {
            let offset = random.below(20_000) as usize;
            let len = random.below(6000) as usize;
            let end = offset + len;
            match random.below(4) {
                0 if end <= plain.len() => {
                    image.zero(OpId(op), offset as u64..end as u64, random.coin());
                    plain[offset..end].fill(0);
                }
                1 => {
                    image.set_size(OpId(op), end as u64);
                    plain.resize(end, 0);
                }
                2 => image.settle(image.answers()),
                _ => {
                    let bytes: Vec<u8> = (0..len).map(|n| (n as u64 + op) as u8 | 1).collect();
                    put(&mut image, op, offset as u64, &bytes);
                    plain.resize(plain.len().max(end), 0);
                    plain[offset..end].copy_from_slice(&bytes);
                }
            }
            assert_eq!(image.size(), plain.len() as u64);
            assert_eq!(filled(&image, 0, plain.len()), plain);
            let extents = image.extents(0..image.size(), usize::MAX);
            let mut at = 0;
            for extent in &extents {
                let end = at + extent.len as usize;
                let zero = plain[at..end].iter().all(|byte| *byte == 0);
                assert!(extent.state != ExtentState::Hole || zero, "data in a hole at {at}");
                at = end;
            }
            assert_eq!(at, plain.len());
        }
    }

    #[test]
    fn a_sync_covers_what_was_answered_before_it_and_nothing_else() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let mut image = Image::new(4096);
            put(&mut image, 1, 0, &[1; 512]);
            image.write(OpId(2), 512, &[2; 512], false);
            let cut = image.answers();
            image.answered(OpId(2), 512..1024);
            put(&mut image, 3, 1024, &[3; 512]);
            image.settle(cut);
            assert_eq!(image.unsettled(), 2);
            image.lose_power(&mut Random::new(seed));
            assert_eq!(image.unsettled(), 0);
            let left = filled(&image, 0, 1536);
            assert_eq!(left[..512], [1; 512]);
            outcomes.insert((left[512], left[1024]));
        }
        assert_eq!(outcomes, BTreeSet::from([(0, 0), (0, 3), (2, 0), (2, 3)]));
    }

    #[test]
    fn a_long_write_is_torn_between_units_and_never_within() {
        let mut torn = BTreeSet::new();
        for (unit, seed) in (0..400).map(|seed| ([512, 4096][seed as usize % 2], seed)) {
            let mut image = Image::new(8192);
            image.set_unit(unit);
            put(&mut image, 1, 0, &[1; 8192]);
            put(&mut image, 2, 0, &[2; 4096]);
            image.lose_power(&mut Random::new(seed));
            let left = filled(&image, 0, 8192);
            let parts: Vec<u8> = left.chunks(unit as usize).map(|part| part[0]).collect();
            for part in left.chunks(unit as usize) {
                assert!(part.iter().all(|byte| *byte == part[0]), "torn within a unit");
            }
            torn.insert((unit, parts.windows(2).any(|pair| pair[0] != pair[1])));
            assert!(parts[parts.len() / 2..].iter().all(|part| *part < 2));
        }
        assert!(torn.contains(&(512, true)) && torn.contains(&(4096, true)));
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut image = Image::new(4096);
            put(&mut image, 1, 0, &[1; 512]);
            image.stick(image.answers());
            put(&mut image, 2, 512, &[2; 512]);
            image.settle(image.answers());
            assert_eq!(filled(&image, 0, 512), [1; 512]);
            image.lose_power(&mut Random::new(seed));
            assert_eq!(filled(&image, 512, 512), [2; 512]);
            lost += u32::from(filled(&image, 0, 1) == [0]);
        }
        assert!((1..100).contains(&lost));
    }

    #[test]
    fn sizes_that_were_not_synced_may_be_undone_and_hide_nothing_old() {
        let mut sizes = BTreeSet::new();
        for seed in 0..100 {
            let mut image = Image::new(1024);
            put(&mut image, 1, 0, &[1; 1024]);
            image.settle(image.answers());
            image.set_size(OP, 100);
            image.answered(OP, 100..1024);
            image.lose_power(&mut Random::new(seed));
            sizes.insert(image.size());
            let size = image.size();
            image.set_size(OP, 2048);
            assert!(filled(&image, size, 100).iter().all(|byte| *byte == 0));
        }
        assert_eq!(sizes, BTreeSet::from([100, 1024]));
    }

    #[test]
    fn an_operation_of_its_own_durability_leaves_others_alone() {
        let mut image = Image::new(4096);
        put(&mut image, 1, 0, &[1; 1024]);
        put(&mut image, 2, 512, &[2; 512]);
        image.settle_op(OpId(2), 512..1024);
        let mut out = [9; 1024];
        image.read_durable(0, &mut out);
        assert_eq!((out[0], out[512], image.unsettled()), (0, 2, 1));
    }

    #[test]
    fn decay_changes_one_bit() {
        let mut image = Image::new(4096);
        assert!(!image.decay(0..4096, &mut Random::new(1)));
        put(&mut image, 1, 512, &[0; 512]);
        assert!(image.decay(0..4096, &mut Random::new(1)));
        let ones: u32 = filled(&image, 0, 4096).iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
    }
}
