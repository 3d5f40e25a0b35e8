//! LUs of pools as stores of the plane.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use block::{Device, Error, ErrorKind};
use cluster::OriginSpec;
use model::{ApiError, LuName, Size};
use rt::{Core, Remote};
use store::{Boxed, Store};
use uuid::Uuid;
use volume::pool::home::{self, PoolError};
use volume::pool::lu::{Lu, LuError, NewLu, Unresized};
use volume::pool::root::{About, Base};

use super::bring::{Bringing, Source};
use super::pace::Pace;
use super::sight::seen_layers;
use super::snapshots::Layers;
use super::{OpenPool, Pools, ended, next};
use crate::engine::{Made, SeenNow};
use crate::world::{Machine, World};

/// What can be done for an LU that is thick.
pub(super) const MAKE_ROOM: &str =
    "remove LUs or snapshots of the pool; viaduct pool ls shows what is free";

/// To what an LU can be resized is said in whole ones of these.
const SHRINK_TO: u64 = 1 << 20;

/// An LU of a pool that is open.
pub(in crate::plane) struct PoolStore {
    lu: Arc<Lu>,
    name: LuName,
    pub(super) extent: u64,
    pub(super) layers: Layers,
    pub(super) pace: Arc<Pace>,
    /// If it is brought from elsewhere.
    pub(super) bringing: Option<Bringing>,
}

/// Which LU of which pool, and what it shall be.
#[derive(Clone)]
pub(in crate::plane) struct Wanted {
    pub pool: Uuid,
    pub uuid: Uuid,
    pub name: LuName,
    pub size: Size,
    pub block_size: u32,
    /// When it is made; later its pool says so.
    pub thick: bool,
    pub snapshots: BTreeMap<Uuid, String>,
    /// Its size and its snapshots are what its pool says, and not these.
    pub outdated: bool,
    pub origin: Option<OriginSpec>,
    /// What it is brought from.
    pub source: Option<Source>,
}

impl PoolStore {
    pub(super) fn lu(&self) -> &Arc<Lu> {
        &self.lu
    }

    /// What so many extents take.
    pub(super) fn size_of(&self, extents: u64) -> Size {
        Size(extents * self.extent)
    }

    pub(super) fn name(&self) -> &LuName {
        &self.name
    }

    pub(super) async fn close(&self) {
        self.lu.close().await;
    }

    /// Gives it another size, or says what is in the way.
    pub(in crate::plane) async fn resize_to(&self, to: Size) -> Result<(), ApiError> {
        let is = Size(self.lu.size());
        self.lu.resize(to.bytes()).await.map_err(|error| unresized(&self.name, (is, to), &error))
    }

    /// What it is, whatever is known of it.
    pub(in crate::plane) async fn now(&self) -> Result<SeenNow, ApiError> {
        let layers = self.lu.layers().await.map_err(|error| {
            ApiError::failed(format!("LU {} does not say which layers it has: {error}", self.name))
        })?;
        let frozen = layers.into_iter().filter_map(|layer| Some((layer.id, layer.frozen?)));
        Ok(SeenNow { size: Size(self.lu.size()), layers: seen_layers(frozen) })
    }

    /// What it has written, in whole extents.
    pub(in crate::plane) async fn allocated(&self) -> Option<Size> {
        let (extents, free) = self.lu.extents().await.ok()?;
        Some(self.size_of(extents.saturating_sub(free)))
    }
}

impl Store for PoolStore {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        self.lu.device(core)
    }

    fn size(&self) -> u64 {
        self.lu.size()
    }

    fn resize<'a>(self: Arc<Self>, core: &'a Core, size: u64) -> Boxed<'a, Result<(), Error>> {
        // A task of its own: it must not stop half-way when nobody waits any more.
        Box::pin(core.spawn_task(async move { self.lu.resize(size).await.map_err(Error::from) }))
    }
}

/// Why an LU does not get this size, and what can be done.
fn unresized(name: &LuName, (is, to): (Size, Size), error: &Unresized) -> ApiError {
    let end = match error {
        Unresized::Written(end) => Size(end.next_multiple_of(SHRINK_TO)),
        Unresized::Failed(error) if error.kind() == ErrorKind::NoSpace => {
            return ApiError::conflict(format!("LU {name} cannot be resized to {to}: {error}"))
                .then(MAKE_ROOM);
        }
        Unresized::Failed(error) => {
            return ApiError::failed(format!("LU {name} cannot be resized to {to}: {error}"));
        }
    };
    let first = "discard what is not used there first, in the guest: fstrim or blkdiscard";
    let message = format!("LU {name} cannot be resized to {to}: it is written up to {end}");
    ApiError::conflict(message).then(match end < is {
        true => format!("{first}; viaduct lu resize {name} --size {end} needs nothing"),
        false => first.to_owned(),
    })
}

