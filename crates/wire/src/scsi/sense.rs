//! Sense data: keys, additional sense codes, and the fixed and the descriptor format (SPC-4 4.5).

use super::layout::layouts;
use crate::open_enum::open_enum;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

open_enum! {
    pub enum SenseKey: u8 {
        NO_SENSE = 0x0,
        RECOVERED_ERROR = 0x1,
        NOT_READY = 0x2,
        MEDIUM_ERROR = 0x3,
        HARDWARE_ERROR = 0x4,
        ILLEGAL_REQUEST = 0x5,
        UNIT_ATTENTION = 0x6,
        DATA_PROTECT = 0x7,
        BLANK_CHECK = 0x8,
        VENDOR_SPECIFIC = 0x9,
        COPY_ABORTED = 0xa,
        ABORTED_COMMAND = 0xb,
        VOLUME_OVERFLOW = 0xd,
        MISCOMPARE = 0xe,
        COMPLETED = 0xf,
    }
}

open_enum! {
    /// ADDITIONAL SENSE CODE in the upper byte, its qualifier in the lower (SPC-4 annex D).
    pub enum AdditionalSense: u16 {
        NO_ADDITIONAL_SENSE_INFORMATION = 0x0000,
        OPERATION_IN_PROGRESS = 0x0016,
        LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400,
        LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY = 0x0401,
        LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402,
        LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED = 0x0403,
        LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS = 0x0404,
        LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS = 0x0409,
        LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION = 0x040a,
        LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE = 0x040b,
        LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE = 0x040c,
        LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS = 0x041b,
        LOGICAL_UNIT_DOES_NOT_RESPOND_TO_SELECTION = 0x0500,
        LOGICAL_UNIT_COMMUNICATION_FAILURE = 0x0800,
        LOGICAL_UNIT_COMMUNICATION_TIME_OUT = 0x0801,
        WARNING = 0x0b00,
        WRITE_ERROR = 0x0c00,
        THIRD_PARTY_DEVICE_FAILURE = 0x0d01,
        COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0d02,
        INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0d03,
        COPY_TARGET_DEVICE_DATA_UNDERRUN = 0x0d04,
        COPY_TARGET_DEVICE_DATA_OVERRUN = 0x0d05,
        INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT = 0x0e03,
        UNRECOVERED_READ_ERROR = 0x1100,
        PARAMETER_LIST_LENGTH_ERROR = 0x1a00,
        SYNCHRONOUS_DATA_TRANSFER_ERROR = 0x1b00,
        DEFECT_LIST_NOT_FOUND = 0x1c00,
        PRIMARY_DEFECT_LIST_NOT_FOUND = 0x1c01,
        GROWN_DEFECT_LIST_NOT_FOUND = 0x1c02,
        MISCOMPARE_DURING_VERIFY_OPERATION = 0x1d00,
        INVALID_COMMAND_OPERATION_CODE = 0x2000,
        LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100,
        INVALID_FIELD_IN_CDB = 0x2400,
        LOGICAL_UNIT_NOT_SUPPORTED = 0x2500,
        INVALID_FIELD_IN_PARAMETER_LIST = 0x2600,
        PARAMETER_NOT_SUPPORTED = 0x2601,
        PARAMETER_VALUE_INVALID = 0x2602,
        THRESHOLD_PARAMETERS_NOT_SUPPORTED = 0x2603,
        INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604,
        TOO_MANY_TARGET_DESCRIPTORS = 0x2606,
        UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = 0x2607,
        TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608,
        UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = 0x2609,
        UNEXPECTED_INEXACT_SEGMENT = 0x260a,
        INLINE_DATA_LENGTH_EXCEEDED = 0x260b,
        INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION = 0x260c,
        COPY_SEGMENT_GRANULARITY_VIOLATION = 0x260d,
        WRITE_PROTECTED = 0x2700,
        HARDWARE_WRITE_PROTECTED = 0x2701,
        LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED = 0x2702,
        SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707,
        NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED = 0x2800,
        POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900,
        POWER_ON_OCCURRED = 0x2901,
        SCSI_BUS_RESET_OCCURRED = 0x2902,
        BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903,
        DEVICE_INTERNAL_RESET = 0x2904,
        I_T_NEXUS_LOSS_OCCURRED = 0x2907,
        PARAMETERS_CHANGED = 0x2a00,
        MODE_PARAMETERS_CHANGED = 0x2a01,
        LOG_PARAMETERS_CHANGED = 0x2a02,
        RESERVATIONS_PREEMPTED = 0x2a03,
        RESERVATIONS_RELEASED = 0x2a04,
        REGISTRATIONS_PREEMPTED = 0x2a05,
        ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2a06,
        IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED = 0x2a07,
        CAPACITY_DATA_HAS_CHANGED = 0x2a09,
        COMMAND_SEQUENCE_ERROR = 0x2c00,
        PREVIOUS_BUSY_STATUS = 0x2c07,
        PREVIOUS_TASK_SET_FULL_STATUS = 0x2c08,
        PREVIOUS_RESERVATION_CONFLICT_STATUS = 0x2c09,
        COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2f00,
        COMMANDS_CLEARED_BY_DEVICE_SERVER = 0x2f02,
        INCOMPATIBLE_MEDIUM_INSTALLED = 0x3000,
        CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT = 0x3002,
        MEDIUM_FORMAT_CORRUPTED = 0x3100,
        FORMAT_COMMAND_FAILED = 0x3101,
        SANITIZE_COMMAND_FAILED = 0x3103,
        THIN_PROVISIONING_SOFT_THRESHOLD_REACHED = 0x3807,
        SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900,
        MEDIUM_NOT_PRESENT = 0x3a00,
        MEDIUM_NOT_PRESENT_TRAY_CLOSED = 0x3a01,
        MEDIUM_NOT_PRESENT_TRAY_OPEN = 0x3a02,
        LOGICAL_UNIT_FAILED_SELF_TEST = 0x3e03,
        TARGET_OPERATING_CONDITIONS_HAVE_CHANGED = 0x3f00,
        MICROCODE_HAS_BEEN_CHANGED = 0x3f01,
        INQUIRY_DATA_HAS_CHANGED = 0x3f03,
        REPORTED_LUNS_DATA_HAS_CHANGED = 0x3f0e,
        INTERNAL_TARGET_FAILURE = 0x4400,
        INVALID_MESSAGE_ERROR = 0x4900,
        DATA_PHASE_ERROR = 0x4b00,
        OVERLAPPED_COMMANDS_ATTEMPTED = 0x4e00,
        ILLEGAL_MODE_FOR_THIS_TRACK = 0x6400,
        SET_TARGET_PORT_GROUPS_COMMAND_FAILED = 0x670a,
        MEDIUM_REMOVAL_PREVENTED = 0x5302,
        SYSTEM_RESOURCE_FAILURE = 0x5500,
        INSUFFICIENT_RESOURCES = 0x5503,
        INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504,
        FAILURE_PREDICTION_THRESHOLD_EXCEEDED = 0x5d00,
        OPERATOR_MEDIUM_REMOVAL_REQUEST = 0x5a01,
        LOW_POWER_CONDITION_ON = 0x5e00,
        INVALID_TOKEN_OPERATION_CAUSE_NOT_REPORTABLE = 0x2300,
        INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE = 0x2301,
        INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN = 0x2304,
        INVALID_TOKEN_OPERATION_TOKEN_CORRUPT = 0x2305,
        INVALID_TOKEN_OPERATION_TOKEN_REVOKED = 0x2306,
        INVALID_TOKEN_OPERATION_TOKEN_EXPIRED = 0x2307,
        INVALID_TOKEN_OPERATION_TOKEN_CANCELLED = 0x2308,
        INVALID_TOKEN_OPERATION_TOKEN_DELETED = 0x2309,
        INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH = 0x230a,
    }
}

