//! [`PvView`]: a disk or a file that a node could use, with what is known of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::size::Size;

/// A disk, a partition or a file, as the node finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PvView {
    /// What the kernel calls it, or the file.
    pub path: String,
    pub kind: PvKind,
    pub size: Size,
    /// What the disk says that it is, the same by every path and on every machine: `naa.`, `eui.`,
    /// `nvme.`, `t10.`
    pub wwid: Option<String>,
    pub serial: Option<String>,
    pub model: Option<String>,
    /// Names below `/dev/disk/by-id` that lead to it.
    pub links: Vec<String>,
    pub read_only: bool,
    pub removable: bool,
    /// What is on it: partition tables, file systems, members of something larger.
    pub holds: Vec<String>,
    /// Who uses it now.
    pub used_by: Vec<String>,
    pub state: PvState,
    /// Why less is known of it than could be.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PvKind {
    #[default]
    Disk,
    Partition,
    File,
}

/// Whether it could be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PvState {
    /// Nobody uses it, and nothing known is on it.
    Free,
    /// Nobody uses it, and what is on it would be lost.
    Data,
    Used,
    /// It could not be looked at.
    #[default]
    Unknown,
}

impl fmt::Display for PvKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PvKind::Disk => "disk",
            PvKind::Partition => "partition",
            PvKind::File => "file",
        })
    }
}

impl fmt::Display for PvState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PvState::Free => "free",
            PvState::Data => "data",
            PvState::Used => "used",
            PvState::Unknown => "unknown",
        })
    }
}
