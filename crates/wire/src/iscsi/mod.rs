//! iSCSI: the PDUs of RFC 7143, clause 11, with the codes that stand in them and the names of the
//! text keys of clause 13; the task management functions of RFC 7144 beside them.
//!
//! Every PDU begins with a basic header segment of 48 bytes. What all of them share is [`Header`];
//! one struct per PDU type is another view of the same bytes, from [`Header::view`]. All integers
//! are big endian. Additional header segments are in `ahs`.

mod ahs;
mod code;
pub mod key;
mod pdu;

pub use ahs::{AHS_HEADER_BYTES, AHS_WORD_BYTES, AhsHeader, AhsType, CDB_BYTES, CDB_BYTES_MAX};
pub use code::{
    AsyncEvent, LoginStage, LoginStatus, LogoutReason, LogoutResponse, Opcode, RejectReason,
    ScsiResponseCode, TaskFunction, TaskResponse,
};
pub use pdu::{
    AsyncMessage, BHS_BYTES, DataIn, DataOut, Header, LoginRequest, LoginResponse, LogoutReply,
    LogoutRequest, NopIn, NopOut, Pdu, R2t, Reject, ScsiCommand, ScsiResponse, Snack,
    TaskManagementRequest, TaskManagementResponse, TextRequest, TextResponse, Uint24, attribute,
    flag,
};

/// A tag that names nothing, in whichever of the two tag fields it stands (11.2.1.8, 11.19.1).
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// The one version of the protocol (11.12.5).
pub const VERSION: u8 = 0x00;

/// The TCP port that targets listen on (15, "iSCSI protocol").
pub const PORT: u16 = 3260;

/// Bytes of a CRC32C digest (13.1).
pub const DIGEST_BYTES: usize = 4;

/// Every segment of a PDU is padded to a multiple of this (11.1).
pub const PAD_BYTES: usize = 4;

/// Longest iSCSI name (4.2.7.1).
pub const NAME_BYTES_MAX: usize = 223;
