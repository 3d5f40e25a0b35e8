//! The owner's orders, carried out: its LU's journal, pages and syncs, and the answers to those who
//! asked, from whichever core.

mod backup;
mod bring;
mod copies;
mod layers;
mod memory;
mod regions;
mod reopen;
mod scrub;

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use block::{Buffer, Error, ErrorKind};
use rt::handles::each;
use rt::sync::{Notify, Turns};
use rt::{Core, Placed};

use super::super::disks::Disks;
use super::super::home::{Pool, PoolError, Tenure};
use super::super::journal::Spot;
use super::super::map::{Form, MapPage};
use super::super::memory::{Held, Memory};
use super::super::numbers::NumberMap;
use super::super::owner::{LayerNumber, Order, Owner, PageId, Refusal, Regions, Ticket};
use super::super::page::{PAGE_BYTES, Page};
use super::super::passage::Passage;
use super::super::root::About;
use super::super::shape::{BLOCK_BYTES, Shape};
use super::below::Depths;
use super::closed;
use super::counts::Counts;
use super::handle::Handle;
use super::snapshots::{Readers, View};

pub use backup::Copied;
pub use copies::Mended;
pub(super) use layers::Viewed;
pub use layers::{Folded, LayerAbout};
#[cfg(test)]
pub(super) use regions::OPEN_MAX;

/// Times that metadata is tried to be written before the LU stops.
const WRITE_TRIES: u32 = 3;
/// Pages of a checkpoint that are written at one time: it has thousands, and with fewer those who
/// change other pages meanwhile have no memory left before it ends.
const PAGE_WRITERS_MAX: usize = 32;
/// How long to wait before something is tried again that may be better then.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Service {
    core: Core,
    lu: [u8; 16],
    shape: Shape,
    disks: Rc<Disks>,
    pool: Arc<Placed<Pool>>,
    readers: Arc<Readers>,
    /// What the lowest layer stands on.
    base: Option<Arc<View>>,
    owner: RefCell<Owner>,
    waiters: RefCell<BTreeMap<Ticket, Waiter>>,
    last_ticket: Cell<u64>,
    /// What was ordered to be quiet while others were waited for, with pages to forget.
    quiescing: RefCell<Vec<(Ticket, Option<u64>)>>,
    is_quiescing: Cell<bool>,
    /// Who reads everything, besides the handles.
    scrubbing: Rc<Passage>,
    /// Frozen layers that are read, some of them no more.
    views: RefCell<Vec<(LayerNumber, Weak<()>)>>,
    /// The layer that is about to go.
    going: Cell<Option<LayerNumber>>,
    /// Somebody is at it.
    is_folding: Cell<bool>,
    /// The LU is about to be what these were.
    wanted_layers: RefCell<Vec<LayerNumber>>,
    /// What the LU is brought from, as long as it is.
    depths: Arc<Depths>,
    is_bringing: Cell<bool>,
    /// So much was read of what it is brought from.
    fetched_bytes: Cell<u64>,
    /// So many extents were brought when the root was told last.
    kept_brought: Cell<u64>,
    /// Of extents that are being brought.
    fetched: RefCell<NumberMap<Ticket, Buffer>>,
    /// A slab is on its way to another disk.
    is_moving: Cell<bool>,
    /// Of copies that were brought up to date.
    mended_bytes: Cell<u64>,
    /// Regions that somebody has asked for since the last look.
    wanted: RefCell<Regions>,
    /// Regions that were opened since the last look.
    opened: Cell<u32>,
    is_closing_regions: Cell<bool>,
    /// Whoever writes pages of sums: what is at one place is durable before the other is written.
    saving: Turns,
    /// Some were written and may not be durable.
    are_sums_unsynced: Cell<bool>,
    /// Regions where those write whom the owner has sent there, and whom no passage counts.
    writing: RefCell<NumberMap<Ticket, (u32, u64)>>,
    /// Why nothing is written, and when it is again.
    failed: RefCell<Option<Error>>,
    has_failed: Arc<AtomicBool>,
    /// Who asks for pages that are not in memory waits.
    is_still: Cell<bool>,
    /// The service of the owner that has come after this one.
    heir: OnceCell<Rc<Self>>,
    /// What is to be done when nobody goes by what the owner before has said.
    postponed: RefCell<Option<Vec<Order>>>,
    stage: Cell<Stage>,
    /// Pages, syncs and grants that it waits for, and data that others are writing.
    under_way: Cell<usize>,
    ended: Notify,
    counts: Cell<Counts>,
    /// Of a checkpoint, to be written.
    pages: RefCell<VecDeque<(Spot, Page, Held)>>,
    page_writers: Cell<usize>,
    /// For maps.
    memory: Arc<Memory>,
    /// As long as the LU is open.
    tenure: RefCell<Option<Tenure>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Whoever waits for what nobody is at is refused.
    Closing,
    /// Nothing is begun any more.
    Closed,
}

