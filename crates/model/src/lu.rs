//! [`Lu`]: a virtual disk, as it is wanted; and the requests that make and change one.
//!
//! The UUID is the LU's identity for life and the serial follows from it unless one is given. What
//! may change later (size, cache, limits, read-only, shareable) and what may not (UUID, block size,
//! backing) is a rule of `node::state`; here a value is only valid by itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, ErrorKind};
use crate::limits::{
    LU_SIZE_MAX, LU_SIZE_MIN, MEMORY_LU_SIZE_MAX, PATH_BYTES_MAX, POOL_BLOCK_BYTES,
    SERIAL_BYTES_MAX,
};
use crate::name::{LuName, PoolName, SnapshotName};
use crate::qos::Limits;
use crate::schema::schema_as;
use crate::size::Size;
use crate::snapshot::{Snapshot, SnapshotRef};

/// A logical unit, as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lu {
    pub name: LuName,
    pub uuid: Uuid,
    pub size: Size,
    #[serde(default)]
    pub block_size: BlockSize,
    /// What a guest reads as the disk's serial number.
    pub serial: String,
    /// May be mapped to several clients at once.
    #[serde(default)]
    pub shareable: bool,
    #[serde(default)]
    pub cache: Cache,
    #[serde(default)]
    pub removable: bool,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    pub backing: Backing,
    /// It has the space of its pool at once that it can ever need.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub thick: bool,
    /// Frozen states of it, in the order in which they were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// The snapshot that it is a clone of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub origin: Option<SnapshotRef>,
    /// It is on its way into a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// It is what a copy had of it that had missed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// It was imported, and what stands here of its size and its snapshots is what a copy says that
    /// has missed something. What it is when it is opened counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
}

/// `lu force`: what an LU was made of when no copy with everything was to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// The failure group of that copy, as it was called then.
    pub group: String,
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// Which copy of an LU is to be taken for all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LuForce {
    /// Its failure group, by name, or by number if it has none. None: the best one.
    #[serde(default)]
    pub group: Option<String>,
}

/// The copies of an LU in a pool that are to be found, the best one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LuCopies {
    pub lu: LuName,
    pub copies: Vec<LuCopy>,
}

/// A copy of an LU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LuCopy {
    /// Its failure group.
    pub group: String,
    /// It has everything.
    pub current: bool,
    /// All disks of the group are here.
    pub complete: bool,
    /// How often others went on without it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u32>,
    /// What the LU has been given, as far as is known, in whole slabs.
    pub size: Size,
    /// What of that the copy has no place for.
    pub lacking: Size,
}

/// An LU that is being brought into a pool from where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    pub pool: PoolName,
    /// Where it was, and where what is not brought yet still is. None: it is there yet, and its
    /// part of the pool is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Backing>,
    /// The size that it had there.
    pub size: Size,
    /// Bytes a second at most; 0 is any.
    #[serde(default)]
    pub rate: Size,
}

/// `lu migrate`: brings an LU into a pool, or changes how that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LuMigrate {
    /// May be left out when it is on its way.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// Bytes a second at most; 0 is any. Absent: as it was, at first any.
    #[serde(default)]
    pub rate: Option<Size>,
}

/// Logical block size in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    #[default]
    B512,
    B4096,
}

schema_as!(BlockSize, u32);

impl BlockSize {
    pub const fn bytes(self) -> u32 {
        match self {
            BlockSize::B512 => 512,
            BlockSize::B4096 => 4096,
        }
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = String;
    fn try_from(bytes: u32) -> Result<BlockSize, String> {
        match bytes {
            512 => Ok(BlockSize::B512),
            4096 => Ok(BlockSize::B4096),
            other => Err(format!("block size {other} is not supported; use 512 or 4096")),
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.bytes()
    }
}

impl std::str::FromStr for BlockSize {
    type Err = String;
    fn from_str(text: &str) -> Result<BlockSize, String> {
        match text.parse::<u32>() {
            Ok(bytes) => BlockSize::try_from(bytes),
            Err(_) => Err(format!("'{text}' is not a block size; use 512 or 4096")),
        }
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.bytes().to_string())
    }
}

/// What a guest may assume about a write that was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// An answered write is stable after the next flush.
    #[default]
    Writeback,
    /// An answered write is stable.
    Writethrough,
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cache::Writeback => "writeback",
            Cache::Writethrough => "writethrough",
        })
    }
}

/// Where an LU's blocks are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Backing {
    /// A sparse file in the node's data directory.
    File,
    /// A part of a pool, which takes space as it is written.
    Pool { pool: PoolName },
    /// A raw image or block device that was there before; it stays when the LU goes.
    Adopted { path: String },
    /// The node's memory: gone when the node stops.
    Memory,
    /// Nowhere: reads answer at once with unspecified data, writes are dropped. For measurements.
    Null,
}

