//! Locks on bytes of a file that belong to the open file description, as `F_OFD_SETLK` has them.
//!
//! A description's own locks never meet each other; locking again changes, unlocking cuts. Locks
//! are the kernel's of one host: hosts that share a disk do not see each other's. A lock is let go
//! of when its description is closed and the last operation on it has ended.

use std::io;
use std::ops::Range;

use super::room::{HostId, OpenId, WorkId};

#[derive(Clone, Debug)]
struct Lock {
    host: HostId,
    open: OpenId,
    range: Range<u64>,
    exclusive: bool,
}

/// The locks of one file or disk, and which workers wait for one.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: Vec<Lock>,
    waiting: Vec<WorkId>,
}

impl Locks {
    /// Whether another description of this host has a lock that this one would meet.
    pub(super) fn meets(
        &self,
        host: HostId,
        open: OpenId,
        range: &Range<u64>,
        exclusive: bool,
    ) -> bool {
        let range = to_end(range);
        self.held.iter().any(|lock| {
            lock.host == host
                && lock.open != open
                && (exclusive || lock.exclusive)
                && lock.range.start < range.end
                && range.start < lock.range.end
        })
    }

    /// Takes a lock, in place of what the description had there.
    pub(super) fn take(
        &mut self,
        host: HostId,
        open: OpenId,
        range: &Range<u64>,
        exclusive: bool,
    ) -> io::Result<()> {
        if self.meets(host, open, range, exclusive) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.cut(open, range);
        self.held.push(Lock { host, open, range: to_end(range), exclusive });
        Ok(())
    }

    /// Lets go of these bytes. Who waits is to try again.
    #[must_use]
    pub(super) fn release(&mut self, open: OpenId, range: &Range<u64>) -> Vec<WorkId> {
        self.cut(open, range);
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn wait(&mut self, work: WorkId) {
        self.waiting.push(work);
    }

    /// The kernel that kept these locks is gone, and who waited with it.
    pub(super) fn forget_host(&mut self, host: HostId) {
        self.held.retain(|lock| lock.host != host);
    }

    fn cut(&mut self, open: OpenId, range: &Range<u64>) {
        let range = to_end(range);
        let (mine, mut rest): (Vec<Lock>, Vec<Lock>) =
            self.held.drain(..).partition(|lock| lock.open == open);
        for lock in mine {
            let before = lock.range.start..lock.range.end.min(range.start);
            let after = lock.range.start.max(range.end)..lock.range.end;
            for left in [before, after] {
                if !left.is_empty() {
                    rest.push(Lock { range: left, ..lock.clone() });
                }
            }
        }
        self.held = rest;
    }
}

/// An empty range means to the end of the file, wherever that will be.
fn to_end(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { range.start..u64::MAX } else { range.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_meet_those_of_other_descriptions_of_the_host_only() {
        let (host, other_host) = (HostId(1), HostId(2));
        let (a, b) = (OpenId(1), OpenId(2));
        let mut locks = Locks::default();
        locks.take(host, a, &(0..100), true).unwrap();
        assert!(locks.take(host, b, &(99..100), false).is_err());
        locks.take(other_host, b, &(0..100), true).unwrap();
        locks.take(host, a, &(50..60), false).unwrap();
        locks.take(host, b, &(52..58), false).unwrap();
        assert!(locks.take(host, b, &(52..58), true).is_err(), "shared by both");
        assert!(locks.meets(host, b, &(40..50), false));
        let woken = locks.release(a, &(0..40));
        assert!(woken.is_empty());
        locks.take(host, b, &(0..40), true).unwrap();
        assert!(locks.take(host, b, &(0..41), true).is_err());
        locks.wait(WorkId(7));
        assert_eq!(locks.release(a, &(0..0)), [WorkId(7)]);
        locks.take(host, b, &(0..200), true).unwrap();
    }
}
