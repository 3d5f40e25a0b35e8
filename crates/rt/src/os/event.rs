//! Eventfds: how clients notify a core and a core notifies clients.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::check;
use super::ring::Then;
use crate::core::Core;
use crate::poller::PollerId;

pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, blocking: a read through the ring waits in the kernel.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is a descriptor of ours.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: just made, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    #[inline]
    pub fn signal(&self) {
        signal(self.0.as_raw_fd());
    }
}

/// Adds one. A full counter or a closed reader is the other side's affair.
#[inline]
pub(super) fn signal(fd: RawFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: writes eight bytes from a local.
    unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

/// A descriptor that a client sent as an eventfd. If it is something else, reads and writes on it
/// fail or do nothing that concerns us.
impl From<OwnedFd> for EventFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A core listens to an eventfd for as long as this lives.
pub struct EventWatch {
    core: Core,
    index: u32,
}

impl EventWatch {
    /// Each signal makes the poller active.
    pub fn activate(core: &Core, fd: EventFd, poller: PollerId) -> Self {
        let index = core.os().watch(&Rc::new(fd), Then::Activate(poller));
        Self { core: core.clone(), index }
    }

    /// Each signal calls `f`.
    pub fn call(core: &Core, fd: EventFd, f: impl Fn() + 'static) -> Self {
        let index = core.os().watch(&Rc::new(fd), Then::Call(Rc::new(f)));
        Self { core: core.clone(), index }
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        self.core.os().unwatch(self.index);
    }
}
