//! LUs of a pool against a file: what thin provisioning costs. Both lie on files full of data, with
//! direct I/O, and are asked as devices, so no transport makes the difference look smaller.
//!
//! | case | each request |
//! |---|---|
//! | read, write | a block that is written and sealed |
//! | first | a block of an LU of 1 TiB that was never written; each takes an extent |
//! | after a snapshot | a block that a lower layer has |
//! | flushed | as first, with a flush after every 32 of them |
//!
//! Each pass makes a pool anew in the file, and asks that and the bare file in turn, now the one
//! first and now the other; what is there already was written a moment ago in both. The ratio is
//! the median of those of the passes: a disk that others use as well drifts more between passes
//! than within one. What the LU had done below it is counted as well.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use block::{Buffer, Device, Request};
use clap::Args;
use rt::Core;
use serde::Serialize;
use store::Store;
use volume::pool::lu::Counts;
use volume::pool::memory::{DEFAULT_BYTES, Memory};
use volume::pool::shape::Shape;

use crate::file::Filled;
use crate::numbers::{Summary, columns, short};
use crate::report::{Report, results_dir};
use crate::site::{BLOCK, DEPTH, LU_BYTES, add, fill, format, on_core, store};
use crate::{Result, cpu};

/// The part of both that steady requests go to.
const STEADY_BYTES: u64 = 512 << 20;
const FLUSH_EVERY: u64 = 32;
/// Of requests that take no space there are so many more.
const STEADY_TIMES: u64 = 8;

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// Requests of each case that is not flushed
    #[arg(long, default_value_t = 16_000)]
    requests: u64,
    /// What maps may take, in MiB
    #[arg(long, default_value_t = DEFAULT_BYTES >> 20)]
    map_memory: usize,
    /// Only this case, on the pool: for profilers
    #[arg(long)]
    case: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    Write,
    First,
    AfterSnapshot,
    Flushed,
    /// As write, and flushed.
    Rewritten,
}

struct Case {
    name: &'static str,
    bar: &'static str,
    what: What,
}

const CASES: [Case; 5] = [
    Case { name: "read", bar: "pool-read", what: What::Read },
    Case { name: "write", bar: "pool-write", what: What::Write },
    Case { name: "first write", bar: "pool-first", what: What::First },
    Case { name: "after a snapshot", bar: "pool-after-snapshot", what: What::AfterSnapshot },
    Case { name: "first, flushed", bar: "pool-first-flushed", what: What::Flushed },
];

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    file_iops: Summary,
    pool_iops: Summary,
    ratio: f64,
    /// For each 1,000 requests, in the last pass.
    counts: Counted,
}

/// What an LU has had done for each 1,000 requests.
#[derive(Clone, Copy, Default, Serialize)]
struct Counted {
    data: f64,
    journal_pages: f64,
    other_pages: f64,
    roots: f64,
    syncs: f64,
    growths: f64,
    growing_ms: f64,
    held: f64,
    holding_ms: f64,
}

