//! What first writes cost below an LU, counted: pages of the journal, syncs, and how long writes
//! wait for anything but themselves. The same on every machine.

use block::Buffer;

use super::*;

const REQUESTS: u64 = 4_000;
const DEPTH: u64 = 32;
const LU_BYTES: u64 = 1 << 40;
const WORLDS: u64 = 4;
const FLUSH_EVERY: u64 = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    First,
    /// Of an LU of 20 GiB.
    FirstOfSmall,
    /// From another core than the owner's.
    FirstFromElsewhere,
    AfterSnapshot,
    Flushed,
}

/// Writes scattered blocks, each once and many at a time.
async fn load(core: &Core, device: &Rc<dyn Device>, span: u64, what: What) -> Duration {
    let (begun, start) = (Rc::new(Cell::new(0)), core.now());
    let one = |_| {
        let (device, begun) = (device.clone(), begun.clone());
        core.spawn_task(async move {
            let data = Buffer::from_bytes(&[0xa5; 4096]);
            while begun.get() < REQUESTS {
                let number: u64 = begun.replace(begun.get() + 1);
                let block = number.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1) % (span / 4096);
                device.io(&Request::write(block * 4096, data.sgl())).await.unwrap();
                if what == What::Flushed && number.is_multiple_of(FLUSH_EVERY) {
                    device.io(&Request::flush()).await.unwrap();
                }
            }
        })
    };
    let tasks: Vec<_> = (0..DEPTH).map(one).collect();
    for task in tasks {
        task.await;
    }
    core.now() - start
}

/// What was counted, how long it took, and how long the same takes on the disk itself.
fn cost(seed: u64, what: What) -> (Counts, Duration, Duration) {
    let world = World::new(seed, Options::default());
    let (host, disk, bare) = (world.host("host"), world.disk(8 << 30), world.disk(1 << 30));
    disk.attach(&host, "/dev/disk");
    bare.attach(&host, "/dev/bare");
    let (core, other) = (host.core(), host.core().remote());
    let counted = world.block_on(&core, |core| async move {
        let new = NewPool { shape: Shape::default(), ..new_pool() };
        let size = if what == What::FirstOfSmall { 20 << 30 } else { LU_BYTES };
        let (_pool, lu) = new_lu(&core, ("/dev/disk", new), size).await;
        let device = lu.device(&core);
        let span = if what == What::AfterSnapshot { 128 << 20 } else { size };
        if what == What::AfterSnapshot {
            let data = Buffer::from_bytes(&vec![1; 1 << 20]);
            for at in (0..span).step_by(1 << 20) {
                device.io(&Request::write(at, data.sgl())).await.unwrap();
            }
            device.io(&Request::flush()).await.unwrap();
            lu.snapshot([4; 16]).await.unwrap();
        }
        let before = lu.counts().await.unwrap();
        let took = if what == What::FirstFromElsewhere {
            let lu = lu.clone();
            let there = other
                .call(move |core| async move { load(&core, &lu.device(&core), span, what).await });
            there.await.unwrap()
        } else {
            load(&core, &device, span, what).await
        };
        let after = lu.counts().await.unwrap();
        let bare = backing(&core, Path::new("/dev/bare"), true).await.device(&core);
        (after.since(before), took, load(&core, &bare, 1 << 30, what).await)
    });
    counted.unwrap()
}

#[test]
fn first_writes_cost_little_more_than_their_data() {
    // Pages of the journal for 1,000 writes, and how many times as long as on the disk itself, in
    // tenths.
    let cases = [
        (What::First, 70, 24),
        (What::FirstOfSmall, 70, 25),
        (What::FirstFromElsewhere, 85, 30),
        (What::AfterSnapshot, 70, 24),
        (What::Flushed, 85, 20),
    ];
    for (what, journal_most, tenths_most) in cases {
        // How long one of them takes hangs on chance.
        let (mut took, mut bare) = (Duration::ZERO, Duration::ZERO);
        for seed in 0..WORLDS {
            let (counts, with, without) = cost(seed, what);
            println!("{counts:?} in {with:?}, {without:?} on the disk itself");
            assert_eq!(counts.data, REQUESTS);
            let journal = counts.journal * 1_000 / REQUESTS;
            assert!(journal <= journal_most, "{journal} pages of the journal for 1,000 writes");
            (took, bare) = (took + with, bare + without);
        }
        assert!(10 * took < tenths_most * bare, "{took:?} is far more than {bare:?}");
    }
}
