//! `xtask bench`: builds the benchmarks for release and runs them.
//!
//! They are a program of their own, `viaduct-bench`, behind a feature: everyday verbs need neither
//! the data path nor the peers' crates. Whatever stands after `bench` is that program's to read.

use std::ffi::OsString;
use std::process::Command;

use clap::Args;

use crate::Result;
use crate::packages::{self, Need};
use crate::test;
use crate::workspace::{cargo, must, root, target_dir};

const NEEDS: [Need; 5] = [
    Need { package: "valgrind", program: "valgrind", why: "counts instructions" },
    Need { package: "strace", program: "strace", why: "counts system calls" },
    Need { package: "fio", program: "fio", why: "the reference on a file" },
    Need { package: "tgt", program: "tgtd", why: "the reference over iSCSI" },
    Need { package: "libiscsi-bin", program: "iscsi-perf", why: "a client over iSCSI" },
];

#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// The benchmark and its options; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME")]
    words: Vec<OsString>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(&NEEDS)?;
    // Some of them measure the node itself.
    test::build()?;
    let build = ["build", "--release", "--quiet", "-p", "xtask", "--features", "bench"];
    must(cargo(&build).args(["--bin", "viaduct-bench"]))?;
    let program = target_dir()?.join("release/viaduct-bench");
    must(Command::new(program).current_dir(root()).args(&arguments.words))
}
