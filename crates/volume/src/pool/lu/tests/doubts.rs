//! What a crash leaves in doubt in the copies of an LU, while disks die and failure groups leave
//! before it is settled.

use super::deaths::{another, kill};
use super::groups::{
    APART, BLOCKS, LU_BYTES, PATHS, catch_up, find, holds, make, visit, with_disks, write,
};
use super::splits::Kept;
use super::*;
use std::sync::Mutex;

use rt::sim::{Fault, Harm, On};

const OLD: u8 = 1;
const NEW: u8 = 2;

/// A pool of two groups, whose LU was being overwritten when its server was killed.
struct Doubt {
    world: World,
    host: Host,
    disks: [Disk; 3],
    kept: Kept,
}

impl Doubt {
    fn new(seed: u64) -> Self {
        let world = World::new(seed, Options::swarm(seed));
        let host = world.host("host");
        let disks = attached(&world, &host, PATHS, DISK_BYTES);
        let kept = Kept::of_age(0);
        let doubt = Self { world, host, disks, kept: kept.clone() };
        doubt.live(make);
        doubt.host.core().remote().send(move |core| {
            core.spawn(overwrite(core.clone(), kept));
        });
        doubt.world.run_for(Duration::from_micros(300_000 + seed * 97));
        doubt.crash();
        doubt
    }

    fn live<F: Future<Output = ()> + 'static>(&self, f: impl FnOnce(Core) -> F + 'static) {
        self.world.block_on(&self.host.core(), f).expect("it ends");
    }

    fn crash(&self) {
        crash(&self.world, &self.host, &self.disks, false);
    }

    /// The next server has opened the pool, with these disks, and its LU.
    fn opened<F>(
        &self,
        disks: &'static [usize],
        f: impl FnOnce(Core, Rc<Pool>, Arc<Lu>) -> F + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let kept = self.kept.clone();
        self.live(move |core| async move {
            let pool = kept.open(find(&core, disks).await.unwrap()).await;
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            f(core, pool, lu).await;
        });
    }
}

async fn overwrite(core: Core, kept: Kept) {
    let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
    let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
    loop {
        write(&core, &lu, NEW).await;
        write(&core, &lu, OLD).await;
    }
}

fn is_in_doubt(pool: &Pool) -> bool {
    let slabs = pool.granted(LU).unwrap().slabs;
    let all = slabs.iter().flat_map(|slab| pool.shared.places.all(*slab));
    all.into_iter().any(|copy| copy.state == State::Doubtful)
}

/// What is there, of which each sector is what it was or what it was to be.
async fn values(core: &Core, lu: &Arc<Lu>) -> Vec<u8> {
    let (device, into) = (lu.device(core), Buffer::zeroed(4096));
    let mut values = Vec::new();
    for block in 0..BLOCKS {
        device.io(&Request::read(block * APART, into.sgl())).await.unwrap();
        values.extend(into.to_vec());
    }
    assert!(values.iter().all(|value| [OLD, NEW].contains(value)));
    values
}

/// Whoever was splitting when he died goes on while LUs are opened.
#[test]
fn a_group_leaves_when_what_was_in_doubt_is_settled() {
    for seed in 0..12 {
        let doubt = Doubt::new(seed);
        let leaves = seed % 2;
        let kept = doubt.kept.clone();
        doubt.live(move |core| async move {
            let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
            let (splitter, wait) = (pool.clone(), Duration::from_micros(seed / 2 * 150));
            let of_core = core.clone();
            let split = core.spawn_task(async move {
                of_core.sleep(wait).await;
                splitter.split(leaves as u16, 1).await
            });
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let before = values(&core, &lu).await;
            split.await.unwrap();
            assert_eq!(values(&core, &lu).await, before);
            assert!(!is_in_doubt(&pool) && pool.stale_groups(LU).is_empty());
            write(&core, &lu, 3).await;
        });
        doubt.crash();
        let stays: &[usize] = if leaves == 0 { &[1] } else { &[0] };
        doubt.live(move |core| async move {
            visit(&core, stays, async |_, lu| holds(&core, lu, 3).await).await;
        });
    }
}

/// The copy that the other one is to be like is gone before it is.
#[test]
fn a_disk_dies_before_what_was_in_doubt_is_settled() {
    for (seed, is_lost) in [(0, false), (1, true), (2, false), (3, true)] {
        let doubt = Doubt::new(seed);
        let disks = doubt.disks.clone();
        doubt.opened(&[0, 1], move |core, pool, lu| async move {
            assert!(is_in_doubt(&pool));
            kill(&disks[0]);
            if is_lost {
                another(&core, &pool, 20).await.close().await;
                pool.revoke([20; 16]).await.unwrap();
                assert_eq!(pool.lost().len(), 1);
            }
            values(&core, &lu).await;
            write(&core, &lu, 3).await;
            holds(&core, &lu, 3).await;
            assert!(is_lost || pool.stale_groups(LU) == [0]);
            disks[0].heal();
            pool.rejoin(0).await.unwrap();
            write(&core, &lu, 4).await;
            catch_up(&pool, &lu).await;
            assert_eq!(pool.stale_groups(LU), [0; 0]);
        });
        doubt.crash();
        for alone in [&[0_usize], &[1]] {
            doubt.opened(alone, |core, _, lu| async move { holds(&core, &lu, 4).await });
            doubt.crash();
            doubt.opened(&[0, 1], |core, pool, lu| async move {
                catch_up(&pool, &lu).await;
                holds(&core, &lu, 4).await;
            });
            doubt.crash();
        }
    }
}

