//! Regular files and block devices.
//!
//! A request whose range and memory suit the file goes straight to the ring: one check, one entry,
//! no future and no allocation; its completion is the caller's own. Everything else (memory or
//! ranges that direct I/O cannot take, zeroing, exclusive steps) is a task over the same file.
//!
//! **Direct I/O** where the file offers it, with the alignment that the kernel names (or that a
//! trial read finds), otherwise through the page cache; FUA and flush mean the same either way.
//!
//! **Zeroing.** Discarded space must read zero, so a discard is a punched hole, also on a block
//! device, where the kernel then promises zeroes (a plain discard there promises nothing). Where
//! neither the hole nor the kernel's zeroing is offered, zeroes are written.
//!
//! **Blocks.** An LU's block that is larger than the store's own is not written in one step: a
//! power loss can leave part of it. One that is smaller is read, changed and written in a range
//! that is closed to others meanwhile. Nodes that share an image do not see each other's closed
//! ranges, so shared images offer no exclusive steps and no blocks smaller than the store's.
//!
//! **A size that is not of whole blocks** is refused, with the command that makes it so: serving
//! such an image rounded down would hide its last bytes, rounded up would grow it unasked.
//!
//! **Locks** on the image keep other nodes and QEMU away, and let a restarted node wait for
//! requests of its former process that are still in the kernel: see `claim`.
//!
//! | what | where |
//! |---|---|
//! | opening: checks, alignment, locks | `open` |
//! | a core's handle and the fast path | `handle` |
//! | tasks: bounced, partial, zeroing, exclusive steps, status | `work` |
//! | aligned memory | `bounce` |

mod bounce;
mod claim;
mod handle;
mod open;
mod work;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use block::{Device, Error, ErrorKind, Geometry};
use rt::handles::{HandleId, Ledger, Member, Span, Ticket, each};
use rt::{Allocate, Core, FileHandle, FileKind};

use crate::{Boxed, Store};
use handle::{FileDevice, Handle};

pub use claim::NODE_LOCKS;
pub use open::{OpenError, Options};

/// One LU in a file or block device.
pub struct FileStore {
    handle: FileHandle,
    /// Keeps a block device from being mounted; no I/O goes through it.
    _claim: Option<FileHandle>,
    kind: FileKind,
    /// What offsets and lengths must be multiples of; 1 through the page cache.
    unit: u64,
    /// What addresses and lengths of memory must be multiples of.
    memory_align: usize,
    /// What a device's zeroing wants ranges to be multiples of.
    zeroing_unit: u64,
    /// Shape and abilities; the size is in `size`.
    geometry: Geometry,
    size: AtomicU64,
    ledger: Arc<Ledger<Handle>>,
    resizing: AtomicBool,
    lacks: Lacks,
}

/// What the file turned out not to offer.
#[derive(Default)]
struct Lacks {
    holes: AtomicBool,
    zeroing: AtomicBool,
}

impl Lacks {
    fn of(&self, how: Allocate) -> &AtomicBool {
        match how {
            Allocate::PunchHole => &self.holes,
            Allocate::ZeroRange | Allocate::Reserve | Allocate::ReserveBeyond => &self.zeroing,
        }
    }
}

impl FileStore {
    /// Whether I/O bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.unit > 1
    }

    async fn resize_to(self: Arc<Self>, core: Core, size: u64) -> Result<(), Error> {
        let whole = self.unit.max(u64::from(self.geometry.block_size));
        if !size.is_multiple_of(whole) {
            let note = format!("{size} bytes are not a multiple of {whole}");
            return Err(Error::new(ErrorKind::Invalid).note(note));
        }
        if self.geometry.read_only {
            return Err(ErrorKind::ReadOnly.into());
        }
        if self.resizing.swap(true, Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Busy).note("another resize is under way"));
        }
        let old = self.size();
        let resized = match size < old {
            true => self.shrink(&core, old, size).await,
            false => self.grow(&core, size).await,
        };
        self.resizing.store(false, Ordering::Release);
        resized
    }

    async fn grow(&self, core: &Core, size: u64) -> Result<(), Error> {
        let (file, kind) = (self.handle.clone(), self.kind);
        let grown = core.blocking(move || match kind {
            // Never shorter: the file may have more than the LU had.
            FileKind::Regular if file.info()?.size < size => {
                file.set_len(size)?;
                file.sync()?;
                Ok(size)
            }
            _ => file.info().map(|info| info.size),
        });
        let has = result_of(grown.await, "resize")?;
        if has < size {
            let note = format!("the device has only {has} bytes");
            return Err(Error::new(ErrorKind::Invalid).note(note));
        }
        self.tell(size).await;
        Ok(())
    }

    async fn shrink(self: &Arc<Self>, core: &Core, old: u64, size: u64) -> Result<(), Error> {
        let tail = Span { start: size, end: old };
        // Writes there have ended or wait, and will find the new size when they go on.
        let ticket = Ticket::take(&self.ledger, None, tail).await;
        self.tell(size).await;
        let quiet = move |handle: Rc<Handle>| async move { handle.quiet(tail).await };
        each(self.ledger.members(), quiet).await;
        let (file, kind) = (self.handle.clone(), self.kind);
        let cut = core.blocking(move || match kind {
            FileKind::Regular => file.set_len(size).and_then(|()| file.sync()),
            _ => Ok(()),
        });
        let cut = result_of(cut.await, "resize");
        if cut.is_err() {
            self.tell(old).await;
        }
        drop(ticket);
        cut
    }

    /// Gives every handle the new size.
    async fn tell(&self, size: u64) {
        self.size.store(size, Ordering::Release);
        let look = |handle: Rc<Handle>| async move { handle.look() };
        each(self.ledger.members(), look).await;
    }
}

/// The result of blocking work as an outcome of the waist.
fn result_of<T>(reply: Option<std::io::Result<T>>, what: &'static str) -> Result<T, Error> {
    let lost = || Error::new(ErrorKind::Lost).note(what);
    reply.ok_or_else(lost)?.map_err(|error| match error.raw_os_error() {
        Some(errno) => Error::from_errno(errno, what),
        None => Error::new(ErrorKind::Medium).note(format!("{what}: {error}")),
    })
}

impl Store for FileStore {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        let id = HandleId::fresh();
        let handle = Rc::new(Handle::new(self.clone(), core, id));
        self.ledger.join(Member::new(core, id, &handle), &handle);
        // A resize that did not know of this handle is over, or its size is there already.
        handle.look();
        Rc::new(FileDevice::new(handle))
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn resize<'a>(self: Arc<Self>, core: &'a Core, size: u64) -> Boxed<'a, Result<(), Error>> {
        // A task of its own: it must not stop half-way when nobody waits any more.
        Box::pin(core.spawn_task(self.resize_to(core.clone(), size)))
    }

    fn settled<'a>(self: Arc<Self>, _core: &'a Core) -> Boxed<'a, ()> {
        // Alone with all of it: what was asked for before has ended.
        Box::pin(async move { drop(Ticket::take(&self.ledger, None, Span::ALL).await) })
    }
}
