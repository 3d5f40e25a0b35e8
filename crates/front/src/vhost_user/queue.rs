//! One queue on one core: the hot path.
//!
//! ```text
//!   Poller::turn ─ Split::take ─ Queue::start ─ Device::begin ─┬─ in place ─┐
//!                                                              └─ Sink::complete
//!   Poller::publish ◀─ once per turn ◀─ Split::answer ◀─ Queue::answer ◀────┘
//! ```
//!
//! A request's slot is its head in the ring, and that is the tag of its completion: between the
//! ring and the device there is no task, no allocation and no lock.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use block::{Asked, Device, Op, Outcome, Request, Sgl, Sink, Way};
use model::stats::{OpKind, OpStats};
use proto::vhost_user::RingAddresses;
use rt::os::event::{EventFd, EventWatch};
use rt::sync::Notify;
use rt::{Core, Poller, PollerId, Task, Time};
use target::virtio_blk::{Command, Id, RangeKind, Rules, status};
use wire::virtio::blk::{DiscardWriteZeroes, RequestHeader, Status};
use zerocopy::FromBytes;

use super::meter::Meter;
use super::ring::{Buffers, Chain, Fault, Inflight, Split, Spot, View};

/// Requests taken from one ring in one turn, so that its neighbours get theirs.
const TURN_MAX: usize = 64;

/// How often a ring is looked at whose client never notifies.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the queue tells its session, from its own core.
pub(super) trait Report: Send + Sync {
    /// The driver broke the ring; nothing more is taken from it.
    fn faulted(&self, queue: u16, fault: Fault);
    /// A request failed in the store.
    fn failed(&self, queue: u16, error: &block::Error);
}

/// What is needed to run a queue.
pub(super) struct Setup {
    pub(super) index: u16,
    pub(super) ring: Split,
    pub(super) inflight: Option<Inflight>,
    pub(super) device: Rc<dyn Device>,
    pub(super) rules: Rules,
    pub(super) id: Id,
    pub(super) kick: Option<EventFd>,
    pub(super) call: Option<EventFd>,
    pub(super) error: Option<EventFd>,
    pub(super) report: Arc<dyn Report>,
}

pub(super) struct Queue {
    me: Weak<Queue>,
    way: Rc<Way>,
    core: Core,
    index: u16,
    ring: RefCell<Split>,
    device: Rc<dyn Device>,
    rules: Cell<Rules>,
    id: Id,
    buffers: RefCell<Option<Buffers>>,
    /// By head; grows to the highest head that the driver uses.
    slots: RefCell<Vec<Option<Slot>>>,
    in_flight: Cell<u32>,
    call: RefCell<Option<EventFd>>,
    error: RefCell<Option<EventFd>>,
    poller: Cell<Option<PollerId>>,
    kick: RefCell<Option<EventWatch>>,
    /// The client notifies in no way: the queue looks by itself.
    looking: RefCell<Option<Task<()>>>,
    /// `publish` is due in this turn.
    dirty: Cell<bool>,
    broken: Cell<Option<Fault>>,
    drained: Notify,
    meter: Meter,
    report: Arc<dyn Report>,
}

/// A request that the device has not answered.
struct Slot {
    status: Spot,
    written: u32,
    kind: OpKind,
    bytes: u64,
    began: Time,
}

