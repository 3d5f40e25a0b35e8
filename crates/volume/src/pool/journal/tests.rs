//! The journal under a small LU on a disk that loses, reorders and tears what was not synced, with
//! processes that are killed and power that fails at any step. A model knows for each block what
//! may be read.
//!
//! The LU maps single blocks, of which it has few more places than blocks, so that places are
//! soon used again; its map is part of its checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::pool::crash::{self, Dice, torn};

const OWNER: Owner = [3; 16];
const RING: u64 = RING_PAGES_MIN;
const BLOCKS: u64 = 8;
const SPOTS: u32 = 12;
/// Stands for the block in data that may be any block's.
const ANY: u64 = 100;

/// What a block holds: who wrote it, or a mixture of two writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Zero,
    Is { block: u64, version: u64 },
    Torn { block: u64, version: u64 },
}

impl Data {
    fn sum(self) -> u32 {
        match self {
            Self::Zero => 1,
            Self::Is { block, version } => (block << 20 | version << 1) as u32 + 2,
            Self::Torn { block, version } => (block << 20 | version << 1) as u32 + 3,
        }
    }
}

#[derive(Clone, Debug)]
struct Root {
    map: BTreeMap<u64, Spot>,
    start: Start,
}

#[derive(Clone, Debug)]
enum Put {
    Data(Spot, Data),
    Page(u64, Page),
    Root(Root),
}

/// What storage holds.
#[derive(Clone)]
struct Held {
    data: BTreeMap<Spot, Data>,
    ring: BTreeMap<u64, Page>,
    root: Root,
}

impl crash::Held for Held {
    type Put = Put;

    fn put(&mut self, put: &Put) {
        match put {
            Put::Data(spot, data) => drop(self.data.insert(*spot, *data)),
            Put::Page(number, page) => drop(self.ring.insert(number % RING, page.clone())),
            Put::Root(root) => self.root = root.clone(),
        }
    }

    /// A root has two places, so the one before stays.
    fn tear(&mut self, put: &Put) {
        match put {
            Put::Data(spot, Data::Is { block, version }) => {
                let torn = Data::Torn { block: *block, version: *version };
                self.data.insert(*spot, torn);
            }
            Put::Page(number, page) => {
                self.ring.insert(number % RING, torn(page));
            }
            Put::Data(..) | Put::Root(_) => {}
        }
    }
}

type Disk = crash::Disk<Held, u64>;

fn new_disk() -> Disk {
    let start = Journal::new(OWNER, 0, RING).start_for(FIRST);
    let root = Root { map: BTreeMap::new(), start };
    Disk::new(Held { data: BTreeMap::new(), ring: BTreeMap::new(), root })
}

/// What may be read of a block: its writes in their order, of which those before `floor` were
/// overwritten for good, and those up to `answered` were answered.
#[derive(Clone, Debug)]
struct Past {
    values: Vec<Data>,
    floor: usize,
    answered: usize,
}

/// What waits for input or output of the LU.
enum Waiting {
    Overwrite { block: u64, io: u64 },
    First { block: u64, spot: Spot, serial: Serial, io: Option<u64> },
    Zero { block: u64, serial: Serial },
}

impl Waiting {
    fn block(&self) -> u64 {
        match self {
            Self::Overwrite { block, .. }
            | Self::First { block, .. }
            | Self::Zero { block, .. } => *block,
        }
    }

    fn serial(&self) -> Serial {
        match self {
            Self::Overwrite { .. } => Serial::MAX,
            Self::First { serial, .. } | Self::Zero { serial, .. } => *serial,
        }
    }
}

/// A sync, and what it is for.
struct Syncing {
    sync: Sync,
    covers: usize,
    flushes: Vec<usize>,
}

enum Checkpoint {
    None,
    /// The image waits until what it names is durable.
    Imaged(Root, usize),
    Writing(Root, u64),
    Written(Root, usize),
}

struct Lu {
    epoch: u64,
    journal: Journal,
    map: BTreeMap<u64, Spot>,
    unsealed: BTreeMap<u64, Serial>,
    free: BTreeSet<Spot>,
    freed: Vec<(Serial, Spot)>,
    waiting: Vec<Waiting>,
    pages: Vec<(u64, u64)>,
    syncing: Option<Syncing>,
    /// Syncs that have ended.
    syncs: usize,
    checkpoint: Checkpoint,
}

