//! Regions of slabs with several copies: opened before anything there is overwritten, closed when
//! nobody has wanted that for a while, and made the same everywhere after a crash.
//!
//! ```text
//!   asked for ─▶ open in the journal, durably ─▶ open to all cores
//!                      ▲                             │ the next look: whoever still
//!                      │ asked for again             ▼ writes there asks again
//!                      └──────────────────────── not wanted
//!                                                    │ the look after that: quiet, sync
//!                                                    ▼
//!                                                 closed in the journal
//! ```

use std::cell::Cell;
use std::rc::Rc;

use block::Error;

use super::super::super::home::Tenure;
use super::super::super::owner::{Regions, regions_of};
use super::super::super::places::State;
use super::super::super::shape::BLOCK_BYTES;
use super::{Service, Spot};

/// Regions that are open before some are closed unasked: what a crash leaves to be made the same.
pub const OPEN_MAX: u32 = 4096;
/// Regions that are opened between two looks that nothing else gives cause for. Where all of them
/// are in use at all times, a look finds nothing, and everybody has to ask again.
const OPENED_MAX: u32 = OPEN_MAX / 4;

impl Service {
    /// Lets these regions of a slab be overwritten, by everybody.
    pub(in super::super) async fn open_regions(
        self: Rc<Self>,
        slab: u32,
        regions: u64,
    ) -> Result<(), Error> {
        *self.wanted.borrow_mut().entry(slab).or_default() |= regions;
        // Who asks again for what is open anyway leaves no more open, and gives no cause to look.
        let open = self.owner().regions().get(&slab).copied().unwrap_or_default();
        let anew = (regions & !open).count_ones();
        self.opened.set(self.opened.get() + anew);
        let ticket = self.ticket()?;
        // More than one look may pass until that is durable.
        self.writing.borrow_mut().insert(ticket, (slab, regions));
        self.tell(|owner| owner.open_regions(ticket, slab, regions));
        let opened = self.done(ticket).await;
        if opened.is_ok() {
            self.disks.shared().places.set_open(slab, regions);
        }
        self.writing.borrow_mut().remove(&ticket);
        opened?;
        if anew > 0 && self.opened.get() > OPENED_MAX && count(self.owner().regions()) > OPEN_MAX {
            self.look_at_regions();
        }
        Ok(())
    }

    /// Somebody is about to overwrite blocks whom the owner has sent there.
    pub(super) async fn overwrite(self: &Rc<Self>, at: Spot, count: u64) -> Result<(), Error> {
        if self.disks.is_plain(at.slab) {
            return Ok(());
        }
        let regions = self.regions(at.block.into(), count);
        self.clone().open_regions(at.slab, regions).await
    }

    /// Looks which regions nobody wants any more.
    pub(in super::super) fn look_at_regions(self: &Rc<Self>) {
        let places = &self.disks.shared().places;
        let is_any = || {
            !self.owner().regions().is_empty()
                || self.slabs().into_iter().any(|it| places.is_touched(it))
        };
        let is_due = self.is_serving() && is_any();
        if is_due && !self.is_closing_regions.replace(true) {
            self.start(|me| async move {
                me.settle_left().await;
                me.close_idle().await;
                me.is_closing_regions.set(false);
            });
        }
    }

    async fn close_idle(self: &Rc<Self>) {
        let wanted = self.wanted.take();
        self.opened.set(0);
        let places = &self.disks.shared().places;
        let mut idle = self.owner().regions().clone();
        for (slab, regions) in &mut idle {
            let wanted = wanted.get(slab).copied().unwrap_or_default();
            // Whoever goes on there asks again, and is seen by the next look.
            places.set_closed(*slab, *regions);
            *regions &= !wanted;
        }
        self.close_regions(idle).await;
    }

    /// Closes regions that nobody begins to overwrite without asking, and forgets what was written.
    async fn close_regions(self: &Rc<Self>, mut idle: Regions) {
        let places = &self.disks.shared().places;
        idle.retain(|slab, regions| *regions != 0 && !places.is_doubtful(*slab));
        let aging: Vec<u32> =
            self.slabs().into_iter().filter(|slab| places.begin_aging(*slab)).collect();
        let is_durable =
            if idle.is_empty() && aging.is_empty() { false } else { self.settle_idle(idle).await };
        aging.into_iter().for_each(|slab| places.end_aging(slab, is_durable));
    }

    /// Whether what was written before is durable; then these are closed.
    async fn settle_idle(self: &Rc<Self>, mut idle: Regions) -> bool {
        self.leave_out_writing(&mut idle);
        self.all_quiet().await;
        if self.save_sums().await.is_err() || self.sync().await.is_err() {
            return false;
        }
        // Somebody has begun meanwhile, or has been and gone.
        self.leave_out_writing(&mut idle);
        self.leave_out_unsaved(&mut idle);
        let places = &self.disks.shared().places;
        let wanted = self.wanted.borrow();
        for (slab, regions) in &mut idle {
            // Somebody has asked meanwhile.
            let is_wanted = wanted.get(slab).copied().unwrap_or_default();
            *regions &= !is_wanted;
        }
        drop(wanted);
        // What is in doubt is open until it is settled, and that is what says so after a crash.
        idle.retain(|slab, regions| *regions != 0 && !places.is_doubtful(*slab));
        self.tell(|owner| owner.close_regions(&idle));
        true
    }

