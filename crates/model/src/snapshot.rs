//! [`Snapshot`]: a frozen state of an LU; and what takes one, goes back to it and clones it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::name::{LuName, SnapshotName};
use crate::qos::Limits;
use crate::schema::schema_as;
use crate::size::Size;

/// A frozen state of an LU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    pub name: SnapshotName,
    /// Of the layer that it is, on the disks of its pool.
    pub uuid: Uuid,
    /// Of the LU at that time.
    pub size: Size,
    #[schema(value_type = String)]
    pub taken: Timestamp,
}

/// A snapshot of an LU by name: `LU@SNAPSHOT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotRef {
    pub lu: LuName,
    pub snapshot: SnapshotName,
}

schema_as!(SnapshotRef, String);

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.lu, self.snapshot))
    }
}

impl FromStr for SnapshotRef {
    type Err = String;

    fn from_str(text: &str) -> Result<SnapshotRef, String> {
        let (lu, snapshot) = text
            .split_once('@')
            .ok_or_else(|| format!("'{text}' is not a snapshot; it must look like LU@NAME"))?;
        let lu = lu.parse().map_err(|error| format!("{error}"))?;
        Ok(SnapshotRef { lu, snapshot: snapshot.parse().map_err(|error| format!("{error}"))? })
    }
}

impl TryFrom<String> for SnapshotRef {
    type Error = String;

    fn try_from(text: String) -> Result<SnapshotRef, String> {
        text.parse()
    }
}

impl From<SnapshotRef> for String {
    fn from(snapshot: SnapshotRef) -> String {
        snapshot.to_string()
    }
}

/// `snapshot create`: of several LUs all at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    #[schema(value_type = Vec<String>)]
    pub snapshots: Vec<SnapshotRef>,
}

/// `snapshot rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRollback {
    /// Also under clients that are connected, whose disk changes all at once.
    #[serde(default)]
    pub force: bool,
}

/// `clone`: an LU that begins as a snapshot of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneCreate {
    #[schema(value_type = String)]
    pub of: SnapshotRef,
    pub name: LuName,
    #[serde(default)]
    pub serial: Option<String>,
    #[serde(default)]
    pub shareable: bool,
    #[serde(default)]
    pub limits: Limits,
    /// Grant it all of its space at once.
    #[serde(default)]
    pub thick: bool,
}

/// A snapshot with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    pub lu: LuName,
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// What is kept for it and what came before it, and not for the LU as it is now or a later
    /// snapshot. Unknown while the LU is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Size>,
    pub clones: Vec<LuName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_by_its_lu_and_itself() {
        let snapshot: SnapshotRef = "web1@before-upgrade".parse().unwrap();
        assert_eq!(snapshot.to_string(), "web1@before-upgrade");
        assert!("web1".parse::<SnapshotRef>().unwrap_err().contains("LU@NAME"));
        assert!("web1@".parse::<SnapshotRef>().unwrap_err().contains("empty"));
        assert!("a@b@c".parse::<SnapshotRef>().is_err());
    }
}
