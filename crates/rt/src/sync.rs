//! Small things to wait on: within a core ([`Notify`], [`Turns`]), and across threads ([`reply`]).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Wakes everyone who waits.
#[derive(Default)]
pub struct Notify {
    pending: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify(&self) {
        self.pending.set(true);
        // Taken out first: a waker may look at this again. The list's memory is kept.
        let mut waiting = self.waiting.take();
        waiting.drain(..).for_each(Waker::wake);
        let mut place = self.waiting.borrow_mut();
        if place.is_empty() {
            *place = waiting;
        }
    }

    /// Waits until a condition holds that is looked at again with every notification; any number
    /// may wait like this.
    pub async fn until(&self, condition: impl Fn() -> bool) {
        std::future::poll_fn(|cx| {
            if condition() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits for the next notification, or takes the one that nobody waited for: for one waiter.
    pub async fn notified(&self) {
        std::future::poll_fn(|cx| {
            if self.pending.replace(false) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Lets one in after the other.
#[derive(Default)]
pub struct Turns {
    is_taken: Cell<bool>,
    ended: Notify,
}

/// Nobody else has his turn until this is dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub async fn take(&self) -> Turn<'_> {
        self.ended.until(|| !self.is_taken.get()).await;
        self.is_taken.set(true);
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_taken.set(false);
        self.0.ended.notify();
    }
}

/// A pair for one answer across threads. Whoever waits may be a task or a plain thread.
pub fn reply<T>() -> (Answer<T>, Reply<T>) {
    let state = Arc::new(ReplyState { inner: Mutex::default(), given: Condvar::new() });
    (Answer { state: state.clone() }, Reply { state })
}

struct ReplyState<T> {
    inner: Mutex<ReplyInner<T>>,
    given: Condvar,
}

struct ReplyInner<T> {
    value: Option<T>,
    gone: bool,
    waker: Option<Waker>,
}

impl<T> Default for ReplyInner<T> {
    fn default() -> Self {
        Self { value: None, gone: false, waker: None }
    }
}

impl<T> ReplyState<T> {
    fn lock(&self) -> MutexGuard<'_, ReplyInner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to answer; dropping it unanswered tells the other side that nothing will come.
pub struct Answer<T> {
    state: Arc<ReplyState<T>>,
}

impl<T> Answer<T> {
    pub fn give(self, value: T) {
        self.state.lock().value = Some(value);
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let waker = {
            let mut inner = self.state.lock();
            inner.gone = true;
            inner.waker.take()
        };
        self.state.given.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answer to come: a future, or [`Reply::wait`] for a plain thread. None: it will never come,
/// because the core that owed it has ended.
#[must_use = "an answer is waited for"]
pub struct Reply<T> {
    state: Arc<ReplyState<T>>,
}

impl<T> Reply<T> {
    /// Blocks the calling thread; never to be called on a core.
    pub fn wait(self) -> Option<T> {
        debug_assert!(!crate::sim::on_a_core(), "a core must not block");
        if !crate::sim::worker::wait_until(|| self.is_settled()) {
            return None;
        }
        let mut inner = self.state.lock();
        while inner.value.is_none() && !inner.gone {
            inner = self.state.given.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.value.take()
    }
}

impl<T> Reply<T> {
    fn is_settled(&self) -> bool {
        let inner = self.state.lock();
        inner.value.is_some() || inner.gone
    }
}

impl<T> Future for Reply<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut inner = self.state.lock();
        if inner.value.is_some() || inner.gone {
            return Poll::Ready(inner.value.take());
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
