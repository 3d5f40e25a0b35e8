//! Open files of the real machine.

use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::extent::{Extent, ExtentState};
use io_uring::{opcode, squeue, types};

use super::check;
use crate::file::{Allocate, FileInfo, FileKind, OpenOptions};

/// One open file description.
#[derive(Debug)]
pub(crate) struct Shared {
    fd: OwnedFd,
    path: PathBuf,
    block_device: bool,
}

/// The description on one core; operations in flight hold it.
pub(crate) struct OsFile {
    shared: Arc<Shared>,
}

impl OsFile {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[inline]
    pub(super) fn fd(&self) -> RawFd {
        self.shared.fd.as_raw_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    pub(crate) fn sync_entry(&self) -> squeue::Entry {
        opcode::Fsync::new(types::Fd(self.fd())).flags(types::FsyncFlags::DATASYNC).build()
    }

    pub(crate) fn allocate_entry(&self, how: Allocate, offset: u64, len: u64) -> squeue::Entry {
        let fd = types::Fd(self.fd());
        opcode::Fallocate::new(fd, len).offset(offset).mode(fallocate_mode(how)).build()
    }
}

const fn fallocate_mode(how: Allocate) -> i32 {
    match how {
        Allocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        Allocate::ZeroRange => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
        Allocate::Reserve => 0,
        Allocate::ReserveBeyond => libc::FALLOC_FL_KEEP_SIZE,
    }
}

impl Shared {
    pub(crate) fn open(path: &Path, options: OpenOptions) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let flag = |on: bool, flag: i32| if on { flag } else { 0 };
        let flags = libc::O_CLOEXEC
            | if options.write { libc::O_RDWR } else { libc::O_RDONLY }
            | flag(options.create || options.create_new, libc::O_CREAT)
            | flag(options.create_new, libc::O_EXCL)
            | flag(options.direct, libc::O_DIRECT)
            // Without O_CREAT this has a meaning of its own, for block devices only.
            | flag(options.claim && !options.create, libc::O_EXCL);
        // SAFETY: `name` is a terminated string that outlives the call.
        let fd = check(unsafe { libc::open(name.as_ptr(), flags, options.mode) })?;
        // SAFETY: just opened, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut shared = Self { fd, path: path.to_owned(), block_device: false };
        shared.block_device = shared.stat()?.st_mode & libc::S_IFMT == libc::S_IFBLK;
        Ok(shared)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn stat(&self) -> io::Result<libc::stat64> {
        // SAFETY: a zeroed stat is valid, the call fills it.
        unsafe {
            let mut stat = std::mem::zeroed();
            check(libc::fstat64(self.fd(), &mut stat))?;
            Ok(stat)
        }
    }

    pub(crate) fn info(&self) -> io::Result<FileInfo> {
        let stat = self.stat()?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => FileKind::Other,
        };
        let mut info = FileInfo {
            kind,
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * 512,
            logical_block: 512,
            physical_block: stat.st_blksize.clamp(512, 4096) as u32,
            direct_memory_align: 0,
            direct_offset_align: 0,
            discard_granularity: 0,
            read_only: false,
        };
        if kind == FileKind::BlockDevice {
            self.block_info(&mut info, stat.st_rdev)?;
        } else if let Some((memory, offset)) = self.direct_alignment() {
            info.direct_memory_align = memory;
            info.direct_offset_align = offset;
        }
        Ok(info)
    }

    fn block_info(&self, info: &mut FileInfo, device: libc::dev_t) -> io::Result<()> {
        info.size = self.ioctl_read::<u64>(BLKGETSIZE64)?;
        info.allocated = info.size;
        info.logical_block = self.ioctl_read::<libc::c_int>(BLKSSZGET)? as u32;
        info.physical_block = self.ioctl_read::<libc::c_uint>(BLKPBSZGET)?;
        info.read_only = self.ioctl_read::<libc::c_int>(BLKROGET)? != 0;
        info.direct_memory_align = info.logical_block;
        info.direct_offset_align = info.logical_block;
        let (major, minor) = (libc::major(device), libc::minor(device));
        // A partition has its queue at the disk above it.
        for queue in ["queue", "../queue"] {
            let path = format!("/sys/dev/block/{major}:{minor}/{queue}/discard_granularity");
            if let Ok(text) = std::fs::read_to_string(path) {
                info.discard_granularity = text.trim().parse().unwrap_or(0);
                break;
            }
        }
        Ok(())
    }

    fn ioctl_read<T: Default>(&self, request: u64) -> io::Result<T> {
        let mut value = T::default();
        // SAFETY: each request used here writes one value of the type that its caller names.
        check(unsafe { libc::ioctl(self.fd(), request as _, &mut value) })?;
        Ok(value)
    }

