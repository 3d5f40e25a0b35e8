//! The world: who is in it, and the loop over what happens.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::driver::{self, Driver};
use super::host::{Disk, Host};
use super::options::Options;
use super::room::{CoreKey, CoreState, Event, HostId, OpId, ProcessId, Room};
use super::transfer::Landing;
use super::worker;
use crate::core::{Core, Doorbell, Driver as CoreDriver};
use crate::timer::Time;

/// Simulated machines, of which one thread runs all. Dropping it ends everything in it.
pub struct World {
    inner: Rc<Inner>,
    hosts: RefCell<BTreeMap<String, Host>>,
}

pub(super) struct Inner {
    pub(super) room: Arc<Room>,
    cores: RefCell<BTreeMap<CoreKey, Core>>,
    /// An event is being taken: failures asked for now happen after it.
    busy: Cell<bool>,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let inner = Inner {
            room: Room::new(seed, options),
            cores: RefCell::default(),
            busy: Cell::new(false),
        };
        Self { inner: Rc::new(inner), hosts: RefCell::default() }
    }

    /// The host of this name; a new one if there is none.
    pub fn host(&self, name: &str) -> Host {
        let make = || {
            let id = self.inner.room.with(super::room::State::new_host);
            Host::new(self.inner.clone(), id)
        };
        self.hosts.borrow_mut().entry(name.to_owned()).or_insert_with(make).clone()
    }

    /// A block device that can be attached to hosts. It does not share their power.
    pub fn disk(&self, size: u64) -> Disk {
        Disk::shared(self.inner.clone(), size)
    }

    /// Nothing gets from one host to the other any more. The other direction is another matter.
    pub fn cut(&self, from: &Host, to: &Host) {
        self.inner.room.with(|state| state.set_cut(from.id(), to.id(), true));
    }

    pub fn mend(&self, from: &Host, to: &Host) {
        self.inner.room.with(|state| state.set_cut(from.id(), to.id(), false));
    }

    /// The world's time, which no host's clock shows.
    pub fn now(&self) -> Time {
        self.inner.room.now()
    }

    /// A number out of the world's seed, for whoever drives it.
    pub fn random(&self) -> u64 {
        self.inner.room.with(|state| state.random.draw())
    }

    /// A hash of everything that has happened. Two runs of one seed have the same.
    pub fn fingerprint(&self) -> u64 {
        self.inner.room.with(|state| state.fingerprint())
    }

    /// Changes how long things take from now on.
    pub fn set_options(&self, options: Options) {
        self.inner.room.with(|state| state.options = options);
    }

    /// Runs until then.
    pub fn run_until(&self, time: Time) {
        self.inner.look_at_cores();
        while self.inner.next_at().is_some_and(|at| at <= time) {
            self.inner.step();
        }
        self.inner.room.with(|state| state.now = state.now.max(time));
    }

    pub fn run_for(&self, duration: Duration) {
        self.run_until(self.now() + duration);
    }

    /// Runs until it is so, for at most so long. True: it is so.
    pub fn run_while(&self, limit: Duration, mut goes_on: impl FnMut() -> bool) -> bool {
        let end = self.now() + limit;
        self.inner.look_at_cores();
        while goes_on() {
            if self.inner.next_at().is_none_or(|at| at > end) {
                return false;
            }
            self.inner.step();
        }
        true
    }

    /// Runs until nothing is left to happen, for at most so long. True: nothing is.
    pub fn run_until_quiet(&self, limit: Duration) -> bool {
        let end = self.now() + limit;
        self.inner.look_at_cores();
        while let Some(at) = self.inner.next_at() {
            if at > end {
                return false;
            }
            self.inner.step();
        }
        true
    }

    /// Runs an `async fn` on the core, and the world until it has ended. None: its process was
    /// killed, or nothing is left to happen and it still waits.
    pub fn block_on<T: 'static, F>(&self, core: &Core, f: impl FnOnce(Core) -> F) -> Option<T>
    where
        F: Future<Output = T> + 'static,
    {
        let result = Rc::new(Cell::new(None));
        let (out, over) = (result.clone(), Rc::new(Cell::new(false)));
        let future = f(core.clone());
        let ended = over.clone();
        core.enter(|| {
            core.spawn(async move {
                out.set(Some(future.await));
                ended.set(true);
            });
        });
        self.run_while(FOR_EVER, || !over.get() && self.inner.has_core(core));
        result.take()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let processes = self.inner.room.with(|state| state.processes.keys().copied().collect());
        let processes: Vec<ProcessId> = processes;
        processes.into_iter().for_each(|process| self.inner.kill(process));
    }
}

const FOR_EVER: Duration = Duration::from_secs(1 << 30);

impl Inner {
    pub(super) fn new_core(&self, process: ProcessId) -> Core {
        let (key, clock, random) = self.room.with(|state| {
            let host = state.processes[&process].host;
            let clock = state.hosts[&host].clock.clone();
            let key = CoreKey(state.serial());
            (key, clock, state.random.fork())
        });
        let (driver, bell) = Driver::new(&self.room, key, process, clock, random);
        let core = Core::new(CoreDriver::Sim(driver), Doorbell::Sim(bell));
        let core = core.expect("simulated cores have numbers enough");
        self.room.with(|state| {
            if !state.is_alive(process) {
                return;
            }
            state.cores.insert(key, CoreState::new(process));
            let first = state.now + state.options.turn.draw(&mut state.random);
            state.turn_by(key, first);
        });
        self.cores.borrow_mut().insert(key, core.clone());
        core
    }

