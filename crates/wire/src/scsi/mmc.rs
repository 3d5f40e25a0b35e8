//! Optical drives (MMC-6): operation codes of their own, features, events, tables of contents, disc
//! structures, mode pages. As far as a drive that only reads needs them.

use super::layout::layouts;
use super::mode::Page;
use super::opcode::Opcode;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32};

/// Operation codes; some mean something else to other devices.
pub mod op {
    use super::Opcode;

    pub const SEEK_10: Opcode = Opcode(0x2b);
    pub const READ_TOC_PMA_ATIP: Opcode = Opcode(0x43);
    pub const GET_CONFIGURATION: Opcode = Opcode(0x46);
    pub const GET_EVENT_STATUS_NOTIFICATION: Opcode = Opcode(0x4a);
    pub const READ_DISC_INFORMATION: Opcode = Opcode(0x51);
    pub const READ_TRACK_INFORMATION: Opcode = Opcode(0x52);
    pub const READ_DISC_STRUCTURE: Opcode = Opcode(0xad);
    pub const READ_CD_MSF: Opcode = Opcode(0xb9);
    pub const SET_CD_SPEED: Opcode = Opcode(0xbb);
    pub const MECHANISM_STATUS: Opcode = Opcode(0xbd);
    pub const READ_CD: Opcode = Opcode(0xbe);
}

/// Bytes of user data of a block.
pub const BLOCK_BYTES: usize = 2048;
/// Frames between the begin of a CD and its block 0: two seconds.
pub const MSF_OFFSET: u32 = 150;
pub const FRAMES_PER_SECOND: u32 = 75;

open_enum! {
    /// What kind of medium is in the drive, or could be.
    pub enum Profile: u16 {
        NONE = 0x0000,
        CD_ROM = 0x0008,
        DVD_ROM = 0x0010,
    }
}

open_enum! {
    /// Features.
    pub enum Feature: u16 {
        PROFILE_LIST = 0x0000,
        CORE = 0x0001,
        MORPHING = 0x0002,
        REMOVABLE_MEDIUM = 0x0003,
        RANDOM_READABLE = 0x0010,
        CD_READ = 0x001e,
        DVD_READ = 0x001f,
        POWER_MANAGEMENT = 0x0100,
        TIMEOUT = 0x0105,
    }
}

open_enum! {
    /// RT of GET CONFIGURATION.
    pub enum RequestedFeatures: u8 {
        FROM_STARTING = 0,
        CURRENT = 1,
        ONE = 2,
    }
}

open_enum! {
    /// Classes of events.
    pub enum EventClass: u8 {
        OPERATIONAL_CHANGE = 1,
        POWER_MANAGEMENT = 2,
        MEDIA = 4,
        DEVICE_BUSY = 6,
    }
}

open_enum! {
    /// What happened to the medium.
    pub enum MediaEvent: u8 {
        NO_CHANGE = 0,
        EJECT_REQUEST = 1,
        NEW_MEDIA = 2,
        MEDIA_REMOVAL = 3,
    }
}

open_enum! {
    /// Format of READ TOC/PMA/ATIP.
    pub enum TocFormat: u8 {
        TRACKS = 0,
        SESSIONS = 1,
        FULL = 2,
    }
}

open_enum! {
    /// Format of READ DISC STRUCTURE for DVD.
    pub enum StructureFormat: u8 {
        PHYSICAL = 0x00,
        COPYRIGHT = 0x01,
        LIST = 0xff,
    }
}

open_enum! {
    /// What the address of READ TRACK INFORMATION is.
    pub enum TrackAddress: u8 {
        LBA = 0,
        TRACK = 1,
        SESSION = 2,
    }
}

open_enum! {
    /// Expected sector type of READ CD, in bits 4 to 2 of byte 1.
    pub enum SectorType: u8 {
        ANY = 0,
        MODE_1 = 2,
    }
}

