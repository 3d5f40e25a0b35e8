//! The memory regions that a front end has declared, without their mappings: which there are, that
//! they are possible, and that they do not overlap. Mapping them is the owner's work.

use super::error::Violation;
use wire::vhost_user::MemRegion;

/// One region of guest memory, as the front end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    pub guest_address: u64,
    pub size: u64,
    pub user_address: u64,
    /// Where the region starts in its file; not always a multiple of the page size.
    pub mmap_offset: u64,
}

impl MemoryRegion {
    fn has_extent(&self) -> bool {
        let starts = [self.guest_address, self.user_address, self.mmap_offset];
        self.size > 0 && starts.iter().all(|start| start.checked_add(self.size).is_some())
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.guest_address < other.guest_address + other.size
            && other.guest_address < self.guest_address + self.size
    }

    /// REM_MEM_REG names a region by everything but its offset in the file.
    fn is_same(&self, other: &Self) -> bool {
        self.guest_address == other.guest_address
            && self.user_address == other.user_address
            && self.size == other.size
    }
}

impl std::fmt::Display for MemoryRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "of {:#x} bytes at guest address {:#x}, user address {:#x}, file offset {:#x}",
            self.size, self.guest_address, self.user_address, self.mmap_offset
        )
    }
}

impl From<&MemRegion> for MemoryRegion {
    fn from(wire: &MemRegion) -> Self {
        Self {
            guest_address: wire.guest_address.get(),
            size: wire.size.get(),
            user_address: wire.user_address.get(),
            mmap_offset: wire.mmap_offset.get(),
        }
    }
}

impl From<&MemoryRegion> for MemRegion {
    fn from(region: &MemoryRegion) -> Self {
        Self {
            guest_address: region.guest_address.into(),
            size: region.size.into(),
            user_address: region.user_address.into(),
            mmap_offset: region.mmap_offset.into(),
        }
    }
}

/// The declared regions, at most as many as were offered.
#[derive(Clone)]
pub(super) struct MemoryTable {
    regions: Vec<MemoryRegion>,
    regions_max: usize,
}

impl MemoryTable {
    pub(super) fn new(regions_max: usize) -> Self {
        Self { regions: Vec::new(), regions_max }
    }

    pub(super) fn replace(
        &mut self,
        regions: impl Iterator<Item = MemoryRegion>,
    ) -> Result<(), Violation> {
        self.regions.clear();
        for region in regions {
            self.add(region)?;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, region: MemoryRegion) -> Result<(), Violation> {
        if !region.has_extent() {
            return Err(Violation::RegionExtent(region));
        }
        if self.regions.iter().any(|other| other.overlaps(&region)) {
            return Err(Violation::RegionOverlap(region));
        }
        if self.regions.len() >= self.regions_max {
            return Err(Violation::RegionsMax { max: self.regions_max });
        }
        self.regions.push(region);
        Ok(())
    }

    pub(super) fn remove(&mut self, region: MemoryRegion) -> Result<(), Violation> {
        match self.regions.iter().position(|other| other.is_same(&region)) {
            Some(at) => {
                self.regions.swap_remove(at);
                Ok(())
            }
            None => Err(Violation::RegionUnknown(region)),
        }
    }

    pub(super) fn regions(&self) -> &[MemoryRegion] {
        &self.regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guest_address: u64, size: u64) -> MemoryRegion {
        MemoryRegion { guest_address, size, user_address: guest_address + 0x7000, mmap_offset: 0 }
    }

    #[test]
    fn neighbours_fit_and_overlaps_do_not() {
        let mut table = MemoryTable::new(8);
        table.add(region(0x1000, 0x1000)).unwrap();
        table.add(region(0x2000, 0x1000)).unwrap();
        table.add(region(0, 0x1000)).unwrap();
        for bad in [region(0x1fff, 1), region(0, 0x10_0000), region(0x2800, 0x1000)] {
            assert_eq!(table.add(bad), Err(Violation::RegionOverlap(bad)));
        }
        assert_eq!(table.regions().len(), 3);
    }

    #[test]
    fn impossible_regions_are_refused() {
        let mut table = MemoryTable::new(8);
        let mut wraps = region(0x1000, 0x1000);
        wraps.mmap_offset = u64::MAX;
        for bad in [region(0x1000, 0), region(u64::MAX - 0x8000, 0x9000), wraps] {
            assert_eq!(table.add(bad), Err(Violation::RegionExtent(bad)));
        }
    }

    #[test]
    fn removal_needs_the_very_region_but_not_its_offset() {
        let mut table = MemoryTable::new(1);
        table.add(region(0, 0x1000)).unwrap();
        assert_eq!(table.add(region(0x1000, 1)), Err(Violation::RegionsMax { max: 1 }));
        let other = region(0, 0x800);
        assert_eq!(table.remove(other), Err(Violation::RegionUnknown(other)));
        table.remove(MemoryRegion { mmap_offset: 77, ..region(0, 0x1000) }).unwrap();
        assert!(table.regions().is_empty());
    }

    #[test]
    fn a_new_table_replaces_the_old_one() {
        let mut table = MemoryTable::new(2);
        table.replace([region(0, 0x1000), region(0x1000, 0x1000)].into_iter()).unwrap();
        table.replace([region(0x800, 0x1000)].into_iter()).unwrap();
        assert_eq!(table.regions(), [region(0x800, 0x1000)]);
    }
}
