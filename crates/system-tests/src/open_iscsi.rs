//! open-iscsi, the initiator of Linux, in a guest.
//!
//! The guest reaches this machine's loopback as [`HOST`](crate::iscsi::HOST). A node tells the
//! address that it listens on, so a guest that is to find it there passes its own loopback on
//! ([`Initiator::pass_on`]).

use std::time::Duration;

use crate::iscsi::HOST;
use crate::{Guest, GuestImage, Qemu, Result};

/// Sessions are slow to give up: a command for one may take as long.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Both digests, in the daemon's words.
pub const DIGESTS: [&str; 2] =
    ["node.conn[0].iscsi.HeaderDigest = CRC32C", "node.conn[0].iscsi.DataDigest = CRC32C"];

/// What the kernel needs: the transport, what digests are made of, disks.
const MODULES: [&str; 6] =
    ["virtio_net", "iscsi_tcp", "crc32c_generic", "sd_mod", "sg", "scsi_dh_alua"];

/// A guest whose daemon runs.
#[derive(Debug)]
pub struct Initiator {
    pub guest: Guest,
}

impl Initiator {
    /// Boots a guest with open-iscsi and what else is in the image.
    pub fn boot(image: GuestImage, modules: &[&str]) -> Result<Self> {
        let image = image.with_package("open-iscsi").with_package("sg3-utils");
        let builder = Guest::builder().qemu(Qemu::V10).image(image);
        let all = MODULES.iter().chain(modules);
        let guest = all
            .fold(builder, |builder, module| builder.module(module))
            .arguments(&["-netdev", "user,id=net"])
            .arguments(&["-device", "virtio-net-pci,netdev=net,romfile="])
            .boot()?;
        guest.ok("ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up && ifconfig lo up")?;
        guest.ok("mkdir -p /etc/iscsi /run/lock")?;
        Ok(Self { guest })
    }

    /// Starts the daemon under a name, with these lines in its configuration.
    pub fn start(&self, name: &str, lines: &[&str]) -> Result<()> {
        let guest = &self.guest;
        guest.put("/etc/iscsi/iscsid.conf", format!("{}\n", lines.join("\n")).as_bytes())?;
        guest
            .put("/etc/iscsi/initiatorname.iscsi", format!("InitiatorName={name}\n").as_bytes())?;
        guest.ok("iscsid && while ! grep -q ISCSIADM /proc/net/unix; do usleep 10000; done")?;
        Ok(())
    }

    /// Makes the guest's own loopback lead to this machine's, at this port.
    pub fn pass_on(&self, port: u16) -> Result<()> {
        let relay = format!("nc -ll -p {port} -e nc {HOST} {port}");
        self.guest.ok(&format!("{relay} < /dev/null > /dev/null 2>&1 &")).map(drop)
    }

    /// Runs `iscsiadm`, which may have to wait for the target.
    pub fn admin(&self, arguments: &str) -> Result<String> {
        let output = self.guest.run_for(&format!("iscsiadm {arguments}"), LOGIN_TIMEOUT)?;
        match output.status {
            0 => Ok(output.text()),
            status => {
                let said = format!("{}{}", output.text(), output.error_text());
                Err(crate::Error::new(format!("iscsiadm {arguments}: status {status}\n{said}")))
            }
        }
    }

    /// Logs in to a target on this machine, over the default interface or another.
    pub fn log_in(&self, target: &str, port: u16, interface: Option<&str>) -> Result<()> {
        let at = format!("-m node -T {target} -p {HOST}:{port}");
        let with = interface.map(|name| format!(" -I {name}")).unwrap_or_default();
        self.admin(&format!("{at}{with} -o new"))?;
        self.admin(&format!("{at}{with} --login")).map(drop)
    }

    /// The name of the disk at a LUN of a target, like `sda`, once it is there.
    pub fn disk(&self, target: &str, lun: u16) -> Result<String> {
        let find = format!(
            "for i in $(seq 300); do \
               for s in /sys/class/iscsi_session/session*; do \
                 [ \"$(cat $s/targetname)\" = {target} ] || continue; \
                 d=$(ls $s/device/target*/*:*:*:{lun}/block 2>/dev/null) && \
                   [ -e /dev/$d ] && echo $d && exit 0; \
               done; usleep 100000; \
             done; exit 1"
        );
        Ok(self.guest.ok(&find)?.trim().to_owned())
    }
}
