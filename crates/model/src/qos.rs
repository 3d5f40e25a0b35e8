//! [`Limits`]: what an LU may take of the node at most; and how they are changed.
//!
//! An LU that has asked for less than it may saves up for a moment: that is its burst, told as a
//! time because it then fits requests and bytes alike. Over any time `t` an LU is given at most
//! what its rate makes of `burst + t`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::size::Size;

/// Below these a client that fills its queue waits longer than its own time-outs are.
pub const IOPS_MIN: u32 = 10;
pub const BANDWIDTH_MIN: Size = Size::mib(1);

/// Above these there is nothing that a limit would slow down.
pub const IOPS_MAX: u32 = 100_000_000;
pub const BANDWIDTH_MAX: Size = Size::gib(1 << 10);

/// Less than this is lost to the time that waking a core takes.
pub const BURST_MS_MIN: u32 = 10;
pub const BURST_MS_MAX: u32 = 3_600_000;

/// What an LU saves up where nothing is said.
pub const BURST_MS_DEFAULT: u32 = 100;

/// What an LU may take at most, all its clients and all kinds of requests together. Flushes are
/// never held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// Bytes of data a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Size>,
    /// How long an LU that asks for nothing saves up; 100 ms when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_ms: Option<u32>,
}

/// Other limits for an LU: what is absent stays, and 0 takes a limit away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsChange {
    #[serde(default)]
    pub iops: Option<u32>,
    #[serde(default)]
    pub bandwidth: Option<Size>,
    #[serde(default)]
    pub burst_ms: Option<u32>,
}

impl Limits {
    /// Nothing is limited.
    pub const fn is_none(&self) -> bool {
        self.iops.is_none() && self.bandwidth.is_none() && self.burst_ms.is_none()
    }

    pub fn burst_ms(&self) -> u32 {
        self.burst_ms.unwrap_or(BURST_MS_DEFAULT)
    }

    #[must_use]
    pub fn changed(self, change: LimitsChange) -> Limits {
        let new = |change: Option<u32>, now| change.map_or(now, |to| (to > 0).then_some(to));
        let LimitsChange { iops, bandwidth, burst_ms } = change;
        Limits {
            iops: new(iops, self.iops),
            bandwidth: bandwidth.map_or(self.bandwidth, |to| (to > Size::ZERO).then_some(to)),
            burst_ms: new(burst_ms, self.burst_ms),
        }
    }

    /// Checks each limit by itself.
    pub fn validate(&self) -> Result<(), ApiError> {
        if let Some(iops) = self.iops.filter(|iops| !(IOPS_MIN..=IOPS_MAX).contains(iops)) {
            let range = format!("between {IOPS_MIN} and {IOPS_MAX}");
            return Err(ApiError::usage(format!("a limit of {iops} requests a second: {range}")));
        }
        let fits = |to: &Size| (BANDWIDTH_MIN..=BANDWIDTH_MAX).contains(to);
        if let Some(bandwidth) = self.bandwidth.filter(|to| !fits(to)) {
            let range = format!("between {BANDWIDTH_MIN} and {BANDWIDTH_MAX}");
            return Err(ApiError::usage(format!("a limit of {bandwidth} a second: {range}")));
        }
        if !(BURST_MS_MIN..=BURST_MS_MAX).contains(&self.burst_ms()) {
            let range = format!("between {BURST_MS_MIN} and {BURST_MS_MAX} ms");
            return Err(ApiError::usage(format!("a burst of {} ms: {range}", self.burst_ms())));
        }
        if self.burst_ms.is_some() && self.iops.is_none() && self.bandwidth.is_none() {
            return Err(ApiError::usage("a burst without a limit means nothing")
                .then("limit the requests or the bytes a second as well"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let limits = Limits { iops: Some(500), bandwidth: None, burst_ms: Some(2000) };
        let change =
            |iops, bandwidth, burst_ms| limits.changed(LimitsChange { iops, bandwidth, burst_ms });
        assert_eq!(change(None, None, None), limits);
        let more = change(None, Some(Size::mib(5)), None);
        assert_eq!((more.iops, more.bandwidth), (Some(500), Some(Size::mib(5))));
        assert!(change(Some(0), Some(Size::ZERO), Some(0)).is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let limits = |iops, bandwidth, burst_ms| Limits { iops, bandwidth, burst_ms }.validate();
        assert_eq!(limits(Some(IOPS_MIN), Some(BANDWIDTH_MIN), Some(BURST_MS_MIN)), Ok(()));
        assert_eq!(limits(None, None, None), Ok(()));
        for (iops, bandwidth, burst_ms) in [
            (Some(9), None, None),
            (None, Some(Size::kib(1023)), None),
            (Some(100), None, Some(9)),
            (None, None, Some(100)),
        ] {
            assert!(limits(iops, bandwidth, burst_ms).is_err());
        }
        let text = serde_json::to_string(&Limits::default()).unwrap();
        assert_eq!(text, "{}");
    }
}
