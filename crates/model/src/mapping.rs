//! [`Mapping`]: which LU or drive a client sees, through which adapter and at which LUN there. The
//! adapter is numbered by a [`Slot`] of its client: 0 and 1 are reserved, 2 to 255 may be used, a
//! slot holds one adapter, and the lowest free one is offered. A vhost-user-blk adapter is one
//! disk, LUN 0; a vhost-user-scsi adapter is a SCSI host of the guest, and an iSCSI adapter the
//! client's target: both have a LUN for each of its LUs and drives.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{LUNS_PER_ADAPTER_MAX, SLOTS_PER_CLIENT_MAX, SLOTS_RESERVED};
use crate::name::{ClientName, LuName};

/// An LU or a drive at a slot of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The name of the LU or the drive.
    pub lu: LuName,
    pub client: ClientName,
    pub via: Via,
    pub slot: Slot,
    /// The logical unit number at that adapter; see [`Via::luns`].
    #[serde(default)]
    pub lun: u16,
    #[serde(default)]
    pub read_only: bool,
}

impl Mapping {
    pub fn adapter(&self) -> AdapterId {
        AdapterId { client: self.client.clone(), slot: self.slot }
    }

    pub fn id(&self) -> MappingId {
        MappingId { adapter: self.adapter(), lun: self.lun }
    }
}

/// The transport of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    VhostUserBlk,
    VhostUserScsi,
    Iscsi,
}

impl Via {
    /// How many LUNs one adapter has.
    pub fn luns(self) -> u16 {
        match self {
            Via::VhostUserBlk => 1,
            Via::VhostUserScsi | Via::Iscsi => LUNS_PER_ADAPTER_MAX,
        }
    }

    /// Whether it carries drives, and not disks only.
    pub fn has_drives(self) -> bool {
        self != Via::VhostUserBlk
    }

    /// Whether clients come through a socket of their own in the file system.
    pub fn has_socket(self) -> bool {
        matches!(self, Via::VhostUserBlk | Via::VhostUserScsi)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Via::VhostUserBlk => "vhost-user-blk",
            Via::VhostUserScsi => "vhost-user-scsi",
            Via::Iscsi => "iscsi",
        })
    }
}

/// `map`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MapRequest {
    /// The name of the LU or the drive.
    pub lu: LuName,
    pub client: ClientName,
    pub via: Via,
    /// When absent: the slot of the client's iSCSI or vhost-user-scsi adapter, if it has one of
    /// that kind, else the lowest free one.
    #[serde(default)]
    pub slot: Option<Slot>,
    /// The lowest free one of the adapter when absent.
    #[serde(default)]
    pub lun: Option<u16>,
    #[serde(default)]
    pub read_only: bool,
}

/// A slot that may hold an adapter.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "u16", into = "u16")]
#[schema(value_type = u16, minimum = 2, maximum = 255)]
pub struct Slot(u16);

/// Why a slot was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    #[error("slot {0} is reserved; use {SLOTS_RESERVED} to {max}", max = SLOTS_PER_CLIENT_MAX - 1)]
    Reserved(u16),
    #[error("slot {0} is too high; use {SLOTS_RESERVED} to {max}", max = SLOTS_PER_CLIENT_MAX - 1)]
    TooHigh(u16),
    #[error("'{0}' is not a slot number")]
    Form(String),
}

impl Slot {
    pub fn number(self) -> u16 {
        self.0
    }

    /// The lowest slot that is not in `taken`, or none when the client is full.
    pub fn lowest_free(taken: &BTreeSet<Slot>) -> Option<Slot> {
        (SLOTS_RESERVED..SLOTS_PER_CLIENT_MAX).map(Slot).find(|slot| !taken.contains(slot))
    }
}

