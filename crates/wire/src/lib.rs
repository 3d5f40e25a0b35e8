//! The words of Viaduct: what other people's standards put on the wire, as typed structs.
//!
//! Every type here is a fixed layout with explicit byte order, readable from and writable to bytes
//! by zerocopy; every set of codes is an open enum, so that a value this crate has no name for
//! survives and can be named in an error. Structs carry the names the standard gives their fields.
//!
//! Not here: logic, validation, allocation, I/O. Sessions are in `proto`, command sets in `target`.

#![forbid(unsafe_code)]

pub mod iscsi;
pub mod nbd;
mod open_enum;
pub mod scsi;
pub mod vhost_user;
pub mod virtio;
