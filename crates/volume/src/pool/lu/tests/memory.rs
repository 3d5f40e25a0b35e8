//! Maps that have no room in memory: what is used stays below the budget, all is read as it was
//! written, and what is used often stays.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rt::sim::Random;

use super::super::super::map::Form;
use super::super::super::memory::Memory;
use super::super::super::shape::Shape;
use super::families::{block_of, read_block};
use super::*;

const LU_BYTES: u64 = 1 << 40;
const BLOCKS: u64 = LU_BYTES / BLOCK_BYTES;
/// All that the LU has are a hundred times as many.
const LIMIT: usize = 1 << 20;
const USERS_PER_CORE: u64 = 4;
const STEPS: u64 = 400;
const SNAPSHOTS: u64 = 3;

/// What each block holds that was written.
type Content = Arc<Mutex<BTreeMap<u64, u64>>>;

/// An LU on a disk of its own, with so much memory for its map.
async fn lu(core: &Core, memory: &Arc<Memory>) -> Arc<Lu> {
    let disks = vec![(backing(core, Path::new("/dev/disk"), true).await, [9; 16])];
    let new = NewPool { shape: Shape::default(), ..new_pool() };
    let pool = Pool::format(core, new, disks).await.unwrap();
    pool.keep_maps_in(memory.clone());
    let new = NewLu { id: LU, layer: BASE, about: about(LU_BYTES, 4096) };
    Lu::open(core, pool.create_lu(new).await.unwrap()).await.unwrap()
}

async fn write(device: &Rc<dyn Device>, block: u64, value: u64) {
    let data = block_of(block, value);
    device.io(&Request::write(block * BLOCK_BYTES, data.sgl())).await.unwrap();
}

/// Writes and reads blocks that are this one's, wherever they are, and sees how much memory is
/// used.
async fn user(core: Core, lu: Arc<Lu>, who: u64, content: Content) -> usize {
    let (device, mut random) = (lu.device(&core), Random::new(who));
    let mut most = 0;
    for step in 0..STEPS {
        let block = random.below(BLOCKS / 64) * 64 + who;
        // One that was written is read about as often as one that was not.
        let known =
            content.lock().unwrap().range(block..).map(|(at, _)| *at).find(|at| at % 64 == who);
        match random.below(4) {
            0 | 1 => {
                write(&device, block, step + 1).await;
                content.lock().unwrap().insert(block, step + 1);
            }
            2 => assert_eq!(read_block(&device, block).await.unwrap(), {
                content.lock().unwrap().get(&block).copied().unwrap_or_default()
            }),
            _ => {
                let block = known.unwrap_or(block);
                let value = content.lock().unwrap().get(&block).copied().unwrap_or_default();
                assert_eq!(read_block(&device, block).await.unwrap(), value, "block {block}");
            }
        }
        most = most.max(lu.memory.used());
    }
    most
}

#[test]
fn memory_stays_below_the_budget_and_nothing_is_read_wrong() {
    let world = World::new(5, Options::swarm(5));
    let (host, disk) = (world.host("host"), world.disk(16 << 30));
    disk.attach(&host, "/dev/disk");
    let (core, other) = (host.core(), host.core().remote());
    let done = world.block_on(&core, |core| async move {
        let memory = Arc::new(Memory::new(LIMIT));
        let (lu, content) = (lu(&core, &memory).await, Content::default());
        let mut most = 0;
        for round in 0..=SNAPSHOTS {
            let mut users = Vec::new();
            let mut elsewhere = Vec::new();
            for at in 0..USERS_PER_CORE {
                let who = 2 * at + 8 * round;
                let (there, content_there) = (lu.clone(), content.clone());
                let one = user(core.clone(), lu.clone(), who, content.clone());
                users.push(core.spawn_task(one));
                elsewhere.push(other.call(move |core| user(core, there, who + 1, content_there)));
            }
            for user in users {
                most = most.max(user.await);
            }
            for user in elsewhere {
                most = most.max(user.await.unwrap());
            }
            lu.snapshot([100 + round as u8; 16]).await.unwrap();
        }
        let counts = lu.counts().await.unwrap();
        println!("{most} bytes at most, {} pages read, {} let go", counts.loads, counts.let_go);
        // Those who wait have what they need, whatever there is.
        assert!(most < LIMIT + LIMIT / 2 && most > LIMIT / 2, "{most} bytes were used");
        assert!(counts.let_go > 1_000 && counts.loads > 1_000);
        let device = lu.device(&core);
        let content = content.lock().unwrap().clone();
        for (block, value) in content {
            assert_eq!(read_block(&device, block).await.unwrap(), value, "block {block}");
        }
        drop(device);
        lu.close().await;
        drop(lu);
        core.sleep(Duration::from_millis(1)).await;
        assert_eq!(memory.used(), 0, "what is gone is not counted");
    });
    done.expect("it ends");
}

#[test]
fn what_is_used_often_stays_in_memory() {
    let world = World::new(6, Options::default());
    let (host, disk) = (world.host("host"), world.disk(16 << 30));
    disk.attach(&host, "/dev/disk");
    let done = world.block_on(&host.core(), |core| async move {
        let memory = Arc::new(Memory::new(LIMIT));
        let lu = lu(&core, &memory).await;
        let device = lu.device(&core);
        let page = Form::new(Shape::default()).extents() * lu.shape.blocks_per_extent();
        let pages = 4_000;
        for number in 0..pages {
            write(&device, number * page, 1).await;
        }
        let before = lu.counts().await.unwrap();
        for number in 1..pages {
            assert_eq!(read_block(&device, number * page).await.unwrap(), 1);
            assert_eq!(read_block(&device, 0).await.unwrap(), 1);
        }
        let counts = lu.counts().await.unwrap().since(before);
        println!("{} pages were read for {pages}", counts.loads);
        assert!(
            counts.loads < pages + 10 && counts.loads > pages / 2,
            "{} were read",
            counts.loads
        );
        // Nothing of what fits is ever read again.
        let before = lu.counts().await.unwrap();
        for round in 0..50 {
            for number in 0..100 {
                assert_eq!(read_block(&device, number * page).await.unwrap(), 1);
            }
            if round == 1 {
                assert!(lu.counts().await.unwrap().since(before).loads <= 100);
            }
        }
        assert!(lu.counts().await.unwrap().since(before).loads <= 100);
    });
    done.expect("it ends");
}
