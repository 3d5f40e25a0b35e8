//! The sessions of Viaduct: every protocol as a machine that does no I/O.
//!
//! A machine is given the bytes that arrived and gives back the bytes to send, what happened, and
//! what is to be done; it never sees a socket, a clock or a thread. Both roles of a protocol live
//! side by side, so that each is the other's first test and an incoming byte can be split anywhere.
//! Methods are of four kinds: getters; `handle_*` for what the world did; commands for what the
//! owner wants; `poll_*` for what the machine has to say.
//!
//! Not here: layouts of bytes (`wire`), command sets (`target`), sockets (`front`, `store`).

#![forbid(unsafe_code)]

pub mod iscsi;
pub mod nbd;
pub mod vhost_user;