/// One who has asked.
#[derive(Default)]
struct Waiter {
    /// Where, and whether anything is there.
    place: Option<(Spot, bool)>,
    found: Option<Result<Vec<Arc<MapPage>>, Error>>,
    done: Option<Result<(), Error>>,
    /// What it waits for may come about for the next owner although it has failed.
    may_come: bool,
    waker: Option<Waker>,
}

/// What an owner's service is made of.
pub(super) struct Parts {
    pub lu: [u8; 16],
    pub shape: Shape,
    pub disks: Rc<Disks>,
    pub pool: Arc<Placed<Pool>>,
    pub readers: Arc<Readers>,
    pub owner: Owner,
    pub base: Option<Arc<View>>,
    pub depths: Arc<Depths>,
    pub has_failed: Arc<AtomicBool>,
    pub memory: Arc<Memory>,
    pub tenure: Tenure,
}

impl Service {
    pub(super) fn new(core: &Core, parts: Parts) -> Rc<Self> {
        let Parts { lu, shape, disks, pool, readers, owner, base, .. } = parts;
        let Parts { depths, has_failed, memory, tenure, .. } = parts;
        Rc::new(Self {
            core: core.clone(),
            lu,
            shape,
            disks,
            pool,
            readers,
            base,
            owner: RefCell::new(owner),
            waiters: RefCell::default(),
            last_ticket: Cell::new(0),
            quiescing: RefCell::default(),
            is_quiescing: Cell::new(false),
            scrubbing: Rc::default(),
            views: RefCell::default(),
            going: Cell::new(None),
            is_folding: Cell::new(false),
            wanted_layers: RefCell::default(),
            depths,
            is_bringing: Cell::new(false),
            fetched_bytes: Cell::new(0),
            kept_brought: Cell::new(0),
            fetched: RefCell::default(),
            is_moving: Cell::new(false),
            mended_bytes: Cell::new(0),
            wanted: RefCell::default(),
            opened: Cell::default(),
            is_closing_regions: Cell::new(false),
            saving: Turns::default(),
            are_sums_unsynced: Cell::new(false),
            writing: RefCell::default(),
            failed: RefCell::default(),
            has_failed,
            is_still: Cell::new(false),
            heir: OnceCell::new(),
            postponed: RefCell::default(),
            stage: Cell::new(Stage::Serving),
            under_way: Cell::new(0),
            ended: Notify::new(),
            counts: Cell::default(),
            pages: RefCell::default(),
            page_writers: Cell::new(0),
            memory,
            tenure: RefCell::new(Some(tenure)),
        })
    }

