//! POPULATE TOKEN, WRITE USING TOKEN, RECEIVE ROD TOKEN INFORMATION (SBC-3 5.9, 5.39; SPC-4 6.28).
//!
//! A token says which ranges of which LU it stands for and nothing more: its data is what is there
//! when it is used (ROD type access upon reference). It is worth something only to a nexus that sees
//! that LU and may read it, so a forged one gains nothing, and no node has to remember it.

use std::rc::Rc;

use wire::scsi::AdditionalSense;
use wire::scsi::cdb::ThirdPartyCopy;
use wire::scsi::copy::{
    PopulateToken, ROD_TOKEN_BYTES, RangeDescriptor, RodTokenHeader, RodTokenInformation, RodType,
    UNITS_BLOCKS, WriteUsingToken,
};
use wire::scsi::opcode::ThirdPartyCopyOut;
use zerocopy::{FromBytes, IntoBytes};

use super::super::answer::Answer;
use super::super::context::{Context, byte_range};
use super::super::row::Boxed;
use super::super::sbc::same;
use super::super::sense::Sense;
use super::super::unit::Unit;
use super::{COPY_BYTES_MAX, Record, Side, transfer};

/// Most ranges of one token or command.
pub const RANGES_MAX: usize = 16;
/// Of [`PopulateToken`]: the ROD type is valid.
const RTV: u8 = 0x02;
const RANGE_BYTES: usize = size_of::<RangeDescriptor>();

/// Where our part of a token begins, behind what SPC-4 6.4.6.4 gives a meaning.
const OWN_AT: usize = 128;
/// A token's own part: the UUID of its LU, its block size, the number of its ranges, the ranges.
const RANGES_AT: usize = OWN_AT + 16 + 4 + 4;
const _: () = assert!(RANGES_AT + RANGES_MAX * RANGE_BYTES <= ROD_TOKEN_BYTES);

/// Blocks, in the order in which they are meant.
type Ranges = Vec<(u64, u64)>;

pub fn populate<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        let (header, rest) =
            PopulateToken::read_from_prefix(&list).map_err(|_| Sense::parameter_length())?;
        let kind = RodType(header.rod_type.get());
        let known = [RodType::ANY, RodType::ACCESS_UPON_REFERENCE].contains(&kind);
        if header.flags & RTV != 0 && !known {
            return Err(Sense::parameter(8).into());
        }
        let ranges = read_ranges(context, rest, header.ranges_length.get(), 14)?;
        keep(context, ThirdPartyCopyOut::POPULATE_TOKEN, &ranges, Some(token(context, &ranges)));
        Ok(Vec::new())
    })
}

pub fn write<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        let (header, rest) =
            WriteUsingToken::read_from_prefix(&list).map_err(|_| Sense::parameter_length())?;
        let ranges = read_ranges(context, rest, header.ranges_length.get(), 534)?;
        let (token, _) = RodTokenHeader::read_from_prefix(&header.token).expect("it is shorter");
        match RodType(token.rod_type.get()) {
            RodType::ZERO => zero(context, &ranges).await?,
            RodType::ACCESS_UPON_REFERENCE => {
                let (source, from) = open(context, &header.token)?;
                copy(context, (source, from), header.offset.get(), &ranges).await?;
            }
            _ => return Err(unsupported().into()),
        }
        keep(context, ThirdPartyCopyOut::WRITE_USING_TOKEN, &ranges, None);
        Ok(Vec::new())
    })
}

/// The ranges of a parameter list, each of which must lie on the medium.
fn read_ranges(
    context: &Context<'_>,
    bytes: &[u8],
    len: u16,
    length_at: u16,
) -> Result<Ranges, Sense> {
    let bytes = bytes.get(..usize::from(len)).ok_or(Sense::parameter_length())?;
    let (chunks, rest) = bytes.as_chunks::<RANGE_BYTES>();
    if chunks.is_empty() || !rest.is_empty() {
        return Err(Sense::parameter(length_at));
    }
    if chunks.len() > RANGES_MAX {
        return Err(Sense::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS));
    }
    let mut ranges = Vec::new();
    let mut total = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let range = RangeDescriptor::read_from_bytes(chunk).expect("of its size");
        let (lba, count) = (range.lba.get(), u64::from(range.blocks.get()));
        total += byte_range(context.unit, lba, count)?.1;
        if total > COPY_BYTES_MAX {
            return Err(Sense::parameter(length_at + 10 + (index * RANGE_BYTES) as u16));
        }
        ranges.push((lba, count));
    }
    Ok(ranges)
}

fn token(context: &Context<'_>, ranges: &[(u64, u64)]) -> Box<[u8]> {
    let mut token = vec![0; ROD_TOKEN_BYTES];
    let header = RodTokenHeader {
        rod_type: RodType::ACCESS_UPON_REFERENCE.0.into(),
        length: ((ROD_TOKEN_BYTES - size_of::<RodTokenHeader>()) as u16).into(),
        ..RodTokenHeader::default()
    };
    token[..size_of::<RodTokenHeader>()].copy_from_slice(header.as_bytes());
    let mut own = context.unit.handle.identity().uuid.to_vec();
    own.extend(context.unit.block_size.to_be_bytes());
    own.extend((ranges.len() as u32).to_be_bytes());
    for (lba, count) in ranges {
        own.extend(lba.to_be_bytes());
        own.extend(count.to_be_bytes());
    }
    token[OWN_AT..OWN_AT + own.len()].copy_from_slice(&own);
    token.into()
}

