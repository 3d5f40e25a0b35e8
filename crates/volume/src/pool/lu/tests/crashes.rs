//! A load whose every sector is known, from two cores, over processes that are killed, disks that
//! lose power, and LUs that are closed and opened again. What may be read of a sector is what was
//! answered last or anything begun since; after a power loss, anything since the last flush.

mod users;

use std::collections::BTreeMap;
use std::sync::Mutex;

use block::Health;
use rt::sim::{Fault, Harm, On, Random};

use super::super::super::check::{Of, check};
use super::super::super::crash::{is_one_seed, loops, seeds};
use super::super::super::memory::{DEFAULT_BYTES, Memory};
use super::super::super::scrub::Cursor;
use super::*;
use users::{scrub_on, start_users};

const SECTOR: u64 = 512;
const LU_BYTES: u64 = 1 << 30;
/// What is used of the LU: of several pages of the map, and of one chunk and another.
const AREAS: [u64; 3] = [0, 100 << 20, 900 << 20];
const AREA_SECTORS: u64 = 512;
/// Layers that were ever made have names of their own.
const TOP: LayerId = [100; 16];
const OTHER: [u8; 16] = [101; 16];
const PATHS: [&str; 2] = ["/dev/disk", "/dev/other"];
/// What an LU is brought from. It ends in the middle of the second area, and of a block.
const SOURCE: &str = "/dev/source";
const SOURCE_BYTES: u64 = AREAS[1] + AREA_SECTORS / 2 * SECTOR + SECTOR;
/// Of the extents there one in so many has something.
const SOURCE_FILLED: u64 = 16;
/// What is there.
const SOURCE_VALUE: u64 = 1;
/// Processes of a world.
const ROUNDS: u32 = 12;
/// Times that a scrub may fail which compares copies.
const SCRUBS_MAX: u32 = 20;
/// Time for what is in doubt. Where disks fail that may be left for later.
const SETTLING_MS: u32 = 50;
/// Memory for two pages of maps; all that are used are three times as many for each layer.
const TWO_PAGES: usize = 17 << 10;

#[derive(Clone, Debug)]
struct Past {
    values: Vec<u64>,
    floor: usize,
    answered: usize,
}

impl Past {
    fn may_be(&self, value: u64, from: usize) -> bool {
        self.values[from..].contains(&value)
    }

    fn found(&mut self, value: u64, power: bool, what: &str) {
        let from = if power { self.floor } else { self.answered };
        assert!(self.may_be(value, from), "{what} is {value}, of {self:?}, {power}");
        *self = Self { values: vec![value], floor: 0, answered: 0 };
    }

    /// It is this from now on, as far as power does not fail.
    fn is_now(&mut self, value: u64, what: &str) {
        let found = self.values[self.answered..].iter().position(|it| *it == value);
        let found = found.unwrap_or_else(|| panic!("{what} is {value}, of {self:?}"));
        self.answered += found;
        self.values.truncate(self.answered + 1);
    }
}

/// Everything that is known of the LU, from outside of the world.
#[derive(Default)]
struct Model {
    sectors: BTreeMap<u64, Past>,
    /// Sectors with something under way.
    busy: BTreeMap<u64, ()>,
    last: u64,
    users: u64,
    reopened: u32,
    lost: u64,
    returned: u64,
    /// A disk may fail in everything: what only it has cannot be used.
    is_dying: bool,
    /// The LU stays open.
    is_pausing: bool,
    /// Its users rest in between.
    is_slow: bool,
    snapshots: BTreeMap<LayerId, Snapshot>,
    /// Those that are being let go: for as long as the LU does not know that.
    going: BTreeMap<LayerId, Snapshot>,
    layers: u64,
    /// Layers that nobody needs.
    doomed: Vec<LayerId>,
    /// Nobody begins anything.
    is_still: bool,
    answered: u64,
    failed: u64,
    deleted: u64,
    rolled_back: u64,
    /// Slabs that went to the other disk.
    moved: u64,
    /// Slabs of copies that were brought up to date.
    mended: u64,
    /// Looks at all that the copies have.
    compared: u64,
    /// Extents that were looked at while they were used, and found good.
    scrubbed: u64,
    /// Bytes of maps that left memory while an LU was open.
    let_go: u64,
    /// Times that it was opened again where it had failed.
    healed: u64,
    /// Times that some of the LU was brought from its source, and could not be.
    brought: u64,
    /// It is brought.
    is_whole: bool,
}

