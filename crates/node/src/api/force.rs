//! LUs of which no copy with everything is to be had: what others there are, and taking one of them
//! for the LU. And pools of which only failure groups are here that lack something.

use axum::Json;
use axum::extract::{Path, State};
use model::lu::{Forced, LuCopies, LuCopy, LuForce};
use model::status::LuView;
use model::{ApiError, LuName, Pool, PoolForce, PoolName, PoolRemains, PoolView, PvGroup, Size};
use uuid::Uuid;
use volume::pool::home::{CopyAbout, GroupAbout};

use super::routes::{Answer, Body, lu_view, named};
use super::{Api, pools};
use crate::control::{Change, PoolChange};
use crate::engine::Remains;
use crate::state::ops::no_lu;
use crate::state::pool_force::group_remains;
use crate::state::pool_split::no_group;
use crate::state::pools::no_pool;

/// The copies of an LU in a pool, as far as they are here: which of them has everything, or what
/// each lacks.
#[utoipa::path(get, path = "/v1/lus/{name}/copies", tag = "lu", params(("name" = String, Path)),
    responses((status = 200, body = LuCopies), (status = "default", body = ApiError)))]
pub async fn lu_copies(State(api): State<Api>, Path(name): Path<String>) -> Answer<LuCopies> {
    let name: LuName = named(&name)?;
    let (pool, uuid) = place(&api, &name)?;
    let copies = api.copies(pool.uuid, uuid).await?;
    let copies = copies.iter().map(|copy| shown(&pool, copy)).collect();
    Ok(Json(LuCopies { lu: name, copies }))
}

/// Takes a copy that has missed something for all of the LU, whose copies with everything are gone.
/// What they had is lost, also if they come back. Refused as long as one is here.
#[utoipa::path(post, path = "/v1/lus/{name}/force", tag = "lu", params(("name" = String, Path)),
    request_body = LuForce,
    responses((status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_force(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(LuForce { group }): Body<LuForce>,
) -> Answer<LuView> {
    let name: LuName = named(&name)?;
    let (pool, uuid) = place(&api, &name)?;
    let group = match group {
        Some(which) => {
            group_called(&pool, &which, &format!("viaduct lu force {name} lists the copies"))?
        }
        None => {
            let copies = api.copies(pool.uuid, uuid).await?;
            let best = copies.first().ok_or_else(|| {
                ApiError::conflict(format!("no copy of LU '{name}' is here at all"))
            })?;
            pool.group_numbered(best.group)
        }
    };
    api.force(pool.uuid, uuid, &group).await?;
    let forced = Forced { group: group.call(), at: api.world.wall() };
    api.change(Change::LuForced(name.clone(), forced)).await?;
    Ok(Json(lu_view(&api, &name).await?))
}

/// What is here of a pool that is not open because others, which are not here, may have more: which
/// failure groups have all of their disks here, and what each has of every LU.
#[utoipa::path(get, path = "/v1/pools/{name}/remains", tag = "pool",
    params(("name" = String, Path)),
    responses((status = 200, body = PoolRemains), (status = "default", body = ApiError)))]
pub async fn pool_remains(State(api): State<Api>, Path(name): Path<String>) -> Answer<PoolRemains> {
    let pool = pool_of(&api, &named(&name)?)?;
    let Remains { missing, groups } = api.remains(&pool).await?;
    let published = api.published();
    let lus = published.config.lus_in(&pool.name).map(|lu| (lu.name.to_string(), lu.uuid));
    let lus: Vec<(String, Uuid)> = lus.collect();
    let group = |about: &GroupAbout| {
        group_remains(pool.group_numbered(about.group).call(), about, (pool.slab_size, &lus))
    };
    let groups = groups.iter().map(group).collect();
    Ok(Json(PoolRemains { pool: pool.name.to_string(), missing, groups }))
}

/// Opens such a pool with one of these groups. What only others have is not there until they are
/// back, and does not count where LUs were used without it.
#[utoipa::path(post, path = "/v1/pools/{name}/force", tag = "pool",
    params(("name" = String, Path)), request_body = PoolForce,
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn pool_force(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(PoolForce { group }): Body<PoolForce>,
) -> Answer<PoolView> {
    let name: PoolName = named(&name)?;
    let pool = pool_of(&api, &name)?;
    let lists = format!("viaduct pool force {name} lists those that are here");
    let Remains { groups, .. } = api.remains(&pool).await?;
    let group = match group {
        Some(which) => {
            let group = group_called(&pool, &which, &lists)?;
            if groups.iter().all(|about| about.group != group.number) {
                let message = format!("not all disks of {group} of pool '{name}' are here");
                return Err(ApiError::conflict(message).then(lists).into());
            }
            group
        }
        None => {
            let best = groups.first().ok_or_else(|| {
                ApiError::conflict(format!("no failure group of pool '{name}' is all here"))
            })?;
            pool.group_numbered(best.group)
        }
    };
    api.change(Change::Pool(PoolChange::Force(name.clone(), group))).await?;
    Ok(Json(pools::pool_view(&api, &name).await?))
}

fn pool_of(api: &Api, name: &PoolName) -> Result<Pool, ApiError> {
    api.published().config.pool(name).cloned().ok_or_else(|| no_pool(name))
}

fn group_called(pool: &Pool, which: &str, next: &str) -> Result<PvGroup, ApiError> {
    let found = pool.find_group(which).cloned();
    found.ok_or_else(|| no_group(pool, which).then(next))
}

/// The pool that an LU is in, and its UUID there.
fn place(api: &Api, name: &LuName) -> Result<(Pool, Uuid), ApiError> {
    let published = api.published();
    let lu = published.config.lu(name).ok_or_else(|| no_lu(name))?;
    let pool = published.config.pool_of(lu).ok_or_else(|| {
        ApiError::conflict(format!("LU '{name}' is in no pool, and there is one of it"))
    })?;
    Ok((pool.clone(), lu.uuid))
}

fn shown(pool: &Pool, copy: &CopyAbout) -> LuCopy {
    let slabs = |slabs: u64| Size(slabs.saturating_mul(pool.slab_size.bytes()));
    LuCopy {
        group: pool.group_numbered(copy.group).call(),
        current: copy.is_current,
        complete: copy.is_here,
        missed: copy.missed,
        size: slabs(copy.slabs),
        lacking: slabs(copy.lacking),
    }
}
