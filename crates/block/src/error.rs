//! What can go wrong below the waist: a kind that protocols translate in one exhaustive `match`,
//! and a context for people.
//!
//! Kinds are facts about the medium or the request, never words of a protocol. The context is boxed
//! so that a good outcome stays two words.

use std::borrow::Cow;
use std::fmt;

/// Why a request failed. Front ends match on this exhaustively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The range ends beyond the device as it is now.
    OutOfRange,
    /// Offset or length is not a multiple of the block size.
    Misaligned,
    /// The request contradicts itself: data and length differ, a limit is exceeded.
    Invalid,
    /// The device takes no writes.
    ReadOnly,
    /// The device does not offer this operation.
    Unsupported,
    /// The store has no room for this write; it may have later.
    NoSpace,
    /// The medium gave an error; the data there is lost or was not taken.
    Medium,
    /// A compare found a difference, first at this byte of the request.
    Miscompare { at: u32 },
    /// Not now: a limit is reached or a resource is short. Asking again may help.
    Busy,
    /// The store is gone, or no way leads to it.
    Offline,
    /// The store did not answer in time.
    Timeout,
    /// The request was cancelled before it took effect, or it is not known whether it did.
    Aborted,
    /// The client's memory could not be read or written.
    Memory,
    /// A request was dropped unanswered: a bug of ours, answered as a failure.
    Lost,
}

impl ErrorKind {
    /// The kind that an errno of the kernel stands for.
    pub fn from_errno(errno: i32) -> Self {
        ERRNO_KINDS.iter().find(|(no, _)| *no == errno).map_or(Self::Medium, |(_, kind)| *kind)
    }
}

/// Linux errno values, spelled out because this crate links nothing of the system.
const ERRNO_KINDS: &[(i32, ErrorKind)] = &[
    (1, ErrorKind::ReadOnly),  // EPERM: a sealed file, a write-protected device
    (4, ErrorKind::Busy),      // EINTR
    (5, ErrorKind::Medium),    // EIO
    (6, ErrorKind::Offline),   // ENXIO
    (9, ErrorKind::ReadOnly),  // EBADF: opened for reading only
    (11, ErrorKind::Busy),     // EAGAIN
    (12, ErrorKind::Busy),     // ENOMEM
    (14, ErrorKind::Memory),   // EFAULT
    (16, ErrorKind::Busy),     // EBUSY
    (19, ErrorKind::Offline),  // ENODEV
    (22, ErrorKind::Invalid),  // EINVAL
    (27, ErrorKind::NoSpace),  // EFBIG
    (28, ErrorKind::NoSpace),  // ENOSPC
    (30, ErrorKind::ReadOnly), // EROFS
    (61, ErrorKind::Medium),   // ENODATA: what block devices say of a bad sector
    (84, ErrorKind::Medium),   // EILSEQ: failed protection information
    (95, ErrorKind::Unsupported), // EOPNOTSUPP
    (110, ErrorKind::Timeout), // ETIMEDOUT
    (121, ErrorKind::Medium),  // EREMOTEIO
    (122, ErrorKind::NoSpace), // EDQUOT
    (125, ErrorKind::Aborted), // ECANCELED
];

/// ENODATA, EILSEQ.
const BAD_SECTOR: [i32; 2] = [61, 84];

/// A failed request: its kind, and for people what was being done.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    context: Option<Box<Context>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Context {
    errno: Option<i32>,
    note: Cow<'static, str>,
}

impl Error {
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, context: None }
    }

    /// From an errno, as a positive number.
    #[cold]
    pub fn from_errno(errno: i32, note: impl Into<Cow<'static, str>>) -> Self {
        let context = Some(Box::new(Context { errno: Some(errno), note: note.into() }));
        Self { kind: ErrorKind::from_errno(errno), context }
    }

    /// Adds what was being done, for logs and events.
    #[cold]
    pub fn note(mut self, note: impl Into<Cow<'static, str>>) -> Self {
        let note = note.into();
        match &mut self.context {
            Some(context) => context.note = Cow::Owned(format!("{note}: {}", context.note)),
            None => self.context = Some(Box::new(Context { errno: None, note })),
        }
        self
    }

    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn errno(&self) -> Option<i32> {
        self.context.as_ref().and_then(|context| context.errno)
    }

    /// The disk itself says that the data there is lost, until it is written again. Of any other
    /// error nobody knows whether it lasts: the disk may be gone for a moment.
    pub fn is_bad_sector(&self) -> bool {
        self.errno().is_some_and(|errno| BAD_SECTOR.contains(&errno))
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::OutOfRange => "beyond the end of the device",
            Self::Misaligned => "not aligned to the block size",
            Self::Invalid => "request not valid",
            Self::ReadOnly => "device is read-only",
            Self::Unsupported => "operation not supported",
            Self::NoSpace => "no space left in the store",
            Self::Medium => "medium error",
            Self::Miscompare { at } => return write!(f, "data differs at byte {at}"),
            Self::Busy => "busy",
            Self::Offline => "store not reachable",
            Self::Timeout => "store did not answer in time",
            Self::Aborted => "aborted",
            Self::Memory => "client memory not accessible",
            Self::Lost => "request was dropped unanswered",
        };
        f.write_str(text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        let Some(context) = &self.context else { return Ok(()) };
        write!(f, " ({}", context.note)?;
        match context.errno {
            Some(errno) => write!(f, ", errno {errno})"),
            None => f.write_str(")"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_kind_note_and_errno() {
        let error = Error::from_errno(28, "write of lu web").note("file /x");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            error.to_string(),
            "no space left in the store (file /x: write of lu web, errno 28)"
        );
        assert_eq!(ErrorKind::from_errno(9999), ErrorKind::Medium);
        assert!(Error::from_errno(61, "").is_bad_sector());
        assert!(!Error::from_errno(5, "").is_bad_sector(), "of a disk that is away, too");
    }

    #[test]
    fn a_good_outcome_stays_small() {
        assert!(size_of::<crate::Outcome>() <= 24);
    }
}
