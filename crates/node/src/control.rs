//! The control thread: the one owner of the desired state and of the reconciler. It takes one
//! message at a time, a change, the end of a step or a report, and after each batch begins what is
//! ready, answers who waited and publishes a picture that others read without asking.
//!
//! It waits for nobody: steps end by message, however long they take. Only `kv` is called directly,
//! because a change is not a change before it is durable.

mod answers;
mod pools;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cluster::{Desired, MappingSpec, Moved, Part, Source, Step};
use model::config::{ConfigRestore, RestoreOutcome};
use model::lu::Forced;
use model::status::Phase;
use model::{
    AdapterId, ApiError, Chap, ChapSecrets, Client, ClientChange, ClientName, CloneCreate, Config,
    DriveCreate, Leftover, LimitsChange, Lu, LuAdopt, LuCreate, LuMigrate, LuName, LuResize,
    MapRequest, Mapping, MappingId, Medium, MediumName, PoolName, PoolPv, PvStanding, Redirect,
    Severity, Snapshot, SnapshotRef, SocketOwner, Subject, Via,
};
use uuid::Uuid;

use crate::datadir::PRIVATE_FILE;
use crate::engine::{Done, Engine, Made, Report};
use crate::events::Events;
use crate::owner;
use crate::probe::Probe;
use crate::reconcile::{Ended, Reconciler};
use crate::socket::{self, CLIENT_SOCKET_MODE, SocketSpec};
use crate::state::optical::{self, kind_and_name};
use crate::state::{Mark, State, migrations, ops, pool_import, pool_pvs, pool_split, snapshots};
use crate::view::Published;
use crate::world::{self, World};
pub use pools::PoolChange;
use pools::found;

/// Messages taken before the plan is made anew.
const BATCH_MAX: usize = 256;

/// A change of the desired state.
#[derive(Debug, Clone)]
pub enum Change {
    LuCreate(LuCreate),
    LuAdopt(LuAdopt, Probe),
    LuResize(LuName, LuResize, Option<Probe>),
    LuLimits(LuName, LimitsChange),
    /// It was made what a copy had of it.
    LuForced(LuName, Forced),
    LuMigrate(LuName, LuMigrate),
    LuMigrateCancel(LuName),
    /// With the pool that it is in, if it is in one.
    LuImport(LuName, Uuid, Option<Uuid>, ImportChange),
    LuRemove(LuName),
    Snapshot(SnapshotChange),
    Pool(PoolChange),
    Optical(OpticalChange),
    ClientCreate(Client),
    ClientChange(ClientName, ClientChange),
    ClientChap(ClientName, Option<(Chap, ChapSecrets)>),
    ClientRedirect(ClientName, Option<Redirect>),
    ClientRemove(ClientName),
    Map(MapRequest),
    Unmap(LuName, ClientName, Option<Via>),
    Restore(ConfigRestore),
}

/// How far an import has come.
#[derive(Debug, Clone)]
pub enum ImportChange {
    /// It is about to be made.
    Begin,
    /// It holds the image.
    End(LuCreate),
    /// It will never be an LU.
    GiveUp,
}

/// A change of snapshots and clones.
#[derive(Debug, Clone)]
pub enum SnapshotChange {
    /// They were taken, all at one instant.
    Add(Vec<(LuName, Snapshot)>),
    Remove(SnapshotRef),
    Clone(CloneCreate),
}

/// A change of media and drives.
#[derive(Debug, Clone)]
pub enum OpticalChange {
    /// Its copy is in the library, and has no name yet.
    MediumAdd(Medium),
    MediumRemove(MediumName),
    DriveCreate(DriveCreate),
    DriveRemove(LuName),
    /// What is in a drive; its tray is open, if that was for clients to say.
    DriveLoad(LuName, Option<MediumName>),
}

/// What a change did, told when it is in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    pub revision: u64,
    pub lu: Option<LuName>,
    pub mapping: Option<Mapping>,
    pub restored: Option<RestoreOutcome>,
}

/// What the control thread is told.
pub enum Message {
    Change(Change, Reply),
    Ended(Step, Result<Option<Made>, ApiError>),
    Report(Report),
    /// Are you there?
    Ping(Box<dyn FnOnce() + Send>),
    /// Take no more changes, drain, and say when done.
    Stop(Box<dyn FnOnce() + Send>),
    Stopped,
}

/// Takes the answer to a change.
pub type Reply = Box<dyn FnOnce(Result<Changed, ApiError>) + Send>;

/// What the control thread works with.
pub struct Parts {
    pub world: Arc<dyn World>,
    pub engine: Arc<dyn Engine>,
    pub state: State,
    pub events: Events,
    pub published: Arc<RwLock<Arc<Published>>>,
    pub sender: Sender<Message>,
    /// The cluster's part in target names.
    pub cluster: String,
    /// Where the sockets of clients are.
    pub run: PathBuf,
    /// Where a copy of the configuration is kept for people.
    pub config_copy: PathBuf,
}

