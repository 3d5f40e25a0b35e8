//! A core's handle of an LU: what goes straight to a disk, and where requests leave that way.
//!
//! A read, or a write to blocks that are written and sealed, whose range lies in one place is
//! passed on to the disk that has the place, with another offset: one look into the map, no copy,
//! no future, no message. So is a write where checksums are kept, with a copy. Everything else is
//! in `work`.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use block::{
    Asked, Completion, Device, Error, Geometry, Health, Op, Outcome, Request, RequestBuf, Sink,
    Watch, Way,
};
use rt::Core;
use rt::handles::{Closes, Gate, HandleId, Span};

use super::super::disks::{Disks, Straight};
use super::super::journal::Spot;
use super::super::map::{Form, MapPage, Run, resolve};
use super::super::memory::Held;
use super::super::numbers::NumberMap;
use super::super::passage::{Passage, Turn, UnderWay};
use super::super::shape::BLOCK_BYTES;
use super::Lu;
use super::below::Under;
use super::service::Service;
use super::snapshots::View;

/// The pages of one number, of every layer that has it; the top layer's is the first.
pub(super) type Stack = Rc<[Arc<MapPage>]>;

/// A stack that is kept.
struct Known {
    stack: Stack,
    _held: Held,
}

/// What one takes, beside its pages: its place among others, half of which may be empty, and the
/// counts of a reference.
const KNOWN_BYTES: usize = 2 * size_of::<(u64, Known)>() + 4 * size_of::<usize>();

pub(super) struct Handle {
    id: HandleId,
    pub(super) lu: Arc<Lu>,
    /// What is looked at, if that is not the LU as it is.
    view: Option<Arc<View>>,
    pub(super) core: Core,
    pub(super) disks: Rc<Disks>,
    /// The owner, if it is on this core.
    service: RefCell<Option<Rc<Service>>>,
    form: Form,
    geometry: Cell<Geometry>,
    pub(super) gate: Rc<Gate>,
    passage: Rc<Passage>,
    pub(super) under_way: Rc<UnderWay>,
    /// Nothing is begun any more.
    is_closed: Cell<bool>,
    pages: RefCell<NumberMap<u64, Known>>,
    /// How often they were forgotten.
    forgotten: Cell<u64>,
    /// What is read where no layer says anything.
    under: RefCell<Option<Rc<Under>>>,
    flights: RefCell<Flights>,
    way: OnceCell<Rc<Way>>,
    watch: Watch,
}

/// Requests that a disk has.
#[derive(Default)]
struct Flights {
    slots: Vec<Flight>,
    free: Vec<u32>,
}

struct Flight {
    turn: Turn,
    done: Option<Completion>,
    /// Of a write with checksums.
    straight: Option<Straight>,
}

impl Flights {
    #[inline]
    fn take(&mut self, turn: Turn) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize].turn = turn;
            return index;
        }
        self.slots.push(Flight { turn, done: None, straight: None });
        self.slots.len() as u32 - 1
    }
}

/// Where a request goes that needs no more than one look.
enum Goes {
    Nowhere,
    /// Where checksums are kept, a write has more on its way.
    To(Rc<dyn Device>, u64, Option<Straight>),
}

impl Under {
    fn straight(&self, request: &Request<'_>) -> Option<Goes> {
        let is_within = request.offset + request.len <= self.size;
        is_within.then(|| Goes::To(self.device.clone(), request.offset, None))
    }
}

