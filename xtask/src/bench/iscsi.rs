//! iSCSI: the product against tgt, over loopback.
//!
//! | what | initiator | how |
//! |---|---|---|
//! | IOPS, CPU per I/O | `iscsi-perf` | one connection, 4 KiB random reads, rounds in turn |
//! | fairness | our own | p99 of a session of depth 1 beside seven that keep 32 |
//! | digests | our own | IOPS with header and data digests against without |
//! | idle | our own | CPU time and memory of the server with a thousand sessions |
//!
//! Ours is the release binary with an LU in memory; tgt serves a file on a tmpfs. They run in turn,
//! and whoever is not measured only sleeps. What counts is the median of the rounds' ratios.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::client::Outcome;
use crate::iscsi_client;
use crate::iscsi_servers::{INITIATOR, Portal, Server, Tgt};
use crate::numbers::{Summary, columns, short};
use crate::program::Program;
use crate::report::Report;
use crate::servers::{LoadSpec, Ours};
use crate::{Result, cpu, procfs};

const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// What logins set off has come to its end by then.
const SETTLE: Duration = Duration::from_secs(2);
/// Busy sessions beside a quiet one, and commands that each keeps under way.
const BUSY_SESSIONS: u16 = 7;
const BUSY_DEPTH: usize = 32;
const BLOCK: usize = 4096;
const WARM_UP_S: f64 = 0.3;

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Cores of the server when there are several sessions
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    #[arg(long, value_enum, default_value_t = Ours::Product)]
    ours: Ours,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    #[arg(long, default_value_t = 1000)]
    idle_sessions: u16,
    /// What to measure; all of it unless told
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Perf,
    Fair,
    Digests,
    Idle,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Measure {
    iops: f64,
    cpu_us: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    rows: Vec<Row>,
    idle: Option<Idle>,
}

/// CPU time in per cent of one CPU, and private memory, of a server whose sessions do nothing.
#[derive(Clone, Copy, Debug, Serialize)]
struct Idle {
    cpu_percent: f64,
    memory_mib: f64,
}

/// Both sides of one comparison, and the ratio of each round.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    bar: Option<&'static str>,
    ours: Summary,
    theirs: Summary,
    ratio: Summary,
}

