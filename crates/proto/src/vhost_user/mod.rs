//! vhost-user, both roles: the socket over which a VMM hands a virtio device's rings and memory to
//! us, and the channel over which we tell it that the device's configuration changed.
//!
//! - [`BackEnd`] is the server's side of the socket: it checks, parses and orders requests, keeps
//!   what was negotiated and declared, and encodes answers.
//! - [`FrontEnd`] is the client's side of it.
//! - [`BackEndChannel`] and [`FrontEndChannel`] are the two sides of the back-end channel.
//!
//! File descriptors are opaque tokens of a type `F` that the owner chooses. They travel with the
//! message they came with; those nobody needs any more come back through `poll_discarded`, because
//! closing is I/O. What every request may carry and when it is allowed is one table (`table`).
//!
//! Offered: MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE,
//! CONFIGURE_MEM_SLOTS. Not here: post-copy, STATUS, packed rings, in-band notifications, IOMMU;
//! guest memory and rings themselves, which are the front end's (`front::vhost_user`).

mod back_end;
mod channel;
mod declared;
mod error;
mod framing;
mod front_end;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod memory;
mod request;
mod ring;
mod table;

pub use back_end::{BackEnd, Inbound, Offer, Reply, Ticket};
pub use channel::{BackEndChannel, FrontEndChannel};
pub use error::{Error, Subject, Violation};
pub use framing::{FDS_PER_MESSAGE_MAX, Transmit};
pub use front_end::{FrontEnd, Response};
pub use memory::MemoryRegion;
pub use request::{InflightArea, LogArea, Request};
pub use ring::{Kick, RING_COUNT_MAX, Ring, RingAddresses, RingSet};

use wire::vhost_user::protocol_feature;

/// Every protocol feature that these machines implement.
pub const PROTOCOL_FEATURES: u64 = protocol_feature::MQ
    | protocol_feature::LOG_SHMFD
    | protocol_feature::REPLY_ACK
    | protocol_feature::BACKEND_REQ
    | protocol_feature::CONFIG
    | protocol_feature::INFLIGHT_SHMFD
    | protocol_feature::RESET_DEVICE
    | protocol_feature::CONFIGURE_MEM_SLOTS;

#[cfg(test)]
mod tests;