impl Lu {
    /// Opens what an owner before has left, once it is durable.
    fn open(disk: &mut Disk, epoch: u64) -> Self {
        disk.synced(disk.unsynced.len());
        let held = &disk.current;
        let mut replay = Replay::new(OWNER, held.root.start);
        while let Some(page) = held.ring.get(&(replay.wants() % RING))
            && replay.push(page)
        {}
        let replayed = replay.end();
        let sum = |spot: Spot| held.data.get(&spot).map_or(0, |data| data.sum());
        let sums: BTreeMap<Spot, u32> = replayed.doubtful().map(|spot| (spot, sum(spot))).collect();
        let (accepted, refused) = replayed.settle(|spot, sum| sums[&spot] == sum);
        let mut journal = Journal::resume((OWNER, epoch, RING), &replayed, &refused).unwrap();
        journal.keep_pages_short(1 + epoch % 3);
        let mut lu = Self {
            epoch,
            journal,
            map: held.root.map.clone(),
            unsealed: BTreeMap::new(),
            free: BTreeSet::new(),
            freed: Vec::new(),
            waiting: Vec::new(),
            pages: Vec::new(),
            syncing: None,
            syncs: 0,
            checkpoint: Checkpoint::None,
        };
        for (serial, accepted) in accepted {
            lu.take_over(serial, &accepted);
        }
        // A place of a refused record is used again when its void is sealed, whatever else freed
        // it before.
        let last = lu.journal.next_serial() - 1;
        let used: BTreeSet<Spot> = lu.map.values().copied().collect();
        lu.freed.retain(|(_, spot)| !sums.contains_key(spot));
        lu.freed.extend(sums.keys().filter(|spot| !used.contains(spot)).map(|spot| (last, *spot)));
        let freed: BTreeSet<Spot> = lu.freed.iter().map(|(_, spot)| *spot).collect();
        let all = (0..SPOTS).map(|block| Spot { slab: 1, block });
        lu.free = all.filter(|spot| !used.contains(spot) && !freed.contains(spot)).collect();
        lu
    }

    fn take_over(&mut self, serial: Serial, accepted: &Accepted) {
        let (first, count) = match accepted {
            Accepted::Written { block, sums, .. } => (*block, sums.len() as u64),
            Accepted::Other(Record::Zeroed { block, count }) => (*block, *count),
            Accepted::Other(_) => unreachable!("there is one layer"),
        };
        for index in 0..count {
            let block = first + index;
            let former = match accepted {
                Accepted::Written { at, .. } => {
                    let spot = Spot { block: at.block + index as u32, ..*at };
                    self.map.insert(block, spot).filter(|former| *former != spot)
                }
                Accepted::Other(_) => self.map.remove(&block),
            };
            self.freed.extend(former.map(|former| (serial, former)));
            self.freed.retain(|(_, spot)| self.map.get(&block) != Some(spot));
            if !self.journal.is_sealed(serial) {
                self.unsealed.insert(block, serial);
            }
        }
    }

    fn read(&self, disk: &Disk, block: u64) -> Data {
        self.map.get(&block).map_or(Data::Zero, |spot| disk.current.data[spot])
    }

    /// Only a sync after all of these covers what has been done until now.
    fn syncs_begun(&self) -> usize {
        self.syncs + usize::from(self.syncing.is_some())
    }

    fn is_busy(&self, block: u64) -> bool {
        self.waiting.iter().any(|waiting| waiting.block() == block)
    }

    fn look_for_sealed(&mut self) {
        let journal = &self.journal;
        self.unsealed.retain(|_, serial| !journal.is_sealed(*serial));
        let sealed = self.freed.extract_if(.., |(serial, _)| journal.is_sealed(*serial));
        self.free.extend(sealed.map(|(_, spot)| spot));
    }
}

