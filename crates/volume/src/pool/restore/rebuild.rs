//! An LU with the maps that a backup has of it, in the slabs that it has now.
//!
//! An extent of data stays where those maps say if its slab was the LU's all the time: nobody else
//! has written there. What is said of any other extent is not said any more, and reads zero. Parts
//! of the LU itself (ring, chunks of maps, body of the root) are all written anew, so they stay
//! where they were if the slab is the LU's, and get another extent of its otherwise. Whatever is
//! not named then is free.
//!
//! Not here: whether that may be done, and the writing of it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::journal::{LayerNumber, Spot, Start};
use super::super::map::{Form, MapPage, Place};
use super::super::owner::{Chunk, LayerId, PageId, Regions, regions_of};
use super::super::page::{Flaw, Page};
use super::super::root::{Root, RootLayer, Site};
use super::super::shape::BLOCK_BYTES;
use super::super::space::Space;

/// Blocks of which the backup says that they were written, and of which nothing is to be had: they
/// read zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Of the LU.
    pub from: u64,
    pub to: u64,
    /// The snapshot that they were written before; none: they were written after the last one.
    pub before: Option<String>,
}

/// Where an LU is built.
pub struct Ground {
    pub site: Site,
    /// The slabs that it has.
    pub slabs: Vec<u32>,
    /// Those of them that were its all the time.
    pub kept: BTreeSet<u32>,
}

/// What its pages say of themselves, and what its layer is called that is written into.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub turn: u64,
    pub epoch: u64,
    pub top: LayerId,
}

/// An LU as it is to be.
pub struct Rebuilt {
    pub root: Root,
    /// Of its maps, and of the body of its root.
    pub pages: Vec<(Spot, Page)>,
    pub head: (Spot, Page),
    /// What its maps name, in blocks.
    pub bytes: u64,
    /// In their order.
    pub lost: Vec<Lost>,
}

/// A page of a map, and which of its two places it has.
struct Image {
    id: PageId,
    second: bool,
    page: Page,
}

/// One that is being built.
pub struct Rebuilding {
    ground: Ground,
    stamp: Stamp,
    form: Form,
    space: Space,
    /// As the backup has it.
    then: Root,
    /// The parts that have to lie somewhere, in their order.
    ring: Vec<Option<Place>>,
    chunks: BTreeMap<(LayerNumber, u64), Option<Place>>,
    extents: BTreeMap<LayerNumber, u64>,
    images: Vec<Image>,
    blocks: u64,
    lost: Vec<Lost>,
}

impl Rebuilding {
    /// None: its first slab is not its.
    pub fn begin(ground: Ground, then: Root, stamp: Stamp) -> Option<Self> {
        let site = ground.site;
        let mut space = Space::new(site.shape);
        ground.slabs.iter().for_each(|slab| space.grant(*slab));
        space.claim(site.place()).then_some(())?;
        let mut claim = |place: Place| space.claim(place).then_some(place);
        let ring = then.ring.iter().map(|place| claim(*place)).collect();
        let of_layer = |layer: &RootLayer| {
            let chunks = layer.chunks.iter().map(|(number, chunk)| (*number, chunk.place));
            chunks.map(|(number, place)| ((layer.number, number), place)).collect::<Vec<_>>()
        };
        let chunks = then.layers.iter().flat_map(of_layer);
        let chunks = chunks.map(|(id, place)| (id, claim(place))).collect();
        let (form, extents, images) = (Form::new(site.shape), BTreeMap::new(), Vec::new());
        let (blocks, lost) = (0, Vec::new());
        Some(Self { ground, stamp, form, space, then, ring, chunks, extents, images, blocks, lost })
    }

    /// The pages that its maps have, with the names of their layers. All of them are taken next.
    pub fn wanted(&self) -> Vec<(PageId, LayerId, bool)> {
        let of_layer = |layer: &RootLayer| {
            let pages = layer.chunks.values().flat_map(|chunk| &chunk.pages);
            let page =
                |(number, second): (&u64, &bool)| ((layer.number, *number), layer.id, *second);
            pages.map(page).collect::<Vec<_>>()
        };
        self.then.layers.iter().flat_map(of_layer).collect()
    }

