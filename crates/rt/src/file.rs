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
}

/// One open file description.
#[derive(Clone, Debug)]
pub struct FileHandle(Arc<os::Shared>);

impl FileHandle {
    pub fn open(path: &Path, options: OpenOptions) -> io::Result<Self> {
        os::Shared::open(path, options).map(|shared| Self(Arc::new(shared)))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn info(&self) -> io::Result<FileInfo> {
        self.0.info()
    }

    /// Fills `bytes` from `offset`; an error where the file is shorter.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(bytes, offset)
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Data and metadata survive a power loss.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    /// What lies where, from `range.start` on, at most `max` extents.
    pub fn extents(&self, range: Range<u64>, max: usize) -> io::Result<Vec<Extent>> {
        self.0.extents(range, max)
    }

    /// Discard or zero on a block device, where no operation of the ring does it on every kernel.
    pub fn allocate(&self, how: Allocate, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(how, offset, len)
    }

    /// Locks bytes of the file for this description (an OFD lock); an error of kind `WouldBlock`
    /// where another has them.
    pub fn try_lock(&self, range: Range<u64>, exclusive: bool) -> io::Result<()> {
        self.0.lock(range, exclusive, false)
    }

    /// The same, waiting: also for the requests of a dead process that the kernel still works on.
    pub fn lock(&self, range: Range<u64>, exclusive: bool) -> io::Result<()> {
        self.0.lock(range, exclusive, true)
    }

    pub fn unlock(&self, range: Range<u64>) -> io::Result<()> {
        self.0.unlock(range)
    }

    /// Whether another description has a lock that an exclusive one here would meet.
    pub fn is_locked(&self, range: Range<u64>) -> io::Result<bool> {
        self.0.is_locked(range)
    }

    /// The same description on this core.
    pub fn on(&self, core: &Core) -> File {
        File {
            core: core.clone(),
            file: Rc::new(os::OsFile::new(self.0.clone())),
            handle: self.clone(),
        }
    }
}

/// A file on one core.
#[derive(Clone)]
pub struct File {
    core: Core,
    file: Rc<os::OsFile>,
    handle: FileHandle,
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
        self.core.os().transfer(&self.file, None, offset, data, done);
    }

    /// Writes the data, all of it; `durable` answers when it would survive a power loss.
    #[inline]
    pub fn write(&self, offset: u64, data: &Sgl<'_>, durable: bool, done: Completion) {
        let flags = crate::os::WriteFlags { durable };
        self.core.os().transfer(&self.file, Some(flags), offset, data, done);
    }

    /// What was answered before survives a power loss.
    pub fn sync(&self, done: Completion) {
        self.core.os().plain(&self.file, self.file.sync_entry(), done);
    }

    /// Changes a range of a regular file.
    pub fn allocate(&self, how: Allocate, offset: u64, len: u64, done: Completion) {
        self.core.os().plain(&self.file, self.file.allocate_entry(how, offset, len), done);
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
        let range = crate::os::FileRange { file: self.file.clone(), offset, len, reads };
        crate::os::Driver::settled(self.core.clone(), range).await;
    }
}
