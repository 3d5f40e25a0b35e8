//! Virtio 1.2: the split virtqueue, the device types, and the feature bits that belong to no one
//! device type. Feature constants are masks (one bit set), because that is how they are combined.

pub mod blk;
pub mod ring;
pub mod scsi;

/// Device-independent feature bits (Virtio 1.2, 6).
pub mod feature {
    /// Descriptors may point to tables of descriptors (2.7.5.3).
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event` replace the notification flags (2.7.7, 2.7.10).
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// The driver follows version 1 of the specification: little-endian, modern layout.
    pub const VERSION_1: u64 = 1 << 32;
    /// Addresses go through an IOMMU or are otherwise limited.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// The packed virtqueue layout (2.8).
    pub const RING_PACKED: u64 = 1 << 34;
    /// Buffers are used in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// A queue can be reset by itself.
    pub const RING_RESET: u64 = 1 << 40;
}
