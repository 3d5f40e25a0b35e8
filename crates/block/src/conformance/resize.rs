//! A size that changes: who is told, what stays, and what lies in new space.

use std::cell::Cell;

use super::kit::{
    Context, End, Lu, Random, Verdict, all, elsewhere as on_another_core, ensure, ensure_bytes,
    ensure_eq, kind, outcome_of, poll_and_drop, stamped, yield_now,
};
use crate::error::ErrorKind;
use crate::mem::Buffer;
use crate::request::{Op, Request};

const BLOCKS: u64 = 512;

async fn to(lu: &Lu, blocks: u64) -> Verdict {
    let size = blocks * lu.block;
    let resized = lu.subject.resize(size).ok_or(End::Skipped("has one size for ever"))?;
    ensure_eq(resized.await, Ok(()), &format!("resize to {size}"))?;
    ensure_eq(lu.device.geometry().size, size, "size after resize")
}

pub(super) async fn resize(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let bytes = Random::new(7).bytes(BLOCKS * lu.block);
    lu.write(0, &bytes).await?;
    for (blocks, kept) in [(BLOCKS * 2, BLOCKS), (BLOCKS - 3, BLOCKS - 3), (BLOCKS, BLOCKS - 3)] {
        let watch = lu.device.watch();
        let seen = watch.version();
        ensure!(poll_and_drop(watch.changed(seen)).is_none(), "the watch fires for nothing");
        to(&lu, blocks).await?;
        ensure!(watch.version() != seen, "nobody is told of a new size");
        ensure!(poll_and_drop(watch.changed(seen)).is_some(), "the watch does not fire");
        let size = blocks * lu.block;
        let mut wanted = bytes[..(kept * lu.block) as usize].to_vec();
        wanted.resize(size as usize, 0);
        ensure_bytes(&lu.read(0, size).await?, &wanted, &format!("at a size of {size}"))?;
        let end = size - lu.block;
        for op in [Op::Read, Op::Write { fua: false, atomic: false }] {
            let outcome = outcome_of(&*lu.device, op, size, lu.block).await;
            ensure_eq(kind(&outcome), Some(ErrorKind::OutOfRange), "beyond the new end")?;
        }
        lu.write(end, &wanted[end as usize..]).await?;
    }
    Ok(())
}

/// Every handle has the new size when the resize is answered.
pub(super) async fn elsewhere(c: &Context<'_>) -> Verdict {
    let lu = c.make(BLOCKS).await?;
    for blocks in [BLOCKS * 2, BLOCKS / 2, BLOCKS * 3] {
        to(&lu, blocks).await?;
        let size = blocks * lu.block;
        on_another_core(&lu, move |device| async move {
            ensure_eq(device.geometry().size, size, "size on another core")
        })?
        .await?;
    }
    Ok(())
}

pub(super) async fn under_load(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let (lu, busy) = (&lu, &Cell::new(true));
    let quarter = BLOCKS / 4;
    // Keeps to what is always there: nothing of it may be lost.
    let load = |task: u64| async move {
        let mut round = 0;
        while busy.get() {
            let at = (round * 7 + task * 13) % (quarter / 8) + task * (quarter / 8);
            let bytes = stamped(round << 8 | task, lu.block);
            lu.write(at * lu.block, &bytes).await?;
            let found = lu.read(at * lu.block, lu.block).await?;
            ensure_bytes(&found, &bytes, "written while the size changed")?;
            round += 1;
            yield_now().await;
        }
        Ok(())
    };
    // Looks at what comes and goes: it is there or beyond the end, and never an error of the
    // medium.
    let tail = |seed: u64| async move {
        let mut random = Random::new(seed);
        while busy.get() {
            let buffer = Buffer::zeroed(4 * lu.block as usize);
            let offset = (quarter + random.below(BLOCKS)) * lu.block;
            let request = match random.below(2) {
                0 => Request::read(offset, buffer.sgl()),
                _ => Request::write(offset, buffer.sgl()),
            };
            let found = kind(&lu.device.io(&request).await);
            let fine = matches!(found, None | Some(ErrorKind::OutOfRange));
            ensure!(fine, "{found:?} at {offset} while the size changed");
            yield_now().await;
        }
        Ok(())
    };
    let sizes = async {
        let mut end = Ok(());
        for step in 0..20 {
            end = to(lu, [2, 1, 3, 1, 4][step % 5] * BLOCKS / 2).await;
            if end.is_err() {
                break;
            }
            c.pause().await;
        }
        busy.set(false);
        end
    };
    all(vec![
        Box::pin(load(0)),
        Box::pin(load(1)),
        Box::pin(load(2)),
        Box::pin(tail(21)),
        Box::pin(tail(22)),
        Box::pin(tail(23)),
        Box::pin(sizes),
    ])
    .await
}
