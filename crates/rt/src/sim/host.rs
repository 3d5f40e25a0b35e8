//! Hosts, processes and disks as a test sees and treats them from outside.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fault::Fault;
use super::file::{Description, Inode, Name};
use super::net::host_ip;
use super::room::{Clock, Event, HostId, InodeId, ProcessId, ProcessState, State};
use super::world::Inner;
use crate::core::Core;
use crate::file::{FileHandle, FileKind, OpenOptions};
use crate::timer::Time;

/// What a host is made of.
pub(super) struct HostState {
    pub(super) up: bool,
    pub(super) names: BTreeMap<PathBuf, Name>,
    pub(super) clock: Arc<Clock>,
}

/// How far a host's clock may be from zero when it starts.
const BOOT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

impl State {
    pub(super) fn new_host(&mut self) -> HostId {
        let id = HostId(self.hosts.len() as u64);
        let state = HostState { up: true, names: BTreeMap::new(), clock: self.new_clock() };
        self.hosts.insert(id, state);
        id
    }

    /// A clock that counts from some other start, as each boot has it.
    fn new_clock(&mut self) -> Arc<Clock> {
        let clock = Clock::default();
        let ahead = self.random.below(BOOT_MAX.as_nanos() as u64);
        clock.ahead_ns.store(ahead, Ordering::Relaxed);
        Arc::new(clock)
    }

    fn new_process(&mut self, host: HostId) -> ProcessId {
        if let Some(state) = self.hosts.get_mut(&host)
            && !std::mem::replace(&mut state.up, true)
        {
            self.lighten(host);
        }
        let id = ProcessId(self.serial());
        let state = ProcessState { host, alive: true, frozen_until: Time::default() };
        self.processes.insert(id, state);
        id
    }

    pub(super) fn processes_of(&self, host: HostId) -> Vec<ProcessId> {
        let mine = self.processes.iter().filter(|(_, state)| state.host == host && state.alive);
        mine.map(|(id, _)| *id).collect()
    }

    /// The host's own disks lose what was not durable, its files their new names.
    pub(super) fn go_dark(&mut self, host: HostId) {
        for inode in self.own_disks(host) {
            self.lose_power(inode);
            self.forget_operations(inode);
        }
        self.files.inodes.values_mut().for_each(|inode| inode.locks.forget_host(host));
        let mut names = std::mem::take(&mut self.hosts.get_mut(&host).expect("a host").names);
        names.retain(|_, name| name.durable || self.random.coin());
        names.values_mut().for_each(|name| name.durable = true);
        let clock = self.new_clock();
        let state = self.hosts.get_mut(&host).expect("a host");
        (state.names, state.clock, state.up) = (names, clock, false);
        self.darken(host);
    }

    fn clock_of(&self, host: HostId) -> &Clock {
        &self.hosts[&host].clock
    }
}

/// A simulated machine.
#[derive(Clone)]
pub struct Host {
    world: Rc<Inner>,
    id: HostId,
    main: Rc<Cell<Option<ProcessId>>>,
}

impl Host {
    pub(super) fn new(world: Rc<Inner>, id: HostId) -> Self {
        Self { world, id, main: Rc::default() }
    }

    pub(super) fn id(&self) -> HostId {
        self.id
    }

    /// The address at which other hosts reach this one.
    pub fn ip(&self) -> IpAddr {
        host_ip(self.id)
    }

    /// A core of the host's main process, which is started if it does not run; and with it the
    /// host, if it is without power.
    pub fn core(&self) -> Core {
        self.process().core()
    }

    /// The main process.
    pub fn process(&self) -> Process {
        let room = &self.world.room;
        let alive = |id: &ProcessId| room.with(|state| state.is_alive(*id));
        match self.main.get().filter(alive) {
            Some(id) => Process { world: self.world.clone(), id },
            None => {
                let process = self.new_process();
                self.main.set(Some(process.id));
                process
            }
        }
    }

    /// Another process on the same host.
    pub fn new_process(&self) -> Process {
        let id = self.world.room.with(|state| state.new_process(self.id));
        Process { world: self.world.clone(), id }
    }

    /// Ends every process, as SIGKILL does. What was answered stays; requests that are on their way
    /// to a disk may still reach it.
    pub fn kill(&self) {
        for process in self.world.room.with(|state| state.processes_of(self.id)) {
            self.world.ask(Event::Kill(process));
        }
    }

    /// Everything that is not durable is lost or not, each unit for itself; peers are not told.
    pub fn lose_power(&self) {
        self.world.ask(Event::PowerLoss(self.id));
    }

    /// Opens a file of this host for its main process, from plain code.
    pub fn open(&self, path: impl AsRef<Path>, options: OpenOptions) -> io::Result<FileHandle> {
        self.process().open(path, options)
    }

    /// The file of that name as a disk, to look at and to spoil.
    pub fn disk(&self, path: impl AsRef<Path>) -> Option<Disk> {
        let path = path.as_ref();
        let find = |state: &mut State| state.hosts[&self.id].names.get(path).map(|name| name.inode);
        let id = self.world.room.with(find)?;
        Some(Disk { world: self.world.clone(), id })
    }

    /// What the host's clock shows at a time of the world.
    pub fn clock_at(&self, time: Time) -> Time {
        self.world.room.with(|state| state.clock_of(self.id).at(time))
    }

