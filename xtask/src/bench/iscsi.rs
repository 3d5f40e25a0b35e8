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

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use system_tests::Node;
use tempfile::TempDir;

use crate::iscsi_client::Outcome;
use crate::numbers::{Summary, columns, short};
use crate::program::Program;
use crate::report::Report;
use crate::{Result, cpu, procfs};

const DEVICE_BYTES: u64 = 256 << 20;
/// The name that `iscsi-perf` is told to use, and that our own initiator uses.
const INITIATOR: &str = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-perf";
const TGT_TARGET: &str = "iqn.2026-11.org.viaduct.bench:tgt";
/// tgtd's control port: a test machine may run one of its own.
const TGT_CONTROL: &str = "173";
const START_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What logins set off has come to its end by then.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Cores of the server when there are several sessions
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    #[arg(long, default_value_t = 1000)]
    idle_sessions: u16,
}

/// Something that serves one LU.
struct Portal {
    address: SocketAddr,
    target: String,
    lun: u16,
    pid: u32,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Measure {
    iops: f64,
    cpu_us: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    rows: Vec<Row>,
    idle_cpu_percent: f64,
    idle_memory_mib: f64,
}

/// Both sides of one comparison, and the ratio of each round.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    bar: &'static str,
    ours: Summary,
    theirs: Summary,
    ratio: Summary,
}

impl Row {
    fn of(name: &'static str, bar: &'static str, rounds: &[(f64, f64)]) -> Self {
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
    let mut rows = perf(arguments)?;
    rows.push(fairness(arguments)?);
    rows.push(digests(arguments)?);
    let (idle_cpu_percent, idle_memory_mib) = idle(arguments)?;
    let figures = Figures { rows, idle_cpu_percent, idle_memory_mib };
    let mut report = Report::new("iscsi", figures);
    print(&report.figures);
    let ratios: Vec<_> = report.figures.rows.iter().map(|row| (row.bar, row.ratio)).collect();
    for (bar, ratio) in ratios {
        report.judge(bar, ratio.median, doubts(&ratio));
    }
    report.judge("iscsi-idle-cpu", idle_cpu_percent, Vec::new());
    report.judge("iscsi-idle-memory", idle_memory_mib, Vec::new());
    report.finish()
}

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
    let ours = Product::start(&[arguments.server_cpu])?;
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
        rows.push(Row::of(names.0, iops, &of(|it| it.iops)));
        rows.push(Row::of(names.1, cpu, &of(|it| it.cpu_us)));
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

/// What a session of depth 1 feels of seven busy ones.
fn fairness(arguments: &Arguments) -> Result<Row> {
    let ours = Product::start(&arguments.cores)?;
    let tgt = Tgt::start(&arguments.cores)?;
    let load = Load { sessions: 7, depth: 32, probe: true, digests: false };
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        let first = load.run(&ours.portal, arguments)?.p99_us;
        rounds.push((first, load.run(&tgt.portal, arguments)?.p99_us));
    }
    Ok(Row::of("depth 1 beside seven of 32: p99 us", "iscsi-fair-p99", &rounds))
}

fn digests(arguments: &Arguments) -> Result<Row> {
    let ours = Product::start(&[arguments.server_cpu])?;
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        let load = |digests| Load { sessions: 1, depth: 32, probe: false, digests };
        let with = load(true).run(&ours.portal, arguments)?.iops();
        rounds.push((with, load(false).run(&ours.portal, arguments)?.iops()));
    }
    Ok(Row::of("digests on and off: IOPS", "iscsi-digests", &rounds))
}

/// CPU time in per cent of one CPU, and private memory in MiB, of many sessions without I/O.
fn idle(arguments: &Arguments) -> Result<(f64, f64)> {
    let ours = Product::start(&arguments.cores)?;
    let load = Load { sessions: arguments.idle_sessions, depth: 0, probe: false, digests: false };
    let _client = load.connect(&ours.portal, arguments)?;
    thread::sleep(SETTLE);
    let (began, before) = (Instant::now(), procfs::cpu_ns(ours.portal.pid)?);
    // Long enough for the pings that keep sessions alive.
    thread::sleep(Duration::from_secs(30));
    let used = procfs::cpu_ns(ours.portal.pid)? - before;
    let percent = used as f64 / began.elapsed().as_nanos() as f64 * 100.0;
    let memory = procfs::rss_anon_bytes(ours.portal.pid)? as f64 / f64::from(1 << 20);
    println!("{} idle sessions: {percent:.2} % CPU, {memory:.1} MiB", arguments.idle_sessions);
    Ok((percent, memory))
}

