//! How the settings of a pool are written: percents and ratios, or `off`.

use std::str::FromStr;

use clap::Args;
use model::PoolSettingsChange;

use super::limits::Bandwidth;

/// When to tell of a pool, and how fast it lets go.
#[derive(Debug, Clone, Copy, Args)]
pub struct SettingArgs {
    /// Percent of it used from which on it is low [default: 85]; off: never
    #[arg(long, value_name = "PERCENT|off")]
    pub warn: Option<Percent>,
    /// Percent of it used from which on it is critical [default: 95]; off: never
    #[arg(long, value_name = "PERCENT|off")]
    pub critical: Option<Percent>,
    /// How many times its size may be promised to LUs, like 2.5 [default: off]; off: any
    #[arg(long, value_name = "RATIO|off")]
    pub overcommit: Option<Ratio>,
    /// Bytes a second that are let go of removed snapshots, like 100M [default: off]; off: as fast
    /// as half of the time allows
    #[arg(long, value_name = "SIZE|off")]
    pub removal_rate: Option<Bandwidth>,
    /// Bytes a second that a scrub reads, like 100M [default: off]; off: as fast as half of the
    /// time allows
    #[arg(long, value_name = "SIZE|off")]
    pub scrub_rate: Option<Bandwidth>,
    /// Bytes a second that go from a disk that leaves to others, like 100M [default: off]; off: any
    #[arg(long, value_name = "SIZE|off")]
    pub move_rate: Option<Bandwidth>,
    /// Bytes a second that go to copies that have missed something, like 100M [default: off]; off:
    /// any
    #[arg(long, value_name = "SIZE|off")]
    pub catch_up_rate: Option<Bandwidth>,
}

/// 0 stands for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u8);

/// In percent; 0 stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(pub u32);

impl SettingArgs {
    pub fn change(self) -> PoolSettingsChange {
        PoolSettingsChange {
            warn_percent: self.warn.map(|it| it.0),
            critical_percent: self.critical.map(|it| it.0),
            overcommit_percent: self.overcommit.map(|it| it.0),
            removal_rate: self.removal_rate.map(|it| it.0),
            scrub_rate: self.scrub_rate.map(|it| it.0),
            move_rate: self.move_rate.map(|it| it.0),
            catch_up_rate: self.catch_up_rate.map(|it| it.0),
        }
    }

    pub fn is_empty(self) -> bool {
        self.change() == PoolSettingsChange::default()
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        if text == "off" {
            return Ok(Percent(0));
        }
        let number = text.strip_suffix('%').unwrap_or(text).parse();
        let is_percent = |number: &u8| (1..=100).contains(number);
        number.ok().filter(is_percent).map(Percent).ok_or_else(|| {
            format!("'{text}' is no percentage; write a number between 1 and 100, or off")
        })
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Ratio, String> {
        if text == "off" {
            return Ok(Ratio(0));
        }
        let wrong = || format!("'{text}' is no ratio; write a number like 2 or 2.5, or off");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain(whole) || !is_plain(part) || part.is_empty() || part.len() > 2 {
            return Err(wrong());
        }
        let hundredths: u32 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let percent = whole.checked_mul(100).and_then(|it| it.checked_add(hundredths));
        percent.filter(|percent| *percent > 0).map(Ratio).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_and_ratios() {
        let percent = |text: &str| text.parse::<Percent>().map(|it| it.0);
        assert_eq!((percent("off"), percent("85"), percent("90%")), (Ok(0), Ok(85), Ok(90)));
        for wrong in ["0", "101", "-1", "many", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        let ratio = |text: &str| text.parse::<Ratio>().map(|it| it.0);
        assert_eq!((ratio("off"), ratio("2"), ratio("2.5")), (Ok(0), Ok(200), Ok(250)));
        assert_eq!((ratio("0.75"), ratio("1.05")), (Ok(75), Ok(105)));
        for wrong in ["0", "2.", ".5", "2.555", "-1", "99999999999", "1e3", ""] {
            assert!(ratio(wrong).is_err(), "{wrong}");
        }
    }
}
