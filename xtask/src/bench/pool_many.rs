//! Many LUs of which each was written to when their server was killed: how long it takes until the
//! first read of each is answered. A process makes them and is killed; this one opens the pool, on
//! a sparse file, and every LU, as a node does that starts, some at a time.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{Buffer, Request};
use clap::Args;
use rt::Core;
use serde::Serialize;
use volume::pool::home::Pool;
use volume::pool::lu::Lu;
use volume::pool::shape::Shape;

use crate::numbers::{columns, short};
use crate::report::{Report, results_dir};
use crate::site::{BLOCK, add_as, backing, for_each, format, on_core};
use crate::{Result, cpu};

const SLAB_BYTES: u64 = 4 << 20;
const EXTENT_BYTES: u64 = 64 << 10;
const SIZE: u64 = 1 << 30;
/// Says that all LUs were written to.
const READY: &str = "ready";

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long, default_value_t = 10_000)]
    lus: u32,
    /// Make them here, in this process, and wait to be killed
    #[arg(long, hide = true)]
    make: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figure {
    lus: u32,
    pool_s: f64,
    first_s: f64,
    all_s: f64,
    /// Of all LUs together.
    syncs: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    cpu::pin_or_last(arguments.cpu)?;
    let lus = arguments.lus;
    if let Some(path) = &arguments.make {
        return on_core(|core| make(core, path, lus));
    }
    let dir = tempfile::Builder::new().prefix("pool").tempdir_in(results_dir()?)?;
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path)?.set_len((u64::from(lus) * 2 + 64) * SLAB_BYTES)?;
    have_made(&path, lus)?;
    let figure = on_core(|core| measure(core, &path, lus))?;
    let heads = ["", "seconds"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for (name, seconds) in [
        ("the pool is open", figure.pool_s),
        ("the first LU is read", figure.first_s),
        ("all are read", figure.all_s),
    ] {
        lines.push(vec![name.to_owned(), short(seconds)]);
    }
    println!("{}", columns(&lines));
    println!("{lus} LUs, {} syncs by their owners", figure.syncs);
    let times = [figure.first_s, figure.all_s];
    let mut report = Report::new("pool-many", figure);
    for (bar, seconds) in ["pool-many-first", "pool-many-all"].into_iter().zip(times) {
        report.judge(bar, seconds, Vec::new());
    }
    report.finish()
}

/// Has another process make the LUs, and kills it.
fn have_made(path: &Path, lus: u32) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["pool-many", "--lus", &lus.to_string(), "--make"]).arg(path);
    let mut maker = command.stdout(Stdio::piped()).spawn()?;
    let output = maker.stdout.take().ok_or("it has no output")?;
    let is_ready = BufReader::new(output).lines().any(|line| line.is_ok_and(|line| line == READY));
    maker.kill()?;
    maker.wait()?;
    if is_ready { Ok(()) } else { Err("the LUs could not be made".into()) }
}

fn id_of(lu: u64) -> [u8; 16] {
    (u128::from(lu) + 1).to_le_bytes()
}

fn make(core: Core, path: &Path, lus: u32) -> impl Future<Output = Result<()>> + 'static {
    let path = path.to_owned();
    async move {
        let pool = format(&core, &path, Shape::new(SLAB_BYTES, EXTENT_BYTES)?).await?;
        let kept: Rc<RefCell<Vec<Arc<Lu>>>> = Rc::default();
        let (of_core, keep) = (core.clone(), kept.clone());
        for_each(&core, lus.into(), move |lu| {
            let (core, pool, kept) = (of_core.clone(), pool.clone(), keep.clone());
            async move {
                let opened = add_as(&core, &pool, id_of(lu), SIZE).await?;
                let data = Buffer::from_bytes(&[lu as u8 | 1; BLOCK as usize]);
                opened.device(&core).io(&Request::write(0, data.sgl())).await?;
                kept.borrow_mut().push(opened);
                Ok(())
            }
        })
        .await?;
        println!("{READY}");
        loop {
            core.sleep(Duration::from_secs(60)).await;
        }
    }
}

fn measure(core: Core, path: &Path, lus: u32) -> impl Future<Output = Result<Figure>> + 'static {
    let path = path.to_owned();
    async move {
        let start = Instant::now();
        let pool = Pool::find(&core, vec![backing(&core, &path).await?]).await?.open(0).await?;
        let pool_s = start.elapsed().as_secs_f64();
        let (first, syncs) = (Rc::new(Cell::new(0.0)), Rc::new(Cell::new(0)));
        let (of_core, of_first, of_syncs) = (core.clone(), first.clone(), syncs.clone());
        for_each(&core, lus.into(), move |lu| {
            let (core, pool) = (of_core.clone(), pool.clone());
            let (first, syncs) = (of_first.clone(), of_syncs.clone());
            async move {
                let opened = Lu::open(&core, pool.seat(id_of(lu))?).await?;
                let into = Buffer::zeroed(BLOCK as usize);
                opened.device(&core).io(&Request::read(0, into.sgl())).await?;
                if first.get() == 0.0 {
                    first.set(start.elapsed().as_secs_f64());
                }
                if into.to_vec().iter().any(|byte| *byte != lu as u8 | 1) {
                    return Err(format!("LU {lu} has lost its block").into());
                }
                syncs.set(syncs.get() + opened.counts().await?.syncs);
                Ok(())
            }
        })
        .await?;
        let all_s = start.elapsed().as_secs_f64();
        Ok(Figure { lus, pool_s, first_s: first.get(), all_s, syncs: syncs.get() })
    }
}