impl Pools {
    /// Makes an LU. One that is there is kept, unless nothing of it can be read: nobody was ever
    /// told that it had been made.
    pub(in crate::plane) async fn create_lu(&self, wanted: Wanted) -> Result<Made, ApiError> {
        let pool = self.pool(wanted.pool)?;
        let spec = pool.spec.clone();
        pool.at_home(move |home| async move {
            let (id, name) = (wanted.uuid.into_bytes(), &wanted.name);
            let failed = |error| lu_failed(&spec, name, "be made", error);
            if let Some(source) = &wanted.source {
                return make_part(&home, &wanted, source, failed).await;
            }
            if let Some(granted) = home.granted(id) {
                let described = match granted.first {
                    Some(_) => home.describe_lu(id).await.map(Some),
                    None => Ok(None),
                };
                match described {
                    Ok(Some(about)) if about.block_size == wanted.block_size => {
                        return Ok(Made::WasThere);
                    }
                    // Its creation was cut short.
                    Ok(None) | Err(LuError::Root(_)) => {}
                    Ok(Some(about)) => {
                        return Err(ApiError::failed(format!(
                            "LU {name} is in pool '{}' with blocks of {} bytes, not of {}",
                            spec.name, about.block_size, wanted.block_size
                        )));
                    }
                    Err(error) => return Err(failed(error)),
                }
                home.revoke(id).await.map_err(|error| failed(error.into()))?;
            }
            create(&home, &wanted).await.map_err(failed)
        })
        .await
    }

    /// Opens an LU, on the core whose turn it is. One that was to have another
    /// size when the node ended gets it.
    pub(in crate::plane) async fn open_lu(
        &self,
        cores: &[Remote],
        wanted: Wanted,
    ) -> Result<Arc<PoolStore>, ApiError> {
        let pool = self.pool(wanted.pool)?;
        let (id, name) = (wanted.uuid.into_bytes(), wanted.name.clone());
        let (spec, called) = (pool.spec.clone(), name.clone());
        let seat = pool.at_home(move |home: Rc<home::Pool>| async move {
            home.seat(id).map_err(|error| match error {
                LuError::Pool(PoolError::NoLu(_)) if home.waits_for_others() => {
                    elsewhere(&spec, &called)
                }
                error => lu_failed(&spec, &called, "be opened", error),
            })
        });
        let seat = seat.await?;
        let seat = match wanted.origin {
            Some(origin) => seat.on(self.view(&pool, &name, origin).await?),
            None => seat,
        };
        let bringing = wanted.source.as_ref().map(|it| Bringing::new(pool.spec.name.clone(), it));
        let seat = match wanted.source.and_then(|source| source.disk) {
            Some(disk) => seat.over(disk),
            None => seat,
        };
        let (spec, called) = (pool.spec.clone(), name.clone());
        let opened = self.core(cores).call(move |core| async move {
            let lu = Lu::open(&core, seat).await;
            lu.map_err(|error| lu_failed(&spec, &called, "be opened", error))
        });
        let lu = opened.await.unwrap_or_else(|| Err(ended()))?;
        let extent = pool.spec.extent_size.bytes();
        let (layers, pace) = (Layers::default(), pool.pace.clone());
        let store = Arc::new(PoolStore { lu, name, extent, layers, pace, bringing });
        // A failure group that leaves waits for whatever the LU writes there, from here on.
        pool.lus().insert(wanted.uuid, store.clone());
        let lu = store.lu();
        let (is, to) = (Size(lu.size()), wanted.size);
        if to != is
            && !wanted.outdated
            && let Err(error) = lu.resize(to.bytes()).await
        {
            lu.close().await;
            pool.lus().remove(&wanted.uuid);
            return Err(unresized(&store.name, (is, to), &error));
        }
        // Copies of it may lack something.
        let _ = pool.home.call(async |home| home.look_at_copies()).await;
        // Otherwise nothing is let go before it is known what is wanted.
        if !wanted.outdated {
            store.keep(self.core(cores), &wanted.snapshots);
        }
        Ok(store)
    }

    /// Closes an LU: what it has begun ends first.
    pub(in crate::plane) async fn close_lu(&self, pool: Uuid, uuid: Uuid) {
        let Ok(pool) = self.pool(pool) else { return };
        let lu = pool.lus().get(&uuid).cloned();
        if let Some(lu) = lu {
            lu.close().await;
            pool.lus().remove(&uuid);
        }
    }

    /// Gives the slabs of a closed LU back. Others that wait for room may have some now. An error
    /// as long as disks are missing that may have it too.
    pub(in crate::plane) async fn remove_lu(&self, pool: Uuid, uuid: Uuid) -> Result<(), ApiError> {
        let pool = self.pool(pool)?;
        let revoked = pool.at_home(move |home| async move {
            let is_elsewhere = home.may_be_elsewhere(uuid.into_bytes());
            home.revoke(uuid.into_bytes()).await.map_err(|error| {
                ApiError::failed(format!("the slabs of LU {uuid} cannot be given back: {error}"))
            })?;
            Ok(is_elsewhere)
        });
        let is_elsewhere = revoked.await?;
        tell_of_room(&pool).await;
        match is_elsewhere {
            true => Err(kept_elsewhere(&pool.spec, uuid)),
            false => Ok(()),
        }
    }
}

