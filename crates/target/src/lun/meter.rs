//! What is done at an LU's device on one core, counted by kind, and who wants to know when the
//! device fails.
//!
//! Plain cells, added up over cores when somebody asks. How long commands took is told by a front
//! that has a clock, and sorted by its rules: nothing in this crate has one.

use std::cell::{Cell, OnceCell};

use block::{Error, Op};

/// What kind of request was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    Other,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::WriteZeroes, Self::Other];

    #[inline]
    fn of(op: Op) -> Self {
        match op {
            Op::Read => Self::Read,
            Op::Write { .. } | Op::CompareAndWrite { .. } | Op::OrWrite { .. } => Self::Write,
            Op::Flush => Self::Flush,
            Op::Discard => Self::Discard,
            Op::WriteZeroes { .. } => Self::WriteZeroes,
            _ => Self::Other,
        }
    }
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub bytes: u64,
    pub errors: u64,
}

/// Most buckets that a front sorts times into.
pub const BUCKETS_MAX: usize = 32;

/// How long commands of one kind took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub sum_ns: u64,
    pub buckets: [u64; BUCKETS_MAX],
}

#[derive(Default)]
struct TimeCells {
    sum_ns: Cell<u64>,
    buckets: [Cell<u64>; BUCKETS_MAX],
}

type Tell = Box<dyn Fn(&Error)>;

#[derive(Default)]
pub struct Meter {
    kinds: [Cell<Counts>; Kind::ALL.len()],
    times: [TimeCells; Kind::ALL.len()],
    tell: OnceCell<Tell>,
}

impl Meter {
    /// Whom to tell of failures; the first one counts.
    pub fn tell(&self, tell: impl Fn(&Error) + 'static) {
        let _ = self.tell.set(Box::new(tell));
    }

    /// By kind, in their order.
    pub fn read(&self) -> [Counts; Kind::ALL.len()] {
        self.kinds.each_ref().map(Cell::get)
    }

    /// The same for how long commands took.
    pub fn times(&self) -> [Times; Kind::ALL.len()] {
        self.times.each_ref().map(|cells| Times {
            sum_ns: cells.sum_ns.get(),
            buckets: cells.buckets.each_ref().map(Cell::get),
        })
    }

    /// A command took so long, which belongs into this bucket of the front's.
    #[inline]
    pub fn took(&self, kind: Kind, ns: u64, bucket: usize) {
        let cells = &self.times[kind as usize];
        cells.sum_ns.set(cells.sum_ns.get().wrapping_add(ns));
        if let Some(count) = cells.buckets.get(bucket) {
            count.set(count.get() + 1);
        }
    }

    #[inline]
    pub fn count(&self, op: Op, bytes: u64, outcome: Result<(), &Error>) {
        let kind = &self.kinds[Kind::of(op) as usize];
        let mut counts = kind.get();
        counts.requests += 1;
        counts.bytes += bytes;
        counts.errors += u64::from(outcome.is_err());
        kind.set(counts);
        if let (Err(error), Some(tell)) = (outcome, self.tell.get()) {
            tell(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use block::ErrorKind;

    use super::*;

    #[test]
    fn kinds_stand_where_they_are_counted_and_failures_are_told() {
        let (meter, told) = (Meter::default(), Rc::new(Cell::new(0)));
        let failures = told.clone();
        meter.tell(move |_| failures.set(failures.get() + 1));
        let write = Op::Write { fua: false, atomic: false };
        meter.count(Op::Read, 512, Ok(()));
        meter.count(write, 4096, Ok(()));
        meter.count(write, 4096, Err(&ErrorKind::NoSpace.into()));
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
        let counts = meter.read();
        assert_eq!(counts[0], Counts { requests: 1, bytes: 512, errors: 0 });
        assert_eq!(counts[1], Counts { requests: 2, bytes: 8192, errors: 1 });
        assert_eq!((counts[2], told.get()), (Counts::default(), 1));
    }

    #[test]
    fn times_are_added_up_by_kind() {
        let meter = Meter::default();
        for (ns, bucket) in [(5, 0), (7, 0), (900, 3), (1, BUCKETS_MAX)] {
            meter.took(Kind::Write, ns, bucket);
        }
        let times = meter.times();
        assert_eq!(times[Kind::Write as usize].sum_ns, 913);
        assert_eq!(times[Kind::Write as usize].buckets[..4], [2, 0, 0, 1]);
        assert_eq!(times[Kind::Read as usize].buckets, [0; BUCKETS_MAX]);
    }
}
