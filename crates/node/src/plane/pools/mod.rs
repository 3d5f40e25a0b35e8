//! Pools on the data plane: each lives on one core, its LUs are spread over all of them in turn.
//!
//! | what | where |
//! |---|---|
//! | which pools are open; making, opening, closing, removing one | here |
//! | their disks: opening them, taking labels off | `disks` |
//! | what is known here of a pool, against what its disks say | `epochs` |
//! | LUs: making, opening, closing, removing one | `lus` |
//! | their snapshots: taking them, going back, letting layers go | `snapshots` |

mod disks;
mod epochs;
mod lus;
mod snapshots;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{ApiError, Pool, Severity, Size, Subject};
use rt::{Core, Placed, Remote};
use uuid::Uuid;
use volume::pool::home::{self, NewPool, PoolError};
use volume::pool::shape::Shape;

use crate::engine::{Context, Made, PoolStatus, Report, Reporter};
use crate::room::Room;
pub(super) use lus::{PoolStore, Wanted};

/// The pools that are open.
#[derive(Default)]
pub(super) struct Pools {
    open: Mutex<BTreeMap<Uuid, Arc<OpenPool>>>,
    /// Pools and LUs take turns in where they live.
    next_core: AtomicUsize,
}

/// A pool that is open.
struct OpenPool {
    spec: Pool,
    home: Placed<home::Pool>,
    /// Its LUs that are open, those included that are being imported.
    lus: Mutex<BTreeMap<Uuid, Arc<PoolStore>>>,
}

