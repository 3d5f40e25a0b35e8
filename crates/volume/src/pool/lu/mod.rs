//! An LU of a pool, as a device on every core.
//!
//! ```text
//!   handle (each core) ── reads, and writes to blocks that are written and sealed ──▶ disk
//!     │ everything else, by message unless it is the same core
//!   service (one core) ── the owner's orders ──▶ disk
//! ```
//!
//! | what | where |
//! |---|---|
//! | a core's device: what goes straight through | `handle` |
//! | requests of several steps | `work` |
//! | the owner's orders, carried out | `service` |
//! | making, opening | `open` |
//! | opening one that has failed again, while it is used | `reopen` |
//! | another size | `resize` |
//! | snapshots, and the way back to one | `snapshots`, `service::layers` |
//! | slabs that get other places | `service::copies` |
//! | everything looked at | `service::scrub` |
//! | what it lies over while it is brought into the pool | `below`, `service::bring` |
//! | space for those that have all at once | `thick` |
//! | what was done | `counts` |

mod below;
mod counts;
mod handle;
mod open;
mod reopen;
mod resize;
mod service;
mod snapshots;
#[cfg(test)]
pub(super) mod tests;
mod thick;
mod witness;
mod work;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use block::{Device, Error, ErrorKind, Geometry, Health, OpSet};
use rt::handles::{HandleId, Ledger, Member, each};
use rt::sync::Reply;
use rt::{Core, Placed};

use super::disks::Shared;
use super::memory::{Keeper, Memory};
use super::root::About;
use super::scrub::{Cursor, Depth, Step};
use super::shape::{BLOCK_BYTES, Shape};
use below::Depths;
use handle::{Handle, PoolDevice};
use service::Service;
use snapshots::Readers;

pub use below::Brought;
pub use counts::Counts;
pub(super) use open::{Left, Whence, read_heads, read_left, read_root, read_root_pages};
pub use open::{LuError, NewLu, Seat, thick_bytes};
pub use resize::Unresized;
pub use service::{Copied, Folded, LayerAbout, Mended};
pub use snapshots::{Still, View, snapshot_all, still};
pub use thick::{Short, Ungranted};

/// Longest exclusive step.
const EXCLUSIVE_MAX: u32 = 1 << 20;

/// One LU of a pool: what its handles have in common, and the address of its owner.
pub struct Lu {
    id: [u8; 16],
    shape: Shape,
    block_size: u32,
    size: AtomicU64,
    shared: Arc<Shared>,
    owner: Placed<Service>,
    ledger: Arc<Ledger<Handle>>,
    readers: Arc<Readers>,
    depths: Arc<Depths>,
    memory: Arc<Memory>,
    /// Nothing is written.
    has_failed: Arc<AtomicBool>,
    /// Nothing is begun any more.
    is_closed: AtomicBool,
    /// One change of the LU at a time.
    is_changing: AtomicBool,
}

impl Lu {
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The LU as a device of this core.
    pub fn device(self: &Arc<Self>, core: &Core) -> Rc<dyn Device> {
        self.device_of(core, None)
    }

    fn device_of(self: &Arc<Self>, core: &Core, view: Option<Arc<View>>) -> Rc<dyn Device> {
        let id = HandleId::fresh();
        let handle = Handle::new(self.clone(), core, (id, view));
        self.ledger.join(Member::new(core, id, &handle), &handle);
        // Whoever resized it before this one joined has not told it.
        handle.look();
        // Whoever has brought it before this one joined has not told it.
        handle.look_below();
        // Nor has its owner, that it has failed.
        if self.health() == Health::Failed {
            handle.stop();
        }
        // Whoever closed it before this one joined has not told it.
        if self.is_closed.load(Ordering::Acquire) {
            handle.refuse();
        }
        Rc::new(PoolDevice::new(handle))
    }

