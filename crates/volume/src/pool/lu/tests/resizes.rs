//! LUs that become larger and smaller: what is written is never cut off, whoever writes meanwhile
//! and whatever crashes; what lay behind an end never comes back.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rt::sim::Random;

use super::super::super::crash::seeds;
use super::*;

const PATH: &str = "/dev/disk";
const BLOCK: u64 = BLOCK_BYTES;
const MIB: u64 = 1 << 20;

async fn write(device: &Rc<dyn Device>, block: u64, byte: u8) -> Result<(), ErrorKind> {
    let data = Buffer::from_bytes(&[byte; BLOCK_BYTES as usize]);
    let op = Op::Write { fua: true, atomic: false };
    let request = Request { op, ..Request::write(block * BLOCK, data.sgl()) };
    device.io(&request).await.map(drop).map_err(|error| error.kind())
}

async fn discard(device: &Rc<dyn Device>, block: u64) -> Result<(), ErrorKind> {
    let discarded = device.io(&Request::plain(Op::Discard, block * BLOCK, BLOCK)).await;
    discarded.map_err(|error| error.kind())?;
    device.io(&Request::flush()).await.map(drop).map_err(|error| error.kind())
}

async fn read(device: &Rc<dyn Device>, block: u64) -> Result<u8, ErrorKind> {
    let into = Buffer::from_bytes(&[0xee; BLOCK_BYTES as usize]);
    let done = device.io(&Request::read(block * BLOCK, into.sgl())).await;
    done.map_err(|error| error.kind())?;
    let bytes = into.to_vec();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {block} is not whole");
    Ok(bytes[0])
}

#[test]
fn what_is_written_is_not_cut_off_and_what_was_cut_off_reads_zero() {
    let world = World::new(11, Options::default());
    let (host, disk) = (world.host("host"), world.disk(DISK_BYTES));
    disk.attach(&host, PATH);
    let done = world.block_on(&host.core(), |core| async move {
        let (pool, lu) = new_lu(&core, (PATH, new_pool()), 100 * MIB).await;
        let device = lu.device(&core);
        for (block, byte) in [(3, 3), (20_000, 7), (23_000, 8)] {
            write(&device, block, byte).await.unwrap();
        }
        let end = |block: u64| Err(Unresized::Written((block + 1) * BLOCK));
        assert_eq!(lu.resize(50 * MIB).await, end(23_000));
        assert_eq!(lu.resize(23_000 * BLOCK).await, end(23_000));
        assert!(matches!(lu.resize(50 * MIB + 512).await, Err(Unresized::Failed(_))));
        assert_eq!((lu.size(), device.geometry().size), (100 * MIB, 100 * MIB));
        lu.resize(23_001 * BLOCK).await.unwrap();
        assert_eq!(write(&device, 23_001, 9).await, Err(ErrorKind::OutOfRange));

        // A snapshot keeps its size, and what it has does not hinder the LU.
        let layer = lu.snapshot([4; 16]).await.unwrap();
        assert_eq!(lu.resize(50 * MIB).await, end(23_000));
        discard(&device, 23_000).await.unwrap();
        assert_eq!(lu.resize(50 * MIB).await, end(20_000));
        discard(&device, 20_000).await.unwrap();
        lu.resize(50 * MIB).await.unwrap();
        let view = lu.view(layer).await.unwrap();
        assert_eq!(view.size(), 23_001 * BLOCK);
        assert_eq!(read(&view.device(&core), 20_000).await, Ok(7));
        let back = lu.roll_back(layer, [5; 16]).await.map_err(|error| error.kind());
        assert_eq!(back, Err(ErrorKind::Invalid), "behind the end there would be data");

        // A clone reads what it stands on, which is written.
        let id = [6; 16];
        let clone = NewLu {
            id,
            layer: BASE,
            about: About { base: Some(view.is()), ..about(23_001 * BLOCK, 512) },
        };
        let seat = pool.create_lu(clone).await.unwrap().on(view);
        let clone = Lu::open(&core, seat).await.unwrap();
        assert_eq!(clone.resize(50 * MIB).await, end(23_000));
        let cloned = clone.device(&core);
        discard(&cloned, 23_000).await.unwrap();
        clone.resize(20_001 * BLOCK).await.unwrap();
        clone.resize(23_001 * BLOCK).await.unwrap();
        let tail = [read(&cloned, 20_000).await, read(&cloned, 23_000).await];
        assert_eq!(tail, [Ok(7), Ok(0)]);
        clone.close().await;

        lu.resize(100 * MIB).await.unwrap();
        for (block, byte) in [(3, 3), (20_000, 0), (23_000, 0), (25_000, 0)] {
            assert_eq!(read(&device, block).await, Ok(byte), "block {block}");
        }
        drop((cloned, clone));
        let back = lu.roll_back(layer, [5; 16]).await.map_err(|error| error.kind());
        assert!(back.is_ok(), "{back:?}");
        assert_eq!(read(&device, 20_000).await, Ok(7));
        lu.close().await;
        let again = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        assert_eq!((again.size(), again.resize(50 * MIB).await), (100 * MIB, end(23_000)));
    });
    done.expect("it ends");
}

