//! The runtime: the only door of Viaduct to clock, threads, sockets, files, randomness, io_uring.
//!
//! One [`Core`] per thread runs everything of its share: *pollers* (rings in memory shared with a
//! client), *operations* (what the kernel was asked to do) and *messages* from elsewhere. Nothing
//! on a core is `Send`; cores talk by messages only. What happens in one turn of the loop, and when it
//! sleeps, is in `os::run`.
//!
//! | what | where |
//! |---|---|
//! | tasks, wakers, their pooled memory | `task` |
//! | timers | `timer` |
//! | messages from other threads | `mailbox` |
//! | the kernel: ring, files, sockets, mappings, threads | `os` |
//!
//! A [`Host`] stands for the machine: files are opened and cores are started through it. Which
//! machine it is, the real one or a simulated one, is decided when it is made, never by a feature.

mod answer;
mod core;
mod file;
mod mailbox;
mod placed;
mod poller;
mod task;
mod timer;

pub mod os;
pub mod sync;

pub use crate::core::{Core, CoreId, Remote, Task};
pub use crate::file::{Allocate, File, FileHandle, FileInfo, FileKind, OpenOptions};
pub use crate::placed::Placed;
pub use crate::poller::{Poller, PollerId};
pub use crate::timer::Time;
pub use os::config::{Config, Spin};