    pub fn take(
        &mut self,
        (id, layer, second): (PageId, LayerId, bool),
        page: Page,
    ) -> Result<(), Flaw> {
        let map = MapPage::decode(&page, self.form, (&layer, id.1), self.then.turn)?;
        let is_as_before = self.keep(id, &map) && id.0 != self.then.top;
        let Stamp { turn, epoch, top } = self.stamp;
        let owner = if id.0 == self.then.top { top } else { layer };
        let page = if is_as_before { page } else { map.encode((owner, id.1), turn, epoch) };
        self.images.push(Image { id, second, page });
        Ok(())
    }

    /// Takes out what lies elsewhere than it did. True: nothing does.
    fn keep(&mut self, (layer, number): PageId, map: &MapPage) -> bool {
        let mut is_whole = true;
        for at in 0..self.form.extents() as usize {
            let Some(place) = map.place(at) else { continue };
            let runs = map.written(at);
            self.blocks += runs.iter().map(|(_, count)| count).sum::<u64>();
            if self.ground.kept.contains(&place.slab) && self.space.claim(place) {
                *self.extents.entry(layer).or_default() += 1;
                continue;
            }
            is_whole = false;
            let first = number.saturating_mul(self.form.extents()).saturating_add(at as u64);
            let first = first.saturating_mul(self.form.blocks());
            for (block, count) in runs {
                map.zero(at, block, count);
                self.lose(layer, (first.saturating_add(block), count));
            }
            // Also where it had none.
            map.zero(at, 0, 0);
        }
        is_whole
    }

    fn lose(&mut self, layer: LayerNumber, (block, count): (u64, u64)) {
        let of = self.then.layers.iter().find(|it| it.number == layer);
        let before = of.filter(|_| layer != self.then.top).map(|it| it.frozen.name.clone());
        let before = before.filter(|name| !name.is_empty());
        let byte = |block: u64| block.saturating_mul(BLOCK_BYTES);
        let (from, to) = (byte(block), byte(block.saturating_add(count)));
        match self.lost.last_mut().filter(|last| last.to == from && last.before == before) {
            Some(last) => last.to = to,
            None => self.lost.push(Lost { from, to, before }),
        }
    }

    /// Gives everything a place. False: the LU has not enough.
    pub fn settle(&mut self) -> bool {
        let parts = self.ring.iter_mut().chain(self.chunks.values_mut());
        for part in parts.filter(|part| part.is_none()) {
            *part = self.space.take();
            if part.is_none() {
                return false;
            }
        }
        true
    }

    /// Where the pages of its journal are to lie, when all is settled.
    pub fn ring(&self) -> Vec<Spot> {
        let blocks = self.ground.site.shape.blocks_per_extent();
        let of = |place: &Place| {
            let (slab, first) = (place.slab, u64::from(place.extent) * blocks);
            (first..first + blocks).map(move |block| Spot { slab, block: block as u32 })
        };
        self.ring.iter().flatten().flat_map(of).collect()
    }

    /// All of it, with a journal that begins here and is empty. `has_others`: copies of what was
    /// being overwritten may differ, and nobody knows where. None: there is no room for its root.
    pub fn end(mut self, start: Start, has_others: bool) -> Option<Rebuilt> {
        let site = self.ground.site;
        let pages = self.pages();
        let mut root = self.root(start);
        if has_others {
            let all = regions_of(site.shape, 0, site.shape.blocks_per_slab());
            root.opened = self.ground.slabs.iter().map(|slab| (*slab, all)).collect();
        }
        // What is taken for the root is used too.
        loop {
            root.used = Some(self.space.encode([]));
            let free = self.space.free_extents();
            if !root.make_room(&site, 0, || self.space.take()) {
                return None;
            }
            if self.space.free_extents() == free {
                break;
            }
        }
        let (body, head) = root.encode(&site, self.stamp.epoch);
        let pages = pages.into_iter().chain(body).collect();
        let bytes = self.blocks * BLOCK_BYTES;
        let mut lost = self.lost;
        lost.sort_by_key(|lost| lost.from);
        Some(Rebuilt { root, pages, head, bytes, lost })
    }

