//! Files and block devices, as stores see them.
//!
//! A [`FileHandle`] is one open file description, usable from any thread, with calls that block:
//! for opening, locking, metadata, and for the control plane's small files. A [`File`] is the same
//! description on one core, where transfers are operations of the ring that end in a
//! [`Completion`]. All I/O goes through the one description, because locks belong to it and last
//! until the last request on it has ended, even one of a process that was killed.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use block::extent::Extent;
use block::{Completion, Sgl};

use crate::core::Core;
use crate::os::file as os;
use crate::sim;
use crate::sim::file as simulated;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    pub write: bool,
    /// Make it if it is not there.
    pub create: bool,
    /// Fail if it is there.
    pub create_new: bool,
    /// Bypass the page cache; fails where the filesystem cannot.
    pub direct: bool,
    /// Of a block device: claim it, which fails while it is mounted or part of another device, and
    /// keeps others from mounting it.
    pub claim: bool,
    /// Permissions of a file that is made.
    pub mode: u32,
}

impl OpenOptions {
    pub const fn read() -> Self {
        Self {
            write: false,
            create: false,
            create_new: false,
            direct: false,
            claim: false,
            mode: 0o600,
        }
    }

    pub const fn write() -> Self {
        Self { write: true, ..Self::read() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    BlockDevice,
    Other,
}

/// What the kernel says about an open file.
#[derive(Clone, Copy, Debug)]
pub struct FileInfo {
    pub kind: FileKind,
    pub size: u64,
    /// Bytes that have a place in the store.
    pub allocated: u64,
    pub logical_block: u32,
    pub physical_block: u32,
    /// What direct I/O wants of addresses and offsets; 0 where it is not offered or not known.
    pub direct_memory_align: u32,
    pub direct_offset_align: u32,
    /// Granularity of discards; 0 where the device has none.
    pub discard_granularity: u32,
    pub read_only: bool,
}

/// How a range of a file is changed without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Reads zero, space given back.
    PunchHole,
    /// Reads zero, space kept.
    ZeroRange,
    /// Has a place from now on.
    Reserve,
    /// The same, and the file's end stays where it is: what is beyond is for when it grows.
    ReserveBeyond,
}

/// One open file description.
#[derive(Clone, Debug)]
pub struct FileHandle(Description);

#[derive(Clone, Debug)]
enum Description {
    Os(Arc<os::Shared>),
    Sim(Arc<simulated::Description>),
}

/// The same call on whichever machine it is.
macro_rules! on_either {
    ($handle:expr, $shared:ident => $call:expr) => {
        match &$handle.0 {
            Description::Os($shared) => $call,
            Description::Sim($shared) => $call,
        }
    };
}

impl FileHandle {
    /// Opens a file of the machine that the calling code runs on: on a simulated core, or in work
    /// that it has started, of the simulated host; everywhere else of the real one.
    pub fn open(path: &Path, options: OpenOptions) -> io::Result<Self> {
        match sim::here() {
            Some((room, process)) => {
                let opened = simulated::Description::open_as(&room, process, path, options);
                opened.map(Self::simulated)
            }
            None => os::Shared::open(path, options)
                .map(|shared| Self(Description::Os(Arc::new(shared)))),
        }
    }

    pub(crate) fn simulated(description: simulated::Description) -> Self {
        Self(Description::Sim(Arc::new(description)))
    }

    pub fn path(&self) -> &Path {
        on_either!(self, shared => shared.path())
    }

    pub fn info(&self) -> io::Result<FileInfo> {
        on_either!(self, shared => shared.info())
    }

    /// Fills `bytes` from `offset`; an error where the file is shorter.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        on_either!(self, shared => shared.read_at(bytes, offset))
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        on_either!(self, shared => shared.write_at(bytes, offset))
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        on_either!(self, shared => shared.set_len(len))
    }

    /// Data and metadata survive a power loss.
    pub fn sync(&self) -> io::Result<()> {
        on_either!(self, shared => shared.sync())
    }

    /// What lies where, from `range.start` on, at most `max` extents.
    pub fn extents(&self, range: Range<u64>, max: usize) -> io::Result<Vec<Extent>> {
        on_either!(self, shared => shared.extents(range, max))
    }

