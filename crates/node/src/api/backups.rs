//! `pool backup` of a pool that the node has open: the file itself is the answer, in pieces as they
//! are taken. Who hangs up ends it.

use axum::body::{Body as AnswerBody, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use jiff::Timestamp;
use model::{ApiError, PoolName};
use uuid::Uuid;
use volume::pool::backup::Taking;

use super::Api;
use super::routes::{Refusal, named};
use super::scrubs::uuid_of;

/// As a backup says when it was taken.
pub fn seconds(at: Timestamp) -> u64 {
    at.as_second().try_into().unwrap_or(0)
}

/// Pieces that wait for who asked.
const PIECES_MAX: usize = 2;

/// Takes a backup of the pool's metadata while it is used. The answer is the file; one that does
/// not end with its closing part is not whole.
#[utoipa::path(post, path = "/v1/pools/{name}/backup", tag = "pool",
    params(("name" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = "default", body = ApiError)))]
pub async fn pool_backup(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let name: PoolName = named(&name)?;
    let uuid = uuid_of(&api, &name)?;
    let taking = Taking::new(seconds(api.world.wall()));
    // What is wrong at once is answered as everywhere.
    let first = api.back_up(uuid, taking).await?;
    let (pieces, body) = Channel::<Bytes>::new(PIECES_MAX);
    tokio::spawn(async move {
        if let Err(error) = send(&api, uuid, first, pieces).await {
            tracing::warn!(%error, %name, "a backup of a pool was given up");
        }
    });
    let head = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((head, AnswerBody::new(body)).into_response())
}

async fn send(
    api: &Api,
    uuid: Uuid,
    (mut taking, mut bytes): (Taking, Option<Vec<u8>>),
    mut pieces: Sender<Bytes>,
) -> Result<(), ApiError> {
    while let Some(piece) = bytes {
        if pieces.send_data(piece.into()).await.is_err() {
            return Err(ApiError::failed("who asked for it has hung up"));
        }
        (taking, bytes) = api.back_up(uuid, taking).await?;
    }
    Ok(())
}
