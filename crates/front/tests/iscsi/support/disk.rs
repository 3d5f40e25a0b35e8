//! A disk in memory whose answers can be late, or held back altogether.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use block::completion::Completion;
use block::{Asked, Device, Geometry, Op, Outcome, Request, RequestBuf, Watch};
use rt::Core;

pub struct Disk {
    core: Core,
    inner: Rc<dyn Device>,
    /// Answers come so late, at most.
    pub late: Cell<Duration>,
    pub is_held: Cell<bool>,
    held: RefCell<Vec<(RequestBuf, Completion)>>,
    /// Bytes that reads were asked for.
    pub read: Cell<u64>,
    pub requests: Cell<u64>,
    in_turn: Rc<Cell<u64>>,
    /// The most requests that began while nothing else had its turn.
    pub most_in_turn: Cell<u64>,
}

impl Disk {
    pub fn new(core: &Core, inner: Rc<dyn Device>) -> Rc<Self> {
        Rc::new(Self {
            core: core.clone(),
            inner,
            late: Cell::default(),
            is_held: Cell::default(),
            held: RefCell::default(),
            read: Cell::default(),
            requests: Cell::default(),
            in_turn: Rc::default(),
            most_in_turn: Cell::default(),
        })
    }

    pub fn held(&self) -> usize {
        self.held.borrow().len()
    }

    fn count_turn(&self) {
        let before = self.in_turn.get();
        self.in_turn.set(before + 1);
        self.most_in_turn.set(self.most_in_turn.get().max(before + 1));
        if before == 0 {
            let in_turn = self.in_turn.clone();
            self.core.spawn(async move { in_turn.set(0) });
        }
    }

    /// Answers what is held back, and from now on at once.
    pub fn release(&self) {
        self.is_held.set(false);
        for (request, done) in self.held.take() {
            finish(&*self.inner, &request, done);
        }
    }
}

/// The memory below answers in place.
fn finish(inner: &dyn Device, request: &RequestBuf, done: Completion) {
    match inner.ask(&request.as_request()) {
        block::completion::Answer::Now(outcome) => done.finish(outcome),
        block::completion::Answer::Later(_) => panic!("memory answers in place"),
    }
}

impl Device for Disk {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        self.requests.set(self.requests.get() + 1);
        self.count_turn();
        if request.op == Op::Read {
            self.read.set(self.read.get() + request.len);
        }
        if self.is_held.get() {
            self.held.borrow_mut().push((request.to_buf(), asked.later()));
            return None;
        }
        let late = self.late.get();
        if late.is_zero() {
            return self.inner.begin(request, asked);
        }
        let (core, inner) = (self.core.clone(), self.inner.clone());
        let (request, done) = (request.to_buf(), asked.later());
        let wait = late.mul_f64((self.core.random() % 1000) as f64 / 1000.0);
        self.core.spawn(async move {
            core.sleep(wait).await;
            finish(&*inner, &request, done);
        });
        None
    }

    fn watch(&self) -> &Watch {
        self.inner.watch()
    }
}
