//! Operation codes (SPC-4 annex D) and the service actions of those that have them.

use crate::open_enum::open_enum;

open_enum! {
    /// The first byte of a command descriptor block.
    pub enum Opcode: u8 {
        TEST_UNIT_READY = 0x00,
        REQUEST_SENSE = 0x03,
        FORMAT_UNIT = 0x04,
        READ_6 = 0x08,
        WRITE_6 = 0x0a,
        INQUIRY = 0x12,
        MODE_SELECT_6 = 0x15,
        RESERVE_6 = 0x16,
        RELEASE_6 = 0x17,
        MODE_SENSE_6 = 0x1a,
        START_STOP_UNIT = 0x1b,
        RECEIVE_DIAGNOSTIC_RESULTS = 0x1c,
        SEND_DIAGNOSTIC = 0x1d,
        PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1e,
        READ_CAPACITY_10 = 0x25,
        READ_10 = 0x28,
        WRITE_10 = 0x2a,
        WRITE_AND_VERIFY_10 = 0x2e,
        VERIFY_10 = 0x2f,
        PRE_FETCH_10 = 0x34,
        SYNCHRONIZE_CACHE_10 = 0x35,
        READ_DEFECT_DATA_10 = 0x37,
        WRITE_BUFFER = 0x3b,
        READ_BUFFER = 0x3c,
        WRITE_SAME_10 = 0x41,
        UNMAP = 0x42,
        SANITIZE = 0x48,
        LOG_SELECT = 0x4c,
        LOG_SENSE = 0x4d,
        MODE_SELECT_10 = 0x55,
        RESERVE_10 = 0x56,
        RELEASE_10 = 0x57,
        MODE_SENSE_10 = 0x5a,
        PERSISTENT_RESERVE_IN = 0x5e,
        PERSISTENT_RESERVE_OUT = 0x5f,
        VARIABLE_LENGTH = 0x7f,
        THIRD_PARTY_COPY_OUT = 0x83,
        THIRD_PARTY_COPY_IN = 0x84,
        READ_16 = 0x88,
        COMPARE_AND_WRITE = 0x89,
        WRITE_16 = 0x8a,
        ORWRITE_16 = 0x8b,
        WRITE_AND_VERIFY_16 = 0x8e,
        VERIFY_16 = 0x8f,
        PRE_FETCH_16 = 0x90,
        SYNCHRONIZE_CACHE_16 = 0x91,
        WRITE_SAME_16 = 0x93,
        WRITE_ATOMIC_16 = 0x9c,
        SERVICE_ACTION_IN_16 = 0x9e,
        SERVICE_ACTION_OUT_16 = 0x9f,
        REPORT_LUNS = 0xa0,
        MAINTENANCE_IN = 0xa3,
        MAINTENANCE_OUT = 0xa4,
        READ_12 = 0xa8,
        WRITE_12 = 0xaa,
        WRITE_AND_VERIFY_12 = 0xae,
        VERIFY_12 = 0xaf,
        READ_DEFECT_DATA_12 = 0xb7,
    }
}

open_enum! {
    /// Of MAINTENANCE IN.
    pub enum MaintenanceIn: u8 {
        REPORT_TARGET_PORT_GROUPS = 0x0a,
        REPORT_SUPPORTED_OPERATION_CODES = 0x0c,
        REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS = 0x0d,
        REPORT_TIMESTAMP = 0x0f,
    }
}

open_enum! {
    /// Of MAINTENANCE OUT.
    pub enum MaintenanceOut: u8 {
        SET_TARGET_PORT_GROUPS = 0x0a,
        SET_TIMESTAMP = 0x0f,
    }
}

open_enum! {
    /// Of SERVICE ACTION IN(16).
    pub enum ServiceActionIn16: u8 {
        READ_CAPACITY_16 = 0x10,
        GET_LBA_STATUS = 0x12,
    }
}

open_enum! {
    /// Of PERSISTENT RESERVE IN (SPC-4 6.15.1).
    pub enum PersistentReserveIn: u8 {
        READ_KEYS = 0x00,
        READ_RESERVATION = 0x01,
        REPORT_CAPABILITIES = 0x02,
        READ_FULL_STATUS = 0x03,
    }
}

open_enum! {
    /// Of PERSISTENT RESERVE OUT (SPC-4 6.16.2).
    pub enum PersistentReserveOut: u8 {
        REGISTER = 0x00,
        RESERVE = 0x01,
        RELEASE = 0x02,
        CLEAR = 0x03,
        PREEMPT = 0x04,
        PREEMPT_AND_ABORT = 0x05,
        REGISTER_AND_IGNORE_EXISTING_KEY = 0x06,
        REGISTER_AND_MOVE = 0x07,
        REPLACE_LOST_RESERVATION = 0x08,
    }
}

open_enum! {
    /// Of SANITIZE (SBC-3 5.30).
    pub enum Sanitize: u8 {
        OVERWRITE = 0x01,
        BLOCK_ERASE = 0x02,
        CRYPTOGRAPHIC_ERASE = 0x03,
        EXIT_FAILURE_MODE = 0x1f,
    }
}

open_enum! {
    /// Of THIRD-PARTY COPY OUT (SPC-4 6.6).
    pub enum ThirdPartyCopyOut: u8 {
        EXTENDED_COPY_LID1 = 0x00,
        POPULATE_TOKEN = 0x10,
        WRITE_USING_TOKEN = 0x11,
        COPY_OPERATION_ABORT = 0x1c,
    }
}

open_enum! {
    /// Of THIRD-PARTY COPY IN (SPC-4 6.7).
    pub enum ThirdPartyCopyIn: u8 {
        RECEIVE_COPY_STATUS_LID1 = 0x00,
        RECEIVE_COPY_DATA_LID1 = 0x01,
        RECEIVE_COPY_OPERATING_PARAMETERS = 0x03,
        RECEIVE_COPY_FAILURE_DETAILS_LID1 = 0x04,
        RECEIVE_ROD_TOKEN_INFORMATION = 0x07,
        REPORT_ALL_ROD_TOKENS = 0x08,
    }
}

/// Bits of byte 1 that hold the service action of every command that has one.
pub const SERVICE_ACTION_MASK: u8 = 0x1f;

impl Opcode {
    /// Length of the command descriptor block by the group of its code (SPC-4 4.2.5.1); None where
    /// the group has no length of its own.
    pub const fn cdb_len(self) -> Option<usize> {
        match self.0 >> 5 {
            0 => Some(6),
            1 | 2 => Some(10),
            4 => Some(16),
            5 => Some(12),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_code_gives_the_length_of_its_block() {
        for (opcode, len) in [
            (Opcode::INQUIRY, Some(6)),
            (Opcode::READ_10, Some(10)),
            (Opcode::MODE_SENSE_10, Some(10)),
            (Opcode::READ_16, Some(16)),
            (Opcode::REPORT_LUNS, Some(12)),
            (Opcode::VARIABLE_LENGTH, None),
            (Opcode(0xc0), None),
        ] {
            assert_eq!(opcode.cdb_len(), len, "{opcode}");
        }
    }
}
