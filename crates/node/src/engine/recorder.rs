//! An engine that only takes notes: it opens nothing, remembers everything, and fails or holds back
//! answers as a test tells it to. Images are probed for real, because that reads and changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::{Actual, DeviceSpec, DriveSpec, MappingSpec, Step};
use model::check::{CheckCounts, PoolCheck};
use model::image::ImageUse;
use model::medium::Progress;
use model::reservation::Reservations;
use model::stats::{DeviceStats, OpKind, OpStats};
use model::status::{AdapterState, MapMemory};
use model::{
    AdapterId, ApiError, Cache, ImportTold, Limits, LuName, MappingId, Pool, PoolBecomes, PoolName,
    PoolPv, PoolSettings, PvGroup, Size,
};
use uuid::Uuid;
use volume::pool::backup::Taking;
use volume::pool::home::CopyAbout;

use super::{
    AdapterStatus, DeviceStatus, Done, DriveStatus, Engine, ForceDone, Made, Motion, PoolStatus,
    PvUse, Remains, ScrubWish, Seen, SeenAbout, SeenDisk, SeenLu, SeenNow, SeenPool, Snapshot,
    Tell,
};
use crate::import::Import;
use crate::probe::{Probe, probe};
use crate::socket::SocketSpec;

/// The engine that takes notes. Clones are the same one.
#[derive(Clone, Default)]
pub struct Recorder {
    inner: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    /// Layers that were ever frozen.
    layers: u128,
    log: Vec<String>,
    actual: Actual,
    /// Files that exist, whether or not a node knows.
    files: BTreeSet<Uuid>,
    sockets: BTreeMap<AdapterId, SocketSpec>,
    adapters: BTreeMap<AdapterId, AdapterStatus>,
    devices: BTreeMap<Uuid, DeviceStatus>,
    drives: BTreeMap<Uuid, DriveStatus>,
    reservations: BTreeMap<Uuid, Reservations>,
    portals: Vec<SocketAddr>,
    seen: Seen,
    copies: Vec<CopyAbout>,
    remains: Remains,
    force_done: BTreeMap<Uuid, ForceDone>,
    now: BTreeMap<Uuid, SeenNow>,
    failures: Vec<(String, ApiError)>,
    holds: Option<String>,
    held: Vec<Box<dyn FnOnce() + Send>>,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// What was called since the last time, as steps print.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// From now on, steps whose print contains `part` fail like this, until [`Recorder::heal`].
    pub fn fail(&self, part: &str, error: ApiError) {
        self.lock().failures.push((part.to_owned(), error));
    }

    pub fn heal(&self) {
        self.lock().failures.clear();
    }

    /// Holds back the answers to steps whose print contains `part`, until [`Recorder::release`].
    pub fn hold(&self, part: &str) {
        self.lock().holds = Some(part.to_owned());
    }

    pub fn release(&self) {
        let held = {
            let mut notes = self.lock();
            notes.holds = None;
            std::mem::take(&mut notes.held)
        };
        held.into_iter().for_each(|answer| answer());
    }

    /// What a client does to an adapter.
    pub fn set_adapter(&self, id: &AdapterId, status: AdapterStatus) {
        self.lock().adapters.insert(id.clone(), status);
    }

    /// What a store does to a device.
    pub fn set_device(&self, uuid: Uuid, status: DeviceStatus) {
        self.lock().devices.insert(uuid, status);
    }

    /// What clients do to a drive.
    pub fn set_drive(&self, uuid: Uuid, status: DriveStatus) {
        self.lock().drives.insert(uuid, status);
    }

    /// What is here of a pool that is not open.
    pub fn set_remains(&self, remains: Remains) {
        self.lock().remains = remains;
    }

    /// What becomes of the wish that a pool be forced.
    pub fn set_force_done(&self, pool: Uuid, done: ForceDone) {
        self.lock().force_done.insert(pool, done);
    }

    /// What an LU is of which an outdated copy was imported.
    pub fn set_now(&self, lu: Uuid, now: SeenNow) {
        self.lock().now.insert(lu, now);
    }

    /// What is on disks.
    pub fn set_copies(&self, copies: Vec<CopyAbout>) {
        self.lock().copies = copies;
    }

    pub fn set_seen(&self, seen: Seen) {
        self.lock().seen = seen;
    }

