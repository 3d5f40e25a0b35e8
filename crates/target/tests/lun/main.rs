//! `target::lun` from outside: what clients of one LU can do to each other.

#![allow(clippy::unwrap_used)]

mod kit;
mod ledger;
