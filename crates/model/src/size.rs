//! [`Size`]: a count of bytes that people type as `10G` or `10GiB` and read back the same way.
//!
//! Units are binary. `10GB` is refused, not guessed at: half of the tools mean 10^9 by it and half
//! mean 2^30, and a disk that is 7 % too small is found out late. What is printed is exact and
//! parses back to the same number. In JSON a size is the number of bytes; a text is taken too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema,
)]
#[schema(value_type = u64, example = 10737418240u64)]
pub struct Size(pub u64);

/// Why a size was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("'{0}' is not a size; write it like 20G, 512MiB or 4096 (bytes)")]
    Form(String),
    #[error("'{0}' is ambiguous: write {1}iB for 1024-based units, or the number of bytes")]
    Decimal(String, String),
    #[error("'{0}' is not a whole number of bytes")]
    Fraction(String),
    #[error("'{0}' is more than 16 EiB")]
    TooLarge(String),
}

const UNITS: [(char, u32); 6] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50), ('E', 60)];

/// More digits than this after the point mean nothing even in EiB.
const FRACTION_DIGITS_MAX: usize = 18;

/// Digits after the point that a printed size may have before a smaller unit is taken.
const PRINTED_FRACTION_DIGITS: u32 = 2;

impl Size {
    pub const ZERO: Size = Size(0);

    pub const fn kib(count: u64) -> Size {
        Size(count << 10)
    }

    pub const fn mib(count: u64) -> Size {
        Size(count << 20)
    }

    pub const fn gib(count: u64) -> Size {
        Size(count << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub const fn is_multiple_of(self, unit: u64) -> bool {
        self.0.is_multiple_of(unit)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let form = || SizeError::Form(text.to_owned());
        let number_end = text.find(|c: char| c != '.' && !c.is_ascii_digit());
        let (number, unit) = text.split_at(number_end.unwrap_or(text.len()));
        let shift = parse_unit(text, number, unit.trim_start())?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_number = !whole.is_empty() && !fraction.contains('.') && !number.ends_with('.');
        if !is_number || fraction.len() > FRACTION_DIGITS_MAX {
            return Err(form());
        }
        let too_large = || SizeError::TooLarge(text.to_owned());
        let digits: u128 = parse_digits(whole, fraction).ok_or_else(too_large)?;
        let scaled = digits.checked_mul(1 << shift).ok_or_else(too_large)?;
        let divisor = 10u128.pow(fraction.len() as u32);
        if !scaled.is_multiple_of(divisor) {
            return Err(SizeError::Fraction(text.to_owned()));
        }
        u64::try_from(scaled / divisor).map(Size).map_err(|_| too_large())
    }
}

fn parse_digits(whole: &str, fraction: &str) -> Option<u128> {
    // 20 digits of whole bytes and 18 after the point stay below 2^128.
    if whole.len() > 20 {
        return None;
    }
    [whole, fraction].concat().parse().ok()
}

fn parse_unit(text: &str, number: &str, unit: &str) -> Result<u32, SizeError> {
    let mut letters = unit.chars();
    let first = match letters.next() {
        None => return Ok(0),
        Some(c) => c.to_ascii_uppercase(),
    };
    if first == 'B' && letters.as_str().is_empty() {
        return Ok(0);
    }
    let shift = UNITS.iter().find(|(letter, _)| *letter == first).map(|(_, shift)| *shift);
    match (shift, letters.as_str()) {
        (Some(shift), "" | "i" | "iB" | "ib" | "IB") => Ok(shift),
        (Some(_), "B" | "b") => {
            Err(SizeError::Decimal(text.to_owned(), format!("{number}{first}")))
        }
        _ => Err(SizeError::Form(text.to_owned())),
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10u128.pow(PRINTED_FRACTION_DIGITS);
        for (letter, shift) in UNITS.iter().rev() {
            let scaled = u128::from(self.0) * scale;
            if self.0 >> shift == 0 || !scaled.is_multiple_of(1 << shift) {
                continue;
            }
            let value = scaled >> shift;
            let mut text = (value / scale).to_string();
            if !value.is_multiple_of(scale) {
                let digits = format!("{:02}", value % scale);
                text = format!("{text}.{}", digits.trim_end_matches('0'));
            }
            return f.pad(&format!("{text}{letter}iB"));
        }
        f.pad(&format!("{}B", self.0))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a size: a number of bytes, or a text like \"10GiB\"")]
        enum Form {
            Bytes(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Bytes(bytes) => Ok(Size(bytes)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_that_people_type() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10g", 10 << 30),
            ("10 GiB", 10 << 30),
            ("1.5T", 3 << 39),
            ("0.25K", 256),
            ("16777215T", 16_777_215 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_refused_say_why() {
        for text in ["", "G", ".5G", "5.G", "-1", "1e9", "10X", "10GiBs", "1.2.3G", "٣G"] {
            assert!(matches!(text.parse::<Size>(), Err(SizeError::Form(_))), "{text}");
        }
        assert_eq!(
            "10GB".parse::<Size>().unwrap_err().to_string(),
            "'10GB' is ambiguous: write 10GiB for 1024-based units, or the number of bytes"
        );
        assert!(matches!("0.3".parse::<Size>(), Err(SizeError::Fraction(_))));
        assert!(matches!("16E".parse::<Size>(), Err(SizeError::TooLarge(_))));
        assert!(matches!("99999999999999999999999".parse::<Size>(), Err(SizeError::TooLarge(_))));
    }

    #[test]
    fn sizes_print_in_the_largest_unit_that_is_exact() {
        let cases = [
            (0, "0B"),
            (512, "512B"),
            (1 << 20, "1MiB"),
            (3 << 29, "1.5GiB"),
            (5 << 28, "1.25GiB"),
            ((1 << 30) + 512, "1048576.5KiB"),
            ((1 << 30) + 1, "1073741825B"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}|", Size::gib(10)), "   10GiB|");
    }

    #[test]
    fn json_takes_both_and_gives_bytes() {
        assert_eq!(serde_json::from_str::<Size>("4096").unwrap(), Size(4096));
        assert_eq!(serde_json::from_str::<Size>("\"4KiB\"").unwrap(), Size(4096));
        assert_eq!(serde_json::to_string(&Size::kib(4)).unwrap(), "4096");
        assert!(serde_json::from_str::<Size>("-1").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(bytes in any::<u64>(), shift in 0u32..64) {
            let size = Size(bytes >> shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Size>();
        }
    }
}
