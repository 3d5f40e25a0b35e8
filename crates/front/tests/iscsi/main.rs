//! iSCSI from socket to device: our own initiator against the front end with a real LU in memory,
//! on the real machine and on simulated ones with many seeds.

#![allow(clippy::unwrap_used)]

mod broken;
mod farewell;
mod hostile;
mod login;
mod support;
mod tasks;
mod transfers;
