//! `key=value` pairs (RFC 7143, 6.1): read with every length bounded, written, and the number and
//! binary forms of values.

use super::error::Violation;

/// Longest key name (6.1: key-name).
pub const KEY_BYTES_MAX: usize = 63;
/// Longest value: a large binary value of 1024 bytes in hexadecimal (6.1).
pub const VALUE_BYTES_MAX: usize = 2 + 2 * BINARY_BYTES_MAX;
/// Longest binary value (6.1: large-binary-value).
pub const BINARY_BYTES_MAX: usize = 1024;
/// Most pairs in one request, however many PDUs it takes.
pub const PAIRS_MAX: usize = 128;
/// Longest text of one request, however many PDUs it takes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The pairs of a request, in their order.
pub fn parse(text: &[u8]) -> Result<Vec<(&str, &str)>, Violation> {
    let most = pairs(text).take(PAIRS_MAX + 1).collect::<Result<Vec<_>, _>>()?;
    if most.len() > PAIRS_MAX {
        return Err(Violation::TextPairs { max: PAIRS_MAX });
    }
    Ok(most)
}

/// The pairs of any text, however many they are.
pub fn pairs(text: &[u8]) -> impl Iterator<Item = Result<(&str, &str), Violation>> {
    let is_ended = text.last().is_none_or(|byte| *byte == 0);
    let unended = (!is_ended).then_some(Err(Violation::TextUnterminated));
    // Some initiators pad the text itself with NULs.
    let all = text.split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
    unended.into_iter().chain(all.map(parse_pair))
}

fn parse_pair(pair: &[u8]) -> Result<(&str, &str), Violation> {
    let pair = std::str::from_utf8(pair).map_err(|_| Violation::TextEncoding)?;
    let (key, value) = pair.split_once('=').ok_or(Violation::TextPair)?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Violation::TextKey { bytes: key.len() });
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(Violation::TextValue { bytes: value.len(), max: VALUE_BYTES_MAX });
    }
    Ok((key, value))
}

/// Appends a pair.
pub fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A numerical value, decimal or hexadecimal (6.1: numerical-value).
pub fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        None if value.bytes().all(|b| b.is_ascii_digit()) => value.parse().ok(),
        _ => None,
    }
}

/// A binary value, hexadecimal or base64 (6.1: large-binary-value), of at most
/// [`BINARY_BYTES_MAX`] bytes.
pub fn binary(value: &str) -> Option<Vec<u8>> {
    let prefix = value.get(..2)?;
    let digits = &value.as_bytes()[2..];
    let bytes = match prefix {
        "0x" | "0X" => from_hex(digits)?,
        "0b" | "0B" => from_base64(digits)?,
        _ => return None,
    };
    (bytes.len() <= BINARY_BYTES_MAX).then_some(bytes)
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.map(|digit| char::from(DIGITS[usize::from(digit)]));
    "0x".chars().chain(digits).collect()
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    // An odd number of digits stands for a number whose first digit is zero.
    let (first, pairs) = digits.split_at(digits.len() % 2);
    let mut bytes: Vec<u8> = first.iter().map(digit).collect::<Option<_>>()?;
    for pair in pairs.chunks_exact(2) {
        bytes.push(digit(&pair[0])? << 4 | digit(&pair[1])?);
    }
    Some(bytes)
}

fn from_base64(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(4) {
        return None;
    }
    let unpadded = digits.len() - digits.iter().rev().take(2).take_while(|b| **b == b'=').count();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits[..unpadded].chunks(4) {
        let mut word = 0_u32;
        for byte in group {
            word = word << 6 | base64_digit(*byte)?;
        }
        word <<= 6 * (4 - group.len()) + 8;
        bytes.extend_from_slice(&word.to_be_bytes()[..group.len() - 1]);
    }
    Some(bytes)
}

fn base64_digit(byte: u8) -> Option<u32> {
    let digit = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_in_order_and_values_may_hold_the_sign() {
        let pairs = parse(b"A=1\0X-b=c=d\0E=\0").unwrap();
        assert_eq!(pairs, [("A", "1"), ("X-b", "c=d"), ("E", "")]);
        assert_eq!(parse(b"").unwrap(), []);
        assert_eq!(parse(b"A=1\0\0\0\0").unwrap(), [("A", "1")]);
    }

    #[test]
    fn every_length_is_bounded() {
        let long_key = [vec![b'k'; KEY_BYTES_MAX + 1], b"=v\0".to_vec()].concat();
        assert_eq!(parse(&long_key), Err(Violation::TextKey { bytes: KEY_BYTES_MAX + 1 }));
        let long_value = [b"k=".to_vec(), vec![b'v'; VALUE_BYTES_MAX + 1], vec![0]].concat();
        let bytes = VALUE_BYTES_MAX + 1;
        assert_eq!(parse(&long_value), Err(Violation::TextValue { bytes, max: VALUE_BYTES_MAX }));
        let many = b"k=v\0".repeat(PAIRS_MAX + 1);
        assert_eq!(parse(&many), Err(Violation::TextPairs { max: PAIRS_MAX }));
        assert!(parse(&b"k=v\0".repeat(PAIRS_MAX)).is_ok());
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for (text, violation) in [
            (&b"A=1"[..], Violation::TextUnterminated),
            (b"A\0", Violation::TextPair),
            (b"=1\0", Violation::TextKey { bytes: 0 }),
            (b"A b=1\0", Violation::TextKey { bytes: 3 }),
            (b"A=\xff\0", Violation::TextEncoding),
        ] {
            assert_eq!(parse(text), Err(violation));
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (value, expected) in [
            ("0", Some(0)),
            ("16777215", Some(16_777_215)),
            ("0x10", Some(16)),
            ("4294967296", None),
            ("", None),
            ("+1", None),
            ("0x", None),
            ("0x+1", None),
            ("1~2", None),
        ] {
            assert_eq!(number(value), expected, "{value}");
        }
    }

    #[test]
    fn binary_values_come_in_two_forms() {
        for (value, expected) in [
            ("0x00ff10", Some(vec![0, 255, 16])),
            ("0xabc", Some(vec![0x0a, 0xbc])),
            ("0bTWFu", Some(b"Man".to_vec())),
            ("0bTWE=", Some(b"Ma".to_vec())),
            ("0bTQ==", Some(b"M".to_vec())),
            ("0bT===", None),
            ("0bTQ=", None),
            ("0b", None),
            ("0x", None),
            ("0xg0", None),
            ("12", None),
            ("", None),
            ("0\u{e9}", None),
        ] {
            assert_eq!(binary(value), expected, "{value}");
        }
        assert_eq!(hex(&[0, 255, 16]), "0x00ff10");
        assert_eq!(binary(&hex(&vec![1; BINARY_BYTES_MAX + 1])), None);
    }
}
