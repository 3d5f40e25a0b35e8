//! Vital product data: pages, designators (SPC-4 7.8) and the pages of SBC-3 6.6.

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

open_enum! {
    pub enum Page: u8 {
        SUPPORTED_VPD_PAGES = 0x00,
        UNIT_SERIAL_NUMBER = 0x80,
        DEVICE_IDENTIFICATION = 0x83,
        EXTENDED_INQUIRY_DATA = 0x86,
        MODE_PAGE_POLICY = 0x87,
        SCSI_PORTS = 0x88,
        THIRD_PARTY_COPY = 0x8f,
        BLOCK_LIMITS = 0xb0,
        BLOCK_DEVICE_CHARACTERISTICS = 0xb1,
        LOGICAL_BLOCK_PROVISIONING = 0xb2,
    }
}

open_enum! {
    /// What a designator is (SPC-4 7.8.6.1).
    pub enum DesignatorType: u8 {
        VENDOR_SPECIFIC = 0x0,
        T10_VENDOR_ID = 0x1,
        EUI_64 = 0x2,
        NAA = 0x3,
        RELATIVE_TARGET_PORT = 0x4,
        TARGET_PORT_GROUP = 0x5,
        LOGICAL_UNIT_GROUP = 0x6,
        MD5 = 0x7,
        SCSI_NAME_STRING = 0x8,
        PROTOCOL_SPECIFIC_PORT = 0x9,
        UUID = 0xa,
    }
}

open_enum! {
    /// What a designator names.
    pub enum Association: u8 {
        LOGICAL_UNIT = 0x00,
        TARGET_PORT = 0x10,
        TARGET_DEVICE = 0x20,
    }
}

/// CODE SET of a designator.
pub const CODE_SET_BINARY: u8 = 1;
/// CODE SET of a designator.
pub const CODE_SET_ASCII: u8 = 2;
/// CODE SET of a designator.
pub const CODE_SET_UTF_8: u8 = 3;
/// PIV: the protocol identifier is valid; in byte 1 of a designator.
pub const PROTOCOL_VALID: u8 = 0x80;

/// NAA, the upper four bits of a name: assigned by the administrator of the place.
pub const NAA_LOCALLY_ASSIGNED: u8 = 0x30;
/// NAA: IEEE registered extended.
pub const NAA_REGISTERED_EXTENDED: u8 = 0x60;

