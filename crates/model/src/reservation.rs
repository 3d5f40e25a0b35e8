//! [`Reservations`] of an LU: who registered with which key, who holds it and how. The words are
//! those of SCSI persistent reservations; NVMe reservations are the same state.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::LuName;
use crate::schema::schema_as;

/// Everything reserved of one LU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reservations {
    /// Counts changes of the registrations (PRGENERATION).
    pub generation: u32,
    /// Kept over a loss of power (APTPL).
    pub through_power_loss: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Who reserved the whole unit with RESERVE, from before there were keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_holder: Option<Nexus>,
    pub registrants: Vec<Registrant>,
}

impl Reservations {
    /// Nobody registered and nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.held.is_none() && self.unit_holder.is_none() && self.registrants.is_empty()
    }
}

/// The persistent reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Held {
    #[serde(rename = "type")]
    pub kind: ReservationType,
    /// None where every registrant holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Nexus>,
}

/// Who uses an LU: an initiator port, and the port of ours that it came through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Nexus {
    /// As its protocol names it: `iqn.1994-05.com.redhat:abc,i,0x00023d000001`.
    pub initiator: String,
    /// Relative target port.
    pub port: u16,
}

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Registrant {
    #[serde(flatten)]
    pub nexus: Nexus,
    pub key: ReservationKey,
}

/// A reservation key, written with all its digits: JSON's numbers would lose some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReservationKey(pub u64);

schema_as!(ReservationKey, String);

/// Why a key was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no reservation key; write 0x and up to 16 hexadecimal digits")]
pub struct KeyError(String);

impl fmt::Display for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#018x}", self.0))
    }
}

impl From<ReservationKey> for String {
    fn from(key: ReservationKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for ReservationKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<ReservationKey, KeyError> {
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        let key = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        key.map(ReservationKey).ok_or(KeyError(text))
    }
}

/// What a reservation keeps others from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationType {
    WriteExclusive,
    ExclusiveAccess,
    WriteExclusiveRegistrantsOnly,
    ExclusiveAccessRegistrantsOnly,
    WriteExclusiveAllRegistrants,
    ExclusiveAccessAllRegistrants,
}

impl fmt::Display for ReservationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ReservationType::WriteExclusive => "write-exclusive",
            ReservationType::ExclusiveAccess => "exclusive-access",
            ReservationType::WriteExclusiveRegistrantsOnly => "write-exclusive-registrants-only",
            ReservationType::ExclusiveAccessRegistrantsOnly => "exclusive-access-registrants-only",
            ReservationType::WriteExclusiveAllRegistrants => "write-exclusive-all-registrants",
            ReservationType::ExclusiveAccessAllRegistrants => "exclusive-access-all-registrants",
        })
    }
}

/// An LU with what is reserved of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReservationView {
    pub lu: LuName,
    #[serde(flatten)]
    pub reservations: Reservations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_all_their_digits() {
        for key in [1, 0x1234_5678_9abc_def0, u64::MAX] {
            let json = serde_json::to_string(&ReservationKey(key)).unwrap();
            assert_eq!(serde_json::from_str::<ReservationKey>(&json).unwrap().0, key);
        }
        assert_eq!(ReservationKey(0xabc).to_string(), "0x0000000000000abc");
        for wrong in ["", "abc", "0x", "0x+1", "0x12345678901234567"] {
            assert!(ReservationKey::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_are_the_same_in_json_and_print() {
        for kind in [
            ReservationType::WriteExclusive,
            ReservationType::ExclusiveAccess,
            ReservationType::WriteExclusiveRegistrantsOnly,
            ReservationType::ExclusiveAccessRegistrantsOnly,
            ReservationType::WriteExclusiveAllRegistrants,
            ReservationType::ExclusiveAccessAllRegistrants,
        ] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
