//! Disks that nobody has open, by what their labels say.

use std::fs::File;
use std::os::unix::fs::FileExt;

use volume::pool::label::{Becomes, End, Label, Was};
use volume::pool::page::{PAGE_BYTES, Page};

use super::*;

const OTHER: Uuid = Uuid::from_u128(0x30);

/// Changes what both ends of a disk say.
fn relabel(path: &Path, change: impl Fn(&mut Label)) {
    let disk = File::options().read(true).write(true).open(path).unwrap();
    let mut page = [0; PAGE_BYTES];
    disk.read_exact_at(&mut page, 0).unwrap();
    let mut label = Label::decode(&Page::of_bytes(&page), End::Front).unwrap();
    change(&mut label);
    let last = label.size / PAGE_BYTES as u64 - 1;
    for (end, at) in [(End::Front, 0), (End::Back, last)] {
        disk.write_all_at(label.encode(end).bytes(), at * PAGE_BYTES as u64).unwrap();
    }
}

#[test]
fn a_group_that_was_becoming_a_pool_is_seen_as_what_the_one_disk_says_that_decides() {
    let bench = Bench::new();
    let pool = bench.pool();
    bench.make(&pool, true).unwrap();
    bench.open(&pool).unwrap();
    bench.close(&pool).unwrap();
    let (id, other) = (POOL.into_bytes(), OTHER.into_bytes());
    let becomes = Some(Becomes { pool: other, by: pool.pvs[0].uuid.into_bytes() });
    let look = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| bench.path(name)).collect();
        bench.ask(|plane, done| plane.look_at_pools(&paths, done)).unwrap()
    };
    for name in ["a", "b"] {
        relabel(&bench.path(name), |label| label.becomes = becomes);
    }
    let seen = look(&["a", "b"]);
    assert_eq!((seen.pools.len(), seen.pools[0].uuid), (1, POOL));

    relabel(&bench.path("a"), |label| {
        label.was = Some(Was { pool: id, epoch: label.epoch + 1 });
        (label.pool, label.pool_name) = (other, "other".to_owned());
        (label.becomes, label.epoch) = (None, label.epoch + 1);
    });
    let seen = look(&["a", "b"]);
    assert!(seen.unread.is_empty(), "{:?}", seen.unread);
    let [it] = &seen.pools[..] else { panic!("{} pools", seen.pools.len()) };
    assert_eq!((it.uuid, &it.name[..], it.disks.len(), it.wanted), (OTHER, "other", 2, 2));
    assert_eq!(it.problem, None);

    // The one that decides is not here.
    let seen = look(&["b"]);
    assert!(seen.pools.is_empty());
    let [(_, why)] = &seen.unread[..] else { panic!("{:?}", seen.unread) };
    assert!(why.message.contains("was just leaving pool 'fast'"), "{why:?}");
}
