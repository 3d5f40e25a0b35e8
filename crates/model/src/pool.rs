//! [`Pool`]: disks that LUs are cut from, as it is wanted; and what it is, as listings show it.
//!
//! A pool's shape (sizes of slabs and extents) and its disks are said when it is made. Its UUID and
//! those of its disks are in the labels that the disks have, by which they are known wherever they
//! are found again.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;
use crate::limits::{
    EXTENT_SIZE_DEFAULT, EXTENT_SIZE_MAX, EXTENT_SIZE_MIN, EXTENTS_PER_SLAB_MIN, GROUPS_MAX,
    PATH_BYTES_MAX, PVS_PER_POOL_MAX, SLAB_SIZE_DEFAULT, SLAB_SIZE_MAX, SLAB_SIZE_MIN,
};
use crate::name::{GroupName, LuName, NameError, PoolName, SnapshotName};
use crate::pool_settings::PoolSettings;
use crate::schema::schema_as;
use crate::scrub::Scrub;
use crate::size::Size;
use crate::status::{LuState, Problem};

/// The pool that LUs are cut from which name neither a pool nor a backing.
pub const DEFAULT_POOL: &str = "default";

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
    /// Whether each block has a checksum, which is compared when it is read.
    #[serde(default)]
    pub checksums: bool,
    #[serde(default)]
    pub settings: PoolSettings,
    pub pvs: Vec<PoolPv>,
    /// What the failure group becomes that leaves it, if that is a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becomes: Option<PoolBecomes>,
}

/// A pool that a failure group of another one is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolBecomes {
    pub uuid: Uuid,
    pub name: PoolName,
}

/// A disk of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolPv {
    pub uuid: Uuid,
    pub place: PvPlace,
    #[serde(default, skip_serializing_if = "PvGroup::is_default")]
    pub group: PvGroup,
    #[serde(default, skip_serializing_if = "PvStanding::is_member")]
    pub standing: PvStanding,
}

/// The failure group that a disk of a pool is in: each has one copy of everything.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct PvGroup {
    /// As the disk's label has it.
    pub number: u16,
    /// Nothing said: the group of disks that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<GroupName>,
}

/// What is wanted of a disk of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PvStanding {
    #[default]
    Member,
    /// It is about to be labelled, and then it is a member.
    Joining,
    /// What is on it goes to the others, and then it is none of them.
    Leaving {
        /// Slabs that were on it when that was asked for.
        slabs: u64,
    },
    /// It was to join, and is not to any more.
    Withdrawn,
    /// Its failure group leaves as a whole: the others have what is on it.
    Splitting,
}

/// A disk that is to be in a pool, and its failure group: `PATH` or `PATH@GROUP`. A path that ends
/// like that itself is written with another `@` behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PvAt {
    pub path: String,
    pub group: Option<GroupName>,
}

schema_as!(PvAt, String);

/// Where a disk of a pool is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PvPlace {
    /// A disk or a file that was there before, by its absolute path. It stays when the pool goes.
    Path { path: String },
    /// A sparse file of the node, in its data directory. It is deleted with the pool.
    File { size: Size },
    /// Nobody knows: it was not here when its pool was imported, nor is its UUID known.
    Missing,
}

/// `pool create`: of disks and files that are there, or of a sparse file of this size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolCreate {
    pub name: PoolName,
    /// Absolute paths of disks and files on the node, each with `@GROUP` behind it or not.
    #[serde(default)]
    pub pvs: Vec<PvAt>,
    /// Of a sparse file in the data directory, where there are no `pvs`.
    #[serde(default)]
    pub size: Option<Size>,
    #[serde(default)]
    pub slab_size: Option<Size>,
    #[serde(default)]
    pub extent_size: Option<Size>,
    /// Each block has a checksum, which is compared when it is read.
    #[serde(default)]
    pub checksums: bool,
    /// Also disks that hold data, which is lost.
    #[serde(default)]
    pub force: bool,
}

/// `pool add-pv` and `pool replace-pv`: disks and files that are there, or a sparse file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PvAdd {
    /// As in `PoolCreate`. A disk that is leaving the pool stays.
    #[serde(default)]
    pub pvs: Vec<PvAt>,
    /// Of a sparse file in the data directory, where there are no `pvs`.
    #[serde(default)]
    pub size: Option<Size>,
    /// Also disks that hold data, which is lost.
    #[serde(default)]
    pub force: bool,
    /// The disk of the pool that leaves when they are there, by path or UUID.
    #[serde(default)]
    pub replaces: Option<String>,
}

