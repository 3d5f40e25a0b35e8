//! Snapshots and clones.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use model::snapshot::{SnapshotRollback, SnapshotView};
use model::{
    ApiError, CloneCreate, Config, Lu, LuName, Severity, Size, Snapshot, SnapshotCreate,
    SnapshotName, SnapshotRef, Subject,
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::routes::{Answer, Body, Parameters, Removed, lu_view, named, removed};
use super::{Api, pools};
use crate::control::{Change, SnapshotChange};
use crate::engine::Report;
use crate::state::ops::no_lu;
use crate::state::snapshots::{clones_of, find, may_be_taken};

/// Of which LU.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SnapshotParameters {
    /// Only those of this LU.
    lu: Option<String>,
}

/// All snapshots, or those of an LU, with what they hold.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshot", params(SnapshotParameters),
    responses((status = 200, body = Vec<SnapshotView>), (status = "default", body = ApiError)))]
pub async fn snapshot_list(
    State(api): State<Api>,
    Parameters(SnapshotParameters { lu }): Parameters<SnapshotParameters>,
) -> Answer<Vec<SnapshotView>> {
    let (published, mut views) = (api.published(), Vec::new());
    let config = &published.config;
    let lus: Vec<&Lu> = match lu.as_deref() {
        Some(name) => {
            let name: LuName = named(name)?;
            vec![config.lu(&name).ok_or_else(|| no_lu(&name))?]
        }
        None => config.lus.iter().collect(),
    };
    for lu in lus.into_iter().filter(|lu| !lu.snapshots.is_empty()) {
        // Of an LU that is not open nobody knows.
        let sizes = api.layers(lu.uuid).await.unwrap_or_default();
        views.extend(lu.snapshots.iter().map(|it| view(config, lu, it, &sizes)));
    }
    Ok(Json(views))
}

fn view(
    config: &Config,
    lu: &Lu,
    snapshot: &Snapshot,
    sizes: &BTreeMap<Uuid, Size>,
) -> SnapshotView {
    let own = SnapshotRef { lu: lu.name.clone(), snapshot: snapshot.name.clone() };
    SnapshotView {
        lu: lu.name.clone(),
        snapshot: snapshot.clone(),
        own: sizes.get(&snapshot.uuid).copied(),
        clones: clones_of(config, &own).map(|clone| clone.name.clone()).collect(),
    }
}

/// Takes snapshots: those of one request hold what their LUs were at one instant.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshot", request_body = SnapshotCreate,
    responses((status = 200, body = Vec<SnapshotView>), (status = "default", body = ApiError)))]
pub async fn snapshot_create(
    State(api): State<Api>,
    Body(SnapshotCreate { snapshots }): Body<SnapshotCreate>,
) -> Answer<Vec<SnapshotView>> {
    // A task of its own: who hangs up half-way must not leave what nobody knows of.
    let taken = tokio::spawn(async move { take(&api, &snapshots).await });
    Ok(Json(taken.await.unwrap_or_else(|_| Err(ApiError::failed("it was given up")))?))
}

async fn take(api: &Api, wanted: &[SnapshotRef]) -> Result<Vec<SnapshotView>, ApiError> {
    let lus: Vec<(Uuid, Size)> = {
        let published = api.published();
        let lus = may_be_taken(&published.config, wanted)?;
        lus.into_iter().map(|lu| (lu.uuid, lu.size)).collect()
    };
    let uuids: Vec<Uuid> = lus.iter().map(|(uuid, _)| *uuid).collect();
    let layers = api.take_snapshots(&uuids).await?;
    let now = api.world.wall();
    let snapshot = |((wanted, (_, size)), uuid): ((&SnapshotRef, &(Uuid, Size)), &Uuid)| {
        let (name, size) = (wanted.snapshot.clone(), *size);
        (wanted.lu.clone(), Snapshot { name, uuid: *uuid, size, taken: now })
    };
    let taken: Vec<_> = wanted.iter().zip(&lus).zip(&layers).map(snapshot).collect();
    let added = api.change(Change::Snapshot(SnapshotChange::Add(taken))).await;
    if let Err(error) = added {
        let known = api.published();
        let is_known = |layer: &Uuid| {
            let mut all = known.config.lus.iter().flat_map(|lu| &lu.snapshots);
            all.any(|snapshot| snapshot.uuid == *layer)
        };
        if !layers.iter().any(is_known) {
            let forgotten: Vec<_> = uuids.into_iter().zip(layers).collect();
            api.engine.forget_snapshots(&forgotten);
        }
        return Err(error);
    }
    let published = api.published();
    let config = &published.config;
    let views = wanted.iter().map(|wanted| {
        let (lu, snapshot) = find(config, wanted)?;
        Ok(view(config, lu, snapshot, &BTreeMap::new()))
    });
    views.collect()
}