struct World {
    dice: Dice,
    /// Blocks are written with few values, the same for all: what looks like a record's data may
    /// be another's.
    alike: bool,
    disk: Disk,
    lu: Lu,
    past: Vec<Past>,
    version: u64,
    last_io: u64,
    /// For each flush that is under way, what was answered when it began.
    flushes: BTreeMap<usize, Vec<usize>>,
    next_flush: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut disk = new_disk();
        let lu = Lu::open(&mut disk, 1);
        let fresh = Past { values: vec![Data::Zero], floor: 0, answered: 0 };
        Self {
            dice: Dice::new(seed),
            alike: seed.is_multiple_of(2),
            disk,
            lu,
            past: vec![fresh; BLOCKS as usize],
            version: 0,
            last_io: 0,
            flushes: BTreeMap::new(),
            next_flush: 0,
        }
    }

    fn step(&mut self) {
        match self.dice.below(24) {
            0..6 => self.write(),
            6 => self.zero(),
            7..14 => self.complete(),
            14..17 => self.write_pages(),
            17 => self.flush(),
            18..20 => self.sync(),
            20 => self.seal(),
            21 => self.checkpoint(),
            _ => {
                let block = self.dice.below(BLOCKS as usize);
                self.check(block, false);
            }
        }
        self.lu.look_for_sealed();
    }

    fn issue(&mut self, put: Put) -> u64 {
        self.last_io += 1;
        self.disk.issue(self.last_io, put);
        self.last_io
    }

    fn begins(&mut self, block: u64, data: Data) {
        self.past[block as usize].values.push(data);
    }

    fn write(&mut self) {
        let block = self.dice.below(BLOCKS as usize) as u64;
        if self.lu.is_busy(block) || self.lu.unsealed.contains_key(&block) {
            return;
        }
        self.version += 1;
        let data = match self.alike {
            true => Data::Is { block: ANY, version: self.version % 3 },
            false => Data::Is { block, version: self.version },
        };
        if let Some(spot) = self.lu.map.get(&block) {
            let io = self.issue(Put::Data(*spot, data));
            self.lu.waiting.push(Waiting::Overwrite { block, io });
            self.begins(block, data);
            return;
        }
        let Some(spot) = self.lu.free.first().copied() else { return };
        let record = Record::Written { block, at: spot, sums: vec![data.sum()] };
        let Ok(serial) = self.lu.journal.append(&record) else { return };
        self.lu.free.remove(&spot);
        let io = Some(self.issue(Put::Data(spot, data)));
        self.lu.waiting.push(Waiting::First { block, spot, serial, io });
        self.begins(block, data);
    }

    fn zero(&mut self) {
        let block = self.dice.below(BLOCKS as usize) as u64;
        if self.lu.is_busy(block) || self.lu.unsealed.contains_key(&block) {
            return;
        }
        let record = Record::Zeroed { block, count: 1 };
        let Ok(serial) = self.lu.journal.append(&record) else { return };
        self.lu.waiting.push(Waiting::Zero { block, serial });
        self.begins(block, Data::Zero);
    }

    /// Some input or output ends.
    fn complete(&mut self) {
        if self.disk.in_flight.is_empty() {
            return;
        }
        let index = self.dice.below(self.disk.in_flight.len());
        let id = self.disk.complete(index);
        if let Some(at) = self.lu.pages.iter().position(|(io, _)| *io == id) {
            let (_, number) = self.lu.pages.remove(at);
            self.lu.journal.page_written(number);
        }
        for waiting in &mut self.lu.waiting {
            if let Waiting::First { serial, io, .. } = waiting
                && *io == Some(id)
            {
                self.lu.journal.arrived(*serial);
                *io = None;
            }
        }
        let mut checkpoint = std::mem::replace(&mut self.lu.checkpoint, Checkpoint::None);
        if let Checkpoint::Writing(root, io) = &checkpoint
            && *io == id
        {
            checkpoint = Checkpoint::Written(root.clone(), self.lu.syncs_begun());
        }
        self.lu.checkpoint = checkpoint;
        self.answer(id);
    }

    /// Answers what has everything that it waits for.
    fn answer(&mut self, id: u64) {
        let journal = &self.lu.journal;
        let is_done = |waiting: &mut Waiting| match waiting {
            Waiting::Overwrite { io, .. } => *io == id,
            Waiting::First { serial, io, .. } => io.is_none() && journal.is_written(*serial),
            Waiting::Zero { serial, .. } => journal.is_written(*serial),
        };
        let done: Vec<Waiting> = self.lu.waiting.extract_if(.., is_done).collect();
        for waiting in done {
            let past = &mut self.past[waiting.block() as usize];
            past.answered = past.values.len() - 1;
            match waiting {
                Waiting::Overwrite { .. } => {}
                Waiting::First { block, spot, serial, .. } => {
                    self.lu.map.insert(block, spot);
                    self.lu.unsealed.insert(block, serial);
                }
                Waiting::Zero { block, serial } => {
                    self.lu.unsealed.insert(block, serial);
                    let freed = self.lu.map.remove(&block);
                    self.lu.freed.extend(freed.map(|spot| (serial, spot)));
                }
            }
        }
    }

    fn write_pages(&mut self) {
        if let Some(Write { number, page }) = self.lu.journal.next_write() {
            let io = self.issue(Put::Page(number, page));
            self.lu.pages.push((io, number));
        }
    }

    fn flush(&mut self) {
        let answered = self.past.iter().map(|past| past.answered).collect();
        self.flushes.insert(self.next_flush, answered);
        self.next_flush += 1;
    }

    fn sync(&mut self) {
        let Some(Syncing { sync, covers, flushes }) = self.lu.syncing.take() else {
            let sync = self.lu.journal.begin_sync();
            let covers = self.disk.unsynced.len();
            let flushes = self.flushes.keys().copied().collect();
            self.lu.syncing = Some(Syncing { sync, covers, flushes });
            return;
        };
        self.disk.synced(covers);
        self.lu.journal.synced(sync);
        self.lu.syncs += 1;
        for flush in flushes {
            let answered = self.flushes.remove(&flush).unwrap();
            for (past, answered) in self.past.iter_mut().zip(answered) {
                past.floor = past.floor.max(answered);
            }
        }
    }

    fn seal(&mut self) {
        let first = self.lu.unsealed.values().chain(self.lu.freed.iter().map(|(serial, _)| serial));
        let Some(first) = first.min() else { return };
        match self.lu.journal.lacks(*first) {
            Lack::Mark => self.lu.journal.want_mark(),
            Lack::Sync => self.sync(),
            Lack::Nothing | Lack::Writing => {}
        }
    }

    fn checkpoint(&mut self) {
        let checkpoint = std::mem::replace(&mut self.lu.checkpoint, Checkpoint::None);
        self.lu.checkpoint = match checkpoint {
            Checkpoint::None => {
                let waiting = self.lu.waiting.iter().map(Waiting::serial).min();
                let first = waiting.unwrap_or(Serial::MAX).min(self.lu.journal.next_serial());
                let start = self.lu.journal.start_for(first);
                Checkpoint::Imaged(Root { map: self.lu.map.clone(), start }, self.lu.syncs_begun())
            }
            Checkpoint::Imaged(root, since) if self.lu.syncs > since => {
                let io = self.issue(Put::Root(root.clone()));
                Checkpoint::Writing(root, io)
            }
            Checkpoint::Written(root, since) if self.lu.syncs > since => {
                self.lu.journal.let_go(root.start);
                Checkpoint::None
            }
            same => same,
        };
    }

    fn crash(&mut self, power: bool) {
        if power {
            self.disk.lose_power(&mut self.dice);
        } else {
            self.disk.kill(&mut self.dice);
        }
        self.flushes.clear();
        self.lu = Lu::open(&mut self.disk, self.lu.epoch + 1);
        for block in 0..BLOCKS as usize {
            self.check(block, true);
            let read = self.lu.read(&self.disk, block as u64);
            let past = &mut self.past[block];
            let from = if power { past.floor } else { past.answered };
            let torn = matches!(read, Data::Torn { .. });
            let found = (from..past.values.len()).find(|&at| past.values[at] == read || torn);
            assert!(found.is_some(), "block {block} reads {read:?}, of {past:?}, power {power}");
            let at = found.unwrap();
            past.values.truncate(at + 1);
            past.values[at] = read;
            (past.answered, past.floor) = (at, at);
        }
    }

    /// What is read now, without a crash, is the last answered write or one that is under way.
    fn check(&self, block: usize, crashed: bool) {
        let (read, past) = (self.lu.read(&self.disk, block as u64), &self.past[block]);
        if let Data::Is { block: of, .. } | Data::Torn { block: of, .. } = read {
            assert!(of == block as u64 || of == ANY, "another block's data");
        }
        let is_legal = crashed || past.values[past.answered..].contains(&read);
        assert!(is_legal, "block {block} reads {read:?}, of {past:?}");
    }
}

