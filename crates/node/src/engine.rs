//! [`Engine`]: the data plane as the control plane sees it. Every call begins something and returns
//! at once; the answer comes through a [`Done`], from any thread, exactly once. That is what lets
//! the implementation send each piece of work to the core it belongs to, and what lets a store that
//! hangs hang alone: the reconciler counts the step as under way and goes on with the others.
//!
//! The caller keeps the order that `cluster::plan` gives: a mapping is opened on an open device, a
//! device is closed when nothing maps it, there are never two steps on one device or mapping at a
//! time, and the open mappings of one adapter agree on what it is. Every call may come again after
//! a crash or a lost answer and must then succeed.

pub mod recorder;
mod seen;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cluster::{DeviceSpec, DriveSpec, MappingSpec};
use model::check::PoolCheck;
use model::image::ImageUse;
pub use model::pool::Removal;
use model::reservation::Reservations;
use model::stats::DeviceStats;
use model::status::{AdapterState, IscsiSession, MapMemory, Session};
use model::{
    AdapterId, ApiError, Cache, ImportTold, Limits, MappingId, Pool, PoolBecomes, PoolPv,
    PoolSettings, PvGroup, Scrub, Severity, Size, Subject,
};
use uuid::Uuid;
use volume::pool::backup::Taking;
use volume::pool::home::GroupBehind;
pub use volume::pool::home::{CopyAbout, CopyHere, GroupAbout};

use crate::import::Import;
use crate::probe::Probe;
use crate::records::Records;
use crate::socket::SocketSpec;
pub use seen::{Remains, Seen, SeenAbout, SeenDisk, SeenLayer, SeenLu, SeenNow, SeenPool};

/// The data plane.
pub trait Engine: Send + Sync {
    /// Labels the disks of a new pool, whatever is on them. Disks that are this pool already are
    /// kept; when it is not new, they must be.
    fn make_pool(&self, pool: &Pool, is_new: bool, done: Done<Made>);

    /// Opens a pool: fails if a disk is missing, is another's, or is older or newer than what is
    /// known of it. If [that is wished](crate::records::ForceWish), it is forced before, and what
    /// has become of the wish is the answer.
    fn open_pool(&self, pool: &Pool, done: Done<Option<ForceDone>>);

    /// Changes the settings of an open pool.
    fn set_pool(&self, uuid: Uuid, to: PoolSettings, done: Done<()>);

    /// Begins to read all of an open pool in the background, or ends that. How far it is, and what
    /// it has found, is in its [`PoolStatus`].
    fn scrub_pool(&self, uuid: Uuid, wish: ScrubWish, done: Done<()>);

    /// Reads all metadata of an open pool, and answers with what is wrong.
    fn check_pool(&self, uuid: Uuid, done: Done<PoolCheck>);

    /// Takes the next piece of a backup of an open pool; none: it is all there.
    fn back_up(&self, uuid: Uuid, taking: Taking, done: Done<(Taking, Option<Vec<u8>>)>);

    /// Looks which pools these disks are, of none that is open here. Nothing is written.
    fn look_at_pools(&self, paths: &[PathBuf], done: Done<Seen>);

    /// Closes a pool in which nothing is open.
    fn close_pool(&self, uuid: Uuid, done: Done<()>);

    /// Takes the labels of a pool off its disks, and deletes those that are files of ours. Disks
    /// that are not there any more, or have become something else, are left alone.
    fn remove_pool(&self, pool: &Pool, done: Done<()>);

    /// A disk becomes one of an open pool, and those who wait for room hear of it. What is on it is
    /// lost if it is new; otherwise it must be one of the pool already.
    fn join_pv(&self, pool: Uuid, pv: &PoolPv, is_new: bool, done: Done<()>);

