//! Mode parameters: headers, block descriptors (SPC-4 7.5, SBC-3 6.5.2) and pages.

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

open_enum! {
    pub enum Page: u8 {
        READ_WRITE_ERROR_RECOVERY = 0x01,
        DISCONNECT_RECONNECT = 0x02,
        VERIFY_ERROR_RECOVERY = 0x07,
        CACHING = 0x08,
        CONTROL = 0x0a,
        POWER_CONDITION = 0x1a,
        INFORMATIONAL_EXCEPTIONS = 0x1c,
        ALL_PAGES = 0x3f,
    }
}

/// Subpage of control: control extension.
pub const CONTROL_EXTENSION: u8 = 0x01;
/// Subpage that stands for all subpages.
pub const ALL_SUBPAGES: u8 = 0xff;

/// Which values a MODE SENSE asks for: the upper two bits of byte 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    Current,
    Changeable,
    Default,
    Saved,
}

/// Of the first byte of a page: it can be saved.
pub const PS: u8 = 0x80;
/// Of the first byte of a page: it is in the subpage format.
pub const SPF: u8 = 0x40;

/// DEVICE-SPECIFIC PARAMETER of a disk: write protected.
pub const WRITE_PROTECTED: u8 = 0x80;
/// DEVICE-SPECIFIC PARAMETER of a disk: DPO and FUA are supported.
pub const DPOFUA: u8 = 0x10;
/// Of [`Header10`]: block descriptors are long.
pub const LONGLBA: u8 = 0x01;

layouts! {
    pub struct Header6 {
        /// Bytes behind this one.
        pub mode_data_length: u8,
        pub medium_type: u8,
        pub device_specific: u8,
        pub block_descriptor_length: u8,
    }

    pub struct Header10 {
        /// Bytes behind this field.
        pub mode_data_length: U16,
        pub medium_type: u8,
        pub device_specific: u8,
        pub flags: u8,
        pub reserved: u8,
        pub block_descriptor_length: U16,
    }

    pub struct ShortBlockDescriptor {
        pub block_count: U32,
        /// A reserved byte and 24 bits of length.
        pub block_length: U32,
    }

    pub struct LongBlockDescriptor {
        pub block_count: U64,
        pub reserved: U32,
        pub block_length: U32,
    }

    pub struct ErrorRecovery {
        pub page: u8,
        pub length: u8,
        pub flags: u8,
        pub read_retries: u8,
        pub obsolete: [u8; 3],
        pub flags7: u8,
        pub write_retries: u8,
        pub reserved: u8,
        pub time_limit_ms: U16,
    }

    pub struct Caching {
        pub page: u8,
        pub length: u8,
        /// [`caching::WCE`], [`caching::RCD`].
        pub flags: u8,
        pub retention: u8,
        pub disable_prefetch_length: U16,
        pub minimum_prefetch: U16,
        pub maximum_prefetch: U16,
        pub maximum_prefetch_ceiling: U16,
        pub flags12: u8,
        pub cache_segments: u8,
        pub cache_segment_size: U16,
        pub reserved: [u8; 4],
    }

    pub struct Control {
        pub page: u8,
        pub length: u8,
        /// TST in three bits, [`control::TMF_ONLY`], [`control::D_SENSE`], [`control::GLTSD`].
        pub flags2: u8,
        /// Queue algorithm in four bits, QERR in two.
        pub flags3: u8,
        /// [`control::SWP`], UA_INTLCK_CTRL.
        pub flags4: u8,
        /// [`control::TAS`], autoload mode.
        pub flags5: u8,
        pub obsolete: U16,
        pub busy_timeout_period: U16,
        pub self_test_completion_s: U16,
    }

    /// In the subpage format.
    pub struct ControlExtension {
        pub page: u8,
        pub subpage: u8,
        pub length: U16,
        pub flags4: u8,
        pub initial_priority: u8,
        pub maximum_sense_data_length: u8,
        pub reserved: [u8; 25],
    }

    pub struct InformationalExceptions {
        pub page: u8,
        pub length: u8,
        pub flags: u8,
        /// MRIE.
        pub reporting: u8,
        pub interval_timer: U32,
        pub report_count: U32,
    }
}

pub mod caching {
    /// Write cache enabled.
    pub const WCE: u8 = 0x04;
    /// Read cache disabled.
    pub const RCD: u8 = 0x01;
}

pub mod control {
    /// TST: a task set per nexus.
    pub const TST_PER_NEXUS: u8 = 0x20;
    pub const TMF_ONLY: u8 = 0x10;
    /// Sense data in the descriptor format.
    pub const D_SENSE: u8 = 0x04;
    /// Global logging target save disabled.
    pub const GLTSD: u8 = 0x02;
    /// QUEUE ALGORITHM MODIFIER: unrestricted reordering.
    pub const UNRESTRICTED_REORDERING: u8 = 0x10;
    /// QERR, two bits.
    pub const QERR: u8 = 0x06;
    /// UA_INTLCK_CTRL, two bits.
    pub const UA_INTLCK_CTRL: u8 = 0x30;
    /// Software write protect.
    pub const SWP: u8 = 0x08;
    /// Task aborted status.
    pub const TAS: u8 = 0x40;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_their_lengths() {
        for (size, length) in [
            (size_of::<ErrorRecovery>(), 0x0a),
            (size_of::<Caching>(), 0x12),
            (size_of::<Control>(), 0x0a),
            (size_of::<InformationalExceptions>(), 0x0a),
        ] {
            assert_eq!(size, length + 2);
        }
        assert_eq!(size_of::<ControlExtension>(), 0x1c + 4);
        assert_eq!((size_of::<Header6>(), size_of::<Header10>()), (4, 8));
        assert_eq!(size_of::<ShortBlockDescriptor>(), 8);
        assert_eq!(size_of::<LongBlockDescriptor>(), 16);
    }
}
