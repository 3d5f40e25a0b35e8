//! The machine's own optical drives: what is in one, and its tray. Any other block device passes
//! for a drive whose disc is its content, and which has no tray.
//!
//! A drive is looked at through a description of its own that waits for no disc (`O_NONBLOCK`) and
//! is closed again, because the kernel moves the tray only for the last one who has the drive open.
//! Reading is the business of files; audio is nobody's.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

/// A disc, as long as it is in the drive: another one, or the same put in again, differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disc {
    pub size: u64,
    /// The kernel's count of media; 0 where it keeps none.
    pub sequence: u64,
}

/// What is in a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    Disc(Disc),
    Nothing,
    /// The tray is out.
    Open,
    /// It looks at what was put in.
    Busy,
}

/// A drive that is open for a moment.
#[derive(Debug)]
pub struct HostDrive {
    fd: OwnedFd,
    number: libc::dev_t,
}

impl HostDrive {
    /// Opens a block device; another kind of file is `InvalidInput`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: `name` is a terminated string that outlives the call.
        let fd = check(unsafe { libc::open(name.as_ptr(), flags) })?;
        // SAFETY: just opened, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a zeroed stat is valid, the call fills it.
        let stat = unsafe {
            let mut stat: libc::stat64 = std::mem::zeroed();
            check(libc::fstat64(fd.as_raw_fd(), &mut stat))?;
            stat
        };
        match stat.st_mode & libc::S_IFMT == libc::S_IFBLK {
            true => Ok(Self { fd, number: stat.st_rdev }),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Whether it is a drive, with a tray.
    pub fn has_tray(&self) -> bool {
        self.ask(CDROM_GET_CAPABILITY, 0).is_ok()
    }

    pub fn look(&self) -> io::Result<Inside> {
        if !self.has_tray() {
            return self.disc();
        }
        match self.ask(CDROM_DRIVE_STATUS, CDSL_CURRENT)? {
            CDS_TRAY_OPEN => Ok(Inside::Open),
            CDS_DRIVE_NOT_READY => Ok(Inside::Busy),
            // A drive that cannot say what is in it can be asked for the size.
            CDS_NO_INFO | CDS_DISC_OK => self.disc(),
            _ => Ok(Inside::Nothing),
        }
    }

    /// Opens the tray. `ResourceBusy` while somebody else has the drive open.
    pub fn eject(&self) -> io::Result<()> {
        self.ask(CDROMEJECT, 0).map(drop)
    }

    /// Draws the tray in.
    pub fn close(&self) -> io::Result<()> {
        self.ask(CDROMCLOSETRAY, 0).map(drop)
    }

    /// Locks the tray against the button on the drive, or unlocks it.
    pub fn lock(&self, locked: bool) -> io::Result<()> {
        self.ask(CDROM_LOCKDOOR, libc::c_int::from(locked)).map(drop)
    }

    fn disc(&self) -> io::Result<Inside> {
        let mut size = 0u64;
        // SAFETY: the request writes one 64-bit number.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), BLKGETSIZE64 as _, &mut size) })?;
        let (major, minor) = (libc::major(self.number), libc::minor(self.number));
        let sequence = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/diskseq"));
        let sequence = sequence.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(if size == 0 { Inside::Nothing } else { Inside::Disc(Disc { size, sequence }) })
    }

    fn ask(&self, request: u64, argument: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: each request used here takes a number, or nothing, and no pointer.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), request as _, argument) })
    }
}

// From linux/fs.h and linux/cdrom.h.
const BLKGETSIZE64: u64 = 0x8008_1272;
const CDROMEJECT: u64 = 0x5309;
const CDROMCLOSETRAY: u64 = 0x5319;
const CDROM_DRIVE_STATUS: u64 = 0x5326;
const CDROM_LOCKDOOR: u64 = 0x5329;
const CDROM_GET_CAPABILITY: u64 = 0x5331;
const CDSL_CURRENT: libc::c_int = libc::c_int::MAX;
const CDS_NO_INFO: libc::c_int = 0;
const CDS_TRAY_OPEN: libc::c_int = 2;
const CDS_DRIVE_NOT_READY: libc::c_int = 3;
const CDS_DISC_OK: libc::c_int = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_device_is_no_drive() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kind = |path: &Path| HostDrive::open(path).unwrap_err().kind();
        assert_eq!(kind(file.path()), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/dev/null")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/nowhere/sr0")), io::ErrorKind::NotFound);
    }
}
