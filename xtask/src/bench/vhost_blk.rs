//! The product against qemu-storage-daemon, over vhost-user-blk, in turn in one run.
//!
//! The client is the same for both (`client`). Servers stay up for the whole run of a store: idle,
//! neither uses any CPU. In each round every side runs every load, the sides of one load directly
//! after each other and in changing order; ratios are taken within a round, and the median of the
//! rounds counts. How far rounds lie apart, and what other jobs took of the machine meanwhile, is
//! printed beside it, and makes a verdict doubtful.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::client::Outcome;
use crate::numbers::{Summary, columns, short};
use crate::report::{Report, results_dir};
use crate::serve::{Front, Kind};
use crate::servers::{Client, Idle, LoadSpec, Ours, Server, ServerSpec, StorageDaemon, Watcher};
use crate::{Result, file, fio};

/// Rounds further apart than this make a ratio doubtful.
const SPREAD_MAX: f64 = 0.3;
/// Other jobs' share of one CPU above which a run is doubtful.
const OTHERS_MAX: f64 = 0.15;

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured time of one run
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.2)]
    warmup: f64,
    /// Only these stores
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<StoreName>,
    /// Only these loads, by name
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// Our microseconds of looking before sleeping; the product's default if not given
    #[arg(long)]
    spin: Option<u64>,
    /// Ours is the product, or the small server of the counted figures
    #[arg(long, value_enum, default_value_t = Ours::Product)]
    ours: Ours,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Bytes of a device
    #[arg(long, default_value_t = 1 << 30)]
    size: u64,
    /// Where the file lies; beside the build if not given
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreName {
    Null,
    Memory,
    File,
}

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Ours,
    Qsd,
    /// Its I/O thread sleeps when idle, as in the comparison that the bar of latency comes from.
    QsdAsleep,
    Fio,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Qsd => "qemu-storage-daemon",
            Self::QsdAsleep => "qemu-storage-daemon, poll-max-ns=0",
            Self::Fio => "fio, no server",
        }
    }
}

pub struct Load {
    pub name: &'static str,
    write: bool,
    sequential: bool,
    block: usize,
    depth: usize,
}

const fn random(name: &'static str, write: bool, depth: usize) -> Load {
    Load { name, write, sequential: false, block: 4096, depth }
}

const fn sequential(name: &'static str, write: bool) -> Load {
    Load { name, write, sequential: true, block: 128 << 10, depth: 8 }
}

pub const LOADS: [Load; 6] = [
    random("read-1", false, 1),
    random("read-32", false, 32),
    random("write-1", true, 1),
    random("write-32", true, 32),
    sequential("seq-read", false),
    sequential("seq-write", true),
];

impl Load {
    fn title(&self) -> String {
        let direction = if self.write { "write" } else { "read" };
        let order = if self.sequential { "sequential" } else { "random" };
        format!("{} KiB {order} {direction}, depth {}", self.block >> 10, self.depth)
    }

    fn spec(&self, arguments: &Arguments, server: Option<u32>) -> LoadSpec {
        LoadSpec {
            write: self.write,
            sequential: self.sequential,
            block: self.block,
            depth: self.depth,
            queues: 1,
            seconds: arguments.seconds,
            warmup: arguments.warmup,
            cpus: vec![arguments.client_cpu],
            server,
            ..LoadSpec::default()
        }
    }
}

/// What of a comparison is held against a bar.
#[derive(Clone, Copy)]
enum Measure {
    Iops,
    P50,
    Cpu,
}

/// Bar, store, load, the other side, measure.
type Judged = (&'static str, StoreName, &'static str, Side, Measure);

const JUDGED: [Judged; 14] = [
    ("null-read-32-iops", StoreName::Null, "read-32", Side::Qsd, Measure::Iops),
    ("null-read-32-cpu", StoreName::Null, "read-32", Side::Qsd, Measure::Cpu),
    ("null-read-1-p50", StoreName::Null, "read-1", Side::Qsd, Measure::P50),
    ("null-read-1-p50-asleep", StoreName::Null, "read-1", Side::QsdAsleep, Measure::P50),
    ("file-read-1-iops", StoreName::File, "read-1", Side::Qsd, Measure::Iops),
    ("file-write-1-iops", StoreName::File, "write-1", Side::Qsd, Measure::Iops),
    ("file-read-32-iops", StoreName::File, "read-32", Side::Qsd, Measure::Iops),
    ("file-write-32-iops", StoreName::File, "write-32", Side::Qsd, Measure::Iops),
    ("file-read-32-cpu", StoreName::File, "read-32", Side::Qsd, Measure::Cpu),
    ("file-write-32-cpu", StoreName::File, "write-32", Side::Qsd, Measure::Cpu),
    ("file-read-32-fio", StoreName::File, "read-32", Side::Fio, Measure::Iops),
    ("file-write-32-fio", StoreName::File, "write-32", Side::Fio, Measure::Iops),
    ("file-seq-read", StoreName::File, "seq-read", Side::Qsd, Measure::Iops),
    ("file-seq-write", StoreName::File, "seq-write", Side::Qsd, Measure::Iops),
];

