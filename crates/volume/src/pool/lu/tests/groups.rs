//! Disks of failure groups that are missing, and come back.

use super::super::super::home::{Found, Terms};
use super::*;

const PATHS: [&str; 2] = ["/dev/a", "/dev/b"];
const BLOCKS: u64 = 40;
const APART: u64 = 3 << 20;
const LU_BYTES: u64 = 256 << 20;

async fn find(core: &Core, disks: &[usize]) -> Result<Found, PoolError> {
    let mut all = Vec::new();
    for disk in disks {
        all.push(backing(core, Path::new(PATHS[*disk]), true).await);
    }
    Pool::find(core, all).await
}

/// Opens the pool with these disks only, writes a value everywhere or finds one, and closes it.
async fn visit(core: &Core, disks: &[usize], then: impl AsyncFnOnce(&Rc<Pool>, &Arc<Lu>)) {
    let found = find(core, disks).await.unwrap();
    let pool = found.open_on(Terms { may_lack: true, ..Terms::default() }).await.unwrap();
    let lu = Lu::open(core, pool.seat(LU).unwrap()).await.unwrap();
    then(&pool, &lu).await;
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
}

async fn write(core: &Core, lu: &Arc<Lu>, value: u8) {
    let (device, data) = (lu.device(core), Buffer::from_bytes(&[value; 4096]));
    for block in 0..BLOCKS {
        device.io(&Request::write(block * APART, data.sgl())).await.unwrap();
    }
    device.io(&Request::flush()).await.unwrap();
}

async fn holds(core: &Core, lu: &Arc<Lu>, value: u8) {
    let (device, into) = (lu.device(core), Buffer::zeroed(4096));
    for block in 0..BLOCKS {
        device.io(&Request::read(block * APART, into.sgl())).await.unwrap();
        assert!(into.to_vec().iter().all(|byte| *byte == value), "block {block}, not {value}");
    }
}

fn with_pool<F: Future<Output = ()> + 'static>(seed: u64, f: impl FnOnce(Core) -> F + 'static) {
    let world = World::new(seed, Options::swarm(seed));
    let host = world.host("host");
    PATHS.iter().for_each(|path| world.disk(DISK_BYTES).attach(&host, *path));
    let done = world.block_on(&host.core(), |core| async move {
        let mut disks = Vec::new();
        for (group, path) in (0..).zip(PATHS) {
            let backing = backing(&core, Path::new(path), true).await;
            disks.push(NewDisk { backing, pv: [group as u8 + 7; 16], group });
        }
        let pool = Pool::format(&core, new_pool(), disks).await.unwrap();
        let new = NewLu { id: LU, layer: BASE, about: about(LU_BYTES, 512) };
        let lu = Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap();
        write(&core, &lu, 1).await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        drop(pool);
        f(core).await;
    });
    done.expect("it ends");
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
                assert!(lu.mend(1).await.unwrap() > 0);
                write(&core, lu, 3).await;
            })
            .await;
            // Alone it says itself that it lacks something.
            let alone = find(&core, &[away]).await.unwrap();
            let alone = alone.open_on(Terms { may_lack: true, ..Terms::default() }).await.unwrap();
            assert!(matches!(alone.seat(LU), Err(LuError::Pool(PoolError::NoCopy(LU)))));
            alone.close().await.unwrap();
            drop(alone);
        });
    }
}

#[test]
fn a_copy_that_was_brought_up_to_date_is_as_good_as_the_other() {
    with_pool(3, |core| async move {
        visit(&core, &[1], async |_, lu| write(&core, lu, 2).await).await;
        visit(&core, &[0, 1], async |pool, lu| {
            while lu.mend(7).await.unwrap() > 0 {}
            assert_eq!((pool.stale_groups(LU), pool.lacks(LU, 0).0), (vec![], 0));
            write(&core, lu, 3).await;
        })
        .await;
        visit(&core, &[0], async |_, lu| holds(&core, lu, 3).await).await;
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
                while lu.mend(7).await.unwrap() > 0 {}
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
