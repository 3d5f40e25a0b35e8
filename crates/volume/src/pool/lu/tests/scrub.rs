//! Scrubbing: what has rotted is found and mended, and nothing else is ever said to have.

use std::collections::BTreeSet;
use std::sync::Mutex;

use rt::sim::{Fault, Harm, On, Random};

use super::super::super::check::{Finding, Severity, check, closed_lu};
use super::super::super::disks::Outcome;
use super::super::super::memory::Memory;
use super::super::super::scrub::{Cursor, Damage, Depth, Step};
use super::*;

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub next: Option<Cursor>,
    pub extents: u64,
    bytes: u64,
    damage: Vec<Damage>,
    findings: Vec<Finding>,
}

impl Found {
    /// Nothing but what a crash may have left of metadata.
    pub(super) fn is_good(&self) -> bool {
        self.damage.is_empty() && self.findings.iter().all(|it| it.severity == Severity::Mended)
    }
}

/// A step of any size.
pub(super) async fn scrub_some(
    lu: &Arc<Lu>,
    from: Cursor,
    random: &mut Random,
) -> Result<Found, Error> {
    let bytes = *random.pick(&[1, 100_000, 10 << 20]);
    let step = lu.scrub(from, (Depth::Everything, bytes)).await?;
    assert_ne!(step.next, Some(from), "it goes on");
    let Step { next, bytes, extents, damage, findings, .. } = step;
    Ok(Found { next, extents, bytes, damage, findings })
}

/// Walks over all of an LU, in steps of any size.
async fn scrub(lu: &Arc<Lu>, seed: u64) -> Found {
    let (mut random, mut all, mut cursor) =
        (Random::new(seed), Found::default(), Cursor::default());
    loop {
        let found = scrub_some(lu, cursor, &mut random).await.unwrap();
        all.damage.extend(found.damage);
        all.findings.extend(found.findings);
        all.extents += found.extents;
        all.bytes += found.bytes;
        match found.next {
            Some(next) => cursor = next,
            None => return all,
        }
    }
}

const PATHS: [&str; 2] = ["/dev/a", "/dev/b"];
const LU_BYTES: u64 = 64 << 20;
const BLOCKS: u64 = 300;
/// Blocks lie in as many extents as that, and some are neighbours.
const APART: u64 = 11;
const PIECE: usize = 1 << 20;

/// A pool that is open, with what its disks are.
struct Open {
    core: Core,
    host: Host,
    world: Rc<World>,
    disks: Vec<(Disk, Arc<dyn Backing>)>,
    pool: Rc<Pool>,
    lu: Arc<Lu>,
}

/// What a pool is like.
#[derive(Clone, Copy)]
struct Kind {
    groups: u16,
    has_sums: bool,
}

/// A block says who it is.
fn block_of(number: u64, value: u8) -> Vec<u8> {
    [number as u8, (number >> 8) as u8, value, !value].repeat(BLOCK_BYTES as usize / 4)
}

fn with_pool<F: Future<Output = ()> + 'static>(
    (seed, kind): (u64, Kind),
    f: impl FnOnce(Open) -> F + 'static,
) {
    let world = Rc::new(World::new(seed, Options::swarm(seed)));
    let (host, inside) = (world.host("host"), world.clone());
    let all: Vec<Disk> = PATHS[..usize::from(kind.groups)]
        .iter()
        .map(|path| {
            let disk = world.disk(DISK_BYTES / 4);
            disk.attach(&host, *path);
            disk
        })
        .collect();
    let first = host.core();
    let done = world.block_on(&first, |core| async move {
        let (mut disks, mut new) = (Vec::new(), Vec::new());
        for ((group, path), disk) in (0..).zip(PATHS).zip(all) {
            let backing = backing(&core, Path::new(path), true).await;
            new.push(NewDisk { backing: backing.clone(), pv: [group as u8 + 7; 16], group });
            disks.push((disk, backing));
        }
        let form = if kind.has_sums { new_pool_with_sums() } else { new_pool() };
        let pool = Pool::format(&core, form, new).await.unwrap();
        let lu = first_lu(&core, &pool, LU_BYTES).await;
        let open = Open { core, host, world: inside, disks, pool, lu };
        open.write(1).await;
        f(open).await;
    });
    done.expect("it ends");
}

