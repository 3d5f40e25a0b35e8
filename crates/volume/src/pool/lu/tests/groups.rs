//! Disks of failure groups that are missing, and come back.

use std::sync::Mutex;

use rt::sim::Random;

use super::super::super::crash::loops;
use super::super::super::home::{Found, GroupBehind, Terms};
use super::*;

/// The third one is for who replaces another.
pub(super) const PATHS: [&str; 3] = ["/dev/a", "/dev/b", "/dev/c"];
pub(super) const BLOCKS: u64 = 40;
pub(super) const APART: u64 = 3 << 20;
pub(super) const LU_BYTES: u64 = 256 << 20;

pub(super) async fn find(core: &Core, disks: &[usize]) -> Result<Found, PoolError> {
    Pool::find(core, backings(core, disks).await).await
}

pub(super) async fn backings(core: &Core, disks: &[usize]) -> Vec<Arc<dyn Backing>> {
    let mut all = Vec::new();
    for disk in disks {
        all.push(backing(core, Path::new(PATHS[*disk]), true).await);
    }
    all
}

/// Opens the pool with these disks only, writes a value everywhere or finds one, and closes it.
pub(super) async fn visit(
    core: &Core,
    disks: &[usize],
    then: impl AsyncFnOnce(&Rc<Pool>, &Arc<Lu>),
) {
    let found = find(core, disks).await.unwrap();
    let pool = found.open_on(Terms { may_lack: true, ..Terms::default() }).await.unwrap();
    let lu = Lu::open(core, pool.seat(LU).unwrap()).await.unwrap();
    then(&pool, &lu).await;
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
}

/// Everything gets to where it is lacking: so many bytes.
pub(super) async fn catch_up(pool: &Rc<Pool>, lu: &Arc<Lu>) -> u64 {
    let mut bytes = 0;
    loop {
        let mended = match lu.mend(7).await {
            // What a crash has left is settled first.
            Err(error) if error.kind() == block::ErrorKind::Busy => {
                pool.core().sleep(Duration::from_millis(1)).await;
                continue;
            }
            mended => mended.unwrap(),
        };
        bytes += mended.bytes;
        if mended.lacking == 0 {
            break;
        }
    }
    pool.settle_groups().await.unwrap();
    bytes
}

/// Asserts that the pool cannot be opened with these disks, because others have more.
pub(super) async fn is_refused(core: &Core, disks: &[usize]) {
    assert!(matches!(find(core, disks).await, Err(PoolError::Behind { .. })), "{disks:?}");
}

pub(super) async fn write(core: &Core, lu: &Arc<Lu>, value: u8) {
    let (device, data) = (lu.device(core), Buffer::from_bytes(&[value; 4096]));
    for block in 0..BLOCKS {
        device.io(&Request::write(block * APART, data.sgl())).await.unwrap();
    }
    device.io(&Request::flush()).await.unwrap();
}

pub(super) async fn holds(core: &Core, lu: &Arc<Lu>, value: u8) {
    let (device, into) = (lu.device(core), Buffer::zeroed(4096));
    for block in 0..BLOCKS {
        device.io(&Request::read(block * APART, into.sgl())).await.unwrap();
        assert!(into.to_vec().iter().all(|byte| *byte == value), "block {block}, not {value}");
    }
}

fn with_pool<F: Future<Output = ()> + 'static>(seed: u64, f: impl FnOnce(Core) -> F + 'static) {
    with_disks(seed, |core, _| f(core));
}

/// The same for one who does something to the disks.
pub(super) fn with_disks<F: Future<Output = ()> + 'static>(
    seed: u64,
    f: impl FnOnce(Core, [Disk; 3]) -> F + 'static,
) {
    with_bare_disks(seed, |core, disks| async move {
        make(core.clone()).await;
        f(core, disks).await;
    });
}

/// The same without a pool on them.
pub(super) fn with_bare_disks<F: Future<Output = ()> + 'static>(
    seed: u64,
    f: impl FnOnce(Core, [Disk; 3]) -> F + 'static,
) {
    let world = World::new(seed, Options::swarm(seed));
    let host = world.host("host");
    let disks = attached(&world, &host, PATHS, DISK_BYTES);
    let done = world.block_on(&host.core(), |core| f(core, disks));
    done.expect("it ends");
}

