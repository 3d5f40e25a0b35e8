//! `xtask guest`: what system tests run in, for a developer's own hands.

use std::io::Write;
use std::time::Instant;

use clap::{Args, Subcommand};
use system_tests::cache::Cache;
use system_tests::guest::GuestBuilder;
use system_tests::image::{PACKAGES_OF_TESTS, packed_package};
use system_tests::kernel::Kernel;
use system_tests::{Guest, GuestImage, Qemu};

use crate::Result;
use crate::workspace::{cargo, must};

#[derive(Subcommand)]
pub enum Verb {
    /// Fetch and build what guests are made of; tests do it by themselves
    Prepare {
        /// Forget what is in the cache first
        #[arg(long)]
        rebuild: bool,
    },
    /// A guest on this terminal (leave it with `exit`, or Ctrl-A X)
    Shell(Choice),
    /// Run one command in a guest
    Run {
        command: String,
        #[command(flatten)]
        choice: Choice,
    },
}

/// Which guest.
#[derive(Args)]
pub struct Choice {
    /// 7.2 or 10.0
    #[arg(long, default_value = "10.0", value_parser = parse_qemu)]
    qemu: Qemu,
    #[arg(long, default_value_t = 768)]
    memory_mib: u32,
    /// Debian packages to put into it
    #[arg(long = "package")]
    packages: Vec<String>,
    /// Raw images to show it as disks
    #[arg(long = "drive")]
    drives: Vec<std::path::PathBuf>,
}

fn parse_qemu(name: &str) -> std::result::Result<Qemu, String> {
    Qemu::of_name(name).ok_or_else(|| format!("no QEMU {name}: there are 7.2 and 10.0"))
}

impl Choice {
    fn builder(&self) -> GuestBuilder {
        let image = self
            .packages
            .iter()
            .fold(GuestImage::new(), |image, package| image.with_package(package));
        let builder = Guest::builder().qemu(self.qemu).memory_mib(self.memory_mib).image(image);
        self.drives.iter().fold(builder, |builder, drive| builder.drive(drive))
    }
}

pub fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Prepare { rebuild } => prepare(*rebuild),
        Verb::Shell(choice) => {
            build_programs()?;
            Ok(choice.builder().interactive()?)
        }
        Verb::Run { command, choice } => {
            build_programs()?;
            run_command(command, choice)
        }
    }
}

/// Makes everything that no test should have to wait for.
pub fn prepare(rebuild: bool) -> Result<()> {
    let cache = Cache::open()?;
    if rebuild {
        cache.clear()?;
    }
    let begin = Instant::now();
    Kernel::prepare(&cache)?;
    for qemu in Qemu::ALL {
        let tree = qemu.tree(&cache)?;
        let version = qemu.system(&cache)?.arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version.lines().next().unwrap_or_default();
        if !version.contains(&format!("version {}", qemu.name())) {
            let place = tree.root().display();
            return Err(format!("QEMU {} at {place} says: {version:?}", qemu.name()).into());
        }
        println!("{version}");
    }
    for package in PACKAGES_OF_TESTS {
        packed_package(&cache, package)?;
    }
    println!("ready in {} ({:.1} s)", cache.root().display(), begin.elapsed().as_secs_f64());
    Ok(())
}

/// The agent that goes into guests.
pub fn build_programs() -> Result<()> {
    must(&mut cargo(&["build", "--quiet", "-p", "viaduct-system-tests", "--bins"]))
}

fn run_command(command: &str, choice: &Choice) -> Result<()> {
    let output = choice.builder().boot()?.run(command)?;
    std::io::stdout().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    match output.status {
        0 => Ok(()),
        status => Err(format!("status {status} in the guest").into()),
    }
}
