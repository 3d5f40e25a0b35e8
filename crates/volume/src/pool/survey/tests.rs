//! Pools in memory, of which images are taken as a process leaves them that is killed.

use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Request};
use rt::Core;
use rt::sim::{Options, World};

use super::super::check::tests::disk::{Attached, InMemory};
use super::super::disks::Backing;
use super::super::lu::tests::new_pool;
use super::super::lu::{Folded, Lu, NewLu};
use super::super::root::Base;
use super::*;

const DISK_BYTES: u64 = 64 << 20;
const LU_BYTES: u64 = 32 << 20;
const EXTENT: u64 = 64 << 10;
const DB: [u8; 16] = [2; 16];
const COPY: [u8; 16] = [3; 16];
const HALF: [u8; 16] = [4; 16];
const FIRST: LayerId = [11; 16];
const SECOND: LayerId = [12; 16];
const THIRD: LayerId = [13; 16];
const OTHER: LayerId = [14; 16];

type Held = Vec<Arc<InMemory>>;

fn attached(disks: &Held) -> Vec<Arc<dyn Backing>> {
    disks.iter().map(|disk| Arc::new(Attached(disk.clone())) as Arc<dyn Backing>).collect()
}

/// The same disks as they are at this moment, for somebody else.
fn copied(disks: &Held) -> Held {
    disks.iter().map(|disk| InMemory::new(&disk.name, disk.size, disk.take())).collect()
}

async fn surveyed(core: &Core, disks: &Held) -> Survey {
    survey(Pool::find(core, attached(disks)).await.unwrap()).await.unwrap()
}

fn about(name: &str, base: Option<Base>) -> About {
    About {
        name: name.to_owned(),
        size: LU_BYTES,
        block_size: 4096,
        thick: false,
        base,
        source: None,
    }
}

async fn write(core: &Core, lu: &Arc<Lu>, extents: std::ops::Range<u64>, value: u8) {
    let (device, data) = (lu.device(core), Buffer::from_bytes(&[value; 4096]));
    for extent in extents {
        device.io(&Request::write(extent * EXTENT, data.sgl())).await.unwrap();
    }
    device.io(&Request::flush()).await.unwrap();
}

/// A pool of two disks with LU `db`, in which something is written.
async fn with_lu(core: &Core) -> (Held, Rc<Pool>, Arc<Lu>) {
    let names = ["/dev/one", "/dev/two"];
    let disks: Held =
        names.iter().map(|it| InMemory::new(it, DISK_BYTES, Default::default())).collect();
    let named = attached(&disks).into_iter().zip([[8; 16], [9; 16]]).collect();
    let pool = Pool::format(core, new_pool(), named).await.unwrap();
    let new = NewLu { id: DB, layer: FIRST, about: about("db", None) };
    let lu = Lu::open(core, pool.create_lu(new).await.unwrap()).await.unwrap();
    write(core, &lu, 0..6, 1).await;
    (disks, pool, lu)
}

fn run<F: Future<Output = ()> + 'static>(f: impl FnOnce(Core) -> F + 'static) {
    let world = World::new(1, Options::default());
    world.block_on(&world.host("host").core(), f).expect("it ends");
}

fn said(survey: &Survey, id: [u8; 16]) -> &Said {
    survey.lus.iter().find(|lu| lu.id == id).unwrap().said.as_ref().unwrap()
}

#[test]
fn the_disks_say_what_lus_are_called_and_stand_on() {
    run(async |core| {
        let (disks, pool, lu) = with_lu(&core).await;
        lu.snapshot(SECOND).await.unwrap();
        lu.name_layer(FIRST, "one".to_owned()).await.unwrap();
        let base = Base { lu: DB, layer: FIRST };
        let new = NewLu { id: COPY, layer: OTHER, about: about("copy", Some(base)) };
        pool.create_lu(new).await.unwrap();
        // Taken, and not said what it is called.
        lu.snapshot(THIRD).await.unwrap();
        pool.grant(HALF, 1, false).await.unwrap();
        let survey = surveyed(&core, &copied(&disks)).await;
        assert_eq!(survey.labels.iter().map(|it| it.pv).collect::<Vec<_>>(), [[8; 16], [9; 16]]);
        assert_eq!((survey.missing.len(), &survey.unfinished[..]), (0, &[HALF][..]));
        let db = said(&survey, DB);
        assert_eq!(db.about, about("db", None));
        let frozen = |name: &str| Frozen { size: LU_BYTES, name: name.to_owned(), is_going: false };
        assert_eq!(db.frozen, [(FIRST, frozen("one")), (SECOND, frozen(""))]);
        assert_eq!(said(&survey, COPY).about.base, Some(base));
        lu.close().await;
    });
}

