//! One queue on one core: **the hot path**, as far as it is the same for every kind of device.
//!
//! ```text
//!   Poller::turn ─ Split::take ─ Function::begin ─ ... ─ Queue::finish ─ Split::answer
//!   Poller::publish ◀─ once per turn ◀──────────────────────┘
//! ```
//!
//! A request's slot is its head in the ring: between the ring and the function there is no task, no
//! allocation and no lock. What a request means is the function's (`blk`, `scsi`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use model::stats::OpStats;
use proto::vhost_user::RingAddresses;
use rt::os::event::{EventFd, EventWatch};
use rt::sync::Notify;
use rt::{Core, Poller, PollerId, Task};

use super::kind::{Function, Units};
use super::ring::{Buffers, Fault, Inflight, Split, View};

/// Requests taken from one ring in one turn, so that its neighbours get theirs.
const TURN_MAX: usize = 64;

/// How often a ring is looked at whose client never notifies.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the queue tells its session, from its own core.
pub trait Report: Send + Sync {
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
    pub(super) kick: Option<EventFd>,
    pub(super) call: Option<EventFd>,
    pub(super) error: Option<EventFd>,
    pub(super) report: Arc<dyn Report>,
}

pub struct Queue<F: Function> {
    me: Weak<Queue<F>>,
    core: Core,
    index: u16,
    function: F,
    ring: RefCell<Split>,
    buffers: RefCell<Option<Buffers>>,
    /// By head; grows to the highest head that the driver uses.
    slots: RefCell<Vec<Option<F::Slot>>>,
    /// What a predecessor had taken and the function has no use for yet.
    left: RefCell<VecDeque<u16>>,
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
    report: Arc<dyn Report>,
}

impl<F: Function> Queue<F> {
    /// Starts the queue: first what a predecessor left in flight, in its order, then what is new.
    pub(super) fn start(
        core: &Core,
        setup: Setup,
        function: impl FnOnce(&Weak<Self>) -> F,
    ) -> Rc<Self> {
        let mut ring = setup.ring;
        let left = setup.inflight.map(|inflight| ring.attach(inflight)).unwrap_or_default();
        ring.disarm();
        let queue = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            core: core.clone(),
            index: setup.index,
            function: function(me),
            ring: RefCell::new(ring),
            buffers: RefCell::new(None),
            slots: RefCell::default(),
            left: RefCell::new(left.into()),
            in_flight: Cell::new(0),
            call: RefCell::new(setup.call),
            error: RefCell::new(setup.error),
            poller: Cell::new(None),
            kick: RefCell::new(None),
            looking: RefCell::new(None),
            dirty: Cell::new(false),
            broken: Cell::new(None),
            drained: Notify::new(),
            report: setup.report,
        });
        queue.begin_left();
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
        self.function.hasten();
        self.drained.until(|| self.in_flight.get() == 0).await;
        self.publish();
        self.ring.borrow().base()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(super) fn stats(&self) -> (Vec<OpStats>, Units) {
        (self.function.stats(), self.function.units())
    }

    pub(super) fn function(&self) -> &F {
        &self.function
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// The function wants requests again, after it had wanted none.
    pub(super) fn wake(&self) {
        if let Some(poller) = self.poller.get() {
            self.core.activate_poller(poller);
        }
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
            Ok(Some(chain)) => self.function.begin(self, chain, buffers, false),
            Ok(None) => return false,
            Err(fault) => self.fail(fault),
        }
        true
    }

    /// Begins what a predecessor had taken and not answered, as far as it is wanted.
    #[cold]
    fn begin_left(&self) {
        while self.function.wants_more() {
            let Some(head) = self.left.borrow_mut().pop_front() else { return };
            let mut buffers = self.take_buffers();
            let chain = self.ring.borrow_mut().chain(head, &mut buffers);
            match chain {
                Ok(chain) => self.function.begin(self, chain, &buffers, true),
                Err(fault) => self.fail(fault),
            }
            *self.buffers.borrow_mut() = Some(buffers);
        }
    }

    #[inline]
    fn take_buffers(&self) -> Buffers {
        let buffers = self.buffers.borrow_mut().take();
        buffers.unwrap_or_else(|| Buffers::new(self.ring.borrow().view().clone()))
    }

    #[inline]
    pub(super) fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("a queue that works is held by its core")
    }

    /// Keeps a request until it is answered. False, and the ring is broken: its head is in use.
    #[inline]
    pub(super) fn occupy(&self, head: u16, slot: F::Slot) -> bool {
        let mut slots = self.slots.borrow_mut();
        let index = usize::from(head);
        if index >= slots.len() {
            slots.resize_with(index + 1, || None);
        }
        if slots[index].is_some() {
            drop(slots);
            self.fail(Fault::HeadInUse { head });
            return false;
        }
        slots[index] = Some(slot);
        self.in_flight.set(self.in_flight.get() + 1);
        true
    }

    /// Gives back what was kept of a request, which is to be finished now.
    #[inline]
    pub(super) fn take_slot(&self, head: u16) -> F::Slot {
        let slot = self.slots.borrow_mut()[usize::from(head)].take();
        slot.expect("a request is answered once")
    }

    /// Writes the used entry; the driver sees it at the end of the turn.
    #[inline]
    pub(super) fn finish(&self, head: u16, written: u32) {
        self.ring.borrow_mut().answer(head, written);
        let left = self.in_flight.get() - 1;
        self.in_flight.set(left);
        if left == 0 && self.poller.get().is_none() {
            self.drained.notify();
        }
        if !self.dirty.replace(true) {
            self.core.publish_soon(self.me());
        }
    }

    #[inline]
    fn may_take(&self) -> bool {
        self.broken.get().is_none() && self.function.wants_more()
    }

    /// The driver broke the ring: take nothing more, tell both sides.
    #[cold]
    pub(super) fn fail(&self, fault: Fault) {
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

impl<F: Function> Poller for Queue<F> {
    #[inline]
    fn turn(&self) -> bool {
        if !self.left.borrow().is_empty() {
            self.begin_left();
        }
        let mut buffers = self.take_buffers();
        let mut count = 0;
        while count < TURN_MAX && self.may_take() && self.take_one(&mut buffers) {
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
        more && self.may_take()
    }

    fn disarm(&self) {
        self.ring.borrow_mut().disarm();
    }
}

/// For a client that notifies in no way.
async fn look_often<F: Function>(queue: Weak<Queue<F>>, core: Core) {
    while let Some(poller) = queue.upgrade().and_then(|queue| queue.poller.get()) {
        core.activate_poller(poller);
        core.sleep(LOOK_EVERY).await;
    }
}
