//! GET LBA STATUS (SBC-3 5.6): which blocks have a place in the store.

use block::extent::{self, EXTENT_BYTES, Extent, ExtentState};
use block::{Buffer, Op, OpSet, Request};
use wire::scsi::AdditionalSense;
use wire::scsi::capacity::{DEALLOCATED, LbaStatus, LbaStatusHeader, MAPPED};
use wire::scsi::cdb::Transfer16;
use zerocopy::IntoBytes;

use super::super::answer::Answer;
use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::limits::STATUS_DESCRIPTORS_MAX;

pub fn run<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let lba = context.cdb::<Transfer16>().lba.get();
        if lba >= context.unit.blocks() {
            let code = AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE;
            return Err(Sense::illegal(code).with_information(lba).into());
        }
        let room = context.parsed.data_in_len() as usize;
        let room = room.saturating_sub(size_of::<LbaStatusHeader>()) / size_of::<LbaStatus>();
        let descriptors = describe(context, lba, room.clamp(1, STATUS_DESCRIPTORS_MAX)).await?;
        let body = descriptors.as_bytes();
        let header = LbaStatusHeader { length: (body.len() as u32 + 4).into(), reserved: 0.into() };
        Ok([header.as_bytes(), body].concat())
    })
}

/// What is known from a block on, in at most so many descriptors; at least one.
async fn describe(context: &Context<'_>, lba: u64, max: usize) -> Result<Vec<LbaStatus>, Answer> {
    let block = u64::from(context.unit.block_size);
    let size = context.unit.blocks() * block;
    let extents = extents(context, lba * block, size, max).await?;
    let mut descriptors: Vec<LbaStatus> = Vec::new();
    let mut at = lba;
    for extent in extents {
        let provisioning = match extent.state {
            // Anchored blocks are not told apart (ANC_SUP is 0).
            ExtentState::Data | ExtentState::Zero => MAPPED,
            ExtentState::Hole => DEALLOCATED,
        };
        let mut blocks = extent.len / block;
        if let Some(last) = descriptors.last_mut().filter(|it| it.provisioning == provisioning) {
            let more = blocks.min(u64::from(u32::MAX - last.count.get()));
            last.count = (last.count.get() + more as u32).into();
            (at, blocks) = (at + more, blocks - more);
        }
        while blocks > 0 && descriptors.len() < max {
            let count = u32::try_from(blocks).unwrap_or(u32::MAX);
            descriptors.push(LbaStatus {
                lba: at.into(),
                count: count.into(),
                provisioning,
                ..LbaStatus::default()
            });
            (at, blocks) = (at + u64::from(count), blocks - u64::from(count));
        }
    }
    Ok(descriptors)
}

/// What the device says of a range; one that knows nothing has everything in its place.
async fn extents(
    context: &Context<'_>,
    offset: u64,
    size: u64,
    max: usize,
) -> Result<Vec<Extent>, Answer> {
    let len = size - offset;
    let all = vec![Extent { len, state: ExtentState::Data }];
    if !context.unit.geometry().ops.contains(OpSet::STATUS) {
        return Ok(all);
    }
    let buffer = Buffer::zeroed(max * EXTENT_BYTES);
    let request = Request { op: Op::Status, offset, len, data: buffer.sgl() };
    let count = context.io(request).await?;
    let extents = extent::load(&buffer.sgl(), count as usize).unwrap_or_default();
    Ok(if extents.is_empty() { all } else { extents })
}

/// Most requests to count what a unit uses.
const LOOKS_MAX: usize = 64;

/// How much of the store the unit uses; None where that takes too long to count.
pub async fn used_bytes(context: &Context<'_>) -> Result<Option<u64>, Answer> {
    let size = context.unit.blocks() * u64::from(context.unit.block_size);
    let (mut at, mut used) = (0, 0);
    for _ in 0..LOOKS_MAX {
        if at >= size {
            return Ok(Some(used));
        }
        let found = extents(context, at, size, STATUS_DESCRIPTORS_MAX).await?;
        for extent in &found {
            at += extent.len;
            used += if extent.state == ExtentState::Hole { 0 } else { extent.len };
        }
    }
    Ok(None)
}
