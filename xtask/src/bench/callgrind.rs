//! Instructions, counted by callgrind: they do not depend on what else the machine does.
//!
//! A count of one run holds start and end as well, so two runs of different length are made and
//! the difference divided. Only instructions outside the kernel are counted.

use std::process::Command;

use crate::Result;
use crate::servers::{LoadSpec, ServerSpec, Small, Watcher};

/// Callgrind before a program, its profile thrown away.
pub fn command() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--fair-sched=yes"]);
    command
}

/// The count that callgrind reports at its end.
pub fn collected(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Instructions per request of this program's own verb, which takes the number of requests as the
/// last of its arguments.
pub fn per_request(arguments: &[&str], requests: u64) -> Result<f64> {
    let count = |requests: u64| -> Result<u64> {
        let mut command = command();
        command.arg(std::env::current_exe()?).args(arguments).arg(requests.to_string());
        let output = command.output().map_err(|error| format!("valgrind: {error}"))?;
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        let counted = collected(&report).filter(|_| output.status.success());
        Ok(counted.ok_or_else(|| format!("valgrind {arguments:?}: {}: {report}", output.status))?)
    };
    let (short, long) = (count(requests)?, count(2 * requests)?);
    Ok((long - short) as f64 / requests as f64)
}

/// Instructions per request of the small server under a load, all queues together.
pub fn per_request_of_server(spec: &ServerSpec, load: &LoadSpec, requests: u64) -> Result<f64> {
    let count = |requests: u64| -> Result<(u64, u64)> {
        let mut server = Small::start(spec, &Watcher::Callgrind)?;
        let load = LoadSpec { requests: Some(requests), ..load.clone() };
        let mut client = server.connect(&load)?;
        let outcome = client.go()?;
        client.finish()?;
        let report = server.finish()?;
        let counted = collected(&report).ok_or_else(|| format!("valgrind: {report}"))?;
        Ok((counted, outcome.requests))
    };
    let (short, long) = (count(requests)?, count(2 * requests)?);
    Ok((long.0 as f64 - short.0 as f64) / (long.1 - short.1) as f64)
}

#[cfg(test)]
mod tests {
    use super::collected;

    #[test]
    fn the_count_is_read_off_the_report() {
        let report = "==1== Events    : Ir\n==1== Collected : 123456\n==1==\n";
        assert_eq!(collected(report), Some(123_456));
        assert_eq!(collected("==1== nothing"), None);
    }
}
