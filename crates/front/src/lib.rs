//! The doors: transports. A client's bytes come in here, requests of the waist go out.
//!
//! What a command means is in `target`, what a session may say is in `proto`; here is what binds
//! them to sockets, rings and cores.

pub mod iscsi;
pub mod vhost_user;
