//! The executor alone: a poller that makes its own requests, no client, against a bare io_uring
//! loop.
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

use block::{Asked, Device, Geometry, Outcome, Request, Sink, Watch, Way, mem::Buffer};
use clap::Args;
use rt::{Config, Core, Poller};
use serde::Serialize;
use store::{NullStore, Store};

use crate::numbers::{Summary, columns, short};
use crate::report::Report;
use crate::{Result, callgrind, cpu};

/// The bars for what needs no kernel are given for a machine whose bare loop takes this long.
const SCALE_NS: f64 = 90.0;
const PASSES: usize = 20;
/// In each pass; 40 in all.
const STRETCHES: usize = 2;
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
    cpu::pin_or_last(arguments.cpu)?;
    if let (Some(case), Some(requests)) = (arguments.case, arguments.requests) {
        let case = CASES.get(case).ok_or("no such case")?;
        return measure(case, 0, requests).map(drop);
    }
    let mut times: Vec<Vec<f64>> = CASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..PASSES {
        for (case, times) in CASES.iter().zip(&mut times) {
            times.extend(measure(case, STRETCHES, STRETCH_REQUESTS)?);
        }
    }
    let mut figures: Vec<Figure> = CASES
        .iter()
        .zip(&times)
        .map(|(case, times)| Figure {
            name: case.name,
            depth: case.depth,
            ns_per_request: Summary::of(times),
            ratio_to_bare: 0.0,
            instructions_per_request: None,
        })
        .collect();
    for index in 0..figures.len() {
        let depth = figures[index].depth;
        figures[index].ratio_to_bare =
            lowest(&figures, index) / lowest(&figures, case_of(How::Bare, depth));
        if !arguments.no_instructions {
            let case = index.to_string();
            let words = ["executor", "--case", &case, "--requests"];
            figures[index].instructions_per_request =
                Some(callgrind::per_request(&words, CALLGRIND_REQUESTS)?);
        }
    }
    print(&figures);
    judge(figures)
}

fn case_of(how: How, depth: u32) -> usize {
    let case = CASES.iter().position(|case| case.how == how && case.depth == depth);
    case.expect("every way stands in the table at every depth")
}

fn lowest(figures: &[Figure], case: usize) -> f64 {
    figures[case].ns_per_request.lowest
}

