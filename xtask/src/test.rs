//! `xtask test`: the stages in order, each with its time.
//!
//! The checks that are quick to fail come first. Tests and their harness are built in the dev
//! profile, and only the server that system tests drive is built for release; so nothing is
//! compiled for both but what both need. Unit and system tests are built by the same command, for
//! cargo builds dependencies anew when the chosen packages ask for other features of them.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::workspace::{cargo, has_program, must, target_dir};
use crate::{Result, guest, packages, tidy};

/// All packages, the benchmarks (which everyday verbs do without) among them.
const ALL: [&str; 3] = ["--workspace", "--features", "xtask/bench"];
/// What needs guests, and takes long.
const SYSTEM_TESTS: &str = "package(viaduct-system-tests) and kind(test)";
/// Guests are emulated, each on one busy core.
const GUESTS_AT_ONCE: &str = "2";

#[derive(Args)]
pub struct Arguments {
    /// Only these stages
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Install missing Debian packages
    Packages,
    /// The house rules
    Tidy,
    Fmt,
    Clippy,
    /// Tests beside the code, conformance, documentation examples
    Unit,
    /// The release binary
    Build,
    /// Fetch and build what guests are made of
    Guest,
    /// Real guests and clients against the release binary
    System,
}

impl Stage {
    fn run(self) -> Result<()> {
        match self {
            Self::Packages => packages::ensure(&packages::FOR_TESTS),
            Self::Tidy => tidy::run(),
            Self::Fmt => must(&mut cargo(&["fmt", "--all", "--check"])),
            Self::Clippy => {
                let deny = ["--", "-D", "warnings"];
                must(cargo(&["clippy", "--all-targets"]).args(ALL).args(deny))
            }
            Self::Unit => unit_tests(),
            Self::Build => build(),
            Self::Guest => guest::prepare(false),
            Self::System => must(&mut system_tests(Which::All)?),
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let is_wanted = |stage: &&Stage| arguments.only.is_empty() || arguments.only.contains(stage);
    let mut times: Vec<(Stage, Duration)> = Vec::new();
    let mut result = Ok(());
    for stage in Stage::value_variants().iter().filter(is_wanted) {
        println!("=== {stage:?}");
        let begin = Instant::now();
        result = stage.run().map_err(|error| format!("{stage:?}: {error}").into());
        times.push((*stage, begin.elapsed()));
        if result.is_err() {
            break;
        }
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("=== Times");
    for (stage, time) in &times {
        println!("{:10} {:7.1} s", format!("{stage:?}"), time.as_secs_f64());
    }
    println!("{:10} {:7.1} s", "total", total.as_secs_f64());
    result
}

/// The server that system tests drive.
pub fn build() -> Result<()> {
    must(&mut cargo(&["build", "--release", "--bin", "viaduct"]))
}

fn unit_tests() -> Result<()> {
    if has_nextest() {
        let unit = format!("not ({SYSTEM_TESTS})");
        must(nextest().args(["-E", &unit]).args(ALL))?;
    } else {
        let but_guests = ["--exclude", "viaduct-system-tests"];
        must(cargo(&["test", "--all-targets"]).args(ALL).args(but_guests))?;
        must(&mut cargo(&["test", "-p", "viaduct-system-tests", "--lib", "--bins"]))?;
    }
    must(cargo(&["test", "--doc", "--quiet"]).args(ALL))
}

/// Which system tests.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    All,
    Named(&'a str),
    /// Those whose names begin so.
    Beginning(&'a str),
}

/// System tests against the release binary.
pub fn system_tests(which: Which<'_>) -> Result<Command> {
    let mut command = if has_nextest() {
        let mut command = nextest();
        command.args(["--test-threads", GUESTS_AT_ONCE]);
        let filter = match which {
            Which::All => None,
            Which::Named(test) => Some(format!("test(={test})")),
            Which::Beginning(name) => Some(format!("test(/^{name}/)")),
        };
        match filter {
            None => command.args(ALL).args(["-E", SYSTEM_TESTS]),
            Some(filter) => {
                command.args(["--profile", "bar", "-p", "viaduct-system-tests", "-E", &filter])
            }
        };
        command
    } else {
        let mut command = cargo(&["test", "-p", "viaduct-system-tests", "--test", "*", "--"]);
        command.args(["--test-threads", GUESTS_AT_ONCE]);
        match which {
            Which::All => {}
            Which::Named(test) => drop(command.args(["--exact", test, "--nocapture"])),
            Which::Beginning(name) => drop(command.args([name, "--nocapture"])),
        }
        command
    };
    command.env("VIADUCT_BIN", target_dir()?.join("release/viaduct"));
    Ok(command)
}

fn nextest() -> Command {
    cargo(&["nextest", "run", "--config-file", "xtask/nextest.toml"])
}

fn has_nextest() -> bool {
    has_program("cargo-nextest")
}
