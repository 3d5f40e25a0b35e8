//! Memory for maps: how much an LU of 1 TiB takes when its map is far larger than what a node may
//! keep of it. On a sparse file, with one block written wherever a page of the map shall say
//! something: pages have one size, whatever they say.
//!
//! | case | written | its map |
//! |---|---|---|
//! | all | 4 blocks in what each page speaks of | 25,000 pages |
//! | half | half as many blocks, at random | 22,000 pages |
//! | snapshots | as all, then 10 times a snapshot and blocks at random | 125,000 pages |
//!
//! Behind each come reads at random. What is counted is looked at after each request; what the
//! process has is private memory, above what it had when the LU was open and empty. Each case runs
//! in a process of its own.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use block::{Buffer, Device, Request};
use clap::Args;
use rt::Core;
use serde::{Deserialize, Serialize};
use volume::pool::lu::Lu;
use volume::pool::map::Form;
use volume::pool::memory::{DEFAULT_BYTES, Memory};
use volume::pool::shape::Shape;

use crate::numbers::{columns, short};
use crate::report::{Report, results_dir};
use crate::site::{BLOCK, DEPTH, LU_BYTES, add, format, on_core};
use crate::{Result, cpu, procfs};

/// Apparent size of the file: everything that is written takes an extent of its own.
const FILE_BYTES: u64 = 1 << 40;
pub const BLOCKS_PER_PAGE: u64 = 4;
const SNAPSHOTS: u8 = 10;
const READS: u64 = 20_000;
/// Requests before the memory of the process is looked at again.
const LOOK_EVERY: u64 = 500;
const MIB: f64 = (1 << 20) as f64;

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    /// What maps may take, in MiB
    #[arg(long, default_value_t = DEFAULT_BYTES >> 20)]
    map_memory: usize,
    /// Only this case, in this process: its figures as JSON
    #[arg(long, hide = true)]
    case: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    All,
    Half,
    Snapshots,
}

struct Case {
    name: &'static str,
    bar: &'static str,
    what: What,
}

const CASES: [Case; 3] = [
    Case { name: "all written", bar: "pool-memory-all", what: What::All },
    Case { name: "half written", bar: "pool-memory-half", what: What::Half },
    Case { name: "10 snapshots", bar: "pool-memory-snapshots", what: What::Snapshots },
];

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Figure {
    /// The most that was counted, in MiB.
    counted: f64,
    /// The most that the process had more than at the beginning.
    resident: f64,
    /// Pages of maps: read, let go, and written to disk.
    loads: u64,
    let_go: u64,
    pages: u64,
    write_iops: f64,
    read_iops: f64,
}

/// What is seen while a load runs.
#[derive(Default)]
struct Seen {
    counted: Cell<usize>,
    resident: Cell<u64>,
    requests: Cell<u64>,
}

