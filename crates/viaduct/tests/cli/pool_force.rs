//! Pools of which only failure groups are left that lack something, word for word.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use expect_test::expect;
use model::{ApiError, Size};
use node::engine::{
    CopyHere, ForceDone, GroupAbout, Remains, Seen, SeenAbout, SeenDisk, SeenLayer, SeenLu,
    SeenNow, SeenPool,
};
use uuid::Uuid;

use crate::bench::Bench;
use crate::pool::with_disks;

const FAST: Uuid = Uuid::from_u128(0xf0);
const WEB: Uuid = Uuid::from_u128(0xa1 << 96);
const OLD: Uuid = Uuid::from_u128(0xa2 << 96);
const HALF: Uuid = Uuid::from_u128(0xa3 << 96);

fn about(group: u16, lus: &[(Uuid, CopyHere)]) -> GroupAbout {
    let lus: BTreeMap<_, _> = lus.iter().map(|(lu, copy)| (lu.into_bytes(), *copy)).collect();
    GroupAbout { group, lus }
}

/// Pool fast with LU web, which is not open; and the UUIDs of both.
fn closed() -> (Bench, [Uuid; 2]) {
    let bench = with_disks();
    bench.engine.fail("open pool fast", ApiError::failed("a disk is missing"));
    for line in ["pool create fast --pv one --pv two@right", "lu create web --size 3G --pool fast"]
    {
        assert_eq!(bench.run(line).code, 1, "{line}");
    }
    let uuid = |line: &str| {
        let shown: serde_json::Value = serde_json::from_str(&bench.run(line).out).unwrap();
        shown["uuid"].as_str().unwrap().parse().unwrap()
    };
    let uuids = [uuid("pool show fast -o json"), uuid("lu show web -o json")];
    (bench, uuids)
}

fn remains(bench: &Bench, groups: Vec<GroupAbout>) {
    bench.engine.set_remains(Remains { missing: vec!["/dev/sdb".to_owned()], groups });
}

