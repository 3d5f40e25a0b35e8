//! The basic header segments (11.2 to 11.19): 48 bytes each, the same fields at the same places.

use crate::iscsi::ahs::{AHS_WORD_BYTES, CDB_BYTES};
use crate::iscsi::code::Opcode;
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a basic header segment (11.2.1).
pub const BHS_BYTES: usize = 48;

/// Bits of the first and second byte.
pub mod flag {
    /// First byte: immediate delivery (11.2.1.1).
    pub const IMMEDIATE: u8 = 0x40;
    /// First byte: the opcode.
    pub const OPCODE_MASK: u8 = 0x3f;
    /// Second byte: last or only PDU of a sequence. Always set where it means nothing.
    pub const FINAL: u8 = 0x80;
    /// Text and login: the text goes on in the next PDU of the sender.
    pub const CONTINUE: u8 = 0x40;
    /// Login: T, the sender is ready for the next stage.
    pub const TRANSIT: u8 = 0x80;
    /// Login: where CSG begins.
    pub const CSG_SHIFT: u8 = 2;
    /// Login: width of CSG and of NSG.
    pub const STAGE_MASK: u8 = 0x03;
    /// SCSI command: R, data-in is expected.
    pub const READ: u8 = 0x40;
    /// SCSI command: W, data-out is expected.
    pub const WRITE: u8 = 0x20;
    /// SCSI command: the task attribute.
    pub const ATTRIBUTE_MASK: u8 = 0x07;
    /// SCSI response: o, overflow of the read part of a bidirectional command.
    pub const BIDIRECTIONAL_OVERFLOW: u8 = 0x10;
    /// SCSI response: u, underflow of the read part of a bidirectional command.
    pub const BIDIRECTIONAL_UNDERFLOW: u8 = 0x08;
    /// SCSI response and Data-In with S: O, the command had more data than was expected.
    pub const OVERFLOW: u8 = 0x04;
    /// SCSI response and Data-In with S: U, fewer bytes were transferred than expected.
    pub const UNDERFLOW: u8 = 0x02;
    /// Data-In: A, a DataACK is asked for.
    pub const ACKNOWLEDGE: u8 = 0x40;
    /// Data-In: S, this PDU carries the status.
    pub const STATUS: u8 = 0x01;
    /// Task management: the function.
    pub const FUNCTION_MASK: u8 = 0x7f;
    /// Logout: the reason.
    pub const REASON_MASK: u8 = 0x7f;
    /// SNACK: the type.
    pub const SNACK_TYPE_MASK: u8 = 0x0f;
}

/// Task attributes of a SCSI command (11.3.1).
pub mod attribute {
    pub const UNTAGGED: u8 = 0;
    pub const SIMPLE: u8 = 1;
    pub const ORDERED: u8 = 2;
    pub const HEAD_OF_QUEUE: u8 = 3;
    pub const ACA: u8 = 4;
}

/// An integer of three bytes, big endian.
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
#[repr(transparent)]
pub struct Uint24([u8; 3]);

impl Uint24 {
    pub const MAX: u32 = 0xff_ffff;

    /// The low 24 bits of `value`.
    pub const fn new(value: u32) -> Self {
        let [_, high, middle, low] = value.to_be_bytes();
        Self([high, middle, low])
    }

    pub const fn get(self) -> u32 {
        u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]])
    }
}

/// A view of the 48 bytes as the PDU of one opcode.
pub trait Pdu: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned {
    const OPCODE: Opcode;
}