    /// Asks for a place for blocks with these sums. Whoever has it writes the data there and then
    /// says what has become of it with [`Service::written`].
    pub(super) async fn reserve(
        self: Rc<Self>,
        block: u64,
        sums: Vec<u32>,
    ) -> Result<(Ticket, Spot), Error> {
        let (ticket, count) = (self.ticket()?, sums.len() as u64);
        self.tell(|owner| owner.write(ticket, block, sums));
        let asked = self.core.turn_time();
        let place = self.wait(ticket, |waiter| match (&waiter.done, waiter.place) {
            (Some(Err(error)), _) => Some(Err(error.clone())),
            (_, Some(place)) => Some(Ok(place)),
            _ => None,
        });
        let place = place.await;
        self.count(|counts| {
            let held = self.core.turn_time() - asked;
            counts.held += u64::from(!held.is_zero());
            counts.holding += held;
        });
        match place {
            Ok((at, true)) => match self.overwrite(at, count).await {
                Ok(()) => Ok((ticket, at)),
                Err(error) => {
                    Err(self.written(ticket, Err(error.clone())).await.err().unwrap_or(error))
                }
            },
            Ok((at, false)) => Ok((ticket, at)),
            Err(error) => {
                if self.forget(ticket).is_some_and(|waiter| waiter.place.is_some()) {
                    self.writing.borrow_mut().remove(&ticket);
                    self.end();
                }
                Err(error)
            }
        }
    }

    /// The data is at its place, or not. Waits until what belongs to it is written too.
    pub(super) async fn written(
        self: Rc<Self>,
        ticket: Ticket,
        outcome: Result<(), Error>,
    ) -> Result<(), Error> {
        let writing = self.writing.borrow_mut().remove(&ticket);
        if let Err(error) = outcome {
            self.forget(ticket);
            self.tell(|owner| owner.data_lost(ticket));
            self.end();
            return match writing {
                Some((slab, _)) => self.missed(slab, error).await,
                None => Err(error),
            };
        }
        self.tell(|owner| owner.data_written(ticket));
        self.change(ticket, |waiter| waiter.place = None);
        self.end();
        self.done(ticket).await
    }

    /// Data could not be written: also what became of its copies may be unknown until the LU is
    /// opened again.
    pub(super) async fn missed(self: Rc<Self>, slab: u32, error: Error) -> Result<(), Error> {
        if self.disks.shared().places.is_stopped(slab) && self.is_serving() {
            self.fail("copies of it cannot be told from each other", error.clone());
        }
        Err(error)
    }

    /// Makes whole blocks read zero, and lets go of what lay there.
    pub(super) async fn zero(self: Rc<Self>, block: u64, count: u64) -> Result<(), Error> {
        let blocks = self.shape.blocks_per_extent();
        let (mut at, end) = (block, block + count);
        while at < end {
            let piece = (blocks - at % blocks).min(end - at);
            let ticket = self.ticket_of_change()?;
            self.tell(|owner| owner.zero(ticket, at, piece));
            self.done(ticket).await?;
            at += piece;
            if (at / blocks).is_multiple_of(ZEROES_PER_TURN) {
                self.core.yield_now().await;
            }
        }
        Ok(())
    }

    pub(super) async fn flush(self: Rc<Self>) -> Result<(), Error> {
        let ticket = self.ticket()?;
        self.tell(|owner| owner.flush(ticket));
        self.done(ticket).await
    }

    pub(super) async fn describe(self: Rc<Self>, about: About) -> Result<(), Error> {
        let ticket = self.ticket()?;
        let About { base, thick, source, .. } = self.about();
        let about = About { base, thick, source, ..about };
        self.tell(|owner| owner.describe(ticket, about));
        self.done(ticket).await
    }

    pub(super) fn about(&self) -> About {
        self.owner.borrow().about().clone()
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn lu(&self) -> [u8; 16] {
        self.lu
    }

    pub(super) fn pool(&self) -> &Placed<Pool> {
        &self.pool
    }

    pub(super) fn owner(&self) -> Ref<'_, Owner> {
        self.owner.borrow()
    }

    pub(super) fn form(&self) -> Form {
        self.owner.borrow().layers().form()
    }

    /// What the lowest layer stands on.
    pub(super) fn base(&self) -> Option<&Arc<View>> {
        self.base.as_ref()
    }

    /// See [`Layers::pages_from`](super::super::owner::Layers::pages_from).
    pub(super) fn own_pages_from(&self, view: Option<LayerNumber>, first: u64) -> BTreeSet<u64> {
        self.owner.borrow().layers().pages_from(view, first)
    }

