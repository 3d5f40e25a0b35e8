//! SANITIZE (SBC-3 5.30): overwrite and block erase, in the background and with progress; leaving
//! the failure mode. Cryptographic erase has no row: nothing here is encrypted.

use wire::scsi::capacity::{INVERT, OVERWRITE_COUNT, OVERWRITE_TEST, Overwrite};
use wire::scsi::cdb::{Plain10, flag};
use wire::scsi::opcode::{SERVICE_ACTION_MASK, Sanitize};
use zerocopy::FromBytes;

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::background::{self, Begin};
use crate::lun::operation::{Job, OperationKind};
use crate::lun::{Change, OperationChange};

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let cdb: Plain10 = context.cdb();
        let job = match Sanitize(cdb.flags & SERVICE_ACTION_MASK) {
            Sanitize::OVERWRITE => overwrite(context)?,
            _ if cdb.length.get() != 0 => return Err(Sense::field(7).into()),
            Sanitize::BLOCK_ERASE => Job::Erase,
            _ => {
                context.change(Change::Operation(OperationChange::ExitFailure)).await?;
                return Ok(Vec::new());
            }
        };
        let begin = Begin {
            kind: OperationKind::Sanitize,
            job,
            may_exit: cdb.flags & flag::SANITIZE_AUSE != 0,
        };
        background::run(context, begin, cdb.flags & flag::SANITIZE_IMMED != 0).await?;
        Ok(Vec::new())
    })
}

fn overwrite(context: &Context<'_>) -> Result<Job, Sense> {
    let list = context.parameters()?;
    let (header, pattern) = Overwrite::read_from_prefix(&list).map_err(|_| Sense::field(7))?;
    let passes = header.flags & OVERWRITE_COUNT;
    if passes == 0 || header.flags & OVERWRITE_TEST != 0 {
        return Err(Sense::parameter(0));
    }
    let len = usize::from(header.pattern_length.get());
    if len == 0 || len > context.block_size() || len > pattern.len() {
        return Err(Sense::parameter(2));
    }
    // A pattern shorter than a block is repeated in it (SBC-3 5.30.2.2).
    let block = pattern[..len].iter().copied().cycle().take(context.block_size()).collect();
    Ok(Job::Overwrite { block, passes, invert: header.flags & INVERT != 0 })
}
