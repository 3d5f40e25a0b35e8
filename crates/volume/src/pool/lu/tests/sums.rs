//! Pools with checksums: what is not what was written is never given out as that.

use std::ops::Range;

use rt::sim::{Fault, Harm, On};

use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const ENODATA: i32 = 61;
const PATHS: [&str; 2] = ["/dev/a", "/dev/b"];
const LU_BYTES: u64 = 64 << 20;
const BLOCKS: u8 = 40;
const PIECE: u64 = 1 << 20;
/// Longer than what fails otherwise is tried.
const FULL: Duration = Duration::from_secs(5);

/// A block says who it is.
fn block_of(number: u8, value: u8) -> Vec<u8> {
    [number, value].repeat(BLOCK_BYTES as usize / 2)
}

async fn write(lu: &Arc<Lu>, core: &Core, value: u8) {
    let device = lu.device(core);
    for number in 0..BLOCKS {
        let data = Buffer::from_bytes(&block_of(number, value));
        device.io(&Request::write(u64::from(number) * BLOCK_BYTES, data.sgl())).await.unwrap();
    }
    device.io(&Request::flush()).await.unwrap();
}

/// Whether a block is read at all: then it is what was written.
async fn holds(lu: &Arc<Lu>, core: &Core, (number, value): (u8, u8)) -> bool {
    let into = Buffer::zeroed(BLOCK_BYTES as usize);
    let request = Request::read(u64::from(number) * BLOCK_BYTES, into.sgl());
    match lu.device(core).io(&request).await {
        Ok(_) => {
            assert_eq!(into.to_vec(), block_of(number, value), "block {number}");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Medium, "{error}");
            false
        }
    }
}

/// Opens the pool, and closes it.
async fn visit(core: &Core, disks: usize, then: impl AsyncFnOnce(&Arc<Lu>)) {
    let mut all = Vec::new();
    for path in &PATHS[..disks] {
        all.push(backing(core, Path::new(path), true).await);
    }
    let pool = Pool::open(core, all).await.unwrap();
    let lu = Lu::open(core, pool.seat(LU).unwrap()).await.unwrap();
    then(&lu).await;
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
}

/// Changes what lies on a disk, page by page. Gives how many were changed.
async fn spoil(core: &Core, disk: usize, mut f: impl FnMut(&mut [u8]) -> bool) -> usize {
    let device = backing(core, Path::new(PATHS[disk]), true).await.device(core);
    let (buffer, mut changed) = (Buffer::zeroed(PIECE as usize), 0);
    for at in (0..DISK_BYTES).step_by(PIECE as usize) {
        device.io(&Request::read(at, buffer.sgl())).await.unwrap();
        let mut bytes = buffer.to_vec();
        let pages = bytes.chunks_mut(BLOCK_BYTES as usize).map(&mut f);
        let count = pages.filter(|is_changed| *is_changed).count();
        if count > 0 {
            let buffer = Buffer::from_bytes(&bytes);
            device.io(&Request::write(at, buffer.sgl())).await.unwrap();
        }
        changed += count;
    }
    changed
}

/// Where pages of checksums lie.
async fn places(core: &Core) -> Vec<u64> {
    found(core, |page| page.starts_with(b"VDcs")).await
}

/// Where pages like this lie.
async fn found(core: &Core, is_one: impl Fn(&[u8]) -> bool) -> Vec<u64> {
    let (mut at, mut found) = (0, Vec::new());
    let look = |page: &mut [u8]| {
        if is_one(page) {
            found.push(at);
        }
        at += BLOCK_BYTES;
        false
    };
    spoil(core, 0, look).await;
    found
}

fn with_pool<F: Future<Output = ()> + 'static>(
    (seed, disks): (u64, usize),
    f: impl FnOnce(Core) -> F + 'static,
) {
    with_disks((seed, disks), |core, _| f(core));
}

fn with_disks<F: Future<Output = ()> + 'static>(
    (seed, disks): (u64, usize),
    f: impl FnOnce(Core, Vec<Disk>) -> F + 'static,
) {
    let world = World::new(seed, Options::swarm(seed));
    let host = world.host("host");
    let bare = PATHS.map(|path| {
        let disk = world.disk(DISK_BYTES);
        disk.attach(&host, path);
        disk
    });
    let done = world.block_on(&host.core(), |core| async move {
        let mut all = Vec::new();
        for (group, path) in (0..).zip(&PATHS[..disks]) {
            let backing = backing(&core, Path::new(path), true).await;
            all.push(NewDisk { backing, pv: [group as u8 + 7; 16], group });
        }
        let pool = Pool::format(&core, new_pool_with_sums(), all).await.unwrap();
        let lu = first_lu(&core, &pool, LU_BYTES).await;
        write(&lu, &core, 1).await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        f(core, bare.into()).await;
    });
    done.expect("it ends");
}

