//! Holding back writes to a range, on one handle.
//!
//! What must be exclusive (compare-and-write, or-write, writing part of what the store can write,
//! cutting the end off) closes its range on every handle of the LU, see `ledger`. A handle with
//! a closed range keeps new writes to it in a queue until it is open again. While nothing is
//! closed, all of this costs a write one look at a number.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use block::{Completion, RequestBuf};

use crate::sync::Notify;

/// A range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub const ALL: Self = Self { start: 0, end: u64::MAX };

    pub const fn new(offset: u64, len: u64) -> Self {
        Self { start: offset, end: offset.saturating_add(len) }
    }

    /// The span, widened to whole units.
    pub const fn widened(self, unit: u64) -> Self {
        Self { start: self.start / unit * unit, end: self.end.next_multiple_of(unit) }
    }

    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Names who closed a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketId(pub u64);

#[derive(Default)]
pub struct Gate {
    closings: Cell<usize>,
    is_watched: Cell<bool>,
    closed: RefCell<Vec<(TicketId, Span)>>,
    held: RefCell<Vec<(RequestBuf, Completion)>>,
    /// Writes under way that the ring does not know as one operation.
    busy: RefCell<Vec<(u64, Span)>>,
    next_busy: Cell<u64>,
    changed: Notify,
}

impl Gate {
    /// Whether nothing at all is closed, nor watched.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.closings.get() == 0
    }

    pub fn is_closed(&self, span: Span) -> bool {
        !self.is_open() && self.closed.borrow().iter().any(|(_, closed)| closed.overlaps(span))
    }

    pub fn close(&self, id: TicketId, span: Span) {
        let mut closed = self.closed.borrow_mut();
        closed.push((id, span));
        self.count(closed.len());
    }

    fn count(&self, closed: usize) {
        self.closings.set(closed + usize::from(self.is_watched.get()));
    }

    /// Nothing is open from now on, though nothing is held back by this: each write is looked at.
    pub fn watch(&self) {
        self.is_watched.set(true);
        self.count(self.closed.borrow().len());
    }

    /// What is not closed is open again.
    pub fn unwatch(&self) {
        self.is_watched.set(false);
        self.count(self.closed.borrow().len());
    }

    /// Opens what this ticket closed; the requests held meanwhile are the caller's to start again.
    #[must_use = "held requests must be started again"]
    pub fn open(&self, id: TicketId) -> Vec<(RequestBuf, Completion)> {
        let mut closed = self.closed.borrow_mut();
        closed.retain(|(other, _)| *other != id);
        self.count(closed.len());
        drop(closed);
        self.changed.notify();
        self.held.take()
    }

    pub fn hold(&self, request: RequestBuf, done: Completion) {
        self.held.borrow_mut().push((request, done));
    }

    /// Says that a write of several steps is under way, until the guard goes.
    pub fn enter(self: &Rc<Self>, span: Span) -> Busy {
        let id = self.next_busy.get();
        self.next_busy.set(id + 1);
        self.busy.borrow_mut().push((id, span));
        Busy { gate: self.clone(), id }
    }

    /// Waits until no write of several steps is under way in the span.
    pub async fn settled(&self, span: Span) {
        let quiet = || !self.busy.borrow().iter().any(|(_, busy)| busy.overlaps(span));
        self.changed.until(quiet).await;
    }

    /// Waits until nothing is held back any more.
    pub async fn released(&self) {
        self.changed.until(|| self.held.borrow().is_empty()).await;
    }
}

/// A write of several steps.
pub struct Busy {
    gate: Rc<Gate>,
    id: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.gate.busy.borrow_mut().retain(|(id, _)| *id != self.id);
        self.gate.changed.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_widen_and_overlap() {
        let span = Span::new(700, 300);
        assert_eq!(span.widened(512), Span { start: 512, end: 1024 });
        assert_eq!(span.widened(1), span);
        assert!(span.overlaps(Span::new(999, 1)));
        assert!(!span.overlaps(Span::new(1000, 1)));
        assert!(!span.overlaps(Span::new(0, 700)));
        assert!(Span::new(0, u64::MAX).overlaps(span));
        assert!(!Span::new(5, u64::MAX).overlaps(Span::new(0, 5)));
    }

    #[test]
    fn two_closings_of_one_range_are_both_counted() {
        let gate = Gate::default();
        let span = Span::new(0, 4096);
        gate.close(TicketId(1), span);
        gate.close(TicketId(2), Span::new(4096, 512));
        assert!(gate.is_closed(Span::new(4095, 1)) && gate.is_closed(Span::new(4096, 1)));
        assert!(!gate.is_closed(Span::new(8192, 512)) && !gate.is_open());
        assert!(gate.open(TicketId(1)).is_empty());
        assert!(!gate.is_closed(span) && !gate.is_open());
        assert!(gate.open(TicketId(2)).is_empty());
        assert!(gate.is_open());
        gate.watch();
        assert!(!gate.is_open() && !gate.is_closed(span));
        gate.close(TicketId(3), span);
        assert!(gate.open(TicketId(3)).is_empty() && !gate.is_open());
        gate.unwatch();
        assert!(gate.is_open());
    }
}
