//! A vhost-user-blk client for guests in which the server runs; see [`system_tests::blk_client`].
//!
//! It is a VMM without a guest: it shares memory of its own, drives one ring, and keeps ring and
//! in-flight area across servers, as QEMU does.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use system_tests::Result;

mod churn;
mod disk;
mod killed;
mod late;
mod memory;
mod server;
mod session;
mod used;

use churn::Churn;
use disk::Disk;
use killed::Killed;

#[derive(Parser)]
enum Command {
    /// Write blocks all over the disk and read them back.
    Use {
        socket: PathBuf,
        /// Only read: an earlier use must have written the same.
        #[arg(long)]
        again: bool,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Cut the memory off under the server, and wait until it says that the queue is broken.
    Cut { socket: PathBuf },
    /// Kill servers whose requests the store holds back.
    Late(Arguments),
    /// Kill servers under a load on LUs of a pool; the environment says where their data is.
    Churn(churn::Arguments),
}

#[derive(clap::Args)]
struct Arguments {
    socket: PathBuf,
    /// A control group whose requests to a device (MAJOR:MINOR) wait until they are let go.
    #[arg(long)]
    lane: PathBuf,
    #[arg(long)]
    device: String,
    /// The socket of another disk, which must not have to wait.
    #[arg(long)]
    neighbour: PathBuf,
    #[arg(long)]
    rounds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the servers' output goes.
    #[arg(long)]
    log: PathBuf,
    /// The server's command line.
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Use { socket, again, seed } => use_disk(&socket, again, seed),
        Command::Cut { socket } => Disk::new(&socket).and_then(Disk::cut_memory),
        Command::Late(arguments) => kill_servers(&arguments),
        Command::Churn(arguments) => Churn::new(&arguments).and_then(|it| say(&it.run()?)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn use_disk(socket: &Path, again: bool, seed: u64) -> Result<()> {
    let mut disk = Disk::new(socket)?;
    let blocks = disk.attach()?;
    say(&used::run(&mut disk, blocks, again, seed)?)
}

fn kill_servers(arguments: &Arguments) -> Result<()> {
    let mut killed = Killed::new(arguments)?;
    for _ in 0..arguments.rounds {
        say(&killed.round()?)?;
    }
    Ok(())
}

fn say(what: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}
