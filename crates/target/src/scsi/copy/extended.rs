//! EXTENDED COPY(LID1) and what is told of it: RECEIVE COPY STATUS and OPERATING PARAMETERS (SPC-4
//! 6.4, 6.23, 6.26). Segments from block to block; there are no streams, so no inline data.

use std::rc::Rc;

use wire::scsi::AdditionalSense;
use wire::scsi::cdb::ThirdPartyCopy;
use wire::scsi::copy::{
    BlockToBlock, CopyStatus, CscdType, DC, DISCARD, ExtendedCopy, IdentificationCscd,
    LIST_ID_USAGE, LIST_ID_USAGE_SHIFT, OffsetToOffset, OperatingParameters, SNLID, SegmentHeader,
    SegmentType,
};
use wire::scsi::opcode::ThirdPartyCopyOut;
use zerocopy::{FromBytes, IntoBytes};

use super::super::answer::Answer;
use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::super::spc::vpd::names;
use super::super::unit::Unit;
use super::{COPY_BYTES_MAX, Record, Side, may_use, transfer, unreachable};
use crate::lun::reservation::Class;

pub const CSCDS_MAX: usize = 16;
pub const SEGMENTS_MAX: usize = 64;
/// Most bytes of descriptors of both kinds.
pub const DESCRIPTOR_BYTES_MAX: usize = CSCDS_MAX * CSCD_BYTES + SEGMENTS_MAX * SEGMENT_BYTES_MAX;
/// Descriptors that are understood.
pub const DESCRIPTORS: [u8; 4] = [
    SegmentType::BLOCK_TO_BLOCK.0,
    SegmentType::VERIFY_CSCD.0,
    SegmentType::BLOCK_OFFSET_TO_BLOCK_OFFSET.0,
    CscdType::IDENTIFICATION.0,
];

const CSCD_BYTES: usize = size_of::<IdentificationCscd>();
const SEGMENT_BYTES_MAX: usize = size_of::<OffsetToOffset>();
/// Of a verify segment: TUR.
const VERIFY_BYTES: usize = size_of::<SegmentHeader>() + 4;

/// A segment, understood.
enum Segment {
    Copy { sides: [u16; 2], lbas: [u64; 2], amount: Amount },
    Verify { source: u16 },
}

/// How much a segment copies.
enum Amount {
    Bytes(u64),
    SourceBlocks(u64),
    DestinationBlocks(u64),
}

struct Plan {
    list: u32,
    keep: bool,
    cscds: Vec<IdentificationCscd>,
    segments: Vec<Segment>,
}

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        if list.is_empty() {
            return Ok(list);
        }
        let plan = plan(&list)?;
        let mut record = Record {
            list: plan.list,
            service: ThirdPartyCopyOut::EXTENDED_COPY_LID1.0,
            good: true,
            segments: 0,
            bytes: 0,
            token: None,
        };
        let mut outcome = Ok(());
        for segment in &plan.segments {
            match perform(context, &plan.cscds, segment).await {
                Ok(bytes) => record.bytes += bytes,
                Err(answer) => {
                    outcome = Err(answer);
                    break;
                }
            }
            record.segments += 1;
        }
        record.good = outcome.is_ok();
        if plan.keep {
            context.unit.copies.borrow_mut().keep(record);
        }
        outcome.map(|()| Vec::new())
    })
}

/// Understands a parameter list. Lengths that contradict each other come first, then numbers, then
/// what is in it.
fn plan(list: &[u8]) -> Result<Plan, Sense> {
    let (header, rest) =
        ExtendedCopy::read_from_prefix(list).map_err(|_| Sense::parameter_length())?;
    let cscd_len = usize::from(header.cscd_list_length.get());
    let segment_len = header.segment_list_length.get() as usize;
    if header.inline_data_length.get() != 0 {
        return Err(Sense::illegal(AdditionalSense::INLINE_DATA_LENGTH_EXCEEDED));
    }
    let fits = cscd_len.checked_add(segment_len).is_some_and(|len| len <= rest.len());
    if !fits || cscd_len + segment_len > DESCRIPTOR_BYTES_MAX {
        return Err(Sense::parameter_length());
    }
    let (cscds, segments) = rest[..cscd_len + segment_len].split_at(cscd_len);
    let usage = header.flags >> LIST_ID_USAGE_SHIFT & LIST_ID_USAGE;
    Ok(Plan {
        list: u32::from(header.list_identifier),
        keep: usage < DISCARD,
        cscds: read_cscds(cscds)?,
        segments: read_segments(segments)?,
    })
}

fn read_cscds(bytes: &[u8]) -> Result<Vec<IdentificationCscd>, Sense> {
    let (chunks, rest) = bytes.as_chunks::<CSCD_BYTES>();
    if chunks.len() > CSCDS_MAX {
        return Err(Sense::illegal(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS));
    }
    if !rest.is_empty() {
        return Err(Sense::parameter_length());
    }
    let read = |chunk: &[u8; CSCD_BYTES]| {
        let cscd = IdentificationCscd::read_from_bytes(chunk).expect("of its size");
        match CscdType(cscd.kind) {
            CscdType::IDENTIFICATION => Ok(cscd),
            _ => {
                let code = AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE;
                Err(Sense::illegal(code))
            }
        }
    };
    chunks.iter().map(read).collect()
}

fn read_segments(mut bytes: &[u8]) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    while !bytes.is_empty() {
        if segments.len() == SEGMENTS_MAX {
            return Err(Sense::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS));
        }
        let (header, _) =
            SegmentHeader::read_from_prefix(bytes).map_err(|_| Sense::parameter_length())?;
        let len = 4 + usize::from(header.length.get());
        let (segment, rest) = bytes.split_at_checked(len).ok_or(Sense::parameter_length())?;
        segments.push(read_segment(header, segment)?);
        bytes = rest;
    }
    Ok(segments)
}

