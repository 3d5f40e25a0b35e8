//! Counted figures: instructions and system calls per request, by store and depth.
//!
//! The client offers a whole batch of `depth`, waits until all of it is answered, and offers the
//! next, so that batches do not depend on who happens to be faster. Counted are two runs of
//! different length; the difference belongs to the requests. Instructions (those outside the
//! kernel) are counted without spinning, where every batch pays a sleep and a wake; system calls
//! with the product's own spinning.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::matrix::Case;
use crate::numbers::{columns, short};
use crate::report::Report;
use crate::serve::Front;
use crate::servers::{Client, Idle, LoadSpec, ServerSpec, Small, StorageDaemon, Watcher};
use crate::{Result, callgrind, matrix};

/// Calls rarer than this per request are not shown.
const CALLS_MIN: f64 = 0.005;

#[derive(Args)]
pub struct Arguments {
    /// Of the shorter run; the longer one has twice as many
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
}

#[derive(Serialize)]
struct Figure {
    store: &'static str,
    direction: &'static str,
    depth: usize,
    instructions: f64,
    system_calls: BTreeMap<String, f64>,
    /// None is counted over iSCSI.
    system_calls_of_peer: BTreeMap<String, f64>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let figures = matrix::each(arguments.server_cpu, arguments.client_cpu, |case| {
        measure(&case, arguments.requests)
    })?;
    print(&figures);
    Report::new("counts", figures).finish()
}

fn print(figures: &[Figure]) {
    let heads = ["", "direction", "depth", "instructions", "system calls", "of the peer", "which"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for figure in figures {
        let sum = |calls: &BTreeMap<String, f64>| match calls.is_empty() {
            true => "-".to_owned(),
            false => short(calls.values().sum::<f64>()),
        };
        let mut calls: Vec<_> = figure.system_calls.iter().collect();
        calls.sort_by(|a, b| b.1.total_cmp(a.1));
        let shown = calls.iter().filter(|(_, count)| **count >= CALLS_MIN);
        let names: Vec<String> =
            shown.map(|(name, count)| format!("{name} {}", short(**count))).collect();
        lines.push(vec![
            figure.store.to_owned(),
            figure.direction.to_owned(),
            figure.depth.to_string(),
            short(figure.instructions),
            sum(&figure.system_calls),
            sum(&figure.system_calls_of_peer),
            names.join(", "),
        ]);
    }
    print!("{}", columns(&lines));
}

fn measure(case: &Case, requests: u64) -> Result<Figure> {
    let spec = &case.server;
    let load = LoadSpec { lockstep: true, ..case.load.clone() };
    let sleepy = ServerSpec { spin: Some(0), ..spec.clone() };
    let dir = tempfile::tempdir()?;
    let summary = dir.path().join("strace");
    Ok(Figure {
        store: case.store,
        direction: case.direction,
        depth: case.depth,
        instructions: callgrind::per_request_of_server(&sleepy, &load, requests)?,
        system_calls: slope(requests, |requests| {
            ours(spec, &LoadSpec { requests: Some(requests), ..load.clone() }, &summary)
        })?,
        system_calls_of_peer: match spec.front {
            Front::VhostBlk => slope(requests, |requests| {
                peer(spec, &LoadSpec { requests: Some(requests), ..load.clone() }, &summary)
            })?,
            Front::Iscsi => BTreeMap::new(),
        },
    })
}

type Calls = BTreeMap<String, u64>;

/// What each further request costs.
fn slope(requests: u64, run: impl Fn(u64) -> Result<Calls>) -> Result<BTreeMap<String, f64>> {
    let (short, long) = (run(requests)?, run(2 * requests)?);
    let per_request = |(name, calls): (&String, &u64)| {
        let more = *calls as f64 - short.get(name).copied().unwrap_or(0) as f64;
        (name.clone(), more / requests as f64)
    };
    Ok(long.iter().map(per_request).collect())
}

fn ours(spec: &ServerSpec, load: &LoadSpec, summary: &Path) -> Result<Calls> {
    let mut server = Small::start(spec, &Watcher::Strace(summary.to_path_buf()))?;
    drive(server.connect(load)?)?;
    server.finish()?;
    calls_in(summary)
}

fn peer(spec: &ServerSpec, load: &LoadSpec, summary: &Path) -> Result<Calls> {
    let server = StorageDaemon::start(spec, Idle::Poll, &Watcher::Strace(summary.to_path_buf()))?;
    drive(Client::connect(&[server.socket()], load)?)?;
    server.finish()?;
    calls_in(summary)
}

fn drive(mut client: Client) -> Result<()> {
    client.go()?;
    client.finish()
}

fn calls_in(summary: &Path) -> Result<Calls> {
    let calls = parse(&std::fs::read_to_string(summary)?);
    match calls.is_empty() {
        true => Err("strace has counted nothing".into()),
        false => Ok(calls),
    }
}

/// Lines of name and number between two rulers; the total below is left out.
fn parse(summary: &str) -> Calls {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, calls) = (words.next()?, words.next()?.parse().ok()?);
        (name != "total").then(|| (name.to_owned(), calls))
    };
    summary.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_strace_is_read() {
        let summary = "syscall              calls\n---------------- ---------\n\
                       io_uring_enter          12\nwrite                    3\n\
                       ---------------- ---------\ntotal                   15\n";
        let calls = parse(summary);
        assert_eq!((calls.len(), calls["io_uring_enter"], calls["write"]), (2, 12, 3));
        let per_request = slope(10, |requests| Ok([("write".to_owned(), 3 + requests / 2)].into()));
        assert_eq!(per_request.unwrap()["write"], 0.5);
    }
}
