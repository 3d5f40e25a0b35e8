//! The write verifier as a program for guests; [`system_tests::verify`] is what it does.
//!
//! Prints `started` when the first requests have ended, and at last one line of JSON. Its status is
//! 0 only if all was right.

use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use system_tests::verify::{Load, Report, Run, memory};

#[derive(Parser)]
enum Command {
    /// Load a block device and know what every read must return.
    Load(Load),
    /// Only the working set in memory.
    Memory {
        mib: usize,
        /// How long; without it until the input ends.
        #[arg(long)]
        seconds: Option<u64>,
    },
}

fn main() -> ExitCode {
    let report = match Command::parse() {
        Command::Load(load) => {
            let seconds = load.seconds;
            load.run(|run| {
                wait_started(|| run.requests() > u64::from(load.threads));
                wait_end(seconds);
            })
        }
        Command::Memory { mib, seconds } => Ok(watch_memory(mib, seconds)),
    };
    let report = report.unwrap_or_else(|error| Report {
        error_count: 1,
        errors: vec![error.to_string()],
        ..Report::default()
    });
    println!("{}", serde_json::json!(report));
    ExitCode::from(u8::from(!report.ok))
}

fn watch_memory(mib: usize, seconds: Option<u64>) -> Report {
    let run = Run::default();
    std::thread::scope(|scope| {
        scope.spawn(|| memory::watch(mib, &run));
        wait_started(|| run.report().memory_passes > 0);
        wait_end(seconds);
        run.stop.store(true, Ordering::Relaxed);
    });
    run.report()
}

/// Says so when the load really runs.
fn wait_started(is_running: impl Fn() -> bool) {
    while !is_running() {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("started");
}

fn wait_end(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        // An unreadable input has ended too.
        None => drop(io::stdin().lock().read_to_end(&mut Vec::new())),
    }
}