    /// What `statx` says of direct I/O (Linux 6.1): alignment of memory and of offsets.
    fn direct_alignment(&self) -> Option<(u32, u32)> {
        const STATX_DIOALIGN: u32 = 0x2000;
        // SAFETY: a zeroed statx is valid, the call fills it; the path is an empty string.
        let statx = unsafe {
            let mut statx: libc::statx = std::mem::zeroed();
            let empty = c"".as_ptr();
            check(libc::statx(self.fd(), empty, libc::AT_EMPTY_PATH, STATX_DIOALIGN, &mut statx))
                .ok()?;
            statx
        };
        let offered = statx.stx_mask & STATX_DIOALIGN != 0 && statx.stx_dio_offset_align != 0;
        offered.then_some((statx.stx_dio_mem_align, statx.stx_dio_offset_align))
    }

    pub(crate) fn read_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: writes at most `len` bytes into a slice of ours.
            let got = unsafe {
                libc::pread64(self.fd(), bytes.as_mut_ptr().cast(), bytes.len(), offset as i64)
            };
            match got {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                1.. => {
                    bytes = &mut bytes[got as usize..];
                    offset += got as u64;
                }
                _ => retry_if_interrupted()?,
            }
        }
        Ok(())
    }

    pub(crate) fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: reads at most `len` bytes from a slice of ours.
            let put = unsafe {
                libc::pwrite64(self.fd(), bytes.as_ptr().cast(), bytes.len(), offset as i64)
            };
            match put {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                1.. => {
                    bytes = &bytes[put as usize..];
                    offset += put as u64;
                }
                _ => retry_if_interrupted()?,
            }
        }
        Ok(())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        // SAFETY: no pointers.
        check(unsafe { libc::ftruncate64(self.fd(), len as i64) }).map(drop)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        check(unsafe { libc::fsync(self.fd()) }).map(drop)
    }

    pub(crate) fn allocate(&self, how: Allocate, offset: u64, len: u64) -> io::Result<()> {
        if !self.block_device {
            let (offset, len) = (offset as i64, len as i64);
            // SAFETY: no pointers.
            let result = unsafe { libc::fallocate64(self.fd(), fallocate_mode(how), offset, len) };
            return check(result).map(drop);
        }
        // A discard on a device promises nothing of what is read; zeroing does, and unmaps where
        // the device can unless told not to.
        let range = [offset, len];
        // SAFETY: both requests read two 64-bit numbers.
        check(unsafe { libc::ioctl(self.fd(), BLKZEROOUT as _, range.as_ptr()) }).map(drop)
    }

    pub(crate) fn extents(&self, range: Range<u64>, max: usize) -> io::Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = range.start;
        while at < range.end && extents.len() < max {
            let data =
                self.seek(at, libc::SEEK_DATA)?.map_or(range.end, |data| data.min(range.end));
            if data > at {
                extents.push(Extent { len: data - at, state: ExtentState::Hole });
                at = data;
                continue;
            }
            let hole = self.seek(at, libc::SEEK_HOLE)?.unwrap_or(range.end).clamp(at, range.end);
            // A filesystem that cannot tell says the hole is here: then call the rest data.
            let hole = if hole == at { range.end } else { hole };
            extents.push(Extent { len: hole - at, state: ExtentState::Data });
            at = hole;
        }
        Ok(extents)
    }

    /// None: nothing of that kind follows.
    fn seek(&self, from: u64, whence: i32) -> io::Result<Option<u64>> {
        if self.block_device {
            return Ok(Some(if whence == libc::SEEK_DATA { from } else { u64::MAX }));
        }
        // SAFETY: no pointers. The file position is used by nobody else.
        let at = unsafe { libc::lseek64(self.fd(), from as i64, whence) };
        if at >= 0 {
            return Ok(Some(at as u64));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
    }

    pub(crate) fn lock(&self, range: Range<u64>, exclusive: bool, wait: bool) -> io::Result<()> {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
        loop {
            match self.lock_call(command, kind, &range) {
                Err(error) if wait && error.kind() == io::ErrorKind::Interrupted => continue,
                other => return other.map(drop),
            }
        }
    }

    pub(crate) fn unlock(&self, range: Range<u64>) -> io::Result<()> {
        self.lock_call(libc::F_OFD_SETLK, libc::F_UNLCK, &range).map(drop)
    }

    pub(crate) fn is_locked(&self, range: Range<u64>) -> io::Result<bool> {
        let lock = self.lock_call(libc::F_OFD_GETLK, libc::F_WRLCK, &range)?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }

    fn lock_call(
        &self,
        command: libc::c_int,
        kind: libc::c_int,
        range: &Range<u64>,
    ) -> io::Result<libc::flock64> {
        // SAFETY: a zeroed flock is valid; the call reads and writes it.
        unsafe {
            let mut lock: libc::flock64 = std::mem::zeroed();
            lock.l_type = kind as i16;
            lock.l_whence = libc::SEEK_SET as i16;
            lock.l_start = range.start as i64;
            lock.l_len = (range.end - range.start) as i64;
            check(libc::fcntl(self.fd(), command, &mut lock))?;
            Ok(lock)
        }
    }
}

// From linux/fs.h.
const BLKSSZGET: u64 = 0x1268;
const BLKGETSIZE64: u64 = 0x8008_1272;
const BLKROGET: u64 = 0x125e;
const BLKPBSZGET: u64 = 0x127b;
const BLKZEROOUT: u64 = 0x127f;

fn retry_if_interrupted() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
