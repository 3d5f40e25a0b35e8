//! The routes of `/v1` and their handlers: a request becomes one change or one view, and nothing
//! else. Handlers for clients and reservations have files of their own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use model::config::{ConfigRestore, RestoreOutcome};
use model::event::EventPage;
use model::image::ImageUse;
use model::limits::{BODY_BYTES_MAX, EVENTS_PER_PAGE_MAX, WAIT_SECONDS_MAX};
use model::status::{LuView, MappingView, NodeStatus, Problem};
use model::{
    ApiError, Backing, ClientName, Config, LimitsChange, LuAdopt, LuCreate, LuMigrate, LuName,
    LuResize, MapRequest, Mapping, Size, Subject, Via,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::importing::lu_import;
use super::pvs::pv_list;
use super::{
    Api, adding, backups, clients, force, must_be_absolute, optical, pool_import, pools,
    reservations, scrubs, snapshots,
};
use crate::control::{Change, Changed};
use crate::engine::Snapshot;
use crate::metrics;
use crate::state::ops::{self, no_lu};
use crate::state::optical::kind_and_name;

/// Everything, for callers that may do everything.
pub fn all(api: Api) -> Router {
    let secrets = Router::new().route("/v1/config/secrets", get(config_with_secrets));
    common().merge(secrets).with_state(api)
}

/// The same for callers that nobody vouches for: reading only, and no secrets.
pub fn reading(api: Api) -> Router {
    common().layer(middleware::from_fn(refuse_changes)).with_state(api)
}

fn common() -> Router<Api> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/lus", get(lu_list).post(lu_create))
        .route("/v1/snapshots", get(snapshots::snapshot_list).post(snapshots::snapshot_create))
        .route("/v1/snapshots/{lu}/{snapshot}", delete(snapshots::snapshot_remove))
        .route("/v1/snapshots/{lu}/{snapshot}/rollback", post(snapshots::snapshot_rollback))
        .route("/v1/clones", post(snapshots::clone_create))
        .route("/v1/pools", get(pools::pool_list).post(pools::pool_create))
        .route("/v1/pool-searches", post(pool_import::pool_search))
        .route("/v1/pool-imports", post(pool_import::pool_import))
        .route("/v1/pool-imports/remains", post(pool_import::pool_import_remains))
        .route("/v1/pools/{name}", get(pools::pool_show).delete(pools::pool_remove))
        .route("/v1/pools/{name}/pvs", post(pools::pool_pv_add).delete(pools::pool_pv_remove))
        .route("/v1/pools/{name}/split", post(pools::pool_split))
        .route("/v1/pools/{name}/settings", patch(pools::pool_set))
        .route("/v1/pools/{name}/scrub", post(scrubs::scrub_begin).delete(scrubs::scrub_cancel))
        .route("/v1/pools/{name}/check", post(scrubs::pool_check))
        .route("/v1/pools/{name}/backup", post(backups::pool_backup))
        .route("/v1/pvs", get(pv_list))
        .route("/v1/imports", post(lu_import))
        .route("/v1/lus/{name}/copies", get(force::lu_copies))
        .route("/v1/pools/{name}/remains", get(force::pool_remains))
        .route("/v1/pools/{name}/force", post(force::pool_force))
        .route("/v1/lus/{name}/force", post(force::lu_force))
        .route("/v1/lus/{name}/limits", patch(lu_limits))
        .route("/v1/lus/{name}/migration", put(lu_migrate).delete(lu_migrate_cancel))
        .route("/v1/lus/{name}", get(lu_show).patch(lu_resize).delete(lu_remove))
        .route("/v1/adopt", post(lu_adopt))
        .route("/v1/lus/{name}/reservations", delete(reservations::reservation_clear))
        .route("/v1/media", get(optical::medium_list).post(adding::medium_add_file))
        .route("/v1/media/{name}", get(optical::medium_show).delete(optical::medium_remove))
        .route("/v1/drives", get(optical::drive_list).post(optical::drive_create))
        .route("/v1/drives/{name}", get(optical::drive_show).delete(optical::drive_remove))
        .route("/v1/drives/{name}/medium", put(optical::drive_load).delete(optical::drive_eject))
        .route("/v1/clients", get(clients::client_list).post(clients::client_create))
        .route(
            "/v1/clients/{name}",
            get(clients::client_show).patch(clients::client_change).delete(clients::client_remove),
        )
        .route(
            "/v1/clients/{name}/chap",
            put(clients::client_chap_set).delete(clients::client_chap_off),
        )
        .route(
            "/v1/clients/{name}/redirect",
            put(clients::client_redirect_set).delete(clients::client_redirect_off),
        )
        .route("/v1/clients/{name}/connection", get(clients::connection))
        .route("/v1/mappings", get(mapping_list).post(map).delete(unmap))
        .route("/v1/reservations", get(reservations::reservation_list))
        .route("/v1/events", get(events))
        .route("/v1/config", get(config_show).put(config_restore))
        .route("/v1/openapi.json", get(openapi))
        .route("/metrics", get(prometheus))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn refuse_changes(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    Refusal(
        ApiError::forbidden("changes are taken on the Unix socket only, not over TCP")
            .then("use the viaduct command on the node itself"),
    )
    .into_response()
}

/// An error as an answer.
pub struct Refusal(ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        Refusal(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.http_status());
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(self.0)).into_response()
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// A JSON body; what is wrong with one is said in the form of every other error.
pub struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Refusal> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::usage(format!("the request body: {error}")))?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::usage(format!("the request body: {error}")))?;
        Ok(Body(value))
    }
}

