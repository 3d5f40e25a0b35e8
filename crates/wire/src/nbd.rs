//! NBD, as far as reading an export takes: the fixed newstyle handshake, structured replies, block
//! status. Names are those of the protocol's own document (NetworkBlockDevice/nbd, doc/proto.md).

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::open_enum::open_enum;

/// "NBDMAGIC" and "IHAVEOPT".
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// NBD_FLAG_FIXED_NEWSTYLE and NBD_FLAG_NO_ZEROES, of both sides.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

/// NBD_REPLY_FLAG_DONE: the last chunk of a reply.
pub const REPLY_FLAG_DONE: u16 = 1;
/// Replies of this kind are errors.
pub const REPLY_TYPE_ERROR_BIT: u16 = 1 << 15;
/// NBD_STATE_ZERO: the extent reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;

/// The metadata context of what is allocated and what is zero.
pub const BASE_ALLOCATION: &str = "base:allocation";

open_enum! {
    /// NBD_OPT_*
    pub enum OptionKind: u32 {
        GO = 7,
        STRUCTURED_REPLY = 8,
        SET_META_CONTEXT = 10,
    }
}

open_enum! {
    /// NBD_REP_*; errors have the highest bit.
    pub enum OptionReplyKind: u32 {
        ACK = 1,
        INFO = 3,
        META_CONTEXT = 4,
    }
}

open_enum! {
    /// NBD_CMD_*
    pub enum Command: u16 {
        READ = 0,
        DISC = 2,
        BLOCK_STATUS = 7,
    }
}

open_enum! {
    /// NBD_REPLY_TYPE_*
    pub enum ReplyKind: u16 {
        NONE = 0,
        OFFSET_DATA = 1,
        OFFSET_HOLE = 2,
        BLOCK_STATUS = 5,
    }
}

/// NBD_INFO_EXPORT.
pub const INFO_EXPORT: u16 = 0;

macro_rules! layouts {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(C)]
        pub struct $name { $(pub $field: $kind),+ }
    )+};
}

layouts! {
    /// What the server begins with.
    Hello { init_magic: U64, option_magic: U64, flags: U16 }

    /// An option of the client; its data follows.
    OptionHeader { magic: U64, option: U32, length: U32 }

    /// What the server says to an option; its data follows.
    OptionReply { magic: U64, option: U32, kind: U32, length: U32 }

    /// NBD_INFO_EXPORT.
    ExportInfo { kind: U16, size: U64, flags: U16 }

    Request { magic: U32, flags: U16, command: U16, cookie: U64, offset: U64, length: U32 }

    /// A chunk of a structured reply; its payload follows.
    ReplyChunk { magic: U32, flags: U16, kind: U16, cookie: U64, length: U32 }

    /// A descriptor of NBD_REPLY_TYPE_BLOCK_STATUS.
    Extent { length: U32, flags: U32 }
}
