//! Maps whose keys are numbers: tickets, pages, extents.
//!
//! A look-up on the way of a request costs a multiplication, not a hash that withstands whoever
//! chooses keys in order to make them meet. A client that did so would choose among the extents of
//! its own LU: too few of them meet to slow anybody else down. What a client may choose freely, as
//! names, belongs in a `HashMap` as it is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by something that hashes as one number, or as a few.
pub type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Odd, and near 2^64 divided by the golden ratio: neighbours land far from each other.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Brings the bits that depend on all of a key to where a table looks first.
const TURN: u32 = 26;

/// Spreads numbers over the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(TURN) ^ number).wrapping_mul(STRIDE);
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0.rotate_left(TURN)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::{BuildHasher, Hash};

    use super::*;

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<Spread>::default().hash_one(key)
    }

    /// Whatever the distance of keys: a table of 4,096 looks at 16 of one place at a time.
    #[test]
    fn keys_at_any_distance_spread() {
        for log in 0..40 {
            for distance in [1_u64 << log, (1 << log) + 1, 3 << log] {
                let mut places = BTreeMap::<u64, u32>::new();
                for key in 0..2_048 {
                    *places.entry(hash(key * distance) % 4_096).or_default() += 1;
                }
                let most = places.values().max().unwrap();
                assert!(*most <= 16, "{most} keys at distance {distance} meet");
            }
        }
    }

    #[test]
    fn keys_of_two_numbers_differ_by_either() {
        assert_ne!(hash((1_u32, 2_u32)), hash((2_u32, 1_u32)));
        assert_ne!(hash((0_u32, 1_u32)), hash((1_u32, 0_u32)));
        assert_ne!(hash([1_u8, 2]), hash([2_u8, 1]));
    }
}
