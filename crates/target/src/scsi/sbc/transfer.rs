//! READ and WRITE where the short path does not lead: less room than the CDB asks for, a read that
//! must come from the medium, something in the way that had to be looked at. And what looks at
//! blocks and writes them in one step: COMPARE AND WRITE, ORWRITE.

use block::{Buffer, Op, Request};

use super::super::answer::Answer;
use super::super::context::Context;
use super::super::row::{Boxed, Transfer};
use super::super::sense::Sense;

pub async fn run(context: &Context<'_>) -> Result<Answer, Answer> {
    let (offset, len) = context.range()?;
    match context.parsed.row.transfer {
        Transfer::BlocksIn => {
            // SBC-3 5.10: what the cache has and the medium not yet is written first.
            if context.parsed.is_fua() && context.unit.geometry().volatile_cache {
                context.io(Request::flush()).await?;
            }
            read(context, offset, len).await
        }
        Transfer::ReadCd => read(context, offset, len).await,
        _ => write(context, offset).await,
    }
}

/// A client with less room than it asks for gets as much as fits (FCP-4 9.5.8; the rest is a
/// residual): the last, partial block by way of a buffer.
async fn read(context: &Context<'_>, offset: u64, len: u64) -> Result<Answer, Answer> {
    let into = context.data.into;
    let room = usize::try_from(len).unwrap_or(usize::MAX).min(into.len());
    let block = context.block_size();
    let whole = room / block * block;
    if whole > 0 {
        context.io(Request::read(offset, into.slice(0, whole))).await?;
    }
    let rest = room - whole;
    if rest > 0 {
        let buffer = Buffer::zeroed(block);
        context.io(Request::read(offset + whole as u64, buffer.sgl())).await?;
        into.slice(whole, rest).copy_from(&buffer.sgl().slice(0, rest));
    }
    Ok(Answer::data(room, len))
}

async fn write(context: &Context<'_>, offset: u64) -> Result<Answer, Answer> {
    let data = context.blocks_out()?;
    if !data.is_empty() {
        let op = Op::Write { fua: context.is_fua(), atomic: false };
        context.io(Request { op, offset, len: data.len() as u64, data }).await?;
    }
    Ok(Answer::data(0, context.parsed.data_out_len()))
}

/// SBC-3 5.2: one step against every other write.
pub fn compare_and_write<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let (offset, len) = context.range()?;
        let data = context.blocks_out()?;
        if len > 0 {
            let op = Op::CompareAndWrite { fua: context.is_fua() };
            context.io(Request { op, offset, len, data }).await?;
        }
        Ok(Vec::new())
    })
}

/// SBC-3 5.11: one step as well.
pub fn or_write<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let (offset, len) = context.range()?;
        if len > u64::from(context.unit.geometry().exclusive_max) {
            return Err(Sense::field(context.parsed.count_at()).into());
        }
        let data = context.blocks_out()?;
        if len > 0 {
            let op = Op::OrWrite { fua: context.is_fua() };
            context.io(Request { op, offset, len, data }).await?;
        }
        Ok(Vec::new())
    })
}
