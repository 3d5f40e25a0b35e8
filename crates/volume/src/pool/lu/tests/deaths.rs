//! Disks of failure groups that die while they are used, and come back; and what is found later
//! without the one that had everything.

use rt::sim::{Fault, Harm, On};

use super::super::super::home::Terms;

use super::groups::{
    APART, BLOCKS, LU_BYTES, PATHS, catch_up, find, holds, visit, with_disks, write,
};
use super::splits::Kept;
use super::*;

const OTHER: [u8; 16] = [4; 16];
const EIO: i32 = 5;

pub(super) fn kill(disk: &Disk) {
    disk.fault(Fault::always(On::Any, Harm::Errno(EIO)));
}

pub(super) async fn another(core: &Core, pool: &Rc<Pool>, id: u8) -> Arc<Lu> {
    let about = about(LU_BYTES, 512);
    let new = NewLu { id: [id; 16], layer: [id + 1; 16], about };
    Lu::open(core, pool.create_lu(new).await.unwrap()).await.unwrap()
}

pub(super) async fn open(core: &Core, pool: &Rc<Pool>, id: [u8; 16]) -> Arc<Lu> {
    Lu::open(core, pool.seat(id).unwrap()).await.unwrap()
}

#[test]
fn a_disk_that_dies_while_it_is_used_is_missed_and_taken_back() {
    for dies in [0, 1] {
        with_disks(dies as u64, move |core, disks| async move {
            visit(&core, &[0, 1], async |pool, lu| {
                kill(&disks[dies]);
                // What is overwritten, what is written first, and what is discarded.
                write(&core, lu, 2).await;
                let device = lu.device(&core);
                device.io(&Request::plain(Op::Discard, 0, LU_BYTES)).await.unwrap();
                write(&core, lu, 3).await;
                let other = another(&core, pool, OTHER[0]).await;
                write(&core, &other, 4).await;
                let third = another(&core, pool, 6).await;
                write(&core, &third, 5).await;
                third.close().await;
                drop(third);
                pool.revoke([6; 16]).await.unwrap();
                let lost: Vec<[u8; 16]> = pool.lost().into_iter().map(|it| it.pv).collect();
                assert_eq!(lost, [[dies as u8 + 7; 16]]);
                assert_eq!(pool.absent(), 1);
                assert!(pool.rejoin(dies as u32).await.is_err());
                holds(&core, lu, 3).await;
                write(&core, &other, 6).await;

                disks[dies].heal();
                pool.rejoin(dies as u32).await.unwrap();
                assert_eq!((pool.lost(), pool.absent()), (vec![], 0));
                write(&core, lu, 7).await;
                for lu in [lu, &other] {
                    catch_up(pool, lu).await;
                }
                for lu in [LU, OTHER] {
                    assert_eq!((pool.stale_groups(lu), pool.lacks(lu, 0).0), (vec![], 0));
                }
                write(&core, &other, 8).await;
                other.close().await;
            })
            .await;
            for alone in [0, 1] {
                visit(&core, &[alone], async |pool, lu| {
                    holds(&core, lu, 7).await;
                    let other = open(&core, pool, OTHER).await;
                    holds(&core, &other, 8).await;
                    other.close().await;
                })
                .await;
                visit(&core, &[0, 1], async |pool, lu| {
                    let other = open(&core, pool, OTHER).await;
                    for lu in [lu, &other] {
                        catch_up(pool, lu).await;
                    }
                    other.close().await;
                })
                .await;
            }
        });
    }
}

/// A disk that was away for a moment gets what was written meanwhile, and what it may have lost.
#[test]
fn a_disk_that_comes_back_gets_what_it_has_missed_and_not_more() {
    for dies in [0, 1] {
        with_disks(20 + dies as u64, move |core, disks| async move {
            let all = Rc::new(Cell::new(0));
            visit(&core, &[1 - dies], async |_, lu| write(&core, lu, 2).await).await;
            visit(&core, &[0, 1], async |pool, lu| {
                let bytes = catch_up(pool, lu).await;
                assert!(bytes > (BLOCKS * 64) << 10, "{bytes}");
                all.set(bytes);
                write(&core, lu, 3).await;
            })
            .await;
            visit(&core, &[0, 1], async |pool, lu| {
                // One write fails; or the disk is lost, as its table cannot be written either.
                for is_lost in [false, true] {
                    let device = lu.device(&core);
                    kill(&disks[dies]);
                    for at in [0, 5 * APART, LU_BYTES - 4096] {
                        let data = Buffer::from_bytes(&[4 + u8::from(is_lost); 4096]);
                        device.io(&Request::write(at, data.sgl())).await.unwrap();
                    }
                    assert_eq!(pool.stale_groups(LU), [dies as u16]);
                    if is_lost {
                        another(&core, pool, 20).await.close().await;
                        pool.revoke([20; 16]).await.unwrap();
                        assert_eq!(pool.lost().len(), 1);
                    }
                    disks[dies].heal();
                    pool.rejoin(dies as u32).await.unwrap();
                    let bytes = catch_up(pool, lu).await;
                    assert!(bytes > 0 && bytes < all.get() / 2, "{bytes} of {}", all.get());
                    assert_eq!(pool.stale_groups(LU), [0; 0]);
                }
            })
            .await;
            visit(&core, &[dies], async |_, lu| {
                let (device, into) = (lu.device(&core), Buffer::zeroed(4096));
                for block in 0..BLOCKS {
                    device.io(&Request::read(block * APART, into.sgl())).await.unwrap();
                    let value = if block == 0 || block == 5 { 5 } else { 3 };
                    assert!(into.to_vec().iter().all(|byte| *byte == value), "block {block}");
                }
            })
            .await;
        });
    }
}

