//! Pools.

use std::path::{Path as FilePath, PathBuf};

use axum::Json;
use axum::extract::{Path, State};
use model::image::ImageUse;
use model::{
    ApiError, Config, LuName, PoolCreate, PoolName, PoolSettingsChange, PoolSplit, PoolView, PvAdd,
    Size,
};
use serde::Deserialize;
use utoipa::IntoParams;
use volume::pool::lu::thick_bytes;

use super::routes::{Answer, Body, Parameters, Removed, named, removed};
use super::{Api, must_be_absolute, on_thread};
use crate::control::{Change, PoolChange};
use crate::probe;
use crate::state::pool_pvs::{Load, Wish};
use crate::state::pool_split::Others;
use crate::state::pools::{Found, no_pool, shape_of};

/// All pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pool", responses(
    (status = 200, body = Vec<PoolView>), (status = "default", body = ApiError)))]
pub async fn pool_list(State(api): State<Api>) -> Answer<Vec<PoolView>> {
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let picture = api.picture(&published, &snapshot);
    Ok(Json(published.config.pools.iter().map(|pool| picture.pool(pool)).collect()))
}

/// One pool.
#[utoipa::path(get, path = "/v1/pools/{name}", tag = "pool", params(("name" = String, Path)),
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_show(State(api): State<Api>, Path(name): Path<String>) -> Answer<PoolView> {
    view(&api, &named(&name)?).await
}

async fn view(api: &Api, name: &PoolName) -> Answer<PoolView> {
    Ok(Json(pool_view(api, name).await?))
}

pub(super) async fn pool_view(api: &Api, name: &PoolName) -> Result<PoolView, ApiError> {
    let published = api.published();
    let pool = published.config.pool(name).ok_or_else(|| no_pool(name))?;
    let snapshot = api.snapshot().await?;
    Ok(api.picture(&published, &snapshot).pool(pool))
}

/// Makes a pool, of disks and files or of a sparse file in the data directory. Refused where a disk
/// is in use, and where it holds data, unless forced.
#[utoipa::path(post, path = "/v1/pools", tag = "pool", request_body = PoolCreate, responses(
    (status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_create(
    State(api): State<Api>,
    Body(request): Body<PoolCreate>,
) -> Answer<PoolView> {
    let paths: Vec<String> = request.pvs.iter().map(|it| it.path.clone()).collect();
    paths.iter().try_for_each(|path| must_be_absolute(path))?;
    let looking = api.clone();
    let found = on_thread("viaduct-pvs", move || look(&looking, &paths)).await?;
    let name = request.name.clone();
    api.change(Change::Pool(PoolChange::Create(request, found))).await?;
    view(&api, &name).await
}

/// Adds disks to a pool that may be in use; with `replaces`, what is on that one goes to the
/// others, and then it leaves. Answers when they are there. Refused like `pool create`.
#[utoipa::path(post, path = "/v1/pools/{name}/pvs", tag = "pool", params(("name" = String, Path)),
    request_body = PvAdd,
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_pv_add(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(request): Body<PvAdd>,
) -> Answer<PoolView> {
    let name: PoolName = named(&name)?;
    let paths: Vec<String> = request.pvs.iter().map(|it| it.path.clone()).collect();
    paths.iter().try_for_each(|path| must_be_absolute(path))?;
    let looking = api.clone();
    let found = on_thread("viaduct-pvs", move || look(&looking, &paths)).await?;
    let load = match &request.replaces {
        Some(old) => load(&api, &name, old).await?,
        None => None,
    };
    api.change(Change::Pool(PoolChange::AddPvs(name.clone(), request, found, load))).await?;
    view(&api, &name).await
}

/// Which disk is to leave a pool.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PvQuery {
    /// Its path, or its UUID.
    pv: String,
    /// It stays after all.
    #[serde(default)]
    cancel: bool,
}

