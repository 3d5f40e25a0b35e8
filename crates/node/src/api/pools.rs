//! Pools.

use std::path::{Path as FilePath, PathBuf};

use axum::Json;
use axum::extract::{Path, State};
use model::image::ImageUse;
use model::{ApiError, Config, LuName, PoolCreate, PoolName, PoolView, Size};
use volume::pool::lu::thick_bytes;
use volume::pool::shape::Shape;

use super::routes::{Answer, Body, Removed, named, removed};
use super::{Api, must_be_absolute, on_thread};
use crate::control::{Change, PoolChange};
use crate::probe;
use crate::state::pools::{Found, no_pool};

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
    let published = api.published();
    let pool = published.config.pool(name).ok_or_else(|| no_pool(name))?;
    let snapshot = api.snapshot().await?;
    Ok(Json(api.picture(&published, &snapshot).pool(pool)))
}

/// Makes a pool, of disks and files or of a sparse file in the data directory. Refused where a disk
/// is in use, and where it holds data, unless forced.
#[utoipa::path(post, path = "/v1/pools", tag = "pool", request_body = PoolCreate, responses(
    (status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_create(
    State(api): State<Api>,
    Body(request): Body<PoolCreate>,
) -> Answer<PoolView> {
    request.pvs.iter().try_for_each(|path| must_be_absolute(path))?;
    let (looking, paths) = (api.clone(), request.pvs.clone());
    let found = on_thread("viaduct-pvs", move || look(&looking, &paths)).await?;
    let name = request.name.clone();
    api.change(Change::Pool(PoolChange::Create(request, found))).await?;
    view(&api, &name).await
}

/// Looks at disks and files that are to be in a pool.
fn look(api: &Api, paths: &[String]) -> Result<Vec<Found>, ApiError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let probe = |path: &String| probe::probe(FilePath::new(path), ImageUse::of(false, false));
    let probes = paths.iter().map(probe).collect::<Result<Vec<_>, _>>()?;
    if let Some(inside) =
        probes.iter().find(|it| FilePath::new(&it.path).starts_with(&api.info.data))
    {
        let message = format!("{} lies in the node's own data directory", inside.path);
        return Err(ApiError::usage(message)
            .then("viaduct pool create NAME --size 100G makes a file there by itself"));
    }
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
    let shape = Shape::new(pool.slab_size.bytes(), pool.extent_size.bytes())
        .map_err(|error| ApiError::failed(format!("pool '{}': {error}", pool.name)))?;
    let free = status.disks.values().map(|(_, free)| free.bytes()).sum();
    let wanted = thick_bytes(shape, lu.size.bytes());
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

/// Removes a pool without LUs; its disks are free then. Refused while LUs are in it.
#[utoipa::path(delete, path = "/v1/pools/{name}", tag = "pool", params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn pool_remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<Removed> {
    removed(&api.change(Change::Pool(PoolChange::Remove(named(&name)?))).await?)
}