macro_rules! pdus {
    ($(
        $(#[$meta:meta])*
        $Type:ident = $opcode:expr;
        { $( $(#[$field_meta:meta])* $field:ident: $kind:ty, )+ }
    )+) => { $(
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
            Unaligned,
        )]
        #[repr(C)]
        pub struct $Type { $( $(#[$field_meta])* pub $field: $kind, )+ }

        impl Pdu for $Type {
            const OPCODE: Opcode = $opcode;
        }

        impl Default for $Type {
            /// All zero but the opcode.
            fn default() -> Self {
                let mut bytes = [0; BHS_BYTES];
                bytes[0] = Self::OPCODE.0;
                zerocopy::transmute!(bytes)
            }
        }

        const _: () = assert!(size_of::<$Type>() == BHS_BYTES);
    )+ };
}

/// What all basic header segments share (11.2.1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// [`flag::IMMEDIATE`] and the opcode.
    pub opcode: u8,
    pub flags: u8,
    pub specific: [u8; 2],
    /// In units of four bytes.
    pub total_ahs_length: u8,
    pub data_segment_length: Uint24,
    /// LUN, or the opcode's own.
    pub lun: [u8; 8],
    pub initiator_task_tag: U32,
    pub rest: [u8; 28],
}

const _: () = assert!(size_of::<Header>() == BHS_BYTES);

impl Header {
    pub const fn opcode(&self) -> Opcode {
        Opcode(self.opcode & flag::OPCODE_MASK)
    }

    pub const fn is_immediate(&self) -> bool {
        self.opcode & flag::IMMEDIATE != 0
    }

    pub const fn ahs_bytes(&self) -> usize {
        self.total_ahs_length as usize * AHS_WORD_BYTES
    }

    pub const fn data_bytes(&self) -> u32 {
        self.data_segment_length.get()
    }

    /// The same bytes as the PDU of one opcode; which one is the caller's to know.
    pub fn view<P: Pdu>(&self) -> &P {
        P::ref_from_bytes(self.as_bytes()).expect("every PDU struct has the size of a header")
    }
}

pdus! {
    /// 11.3. Byte 1: F, R, W, task attribute.
    ScsiCommand = Opcode::SCSI_COMMAND;
    {
        opcode: u8,
        flags: u8,
        /// RFC 7144, 4.1: the priority in the low four bits of the first byte.
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        expected_data_transfer_length: U32,
        cmd_sn: U32,
        exp_stat_sn: U32,
        cdb: [u8; CDB_BYTES],
    }

    /// 11.4. The data segment: length of the sense data in two bytes, sense data.
    ScsiResponse = Opcode::SCSI_RESPONSE;
    {
        opcode: u8,
        flags: u8,
        response: u8,
        status: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        /// RFC 7144, 4.2: the status qualifier in the first two bytes.
        reserved: [u8; 8],
        initiator_task_tag: U32,
        snack_tag: U32,
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        exp_data_sn: U32,
        bidirectional_residual_count: U32,
        residual_count: U32,
    }

    /// 11.5. Byte 1: the function.
    TaskManagementRequest = Opcode::TASK_MANAGEMENT_REQUEST;
    {
        opcode: u8,
        function: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        referenced_task_tag: U32,
        cmd_sn: U32,
        exp_stat_sn: U32,
        ref_cmd_sn: U32,
        exp_data_sn: U32,
        reserved2: [u8; 8],
    }

    /// 11.6.
    TaskManagementResponse = Opcode::TASK_MANAGEMENT_RESPONSE;
    {
        opcode: u8,
        flags: u8,
        response: u8,
        reserved: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        /// RFC 7144, 5.2: additional response information in the first three bytes.
        reserved2: [u8; 8],
        initiator_task_tag: U32,
        reserved3: [u8; 4],
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        reserved4: [u8; 12],
    }

    /// 11.7, from the initiator.
    DataOut = Opcode::DATA_OUT;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        reserved2: [u8; 4],
        exp_stat_sn: U32,
        reserved3: [u8; 4],
        data_sn: U32,
        buffer_offset: U32,
        reserved4: [u8; 4],
    }

    /// 11.7, from the target. `status`, `stat_sn` and `residual_count` count when S is set.
    DataIn = Opcode::DATA_IN;
    {
        opcode: u8,
        flags: u8,
        reserved: u8,
        status: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        data_sn: U32,
        buffer_offset: U32,
        residual_count: U32,
    }

    /// 11.8.
    R2t = Opcode::R2T;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        r2t_sn: U32,
        buffer_offset: U32,
        desired_data_transfer_length: U32,
    }

    /// 11.9. The data segment of a SCSI event: as that of a SCSI response.
    AsyncMessage = Opcode::ASYNC_MESSAGE;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        /// Always the reserved tag.
        initiator_task_tag: U32,
        reserved2: [u8; 4],
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        async_event: u8,
        async_vcode: u8,
        parameter1: U16,
        parameter2: U16,
        parameter3: U16,
        reserved3: [u8; 4],
    }

    /// 11.10. Byte 1: F, C.
    TextRequest = Opcode::TEXT_REQUEST;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        cmd_sn: U32,
        exp_stat_sn: U32,
        reserved2: [u8; 16],
    }

    /// 11.11. Byte 1: F, C.
    TextResponse = Opcode::TEXT_RESPONSE;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        reserved2: [u8; 12],
    }

    /// 11.12. Byte 1: T, C, CSG, NSG.
    LoginRequest = Opcode::LOGIN_REQUEST;
    {
        opcode: u8,
        flags: u8,
        version_max: u8,
        version_min: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        isid: [u8; 6],
        tsih: U16,
        initiator_task_tag: U32,
        cid: U16,
        reserved: [u8; 2],
        cmd_sn: U32,
        exp_stat_sn: U32,
        reserved2: [u8; 16],
    }

    /// 11.13. Byte 1: T, C, CSG, NSG.
    LoginResponse = Opcode::LOGIN_RESPONSE;
    {
        opcode: u8,
        flags: u8,
        version_max: u8,
        version_active: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        isid: [u8; 6],
        tsih: U16,
        initiator_task_tag: U32,
        reserved: [u8; 4],
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        /// A [`LoginStatus`](super::LoginStatus): Status-Class, Status-Detail.
        status: U16,
        reserved2: [u8; 10],
    }

    /// 11.14. Byte 1: the reason.
    LogoutRequest = Opcode::LOGOUT_REQUEST;
    {
        opcode: u8,
        reason: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        reserved2: [u8; 8],
        initiator_task_tag: U32,
        cid: U16,
        reserved3: [u8; 2],
        cmd_sn: U32,
        exp_stat_sn: U32,
        reserved4: [u8; 16],
    }

    /// 11.15.
    LogoutReply = Opcode::LOGOUT_RESPONSE;
    {
        opcode: u8,
        flags: u8,
        response: u8,
        reserved: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        reserved2: [u8; 8],
        initiator_task_tag: U32,
        reserved3: [u8; 4],
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        reserved4: [u8; 4],
        time2wait: U16,
        time2retain: U16,
        reserved5: [u8; 4],
    }

    /// 11.16. Byte 1: the type.
    Snack = Opcode::SNACK_REQUEST;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        reserved2: [u8; 4],
        exp_stat_sn: U32,
        reserved3: [u8; 8],
        beg_run: U32,
        run_length: U32,
    }

    /// 11.17. The data segment: the header of the PDU that was rejected.
    Reject = Opcode::REJECT;
    {
        opcode: u8,
        flags: u8,
        reason: u8,
        reserved: u8,
        total_ahs_length: u8,
        data_segment_length: Uint24,
        reserved2: [u8; 8],
        /// Always the reserved tag.
        initiator_task_tag: U32,
        reserved3: [u8; 4],
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        data_sn: U32,
        reserved4: [u8; 8],
    }

    /// 11.18.
    NopOut = Opcode::NOP_OUT;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        cmd_sn: U32,
        exp_stat_sn: U32,
        reserved2: [u8; 16],
    }

    /// 11.19.
    NopIn = Opcode::NOP_IN;
    {
        opcode: u8,
        flags: u8,
        reserved: [u8; 2],
        total_ahs_length: u8,
        data_segment_length: Uint24,
        lun: [u8; 8],
        initiator_task_tag: U32,
        target_transfer_tag: U32,
        stat_sn: U32,
        exp_cmd_sn: U32,
        max_cmd_sn: U32,
        reserved2: [u8; 12],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn fields_lie_where_the_standard_draws_them() {
        assert_eq!(offset_of!(Header, initiator_task_tag), 16);
        assert_eq!(offset_of!(ScsiCommand, expected_data_transfer_length), 20);
        assert_eq!(offset_of!(ScsiCommand, cmd_sn), 24);
        assert_eq!(offset_of!(ScsiCommand, cdb), 32);
        assert_eq!(offset_of!(ScsiResponse, exp_data_sn), 36);
        assert_eq!(offset_of!(ScsiResponse, residual_count), 44);
        assert_eq!(offset_of!(TaskManagementRequest, ref_cmd_sn), 32);
        assert_eq!(offset_of!(TaskManagementResponse, stat_sn), 24);
        assert_eq!(offset_of!(DataOut, exp_stat_sn), 28);
        assert_eq!(offset_of!(DataOut, buffer_offset), 40);
        assert_eq!(offset_of!(DataIn, data_sn), 36);
        assert_eq!(offset_of!(DataIn, residual_count), 44);
        assert_eq!(offset_of!(R2t, desired_data_transfer_length), 44);
        assert_eq!(offset_of!(AsyncMessage, async_event), 36);
        assert_eq!(offset_of!(AsyncMessage, parameter3), 42);
        assert_eq!(offset_of!(LoginRequest, tsih), 14);
        assert_eq!(offset_of!(LoginRequest, cid), 20);
        assert_eq!(offset_of!(LoginResponse, status), 36);
        assert_eq!(offset_of!(LogoutRequest, cid), 20);
        assert_eq!(offset_of!(LogoutReply, time2wait), 40);
        assert_eq!(offset_of!(Snack, beg_run), 40);
        assert_eq!(offset_of!(Reject, data_sn), 36);
        assert_eq!(offset_of!(NopOut, cmd_sn), 24);
        assert_eq!(offset_of!(NopIn, stat_sn), 24);
    }

    #[test]
    fn a_header_is_seen_as_the_pdu_it_is() {
        let command = ScsiCommand {
            opcode: Opcode::SCSI_COMMAND.0 | flag::IMMEDIATE,
            total_ahs_length: 3,
            data_segment_length: Uint24::new(0x01_02_03),
            initiator_task_tag: 7.into(),
            ..ScsiCommand::default()
        };
        let header = Header::read_from_bytes(command.as_bytes()).unwrap();
        assert_eq!(header.opcode(), Opcode::SCSI_COMMAND);
        assert!(header.is_immediate());
        assert_eq!((header.ahs_bytes(), header.data_bytes()), (12, 0x01_02_03));
        assert_eq!(header.view::<ScsiCommand>(), &command);
        assert_eq!(command.as_bytes()[5..8], [1, 2, 3]);
    }
}
