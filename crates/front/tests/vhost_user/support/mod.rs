//! A small vhost-user front end with a driver in it, and a server with a disk that obeys the test.
//!
//! | what | where |
//! |---|---|
//! | guest memory in files, read and written as a guest would | `guest` |
//! | the driver's side of a split ring, well behaved or not | `driver` |
//! | the front end's side of the socket | `client` |
//! | the dirty log of a migration | `log` |
//! | both together: a machine that boots, does requests, connects again | `machine` |
//! | a disk that records, waits and fails as it is told | `disk` |
//! | cores and adapters, started, stopped and killed | `server` |
//! | the same with LUNs, and a driver of virtio-scsi | `scsi` |

mod client;
mod disk;
mod driver;
mod guest;
mod log;
mod machine;
mod scsi;
mod server;

pub use client::Client;
pub use disk::{Disk, How};
pub use driver::{Buf, Desc, Ring};
pub use guest::Guest;
pub use log::{Log, pages_of};
pub use machine::{Machine, Options, Pending, header, take_signal, wait_for};
pub use scsi::{Command, Reply, ScsiDriver, ScsiServer, cdb};
pub use server::{Server, Setting};

use std::time::Duration;

use proptest::test_runner::Config;

/// What takes longer has failed: nothing here takes a tenth of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// So many random cases; nothing is written to disk.
pub fn proptest_config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}
