//! The vhost-user machines against the `vhost` crate, over real sockets with real file descriptors:
//! its front end against our back end, our front end against its back end, and both ways on the
//! back-end channel. The crate is the oracle for what belongs on the wire; nothing of it is in the
//! product.

// The lint's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod back_end;
mod channel;
mod front_end;
mod socket;