/// Lets a disk leave a pool that may be in use: what is on it goes to the others, and then it is
/// free. Answers at once; the pool's view tells how far it is. Refused if the others have no room.
#[utoipa::path(delete, path = "/v1/pools/{name}/pvs", tag = "pool",
    params(("name" = String, Path), PvQuery),
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_pv_remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Parameters(query): Parameters<PvQuery>,
) -> Answer<PoolView> {
    let name: PoolName = named(&name)?;
    let wish = match query.cancel {
        true => Wish::Stay,
        false => Wish::Leave(load(&api, &name, &query.pv).await?),
    };
    api.change(Change::Pool(PoolChange::RemovePv(name.clone(), query.pv, wish))).await?;
    view(&api, &name).await
}

/// Lets a failure group leave a pool that may be in use: the others have everything, and its disks
/// are free then; or it becomes a pool with all LUs as they are at one instant. Answers when it has
/// left. Refused if the others lack something, or if it does itself and is to be a pool.
#[utoipa::path(post, path = "/v1/pools/{name}/split", tag = "pool",
    params(("name" = String, Path)), request_body = PoolSplit,
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_split(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(request): Body<PoolSplit>,
) -> Answer<PoolView> {
    let name: PoolName = named(&name)?;
    let others = others(&api, &name).await?;
    api.change(Change::Pool(PoolChange::Split(name.clone(), request, others))).await?;
    view(&api, &name).await
}

/// What failure groups lack; nothing while the pool is not open.
async fn others(api: &Api, name: &PoolName) -> Result<Option<Others>, ApiError> {
    let published = api.published();
    let pool = published.config.pool(name).ok_or_else(|| no_pool(name))?;
    let snapshot = api.snapshot().await?;
    let Some(status) = snapshot.pools.get(&pool.uuid) else { return Ok(None) };
    let missing = pool.pvs.iter().map(|pv| pv.uuid);
    let missing = missing.filter(|pv| !status.disks.contains_key(pv)).collect();
    let behind = status.behind.iter().map(|it| it.group).collect();
    Ok(Some(Others { missing, behind }))
}

/// What is on a disk that is to leave, and what room the others have; nothing while the pool is not
/// open.
async fn load(api: &Api, name: &PoolName, which: &str) -> Result<Option<Load>, ApiError> {
    let published = api.published();
    let pool = published.config.pool(name).ok_or_else(|| no_pool(name))?;
    let snapshot = api.snapshot().await?;
    let (Some(status), Some(leaving)) = (snapshot.pools.get(&pool.uuid), pool.find_pv(which))
    else {
        return Ok(None);
    };
    let slabs = |size: Size| size.bytes() / pool.slab_size.bytes().max(1);
    let mut load = Load::default();
    for pv in pool.pvs.iter().filter(|pv| pv.group == leaving.group) {
        let Some(disk) = status.disks.get(&pv.uuid) else { continue };
        match pv.standing.is_going() {
            _ if pv.uuid == leaving.uuid => load.used = slabs(disk.used),
            true => load.used_by_others += slabs(disk.used),
            false => load.free += slabs(disk.free),
        }
    }
    Ok(Some(load))
}

/// Looks at disks and files that are to be in a pool.
fn look(api: &Api, paths: &[String]) -> Result<Vec<Found>, ApiError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let found = probed(api, paths)?;
    let is_inside = |it: &&Found| FilePath::new(&it.probe.path).starts_with(&api.info.data);
    if let Some(inside) = found.iter().find(is_inside) {
        let message = format!("{} lies in the node's own data directory", inside.probe.path);
        return Err(ApiError::usage(message)
            .then("viaduct pool create NAME --size 100G makes a file there by itself"));
    }
    Ok(found)
}

