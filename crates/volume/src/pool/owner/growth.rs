//! How an LU gets slabs: some ahead of what it writes, and as few as others need it to.

use std::mem::take;

use super::{Order, Owner, RESERVED_EXTENTS};

/// An LU grows by one part in so many of what it has, and asks when half of that is left.
const PARTS: u64 = 8;
/// And by one part in so many of its size at least.
const SIZE_PARTS: u64 = 1024;
/// Slabs that it asks for at most, at one time.
const SLABS_MAX: u64 = 64;
/// And by one part in so many of what the pool has left for it at most.
const SHARE_PARTS: u64 = 8;
/// Whenever writes had to wait for space it grows by twice as much from then on, up to so many
/// slabs and one part in so many of its size.
const PACE_SLABS_MAX: u64 = 8;
const PACE_SIZE_PARTS: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Possible,
    Asked,
    /// There was none to be had.
    Refused,
}

/// Whether the LU gets more space, and how much.
pub(super) struct Growth {
    stage: Stage,
    /// Slabs that the pool has left for it.
    share: u64,
    /// Slabs that it grows by at least.
    pace: u64,
    /// Somebody waits for them.
    pub is_behind: bool,
}

impl Default for Growth {
    fn default() -> Self {
        Self { stage: Stage::Possible, share: 0, pace: 1, is_behind: false }
    }
}

impl Growth {
    pub fn is_asked(&self) -> bool {
        self.stage == Stage::Asked
    }
}

impl Owner {
    /// The pool has so many slabs left for it.
    pub fn has_share(&mut self, slabs: u64) {
        self.growth.share = slabs;
    }

    /// These slabs are the LU's; none if there are none to be had.
    pub fn granted(&mut self, slabs: &[u32]) -> Vec<Order> {
        slabs.iter().for_each(|slab| self.space.grant(*slab));
        if take(&mut self.growth.is_behind) && !slabs.is_empty() {
            let most = self.about().size / self.site.shape.slab_bytes() / PACE_SIZE_PARTS;
            self.growth.pace = (self.growth.pace * 2).min(most.clamp(1, PACE_SLABS_MAX));
        }
        self.growth.stage = if slabs.is_empty() { Stage::Refused } else { Stage::Possible };
        self.retry_for_room();
        self.given()
    }

    /// There may be slabs to be had again; or fewer, and what the LU does not need is given back.
    pub fn may_grow(&mut self) -> Vec<Order> {
        if self.growth.stage == Stage::Refused {
            self.growth.stage = Stage::Possible;
        }
        self.retry_for_room();
        self.given()
    }

    /// Asks for more space, unless that was done.
    pub(super) fn grow(&mut self) {
        if self.growth.stage == Stage::Possible {
            self.growth.stage = Stage::Asked;
            self.orders.push(Order::Grow { slabs: self.growth_slabs() });
        }
    }

    /// How much it grows by: a grant takes syncs, and a large LU may need many a second. Where
    /// little is left it is less, because others may need it.
    fn growth_slabs(&self) -> u64 {
        let shape = self.site.shape;
        let has = self.space.extents() / shape.extents_per_slab();
        let size = self.about().size / shape.slab_bytes();
        let wanted = (has / PARTS).max(size / SIZE_PARTS);
        let most = (self.growth.share / SHARE_PARTS).max(1);
        wanted.clamp(self.growth.pace, SLABS_MAX).min(most)
    }

    /// Asks for more space in time, and gives back what is far more than enough.
    pub(super) fn size_up(&mut self) {
        if self.about().thick {
            return self.give_surplus_back();
        }
        let per_slab = self.site.shape.extents_per_slab();
        let kept = RESERVED_EXTENTS + self.layers.owed();
        let ahead = self.growth_slabs() * per_slab / 2;
        if self.space.free_extents() < kept + ahead {
            return self.grow();
        }
        // What was just granted is not too much, also if less is left now.
        let enough = kept + 4 * ahead;
        while !self.growth.is_asked()
            && self.space.free_extents() >= enough + per_slab
            && let Some(slab) = self.space.withdraw()
        {
            self.surplus.push(slab);
        }
    }
}
