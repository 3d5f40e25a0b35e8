//! A simulated core's side: the operations that it has in flight, and its turn.
//!
//! As on the real machine a slot keeps memory and file of an operation until its answer, which the
//! core takes at the beginning of a turn. After a turn that found nothing the core sleeps: the next
//! letter, answer or timer gives it another.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use block::mem::SglBuf;
use block::{Completion, ErrorKind, Outcome, Sgl};

use super::file::Description;
use super::image::SECTOR;
use super::random::Random;
use super::room::{Clock, CoreKey, OpId, ProcessId, Room};
use super::transfer::{Asked, What};
use super::worker;
use crate::core::{Core, CoreId};
use crate::file::Allocate;
use crate::sync::{Reply, reply};
use crate::timer::Time;

pub(crate) struct Driver {
    room: Arc<Room>,
    key: CoreKey,
    process: ProcessId,
    clock: Arc<Clock>,
    random: RefCell<Random>,
    slots: RefCell<BTreeMap<OpId, Slot>>,
    answers: RefCell<VecDeque<(OpId, Outcome)>>,
    drains: RefCell<Vec<Waker>>,
    in_flight: Cell<u32>,
}

/// What an operation needs until its answer.
struct Slot {
    done: Completion,
    data: Option<SglBuf>,
    file: Rc<SimFile>,
}

/// An open file description on one core.
pub(crate) struct SimFile {
    description: Arc<Description>,
}

impl SimFile {
    pub(crate) fn new(description: Arc<Description>) -> Self {
        Self { description }
    }

    pub(crate) fn read(
        self: &Rc<Self>,
        core: &Core,
        offset: u64,
        data: &Sgl<'_>,
        done: Completion,
    ) {
        self.transfer(core, What::Read, offset, data, done);
    }

    pub(crate) fn write(
        self: &Rc<Self>,
        core: &Core,
        offset: u64,
        data: &Sgl<'_>,
        durable: bool,
        done: Completion,
    ) {
        self.transfer(core, What::Write { durable }, offset, data, done);
    }

    fn transfer(
        self: &Rc<Self>,
        core: &Core,
        what: What,
        offset: u64,
        data: &Sgl<'_>,
        done: Completion,
    ) {
        let (len, aligned) = (data.len() as u64, data.is_aligned(SECTOR));
        let asked = Asked { open: self.description.id(), what, offset, len, aligned };
        driver_of(core).begin(asked, Slot { done, data: Some(data.to_buf()), file: self.clone() });
    }

    pub(crate) fn sync(self: &Rc<Self>, core: &Core, done: Completion) {
        self.plain(core, What::Sync, 0, 0, done);
    }

    /// How, from where, how long.
    pub(crate) fn allocate(
        self: &Rc<Self>,
        core: &Core,
        (how, offset, len): (Allocate, u64, u64),
        done: Completion,
    ) {
        self.plain(core, What::Allocate(how), offset, len, done);
    }

    fn plain(self: &Rc<Self>, core: &Core, what: What, offset: u64, len: u64, done: Completion) {
        let open = self.description.id();
        let asked = Asked { open, what, offset, len, aligned: true };
        driver_of(core).begin(asked, Slot { done, data: None, file: self.clone() });
    }

