//! REST: what the command line, the web and other programs speak.
//!
//! | module | holds |
//! |---|---|
//! | here | [`Api`]: what a handler may ask for, and how long it waits |
//! | [`routes`], [`clients`], [`pools`], [`pool_import`], [`snapshots`], [`optical`], [`adding`], [`importing`], [`pvs`], [`reservations`] | the routes and their handlers |
//! | [`promises`] | what is told when more of a pool is promised than it should |
//! | [`document`] | the OpenAPI document, generated from the handlers |
//! | [`listen`] | the Unix socket, TCP, and the thread that serves both |
//!
//! On the Unix socket the kernel says who is calling, and root and the node's own user may do
//! everything. On TCP there is no such word, so until there is TLS with tokens only reading is
//! served there.

pub mod adding;
pub mod backups;
pub mod clients;
pub mod document;
pub mod force;
pub mod importing;
pub mod listen;
pub mod optical;
pub mod pool_import;
pub mod pools;
pub mod promises;
pub mod pvs;
pub mod reservations;
pub mod routes;
pub mod scrubs;
pub mod snapshots;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use model::check::PoolCheck;
use model::image::ImageUse;
use model::reservation::Reservations;
use model::stats::DeviceStats;
use model::{ApiError, Pool, PvGroup, Size};
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;
use volume::pool::backup::Taking;
use volume::pool::home::CopyAbout;

use self::importing::Imports;
use self::promises::Promises;
use crate::control::{Change, Changed, Message};
use crate::engine::{Done, Engine, Motion, Remains, Report, ScrubWish, Snapshot};
use crate::events::Events;
use crate::probe::Probe;
use crate::pv::Looker;
use crate::view::{Picture, Published};
use crate::world::{self, World};

/// How long a change may take to be in effect before the caller is told that it is still under way.
pub const CHANGE_WAIT: Duration = Duration::from_secs(30);

/// How long it may take to read all metadata of a pool.
pub const CHECK_WAIT: Duration = Duration::from_secs(60 * 60);

/// How long the data plane may take to say what runs.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(2);

/// How long a look at an image may take.
pub const PROBE_WAIT: Duration = Duration::from_secs(20);

/// How long a tray may take to move: clients have a few seconds to let go of a medium.
pub const TRAY_WAIT: Duration = Duration::from_secs(15);

/// What is fixed while a node runs.
#[derive(Debug, Clone)]
pub struct Info {
    pub node: Uuid,
    pub version: &'static str,
    pub data: PathBuf,
    pub lus: PathBuf,
    pub pools: PathBuf,
    pub media: PathBuf,
    pub run: PathBuf,
    pub http: Option<String>,
    pub started: Timestamp,
    /// The same moment on the clock that never goes back.
    pub started_at: Duration,
}

/// What handlers work with. Clones are the same.
#[derive(Clone)]
pub struct Api {
    pub info: Arc<Info>,
    pub world: Arc<dyn World>,
    pub engine: Arc<dyn Engine>,
    pub events: Events,
    pub published: Arc<RwLock<Arc<Published>>>,
    pub control: Sender<Message>,
    /// Wakes those who wait for events.
    pub news: Arc<Notify>,
    pub closing: Closing,
    pub looker: Looker,
    pub imports: Imports,
    pub promises: Promises,
}

/// Says that the API is about to end. Clones are the same.
#[derive(Clone)]
pub struct Closing(Arc<watch::Sender<bool>>);

impl Default for Closing {
    fn default() -> Closing {
        Closing(Arc::new(watch::Sender::new(false)))
    }
}

impl Closing {
    pub fn close(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is about to end.
    pub async fn closed(&self) {
        // An error means that nobody can say so any more, which is as good as being told.
        let _ = self.0.subscribe().wait_for(|is_closing| *is_closing).await;
    }
}

impl Api {
    /// Makes a change and waits until it is in effect.
    pub async fn change(&self, change: Change) -> Result<Changed, ApiError> {
        let changed = self.make(change).await;
        // Also what is not in effect is promised.
        self.promises.look(self).await;
        changed
    }

    async fn make(&self, change: Change) -> Result<Changed, ApiError> {
        let (answer, waits) = oneshot::channel();
        let reply = Box::new(move |result| {
            // A caller who hung up does not want to know.
            let _ = answer.send(result);
        });
        self.control.send(Message::Change(change, reply)).map_err(|_| gone())?;
        match tokio::time::timeout(CHANGE_WAIT, waits).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(ApiError::not_now(format!(
                "the change is kept, but is not in effect after {} s",
                CHANGE_WAIT.as_secs()
            ))
            .then("viaduct status shows what it waits for")),
        }
    }

    /// Something has happened that others may want to know of.
    pub fn tell(&self, report: Report) {
        // Without a control thread the node is gone.
        let _ = self.control.send(Message::Report(report));
    }

