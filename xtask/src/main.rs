//! The one door of the workspace: what a developer runs, and what CI runs.
//!
//! Each verb is a module. `test` is everything that must hold before a change lands; `bar` runs one
//! of its long loops in full; `bench` measures; `fuzz` looks for what nobody thought of; `tidy` is
//! the house rules; `guest` makes and shows what system tests run in.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bar;
mod bench;
mod fuzz;
mod guest;
mod loom;
mod packages;
mod test;
mod tidy;
mod workspace;

/// What goes wrong is a sentence for whoever ran the command.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The one door of the workspace")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything that must hold: packages, tidy, fmt, clippy, unit and system tests
    Test(test::Arguments),
    /// Run one long loop in full; without a name, list them
    Bar(bar::Arguments),
    /// Measure, against bars and peers
    Bench(bench::Arguments),
    /// Run a fuzz target (with nightly Rust); without a name, list them
    Fuzz(fuzz::Arguments),
    /// Check what is lock-free in every interleaving
    Loom,
    /// Check the house rules that neither rustfmt nor clippy knows
    Tidy,
    /// The guests of the system tests
    #[command(subcommand)]
    Guest(guest::Verb),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Bar(arguments) => bar::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Loom => loom::run(),
        Verb::Tidy => tidy::run(),
        Verb::Guest(verb) => guest::run(&verb),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
