//! What copies may lack that have missed something: kept in memory while the pool is open, by
//! regions, and in the root of each LU for whoever opens it next.
//!
//! A root says what may be lacking at a place of which the disk was in the pool in some epoch or
//! later: what was written since all that were had everything durably. With what the journal says
//! since the root that is all. Of a disk the last epoch is known of which it knows everything: that
//! of its label, or where it was missing the one it came back with. Of what came before a root
//! speaks, or of a time before the LU was forced, nothing is known.

use super::super::owner::{ALL_REGIONS, regions_of};
use super::super::root::Missed;
use super::Pool;
use super::stale::STEP;
use super::table::Standing;

impl Pool {
    /// Disks that are not here may have copies, as long as there are any: what they miss is known
    /// when they are back.
    pub(super) fn leave_to_absent(&self) {
        let places = &self.shared.places;
        for slab in self.lus.borrow().values().flat_map(|granted| &granted.slabs) {
            match self.absent() {
                0 => places.leave_to_nobody(*slab),
                _ => places.leave_to_anybody(*slab),
            }
        }
    }

    /// Disks that are not here may know these numbers from before: nothing that is there counts.
    pub(super) fn note_reused(&self, slabs: &[u32]) {
        for slab in slabs {
            self.shared.places.leave_to_anybody(*slab);
            self.shared.places.touch(*slab, ALL_REGIONS);
        }
    }

    /// How often an LU was forced.
    pub(in super::super) fn forces_of(&self, lu: [u8; 16]) -> u32 {
        self.age(lu) / STEP
    }

    /// Its owner before has left what copies of an LU may lack, and nobody has written since. Gives
    /// the epoch since when that is known.
    pub fn know_missed(&self, lu: [u8; 16], missed: Option<Missed>, is_first: bool) -> u64 {
        let forces = self.forces_of(lu);
        let Some(missed) = missed.filter(|it| it.forces == forces) else { return self.epoch() };
        let know_all = {
            let tables = self.tables.borrow();
            let mut disks = tables.iter().filter(|table| table.standing != Standing::Gone);
            disks.all(|table| table.label.knows() >= missed.since)
        };
        let (places, shape) = (&self.shared.places, self.shape);
        let sums = match self.shared.sums {
            Some(_) => regions_of(shape, shape.blocks_per_slab(), 2 * shape.sum_pages()),
            None => 0,
        };
        for slab in self.granted(lu).unwrap_or_default().slabs {
            if !places.is_lacking(slab) {
                continue;
            }
            let regions = missed.regions.get(&slab).copied().unwrap_or_default() | sums;
            match know_all && is_first {
                true => places.lacks_only(slab, regions),
                false => places.touch(slab, regions),
            }
        }
        self.missed_since.borrow_mut().insert(lu, missed.since);
        missed.since
    }

    /// Whether all is known that a disk lacks of an LU which knows everything until this epoch.
    pub(super) fn knew_missed(&self, lu: [u8; 16], knows: u64) -> bool {
        self.missed_since.borrow().get(&lu).is_some_and(|since| *since <= knows)
    }
}
