//! Third-party copies: EXTENDED COPY(LID1), POPULATE TOKEN, WRITE USING TOKEN, and what is told of
//! them (SPC-4 6.4, 6.6, 6.7, 7.8.17; SBC-3 5.9, 5.39, 7.7).

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

layouts! {
    /// Parameter list header of EXTENDED COPY(LID1); CSCD descriptors, segment descriptors and
    /// inline data follow.
    pub struct ExtendedCopy {
        pub list_identifier: u8,
        /// LIST ID USAGE in two bits from [`LIST_ID_USAGE_SHIFT`], priority.
        pub flags: u8,
        pub cscd_list_length: U16,
        pub reserved: U32,
        pub segment_list_length: U32,
        pub inline_data_length: U32,
    }

    /// CSCD descriptor [`CscdType::IDENTIFICATION`]: a copy source or destination by designator.
    pub struct IdentificationCscd {
        pub kind: u8,
        /// Peripheral device type in five bits.
        pub device_type: u8,
        pub relative_initiator_port: U16,
        pub code_set: u8,
        /// Association and designator type.
        pub designator_type: u8,
        pub reserved: u8,
        pub designator_length: u8,
        pub designator: [u8; 20],
        pub pad: u8,
        pub block_length: [u8; 3],
    }

    /// Start of every segment descriptor.
    pub struct SegmentHeader {
        pub kind: u8,
        /// DC, CAT.
        pub flags: u8,
        /// Bytes behind this field.
        pub length: U16,
        pub source: U16,
        pub destination: U16,
    }

    /// Segment [`SegmentType::BLOCK_TO_BLOCK`].
    pub struct BlockToBlock {
        pub header: SegmentHeader,
        pub reserved: U16,
        /// Of the source, or with DC of the destination.
        pub blocks: U16,
        pub source_lba: U64,
        pub destination_lba: U64,
    }

    /// Segment [`SegmentType::BLOCK_OFFSET_TO_BLOCK_OFFSET`].
    pub struct OffsetToOffset {
        pub header: SegmentHeader,
        pub bytes: U32,
        pub source_lba: U64,
        pub destination_lba: U64,
        pub source_offset: U16,
        pub destination_offset: U16,
    }

    /// RECEIVE COPY STATUS(LID1).
    pub struct CopyStatus {
        /// Bytes behind this field.
        pub available: U32,
        pub status: u8,
        pub segments_processed: U16,
        pub transfer_count_units: u8,
        pub transfer_count: U32,
    }

    /// RECEIVE COPY OPERATING PARAMETERS; the codes of descriptors follow.
    pub struct OperatingParameters {
        /// Bytes behind this field.
        pub available: U32,
        /// SNLID.
        pub flags: u8,
        pub reserved5: [u8; 3],
        pub cscd_max: U16,
        pub segment_max: U16,
        pub descriptor_list_bytes_max: U32,
        pub segment_bytes_max: U32,
        pub inline_bytes_max: U32,
        pub held_data_limit: U32,
        pub stream_transfer_max: U32,
        pub reserved32: U16,
        pub total_concurrent_copies: U16,
        pub concurrent_copies: u8,
        /// log2 of bytes.
        pub data_segment_granularity: u8,
        pub inline_data_granularity: u8,
        pub held_data_granularity: u8,
        pub reserved40: [u8; 3],
        pub descriptor_codes_length: u8,
    }

    /// Parameter list header of POPULATE TOKEN; [`RangeDescriptor`]s follow.
    pub struct PopulateToken {
        /// Bytes behind this field.
        pub length: U16,
        pub flags: u8,
        pub reserved: u8,
        pub inactivity_timeout_s: U32,
        pub rod_type: U32,
        pub reserved12: U16,
        pub ranges_length: U16,
    }

    /// Parameter list header of WRITE USING TOKEN; [`RangeDescriptor`]s follow.
    pub struct WriteUsingToken {
        /// Bytes behind this field.
        pub length: U16,
        /// DEL_TKN, IMMED.
        pub flags: u8,
        pub reserved: [u8; 5],
        /// In blocks of the source.
        pub offset: U64,
        pub token: [u8; ROD_TOKEN_BYTES],
        pub reserved528: [u8; 6],
        pub ranges_length: U16,
    }

    pub struct RangeDescriptor {
        pub lba: U64,
        pub blocks: U32,
        pub reserved: U32,
    }

    /// Start of a ROD token (SPC-4 6.4.6.4); the rest is its maker's.
    pub struct RodTokenHeader {
        pub rod_type: U32,
        pub reserved: U16,
        /// Bytes behind this field.
        pub length: U16,
    }

    /// RECEIVE ROD TOKEN INFORMATION; sense data, then the length of tokens and tokens follow.
    pub struct RodTokenInformation {
        /// Bytes behind this field.
        pub available: U32,
        /// The service action that this is about.
        pub response_to: u8,
        pub status: u8,
        pub operation_counter: U16,
        pub status_update_delay_ms: U32,
        pub completion_status: u8,
        pub sense_field_length: u8,
        pub sense_length: u8,
        pub transfer_count_units: u8,
        pub transfer_count: U64,
        pub segments_processed: U16,
        pub reserved: [u8; 6],
    }
}

