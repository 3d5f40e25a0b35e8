//! The layers of an LU, the top one first, with the pages of their maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::journal::Spot;
use super::super::map::{Form, MapPage, Place, Run, State, resolve};
use super::super::page::{Flaw, Page};
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
    /// Chunks that have no place yet and will want one for a dirty page: layer and number.
    owed: BTreeSet<PageId>,
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
        let (dirty, owed) = (BTreeSet::new(), BTreeSet::new());
        Self { shape, form: Form::new(shape), all, dirty, owed }
    }

    /// What is known of a block and those behind it, at most so many and within its extent.
    pub fn look(&self, block: u64, most: u64) -> Run {
        self.look_from(0, block, most)
    }

    /// The same as it was when the layer of this number, counted from the top, was frozen.
    pub fn look_from(&self, layer: usize, block: u64, most: u64) -> Run {
        let (page, extent, within) = self.form.locate(block);
        let pages = self.all[layer..].iter().filter_map(|layer| layer.pages.get(&page));
        let most = most.min(self.shape.blocks_per_extent() - within);
        resolve(pages.map(|page| &**page), extent, within, most)
    }

    /// The pages of this number, the top layer's first, for those who look into them by
    /// themselves. The top layer's is there even if it says nothing, so that what it says later is
    /// found in it: these pages stay the right ones until the next snapshot.
    pub fn stack(&mut self, number: u64) -> Vec<Arc<MapPage>> {
        let form = self.form;
        self.all[0].pages.entry(number).or_insert_with(|| Arc::new(MapPage::new(form)));
        self.all.iter().filter_map(|layer| layer.pages.get(&number)).cloned().collect()
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn count(&self) -> usize {
        self.all.len()
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

    /// Extents that the next checkpoint takes.
    pub(super) fn owed(&self) -> u64 {
        self.owed.len() as u64
    }

    /// Whether a change of this block lets the next checkpoint take one more.
    pub(super) fn would_owe(&self, block: u64) -> bool {
        let chunk = self.form.locate(block).0 / self.shape.pages_per_chunk();
        let top = &self.all[0];
        !top.chunks.contains_key(&chunk) && !self.owed.contains(&(top.id, chunk))
    }

    /// See [`MapPage::set_fresh`].
    pub(super) fn set_fresh(&self, block: u64, is_fresh: bool) {
        let (page, extent, _) = self.form.locate(block);
        if let Some(page) = self.all[0].pages.get(&page) {
            page.set_fresh(extent, is_fresh);
        }
    }

    /// The page of the top layer that is to be changed, and the extent in it.
    fn top_page(&mut self, block: u64) -> (Arc<MapPage>, usize) {
        let (number, extent, _) = self.form.locate(block);
        let (form, top) = (self.form, &mut self.all[0]);
        self.dirty.insert((top.id, number));
        let chunk = number / self.shape.pages_per_chunk();
        if !top.chunks.contains_key(&chunk) {
            self.owed.insert((top.id, chunk));
        }
        let page = top.pages.entry(number).or_insert_with(|| Arc::new(MapPage::new(form)));
        (page.clone(), extent)
    }

    /// Gives chunks that are owed a place. False: there was none to be had.
    pub(super) fn pay(&mut self, mut take: impl FnMut() -> Option<Place>) -> bool {
        while let Some(&(id, number)) = self.owed.first() {
            let Some(place) = take() else { return false };
            self.layer(id).chunks.insert(number, Chunk { place, pages: BTreeMap::new() });
            self.owed.pop_first();
        }
        true
    }

    /// Pages that have changed.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Images of all pages that have changed, each for its other place. Nothing is owed.
    pub(super) fn images(&mut self, (epoch, turn): (u64, u64)) -> Vec<(Spot, Page)> {
        let (per_chunk, blocks) = (self.shape.pages_per_chunk(), self.shape.blocks_per_extent());
        let mut images = Vec::new();
        for (id, number) in std::mem::take(&mut self.dirty) {
            let layer = self.layer(id);
            let chunk = layer.chunks.get_mut(&(number / per_chunk)).expect("nothing is owed");
            let second = chunk.pages.get(&number).is_some_and(|second| !second);
            chunk.pages.insert(number, second);
            let at = spot_of(chunk.place, blocks, (number % per_chunk, second));
            images.push((at, layer.pages[&number].encode((id, number), turn, epoch)));
        }
        images
    }

    fn layer(&mut self, id: LayerId) -> &mut Layer {
        self.all.iter_mut().find(|layer| layer.id == id).expect("layers stay")
    }

    /// Where the pages are that there are, for the root.
    pub(super) fn chunks(&self) -> Vec<(LayerId, Chunks)> {
        self.all.iter().map(|layer| (layer.id, layer.chunks.clone())).collect()
    }

    /// Where to read every page that there is.
    pub(super) fn wanted(&self) -> Vec<(PageId, Spot)> {
        let (per_chunk, blocks) = (self.shape.pages_per_chunk(), self.shape.blocks_per_extent());
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

    /// Takes a page that was read; `turn` is the root's.
    pub(super) fn load(
        &mut self,
        (id, number): PageId,
        page: &Page,
        turn: u64,
    ) -> Result<(), Flaw> {
        let map = MapPage::decode(page, self.form, (&id, number), turn)?;
        self.layer(id).pages.insert(number, Arc::new(map));
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
}

/// Where a page of a chunk is.
fn spot_of(place: Place, blocks_per_extent: u64, (page, second): (u64, bool)) -> Spot {
    let block = u64::from(place.extent) * blocks_per_extent + page * 2 + u64::from(second);
    Spot { slab: place.slab, block: block as u32 }
}