/// The owner of state and reconciler.
pub struct Control {
    parts: Parts,
    reconciler: Reconciler,
    config: Arc<Config>,
    phase: Phase,
    waiters: Vec<Waiter>,
    running: Option<Box<dyn FnOnce() + Send>>,
    stopping: Vec<Box<dyn FnOnce() + Send>>,
}

/// Someone who made a change and waits for it to be in effect.
struct Waiter {
    parts: BTreeSet<Part>,
    subject: Subject,
    changed: Changed,
    reply: Reply,
}

impl Control {
    pub fn new(parts: Parts) -> Control {
        let state = &parts.state;
        let mut reconciler = Reconciler::new(state.made().clone(), state.leftovers().clone());
        reconciler.want(desired(state, &parts.cluster), state.made(), state.leftovers());
        let config = Arc::new(state.config().clone());
        let control = Control {
            parts,
            reconciler,
            config,
            phase: Phase::Starting,
            waiters: Vec::new(),
            running: None,
            stopping: Vec::new(),
        };
        control.copy_config();
        control.publish();
        control
    }

    /// Calls this when everything that can be brought back is back.
    pub fn on_running(mut self, running: Box<dyn FnOnce() + Send>) -> Control {
        self.running = Some(running);
        self
    }

    /// Runs until the engine has stopped.
    pub fn run(mut self, messages: &Receiver<Message>) {
        self.turn();
        loop {
            let first = match self.wait(messages) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for message in first.into_iter().chain(drain(messages)) {
                if self.take(message) {
                    return;
                }
            }
            self.turn();
        }
    }

    fn wait(&self, messages: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        match self.wake_at() {
            Some(at) => messages.recv_timeout(at.saturating_sub(self.now())),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When there is something to do without being told.
    fn wake_at(&self) -> Option<Duration> {
        let wakes = [self.reconciler.wake_at(), self.parts.events.wake_at()];
        wakes.into_iter().flatten().min()
    }

    /// Takes one message; true when that was the last one.
    pub fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Change(change, reply) => self.change(change, reply),
            Message::Ended(step, result) => self.ended(&step, result),
            Message::Report(report) => {
                self.parts.events.observe(self.now(), self.parts.world.wall(), report);
            }
            Message::Ping(answer) => answer(),
            Message::Stop(stopped) => self.stop(stopped),
            Message::Stopped => {
                self.parts.events.tell_left_out(Duration::MAX, self.parts.world.wall());
                self.stopping.drain(..).for_each(|stopped| stopped());
                return true;
            }
        }
        false
    }

    /// Begins what is ready, answers who waited, publishes.
    pub fn turn(&mut self) {
        self.parts.events.tell_left_out(self.now(), self.parts.world.wall());
        if self.phase != Phase::Stopping {
            for step in self.reconciler.next(self.now()) {
                self.begin(step);
            }
            if self.phase == Phase::Starting && self.reconciler.is_quiet() {
                self.phase = Phase::Running;
            }
        }
        // Who is answered looks at once, and must see what was answered.
        self.publish();
        self.answer_waiters();
        if self.phase == Phase::Running
            && let Some(running) = self.running.take()
        {
            running();
        }
    }

    fn now(&self) -> Duration {
        self.parts.world.now()
    }

    fn change(&mut self, change: Change, reply: Reply) {
        if self.phase == Phase::Stopping {
            return reply(Err(ApiError::not_now("the node is stopping and takes no changes")
                .then("run the command again when it is back")));
        }
        match self.commit(change) {
            Err(error) => reply(Err(error)),
            Ok((subject, parts, changed)) => {
                self.waiters.push(Waiter { parts, subject, changed, reply });
            }
        }
    }

    /// Makes a change durable; what it is about, what must settle, and what to answer.
    fn commit(&mut self, change: Change) -> Result<(Subject, BTreeSet<Part>, Changed), ApiError> {
        let before = Arc::clone(&self.config);
        let is_forced =
            matches!(change, Change::LuForced(..) | Change::Pool(PoolChange::Force(..)));
        let prepared = self.prepare(&before, change)?;
        match &prepared.library {
            None => self.parts.state.commit(prepared.next, &prepared.marks)?,
            Some(Library::Add(medium)) => self.parts.state.add_medium(medium.clone())?,
            Some(Library::Remove(medium)) => self.parts.state.remove_medium(medium)?,
        }
        self.take_config();
        let changed = Changed { revision: self.config.revision, ..prepared.changed };
        let mut parts = self.parts_of(&prepared.subject, &changed, &before);
        if is_forced {
            self.reconciler.hurry(&parts);
        }
        if let Some(Library::Remove(medium)) = &prepared.library {
            parts.insert(Part::Device(medium.uuid));
        }
        let subject = prepared.subject;
        let (kind, message) = prepared.event;
        let severity = prepared.severity;
        self.report(Report { severity, subject: subject.clone(), kind, message, next: None });
        Ok((subject, parts, changed))
    }

