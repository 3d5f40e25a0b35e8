//! The SCSI host device of Virtio 1.2, 5.6: feature bits, configuration space, requests, responses,
//! control and event messages.
//!
//! The protection information of T10_PI, with its longer request header, is not here: no device of
//! ours offers it.

use crate::open_enum::open_enum;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Virtio device ID of the SCSI host (5.6.1).
pub const DEVICE_ID: u32 = 8;

/// Rings: control, events, and from here on requests (5.6.2).
pub const CONTROL_QUEUE: u16 = 0;
pub const EVENT_QUEUE: u16 = 1;
pub const FIRST_REQUEST_QUEUE: u16 = 2;

/// What `sense_size` and `cdb_size` are after a reset (5.6.4).
pub const SENSE_BYTES_DEFAULT: u32 = 96;
pub const CDB_BYTES_DEFAULT: u32 = 32;

/// Feature bits of the SCSI host (5.6.3).
pub mod feature {
    /// One request may have data both ways.
    pub const INOUT: u64 = 1 << 0;
    /// The device reports targets and units that come and go.
    pub const HOTPLUG: u64 = 1 << 1;
    /// The device reports parameters of units that change.
    pub const CHANGE: u64 = 1 << 2;
    /// Requests may carry protection information.
    pub const T10_PI: u64 = 1 << 3;
}

/// Configuration space, `virtio_scsi_config` (5.6.4).
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
    /// Request queues.
    pub num_queues: U32,
    /// Most segments of a command's data.
    pub seg_max: U32,
    /// Hint: the longest transfer, in sectors of 512 bytes.
    pub max_sectors: U32,
    pub cmd_per_lun: U32,
    /// Bytes of an [`Event`].
    pub event_info_size: U32,
    /// Room for sense data in a response; the driver may write it.
    pub sense_size: U32,
    /// Room for the CDB in a request; the driver may write it.
    pub cdb_size: U32,
    pub max_channel: U16,
    pub max_target: U16,
    pub max_lun: U32,
}

/// How a driver addresses a unit (5.6.6.1): the target in the second byte, the unit in the next two
/// as in the first level of [`LogicalUnitNumber`](crate::scsi::LogicalUnitNumber); or, whole, the
/// address of the well-known unit that reports LUNs.
pub type Address = [u8; 8];

/// The first byte of an [`Address`] with a target in it.
pub const ADDRESS_OF_TARGET: u8 = 1;

/// Start of a request on a request queue, followed by `cdb_size` bytes of CDB and the data-out
/// (5.6.6.1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RequestHeader {
    pub lun: Address,
    pub id: U64,
    /// A [`TaskAttribute`].
    pub task_attr: u8,
    pub prio: u8,
    pub crn: u8,
}

/// Start of the device-writable part of a request, followed by `sense_size` bytes of sense data and
/// the data-in (5.6.6.1).
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
pub struct ResponseHeader {
    pub sense_len: U32,
    pub residual: U32,
    pub status_qualifier: U16,
    /// The status of SCSI, if the response is OK.
    pub status: u8,
    /// A [`Response`].
    pub response: u8,
}

open_enum! {
    /// How a request wants to be ordered (5.6.6.1).
    pub enum TaskAttribute: u8 {
        SIMPLE = 0,
        ORDERED = 1,
        HEAD = 2,
        ACA = 3,
    }
}

open_enum! {
    /// What became of a request, on request and control queues (5.6.6.1, 5.6.6.2). To task
    /// management OK is FUNCTION COMPLETE.
    pub enum Response: u8 {
        OK = 0,
        /// The CDB asks for more data than there are buffers for.
        OVERRUN = 1,
        /// Cancelled by ABORT TASK or ABORT TASK SET.
        ABORTED = 2,
        /// There is no such target.
        BAD_TARGET = 3,
        /// Cancelled by a reset.
        RESET = 4,
        /// Not now; the same way will do later.
        BUSY = 5,
        TRANSPORT_FAILURE = 6,
        TARGET_FAILURE = 7,
        NEXUS_FAILURE = 8,
        FAILURE = 9,
        /// To task management that asks: yes.
        FUNCTION_SUCCEEDED = 10,
        FUNCTION_REJECTED = 11,
        INCORRECT_LUN = 12,
    }
}

open_enum! {
    /// Start of every request on the control queue (5.6.6.2).
    pub enum ControlType: u32 {
        TMF = 0,
        AN_QUERY = 1,
        AN_SUBSCRIBE = 2,
    }
}