/// The names in a path.
fn snapshot_of(lu: &str, snapshot: &str) -> Result<SnapshotRef, ApiError> {
    let snapshot: SnapshotName = named(snapshot)?;
    Ok(SnapshotRef { lu: named(lu)?, snapshot })
}

/// Removes a snapshot. What only it held is let go in the background.
#[utoipa::path(delete, path = "/v1/snapshots/{lu}/{snapshot}", tag = "snapshot",
    params(("lu" = String, Path), ("snapshot" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn snapshot_remove(
    State(api): State<Api>,
    Path((lu, snapshot)): Path<(String, String)>,
) -> Answer<Removed> {
    let snapshot = snapshot_of(&lu, &snapshot)?;
    removed(&api.change(Change::Snapshot(SnapshotChange::Remove(snapshot))).await?)
}

/// Makes an LU what it was when a snapshot was taken. Everything written since is lost, and the
/// snapshot stays.
#[utoipa::path(post, path = "/v1/snapshots/{lu}/{snapshot}/rollback", tag = "snapshot",
    params(("lu" = String, Path), ("snapshot" = String, Path)), request_body = SnapshotRollback,
    responses((status = 200, body = model::status::LuView), (status = "default", body = ApiError)))]
pub async fn snapshot_rollback(
    State(api): State<Api>,
    Path((lu, snapshot)): Path<(String, String)>,
    Body(SnapshotRollback { force }): Body<SnapshotRollback>,
) -> Answer<model::status::LuView> {
    let wanted = snapshot_of(&lu, &snapshot)?;
    let (uuid, layer) = {
        let published = api.published();
        let (lu, snapshot) = find(&published.config, &wanted)?;
        refuse_larger(&wanted, lu, snapshot)?;
        (lu.uuid, snapshot.uuid)
    };
    if !force {
        refuse_connected(&api, &wanted).await?;
    }
    api.roll_back(uuid, layer).await?;
    // Not a change of what is wanted, and yet something to be found later.
    api.tell(Report {
        severity: Severity::Warning,
        subject: Subject::Lu(wanted.lu.clone()),
        kind: "rolled-back",
        message: format!("LU '{}' was made what snapshot '{wanted}' is", wanted.lu),
        next: None,
    });
    Ok(Json(lu_view(&api, &wanted.lu).await?))
}

/// Part of what it was would lie behind the end of the LU.
fn refuse_larger(wanted: &SnapshotRef, lu: &Lu, snapshot: &Snapshot) -> Result<(), ApiError> {
    let (name, is, was) = (&lu.name, lu.size, snapshot.size);
    if was <= is {
        return Ok(());
    }
    let message = format!("LU '{name}' has {is}, and had {was} when '{wanted}' was taken");
    Err(ApiError::conflict(message)
        .then(format!("make it as large again first: viaduct lu resize {name} --size {was}")))
}

/// A disk that becomes another one under a running client is a broken filesystem.
async fn refuse_connected(api: &Api, wanted: &SnapshotRef) -> Result<(), ApiError> {
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let mut mappings = published.config.mappings_of_lu(&wanted.lu);
    let connected = mappings.find(|mapping| {
        let status = snapshot.adapters.get(&mapping.adapter());
        status.is_some_and(|status| status.sessions() > 0)
    });
    let Some(mapping) = connected else { return Ok(()) };
    let (client, lu) = (&mapping.client, &wanted.lu);
    Err(ApiError::conflict(format!("client '{client}' is connected to LU '{lu}'")).then(format!(
        "shut it down or detach the disk first; viaduct snapshot rollback {wanted} --force \
         changes the disk under it"
    )))
}

/// Makes an LU that begins as a snapshot of another one, in the same pool.
#[utoipa::path(post, path = "/v1/clones", tag = "snapshot", request_body = CloneCreate,
    responses((status = 200, body = model::status::LuView), (status = "default", body = ApiError)))]
pub async fn clone_create(
    State(api): State<Api>,
    Body(request): Body<CloneCreate>,
) -> Answer<model::status::LuView> {
    request.limits.validate()?;
    let name = request.name.clone();
    if request.thick {
        let next = crate::state::snapshots::clone(&api.published().config, &request, Uuid::nil())?;
        pools::has_room(&api, &next, &name).await?;
    }
    api.change(Change::Snapshot(SnapshotChange::Clone(request))).await?;
    Ok(Json(lu_view(&api, &name).await?))
}