    fn prepare(&self, config: &Config, change: Change) -> Result<Prepared, ApiError> {
        match change {
            Change::LuCreate(request) => {
                let next = ops::lu_create(config, &request, self.parts.world.uuid())?;
                let message = format!("LU '{}' was made, {}", request.name, request.size);
                Ok(Prepared::lu(next, request.name, "lu-created", message))
            }
            Change::LuAdopt(request, probe) => {
                let next = ops::lu_adopt(config, &request, &probe, self.parts.world.uuid())?;
                let lu = next.lus.last().map(|lu| lu.name.clone());
                let name = lu.ok_or_else(|| ApiError::failed("nothing was adopted"))?;
                let message = format!("LU '{name}' was made of {}", probe.path);
                Ok(Prepared::lu(next, name, "lu-adopted", message))
            }
            Change::LuResize(name, request, probe) => {
                let next = ops::lu_resize(config, &name, &request, probe.as_ref())?;
                let size = next.lu(&name).map(|lu| lu.size).unwrap_or_default();
                let message = format!("LU '{name}' was resized to {size}");
                Ok(Prepared::lu(next, name, "lu-resized", message))
            }
            Change::LuLimits(name, change) => {
                let next = ops::lu_limits(config, &name, change)?;
                let message = format!("LU '{name}' has other limits");
                Ok(Prepared::lu(next, name, "lu-limited", message))
            }
            Change::LuForced(name, forced) => pools::prepare_forced(config, name, forced),
            Change::LuMigrate(name, request) => prepare_migrate(config, name, &request),
            Change::LuMigrateCancel(name) => {
                let (next, marks) = migrations::cancel(config, &name)?;
                let message = format!("LU '{name}' stays where it is");
                Ok(Prepared { marks, ..Prepared::lu(next, name, "lu-migration-ended", message) })
            }
            Change::LuImport(lu, uuid, pool, to) => prepare_import(config, lu, (uuid, pool), to),
            Change::LuRemove(name) => {
                let (next, marks) = ops::lu_remove(config, &name)?;
                let message = format!("LU '{name}' was removed");
                Ok(Prepared { marks, ..Prepared::lu(next, name, "lu-removed", message) })
            }
            Change::Snapshot(change) => self.prepare_snapshot(config, change),
            Change::Pool(change) => self.prepare_pool(config, change),
            Change::Optical(change) => self.prepare_optical(config, change),
            Change::ClientCreate(client) => {
                owner::resolve(client.socket_owner.as_ref())?;
                let next = ops::client_create(config, &client)?;
                let message = format!("client '{}' was made", client.name);
                Ok(Prepared::client(next, client.name, "client-created", message))
            }
            Change::ClientChange(name, change) => {
                let next = ops::client_change(config, &name, &change)?;
                let message = format!("client '{name}' has other iSCSI names");
                Ok(Prepared::client(next, name, "client-changed", message))
            }
            Change::ClientChap(name, chap) => prepare_chap(config, name, chap),
            Change::ClientRedirect(name, redirect) => prepare_redirect(config, name, redirect),
            Change::ClientRemove(name) => {
                let next = ops::client_remove(config, &name)?;
                let message = format!("client '{name}' was removed");
                Ok(Prepared::client(next, name, "client-removed", message))
            }
            Change::Map(request) => self.prepare_map(config, &request),
            Change::Unmap(lu, client, via) => {
                let (next, mapping) = ops::unmap(config, &lu, &client, via)?;
                let thing = kind_and_name(config, &lu);
                let message = format!("{thing} was unmapped from client '{client}'");
                Ok(Prepared::mapping(next, mapping, "unmapped", message))
            }
            Change::Restore(request) => prepare_restore(config, &request),
        }
    }

    fn prepare_snapshot(
        &self,
        config: &Config,
        change: SnapshotChange,
    ) -> Result<Prepared, ApiError> {
        match change {
            SnapshotChange::Add(taken) => {
                let next = snapshots::add(config, &taken)?;
                let names: Vec<String> =
                    taken.iter().map(|(lu, it)| format!("'{lu}@{}'", it.name)).collect();
                let (plural, are) = if taken.len() == 1 { ("", "was") } else { ("s", "were") };
                let message = format!("snapshot{plural} {} {are} taken", names.join(", "));
                let lu = taken.into_iter().next().map(|(lu, _)| lu);
                let lu = lu.ok_or_else(|| ApiError::failed("nothing was taken"))?;
                Ok(Prepared::lu(next, lu, "snapshot-taken", message))
            }
            SnapshotChange::Remove(snapshot) => {
                let next = snapshots::remove(config, &snapshot)?;
                let message = format!("snapshot '{snapshot}' was removed");
                Ok(Prepared::lu(next, snapshot.lu, "snapshot-removed", message))
            }
            SnapshotChange::Clone(request) => {
                let next = snapshots::clone(config, &request, self.parts.world.uuid())?;
                let message =
                    format!("LU '{}' was made, a clone of '{}'", request.name, request.of);
                Ok(Prepared::lu(next, request.name, "lu-cloned", message))
            }
        }
    }

