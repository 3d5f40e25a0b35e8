//! virtio-blk (Virtio 1.2, 5.2): what a block device says of itself and how a request is read.
//!
//! [`Disk`] is one per device and session: features, configuration space, cache mode. [`Rules`] is
//! what of it a queue needs for each request; it is small and copied to wherever the queue runs,
//! again whenever the driver changes the cache mode. `Rules` turns a header into a [`Command`]
//! without touching memory that the driver can change: the caller hands it copies.
//!
//! Not here: rings, buffers, the status byte's place (`front::vhost_user`); range and alignment
//! checks, which every [`block::Device`] does itself.

mod command;
mod disk;
mod status;

pub use command::{Command, RangeKind, Rules};
pub use disk::{ConfigWriteError, Disk, Id, RANGE_BYTES_MAX, Settings};
pub use status::status;