/// Ends that the LU has in turn, and blocks around them.
const ENDS: [u64; 5] = [2_000, 5_400, 5_417, 9_000, 12_288];
const BLOCKS: [u64; 10] = [1_999, 2_000, 2_001, 5_399, 5_400, 5_416, 5_417, 8_999, 9_000, 12_287];

/// What each block, and the size, may be.
struct Model {
    blocks: BTreeMap<u64, Vec<u8>>,
    sizes: Vec<u64>,
    /// Resizes that were done, and refused because of what is written; writes behind the end.
    done: [u32; 3],
}

type Known = Arc<Mutex<Model>>;

/// Writes and discards a block of its own.
async fn use_block(core: Core, device: Rc<dyn Device>, block: u64, known: Known, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let byte = if random.below(3) == 0 { 1 + random.below(200) as u8 } else { 0 };
        known.lock().unwrap().blocks.get_mut(&block).unwrap().push(byte);
        let done = match byte {
            0 => discard(&device, block).await,
            _ => write(&device, block, byte).await,
        };
        {
            let mut model = known.lock().unwrap();
            let beyond = done == Err(ErrorKind::OutOfRange);
            model.done[2] += u32::from(beyond);
            let may_be = model.blocks.get_mut(&block).unwrap();
            let is = if done.is_ok() { byte } else { may_be[0] };
            assert!(done.is_ok() || beyond, "{done:?}");
            *may_be = vec![is];
            assert!(!beyond || is == 0, "block {block} was written and is cut off");
        }
        core.sleep(Duration::from_micros(random.below(300))).await;
    }
}

async fn resize_often(lu: Arc<Lu>, known: Known, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let size = random.pick(&ENDS) * BLOCK;
        known.lock().unwrap().sizes.push(size);
        let (was, resized) = (lu.size(), lu.resize(size).await);
        let mut model = known.lock().unwrap();
        match resized {
            Ok(()) => (model.sizes, model.done[0]) = (vec![size], model.done[0] + 1),
            Err(Unresized::Written(end)) => {
                assert!(size < end && end <= was, "{size} {end} {was}");
                (model.sizes, model.done[1]) = (vec![was], model.done[1] + 1);
            }
            Err(Unresized::Failed(error)) => panic!("{error}"),
        }
    }
}

/// Opens the LU, looks at everything, and then uses it until it is killed.
async fn live(core: Core, other: Remote, known: Known, seed: u64) {
    let pool = Pool::open(&core, vec![backing(&core, Path::new(PATH), true).await]).await.unwrap();
    let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
    let device = lu.device(&core);
    {
        let mut model = known.lock().unwrap();
        assert!(model.sizes.contains(&lu.size()), "{} of {:?}", lu.size(), model.sizes);
        model.sizes = vec![lu.size()];
    }
    for block in BLOCKS {
        let is = match block * BLOCK < lu.size() {
            true => read(&device, block).await.unwrap(),
            false => 0,
        };
        let mut model = known.lock().unwrap();
        let may_be = model.blocks.get_mut(&block).unwrap();
        assert!(may_be.contains(&is), "block {block} is {is}, of {may_be:?}");
        *may_be = vec![is];
    }
    for (number, block) in (0..).zip(BLOCKS) {
        let (known, seed) = (known.clone(), seed << 8 | number);
        if number % 2 == 0 {
            core.spawn(use_block(core.clone(), device.clone(), block, known, seed));
        } else {
            let lu = lu.clone();
            other.send(move |core| {
                core.spawn(use_block(core.clone(), lu.device(core), block, known, seed));
            });
        }
    }
    core.spawn(resize_often(lu, known, seed));
    // The pool stays open as long as the process lives.
    core.spawn(async move {
        std::future::pending::<()>().await;
        drop(pool);
    });
}

