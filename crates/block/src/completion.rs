//! How an answer finds its way back, exactly once.
//!
//! A device is [`Asked`]: it answers in place with [`Asked::now`], or takes a [`Completion`] with
//! [`Asked::later`]. The one is borrowed from who asks and costs nothing; the other owns the way
//! back (a sink and the sink's own tag for the request), moves into an operation slot of the
//! runtime or into a task, and is used up by [`Completion::finish`]. Dropping either unanswered is
//! a bug: tests panic, and of a completion a release build answers [`ErrorKind::Lost`] so that no
//! client waits for ever.
//!
//! A front end is a sink itself (its tag is its request slot), so a leaf's completion reaches it
//! with one call. `async` code waits through the thread's pool of waiters, the other sink: a waiter
//! outlives a future that was dropped, because the completion that it belongs to is still out.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use crate::device::Device;
use crate::error::{Error, ErrorKind};
use crate::request::Request;

/// How a request ended. The number is what the operation counts: bytes for reads and writes,
/// records for status, zero otherwise.
pub type Outcome = Result<u64, Error>;

/// Where answers go. Called from the executor, never from within the `begin` of its request.
pub trait Sink {
    fn complete(&self, tag: u64, outcome: Outcome);
}

/// The way back to a sink, made once for all its requests: of one word, so that a completion is
/// two and stays in registers. Answers to a sink that is gone are forgotten.
pub struct Way {
    sink: Weak<dyn Sink>,
}

impl Way {
    pub fn to(sink: Weak<dyn Sink>) -> Rc<Self> {
        Rc::new(Self { sink })
    }

    #[inline]
    fn complete(&self, tag: u64, outcome: Outcome) {
        if let Some(sink) = self.sink.upgrade() {
            sink.complete(tag, outcome);
        }
    }
}

/// The duty to answer one request, within the call or later.
#[must_use = "a request must be answered"]
pub struct Asked<'a>(By<'a>);

/// Who asks.
#[derive(Clone, Copy)]
enum By<'a> {
    /// With its tag.
    Sink(&'a Rc<Way>, u64),
    /// Gets a waiter for what is answered later.
    Future(&'a Cell<u32>),
}

impl<'a> Asked<'a> {
    /// Asked by a sink, which names its request with a tag.
    #[inline]
    pub fn by(way: &'a Rc<Way>, tag: u64) -> Self {
        Self(By::Sink(way, tag))
    }

    /// Answers within `begin`: `return asked.now(Ok(0))`.
    #[inline]
    #[must_use = "this is the answer"]
    pub fn now(self, outcome: Outcome) -> Option<Outcome> {
        mem::forget(self);
        Some(outcome)
    }

    /// To answer after `begin` has returned `None`.
    #[inline]
    pub fn later(self) -> Completion {
        let by = self.0;
        mem::forget(self);
        match by {
            By::Sink(way, tag) => Completion { way: Some(way.clone()), tag },
            By::Future(waiter) => {
                let (waiting, done) = Waiting::new();
                waiter.set(waiting.keep());
                done
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lost();
    }
}

thread_local! {
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

/// Runs what drops everything of a core that ends: its requests stay unanswered, as those of a
/// process that was killed, and that is no bug.
pub fn at_the_end<T>(f: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            ENDING.set(self.0);
        }
    }
    let _back = Back(ENDING.replace(true));
    f()
}

#[cold]
fn lost() {
    let is_no_bug = std::thread::panicking() || ENDING.get();
    debug_assert!(is_no_bug, "a request was dropped unanswered");
}

/// The duty to answer one request later.
#[must_use = "a request must be answered"]
pub struct Completion {
    /// None: the tag is a waiter of this thread.
    way: Option<Rc<Way>>,
    tag: u64,
}

impl Completion {
    #[inline]
    pub fn new(way: Rc<Way>, tag: u64) -> Self {
        Self { way: Some(way), tag }
    }

    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        let (way, tag) = (self.way.take(), self.tag);
        mem::forget(self);
        match way {
            Some(way) => way.complete(tag, outcome),
            // A number stays in registers: to copy an outcome through memory, right after it was
            // written there in parts, costs as much as all the rest.
            None => match outcome {
                Ok(count) => answer_waiter(tag, count),
                Err(error) => fail_waiter(tag, error),
            },
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        dropped(self.way.take(), self.tag);
    }
}

#[cold]
fn dropped(way: Option<Rc<Way>>, tag: u64) {
    let error = Error::new(ErrorKind::Lost);
    match way {
        Some(way) => way.complete(tag, Err(error)),
        None => fail_waiter(tag, error),
    }
    lost();
}

/// What a device has made of a request.
pub enum Answer {
    Now(Outcome),
    Later(Waiting),
}

impl Answer {
    /// Waits for it, if it is not there yet.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Now(outcome) => outcome,
            Self::Later(waiting) => waiting.outcome().await,
        }
    }
}

