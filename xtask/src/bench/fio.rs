//! fio's io_uring engine on the file itself: what the disk gives without any server.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::client::Outcome;
use crate::servers::LoadSpec;
use crate::{Result, cpu};

/// One run of a load, on the CPUs that a server would have.
pub fn run(path: &Path, load: &LoadSpec, cpus: &[usize]) -> Result<Outcome> {
    let direction = match (load.sequential, load.write) {
        (false, false) => "randread",
        (false, true) => "randwrite",
        (true, false) => "read",
        (true, true) => "write",
    };
    let mut command = Command::new("fio");
    command.args(["--name=bench", "--ioengine=io_uring", "--direct=1", "--thread"]);
    command.args(["--norandommap", "--time_based", "--output-format=json", "--overwrite=1"]);
    command.arg(format!("--filename={}", path.display()));
    command.arg(format!("--rw={direction}")).arg(format!("--bs={}", load.block));
    command.arg(format!("--iodepth={}", load.depth));
    command.arg(format!("--runtime={}ms", (load.seconds * 1e3) as u64));
    command.arg(format!("--ramp_time={}ms", (load.warmup * 1e3) as u64));
    let output = cpu::with(cpus, || Ok(command.output()?));
    let output = output.map_err(|error| format!("fio: {error}"))?;
    if !output.status.success() {
        return Err(format!("fio: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let side = if load.write { "write" } else { "read" };
    outcome(&report["jobs"][0], side).ok_or_else(|| "fio's report is not as expected".into())
}

fn outcome(job: &Value, side: &str) -> Option<Outcome> {
    let load = &job[side];
    let percentile = |name: &str| Some(load["clat_ns"]["percentile"][name].as_f64()? / 1e3);
    let seconds = load["runtime"].as_f64()? / 1e3;
    let percent = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
    Some(Outcome {
        requests: load["total_ios"].as_u64()?,
        seconds,
        p50_us: percentile("50.000000")?,
        p99_us: percentile("99.000000")?,
        server_cpu_s: seconds * percent / 100.0,
        others_cpu_s: 0.0,
    })
}
