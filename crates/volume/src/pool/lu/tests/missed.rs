//! What copies have missed while they were away, as it is known to whoever opens the pool next.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rt::sim::{Fault, Harm, On, Random};

use super::super::super::crash::seeds;
use super::super::service::Service;
use super::deaths::another;
use super::groups::{LU_BYTES, PATHS, catch_up, find};
use super::pool_forces::force;
use super::splits::Kept;
use super::*;

const UNIT: u64 = 1 << 20;
/// Of several slabs, of which each has several regions.
const UNITS: u64 = 100;
const ALL: u64 = UNITS * UNIT;

/// What units of the LU hold.
type Values = BTreeMap<u64, u8>;

/// A pool of two disks or three, each a group of its own, from outside.
struct Away {
    world: World,
    host: Host,
    disks: [Disk; 3],
    values: Arc<Mutex<Values>>,
    kept: Kept,
}

/// An LU that is open.
struct Here {
    core: Core,
    pool: Rc<Pool>,
    lu: Arc<Lu>,
    values: Arc<Mutex<Values>>,
}

impl Away {
    fn new(seed: u64, has_sums: bool) -> Self {
        Self::of_groups(2, seed, has_sums)
    }

    fn of_groups(groups: u16, seed: u64, has_sums: bool) -> Self {
        let world = World::new(seed, Options::swarm(seed));
        let host = world.host("host");
        let disks = attached(&world, &host, PATHS, DISK_BYTES);
        let away = Self { world, host, disks, values: Arc::default(), kept: Kept::of_age(0) };
        let values = away.values.clone();
        away.live(move |core| async move {
            let mut disks = Vec::new();
            for (group, path) in (0..groups).zip(PATHS) {
                let backing = backing(&core, Path::new(path), true).await;
                disks.push(NewDisk { backing, pv: [group as u8 + 7; 16], group });
            }
            let new = if has_sums { new_pool_with_sums() } else { new_pool() };
            let pool = Pool::format(&core, new, disks).await.unwrap();
            let lu = first_lu(&core, &pool, LU_BYTES).await;
            let here = Here { core, pool, lu, values };
            for unit in 0..UNITS {
                here.write(unit, 1).await;
            }
            here.rest().await;
            here.close().await;
        });
        away
    }

    fn live<F: Future<Output = ()> + 'static>(&self, f: impl FnOnce(Core) -> F + 'static) {
        self.world.block_on(&self.host.core(), f).expect("it ends");
    }

    /// A server that has these disks, until it is killed.
    fn with<F: Future<Output = ()> + 'static>(
        &self,
        disks: &'static [usize],
        f: impl FnOnce(Here) -> F + 'static,
    ) {
        let (kept, values) = (self.kept.clone(), self.values.clone());
        self.live(move |core| async move {
            let pool = kept.open(find(&core, disks).await.unwrap()).await;
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            f(Here { core, pool, lu, values }).await;
        });
        self.crash();
    }

    fn crash(&self) {
        self.crash_with(false);
    }

    fn crash_with(&self, power: bool) {
        crash(&self.world, &self.host, &self.disks, power);
    }

    /// Makes one disk what another one is.
    fn copy(&self, from: usize, to: usize) {
        self.live(move |core| async move {
            let disk = async |disk: usize| {
                backing(&core, Path::new(PATHS[disk]), true).await.device(&core)
            };
            let (from, to) = (disk(from).await, disk(to).await);
            let buffer = Buffer::zeroed(UNIT as usize);
            for at in (0..DISK_BYTES).step_by(UNIT as usize) {
                from.io(&Request::read(at, buffer.sgl())).await.unwrap();
                to.io(&Request::write(at, buffer.sgl())).await.unwrap();
            }
        });
        self.crash();
    }

    /// Each of them has everything.
    fn is_everywhere(&self, all: [&'static [usize]; 2]) {
        for disks in all {
            self.with(disks, |here| async move { here.holds().await });
            self.with(&[0, 1], |here| async move {
                here.catch_up().await;
            });
        }
    }
}

async fn take_in(core: &Core, pool: &Rc<Pool>, disk: usize) {
    pool.take_in(backing(core, Path::new(PATHS[disk]), true).await).await.unwrap();
}