/// `pool split`: a failure group leaves a pool, which goes on with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSplit {
    /// Its name; of one without a name its number.
    pub group: String,
    /// It becomes a pool of this name, with all LUs as they are then: `web` is `NAME-web` there.
    /// Without that, its disks are free.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<PoolName>,
}

/// `pool force`: a pool is opened with a failure group that lacks something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolForce {
    /// Its name; of one without a name its number. None: the best one.
    #[serde(default)]
    pub group: Option<String>,
}

/// What is here of a pool that is not opened because others may have more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolRemains {
    pub pool: String,
    /// Its disks that are not here.
    pub missing: Vec<String>,
    /// Failure groups that have all their disks here, the best one first.
    pub groups: Vec<GroupRemains>,
}

/// What a failure group has of the LUs of its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupRemains {
    /// Its name, or its number if it has none.
    pub group: String,
    pub lus: Vec<LuRemains>,
}

/// What a failure group has of an LU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LuRemains {
    /// Its name, or its UUID where nobody here knows that.
    pub lu: String,
    pub state: RemainsState,
    /// What of it is known here and is not there, in whole slabs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<Size>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RemainsState {
    /// All of it is there.
    Whole,
    /// It has missed something.
    Stale,
    /// Not all of it was brought there.
    Lacking,
    /// Nothing of it is there.
    Unknown,
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
    /// What an operator should know of its space.
    #[serde(default)]
    pub alerts: Vec<PoolAlert>,
    pub lus: Vec<LuName>,
    pub disks: Vec<PoolDisk>,
    /// Snapshots of its LUs that were removed, and are not gone yet.
    #[serde(default)]
    pub removals: Vec<Removal>,
    /// Failure groups that lack some of what others have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<GroupBehind>,
    /// The scrub that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrub>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What an operator should know of a pool's space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolAlert {
    /// It has little left.
    Low,
    /// It has very little left.
    Critical,
    /// It has nothing left.
    Full,
    /// More of it is promised than it should.
    Overcommitted,
}

impl PoolAlert {
    pub const ALL: [PoolAlert; 4] =
        [PoolAlert::Low, PoolAlert::Critical, PoolAlert::Full, PoolAlert::Overcommitted];
}

impl fmt::Display for PoolAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoolAlert::Low => "low",
            PoolAlert::Critical => "critical",
            PoolAlert::Full => "full",
            PoolAlert::Overcommitted => "overcommitted",
        })
    }
}

/// A failure group that is brought up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupBehind {
    pub number: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<GroupName>,
    /// What is not there yet, in whole slabs.
    pub left: Size,
    /// What of everything is there.
    pub percent: u8,
}

/// A snapshot that was removed, and is let go in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    pub lu: LuName,
    /// Nothing: what the LU was before it went back to a snapshot.
    pub snapshot: Option<SnapshotName>,
    /// What it held in extents of its own, when that is known.
    pub size: Option<Size>,
    /// What of that is left.
    pub left: Option<Size>,
    /// Something still uses it, or the pool has no room to let go of it.
    pub waits: bool,
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
    pub state: MemberState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// Of a disk that is leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evacuation: Option<Evacuation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a disk is to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    Member,
    Joining,
    Leaving,
    /// The pool is used without it.
    Missing,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MemberState::Member => "member",
            MemberState::Joining => "joining",
            MemberState::Leaving => "leaving",
            MemberState::Missing => "missing",
        })
    }
}

/// How far a disk is that is leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Evacuation {
    pub slabs: u64,
    pub slabs_left: u64,
    pub bytes: Size,
    pub bytes_left: Size,
    pub percent: u8,
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
    /// The label of a disk that has left this pool.
    Pv { pool: Uuid, pv: PoolPv },
    /// What an LU has left where it is not any more: its slabs in this pool, or its file. It has a
    /// [key of its own](Leftover::moved_key), because the LU may be there still.
    Moved { lu: Uuid, pool: Option<Uuid> },
}

impl Leftover {
    /// What an LU leaves, in a pool or not.
    pub fn of_lu(pool: Option<Uuid>) -> Leftover {
        pool.map_or(Leftover::File, |pool| Leftover::Lu { pool })
    }

    /// The name of what an LU has left elsewhere.
    pub fn moved_key(lu: Uuid) -> Uuid {
        Uuid::from_u128(!lu.as_u128())
    }
}