fn is(page: &[u8], number: u8, value: u8) -> bool {
    *page == block_of(number, value)
}

#[test]
fn a_rotten_block_is_an_error_until_it_is_written_again() {
    with_pool((1, 1), |core| async move {
        let rot = |page: &mut [u8]| {
            let is_it = is(page, 5, 1) || is(page, 33, 1);
            page[4095] ^= u8::from(is_it) << 3;
            is_it
        };
        assert_eq!(spoil(&core, 0, rot).await, 2);
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                assert_eq!(holds(lu, &core, (number, 1)).await, number != 5 && number != 33);
            }
            // Parts of blocks are no better, read or written.
            let (device, sector) = (lu.device(&core), Buffer::zeroed(512));
            for request in [Request::read(5 * BLOCK_BYTES, sector.sgl()), {
                Request::write(5 * BLOCK_BYTES, sector.sgl())
            }] {
                assert_eq!(device.io(&request).await.unwrap_err().kind(), ErrorKind::Medium);
            }
            write(lu, &core, 2).await;
            assert!(holds(lu, &core, (5, 2)).await);
        })
        .await;
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                assert!(holds(lu, &core, (number, 2)).await);
            }
        })
        .await;
    });
}

/// What was written is there no more, though whatever is there was once right.
#[test]
fn a_block_of_another_place_or_time_is_an_error() {
    with_pool((2, 1), |core| async move {
        visit(&core, 1, async |lu| write(lu, &core, 2).await).await;
        let lost = |page: &mut [u8]| {
            let (old, other) = (is(page, 7, 2), is(page, 8, 2));
            if old {
                page.copy_from_slice(&block_of(7, 1));
            }
            if other {
                page.copy_from_slice(&block_of(9, 2));
            }
            old || other
        };
        assert_eq!(spoil(&core, 0, lost).await, 2);
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                assert_eq!(holds(lu, &core, (number, 2)).await, !(7..9).contains(&number));
            }
        })
        .await;
    });
}

#[test]
fn a_rotten_block_is_mended_from_the_other_copy() {
    with_pool((3, 2), |core| async move {
        for (disk, number) in [(0, 3), (1, 4), (0, 20)] {
            let rot = |page: &mut [u8]| {
                let is_it = is(page, number, 1);
                page[17] ^= u8::from(is_it);
                is_it
            };
            assert_eq!(spoil(&core, disk, rot).await, 1);
        }
        visit(&core, 2, async |lu| {
            for number in 0..BLOCKS {
                assert!(holds(lu, &core, (number, 1)).await);
            }
        })
        .await;
        // The copy that is not read was not looked at.
        for (disk, rotten) in [(0, 0), (1, 1)] {
            let mut good = 0;
            let count = |page: &mut [u8]| {
                good += (0..BLOCKS).filter(|number| is(page, *number, 1)).count();
                false
            };
            spoil(&core, disk, count).await;
            assert_eq!(good + rotten, usize::from(BLOCKS), "disk {disk}");
        }
    });
}

#[test]
fn rotten_checksums_are_no_excuse() {
    for places in 1..=2 {
        with_pool((4, 1), move |core| async move {
            // Both places of a page have been written.
            visit(&core, 1, async |lu| write(lu, &core, 2).await).await;
            let mut left = places;
            let rot = |page: &mut [u8]| {
                let is_it = page.starts_with(b"VDcs") && left > 0;
                left -= usize::from(is_it);
                page[100] ^= u8::from(is_it);
                is_it
            };
            assert_eq!(spoil(&core, 0, rot).await, places);
            visit(&core, 1, async |lu| {
                let mut right = 0;
                for number in 0..BLOCKS {
                    right += usize::from(holds(lu, &core, (number, 2)).await);
                }
                assert!(places == 1 || right == 0, "{right} blocks were not compared");
                write(lu, &core, 3).await;
            })
            .await;
            visit(&core, 1, async |lu| {
                for number in 0..BLOCKS {
                    assert!(holds(lu, &core, (number, 3)).await);
                }
            })
            .await;
        });
    }
}

#[test]
fn checksums_that_cannot_be_read_for_a_moment_are_not_lost() {
    with_disks((5, 1), move |core, disks| async move {
        // Both places of a page have been written.
        visit(&core, 1, async |lu| write(lu, &core, 2).await).await;
        let [first, .., last] = places(&core).await[..] else { panic!("two places") };
        visit(&core, 1, async |lu| {
            let reads = Fault::always(On::Read, Harm::Errno(EIO));
            disks[0].fault(Fault { range: first..last + BLOCK_BYTES, ..reads });
            let data = Buffer::from_bytes(&block_of(0, 3));
            for number in 0..BLOCKS {
                assert!(!holds(lu, &core, (number, 2)).await);
            }
            let written = lu.device(&core).io(&Request::write(0, data.sgl())).await;
            let error = written.unwrap_err().to_string();
            assert!(error.contains("the checksums of blocks cannot be read"), "{error}");
            disks[0].heal();
            lu.device(&core).io(&Request::write(0, data.sgl())).await.unwrap();
        })
        .await;
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                let value = if number == 0 { 3 } else { 2 };
                assert!(holds(lu, &core, (number, value)).await);
            }
        })
        .await;
    });
}

