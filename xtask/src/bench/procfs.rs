//! What Linux tells of processes and of the machine: CPU time, private memory, other jobs.

use std::fs;

use crate::Result;

/// CPU time of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTime {
    pub name: String,
    pub run_ns: u64,
}

/// The run time of every thread of a process, in nanoseconds: finer than the ticks of `stat`.
pub fn threads(pid: u32) -> Result<Vec<ThreadTime>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let dir = entry?.path();
        // A thread may end while one looks.
        let (Ok(name), Ok(times)) =
            (fs::read_to_string(dir.join("comm")), fs::read_to_string(dir.join("schedstat")))
        else {
            continue;
        };
        let run_ns = times.split(' ').next().and_then(|run| run.parse().ok());
        let run_ns = run_ns.ok_or_else(|| format!("schedstat of {pid}: {times:?}"))?;
        threads.push(ThreadTime { name: name.trim().to_owned(), run_ns });
    }
    Ok(threads)
}

/// The run time of a process: all its threads.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    Ok(threads(pid)?.iter().map(|thread| thread.run_ns).sum())
}

/// Private anonymous memory of a process, in bytes.
pub fn rss_anon_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.ok_or("no RssAnon in the status of a process")? * 1024)
}

/// CPU time that the machine's CPUs have spent on anything so far, stolen time included, in
/// seconds.
pub fn machine_busy_s() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    busy_s(&stat).ok_or_else(|| "no cpu line in /proc/stat".into())
}

/// Ticks of `/proc/stat` in a second: fixed by the kernel's interface.
const TICKS: f64 = 100.0;

fn busy_s(stat: &str) -> Option<f64> {
    // user nice system idle iowait irq softirq steal
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().map(|&field| ticks.get(field).copied());
    busy.sum::<Option<f64>>().map(|ticks| ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_and_memory() {
        let pid = std::process::id();
        assert!(threads(pid).unwrap().iter().any(|thread| thread.run_ns > 0));
        assert!(cpu_ns(pid).unwrap() > 0 && rss_anon_bytes(pid).unwrap() > 4096);
        assert!(machine_busy_s().unwrap() > 0.0);
    }

    #[test]
    fn waiting_is_not_busy() {
        assert_eq!(busy_s("cpu  100 0 200 5000 900 0 0 50 0 0\n"), Some(3.5));
        assert_eq!(busy_s("intr 1\n"), None);
    }
}