    fn prepare_optical(
        &self,
        config: &Config,
        change: OpticalChange,
    ) -> Result<Prepared, ApiError> {
        let media = self.parts.state.media();
        match change {
            OpticalChange::MediumAdd(medium) => {
                optical::medium_add(media, &medium.name)?;
                let message = format!("medium '{}' was added, {}", medium.name, medium.size);
                let library = Library::Add(medium);
                Ok(Prepared::library(config, library, "medium-added", message))
            }
            OpticalChange::MediumRemove(name) => {
                let medium = optical::medium_remove(config, media, &name)?.clone();
                let (library, message) =
                    (Library::Remove(medium), format!("medium '{name}' was removed"));
                Ok(Prepared::library(config, library, "medium-removed", message))
            }
            OpticalChange::DriveCreate(request) => {
                let uuid = self.parts.world.uuid();
                let next = optical::drive_create(config, media, &request, uuid)?;
                let message = format!("drive '{}' was made", request.name);
                Ok(Prepared::drive(next, request.name, "drive-created", message))
            }
            OpticalChange::DriveRemove(name) => {
                let next = optical::drive_remove(config, &name)?;
                let message = format!("drive '{name}' was removed");
                Ok(Prepared::drive(next, name, "drive-removed", message))
            }
            OpticalChange::DriveLoad(name, medium) => {
                let next = optical::drive_load(config, media, &name, medium.as_ref())?;
                let (kind, message) = match medium {
                    Some(medium) => (
                        "drive-loaded",
                        format!("medium '{medium}' was loaded into drive '{name}'"),
                    ),
                    None => ("drive-emptied", format!("drive '{name}' was emptied")),
                };
                Ok(Prepared::drive(next, name, kind, message))
            }
        }
    }

    fn prepare_map(&self, config: &Config, request: &MapRequest) -> Result<Prepared, ApiError> {
        let (next, mapping) = ops::map(config, request)?;
        let Mapping { lu, client, slot, via, lun, .. } = &mapping;
        let place = match via {
            Via::VhostUserBlk => format!("slot {slot}"),
            Via::VhostUserScsi | Via::Iscsi => format!("LUN {lun} at slot {slot}"),
        };
        if via.has_socket() {
            socket::check_path(&socket::path_of(&self.parts.run, &mapping.adapter()))?;
        }
        let thing = kind_and_name(config, lu);
        let message = format!("{thing} was mapped to client '{client}' at {place} via {via}");
        Ok(Prepared::mapping(next, mapping, "mapped", message))
    }

    /// The devices and mappings that a change is about.
    fn parts_of(&self, subject: &Subject, changed: &Changed, before: &Config) -> BTreeSet<Part> {
        let uuid = |name: &LuName| self.config.device(name).or_else(|| before.device(name));
        let device = |name: &LuName| uuid(name).map(Part::Device);
        let adapter = |mapping: &Mapping| {
            (mapping.via == Via::VhostUserScsi).then(|| Part::Adapter(mapping.adapter()))
        };
        let mapping =
            |it: &Mapping| [Some(Part::Mapping(it.id())), adapter(it)].into_iter().flatten();
        match (subject, &changed.mapping) {
            (Subject::Lu(name) | Subject::Drive(name), _) => {
                // What its pool waits for, it waits for too.
                let pool = |config: &Config| Some(config.pool_of(config.lu(name)?)?.uuid);
                let pool = pool(&self.config).or_else(|| pool(before)).map(Part::Pool);
                device(name).into_iter().chain(pool).collect()
            }
            (Subject::Pool(name), _) => {
                let pool = self.config.pool(name).or_else(|| before.pool(name));
                let is_new = |pv: &&PoolPv| {
                    let before = before.pool(name).and_then(|pool| pool.standing(pv.uuid));
                    pv.standing == PvStanding::Joining && before.is_none()
                };
                let joining = pool.into_iter().flat_map(|pool| pool.pvs.iter().filter(is_new));
                let joining = joining.map(|pv| Part::Pv(pv.uuid));
                // Those that came with it, and can be opened as far as is known.
                let is_new = |lu: &&Lu| before.lu(&lu.name).is_none() && !lu.outdated;
                let lus = self.config.lus_in(name).filter(is_new);
                let parts = joining.chain(lus.map(|lu| Part::Device(lu.uuid)));
                pool.map(|pool| Part::Pool(pool.uuid)).into_iter().chain(parts).collect()
            }
            // What is in a drive may become readable.
            (Subject::Medium(name), _) => {
                let drives = self.config.drives_with(name);
                drives.map(|drive| Part::Device(drive.uuid)).collect()
            }
            (Subject::Adapter(_), changed) => {
                let parts =
                    changed.iter().flat_map(|it| device(&it.lu).into_iter().chain(mapping(it)));
                parts.collect()
            }
            (Subject::Client(name), _) => {
                self.config.mappings_of_client(name).flat_map(mapping).collect()
            }
            (Subject::Node, _) => {
                let drives = self.config.drives.iter().map(|drive| Part::Device(drive.uuid));
                let devices = self.config.lus.iter().map(|lu| Part::Device(lu.uuid));
                let pools = self.config.pools.iter().map(|pool| Part::Pool(pool.uuid));
                pools
                    .chain(devices)
                    .chain(drives)
                    .chain(self.config.mappings.iter().flat_map(mapping))
                    .collect()
            }
        }
    }

