//! The layers of an LU, with the pages of their maps. They are a tree: each stands on another one,
//! or on nothing, and what the LU reads is found from the top layer down. All but the top one are
//! frozen: of those only what lies below is folded into them.
//!
//! Pages are in memory from when somebody needs them; who looks for one, or changes it, has seen to
//! it that it is here (see `load`). Which of them leave memory again: `kept`.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::journal::{BELOW, LayerNumber, Record, Spot};
use super::super::map::{Form, MapPage, Place, Run, State, resolve};
use super::super::memory::Memory;
use super::super::page::{Flaw, Page};
use super::super::root::{Frozen, Root, RootLayer};
use super::super::shape::Shape;
use super::bring::Bringing;
use kept::{Dirty, Imaged};

/// Names a layer for ever; its pages carry it.
pub type LayerId = [u8; 16];

/// Which page of which layer's map.
pub type PageId = (LayerNumber, u64);

/// The same in words.
pub fn page_of_map((layer, number): PageId) -> String {
    format!("page {number} of the map of its layer {layer}")
}

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
struct Layer {
    id: LayerId,
    /// Which one it stands on; that has a lower number.
    below: Option<LayerNumber>,
    frozen: Frozen,
    pages: BTreeMap<u64, Arc<MapPage>>,
    chunks: Chunks,
    /// In which it has blocks of its own.
    extents: u64,
    /// Pages that say nothing any more, with which place of them the root may still name.
    blank: BTreeMap<u64, bool>,
}

pub struct Layers {
    shape: Shape,
    form: Form,
    all: BTreeMap<LayerNumber, Layer>,
    top: LayerNumber,
    /// From the top down.
    chain: Vec<LayerNumber>,
    dirty: Dirty,
    /// Those that the checkpoint writes which is under way.
    imaged: Imaged,
    /// Where the last look ended for pages that nobody needs.
    hand: u64,
    memory: Arc<Memory>,
    /// Chunks that have no place yet and will want one for a dirty page.
    owed: BTreeSet<PageId>,
    /// The lowest layer stands on a snapshot of another LU.
    is_clone: bool,
    /// The lowest layer lies over what the LU is brought from.
    bringing: Option<Bringing>,
    /// Extents with pages of layers that are gone: the root may still name them.
    left: Vec<Place>,
}

/// What the top layer says of a block.
pub(super) struct Top<'a>(&'a Layers);

impl Top<'_> {
    pub fn state(&self, block: u64) -> State {
        let (page, extent, within) = self.0.form.locate(block);
        let page = self.0.page((self.0.top, page));
        page.map_or(State::Absent, |page| page.state(extent, within))
    }

    /// Where the extent lies that these blocks are in, and how many of them are written.
    pub fn look(&self, block: u64, count: u64) -> (Option<Place>, u64) {
        let (page, extent, within) = self.0.form.locate(block);
        let Some(page) = self.0.page((self.0.top, page)) else { return (None, 0) };
        let is_written = |at: &u64| page.state(extent, *at) == State::Written;
        (page.place(extent), (within..within + count).filter(is_written).count() as u64)
    }
}

/// What it takes to fold an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fold {
    pub into: Option<LayerNumber>,
    /// Where the blocks of the extent lie afterwards.
    pub place: Option<Place>,
    /// Blocks that have to be brought there, and from where: first ones in the extent and counts.
    pub copies: Vec<(u64, u64)>,
    pub from: Option<Place>,
}

/// How large a layer's map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapSize {
    pub pages: u64,
    /// Chunks that have a place, and those that will want one.
    pub placed: u64,
    pub owed: u64,
}

impl Layer {
    fn new(root: RootLayer) -> Self {
        let RootLayer { id, below, frozen, chunks, extents, .. } = root;
        let (pages, blank) = (BTreeMap::new(), BTreeMap::new());
        Self { id, below, frozen, pages, chunks, extents, blank }
    }

