//! The runtime: the only door of Viaduct to clock, threads, sockets, files, randomness, io_uring.
//!
//! One [`Core`] per thread runs everything of its share: *pollers* (rings in memory shared with a
//! client), *operations* (what the kernel was asked to do) and *messages* from elsewhere. Nothing
//! on a core is `Send`; cores talk by messages only. What happens in one turn of the loop, and when
//! it sleeps, is in `os::run`.
//!
//! | what | where |
//! |---|---|
//! | tasks, wakers, their pooled memory | `task` |
//! | timers | `timer` |
//! | messages from other threads | `mailbox` |
//! | handles of one thing on several cores | [`handles`] |
//! | sockets that carry data | [`net`] |
//! | the kernel: ring, files, sockets, mappings, threads | [`os`] |
//! | the same on simulated machines | [`sim`] |
//!
//! Which machine a core runs on, the real one or a simulated one, is decided when it is made, never
//! by a feature; what is opened or started on a core belongs to the core's machine.

mod answer;
mod core;
mod file;
mod mailbox;
mod placed;
mod poller;
mod task;
mod timer;
#[cfg(test)]
mod twin_tests;

pub mod handles;
pub mod net;
pub mod os;
pub mod sim;
pub mod sync;

pub use crate::core::{Core, CoreId, Remote, Task};
pub use crate::file::{Allocate, File, FileHandle, FileInfo, FileKind, OpenOptions};
pub use crate::placed::Placed;
pub use crate::poller::{Poller, PollerId};
pub use crate::timer::Time;
pub use os::config::{Config, Spin};
