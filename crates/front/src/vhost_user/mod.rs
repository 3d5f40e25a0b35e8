//! vhost-user: virtual machines, through rings in memory that they share with us.
//!
//! | what | where |
//! |---|---|
//! | one socket of one client: accepts, one session at a time | `adapter` |
//! | one connection: what the front end asks, done | `session` |
//! | one queue on one core: **the hot path** | `queue` |
//! | what kinds of device are to sessions and queues | `kind` |
//! | a disk; a SCSI host with its LUNs | `blk`, `scsi` |
//! | rings in client memory, and every raw address | `ring` |
//!
//! The session runs on the adapter's home core; its queues are spread over all cores. A request
//! never leaves the core of its queue.

mod adapter;
mod blk;
mod channel;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kind;
mod meter;
mod queue;
pub mod ring;
mod scsi;
mod session;

pub use adapter::{Adapter, Info, Limits, Notice, Observer, QueueInfo, SessionInfo, Spec};
pub use blk::{Blk, Open};
pub use kind::{Kind, UnitCounts, Units};
pub use meter::{add_stats, add_units};
pub use scsi::{Enter, Scsi, join};
