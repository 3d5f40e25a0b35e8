//! The split virtqueue (Virtio 1.2, 2.7): descriptor table, available ring, used ring.
//!
//! All fields are little-endian, as VERSION_1 demands. The rings lie in memory that the driver may
//! change at any time; how they are read safely is the business of the front end, not of this file.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Largest queue size (2.7: the size is a power of two, at most 32768).
pub const QUEUE_SIZE_MAX: u16 = 32768;

/// Required alignment of the descriptor table, in bytes (2.7).
pub const DESC_TABLE_ALIGNMENT: u64 = 16;
/// Required alignment of the available ring, in bytes (2.7).
pub const AVAIL_RING_ALIGNMENT: u64 = 2;
/// Required alignment of the used ring, in bytes (2.7).
pub const USED_RING_ALIGNMENT: u64 = 4;

/// One descriptor (2.7.5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Desc {
    pub addr: U64,
    pub len: U32,
    pub flags: U16,
    pub next: U16,
}

/// `flags` of [`Desc`].
pub mod desc_flag {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes this buffer (without it: the device reads it).
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// Start of the available ring (2.7.6); the ring of `U16` head indexes follows, then `used_event`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct AvailHeader {
    pub flags: U16,
    pub idx: U16,
}

/// `flags` of [`AvailHeader`]: the driver asks not to be interrupted (2.7.7).
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Start of the used ring (2.7.8); the ring of [`UsedElem`] follows, then `avail_event`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct UsedHeader {
    pub flags: U16,
    pub idx: U16,
}

/// `flags` of [`UsedHeader`]: the device asks not to be notified (2.7.10).
pub const USED_F_NO_NOTIFY: u16 = 1;

/// One element of the used ring (2.7.8).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct UsedElem {
    /// Head index of the descriptor chain.
    pub id: U32,
    /// Bytes the device wrote into the chain.
    pub len: U32,
}

/// Bytes of the descriptor table of a queue of `size` descriptors.
pub const fn desc_table_bytes(size: u16) -> u64 {
    size as u64 * size_of::<Desc>() as u64
}

/// Bytes of the available ring, `used_event` included.
pub const fn avail_ring_bytes(size: u16) -> u64 {
    size_of::<AvailHeader>() as u64 + (size as u64 + 1) * size_of::<U16>() as u64
}

/// Bytes of the used ring, `avail_event` included.
pub const fn used_ring_bytes(size: u16) -> u64 {
    size_of::<UsedHeader>() as u64
        + size as u64 * size_of::<UsedElem>() as u64
        + size_of::<U16>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::feature;
    use virtio_bindings::{virtio_config as config, virtio_ring as oracle};

    #[test]
    fn constants_agree_with_the_kernel_headers() {
        assert_eq!(u32::from(desc_flag::NEXT), oracle::VRING_DESC_F_NEXT);
        assert_eq!(u32::from(desc_flag::WRITE), oracle::VRING_DESC_F_WRITE);
        assert_eq!(u32::from(desc_flag::INDIRECT), oracle::VRING_DESC_F_INDIRECT);
        assert_eq!(u32::from(AVAIL_F_NO_INTERRUPT), oracle::VRING_AVAIL_F_NO_INTERRUPT);
        assert_eq!(u32::from(USED_F_NO_NOTIFY), oracle::VRING_USED_F_NO_NOTIFY);
        assert_eq!(DESC_TABLE_ALIGNMENT, u64::from(oracle::VRING_DESC_ALIGN_SIZE));
        assert_eq!(AVAIL_RING_ALIGNMENT, u64::from(oracle::VRING_AVAIL_ALIGN_SIZE));
        assert_eq!(USED_RING_ALIGNMENT, u64::from(oracle::VRING_USED_ALIGN_SIZE));
        for (ours, bit) in [
            (feature::RING_INDIRECT_DESC, oracle::VIRTIO_RING_F_INDIRECT_DESC),
            (feature::RING_EVENT_IDX, oracle::VIRTIO_RING_F_EVENT_IDX),
            (feature::VERSION_1, config::VIRTIO_F_VERSION_1),
            (feature::ACCESS_PLATFORM, config::VIRTIO_F_ACCESS_PLATFORM),
            (feature::RING_PACKED, config::VIRTIO_F_RING_PACKED),
            (feature::IN_ORDER, config::VIRTIO_F_IN_ORDER),
            (feature::RING_RESET, config::VIRTIO_F_RING_RESET),
        ] {
            assert_eq!(ours, 1 << bit);
        }
    }

    #[test]
    fn layouts_agree_with_the_kernel_headers() {
        assert_eq!(size_of::<Desc>(), size_of::<oracle::vring_desc>());
        assert_eq!(size_of::<UsedElem>(), size_of::<oracle::vring_used_elem>());
        // Virtio 1.2, 2.7: 16 x size, 6 + 2 x size, 6 + 8 x size.
        assert_eq!(desc_table_bytes(256), 4096);
        assert_eq!(avail_ring_bytes(256), 518);
        assert_eq!(used_ring_bytes(256), 2054);
    }
}
