//! The layers of an LU, the top one first, with the pages of their maps.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::journal::Spot;
use super::super::map::{Form, MapPage, Place, Run, State, resolve};
use super::super::page::{Flaw, PAGE_BYTES, Page};
use super::super::shape::Shape;

/// Names a layer for ever; its pages carry it.
pub type LayerId = [u8; 16];

/// Which page of which layer's map.
pub type PageId = (LayerId, u64);

/// An extent with pages of a map. Each page has two places in it, of which the root says the one
/// that counts: a rotten page is an error, and not replaced by what was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub place: Place,
    /// Of the pages that there are: which of the two places.
    pub pages: BTreeMap<u64, bool>,
}

/// By their number in the map.
pub type Chunks = BTreeMap<u64, Chunk>;

#[derive(Clone, Debug)]
pub struct Layer {
    pub id: LayerId,
    pages: BTreeMap<u64, Arc<MapPage>>,
    chunks: Chunks,
}

pub struct Layers {
    shape: Shape,
    form: Form,
    all: Vec<Layer>,
    dirty: BTreeSet<PageId>,
}

/// What the top layer says of a block.
pub(super) struct Top<'a>(&'a Layers);

impl Top<'_> {
    pub fn state(&self, block: u64) -> State {
        let (page, extent, within) = self.0.form.locate(block);
        let page = self.0.all[0].pages.get(&page);
        page.map_or(State::Absent, |page| page.state(extent, within))
    }

    pub fn place(&self, block: u64) -> Option<Place> {
        let (page, extent, _) = self.0.form.locate(block);
        self.0.all[0].pages.get(&page)?.place(extent)
    }
}

impl Layers {
    pub(super) fn new(shape: Shape, all: Vec<(LayerId, Chunks)>) -> Self {
        let layer = |(id, chunks)| Layer { id, pages: BTreeMap::new(), chunks };
        let all = all.into_iter().map(layer).collect();
        Self { shape, form: Form::new(shape), all, dirty: BTreeSet::new() }
    }

    /// What is known of a block and those behind it, at most so many and within its extent.
    pub fn look(&self, block: u64, most: u64) -> Run {
        self.look_from(0, block, most)
    }

    /// The same as it was when the layer of this number, counted from the top, was frozen.
    pub fn look_from(&self, layer: usize, block: u64, most: u64) -> Run {
        let (page, extent, within) = self.form.locate(block);
        let pages = self.all[layer..].iter().filter_map(|layer| layer.pages.get(&page));
        let pages: Vec<&MapPage> = pages.map(|page| &**page).collect();
        let most = most.min(self.shape.blocks_per_extent() - within);
        resolve(&pages, extent, within, most)
    }

