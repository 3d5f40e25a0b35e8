//! Disks that join a pool and leave it under a load, over crashes at any moment: what was answered
//! is there, on whichever disks the records name.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rt::sim::Random;

use super::super::super::crash::seeds;
use super::*;

pub(super) const PATHS: [&str; 4] = ["/dev/a", "/dev/b", "/dev/c", "/dev/d"];
pub(super) const BYTES: u64 = 64 << 20;
pub(super) const LU_BYTES: u64 = 256 << 20;
/// Blocks that are written, each in an extent of its own.
const BLOCKS: u64 = 48;
const APART: u64 = 5 << 20;

/// What is known outside of the world.
#[derive(Clone, Default)]
pub(super) struct Records {
    disks: Vec<(&'static str, [u8; 16])>,
    last_pv: u64,
    /// Of each block: what was answered last, and what may be there since.
    blocks: BTreeMap<u64, (u64, Vec<u64>)>,
    last_value: u64,
    swaps: u32,
    pub(super) writes: u64,
}

impl Records {
    /// What is known of the same blocks elsewhere, where other things are written from now on.
    pub(super) fn parted(&self) -> Self {
        Self { last_value: self.last_value + (1 << 40), ..self.clone() }
    }
}

pub(super) type Shared = Arc<Mutex<Records>>;

fn pattern(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK_BYTES as usize / 8)
}

pub(super) async fn write_one(
    device: &Rc<dyn Device>,
    records: &Shared,
    block: u64,
) -> Result<(), Error> {
    let value = {
        let mut records = records.lock().unwrap();
        records.last_value += 1;
        let value = records.last_value;
        records.blocks.entry(block).or_default().1.push(value);
        value
    };
    let buffer = Buffer::from_bytes(&pattern(value));
    let op = Op::Write { fua: true, atomic: false };
    let request = Request { op, ..Request::write(block * APART % LU_BYTES, buffer.sgl()) };
    device.io(&request).await?;
    let mut records = records.lock().unwrap();
    records.writes += 1;
    records.blocks.insert(block, (value, Vec::new()));
    Ok(())
}

pub(super) async fn read_all(device: &Rc<dyn Device>, records: &Shared) {
    for block in 0..BLOCKS {
        let buffer = Buffer::from_bytes(&[0xee; BLOCK_BYTES as usize]);
        device.io(&Request::read(block * APART % LU_BYTES, buffer.sgl())).await.unwrap();
        let bytes = buffer.to_vec();
        let mut records = records.lock().unwrap();
        let (answered, since) = records.blocks.entry(block).or_default();
        let mut found = Vec::new();
        // A disk may tear a write of several of its sectors.
        for sector in bytes.chunks(512) {
            let value = u64::from_le_bytes(sector[..8].try_into().unwrap());
            assert!(sector.chunks(8).all(|word| word == value.to_le_bytes()), "block {block}");
            let is_legal = value == *answered || since.contains(&value);
            assert!(is_legal, "block {block} is {value}, not {answered} or of {since:?}");
            found.push(value);
        }
        if found.iter().all(|value| *value == found[0]) {
            (*answered, *since) = (found[0], Vec::new());
        }
    }
}

pub(super) async fn load(device: Rc<dyn Device>, records: Shared, mut random: Random, part: u64) {
    loop {
        let block = random.below(BLOCKS / 2) * 2 + part;
        write_one(&device, &records, block).await.unwrap();
    }
}

/// Opens what the records name, and changes one disk for another again and again.
async fn live(core: Core, records: Shared, seed: u64) {
    let named = records.lock().unwrap().disks.clone();
    let mut disks = Vec::new();
    for (path, _) in &named {
        disks.push(backing(&core, Path::new(path), true).await);
    }
    let found = Pool::find(&core, disks).await.unwrap();
    // One that has left is not one of them, whether its records were written or not.
    let pvs: Vec<[u8; 16]> = found.labels().map(|label| label.pv).collect();
    records.lock().unwrap().disks.retain(|(_, pv)| pvs.contains(pv));
    let pool = found.open(0).await.unwrap();
    let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
    let device = lu.device(&core);
    read_all(&device, &records).await;
    for part in 0..2 {
        let random = Random::new(seed << 2 | part);
        core.spawn(load(device.clone(), records.clone(), random, part));
    }
    let mut random = Random::new(seed << 2 | 2);
    loop {
        join(&core, &pool, &records, &mut random).await;
        leave((&core, &pool, &lu), &records, &mut random).await;
    }
}

/// Another disk, if there is one.
async fn join(core: &Core, pool: &Rc<Pool>, records: &Shared, random: &mut Random) {
    let (free, pv) = {
        let mut records = records.lock().unwrap();
        records.last_pv += 1;
        let is_free = |path: &&&str| !records.disks.iter().any(|(it, _)| it == *path);
        let free: Vec<&'static str> = PATHS.iter().filter(is_free).copied().collect();
        let mut pv = [7; 16];
        pv[..8].copy_from_slice(&records.last_pv.to_le_bytes());
        (free, pv)
    };
    if free.is_empty() {
        return;
    }
    let path = *random.pick(&free);
    let disk = pool.prepare((backing(core, Path::new(path), true).await, pv));
    let disk = disk.await.unwrap();
    records.lock().unwrap().disks.push((path, pv));
    pool.admit(disk).await.unwrap();
}