    /// Brings what is on a disk of an open pool to the others, and takes it out. It answers when
    /// that is done, also if it has to wait for room, or when the disk is to be kept.
    fn leave_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>);

    /// A disk that is leaving stays, unless it has left.
    fn keep_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>);

    /// The copies of an LU of an open pool, the best one first.
    fn copies(&self, pool: Uuid, lu: Uuid, done: Done<Vec<CopyAbout>>);

    /// An LU that is not open, because no copy of it has everything, is from now on what its copy
    /// in this failure group has.
    fn force(&self, pool: Uuid, lu: Uuid, group: &PvGroup, done: Done<()>);

    /// What is here of a pool that is not open because others, which are not here, may have more.
    fn remains(&self, pool: &Pool, done: Done<Remains>);

    /// Takes a failure group, which has these disks, out of an open pool. The others have
    /// everything that is on them, and go on while its LUs are used; or it is refused. Where it
    /// becomes a pool, that holds what all LUs were at one instant, and is what is given.
    fn split_group(
        &self,
        pool: Uuid,
        pvs: &[PoolPv],
        becomes: Option<&PoolBecomes>,
        done: Done<Option<SeenPool>>,
    );

    /// Takes the label off a disk that has left a pool, and deletes it if it is a file of ours.
    fn forget_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>);

    /// Makes the file of an LU in the data directory, sparse, of the device's size, or its place in
    /// its pool. What is there already is kept, whatever it holds.
    fn create_backing(&self, device: &DeviceSpec, done: Done<Made>);

    /// Serves an open device, which is in no pool, from its pool from now on, while clients use it.
    /// What was there before is below it, and is not written any more. After a failure it is where
    /// it was.
    fn enter_pool(&self, device: &DeviceSpec, done: Done<()>);

    /// Brings what lies below an open device into its pool. It answers when nothing is needed of
    /// that any more, also if it has to wait for room, or when the device is closed.
    fn bring(&self, uuid: Uuid, done: Done<()>);

    /// How many bytes a second are brought of an open device; 0 is any.
    fn set_rate(&self, uuid: Uuid, to: Size, done: Done<()>);

    /// Makes an LU out of an image, durable and verified; answers with its size. What
    /// an import that fails leaves is deleted as everything else is, by [`Engine::remove_backing`].
    fn import(&self, import: &Import, tell: Tell, done: Done<Size>);

    /// Deletes the file of an LU or a medium, or gives the slabs of an LU back to its open pool.
    /// That it is gone already is success.
    fn remove_backing(&self, uuid: Uuid, pool: Option<Uuid>, done: Done<()>);

    /// Opens a device: waits for what a former process left in the kernel, takes its locks, and
    /// fails if the backing is missing, is smaller than the device, or is in use by someone else.
    /// Answers with what it is if that is not known.
    fn open_device(&self, device: &DeviceSpec, done: Done<Option<SeenNow>>);

    /// Opens a drive with what it shall have in it. Its tray is where it was before a restart. A
    /// medium that is not in the library is no failure: the drive is empty.
    fn open_drive(&self, drive: &DriveSpec, done: Done<()>);

    /// Puts another medium into an open drive, or none, closes the tray and tells its clients.
    fn exchange(&self, drive: &DriveSpec, done: Done<()>);

    /// Moves the tray of an open drive. Answers with the initiators that lock it, when they did not
    /// let go of the medium.
    fn tray(&self, uuid: Uuid, motion: Motion, done: Done<Vec<String>>);

    /// Changes the size of an open device and tells its clients.
    fn resize(&self, uuid: Uuid, to: Size, done: Done<()>);

    fn set_cache(&self, uuid: Uuid, to: Cache, done: Done<()>);

    fn set_limits(&self, uuid: Uuid, to: Limits, done: Done<()>);

    /// Freezes open devices of pools all at one instant; answers with the layers that hold what
    /// they were. Nobody lets go of these until they are wanted, or until
    /// [`Engine::forget_snapshots`].
    fn take_snapshots(&self, uuids: &[Uuid], done: Done<Vec<Uuid>>);

    /// Layers that were frozen did not become snapshots.
    fn forget_snapshots(&self, layers: &[(Uuid, Uuid)]);

    /// These layers of an open device are wanted, with their names; all other frozen ones are let
    /// go in the background.
    fn set_snapshots(&self, uuid: Uuid, to: &BTreeMap<Uuid, String>, done: Done<()>);

    /// An open device becomes what a snapshot of it is.
    fn roll_back(&self, uuid: Uuid, to: Uuid, done: Done<()>);

    /// What the layers of an open device hold.
    fn layers(&self, uuid: Uuid, done: Done<BTreeMap<Uuid, Size>>);

    /// Closes a device or a drive when everything in flight has ended and was flushed.
    fn close_device(&self, uuid: Uuid, done: Done<()>);

    /// Serves a device at a LUN of an adapter. The first mapping of an adapter opens it: a
    /// vhost-user-blk one listens on its socket, an iSCSI one lets its initiators log in; a
    /// vhost-user-scsi one waits for [`Engine::listen`].
    fn open_mapping(&self, mapping: &MappingSpec, socket: Option<&SocketSpec>, done: Done<()>);

    /// Lets the client of an adapter with LUNs of its own connect. LUNs that are opened later, or
    /// closed, come and go while it runs.
    fn listen(&self, id: &AdapterId, socket: &SocketSpec, done: Done<()>);

    /// Takes a LUN away and drains what is in flight there. The last one closes its adapter:
    /// sessions end and the socket goes.
    fn close_mapping(&self, id: &MappingId, done: Done<()>);

    /// Looks at an image or device that is to be adopted.
    fn probe(&self, path: &str, usage: ImageUse, done: Done<Probe>);

    /// What runs now.
    fn snapshot(&self, done: Done<Snapshot>);

    /// What is reserved of open devices; those of which nothing is may be left out.
    fn reservations(&self, done: Done<BTreeMap<Uuid, Reservations>>);

    /// Ends every reservation and registration of an open device, as CLEAR does, and tells its
    /// clients.
    fn clear_reservations(&self, uuid: Uuid, done: Done<()>);

    /// The counters of every open device.
    fn stats(&self, done: Done<Vec<DeviceStats>>);

    /// Drains every adapter, flushes every device and stops the cores. Nothing is called after it.
    fn stop(&self, done: Done<()>);
}

