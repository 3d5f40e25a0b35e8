//! [`Pool`]: disks that LUs are cut from, as it is wanted; and what it is, as listings show it.
//!
//! A pool's shape (sizes of slabs and extents) and its disks are said when it is made. Its UUID and
//! those of its disks are in the labels that the disks have, by which they are known wherever they
//! are found again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::limits::{
    EXTENT_SIZE_DEFAULT, EXTENT_SIZE_MAX, EXTENT_SIZE_MIN, EXTENTS_PER_SLAB_MIN, PATH_BYTES_MAX,
    PVS_PER_POOL_MAX, SLAB_SIZE_DEFAULT, SLAB_SIZE_MAX, SLAB_SIZE_MIN,
};
use crate::name::{LuName, PoolName};
use crate::size::Size;
use crate::status::{LuState, Problem};

/// A pool, as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub name: PoolName,
    pub uuid: Uuid,
    /// What an LU is given at a time.
    #[serde(default = "slab_size")]
    pub slab_size: Size,
    /// What an LU cuts its slabs into.
    #[serde(default = "extent_size")]
    pub extent_size: Size,
    pub pvs: Vec<PoolPv>,
}

/// A disk of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolPv {
    pub uuid: Uuid,
    pub place: PvPlace,
}

/// Where a disk of a pool is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PvPlace {
    /// A disk or a file that was there before, by its absolute path. It stays when the pool goes.
    Path { path: String },
    /// A sparse file of the node, in its data directory. It is deleted with the pool.
    File { size: Size },
}

/// `pool create`: of disks and files that are there, or of a sparse file of this size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolCreate {
    pub name: PoolName,
    /// Absolute paths of disks and files on the node.
    #[serde(default)]
    pub pvs: Vec<String>,
    /// Of a sparse file in the data directory, where there are no `pvs`.
    #[serde(default)]
    pub size: Option<Size>,
    #[serde(default)]
    pub slab_size: Option<Size>,
    #[serde(default)]
    pub extent_size: Option<Size>,
    /// Also disks that hold data, which is lost.
    #[serde(default)]
    pub force: bool,
}

/// A pool with its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    #[serde(flatten)]
    pub pool: Pool,
    pub state: LuState,
    /// What LUs can be given altogether; unknown while it is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// What of that no LU has been given yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Size>,
    /// What LUs have been given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Size>,
    /// The sizes of its LUs, as clients see them.
    #[serde(rename = "virtual")]
    pub promised: Size,
    /// What is promised, in parts of what there is: above 1 not everything promised can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit: Option<f64>,
    pub lus: Vec<LuName>,
    pub disks: Vec<PoolDisk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A disk of a pool with what is free of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolDisk {
    pub uuid: Uuid,
    pub path: String,
    /// What LUs can be given of it; unknown while the pool is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Size>,
}

/// What is left of something that was removed, until that is gone too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Leftover {
    /// A file of an LU or a medium.
    #[default]
    File,
    /// The slabs of an LU.
    Lu { pool: Uuid },
    /// The labels of its disks.
    Pool { pool: Pool },
}

impl Leftover {
    /// What an LU leaves, in a pool or not.
    pub fn of_lu(pool: Option<Uuid>) -> Leftover {
        pool.map_or(Leftover::File, |pool| Leftover::Lu { pool })
    }
}

fn slab_size() -> Size {
    Size(SLAB_SIZE_DEFAULT)
}

fn extent_size() -> Size {
    Size(EXTENT_SIZE_DEFAULT)
}

impl PoolCreate {
    /// The pool that is asked for, of disks that each have a UUID now.
    pub fn pool(&self, uuid: Uuid, pvs: Vec<PoolPv>) -> Pool {
        Pool {
            name: self.name.clone(),
            uuid,
            slab_size: self.slab_size.unwrap_or(Size(SLAB_SIZE_DEFAULT)),
            extent_size: self.extent_size.unwrap_or(Size(EXTENT_SIZE_DEFAULT)),
            pvs,
        }
    }
}

impl Pool {
    /// Checks what can be checked about a pool by itself.
    pub fn validate(&self) -> Result<(), ApiError> {
        let name = &self.name;
        let usage = |text: String| Err(ApiError::usage(format!("pool '{name}' {text}")));
        if self.pvs.is_empty() || self.pvs.len() > PVS_PER_POOL_MAX {
            return usage(format!(
                "has {} disks; it must have 1 to {PVS_PER_POOL_MAX}",
                self.pvs.len()
            ));
        }
        let sizes = [
            ("slabs", self.slab_size, SLAB_SIZE_MIN, SLAB_SIZE_MAX),
            ("extents", self.extent_size, EXTENT_SIZE_MIN, EXTENT_SIZE_MAX),
        ];
        for (what, size, least, most) in sizes {
            let bytes = size.bytes();
            if !bytes.is_power_of_two() || !(least..=most).contains(&bytes) {
                return usage(format!(
                    "has {what} of {size}; they must be a power of two between {} and {}",
                    Size(least),
                    Size(most)
                ));
            }
        }
        if self.extent_size.bytes() > self.slab_size.bytes() / EXTENTS_PER_SLAB_MIN {
            return usage(format!(
                "has extents of {} in slabs of {}; at least {EXTENTS_PER_SLAB_MIN} must fit",
                self.extent_size, self.slab_size
            ));
        }
        for pv in &self.pvs {
            if let PvPlace::Path { path } = &pv.place
                && (!path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.contains('\0'))
            {
                return usage(format!("has a disk whose path is not absolute, '{path}'"));
            }
        }
        Ok(())
    }

    /// Paths of disks and files that were there before it.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.pvs.iter().filter_map(|pv| match &pv.place {
            PvPlace::Path { path } => Some(path.as_str()),
            PvPlace::File { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        serde_json::from_str(
            r#"{"name": "fast", "uuid": "00000000-0000-0000-0000-000000000001",
                "pvs": [{"uuid": "00000000-0000-0000-0000-000000000002",
                         "place": {"kind": "path", "path": "/dev/sdb"}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_pool_is_of_the_usual_shape_unless_told_otherwise() {
        let pool = pool();
        assert_eq!((pool.slab_size, pool.extent_size), (Size::mib(16), Size(256 << 10)));
        pool.validate().unwrap();
        assert_eq!(pool.paths().collect::<Vec<_>>(), ["/dev/sdb"]);
        let text = serde_json::to_string(&pool).unwrap();
        assert_eq!(serde_json::from_str::<Pool>(&text).unwrap(), pool);
    }

    #[test]
    fn what_cannot_be_a_pool_is_refused_by_name() {
        let says = |pool: Pool, what: &str| {
            let said = pool.validate().unwrap_err().message;
            assert!(said.contains("pool 'fast'") && said.contains(what), "{said}");
        };
        says(Pool { pvs: Vec::new(), ..pool() }, "has 0 disks");
        says(Pool { slab_size: Size::mib(3), ..pool() }, "slabs of 3MiB");
        says(Pool { slab_size: Size::mib(512), ..pool() }, "between 4MiB and 256MiB");
        says(Pool { extent_size: Size(4096), ..pool() }, "extents of 4KiB");
        let tight = Pool { slab_size: Size::mib(4), extent_size: Size::mib(2), ..pool() };
        says(tight, "at least 4 must fit");
        let mut relative = pool();
        relative.pvs[0].place = PvPlace::Path { path: "sdb".to_owned() };
        says(relative, "not absolute");
    }
}
