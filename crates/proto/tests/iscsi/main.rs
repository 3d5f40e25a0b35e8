//! The iSCSI machines in memory: a target against PDUs written by hand, byte by byte where it
//! matters, and against our own initiator.

// The lint's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

#[path = "../../../../xtask/src/bench/allocator.rs"]
mod allocator;
mod commands;
mod delays;
mod exchanges;
mod initiator;
mod login;
mod no_allocation;
mod pair;
mod states;
mod support;
mod violations;
mod window;