    /// What clients reserve of a device.
    pub fn set_reservations(&self, uuid: Uuid, reservations: Reservations) {
        self.lock().reservations.insert(uuid, reservations);
    }

    /// Where iSCSI is served.
    pub fn set_portals(&self, portals: Vec<SocketAddr>) {
        self.lock().portals = portals;
    }

    /// What is open at a place.
    pub fn mapping(&self, id: &MappingId) -> Option<MappingSpec> {
        self.lock().actual.mappings.get(id).cloned()
    }

    /// Puts a file where an LU's file would be.
    pub fn put_file(&self, uuid: Uuid) {
        self.lock().files.insert(uuid);
    }

    pub fn files(&self) -> BTreeSet<Uuid> {
        self.lock().files.clone()
    }

    pub fn socket(&self, id: &AdapterId) -> Option<SocketSpec> {
        self.lock().sockets.get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool_name(&self, uuid: Uuid) -> PoolName {
        let notes = self.lock();
        notes.actual.pools.get(&uuid).expect("the plan opens it before").name.clone()
    }

    fn step<T: Send + 'static>(
        &self,
        step: Step,
        done: Done<T>,
        work: impl FnOnce(&mut Notes) -> T,
    ) {
        let print = step.to_string();
        let mut notes = self.lock();
        notes.log.push(print.clone());
        let failure = notes.failures.iter().find(|(part, _)| print.contains(part));
        let answer = match failure.map(|(_, error)| error.clone()) {
            Some(error) => Err(error),
            None => {
                notes.actual.apply(&step);
                Ok(work(&mut notes))
            }
        };
        if notes.holds.as_ref().is_some_and(|part| print.contains(part)) {
            notes.held.push(Box::new(move || done.give(answer)));
            return;
        }
        drop(notes);
        done.give(answer);
    }
}

impl Notes {
    /// What a failure group of a pool is as a pool of its own.
    fn seen_of(&self, pool: &Pool, pvs: &[PoolPv], becomes: &PoolBecomes) -> SeenPool {
        let disk = |pv: &PoolPv| SeenDisk {
            path: pv.to_string(),
            uuid: pv.uuid,
            group: pv.group.number,
            size: Size::gib(1),
        };
        let lus = self.actual.devices.values().filter(|device| device.pool == Some(pool.uuid));
        let lu = |device: &DeviceSpec| SeenLu {
            uuid: Uuid::from_u128(!device.uuid.as_u128()),
            outdated: false,
            about: Ok(SeenAbout {
                name: device.name.to_string(),
                size: device.size,
                block_size: device.block_size.bytes(),
                thick: device.thick,
                base: None,
                layers: Vec::new(),
            }),
        };
        SeenPool {
            uuid: becomes.uuid,
            name: becomes.name.to_string(),
            slab_size: pool.slab_size,
            extent_size: pool.extent_size,
            checksums: pool.checksums,
            disks: pvs.iter().map(disk).collect(),
            wanted: pvs.len() as u16,
            missing: Vec::new(),
            lus: lus.map(lu).collect(),
            unfinished: Vec::new(),
            record: Vec::new(),
            groups: Vec::new(),
            problem: None,
        }
    }

    /// The name of what is open.
    fn name(&self, uuid: Uuid) -> Option<LuName> {
        let drive = || self.actual.drives.get(&uuid).map(|drive| drive.name.clone());
        self.actual.devices.get(&uuid).map(|device| device.name.clone()).or_else(drive)
    }
}

/// A disk that is half full.
fn half() -> PvUse {
    PvUse { size: Size::gib(2), free: Size::gib(1), used: Size::gib(1) }
}

impl Engine for Recorder {
    fn create_backing(&self, device: &DeviceSpec, done: Done<Made>) {
        let uuid = device.uuid;
        self.step(Step::CreateBacking { device: device.clone() }, done, |notes| {
            if notes.files.insert(uuid) { Made::New } else { Made::WasThere }
        });
    }

    fn enter_pool(&self, device: &DeviceSpec, done: Done<()>) {
        self.step(Step::EnterPool { device: device.clone() }, done, |_| {});
    }

    fn bring(&self, uuid: Uuid, done: Done<()>) {
        let Some(open) = self.lock().actual.devices.get(&uuid).cloned() else {
            return done.fail(ApiError::failed(format!("device {uuid} is not open")));
        };
        self.step(Step::Bring { uuid, name: open.name }, done, |_| {});
    }

