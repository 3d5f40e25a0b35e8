//! FORMAT UNIT (SBC-3 5.3): the medium is erased, in the background and with progress. There are
//! no defects, no protection information and no initialization patterns to take.

use wire::scsi::capacity::{FOV, FormatHeader, IMMED, LongFormatHeader};
use wire::scsi::cdb::{Plain6, flag};
use zerocopy::FromBytes;

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::background::{self, Begin};
use crate::lun::operation::{Job, OperationKind};

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let immediately = options(context)?;
        let begin = Begin { kind: OperationKind::Format, job: Job::Erase, may_exit: false };
        background::run(context, begin, immediately).await?;
        Ok(Vec::new())
    })
}

/// Whether to answer before it is done. The list has no length in the CDB: it is as long as its
/// header says.
fn options(context: &Context<'_>) -> Result<bool, Sense> {
    let cdb: Plain6 = context.cdb();
    if cdb.flags & flag::FMTDATA == 0 {
        // Options without a list to hold them.
        let stray = cdb.flags & (flag::CMPLST | flag::LONGLIST) != 0;
        return if stray { Err(Sense::field(1)) } else { Ok(false) };
    }
    let mut list = [0; size_of::<LongFormatHeader>()];
    let long = cdb.flags & flag::LONGLIST != 0;
    let needed = if long { list.len() } else { size_of::<FormatHeader>() };
    if context.data.out.len() < needed {
        return Err(Sense::parameter_length());
    }
    context.data.out.slice(0, needed).copy_out(0, &mut list[..needed]);
    let (flags, defects, interval) = if long {
        let header = LongFormatHeader::read_from_bytes(&list).expect("of its size");
        (header.flags, header.defect_list_length.get(), header.interval)
    } else {
        let (header, _) = FormatHeader::read_from_prefix(&list).expect("shorter than the list");
        (header.flags, u32::from(header.defect_list_length.get()), 0)
    };
    if list[0] != 0 {
        return Err(Sense::parameter(0));
    }
    // Options are defaults unless FOV is set, and of options only the defaults are supported.
    if flags & !(FOV | IMMED) != 0 {
        return Err(Sense::parameter(1));
    }
    if interval != 0 {
        return Err(Sense::parameter(3));
    }
    if defects != 0 {
        return Err(Sense::parameter(if long { 4 } else { 2 }));
    }
    Ok(flags & IMMED != 0)
}
