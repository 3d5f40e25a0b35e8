//! Log pages (SPC-4 7.3, SBC-3 6.4).

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32};

open_enum! {
    pub enum Page: u8 {
        SUPPORTED_LOG_PAGES = 0x00,
        LOGICAL_BLOCK_PROVISIONING = 0x0c,
        INFORMATIONAL_EXCEPTIONS = 0x2f,
    }
}

/// Subpage of page 00h: supported log pages and subpages; of all others: all subpages.
pub const ALL_SUBPAGES: u8 = 0xff;
/// In the first byte of a page: it is in the subpage format.
pub const SPF: u8 = 0x40;
/// In the first byte of a page: parameters cannot be saved.
pub const DS: u8 = 0x80;

open_enum! {
    /// Parameters of logical block provisioning (SBC-3 6.4.5).
    pub enum ProvisioningParameter: u16 {
        AVAILABLE_LBA_MAPPING_RESOURCE_COUNT = 0x0001,
        USED_LBA_MAPPING_RESOURCE_COUNT = 0x0002,
    }
}

layouts! {
    pub struct PageHeader {
        pub page: u8,
        pub subpage: u8,
        /// Bytes behind this header.
        pub page_length: U16,
    }

    pub struct ParameterHeader {
        pub code: U16,
        /// Format and linking: [`BINARY_LIST`].
        pub control: u8,
        /// Bytes behind this header.
        pub length: u8,
    }

    /// A resource count of logical block provisioning.
    pub struct ResourceCount {
        pub header: ParameterHeader,
        pub count: U32,
        /// What the count is of: 1 this unit alone, 2 not this unit alone.
        pub scope: u8,
        pub reserved: [u8; 3],
    }

    /// Of informational exceptions: general (SPC-4 7.3.9).
    pub struct InformationalException {
        pub header: ParameterHeader,
        pub additional_sense: U16,
        pub temperature: u8,
        pub reserved: u8,
    }
}

/// FORMAT AND LINKING of a parameter that is a list in binary.
pub const BINARY_LIST: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_their_lengths() {
        assert_eq!(size_of::<ResourceCount>(), 12);
        assert_eq!(size_of::<InformationalException>(), 8);
    }
}