    /// Resolves when no write to this range is in flight on this core; nor a read, if so asked.
    pub(crate) async fn settled(self: &Rc<Self>, core: &Core, offset: u64, len: u64, reads: bool) {
        let driver = driver_of(core);
        std::future::poll_fn(|cx| {
            if !driver.is_busy(self, offset, len, reads) {
                return Poll::Ready(());
            }
            driver.drains.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn driver_of(core: &Core) -> &Driver {
    core.sim().expect("a file is of its core's machine")
}

/// Wakes a core that sleeps.
pub(crate) struct Doorbell {
    room: Arc<Room>,
    key: CoreKey,
}

impl Doorbell {
    pub(crate) fn core_id(&self) -> CoreId {
        CoreId(self.key.0 as u16)
    }

    pub(crate) fn ring(&self) {
        self.room.with(|state| {
            let at = state.now + state.options.message.draw(&mut state.random);
            state.turn_by(self.key, at);
        });
    }
}

impl Driver {
    pub(super) fn new(
        room: &Arc<Room>,
        key: CoreKey,
        process: ProcessId,
        clock: Arc<Clock>,
        random: Random,
    ) -> (Self, Doorbell) {
        let driver = Self {
            room: room.clone(),
            key,
            process,
            clock,
            random: RefCell::new(random),
            slots: RefCell::default(),
            answers: RefCell::default(),
            drains: RefCell::default(),
            in_flight: Cell::new(0),
        };
        (driver, Doorbell { room: room.clone(), key })
    }

    pub(crate) fn clock(&self) -> Time {
        self.clock.at(self.room.now())
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().draw()
    }

    pub(crate) fn place(&self) -> (Arc<Room>, ProcessId) {
        (self.room.clone(), self.process)
    }

    pub(super) fn key(&self) -> CoreKey {
        self.key
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Reply<T> {
        let (answer, reply) = reply();
        worker::start(&self.room, self.process, Box::new(move || answer.give(f())));
        reply
    }

    fn is_busy(&self, file: &Rc<SimFile>, offset: u64, len: u64, reads: bool) -> bool {
        let slots = self.slots.borrow();
        let mine = slots.iter().filter(|(_, slot)| Rc::ptr_eq(&slot.file, file));
        let ops: Vec<OpId> = mine.map(|(op, _)| *op).collect();
        self.room.with(|state| ops.iter().any(|op| state.moves(*op, offset, len, reads)))
    }

    fn begin(&self, asked: Asked, slot: Slot) {
        // A core whose process has just been killed still runs its destructors.
        let op = self.room.with(|state| {
            state.cores.contains_key(&self.key).then(|| state.begin(self.key, &asked))
        });
        match op {
            Some(op) => drop(self.slots.borrow_mut().insert(op, slot)),
            None => return slot.done.finish(Err(ErrorKind::Aborted.into())),
        }
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// The memory of an operation.
    pub(super) fn with_data<T>(&self, op: OpId, f: impl FnOnce(&Sgl<'_>) -> T) -> Option<T> {
        let slots = self.slots.borrow();
        Some(f(&slots.get(&op)?.data.as_ref()?.sgl()))
    }

    /// The answer to an operation; the core hears of it in its next turn.
    pub(super) fn answered(&self, op: OpId, outcome: Outcome) {
        self.answers.borrow_mut().push_back((op, outcome));
    }

    fn take_answers(&self) -> bool {
        let mut worked = false;
        loop {
            let Some((op, outcome)) = self.answers.borrow_mut().pop_front() else { return worked };
            let slot = self.slots.borrow_mut().remove(&op).expect("answered once");
            self.in_flight.set(self.in_flight.get() - 1);
            let path = slot.file.description.path().display().to_string();
            let outcome = outcome.map_err(|error| error.note(path));
            slot.done.finish(outcome);
            self.drains.take().into_iter().for_each(Waker::wake);
            worked = true;
        }
    }

    /// Ends what is in flight when the process has ended: nobody is left to hear of it, but what
    /// waits must be told so.
    fn abort(&self) {
        loop {
            let Some((_, slot)) = self.slots.borrow_mut().pop_first() else { return };
            slot.done.finish(Err(ErrorKind::Aborted.into()));
        }
    }
}

/// Gives a core its turn and plans its next one. False: it has stopped.
pub(super) fn turn(core: &Core) -> bool {
    let Some(driver) = core.sim() else { return false };
    core.0.post.mailbox.awake();
    core.enter(|| {
        let now = driver.clock();
        core.0.now.set(now);
        let mut worked = driver.take_answers();
        worked |= core.read_mail();
        worked |= core.0.timers.fire(now);
        worked |= core.0.tasks.run();
        worked |= core.0.pollers.turn(now, now);
        core.0.pollers.publish();
        if core.0.stopping.get() {
            return false;
        }
        let busy = worked
            || core.0.tasks.has_ready()
            || core.0.pollers.arm_all()
            || core.0.tasks.has_ready()
            || !core.0.post.mailbox.sleep();
        driver.plan_turn(core, busy);
        true
    })
}

impl Driver {
    fn plan_turn(&self, core: &Core, busy: bool) {
        let due = core.0.timers.next().map(|due| self.clock.when(due));
        self.room.with(|state| {
            let pause = state.options.turn.draw(&mut state.random);
            if busy {
                let at = state.now + pause;
                state.turn_by(self.key, at);
            } else if let Some(due) = due {
                let at = due.max(state.now) + pause;
                state.turn_by(self.key, at);
            }
        });
    }

    /// Before the world goes on: plain code may have started tasks on this core from outside.
    pub(super) fn look(&self, core: &Core) {
        if core.0.tasks.has_ready() || !core.0.post.mailbox.is_empty() {
            self.plan_turn(core, true);
        }
    }
}

/// The core is no more: tasks are dropped, what is in flight is let go of.
pub(super) fn end(core: &Core) {
    let Some(driver) = core.sim() else { return };
    core.enter(|| {
        core.end();
        driver.abort();
    });
}