/// What an engine is made from.
#[derive(Clone)]
pub struct Context {
    /// The node's identity: images that it serves are locked under it.
    pub node: Uuid,
    /// Where the files of LUs are: `UUID.img`.
    pub lus: PathBuf,
    /// Where the files of pools are: `UUID.img`.
    pub pools: PathBuf,
    /// Where media are.
    pub media: PathBuf,
    /// The CPUs that it may use; all when empty.
    pub cores: Vec<usize>,
    /// How much of the maps of pools' LUs is kept in memory.
    pub map_memory: Size,
    /// Where to serve iSCSI; nowhere when empty. They were free a moment ago; for one that is
    /// taken all the same, [`refused`](crate::tcp::refused) makes the error.
    pub iscsi: Vec<SocketAddr>,
    /// Takes what happens by itself.
    pub report: Reporter,
    /// Keeps what clients have reserved and set.
    pub records: Arc<dyn Records>,
    /// Another one each time that the machine starts.
    pub boot: String,
}

/// Takes word of how far an import is; false when nobody wants it any more.
pub type Tell = Box<dyn Fn(ImportTold) -> bool + Send>;

/// Tells the node that something happened: a client came or went, a store failed, a drain takes
/// long. It never blocks, so a core may call it.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// Something that happened by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub severity: Severity,
    pub subject: Subject,
    /// A word for programs, like `client-connected`.
    pub kind: &'static str,
    pub message: String,
    pub next: Option<String>,
}

/// Whether a backing had to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    New,
    WasThere,
    /// A pool, of a failure group of another one.
    Pool(Box<SeenPool>),
    /// A pool is open that was to be forced.
    Forced(ForceDone),
    /// What an LU is of which that was not known.
    Lu(SeenNow),
}

/// What has become of the wish to force a pool that is open now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForceDone {
    pub group: u16,
    /// It is used without disks that may have more. Otherwise they came back before.
    pub is_forced: bool,
}

/// What an engine says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Cores that serve requests.
    pub cores: u32,
    pub map_memory: MapMemory,
    pub pools: BTreeMap<Uuid, PoolStatus>,
    pub devices: BTreeMap<Uuid, DeviceStatus>,
    pub drives: BTreeMap<Uuid, DriveStatus>,
    pub adapters: BTreeMap<AdapterId, AdapterStatus>,
    /// Addresses that iSCSI is served on, with the ports that they have.
    pub portals: Vec<SocketAddr>,
}

