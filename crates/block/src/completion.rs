//! How an answer finds its way back, exactly once.
//!
//! A [`Completion`] is the right and the duty to answer one request: a sink and the sink's own tag
//! for the request. It moves into the device with `begin`, into an operation slot of the runtime,
//! into a task, and is used up by [`Completion::finish`] (later) or [`Completion::now`] (in place).
//! Dropping it unanswered is a bug: tests panic, a release build answers [`ErrorKind::Lost`]
//! so that no client waits for ever.
//!
//! A front end is a sink itself (its tag is its request slot), so a leaf's completion reaches it
//! with one call. `async` code waits through the thread's pool of waiters, the other sink: a waiter
//! outlives a future that was dropped, because the completion that it belongs to is still out.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
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

/// The duty to answer one request.
#[must_use = "a request must be answered"]
pub struct Completion {
    sink: Option<Rc<dyn Sink>>,
    tag: u64,
}

impl Completion {
    #[inline]
    pub fn new(sink: Rc<dyn Sink>, tag: u64) -> Self {
        Self { sink: Some(sink), tag }
    }

    /// Answers later than `begin`.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        if let Some(sink) = self.sink.take() {
            sink.complete(self.tag, outcome);
        }
    }

    /// Answers within `begin`: `return done.now(Ok(0))`.
    #[inline]
    #[must_use = "this is the answer"]
    pub fn now(mut self, outcome: Outcome) -> Option<Outcome> {
        self.sink = None;
        Some(outcome)
    }
}

impl Drop for Completion {
    #[inline]
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            dropped(&*sink, self.tag);
        }
    }
}

#[cold]
fn dropped(sink: &dyn Sink, tag: u64) {
    sink.complete(tag, Err(Error::new(ErrorKind::Lost)));
    debug_assert!(std::thread::panicking(), "request {tag} dropped unanswered");
}

impl dyn Device + '_ {
    /// The async face of [`Device::begin`]. Dropping the future abandons the answer, not the work:
    /// the device goes on and the memory stays pinned until it has ended.
    pub fn io<'a>(&'a self, request: &'a Request<'a>) -> Io<'a> {
        Io { device: self, request, waiter: None }
    }
}

/// A request being waited for.
#[must_use = "nothing is asked before the first poll"]
pub struct Io<'a> {
    device: &'a dyn Device,
    request: &'a Request<'a>,
    waiter: Option<Waiting>,
}

impl Future for Io<'_> {
    type Output = Outcome;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(waiting) = &self.waiter {
            return waiting.poll(cx.waker());
        }
        let (waiting, done) = Waiting::new();
        if let Some(outcome) = self.device.begin(self.request, done) {
            waiting.answered_in_place();
            return Poll::Ready(outcome);
        }
        let poll = waiting.poll(cx.waker());
        self.waiter = Some(waiting);
        poll
    }
}

/// An answer to wait for, outside of a device call: the pair of a [`Completion`].
pub struct Waiting {
    waiters: Rc<Waiters>,
    index: u32,
}

impl Waiting {
    #[inline]
    pub fn new() -> (Self, Completion) {
        let waiters = WAITERS.with(Rc::clone);
        let index = waiters.take();
        let done = Completion::new(waiters.clone(), u64::from(index));
        (Self { waiters, index }, done)
    }

    pub async fn outcome(self) -> Outcome {
        std::future::poll_fn(|cx| self.poll(cx.waker())).await
    }

    /// The completion was used up by [`Completion::now`]: nothing more will come.
    fn answered_in_place(&self) {
        self.waiters.slots.borrow_mut().list[self.index as usize].out = false;
    }

    fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        let mut slots = self.waiters.slots.borrow_mut();
        let slot = &mut slots.list[self.index as usize];
        match &mut slot.state {
            State::Answered(outcome) => {
                let outcome = std::mem::replace(outcome, Ok(0));
                slot.state = State::Taken;
                Poll::Ready(outcome)
            }
            State::Asked(Some(old)) if old.will_wake(waker) => Poll::Pending,
            State::Asked(old) => {
                *old = Some(waker.clone());
                Poll::Pending
            }
            State::Free | State::Abandoned | State::Taken => panic!("polled after its answer"),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut slots = self.waiters.slots.borrow_mut();
        let slot = &mut slots.list[self.index as usize];
        if matches!(slot.state, State::Asked(_)) && slot.out {
            slot.state = State::Abandoned;
        } else {
            slots.free(self.index);
        }
    }
}

thread_local! {
    static WAITERS: Rc<Waiters> = Rc::new(Waiters::default());
}

/// The thread's waiters: slots that are used again, so that waiting allocates nothing.
#[derive(Default)]
struct Waiters {
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    list: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    state: State,
    /// A completion for this slot exists.
    out: bool,
}

enum State {
    Free,
    Asked(Option<Waker>),
    Answered(Outcome),
    /// The answer has been read; the future is about to go.
    Taken,
    /// The future is gone; the answer still comes.
    Abandoned,
}

impl Waiters {
    #[inline]
    fn take(&self) -> u32 {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot { state: State::Asked(None), out: true };
        if let Some(index) = slots.free.pop() {
            slots.list[index as usize] = slot;
            return index;
        }
        slots.list.push(slot);
        (slots.list.len() - 1) as u32
    }
}

impl Slots {
    fn free(&mut self, index: u32) {
        self.list[index as usize].state = State::Free;
        self.free.push(index);
    }
}

impl Sink for Waiters {
    fn complete(&self, tag: u64, outcome: Outcome) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots.list[tag as usize];
        slot.out = false;
        match std::mem::replace(&mut slot.state, State::Answered(outcome)) {
            State::Asked(waker) => {
                drop(slots);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Abandoned => slots.free(tag as u32),
            State::Free | State::Answered(_) | State::Taken => panic!("answered twice"),
        }
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

        fn begin(&self, _: &Request<'_>, done: Completion) -> Option<Outcome> {
            self.asked.set(self.asked.get() + 1);
            if self.asked.get() == 1 {
                return done.now(Ok(1));
            }
            self.waiting.borrow_mut().push(done);
            None
        }

        fn watch(&self) -> &Watch {
            &self.watch
        }
    }

    fn slots_in_use() -> usize {
        WAITERS.with(|waiters| {
            let slots = waiters.slots.borrow();
            slots.list.len() - slots.free.len()
        })
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
        let (_waiting, done) = Waiting::new();
        slow.begin(&Request::flush(), done);
        slow.waiting.borrow_mut().clear();
    }
}