#[test]
fn a_snapshot_that_is_folded_half_way_is_none_any_more() {
    run(async |core| {
        let (disks, _pool, lu) = with_lu(&core).await;
        for (frozen, top, name) in [(FIRST, SECOND, "one"), (SECOND, THIRD, "two")] {
            lu.snapshot(top).await.unwrap();
            lu.name_layer(frozen, name.to_owned()).await.unwrap();
            write(&core, &lu, 2..4, 2).await;
        }
        let is_going = async |disks: &Held| {
            let survey = surveyed(&core, &copied(disks)).await;
            said(&survey, DB).frozen.iter().map(|(_, it)| it.is_going).collect::<Vec<_>>()
        };
        assert_eq!(is_going(&disks).await, [false, false]);
        let Folded::Left(_) = lu.fold(FIRST, 1).await.unwrap() else { panic!("all at once") };
        // Known from the journal, and then from the root too.
        assert_eq!(is_going(&disks).await, [true, false]);
        lu.name_layer(SECOND, "another".to_owned()).await.unwrap();
        assert_eq!(is_going(&disks).await, [true, false]);
        while !matches!(lu.fold(FIRST, 1).await.unwrap(), Folded::Gone) {}
        assert_eq!(is_going(&disks).await, [false]);
        lu.close().await;
    });
}

#[test]
fn a_disk_that_is_an_old_copy_is_noticed() {
    run(async |core| {
        let (disks, pool, lu) = with_lu(&core).await;
        lu.close().await;
        drop(lu);
        pool.close().await.unwrap();
        let old = copied(&disks);
        let pool = Pool::open(&core, attached(&disks)).await.unwrap();
        let lu = Lu::open(&core, pool.seat(DB).unwrap()).await.unwrap();
        write(&core, &lu, 0..9, 3).await;
        let right = surveyed(&core, &copied(&disks)).await;
        assert_eq!((right.old, right.lus[0].said.is_ok()), (Vec::new(), true));
        let mut later = 0;
        for at in [0, 1] {
            let mut mixed = copied(&disks);
            mixed[at] = old[at].clone();
            let survey = surveyed(&core, &mixed).await;
            assert_eq!(survey.old.iter().map(|it| it.pv).collect::<Vec<_>>(), [[8 + at as u8; 16]]);
            later += usize::from(survey.lus[0].said.as_ref().is_err_and(Unsaid::is_later));
        }
        // The LU is on one of them only.
        assert_eq!(later, 1);
        lu.close().await;
    });
}

#[test]
fn a_disk_that_was_about_to_join_makes_no_old_copies_of_the_others() {
    run(async |core| {
        let (mut disks, pool, lu) = with_lu(&core).await;
        let third = InMemory::new("/dev/three", DISK_BYTES, Default::default());
        disks.push(third.clone());
        let disk = pool.prepare((Arc::new(Attached(third)) as Arc<dyn Backing>, [10; 16])).await;
        // An owner that comes between has the epoch that all of them know.
        lu.close().await;
        drop(lu);
        let lu = Lu::open(&core, pool.seat(DB).unwrap()).await.unwrap();
        write(&core, &lu, 0..9, 3).await;
        for count in [2, 3] {
            let survey = surveyed(&core, &copied(&disks[..count].to_vec())).await;
            assert_eq!((survey.labels.len(), survey.old.len()), (count, 0));
            assert!(survey.lus[0].said.is_ok());
        }
        pool.admit(disk.unwrap()).await.unwrap();
        let survey = surveyed(&core, &copied(&disks)).await;
        assert_eq!((survey.labels.len(), survey.old.len()), (3, 0));
        lu.close().await;
    });
}

#[test]
fn what_an_lu_leaves_that_is_being_removed_is_no_lu() {
    run(async |core| {
        let (disks, pool, lu) = with_lu(&core).await;
        write(&core, &lu, 0..200, 1).await;
        lu.close().await;
        drop(lu);
        let granted = pool.granted(DB).unwrap();
        assert!(granted.slabs.len() > 1, "{granted:?}");
        pool.take_back(DB, &[granted.first.unwrap()]).await.unwrap();
        let survey = surveyed(&core, &copied(&disks)).await;
        assert_eq!((survey.lus.len(), &survey.unfinished[..]), (0, &[DB][..]));
    });
}
