//! What goes into the execution of a command beside its CDB, and what comes out.

use block::{Error, ErrorKind, Sgl};
use wire::scsi::{AdditionalSense, SenseKey, Status};

use super::sense::Sense;
use crate::lun::Refusal;
use crate::lun::admit::{Aborted, Attribute};
use crate::lun::reservation::Mistake;

/// How a transport names one command of a nexus, and its wish for order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    pub tag: u64,
    pub attribute: Attribute,
}

/// The data of a command. Either may be shorter or longer than what the CDB asks for; how much
/// data-out there should be is for [`Parsed::accepts`](super::Parsed::accepts).
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Data-out; what is longer than the CDB asks for may be left out.
    pub out: Sgl<'a>,
    /// Where data-in goes.
    pub into: Sgl<'a>,
}

impl Data<'_> {
    pub const NONE: Self = Self { out: Sgl::empty(), into: Sgl::empty() };
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    /// Bytes put into the data-in buffers.
    pub len: usize,
    /// Bytes that the command is about, in its direction, whatever was announced: residuals are
    /// counted from this. 0 of a command that failed before it knew.
    pub full: u64,
    pub sense: Option<Sense>,
    /// Nothing is sent: the client knows that this task was aborted.
    pub silent: bool,
}

impl Answer {
    pub const fn status(status: Status) -> Self {
        Self { status, len: 0, full: 0, sense: None, silent: false }
    }

    /// Done, without data-in.
    pub const GOOD: Self = Self::status(Status::GOOD);

    /// Done, with so much data-in, of a command about so much data.
    pub const fn data(len: usize, full: u64) -> Self {
        Self { len, full, ..Self::GOOD }
    }

    pub const fn check(sense: Sense) -> Self {
        Self { sense: Some(sense), ..Self::status(Status::CHECK_CONDITION) }
    }

    pub const fn aborted(how: Aborted) -> Self {
        let silent = matches!(how, Aborted::Silently);
        Self { silent, ..Self::status(Status::TASK_ABORTED) }
    }

    /// What a failure of the device is to the client. The one translation of it.
    #[cold]
    pub fn of_error(error: &Error, is_write: bool) -> Self {
        use AdditionalSense as Code;
        let illegal = SenseKey::ILLEGAL_REQUEST;
        let (key, code) = match error.kind() {
            ErrorKind::OutOfRange => (illegal, Code::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
            ErrorKind::Misaligned | ErrorKind::Invalid | ErrorKind::Unsupported => {
                (illegal, Code::INVALID_FIELD_IN_CDB)
            }
            ErrorKind::ReadOnly => (SenseKey::DATA_PROTECT, Code::WRITE_PROTECTED),
            ErrorKind::NoSpace => {
                (SenseKey::DATA_PROTECT, Code::SPACE_ALLOCATION_FAILED_WRITE_PROTECT)
            }
            ErrorKind::Medium if is_write => (SenseKey::MEDIUM_ERROR, Code::WRITE_ERROR),
            ErrorKind::Medium => (SenseKey::MEDIUM_ERROR, Code::UNRECOVERED_READ_ERROR),
            ErrorKind::Miscompare { at } => return Self::check(miscompare(u64::from(at))),
            ErrorKind::Busy => return Self::status(Status::BUSY),
            // A key that initiators take for the path's fault, so that they try another one.
            ErrorKind::Offline => (SenseKey::NOT_READY, Code::LOGICAL_UNIT_COMMUNICATION_FAILURE),
            ErrorKind::Timeout => {
                (SenseKey::ABORTED_COMMAND, Code::LOGICAL_UNIT_COMMUNICATION_TIME_OUT)
            }
            ErrorKind::Aborted => {
                (SenseKey::ABORTED_COMMAND, Code::NO_ADDITIONAL_SENSE_INFORMATION)
            }
            ErrorKind::Memory => (SenseKey::ABORTED_COMMAND, Code::DATA_PHASE_ERROR),
            ErrorKind::Lost => (SenseKey::HARDWARE_ERROR, Code::INTERNAL_TARGET_FAILURE),
        };
        Self::check(Sense::new(key, code))
    }

    /// What a refused change of the LU's state is to the client.
    #[cold]
    pub fn of_refusal(refusal: &Refusal) -> Self {
        use AdditionalSense as Code;
        let code = match refusal {
            Refusal::Reservation(mistake) => return Self::of_mistake(*mistake),
            Refusal::Prevented => Code::MEDIUM_REMOVAL_PREVENTED,
            Refusal::NoRoom => Code::INSUFFICIENT_RESOURCES,
            Refusal::Busy(_) | Refusal::NoOperation | Refusal::MayNotExit => {
                Code::COMMAND_SEQUENCE_ERROR
            }
            Refusal::NoSuchGroup => Code::INVALID_FIELD_IN_PARAMETER_LIST,
            Refusal::Unavailable => return Self::status(Status::BUSY),
        };
        Self::check(Sense::illegal(code))
    }

    fn of_mistake(mistake: Mistake) -> Self {
        use AdditionalSense as Code;
        let code = match mistake {
            Mistake::Conflict => return Self::status(Status::RESERVATION_CONFLICT),
            Mistake::OtherKind => Code::INVALID_RELEASE_OF_PERSISTENT_RESERVATION,
            Mistake::NoKind => Code::INVALID_FIELD_IN_CDB,
            Mistake::NoRoom => Code::INSUFFICIENT_REGISTRATION_RESOURCES,
            Mistake::AlsoOnRegistered
            | Mistake::NoVictim
            | Mistake::NoKey
            | Mistake::MoveToSelf
            | Mistake::NoSuchPort => Code::INVALID_FIELD_IN_PARAMETER_LIST,
        };
        Self::check(Sense::illegal(code))
    }
}

/// The data differs, first at this byte of what was to be compared (SBC-3 5.2).
pub fn miscompare(at: u64) -> Sense {
    let code = AdditionalSense::MISCOMPARE_DURING_VERIFY_OPERATION;
    Sense::new(SenseKey::MISCOMPARE, code).with_information(at)
}

impl From<Sense> for Answer {
    fn from(sense: Sense) -> Self {
        Self::check(sense)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::of_refusal(&refusal)
    }
}
