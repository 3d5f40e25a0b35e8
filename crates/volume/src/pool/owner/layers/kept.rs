//! Which pages stay in memory.
//!
//! A page may go when it can be read again just as it is: when it has not changed since a root said
//! where it is, nobody but its layer has it, and nobody has looked into it for a while. Then there
//! is never more than one of it, so that whoever has it sees every change.
//!
//! Pages of one number go together: who looks into one of them looks into all, from the top down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::super::journal::{LayerNumber, Spot};
use super::super::super::map::MapPage;
use super::super::super::memory::Memory;
use super::super::super::page::Page;
use super::{Layer, LayerId, Layers, PageId, said, spot_of};

/// Pages that have changed since the last checkpoint began.
pub(super) struct Dirty {
    /// With the bytes that are counted of each.
    ids: BTreeMap<PageId, usize>,
    bytes: usize,
    memory: Arc<Memory>,
}

impl Dirty {
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        Self { ids: BTreeMap::new(), bytes: 0, memory: memory.clone() }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn contains(&self, id: &PageId) -> bool {
        self.ids.contains_key(id)
    }

    /// A page that takes so much memory, or more than when it was last said.
    pub(super) fn insert(&mut self, id: PageId, bytes: usize) {
        let before = self.ids.insert(id, bytes).unwrap_or_default();
        self.count(bytes as isize - before as isize);
    }

    pub(super) fn remove(&mut self, id: &PageId) {
        let before = self.ids.remove(id).unwrap_or_default();
        self.count(-(before as isize));
    }

    pub(super) fn drop_layer(&mut self, gone: LayerNumber) {
        let left = self.ids.extract_if(.., |(layer, _), _| *layer == gone);
        let bytes: usize = left.map(|(_, bytes)| bytes).sum();
        self.count(-(bytes as isize));
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = PageId> + use<> {
        self.count(-(self.bytes as isize));
        std::mem::take(&mut self.ids).into_keys()
    }

    fn count(&mut self, more: isize) {
        self.bytes = self.bytes.saturating_add_signed(more);
        self.memory.count_changed(more);
    }
}

impl Drop for Dirty {
    fn drop(&mut self) {
        self.count(-(self.bytes as isize));
    }
}

/// Pages as they were when the checkpoint began that is under way: it writes them one after the
/// other, and what changes before its turn has come is kept as it was.
#[derive(Default)]
pub(super) struct Imaged {
    all: BTreeMap<PageId, Image>,
    /// Those that are not written yet, in their order.
    left: VecDeque<PageId>,
}

struct Image {
    layer: LayerId,
    /// Where it is to be.
    at: Spot,
    /// None: as the page is now.
    page: Option<Arc<MapPage>>,
}

impl Imaged {
    pub(super) fn contains(&self, id: &PageId) -> bool {
        self.all.contains_key(id)
    }

    pub(super) fn insert(&mut self, id: PageId, layer: LayerId, at: Spot) {
        self.all.insert(id, Image { layer, at, page: None });
        self.left.push_back(id);
    }

    /// Whether this page has to be kept as it is now before it may change.
    pub(super) fn is_due(&self, id: &PageId) -> bool {
        let is_due = |image: &Image| image.page.is_none();
        // In the order of their numbers, those that are left are the last ones.
        let is_left = self.left.front().is_some_and(|first| first <= id);
        is_left && self.all.get(id).is_some_and(is_due)
    }

    pub(super) fn keep(&mut self, id: &PageId, page: Arc<MapPage>) {
        if let Some(image) = self.all.get_mut(id) {
            image.page = Some(page);
        }
    }

    /// The next one: of which layer, and where it is to be; with the page where it was kept.
    fn next(&mut self) -> Option<(PageId, LayerId, Spot, Option<Arc<MapPage>>)> {
        let id = self.left.pop_front()?;
        let image = self.all.get_mut(&id)?;
        Some((id, image.layer, image.at, image.page.take()))
    }
}

impl Layers {
    /// So much has changed that others of the node want room; less is enough while a checkpoint is
    /// under way.
    pub(in super::super) fn is_crowded(&self, meanwhile: bool) -> bool {
        self.memory.is_crowded(self.dirty.bytes, meanwhile)
    }

    pub(in super::super) fn is_dirty(&self, id: PageId) -> bool {
        self.dirty.contains(&id)
    }

    /// What the checkpoint that is under way says of maps is written.
    pub(in super::super) fn images_written(&mut self) {
        self.imaged = Imaged::default();
        self.memory.may_go();
    }

    /// Everything that has changed is to be written as it is now, each page at its other place.
    /// Nothing is owed. Gives how many pages that are.
    pub(in super::super) fn begin_images(&mut self) -> usize {
        let (per_chunk, blocks) = (self.shape.pages_per_chunk(), self.shape.blocks_per_extent());
        self.imaged = Imaged::default();
        for (layer, number) in self.dirty.take() {
            let Layer { id, chunks, blank, .. } = self.layer_mut(layer);
            let chunk = chunks.get_mut(&(number / per_chunk)).expect("nothing is owed");
            let last = chunk.pages.get(&number).copied().or_else(|| blank.remove(&number));
            let second = last.is_some_and(|second| !second);
            chunk.pages.insert(number, second);
            let (id, place) = (*id, chunk.place);
            let at = spot_of(place, blocks, (number % per_chunk, second));
            self.imaged.insert((layer, number), id, at);
        }
        self.imaged.left.len()
    }