impl Open {
    async fn write(&self, value: u8) {
        let device = self.lu.device(&self.core);
        for number in 0..BLOCKS {
            let data = Buffer::from_bytes(&block_of(number, value));
            let at = number * APART * BLOCK_BYTES;
            device.io(&Request::write(at, data.sgl())).await.unwrap();
        }
        device.io(&Request::flush()).await.unwrap();
    }

    /// The numbers of blocks that cannot be read; all others hold this.
    async fn lost(&self, value: u8) -> Vec<u64> {
        let (device, mut lost) = (self.lu.device(&self.core), Vec::new());
        for number in 0..BLOCKS {
            let into = Buffer::zeroed(BLOCK_BYTES as usize);
            match device.io(&Request::read(number * APART * BLOCK_BYTES, into.sgl())).await {
                Ok(_) => assert!(into.to_vec() == block_of(number, value), "block {number}"),
                Err(_) => lost.push(number),
            }
        }
        lost
    }

    /// Checkpoints, so that everything is where it belongs.
    async fn settle(&self) {
        for _ in 0..2 {
            self.lu.ask(|service| service.clone().describe(service.about())).await.unwrap();
        }
    }

    /// Where pages of a disk are that look like that.
    fn find(&self, disk: usize, is_it: impl Fn(&[u8]) -> bool) -> Vec<u64> {
        let (mut found, mut bytes) = (Vec::new(), vec![0; PIECE]);
        for at in (0..self.disks[disk].0.size()).step_by(PIECE) {
            self.disks[disk].0.read(at, &mut bytes);
            let pages = (at..).step_by(BLOCK_BYTES as usize).zip(bytes.chunks(4096));
            found.extend(pages.filter(|(_, page)| is_it(page)).map(|(at, _)| at));
        }
        found
    }

    /// Lets what lies there rot.
    fn spoil(&self, disk: usize, at: u64) {
        assert!(self.disks[disk].0.decay(at..at + BLOCK_BYTES));
    }

    /// Lets a block rot that holds this, also where it was before.
    fn spoil_block(&self, disk: usize, number: u64, value: u8) {
        let data = block_of(number, value);
        let all = self.find(disk, |page| page == data);
        assert!(!all.is_empty(), "block {number}");
        all.into_iter().for_each(|at| self.spoil(disk, at));
    }
}

/// The blocks of which this was found, by their numbers.
fn of(found: &Found, outcome: Outcome) -> Vec<(u64, Vec<&str>)> {
    let all = found.damage.iter().filter(|it| it.outcome == outcome);
    let numbers = all.flat_map(|it| {
        let disks: Vec<&str> = it.disks.iter().map(String::as_str).collect();
        (it.block..it.block + it.count).map(move |block| {
            assert!(block.is_multiple_of(APART), "{block}");
            (block / APART, disks.clone())
        })
    });
    numbers.collect()
}

fn said(found: &Found) -> Vec<(Severity, &str)> {
    found.findings.iter().map(|it| (it.severity, it.what.as_str())).collect()
}

const SAFE: Kind = Kind { groups: 2, has_sums: true };
const ALIKE: Kind = Kind { groups: 2, has_sums: false };
const SUMMED: Kind = Kind { groups: 1, has_sums: true };
const PLAIN: Kind = Kind { groups: 1, has_sums: false };

