//! Opening an image: what it is, how it can be read and written, and whose it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use block::mem::BUFFER_ALIGN;
use block::{Geometry, OpSet};
use rt::{Allocate, Core, FileHandle, FileInfo, FileKind, OpenOptions};

use super::bounce::PIECE_BYTES;
use super::claim::{Claim, Refusal};
use super::work::EXCLUSIVE_MAX;
use super::{FileStore, Lacks};

/// How an image is served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the LU; the file may have more, which are left alone. None: all that it has.
    pub size: Option<u64>,
    /// What clients see, 512 or 4096.
    pub block_size: u32,
    pub read_only: bool,
    /// Other nodes may serve the same image at the same time.
    pub shareable: bool,
    /// This node's number, for its lock; no two nodes that can reach the image have the same.
    pub node: u32,
    /// Go through the page cache even where that is not needed.
    pub page_cache: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: None,
            block_size: 512,
            read_only: false,
            shareable: false,
            node: 0,
            page_cache: false,
        }
    }
}

/// Why an image cannot be served, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is neither a regular file nor a block device", path.display())]
    Kind { path: PathBuf },
    #[error(
        "{} has {size} bytes, not a whole number of blocks of {block_size} bytes: \
         choose another block size, or add zeroes at its end with `truncate -s %{block_size} {}`",
        path.display(), path.display()
    )]
    Size { path: PathBuf, size: u64, block_size: u32 },
    #[error("{} is write-protected: serve it read-only", path.display())]
    Protected { path: PathBuf },
    #[error(
        "{} is served by another viaduct node: remove its LU there, or make the LU anew with \
         --shareable on both nodes if both shall write it",
        path.display()
    )]
    Served { path: PathBuf },
    #[error(
        "{} is in use by a QEMU (it holds the lock on byte {byte}): end that QEMU first",
        path.display()
    )]
    Qemu { path: PathBuf, byte: u64 },
    #[error(
        "{} has only {has} of the LU's {wants} bytes: it was cut off; bring it back, or resize the \
         LU to what is left",
        path.display()
    )]
    Short { path: PathBuf, has: u64, wants: u64 },
    #[error(
        "{} is in use on this machine (mounted, or part of LVM, RAID or multipath): \
         unmount or stop what uses it",
        path.display()
    )]
    Mounted { path: PathBuf },
    #[error(
        "{} is written in blocks of {unit} bytes, and nodes that share it cannot share a block: \
         choose a block size of {unit}, or do not share it",
        path.display()
    )]
    Shared { path: PathBuf, unit: u64 },
    #[error("{what} of {}: {source}", path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
}

/// How often a restarted node looks whether the requests of its former process have ended.
const CLAIM_RETRY: Duration = Duration::from_millis(5);
/// How often it tries to claim a device that the former process may have claimed.
const DEVICE_TRIES: u32 = 100;

impl FileStore {
    /// Opens an image from a core. Calls `waiting` once if requests of this node's former process
    /// (or a process with this node's number) are still in the kernel, and then waits for them for
    /// as long as it takes; dropping the future gives up.
    pub async fn open(
        core: &Core,
        path: &Path,
        options: Options,
        waiting: impl FnOnce(),
    ) -> Result<Arc<Self>, OpenError> {
        let path = path.to_owned();
        let lost = {
            let path = path.clone();
            move || OpenError::Io { path, what: "opening", source: io::ErrorKind::Other.into() }
        };
        let opening = core.blocking(move || Opening::new(path, options)).await;
        let opening = Arc::new(opening.ok_or_else(lost.clone())??);
        let mut waiting = Some(waiting);
        loop {
            let mine = opening.clone();
            if core.blocking(move || mine.take_own()).await.ok_or_else(lost.clone())?? {
                break;
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            core.sleep(CLAIM_RETRY).await;
        }
        let mut tries = 0;
        loop {
            let mine = opening.clone();
            match core.blocking(move || mine.finish()).await.ok_or_else(lost.clone())? {
                // A process that ends closes its files one after the other.
                Err(OpenError::Mounted { .. }) if tries < DEVICE_TRIES => tries += 1,
                other => return other,
            }
            core.sleep(CLAIM_RETRY).await;
        }
    }
}

/// An image that is open but not claimed yet.
struct Opening {
    path: PathBuf,
    options: Options,
    handle: FileHandle,
    info: FileInfo,
    size: u64,
    /// See [`FileStore`].
    unit: u64,
    memory_align: usize,
}

impl Opening {
    fn new(path: PathBuf, options: Options) -> Result<Self, OpenError> {
        let (handle, info, direct) = open_best(&path, options)?;
        let Options { block_size, read_only, .. } = options;
        if info.kind == FileKind::Other {
            return Err(OpenError::Kind { path });
        }
        if info.read_only && !read_only {
            return Err(OpenError::Protected { path });
        }
        let size = options.size.unwrap_or(info.size);
        if !size.is_multiple_of(u64::from(block_size)) {
            return Err(OpenError::Size { path, size, block_size });
        }
        if info.size < size {
            return Err(OpenError::Short { path, has: info.size, wants: size });
        }
        let (unit, memory_align) = match direct {
            Some(Alignment { unit, memory }) => (unit, memory.max(unit as usize)),
            None => (1, 1),
        };
        if options.shareable && !read_only && unit > u64::from(block_size) {
            return Err(OpenError::Shared { path, unit });
        }
        Ok(Self { path, options, handle, info, size, unit, memory_align })
    }

    fn claim(&self) -> Claim {
        let Options { node, read_only, shareable, .. } = self.options;
        Claim { node, read_only, shareable }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = self.path.clone();
        move |source| OpenError::Io { path, what, source }
    }

