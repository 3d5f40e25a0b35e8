//! Command descriptor blocks. Each struct is a whole block, its operation code included, so that
//! offsets are those of the standard's tables; commands of one shape share a struct.

use super::layout::layouts;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

/// The longest block that is not of variable length.
pub const CDB_BYTES_MAX: usize = 16;

/// Bits of the CONTROL byte, the last of every block up to 16 bytes (SAM-5 5.2).
pub mod control {
    /// On a CHECK CONDITION an auto contingent allegiance condition is to be established.
    pub const NACA: u8 = 0x04;
}

/// Bits of byte 1 of commands that read, write or verify blocks (SBC-3 5).
pub mod flag {
    /// RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT: three bits.
    pub const PROTECT: u8 = 0xe0;
    /// Disable page out.
    pub const DPO: u8 = 0x10;
    /// Force unit access.
    pub const FUA: u8 = 0x08;
    /// Of VERIFY and WRITE AND VERIFY: two bits from here.
    pub const BYTCHK: u8 = 0x06;
    /// Shift of [`BYTCHK`].
    pub const BYTCHK_SHIFT: u8 = 1;
    /// Of SYNCHRONIZE CACHE and PRE-FETCH: answer at once.
    pub const IMMED: u8 = 0x02;
    /// Of WRITE SAME.
    pub const ANCHOR: u8 = 0x10;
    /// Of WRITE SAME.
    pub const UNMAP: u8 = 0x08;
    /// Of WRITE SAME(16): no data-out buffer, the block is zeroes.
    pub const NDOB: u8 = 0x01;
    /// Of UNMAP.
    pub const UNMAP_ANCHOR: u8 = 0x01;
    /// Of INQUIRY.
    pub const EVPD: u8 = 0x01;
    /// Of REQUEST SENSE: descriptor format.
    pub const DESC: u8 = 0x01;
    /// Of MODE SENSE: no block descriptors.
    pub const DBD: u8 = 0x08;
    /// Of MODE SENSE(10): long block descriptors are accepted.
    pub const LLBAA: u8 = 0x10;
    /// Of MODE SELECT: page format.
    pub const PF: u8 = 0x10;
    /// Of MODE SELECT, LOG SENSE: save pages.
    pub const SP: u8 = 0x01;
    /// Of MODE SELECT: revert to defaults.
    pub const RTD: u8 = 0x02;
    /// Of REPORT SUPPORTED OPERATION CODES: return command time-outs.
    pub const RCTD: u8 = 0x80;
    /// Of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: the extended data.
    pub const REPD: u8 = 0x80;
    /// Of SANITIZE: answer at once.
    pub const SANITIZE_IMMED: u8 = 0x80;
    /// Of SANITIZE: allow unrestricted exit of failure mode.
    pub const SANITIZE_AUSE: u8 = 0x20;
    /// Of FORMAT UNIT: protection information, two bits.
    pub const FMTPINFO: u8 = 0xc0;
    /// Of FORMAT UNIT: parameter list header is long.
    pub const LONGLIST: u8 = 0x20;
    /// Of FORMAT UNIT: there is a parameter list.
    pub const FMTDATA: u8 = 0x10;
    /// Of FORMAT UNIT: complete list.
    pub const CMPLST: u8 = 0x08;
    /// Of SEND DIAGNOSTIC: three bits.
    pub const SELF_TEST_CODE: u8 = 0xe0;
    /// Of SEND DIAGNOSTIC.
    pub const SELFTEST: u8 = 0x04;
    /// Of RECEIVE DIAGNOSTIC RESULTS: the page code is valid.
    pub const PCV: u8 = 0x01;
}

/// Bits of byte 4 of START STOP UNIT (SBC-3 5.25).
pub mod start_stop {
    pub const POWER_CONDITION: u8 = 0xf0;
    pub const POWER_CONDITION_SHIFT: u8 = 4;
    pub const NO_FLUSH: u8 = 0x04;
    pub const LOEJ: u8 = 0x02;
    pub const START: u8 = 0x01;
}