fn slab_size() -> Size {
    Size(SLAB_SIZE_DEFAULT)
}

fn extent_size() -> Size {
    Size(EXTENT_SIZE_DEFAULT)
}

impl PvGroup {
    /// That of the disks of a pool that name none.
    fn is_default(&self) -> bool {
        *self == PvGroup::default()
    }
}

/// By its path, or by the name that its file has.
impl fmt::Display for PoolPv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            PvPlace::Path { path } => f.write_str(path),
            PvPlace::File { .. } => write!(f, "{}.img", self.uuid),
            PvPlace::Missing => write!(f, "missing {}", self.uuid),
        }
    }
}

impl fmt::Display for PvGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "group {name}"),
            None => f.write_str("the group without a name"),
        }
    }
}

impl PvGroup {
    /// As an operator may name it.
    pub fn call(&self) -> String {
        self.name.as_ref().map_or_else(|| self.number.to_string(), ToString::to_string)
    }
}

impl PvStanding {
    pub fn is_member(&self) -> bool {
        *self == PvStanding::Member
    }

    /// Whether it is to be none of the pool.
    pub fn is_going(&self) -> bool {
        matches!(self, PvStanding::Leaving { .. } | PvStanding::Withdrawn)
    }

    /// Whether it has a label, or has had one: another disk may never have got one.
    pub fn is_certain(&self) -> bool {
        matches!(self, PvStanding::Member | PvStanding::Leaving { .. } | PvStanding::Splitting)
    }
}

impl PvAt {
    /// A disk of the group of those that name none.
    pub fn path(path: impl Into<String>) -> PvAt {
        PvAt { path: path.into(), group: None }
    }
}

impl TryFrom<String> for PvAt {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        match text.rsplit_once('@') {
            Some((path, "")) => Ok(PvAt::path(path)),
            // What follows is a part of the path.
            Some((path, group)) if !group.contains('/') => {
                Ok(PvAt { path: path.to_owned(), group: Some(group.parse()?) })
            }
            Some(_) | None => Ok(PvAt::path(text)),
        }
    }
}

impl FromStr for PvAt {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<PvAt> for String {
    fn from(at: PvAt) -> String {
        at.to_string()
    }
}

impl fmt::Display for PvAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_alike = self.path.rsplit_once('@').is_some_and(|(_, end)| !end.contains('/'));
        match &self.group {
            Some(group) => write!(f, "{}@{group}", self.path),
            None if is_alike => write!(f, "{}@", self.path),
            None => f.write_str(&self.path),
        }
    }
}

