//! Slabs that get another place while the LU is used: written there too from a moment on, filled
//! extent by extent, and then read there as well. So a slab moves to another disk, and a copy that
//! has missed something has everything again.
//!
//! ```text
//!   begin ─▶ quiet ─▶ fill, extent by extent ── sync ──▶ granted ─▶ whole
//!                                   a slab that moves: ─▶ the old place ends ─▶ quiet ─▶ freed
//! ```
//!
//! Nobody waits for more than the copy of one extent, or the grant. Before the grant of a new place
//! the others are what counts: a crash loses nothing in between, because what is written then is
//! there too.

use std::cell::Cell;
use std::rc::Rc;

use block::{Error, ErrorKind};
use rt::handles::each;

use super::super::super::home::{Pool, PoolError, Whither};
use super::super::super::map::Place;
use super::super::super::owner::ALL_REGIONS;
use super::super::super::places::{Home, State};
use super::super::super::shape::BLOCK_BYTES;
use super::super::closed;
use super::super::handle::Handle;
use super::{RETRY, Service, Spot, WRITE_TRIES};

/// So often the root says what copies lack that are brought up to date.
const KEPT_EVERY_BYTES: u64 = 1 << 30;

/// What was done for copies that have missed something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Slabs that lacked something.
    pub lacking: usize,
    /// Bytes that were brought.
    pub bytes: u64,
}

/// A slab that is brought to one of its places.
#[derive(Clone, Copy)]
pub(super) struct Brought {
    pub number: u32,
    pub to: Home,
}

impl Service {
    /// Brings a slab of the LU from one disk to another of the same failure group: to this one, or
    /// the roomiest. One at a time. Gives the bytes that were brought.
    pub(in super::super) async fn move_slab(
        self: Rc<Self>,
        number: u32,
        (disk, to): (u32, Option<u32>),
    ) -> Result<u64, Error> {
        self.one_at_a_time(number, async || {
            let mut all = self.disks.shared().places.all(number);
            let Some(from) = all.find(|copy| copy.home.disk == disk).map(|copy| copy.home) else {
                return Err(invalid(format!("slab {number} is not on that disk")));
            };
            let bytes = self.add_place(number, Whither::From { disk, to }).await?;
            self.drop_place(number, from).await.map(|()| bytes)
        })
        .await?
        .ok_or_else(|| invalid(format!("the LU has no slab {number}")))
    }

    /// Brings so many slabs of copies that have missed something up to date.
    pub(in super::super) async fn mend(self: Rc<Self>, most: usize) -> Result<Mended, Error> {
        let lu = self.lu;
        let (lacking, some) = self.of_pool(async move |pool| Ok(pool.lacks(lu, most))).await?;
        let (mut mended, mut has_any) = (Mended { lacking, bytes: 0 }, some.is_empty());
        for &(number, group) in &some {
            // One that it has given back meanwhile lacks nothing.
            let brought = self.mend_slab(number, group).await?;
            has_any |= brought.is_some();
            mended.bytes += brought.unwrap_or_default();
        }
        if !has_any {
            return Err(Error::new(ErrorKind::Busy).note("slabs of it are being given back"));
        }
        self.keep_mended(mended.bytes).await;
        if lacking > 0 {
            return Ok(mended);
        }
        let mend = async move |pool: Rc<Pool>| {
            for group in pool.stale_groups(lu) {
                pool.mark_current(lu, group).await?;
            }
            Ok(mended)
        };
        self.of_pool(mend).await
    }

    /// Whoever opens the LU next goes on about there.
    async fn keep_mended(self: &Rc<Self>, bytes: u64) {
        let before = self.mended_bytes.get();
        self.mended_bytes.set(before + bytes);
        if (before + bytes) / KEPT_EVERY_BYTES > before / KEPT_EVERY_BYTES {
            // Otherwise it takes longer then.
            let _ = self.clone().describe(self.about()).await;
        }
    }