    /// Pages that the checkpoint writes which is under way.
    pub(in super::super) fn imaged(&self) -> impl Iterator<Item = PageId> + '_ {
        self.imaged.all.keys().copied()
    }

    /// The next page that the checkpoint writes, and where.
    pub(in super::super) fn next_image(
        &mut self,
        (epoch, turn): (u64, u64),
    ) -> Option<(Spot, Page)> {
        let ((layer, number), owner, at, kept) = self.imaged.next()?;
        let page = kept.unwrap_or_else(|| self.layer(layer).pages[&number].clone());
        Some((at, page.encode((owner, number), turn, epoch)))
    }

    /// A page is about to change.
    pub(super) fn keep_image(&mut self, id: PageId) {
        if self.imaged.is_due(&id)
            && let Some(page) = self.page(id)
        {
            let kept = page.without([]).counted(&self.memory);
            self.imaged.keep(&id, kept);
        }
    }

    /// A page is about to go, and nobody changes it any more.
    pub(super) fn keep_going(&mut self, id: PageId) {
        if self.imaged.is_due(&id)
            && let Some(page) = self.page(id).cloned()
        {
            self.imaged.keep(&id, page);
        }
    }

    /// The same of all pages of a layer.
    pub(super) fn keep_all_going(&mut self, layer: LayerNumber) {
        let Some(going) = self.all.get(&layer) else { return };
        let numbers: Vec<u64> = going.pages.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.keep_going((layer, number)));
    }

    /// Pages may go that could not.
    pub(in super::super) fn may_go(&self) {
        self.memory.may_go();
    }

    /// Pages that are in memory.
    pub(in super::super) fn here(&self) -> usize {
        self.all.values().map(|layer| layer.pages.len()).sum()
    }

    /// Looks at so many pages from where the last look ended, and gives numbers of which some may
    /// go, at most so many. Whatever was looked into since then stays this time. With how many
    /// pages it has looked at.
    pub(in super::super) fn idle(
        &mut self,
        (looks, most): (usize, usize),
        pinned: &BTreeSet<u64>,
    ) -> (Vec<u64>, usize) {
        let (mut idle, mut looked) = (Vec::new(), 0);
        while looked < looks && idle.len() < most {
            let Some(number) = self.next_here(self.hand).or_else(|| self.next_here(0)) else {
                break;
            };
            self.hand = number + 1;
            let mut is_used = false;
            for (_, page) in self.pages_here(number) {
                is_used |= page.take_used();
                looked += 1;
            }
            let may_go = |(id, page): (PageId, &Arc<MapPage>)| self.may_leave(id, page);
            if !is_used && !pinned.contains(&number) && self.pages_here(number).any(may_go) {
                idle.push(number);
            }
        }
        (idle, looked)
    }

    /// Lets pages of these numbers go, unless somebody has them, and says how many that were, and
    /// their bytes.
    pub(in super::super) fn let_go_of(
        &mut self,
        numbers: &[u64],
        pinned: &BTreeSet<u64>,
    ) -> (usize, usize) {
        let mut going = Vec::new();
        for &number in numbers.iter().filter(|number| !pinned.contains(number)) {
            if self.pages_here(number).any(|(_, page)| page.is_used()) {
                continue;
            }
            // Whoever has a page got it here, on this core: nobody else gets one that is only here.
            let is_alone = |(_, page): &(PageId, &Arc<MapPage>)| Arc::strong_count(page) == 1;
            let pages = self.pages_here(number).filter(is_alone);
            going.extend(pages.filter(|(id, page)| self.may_leave(*id, page)).map(|(id, _)| id));
        }
        let gone = going.iter().filter_map(|(layer, number)| {
            self.layer_mut(*layer).pages.remove(number).map(|page| page.bytes())
        });
        gone.fold((0, 0), |(count, all), bytes| (count + 1, all + bytes))
    }

    /// The first number from this one on of which a page is here.
    fn next_here(&self, from: u64) -> Option<u64> {
        let first = |layer: &Layer| layer.pages.range(from..).next().map(|(number, _)| *number);
        self.all.values().filter_map(first).min()
    }

    fn pages_here(&self, number: u64) -> impl Iterator<Item = (PageId, &Arc<MapPage>)> + '_ {
        let all = self.all.iter();
        all.filter_map(move |(layer, kept)| Some(((*layer, number), kept.pages.get(&number)?)))
    }

    /// Whether it can be read again as it is.
    fn may_leave(&self, id: PageId, page: &MapPage) -> bool {
        let (layer, number) = id;
        // Nobody writes into a frozen layer, so nobody asks whether that is fresh.
        let is_fresh = layer == self.top && page.has_fresh();
        if is_fresh || self.dirty.contains(&id) || self.imaged.contains(&id) {
            return false;
        }
        let is_written = self.layer(layer).is_written(number, self.shape.pages_per_chunk());
        is_written || said(page, self.form).next().is_none()
    }
}
