//! Clients: who they are, how they prove themselves, and what to run on their side.

use axum::Json;
use axum::extract::{Path, State};
use model::chap::ChapRequest;
use model::status::{ClientView, ConnectFor, Connection};
use model::{ApiError, Client, ClientChange, ClientName, Redirect};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::routes::{Answer, Body, Parameters, Removed, SecretBody, named, removed};
use crate::connect;
use crate::control::Change;
use crate::state::ops::no_client;

/// All clients.
#[utoipa::path(get, path = "/v1/clients", tag = "client", responses(
    (status = 200, body = Vec<ClientView>), (status = "default", body = ApiError)))]
pub async fn client_list(State(api): State<Api>) -> Answer<Vec<ClientView>> {
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let picture = api.picture(&published, &snapshot);
    Ok(Json(published.config.clients.iter().map(|client| picture.client(client)).collect()))
}

/// One client.
#[utoipa::path(get, path = "/v1/clients/{name}", tag = "client", params(("name" = String, Path)),
    responses((status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_show(State(api): State<Api>, Path(name): Path<String>) -> Answer<ClientView> {
    Ok(Json(view(&api, &named(&name)?).await?))
}

async fn view(api: &Api, name: &ClientName) -> Result<ClientView, ApiError> {
    let published = api.published();
    let client = published.config.client(name).ok_or_else(|| no_client(name))?;
    let snapshot = api.snapshot().await?;
    Ok(api.picture(&published, &snapshot).client(client))
}

/// Makes a client.
#[utoipa::path(post, path = "/v1/clients", tag = "client", request_body = Client, responses(
    (status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_create(
    State(api): State<Api>,
    Body(client): Body<Client>,
) -> Answer<ClientView> {
    let name = client.name.clone();
    api.change(Change::ClientCreate(client)).await?;
    Ok(Json(view(&api, &name).await?))
}

/// Removes a client.
#[utoipa::path(delete, path = "/v1/clients/{name}", tag = "client",
    params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ApiError)))]
pub async fn client_remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<Removed> {
    removed(&api.change(Change::ClientRemove(named(&name)?)).await?)
}

/// Changes the iSCSI names of a client.
#[utoipa::path(patch, path = "/v1/clients/{name}", tag = "client",
    params(("name" = String, Path)), request_body = ClientChange,
    responses((status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_change(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(change): Body<ClientChange>,
) -> Answer<ClientView> {
    let name: ClientName = named(&name)?;
    api.change(Change::ClientChange(name.clone(), change)).await?;
    Ok(Json(view(&api, &name).await?))
}

/// Makes a client prove itself with CHAP. Sessions that it has end, and log in anew.
#[utoipa::path(put, path = "/v1/clients/{name}/chap", tag = "client",
    params(("name" = String, Path)), request_body = ChapRequest,
    responses((status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_chap_set(
    State(api): State<Api>,
    Path(name): Path<String>,
    SecretBody(request): SecretBody<ChapRequest>,
) -> Answer<ClientView> {
    let name: ClientName = named(&name)?;
    let chap = request.parts(&name)?;
    api.change(Change::ClientChap(name.clone(), Some(chap))).await?;
    Ok(Json(view(&api, &name).await?))
}

/// Lets a client log in by its name alone.
#[utoipa::path(delete, path = "/v1/clients/{name}/chap", tag = "client",
    params(("name" = String, Path)),
    responses((status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_chap_off(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Answer<ClientView> {
    let name: ClientName = named(&name)?;
    api.change(Change::ClientChap(name.clone(), None)).await?;
    Ok(Json(view(&api, &name).await?))
}

/// Sends logins of a client to another portal.
#[utoipa::path(put, path = "/v1/clients/{name}/redirect", tag = "client",
    params(("name" = String, Path)), request_body = Redirect,
    responses((status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_redirect_set(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(redirect): Body<Redirect>,
) -> Answer<ClientView> {
    let name: ClientName = named(&name)?;
    api.change(Change::ClientRedirect(name.clone(), Some(redirect))).await?;
    Ok(Json(view(&api, &name).await?))
}

/// Lets a client log in here.
#[utoipa::path(delete, path = "/v1/clients/{name}/redirect", tag = "client",
    params(("name" = String, Path)),
    responses((status = 200, body = ClientView), (status = "default", body = ApiError)))]
pub async fn client_redirect_off(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Answer<ClientView> {
    let name: ClientName = named(&name)?;
    api.change(Change::ClientRedirect(name.clone(), None)).await?;
    Ok(Json(view(&api, &name).await?))
}

/// Which tool a connection is for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ConnectionParameters {
    #[serde(rename = "for")]
    wanted: ConnectFor,
}

/// What to run on the client's side.
#[utoipa::path(get, path = "/v1/clients/{name}/connection", tag = "client",
    params(("name" = String, Path), ConnectionParameters),
    responses((status = 200, body = Connection), (status = "default", body = ApiError)))]
pub async fn connection(
    State(api): State<Api>,
    Path(name): Path<String>,
    Parameters(parameters): Parameters<ConnectionParameters>,
) -> Answer<Connection> {
    let client = view(&api, &named(&name)?).await?;
    let (published, snapshot) = (api.published(), api.snapshot().await?);
    let wanted = parameters.wanted;
    Ok(Json(connect::connection(&published.config, &client, wanted, snapshot.cores)?))
}