    fn begin(&self, step: Step) {
        tracing::debug!(%step, "step begins");
        let engine = &self.parts.engine;
        match &step {
            Step::CreateBacking { device } => {
                engine.create_backing(device, self.done(&step, Some));
            }
            Step::MakePart { device } => engine.create_backing(device, self.done(&step, Some)),
            Step::EnterPool { device } => engine.enter_pool(device, self.done(&step, none)),
            Step::Bring { uuid, .. } => engine.bring(*uuid, self.done(&step, none)),
            Step::SetRate { uuid, to, .. } => engine.set_rate(*uuid, *to, self.done(&step, none)),
            Step::RemoveMoved { lu, from } => {
                let done = self.done(&step, none);
                match from {
                    Moved::File => engine.remove_backing(*lu, None, done),
                    Moved::Pool(pool) => engine.remove_backing(*lu, Some(*pool), done),
                    Moved::Nowhere => done.ok(()),
                }
            }
            Step::OpenDevice { device } => engine.open_device(device, self.done(&step, found)),
            Step::OpenDrive { drive } => engine.open_drive(drive, self.done(&step, none)),
            Step::Exchange { drive } => engine.exchange(drive, self.done(&step, none)),
            Step::Resize { uuid, to, .. } => engine.resize(*uuid, *to, self.done(&step, none)),
            Step::SetCache { uuid, to, .. } => {
                engine.set_cache(*uuid, *to, self.done(&step, none));
            }
            Step::SetLimits { uuid, to, .. } => {
                engine.set_limits(*uuid, *to, self.done(&step, none));
            }
            Step::SetSnapshots { uuid, to, .. } => {
                engine.set_snapshots(*uuid, to, self.done(&step, none));
            }
            Step::CloseDevice { uuid, .. } => engine.close_device(*uuid, self.done(&step, none)),
            Step::RemoveBacking { uuid, pool } => {
                engine.remove_backing(*uuid, *pool, self.done(&step, none));
            }
            Step::MakePool { .. }
            | Step::OpenPool { .. }
            | Step::SetPool { .. }
            | Step::ClosePool { .. }
            | Step::RemovePool { .. }
            | Step::JoinPv { .. }
            | Step::LeavePv { .. }
            | Step::KeepPv { .. }
            | Step::SplitGroup { .. }
            | Step::ForgetPv { .. } => self.begin_in_pool(&step),
            Step::CloseMapping { id, .. } => engine.close_mapping(id, self.done(&step, none)),
            Step::OpenMapping { mapping, .. } => {
                let done = self.done(&step, none);
                match self.socket_of(mapping) {
                    Ok(socket) => engine.open_mapping(mapping, socket.as_ref(), done),
                    Err(error) => done.fail(error),
                }
            }
            Step::Listen { id, socket_owner } => {
                let done = self.done(&step, none);
                match self.socket(id, socket_owner.as_ref()) {
                    Ok(socket) => engine.listen(id, &socket, done),
                    Err(error) => done.fail(error),
                }
            }
        }
    }

    /// The socket that a mapping is to be served on, if it is on one; why it cannot be served.
    fn socket_of(&self, mapping: &MappingSpec) -> Result<Option<SocketSpec>, ApiError> {
        let adapter = &mapping.id.adapter;
        if let Some(iscsi) = &mapping.iscsi {
            let client = &adapter.client;
            if iscsi.lacks_secret {
                return Err(ApiError::conflict(format!(
                    "client '{client}' shall prove itself with CHAP, and its secret is not here"
                ))
                .then(format!("viaduct client chap {client} --secret-file FILE, or --off")));
            }
            return Ok(None);
        }
        // The others' door is opened by a step of its own.
        let is_of_mapping = mapping.via == Via::VhostUserBlk;
        is_of_mapping.then(|| self.socket(adapter, mapping.socket_owner.as_ref())).transpose()
    }