fn run(seed: u64, steps: usize) -> usize {
    let mut world = World::new(seed);
    let mut crashes = 0;
    for _ in 0..steps {
        if world.dice.one_in(30) {
            let power = world.dice.one_in(2);
            world.crash(power);
            crashes += 1;
        } else {
            world.step();
        }
    }
    crashes
}

#[test]
fn nothing_answered_is_lost_and_nothing_foreign_is_seen() {
    let crashes: usize = (0..400).map(|seed| run(seed, 1_000)).sum();
    assert!(crashes > 10_000);
}

fn spot(block: u32) -> Spot {
    Spot { slab: 1, block }
}

/// Writes every page that there is to write.
fn write_all(journal: &mut Journal) -> Vec<Page> {
    let mut pages = Vec::new();
    while let Some(Write { number, page }) = journal.next_write() {
        journal.page_written(number);
        pages.push(page);
    }
    pages
}

fn read_back(start: Start, pages: &[Page]) -> Replayed {
    let mut replay = Replay::new(OWNER, start);
    pages.iter().for_each(|page| assert!(replay.push(page)));
    replay.end()
}

#[test]
fn of_a_run_each_block_is_taken_by_itself() {
    let mut journal = Journal::new(OWNER, 1, RING);
    let start = journal.start_for(FIRST);
    let sums = vec![10, 11, 12, 13];
    let serial = journal.append(&Record::Written { block: 40, at: spot(7), sums }).unwrap();
    let mut pages = write_all(&mut journal);
    let replayed = read_back(start, &pages);
    assert_eq!(replayed.doubtful().count(), 4);
    let sum_of = |spot: Spot| if spot.block == 9 { 0 } else { spot.block + 3 };
    let (accepted, refused) = replayed.settle(|spot, sum| sum_of(spot) == sum);
    let written = |block, at, sums: &[u32]| {
        (serial, Accepted::Written { block, at: spot(at), sums: sums.to_vec() })
    };
    assert_eq!(accepted, [written(40, 7, &[10, 11]), written(43, 10, &[13])]);
    assert_eq!(refused, [Record::Void { of: serial, block: 42, count: 1 }]);

    let mut next = Journal::resume((OWNER, 2, RING), &replayed, &refused).unwrap();
    pages.extend(write_all(&mut next));
    let again = read_back(start, &pages);
    assert_eq!(again.doubtful().count(), 3);
    let (same, none) = again.settle(|spot, sum| spot.block + 3 == sum);
    assert_eq!((same, none), (accepted, Vec::new()), "what was not there then never is");
}

