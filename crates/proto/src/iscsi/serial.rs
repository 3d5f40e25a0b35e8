//! Sequence numbers of 32 bits that wrap: comparison as in RFC 1982 (RFC 7143, 4.2.2).

/// Whether `a` comes before `b`.
pub const fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether `number` lies in `first..=last`; the empty window is `last + 1 == first`.
pub const fn is_within(number: u32, first: u32, last: u32) -> bool {
    !is_before(number, first) && !is_before(last, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_wrap() {
        assert!(is_before(u32::MAX, 0) && is_before(5, 6) && !is_before(6, 6));
        assert!(is_within(0, u32::MAX, 3) && is_within(u32::MAX, u32::MAX, 3));
        assert!(!is_within(4, u32::MAX, 3) && !is_within(u32::MAX - 1, u32::MAX, 3));
        // 4.2.2.1: MaxCmdSN - ExpCmdSN + 1 = 0 closes the window.
        assert!(!is_within(7, 7, 6) && !is_within(6, 7, 6));
    }
}
