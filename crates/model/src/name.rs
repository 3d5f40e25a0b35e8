//! Names: parsed once at the edge, valid ever after. Each kind is a type of its own, so that an LU
//! is never mapped to an LU.
//!
//! An LU's name is for people and file names: letters, digits, `.`, `_` and `-`. A client's name
//! also becomes the last part of its iSCSI target name, and there only lower-case letters, digits,
//! `.` and `-` exist (RFC 3722), so a client's name is held to that from the start. An iSCSI name
//! is kept in its normal form, small letters: equal means equal.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{NAME_BYTES_MAX, QUALIFIED_NAME_BYTES_MAX};

/// Why a name was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name of {what} is empty; give it 1 to {NAME_BYTES_MAX} characters")]
    Empty { what: &'static str },
    #[error("{what} name '{name}' has {length} bytes; at most {max} are allowed")]
    TooLong { what: &'static str, name: String, length: usize, max: usize },
    #[error("{what} name '{name}' has {found:?} in it; use only {allowed}")]
    Character { what: &'static str, name: String, found: char, allowed: &'static str },
    #[error("{what} name '{name}' must begin and end with a letter or digit")]
    Ends { what: &'static str, name: String },
    #[error("'{name}' is not {what}; it must look like {example}")]
    Form { what: &'static str, name: String, example: &'static str },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $normal:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $type(String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                let name = $normal(name);
                $check(&name)?;
                Ok(Self(name))
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::try_from(name.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of an LU or a drive: unique in its cluster.
    LuName,
    std::convert::identity::<String>,
    |name| check_plain(name, "LU", "letters, digits, '.', '_' and '-'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })
);

name_type!(
    /// The name of a pool: unique in its cluster, and in the labels of its disks.
    PoolName,
    std::convert::identity::<String>,
    |name| check_plain(name, "pool", "letters, digits, '.', '_' and '-'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })
);

name_type!(
    /// The name of a failure group of a pool.
    GroupName,
    std::convert::identity::<String>,
    |name| check_plain(name, "failure group", "letters, digits, '.', '_' and '-'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })
);

name_type!(
    /// The name of a snapshot: unique among those of its LU.
    SnapshotName,
    std::convert::identity::<String>,
    |name| check_plain(name, "snapshot", "letters, digits, '.', '_' and '-'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })
);

name_type!(
    /// The name of a medium: unique in its library.
    MediumName,
    std::convert::identity::<String>,
    |name| check_plain(name, "medium", "letters, digits, '.', '_' and '-'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })
);

name_type!(
    /// The name of a client: unique in its cluster.
    ClientName,
    std::convert::identity::<String>,
    |name| check_plain(name, "client", "lower-case letters, digits, '.' and '-'", |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-')
    })
);

name_type!(
    /// An iSCSI initiator name in one of its three forms.
    Iqn,
    |name: String| name.to_ascii_lowercase(),
    |name| check_qualified(name, "an iSCSI name", "iqn.2004-10.org.example:host", |name| {
        let has_type = ["iqn.", "eui.", "naa."].iter().any(|it| name.starts_with(it));
        has_type && name.chars().all(is_iscsi_character)
    })
);

name_type!(
    /// An NVMe host name.
    Nqn,
    std::convert::identity::<String>,
    |name| check_qualified(name, "an NVMe name", "nqn.2014-08.org.example:host", |name| {
        name.starts_with("nqn.")
    })
);

/// RFC 7143 4.2.7.1, and `_`, which people give their hosts and every initiator takes.
fn is_iscsi_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | ':' | '_')
}

fn check_plain(
    name: &str,
    what: &'static str,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    check_length(name, what, NAME_BYTES_MAX)?;
    if let Some(found) = name.chars().find(|c| !is_allowed(*c)) {
        return Err(NameError::Character { what, name: name.to_owned(), found, allowed });
    }
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !is_end(name.chars().next()) || !is_end(name.chars().next_back()) {
        return Err(NameError::Ends { what, name: name.to_owned() });
    }
    Ok(())
}

fn check_qualified(
    name: &str,
    what: &'static str,
    example: &'static str,
    has_form: impl Fn(&str) -> bool,
) -> Result<(), NameError> {
    check_length(name, what, QUALIFIED_NAME_BYTES_MAX)?;
    let is_plain = name.chars().all(|c| c.is_ascii_graphic());
    if !has_form(name) || name.len() < 8 || !is_plain {
        return Err(NameError::Form { what, name: name.to_owned(), example });
    }
    Ok(())
}

fn check_length(name: &str, what: &'static str, max: usize) -> Result<(), NameError> {
    if name.len() <= max {
        return Ok(());
    }
    Err(NameError::TooLong { what, name: name.to_owned(), length: name.len(), max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_taken() {
        for name in ["a", "web1", "db-01.data", "LPAR1_root", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(name.parse::<LuName>().unwrap().as_str(), name);
        }
        for name in ["vm1", "web.example", "a-b"] {
            assert_eq!(name.parse::<ClientName>().unwrap().as_str(), name);
        }
        assert!("iqn.1993-08.org.debian:01:abc".parse::<Iqn>().is_ok());
        let capitals: Iqn = "IQN.1993-08.org.Debian:01:ABC".parse().unwrap();
        assert_eq!(capitals.as_str(), "iqn.1993-08.org.debian:01:abc");
        assert!("nqn.2014-08.org.nvmexpress:uuid:1".parse::<Nqn>().is_ok());
    }

    #[test]
    fn names_that_are_refused_say_why() {
        let lu = |name: &str| name.parse::<LuName>().unwrap_err().to_string();
        assert_eq!(lu(""), "the name of LU is empty; give it 1 to 63 characters");
        assert_eq!(
            lu("a/b"),
            "LU name 'a/b' has '/' in it; use only letters, digits, '.', '_' and '-'"
        );
        assert_eq!(lu("..")[..12], *"LU name '..'");
        assert!(lu("-rf").contains("begin and end"));
        assert!(lu(&"x".repeat(64)).contains("64 bytes"));
        assert!(lu("naïve").contains("'ï'"));
        assert!("VM1".parse::<ClientName>().unwrap_err().to_string().contains("lower-case"));
        assert!("vm_1".parse::<ClientName>().is_err());
        assert!("eui".parse::<Iqn>().is_err());
        for name in ["iqn.2004-10.org:a b", "iqn.2004-10.org:a,i,0x1", "iqn.2004-10.org/a"] {
            assert!(name.parse::<Iqn>().is_err(), "{name}");
        }
        assert!("iqn.2004-10.org:x".parse::<Nqn>().is_err());
    }

    #[test]
    fn json_goes_through_the_same_check() {
        assert!(serde_json::from_str::<LuName>("\"ok\"").is_ok());
        assert!(serde_json::from_str::<LuName>("\"../etc\"").is_err());
    }
}