    /// Shifts the host's clock forward, and lets it run faster or slower by so many millionths.
    /// Timers that have been set keep the time they were set for.
    pub fn set_clock(&self, ahead: Duration, drift_ppm: i32) {
        self.world.room.with(|state| {
            let (now, clock) = (state.now, state.clock_of(self.id));
            let before = clock.at(now);
            clock.drift_ppm.store(i64::from(drift_ppm), Ordering::Relaxed);
            clock.ahead_ns.store(0, Ordering::Relaxed);
            let ahead_ns = (before + ahead).as_nanos().saturating_sub(clock.at(now).as_nanos());
            clock.ahead_ns.store(ahead_ns, Ordering::Relaxed);
        });
    }
}

/// A process on a simulated host: its cores, its files, its connections.
#[derive(Clone)]
pub struct Process {
    world: Rc<Inner>,
    id: ProcessId,
}

impl Process {
    /// A new core. Its tasks run when the world does.
    pub fn core(&self) -> Core {
        self.world.new_core(self.id)
    }

    pub fn is_alive(&self) -> bool {
        self.world.room.with(|state| state.is_alive(self.id))
    }

    /// As [`Host::kill`], this process alone.
    pub fn kill(&self) {
        self.world.ask(Event::Kill(self.id));
    }

    /// Nothing of the process runs for so long, as after SIGSTOP. Time goes on, for its timers too.
    pub fn freeze(&self, duration: Duration) {
        self.world.room.with(|state| {
            let until = state.now + duration;
            if let Some(process) = state.processes.get_mut(&self.id) {
                process.frozen_until = until;
            }
        });
    }

    pub fn open(&self, path: impl AsRef<Path>, options: OpenOptions) -> io::Result<FileHandle> {
        let room = &self.world.room;
        let description = Description::open_as(room, self.id, path.as_ref(), options)?;
        Ok(FileHandle::simulated(description))
    }
}

/// A disk or file, as somebody with a screwdriver sees it.
#[derive(Clone)]
pub struct Disk {
    world: Rc<Inner>,
    id: InodeId,
}

impl Disk {
    /// A block device with power of its own, which hosts can share.
    pub(super) fn shared(world: Rc<Inner>, size: u64) -> Self {
        let id = world.room.with(|state| {
            let id = InodeId(state.serial());
            let mut inode = Inode::new(FileKind::BlockDevice, size);
            inode.shared = true;
            state.files.inodes.insert(id, inode);
            id
        });
        Self { world, id }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inode, &mut super::Random) -> T) -> T {
        self.world.room.with(|state| {
            let inode = state.files.inodes.get_mut(&self.id).expect("disks are kept");
            f(inode, &mut state.random)
        })
    }

    /// Gives the disk a name on a host.
    pub fn attach(&self, host: &Host, path: impl Into<PathBuf>) {
        let name = Name { inode: self.id, durable: true };
        self.world.room.with(|state| {
            let names = state.hosts.get_mut(&host.id).map(|host| &mut host.names);
            names.map(|names| names.insert(path.into(), name));
        });
    }

    /// The disk itself loses power: its cache is kept or lost, unit by unit.
    pub fn lose_power(&self) {
        self.world.keep_bytes_of_all();
        self.world.room.with(|state| state.lose_power(self.id));
    }

    /// Requests end when [`Disk::go_on`] is called, and not before.
    pub fn hang(&self) {
        self.with(|inode, _| inode.hanging = Some(Vec::new()));
    }

    pub fn go_on(&self) {
        self.world.room.with(|state| {
            let inode = state.files.inodes.get_mut(&self.id).expect("disks are kept");
            for event in inode.hanging.take().unwrap_or_default() {
                let latency = state.options.transfer.draw(&mut state.random);
                state.push_after(latency, event);
            }
        });
    }

    /// Plans a fault, in addition to those there are.
    pub fn fault(&self, fault: Fault) {
        self.with(|inode, _| inode.faults.push(fault));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.with(|inode, _| inode.faults.clear());
    }

    /// Flips a bit somewhere in the range. False: nothing was ever written there.
    pub fn decay(&self, range: Range<u64>) -> bool {
        self.with(|inode, random| inode.image.decay(range, random))
    }

    /// What the disk writes in one step: between units of so many bytes writes are torn and mixed.
    /// One sector unless it is said.
    pub fn set_unit(&self, bytes: u32) {
        self.with(|inode, _| inode.image.set_unit(bytes));
    }

    /// The block size that the disk tells.
    pub fn set_logical_block(&self, bytes: u32) {
        self.with(|inode, _| inode.logical_block = bytes);
    }

    pub fn set_read_only(&self, read_only: bool) {
        self.with(|inode, _| inode.read_only = read_only);
    }

    pub fn size(&self) -> u64 {
        self.with(|inode, _| inode.image.size())
    }

    /// What a read would give now.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.with(|inode, _| inode.image.read(offset, bytes));
    }

    /// What is durable now.
    pub fn read_durable(&self, offset: u64, bytes: &mut [u8]) {
        self.with(|inode, _| inode.image.read_durable(offset, bytes));
    }

    /// Sectors that a power loss could change.
    pub fn unsettled(&self) -> usize {
        self.with(|inode, _| inode.image.unsettled())
    }
}