    fn socket(
        &self,
        adapter: &AdapterId,
        owner: Option<&SocketOwner>,
    ) -> Result<SocketSpec, ApiError> {
        let ownership = owner::resolve(owner)?;
        let path = socket::path_of(&self.parts.run, adapter);
        Ok(SocketSpec { path, mode: CLIENT_SOCKET_MODE, ownership })
    }

    /// Sends the end of a step back to this thread.
    fn done<T: 'static>(&self, step: &Step, made: fn(T) -> Option<Made>) -> Done<T> {
        let (sender, step) = (self.parts.sender.clone(), step.clone());
        Done::new(move |result| {
            // Without a control thread the node is gone, and with it who wanted to know.
            let _ = sender.send(Message::Ended(step, result.map(made)));
        })
    }

    fn ended(&mut self, step: &Step, result: Result<Option<Made>, ApiError>) {
        if let Ok(Some(Made::WasThere)) = &result {
            self.was_there(step);
        }
        let result = result.and_then(|made| self.keep(step, made));
        let error = result.clone().err();
        let ended = self.reconciler.ended(step, result, self.now());
        let is_stopping = self.phase == Phase::Stopping && step.is_long();
        let was_to_end = pool_pvs::was_to_end(&self.config, step);
        if is_stopping || was_to_end || migrations::was_to_end(&self.config, step) {
            return;
        }
        tracing::debug!(%step, ?ended, "step ended");
        let (severity, kind, message, next) = match (ended, error) {
            (Ended::Failed, Some(error)) => {
                let message = format!("cannot {step}: {}", error.message);
                (Severity::Error, "step-failed", message, error.next)
            }
            (Ended::Recovered, _) => {
                (Severity::Info, "step-recovered", format!("{step}: done at last"), None)
            }
            _ => return,
        };
        let subject = self.subject_of(&step.part());
        self.report(Report { severity, subject, kind, message, next });
    }

    /// Keeps durably what a step has done.
    fn keep(&mut self, step: &Step, made: Option<Made>) -> Result<(), ApiError> {
        if let Some(mark) = mark_of(step) {
            self.parts.state.mark(mark)?;
        }
        let after = pool_pvs::ended(&self.config, step);
        let now = self.parts.world.wall();
        self.pool_opened(step, made.as_ref())?;
        let (seen, found) = match made {
            Some(Made::Pool(pool)) => (Some(*pool), None),
            Some(Made::Lu(lu)) => (None, Some(lu)),
            _ => (None, None),
        };
        let after = after.or_else(|| pool_split::ended(&self.config, step, (seen, now)));
        let after = after.or_else(|| pool_import::opened(&self.config, step, (found?, now)));
        let after = after.or_else(|| migrations::ended(&self.config, step));
        let Some((next, marks, event)) = after else { return Ok(()) };
        self.parts.state.commit(next, &marks)?;
        self.take_config();
        let (severity, (kind, message)) = (Severity::Info, event);
        let (subject, next) = (self.subject_of(&step.part()), None);
        self.report(Report { severity, subject, kind, message, next });
        Ok(())
    }

    /// The configuration is another one.
    fn take_config(&mut self) {
        let state = &self.parts.state;
        self.config = Arc::new(state.config().clone());
        let wanted = desired(state, &self.parts.cluster);
        self.reconciler.want(wanted, state.made(), state.leftovers());
        self.copy_config();
    }

    /// Something that was to be made is there already, and is kept.
    fn was_there(&self, step: &Step) {
        let (subject, kind, message) = match step {
            Step::CreateBacking { device } => {
                let what = if device.pool.is_some() { "data in its pool" } else { "file" };
                let message = format!("LU '{}' found its {what} where it was", device.name);
                (Subject::Lu(device.name.clone()), "file-found", message)
            }
            Step::MakePool { pool, .. } => {
                let message = format!("pool '{}' found its disks as they were", pool.name);
                (Subject::Pool(pool.name.clone()), "pool-found", message)
            }
            _ => return,
        };
        let next = Some("it is kept as it is; check what it holds".to_owned());
        self.report(Report { severity: Severity::Warning, subject, kind, message, next });
    }

    fn subject_of(&self, part: &Part) -> Subject {
        match part {
            Part::Pool(uuid) => {
                let pool = self.config.pools.iter().find(|pool| pool.uuid == *uuid);
                pool.map_or(Subject::Node, |pool| Subject::Pool(pool.name.clone()))
            }
            Part::Pv(uuid) => {
                let pool = self.config.pools.iter().find(|it| it.standing(*uuid).is_some());
                pool.map_or(Subject::Node, |pool| Subject::Pool(pool.name.clone()))
            }
            Part::Mapping(id) => Subject::Adapter(id.adapter.clone()),
            Part::Adapter(id) => Subject::Adapter(id.clone()),
            Part::Device(uuid) | Part::Migration(uuid) => {
                let lu = self.config.lus.iter().find(|lu| lu.uuid == *uuid);
                let lu = lu.map(|lu| Subject::Lu(lu.name.clone()));
                let drive = self.config.drives.iter().find(|drive| drive.uuid == *uuid);
                let drive = drive.map(|drive| Subject::Drive(drive.name.clone()));
                lu.or(drive).unwrap_or(Subject::Node)
            }
        }
    }

    fn report(&self, report: Report) {
        self.parts.events.record(self.parts.world.wall(), report);
    }

    fn publish(&self) {
        let published = Published {
            config: Arc::clone(&self.config),
            media: Arc::clone(self.parts.state.media()),
            phase: self.phase,
            steps_pending: self.reconciler.steps_pending() as u64,
            failures: self.reconciler.failures().clone(),
            pools: self.reconciler.actual().pools.keys().copied().collect(),
            left: (self.reconciler.actual().leftovers.values())
                .filter_map(|left| match left {
                    Leftover::Pv { pool, pv } => Some((*pool, pv.clone())),
                    _ => None,
                })
                .collect(),
            lus_left: (self.reconciler.actual().leftovers.values())
                .filter_map(|left| match left {
                    Leftover::Lu { pool } | Leftover::Moved { pool: Some(pool), .. } => Some(*pool),
                    _ => None,
                })
                .collect(),
            devices: self.reconciler.actual().open().collect::<BTreeSet<Uuid>>(),
            mappings: self
                .reconciler
                .actual()
                .mappings
                .keys()
                .cloned()
                .collect::<BTreeSet<MappingId>>(),
            secrets: Arc::clone(self.parts.state.secrets()),
            cluster: self.parts.cluster.clone(),
        };
        let mut slot = self.parts.published.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Arc::new(published);
    }

    /// Keeps a copy of the configuration that people can read. The truth is in `kv`.
    fn copy_config(&self) {
        let path = &self.parts.config_copy;
        let text = serde_json::to_string_pretty(self.config.as_ref()).map_err(std::io::Error::from);
        let written =
            text.and_then(|text| world::replace_file(path, (text + "\n").as_bytes(), PRIVATE_FILE));
        if let Err(error) = written {
            self.report(Report {
                severity: Severity::Warning,
                subject: Subject::Node,
                kind: "config-copy-failed",
                message: format!("cannot write {}: {error}", path.display()),
                next: Some("the change itself is kept; make room or fix the rights".to_owned()),
            });
        }
    }

    fn stop(&mut self, stopped: Box<dyn FnOnce() + Send>) {
        self.stopping.push(stopped);
        if self.phase == Phase::Stopping {
            return;
        }
        self.phase = Phase::Stopping;
        self.report(Report {
            severity: Severity::Info,
            subject: Subject::Node,
            kind: "node-stopping",
            message: "the node is stopping: draining its adapters".to_owned(),
            next: None,
        });
        let sender = self.parts.sender.clone();
        self.parts.engine.stop(Done::new(move |result| {
            if let Err(error) = result {
                tracing::error!(%error, "the data plane did not stop cleanly");
            }
            let _ = sender.send(Message::Stopped);
        }));
    }
}