/// The unit that a token is about, if this nexus sees it, and its ranges.
fn open(context: &Context<'_>, token: &[u8]) -> Result<(Rc<Unit>, Ranges), Sense> {
    let corrupt = || Sense::illegal(AdditionalSense::INVALID_TOKEN_OPERATION_TOKEN_CORRUPT);
    let (uuid, rest) = token[OWN_AT..].split_first_chunk::<16>().ok_or_else(corrupt)?;
    let (block_size, rest) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
    let count = u32::from_be_bytes(*count) as usize;
    if count > RANGES_MAX {
        return Err(corrupt());
    }
    let numbers = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
    let numbers: Vec<u64> = numbers.take(2 * count).collect();
    let ranges = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let block_size = u32::from_be_bytes(*block_size);
    let is_meant =
        |unit: &Rc<Unit>| unit.handle.identity().uuid == *uuid && unit.block_size == block_size;
    let unit = context.nexus.units().into_iter().map(|(_, unit)| unit).find(is_meant);
    let unknown = || Sense::illegal(AdditionalSense::INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN);
    Ok((unit.ok_or_else(unknown)?, ranges))
}

fn unsupported() -> Sense {
    Sense::illegal(AdditionalSense::INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
}

async fn zero(context: &Context<'_>, ranges: &[(u64, u64)]) -> Result<(), Answer> {
    for (lba, count) in ranges.iter().filter(|(_, count)| *count > 0) {
        let (offset, len) = byte_range(context.unit, *lba, *count)?;
        same::zero(context, offset, len, true).await?;
    }
    Ok(())
}

/// Copies from the ranges of a token, from a block of them on, into others.
async fn copy(
    context: &Context<'_>,
    (source, from): (Rc<Unit>, Ranges),
    offset: u64,
    to: &[(u64, u64)],
) -> Result<(), Answer> {
    if source.block_size != context.unit.block_size {
        return Err(unsupported().into());
    }
    let destination = context.nexus.units().into_iter().map(|(_, unit)| unit);
    let destination = destination.into_iter().find(|unit| std::ptr::eq(&**unit, context.unit));
    // It may have been unmapped meanwhile.
    let destination = destination.ok_or_else(super::unreachable)?;
    let block = u64::from(source.block_size);
    let pairs = pair(&from, offset, to).ok_or(Sense::parameter(8))?;
    for (from, to, count) in pairs {
        let from = Side::new(source.clone(), from)?;
        let to = Side::new(destination.clone(), to)?;
        transfer(context, &from, &to, count * block).await?;
    }
    Ok(())
}

/// Lays the source's ranges, less `skip` blocks, beside the destination's: where from, where to, how
/// many. None where the source ends first.
fn pair(from: &[(u64, u64)], mut skip: u64, to: &[(u64, u64)]) -> Option<Vec<(u64, u64, u64)>> {
    let mut sources = from.iter().filter_map(|&(lba, count)| {
        let cut = skip.min(count);
        skip -= cut;
        (count > cut).then(|| (lba.saturating_add(cut), count - cut))
    });
    let (mut lba, mut left) = (0, 0);
    let mut pairs = Vec::new();
    for &(mut target, mut count) in to {
        while count > 0 {
            if left == 0 {
                (lba, left) = sources.next()?;
            }
            let step = count.min(left);
            pairs.push((lba, target, step));
            (lba, left) = (lba.saturating_add(step), left - step);
            (target, count) = (target + step, count - step);
        }
    }
    Some(pairs)
}

fn keep(
    context: &Context<'_>,
    service: ThirdPartyCopyOut,
    ranges: &[(u64, u64)],
    token: Option<Box<[u8]>>,
) {
    let cdb: ThirdPartyCopy = context.cdb();
    let record = Record {
        list: cdb.list_identifier.get(),
        service: service.0,
        good: true,
        segments: ranges.len() as u16,
        bytes: ranges.iter().map(|(_, count)| count * u64::from(context.unit.block_size)).sum(),
        token,
    };
    context.unit.copies.borrow_mut().keep(record);
}

pub fn information(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let [_, _, list @ ..] = context.parsed.bytes;
    let list = u32::from_be_bytes(*list.first_chunk().expect("a CDB has more than six bytes"));
    let copies = context.unit.copies.borrow();
    let record = copies.find(list).ok_or(Sense::field(2))?;
    let mut tokens = Vec::new();
    if let Some(token) = &record.token {
        tokens.extend([0; 2]);
        tokens.extend_from_slice(token);
    }
    let len = size_of::<RodTokenInformation>() + 4 + tokens.len();
    let header = RodTokenInformation {
        available: (len as u32 - 4).into(),
        response_to: record.service,
        status: record.status(),
        transfer_count_units: UNITS_BLOCKS,
        transfer_count: (record.bytes / u64::from(context.unit.block_size)).into(),
        segments_processed: record.segments.into(),
        ..RodTokenInformation::default()
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend((tokens.len() as u32).to_be_bytes());
    bytes.extend(tokens);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_laid_beside_each_other() {
        let from = [(100, 4), (200, 0), (300, 6)];
        assert_eq!(
            pair(&from, 1, &[(0, 2), (50, 3)]),
            Some(vec![(101, 0, 2), (103, 50, 1), (300, 51, 2)])
        );
        assert_eq!(pair(&from, 10, &[]), Some(vec![]));
        assert_eq!(pair(&from, 4, &[(0, 6)]), Some(vec![(300, 0, 6)]));
        assert_eq!(pair(&from, 5, &[(0, 6)]), None);
        assert_eq!(pair(&from, u64::MAX, &[(0, 1)]), None);
    }
}