/// A JSON body with secrets: what is wrong with one is said without its text.
pub struct SecretBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for SecretBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<SecretBody<T>, Refusal> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::usage(format!("the request body: {error}")))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::usage(format!(
                "the request body is wrong at line {} column {}; it has secrets, so it is not \
                 repeated here",
                error.line(),
                error.column()
            ))
            .then("GET /v1/openapi.json describes it")
        })?;
        Ok(SecretBody(value))
    }
}

/// The parameters after the question mark.
pub struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Parameters<T>, Refusal> {
        let Query(value) = Query::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::usage(format!("the request: {}", error.body_text())))?;
        Ok(Parameters(value))
    }
}

pub(super) fn named<T: std::str::FromStr>(name: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    name.parse().map_err(|error: T::Err| ApiError::usage(error.to_string()))
}

async fn nothing_here(request: Request) -> Refusal {
    Refusal(
        ApiError::not_found(format!("there is nothing at {}", request.uri().path()))
            .then("GET /v1/openapi.json describes what there is"),
    )
}

async fn no_such_method(request: Request) -> Refusal {
    let (method, path) = (request.method(), request.uri().path());
    Refusal(ApiError::usage(format!("{method} is not possible at {path}")))
}

/// The node at a glance, with everything that is not as it should be.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses(
    (status = 200, body = NodeStatus), (status = "default", body = ApiError)))]
pub async fn status(State(api): State<Api>) -> Answer<NodeStatus> {
    let published = api.published();
    let (snapshot, silence) = match api.snapshot().await {
        Ok(snapshot) => (snapshot, None),
        Err(error) => (Snapshot::default(), Some(error)),
    };
    let picture = api.picture(&published, &snapshot);
    let silence = silence.map(|error| Problem {
        subject: Subject::Node,
        message: error.message,
        next: error.next,
    });
    let info = &api.info;
    let config = &published.config;
    Ok(Json(NodeStatus {
        node: info.node,
        version: info.version.to_owned(),
        pid: crate::world::process_id(),
        data: info.data.to_string_lossy().into_owned(),
        http: info.http.clone(),
        iscsi: picture.portals(),
        started: info.started,
        uptime_s: api.world.now().saturating_sub(info.started_at).as_secs(),
        phase: published.phase,
        revision: config.revision,
        steps_pending: published.steps_pending,
        cores: snapshot.cores,
        map_memory: snapshot.map_memory,
        pools: config.pools.len() as u64,
        lus: config.lus.len() as u64,
        drives: config.drives.len() as u64,
        clients: config.clients.len() as u64,
        mappings: config.mappings.len() as u64,
        sessions: picture.sessions(),
        problems: silence.into_iter().chain(picture.problems()).collect(),
    }))
}

/// All LUs.
#[utoipa::path(get, path = "/v1/lus", tag = "lu", responses(
    (status = 200, body = Vec<LuView>), (status = "default", body = ApiError)))]
pub async fn lu_list(State(api): State<Api>) -> Answer<Vec<LuView>> {
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let picture = api.picture(&published, &snapshot);
    Ok(Json(published.config.lus.iter().map(|lu| picture.lu(lu)).collect()))
}