#[test]
fn rotten_blocks_are_mended_wherever_they_are() {
    with_pool((1, SAFE), |open| async move {
        let first = scrub(&open.lu, 1).await;
        assert!(first.is_good() && first.findings.is_empty(), "{first:?}");
        assert!(first.bytes > 2 * BLOCKS * BLOCK_BYTES, "both copies are read: {first:?}");
        let layer = open.lu.snapshot([50; 16]).await.unwrap();
        open.write(2).await;
        // Also where nobody reads: the second copy, and a snapshot.
        for (disk, number, value) in [(0, 3, 2), (1, 4, 2), (1, 200, 2), (1, 9, 1), (0, 299, 1)] {
            open.spoil_block(disk, number, value);
        }
        for disk in [0, 1] {
            open.spoil_block(disk, 77, 2);
        }
        let found = scrub(&open.lu, 2).await;
        let [a, b] = PATHS;
        let mended = vec![(9, vec![b]), (299, vec![a]), (3, vec![a]), (4, vec![b]), (200, vec![b])];
        let mut all = of(&found, Outcome::Mended);
        all.sort();
        assert_eq!(all, {
            let mut mended = mended;
            mended.sort();
            mended
        });
        assert_eq!(of(&found, Outcome::Lost), [(77, vec![a, b])]);
        assert_eq!((of(&found, Outcome::Differing), said(&found)), (vec![], vec![]));
        let of_snapshot = found.damage.iter().filter(|it| it.layer == layer);
        assert_eq!(of_snapshot.map(|it| it.block / APART).collect::<Vec<_>>(), [9, 299]);
        // Both copies have it again.
        for (number, value) in [(3, 2), (4, 2), (200, 2), (9, 1), (299, 1)] {
            for disk in [0, 1] {
                assert_eq!(open.find(disk, |page| page == block_of(number, value)).len(), 1);
            }
        }
        let again = scrub(&open.lu, 3).await;
        assert_eq!(of(&again, Outcome::Lost), [(77, vec![a, b])]);
        assert_eq!((again.damage.len(), said(&again)), (1, vec![]));
        assert_eq!(open.lost(2).await, [77]);
    });
}

/// Nobody can say which is right.
#[test]
fn copies_without_checksums_that_differ_stay_as_they_are() {
    with_pool((2, ALIKE), |open| async move {
        open.spoil_block(0, 3, 1);
        open.spoil_block(1, 4, 1);
        for round in 0..2 {
            let found = scrub(&open.lu, round).await;
            let both = PATHS.to_vec();
            assert_eq!(of(&found, Outcome::Differing), [(3, both.clone()), (4, both)]);
            assert_eq!((found.damage.len(), said(&found)), (2, vec![]));
        }
        for (disk, number) in [(1, 3), (0, 4)] {
            assert_eq!(open.find(disk, |page| page == block_of(number, 1)).len(), 1);
        }
    });
}

#[test]
fn what_cannot_be_read_at_one_place_is_written_anew() {
    for kind in [ALIKE, SAFE] {
        with_pool((3, kind), move |open| async move {
            let at = open.find(1, |page| page == block_of(5, 1))[0];
            let harm = Harm::Errno(5);
            // Until it is written, as disks do that have a spare sector.
            let bad = Fault { range: at..at + 4096, times: 2, ..Fault::always(On::Read, harm) };
            open.disks[1].0.fault(bad);
            let found = scrub(&open.lu, 1).await;
            assert_eq!(of(&found, Outcome::Mended), [(5, vec![PATHS[1]])]);
            assert_eq!((found.damage.len(), said(&found)), (1, vec![]));
            assert!(scrub(&open.lu, 2).await.damage.is_empty());
        });
    }
}

#[test]
fn what_cannot_be_read_is_noticed_in_a_pool_without_anything() {
    with_pool((4, PLAIN), |open| async move {
        let at = open.find(0, |page| page == block_of(5, 1))[0];
        let bad = Fault { range: at..at + 1, ..Fault::always(On::Read, Harm::Errno(5)) };
        open.disks[0].0.fault(bad);
        let found = scrub(&open.lu, 1).await;
        assert_eq!(of(&found, Outcome::Lost), [(5, vec![PATHS[0]])]);
        assert_eq!((found.damage.len(), open.lost(1).await), (1, vec![5]));
        open.disks[0].0.heal();
        assert!(scrub(&open.lu, 2).await.damage.is_empty());
        // A disk that is not there has not lost anything.
        open.disks[0].0.fault(Fault::always(On::Read, Harm::Errno(19)));
        let data = Cursor::Map { number: 0, layer: 0, extent: 1 };
        let gone = open.lu.scrub(data, (Depth::Everything, 1)).await;
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::Offline);
    });
}

