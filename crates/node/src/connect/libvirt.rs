//! libvirt XML: a vhost-user disk for each disk adapter, QEMU's own arguments for each SCSI host
//! (libvirt has no element for them), a network disk for each LUN of a target, and the secret that
//! CHAP needs.

use std::fmt::Write as _;

use model::ClientName;
use model::status::{ConnectionAdapter, ConnectionHost, ConnectionLun, ConnectionTarget};

use super::qemu::{RECONNECTS, host_arguments};
use super::{Reached, if_read_only, initiator};

pub fn text(
    client: &ClientName,
    adapters: &[ConnectionAdapter],
    hosts: &[ConnectionHost],
    iscsi: Option<&ConnectionTarget>,
) -> String {
    let mut text = String::new();
    if !adapters.is_empty() || !hosts.is_empty() {
        text.push_str(
            "<!-- inside <domain>: the guest's whole memory is shared -->\n\
             <memoryBacking>\n  \
               <source type='memfd'/>\n  \
               <access mode='shared'/>\n\
             </memoryBacking>\n",
        );
    }
    for (index, adapter) in adapters.iter().enumerate() {
        vhost_user(&mut text, adapter, index);
    }
    if !hosts.is_empty() {
        command_line(&mut text, hosts);
    }
    if let Some(target) = iscsi {
        // The secret's usage: a name of ours, the same in both places.
        let usage = format!("viaduct-{client}");
        if target.chap.is_some() {
            secret(&mut text, &usage);
        }
        text.push_str("<!-- inside <devices> -->\n<controller type='scsi' model='virtio-scsi'/>\n");
        for (index, lun) in target.luns.iter().enumerate() {
            let is_first = adapters.is_empty() && index == 0;
            network(&mut text, target, lun, &usage, &disk_name("sd", index), is_first);
        }
    }
    text
}

/// The first disk is the one to boot from.
fn boot(is_first: bool) -> &'static str {
    if is_first { "  <boot order='1'/>\n" } else { "" }
}

fn vhost_user(text: &mut String, adapter: &ConnectionAdapter, index: usize) {
    let _ = write!(
        text,
        "<!-- inside <devices>: LU {lu}, slot {slot}, serial {serial}{read_only} -->\n\
         <disk type='vhostuser' device='disk'>\n  \
           <driver name='qemu' type='raw' queues='{queues}'/>\n  \
           <source type='unix' path='{path}'>\n    \
             <reconnect enabled='yes' timeout='1'/>\n  \
           </source>\n  \
           <target dev='{target}' bus='virtio'/>\n\
         {boot}\
         </disk>\n",
        lu = comment(adapter.lu.as_str()),
        slot = adapter.adapter.slot,
        serial = comment(&adapter.serial),
        read_only = if_read_only(adapter.read_only),
        queues = adapter.queues,
        path = xml(&adapter.socket),
        target = disk_name("vd", index),
        boot = boot(index == 0),
    );
}

fn command_line(text: &mut String, hosts: &[ConnectionHost]) {
    text.push_str(
        "<!-- libvirt has no element for vhost-user-scsi; QEMU's own arguments stand inside \
         <domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'> -->\n\
         <!-- addr: a PCI slot that libvirt gives to nothing else; it does not know of this device \
         -->\n\
         <qemu:commandline>\n",
    );
    let _ = writeln!(text, "  <!-- {RECONNECTS} -->");
    for (index, host) in hosts.iter().enumerate() {
        for lun in &host.luns {
            let _ = writeln!(
                text,
                "  <!-- LU {lu}, slot {slot} LUN {number}, serial {serial}{read_only} -->",
                lu = comment(lun.lu.as_str()),
                slot = host.adapter.slot,
                number = lun.lun,
                serial = comment(&lun.serial),
                read_only = if_read_only(lun.read_only),
            );
        }
        let [chardev, device] = host_arguments(host);
        let device = format!("{device}{}", address(index));
        for argument in ["-chardev", &chardev, "-device", &device] {
            let _ = writeln!(text, "  <qemu:arg value='{}'/>", xml(argument));
        }
    }
    text.push_str("</qemu:commandline>\n");
}

/// libvirt gives addresses from 2 on upwards, and QEMU would take the first that is free before
/// libvirt's devices are there. Beyond these the operator has to choose.
fn address(index: usize) -> String {
    const LAST: usize = 0x18;
    const MOST: usize = 8;
    if index < MOST { format!(",addr={:#x}", LAST - index) } else { String::new() }
}

fn secret(text: &mut String, usage: &str) {
    let _ = write!(
        text,
        "<!-- a file of its own, for virsh secret-define -->\n\
         <secret ephemeral='no' private='yes'>\n  \
           <usage type='iscsi'>\n    \
             <target>{usage}</target>\n  \
           </usage>\n\
         </secret>\n"
    );
}

fn network(
    text: &mut String,
    target: &ConnectionTarget,
    lun: &ConnectionLun,
    usage: &str,
    device: &str,
    is_first: bool,
) {
    let reached = Reached::first(target);
    let account = target.chap.as_ref().map(|chap| {
        format!(
            "    <auth username='{}'>\n      \
               <secret type='iscsi' usage='{usage}'/>\n    \
             </auth>\n",
            xml(&chap.name)
        )
    });
    let _ = write!(
        text,
        "<!-- inside <devices>: LU {lu}, slot {slot} LUN {number}, serial {serial}{read_only} -->\n\
         <disk type='network' device='disk'>\n  \
           <driver name='qemu' type='raw' cache='none'/>\n  \
           <source protocol='iscsi' name='{name}/{number}'>\n    \
             <host name='{host}' port='{port}'/>\n\
         {account}    \
             <initiator>\n      \
               <iqn name='{initiator}'/>\n    \
             </initiator>\n  \
           </source>\n  \
           <target dev='{device}' bus='scsi'/>\n  \
           <serial>{serial_value}</serial>\n\
         {read_only_element}{boot}\
         </disk>\n",
        lu = comment(lun.lu.as_str()),
        slot = target.adapter.slot,
        number = lun.lun,
        serial = comment(&lun.serial),
        serial_value = xml(&lun.serial),
        read_only = if_read_only(lun.read_only),
        name = target.target,
        host = reached.host,
        port = reached.port,
        account = account.unwrap_or_default(),
        initiator = initiator(target),
        read_only_element = if lun.read_only { "  <readonly/>\n" } else { "" },
        boot = boot(is_first),
    );
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

/// Two hyphens would end a comment.
fn comment(text: &str) -> String {
    text.replace("--", "- -")
}

/// vda to vdz, then vdaa.
pub(super) fn disk_name(kind: &str, index: usize) -> String {
    let letter = |index: usize| char::from(b'a' + (index % 26) as u8);
    match index / 26 {
        0 => format!("{kind}{}", letter(index)),
        more => format!("{kind}{}{}", letter(more - 1), letter(index)),
    }
}