/// The copy that is in doubt misses a write: it counted until then, and says that it does not.
#[test]
fn what_is_in_doubt_and_misses_a_write_is_stale() {
    for seed in 0..4 {
        let doubt = Doubt::new(seed);
        let disks = doubt.disks.clone();
        doubt.opened(&[0, 1], move |core, pool, lu| async move {
            assert!(is_in_doubt(&pool));
            kill(&disks[1]);
            write(&core, &lu, 3).await;
            assert_eq!(pool.stale_groups(LU), [1]);
            disks[1].heal();
        });
        doubt.crash();
        let kept = doubt.kept.clone();
        doubt.live(|core| async move {
            let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
            let seat = pool.seat(LU).map(drop);
            assert!(matches!(seat, Err(LuError::Pool(PoolError::NoCopy(_)))), "{seat:?}");
        });
        doubt.crash();
        doubt.opened(&[0, 1], |core, pool, lu| async move {
            holds(&core, &lu, 3).await;
            catch_up(&pool, &lu).await;
            holds(&core, &lu, 3).await;
        });
    }
}

/// What was read of a copy is the same in the next one that counts, also when power fails.
#[test]
fn what_was_read_in_doubt_is_durable_when_the_copy_is_gone() {
    for seed in 0..24 {
        let doubt = Doubt::new(seed);
        let (disks, seen) = (doubt.disks.clone(), Arc::new(Mutex::new(Vec::new())));
        let read = seen.clone();
        doubt.opened(&[0, 1], move |core, pool, lu| async move {
            assert!(is_in_doubt(&pool));
            disks[0].fault(Fault::always(On::Write, Harm::Errno(5)));
            let (device, data) = (lu.device(&core), Buffer::from_bytes(&[NEW; 4096]));
            let write = async move { device.io(&Request::write(LU_BYTES / 2, data.sgl())).await };
            let written = core.spawn_task(write);
            // Of the one or the other, while it goes.
            *read.lock().unwrap() = values(&core, &lu).await;
            written.await.unwrap();
            assert_eq!(pool.stale_groups(LU), [0]);
            disks[0].heal();
        });
        crash(&doubt.world, &doubt.host, &doubt.disks, true);
        doubt.opened(&[0, 1], move |core, pool, lu| async move {
            assert_eq!(pool.stale_groups(LU), [0]);
            assert_eq!(values(&core, &lu).await, *seen.lock().unwrap());
        });
    }
}

/// A copy that is being brought up to date is not the one that others are to be like: the LU cannot
/// be without the one that has everything.
#[test]
fn what_is_in_doubt_is_read_where_everything_is() {
    with_disks(5, |core, disks| async move {
        let pool = find(&core, &[0, 1]).await.unwrap().open(0).await.unwrap();
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        kill(&disks[0]);
        write(&core, &lu, NEW).await;
        disks[0].heal();
        while lu.mend(1).await.unwrap().bytes == 0 {}
        write(&core, &lu, 3).await;
        assert_eq!(pool.stale_groups(LU), [0]);
        // The LU fails, and what was overwritten stays open.
        disks[1].fault(Fault::always(On::Sync, Harm::Errno(5)));
        lu.device(&core).io(&Request::flush()).await.unwrap_err();
        lu.close().await;
        drop(lu);
        disks.iter().for_each(Disk::heal);
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        assert!(is_in_doubt(&pool));
        disks[1].fault(Fault::always(On::Write, Harm::Errno(5)));
        holds(&core, &lu, 3).await;
        // Nor can what is in doubt be written, and it is stale before anything else.
        kill(&disks[0]);
        disks[1].heal();
        holds(&core, &lu, 3).await;
        write(&core, &lu, 4).await;
        assert!(!is_in_doubt(&pool));
    });
}

/// An LU that is closed before what was in doubt is settled is in doubt when it is opened next.
#[test]
fn what_is_in_doubt_outlives_who_closes_the_lu_at_once() {
    for seed in 0..12 {
        let doubt = Doubt::new(seed);
        let disks = doubt.disks.clone();
        doubt.opened(&[0, 1], move |core, pool, lu| async move {
            assert!(is_in_doubt(&pool));
            lu.close().await;
            drop(lu);
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let before = values(&core, &lu).await;
            kill(&disks[0]);
            assert_eq!(values(&core, &lu).await, before);
        });
    }
}

/// A write fails everywhere, and nobody can say of which copy: they are the same all the same, as
/// soon as they can be, and until then one of them is all that is read.
#[test]
fn copies_that_all_missed_a_write_are_made_the_same() {
    for seed in 0..12 {
        with_disks(seed, move |core, disks| async move {
            let pool = find(&core, &[0, 1]).await.unwrap().open(0).await.unwrap();
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            write(&core, &lu, OLD).await;
            let (device, data) = (lu.device(&core), Buffer::from_bytes(&[NEW; 4096]));
            let no_writes = |disk: &Disk| disk.fault(Fault::always(On::Write, Harm::Errno(5)));
            disks.iter().for_each(no_writes);
            for block in 0..4 {
                let write = Request::write(block * APART, data.sgl());
                device.io(&write).await.unwrap_err();
            }
            assert!(lu.has_failed() && is_in_doubt(&pool));
            disks.iter().for_each(Disk::heal);
            if seed % 2 == 0 {
                lu.reopen().await.unwrap();
            }
            let before = values(&core, &lu).await;
            if seed % 4 == 0 {
                core.sleep(Duration::from_secs(60)).await;
                assert!(!is_in_doubt(&pool));
            }
            kill(&disks[0]);
            assert_eq!(values(&core, &lu).await, before);
        });
    }
}
