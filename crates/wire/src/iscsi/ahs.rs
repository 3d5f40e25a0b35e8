//! Additional header segments (11.2.2): what does not fit in the 48 bytes of a SCSI command.

use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// CDB bytes in the basic header segment (11.3.5).
pub const CDB_BYTES: usize = 16;

/// Longest CDB that there is, with an extended CDB segment (SPC, variable length CDBs).
pub const CDB_BYTES_MAX: usize = 260;

/// TotalAHSLength counts in units of so many bytes (11.2.1.5).
pub const AHS_WORD_BYTES: usize = 4;

open_enum! {
    /// AHSType (11.2.2.1): its low six bits are the code.
    pub enum AhsType: u8 {
        EXTENDED_CDB = 1,
        BIDIRECTIONAL_READ_LENGTH = 2,
    }
}

/// What every additional header segment begins with. Padding fills it up to a multiple of four.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct AhsHeader {
    /// Bytes behind these first three, padding not among them.
    pub ahs_length: U16,
    /// An [`AhsType`].
    pub ahs_type: u8,
    /// Reserved, or the first specific byte; both defined types reserve it.
    pub reserved: u8,
}

pub const AHS_HEADER_BYTES: usize = size_of::<AhsHeader>();
