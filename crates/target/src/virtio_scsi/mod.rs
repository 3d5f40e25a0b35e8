//! virtio-scsi (Virtio 1.2, 5.6): what a SCSI host says of itself, and how its requests, control
//! messages and events are read and written.
//!
//! [`Host`] is one per device and session: features, configuration space. [`Sizes`] is what of it a
//! queue needs for each request. There is one target, number 0; what is behind its LUNs is a
//! [`Nexus`](crate::scsi::Nexus).
//!
//! Not here: rings and buffers (`front::vhost_user`), commands (`scsi`).

mod control;
mod event;
mod host;
mod request;

pub use control::{Control, Function, gather, parse, response_of};
pub use event::{Events, Happening, PENDING_MAX, Subscriptions};
pub use host::{ConfigWriteError, Host, SIZE_MAX, Settings, Sizes};
pub use request::{Moved, RESPONSE_BYTES, address_of, attribute_of, lun_of, respond};