/// One LU.
#[utoipa::path(get, path = "/v1/lus/{name}", tag = "lu", params(("name" = String, Path)),
    responses((status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_show(State(api): State<Api>, Path(name): Path<String>) -> Answer<LuView> {
    let name: LuName = named(&name)?;
    Ok(Json(lu_view(&api, &name).await?))
}

pub(super) async fn lu_view(api: &Api, name: &LuName) -> Result<LuView, ApiError> {
    let published = api.published();
    let lu = published.config.lu(name).ok_or_else(|| no_lu(name))?;
    let snapshot = api.snapshot().await?;
    Ok(api.picture(&published, &snapshot).lu(lu))
}

/// The LU that a change was about.
async fn changed_lu(api: &Api, changed: Changed) -> Answer<LuView> {
    let name = changed.lu.ok_or_else(|| ApiError::failed("the change named no LU"))?;
    Ok(Json(lu_view(api, &name).await?))
}

/// Makes an LU.
#[utoipa::path(post, path = "/v1/lus", tag = "lu", request_body = LuCreate, responses(
    (status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_create(State(api): State<Api>, Body(request): Body<LuCreate>) -> Answer<LuView> {
    if request.thick {
        let next = ops::lu_create(&api.published().config, &request, Uuid::nil())?;
        pools::has_room(&api, &next, &request.name).await?;
    }
    let changed = api.change(Change::LuCreate(request)).await?;
    changed_lu(&api, changed).await
}

/// Makes an LU over a raw image or block device that holds data already.
#[utoipa::path(post, path = "/v1/adopt", tag = "lu", request_body = LuAdopt, responses(
    (status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_adopt(State(api): State<Api>, Body(request): Body<LuAdopt>) -> Answer<LuView> {
    must_be_absolute(&request.path)?;
    let usage = ImageUse::of(request.read_only, request.shareable);
    let probe = api.probe(&request.path, usage).await?;
    if std::path::Path::new(&probe.path).starts_with(&api.info.data) {
        return Err(ApiError::usage(format!(
            "{} lies in the node's own data directory",
            probe.path
        ))
        .into());
    }
    let changed = api.change(Change::LuAdopt(request, probe)).await?;
    changed_lu(&api, changed).await
}

/// Changes the size of an LU.
#[utoipa::path(patch, path = "/v1/lus/{name}", tag = "lu", params(("name" = String, Path)),
    request_body = LuResize,
    responses((status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_resize(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(request): Body<LuResize>,
) -> Answer<LuView> {
    let name: LuName = named(&name)?;
    let published = api.published();
    let lu = published.config.lu(&name).ok_or_else(|| no_lu(&name))?;
    let probe = match &lu.backing {
        Backing::Adopted { path } => {
            Some(api.probe(path, ImageUse::of(lu.read_only, lu.shareable)).await?)
        }
        _ => None,
    };
    let changed = match (&lu.backing, request.size) {
        (Backing::Pool { .. }, Some(size)) if size < lu.size || lu.thick => {
            ops::lu_resize(&published.config, &name, &request, None)?;
            let (api, uuid) = (api.clone(), lu.uuid);
            // A task of its own: who hangs up half-way must not leave one size here and another
            // there.
            let resized = async move { resize_first(&api, (name, uuid), size).await };
            tokio::spawn(resized)
                .await
                .unwrap_or_else(|_| Err(ApiError::failed("it was given up")))?
        }
        _ => api.change(Change::LuResize(name, request, probe)).await?,
    };
    changed_lu(&api, changed).await
}

/// Brings an LU that is in no pool into one while it is used, or changes how fast that goes on.
/// Answers when that is kept; where it is served from, and how far it is brought, is in its view.
#[utoipa::path(put, path = "/v1/lus/{name}/migration", tag = "lu",
    params(("name" = String, Path)), request_body = LuMigrate,
    responses((status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_migrate(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(request): Body<LuMigrate>,
) -> Answer<LuView> {
    let changed = api.change(Change::LuMigrate(named(&name)?, request)).await?;
    changed_lu(&api, changed).await
}

/// Lets an LU stay where it is. Refused when it is in the pool already: what was written since is
/// only there.
#[utoipa::path(delete, path = "/v1/lus/{name}/migration", tag = "lu",
    params(("name" = String, Path)),
    responses((status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_migrate_cancel(State(api): State<Api>, Path(name): Path<String>) -> Answer<LuView> {
    let changed = api.change(Change::LuMigrateCancel(named(&name)?)).await?;
    changed_lu(&api, changed).await
}

/// An LU that becomes smaller in its pool, or larger and is thick, does so before that is wanted of
/// it: only there it is known whether it may. If the node ends in between it gets the size again
/// that it had.
async fn resize_first(
    api: &Api,
    (name, uuid): (LuName, Uuid),
    to: Size,
) -> Result<Changed, ApiError> {
    api.resize(uuid, to).await?;
    let request = LuResize { size: Some(to), shrink: false };
    let changed = api.change(Change::LuResize(name.clone(), request, None)).await;
    if changed.is_err() {
        let wanted = api.published().config.lu(&name).map(|lu| lu.size);
        if let Some(size) = wanted.filter(|size| *size != to) {
            api.resize(uuid, size).await?;
        }
    }
    changed
}

/// Limits what an LU is given, also while it is in use.
#[utoipa::path(patch, path = "/v1/lus/{name}/limits", tag = "lu",
    params(("name" = String, Path)), request_body = LimitsChange,
    responses((status = 200, body = LuView), (status = "default", body = ApiError)))]
pub async fn lu_limits(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(change): Body<LimitsChange>,
) -> Answer<LuView> {
    let changed = api.change(Change::LuLimits(named(&name)?, change)).await?;
    changed_lu(&api, changed).await
}

/// What a removal answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// The revision of the desired state without it.
    pub revision: u64,
}

pub(super) fn removed(changed: &Changed) -> Answer<Removed> {
    Ok(Json(Removed { revision: changed.revision }))
}

/// Removes an LU, and its data unless it was adopted.
#[utoipa::path(delete, path = "/v1/lus/{name}", tag = "lu", params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn lu_remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<Removed> {
    removed(&api.change(Change::LuRemove(named(&name)?)).await?)
}

/// All mappings.
#[utoipa::path(get, path = "/v1/mappings", tag = "mapping", responses(
    (status = 200, body = Vec<MappingView>), (status = "default", body = ApiError)))]
pub async fn mapping_list(State(api): State<Api>) -> Answer<Vec<MappingView>> {
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let picture = api.picture(&published, &snapshot);
    let mappings = published.config.mappings.iter();
    Ok(Json(mappings.map(|mapping| picture.mapping(mapping)).collect()))
}

/// Maps an LU to a client.
#[utoipa::path(post, path = "/v1/mappings", tag = "mapping", request_body = MapRequest,
    responses((status = 200, body = MappingView), (status = "default", body = ApiError)))]
pub async fn map(State(api): State<Api>, Body(request): Body<MapRequest>) -> Answer<MappingView> {
    let changed = api.change(Change::Map(request)).await?;
    let mapping = changed.mapping.ok_or_else(|| ApiError::failed("nothing was mapped"))?;
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    Ok(Json(api.picture(&published, &snapshot).mapping(&mapping)))
}

/// Which mapping goes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct UnmapParameters {
    #[param(value_type = String)]
    lu: LuName,
    #[param(value_type = String)]
    client: ClientName,
    /// Needed only where it is mapped by two transports.
    #[param(value_type = Option<Via>)]
    via: Option<Via>,
    /// Also while the client uses it.
    #[serde(default)]
    force: bool,
}

