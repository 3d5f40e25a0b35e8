//! The harness of the system tests: real QEMU guests, real clients and the real server binary.
//!
//! From the bottom up: [`cache`] keeps what is built once, outside the checkout; [`debian`] fetches
//! packages into private trees without installing anything; [`kernel`] and [`image`] make what a
//! guest boots from; [`qemu`] knows the two QEMUs that are tested; [`guest`] runs one and talks to
//! the agent inside it over a serial line ([`line`], [`frame`]); [`qmp`] steers QEMU itself;
//! [`migration`] moves a running guest; [`storage_daemon`] and [`node`] are servers for guests;
//! [`verify`] is the program that proves, from inside a guest, that no write was lost.
//!
//! The tests are in `tests/`. Nothing here is linked into the product, and nothing here knows the
//! product's types: it is driven by its command line, like a user does.

pub mod cache;
pub mod cpio;
pub mod debian;
pub mod error;
pub mod frame;
pub mod guest;
pub mod image;
pub mod kernel;
pub mod line;
pub mod migration;
pub mod node;
pub mod qemu;
pub mod qmp;
pub mod storage_daemon;
pub mod verify;

pub use error::{Context, Error, Result};
pub use guest::{Guest, GuestBuilder, VhostBlk};
pub use image::GuestImage;
pub use node::Node;
pub use qemu::Qemu;
pub use storage_daemon::StorageDaemon;

/// How often a test repeats what it shows: `sample` times, or as `VIADUCT_LOOPS` says when
/// `cargo xtask bar` runs it in full.
pub fn loops(sample: u32) -> u32 {
    let loops = std::env::var("VIADUCT_LOOPS").ok();
    loops.and_then(|loops| loops.parse().ok()).unwrap_or(sample)
}
