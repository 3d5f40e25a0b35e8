//! What checksums cost: an LU of a pool that keeps them against one of a pool that does not, both
//! on the same file full of data, asked as devices.
//!
//! | case | each request |
//! |---|---|
//! | read, write | a block of the hot set |
//! | flushed | as write, with a flush after every 32 of them |
//! | first, flushed | a block of an LU of 1 TiB that was never written, flushed likewise |
//!
//! Each pass asks both in turn, every region of the hot set having been written to before. Ratios
//! are of the medians. In the end blocks are read that have rotted in one of two copies: see
//! `pool_mended`.

use std::borrow::Borrow;
use std::path::Path;
use std::rc::Rc;

use block::{Buffer, Device, Request};
use clap::Args;
use rt::Core;
use serde::Serialize;
use volume::pool::shape::Shape;

use crate::file::Filled;
use crate::numbers::{Summary, columns, short};
use crate::pool::{What, load};
use crate::pool_mended;
use crate::report::{Report, results_dir};
use crate::site::{BLOCK, LU_BYTES, add, fill, format, on_core};
use crate::{Result, cpu};

const REGION_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// Requests of each case that is not flushed
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
    /// The hot set, in MiB
    #[arg(long, default_value_t = 4096)]
    hot: u64,
}

struct Case {
    name: &'static str,
    bar: Option<&'static str>,
    what: What,
}

const CASES: [Case; 4] = [
    Case { name: "read", bar: None, what: What::Read },
    Case { name: "write", bar: None, what: What::Write },
    Case { name: "flushed", bar: Some("pool-sums-flushed"), what: What::Rewritten },
    Case { name: "first, flushed", bar: None, what: What::Flushed },
];

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    peer_iops: Summary,
    iops: Summary,
    ratio: f64,
}

impl Figure {
    fn of(name: &'static str, [peer, ours]: &[Vec<f64>; 2]) -> Self {
        let (peer_iops, iops) = (Summary::of(peer), Summary::of(ours));
        Self { name, ratio: iops.median / peer_iops.median, peer_iops, iops }
    }

    fn line(&self) -> Vec<String> {
        let Self { name, peer_iops, iops, ratio } = self;
        let numbers = [peer_iops.median, iops.median, iops.lowest, iops.highest, *ratio];
        [(*name).to_owned()].into_iter().chain(numbers.map(short)).collect()
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    cpu::pin_or_last(arguments.cpu)?;
    let dir = tempfile::Builder::new().prefix("pool-sums").tempdir_in(results_dir()?)?;
    let hot = arguments.hot << 20;
    // Every first write takes an extent.
    let firsts = What::Flushed.of(arguments.requests) * Shape::default().extent_bytes();
    let file = Filled::make(dir.path(), (hot + firsts) * 5 / 4 + (1 << 30))?;
    let mut measured: Vec<[Vec<f64>; 2]> = CASES.iter().map(|_| Default::default()).collect();
    for _ in 0..arguments.passes {
        for has_sums in [false, true] {
            let path = file.path();
            let all = on_core(|core| pass(core, path, has_sums, (hot, arguments.requests)))?;
            for (of, iops) in measured.iter_mut().zip(all) {
                of[usize::from(has_sums)].push(iops);
            }
        }
    }
    let requests = arguments.requests;
    judge(&measured, &pool_mended::measure(dir.path(), arguments.passes, requests)?)
}

/// The figures of all cases, in a pool that is made for them.
fn pass(
    core: Core,
    path: &Path,
    has_sums: bool,
    (hot, requests): (u64, u64),
) -> impl Future<Output = Result<Vec<f64>>> + 'static {
    let path = path.to_owned();
    async move {
        let plain = Shape::default();
        let shape = if has_sums { plain.with_sums() } else { plain };
        let pool = format(&core, &path, shape).await?;
        // The hot one, and one where nothing was written.
        let devices = [add(&core, &pool, LU_BYTES).await?, add(&core, &pool, LU_BYTES).await?];
        let devices = devices.map(|lu| lu.device(&core));
        warm_up(&*devices[0], hot).await?;
        let mut all = Vec::new();
        for Case { what, .. } in CASES {
            let (device, span): (Rc<dyn Device>, u64) = match what {
                What::Flushed => (devices[1].clone(), LU_BYTES),
                _ => (devices[0].clone(), hot),
            };
            all.push(load(&core, device, span, what, requests).await?);
        }
        Ok(all)
    }
}

/// Writes the hot set, and once more into each region of it.
async fn warm_up(device: &dyn Device, hot: u64) -> Result<()> {
    fill(device, hot).await?;
    let data = Buffer::from_bytes(&[0x3c; BLOCK as usize]);
    for at in (0..hot).step_by(REGION_BYTES as usize) {
        device.io(&Request::write(at, data.sgl())).await?;
    }
    device.io(&Request::flush()).await?;
    Ok(())
}

fn judge(measured: &[[Vec<f64>; 2]], mended: &[Vec<f64>; 2]) -> Result<()> {
    let figures = CASES.iter().zip(measured).map(|(case, both)| Figure::of(case.name, both));
    let mut figures: Vec<Figure> = figures.collect();
    print(["", "off, IOPS", "on, IOPS", "lowest", "highest", "× off"], &figures);
    let mended = Figure::of("read and mended", mended);
    print(["", "good, IOPS", "rotten, IOPS", "lowest", "highest", "× good"], &[&mended]);
    let ratios: Vec<f64> = figures.iter().map(|figure| figure.ratio).collect();
    figures.push(mended);
    let mut report = Report::new("pool-sums", figures);
    for (case, ratio) in CASES.iter().zip(ratios) {
        if let Some(bar) = case.bar {
            report.judge(bar, ratio, Vec::new());
        }
    }
    report.finish()
}

fn print(heads: [&str; 6], figures: &[impl Borrow<Figure>]) {
    let heads = heads.map(str::to_owned).to_vec();
    let lines = figures.iter().map(|figure| figure.borrow().line());
    println!("{}", columns(&[heads].into_iter().chain(lines).collect::<Vec<_>>()));
}
