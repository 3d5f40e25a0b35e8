//! Counters and latency histograms of one device, as the engine reports and `/metrics` shows them.
//!
//! The histogram's buckets double from 1024 ns to 8.6 s. Powers of two, because the data path finds
//! the bucket with one count of leading zeros; the same for every device, because they can then be
//! added up.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::LuName;

/// Upper bounds of all buckets but the last, which has none.
pub const LATENCY_BOUNDS: usize = 24;

/// Buckets of a histogram.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS + 1;

const LATENCY_FIRST_SHIFT: u32 = 10;

/// The upper bound of a bucket in nanoseconds; none for the last one.
pub const fn latency_bound_ns(bucket: usize) -> Option<u64> {
    if bucket < LATENCY_BOUNDS { Some(1 << (LATENCY_FIRST_SHIFT + bucket as u32)) } else { None }
}

/// The bucket that a latency belongs to: the first whose bound is not below it.
pub const fn latency_bucket(latency_ns: u64) -> usize {
    let above_first = latency_ns.saturating_sub(1) >> LATENCY_FIRST_SHIFT;
    let bucket = (u64::BITS - above_first.leading_zeros()) as usize;
    if bucket < LATENCY_BOUNDS { bucket } else { LATENCY_BOUNDS }
}

/// What kind of request was counted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OpKind {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    Other,
}

impl OpKind {
    pub const ALL: [OpKind; 6] = [
        OpKind::Read,
        OpKind::Write,
        OpKind::Flush,
        OpKind::Discard,
        OpKind::WriteZeroes,
        OpKind::Other,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Flush => "flush",
            OpKind::Discard => "discard",
            OpKind::WriteZeroes => "write-zeroes",
            OpKind::Other => "other",
        }
    }
}

/// Requests of one kind since the device was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpStats {
    pub op: OpKind,
    pub requests: u64,
    pub bytes: u64,
    pub errors: u64,
    /// Sum of all latencies.
    pub latency_sum_ns: u64,
    /// Requests per bucket, not cumulative; see [`latency_bound_ns`].
    pub latency_counts: Vec<u64>,
}

impl OpStats {
    pub fn new(op: OpKind) -> OpStats {
        OpStats {
            op,
            requests: 0,
            bytes: 0,
            errors: 0,
            latency_sum_ns: 0,
            latency_counts: vec![0; LATENCY_BUCKETS],
        }
    }

    pub fn record(&mut self, bytes: u64, latency_ns: u64, ok: bool) {
        self.requests += 1;
        self.bytes += bytes;
        self.errors += u64::from(!ok);
        self.latency_sum_ns = self.latency_sum_ns.saturating_add(latency_ns);
        self.latency_counts[latency_bucket(latency_ns)] += 1;
    }
}

/// Everything counted about one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceStats {
    pub lu: LuName,
    /// Requests that were begun and are not answered.
    pub inflight: u64,
    /// Requests that the LU's limits held back, and for how long altogether.
    #[serde(default)]
    pub held: u64,
    #[serde(default)]
    pub held_ns: u64,
    pub ops: Vec<OpStats>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_bound_lies_in_its_own_bucket() {
        for bucket in 0..LATENCY_BOUNDS {
            let bound = latency_bound_ns(bucket).unwrap();
            assert_eq!(latency_bucket(bound), bucket);
            assert_eq!(latency_bucket(bound + 1), bucket + 1);
        }
        assert_eq!(latency_bound_ns(LATENCY_BOUNDS), None);
        assert_eq!(latency_bucket(0), 0);
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BOUNDS);
    }

    #[test]
    fn labels_are_the_words_of_json() {
        for op in OpKind::ALL {
            assert_eq!(serde_json::to_string(&op).unwrap(), format!("\"{}\"", op.label()));
        }
    }

    proptest! {
        #[test]
        fn a_latency_lies_between_its_bounds(latency_ns in any::<u64>(), shift in 0u32..64) {
            let latency_ns = latency_ns >> shift;
            let bucket = latency_bucket(latency_ns);
            prop_assert!(latency_bound_ns(bucket).is_none_or(|bound| latency_ns <= bound));
            if bucket > 0 {
                prop_assert!(latency_bound_ns(bucket - 1).unwrap() < latency_ns);
            }
        }
    }
}