/// Length of a ROD token.
pub const ROD_TOKEN_BYTES: usize = 512;
/// Of [`ExtendedCopy`]: where LIST ID USAGE begins, and how wide it is.
pub const LIST_ID_USAGE_SHIFT: u8 = 3;
/// LIST ID USAGE.
pub const LIST_ID_USAGE: u8 = 0x03;
/// LIST ID USAGE: nothing is kept of this copy.
pub const DISCARD: u8 = 0x02;
/// Of a segment: the number of blocks is of the destination.
pub const DC: u8 = 0x02;
/// Of operating parameters: there may be no list identifier.
pub const SNLID: u8 = 0x01;
/// TRANSFER COUNT UNITS: blocks of the destination.
pub const UNITS_BLOCKS: u8 = 0xf1;
/// COPY MANAGER STATUS, COPY OPERATION STATUS: ended well.
pub const COMPLETED: u8 = 0x01;
/// COPY MANAGER STATUS, COPY OPERATION STATUS: ended with an error.
pub const FAILED: u8 = 0x02;

open_enum! {
    pub enum CscdType: u8 {
        IDENTIFICATION = 0xe4,
    }
}

open_enum! {
    pub enum SegmentType: u8 {
        BLOCK_TO_BLOCK = 0x02,
        VERIFY_CSCD = 0x07,
        BLOCK_OFFSET_TO_BLOCK_OFFSET = 0x0a,
    }
}

open_enum! {
    /// ROD TYPE (SPC-4 6.4.6.2).
    pub enum RodType: u32 {
        /// As the copy manager likes.
        ANY = 0x0000_0000,
        ACCESS_UPON_REFERENCE = 0x0001_0000,
        ZERO = 0xffff_0001,
    }
}

open_enum! {
    /// Types of the descriptors of VPD page third-party copy (SPC-4 7.8.17).
    pub enum CopyDescriptorType: u16 {
        BLOCK_ROD_TOKEN_LIMITS = 0x0000,
        SUPPORTED_COMMANDS = 0x0001,
        PARAMETER_DATA = 0x0004,
        SUPPORTED_DESCRIPTORS = 0x0008,
        SUPPORTED_CSCD_IDS = 0x000c,
        SUPPORTED_ROD_TYPES = 0x0108,
        GENERAL_COPY_OPERATIONS = 0x8001,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn data_has_the_length_of_its_table() {
        assert_eq!(size_of::<ExtendedCopy>(), 16);
        assert_eq!(size_of::<IdentificationCscd>(), 32);
        assert_eq!(size_of::<BlockToBlock>(), 28);
        assert_eq!(size_of::<OffsetToOffset>(), 32);
        assert_eq!(size_of::<CopyStatus>(), 12);
        assert_eq!(size_of::<OperatingParameters>(), 44);
        assert_eq!(offset_of!(OperatingParameters, concurrent_copies), 36);
        assert_eq!((size_of::<PopulateToken>(), size_of::<WriteUsingToken>()), (16, 536));
        assert_eq!((size_of::<RangeDescriptor>(), size_of::<RodTokenInformation>()), (16, 32));
    }
}
