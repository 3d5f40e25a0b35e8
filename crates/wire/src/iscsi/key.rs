//! Names of the text keys (13, and 12.1.3 for CHAP), and the values that are words.

pub const HEADER_DIGEST: &str = "HeaderDigest";
pub const DATA_DIGEST: &str = "DataDigest";
pub const MAX_CONNECTIONS: &str = "MaxConnections";
pub const SEND_TARGETS: &str = "SendTargets";
pub const TARGET_NAME: &str = "TargetName";
pub const INITIATOR_NAME: &str = "InitiatorName";
pub const TARGET_ALIAS: &str = "TargetAlias";
pub const INITIATOR_ALIAS: &str = "InitiatorAlias";
pub const TARGET_ADDRESS: &str = "TargetAddress";
pub const TARGET_PORTAL_GROUP_TAG: &str = "TargetPortalGroupTag";
pub const INITIAL_R2T: &str = "InitialR2T";
pub const IMMEDIATE_DATA: &str = "ImmediateData";
pub const MAX_RECV_DATA_SEGMENT_LENGTH: &str = "MaxRecvDataSegmentLength";
pub const MAX_BURST_LENGTH: &str = "MaxBurstLength";
pub const FIRST_BURST_LENGTH: &str = "FirstBurstLength";
pub const DEFAULT_TIME2WAIT: &str = "DefaultTime2Wait";
pub const DEFAULT_TIME2RETAIN: &str = "DefaultTime2Retain";
pub const MAX_OUTSTANDING_R2T: &str = "MaxOutstandingR2T";
pub const DATA_PDU_IN_ORDER: &str = "DataPDUInOrder";
pub const DATA_SEQUENCE_IN_ORDER: &str = "DataSequenceInOrder";
pub const ERROR_RECOVERY_LEVEL: &str = "ErrorRecoveryLevel";
pub const SESSION_TYPE: &str = "SessionType";
pub const TASK_REPORTING: &str = "TaskReporting";
pub const ISCSI_PROTOCOL_LEVEL: &str = "iSCSIProtocolLevel";
pub const IF_MARKER: &str = "IFMarker";
pub const OF_MARKER: &str = "OFMarker";
pub const IF_MARK_INT: &str = "IFMarkInt";
pub const OF_MARK_INT: &str = "OFMarkInt";
pub const AUTH_METHOD: &str = "AuthMethod";
pub const CHAP_A: &str = "CHAP_A";
pub const CHAP_I: &str = "CHAP_I";
pub const CHAP_C: &str = "CHAP_C";
pub const CHAP_N: &str = "CHAP_N";
pub const CHAP_R: &str = "CHAP_R";

pub const YES: &str = "Yes";
pub const NO: &str = "No";
pub const NONE: &str = "None";
pub const ALL: &str = "All";
pub const CRC32C: &str = "CRC32C";
pub const CHAP: &str = "CHAP";
pub const DISCOVERY: &str = "Discovery";
pub const NORMAL: &str = "Normal";
/// Values of TaskReporting (13.23).
pub const RFC3720: &str = "RFC3720";
pub const RESPONSE_FENCE: &str = "ResponseFence";
pub const FAST_ABORT: &str = "FastAbort";
/// Answers to a key that cannot be negotiated (6.2).
pub const NOT_UNDERSTOOD: &str = "NotUnderstood";
pub const REJECT: &str = "Reject";
pub const IRRELEVANT: &str = "Irrelevant";
