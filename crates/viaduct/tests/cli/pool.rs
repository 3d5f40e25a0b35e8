//! Pools, word for word.

use expect_test::expect;
use model::ApiError;
use node::engine::CopyAbout;

use crate::bench::Bench;

pub fn with_disks() -> Bench {
    let bench = Bench::new();
    for name in ["one", "two"] {
        let disk = std::fs::File::create(bench.directory.path().join(name)).unwrap();
        disk.set_len(256 << 20).unwrap();
    }
    bench
}

/// Pool fast on both with LU web, and pool own on a file of the node.
fn furnished() -> Bench {
    let bench = with_disks();
    for line in [
        "pool create fast --pv one --pv two",
        "pool create own --size 1G --slab-size 4M",
        "lu create web --size 3G --pool fast",
    ] {
        let ran = bench.run(line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.err);
    }
    bench
}

#[test]
fn pools_are_made_and_listed() {
    let bench = with_disks();
    bench.done(
        "pool create fast --pv one --pv two",
        expect![[r#"
        pool fast: 4.0GiB, online
    "#]],
    );
    bench.done(
        "pool create own --size 1G --slab-size 4M",
        expect![[r#"
        pool own: 2.0GiB, online
    "#]],
    );
    bench.done(
        "lu create web --size 3G --pool fast",
        expect![[r#"
        LU web: 3GiB, pool, online
    "#]],
    );
    bench.done(
        "pool ls",
        expect![[r#"
            NAME  SIZE    FREE    VIRTUAL  RATIO  STATE   ALERTS  LUS  DISKS
            fast  4.0GiB  2.0GiB  3.0GiB   0.75   online  -       1    2
            own   2.0GiB  1.0GiB  0B       0.00   online  -       0    1
        "#]],
    );
}

#[test]
fn pools_are_shown_in_full() {
    let bench = furnished();
    bench.done(
        "pool show fast",
        expect![[r#"
            name:                fast
            uuid:                xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:                4.0GiB
            free:                2.0GiB
            given to LUs:        2.0GiB
            virtual:             3.0GiB
            virtual to size:     0.75
            slab size:           16MiB
            extent size:         256KiB
            checksums:           no
            state:               online
            alerts:              -
            LUs:                 web
            low at:              85 % used
            critical at:         95 % used
            overcommitted above: never
            removal rate:        any
            scrub rate:          any
            move rate:           any
            catch-up rate:       any

            disk:  /DIR/one
            uuid:  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:  2.0GiB
            free:  1.0GiB
            state: member

            disk:  /DIR/two
            uuid:  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:  2.0GiB
            free:  1.0GiB
            state: member
        "#]],
    );
}

#[test]
fn a_pool_in_a_file_of_the_node_is_shown_in_full() {
    let bench = furnished();
    bench.done(
        "pool show own",
        expect![[r#"
            name:                own
            uuid:                xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:                2.0GiB
            free:                1.0GiB
            given to LUs:        1.0GiB
            virtual:             0B
            virtual to size:     0.00
            slab size:           4MiB
            extent size:         256KiB
            checksums:           no
            state:               online
            alerts:              -
            LUs:                 -
            low at:              85 % used
            critical at:         95 % used
            overcommitted above: never
            removal rate:        any
            scrub rate:          any
            move rate:           any
            catch-up rate:       any

            disk:  /DIR/data/pools/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.img
            uuid:  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:  2.0GiB
            free:  1.0GiB
            state: member
        "#]],
    );
}

#[test]
fn settings_of_pools_that_make_no_sense_are_refused() {
    let bench = furnished();
    bench.refused(
        "pool set fast",
        2,
        expect![[r#"
        error: say what pool 'fast' shall be given
          next: viaduct pool set fast --warn 85 --critical 95
    "#]],
    );
    bench.refused("pool set fast --warn 0", 2, expect![[r#"
        error: invalid value '0' for '--warn <PERCENT|off>': '0' is no percentage; write a number between 1 and 100, or off

        For more information, try '--help'.
    "#]]);
    bench.refused(
        "pool set fast --warn 90 --critical 80",
        2,
        expect![[r#"
        error: pool 'fast': a pool would be critical at 80 %, before it is warned of at 90 %
          next: set both: --warn 85 --critical 95
    "#]],
    );
    bench.refused(
        "pool set slow --warn off",
        3,
        expect![[r#"
        error: there is no pool 'slow'
          next: viaduct pool ls shows those that are there; viaduct pool create makes one
    "#]],
    );
}

/// Half of pool fast is used, and three quarters of it are promised.
#[test]
fn a_pool_tells_what_its_settings_ask_for() {
    let bench = furnished();
    bench.done(
        "pool set fast --warn 40 --critical off --overcommit 0.5",
        expect![[r#"
            low at:              40 % used
            critical at:         never
            overcommitted above: 0.50 times its size
            removal rate:        any
            scrub rate:          any
            move rate:           any
            catch-up rate:       any
        "#]],
    );
    bench.done(
        "pool ls",
        expect![[r#"
        NAME  SIZE    FREE    VIRTUAL  RATIO  STATE   ALERTS              LUS  DISKS
        fast  4.0GiB  2.0GiB  3.0GiB   0.75   online  low, overcommitted  1    2
        own   2.0GiB  1.0GiB  0B       0.00   online  -                   0    1
    "#]],
    );
    let said = bench.run("event ls").out;
    let told = "LUs of pool 'fast' are promised 3GiB, more than 0.50 times its size, 4GiB";
    assert_eq!(said.matches(told).count(), 1, "{said}");
    let status = bench.run("status").out;
    assert!(status.contains("pool 'fast' is used to 40 % or more, 2GiB are free"), "{status}");
    bench.done(
        "pool set fast --warn 51 --overcommit 0.75",
        expect![[r#"
            low at:              51 % used
            critical at:         never
            overcommitted above: 0.75 times its size
            removal rate:        any
            scrub rate:          any
            move rate:           any
            catch-up rate:       any
        "#]],
    );
    let said = bench.run("event ls").out;
    assert!(said.contains("no more of pool 'fast' is promised than it may"), "{said}");
    let view: serde_json::Value =
        serde_json::from_str(&bench.run("pool show fast -o json").out).unwrap();
    assert_eq!((&view["alerts"], &view["problem"]), (&serde_json::json!([]), &().into()));
    assert_eq!(view["settings"]["overcommit_percent"], 75);
}

#[test]
fn a_pool_goes_when_it_is_empty() {
    let bench = furnished();
    bench.done(
        "lu ls",
        expect![[r#"
        NAME  SIZE  BACKING  STATE   USED  MAPPED TO
        web   3GiB  pool     online  -     -
    "#]],
    );
    bench.refused(
        "pool rm fast",
        4,
        expect![[r#"
        error: pool 'fast' has LUs: web
          next: viaduct lu rm web
    "#]],
    );
    bench.done(
        "lu resize web --size 1G",
        expect![[r#"
        LU web: 1GiB, pool, online
    "#]],
    );
    bench.done(
        "lu rm web",
        expect![[r#"
        LU web removed
    "#]],
    );
    bench.done(
        "pool rm fast",
        expect![[r#"
        pool fast removed
    "#]],
    );
    assert_eq!(bench.engine.files().len(), 1);
}

#[test]
fn pools_are_of_disks_or_of_a_file() {
    let bench = with_disks();
    bench.refused(
        "pool create fast",
        2,
        expect![[r#"
            error: the following required arguments were not provided:
              --pv <PATH[@GROUP]>

            Usage: viaduct pool create --data <DIR> --pv <PATH[@GROUP]> <NAME>

            For more information, try '--help'.
        "#]],
    );
    bench.refused(
        "pool create fast --pv one --size 1G",
        2,
        expect![[r#"
            error: the argument '--pv <PATH[@GROUP]>' cannot be used with '--size <SIZE>'

            Usage: viaduct pool create --pv <PATH[@GROUP]> --data <DIR> <NAME>

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn pools_that_cannot_be_are_refused() {
    let bench = with_disks();
    bench.refused(
        "pool create fast --pv three",
        3,
        expect![[r#"
        error: there is no file /DIR/three
          next: give the absolute path of a raw image or a block device on this node
    "#]],
    );
    bench.refused(
        "pool create fast --pv one --pv ./one",
        2,
        expect![[r#"
        error: /DIR/one and /DIR/one are one disk
          next: name each disk once
    "#]],
    );
    bench.refused("pool create fast --size 1M", 2, expect![[r#"
        error: a file of 1MiB cannot be in pool 'fast': it has room for no slab; a disk of this pool has at least 19922944 bytes
    "#]]);
    bench.refused(
        "pool create fast --pv one --slab-size 5M",
        2,
        expect![[r#"
        error: pool 'fast' has slabs of 5MiB; they must be a power of two between 4MiB and 256MiB
    "#]],
    );
    bench.refused(
        "lu create web --size 1G --pool fast",
        3,
        expect![[r#"
        error: there is no pool 'fast'
          next: viaduct pool ls shows those that are there; viaduct pool create makes one
    "#]],
    );
    bench.refused(
        "lu create web --size 1G --pool fast --backing memory",
        2,
        expect![[r#"
        error: the argument '--pool <POOL>' cannot be used with '--backing <BACKING>'

        Usage: viaduct lu create --size <SIZE> --pool <POOL> --data <DIR> <NAME>

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn a_disk_with_data_is_taken_only_by_force() {
    let bench = with_disks();
    let mut disk = vec![0; 64 << 20];
    disk[4086..4096].copy_from_slice(b"SWAPSPACE2");
    std::fs::write(bench.directory.path().join("one"), disk).unwrap();
    bench.refused("pool create fast --pv one", 4, expect![[r#"
        error: /DIR/one holds data: swap
          next: choose another disk; viaduct pool create fast --pv /DIR/one --force takes it, and what it holds is lost
    "#]]);
    bench.done(
        "pool create fast --pv one --force",
        expect![[r#"
        pool fast: 2.0GiB, online
    "#]],
    );
}

#[test]
fn a_disk_is_used_once() {
    let bench = with_disks();
    assert_eq!(bench.run("pool create fast --pv one").code, 0);
    bench.refused(
        "pool create fast --pv two",
        4,
        expect![[r#"
        error: pool 'fast' exists already
          next: choose another name; viaduct pool show fast shows the one there is
    "#]],
    );
    bench.refused(
        "pool create slow --pv one --force",
        4,
        expect![[r#"
        error: /DIR/one is in use: pool fast
          next: viaduct pv ls shows the disks that are free
    "#]],
    );
    bench.refused(
        "lu adopt one",
        4,
        expect![[r#"
        error: /DIR/one is in use: pool fast
    "#]],
    );
    bench.refused("lu create web --size 1000512 --pool fast", 2, expect![[r#"
        error: the size of LU 'web', 1000512B, is not a multiple of 4096, as that of an LU in a pool is; 980KiB would be
    "#]]);
    bench.done(
        "lu adopt two",
        expect![[r#"
        LU two: 256MiB, adopted, online
    "#]],
    );
    bench.refused(
        "pool create slow --pv two --force",
        4,
        expect![[r#"
        error: /DIR/two is in use: LU two
          next: viaduct pv ls shows the disks that are free
    "#]],
    );
}

#[test]
fn a_pool_that_cannot_be_opened_is_told_with_its_lus() {
    let bench = with_disks();
    bench.done(
        "pool create fast --pv one",
        expect![[r#"
        pool fast: 2.0GiB, online
    "#]],
    );
    let failure = ApiError::failed("disk /dev/sdb is missing").then("bring it back");
    bench.engine.fail("open pool slow", failure);
    bench.refused(
        "pool create slow --pv two",
        1,
        expect![[r#"
        error: pool/slow is in the configuration but not in effect: disk /dev/sdb is missing
          next: bring it back
    "#]],
    );
    bench.refused(
        "lu create web --size 1G --pool slow --serial web",
        1,
        expect![[r#"
        error: lu/web is in the configuration but not in effect: disk /dev/sdb is missing
          next: bring it back
    "#]],
    );
    bench.done(
        "pool ls",
        expect![[r#"
            NAME  SIZE    FREE    VIRTUAL  RATIO  STATE   ALERTS  LUS  DISKS
            fast  2.0GiB  1.0GiB  0B       0.00   online  -       0    1
            slow  -       -       1.0GiB   -      failed  -       1    1
        "#]],
    );
    bench.done(
        "lu show web",
        expect![[r#"
        name:       web
        uuid:       xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        serial:     web
        size:       1GiB
        used:       -
        block size: 512
        cache:      writeback
        shareable:  no
        removable:  no
        read-only:  no
        limits:     none
        backing:    pool slow
        path:       -
        state:      failed
        mapped to:  -
        problem:    disk /dev/sdb is missing
        next:       bring it back
    "#]],
    );
}

/// The same with more disks; these lines are done.
fn with_more(lines: &[&str]) -> Bench {
    let bench = furnished();
    for (name, mib) in [("three", 256), ("four", 256), ("small", 1)] {
        let disk = std::fs::File::create(bench.directory.path().join(name)).unwrap();
        disk.set_len(mib << 20).unwrap();
    }
    for line in lines {
        let ran = bench.run(line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.err);
    }
    bench
}

#[test]
fn disks_are_added_to_pools() {
    let bench = with_more(&[]);
    bench.done(
        "pool add-pv fast --pv three",
        expect![[r#"
        pool fast: 6.0GiB, 3.0GiB free, 3 disks
    "#]],
    );
    bench.refused(
        "pool add-pv fast --pv three",
        4,
        expect![[r#"
        error: disk /DIR/three is in pool 'fast' already
          next: viaduct pool show fast lists its disks
    "#]],
    );
    bench.refused("pool add-pv fast --pv small", 2, expect![[r#"
        error: /DIR/small cannot be in pool 'fast': it has room for no slab; a disk of this pool has at least 19922944 bytes
    "#]]);
    bench.refused(
        "pool add-pv own --pv one",
        4,
        expect![[r#"
        error: /DIR/one is in use: pool fast
          next: viaduct pv ls shows the disks that are free
    "#]],
    );
    bench.refused(
        "pool add-pv none --pv four",
        3,
        expect![[r#"
        error: there is no pool 'none'
          next: viaduct pool ls shows those that are there; viaduct pool create makes one
    "#]],
    );
}

#[test]
fn a_failure_group_is_split_off() {
    let bench = with_more(&["pool add-pv fast --pv three@right"]);
    bench.refused(
        "pool split fast left",
        3,
        expect![[r#"
        error: pool 'fast' has no failure group left
          next: it has 0, right
    "#]],
    );
    bench.refused("pool split own 0", 4, expect![[r#"
        error: the group without a name is the only failure group of pool 'own'
          next: viaduct pool add-pv own --pv DISK@OTHER mirrors it; viaduct pool rm own removes the pool
    "#]]);
    bench.done(
        "pool split fast right",
        expect![[r#"
        pool fast: 4.0GiB, 2.0GiB free, 2 disks
    "#]],
    );
    bench.refused(
        "pool split fast right",
        3,
        expect![[r#"
        error: pool 'fast' has no failure group right
          next: it has 0
    "#]],
    );
    // Its disk is anybody's.
    bench.done(
        "pool add-pv own --pv three",
        expect![[r#"
        pool own: 4.0GiB, 2.0GiB free, 2 disks
    "#]],
    );
}

#[test]
fn a_failure_group_is_no_pool_of_a_name_that_is_taken() {
    let bench = with_more(&["pool add-pv fast --pv three@right"]);
    bench.refused(
        "pool split fast right --as own",
        4,
        expect![[r#"
        error: there is a pool 'own' on this node
          next: choose another name: viaduct pool split fast right --as OTHER
    "#]],
    );
    bench.refused("pool split fast right --as a/b", 2, expect![[r#"
        error: invalid value 'a/b' for '--as <NEW>': pool name 'a/b' has '/' in it; use only letters, digits, '.', '_' and '-'

        For more information, try '--help'.
    "#]]);
}

#[test]
fn a_failure_group_becomes_a_pool() {
    let bench = with_more(&["pool add-pv fast --pv three@right"]);
    bench.done(
        "pool split fast right --as new",
        expect![[r#"
        pool fast: 4.0GiB, 2.0GiB free, 2 disks
    "#]],
    );
    bench.done(
        "pool ls",
        expect![[r#"
        NAME  SIZE    FREE    VIRTUAL  RATIO  STATE   ALERTS  LUS  DISKS
        fast  4.0GiB  2.0GiB  3.0GiB   0.75   online  -       1    2
        new   2.0GiB  1.0GiB  3.0GiB   1.50   online  -       1    1
        own   2.0GiB  1.0GiB  0B       0.00   online  -       0    1
    "#]],
    );
    bench.done(
        "pool show new",
        expect![[r#"
        name:                new
        uuid:                xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        size:                2.0GiB
        free:                1.0GiB
        given to LUs:        1.0GiB
        virtual:             3.0GiB
        virtual to size:     1.50
        slab size:           16MiB
        extent size:         256KiB
        checksums:           no
        state:               online
        alerts:              -
        LUs:                 new-web
        low at:              85 % used
        critical at:         95 % used
        overcommitted above: never
        removal rate:        any
        scrub rate:          any
        move rate:           any
        catch-up rate:       any

        disk:  /DIR/three
        uuid:  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        size:  2.0GiB
        free:  1.0GiB
        state: member
    "#]],
    );
    bench.done(
        "lu ls",
        expect![[r#"
        NAME     SIZE  BACKING  STATE   USED  MAPPED TO
        new-web  3GiB  pool     online  -     -
        web      3GiB  pool     online  -     -
    "#]],
    );
    // Its disk is the new pool's.
    bench.refused(
        "pool add-pv own --pv three",
        4,
        expect![[r#"
        error: /DIR/three is in use: pool new
          next: viaduct pv ls shows the disks that are free
    "#]],
    );
}

#[test]
fn a_copy_that_has_missed_something_is_taken_only_when_that_is_meant() {
    let bench = with_more(&["pool add-pv fast --pv three@right"]);
    let stale = |group, missed| CopyAbout {
        group,
        is_current: false,
        is_here: group > 0,
        missed,
        slabs: 12,
        lacking: 4 * u64::from(1 - group),
    };
    bench.engine.set_copies(vec![stale(1, None), stale(0, Some(2))]);
    bench.done(
        "lu force web",
        expect![[r#"
        COPY IN GROUP  ALL DISKS HERE  HAS MISSED  LACKS
        right          yes             unknown     -
        0              no              2 times     64.0MiB of 192MiB

        nothing was done. Without a copy that has everything the LU stays closed.
        viaduct lu force web --group right --yes takes the copy of group right for it:
        - what was written while others went on without that copy is lost, in part or all
        - what was being brought there lately may be newer than the rest
        - a copy that has everything is not taken any more if it comes back
    "#]],
    );
    bench.refused(
        "lu force web --group middle --yes",
        3,
        expect![[r#"
        error: pool 'fast' has no failure group middle
          next: viaduct lu force web lists the copies
    "#]],
    );
    bench.done(
        "lu force web --yes",
        expect![[r#"
        LU web: 3GiB, pool, online
    "#]],
    );
    let shown = bench.run("lu show web").out;
    assert!(shown.contains("to what group right had"), "{shown}");
    bench.engine.set_copies(vec![CopyAbout { is_current: true, ..stale(1, Some(0)) }]);
    bench.done(
        "lu force web",
        expect![[r#"
        COPY IN GROUP  ALL DISKS HERE  HAS MISSED  LACKS
        right          yes             nothing     -

        nothing is to be forced: a copy has everything
    "#]],
    );
    bench.refused(
        "lu force none --yes",
        3,
        expect![[r#"
        error: there is no LU 'none'
          next: viaduct lu ls shows those that are there
    "#]],
    );
}

#[test]
fn disks_are_replaced_and_taken_out() {
    let bench = with_more(&["pool add-pv fast --pv three"]);
    bench.done(
        "pool replace-pv fast two four",
        expect![[r#"
            pool fast: 6.0GiB, 3.0GiB free, 3 disks
        "#]],
    );
    bench.done(
        "pool rm-pv fast three",
        expect![[r#"
            pool fast: 4.0GiB, 2.0GiB free, 2 disks
        "#]],
    );
    bench.refused(
        "pool rm-pv fast three",
        3,
        expect![[r#"
        error: pool 'fast' has no disk /DIR/three
          next: it has /DIR/one, /DIR/four
    "#]],
    );
    bench.refused(
        "pool rm-pv fast one --cancel",
        4,
        expect![[r#"
        error: disk /DIR/one is not leaving pool 'fast'
          next: viaduct pool show fast lists its disks
    "#]],
    );
}

#[test]
fn disks_that_leave_are_shown_and_may_stay() {
    let bench = with_more(&[
        "pool add-pv fast --pv three",
        "pool replace-pv fast two four",
        "pool rm-pv fast three",
    ]);
    bench.engine.hold("take disk");
    bench.done(
        "pool rm-pv fast four --no-wait",
        expect![[r#"
            pool fast: 4.0GiB, 2.0GiB free, 2 disks; leaving: /DIR/four
        "#]],
    );
    bench.done(
        "pool show fast",
        expect![[r#"
            name:                fast
            uuid:                xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:                4.0GiB
            free:                2.0GiB
            given to LUs:        2.0GiB
            virtual:             3.0GiB
            virtual to size:     0.75
            slab size:           16MiB
            extent size:         256KiB
            checksums:           no
            state:               online
            alerts:              -
            LUs:                 web
            low at:              85 % used
            critical at:         95 % used
            overcommitted above: never
            removal rate:        any
            scrub rate:          any
            move rate:           any
            catch-up rate:       any

            disk:  /DIR/one
            uuid:  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:  2.0GiB
            free:  1.0GiB
            state: member

            disk:  /DIR/four
            uuid:  xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            size:  2.0GiB
            free:  1.0GiB
            state: leaving, 0 %, 64 slabs left
        "#]],
    );
    bench.refused("pool rm-pv fast one", 4, expect![[r#"
        error: disk /DIR/one is the last one of pool 'fast'
          next: viaduct pool replace-pv fast /DIR/one NEW brings what is on it to another one; viaduct pool rm fast removes the pool
    "#]]);
    bench.done(
        "pool rm-pv fast four --cancel",
        expect![[r#"
            pool fast: 4.0GiB, 2.0GiB free, 2 disks
        "#]],
    );
    bench.done(
        "pool add-pv own --size 2G",
        expect![[r#"
        pool own: 4.0GiB, 2.0GiB free, 2 disks
    "#]],
    );
}
