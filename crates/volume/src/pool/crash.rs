//! Storage that loses, reorders and tears what was not synced: what models of crashes run on.

use super::page::{PAGE_BYTES, Page};

/// What storage holds.
pub trait Held: Clone {
    type Put: Clone;

    fn put(&mut self, put: &Self::Put);

    /// Power fails in the middle of it.
    fn tear(&mut self, put: &Self::Put);
}

/// `T` tells whoever asked for a write that it has ended.
pub struct Disk<H: Held, T> {
    durable: H,
    /// What is read while nothing crashes.
    pub current: H,
    pub unsynced: Vec<H::Put>,
    pub in_flight: Vec<(T, H::Put)>,
}

impl<H: Held, T> Disk<H, T> {
    pub fn new(held: H) -> Self {
        let (unsynced, in_flight) = (Vec::new(), Vec::new());
        Self { durable: held.clone(), current: held, unsynced, in_flight }
    }

    pub fn issue(&mut self, tell: T, put: H::Put) {
        self.in_flight.push((tell, put));
    }

    pub fn complete(&mut self, index: usize) -> T {
        let (tell, put) = self.in_flight.remove(index);
        self.current.put(&put);
        self.unsynced.push(put);
        tell
    }

    /// Somebody else has written this, and synced it.
    pub fn put_durable(&mut self, put: H::Put) {
        self.durable.put(&put);
        self.current.put(&put);
    }

    /// A sync has ended that covers so many of the writes that had ended.
    pub fn synced(&mut self, count: usize) {
        for put in self.unsynced.drain(..count) {
            self.durable.put(&put);
        }
    }

    /// The process is no more: what the kernel has is carried out, or was never begun.
    pub fn kill(&mut self, dice: &mut Dice) {
        while !self.in_flight.is_empty() {
            let index = dice.below(self.in_flight.len());
            match dice.one_in(2) {
                true => drop(self.complete(index)),
                false => drop(self.in_flight.remove(index)),
            }
        }
    }

    pub fn lose_power(&mut self, dice: &mut Dice) {
        self.unsynced.extend(self.in_flight.drain(..).map(|(_, put)| put));
        for put in self.unsynced.drain(..) {
            match dice.below(5) {
                0 | 1 => self.durable.put(&put),
                2 => self.durable.tear(&put),
                _ => {}
            }
        }
        self.current = self.durable.clone();
    }
}

/// A page of which the first half was written.
pub fn torn(page: &Page) -> Page {
    let mut bytes = *page.bytes();
    bytes[PAGE_BYTES / 2..].fill(0xaa);
    Page::of_bytes(&bytes)
}

/// Chance, the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The seeds of a test that runs so many: `VIADUCT_LOOPS` times as many, and those `kept` that have
/// found something once; or the one that `VIADUCT_SEED` names. Each is printed, which is seen where
/// the test fails.
pub fn seeds(count: u64, kept: &[u64]) -> impl Iterator<Item = u64> {
    let all = seed().map_or(0..count * loops(), |seed| seed..seed + 1);
    let kept = if is_one_seed() { &[] } else { kept };
    all.chain(kept.iter().copied()).inspect(|seed| println!("seed {seed}"))
}

/// Whether it is only one, which need not show everything that all together do.
pub fn is_one_seed() -> bool {
    seed().is_some()
}

fn seed() -> Option<u64> {
    std::env::var("VIADUCT_SEED").ok()?.parse().ok()
}

/// So many times what runs in each test: `VIADUCT_LOOPS`.
pub fn loops() -> u64 {
    std::env::var("VIADUCT_LOOPS").ok().and_then(|loops| loops.parse().ok()).unwrap_or(1)
}
