//! What was answered to a write with FUA is there when power fails at once, and what nobody shall
//! have written is not.

use super::families::{block_of, read_block};
use super::*;

const PATH: &str = "/dev/disk";
const OLD: u64 = 1;
const NEW: u64 = 2;

async fn put(device: &Rc<dyn Device>, block: u64, value: u64, fua: bool) {
    let data = block_of(block, value);
    let op = Op::Write { fua, atomic: false };
    let write = Request { op, ..Request::write(block * BLOCK_BYTES, data.sgl()) };
    device.io(&write).await.unwrap();
}

/// An LU with something in block 0, of which this is done; then power fails.
struct Lost {
    world: World,
    host: Host,
    seed: u64,
}

impl Lost {
    fn after(
        seed: u64,
        life: impl AsyncFnOnce(&Arc<Lu>, &Rc<dyn Device>) + Send + 'static,
    ) -> Self {
        let world = World::new(seed, Options::swarm(seed));
        let host = world.host("host");
        let disks = attached(&world, &host, [PATH], DISK_BYTES);
        let done = world.block_on(&host.core(), async move |core| {
            let (_pool, lu) = new_lu(&core, (PATH, new_pool()), 1 << 30).await;
            let device = lu.device(&core);
            put(&device, 0, OLD, false).await;
            life(&lu, &device).await;
        });
        done.expect("it ends");
        crash(&world, &host, &disks, true);
        Self { world, host, seed }
    }

    fn has(self, found: impl AsyncFnOnce(&Core, &Arc<Lu>, u64) + Send + 'static) {
        let seed = self.seed;
        let done = self.world.block_on(&self.host.core(), async move |core| {
            let disks = vec![backing(&core, Path::new(PATH), true).await];
            let pool = Pool::open(&core, disks).await.unwrap();
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            found(&core, &lu, seed).await;
        });
        done.expect("it ends");
    }
}

/// Block 0 is written last with FUA when this has been done to the LU.
fn survives(before: impl AsyncFn(&Arc<Lu>, &Rc<dyn Device>) + Copy + Send + 'static) {
    for seed in 0..12 {
        let lost = Lost::after(seed, async move |lu, device| {
            before(lu, device).await;
            // Here, as the map is known to whoever writes.
            assert_eq!(read_block(device, 0).await.unwrap(), OLD);
            put(device, 0, NEW, true).await;
        });
        lost.has(async |core, lu, seed| {
            assert_eq!(read_block(&lu.device(core), 0).await.unwrap(), NEW, "seed {seed}");
        });
    }
}

/// A block that came into the top layer when a snapshot went is written where only the record of
/// that says that it lies.
#[test]
fn what_is_written_behind_a_snapshot_that_goes() {
    survives(async |lu, device| {
        let frozen = lu.snapshot([4; 16]).await.unwrap();
        // The new layer has a place of its own for the extent.
        put(device, 1, OLD, false).await;
        device.io(&Request::flush()).await.unwrap();
        lu.fold(frozen, 1).await.unwrap();
    });
}

/// It came into the layer below the top one when a snapshot went, and only changed hands when the
/// next one did, before either record was durable.
#[test]
fn what_is_written_behind_two_snapshots_that_go() {
    survives(async |lu, device| {
        let first = lu.snapshot([4; 16]).await.unwrap();
        put(device, 1, OLD, false).await;
        let second = lu.snapshot([5; 16]).await.unwrap();
        device.io(&Request::flush()).await.unwrap();
        while lu.fold(first, 1).await.unwrap() != Folded::Gone {}
        lu.fold(second, 1).await.unwrap();
    });
}

/// A snapshot that goes is read no more, or is what it was as long as nothing says that it goes.
#[test]
fn a_snapshot_that_goes_is_whole_or_not_read() {
    for seed in 0..40 {
        let lost = Lost::after(seed, async |lu, device| {
            let frozen = lu.snapshot([4; 16]).await.unwrap();
            lu.fold(frozen, 1).await.unwrap();
            put(device, 0, NEW, false).await;
        });
        lost.has(async |core, lu, seed| {
            if let Ok(view) = lu.view(BASE).await {
                let found = read_block(&view.device(core), 0).await.unwrap();
                assert_eq!(found, OLD, "seed {seed}");
            }
        });
    }
}
