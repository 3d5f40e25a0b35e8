//! How a pool cuts its disks up.
//!
//! ```text
//!   0        label
//!   1 MiB    slab table: each page has two places, one behind the other
//!   …        slabs, from the next MiB on
//!   end      label again, in the last whole page
//! ```
//!
//! Slabs are what LUs are given, extents what an LU cuts its slabs into, blocks what is said to be
//! written or not. In a pool with checksums each slab has those of its blocks behind it, in pages
//! with two places each.

use super::page::{PAGE_BYTES, PAYLOAD_BYTES};
use super::slabs::GRANT_BYTES;

/// What a map speaks of.
pub const BLOCK_BYTES: u64 = 4096;

const MIB: u64 = 1 << 20;
/// Where the slab table begins: what is before is the label, and room for boot sectors that some
/// tool may write to a disk that looks empty to it.
pub const TABLE_START: u64 = MIB;
/// Kept free at the end of a disk, with the second label in it.
const TAIL_BYTES: u64 = MIB;

/// Grants in one page of the slab table.
pub const GRANTS_PER_PAGE: u64 = (PAYLOAD_BYTES / GRANT_BYTES) as u64;

/// Checksums of blocks in one page.
pub const SUMS_PER_PAGE: u64 = (PAYLOAD_BYTES / size_of::<u32>()) as u64;

/// Sizes of slabs and extents, the same on every disk of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    slab_log: u8,
    extent_log: u8,
    has_sums: bool,
}

/// Sizes that no pool can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unshapely {
    #[error("slabs are 4 MiB to 256 MiB, a power of two")]
    Slab,
    #[error("extents are 64 KiB to 4 MiB, a power of two, and at least four to a slab")]
    Extent,
}

/// Where things are on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    /// Bytes of the disk, in whole pages.
    size: u64,
    slabs: u32,
    first_slab: u64,
}

/// A disk that is too small, or larger than a slab table can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it has room for no slab; a disk of this pool has at least {0} bytes")]
    TooSmall(u64),
    #[error("it has more slabs than can be counted; make a pool with larger ones")]
    TooLarge,
}

impl Default for Shape {
    fn default() -> Self {
        Self { slab_log: 24, extent_log: 18, has_sums: false }
    }
}

impl Shape {
    pub fn new(slab_bytes: u64, extent_bytes: u64) -> Result<Self, Unshapely> {
        let log = |bytes: u64, least, most| {
            let log = bytes.checked_ilog2().filter(|_| bytes.is_power_of_two())?;
            (least..=most).contains(&log).then_some(log as u8)
        };
        let slab_log = log(slab_bytes, 22, 28).ok_or(Unshapely::Slab)?;
        let extent_log = log(extent_bytes, 16, 22).ok_or(Unshapely::Extent)?;
        match extent_log + 2 <= slab_log {
            true => Ok(Self { slab_log, extent_log, has_sums: false }),
            false => Err(Unshapely::Extent),
        }
    }

    /// The same with checksums.
    pub fn with_sums(self) -> Self {
        Self { has_sums: true, ..self }
    }

    /// The shape in which slabs take so much of a disk.
    pub fn of_stride(stride: u64, extent_bytes: u64) -> Result<Self, Unshapely> {
        let slab_log = stride.checked_ilog2().ok_or(Unshapely::Slab)?;
        let plain = Self::new(1 << slab_log, extent_bytes)?;
        let shapes = [plain, plain.with_sums()];
        shapes.into_iter().find(|shape| shape.stride() == stride).ok_or(Unshapely::Slab)
    }

    pub fn has_sums(self) -> bool {
        self.has_sums
    }

    /// Pages of checksums of a slab.
    pub fn sum_pages(self) -> u64 {
        if self.has_sums { self.blocks_per_slab().div_ceil(SUMS_PER_PAGE) } else { 0 }
    }

    /// What a slab takes of a disk.
    pub fn stride(self) -> u64 {
        self.slab_bytes() + self.sum_pages() * 2 * PAGE_BYTES as u64
    }

    pub fn blocks_per_slab(self) -> u64 {
        self.slab_bytes() / BLOCK_BYTES
    }

    pub fn slab_bytes(self) -> u64 {
        1 << self.slab_log
    }

    pub fn extent_bytes(self) -> u64 {
        1 << self.extent_log
    }

