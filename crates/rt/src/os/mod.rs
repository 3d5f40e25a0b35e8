//! The real machine: Linux 6.1 or newer, through io_uring.
//!
//! | what | where |
//! |---|---|
//! | the ring of a core and the operations in flight | `ring` |
//! | the loop: turn, spin, sleep | `run` |
//! | files and block devices | `file` |
//! | sockets with file descriptors in messages | [`socket`] |
//! | sockets that carry data | `stream` |
//! | client memory and its faults | [`memory`] |
//! | eventfds | [`event`] |
//! | threads, blocking work | [`thread`] |
//! | helper processes, confined | [`child`] |
//! | optical drives of the machine | [`optical`] |
//! | small files, owners, listening sockets | [`machine`] |
//!
//! Features newer than the floor are probed with a tested fallback.

#![allow(unsafe_code)]

pub mod child;
pub mod config;
pub mod event;
pub(crate) mod file;
pub mod machine;
pub mod memory;
pub mod optical;
mod ring;
pub(crate) mod run;
pub mod socket;
pub(crate) mod stream;
pub mod thread;

#[cfg(test)]
mod tests;

pub(crate) use ring::{Doorbell, Driver, FileRange, WriteFlags};
pub use run::{Stats, start};

use std::io;

use crate::timer::Time;

/// The clock of the host: monotonic, in nanoseconds.
#[inline]
pub fn clock() -> Time {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Random bits from the kernel.
pub fn random() -> u64 {
    let mut bits = [0u8; 8];
    // SAFETY: writes at most eight bytes; so short a read is never interrupted or cut.
    let got = unsafe { libc::getrandom(bits.as_mut_ptr().cast(), bits.len(), 0) };
    assert_eq!(got, 8, "the kernel always has randomness after boot");
    u64::from_ne_bytes(bits)
}

/// The result of a system call that answers -1 and errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
