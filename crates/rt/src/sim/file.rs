//! Files and disks of simulated hosts, and open file descriptions of them.
//!
//! A file is its image and its locks; a host gives it a name, a shared disk has names on several
//! hosts. A description belongs to the process that opened it: it lives until its last handle is
//! gone or the process is killed, and after that until its last operation has ended.
//!
//! The calls here are those that block. From a worker each of them lets time pass first, so that
//! anything may happen before it; from plain code it happens at once.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::extent::Extent;

use super::fault::{Fault, Harm, On, befalls};
use super::image::{Image, SECTOR};
use super::lock::Locks;
use super::random::Random;
use super::room::{Event, HostId, InodeId, OpId, OpenId, ProcessId, Room, State};
use super::transfer::Operation;
use super::worker;
use crate::file::{Allocate, FileInfo, FileKind, OpenOptions};

/// Everything about files in a world.
#[derive(Default)]
pub(super) struct Files {
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) open: BTreeMap<OpenId, Open>,
    pub(super) operations: BTreeMap<OpId, Operation>,
}

/// A file or disk.
pub(super) struct Inode {
    pub(super) image: Image,
    pub(super) kind: FileKind,
    /// Has power of its own: a host's power loss does not touch it.
    pub(super) shared: bool,
    pub(super) logical_block: u32,
    pub(super) read_only: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) locks: Locks,
    /// While it hangs: what is to happen when it goes on.
    pub(super) hanging: Option<Vec<Event>>,
}

/// An open file description.
pub(super) struct Open {
    pub(super) process: ProcessId,
    pub(super) host: HostId,
    pub(super) inode: InodeId,
    pub(super) write: bool,
    pub(super) direct: bool,
    /// It is a directory, by this name.
    directory: Option<PathBuf>,
    /// Has claimed the block device that it is of.
    claim: bool,
    /// Operations that have not ended.
    pub(super) in_flight: u32,
    /// Nobody holds it any more.
    pub(super) closed: bool,
}

/// A name in a host's filesystem. Directories are there by the names in them.
pub(super) struct Name {
    pub(super) inode: InodeId,
    /// A power loss does not take it away: its directory has been synced since it was made.
    pub(super) durable: bool,
}

impl Inode {
    pub(super) fn new(kind: FileKind, size: u64) -> Self {
        Self {
            image: Image::new(size),
            kind,
            shared: false,
            logical_block: SECTOR as u32,
            read_only: false,
            faults: Vec::new(),
            locks: Locks::default(),
            hanging: None,
        }
    }

    fn info(&self) -> FileInfo {
        let device = self.kind == FileKind::BlockDevice;
        let size = self.image.size();
        FileInfo {
            kind: self.kind,
            size,
            allocated: if device { size } else { self.image.allocated() },
            logical_block: self.logical_block,
            physical_block: self.image.unit() as u32,
            direct_memory_align: self.logical_block,
            direct_offset_align: self.logical_block,
            discard_granularity: if device { 4096 } else { 0 },
            read_only: self.read_only,
        }
    }

    /// Punches, zeroes or reserves. An error is an errno.
    pub(super) fn allocate(
        &mut self,
        op: OpId,
        how: Allocate,
        offset: u64,
        len: u64,
    ) -> Result<(), i32> {
        let end = offset.checked_add(len).filter(|_| len > 0).ok_or(libc::EINVAL)?;
        let size = self.image.size();
        let device = self.kind == FileKind::BlockDevice;
        if device && (how == Allocate::Reserve || end > size) {
            return Err(if end > size { libc::EINVAL } else { libc::EOPNOTSUPP });
        }
        let within = offset.min(size)..end.min(size);
        match how {
            Allocate::PunchHole => self.image.zero(op, within.clone(), true),
            Allocate::ZeroRange => self.image.zero(op, within.clone(), false),
            Allocate::Reserve => {
                self.image.reserve(offset..end);
                self.image.set_size(op, size.max(end));
            }
            Allocate::ReserveBeyond => self.image.reserve(offset..end),
        }
        self.image.answered(op, within);
        Ok(())
    }

    pub(super) fn fate(&mut self, on: On, range: &Range<u64>, random: &mut Random) -> Option<Harm> {
        befalls(&mut self.faults, on, range, random)
    }

    /// Where a write goes to: elsewhere on the same disk when it is misdirected.
    pub(super) fn target(&self, harm: Option<Harm>, offset: u64, len: u64) -> u64 {
        let room = self.image.size().saturating_sub(len);
        match harm {
            Some(Harm::Misdirected(by)) if room > 0 => (offset + by) % (room + 1),
            _ => offset,
        }
    }
}

