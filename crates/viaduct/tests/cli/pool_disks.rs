//! Pools with their real data plane, word for word: LUs that are thick, and what lies on disks.

use expect_test::expect;

use crate::bench::Real;

/// Pool fast on two disks with slabs of 4 MiB. The first one has one more, so that the first slab
/// that is given is of that.
pub fn with_pool() -> Real {
    let real = Real::new();
    for (name, mib) in [("one", 68), ("two", 64)] {
        let disk = std::fs::File::create(real.directory.path().join(name)).unwrap();
        disk.set_len(mib << 20).unwrap();
    }
    let made = real.run("pool create fast --pv one --pv two --slab-size 4M");
    assert_eq!((made.code, made.out.as_str()), (0, "pool fast: 124MiB, online\n"), "{}", made.err);
    real
}

/// The same with LU web.
pub fn with_lu() -> Real {
    let real = with_pool();
    assert_eq!(real.run("lu create web --size 1G --pool fast").code, 0);
    real
}

#[test]
fn a_thick_lu_has_all_of_its_space_or_is_none() {
    let real = with_pool();
    real.says(
        "lu create db --size 20M --pool fast --thick",
        0,
        expect![[r#"
        LU db: 20MiB, pool, online
    "#]],
    );
    real.says(
        "lu ls",
        0,
        expect![[r#"
        NAME  SIZE   BACKING      STATE   USED    MAPPED TO
        db    20MiB  pool, thick  online  512KiB  -
    "#]],
    );
    real.says("lu create big --size 1G --pool fast --thick", 4, expect![[r#"
        error: LU 'big' needs 1028MiB to be thick, and pool 'fast' has 100MiB: 928MiB are missing
          next: choose a smaller size, remove LUs or snapshots of the pool, or make it without --thick
    "#]]);
    real.says(
        "lu create file --size 20M --thick",
        2,
        expect![[r#"
        error: LU 'file' is in no pool; only an LU in a pool can be thick
    "#]],
    );
    real.says("lu resize db --size 1G", 4, expect![[r#"
        error: LU db cannot be resized to 1GiB: no space left in the store (it needs 1004MiB more, and the pool has 100MiB: 904MiB are missing)
          next: remove LUs or snapshots of the pool; viaduct pool ls shows what is free
    "#]]);
    real.says(
        "lu resize db --size 40M",
        0,
        expect![[r#"
        LU db: 40MiB, pool, online
    "#]],
    );
    let pool: serde_json::Value =
        serde_json::from_str(&real.run("pool show fast -o json").out).unwrap();
    assert!(pool["granted"].as_u64().unwrap() >= 40 << 20, "{pool}");
    real.says(
        "lu rm db",
        0,
        expect![[r#"
        LU db removed
    "#]],
    );
    let pool: serde_json::Value =
        serde_json::from_str(&real.run("pool show fast -o json").out).unwrap();
    assert_eq!(pool["granted"], 0);
}

/// The pool with LU web, which is opened by nobody any more; the LU's UUID.
fn at_rest() -> (Real, String) {
    let mut real = with_lu();
    let lu: serde_json::Value = serde_json::from_str(&real.run("lu show web -o json").out).unwrap();
    real.stop();
    (real, lu["uuid"].as_str().unwrap().to_owned())
}

#[test]
fn disks_are_checked_while_no_node_has_them() {
    let mut real = with_pool();
    real.says(
        "pool check one two",
        5,
        expect![[r#"
            error: a node has one open
              next: stop that node first; pool check and pool backup ask it if the pool is named
        "#]],
    );
    real.stop();
    let (real, _) = at_rest();
    real.says(
        "pool check one two",
        0,
        expect![[r#"
            pool:            fast
            uuid:            xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            disks:           2
            slabs:           31, 1 of them of LUs
            LUs:             1
            layers:          1
            pages of maps:   0
            extents in use:  2
            journal records: 0
            found:           nothing, it is clean
        "#]],
    );
    real.says(
        "pool check one",
        1,
        expect![[r#"
            pool:            fast
            uuid:            xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            disks:           1
            slabs:           0, 0 of them of LUs
            LUs:             0
            layers:          0
            pages of maps:   0
            extents in use:  0
            journal records: 0
            found:           1 damaged

            SEVERITY  OF    WHAT
            damaged   pool  only 1 of the pool's 2 disks found here
            error: pool 'fast' has 1 damage
              next: keep the disks as they are; viaduct pool restore brings back what a file of viaduct pool backup has; the rest is restored from a backup of the data
        "#]],
    );
}

#[test]
fn a_pool_that_is_open_is_checked_and_scrubbed_by_its_node() {
    let real = with_lu();
    real.says(
        "pool check fast",
        0,
        expect![[r#"
        pool:            fast
        uuid:            xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        disks:           2
        slabs:           31, 1 of them of LUs
        LUs:             1
        layers:          1
        pages of maps:   0
        extents in use:  2
        journal records: 0
        found:           nothing, it is clean
    "#]],
    );
    real.says(
        "pool check slow",
        3,
        expect![[r#"
        error: there is no pool 'slow'
          next: viaduct pool ls shows those that are there; viaduct pool create makes one
    "#]],
    );
    real.says(
        "pool scrub fast --cancel",
        0,
        expect![[r#"
        it was never scrubbed
    "#]],
    );
    let said = real.run("pool scrub fast --rate 100M");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.starts_with("scrub: done\n") && said.out.contains("found: nothing"),
        "{}",
        said.out
    );
    let shown = real.run("pool show fast").out;
    assert!(shown.contains("scrub rate:          100MiB a second"), "{shown}");
    assert!(shown.ends_with(&said.out), "{shown}");
    real.says(
        "pool scrub fast --cancel --rate 1M",
        2,
        expect![[r#"
        error: the argument '--cancel' cannot be used with '--rate <SIZE|off>'

        Usage: viaduct pool scrub --cancel --data <DIR> <NAME>

        For more information, try '--help'.
    "#]],
    );
    real.says(
        "pool set fast --scrub-rate 1k",
        2,
        expect![[r#"
        error: pool 'fast': a scrub rate of 1KiB a second: at least 1MiB, or 0 for any
    "#]],
    );
}

#[test]
fn a_disk_is_shown_page_by_page() {
    let (real, _) = at_rest();
    real.says(
        "pool inspect one",
        0,
        expect![[r#"
            label, at byte 0
            kind:                      VDlb
            checksum:                  good
            owner:                     xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            number:                    0
            turn:                      0
            epoch:                     2
            form:                      1
            pool:                      fast
            disk:                      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            disks of the pool:         2
            failure group:             0
            disks of the group:        2
            last epoch without a disk: 0
            lacks something:           no
            size:                      71303168
            slab size:                 4194304
            extent size:               262144
            checksums:                 no

            label, at byte 71299072
            kind:                      VDlb
            checksum:                  good
            owner:                     xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            number:                    1
            turn:                      0
            epoch:                     2
            form:                      1
            pool:                      fast
            disk:                      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            disks of the pool:         2
            failure group:             0
            disks of the group:        2
            last epoch without a disk: 0
            lacks something:           no
            size:                      71303168
            slab size:                 4194304
            extent size:               262144
            checksums:                 no

            page of the slab table, at byte 1048576
            kind:     VDst
            checksum: good
            owner:    xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            number:   0
            turn:     3
            epoch:    2
            form:     1
            place 0:  slab 0, generation 1, LU xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, its first

            page of the slab table, at byte 1052672
            kind:     VDst
            checksum: good
            owner:    xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            number:   0
            turn:     4
            epoch:    2
            form:     1
            place 0:  slab 0, generation 1, LU xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, its first
        "#]],
    );
}

#[test]
fn one_page_is_shown() {
    let (real, _) = at_rest();
    real.says(
        "pool inspect one --at 100",
        0,
        expect![[r#"
            label, at byte 0
            kind:                      VDlb
            checksum:                  good
            owner:                     xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            number:                    0
            turn:                      0
            epoch:                     2
            form:                      1
            pool:                      fast
            disk:                      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            disks of the pool:         2
            failure group:             0
            disks of the group:        2
            last epoch without a disk: 0
            lacks something:           no
            size:                      71303168
            slab size:                 4194304
            extent size:               262144
            checksums:                 no
        "#]],
    );
}

#[test]
fn an_lu_is_shown_on_all_disks() {
    let (real, uuid) = at_rest();
    real.says(
        &format!("pool inspect one two --lu {uuid}"),
        0,
        expect![[r#"
            slabs of the LU
            slab 0: one at byte 2097152

            nothing but zeroes, one at byte 2097152

            head of an LU's root, one at byte 2101248
            kind:                VDrh
            checksum:            good
            owner:               xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            number:              1
            turn:                1
            epoch:               8589934593
            form:                1
            name:                web
            size:                1073741824
            block size:          512
            stands on:           nothing
            is brought from:     nothing
            journal from page:   0 of epoch 8589934593
            next serial:         1
            sealed before:       1
            pages of the body:   1
            extents of the ring: 1
            layers:              1
            top layer:           1
            extents beyond:      [0, 0]

            ring of the journal
            places 0 to 63: one at byte 2359296

            layer 1
            name:             xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            stands on:        nothing
            is the top:       yes
            size when frozen: 0
            snapshot:         
            is being let go:  no
        "#]],
    );
    real.says(
        "pool inspect one two",
        2,
        expect![[r#"
        error: one disk is looked at at a time
          next: name one, or an LU that all of them have: --lu UUID
    "#]],
    );
}

#[test]
fn what_is_no_disk_of_a_pool_is_said_to_be_none() {
    let real = Real::new();
    std::fs::write(real.directory.path().join("text"), "no disk\n").unwrap();
    real.says(
        "pool inspect text",
        2,
        expect![[r#"
        error: text is no disk of a pool: it has 8 bytes, no whole pages
          next: viaduct pool show NAME lists the disks of a pool, while its node runs
    "#]],
    );
    real.says(
        "pool check text",
        2,
        expect![[r#"
        error: text is no disk of a pool: it has 8 bytes, no whole pages
          next: viaduct pool show NAME lists the disks of a pool, while its node runs
    "#]],
    );
    std::fs::write(real.directory.path().join("zeroes"), [0; 1 << 20]).unwrap();
    real.says(
        "pool inspect zeroes",
        0,
        expect![[r#"
        nothing but zeroes, at byte 0

        nothing but zeroes, at byte 1044480
    "#]],
    );
}

/// A node where the disks of another one are, and nothing else.
fn elsewhere() -> Real {
    let mut first = with_pool();
    for line in ["lu create web --size 8M --pool fast", "snapshot create web@monday"] {
        assert_eq!(first.run(line).code, 0, "{line}");
    }
    first.stop();
    let real = Real::new();
    for disk in ["one", "two"] {
        let [from, to] = [&first, &real].map(|it| it.directory.path().join(disk));
        std::fs::copy(from, to).unwrap();
    }
    real
}

#[test]
fn a_pool_of_another_node_is_found() {
    let real = elsewhere();
    real.says(
        "pool import",
        0,
        expect![[r#"
        no pool of another node was found
    "#]],
    );
    real.says(
        "pool import --dir .",
        0,
        expect![[r#"
        NAME  UUID                                  DISKS   LUS  STATE
        fast  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  2 of 2  1    importable

        pool: fast
        disk: /DIR/one, group 0
        disk: /DIR/two, group 0
        LU:   web, 8.0MiB, 1 snapshot
    "#]],
    );
    real.says(
        "pool import --pv one",
        0,
        expect![[r#"
        NAME  UUID                                  DISKS   LUS  STATE
        fast  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  1 of 2  -    not importable

        pool:    fast
        disk:    /DIR/one, group 0
        problem: pool 'fast' cannot be imported: only 1 of the pool's 2 disks found here
        next:    connect its other disks, or say where they are: --pv, --dir
    "#]],
    );
    real.says(
        "pool import fast --pv one",
        4,
        expect![[r#"
        error: pool 'fast' cannot be imported: only 1 of the pool's 2 disks found here
          next: connect its other disks, or say where they are: --pv, --dir
    "#]],
    );
}

#[test]
fn a_pool_of_another_node_is_imported_under_other_names() {
    let real = elsewhere();
    real.says(
        "pool import fast --dir . --as slow --prefix old-",
        0,
        expect![[r#"
            pool slow: 124MiB, online
            1 LU: old-web
            Clients, mappings, limits, serials and settings are not on the disks.
              next: viaduct config restore FILE brings them back from what config save has written
        "#]],
    );
    real.says(
        "lu ls",
        0,
        expect![[r#"
        NAME     SIZE  BACKING  STATE   USED    MAPPED TO
        old-web  8MiB  pool     online  512KiB  -
    "#]],
    );
    real.says("pool import fast --pv one", 3, expect![[r#"
        error: no pool 'fast' was found; /DIR/one: it is in use: pool slow
          next: viaduct pool import without a name lists those that were; --pv and --dir say where to look
    "#]]);
    real.says(
        "pool import --as slow",
        2,
        expect![[r#"
        error: the following required arguments were not provided:
          <POOL>

        Usage: viaduct pool import --as <NAME> --data <DIR> <POOL>

        For more information, try '--help'.
    "#]],
    );
}
