//! [`Medium`]: a disc image in the library of a node, with what was found in it when it was copied
//! there. Media are data, as the blocks of an LU are, not a part of the desired state: a document
//! that is restored elsewhere names the media that its drives want, and does not bring them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::name::{LuName, MediumName};
use crate::size::Size;

/// Bytes of a block of a disc.
pub const MEDIUM_BLOCK_BYTES: u32 = 2048;

/// A disc image in the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Medium {
    pub name: MediumName,
    pub uuid: Uuid,
    /// Of the disc: whole blocks of 2048 bytes.
    pub size: Size,
    /// Zeroes at its end that the file did not have, because it was not of whole blocks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padding: u32,
    /// SHA-256 of the file as it came, without the padding, in hexadecimal digits: what `sha256sum`
    /// says.
    pub sha256: String,
    pub format: MediumFormat,
    /// What the volume calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The firmware that it says it can be booted by.
    #[serde(default)]
    pub boots: Vec<Firmware>,
}

fn is_zero(padding: &u32) -> bool {
    *padding == 0
}

/// The filesystem of a disc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MediumFormat {
    Iso9660,
    /// With or without an ISO 9660 volume beside it.
    Udf,
    /// None that is known.
    Unknown,
}

impl fmt::Display for MediumFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MediumFormat::Iso9660 => "ISO 9660",
            MediumFormat::Udf => "UDF",
            MediumFormat::Unknown => "unknown",
        })
    }
}

/// Firmware that an El Torito catalog has an entry for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    Bios,
    Efi,
    Other,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Firmware::Bios => "bios",
            Firmware::Efi => "efi",
            Firmware::Other => "other",
        })
    }
}

/// `media add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MediumAdd {
    /// Absolute path on the node: a file, or a block device with a disc in it.
    pub path: String,
    /// From the file's name when absent.
    #[serde(default)]
    pub name: Option<MediumName>,
    /// Take it although it is no disc image, or one that was cut off.
    #[serde(default)]
    pub force: bool,
}

/// A medium and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MediumView {
    #[serde(flatten)]
    pub medium: Medium,
    /// Drives that have it.
    pub loaded_in: Vec<LuName>,
}

/// A line of what `media add` tells while it works; the last one is `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediumTold {
    Copying(Progress),
    /// The copy is read again from the disk.
    Verifying(Progress),
    Done(MediumView),
    Failed(ApiError),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub bytes: u64,
    pub of: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress_are_plain() {
        let told = MediumTold::Copying(Progress { bytes: 1, of: 2 });
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(text, r#"{"copying":{"bytes":1,"of":2}}"#);
        assert_eq!(serde_json::from_str::<MediumTold>(&text).unwrap(), told);
    }
}
