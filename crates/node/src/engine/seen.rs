//! Pools as their disks tell of them: what [`look_at_pools`](super::Engine::look_at_pools) has
//! found, of whichever node they are.

use model::{ApiError, Size};
use uuid::Uuid;
use volume::pool::home::GroupAbout;

/// What was found on some disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub pools: Vec<SeenPool>,
    /// Disks that could not be looked at, or that are of no pool.
    pub unread: Vec<(String, ApiError)>,
}

/// What is here of a pool of which only failure groups are found that lack something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Its disks that are not.
    pub missing: Vec<String>,
    /// Failure groups that are all here, the best one first.
    pub groups: Vec<GroupAbout>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPool {
    pub uuid: Uuid,
    pub name: String,
    pub slab_size: Size,
    pub extent_size: Size,
    pub checksums: bool,
    /// In the order of their groups and paths.
    pub disks: Vec<SeenDisk>,
    /// How many disks it has.
    pub wanted: u16,
    /// The failure groups of those that are not here, where the others are enough. None: nobody
    /// knows.
    pub missing: Vec<Option<u16>>,
    pub lus: Vec<SeenLu>,
    /// LUs that were being made or removed: what they have is nobody's.
    pub unfinished: Vec<Uuid>,
    /// What the plane is to find of it in its records when it is opened here.
    pub record: Vec<u8>,
    /// Where disks that are not here may have more, and nothing else is in the way: the failure
    /// groups that are all here, the best one first. It can be forced with one of these.
    pub groups: Vec<GroupAbout>,
    /// Why it cannot be opened here.
    pub problem: Option<ApiError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDisk {
    pub path: String,
    pub uuid: Uuid,
    pub group: u16,
    pub size: Size,
}

/// An LU; an error says why it cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLu {
    pub uuid: Uuid,
    /// No copy of it is here that has everything.
    pub outdated: bool,
    pub about: Result<SeenAbout, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAbout {
    pub name: String,
    pub size: Size,
    pub block_size: u32,
    pub thick: bool,
    /// The LU and the layer that it is a clone of.
    pub base: Option<(Uuid, Uuid)>,
    /// Frozen layers that are whole, the oldest first.
    pub layers: Vec<SeenLayer>,
}

/// What an LU is that was imported from a copy that had missed something, now that it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNow {
    pub size: Size,
    pub layers: Vec<SeenLayer>,
}

/// A frozen layer of an LU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLayer {
    pub uuid: Uuid,
    /// Of the snapshot that it is. Empty: it was about to become one, or is what the LU was before
    /// it went back to one.
    pub name: String,
    /// Of the LU at that time.
    pub size: Size,
}
