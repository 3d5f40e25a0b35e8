//! `viaduct`: the node (`up`) and the command line, which is a client of the node's REST API like
//! any other.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the grammar: nouns and verbs, as clap reads, completes and documents them |
//! | [`settings`] | the file that `up` reads options from |
//! | [`up`], [`notify`], [`log`] | a node in the foreground, what systemd is told, what is logged |
//! | [`client`] | requests over the Unix socket |
//! | [`commands`] | each verb: request, answer, output |
//! | [`optical`] | the verbs of media and drives |
//! | [`check`] | what is done with the disks of a pool without a node |
//! | [`secrets`] | secrets out of files and from the keyboard |
//! | [`output`], [`tables`] | table, JSON and YAML; which columns |
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 not now. An error goes to
//! standard error, names the thing, and says what to do next.

mod args;
mod backup;
mod check;
mod client;
mod commands;
mod force;
mod log;
mod migrate;
mod notify;
mod optical;
mod output;
mod pool;
mod pool_import;
mod progress;
mod pv;
mod removal;
mod scrub;
mod secrets;
mod settings;
mod snapshot;
mod tables;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use model::ApiError;

use crate::args::{Arguments, Command};

fn main() -> ExitCode {
    let matches = args::with_synonyms(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), ApiError> {
    if let Command::Up(options) = &arguments.command
        && let Some(file) = options.config.clone().or_else(settings::of_environment)
    {
        arguments = settings::read(&file, std::env::args_os().collect())?;
    }
    match arguments.command {
        Command::Up(options) => up::up(arguments.data, options),
        command => commands::run(command, arguments.data, arguments.output),
    }
}