    /// A slab of it, or a place for one.
    async fn mend_slab(self: &Rc<Self>, number: u32, group: u16) -> Result<Option<u64>, Error> {
        self.one_at_a_time(number, async || {
            let places = &self.disks.shared().places;
            let Some(copy) = places.all(number).find(|copy| copy.group == group) else {
                return self.add_place(number, Whither::Group(group)).await;
            };
            match copy.state {
                State::Whole => return Ok(0),
                State::Doubtful => return self.settle_slab(number, ALL_REGIONS).await,
                State::Filling | State::Broken => {}
            }
            // Nobody writes there now, and nobody begins to while it is broken.
            places.mark(number, copy.home, (State::Broken, State::Filling));
            let brought = Brought { number, to: copy.home };
            let filled = match self.fill(brought, || places.dirty(number)).await {
                Ok(bytes) => self.whole(brought).await.map(|()| bytes),
                failed => failed,
            };
            if filled.is_err() {
                places.mark(number, copy.home, (State::Filling, State::Broken));
            }
            filled
        })
        .await
    }

    /// Does something for a slab, if the LU has it.
    async fn one_at_a_time(
        self: &Rc<Self>,
        number: u32,
        work: impl AsyncFnOnce() -> Result<u64, Error>,
    ) -> Result<Option<u64>, Error> {
        // Whoever makes copies the same that a crash has left in doubt is one of these.
        self.ended.until(|| !self.is_moving.get() || !self.is_serving()).await;
        if !self.is_serving() {
            return Err(self.why_not());
        }
        self.is_moving.set(true);
        self.begin();
        // Its owner does not give it back meanwhile.
        let is_pinned = self.owner.borrow_mut().space().pin(number);
        let done = match is_pinned {
            true => work().await.map(Some),
            false => Ok(None),
        };
        self.owner.borrow_mut().space().unpin();
        self.is_moving.set(false);
        self.end();
        done
    }

    /// Another place, with everything.
    async fn add_place(self: &Rc<Self>, number: u32, whither: Whither) -> Result<u64, Error> {
        let (lu, places) = (self.lu, &self.disks.shared().places);
        let begun = async move |pool: Rc<Pool>| pool.begin_place(lu, number, whither).await;
        let to = self.of_pool(begun).await?;
        let brought = Brought { number, to };
        let mut filled = self.fill(brought, || ALL_REGIONS).await;
        if filled.is_ok() {
            // Nobody writes meanwhile: the new place must not miss anything and be granted.
            let _locked = self.lock_all(number).await;
            let mut done = self.is_filling(brought);
            if done.is_ok() {
                done = self.commit(brought).await;
            }
            match done {
                Ok(()) => return filled,
                Err(error) => filled = Err(error),
            }
        }
        places.remove(number, to);
        self.all_quiet().await;
        let aborted = async move |pool: Rc<Pool>| {
            pool.abort_place(to).await;
            Ok(())
        };
        self.of_pool(aborted).await.and(filled)
    }

    /// The grant of another place, or its certain end.
    async fn commit(self: &Rc<Self>, brought: Brought) -> Result<(), Error> {
        let (lu, Brought { number, to }) = (self.lu, brought);
        let committed = self.of_pool(async move |pool| pool.commit_place(lu, number, to).await);
        let error = match committed.await {
            Err(error) => error,
            // A sync that fails tells of what was written there before.
            Ok(()) => match self.is_filling(brought) {
                Err(error) => error,
                Ok(()) => {
                    let whole = (State::Filling, State::Whole);
                    self.disks.shared().places.mark(number, to, whole);
                    return Ok(());
                }
            },
        };
        for _ in 0..WRITE_TRIES {
            let retract = async move |pool: Rc<Pool>| pool.retract_place(number, to).await;
            if self.of_pool(retract).await.is_ok() {
                return Err(error);
            }
            self.core.sleep(RETRY).await;
        }
        // Both places have everything now. What was written later might be missing at the one that
        // counts when the pool is opened again.
        self.disks.shared().places.stop(number);
        self.fail("it is not known where a slab of it lies", error.clone());
        Err(error)
    }

    /// One place less.
    async fn drop_place(self: &Rc<Self>, number: u32, from: Home) -> Result<(), Error> {
        let (lu, places) = (self.lu, &self.disks.shared().places);
        {
            let _locked = self.lock_all(number).await;
            places.remove(number, from);
        }
        self.all_quiet().await;
        self.of_pool(async move |pool| pool.end_place(lu, number, from).await).await
    }

