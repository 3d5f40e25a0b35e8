//! Which CPU a thread runs on. A measurement is pinned, so that the two sides of a comparison have
//! the same one, and client and server different ones.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;

/// The CPUs that this process may use.
pub fn all() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Keeps this thread, and those that it will start, on these CPUs.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    let pinned = sched_setaffinity(None, &set);
    Ok(pinned.map_err(|error| format!("cannot run on CPUs {cpus:?}: {error}"))?)
}

/// The given CPU, or the last one: the first serves most interrupts.
pub fn pin_or_last(cpu: Option<usize>) -> Result<()> {
    let cpu = match cpu {
        Some(cpu) => cpu,
        None => *all()?.last().ok_or("no CPU")?,
    };
    pin(&[cpu])
}

/// Does something on these CPUs, and comes back: what it starts stays there.
pub fn with<T>(cpus: &[usize], f: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    pin(cpus)?;
    let done = f();
    sched_setaffinity(None, &before)?;
    done
}