/// What a snapshot may read.
struct Snapshot {
    sectors: BTreeMap<u64, Past>,
    is_durable: bool,
}

type Shared = Arc<Mutex<Model>>;

impl Model {
    fn new(is_brought: bool) -> Shared {
        let fresh = |sector| {
            let value = if is_brought { source_value(sector) } else { 0 };
            (sector, Past { values: vec![value], floor: 0, answered: 0 })
        };
        let sectors = AREAS
            .iter()
            .flat_map(|area| (area / SECTOR..area / SECTOR + AREA_SECTORS).map(fresh))
            .collect();
        Arc::new(Mutex::new(Self {
            sectors,
            last: SOURCE_VALUE,
            is_whole: !is_brought,
            ..Self::default()
        }))
    }

    fn is_busy(&self, first: u64, count: u64) -> bool {
        self.is_still || self.busy.range(first..first + count).next().is_some()
    }

    fn next_layer(&mut self) -> LayerId {
        self.layers += 1;
        let mut layer = TOP;
        layer[..8].copy_from_slice(&self.layers.to_le_bytes());
        layer
    }

    /// What sectors of a snapshot that began then, and has come about, may be.
    fn snapshot_since(&self, since: &BTreeMap<u64, Past>) -> Snapshot {
        let sectors = since.iter().map(|(sector, then)| {
            let values = self.sectors[sector].values[then.floor..].to_vec();
            (*sector, Past { values, floor: 0, answered: then.answered - then.floor })
        });
        Snapshot { sectors: sectors.collect(), is_durable: false }
    }

    fn begin(&mut self, first: u64, count: u64, value: Option<u64>) {
        for sector in first..first + count {
            self.busy.insert(sector, ());
            if let Some(value) = value {
                self.sectors.get_mut(&sector).unwrap().values.push(value);
            }
        }
    }

    fn end(&mut self, first: u64, count: u64, changed: bool) {
        for sector in first..first + count {
            self.busy.remove(&sector);
            if changed {
                let past = self.sectors.get_mut(&sector).unwrap();
                past.answered = past.values.len() - 1;
            }
        }
    }

    /// What a flush that begins now covers.
    fn covered(&self) -> Vec<(u64, usize)> {
        self.sectors.iter().map(|(sector, past)| (*sector, past.answered)).collect()
    }

    fn snapshots_flushed(&mut self, layers: &[LayerId]) {
        for layer in layers {
            let Some(snapshot) = self.snapshots.get_mut(layer) else { continue };
            snapshot.is_durable = true;
            snapshot.sectors.values_mut().for_each(|past| past.floor = past.answered);
        }
    }

    fn flushed(&mut self, covered: Vec<(u64, usize)>) {
        for (sector, at) in covered {
            let past = self.sectors.get_mut(&sector).unwrap();
            past.floor = past.floor.max(at);
        }
    }

    /// What was read after a crash: it must be legal, and is what there is from now on.
    fn found(&mut self, sector: u64, value: u64, power: bool) {
        self.sectors.get_mut(&sector).unwrap().found(value, power, &format!("sector {sector}"));
    }
}

/// What a sector has in the source.
fn source_value(sector: u64) -> u64 {
    let is_area =
        AREAS.iter().any(|area| (0..AREA_SECTORS).contains(&(sector - sector.min(area / SECTOR))));
    let is_there = sector < SOURCE_BYTES / SECTOR && !(sector / 8).is_multiple_of(4);
    if is_there && (is_area || (sector / 128).is_multiple_of(SOURCE_FILLED)) {
        SOURCE_VALUE
    } else {
        0
    }
}

/// A sector says who it is and what was written: nothing else is taken for it.
fn fill(bytes: &mut [u8], first: u64, value: u64) {
    for (sector, bytes) in (first..).zip(bytes.chunks_mut(SECTOR as usize)) {
        let word = if value == 0 { 0 } else { value << 24 | sector };
        bytes.chunks_mut(8).for_each(|place| place.copy_from_slice(&word.to_le_bytes()));
    }
}

