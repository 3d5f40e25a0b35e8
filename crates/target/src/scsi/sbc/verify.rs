//! VERIFY and WRITE AND VERIFY, (10), (12) and (16) (SBC-3 5.33, 5.38): blocks are read and, by
//! BYTCHK, compared with data-out: block by block, or each with one block.

use block::{Op, Request, Sgl};

use super::super::answer::{Answer, miscompare};
use super::super::context::Context;
use super::super::row::Boxed;

pub fn verify<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let (offset, len) = context.range()?;
        match context.parsed.byte_check() {
            0 => context.scan(offset, len, |_, _| Ok(())).await?,
            1 => compare(context, offset, &context.blocks_out()?).await?,
            _ => compare_each(context, offset, len).await?,
        }
        Ok(Vec::new())
    })
}

pub fn write_and_verify<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let (offset, _) = context.range()?;
        let data = context.blocks_out()?;
        let len = data.len() as u64;
        if len == 0 {
            return Ok(Vec::new());
        }
        // On the medium, or there would be nothing there to verify.
        let op = Op::Write { fua: true, atomic: false };
        context.io(Request { op, offset, len, data }).await?;
        match context.parsed.byte_check() {
            0 => context.scan(offset, len, |_, _| Ok(())).await?,
            _ => compare(context, offset, &data).await?,
        }
        Ok(Vec::new())
    })
}

async fn compare(context: &Context<'_>, offset: u64, data: &Sgl<'_>) -> Result<(), Answer> {
    let mut wanted = Vec::new();
    let look = |at: u64, piece: &Sgl<'_>| {
        wanted.resize(piece.len(), 0);
        data.copy_out(at as usize, &mut wanted);
        match piece.first_difference(&wanted) {
            None => Ok(()),
            Some(byte) => Err(Answer::check(miscompare(at + byte as u64))),
        }
    };
    context.scan(offset, data.len() as u64, look).await
}

async fn compare_each(context: &Context<'_>, offset: u64, len: u64) -> Result<(), Answer> {
    let block = context.block_size();
    let mut wanted = vec![0; context.blocks_out()?.len()];
    context.blocks_out()?.copy_out(0, &mut wanted);
    let look = |_: u64, piece: &Sgl<'_>| {
        for at in (0..piece.len()).step_by(block) {
            if let Some(byte) = piece.slice(at, block).first_difference(&wanted) {
                return Err(Answer::check(miscompare(byte as u64)));
            }
        }
        Ok(())
    };
    context.scan(offset, len, look).await
}
