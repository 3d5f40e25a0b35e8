//! The payloads of vhost-user messages ("Message Specification", "Payload"). A payload that is one
//! 64-bit integer has no type of its own.

use zerocopy::byteorder::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most regions in one SET_MEM_TABLE: the table in the protocol has places for eight.
pub const MEM_TABLE_REGIONS_MAX: usize = 8;

/// Most bytes of configuration space in one message: the limit of every known front end.
pub const CONFIG_BYTES_MAX: usize = 256;

/// A bit of the dirty log stands for this many bytes of guest memory (`VHOST_LOG_PAGE`).
pub const LOG_PAGE_BYTES: u64 = 0x1000;

/// The payload of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
pub mod vring_fd {
    /// Bits that hold the index of the ring.
    pub const INDEX_MASK: u64 = 0xff;
    /// No file descriptor comes with this message: poll.
    pub const NO_FD: u64 = 0x100;
}

/// "A vring state description": an index and a number whose meaning depends on the request.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VringState {
    pub index: U32,
    pub num: U32,
}

/// "A vring address description". Addresses are user addresses of the front end.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VringAddr {
    pub index: U32,
    /// See [`vring_addr_flag`].
    pub flags: U32,
    pub descriptor: U64,
    pub used: U64,
    pub available: U64,
    /// Guest address of the used ring, for logging.
    pub log: U64,
}

/// `flags` of [`VringAddr`].
pub mod vring_addr_flag {
    /// Log writes to the used ring (`VHOST_VRING_F_LOG` is bit 0).
    pub const LOG: u32 = 1;
}

/// Start of "Memory regions description"; `num_regions` times [`MemRegion`] follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct MemTableHeader {
    pub num_regions: U32,
    pub padding: U32,
}

/// One region of guest memory.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct MemRegion {
    pub guest_address: U64,
    pub size: U64,
    pub user_address: U64,
    /// Where the region starts in the file that comes with it.
    pub mmap_offset: U64,
}

/// "Single memory region description" of ADD_MEM_REG and REM_MEM_REG.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SingleMemRegion {
    pub padding: U64,
    pub region: MemRegion,
}

/// "Log description" of SET_LOG_BASE.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Log {
    pub mmap_size: U64,
    pub mmap_offset: U64,
}

/// Start of "Virtio device config space" of GET_CONFIG and SET_CONFIG; `size` bytes follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ConfigHeader {
    pub offset: U32,
    pub size: U32,
    /// See [`config_flag`].
    pub flags: U32,
}

/// `flags` of [`ConfigHeader`].
pub mod config_flag {
    /// Only fields that a driver may write.
    pub const WRITABLE: u32 = 0;
    /// Live migration: any field may be written.
    pub const LIVE_MIGRATION: u32 = 1;
}

/// "Inflight description" of GET_INFLIGHT_FD and SET_INFLIGHT_FD. Front ends written in C and in
/// Rust send their native struct, tail padding included; [`INFLIGHT_PACKED_BYTES`] is the length
/// that the text of the protocol adds up to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Inflight {
    pub mmap_size: U64,
    pub mmap_offset: U64,
    pub num_queues: U16,
    pub queue_size: U16,
    pub padding: [u8; 4],
}

/// [`Inflight`] without its tail padding.
pub const INFLIGHT_PACKED_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_protocol() {
        assert_eq!(size_of::<VringState>(), 8);
        assert_eq!(size_of::<VringAddr>(), 40);
        assert_eq!(size_of::<MemTableHeader>(), 8);
        assert_eq!(size_of::<MemRegion>(), 32);
        assert_eq!(size_of::<SingleMemRegion>(), 40);
        assert_eq!(size_of::<Log>(), 16);
        assert_eq!(size_of::<ConfigHeader>(), 12);
        assert_eq!(size_of::<Inflight>(), 24);
        assert_eq!(std::mem::offset_of!(Inflight, padding), INFLIGHT_PACKED_BYTES);
    }
}
