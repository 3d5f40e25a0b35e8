//! iSCSI names (RFC 7143, 4.2.7): who an initiator or target is.

use wire::iscsi::NAME_BYTES_MAX;

/// The types of names there are (4.2.7.2).
const TYPES: [&str; 3] = ["iqn.", "eui.", "naa."];

/// The name in its normal form, or nothing when it is none. ASCII capitals become small letters;
/// what else stringprep would do is the sender's duty (4.2.7.2). ASCII characters other than
/// letters, digits, `-`, `.` and `:` stand in no name; `_` does in the names that people give their
/// hosts, and harms nobody.
pub fn normalize(name: &str) -> Option<String> {
    let is_allowed = |c: char| match c {
        'a'..='z' | '0'..='9' | '-' | '.' | ':' | '_' => true,
        _ => !c.is_ascii() && !c.is_control() && !c.is_whitespace(),
    };
    let name = name.to_ascii_lowercase();
    let has_type = TYPES.iter().any(|it| name.len() > it.len() && name.starts_with(it));
    let is_name = has_type && name.len() <= NAME_BYTES_MAX && name.chars().all(is_allowed);
    is_name.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_made_small() {
        for (name, expected) in [
            ("iqn.2026-11.org.viaduct:a", Some("iqn.2026-11.org.viaduct:a")),
            ("IQN.2026-11.org.Viaduct:A", Some("iqn.2026-11.org.viaduct:a")),
            ("eui.02004567A425678D", Some("eui.02004567a425678d")),
            ("naa.52004567ba64678d", Some("naa.52004567ba64678d")),
            ("iqn.2026-11.org.viaduct:\u{e9}", Some("iqn.2026-11.org.viaduct:\u{e9}")),
            ("iqn.", None),
            ("", None),
            ("host", None),
            ("iqn.a b", None),
            ("iqn.a/../b", None),
            ("iqn.a_b", Some("iqn.a_b")),
            ("iqn.a\u{85}", None),
            ("iqn.a,i,0x1", None),
        ] {
            assert_eq!(normalize(name).as_deref(), expected, "{name}");
        }
        assert!(normalize(&format!("iqn.{}", "a".repeat(219))).is_some());
        assert!(normalize(&format!("iqn.{}", "a".repeat(220))).is_none());
    }
}
