//! Several queues and several devices: spread over the cores evenly, and without a word between
//! them.
//!
//! | what | how |
//! |---|---|
//! | requests by core | every queue has a client thread of its own that asks as fast as it can |
//! | messages | counted by the cores around the load; the counting itself sends one to each |
//! | instructions | two queues on one core against the same two on two cores, under callgrind |

use clap::Args;
use serde::Serialize;

use crate::numbers::{columns, short};
use crate::report::Report;
use crate::serve::{Front, Kind, QueueCount};
use crate::servers::{Client, LoadSpec, ServerSpec, Small, Watcher};
use crate::{Result, callgrind, cpu};

const DEVICE_BYTES: u64 = 1 << 30;
const DEPTH: usize = 32;
const CALLGRIND_REQUESTS: u64 = 20_000;

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Cores of the server
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    /// Do not count instructions
    #[arg(long)]
    no_instructions: bool,
}

/// Devices and queues of each; over iSCSI a queue is a session.
const SHAPES: [(&str, Front, usize, u16); 4] = [
    ("one device, 4 queues", Front::VhostBlk, 1, 4),
    ("4 devices, one queue", Front::VhostBlk, 4, 1),
    ("3 devices, 4 queues", Front::VhostBlk, 3, 4),
    ("one LU, 8 iSCSI sessions", Front::Iscsi, 1, 8),
];

/// Names of bars.
const SPREAD: &str = "scaling-spread";
const ISCSI_SPREAD: &str = "scaling-iscsi-spread";

#[derive(Serialize)]
struct Figures {
    spread: Vec<Spread>,
    instructions_one_core: Option<f64>,
    instructions_two_cores: Option<f64>,
}

#[derive(Serialize)]
struct Spread {
    shape: &'static str,
    bar: &'static str,
    requests_by_core: Vec<u64>,
    /// How much more the busiest core did than the least busy one.
    difference: f64,
    messages: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut spread = Vec::new();
    for (shape, front, devices, queues) in SHAPES {
        let spec = spec(front, devices, queues, &arguments.cores);
        spread.push(measure(shape, &spec, arguments)?);
    }
    let (mut one, mut two) = (None, None);
    if !arguments.no_instructions {
        let last = arguments.cores.last().copied().ok_or("no core")?;
        one = Some(instructions(&[last], arguments)?);
        two = Some(instructions(&[last, last], arguments)?);
    }
    let mut report = Report::new(
        "scaling",
        Figures { spread, instructions_one_core: one, instructions_two_cores: two },
    );
    print(&report.figures);
    let spread = &report.figures.spread;
    let most = |bar: &str| {
        let of_bar = spread.iter().filter(|spread| spread.bar == bar);
        of_bar.map(|spread| spread.difference).fold(0.0, f64::max)
    };
    let differences = [SPREAD, ISCSI_SPREAD].map(|bar| (bar, most(bar)));
    let messages = spread.iter().map(|spread| spread.messages).sum::<u64>();
    for (bar, difference) in differences {
        report.judge(bar, difference, Vec::new());
    }
    report.judge("scaling-messages", messages as f64, Vec::new());
    if let (Some(one), Some(two)) = (one, two) {
        report.judge("scaling-instructions", two / one, Vec::new());
    }
    report.finish()
}

fn print(figures: &Figures) {
    let heads = ["", "requests by core", "difference", "messages"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for spread in &figures.spread {
        let requests = spread.requests_by_core.iter().map(|count| short(*count as f64));
        lines.push(vec![
            spread.shape.to_owned(),
            requests.collect::<Vec<_>>().join(", "),
            format!("{:.0} %", spread.difference * 100.0),
            spread.messages.to_string(),
        ]);
    }
    print!("{}", columns(&lines));
    if let (Some(one), Some(two)) = (figures.instructions_one_core, figures.instructions_two_cores)
    {
        println!("instructions per request: {} on one core, {} on two", short(one), short(two));
    }
}

fn spec(front: Front, devices: usize, queues: u16, cores: &[usize]) -> ServerSpec {
    ServerSpec {
        front,
        store: Kind::Null,
        size: DEVICE_BYTES,
        devices,
        queues,
        cpus: cores.to_vec(),
        spin: None,
    }
}

fn measure(shape: &'static str, spec: &ServerSpec, arguments: &Arguments) -> Result<Spread> {
    let mut server = Small::start(spec, &Watcher::Nobody)?;
    let mut clients = Vec::new();
    for load in loads(spec, arguments)? {
        clients.push(server.connect(&load)?);
    }
    let queues_before = server.queues()?;
    let before = server.cores()?;
    clients.iter_mut().try_for_each(Client::start)?;
    clients.iter_mut().try_for_each(|client| client.outcome().map(drop))?;
    let after = server.cores()?;
    let queues_after = server.queues()?;
    clients.into_iter().try_for_each(Client::finish)?;
    server.finish()?;
    let by_core = |counts: &[QueueCount]| {
        let mut requests = vec![0; arguments.cores.len()];
        counts.iter().for_each(|count| requests[count.core] += count.requests);
        requests
    };
    let requests_by_core: Vec<u64> = by_core(&queues_after)
        .into_iter()
        .zip(by_core(&queues_before))
        .map(|(after, before)| after - before)
        .collect();
    let (most, least) = (requests_by_core.iter().max(), requests_by_core.iter().min());
    let difference = *most.unwrap_or(&0) as f64 / *least.unwrap_or(&0) as f64 - 1.0;
    // The second reading is itself one message to each core.
    let messages =
        before.iter().zip(&after).map(|(before, after)| after.messages - before.messages - 1);
    let bar = match spec.front {
        Front::VhostBlk => SPREAD,
        Front::Iscsi => ISCSI_SPREAD,
    };
    Ok(Spread { shape, bar, difference, messages: messages.sum(), requests_by_core })
}

/// A client has a thread for each queue, of which the scheduler takes care; one with all sessions
/// in one thread would sit on one CPU, so there is one on each.
fn loads(spec: &ServerSpec, arguments: &Arguments) -> Result<Vec<LoadSpec>> {
    let load = LoadSpec {
        block: 4096,
        depth: DEPTH,
        queues: spec.queues,
        seconds: arguments.seconds,
        warmup: 0.2,
        cpus: cpu::all()?,
        ..LoadSpec::default()
    };
    Ok(match spec.front {
        Front::VhostBlk => vec![load],
        Front::Iscsi => {
            let queues = load.queues / load.cpus.len() as u16;
            let of = |cpu: &usize| LoadSpec { queues, cpus: vec![*cpu], ..load.clone() };
            load.cpus.iter().map(of).collect()
        }
    })
}

/// Instructions per request of two queues, served by these cores.
fn instructions(cores: &[usize], arguments: &Arguments) -> Result<f64> {
    let mut spec = spec(Front::VhostBlk, 1, 2, cores);
    spec.spin = Some(0);
    let load = LoadSpec {
        block: 4096,
        depth: DEPTH,
        queues: 2,
        lockstep: true,
        cpus: vec![*arguments.cores.first().ok_or("no core")?],
        ..LoadSpec::default()
    };
    callgrind::per_request_of_server(&spec, &load, CALLGRIND_REQUESTS)
}
