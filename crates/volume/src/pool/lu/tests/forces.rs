//! LUs whose only copy with everything is gone: another one becomes what they are, over crashes,
//! and whatever comes back later does not count.

use rt::sim::{Fault, Harm, On, Random};

use super::super::super::crash::{is_one_seed, seeds};
use super::super::super::home::{CopyAbout, Unforced};
use super::super::super::survey::survey;
use super::deaths::{another, open};
use super::groups::{LU_BYTES, PATHS, catch_up, find, holds, with_bare_disks, with_disks, write};
use super::splits::Kept;
use super::*;

const EIO: i32 = 5;

async fn is_closed(pool: &Rc<Pool>) {
    let seat = pool.seat(LU).map(drop);
    assert!(matches!(seat, Err(LuError::Pool(PoolError::NoCopy(LU)))), "{seat:?}");
}

/// What is written at 2 lies in the first group only; the LU has grown there too.
async fn diverge(core: &Core, kept: &Kept, disks: &[Disk; 3], here: &[usize]) {
    let pool = kept.open(find(core, here).await.unwrap()).await;
    let lu = open(core, &pool, LU).await;
    let fault = Fault::always(On::Write, Harm::Errno(EIO));
    // All of its slabs, and not what its table says of them.
    disks[1].fault(Fault { range: 2 << 20..u64::MAX, ..fault });
    write(core, &lu, 2).await;
    assert_eq!(pool.stale_groups(LU), [1]);
    let (device, slabs) = (lu.device(core), pool.granted(LU).unwrap().slabs.len());
    let data = Buffer::from_bytes(&[9; 1 << 20]);
    for at in (0..20).map(|index| LU_BYTES / 2 + (index << 20)) {
        device.io(&Request::write(at, data.sgl())).await.unwrap();
    }
    device.io(&Request::flush()).await.unwrap();
    assert!(pool.granted(LU).unwrap().slabs.len() > slabs);
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
    disks[1].heal();
}

#[test]
fn a_stale_copy_becomes_the_current_one_and_the_other_never_wins() {
    with_disks(1, |core, disks| async move {
        let kept = Kept::of_age(0);
        diverge(&core, &kept, &disks, &[0, 1]).await;
        // As long as the good one is here nothing is to be forced.
        let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
        assert!(matches!(pool.force(LU, 1).await, Err(Unforced::Current)));
        pool.close().await.unwrap();
        drop(pool);

        let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
        is_closed(&pool).await;
        let copies = pool.copies(LU).unwrap();
        let slabs = pool.granted(LU).unwrap().slabs.len() as u64;
        let is = CopyAbout {
            group: 1,
            is_current: false,
            is_here: true,
            missed: None,
            slabs,
            lacking: 0,
        };
        assert_eq!(copies, [is]);
        assert!(matches!(pool.force(LU, 0).await, Err(Unforced::NoCopy(0))));
        assert!(matches!(pool.force([6; 16], 1).await, Err(Unforced::Pool(PoolError::NoLu(_)))));
        pool.force(LU, 1).await.unwrap();
        let lu = open(&core, &pool, LU).await;
        assert!(matches!(pool.force(LU, 1).await, Err(Unforced::Current)));
        holds(&core, &lu, 1).await;
        write(&core, &lu, 3).await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);

        // What was the good one is back.
        let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
        assert_eq!(pool.stale_groups(LU), [0]);
        let lu = open(&core, &pool, LU).await;
        holds(&core, &lu, 3).await;
        catch_up(&pool, &lu).await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        let pool = kept.open(find(&core, &[0]).await.unwrap()).await;
        let lu = open(&core, &pool, LU).await;
        holds(&core, &lu, 3).await;
        let slabs = pool.granted(LU).unwrap().slabs.len();
        another(&core, &pool, 6).await.close().await;
        assert_eq!(pool.granted(LU).unwrap().slabs.len(), slabs);
    });
}

/// Whoever imports the pool knows what the LU is that can be forced.
#[test]
fn a_stale_copy_tells_what_its_lu_is_where_no_other_one_is_here() {
    with_disks(9, |core, disks| async move {
        let kept = Kept::of_age(0);
        diverge(&core, &kept, &disks, &[0, 1]).await;
        let said = async |here: &[usize]| {
            let survey = survey(find(&core, here).await.unwrap()).await.unwrap();
            assert_eq!(survey.lus.len(), 1);
            survey.lus.into_iter().next().unwrap().said.unwrap()
        };
        let [all, best] = [said(&[0, 1]).await, said(&[0]).await];
        assert!(!all.is_outdated && all == best);
        let stale = said(&[1]).await;
        assert!(stale.is_outdated && stale.about == all.about, "{stale:?}");
        // That nobody who opens it reads it is as before.
        let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
        is_closed(&pool).await;
        pool.close().await.unwrap();
    });
}

/// A pool with two disks in the first group.
async fn make_of_three(core: &Core) {
    let mut disks = Vec::new();
    for (disk, path) in PATHS.iter().enumerate() {
        let backing = backing(core, Path::new(path), true).await;
        disks.push(NewDisk { backing, pv: [disk as u8 + 7; 16], group: disk as u16 % 2 });
    }
    let pool = Pool::format(core, new_pool(), disks).await.unwrap();
    let lu = first_lu(core, &pool, LU_BYTES).await;
    write(core, &lu, 1).await;
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
}