impl Row {
    fn of(name: &'static str, bar: Option<&'static str>, rounds: &[(f64, f64)]) -> Self {
        let side = |of: fn(&(f64, f64)) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
        Self {
            name,
            bar,
            ours: Summary::of(&side(|round| round.0)),
            theirs: Summary::of(&side(|round| round.1)),
            ratio: Summary::of(&side(|round| round.0 / round.1)),
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut rows = Vec::new();
    let parts: [(Part, Measuring); 3] =
        [(Part::Perf, perf), (Part::Fair, fairness), (Part::Digests, digests)];
    for (_, measure) in parts.into_iter().filter(|(part, _)| arguments.wants(*part)) {
        rows.append(&mut measure(arguments)?);
    }
    let idle = arguments.wants(Part::Idle).then(|| idle(arguments)).transpose()?;
    let mut report = Report::new("iscsi", Figures { rows, idle });
    print(&report.figures);
    let judged = |row: &Row| row.bar.map(|bar| (bar, row.ratio));
    let ratios: Vec<_> = report.figures.rows.iter().filter_map(judged).collect();
    for (bar, ratio) in ratios {
        report.judge(bar, ratio.median, doubts(&ratio));
    }
    if let Some(idle) = idle {
        report.judge("iscsi-idle-cpu", idle.cpu_percent, Vec::new());
        report.judge("iscsi-idle-memory", idle.memory_mib, Vec::new());
    }
    report.finish()
}

type Measuring = fn(&Arguments) -> Result<Vec<Row>>;

/// Rounds that differ much say that something else was at work.
fn doubts(ratio: &Summary) -> Vec<String> {
    const SPREAD_MAX: f64 = 0.3;
    let is_wide = ratio.spread() > SPREAD_MAX;
    let text = || format!("the rounds lie {} % apart", short(ratio.spread() * 100.0));
    is_wide.then(text).into_iter().collect()
}

fn print(figures: &Figures) {
    let heads = ["", "ours", "theirs", "ratio", "lowest", "highest"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for row in &figures.rows {
        let numbers = [row.ours.median, row.theirs.median, row.ratio.median];
        let ends = [row.ratio.lowest, row.ratio.highest];
        let cells = numbers.into_iter().chain(ends).map(short);
        lines.push([row.name.to_owned()].into_iter().chain(cells).collect());
    }
    print!("{}", columns(&lines));
}

/// `iscsi-perf` on one core, depth 32 and depth 1.
fn perf(arguments: &Arguments) -> Result<Vec<Row>> {
    let ours = Server::start(arguments.ours, &[arguments.server_cpu])?;
    let tgt = Tgt::start(&[arguments.server_cpu])?;
    let mut rows = Vec::new();
    for (depth, iops, cpu) in [
        (32, "iscsi-perf-32-iops", "iscsi-perf-32-cpu"),
        (1, "iscsi-perf-1-iops", "iscsi-perf-1-cpu"),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            let first = iscsi_perf(&ours.portal, depth, arguments)?;
            rounds.push((first, iscsi_perf(&tgt.portal, depth, arguments)?));
        }
        let of = |value: fn(&Measure) -> f64| -> Vec<(f64, f64)> {
            rounds.iter().map(|(ours, theirs)| (value(ours), value(theirs))).collect()
        };
        let names = match depth {
            1 => ("iscsi-perf, depth 1: IOPS", "iscsi-perf, depth 1: CPU us per I/O"),
            _ => ("iscsi-perf, depth 32: IOPS", "iscsi-perf, depth 32: CPU us per I/O"),
        };
        rows.push(Row::of(names.0, Some(iops), &of(|it| it.iops)));
        rows.push(Row::of(names.1, Some(cpu), &of(|it| it.cpu_us)));
    }
    Ok(rows)
}

fn iscsi_perf(portal: &Portal, depth: usize, arguments: &Arguments) -> Result<Measure> {
    let mut command = Command::new("iscsi-perf");
    let url = format!("iscsi://{}/{}/{}", portal.address, portal.target, portal.lun);
    command.args(["-t", &arguments.seconds.to_string(), "-b", "8", "-r", "-i", INITIATOR]);
    command.args(["-m", &depth.to_string(), &url]);
    let before = procfs::cpu_ns(portal.pid)?;
    let output = cpu::with(&[arguments.client_cpu], || Ok(command.output()?))?;
    let cpu_ns = procfs::cpu_ns(portal.pid)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let iops = average(&text).ok_or_else(|| format!("iscsi-perf said {text:?}"))?;
    let cpu_us = cpu_ns as f64 / 1e3 / (iops * arguments.seconds as f64);
    Ok(Measure { iops, cpu_us })
}

/// The last average that `iscsi-perf` has printed.
fn average(text: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once("iops average ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// What a quiet session feels of busy ones, and what those get done meanwhile.
///
/// The server has one CPU and the initiators the other one, for tgt is one thread. A server on both
/// shares one with the initiators, and then mostly their scheduling is measured: shown, not judged.
fn fairness(arguments: &Arguments) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let one = [arguments.server_cpu];
    for (cpus, quiet, bar, busy) in [
        (&one[..], "depth 1 beside 7 of 32: p99 us", Some("iscsi-fair-p99"), "the 7: IOPS"),
        (&arguments.cores, "the same, server on all CPUs: p99 us", None, "the 7: IOPS"),
    ] {
        let ours = Server::start(arguments.ours, cpus)?;
        let tgt = Tgt::start(cpus)?;
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            rounds.push((beside(&ours.portal, arguments)?, beside(&tgt.portal, arguments)?));
        }
        let of = |value: fn(&Beside) -> f64| -> Vec<(f64, f64)> {
            rounds.iter().map(|(ours, theirs)| (value(ours), value(theirs))).collect()
        };
        rows.push(Row::of(quiet, bar, &of(|it| it.quiet.p99_us)));
        rows.push(Row::of("its median us", None, &of(|it| it.quiet.p50_us)));
        rows.push(Row::of(busy, None, &of(|it| it.busy.iops())));
    }
    Ok(rows)
}

struct Beside {
    quiet: Outcome,
    busy: Outcome,
}

fn beside(portal: &Portal, arguments: &Arguments) -> Result<Beside> {
    let one = Load::new(arguments);
    // So that they are still at it when the quiet one ends.
    let longer = one.seconds * 1.1;
    let many = Load { sessions: BUSY_SESSIONS, depth: BUSY_DEPTH, seconds: longer, ..one };
    let quiet = Load { is_urgent: true, ..one };
    let mut many = many.connect(portal, arguments)?;
    let mut quiet = quiet.connect(portal, arguments)?;
    many.tell("go")?;
    let felt = quiet.ask("go", ANSWER_LIMIT)?;
    let busy = many.answer(ANSWER_LIMIT)?;
    quiet.finish(ANSWER_LIMIT)?;
    many.finish(ANSWER_LIMIT)?;
    Ok(Beside { quiet: felt, busy })
}

fn digests(arguments: &Arguments) -> Result<Vec<Row>> {
    let ours = Server::start(arguments.ours, &[arguments.server_cpu])?;
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        let load = |digests| Load { depth: 32, digests, ..Load::new(arguments) };
        let with = load(true).run(&ours.portal, arguments)?.iops();
        rounds.push((with, load(false).run(&ours.portal, arguments)?.iops()));
    }
    Ok(vec![Row::of("digests on and off: IOPS", Some("iscsi-digests"), &rounds)])
}

/// Many sessions without I/O.
fn idle(arguments: &Arguments) -> Result<Idle> {
    let ours = Server::start(arguments.ours, &arguments.cores)?;
    let load = Load { sessions: arguments.idle_sessions, depth: 0, ..Load::new(arguments) };
    let _client = load.connect(&ours.portal, arguments)?;
    thread::sleep(SETTLE);
    let (began, before) = (Instant::now(), procfs::cpu_ns(ours.portal.pid)?);
    // Long enough for the pings that keep sessions alive.
    thread::sleep(Duration::from_secs(30));
    let used = procfs::cpu_ns(ours.portal.pid)? - before;
    let cpu_percent = used as f64 / began.elapsed().as_nanos() as f64 * 100.0;
    let memory_mib = procfs::rss_anon_bytes(ours.portal.pid)? as f64 / f64::from(1 << 20);
    println!("{} idle sessions: {cpu_percent:.2} % CPU, {memory_mib:.1} MiB", load.sessions);
    Ok(Idle { cpu_percent, memory_mib })
}

/// What our own initiators do.
#[derive(Clone, Copy)]
struct Load {
    sessions: u16,
    depth: usize,
    digests: bool,
    seconds: f64,
    /// Before everything else on its CPU.
    is_urgent: bool,
}

impl Load {
    fn new(arguments: &Arguments) -> Self {
        let seconds = arguments.seconds as f64;
        Self { sessions: 1, depth: 1, digests: false, seconds, is_urgent: false }
    }