/// What one side did under one load.
#[derive(Serialize)]
struct Figure {
    store: StoreName,
    load: &'static str,
    side: Side,
    iops: Summary,
    p50_us: Summary,
    p99_us: Summary,
    cpu_s_per_million: Summary,
    /// CPU seconds of other jobs in each second.
    others: Summary,
    runs: Vec<Outcome>,
}

/// Ours divided by another side, round by round.
#[derive(Serialize)]
struct Comparison {
    store: StoreName,
    load: &'static str,
    against: Side,
    iops: Summary,
    p50: Summary,
    cpu: Summary,
}

#[derive(Serialize)]
struct Figures {
    rounds: usize,
    seconds: f64,
    runs: Vec<Figure>,
    comparisons: Vec<Comparison>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut figures = Figures {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        runs: Vec::new(),
        comparisons: Vec::new(),
    };
    for &store in StoreName::value_variants() {
        if arguments.only.is_empty() || arguments.only.contains(&store) {
            measure_store(store, arguments, &mut figures)?;
        }
    }
    judge(figures)
}

fn measure_store(store: StoreName, arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => results_dir()?,
    };
    let image =
        (store == StoreName::File).then(|| file::Filled::make(&dir, arguments.size)).transpose()?;
    let servers = Servers::start(store, image.as_ref().map(|image| image.path()), arguments)?;
    for load in &LOADS {
        if !arguments.loads.is_empty() && !arguments.loads.iter().any(|name| name == load.name) {
            continue;
        }
        println!("\n{store:?} store, {}", load.title());
        let rounds = measure_load(&servers, load, arguments)?;
        let first = (figures.runs.len(), figures.comparisons.len());
        for (index, &side) in servers.sides().iter().enumerate() {
            let runs: Vec<Outcome> = rounds.iter().map(|round| round[index].clone()).collect();
            figures.runs.push(Figure::of(store, load.name, side, runs));
        }
        for (index, &against) in servers.sides().iter().enumerate().skip(1) {
            let pairs: Vec<(&Outcome, &Outcome)> =
                rounds.iter().map(|round| (&round[0], &round[index])).collect();
            figures.comparisons.push(Comparison::of(store, load.name, against, &pairs));
        }
        print(&figures.runs[first.0..], &figures.comparisons[first.1..]);
    }
    Ok(())
}

/// The servers of one store.
struct Servers {
    ours: Server,
    daemon: StorageDaemon,
    asleep: Option<StorageDaemon>,
    file: Option<PathBuf>,
    cpus: Vec<usize>,
}

impl Servers {
    fn start(store: StoreName, file: Option<&Path>, arguments: &Arguments) -> Result<Self> {
        let kind = match (store, file) {
            (StoreName::File, Some(path)) => Kind::File(path.to_path_buf()),
            (StoreName::Memory, _) => Kind::Memory,
            _ => Kind::Null,
        };
        let spec = ServerSpec {
            front: Front::VhostBlk,
            store: kind,
            size: arguments.size,
            devices: 1,
            queues: 1,
            cpus: vec![arguments.server_cpu],
            spin: arguments.spin,
        };
        let ours = Server::start(arguments.ours, &spec)?;
        if store == StoreName::Memory {
            // Memory that was never written is not there yet.
            let fill = LoadSpec { fill: true, ..LOADS[0].spec(arguments, None) };
            Client::connect(&ours.sockets(), &fill)?.finish()?;
        }
        let daemon = StorageDaemon::start(&spec, Idle::Poll, &Watcher::Nobody)?;
        let asleep = (store == StoreName::Null)
            .then(|| StorageDaemon::start(&spec, Idle::Sleep, &Watcher::Nobody))
            .transpose()?;
        Ok(Self { ours, daemon, asleep, file: file.map(Path::to_path_buf), cpus: spec.cpus })
    }

    /// Ours first.
    fn sides(&self) -> &'static [Side] {
        match (&self.file, &self.asleep) {
            (Some(_), _) => &[Side::Ours, Side::Qsd, Side::Fio],
            (None, Some(_)) => &[Side::Ours, Side::Qsd, Side::QsdAsleep],
            (None, None) => &[Side::Ours, Side::Qsd],
        }
    }

    fn measure(&self, side: Side, load: &Load, arguments: &Arguments) -> Result<Outcome> {
        let daemon = match (side, &self.file, &self.asleep) {
            (Side::Fio, Some(file), _) => {
                return fio::run(file, &load.spec(arguments, None), &self.cpus);
            }
            (Side::Ours, ..) => None,
            (Side::QsdAsleep, _, Some(asleep)) => Some(asleep),
            _ => Some(&self.daemon),
        };
        let (sockets, pid) = match daemon {
            None => (self.ours.sockets(), self.ours.pid()?),
            Some(daemon) => (vec![daemon.socket()], daemon.pid()?),
        };
        let mut client = Client::connect(&sockets, &load.spec(arguments, Some(pid)))?;
        let outcome = client.go()?;
        client.finish()?;
        Ok(outcome)
    }
}