async fn create(home: &Rc<home::Pool>, wanted: &Wanted) -> Result<Made, LuError> {
    let about = About {
        name: wanted.name.to_string(),
        size: wanted.size.bytes(),
        block_size: wanted.block_size,
        thick: wanted.thick,
        base: wanted.origin.map(|origin| Base {
            lu: origin.device.into_bytes(),
            layer: origin.snapshot.into_bytes(),
        }),
        source: wanted.source.as_ref().map(Source::about),
    };
    let (id, layer) = (wanted.uuid.into_bytes(), Machine.uuid().into_bytes());
    home.create_lu(NewLu { id, layer, about }).await.map(|_| Made::New)
}

/// Makes what an LU is to be brought into, anew: nothing was ever written there. If something was,
/// it must be there.
async fn make_part(
    home: &Rc<home::Pool>,
    wanted: &Wanted,
    source: &Source,
    failed: impl Fn(LuError) -> ApiError,
) -> Result<Made, ApiError> {
    let id = wanted.uuid.into_bytes();
    let stranger = |what: &str| {
        let message = format!("LU {} cannot be brought into its pool: {what}", wanted.name);
        ApiError::conflict(message)
    };
    let Some(granted) = home.granted(id) else {
        return match source.is_new {
            true => create(home, wanted).await.map_err(failed),
            false => Err(stranger("what was brought of it there is not there any more")),
        };
    };
    let described = match granted.first {
        Some(_) => home.describe_lu(id).await.map(|about| about.source),
        None => Ok(None),
    };
    match described {
        Ok(_) if !source.is_new => return Ok(Made::WasThere),
        Ok(Some(is)) if is == source.about() => {}
        // One that was not made whole.
        Ok(None) if granted.first.is_none() => {}
        Err(LuError::Root(_)) if source.is_new => {}
        Ok(_) => return Err(stranger("an LU of its UUID is there, which is none of this node")),
        Err(error) => return Err(failed(error)),
    }
    home.revoke(id).await.map_err(|error| failed(error.into()))?;
    create(home, wanted).await.map_err(failed)
}

/// LUs that got no slabs ask again, and those that have more than they need where little is left
/// give some back.
pub(super) async fn tell_of_room(pool: &OpenPool) {
    let share = pool.home.call(async |home: Rc<home::Pool>| home.share()).await;
    let lus: Vec<_> = pool.lus().values().cloned().collect();
    for lu in lus {
        // One that is just being closed needs no room.
        let _ = lu.lu.may_grow(share.unwrap_or_default()).await;
    }
}

/// Tells them whenever that has changed by much, for as long as the pool is open.
pub(super) async fn share_room(open: Arc<OpenPool>, pool: Rc<home::Pool>) {
    while pool.news_of_room().await {
        tell_of_room(&open).await;
    }
}

/// The pool was forced without the disks that know of it.
fn elsewhere(spec: &model::Pool, name: &LuName) -> ApiError {
    let pool = &spec.name;
    let message = format!(
        "LU {name} cannot be opened in pool '{pool}': nothing of it is on the disks that are here, \
         which the pool was forced to go on with"
    );
    ApiError::failed(message)
        .then(format!("bring the others back; viaduct pool show {pool} lists them"))
}

fn kept_elsewhere(spec: &model::Pool, lu: Uuid) -> ApiError {
    let name = &spec.name;
    ApiError::not_now(format!(
        "disks of pool '{name}' that are missing may have LU {lu}, which is removed: the pool was \
         forced to go on without them"
    ))
    .then(format!(
        "it is removed there when they are back; or viaduct pool replace-pv {name} OLD NEW, or \
         viaduct pool split {name} GROUP"
    ))
}

fn lu_failed(spec: &model::Pool, name: &LuName, what: &str, error: LuError) -> ApiError {
    let next = match &error {
        LuError::Pool(error @ PoolError::NoCopy(_)) => {
            let back = next(spec, error);
            format!("{back}; viaduct lu force {name} shows what would be lost without it")
        }
        LuError::Pool(error) => next(spec, error),
        LuError::Short(_) => MAKE_ROOM.to_owned(),
        LuError::Unopened(_)
        | LuError::Root(_)
        | LuError::Disk(_)
        | LuError::Size(_)
        | LuError::Base(_)
        | LuError::Source(_) => {
            "its data are left as they are; viaduct event ls shows when it began".to_owned()
        }
    };
    let message = format!("LU {name} cannot {what} in pool '{}': {error}", spec.name);
    ApiError::failed(message).then(next)
}
