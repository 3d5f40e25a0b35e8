//! Who is on the way by what the map said when they looked.
//!
//! Requests that go to a place are counted by the turn in which they looked where it is. Before a
//! place is used for something else a new turn begins on every handle, and all turns before it must
//! have ended: nobody is stopped for that, and nobody is asked twice.
//!
//! Requests of several steps are counted as well, from their beginning to their answer, so that a
//! handle that is closed knows when nothing of it is left.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use rt::sync::Notify;

#[derive(Default)]
pub(super) struct Passage {
    /// How many are on the way, of each turn from the oldest on; the last is the present one.
    turns: RefCell<VecDeque<usize>>,
    oldest: Cell<u64>,
    ended: Notify,
}

/// A turn that somebody is on the way in.
pub(super) type Turn = u64;

impl Passage {
    /// Somebody looks, and goes.
    #[inline]
    pub(super) fn enter(&self) -> Turn {
        let mut turns = self.turns.borrow_mut();
        if turns.is_empty() {
            turns.push_back(0);
        }
        *turns.back_mut().expect("there is one") += 1;
        self.oldest.get() + turns.len() as u64 - 1
    }

    #[inline]
    pub(super) fn leave(&self, turn: Turn) {
        let mut turns = self.turns.borrow_mut();
        turns[(turn - self.oldest.get()) as usize] -= 1;
        if turns.len() == 1 {
            return;
        }
        while turns.len() > 1 && turns[0] == 0 {
            turns.pop_front();
            self.oldest.set(self.oldest.get() + 1);
        }
        drop(turns);
        self.ended.notify();
    }

    /// Everybody who is on the way now arrives.
    pub(super) async fn over(&self) {
        let behind = {
            let mut turns = self.turns.borrow_mut();
            if turns.iter().all(|count| *count == 0) {
                return;
            }
            turns.push_back(0);
            self.oldest.get() + turns.len() as u64 - 1
        };
        self.ended.until(|| self.oldest.get() >= behind).await;
    }

    /// The same as a guard, for who waits in between.
    pub(super) fn guard(self: &Rc<Self>) -> Guard {
        Guard { turn: self.enter(), passage: self.clone() }
    }
}

pub(super) struct Guard {
    passage: Rc<Passage>,
    turn: Turn,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.passage.leave(self.turn);
    }
}

/// Requests of several steps.
#[derive(Default)]
pub(super) struct UnderWay {
    count: Cell<usize>,
    ended: Notify,
}

impl UnderWay {
    /// The work as one that counts from now on until it has ended.
    pub(super) fn with<T, F: Future<Output = T>>(
        self: &Rc<Self>,
        work: F,
    ) -> impl Future<Output = T> + use<T, F> {
        self.count.set(self.count.get() + 1);
        let counted = Counted(self.clone());
        async move {
            let result = work.await;
            drop(counted);
            result
        }
    }

    pub(super) async fn over(&self) {
        self.ended.until(|| self.count.get() == 0).await;
    }
}

struct Counted(Rc<UnderWay>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.ended.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn only_those_who_were_there_are_waited_for() {
        let passage = Rc::new(Passage::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(passage.over()).as_mut().poll(&mut cx).is_ready());
        let (first, second) = (passage.guard(), passage.guard());
        let mut over = pin!(passage.over());
        assert!(over.as_mut().poll(&mut cx).is_pending());
        let later = passage.guard();
        let mut both = pin!(passage.over());
        assert!(both.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(over.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert_eq!(over.as_mut().poll(&mut cx), Poll::Ready(()));
        assert!(both.as_mut().poll(&mut cx).is_pending());
        drop(later);
        assert_eq!(both.as_mut().poll(&mut cx), Poll::Ready(()));
        assert_eq!(passage.turns.borrow().len(), 1);
    }
}
