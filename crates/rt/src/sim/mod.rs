//! The simulated machines: the same cores, files and sockets as [`os`](crate::os), on a virtual
//! clock, in one thread, every choice drawn from one seed.
//!
//! A [`World`] holds hosts, disks and the network between them, and a queue of what happens next.
//! It takes one event after the other: a core gets a turn, a part of a transfer reaches a disk, an
//! answer comes, a packet arrives, a worker goes on. How long each takes is drawn, so events of
//! different origin come in any order that the real machines could show. Two runs of one seed are
//! the same run: [`World::fingerprint`] compares them.
//!
//! | what | where |
//! |---|---|
//! | the loop over events; hosts and processes as seen from outside | `world`, `host` |
//! | what all machines are made of, and the queue | `room` |
//! | a core's side: operations in flight, its turn | `driver` |
//! | what a disk holds, durable and not; what a power loss leaves | `image` |
//! | open files, transfers, locks | `file`, `transfer`, `lock` |
//! | faults on demand | `fault` |
//! | sockets, packets, cut links | `net`, `socket` |
//! | blocking work | `worker` |
//! | how long things take | [`Options`] |
//!
//! Not here: guest memory, eventfds and sockets with descriptors, which cannot be simulated
//! faithfully; they are tested against real clients.

mod driver;
mod fault;
pub(crate) mod file;
mod host;
mod image;
mod lock;
mod net;
mod options;
mod random;
mod ranges;
mod room;
pub(crate) mod socket;
mod transfer;
pub(crate) mod worker;
mod world;

#[cfg(test)]
mod tests;

pub use fault::{Fault, Harm, On};
pub use host::{Disk, Host, Process};
pub use options::{Latency, Options};
pub use random::Random;
pub use world::World;

pub(crate) use driver::{Doorbell, Driver, SimFile};

use std::sync::Arc;

use crate::core::{Core, Inner};
use room::{ProcessId, Room};

/// The simulated process that the calling code belongs to, if it is one's.
pub(crate) fn here() -> Option<(Arc<Room>, ProcessId)> {
    let core = Core::with_current(|core| core.sim().map(Driver::place)).flatten();
    core.or_else(worker::place)
}

/// Whether the calling code runs on a core, where nothing may block.
pub(crate) fn on_a_core() -> bool {
    Core::with_current(|_: &Inner| ()).is_some()
}