/// RESPONSE CODE of current information; one more is deferred.
pub const FIXED_CURRENT: u8 = 0x70;
/// RESPONSE CODE of current information in the descriptor format.
pub const DESCRIPTOR_CURRENT: u8 = 0x72;
/// Of the first byte of the fixed format: INFORMATION is valid.
pub const VALID: u8 = 0x80;

/// Longest sense data there can be (SPC-4 4.5.1).
pub const SENSE_BYTES_MAX: usize = 252;

/// SENSE KEY SPECIFIC is valid.
pub const SKSV: u8 = 0x80;
/// Of a field pointer: the field is in the CDB, not in the parameter list.
pub const FIELD_IN_CDB: u8 = 0x40;
/// Of a field pointer: the bit pointer is valid.
pub const BIT_POINTER_VALID: u8 = 0x08;

layouts! {
    /// The fixed format (SPC-4 4.5.3).
    pub struct FixedSense {
        /// [`VALID`] and the response code.
        pub response_code: u8,
        pub obsolete: u8,
        /// FILEMARK, EOM, ILI and the sense key.
        pub flags: u8,
        pub information: U32,
        /// Bytes behind this one.
        pub additional_length: u8,
        pub command_specific: U32,
        pub additional_sense: U16,
        pub field_replaceable_unit: u8,
        pub sense_key_specific: [u8; 3],
    }

    /// Start of the descriptor format (SPC-4 4.5.2).
    pub struct DescriptorSense {
        pub response_code: u8,
        pub sense_key: u8,
        pub additional_sense: U16,
        pub reserved: [u8; 3],
        /// Bytes behind this one.
        pub additional_length: u8,
    }

    /// Information (type 00h, with [`VALID`]) and command-specific information (type 01h).
    pub struct NumberDescriptor {
        pub descriptor_type: u8,
        pub additional_length: u8,
        pub flags: u8,
        pub reserved: u8,
        pub value: U64,
    }

    /// Sense key specific (type 02h).
    pub struct SpecificDescriptor {
        pub descriptor_type: u8,
        pub additional_length: u8,
        pub reserved: [u8; 2],
        pub sense_key_specific: [u8; 3],
        pub reserved7: u8,
    }
}

open_enum! {
    /// The type of a sense data descriptor.
    pub enum DescriptorType: u8 {
        INFORMATION = 0x00,
        COMMAND_SPECIFIC_INFORMATION = 0x01,
        SENSE_KEY_SPECIFIC = 0x02,
        BLOCK_COMMANDS = 0x05,
        PROGRESS_INDICATION = 0x0a,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_their_lengths() {
        assert_eq!(size_of::<FixedSense>(), 18);
        assert_eq!(size_of::<DescriptorSense>(), 8);
        assert_eq!(size_of::<NumberDescriptor>(), 12);
        assert_eq!(size_of::<SpecificDescriptor>(), 8);
    }

    #[test]
    fn no_two_names_have_one_code() {
        let mut codes: Vec<_> = AdditionalSense::ALL.iter().map(|code| code.0).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), AdditionalSense::ALL.len());
    }
}