/// What sectors hold.
fn values(bytes: &[u8], first: u64) -> Vec<u64> {
    let value = |(sector, bytes): (u64, &[u8])| {
        let word = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let is_whole = bytes.chunks(8).all(|place| place == word.to_le_bytes());
        let is_own = word == 0 || word & 0xff_ffff == sector;
        assert!(is_whole && is_own, "sector {sector} holds {word:x}, whole: {is_whole}");
        word >> 24
    };
    (first..).zip(bytes.chunks(SECTOR as usize)).map(value).collect()
}

/// Every sector that is used, with what it holds.
async fn read_all(device: &Rc<dyn Device>) -> Result<Vec<(u64, u64)>, Error> {
    let mut all = Vec::new();
    for area in AREAS {
        let buffer = Buffer::from_bytes(&vec![0xee; (AREA_SECTORS * SECTOR) as usize]);
        device.io(&Request::read(area, buffer.sgl())).await?;
        let first = area / SECTOR;
        all.extend((first..).zip(values(&buffer.to_vec(), first)));
    }
    Ok(all)
}

/// What is there of layers after a crash: every snapshot that must be, and what nobody needs.
async fn look_at_layers(
    core: &Core,
    lu: &Arc<Lu>,
    model: &Shared,
    power: bool,
) -> Result<(), Error> {
    let layers = lu.layers().await?;
    let frozen: BTreeMap<LayerId, bool> =
        layers.into_iter().filter_map(|it| Some((it.id, it.frozen?.is_going))).collect();
    {
        let mut model = model.lock().unwrap();
        model.snapshots.retain(|layer, snapshot| {
            let is_going = frozen.get(layer).copied();
            assert!(is_going != Some(true), "a snapshot is being let go");
            assert!(is_going.is_some() || power && !snapshot.is_durable, "a snapshot is gone");
            is_going.is_some()
        });
        let unneeded = frozen.keys().filter(|layer| !model.snapshots.contains_key(*layer));
        model.doomed = unneeded.copied().collect();
        model.is_still = false;
    }
    for (layer, is_going) in frozen {
        if is_going {
            assert!(lu.view(layer).await.is_err(), "what is being let go is no snapshot");
            continue;
        }
        let view = lu.view(layer).await?;
        let read = read_all(&view.device(core)).await?;
        let mut guard = model.lock().unwrap();
        let Model { snapshots, going, .. } = &mut *guard;
        let known = snapshots.get_mut(&layer).or_else(|| going.get_mut(&layer));
        let Some(snapshot) = known else { continue };
        for (sector, value) in read {
            let past = snapshot.sectors.get_mut(&sector).unwrap();
            past.found(value, power, &format!("sector {sector} of a snapshot"));
        }
        snapshot.is_durable = true;
    }
    Ok(())
}

/// The disks of the pool, in any order.
async fn disks(core: &Core) -> Vec<Arc<dyn Backing>> {
    let mut disks = Vec::new();
    for path in PATHS.iter().rev() {
        disks.push(backing(core, Path::new(path), true).await);
    }
    disks
}

/// A process that opens the pool, looks at every sector, and then uses the LU until it is killed.
async fn live(core: Core, (other, model): (Remote, Shared), power: bool, memory: usize, seed: u64) {
    let disks = disks(&core).await;
    let mut report = check(&core, disks.clone(), |_| ()).await;
    // Of one that was being made nobody but whoever asked for it knows that it is none.
    report.findings.retain(|it| !matches!(it.of, Of::Lu { id: OTHER, .. }));
    assert!(!report.is_damaged(), "{report:?}");
    let pool = Pool::open(&core, disks).await.unwrap();
    let memory = Arc::new(Memory::new(memory));
    pool.keep_maps_in(memory.clone());
    let lu = open(&core, &pool).await.unwrap();
    look(&core, &lu, &model, power).await.unwrap();
    look_elsewhere(&core, (&pool, &lu), &model).await.unwrap();
    start_users(&core, &lu, &model, seed);
    let (remote, shared, opened) = (other.clone(), model.clone(), lu.clone());
    other.send(move |core| start_users(core, &opened, &shared, seed + 1));
    let random = Random::new(seed + 2);
    core.spawn(reopen(core.clone(), (remote, model), (pool, lu), memory, random));
}

