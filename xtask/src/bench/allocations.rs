//! Allocations per request in steady state: none, whatever the store and the depth.
//!
//! The small server counts what its cores ask of the allocator. A first run lets every pool and
//! list grow to what the load needs; of a second one every allocation counts, less what reading the
//! counters itself takes.

use clap::Args;
use serde::Serialize;

use crate::numbers::{columns, short};
use crate::report::{Report, results_dir};
use crate::serve::{CoreCount, Kind};
use crate::servers::{Client, LoadSpec, ServerSpec, Small, Watcher};
use crate::{Result, file};

const DEVICE_BYTES: u64 = 64 << 20;
const DEPTHS: [usize; 2] = [1, 32];

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
    let image = file::Filled::make(&results_dir()?, DEVICE_BYTES)?;
    let stores =
        [("null", Kind::Null), ("memory", Kind::Memory), ("file", Kind::File(image.path().into()))];
    let mut figures = Vec::new();
    for (name, store) in stores {
        for (write, depth) in [false, true].into_iter().flat_map(|w| DEPTHS.map(|d| (w, d))) {
            figures.push(measure(name, &store, write, depth, arguments)?);
        }
    }
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

fn measure(
    name: &'static str,
    store: &Kind,
    write: bool,
    depth: usize,
    arguments: &Arguments,
) -> Result<Figure> {
    let spec = ServerSpec {
        store: store.clone(),
        size: DEVICE_BYTES,
        devices: 1,
        queues: 1,
        cpus: vec![arguments.server_cpu],
        spin: None,
    };
    let load = LoadSpec {
        write,
        block: 4096,
        depth,
        queues: 1,
        requests: Some(arguments.requests),
        fill: *store == Kind::Memory,
        cpus: vec![arguments.client_cpu],
        ..LoadSpec::default()
    };
    let mut server = Small::start(&spec, &Watcher::Nobody)?;
    let mut client = Client::connect(&server.sockets(), &load)?;
    client.go()?;
    let before = total(&server.cores()?);
    let outcome = client.go()?;
    let after = total(&server.cores()?);
    let again = total(&server.cores()?);
    client.finish()?;
    server.finish()?;
    let reading = again.allocations - after.allocations;
    Ok(Figure {
        store: name,
        direction: if write { "write" } else { "read" },
        depth,
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