impl Backing {
    pub fn kind(&self) -> &'static str {
        match self {
            Backing::File => "file",
            Backing::Pool { .. } => "pool",
            Backing::Adopted { .. } => "adopted",
            Backing::Memory => "memory",
            Backing::Null => "null",
        }
    }

    /// The pool that it is in.
    pub fn pool(&self) -> Option<&PoolName> {
        match self {
            Backing::Pool { pool } => Some(pool),
            _ => None,
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backing::Pool { pool } => f.pad(&format!("pool {pool}")),
            Backing::Adopted { path } => f.pad(&format!("adopted {path}")),
            other => f.pad(other.kind()),
        }
    }
}

/// Backings that `lu create` can make; an adopted one comes from `lu adopt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewBacking {
    #[default]
    File,
    Memory,
    Null,
}

impl From<NewBacking> for Backing {
    fn from(new: NewBacking) -> Backing {
        match new {
            NewBacking::File => Backing::File,
            NewBacking::Memory => Backing::Memory,
            NewBacking::Null => Backing::Null,
        }
    }
}

/// `lu create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LuCreate {
    pub name: LuName,
    pub size: Size,
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
    /// When neither this nor a pool is named: pool `default` where there is one, otherwise a
    /// sparse file.
    #[serde(default)]
    pub backing: Option<NewBacking>,
    /// The pool that it is cut from.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// Grant it all of its space at once.
    #[serde(default)]
    pub thick: bool,
}

impl LuCreate {
    /// Where the LU shall be; `default` is the pool of those that do not say.
    pub fn place(&self, default: Option<&PoolName>) -> Result<Backing, ApiError> {
        match (&self.pool, self.backing) {
            (Some(pool), None) => Ok(Backing::Pool { pool: pool.clone() }),
            (None, Some(backing)) => Ok(backing.into()),
            (None, None) => {
                Ok(default.map_or(Backing::File, |pool| Backing::Pool { pool: pool.clone() }))
            }
            (Some(pool), Some(backing)) => Err(ApiError::usage(format!(
                "LU '{}' cannot be in pool '{pool}' and in {} too",
                self.name,
                Backing::from(backing)
            ))
            .then("name a pool or a backing")),
        }
    }
}

/// `lu adopt`: an LU over a raw image or a block device that holds data already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LuAdopt {
    /// From the file's name when absent.
    #[serde(default)]
    pub name: Option<LuName>,
    /// Absolute path on the node.
    pub path: String,
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
    pub read_only: bool,
    #[serde(default)]
    pub limits: Limits,
}

/// `lu resize`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LuResize {
    /// The new size. Absent for an adopted LU: take over what the file or device has now.
    #[serde(default)]
    pub size: Option<Size>,
    /// Allow the LU to become smaller, which cuts off what lies behind the new end.
    #[serde(default)]
    pub shrink: bool,
}

impl Lu {
    /// The disk or file of others that its blocks are in, or still are.
    pub fn adopted_path(&self) -> Option<&str> {
        let from = self.migration.as_ref().and_then(|it| it.from.as_ref());
        match from.unwrap_or(&self.backing) {
            Backing::Adopted { path } => Some(path),
            _ => None,
        }
    }

    pub fn snapshot(&self, name: &SnapshotName) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.name == *name)
    }

    fn validate_migration(&self, migration: &Migration) -> Result<(), ApiError> {
        let (name, pool) = (&self.name, &migration.pool);
        let can_move = |from: &Backing| matches!(from, Backing::File | Backing::Adopted { .. });
        let (from, is_there) = match &migration.from {
            Some(from) => (from, self.backing.pool() == Some(pool)),
            None => (&self.backing, true),
        };
        if !can_move(from) || !is_there || self.thick {
            return Err(ApiError::usage(format!(
                "LU '{name}' cannot be on its way from {from} into pool '{pool}'"
            )));
        }
        if migration.from.is_none() && self.size != migration.size {
            let message = format!("LU '{name}' is about to be brought into pool '{pool}'");
            return Err(ApiError::new(ErrorKind::Conflict, message)
                .then("resize it when it is there, or before"));
        }
        Ok(())
    }

    /// Checks a size that was asked for. One that an LU had before it was in a pool it keeps there.
    pub fn validate_new_size(&self) -> Result<(), ApiError> {
        let (name, size) = (&self.name, self.size);
        if self.backing.pool().is_none() || size.is_multiple_of(POOL_BLOCK_BYTES) {
            return Ok(());
        }
        let next = Size(size.bytes().next_multiple_of(POOL_BLOCK_BYTES));
        Err(ApiError::usage(format!(
            "the size of LU '{name}', {size}, is not a multiple of {POOL_BLOCK_BYTES}, as that of \
             an LU in a pool is; {next} would be"
        )))
    }

    /// Checks what can be checked about an LU by itself.
    pub fn validate(&self) -> Result<(), ApiError> {
        let usage = |text: String| Err(ApiError::new(ErrorKind::Usage, text));
        let name = &self.name;
        let (size, block) = (self.size, u64::from(self.block_size.bytes()));
        if !size.is_multiple_of(block) {
            let next = Size((size.bytes() / block + 1) * block);
            return usage(format!(
                "the size of LU '{name}', {size}, is not a multiple of its block size {block}; \
                 {next} would be"
            ));
        }
        let max = match self.backing {
            Backing::Memory => MEMORY_LU_SIZE_MAX,
            _ => LU_SIZE_MAX,
        };
        if size.bytes() < LU_SIZE_MIN || size.bytes() > max {
            return usage(format!(
                "the size of LU '{name}', {size}, must lie between {} and {}",
                Size(LU_SIZE_MIN),
                Size(max)
            ));
        }
        if self.thick && self.backing.pool().is_none() {
            return usage(format!("LU '{name}' is in no pool; only an LU in a pool can be thick"));
        }
        if let Some(migration) = &self.migration {
            self.validate_migration(migration)?;
        }
        if let Err(why) = check_serial(&self.serial) {
            return usage(format!("the serial of LU '{name}' {why}"));
        }
        self.limits.validate().map_err(|error| ApiError {
            message: format!("LU '{name}' has {}", error.message),
            ..error
        })?;
        if let Backing::Adopted { path } = &self.backing
            && (!path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.contains('\0'))
        {
            return usage(format!("the path of LU '{name}' must be absolute, not '{path}'"));
        }
        Ok(())
    }
}

