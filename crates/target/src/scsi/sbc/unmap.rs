//! UNMAP (SBC-3 5.32): ranges whose space may be given back; they read zero afterwards.

use block::{Op, Request};
use wire::scsi::capacity::{UnmapDescriptor, UnmapHeader};
use zerocopy::FromBytes;

use super::super::context::{Context, byte_range};
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::limits::{UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX};

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        for (offset, len) in ranges(context)? {
            context.still_wanted()?;
            context.io(Request::plain(Op::Discard, offset, len)).await?;
        }
        Ok(Vec::new())
    })
}

/// The ranges, in bytes; all of them are looked at before the first is touched.
fn ranges(context: &Context<'_>) -> Result<Vec<(u64, u64)>, Sense> {
    let list = context.parameters()?;
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let (header, rest) =
        UnmapHeader::read_from_prefix(&list).map_err(|_| Sense::parameter_length())?;
    // A length that is not whole descriptors ends with the last whole one (SBC-3 5.32.2).
    let len = usize::from(header.block_descriptor_data_length.get()).min(rest.len());
    let (descriptors, _) = rest[..len].as_chunks::<{ size_of::<UnmapDescriptor>() }>();
    if descriptors.len() > UNMAP_DESCRIPTORS_MAX {
        return Err(Sense::parameter(2));
    }
    let mut ranges = Vec::with_capacity(descriptors.len());
    let mut total = 0;
    for (index, bytes) in descriptors.iter().enumerate() {
        let descriptor = UnmapDescriptor::read_from_bytes(bytes).expect("of its size");
        let count = u64::from(descriptor.count.get());
        total += count;
        if total > UNMAP_BLOCKS_MAX {
            let at = size_of::<UnmapHeader>() + index * size_of::<UnmapDescriptor>() + 8;
            return Err(Sense::parameter(at as u16));
        }
        let range = byte_range(context.unit, descriptor.lba.get(), count)?;
        if count > 0 {
            ranges.push(range);
        }
    }
    Ok(ranges)
}