    fn pages(&mut self) -> Vec<(Spot, Page)> {
        let shape = self.ground.site.shape;
        let (per_chunk, blocks) = (shape.pages_per_chunk(), shape.blocks_per_extent());
        let images = std::mem::take(&mut self.images).into_iter();
        let placed = images.filter_map(|Image { id: (layer, number), second, page }| {
            let place = self.chunks.get(&(layer, number / per_chunk)).copied().flatten()?;
            let block =
                u64::from(place.extent) * blocks + number % per_chunk * 2 + u64::from(second);
            Some((Spot { slab: place.slab, block: block as u32 }, page))
        });
        placed.collect()
    }

    fn root(&self, start: Start) -> Root {
        let Stamp { turn, top: fresh, .. } = self.stamp;
        let Root { ref about, top, ref layers, .. } = self.then;
        let layer = |layer: &RootLayer| {
            let moved = |(number, chunk): (&u64, &Chunk)| {
                let place = self.chunks.get(&(layer.number, *number)).copied().flatten();
                Some((*number, Chunk { place: place?, pages: chunk.pages.clone() }))
            };
            let chunks = layer.chunks.iter().filter_map(moved).collect();
            let extents = self.extents.get(&layer.number).copied().unwrap_or(0);
            let id = if layer.number == top { fresh } else { layer.id };
            RootLayer { id, chunks, extents, ..layer.clone() }
        };
        Root {
            about: about.clone(),
            turn,
            start,
            ring: self.ring.iter().flatten().copied().collect(),
            top,
            layers: layers.iter().map(layer).collect(),
            beyond: [Vec::new(), Vec::new()],
            used: None,
            opened: Regions::new(),
            // No copy has missed anything: it would not have been taken.
            missed: None,
            brought: 0,
        }
    }
}

