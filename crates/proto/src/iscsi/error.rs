//! Why a session ended: what the peer did wrong, or what was agreed.

use wire::iscsi::{LoginStatus, LogoutReason, Opcode};

/// The end of a session. What is still to be sent is sent, then the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Logged out, and the initiator was told so.
    #[error("logged out")]
    Logout { reason: LogoutReason },
    /// The login was refused. Role of target: this is what the initiator was told, and why.
    #[error("login refused with {status}: {cause}")]
    Refused { status: LoginStatus, cause: Violation },
    /// Role of initiator: the target is elsewhere.
    #[error("the target has moved to {address}")]
    Moved { status: LoginStatus, address: String },
    /// The peer broke the protocol. At error recovery level 0 that ends the session.
    #[error("the peer broke the protocol: {0}")]
    Violation(Violation),
    /// Role of initiator: the target told that it drops the connection.
    #[error("the target drops the connection")]
    Dropped,
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{opcode} is no PDU for this role and phase")]
    Opcode { opcode: Opcode },
    #[error("{bytes} bytes of additional header where at most {max} belong")]
    AhsLength { bytes: usize, max: usize },
    #[error("an additional header segment that is malformed or does not belong to this PDU")]
    Ahs,
    #[error("{bytes} bytes of data where at most {max} were agreed")]
    DataLength { bytes: u32, max: u32 },
    #[error("the digest of a header is wrong")]
    HeaderDigest,
    #[error("the digest of the data of {opcode} is wrong")]
    DataDigest { opcode: Opcode },
    #[error("CmdSN {cmd_sn} where {expected} was next on the only connection")]
    CommandLost { cmd_sn: u32, expected: u32 },
    #[error("StatSN {stat_sn} where {expected} was next")]
    StatusLost { stat_sn: u32, expected: u32 },
    #[error("a tag that names no task")]
    Tag,
    #[error("data outside of what was asked for")]
    DataRange,
    #[error("a field has a value that it cannot have: {0}")]
    Field(&'static str),

    #[error("the text does not end with NUL")]
    TextUnterminated,
    #[error("the text is not UTF-8")]
    TextEncoding,
    #[error("a text without `=`")]
    TextPair,
    #[error("a key of {bytes} bytes; 1 to 63 printable ones are allowed")]
    TextKey { bytes: usize },
    #[error("a value of {bytes} bytes where at most {max} belong")]
    TextValue { bytes: usize, max: usize },
    #[error("more than {max} keys")]
    TextPairs { max: usize },
    #[error("a text of more than {max} bytes")]
    TextLength { max: usize },
    #[error("the key {key} was negotiated twice")]
    KeyTwice { key: &'static str },
    #[error("the value of {key} is none that it can have")]
    KeyValue { key: &'static str },
    #[error("an answer to {key}, which was not offered")]
    KeyUnsolicited { key: &'static str },
    #[error("{key} could not be agreed on")]
    KeyRefused { key: &'static str },
    #[error("{key} is missing")]
    KeyMissing { key: &'static str },

    #[error("the login asks for a stage that does not follow")]
    LoginStage,
    #[error("a login PDU differs from the first one in {0}")]
    LoginChanged(&'static str),
    #[error("more than {max} login requests")]
    LoginLength { max: u32 },
    #[error("only versions {min} to {max} of the protocol are offered; version 0 is spoken here")]
    Version { min: u8, max: u8 },
    #[error("the other side must authenticate itself with CHAP and does not")]
    AuthenticationMissing,
    #[error("CHAP: the answer is wrong")]
    ChapWrong,
    #[error("CHAP: the challenge is our own, reflected")]
    ChapReflected,
    #[error("CHAP: keys that do not belong into this step")]
    ChapStep,
    #[error("CHAP: no algorithm in common")]
    ChapAlgorithm,
    #[error("the owner refused: {0}")]
    Owner(LoginStatus),
}
