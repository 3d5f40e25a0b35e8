//! What has failed, or was asked for at the wrong moment, does not come about later.

use rt::sim::{Fault, Harm, On};

use super::super::super::shape::TABLE_START;
use super::*;

const PATH: &str = "/dev/disk";
const BLOCK: u64 = 4096;
const EIO: i32 = 5;

fn with_lu<F: Future<Output = ()> + 'static>(
    seed: u64,
    f: impl FnOnce(Core, Remote, Disk, Rc<Pool>, Arc<Lu>) -> F + 'static,
) {
    let world = World::new(seed, Options::swarm(seed));
    let (host, disk) = (world.host("host"), world.disk(DISK_BYTES));
    disk.attach(&host, PATH);
    let (core, other) = (host.core(), host.core().remote());
    let done = world.block_on(&core, |core| async move {
        let (pool, lu) = new_lu(&core, (PATH, new_pool()), 1 << 30).await;
        f(core, other, disk, pool, lu).await;
    });
    done.expect("it ends");
}

async fn write(device: &Rc<dyn Device>, value: u8) -> Result<u64, Error> {
    let data = Buffer::from_bytes(&[value; BLOCK as usize]);
    device.io(&Request::write(0, data.sgl())).await
}

async fn read(device: &Rc<dyn Device>) -> u8 {
    let into = Buffer::zeroed(BLOCK as usize);
    device.io(&Request::read(0, into.sgl())).await.unwrap();
    let bytes = into.to_vec();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

async fn seal(device: &Rc<dyn Device>) {
    for _ in 0..3 {
        device.io(&Request::flush()).await.unwrap();
    }
}

/// The record of a discard that has failed may be found by who opens the LU next: nothing was
/// answered since that it would undo.
#[test]
fn an_lu_that_has_failed_is_written_by_no_core() {
    for seed in 0..12 {
        with_lu(seed, |core, other, disk, pool, lu| async move {
            let device = lu.device(&core);
            write(&device, 1).await.unwrap();
            seal(&device).await;
            // Both overwrite in place, without asking anybody.
            write(&device, 2).await.unwrap();
            let elsewhere = lu.clone();
            let overwrite =
                move |core: Core| async move { write(&elsewhere.device(&core), 3).await.is_ok() };
            assert!(other.call(overwrite.clone()).await.unwrap());

            disk.fault(Fault::always(On::Sync, Harm::Errno(EIO)));
            let discarding = {
                let device = device.clone();
                core.spawn_task(async move {
                    device.io(&Request::plain(Op::Discard, 0, BLOCK)).await.is_ok()
                })
            };
            let flushed = device.io(&Request::flush()).await;
            let discarded = discarding.await;
            assert!(flushed.is_err());
            if !discarded {
                assert!(write(&device, 4).await.is_err());
                assert!(!other.call(overwrite).await.unwrap());
            }
            disk.heal();
            drop(device);
            lu.close().await;
            drop(lu);
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let found = read(&lu.device(&core)).await;
            assert!(found == 0 || !discarded && found == 3, "{found}, {discarded}");
            lu.close().await;
        });
    }
}

/// Whoever uses it goes on when its disk does, with what was answered, on all cores.
#[test]
fn an_lu_that_has_failed_is_opened_again_while_it_is_used() {
    for seed in 0..12 {
        with_lu(seed, |core, other, disk, pool, lu| async move {
            let device = lu.device(&core);
            let write_there = {
                let lu = lu.clone();
                move |value| {
                    let lu = lu.clone();
                    other.call(move |core| async move { write(&lu.device(&core), value).await })
                }
            };
            write(&device, 1).await.unwrap();
            seal(&device).await;
            let snapshot = lu.snapshot([11; 16]).await.unwrap();
            let view = lu.view(snapshot).await.unwrap();
            write(&device, 2).await.unwrap();
            seal(&device).await;
            assert!(write_there(3).await.unwrap().is_ok());
            for value in [10, 20, 30] {
                disk.fault(Fault::always(On::Write, Harm::Errno(EIO)));
                let data = Buffer::from_bytes(&[value; BLOCK as usize]);
                let at = u64::from(value) * BLOCK;
                device.io(&Request::write(at, data.sgl())).await.unwrap_err();
                let elsewhere = Request::plain(Op::Discard, 0, BLOCK);
                assert!(device.io(&elsewhere).await.is_err() && lu.has_failed());
                assert!(lu.reopen().await.is_err() && lu.has_failed(), "its disk still does");
                assert!(write(&device, 9).await.is_err());
                disk.heal();
                lu.reopen().await.unwrap();
                assert!(!lu.has_failed() && device.health() == Health::Good);
                let found = read(&device).await;
                assert!(found == value / 10 + 2 || found == 0, "{found}");
                write(&device, value).await.unwrap();
                assert!(write_there(value / 10 + 3).await.unwrap().is_ok());
                seal(&device).await;
                assert_eq!(read(&view.device(&core)).await, 1);
            }
            drop((device, view));
            lu.close().await;
            drop((lu, write_there));
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            assert_eq!(read(&lu.device(&core)).await, 6);
            lu.close().await;
        });
    }
}

/// Nobody knows which of two places counts when the pool is opened again: nothing that one of them
/// lacks is answered, also to who has waited for the end of the move.
#[test]
fn what_is_written_while_a_move_fails_is_at_the_place_that_counts() {
    const PATHS: [&str; 2] = [PATH, "/dev/other"];
    for seed in 0..16 {
        let world = World::new(seed, Options::swarm(seed));
        let host = world.host("host");
        let disks = attached(&world, &host, PATHS, DISK_BYTES);
        let core = host.core();
        let done = world.block_on(&core, |core| async move {
            let mut new = Vec::new();
            for (path, id) in PATHS.into_iter().zip([[8; 16], [9; 16]]) {
                new.push((backing(&core, Path::new(path), true).await, id));
            }
            let pool = Pool::format(&core, new_pool(), new).await.unwrap();
            let lu = first_lu(&core, &pool, 1 << 30).await;
            let device = lu.device(&core);
            write(&device, 1).await.unwrap();
            seal(&device).await;
            let from = lu.shared.places.get(0).expect("its first slab").disk;
            // The grant of the other place is written once, or not at all; and never taken back.
            let table = TABLE_START + seed % 2 * BLOCK;
            let fails = Fault::always(On::Write, Harm::Errno(EIO));
            let (old, new) = (&disks[from as usize], &disks[1 - from as usize]);
            old.fault(Fault { range: TABLE_START..TABLE_START + (1 << 20), ..fails.clone() });
            new.fault(Fault { range: table..table + BLOCK, ..fails });
            let moving = lu.clone();
            let moved = core.spawn_task(async move { moving.move_slab(0, from, None).await });
            let mut answered = 1;
            while write(&device, answered + 1).await.is_ok() {
                answered += 1;
                core.sleep(Duration::from_millis(20)).await;
            }
            moved.await.unwrap_err();
            assert!(lu.has_failed());
            assert_eq!(read(&device).await, answered);
            if seed % 4 < 2 {
                lu.reopen().await.unwrap_err();
                disks.iter().for_each(Disk::heal);
                lu.reopen().await.unwrap();
                assert_eq!(read(&device).await, answered);
                answered += 1;
                write(&device, answered).await.unwrap();
            }
            disks.iter().for_each(Disk::heal);
            drop(device);
            lu.close().await;
            drop(lu);
            pool.close().await.unwrap();
            drop(pool);
            let mut again = Vec::new();
            for path in PATHS {
                again.push(backing(&core, Path::new(path), true).await);
            }
            let pool = Pool::open(&core, again).await.unwrap();
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            assert_eq!(read(&lu.device(&core)).await, answered);
            lu.close().await;
        });
        done.expect("it ends");
    }
}

/// A slab that could not be taken back on its disk is nobody's: whoever opens the LU next in the
/// same pool does not write there.
#[test]
fn a_slab_that_was_taken_back_in_vain_is_not_used() {
    const SLAB: u64 = 4 << 20;
    const SLABS: u64 = 30;
    for seed in 0..1 {
        with_lu(seed, |core, _, disk, pool, lu| async move {
            let device = lu.device(&core);
            let fill = |device: Rc<dyn Device>, value| async move {
                for slab in 0..SLABS {
                    let data = Buffer::from_bytes(&vec![value; SLAB as usize]);
                    device.io(&Request::write(slab * SLAB, data.sgl())).await.unwrap();
                }
                seal(&device).await;
            };
            fill(device.clone(), 1).await;
            let range = TABLE_START..TABLE_START + (1 << 20);
            disk.fault(Fault { range, ..Fault::always(On::Write, Harm::Errno(EIO)) });
            let all = Request::plain(Op::Discard, 0, SLABS * SLAB);
            device.io(&all).await.unwrap();
            let mut size = 1 << 30;
            while pool.granted(LU).unwrap().leaving.is_empty() {
                // A root that says of whole slabs that nothing is there.
                size += 1 << 20;
                lu.resize(size).await.unwrap();
            }
            core.sleep(Duration::from_secs(1)).await;
            assert!(!pool.granted(LU).unwrap().leaving.is_empty(), "it was taken back after all");
            disk.heal();
            drop(device);
            lu.close().await;
            drop(lu);
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            fill(lu.device(&core), 2).await;
            lu.close().await;
            drop(lu);
            pool.close().await.unwrap();
            drop(pool);
            let disks = vec![backing(&core, Path::new(PATH), true).await];
            let pool = Pool::open(&core, disks).await.unwrap();
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let device = lu.device(&core);
            for slab in 0..SLABS {
                let into = Buffer::zeroed(BLOCK as usize);
                device.io(&Request::read(slab * SLAB, into.sgl())).await.unwrap();
                assert_eq!(into.to_vec()[0], 2);
            }
            drop(device);
            lu.close().await;
        });
    }
}

/// What was refused may be found, and is not what the LU is all the same.
#[test]
fn a_size_that_was_refused_is_none_later() {
    for seed in 0..12 {
        for size in [64 << 20, 2 << 30] {
            with_lu(seed, move |_, _, disk, pool, lu| async move {
                disk.fault(Fault::always(On::Sync, Harm::Errno(EIO)));
                lu.resize(size).await.unwrap_err();
                disk.heal();
                lu.reopen().await.unwrap();
                assert_eq!((lu.size(), lu.about().await.unwrap().size), (1 << 30, 1 << 30));
                lu.close().await;
                drop(lu);
                assert_eq!(pool.describe_lu(LU).await.unwrap().size, 1 << 30);
            });
        }
    }
}

/// Whoever goes back to a snapshot has it, though it is let go at the same moment.
#[test]
fn a_snapshot_that_is_gone_back_to_is_not_let_go() {
    for seed in 0..24 {
        with_lu(seed, move |core, _, _, pool, lu| async move {
            let device = lu.device(&core);
            write(&device, 1).await.unwrap();
            let snapshot = lu.snapshot([11; 16]).await.unwrap();
            write(&device, 2).await.unwrap();
            lu.snapshot([12; 16]).await.unwrap();
            write(&device, 3).await.unwrap();
            let (going, going_of) = (lu.clone(), core.clone());
            let back = core.spawn_task(async move {
                going_of.sleep(Duration::from_micros(seed % 6 * 20)).await;
                going.roll_back(snapshot, [13; 16]).await
            });
            let (folding, folding_of) = (lu.clone(), core.clone());
            let fold = core.spawn_task(async move {
                folding_of.sleep(Duration::from_micros(seed / 6 * 20)).await;
                while let Ok(Folded::Left(_)) = folding.fold(snapshot, 1).await {}
            });
            // Something is under way, and going back waits for that.
            device.io(&Request::flush()).await.unwrap();
            let back = back.await;
            fold.await;
            let expected = if back.is_ok() { 1 } else { 3 };
            assert_eq!(read(&device).await, expected);
            drop(device);
            lu.close().await;
            drop(lu);
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            assert_eq!(read(&lu.device(&core)).await, expected);
            lu.close().await;
        });
    }
}

/// What is left of data that was not there whole, and a part of what is written to the same place
/// next, may be that data: it is written when nobody looks for it any more, also behind a loss of
/// power.
#[test]
fn a_block_whose_record_was_refused_is_written_behind_its_void() {
    for seed in 0..3 {
        with_lu(seed, |core, _, disk, pool, lu| async move {
            write(&lu.device(&core), 1).await.unwrap();
            let syncs_fail = || disk.fault(Fault::always(On::Sync, Harm::Errno(EIO)));
            syncs_fail();
            lu.close().await;
            drop(lu);
            disk.heal();
            pool.close().await.unwrap();
            drop(pool);
            tear(&core, 1).await;
            let disks = vec![backing(&core, Path::new(PATH), true).await];
            let pool = Pool::open(&core, disks).await.unwrap();
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            let device = lu.device(&core);
            assert_eq!(read(&device).await, 0);
            syncs_fail();
            let data = Buffer::from_bytes(&[2; BLOCK as usize]);
            device.io(&Request::write(BLOCK, data.sgl())).await.unwrap();
            assert!(write(&device, 3).await.is_err());
            disk.heal();
            drop(device);
            lu.close().await;
            drop(lu);
            let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
            assert_eq!(read(&lu.device(&core)).await, 0);
            lu.close().await;
        });
    }
}

/// Of a block that holds this only a part is there.
async fn tear(core: &Core, value: u8) {
    let disk = backing(core, Path::new(PATH), true).await.device(core);
    let buffer = Buffer::zeroed(BLOCK as usize);
    let mut torn = 0;
    for at in (0..DISK_BYTES).step_by(BLOCK as usize) {
        disk.io(&Request::read(at, buffer.sgl())).await.unwrap();
        let mut bytes = buffer.to_vec();
        if bytes.iter().all(|byte| *byte == value) {
            bytes[..512].fill(0);
            let data = Buffer::from_bytes(&bytes);
            disk.io(&Request::write(at, data.sgl())).await.unwrap();
            torn += 1;
        }
    }
    assert_eq!(torn, 1);
}
