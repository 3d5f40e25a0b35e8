//! The owner of a small LU over a disk that loses, reorders and tears what was not synced, with
//! processes that are killed and power that fails at any step. A model knows for each block, and
//! for each block of each snapshot, what may be read.
//!
//! The LU has few extents more than it needs, so that what becomes free is soon used for something
//! else: other blocks, other layers, pages of the map.

use std::collections::BTreeSet;

use super::super::crash::{self, Dice, torn};
use super::super::journal::RING_PAGES_MIN;
use super::super::map::Run;
use super::super::shape::Shape;
use super::*;

const LU: [u8; 16] = [3; 16];
const BASE: LayerId = [100; 16];
const SLAB: u32 = 5;
/// Blocks that are used: some of one extent, of one page, of one chunk, and of others.
const BLOCKS: [u64; 14] = [
    0,
    1,
    2,
    3,
    15,
    16,
    17,
    5 * 16,
    5 * 16 + 1,
    337 * 16,
    337 * 16 + 1,
    8 * 337 * 16,
    8 * 337 * 16 + 3,
    9 * 337 * 16,
];
/// The LU may use so many extents.
const EXTENTS: u64 = 24;
const SNAPSHOTS_MAX: usize = 2;

fn shape() -> Shape {
    Shape::new(4 << 20, 64 << 10).unwrap()
}

fn identity(epoch: u32) -> Identity {
    Identity { lu: LU, shape: shape(), epoch, ring: RING_PAGES_MIN }
}

/// What a block of storage holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    /// Who wrote it.
    Data {
        block: u64,
        version: u64,
    },
    Torn {
        block: u64,
        version: u64,
    },
    Page(Page),
}

impl Cell {
    fn sum(&self) -> u32 {
        match self {
            Self::Data { block, version } => (block << 12 | version << 2) as u32 + 2,
            Self::Torn { .. } => 1,
            Self::Page(_) => 3,
        }
    }
}

#[derive(Clone, Debug)]
enum Put {
    Cell(Spot, Cell),
    Journal(u64, Page),
    Root(Root),
}

#[derive(Clone)]
struct Held {
    cells: BTreeMap<Spot, Cell>,
    ring: BTreeMap<u64, Page>,
    root: Root,
}

impl crash::Held for Held {
    type Put = Put;

    fn put(&mut self, put: &Put) {
        match put {
            Put::Cell(spot, cell) => drop(self.cells.insert(*spot, cell.clone())),
            Put::Journal(number, page) => {
                drop(self.ring.insert(number % RING_PAGES_MIN, page.clone()));
            }
            Put::Root(root) => self.root = root.clone(),
        }
    }

    fn tear(&mut self, put: &Put) {
        match put {
            Put::Cell(spot, Cell::Data { block, version }) => {
                let (block, version) = (*block, *version);
                self.cells.insert(*spot, Cell::Torn { block, version });
            }
            Put::Cell(spot, Cell::Page(page)) => {
                self.cells.insert(*spot, Cell::Page(torn(page)));
            }
            Put::Journal(number, page) => {
                self.ring.insert(number % RING_PAGES_MIN, torn(page));
            }
            // One of its two places has the former one.
            Put::Root(_) | Put::Cell(_, Cell::Torn { .. }) => {}
        }
    }
}

/// What is told to the owner when a write has ended.
#[derive(Clone, Copy, Debug)]
enum Tell {
    Data(Ticket),
    Journal(u64),
    Page,
    Root,
}

type Disk = crash::Disk<Held, Tell>;

/// What may be read of a block: its values in their order, of which those before `floor` are over
/// for good, and those up to `answered` were answered.
#[derive(Clone, Debug)]
struct Past {
    values: Vec<Option<Cell>>,
    floor: usize,
    answered: usize,
}

impl Past {
    fn fresh() -> Self {
        Self { values: vec![None], floor: 0, answered: 0 }
    }

