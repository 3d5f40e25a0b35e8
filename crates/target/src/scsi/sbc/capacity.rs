//! READ CAPACITY(10) and (16) (SBC-3 5.15, 5.16).

use wire::scsi::capacity::{Capacity10, Capacity16, LBPME, LBPRZ};
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::sense::Sense;
use super::limits::is_thin;

pub fn short(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let last = last_lba(context);
    let data = Capacity10 {
        last_lba: u32::try_from(last).unwrap_or(u32::MAX).into(),
        block_length: context.unit.block_size.into(),
    };
    Ok(data.as_bytes().to_vec())
}

pub fn long(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let geometry = context.unit.geometry();
    let exponent = (geometry.physical_block_size / geometry.block_size).max(1).ilog2();
    let data = Capacity16 {
        last_lba: last_lba(context).into(),
        block_length: geometry.block_size.into(),
        // Four bits.
        exponents: exponent.min(15) as u8,
        alignment: if is_thin(&geometry) { LBPME | LBPRZ } else { 0 }.into(),
        ..Capacity16::default()
    };
    Ok(data.as_bytes().to_vec())
}

/// Of a medium without blocks there is no last one; it says the first.
fn last_lba(context: &Context<'_>) -> u64 {
    context.unit.blocks().saturating_sub(1)
}
