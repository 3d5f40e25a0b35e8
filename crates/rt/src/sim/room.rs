//! What all machines of a world are made of, and the queue of what happens next.
//!
//! Everything here is plain data behind one lock, because handles of it are `Send` as on the real
//! machine and a worker runs on a thread of its own; only one thread ever runs, so nobody waits for
//! the lock. No foreign code is called under it: who is to be woken is noted in [`State::wake`] and
//! woken after it has been released.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::file::Files;
use super::host::HostState;
use super::net::Net;
use super::options::Options;
use super::random::{Random, mix};
use super::worker::Works;
use crate::timer::Time;

macro_rules! ids {
    ($($name:ident),*) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(pub(super) u64);
    )*};
}

ids!(ConnId, CoreKey, HostId, InodeId, OpId, OpenId, PacketId, ProcessId, WorkId);

/// What happens at some time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A core gets a turn.
    Turn(CoreKey),
    /// A piece of a transfer reaches the disk.
    Piece(OpId, usize),
    /// An operation on a file ends.
    Done(OpId),
    /// A worker starts or goes on.
    Work(WorkId),
    Packet(PacketId),
    /// A connection's end has tried for long enough, if nothing got through since.
    GiveUp {
        conn: ConnId,
        end: usize,
        progress: u64,
    },
    /// A failure that was asked for from within.
    Kill(ProcessId),
    PowerLoss(HostId),
}

impl Event {
    /// For the fingerprint.
    fn words(self) -> [u64; 3] {
        match self {
            Self::Turn(core) => [1, core.0, 0],
            Self::Piece(op, piece) => [2, op.0, piece as u64],
            Self::Done(op) => [3, op.0, 0],
            Self::Work(work) => [4, work.0, 0],
            Self::Packet(packet) => [5, packet.0, 0],
            Self::GiveUp { conn, end, progress } => [6, conn.0 << 1 | end as u64, progress],
            Self::Kill(process) => [7, process.0, 0],
            Self::PowerLoss(host) => [8, host.0, 0],
        }
    }
}

/// A host's clock: the world's time, shifted and a little fast or slow.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) ahead_ns: AtomicU64,
    pub(super) drift_ppm: AtomicI64,
}

const MILLION: i128 = 1_000_000;

impl Clock {
    pub(super) fn at(&self, world: Time) -> Time {
        let drift = i128::from(self.drift_ppm.load(Ordering::Relaxed));
        let passed = i128::from(world.as_nanos()) * (MILLION + drift) / MILLION;
        Time::from_nanos(passed as u64 + self.ahead_ns.load(Ordering::Relaxed))
    }

    /// The world's time when this clock will show `host`.
    pub(super) fn when(&self, host: Time) -> Time {
        let drift = i128::from(self.drift_ppm.load(Ordering::Relaxed));
        let passed = host.as_nanos().saturating_sub(self.ahead_ns.load(Ordering::Relaxed));
        let world = (i128::from(passed) * MILLION + (MILLION + drift) - 1) / (MILLION + drift);
        Time::from_nanos(u64::try_from(world).unwrap_or(u64::MAX))
    }
}

pub(crate) struct Room {
    now: AtomicU64,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) now: Time,
    pub(super) random: Random,
    pub(super) options: Options,
    queue: BinaryHeap<Reverse<(Time, u64, Entry)>>,
    serial: u64,
    trace: u64,
    /// To be woken when the lock is released.
    pub(super) wake: Vec<Waker>,
    pub(super) hosts: BTreeMap<HostId, HostState>,
    pub(super) processes: BTreeMap<ProcessId, ProcessState>,
    pub(super) cores: BTreeMap<CoreKey, CoreState>,
    pub(super) files: Files,
    pub(super) net: Net,
    pub(super) works: Works,
}

/// An event in the queue; time and serial alone decide its place.
struct Entry(Event);