impl Rebuilt {
    /// Whether others may stand on this layer.
    pub fn has_frozen(&self, id: LayerId) -> bool {
        let is_it = |layer: &&RootLayer| layer.id == id && layer.number != self.root.top;
        self.root.layers.iter().find(is_it).is_some_and(|layer| !layer.frozen.is_going)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::lineage::Lineage;
    use super::super::super::lu::tests::{about, new_pool};
    use super::super::super::map::State;
    use super::super::super::owner::Opening;
    use super::super::super::root::Frozen;
    use super::*;

    const LAYERS: [LayerId; 2] = [[1; 16], [2; 16]];
    const FRESH: LayerId = [3; 16];

    /// A snapshot and what is above it, with a page each.
    fn then(snapshot: Frozen) -> Root {
        let ring = vec![Place { slab: 4, extent: 1 }];
        let mut root = Opening::root_of_new(about(64 << 20, 512), ring, LAYERS[0], 5);
        let chunk = |extent| Chunk { place: Place { slab: 4, extent }, pages: [(0, true)].into() };
        let below = RootLayer { frozen: snapshot, ..root.layers[0].clone() };
        let top = RootLayer { number: 2, id: LAYERS[1], below: Some(1), ..root.layers[0].clone() };
        root.layers = vec![below, top];
        for (layer, extent) in root.layers.iter_mut().zip([2, 3]) {
            layer.chunks.insert(0, chunk(extent));
        }
        Root { top: 2, turn: 7, ..root }
    }

    fn begun(then: Root, slabs: &[u32]) -> Rebuilding {
        let (shape, lineage) = (new_pool().shape, Lineage::new([8; 16], [8; 16]));
        let site = Site { lu: [9; 16], shape, first_slab: 4, lineage };
        let kept = BTreeSet::from([4]);
        let ground = Ground { site, slabs: slabs.to_vec(), kept };
        Rebuilding::begin(ground, then, Stamp { turn: 8, epoch: 6, top: FRESH }).unwrap()
    }

    /// Extents with blocks in a slab of its own, in one that was others', and with none there.
    #[test]
    fn only_what_lies_where_it_did_is_named() {
        let frozen = Frozen { size: 1 << 20, name: "monday".to_owned(), is_going: false };
        let mut rebuilding = begun(then(frozen), &[4, 6]);
        let form = Form::new(new_pool().shape);
        for (id, layer, second) in rebuilding.wanted() {
            let map = MapPage::new(form);
            let base = 10 * id.0;
            map.settle(0, Place { slab: 4, extent: base });
            map.write(0, 0, 3);
            map.settle(1, Place { slab: 6, extent: base });
            map.write(1, 2, 2);
            map.settle(2, Place { slab: 6, extent: base + 1 });
            // What is named already: one of them is wrong.
            map.settle(3, Place { slab: 4, extent: 10 });
            map.write(3, 0, u64::from(id.0 - 1));
            rebuilding.take((id, layer, second), map.encode((layer, 0), 7, 5)).unwrap();
        }
        assert!(rebuilding.settle());
        let start = Start { page: 9, epoch: 6, next: 3, sealed: 3 };
        let rebuilt = rebuilding.end(start, true).unwrap();
        assert_eq!(rebuilt.bytes, (3 + 2 + 3 + 2 + 1) * BLOCK_BYTES);
        let block = |block: u64| block * BLOCK_BYTES;
        let lost = |from, to, before: Option<&str>| {
            let before = before.map(str::to_owned);
            Lost { from: block(from), to: block(to), before }
        };
        let monday = Some("monday");
        let all = [lost(18, 20, monday), lost(18, 20, None), lost(48, 49, None)];
        assert_eq!(rebuilt.lost, all);
        let root = &rebuilt.root;
        assert!(rebuilt.has_frozen(LAYERS[0]) && !rebuilt.has_frozen(FRESH));
        assert_eq!(root.layers.iter().map(|it| it.extents).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(root.opened.keys().copied().collect::<Vec<_>>(), [4, 6]);
        // Root, ring, two chunks, and two extents with data.
        let used = root.used.as_ref().expect("nobody has to read maps for that");
        let space = Space::decode(new_pool().shape, &[4, 6], used).unwrap();
        assert_eq!(space.extents() - space.free_extents(), 6);
        let site = begun(then(Frozen::default()), &[4, 6]).ground.site;
        let opening = Opening::new(site, 9, root.clone(), &Arc::default());
        for (id, at) in opening.pages() {
            let (_, page) = rebuilt.pages.iter().find(|(spot, _)| *spot == at).unwrap();
            let owner = if id.0 == 2 { FRESH } else { LAYERS[0] };
            let map = MapPage::decode(page, form, (&owner, 0), 8).unwrap();
            let places = [0, 1, 2].map(|extent| map.place(extent));
            assert_eq!(places, [Some(Place { slab: 4, extent: 10 * id.0 }), None, None]);
            assert_eq!(map.state(1, 2), State::Zero);
        }
    }

    #[test]
    fn what_has_no_room_is_not_built() {
        let mut strange = then(Frozen { is_going: true, ..Frozen::default() });
        let rebuilt = begun(strange.clone(), &[4]);
        assert!(rebuilt.end(strange.start, false).is_some_and(|it| !it.has_frozen(LAYERS[0])));
        // Its maps lie elsewhere, and all that it has is named.
        let extents = new_pool().shape.extents_per_slab() as u32;
        strange.ring = (1..extents).map(|extent| Place { slab: 4, extent }).collect();
        strange.layers.truncate(1);
        let elsewhere = Place { slab: 5, extent: 0 };
        strange.layers[0].chunks.values_mut().for_each(|chunk| chunk.place = elsewhere);
        assert!(!begun(strange, &[4]).settle());
    }
}
