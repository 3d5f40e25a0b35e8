//! One watch per device handle: "something about the device changed, look again".
//!
//! It carries no payload on purpose: whoever wakes re-reads geometry and health, so a burst of
//! changes costs one look and none can be missed. It belongs to one core, like its device.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Default)]
pub struct Watch {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Watch {
    pub fn new() -> Self {
        Self::default()
    }

    /// The version to hand to [`Watch::changed`]: take it before reading the device.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Tells everyone who waits.
    pub fn notify(&self) {
        self.version.set(self.version.get() + 1);
        // Taken out first: a waker may look at this watch again.
        let waiting = self.waiting.take();
        for waker in waiting {
            waker.wake();
        }
    }

    /// Resolves once the version differs from `seen`, with the new one.
    pub async fn changed(&self, seen: u64) -> u64 {
        poll_fn(|cx| {
            let version = self.version.get();
            if version != seen {
                return Poll::Ready(version);
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
