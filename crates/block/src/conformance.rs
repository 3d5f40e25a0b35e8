//! The suite that every device passes: what [`Device`](crate::Device) promises, as tests.
//!
//! Whoever implements a device writes a [`Bench`] that makes fresh LUs of it, runs [`run`] on its
//! own executor and checks the [`Report`] with [`Report::expect`], naming the tests that cannot
//! apply. Nothing here reads a clock or starts a thread; time passes by [`Bench::pause`].
//!
//! A test asks for what the geometry offers, and for data only where the device keeps data. What
//! the suite itself catches is shown by its own tests, with toy devices that each have one flaw.
//!
//! # What is promised of concurrent requests
//!
//! - Overlapping writes in flight together: afterwards each block holds what one of them wrote to
//!   it, never a mix; which one may differ from block to block.
//! - A read that overlaps a write in flight may return old and new bytes mixed. Once both are
//!   answered, every read returns the new ones.
//! - Once a write is answered, a read begun through any handle of the LU sees it.
//! - Compare-and-write and or-write are each one step against every write through every handle,
//!   each other included: no write answered before or after such a step is undone by it.
//! - A write changes no byte outside its range, whatever is in flight beside it.

mod compare;
mod data;
mod kit;
mod memory;
mod or;
mod order;
mod range;
mod resize;
mod zeroing;

#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use crate::device::Device;
use crate::error::Error;
use kit::{Context, End};

pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Work for another core, with that core's own handle of the LU.
pub type Job = Box<dyn FnOnce(Rc<dyn Device>) -> Boxed<'static, ()> + Send>;

/// What a test wants to have made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub size: u64,
    pub block_size: u32,
    pub read_only: bool,
}

/// Makes devices of one kind.
pub trait Bench {
    /// A fresh LU that reads zero everywhere; None where this kind cannot have that shape.
    fn make(&self, shape: Shape) -> Boxed<'_, Option<Box<dyn Subject>>>;

    /// Lets everything else go on for about a millisecond.
    fn pause(&self) -> Boxed<'_, ()>;

    fn block_sizes(&self) -> &[u32] {
        &[512, 4096]
    }

    /// Pauses after which a test that has not ended is said to hang.
    fn patience(&self) -> u32 {
        60_000
    }
}

/// One LU under test.
pub trait Subject {
    /// Its handle on the core that runs the suite; a fresh one after a power cut.
    fn device(&self) -> Rc<dyn Device>;

    /// Runs the job on another core; resolves when it has ended. None: there is no other core.
    fn elsewhere(&self, _job: Job) -> Option<Boxed<'static, ()>> {
        None
    }

    /// None: this kind has one size for ever.
    fn resize(&self, _size: u64) -> Option<Boxed<'_, Result<(), Error>>> {
        None
    }

    /// Loses whatever a power loss would lose, and comes back. None: cannot be tried.
    fn power_cut(&self) -> Option<Boxed<'_, ()>> {
        None
    }
}

type Run = for<'a> fn(&'a Context<'a>) -> Boxed<'a, Result<(), End>>;

