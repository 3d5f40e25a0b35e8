//! Many connected devices without any I/O: no CPU time at all, and little memory for each.
//!
//! Each device is used once before, so that what a first request leaves behind is there. CPU time
//! is that of the cores' threads, in nanoseconds; memory is the process's private anonymous memory
//! with all devices less that with one, and divided.

use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::numbers::short;
use crate::report::Report;
use crate::serve::{Front, Kind};
use crate::servers::{Client, LoadSpec, Ours, Server, ServerSpec};
use crate::{Result, procfs};

const DEVICE_BYTES: u64 = 1 << 30;
const DEPTH: usize = 32;
const REQUESTS: u64 = 64;
/// What a client sets off when it connects has come to its end by then.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 200)]
    devices: usize,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Cores of the server
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    #[arg(long, value_enum, default_value_t = Ours::Product)]
    ours: Ours,
}

#[derive(Serialize)]
struct Figures {
    devices: usize,
    seconds: f64,
    cores_run_ns: u64,
    /// By threads that serve no client: control plane, timers.
    others_run_ns: u64,
    rss_anon_of_one: u64,
    rss_anon_of_all: u64,
    bytes_per_device: f64,
}

struct Idle {
    cores_run_ns: u64,
    others_run_ns: u64,
    rss_anon: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.devices < 2 {
        return Err("at least two devices".into());
    }
    let one = measure(1, 0.0, arguments)?;
    let all = measure(arguments.devices, arguments.seconds, arguments)?;
    let more = all.rss_anon as f64 - one.rss_anon as f64;
    let figures = Figures {
        devices: arguments.devices,
        seconds: arguments.seconds,
        cores_run_ns: all.cores_run_ns,
        others_run_ns: all.others_run_ns,
        rss_anon_of_one: one.rss_anon,
        rss_anon_of_all: all.rss_anon,
        bytes_per_device: more / (arguments.devices - 1) as f64,
    };
    println!("{} devices, {} s without I/O:", figures.devices, figures.seconds);
    println!("  run time of the cores' threads: {} ns", figures.cores_run_ns);
    println!("  run time of all other threads: {} ns", figures.others_run_ns);
    let kib = |bytes: u64| short(bytes as f64 / 1024.0);
    let (of_one, of_all) = (kib(figures.rss_anon_of_one), kib(figures.rss_anon_of_all));
    println!("  private memory: {of_one} KiB with one device, {of_all} KiB with all");
    let (ns, kib) = (figures.cores_run_ns as f64, figures.bytes_per_device / 1024.0);
    let mut report = Report::new("idle", figures);
    report.judge("idle-cpu", ns, Vec::new());
    report.judge("idle-memory", kib, Vec::new());
    report.finish()
}

fn measure(devices: usize, seconds: f64, arguments: &Arguments) -> Result<Idle> {
    let spec = ServerSpec {
        front: Front::VhostBlk,
        store: Kind::Null,
        size: DEVICE_BYTES,
        devices,
        queues: 1,
        cpus: arguments.cores.clone(),
        spin: None,
    };
    let server = Server::start(arguments.ours, &spec)?;
    let load = LoadSpec {
        block: 4096,
        depth: DEPTH,
        queues: 1,
        requests: Some(REQUESTS),
        cpus: arguments.cores.clone(),
        ..LoadSpec::default()
    };
    let mut client = Client::connect(&server.sockets(), &load)?;
    let outcome = client.go()?;
    if outcome.requests != REQUESTS * devices as u64 {
        return Err(format!("{} requests on {devices} devices", outcome.requests).into());
    }
    thread::sleep(SETTLE);
    let before = run_ns(&server)?;
    thread::sleep(Duration::from_secs_f64(seconds));
    let after = run_ns(&server)?;
    let rss_anon = procfs::rss_anon_bytes(server.pid()?)?;
    client.finish()?;
    Ok(Idle { cores_run_ns: after.0 - before.0, others_run_ns: after.1 - before.1, rss_anon })
}

/// Run time of the cores' threads, and of all others.
fn run_ns(server: &Server) -> Result<(u64, u64)> {
    let threads = procfs::threads(server.pid()?)?;
    let (cores, others): (Vec<_>, Vec<_>) =
        threads.iter().partition(|thread| server.is_core(&thread.name));
    if cores.is_empty() {
        let names: Vec<&str> = threads.iter().map(|thread| thread.name.as_str()).collect();
        return Err(format!("no thread of a core among {names:?}").into());
    }
    let sum = |threads: Vec<&procfs::ThreadTime>| threads.iter().map(|thread| thread.run_ns).sum();
    Ok((sum(cores), sum(others)))
}