/// Closes the LU now and then, the pool sometimes too, and opens them again.
async fn reopen(
    core: Core,
    (other, model): (Remote, Shared),
    (mut pool, mut lu): (Rc<Pool>, Arc<Lu>),
    memory: Arc<Memory>,
    mut random: Random,
) {
    let mut swept = 0;
    loop {
        core.sleep(Duration::from_micros(100 + random.below(40_000))).await;
        if model.lock().unwrap().is_pausing {
            continue;
        }
        let seat = pool.seat(LU).map(drop);
        assert!(
            matches!(seat, Err(LuError::Pool(PoolError::Open(LU)))),
            "{seat:?} {:?}",
            pool.granted(LU).map(|it| it.stale)
        );
        assert!(matches!(pool.close().await, Err(PoolError::Open(LU))));
        model.lock().unwrap().let_go += memory.swept() - swept;
        swept = memory.swept();
        come_and_go(&core, &pool, &model).await;
        lu.close().await;
        drop(lu);
        while model.lock().unwrap().users > 0 {
            core.sleep(Duration::from_micros(50)).await;
        }
        if random.coin() {
            pool.close().await.unwrap();
            drop(pool);
            let found = Pool::find(&core, disks(&core).await).await;
            let Some(found) = unless_dying(&model, found) else { return };
            assert_eq!((found.id(), found.name(), found.labels().count()), (POOL, "pool", 2));
            // Some writes fail.
            let Ok(opened) = found.open(0).await else { return };
            pool = opened;
            pool.keep_maps_in(memory.clone());
        }
        // Where the only good copy is on a disk that is lost, the LU waits for that.
        while pool.seat(LU).is_err() {
            take_back(&core, &pool, &model).await;
        }
        let described = pool.describe_lu(LU).await;
        let Some(described) = unless_dying(&model, described) else { return };
        assert!(described.source.is_none() || !model.lock().unwrap().is_whole);
        assert_eq!(About { source: None, ..described }, about(LU_BYTES, 512));
        let Some(opened) = unless_dying(&model, open(&core, &pool).await) else { return };
        lu = opened;
        let looked = match look(&core, &lu, &model, false).await {
            Ok(()) => look_elsewhere(&core, (&pool, &lu), &model).await,
            failed => failed,
        };
        // Some writes fail, and the LU with them: then there is more to look at after the crash.
        if looked.is_err() && lu.health() == Health::Failed {
            return;
        }
        let Some(()) = unless_dying(&model, looked) else { return };
        let seed = random.below(1 << 40);
        model.lock().unwrap().reopened += 1;
        start_users(&core, &lu, &model, seed);
        let (model, lu) = (model.clone(), lu.clone());
        other.send(move |core| start_users(core, &lu, &model, seed + 1));
    }
}

/// Another LU is made and removed: nothing of it is in the way of the one that is looked at. Disks
/// that cannot be written meanwhile are lost, and taken back when they can.
async fn come_and_go(core: &Core, pool: &Rc<Pool>, model: &Shared) {
    let about = about(64 << 20, 512);
    let _ = pool.create_lu(NewLu { id: OTHER, layer: OTHER, about }).await;
    let _ = pool.revoke(OTHER).await;
    model.lock().unwrap().lost += pool.lost().len() as u64;
    take_back(core, pool, model).await;
}

async fn take_back(core: &Core, pool: &Rc<Pool>, model: &Shared) {
    core.sleep(Duration::from_millis(1)).await;
    for lost in pool.lost() {
        let is_back = pool.rejoin(lost.disk).await.is_ok();
        model.lock().unwrap().returned += u64::from(is_back);
    }
}

fn unless_dying<T, E: std::fmt::Debug>(model: &Shared, done: Result<T, E>) -> Option<T> {
    assert!(done.is_ok() || model.lock().unwrap().is_dying, "{:?}", done.err());
    done.ok()
}

/// Opens the LU; over its source, if it has one.
async fn open(core: &Core, pool: &Rc<Pool>) -> Result<Arc<Lu>, LuError> {
    let seat = pool.seat(LU)?;
    let seat = match pool.describe_lu(LU).await?.source {
        Some(_) => seat.over(backing(core, Path::new(SOURCE), true).await),
        None => seat,
    };
    Lu::open(core, seat).await
}