    fn set_rate(&self, uuid: Uuid, to: Size, done: Done<()>) {
        let Some(open) = self.lock().actual.devices.get(&uuid).cloned() else {
            return done.fail(ApiError::failed(format!("device {uuid} is not open")));
        };
        self.step(Step::SetRate { uuid, name: open.name, to }, done, |_| {});
    }

    fn remove_backing(&self, uuid: Uuid, pool: Option<Uuid>, done: Done<()>) {
        self.step(Step::RemoveBacking { uuid, pool }, done, |notes| {
            notes.files.remove(&uuid);
        });
    }

    fn make_pool(&self, pool: &Pool, is_new: bool, done: Done<Made>) {
        let uuid = pool.uuid;
        self.step(Step::MakePool { pool: pool.clone(), is_new }, done, |notes| {
            if notes.files.insert(uuid) { Made::New } else { Made::WasThere }
        });
    }

    fn open_pool(&self, pool: &Pool, done: Done<Option<ForceDone>>) {
        let uuid = pool.uuid;
        let work = move |notes: &mut Notes| notes.force_done.get(&uuid).copied();
        self.step(Step::OpenPool { pool: pool.clone() }, done, work);
    }

    fn set_pool(&self, uuid: Uuid, to: PoolSettings, done: Done<()>) {
        let Some(name) = self.lock().actual.pools.get(&uuid).map(|pool| pool.name.clone()) else {
            return done.fail(ApiError::failed("it is not open"));
        };
        self.step(Step::SetPool { uuid, name, to }, done, |_| {});
    }

    fn look_at_pools(&self, paths: &[PathBuf], done: Done<Seen>) {
        let is_wanted = |pool: &SeenPool| {
            let mut disks = pool.disks.iter();
            disks.any(|disk| paths.iter().any(|path| *path == Path::new(&disk.path)))
        };
        let mut seen = self.lock().seen.clone();
        seen.pools.retain(is_wanted);
        done.ok(seen);
    }

    fn close_pool(&self, uuid: Uuid, done: Done<()>) {
        let Some(name) = self.lock().actual.pools.get(&uuid).map(|pool| pool.name.clone()) else {
            return done.ok(());
        };
        self.step(Step::ClosePool { uuid, name }, done, |_| {});
    }

    fn scrub_pool(&self, uuid: Uuid, wish: ScrubWish, done: Done<()>) {
        let name = self.pool_name(uuid);
        self.lock().log.push(format!("scrub of pool {name}: {wish:?}"));
        done.ok(());
    }

    fn check_pool(&self, uuid: Uuid, done: Done<PoolCheck>) {
        let name = Some(self.pool_name(uuid).to_string());
        let (counts, findings) = (CheckCounts::default(), Vec::new());
        let (uuid, damaged, is_open) = (Some(uuid), false, true);
        done.ok(PoolCheck { name, uuid, damaged, is_open, counts, findings });
    }

    fn back_up(&self, _: Uuid, taking: Taking, done: Done<(Taking, Option<Vec<u8>>)>) {
        done.ok((taking, None));
    }

    fn remove_pool(&self, pool: &Pool, done: Done<()>) {
        let uuid = pool.uuid;
        self.step(Step::RemovePool { pool: pool.clone() }, done, |notes| {
            notes.files.remove(&uuid);
        });
    }

    fn join_pv(&self, pool: Uuid, pv: &PoolPv, is_new: bool, done: Done<()>) {
        let (name, pv) = (self.pool_name(pool), pv.clone());
        self.step(Step::JoinPv { pool, name, pv, is_new }, done, |_| {});
    }

