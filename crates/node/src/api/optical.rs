//! Drives and media.

use std::fmt;

use axum::Json;
use axum::extract::{Path, State};
use model::{ApiError, DriveCreate, DriveLoad, DriveView, LuName, Medium, MediumName, MediumView};
use serde::Deserialize;
use utoipa::IntoParams;

use super::routes::{Answer, Body, Parameters, Removed, named, removed};
use super::{Api, on_thread};
use crate::control::{Change, Changed, OpticalChange};
use crate::engine::Motion;
use crate::plane::host_drive;
use crate::state::optical::{no_drive, no_medium};
use crate::view::Published;

/// All media of the library.
#[utoipa::path(get, path = "/v1/media", tag = "medium", responses(
    (status = 200, body = Vec<MediumView>), (status = "default", body = ApiError)))]
pub async fn medium_list(State(api): State<Api>) -> Json<Vec<MediumView>> {
    let published = api.published();
    Json(published.media.values().map(|medium| medium_view(&published, medium)).collect())
}

/// One medium.
#[utoipa::path(get, path = "/v1/media/{name}", tag = "medium", params(("name" = String, Path)),
    responses((status = 200, body = MediumView), (status = "default", body = ApiError)))]
pub async fn medium_show(State(api): State<Api>, Path(name): Path<String>) -> Answer<MediumView> {
    let name: MediumName = named(&name)?;
    let published = api.published();
    let medium = published.media.get(&name).ok_or_else(|| no_medium(&name))?;
    Ok(Json(medium_view(&published, medium)))
}

pub(super) fn medium_view(published: &Published, medium: &Medium) -> MediumView {
    let drives = published.config.drives_with(&medium.name);
    let loaded_in = drives.map(|drive| drive.name.clone()).collect();
    MediumView { medium: medium.clone(), loaded_in }
}

/// Removes a medium with its data. Refused while a drive has it.
#[utoipa::path(delete, path = "/v1/media/{name}", tag = "medium", params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn medium_remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<Removed> {
    removed(&change(&api, OpticalChange::MediumRemove(named(&name)?)).await?)
}

/// All drives.
#[utoipa::path(get, path = "/v1/drives", tag = "drive", responses(
    (status = 200, body = Vec<DriveView>), (status = "default", body = ApiError)))]
pub async fn drive_list(State(api): State<Api>) -> Answer<Vec<DriveView>> {
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let picture = api.picture(&published, &snapshot);
    Ok(Json(published.config.drives.iter().map(|drive| picture.drive(drive)).collect()))
}

/// One drive.
#[utoipa::path(get, path = "/v1/drives/{name}", tag = "drive", params(("name" = String, Path)),
    responses((status = 200, body = DriveView), (status = "default", body = ApiError)))]
pub async fn drive_show(State(api): State<Api>, Path(name): Path<String>) -> Answer<DriveView> {
    view(&api, &named(&name)?).await
}

async fn view(api: &Api, name: &LuName) -> Answer<DriveView> {
    let published = api.published();
    let drive = published.config.drive(name).ok_or_else(|| no_drive(name))?;
    let snapshot = api.snapshot().await?;
    Ok(Json(api.picture(&published, &snapshot).drive(drive)))
}

/// Makes a drive, empty or with a medium.
#[utoipa::path(post, path = "/v1/drives", tag = "drive", request_body = DriveCreate, responses(
    (status = 200, body = DriveView), (status = "default", body = ApiError)))]
pub async fn drive_create(
    State(api): State<Api>,
    Body(request): Body<DriveCreate>,
) -> Answer<DriveView> {
    let name = request.name.clone();
    if let Some(device) = request.device.clone() {
        on_thread("viaduct-drive", move || host_drive::check(device.as_ref())).await?;
    }
    change(&api, OpticalChange::DriveCreate(request)).await?;
    view(&api, &name).await
}

/// Removes a drive; what was in it stays in the library.
#[utoipa::path(delete, path = "/v1/drives/{name}", tag = "drive", params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn drive_remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<Removed> {
    removed(&change(&api, OpticalChange::DriveRemove(named(&name)?)).await?)
}

/// Puts a medium into a drive, in the place of what is in it. A client that locks that one is told
/// of the wish; if it does not let go, this is refused (503) unless forced.
#[utoipa::path(put, path = "/v1/drives/{name}/medium", tag = "drive",
    params(("name" = String, Path)), request_body = DriveLoad,
    responses((status = 200, body = DriveView), (status = "default", body = ApiError)))]
pub async fn drive_load(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(DriveLoad { medium, force }): Body<DriveLoad>,
) -> Answer<DriveView> {
    let name: LuName = named(&name)?;
    let published = api.published();
    let drive = published.config.drive(&name).ok_or_else(|| no_drive(&name))?;
    if drive.device.is_some() {
        return Err(drive.has_its_own().into());
    }
    published.media.get(&medium).ok_or_else(|| no_medium(&medium))?;
    match &drive.medium {
        // It may lie in an open tray.
        Some(inside) if *inside == medium => drop(api.tray(drive.uuid, Motion::Close).await?),
        Some(inside) => {
            let next = format!("viaduct drive load {name} {medium} --force");
            open_tray(&api, (drive, inside), force, &next).await?;
        }
        None => {}
    }
    change(&api, OpticalChange::DriveLoad(name.clone(), Some(medium))).await?;
    view(&api, &name).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EjectParameters {
    /// Although a client locks the medium.
    #[serde(default)]
    force: bool,
}

/// Takes the medium out of a drive. A client that locks it is told of the wish; if it does not let
/// go, this is refused (503) unless forced.
#[utoipa::path(delete, path = "/v1/drives/{name}/medium", tag = "drive",
    params(("name" = String, Path), EjectParameters),
    responses((status = 200, body = DriveView), (status = "default", body = ApiError)))]
pub async fn drive_eject(
    State(api): State<Api>,
    Path(name): Path<String>,
    Parameters(EjectParameters { force }): Parameters<EjectParameters>,
) -> Answer<DriveView> {
    let name: LuName = named(&name)?;
    let published = api.published();
    let drive = published.config.drive(&name).ok_or_else(|| no_drive(&name))?;
    if let Some(inside) = &drive.medium {
        open_tray(&api, (drive, inside), force, &format!("viaduct drive eject {name} --force"))
            .await?;
        change(&api, OpticalChange::DriveLoad(name.clone(), None)).await?;
    }
    if let Some(device) = &drive.device {
        let next = format!("viaduct drive eject {name} --force");
        open_tray(&api, (drive, device), force, &next).await?;
    }
    view(&api, &name).await
}

async fn open_tray(
    api: &Api,
    (drive, medium): (&model::Drive, &(dyn fmt::Display + Sync)),
    force: bool,
    next: &str,
) -> Result<(), ApiError> {
    let motion = if force { Motion::Force } else { Motion::Open };
    let locked_by = api.tray(drive.uuid, motion).await?;
    if locked_by.is_empty() {
        return Ok(());
    }
    let (name, clients) = (&drive.name, locked_by.join(", "));
    Err(ApiError::not_now(format!(
        "medium '{medium}' is locked in drive '{name}' by {clients}, which was told that it is to \
         come out, and did not let go"
    ))
    .then(format!("unmount it there and try again, or {next}")))
}

async fn change(api: &Api, change: OpticalChange) -> Result<Changed, ApiError> {
    api.change(Change::Optical(change)).await
}
