//! The nouns of Viaduct as plain serde types: what `kv` stores, what the REST API speaks and what
//! the command line prints are the same structs, so that a word means one thing everywhere.
//!
//! | module | nouns |
//! |---|---|
//! | [`limits`] | every limit of the control plane, by name |
//! | [`name`] | [`LuName`], [`ClientName`], [`Iqn`], [`Nqn`]: parsed once, valid ever after |
//! | [`size`] | [`Size`]: `10G`, `10GiB`, `512` |
//! | [`lu`] | [`Lu`] and what creates, adopts and resizes one |
//! | [`client`] | [`Client`] |
//! | [`mapping`] | [`Mapping`], [`Via`], [`Slot`] and the slot rules |
//! | [`config`] | [`Config`]: the whole desired state in one versioned document |
//! | [`event`] | [`Event`], [`Severity`], [`Subject`] |
//! | [`status`] | what is, as opposed to what is wanted: node, devices, sessions |
//! | [`stats`] | counters and latency histograms of a device |
//! | [`image`] | image formats that are not raw, and QEMU's lock bytes |
//! | [`error`] | [`ApiError`]: kind → exit code and HTTP status |
//!
//! There is no behaviour here beyond parsing, validation of one value by itself, and printing.
//! Rules that span objects (is this slot free?) are in `node::state`.

pub mod client;
pub mod config;
pub mod error;
pub mod event;
pub mod image;
pub mod limits;
pub mod lu;
pub mod mapping;
pub mod name;
mod schema;
pub mod size;
pub mod stats;
pub mod status;

pub use client::{Client, ClientCreate, SocketOwner};
pub use config::Config;
pub use error::{ApiError, ErrorKind};
pub use event::{Event, Severity, Subject};
pub use lu::{Backing, BlockSize, Cache, Lu, LuAdopt, LuCreate, LuResize};
pub use mapping::{AdapterId, MapRequest, Mapping, Slot, Via};
pub use name::{ClientName, Iqn, LuName, Nqn};
pub use size::Size;