    /// Whether a page has a place that counts.
    fn is_written(&self, number: u64, per_chunk: u64) -> bool {
        let chunk = self.chunks.get(&(number / per_chunk));
        chunk.is_some_and(|chunk| chunk.pages.contains_key(&number))
    }
}

impl Layers {
    /// The root has been checked: `below` is a lower number, and there is a top.
    pub(super) fn new(shape: Shape, root: &Root, memory: &Arc<Memory>) -> Self {
        let (top, all, is_clone) = (root.top, root.layers.clone(), root.about.base.is_some());
        let source = root.about.source.as_ref();
        let bringing = source.map(|source| Bringing::of(source, shape, root.brought));
        let all = all.into_iter().map(|layer| (layer.number, Layer::new(layer))).collect();
        let form = Form::new(shape);
        let (dirty, imaged) = (Dirty::new(memory), Imaged::default());
        let (owed, chain, left) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (memory, hand) = (memory.clone(), 0);
        let mut layers = Self {
            shape,
            form,
            all,
            top,
            chain,
            dirty,
            imaged,
            hand,
            memory,
            owed,
            is_clone,
            bringing,
            left,
        };
        layers.chain = layers.chain_from(top);
        layers
    }

    /// What is known of a block and those behind it, at most so many and within its extent.
    pub fn look(&self, block: u64, most: u64) -> Run {
        self.look_in(&self.chain, block, most)
    }

    /// The same as it was when this layer was frozen.
    pub fn look_from(&self, layer: LayerNumber, block: u64, most: u64) -> Run {
        self.look_in(&self.chain_from(layer), block, most)
    }

    fn look_in(&self, chain: &[LayerNumber], block: u64, most: u64) -> Run {
        let (page, extent, within) = self.form.locate(block);
        let pages = chain.iter().filter_map(|layer| self.page((*layer, page)));
        let most = most.min(self.shape.blocks_per_extent() - within);
        resolve(pages.map(|page| &**page), extent, within, most)
    }

    /// The one on which all others stand.
    pub(super) fn lowest(&self) -> LayerNumber {
        *self.chain.last().expect("there is a top")
    }

    pub(super) fn bringing(&self) -> Option<&Bringing> {
        self.bringing.as_ref()
    }

    pub(super) fn bringing_mut(&mut self) -> Option<&mut Bringing> {
        self.bringing.as_mut()
    }

    /// Nothing lies below the lowest layer any more.
    pub(super) fn end_bringing(&mut self) {
        self.bringing = None;
    }

    /// An extent needs nothing any more of what lies below.
    pub(super) fn brought(&mut self, extent: u64) {
        if let Some(bringing) = &mut self.bringing {
            bringing.has(extent);
        }
    }

    /// Blocks of an extent of which the lowest layer says nothing: first ones and counts.
    pub(super) fn lacking(&self, extent: u64) -> Vec<(u64, u64)> {
        let (number, at) = self.locate_extent(extent);
        match self.page((self.lowest(), number)) {
            Some(page) => page.absent_runs(at),
            None => vec![(0, self.form.blocks())],
        }
    }

    /// Where the blocks of an extent lie in a layer.
    pub(super) fn place_in(&self, layer: LayerNumber, block: u64) -> Option<Place> {
        let (number, extent, _) = self.form.locate(block);
        self.page((layer, number))?.place(extent)
    }

    /// The pages of this number, the top layer's first, for those who look into them by
    /// themselves. The top layer's is there even if it says nothing, so that what it says later is
    /// found in it: these pages stay the right ones until the next snapshot.
    pub fn stack(&mut self, number: u64) -> Vec<Arc<MapPage>> {
        self.page_or_new((self.top, number));
        self.pages_of(&self.chain, number)
    }

