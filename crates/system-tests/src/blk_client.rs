//! What `blk-client` tells: the vhost-user-blk client for guests in which the server itself runs.
//!
//! There, a block device can be made to apply requests seconds late, which shows what becomes of
//! requests that a killed server has left in the kernel. The program (`src/bin/blk_client`) does
//! and measures everything inside the guest, by one clock, and prints a line of JSON for each
//! thing that it did; the test asserts on these.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::image::own_program;
use crate::node::binary;
use crate::{Context, Error, Node, Result};

/// Longest time in which a client must go on once the dead server's requests have ended.
const STALL_MAX_MS: u64 = 1000;

/// One use of a disk: blocks written, read back, and found as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The disk's size.
    pub blocks: u64,
    pub writes: u64,
    pub reads: u64,
    /// What was not as it should be.
    pub violations: Vec<String>,
}

/// One server killed with requests in the kernel, and what its successor did. Times are counted in
/// milliseconds from the moment at which the killed process was reaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Requests of the dead process that the device carried out after its death.
    pub late_requests: u64,
    /// How long the killed process took to be reaped.
    pub reaped_in_ms: u64,
    /// Another disk of the successor had answered.
    pub neighbour_ms: u64,
    /// The successor took the client's connection and knows its rings.
    pub attached_ms: u64,
    /// The store began to carry out what it had held back.
    pub released_ms: u64,
    /// The last request of the dead process had ended.
    pub ended_ms: u64,
    pub first_answer_ms: u64,
    pub last_answer_ms: u64,
    /// What was not as it should be.
    pub violations: Vec<String>,
}

/// Servers that were killed under a load, and what the load was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churned {
    pub kills: u64,
    pub writes: u64,
    pub reads: u64,
    /// Blocks that were discarded or zeroed.
    pub erased: u64,
    pub flushes: u64,
    /// Snapshots of a disk that were read by a clone.
    pub snapshots: u64,
    /// Disks that have left their pool.
    pub left: u64,
    /// Failure groups that had missed something, and had everything again.
    pub caught_up: u64,
    /// What was not as it should be.
    pub violations: Vec<String>,
}

impl Round {
    /// How long the client waited although the dead process had nothing left in the kernel.
    pub fn stall_ms(&self) -> u64 {
        self.last_answer_ms.saturating_sub(self.ended_ms)
    }

    /// How long it may: a second, or as long as a server takes to start where that is longer, on a
    /// machine that is busy with other things.
    pub fn stall_max_ms(&self) -> u64 {
        STALL_MAX_MS.max(self.neighbour_ms)
    }
}

/// A load on what is behind these sockets of a node that does not run, over which its servers are
/// killed so often.
pub fn churn(node: &Node, sockets: &[PathBuf], rounds: u32, options: &[String]) -> Result<Command> {
    let mut command = Command::new(own_program("blk-client")?);
    command.arg("churn").args(sockets).args(["--rounds", &rounds.to_string()]);
    command.args(["--pool", "fast"]).args(options).arg("--log").arg(node.log());
    command.arg("--").arg(binary()?).args(["up", "--http", "off", "--iscsi", "off"]);
    command.env("VIADUCT_DATA", node.data()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// What has come of that: nothing is wrong. What the servers said last explains a failure.
pub fn churned(node: &Node, output: &Output) -> Result<Churned> {
    if !output.status.success() {
        return Err(node.with_log(&String::from_utf8_lossy(&output.stderr)));
    }
    let churned: Vec<Churned> = parse(&String::from_utf8_lossy(&output.stdout))?;
    println!("{churned:?}");
    match churned.into_iter().next() {
        Some(told) if told.writes > 0 && told.violations.is_empty() => Ok(told),
        told => Err(node.with_log(&format!("{told:?}"))),
    }
}

/// The lines that `blk-client` printed.
pub fn parse<T: DeserializeOwned>(stdout: &str) -> Result<Vec<T>> {
    let lines: Result<Vec<T>> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).context(|| format!("blk-client said: {line}")))
        .collect();
    match lines? {
        lines if lines.is_empty() => Err(Error::new("blk-client printed nothing")),
        lines => Ok(lines),
    }
}
