//! The SCSI device server over a toy disk: what an initiator sees, command by command.
#![allow(clippy::unwrap_used)]

mod access;
mod background;
mod copies;
mod identity;
mod medium;
mod modes;
mod opcodes;
mod optical;
mod provisioning;
mod reserve;
mod support;
mod tasks;
mod transfer;
mod verify;