#[test]
fn a_disk_that_has_died_is_as_good_as_missing_at_the_next_start() {
    with_disks(3, |core, disks| async move {
        visit(&core, &[0, 1], async |pool, lu| {
            kill(&disks[1]);
            let other = another(&core, pool, OTHER[0]).await;
            write(&core, &other, 4).await;
            write(&core, lu, 2).await;
            other.close().await;
        })
        .await;
        disks[1].heal();
        visit(&core, &[0], async |_, lu| write(&core, lu, 3).await).await;
        visit(&core, &[0, 1], async |pool, lu| {
            assert_eq!(pool.stale_groups(LU), [1]);
            holds(&core, lu, 3).await;
            let other = open(&core, pool, OTHER).await;
            holds(&core, &other, 4).await;
            for lu in [lu, &other] {
                catch_up(pool, lu).await;
            }
            other.close().await;
        })
        .await;
        visit(&core, &[1], async |pool, lu| {
            holds(&core, lu, 3).await;
            let other = open(&core, pool, OTHER).await;
            holds(&core, &other, 4).await;
            other.close().await;
        })
        .await;
    });
}

#[test]
fn the_last_disk_of_a_pool_is_not_lost() {
    with_disks(5, |core, disks| async move {
        visit(&core, &[0, 1], async |pool, lu| {
            kill(&disks[1]);
            let other = another(&core, pool, OTHER[0]).await;
            write(&core, lu, 2).await;
            other.close().await;
            drop(other);
            kill(&disks[0]);
            let about = about(LU_BYTES, 512);
            let new = NewLu { id: [6; 16], layer: [7; 16], about };
            assert!(pool.create_lu(new).await.is_err());
            assert_eq!(pool.lost().len(), 1);
            disks[0].heal();
            holds(&core, lu, 2).await;
            another(&core, pool, 8).await.close().await;
        })
        .await;
    });
}

/// What is current only on a disk that is not here waits for it, whatever happens meanwhile.
#[test]
fn a_copy_that_has_missed_something_waits_for_the_one_that_has_it() {
    for lacks in [0, 1] {
        with_disks(7 + lacks as u64, move |core, disks| async move {
            visit(&core, &[0, 1], async |pool, lu| {
                let other = another(&core, pool, OTHER[0]).await;
                write(&core, &other, 4).await;
                other.close().await;
                drop(other);
                // Some writes fail there, and then nothing any more.
                let data = 4 << 20..u64::MAX;
                let fault = Fault::always(On::Write, Harm::Errno(EIO));
                disks[lacks].fault(Fault { range: data, ..fault });
                write(&core, lu, 2).await;
                assert_eq!(pool.stale_groups(LU), [lacks as u16]);
                // Slabs that the one that lacks something does not hear of.
                let (device, slabs) = (lu.device(&core), pool.granted(LU).unwrap().slabs.len());
                let data = Buffer::from_bytes(&[9; 1 << 20]);
                for at in (0..60).map(|index| LU_BYTES / 2 + (index << 20)) {
                    device.io(&Request::write(at, data.sgl())).await.unwrap();
                }
                assert!(pool.granted(LU).unwrap().slabs.len() > slabs);
                device.io(&Request::flush()).await.unwrap();
            })
            .await;
            disks[lacks].heal();

            // The good one is away. The other LU goes on, and others are made.
            let found = find(&core, &[lacks]).await.unwrap();
            let pool = found.open_on(Terms { may_lack: true, ..Terms::default() }).await.unwrap();
            assert!(matches!(pool.seat(LU), Err(LuError::Pool(PoolError::NoCopy(LU)))));
            let other = open(&core, &pool, OTHER).await;
            holds(&core, &other, 4).await;
            write(&core, &other, 5).await;
            let third = another(&core, &pool, 6).await;
            write(&core, &third, 6).await;
            for lu in [other, third] {
                lu.close().await;
            }
            pool.close().await.unwrap();
            drop(pool);

            // It is back.
            for alone in [0, 1] {
                visit(&core, &[0, 1], async |pool, lu| {
                    holds(&core, lu, 2).await;
                    let others = [open(&core, pool, OTHER).await, open(&core, pool, [6; 16]).await];
                    holds(&core, &others[0], 5).await;
                    holds(&core, &others[1], 6).await;
                    for lu in [lu, &others[0], &others[1]] {
                        catch_up(pool, lu).await;
                    }
                    for lu in &others {
                        lu.close().await;
                    }
                })
                .await;
                visit(&core, &[alone], async |pool, lu| {
                    holds(&core, lu, 2).await;
                    let other = open(&core, pool, OTHER).await;
                    holds(&core, &other, 5).await;
                    other.close().await;
                })
                .await;
            }
        });
    }
}

