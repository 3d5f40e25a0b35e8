//! The data plane of a node: cores, stores and adapters behind the [`Engine`] trait.
//!
//! Every call becomes a task on the first core and answers from there; what may block runs on a
//! thread made for that. The tables of what is open are behind one lock that is held for look-ups
//! only; no request ever takes it.

mod drives;
mod everywhere;
mod health;
pub mod host_drive;
mod iscsi;
mod lus;
mod migrate;
mod notices;
mod pools;
mod spawner;
mod swap;
#[cfg(test)]
mod tests;
mod units;
mod vhost_scsi;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use block::{Device, Request};
use cluster::{DeviceSpec, DriveSpec, MappingSpec};
use front::vhost_user::{Adapter, Blk, Info, Spec, add_stats};
use model::check::PoolCheck;
use model::image::ImageUse;
use model::limits::POOL_BLOCK_BYTES;
use model::reservation::Reservations;
use model::stats::{DeviceStats, OpStats};
use model::status::{AdapterState, Session};
use model::{
    AdapterId, ApiError, Backing, Cache, Limits, MappingId, Pool, PoolBecomes, PoolPv,
    PoolSettings, PvGroup, Size, Via,
};
use rt::{Core, Remote, Spin};
use store::Store;
use target::lun::Change;
use target::scsi::{Kind, Settings};
use target::virtio_blk::Id;
use uuid::Uuid;
use volume::limit::{Budget, Limit};
use volume::pool::backup::Taking;
use volume::pool::home::CopyAbout;

use crate::engine::{
    AdapterStatus, Context, DeviceStatus, Done, Engine, ForceDone, Made, Motion, Remains,
    ScrubWish, Seen, SeenNow, SeenPool, Snapshot, Tell,
};
use crate::import::{Image, Import};
use crate::probe::{self, Probe};
use crate::socket::{self, SocketSpec};
use health::Watch;
use iscsi::Iscsi;
use notices::Notices;
use pools::{PoolStore, Pools, Wanted};
use swap::Swap;
use units::Units;
use vhost_scsi::VhostScsi;

/// Queues that a client may use on one adapter: QEMU makes as many as the guest has CPUs.
pub const QUEUES_MAX: u16 = 128;

/// How long a listing waits for what the files of LUs take.
const ALLOCATED_LIMIT: Duration = Duration::from_secs(2);

/// The data plane. Clones are the same one.
#[derive(Clone)]
pub struct Plane(Arc<Inner>);

struct Inner {
    context: Context,
    cores: Vec<Remote>,
    units: Arc<Units>,
    /// Serves iSCSI, if it is served anywhere.
    iscsi: Option<Iscsi>,
    pools: Pools,
    /// What drives have in them.
    media: drives::Media,
    /// Adapters take turns in where their first queue lives.
    next_home: AtomicUsize,
    vhost_scsi: VhostScsi,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    devices: BTreeMap<Uuid, Arc<Lu>>,
    adapters: BTreeMap<AdapterId, Arc<Door>>,
}

/// An open device, or a drive.
#[derive(Clone)]
struct Lu {
    spec: DeviceSpec,
    kind: Kind,
    store: Arc<dyn Store>,
    /// The store again, of a drive.
    drive: Option<Arc<drives::Everywhere>>,
    /// The same, of an LU in a pool.
    pooled: Option<Arc<PoolStore>>,
    /// The same, of one that can enter a pool while it is used.
    swap: Option<Arc<Swap>>,
    writeback: Arc<AtomicBool>,
    health: Arc<Watch>,
    /// What it may take; nothing of a drive is limited.
    budget: Option<Arc<Budget>>,
    /// Counts of adapters that are closed.
    past: Arc<Mutex<Vec<OpStats>>>,
}