/// What a state asks of this node.
fn desired(state: &State, cluster: &str) -> Desired {
    let (config, secrets, media) = (state.config(), state.secrets(), state.media());
    Desired::of(Source { config, secrets, new_pools: state.making(), media, cluster })
}

fn prepare_restore(config: &Config, request: &ConfigRestore) -> Result<Prepared, ApiError> {
    let (next, marks, outcome) = ops::restore(config, request)?;
    let message = format!(
        "the configuration was restored: {} added, {} changed, {} removed",
        outcome.added, outcome.changed, outcome.removed
    );
    let changed = Changed { restored: Some(outcome), ..Changed::default() };
    let event = ("config-restored", message);
    let (subject, library, severity) = (Subject::Node, None, Severity::Info);
    Ok(Prepared { next, marks, library, subject, changed, event, severity })
}

fn prepare_migrate(
    config: &Config,
    name: LuName,
    request: &LuMigrate,
) -> Result<Prepared, ApiError> {
    let next = migrations::migrate(config, &name, request)?;
    let migration = next.lu(&name).and_then(|lu| lu.migration.clone());
    let pool = migration.map(|it| it.pool.to_string()).unwrap_or_default();
    let message = format!("LU '{name}' is being brought into pool '{pool}'");
    Ok(Prepared::lu(next, name, "lu-migrates", message))
}