/// Takes an LU away from a client. Refused while the client uses it, unless forced.
#[utoipa::path(delete, path = "/v1/mappings", tag = "mapping", params(UnmapParameters),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn unmap(
    State(api): State<Api>,
    Parameters(parameters): Parameters<UnmapParameters>,
) -> Answer<Removed> {
    let UnmapParameters { lu, client, via, force } = parameters;
    let published = api.published();
    let is_meant = |mapping: &&Mapping| {
        let is_by = via.is_none_or(|via| mapping.via == via);
        mapping.lu == lu && mapping.client == client && is_by
    };
    let mapping = published.config.mappings.iter().find(is_meant);
    if let (Some(mapping), false) = (mapping, force) {
        let snapshot = api.snapshot().await?;
        let status = snapshot.adapters.get(&mapping.adapter());
        if status.is_some_and(|status| status.sessions() > 0) {
            return Err(in_use(&published.config, mapping).into());
        }
    }
    removed(&api.change(Change::Unmap(lu, client, via)).await?)
}

fn in_use(config: &Config, mapping: &Mapping) -> ApiError {
    let Mapping { lu, client, via, .. } = mapping;
    let thing = kind_and_name(config, lu);
    let force = format!("viaduct unmap {lu} --from {client} --force");
    match via {
        Via::VhostUserBlk => ApiError::conflict(format!("client '{client}' is using {thing} now"))
            .then(format!("stop the guest first, or {force}")),
        Via::VhostUserScsi => ApiError::conflict(format!(
            "client '{client}' is running, and may be using {thing} now"
        ))
        .then(format!("unmount it in the guest; then {force}")),
        // Which of its LUNs an initiator uses is not known here.
        Via::Iscsi => ApiError::conflict(format!(
            "client '{client}' is logged in, and may be using {thing} now"
        ))
        .then(format!("unmount it and delete its disks there, or log out; then {force}")),
    }
}

