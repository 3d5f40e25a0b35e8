//! The vhost-user-blk front end over real sockets and shared memory, driven as a VMM and its guest
//! would drive it, and as neither should.

#![allow(clippy::unwrap_used)]

mod cores;
mod hostile;
mod inflight;
mod killed;
mod log;
mod memory;
mod oracle;
mod order;
mod requests;
mod scsi;
mod session;
mod support;