layouts! {
    pub struct PageHeader {
        pub peripheral: u8,
        pub page: u8,
        /// Bytes behind this header.
        pub page_length: U16,
    }

    pub struct DesignatorHeader {
        /// Protocol identifier in the upper four bits, code set in the lower.
        pub protocol_code_set: u8,
        /// [`PROTOCOL_VALID`], association, type.
        pub kind: u8,
        pub reserved: u8,
        /// Bytes behind this header.
        pub length: u8,
    }

    /// Relative target port, target port group.
    pub struct PortNumber {
        pub obsolete: U16,
        pub number: U16,
    }

    /// Extended INQUIRY data, behind the header (SPC-4 7.8.7).
    pub struct ExtendedInquiry {
        /// ACTIVATE MICROCODE, SPT, GRD_CHK, APP_CHK, REF_CHK.
        pub flags4: u8,
        /// UASK_SUP, GROUP_SUP, PRIOR_SUP, and which attributes are supported.
        pub flags5: u8,
        /// WU_SUP, CRD_SUP, NV_SUP, V_SUP.
        pub flags6: u8,
        /// LUICLR and others.
        pub flags7: u8,
        pub flags8: u8,
        /// Multi I_T nexus microcode download.
        pub flags9: u8,
        pub extended_self_test_minutes: U16,
        pub flags12: u8,
        pub maximum_sense_data_length: u8,
        pub reserved: [u8; 50],
    }

    /// Block limits, behind the header (SBC-3 6.6.3). Counts in logical blocks.
    pub struct BlockLimits {
        /// [`WSNZ`].
        pub flags: u8,
        pub maximum_compare_and_write_length: u8,
        pub optimal_transfer_length_granularity: U16,
        pub maximum_transfer_length: U32,
        pub optimal_transfer_length: U32,
        pub maximum_prefetch_length: U32,
        pub maximum_unmap_lba_count: U32,
        pub maximum_unmap_block_descriptor_count: U32,
        pub optimal_unmap_granularity: U32,
        /// [`UGAVALID`] and the alignment.
        pub unmap_granularity_alignment: U32,
        pub maximum_write_same_length: U64,
        pub maximum_atomic_transfer_length: U32,
        pub atomic_alignment: U32,
        pub atomic_transfer_length_granularity: U32,
        pub maximum_atomic_transfer_length_with_boundary: U32,
        pub maximum_atomic_boundary_size: U32,
    }

    /// Block device characteristics, behind the header (SBC-3 6.6.2).
    pub struct BlockCharacteristics {
        pub medium_rotation_rate: U16,
        pub product_type: u8,
        /// [`WABEREQ_READABLE`] and others, nominal form factor in four bits.
        pub erase_form_factor: u8,
        /// [`FUAB`], VBULS.
        pub flags: u8,
        pub reserved: [u8; 55],
    }

    /// Logical block provisioning, behind the header (SBC-3 6.6.4).
    pub struct Provisioning {
        pub threshold_exponent: u8,
        /// [`LBPU`], [`LBPWS`], [`LBPWS10`], [`LBPRZ`], [`ANC_SUP`].
        pub flags: u8,
        /// [`PROVISIONING_THIN`] or another, in three bits.
        pub provisioning_type: u8,
        pub threshold_percentage: u8,
    }

    /// Of each port of SCSI ports; the initiator's transport ID follows, then [`PortDescriptors`].
    pub struct PortHeader {
        pub reserved: U16,
        pub relative_port: U16,
        pub reserved4: U16,
        pub initiator_id_length: U16,
    }

    /// Target port designators follow.
    pub struct PortDescriptors {
        pub reserved: U16,
        pub length: U16,
    }

    /// Start of each descriptor of third-party copy (SPC-4 7.8.17).
    pub struct CopyDescriptor {
        pub kind: U16,
        pub length: U16,
    }
}

/// WRITE SAME of no blocks is an error.
pub const WSNZ: u8 = 0x01;
/// The alignment of unmaps is valid.
pub const UGAVALID: u32 = 1 << 31;
/// UNMAP is supported.
pub const LBPU: u8 = 0x80;
/// WRITE SAME(16) may unmap.
pub const LBPWS: u8 = 0x40;
/// WRITE SAME(10) may unmap.
pub const LBPWS10: u8 = 0x20;
/// Unmapped blocks read zero; of three bits the lowest.
pub const LBPRZ: u8 = 0x04;
/// Anchored blocks are supported.
pub const ANC_SUP: u8 = 0x02;
pub const PROVISIONING_FULL: u8 = 0;
pub const PROVISIONING_THIN: u8 = 2;
/// MEDIUM ROTATION RATE of a medium that does not turn.
pub const NON_ROTATING: u16 = 1;
/// WABEREQ: blocks can be read after a block erase, before they are written.
pub const WABEREQ_READABLE: u8 = 0x40;
/// Of [`BlockCharacteristics`]: SYNCHRONIZE CACHE writes whatever FUA would.
pub const FUAB: u8 = 0x02;

/// Of [`ExtendedInquiry`].
pub mod extended {
    /// HEADSUP, ORDSUP, SIMPSUP.
    pub const HEAD_ORDERED_SIMPLE: u8 = 0x07;
    /// V_SUP: the volatile cache can be turned on.
    pub const V_SUP: u8 = 0x01;
    /// LUICLR: once one unit has told a nexus that LUNs have changed, the others do not.
    pub const LUICLR: u8 = 0x01;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_their_lengths() {
        assert_eq!(size_of::<PageHeader>(), 4);
        assert_eq!(size_of::<ExtendedInquiry>(), 0x3c);
        assert_eq!(size_of::<BlockLimits>(), 0x3c);
        assert_eq!(size_of::<BlockCharacteristics>(), 0x3c);
        assert_eq!(size_of::<Provisioning>(), 4);
        assert_eq!(size_of::<PortHeader>(), 8);
    }
}