fn print(figures: &[Figure]) {
    let heads = ["", "depth", "ns, lowest", "median", "× bare", "instructions"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for figure in figures {
        lines.push(vec![
            figure.name.to_owned(),
            figure.depth.to_string(),
            short(figure.ns_per_request.lowest),
            short(figure.ns_per_request.median),
            short(figure.ratio_to_bare),
            figure.instructions_per_request.map_or("-".to_owned(), short),
        ]);
    }
    print!("{}", columns(&lines));
}

fn judge(figures: Vec<Figure>) -> Result<()> {
    let bare = lowest(&figures, case_of(How::Bare, 32));
    let rows = [
        ("executor-nop-32", How::NopTask, 1.0 / bare),
        ("executor-at-once", How::AtOnceTask, SCALE_NS / bare),
        ("executor-begin", How::AtOnceBegin, SCALE_NS / bare),
    ];
    let mut report = Report::new("executor", figures);
    for (bar, how, factor) in rows {
        let case = case_of(how, 32);
        let doubts = [case, case_of(How::Bare, 32)]
            .iter()
            .filter_map(|&case| {
                let figure = &report.figures[case];
                let excess = figure.ns_per_request.excess();
                let name = figure.name;
                (excess > EXCESS_MAX)
                    .then(|| format!("{name}: median {:.0} % above the lowest", excess * 100.0))
            })
            .collect();
        let value = lowest(&report.figures, case) * factor;
        report.judge(bar, value, doubts);
    }
    report.finish()
}

/// Nanoseconds per request of each stretch.
fn measure(case: &Case, stretches: usize, requests: u64) -> Result<Vec<f64>> {
    let ends = match case.how {
        How::Bare => bare(case.depth, stretches, requests)?,
        how => ours(how, case.depth, stretches, requests)?,
    };
    let times = ends.windows(2).map(|pair| (pair[1] - pair[0]).as_nanos() as f64 / requests as f64);
    Ok(times.collect())
}

/// The bare loop: it does what must be done for a NOP, and nothing else.
fn bare(depth: u32, stretches: usize, requests: u64) -> Result<Vec<Instant>> {
    let mut ring: io_uring::IoUring = io_uring::IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(256)?;
    let entry = io_uring::opcode::Nop::new().build();
    let mut ends = Vec::with_capacity(stretches + 1);
    let mut free = depth;
    // One more than asked for: it warms up.
    for _ in 0..=stretches {
        let mut left = requests;
        while left > 0 {
            let mut queue = ring.submission();
            while free > 0 {
                // SAFETY: a NOP points to no memory.
                unsafe { queue.push(&entry) }?;
                free -= 1;
            }
            drop(queue);
            ring.submit_and_wait(1)?;
            for done in ring.completion() {
                std::hint::black_box(done.user_data());
                free += 1;
                left = left.saturating_sub(1);
            }
        }
        ends.push(Instant::now());
    }
    Ok(ends)
}

/// The same through a core.
fn ours(how: How, depth: u32, stretches: usize, requests: u64) -> Result<Vec<Instant>> {
    let ends = Core::block_on(&Config::new("bench"), move |core| async move {
        let device: Rc<dyn Device> = match how {
            How::NopTask | How::NopBegin => {
                Rc::new(Nop { core: core.clone(), watch: Watch::new() })
            }
            _ => NullStore::new(1 << 30, 512).expect("a whole number of blocks").device(&core),
        };
        let load = Rc::new_cyclic(|me| Load {
            me: me.clone(),
            way: Way::to(me.clone()),
            core: core.clone(),
            device,
            buffer: Buffer::zeroed(4096),
            by_task: matches!(how, How::NopTask | How::AtOnceTask),
            depth: u64::from(depth),
            begun: Cell::new(0),
            answered: Cell::new(0),
            end: Cell::new(requests),
            requests,
            // One more than asked for: it warms up.
            stretches: Cell::new(stretches + 1),
            ends: RefCell::new(Vec::with_capacity(stretches + 1)),
            over: rt::sync::Notify::new(),
        });
        let poller = core.add_poller(load.clone());
        load.over.until(|| load.stretches.get() == 0 && load.in_flight() == 0).await;
        core.remove_poller(poller);
        load.ends.take()
    })?;
    Ok(ends)
}

/// A device whose requests go to the kernel and do nothing there.
struct Nop {
    core: Core,
    watch: Watch,
}

impl Device for Nop {
    fn geometry(&self) -> Geometry {
        Geometry::plain(1 << 30, 512)
    }

    #[inline]
    fn begin(&self, _: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        self.core.nop(asked.later());
        None
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

/// Keeps `depth` requests in flight, and notes when each stretch ends.
struct Load {
    me: Weak<Load>,
    way: Rc<Way>,
    core: Core,
    device: Rc<dyn Device>,
    buffer: Buffer,
    by_task: bool,
    depth: u64,
    begun: Cell<u64>,
    answered: Cell<u64>,
    /// The stretch ends when so many are answered.
    end: Cell<u64>,
    requests: u64,
    stretches: Cell<usize>,
    ends: RefCell<Vec<Instant>>,
    over: rt::sync::Notify,
}

impl Load {
    #[inline]
    fn begin(&self, tag: u64) {
        if self.by_task {
            let me = self.me();
            self.core.spawn_now(async move {
                let request = Request::read(tag * 4096, me.buffer.sgl());
                let outcome = me.device.io(&request).await;
                me.complete(tag, outcome);
            });
            return;
        }
        let request = Request::read(tag * 4096, self.buffer.sgl());
        if let Some(outcome) = self.device.begin(&request, Asked::by(&self.way, tag)) {
            self.complete(tag, outcome);
        }
    }

    fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("held while it is a poller")
    }

    fn in_flight(&self) -> u64 {
        self.begun.get() - self.answered.get()
    }

    #[cold]
    fn stretch_ends(&self) {
        self.ends.borrow_mut().push(Instant::now());
        self.end.set(self.answered.get() + self.requests);
        self.stretches.set(self.stretches.get() - 1);
    }
}

impl Sink for Load {
    #[inline]
    fn complete(&self, tag: u64, outcome: Outcome) {
        assert!(outcome.is_ok(), "request {tag}");
        self.answered.set(self.answered.get() + 1);
    }
}

impl Poller for Load {
    #[inline]
    fn turn(&self) -> bool {
        if self.answered.get() >= self.end.get() && self.stretches.get() > 0 {
            self.stretch_ends();
        }
        if self.stretches.get() == 0 {
            self.over.notify();
            return false;
        }
        let free = self.depth - self.in_flight();
        self.begun.set(self.begun.get() + free);
        for tag in 0..free {
            self.begin(tag);
        }
        free > 0
    }

    fn publish(&self) {}

    fn arm(&self) -> bool {
        false
    }

    fn disarm(&self) {}
}