/// One of the disks leaves, with all that is on it.
async fn leave(
    (core, pool, lu): (&Core, &Rc<Pool>, &Arc<Lu>),
    records: &Shared,
    random: &mut Random,
) {
    let named = records.lock().unwrap().disks.clone();
    let (_, victim) = *random.pick(&named);
    let disk = pool.disk(victim).unwrap();
    pool.retire(disk, true);
    while let Some((owner, number)) = pool.slabs_on(disk).pop() {
        assert_eq!(owner, LU);
        assert!(matches!(pool.dismiss(disk).await, Err(PoolError::InUse { .. })));
        match lu.move_slab(number, disk, None).await {
            // It was given back meanwhile.
            Err(error) if error.kind() == ErrorKind::Invalid => {}
            moved => drop(moved.unwrap()),
        }
    }
    pool.dismiss(disk).await.unwrap();
    if random.coin() {
        join(core, pool, records, random).await;
    }
    records.lock().unwrap().disks.retain(|(_, pv)| *pv != victim);
    pool.forget(disk).await.unwrap();
    records.lock().unwrap().swaps += 1;
}

fn world(seed: u64, rounds: u32) -> (u32, u64) {
    let mut random = Random::new(seed ^ 0x3e3b_e250);
    let world = World::new(seed, Options::swarm(seed));
    let (host, records) = (world.host("host"), Shared::default());
    let all = attached(&world, &host, PATHS, BYTES);
    let (core, shared) = (host.core(), records.clone());
    let made = world.block_on(&core, |core| async move {
        let first = backing(&core, Path::new(PATHS[0]), true).await;
        shared.lock().unwrap().disks.push((PATHS[0], [9; 16]));
        let pool = Pool::format(&core, new_pool(), vec![(first, [9; 16])]).await.unwrap();
        let about = about(LU_BYTES, 512);
        pool.create_lu(NewLu { id: LU, layer: BASE, about }).await.map(drop).unwrap();
    });
    made.unwrap();
    for round in 0..rounds {
        crash(&world, &host, &all, random.coin());
        let (core, shared) = (host.core(), records.clone());
        let seed = seed << 16 | u64::from(round);
        core.remote().send(move |core| {
            core.spawn(live(core.clone(), shared, seed));
        });
        world.run_for(Duration::from_millis(20 + random.below(400)));
    }
    let records = records.lock().unwrap();
    (records.swaps, records.writes)
}

#[test]
fn disks_come_and_go_under_a_load() {
    let (mut swaps, mut writes) = (0, 0);
    for seed in seeds(3, &[]) {
        let (swapped, written) = world(seed, 12);
        (swaps, writes) = (swaps + swapped, writes + written);
    }
    println!("{swaps} swaps, {writes} writes");
    assert!(swaps > 10 && writes > 500);
}

/// However many write there, and never leave all of an extent alone.
#[test]
fn a_slab_moves_while_one_extent_is_written_all_the_time() {
    const WRITERS: u64 = 8;
    const LIMIT: Duration = Duration::from_secs(20);
    for shape in [new_pool().shape, new_pool_with_sums().shape] {
        let world = World::new(1, Options::default());
        let host = world.host("host");
        attached(&world, &host, [PATHS[0], PATHS[1]], BYTES);
        let done = world.block_on(&host.core(), |core| async move {
            let mut disks = Vec::new();
            for (path, id) in [(PATHS[0], [8; 16]), (PATHS[1], [9; 16])] {
                disks.push((backing(&core, Path::new(path), true).await, id));
            }
            let new = NewPool { shape, ..new_pool() };
            let pool = Pool::format(&core, new, disks).await.unwrap();
            let new = NewLu { id: LU, layer: BASE, about: about(LU_BYTES, 512) };
            let lu = Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap();
            let device = lu.device(&core);
            let is_over = Rc::new(Cell::new(false));
            let writer = |number: u64| {
                let (device, is_over) = (device.clone(), is_over.clone());
                core.spawn_task(async move {
                    let data = Buffer::from_bytes(&pattern(number));
                    while !is_over.get() {
                        let request = Request::write(number * BLOCK_BYTES, data.sgl());
                        device.io(&request).await.unwrap();
                    }
                })
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            core.sleep(Duration::from_millis(100)).await;
            let from = lu.shared.places.get(0).expect("its first slab").disk;
            let moved = core.timeout(LIMIT, lu.move_slab(0, from, None)).await;
            moved.expect("it ends").unwrap();
            is_over.set(true);
            for writer in writers {
                writer.await;
            }
            lu.close().await;
        });
        done.expect("it ends");
    }
}
