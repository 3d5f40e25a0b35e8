//! Or-write: alone, against itself, and against every other write through every handle. Nobody here
//! clears a bit, so one that was set and is gone was undone by a step that was none.

use std::rc::Rc;

use super::Boxed;
use super::compare::{TIMES, mark, raise};
use super::kit::{
    Context, Random, Verdict, all, elsewhere, ensure, ensure_bytes, ensure_eq, linger, or_write,
    read, stamp_of, stamped,
};
use crate::device::{Device, OpSet};

pub(super) async fn one_at_a_time(c: &Context<'_>) -> Verdict {
    const BLOCKS: u64 = 256;
    let lu = c.make_with(BLOCKS, OpSet::OR_WRITE).await?;
    let (block, size) = (lu.block, BLOCKS * lu.block);
    let limit = u64::from(lu.device.geometry().exclusive_max).min(200 * block);
    let mut random = Random::new(12);
    let mut model = vec![0; size as usize];
    for round in 0..2 {
        for len in [block, 2 * block, limit].into_iter().filter(|len| *len <= limit) {
            // First onto what was never written.
            for offset in [0, 5 * block, size - len] {
                let bytes = random.bytes(len);
                or_write(&*lu.device, offset, &bytes).await?;
                let wanted = &mut model[offset as usize..][..len as usize];
                wanted.iter_mut().zip(bytes).for_each(|(byte, set)| *byte |= set);
                or_write(&*lu.device, offset, &vec![0; len as usize]).await?;
                let what = format!("round {round}, after or-write of {len} at {offset}");
                ensure_bytes(&lu.read(offset, len).await?, wanted, &what)?;
            }
        }
        ensure_bytes(&lu.read(0, size).await?, &model, "around or-writes")?;
        model = random.bytes(size);
        lu.write(0, &model).await?;
    }
    Ok(())
}

/// Sets bits of a block, one after the other, and sees after each that all of its own are there.
async fn set_bits(device: Rc<dyn Device>, offset: u64, block: u64, bits: Vec<u32>) -> Verdict {
    let (mut own, mut random) = (0, Random::new(13 + u64::from(bits[0])));
    for bit in bits {
        own |= 1 << bit;
        or_write(&*device, offset, &stamped(1 << bit, block)).await?;
        linger(&mut random).await;
        let bytes = read(&*device, offset, block).await?;
        let kept = bytes.chunks(8).all(|word| {
            word.first_chunk().is_some_and(|word| u64::from_le_bytes(*word) & own == own)
        });
        ensure!(kept, "bits that were set are gone, after or-write of bit {bit}");
    }
    Ok(())
}

const SETTERS: u32 = 4;

/// So many tasks share the bits of one block.
fn set_all_bits(
    device: &Rc<dyn Device>,
    offset: u64,
    block: u64,
    first: u32,
    count: u32,
) -> Vec<Boxed<'static, Verdict>> {
    let task = |task| {
        let bits = (first + task..first + count).step_by(SETTERS as usize).collect();
        Box::pin(set_bits(device.clone(), offset, block, bits)) as Boxed<'static, Verdict>
    };
    (0..SETTERS).map(task).collect()
}

pub(super) async fn setters(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(16, OpSet::OR_WRITE).await?;
    for at in 3..6 {
        all(set_all_bits(&lu.device, at * lu.block, lu.block, 0, 64)).await?;
        let bytes = lu.read(at * lu.block, lu.block).await?;
        ensure_eq(stamp_of(&bytes), Some(u64::MAX), "a block with all bits set")?;
    }
    Ok(())
}

/// Or-writes that set nothing: whatever they lie over, they must not change it.
async fn set_nothing(device: Rc<dyn Device>, offset: u64, len: u64, times: u64) -> Verdict {
    let mut random = Random::new(14);
    for _ in 0..times {
        or_write(&*device, offset, &vec![0; len as usize]).await?;
        linger(&mut random).await;
    }
    Ok(())
}

pub(super) async fn markers(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(16, OpSet::OR_WRITE).await?;
    let block = lu.block;
    // The marks lie in one block and cover the one behind it.
    let len = (2 * block).min(u64::from(lu.device.geometry().exclusive_max));
    let parts: Vec<Boxed<'_, Verdict>> = vec![
        Box::pin(mark(lu.device.clone(), 5 * block, block, 4 * TIMES)),
        Box::pin(set_nothing(lu.device.clone(), 5 * block, len, 8 * TIMES)),
        Box::pin(set_nothing(lu.device.clone(), 6 * block - len, len, 8 * TIMES)),
    ];
    all(parts).await
}

pub(super) async fn counters(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(16, OpSet::OR_WRITE | OpSet::COMPARE_AND_WRITE).await?;
    let (block, device) = (lu.block, lu.device.clone());
    let raised = Box::pin(async move { raise(&*device, 3 * block, block, 8 * TIMES).await });
    let parts: Vec<Boxed<'_, Verdict>> = vec![
        raised,
        Box::pin(set_nothing(lu.device.clone(), 3 * block, block, 16 * TIMES)),
        Box::pin(set_nothing(lu.device.clone(), 3 * block, block, 16 * TIMES)),
    ];
    all(parts).await?;
    let bytes = lu.read(3 * block, block).await?;
    ensure_eq(stamp_of(&bytes), Some(8 * TIMES), "the counter under or-writes")
}

/// From two cores: each sets its bits of the same block, and marks blocks that the other lies over.
pub(super) async fn from_two_cores(c: &Context<'_>) -> Verdict {
    let lu = c.make_with(32, OpSet::OR_WRITE).await?;
    let block = lu.block;
    let there = elsewhere(&lu, move |device| share(device, block, 0, [4, 20]))?;
    all(vec![there, share(lu.device.clone(), block, 32, [20, 4])]).await?;
    let bytes = lu.read(9 * block, block).await?;
    ensure_eq(stamp_of(&bytes), Some(u64::MAX), "a block with all bits set from two cores")
}

/// One core's share: its bits from `first` on, its marks, and what it lies over.
fn share(
    device: Rc<dyn Device>,
    block: u64,
    first: u32,
    [marked, covered]: [u64; 2],
) -> Boxed<'static, Verdict> {
    let mut parts = set_all_bits(&device, 9 * block, block, first, 32);
    parts.push(Box::pin(mark(device.clone(), marked * block, block, 16 * TIMES)));
    parts.push(Box::pin(set_nothing(device, covered * block, block, 16 * TIMES)));
    Box::pin(all(parts))
}
