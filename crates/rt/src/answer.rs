//! Answering a request from an `async` body, without allocation.
//!
//! A device's `begin` often is straight-line code that may or may not have to wait.
//! [`Core::answer`] polls it once in place: an outcome that is there at once is `begin`'s own
//! answer, and only what then waits becomes a pooled task that finishes a completion later.

use std::future::Future;

use block::{Asked, Outcome};

use crate::core::Core;

impl Core {
    /// For [`Device::begin`](block::Device::begin): the outcome of `work` now, or through a
    /// completion once it has ended.
    #[inline]
    pub fn answer<F>(&self, asked: Asked<'_>, work: F) -> Option<Outcome>
    where
        F: Future<Output = Outcome> + 'static,
    {
        let (asked, outcome) = self.0.tasks.begin(work, asked, |asked| {
            let done = asked.later();
            move |outcome| done.finish(outcome)
        })?;
        asked.now(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::{Rc, Weak};

    use block::{Answer, Device, ErrorKind, Geometry, Op, Request, Watch};

    use super::*;
    use crate::Config;

    /// Asks itself for half the length until nothing is left; waits at one of the depths.
    struct Layers {
        core: Core,
        wait_at: u64,
        watch: Watch,
        me: Weak<Layers>,
    }

    impl Device for Layers {
        fn geometry(&self) -> Geometry {
            Geometry::plain(1 << 20, 512)
        }

        fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
            let me = self.me.upgrade().expect("alive");
            let len = request.len;
            self.core.answer(asked, async move {
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
            let device: &dyn Device = &*device;
            match device.ask(&Request::plain(Op::Discard, 0, 8)) {
                Answer::Now(outcome) => (Some(outcome.clone()), outcome),
                Answer::Later(waiting) => (None, waiting.outcome().await),
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