/// The LU is not there: no copy with everything is.
fn has_no_copy(pool: &Rc<Pool>) {
    let seat = pool.seat(LU).map(drop);
    assert!(matches!(seat, Err(LuError::Pool(PoolError::NoCopy(LU)))), "{seat:?}");
}

impl Here {
    async fn write(&self, unit: u64, value: u8) {
        let data = Buffer::from_bytes(&vec![value; UNIT as usize]);
        let device = self.lu.device(&self.core);
        device.io(&Request::write(unit * UNIT, data.sgl())).await.unwrap();
        self.values.lock().unwrap().insert(unit, value);
    }

    async fn holds(&self) {
        let into = Buffer::zeroed(UNIT as usize);
        let device = self.lu.device(&self.core);
        let values = self.values.lock().unwrap().clone();
        for (unit, value) in values {
            device.io(&Request::read(unit * UNIT, into.sgl())).await.unwrap();
            let found = into.to_vec();
            assert!(found.iter().all(|it| *it == value), "{unit}: {}, not {value}", found[0]);
        }
    }

    async fn catch_up(&self) -> u64 {
        let bytes = catch_up(&self.pool, &self.lu).await;
        assert_eq!(self.pool.stale_groups(LU), [0; 0]);
        bytes
    }

    /// Writes something, and has some of it in the root.
    async fn some(&self, random: &mut Random) {
        for _ in 0..random.below(4) {
            self.write(random.below(UNITS + 30), 1 + random.below(250) as u8).await;
            if random.below(3) == 0 {
                self.checkpoint().await;
            }
        }
    }

    /// The root says all that the journal does, and the journal begins again.
    async fn checkpoint(&self) {
        let device = self.lu.device(&self.core);
        device.io(&Request::flush()).await.unwrap();
        self.root().await;
    }

    async fn root(&self) {
        let root = |service: Rc<Service>| async move {
            let about = service.about();
            service.describe(about).await
        };
        self.lu.owner.call(root).await.unwrap().unwrap();
    }

    /// What was written is known to be durable: whoever writes roots looks for that.
    async fn rest(&self) {
        for _ in 0..3 {
            self.checkpoint().await;
            self.core.sleep(Duration::from_secs(1)).await;
        }
    }

    /// The last disk that was away is here again.
    async fn take_in(&self, disk: usize) {
        take_in(&self.core, &self.pool, disk).await;
        assert_eq!(self.pool.absent(), 0);
    }

    async fn close(self) {
        self.lu.close().await;
        drop(self.lu);
        self.pool.close().await.unwrap();
    }
}

#[test]
fn what_a_copy_has_missed_is_known_over_crashes() {
    for (seed, has_sums) in [(0, false), (1, true), (2, false), (3, true)] {
        let (here, gone): (&[usize], &[usize]) = if seed < 2 { (&[0], &[1]) } else { (&[1], &[0]) };
        let away = Away::new(seed, has_sums);
        // Nobody is away, and what is written is not durable everywhere when it is.
        away.with(&[0, 1], |here| async move { here.write(20, 2).await });
        // What is in the journal of one, in the root of the next, and was never there before.
        away.with(here, |here| async move {
            here.write(30, 3).await;
            here.write(UNITS + 20, 3).await;
        });
        away.with(here, |here| async move {
            here.write(50, 4).await;
            here.checkpoint().await;
            here.write(60, 5).await;
            here.write(60, 6).await;
        });
        away.with(here, |here| async move { here.holds().await });
        away.with(&[0, 1], move |here| async move {
            let bytes = here.catch_up().await;
            assert!(bytes > 4 * UNIT && bytes < ALL / 3, "{bytes} with {has_sums}");
            here.holds().await;
        });
        away.with(gone, |here| async move { here.holds().await });
    }
}

/// The root is written as one of them turns out not to have what was written before.
#[test]
fn what_is_not_durable_where_a_sync_fails_is_brought() {
    for seed in 20..23 {
        let away = Away::new(seed, false);
        let (kept, values, disks) = (away.kept.clone(), away.values.clone(), away.disks.clone());
        away.live(move |core| async move {
            let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let here = Here { core, pool, lu, values };
            here.write(20, 2).await;
            here.write(UNITS + 5, 2).await;
            disks[1].fault(Fault::always(On::Sync, Harm::Errno(5)));
            here.root().await;
            assert_eq!(here.pool.stale_groups(LU), [1]);
            disks[1].heal();
        });
        away.crash_with(true);
        away.with(&[0, 1], |here| async move {
            here.holds().await;
            here.catch_up().await;
        });
        away.with(&[1], |here| async move { here.holds().await });
    }
}