    fn next_at(&self) -> Option<Time> {
        self.room.with(|state| state.next_at())
    }

    fn core(&self, key: CoreKey) -> Option<Core> {
        self.cores.borrow().get(&key).cloned()
    }

    fn has_core(&self, core: &Core) -> bool {
        core.sim().is_some_and(|driver| self.cores.borrow().contains_key(&driver.key()))
    }

    /// Plain code may have given cores something to do.
    fn look_at_cores(&self) {
        let cores: Vec<Core> = self.cores.borrow().values().cloned().collect();
        for core in cores {
            if let Some(driver) = core.sim() {
                driver.look(&core);
            }
        }
    }

    /// Takes the next event.
    fn step(&self) {
        let event = self.room.with(|state| {
            let event = state.pop()?;
            (!state.hangs(event)).then_some(event)
        });
        let Some(event) = event else { return };
        self.busy.set(true);
        match event {
            Event::Turn(core) => self.turn(core),
            Event::Piece(op, piece) => self.land(op, piece),
            Event::Done(op) => self.finish(op),
            Event::Work(work) => worker::go_on(&self.room, work),
            Event::Packet(packet) => self.room.with(|state| state.deliver(packet)),
            Event::GiveUp { conn, end, progress } => {
                self.room.with(|state| state.give_up(conn, end, progress));
            }
            Event::Kill(process) => self.kill(process),
            Event::PowerLoss(host) => self.lose_power(host),
        }
        self.busy.set(false);
    }

    /// A failure: at once, or after the event that is being taken.
    pub(super) fn ask(&self, event: Event) {
        if self.busy.get() {
            return self.room.with(|state| state.push(state.now, event));
        }
        match event {
            Event::Kill(process) => self.kill(process),
            Event::PowerLoss(host) => self.lose_power(host),
            _ => {}
        }
    }

    fn turn(&self, key: CoreKey) {
        if !self.room.with(|state| state.takes_turn(key)) {
            return;
        }
        let Some(core) = self.core(key) else { return };
        if !driver::turn(&core) {
            self.remove_core(key);
        }
    }

    fn remove_core(&self, key: CoreKey) {
        self.room.with(|state| state.cores.remove(&key));
        let core = self.cores.borrow_mut().remove(&key);
        if let Some(core) = core {
            driver::end(&core);
        }
    }

    /// A piece of a transfer reaches the disk, or memory.
    fn land(&self, op: OpId, piece: usize) {
        let Some(landing) = self.room.with(|state| state.landing(op, piece)) else { return };
        let Landing { core, range, write } = landing;
        let core = core.and_then(|key| self.core(key));
        let driver = core.as_ref().and_then(Core::sim);
        let mut bytes = vec![0; range.len()];
        if let Some(driver) = driver.filter(|_| write) {
            driver.with_data(op, |data| data.copy_out(range.start, &mut bytes));
        }
        self.room.with(|state| state.land(op, piece, &mut bytes));
        if let Some(driver) = driver.filter(|_| !write) {
            driver.with_data(op, |data| data.copy_in(range.start, &bytes));
        }
    }

    fn finish(&self, op: OpId) {
        for piece in self.room.with(|state| state.pieces_left(op)) {
            self.land(op, piece);
        }
        let Some((key, outcome)) = self.room.with(|state| state.answer(op)) else { return };
        let Some(core) = self.core(key) else { return };
        if let Some(driver) = core.sim() {
            driver.answered(op, outcome);
            self.room.with(|state| state.turn_by(key, state.now));
        }
    }

    /// What processes were about to write is in their memory; it is taken before that goes.
    fn keep_bytes(&self, process: ProcessId) {
        for (op, key) in self.room.with(|state| state.writes_of(process)) {
            let Some(core) = self.core(key) else { continue };
            let bytes = core.sim().and_then(|driver| {
                driver.with_data(op, |data| {
                    let mut bytes = vec![0; data.len()];
                    data.copy_out(0, &mut bytes);
                    bytes
                })
            });
            self.room.with(|state| state.keep_bytes(op, bytes.unwrap_or_default()));
        }
    }

    pub(super) fn keep_bytes_of_all(&self) {
        let processes: Vec<ProcessId> =
            self.room.with(|state| state.processes.keys().copied().collect());
        processes.into_iter().for_each(|process| self.keep_bytes(process));
    }

    fn kill(&self, process: ProcessId) {
        if !self.room.with(|state| state.is_alive(process)) {
            return;
        }
        self.keep_bytes(process);
        self.room.with(|state| {
            state.orphan_operations(process);
            state.close_all(process);
        });
        self.bury(process);
    }

    fn lose_power(&self, host: HostId) {
        let processes = self.room.with(|state| state.processes_of(host));
        processes.iter().for_each(|process| self.keep_bytes(*process));
        self.room.with(|state| {
            state.go_dark(host);
            // What is left is on its way to disks with power of their own.
            processes.iter().for_each(|process| state.orphan_operations(*process));
        });
        processes.into_iter().for_each(|process| self.bury(process));
    }

    /// The process is dead: what it had in this program's memory goes too.
    fn bury(&self, process: ProcessId) {
        let cores = self.room.with(|state| state.end_process(process));
        worker::drain(&self.room, process);
        cores.into_iter().for_each(|key| self.remove_core(key));
    }
}
