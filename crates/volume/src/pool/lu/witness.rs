//! What the root says of copies that lack something: what was written of slabs with several places
//! since all had everything durably.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::disks::Shared;
use super::super::owner::Witness;
use super::super::root::Missed;

pub(super) struct Copies {
    pub shared: Arc<Shared>,
    /// All is known that places lack of which the disk was in the pool in this epoch.
    pub since: u64,
    pub forces: u32,
}

impl Witness for Copies {
    fn missed(&mut self, slabs: &[u32]) -> Option<Missed> {
        let places = &self.shared.places;
        if !places.has_copies() {
            return None;
        }
        // First: a disk that is lost meanwhile was there then.
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        if !slabs.iter().any(|slab| places.is_lacking(*slab)) {
            self.since = epoch;
        }
        let dirty = slabs.iter().map(|slab| (*slab, places.dirty(*slab)));
        let regions = dirty.filter(|(_, regions)| *regions != 0).collect();
        Some(Missed { since: self.since, forces: self.forces, regions })
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("since", &self.since).finish_non_exhaustive()
    }
}
