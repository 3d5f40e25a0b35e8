//! What else must be so for a connection to work, a paragraph each.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::status::{ClientView, ConnectFor, ConnectionTarget};

use crate::world;

pub fn notes(
    client: &ClientView,
    wanted: ConnectFor,
    sockets: &[&str],
    iscsi: Option<&ConnectionTarget>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if wanted != ConnectFor::OpenIscsi {
        notes.push(
            "Ask for no more queues than the guest has CPUs. bootindex (libvirt: boot order) makes \
             the first disk the one to boot from; leave it out if the guest boots from another."
                .to_owned(),
        );
        of_sockets(&mut notes, client, wanted, sockets);
    }
    if let Some(target) = iscsi {
        of_target(&mut notes, client, wanted, target);
    }
    notes
}

fn of_sockets(notes: &mut Vec<String>, client: &ClientView, wanted: ConnectFor, sockets: &[&str]) {
    let Some(run) = sockets.first().and_then(|socket| Path::new(socket).parent()) else { return };
    let owner = client.client.socket_owner.as_ref();
    notes.push(match owner {
        Some(owner) => format!("The sockets belong to {owner}, mode 0660: run QEMU as that user."),
        None => format!(
            "The sockets have mode 0660 and group kvm where there is one: run QEMU as root or as a \
             member of that group, or make the client anew with --socket-owner USER:GROUP \
             (libvirt on Debian: libvirt-qemu:kvm, on Fedora: qemu:qemu). Client: {}.",
            client.client.name
        ),
    });
    if let Some(closed) = closed_ancestor(run) {
        notes.push(format!(
            "{} cannot be traversed by other users: a QEMU that runs as another user does not \
             reach the sockets. chmod o+x {0}, or start the node with a data directory elsewhere.",
            closed.display()
        ));
    }
    if wanted == ConnectFor::Libvirt {
        notes.push(format!(
            "AppArmor (Debian, Ubuntu): put the line '{run}/*.sock rw,' into \
             /etc/apparmor.d/local/abstractions/libvirt-qemu and start the guest anew.",
            run = run.display()
        ));
        notes.push(format!(
            "SELinux (Fedora, RHEL): semanage fcontext -a -t svirt_image_t '{run}(/.*)?' && \
             restorecon -R {run}; if the guest is still denied, ausearch -m avc -ts recent names \
             the rule that is missing.",
            run = run.display()
        ));
    }
}

fn of_target(
    notes: &mut Vec<String>,
    client: &ClientView,
    wanted: ConnectFor,
    target: &ConnectionTarget,
) {
    let name = &client.client.name;
    if wanted == ConnectFor::OpenIscsi {
        notes.push(
            "LUs that are mapped later appear after iscsiadm -m session --rescan; log out with \
             iscsiadm -m node -T TARGET --logout before an LU is taken away."
                .to_owned(),
        );
    } else if target.initiators.len() > 1 {
        notes.push(format!(
            "Client {name} has several iSCSI names; the first stands here, any of them may log in."
        ));
    }
    let portals: Vec<SocketAddr> =
        target.portals.iter().filter_map(|portal| portal.parse().ok()).collect();
    if portals.is_empty() {
        notes.push(
            "The node serves no iSCSI now: start it with viaduct up --iscsi ADDR:PORT, and put \
             that address in the place of ADDRESS."
                .to_owned(),
        );
    } else if portals.iter().all(|portal| portal.ip().is_loopback()) {
        notes.push(
            "iSCSI is served on this machine alone: viaduct up --iscsi ADDR:PORT opens it to \
             others."
                .to_owned(),
        );
    } else if portals.iter().any(|portal| portal.ip().is_unspecified()) {
        notes.push(
            "The node listens on all its addresses: put one that the client reaches in the place \
             of ADDRESS."
                .to_owned(),
        );
    }
    if target.chap.is_some() && wanted == ConnectFor::Libvirt {
        notes.push(
            "virsh secret-define prints the UUID of the secret; virsh secret-set-value --secret \
             UUID --file FILE --plain fills it. FILE holds the CHAP secret alone, with no line \
             ending after it."
                .to_owned(),
        );
    }
    let is_mutual = target.chap.as_ref().is_some_and(|chap| chap.mutual_name.is_some());
    if is_mutual && wanted != ConnectFor::OpenIscsi {
        notes.push(
            "QEMU's iSCSI client cannot ask the node to prove itself: its log-in shows one \
             direction only."
                .to_owned(),
        );
    }
}

/// The first directory on the way that others may not pass through.
pub(super) fn closed_ancestor(path: &Path) -> Option<PathBuf> {
    const OTHERS_EXECUTE: u32 = 0o001;
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let is_closed = |path: &&&Path| {
        world::access_of(path).is_ok_and(|access| access.mode & OTHERS_EXECUTE == 0)
    };
    ancestors.iter().find(is_closed).map(|path| path.to_path_buf())
}