/// Every test by name.
const TESTS: &[(&str, Run)] = &[
    ("geometry", |c| Box::pin(range::geometry(c))),
    ("range_edges", |c| Box::pin(range::edges(c))),
    ("alignment", |c| Box::pin(range::alignment(c))),
    ("zero_length", |c| Box::pin(range::zero_length(c))),
    ("contradictions", |c| Box::pin(range::contradictions(c))),
    ("unoffered", |c| Box::pin(range::unoffered(c))),
    ("far_end", |c| Box::pin(range::far_end(c))),
    ("read_only", |c| Box::pin(range::read_only(c))),
    ("fresh_reads_zero", |c| Box::pin(data::fresh_reads_zero(c))),
    ("random_operations", |c| Box::pin(data::random_operations(c))),
    ("many_in_flight", |c| Box::pin(data::many_in_flight(c))),
    ("scatter_lists", |c| Box::pin(data::scatter_lists(c))),
    ("seen_elsewhere", |c| Box::pin(data::seen_elsewhere(c))),
    ("write_zeroes", |c| Box::pin(zeroing::write_zeroes(c))),
    ("discard", |c| Box::pin(zeroing::discard(c))),
    ("status", |c| Box::pin(zeroing::status(c))),
    ("copy", |c| Box::pin(zeroing::copy(c))),
    ("overlapping_writes", |c| Box::pin(order::overlapping_writes(c))),
    ("overlapping_writes_elsewhere", |c| Box::pin(order::overlapping_elsewhere(c))),
    ("neighbours", |c| Box::pin(order::neighbours(c))),
    ("neighbours_elsewhere", |c| Box::pin(order::neighbours_elsewhere(c))),
    ("flush_under_load", |c| Box::pin(order::flush_under_load(c))),
    ("power_cut", |c| Box::pin(order::power_cut(c))),
    ("compare_and_write", |c| Box::pin(compare::one_at_a_time(c))),
    ("compare_excludes_compare", |c| Box::pin(compare::counters(c))),
    ("compare_excludes_writes", |c| Box::pin(compare::markers(c))),
    ("compare_excludes_elsewhere", |c| Box::pin(compare::from_two_cores(c))),
    ("or_write", |c| Box::pin(or::one_at_a_time(c))),
    ("or_excludes_or", |c| Box::pin(or::setters(c))),
    ("or_excludes_writes", |c| Box::pin(or::markers(c))),
    ("or_excludes_compare", |c| Box::pin(or::counters(c))),
    ("or_excludes_elsewhere", |c| Box::pin(or::from_two_cores(c))),
    ("dropped_read", |c| Box::pin(memory::dropped_read(c))),
    ("dropped_write", |c| Box::pin(memory::dropped_write(c))),
    ("resize", |c| Box::pin(resize::resize(c))),
    ("resize_elsewhere", |c| Box::pin(resize::elsewhere(c))),
    ("resize_under_load", |c| Box::pin(resize::under_load(c))),
];

/// Runs every test on fresh LUs, for each block size.
pub async fn run(bench: &dyn Bench) -> Report {
    run_those(bench, |_| true).await
}

async fn run_those(bench: &dyn Bench, wanted: impl Fn(&str) -> bool) -> Report {
    let mut report = Report::default();
    for &block_size in bench.block_sizes() {
        for (name, run) in TESTS.iter().filter(|(name, _)| wanted(name)) {
            let context = Context { bench, block_size };
            let end = patiently(bench, run(&context)).await;
            report.note(name, block_size, end);
        }
    }
    report
}

/// The test's end, or the news that it hangs.
async fn patiently(bench: &dyn Bench, test: Boxed<'_, Result<(), End>>) -> Result<(), End> {
    let mut test = pin!(test);
    let mut patience = pin!(async {
        for _ in 0..bench.patience() {
            bench.pause().await;
        }
    });
    poll_fn(|cx| {
        if let Poll::Ready(end) = test.as_mut().poll(cx) {
            return Poll::Ready(end);
        }
        let hangs = || Err(End::Failed("a request was never answered".to_owned()));
        patience.as_mut().poll(cx).map(|()| hangs())
    })
    .await
}

/// How the tests of one bench ended.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: Vec<&'static str>,
    pub failed: Vec<Failure>,
    pub skipped: Vec<Skip>,
}

#[derive(Debug)]
pub struct Failure {
    pub test: &'static str,
    pub block_size: u32,
    pub what: String,
}

#[derive(Debug)]
pub struct Skip {
    pub test: &'static str,
    pub block_size: u32,
    pub why: &'static str,
}

impl Report {
    fn note(&mut self, test: &'static str, block_size: u32, end: Result<(), End>) {
        match end {
            Ok(()) => self.passed.push(test),
            Err(End::Failed(what)) => self.failed.push(Failure { test, block_size, what }),
            Err(End::Skipped(why)) => self.skipped.push(Skip { test, block_size, why }),
        }
    }

    /// Panics where a test failed, or where others were skipped than these.
    pub fn expect(&self, skipped: &[&str]) {
        for Skip { test, block_size, why } in &self.skipped {
            println!("skipped: {test} with blocks of {block_size}: {why}");
        }
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
        for Skip { test, why, .. } in &self.skipped {
            assert!(skipped.contains(test), "{test} was skipped: {why}");
        }
        for test in skipped {
            assert!(self.skipped.iter().any(|skip| skip.test == *test), "{test} was not skipped");
        }
    }
}
