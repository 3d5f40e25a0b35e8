//! The header that every vhost-user message starts with, the request codes of both directions and
//! the feature bits that gate them ("Message Specification", "Protocol features").

use crate::open_enum::open_enum;
use crate::vhost_user::{
    CONFIG_BYTES_MAX, ConfigHeader, MEM_TABLE_REGIONS_MAX, MemRegion, MemTableHeader,
};
use zerocopy::byteorder::native_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Start of every message, in both directions.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// A [`FrontEndRequest`], or on the back-end channel a [`BackEndRequest`].
    pub request: U32,
    /// See [`header_flag`].
    pub flags: U32,
    /// Bytes of payload that follow.
    pub size: U32,
}

pub const HEADER_BYTES: usize = size_of::<Header>();

/// The largest payload of any message that this crate names: a configuration space or a memory
/// table, whichever is longer.
pub const PAYLOAD_BYTES_MAX: usize = {
    let config = size_of::<ConfigHeader>() + CONFIG_BYTES_MAX;
    let table = size_of::<MemTableHeader>() + MEM_TABLE_REGIONS_MAX * size_of::<MemRegion>();
    if config > table { config } else { table }
};

/// `flags` of [`Header`].
pub mod header_flag {
    /// The bits that hold the version of the protocol.
    pub const VERSION_MASK: u32 = 0x3;
    /// The one version there is.
    pub const VERSION: u32 = 0x1;
    /// This message is a reply.
    pub const REPLY: u32 = 0x4;
    /// The sender asks for an acknowledgement (REPLY_ACK).
    pub const NEED_REPLY: u32 = 0x8;
}

/// Bits that vhost-user adds to the virtio features of a device.
pub mod virtio_feature {
    /// Writes to guest memory can be logged ("Migration").
    pub const LOG_ALL: u64 = 1 << 26;
    /// GET_PROTOCOL_FEATURES and SET_PROTOCOL_FEATURES exist ("Communication").
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
}

/// "Protocol features".
pub mod protocol_feature {
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const RARP: u64 = 1 << 2;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const MTU: u64 = 1 << 4;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CROSS_ENDIAN: u64 = 1 << 6;
    pub const CRYPTO_SESSION: u64 = 1 << 7;
    pub const PAGEFAULT: u64 = 1 << 8;
    pub const CONFIG: u64 = 1 << 9;
    pub const BACKEND_SEND_FD: u64 = 1 << 10;
    pub const HOST_NOTIFIER: u64 = 1 << 11;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const INBAND_NOTIFICATIONS: u64 = 1 << 14;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const XEN_MMAP: u64 = 1 << 17;
    pub const SHARED_OBJECT: u64 = 1 << 18;
    pub const DEVICE_STATE: u64 = 1 << 19;
}

open_enum! {
    /// What a front end asks of a back end ("Front-end message types").
    pub enum FrontEndRequest: u32 {
        GET_FEATURES = 1,
        SET_FEATURES = 2,
        SET_OWNER = 3,
        RESET_OWNER = 4,
        SET_MEM_TABLE = 5,
        SET_LOG_BASE = 6,
        SET_LOG_FD = 7,
        SET_VRING_NUM = 8,
        SET_VRING_ADDR = 9,
        SET_VRING_BASE = 10,
        GET_VRING_BASE = 11,
        SET_VRING_KICK = 12,
        SET_VRING_CALL = 13,
        SET_VRING_ERR = 14,
        GET_PROTOCOL_FEATURES = 15,
        SET_PROTOCOL_FEATURES = 16,
        GET_QUEUE_NUM = 17,
        SET_VRING_ENABLE = 18,
        SEND_RARP = 19,
        NET_SET_MTU = 20,
        SET_BACKEND_REQ_FD = 21,
        IOTLB_MSG = 22,
        SET_VRING_ENDIAN = 23,
        GET_CONFIG = 24,
        SET_CONFIG = 25,
        CREATE_CRYPTO_SESSION = 26,
        CLOSE_CRYPTO_SESSION = 27,
        POSTCOPY_ADVISE = 28,
        POSTCOPY_LISTEN = 29,
        POSTCOPY_END = 30,
        GET_INFLIGHT_FD = 31,
        SET_INFLIGHT_FD = 32,
        GPU_SET_SOCKET = 33,
        RESET_DEVICE = 34,
        VRING_KICK = 35,
        GET_MAX_MEM_SLOTS = 36,
        ADD_MEM_REG = 37,
        REM_MEM_REG = 38,
        SET_STATUS = 39,
        GET_STATUS = 40,
        GET_SHARED_OBJECT = 41,
        SET_DEVICE_STATE_FD = 42,
        CHECK_DEVICE_STATE = 43,
    }
}

open_enum! {
    /// What a back end asks of a front end, on its own channel ("Back-end message types").
    pub enum BackEndRequest: u32 {
        IOTLB_MSG = 1,
        CONFIG_CHANGE_MSG = 2,
        VRING_HOST_NOTIFIER_MSG = 3,
        VRING_CALL = 4,
        VRING_ERR = 5,
        SHARED_OBJECT_ADD = 6,
        SHARED_OBJECT_REMOVE = 7,
        SHARED_OBJECT_LOOKUP = 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_protocol() {
        assert_eq!(HEADER_BYTES, 12);
        assert_eq!(PAYLOAD_BYTES_MAX, 268);
    }

    #[test]
    fn request_codes_are_dense_from_one() {
        for (index, code) in FrontEndRequest::ALL.iter().enumerate() {
            assert_eq!(code.0 as usize, index + 1, "{code}");
        }
        for (index, code) in BackEndRequest::ALL.iter().enumerate() {
            assert_eq!(code.0 as usize, index + 1, "{code}");
        }
    }

    #[test]
    fn a_header_is_in_the_byte_order_of_the_machine() {
        let mut bytes = Vec::new();
        for word in [5_u32, 9, 264] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        let header = Header::read_from_bytes(&bytes).unwrap();
        assert_eq!(FrontEndRequest(header.request.get()), FrontEndRequest::SET_MEM_TABLE);
        assert_eq!(header.flags.get(), header_flag::VERSION | header_flag::NEED_REPLY);
        assert_eq!(header.size.get(), 264);
    }
}
