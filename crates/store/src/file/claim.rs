//! Whose image this is: locks on bytes far beyond any data.
//!
//! All are locks of the open file description (OFD) that the I/O goes through, so they stay until
//! the last request on it has ended in the kernel, even one of a process that was killed.
//!
//! | byte | held | says |
//! |---|---|---|
//! | [`LOCKS_START`] | exclusively | one node alone serves this image |
//! | | shared | several nodes may (`--shareable`), or it is only read |
//! | [`LOCKS_START`] + 1 + N | by node N | node N has it open, or requests of its former process are still in the kernel |
//! | 100 + p, 200 + p | shared | QEMU's image locks, see below |
//!
//! A node first takes its own byte, waiting: only its own former process can have it. Then the
//! first byte, at once or not at all.
//!
//! QEMU marks an image in use with shared locks, too: byte 100 + p for each permission p that it
//! uses, 200 + p for each that it lets nobody else use; who opens an image tests the bytes that are
//! in its way. We take and test the same ones, so that neither opens what the other has; which they
//! are says `model::image`.
//!
//! On a device these are locks on its node in `/dev`: another node of the same device elsewhere (in
//! a container, say) does not see them.

use std::io;
use std::ops::Range;

use model::image::ImageUse;
use rt::FileHandle;

/// Where our locks begin.
pub const LOCKS_START: u64 = 1 << 62;

/// The bytes of which a node holds its own while it has the image open.
pub const NODE_LOCKS: Range<u64> = LOCKS_START + 1..LOCKS_START + 1 + (1 << 32);

/// How the image is going to be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) node: u32,
    pub(super) read_only: bool,
    pub(super) shareable: bool,
}

/// Who is in the way.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another node.
    Node,
    /// A QEMU, by the byte that it holds.
    Qemu(u64),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Claim {
    fn own_byte(self) -> Range<u64> {
        let at = NODE_LOCKS.start + u64::from(self.node);
        at..at + 1
    }

    /// Takes this node's byte. False: its former process still has requests in the kernel.
    pub(super) fn take_own(self, file: &FileHandle) -> io::Result<bool> {
        // A file that is open for reading can only be locked shared; then look first.
        if self.read_only && file.is_locked(self.own_byte())? {
            return Ok(false);
        }
        match file.try_lock(self.own_byte(), !self.read_only) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes everything else, once the node's own byte is taken.
    pub(super) fn take_image(self, file: &FileHandle) -> Result<(), Refusal> {
        let alone = !self.shareable && !self.read_only;
        match file.try_lock(LOCKS_START..LOCKS_START + 1, alone) {
            Ok(()) => self.take_from_qemu(file),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Refusal::Node),
            Err(error) => Err(error.into()),
        }
    }

    fn take_from_qemu(self, file: &FileHandle) -> Result<(), Refusal> {
        let usage = ImageUse::of(self.read_only, self.shareable);
        // First take, then look: of two that come together at least one sees the other.
        for byte in usage.locks() {
            file.try_lock(byte..byte + 1, false)?;
        }
        for byte in usage.conflicts() {
            if file.is_locked(byte..byte + 1)? {
                return Err(Refusal::Qemu(byte));
            }
        }
        Ok(())
    }
}