/// A mark that came by a refused record before its void would make a reader take it.
#[test]
fn no_mark_overtakes_the_voids() {
    let mut journal = Journal::new(OWNER, 1, RING);
    let start = journal.start_for(FIRST);
    for block in 0..200 {
        let record = Record::Written { block: 2 * block, at: spot(0), sums: vec![1] };
        journal.append(&record).unwrap();
    }
    let replayed = read_back(start, &write_all(&mut journal));
    let (_, refused) = replayed.settle(|_, sum| sum == 0);
    assert_eq!(refused.len(), 200);
    let mut next = Journal::resume((OWNER, 2, RING), &replayed, &refused).unwrap();
    let first = next.next_write().unwrap();
    next.page_written(first.number);
    let sync = next.begin_sync();
    next.synced(sync);
    assert_eq!(sync.durable, FIRST, "there are voids on the second page");
    let second = next.next_write().unwrap();
    next.page_written(second.number);
    assert_eq!(next.begin_sync().durable, 401);
}

#[test]
fn a_full_journal_waits_for_a_checkpoint() {
    let mut journal = Journal::new(OWNER, 1, RING);
    let record = Record::Zeroed { block: 0, count: 1 };
    let mut last = FIRST;
    while let Ok(serial) = journal.append(&record) {
        last = serial;
        let write = journal.next_write().unwrap();
        journal.page_written(write.number);
    }
    // There is room for marks, so that what is freed can be sealed.
    let sync = journal.begin_sync();
    journal.synced(sync);
    assert_eq!(journal.lacks(last), Lack::Mark);
    journal.want_mark();
    let mark = journal.next_write().unwrap();
    journal.page_written(mark.number);
    assert_eq!(journal.lacks(last), Lack::Sync);
    let sync = journal.begin_sync();
    journal.synced(sync);
    assert_eq!(journal.lacks(last), Lack::Nothing);
    journal.let_go(journal.start_for(journal.next_serial()));
    assert!(journal.append(&record).is_ok() && journal.fill_percent() == 0);
}