/// Reads every sector.
async fn look(core: &Core, lu: &Arc<Lu>, model: &Shared, power: bool) -> Result<(), Error> {
    let device = lu.device(core);
    for (sector, value) in read_all(&device).await? {
        model.lock().unwrap().found(sector, value, power);
    }
    look_at_layers(core, lu, model, power).await
}

/// Where there are other copies they have the same, as soon as what a crash has left in doubt is
/// settled. Nothing is changed for that: what is missed meanwhile is to be known as ever.
async fn look_elsewhere(
    core: &Core,
    (pool, lu): (&Rc<Pool>, &Arc<Lu>),
    model: &Shared,
) -> Result<(), Error> {
    if pool.groups().len() == 1 {
        return Ok(());
    }
    let (slabs, places) = (pool.granted(LU).unwrap().slabs, &pool.shared.places);
    let mut left = 0..SETTLING_MS;
    while slabs.iter().any(|slab| places.is_doubtful(*slab)) && left.next().is_some() {
        core.sleep(Duration::from_millis(1)).await;
    }
    let (mut next, mut random) = (Some(Cursor::default()), Random::new(0));
    let mut left = 0..SCRUBS_MAX;
    while let Some(from) = next {
        match scrub_on(lu, model, from, &mut random).await {
            Ok(further) => next = further,
            // A page of checksums that a crash has torn is written anew, and some writes fail.
            Err(error) if left.next().is_none() => return Err(error),
            Err(_) => {}
        }
    }
    model.lock().unwrap().compared += 1;
    Ok(())
}

/// What a world of one seed comes to: kills and power losses, requests answered and failed.
#[derive(Debug, Default)]
struct Tally {
    kills: u32,
    losses: u32,
    answered: u64,
    failed: u64,
    reopened: u32,
    lost: u64,
    returned: u64,
    deleted: u64,
    rolled_back: u64,
    moved: u64,
    mended: u64,
    compared: u64,
    scrubbed: u64,
    let_go: u64,
    healed: u64,
    brought: u64,
    whole: u32,
}

impl Tally {
    /// What was to happen has happened.
    fn must(&self, have: impl Fn(&Self) -> bool) {
        println!("{self:?}");
        assert!(is_one_seed() || have(self));
    }
}

/// What a world is like.
#[derive(Clone, Copy)]
struct Kind {
    /// Of the two disks.
    groups: [u16; 2],
    /// Bytes for maps.
    memory: usize,
    /// The pool keeps checksums.
    has_sums: bool,
    /// The LU is brought from a disk that has something.
    is_brought: bool,
    /// Disks fail for so long that the LU does, and can be used again.
    has_pauses: bool,
}

const PLAIN: Kind = Kind {
    groups: [0, 0],
    memory: DEFAULT_BYTES,
    has_sums: false,
    is_brought: false,
    has_pauses: false,
};

/// A disk that is not one of the pool.
async fn make_source(core: &Core) -> Source {
    let disk = backing(core, Path::new(SOURCE), true).await.device(core);
    for first in (0..SOURCE_BYTES / SECTOR).step_by(8) {
        let mut bytes = vec![0; 8 * SECTOR as usize];
        for (sector, bytes) in (first..).zip(bytes.chunks_mut(SECTOR as usize)) {
            fill(bytes, sector, source_value(sector));
        }
        let len = bytes.len().min((SOURCE_BYTES - first * SECTOR) as usize);
        if bytes.iter().any(|byte| *byte != 0) {
            let buffer = Buffer::from_bytes(&bytes[..len]);
            disk.io(&Request::write(first * SECTOR, buffer.sgl())).await.unwrap();
        }
    }
    disk.io(&Request::flush()).await.unwrap();
    Source { size: SOURCE_BYTES, name: SOURCE.to_owned() }
}