fn prepare_import(
    config: &Config,
    name: LuName,
    (uuid, pool): (Uuid, Option<Uuid>),
    change: ImportChange,
) -> Result<Prepared, ApiError> {
    let (same, left) = (|| config.clone(), Leftover::of_lu(pool));
    let (next, mark, kind, message) = match change {
        ImportChange::Begin => {
            ops::lu_name_is_free(config, &name)?;
            let message = format!("an image is being imported for LU '{name}'");
            (same(), Mark::Importing(uuid, left), "lu-import-begun", message)
        }
        ImportChange::End(request) => {
            let next = ops::lu_create(config, &request, uuid)?;
            let message = format!("LU '{name}' was made of an image, {}", request.size);
            (next, Mark::Made(uuid), "lu-imported", message)
        }
        ImportChange::GiveUp => {
            let message = format!("the import of LU '{name}' has ended without it");
            (same(), Mark::Abandoned(uuid, left), "lu-import-ended", message)
        }
    };
    Ok(Prepared { marks: vec![mark], ..Prepared::lu(next, name, kind, message) })
}

fn prepare_chap(
    config: &Config,
    name: ClientName,
    chap: Option<(Chap, ChapSecrets)>,
) -> Result<Prepared, ApiError> {
    let (chap, secrets) = chap.unzip();
    let mut next = ops::client_chap(config, &name, chap.as_ref())?;
    next.secrets.extend(secrets.map(|secrets| (name.clone(), secrets)));
    let message = match chap {
        Some(chap) => format!("client '{name}' proves itself with CHAP: {chap}"),
        None => format!("client '{name}' need not prove itself"),
    };
    Ok(Prepared::client(next, name, "client-chap-changed", message))
}

fn prepare_redirect(
    config: &Config,
    name: ClientName,
    redirect: Option<Redirect>,
) -> Result<Prepared, ApiError> {
    let next = ops::client_redirect(config, &name, redirect.as_ref())?;
    let message = match redirect {
        Some(redirect) => format!("logins of client '{name}' are sent {redirect}"),
        None => format!("logins of client '{name}' are let in"),
    };
    Ok(Prepared::client(next, name, "client-redirected", message))
}

/// A change that is ready to be committed.
struct Prepared {
    next: Config,
    marks: Vec<Mark>,
    /// What becomes of the library, instead of the configuration.
    library: Option<Library>,
    subject: Subject,
    changed: Changed,
    event: (&'static str, String),
    severity: Severity,
}

enum Library {
    Add(Medium),
    Remove(Medium),
}

impl Prepared {
    fn lu(next: Config, name: LuName, kind: &'static str, message: String) -> Prepared {
        let changed = Changed { lu: Some(name.clone()), ..Changed::default() };
        let subject = Subject::Lu(name);
        Prepared { changed, ..Prepared::about(next, subject, kind, message) }
    }

    fn pool(next: Config, name: PoolName, kind: &'static str, message: String) -> Prepared {
        Prepared::about(next, Subject::Pool(name), kind, message)
    }

    fn client(next: Config, name: ClientName, kind: &'static str, message: String) -> Prepared {
        Prepared::about(next, Subject::Client(name), kind, message)
    }

    fn drive(next: Config, name: LuName, kind: &'static str, message: String) -> Prepared {
        Prepared::about(next, Subject::Drive(name), kind, message)
    }

    fn library(config: &Config, library: Library, kind: &'static str, message: String) -> Prepared {
        let (Library::Add(medium) | Library::Remove(medium)) = &library;
        let subject = Subject::Medium(medium.name.clone());
        let library = Some(library);
        Prepared { library, ..Prepared::about(config.clone(), subject, kind, message) }
    }

    fn about(next: Config, subject: Subject, kind: &'static str, message: String) -> Prepared {
        let (marks, library, changed) = (Vec::new(), None, Changed::default());
        let (event, severity) = ((kind, message), Severity::Info);
        Prepared { next, marks, library, subject, changed, event, severity }
    }

    fn mapping(next: Config, mapping: Mapping, kind: &'static str, message: String) -> Prepared {
        let subject = Subject::Adapter(mapping.adapter());
        let changed = Changed { mapping: Some(mapping), ..Changed::default() };
        Prepared { changed, ..Prepared::about(next, subject, kind, message) }
    }
}

fn drain(messages: &Receiver<Message>) -> Vec<Message> {
    let mut batch = Vec::new();
    while batch.len() < BATCH_MAX {
        match messages.try_recv() {
            Ok(message) => batch.push(message),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    batch
}

fn none(_: ()) -> Option<Made> {
    None
}

/// What is kept durably of a step that was done.
fn mark_of(step: &Step) -> Option<Mark> {
    match step {
        Step::CreateBacking { device } => Some(Mark::Made(device.uuid)),
        Step::RemoveBacking { uuid, .. } => Some(Mark::Gone(*uuid)),
        Step::RemoveMoved { lu, .. } => Some(Mark::Gone(Leftover::moved_key(*lu))),
        Step::MakePool { pool, .. } => Some(Mark::Made(pool.uuid)),
        Step::RemovePool { pool } => Some(Mark::Gone(pool.uuid)),
        Step::ForgetPv { pv, .. } => Some(Mark::Gone(pv.uuid)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
