//! Reads return what was written: alone, in any order of operations, in lists of every shape, many
//! at once, and through another handle.

use super::kit::{
    Context, Lu, Random, Verdict, all, ask, elsewhere, ensure_bytes, ensure_eq, or_write, read,
    stamped, write, write_as,
};
use crate::device::OpSet;
use crate::mem::{Buffer, SglBuf};
use crate::request::{Op, Request};

/// Bytes of the device in most tests: several chunks, extents or pages of any store.
const SIZE: u64 = 1 << 19;

pub(super) async fn fresh_reads_zero(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(SIZE / u64::from(c.block_size)).await?;
    ensure_bytes(&lu.read(0, SIZE).await?, &vec![0; SIZE as usize], "a fresh device")
}

/// Operations at random, one at a time, against a plain array.
pub(super) async fn random_operations(c: &Context<'_>) -> Verdict {
    const STEPS: u32 = 300;
    let blocks = SIZE / u64::from(c.block_size);
    let lu = c.make_kept(blocks).await?;
    let mut model = vec![0u8; SIZE as usize];
    let mut random = Random::new(1);
    for step in 0..STEPS {
        let longest = if random.below(4) == 0 { blocks } else { 24 };
        let len = random.below(longest.min(blocks)) + 1;
        let offset = random.below(blocks - len + 1) * lu.block;
        let len = len * lu.block;
        let range = offset as usize..(offset + len) as usize;
        let flag = random.below(2) == 0;
        match random.below(8) {
            0..=2 => {
                let bytes = random.bytes(len);
                let op = Op::Write { fua: flag, atomic: false };
                write_as(&*lu.device, op, offset, &bytes).await?;
                model[range].copy_from_slice(&bytes);
            }
            3 if lu.offers(OpSet::WRITE_ZEROES) => {
                let op = Op::WriteZeroes { unmap: flag, fua: random.below(2) == 0 };
                ask(&*lu.device, op, offset, len).await?;
                model[range].fill(0);
            }
            4 if flag && lu.offers(OpSet::DISCARD) => {
                ask(&*lu.device, Op::Discard, offset, len).await?;
                model[range].fill(0);
            }
            4 if lu.offers(OpSet::OR_WRITE)
                && len <= u64::from(lu.device.geometry().exclusive_max) =>
            {
                let bytes = random.bytes(len);
                or_write(&*lu.device, offset, &bytes).await?;
                model[range].iter_mut().zip(bytes).for_each(|(byte, set)| *byte |= set);
            }
            5 => ensure_eq(lu.device.io(&Request::flush()).await, Ok(0), "flush")?,
            _ => {
                let what = format!("step {step}, read of {len} at {offset}");
                ensure_bytes(&lu.read(offset, len).await?, &model[range], &what)?;
            }
        }
    }
    ensure_bytes(&lu.read(0, SIZE).await?, &model, "the whole device")
}

pub(super) async fn many_in_flight(c: &Context<'_>) -> Verdict {
    const AT_ONCE: u64 = 256;
    let per = SIZE / AT_ONCE / u64::from(c.block_size);
    let lu = c.make_kept(SIZE / u64::from(c.block_size)).await?;
    let len = per.max(1) * lu.block;
    let count = SIZE / len;
    let lu = &lu;
    all((0..count)
        .map(|n| Box::pin(async move { lu.write(n * len, &stamped(n + 1, len)).await }) as _)
        .collect())
    .await?;
    all((0..count)
        .rev()
        .map(|n| {
            Box::pin(async move {
                let what = format!("request {n}");
                ensure_bytes(&lu.read(n * len, len).await?, &stamped(n + 1, len), &what)
            }) as _
        })
        .collect())
    .await
}

/// A list that covers `len` bytes of a buffer of twice that size, and its buffer.
struct Shaped {
    name: &'static str,
    buffer: Buffer,
    list: SglBuf,
    /// What of the list is used.
    skip: usize,
}

/// Cuts `len` bytes into parts by lengths that repeat, each part `gap` bytes after the last.
fn cut(name: &'static str, len: usize, lens: &[usize], first: usize, gap: usize) -> Shaped {
    let mut stretches = Vec::new();
    let (mut at, mut left) = (first, len);
    for part in lens.iter().cycle() {
        let part = (*part).min(left);
        stretches.push(at..at + part);
        at += part + gap;
        left -= part;
        if left == 0 {
            break;
        }
    }
    let buffer = Buffer::zeroed(at + 64);
    let list = buffer.scattered(stretches);
    Shaped { name, buffer, list, skip: 0 }
}