fn world(seed: u64, kind: Kind, tally: &mut Tally) {
    let Kind { groups, memory, has_sums, is_brought, has_pauses } = kind;
    let mut random = Random::new(seed ^ 0x0c4a_5400);
    let world = World::new(seed, Options::swarm(seed));
    let (host, model) = (world.host("host"), Model::new(is_brought));
    let all = PATHS.map(|path| {
        let disk = world.disk(DISK_BYTES);
        disk.attach(&host, path);
        disk
    });
    if is_brought {
        world.disk(SOURCE_BYTES).attach(&host, SOURCE);
    }
    let core = host.core();
    let made = world.block_on(&core, |core| async move {
        let disks = disks(&core).await.into_iter().zip([[8; 16], [9; 16]]).zip(groups);
        let new = |((backing, pv), group)| NewDisk { backing, pv, group };
        let disks = disks.map(new).collect();
        let new = if has_sums { new_pool_with_sums() } else { new_pool() };
        let pool = Pool::format(&core, new, disks).await.unwrap();
        let source = if is_brought { Some(make_source(&core).await) } else { None };
        let about = About { source, ..about(LU_BYTES, 512) };
        pool.create_lu(NewLu { id: LU, layer: BASE, about }).await.map(drop).unwrap();
    });
    made.unwrap();
    let mut power = false;
    // These take longer.
    let rounds = if has_pauses { ROUNDS / 2 } else { ROUNDS };
    for round in 0..rounds {
        crash(&world, &host, &all, power);
        all.iter().for_each(Disk::heal);
        {
            let mut model = model.lock().unwrap();
            model.busy.clear();
            (model.is_dying, model.is_pausing, model.is_slow) = (false, false, false);
        }
        let (core, other) = (host.core(), host.core().remote());
        let (shared, seed) = (model.clone(), seed << 16 | u64::from(round) << 2);
        let lives = world.block_on(&core, |core| live(core, (other, shared), power, memory, seed));
        lives.expect("it opens");
        trouble(&world, kind, (&all, &model), &mut random);
        power = random.coin();
        *(if power { &mut tally.losses } else { &mut tally.kills }) += 1;
    }
    let model = model.lock().unwrap();
    tally.answered += model.answered;
    tally.failed += model.failed;
    tally.reopened += model.reopened;
    tally.lost += model.lost;
    tally.returned += model.returned;
    tally.deleted += model.deleted;
    tally.rolled_back += model.rolled_back;
    tally.moved += model.moved;
    tally.mended += model.mended;
    tally.compared += model.compared;
    tally.scrubbed += model.scrubbed;
    tally.let_go += model.let_go;
    tally.healed += model.healed;
    tally.brought += model.brought;
    tally.whole += u32::from(model.is_whole);
}

/// Runs for a while, in which disks may fail.
fn trouble(world: &World, kind: Kind, (all, model): (&[Disk], &Shared), random: &mut Random) {
    let Kind { groups, has_pauses, .. } = kind;
    // What one copy misses the other one has.
    let faults_apart = if groups[0] == groups[1] { 4 } else { 2 };
    if random.below(faults_apart) == 0 {
        let harm = Harm::Errno(5);
        random.pick(all).fault(Fault { ppm: 40_000, ..Fault::always(On::Write, harm) });
    }
    let longest = if random.below(6) == 0 { 300_000 } else { 60_000 };
    world.run_for(Duration::from_micros(200 + random.below(longest)));
    if groups[0] != groups[1] && random.below(4) == 0 {
        model.lock().unwrap().is_dying = true;
        die_for_a_while(world, random.pick(all), random);
    }
    if has_pauses {
        fail_for_a_while(world, (all, model), random);
    }
}

/// Nothing can be read or written there; the crash comes before it is over, or behind.
fn die_for_a_while(world: &World, disk: &Disk, random: &mut Random) {
    disk.fault(Fault::always(On::Any, Harm::Errno(5)));
    world.run_for(Duration::from_micros(random.below(400_000)));
    if random.coin() {
        disk.heal();
        world.run_for(Duration::from_micros(random.below(100_000)));
    }
}

/// Nothing of one kind can be done, for long enough that the LU fails; then everything can.
fn fail_for_a_while(world: &World, (all, model): (&[Disk], &Shared), random: &mut Random) {
    model.lock().unwrap().is_slow = true;
    world.run_for(Duration::from_millis(200));
    {
        let mut model = model.lock().unwrap();
        (model.is_dying, model.is_pausing) = (true, true);
    }
    let on = *random.pick(&[On::Write, On::Sync, On::Any]);
    for disk in if random.coin() { all } else { &all[..1] } {
        disk.fault(Fault::always(on, Harm::Errno(5)));
    }
    let micros = random.below(1_200_000);
    // Until those have given up as well who say of a copy that it has missed something.
    let times = if micros.is_multiple_of(8) { 16 } else { 1 };
    world.run_for(Duration::from_micros(micros * times));
    all.iter().for_each(Disk::heal);
    world.run_for(Duration::from_micros(random.below(400_000)));
}

