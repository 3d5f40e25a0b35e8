//! Blocks that have rotted in one of two copies, each read once: what is given out is what the
//! other copy has, and it is written anew where it was wrong. Against the same reads of good ones.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use block::Device;
use rt::Core;
use volume::pool::home::{NewDisk, NewPool, Pool};
use volume::pool::shape::Shape;

use crate::Result;
use crate::file::Filled;
use crate::pool::{What, load};
use crate::site::{BLOCK, add, backing, fill, on_core};

const LU_BYTES: u64 = 1 << 30;
const PIECE: u64 = 1 << 20;
/// What a block holds, and what it holds when it has rotted.
const GOOD: u8 = 0x5a;
const ROTTEN: u8 = 0x3c;

/// IOPS of good blocks, and of rotten ones; so often. No block is read twice.
pub fn measure(dir: &Path, passes: usize, requests: u64) -> Result<[Vec<f64>; 2]> {
    let requests = requests.min(LU_BYTES / BLOCK / What::Read.of(1));
    let mut files = Vec::new();
    for group in ["left", "right"] {
        let dir = dir.join(group);
        std::fs::create_dir(&dir)?;
        files.push(Filled::make(&dir, LU_BYTES * 5 / 4 + (1 << 30))?);
    }
    let mut measured: [Vec<f64>; 2] = Default::default();
    for _ in 0..passes {
        let paths = files.iter().map(|file| file.path().to_owned()).collect();
        let iops = on_core(|core| pass(core, paths, requests))?;
        for (of, iops) in measured.iter_mut().zip(iops) {
            of.push(iops);
        }
    }
    Ok(measured)
}

async fn pass(core: Core, paths: Vec<PathBuf>, requests: u64) -> Result<[f64; 2]> {
    let mut disks = Vec::new();
    for (group, path) in (0..).zip(&paths) {
        let backing = backing(&core, path).await?;
        disks.push(NewDisk { backing, pv: [group as u8 + 2; 16], group });
    }
    let shape = Shape::default().with_sums();
    let pool = Pool::format(&core, NewPool { id: [1; 16], name: "bench".to_owned(), shape }, disks);
    let pool = pool.await?;
    let device: Rc<dyn Device> = add(&core, &pool, LU_BYTES).await?.device(&core);
    fill(&*device, LU_BYTES).await?;
    let good = load(&core, device.clone(), LU_BYTES, What::Read, requests).await?;
    // What an earlier pass has left where this one has nothing counts before and behind.
    let all = change(&paths[0], ROTTEN, ROTTEN)? + change(&paths[0], GOOD, ROTTEN)?;
    let mended = load(&core, device, LU_BYTES, What::Read, requests).await?;
    let left = change(&paths[0], ROTTEN, ROTTEN)?;
    let (mended_blocks, read) = (all - left, What::Read.of(requests));
    match mended_blocks == read {
        true => Ok([good, mended]),
        false => Err(format!("{mended_blocks} of {read} blocks were mended").into()),
    }
}

/// Blocks of a file that hold one thing hold another one. Gives how many.
fn change(path: &Path, from: u8, to: u8) -> Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    let (mut piece, mut changed) = (vec![0; PIECE as usize], 0);
    for at in (0..file.metadata()?.len()).step_by(PIECE as usize) {
        file.read_exact_at(&mut piece, at)?;
        let before = changed;
        for block in piece.chunks_exact_mut(BLOCK as usize) {
            if block.iter().all(|byte| *byte == from) {
                block.fill(to);
                changed += 1;
            }
        }
        if changed > before && from != to {
            file.write_all_at(&piece, at)?;
        }
    }
    file.sync_all()?;
    // The next one who reads or writes directly does not have to throw out what is cached.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(changed)
}
