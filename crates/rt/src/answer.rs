//! Answering a request from an `async` body, without allocation.
//!
//! A device's `begin` often is straight-line code that may or may not have to wait.
//! [`Core::answer`] polls it once in place: an outcome that is there at once is `begin`'s own
//! answer, and only what then waits becomes a pooled task that finishes the completion later.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use block::{Completion, Outcome};

use crate::core::Core;

thread_local! {
    /// What the body that is polled in place has answered, on its way to its `answer` call. Calls
    /// nest (a device asks a device), but each takes its own before an outer one can put in its.
    static IN_PLACE: Cell<Option<(Completion, Outcome)>> = const { Cell::new(None) };
}

impl Core {
    /// For [`Device::begin`](block::Device::begin): the outcome of `work` now, or through `done`
    /// once it has ended.
    #[inline]
    pub fn answer<F>(&self, done: Completion, work: F) -> Option<Outcome>
    where
        F: Future<Output = Outcome> + 'static,
    {
        self.spawn_now(Answering { work, done: Some(done), in_place: true });
        let (done, outcome) = IN_PLACE.take()?;
        done.now(outcome)
    }
}

/// A struct and not an `async` block, which would hold `work` twice.
struct Answering<F> {
    work: F,
    done: Option<Completion>,
    in_place: bool,
}

impl<F: Future<Output = Outcome>> Future for Answering<F> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `work` is never moved out and is pinned for as long as `self` is; the other
        // fields are not pinned.
        let (work, this) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.work), (&mut this.done, &mut this.in_place))
        };
        let (done, in_place) = this;
        let Poll::Ready(outcome) = work.poll(cx) else {
            *in_place = false;
            return Poll::Pending;
        };
        let done = done.take().expect("a task that has ended is not polled again");
        if *in_place {
            IN_PLACE.set(Some((done, outcome)));
        } else {
            done.finish(outcome);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use block::{Device, ErrorKind, Geometry, Op, Request, Watch};

    use super::*;
    use crate::Config;

    /// Asks itself for half the length until nothing is left; waits at one of the depths.
    struct Layers {
        core: Core,
        wait_at: u64,
        watch: Watch,
        me: std::rc::Weak<Layers>,
    }

    impl Device for Layers {
        fn geometry(&self) -> Geometry {
            Geometry::plain(1 << 20, 512)
        }

        fn begin(&self, request: &Request<'_>, done: Completion) -> Option<Outcome> {
            let me = self.me.upgrade().expect("alive");
            let len = request.len;
            self.core.answer(done, async move {
                if len == me.wait_at {
                    me.core.yield_now().await;
                }
                if len == 0 {
                    return Err(ErrorKind::Busy.into());
                }
                let device: &dyn Device = &*me;
                match device.io(&Request::plain(Op::Discard, 0, len / 2)).await {
                    Err(error) if error.kind() == ErrorKind::Busy => Ok(len),
                    Err(error) => Err(error),
                    Ok(depths) => Ok(len + depths),
                }
            })
        }

        fn watch(&self) -> &Watch {
            &self.watch
        }
    }

    fn begin(wait_at: u64) -> (Option<Outcome>, Outcome) {
        let both = Core::block_on(&Config::new("answer"), |core| async move {
            let device =
                Rc::new_cyclic(|me| Layers { core, wait_at, watch: Watch::new(), me: me.clone() });
            let (waiting, done) = block::completion::Waiting::new();
            let request = Request::plain(Op::Discard, 0, 8);
            match device.begin(&request, done) {
                Some(outcome) => (Some(outcome.clone()), outcome),
                None => (None, waiting.outcome().await),
            }
        });
        both.expect("a core")
    }

    #[test]
    fn what_does_not_wait_is_answered_in_place_through_every_layer() {
        assert_eq!(begin(u64::MAX), (Some(Ok(15)), Ok(15)));
    }

    #[test]
    fn what_waits_at_any_depth_is_answered_later() {
        for wait_at in [8, 2, 0] {
            assert_eq!(begin(wait_at), (None, Ok(15)), "waiting at {wait_at}");
        }
    }
}
