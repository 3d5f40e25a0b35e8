//! Target port groups (SPC-4 6.37, 6.43).

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32};

open_enum! {
    /// ASYMMETRIC ACCESS STATE.
    pub enum AccessState: u8 {
        ACTIVE_OPTIMIZED = 0x0,
        ACTIVE_NON_OPTIMIZED = 0x1,
        STANDBY = 0x2,
        UNAVAILABLE = 0x3,
        OFFLINE = 0xe,
        TRANSITIONING = 0xf,
    }
}

/// Which states a group can take; the second byte of [`PortGroup`].
pub mod supports {
    pub const TRANSITIONING: u8 = 0x80;
    pub const OFFLINE: u8 = 0x40;
    pub const UNAVAILABLE: u8 = 0x08;
    pub const STANDBY: u8 = 0x04;
    pub const NON_OPTIMIZED: u8 = 0x02;
    pub const OPTIMIZED: u8 = 0x01;
}

/// Of [`PortGroup`]: the preferred one.
pub const PREF: u8 = 0x80;
/// STATUS CODE: altered by a SET TARGET PORT GROUPS.
pub const ALTERED_EXPLICITLY: u8 = 1;
/// STATUS CODE: altered by itself.
pub const ALTERED_IMPLICITLY: u8 = 2;

/// PARAMETER DATA FORMAT of REPORT TARGET PORT GROUPS: with the extended header; in the upper three
/// bits of byte 1 of the CDB, and in byte 4 of the data.
pub const EXTENDED_HEADER: u8 = 0x20;
/// Of those three bits.
pub const FORMAT_MASK: u8 = 0xe0;

layouts! {
    /// The extended header; the other one is the length alone.
    pub struct ExtendedHeader {
        pub length: U32,
        pub format: u8,
        pub implicit_transition_time_s: u8,
        pub reserved: U16,
    }

    /// One group; its ports follow.
    pub struct PortGroup {
        /// [`PREF`] and the access state.
        pub state: u8,
        pub supported: u8,
        pub group: U16,
        pub reserved: u8,
        pub status: u8,
        pub vendor_specific: u8,
        pub port_count: u8,
    }

    pub struct Port {
        pub obsolete: U16,
        pub relative_port: U16,
    }

    /// Of SET TARGET PORT GROUPS, behind four reserved bytes.
    pub struct SetPortGroup {
        pub state: u8,
        pub reserved: u8,
        pub group: U16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_their_lengths() {
        assert_eq!((size_of::<ExtendedHeader>(), size_of::<PortGroup>()), (8, 8));
        assert_eq!((size_of::<Port>(), size_of::<SetPortGroup>()), (4, 4));
    }
}
