//! What the command line prints, word for word: the real binary against a node in this process
//! whose engine only takes notes. UPDATE_EXPECT=1 writes the expected texts anew.

#![allow(clippy::unwrap_used)]

mod bench;
mod iscsi;
mod optical;
mod pool;
mod pool_backup;
mod pool_disks;
mod pool_force;

use std::path::Path;

use expect_test::expect;
use model::status::{AdapterState, Session};
use model::{AdapterId, ApiError};
use node::engine::{AdapterStatus, Trouble};

use bench::{Bench, run};

#[test]
fn what_commands_say_when_they_are_done() {
    let bench = Bench::new();
    bench.done(
        "lu create web1 --size 10G",
        expect![[r#"
        LU web1: 10GiB, file, online
    "#]],
    );
    bench.done(
        "client create vm1",
        expect![[r#"
        client vm1
    "#]],
    );
    bench.done(
        "map web1 --to vm1 --via vhost-user-blk",
        expect![[r#"
        LU web1 at vm1-2, listening: /DIR/data/run/vm1-2.sock
    "#]],
    );
    bench.done(
        "lu resize web1 --size 20GiB",
        expect![[r#"
        LU web1: 20GiB, file, online
    "#]],
    );
    bench.done(
        "unmap web1 --from vm1",
        expect![[r#"
            web1 unmapped from vm1
        "#]],
    );
    bench.done(
        "client rm vm1",
        expect![[r#"
        client vm1 removed
    "#]],
    );
    bench.done(
        "lu rm web1",
        expect![[r#"
        LU web1 removed
    "#]],
    );
    bench.done(
        "lu ls",
        expect![[r#"
        NAME  SIZE  BACKING  STATE  USED  MAPPED TO
    "#]],
    );
}

#[test]
fn listings() {
    let bench = Bench::furnished();
    bench.done(
        "lu ls",
        expect![[r#"
        NAME     SIZE    BACKING  STATE   USED  MAPPED TO
        scratch  512MiB  memory   online  -     vm1-3 vm2-7
        web1     10GiB   file     online  -     vm1-2
    "#]],
    );
    bench.done(
        "client ls",
        expect![[r#"
        NAME  SOCKET OWNER  LUS           SESSIONS
        vm1   root:root     web1 scratch  0
        vm2   -             scratch       0
    "#]],
    );
    bench.done(
        "mapping ls",
        expect![[r#"
        CLIENT  SLOT  LU       VIA             ACCESS      STATE      SOCKET
        vm1     2     web1     vhost-user-blk  read-write  listening  /DIR/data/run/vm1-2.sock
        vm1     3     scratch  vhost-user-blk  read-only   listening  /DIR/data/run/vm1-3.sock
        vm2     7     scratch  vhost-user-blk  read-write  listening  /DIR/data/run/vm2-7.sock
    "#]],
    );
}

#[test]
fn one_thing_in_full() {
    let bench = Bench::furnished();
    bench.done(
        "lu show web1",
        expect![[r#"
            name:       web1
            uuid:       xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
            serial:     web1
            size:       10GiB
            used:       -
            block size: 512
            cache:      writeback
            shareable:  no
            removable:  no
            read-only:  no
            limits:     none
            backing:    file
            path:       /DIR/data/lus/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.img
            state:      online
            mapped to:  vm1-2
        "#]],
    );
}

#[test]
fn one_thing_for_programs() {
    let bench = Bench::furnished();
    bench.done(
        "lu show web1 -o json",
        expect![[r#"
        {
          "name": "web1",
          "uuid": "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
          "size": 10737418240,
          "block_size": 512,
          "serial": "web1",
          "shareable": false,
          "cache": "writeback",
          "removable": false,
          "read_only": false,
          "backing": {
            "kind": "file"
          },
          "state": "online",
          "path": "/DIR/data/lus/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.img",
          "mapped_to": [
            {
              "client": "vm1",
              "slot": 2
            }
          ]
        }
    "#]],
    );
    bench.done(
        "lu show scratch -o yaml",
        expect![[r#"
        name: scratch
        uuid: xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
        size: 536870912
        block_size: 512
        serial: scratch
        shareable: true
        cache: writeback
        removable: false
        read_only: false
        backing:
          kind: memory
        state: online
        mapped_to:
        - client: vm1
          slot: 3
        - client: vm2
          slot: 7
    "#]],
    );
}

#[test]
fn a_client_in_full() {
    let bench = Bench::furnished();
    bench.done(
        "client show vm1",
        expect![[r#"
        name:         vm1
        socket owner: root:root
        iSCSI names:  -
        NVMe names:   -

        slot:   2
        LU:     web1
        via:    vhost-user-blk
        access: read-write
        socket: /DIR/data/run/vm1-2.sock
        state:  listening

        slot:   3
        LU:     scratch
        via:    vhost-user-blk
        access: read-only
        socket: /DIR/data/run/vm1-3.sock
        state:  listening
    "#]],
    );
}

/// vm2 is there, and did something wrong.
fn break_session(bench: &Bench) {
    let id = AdapterId { client: "vm2".parse().unwrap(), slot: 7.try_into().unwrap() };
    let session = Session {
        peer_pid: Some(1),
        since: "2026-11-20T10:00:00Z".parse().unwrap(),
        features: vec!["VERSION_1".to_owned(), "EVENT_IDX".to_owned()],
        queues_running: 2,
        memory_regions: 3,
        inflight_tracking: true,
        logging: false,
    };
    let problem = Trouble {
        message: "queue 1 is broken: a descriptor chain has a loop".to_owned(),
        next: Some("restart the guest".to_owned()),
    };
    bench.engine.set_adapter(
        &id,
        AdapterStatus {
            state: AdapterState::Broken,
            session: Some(session),
            sessions: Vec::new(),
            problem: Some(problem),
        },
    );
}

#[test]
fn a_session_and_its_trouble_are_shown() {
    let bench = Bench::furnished();
    break_session(&bench);
    bench.done(
        "client show vm2",
        expect![[r#"
        name:         vm2
        socket owner: -
        iSCSI names:  -
        NVMe names:   -

        slot:              7
        LU:                scratch
        via:               vhost-user-blk
        access:            read-write
        socket:            /DIR/data/run/vm2-7.sock
        state:             broken
        peer:              process 1
        since:             dddd-dd-ddTdd:dd:ddZ
        queues running:    2
        memory regions:    3
        inflight tracking: yes
        migrating:         no
        features:          VERSION_1 EVENT_IDX
        problem:           queue 1 is broken: a descriptor chain has a loop
        next:              restart the guest
    "#]],
    );
    bench.refused(
        "unmap scratch --from vm2",
        4,
        expect![[r#"
        error: client 'vm2' is using LU 'scratch' now
          next: stop the guest first, or viaduct unmap scratch --from vm2 --force
    "#]],
    );
    let status = bench.run("status").out;
    assert!(status.contains("sessions:      1\n"), "{status}");
    let problem = status.split("\n\n").nth(1).unwrap();
    expect![[r#"
        adapter/vm2-7: queue 1 is broken: a descriptor chain has a loop
          next: restart the guest
    "#]]
    .assert_eq(problem);
    bench.done(
        "unmap scratch --from vm2 --force",
        expect![[r#"
            scratch unmapped from vm2
        "#]],
    );
}

#[test]
fn what_to_run_on_the_client() {
    let bench = Bench::furnished();
    bench.done("connect vm1 --for qemu", expect![[r#"
        # the guest's whole memory is shared; size is the same as -m
        -m 4G
        -object memory-backend-memfd,id=viaduct-memory,size=4G,share=on
        -machine memory-backend=viaduct-memory
        # LU web1, slot 2, serial web1; reconnect-ms needs QEMU 9.2, before it write reconnect=1
        -chardev socket,id=viaduct-vm1-2,path=/DIR/data/run/vm1-2.sock,reconnect-ms=1000
        -device vhost-user-blk-pci,id=viaduct-vm1-2-disk,chardev=viaduct-vm1-2,num-queues=1,bootindex=1
        # LU scratch, slot 3, serial scratch, read-only; reconnect-ms needs QEMU 9.2, before it write reconnect=1
        -chardev socket,id=viaduct-vm1-3,path=/DIR/data/run/vm1-3.sock,reconnect-ms=1000
        -device vhost-user-blk-pci,id=viaduct-vm1-3-disk,chardev=viaduct-vm1-3,num-queues=1
    "#]]);
    bench.done(
        "connect vm2 --for libvirt",
        expect![[r#"
        <!-- inside <domain>: the guest's whole memory is shared -->
        <memoryBacking>
          <source type='memfd'/>
          <access mode='shared'/>
        </memoryBacking>
        <!-- inside <devices>: LU scratch, slot 7, serial scratch -->
        <disk type='vhostuser' device='disk'>
          <driver name='qemu' type='raw' queues='1'/>
          <source type='unix' path='/DIR/data/run/vm2-7.sock'>
            <reconnect enabled='yes' timeout='1'/>
          </source>
          <target dev='vda' bus='virtio'/>
          <boot order='1'/>
        </disk>
    "#]],
    );
    let notes = bench.run("connect vm1 --for libvirt").err;
    assert!(notes.lines().all(|line| line.starts_with("note: ")), "{notes}");
    assert!(notes.contains("AppArmor") && notes.contains("SELinux"), "{notes}");
    bench.refused(
        "connect vm3",
        3,
        expect![[r#"
        error: there is no client 'vm3'
          next: viaduct client ls shows those that are there; viaduct client create vm3
    "#]],
    );
}

#[test]
fn refusals_name_the_thing_and_the_next_step() {
    let bench = Bench::furnished();
    bench.refused(
        "lu show none",
        3,
        expect![[r#"
        error: there is no LU 'none'
          next: viaduct lu ls shows those that are there
    "#]],
    );
    bench.refused(
        "lu create web1 --size 1G",
        4,
        expect![[r#"
        error: LU 'web1' exists already
          next: choose another name; viaduct lu show web1 shows the one there is
    "#]],
    );
    bench.refused(
        "lu rm web1",
        4,
        expect![[r#"
        error: LU 'web1' is mapped to client 'vm1' at slot 2
          next: viaduct unmap web1 --from vm1
    "#]],
    );
    bench.refused(
        "map web1 --to vm2 --via vhost-user-blk",
        4,
        expect![[r#"
        error: LU 'web1' is not shareable and is mapped to 'vm1' already
          next: viaduct unmap web1 --from vm1, or use an LU made --shareable
    "#]],
    );
    bench.refused(
        "client create vm3 --socket-owner no-such-user",
        2,
        expect![[r#"
        error: there is no user 'no-such-user' in /etc/passwd on this machine
          next: name a user that exists, or give its number
    "#]],
    );
    bench.refused(
        "lu adopt missing.img",
        3,
        expect![[r#"
        error: there is no file /DIR/missing.img
          next: give the absolute path of a raw image or a block device on this node
    "#]],
    );
    bench.refused(
        "config restore missing.json",
        3,
        expect![[r#"
        error: there is no file missing.json
    "#]],
    );
}

#[test]
fn usage_is_refused_before_anything_is_asked() {
    let bench = Bench::new();
    for line in [
        "",
        "lu",
        "lu create x",
        "lu create x --size 10GB",
        "lu create ../x --size 1G",
        "lu create x --size 1G --block-size 1024",
        "map x --to vm1",
        "map x --to vm1 --via vhost-user-blk --slot 1",
        "map x --to VM1 --via vhost-user-blk",
        "client create x --socket-owner a:b:c",
        "client create x --iqn nqn.2014-08.org:x",
        "up --http nowhere",
        "up --cores x",
        "status -o xml",
    ] {
        let ran = bench.run(line);
        assert_eq!(ran.code, 2, "{line}: {}{}", ran.out, ran.err);
    }
    bench.refused("lu create x --size 10GB", 2, expect![[r#"
        error: invalid value '10GB' for '--size <SIZE>': '10GB' is ambiguous: write 10GiB for 1024-based units, or the number of bytes

        For more information, try '--help'.
    "#]]);
    bench.refused(
        "map x --to vm1 --via vhost-user-blk --slot 1",
        2,
        expect![[r#"
        error: invalid value '1' for '--slot <SLOT>': slot 1 is reserved; use 2 to 255

        For more information, try '--help'.
    "#]],
    );
}

/// What `up` says of a configuration file before anything is begun.
fn refused_file(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    std::fs::write(home.join("node.toml"), text).unwrap();
    let ran = run(&home.join("data"), home, "up --config node.toml");
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    assert!(!home.join("data").exists());
    ran.err
}

#[test]
fn a_wrong_configuration_file_is_refused_by_line_and_key() {
    let cases = [
        "# a typing error\nhtpp = 'off'\n",
        "http = 'off'\n\n[node]\ncores = '0'\n",
        "http = ['off']",
        "log = true",
        "poll-us = 0.5",
        "http = 'off'\npoll-us = 5000",
        "map-memory = '512K'",
        "log = 'xml'",
        "config = 'other.toml'",
        "http = 'off'\nhttp = 80",
        "http = off",
    ];
    let said: Vec<String> = cases.iter().map(|text| refused_file(text)).collect();
    expect![[r#"
        error: node.toml:2: unknown key 'htpp'
          next: known keys are cores, data, default-pool, http, iscsi, log, log-level, map-memory, poll-us
        error: node.toml:3: unknown key 'node'
          next: known keys are cores, data, default-pool, http, iscsi, log, log-level, map-memory, poll-us
        error: node.toml:1: 'http': array, not string or integer
        error: node.toml:1: 'log': boolean, not string or integer
        error: node.toml:1: 'poll-us': float, not string or integer
        error: node.toml:2: 'poll-us': invalid value '5000' for '--poll-us <N>': 5000 is not in 0..=1000
        error: node.toml:1: 'map-memory': invalid value '512K' for '--map-memory <SIZE>': '512K' is too little for maps; write 1MiB or more
        error: node.toml:1: 'log': invalid value 'xml' for '--log <LOG>' [possible values: text, json]
        error: node.toml:1: unknown key 'config'
          next: known keys are cores, data, default-pool, http, iscsi, log, log-level, map-memory, poll-us
        error: node.toml:2: this is no TOML: duplicate key
        error: node.toml:1: this is no TOML: string values must be quoted, expected literal string
    "#]]
    .assert_eq(&said.concat());
    let directory = tempfile::tempdir().unwrap();
    let ran = run(directory.path(), directory.path(), "up --config none.toml");
    assert_eq!(ran.code, 3);
    assert_eq!(ran.err, "error: there is no configuration file none.toml\n");
}

/// The example says what happens without it, and every line of it can be taken as it stands.
#[test]
fn the_example_configuration_has_every_key() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/viaduct.toml");
    let example = std::fs::read_to_string(example).unwrap();
    let lines = example.lines().filter_map(|line| line.strip_prefix("#"));
    let settings: Vec<&str> =
        lines.filter(|line| line.contains(" = ") && !line.starts_with(' ')).collect();
    let keys: Vec<&str> = settings.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(refused_file("none = 1").contains(&format!("known keys are {}\n", keys.join(", "))));
    let err = refused_file(&format!("{}\nnone = 1", settings.join("\n")));
    assert!(err.contains(&format!("node.toml:{}: unknown key 'none'", keys.len() + 1)), "{err}");
}

#[test]
fn adoption_takes_raw_images_and_names_what_it_refuses() {
    let bench = Bench::new();
    let image = |name: &str, head: &[u8]| {
        let mut bytes = vec![0; 1 << 20];
        bytes[..head.len()].copy_from_slice(head);
        std::fs::write(bench.directory.path().join(name), bytes).unwrap();
    };
    image("disk.raw", b"");
    image("cow.img", b"QFI\xfb\0\0\0\x03");
    image("ware.vmdk", b"KDMV");
    image("hyper.vhdx", b"vhdxfile");
    bench.done(
        "lu adopt disk.raw",
        expect![[r#"
        LU disk: 1MiB, adopted, online
    "#]],
    );
    bench.refused(
        "lu adopt disk.raw --name again",
        4,
        expect![[r#"
        error: /DIR/disk.raw is adopted already, as LU 'disk'
    "#]],
    );
    bench.refused(
        "lu adopt cow.img",
        2,
        expect![[r#"
        error: /DIR/cow.img is a qcow2 image; only raw images and block devices can be adopted
          next: qemu-img convert -O raw /DIR/cow.img NEW, then viaduct lu adopt NEW
    "#]],
    );
    for (name, format) in [("ware.vmdk", "VMDK"), ("hyper.vhdx", "VHDX")] {
        let ran = bench.run(&format!("lu adopt {name}"));
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains(&format!("is a {format} image")), "{}", ran.err);
    }
}

#[test]
fn the_configuration_goes_out_and_comes_back() {
    let bench = Bench::furnished();
    for format in ["json", "yaml"] {
        let ran = bench.run(&format!("config save saved -o {format}"));
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
        assert_eq!(bench.run("unmap web1 --from vm1").code, 0);
        let ran = bench.run("config restore saved");
        assert!(ran.out.ends_with(": 1 added, 0 changed, 0 removed\n"), "{}{}", ran.out, ran.err);
    }
    std::fs::write(bench.directory.path().join("newer"), r#"{"version": 3, "lux": []}"#).unwrap();
    bench.refused(
        "config restore newer",
        2,
        expect![[r#"
        error: the configuration document has version 3; this program knows versions 1 to 2
          next: use the release of viaduct that wrote it, or a later one
    "#]],
    );
    std::fs::write(bench.directory.path().join("empty"), r#"{"version": 1}"#).unwrap();
    bench.refused(
        "config restore empty",
        4,
        expect![[r#"
        error: the document does not have the LUs scratch, web1, which are here
          next: viaduct config restore --prune removes them with their data
    "#]],
    );
    let shown = bench.run("config show").out;
    let copy = std::fs::read_to_string(bench.node.data().join("config.json")).unwrap();
    assert_eq!(shown, copy);
}

#[test]
fn a_step_that_fails_is_told_and_listed() {
    let bench = Bench::new();
    let full = ApiError::failed("no space left on device").then("make room in /DIR/data/lus");
    bench.engine.fail("make the file", full);
    bench.refused(
        "lu create big --size 1T --serial big",
        1,
        expect![[r#"
        error: lu/big is in the configuration but not in effect: no space left on device
          next: make room in /DIR/data/lus
    "#]],
    );
    bench.done(
        "lu ls",
        expect![[r#"
        NAME  SIZE  BACKING  STATE   USED  MAPPED TO
        big   1TiB  file     failed  -     -
    "#]],
    );
    bench.done("event ls -n 2", expect![[r#"
        2 dddd-dd-ddTdd:dd:ddZ info    lu/big: LU 'big' was made, 1TiB
        3 dddd-dd-ddTdd:dd:ddZ error   lu/big: cannot make the file of big (1TiB): no space left on device; next: make room in /DIR/data/lus
    "#]]);
}

#[test]
fn events_in_every_form() {
    let bench = Bench::new();
    assert_eq!(bench.run("client create vm1").code, 0);
    bench.done(
        "event ls",
        expect![[r#"
        1 dddd-dd-ddTdd:dd:ddZ info    node: viaduct 0.1.0 starts on /DIR/data
        2 dddd-dd-ddTdd:dd:ddZ info    client/vm1: client 'vm1' was made
    "#]],
    );
    let ran = bench.run("event ls -n 1 -o json");
    let mut events: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(events[0]["time"].take().as_str().unwrap().ends_with('Z'));
    assert_eq!(
        events,
        serde_json::json!([{
            "id": 2, "time": null, "severity": "info", "subject": "client/vm1",
            "kind": "client-created", "message": "client 'vm1' was made",
        }])
    );
}

#[test]
fn without_a_node_it_says_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let ran = run(&directory.path().join("data"), directory.path(), "status");
    assert_eq!(ran.code, 5);
    let err = ran.err.replace(directory.path().to_str().unwrap(), "/DIR");
    expect![[r#"
        error: no node runs on data directory /DIR/data
          next: viaduct up --data /DIR/data; or name the directory of a running node with --data DIR or VIADUCT_DATA
    "#]].assert_eq(&err);
}

#[test]
fn completions_and_man_pages_know_every_verb() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(home, home, &format!("completions {shell}"));
        assert!(ran.code == 0 && ran.out.contains("adopt"), "{shell}");
    }
    assert!(run(home, home, "man").out.contains(".TH viaduct 1"));
    assert_eq!(run(home, home, "man share/man1").code, 0);
    let pages = home.join("share/man1");
    for page in ["viaduct.1", "viaduct-up.1", "viaduct-lu-create.1", "viaduct-config-restore.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
    let page = std::fs::read_to_string(pages.join("viaduct-up.1")).unwrap();
    assert!(page.contains("VIADUCT_CONFIG"), "{page}");
    std::fs::write(home.join("file"), "").unwrap();
    let ran = run(home, home, "man file");
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: cannot write man pages into file: "), "{}", ran.err);
}
