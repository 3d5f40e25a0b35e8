//! LUs of which no copy with everything is to be had: what others there are, and taking one of them
//! for the LU.

use axum::Json;
use axum::extract::{Path, State};
use model::lu::{Forced, LuCopies, LuCopy, LuForce};
use model::status::LuView;
use model::{ApiError, LuName, Pool, Size};
use uuid::Uuid;
use volume::pool::home::CopyAbout;

use super::Api;
use super::routes::{Answer, Body, lu_view, named};
use crate::control::Change;
use crate::state::ops::no_lu;

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
        Some(which) => pool.find_group(&which).cloned().ok_or_else(|| {
            ApiError::not_found(format!("pool '{}' has no failure group {which}", pool.name))
                .then(format!("viaduct lu force {name} lists the copies"))
        })?,
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
