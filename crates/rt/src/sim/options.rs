//! How long things take in a world, and how often they go oddly.
//!
//! [`Options::default`] is a quiet machine. [`Options::swarm`] draws nearly everything from a seed,
//! so that many seeds together see slow disks, slow networks, long pauses and their mixtures.

use std::ops::Range;
use std::time::Duration;

use super::random::Random;

/// How long something takes: usually in one range, now and then in another.
#[derive(Clone, Debug)]
pub struct Latency {
    pub usual_ns: Range<u64>,
    pub rare_ns: Range<u64>,
    /// How many of a million are rare.
    pub rare_ppm: u32,
}

impl Latency {
    pub const fn new(usual_ns: Range<u64>) -> Self {
        Self { usual_ns, rare_ns: 0..0, rare_ppm: 0 }
    }

    pub const fn with_rare(mut self, rare_ppm: u32, rare_ns: Range<u64>) -> Self {
        self.rare_ppm = rare_ppm;
        self.rare_ns = rare_ns;
        self
    }

    /// At least one nanosecond: nothing happens at the moment it was asked for.
    pub(super) fn draw(&self, random: &mut Random) -> Duration {
        let rare = self.rare_ppm > 0 && random.chance(self.rare_ppm);
        let range = if rare { &self.rare_ns } else { &self.usual_ns };
        Duration::from_nanos(random.range(range.clone()).max(1))
    }

    fn scaled(&self, percent: u64) -> Self {
        let scale = |range: &Range<u64>| range.start * percent / 100..range.end * percent / 100;
        Self {
            usual_ns: scale(&self.usual_ns),
            rare_ns: scale(&self.rare_ns),
            rare_ppm: self.rare_ppm,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    /// From one turn of a busy core to its next; the rare ones are a process that does not get the
    /// CPU.
    pub turn: Latency,
    /// From a letter to the turn of the core that slept.
    pub message: Latency,
    /// A worker's start, and each of its calls.
    pub blocking: Latency,
    /// A read or write of a disk.
    pub transfer: Latency,
    /// A sync, a hole punched.
    pub sync: Latency,
    /// A packet from host to host.
    pub packet: Latency,
    /// Transfers that reach the disk in several pieces, of a million.
    pub pieces_ppm: u32,
    /// Receives that give less than there is, and sends that go in several packets, of a million.
    pub split_ppm: u32,
    /// Requests of a killed process that never reach the disk, of a million.
    pub cancelled_ppm: u32,
    /// Requests of a killed process that reach the disk much later, of a million.
    pub late_ppm: u32,
    pub late: Latency,
    /// What a connection carries, in bytes per second.
    pub bandwidth: u64,
    /// Bytes that a connection takes before its peer has read them.
    pub window: u64,
    /// How long a connection tries to deliver something before it gives up.
    pub give_up: Duration,
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            turn: Latency::new(200..2 * US),
            message: Latency::new(US..20 * US),
            blocking: Latency::new(5 * US..100 * US),
            transfer: Latency::new(20 * US..200 * US).with_rare(20_000, MS..5 * MS),
            sync: Latency::new(100 * US..2 * MS),
            packet: Latency::new(20 * US..200 * US).with_rare(10_000, MS..20 * MS),
            pieces_ppm: 250_000,
            split_ppm: 300_000,
            cancelled_ppm: 300_000,
            late_ppm: 200_000,
            late: Latency::new(100 * MS..3 * SECOND),
            bandwidth: 1_250_000_000,
            window: 256 << 10,
            give_up: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// A machine of its own kind for each seed.
    pub fn swarm(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed_0f0f_7105);
        let calm = Self::default();
        let mut speed = |latency: &Latency| {
            let percent = *random.pick(&[20, 100, 100, 300, 2000]);
            let mut latency = latency.scaled(percent);
            latency.rare_ppm = *random.pick(&[0, latency.rare_ppm, 1_000, 50_000]);
            if latency.rare_ns.is_empty() {
                latency.rare_ns = latency.usual_ns.end..latency.usual_ns.end * 50;
            }
            latency
        };
        Self {
            turn: speed(&calm.turn),
            message: speed(&calm.message),
            blocking: speed(&calm.blocking),
            transfer: speed(&calm.transfer),
            sync: speed(&calm.sync),
            packet: speed(&calm.packet),
            late: speed(&calm.late),
            pieces_ppm: *random.pick(&[0, 250_000, 900_000]),
            split_ppm: *random.pick(&[0, 300_000, 900_000]),
            cancelled_ppm: *random.pick(&[0, 300_000, 900_000]),
            late_ppm: *random.pick(&[0, 200_000, 800_000]),
            bandwidth: *random.pick(&[10_000_000, 125_000_000, 12_500_000_000]),
            window: *random.pick(&[4 << 10, 64 << 10, 256 << 10]),
            give_up: Duration::from_secs(*random.pick(&[2, 30, 900])),
        }
    }
}
