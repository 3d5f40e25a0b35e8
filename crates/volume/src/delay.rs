//! A slow store: requests reach the device below a set time after they were asked.
//!
//! It is the request that waits, not its answer: a write is applied late, as by a store that has
//! trouble, so what becomes of late writes can be tried with it. Reads have a line of their own.
//! A line is in order of time, because its delay is one; one task serves it and sets a timer for
//! the next request that is due, so steady load allocates nothing per request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use block::{
    Asked, Completion, Device, ErrorKind, Geometry, Health, Op, Outcome, Request, RequestBuf, Watch,
};
use rt::{Core, Time};

/// How late requests are. Zero: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    pub reads: Duration,
    /// Everything that is no read.
    pub others: Duration,
}

pub struct Delay {
    inner: Rc<Inner>,
}

struct Inner {
    core: Core,
    lower: Rc<dyn Device>,
    reads: Line,
    others: Line,
}

struct Line {
    delay: Duration,
    waiting: RefCell<VecDeque<Late>>,
    is_served: Cell<bool>,
}

struct Late {
    due: Time,
    request: RequestBuf,
    done: Completion,
}

impl Line {
    fn new(delay: Duration) -> Self {
        Self { delay, waiting: RefCell::default(), is_served: Cell::new(false) }
    }

    fn next_due(&self) -> Option<Time> {
        self.waiting.borrow().front().map(|late| late.due)
    }

    fn take_due(&self, now: Time) -> Option<Late> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.front()?.due > now {
            return None;
        }
        waiting.pop_front()
    }
}

impl Delay {
    pub fn new(core: &Core, lower: Rc<dyn Device>, delays: Delays) -> Rc<Self> {
        let Delays { reads, others } = delays;
        let (reads, others) = (Line::new(reads), Line::new(others));
        Rc::new(Self { inner: Rc::new(Inner { core: core.clone(), lower, reads, others }) })
    }
}

impl Inner {
    fn line(&self, op: Op) -> &Line {
        if op == Op::Read { &self.reads } else { &self.others }
    }

    /// Serves a line until it is empty.
    async fn serve(self: Rc<Self>, op: Op) {
        let line = self.line(op);
        while let Some(due) = line.next_due() {
            self.core.sleep_until(due).await;
            let now = self.core.now();
            while let Some(Late { request, done, .. }) = line.take_due(now) {
                let lower = self.lower.clone();
                self.core.spawn_now(async move {
                    done.finish(lower.io(&request.as_request()).await);
                });
            }
        }
        line.is_served.set(false);
    }
}

impl Device for Delay {
    fn geometry(&self) -> Geometry {
        self.inner.lower.geometry()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        let Inner { core, lower, .. } = &*self.inner;
        let line = self.inner.line(request.op);
        if line.delay.is_zero() {
            return lower.begin(request, asked);
        }
        let (due, op, done) = (core.now() + line.delay, request.op, asked.later());
        line.waiting.borrow_mut().push_back(Late { due, request: request.to_buf(), done });
        if !line.is_served.replace(true) {
            core.spawn(self.inner.clone().serve(op));
        }
        None
    }

    fn watch(&self) -> &Watch {
        self.inner.lower.watch()
    }

    fn health(&self) -> Health {
        self.inner.lower.health()
    }

    fn hasten(&self) {
        self.inner.lower.hasten();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Only a core that ends drops the task of a line that is not empty.
        for line in [&self.reads, &self.others] {
            for late in line.waiting.take() {
                late.done.finish(Err(ErrorKind::Aborted.into()));
            }
        }
    }
}