impl Queue {
    /// Starts the queue: first what a predecessor left in flight, in its order, then what is new.
    pub(super) fn start(core: &Core, setup: Setup) -> Rc<Self> {
        let mut ring = setup.ring;
        let left = setup.inflight.map(|inflight| ring.attach(inflight)).unwrap_or_default();
        ring.disarm();
        let queue = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            way: Way::to(me.clone()),
            core: core.clone(),
            index: setup.index,
            ring: RefCell::new(ring),
            device: setup.device,
            rules: Cell::new(setup.rules),
            id: setup.id,
            buffers: RefCell::new(None),
            slots: RefCell::default(),
            in_flight: Cell::new(0),
            call: RefCell::new(setup.call),
            error: RefCell::new(setup.error),
            poller: Cell::new(None),
            kick: RefCell::new(None),
            looking: RefCell::new(None),
            dirty: Cell::new(false),
            broken: Cell::new(None),
            drained: Notify::new(),
            meter: Meter::default(),
            report: setup.report,
        });
        for head in left {
            queue.again(head);
        }
        // Who served before may have shown an answer and died before it said so.
        if let Some(call) = &*queue.call.borrow() {
            call.signal();
        }
        let poller = core.add_poller(queue.clone());
        queue.poller.set(Some(poller));
        queue.set_kick(setup.kick);
        queue
    }

    /// Takes nothing more, waits until everything taken is answered, and says where the ring is.
    pub(super) async fn stop(&self) -> u16 {
        self.kick.take();
        self.set_looking(None);
        if let Some(poller) = self.poller.take() {
            self.core.remove_poller(poller);
        }
        self.drained.until(|| self.in_flight.get() == 0).await;
        self.publish();
        self.ring.borrow().base()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(super) fn stats(&self) -> Vec<OpStats> {
        self.meter.read()
    }

    pub(super) fn set_view(&self, view: View) -> bool {
        // They hold the memory of the last request.
        self.buffers.take();
        self.ring.borrow_mut().set_view(view).is_some()
    }

    pub(super) fn set_addresses(&self, addresses: RingAddresses) -> bool {
        self.ring.borrow_mut().set_addresses(addresses).is_some()
    }

    pub(super) fn set_logging(&self, logging: bool) {
        self.ring.borrow_mut().set_logging(logging);
    }

    pub(super) fn set_rules(&self, rules: Rules) {
        self.rules.set(rules);
    }

    /// Listens to the client's notifications, or looks by itself where there are none.
    pub(super) fn set_kick(&self, kick: Option<EventFd>) {
        let Some(poller) = self.poller.get() else { return };
        let look = || self.core.spawn_task(look_often(self.me.clone(), self.core.clone()));
        self.set_looking(kick.is_none().then(look));
        *self.kick.borrow_mut() = kick.map(|kick| EventWatch::activate(&self.core, kick, poller));
        // A notification may have gone to the descriptor before.
        self.core.activate_poller(poller);
    }

    fn set_looking(&self, looking: Option<Task<()>>) {
        if let Some(before) = self.looking.replace(looking) {
            before.cancel();
        }
    }

    pub(super) fn set_call(&self, call: Option<EventFd>) {
        *self.call.borrow_mut() = call;
        // What was answered while there was nobody to tell is told now.
        if let Some(call) = &*self.call.borrow() {
            call.signal();
        }
    }

    pub(super) fn set_error(&self, error: Option<EventFd>) {
        *self.error.borrow_mut() = error;
    }

    /// Takes one request and begins it. False: there is none.
    #[inline]
    fn take_one(&self, buffers: &mut Buffers) -> bool {
        let taken = self.ring.borrow_mut().take(buffers);
        match taken {
            Ok(Some(chain)) => self.begin(chain, buffers),
            Ok(None) => return false,
            Err(fault) => self.fail(fault),
        }
        true
    }

    /// Begins a request of a predecessor again.
    fn again(&self, head: u16) {
        let mut buffers = self.take_buffers();
        let chain = self.ring.borrow_mut().chain(head, &mut buffers);
        match chain {
            Ok(chain) => self.begin(chain, &buffers),
            Err(fault) => self.fail(fault),
        }
        *self.buffers.borrow_mut() = Some(buffers);
    }

    #[inline]
    fn take_buffers(&self) -> Buffers {
        let buffers = self.buffers.borrow_mut().take();
        buffers.unwrap_or_else(|| Buffers::new(self.ring.borrow().view().clone()))
    }

    #[inline]
    fn begin(&self, chain: Chain, buffers: &Buffers) {
        let head = chain.head;
        let (Some(header), Some(spot)) = (buffers.header(), buffers.last_byte()) else {
            return self.fail(Fault::Short { head });
        };
        let header = RequestHeader::read_from_bytes(&header).expect("as long as the header is");
        let readable = u64::from(chain.readable_bytes) - size_of::<RequestHeader>() as u64;
        let writable = u64::from(chain.writable_bytes) - 1;
        let rules = self.rules.get();
        let command =
            rules.command(&header, readable, writable).and_then(|command| match command {
                Command::Range(kind) => range(&rules, kind, buffers),
                other => Ok(other),
            });
        let (kind, bytes) = kind_of(&command);
        let began = self.core.turn_time();
        let slot = Slot { status: spot, written: chain.writable_bytes, kind, bytes, began };
        if !self.occupy(head, slot) {
            return self.fail(Fault::HeadInUse { head });
        }
        match command {
            Ok(Command::Disk { op, offset, len }) => {
                let data = match op {
                    Op::Read => buffers.writable().slice(0, len as usize),
                    Op::Write { .. } => {
                        buffers.readable().slice(size_of::<RequestHeader>(), len as usize)
                    }
                    _ => Sgl::empty(),
                };
                self.ask(head, &Request { op, offset, len, data });
            }
            Ok(Command::GetId) => {
                let room = self.id.0.len().min(writable as usize);
                buffers.writable().copy_in(0, &self.id.0[..room]);
                self.answer(head, Status::OK);
            }
            Ok(Command::Range(_)) => unreachable!("resolved above"),
            Err(status) => self.answer(head, status),
        }
    }

    #[inline]
    fn ask(&self, head: u16, request: &Request<'_>) {
        let tag = u64::from(head);
        if let Some(outcome) = self.device.begin(request, Asked::by(&self.way, tag)) {
            self.complete(tag, outcome);
        }
    }

    #[inline]
    fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("a queue that works is held by its core")
    }

    #[inline]
    fn occupy(&self, head: u16, slot: Slot) -> bool {
        let mut slots = self.slots.borrow_mut();
        let index = usize::from(head);
        if index >= slots.len() {
            slots.resize_with(index + 1, || None);
        }
        if slots[index].is_some() {
            return false;
        }
        slots[index] = Some(slot);
        self.in_flight.set(self.in_flight.get() + 1);
        true
    }

    /// Writes status and used entry; the driver sees them at the end of the turn.
    #[inline]
    fn answer(&self, head: u16, status: Status) {
        let slot = self.slots.borrow_mut()[usize::from(head)].take();
        let slot = slot.expect("a request is answered once");
        let failed = status != Status::OK;
        slot.status.write(status.0);
        self.ring.borrow_mut().answer(head, slot.written);
        let latency = self.core.turn_time() - slot.began;
        self.meter.count(slot.kind, slot.bytes, latency.as_nanos() as u64, failed);
        let left = self.in_flight.get() - 1;
        self.in_flight.set(left);
        if left == 0 && self.poller.get().is_none() {
            self.drained.notify();
        }
        if !self.dirty.replace(true) {
            self.core.publish_soon(self.me());
        }
    }

    /// The driver broke the ring: take nothing more, tell both sides.
    #[cold]
    fn fail(&self, fault: Fault) {
        // What stands in memory that was cut is no longer the driver's.
        let gone = self.ring.borrow().view().is_broken();
        let fault = if gone { Fault::MemoryGone } else { fault };
        if self.broken.replace(Some(fault)).is_some() {
            return;
        }
        if let Some(error) = &*self.error.borrow() {
            error.signal();
        }
        self.report.faulted(self.index, fault);
    }
}