fn read_segment(header: SegmentHeader, bytes: &[u8]) -> Result<Segment, Sense> {
    let sides = [header.source.get(), header.destination.get()];
    match SegmentType(header.kind) {
        SegmentType::BLOCK_TO_BLOCK => {
            let it = BlockToBlock::read_from_bytes(bytes).map_err(|_| Sense::parameter_length())?;
            let blocks = u64::from(it.blocks.get());
            let amount = match header.flags & DC {
                0 => Amount::SourceBlocks(blocks),
                _ => Amount::DestinationBlocks(blocks),
            };
            let lbas = [it.source_lba.get(), it.destination_lba.get()];
            Ok(Segment::Copy { sides, lbas, amount })
        }
        SegmentType::BLOCK_OFFSET_TO_BLOCK_OFFSET => {
            let it =
                OffsetToOffset::read_from_bytes(bytes).map_err(|_| Sense::parameter_length())?;
            // A part of a block cannot be written in one step with what surrounds it.
            if it.source_offset.get() != 0 || it.destination_offset.get() != 0 {
                return Err(Sense::illegal(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT));
            }
            let lbas = [it.source_lba.get(), it.destination_lba.get()];
            Ok(Segment::Copy { sides, lbas, amount: Amount::Bytes(it.bytes.get().into()) })
        }
        SegmentType::VERIFY_CSCD if bytes.len() == VERIFY_BYTES => {
            Ok(Segment::Verify { source: sides[0] })
        }
        SegmentType::VERIFY_CSCD => Err(Sense::parameter_length()),
        _ => Err(Sense::illegal(AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)),
    }
}

/// Gives the number of bytes that were copied.
async fn perform(
    context: &Context<'_>,
    cscds: &[IdentificationCscd],
    segment: &Segment,
) -> Result<u64, Answer> {
    let (sides, lbas, amount) = match segment {
        Segment::Verify { source } => {
            may_use(&*resolve(context, cscds, *source)?, Class::Look)?;
            return Ok(0);
        }
        Segment::Copy { sides, lbas, amount } => (sides, lbas, amount),
    };
    let from = Side::new(resolve(context, cscds, sides[0])?, lbas[0])?;
    let to = Side::new(resolve(context, cscds, sides[1])?, lbas[1])?;
    let (source, destination) = (u64::from(from.unit.block_size), u64::from(to.unit.block_size));
    let len = match amount {
        Amount::Bytes(bytes) => *bytes,
        Amount::SourceBlocks(blocks) => blocks * source,
        Amount::DestinationBlocks(blocks) => blocks * destination,
    };
    if !len.is_multiple_of(source) || !len.is_multiple_of(destination) {
        return Err(Sense::illegal(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT).into());
    }
    if len > COPY_BYTES_MAX {
        return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST).into());
    }
    transfer(context, &from, &to, len).await?;
    Ok(len)
}

/// The unit behind this nexus that a CSCD descriptor names.
fn resolve(
    context: &Context<'_>,
    cscds: &[IdentificationCscd],
    index: u16,
) -> Result<Rc<Unit>, Answer> {
    let cscd = cscds.get(usize::from(index)).ok_or_else(unreachable)?;
    let len = usize::from(cscd.designator_length).min(cscd.designator.len());
    let wanted = (cscd.code_set & 0x0f, cscd.designator_type & 0x3f, &cscd.designator[..len]);
    let is_named = |unit: &Rc<Unit>| {
        let names = names(unit.handle.identity());
        // A descriptor has room for 20 bytes of a name, so a longer one is compared as far.
        names.iter().any(|(code, kind, name)| {
            (*code, kind.0, &name[..name.len().min(cscd.designator.len())]) == wanted
        })
    };
    let units = context.nexus.units();
    units.into_iter().map(|(_, unit)| unit).find(is_named).ok_or_else(unreachable)
}

pub fn status(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: ThirdPartyCopy = context.cdb();
    let copies = context.unit.copies.borrow();
    let record = copies.find(u32::from(cdb.list_identifier1)).ok_or(Sense::field(2))?;
    let data = CopyStatus {
        available: (size_of::<CopyStatus>() as u32 - 4).into(),
        status: record.status(),
        segments_processed: record.segments.into(),
        // In bytes, of which there are less than four gigabytes.
        transfer_count_units: 0,
        transfer_count: (record.bytes as u32).into(),
    };
    Ok(data.as_bytes().to_vec())
}

pub fn operating_parameters(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let tasks = context.unit.settings.tasks_max;
    let data = OperatingParameters {
        available: ((size_of::<OperatingParameters>() + DESCRIPTORS.len() - 4) as u32).into(),
        flags: SNLID,
        cscd_max: (CSCDS_MAX as u16).into(),
        segment_max: (SEGMENTS_MAX as u16).into(),
        descriptor_list_bytes_max: (DESCRIPTOR_BYTES_MAX as u32).into(),
        segment_bytes_max: (COPY_BYTES_MAX as u32).into(),
        total_concurrent_copies: u16::try_from(tasks).unwrap_or(u16::MAX).into(),
        concurrent_copies: u8::try_from(tasks).unwrap_or(u8::MAX),
        data_segment_granularity: context.unit.block_size.ilog2() as u8,
        descriptor_codes_length: DESCRIPTORS.len() as u8,
        ..OperatingParameters::default()
    };
    Ok([data.as_bytes(), &DESCRIPTORS].concat())
}
