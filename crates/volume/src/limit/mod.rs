//! A limit: how many requests and how many bytes a second an LU is given.
//!
//! ```text
//!   begin ─┬─ nothing limited, a flush, or within the budget ──▶ the device below, in place
//!          └─ a line of this core, first in first out ─ its first one has a place ─ due ──▶
//! ```
//!
//! An LU has one [`Budget`], whatever cores its clients come by; each handle has a line. Only the
//! first of a line takes a place in the budget, so cores that have lines take turns. Without limits
//! a request costs one look.
//!
//! What is held is in nobody's way: a flush goes by, because it covers only what was answered
//! before it. Who waits for everything in flight to end (a reset, an abort, a ring that stops) says
//! so by [`Device::hasten`]: then what is held goes on at once and is paid for afterwards, up to
//! [`HASTE_MAX`], so that a client which resets itself all the time gains nothing by it.
//!
//! Not here: limits of a client or of a pool.

mod budget;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::{
    Asked, Completion, Device, ErrorKind, Geometry, Health, Op, Outcome, Request, RequestBuf, Watch,
};
use rt::sync::Notify;
use rt::{Core, Time};

pub use budget::{Budget, Held};
use budget::{Cost, Place};

/// A line looks so often whether the limits have changed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How far ahead of its budget an LU may get because somebody waits for everything in flight.
pub const HASTE_MAX: Duration = Duration::from_secs(60);

pub struct Limit {
    inner: Rc<Inner>,
}

struct Inner {
    core: Core,
    lower: Rc<dyn Device>,
    budget: Arc<Budget>,
    line: RefCell<VecDeque<Waiting>>,
    is_served: Cell<bool>,
    /// So many of the line go on at once.
    in_haste: Cell<usize>,
    hastened: Notify,
}

struct Waiting {
    since: Time,
    cost: Cost,
    /// Of the first in line.
    place: Option<Place>,
    request: RequestBuf,
    done: Completion,
}

impl Limit {
    pub fn new(core: &Core, lower: Rc<dyn Device>, budget: Arc<Budget>) -> Rc<Self> {
        let inner = Inner {
            core: core.clone(),
            lower,
            budget,
            line: RefCell::default(),
            is_served: Cell::new(false),
            in_haste: Cell::new(0),
            hastened: Notify::new(),
        };
        Rc::new(Self { inner: Rc::new(inner) })
    }
}

impl Inner {
    /// What a request costs; none of what is not held at all.
    fn cost(&self, request: &Request<'_>) -> Option<Cost> {
        // What the device refuses it refuses at once.
        if request.op == Op::Flush || self.lower.geometry().check(request).is_err() {
            return None;
        }
        Some(self.budget.cost(moved(request)))
    }

    #[cold]
    fn begin(self: &Rc<Self>, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        let Some(cost) = self.cost(request) else { return self.lower.begin(request, asked) };
        let now = self.core.now();
        let place = self.line.borrow().is_empty().then(|| self.budget.place(cost, now));
        if place.is_some_and(|place| place.due <= now) {
            return self.lower.begin(request, asked);
        }
        let (request, done) = (request.to_buf(), asked.later());
        self.line.borrow_mut().push_back(Waiting { since: now, cost, place, request, done });
        if !self.is_served.replace(true) {
            self.core.spawn(self.clone().serve());
        }
        None
    }

    /// Serves the line until it is empty.
    async fn serve(self: Rc<Self>) {
        while let Some(due) = self.next_due() {
            let now = self.core.now();
            let haste = if self.in_haste.get() > 0 { HASTE_MAX } else { Duration::ZERO };
            if due - now <= haste {
                self.let_one_go(now);
                continue;
            }
            let wait = (due - (now + haste)).min(LOOK_EVERY);
            self.core.timeout(wait, self.hastened.notified()).await;
        }
        self.in_haste.set(0);
        self.is_served.set(false);
    }

    /// When the first of the line may go; it gets its place in the budget now, if it has none by
    /// the rules of now.
    fn next_due(&self) -> Option<Time> {
        let mut line = self.line.borrow_mut();
        let first = line.front_mut()?;
        if !self.budget.is_set() {
            return Some(Time::default());
        }
        let place = first.place.filter(|place| self.budget.is_current(*place));
        let place = place.unwrap_or_else(|| {
            first.cost = self.budget.cost(moved(&first.request.as_request()));
            self.budget.place(first.cost, self.core.now())
        });
        first.place = Some(place);
        Some(place.due)
    }

    fn let_one_go(&self, now: Time) {
        let first = self.line.borrow_mut().pop_front();
        let Some(Waiting { since, request, done, .. }) = first else { return };
        self.in_haste.set(self.in_haste.get().saturating_sub(1));
        self.budget.count_held(now - since);
        let lower = self.lower.clone();
        self.core.spawn_now(async move {
            done.finish(lower.io(&request.as_request()).await);
        });
    }
}

/// Bytes that a request moves. What only names a range, like a discard, moves none.
fn moved(request: &Request<'_>) -> u64 {
    match request.op {
        Op::Copy { .. } => request.len,
        Op::Status => 0,
        _ => request.data.len() as u64,
    }
}

impl Device for Limit {
    fn geometry(&self) -> Geometry {
        self.inner.lower.geometry()
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if !self.inner.budget.is_set() {
            return self.inner.lower.begin(request, asked);
        }
        self.inner.begin(request, asked)
    }

    fn watch(&self) -> &Watch {
        self.inner.lower.watch()
    }

    fn health(&self) -> Health {
        self.inner.lower.health()
    }

    fn hasten(&self) {
        self.inner.in_haste.set(self.inner.line.borrow().len());
        self.inner.hastened.notify();
        self.inner.lower.hasten();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Only a core that ends drops the task of a line that is not empty.
        for waiting in self.line.take() {
            waiting.done.finish(Err(ErrorKind::Aborted.into()));
        }
    }
}