    pub fn ids(&self) -> impl Iterator<Item = LayerId> + '_ {
        self.all.iter().map(|layer| layer.id)
    }

    pub(super) fn top(&self) -> Top<'_> {
        Top(self)
    }

    pub(super) fn reads_zero(&self, block: u64, count: u64) -> bool {
        let mut at = block;
        while at < block + count {
            match self.look(at, block + count - at) {
                Run::Zero { count } => at += count,
                Run::Absent { .. } | Run::Written { .. } => return false,
            }
        }
        true
    }

    pub(super) fn extent_of(&self, block: u64) -> u64 {
        block / self.shape.blocks_per_extent()
    }

    /// Where a block lies if its extent has this place.
    pub(super) fn spot(&self, place: Place, block: u64) -> Spot {
        let blocks = self.shape.blocks_per_extent();
        let block = u64::from(place.extent) * blocks + block % blocks;
        Spot { slab: place.slab, block: block as u32 }
    }

    pub(super) fn place_of(&self, spot: Spot) -> Place {
        let extent = u64::from(spot.block) / self.shape.blocks_per_extent();
        Place { slab: spot.slab, extent: extent as u32 }
    }

    pub(super) fn settle(&mut self, block: u64, place: Place) {
        let (page, extent) = self.top_page(block);
        page.settle(extent, place);
    }

    pub(super) fn write(&mut self, block: u64, count: u64) {
        let (_, _, within) = self.form.locate(block);
        let (page, extent) = self.top_page(block);
        page.write(extent, within, count);
    }

    pub(super) fn zero(&mut self, block: u64, count: u64) -> Option<Place> {
        let (_, _, within) = self.form.locate(block);
        let (page, extent) = self.top_page(block);
        page.zero(extent, within, count)
    }

    pub(super) fn push(&mut self, id: LayerId) {
        self.all.insert(0, Layer { id, pages: BTreeMap::new(), chunks: Chunks::new() });
    }

    /// The page of the top layer that is to be changed, and the extent in it.
    fn top_page(&mut self, block: u64) -> (Arc<MapPage>, usize) {
        let (number, extent, _) = self.form.locate(block);
        let (form, top) = (self.form, &mut self.all[0]);
        self.dirty.insert((top.id, number));
        let page = top.pages.entry(number).or_insert_with(|| Arc::new(MapPage::new(form)));
        (page.clone(), extent)
    }

    /// Images of all pages that have changed, each for its other place; `take` gives an extent for
    /// pages that have none. `None`: there was none to be had, and nothing has happened.
    pub(super) fn images(
        &mut self,
        epoch: u32,
        mut take: impl FnMut() -> Option<Place>,
    ) -> Option<Vec<(Spot, Page)>> {
        let (per_chunk, blocks) = (self.pages_per_chunk(), self.shape.blocks_per_extent());
        for (id, number) in &self.dirty {
            let layer = self.all.iter_mut().find(|layer| layer.id == *id).expect("of a layer");
            let chunk = number / per_chunk;
            if let Entry::Vacant(entry) = layer.chunks.entry(chunk) {
                entry.insert(Chunk { place: take()?, pages: BTreeMap::new() });
            }
        }
        let mut images = Vec::new();
        for (id, number) in std::mem::take(&mut self.dirty) {
            let layer = self.all.iter_mut().find(|layer| layer.id == id).expect("of a layer");
            let chunk = layer.chunks.get_mut(&(number / per_chunk)).expect("made above");
            let second = chunk.pages.get(&number).is_some_and(|second| !second);
            chunk.pages.insert(number, second);
            let at = spot_of(chunk.place, blocks, (number % per_chunk, second));
            images.push((at, layer.pages[&number].encode((id, number), 0, epoch)));
        }
        Some(images)
    }

    /// Where the pages are that there are, for the root.
    pub(super) fn chunks(&self) -> Vec<(LayerId, Chunks)> {
        self.all.iter().map(|layer| (layer.id, layer.chunks.clone())).collect()
    }

    /// Where to read every page that there is.
    pub(super) fn wanted(&self) -> Vec<(PageId, Spot)> {
        let (per_chunk, blocks) = (self.pages_per_chunk(), self.shape.blocks_per_extent());
        let of_layer = |layer: &Layer| {
            let of_chunk = |chunk: &Chunk| {
                let page = |(number, second): (&u64, &bool)| {
                    let at = spot_of(chunk.place, blocks, (number % per_chunk, *second));
                    ((layer.id, *number), at)
                };
                chunk.pages.iter().map(page).collect::<Vec<_>>()
            };
            layer.chunks.values().flat_map(of_chunk).collect::<Vec<_>>()
        };
        self.all.iter().flat_map(of_layer).collect()
    }

    pub(super) fn load(&mut self, (id, number): PageId, page: &Page) -> Result<(), Flaw> {
        let map = MapPage::decode(page, self.form, &id, number)?;
        let layer = self.all.iter_mut().find(|layer| layer.id == id);
        layer.expect("one was asked for").pages.insert(number, Arc::new(map));
        Ok(())
    }

    /// Every extent that a map names, or that has pages of one.
    pub(super) fn places(&self) -> Vec<Place> {
        let extents = self.form.extents() as usize;
        let of_pages = |layer: &Layer| {
            let places = |page: &Arc<MapPage>| {
                (0..extents).filter_map(|at| page.place(at)).collect::<Vec<_>>()
            };
            layer.pages.values().flat_map(places).collect::<Vec<Place>>()
        };
        let of_chunks =
            |layer: &Layer| layer.chunks.values().map(|chunk| chunk.place).collect::<Vec<Place>>();
        self.all.iter().flat_map(|layer| [of_pages(layer), of_chunks(layer)].concat()).collect()
    }

    fn pages_per_chunk(&self) -> u64 {
        self.shape.extent_bytes() / (2 * PAGE_BYTES as u64)
    }
}

/// Where a page of a chunk is.
fn spot_of(place: Place, blocks_per_extent: u64, (page, second): (u64, bool)) -> Spot {
    let block = u64::from(place.extent) * blocks_per_extent + page * 2 + u64::from(second);
    Spot { slab: place.slab, block: block as u32 }
}
