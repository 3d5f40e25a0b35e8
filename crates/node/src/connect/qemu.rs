//! QEMU arguments: a character device and a disk or SCSI host for each vhost-user adapter, a block
//! device of QEMU's own iSCSI client and a SCSI disk for each LUN of a target.

use std::fmt::Write as _;

use model::status::{ConnectionAdapter, ConnectionHost, ConnectionLun, ConnectionTarget};

use super::{Reached, if_read_only, initiator};

/// Memory of the example guest; vhost-user needs the guest's whole memory to be shared.
const EXAMPLE_MEMORY: &str = "4G";

/// Blocks that a SCSI disk has when nothing is said.
const BLOCK_SIZE_USUAL: u32 = 512;

pub fn text(
    adapters: &[ConnectionAdapter],
    hosts: &[ConnectionHost],
    iscsi: Option<&ConnectionTarget>,
) -> String {
    let mut text = String::new();
    if !adapters.is_empty() || !hosts.is_empty() {
        text = format!(
            "# the guest's whole memory is shared; size is the same as -m\n\
             -m {EXAMPLE_MEMORY}\n\
             -object memory-backend-memfd,id=viaduct-memory,size={EXAMPLE_MEMORY},share=on\n\
             -machine memory-backend=viaduct-memory\n"
        );
    }
    for (index, adapter) in adapters.iter().enumerate() {
        vhost_user(&mut text, adapter, boot(index));
    }
    for (index, host) in hosts.iter().enumerate() {
        scsi_host(&mut text, host, boot(adapters.len() + index));
    }
    if let Some(target) = iscsi {
        self::target(&mut text, target, adapters.len() + hosts.len());
    }
    text
}

/// The first disk is the one to boot from.
fn boot(index: usize) -> &'static str {
    if index == 0 { ",bootindex=1" } else { "" }
}

/// QEMU reads a doubled comma as one that is meant.
fn value(text: &str) -> String {
    text.replace(',', ",,")
}

fn vhost_user(text: &mut String, adapter: &ConnectionAdapter, boot: &str) {
    let id = format!("viaduct-{}", adapter.adapter);
    let _ = write!(
        text,
        "# LU {lu}, slot {slot}, serial {serial}{read_only}; reconnect-ms needs QEMU 9.2, \
         before it write reconnect=1\n\
         -chardev socket,id={id},path={path},reconnect-ms=1000\n\
         -device vhost-user-blk-pci,id={id}-disk,chardev={id},num-queues={queues}{boot}\n",
        lu = adapter.lu,
        slot = adapter.adapter.slot,
        serial = adapter.serial,
        read_only = if_read_only(adapter.read_only),
        path = value(&adapter.socket),
        queues = adapter.queues,
    );
}

/// Of its LUNs a guest boots from 0.
fn scsi_host(text: &mut String, host: &ConnectionHost, boot: &str) {
    for lun in &host.luns {
        let _ = writeln!(
            text,
            "# LU {lu}, slot {slot} LUN {number}, serial {serial}{read_only}",
            lu = lun.lu,
            slot = host.adapter.slot,
            number = lun.lun,
            serial = lun.serial,
            read_only = if_read_only(lun.read_only),
        );
    }
    let [chardev, device] = host_arguments(host);
    let _ = write!(
        text,
        "# {RECONNECTS}\n\
         -chardev {chardev}\n\
         -device {device}{boot}\n",
    );
}

/// Of SCSI hosts. With `reconnect` QEMU 7.2 does not even start one.
pub(super) const RECONNECTS: &str = "reconnect-ms needs QEMU 9.2; before it leave it out: the \
                                     guest is then not connected again after a restart of the node";

/// A SCSI host's character device, and the host itself.
pub(super) fn host_arguments(host: &ConnectionHost) -> [String; 2] {
    let id = format!("viaduct-{}", host.adapter);
    [
        format!("socket,id={id},path={},reconnect-ms=1000", value(&host.socket)),
        format!("vhost-user-scsi-pci,id={id}-host,chardev={id},num_queues={}", host.queues),
    ]
}

fn target(text: &mut String, target: &ConnectionTarget, before: usize) {
    let bus = format!("viaduct-{}", target.adapter);
    let mut account = String::new();
    if let Some(chap) = &target.chap {
        let secret = format!("{bus}-chap");
        let _ = write!(
            text,
            "# FILE holds the CHAP secret alone, with no line ending after it\n\
             -object secret,id={secret},file=FILE\n"
        );
        account = format!(",user={},password-secret={secret}", value(&chap.name));
    }
    let _ = writeln!(text, "-device virtio-scsi-pci,id={bus}");
    for (index, lun) in target.luns.iter().enumerate() {
        disk(text, target, lun, &account, boot(before + index));
    }
    if let Some(lun) = target.luns.first().filter(|_| target.chap.is_none()) {
        let _ = write!(
            text,
            "# as an image name, for -drive file=... and qemu-img:\n\
             #   -iscsi initiator-name={} -drive file=iscsi://{}/{}/{},format=raw,cache=none\n",
            initiator(target),
            Reached::first(target),
            target.target,
            lun.lun,
        );
    }
}

/// Without `cache.direct` QEMU remembers where nothing was written, for good, and returns zeroes
/// for it: of what other clients write since then, and now and then of what its own guest writes
/// while it asks.
fn disk(
    text: &mut String,
    target: &ConnectionTarget,
    lun: &ConnectionLun,
    account: &str,
    boot: &str,
) {
    let bus = format!("viaduct-{}", target.adapter);
    // Node names end at 31 characters, so the client's is left out.
    let id = format!("viaduct-{}-lun{}", target.adapter.slot, lun.lun);
    let blocks = match lun.block_size {
        BLOCK_SIZE_USUAL => String::new(),
        size => format!(",logical_block_size={size},physical_block_size={size}"),
    };
    let _ = write!(
        text,
        "# LU {lu}, slot {slot} LUN {number}, serial {serial}{read_only}\n\
         -blockdev driver=iscsi,node-name={id},transport=tcp,portal={portal},target={target},\
         lun={number},cache.direct=on,initiator-name={initiator}{account}{read_only_option}\n\
         -device scsi-hd,bus={bus}.0,drive={id},serial={serial_value}{blocks}{boot}\n",
        lu = lun.lu,
        slot = target.adapter.slot,
        number = lun.lun,
        serial = lun.serial,
        serial_value = value(&lun.serial),
        read_only = if_read_only(lun.read_only),
        read_only_option = if lun.read_only { ",read-only=on" } else { "" },
        portal = Reached::first(target),
        target = target.target,
        initiator = initiator(target),
    );
}