layouts! {
    /// READ(6), WRITE(6): 21 bits of address, of a length of 0 blocks are 256.
    pub struct Transfer6 {
        pub opcode: u8,
        pub lba: [u8; 3],
        pub length: u8,
        pub control: u8,
    }

    /// READ, WRITE, VERIFY, WRITE AND VERIFY, WRITE SAME, PRE-FETCH, SYNCHRONIZE CACHE (10).
    pub struct Transfer10 {
        pub opcode: u8,
        pub flags: u8,
        pub lba: U32,
        pub group: u8,
        pub length: U16,
        pub control: u8,
    }

    /// READ, WRITE, VERIFY, WRITE AND VERIFY (12).
    pub struct Transfer12 {
        pub opcode: u8,
        pub flags: u8,
        pub lba: U32,
        pub length: U32,
        pub group: u8,
        pub control: u8,
    }

    /// The same of 16 bytes, ORWRITE, and SERVICE ACTION IN(16) with an address and an allocation
    /// length.
    pub struct Transfer16 {
        pub opcode: u8,
        pub flags: u8,
        pub lba: U64,
        pub length: U32,
        pub group: u8,
        pub control: u8,
    }

    pub struct CompareAndWrite {
        pub opcode: u8,
        pub flags: u8,
        pub lba: U64,
        pub reserved: [u8; 3],
        pub length: u8,
        pub group: u8,
        pub control: u8,
    }

    /// TEST UNIT READY, RESERVE(6), RELEASE(6), START STOP UNIT, PREVENT ALLOW, REQUEST SENSE,
    /// MODE SELECT(6), WRITE-less commands of six bytes: one length or option in byte 4.
    pub struct Plain6 {
        pub opcode: u8,
        pub flags: u8,
        pub reserved: [u8; 2],
        pub length: u8,
        pub control: u8,
    }

    /// INQUIRY, RECEIVE DIAGNOSTIC RESULTS; SEND DIAGNOSTIC has the page reserved.
    pub struct Inquiry {
        pub opcode: u8,
        pub flags: u8,
        pub page: u8,
        pub length: U16,
        pub control: u8,
    }

    pub struct ModeSense6 {
        pub opcode: u8,
        pub flags: u8,
        /// Page control in two bits, page code in six.
        pub page: u8,
        pub subpage: u8,
        pub length: u8,
        pub control: u8,
    }

    /// MODE SENSE(10), LOG SENSE (of which byte 5 and 6 are the parameter pointer).
    pub struct Page10 {
        pub opcode: u8,
        pub flags: u8,
        /// Page control in two bits, page code in six.
        pub page: u8,
        pub subpage: u8,
        pub reserved: u8,
        pub pointer: U16,
        pub length: U16,
        pub control: u8,
    }

    /// MODE SELECT(10), UNMAP, SANITIZE, PERSISTENT RESERVE IN, RESERVE(10), RELEASE(10): a length
    /// in bytes 7 and 8.
    pub struct Plain10 {
        pub opcode: u8,
        pub flags: u8,
        pub byte2: u8,
        pub reserved: [u8; 4],
        pub length: U16,
        pub control: u8,
    }

    pub struct PersistentReserveOut {
        pub opcode: u8,
        pub service_action: u8,
        /// Scope in the upper four bits, type in the lower.
        pub scope_type: u8,
        pub reserved: [u8; 2],
        pub length: U32,
        pub control: u8,
    }

    /// READ BUFFER(10), WRITE BUFFER.
    pub struct Buffer10 {
        pub opcode: u8,
        pub mode: u8,
        pub buffer_id: u8,
        pub buffer_offset: [u8; 3],
        pub length: [u8; 3],
        pub control: u8,
    }

    pub struct ReportLuns {
        pub opcode: u8,
        pub reserved1: u8,
        pub select_report: u8,
        pub reserved3: [u8; 3],
        pub length: U32,
        pub reserved10: u8,
        pub control: u8,
    }

    /// MAINTENANCE IN and OUT: a length in bytes 6 to 9.
    pub struct Maintenance {
        pub opcode: u8,
        pub service_action: u8,
        pub options: u8,
        /// Of REPORT SUPPORTED OPERATION CODES.
        pub requested_opcode: u8,
        /// Of REPORT SUPPORTED OPERATION CODES.
        pub requested_service_action: U16,
        pub length: U32,
        pub reserved: u8,
        pub control: u8,
    }

    pub struct ReadDefectData12 {
        pub opcode: u8,
        pub format: u8,
        pub address_descriptor_index: U32,
        pub length: U32,
        pub reserved: u8,
        pub control: u8,
    }

    /// THIRD-PARTY COPY OUT and IN.
    pub struct ThirdPartyCopy {
        pub opcode: u8,
        pub service_action: u8,
        /// The list identifier is byte 2 with LID1 and bytes 6 to 9 with LID4.
        pub list_identifier1: u8,
        pub reserved: [u8; 3],
        pub list_identifier: U32,
        pub length: U32,
        pub group: u8,
        pub control: u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    #[test]
    fn blocks_have_the_length_of_their_group() {
        assert_eq!(size_of::<Transfer6>(), 6);
        assert_eq!(size_of::<Plain6>(), 6);
        assert_eq!(size_of::<Inquiry>(), 6);
        assert_eq!(size_of::<ModeSense6>(), 6);
        assert_eq!(size_of::<Transfer10>(), 10);
        assert_eq!(size_of::<Page10>(), 10);
        assert_eq!(size_of::<Plain10>(), 10);
        assert_eq!(size_of::<Buffer10>(), 10);
        assert_eq!(size_of::<PersistentReserveOut>(), 10);
        assert_eq!(size_of::<Transfer12>(), 12);
        assert_eq!(size_of::<ReportLuns>(), 12);
        assert_eq!(size_of::<Maintenance>(), 12);
        assert_eq!(size_of::<ReadDefectData12>(), 12);
        assert_eq!(size_of::<Transfer16>(), 16);
        assert_eq!(size_of::<CompareAndWrite>(), 16);
        assert_eq!(size_of::<ThirdPartyCopy>(), 16);
    }

    #[test]
    fn a_read_is_read_big_endian() {
        let bytes = [0x28, 0x08, 0, 0, 1, 2, 0, 0, 8, 0];
        let cdb = Transfer10::read_from_bytes(&bytes).unwrap();
        assert_eq!((cdb.lba.get(), cdb.length.get()), (258, 8));
        assert_eq!(cdb.flags & flag::FUA, flag::FUA);
    }
}
