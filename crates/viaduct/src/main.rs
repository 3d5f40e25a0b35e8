//! `viaduct`: the node (`up`) and the command line, which is a client of the node's REST API like
//! any other.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the grammar: nouns and verbs, as clap reads, completes and documents them |
//! | [`up`], [`notify`], [`log`] | a node in the foreground, what systemd is told, what is logged |
//! | [`client`] | requests over the Unix socket |
//! | [`commands`] | each verb: request, answer, output |
//! | [`output`], [`tables`] | table, JSON and YAML; which columns |
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 not now. An error goes to
//! standard error, names the thing, and says what to do next.

mod args;
mod client;
mod commands;
mod log;
mod notify;
mod output;
mod tables;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Up(options) => up::up(arguments.data, options),
        command => commands::run(command, arguments.data, arguments.output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind.exit_code())
        }
    }
}