impl PartialEq for Entry {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

pub(super) struct ProcessState {
    pub(super) host: HostId,
    pub(super) alive: bool,
    /// Stopped (as by SIGSTOP) until then.
    pub(super) frozen_until: Time,
}

pub(super) struct CoreState {
    pub(super) process: ProcessId,
    /// When its next turn is.
    turn_at: Option<Time>,
}

impl CoreState {
    pub(super) fn new(process: ProcessId) -> Self {
        Self { process, turn_at: None }
    }
}

impl Room {
    pub(super) fn new(seed: u64, options: Options) -> Arc<Self> {
        let state = State {
            now: Time::default(),
            random: Random::new(mix(seed)),
            options,
            queue: BinaryHeap::new(),
            serial: 0,
            trace: seed,
            wake: Vec::new(),
            hosts: BTreeMap::new(),
            processes: BTreeMap::new(),
            cores: BTreeMap::new(),
            files: Files::default(),
            net: Net::default(),
            works: Works::default(),
        };
        Arc::new(Self { now: AtomicU64::new(0), state: Mutex::new(state) })
    }

    /// The world's time.
    pub(super) fn now(&self) -> Time {
        Time::from_nanos(self.now.load(Ordering::Relaxed))
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let (result, wake) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = f(&mut state);
            self.now.store(state.now.as_nanos(), Ordering::Relaxed);
            (result, std::mem::take(&mut state.wake))
        };
        wake.into_iter().for_each(Waker::wake);
        result
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}

impl State {
    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn push(&mut self, at: Time, event: Event) {
        let serial = self.serial();
        self.queue.push(Reverse((at, serial, Entry(event))));
    }

    pub(super) fn push_after(&mut self, delay: Duration, event: Event) {
        self.push(self.now + delay, event);
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Goes to the next event.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let Reverse((at, _, Entry(event))) = self.queue.pop()?;
        debug_assert!(at >= self.now, "time goes forward");
        self.now = at;
        self.note(at.as_nanos());
        event.words().into_iter().for_each(|word| self.note(word));
        Some(event)
    }

    /// Adds to the fingerprint.
    pub(super) fn note(&mut self, word: u64) {
        self.trace = mix(self.trace ^ word);
    }

    /// What has happened, and what would be drawn next.
    pub(super) fn fingerprint(&self) -> u64 {
        mix(self.trace ^ self.random.clone().draw())
    }

    /// The core gets a turn at that time or before.
    pub(super) fn turn_by(&mut self, core: CoreKey, at: Time) {
        let Some(state) = self.cores.get_mut(&core) else { return };
        if state.turn_at.is_none_or(|planned| at < planned) {
            state.turn_at = Some(at);
            self.push(at, Event::Turn(core));
        }
    }

    /// The core's turn has come. False: it was moved, or its process is stopped.
    pub(super) fn takes_turn(&mut self, core: CoreKey) -> bool {
        let Some(state) = self.cores.get_mut(&core) else { return false };
        if state.turn_at != Some(self.now) {
            return false;
        }
        state.turn_at = None;
        let process = state.process;
        let thaw = self.processes[&process].frozen_until;
        if thaw > self.now {
            self.turn_by(core, thaw);
            return false;
        }
        true
    }

    /// The process is dead: its descriptions are closed. Which cores it had.
    pub(super) fn end_process(&mut self, process: ProcessId) -> Vec<CoreKey> {
        if let Some(state) = self.processes.get_mut(&process) {
            state.alive = false;
        }
        let open = self.files.open.iter().filter(|(_, open)| open.process == process);
        let open: Vec<OpenId> = open.map(|(id, _)| *id).collect();
        open.into_iter().for_each(|id| self.close(id));
        let cores = self.cores.iter().filter(|(_, core)| core.process == process);
        let cores: Vec<CoreKey> = cores.map(|(key, _)| *key).collect();
        self.cores.retain(|_, core| core.process != process);
        cores
    }

    pub(super) fn is_alive(&self, process: ProcessId) -> bool {
        self.processes.get(&process).is_some_and(|process| process.alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_never_shows_a_time_before_it_is_due() {
        let mut random = Random::new(3);
        for _ in 0..10_000 {
            let clock = Clock {
                ahead_ns: AtomicU64::new(random.below(1 << 50)),
                drift_ppm: AtomicI64::new(random.below(1000) as i64 - 500),
            };
            let due = clock.at(Time::from_nanos(random.below(1 << 50)));
            let world = clock.when(due);
            assert!(clock.at(world) >= due);
            assert!(due + Duration::from_nanos(2) >= clock.at(world));
        }
    }
}
