//! Pools on the data plane: each lives on one core, its LUs are spread over all of them in turn.
//!
//! | what | where |
//! |---|---|
//! | which pools are open; making, opening, closing, removing one | here |
//! | what is told of their room | `alarm` |
//! | LUs that are brought from elsewhere | `bring` |
//! | their disks: opening them, taking labels off | `disks` |
//! | disks that come and go while the pool is used | `members`, `lost` |
//! | what is known here of a pool, against what its disks say | `epochs` |
//! | how fast work goes on in the background | `pace` |
//! | everything read and compared | `scrub` |
//! | pools of which only failure groups are left that lack something | `forced` |
//! | metadata only, for who waits | `check` |
//! | pools of others, by what their disks say | `sight` |
//! | LUs: making, opening, closing, removing one | `lus` |
//! | those that have failed, when they can be written again | `reopen` |
//! | their snapshots: taking them, going back, letting layers go | `snapshots` |

mod alarm;
mod backup;
mod bring;
mod check;
mod copies;
mod damage;
mod disks;
mod epochs;
mod force;
mod forced;
mod lost;
mod lus;
mod members;
mod pace;
mod reopen;
mod scrub;
pub(super) mod sight;
mod snapshots;
mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::status::MapMemory;
use model::{ApiError, Pool, PoolPv, PoolSettings, Severity, Size, Subject};
use rt::{Core, Placed, Remote};
use uuid::Uuid;
use volume::pool::home::{self, DiskUse, Found, NewDisk, NewPool, PoolError, Registry, Terms};
use volume::pool::memory::Memory;

use crate::engine::{Context, Made, PoolStatus, PvUse, Report};
use crate::state::pools::shape_of;
use alarm::Alarm;
pub(super) use bring::Source;
use copies::Copies;
pub(super) use lus::{PoolStore, Wanted};
use members::Members;
use pace::Pace;
use scrub::Scrubber;

/// The pools that are open.
pub(super) struct Pools {
    open: Mutex<BTreeMap<Uuid, Arc<OpenPool>>>,
    /// For the maps of all LUs.
    memory: Arc<Memory>,
    /// Pools and LUs take turns in where they live.
    next_core: AtomicUsize,
}

/// A pool that is open.
struct OpenPool {
    spec: Pool,
    home: Placed<home::Pool>,
    members: Placed<Members>,
    alarm: Arc<Alarm>,
    pace: Arc<Pace>,
    scrubber: Placed<Scrubber>,
    scrub_pace: Pace,
    /// Of slabs that go to other disks, and to copies that have missed something.
    move_pace: Pace,
    catch_up_pace: Pace,
    /// Its LUs that are open, those included that are being imported.
    lus: Mutex<BTreeMap<Uuid, Arc<PoolStore>>>,
}

