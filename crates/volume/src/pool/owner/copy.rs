//! What a backup wants of an owner: every page of its maps as one root names them, while new roots
//! are written.
//!
//! ```text
//!   all pages ─▶ read, and what checkpoints have written meanwhile again ─▶ few are left
//!             ─▶ no checkpoint begins: the rest, and the root ─▶ they go on
//! ```

use std::collections::BTreeSet;

use super::super::root::Site;
use super::{Order, Owner, PageId};

/// The copy that is being taken, and how many were begun since the LU was opened.
#[derive(Debug, Default)]
pub(super) struct Copies {
    now: Option<Copying>,
    begun: u64,
}

#[derive(Debug)]
struct Copying {
    /// Pages that are still to be read.
    left: BTreeSet<PageId>,
    /// Reads that may be spent on pages that are written again and again.
    spare: usize,
    /// No checkpoint begins.
    is_held: bool,
}

/// More than all pages that there were.
const SPARE_PAGES: usize = 1024;

impl Owner {
    /// Every page is to be read. Gives the number of the copy; whoever has begun one before has to
    /// begin anew.
    pub fn begin_copy(&mut self) -> u64 {
        let left: BTreeSet<PageId> = self.layers.wanted().into_iter().map(|(id, _)| id).collect();
        let spare = left.len() + SPARE_PAGES;
        let copies = &mut self.rooted.copies;
        copies.begun += 1;
        copies.now = Some(Copying { left, spare, is_held: false });
        copies.begun
    }

    /// Whether this one is being taken.
    pub fn is_copying(&self, number: u64) -> bool {
        self.rooted.copies.now.is_some() && self.rooted.copies.begun == number
    }

    /// Some pages that are to be read; none when so few are left that it is time to hold roots.
    pub fn next_copies(&mut self, (most, few): (usize, usize)) -> Vec<PageId> {
        let Some(copying) = &mut self.rooted.copies.now else { return Vec::new() };
        if copying.left.len() <= few || copying.spare == 0 {
            return Vec::new();
        }
        let next = std::iter::from_fn(|| copying.left.pop_first());
        let some: Vec<PageId> = next.take(most).collect();
        copying.spare = copying.spare.saturating_sub(some.len());
        some
    }

    /// No root is written from now on, when that is done which is under way. Gives nothing when
    /// nobody takes a copy.
    pub fn hold_roots(&mut self) -> Option<Site> {
        self.rooted.copies.now.as_mut()?.is_held = true;
        Some(self.site)
    }

    /// What is still to be read.
    pub fn last_copies(&mut self) -> BTreeSet<PageId> {
        self.rooted
            .copies
            .now
            .as_mut()
            .map(|copying| std::mem::take(&mut copying.left))
            .unwrap_or_default()
    }

    /// The copy is taken, or given up.
    pub fn end_copy(&mut self) -> Vec<Order> {
        self.rooted.copies.now = None;
        self.given()
    }

    /// A page could not be read now: it is just being written, say. It is read later, if it is
    /// there then.
    pub fn copy_later(&mut self, id: PageId) {
        if let Some(copying) = &mut self.rooted.copies.now
            && self.layers.spot_of_page(id).is_some()
        {
            copying.left.insert(id);
        }
    }

    pub(super) fn holds_roots(&self) -> bool {
        self.rooted.copies.now.as_ref().is_some_and(|copying| copying.is_held)
    }

    /// A checkpoint writes these pages anew.
    pub(super) fn copy_again(&mut self) {
        if let Some(copying) = &mut self.rooted.copies.now {
            copying.left.extend(self.layers.imaged());
        }
    }
}
