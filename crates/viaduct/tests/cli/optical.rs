//! Media and drives on the command line.

use std::path::Path;

use expect_test::expect;
use node::engine::DriveStatus;
use uuid::Uuid;

use super::bench::Bench;

/// Something that begins as a disc does, of that many bytes.
fn image(directory: &Path, label: &str, bytes: usize) {
    let mut image = vec![0; bytes];
    image[32768..32775].copy_from_slice(b"\x01CD001\x01");
    image[32808..32840].fill(b' ');
    image[32808..32808 + label.len()].copy_from_slice(label.as_bytes());
    image[32768 + 80] = 17;
    image[32768 + 129] = 8;
    std::fs::write(directory.join(format!("{label}.iso")), image).unwrap();
}

fn bench() -> Bench {
    let bench = Bench::new();
    image(bench.directory.path(), "DEBIAN_12", 1 << 20);
    image(bench.directory.path(), "TOOLS", 40_000);
    for line in [
        "media add DEBIAN_12.iso --name debian-12",
        "drive create dvd --serial dvd",
        "client create host1 --iqn iqn.1994-05.com.redhat:abc",
        "map dvd --to host1 --via iscsi",
    ] {
        let ran = bench.run(line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.err);
    }
    bench
}

#[test]
fn what_optical_commands_say_when_they_are_done() {
    let bench = bench();
    bench.done(
        "media add TOOLS.iso",
        expect![[r#"
        medium TOOLS: 40KiB, ISO 9660 'TOOLS', not bootable
        sha256 d633b8caf0641f0f1c925a86d5cbac8265b22895ab4ad8cb5a8df6b2a3ab35c1
    "#]],
    );
    bench.done(
        "drive create dvd2 --medium TOOLS",
        expect![[r#"
        drive dvd2: TOOLS, online
    "#]],
    );
    bench.done(
        "drive load dvd debian-12",
        expect![[r#"
        drive dvd: debian-12, online
    "#]],
    );
    bench.done(
        "drive eject dvd",
        expect![[r#"
        drive dvd: empty, online
    "#]],
    );
    bench.done(
        "map dvd2 --to host1 --via iscsi",
        expect![[r#"
        drive dvd2 at host1-2 LUN 1, listening: iqn.2026-11.org.viaduct:xxxxxxxx:host1
    "#]],
    );
    bench.done(
        "unmap dvd2 --from host1",
        expect![[r#"
        dvd2 unmapped from host1
    "#]],
    );
    bench.done(
        "drive rm dvd2",
        expect![[r#"
        drive dvd2 removed
    "#]],
    );
    bench.done(
        "media rm TOOLS",
        expect![[r#"
        medium TOOLS removed
    "#]],
    );
    let noted = bench.run("media add TOOLS.iso").err;
    assert!(
        noted.contains("TOOLS.iso was not of whole blocks of 2048 bytes; 960 zeroes"),
        "{noted}"
    );
}

#[test]
fn media_and_drives_are_listed() {
    let bench = bench();
    bench.done(
        "drive ls",
        expect![[r#"
        NAME  MEDIUM  TRAY    LOCKED  STATE   MAPPED TO
        dvd   -       closed  no      online  host1-2
    "#]],
    );
    bench.run("drive load dvd debian-12");
    bench.done(
        "media ls",
        expect![[r#"
        NAME       SIZE  LABEL      BOOTS  SHA256        LOADED IN
        debian-12  1MiB  DEBIAN_12  -      84a516183001  dvd
    "#]],
    );
    bench.done(
        "media show debian-12",
        expect![[r#"
        name:      debian-12
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        size:      1MiB
        format:    ISO 9660
        label:     DEBIAN_12
        boots:     -
        sha256:    84a5161830016cf07e25ca1fc862fc98cae40c1d2b4a7fb2e7d065c5c8b73123
        loaded in: dvd
    "#]],
    );
    bench.done(
        "drive show dvd",
        expect![[r#"
        name:      dvd
        uuid:      xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        serial:    dvd
        shareable: no
        medium:    debian-12
        tray:      closed
        locked by: -
        state:     online
        mapped to: host1-2
    "#]],
    );
    bench.done(
        "mapping ls",
        expect![[r#"
        CLIENT  SLOT  LUN  LU   VIA    ACCESS     STATE      SOCKET OR TARGET
        host1   2     0    dvd  iscsi  read-only  listening  iqn.2026-11.org.viaduct:xxxxxxxx:host1
    "#]],
    );
}

#[test]
fn what_optical_commands_refuse() {
    let bench = bench();
    bench.run("drive load dvd debian-12");
    bench.refused(
        "media rm debian-12",
        4,
        expect![[r#"
        error: medium 'debian-12' is loaded in drive dvd
          next: viaduct drive eject dvd
    "#]],
    );
    bench.refused(
        "media rm other",
        3,
        expect![[r#"
        error: there is no medium 'other' in the library
          next: viaduct media ls; viaduct media add FILE --name other
    "#]],
    );
    bench.refused(
        "drive rm dvd",
        4,
        expect![[r#"
        error: drive 'dvd' is mapped to client 'host1' at slot 2
          next: viaduct unmap dvd --from host1
    "#]],
    );
    bench.refused(
        "drive load dvd2 debian-12",
        3,
        expect![[r#"
        error: there is no drive 'dvd2'
          next: viaduct drive ls shows those that are there
    "#]],
    );
    bench.refused(
        "drive load dvd other",
        3,
        expect![[r#"
        error: there is no medium 'other' in the library
          next: viaduct media ls; viaduct media add FILE --name other
    "#]],
    );
    bench.refused(
        "drive create dvd",
        4,
        expect![[r#"
        error: drive 'dvd' exists already
          next: choose another name: LUs and drives share them, as they are mapped by name
    "#]],
    );
    bench.refused(
        "media add DEBIAN_12.iso --name debian-12",
        4,
        expect![[r#"
        error: the library has a medium 'debian-12' already
          next: choose another name with --name, or viaduct media rm debian-12
    "#]],
    );
    bench.refused(
        "map dvd --to host1 --via vhost-user-blk --slot 9",
        2,
        expect![[r#"
        error: drive 'dvd' cannot be mapped via vhost-user-blk, which has disks only
          next: viaduct map dvd --to host1 --via iscsi
    "#]],
    );
}

#[test]
fn a_locked_tray_opens_by_force_only() {
    let bench = bench();
    bench.run("drive load dvd debian-12");
    let shown = bench.run("-o json drive show dvd").out;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let uuid: Uuid = shown["uuid"].as_str().unwrap().parse().unwrap();
    let locked_by = vec!["iqn.1994-05.com.redhat:abc,i,0x00023d000001".to_owned()];
    bench
        .engine
        .set_drive(uuid, DriveStatus { locked_by, is_loaded: true, ..DriveStatus::default() });
    bench.refused("drive eject dvd", 5, expect![[r#"
        error: medium 'debian-12' is locked in drive 'dvd' by iqn.1994-05.com.redhat:abc,i,0x00023d000001, which was told that it is to come out, and did not let go
          next: unmount it there and try again, or viaduct drive eject dvd --force
    "#]]);
    bench.done(
        "drive ls",
        expect![[r#"
        NAME  MEDIUM     TRAY    LOCKED  STATE   MAPPED TO
        dvd   debian-12  closed  yes     online  host1-2
    "#]],
    );
    bench.done(
        "drive eject dvd --force",
        expect![[r#"
        drive dvd: empty, online
    "#]],
    );
}
