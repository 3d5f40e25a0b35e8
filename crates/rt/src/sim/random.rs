//! Seeded randomness: a counter and a mixing function (SplitMix64), which is fast, has no bad seeds
//! and can be forked into streams that do not disturb each other.

use std::ops::Range;

#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Less than `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// From the range; its start where it is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        match range.end.checked_sub(range.start) {
            Some(width) if width > 0 => range.start + self.below(width),
            _ => range.start,
        }
    }

    /// True in so many of a million draws.
    pub fn chance(&mut self, of_million: u32) -> bool {
        self.below(1_000_000) < u64::from(of_million)
    }

    pub fn coin(&mut self) -> bool {
        self.draw() & 1 == 1
    }

    /// One of the things, of which there is at least one.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len() as u64) as usize]
    }

    /// A stream of its own.
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }
}

/// A word that depends on every bit of this one.
pub(super) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream_and_bounds_hold() {
        let stream = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| random.range(10..20)).collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
        for value in 10..20 {
            let count = stream(3).iter().filter(|drawn| **drawn == value).count();
            assert!((50..200).contains(&count), "{value} came {count} times of 1000");
        }
        let mut random = Random::new(0);
        assert_eq!(random.range(5..5), 5);
        assert!(!random.chance(0) && random.chance(1_000_000));
    }
}
