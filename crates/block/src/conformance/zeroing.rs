//! Ranges that read zero afterwards, what a device says of them, and copies.

use super::kit::{Context, End, Lu, Random, Verdict, ensure, ensure_bytes, ensure_eq};
use crate::device::OpSet;
use crate::extent::{self, EXTENT_BYTES, Extent, ExtentState};
use crate::mem::Buffer;
use crate::request::{Op, Request};

const SIZE: u64 = 1 << 19;

/// First block and number of blocks.
const RANGES: [(u64, u64); 7] = [(0, 1), (5, 1), (9, 2), (16, 8), (33, 31), (70, 50), (0, 128)];

async fn reads_zero_after(c: &Context<'_>, ops: OpSet, list: &[Op]) -> Verdict {
    let blocks = SIZE / u64::from(c.block_size);
    let lu = c.make_with(blocks, ops).await?;
    let mut random = Random::new(3);
    for op in list {
        for (first, count) in RANGES {
            let mut bytes = random.bytes(SIZE);
            lu.write(0, &bytes).await?;
            let (offset, len) = (first * lu.block, count * lu.block);
            lu.ask(*op, offset, len).await?;
            bytes[offset as usize..][..len as usize].fill(0);
            let what = format!("after {op:?} of {len} at {offset}");
            ensure_bytes(&lu.read(0, SIZE).await?, &bytes, &what)?;
            // What is zero already stays so, and can be written again.
            lu.ask(*op, offset, len).await?;
            ensure_bytes(&lu.read(0, SIZE).await?, &bytes, &what)?;
            let again = random.bytes(len);
            lu.write(offset, &again).await?;
            ensure_bytes(&lu.read(offset, len).await?, &again, "written again")?;
        }
    }
    Ok(())
}

pub(super) async fn write_zeroes(c: &Context<'_>) -> Verdict {
    let flags = [(false, false), (true, false), (false, true), (true, true)];
    let list = flags.map(|(unmap, fua)| Op::WriteZeroes { unmap, fua });
    reads_zero_after(c, OpSet::WRITE_ZEROES, &list).await
}

pub(super) async fn discard(c: &Context<'_>) -> Verdict {
    reads_zero_after(c, OpSet::DISCARD, &[Op::Discard]).await
}

/// Asks again and again until the range is covered, with room for so many records.
async fn extents(lu: &Lu, offset: u64, len: u64, room: usize) -> Result<Vec<Extent>, End> {
    let mut found = Vec::new();
    let mut at = offset;
    while at < offset + len {
        let buffer = Buffer::zeroed(room * EXTENT_BYTES + 7);
        let left = offset + len - at;
        let request = Request { op: Op::Status, offset: at, len: left, data: buffer.sgl() };
        let outcome = lu.device.io(&request).await;
        ensure!(outcome.is_ok(), "status of {left} at {at}: {outcome:?}");
        let count = outcome.unwrap_or_default() as usize;
        ensure!(count >= 1 && count <= room, "{count} records where {room} have room");
        let list = extent::load(&buffer.sgl(), count);
        ensure!(list.is_some(), "records that are none");
        for extent in list.unwrap_or_default() {
            ensure!(extent.len > 0, "an extent of no length at {at}");
            ensure!(extent.len.is_multiple_of(lu.block), "an extent of part of a block at {at}");
            ensure!(extent.len <= offset + len - at, "an extent beyond the range at {at}");
            at += extent.len;
            found.push(extent);
        }
    }
    Ok(found)
}

pub(super) async fn status(c: &Context<'_>) -> Verdict {
    let blocks = SIZE / u64::from(c.block_size);
    let lu = c.make_with(blocks, OpSet::STATUS).await?;
    let mut model = vec![0u8; SIZE as usize];
    let mut random = Random::new(4);
    for _ in 0..12 {
        let len = (random.below(12) + 1) * lu.block;
        let offset = random.below(blocks - len / lu.block) * lu.block;
        let bytes = random.bytes(len);
        lu.write(offset, &bytes).await?;
        model[offset as usize..][..len as usize].copy_from_slice(&bytes);
    }
    if lu.offers(OpSet::DISCARD) {
        lu.ask(Op::Discard, SIZE / 4, SIZE / 4).await?;
        model[SIZE as usize / 4..SIZE as usize / 2].fill(0);
    }
    let ranges = [(0, SIZE), (lu.block, SIZE - 2 * lu.block), (SIZE / 2 - lu.block, 4 * lu.block)];
    for (offset, len) in ranges {
        for room in [1, 3, 1000] {
            let mut at = offset as usize;
            for Extent { len, state } in extents(&lu, offset, len, room).await? {
                let bytes = &model[at..at + len as usize];
                let zero = bytes.iter().all(|byte| *byte == 0);
                let says_zero = state != ExtentState::Data;
                ensure!(zero || !says_zero, "{state:?} of {len} at {at}, where data lies");
                at += len as usize;
            }
            ensure_eq(at as u64, offset + len, "end of the last extent")?;
        }
    }
    ensure_bytes(&lu.read(0, SIZE).await?, &model, "after status")
}

pub(super) async fn copy(c: &Context<'_>) -> Verdict {
    let blocks = SIZE / u64::from(c.block_size);
    let lu = c.make_with(blocks, OpSet::COPY).await?;
    let mut model = Random::new(5).bytes(SIZE);
    lu.write(0, &model).await?;
    let half = blocks / 2;
    for (from, to, len) in [(0, half, 1), (half, 3, 40), (1, half + 1, half - 1), (half, 0, half)] {
        let (from, to, len) = (from * lu.block, to * lu.block, len * lu.block);
        lu.ask(Op::Copy { from }, to, len).await?;
        model.copy_within(from as usize..(from + len) as usize, to as usize);
        let what = format!("after a copy of {len} from {from} to {to}");
        ensure_bytes(&lu.read(0, SIZE).await?, &model, &what)?;
    }
    Ok(())
}
