//! The executor alone: a poller that makes its own requests, no client, against a bare io_uring loop.
//!
//! | case | each request |
//! |---|---|
//! | bare | one NOP, pushed and reaped by a loop that knows nothing else |
//! | nop, task | one NOP that a task of its own awaits through `dyn Device` |
//! | nop, begin | one NOP with its completion straight to a sink, as queues do it |
//! | at once, task | a task awaits a device that answers in place |
//! | at once, begin | a device answers in place, no task |
//!
//! All run on one pinned thread, in turn, several passes; of all stretches the lowest counts,
//! because other jobs only ever add time.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Instant;

use block::{Completion, Device, Geometry, Outcome, Request, Sink, Watch, mem::Buffer};
use clap::Args;
use rt::{Config, Core, Poller};
use serde::Serialize;
use store::{NullStore, Store};

use crate::numbers::{Summary, columns, short};
use crate::report::Report;
use crate::{Result, callgrind, cpu};

/// The bars for what needs no kernel are given for a machine whose bare loop takes this long.
const SCALE_NS: f64 = 90.0;
const PASSES: usize = 4;
/// In each pass; 40 in all.
const STRETCHES: usize = 10;
const STRETCH_REQUESTS: u64 = 100_000;
const CALLGRIND_REQUESTS: u64 = 20_000;
/// A lowest stretch so far below the usual one is not trusted without a word.
const EXCESS_MAX: f64 = 0.15;

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    /// Do not count instructions
    #[arg(long)]
    no_instructions: bool,
    /// Only this case, by its number, once: for profilers
    #[arg(long, requires = "requests")]
    case: Option<usize>,
    #[arg(long)]
    requests: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Bare,
    NopTask,
    NopBegin,
    AtOnceTask,
    AtOnceBegin,
}

struct Case {
    name: &'static str,
    how: How,
    depth: u32,
}

const CASES: [Case; 10] = [
    Case { name: "bare", how: How::Bare, depth: 32 },
    Case { name: "nop, task", how: How::NopTask, depth: 32 },
    Case { name: "nop, begin", how: How::NopBegin, depth: 32 },
    Case { name: "at once, task", how: How::AtOnceTask, depth: 32 },
    Case { name: "at once, begin", how: How::AtOnceBegin, depth: 32 },
    Case { name: "bare", how: How::Bare, depth: 1 },
    Case { name: "nop, task", how: How::NopTask, depth: 1 },
    Case { name: "nop, begin", how: How::NopBegin, depth: 1 },
    Case { name: "at once, task", how: How::AtOnceTask, depth: 1 },
    Case { name: "at once, begin", how: How::AtOnceBegin, depth: 1 },
];

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    depth: u32,
    ns_per_request: Summary,
    ratio_to_bare: f64,
    instructions_per_request: Option<f64>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    cpu::pin(arguments.cpu)?;
    if let (Some(case), Some(requests)) = (arguments.case, arguments.requests) {
        let case = CASES.get(case).ok_or("no such case")?;
        measure(case, 1, requests)?;
        return Ok(());
    }
    let mut times: Vec<Vec<f64>> = CASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..PASSES {
        for (case, times) in CASES.iter().zip(&mut times) {
            times.extend(measure(case, STRETCHES, STRETCH_REQUESTS)?);
        }
    }
    let mut figures = Vec::new();
    for (index, (case, times)) in CASES.iter().zip(&times).enumerate() {
        let ns_per_request = Summary::of(times);
        let bare = CASES.iter().position(|other| other.how == How::Bare && other.depth == case.depth);
        let bare = Summary::of(&times_of(&times_table(&times_ref(times)), bare)).lowest;
        let _ = (index, bare);
        figures.push(Figure {
            name: case.name,
            depth: case.depth,
            ns_per_request,
            ratio_to_bare: 0.0,
            instructions_per_request: None,
        });
    }
    Ok(())
}
