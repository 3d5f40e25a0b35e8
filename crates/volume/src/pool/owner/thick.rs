//! LUs that are thick: they have the extents at once that they can ever need, so that no write
//! fails for want of space, whatever others do in the pool.
//!
//! ```text
//!   the LU's ─┬─ journal, root
//!             ├─ what frozen layers hold, and their maps once more: folding moves them
//!             └─ the top layer, as if every block of it were written
//! ```
//!
//! A write that takes an extent leaves one less to be written, so only what makes more of that asks
//! for space: making the LU, growing it, a new layer. That is granted before, or refused.

use super::super::map::Form;
use super::super::page::PAYLOAD_BYTES;
use super::super::root::{SNAPSHOT_NAME_BYTES_MAX, USED_HEAD_BYTES, body_bytes, regions_bytes};
use super::super::shape::Shape;
use super::super::space::Space;
use super::{Order, Owner, RESERVED_EXTENTS};

/// What an LU shall have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Being larger.
    Size(u64),
    /// Another layer, with all that is in the top one being overwritten.
    Layer,
}

/// What a map of a whole LU takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whole {
    extents: u64,
    pages: u64,
    chunks: u64,
}

impl Whole {
    fn of(shape: Shape, size: u64) -> Self {
        let extents = size.div_ceil(shape.extent_bytes());
        let pages = extents.div_ceil(Form::new(shape).extents());
        Self { extents, pages, chunks: pages.div_ceil(shape.pages_per_chunk()) }
    }

    fn body(self) -> u64 {
        layer_body(self.pages, self.chunks)
    }
}

fn layer_body(pages: u64, chunks: u64) -> u64 {
    body_bytes(SNAPSHOT_NAME_BYTES_MAX as u64, pages, chunks)
}

/// Bytes in which a root says what there is to say of so many extents.
fn said_bytes(shape: Shape, extents: u64) -> u64 {
    let slabs = extents.div_ceil(shape.extents_per_slab()) + 1;
    USED_HEAD_BYTES + Space::encoded_bytes_max(shape, slabs) + regions_bytes(slabs)
}

/// Extents that each body of a root needs besides those of the heads.
fn beyond(shape: Shape, bytes: u64) -> u64 {
    let pages = bytes.div_ceil(PAYLOAD_BYTES as u64);
    let beside = (shape.blocks_per_extent() - 2) / 2;
    pages.saturating_sub(beside).div_ceil(shape.blocks_per_extent())
}

/// Extents of a new LU of this size that is thick, with so many for its journal.
pub fn extents_of_new(shape: Shape, size: u64, ring: u64) -> u64 {
    let whole = Whole::of(shape, size);
    let extents = 1 + ring + whole.extents + whole.chunks + RESERVED_EXTENTS;
    let body = ring * size_of::<u64>() as u64 + whole.body() + said_bytes(shape, 2 * extents);
    extents + 2 * beyond(shape, body)
}

impl Owner {
    /// Slabs that a thick LU needs before it may be so; none for one that is thin.
    pub fn lacks(&self, room: Room) -> u64 {
        if !self.about().thick {
            return 0;
        }
        let freed = self.quiescing.values().filter(|(_, place)| place.is_some()).count() as u64;
        let has = self.space.free_extents() + self.space.waiting_extents() + freed;
        let per_slab = self.site.shape.extents_per_slab();
        self.needs(Some(room)).saturating_sub(has).div_ceil(per_slab)
    }

    /// These slabs are the LU's, which it lacked.
    pub fn reserved(&mut self, slabs: &[u32]) -> Vec<Order> {
        self.may_have_surplus = false;
        slabs.iter().for_each(|slab| self.space.grant(*slab));
        self.retry_for_room();
        self.given()
    }

    /// There may be more than a thick LU needs.
    pub fn look_for_surplus(&mut self) -> Vec<Order> {
        self.may_have_surplus = true;
        self.given()
    }

    /// Gives back what a thick LU does not need any more.
    pub(super) fn give_surplus_back(&mut self) {
        if !self.may_have_surplus || !self.changes.is_empty() {
            return;
        }
        self.may_have_surplus = false;
        let (per_slab, kept) = (self.site.shape.extents_per_slab(), self.needs(None));
        while self.space.free_extents() >= kept + per_slab
            && let Some(slab) = self.space.withdraw()
        {
            self.surplus.push(slab);
        }
    }

    /// Free extents that it takes to write every block, as the LU is or with that room.
    fn needs(&self, room: Option<Room>) -> u64 {
        let (shape, layers) = (self.site.shape, &self.layers);
        let size = match room {
            Some(Room::Size(size)) => size,
            Some(Room::Layer) | None => self.about().size,
        };
        let whole = Whole::of(shape, size);
        let is_new = room == Some(Room::Layer);
        let mut body = self.rooted.root.ring.len() as u64 * size_of::<u64>() as u64 + whole.body();
        let mut needs = RESERVED_EXTENTS + whole.extents + whole.chunks;
        for (number, _) in layers.ids() {
            let map = layers.map_of(number);
            if number == layers.top_number() && !is_new {
                let placed = layers.chunks_before(whole.chunks);
                needs -= placed + layers.extents_of(number).min(whole.extents);
            } else {
                // Folding may write the pages of a layer into the next one before they are gone.
                needs += map.owed + map.owed + map.placed;
                body += layer_body(2 * map.pages, 2 * (map.owed + map.placed));
            }
        }
        body += said_bytes(shape, self.space.extents() + 2 * needs);
        let beyond = beyond(shape, body);
        let has = self.rooted.root.beyond.iter().map(|places| places.len() as u64);
        needs + has.map(|has| beyond.saturating_sub(has)).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_lu_needs_little_more_than_its_size() {
        let shape = Shape::default();
        for size in [1_u64 << 30, 1 << 40] {
            let needs = extents_of_new(shape, size, 256) * shape.extent_bytes();
            assert!(needs > size && needs < size + size / 100 + (70 << 20), "{needs} for {size}");
        }
    }
}