impl PoolCreate {
    /// The pool that is asked for, of disks that each have a UUID now.
    pub fn pool(&self, uuid: Uuid, pvs: Vec<PoolPv>) -> Pool {
        Pool {
            name: self.name.clone(),
            uuid,
            slab_size: self.slab_size.unwrap_or(Size(SLAB_SIZE_DEFAULT)),
            extent_size: self.extent_size.unwrap_or(Size(EXTENT_SIZE_DEFAULT)),
            checksums: self.checksums,
            settings: PoolSettings::default(),
            pvs,
            becomes: None,
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
        let groups: BTreeSet<&PvGroup> = self.pvs.iter().map(|pv| &pv.group).collect();
        if groups.len() > GROUPS_MAX {
            let groups: Vec<String> = groups.into_iter().map(PvGroup::to_string).collect();
            return usage(format!(
                "has disks of {}; there may be {GROUPS_MAX} failure groups",
                groups.join(" and ")
            ));
        }
        self.settings.validate().map_err(|error| ApiError {
            message: format!("pool '{name}': {}", error.message),
            ..error
        })?;
        for pv in &self.pvs {
            if let PvPlace::Path { path } = &pv.place
                && (!path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.contains('\0'))
            {
                return usage(format!("has a disk whose path is not absolute, '{path}'"));
            }
        }
        Ok(())
    }

    /// A disk by its UUID, or by its path. One that is missing is known by its UUID only.
    pub fn find_pv(&self, which: &str) -> Option<&PoolPv> {
        let path = |pv: &PoolPv| matches!(&pv.place, PvPlace::Path { path } if path == which);
        let file = which.rsplit('/').next().unwrap_or_default();
        let is_file =
            |pv: &PoolPv| matches!(pv.place, PvPlace::File { .. }) && file == pv.to_string();
        self.pvs.iter().find(|pv| path(pv) || is_file(pv) || pv.uuid.to_string() == which)
    }

    /// Everything in it is there several times.
    pub fn has_copies(&self) -> bool {
        let groups: BTreeSet<u16> = self.pvs.iter().map(|pv| pv.group.number).collect();
        groups.len() > 1
    }

    /// The group of this name: the one that there is, or another one.
    pub fn group(&self, name: Option<&GroupName>) -> PvGroup {
        let known = self.pvs.iter().map(|pv| &pv.group).find(|it| it.name.as_ref() == name);
        let is_free = |number: &u16| self.pvs.iter().all(|pv| pv.group.number != *number);
        let next = || (0..u16::MAX).find(is_free).expect("a pool has not so many disks");
        known.cloned().unwrap_or_else(|| PvGroup { number: next(), name: name.cloned() })
    }

    /// The group of this name, or of this number if it has none.
    pub fn find_group(&self, which: &str) -> Option<&PvGroup> {
        self.pvs.iter().map(|pv| &pv.group).find(|group| group.call() == which)
    }

    /// The group of this number; nameless if no disk is known to be in it.
    pub fn group_numbered(&self, number: u16) -> PvGroup {
        let known = self.pvs.iter().map(|pv| &pv.group).find(|group| group.number == number);
        known.cloned().unwrap_or(PvGroup { number, name: None })
    }

    /// The disks of a group.
    pub fn group_pvs(&self, group: &PvGroup) -> impl Iterator<Item = &PoolPv> {
        self.pvs.iter().filter(move |pv| pv.group.number == group.number)
    }

    /// What is wanted of a disk.
    pub fn standing(&self, pv: Uuid) -> Option<PvStanding> {
        self.pvs.iter().find(|it| it.uuid == pv).map(|it| it.standing)
    }

    /// Another standing of a disk, or the first one.
    pub fn stand(&mut self, pv: &PoolPv, standing: PvStanding) {
        match self.pvs.iter_mut().find(|it| it.uuid == pv.uuid) {
            Some(pv) => pv.standing = standing,
            None => self.pvs.push(PoolPv { standing, ..pv.clone() }),
        }
    }

    /// Paths of disks and files that were there before it.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.pvs.iter().filter_map(|pv| match &pv.place {
            PvPlace::Path { path } => Some(path.as_str()),
            PvPlace::File { .. } | PvPlace::Missing => None,
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
    fn a_disk_is_named_with_its_group_or_without() {
        let at = |text: &str| text.parse::<PvAt>().unwrap();
        assert_eq!(at("/dev/sdb"), PvAt::path("/dev/sdb"));
        let left = PvAt { group: Some("left".parse().unwrap()), ..PvAt::path("/dev/sdb") };
        assert_eq!(at("/dev/sdb@left"), left);
        assert_eq!(at("/mnt/a@b/disk"), PvAt::path("/mnt/a@b/disk"));
        assert_eq!(at("/mnt/disk@b@"), PvAt::path("/mnt/disk@b"));
        assert!("/dev/sdb@le ft".parse::<PvAt>().is_err());
        for text in ["/dev/sdb", "/dev/sdb@left", "/mnt/a@b/disk", "/mnt/disk@b@", "/mnt/disk@@"] {
            assert_eq!(at(text).to_string(), text);
        }
    }

    #[test]
    fn groups_have_names_here_and_numbers_on_disk() {
        let (name, mut pool) = ("left".parse().unwrap(), pool());
        assert_eq!(pool.group(None), PvGroup::default());
        let left = pool.group(Some(&name));
        assert_eq!(left, PvGroup { number: 1, name: Some(name.clone()) });
        pool.pvs.push(PoolPv { uuid: Uuid::nil(), group: left.clone(), ..pool.pvs[0].clone() });
        assert_eq!(pool.group(Some(&name)), left);
        let bare = Pool { pvs: Vec::new(), ..pool };
        assert_eq!(bare.group(Some(&name)).number, 0);
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
        let mut many = pool();
        for name in ["one", "two", "three"] {
            assert!(many.validate().is_ok());
            let group = many.group(Some(&name.parse().unwrap()));
            many.pvs.push(PoolPv { group, ..many.pvs[0].clone() });
        }
        assert!(many.has_copies());
        says(many, "there may be 3 failure groups");
        let mut relative = pool();
        relative.pvs[0].place = PvPlace::Path { path: "sdb".to_owned() };
        says(relative, "not absolute");
    }
}