/// Of [`FeatureHeader`]: it is always current.
pub const PERSISTENT: u8 = 0x02;
/// Of [`FeatureHeader`] and [`ProfileDescriptor`]: it applies now.
pub const CURRENT: u8 = 0x01;
/// Of [`FeatureHeader`]: shift of the version.
pub const VERSION_SHIFT: u8 = 2;
/// Of the core feature: the physical interface is of the SCSI family.
pub const INTERFACE_SCSI: u32 = 1;
/// Of the core feature: DBE, device busy events.
pub const DEVICE_BUSY_EVENTS: u8 = 0x01;
/// Of the morphing feature: OCEVENT, operational change events.
pub const OPERATIONAL_EVENTS: u8 = 0x02;
/// Of the removable medium feature: a tray, to be loaded and ejected by command, that can be
/// locked.
pub const TRAY: u8 = 0x20 | 0x10 | 0x08 | 0x01;
/// Of [`EventHeader`]: no event of the classes that were asked for exists.
pub const NO_EVENT_AVAILABLE: u8 = 0x80;
/// Of [`Event`], second byte for media.
pub const MEDIUM_PRESENT: u8 = 0x02;
/// Of [`Event`], second byte for media.
pub const TRAY_OPEN: u8 = 0x01;
/// Of [`Event`], second byte for power management.
pub const POWER_ACTIVE: u8 = 0x01;
/// ADR 1 and CONTROL 4: a data track whose position is told.
pub const DATA_TRACK: u8 = 0x14;
/// Track number of the lead-out area.
pub const LEAD_OUT: u8 = 0xaa;
/// Of READ TOC/PMA/ATIP and READ CD: addresses are minutes, seconds and frames.
pub const MSF: u8 = 0x02;
/// READ TOC/PMA/ATIP has had its format here, in the CONTROL byte, before MMC; Linux asks so.
pub const OLD_FORMAT_SHIFT: u8 = 6;
/// Of [`DiscInformation`]: last session complete, disc finalized.
pub const COMPLETE: u8 = 0x0e;
/// Of [`DiscInformation`]: unrestricted use.
pub const UNRESTRICTED: u8 = 0x20;
/// Of [`MechanismStatus`]: the tray is out.
pub const DOOR_OPEN: u8 = 0x10;
/// Of READ CD: user data is wanted.
pub const USER_DATA: u8 = 0x10;
/// Where the data area of a DVD begins, in physical sectors.
pub const DVD_DATA_BEGIN: u32 = 0x03_0000;
/// PERSISTENT, of PREVENT ALLOW MEDIUM REMOVAL.
pub const PERSISTENT_LOCK: u8 = 0x02;
/// PREVENT, of PREVENT ALLOW MEDIUM REMOVAL.
pub const PREVENT: u8 = 0x01;

/// CD device parameters.
pub const CD_PARAMETERS: Page = Page(0x0d);
/// CD audio control.
pub const AUDIO_CONTROL: Page = Page(0x0e);
/// Timeout and protect.
pub const TIMEOUT_AND_PROTECT: Page = Page(0x1d);
/// Capabilities and mechanical status.
pub const CAPABILITIES: Page = Page(0x2a);