/// Which events, and whether to wait for them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EventParameters {
    /// Only events after this one; the last ones when absent.
    after: Option<u64>,
    limit: Option<usize>,
    /// Wait so long for the first event after `after`.
    wait_s: Option<u32>,
}

/// What happened. With `wait_s`, answers as soon as there is news.
#[utoipa::path(get, path = "/v1/events", tag = "event", params(EventParameters), responses(
    (status = 200, body = EventPage), (status = "default", body = ApiError)))]
pub async fn events(
    State(api): State<Api>,
    Parameters(parameters): Parameters<EventParameters>,
) -> Answer<EventPage> {
    let limit = parameters.limit.unwrap_or(EVENTS_PER_PAGE_MAX);
    let Some(after) = parameters.after else {
        return Ok(Json(api.events.last(limit)));
    };
    let wait_s = parameters.wait_s.unwrap_or(0).min(WAIT_SECONDS_MAX);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait_s.into());
    loop {
        let news = api.news.notified();
        tokio::pin!(news);
        // Registered before looking, so that nothing falls in between.
        news.as_mut().enable();
        let page = api.events.after(after, limit);
        if !page.events.is_empty() {
            return Ok(Json(page));
        }
        tokio::select! {
            () = news => {}
            () = tokio::time::sleep_until(deadline) => return Ok(Json(page)),
            () = api.closing.closed() => return Ok(Json(page)),
        }
    }
}

/// The whole desired state.
#[utoipa::path(get, path = "/v1/config", tag = "config", responses(
    (status = 200, body = Config), (status = "default", body = ApiError)))]
pub async fn config_show(State(api): State<Api>) -> Json<Config> {
    Json(Config::clone(&api.published().config))
}

/// The whole desired state with its secrets. Not over TCP.
#[utoipa::path(get, path = "/v1/config/secrets", tag = "config", responses(
    (status = 200, body = Config), (status = "default", body = ApiError)))]
pub async fn config_with_secrets(State(api): State<Api>) -> Json<Config> {
    let published = api.published();
    let secrets = published.secrets.as_ref().clone();
    Json(Config { secrets, ..Config::clone(&published.config) })
}

/// Makes a document the desired state. Secrets that it does not have stay as they are.
#[utoipa::path(put, path = "/v1/config", tag = "config", request_body = ConfigRestore, responses(
    (status = 200, body = RestoreOutcome), (status = "default", body = ApiError)))]
pub async fn config_restore(
    State(api): State<Api>,
    Body(request): Body<ConfigRestore>,
) -> Answer<RestoreOutcome> {
    let changed = api.change(Change::Restore(request)).await?;
    let outcome = changed.restored.unwrap_or_default();
    Ok(Json(RestoreOutcome { revision: changed.revision, ..outcome }))
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "node", responses((status = 200)))]
pub async fn openapi() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, super::document::text()).into_response()
}

/// Counters and histograms for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, content_type = "text/plain"), (status = "default", body = ApiError)))]
pub async fn prometheus(State(api): State<Api>) -> Result<Response, Refusal> {
    let (published, snapshot): (Arc<_>, _) = (api.published(), api.snapshot().await?);
    let stats = api.stats().await?;
    let text = metrics::text(api.info.version, &api.picture(&published, &snapshot), &stats);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