/// Of each kind of page one rots in all copies; what is in memory is as good.
#[test]
fn metadata_is_written_anew_from_memory() {
    for kind in [PLAIN, SUMMED, SAFE] {
        with_pool((5, kind), move |open| async move {
            open.settle().await;
            open.write(2).await;
            assert!(scrub(&open.lu, 1).await.findings.is_empty());
            let sums = if kind.has_sums { &b"VDcs"[..] } else { &[] };
            let kinds = [&b"VDrh"[..], b"VDrb", b"VDmp", b"VDjl", sums];
            for (magic, number) in kinds.into_iter().zip(BLOCKS..).filter(|it| !it.0.is_empty()) {
                // So that something is in the journal too.
                let data = Buffer::from_bytes(&block_of(number, 2));
                let write = Request::write(number * APART * BLOCK_BYTES, data.sgl());
                open.lu.device(&open.core).io(&write).await.unwrap();
                for disk in 0..usize::from(kind.groups) {
                    for at in open.find(disk, |page| page.starts_with(magic)) {
                        open.spoil(disk, at);
                    }
                }
                let found = scrub(&open.lu, 2).await;
                let what = String::from_utf8_lossy(magic);
                assert!(found.is_good() && !found.findings.is_empty(), "{what}: {found:?}");
                let again = scrub(&open.lu, 3).await;
                assert!(again.findings.is_empty() && again.damage.is_empty(), "{what}: {again:?}");
            }
            assert!(open.lost(2).await.is_empty());
            let Open { core, disks, pool, lu, .. } = open;
            lu.close().await;
            drop(lu);
            pool.close().await.unwrap();
            let disks = disks.into_iter().map(|(_, backing)| backing).collect();
            let report = check(&core, disks, |_| ()).await;
            assert!(!report.is_damaged(), "{report:?}");
        });
    }
}

/// What nobody has in memory is lost where it has rotted in all copies, and mended from another
/// copy otherwise.
#[test]
fn pages_of_maps_that_nobody_has_are_mended_from_other_copies_only() {
    for (kind, disks) in [(PLAIN, 1), (ALIKE, 2), (ALIKE, 1)] {
        with_pool((6, kind), move |open| async move {
            open.settle().await;
            open.lu.close().await;
            let again = Lu::open(&open.core, open.pool.seat(LU).unwrap()).await.unwrap();
            let open = Open { lu: again, ..open };
            let mut spoiled = 0;
            for disk in 0..disks {
                for at in open.find(disk, |page| page.starts_with(b"VDmp")) {
                    open.spoil(disk, at);
                    spoiled += 1;
                }
            }
            assert!(spoiled > 0);
            let found = scrub(&open.lu, 1).await;
            let is_mended = disks < usize::from(kind.groups);
            let severity = if is_mended { Severity::Mended } else { Severity::Damaged };
            assert!(!found.findings.is_empty(), "{found:?}");
            assert!(found.findings.iter().all(|it| it.severity == severity), "{found:?}");
            assert_eq!(scrub(&open.lu, 2).await.findings.is_empty(), is_mended);
            assert_eq!(open.lost(1).await.is_empty(), is_mended);
        });
    }
}