/// The same of whatever is there.
pub(super) fn probed(api: &Api, paths: &[String]) -> Result<Vec<Found>, ApiError> {
    let probe = |path: &String| probe::probe(FilePath::new(path), ImageUse::of(false, false));
    let probes = paths.iter().map(probe).collect::<Result<Vec<_>, _>>()?;
    let files: Vec<PathBuf> = probes.iter().map(|it| PathBuf::from(&it.path)).collect();
    let views = api.looker.list(api.world.as_ref(), &api.published().config, &files);
    let found = |probe: probe::Probe| {
        let view = views.iter().find(|view| view.path == probe.path).cloned();
        let lost = || ApiError::failed(format!("{} cannot be looked at", probe.path));
        Ok(Found { view: view.ok_or_else(lost)?, probe })
    };
    probes.into_iter().map(found).collect()
}

/// Refuses a thick LU that is to be, if its pool has not what it needs.
pub(super) async fn has_room(api: &Api, next: &Config, name: &LuName) -> Result<(), ApiError> {
    let Some(lu) = next.lu(name) else { return Ok(()) };
    let snapshot = api.snapshot().await?;
    // Where nothing is known of the pool, it tells when it is there.
    let pool = next.pool_of(lu).and_then(|pool| Some((pool, snapshot.pools.get(&pool.uuid)?)));
    let Some((pool, status)) = pool else { return Ok(()) };
    let free = status.disks.values().map(|disk| disk.free.bytes()).sum();
    let wanted = thick_bytes(shape_of(pool)?, lu.size.bytes());
    if wanted <= free {
        return Ok(());
    }
    let (wanted, free, missing) = (Size(wanted), Size(free), Size(wanted - free));
    let message = format!(
        "LU '{name}' needs {wanted} to be thick, and pool '{}' has {free}: {missing} are missing",
        pool.name
    );
    Err(ApiError::conflict(message).then(
        "choose a smaller size, remove LUs or snapshots of the pool, or make it without --thick",
    ))
}

/// Changes when an operator is told of a pool, also while it is in use.
#[utoipa::path(patch, path = "/v1/pools/{name}/settings", tag = "pool",
    params(("name" = String, Path)), request_body = PoolSettingsChange,
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_set(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(change): Body<PoolSettingsChange>,
) -> Answer<PoolView> {
    let name = named(&name)?;
    api.change(Change::Pool(PoolChange::Set(PoolName::clone(&name), change))).await?;
    view(&api, &name).await
}

/// How a pool is to be removed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PoolRemoveQuery {
    /// Also with LUs in it that are none of this node.
    #[serde(default)]
    force: bool,
}

/// Removes a pool without LUs; its disks are free then. Refused while LUs are in it, also such as
/// were left out when it was imported, unless forced.
#[utoipa::path(delete, path = "/v1/pools/{name}", tag = "pool",
    params(("name" = String, Path), PoolRemoveQuery),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn pool_remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Parameters(PoolRemoveQuery { force }): Parameters<PoolRemoveQuery>,
) -> Answer<Removed> {
    let name: PoolName = named(&name)?;
    if !force {
        has_no_strangers(&api, &name).await?;
    }
    removed(&api.change(Change::Pool(PoolChange::Remove(name))).await?)
}

/// Refuses a pool with LUs that only its disks know.
async fn has_no_strangers(api: &Api, name: &PoolName) -> Result<(), ApiError> {
    let published = api.published();
    let Some(pool) = published.config.pool(name) else { return Ok(()) };
    let snapshot = api.snapshot().await?;
    let known = published.config.lus_in(name).count()
        + published.lus_left.iter().filter(|left| **left == pool.uuid).count();
    let there = snapshot.pools.get(&pool.uuid).map_or(0, |status| status.lus);
    let strangers = there.saturating_sub(known as u64);
    if strangers == 0 {
        return Ok(());
    }
    let what = match strangers {
        1 => "an LU that is none of this node".to_owned(),
        many => format!("{many} LUs that are none of this node"),
    };
    let message = format!("pool '{name}' has {what}");
    Err(ApiError::conflict(message).then(format!(
        "import it on a new data directory to have them; viaduct pool rm {name} --force removes \
         them with it"
    )))
}
