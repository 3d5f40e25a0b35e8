//! Eight bytes that address a logical unit (SAM-5 4.7).
//!
//! Numbers below 256 are sent in the peripheral device method, up to 16,383 in the flat space
//! method; both are understood for every number they can hold, and so is the extended flat space.

/// The eight bytes as a transport carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalUnitNumber(pub [u8; 8]);

/// The highest number of the flat space method, and so of a LUN of ours.
pub const LUN_MAX: u32 = 0x3fff;

impl LogicalUnitNumber {
    /// The well-known logical unit that only reports LUNs (SPC-4 8.2).
    pub const REPORT_LUNS: Self = Self([0xc1, 0x01, 0, 0, 0, 0, 0, 0]);

    /// The shortest address of a number.
    pub const fn new(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let method = if number < 256 { 0 } else { 0x40 };
        Self([method | (high & 0x3f), low, 0, 0, 0, 0, 0, 0])
    }

    /// The number of a unit addressed directly; None where the address means something else: a
    /// well-known unit, a bus, a further level.
    pub const fn number(self) -> Option<u32> {
        let [first, second, third, fourth, rest @ ..] = self.0;
        let further = third != 0 || fourth != 0;
        if u32::from_be_bytes(rest) != 0 {
            return None;
        }
        match first >> 6 {
            // Bus 0 is the unit itself.
            0 if first == 0 && !further => Some(second as u32),
            1 if !further => Some(((first & 0x3f) as u32) << 8 | second as u32),
            // Extended, four bytes, flat space (SAM-5 4.7.7.4).
            3 if first == 0xd2 => Some(u32::from_be_bytes([0, second, third, fourth])),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_in_each_method() {
        for number in [0, 1, 255, 256, 0x3fff] {
            assert_eq!(LogicalUnitNumber::new(number).number(), Some(u32::from(number)));
        }
        assert_eq!(LogicalUnitNumber::new(256).0[..2], [0x41, 0]);
        assert_eq!(LogicalUnitNumber([0x40, 7, 0, 0, 0, 0, 0, 0]).number(), Some(7));
        assert_eq!(LogicalUnitNumber([0xd2, 1, 0, 0, 0, 0, 0, 0]).number(), Some(0x1_0000));
    }

    #[test]
    fn other_addresses_are_no_numbers() {
        for bytes in [
            LogicalUnitNumber::REPORT_LUNS.0,
            [1, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 1, 0, 0, 0, 0],
            [0x80, 1, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(LogicalUnitNumber(bytes).number(), None, "{bytes:?}");
        }
    }
}
