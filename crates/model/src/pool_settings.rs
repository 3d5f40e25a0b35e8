//! [`PoolSettings`]: what of a pool can be changed at any time, and changes nothing on its disks:
//! when an operator is told that it has little left, and how fast work goes on in the background.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::size::Size;

/// From where on a pool has little left, and very little, unless an operator says otherwise.
pub const WARN_PERCENT_DEFAULT: u8 = 85;
pub const CRITICAL_PERCENT_DEFAULT: u8 = 95;

/// More than ten thousand times its size is a typing error.
pub const OVERCOMMIT_PERCENT_MAX: u32 = 1_000_000;

/// Slower than this, nothing comes to its end.
pub const RATE_MIN: Size = Size::mib(1);

/// When an operator is told of a pool, and how fast it works in the background. Nothing is told of
/// what is 0, nor limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSettings {
    /// How many percent of it LUs have when it has little left.
    pub warn_percent: u8,
    /// How many percent of it LUs have when it has very little left.
    pub critical_percent: u8,
    /// How many percent of its size are promised to LUs, by their sizes, when that is too much.
    pub overcommit_percent: u32,
    /// Bytes a second that are let go of removed snapshots; as fast as half of the time allows.
    pub removal_rate: Size,
    /// Bytes a second that a scrub reads; as fast as half of the time allows.
    pub scrub_rate: Size,
    /// Bytes a second that are brought from a disk that leaves to others.
    pub move_rate: Size,
    /// Bytes a second that are brought to copies that have missed something.
    pub catch_up_rate: Size,
}

/// Other settings for a pool: what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSettingsChange {
    #[serde(default)]
    pub warn_percent: Option<u8>,
    #[serde(default)]
    pub critical_percent: Option<u8>,
    #[serde(default)]
    pub overcommit_percent: Option<u32>,
    #[serde(default)]
    pub removal_rate: Option<Size>,
    #[serde(default)]
    pub scrub_rate: Option<Size>,
    #[serde(default)]
    pub move_rate: Option<Size>,
    #[serde(default)]
    pub catch_up_rate: Option<Size>,
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings {
            warn_percent: WARN_PERCENT_DEFAULT,
            critical_percent: CRITICAL_PERCENT_DEFAULT,
            overcommit_percent: 0,
            removal_rate: Size::ZERO,
            scrub_rate: Size::ZERO,
            move_rate: Size::ZERO,
            catch_up_rate: Size::ZERO,
        }
    }
}

impl PoolSettings {
    #[must_use]
    pub fn changed(self, change: PoolSettingsChange) -> PoolSettings {
        let PoolSettingsChange { warn_percent, critical_percent, .. } = change;
        PoolSettings {
            warn_percent: warn_percent.unwrap_or(self.warn_percent),
            critical_percent: critical_percent.unwrap_or(self.critical_percent),
            overcommit_percent: change.overcommit_percent.unwrap_or(self.overcommit_percent),
            removal_rate: change.removal_rate.unwrap_or(self.removal_rate),
            scrub_rate: change.scrub_rate.unwrap_or(self.scrub_rate),
            move_rate: change.move_rate.unwrap_or(self.move_rate),
            catch_up_rate: change.catch_up_rate.unwrap_or(self.catch_up_rate),
        }
    }

    /// Checks each setting by itself, and those that must be in order.
    pub fn validate(&self) -> Result<(), ApiError> {
        let PoolSettings { warn_percent: warn, critical_percent: critical, .. } = *self;
        if let Some(percent) = [warn, critical].iter().find(|percent| **percent > 100) {
            return Err(ApiError::usage(format!("{percent} % of a pool cannot be used")));
        }
        if warn > critical && critical > 0 {
            return Err(ApiError::usage(format!(
                "a pool would be critical at {critical} %, before it is warned of at {warn} %"
            ))
            .then("set both: --warn 85 --critical 95"));
        }
        if self.overcommit_percent > OVERCOMMIT_PERCENT_MAX {
            return Err(ApiError::usage(format!(
                "more than {} times its size cannot be promised of a pool",
                OVERCOMMIT_PERCENT_MAX / 100
            )));
        }
        let rates = [
            ("a removal", self.removal_rate),
            ("a scrub", self.scrub_rate),
            ("a move", self.move_rate),
            ("a catch-up", self.catch_up_rate),
        ];
        let slow = rates.iter().find(|(_, rate)| *rate > Size::ZERO && *rate < RATE_MIN);
        if let Some((what, rate)) = slow {
            return Err(ApiError::usage(format!(
                "{what} rate of {rate} a second: at least {RATE_MIN}, or 0 for any"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays() {
        let settings = PoolSettings::default();
        assert_eq!(settings.changed(PoolSettingsChange::default()), settings);
        let change = PoolSettingsChange {
            warn_percent: Some(0),
            overcommit_percent: Some(250),
            ..Default::default()
        };
        let changed = settings.changed(change);
        assert_eq!((changed.warn_percent, changed.critical_percent), (0, 95));
        assert_eq!(changed.overcommit_percent, 250);
        let text = serde_json::to_string(&changed).unwrap();
        assert_eq!(serde_json::from_str::<PoolSettings>(&text).unwrap(), changed);
        assert_eq!(serde_json::from_str::<PoolSettings>("{}").unwrap(), settings);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |warn_percent, critical_percent, overcommit_percent| {
            let rest = PoolSettings::default();
            PoolSettings { warn_percent, critical_percent, overcommit_percent, ..rest }.validate()
        };
        for (warn, critical) in [(85, 95), (95, 95), (0, 0), (90, 0), (0, 1), (100, 100)] {
            assert_eq!(with(warn, critical, 0), Ok(()), "{warn} {critical}");
        }
        assert!(with(101, 0, 0).unwrap_err().message.starts_with("101 %"));
        assert!(with(90, 80, 0).unwrap_err().message.contains("at 80 %, before"));
        assert!(with(0, 0, OVERCOMMIT_PERCENT_MAX + 1).is_err());
        let slow = PoolSettings { removal_rate: Size::kib(100), ..PoolSettings::default() };
        assert!(slow.validate().unwrap_err().message.contains("at least 1MiB"));
        let slow = PoolSettings { scrub_rate: Size::kib(1), ..PoolSettings::default() };
        assert!(slow.validate().unwrap_err().message.starts_with("a scrub rate of 1KiB"));
        let slow = PoolSettings { catch_up_rate: Size::kib(1), ..PoolSettings::default() };
        assert!(slow.validate().unwrap_err().message.starts_with("a catch-up rate of 1KiB"));
    }
}
