//! Looking at all of a pool while it is used: scrubs, and checks of metadata.

use axum::Json;
use axum::extract::{Path, State};
use model::check::PoolCheck;
use model::{ApiError, PoolName, PoolView};
use uuid::Uuid;

use super::Api;
use super::pools::pool_view;
use super::routes::{Answer, named};
use crate::engine::ScrubWish;
use crate::state::pools::no_pool;

/// Begins to read all of a pool at every place, and to mend what another place knows better.
/// Answers at once; the pool's view tells how far it is and what was found. Refused while it is
/// under way.
#[utoipa::path(post, path = "/v1/pools/{name}/scrub", tag = "pool",
    params(("name" = String, Path)),
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn scrub_begin(State(api): State<Api>, Path(name): Path<String>) -> Answer<PoolView> {
    scrub(&api, &name, ScrubWish::Begin).await
}

/// Ends the scrub of a pool. What it has found stays in the pool's view.
#[utoipa::path(delete, path = "/v1/pools/{name}/scrub", tag = "pool",
    params(("name" = String, Path)),
    responses((status = 200, body = PoolView), (status = "default", body = ApiError)))]
pub async fn scrub_cancel(State(api): State<Api>, Path(name): Path<String>) -> Answer<PoolView> {
    scrub(&api, &name, ScrubWish::Cancel).await
}

async fn scrub(api: &Api, name: &str, wish: ScrubWish) -> Answer<PoolView> {
    let name: PoolName = named(name)?;
    api.scrub_pool(uuid_of(api, &name)?, wish).await?;
    Ok(Json(pool_view(api, &name).await?))
}

/// Reads all metadata of a pool, writes anew what is known better, and answers with what was wrong.
#[utoipa::path(post, path = "/v1/pools/{name}/check", tag = "pool",
    params(("name" = String, Path)),
    responses((status = 200, body = PoolCheck), (status = "default", body = ApiError)))]
pub async fn pool_check(State(api): State<Api>, Path(name): Path<String>) -> Answer<PoolCheck> {
    let name: PoolName = named(&name)?;
    Ok(Json(api.check_pool(uuid_of(&api, &name)?).await?))
}

pub(super) fn uuid_of(api: &Api, name: &PoolName) -> Result<Uuid, ApiError> {
    let published = api.published();
    published.config.pool(name).map(|pool| pool.uuid).ok_or_else(|| no_pool(name))
}
