//! Settings of a core.

use std::time::Duration;

/// How long a core goes on looking before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spin {
    /// Zero: never. More than [`SPIN_MAX`] is cut to it.
    pub bound: Duration,
}

/// Longer spinning costs CPU and gains nothing (measured: `cargo xtask bench vhost-blk --spin`).
pub const SPIN_MAX: Duration = Duration::from_millis(1);

impl Default for Spin {
    fn default() -> Self {
        Self { bound: Duration::from_micros(50) }
    }
}

/// What a core is made of.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub spin: Spin,
    /// Pin the thread to this CPU.
    pub cpu: Option<usize>,
    /// Entries of the submission queue: what one turn can hand over with one system call.
    pub submissions: u32,
}

impl Config {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), spin: Spin::default(), cpu: None, submissions: 256 }
    }
}