    pub async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        self.ask(SNAPSHOT_WAIT, |done| self.engine.snapshot(done)).await
    }

    pub async fn stats(&self) -> Result<Vec<DeviceStats>, ApiError> {
        self.ask(SNAPSHOT_WAIT, |done| self.engine.stats(done)).await
    }

    pub async fn reservations(&self) -> Result<BTreeMap<Uuid, Reservations>, ApiError> {
        self.ask(SNAPSHOT_WAIT, |done| self.engine.reservations(done)).await
    }

    pub async fn clear_reservations(&self, uuid: Uuid) -> Result<(), ApiError> {
        self.ask(SNAPSHOT_WAIT, |done| self.engine.clear_reservations(uuid, done)).await
    }

    pub async fn scrub_pool(&self, uuid: Uuid, wish: ScrubWish) -> Result<(), ApiError> {
        self.ask(CHANGE_WAIT, |done| self.engine.scrub_pool(uuid, wish, done)).await
    }

    /// Reads all metadata of a pool.
    pub async fn check_pool(&self, uuid: Uuid) -> Result<PoolCheck, ApiError> {
        self.ask(CHECK_WAIT, |done| self.engine.check_pool(uuid, done)).await
    }

    /// Takes the next piece of a backup.
    pub async fn back_up(
        &self,
        uuid: Uuid,
        taking: Taking,
    ) -> Result<(Taking, Option<Vec<u8>>), ApiError> {
        self.ask(CHECK_WAIT, |done| self.engine.back_up(uuid, taking, done)).await
    }

    /// The copies of an LU, the best one first.
    pub async fn copies(&self, pool: Uuid, lu: Uuid) -> Result<Vec<CopyAbout>, ApiError> {
        self.ask(SNAPSHOT_WAIT, |done| self.engine.copies(pool, lu, done)).await
    }

    /// What is here of a pool that is not open because others may have more.
    pub async fn remains(&self, pool: &Pool) -> Result<Remains, ApiError> {
        self.ask(CHECK_WAIT, |done| self.engine.remains(pool, done)).await
    }

    /// Takes one of them for all of it.
    pub async fn force(&self, pool: Uuid, lu: Uuid, group: &PvGroup) -> Result<(), ApiError> {
        self.ask(CHECK_WAIT, |done| self.engine.force(pool, lu, group, done)).await
    }

    /// Freezes LUs all at one instant; answers with the layers that hold what they were.
    pub async fn take_snapshots(&self, uuids: &[Uuid]) -> Result<Vec<Uuid>, ApiError> {
        self.ask(CHANGE_WAIT, |done| self.engine.take_snapshots(uuids, done)).await
    }

    pub async fn roll_back(&self, uuid: Uuid, to: Uuid) -> Result<(), ApiError> {
        self.ask(CHANGE_WAIT, |done| self.engine.roll_back(uuid, to, done)).await
    }

    pub async fn resize(&self, uuid: Uuid, to: Size) -> Result<(), ApiError> {
        self.ask(CHANGE_WAIT, |done| self.engine.resize(uuid, to, done)).await
    }

    pub async fn layers(&self, uuid: Uuid) -> Result<BTreeMap<Uuid, Size>, ApiError> {
        self.ask(SNAPSHOT_WAIT, |done| self.engine.layers(uuid, done)).await
    }

    /// Moves a tray; answers with who locks it.
    pub async fn tray(&self, uuid: Uuid, motion: Motion) -> Result<Vec<String>, ApiError> {
        self.ask(TRAY_WAIT, |done| self.engine.tray(uuid, motion, done)).await
    }

    pub async fn probe(&self, path: &str, usage: ImageUse) -> Result<Probe, ApiError> {
        self.ask(PROBE_WAIT, |done| self.engine.probe(path, usage, done)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        wait: Duration,
        begin: impl FnOnce(Done<T>),
    ) -> Result<T, ApiError> {
        let (answer, waits) = oneshot::channel();
        begin(Done::new(move |result| {
            let _ = answer.send(result);
        }));
        match tokio::time::timeout(wait, waits).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(ApiError::not_now(format!(
                "the data plane did not answer within {} s",
                wait.as_secs()
            ))
            .then("look for a store that hangs: viaduct event ls")),
        }
    }

    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn picture<'a>(&'a self, published: &'a Published, snapshot: &'a Snapshot) -> Picture<'a> {
        let Info { lus, pools, run, .. } = &*self.info;
        Picture { published, snapshot, lus, pools, run }
    }
}

/// Does what may block on a thread of its own.
async fn on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (tell, told) = oneshot::channel();
    spawn(name, move || drop(tell.send(work())))?;
    told.await.unwrap_or_else(|_| Err(ApiError::failed("the work was given up")))
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
    let thread = world::spawn(name, work);
    thread.map(drop).map_err(|error| ApiError::failed(format!("cannot start a thread: {error}")))
}

/// Paths are the node's: a relative one would mean another file to who asks.
fn must_be_absolute(path: &str) -> Result<(), ApiError> {
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(ApiError::usage(format!("the path '{path}' is not absolute"))),
    }
}

fn gone() -> ApiError {
    ApiError::not_now("the node is stopping").then("run the command again when it is back")
}