#[test]
fn who_brings_copies_up_to_date_goes_on_where_another_one_was_killed() {
    let away = Away::new(5, true);
    away.with(&[1], |here| async move {
        for unit in 0..UNITS {
            here.write(unit, 2).await;
        }
        here.checkpoint().await;
    });
    away.with(&[0, 1], |here| async move {
        // What a crash has left is settled first.
        while here.lu.mend(1).await.map_or(true, |mended| mended.lacking > 9) {
            here.core.sleep(Duration::from_millis(1)).await;
        }
        // Which slabs have everything is known to the root.
        here.rest().await;
    });
    away.with(&[0, 1], |here| async move {
        let bytes = here.catch_up().await;
        assert!(bytes > 0 && bytes < ALL * 3 / 4, "{bytes}");
        here.holds().await;
    });
    away.is_everywhere([&[0], &[1]]);
}

/// Blocks that go from a layer to another one lie elsewhere from then on, and nobody has written
/// them.
#[test]
fn what_was_folded_meanwhile_is_brought_too() {
    let away = Away::new(9, false);
    away.with(&[0, 1], |here| async move {
        here.lu.snapshot([70; 16]).await.unwrap();
        let (device, data) = (here.lu.device(&here.core), Buffer::from_bytes(&[1; 4096]));
        for unit in 0..UNITS {
            device.io(&Request::write(unit * UNIT, data.sgl())).await.unwrap();
        }
        here.rest().await;
    });
    away.with(&[1], |here| async move {
        // Only the journal knows of these.
        for _ in 0..4 {
            assert_ne!(here.lu.fold(BASE, 8).await.unwrap(), Folded::Gone);
        }
    });
    away.with(&[0, 1], |here| async move {
        here.catch_up().await;
    });
    away.is_everywhere([&[0], &[1]]);
}

/// The first group gives the numbers, and the other one may know the same ones from before.
#[test]
fn slabs_that_went_and_came_meanwhile_are_brought_whole() {
    for with_root in [false, true] {
        let away = Away::new(6, false);
        away.with(&[0], |here| async move {
            let (device, (_, free)) = (here.lu.device(&here.core), here.pool.slabs());
            device.io(&Request::plain(Op::Discard, 0, LU_BYTES)).await.unwrap();
            here.values.lock().unwrap().values_mut().for_each(|value| *value = 0);
            while here.pool.slabs().1 < free + 4 {
                here.checkpoint().await;
                here.core.sleep(Duration::from_millis(10)).await;
            }
        });
        // The next one begins with the lowest numbers again.
        away.with(&[0], move |here| async move {
            for unit in (0..UNITS).rev() {
                here.write(unit, 3).await;
            }
            if with_root {
                here.checkpoint().await;
                here.checkpoint().await;
            }
        });
        away.with(&[0, 1], |here| async move {
            here.catch_up().await;
        });
        away.is_everywhere([&[1], &[0]]);
    }
}

#[test]
fn a_disk_that_was_missing_is_taken_back_while_its_pool_is_used() {
    for (seed, has_sums) in [(10, false), (11, true)] {
        let away = Away::new(seed, has_sums);
        away.with(&[1], |here| async move { here.write(20, 2).await });
        away.with(&[1], |here| async move {
            here.write(30, 3).await;
            here.take_in(0).await;
            assert_eq!(here.pool.stale_groups(LU), [0]);
            here.write(40, 4).await;
            let bytes = here.catch_up().await;
            assert!(bytes > 2 * UNIT && bytes < ALL / 3, "{bytes}");
            here.write(50, 5).await;
        });
        away.with(&[0], |here| async move { here.holds().await });
        away.with(&[0], |here| async move {
            here.write(60, 6).await;
            here.take_in(1).await;
        });
        // Another one has been here, and lacks something.
        away.with(&[0, 1], |here| async move {
            assert_eq!(here.pool.stale_groups(LU), [1]);
            here.catch_up().await;
        });
        away.is_everywhere([&[1], &[0]]);
    }
}

