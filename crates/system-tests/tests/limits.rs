//! Limits of LUs in the real binary, measured by what a loaded initiator is given.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use system_tests::cache::Cache;
use system_tests::debian::Tree;
use system_tests::iscsi::{node, target_of};
use system_tests::{Context, Node, Result};

const CLIENT: &str = "iqn.2026-11.org.viaduct.test:load";
const STRETCH: Duration = Duration::from_secs(4);
const STRETCHES_MAX: usize = 5;
/// How far from its limit a full queue may be.
const TOLERANCE: f64 = 0.03;
/// Until a change is in force for what already waits, and a queue is full again.
const SETTLING: Duration = Duration::from_millis(500);

/// Reads of 4 KiB, so many at a time, until it is dropped.
struct Load(Child);

impl Load {
    fn start(tree: &Tree, url: &str, depth: u32) -> Result<Self> {
        let depth = depth.to_string();
        let mut command = tree.command("iscsi-perf")?;
        command.args(["-i", CLIENT, "-m", &depth, "-b", "8", "-r", url]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(child.spawn()?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended with its session.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn sample(node: &Node, name: &str) -> Result<f64> {
    let metrics = node.metrics()?;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum())
}

/// What the LU is given in a second.
fn rate(node: &Node, name: &str) -> Result<f64> {
    thread::sleep(SETTLING);
    let (before, begin) = (sample(node, name)?, Instant::now());
    thread::sleep(STRETCH);
    let (after, end) = (sample(node, name)?, Instant::now());
    Ok((after - before) / (end - begin).as_secs_f64())
}

/// No stretch is given more than the limit, and one of several is given all of it: a machine that
/// has no time for server or client for longer than the burst keeps from them what is theirs.
fn is_given(node: &Node, name: &str, limit: f64) -> Result<()> {
    let mut rates = Vec::new();
    for _ in 0..STRETCHES_MAX {
        let rate = rate(node, name)?;
        rates.push(rate.round());
        assert!(rate <= limit * (1.0 + TOLERANCE), "{rates:?} a second, and the limit is {limit}");
        if rate >= limit * (1.0 - TOLERANCE) {
            return Ok(());
        }
    }
    panic!("{rates:?} a second, and the limit is {limit}");
}

#[test]
fn a_loaded_lu_is_given_its_limit_and_others_are_not_held() -> Result<()> {
    let tree = Tree::fetch(&Cache::open()?, "libiscsi", &["libiscsi-bin"], None)?;
    let dir = tempfile::tempdir()?;
    let (mut node, portal) = node(&dir.path().join("node"), 0)?;
    let create = ["lu", "create", "disk", "--size", "64M", "--backing", "memory"];
    let made = node.cli(&[&create[..], &["--iops", "500", "--burst", "50ms"]].concat())?;
    assert_eq!(made["limits"]["iops"], 500, "{made}");
    node.cli(&["client", "create", "load", "--iqn", CLIENT])?;
    node.cli(&["map", "disk", "--to", "load", "--via", "iscsi"])?;
    let url = format!("iscsi://{portal}/{}/0", target_of(&node, "load")?);
    let load = Load::start(&tree, &url, 32)?;
    let requests = "viaduct_lu_requests_total{lu=\"disk\",op=\"read\"}";
    let bytes = "viaduct_lu_bytes_total{lu=\"disk\",op=\"read\"}";
    is_given(&node, requests, 500.0)?;

    // While it is in use, and requests wait.
    node.cli(&["lu", "set", "disk", "--iops", "3000"])?;
    is_given(&node, requests, 3000.0)?;
    node.cli(&["lu", "set", "disk", "--iops", "off", "--bandwidth", "5M"])?;
    is_given(&node, bytes, 5.0 * 1024.0 * 1024.0)?;
    let shown = node.command(&["lu", "show", "disk"])?.output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("5MiB/s, burst 50 ms"), "{shown}");
    let held = sample(&node, "viaduct_lu_held_total{lu=\"disk\"}")?;
    let time = sample(&node, "viaduct_lu_held_seconds_total{lu=\"disk\"}")?;
    assert!(held > 5000.0 && time > 60.0, "{held} held for {time} s");
    node.cli(&["lu", "set", "disk", "--bandwidth", "off", "--burst", "default"])?;
    let free = rate(&node, requests)?;
    assert!(free > 5000.0, "{free} a second without a limit");

    // Who must end what is in flight does not wait for a limit: 32 requests at 10 a second.
    node.cli(&["lu", "set", "disk", "--iops", "10"])?;
    thread::sleep(SETTLING);
    let begin = Instant::now();
    node.cli(&["unmap", "disk", "--from", "load", "--force"])?;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(load);
    let (code, said) = node.cli_fails(&["lu", "set", "disk", "--iops", "5"])?;
    assert!(code == 2 && said.contains("between 10 and"), "{code}: {said}");
    let status = node.stop()?;
    status.success().then_some(()).context(|| format!("{status}"))
}