#[test]
fn bad_sectors_under_checksums_are_written_again() {
    with_disks((6, 1), move |core, disks| async move {
        visit(&core, 1, async |lu| write(lu, &core, 2).await).await;
        let [first, .., last] = places(&core).await[..] else { panic!("two places") };
        let bad = |range| {
            disks[0].heal();
            disks[0].fault(Fault { range, ..Fault::always(On::Read, Harm::Errno(ENODATA)) });
        };
        bad(first..last + BLOCK_BYTES);
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                assert!(!holds(lu, &core, (number, 2)).await);
            }
            write(lu, &core, 3).await;
        })
        .await;
        // The one that has been written can be read.
        bad(first..first + BLOCK_BYTES);
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                assert!(holds(lu, &core, (number, 3)).await);
            }
        })
        .await;
    });
}

/// Of many that are under way at the same blocks each is a whole one, and one that fails leaves
/// what can be read.
#[test]
fn writes_that_meet_or_fail_leave_what_has_its_checksum() {
    const VALUES: u8 = 30;
    const BYTES: usize = 2 * BLOCK_BYTES as usize;
    with_disks((8, 1), move |core, disks| async move {
        let found = found(&core, |page| is(page, 0, 1)).await[0];
        let read = async |device: &Rc<dyn Device>| {
            let into = Buffer::zeroed(BYTES);
            device.io(&Request::read(0, into.sgl())).await.unwrap();
            into.to_vec()
        };
        let write_some = async |device: &Rc<dyn Device>, values: Range<u8>| {
            let data = |value| Buffer::from_bytes(&block_of(0, value).repeat(2));
            let all: Vec<Buffer> = values.map(data).collect();
            // Some of one block, some of that and the next one.
            let ask = |(number, data): (usize, &Buffer)| {
                device.ask(&Request::write(0, data.sgl().slice(0, BYTES >> (number % 2))))
            };
            let asked: Vec<_> = all.iter().enumerate().map(ask).collect();
            let mut failed = 0;
            for answer in asked {
                failed += usize::from(answer.outcome().await.is_err());
            }
            failed
        };
        visit(&core, 1, async |lu| {
            // Their region is open then.
            write(lu, &core, 1).await;
            let device = lu.device(&core);
            read(&device).await;
            assert_eq!(write_some(&device, 2..VALUES).await, 0);
            for block in read(&device).await.chunks(BYTES / 2) {
                assert!((2..VALUES).any(|value| is(block, 0, value)));
            }
            let (range, ppm) = (found..found + BYTES as u64, 500_000);
            disks[0].fault(Fault { range, ppm, ..Fault::always(On::Write, Harm::Errno(EIO)) });
            let mut failed = write_some(&device, 2..VALUES).await;
            for value in 2..VALUES {
                failed += write_some(&device, value..value + 1).await;
                read(&device).await;
            }
            assert!(failed > 10, "{failed}");
            disks[0].heal();
        })
        .await;
        visit(&core, 1, async |lu| drop(read(&lu.device(&core)).await)).await;
    });
}

/// As on a file system that is full: what goes on when it has room has not failed.
#[test]
fn an_lu_waits_for_room_for_its_checksums() {
    with_disks((7, 1), move |core, disks| async move {
        visit(&core, 1, async |lu| write(lu, &core, 2).await).await;
        let [first, .., last] = places(&core).await[..] else { panic!("two places") };
        visit(&core, 1, async |lu| {
            let writes = Fault::always(On::Write, Harm::Errno(ENOSPC));
            disks[0].fault(Fault { range: first..last + BLOCK_BYTES, ..writes });
            write(lu, &core, 3).await;
            let (asked, disk, beside) = (core.now(), disks[0].clone(), core.clone());
            core.spawn(async move {
                beside.sleep(FULL).await;
                disk.heal();
            });
            lu.ask(|service| service.clone().describe(service.about())).await.unwrap();
            assert!(core.now() - asked >= FULL);
            write(lu, &core, 4).await;
        })
        .await;
        visit(&core, 1, async |lu| {
            for number in 0..BLOCKS {
                assert!(holds(lu, &core, (number, 4)).await);
            }
        })
        .await;
    });
}
