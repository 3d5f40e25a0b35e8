//! The QEMUs that guests run on: Debian 12's 7.2 and 10.0 from its backports, both private trees.
//!
//! Nothing installed is used, so a test means the same on every machine. No KVM: guests are
//! emulated.

use std::process::Command;

use crate::Result;
use crate::cache::Cache;
use crate::debian::{BACKPORTS, Tree};

const PACKAGES: [&str; 2] = ["qemu-system-x86", "qemu-utils"];
/// With its own iSCSI client.
const PACKAGES_V10: [&str; 3] = [PACKAGES[0], PACKAGES[1], "qemu-block-extra"];

/// Where a QEMU of a tree looks for firmware and option ROMs.
const DATA_DIRS: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
const MODULE_DIR: &str = "usr/lib/x86_64-linux-gnu/qemu";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Qemu {
    /// Debian 12's own. Under emulation it loses guest memory in live pre-copy migration.
    V7_2,
    /// From bookworm-backports.
    #[default]
    V10,
}

impl Qemu {
    pub const ALL: [Self; 2] = [Self::V7_2, Self::V10];

    pub fn name(self) -> &'static str {
        match self {
            Self::V7_2 => "7.2",
            Self::V10 => "10.0",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|qemu| qemu.name().starts_with(name) && !name.is_empty())
    }

    pub fn tree(self, cache: &Cache) -> Result<Tree> {
        match self {
            Self::V7_2 => Tree::fetch(cache, "qemu-7.2", &PACKAGES, None),
            Self::V10 => Tree::fetch(cache, "qemu-10.0", &PACKAGES_V10, Some(BACKPORTS)),
        }
    }

    /// The emulator, ready for more arguments.
    pub fn system(self, cache: &Cache) -> Result<Command> {
        let tree = self.tree(cache)?;
        let mut command = tree.command("qemu-system-x86_64")?;
        command.env("QEMU_MODULE_DIR", tree.root().join(MODULE_DIR));
        for dir in DATA_DIRS {
            command.arg("-L").arg(tree.root().join(dir));
        }
        Ok(command)
    }

    /// A program that comes with this QEMU: `qemu-img`, `qemu-io`, `qemu-storage-daemon`.
    pub fn tool(self, cache: &Cache, name: &str) -> Result<Command> {
        let tree = self.tree(cache)?;
        let mut command = tree.command(name)?;
        command.env("QEMU_MODULE_DIR", tree.root().join(MODULE_DIR));
        Ok(command)
    }

    /// How a client socket asks to be connected again after the server went away.
    pub fn reconnect(self) -> &'static str {
        match self {
            Self::V7_2 => "reconnect=1",
            Self::V10 => "reconnect-ms=100",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_found_by_the_start_of_its_name() {
        assert_eq!(Qemu::of_name("7"), Some(Qemu::V7_2));
        assert_eq!(Qemu::of_name("10"), Some(Qemu::V10));
        assert_eq!(Qemu::of_name("8"), None);
        assert_eq!(Qemu::of_name(""), None);
    }
}