/// Whether the LU is to be had with these disks, and what is known of it.
async fn is_served(core: &Core, kept: &Kept, disks: &[usize]) -> bool {
    let pool = kept.open(find(core, disks).await.unwrap()).await;
    let seat = pool.seat(LU).map(drop);
    pool.close().await.unwrap();
    assert!(matches!(seat, Ok(()) | Err(LuError::Pool(PoolError::NoCopy(LU)))), "{seat:?}");
    seat.is_ok()
}

/// Who has kept that copies are older now, and died before any of them was told, has answered
/// nothing without the others.
#[test]
fn an_age_that_no_copy_has_is_none_where_all_disks_are() {
    with_disks(9, |core, _| async move {
        let kept = Kept::of_age(1);
        for (disks, is_served) in [(&[0, 1][..], true), (&[0], false), (&[0, 1], true)] {
            assert_eq!(self::is_served(&core, &kept, disks).await, is_served, "{disks:?}");
        }
    });
}

/// It could not be told that it is stale, and nobody else is left who knows.
#[test]
fn a_stale_copy_stays_stale_when_the_good_one_is_given_up() {
    with_disks(11, |core, disks| async move {
        let kept = Kept::of_age(0);
        let pool = kept.open(find(&core, &[0, 1]).await.unwrap()).await;
        let lu = open(&core, &pool, LU).await;
        kill(&disks[1]);
        write(&core, &lu, 2).await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        assert_eq!(kept.age_of_lu(), 1);
        disks[1].heal();

        let pool = kept.open(find(&core, &[1]).await.unwrap()).await;
        assert!(matches!(pool.seat(LU), Err(LuError::Pool(PoolError::NoCopy(LU)))));
        let backing = backing(&core, Path::new(PATHS[2]), true).await;
        let disk = pool.prepare(NewDisk { backing, pv: [9; 16], group: 0 }).await.unwrap();
        pool.admit(disk).await.unwrap();
        pool.abandon([7; 16], 0).await.unwrap();
        pool.close().await.unwrap();
        drop(pool);
        assert!(!is_served(&core, &kept, &[1, 2]).await);
        // Also where nothing is known.
        assert!(!is_served(&core, &Kept::of_age(0), &[1, 2]).await);
    });
}

/// What could not be said of one copy may stand on its disk: the other one counts more than that.
#[test]
fn what_was_said_in_vain_of_a_copy_does_not_count() {
    with_disks(3, |core, disks| async move {
        let pool = find(&core, &[0, 1]).await.unwrap().open(0).await.unwrap();
        let lu = open(&core, &pool, LU).await;
        disks[0].fault(Fault::always(On::Write, Harm::Errno(EIO)));
        disks[1].fault(Fault::always(On::Sync, Harm::Errno(EIO)));
        let (device, data) = (lu.device(&core), Buffer::from_bytes(&[2; 4096]));
        let missed =
            core.spawn_task(async move { device.io(&Request::write(0, data.sgl())).await });
        core.sleep(Duration::from_secs(1)).await;
        // It says that it is the only one that has everything, and nobody knows whether it does.
        disks[0].heal();
        kill(&disks[1]);
        write(&core, &lu, 3).await;
        assert_eq!(pool.stale_groups(LU), [1]);
        disks[1].heal();
        let _ = missed.await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        visit(&core, &[0, 1], async |pool, lu| {
            assert_eq!(pool.stale_groups(LU), [1]);
            holds(&core, lu, 3).await;
        })
        .await;
    });
}
