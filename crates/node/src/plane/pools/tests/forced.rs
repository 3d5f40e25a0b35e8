//! Pools of which only failure groups are left that lack something, and LUs that were imported as a
//! copy says that has missed something.

use volume::pool::label::{End, Label};
use volume::pool::page::Page;

use super::*;
use crate::engine::{ForceDone, SeenNow};
use crate::records::ForceWish;

impl Bench {
    fn wish_force(&self, group: u16) {
        let wish = ForceWish::new(group).encode().unwrap();
        self.paper.write(Record::Force(POOL), wish).unwrap();
    }

    fn opened(&self, pool: &Pool) -> Result<Option<ForceDone>, ApiError> {
        self.ask(|plane, done| plane.open_pool(pool, done))
    }
}

/// The second group of the pool lacks something, and is all that is left.
fn lag(bench: &mut Bench) -> Pool {
    let pool = bench.in_groups();
    bench.make(&pool, true).unwrap();
    bench.rename("b", "away");
    bench.open(&pool).unwrap();
    bench.create(&lu(64)).unwrap();
    bench.restart();
    bench.rename("away", "b");
    // Nothing is brought of an LU that is closed.
    bench.open(&pool).unwrap();
    bench.restart();
    bench.rename("a", "away");
    pool
}

#[test]
fn a_pool_is_forced_by_who_opens_it_as_long_as_that_is_wished() {
    let mut bench = Bench::new();
    let pool = lag(&mut bench);
    let before = std::fs::read(bench.path("b")).unwrap();
    let error = bench.open(&pool).unwrap_err();
    assert!(error.next.as_ref().unwrap().contains("viaduct pool force fast"), "{error}");
    bench.wish_force(0);
    let error = bench.open(&pool).unwrap_err();
    assert!(error.message.contains("of which not all disks are here"), "{error}");
    bench.paper.write(Record::Force(POOL), b"{\"version\":2,\"group\":1}".to_vec()).unwrap();
    let error = bench.open(&pool).unwrap_err();
    assert!(error.next.as_ref().unwrap().contains("the release of viaduct that wrote"), "{error}");
    assert!(std::fs::read(bench.path("b")).unwrap() == before, "nothing was done");

    bench.wish_force(1);
    let forced = Ok(Some(ForceDone { group: 1, is_forced: true }));
    // Who was killed before that was told is asked again, and does it once.
    for _ in 0..2 {
        assert_eq!(bench.opened(&pool), forced);
        assert_eq!(bench.opened(&pool), forced, "a step may come again");
        bench.restart();
    }
    let label = Label::decode(&page(&bench.path("b")), End::Front).unwrap();
    assert_eq!(label.forces, 1);
}

fn page(path: &Path) -> Page {
    Page::of_bytes(std::fs::read(path).unwrap().first_chunk().unwrap())
}

#[test]
fn a_pool_whose_other_disks_are_back_needs_no_force() {
    let mut bench = Bench::new();
    let pool = lag(&mut bench);
    bench.wish_force(1);
    bench.rename("away", "a");
    assert_eq!(bench.opened(&pool), Ok(Some(ForceDone { group: 1, is_forced: false })));
    bench.restart();
    let label = Label::decode(&page(&bench.path("b")), End::Front).unwrap();
    assert_eq!((label.forces, label.is_behind), (0, true));
}

#[test]
fn what_is_not_known_of_an_lu_is_told_when_it_is_open_and_nothing_of_it_is_let_go() {
    let mut bench = Bench::new();
    let (pool, size) = (bench.pool(), Size::mib(64));
    bench.make(&pool, true).unwrap();
    bench.open(&pool).unwrap();
    bench.create(&lu(64)).unwrap();
    bench.open_lu(&lu(64)).unwrap();
    bench.block(0, Some(1)).unwrap();
    let taken = bench.ask(|plane, done| plane.take_snapshots(&[LU], done)).unwrap();
    let named = DeviceSpec { snapshots: [(taken[0], "one".to_owned())].into(), ..lu(64) };
    bench.ask(|plane, done| plane.set_snapshots(LU, &named.snapshots, done)).unwrap();
    bench.close_lu(&named).unwrap();

    let outdated = DeviceSpec { outdated: true, ..lu(32) };
    let told = |bench: &Bench| bench.ask(|plane, done| plane.open_device(&outdated, done));
    for _ in 0..2 {
        let now = told(&bench).unwrap();
        let Some(SeenNow { size: is, layers }) = &now else { panic!("{now:?}") };
        assert_eq!((*is, layers.len(), layers[0].uuid), (size, 1, taken[0]));
        assert_eq!((layers[0].name.as_str(), layers[0].size), ("one", size));
        assert_eq!(told(&bench).unwrap(), now, "a step may come again");
        bench.restart();
        bench.open(&pool).unwrap();
    }
    assert_eq!(bench.ask(|plane, done| plane.open_device(&named, done)), Ok(None));
}