    pub fn extents_per_slab(self) -> u64 {
        1 << (self.slab_log - self.extent_log)
    }

    pub fn blocks_per_extent(self) -> u64 {
        self.extent_bytes() / BLOCK_BYTES
    }

    /// Pages of a map that an extent has room for, each with two places.
    pub fn pages_per_chunk(self) -> u64 {
        self.extent_bytes() / (2 * PAGE_BYTES as u64)
    }
}

impl Layout {
    pub fn new(shape: Shape, disk_bytes: u64) -> Result<Self, Unfit> {
        let size = disk_bytes / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let start_for = |slabs: u64| {
            let pages = slabs.div_ceil(GRANTS_PER_PAGE);
            (TABLE_START + pages * 2 * PAGE_BYTES as u64).next_multiple_of(MIB)
        };
        let too_small = Unfit::TooSmall(start_for(1) + shape.stride() + TAIL_BYTES);
        let room = size.checked_sub(TABLE_START + TAIL_BYTES).ok_or(too_small)?;
        // As many as there would be without a table, then fewer until the table has room too.
        let mut slabs = room / shape.stride();
        while slabs > 0 && start_for(slabs) + slabs * shape.stride() + TAIL_BYTES > size {
            slabs -= 1;
        }
        if slabs == 0 {
            return Err(too_small);
        }
        let first_slab = start_for(slabs);
        let slabs = u32::try_from(slabs).map_err(|_| Unfit::TooLarge)?;
        Ok(Self { shape, size, slabs, first_slab })
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn slabs(&self) -> u32 {
        self.slabs
    }

    /// Where the two labels are.
    pub fn labels(&self) -> [u64; 2] {
        [0, self.size - PAGE_BYTES as u64]
    }

    pub fn table_pages(&self) -> u64 {
        u64::from(self.slabs).div_ceil(GRANTS_PER_PAGE)
    }

    /// The two places of a page of the slab table.
    pub fn table_places(&self, page: u64) -> [u64; 2] {
        debug_assert!(page < self.table_pages());
        let first = TABLE_START + page * 2 * PAGE_BYTES as u64;
        [first, first + PAGE_BYTES as u64]
    }

    /// Where a slab begins. `None`: the disk has no such slab.
    pub fn slab(&self, index: u32) -> Option<u64> {
        let at = self.first_slab + u64::from(index) * self.shape.stride();
        (index < self.slabs).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_that_make_no_pool_are_refused() {
        assert_eq!(Shape::new(16 << 20, 256 << 10), Ok(Shape::default()));
        assert_eq!(Shape::new(3 << 20, 256 << 10), Err(Unshapely::Slab));
        assert_eq!(Shape::new(16 << 20, 100), Err(Unshapely::Extent));
        assert_eq!(Shape::new(4 << 20, 2 << 20), Err(Unshapely::Extent));
        let Err(Unfit::TooSmall(least)) = Layout::new(Shape::default(), 5) else { panic!() };
        assert!(Layout::new(Shape::default(), least - 1).is_err());
        assert_eq!(Layout::new(Shape::default(), least).map(|layout| layout.slabs()), Ok(1));
    }

    proptest! {
        #[test]
        fn nothing_overlaps(size in 20_u64 << 20..1 << 45, slab in 22_u32..=28, has_sums: bool) {
            let shape = Shape::new(1 << slab, 1 << 18).unwrap();
            let shape = if has_sums { shape.with_sums() } else { shape };
            prop_assert_eq!(Shape::of_stride(shape.stride(), 1 << 18), Ok(shape));
            let Ok(layout) = Layout::new(shape, size) else { return Ok(()) };
            let last_page = layout.table_places(layout.table_pages() - 1)[1] + PAGE_BYTES as u64;
            prop_assert!(layout.table_pages() * GRANTS_PER_PAGE >= u64::from(layout.slabs()));
            prop_assert!(last_page <= layout.slab(0).unwrap());
            let end = layout.slab(layout.slabs() - 1).unwrap() + shape.stride();
            prop_assert!(end <= layout.labels()[1] && layout.labels()[1] < size);
            prop_assert_eq!(layout.slab(layout.slabs()), None);
            // Nothing is wasted that would make a slab and what its table needs.
            let over = layout.labels()[1] - end;
            prop_assert!(over < shape.stride() + 3 * MIB, "{} bytes are left over", over);
        }
    }
}