/// The serial that an LU has unless another is given: as much of its UUID as every transport
/// carries.
pub fn serial_of(uuid: Uuid) -> String {
    let mut serial = uuid.simple().to_string();
    serial.truncate(SERIAL_BYTES_MAX);
    serial
}

pub(crate) fn check_serial(serial: &str) -> Result<(), String> {
    if serial.is_empty() || serial.len() > SERIAL_BYTES_MAX {
        return Err(format!("has {} bytes; it must have 1 to {SERIAL_BYTES_MAX}", serial.len()));
    }
    // QEMU and udev make file names and command lines of it.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match serial.chars().find(|c| !is_plain(*c)) {
        Some(c) => Err(format!("has {c:?} in it; use only letters, digits, '.', '_' and '-'")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lu() -> Lu {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        Lu {
            name: "web1".parse().unwrap(),
            uuid,
            size: Size::gib(1),
            block_size: BlockSize::B512,
            serial: serial_of(uuid),
            shareable: false,
            cache: Cache::Writeback,
            removable: false,
            read_only: false,
            limits: Limits::default(),
            backing: Backing::File,
            thick: false,
            snapshots: Vec::new(),
            origin: None,
            migration: None,
            forced: None,
            outdated: false,
        }
    }

    fn refusal(change: impl Fn(&mut Lu)) -> String {
        let mut lu = lu();
        change(&mut lu);
        lu.validate().unwrap_err().message
    }

    #[test]
    fn an_lu_is_checked_by_itself() {
        assert_eq!(lu().validate(), Ok(()));
        assert_eq!(
            refusal(|lu| lu.size = Size(4097)),
            "the size of LU 'web1', 4097B, is not a multiple of its block size 512; 4.5KiB would be"
        );
        assert!(refusal(|lu| lu.size = Size(512)).contains("between 4KiB and 1EiB"));
        assert!(refusal(|lu| lu.size = Size(1 << 61)).contains("between 4KiB and 1EiB"));
        assert!(refusal(|lu| lu.serial = "x".repeat(21)).contains("has 21 bytes"));
        assert!(refusal(|lu| lu.serial = "a,b".into()).contains("','"));
        assert!(
            refusal(|lu| lu.backing = Backing::Adopted { path: "x.img".into() })
                .contains("must be absolute")
        );
    }

    #[test]
    fn the_serial_follows_from_the_uuid() {
        assert_eq!(lu().serial, "0123456789abcdef0123");
    }

    #[test]
    fn json_is_plain_and_refuses_what_it_does_not_know() {
        let text = serde_json::to_string(&lu()).unwrap();
        assert!(text.contains(r#""size":1073741824,"block_size":512"#), "{text}");
        assert!(text.contains(r#""backing":{"kind":"file"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Lu>(&text).unwrap(), lu());
        let typo = text.replace("shareable", "sharable");
        assert!(serde_json::from_str::<Lu>(&typo).unwrap_err().to_string().contains("sharable"));
        assert!(serde_json::from_str::<BlockSize>("1024").is_err());
        let short = r#"{"name":"a","size":"1GiB"}"#;
        let create: LuCreate = serde_json::from_str(short).unwrap();
        assert_eq!((create.size, create.place(None)), (Size::gib(1), Ok(Backing::File)));
        let pool: PoolName = "fast".parse().unwrap();
        let pooled = LuCreate { pool: Some(pool.clone()), ..create.clone() };
        let in_pool = Ok(Backing::Pool { pool: pool.clone() });
        assert_eq!((pooled.place(None), create.place(Some(&pool))), (in_pool.clone(), in_pool));
        let file = LuCreate { backing: Some(NewBacking::File), ..create.clone() };
        assert_eq!(file.place(Some(&pool)), Ok(Backing::File));
        let both = LuCreate { backing: Some(NewBacking::Memory), ..pooled };
        assert!(both.place(None).unwrap_err().message.contains("in pool 'fast' and in memory too"));
    }
}