/// A pool of two disks, each a group of its own.
pub(super) async fn make(core: Core) {
    let mut disks = Vec::new();
    for (group, path) in (0..2).zip(PATHS) {
        let backing = backing(&core, Path::new(path), true).await;
        disks.push(NewDisk { backing, pv: [group as u8 + 7; 16], group });
    }
    let pool = Pool::format(&core, new_pool(), disks).await.unwrap();
    let lu = first_lu(&core, &pool, LU_BYTES).await;
    write(&core, &lu, 1).await;
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
}

#[test]
fn a_copy_that_was_missing_is_not_read_before_it_has_everything() {
    for away in [0, 1] {
        with_pool(away, move |core| async move {
            let (away, here) = (away as usize, 1 - away as usize);
            let found = find(&core, &[here]).await.unwrap();
            assert_eq!(found.absent(), 1);
            assert!(matches!(found.open(0).await, Err(PoolError::Missing { wanted: 2, found: 1 })));
            visit(&core, &[here], async |_, lu| {
                holds(&core, lu, 1).await;
                write(&core, lu, 2).await;
            })
            .await;
            // It is back, and only known as what it is.
            visit(&core, &[0, 1], async |pool, lu| {
                assert_eq!(pool.stale_groups(LU), [away as u16]);
                holds(&core, lu, 2).await;
                assert!(lu.mend(1).await.unwrap().lacking > 0);
                write(&core, lu, 3).await;
            })
            .await;
            // Alone it says itself that it lacks something, and spoils nothing.
            is_refused(&core, &[away]).await;
            visit(&core, &[0, 1], async |pool, lu| {
                holds(&core, lu, 3).await;
                catch_up(pool, lu).await;
            })
            .await;
            visit(&core, &[away], async |_, lu| holds(&core, lu, 3).await).await;
        });
    }
}

#[test]
fn a_copy_that_was_brought_up_to_date_is_as_good_as_the_other() {
    with_pool(3, |core| async move {
        visit(&core, &[1], async |_, lu| write(&core, lu, 2).await).await;
        visit(&core, &[0, 1], async |pool, lu| {
            catch_up(pool, lu).await;
            assert_eq!((pool.stale_groups(LU), pool.lacks(LU, 0).0), (vec![], 0));
            write(&core, lu, 3).await;
        })
        .await;
        visit(&core, &[0], async |_, lu| holds(&core, lu, 3).await).await;
    });
}

#[test]
fn a_copy_that_has_caught_up_is_the_last_one_before_that_was_said() {
    with_pool(4, |core| async move {
        visit(&core, &[1], async |_, lu| write(&core, lu, 2).await).await;
        visit(&core, &[0, 1], async |pool, lu| {
            // Everything is there; it is marked by who finds that nothing lacks.
            let slabs = pool.granted(LU).unwrap().slabs.len() as u64;
            let behind = GroupBehind { group: 0, slabs, lacking: slabs };
            assert_eq!(pool.behind(), [behind]);
            assert_eq!(lu.mend(1).await.unwrap().lacking as u64, slabs);
            assert_eq!(pool.behind(), [GroupBehind { lacking: slabs - 1, ..behind }]);
            assert!(lu.mend(1000).await.unwrap().lacking > 0);
            assert_eq!((pool.stale_groups(LU), pool.lacks(LU, 0).0), (vec![0], 0));
            assert_eq!(pool.behind(), [GroupBehind { lacking: 0, ..behind }]);
            let first = pool.granted(LU).unwrap().first.unwrap();
            let other = pool.shared.places.all(first).find(|copy| copy.group == 1).unwrap();
            pool.mark_stale(first, other.home).await.unwrap();
            assert_eq!(pool.stale_groups(LU), [1]);
            write(&core, lu, 3).await;
            let last = pool.shared.places.all(first).find(|copy| copy.group == 0).unwrap();
            let refused = pool.mark_stale(first, last.home).await;
            assert!(matches!(refused, Err(PoolError::LastCopy { .. })));
        })
        .await;
        visit(&core, &[0, 1], async |pool, lu| {
            assert_eq!(pool.stale_groups(LU), [1]);
            holds(&core, lu, 3).await;
        })
        .await;
    });
}