    /// The same for those who look into a frozen layer, until something is folded into it or into
    /// what is below.
    pub fn stack_from(&self, layer: LayerNumber, number: u64) -> Vec<Arc<MapPage>> {
        self.pages_of(&self.chain_from(layer), number)
    }

    fn pages_of(&self, chain: &[LayerNumber], number: u64) -> Vec<Arc<MapPage>> {
        chain.iter().filter_map(|layer| self.page((*layer, number)).cloned()).collect()
    }

    /// A page, if there is one. Whoever asks has seen to it that it is not absent.
    pub(super) fn page(&self, id: PageId) -> Option<&Arc<MapPage>> {
        let layer = self.all.get(&id.0)?;
        let page = layer.pages.get(&id.1);
        let is_absent = || layer.is_written(id.1, self.shape.pages_per_chunk());
        assert!(page.is_some() || !is_absent(), "page {} of layer {} is not here", id.1, id.0);
        page
    }

    /// A page that is in memory.
    pub(super) fn page_here(&self, (layer, number): PageId) -> Option<&Arc<MapPage>> {
        self.all.get(&layer)?.pages.get(&number)
    }

    /// Whether a page has to be read before anybody looks for it.
    pub(super) fn is_absent(&self, (layer, number): PageId) -> bool {
        let Some(layer) = self.all.get(&layer) else { return false };
        !layer.pages.contains_key(&number) && layer.is_written(number, self.shape.pages_per_chunk())
    }

    /// Those of these layers' pages of a number that are absent.
    pub(super) fn absent(
        &self,
        layers: impl IntoIterator<Item = LayerNumber>,
        number: u64,
    ) -> Vec<PageId> {
        let ids = layers.into_iter().map(|layer| (layer, number));
        ids.filter(|id| self.is_absent(*id)).collect()
    }

    /// Where a page is that is on disk.
    pub(super) fn spot_of_page(&self, (layer, number): PageId) -> Option<Spot> {
        let (per_chunk, blocks) = (self.shape.pages_per_chunk(), self.shape.blocks_per_extent());
        let Chunk { place, pages } = self.all.get(&layer)?.chunks.get(&(number / per_chunk))?;
        let second = *pages.get(&number)?;
        Some(spot_of(*place, blocks, (number % per_chunk, second)))
    }

    /// Where a page is that a root names which is written, or about to be with nothing else under
    /// way for it.
    pub(super) fn written_at(&self, id: PageId) -> Option<Spot> {
        if self.imaged.contains(&id) { None } else { self.spot_of_page(id) }
    }

    /// The next checkpoint writes this page, which is in memory and on disk.
    pub(super) fn make_dirty(&mut self, id: PageId) {
        let bytes = self.page(id).map_or(0, |page| page.bytes());
        self.dirty.insert(id, bytes);
    }

    /// Numbers of the pages from this one on that are looked into by who looks from the top, or
    /// from this layer.
    pub fn pages_from(&self, layer: Option<LayerNumber>, first: u64) -> BTreeSet<u64> {
        let chain = self.chain_from(layer.unwrap_or(self.top));
        chain.into_iter().flat_map(|layer| self.numbers(layer, first)).collect()
    }

    /// Numbers of a layer's pages from this one on, those that are absent too.
    pub(super) fn numbers(&self, layer: LayerNumber, first: u64) -> impl Iterator<Item = u64> + '_ {
        let (layer, per_chunk) = (self.layer(layer), self.shape.pages_per_chunk());
        let next = move |from: u64| {
            let chunks = layer.chunks.range(from / per_chunk..);
            let written = chunks.flat_map(|(_, chunk)| chunk.pages.range(from..)).next();
            let written = written.map(|(number, _)| *number);
            let here = layer.pages.range(from..).next().map(|(number, _)| *number);
            written.into_iter().chain(here).min()
        };
        std::iter::successors(next(first), move |number| next(number + 1))
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn top_number(&self) -> LayerNumber {
        self.top
    }

