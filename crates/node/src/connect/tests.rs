//! What is printed for each tool, word for word.

use expect_test::expect;
use model::status::{AdapterState, IscsiView};
use model::{Chap, Lu, Mapping};

use super::libvirt::disk_name;
use super::notes::closed_ancestor;
use super::*;

fn given(sockets: &[&str]) -> (Config, ClientView) {
    let mut config = Config::default();
    let mut mappings = Vec::new();
    for (index, socket) in sockets.iter().enumerate() {
        let lu: Lu = serde_json::from_value(serde_json::json!({
            "name": format!("web{index}"), "uuid": uuid::Uuid::from_u128(index as u128),
            "size": "10GiB", "serial": format!("serial{index}"), "backing": {"kind": "file"},
        }))
        .unwrap();
        let mapping: Mapping = serde_json::from_value(serde_json::json!({
            "lu": lu.name, "client": "vm1", "via": "vhost-user-blk", "slot": index + 2,
            "read_only": index == 1,
        }))
        .unwrap();
        config.lus.push(lu);
        mappings.push(MappingView {
            is_drive: false,
            mapping,
            state: AdapterState::Listening,
            socket: Some((*socket).to_owned()),
            target: None,
            session: None,
            problem: None,
        });
    }
    let client = serde_json::from_str(r#"{"name":"vm1"}"#).unwrap();
    (config, ClientView { client, iscsi: None, mappings })
}

#[test]
fn qemu_arguments() {
    let (config, client) = given(&["/run/v/vm1-2.sock", "/odd,dir/vm1-3.sock"]);
    let connection = connection(&config, &client, ConnectFor::Qemu, 2).unwrap();
    expect![[r#"
        # the guest's whole memory is shared; size is the same as -m
        -m 4G
        -object memory-backend-memfd,id=viaduct-memory,size=4G,share=on
        -machine memory-backend=viaduct-memory
        # LU web0, slot 2, serial serial0; reconnect-ms needs QEMU 9.2, before it write reconnect=1
        -chardev socket,id=viaduct-vm1-2,path=/run/v/vm1-2.sock,reconnect-ms=1000
        -device vhost-user-blk-pci,id=viaduct-vm1-2-disk,chardev=viaduct-vm1-2,num-queues=2,bootindex=1
        # LU web1, slot 3, serial serial1, read-only; reconnect-ms needs QEMU 9.2, before it write reconnect=1
        -chardev socket,id=viaduct-vm1-3,path=/odd,,dir/vm1-3.sock,reconnect-ms=1000
        -device vhost-user-blk-pci,id=viaduct-vm1-3-disk,chardev=viaduct-vm1-3,num-queues=2
    "#]]
    .assert_eq(&connection.text);
    assert_eq!(connection.adapters.len(), 2);
}

#[test]
fn libvirt_xml() {
    let (config, client) = given(&["/run/v&w/vm1-2.sock"]);
    let connection = connection(&config, &client, ConnectFor::Libvirt, 100).unwrap();
    expect![[r#"
        <!-- inside <domain>: the guest's whole memory is shared -->
        <memoryBacking>
          <source type='memfd'/>
          <access mode='shared'/>
        </memoryBacking>
        <!-- inside <devices>: LU web0, slot 2, serial serial0 -->
        <disk type='vhostuser' device='disk'>
          <driver name='qemu' type='raw' queues='8'/>
          <source type='unix' path='/run/v&amp;w/vm1-2.sock'>
            <reconnect enabled='yes' timeout='1'/>
          </source>
          <target dev='vda' bus='virtio'/>
          <boot order='1'/>
        </disk>
    "#]]
    .assert_eq(&connection.text);
    assert!(connection.notes.iter().any(|note| note.contains("'/run/v&w/*.sock rw,'")));
}

/// A client with one SCSI host, and on it two LUs.
fn given_host() -> (Config, ClientView) {
    let (config, mut client) = given(&["/run/v/vm1-2.sock", "/run/v/vm1-2.sock"]);
    for (view, lun) in client.mappings.iter_mut().zip([0, 5]) {
        let slot = 2.try_into().unwrap();
        view.mapping = Mapping { via: Via::VhostUserScsi, slot, lun, ..view.mapping.clone() };
    }
    (config, client)
}

#[test]
fn a_scsi_host_for_qemu() {
    let (config, client) = given_host();
    let connection = connection(&config, &client, ConnectFor::Qemu, 2).unwrap();
    expect![[r#"
        # the guest's whole memory is shared; size is the same as -m
        -m 4G
        -object memory-backend-memfd,id=viaduct-memory,size=4G,share=on
        -machine memory-backend=viaduct-memory
        # LU web0, slot 2 LUN 0, serial serial0
        # LU web1, slot 2 LUN 5, serial serial1, read-only
        # reconnect-ms needs QEMU 9.2; before it leave it out: the guest is then not connected again after a restart of the node
        -chardev socket,id=viaduct-vm1-2,path=/run/v/vm1-2.sock,reconnect-ms=1000
        -device vhost-user-scsi-pci,id=viaduct-vm1-2-host,chardev=viaduct-vm1-2,num_queues=2,bootindex=1
    "#]]
    .assert_eq(&connection.text);
    assert_eq!((connection.adapters.len(), connection.hosts[0].luns.len()), (0, 2));
}

#[test]
fn a_scsi_host_for_libvirt() {
    let (config, client) = given_host();
    let connection = connection(&config, &client, ConnectFor::Libvirt, 2).unwrap();
    expect![[r#"
        <!-- inside <domain>: the guest's whole memory is shared -->
        <memoryBacking>
          <source type='memfd'/>
          <access mode='shared'/>
        </memoryBacking>
        <!-- libvirt has no element for vhost-user-scsi; QEMU's own arguments stand inside <domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'> -->
        <!-- addr: a PCI slot that libvirt gives to nothing else; it does not know of this device -->
        <qemu:commandline>
          <!-- reconnect-ms needs QEMU 9.2; before it leave it out: the guest is then not connected again after a restart of the node -->
          <!-- LU web0, slot 2 LUN 0, serial serial0 -->
          <!-- LU web1, slot 2 LUN 5, serial serial1, read-only -->
          <qemu:arg value='-chardev'/>
          <qemu:arg value='socket,id=viaduct-vm1-2,path=/run/v/vm1-2.sock,reconnect-ms=1000'/>
          <qemu:arg value='-device'/>
          <qemu:arg value='vhost-user-scsi-pci,id=viaduct-vm1-2-host,chardev=viaduct-vm1-2,num_queues=2,addr=0x18'/>
        </qemu:commandline>
    "#]]
    .assert_eq(&connection.text);
}

#[test]
fn a_client_without_disks_is_told_what_to_do() {
    let (config, client) = given(&[]);
    let error = connection(&config, &client, ConnectFor::Qemu, 1).unwrap_err();
    assert_eq!(error.kind, model::ErrorKind::NotFound);
    assert!(error.next.unwrap().starts_with("viaduct map"));
}

#[test]
fn a_directory_that_others_cannot_pass_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("data/run");
    std::fs::create_dir_all(&run).unwrap();
    let set = |mode| std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode));
    set(0o755).unwrap();
    assert_eq!(closed_ancestor(&run), None);
    set(0o700).unwrap();
    assert_eq!(closed_ancestor(&run).as_deref(), Some(directory.path()));
}

#[test]
fn disks_beyond_the_alphabet_have_names() {
    assert_eq!(
        [0, 25, 26, 253].map(|index| disk_name("vd", index)),
        ["vda", "vdz", "vdaa", "vdit"]
    );
}

/// A host with two LUNs, as [`given`] gives disks.
fn host(portals: &[&str], chap: Option<Chap>) -> (Config, ClientView) {
    let (config, mut client) = given(&["/run/v/vm1-2.sock", "/run/v/vm1-3.sock"]);
    let target = "iqn.2026-11.org.viaduct:test:vm1";
    for (lun, view) in client.mappings.iter_mut().enumerate() {
        view.mapping.via = Via::Iscsi;
        view.mapping.slot = 2.try_into().unwrap();
        view.mapping.lun = lun as u16;
        view.socket = None;
        view.target = Some(target.to_owned());
    }
    client.client.iqns = vec!["iqn.1994-05.com.redhat:abc".parse().unwrap()];
    client.client.chap = chap;
    client.iscsi = Some(IscsiView {
        adapter: client.mappings[0].mapping.adapter(),
        target: target.to_owned(),
        portals: portals.iter().map(|portal| (*portal).to_owned()).collect(),
        sessions: Vec::new(),
    });
    (config, client)
}

fn mutual() -> Option<Chap> {
    Some(Chap { name: "vm1".to_owned(), mutual_name: Some("viaduct".to_owned()) })
}

#[test]
fn open_iscsi_commands() {
    let (config, client) = host(&["10.0.0.7:3260", "[fd00::7]:3260"], mutual());
    let connection = connection(&config, &client, ConnectFor::OpenIscsi, 1).unwrap();
    expect![[r##"
        # /etc/iscsi/initiatorname.iscsi; after a change: systemctl restart iscsid
        InitiatorName=iqn.1994-05.com.redhat:abc
        # /etc/iscsi/iscsid.conf, mode 0600, before the target is found; no secret is shown
        node.session.auth.authmethod = CHAP
        node.session.auth.username = vm1
        node.session.auth.password = SECRET
        node.session.auth.username_in = viaduct
        node.session.auth.password_in = MUTUAL-SECRET
        discovery.sendtargets.auth.authmethod = CHAP
        discovery.sendtargets.auth.username = vm1
        discovery.sendtargets.auth.password = SECRET
        discovery.sendtargets.auth.username_in = viaduct
        discovery.sendtargets.auth.password_in = MUTUAL-SECRET
        # find the target and log in, now and after every boot
        iscsiadm -m discovery -t sendtargets -p 10.0.0.7:3260
        iscsiadm -m discovery -t sendtargets -p [fd00::7]:3260
        iscsiadm -m node -T iqn.2026-11.org.viaduct:test:vm1 -o update -n node.startup -v automatic
        iscsiadm -m node -T iqn.2026-11.org.viaduct:test:vm1 --login
        # the disks: their WWID, the same over all paths (/dev/disk/by-id/scsi-WWID,
        # multipath -l), and each by its path
        # LU web0, serial serial0, WWID 33000000000000000: /dev/disk/by-path/ip-10.0.0.7:3260-iscsi-iqn.2026-11.org.viaduct:test:vm1-lun-0
        # LU web1, serial serial1, read-only, WWID 33000000000000001: /dev/disk/by-path/ip-10.0.0.7:3260-iscsi-iqn.2026-11.org.viaduct:test:vm1-lun-1
        # LU web0, serial serial0, WWID 33000000000000000: /dev/disk/by-path/ip-fd00::7:3260-iscsi-iqn.2026-11.org.viaduct:test:vm1-lun-0
        # LU web1, serial serial1, read-only, WWID 33000000000000001: /dev/disk/by-path/ip-fd00::7:3260-iscsi-iqn.2026-11.org.viaduct:test:vm1-lun-1
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
    "##]].assert_eq(&connection.text);
    assert!(connection.notes.iter().any(|note| note.contains("--rescan")));
}

#[test]
fn qemu_arguments_for_a_target() {
    let (config, client) = host(&["[fd00::7]:3260"], None);
    let plain = connection(&config, &client, ConnectFor::Qemu, 1).unwrap();
    expect![[r#"
        -device virtio-scsi-pci,id=viaduct-vm1-2
        # LU web0, slot 2 LUN 0, serial serial0
        -blockdev driver=iscsi,node-name=viaduct-2-lun0,transport=tcp,portal=[fd00::7]:3260,target=iqn.2026-11.org.viaduct:test:vm1,lun=0,cache.direct=on,initiator-name=iqn.1994-05.com.redhat:abc
        -device scsi-hd,bus=viaduct-vm1-2.0,drive=viaduct-2-lun0,serial=serial0,bootindex=1
        # LU web1, slot 2 LUN 1, serial serial1, read-only
        -blockdev driver=iscsi,node-name=viaduct-2-lun1,transport=tcp,portal=[fd00::7]:3260,target=iqn.2026-11.org.viaduct:test:vm1,lun=1,cache.direct=on,initiator-name=iqn.1994-05.com.redhat:abc,read-only=on
        -device scsi-hd,bus=viaduct-vm1-2.0,drive=viaduct-2-lun1,serial=serial1
        # as an image name, for -drive file=... and qemu-img:
        #   -iscsi initiator-name=iqn.1994-05.com.redhat:abc -drive file=iscsi://[fd00::7]:3260/iqn.2026-11.org.viaduct:test:vm1/0,format=raw,cache=none
    "#]].assert_eq(&plain.text);
    let (mut config, client) = host(&["10.0.0.7:3260"], mutual());
    config.lus[0].block_size = model::BlockSize::B4096;
    let proved = connection(&config, &client, ConnectFor::Qemu, 1).unwrap();
    expect![[r#"
        # FILE holds the CHAP secret alone, with no line ending after it
        -object secret,id=viaduct-vm1-2-chap,file=FILE
        -device virtio-scsi-pci,id=viaduct-vm1-2
        # LU web0, slot 2 LUN 0, serial serial0
        -blockdev driver=iscsi,node-name=viaduct-2-lun0,transport=tcp,portal=10.0.0.7:3260,target=iqn.2026-11.org.viaduct:test:vm1,lun=0,cache.direct=on,initiator-name=iqn.1994-05.com.redhat:abc,user=vm1,password-secret=viaduct-vm1-2-chap
        -device scsi-hd,bus=viaduct-vm1-2.0,drive=viaduct-2-lun0,serial=serial0,logical_block_size=4096,physical_block_size=4096,bootindex=1
        # LU web1, slot 2 LUN 1, serial serial1, read-only
        -blockdev driver=iscsi,node-name=viaduct-2-lun1,transport=tcp,portal=10.0.0.7:3260,target=iqn.2026-11.org.viaduct:test:vm1,lun=1,cache.direct=on,initiator-name=iqn.1994-05.com.redhat:abc,user=vm1,password-secret=viaduct-vm1-2-chap,read-only=on
        -device scsi-hd,bus=viaduct-vm1-2.0,drive=viaduct-2-lun1,serial=serial1
    "#]].assert_eq(&proved.text);
    assert!(proved.notes.iter().any(|note| note.contains("one direction only")));
}

#[test]
fn libvirt_xml_for_a_target() {
    let (config, client) = host(&["10.0.0.7:3260"], mutual());
    let connection = connection(&config, &client, ConnectFor::Libvirt, 1).unwrap();
    expect![[r#"
        <!-- a file of its own, for virsh secret-define -->
        <secret ephemeral='no' private='yes'>
          <usage type='iscsi'>
            <target>viaduct-vm1</target>
          </usage>
        </secret>
        <!-- inside <devices> -->
        <controller type='scsi' model='virtio-scsi'/>
        <!-- inside <devices>: LU web0, slot 2 LUN 0, serial serial0 -->
        <disk type='network' device='disk'>
          <driver name='qemu' type='raw' cache='none'/>
          <source protocol='iscsi' name='iqn.2026-11.org.viaduct:test:vm1/0'>
            <host name='10.0.0.7' port='3260'/>
            <auth username='vm1'>
              <secret type='iscsi' usage='viaduct-vm1'/>
            </auth>
            <initiator>
              <iqn name='iqn.1994-05.com.redhat:abc'/>
            </initiator>
          </source>
          <target dev='sda' bus='scsi'/>
          <serial>serial0</serial>
          <boot order='1'/>
        </disk>
        <!-- inside <devices>: LU web1, slot 2 LUN 1, serial serial1, read-only -->
        <disk type='network' device='disk'>
          <driver name='qemu' type='raw' cache='none'/>
          <source protocol='iscsi' name='iqn.2026-11.org.viaduct:test:vm1/1'>
            <host name='10.0.0.7' port='3260'/>
            <auth username='vm1'>
              <secret type='iscsi' usage='viaduct-vm1'/>
            </auth>
            <initiator>
              <iqn name='iqn.1994-05.com.redhat:abc'/>
            </initiator>
          </source>
          <target dev='sdb' bus='scsi'/>
          <serial>serial1</serial>
          <readonly/>
        </disk>
    "#]]
    .assert_eq(&connection.text);
    assert!(connection.notes.iter().any(|note| note.contains("secret-set-value")));
}

/// Disks of both kinds: one list of disks, one of them to boot from.
#[test]
fn a_client_with_both_transports_gets_both() {
    let (config, mut client) = host(&["10.0.0.7:3260"], None);
    let (_, disk) = given(&["/run/v/vm1-3.sock"]);
    client.mappings[0] = disk.mappings.into_iter().next().unwrap();
    for (wanted, disks) in [
        (ConnectFor::Qemu, ["-device vhost-user-blk-pci", "-device scsi-hd"]),
        (ConnectFor::Libvirt, ["type='vhostuser'", "type='network'"]),
    ] {
        let text = connection(&config, &client, wanted, 1).unwrap().text;
        assert_eq!(disks.map(|disk| text.matches(disk).count()), [1, 1], "{text}");
        assert_eq!(text.matches("boot").count(), 1, "{text}");
    }
}

#[test]
fn what_is_not_known_of_a_portal_is_said() {
    let text = |portals: &[&str]| {
        let (config, client) = host(portals, None);
        let connection = connection(&config, &client, ConnectFor::OpenIscsi, 1).unwrap();
        let line = connection.text.lines().find(|line| line.contains("sendtargets")).unwrap();
        (line.rsplit(' ').next().unwrap().to_owned(), connection.notes.join(" "))
    };
    for (portals, shown, note) in [
        (&[][..], "ADDRESS:3260", "serves no iSCSI now"),
        (&["0.0.0.0:3261"][..], "ADDRESS:3261", "listens on all its addresses"),
        (&["127.0.0.1:3260", "[::1]:3260"][..], "127.0.0.1:3260", "on this machine alone"),
    ] {
        let (portal, notes) = text(portals);
        assert_eq!(portal, shown);
        assert!(notes.contains(note), "{notes}");
    }
}

#[test]
fn open_iscsi_needs_a_target() {
    let (config, client) = given(&["/run/v/vm1-2.sock"]);
    let error = connection(&config, &client, ConnectFor::OpenIscsi, 1).unwrap_err();
    assert_eq!(error.message, "client 'vm1' has no LU mapped via iscsi");
    assert_eq!(error.next.unwrap(), "viaduct map LU --to vm1 --via iscsi");
}

/// Two hyphens would end an XML comment.
#[test]
fn odd_names_break_no_xml() {
    let (mut config, mut client) = given(&["/run/v/vm1-2.sock"]);
    config.lus[0].name = "a--b".parse().unwrap();
    client.mappings[0].mapping.lu = config.lus[0].name.clone();
    let text = connection(&config, &client, ConnectFor::Libvirt, 1).unwrap().text;
    assert!(text.contains("LU a- -b, slot 2"), "{text}");
}
