//! How fast something goes on in the background: for all LUs of a pool together at most at the rate
//! that its settings say, and in any case no more than half of the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::Size;
use rt::{Core, Time};

/// Extents of a layer that are let go at a time.
const EXTENTS_AT_A_TIME: u64 = 64;

/// With a rate it is so many times a second, as long as that is a whole extent.
const TIMES_A_SECOND: u64 = 10;

/// When to look again whether the rate is another one.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Least that is done at a time.
const BYTES_MIN: u64 = 64 << 10;

/// All who do one thing to a pool go by this one.
pub(super) struct Pace {
    /// Bytes a second; 0: any.
    rate: AtomicU64,
    /// Until then what was done has used the rate up.
    used_until: Mutex<Time>,
}

impl Pace {
    pub(super) fn new(rate: Size) -> Pace {
        Pace { rate: AtomicU64::new(rate.bytes()), used_until: Mutex::default() }
    }

    /// What counts from the next time on.
    pub(super) fn set(&self, rate: Size) {
        self.rate.store(rate.bytes(), Ordering::Relaxed);
        *self.used_until.lock().unwrap_or_else(PoisonError::into_inner) = Time::default();
    }

    /// How many bytes are done at a time, at most so many.
    pub(super) fn bytes(&self, most: u64) -> u64 {
        match self.rate.load(Ordering::Relaxed) {
            0 => most,
            rate => (rate / TIMES_A_SECOND).clamp(BYTES_MIN, most),
        }
    }

    /// How many extents of this size are let go at a time.
    pub(super) fn extents(&self, extent: u64) -> usize {
        match self.rate.load(Ordering::Relaxed) {
            0 => EXTENTS_AT_A_TIME as usize,
            rate => (rate / TIMES_A_SECOND / extent).clamp(1, EXTENTS_AT_A_TIME) as usize,
        }
    }

    /// Waits after so many bytes, which were begun then.
    pub(super) async fn rest(&self, core: &Core, bytes: u64, began: Time) {
        let now = core.now();
        let took = now - began;
        core.sleep(self.wait(now, bytes).max(took)).await;
    }

    /// Waits after so many bytes for nothing but the rate, which may change meanwhile, as long as
    /// it goes on.
    pub(super) async fn keep_rate(&self, core: &Core, bytes: u64, goes_on: impl Fn() -> bool) {
        self.wait(core.now(), bytes);
        while goes_on() {
            let until = *self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
            let now = core.now();
            if now >= until {
                return;
            }
            core.sleep((until - now).min(LOOK_AGAIN)).await;
        }
    }

    fn wait(&self, now: Time, bytes: u64) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        let mut used_until = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
        *used_until = (*used_until).max(now) + cost;
        *used_until - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: u64 = 256 << 10;

    #[test]
    fn a_rate_is_kept_by_all_together() {
        let pace = Pace::new(Size::mib(100));
        let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
        assert_eq!(pace.extents(EXTENT), 40);
        assert_eq!(pace.wait(at(1000), 10 << 20), Duration::from_millis(100));
        // Another one of the pool, at the same moment.
        assert_eq!(pace.wait(at(1000), 10 << 20), Duration::from_millis(200));
        // What nobody used in time is not saved up.
        assert_eq!(pace.wait(at(5000), 10 << 20), Duration::from_millis(100));
        pace.set(Size::ZERO);
        assert_eq!((pace.wait(at(5000), 10 << 20), pace.extents(EXTENT)), (Duration::ZERO, 64));
    }

    #[test]
    fn it_goes_in_small_steps_but_in_whole_extents() {
        assert_eq!(Pace::new(Size::mib(1)).extents(EXTENT), 1);
        assert_eq!(Pace::new(Size::gib(100)).extents(EXTENT), 64);
        let bytes = |rate| Pace::new(rate).bytes(4 << 20);
        assert_eq!(
            [Size::ZERO, Size::mib(10), Size::gib(1)].map(bytes),
            [4 << 20, 1 << 20, 4 << 20]
        );
    }
}