impl OpenPool {
    fn lus(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<PoolStore>>> {
        self.lus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing goes on in the background when this returns.
    async fn begin_closing(&self) {
        // None: its core has ended, and nothing runs there.
        let _ = self.members.call(async |members: Rc<Members>| members.begin_closing().await).await;
        let ended = self.scrubber.call(async |scrubs: Rc<Scrubber>| scrubs.begin_closing().await);
        let _ = ended.await;
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
    pub(super) fn new(map_memory: Size) -> Pools {
        let limit = usize::try_from(map_memory.bytes()).unwrap_or(usize::MAX);
        let (open, memory) = (Mutex::default(), Arc::new(Memory::new(limit)));
        Pools { open, memory, next_core: AtomicUsize::new(0) }
    }

    pub(super) fn map_memory(&self) -> MapMemory {
        let (used, limit) = (self.memory.used() as u64, self.memory.limit() as u64);
        MapMemory { used: Size(used), limit: Size(limit), let_go: Size(self.memory.swept()) }
    }

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
        let backings = match is_new {
            true => disks::open(context, core, spec).await?,
            false => disks::open_some(context, core, spec).await?.0,
        };
        let failed = |error| failed(spec, "cannot be made", error);
        match disks::find(context, core, spec, (backings.clone(), 0)).await {
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
        let shape = shape_of(spec)?;
        let (id, name) = (spec.uuid.into_bytes(), spec.name.to_string());
        let disk = |(backing, pv): (_, &PoolPv)| NewDisk {
            backing,
            pv: pv.uuid.into_bytes(),
            group: pv.group.number,
        };
        let disks: Vec<NewDisk> =
            backings.into_iter().zip(disks::certain(spec)).map(disk).collect();
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
        let alarm = Arc::new(Alarm::new(&spec, context.report.clone()));
        let pace = Arc::new(Pace::new(spec.settings.removal_rate));
        let (context, uuid, memory) = (context.clone(), spec.uuid, self.memory.clone());
        let opened = self.core(cores).call(move |core| async move {
            let pool = open_at_home(&context, &core, &spec).await?;
            pool.keep_maps_in(memory);
            let rings = alarm.clone();
            rings.look(&pool);
            pool.watch(move |pool| rings.look(pool));
            let scrubs = Scrubber::new(&context, &spec, pool.clone()).await;
            let (disks, home) = (Members::new(pool.clone()), Placed::new(&core, pool));
            let open = Arc::new(OpenPool {
                home,
                members: Placed::new(&core, disks.clone()),
                alarm,
                pace,
                scrubber: Placed::new(&core, scrubs.clone()),
                scrub_pace: Pace::new(spec.settings.scrub_rate),
                move_pace: Pace::new(spec.settings.move_rate),
                catch_up_pace: Pace::new(spec.settings.catch_up_rate),
                lus: Mutex::default(),
                spec,
            });
            members::come_back(&context, &open, &disks).await?;
            scrubs.come_back(&context, &open);
            core.spawn(copies::mend(context.clone(), open.clone(), disks.pool().clone()));
            core.spawn(damage::tell(context.clone(), open.clone(), disks.pool().clone()));
            core.spawn(lost::take_back(context.clone(), open.clone(), disks.pool().clone()));
            core.spawn(lus::share_room(open.clone(), disks.pool().clone()));
            core.spawn(reopen::go_on(context.clone(), open.clone(), disks.pool().clone()));
            Ok(open)
        });
        let open = opened.await.unwrap_or_else(|| Err(ended()))?;
        self.open_pools().insert(uuid, open);
        Ok(())
    }

    pub(super) async fn set(&self, uuid: Uuid, to: PoolSettings) -> Result<(), ApiError> {
        let pool = self.pool(uuid)?;
        pool.alarm.set(to);
        pool.pace.set(to.removal_rate);
        pool.scrub_pace.set(to.scrub_rate);
        pool.move_pace.set(to.move_rate);
        pool.catch_up_pace.set(to.catch_up_rate);
        let alarm = pool.alarm.clone();
        pool.at_home(async move |home| {
            alarm.look(&home);
            Ok(())
        })
        .await
    }

    /// Closes a pool that has no open LUs.
    pub(super) async fn close(&self, uuid: Uuid) -> Result<(), ApiError> {
        let Ok(pool) = self.pool(uuid) else { return Ok(()) };
        let name = pool.spec.name.clone();
        if let Some(lu) = pool.lus().values().next() {
            let message = format!("pool '{name}' is in use by LU '{}'", lu.name());
            return Err(ApiError::not_now(message).then("it is closed when that is done"));
        }
        pool.begin_closing().await;
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
            pool.begin_closing().await;
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
            let asked =
                pool.home.call(async |home| (home.disks_used(), home.lu_count(), home.behind()));
            let (disks, lus, behind) = asked.await.unwrap_or_default();
            let disk = |DiskUse { pv, slabs, free, used }: DiskUse| {
                let [size, free, used] = [slabs, free, used].map(|slabs| Size(slabs * slab));
                (Uuid::from_bytes(pv), PvUse { size, free, used })
            };
            let waits = pool.members.call(async |members: Rc<Members>| members.waits()).await;
            let (disks, waits) = (disks.into_iter().map(disk).collect(), waits.unwrap_or_default());
            let removals = pool.lus().values().flat_map(|lu| lu.removals()).collect();
            let scrub = pool.scrubber.call(async |scrubs: Rc<Scrubber>| scrubs.scrub()).await;
            let scrub = scrub.flatten();
            statuses.insert(uuid, PoolStatus { lus, disks, waits, removals, behind, scrub });
        }
        statuses
    }
}

async fn open_at_home(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<Rc<home::Pool>, ApiError> {
    let failed = |error| failed(spec, "cannot be opened", error);
    let (mut found, mut lost) = find(context, core, spec).await?;
    if let Some(wish) = forced::wish(context, core, spec).await?.filter(|_| found.is_behind()) {
        forced::force(context, core, spec, (found, wish)).await?;
        (found, lost) = find(context, core, spec).await?;
    }
    found.must_have_everything().map_err(failed)?;
    let epoch = epochs::check(context, core, spec, &found).await?;
    let registry: Rc<dyn Registry> = Copies::read(context, core, spec).await?;
    let (may_lack, registry) = (spec.has_copies(), Some(registry));
    let pool = found.open_on(Terms { epoch, may_lack, registry }).await.map_err(failed)?;
    tell_lost(context, spec, &lost, pool.waits_for_others());
    tell_unknown(context, spec, &pool);
    epochs::opened(context, core, spec, pool.epoch()).await?;
    for pv in spec.pvs.iter().filter(|pv| pv.standing.is_going()) {
        if let Some(disk) = pool.disk(pv.uuid.into_bytes()) {
            pool.retire(disk, true);
        }
    }
    Ok(pool)
}

/// Looks which pool its disks are, as far as they can be used, and what is wrong with others.
async fn find(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<(Found, Vec<String>), ApiError> {
    let (mut backings, mut lost) = disks::open_some(context, core, spec).await?;
    let failed = |error| failed(spec, "cannot be opened", error);
    let oldest = epochs::oldest(context, core, spec).await?;
    loop {
        match disks::find(context, core, spec, (backings.clone(), oldest)).await {
            Err(error) if spec.has_copies() => {
                let name = disks::unusable(&error)
                    .ok_or_else(|| failed_ref(spec, "cannot be opened", &error))?;
                backings.retain(|it| it.name() != name);
                lost.push(error.to_string());
            }
            found => return Ok((found.map_err(failed)?, lost)),
        }
    }
}

/// Disks without which the pool was opened.
fn tell_lost(context: &Context, spec: &Pool, lost: &[String], is_forced: bool) {
    let (others, next) = match is_forced {
        true => (
            "it was forced to go on with what other failure groups have",
            "bring it back and start the node again",
        ),
        false => (
            "other failure groups have what is on it",
            "bring it back, and it is taken back by itself",
        ),
    };
    for why in lost {
        (context.report)(Report {
            severity: Severity::Error,
            subject: Subject::Pool(spec.name.clone()),
            kind: "disk-missing",
            message: format!(
                "pool '{}' is used without one of its disks: {why}; {others}",
                spec.name
            ),
            next: Some(format!("{next}; or viaduct pool replace-pv {} OLD NEW", spec.name)),
        });
    }
}

/// Its disks count others of which nothing is known here.
fn tell_unknown(context: &Context, spec: &Pool, pool: &home::Pool) {
    let known = spec.pvs.iter().filter(|pv| lost::is_away(pool, pv)).count();
    let unknown = usize::from(pool.absent()).saturating_sub(known);
    if unknown == 0 {
        return;
    }
    let what = if unknown == 1 { "one of its disks, which is" } else { "disks that are" };
    (context.report)(Report {
        severity: Severity::Error,
        subject: Subject::Pool(spec.name.clone()),
        kind: "disk-unknown",
        message: format!(
            "pool '{}' is used without {what} not known here; other failure groups have what is \
             there",
            spec.name
        ),
        next: Some(
            "put the newest copy of the data directory back; or start a node on a new one and \
             import the pool there with all its disks: viaduct pool import"
                .to_owned(),
        ),
    });
}

/// What is wrong with a pool, and what to do.
fn failed(spec: &Pool, what: &str, error: PoolError) -> ApiError {
    failed_ref(spec, what, &error)
}

fn failed_ref(spec: &Pool, what: &str, error: &PoolError) -> ApiError {
    let message = format!("pool '{}' {what}: {error}", spec.name);
    ApiError::failed(message).then(next(spec, error))
}

fn next(spec: &Pool, error: &PoolError) -> String {
    let name = &spec.name;
    match error {
        PoolError::Behind { .. } => format!(
            "bring the other disks back; viaduct pool force {name} shows what would be lost \
             without them"
        ),
        PoolError::Missing { .. }
        | PoolError::Disk { .. }
        | PoolError::LastCopy { .. }
        | PoolError::NoCopy(_) => {
            format!("bring the disk back; viaduct pool show {name} lists those that it has")
        }
        PoolError::Unlabelled { .. } | PoolError::OtherPool { .. } => {
            format!("put the disk of pool '{name}' back; this one is left as it is")
        }
        PoolError::Replaced { .. } => "take it away, or use it for something else".to_owned(),
        PoolError::Twice { .. } => "take the copy away, and keep the disk itself".to_owned(),
        PoolError::Shrunk { .. } => "give the disk the size back that it had".to_owned(),
        PoolError::Unfit { .. } => "choose another disk".to_owned(),
        PoolError::GroupLacks(_) => format!("viaduct pool show {name} tells how far it is"),
        PoolError::InUse { .. } | PoolError::LastGroup(_) => {
            format!("viaduct pool show {name} lists disks and LUs")
        }
        PoolError::Full => format!("viaduct pool add-pv {name}, or remove LUs: viaduct lu rm"),
        PoolError::Table { .. } | PoolError::Contradiction { .. } => {
            "the disk has lost what was written; restore it, or the pool from a backup".to_owned()
        }
        PoolError::Registry(_) => "see that the data directory can be written".to_owned(),
        PoolError::TwoPlaces(_)
        | PoolError::NoPlace(_)
        | PoolError::NotWhole(_)
        | PoolError::TooOld(_)
        | PoolError::NoLu(_)
        | PoolError::Open(_)
        | PoolError::Opening(_)
        | PoolError::Closed => "it is tried again by itself".to_owned(),
    }
}

fn ended() -> ApiError {
    ApiError::failed("a core of the node has ended")
}
