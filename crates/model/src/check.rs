//! What looking at the disks of a pool shows: the report of `pool check`, by a node that has it
//! open or without one, and what `pool inspect` prints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The report of `pool check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolCheck {
    /// What the labels say; unknown where there is none.
    pub name: Option<String>,
    pub uuid: Option<Uuid>,
    pub damaged: bool,
    /// A node has it open.
    #[serde(default)]
    pub is_open: bool,
    pub counts: CheckCounts,
    pub findings: Vec<CheckFinding>,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckCounts {
    pub disks: u64,
    pub slabs: u64,
    pub slabs_granted: u64,
    pub lus: u64,
    pub layers: u64,
    pub map_pages: u64,
    pub extents_used: u64,
    pub journal_records: u64,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckFinding {
    pub severity: CheckSeverity,
    /// The disk that it was found on, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The LU that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lu: Option<Uuid>,
    /// What that LU is called, where its root can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lu_name: Option<String>,
    pub what: String,
}

/// What `pool inspect` shows of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    pub title: String,
    pub fields: Vec<InspectedField>,
}

/// A name and its value, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedField {
    pub name: String,
    pub value: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckSeverity {
    /// Opening the pool makes it good; or the node that has it open has done so.
    Mended,
    /// Something is lost, or would be refused.
    Damaged,
}
