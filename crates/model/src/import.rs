//! `lu create --from`: an LU that begins as a copy of an image, and what is told meanwhile.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::lu::{Backing, BlockSize, Cache, LuCreate, NewBacking};
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
    /// Only a file; when neither this nor a pool is named, as for an empty LU.
    #[serde(default)]
    pub backing: Option<NewBacking>,
    /// The pool that it is cut from.
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
            backing,
            pool,
            thick,
            size: _,
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
            backing,
            pool,
            thick,
        }
    }

    /// Settles where the LU shall be; `default` is the pool of those that do not say. Answers with
    /// its pool, if it is in one.
    pub fn settle(&mut self, default: Option<&PoolName>) -> Result<Option<PoolName>, ApiError> {
        let place = self.clone().create(Size::ZERO).place(default)?;
        self.pool = place.pool().cloned();
        match place {
            Backing::Pool { .. } => self.backing = None,
            Backing::File => self.backing = Some(NewBacking::File),
            other => {
                let message = format!("LU '{}' cannot be made of an image in {other}", self.name);
                return Err(ApiError::usage(message).then("name a pool, or --backing file"));
            }
        }
        if self.thick && self.pool.is_none() {
            return Err(ApiError::usage("only an LU in a pool can be thick").then("name the pool"));
        }
        Ok(self.pool.clone())
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
            backing,
            pool,
            thick,
            path: _,
            size: _,
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
            backing,
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
