//! Allocations per request in steady state: none, whatever the store and the depth.
//!
//! The small server counts what its cores ask of the allocator. A first run lets every pool and
//! list grow to what the load needs; of a second one every allocation counts, less what reading the
//! counters itself takes.

use clap::Args;
use serde::Serialize;

use crate::matrix::Case;
use crate::numbers::{columns, short};
use crate::report::Report;
use crate::serve::CoreCount;
use crate::servers::{LoadSpec, Small, Watcher};
use crate::{Result, matrix};

#[derive(Args)]
pub struct Arguments {
    /// Of each run
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
    requests: u64,
    sleeps: u64,
    allocations: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let figures = matrix::each(arguments.server_cpu, arguments.client_cpu, |case| {
        measure(&case, arguments.requests)
    })?;
    let heads = ["", "direction", "depth", "requests", "sleeps", "allocations", "per request"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for figure in &figures {
        lines.push(vec![
            figure.store.to_owned(),
            figure.direction.to_owned(),
            figure.depth.to_string(),
            figure.requests.to_string(),
            figure.sleeps.to_string(),
            figure.allocations.to_string(),
            short(figure.allocations as f64 / figure.requests as f64),
        ]);
    }
    print!("{}", columns(&lines));
    let most = figures.iter().map(|figure| figure.allocations).max().unwrap_or(0);
    let mut report = Report::new("allocations", figures);
    report.judge("allocations", most as f64, Vec::new());
    report.finish()
}

fn measure(case: &Case, requests: u64) -> Result<Figure> {
    let load = LoadSpec { requests: Some(requests), ..case.load.clone() };
    let mut server = Small::start(&case.server, &Watcher::Nobody)?;
    let mut client = server.connect(&load)?;
    client.go()?;
    let before = total(&server.cores()?);
    let outcome = client.go()?;
    let after = total(&server.cores()?);
    let again = total(&server.cores()?);
    client.finish()?;
    server.finish()?;
    let reading = again.allocations - after.allocations;
    Ok(Figure {
        store: case.store,
        direction: case.direction,
        depth: case.depth,
        requests: outcome.requests,
        sleeps: after.sleeps - before.sleeps,
        allocations: (after.allocations - before.allocations).saturating_sub(reading),
    })
}

/// All cores together.
pub fn total(cores: &[CoreCount]) -> CoreCount {
    let sum = |of: fn(&CoreCount) -> u64| cores.iter().map(of).sum();
    CoreCount {
        messages: sum(|core| core.messages),
        system_calls: sum(|core| core.system_calls),
        sleeps: sum(|core| core.sleeps),
        operations: sum(|core| core.operations),
        allocations: sum(|core| core.allocations),
    }
}