fn world(seed: u64, done: &mut [u32; 3]) {
    let world = World::new(seed, Options::swarm(seed));
    let mut random = Random::new(seed ^ 0x5129);
    let (host, disk) = (world.host("host"), world.disk(DISK_BYTES));
    // A block is there or not: what is torn is not looked at here.
    disk.set_unit(BLOCK_BYTES as u32);
    disk.attach(&host, PATH);
    let size = ENDS[4] * BLOCK;
    let made = world.block_on(&host.core(), |core| async move {
        new_lu(&core, (PATH, new_pool()), size).await.1.close().await;
    });
    made.unwrap();
    let blocks = BLOCKS.iter().map(|block| (*block, vec![0])).collect();
    let known = Arc::new(Mutex::new(Model { blocks, sizes: vec![size], done: [0; 3] }));
    for round in 0..12 {
        let power = random.coin();
        match power {
            true => {
                host.lose_power();
                world.run_for(Duration::from_micros(1));
                disk.lose_power();
            }
            false => host.kill(),
        }
        world.run_for(Duration::from_micros(1));
        let (core, other, known) = (host.core(), host.core().remote(), known.clone());
        let lives = |core: Core| live(core, other, known, seed << 8 | round);
        world.block_on(&core, lives).expect("it opens");
        world.run_for(Duration::from_micros(200 + random.below(40_000)));
    }
    let model = known.lock().unwrap();
    done.iter_mut().zip(model.done).for_each(|(sum, more)| *sum += more);
}

#[test]
fn a_write_comes_before_the_new_end_or_is_refused() {
    let mut done = [0; 3];
    for seed in seeds(8, &[]) {
        world(seed, &mut done);
    }
    println!("{done:?} resized, refused, written behind the end");
    assert!(done.iter().all(|count| *count > 20), "{done:?}");
}

/// A root that was written before says that they are used.
#[test]
fn slabs_that_went_back_are_not_missed_by_who_opens_the_lu_after_a_kill() {
    for seed in 0..8 {
        let world = World::new(seed, Options::swarm(seed));
        let (host, disk) = (world.host("host"), world.disk(DISK_BYTES));
        disk.attach(&host, PATH);
        let done = world.block_on(&host.core(), |core| async move {
            let (pool, lu) = new_lu(&core, (PATH, new_pool()), 256 * MIB).await;
            let data = Buffer::from_bytes(&[7; MIB as usize]);
            let device = lu.device(&core);
            for mib in 0..100 {
                device.io(&Request::write(mib * MIB, data.sgl())).await.unwrap();
            }
            drop(device);
            // Its root says what is used.
            lu.close().await;
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let (device, (_, before)) = (lu.device(&core), pool.slabs());
            device.io(&Request::plain(Op::Discard, 0, 90 * MIB)).await.unwrap();
            device.io(&Request::flush()).await.unwrap();
            while pool.slabs().1 < before + 10 {
                core.sleep(Duration::from_millis(1)).await;
            }
        });
        done.expect("slabs go back");
        host.kill();
        world.run_for(Duration::from_micros(1));
        let done = world.block_on(&host.core(), |core| async move {
            let pool = Pool::open(&core, vec![backing(&core, Path::new(PATH), true).await]);
            let pool = pool.await.unwrap();
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let device = lu.device(&core);
            for (block, value) in [(0, 0), (89 * MIB / BLOCK, 0), (90 * MIB / BLOCK, 7)] {
                assert_eq!(read(&device, block).await, Ok(value));
            }
        });
        done.expect("it opens");
    }
}
