//! The benchmarks behind `cargo xtask bench`: a program of its own, so that it is built for release
//! and everyday verbs do not have to build what it is made of.
//!
//! Two kinds: what runs inside this process (`executor`, `ring`, `pool` and its like), and
//! servers with clients in processes of their own, pinned to different CPUs (`vhost-blk`, `iscsi`,
//! `scaling`, `idle`, `allocations`, `counts`). Every bar stands in one table, `report::BARS`; each
//! verb ends with the rows that it has measured. What is not here: correctness, which is the tests'
//! business.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod allocations;
mod allocator;
mod callgrind;
mod client;
mod counts;
mod cpu;
mod executor;
mod file;
mod fio;
mod histogram;
mod idle;
mod iscsi;
mod iscsi_client;
mod iscsi_servers;
mod limits;
mod matrix;
mod numbers;
mod pool;
mod pool_many;
mod pool_memory;
mod pool_mended;
mod pool_snapshot;
mod pool_sums;
mod procfs;
mod program;
mod report;
mod ring;
mod scaling;
mod serve;
mod serve_iscsi;
mod serve_pool;
mod servers;
mod site;
mod vhost_blk;

/// What goes wrong is a sentence for whoever ran the command.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measurements, each with the bar it must reach")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The executor alone, against a bare io_uring loop
    Executor(executor::Arguments),
    /// Ring access alone, against `virtio-queue`
    Ring(ring::Arguments),
    /// vhost-user-blk, against qemu-storage-daemon
    VhostBlk(vhost_blk::Arguments),
    /// Several queues and devices over several cores
    Scaling(scaling::Arguments),
    /// Many devices without I/O
    Idle(idle::Arguments),
    /// iSCSI, against tgt
    Iscsi(iscsi::Arguments),
    /// LUs of a pool, against a file
    Pool(pool::Arguments),
    /// Memory for the map of an LU of 1 TiB
    PoolMemory(pool_memory::Arguments),
    /// Checksums of a pool, on against off
    PoolSums(pool_sums::Arguments),
    /// Snapshots of an LU of 1 TiB under load
    PoolSnapshot(pool_snapshot::Arguments),
    /// 10,000 LUs after their server was killed
    PoolMany(pool_many::Arguments),
    /// Allocations in steady state
    Allocations(allocations::Arguments),
    /// Instructions and system calls per request
    Counts(counts::Arguments),
    /// The small server that the others measure
    #[command(hide = true)]
    Serve(serve::Arguments),
    /// The load generator that the others use
    #[command(hide = true)]
    Client(client::Arguments),
    /// The initiators that `iscsi` uses
    #[command(hide = true)]
    IscsiClient(iscsi_client::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Executor(arguments) => executor::run(&arguments),
        Verb::Ring(arguments) => ring::run(&arguments),
        Verb::VhostBlk(arguments) => vhost_blk::run(&arguments),
        Verb::Scaling(arguments) => scaling::run(&arguments),
        Verb::Idle(arguments) => idle::run(&arguments),
        Verb::Pool(arguments) => pool::run(&arguments),
        Verb::PoolMemory(arguments) => pool_memory::run(&arguments),
        Verb::PoolSums(arguments) => pool_sums::run(&arguments),
        Verb::PoolSnapshot(arguments) => pool_snapshot::run(&arguments),
        Verb::PoolMany(arguments) => pool_many::run(&arguments),
        Verb::Allocations(arguments) => allocations::run(&arguments),
        Verb::Counts(arguments) => counts::run(&arguments),
        Verb::Serve(arguments) => serve::run(&arguments),
        Verb::Client(arguments) => client::run(&arguments),
        Verb::Iscsi(arguments) => iscsi::run(&arguments),
        Verb::IscsiClient(arguments) => iscsi_client::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
