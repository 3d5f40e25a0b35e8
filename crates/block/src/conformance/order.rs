//! What is promised of requests in flight together, and of a power loss.

use std::rc::Rc;

use super::Boxed;
use super::kit::{
    Context, End, Lu, Random, Verdict, all, elsewhere, ensure, ensure_bytes, ensure_eq, read,
    stamp_of, stamped, write, write_as, yield_now,
};
use crate::device::Device;
use crate::request::{Op, Request};

const BLOCKS: u64 = 32;
const WRITERS: u64 = 8;
const ROUNDS: u64 = 40;

/// Writes that overlap, all in flight at once; each says its own number in every word.
async fn round_of_writes(device: &dyn Device, block: u64, first: u64, seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let writes = (0..WRITERS).map(|writer| {
        let len = random.below(BLOCKS / 2) + 1;
        let offset = random.below(BLOCKS - len + 1) * block;
        let bytes = stamped(first + writer, len * block);
        Box::pin(async move { write(device, offset, &bytes).await }) as Boxed<'_, Verdict>
    });
    all(writes.collect()).await
}

/// Which writers of a round covered each block.
fn covered(seed: u64) -> Vec<Vec<u64>> {
    let mut random = Random::new(seed);
    let mut blocks = vec![Vec::new(); BLOCKS as usize];
    for writer in 0..WRITERS {
        let len = random.below(BLOCKS / 2) + 1;
        let first = random.below(BLOCKS - len + 1);
        for block in &mut blocks[first as usize..(first + len) as usize] {
            block.push(writer);
        }
    }
    blocks
}

pub(super) async fn overlapping_writes(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let mut before = vec![0; BLOCKS as usize];
    for round in 0..ROUNDS {
        let first = (round + 1) * 100;
        round_of_writes(&*lu.device, lu.block, first, round).await?;
        let bytes = lu.read(0, BLOCKS * lu.block).await?;
        let blocks = bytes.chunks(lu.block as usize).zip(covered(round));
        for (at, (block, writers)) in blocks.enumerate() {
            let stamp = stamp_of(block);
            ensure!(stamp.is_some(), "block {at} is a mix of two writes");
            let stamp = stamp.unwrap_or_default();
            let written = writers.iter().any(|writer| first + writer == stamp);
            let kept = writers.is_empty() && stamp == before[at];
            ensure!(written || kept, "block {at} says {stamp}, in round {round}");
            before[at] = stamp;
        }
    }
    Ok(())
}

pub(super) async fn overlapping_elsewhere(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let block = lu.block;
    for stretch in 0..ROUNDS {
        let rounds = stretch * 4..stretch * 4 + 4;
        let theirs = rounds.clone();
        let there = elsewhere(&lu, move |device| async move {
            for round in theirs {
                round_of_writes(&*device, block, 1_000_000 + round * 100, round).await?;
            }
            Ok(())
        })?;
        let here = async {
            for round in rounds {
                round_of_writes(&*lu.device, block, 2_000_000 + round * 100, !round).await?;
                yield_now().await;
            }
            Ok(())
        };
        all(vec![there, Box::pin(here)]).await?;
        let bytes = lu.read(0, BLOCKS * block).await?;
        for (at, bytes) in bytes.chunks(block as usize).enumerate() {
            ensure!(stamp_of(bytes).is_some(), "block {at} is a mix, in stretch {stretch}");
        }
    }
    Ok(())
}

/// Each task owns every `step`-th block from `first` on, writes it and looks at it again.
async fn owners(device: Rc<dyn Device>, block: u64, first: u64, step: u64) -> Verdict {
    let device = &*device;
    let tasks = (first..BLOCKS).step_by(step as usize).map(|at| {
        Box::pin(async move {
            for round in 0..ROUNDS {
                let bytes = stamped(round * BLOCKS + at, block);
                write(device, at * block, &bytes).await?;
                let found = read(device, at * block, block).await?;
                ensure_bytes(&found, &bytes, &format!("own block {at} in round {round}"))?;
                yield_now().await;
            }
            Ok(())
        }) as Boxed<'_, Verdict>
    });
    all(tasks.collect()).await
}

pub(super) async fn neighbours(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    owners(lu.device.clone(), lu.block, 0, 1).await
}

pub(super) async fn neighbours_elsewhere(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let block = lu.block;
    let there = elsewhere(&lu, move |device| owners(device, block, 1, 2))?;
    all(vec![there, Box::pin(owners(lu.device.clone(), block, 0, 2))]).await
}

pub(super) async fn flush_under_load(c: &Context<'_>) -> Verdict {
    let lu = c.make(BLOCKS).await?;
    let lu = &lu;
    let flush = || {
        Box::pin(async move { ensure_eq(lu.device.io(&Request::flush()).await, Ok(0), "flush") })
    };
    let write = |at: u64| {
        Box::pin(async move { lu.write(at * lu.block, &stamped(at, lu.block)).await })
            as Boxed<'_, Verdict>
    };
    flush().await?;
    for _ in 0..8 {
        let mut parts: Vec<Boxed<'_, Verdict>> = (0..BLOCKS).map(write).collect();
        parts.insert(7, flush());
        parts.push(flush());
        all(parts).await?;
    }
    flush().await
}

pub(super) async fn power_cut(c: &Context<'_>) -> Verdict {
    const ROUNDS: u64 = 12;
    let mut lu = c.make_kept(BLOCKS).await?;
    let fua = Op::Write { fua: true, atomic: false };
    for round in 1..=ROUNDS {
        let stamp = |what: u64| stamped(round * 10 + what, lu.block);
        let old = lu.read(6 * lu.block, lu.block).await?;
        lu.write(0, &stamp(1)).await?;
        lu.write(3 * lu.block, &stamp(2)).await?;
        ensure_eq(lu.device.io(&Request::flush()).await, Ok(0), "flush")?;
        write_as(&*lu.device, fua, lu.block, &stamp(3)).await?;
        lu.write(6 * lu.block, &stamp(4)).await?;
        let cut = lu.subject.power_cut().ok_or(End::Skipped("has no power to cut"))?;
        cut.await;
        let device = lu.subject.device();
        survived(&*device, lu.block, 0, &[stamp(1)], "flushed").await?;
        survived(&*device, lu.block, 3, &[stamp(2)], "flushed").await?;
        survived(&*device, lu.block, 1, &[stamp(3)], "written with FUA").await?;
        let either = [old, stamp(4)];
        survived(&*device, lu.block, 6, &either, "neither flushed nor lost in part").await?;
        lu = Lu { device, ..lu };
    }
    Ok(())
}

async fn survived(
    device: &dyn Device,
    block: u64,
    at: u64,
    any: &[Vec<u8>],
    what: &str,
) -> Verdict {
    let found = read(device, at * block, block).await?;
    ensure!(any.contains(&found), "block {at}, {what}, is gone after a power cut");
    Ok(())
}