impl Poller for Queue {
    #[inline]
    fn turn(&self) -> bool {
        let mut buffers = self.take_buffers();
        let mut count = 0;
        while count < TURN_MAX && self.broken.get().is_none() && self.take_one(&mut buffers) {
            count += 1;
        }
        *self.buffers.borrow_mut() = Some(buffers);
        count > 0
    }

    #[inline]
    fn publish(&self) {
        self.dirty.set(false);
        let (notify, gone) = {
            let mut ring = self.ring.borrow_mut();
            (ring.publish(), ring.view().is_broken())
        };
        if gone {
            self.fail(Fault::MemoryGone);
        }
        if notify && let Some(call) = &*self.call.borrow() {
            call.signal();
        }
    }

    fn arm(&self) -> bool {
        let (more, gone) = {
            let mut ring = self.ring.borrow_mut();
            (ring.arm(), ring.view().is_broken())
        };
        if gone {
            self.fail(Fault::MemoryGone);
        }
        more && self.broken.get().is_none()
    }

    fn disarm(&self) {
        self.ring.borrow_mut().disarm();
    }
}

impl Sink for Queue {
    #[inline]
    fn complete(&self, tag: u64, outcome: Outcome) {
        let status = status(&outcome);
        if let Err(error) = &outcome {
            self.report.failed(self.index, error);
        }
        self.answer(tag as u16, status);
    }
}

/// For a client that notifies in no way.
async fn look_often(queue: Weak<Queue>, core: Core) {
    while let Some(poller) = queue.upgrade().and_then(|queue| queue.poller.get()) {
        core.activate_poller(poller);
        core.sleep(LOOK_EVERY).await;
    }
}

/// What a request counts as.
#[inline]
fn kind_of(command: &Result<Command, Status>) -> (OpKind, u64) {
    let Ok(Command::Disk { op, len, .. }) = command else { return (OpKind::Other, 0) };
    let kind = match op {
        Op::Read => OpKind::Read,
        Op::Write { .. } => OpKind::Write,
        Op::Flush => OpKind::Flush,
        Op::Discard => OpKind::Discard,
        Op::WriteZeroes { .. } => OpKind::WriteZeroes,
        _ => OpKind::Other,
    };
    (kind, *len)
}

/// Reads the range that follows the header.
#[cold]
fn range(rules: &Rules, kind: RangeKind, buffers: &Buffers) -> Result<Command, Status> {
    let mut bytes = [0; size_of::<DiscardWriteZeroes>()];
    buffers.readable().copy_out(size_of::<RequestHeader>(), &mut bytes);
    let segment = DiscardWriteZeroes::read_from_bytes(&bytes).expect("as long as a segment is");
    rules.range(kind, &segment)
}
