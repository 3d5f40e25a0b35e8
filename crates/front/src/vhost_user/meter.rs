//! What a queue counts: requests, bytes, errors and latencies by kind. Plain cells of one core,
//! added up over queues when somebody asks.

use std::cell::Cell;

use model::stats::{LATENCY_BUCKETS, OpKind, OpStats, latency_bucket};

use super::kind::Units;

#[derive(Default)]
pub(super) struct Meter {
    kinds: [Kind; OpKind::ALL.len()],
}

#[derive(Default)]
struct Kind {
    requests: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    latency_sum_ns: Cell<u64>,
    latencies: [Cell<u64>; LATENCY_BUCKETS],
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

impl Meter {
    #[inline]
    pub(super) fn count(&self, op: OpKind, bytes: u64, latency_ns: u64, failed: bool) {
        let kind = &self.kinds[op as usize];
        add(&kind.requests, 1);
        add(&kind.bytes, bytes);
        add(&kind.errors, u64::from(failed));
        add(&kind.latency_sum_ns, latency_ns);
        add(&kind.latencies[latency_bucket(latency_ns)], 1);
    }

    pub(super) fn read(&self) -> Vec<OpStats> {
        OpKind::ALL
            .iter()
            .zip(&self.kinds)
            .map(|(&op, kind)| OpStats {
                op,
                requests: kind.requests.get(),
                bytes: kind.bytes.get(),
                errors: kind.errors.get(),
                latency_sum_ns: kind.latency_sum_ns.get(),
                latency_counts: kind.latencies.iter().map(Cell::get).collect(),
            })
            .collect()
    }
}

/// Adds counts of another queue, which come in the same order.
pub fn add_stats(sum: &mut Vec<OpStats>, more: &[OpStats]) {
    if sum.is_empty() {
        sum.extend_from_slice(more);
        return;
    }
    for (sum, more) in sum.iter_mut().zip(more) {
        sum.requests += more.requests;
        sum.bytes += more.bytes;
        sum.errors += more.errors;
        sum.latency_sum_ns += more.latency_sum_ns;
        for (sum, more) in sum.latency_counts.iter_mut().zip(&more.latency_counts) {
            *sum += more;
        }
    }
}

/// The same for counts by LU.
pub fn add_units(sum: &mut Units, more: &Units) {
    for (uuid, more) in more {
        let sum = sum.entry(*uuid).or_default();
        sum.in_flight += more.in_flight;
        add_stats(&mut sum.ops, &more.ops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_where_they_are_counted() {
        let meter = Meter::default();
        for (index, &op) in OpKind::ALL.iter().enumerate() {
            assert_eq!(op as usize, index);
            meter.count(op, index as u64, 5_000, index == 2);
        }
        for (index, stats) in meter.read().iter().enumerate() {
            assert_eq!((stats.op, stats.requests), (OpKind::ALL[index], 1));
            assert_eq!((stats.bytes, stats.errors), (index as u64, u64::from(index == 2)));
            assert_eq!(stats.latency_counts[latency_bucket(5_000)], 1);
        }
    }
}
