//! Debian packages that must be installed, and installing those that are not.
//!
//! Few, because QEMU, the guests' kernel and the clients are not installed but unpacked privately
//! (`cargo xtask guest prepare`). A verb that needs more adds a row to its own list.

use std::process::Command;

use crate::Result;
use crate::workspace::{has_program, must};

/// A package, and a program that shows it is there.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub package: &'static str,
    pub program: &'static str,
    pub why: &'static str,
}

/// What `cargo xtask test` needs.
pub const FOR_TESTS: [Need; 2] = [
    Need { package: "gcc", program: "cc", why: "links what Rust compiles" },
    Need { package: "git", program: "git", why: "cargo and the checkout" },
];

/// Installs what is missing if this is root; says what to run otherwise.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !has_program(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for Need { package, program, why } in &missing {
        println!("missing: {program} (package {package}: {why})");
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !is_root() {
        let packages = packages.join(" ");
        let install = "apt-get install --no-install-recommends";
        return Err(format!("run as root: apt-get update && {install} {packages}").into());
    }
    must(Command::new("apt-get").args(["-q", "update"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    must(install.args(["-qy", "install", "--no-install-recommends"]).args(packages))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}
