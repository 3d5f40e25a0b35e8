//! `xtask bar`: the long loops, of which `xtask test` runs a sample.
//!
//! Mostly a loop is a system test that repeats what it shows as often as `VIADUCT_LOOPS` says, and
//! a few times without it; a row of the table says how often is enough.

use clap::Args;

use crate::test::Which;
use crate::workspace::{cargo, must};
use crate::{Result, guest, loom, test};

/// One long loop.
struct Bar {
    name: &'static str,
    shows: &'static str,
    what: What,
}

enum What {
    /// A system test, by its full name, and how often.
    System(&'static str, u32),
    /// System tests whose names begin so, each once but in full.
    Systems(&'static str),
    /// Models of a crate, by what their names begin with, and how often.
    Models(&'static str, &'static str, u32),
    /// Interleavings, each once.
    Loom,
}

const BARS: [Bar; 12] = [
    Bar {
        name: "kills",
        shows: "a killed server loses nothing, QEMU 10.0.2 goes on within 1 s",
        what: What::System("a_killed_server_loses_nothing_for_qemu_10", 50),
    },
    Bar {
        name: "kills-7.2",
        shows: "the same with QEMU 7.2, within 2 s",
        what: What::System("a_killed_server_loses_nothing_for_qemu_7_2", 50),
    },
    Bar {
        name: "kills-scsi",
        shows: "the same over vhost-user-scsi, two LUNs, QEMU 10.0.2 goes on within 1 s",
        what: What::System("a_killed_server_loses_nothing_over_scsi", 50),
    },
    Bar {
        name: "late-writes",
        shows: "what the kernel carries out late for a killed server harms nobody, on 6.1",
        what: What::System("late_requests_of_a_killed_server_harm_nobody", 20),
    },
    Bar {
        name: "migration",
        shows: "a guest moves between two nodes on one image, data and memory verified",
        what: What::System("a_guest_moves_between_nodes_with_its_load", 20),
    },
    Bar {
        name: "harness-migration",
        shows: "the harness moves a guest between two QEMUs on qemu-storage-daemon, data verified",
        what: What::System("a_guest_moves_with_its_load", 20),
    },
    Bar {
        name: "iscsi-suite",
        shows: "libiscsi's suite on all units: plain, with header digests, CHAP and mutual CHAP",
        what: What::Systems("the_conformance_suite_of_libiscsi_passes"),
    },
    Bar {
        name: "pool-models",
        shows: "journal and owner of a pool LU lose nothing over crashes at any step, in models",
        what: What::Models("viaduct-volume", "pool::owner", 200),
    },
    Bar {
        name: "pool-crashes",
        shows: "LUs of a pool on simulated disks, over kills and power losses, every sector known",
        what: What::Models("viaduct-volume", "pool::lu::tests::crashes", 200),
    },
    Bar {
        name: "pool-kills",
        shows: "LUs of a pool lose nothing when the server is killed at any moment",
        what: What::System("killed_servers_lose_nothing_in_a_pool", 1000),
    },
    Bar {
        name: "pool-flips",
        shows: "250 flipped bits each in the metadata of a pool: the right data or an error",
        what: What::Models("viaduct-volume", "pool::check", 40),
    },
    Bar {
        name: "loom",
        shows: "messages between cores, in every interleaving of a few threads",
        what: What::Loom,
    },
];

#[derive(Args)]
pub struct Arguments {
    name: Option<String>,
    /// How often, instead of what the table says
    #[arg(long)]
    loops: Option<u32>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Some(name) = &arguments.name else {
        for Bar { name, shows, what } in &BARS {
            let loops = match what {
                What::System(_, loops) | What::Models(_, _, loops) => *loops,
                What::Systems(_) | What::Loom => 1,
            };
            println!("{name:24} {loops:4} x  {shows}");
        }
        return Ok(());
    };
    let bar = BARS.iter().find(|bar| bar.name == name);
    let bar = bar.ok_or_else(|| format!("no bar {name}: `cargo xtask bar` lists them"))?;
    match bar.what {
        What::System(test, loops) => {
            guest::prepare(false)?;
            let loops = arguments.loops.unwrap_or(loops);
            run_tests(Which::Named(test), loops)?;
            println!("{name}: {loops} times: {}", bar.shows);
        }
        What::Models(package, beginning, loops) => {
            let loops = arguments.loops.unwrap_or(loops);
            let words = ["test", "--release", "-p", package, "--lib", beginning];
            must(cargo(&words).env("VIADUCT_LOOPS", loops.to_string()))?;
            println!("{name}: {loops} times: {}", bar.shows);
        }
        What::Systems(_) | What::Loom if arguments.loops.is_some() => {
            return Err(format!("{name} is the same every time: leave out --loops").into());
        }
        What::Systems(beginning) => {
            run_tests(Which::Beginning(beginning), 1)?;
            println!("{name}: {}", bar.shows);
        }
        What::Loom => {
            loom::run()?;
            println!("{name}: {}", bar.shows);
        }
    }
    Ok(())
}

fn run_tests(which: Which<'_>, loops: u32) -> Result<()> {
    test::build()?;
    must(test::system_tests(which)?.env("VIADUCT_LOOPS", loops.to_string()))
}
