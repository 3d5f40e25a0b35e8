//! Which pages stay in memory.
//!
//! A page may go when it can be read again just as it is: when it has not changed since a root said
//! where it is, nobody but its layer has it, and nobody has looked into it for a while. Then there
//! is never more than one of it, so that whoever has it sees every change.
//!
//! Pages of one number go together: who looks into one of them looks into all, from the top down.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::super::journal::LayerNumber;
use super::super::super::map::{Form, MapPage};
use super::super::super::memory::Memory;
use super::{Layer, Layers, PageId, said};

/// Pages that have changed since the last checkpoint began.
pub(super) struct Dirty {
    ids: BTreeSet<PageId>,
    page_bytes: usize,
    memory: Arc<Memory>,
}

impl Dirty {
    pub(super) fn new(memory: &Arc<Memory>, form: Form) -> Self {
        Self { ids: BTreeSet::new(), page_bytes: form.bytes(), memory: memory.clone() }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn contains(&self, id: &PageId) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn insert(&mut self, id: PageId) {
        self.change(|ids| ids.insert(id));
    }

    pub(super) fn remove(&mut self, id: &PageId) {
        self.change(|ids| ids.remove(id));
    }

    pub(super) fn drop_layer(&mut self, gone: LayerNumber) {
        self.change(|ids| ids.retain(|(layer, _)| *layer != gone));
    }

    pub(super) fn take(&mut self) -> BTreeSet<PageId> {
        self.change(std::mem::take)
    }

    fn change<T>(&mut self, f: impl FnOnce(&mut BTreeSet<PageId>) -> T) -> T {
        let before = self.ids.len() as isize;
        let given = f(&mut self.ids);
        let more = self.ids.len() as isize - before;
        if more != 0 {
            self.memory.count_changed(more, self.page_bytes);
        }
        given
    }
}

impl Drop for Dirty {
    fn drop(&mut self) {
        self.take();
    }
}

impl Layers {
    /// So much has changed that others of the node want room; less is enough while a checkpoint is
    /// under way.
    pub(in super::super) fn is_crowded(&self, meanwhile: bool) -> bool {
        self.memory.is_crowded(self.dirty.len() * self.dirty.page_bytes, meanwhile)
    }

    pub(in super::super) fn is_dirty(&self, id: PageId) -> bool {
        self.dirty.contains(&id)
    }

    /// What the checkpoint that is under way says of maps is written.
    pub(in super::super) fn images_written(&mut self) {
        self.imaged.clear();
        self.memory.may_go();
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

    /// Lets pages of these numbers go, unless somebody has them, and says how many bytes they had.
    pub(in super::super) fn let_go_of(&mut self, numbers: &[u64], pinned: &BTreeSet<u64>) -> usize {
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
        for (layer, number) in &going {
            self.layer_mut(*layer).pages.remove(number);
        }
        going.len() * self.form.bytes()
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