/// A part of the good copy is here: it is of no use, and takes no room.
#[test]
fn what_only_stale_copies_have_goes_back_to_the_pool() {
    with_bare_disks(2, |core, disks| async move {
        make_of_three(&core).await;
        let kept = Kept::of_age(0);
        diverge(&core, &kept, &disks, &[0, 1, 2]).await;
        for parts in [[0, 1], [1, 2]] {
            let pool = kept.open(find(&core, &parts).await.unwrap()).await;
            is_closed(&pool).await;
            let copies = pool.copies(LU).unwrap();
            assert_eq!(copies[0].group, 1);
            assert!(copies[0].lacking > 0, "{copies:?}");
            let refused = pool.force(LU, 0).await;
            assert!(matches!(refused, Err(Unforced::NotHere(0) | Unforced::NoCopy(0))));
            pool.close().await.unwrap();
        }
        let pool = kept.open(find(&core, &[1, 2]).await.unwrap()).await;
        let free = pool.disks_used().iter().find(|it| it.pv == [9; 16]).unwrap().free;
        pool.force(LU, 1).await.unwrap();
        let lu = open(&core, &pool, LU).await;
        holds(&core, &lu, 1).await;
        write(&core, &lu, 3).await;
        let now = pool.disks_used().iter().find(|it| it.pv == [9; 16]).unwrap().free;
        assert!(now > free, "{now}, {free}");
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        // All are back, and the first group gets what the LU is now.
        let pool = kept.open(find(&core, &[0, 1, 2]).await.unwrap()).await;
        let lu = open(&core, &pool, LU).await;
        holds(&core, &lu, 3).await;
        catch_up(&pool, &lu).await;
        assert_eq!((pool.stale_groups(LU), pool.lacks(LU, 0).0), (vec![], 0));
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        let pool = kept.open(find(&core, &[0, 2]).await.unwrap()).await;
        holds(&core, &open(&core, &pool, LU).await, 3).await;
    });
}

/// A copy that has some of it names what it has not.
#[test]
fn a_copy_that_lacks_what_it_names_is_refused() {
    with_disks(3, |core, disks| async move {
        let kept = Kept::of_age(0);
        diverge(&core, &kept, &disks, &[0, 1]).await;
        let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
        let lu = open(&core, &pool, LU).await;
        // The first slab has the root, and the others are what they were.
        assert!(lu.mend(1).await.unwrap().lacking > 2);
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
        let refused = pool.force(LU, 1).await;
        assert!(matches!(refused, Err(Unforced::Unfit { group: 1, .. })), "{refused:?}");
        is_closed(&pool).await;
        pool.close().await.unwrap();
        drop(pool);
        // Nothing has happened.
        let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
        let lu = open(&core, &pool, LU).await;
        holds(&core, &lu, 2).await;
        catch_up(&pool, &lu).await;
    });
}

/// Forces the LU unless it was, and lets it catch up with all of its disks.
async fn go_on(core: Core, kept: Kept, done: Arc<std::sync::atomic::AtomicU32>) {
    let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
    match pool.force(LU, 1).await {
        Ok(()) | Err(Unforced::Current) => {}
        Err(error) => panic!("{error}"),
    }
    done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let lu = open(&core, &pool, LU).await;
    holds(&core, &lu, 1).await;
    core.sleep(Duration::from_secs(3600)).await;
}

#[test]
fn an_lu_that_is_forced_over_crashes_is_closed_or_forced() {
    let (mut cut, mut forced) = (0, 0);
    for seed in seeds(12, &[]) {
        let (world, mut random) = (World::new(seed, Options::swarm(seed)), Random::new(seed));
        let host = world.host("host");
        let all = attached(&world, &host, PATHS, DISK_BYTES);
        let kept = Kept::of_age(0);
        let (known, disks) = (kept.clone(), all.clone());
        let begun = world.block_on(&host.core(), |core| async move {
            super::groups::make(core.clone()).await;
            diverge(&core, &known, &disks, &[0, 1]).await;
        });
        begun.expect("it ends");
        let done = Arc::new(std::sync::atomic::AtomicU32::new(0));
        for round in 0..6 {
            let (known, told) = (kept.clone(), done.clone());
            host.core().remote().send(move |core| {
                core.spawn(go_on(core.clone(), known, told));
            });
            world.run_for(Duration::from_micros(random.below(30_000) << round));
            crash(&world, &host, &all, random.coin());
            let is_done = done.load(std::sync::atomic::Ordering::SeqCst) > 0;
            cut += u32::from(!is_done);
            forced += u32::from(is_done);
            // With the other one there: whoever was told that it is forced finds that.
            let known = kept.clone();
            let seen = world.block_on(&host.core(), move |core| async move {
                let pool = known.open(find(&core, &[0, 1]).await.unwrap()).await;
                let lu = open(&core, &pool, LU).await;
                let is_old = pool.stale_groups(LU) == [0];
                assert!(is_old || !is_done);
                holds(&core, &lu, if is_old { 1 } else { 2 }).await;
                lu.close().await;
                drop(lu);
                pool.close().await.unwrap();
            });
            seen.expect("it ends");
        }
    }
    println!("{cut} cuts before it was forced, {forced} after");
    assert!(is_one_seed() || cut > 0 && forced > 0);
}