    /// Ends everything: from now on its devices answer that it is offline, what they have begun
    /// ends before this does, and then nothing of the LU runs any more. What was answered is there
    /// when it is opened again, in this process or another one; slabs may be revoked. What waits
    /// for something that is not about to happen, as for space, is refused.
    pub async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        // None: its core has ended, and so has everything there.
        let _ = self.owner.call(|service| async move { service.begin_closing() }).await;
        let refused = |handle: Rc<Handle>| async move {
            handle.refuse();
            handle.quiet().await;
        };
        each(self.ledger.members(), refused).await;
        let _ = self.owner.call(Service::close).await;
    }

    fn health(&self) -> Health {
        match self.has_failed.load(Ordering::Acquire) {
            true => Health::Failed,
            false => Health::Good,
        }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            physical_block_size: BLOCK_BYTES as u32,
            discard_granularity: BLOCK_BYTES as u32,
            exclusive_max: EXCLUSIVE_MAX,
            ops: OpSet::DISCARD
                | OpSet::WRITE_ZEROES
                | OpSet::COMPARE_AND_WRITE
                | OpSet::OR_WRITE
                | OpSet::STATUS,
            ..Geometry::plain(self.size(), self.block_size)
        }
    }

    /// What it is called, and how large it is.
    pub async fn about(&self) -> Result<About, Error> {
        self.ask(|service| async move { Ok(service.about()) }).await
    }

    /// Extents that it has, and those of them that hold nothing.
    pub async fn extents(&self) -> Result<(u64, u64), Error> {
        self.ask(|service| async move { Ok(service.extents()) }).await
    }

    /// Brings a slab of it from one disk to another of the same failure group while it is used: to
    /// this one, or to the roomiest. After an error it is where it was, or the pool knows better
    /// when it is opened.
    pub async fn move_slab(&self, number: u32, from: u32, to: Option<u32>) -> Result<u64, Error> {
        self.ask(move |service| service.move_slab(number, (from, to))).await
    }

    /// Brings so many slabs of copies that have missed something up to date while the LU is used.
    /// None lacking, and all copies are read again.
    pub async fn mend(&self, most: usize) -> Result<Mended, Error> {
        self.ask(move |service| service.mend(most)).await
    }

    /// Waits until everybody has arrived who is on the way to a place that a slab of it had.
    pub async fn quiet(&self) -> Result<(), Error> {
        self.ask(|service| async move {
            service.all_quiet().await;
            Ok(())
        })
        .await
    }

    /// A step of a walk over everything that it has, from there on and for about so many bytes: see
    /// [`scrub`](super::scrub).
    pub async fn scrub(&self, from: Cursor, what: (Depth, u64)) -> Result<Step, Error> {
        self.ask(move |service| service.scrub(from, what)).await
    }

    /// The next pages for the backup of this number, or the first ones of a new one, until it says
    /// that they are the last.
    pub async fn back_up(&self, number: Option<u64>) -> Result<Copied, Error> {
        self.ask(move |service| service.back_up(number)).await
    }

    /// Brings so many extents more of what the LU lies over while it is used. Call it until that is
    /// done: whoever does that has the pace, by how many bytes were read for it. An error: some
    /// could not be brought, and are tried again when others are.
    pub async fn bring(&self, extents: usize) -> (Result<Brought, Error>, u64) {
        let asked = self.owner.call(move |service: Rc<Service>| service.bring(extents));
        asked.await.unwrap_or_else(|| (Err(closed()), 0))
    }

    /// How far that is.
    pub async fn brought(&self) -> Result<Brought, Error> {
        self.ask(|service| async move { Ok(service.brought()) }).await
    }

    /// What its owner has had done since it was opened.
    pub async fn counts(&self) -> Result<Counts, Error> {
        self.ask(|service| async move { Ok(service.counts()) }).await
    }

    /// The pool has so many slabs left for it: there may be some to be had again, or it is to give
    /// back what it does not need.
    pub async fn may_grow(&self, share: u64) -> Result<(), Error> {
        self.ask(move |service| async move {
            service.may_grow(share);
            Ok(())
        })
        .await
    }

    /// Asks the owner, where it is.
    async fn ask<T, F>(&self, f: impl FnOnce(Rc<Service>) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + 'static,
    {
        self.owner.call(f).await.unwrap_or_else(|| Err(closed()))
    }

    fn alone(&self) -> Result<Alone<'_>, Error> {
        if self.is_changing.swap(true, Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Busy).note("the LU is being changed"));
        }
        Ok(Alone(&self.is_changing))
    }
}

impl Keeper for Lu {
    fn let_go(&self, bytes: usize) -> Reply<usize> {
        self.owner.call(move |service| service.let_go(bytes))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Offline).note("the LU was closed")
}

/// The one change of an LU that is under way.
struct Alone<'a>(&'a AtomicBool);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