impl TryFrom<u16> for Slot {
    type Error = SlotError;
    fn try_from(number: u16) -> Result<Slot, SlotError> {
        match number {
            ..SLOTS_RESERVED => Err(SlotError::Reserved(number)),
            SLOTS_PER_CLIENT_MAX.. => Err(SlotError::TooHigh(number)),
            _ => Ok(Slot(number)),
        }
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> u16 {
        slot.0
    }
}

impl FromStr for Slot {
    type Err = SlotError;
    fn from_str(text: &str) -> Result<Slot, SlotError> {
        let number: u16 = text.parse().map_err(|_| SlotError::Form(text.to_owned()))?;
        Slot::try_from(number)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// One adapter: a slot of a client. Printed as `CLIENT-SLOT`, which is also the stem of its socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct AdapterId {
    pub client: ClientName,
    pub slot: Slot,
}

impl fmt::Display for AdapterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.client, self.slot))
    }
}

/// One mapping by its place: an adapter and a LUN there. LUN 0 goes without saying, so that the
/// mapping of an adapter that has no other is printed as its adapter is: `CLIENT-SLOT`, else
/// `CLIENT-SLOT.LUN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct MappingId {
    #[serde(flatten)]
    pub adapter: AdapterId,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lun: u16,
}

fn is_zero(lun: &u16) -> bool {
    *lun == 0
}

impl fmt::Display for MappingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lun {
            0 => self.adapter.fmt(f),
            lun => f.pad(&format!("{}.{lun}", self.adapter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_0_and_1_are_reserved_and_255_is_the_last() {
        assert_eq!(Slot::try_from(1).unwrap_err().to_string(), "slot 1 is reserved; use 2 to 255");
        assert!(Slot::try_from(0).is_err());
        assert_eq!(Slot::try_from(2).unwrap().number(), 2);
        assert_eq!(Slot::try_from(255).unwrap().number(), 255);
        assert_eq!(
            Slot::try_from(256).unwrap_err().to_string(),
            "slot 256 is too high; use 2 to 255"
        );
        assert!("-1".parse::<Slot>().is_err());
        assert!(serde_json::from_str::<Slot>("1").is_err());
    }

    #[test]
    fn the_lowest_free_slot_is_offered_until_there_is_none() {
        let mut taken = BTreeSet::new();
        for expected in 2..256 {
            let slot = Slot::lowest_free(&taken).unwrap();
            assert_eq!(slot.number(), expected);
            taken.insert(slot);
        }
        assert_eq!(Slot::lowest_free(&taken), None);
        taken.remove(&Slot(7));
        assert_eq!(Slot::lowest_free(&taken), Some(Slot(7)));
    }

    #[test]
    fn words_are_the_same_in_json_and_print() {
        assert_eq!(serde_json::to_string(&Via::VhostUserBlk).unwrap(), "\"vhost-user-blk\"");
        assert_eq!(Via::VhostUserBlk.to_string(), "vhost-user-blk");
        let id = AdapterId { client: "vm1".parse().unwrap(), slot: Slot(2) };
        assert_eq!(id.to_string(), "vm1-2");
        for via in [Via::VhostUserScsi, Via::Iscsi] {
            assert_eq!(serde_json::to_string(&via).unwrap(), format!("\"{via}\""));
        }
    }

    #[test]
    fn a_mapping_is_named_by_adapter_and_lun() {
        let adapter = AdapterId { client: "vm1".parse().unwrap(), slot: Slot(2) };
        let [first, second] = [0, 1].map(|lun| MappingId { adapter: adapter.clone(), lun });
        assert_eq!([&first, &second].map(ToString::to_string), ["vm1-2", "vm1-2.1"]);
        assert_eq!(serde_json::to_string(&first).unwrap(), r#"{"client":"vm1","slot":2}"#);
        let json = serde_json::to_string(&second).unwrap();
        assert_eq!(json, r#"{"client":"vm1","slot":2,"lun":1}"#);
        assert_eq!(serde_json::from_str::<MappingId>(&json).unwrap(), second);
    }
}