#[test]
fn what_only_a_missing_disk_has_is_there_when_it_is_back() {
    let away = Away::new(12, false);
    let disks = away.disks.clone();
    away.with(&[0, 1], move |here| async move {
        disks[1].fault(Fault::always(On::Write, Harm::Errno(5)));
        here.write(20, 2).await;
        disks[1].heal();
        assert_eq!(here.pool.stale_groups(LU), [1]);
    });
    let (kept, values) = (away.kept.clone(), away.values.clone());
    away.live(move |core| async move {
        let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
        has_no_copy(&pool);
        take_in(&core, &pool, 0).await;
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        let here = Here { core, pool, lu, values };
        assert_eq!(here.pool.stale_groups(LU), [1]);
        here.holds().await;
        here.write(30, 3).await;
        here.catch_up().await;
    });
    away.crash();
    away.is_everywhere([&[1], &[0]]);
}

/// Another one that was missing has missed something as well.
#[test]
fn what_comes_back_and_is_stale_is_no_copy() {
    let away = Away::of_groups(3, 14, false);
    let disks = away.disks.clone();
    away.with(&[0, 1, 2], move |here| async move {
        for disk in [&disks[1], &disks[2]] {
            disk.fault(Fault::always(On::Write, Harm::Errno(5)));
            here.write(20, 2).await;
            disk.heal();
        }
        assert_eq!(here.pool.stale_groups(LU), [1, 2]);
    });
    let (kept, values) = (away.kept.clone(), away.values.clone());
    away.live(move |core| async move {
        let pool = kept.open(find(&core, &[2]).await.unwrap()).await;
        has_no_copy(&pool);
        take_in(&core, &pool, 1).await;
        has_no_copy(&pool);
        take_in(&core, &pool, 0).await;
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        let here = Here { core, pool, lu, values };
        here.holds().await;
        here.catch_up().await;
    });
    away.crash();
    for disks in [&[0], &[1], &[2_usize]] {
        away.with(disks, |here| async move { here.holds().await });
        away.with(&[0, 1, 2], |here| async move {
            here.catch_up().await;
        });
    }
}

/// A disk is lost that has the only good copy of an LU: that keeps it.
#[test]
fn the_only_copy_is_what_it_was_when_its_disk_is_back() {
    let away = Away::new(15, false);
    let disks = away.disks.clone();
    away.with(&[0, 1], move |here| async move {
        let unwritable = || Fault::always(On::Write, Harm::Errno(5));
        disks[1].fault(unwritable());
        here.write(20, 2).await;
        disks[1].heal();
        disks[0].fault(unwritable());
        let other = another(&here.core, &here.pool, 20).await;
        assert_eq!(here.pool.lost().len(), 1);
        disks[0].heal();
        here.pool.rejoin(0).await.unwrap();
        assert_eq!(here.pool.stale_groups(LU), [1]);
        here.write(30, 3).await;
        catch_up(&here.pool, &other).await;
        here.catch_up().await;
        other.close().await;
    });
    away.with(&[1], |here| async move { here.holds().await });
}

/// Disks that are none of the missing ones are refused, whatever they say.
#[test]
fn nothing_else_is_taken_for_a_disk_that_was_missing() {
    let away = Away::new(13, false);
    let disks = away.disks.clone();
    away.with(&[1], move |here| async move {
        let backing = async |disk: usize| backing(&here.core, Path::new(PATHS[disk]), true).await;
        let refused = here.pool.take_in(backing(2).await).await;
        assert!(matches!(refused, Err(PoolError::Unlabelled { .. })), "{refused:?}");
        // It can be read, and not written: it is lost from then on, and comes back as others do.
        disks[0].fault(Fault::always(On::Write, Harm::Errno(5)));
        assert!(here.pool.take_in(backing(0).await).await.is_err());
        assert_eq!(here.pool.lost().len(), 1);
        here.write(20, 2).await;
        disks[0].heal();
        for lost in here.pool.lost() {
            here.pool.rejoin(lost.disk).await.unwrap();
        }
        here.catch_up().await;
    });
    away.is_everywhere([&[0], &[1]]);
    // Nobody is missed whom all others know.
    let copy = away.kept.clone();
    away.copy(1, 2);
    away.live(move |core| async move {
        let pool = copy.open(find(&core, &[0, 1]).await.unwrap()).await;
        let refused = pool.take_in(backing(&core, Path::new(PATHS[2]), true).await).await;
        assert!(matches!(refused, Err(PoolError::Replaced { .. })), "{refused:?}");
    });
}