    fn take_own(&self) -> Result<bool, OpenError> {
        self.claim().take_own(&self.handle).map_err(self.failed("locking"))
    }

    fn finish(&self) -> Result<Arc<FileStore>, OpenError> {
        let path = self.path.clone();
        self.claim().take_image(&self.handle).map_err(|refusal| match refusal {
            Refusal::Node => OpenError::Served { path },
            Refusal::Qemu(byte) => OpenError::Qemu { path, byte },
            Refusal::Io(source) => OpenError::Io { path, what: "locking", source },
        })?;
        let claim = self.claim_device()?;
        let geometry = self.geometry();
        Ok(Arc::new(FileStore {
            handle: self.handle.clone(),
            _claim: claim,
            kind: self.info.kind,
            unit: self.unit,
            memory_align: self.memory_align,
            zeroing_unit: u64::from(self.info.logical_block),
            size: AtomicU64::new(geometry.size),
            geometry,
            ledger: Default::default(),
            resizing: AtomicBool::new(false),
            lacks: Lacks::default(),
        }))
    }

    /// A block device that only this node writes must not be mounted under it.
    fn claim_device(&self) -> Result<Option<FileHandle>, OpenError> {
        let Options { read_only, shareable, .. } = self.options;
        if self.info.kind != FileKind::BlockDevice || read_only || shareable {
            return Ok(None);
        }
        let options = OpenOptions { claim: true, ..OpenOptions::read() };
        match FileHandle::open(&self.path, options) {
            Ok(claim) => Ok(Some(claim)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(OpenError::Mounted { path: self.path.clone() })
            }
            Err(error) => Err(self.failed("claiming")(error)),
        }
    }

    fn geometry(&self) -> Geometry {
        let Self { info, options, .. } = self;
        let block_size = options.block_size;
        let at_least_a_block = |size: u32| size.max(block_size).next_power_of_two();
        let mut ops = OpSet::WRITE_ZEROES | OpSet::STATUS;
        if !options.shareable {
            ops = ops | OpSet::COMPARE_AND_WRITE | OpSet::OR_WRITE;
        }
        if self.can_discard() {
            ops = ops | OpSet::DISCARD;
        }
        Geometry {
            physical_block_size: at_least_a_block(info.physical_block),
            discard_granularity: match info.kind {
                FileKind::BlockDevice => at_least_a_block(info.discard_granularity),
                _ => at_least_a_block(info.physical_block),
            },
            exclusive_max: EXCLUSIVE_MAX,
            ops,
            read_only: options.read_only,
            ..Geometry::plain(self.size, block_size)
        }
    }

    fn can_discard(&self) -> bool {
        match self.info.kind {
            FileKind::BlockDevice => self.info.discard_granularity > 0,
            // A hole beyond the end changes nothing, and tells whether there can be holes.
            _ => {
                let beyond = self.info.size.next_multiple_of(PIECE_BYTES as u64);
                let hole = || self.handle.allocate(Allocate::PunchHole, beyond, 4096);
                !self.options.read_only && hole().is_ok()
            }
        }
    }
}

/// What direct I/O on a file wants.
pub(super) struct Alignment {
    pub(super) unit: u64,
    memory: usize,
}

/// Opens directly where that works, else through the page cache.
fn open_best(
    path: &Path,
    options: Options,
) -> Result<(FileHandle, FileInfo, Option<Alignment>), OpenError> {
    let failed = |what| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, what, source }
    };
    let write = !options.read_only;
    let cached = OpenOptions { write, ..OpenOptions::read() };
    if !options.page_cache
        && let Ok(handle) = FileHandle::open(path, OpenOptions { direct: true, ..cached })
    {
        let info = handle.info().map_err(failed("asking for the size"))?;
        if let Some(alignment) = alignment_of(&handle, &info) {
            return Ok((handle, info, Some(alignment)));
        }
    }
    let handle = FileHandle::open(path, cached).map_err(|source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => OpenError::Protected { path: path.to_owned() },
        _ => OpenError::Open { path: path.to_owned(), source },
    })?;
    let info = handle.info().map_err(failed("asking for the size"))?;
    Ok((handle, info, None))
}

/// None: direct I/O cannot serve this file whole.
fn alignment_of(handle: &FileHandle, info: &FileInfo) -> Option<Alignment> {
    let alignment = match info.direct_offset_align {
        0 => tried_alignment(handle)?,
        unit => Alignment { unit: u64::from(unit), memory: info.direct_memory_align as usize },
    };
    let Alignment { unit, memory } = alignment;
    // Our own buffers must do, and the last unit must end where the file does.
    let fits = unit.is_power_of_two()
        && unit <= PIECE_BYTES as u64 / 4
        && memory.max(unit as usize) <= BUFFER_ALIGN
        && info.size.is_multiple_of(unit);
    (info.kind != FileKind::Other && fits).then_some(alignment)
}

/// Finds by reading what the kernel does not say.
pub(super) fn tried_alignment(handle: &FileHandle) -> Option<Alignment> {
    let mut memory = vec![0u8; 4 * BUFFER_ALIGN];
    let start = memory.as_ptr().align_offset(2 * BUFFER_ALIGN).min(2 * BUFFER_ALIGN);
    [512, 4096].into_iter().find_map(|unit: usize| {
        // Not better aligned than what is being tried.
        let at = start + unit;
        let read = handle.read_at(&mut memory[at..at + unit], 0);
        let refused = read.is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        (!refused).then_some(Alignment { unit: unit as u64, memory: unit })
    })
}