#[test]
fn what_was_granted_and_taken_back_meanwhile_is_known_when_a_disk_comes_back() {
    with_pool(5, |core| async move {
        visit(&core, &[1], async |pool, lu| {
            let device = lu.device(&core);
            device.io(&Request::plain(Op::Discard, 0, LU_BYTES)).await.unwrap();
            device.io(&Request::flush()).await.unwrap();
            // Numbers that the other disk knows as those of the first LU.
            let new = NewLu { id: [4; 16], layer: [5; 16], about: about(LU_BYTES, 512) };
            let other = Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap();
            write(&core, &other, 9).await;
            write(&core, lu, 2).await;
            other.close().await;
            drop(other);
        })
        .await;
        visit(&core, &[0, 1], async |pool, lu| {
            let other = Lu::open(&core, pool.seat([4; 16]).unwrap()).await.unwrap();
            for lu in [lu, &other] {
                catch_up(pool, lu).await;
            }
            other.close().await;
            drop(other);
        })
        .await;
        visit(&core, &[0], async |pool, lu| {
            holds(&core, lu, 2).await;
            let other = Lu::open(&core, pool.seat([4; 16]).unwrap()).await.unwrap();
            holds(&core, &other, 9).await;
            other.close().await;
            drop(other);
        })
        .await;
    });
}

/// Another disk in the place of the second one, without which the pool is open.
async fn replace(core: &Core, pool: &Rc<Pool>) {
    let backing = backing(core, Path::new(PATHS[2]), true).await;
    let disk = pool.prepare(NewDisk { backing, pv: [9; 16], group: 1 }).await.unwrap();
    pool.admit(disk).await.unwrap();
    pool.abandon([8; 16], 1).await.unwrap();
}

#[test]
fn a_disk_that_never_comes_back_is_replaced() {
    with_pool(7, |core| async move {
        visit(&core, &[0], async |pool, lu| {
            write(&core, lu, 2).await;
            replace(&core, pool).await;
            assert_eq!(pool.absent(), 0);
            write(&core, lu, 3).await;
        })
        .await;
        // It has some of it, and not all.
        is_refused(&core, &[2]).await;
        visit(&core, &[0, 2], async |_, lu| {
            holds(&core, lu, 3).await;
            assert!(lu.mend(1).await.unwrap().lacking > 0);
        })
        .await;
        is_refused(&core, &[2]).await;
        visit(&core, &[0, 2], async |pool, lu| {
            catch_up(pool, lu).await;
            assert_eq!((pool.stale_groups(LU), pool.lacks(LU, 0).0), (vec![], 0));
        })
        .await;
        // The one that was replaced is none of them, whatever it says of itself.
        let all = find(&core, &[0, 1, 2]).await;
        assert!(matches!(all, Err(PoolError::Replaced { disk }) if disk == PATHS[1]));
        assert_eq!(find(&core, &[0, 2]).await.unwrap().absent(), 0);
        visit(&core, &[2], async |_, lu| {
            holds(&core, lu, 3).await;
            write(&core, lu, 4).await;
        })
        .await;
        visit(&core, &[0, 2], async |pool, lu| {
            holds(&core, lu, 4).await;
            catch_up(pool, lu).await;
        })
        .await;
        visit(&core, &[0], async |_, lu| holds(&core, lu, 4).await).await;
    });
}

#[test]
fn an_lu_that_a_copy_knows_nothing_of_is_not_taken_for_removed() {
    const NEW: [u8; 16] = [4; 16];
    with_pool(9, |core| async move {
        visit(&core, &[0], async |pool, _| {
            let new = NewLu { id: NEW, layer: [5; 16], about: about(LU_BYTES, 512) };
            let lu = Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap();
            write(&core, &lu, 9).await;
            lu.close().await;
        })
        .await;
        visit(&core, &[0, 1], async |pool, lu| {
            catch_up(pool, lu).await;
        })
        .await;
        is_refused(&core, &[1]).await;
        visit(&core, &[0, 1], async |pool, _| {
            let lu = Lu::open(&core, pool.seat(NEW).unwrap()).await.unwrap();
            holds(&core, &lu, 9).await;
            catch_up(pool, &lu).await;
            lu.close().await;
        })
        .await;
        visit(&core, &[1], async |pool, _| {
            let lu = Lu::open(&core, pool.seat(NEW).unwrap()).await.unwrap();
            holds(&core, &lu, 9).await;
            lu.close().await;
        })
        .await;
    });
}

