//! REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4 6.35, 6.36).

use super::layout::layouts;
use zerocopy::byteorder::big_endian::{U16, U32};

layouts! {
    /// Of all commands: one of them. A time-outs descriptor may follow.
    pub struct CommandDescriptor {
        pub opcode: u8,
        pub reserved: u8,
        pub service_action: U16,
        pub reserved4: u8,
        /// [`CTDP`], [`SERVACTV`].
        pub flags: u8,
        pub cdb_length: U16,
    }

    /// Of one command; its usage map follows, then a time-outs descriptor.
    pub struct OneCommand {
        pub reserved: u8,
        /// [`ONE_CTDP`] and [`SUPPORTED`] or another.
        pub support: u8,
        pub cdb_length: U16,
    }

    /// Command time-outs.
    pub struct Timeouts {
        /// Bytes behind this field.
        pub length: U16,
        pub reserved: u8,
        pub command_specific: u8,
        pub nominal_s: U32,
        pub recommended_s: U32,
    }

    /// The basic data is the first four bytes of it.
    pub struct TaskManagementFunctions {
        pub flags: u8,
        pub flags1: u8,
        pub reserved: u8,
        pub additional_length: u8,
        pub flags4: u8,
        pub reserved5: [u8; 3],
        pub timeout_long: U32,
        pub timeout_short: U32,
    }
}

/// Of [`CommandDescriptor`]: a time-outs descriptor follows.
pub const CTDP: u8 = 0x02;
/// Of [`CommandDescriptor`]: the service action is valid.
pub const SERVACTV: u8 = 0x01;
/// Of [`OneCommand`]: a time-outs descriptor follows.
pub const ONE_CTDP: u8 = 0x80;
/// SUPPORT: not known to be one.
pub const NOT_SUPPORTED: u8 = 0x1;
/// SUPPORT: as the standard says.
pub const SUPPORTED: u8 = 0x3;

/// REPORTING OPTIONS: all commands.
pub const REPORT_ALL: u8 = 0;
/// REPORTING OPTIONS: one command that has no service actions.
pub const REPORT_OPCODE: u8 = 1;
/// REPORTING OPTIONS: one command with its service action.
pub const REPORT_SERVICE_ACTION: u8 = 2;
/// REPORTING OPTIONS: one command, whether it has service actions or not.
pub const REPORT_EITHER: u8 = 3;

/// First byte of [`TaskManagementFunctions`].
pub mod function {
    pub const ABORT_TASK: u8 = 0x80;
    pub const ABORT_TASK_SET: u8 = 0x40;
    pub const CLEAR_ACA: u8 = 0x20;
    pub const CLEAR_TASK_SET: u8 = 0x10;
    pub const LOGICAL_UNIT_RESET: u8 = 0x08;
    pub const QUERY_TASK: u8 = 0x04;
    /// Second byte.
    pub const QUERY_ASYNC_EVENT: u8 = 0x04;
    /// Second byte.
    pub const QUERY_TASK_SET: u8 = 0x02;
    /// Second byte.
    pub const I_T_NEXUS_RESET: u8 = 0x01;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_their_lengths() {
        assert_eq!(size_of::<CommandDescriptor>(), 8);
        assert_eq!(size_of::<OneCommand>(), 4);
        assert_eq!(size_of::<Timeouts>(), 12);
        assert_eq!(size_of::<TaskManagementFunctions>(), 16);
    }
}
