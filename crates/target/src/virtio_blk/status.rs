//! The one translation of an outcome into a status byte.

use block::ErrorKind;
use wire::virtio::blk::Status;

/// The status byte of a request (5.2.6). The protocol knows no finer word for a failure; what
/// really happened is in the node's log and events.
#[inline]
pub fn status(outcome: &block::Outcome) -> Status {
    match outcome {
        Ok(_) => Status::OK,
        Err(error) => of_error(error.kind()),
    }
}

#[cold]
fn of_error(kind: ErrorKind) -> Status {
    match kind {
        ErrorKind::Unsupported => Status::UNSUPP,
        ErrorKind::OutOfRange
        | ErrorKind::Misaligned
        | ErrorKind::Invalid
        | ErrorKind::ReadOnly
        | ErrorKind::NoSpace
        | ErrorKind::Medium
        | ErrorKind::Miscompare { .. }
        | ErrorKind::Busy
        | ErrorKind::Offline
        | ErrorKind::Timeout
        | ErrorKind::Aborted
        | ErrorKind::Memory
        | ErrorKind::Lost => Status::IOERR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_device_cannot_do_is_unsupported() {
        let error = |kind: ErrorKind| status(&Err(kind.into()));
        assert_eq!(error(ErrorKind::Unsupported), Status::UNSUPP);
        assert_eq!(error(ErrorKind::Medium), Status::IOERR);
        assert_eq!(error(ErrorKind::NoSpace), Status::IOERR);
        assert_eq!(error(ErrorKind::Miscompare { at: 3 }), Status::IOERR);
    }
}
