//! What is left in a pool, shared by its LUs.

use block::Outcome;

use super::*;

const PATH: &str = "/dev/disk";
const TIB: u64 = 1 << 40;
const SLAB: u64 = 4 << 20;
const LUS: u8 = 3;
const AT_A_TIME: u64 = 64;
/// Of an LU of this size.
const JOURNAL_SLABS: usize = 16;

/// Large LUs that nobody writes keep next to nothing from one that is written.
#[test]
fn what_nobody_needs_is_there_for_who_does() {
    let world = World::new(1, Options::default());
    let (host, disk) = (world.host("host"), world.disk(1 << 30));
    disk.attach(&host, PATH);
    let done = world.block_on(&host.core(), |core| async move {
        let disks = vec![(backing(&core, Path::new(PATH), true).await, [9; 16])];
        let pool = Pool::format(&core, new_pool(), disks).await.unwrap();
        let mut lus = Vec::new();
        for lu in 0..LUS {
            let new = NewLu { id: [lu + 1; 16], layer: [lu + 101; 16], about: about(TIB, 512) };
            lus.push(Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap());
        }
        core.spawn(tell(pool.clone(), lus.clone()));
        core.sleep(Duration::from_secs(1)).await;
        let (all, before) = pool.slabs();
        assert!(before > all / 3, "{before} of {all} slabs are free");
        // So many at a time that what it has ahead is soon used.
        let (mut extents, mut is_full) = (0, false);
        while !is_full {
            let all =
                (0..AT_A_TIME).map(|index| core.spawn_task(first(&core, &lus[0], extents + index)));
            let all: Vec<_> = all.collect();
            for written in all {
                let is_written = written.await.is_ok();
                extents += u64::from(is_written);
                is_full |= !is_written;
            }
        }
        assert!(extents << 16 > before * SLAB, "{extents} extents of {before} slabs");
        for lu in 2..=LUS {
            let slabs = pool.granted([lu; 16]).unwrap().slabs.len();
            assert!(slabs < JOURNAL_SLABS + 4, "{slabs}");
        }
        // And it is told when there is room again.
        lus.remove(1).close().await;
        pool.revoke([2; 16]).await.unwrap();
        core.sleep(Duration::from_secs(1)).await;
        first(&core, &lus[0], all << 6).await.unwrap();
    });
    done.expect("it ends");
}

/// Writes the first block of an extent.
fn first(core: &Core, lu: &Arc<Lu>, extent: u64) -> impl Future<Output = Outcome> + use<> {
    let (device, data) = (lu.device(core), Buffer::from_bytes(&[7; 4096]));
    async move { device.io(&Request::write(extent << 16, data.sgl())).await }
}

async fn tell(pool: Rc<Pool>, lus: Vec<Arc<Lu>>) {
    let lus: Vec<_> = lus.iter().map(Arc::downgrade).collect();
    assert!(pool.news_of_room().await);
    // He is slow the first time: somebody waits for a slab by then.
    while pool.slabs().1 > 0 {
        pool.core().sleep(Duration::from_millis(10)).await;
    }
    pool.core().sleep(Duration::from_millis(500)).await;
    loop {
        for lu in lus.iter().filter_map(std::sync::Weak::upgrade) {
            // One is closed.
            let _ = lu.may_grow(pool.share()).await;
        }
        if !pool.news_of_room().await {
            break;
        }
    }
}
