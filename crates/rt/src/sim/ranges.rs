//! A set of numbers kept as ranges: which blocks of a file have a place.

use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// Start to end; they neither touch nor overlap.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&other, &other_end)) = self.ends.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other);
            end = end.max(other_end);
            self.ends.remove(&other);
        }
        self.ends.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ends.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.ends.remove(&start);
            if start < range.start {
                self.ends.insert(start, range.start);
            }
            if end > range.end {
                self.ends.insert(range.end, end);
            }
        }
    }

    /// How many numbers are in the set.
    pub(super) fn total(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn agrees_with_a_plain_set() {
        let mut random = Random::new(7);
        let (mut ranges, mut plain) = (Ranges::default(), std::collections::BTreeSet::new());
        for _ in 0..2000 {
            let start = random.below(64);
            let range = start..start + random.below(12);
            if random.coin() {
                plain.extend(range.clone());
                ranges.insert(range);
            } else {
                plain.retain(|number| !range.contains(number));
                ranges.remove(range);
            }
            let kept: Vec<u64> = ranges.ends.iter().flat_map(|(s, e)| *s..*e).collect();
            assert_eq!(kept, plain.iter().copied().collect::<Vec<_>>());
            assert_eq!(ranges.total(), plain.len() as u64);
            let apart = ranges.ends.iter().zip(ranges.ends.iter().skip(1));
            assert!(apart.into_iter().all(|((_, end), (start, _))| end < start));
        }
    }
}