/// A read that takes as long as two checkpoints finds a page that is written since it was named.
#[test]
fn a_page_of_a_map_that_is_written_meanwhile_is_none_that_has_rotted() {
    const CHECKPOINTS: u64 = 20;
    for seed in [1, 10, 15] {
        with_pool((seed, PLAIN), |open| async move {
            let (lu, core) = (open.lu.clone(), open.core.clone());
            let checkpoints = open.core.spawn_task(async move {
                let device = lu.device(&core);
                for block in 0..CHECKPOINTS {
                    let data = Buffer::from_bytes(&block_of(block, 2));
                    let at = (BLOCKS * APART + block) * BLOCK_BYTES;
                    device.io(&Request::write(at, data.sgl())).await.unwrap();
                    let described = lu.ask(|service| service.clone().describe(service.about()));
                    described.await.unwrap();
                }
            });
            let is_over = Rc::new(Cell::new(false));
            let over = is_over.clone();
            open.core.spawn(async move {
                checkpoints.await;
                over.set(true);
            });
            while !is_over.get() {
                let from = Cursor::Map { number: 0, layer: 0, extent: 0 };
                let step = open.lu.scrub(from, (Depth::Metadata, 1 << 20)).await.unwrap();
                assert!(step.findings.is_empty(), "{:?}", step.findings);
            }
        });
    }
}

#[test]
fn labels_and_tables_are_written_anew() {
    with_pool((7, ALIKE), |open| async move {
        let (core, pool) = (&open.core, &open.pool);
        assert!(pool.scrub().await.unwrap().findings.is_empty());
        for magic in [b"VDlb", b"VDst"] {
            let all = open.find(0, |page| page.starts_with(magic));
            assert_eq!(all.len(), 2);
            // One, the other one, and both.
            for which in [&all[..1], &all[1..], &all[..]] {
                for at in which {
                    open.spoil(0, *at);
                }
                let looked = pool.scrub().await.unwrap();
                assert_eq!(looked.findings.len(), which.len(), "{looked:?}");
                assert!(looked.findings.iter().all(|it| it.severity == Severity::Mended));
                assert!(pool.scrub().await.unwrap().findings.is_empty());
            }
        }
        open.lu.close().await;
        let Open { disks, pool, lu, .. } = &open;
        assert_eq!(Arc::strong_count(lu), 1);
        let closed = closed_lu(pool, LU).await.unwrap();
        assert!(closed.findings.is_empty() && closed.counts.layers == 1, "{closed:?}");
        let seat = pool.seat(LU).unwrap();
        assert!(closed_lu(pool, LU).await.is_none());
        drop(seat);
        pool.close().await.unwrap();
        let report = check(core, disks.iter().map(|it| it.1.clone()).collect(), |_| ()).await;
        assert!(report.findings.is_empty(), "{report:?}");
    });
}

/// What is read for this alone does not stay in memory.
#[test]
fn a_scrub_leaves_memory_as_it_was() {
    with_pool((8, SAFE), |open| async move {
        open.settle().await;
        open.lu.close().await;
        let memory = Arc::new(Memory::default());
        open.pool.keep_maps_in(memory.clone());
        let again = Lu::open(&open.core, open.pool.seat(LU).unwrap()).await.unwrap();
        let open = Open { lu: again, ..open };
        let before = memory.used();
        let found = scrub(&open.lu, 1).await;
        assert!(found.is_good() && found.extents > 20, "{found:?}");
        assert_eq!(memory.used(), before);
        assert!(open.lost(1).await.is_empty());
        let idle = || open.core.sleep(Duration::from_millis(1));
        idle().await;
        let used = memory.used();
        assert!(used > before);
        assert!(scrub(&open.lu, 2).await.is_good());
        idle().await;
        assert_eq!(memory.used(), used);
    });
}

