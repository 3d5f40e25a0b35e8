//! The vhost-user-blk front end over real sockets and shared memory, driven as a VMM and its guest
//! would drive it, and as neither should.

#![allow(clippy::unwrap_used)]

mod inflight;
mod killed;
mod log;
mod requests;
mod session;
mod support;