impl Handle {
    pub(super) fn new(
        lu: Arc<Lu>,
        core: &Core,
        (id, view): (HandleId, Option<Arc<View>>),
    ) -> Rc<Self> {
        let handle = Rc::new(Self {
            id,
            core: core.clone(),
            disks: lu.shared.on(core),
            service: RefCell::new(lu.owner.here(core)),
            form: Form::new(lu.shape),
            geometry: Cell::new(geometry(&lu, view.as_deref())),
            gate: Rc::default(),
            passage: Rc::default(),
            under_way: Rc::default(),
            is_closed: Cell::new(false),
            pages: RefCell::default(),
            forgotten: Cell::new(0),
            under: RefCell::default(),
            flights: RefCell::default(),
            way: OnceCell::new(),
            watch: Watch::new(),
            view,
            lu,
        });
        let weak: Weak<Self> = Rc::downgrade(&handle);
        let _ = handle.way.set(Way::to(weak));
        handle
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    pub(super) fn passage(&self) -> &Rc<Passage> {
        &self.passage
    }

    /// Size or health may be new.
    pub(super) fn look(&self) {
        self.geometry.set(geometry(&self.lu, self.view.as_deref()));
        self.watch.notify();
    }

    /// There may be nothing below the layers any more.
    pub(super) fn look_below(&self) {
        let below = self.lu.depths.below();
        self.under.replace(below.map(|below| Rc::new(below.on(&self.core))));
    }

    /// What is read where no layer says anything, if there is something of it from this byte on.
    pub(super) fn under(&self, at: u64) -> Option<Rc<Under>> {
        self.under.borrow().as_ref().filter(|under| at < under.size).cloned()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// The LU has failed: nobody writes straight to a disk any more.
    pub(super) fn stop(&self) {
        self.gate.watch();
        self.look();
    }

    /// It has another owner, which knows better what there is.
    pub(super) fn begin_anew(&self) {
        self.service.replace(self.lu.owner.here(&self.core));
        self.forget_pages();
    }

    /// The LU is written again.
    pub(super) fn go_on(&self) {
        self.gate.unwatch();
        self.look_below();
        self.look();
    }

    /// Begins nothing any more. Without pages nothing goes straight to a disk either.
    pub(super) fn refuse(&self) {
        self.is_closed.set(true);
        self.forget_pages();
    }

    /// Waits until nothing of it is under way, reads included.
    pub(super) async fn quiet(&self) {
        self.ended().await;
        self.under_way.over().await;
    }

    /// There is another layer.
    pub(super) fn forget_pages(&self) {
        self.pages.borrow_mut().clear();
        self.forgotten.set(self.forgotten.get() + 1);
    }

    /// There is less in these pages, and more in others above them.
    pub(super) fn forget(&self, pages: &[u64]) {
        if !pages.is_empty() {
            self.pages.borrow_mut().retain(|number, _| !pages.contains(number));
            self.forgotten.set(self.forgotten.get() + 1);
        }
    }

    /// These pages may leave memory, unless they are needed here: then all that lie below each
    /// other are.
    pub(super) fn let_go(&self, numbers: &[u64]) {
        let mut pages = self.pages.borrow_mut();
        for number in numbers {
            let Some(Known { stack, .. }) = pages.get(number) else { continue };
            match stack.first().is_some_and(|page| page.is_used()) {
                true => stack.iter().for_each(|page| page.touch()),
                false => drop(pages.remove(number)),
            }
        }
    }

    /// Pages of the map; the owner is asked for those that are not known here.
    pub(super) async fn stack(&self, page: u64) -> Result<Stack, Error> {
        loop {
            if let Some(known) = self.pages.borrow().get(&page) {
                return Ok(known.stack.clone());
            }
            let before = self.forgotten.get();
            let view = self.view.as_ref().map(|view| view.layer());
            let found = self.ask(move |service| service.stack(view, page));
            let found = found.await?;
            // What was asked for before a snapshot says nothing of what is there behind it.
            if self.forgotten.get() == before {
                let stack: Stack = found.into();
                if !self.is_closed.get() {
                    let bytes = KNOWN_BYTES + stack.len() * size_of::<Arc<MapPage>>();
                    let known = Known { stack: stack.clone(), _held: self.lu.memory.hold(bytes) };
                    self.pages.borrow_mut().insert(page, known);
                }
                return Ok(stack);
            }
        }
    }

    /// Asks the owner, without a message if it is here.
    pub(super) async fn ask<T, F>(
        &self,
        f: impl FnOnce(Rc<Service>) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + 'static,
    {
        let here = self.service.borrow().clone();
        match here {
            Some(service) => f(service).await,
            None => self.lu.ask(f).await,
        }
    }

    #[inline]
    fn straight(&self, request: &Request<'_>) -> Option<Goes> {
        let block = request.offset / BLOCK_BYTES;
        let count = (request.offset + request.len).div_ceil(BLOCK_BYTES) - block;
        let (page, extent, within) = self.form.locate(block);
        if within + count > self.form.blocks() {
            return None;
        }
        let pages = self.pages.borrow();
        let Known { stack, .. } = pages.get(&page)?;
        if request.op != Op::Read {
            return self.straight_write(request, sealed_at(stack, (extent, within), count)?);
        }
        let (device, offset) = match find(stack, (extent, within), count) {
            Run::Written { at, count: run } if run == count => self.disks.locate_plain(at)?,
            Run::Absent { count: run } if run == count => match self.under(request.offset) {
                Some(under) => return under.straight(request),
                None => return Some(Goes::Nowhere),
            },
            Run::Zero { count: run } if run == count => return Some(Goes::Nowhere),
            _ => return None,
        };
        Some(Goes::To(device, offset + request.offset % BLOCK_BYTES, None))
    }

    #[inline]
    fn straight_write(&self, request: &Request<'_>, at: Spot) -> Option<Goes> {
        if !self.disks.has_sums() {
            let (device, offset) = self.disks.locate_plain(at)?;
            return Some(Goes::To(device, offset + request.offset % BLOCK_BYTES, None));
        }
        if !(request.offset | request.len).is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let (device, offset, straight) = self.disks.begin_straight(at, &request.data)?;
        Some(Goes::To(device, offset, Some(straight)))
    }

    /// Hands a request to the disk that has its place.
    #[inline]
    fn pass(
        &self,
        (device, straight): (&dyn Device, Option<Straight>),
        request: &Request<'_>,
        asked: Asked<'_>,
    ) -> Option<Outcome> {
        let turn = self.passage.enter();
        let index = self.flights.borrow_mut().take(turn);
        let way = self.way.get().expect("set when it was made");
        let data = straight.as_ref().map_or(request.data, Straight::data);
        match device.begin(&Request { data, ..*request }, Asked::by(way, u64::from(index))) {
            Some(outcome) => {
                self.flights.borrow_mut().free.push(index);
                self.land(turn, straight, outcome.is_ok());
                asked.now(outcome)
            }
            None => {
                let flight = &mut self.flights.borrow_mut().slots[index as usize];
                (flight.done, flight.straight) = (Some(asked.later()), straight);
                None
            }
        }
    }

    /// A request that a disk had is back. It counts as long as it has anything.
    #[inline]
    fn land(&self, turn: Turn, straight: Option<Straight>, is_ok: bool) {
        if let Some(straight) = straight {
            self.disks.end_straight(straight, is_ok);
        }
        self.passage.leave(turn);
    }

    /// Starts a write that was asked for here, or holds it back.
    pub(super) fn begin_change(
        self: &Rc<Self>,
        buf: RequestBuf,
        asked: Asked<'_>,
    ) -> Option<Outcome> {
        if self.gate.is_closed(Span::new(buf.offset, buf.len)) {
            self.gate.hold(buf, asked.later());
            return None;
        }
        self.core.answer(asked, self.changed(buf))
    }

    /// The write itself. One that must be alone with its blocks takes a ticket; any other counts
    /// from now on.
    fn changed(self: &Rc<Self>, buf: RequestBuf) -> impl Future<Output = Outcome> + 'static {
        let span = Span::new(buf.offset, buf.len);
        let is_whole = span == span.widened(BLOCK_BYTES);
        let busy = is_whole.then(|| self.gate.enter(span));
        let me = self.clone();
        self.under_way.with(async move {
            let outcome = me.change_range(buf, span).await;
            drop(busy);
            outcome
        })
    }
}

/// What is known of blocks of an extent from one of them on, at most so many and within it.
#[inline]
pub(super) fn find(stack: &Stack, (extent, within): (usize, u64), most: u64) -> Run {
    resolve(stack.iter().map(|page| &**page), extent, within, most)
}

/// Where so many blocks of an extent from this one on may be written without asking: they are
/// written in the top layer, and sealed. In this order: an extent is fresh before one of its blocks
/// is written.
#[inline]
pub(super) fn sealed_at(stack: &Stack, (extent, within): (usize, u64), count: u64) -> Option<Spot> {
    match stack[0].look(extent, within, count) {
        Run::Written { at, count: run } if run == count => {
            (!stack[0].is_fresh(extent)).then_some(at)
        }
        _ => None,
    }
}

fn geometry(lu: &Lu, view: Option<&View>) -> Geometry {
    match view {
        Some(view) => Geometry { size: view.size(), read_only: true, ..lu.geometry() },
        None => lu.geometry(),
    }
}

impl Sink for Handle {
    fn complete(&self, tag: u64, outcome: Outcome) {
        let (turn, done, straight) = {
            let mut flights = self.flights.borrow_mut();
            flights.free.push(tag as u32);
            let flight = &mut flights.slots[tag as usize];
            (flight.turn, flight.done.take().expect("answered once"), flight.straight.take())
        };
        self.land(turn, straight, outcome.is_ok());
        done.finish(outcome);
    }
}

impl Closes for Handle {
    fn id(&self) -> HandleId {
        self.id
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    async fn settled(&self, span: Span) {
        self.gate.settled(span).await;
        self.passage.over().await;
    }

    fn change(self: &Rc<Self>, buf: RequestBuf, done: Completion) {
        if self.gate.is_closed(Span::new(buf.offset, buf.len)) {
            return self.gate.hold(buf, done);
        }
        let work = self.changed(buf);
        self.core.spawn(async move { done.finish(work.await) });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.lu.ledger.leave(self.id);
    }
}

/// The device of a core.
pub(super) struct PoolDevice {
    handle: Rc<Handle>,
}

impl PoolDevice {
    pub(super) fn new(handle: Rc<Handle>) -> Self {
        Self { handle }
    }
}

impl Device for PoolDevice {
    fn geometry(&self) -> Geometry {
        self.handle.geometry()
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        let handle = &self.handle;
        let is_plain = handle.geometry.get().suits(request) && request.len != 0;
        if !is_plain || request.op != Op::Read && !handle.gate.is_open() {
            return handle.begin_slowly(request, asked);
        }
        match handle.straight(request) {
            Some(Goes::To(device, offset, straight)) => {
                handle.pass((&*device, straight), &Request { offset, ..*request }, asked)
            }
            Some(Goes::Nowhere) => {
                request.data.fill_zero();
                asked.now(Ok(request.len))
            }
            None => handle.begin_slowly(request, asked),
        }
    }

    fn watch(&self) -> &Watch {
        &self.handle.watch
    }

    fn health(&self) -> Health {
        self.handle.lu.health()
    }
}

impl Drop for PoolDevice {
    fn drop(&mut self) {
        let handle = self.handle.clone();
        let core = handle.core.clone();
        core.spawn(async move { handle.ended().await });
    }
}