impl OpenPool {
    fn lus(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<PoolStore>>> {
        self.lus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something where the pool lives.
    async fn at_home<T, F>(
        &self,
        f: impl FnOnce(Rc<home::Pool>) -> F + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + 'static,
    {
        self.home.call(f).await.unwrap_or_else(|| Err(ended()))
    }
}

impl Pools {
    fn open_pools(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<OpenPool>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, uuid: Uuid) -> Result<Arc<OpenPool>, ApiError> {
        let pool = self.open_pools().get(&uuid).cloned();
        pool.ok_or_else(|| ApiError::failed(format!("pool {uuid} is not open")))
    }

    fn core<'a>(&self, cores: &'a [Remote]) -> &'a Remote {
        &cores[self.next_core.fetch_add(1, Ordering::Relaxed) % cores.len()]
    }

    /// Labels the disks of a pool. What is its already is kept. Only a pool that was asked for just
    /// now is made: disks of one that a document names are found, or missed.
    pub(super) async fn make(
        context: &Context,
        core: &Core,
        spec: &Pool,
        is_new: bool,
    ) -> Result<Made, ApiError> {
        if is_new {
            disks::make_files(context, core, spec).await?;
        }
        let backings = disks::open(context, core, spec).await?;
        let failed = |error| failed(spec, "cannot be made", error);
        match home::Pool::find(core, backings.clone()).await {
            Ok(found) if found.id() == spec.uuid.into_bytes() => {
                epochs::adopt(context, core, spec, &found).await?;
                return Ok(Made::WasThere);
            }
            Ok(found) if !is_new => {
                let (name, found) = (&spec.name, found.name());
                let message = format!("the disks of pool '{name}' are those of pool '{found}'");
                return Err(ApiError::failed(message).then("put its own disks back"));
            }
            Err(error) if !is_new => return Err(failed(error)),
            Ok(_) | Err(_) => {}
        }
        // Known before it is there, so that it is not another's if this is cut short.
        epochs::begin(context, core, spec).await?;
        let shape = Shape::new(spec.slab_size.bytes(), spec.extent_size.bytes())
            .map_err(|error| ApiError::failed(format!("pool '{}': {error}", spec.name)))?;
        let (id, name) = (spec.uuid.into_bytes(), spec.name.to_string());
        let uuids = spec.pvs.iter().map(|pv| pv.uuid.into_bytes());
        let disks = backings.into_iter().zip(uuids).collect();
        let made = home::Pool::format(core, NewPool { id, name, shape }, disks).await;
        made.map_err(failed)?.close().await.map_err(failed)?;
        Ok(Made::New)
    }

    pub(super) async fn open(
        &self,
        context: &Context,
        cores: &[Remote],
        spec: Pool,
    ) -> Result<(), ApiError> {
        if self.open_pools().contains_key(&spec.uuid) {
            return Ok(());
        }
        let (context, mine) = (context.clone(), spec.clone());
        let home = self.core(cores).call(move |core| async move {
            let pool = open_at_home(&context, &core, &mine).await?;
            Ok(Placed::new(&core, pool))
        });
        let home = home.await.unwrap_or_else(|| Err(ended()))?;
        let uuid = spec.uuid;
        let pool = OpenPool { spec, home, lus: Mutex::default() };
        self.open_pools().insert(uuid, Arc::new(pool));
        Ok(())
    }

    /// Closes a pool that has no open LUs.
    pub(super) async fn close(&self, uuid: Uuid) -> Result<(), ApiError> {
        let Ok(pool) = self.pool(uuid) else { return Ok(()) };
        let name = pool.spec.name.clone();
        if let Some(lu) = pool.lus().values().next() {
            let message = format!("pool '{name}' is in use by LU '{}'", lu.name());
            return Err(ApiError::not_now(message).then("it is closed when that is done"));
        }
        pool.at_home(async |home| {
            let closed = home.close().await;
            closed.map_err(|error| ApiError::failed(format!("it cannot be closed: {error}")))
        })
        .await?;
        self.open_pools().remove(&uuid);
        Ok(())
    }

    /// Closes everything, LUs first. What cannot be closed is opened by replaying it.
    pub(super) async fn stop(&self) {
        let pools: Vec<_> =
            self.open_pools().iter().map(|(uuid, it)| (*uuid, it.clone())).collect();
        for (uuid, pool) in pools {
            let lus = std::mem::take(&mut *pool.lus());
            for lu in lus.values() {
                lu.close().await;
            }
            drop(lus);
            if let Err(error) = self.close(uuid).await {
                tracing::warn!(%error, "a pool was not closed");
            }
        }
    }

    pub(super) async fn remove(
        context: &Context,
        core: &Core,
        spec: &Pool,
    ) -> Result<(), ApiError> {
        disks::give_up(context, core, spec).await
    }

    pub(super) async fn statuses(&self) -> BTreeMap<Uuid, PoolStatus> {
        let pools: Vec<_> =
            self.open_pools().iter().map(|(uuid, it)| (*uuid, it.clone())).collect();
        let mut statuses = BTreeMap::new();
        for (uuid, pool) in pools {
            let slab = pool.spec.slab_size.bytes();
            let disks = pool.home.call(async |home| home.disk_slabs()).await.unwrap_or_default();
            let disk = |(uuid, slabs, free): ([u8; 16], u64, u64)| {
                (Uuid::from_bytes(uuid), (Size(slabs * slab), Size(free * slab)))
            };
            statuses.insert(uuid, PoolStatus { disks: disks.into_iter().map(disk).collect() });
        }
        statuses
    }
}

async fn open_at_home(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<Rc<home::Pool>, ApiError> {
    let backings = disks::open(context, core, spec).await?;
    let failed = |error| failed(spec, "cannot be opened", error);
    let found = home::Pool::find(core, backings).await.map_err(failed)?;
    epochs::check(context, core, spec, &found).await?;
    let pool = found.open(0).await.map_err(failed)?;
    epochs::opened(context, core, spec, pool.epoch()).await?;
    watch_room(&pool, spec, context.report.clone());
    Ok(pool)
}

/// Tells whenever there is less room than an operator expects, and when there is again.
fn watch_room(pool: &Rc<home::Pool>, spec: &Pool, report: Reporter) {
    let (name, slab) = (spec.name.clone(), spec.slab_size.bytes());
    let told = Cell::new(Room::Enough);
    let watch = move |pool: &home::Pool| {
        let (slabs, free) = pool.slabs();
        let (size, free) = (Size(slabs * slab), Size(free * slab));
        let room = Room::of(size, free);
        let before = told.replace(room);
        let trouble = room.trouble(&name, free).filter(|_| room > before);
        let (severity, kind, message, next) = match trouble {
            Some(trouble) => (room.severity(), room.kind(), trouble.message, trouble.next),
            None if room < before => {
                let message = format!("pool '{name}' has {free} free again");
                (Severity::Info, Room::Enough.kind(), message, None)
            }
            None => return,
        };
        report(Report { severity, subject: Subject::Pool(name.clone()), kind, message, next });
    };
    watch(pool);
    pool.watch(watch);
}

/// What is wrong with a pool, and what to do.
fn failed(spec: &Pool, what: &str, error: PoolError) -> ApiError {
    let message = format!("pool '{}' {what}: {error}", spec.name);
    ApiError::failed(message).then(next(spec, &error))
}

fn next(spec: &Pool, error: &PoolError) -> String {
    let name = &spec.name;
    match error {
        PoolError::Missing { .. } | PoolError::Disk { .. } => {
            format!("bring the disk back; viaduct pool show {name} lists those that it has")
        }
        PoolError::Unlabelled { .. } | PoolError::OtherPool { .. } => {
            format!("put the disk of pool '{name}' back; this one is left as it is")
        }
        PoolError::Twice { .. } => "take the copy away, and keep the disk itself".to_owned(),
        PoolError::Shrunk { .. } => "give the disk the size back that it had".to_owned(),
        PoolError::Unfit { .. } => "choose another disk".to_owned(),
        PoolError::InUse { .. } => format!("viaduct pool show {name} lists disks and LUs"),
        PoolError::Full => "remove LUs that are not needed: viaduct lu rm".to_owned(),
        PoolError::Table { .. } | PoolError::Contradiction { .. } => {
            "the disk has lost what was written; restore it, or the pool from a backup".to_owned()
        }
        PoolError::TwoPlaces(_) | PoolError::NoLu(_) | PoolError::Open(_) | PoolError::Closed => {
            "it is tried again by itself".to_owned()
        }
    }
}

fn ended() -> ApiError {
    ApiError::failed("a core of the node has ended")
}