    /// Regions stay open where somebody writes whom the owner has sent there, or is about to.
    fn leave_out_writing(&self, idle: &mut Regions) {
        for (slab, regions) in self.writing.borrow().values() {
            leave_out(idle, *slab, *regions);
        }
    }

    /// Regions stay open where sums have changed that are not on disk.
    fn leave_out_unsaved(&self, idle: &mut Regions) {
        let Some(sums) = &self.disks.shared().sums else { return };
        for id in sums.unwritten(|slab| idle.contains_key(&slab)) {
            let blocks = id.blocks(self.shape);
            leave_out(idle, id.slab, self.regions(blocks.start, blocks.end - blocks.start));
        }
    }

    /// Makes the copies of what a crash has left in doubt the same, while the LU is used.
    pub(in super::super) fn settle(self: &Rc<Self>) {
        if !self.owner().regions().is_empty() || !self.doubtful().is_empty() {
            self.is_moving.set(true);
            self.start(|me| async move {
                me.settle_regions().await;
                me.settle_sums().await;
                me.is_moving.set(false);
                me.has_settled();
                me.look_at_regions();
            });
        } else {
            self.has_settled();
        }
    }

    fn has_settled(&self) {
        self.tenure.borrow_mut().iter_mut().for_each(Tenure::settled);
    }

    /// What could not be settled, or is in doubt since: tried again.
    async fn settle_left(self: &Rc<Self>) {
        let places = &self.disks.shared().places;
        if self.slabs().into_iter().any(|slab| places.is_doubtful(slab)) {
            self.ended.until(|| !self.is_moving.get()).await;
            self.is_moving.set(true);
            self.settle_regions().await;
            self.is_moving.set(false);
            self.ended.notify();
        }
    }

    async fn settle_regions(self: &Rc<Self>) {
        let places = &self.disks.shared().places;
        for number in self.slabs() {
            if places.is_doubtful(number) {
                let regions = places.dirty(number);
                let settled = self.pinned(number, async || self.settle_slab(number, regions).await);
                // Otherwise the next look tries again.
                let _ = settled.await;
            }
        }
    }

    /// Makes copies that are in doubt the same as the one that is read. Gives the bytes that were.
    /// The owner does not give the slab back meanwhile.
    pub(super) async fn settle_slab(&self, number: u32, regions: u64) -> Result<u64, Error> {
        let blocks = Cell::new(0);
        self.each_used((number, regions), async |at, count| {
            blocks.set(blocks.get() + count);
            self.disks.make_same(at, count).await
        })
        .await?;
        self.disks.make_sums_same(number).await?;
        self.sync().await?;
        let places = &self.disks.shared().places;
        for copy in places.all(number) {
            places.mark(number, copy.home, (State::Doubtful, State::Whole));
        }
        Ok(blocks.get() * BLOCK_BYTES)
    }

    /// Does something while the owner does not give a slab back, if it is there.
    async fn pinned<T>(&self, slab: u32, work: impl AsyncFnOnce() -> T) -> T {
        let is_pinned = self.owner.borrow_mut().space().pin(slab);
        let done = work().await;
        if is_pinned {
            self.owner.borrow_mut().space().unpin();
        }
        done
    }

    /// Takes the sums anew that nobody knows: what is there is what there is.
    async fn settle_sums(&self) {
        for (slab, regions) in self.doubtful() {
            // Kept in memory until their regions are in no doubt.
            let Ok(_pages) = self.disks.sums_of_regions(slab, regions).await else { continue };
            let take = async |at, blocks| {
                // What cannot be read has no sum, and an error of its own.
                let _ = self.disks.take_sums(at, blocks).await;
                Ok(())
            };
            let taken = self.pinned(slab, async || self.each_used((slab, regions), take).await);
            let taken = taken.await;
            if let (Some(sums), Ok(())) = (&self.disks.shared().sums, taken) {
                sums.settled(slab, regions);
            }
        }
    }

    fn doubtful(&self) -> Regions {
        let slabs = self.slabs();
        let sums = self.disks.shared().sums.as_ref();
        sums.map(|sums| sums.doubtful(|slab| slabs.contains(&slab))).unwrap_or_default()
    }

    /// The LU is about to be closed, and nobody uses it: its copies are the same.
    pub(super) async fn close_all_regions(self: &Rc<Self>) {
        // Whoever is at it goes by what was asked for since he has begun.
        self.ended.until(|| !self.is_closing_regions.get()).await;
        let open = self.owner().regions().clone();
        self.wanted.take();
        self.close_regions(open).await;
    }

    /// The regions that blocks of a slab lie in.
    pub(super) fn regions(&self, first: u64, count: u64) -> u64 {
        regions_of(self.shape, first, count)
    }
}

fn count(all: &Regions) -> u32 {
    all.values().map(|regions| regions.count_ones()).sum()
}

fn leave_out(idle: &mut Regions, slab: u32, regions: u64) {
    if let Some(idle) = idle.get_mut(&slab) {
        *idle &= !regions;
    }
}
