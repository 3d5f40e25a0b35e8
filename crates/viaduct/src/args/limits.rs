//! How limits are written: a number or `off`, times as people say them.

use std::str::FromStr;

use clap::Args;
use model::{Limits, LimitsChange, Size};

/// What an LU may take at most.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitArgs {
    /// Requests a second that the LU is given, of all its clients together; off: no limit
    #[arg(long, value_name = "N|off")]
    pub iops: Option<Iops>,
    /// Bytes a second that the LU is given, like 100M; off: no limit
    #[arg(long, value_name = "SIZE|off")]
    pub bandwidth: Option<Bandwidth>,
    /// For how long an LU that asks for nothing saves up, like 500ms or 2s [default: 100ms]
    #[arg(long, value_name = "TIME|default")]
    pub burst: Option<Burst>,
}

/// 0 stands for no limit in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iops(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth(pub Size);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst(pub u32);

impl LimitArgs {
    pub fn change(self) -> LimitsChange {
        LimitsChange {
            iops: self.iops.map(|it| it.0),
            bandwidth: self.bandwidth.map(|it| it.0),
            burst_ms: self.burst.map(|it| it.0),
        }
    }

    /// The limits of an LU that is made.
    pub fn limits(self) -> Limits {
        Limits::default().changed(self.change())
    }

    pub fn is_empty(self) -> bool {
        self.change() == LimitsChange::default()
    }
}

impl FromStr for Iops {
    type Err = String;

    fn from_str(text: &str) -> Result<Iops, String> {
        match text {
            "off" => Ok(Iops(0)),
            _ => text.parse().map(Iops).map_err(|_| {
                format!("'{text}' is no number of requests a second; write one, or off")
            }),
        }
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Bandwidth, String> {
        match text {
            "off" => Ok(Bandwidth(Size::ZERO)),
            _ => {
                let size = text.strip_suffix("/s").unwrap_or(text);
                size.parse().map(Bandwidth).map_err(|error| format!("{error}; or off"))
            }
        }
    }
}

impl FromStr for Burst {
    type Err = String;

    fn from_str(text: &str) -> Result<Burst, String> {
        let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(number_end);
        let scale = match unit {
            "ms" => Some(1),
            "s" => Some(1000),
            "min" => Some(60_000),
            _ => None,
        };
        let time_ms = number.parse::<u32>().ok().zip(scale);
        let time_ms = time_ms.and_then(|(number, scale)| number.checked_mul(scale));
        match (text, time_ms) {
            ("default", _) => Ok(Burst(0)),
            (_, Some(time_ms)) => Ok(Burst(time_ms)),
            _ => Err(format!("'{text}' is no time; write it like 500ms or 2s, or default")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_off() {
        assert_eq!("off".parse(), Ok(Iops(0)));
        assert_eq!("500".parse(), Ok(Iops(500)));
        assert_eq!("100M/s".parse(), Ok(Bandwidth(Size::mib(100))));
        assert_eq!("off".parse(), Ok(Bandwidth(Size::ZERO)));
        let burst = |text: &str| text.parse::<Burst>();
        assert_eq!((burst("500ms"), burst("2s")), (Ok(Burst(500)), Ok(Burst(2000))));
        assert_eq!((burst("1min"), burst("default")), (Ok(Burst(60_000)), Ok(Burst(0))));
        for wrong in ["5", "s", "1.5s", "99999999999s", "4294967s"] {
            assert_eq!(burst(wrong).is_ok(), wrong == "4294967s", "{wrong}");
        }
        assert!("-1".parse::<Iops>().is_err() && "100MB".parse::<Bandwidth>().is_err());
    }
}
