//! Time and timers of one core.
//!
//! Timers are few and slow here (keep-alives, retries, limits): no request sets one. So they are a
//! heap that is looked at once per turn, not a wheel; a cancelled one stays until its time comes.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A point in time, in nanoseconds since some start: comparable on one host only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// How long after `earlier`; zero if it was not.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[derive(Default)]
pub(crate) struct Timers {
    heap: RefCell<BinaryHeap<Reverse<(Time, u64)>>>,
    waiting: RefCell<Vec<(u64, Rc<Alarm>)>>,
    next_id: Cell<u64>,
}

#[derive(Default)]
struct Alarm {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Timers {
    pub(crate) fn sleep_until(&self, deadline: Time) -> Sleep {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let alarm = Rc::new(Alarm::default());
        self.heap.borrow_mut().push(Reverse((deadline, id)));
        self.waiting.borrow_mut().push((id, alarm.clone()));
        Sleep { alarm }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.borrow().peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Wakes what is due. True if anything was.
    pub(crate) fn fire(&self, now: Time) -> bool {
        let mut fired = false;
        loop {
            let Some(Reverse((deadline, id))) = self.heap.borrow().peek().copied() else { break };
            if deadline > now {
                break;
            }
            self.heap.borrow_mut().pop();
            let alarm = {
                let mut waiting = self.waiting.borrow_mut();
                let index = waiting.iter().position(|(other, _)| *other == id);
                index.map(|index| waiting.swap_remove(index).1)
            };
            let Some(alarm) = alarm else { continue };
            alarm.fired.set(true);
            if let Some(waker) = alarm.waker.take() {
                waker.wake();
                fired = true;
            }
        }
        fired
    }
}

/// Resolves when its time has come. Dropping it cancels.
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    alarm: Rc<Alarm>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.alarm.fired.get() {
            return Poll::Ready(());
        }
        *self.alarm.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // The heap entry stays; firing it finds nobody to wake.
        self.alarm.waker.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_cancelled_ones_wake_nobody() {
        let timers = Timers::default();
        let mut cx = Context::from_waker(Waker::noop());
        let at = |nanos| Time::from_nanos(nanos);
        let mut late = Box::pin(timers.sleep_until(at(20)));
        let mut early = Box::pin(timers.sleep_until(at(10)));
        let mut gone = Box::pin(timers.sleep_until(at(5)));
        for sleep in [&mut late, &mut early, &mut gone] {
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
        }
        drop(gone);
        assert_eq!(timers.next(), Some(at(5)));
        assert!(!timers.fire(at(9)));
        assert_eq!(timers.next(), Some(at(10)));
        assert!(timers.fire(at(10)));
        assert!(early.as_mut().poll(&mut cx).is_ready());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        assert!(timers.fire(at(1000)));
        assert!(late.as_mut().poll(&mut cx).is_ready());
        assert_eq!(timers.next(), None);
        assert!(timers.waiting.borrow().is_empty());
    }
}