layouts! {
    pub struct GetConfiguration {
        pub opcode: u8,
        /// [`RequestedFeatures`] in two bits.
        pub requested: u8,
        pub starting_feature: U16,
        pub reserved: [u8; 3],
        pub length: U16,
        pub control: u8,
    }

    pub struct GetEventStatusNotification {
        pub opcode: u8,
        /// 1: polled.
        pub polled: u8,
        pub reserved2: [u8; 2],
        /// A bit for each class.
        pub classes: u8,
        pub reserved5: [u8; 2],
        pub length: U16,
        pub control: u8,
    }

    pub struct ReadToc {
        pub opcode: u8,
        /// [`MSF`].
        pub flags: u8,
        pub format: u8,
        pub reserved: [u8; 3],
        pub track: u8,
        pub length: U16,
        pub control: u8,
    }

    pub struct ReadTrackInformation {
        pub opcode: u8,
        /// [`TrackAddress`] in two bits.
        pub address_type: u8,
        pub address: U32,
        pub reserved: u8,
        pub length: U16,
        pub control: u8,
    }

    pub struct ReadDiscStructure {
        pub opcode: u8,
        /// Media type in four bits: 0 is DVD.
        pub media_type: u8,
        pub address: U32,
        pub layer: u8,
        pub format: u8,
        pub length: U16,
        pub agid: u8,
        pub control: u8,
    }

    pub struct ConfigurationHeader {
        /// Bytes behind this field.
        pub length: U32,
        pub reserved: U16,
        pub profile: U16,
    }

    pub struct FeatureHeader {
        pub feature: U16,
        /// Version, [`PERSISTENT`], [`CURRENT`].
        pub flags: u8,
        /// Bytes behind this one.
        pub length: u8,
    }

    pub struct ProfileDescriptor {
        pub profile: U16,
        /// [`CURRENT`].
        pub flags: u8,
        pub reserved: u8,
    }

    pub struct RandomReadable {
        pub block_size: U32,
        pub blocking: U16,
        /// 1: there is a page of error recovery.
        pub page_present: u8,
        pub reserved: u8,
    }

    pub struct EventHeader {
        /// Bytes behind this field.
        pub length: U16,
        /// [`NO_EVENT_AVAILABLE`] and the class.
        pub class: u8,
        /// A bit for each class that there is.
        pub supported: u8,
    }

    pub struct Event {
        pub code: u8,
        pub status: u8,
        pub details: U16,
    }

    pub struct TocHeader {
        /// Bytes behind this field.
        pub length: U16,
        pub first: u8,
        pub last: u8,
    }

    pub struct TocTrack {
        pub reserved: u8,
        pub adr_control: u8,
        pub track: u8,
        pub reserved3: u8,
        pub start: U32,
    }

    /// An entry of the lead-in area.
    pub struct TocPoint {
        pub session: u8,
        pub adr_control: u8,
        pub track: u8,
        pub point: u8,
        pub time: [u8; 3],
        pub zero: u8,
        /// Minute, second, frame, or what the point says.
        pub position: [u8; 3],
    }

    pub struct DiscInformation {
        /// Bytes behind this field.
        pub length: U16,
        /// [`COMPLETE`].
        pub status: u8,
        pub first_track: u8,
        pub sessions: u8,
        pub first_track_of_last_session: u8,
        pub last_track: u8,
        /// [`UNRESTRICTED`].
        pub flags: u8,
        pub disc_type: u8,
        pub upper: [u8; 3],
        pub identification: U32,
        pub lead_in: U32,
        pub lead_out: U32,
        pub bar_code: [u8; 8],
        pub application: u8,
        pub power_tables: u8,
    }

    pub struct TrackInformation {
        /// Bytes behind this field.
        pub length: U16,
        pub track: u8,
        pub session: u8,
        pub reserved: u8,
        /// CONTROL in four bits.
        pub mode: u8,
        /// Data mode in four bits.
        pub data_mode: u8,
        pub valid: u8,
        pub start: U32,
        pub next_writable: U32,
        pub free_blocks: U32,
        pub packet_size: U32,
        pub size: U32,
        pub last_recorded: U32,
        pub track_upper: u8,
        pub session_upper: u8,
        pub reserved34: [u8; 2],
    }

    pub struct StructureHeader {
        /// Bytes behind this field.
        pub length: U16,
        pub reserved: [u8; 2],
    }

    /// Begin of the physical format of a DVD.
    pub struct DvdPhysical {
        /// Book type in the upper four bits, part version in the lower.
        pub book: u8,
        /// Disc size in the upper four bits, maximum rate in the lower.
        pub size_rate: u8,
        /// Number of layers less one, track path, layer type.
        pub layers: u8,
        pub density: u8,
        pub data_begin: U32,
        pub data_end: U32,
        pub layer_0_end: U32,
    }

    /// An entry of the list of structures.
    pub struct StructureEntry {
        pub format: u8,
        /// [`READABLE`].
        pub flags: u8,
        pub length: U16,
    }

    pub struct MechanismStatus {
        pub state: u8,
        /// [`DOOR_OPEN`].
        pub flags: u8,
        pub current_lba: [u8; 3],
        pub slots: u8,
        pub table_length: U16,
    }

    pub struct CdParameters {
        pub page: u8,
        pub length: u8,
        pub reserved: u8,
        pub inactivity: u8,
        pub seconds_per_minute: U16,
        pub frames_per_second: U16,
    }

    pub struct AudioControl {
        pub page: u8,
        pub length: u8,
        /// Immediate.
        pub flags: u8,
        pub reserved: [u8; 5],
        pub ports: [U16; 4],
    }

    /// Power condition as it is in page 1Ah.
    pub struct PowerCondition {
        pub page: u8,
        pub length: u8,
        pub flags: U16,
        pub idle: U32,
        pub standby: U32,
    }

    pub struct TimeoutAndProtect {
        pub page: u8,
        pub length: u8,
        pub reserved: [u8; 2],
        pub flags: u8,
        pub reserved5: u8,
        pub group_1_timeout_s: U16,
        pub group_2_timeout_s: U16,
    }

    pub struct Capabilities {
        pub page: u8,
        pub length: u8,
        /// [`READS_CD_R`], [`READS_CD_RW`], [`READS_DVD_ROM`].
        pub reads: u8,
        pub writes: u8,
        pub plays: u8,
        pub sectors: u8,
        /// [`MECHANISM`], [`LOCKED`].
        pub mechanism: u8,
        pub audio: u8,
        pub speed_max: U16,
        pub volumes: U16,
        pub buffer_kib: U16,
        pub speed: U16,
        pub reserved: u8,
        pub digital_out: u8,
        pub write_speed_max: U16,
        pub write_speed: U16,
        pub copy_management: U16,
        pub reserved24: [u8; 2],
    }
}