impl State {
    pub(super) fn open_of(&mut self, id: OpenId) -> io::Result<&mut Open> {
        let dead = io::Error::other("the process has been killed");
        let Some(open) = self.files.open.get_mut(&id) else { return Err(dead) };
        if open.closed { Err(dead) } else { Ok(open) }
    }

    pub(super) fn inode_of(&mut self, id: OpenId) -> io::Result<&mut Inode> {
        let inode = self.open_of(id)?.inode;
        Ok(self.files.inodes.get_mut(&inode).expect("an open file is kept"))
    }

    /// No handle is left. Locks stay until the last operation has ended.
    pub(super) fn close(&mut self, id: OpenId) {
        if let Some(open) = self.files.open.get_mut(&id) {
            open.closed = true;
            if open.in_flight == 0 {
                self.forget_open(id);
            }
        }
    }

    pub(super) fn forget_open(&mut self, id: OpenId) {
        let Some(open) = self.files.open.remove(&id) else { return };
        if open.directory.is_some() {
            self.files.inodes.remove(&open.inode);
        }
        if let Some(inode) = self.files.inodes.get_mut(&open.inode) {
            let waiting = inode.locks.release(id, &(0..0));
            self.wake_workers(waiting);
        }
    }

    fn name(&mut self, host: HostId, path: &Path, options: OpenOptions) -> io::Result<InodeId> {
        let id = InodeId(self.serial());
        let names = &mut self.hosts.get_mut(&host).expect("processes run on hosts").names;
        let is_directory = || names.keys().any(|name| name != path && name.starts_with(path));
        match names.get(path) {
            None if !options.write && !options.create && is_directory() => {
                self.files.inodes.insert(id, Inode::new(FileKind::Other, 0));
                Ok(id)
            }
            Some(_) if options.create_new => Err(io::Error::from_raw_os_error(libc::EEXIST)),
            Some(name) => Ok(name.inode),
            None if options.create || options.create_new => {
                names.insert(path.to_owned(), Name { inode: id, durable: false });
                self.files.inodes.insert(id, Inode::new(FileKind::Regular, 0));
                Ok(id)
            }
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn open(
        &mut self,
        process: ProcessId,
        path: &Path,
        options: OpenOptions,
    ) -> io::Result<OpenId> {
        if !self.is_alive(process) {
            return Err(io::Error::other("the process has been killed"));
        }
        let host = self.processes[&process].host;
        let inode = self.name(host, path, options)?;
        if options.write && self.files.inodes[&inode].read_only {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let kind = self.files.inodes[&inode].kind;
        let device = kind == FileKind::BlockDevice;
        let directory = (kind == FileKind::Other).then(|| path.to_owned());
        let OpenOptions { write, direct, .. } = options;
        let claim = options.claim && device;
        let claimed = |open: &Open| open.claim && open.host == host && open.inode == inode;
        if claim && self.files.open.values().any(claimed) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let id = OpenId(self.serial());
        let open = Open {
            process,
            host,
            inode,
            write,
            direct,
            directory,
            claim,
            in_flight: 0,
            closed: false,
        };
        self.files.open.insert(id, open);
        Ok(id)
    }

    /// A directory that has been synced keeps its names. (Many filesystems keep a file's name when
    /// the file is synced; none promises it.)
    pub(super) fn settle_names(&mut self, open: OpenId) {
        let Some(open) = self.files.open.get(&open) else { return };
        let Some(host) = self.hosts.get_mut(&open.host) else { return };
        let within =
            |path: &Path| path.parent().is_some() && path.parent() == open.directory.as_deref();
        let names = host.names.iter_mut().filter(|(path, _)| within(path));
        names.for_each(|(_, name)| name.durable = true);
    }

    /// What befalls a blocking call, as an error or as what else goes wrong.
    fn befall(&mut self, id: OpenId, on: On, range: &Range<u64>) -> io::Result<Option<Harm>> {
        let inode = self.open_of(id)?.inode;
        let inode = self.files.inodes.get_mut(&inode).expect("an open file is kept");
        match inode.fate(on, range, &mut self.random) {
            Some(Harm::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            other => Ok(other),
        }
    }

    fn read_now(&mut self, id: OpenId, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        let harm = self.befall(id, On::Read, &range)?;
        let inode = self.open_of(id)?.inode;
        let inode = self.files.inodes.get_mut(&inode).expect("an open file is kept");
        if range.end > inode.image.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if harm == Some(Harm::Decay) {
            inode.image.decay(range, &mut self.random);
        }
        inode.image.read(offset, bytes);
        Ok(())
    }

    fn write_now(&mut self, id: OpenId, bytes: &[u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        if !self.open_of(id)?.write {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let cached = !self.open_of(id)?.direct;
        let harm = self.befall(id, On::Write, &range)?;
        if harm == Some(Harm::Lost) {
            return Ok(());
        }
        let op = OpId(self.serial());
        let inode = self.inode_of(id)?;
        let to = inode.target(harm, offset, bytes.len() as u64);
        if inode.kind == FileKind::BlockDevice && to + bytes.len() as u64 > inode.image.size() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        inode.image.write(op, to, bytes, cached);
        inode.image.answered(op, to..to + bytes.len() as u64);
        Ok(())
    }
}

/// The handle of an open file description, for any thread.
#[derive(Debug)]
pub(crate) struct Description {
    room: Arc<Room>,
    id: OpenId,
    path: PathBuf,
}

impl Description {
    pub(crate) fn open_as(
        room: &Arc<Room>,
        process: ProcessId,
        path: &Path,
        options: OpenOptions,
    ) -> io::Result<Self> {
        worker::pause()?;
        let id = room.with(|state| state.open(process, path, options))?;
        Ok(Self { room: room.clone(), id, path: path.to_owned() })
    }

    pub(super) fn id(&self) -> OpenId {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A call that blocks: in a worker time passes first.
    fn call<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        worker::pause()?;
        self.room.with(f)
    }

    pub(crate) fn info(&self) -> io::Result<FileInfo> {
        self.call(|state| Ok(state.inode_of(self.id)?.info()))
    }

    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(|state| state.read_now(self.id, bytes, offset))
    }

    /// A long write in a worker goes in several steps, between which anything may happen.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        let pieces = self.room.with(|state| {
            let unit = state.inode_of(self.id)?.image.unit();
            io::Result::Ok(state.pieces(&range, unit))
        })?;
        for piece in pieces {
            let part = (piece.start - offset) as usize..(piece.end - offset) as usize;
            self.call(|state| state.write_now(self.id, &bytes[part], piece.start))?;
        }
        Ok(())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(|state| {
            if !state.open_of(self.id)?.write {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let op = OpId(state.serial());
            let inode = state.inode_of(self.id)?;
            if inode.kind == FileKind::BlockDevice {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let old = inode.image.size();
            inode.image.set_size(op, len);
            inode.image.answered(op, len.min(old)..old);
            Ok(())
        })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let covered = self.call(|state| Ok(state.inode_of(self.id)?.image.answers()))?;
        self.call(|state| {
            let failed = state.befall(self.id, On::Sync, &(0..0)).err();
            let inode = state.inode_of(self.id)?;
            if let Some(error) = failed {
                inode.image.stick(covered);
                return Err(error);
            }
            inode.image.settle(covered);
            state.settle_names(self.id);
            Ok(())
        })
    }

    pub(crate) fn allocate(&self, how: Allocate, offset: u64, len: u64) -> io::Result<()> {
        self.call(|state| {
            if !state.open_of(self.id)?.write {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            state.befall(self.id, On::Allocate, &(offset..offset.saturating_add(len)))?;
            let op = OpId(state.serial());
            let done = state.inode_of(self.id)?.allocate(op, how, offset, len);
            done.map_err(io::Error::from_raw_os_error)
        })
    }

    pub(crate) fn extents(&self, range: Range<u64>, max: usize) -> io::Result<Vec<Extent>> {
        self.call(|state| Ok(state.inode_of(self.id)?.image.extents(range, max)))
    }

    pub(crate) fn lock(&self, range: Range<u64>, exclusive: bool, wait: bool) -> io::Result<()> {
        loop {
            let taken = self.call(|state| {
                let open = state.open_of(self.id)?;
                if exclusive && !open.write {
                    return Err(io::Error::from_raw_os_error(libc::EBADF));
                }
                let host = open.host;
                let locks = &mut state.inode_of(self.id)?.locks;
                let taken = locks.take(host, self.id, &range, exclusive);
                if taken.is_err()
                    && wait
                    && let Some(work) = worker::current()
                {
                    locks.wait(work);
                }
                taken
            });
            match taken {
                Err(error) if wait && error.kind() == io::ErrorKind::WouldBlock => {
                    worker::wait_to_be_woken()?;
                }
                other => return other,
            }
        }
    }

    pub(crate) fn unlock(&self, range: Range<u64>) -> io::Result<()> {
        self.call(|state| {
            let waiting = state.inode_of(self.id)?.locks.release(self.id, &range);
            state.wake_workers(waiting);
            Ok(())
        })
    }

    pub(crate) fn is_locked(&self, range: Range<u64>) -> io::Result<bool> {
        self.call(|state| {
            let host = state.open_of(self.id)?.host;
            Ok(state.inode_of(self.id)?.locks.meets(host, self.id, &range, true))
        })
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        self.room.with(|state| state.close(self.id));
    }
}
