//! Answering a request from an `async` body, without allocation.
//!
//! A layer's `begin` often is straight-line code that may or may not have to wait. [`Core::answer`]
//! polls it once in place: an outcome that is there at once is `begin`'s own answer, and only what
//! then waits becomes a pooled task that finishes the completion later.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use block::{Completion, Outcome};

use crate::core::Core;

thread_local! {
    /// What the body that is polled in place has answered, on its way to its `answer` call. Calls
    /// nest (a layer asks a layer), but each takes its own before an outer one can put in its.
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
        let mut answering = Answering { work, done: Some(done), in_place: true };
        self.spawn_now(async move {
            // Pinned within the task's own block of memory.
            let mut answering = std::pin::pin!(answering.parts());
            std::future::poll_fn(|cx| answering.as_mut().poll(cx)).await;
        });
        let (done, outcome) = IN_PLACE.take()?;
        done.now(outcome)
    }
}