impl dyn Device + '_ {
    /// Asks, and gives what was answered in place or what to wait for.
    #[inline]
    pub fn ask(&self, request: &Request<'_>) -> Answer {
        let waiter = Cell::new(NONE);
        match self.begin(request, Asked(By::Future(&waiter))) {
            Some(outcome) => Answer::Now(outcome),
            None => Answer::Later(Waiting::on(waiter.get())),
        }
    }

    /// The async face of [`Device::begin`]. Dropping the future abandons the answer, not the work:
    /// the device goes on and the memory stays pinned until it has ended.
    #[inline]
    pub fn io<'a>(&'a self, request: &'a Request<'a>) -> Io<'a> {
        Io { device: self, request, waiting: None }
    }
}

/// A request being waited for.
#[must_use = "nothing is asked before the first poll"]
pub struct Io<'a> {
    device: &'a dyn Device,
    request: &'a Request<'a>,
    waiting: Option<Waiting>,
}

impl Future for Io<'_> {
    type Output = Outcome;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(waiting) = &mut self.waiting {
            return waiting.poll(cx.waker());
        }
        match self.device.ask(self.request) {
            Answer::Now(outcome) => Poll::Ready(outcome),
            Answer::Later(waiting) => {
                waiting.wait(cx.waker());
                self.waiting = Some(waiting);
                Poll::Pending
            }
        }
    }
}

/// An answer to wait for: the pair of a [`Completion`].
pub struct Waiting {
    /// The slot that is held; none once the answer has been taken.
    index: u32,
    /// A slot belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Waiting {
    #[inline]
    pub fn new() -> (Self, Completion) {
        let index = with_waiters(Waiters::take);
        (Self::on(index), Completion { way: None, tag: u64::from(index) })
    }

    const fn on(index: u32) -> Self {
        Self { index, not_send: PhantomData }
    }

    /// Gives up the handle and not the slot.
    fn keep(mut self) -> u32 {
        mem::replace(&mut self.index, NONE)
    }

    pub async fn outcome(mut self) -> Outcome {
        std::future::poll_fn(|cx| self.poll(cx.waker())).await
    }

    #[inline]
    fn poll(&mut self, waker: &Waker) -> Poll<Outcome> {
        let answer = with_waiters(|waiters| waiters.take_answer(self.index));
        match answer {
            Some(outcome) => {
                self.index = NONE;
                Poll::Ready(outcome)
            }
            None => {
                self.wait(waker);
                Poll::Pending
            }
        }
    }

    #[inline]
    fn wait(&self, waker: &Waker) {
        let old = with_waiters(|waiters| waiters.set_waker(self.index, waker.clone()));
        drop(old);
    }
}

impl Drop for Waiting {
    #[inline]
    fn drop(&mut self) {
        if self.index != NONE {
            abandon(self.index);
        }
    }
}

#[cold]
fn abandon(index: u32) {
    drop(with_waiters(|waiters| waiters.abandon(index)));
}

#[inline(never)]
fn answer_waiter(tag: u64, count: u64) {
    // Woken when nothing is borrowed any more: a waker may be anyone's code.
    if let Some(waker) = with_waiters(|waiters| waiters.answer(tag, Ok(count))) {
        waker.wake();
    }
}

#[cold]
fn fail_waiter(tag: u64, error: Error) {
    if let Some(waker) = with_waiters(|waiters| waiters.answer(tag, Err(error))) {
        waker.wake();
    }
}

thread_local! {
    /// The thread's waiters: slots that are used again, so that waiting allocates nothing. Without
    /// a destructor they are reached with one load; [`END`] has it.
    static WAITERS: ManuallyDrop<RefCell<Waiters>> =
        const { ManuallyDrop::new(RefCell::new(Waiters::new())) };
    static END: End = const { End };
}

/// Frees the waiters of a thread that ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        drop(WAITERS.with(|waiters| mem::replace(&mut *waiters.borrow_mut(), Waiters::new())));
    }
}

#[inline]
fn with_waiters<T>(f: impl FnOnce(&mut Waiters) -> T) -> T {
    WAITERS.with(|waiters| f(&mut waiters.borrow_mut()))
}

struct Waiters {
    slots: Vec<Slot>,
    /// First of the free slots; each names the next.
    free: u32,
}

const NONE: u32 = u32::MAX;

struct Slot {
    state: State,
    next_free: u32,
    waker: Option<Waker>,
    outcome: Outcome,
}

/// Who still has to do with a slot: the completion, the future, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Both.
    Waiting,
    /// The future; the answer is there.
    Answered,
    /// The completion; the future is gone.
    Abandoned,
}

