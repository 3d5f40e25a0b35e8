//! [`Drive`]: a virtual CD and DVD drive, as it is wanted. It is mapped as an LU is, under a name
//! that no LU has. What is wanted is the medium that the operator put in; where the tray is, and
//! who locks it, is for clients to say too, and in [`DriveView`].

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::lu::check_serial;
use crate::mapping::MappingId;
use crate::name::{LuName, MediumName};
use crate::status::{LuState, Problem};

/// A virtual drive, as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    pub name: LuName,
    pub uuid: Uuid,
    pub serial: String,
    /// May be mapped to several clients at once, which then share its tray.
    #[serde(default)]
    pub shareable: bool,
    /// What the operator put in; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<MediumName>,
    /// A drive of the node: what is in that one is in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Drive {
    /// Checks what can be checked about a drive by itself.
    pub fn validate(&self) -> Result<(), ApiError> {
        check_serial(&self.serial)
            .map_err(|why| ApiError::usage(format!("the serial of drive '{}' {why}", self.name)))?;
        if self.device.is_some() && self.medium.is_some() {
            return Err(self.has_its_own());
        }
        match &self.device {
            Some(path) if !path.starts_with('/') => Err(ApiError::usage(format!(
                "the device of drive '{}' is no absolute path",
                self.name
            ))
            .then("give a path like /dev/sr0")),
            _ => Ok(()),
        }
    }

    /// Why no medium of the library can be loaded.
    pub fn has_its_own(&self) -> ApiError {
        let (name, device) = (&self.name, self.device.as_deref().unwrap_or_default());
        ApiError::conflict(format!("drive '{name}' has what is in {device}, and no other medium"))
            .then(format!("put the disc into {device}, or make another drive for the medium"))
    }
}

/// `drive create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DriveCreate {
    pub name: LuName,
    #[serde(default)]
    pub serial: Option<String>,
    #[serde(default)]
    pub shareable: bool,
    #[serde(default)]
    pub medium: Option<MediumName>,
    /// A drive of the node, to be this one.
    #[serde(default)]
    pub device: Option<String>,
}

/// `drive load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DriveLoad {
    pub medium: MediumName,
    /// Take out what is in, although a client locks it.
    #[serde(default)]
    pub force: bool,
}

/// A drive with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriveView {
    #[serde(flatten)]
    pub drive: Drive,
    pub state: LuState,
    pub tray: Tray,
    /// Clients see a medium.
    #[serde(default)]
    pub loaded: bool,
    /// Initiators that forbid to take the medium out.
    pub locked_by: Vec<String>,
    pub mapped_to: Vec<MappingId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Where the tray is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tray {
    #[default]
    Closed,
    /// A client opened it: it sees no medium until it, or the operator, puts one in.
    Open,
}

impl fmt::Display for Tray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tray::Closed => "closed",
            Tray::Open => "open",
        })
    }
}
