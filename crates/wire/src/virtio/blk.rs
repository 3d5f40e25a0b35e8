//! The block device of Virtio 1.2, 5.2: feature bits, configuration space, requests, status.
//!
//! The zoned extension of 1.3 is not here: no device of ours offers it.

use crate::open_enum::open_enum;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Unit of every sector number and sector count of this device, whatever `blk_size` says (5.2.4).
pub const SECTOR_BYTES: u64 = 512;

/// Length of the identification that GET_ID returns: padded with NUL, without a terminator when it
/// is full (5.2.6).
pub const ID_BYTES: usize = 20;

/// Virtio device ID of the block device (5.2.1).
pub const DEVICE_ID: u32 = 2;

/// Feature bits of the block device (5.2.3).
pub mod feature {
    /// `size_max` is valid: the largest single segment.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// `seg_max` is valid: the largest number of segments of a request.
    pub const SEG_MAX: u64 = 1 << 2;
    /// `geometry` is valid.
    pub const GEOMETRY: u64 = 1 << 4;
    /// The device is read-only.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// The FLUSH command is supported.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` is valid.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// `writeback` may be read and written by the driver.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// `num_queues` is valid.
    pub const MQ: u64 = 1 << 12;
    /// The DISCARD command is supported.
    pub const DISCARD: u64 = 1 << 13;
    /// The WRITE_ZEROES command is supported.
    pub const WRITE_ZEROES: u64 = 1 << 14;
    /// The device reports its lifetime.
    pub const LIFETIME: u64 = 1 << 15;
    /// The SECURE_ERASE command is supported.
    pub const SECURE_ERASE: u64 = 1 << 16;
}

/// Configuration space, `virtio_blk_config` (5.2.4).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Config {
    /// In sectors of [`SECTOR_BYTES`].
    pub capacity: U64,
    pub size_max: U32,
    pub seg_max: U32,
    pub geometry: ConfigGeometry,
    pub blk_size: U32,
    pub topology: ConfigTopology,
    /// [`WRITETHROUGH`] or [`WRITEBACK`]; the only field that a driver may write.
    pub writeback: u8,
    pub unused0: u8,
    pub num_queues: U16,
    pub max_discard_sectors: U32,
    pub max_discard_seg: U32,
    pub discard_sector_alignment: U32,
    pub max_write_zeroes_sectors: U32,
    pub max_write_zeroes_seg: U32,
    pub write_zeroes_may_unmap: u8,
    pub unused1: [u8; 3],
    pub max_secure_erase_sectors: U32,
    pub max_secure_erase_seg: U32,
    pub secure_erase_sector_alignment: U32,
}

/// Cylinders, heads and sectors, for drivers that still ask (5.2.4).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct ConfigGeometry {
    pub cylinders: U16,
    pub heads: u8,
    pub sectors: u8,
}

/// How physical blocks lie under logical ones (5.2.4).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct ConfigTopology {
    /// log2 of the number of logical blocks in a physical block.
    pub physical_block_exp: u8,
    /// Offset of the first aligned logical block.
    pub alignment_offset: u8,
    /// Suggested minimum I/O size, in logical blocks.
    pub min_io_size: U16,
    /// Optimal (suggested maximum) I/O size, in logical blocks.
    pub opt_io_size: U32,
}

/// `writeback` of [`Config`]: a write is stable when it completes.
pub const WRITETHROUGH: u8 = 0;
/// `writeback` of [`Config`]: a write is stable after the next FLUSH.
pub const WRITEBACK: u8 = 1;

/// Start of every request, in the device-readable part (5.2.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RequestHeader {
    /// A [`RequestType`].
    pub request_type: U32,
    pub reserved: U32,
    /// First sector of IN and OUT; zero for the others.
    pub sector: U64,
}

open_enum! {
    /// What a request asks for (5.2.6).
    pub enum RequestType: u32 {
        /// Read.
        IN = 0,
        /// Write.
        OUT = 1,
        FLUSH = 4,
        /// The identification string of the device.
        GET_ID = 8,
        GET_LIFETIME = 10,
        DISCARD = 11,
        WRITE_ZEROES = 13,
        SECURE_ERASE = 14,
    }
}

/// One range of DISCARD, WRITE_ZEROES and SECURE_ERASE (5.2.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DiscardWriteZeroes {
    pub sector: U64,
    pub num_sectors: U32,
    /// [`SEGMENT_F_UNMAP`]; every other bit is reserved.
    pub flags: U32,
}

/// `flags` of [`DiscardWriteZeroes`]: WRITE_ZEROES may unmap the range. Zero in a DISCARD.
pub const SEGMENT_F_UNMAP: u32 = 1;

