//! `xtask loom`: what is lock-free, in every interleaving.
//!
//! A build of its own, because `cfg(loom)` puts other atomics in place of the real ones. Most of
//! what it compiles never runs, so only the model checker is optimized. Still it takes more than a
//! minute of a clean clone, which is why `test` leaves it to `bar`.

use crate::Result;
use crate::workspace::{cargo, must, target_dir};

const PROFILE: [&str; 3] = [
    "profile.dev.package.\"*\".opt-level=0",
    "profile.dev.package.loom.opt-level=1",
    "profile.dev.package.generator.opt-level=1",
];

pub fn run() -> Result<()> {
    let mut command = cargo(&["test", "-p", "viaduct-rt", "--lib"]);
    command.env("RUSTFLAGS", "--cfg loom").arg("--target-dir").arg(target_dir()?.join("loom"));
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    must(command.arg("loom_tests"))
}
