//! The disks of the node.

use axum::Json;
use axum::extract::State;
use model::{ApiError, PvView};
use serde::Deserialize;
use utoipa::IntoParams;

use super::routes::{Answer, Parameters};
use super::{Api, must_be_absolute, on_thread};
use crate::world;

/// Which one.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PvParameters {
    /// Only this disk or file, by any absolute path that leads to it.
    path: Option<String>,
}

/// Every disk that the node could use, with what is on it and who uses it, and files that LUs are
/// made of; or one disk or file. Nothing is opened for writing.
#[utoipa::path(get, path = "/v1/pvs", tag = "pv", params(PvParameters), responses(
    (status = 200, body = Vec<PvView>), (status = "default", body = ApiError)))]
pub async fn pv_list(
    State(api): State<Api>,
    Parameters(PvParameters { path }): Parameters<PvParameters>,
) -> Answer<Vec<PvView>> {
    Ok(Json(on_thread("viaduct-pvs", move || list(&api, path.as_deref())).await?))
}

fn list(api: &Api, path: Option<&str>) -> Result<Vec<PvView>, ApiError> {
    let config = &api.published().config;
    let Some(path) = path else { return Ok(api.looker.list(api.world.as_ref(), config, &[])) };
    must_be_absolute(path)?;
    let found = world::canonical(path.as_ref()).map_err(|error| {
        ApiError::not_found(format!("there is no disk or file {path}: {error}"))
            .then("viaduct pv ls shows the disks that are there")
    })?;
    let mut views = api.looker.list(api.world.as_ref(), config, std::slice::from_ref(&found));
    views.retain(|view| *view.path == *found.to_string_lossy());
    Ok(views)
}