/// For each round what every side did, in the order of the sides.
fn measure_load(
    servers: &Servers,
    load: &Load,
    arguments: &Arguments,
) -> Result<Vec<Vec<Outcome>>> {
    let sides = servers.sides();
    let mut rounds = Vec::new();
    for round in 0..arguments.rounds {
        let mut outcomes = vec![Outcome::default(); sides.len()];
        for turn in 0..sides.len() {
            let index = (round + turn) % sides.len();
            outcomes[index] = servers.measure(sides[index], load, arguments)?;
        }
        rounds.push(outcomes);
    }
    Ok(rounds)
}

impl Figure {
    fn of(store: StoreName, load: &'static str, side: Side, runs: Vec<Outcome>) -> Self {
        let of =
            |value: fn(&Outcome) -> f64| Summary::of(&runs.iter().map(value).collect::<Vec<f64>>());
        Self {
            store,
            load,
            side,
            iops: of(Outcome::iops),
            p50_us: of(|run| run.p50_us),
            p99_us: of(|run| run.p99_us),
            cpu_s_per_million: of(Outcome::cpu_per_million),
            others: of(|run| run.others_cpu_s / run.seconds),
            runs,
        }
    }
}

impl Comparison {
    fn of(
        store: StoreName,
        load: &'static str,
        against: Side,
        pairs: &[(&Outcome, &Outcome)],
    ) -> Self {
        let of = |value: fn(&Outcome) -> f64| {
            let ratios = pairs.iter().map(|(ours, other)| value(ours) / value(other));
            Summary::of(&ratios.collect::<Vec<f64>>())
        };
        Self {
            store,
            load,
            against,
            iops: of(Outcome::iops),
            p50: of(|run| run.p50_us),
            cpu: of(Outcome::cpu_per_million),
        }
    }

    fn measure(&self, measure: Measure) -> &Summary {
        match measure {
            Measure::Iops => &self.iops,
            Measure::P50 => &self.p50,
            Measure::Cpu => &self.cpu,
        }
    }
}

fn print(runs: &[Figure], comparisons: &[Comparison]) {
    let heads = ["", "IOPS", "p50 µs", "p99 µs", "CPU s/M (lowest)", "others' CPU"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for run in runs {
        let cpu = &run.cpu_s_per_million;
        lines.push(vec![
            run.side.name().to_owned(),
            short(run.iops.median),
            short(run.p50_us.median),
            short(run.p99_us.median),
            format!("{} ({})", short(cpu.median), short(cpu.lowest)),
            match run.side {
                Side::Fio => "-".to_owned(),
                _ => format!("{:.0} %", run.others.median * 100.0),
            },
        ]);
    }
    print!("{}", columns(&lines));
    for comparison in comparisons {
        let ratio = |summary: &Summary| {
            let Summary { median, lowest, highest, .. } = *summary;
            format!("{} ({} to {})", short(median), short(lowest), short(highest))
        };
        println!(
            "ours ÷ {}: IOPS {}, p50 {}, CPU {}",
            comparison.against.name(),
            ratio(&comparison.iops),
            ratio(&comparison.p50),
            ratio(&comparison.cpu)
        );
    }
}

fn judge(figures: Figures) -> Result<()> {
    let mut report = Report::new("vhost-blk", figures);
    for (bar, store, load, against, measure) in JUDGED {
        let figures = &report.figures;
        let found = figures.comparisons.iter().find(|comparison| {
            (comparison.store, comparison.load, comparison.against) == (store, load, against)
        });
        let Some(comparison) = found else { continue };
        let ratio = *comparison.measure(measure);
        let mut doubts = Vec::new();
        if ratio.spread() > SPREAD_MAX {
            let Summary { lowest, highest, .. } = ratio;
            doubts.push(format!("rounds from {} to {}", short(lowest), short(highest)));
        }
        let runs = figures.runs.iter().filter(|run| (run.store, run.load) == (store, load));
        let others = runs.map(|run| run.others.median).fold(0.0, f64::max);
        if others > OTHERS_MAX {
            doubts.push(format!("other jobs took {:.0} % of a CPU", others * 100.0));
        }
        report.judge(bar, ratio.median, doubts);
    }
    report.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Bar;

    #[test]
    fn what_is_judged_has_a_bar_and_a_load() {
        for (bar, _, load, ..) in JUDGED {
            assert_eq!(Bar::of_name(bar).name, bar);
            assert!(LOADS.iter().any(|known| known.name == load), "{load}");
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let run = |requests, server_cpu_s| Outcome {
            requests,
            seconds: 1.0,
            p50_us: 10.0,
            server_cpu_s,
            ..Outcome::default()
        };
        let (fast, slow) = (run(200, 2.0), run(100, 2.0));
        let pairs = [(&fast, &slow), (&slow, &slow), (&slow, &fast)];
        let comparison = Comparison::of(StoreName::Null, "read-1", Side::Qsd, &pairs);
        let iops = comparison.iops;
        assert_eq!((iops.lowest, iops.median, iops.highest), (0.5, 1.0, 2.0));
        assert_eq!(comparison.cpu.lowest, 0.5);
    }
}
