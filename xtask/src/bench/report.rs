//! The bars, and what a run says about them.
//!
//! A verb measures, prints its own table, and gives each measure that has a bar to its [`Report`],
//! which prints them together and writes a JSON file beside the build.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use crate::numbers::{columns, short};

/// Which side of the limit is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Better {
    AtMost,
    AtLeast,
}

/// One thing that must hold.
#[derive(Debug, Serialize)]
pub struct Bar {
    pub name: &'static str,
    pub measure: &'static str,
    pub better: Better,
    pub limit: f64,
}

const fn at_most(name: &'static str, limit: f64, measure: &'static str) -> Bar {
    Bar { name, measure, better: Better::AtMost, limit }
}

const fn at_least(name: &'static str, limit: f64, measure: &'static str) -> Bar {
    Bar { name, measure, better: Better::AtLeast, limit }
}

/// Every bar of every verb.
pub const BARS: [Bar; 46] = [
    at_most("executor-nop-32", 2.2, "io_uring NOP by a task, depth 32: × the bare loop"),
    at_most(
        "executor-at-once",
        45.0,
        "answered at once, by a task: ns where the bare NOP takes 90",
    ),
    at_most(
        "executor-begin",
        12.0,
        "answered at once, begin first: ns where the bare NOP takes 90",
    ),
    at_most("ring-batch-32", 0.25, "3 descriptors, batches of 32: × virtio-queue"),
    at_least("null-read-32-iops", 4.0, "null, 4 KiB read, depth 32: × the peer's IOPS"),
    at_most("null-read-32-cpu", 0.35, "null, 4 KiB read, depth 32: × the peer's CPU per I/O"),
    at_most("null-read-1-p50", 0.2, "null, 4 KiB read, depth 1: × the peer's p50 latency"),
    at_most("null-read-1-p50-asleep", 0.2, "the same, of a peer whose I/O thread does not poll"),
    at_least("file-read-1-iops", 1.4, "file, 4 KiB read, depth 1: × the peer's IOPS"),
    at_least("file-write-1-iops", 1.4, "file, 4 KiB write, depth 1: × the peer's IOPS"),
    at_least("file-read-32-iops", 1.0, "file, 4 KiB read, depth 32: × the peer's IOPS"),
    at_least("file-write-32-iops", 1.0, "file, 4 KiB write, depth 32: × the peer's IOPS"),
    at_most("file-read-32-cpu", 0.7, "file, 4 KiB read, depth 32: × the peer's CPU per I/O"),
    at_most("file-write-32-cpu", 0.7, "file, 4 KiB write, depth 32: × the peer's CPU per I/O"),
    at_least("file-read-32-fio", 0.95, "file, 4 KiB read, depth 32: × fio's IOPS"),
    at_least("file-write-32-fio", 0.95, "file, 4 KiB write, depth 32: × fio's IOPS"),
    at_least("file-seq-read", 0.95, "file, 128 KiB sequential read: × the peer's IOPS"),
    at_least("file-seq-write", 0.95, "file, 128 KiB sequential write: × the peer's IOPS"),
    at_most("scaling-spread", 0.2, "queues and devices: busiest core above the least busy one"),
    at_most("scaling-iscsi-spread", 0.2, "iSCSI sessions: busiest core above the least busy one"),
    at_most("scaling-messages", 0.0, "messages between cores under load"),
    at_most("scaling-instructions", 1.05, "instructions per request on two cores: × one core"),
    at_most("idle-cpu", 0.0, "idle devices: run time of the cores, ns"),
    at_most("idle-memory", 64.0, "idle devices: private memory of each above the first, KiB"),
    at_most("allocations", 0.0, "allocations in steady state, the worst load"),
    at_least("pool-read", 0.95, "pool, 4 KiB random read, depth 32: × the file's IOPS"),
    at_least("pool-write", 0.95, "pool, 4 KiB random write, depth 32: × the file's IOPS"),
    at_least("pool-first", 0.6, "pool, first writes over 1 TiB: × the file's IOPS"),
    at_least("pool-after-snapshot", 0.6, "pool, first writes after a snapshot: × the file's IOPS"),
    at_least("pool-sums-flushed", 0.8, "pool, hot set, a flush after 32: × without checksums"),
    at_least("pool-first-flushed", 0.5, "pool, first writes, a flush after 32: × the file's IOPS"),
    at_most("pool-memory-all", 48.0, "memory for the map of 1 TiB, all written: MiB"),
    at_most("pool-memory-half", 48.0, "memory for the map of 1 TiB, half written: MiB"),
    at_most("pool-memory-snapshots", 48.0, "memory for the maps of 1 TiB, 10 snapshots: MiB"),
    at_most("pool-snapshot", 50.0, "a snapshot of an LU of 1 TiB under load: ms"),
    at_most("pool-snapshot-requests", 100.0, "the slowest request meanwhile: ms"),
    at_most("pool-many-first", 0.5, "10,000 LUs after a kill, the first one is read: seconds"),
    at_most("pool-many-all", 10.0, "10,000 LUs after a kill, all are read: seconds"),
    at_least("iscsi-perf-32-iops", 2.5, "iscsi-perf, 4 KiB read, depth 32: × tgt's IOPS"),
    at_most("iscsi-perf-32-cpu", 0.35, "iscsi-perf, 4 KiB read, depth 32: × tgt's CPU per I/O"),
    at_least("iscsi-perf-1-iops", 2.0, "iscsi-perf, 4 KiB read, depth 1: × tgt's IOPS"),
    at_most("iscsi-perf-1-cpu", 0.6, "iscsi-perf, 4 KiB read, depth 1: × tgt's CPU per I/O"),
    at_most("iscsi-fair-p99", 0.5, "iSCSI, depth 1 beside seven busy sessions: × tgt's p99"),
    at_least("iscsi-digests", 0.85, "iSCSI, header and data digests: × the IOPS without"),
    at_most("iscsi-idle-cpu", 1.0, "idle iSCSI sessions: CPU of the server, per cent"),
    at_most("iscsi-idle-memory", 100.0, "idle iSCSI sessions: private memory of the server, MiB"),
];