#[test]
fn what_is_answered_survives() {
    let mut tally = Tally::default();
    for seed in seeds(8, &[]) {
        world(seed, PLAIN, &mut tally);
    }
    tally.must(|it| it.kills > 10 && it.losses > 10 && it.reopened > 5);
    tally.must(|it| it.answered > 1_000 && it.failed > 0 && it.deleted > 0 && it.moved > 10);
    tally.must(|it| it.rolled_back > 0 || loops() == 1);
    tally.must(|it| it.scrubbed > 10);
}

#[test]
fn two_copies_never_differ_in_what_is_read() {
    let mut tally = Tally::default();
    for seed in seeds(8, &[301, 1095, 1120, 1446, 60072, 81221, 83026]) {
        world(seed, Kind { groups: [0, 1], ..PLAIN }, &mut tally);
    }
    tally.must(|it| it.kills > 10 && it.losses > 10 && it.reopened > 5);
    tally.must(|it| it.answered > 1_000 && it.mended > 0 && it.compared > 10);
    tally.must(|it| it.lost > 0 && it.returned > 0 || loops() == 1);
    tally.must(|it| it.scrubbed > 10);
}

#[test]
fn what_is_answered_survives_with_little_memory() {
    let mut tally = Tally::default();
    for seed in seeds(4, &[110493, 320329]) {
        world(seed, Kind { memory: TWO_PAGES, ..PLAIN }, &mut tally);
    }
    tally.must(|it| it.kills > 5 && it.losses > 5 && it.reopened > 3);
    tally.must(|it| it.answered > 500 && it.let_go > 1 << 20);
    tally.must(|it| it.scrubbed > 10);
}

/// A sum that is not that of its block would be an error.
#[test]
fn checksums_are_those_of_what_is_there() {
    let mut tally = Tally::default();
    let kept = [11, 1085, 1106, 1169, 20086, 40040, 80459, 80571, 84901, 86175, 310913, 1500735];
    for seed in seeds(8, &kept) {
        let groups = if seed % 2 == 0 { [0, 0] } else { [0, 1] };
        world(seed, Kind { groups, has_sums: true, ..PLAIN }, &mut tally);
    }
    tally.must(|it| it.kills > 10 && it.losses > 10 && it.reopened > 5);
    tally.must(|it| it.answered > 1_000 && it.moved > 0 && it.mended > 0 && it.compared > 0);
    tally.must(|it| it.scrubbed > 10);
}

/// What was there before the LU was in the pool is the first thing that was ever written to it.
#[test]
fn an_lu_that_is_brought_has_what_it_had_and_what_was_written_since() {
    let mut tally = Tally::default();
    for seed in seeds(6, &[]) {
        let groups = if seed % 3 == 0 { [0, 1] } else { [0, 0] };
        let memory = if seed % 4 == 1 { TWO_PAGES } else { DEFAULT_BYTES };
        let kind = Kind { groups, memory, has_sums: seed % 3 == 1, is_brought: true, ..PLAIN };
        world(seed, kind, &mut tally);
    }
    tally.must(|it| it.kills > 10 && it.losses > 10);
    tally.must(|it| it.answered > 500 && it.brought > 50);
}

#[test]
fn an_lu_that_has_failed_goes_on_with_what_was_answered() {
    let mut tally = Tally::default();
    for seed in seeds(3, &[170094, 170151]) {
        let groups = if seed % 4 == 3 { [0, 1] } else { [0, 0] };
        let memory = if seed % 5 == 1 { 8 * TWO_PAGES } else { DEFAULT_BYTES };
        let (has_sums, is_brought) = (seed % 3 == 1, seed % 7 == 1);
        world(seed, Kind { groups, memory, has_sums, is_brought, has_pauses: true }, &mut tally);
    }
    tally.must(|it| it.kills > 2 && it.losses > 2);
    tally.must(|it| it.answered > 500 && it.failed > 0 && it.healed > 0);
}
