//! open-iscsi on a host: who it is, how it finds its target and logs in, what CHAP needs, and how
//! multipath treats the disks. The secret is not printed; a line says where it belongs.

use std::fmt::Write as _;

use model::Chap;
use model::status::{ConnectionLun, ConnectionTarget};

use super::{Reached, if_read_only};

/// What INQUIRY says, as multipath compares it.
const MULTIPATH: &str = "\
# /etc/multipath.conf, where several paths lead to the node
devices {
    device {
        vendor \"VIADUCT\"
        product \"Virtual Disk\"
        path_grouping_policy group_by_prio
        path_checker tur
        prio alua
        hardware_handler \"1 alua\"
        failback immediate
        no_path_retry 30
        fast_io_fail_tmo 5
        dev_loss_tmo 600
    }
}
";

pub fn text(target: &ConnectionTarget) -> String {
    let mut text =
        "# /etc/iscsi/initiatorname.iscsi; after a change: systemctl restart iscsid\n".to_owned();
    for (index, initiator) in target.initiators.iter().enumerate() {
        let or = if index == 0 { "" } else { "# or " };
        let _ = writeln!(text, "{or}InitiatorName={initiator}");
    }
    if let Some(chap) = &target.chap {
        account(&mut text, chap);
    }
    let all = Reached::all(target);
    text.push_str("# find the target and log in, now and after every boot\n");
    for portal in &all {
        let _ = writeln!(text, "iscsiadm -m discovery -t sendtargets -p {portal}");
    }
    let name = &target.target;
    let _ = write!(
        text,
        "iscsiadm -m node -T {name} -o update -n node.startup -v automatic\n\
         iscsiadm -m node -T {name} --login\n"
    );
    text.push_str(
        "# the disks: their WWID, the same over all paths (/dev/disk/by-id/scsi-WWID,\n\
         # multipath -l), and each by its path\n",
    );
    for portal in &all {
        for lun in &target.luns {
            disk(&mut text, target, portal, lun);
        }
    }
    text.push_str(MULTIPATH);
    text
}

fn account(text: &mut String, chap: &Chap) {
    text.push_str(
        "# /etc/iscsi/iscsid.conf, mode 0600, before the target is found; no secret is shown\n",
    );
    for kind in ["node.session", "discovery.sendtargets"] {
        let name = &chap.name;
        let _ = write!(
            text,
            "{kind}.auth.authmethod = CHAP\n\
             {kind}.auth.username = {name}\n\
             {kind}.auth.password = SECRET\n"
        );
        if let Some(name) = &chap.mutual_name {
            let _ = write!(
                text,
                "{kind}.auth.username_in = {name}\n\
                 {kind}.auth.password_in = MUTUAL-SECRET\n"
            );
        }
    }
}

/// The name that udev gives a disk by the way to it.
fn disk(text: &mut String, target: &ConnectionTarget, portal: &Reached, lun: &ConnectionLun) {
    let _ = writeln!(
        text,
        "# LU {lu}, serial {serial}{read_only}, WWID {wwid}: \
         /dev/disk/by-path/ip-{host}:{port}-iscsi-{target}-lun-{number}",
        lu = lun.lu,
        serial = lun.serial,
        wwid = lun.wwid,
        read_only = if_read_only(lun.read_only),
        host = portal.host,
        port = portal.port,
        target = target.target,
        number = lun.lun,
    );
}