/// An open pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// LUs that its disks know, whether anybody else does or not.
    pub lus: u64,
    pub disks: BTreeMap<Uuid, PvUse>,
    /// Why disks that are to leave do not get empty.
    pub waits: BTreeMap<Uuid, Trouble>,
    /// Snapshots of its LUs that were removed, and are not gone yet.
    pub removals: Vec<Removal>,
    /// Failure groups that lack something.
    pub behind: Vec<GroupBehind>,
    /// The scrub that is under way, or the last one.
    pub scrub: Option<Scrub>,
}

/// What is to become of the scrub of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubWish {
    Begin,
    Cancel,
}

/// A disk of an open pool, in whole slabs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PvUse {
    pub size: Size,
    /// What LUs can be given of it: nothing when it leaves.
    pub free: Size,
    /// What LUs have of it.
    pub used: Size,
}

/// An open device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Bytes that its backing takes, where that can be said.
    pub allocated: Option<Size>,
    pub health: Health,
    /// What is wrong with it now.
    pub problem: Option<Trouble>,
    /// How far it is brought into its pool, if it is.
    pub brought: Option<BroughtStatus>,
}

/// How far a device is brought into its pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BroughtStatus {
    pub bytes: Size,
    pub of: Size,
    /// Why that does not go on.
    pub waits: Option<Trouble>,
}

/// An open drive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriveStatus {
    /// Its tray is out.
    pub is_open: bool,
    /// Clients see a medium.
    pub is_loaded: bool,
    /// Why the drive of the node that it is cannot be used.
    pub problem: Option<Trouble>,
    /// Initiators that forbid to take the medium out.
    pub locked_by: Vec<String>,
}

/// How a tray is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// Unless clients lock it, who are told of the wish and have a moment to let go.
    Open,
    /// Whatever clients say.
    Force,
    Close,
}

/// How an open device's store does, as measured by requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Works,
    /// Some requests fail, and it can be read.
    Degraded,
    /// It cannot be read.
    Failed,
}

/// An open adapter, with all its mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterStatus {
    pub state: AdapterState,
    /// Of a vhost-user adapter.
    pub session: Option<Session>,
    /// Of an iSCSI adapter.
    pub sessions: Vec<IscsiSession>,
    /// What is wrong with it now, or why the last session ended badly.
    pub problem: Option<Trouble>,
}

impl AdapterStatus {
    /// How many clients are on it.
    pub fn sessions(&self) -> u64 {
        let of_vhost_user = self.sessions.is_empty() && self.state.has_session();
        self.sessions.len() as u64 + u64::from(of_vhost_user)
    }
}

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub message: String,
    pub next: Option<String>,
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Trouble {
        Trouble { message: error.message, next: error.next }
    }
}

/// The duty to answer once. Dropping it unanswered answers that the engine gave up, so that nobody
/// waits for ever.
#[must_use = "someone waits for the answer"]
pub struct Done<T>(Option<Callback<T>>);

type Callback<T> = Box<dyn FnOnce(Result<T, ApiError>) + Send>;

impl<T> Done<T> {
    pub fn new(callback: impl FnOnce(Result<T, ApiError>) + Send + 'static) -> Done<T> {
        Done(Some(Box::new(callback)))
    }

    pub fn give(mut self, answer: Result<T, ApiError>) {
        if let Some(callback) = self.0.take() {
            callback(answer);
        }
    }

    pub fn ok(self, value: T) {
        self.give(Ok(value));
    }

    pub fn fail(self, error: ApiError) {
        self.give(Err(error));
    }
}

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback(Err(ApiError::failed("the data plane gave no answer")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_answer_comes_exactly_once() {
        let (tx, rx) = mpsc::channel();
        let done = |tx: &mpsc::Sender<_>| {
            let tx = tx.clone();
            Done::new(move |answer: Result<u32, ApiError>| tx.send(answer).unwrap())
        };
        done(&tx).ok(7);
        assert_eq!(rx.try_recv().unwrap(), Ok(7));
        drop(done(&tx));
        assert_eq!(rx.try_recv().unwrap().unwrap_err().message, "the data plane gave no answer");
        assert!(rx.try_recv().is_err());
    }
}