    pub(super) fn extents(&self) -> (u64, u64) {
        let mut owner = self.owner.borrow_mut();
        let space = owner.space();
        (space.extents(), space.free_extents() + space.waiting_extents())
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    fn count(&self, f: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        f(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn may_grow(self: &Rc<Self>, share: u64) {
        self.owner.borrow_mut().has_share(share);
        self.tell(Owner::may_grow);
    }

    /// From here on nobody waits for what is not about to happen.
    pub(super) fn begin_closing(&self) {
        if self.stage.get() == Stage::Serving {
            self.stage.set(Stage::Closing);
            self.refuse_stuck();
        }
    }

    /// Ends everything. Nobody asks for anything any more.
    pub(super) async fn close(self: Rc<Self>) {
        self.close_all_regions().await;
        // A checkpoint, if there is room for one: whoever opens the LU next has less to read.
        self.tell(Owner::checkpoint);
        // Nor does anybody look for what comes after this one.
        self.ended.until(|| self.under_way.get() == 0 && !self.is_still.get()).await;
        if let Some(sums) = &self.disks.shared().sums {
            let slabs = self.slabs();
            sums.forget(|slab| slabs.contains(&slab));
        }
        self.stage.set(Stage::Closed);
        self.tenure.take();
    }

    /// Something is under way, until [`Service::end`].
    fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
        self.ended.notify();
        self.refuse_stuck();
    }

    /// When nothing is under way, nothing more happens to those who still wait: the pool has no
    /// slab, say, and the checkpoint that would make room needs one.
    fn refuse_stuck(&self) {
        if self.stage.get() != Stage::Closing || self.under_way.get() > 0 {
            return;
        }
        self.refuse_all(&closed(), |_| true);
    }

    fn ticket(&self) -> Result<Ticket, Error> {
        if let Some(error) = &*self.failed.borrow() {
            return Err(error.clone());
        }
        self.new_ticket()
    }

    /// Of one who makes blocks other than they are without writing them: when that has failed, its
    /// record may be found all the same, and what was written since would be lost.
    fn ticket_of_change(&self) -> Result<Ticket, Error> {
        let ticket = self.ticket()?;
        self.change(ticket, |waiter| waiter.may_come = true);
        Ok(ticket)
    }

    fn new_ticket(&self) -> Result<Ticket, Error> {
        if self.stage.get() == Stage::Closed {
            return Err(self.why_not());
        }
        self.last_ticket.set(self.last_ticket.get() + 1);
        let ticket = Ticket(self.last_ticket.get());
        self.waiters.borrow_mut().insert(ticket, Waiter::default());
        Ok(ticket)
    }

    async fn done(&self, ticket: Ticket) -> Result<(), Error> {
        let done = self.wait(ticket, |waiter| waiter.done.clone()).await;
        self.forget(ticket);
        done
    }

    fn forget(&self, ticket: Ticket) -> Option<Waiter> {
        self.waiters.borrow_mut().remove(&ticket)
    }

    async fn wait<T>(&self, ticket: Ticket, found: impl Fn(&Waiter) -> Option<T>) -> T {
        std::future::poll_fn(|cx| {
            let mut waiters = self.waiters.borrow_mut();
            let waiter = waiters.entry(ticket).or_default();
            match found(waiter) {
                Some(found) => Poll::Ready(found),
                None => {
                    waiter.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn change(&self, ticket: Ticket, f: impl FnOnce(&mut Waiter)) {
        let waker = {
            let mut waiters = self.waiters.borrow_mut();
            let Some(waiter) = waiters.get_mut(&ticket) else { return };
            f(waiter);
            waiter.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Tells the owner something, and does what it orders then.
    pub(super) fn tell(self: &Rc<Self>, f: impl FnOnce(&mut Owner) -> Vec<Order>) {
        let orders = f(&mut self.owner.borrow_mut());
        if self.stage.get() != Stage::Closed {
            let due: Vec<Order> = orders.into_iter().filter_map(|order| self.due(order)).collect();
            due.into_iter().for_each(|order| self.carry_out(order));
        }
        self.refuse_stuck();
        self.look_at_memory();
    }

    /// An order, if it is to be carried out now.
    fn due(&self, order: Order) -> Option<Order> {
        if order.is_to_read() {
            return Some(order);
        }
        if let Some(postponed) = &mut *self.postponed.borrow_mut() {
            postponed.push(order);
            return None;
        }
        self.failed.borrow().is_none().then_some(order)
    }

    fn carry_out(self: &Rc<Self>, order: Order) {
        match order {
            Order::Data { ticket, at, count, overwrites } => {
                self.let_write(ticket, (at, count), overwrites);
            }
            Order::Answer { ticket, done } => {
                let done = done.map_err(refused);
                self.change(ticket, |waiter| waiter.done = Some(done));
            }
            Order::Journal { number, at, page } => {
                self.count(|counts| counts.journal += 1);
                self.write(at, page, move |owner| owner.journal_written(number));
            }
            Order::Gather => self.start(|me| async move {
                me.core.yield_now().await;
                me.tell(Owner::gathered);
            }),
            Order::Page { at, page } => {
                let held = self.memory.hold(PAGE_BYTES);
                self.pages.borrow_mut().push_back((at, page, held));
                self.start_writers(1);
            }
            Order::Images => self.start_writers(PAGE_WRITERS_MAX),
            Order::Root { at, page } => {
                self.count(|counts| counts.roots += 1);
                self.start(move |me| me.write_root(at, page));
                self.look_at_regions();
            }
            Order::Sync => {
                self.count(|counts| counts.syncs += 1);
                self.start(|me| async move {
                    match me.sync().await {
                        Ok(()) => me.tell(Owner::synced),
                        Err(error) => me.fail("its disks cannot be synced", error),
                    }
                });
            }
            Order::Copy { ticket, from, to, runs } => self.start(|me| async move {
                let is_done = me.copy(from, to, runs).await.is_ok();
                me.tell(|owner| owner.copied(ticket, is_done));
            }),
            Order::Bring { ticket, to, runs } => {
                self.start(move |me| me.write_fetched(ticket, to, runs));
            }
            Order::Quiesce { ticket, page } => {
                self.quiescing.borrow_mut().push((ticket, page));
                if !self.is_quiescing.replace(true) {
                    self.start(Self::quiesce);
                }
            }
            Order::Load { id, at } => self.start(move |me| me.load(id, at)),
            Order::Found { ticket, found } => {
                let found = found.map_err(refused);
                self.change(ticket, |waiter| waiter.found = Some(found));
            }
            Order::Grow { slabs } => self.start(|me| me.grow(slabs)),
            Order::Shrink { slabs } => self.start(|me| async move {
                me.scrubbing.over().await;
                let lu = me.lu;
                let back = me.pool.call(move |pool| async move {
                    // Where it fails they are nobody's until the pool is opened again.
                    drop(pool.take_back(lu, &slabs).await);
                });
                let _ = back.await;
            }),
        }
    }

    /// Something that counts as under way until it has ended.
    fn start<F>(self: &Rc<Self>, work: impl FnOnce(Rc<Self>) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let (me, work) = (self.clone(), work(self.clone()));
        self.begin();
        self.core.spawn(async move {
            work.await;
            me.end();
        });
    }

    fn write(
        self: &Rc<Self>,
        at: Spot,
        page: Page,
        then: impl FnOnce(&mut Owner) -> Vec<Order> + 'static,
    ) {
        let me = self.clone();
        self.begin();
        self.core.spawn_now(async move {
            match me.write_page(at, &page).await {
                Ok(()) => me.tell(then),
                Err(error) => me.fail("its metadata cannot be written", error),
            }
            me.end();
        });
    }

    /// Somebody writes his data now.
    fn let_write(self: &Rc<Self>, ticket: Ticket, (at, count): (Spot, u64), overwrites: bool) {
        if !self.disks.is_plain(at.slab) {
            let regions = self.regions(at.block.into(), count);
            self.writing.borrow_mut().insert(ticket, (at.slab, regions));
        }
        self.change(ticket, |waiter| {
            waiter.place = Some((at, overwrites));
            self.count(|counts| counts.data += 1);
            self.begin();
        });
    }

    /// The journal is about to forget what the root does not say: also sums.
    async fn write_root(self: Rc<Self>, at: Spot, page: Page) {
        match self.insist(async || self.save_sums().await).await {
            Ok(()) => self.write(at, page, Owner::root_written),
            Err(error) => self.fail("its checksums cannot be written", error),
        }
    }

    /// The sums of what has come about until now are on disk, durably.
    async fn save_sums(&self) -> Result<(), Error> {
        let slabs = self.slabs();
        let is_one = |slab| slabs.contains(&slab);
        let Some(sums) = &self.disks.shared().sums else { return Ok(()) };
        let _alone = self.saving.take().await;
        // Neither place of a page is written before the other is durable.
        if self.are_sums_unsynced.get() {
            self.sync().await?;
            self.are_sums_unsynced.set(false);
        }
        if sums.unwritten(is_one).is_empty() {
            return Ok(());
        }
        self.are_sums_unsynced.set(true);
        self.disks.save_sums(is_one).await?;
        self.sync().await?;
        self.are_sums_unsynced.set(false);
        Ok(())
    }

    fn slabs(&self) -> BTreeSet<u32> {
        self.owner.borrow_mut().space().slabs().collect()
    }

    async fn load(self: Rc<Self>, id: PageId, at: Spot) {
        let page = self.disks.read_page(at).await;
        self.count(|counts| counts.loads += 1);
        self.tell(|owner| owner.loaded(id, page.as_ref().ok()));
    }

    fn start_writers(self: &Rc<Self>, count: usize) {
        for _ in 0..count.min(PAGE_WRITERS_MAX - self.page_writers.get()) {
            self.page_writers.set(self.page_writers.get() + 1);
            self.start(Self::write_pages);
        }
    }

    /// Writes pages of a checkpoint, as long as there are any.
    async fn write_pages(self: Rc<Self>) {
        loop {
            let next = self.pages.borrow_mut().pop_front();
            let next = next.map(|(at, page, _held)| (at, page));
            let Some((at, page)) = next.or_else(|| self.owner.borrow_mut().next_image()) else {
                break;
            };
            self.count(|counts| counts.pages += 1);
            match self.write_page(at, &page).await {
                Ok(()) => self.tell(Owner::page_written),
                Err(error) => self.fail("its metadata cannot be written", error),
            }
        }
        self.page_writers.set(self.page_writers.get() - 1);
    }

    async fn write_page(&self, at: Spot, page: &Page) -> Result<(), Error> {
        self.insist(async || self.disks.write_page(at, page).await).await
    }

    /// Writes metadata, more than once if it fails.
    async fn insist(&self, work: impl AsyncFn() -> Result<(), Error>) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let Err(error) = work().await else { return Ok(()) };
            // A disk that is a file on a full file system has room again some time.
            let may_pass = matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Busy);
            let is_passing = may_pass && self.is_serving();
            tries += u32::from(!is_passing);
            if tries == WRITE_TRIES {
                return Err(error);
            }
            self.core.sleep(RETRY).await;
        }
    }

    /// Blocks that nobody changes meanwhile, from one extent to another.
    async fn copy(&self, from: Spot, to: Spot, runs: Vec<(u64, u64)>) -> Result<(), Error> {
        for (first, count) in runs {
            let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
            let spot = |at: Spot| Spot { block: at.block + first as u32, ..at };
            self.disks.read((spot(from), 0), &buffer.sgl()).await?;
            self.disks.write_data(spot(to), &buffer.sgl()).await?;
        }
        Ok(())
    }

    /// Rounds over all handles, as long as anything waits for one.
    async fn quiesce(self: Rc<Self>) {
        loop {
            let asked = self.quiescing.take();
            if asked.is_empty() {
                break;
            }
            let pages: Arc<[u64]> = asked.iter().filter_map(|(_, page)| *page).collect();
            let over = move |handle: Rc<Handle>| {
                handle.forget(&pages);
                async move { handle.passage().over().await }
            };
            each(self.readers.members(), over).await;
            self.scrubbing.over().await;
            asked.into_iter().for_each(|(ticket, _)| self.tell(|owner| owner.quiet(ticket)));
        }
        self.is_quiescing.set(false);
    }

    async fn grow(self: Rc<Self>, slabs: u64) {
        let lu = self.lu;
        let asked = self.core.turn_time();
        let granted = async move |pool: Rc<Pool>| {
            let granted = pool.grant_some(lu, slabs).await;
            (granted, pool.share())
        };
        let (granted, share) = self.pool.call(granted).await.unzip();
        share.iter().for_each(|share| self.owner.borrow_mut().has_share(*share));
        self.count(|counts| {
            counts.growths += 1;
            counts.growing += self.core.turn_time() - asked;
        });
        match granted {
            Some(Ok(slabs)) => {
                if let Some(sums) = &self.disks.shared().sums {
                    sums.forget(|slab| slabs.contains(&slab));
                }
                self.tell(|owner| owner.granted(&slabs));
            }
            // Nothing is wrong with the LU, and there may be room.
            Some(Err(error)) if self.is_passing(&error) => {
                self.core.sleep(RETRY).await;
                self.tell(|owner| {
                    let mut orders = owner.granted(&[]);
                    orders.extend(owner.may_grow());
                    orders
                });
            }
            Some(Err(_)) | None => self.tell(|owner| owner.granted(&[])),
        }
    }

    fn is_passing(&self, error: &PoolError) -> bool {
        !matches!(error, PoolError::Full) && self.is_serving()
    }

    /// Nothing is written from here on, by no core, until the LU is opened again: see `reopen`.
    fn fail(self: &Rc<Self>, what: &str, error: Error) {
        let error = format!("{what}: {error}; it is written again when its disks can be");
        let error = Error::new(ErrorKind::Medium).note(error);
        self.failed.borrow_mut().get_or_insert_with(|| error.clone());
        self.has_failed.store(true, Ordering::Release);
        self.refuse_all(&error, |waiter| !waiter.may_come);
        self.pages.take();
        self.start(|me| async move {
            let stopped = |handle: Rc<Handle>| async move {
                handle.stop();
                handle.passage().over().await;
            };
            each(me.readers.members(), stopped).await;
            me.refuse_all(&error, |_| true);
            let lu = me.lu;
            let _ = me.pool.call(async move |pool: Rc<Pool>| pool.lu_failed(lu)).await;
        });
    }

    /// Why nothing is done for who asks.
    fn why_not(&self) -> Error {
        let is_closed = self.stage.get() != Stage::Serving && self.heir.get().is_none();
        let failed = self.failed.borrow().clone().filter(|_| !is_closed);
        failed.unwrap_or_else(closed)
    }

    /// Nobody waits for it to end.
    fn is_serving(&self) -> bool {
        self.stage.get() == Stage::Serving && !self.is_still.get()
    }

    fn refuse_all(&self, error: &Error, is_one: impl Fn(&Waiter) -> bool) {
        let waits = |(_, waiter): &(&Ticket, &Waiter)| waiter.done.is_none() && is_one(waiter);
        let tickets: Vec<Ticket> =
            self.waiters.borrow().iter().filter(waits).map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            self.change(ticket, |waiter| waiter.done = Some(Err(error.clone())));
        }
    }
}

/// Pieces of a long discard before others have a turn.
const ZEROES_PER_TURN: u64 = 64;

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::NoSpace => Error::new(ErrorKind::NoSpace).note("the pool has no free slab"),
        Refusal::NotCopied => Error::new(ErrorKind::Medium).note("a block cannot be copied"),
        Refusal::Map { .. } | Refusal::Below { .. } => {
            Error::new(ErrorKind::Medium).note(refusal.to_string())
        }
    }
}
