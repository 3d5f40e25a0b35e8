//! Which requests a device takes: edges, alignment, abilities, access.

use super::kit::{Context, End, Lu, Verdict, ensure, ensure_bytes, ensure_eq, kind, outcome_of};
use crate::device::{Keeps, OpSet};
use crate::error::ErrorKind;
use crate::mem::Buffer;
use crate::request::{Op, Request};

const WRITE: Op = Op::Write { fua: false, atomic: false };
const ZEROES: Op = Op::WriteZeroes { unmap: false, fua: false };
/// Each is one step, with the same limit.
const EXCLUSIVE: [Op; 2] = [Op::CompareAndWrite { fua: false }, Op::OrWrite { fua: false }];

/// One of each that has a range; copies from the start.
const RANGED: [Op; 8] = [
    Op::Read,
    WRITE,
    EXCLUSIVE[0],
    EXCLUSIVE[1],
    Op::Discard,
    ZEROES,
    Op::Status,
    Op::Copy { from: 0 },
];

fn offered(lu: &Lu) -> Vec<Op> {
    RANGED.into_iter().filter(|op| lu.offers(OpSet::needed_by(*op))).collect()
}

pub(super) async fn geometry(c: &Context<'_>) -> Verdict {
    let lu = c.make(24).await?;
    let g = lu.device.geometry();
    ensure_eq(g.size, 24 * lu.block, "size")?;
    ensure_eq(g.block_size, c.block_size, "block size")?;
    ensure_eq(g.read_only, false, "read-only")?;
    for (what, value) in
        [("physical block", g.physical_block_size), ("discard granularity", g.discard_granularity)]
    {
        ensure!(value >= g.block_size, "{what} {value} is less than a block");
        ensure!(value.is_power_of_two(), "{what} {value} is not a power of two");
    }
    for (what, limit, op) in [
        ("compare-and-write", g.exclusive_max, OpSet::COMPARE_AND_WRITE),
        ("or-write", g.exclusive_max, OpSet::OR_WRITE),
        ("atomic write", g.atomic_max, OpSet::WRITE_ATOMIC),
    ] {
        let fits = limit > 0 && limit.is_multiple_of(g.block_size);
        ensure!(!g.ops.contains(op) || fits, "{what} limit {limit} is not of whole blocks");
    }
    Ok(())
}

pub(super) async fn edges(c: &Context<'_>) -> Verdict {
    const BLOCKS: u64 = 48;
    let lu = c.make(BLOCKS).await?;
    let size = BLOCKS * lu.block;
    let highest = u64::MAX - (lu.block - 1);
    let beyond = Some(ErrorKind::OutOfRange);
    let with_data = [
        (0, 1, None),
        (BLOCKS - 1, 1, None),
        (BLOCKS - 2, 2, None),
        (BLOCKS, 1, beyond),
        (BLOCKS - 1, 2, beyond),
        (BLOCKS * 1000, 1, beyond),
        (highest / lu.block, 1, beyond),
        ((1 << 63) / lu.block, 1, beyond),
    ];
    let without_data = [
        (0, size, None),
        (0, size + lu.block, beyond),
        (0, highest, beyond),
        (size, highest, beyond),
        (highest, highest, beyond),
        (lu.block, highest, beyond),
    ];
    let last = vec![7; lu.block as usize];
    for op in offered(&lu) {
        for (offset, len, wanted) in with_data {
            lu.write(size - lu.block, &last).await?;
            let (offset, len) = (offset * lu.block, len * lu.block);
            let outcome = outcome_of(&*lu.device, op, offset, len).await;
            // Memory compares with zeroes, so a difference is what it should find.
            let found = kind(&outcome).filter(|kind| !matches!(kind, ErrorKind::Miscompare { .. }));
            ensure_eq(found, wanted, &format!("{} of {len} at {offset}", op.name()))?;
            if wanted.is_some() {
                untouched(&lu, size - lu.block, &last).await?;
            }
        }
        if op.data_bytes(lu.block).is_some_and(|bytes| bytes > 0) {
            continue;
        }
        for (offset, len, wanted) in without_data {
            let outcome = outcome_of(&*lu.device, op, offset, len).await;
            ensure_eq(kind(&outcome), wanted, &format!("{} of {len} at {offset}", op.name()))?;
        }
    }
    if lu.offers(OpSet::COPY) {
        let from = Op::Copy { from: size };
        let outcome = outcome_of(&*lu.device, from, 0, lu.block).await;
        ensure_eq(kind(&outcome), beyond, "copy from beyond the end")?;
    }
    Ok(())
}

/// A refused request must not have changed anything.
async fn untouched(lu: &Lu, offset: u64, bytes: &[u8]) -> Verdict {
    if lu.device.geometry().keeps == Keeps::Nothing {
        return Ok(());
    }
    let found = lu.read(offset, bytes.len() as u64).await?;
    ensure_bytes(&found, bytes, "after a refused request")
}