    /// Every layer, with its number.
    pub fn ids(&self) -> impl Iterator<Item = (LayerNumber, LayerId)> + '_ {
        self.all.iter().map(|(number, layer)| (*number, layer.id))
    }

    pub fn id(&self, layer: LayerNumber) -> Option<LayerId> {
        self.all.get(&layer).map(|layer| layer.id)
    }

    pub fn number(&self, id: LayerId) -> Option<LayerNumber> {
        self.ids().find(|(_, other)| *other == id).map(|(number, _)| number)
    }

    /// What is said of a frozen layer.
    pub fn frozen(&self, layer: LayerNumber) -> Option<&Frozen> {
        self.all.get(&layer).filter(|_| layer != self.top).map(|layer| &layer.frozen)
    }

    pub(super) fn rename(&mut self, layer: LayerNumber, name: String) {
        if let Some(layer) = self.all.get_mut(&layer) {
            layer.frozen.name = name;
        }
    }

    /// Extents in which a layer has blocks of its own.
    pub fn extents_of(&self, layer: LayerNumber) -> u64 {
        self.all.get(&layer).map_or(0, |layer| layer.extents)
    }

    /// The same, counted: a root of an older form does not say it, and all pages are here.
    pub(super) fn count_extents(&mut self) {
        let form = self.form;
        for layer in self.all.values_mut() {
            layer.extents = layer.pages.values().flat_map(|page| placed(page, form)).count() as u64;
        }
    }

    /// What there is of a layer's map.
    pub(super) fn map_of(&self, number: LayerNumber) -> MapSize {
        let layer = self.layer(number);
        let owed = self.owed.iter().filter(|(layer, _)| *layer == number).count() as u64;
        let pages = self.pages_left(number) as u64;
        MapSize { pages, placed: layer.chunks.len() as u64, owed }
    }

    /// Chunks of the top layer's map with a lower number that have their place.
    pub(super) fn chunks_before(&self, end: u64) -> u64 {
        self.layer(self.top).chunks.range(..end).count() as u64
    }

    /// What a layer stands on.
    pub fn below(&self, layer: LayerNumber) -> Option<LayerNumber> {
        self.all.get(&layer)?.below
    }

    /// Those that stand on a layer.
    pub fn above(&self, below: LayerNumber) -> impl Iterator<Item = LayerNumber> + '_ {
        let stands = move |(_, layer): &(&LayerNumber, &Layer)| layer.below == Some(below);
        self.all.iter().filter(stands).map(|(number, _)| *number)
    }

    pub fn has(&self, layer: LayerNumber) -> bool {
        self.all.contains_key(&layer)
    }

    /// The number of the next layer.
    pub(super) fn next_number(&self) -> LayerNumber {
        self.all.last_key_value().map_or(1, |(number, _)| number + 1)
    }

    pub(super) fn chain_from(&self, layer: LayerNumber) -> Vec<LayerNumber> {
        let below = |layer: &LayerNumber| self.layer(*layer).below;
        std::iter::successors(Some(layer), below).collect()
    }

    pub(super) fn top(&self) -> Top<'_> {
        Top(self)
    }

    pub(super) fn reads_zero(&self, block: u64, count: u64) -> bool {
        if self.is_clone || self.bringing.is_some() {
            let top = self.top();
            return (block..block + count).all(|block| top.state(block) == State::Zero);
        }
        let mut at = block;
        while at < block + count {
            match self.look(at, block + count - at) {
                Run::Zero { count } | Run::Absent { count } => at += count,
                Run::Written { .. } => return false,
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
        self.settle_in(self.top, block, place);
    }

    /// The same in whichever layer.
    pub(super) fn settle_in(&mut self, layer: LayerNumber, block: u64, place: Place) {
        let (page, extent) = self.page_to_change(layer, block);
        let is_new = page.place(extent).is_none();
        page.settle(extent, place);
        self.add_extents(layer, i64::from(is_new));
    }

    fn add_extents(&mut self, layer: LayerNumber, count: i64) {
        let layer = self.layer_mut(layer);
        // What a root says may be wrong, and nothing goes wrong with that but this.
        layer.extents = layer.extents.saturating_add_signed(count);
    }

    pub(super) fn write(&mut self, block: u64, count: u64) {
        self.write_as(block, count, false);
    }

    /// The same of what is not sealed: that is said first, so that nobody finds it written and
    /// takes it for sealed.
    pub(super) fn write_fresh(&mut self, block: u64, count: u64) {
        self.write_as(block, count, true);
    }

    fn write_as(&mut self, block: u64, count: u64, is_fresh: bool) {
        let (_, _, within) = self.form.locate(block);
        let (page, extent) = self.page_to_change(self.top, block);
        if is_fresh {
            page.set_fresh(extent, true);
        }
        page.write(extent, within, count);
    }

    pub(super) fn zero(&mut self, block: u64, count: u64) -> Option<Place> {
        let (_, _, within) = self.form.locate(block);
        let (page, extent) = self.page_to_change(self.top, block);
        let left = page.zero(extent, within, count);
        self.add_extents(self.top, -i64::from(left.is_some()));
        left
    }

    /// Does what a record says of layers, unless that is done already; the LU has this size. Gives
    /// a place that nobody has then.
    pub(super) fn apply(&mut self, record: &Record, size: u64) -> Option<Place> {
        match *record {
            Record::Branched { from, number, top } => self.branch(from, (number, top), size),
            Record::Dropped { layer } => self.drop_layer(layer),
            Record::Folded { layer, into, extent, place } => {
                return self.fold(layer, extent, (into, place));
            }
            Record::Written { .. } | Record::Zeroed { .. } | Record::Void { .. } => {}
            Record::Opened { .. } | Record::Closed { .. } => {}
        }
        None
    }

    /// Puts a new top layer on one that is there.
    fn branch(&mut self, from: LayerNumber, (number, id): (LayerNumber, LayerId), size: u64) {
        if !self.has(from) || number <= from || self.has(number) {
            return;
        }
        let top = self.top;
        self.layer_mut(top).frozen.size = size;
        let (below, frozen, chunks) = (Some(from), Frozen::default(), Chunks::new());
        let new = RootLayer { number, id, below, frozen, chunks, extents: 0 };
        self.all.insert(number, Layer::new(new));
        self.top = number;
        self.chain = self.chain_from(number);
    }

    /// The next extents that a frozen layer says something of. Pages before them that say nothing
    /// are let go. An error: a page that is absent.
    pub(super) fn next_extents(
        &mut self,
        layer: LayerNumber,
        most: usize,
    ) -> Result<Vec<u64>, PageId> {
        let mut extents = Vec::new();
        let mut blank = Vec::new();
        let mut absent = None;
        for number in self.numbers(layer, 0) {
            if self.is_absent((layer, number)) {
                absent = Some((layer, number));
                break;
            }
            let before = extents.len();
            let first = number * self.form.extents();
            let page = &self.layer(layer).pages[&number];
            extents.extend(said(page, self.form).map(|at| first + at));
            if extents.len() == before {
                blank.push(number);
            }
            if extents.len() >= most {
                break;
            }
        }
        extents.truncate(most);
        blank.into_iter().for_each(|number| self.let_go(layer, number));
        match absent.filter(|_| extents.is_empty()) {
            Some(absent) => Err(absent),
            None => Ok(extents),
        }
    }

    /// Pages of a layer, of which some may say nothing.
    pub fn pages_left(&self, layer: LayerNumber) -> usize {
        let Some(layer) = self.all.get(&layer) else { return 0 };
        let per_chunk = self.shape.pages_per_chunk();
        let written = layer.chunks.values().map(|chunk| chunk.pages.len()).sum::<usize>();
        let is_new = |number: &&u64| !layer.is_written(**number, per_chunk);
        written + layer.pages.keys().filter(is_new).count()
    }

    /// What it takes to give to its child what a layer says of an extent.
    pub(super) fn fold_of(&self, layer: LayerNumber, extent: u64) -> Fold {
        let (number, at) = self.locate_extent(extent);
        let into = self.above(layer).next();
        let nothing = Fold { into, place: None, copies: Vec::new(), from: None };
        let Some(below) = self.page((layer, number)) else { return nothing };
        let Some(child) = into else { return nothing };
        let empty = MapPage::new(self.form);
        let above = self.page((child, number)).map_or(&empty, |page| page);
        let (copies, from) = (above.lacks(below, at), below.place(at));
        match above.place(at) {
            Some(place) => Fold { place: Some(place), copies, from, ..nothing },
            None if copies.is_empty() => nothing,
            None => Fold { place: from, ..nothing },
        }
    }

    /// The record of a fold is about to be applied that is not sealed: the extent is fresh if it is
    /// the top layer's from then on. Also if it only changes hands: what the layer below says of it
    /// may be as new.
    pub(super) fn freshen(&mut self, record: &Record) -> Option<u64> {
        let Record::Folded { into, extent, place: Some(_), .. } = *record else { return None };
        if into != Some(self.top) {
            return None;
        }
        let (page, at) = self.page_to_change(self.top, extent * self.shape.blocks_per_extent());
        page.set_fresh(at, true);
        Some(extent)
    }

    /// Gives to its child what a layer says of an extent, and the place back that nobody has then.
    fn fold(
        &mut self,
        layer: LayerNumber,
        extent: u64,
        (into, place): (Option<LayerNumber>, Option<Place>),
    ) -> Option<Place> {
        let (number, at) = self.locate_extent(extent);
        if layer == BELOW {
            self.fill(extent, (into, place));
            return None;
        }
        if let Some(layer) = self.all.get_mut(&layer) {
            // Whoever finds it half-way must not take it for the snapshot that it was.
            layer.frozen.is_going = true;
        }
        let below = self.page((layer, number)).cloned();
        if let Some(into) = into.filter(|into| self.has(*into)) {
            let block = extent * self.shape.blocks_per_extent();
            if let Some(place) = place {
                self.settle_in(into, block, place);
            }
            let (above, _) = self.page_to_change(into, block);
            if let Some(below) = &below {
                above.fold(below, at);
            }
        }
        let below = below?;
        self.add_extents(layer, -i64::from(below.place(at).is_some()));
        self.change_page(layer, number, below.without([at]));
        below.place(at).filter(|left| place != Some(*left))
    }

    /// Blocks of an extent of which a layer says nothing lie at this place from now on.
    fn fill(&mut self, extent: u64, (into, place): (Option<LayerNumber>, Option<Place>)) {
        let (Some(into), Some(place)) = (into.filter(|into| self.has(*into)), place) else {
            return;
        };
        let block = extent * self.shape.blocks_per_extent();
        self.settle_in(into, block, place);
        let (page, at) = self.page_to_change(into, block);
        page.fill(at);
    }

    /// Exchanges a page for one that says less; one that says nothing is left out.
    fn change_page(&mut self, layer: LayerNumber, number: u64, page: MapPage) {
        if said(&page, self.form).next().is_none() {
            return self.let_go(layer, number);
        }
        self.keep_going((layer, number));
        self.dirty.insert((layer, number), page.bytes());
        self.owe(layer, number / self.shape.pages_per_chunk());
        let page = page.counted(&self.memory);
        self.layer_mut(layer).pages.insert(number, page);
    }

    fn let_go(&mut self, layer: LayerNumber, number: u64) {
        let per_chunk = self.shape.pages_per_chunk();
        self.keep_going((layer, number));
        self.dirty.remove(&(layer, number));
        let layer = self.layer_mut(layer);
        layer.pages.remove(&number);
        let chunk = layer.chunks.get_mut(&(number / per_chunk));
        if let Some(second) = chunk.and_then(|chunk| chunk.pages.remove(&number)) {
            layer.blank.insert(number, second);
        }
    }

    /// A layer that says nothing is gone; those on it stand on what it stood on.
    fn drop_layer(&mut self, number: LayerNumber) {
        if number == self.top {
            return;
        }
        self.keep_all_going(number);
        let Some(gone) = self.all.remove(&number) else { return };
        self.all.values_mut().filter(|layer| layer.below == Some(number)).for_each(|layer| {
            layer.below = gone.below;
        });
        self.dirty.drop_layer(number);
        self.owed.retain(|(layer, _)| *layer != number);
        self.left.extend(gone.chunks.values().map(|chunk| chunk.place));
        self.chain = self.chain_from(self.top);
    }

    /// What no root names that is made from now on.
    pub(super) fn take_left(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.left)
    }

    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Extents that the next checkpoint takes.
    pub(super) fn owed(&self) -> u64 {
        self.owed.len() as u64
    }

    /// Whether a change of this block lets the next checkpoint take one more.
    pub(super) fn would_owe(&self, layer: LayerNumber, block: u64) -> bool {
        let chunk = self.form.locate(block).0 / self.shape.pages_per_chunk();
        !self.layer(layer).chunks.contains_key(&chunk) && !self.owed.contains(&(layer, chunk))
    }

    /// See [`MapPage::set_fresh`].
    pub(super) fn set_fresh(&self, block: u64, is_fresh: bool) {
        let (page, extent, _) = self.form.locate(block);
        if let Some(page) = self.layer(self.top).pages.get(&page) {
            page.set_fresh(extent, is_fresh);
        }
    }

    /// The page of a layer that is to be changed, and the extent in it.
    fn page_to_change(&mut self, layer: LayerNumber, block: u64) -> (Arc<MapPage>, usize) {
        let (number, extent, _) = self.form.locate(block);
        assert!(!self.is_absent((layer, number)), "page {number} of layer {layer} is not here");
        self.keep_image((layer, number));
        let page = self.page_or_new((layer, number)).clone();
        self.dirty.insert((layer, number), page.bytes_with(extent));
        self.owe(layer, number / self.shape.pages_per_chunk());
        (page, extent)
    }

    /// A page that is not absent; one that says nothing if there is none.
    fn page_or_new(&mut self, (layer, number): PageId) -> &Arc<MapPage> {
        let Self { form, memory, all, .. } = self;
        let layer = all.get_mut(&layer).expect("a layer that is there");
        layer.pages.entry(number).or_insert_with(|| MapPage::new(*form).counted(memory))
    }

    fn owe(&mut self, layer: LayerNumber, chunk: u64) {
        if !self.layer(layer).chunks.contains_key(&chunk) {
            self.owed.insert((layer, chunk));
        }
    }

    /// The page that an extent is in, and the extent in that.
    fn locate_extent(&self, extent: u64) -> (u64, usize) {
        let (page, extent, _) = self.form.locate(extent * self.shape.blocks_per_extent());
        (page, extent)
    }

    /// Gives chunks that are owed a place. False: there was none to be had.
    pub(super) fn pay(&mut self, mut take: impl FnMut() -> Option<Place>) -> bool {
        while let Some(&(layer, number)) = self.owed.first() {
            let Some(place) = take() else { return false };
            let chunk = Chunk { place, pages: BTreeMap::new() };
            self.layer_mut(layer).chunks.insert(number, chunk);
            self.owed.pop_first();
        }
        true
    }

    /// Pages that have changed.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    fn layer(&self, number: LayerNumber) -> &Layer {
        &self.all[&number]
    }

    fn layer_mut(&mut self, number: LayerNumber) -> &mut Layer {
        self.all.get_mut(&number).expect("asked for by those who know that it is there")
    }

    /// The layers as the root says them, with where their pages are.
    pub(super) fn for_root(&self) -> Vec<RootLayer> {
        let layer = |(&number, layer): (&LayerNumber, &Layer)| {
            let Layer { id, below, ref frozen, ref chunks, extents, .. } = *layer;
            let (frozen, chunks) = (frozen.clone(), chunks.clone());
            RootLayer { number, id, below, frozen, chunks, extents }
        };
        self.all.iter().map(layer).collect()
    }

    /// Where to read every page that there is.
    pub(super) fn wanted(&self) -> Vec<(PageId, Spot)> {
        let (per_chunk, blocks) = (self.shape.pages_per_chunk(), self.shape.blocks_per_extent());
        let mut wanted = Vec::new();
        for (&layer, Layer { chunks, .. }) in &self.all {
            for Chunk { place, pages } in chunks.values() {
                wanted.extend(pages.iter().map(|(number, second)| {
                    let at = spot_of(*place, blocks, (number % per_chunk, *second));
                    ((layer, *number), at)
                }));
            }
        }
        wanted
    }

    /// Takes a page that was read, of which every place must be used; `turn` is the root's.
    pub(super) fn load(
        &mut self,
        (layer, number): PageId,
        page: &Page,
        turn: u64,
        is_used: impl Fn(Place) -> bool,
    ) -> Result<(), Flaw> {
        let form = self.form;
        let Some(layer) = self.all.get_mut(&layer) else { return Ok(()) };
        let map = MapPage::decode(page, form, (&layer.id, number), turn)?;
        if !placed(&map, form).all(is_used) {
            return Err(Flaw::Unused);
        }
        layer.pages.insert(number, map.counted(&self.memory));
        Ok(())
    }

    /// Goes on without a page that cannot be read, only to look.
    pub(super) fn give_up(&mut self, (layer, number): PageId) {
        let chunk = number / self.shape.pages_per_chunk();
        if let Some(chunk) = self.layer_mut(layer).chunks.get_mut(&chunk) {
            chunk.pages.remove(&number);
        }
    }

    /// Every extent that a page which is here names, or that has pages of a map.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = self.left.clone();
        for Layer { pages, chunks, .. } in self.all.values() {
            places.extend(pages.values().flat_map(|page| placed(page, self.form)));
            places.extend(chunks.values().map(|chunk| chunk.place));
        }
        places
    }

    /// Extents that nothing names which is made from now on.
    pub(super) fn left(&self) -> &[Place] {
        &self.left
    }

    /// Where the blocks of this extent lie, in each layer that a record about it is about.
    pub(super) fn places_at(&self, extent: u64, record: Option<&Record>) -> Vec<Place> {
        let (number, at) = self.locate_extent(extent);
        let layers = match record {
            Some(&Record::Folded { layer, into, .. }) => vec![Some(layer), into],
            _ => vec![Some(self.top)],
        };
        let pages = layers.into_iter().flatten().filter_map(|layer| self.page((layer, number)));
        pages.filter_map(|page| page.place(at)).collect()
    }
}

/// Places that a page names.
fn placed(page: &MapPage, form: Form) -> impl Iterator<Item = Place> + '_ {
    (0..form.extents() as usize).filter_map(|at| page.place(at))
}

/// Extents that a page says something of.
fn said(page: &MapPage, form: Form) -> impl Iterator<Item = u64> + '_ {
    let is_said = |at: &u64| !page.is_absent(*at as usize) || page.place(*at as usize).is_some();
    (0..form.extents()).filter(is_said)
}

/// Where a page of a chunk is.
fn spot_of(place: Place, blocks_per_extent: u64, (page, second): (u64, bool)) -> Spot {
    let block = u64::from(place.extent) * blocks_per_extent + page * 2 + u64::from(second);
    Spot { slab: place.slab, block: block as u32 }
}