fn shapes(block: usize) -> Vec<Shaped> {
    let backwards = {
        let buffer = Buffer::zeroed(8 * block);
        let list = buffer.scattered((0..8).rev().map(|n| n * block..(n + 1) * block));
        Shaped { name: "backwards", buffer, list, skip: 0 }
    };
    let mut cut_off = cut("the middle of a longer list", 6 * block, &[700, 0, 33], 0, 5);
    cut_off.skip = block / 2 + 3;
    vec![
        cut("one part", 4 * block, &[usize::MAX], 0, 0),
        cut("one part at an odd address", 4 * block, &[usize::MAX], 1, 0),
        cut("parts of one byte", 2 * block, &[1], 3, 1),
        cut("thousands of parts", 8192, &[3, 1, 2], 0, 2),
        cut("halves of blocks", 5 * block, &[block / 2], 0, 512),
        cut("parts across blocks", 7 * block, &[block - 1, block + 1, 5], 0, 0),
        cut("empty parts", 3 * block, &[0, 100, 0, 0, block, 0], 0, 0),
        cut("whole blocks apart", 16 * block, &[block], 0, block),
        cut("pages and a crumb", 16 * block, &[4096, 4096, 511, 1], 4096, 0),
        backwards,
        cut_off,
    ]
}

pub(super) async fn scatter_lists(c: &Context<'_>) -> Verdict {
    let lu = c.make_kept(SIZE / u64::from(c.block_size)).await?;
    let mut random = Random::new(2);
    for shape in shapes(c.block_size as usize) {
        through(&lu, &shape, &mut random).await?;
    }
    Ok(())
}

/// Writes and reads through one list.
async fn through(lu: &Lu, shape: &Shaped, random: &mut Random) -> Verdict {
    let Shaped { name, list, skip, .. } = shape;
    let whole = list.sgl();
    let len = (whole.len() - skip) as u64 / lu.block * lu.block;
    let sgl = whole.slice(*skip, len as usize);
    let offset = 3 * lu.block;
    let around = random.bytes(len + 2 * lu.block);
    lu.write(offset - lu.block, &around).await?;

    let bytes = random.bytes(len);
    sgl.copy_in(0, &bytes);
    let outcome = lu.device.io(&Request::write(offset, sgl)).await;
    ensure_eq(outcome, Ok(len), &format!("write of {name}"))?;
    let mut wanted = around;
    wanted[lu.block as usize..][..len as usize].copy_from_slice(&bytes);
    let found = lu.read(offset - lu.block, len + 2 * lu.block).await?;
    ensure_bytes(&found, &wanted, &format!("written from {name}"))?;

    shape.buffer.sgl().fill_zero();
    // What is not in the list must stay as it is.
    let mut memory = random.bytes(shape.buffer.len() as u64);
    shape.buffer.write(0, &memory);
    let outcome = lu.device.io(&Request::read(offset, sgl)).await;
    ensure_eq(outcome, Ok(len), &format!("read into {name}"))?;
    let mut found = vec![0; len as usize];
    sgl.copy_out(0, &mut found);
    ensure_bytes(&found, &bytes, &format!("read into {name}"))?;
    let after = shape.buffer.to_vec();
    shape.buffer.write(0, &memory);
    sgl.copy_in(0, &bytes);
    memory = shape.buffer.to_vec();
    ensure_bytes(&after, &memory, &format!("memory around {name}"))
}

/// What was answered here is seen there, and the other way round.
pub(super) async fn seen_elsewhere(c: &Context<'_>) -> Verdict {
    const ROUNDS: u64 = 50;
    let lu = c.make_kept(64).await?;
    let block = lu.block;
    for round in 0..ROUNDS {
        let offset = round % 32 * block;
        let (here, there) = (stamped(2 * round + 1, 2 * block), stamped(2 * round + 2, block));
        lu.write(offset, &here).await?;
        let bytes = there.clone();
        elsewhere(&lu, move |device| async move {
            ensure_bytes(&read(&*device, offset, 2 * block).await?, &here, "written on one core")?;
            write(&*device, offset + block, &bytes).await
        })?
        .await?;
        ensure_bytes(&lu.read(offset + block, block).await?, &there, "written on the other core")?;
    }
    Ok(())
}