    /// Discard or zero on a block device, where no operation of the ring does it on every kernel.
    pub fn allocate(&self, how: Allocate, offset: u64, len: u64) -> io::Result<()> {
        on_either!(self, shared => shared.allocate(how, offset, len))
    }

    /// Locks bytes of the file for this description (an OFD lock); an error of kind `WouldBlock`
    /// where another has them.
    pub fn try_lock(&self, range: Range<u64>, exclusive: bool) -> io::Result<()> {
        on_either!(self, shared => shared.lock(range, exclusive, false))
    }

    /// The same, waiting: also for the requests of a dead process that the kernel still works on.
    pub fn lock(&self, range: Range<u64>, exclusive: bool) -> io::Result<()> {
        on_either!(self, shared => shared.lock(range, exclusive, true))
    }

    pub fn unlock(&self, range: Range<u64>) -> io::Result<()> {
        on_either!(self, shared => shared.unlock(range))
    }

    /// Whether another description has a lock that an exclusive one here would meet.
    pub fn is_locked(&self, range: Range<u64>) -> io::Result<bool> {
        on_either!(self, shared => shared.is_locked(range))
    }

    /// The same description on this core, which is one of the same machine.
    pub fn on(&self, core: &Core) -> File {
        let side = match &self.0 {
            Description::Os(shared) => Side::Os(Rc::new(os::OsFile::new(shared.clone()))),
            Description::Sim(shared) => Side::Sim(Rc::new(sim::SimFile::new(shared.clone()))),
        };
        let same = matches!(side, Side::Sim(_)) == core.sim().is_some();
        assert!(same, "a file of one machine on a core of another: {}", self.path().display());
        File { core: core.clone(), side, handle: self.clone() }
    }
}

/// A file on one core.
#[derive(Clone)]
pub struct File {
    core: Core,
    side: Side,
    handle: FileHandle,
}

#[derive(Clone)]
enum Side {
    Os(Rc<os::OsFile>),
    Sim(Rc<sim::SimFile>),
}

impl File {
    pub fn handle(&self) -> &FileHandle {
        &self.handle
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Reads into the data, all of it; the outcome is its length. A file that ends before is an
    /// error.
    #[inline]
    pub fn read(&self, offset: u64, data: &Sgl<'_>, done: Completion) {
        match &self.side {
            Side::Os(file) => self.core.os().transfer(file, None, offset, data, done),
            Side::Sim(file) => file.read(&self.core, offset, data, done),
        }
    }

    /// Writes the data, all of it; `durable` answers when it would survive a power loss.
    #[inline]
    pub fn write(&self, offset: u64, data: &Sgl<'_>, durable: bool, done: Completion) {
        match &self.side {
            Side::Os(file) => {
                let flags = crate::os::WriteFlags { durable };
                self.core.os().transfer(file, Some(flags), offset, data, done);
            }
            Side::Sim(file) => file.write(&self.core, offset, data, durable, done),
        }
    }

    /// What was answered before survives a power loss.
    pub fn sync(&self, done: Completion) {
        match &self.side {
            Side::Os(file) => self.core.os().plain(file, file.sync_entry(), done),
            Side::Sim(file) => file.sync(&self.core, done),
        }
    }

    /// Changes a range of a regular file.
    pub fn allocate(&self, how: Allocate, offset: u64, len: u64, done: Completion) {
        match &self.side {
            Side::Os(file) => {
                self.core.os().plain(file, file.allocate_entry(how, offset, len), done);
            }
            Side::Sim(file) => file.allocate(&self.core, (how, offset, len), done),
        }
    }

    /// Resolves when no write to this range is in flight on this core. Holding new ones back is the
    /// caller's part.
    pub async fn drained(&self, offset: u64, len: u64) {
        self.settled(offset, len, false).await;
    }

    /// The same, for reads too.
    pub async fn quiet(&self, offset: u64, len: u64) {
        self.settled(offset, len, true).await;
    }

    async fn settled(&self, offset: u64, len: u64, reads: bool) {
        match &self.side {
            Side::Os(file) => {
                let range = crate::os::FileRange { file: file.clone(), offset, len, reads };
                crate::os::Driver::settled(self.core.clone(), range).await;
            }
            Side::Sim(file) => file.settled(&self.core, offset, len, reads).await,
        }
    }
}
