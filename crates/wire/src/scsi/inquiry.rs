//! Standard INQUIRY data (SPC-4 6.4.2).

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::U16;

open_enum! {
    /// The lower five bits of the first byte.
    pub enum DeviceType: u8 {
        DISK = 0x00,
        TAPE = 0x01,
        OPTICAL = 0x05,
        CHANGER = 0x08,
        WELL_KNOWN = 0x1e,
        UNKNOWN = 0x1f,
    }
}

/// PERIPHERAL QUALIFIER, the upper three bits of the first byte: nothing can be connected here.
pub const QUALIFIER_NOT_CAPABLE: u8 = 0x60;
/// RMB, in byte 1.
pub const REMOVABLE: u8 = 0x80;
/// VERSION of SPC-4.
pub const VERSION_SPC_4: u8 = 0x06;
/// RESPONSE DATA FORMAT, the only one there is.
pub const RESPONSE_DATA_FORMAT: u8 = 0x02;
/// NORMACA, in byte 3: auto contingent allegiance is supported.
pub const NORM_ACA: u8 = 0x20;
/// HISUP, in byte 3: LUNs follow the hierarchical model.
pub const HI_SUP: u8 = 0x10;
/// In byte 5: implicit asymmetric access.
pub const TPGS_IMPLICIT: u8 = 0x10;
/// In byte 5: explicit asymmetric access.
pub const TPGS_EXPLICIT: u8 = 0x20;
/// 3PC, in byte 5: third-party copies.
pub const THIRD_PARTY_COPY: u8 = 0x08;
/// MULTIP, in byte 6: several target ports.
pub const MULTI_PORT: u8 = 0x10;
/// CMDQUE, in byte 7.
pub const COMMAND_QUEUE: u8 = 0x02;

layouts! {
    pub struct StandardInquiry {
        /// Qualifier and device type.
        pub peripheral: u8,
        pub removable: u8,
        pub version: u8,
        pub format: u8,
        /// Bytes behind this one.
        pub additional_length: u8,
        pub flags5: u8,
        pub flags6: u8,
        pub flags7: u8,
        pub vendor: [u8; 8],
        pub product: [u8; 16],
        pub revision: [u8; 4],
        pub vendor_specific: [u8; 20],
        pub clocking: u8,
        pub reserved: u8,
        pub version_descriptors: [U16; 8],
        pub reserved74: [u8; 22],
    }
}

open_enum! {
    /// A standard that the unit claims to follow (SPC-4 annex D.8).
    pub enum VersionDescriptor: u16 {
        SAM_5 = 0x00a0,
        MMC_6 = 0x04e0,
        SPC_4 = 0x0460,
        SBC_3 = 0x04c0,
        SBC_4 = 0x0600,
        ISCSI = 0x0960,
        SSC_4 = 0x0520,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn fields_lie_where_spc_says() {
        assert_eq!(size_of::<StandardInquiry>(), 96);
        assert_eq!(offset_of!(StandardInquiry, vendor), 8);
        assert_eq!(offset_of!(StandardInquiry, revision), 32);
        assert_eq!(offset_of!(StandardInquiry, version_descriptors), 58);
    }
}
