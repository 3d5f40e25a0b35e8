//! `xtask fuzz`: a fuzz target, for as long as one likes.
//!
//! The targets lie in `fuzz/`, outside of the workspace, because cargo-fuzz wants a nightly
//! compiler. What they have found so far is in `fuzz/corpus` and is replayed by ordinary tests;
//! what a run finds on its way lies in the build directory, from where the next one goes on.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use crate::Result;
use crate::workspace::{has_program, must, root, target_dir};

/// Longest script: what targets do with more is what they did before.
const SCRIPT_BYTES_MAX: u32 = 600;

#[derive(Args)]
pub struct Arguments {
    /// The target; without a name, list them
    name: Option<String>,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = root().join("fuzz");
    let targets = targets(&folder.join("corpus"))?;
    let Some(name) = &arguments.name else {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(());
    };
    if !targets.contains(name) {
        return Err(format!("no fuzz target {name}: there are {}", targets.join(", ")).into());
    }
    check_tools()?;
    let found = target_dir()?.join("fuzz").join(name);
    std::fs::create_dir_all(&found)?;
    let mut command = Command::new("rustup");
    command.current_dir(&folder).args(["run", "nightly", "cargo", "fuzz", "run", name]);
    command.args([&found, &folder.join("corpus").join(name)]);
    command.arg("--").arg(format!("-max_total_time={}", arguments.seconds));
    must(command.arg(format!("-max_len={SCRIPT_BYTES_MAX}")))
}

/// Each target has its seeds.
fn targets(corpora: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(corpora)? {
        targets.push(entry?.file_name().to_string_lossy().into_owned());
    }
    targets.sort();
    Ok(targets)
}

/// What a stable toolchain lacks, with the command that installs it.
fn check_tools() -> Result<()> {
    let mut nightly = Command::new("rustup");
    nightly.args(["run", "nightly", "rustc", "--version"]).stdout(Stdio::null());
    let has_nightly = nightly.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let tools = [
        (has_nightly, "the nightly toolchain", "rustup toolchain install nightly"),
        (has_program("cargo-fuzz"), "cargo-fuzz", "cargo install --locked cargo-fuzz"),
        (has_program("c++"), "a C++ compiler, for libFuzzer", "apt-get install g++"),
    ];
    match tools.iter().find(|(is_there, ..)| !is_there) {
        None => Ok(()),
        Some((_, what, install)) => Err(format!("{what} is missing: {install}").into()),
    }
}
