//! What a snapshot of an LU of 1 TiB costs those who use it: how long it takes, the slowest request
//! that was under way meanwhile, and the slowest one of some time behind it, against as much time
//! without. On a sparse file, with something written wherever a page of the map says something,
//! under reads and writes at random.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{Buffer, Device, Request};
use clap::Args;
use rt::Core;
use serde::Serialize;
use volume::pool::memory::{DEFAULT_BYTES, Memory};
use volume::pool::shape::Shape;

use crate::numbers::{Summary, columns, short};
use crate::pool_memory::{BLOCKS_PER_PAGE, at_random, evenly, pages};
use crate::report::{Report, results_dir};
use crate::site::{BLOCK, DEPTH, LU_BYTES, add, for_each, format, on_core};
use crate::{Result, cpu};

/// How long requests are looked at, with a snapshot at the beginning and without.
const WINDOW: Duration = Duration::from_millis(300);

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long, default_value_t = 10)]
    snapshots: u8,
    /// What maps may take, in MiB
    #[arg(long, default_value_t = DEFAULT_BYTES >> 20)]
    map_memory: usize,
}

#[derive(Serialize)]
struct Figure {
    snapshot_ms: Summary,
    /// The slowest request that was under way during each.
    meanwhile_ms: Summary,
    /// The slowest request of each window.
    with_ms: Summary,
    without_ms: Summary,
    requests_per_s: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    cpu::pin_or_last(arguments.cpu)?;
    let dir = tempfile::Builder::new().prefix("pool").tempdir_in(results_dir()?)?;
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path)?.set_len(LU_BYTES)?;
    let (snapshots, memory) = (arguments.snapshots, Memory::new(arguments.map_memory << 20));
    let figure = on_core(|core| measure(core, &path, snapshots, memory))?;
    let heads = ["", "median, ms", "highest, ms"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for (name, of) in [
        ("snapshot", &figure.snapshot_ms),
        ("slowest request meanwhile", &figure.meanwhile_ms),
        ("slowest request until 0.3 s later", &figure.with_ms),
        ("slowest request in 0.3 s without", &figure.without_ms),
    ] {
        lines.push(vec![name.to_owned(), short(of.median), short(of.highest)]);
    }
    println!("{}", columns(&lines));
    println!("{} requests/s", short(figure.requests_per_s));
    let slowest = [figure.snapshot_ms.highest, figure.meanwhile_ms.highest];
    let mut report = Report::new("pool-snapshot", figure);
    for (bar, slowest) in ["pool-snapshot", "pool-snapshot-requests"].into_iter().zip(slowest) {
        report.judge(bar, slowest, Vec::new());
    }
    report.finish()
}

/// A load that goes on, and the slowest of its requests since somebody looked.
#[derive(Default)]
struct Load {
    slowest: Cell<Duration>,
    /// Whether the last snapshot is over; and the slowest request that has begun before it was.
    snapshot: Cell<Option<bool>>,
    meanwhile: Cell<Duration>,
    begun: Cell<u64>,
    is_over: Cell<bool>,
    failed: RefCell<Option<block::Error>>,
}

impl Load {
    async fn run(self: Rc<Self>, device: Rc<dyn Device>) {
        let data = Buffer::from_bytes(&[0xa5; BLOCK as usize]);
        while !self.is_over.get() {
            let number = self.begun.replace(self.begun.get() + 1);
            let (at, start) = (at_random(number) * BLOCK, Instant::now());
            let is_behind = self.snapshot.get().is_some_and(|is_over| is_over);
            let done = match number % 2 {
                0 => device.io(&Request::read(at, data.sgl())).await,
                _ => device.io(&Request::write(at, data.sgl())).await,
            };
            let took = start.elapsed();
            self.slowest.set(self.slowest.get().max(took));
            if !is_behind && self.snapshot.get().is_some() {
                self.meanwhile.set(self.meanwhile.get().max(took));
            }
            if let Err(error) = done {
                self.failed.replace(Some(error));
                return;
            }
        }
    }

    /// The slowest request of a window, in milliseconds.
    async fn window(&self, core: &Core) -> f64 {
        core.sleep(WINDOW).await;
        ms(self.slowest.take())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn measure(
    core: Core,
    path: &Path,
    snapshots: u8,
    memory: Memory,
) -> impl Future<Output = Result<Figure>> + 'static {
    let path = path.to_owned();
    async move {
        let pool = format(&core, &path, Shape::default()).await?;
        pool.keep_maps_in(Arc::new(memory));
        let lu = add(&core, &pool, LU_BYTES).await?;
        let device = lu.device(&core);
        write_pages(&core, &device).await?;
        let load = Rc::new(Load::default());
        let start = Instant::now();
        let run = |_| core.spawn_task(load.clone().run(device.clone()));
        let tasks: Vec<_> = (0..DEPTH).map(run).collect();
        load.window(&core).await;
        let (mut taken, mut meanwhile) = (Vec::new(), Vec::new());
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for number in 0..snapshots {
            without.push(load.window(&core).await);
            let begun = Instant::now();
            load.snapshot.set(Some(false));
            lu.snapshot([10 + number; 16]).await?;
            taken.push(ms(begun.elapsed()));
            load.snapshot.set(Some(true));
            with.push(load.window(&core).await);
            meanwhile.push(ms(load.meanwhile.take()));
            load.snapshot.set(None);
        }
        let requests_per_s = load.begun.get() as f64 / start.elapsed().as_secs_f64();
        load.is_over.set(true);
        for task in tasks {
            task.await;
        }
        if let Some(error) = load.failed.take() {
            return Err(error.into());
        }
        drop(device);
        lu.close().await;
        Ok(Figure {
            snapshot_ms: Summary::of(&taken),
            meanwhile_ms: Summary::of(&meanwhile),
            with_ms: Summary::of(&with),
            without_ms: Summary::of(&without),
            requests_per_s,
        })
    }
}

/// Something wherever a page of the map says something.
async fn write_pages(core: &Core, device: &Rc<dyn Device>) -> Result<()> {
    let writer = device.clone();
    for_each(core, pages() * BLOCKS_PER_PAGE, move |number| {
        let device = writer.clone();
        async move {
            let data = Buffer::from_bytes(&[0xa5; BLOCK as usize]);
            device.io(&Request::write(evenly(number) * BLOCK, data.sgl())).await?;
            Ok(())
        }
    })
    .await?;
    device.io(&Request::flush()).await?;
    Ok(())
}