    /// What was read after a crash: it must be legal, and is what there is from now on.
    fn read(&mut self, read: Option<Cell>, power: bool, what: &str) {
        let from = if power { self.floor } else { self.answered };
        let is_torn = matches!(read, Some(Cell::Torn { .. }));
        let is_it =
            |at: &usize| self.values[*at] == read || is_torn && self.values.len() > from + 1;
        let found = (from..self.values.len()).find(is_it);
        let at = found.unwrap_or_else(|| panic!("{what} reads {read:?}, of {self:?}, {power}"));
        self.values.truncate(at + 1);
        self.values[at] = read;
        (self.answered, self.floor) = (at, at);
    }
}

struct Snapshot {
    top: LayerId,
    pasts: BTreeMap<u64, Past>,
    is_durable: bool,
}

#[derive(Clone, Debug)]
enum Asked {
    Piece(Vec<u64>, Vec<Option<Cell>>),
    Flush(BTreeMap<u64, usize>, Vec<LayerId>),
    Snapshot(LayerId),
}

struct World {
    dice: Dice,
    disk: Disk,
    owner: Owner,
    epoch: u32,
    next: u64,
    pasts: BTreeMap<u64, Past>,
    snapshots: Vec<Snapshot>,
    layers: u8,
    asked: HashMap<Ticket, Asked>,
    /// What a sync that is under way covers.
    syncing: Option<usize>,
    quiescing: Vec<Place>,
    refused: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let root = Opening::root_of_new(identity(1), BASE);
        let held = Held { cells: BTreeMap::new(), ring: BTreeMap::new(), root };
        let mut disk = Disk::new(held);
        Self {
            dice: Dice::new(seed),
            owner: open(&mut disk, 2),
            disk,
            epoch: 2,
            next: 0,
            pasts: BLOCKS.iter().map(|block| (*block, Past::fresh())).collect(),
            snapshots: Vec::new(),
            layers: 0,
            asked: HashMap::new(),
            syncing: None,
            quiescing: Vec::new(),
            refused: 0,
        }
    }

    fn step(&mut self) {
        match self.dice.below(24) {
            0..6 => self.write(),
            6..8 => self.zero(),
            8..19 => self.complete(),
            19 => self.flush(),
            20 => self.sync_ends(),
            21 if self.dice.one_in(20) => self.snapshot(),
            22 => self.quiet(),
            _ => self.check(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Blocks one behind the other, of one extent, of which none has anything under way.
    fn range(&mut self) -> Option<Vec<u64>> {
        let first = BLOCKS[self.dice.below(BLOCKS.len())];
        let most = 1 + self.dice.below(4) as u64;
        let is_next = |block: &u64| BLOCKS.contains(block) && block / 16 == first / 16;
        let range: Vec<u64> = (first..first + most).take_while(is_next).collect();
        let is_busy = |block: &u64| {
            let pieces = self.asked.values();
            pieces.into_iter().any(|it| matches!(it, Asked::Piece(all, _) if all.contains(block)))
        };
        (!range.iter().any(is_busy)).then_some(range)
    }

    fn begins(&mut self, ticket: Ticket, range: Vec<u64>, values: Vec<Option<Cell>>) {
        for (block, value) in range.iter().zip(&values) {
            self.pasts.get_mut(block).unwrap().values.push(value.clone());
        }
        self.asked.insert(ticket, Asked::Piece(range, values));
    }

    fn write(&mut self) {
        let Some(range) = self.range() else { return };
        let ticket = self.ticket();
        let version = self.next;
        let cells: Vec<Cell> = range.iter().map(|&block| Cell::Data { block, version }).collect();
        let sums = cells.iter().map(Cell::sum).collect();
        let first = range[0];
        self.begins(ticket, range, cells.into_iter().map(Some).collect());
        let orders = self.owner.write(ticket, first, sums);
        self.carry_out(orders);
    }

    fn zero(&mut self) {
        let Some(range) = self.range() else { return };
        let ticket = self.ticket();
        let (first, count) = (range[0], range.len());
        self.begins(ticket, range, vec![None; count]);
        let orders = self.owner.zero(ticket, first, count as u64);
        self.carry_out(orders);
    }

    fn flush(&mut self) {
        let ticket = self.ticket();
        let answered = self.pasts.iter().map(|(block, past)| (*block, past.answered)).collect();
        let snapshots = self.snapshots.iter().map(|snapshot| snapshot.top).collect();
        self.asked.insert(ticket, Asked::Flush(answered, snapshots));
        let orders = self.owner.flush(ticket);
        self.carry_out(orders);
    }

    fn snapshot(&mut self) {
        let is_under_way = self.asked.values().any(|asked| matches!(asked, Asked::Snapshot(_)));
        if is_under_way || self.snapshots.len() >= SNAPSHOTS_MAX {
            return;
        }
        self.layers += 1;
        let (ticket, top) = (self.ticket(), [self.layers; 16]);
        self.asked.insert(ticket, Asked::Snapshot(top));
        let orders = self.owner.snapshot(ticket, top);
        self.carry_out(orders);
    }

    fn quiet(&mut self) {
        if self.quiescing.is_empty() {
            return;
        }
        let index = self.dice.below(self.quiescing.len());
        let place = self.quiescing.remove(index);
        let orders = self.owner.quiet(place);
        self.carry_out(orders);
    }

    fn sync_ends(&mut self) {
        let Some(covers) = self.syncing.take() else { return };
        self.disk.synced(covers);
        let orders = self.owner.synced();
        self.carry_out(orders);
    }

    fn complete(&mut self) {
        if self.disk.in_flight.is_empty() {
            return;
        }
        let index = self.dice.below(self.disk.in_flight.len());
        let orders = match self.disk.complete(index) {
            Tell::Data(ticket) if self.is_on_its_way(ticket) => Vec::new(),
            Tell::Data(ticket) => self.owner.data_written(ticket),
            Tell::Journal(number) => self.owner.journal_written(number),
            Tell::Page => self.owner.page_written(),
            Tell::Root => self.owner.root_written(),
        };
        self.carry_out(orders);
    }

    fn is_on_its_way(&self, ticket: Ticket) -> bool {
        let mut in_flight = self.disk.in_flight.iter();
        in_flight.any(|(tell, _)| matches!(tell, Tell::Data(other) if *other == ticket))
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        for order in orders {
            let mut puts = Vec::new();
            match order {
                Order::Data { ticket, at } => {
                    let Some(Asked::Piece(_, values)) = self.asked.get(&ticket) else { panic!() };
                    for (index, cell) in (0..).zip(values) {
                        let spot = Spot { block: at.block + index, ..at };
                        puts.push((Tell::Data(ticket), Put::Cell(spot, cell.clone().unwrap())));
                    }
                }
                Order::Journal(Write { number, page }) => {
                    puts.push((Tell::Journal(number), Put::Journal(number, page)));
                }
                Order::Page { at, page } => {
                    puts.push((Tell::Page, Put::Cell(at, Cell::Page(page))))
                }
                Order::Root(root) => puts.push((Tell::Root, Put::Root(root))),
                Order::Sync => self.syncing = Some(self.disk.unsynced.len()),
                Order::Quiesce { place } => self.quiescing.push(place),
                Order::Answer { ticket, done } => self.answered(ticket, done),
            }
            puts.into_iter().for_each(|(tell, put)| self.disk.issue(tell, put));
        }
    }

    fn answered(&mut self, ticket: Ticket, done: Result<(), Refusal>) {
        match self.asked.remove(&ticket).unwrap() {
            Asked::Piece(range, _) => {
                for block in range {
                    let past = self.pasts.get_mut(&block).unwrap();
                    match done {
                        Ok(()) => past.answered = past.values.len() - 1,
                        Err(_) => drop(past.values.pop()),
                    }
                }
                self.refused += usize::from(done.is_err());
            }
            Asked::Flush(answered, snapshots) => {
                for (block, at) in answered {
                    let past = self.pasts.get_mut(&block).unwrap();
                    past.floor = past.floor.max(at);
                }
                for snapshot in &mut self.snapshots {
                    if snapshots.contains(&snapshot.top) {
                        snapshot.is_durable = true;
                        snapshot.pasts.values_mut().for_each(|past| past.floor = past.answered);
                    }
                }
            }
            Asked::Snapshot(top) => {
                // What waits has not begun, and comes behind the snapshot.
                let mut pasts = self.pasts.clone();
                pasts.values_mut().for_each(|past| past.values.truncate(past.answered + 1));
                self.snapshots.push(Snapshot { top, pasts, is_durable: false });
            }
        }
    }

    fn crash(&mut self, power: bool) {
        match power {
            true => self.disk.lose_power(&mut self.dice),
            false => self.disk.kill(&mut self.dice),
        }
        self.asked.clear();
        self.syncing = None;
        self.quiescing.clear();
        self.epoch += 1;
        self.owner = open(&mut self.disk, self.epoch);
        let ids: Vec<LayerId> = self.owner.layers().ids().collect();
        self.snapshots.retain(|snapshot| {
            let is_there = ids.contains(&snapshot.top);
            assert!(is_there || power && !snapshot.is_durable, "a snapshot is gone");
            is_there
        });
        for block in BLOCKS {
            let read = read(&self.owner, &self.disk, 0, block);
            self.pasts.get_mut(&block).unwrap().read(read, power, &format!("block {block}"));
            for snapshot in &mut self.snapshots {
                let layer = 1 + ids.iter().position(|id| *id == snapshot.top).unwrap();
                let read = self::read(&self.owner, &self.disk, layer, block);
                let past = snapshot.pasts.get_mut(&block).unwrap();
                past.read(read, power, &format!("block {block} below {:?}", snapshot.top[0]));
            }
        }
        self.snapshots.iter_mut().for_each(|snapshot| snapshot.is_durable = true);
        // One that was not answered may have been taken all the same.
        self.snapshots.retain(|snapshot| ids.contains(&snapshot.top));
        assert!(ids.len() <= 2 + self.layers as usize);
    }

    /// What is read without a crash is the last answered value, or one that is under way.
    fn check(&self) {
        let ids: Vec<LayerId> = self.owner.layers().ids().collect();
        for block in BLOCKS {
            let (read, past) = (read(&self.owner, &self.disk, 0, block), &self.pasts[&block]);
            assert!(past.values[past.answered..].contains(&read), "{block}: {read:?} of {past:?}");
            for snapshot in &self.snapshots {
                let layer = 1 + ids.iter().position(|id| *id == snapshot.top).unwrap();
                let read = self::read(&self.owner, &self.disk, layer, block);
                let past = &snapshot.pasts[&block];
                assert_eq!(read, past.values[past.answered], "{block} in a snapshot");
            }
        }
    }
}

fn read(owner: &Owner, disk: &Disk, layer: usize, block: u64) -> Option<Cell> {
    match owner.layers().look_from(layer, block, 1) {
        Run::Written { at, .. } => Some(disk.current.cells[&at].clone()),
        Run::Zero { .. } | Run::Absent { .. } => None,
    }
}

fn open(disk: &mut Disk, epoch: u32) -> Owner {
    disk.synced(disk.unsynced.len());
    let held = &disk.current;
    let mut opening = Opening::new(identity(epoch), held.root.clone());
    for (id, at) in opening.pages() {
        let Some(Cell::Page(page)) = held.cells.get(&at) else { panic!("no page at {at:?}") };
        opening.load(id, page).unwrap();
    }
    while let Some(page) = held.ring.get(&(opening.journal_page() % RING_PAGES_MIN))
        && opening.replay(page)
    {}
    let read = opening.read();
    let sum = |spot: Spot| held.cells.get(&spot).map_or(0, Cell::sum);
    let mut owner = read.open(&[SLAB], sum).unwrap();
    // Makes space scarce.
    let taken: BTreeSet<Place> = owner.layers().places().into_iter().collect();
    for extent in (EXTENTS as u32)..64 {
        let place = Place { slab: SLAB, extent };
        if !taken.contains(&place) {
            owner.space().claim(place);
        }
    }
    owner
}

fn run(seed: u64, steps: usize) -> (usize, usize) {
    let mut world = World::new(seed);
    let mut crashes = 0;
    for _ in 0..steps {
        if world.dice.one_in(60) {
            let power = world.dice.one_in(2);
            world.crash(power);
            crashes += 1;
        } else {
            world.step();
        }
    }
    (crashes, world.refused)
}

#[test]
fn nothing_answered_is_lost_over_crashes() {
    let (mut crashes, mut refused) = (0, 0);
    for seed in 0..25 {
        let (some, others) = run(seed, 1_500);
        crashes += some;
        refused += others;
    }
    assert!(crashes > 500 && refused > 0, "{crashes} crashes, {refused} refused");
}