pub(super) async fn alignment(c: &Context<'_>) -> Verdict {
    let lu = c.make(16).await?;
    let block = lu.block;
    let cases = [
        (1, block),
        (block - 1, block),
        (block / 2, block),
        (0, block / 2),
        (0, block + 1),
        (block, 1),
        (1, 0),
        (block / 2, block / 2),
    ];
    let before = vec![9; 3 * block as usize];
    lu.write(0, &before).await?;
    for op in offered(&lu) {
        for (offset, len) in cases {
            let outcome = outcome_of(&*lu.device, op, offset, len).await;
            let what = format!("{} of {len} at {offset}", op.name());
            ensure_eq(kind(&outcome), Some(ErrorKind::Misaligned), &what)?;
        }
        untouched(&lu, 0, &before).await?;
    }
    if lu.offers(OpSet::COPY) {
        let outcome = outcome_of(&*lu.device, Op::Copy { from: 1 }, 0, block).await;
        ensure_eq(kind(&outcome), Some(ErrorKind::Misaligned), "copy from an odd place")?;
    }
    Ok(())
}

pub(super) async fn zero_length(c: &Context<'_>) -> Verdict {
    let lu = c.make(8).await?;
    let before = vec![3; 8 * lu.block as usize];
    lu.write(0, &before).await?;
    for op in offered(&lu) {
        for offset in [0, lu.block, 8 * lu.block] {
            let outcome = outcome_of(&*lu.device, op, offset, 0).await;
            ensure_eq(outcome, Ok(0), &format!("{} of nothing at {offset}", op.name()))?;
        }
        let outcome = outcome_of(&*lu.device, op, 9 * lu.block, 0).await;
        let what = format!("{} of nothing beyond the end", op.name());
        ensure_eq(kind(&outcome), Some(ErrorKind::OutOfRange), &what)?;
    }
    untouched(&lu, 0, &before).await
}

pub(super) async fn contradictions(c: &Context<'_>) -> Verdict {
    // Longer than the limits of most devices.
    const SIZE: u64 = 2 << 20;
    let lu = c.make(SIZE / u64::from(c.block_size)).await?;
    let block = lu.block;
    let buffer = Buffer::zeroed(2 * block as usize);
    for op in offered(&lu).into_iter().filter(|op| op.data_bytes(block).is_some()) {
        let short = buffer.sgl().slice(0, block as usize / 2);
        let request = Request { op, offset: 0, len: block, data: short };
        let outcome = lu.device.io(&request).await;
        let what = format!("{} with data of another length", op.name());
        ensure_eq(kind(&outcome), Some(ErrorKind::Invalid), &what)?;
    }
    let limit = u64::from(lu.device.geometry().exclusive_max);
    let steps = EXCLUSIVE.into_iter().filter(|op| lu.offers(OpSet::needed_by(*op)));
    for op in steps.filter(|_| limit < SIZE) {
        let outcome = outcome_of(&*lu.device, op, 0, limit + block).await;
        let what = format!("{} longer than its limit", op.name());
        ensure_eq(kind(&outcome), Some(ErrorKind::Invalid), &what)?;
    }
    Ok(())
}

pub(super) async fn unoffered(c: &Context<'_>) -> Verdict {
    let lu = c.make(8).await?;
    let atomic = Op::Write { fua: false, atomic: true };
    for op in RANGED.into_iter().chain([atomic]).filter(|op| !lu.offers(OpSet::needed_by(*op))) {
        let outcome = outcome_of(&*lu.device, op, 0, lu.block).await;
        ensure_eq(kind(&outcome), Some(ErrorKind::Unsupported), op.name())?;
    }
    ensure_eq(lu.device.io(&Request::flush()).await, Ok(0), "flush")
}

pub(super) async fn far_end(c: &Context<'_>) -> Verdict {
    // Beyond what 32 bits of blocks can say, too.
    const SIZE: u64 = (3 << 40) + (1 << 20);
    let blocks = SIZE / u64::from(c.block_size);
    let lu = c.make_kept(blocks).await?;
    let (last, bytes) = ((blocks - 1) * lu.block, vec![0x5c; lu.block as usize]);
    lu.write(last, &bytes).await?;
    ensure_bytes(&lu.read(last, lu.block).await?, &bytes, "the last block")?;
    let zero = vec![0; lu.block as usize];
    // Where it would lie if bytes or blocks were counted in too few bits.
    let bits = [1 << 32, 1 << 40, lu.block << 32, lu.block << 31];
    let cut_off = bits.map(|bits: u64| last % bits);
    for at in cut_off.into_iter().chain([0, last - lu.block]).filter(|at| *at != last) {
        ensure_bytes(&lu.read(at, lu.block).await?, &zero, &format!("block at {at}"))?;
    }
    Ok(())
}

pub(super) async fn read_only(c: &Context<'_>) -> Verdict {
    let lu = c.shaped(16, true).await?;
    let g = lu.device.geometry();
    ensure!(g.read_only, "geometry does not say that the device is read-only");
    let bytes = lu.read(0, 16 * lu.block).await?;
    ensure_eq(lu.device.io(&Request::flush()).await, Ok(0), "flush")?;
    for op in offered(&lu).into_iter().filter(|op| op.is_write()) {
        let outcome = outcome_of(&*lu.device, op, lu.block, lu.block).await;
        ensure_eq(kind(&outcome), Some(ErrorKind::ReadOnly), op.name())?;
    }
    if g.keeps == Keeps::Nothing {
        return Err(End::Skipped("keeps nothing"));
    }
    ensure_bytes(&lu.read(0, 16 * lu.block).await?, &bytes, "after refused writes")
}