impl Waiters {
    const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE }
    }

    #[inline]
    fn take(&mut self) -> u32 {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(index as usize) else { return self.grow() };
        self.free = slot.next_free;
        slot.state = State::Waiting;
        index
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        // Nothing is freed at the end of a thread that is at its end already.
        let _ = END.try_with(|_| {});
        let index = self.slots.len() as u32;
        let (state, next_free) = (State::Waiting, NONE);
        self.slots.push(Slot { state, next_free, waker: None, outcome: Ok(0) });
        index
    }

    #[inline]
    fn give_back(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.state = State::Free;
        slot.next_free = self.free;
        self.free = index;
    }

    /// Gives the waker of who waits.
    #[inline]
    fn answer(&mut self, tag: u64, outcome: Outcome) -> Option<Waker> {
        let slot = &mut self.slots[tag as usize];
        match slot.state {
            State::Waiting => {
                slot.outcome = outcome;
                slot.state = State::Answered;
                slot.waker.take()
            }
            State::Abandoned => {
                self.give_back(tag as u32);
                None
            }
            state => unreachable!("answered twice, {state:?}"),
        }
    }

    #[inline]
    fn take_answer(&mut self, index: u32) -> Option<Outcome> {
        let slot = &mut self.slots[index as usize];
        if slot.state != State::Answered {
            return None;
        }
        let outcome = mem::replace(&mut slot.outcome, Ok(0));
        self.give_back(index);
        Some(outcome)
    }

    /// Gives the one before.
    #[inline]
    fn set_waker(&mut self, index: u32, waker: Waker) -> Option<Waker> {
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.state, State::Waiting, "answered from within `begin`");
        slot.waker.replace(waker)
    }

    /// Gives the waker, to be dropped when nothing is borrowed any more.
    fn abandon(&mut self, index: u32) -> Option<Waker> {
        let slot = &mut self.slots[index as usize];
        let waker = slot.waker.take();
        match slot.state {
            State::Answered => {
                slot.outcome = Ok(0);
                self.give_back(index);
            }
            _ => slot.state = State::Abandoned,
        }
        waker
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Geometry;
    use crate::watch::Watch;
    use std::cell::Cell;
    use std::pin::pin;

    /// Answers the first request in place and keeps the others.
    #[derive(Default)]
    struct Slow {
        asked: Cell<u32>,
        waiting: RefCell<Vec<Completion>>,
        watch: Watch,
    }

    impl Device for Slow {
        fn geometry(&self) -> Geometry {
            Geometry::plain(0, 512)
        }

        fn begin(&self, _: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
            self.asked.set(self.asked.get() + 1);
            if self.asked.get() == 1 {
                return asked.now(Ok(1));
            }
            self.waiting.borrow_mut().push(asked.later());
            None
        }

        fn watch(&self) -> &Watch {
            &self.watch
        }
    }

    fn slots_in_use() -> usize {
        let used = |slot: &&Slot| slot.state != State::Free;
        WAITERS.with(|waiters| waiters.borrow().slots.iter().filter(used).count())
    }

    #[test]
    fn every_way_of_waiting_gives_its_slot_back() {
        let slow = Slow::default();
        let device: &dyn Device = &slow;
        let request = Request::flush();
        let mut cx = Context::from_waker(Waker::noop());

        assert_eq!(pin!(device.io(&request)).poll(&mut cx), Poll::Ready(Ok(1)));
        assert_eq!(slots_in_use(), 0);

        let mut later = Box::pin(device.io(&request));
        assert_eq!(later.as_mut().poll(&mut cx), Poll::Pending);
        slow.waiting.borrow_mut().remove(0).finish(Ok(2));
        assert_eq!(later.as_mut().poll(&mut cx), Poll::Ready(Ok(2)));
        drop(later);
        assert_eq!(slots_in_use(), 0);

        let mut dropped = Box::pin(device.io(&request));
        assert_eq!(dropped.as_mut().poll(&mut cx), Poll::Pending);
        drop(dropped);
        assert_eq!(slots_in_use(), 1, "the answer is still out");
        slow.waiting.borrow_mut().remove(0).finish(Ok(3));
        assert_eq!(slots_in_use(), 0);

        let mut unread = Box::pin(device.io(&request));
        assert_eq!(unread.as_mut().poll(&mut cx), Poll::Pending);
        slow.waiting.borrow_mut().remove(0).finish(Ok(4));
        drop(unread);
        assert_eq!(slots_in_use(), 0);
    }

    #[test]
    #[should_panic(expected = "dropped unanswered")]
    fn a_dropped_completion_is_caught() {
        let slow = Slow::default();
        slow.asked.set(1);
        let device: &dyn Device = &slow;
        let _waiting = device.ask(&Request::flush());
        slow.waiting.borrow_mut().clear();
    }
}