open_enum! {
    /// Task management functions (5.6.6.2).
    pub enum TaskFunction: u32 {
        ABORT_TASK = 0,
        ABORT_TASK_SET = 1,
        CLEAR_ACA = 2,
        CLEAR_TASK_SET = 3,
        I_T_NEXUS_RESET = 4,
        LOGICAL_UNIT_RESET = 5,
        QUERY_TASK = 6,
        QUERY_TASK_SET = 7,
    }
}

/// A task management request; its response is one byte, a [`Response`] (5.6.6.2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TaskManagement {
    /// [`ControlType::TMF`]
    pub control_type: U32,
    /// A [`TaskFunction`].
    pub subtype: U32,
    pub lun: Address,
    pub id: U64,
}

/// Asks for, or subscribes to, asynchronous notification (5.6.6.2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Notification {
    /// [`ControlType::AN_QUERY`] or [`ControlType::AN_SUBSCRIBE`]
    pub control_type: U32,
    pub lun: Address,
    /// Bits of [`asynchronous`].
    pub event_requested: U32,
}

/// What the device writes for a [`Notification`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct NotificationResponse {
    pub event_actual: U32,
    /// A [`Response`].
    pub response: u8,
}

/// Kinds of asynchronous notification, as bits (5.6.6.2).
pub mod asynchronous {
    pub const OPERATIONAL_CHANGE: u32 = 1 << 1;
    pub const POWER_MGMT: u32 = 1 << 2;
    pub const EXTERNAL_REQUEST: u32 = 1 << 3;
    pub const MEDIA_CHANGE: u32 = 1 << 4;
    pub const MULTI_HOST: u32 = 1 << 5;
    pub const DEVICE_BUSY: u32 = 1 << 6;
}

open_enum! {
    /// What an [`Event`] is about; [`EVENTS_MISSED`] may be added (5.6.6.3).
    pub enum EventType: u32 {
        NO_EVENT = 0,
        TRANSPORT_RESET = 1,
        ASYNC_NOTIFY = 2,
        PARAM_CHANGE = 3,
    }
}

/// Added to [`EventType`]: before this one there were others for which there was no buffer.
pub const EVENTS_MISSED: u32 = 0x8000_0000;

open_enum! {
    /// The `reason` of [`EventType::TRANSPORT_RESET`] (5.6.6.3).
    pub enum ResetReason: u32 {
        HARD = 0,
        /// A target or unit is new.
        RESCAN = 1,
        REMOVED = 2,
    }
}

/// What the device writes into a buffer of the event queue (5.6.6.3).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Event {
    /// An [`EventType`], perhaps with [`EVENTS_MISSED`].
    pub event: U32,
    pub lun: Address,
    pub reason: U32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Offsets and lengths of the structs of 5.6.4 and 5.6.6, counted by hand: the kernel headers
    /// that serve as oracle elsewhere leave this device out.
    #[test]
    fn structs_are_as_long_as_the_standard_says() {
        assert_eq!(size_of::<Config>(), 36);
        assert_eq!(offset_of!(Config, sense_size), 20);
        assert_eq!(offset_of!(Config, max_channel), 28);
        assert_eq!(offset_of!(Config, max_lun), 32);
        assert_eq!(size_of::<RequestHeader>() + CDB_BYTES_DEFAULT as usize, 51);
        assert_eq!(size_of::<ResponseHeader>() + SENSE_BYTES_DEFAULT as usize, 108);
        assert_eq!(offset_of!(ResponseHeader, response), 11);
        assert_eq!(size_of::<TaskManagement>(), 24);
        assert_eq!(size_of::<Notification>(), 16);
        assert_eq!(size_of::<NotificationResponse>(), 5);
        assert_eq!(size_of::<Event>(), 16);
    }

    #[test]
    fn a_request_reads_little_endian() {
        let mut bytes = [0; 19];
        (bytes[0], bytes[1], bytes[3]) = (ADDRESS_OF_TARGET, 2, 5);
        (bytes[8], bytes[15], bytes[16]) = (7, 1, 2);
        let header = RequestHeader::read_from_bytes(&bytes).unwrap();
        assert_eq!(header.lun, [1, 2, 0, 5, 0, 0, 0, 0]);
        assert_eq!(header.id.get(), 7 | 1 << 56);
        assert_eq!(TaskAttribute(header.task_attr), TaskAttribute::HEAD);
    }
}
