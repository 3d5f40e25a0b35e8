//! The in-flight region: what a back end writes down so that its successor knows which requests
//! were taken and not yet answered ("Inflight I/O tracking"). The region holds one queue region per
//! queue, one after the other; only the form for split virtqueues is here.
//!
//! Integers are native-endian and naturally aligned. How and in which order the fields are written
//! is the business of the front end.

use zerocopy::byteorder::native_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `version` of a region that is in use; zero means that nobody has initialised it.
pub const INFLIGHT_VERSION: u16 = 1;

/// Queue regions start at multiples of this, so that no two share a cache line. The protocol leaves
/// it open; this is the value that other back ends use, so that one can take over from another.
pub const INFLIGHT_ALIGNMENT: u64 = 64;

/// Start of a queue region; `desc_num` times [`DescStateSplit`] follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct QueueRegionSplit {
    pub features: U64,
    pub version: U16,
    /// The size of the virtqueue.
    pub desc_num: U16,
    /// Head of the list of the last batch of used descriptors.
    pub last_batch_head: U16,
    /// The used index as of the last completed batch.
    pub used_idx: U16,
}

/// State of one descriptor; the fields but `next` are valid for the head of a chain.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DescStateSplit {
    /// 1 while the request that starts here is in flight.
    pub inflight: u8,
    pub padding: [u8; 5],
    /// Next in the list of the last batch.
    pub next: U16,
    /// Order in which requests were taken.
    pub counter: U64,
}

/// Bytes of one queue region, rounded up to [`INFLIGHT_ALIGNMENT`].
pub const fn queue_region_split_bytes(queue_size: u16) -> u64 {
    let bytes = size_of::<QueueRegionSplit>() as u64
        + queue_size as u64 * size_of::<DescStateSplit>() as u64;
    bytes.next_multiple_of(INFLIGHT_ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_that_of_the_protocol() {
        assert_eq!(size_of::<QueueRegionSplit>(), 16);
        assert_eq!(size_of::<DescStateSplit>(), 16);
        assert_eq!(queue_region_split_bytes(1), 64);
        assert_eq!(queue_region_split_bytes(128), 16 + 2048 + 48);
        assert_eq!(queue_region_split_bytes(32768) % INFLIGHT_ALIGNMENT, 0);
    }
}
