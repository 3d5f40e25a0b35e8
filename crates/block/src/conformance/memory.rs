//! A future that is dropped with I/O in flight: its memory stays until the device has let go of it,
//! and the device goes on.

use super::kit::{Context, Verdict, ensure, ensure_bytes, poll_and_drop, stamp_of, stamped};
use crate::mem::Buffer;
use crate::request::Request;

const BLOCKS: u64 = 64;
const ROUNDS: u64 = 24;
/// Pauses after which memory that is still held is said to be lost.
const PAUSES_MAX: u32 = 20_000;

/// Waits until the device has let go of the memory.
async fn released(c: &Context<'_>, buffer: &Buffer) -> Verdict {
    for _ in 0..PAUSES_MAX {
        if buffer.is_unshared() {
            return Ok(());
        }
        c.pause().await;
    }
    ensure!(false, "memory of a dropped request is never let go of");
    Ok(())
}

pub(super) async fn dropped_read(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let len = 8 * lu.block;
    lu.write(0, &stamped(77, len)).await?;
    let buffer = Buffer::zeroed(len as usize);
    for round in 0..ROUNDS {
        let mark = stamped(1000 + round, len);
        buffer.write(0, &stamped(5, len));
        poll_and_drop(lu.device.io(&Request::read(0, buffer.sgl())));
        released(c, &buffer).await?;
        // The memory is ours again: nobody may write to it from now on.
        buffer.write(0, &mark);
        for _ in 0..4 {
            c.pause().await;
        }
        ensure_bytes(&lu.read(0, len).await?, &stamped(77, len), "after a dropped read")?;
        ensure_bytes(&buffer.to_vec(), &mark, "memory of a dropped read that had been let go of")?;
    }
    Ok(())
}

pub(super) async fn dropped_write(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(BLOCKS).await?;
    let len = 8 * lu.block;
    let buffer = Buffer::zeroed(len as usize);
    for round in 1..=ROUNDS {
        let offset = round % 7 * lu.block;
        buffer.write(0, &stamped(round, len));
        poll_and_drop(lu.device.io(&Request::write(offset, buffer.sgl())));
        released(c, &buffer).await?;
        buffer.write(0, &stamped(u64::MAX, len));
        // The answer is abandoned, the work is not.
        let mut found = Vec::new();
        for _ in 0..PAUSES_MAX {
            found = lu.read(offset, len).await?;
            let mixed = found.chunks(lu.block as usize).any(|block| stamp_of(block).is_none());
            if !mixed && found == stamped(round, len) {
                break;
            }
            c.pause().await;
        }
        ensure_bytes(&found, &stamped(round, len), "written by a request that was dropped")?;
    }
    Ok(())
}
