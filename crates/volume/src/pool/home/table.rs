//! The slab table of one disk, in memory.

use std::collections::BTreeSet;

use super::super::label::Label;
use super::super::shape::{GRANTS_PER_PAGE, Layout};
use super::super::slabs::Slab;

/// What a disk is to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Member,
    /// Nothing is granted there any more.
    Leaving,
    /// It could not be written, and counts as missing.
    Lost,
    /// Its number is nobody's.
    Gone,
}

/// What a disk has twice, so that one is good whatever becomes of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Twin {
    Label,
    /// Of the table.
    Page(u64),
}

pub(super) struct Table {
    /// As an operator knows the disk.
    pub name: String,
    pub label: Label,
    pub layout: Layout,
    pub standing: Standing,
    /// How often the pool was used without it, and without those that others were without: 0 of
    /// one that knows what has become of its slabs.
    pub outdated: u16,
    pub slabs: Vec<Slab>,
    /// Of each page: the place that counts, and its turn. Never written: no turn.
    pub turns: Vec<(usize, u64)>,
    /// One of these was written and may not be durable: its twin is not written before it is.
    pub unsynced: BTreeSet<Twin>,
    free: u32,
    /// Where to look for the next free one.
    hint: u32,
}

impl Table {
    pub fn new(name: &str, label: Label, layout: Layout) -> Self {
        let slabs = vec![Slab::Free { generation: 0 }; layout.slabs() as usize];
        let turns = vec![(1, 0); layout.table_pages() as usize];
        let (name, free, standing) = (name.to_owned(), layout.slabs(), Standing::Member);
        let (outdated, hint, unsynced) = (0, 0, BTreeSet::new());
        Self { name, label, layout, standing, outdated, free, slabs, turns, unsynced, hint }
    }

    /// It can be read and written.
    pub fn is_here(&self) -> bool {
        !matches!(self.standing, Standing::Lost | Standing::Gone)
    }

    /// Slabs may be granted there, if some are free.
    pub fn takes(&self) -> bool {
        self.standing == Standing::Member
    }

    /// Slabs that may be granted.
    pub fn room(&self) -> u32 {
        if self.takes() { self.free } else { 0 }
    }

    /// Slabs that somebody has, or is about to have.
    pub fn used(&self) -> u32 {
        self.slabs.len() as u32 - self.free
    }

    /// The lowest free slab behind the hint, or from the start, as this from now on, which is told
    /// its generation of before.
    pub fn take(&mut self, what: impl FnOnce(u32) -> Slab) -> Option<u32> {
        let is_free = |index: &u32| matches!(self.slabs[*index as usize], Slab::Free { .. });
        let count = self.slabs.len() as u32;
        let found = (self.hint..count).chain(0..self.hint).find(is_free)?;
        self.hint = found + 1;
        let slab = &mut self.slabs[found as usize];
        *slab = what(slab.generation());
        self.free -= 1;
        Some(found)
    }

    /// A slab as the disk says.
    pub fn load(&mut self, index: u32, slab: Slab) {
        self.slabs[index as usize] = slab;
        self.free -= u32::from(!matches!(slab, Slab::Free { .. }));
    }

    pub fn is_granted(&self, index: u32, (lu, number): ([u8; 16], u32)) -> bool {
        let slab = self.slabs.get(index as usize);
        matches!(slab, Some(Slab::Granted(it)) if (it.lu, it.number) == (lu, number))
    }

    /// Makes a slab nobody's.
    pub fn free(&mut self, index: u32) {
        let slab = &mut self.slabs[index as usize];
        *slab = Slab::Free { generation: slab.generation() };
        self.free += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.free as usize == self.slabs.len()
    }

    pub fn page_of(&self, page: u64) -> &[Slab] {
        let start = (page * GRANTS_PER_PAGE) as usize;
        let end = (start + GRANTS_PER_PAGE as usize).min(self.slabs.len());
        &self.slabs[start..end]
    }

    /// The disk is let go.
    pub fn leave(&mut self) {
        self.standing = Standing::Gone;
        (self.slabs, self.turns, self.free) = (Vec::new(), Vec::new(), 0);
    }
}
