//! The SCSI device server over a toy disk: what an initiator sees, command by command.
#![allow(clippy::unwrap_used)]

mod identity;
mod medium;
mod modes;
mod support;
mod transfer;