/// What our own initiators do.
#[derive(Clone, Copy)]
struct Load {
    sessions: u16,
    depth: u16,
    probe: bool,
    digests: bool,
}

impl Load {
    fn connect(self, portal: &Portal, arguments: &Arguments) -> Result<Program> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["iscsi-client", "--address", &portal.address.to_string()]);
        command.args(["--target", &portal.target, "--initiator", INITIATOR]);
        command.args(["--lun", &portal.lun.to_string(), "--size", &DEVICE_BYTES.to_string()]);
        command.args(["--sessions", &self.sessions.to_string()]);
        command.args(["--depth", &self.depth.to_string()]);
        command.args(["--seconds", &arguments.seconds.to_string()]);
        command.args(["--cpu", &arguments.client_cpu.to_string()]);
        command.args(["--server", &portal.pid.to_string()]);
        for (flag, given) in [("--probe", self.probe), ("--digests", self.digests)] {
            if given {
                command.arg(flag);
            }
        }
        let mut program = Program::start(command)?;
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

/// The product as its user starts it, with an LU in memory.
struct Product {
    portal: Portal,
    _node: Node,
    _dir: TempDir,
}

impl Product {
    fn start(cpus: &[usize]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let cores = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let builder = Node::on(&dir.path().join("data"));
        let builder = builder.arguments(&["--cores", &cores, "--iscsi", "127.0.0.1:0"]);
        let node = cpu::with(cpus, || Ok(builder.start()?))?;
        let size = DEVICE_BYTES.to_string();
        node.cli(&["lu", "create", "disk", "--size", &size, "--backing", "memory"])?;
        node.cli(&["client", "create", "bench", "--iqn", INITIATOR])?;
        node.cli(&["map", "disk", "--to", "bench", "--via", "iscsi"])?;
        let status = node.cli(&["status"])?;
        let portal = status["iscsi"][0].as_str().ok_or("the node shows no portal")?;
        let shown = node.cli(&["client", "show", "bench"])?;
        let target = text_of(&shown, "target").ok_or("the client has no target")?.to_owned();
        let portal = Portal { address: portal.parse()?, target, lun: 0, pid: node.pid()? };
        Ok(Self { portal, _node: node, _dir: dir })
    }
}

/// The first text under this key, however deep.
fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    match value {
        Value::Object(map) => {
            let here = map.get(key).and_then(Value::as_str);
            here.or_else(|| map.values().find_map(|it| text_of(it, key)))
        }
        Value::Array(list) => list.iter().find_map(|it| text_of(it, key)),
        _ => None,
    }
}

/// The peer: tgtd with a file on a tmpfs.
struct Tgt {
    portal: Portal,
    child: Child,
    image: PathBuf,
}

impl Tgt {
    fn start(cpus: &[usize]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let image = PathBuf::from(format!("/dev/shm/viaduct-bench-{}", std::process::id()));
        std::fs::File::create(&image)?.set_len(DEVICE_BYTES)?;
        let mut command = Command::new("tgtd");
        command.args(["-f", "-C", TGT_CONTROL, "--iscsi", &format!("portal={address}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = cpu::with(cpus, || Ok(command.spawn()?))?;
        let portal = Portal { address, target: TGT_TARGET.to_owned(), lun: 1, pid: child.id() };
        let tgt = Self { portal, child, image };
        tgt.set_up()?;
        Ok(tgt)
    }

    fn set_up(&self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.portal.address).is_err() {
            if Instant::now() > deadline {
                return Err("tgtd does not listen".into());
            }
            thread::sleep(LOOK_AGAIN);
        }
        let image = self.image.to_str().ok_or("a path that is not text")?;
        admin(&["--op", "new", "--mode", "target", "--tid", "1", "-T", TGT_TARGET])?;
        let unit = ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1"];
        admin(&[&unit[..], &["-b", image]].concat())?;
        admin(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"])
    }
}

fn admin(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("tgtadm");
    command.args(["-C", TGT_CONTROL, "--lld", "iscsi"]).args(arguments);
    let output = command.output().map_err(|error| format!("tgtadm: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("tgtadm {arguments:?}: {errors}").into())
        }
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // tgtd does not end as long as it has targets. All of it fails only when it is gone.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.image));
    }
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
