//! What the root says of copies that lack something: what was written of slabs with several places
//! since all had everything durably.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::disks::Shared;
use super::super::owner::{Regions, Witness};
use super::super::root::Missed;

pub(super) struct Copies {
    pub shared: Arc<Shared>,
    /// All is known that places lack of which the disk was in the pool in this epoch.
    pub since: u64,
    pub forces: u32,
}

impl Witness for Copies {
    fn missed(&mut self, slabs: &mut dyn Iterator<Item = u32>) -> Option<Missed> {
        let places = &self.shared.places;
        if !places.has_copies() {
            return None;
        }
        // First: a disk that is lost meanwhile was there then.
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        let (mut regions, mut is_lacking) = (Regions::new(), false);
        for slab in slabs {
            is_lacking |= places.is_lacking(slab);
            let dirty = places.dirty(slab);
            if dirty != 0 {
                regions.insert(slab, dirty);
            }
        }
        if !is_lacking {
            self.since = epoch;
        }
        Some(Missed { since: self.since, forces: self.forces, regions })
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("since", &self.since).finish_non_exhaustive()
    }
}
