//! `target::lun` from outside: what clients of one LU can do to each other.

#![allow(clippy::unwrap_used)]

mod across;
mod admit;
mod attention;
mod kit;
mod ledger;
mod model;
mod owner;
mod reservations;
mod state;
