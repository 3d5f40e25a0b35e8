//! Memory that a client shares: mapped here, and able to vanish at any time.
//!
//! A client can cut the file behind its memory; touching what was cut raises SIGBUS. The handler
//! looks the address up in a table without locks, maps zeroes over the whole region, marks it
//! broken and returns, so that the instruction finds memory and only this client suffers. What the
//! kernel touches on our behalf answers EFAULT instead.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::check;

/// Mappings of clients' memory that one process can have.
pub const MAPPINGS_MAX: usize = 8192;

struct Watched {
    start: AtomicUsize,
    /// Zero: the entry is free.
    len: AtomicUsize,
    broken: AtomicBool,
}

static WATCHED: [Watched; MAPPINGS_MAX] = [const {
    Watched { start: AtomicUsize::new(0), len: AtomicUsize::new(0), broken: AtomicBool::new(false) }
}; MAPPINGS_MAX];

/// A shared mapping of a file descriptor, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    at: *mut u8,
    len: usize,
    entry: usize,
}

// SAFETY: plain memory that other processes may write as well; access goes through raw parts only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes from `offset` of the file, readable and writable.
    pub fn shared(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        handle_faults()?;
        let file = File::from(fd.as_fd().try_clone_to_owned()?);
        let end = offset.checked_add(len as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let size = file.metadata()?.len();
        if len == 0 || size < end {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the memory file has {size} bytes, {len} from {offset} were announced"),
            ));
        }
        let entry = claim_entry()?;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let at = unsafe { libc::mmap64(ptr::null_mut(), len, prot, flags, fd, offset as i64) };
        if at == libc::MAP_FAILED {
            WATCHED[entry].start.store(0, Ordering::Release);
            return Err(io::Error::last_os_error());
        }
        WATCHED[entry].broken.store(false, Ordering::Relaxed);
        WATCHED[entry].start.store(at.addr(), Ordering::Relaxed);
        WATCHED[entry].len.store(len, Ordering::Release);
        Ok(Self { at: at.cast(), len, entry })
    }

    pub fn at(&self) -> *mut u8 {
        self.at
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The client has cut this memory: what is read here is not its data any more.
    pub fn is_broken(&self) -> bool {
        WATCHED[self.entry].broken.load(Ordering::Relaxed)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `shared` with this length; whoever still uses it holds this value.
        unsafe { libc::munmap(self.at.cast(), self.len) };
        WATCHED[self.entry].len.store(0, Ordering::Relaxed);
        WATCHED[self.entry].start.store(0, Ordering::Release);
    }
}

/// Takes a free entry by putting 1, which no mapping starts at, into its start.
fn claim_entry() -> io::Result<usize> {
    WATCHED
        .iter()
        .position(|entry| {
            let claim = entry.start.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            claim.is_ok()
        })
        .ok_or_else(|| {
            io::Error::other(format!("{MAPPINGS_MAX} memory regions are mapped, no more can be"))
        })
}

fn handle_faults() -> io::Result<()> {
    static ONCE: Once = Once::new();
    static DONE: AtomicBool = AtomicBool::new(false);
    ONCE.call_once(|| {
        // SAFETY: a zeroed sigaction is valid; the handler is an extern "C" fn of the right form.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut())
        };
        DONE.store(result == 0, Ordering::Relaxed);
    });
    if DONE.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(io::Error::other("no handler for memory faults could be set"))
}

/// Only what a signal handler may do: atomics, `mmap`, `sigaction`.
extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo for SIGBUS.
    let address = unsafe { (*info).si_addr() }.addr();
    for entry in &WATCHED {
        let len = entry.len.load(Ordering::Acquire);
        let start = entry.start.load(Ordering::Relaxed);
        if len == 0 || address < start || address - start >= len {
            continue;
        }
        entry.broken.store(true, Ordering::Relaxed);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let at = ptr::with_exposed_provenance_mut(start);
        // SAFETY: replaces exactly the broken region, which its owner holds mapped.
        let mapped = unsafe { libc::mmap64(at, len, prot, flags, -1, 0) };
        if mapped != libc::MAP_FAILED {
            return;
        }
    }
    // Not ours: let the next fault end the process as it would have without us.
    // SAFETY: resets one signal to its default.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

/// An anonymous file in memory, for regions that a server hands to its client.
pub fn anonymous_file(name: &std::ffi::CStr, len: u64) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a terminated string.
    let fd = check(unsafe {
        libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    })?;
    // SAFETY: just made, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: no pointers.
    check(unsafe { libc::ftruncate64(fd.as_raw_fd(), len as i64) })?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_memory_reads_zero_and_is_marked_and_its_neighbour_is_not() {
        let cut = anonymous_file(c"cut", 8192).unwrap();
        let whole = anonymous_file(c"whole", 8192).unwrap();
        let cut_map = Mapping::shared(&cut, 0, 8192).unwrap();
        let whole_map = Mapping::shared(&whole, 0, 8192).unwrap();
        // SAFETY: both mappings are 8192 bytes long.
        unsafe {
            cut_map.at().add(5000).write_volatile(7);
            whole_map.at().add(5000).write_volatile(9);
            check(libc::ftruncate64(cut.as_raw_fd(), 4096)).unwrap();
            assert_eq!(cut_map.at().add(5000).read_volatile(), 0);
            assert_eq!(whole_map.at().add(5000).read_volatile(), 9);
        }
        assert!(cut_map.is_broken());
        assert!(!whole_map.is_broken());
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let file = anonymous_file(c"short", 4096).unwrap();
        let error = Mapping::shared(&file, 4096, 4096).unwrap_err();
        assert!(error.to_string().contains("has 4096 bytes"), "{error}");
    }
}
