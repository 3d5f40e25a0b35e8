//! Latencies by logarithmic buckets: 64 to each doubling, so a percentile is exact to 2 %.

const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = (64 - STEP_BITS as usize + 1) * STEPS as usize;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    #[inline]
    pub fn count(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, other)| *mine += other);
        self.total += other.total;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that this share of all values does not exceed; 0 where there are none.
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, highest)
    }
}

#[inline]
fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let octave = value.ilog2() - STEP_BITS;
    let step = (value >> octave) - STEPS;
    ((u64::from(octave) + 1) * STEPS + step) as usize
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match octave {
        0 => step,
        _ => ((step + STEPS + 1) << (octave - 1)).wrapping_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_that_ends_close_above_it() {
        let mut last = 0;
        for value in (0..200_000).chain((20..64).map(|bit| 1 << bit)).chain([u64::MAX]) {
            let (index, top) = (bucket(value), highest(bucket(value)));
            assert!(index >= last && index < BUCKETS);
            assert!(top >= value && top - value <= value / 32, "{value}: {top}");
            last = index;
        }
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=100).for_each(|value| histogram.count(value));
        assert_eq!(histogram.percentile(0.5), 50);
        assert_eq!(histogram.percentile(0.99), 99);
        let mut both = Histogram::new();
        both.add(&histogram);
        assert_eq!((both.total(), both.percentile(1.0)), (100, 100));
    }
}
