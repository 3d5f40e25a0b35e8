//! The harness of the system tests: real QEMU guests, real clients and the real server binary.
//!
//! From the bottom up: [`cache`] keeps what is built once, outside the checkout; [`debian`] fetches
//! packages into private trees without installing anything; [`kernel`] and [`image`] make what a
//! guest boots from, and [`disc`] makes discs; [`qemu`] knows the two QEMUs that are tested;
//! [`guest`] runs one and talks to the agent inside it over a serial line ([`line`], [`frame`]);
//! [`qmp`] steers QEMU itself; [`migration`] moves a running guest; [`storage_daemon`] and [`node`]
//! are servers for guests; [`verify`] is the program that proves, from inside a guest, that no
//! write was lost; [`node_in_guest`] is a server inside a guest, and [`blk_client`] its client
//! there; [`iscsi`] is a node that serves iSCSI, [`open_iscsi`] its client in a guest, and
//! [`libiscsi`] its examiner.
//!
//! A test reads like what a user would do:
//!
//! ```no_run
//! use system_tests::image::own_program;
//! use system_tests::verify::Report;
//! use system_tests::{Guest, GuestImage, Node, VhostBlk};
//!
//! # fn main() -> system_tests::Result<()> {
//! let dir = tempfile::tempdir()?;
//! let mut node = Node::on(&dir.path().join("data")).start()?;
//! node.cli(&["lu", "create", "disk", "--size", "64M"])?;
//! node.cli(&["client", "create", "web"])?;
//! node.cli(&["map", "disk", "--to", "web", "--via", "vhost-user-blk"])?;
//! let image = GuestImage::new().with_host_program("verify", &own_program("verify")?);
//! let disk = VhostBlk::new(&node.socket("web", 2)).queues(2);
//! let guest = Guest::builder().image(image).disk(disk).boot()?;
//! let load = guest.start("verify load /dev/vda --fresh")?;
//! load.wait_for_text("started", system_tests::guest::COMMAND_TIMEOUT)?;
//! node.kill()?;
//! node.start()?;
//! load.close_input()?;
//! let output = load.wait(system_tests::guest::COMMAND_TIMEOUT)?;
//! Report::parse(&output.text())?.check()?;
//! # Ok(())
//! # }
//! ```
//!
//! The tests are in `tests/`. Nothing here is linked into the product, and it is driven by its
//! command line, like a user does; only `blk-client` knows some of its types: those of the
//! vhost-user protocol.

pub mod blk_client;
pub mod cache;
pub mod cpio;
pub mod debian;
pub mod disc;
pub mod error;
pub mod frame;
pub mod guest;
pub mod image;
pub mod iscsi;
pub mod kernel;
pub mod libiscsi;
pub mod line;
pub mod migration;
pub mod node;
pub mod node_in_guest;
pub mod open_iscsi;
pub mod pools;
pub mod qemu;
pub mod qemu_nbd;
pub mod qmp;
pub mod storage_daemon;
pub mod verify;

use std::thread;
use std::time::{Duration, Instant};

pub use error::{Context, Error, Result};
pub use guest::{Guest, GuestBuilder, VhostBlk};
pub use image::GuestImage;
pub use node::Node;
pub use qemu::Qemu;
pub use storage_daemon::StorageDaemon;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until this is so.
pub fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        if begin.elapsed() > within {
            return Err(Error::new(format!("{what}: not within {within:?}")));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// How often a test repeats what it shows: `sample` times, or as `VIADUCT_LOOPS` says when
/// `cargo xtask bar` runs it in full.
pub fn loops(sample: u32) -> u32 {
    let loops = std::env::var("VIADUCT_LOOPS").ok();
    loops.and_then(|loops| loops.parse().ok()).unwrap_or(sample)
}

/// Whether a test that has nothing to repeat is to show everything: under `cargo xtask bar`.
pub fn in_full() -> bool {
    loops(0) > 0
}
