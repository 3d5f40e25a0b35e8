//! What an LU has used of its limits, for all cores at once and without a lock.
//!
//! Each limit is one number: the time by which all that was taken is paid for (virtual scheduling,
//! as in ATM's cell rate algorithm). Taking is one atomic step that moves it on by what a request
//! costs in time; it is never further back than the burst allows, and the request is due when it is
//! paid for:
//!
//! ```text
//!   paid' = max(paid, now − max(burst, cost)) + cost        due = paid'
//! ```
//!
//! So over any time `t` one limit gives at most `max(burst, longest request) + t`, all in time at
//! the limit's rate. Where requests and bytes are both limited the later of two places counts, and
//! to the other limit one request a core may be late: that many more fit in.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use model::Limits;
use rt::Time;

const SECOND_NS: u64 = 1_000_000_000;

/// The limits of an LU and what was used of them.
#[derive(Default)]
pub struct Budget {
    rules: Rules,
    requests: Paid,
    bytes: Paid,
    held: Counts,
}

/// How many requests were held, and for how long altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub requests: u64,
    pub time: Duration,
}

/// Mostly read: kept apart from what every request writes.
#[derive(Default)]
#[repr(align(64))]
struct Rules {
    is_set: AtomicBool,
    /// Changes with the rules; places by former ones are void.
    version: AtomicU32,
    /// Zero: no limit.
    iops: AtomicU64,
    bandwidth: AtomicU64,
    burst_ns: AtomicU64,
}

/// A time up to which everything is paid for, in nanoseconds of the machine's clock.
#[derive(Default)]
#[repr(align(64))]
struct Paid(AtomicU64);

#[derive(Default)]
#[repr(align(64))]
struct Counts {
    requests: AtomicU64,
    time_ns: AtomicU64,
}

/// What a request costs in time, by each of the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    requests_ns: u64,
    bytes_ns: u64,
}

/// A place in the budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) due: Time,
    version: u32,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        let budget = Self::default();
        budget.rules.write(limits);
        budget
    }

    /// From now on these are the limits; nothing is saved up, and nothing is owed.
    pub fn set(&self, limits: Limits, now: Time) {
        for paid in [&self.requests, &self.bytes] {
            paid.0.store(now.as_nanos(), Ordering::Relaxed);
        }
        self.rules.write(limits);
    }

    pub fn held(&self) -> Held {
        let Counts { requests, time_ns } = &self.held;
        let time = Duration::from_nanos(time_ns.load(Ordering::Relaxed));
        Held { requests: requests.load(Ordering::Relaxed), time }
    }

    /// Whether anything is limited.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.rules.is_set.load(Ordering::Relaxed)
    }

    pub(super) fn is_current(&self, place: Place) -> bool {
        place.version == self.rules.version.load(Ordering::Acquire)
    }

    pub(super) fn cost(&self, bytes: u64) -> Cost {
        let Rules { iops, bandwidth, .. } = &self.rules;
        Cost { requests_ns: time_of(1, iops), bytes_ns: time_of(bytes, bandwidth) }
    }

    /// Takes what a request costs.
    pub(super) fn place(&self, cost: Cost, now: Time) -> Place {
        let version = self.rules.version.load(Ordering::Acquire);
        let burst = self.rules.burst_ns.load(Ordering::Relaxed);
        let due = |paid: &Paid, cost| if cost == 0 { 0 } else { paid.take(cost, now, burst) };
        let due = due(&self.requests, cost.requests_ns).max(due(&self.bytes, cost.bytes_ns));
        Place { due: Time::from_nanos(due), version }
    }

    pub(super) fn count_held(&self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.held.requests.fetch_add(1, Ordering::Relaxed);
        self.held.time_ns.fetch_add(time_ns, Ordering::Relaxed);
    }
}

impl Rules {
    fn write(&self, limits: Limits) {
        let iops = limits.iops.map_or(0, u64::from);
        let bandwidth = limits.bandwidth.map_or(0, |it| it.bytes());
        self.iops.store(iops, Ordering::Relaxed);
        self.bandwidth.store(bandwidth, Ordering::Relaxed);
        self.burst_ns.store(u64::from(limits.burst_ms()) * 1_000_000, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        self.is_set.store(iops > 0 || bandwidth > 0, Ordering::Release);
    }
}

impl Paid {
    /// When this is paid for.
    fn take(&self, cost: u64, now: Time, burst: u64) -> u64 {
        let floor = now.as_nanos().saturating_sub(burst.max(cost));
        let next = |paid: u64| paid.max(floor).saturating_add(cost);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| Some(next(it)));
        next(before.unwrap_or_else(|paid| paid))
    }
}

/// How long a rate takes for this many.
fn time_of(count: u64, rate: &AtomicU64) -> u64 {
    match rate.load(Ordering::Relaxed) {
        0 => 0,
        rate => {
            let time_ns = u128::from(count) * u128::from(SECOND_NS) / u128::from(rate);
            u64::try_from(time_ns).unwrap_or(u64::MAX)
        }
    }
}
