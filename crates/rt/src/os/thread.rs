//! Threads: for cores, for the control plane, and for work that blocks.
//!
//! Blocking work (opening a device, locking a file, asking where its holes are) runs on a few
//! threads that are started when first needed. A store that hangs holds one of them, so they are
//! limited by [`WORKERS_MAX`] and each new request gets a new thread until then.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::check;
use crate::sync::{Reply, reply};

/// Threads for blocking work. Beyond this, requests queue.
pub const WORKERS_MAX: usize = 16;

/// Starts a named thread.
pub fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(f)
}

pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: a zeroed set is a valid empty set; the calls only read and write it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    check(result)
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run on CPU {cpu}: {error}")))
}

/// The CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    // SAFETY: writes one set of the given size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        set
    };
    // SAFETY: reads a bit of a set within its size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// The CPU time that a thread of this process has used, in nanoseconds.
pub fn cpu_time_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

type Job = Box<dyn FnOnce() + Send>;

struct Workers {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static WORKERS: Workers = Workers {
    state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 }),
    work: Condvar::new(),
};

/// Runs `f` on a thread that may block.
pub(crate) fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Reply<T> {
    let (answer, reply) = reply();
    let job: Job = Box::new(move || answer.give(f()));
    let mut state = WORKERS.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.jobs.push_back(job);
    if state.idle < state.jobs.len() && state.threads < WORKERS_MAX {
        state.threads += 1;
        if spawn("viaduct-blocking", work).is_err() {
            // Without a new thread the job waits for an old one.
            state.threads -= 1;
        }
    }
    drop(state);
    WORKERS.work.notify_one();
    reply
}

fn work() {
    let mut state = WORKERS.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = WORKERS.state.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state.idle += 1;
        state = WORKERS.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
    }
}