impl Seen {
    fn look(&self, memory: &Memory) -> Result<()> {
        self.counted.set(self.counted.get().max(memory.used()));
        let requests = self.requests.replace(self.requests.get() + 1);
        if requests.is_multiple_of(LOOK_EVERY) {
            let resident = procfs::rss_anon_bytes(std::process::id())?;
            self.resident.set(self.resident.get().max(resident));
        }
        Ok(())
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let limit = arguments.map_memory << 20;
    if let Some(case) = arguments.case {
        cpu::pin_or_last(arguments.cpu)?;
        let what = CASES.get(case).ok_or("there is no such case")?.what;
        let dir = tempfile::Builder::new().prefix("pool").tempdir_in(results_dir()?)?;
        let path = dir.path().join("disk.img");
        std::fs::File::create(&path)?.set_len(FILE_BYTES)?;
        let figure = on_core(|core| measure(core, &path, what, limit))?;
        println!("{}", serde_json::to_string(&figure)?);
        return Ok(());
    }
    let mut figures = Vec::new();
    for case in 0..CASES.len() {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pool-memory", "--case", &case.to_string()]);
        command.args(["--map-memory", &arguments.map_memory.to_string()]);
        if let Some(cpu) = arguments.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let output = command.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        figures.push(serde_json::from_slice(&output.stdout)?);
    }
    judge(figures)
}

fn judge(figures: Vec<Figure>) -> Result<()> {
    let heads = ["", "counted, MiB", "resident, MiB", "read", "let go", "written", "w/s", "r/s"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for (case, figure) in CASES.iter().zip(&figures) {
        let Figure { counted, resident, loads, let_go, pages, write_iops, read_iops } = *figure;
        let counts = [loads, let_go, pages].map(|count| count as f64);
        let numbers = [counted, resident].into_iter().chain(counts).chain([write_iops, read_iops]);
        lines.push([case.name.to_owned()].into_iter().chain(numbers.map(short)).collect());
    }
    println!("{}", columns(&lines));
    let counted: Vec<f64> = figures.iter().map(|figure| figure.counted).collect();
    let mut report = Report::new("pool-memory", figures);
    for (case, counted) in CASES.iter().zip(counted) {
        report.judge(case.bar, counted, Vec::new());
    }
    report.finish()
}

fn measure(
    core: Core,
    path: &Path,
    what: What,
    limit: usize,
) -> impl Future<Output = Result<Figure>> + 'static {
    let path = path.to_owned();
    async move {
        let pool = format(&core, &path, Shape::default()).await?;
        let memory = Arc::new(Memory::new(limit));
        pool.keep_maps_in(memory.clone());
        let lu = add(&core, &pool, LU_BYTES).await?;
        let load =
            Load { core: core.clone(), device: lu.device(&core), memory, seen: Rc::default() };
        let before = procfs::rss_anon_bytes(std::process::id())?;
        let write_iops = fill(&lu, &load, what).await?;
        let read_iops = load.run(READS, true, at_random).await?;
        let (counts, seen) = (lu.counts().await?, &load.seen);
        let figure = Figure {
            counted: seen.counted.get() as f64 / MIB,
            resident: seen.resident.get().saturating_sub(before) as f64 / MIB,
            loads: counts.loads,
            let_go: counts.let_go,
            pages: counts.pages,
            write_iops,
            read_iops,
        };
        drop(load);
        lu.close().await;
        Ok(figure)
    }
}

/// Blocks that a page of the map speaks of.
pub fn page_blocks() -> u64 {
    let shape = Shape::default();
    Form::new(shape).extents() * shape.blocks_per_extent()
}

pub fn pages() -> u64 {
    (LU_BYTES / BLOCK).div_ceil(page_blocks())
}

/// All over the LU, and seldom the same.
pub fn at_random(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1).rotate_left(32) % (LU_BYTES / BLOCK)
}

/// So many blocks for each page, evenly.
pub fn evenly(number: u64) -> u64 {
    (number * (page_blocks() / BLOCKS_PER_PAGE)).min(LU_BYTES / BLOCK - 1)
}

/// Writes what the case wants, and gives writes per second.
async fn fill(lu: &Arc<Lu>, load: &Load, what: What) -> Result<f64> {
    if what == What::Half {
        return load.run(pages() * BLOCKS_PER_PAGE / 2, false, at_random).await;
    }
    let mut iops = load.run(pages() * BLOCKS_PER_PAGE, false, evenly).await?;
    if what == What::Snapshots {
        for snapshot in 0..SNAPSHOTS {
            lu.snapshot([10 + snapshot; 16]).await?;
            iops = load.run(pages() / 2, false, at_random).await?;
        }
    }
    Ok(iops)
}

struct Load {
    core: Core,
    device: Rc<dyn Device>,
    memory: Arc<Memory>,
    seen: Rc<Seen>,
}

impl Load {
    /// Asks for so many blocks, many at a time, and gives requests per second.
    async fn run(&self, requests: u64, reads: bool, which: fn(u64) -> u64) -> Result<f64> {
        let (begun, start) = (Rc::new(Cell::new(0)), Instant::now());
        let one = |_| {
            let (device, begun) = (self.device.clone(), begun.clone());
            let (memory, seen) = (self.memory.clone(), self.seen.clone());
            self.core.spawn_task(async move {
                let data = Buffer::from_bytes(&[0xa5; BLOCK as usize]);
                while begun.get() < requests {
                    let at = which(begun.replace(begun.get() + 1)) * BLOCK;
                    match reads {
                        true => device.io(&Request::read(at, data.sgl())).await?,
                        false => device.io(&Request::write(at, data.sgl())).await?,
                    };
                    seen.look(&memory)?;
                }
                Result::<()>::Ok(())
            })
        };
        let tasks: Vec<_> = (0..DEPTH).map(one).collect();
        for task in tasks {
            task.await?;
        }
        Ok(requests as f64 / start.elapsed().as_secs_f64())
    }
}
