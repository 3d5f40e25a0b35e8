//! iSCSI on the command line: mappings and LUNs, sessions, secrets that nothing shows,
//! reservations, and what open-iscsi is told.

use std::os::unix::fs::PermissionsExt;

use expect_test::expect;
use model::reservation::{Held, Nexus, Registrant, ReservationKey, ReservationType, Reservations};
use model::status::{AdapterState, IscsiConnection, IscsiSession, SessionIo};
use model::{AdapterId, MappingId};
use node::engine::AdapterStatus;

use crate::bench::Bench;

const SECRET: &str = "correct horse battery";
const MUTUAL: &str = "staple and the rest";

/// Two LUs at the target of host1, one disk of vm1, secrets in files.
fn furnished() -> Bench {
    let bench = Bench::new();
    bench.engine.set_portals(vec!["127.0.0.1:3260".parse().unwrap()]);
    for line in [
        "lu create web1 --size 10G --serial web1",
        "lu create data --size 1G --serial data",
        "lu create scratch --size 512M --serial scratch --shareable",
        "client create host1 --iqn iqn.1994-05.com.redhat:ABC",
        "client create vm1",
        "map scratch --to vm1 --via vhost-user-blk",
        "map web1 --to host1 --via iscsi",
        "map scratch --to host1 --via iscsi --lun 7 --read-only",
    ] {
        let ran = bench.run(line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.err);
    }
    for (name, text) in [("secret", SECRET), ("mutual", MUTUAL)] {
        std::fs::write(bench.directory.path().join(name), format!("{text}\n")).unwrap();
    }
    bench
}

fn adapter() -> AdapterId {
    AdapterId { client: "host1".parse().unwrap(), slot: 2.try_into().unwrap() }
}

/// The initiator of host1 has logged in.
fn log_in(bench: &Bench) {
    let connection = IscsiConnection {
        cid: 1,
        peer: "127.0.0.1:40000".to_owned(),
        portal: "127.0.0.1:3260".to_owned(),
    };
    let session = IscsiSession {
        initiator: "iqn.1994-05.com.redhat:abc".to_owned(),
        isid: "00023d000001".to_owned(),
        tsih: 1,
        connections: vec![connection],
        since: "2026-11-20T10:00:00Z".parse().unwrap(),
        parameters: vec!["HeaderDigest=CRC32C".to_owned()],
        io: Some(SessionIo { commands: 12, bytes_read: 8 << 20, bytes_written: 4096 }),
    };
    let (state, sessions) = (AdapterState::Running, vec![session]);
    let status = AdapterStatus { state, session: None, sessions, problem: None };
    bench.engine.set_adapter(&adapter(), status);
}