/// Blocks that nobody writes rot, while everything else of the LU changes.
#[test]
fn rot_is_found_beside_a_load() {
    const ROUNDS: u64 = 5;
    const ROTTEN: u64 = 6;
    let mut tally = (0, 0, 0, 0);
    for seed in 0..3 * super::super::super::crash::loops() {
        let counts = Arc::new(Mutex::new((0, 0, 0, 0)));
        let told = counts.clone();
        with_pool((seed, SAFE), move |open| async move {
            let other = open.world.disk(DISK_BYTES / 4);
            other.attach(&open.host, "/dev/c");
            let third = backing(&open.core, Path::new("/dev/c"), true).await;
            let new = NewDisk { backing: third, pv: [9; 16], group: 0 };
            open.pool.admit(open.pool.prepare(new).await.unwrap()).await.unwrap();
            open.settle().await;
            let (core, lu) = (open.core.clone(), open.lu.clone());
            core.spawn(change(core.clone(), lu.clone(), seed, told.clone()));
            core.spawn(move_slabs(core.clone(), lu.clone(), seed, told.clone()));
            let elsewhere = told.clone();
            open.host.core().remote().send(move |core| {
                core.spawn(change(core.clone(), lu, seed + 100, elsewhere));
            });
            let mut random = Random::new(seed);
            for round in 0..ROUNDS {
                let mut rotten = BTreeSet::new();
                for _ in 0..ROTTEN {
                    let number = random.below(BLOCKS);
                    // Slabs of the first group may be on their way; those of the second one stay.
                    if rotten.insert(number) {
                        open.spoil_block(1, number, 1);
                    }
                }
                let found = scrub(&open.lu, seed << 8 | round).await;
                let mended = of(&found, Outcome::Mended).into_iter().map(|(number, _)| number);
                let mended: BTreeSet<u64> = mended.collect();
                // What a fold has copied meanwhile is good where it went.
                assert!(mended.is_subset(&rotten), "{rotten:?}: {found:?}");
                told.lock().unwrap().3 += mended.len() as u64;
                let is_there =
                    |number: &u64| !open.find(1, |page| page == block_of(*number, 1)).is_empty();
                assert!(rotten.iter().all(is_there), "{rotten:?}: {found:?}");
                assert!(found.damage.iter().all(|it| it.outcome == Outcome::Mended), "{found:?}");
                assert_eq!(found.findings, []);
            }
            assert!(open.lost(1).await.is_empty());
        });
        let counts = *counts.lock().unwrap();
        tally = (tally.0 + counts.0, tally.1 + counts.1, tally.2 + counts.2, tally.3 + counts.3);
    }
    println!("{tally:?}");
    let (writes, layers, moves, mended) = tally;
    assert!(writes > 200 && layers > 3 && moves > 10 && mended > 60, "{tally:?}");
}

/// Writes, layers that were let go, slabs that have moved, and blocks that were mended.
type Told = Arc<Mutex<(u64, u64, u64, u64)>>;

/// Writes, discards, and takes snapshots that it lets go again.
async fn change(core: Core, lu: Arc<Lu>, seed: u64, told: Told) {
    let (device, mut random) = (lu.device(&core), Random::new(seed ^ 0x5c2b));
    // Between the blocks that stay, and behind them.
    let any = |random: &mut Random| random.below(BLOCKS * 2) * APART + 1 + random.below(APART - 1);
    loop {
        let at = any(&mut random) * BLOCK_BYTES;
        match random.below(40) {
            0 => {
                let mut top = [0; 16];
                top[..8].copy_from_slice(&random.draw().to_le_bytes());
                let Ok(frozen) = lu.snapshot(top).await else { continue };
                while !matches!(lu.fold(frozen, 5).await, Ok(Folded::Gone)) {
                    core.sleep(Duration::from_micros(50)).await;
                }
                told.lock().unwrap().1 += 1;
            }
            1..10 => {
                let request = Request::plain(Op::Discard, at, BLOCK_BYTES);
                device.io(&request).await.unwrap();
            }
            _ => {
                let data = Buffer::from_bytes(&block_of(random.draw(), 9));
                device.io(&Request::write(at, data.sgl())).await.unwrap();
                told.lock().unwrap().0 += 1;
            }
        }
    }
}

async fn move_slabs(core: Core, lu: Arc<Lu>, seed: u64, told: Told) {
    let mut random = Random::new(seed ^ 0x77aa);
    loop {
        core.sleep(Duration::from_micros(random.below(500))).await;
        let (number, from) = (random.below(6) as u32, *random.pick(&[0, 2]));
        told.lock().unwrap().2 += u64::from(lu.move_slab(number, from, None).await.is_ok());
    }
}