#[test]
fn what_is_left_of_a_pool_is_shown() {
    let (bench, [_, web]) = closed();
    let of_web = |group, copy| about(group, &[(web, copy)]);
    let one = [of_web(1, CopyHere::Whole), of_web(0, CopyHere::Lacks(3))];
    remains(&bench, [&one[..], &[of_web(2, CopyHere::Stale), about(3, &[])]].concat());
    bench.done(
        "pool force fast",
        expect![[r#"
        missing: /dev/sdb

        GROUP  LU   HAS
        right  web  everything
        0      web  not all of it, 48.0MiB are missing
        2      web  a copy that has missed something
        3      web  nothing of it

        nothing was done. Without the disks that are missing the pool stays closed.
        viaduct pool force fast --group right --yes goes on with group right:
        - LUs of which it has everything are used; what others have of them does not count
        - others stay closed until the missing disks are back, which keep them
        - viaduct lu force NAME takes what is here of one of those
    "#]],
    );
    let other = bench.run("pool force fast --group 0").out;
    assert!(other.contains("--group 0 --yes goes on with group 0"), "{other}");
    bench.refused(
        "pool force fast --group middle --yes",
        3,
        expect![[r#"
        error: pool 'fast' has no failure group middle
          next: viaduct pool force fast lists those that are here
    "#]],
    );
    bench.refused(
        "pool force none",
        3,
        expect![[r#"
        error: there is no pool 'none'
          next: viaduct pool ls shows those that are there; viaduct pool create makes one
    "#]],
    );
}

#[test]
fn a_pool_goes_on_with_what_is_left_only_when_that_is_meant() {
    let (bench, [fast, web]) = closed();
    remains(&bench, vec![about(1, &[(web, CopyHere::Whole)])]);
    bench.refused(
        "pool force fast --group 0 --yes",
        4,
        expect![[r#"
        error: not all disks of the group without a name of pool 'fast' are here
          next: viaduct pool force fast lists those that are here
    "#]],
    );
    bench.engine.heal();
    bench.engine.set_force_done(fast, ForceDone { group: 1, is_forced: true });
    bench.done(
        "pool force fast --yes",
        expect![[r#"
        pool fast: online; viaduct lu ls shows which of its LUs are
    "#]],
    );
    let events = bench.run("event ls").out;
    assert!(events.contains("goes on with what group right has of it"), "{events}");
    // It may have been opened in between.
    bench.refused(
        "pool force fast --yes",
        4,
        expect![[r#"
        error: pool 'fast' is open
          next: viaduct lu force NAME is for an LU of it of which no copy with everything is here
    "#]],
    );
    remains(&bench, Vec::new());
    bench.refused(
        "pool force fast --yes",
        4,
        expect![[r#"
        error: no failure group of pool 'fast' is all here
    "#]],
    );
}

fn lu(uuid: Uuid, name: &str, outdated: bool) -> SeenLu {
    let (name, size, layers) = (name.to_owned(), Size::gib(1), Vec::new());
    let about = SeenAbout { name, size, block_size: 512, thick: false, base: None, layers };
    SeenLu { uuid, outdated, about: Ok(about) }
}

/// Of pool fast only a disk is here that lacks something.
fn left(bench: &Bench) -> SeenPool {
    let path = bench.directory.path().join("two").canonicalize().unwrap();
    let part = Err("no copy of it that has everything is here".to_owned());
    let problem = ApiError::conflict("pool 'fast' cannot be imported: it lacks something");
    SeenPool {
        uuid: FAST,
        name: "fast".to_owned(),
        slab_size: Size::mib(16),
        extent_size: Size(256 << 10),
        checksums: false,
        disks: vec![SeenDisk {
            path: path.to_str().unwrap().to_owned(),
            uuid: Uuid::from_u128(0xf1),
            group: 1,
            size: Size::mib(256),
        }],
        wanted: 2,
        missing: vec![Some(0)],
        lus: vec![
            lu(WEB, "web", false),
            lu(OLD, "old", true),
            SeenLu { uuid: HALF, outdated: true, about: part },
        ],
        unfinished: Vec::new(),
        record: b"known".to_vec(),
        groups: vec![about(
            1,
            &[(WEB, CopyHere::Whole), (OLD, CopyHere::Stale), (HALF, CopyHere::Lacks(2))],
        )],
        problem: Some(problem.then("viaduct pool import fast --force shows what would be lost")),
    }
}

/// A node that finds that, or something like it.
fn with_left(change: impl FnOnce(&mut SeenPool)) -> Bench {
    let bench = with_disks();
    let mut seen = left(&bench);
    change(&mut seen);
    bench.engine.set_seen(Seen { pools: vec![seen], unread: vec![] });
    bench
}

#[test]
fn what_is_left_of_a_pool_of_nobody_is_shown() {
    let bench = with_left(|_| ());
    bench.done(
        "pool import --pv two",
        expect![[r#"
        NAME  UUID                                  DISKS   LUS  STATE
        fast  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  1 of 2  3    not importable

        pool:    fast
        disk:    /DIR/two, group 1
        LU:      web, 1.0GiB
        LU:      old, only a copy that has missed something
        LU:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, no copy of it that has everything is here
        problem: pool 'fast' cannot be imported: it lacks something
        next:    viaduct pool import fast --force shows what would be lost
    "#]],
    );
    bench.refused(
        "pool import fast --pv two",
        4,
        expect![[r#"
        error: pool 'fast' cannot be imported: it lacks something
          next: viaduct pool import fast --force shows what would be lost
    "#]],
    );
    bench.done("pool import fast --pv two --force --without web", expect![[r#"
        missing: a disk of group group0

        GROUP   LU                                    HAS
        group1  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  not all of it, 32.0MiB are missing
        group1  old                                   a copy that has missed something
        group1  web                                   everything

        nothing was done. Without the disks that are missing the pool stays closed.
        viaduct pool import fast --pv two --without web --force --group group1 --yes goes on with group group1:
        - LUs of which it has everything are used; what others have of them does not count
        - others stay closed until the missing disks are back, which keep them
        - viaduct lu force NAME takes what is here of one of those
    "#]]);
    bench.done("pool import fast --pv two@right --force --group right", expect![[r#"
        missing: a disk of group group0

        GROUP  LU                                    HAS
        right  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  not all of it, 32.0MiB are missing
        right  old                                   a copy that has missed something
        right  web                                   everything

        nothing was done. Without the disks that are missing the pool stays closed.
        viaduct pool import fast --pv two@right --force --group right --yes goes on with group right:
        - LUs of which it has everything are used; what others have of them does not count
        - others stay closed until the missing disks are back, which keep them
        - viaduct lu force NAME takes what is here of one of those
    "#]]);
    assert_eq!(bench.run("pool ls -o json").out.trim(), "[]");
}

#[test]
fn a_pool_of_nobody_is_forced_only_where_that_makes_sense() {
    let bench = with_left(|_| ());
    for meant in ["", " --yes"] {
        let line = format!("pool import fast --pv two@right --force{meant} --group left");
        let ran = bench.run(&line);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{line}");
        expect![[r#"
            error: pool 'fast' has no failure group left
              next: here with all its disks is right
        "#]]
        .assert_eq(&ran.err);
    }
    bench.refused(
        "pool import fast --pv two --force --yes --group group0",
        3,
        expect![[r#"
        error: not all disks of group group0 of pool 'fast' are here
          next: here with all its disks is group1
    "#]],
    );
    let bench = with_left(|seen| (seen.groups, seen.problem) = (Vec::new(), None));
    for meant in ["", " --yes"] {
        let ran = bench.run(&format!("pool import fast --pv two --force{meant}"));
        assert_eq!((ran.code, ran.out.as_str()), (4, ""), "{}", ran.err);
        expect![[r#"
            error: pool 'fast' lacks nothing that other disks have
              next: import it without --force
        "#]]
        .assert_eq(&ran.err);
    }
    for line in ["--force", "fast --yes", "fast --group right"] {
        let ran = bench.run(&format!("pool import --pv two {line}"));
        assert_eq!(ran.code, 2, "{line}: {}", ran.err);
    }
    assert_eq!(bench.run("pool ls -o json").out.trim(), "[]");
}

#[test]
fn what_is_left_of_a_pool_of_nobody_is_taken_over_when_that_is_meant() {
    let bench = with_left(|_| ());
    // It stays closed until the disks with the rest are back.
    bench.engine.fail("open device x-old", ApiError::failed("no copy is here"));
    bench.engine.set_force_done(FAST, ForceDone { group: 1, is_forced: true });
    bench.done("pool import fast --pv two@right --force --yes --prefix x-", expect![[r#"
        pool fast: 2.0GiB, online
        2 LUs: x-old x-web
        disks that are missing: 1; viaduct pool replace-pv fast puts others in their place
        LUs that stay closed, because only a copy is here that has missed something: x-old; viaduct lu force NAME shows what would be lost with it
        LUs that are left where they are: xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        Clients, mappings, limits, serials and settings are not on the disks.
          next: viaduct config restore FILE brings them back from what config save has written
    "#]]);
    let events = bench.run("event ls").out;
    assert!(events.contains("goes on with what group right has of it"), "{events}");
    bench.refused(
        "lu resize x-old --size 2G",
        5,
        expect![[r#"
        error: nobody knows how large LU 'x-old' is before it is open
          next: viaduct lu show x-old says why
    "#]],
    );
    // Then it is what it was on those.
    let now = Uuid::from_u128(0xb1);
    let layers = vec![SeenLayer { uuid: now, name: "now".to_owned(), size: Size::gib(2) }];
    bench.engine.set_now(OLD, SeenNow { size: Size::gib(2), layers });
    bench.engine.heal();
    let ran = bench.run("pool set fast --warn 70");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let until = Instant::now() + Duration::from_secs(20);
    while !bench.run("lu show x-old").out.contains("2GiB") && Instant::now() < until {
        thread::yield_now();
    }
    bench.done(
        "lu ls",
        expect![[r#"
        NAME   SIZE  BACKING  STATE   USED  MAPPED TO
        x-old  2GiB  pool     online  -     -
        x-web  1GiB  pool     online  -     -
    "#]],
    );
    let snapshots = bench.run("snapshot ls x-old").out;
    assert!(snapshots.contains("now"), "{snapshots}");
}

#[test]
fn that_a_removed_lu_is_not_all_gone_is_said_by_the_command_and_by_status() {
    let bench = with_disks();
    for line in ["pool create fast --pv one", "lu create web --size 3G --pool fast"] {
        assert_eq!(bench.run(line).code, 0, "{line}");
    }
    let why = ApiError::not_now("disks of pool 'fast' that are missing may have it");
    bench.engine.fail("give the slabs of removed", why.then("bring them back"));
    bench.refused("lu rm web", 5, expect![[r#"
        error: lu/web is removed, but not all of it is gone yet: disks of pool 'fast' that are missing may have it
          next: bring them back
    "#]]);
    bench.done(
        "lu ls",
        expect![[r#"
        NAME  SIZE  BACKING  STATE  USED  MAPPED TO
    "#]],
    );
    let status = bench.run("status").out;
    let problem = "disks of pool 'fast' that are missing may have it";
    assert!(status.contains(problem) && status.contains("bring them back"), "{status}");
    bench.engine.heal();
    assert_eq!(bench.run("pool set fast --warn 70").code, 0);
    let until = Instant::now() + Duration::from_secs(20);
    while bench.run("status").out.contains(problem) && Instant::now() < until {
        thread::yield_now();
    }
    let status = bench.run("status").out;
    assert!(!status.contains(problem), "{status}");
}
