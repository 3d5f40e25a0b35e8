//! Persistent reservations: parameter data (SPC-4 6.15, 6.16), and transport IDs (7.6.4).

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

open_enum! {
    /// TYPE: what a persistent reservation allows to whom (SPC-4 6.15.3.4).
    pub enum ReservationType: u8 {
        WRITE_EXCLUSIVE = 0x1,
        EXCLUSIVE_ACCESS = 0x3,
        WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5,
        EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6,
        WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7,
        EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8,
    }
}

/// SCOPE of a whole logical unit, the only one there is: in the upper four bits.
pub const SCOPE_LU: u8 = 0x00;

/// Most registrations or others in a parameter list are bounded by this many bytes of it.
pub const PARAMETER_LIST_BYTES_MAX: usize = 8192;

layouts! {
    /// Start of every answer of PERSISTENT RESERVE IN but the capabilities.
    pub struct ReserveInHeader {
        /// PRGENERATION.
        pub generation: U32,
        /// Bytes behind this header.
        pub additional_length: U32,
    }

    /// Of READ RESERVATION.
    pub struct ReservationDescriptor {
        pub key: U64,
        pub obsolete: U32,
        pub reserved: u8,
        /// Scope in the upper four bits, type in the lower.
        pub scope_type: u8,
        pub obsolete14: U16,
    }

    /// Of REPORT CAPABILITIES.
    pub struct Capabilities {
        /// Of this data as a whole.
        pub length: U16,
        /// [`capability::CRH`] and others.
        pub flags2: u8,
        /// [`capability::TMV`] and others.
        pub flags3: u8,
        /// Byte 4 of the types that are supported in its first byte, byte 5 in its second.
        pub type_mask: U16,
        pub reserved: U16,
    }

    /// Of READ FULL STATUS; a transport ID follows.
    pub struct FullStatus {
        pub key: U64,
        pub reserved: U32,
        /// [`R_HOLDER`], [`ALL_TG_PT_REGISTERED`].
        pub flags: u8,
        pub scope_type: u8,
        pub reserved14: U32,
        pub relative_port: U16,
        /// Bytes behind this descriptor: the transport ID.
        pub additional_length: U32,
    }

    /// PERSISTENT RESERVE OUT, but of REGISTER AND MOVE.
    pub struct ReserveOut {
        pub key: U64,
        pub service_action_key: U64,
        pub obsolete: U32,
        /// [`SPEC_I_PT`], [`ALL_TG_PT`], [`APTPL`].
        pub flags: u8,
        pub reserved: u8,
        pub obsolete22: U16,
    }

    /// REGISTER AND MOVE; a transport ID follows.
    pub struct RegisterAndMove {
        pub key: U64,
        pub service_action_key: U64,
        pub reserved: u8,
        /// [`UNREG`], [`APTPL`].
        pub flags: u8,
        pub relative_port: U16,
        pub transport_id_length: U32,
    }

    /// Start of the transport ID of an iSCSI initiator; its name follows, ended and padded with NUL
    /// to a multiple of four.
    pub struct IscsiTransportId {
        /// Format code in the upper two bits, protocol in the lower four.
        pub format: u8,
        pub reserved: u8,
        pub additional_length: U16,
    }

    /// Transport IDs of every protocol whose port has a name of fixed length, such as SAS.
    pub struct FixedTransportId {
        pub format: u8,
        pub reserved: [u8; 3],
        pub name: [u8; 20],
    }
}

/// Of [`ReserveOut`]: the ports to register follow.
pub const SPEC_I_PT: u8 = 0x08;
/// Of [`ReserveOut`]: through all target ports.
pub const ALL_TG_PT: u8 = 0x04;
/// Activate persist through power loss.
pub const APTPL: u8 = 0x01;
/// Of [`RegisterAndMove`].
pub const UNREG: u8 = 0x02;
/// Of [`FullStatus`]: holds the reservation.
pub const R_HOLDER: u8 = 0x01;
/// Of [`FullStatus`].
pub const ALL_TG_PT_REGISTERED: u8 = 0x02;

/// Of [`Capabilities`].
pub mod capability {
    /// REPLACE LOST RESERVATION is supported.
    pub const RLR: u8 = 0x80;
    /// RESERVE and RELEASE as SPC-2 had them are compatible.
    pub const CRH: u8 = 0x10;
    /// SPEC_I_PT is supported.
    pub const SIP: u8 = 0x08;
    /// ALL_TG_PT is supported.
    pub const ATP: u8 = 0x04;
    /// APTPL is supported.
    pub const PTPL: u8 = 0x01;
    /// The type mask is valid.
    pub const TMV: u8 = 0x80;
    /// ALLOW COMMANDS: which commands pass a write exclusive reservation, in three bits.
    pub const ALLOW_COMMANDS: u8 = 0x70;
    /// APTPL is active.
    pub const PTPL_ACTIVE: u8 = 0x01;
}

open_enum! {
    /// PROTOCOL IDENTIFIER (SPC-4 7.6.1).
    pub enum Protocol: u8 {
        FCP = 0x0,
        SRP = 0x4,
        ISCSI = 0x5,
        SAS = 0x6,
        UAS = 0x9,
        PCIE = 0xa,
        NONE = 0xf,
    }
}

/// Format code of an iSCSI transport ID that names the device only.
pub const ISCSI_NAME: u8 = 0x00;
/// Format code of an iSCSI transport ID that names the port: name, `,i,0x`, ISID in hexadecimal.
pub const ISCSI_NAME_AND_ISID: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn data_has_the_length_of_its_table() {
        assert_eq!(size_of::<ReserveInHeader>(), 8);
        assert_eq!(size_of::<ReservationDescriptor>(), 16);
        assert_eq!(size_of::<Capabilities>(), 8);
        assert_eq!(size_of::<FullStatus>(), 24);
        assert_eq!(offset_of!(FullStatus, relative_port), 18);
        assert_eq!(size_of::<ReserveOut>(), 24);
        assert_eq!(offset_of!(ReserveOut, flags), 20);
        assert_eq!(size_of::<RegisterAndMove>(), 24);
        assert_eq!(offset_of!(RegisterAndMove, flags), 17);
        assert_eq!(size_of::<FixedTransportId>(), 24);
    }
}