#[test]
fn a_group_that_is_added_gets_everything_while_it_is_used() {
    with_pool(11, |core| async move {
        // The second disk leaves for good: one group is left.
        visit(&core, &[0], async |pool, lu| {
            pool.abandon([8; 16], 1).await.unwrap();
            write(&core, lu, 2).await;
        })
        .await;
        visit(&core, &[0], async |pool, lu| {
            assert_eq!((pool.groups(), pool.absent()), (vec![0], 0));
            let backing = backing(&core, Path::new(PATHS[2]), true).await;
            let new = NewDisk { backing, pv: [9; 16], group: 1 };
            let disk = pool.prepare(new).await.unwrap();
            write(&core, lu, 3).await;
            pool.admit(disk).await.unwrap();
            assert_eq!((pool.groups(), pool.stale_groups(LU)), (vec![0, 1], vec![1]));
            let id = [4; 16];
            let new = NewLu { id, layer: [5; 16], about: about(LU_BYTES, 512) };
            let other = Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap();
            // It is in both from the beginning.
            assert_eq!((pool.stale_groups(id), pool.lacks(id, 0).0), (vec![], 0));
            write(&core, &other, 8).await;
            other.close().await;
            assert!(lu.mend(1).await.unwrap().lacking > 0);
            write(&core, lu, 4).await;
        })
        .await;
        is_refused(&core, &[2]).await;
        // What it has already is good.
        visit(&core, &[0, 2], async |pool, lu| {
            assert_eq!(pool.stale_groups(LU), [1]);
            holds(&core, lu, 4).await;
            catch_up(pool, lu).await;
            write(&core, lu, 5).await;
        })
        .await;
        visit(&core, &[2], async |_, lu| holds(&core, lu, 5).await).await;
    });
}

/// How often it is cut short.
const ROUNDS: u32 = 7;

/// What the records of a pool say whose second disk is being replaced.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// The first disk is the only one.
    Alone,
    Prepared,
    Admitted,
    Abandoned,
    /// Everything is on both.
    Done,
}

/// Goes on where a process that was killed has left it.
async fn go_on(core: Core, told: Arc<Mutex<Step>>) {
    let step = *told.lock().unwrap();
    // Before it is a member it counts only where it is known already.
    let found = match find(&core, &[0, 2]).await {
        Ok(found) => found,
        Err(_) if step == Step::Alone => find(&core, &[0]).await.unwrap(),
        Err(error) => panic!("{error}"),
    };
    let pool = found.open_on(Terms { may_lack: true, ..Terms::default() }).await.unwrap();
    let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
    holds(&core, &lu, 1).await;
    let tell = async |step| {
        *told.lock().unwrap() = step;
        core.sleep(Duration::from_millis(5)).await;
    };
    let disk = match pool.disk([9; 16]) {
        Some(disk) => disk,
        None => {
            let backing = backing(&core, Path::new(PATHS[2]), true).await;
            pool.prepare(NewDisk { backing, pv: [9; 16], group: 1 }).await.unwrap()
        }
    };
    tell(Step::Prepared).await;
    pool.admit(disk).await.unwrap();
    tell(Step::Admitted).await;
    // As the records know: it has gone only once.
    if pool.absent() > 0 {
        pool.abandon([8; 16], 1).await.unwrap();
    }
    tell(Step::Abandoned).await;
    catch_up(&pool, &lu).await;
    tell(Step::Done).await;
}

