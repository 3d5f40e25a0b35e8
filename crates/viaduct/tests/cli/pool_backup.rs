//! Backups of a pool's metadata, and what they bring back, word for word, with the real data plane.

use std::fs::File;
use std::os::unix::fs::FileExt;

use expect_test::expect;

use crate::bench::Real;
use crate::pool_disks::{with_lu, with_pool};

/// Writes zeroes over a part of a disk.
fn wipe(real: &Real, disk: &str, at: u64, len: usize) {
    let file = File::options().write(true).open(real.directory.path().join(disk)).unwrap();
    file.write_all_at(&vec![0; len], at).unwrap();
}

/// Both labels of a disk of 64 MiB.
fn wipe_labels(real: &Real) {
    wipe(real, "two", 0, 4096);
    wipe(real, "two", (64 << 20) - 4096, 4096);
}

/// With a backup in `kept`, and nobody who has it open.
fn backed_up(mut real: Real) -> Real {
    assert_eq!(real.run("pool backup fast --out kept").code, 0);
    real.stop();
    real
}

#[test]
fn a_pool_is_backed_up_by_its_node_or_from_its_disks() {
    let mut real = with_lu();
    real.says(
        "pool backup fast --out kept",
        0,
        expect![[r#"
            pool fast: 2 disks and 1 LU in kept, 28672 bytes
        "#]],
    );
    real.says(
        "pool backup slow --out other",
        3,
        expect![[r#"
            error: there is no pool 'slow'
              next: viaduct pool ls shows those that are there; viaduct pool create makes one
        "#]],
    );
    assert!(!real.directory.path().join("other").exists());
    assert!(!real.directory.path().join("other.new").exists());
    real.says(
        "pool backup fast --out nowhere/kept",
        1,
        expect![[r#"
            error: cannot write nowhere/kept.new: No such file or directory (os error 2)
              next: name a file that can be written: --out FILE
        "#]],
    );
    real.says(
        "pool backup one two --out other",
        5,
        expect![[r#"
            error: a node has one open
              next: stop that node first; pool check and pool backup ask it if the pool is named
        "#]],
    );
    real.says(
        "pool restore kept --pv one two",
        5,
        expect![[r#"
            error: a node has one open
              next: stop that node first; what it can mend by itself it does while it runs
        "#]],
    );
    real.stop();
    real.says(
        "pool backup one two --out kept",
        0,
        expect![[r#"
            pool fast: 2 disks and 1 LU in kept, 28672 bytes
        "#]],
    );
    real.says(
        "pool backup one --out other",
        2,
        expect![[r#"
            error: only 1 of the pool's 2 disks found here
              next: name every disk of the pool
        "#]],
    );
}

#[test]
fn a_label_and_a_slab_table_are_restored() {
    let real = backed_up(with_lu());
    wipe_labels(&real);
    wipe(&real, "one", 1 << 20, 8192);
    real.says("pool check one two", 1, expect![[r#"
        pool:            fast
        uuid:            xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        disks:           2
        slabs:           0, 0 of them of LUs
        LUs:             0
        layers:          0
        pages of maps:   0
        extents in use:  0
        journal records: 0
        found:           1 damaged

        SEVERITY  OF   WHAT
        damaged   two  neither of its labels can be read: it was never written; at the end: it was never written
        error: pool 'fast' has 1 damage
          next: keep the disks as they are; viaduct pool restore brings back what a file of viaduct pool backup has; the rest is restored from a backup of the data
    "#]]);
    real.says("pool restore kept --pv one --pv two --dry-run", 0, expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  4 pages would be written
        damaged:   0

        OF   WOULD BE RESTORED
        two  its label: disk xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, of opening 2 of the pool
        one  page 0 of its slab table; LUs that begin there, of which one that was removed since is back: xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
    "#]]);
    real.says("pool restore kept --pv one two", 0, expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  4 pages were written
        damaged:   0

        OF   RESTORED
        two  its label: disk xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, of opening 2 of the pool
        one  page 0 of its slab table; LUs that begin there, of which one that was removed since is back: xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
    "#]]);
    real.says(
        "pool restore kept --pv one two",
        0,
        expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  nothing
        damaged:   0
    "#]],
    );
    assert!(real.run("pool check one two").out.contains("nothing, it is clean"));
}

#[test]
fn what_the_backup_is_of_no_use_for_is_named() {
    let real = backed_up(with_lu());
    // Both heads of the root.
    wipe(&real, "one", 2 << 20, 8192);
    real.says("pool restore kept --pv one two", 1, expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  nothing
        damaged:   1

        OF                                       NOT AS THE BACKUP HAS IT
        LU xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  its root: the backup has that of turn 2, and nothing says that no later one was written

        OF                                       STILL DAMAGED
        LU xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx  its root cannot be read: it was never written
        error: pool 'fast' has 1 damage that the backup is of no use for
          next: try an other backup of the pool; what none of them proves to be right is restored from a backup of the data, or if there is none with --as-of-backup: see docs/pools.md
    "#]]);
    real.says("pool restore kept --pv two", 1, expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  nothing
        damaged:   1

        OF    STILL DAMAGED
        pool  only 1 of the pool's 2 disks found here
        error: pool 'fast' has 1 damage that the backup is of no use for
          next: try an other backup of the pool; what none of them proves to be right is restored from a backup of the data, or if there is none with --as-of-backup: see docs/pools.md
    "#]]);
}

#[test]
fn an_lu_is_as_the_backup_has_it_where_that_is_asked_for() {
    let real = backed_up(with_lu());
    real.says(
        "pool restore kept --pv one two --as-of-backup web",
        1,
        expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  nothing
        damaged:   0

        OF                                             STAYS AS IT IS
        LU web (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)  it is not damaged
        error: 1 LU is not as the backup has it
          next: leave out what is refused, or do what it says; everything else is done
    "#]],
    );
    real.says(
        "pool restore kept --pv one two --as-of-backup disk",
        2,
        expect![[r#"
        error: the backup has no LU 'disk'
          next: name an LU as it was called when the backup was taken, or by its UUID
    "#]],
    );
    wipe(&real, "one", 2 << 20, 8192);
    real.says("pool restore kept --pv one two --dry-run --as-of-backup web", 0, expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  3 pages would be written
        damaged:   0

        OF                                             WOULD BE AS OF THE BACKUP
        LU web (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)  its maps are those of dddd-dd-ddTdd:dd:ddZ, and name 0 bytes, of which 0 are lost; what was written since is lost, or stands where they name something else
    "#]]);
    assert!(real.run("pool check one two").out.contains("1 damaged"));
    real.says("pool restore kept --pv one two --as-of-backup web", 0, expect![[r#"
        pool:      fast
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        backup of: dddd-dd-ddTdd:dd:ddZ
        restored:  3 pages were written
        damaged:   0

        OF                                             AS OF THE BACKUP
        LU web (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)  its maps are those of dddd-dd-ddTdd:dd:ddZ, and name 0 bytes, of which 0 are lost; what was written since is lost, or stands where they name something else
    "#]]);
    assert!(real.run("pool check one two").out.contains("nothing, it is clean"));
}

#[test]
fn what_is_no_backup_is_refused() {
    let real = backed_up(with_pool());
    real.says(
        "pool restore one --pv one two",
        1,
        expect![[r#"
        error: one: it is no backup of a pool
          next: use another backup of this pool
    "#]],
    );
    let kept = std::fs::read(real.directory.path().join("kept")).unwrap();
    std::fs::write(real.directory.path().join("cut"), &kept[..kept.len() - 4096]).unwrap();
    real.says(
        "pool restore cut --pv one two",
        1,
        expect![[r#"
            error: cut: it ends at byte 16384, before all of it was said: it was cut off
              next: use another backup of this pool
        "#]],
    );
    std::fs::write(real.directory.path().join("cut"), &kept[..kept.len() - 100]).unwrap();
    real.says(
        "pool restore cut --pv one two",
        1,
        expect![[r#"
            error: cut is no backup that is whole: it has 20380 bytes; it was cut off
              next: use another backup of this pool
        "#]],
    );
    real.says(
        "pool restore kept",
        2,
        expect![[r#"
        error: the following required arguments were not provided:
          --pv <PATH>...

        Usage: viaduct pool restore --pv <PATH>... --data <DIR> <FILE>

        For more information, try '--help'.
    "#]],
    );
}
