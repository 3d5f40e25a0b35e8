//! `lu create --from`: an LU that begins as a copy of an image, and what is told meanwhile.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::lu::{BlockSize, Cache, LuCreate};
use crate::medium::Progress;
use crate::name::{LuName, PoolName};
use crate::qos::Limits;
use crate::size::Size;
use crate::status::LuView;

/// An LU to be made of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LuImport {
    pub name: LuName,
    /// Absolute path on the node: raw, qcow2, VMDK or VHDX, a file or a block device.
    pub path: String,
    /// That of the image when absent.
    #[serde(default)]
    pub size: Option<Size>,
    #[serde(default)]
    pub block_size: BlockSize,
    #[serde(default)]
    pub serial: Option<String>,
    #[serde(default)]
    pub shareable: bool,
    #[serde(default)]
    pub cache: Cache,
    #[serde(default)]
    pub removable: bool,
    #[serde(default)]
    pub limits: Limits,
    /// The pool that it is cut from; a file of the data directory when absent.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// Grant it all of its space at once.
    #[serde(default)]
    pub thick: bool,
}

impl LuImport {
    /// This LU, to be made of an image instead of empty.
    pub fn of(create: LuCreate, path: String, size: Option<Size>) -> LuImport {
        let LuCreate {
            name,
            block_size,
            serial,
            shareable,
            cache,
            removable,
            limits,
            pool,
            thick,
            ..
        } = create;
        LuImport {
            name,
            path,
            size,
            block_size,
            serial,
            shareable,
            cache,
            removable,
            limits,
            pool,
            thick,
        }
    }

    /// The LU that is made, now that its size is known.
    pub fn create(self, size: Size) -> LuCreate {
        let LuImport {
            name,
            block_size,
            serial,
            shareable,
            cache,
            removable,
            limits,
            pool,
            thick,
            ..
        } = self;
        LuCreate {
            name,
            size,
            block_size,
            serial,
            shareable,
            cache,
            removable,
            limits,
            backing: None,
            pool,
            thick,
        }
    }
}

/// A line of what is told while an image is imported; the last one is `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportTold {
    Copying(Progress),
    /// The copy is read again from the disk and compared.
    Verifying(Progress),
    Done(Box<LuView>),
    Failed(ApiError),
}