#[test]
fn a_replacement_that_is_cut_short_goes_on() {
    let (mut cuts, mut done) = ([0; 5], 0);
    let seeds = 12 * loops();
    for seed in 0..seeds {
        let world = World::new(seed, Options::swarm(seed));
        let (host, mut random) = (world.host("host"), Random::new(seed ^ 0x7e91));
        let attach = |path: &str| {
            let disk = world.disk(DISK_BYTES);
            disk.attach(&host, path);
            disk
        };
        let all = PATHS.map(attach);
        world.block_on(&host.core(), make).expect("it ends");
        let told = Arc::new(Mutex::new(Step::Alone));
        for round in 0..ROUNDS {
            let shared = told.clone();
            host.core().remote().send(move |core| {
                core.spawn(go_on(core.clone(), shared));
            });
            // The last one has all the time that it takes.
            let most = if round + 1 == ROUNDS { 60_000 } else { 1 + random.below(50 << round) };
            world.run_for(Duration::from_millis(most));
            let now = *told.lock().unwrap();
            cuts[now as usize] += 1;
            crash(&world, &host, &all, random.coin());
            // Alone it is used when all of it is there, and not before.
            let alone = world.block_on(&host.core(), move |core| async move {
                let is_enough = find(&core, &[2]).await.is_ok();
                assert!(is_enough || now != Step::Done);
                if is_enough {
                    visit(&core, &[2], async |_, lu| holds(&core, lu, 1).await).await;
                }
            });
            alone.expect("it ends");
        }
        done += u64::from(*told.lock().unwrap() == Step::Done);
    }
    println!("cut short {cuts:?}");
    assert_eq!(done, seeds);
    assert!(cuts.iter().all(|count| *count > 0), "{cuts:?}");
}

/// Slabs that nobody uses are granted, and taken back.
async fn give_and_take(core: Core, own: Vec<u32>) {
    let pool = find(&core, &[0, 1]).await.unwrap().open(0).await.unwrap();
    loop {
        pool.grant(LU, 2, false).await.unwrap();
        let mut others = pool.granted(LU).unwrap().slabs;
        others.retain(|slab| !own.contains(slab));
        // There are always some of both kinds: that everybody knows, and that not.
        for slab in others.into_iter().rev().skip(2) {
            pool.take_back(LU, &[slab]).await.unwrap();
        }
    }
}

/// Gives the failure group that lacks a slab which the other one has, if a crash has left that.
async fn half_granted(core: &Core) -> Option<u16> {
    let mut half = None;
    visit(core, &[0, 1], async |pool, _| {
        let slabs = pool.granted(LU).unwrap().slabs;
        half = [0, 1].into_iter().find(|group| slabs.iter().any(|it| !pool.is_whole(*it, *group)));
        let Some(group) = half else { return };
        assert_eq!(pool.stale_groups(LU), [group]);
        assert!(!pool.can_lose(1 - u32::from(group)));
    })
    .await;
    half
}

#[test]
fn a_copy_that_does_not_know_a_slab_is_not_left_alone_with_the_lu() {
    let mut found = [0; 3];
    for seed in 0..40 * loops() {
        let world = World::new(seed, Options::swarm(seed));
        let (host, mut random) = (world.host("host"), Random::new(seed ^ 0x4a1f));
        let all = attached(&world, &host, PATHS, DISK_BYTES);
        let own = world.block_on(&host.core(), |core| async move {
            make(core.clone()).await;
            let mut own = Vec::new();
            visit(&core, &[0, 1], async |pool, _| own = pool.granted(LU).unwrap().slabs).await;
            own
        });
        let own = own.expect("it ends");
        for _ in 0..3 {
            let own = own.clone();
            let begin = |core: &Core| core.spawn(give_and_take(core.clone(), own));
            host.core().remote().send(begin);
            world.run_for(Duration::from_micros(random.below(20_000)));
            crash(&world, &host, &all, random.coin());
            let look = |core| async move { half_granted(&core).await };
            let half = world.block_on(&host.core(), look).expect("it ends");
            found[half.map_or(2, usize::from)] += 1;
        }
        let done = world.block_on(&host.core(), |core| async move {
            if let Some(group) = half_granted(&core).await {
                is_refused(&core, &[usize::from(group)]).await;
            }
            visit(&core, &[0, 1], async |pool, lu| _ = catch_up(pool, lu).await).await;
            for disk in [0, 1] {
                visit(&core, &[disk], async |_, lu| holds(&core, lu, 1).await).await;
                visit(&core, &[0, 1], async |pool, lu| _ = catch_up(pool, lu).await).await;
            }
        });
        done.expect("it ends");
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
}