impl Counted {
    fn between(before: Counts, after: Counts, requests: u64) -> Self {
        let per = |count: fn(&Counts) -> f64| {
            (count(&after) - count(&before)) * 1_000.0 / requests as f64
        };
        Self {
            data: per(|it| it.data as f64),
            journal_pages: per(|it| it.journal as f64),
            other_pages: per(|it| it.pages as f64),
            roots: per(|it| it.roots as f64),
            syncs: per(|it| it.syncs as f64),
            growths: per(|it| it.growths as f64),
            growing_ms: per(|it| it.growing.as_secs_f64() * 1_000.0),
            held: per(|it| it.held as f64),
            holding_ms: per(|it| it.holding.as_secs_f64() * 1_000.0),
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    cpu::pin_or_last(arguments.cpu)?;
    let dir = tempfile::Builder::new().prefix("pool").tempdir_in(results_dir()?)?;
    // Every first write takes an extent; three cases do so, and one only where others were.
    let extents = arguments.requests + 2 * (STEADY_BYTES / Shape::default().extent_bytes());
    let pool_bytes = 2 * STEADY_BYTES + extents * Shape::default().extent_bytes() * 5 / 4;
    let file = Filled::make(dir.path(), pool_bytes)?;
    let mut figures: Vec<Measured> = CASES.iter().map(|_| Measured::default()).collect();
    for pass in 0..arguments.passes {
        let wanted = CASES.iter().zip(&mut figures).enumerate();
        for (index, (case, measured)) in wanted {
            if arguments.case.is_some_and(|only| only != index) {
                continue;
            }
            let sides = match (arguments.case, pass % 2) {
                (Some(_), _) => &[Side::Pool][..],
                (None, 0) => &[Side::File, Side::Pool],
                (None, _) => &[Side::Pool, Side::File],
            };
            for side in sides {
                measured.ask(*side, file.path(), case.what, arguments)?;
            }
        }
    }
    if let Some(case) = arguments.case {
        println!("{}: {:?} IOPS", CASES[case].name, figures[case].pool);
        return Ok(());
    }
    judge(&figures)
}

#[derive(Clone, Copy)]
enum Side {
    File,
    Pool,
}

/// Of one case, in each pass.
#[derive(Default)]
struct Measured {
    file: Vec<f64>,
    pool: Vec<f64>,
    counts: Counted,
}

impl Measured {
    fn ask(&mut self, side: Side, path: &Path, what: What, arguments: &Arguments) -> Result<()> {
        let requests = arguments.requests;
        match side {
            Side::File => {
                self.file.push(on_core(|core| file_iops(core, path, what, requests))?);
            }
            Side::Pool => {
                let memory = Arc::new(Memory::new(arguments.map_memory << 20));
                let (iops, counts) =
                    on_core(|core| pool_iops(core, (path, memory), what, requests))?;
                self.pool.push(iops);
                self.counts = counts;
            }
        }
        Ok(())
    }
}

fn judge(measured: &[Measured]) -> Result<()> {
    let figure = |(case, measured): (&Case, &Measured)| {
        let (file_iops, pool_iops) = (Summary::of(&measured.file), Summary::of(&measured.pool));
        let ratios = measured.pool.iter().zip(&measured.file).map(|(pool, file)| pool / file);
        let ratio = Summary::of(&ratios.collect::<Vec<f64>>()).median;
        let counts = measured.counts;
        Figure { name: case.name, file_iops, pool_iops, ratio, counts }
    };
    let figures: Vec<Figure> = CASES.iter().zip(measured).map(figure).collect();
    let heads = ["", "file, IOPS", "pool, IOPS", "lowest", "highest", "× file"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for Figure { name, file_iops, pool_iops, ratio, .. } in &figures {
        let numbers = [file_iops.median, pool_iops.median, pool_iops.lowest, pool_iops.highest];
        let numbers = numbers.iter().chain([ratio]).map(|it| short(*it));
        lines.push([(*name).to_owned()].into_iter().chain(numbers).collect());
    }
    println!("{}", columns(&lines));
    println!("{}", columns(&counted(&figures)));
    let ratios: Vec<f64> = figures.iter().map(|figure| figure.ratio).collect();
    let mut report = Report::new("pool", figures);
    for (case, ratio) in CASES.iter().zip(ratios) {
        report.judge(case.bar, ratio, Vec::new());
    }
    report.finish()
}

fn counted(figures: &[Figure]) -> Vec<Vec<String>> {
    const HEADS: [&str; 9] =
        ["per 1,000", "data", "journal", "pages", "roots", "syncs", "growing", "held", "holding"];
    let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
    for Figure { name, counts, .. } in figures {
        let Counted { data, journal_pages, other_pages, roots, syncs, .. } = *counts;
        let counted = [data, journal_pages, other_pages, roots, syncs].map(short);
        let times = [
            format!("{} in {} ms", short(counts.growths), short(counts.growing_ms)),
            short(counts.held),
            format!("{} ms", short(counts.holding_ms)),
        ];
        lines.push([(*name).to_owned()].into_iter().chain(counted).chain(times).collect());
    }
    lines
}

fn file_iops(
    core: Core,
    path: &Path,
    what: What,
    requests: u64,
) -> impl Future<Output = Result<f64>> + 'static {
    let path = path.to_owned();
    async move {
        let device = store(&core, &path, None).await?.device(&core);
        if what.is_steady() {
            // As the LU's blocks are: the machine's disk is busy with them for a while.
            fill(&*device, STEADY_BYTES).await?;
        }
        load(&core, device, STEADY_BYTES, what, requests).await
    }
}

fn pool_iops(
    core: Core,
    (path, memory): (&Path, Arc<Memory>),
    what: What,
    requests: u64,
) -> impl Future<Output = Result<(f64, Counted)>> + 'static {
    let path = path.to_owned();
    async move {
        let pool = format(&core, &path, Shape::default()).await?;
        pool.keep_maps_in(memory);
        let lu = add(&core, &pool, LU_BYTES).await?;
        let device = lu.device(&core);
        let mut span = LU_BYTES;
        if what.is_steady() {
            fill(&*device, STEADY_BYTES).await?;
            span = STEADY_BYTES;
        }
        if what == What::AfterSnapshot {
            lu.snapshot([4; 16]).await?;
        }
        let before = lu.counts().await?;
        let iops = load(&core, device, span, what, requests).await?;
        let requests = what.of(requests);
        Ok((iops, Counted::between(before, lu.counts().await?, requests)))
    }
}

impl What {
    /// How many requests there are of so many.
    pub fn of(self, requests: u64) -> u64 {
        match self {
            Self::Read | Self::Write => requests * STEADY_TIMES,
            Self::First | Self::AfterSnapshot => requests,
            Self::Rewritten => requests * STEADY_TIMES / 4,
            Self::Flushed => requests / 4,
        }
    }

    /// Whether requests go to what is there already.
    fn is_steady(self) -> bool {
        !matches!(self, Self::First | Self::Flushed)
    }

    fn is_flushed(self) -> bool {
        matches!(self, Self::Flushed | Self::Rewritten)
    }
}

/// Asks so much, so many at a time, and gives requests per second.
pub async fn load(
    core: &Core,
    device: Rc<dyn Device>,
    span: u64,
    what: What,
    requests: u64,
) -> Result<f64> {
    let requests = what.of(requests);
    let begun = Rc::new(Cell::new(0_u64));
    let start = Instant::now();
    let tasks: Vec<_> = (0..DEPTH)
        .map(|_| {
            let (device, begun) = (device.clone(), begun.clone());
            core.spawn_task(async move {
                let data = Buffer::from_bytes(&[0xa5; BLOCK as usize]);
                loop {
                    let number = begun.get();
                    if number == requests {
                        return Ok(());
                    }
                    begun.set(number + 1);
                    // Scattered, and never the same twice.
                    let block = number.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1) % (span / BLOCK);
                    let at = block * BLOCK;
                    match what {
                        What::Read => device.io(&Request::read(at, data.sgl())).await?,
                        _ => device.io(&Request::write(at, data.sgl())).await?,
                    };
                    if what.is_flushed() && number % FLUSH_EVERY == 0 {
                        device.io(&Request::flush()).await?;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        let done: std::result::Result<(), block::Error> = task.await;
        done?;
    }
    Ok(requests as f64 / start.elapsed().as_secs_f64())
}