#[test]
fn what_mapping_commands_say() {
    let bench = furnished();
    bench.done(
        "map data --to host1 --via iscsi",
        expect![[r#"
            LU data at host1-2 LUN 1, listening: iqn.2026-11.org.viaduct:xxxxxxxx:host1
        "#]],
    );
    bench.done("mapping ls", expect![[r#"
        CLIENT  SLOT  LUN  LU       VIA             ACCESS      STATE      SOCKET OR TARGET
        host1   2     0    web1     iscsi           read-write  listening  iqn.2026-11.org.viaduct:xxxxxxxx:host1
        host1   2     1    data     iscsi           read-write  listening  iqn.2026-11.org.viaduct:xxxxxxxx:host1
        host1   2     7    scratch  iscsi           read-only   listening  iqn.2026-11.org.viaduct:xxxxxxxx:host1
        vm1     2     -    scratch  vhost-user-blk  read-write  listening  /DIR/data/run/vm1-2.sock
    "#]]);
    bench.done(
        "lu ls",
        expect![[r#"
        NAME     SIZE    BACKING  STATE   USED  MAPPED TO
        data     1GiB    file     online  -     host1-2.1
        scratch  512MiB  file     online  -     host1-2.7 vm1-2
        web1     10GiB   file     online  -     host1-2
    "#]],
    );
    bench.refused("map data --to vm1 --via iscsi", 4, expect![[r#"
        error: client 'vm1' has no iSCSI name, by which its initiator would be known
          next: viaduct client add-iqn vm1 NAME; /etc/iscsi/initiatorname.iscsi on the client says which
    "#]]);
    bench.done(
        "unmap data --from host1",
        expect![[r#"
            data unmapped from host1
        "#]],
    );
}

#[test]
fn logins_are_sent_elsewhere() {
    let bench = furnished();
    bench.done(
        "client set host1 --redirect 192.0.2.7 --now",
        expect![[r#"
            client host1: logins are sent to 192.0.2.7:3260, for now
        "#]],
    );
    assert!(bench.run("client show host1").out.contains("logins are sent: to 192.0.2.7:3260"));
    bench.done(
        "client set host1 --redirect [2001:db8::7]:3261 --permanently",
        expect![[r#"
            client host1: logins are sent to [2001:db8::7]:3261, permanently
        "#]],
    );
    bench.done(
        "client set host1 --redirect none",
        expect![[r#"
            client host1: logins are let in
        "#]],
    );
    bench.refused(
        "client set vm1 --redirect 192.0.2.7",
        4,
        expect![[r#"
        error: client 'vm1' has no iSCSI name to log in with
          next: viaduct client add-iqn vm1 NAME
    "#]],
    );
    assert_eq!(bench.run("client set host1 --redirect 0.0.0.0").code, 2);
}

#[test]
fn a_client_with_its_target_and_sessions() {
    let bench = furnished();
    log_in(&bench);
    bench.done(
        "client show host1",
        expect![[r#"
            name:         host1
            socket owner: -
            iSCSI names:  iqn.1994-05.com.redhat:abc
            NVMe names:   -

            iSCSI target: iqn.2026-11.org.viaduct:xxxxxxxx:host1
            slot:         2
            portals:      127.0.0.1:3260
            sessions:     1

            initiator:     iqn.1994-05.com.redhat:abc
            ISID:          00023d000001
            TSIH:          1
            from:          127.0.0.1:40000 at 127.0.0.1:3260
            since:         dddd-dd-ddTdd:dd:ddZ
            parameters:    HeaderDigest=CRC32C
            commands:      12
            read, written: 8.0MiB, 4.0KiB

            slot:   2
            LUN:    0
            LU:     web1
            via:    iscsi
            access: read-write
            state:  running

            slot:   2
            LUN:    7
            LU:     scratch
            via:    iscsi
            access: read-only
            state:  running
        "#]],
    );
    bench.done(
        "client ls",
        expect![[r#"
        NAME   SOCKET OWNER  LUS           SESSIONS
        host1  -             web1 scratch  1
        vm1    -             scratch       0
    "#]],
    );
    let status = bench.run("status").out;
    assert!(status.contains("iscsi:         127.0.0.1:3260\n"), "{status}");
    assert!(status.contains("sessions:      1\n"), "{status}");
    bench.refused("unmap web1 --from host1", 4, expect![[r#"
        error: client 'host1' is logged in, and may be using LU 'web1' now
          next: unmount it and delete its disks there, or log out; then viaduct unmap web1 --from host1 --force
    "#]]);
}

#[test]
fn names_of_a_client_change() {
    let bench = furnished();
    bench.done(
        "client add-iqn host1 iqn.2004-10.com.ubuntu:01:def",
        expect![[r#"
        client host1: iqn.1994-05.com.redhat:abc iqn.2004-10.com.ubuntu:01:def
    "#]],
    );
    bench.done(
        "client rm-iqn host1 iqn.1994-05.com.redhat:abc",
        expect![[r#"
        client host1: iqn.2004-10.com.ubuntu:01:def
    "#]],
    );
    bench.refused(
        "client rm-iqn host1 iqn.2004-10.com.ubuntu:01:def",
        4,
        expect![[r#"
        error: client 'host1' has LUs mapped via iscsi and needs an iSCSI name for them
          next: viaduct client add-iqn host1 NAME first, or unmap them
    "#]],
    );
    bench.refused(
        "client add-iqn vm1 iqn.2004-10.com.ubuntu:01:def",
        4,
        expect![[r#"
        error: client 'vm1' has the name iqn.2004-10.com.ubuntu:01:def, as has client 'host1'
          next: viaduct client show host1; a name belongs to one client
    "#]],
    );
}

#[test]
fn chap_is_set_from_files_and_shown_without_secrets() {
    let bench = furnished();
    bench.done(
        "client chap host1 --secret-file secret",
        expect![[r#"
            client host1: CHAP, name host1
        "#]],
    );
    let spec = || {
        let id = MappingId { adapter: adapter(), lun: 7 };
        bench.engine.mapping(&id).unwrap().iscsi.unwrap().chap
    };
    assert_eq!(spec().unwrap().initiator.secret.bytes(), SECRET.as_bytes());
    bench.done(
        "client chap host1 --secret-file secret --name root --mutual-secret-file mutual",
        expect![[r#"
            client host1: CHAP, mutual, name root
        "#]],
    );
    let chap = spec().unwrap();
    assert_eq!(
        (chap.initiator.name.as_str(), chap.initiator.secret.bytes()),
        ("root", SECRET.as_bytes())
    );
    let target = chap.target.unwrap();
    assert_eq!((target.name.as_str(), target.secret.bytes()), ("viaduct", MUTUAL.as_bytes()));
    let shown = bench.run("client show host1").out;
    assert!(shown.contains("\nCHAP:         mutual, name root\n"), "{shown}");

    let everything = [
        "client show host1",
        "client show host1 -o json",
        "client ls -o json",
        "config show",
        "mapping ls -o json",
        "status -o json",
        "event ls",
        "connect host1 --for open-iscsi",
        "connect host1 --for qemu -o json",
        "connect host1 --for libvirt",
    ];
    let mut said: String =
        everything.into_iter().map(|line| bench.run(line)).map(|ran| ran.out + &ran.err).collect();
    let copy = bench.node.data().join("config.json");
    said.push_str(&std::fs::read_to_string(copy).unwrap());
    said.push_str(&bench.engine.log().join("\n"));
    assert!(said.contains("root") && !said.contains("horse") && !said.contains("staple"), "{said}");

    bench.done(
        "client chap host1 --off",
        expect![[r#"
        client host1: no CHAP
    "#]],
    );
    assert_eq!(spec(), None);
}

#[test]
fn secrets_that_are_refused() {
    let bench = furnished();
    std::fs::write(bench.directory.path().join("short"), "horse\n").unwrap();
    bench.refused(
        "client chap host1 --secret-file short",
        2,
        expect![[r#"
            error: the secret of client 'host1', from short: the secret has 5 bytes; it must have 12 to 255
        "#]],
    );
    bench.refused(
        "client chap host1 --secret-file none",
        3,
        expect![[r#"
        error: there is no file none
    "#]],
    );
    bench.refused(
        "client chap host2 --secret-file secret",
        3,
        expect![[r#"
        error: there is no client 'host2'
          next: viaduct client ls shows those that are there; viaduct client create host2
    "#]],
    );
    let same = "client chap host1 --secret-file secret --mutual-secret-file secret";
    bench.refused(
        same,
        2,
        expect![[r#"
        error: both directions have the same secret
          next: choose another one for the node
    "#]],
    );
    // The standard input is no terminal here.
    bench.refused(
        "client chap host1",
        2,
        expect![[r#"
            error: there is no terminal to type the secret of client 'host1' on
              next: --secret-file FILE reads it from a file, --secret-file - from standard input
        "#]],
    );
    bench.refused(
        "client chap host1 --secret-file - --mutual-secret-file -",
        2,
        expect![[r#"
        error: the standard input has one secret, not two
          next: give one of them in a file
    "#]],
    );
    let off = bench.run("client chap host1 --off --secret-file secret");
    assert_eq!(off.code, 2, "{}", off.err);
}

#[test]
fn secrets_are_saved_only_when_asked_for() {
    let bench = furnished();
    assert_eq!(bench.run("client chap host1 --secret-file secret").code, 0);
    let read = |name: &str| std::fs::read_to_string(bench.directory.path().join(name)).unwrap();
    let saved = bench.run("config save plain.json");
    assert!(saved.err.contains("note: without the CHAP secrets"), "{}", saved.err);
    assert!(!read("plain.json").contains("horse"));
    let saved = bench.run("config save full.yaml --with-secrets -o yaml");
    assert_eq!((saved.code, saved.err.lines().count()), (0, 1), "{}", saved.err);
    assert!(read("full.yaml").contains(SECRET));
    let mode = std::fs::metadata(bench.directory.path().join("full.yaml")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    // On another node, one of them is enough and the other says what is missing.
    let other = Bench::new();
    for name in ["plain.json", "full.yaml"] {
        std::fs::write(other.directory.path().join(name), read(name)).unwrap();
    }
    other.refused("config restore plain.json", 4, expect![[r#"
        error: the configuration is kept, but not all is in effect: client 'host1' shall prove itself with CHAP, and its secret is not here
          next: viaduct client chap host1 --secret-file FILE, or --off
    "#]]);
    let state = other.run("mapping ls").out;
    assert_eq!(state.matches("failed").count(), 2, "{state}");
    other.done(
        "config restore full.yaml",
        expect![[r#"
        revision 8: 0 added, 0 changed, 0 removed
    "#]],
    );
    let state = other.run("mapping ls").out;
    assert_eq!(state.matches("listening").count(), 3, "{state}");
}

/// web1 is held by one of two registrants.
fn reserve(bench: &Bench) {
    let nexus =
        |isid: &str| Nexus { initiator: format!("iqn.1994-05.com.redhat:abc,i,0x{isid}"), port: 1 };
    let uuid = bench.run("lu show web1 -o json").out;
    let uuid: serde_json::Value = serde_json::from_str(&uuid).unwrap();
    let uuid = serde_json::from_value(uuid["uuid"].clone()).unwrap();
    let reservations = Reservations {
        generation: 3,
        through_power_loss: true,
        held: Some(Held {
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            holder: Some(nexus("00023d000001")),
        }),
        unit_holder: None,
        registrants: vec![
            Registrant { nexus: nexus("00023d000001"), key: ReservationKey(0xabc) },
            Registrant { nexus: nexus("00023d000002"), key: ReservationKey(0xdef) },
        ],
    };
    bench.engine.set_reservations(uuid, reservations);
}

#[test]
fn reservations_are_listed() {
    let bench = furnished();
    bench.done(
        "reservation ls",
        expect![[r#"
        LU  INITIATOR  PORT  KEY  HOLDS
    "#]],
    );
    reserve(&bench);
    bench.done("reservation ls", expect![[r#"
        LU    INITIATOR                                    PORT  KEY                 HOLDS
        web1  iqn.1994-05.com.redhat:abc,i,0x00023d000001  1     0x0000000000000abc  write-exclusive-registrants-only
        web1  iqn.1994-05.com.redhat:abc,i,0x00023d000002  1     0x0000000000000def  -
    "#]]);
    bench.done(
        "reservation ls scratch",
        expect![[r#"
        LU  INITIATOR  PORT  KEY  HOLDS
    "#]],
    );
    bench.done(
        "reservation ls web1 -o json",
        expect![[r#"
        [
          {
            "lu": "web1",
            "generation": 3,
            "through_power_loss": true,
            "held": {
              "type": "write-exclusive-registrants-only",
              "holder": {
                "initiator": "iqn.1994-05.com.redhat:abc,i,0x00023d000001",
                "port": 1
              }
            },
            "registrants": [
              {
                "initiator": "iqn.1994-05.com.redhat:abc,i,0x00023d000001",
                "port": 1,
                "key": "0x0000000000000abc"
              },
              {
                "initiator": "iqn.1994-05.com.redhat:abc,i,0x00023d000002",
                "port": 1,
                "key": "0x0000000000000def"
              }
            ]
          }
        ]
    "#]],
    );
    bench.refused(
        "reservation ls none",
        3,
        expect![[r#"
        error: there is no LU 'none'
          next: viaduct lu ls shows those that are there
    "#]],
    );
}

#[test]
fn reservations_are_cleared() {
    let bench = furnished();
    reserve(&bench);
    bench.done(
        "reservation clear web1",
        expect![[r#"
        reservations of LU web1 cleared: write-exclusive-registrants-only, 2 registrants
    "#]],
    );
    bench.done(
        "reservation clear web1",
        expect![[r#"
        nothing is reserved of LU web1
    "#]],
    );
    let events = bench.run("event ls").out;
    assert!(events.contains("lu/web1: the reservations of LU 'web1' were cleared"), "{events}");
}

#[test]
fn what_open_iscsi_is_told() {
    let bench = furnished();
    bench.done("connect host1 --for open-iscsi", expect![[r##"
        # /etc/iscsi/initiatorname.iscsi; after a change: systemctl restart iscsid
        InitiatorName=iqn.1994-05.com.redhat:abc
        # find the target and log in, now and after every boot
        iscsiadm -m discovery -t sendtargets -p 127.0.0.1:3260
        iscsiadm -m node -T iqn.2026-11.org.viaduct:xxxxxxxx:host1 -o update -n node.startup -v automatic
        iscsiadm -m node -T iqn.2026-11.org.viaduct:xxxxxxxx:host1 --login
        # the disks: their WWID, the same over all paths (/dev/disk/by-id/scsi-WWID,
        # multipath -l), and each by its path
        # LU web1, serial web1, WWID xxxxxxxxxxxxxxxxx: /dev/disk/by-path/ip-127.0.0.1:3260-iscsi-iqn.2026-11.org.viaduct:xxxxxxxx:host1-lun-0
        # LU scratch, serial scratch, read-only, WWID xxxxxxxxxxxxxxxxx: /dev/disk/by-path/ip-127.0.0.1:3260-iscsi-iqn.2026-11.org.viaduct:xxxxxxxx:host1-lun-7
        # /etc/multipath.conf, where several paths lead to the node
        devices {
            device {
                vendor "VIADUCT"
                product "Virtual Disk"
                path_grouping_policy group_by_prio
                path_checker tur
                prio alua
                hardware_handler "1 alua"
                failback immediate
                no_path_retry 30
                fast_io_fail_tmo 5
                dev_loss_tmo 600
            }
        }
    "##]]);
    bench.refused(
        "connect vm1 --for open-iscsi",
        3,
        expect![[r#"
        error: client 'vm1' has no LU mapped via iscsi
          next: viaduct map LU --to vm1 --via iscsi
    "#]],
    );
}