/// One of them is away, is back, gets some of what it has missed, and is away again.
#[test]
fn disks_come_and_go_over_crashes() {
    for seed in seeds(4, &[]) {
        let away = Away::new(seed, seed % 2 == 1);
        let mut random = Random::new(seed ^ 0xa3a);
        let mut gone = 0;
        for _ in 0..12 {
            let here: &[usize] = match (random.below(3), gone) {
                (0, _) => &[0, 1],
                (_, 0) => &[1],
                _ => &[0],
            };
            let (tally, mut random) =
                (Arc::new(Mutex::new(false)), Random::new(random.below(1 << 40)));
            let is_whole = tally.clone();
            away.with(here, move |of| async move {
                of.holds().await;
                of.some(&mut random).await;
                if here.len() == 1 && random.coin() {
                    of.take_in(gone).await;
                    of.some(&mut random).await;
                }
                if of.pool.absent() == 0 && random.coin() {
                    for _ in 0..random.below(20) {
                        let _ = of.lu.mend(1).await;
                    }
                    of.some(&mut random).await;
                }
                if of.pool.absent() == 0 && random.coin() {
                    of.catch_up().await;
                    *is_whole.lock().unwrap() = true;
                    of.some(&mut random).await;
                }
            });
            if *tally.lock().unwrap() {
                gone = 1 - gone;
            }
        }
        away.with(&[0, 1], |here| async move {
            here.catch_up().await;
        });
        away.is_everywhere([&[0], &[1]]);
    }
}

/// Of what it has missed before anybody kept account nobody knows.
#[test]
fn an_old_copy_of_a_disk_is_brought_up_to_date_as_a_whole() {
    let away = Away::new(7, false);
    away.copy(1, 2);
    away.with(&[0, 1], |here| async move {
        here.write(10, 2).await;
        here.close().await;
    });
    away.with(&[0, 1], |here| async move { here.close().await });
    away.with(&[0], |here| async move { here.write(70, 3).await });
    // It is used, and is no newer for that.
    away.with(&[0, 2], |here| async move { here.holds().await });
    away.with(&[0, 2], |here| async move {
        here.write(80, 4).await;
        here.checkpoint().await;
    });
    away.with(&[0, 2], |here| async move {
        here.catch_up().await;
    });
    away.with(&[2], |here| async move { here.holds().await });
}

/// The same where it comes while its pool is used.
#[test]
fn an_old_copy_of_a_disk_that_is_taken_back_is_brought_up_to_date_as_a_whole() {
    let away = Away::new(16, false);
    away.copy(1, 2);
    away.with(&[0, 1], |here| async move {
        here.write(10, 2).await;
        here.rest().await;
        here.close().await;
    });
    away.with(&[0], |here| async move {
        here.write(70, 3).await;
        here.take_in(2).await;
        here.write(80, 4).await;
        here.catch_up().await;
    });
    away.with(&[2], |here| async move { here.holds().await });
}

/// Others went on with what nobody knows who was forced.
#[test]
fn copies_of_before_an_lu_was_forced_are_brought_up_to_date_as_a_whole() {
    let away = Away::new(8, false);
    away.with(&[0, 1], |here| async move {
        here.checkpoint().await;
        here.close().await;
    });
    let before = away.values.lock().unwrap().clone();
    away.with(&[1], |here| async move { here.write(10, 2).await });
    let (kept, values) = (away.kept.clone(), away.values.clone());
    *values.lock().unwrap() = before;
    // It says of itself that it lacks something.
    away.with(&[0, 1], |here| async move { here.close().await });
    away.live(move |core| async move {
        force(&core, &kept, &[0], 0).await.unwrap();
        let pool = kept.open(find(&core, &[0]).await.unwrap()).await;
        pool.force(LU, 0).await.unwrap();
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        let here = Here { core, pool, lu, values };
        here.holds().await;
        here.write(70, 3).await;
    });
    away.crash();
    away.with(&[0], |here| async move {
        here.write(80, 4).await;
        here.checkpoint().await;
    });
    away.with(&[0, 1], |here| async move {
        here.write(90, 5).await;
        here.checkpoint().await;
    });
    away.with(&[0, 1], |here| async move {
        here.catch_up().await;
    });
    away.is_everywhere([&[1], &[0]]);
}
