//! `pool import`: pools that are found on disks and are of no node here, and what is asked for to
//! take one over.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::name::{LuName, PoolName};
use crate::pool::{PoolForce, PoolView, PvAt};
use crate::size::Size;
use crate::status::Problem;

/// Where to look for pools. Where nothing is said, on every disk of the node that nobody uses, and
/// in its own files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSearch {
    /// Absolute paths of disks and files on the node. What is behind an `@` is for the import.
    #[serde(default)]
    pub pvs: Vec<PvAt>,
    /// Directories, in which every file is looked at.
    #[serde(default)]
    pub dirs: Vec<String>,
}

/// `pool import`: a pool of another node, or one whose configuration was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolImport {
    /// Its name, or its UUID.
    pub pool: String,
    /// As in `PoolSearch`; what is behind an `@` names the failure group of the disk.
    #[serde(default)]
    pub pvs: Vec<PvAt>,
    #[serde(default)]
    pub dirs: Vec<String>,
    /// What it is called here, if not what its disks say.
    #[serde(default)]
    pub name: Option<PoolName>,
    /// Stands before the names of all of its LUs.
    #[serde(default)]
    pub prefix: Option<String>,
    /// LUs that are left where they are, by name or UUID, and are none of this node.
    #[serde(default)]
    pub without: Vec<String>,
    /// It is one of which only failure groups are here that lack something, and is to be used with
    /// one of them all the same.
    #[serde(default)]
    pub force: Option<PoolForce>,
}

impl PoolImport {
    pub fn search(&self) -> PoolSearch {
        PoolSearch { pvs: self.pvs.clone(), dirs: self.dirs.clone() }
    }
}

/// A pool that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundPool {
    pub name: String,
    pub uuid: Uuid,
    pub disks: Vec<FoundDisk>,
    /// How many disks it has.
    pub disks_wanted: u16,
    /// Nothing is known of them where not enough disks are here.
    pub lus: Vec<FoundLu>,
    /// Why it cannot be imported as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundDisk {
    pub path: String,
    pub uuid: Uuid,
    /// The number of its failure group.
    pub group: u16,
    pub size: Size,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundLu {
    pub uuid: Uuid,
    /// Nothing can be read of one without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    pub snapshots: Vec<String>,
    /// So says a copy of it that has missed something: no other one is here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
    /// Why it cannot be imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a search has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolsFound {
    pub pools: Vec<FoundPool>,
    /// Disks that could not be looked at.
    pub unread: Vec<Unread>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unread {
    pub path: String,
    pub error: ApiError,
}

/// A pool that was imported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolImported {
    pub pool: PoolView,
    pub lus: Vec<LuName>,
    /// Disks that are not here.
    pub missing: u16,
    /// LUs that were left where they are.
    pub without: Vec<Uuid>,
    /// LUs of which only a copy is here that has missed something. They are not opened before the
    /// disks with the rest are back, or `lu force`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outdated: Vec<LuName>,
}