impl Lu {
    /// What it is, if it was opened without that being known.
    async fn now(&self) -> Result<Option<SeenNow>, ApiError> {
        match self.pooled.as_ref().filter(|_| self.spec.outdated) {
            Some(pooled) => pooled.now().await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes handles of the LU as clients are given them.
    fn opener(&self) -> units::Open {
        let (store, budget) = (self.store.clone(), self.budget.clone());
        Arc::new(move |core| {
            let device = store.clone().device(core);
            match &budget {
                Some(budget) => Limit::new(core, device, budget.clone()),
                None => device,
            }
        })
    }
}

/// The store of an LU, and what else it is.
type Opened = (Arc<dyn Store>, Option<Arc<PoolStore>>, Option<Arc<Swap>>);

/// An open adapter.
struct Door {
    device: Uuid,
    adapter: Adapter<Blk>,
    socket: SocketSpec,
    notices: Arc<Notices>,
}

impl Plane {
    /// Starts the cores.
    pub fn start(context: Context, spin: Spin) -> Result<Plane, ApiError> {
        let allowed = rt::os::thread::cpus();
        let cpus = if context.cores.is_empty() { allowed.clone() } else { context.cores.clone() };
        let mut cores = Vec::new();
        for &cpu in &cpus {
            let pinned = !context.cores.is_empty();
            let config = rt::Config {
                spin,
                cpu: pinned.then_some(cpu),
                ..rt::Config::new(format!("viaduct-core{cpu}"))
            };
            let started = rt::os::start(config).map_err(|error| {
                let failed = ApiError::failed(format!("core {cpu} cannot be started: {error}"));
                if allowed.contains(&cpu) {
                    return failed;
                }
                failed
                    .then(format!("name CPUs that this process may use with --cores: {allowed:?}"))
            });
            cores.push(started?);
        }
        let next_home = AtomicUsize::new(0);
        let pools = Pools::new(context.map_memory);
        let units = Arc::new(Units::new(&context, &cores));
        let serves_iscsi = !context.iscsi.is_empty();
        let vhost_scsi = VhostScsi::new(&context, &cores, units.clone());
        let iscsi = serves_iscsi.then(|| Iscsi::start(&context, &cores, units.clone())).transpose();
        let iscsi =
            iscsi.map_err(|(address, error)| crate::tcp::refused(address, &error, "--iscsi"))?;
        Ok(Plane(Arc::new(Inner {
            context,
            cores,
            units,
            vhost_scsi,
            iscsi,
            pools,
            media: drives::Media::default(),
            next_home,
            open: Mutex::default(),
        })))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lu(&self, uuid: Uuid) -> Option<Arc<Lu>> {
        self.open().devices.get(&uuid).cloned()
    }

    /// Runs an `async fn` on the first core and answers with its result.
    fn run<T, F>(&self, done: Done<T>, f: impl FnOnce(Plane, Core) -> F + Send + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + 'static,
    {
        let plane = self.clone();
        self.0.cores[0].send(move |core| {
            let work = f(plane, core.clone());
            core.spawn(async move { done.give(work.await) });
        });
    }

    /// Runs something that may block, and answers with its result.
    fn blocking<T: Send + 'static>(
        &self,
        done: Done<T>,
        f: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) {
        self.run(done, |_, core| async move {
            let result = core.blocking(f).await;
            result.unwrap_or_else(|| Err(ApiError::failed("the work was given up")))
        });
    }

    /// Asks the adapters and handles of a device what they have counted. Adapters are asked before
    /// this returns, so who wants to know of many devices asks for all of them first.
    fn device_stats(&self, uuid: Uuid, lu: &Lu) -> impl Future<Output = DeviceStats> + use<> {
        let (mut ops, asked) = {
            let open = self.open();
            let doors = open.adapters.values().filter(|door| door.device == uuid);
            let past = lu.past.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (past, doors.map(|door| door.adapter.info()).collect::<Vec<_>>())
        };
        let held = lu.budget.as_ref().map(|budget| budget.held()).unwrap_or_default();
        let held_ns = u64::try_from(held.time.as_nanos()).unwrap_or(u64::MAX);
        let (lu, units) = (lu.spec.name.clone(), self.0.units.clone());
        async move {
            let mut inflight = 0;
            add_stats(&mut ops, &units.stats(uuid).await);
            for info in asked {
                let info = info.await.unwrap_or_default();
                add_stats(&mut ops, &info.past);
                for queue in info.session.iter().flat_map(|session| &session.queues) {
                    inflight += u64::from(queue.in_flight);
                    add_stats(&mut ops, &queue.stats);
                }
            }
            DeviceStats { lu, inflight, held: held.requests, held_ns, ops }
        }
    }

    /// What the files of LUs take. A filesystem that hangs leaves it unknown, and holds up nobody.
    fn allocated(
        &self,
        core: &Core,
        devices: &BTreeMap<Uuid, Arc<Lu>>,
    ) -> impl Future<Output = BTreeMap<Uuid, Size>> + use<> {
        let specs: Vec<DeviceSpec> = devices.values().map(|lu| lu.spec.clone()).collect();
        let (directory, core) = (self.0.context.lus.clone(), core.clone());
        let sizes = core.blocking(move || {
            let sizes = specs.iter().map(|spec| (spec.uuid, lus::allocated(&directory, spec)));
            sizes.filter_map(|(uuid, size)| Some((uuid, size?))).collect()
        });
        async move { core.timeout(ALLOCATED_LIMIT, sizes).await.flatten().unwrap_or_default() }
    }

    /// Ends an adapter: what is in flight is answered first.
    async fn close_door(&self, id: &AdapterId) {
        let Some(door) = self.open().adapters.get(id).cloned() else { return };
        // Nobody new finds the socket; who is connected is served to the end.
        let _ = crate::world::remove_file(&door.socket.path);
        door.adapter.close().await;
        let info = door.adapter.info().await.unwrap_or_default();
        if let Some(lu) = self.lu(door.device) {
            add_stats(&mut lu.past.lock().unwrap_or_else(PoisonError::into_inner), &info.past);
        }
        self.open().adapters.remove(id);
    }

    /// Shows an LU at a LUN of a guest's SCSI host.
    async fn open_lun(&self, mapping: &MappingSpec, lu: &Lu) -> Result<(), ApiError> {
        self.0.units.own(lu.into()).await?;
        let settings = Settings {
            kind: lu.kind,
            removable: lu.spec.removable,
            read_only: mapping.read_only || lu.spec.read_only,
            tasks_max: vhost_scsi::TASKS_MAX,
        };
        let shown = vhost_scsi::Shown { device: mapping.device, settings };
        self.0.vhost_scsi.open(&mapping.id, shown).await
    }

    async fn close_lun(&self, id: &MappingId) {
        for (uuid, counts) in self.0.vhost_scsi.close(id).await {
            if let Some(lu) = self.lu(Uuid::from_bytes(uuid)) {
                let mut past = lu.past.lock().unwrap_or_else(PoisonError::into_inner);
                add_stats(&mut past, &latencies(&counts.ops));
            }
        }
    }

    /// Opens what is below an LU; once more as what it is in a pool, or as what can enter one.
    async fn open_store(&self, core: &Core, spec: &DeviceSpec) -> Result<Opened, ApiError> {
        if let Some(pool) = spec.pool {
            let opened = self.open_pooled(core, pool, spec).await?;
            return Ok((opened.clone(), Some(opened), None));
        }
        let store = lus::open(&self.0.context, core, spec).await?;
        Ok(match spec.backing {
            Backing::File | Backing::Adopted { .. } => {
                let swap = Swap::new(store);
                (swap.clone(), None, Some(swap))
            }
            Backing::Pool { .. } | Backing::Memory | Backing::Null => (store, None, None),
        })
    }

    /// Makes an LU of a pool out of an image. It is closed when this answers.
    async fn import_into(
        &self,
        core: &Core,
        pool: Uuid,
        import: &Import,
        tell: &Tell,
    ) -> Result<Size, ApiError> {
        let directory = crate::import::directory(&self.0.context.lus, import.uuid);
        let image = Image::open(core, import, directory).await?;
        let (uuid, name, size) = (import.uuid, import.name.clone(), image.lu_size(import)?);
        let size = Size(size.bytes().next_multiple_of(POOL_BLOCK_BYTES));
        let (block_size, thick) = (import.block_size.bytes(), import.thick);
        let (snapshots, outdated, origin, source) = (BTreeMap::new(), false, None, None);
        let wanted = Wanted {
            pool,
            uuid,
            name,
            size,
            block_size,
            thick,
            snapshots,
            outdated,
            origin,
            source,
        };
        if self.0.pools.create_lu(wanted.clone()).await? == Made::WasThere {
            return Err(ApiError::failed(format!("LU {} is in its pool already", import.name)));
        }
        let device = self.0.pools.open_lu(&self.0.cores, wanted).await?.device(core);
        let copied = image.copy(&*device, tell).await;
        drop(device);
        self.0.pools.close_lu(pool, uuid).await;
        copied.map(|()| size)
    }

    async fn flush(&self, core: &Core, lu: &Lu) -> Result<(), ApiError> {
        let device = lu.store.clone().device(core);
        if device.geometry().read_only {
            return Ok(());
        }
        let flushed = (&*device as &dyn Device).io(&Request::flush()).await;
        flushed.map(drop).map_err(|error| {
            ApiError::failed(format!("LU {} cannot be flushed: {error}", lu.spec.name))
        })
    }
}

impl Engine for Plane {
    fn make_pool(&self, pool: &Pool, is_new: bool, done: Done<Made>) {
        let spec = pool.clone();
        self.run(done, async move |plane, core| {
            Pools::make(&plane.0.context, &core, &spec, is_new).await
        });
    }

    fn open_pool(&self, pool: &Pool, done: Done<Option<ForceDone>>) {
        let spec = pool.clone();
        self.run(done, async move |plane, core| {
            let (pools, context) = (&plane.0.pools, &plane.0.context);
            pools.open(context, &plane.0.cores, spec.clone()).await?;
            pools.force_done(context, &core, &spec).await
        });
    }

    fn set_pool(&self, uuid: Uuid, to: PoolSettings, done: Done<()>) {
        self.run(done, async move |plane, _| plane.0.pools.set(uuid, to).await);
    }

    fn look_at_pools(&self, paths: &[PathBuf], done: Done<Seen>) {
        let paths = paths.to_vec();
        self.run(done, async move |plane, core| {
            Ok(pools::sight::look(&plane.0.context, &core, paths).await)
        });
    }

    fn scrub_pool(&self, uuid: Uuid, wish: ScrubWish, done: Done<()>) {
        self.run(done, async move |plane, _| {
            plane.0.pools.scrub(&plane.0.context, uuid, wish).await
        });
    }

    fn check_pool(&self, uuid: Uuid, done: Done<PoolCheck>) {
        self.run(done, async move |plane, _| plane.0.pools.check(uuid).await);
    }

    fn back_up(&self, uuid: Uuid, taking: Taking, done: Done<(Taking, Option<Vec<u8>>)>) {
        self.run(done, async move |plane, _| plane.0.pools.back_up(uuid, taking).await);
    }

    fn close_pool(&self, uuid: Uuid, done: Done<()>) {
        self.run(done, async move |plane, _| plane.0.pools.close(uuid).await);
    }

    fn remove_pool(&self, pool: &Pool, done: Done<()>) {
        let spec = pool.clone();
        self.run(done, async move |plane, core| {
            Pools::remove(&plane.0.context, &core, &spec).await
        });
    }

    fn join_pv(&self, pool: Uuid, pv: &PoolPv, is_new: bool, done: Done<()>) {
        let pv = pv.clone();
        self.run(done, async move |plane, _| {
            plane.0.pools.join_pv(&plane.0.context, pool, pv, is_new).await
        });
    }

    fn leave_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>) {
        let pv = pv.clone();
        self.run(done, async move |plane, _| {
            plane.0.pools.leave_pv(&plane.0.context, pool, pv).await
        });
    }

    fn keep_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>) {
        let pv = pv.uuid;
        self.run(done, async move |plane, _| plane.0.pools.keep_pv(pool, pv).await);
    }

    fn copies(&self, pool: Uuid, lu: Uuid, done: Done<Vec<CopyAbout>>) {
        self.run(done, async move |plane, _| plane.0.pools.copies(pool, lu).await);
    }

    fn force(&self, pool: Uuid, lu: Uuid, group: &PvGroup, done: Done<()>) {
        let group = group.clone();
        self.run(done, async move |plane, _| plane.0.pools.force(pool, lu, group).await);
    }

    fn remains(&self, pool: &Pool, done: Done<Remains>) {
        let spec = pool.clone();
        self.run(done, async move |plane, core| {
            plane.0.pools.remains(&plane.0.context, &core, &spec).await
        });
    }

    fn split_group(
        &self,
        pool: Uuid,
        pvs: &[PoolPv],
        becomes: Option<&PoolBecomes>,
        done: Done<Option<SeenPool>>,
    ) {
        let (pvs, becomes) = (pvs.to_vec(), becomes.cloned());
        self.run(done, async move |plane, core| {
            let (pools, context) = (&plane.0.pools, &plane.0.context);
            match becomes {
                Some(new) => pools.split_off(context, &core, (pool, pvs), new).await.map(Some),
                None => pools.split_group(pool, pvs).await.map(|()| None),
            }
        });
    }

    fn forget_pv(&self, pool: Uuid, pv: &PoolPv, done: Done<()>) {
        let pv = pv.clone();
        self.run(done, async move |plane, core| {
            plane.0.pools.forget_pv(&plane.0.context, &core, pool, &pv).await
        });
    }

    fn create_backing(&self, device: &DeviceSpec, done: Done<Made>) {
        if let Some(pool) = device.pool {
            let wanted = Wanted { source: self.source(device), ..wanted(pool, device) };
            return self.run(done, async move |plane, _| plane.0.pools.create_lu(wanted).await);
        }
        let (path, size) = (lus::path(&self.0.context.lus, device.uuid), device.size.0);
        self.blocking(done, move || lus::create(&path, size));
    }

    fn enter_pool(&self, device: &DeviceSpec, done: Done<()>) {
        let spec = device.clone();
        self.run(done, async move |plane, core| {
            // A task of its own: it must not stop half-way when nobody waits any more.
            let (plane, within) = (plane.clone(), core.clone());
            core.spawn_task(async move { plane.enter_pool(&within, spec).await }).await
        });
    }

    fn bring(&self, uuid: Uuid, done: Done<()>) {
        self.run(done, async move |plane, core| plane.bring(&core, uuid).await);
    }

    fn set_rate(&self, uuid: Uuid, to: Size, done: Done<()>) {
        self.run(done, async move |plane, _| {
            let lu = plane.lu(uuid).ok_or_else(|| not_open(uuid))?;
            lu.pooled.iter().for_each(|pooled| pooled.set_rate(to));
            Ok(())
        });
    }

    fn import(&self, import: &Import, tell: Tell, done: Done<Size>) {
        let import = import.clone();
        self.run(done, async move |plane, core| match import.pool {
            Some(pool) => plane.import_into(&core, pool, &import, &tell).await,
            None => lus::import(&plane.0.context, &core, &import, &tell).await,
        });
    }

    fn remove_backing(&self, uuid: Uuid, pool: Option<Uuid>, done: Done<()>) {
        if let Some(pool) = pool {
            return self.run(done, async move |plane, _| plane.0.pools.remove_lu(pool, uuid).await);
        }
        let Context { lus, media, .. } = self.0.context.clone();
        self.blocking(done, move || {
            lus::remove(&lus::path(&lus, uuid))?;
            crate::library::remove(&media, uuid)
        });
    }

    fn open_device(&self, device: &DeviceSpec, done: Done<Option<SeenNow>>) {
        let spec = device.clone();
        self.run(done, move |plane, core| async move {
            if let Some(open) = plane.lu(spec.uuid) {
                return open.now().await;
            }
            let (store, pooled, swap) = plane.open_store(&core, &spec).await?;
            let writeback = Arc::new(AtomicBool::new(spec.cache == Cache::Writeback));
            let uuid = spec.uuid;
            let health = Arc::new(Watch::of(Arc::downgrade(&plane.0), uuid));
            let (kind, drive, past) = (Kind::Disk, None, Arc::default());
            let budget = Some(Arc::new(Budget::new(spec.limits)));
            let lu = Lu { spec, kind, store, drive, pooled, swap, writeback, health, budget, past };
            let lu = Arc::new(lu);
            plane.open().devices.insert(uuid, lu.clone());
            lu.now().await
        });
    }

    fn open_drive(&self, drive: &DriveSpec, done: Done<()>) {
        let spec = drive.clone();
        self.run(done, async move |plane, core| drives::open(&plane, &core, spec).await);
    }

    fn exchange(&self, drive: &DriveSpec, done: Done<()>) {
        let spec = drive.clone();
        self.run(done, async move |plane, core| drives::exchange(&plane, &core, spec).await);
    }

    fn tray(&self, uuid: Uuid, motion: Motion, done: Done<Vec<String>>) {
        self.run(done, async move |plane, core| drives::tray(&plane, &core, uuid, motion).await);
    }

    fn resize(&self, uuid: Uuid, to: Size, done: Done<()>) {
        self.run(done, move |plane, core| async move {
            let lu = plane.lu(uuid).ok_or_else(|| not_open(uuid))?;
            if let Some(pooled) = lu.pooled.clone() {
                // A task of its own: it must not stop half-way when nobody waits any more.
                return core.spawn_task(async move { pooled.resize_to(to).await }).await;
            }
            lu.store.clone().resize(&core, to.0).await.map_err(|error| {
                ApiError::failed(format!("LU {} cannot be resized: {error}", lu.spec.name))
            })
        });
    }

    fn set_cache(&self, uuid: Uuid, to: Cache, done: Done<()>) {
        let Some(lu) = self.lu(uuid) else { return done.fail(not_open(uuid)) };
        lu.writeback.store(to == Cache::Writeback, Ordering::Relaxed);
        self.run(done, move |plane, _| async move { plane.0.units.set_cache(uuid, to).await });
    }

    fn set_limits(&self, uuid: Uuid, to: Limits, done: Done<()>) {
        self.run(done, move |plane, core| async move {
            let lu = plane.lu(uuid).ok_or_else(|| not_open(uuid))?;
            if let Some(budget) = &lu.budget {
                budget.set(to, core.now());
            }
            Ok(())
        });
    }

    fn take_snapshots(&self, uuids: &[Uuid], done: Done<Vec<Uuid>>) {
        let uuids = uuids.to_vec();
        self.run(done, async move |plane, _| plane.0.pools.take_snapshots(&uuids).await);
    }

    fn forget_snapshots(&self, layers: &[(Uuid, Uuid)]) {
        for (lu, layer) in layers {
            self.0.pools.forget_snapshot(&self.0.cores[0], *lu, *layer);
        }
    }

    fn set_snapshots(&self, uuid: Uuid, to: &BTreeMap<Uuid, String>, done: Done<()>) {
        let wanted = to.clone();
        self.run(done, async move |plane, core| {
            let lu = plane.0.pools.open_lu_of(uuid)?;
            lu.keep(&plane.0.cores[0], &wanted);
            lu.name_snapshots(&core).await;
            Ok(())
        });
    }

    fn roll_back(&self, uuid: Uuid, to: Uuid, done: Done<()>) {
        self.run(done, async move |plane, _| {
            plane.0.pools.roll_back(&plane.0.cores[0], uuid, to).await
        });
    }

    fn layers(&self, uuid: Uuid, done: Done<BTreeMap<Uuid, Size>>) {
        self.run(done, async move |plane, _| plane.0.pools.open_lu_of(uuid)?.sizes().await);
    }

    fn close_device(&self, uuid: Uuid, done: Done<()>) {
        self.run(done, move |plane, core| async move {
            let Some(lu) = plane.lu(uuid) else { return Ok(()) };
            plane.flush(&core, &lu).await?;
            plane.0.units.forget(uuid).await;
            if let Some(pool) = lu.spec.pool {
                plane.0.pools.close_lu(pool, uuid).await;
            }
            plane.open().devices.remove(&uuid);
            Ok(())
        });
    }

    fn open_mapping(&self, mapping: &MappingSpec, socket: Option<&SocketSpec>, done: Done<()>) {
        let (mapping, socket) = (mapping.clone(), socket.cloned());
        self.run(done, move |plane, _| async move {
            let lu = plane.lu(mapping.device).ok_or_else(|| not_open(mapping.device))?;
            let socket = match (mapping.via, &plane.0.iscsi, socket) {
                (Via::Iscsi, Some(iscsi), _) => return iscsi.open(&mapping, &lu).await,
                (Via::VhostUserScsi, ..) => return plane.open_lun(&mapping, &lu).await,
                (Via::VhostUserBlk, _, Some(socket)) => socket,
                (via, ..) => return Err(not_served(via)),
            };
            let id = &mapping.id.adapter;
            if plane.open().adapters.contains_key(id) {
                return Ok(());
            }
            let listener = socket::bind(&socket)?;
            let notices = Arc::new(Notices::new(
                id.clone(),
                lu.spec.name.clone(),
                plane.0.context.report.clone(),
                lu.health.clone(),
            ));
            let cores = &plane.0.cores;
            let home = plane.0.next_home.fetch_add(1, Ordering::Relaxed) % cores.len();
            let (open, serial) = (lu.opener(), Id::new(&lu.spec.serial));
            let spec = Spec {
                name: id.to_string(),
                cores: cores.clone(),
                observer: notices.clone(),
                device: Blk {
                    queues: QUEUES_MAX,
                    read_only: mapping.read_only || lu.spec.read_only,
                    writeback: lu.writeback.clone(),
                    id: serial,
                    open: Box::new(move |core| open(core)),
                },
            };
            let started = Adapter::start(&cores[home], listener, spec).await;
            let started = started.unwrap_or_else(|| Err(std::io::Error::other("its core ended")));
            let started = started.map_err(|error| {
                ApiError::failed(format!("adapter {id} cannot be served: {error}"))
            })?;
            let door = Door { device: mapping.device, adapter: started, socket, notices };
            plane.open().adapters.insert(id.clone(), Arc::new(door));
            Ok(())
        });
    }

    fn listen(&self, id: &AdapterId, socket: &SocketSpec, done: Done<()>) {
        let (id, socket) = (id.clone(), socket.clone());
        self.run(
            done,
            move |plane, _| async move { plane.0.vhost_scsi.listen(&id, &socket).await },
        );
    }

    fn close_mapping(&self, id: &MappingId, done: Done<()>) {
        let id = id.clone();
        self.run(done, move |plane, _| async move {
            if plane.0.vhost_scsi.has(&id.adapter) {
                plane.close_lun(&id).await;
                return Ok(());
            }
            match &plane.0.iscsi {
                Some(iscsi) if iscsi.has(&id.adapter) => iscsi.close(&id).await,
                _ => plane.close_door(&id.adapter).await,
            }
            Ok(())
        });
    }

    fn probe(&self, path: &str, usage: ImageUse, done: Done<Probe>) {
        let path = std::path::PathBuf::from(path);
        self.blocking(done, move || probe::probe(&path, usage));
    }

    fn snapshot(&self, done: Done<Snapshot>) {
        self.run(done, |plane, core| async move {
            let (devices, adapters) = {
                let open = plane.open();
                (open.devices.clone(), open.adapters.clone())
            };
            // All are asked before the first answer is waited for.
            let infos: Vec<_> = adapters.values().map(|door| door.adapter.info()).collect();
            let mut allocated = plane.allocated(&core, &devices).await;
            let mut snapshot = Snapshot {
                cores: plane.0.cores.len() as u32,
                map_memory: plane.0.pools.map_memory(),
                pools: plane.0.pools.statuses().await,
                ..Snapshot::default()
            };
            for (uuid, lu) in devices {
                if let Some(drive) = &lu.drive
                    && let Some(view) = plane.0.units.view(uuid).await
                {
                    snapshot.drives.insert(uuid, drives::status(drive, &view));
                }
                let allocated = match &lu.pooled {
                    Some(pooled) => pooled.allocated().await,
                    None => allocated.remove(&uuid),
                };
                let brought = match &lu.pooled {
                    Some(pooled) => pooled.brought().await,
                    None => None,
                };
                let (health, problem) = (lu.health.health(), lu.health.trouble());
                let status = DeviceStatus { allocated, health, problem, brought };
                snapshot.devices.insert(uuid, status);
            }
            for ((id, door), info) in adapters.into_iter().zip(infos) {
                let status = adapter_status(&door.notices, info.await.unwrap_or_default());
                snapshot.adapters.insert(id, status);
            }
            snapshot.adapters.extend(plane.0.vhost_scsi.statuses().await);
            if let Some(iscsi) = &plane.0.iscsi {
                snapshot.portals = iscsi.portals();
                snapshot.adapters.extend(iscsi.adapters().await);
            }
            Ok(snapshot)
        });
    }

    fn reservations(&self, done: Done<BTreeMap<Uuid, Reservations>>) {
        self.run(done, |plane, _| async move { Ok(plane.0.units.reservations().await) });
    }

    fn clear_reservations(&self, uuid: Uuid, done: Done<()>) {
        self.run(done, move |plane, _| async move {
            plane.lu(uuid).ok_or_else(|| not_open(uuid))?;
            plane.0.units.change(uuid, Change::ClearReservations).await
        });
    }

    fn stats(&self, done: Done<Vec<DeviceStats>>) {
        self.run(done, |plane, _| async move {
            let devices = plane.open().devices.clone();
            let of_luns = plane.0.vhost_scsi.stats();
            let disks = devices.iter().filter(|(_, lu)| lu.kind == Kind::Disk);
            let asked: Vec<_> =
                disks.map(|(uuid, lu)| (*uuid, plane.device_stats(*uuid, lu))).collect();
            let of_luns = of_luns.await;
            let mut stats = Vec::new();
            for (uuid, device) in asked {
                let mut device = device.await;
                if let Some(counts) = of_luns.get(uuid.as_bytes()) {
                    device.inflight += u64::from(counts.in_flight);
                    add_stats(&mut device.ops, &latencies(&counts.ops));
                }
                stats.push(device);
            }
            Ok(stats)
        });
    }

    fn stop(&self, done: Done<()>) {
        self.run(done, |plane, core| async move {
            let ids: Vec<AdapterId> = plane.open().adapters.keys().cloned().collect();
            for id in ids {
                plane.close_door(&id).await;
            }
            plane.0.vhost_scsi.stop().await;
            if let Some(iscsi) = &plane.0.iscsi {
                iscsi.stop().await;
            }
            let devices = std::mem::take(&mut plane.open().devices);
            let mut result = Ok(());
            for lu in devices.values() {
                result = result.and(plane.flush(&core, lu).await);
            }
            plane.0.pools.stop().await;
            for remote in &plane.0.cores[1..] {
                remote.send(Core::stop);
            }
            // The first core answers before it stops.
            plane.0.cores[0].send(Core::stop);
            result
        });
    }
}

/// How long requests took, without how many there were: commands of SCSI are counted where they are
/// carried out.
fn latencies(ops: &[OpStats]) -> Vec<OpStats> {
    ops.iter().map(|of| OpStats { requests: 0, bytes: 0, errors: 0, ..of.clone() }).collect()
}

/// What a vhost-user adapter is doing.
fn adapter_status(notices: &Notices, info: Info) -> AdapterStatus {
    let problem = notices.problem();
    let Some(session) = info.session else {
        let (state, sessions) = (AdapterState::Listening, Vec::new());
        return AdapterStatus { state, session: None, sessions, problem };
    };
    let state = if notices.is_broken() {
        AdapterState::Broken
    } else if session.queues.is_empty() {
        AdapterState::Connected
    } else {
        AdapterState::Running
    };
    let session = Session {
        peer_pid: u32::try_from(session.peer).ok().filter(|pid| *pid != 0),
        since: notices.since(),
        features: session.features.iter().map(|name| (*name).to_owned()).collect(),
        queues_running: u16::try_from(session.queues.len()).unwrap_or(u16::MAX),
        memory_regions: u16::try_from(session.memory_regions).unwrap_or(u16::MAX),
        inflight_tracking: session.inflight_tracking,
        logging: session.logging,
    };
    AdapterStatus { state, session: Some(session), sessions: Vec::new(), problem }
}

/// What an LU is to its pool.
fn wanted(pool: Uuid, spec: &DeviceSpec) -> Wanted {
    let DeviceSpec { uuid, name, size, block_size, thick, snapshots, origin, .. } = spec.clone();
    let (block_size, outdated, source) = (block_size.bytes(), spec.outdated, None);
    Wanted { pool, uuid, name, size, block_size, thick, snapshots, outdated, origin, source }
}

fn not_open(uuid: Uuid) -> ApiError {
    ApiError::failed(format!("device {uuid} is not open"))
}

fn not_served(via: Via) -> ApiError {
    ApiError::failed(format!("{via} is not served by this node"))
        .then("start it with --iscsi ADDRESS")
}
