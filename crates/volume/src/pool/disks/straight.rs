//! Writes with checksums that go straight to a disk.
//!
//! One to a slab of one place, to blocks of an open region that nobody else has, with its page of
//! sums in memory, needs nobody: it is begun and ended without waiting. What finds anything else
//! goes by `sums`.

use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Device, Sgl};

use super::super::journal::Spot;
use super::super::locks::Key;
use super::super::owner::regions_of;
use super::super::shape::BLOCK_BYTES;
use super::super::sums::{SumPage, sum_of};
use super::Disks;

/// Blocks in memory of ours, with their sums. A client may change its own while it is written, and
/// the sums, and all places, shall be of the same.
pub struct Ours {
    buffer: Buffer,
    sums: Vec<u32>,
}

impl Ours {
    pub fn sgl(&self) -> Sgl<'_> {
        self.buffer.sgl()
    }

    pub fn sums(&self) -> &[u32] {
        &self.sums
    }
}

/// A write that is on its way, with what it has as long as it is.
pub struct Straight {
    ours: Ours,
    page: Arc<SumPage>,
    first: usize,
    key: Key,
}

impl Straight {
    pub fn data(&self) -> Sgl<'_> {
        self.ours.sgl()
    }
}

impl Disks {
    /// A copy of whole blocks, with their sums, for [`Disks::let_go`].
    pub fn ours(&self, data: &Sgl<'_>) -> Ours {
        let new = |len| Ours { buffer: Buffer::zeroed(len), sums: Vec::new() };
        let Ours { mut buffer, mut sums } = self.spare_ours.take(data.len(), new);
        buffer.sgl().copy_from(data);
        let bytes = buffer.bytes().expect("nobody else knows it");
        sums.clear();
        sums.extend(bytes.chunks_exact(BLOCK_BYTES as usize).map(sum_of));
        Ours { buffer, sums }
    }

    pub fn let_go(&self, ours: Ours) {
        self.spare_ours.keep(ours, |ours| &ours.buffer);
    }

    /// Gets ready to write blocks straight to the device there, if they may be:
    /// [`Disks::end_straight`] follows. As long as that takes nobody gives the slab another place
    /// or closes its regions: the caller sees to it that he is waited for.
    pub fn begin_straight(
        &self,
        at: Spot,
        data: &Sgl<'_>,
    ) -> Option<(Rc<dyn Device>, u64, Straight)> {
        let shared = self.shared();
        let (block, count) = (u64::from(at.block), data.len() as u64 / BLOCK_BYTES);
        let regions = regions_of(shared.shape, block, count);
        if shared.places.open(at.slab) & regions != regions {
            return None;
        }
        let (device, offset) = self.find(shared.places.sole(at.slab)?, at)?;
        let (page, first) = shared.sums.as_ref()?.page_of(at, count)?;
        let key = shared.locks.try_lock(at.slab, block, count)?;
        Some((device, offset, Straight { ours: self.ours(data), page, first, key }))
    }

    /// The write has succeeded, or nobody knows what is there.
    pub fn end_straight(&self, straight: Straight, is_written: bool) {
        let Straight { ours, page, first, key } = straight;
        page.set(first, ours.sums().iter().map(|sum| is_written.then_some(*sum)));
        self.shared().locks.unlock(key);
        self.let_go(ours);
    }
}
