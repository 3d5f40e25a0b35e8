//! What `pool backup` and `pool restore` tell: of a pool's metadata in a file, and of what that has
//! brought back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::check::CheckFinding;

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolBackup {
    pub name: String,
    pub uuid: Uuid,
    pub made: Timestamp,
    pub disks: u64,
    pub lus: u64,
    /// Of the file.
    pub bytes: u64,
    /// What is not in it.
    pub lacks: Vec<BackupLack>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupLack {
    pub lu: Uuid,
    pub what: String,
}

/// What `pool restore` has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRestore {
    pub name: String,
    pub uuid: Uuid,
    /// When the backup was taken.
    pub made: Timestamp,
    /// Nothing was written.
    pub dry_run: bool,
    /// Not everything is right then.
    pub damaged: bool,
    /// Pages that were written, at all their places.
    pub pages: u64,
    pub restored: Vec<RestoreTold>,
    /// What the backup was of no use for, and why.
    pub refused: Vec<RestoreTold>,
    /// LUs that were asked for as the backup has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_of_backup: Vec<RestoreLu>,
    /// What is damaged then.
    pub findings: Vec<CheckFinding>,
}

/// An LU that was asked for as the backup has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreLu {
    pub lu: Uuid,
    /// As the backup has it.
    pub lu_name: String,
    #[serde(flatten)]
    pub outcome: RestoreOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RestoreOutcome {
    /// It has the maps of the backup. They name so many bytes, for its snapshots too; so many of
    /// them are lost, and read zero.
    Restored { bytes: u64, lost_bytes: u64, lost: Vec<RestoreLost> },
    /// What was damaged of it comes back as it was last: nothing of the backup's is needed.
    Proven,
    /// It is a clone of one that has, and unchanged itself.
    Clone,
    /// It stays as it is.
    Refused { why: String },
}

/// Bytes of an LU that read zero, because what was there is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreLost {
    pub from: u64,
    pub to: u64,
    /// The snapshot that they were written before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Something of a disk or an LU, or of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTold {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lu: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lu_name: Option<String>,
    pub what: String,
}