    fn leave_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>) {
        let (name, pv) = (self.pool_name(pool), pv.clone());
        self.step(Step::LeavePv { pool, name, pv }, done, |_| {});
    }

    fn keep_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>) {
        let (name, pv) = (self.pool_name(pool), pv.clone());
        self.step(Step::KeepPv { pool, name, pv }, done, |_| {});
    }

    fn remains(&self, _: &Pool, done: Done<Remains>) {
        done.ok(self.lock().remains.clone());
    }

    fn copies(&self, _: Uuid, _: Uuid, done: Done<Vec<CopyAbout>>) {
        done.ok(self.lock().copies.clone());
    }

    fn force(&self, _: Uuid, lu: Uuid, group: &PvGroup, done: Done<()>) {
        let mut notes = self.lock();
        let name = notes.name(lu).map_or_else(|| lu.to_string(), |name| name.to_string());
        notes.log.push(format!("force {name} to what {group} has"));
        drop(notes);
        done.ok(());
    }

    fn split_group(
        &self,
        pool: Uuid,
        pvs: &[PoolPv],
        becomes: Option<&PoolBecomes>,
        done: Done<Option<SeenPool>>,
    ) {
        let (name, pvs, becomes) = (self.pool_name(pool), pvs.to_vec(), becomes.cloned());
        let group = pvs.first().map(|pv| pv.group.clone()).unwrap_or_default();
        let step =
            Step::SplitGroup { pool, name, group, pvs: pvs.clone(), becomes: becomes.clone() };
        self.step(step, done, move |notes| {
            let spec = notes.actual.pools.get(&pool)?.clone();
            Some(notes.seen_of(&spec, &pvs, &becomes?))
        });
    }

    fn forget_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>) {
        self.step(Step::ForgetPv { pool, pv: pv.clone() }, done, |_| {});
    }

    fn open_device(&self, device: &DeviceSpec, done: Done<Option<SeenNow>>) {
        let (uuid, outdated) = (device.uuid, device.outdated);
        let work = move |notes: &mut Notes| notes.now.get(&uuid).filter(|_| outdated).cloned();
        self.step(Step::OpenDevice { device: device.clone() }, done, work);
    }

    fn open_drive(&self, drive: &DriveSpec, done: Done<()>) {
        self.step(Step::OpenDrive { drive: drive.clone() }, done, |_| {});
    }

    fn import(&self, import: &Import, tell: Tell, done: Done<Size>) {
        let size = import.size.unwrap_or(Size::mib(1));
        let of = size.bytes();
        match tell(ImportTold::Copying(Progress { bytes: 0, of })) {
            true => done.ok(size),
            false => done.fail(ApiError::not_now("nobody waits for the LU any more")),
        }
    }

    fn exchange(&self, drive: &DriveSpec, done: Done<()>) {
        let uuid = drive.uuid;
        self.step(Step::Exchange { drive: drive.clone() }, done, |notes| {
            notes.drives.entry(uuid).or_default().is_open = false;
        });
    }

    fn tray(&self, uuid: Uuid, motion: Motion, done: Done<Vec<String>>) {
        let mut notes = self.lock();
        let drive = notes.drives.entry(uuid).or_default();
        let locked_by = match motion {
            Motion::Open if !drive.is_open => drive.locked_by.clone(),
            _ => Vec::new(),
        };
        if locked_by.is_empty() {
            drive.is_open = motion != Motion::Close;
        }
        drop(notes);
        done.ok(locked_by);
    }

    fn resize(&self, uuid: Uuid, to: Size, done: Done<()>) {
        let Some(open) = self.lock().actual.devices.get(&uuid).cloned() else {
            return done.fail(ApiError::failed(format!("device {uuid} is not open")));
        };
        self.step(Step::Resize { uuid, name: open.name, from: open.size, to }, done, |_| {});
    }

    fn set_cache(&self, uuid: Uuid, to: Cache, done: Done<()>) {
        let Some(open) = self.lock().actual.devices.get(&uuid).cloned() else {
            return done.fail(ApiError::failed(format!("device {uuid} is not open")));
        };
        self.step(Step::SetCache { uuid, name: open.name, to }, done, |_| {});
    }

    fn set_limits(&self, uuid: Uuid, to: Limits, done: Done<()>) {
        let Some(open) = self.lock().actual.devices.get(&uuid).cloned() else {
            return done.fail(ApiError::failed(format!("device {uuid} is not open")));
        };
        self.step(Step::SetLimits { uuid, name: open.name, to }, done, |_| {});
    }

    fn take_snapshots(&self, uuids: &[Uuid], done: Done<Vec<Uuid>>) {
        let mut notes = self.lock();
        let layer = |_: &Uuid| {
            notes.layers += 1;
            Uuid::from_u128(notes.layers)
        };
        let layers = uuids.iter().map(layer).collect();
        drop(notes);
        done.ok(layers);
    }

    fn forget_snapshots(&self, _: &[(Uuid, Uuid)]) {}

    fn set_snapshots(&self, uuid: Uuid, to: &BTreeMap<Uuid, String>, done: Done<()>) {
        let Some(name) = self.lock().name(uuid) else {
            return done.fail(ApiError::failed(format!("device {uuid} is not open")));
        };
        self.step(Step::SetSnapshots { uuid, name, to: to.clone() }, done, |_| {});
    }

    fn roll_back(&self, _: Uuid, _: Uuid, done: Done<()>) {
        done.ok(());
    }

    fn layers(&self, _: Uuid, done: Done<BTreeMap<Uuid, Size>>) {
        done.ok(BTreeMap::new());
    }

    fn close_device(&self, uuid: Uuid, done: Done<()>) {
        let Some(name) = self.lock().name(uuid) else { return done.ok(()) };
        self.step(Step::CloseDevice { uuid, name }, done, |_| {});
    }

    fn open_mapping(&self, mapping: &MappingSpec, socket: Option<&SocketSpec>, done: Done<()>) {
        let Some(lu) = self.lock().name(mapping.device) else {
            return done.fail(ApiError::failed(format!("device {} is not open", mapping.device)));
        };
        let (id, socket) = (mapping.id.adapter.clone(), socket.cloned());
        let step = Step::OpenMapping { mapping: mapping.clone(), lu };
        self.step(step, done, move |notes| {
            let (state, sessions) = (AdapterState::Listening, Vec::new());
            let listening = AdapterStatus { state, session: None, sessions, problem: None };
            notes.adapters.entry(id.clone()).or_insert(listening);
            notes.sockets.extend(socket.map(|socket| (id, socket)));
        });
    }

    fn listen(&self, id: &AdapterId, socket: &SocketSpec, done: Done<()>) {
        let (id, socket) = (id.clone(), socket.clone());
        self.step(Step::Listen { id: id.clone(), socket_owner: None }, done, move |notes| {
            notes.sockets.insert(id, socket);
        });
    }

    fn close_mapping(&self, id: &MappingId, done: Done<()>) {
        let Some(open) = self.lock().actual.mappings.get(id).cloned() else {
            return done.ok(());
        };
        let step = Step::CloseMapping { id: id.clone(), device: open.device };
        self.step(step, done, |notes| {
            let adapter = &id.adapter;
            if !notes.actual.mappings.keys().any(|other| other.adapter == *adapter) {
                notes.adapters.remove(adapter);
                notes.sockets.remove(adapter);
            }
        });
    }

    fn probe(&self, path: &str, usage: ImageUse, done: Done<Probe>) {
        done.give(probe(Path::new(path), usage));
    }

    fn snapshot(&self, done: Done<Snapshot>) {
        let notes = self.lock();
        let status = |uuid: &Uuid| notes.devices.get(uuid).cloned().unwrap_or_default();
        let devices = notes.actual.devices.keys();
        let pools = notes.actual.pools.iter().map(|(uuid, pool)| {
            let disks = pool.pvs.iter().map(|pv| (pv.uuid, half()));
            (*uuid, PoolStatus { disks: disks.collect(), ..PoolStatus::default() })
        });
        let snapshot = Snapshot {
            cores: 1,
            map_memory: MapMemory::default(),
            pools: pools.collect(),
            devices: devices.map(|uuid| (*uuid, status(uuid))).collect(),
            drives: notes.drives.clone(),
            adapters: notes.adapters.clone(),
            portals: notes.portals.clone(),
        };
        drop(notes);
        done.ok(snapshot);
    }

    fn reservations(&self, done: Done<BTreeMap<Uuid, Reservations>>) {
        let reservations = self.lock().reservations.clone();
        done.ok(reservations);
    }

    fn clear_reservations(&self, uuid: Uuid, done: Done<()>) {
        let mut notes = self.lock();
        notes.log.push(format!("clear the reservations of {uuid}"));
        notes.reservations.remove(&uuid);
        drop(notes);
        done.ok(());
    }

    fn stats(&self, done: Done<Vec<DeviceStats>>) {
        let of = |device: &DeviceSpec| DeviceStats {
            lu: device.name.clone(),
            inflight: 0,
            held: 0,
            held_ns: 0,
            ops: OpKind::ALL.map(OpStats::new).into(),
        };
        let stats = self.lock().actual.devices.values().map(of).collect();
        done.ok(stats);
    }

    fn stop(&self, done: Done<()>) {
        self.lock().log.push("stop".to_owned());
        done.ok(());
    }
}