    fn connect(self, portal: &Portal, arguments: &Arguments) -> Result<Program> {
        let spec = LoadSpec {
            block: BLOCK,
            depth: self.depth,
            queues: self.sessions,
            seconds: self.seconds,
            warmup: WARM_UP_S,
            cpus: vec![arguments.client_cpu],
            ..LoadSpec::default()
        };
        let mut command = iscsi_client::command(portal, &spec)?;
        if self.digests {
            command.arg("--digests");
        }
        let mut program = Program::start(if self.is_urgent { urgent(&command) } else { command })?;
        program.expect("ready", ANSWER_LIMIT)?;
        Ok(program)
    }

    fn run(self, portal: &Portal, arguments: &Arguments) -> Result<Outcome> {
        let mut program = self.connect(portal, arguments)?;
        let outcome = program.ask("go", ANSWER_LIMIT)?;
        program.finish(ANSWER_LIMIT)?;
        Ok(outcome)
    }
}

/// The same before everything else on its CPU.
fn urgent(command: &Command) -> Command {
    let mut before = Command::new("chrt");
    before.args(["--fifo", "1"]).arg(command.get_program()).args(command.get_args());
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_read_off() {
        let text = "iops average 100 (1 MB/s)\riops average 46123 (180 MB/s)   \nfinished.\n";
        assert_eq!(average(text), Some(46123.0));
        assert_eq!(average("failed to connect"), None);
    }
}
