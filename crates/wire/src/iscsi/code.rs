//! The codes that stand in PDUs: opcodes, stages, statuses, reasons, functions, events.

use crate::open_enum::open_enum;

open_enum! {
    /// The low six bits of the first byte (11.2.1.2).
    pub enum Opcode: u8 {
        NOP_OUT = 0x00,
        SCSI_COMMAND = 0x01,
        TASK_MANAGEMENT_REQUEST = 0x02,
        LOGIN_REQUEST = 0x03,
        TEXT_REQUEST = 0x04,
        DATA_OUT = 0x05,
        LOGOUT_REQUEST = 0x06,
        SNACK_REQUEST = 0x10,
        NOP_IN = 0x20,
        SCSI_RESPONSE = 0x21,
        TASK_MANAGEMENT_RESPONSE = 0x22,
        LOGIN_RESPONSE = 0x23,
        TEXT_RESPONSE = 0x24,
        DATA_IN = 0x25,
        LOGOUT_RESPONSE = 0x26,
        R2T = 0x31,
        ASYNC_MESSAGE = 0x32,
        REJECT = 0x3f,
    }
}

open_enum! {
    /// CSG and NSG of login PDUs (11.12.3). 2 is reserved.
    pub enum LoginStage: u8 {
        SECURITY_NEGOTIATION = 0,
        LOGIN_OPERATIONAL_NEGOTIATION = 1,
        FULL_FEATURE_PHASE = 3,
    }
}

open_enum! {
    /// Status-Class and Status-Detail of a login response, class in the high byte (11.13.5).
    pub enum LoginStatus: u16 {
        SUCCESS = 0x0000,
        TARGET_MOVED_TEMPORARILY = 0x0101,
        TARGET_MOVED_PERMANENTLY = 0x0102,
        INITIATOR_ERROR = 0x0200,
        AUTHENTICATION_FAILURE = 0x0201,
        AUTHORIZATION_FAILURE = 0x0202,
        NOT_FOUND = 0x0203,
        TARGET_REMOVED = 0x0204,
        UNSUPPORTED_VERSION = 0x0205,
        TOO_MANY_CONNECTIONS = 0x0206,
        MISSING_PARAMETER = 0x0207,
        CANNOT_INCLUDE_IN_SESSION = 0x0208,
        SESSION_TYPE_NOT_SUPPORTED = 0x0209,
        SESSION_DOES_NOT_EXIST = 0x020a,
        INVALID_DURING_LOGIN = 0x020b,
        TARGET_ERROR = 0x0300,
        SERVICE_UNAVAILABLE = 0x0301,
        OUT_OF_RESOURCES = 0x0302,
    }
}

open_enum! {
    /// Why a PDU was rejected (11.17.1).
    pub enum RejectReason: u8 {
        DATA_DIGEST_ERROR = 0x02,
        SNACK_REJECT = 0x03,
        PROTOCOL_ERROR = 0x04,
        COMMAND_NOT_SUPPORTED = 0x05,
        IMMEDIATE_COMMAND_REJECT = 0x06,
        TASK_IN_PROGRESS = 0x07,
        INVALID_DATA_ACK = 0x08,
        INVALID_PDU_FIELD = 0x09,
        LONG_OPERATION_REJECT = 0x0a,
        WAITING_FOR_LOGOUT = 0x0c,
    }
}

open_enum! {
    /// Response of a SCSI response PDU (11.4.3).
    pub enum ScsiResponseCode: u8 {
        COMMAND_COMPLETED = 0x00,
        TARGET_FAILURE = 0x01,
    }
}

open_enum! {
    /// Function of a task management request (11.5.1; from QUERY_TASK on, RFC 7144, 5.1).
    pub enum TaskFunction: u8 {
        ABORT_TASK = 1,
        ABORT_TASK_SET = 2,
        CLEAR_ACA = 3,
        CLEAR_TASK_SET = 4,
        LOGICAL_UNIT_RESET = 5,
        TARGET_WARM_RESET = 6,
        TARGET_COLD_RESET = 7,
        TASK_REASSIGN = 8,
        QUERY_TASK = 9,
        QUERY_TASK_SET = 10,
        I_T_NEXUS_RESET = 11,
        QUERY_ASYNCHRONOUS_EVENT = 12,
    }
}

open_enum! {
    /// Response to a task management request (11.6.1; FUNCTION_SUCCEEDED, RFC 7144, 5.2).
    pub enum TaskResponse: u8 {
        FUNCTION_COMPLETE = 0,
        TASK_DOES_NOT_EXIST = 1,
        LUN_DOES_NOT_EXIST = 2,
        TASK_STILL_ALLEGIANT = 3,
        REASSIGNMENT_NOT_SUPPORTED = 4,
        FUNCTION_NOT_SUPPORTED = 5,
        AUTHORIZATION_FAILED = 6,
        FUNCTION_SUCCEEDED = 7,
        FUNCTION_REJECTED = 255,
    }
}

open_enum! {
    /// AsyncEvent of an asynchronous message (11.9.1).
    pub enum AsyncEvent: u8 {
        SCSI_EVENT = 0,
        LOGOUT_REQUEST = 1,
        CONNECTION_DROP = 2,
        SESSION_DROP = 3,
        PARAMETER_NEGOTIATION = 4,
        TASKS_TERMINATED = 5,
        VENDOR_SPECIFIC = 255,
    }
}

open_enum! {
    /// Reason of a logout request (11.14.1).
    pub enum LogoutReason: u8 {
        CLOSE_SESSION = 0,
        CLOSE_CONNECTION = 1,
        REMOVE_FOR_RECOVERY = 2,
    }
}

open_enum! {
    /// Response to a logout request (11.15.1).
    pub enum LogoutResponse: u8 {
        CLOSED = 0,
        CID_NOT_FOUND = 1,
        RECOVERY_NOT_SUPPORTED = 2,
        CLEANUP_FAILED = 3,
    }
}
