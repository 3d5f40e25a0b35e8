//! WRITE SAME(10) and (16) (SBC-3 5.44, 5.45): one block, or zeroes, over a range; zeroes may give
//! the space back.

use block::{Buffer, Op, OpSet, Request};
use wire::scsi::cdb::flag;

use super::super::answer::Answer;
use super::super::context::{Context, SCAN_BYTES, byte_range};
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::limits::{SAME_BYTES_MAX, is_thin};

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let unmap = context.parsed.bytes[1] & flag::UNMAP != 0;
        if unmap && !is_thin(&context.unit.geometry()) {
            return Err(Sense::field_bit(1, 3).into());
        }
        let (offset, len) = range(context)?;
        let block = block(context)?;
        if block.iter().all(|byte| *byte == 0) {
            zero(context, offset, len, unmap).await?;
        } else {
            write(context, offset, len, &block).await?;
        }
        Ok(Vec::new())
    })
}

/// No blocks would be all blocks to the end: more than one command may write, so there is none
/// such (WSNZ is 1).
fn range(context: &Context<'_>) -> Result<(u64, u64), Sense> {
    let parsed = context.parsed;
    let range = byte_range(context.unit, parsed.lba, parsed.count)?;
    if range.1 == 0 || range.1 > SAME_BYTES_MAX {
        return Err(Sense::field(parsed.count_at()));
    }
    Ok(range)
}

/// The block to write; zeroes where there is no data-out (NDOB).
fn block(context: &Context<'_>) -> Result<Vec<u8>, Answer> {
    let mut block = vec![0; context.block_size()];
    if context.parsed.data_out_len() > 0 {
        context.blocks_out()?.copy_out(0, &mut block);
    }
    Ok(block)
}

/// Zeroes a range with whatever the device offers.
pub async fn zero(context: &Context<'_>, offset: u64, len: u64, unmap: bool) -> Result<(), Answer> {
    let ops = context.unit.geometry().ops;
    let op = if ops.contains(OpSet::WRITE_ZEROES) {
        Op::WriteZeroes { unmap, fua: context.unit.is_write_through() }
    } else if unmap {
        Op::Discard
    } else {
        return write(context, offset, len, &vec![0; context.block_size()]).await;
    };
    context.io(Request::plain(op, offset, len)).await?;
    Ok(())
}

async fn write(context: &Context<'_>, offset: u64, len: u64, block: &[u8]) -> Result<(), Answer> {
    let buffer = filled(block, len);
    let op = Op::Write { fua: context.unit.is_write_through(), atomic: false };
    let mut done = 0;
    while done < len {
        context.still_wanted()?;
        let step = (len - done).min(buffer.len() as u64);
        let data = buffer.sgl().slice(0, step as usize);
        context.io(Request { op, offset: offset + done, len: step, data }).await?;
        done += step;
    }
    Ok(())
}

/// A buffer full of repetitions of this block, no longer than needed.
pub fn filled(block: &[u8], len: u64) -> Buffer {
    let times = usize::try_from(len).unwrap_or(usize::MAX).min(SCAN_BYTES) / block.len();
    Buffer::from_bytes(&block.repeat(times.max(1)))
}