open_enum! {
    /// The last byte of every request, written by the device (5.2.6).
    pub enum Status: u8 {
        OK = 0,
        /// The device or the driver made an error.
        IOERR = 1,
        /// The device does not know this request.
        UNSUPP = 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use virtio_bindings::virtio_blk as oracle;

    #[test]
    fn features_agree_with_the_kernel_headers() {
        for (ours, bit) in [
            (feature::SIZE_MAX, oracle::VIRTIO_BLK_F_SIZE_MAX),
            (feature::SEG_MAX, oracle::VIRTIO_BLK_F_SEG_MAX),
            (feature::GEOMETRY, oracle::VIRTIO_BLK_F_GEOMETRY),
            (feature::RO, oracle::VIRTIO_BLK_F_RO),
            (feature::BLK_SIZE, oracle::VIRTIO_BLK_F_BLK_SIZE),
            (feature::FLUSH, oracle::VIRTIO_BLK_F_FLUSH),
            (feature::TOPOLOGY, oracle::VIRTIO_BLK_F_TOPOLOGY),
            (feature::CONFIG_WCE, oracle::VIRTIO_BLK_F_CONFIG_WCE),
            (feature::MQ, oracle::VIRTIO_BLK_F_MQ),
            (feature::DISCARD, oracle::VIRTIO_BLK_F_DISCARD),
            (feature::WRITE_ZEROES, oracle::VIRTIO_BLK_F_WRITE_ZEROES),
            (feature::SECURE_ERASE, oracle::VIRTIO_BLK_F_SECURE_ERASE),
        ] {
            assert_eq!(ours, 1 << bit);
        }
    }

    #[test]
    fn codes_agree_with_the_kernel_headers() {
        assert_eq!(RequestType::IN.0, oracle::VIRTIO_BLK_T_IN);
        assert_eq!(RequestType::OUT.0, oracle::VIRTIO_BLK_T_OUT);
        assert_eq!(RequestType::FLUSH.0, oracle::VIRTIO_BLK_T_FLUSH);
        assert_eq!(RequestType::GET_ID.0, oracle::VIRTIO_BLK_T_GET_ID);
        assert_eq!(RequestType::DISCARD.0, oracle::VIRTIO_BLK_T_DISCARD);
        assert_eq!(RequestType::WRITE_ZEROES.0, oracle::VIRTIO_BLK_T_WRITE_ZEROES);
        assert_eq!(RequestType::SECURE_ERASE.0, oracle::VIRTIO_BLK_T_SECURE_ERASE);
        assert_eq!(SEGMENT_F_UNMAP, oracle::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
        assert_eq!(ID_BYTES as u32, oracle::VIRTIO_BLK_ID_BYTES);
        assert_eq!(u32::from(Status::OK.0), oracle::VIRTIO_BLK_S_OK);
        assert_eq!(u32::from(Status::IOERR.0), oracle::VIRTIO_BLK_S_IOERR);
        assert_eq!(u32::from(Status::UNSUPP.0), oracle::VIRTIO_BLK_S_UNSUPP);
    }

    /// The kernel's struct goes on with the zoned fields; up to there every offset is the same.
    #[test]
    fn config_agrees_with_the_kernel_headers() {
        type Oracle = oracle::virtio_blk_config;
        let offsets = [
            (offset_of!(Config, size_max), offset_of!(Oracle, size_max)),
            (offset_of!(Config, seg_max), offset_of!(Oracle, seg_max)),
            (offset_of!(Config, geometry), offset_of!(Oracle, geometry)),
            (offset_of!(Config, blk_size), offset_of!(Oracle, blk_size)),
            (offset_of!(Config, topology), offset_of!(Oracle, physical_block_exp)),
            (offset_of!(Config, writeback), offset_of!(Oracle, wce)),
            (offset_of!(Config, num_queues), offset_of!(Oracle, num_queues)),
            (offset_of!(Config, max_discard_sectors), offset_of!(Oracle, max_discard_sectors)),
            (offset_of!(Config, max_discard_seg), offset_of!(Oracle, max_discard_seg)),
            (
                offset_of!(Config, max_write_zeroes_sectors),
                offset_of!(Oracle, max_write_zeroes_sectors),
            ),
            (
                offset_of!(Config, write_zeroes_may_unmap),
                offset_of!(Oracle, write_zeroes_may_unmap),
            ),
            (
                offset_of!(Config, secure_erase_sector_alignment),
                offset_of!(Oracle, secure_erase_sector_alignment),
            ),
        ];
        for (ours, theirs) in offsets {
            assert_eq!(ours, theirs);
        }
        assert_eq!(size_of::<Config>(), 72);
        assert_eq!(size_of::<RequestHeader>(), size_of::<oracle::virtio_blk_outhdr>());
        assert_eq!(
            size_of::<DiscardWriteZeroes>(),
            size_of::<oracle::virtio_blk_discard_write_zeroes>()
        );
    }

    #[test]
    fn a_header_reads_little_endian() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let header = RequestHeader::read_from_bytes(&bytes).unwrap();
        assert_eq!(RequestType(header.request_type.get()), RequestType::OUT);
        assert_eq!(header.sector.get(), 256);
    }
}