/// Of [`StructureEntry`].
pub const READABLE: u8 = 0x40;
/// Of [`Capabilities`].
pub const READS_CD_R: u8 = 0x01;
/// Of [`Capabilities`].
pub const READS_CD_RW: u8 = 0x02;
/// Of [`Capabilities`].
pub const READS_DVD_ROM: u8 = 0x08;
/// Of [`Capabilities`]: a tray that can be ejected and locked.
pub const MECHANISM: u8 = 0x20 | 0x08 | 0x01;
/// Of [`Capabilities`]: it is locked now.
pub const LOCKED: u8 = 0x02;
/// Of [`Capabilities`]: a CD once around, in kilobytes a second.
pub const SPEED_1X: u16 = 176;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn layouts_have_their_lengths() {
        assert_eq!(size_of::<GetConfiguration>(), 10);
        assert_eq!(size_of::<GetEventStatusNotification>(), 10);
        assert_eq!(size_of::<ReadToc>(), 10);
        assert_eq!(size_of::<ReadTrackInformation>(), 10);
        assert_eq!(size_of::<ReadDiscStructure>(), 12);
        assert_eq!(size_of::<ConfigurationHeader>(), 8);
        assert_eq!(size_of::<EventHeader>() + size_of::<Event>(), 8);
        assert_eq!(size_of::<TocPoint>(), 11);
        assert_eq!(size_of::<DiscInformation>(), 34);
        assert_eq!(size_of::<TrackInformation>(), 36);
        assert_eq!(offset_of!(TrackInformation, size), 24);
        assert_eq!(size_of::<MechanismStatus>(), 8);
    }

    #[test]
    fn pages_have_their_lengths() {
        assert_eq!(size_of::<CdParameters>(), 0x06 + 2);
        assert_eq!(size_of::<AudioControl>(), 0x0e + 2);
        assert_eq!(size_of::<PowerCondition>(), 0x0a + 2);
        assert_eq!(size_of::<TimeoutAndProtect>(), 0x08 + 2);
        assert_eq!(size_of::<Capabilities>(), 0x18 + 2);
        assert_eq!(offset_of!(Capabilities, speed_max), 8);
    }
}