    /// Brings everything that is in these regions to a place of a slab that fills, durably. Gives
    /// the bytes that were.
    pub(super) async fn fill(
        &self,
        Brought { number, to }: Brought,
        regions: impl FnOnce() -> u64,
    ) -> Result<u64, Error> {
        // Whoever has looked before does not write there; what he writes is known by then.
        self.all_quiet().await;
        let regions = regions();
        if regions == 0 {
            return Ok(0);
        }
        let blocks = Cell::new(0);
        self.each_used((number, regions), async |at, count| {
            blocks.set(blocks.get() + count);
            self.disks.fill((at, count), to).await
        })
        .await?;
        self.disks.fill_sums(number, to).await?;
        self.sync().await.map(|()| blocks.get() * BLOCK_BYTES)
    }

    /// Goes over what is used in these regions of a slab, extent by extent, with the locks of each.
    pub(super) async fn each_used(
        &self,
        (slab, regions): (u32, u64),
        work: impl AsyncFn(Spot, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let locks = &self.disks.shared().locks;
        let blocks = self.shape.blocks_per_extent();
        for extent in 0..self.shape.extents_per_slab() as u32 {
            if !self.is_serving() {
                return Err(self.why_not());
            }
            let first = u64::from(extent) * blocks;
            if self.regions(first, blocks) & regions == 0 {
                continue;
            }
            let _locked = locks.lock(slab, first, blocks).await;
            // What is not used now is written at all places before it is read.
            if self.owner.borrow_mut().space().is_used(Place { slab, extent }) {
                work(Spot { slab, block: first as u32 }, blocks).await?;
            }
        }
        Ok(())
    }

    /// It is read there too from now on.
    pub(super) async fn whole(&self, brought: Brought) -> Result<(), Error> {
        let _locked = self.lock_all(brought.number).await;
        self.is_filling(brought)?;
        let (from, to) = (State::Filling, State::Whole);
        self.disks.shared().places.mark(brought.number, brought.to, (from, to));
        Ok(())
    }

    /// Whether everything that was written since it has begun to fill is there.
    fn is_filling(&self, Brought { number, to }: Brought) -> Result<(), Error> {
        match self.disks.shared().places.state(number, to) {
            Some(State::Filling) => Ok(()),
            _ => {
                let note = "the disk that a slab is brought to cannot be written";
                Err(Error::new(ErrorKind::Medium).note(note))
            }
        }
    }

    async fn lock_all(&self, number: u32) -> super::super::super::locks::Locked<'_> {
        let blocks = self.shape.blocks_per_extent() * self.shape.extents_per_slab();
        self.disks.shared().locks.lock(number, 0, blocks).await
    }

    /// Waits until everybody has arrived who is on the way to a place of this LU.
    pub(in super::super) async fn all_quiet(&self) {
        let over = |handle: Rc<Handle>| async move {
            handle.passage().over().await;
            handle.disks.quiet().await;
        };
        each(self.readers.members(), over).await;
        self.disks.quiet().await;
    }

    /// What was answered before is durable in all copies of the LU; one of which that cannot be
    /// said is stale.
    pub(super) async fn sync(&self) -> Result<(), Error> {
        let mut synced = Ok(());
        for (disk, error) in self.disks.sync_each().await {
            let places = &self.disks.shared().places;
            for number in self.slabs() {
                let lies = places.all(number).find(|copy| copy.home.disk == disk);
                let Some(copy) = lies.filter(|copy| copy.state != State::Broken) else { continue };
                let is_filling = (State::Filling, State::Broken);
                if !places.mark(number, copy.home, is_filling)
                    && self.disks.mark(number, copy.home).await.is_err()
                {
                    synced = Err(error);
                    break;
                }
            }
        }
        synced
    }

    pub(super) async fn of_pool<T, F>(
        &self,
        ask: impl FnOnce(Rc<Pool>) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, PoolError>> + 'static,
    {
        let answer = self.pool.call(ask).await;
        answer.ok_or_else(closed)?.map_err(|error| match error {
            PoolError::Full => Error::new(ErrorKind::NoSpace).note("no other disk has a free slab"),
            error => Error::new(ErrorKind::Medium).note(error.to_string()),
        })
    }
}

fn invalid(note: String) -> Error {
    Error::new(ErrorKind::Invalid).note(note)
}
