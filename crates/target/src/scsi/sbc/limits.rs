//! How much one command may do, as constants and as the pages in which a client reads them: block
//! limits, characteristics, logical block provisioning (SBC-3 6.6).

use block::{Geometry, Op, OpSet};
use wire::scsi::vpd::{
    BlockCharacteristics, BlockLimits, LBPRZ, LBPU, LBPWS, LBPWS10, NON_ROTATING,
    PROVISIONING_FULL, PROVISIONING_THIN, Provisioning, UGAVALID, WABEREQ_READABLE, WSNZ,
};
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::unit::Unit;

/// Most data of one read or write: what a transport must be ready to hold.
pub const TRANSFER_BYTES_MAX: u64 = 16 << 20;
/// Most that one WRITE SAME writes.
pub const SAME_BYTES_MAX: u64 = 16 << 20;
/// Most blocks of one UNMAP, of all its descriptors.
pub const UNMAP_BLOCKS_MAX: u64 = 1 << 20;
/// Most descriptors of one UNMAP.
pub const UNMAP_DESCRIPTORS_MAX: usize = 1024;
/// Most descriptors of one answer to GET LBA STATUS.
pub const STATUS_DESCRIPTORS_MAX: usize = 256;
/// The number of blocks to compare has one byte.
const COMPARE_BLOCKS_MAX: u64 = 255;
/// What a mapping resource is counted in.
const THRESHOLD_BYTES: u32 = 1 << 20;

/// Most bytes that one COMPARE AND WRITE compares.
pub fn compare_bytes_max(geometry: &Geometry) -> u64 {
    if !geometry.ops.contains(OpSet::COMPARE_AND_WRITE) {
        return 0;
    }
    let blocks = u64::from(geometry.exclusive_max / geometry.block_size).min(COMPARE_BLOCKS_MAX);
    blocks * u64::from(geometry.block_size)
}

/// Whether the unit gives space back, and so is thin (LBPME).
pub fn is_thin(geometry: &Geometry) -> bool {
    geometry.ops.contains(OpSet::needed_by(Op::Discard))
}

/// log2 of the blocks of a threshold set.
pub fn threshold_exponent(unit: &Unit) -> u32 {
    (THRESHOLD_BYTES / unit.block_size).ilog2()
}

pub fn block_limits(context: &Context<'_>) -> Vec<u8> {
    let geometry = context.unit.geometry();
    let block = geometry.block_size;
    let in_blocks = |bytes: u64| u32::try_from(bytes / u64::from(block)).unwrap_or(u32::MAX);
    let mut page = BlockLimits {
        flags: WSNZ,
        maximum_compare_and_write_length: in_blocks(compare_bytes_max(&geometry)) as u8,
        optimal_transfer_length_granularity: u16::try_from(geometry.physical_block_size / block)
            .unwrap_or(0)
            .into(),
        maximum_transfer_length: in_blocks(TRANSFER_BYTES_MAX).into(),
        optimal_transfer_length: in_blocks(u64::from(geometry.optimal_io_size)).into(),
        maximum_write_same_length: u64::from(in_blocks(SAME_BYTES_MAX)).into(),
        ..BlockLimits::default()
    };
    if is_thin(&geometry) {
        page.maximum_unmap_lba_count = (UNMAP_BLOCKS_MAX as u32).into();
        page.maximum_unmap_block_descriptor_count = (UNMAP_DESCRIPTORS_MAX as u32).into();
        page.optimal_unmap_granularity = (geometry.discard_granularity / block).into();
        page.unmap_granularity_alignment = UGAVALID.into();
    }
    page.as_bytes().to_vec()
}

pub fn characteristics(_: &Context<'_>) -> Vec<u8> {
    let page = BlockCharacteristics {
        medium_rotation_rate: NON_ROTATING.into(),
        erase_form_factor: WABEREQ_READABLE,
        ..BlockCharacteristics::default()
    };
    page.as_bytes().to_vec()
}

pub fn provisioning(context: &Context<'_>) -> Vec<u8> {
    let thin = is_thin(&context.unit.geometry());
    let page = Provisioning {
        threshold_exponent: if thin { threshold_exponent(context.unit) as u8 } else { 0 },
        flags: if thin { LBPU | LBPWS | LBPWS10 | LBPRZ } else { 0 },
        provisioning_type: if thin { PROVISIONING_THIN } else { PROVISIONING_FULL },
        threshold_percentage: 0,
    };
    page.as_bytes().to_vec()
}