impl Bar {
    pub fn of_name(name: &str) -> &'static Self {
        BARS.iter().find(|bar| bar.name == name).expect("verbs name bars of the table")
    }

    pub fn is_met(&self, value: f64) -> bool {
        match self.better {
            Better::AtMost => value <= self.limit,
            Better::AtLeast => value >= self.limit,
        }
    }

    /// The limit as one writes it.
    pub fn limit_text(&self) -> String {
        let sign = match self.better {
            Better::AtMost => "≤",
            Better::AtLeast => "≥",
        };
        format!("{sign} {}", short(self.limit))
    }
}

/// A measure held against its bar.
#[derive(Debug, Serialize)]
pub struct Verdict {
    #[serde(flatten)]
    pub bar: &'static Bar,
    pub value: f64,
    pub is_met: bool,
    /// What makes this value doubtful.
    pub doubts: Vec<String>,
}

/// What one verb has found.
#[derive(Debug, Serialize)]
pub struct Report<T> {
    pub name: &'static str,
    pub figures: T,
    pub verdicts: Vec<Verdict>,
}

impl<T: Serialize> Report<T> {
    pub fn new(name: &'static str, figures: T) -> Self {
        Self { name, figures, verdicts: Vec::new() }
    }

    pub fn judge(&mut self, bar: &str, value: f64, doubts: Vec<String>) {
        let bar = Bar::of_name(bar);
        self.verdicts.push(Verdict { bar, value, is_met: bar.is_met(value), doubts });
    }

    /// Prints the verdicts and writes everything down.
    pub fn finish(&self) -> Result<()> {
        let mut lines = Vec::new();
        for Verdict { bar, value, is_met, .. } in &self.verdicts {
            let verdict = if *is_met { "met" } else { "MISSED" };
            let (measure, limit) = (bar.measure.to_owned(), bar.limit_text());
            lines.push(vec![measure, short(*value), limit, verdict.to_owned()]);
        }
        println!("\n{}", columns(&lines));
        for Verdict { bar, doubts, .. } in &self.verdicts {
            for doubt in doubts {
                println!("doubtful: {}: {doubt}", bar.name);
            }
        }
        let path = result_file(self.name)?;
        std::fs::write(&path, serde_json::to_string_pretty(self)?)?;
        println!("written to {}", path.display());
        Ok(())
    }
}

/// Where results lie: in the build directory, found from this program's own place in it.
pub fn results_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn result_file(name: &str) -> Result<PathBuf> {
    Ok(results_dir()?.join(format!("{name}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_own_name() {
        for (index, bar) in BARS.iter().enumerate() {
            assert!(BARS[..index].iter().all(|other| other.name != bar.name), "{}", bar.name);
            assert!(bar.is_met(bar.limit));
        }
    }

    #[test]
    fn limits_have_a_good_side() {
        let most = at_most("a", 2.0, "");
        let least = at_least("b", 2.0, "");
        assert!(most.is_met(1.0) && !most.is_met(2.1));
        assert!(least.is_met(2.1) && !least.is_met(1.9));
        assert_eq!((most.limit_text(), least.limit_text()), ("≤ 2.00".into(), "≥ 2.00".into()));
    }
}
