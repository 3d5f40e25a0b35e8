//! `media add`: a request that takes as long as a copy does, and tells how far it is.
//!
//! What is wrong from the start is answered as everywhere. Then the answer is a line of JSON for
//! each step of the way (NDJSON), the last of which says how it ended. Who hangs up ends the copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body as AnswerBody, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use model::medium::MediumTold;
use model::{ApiError, Medium, MediumAdd, MediumName};
use tokio::sync::{mpsc, oneshot};

use super::Api;
use super::optical::medium_view;
use super::routes::{Body, Refusal};
use crate::control::{Change, OpticalChange};
use crate::library::{self, Source};
use crate::state::optical::{medium_add, no_medium};
use crate::world;

/// Time between two lines of progress; without one, who hung up would not be noticed.
const LINE_EVERY: Duration = Duration::from_millis(200);

/// Lines on their way at a time.
const LINES_MAX: usize = 4;

/// Copies a file of the node into its library and verifies the copy. The answer is one line of JSON
/// for each step: `copying` and `verifying` with bytes, then `done` with the medium, or `failed`.
#[utoipa::path(post, path = "/v1/media", tag = "medium", request_body = MediumAdd, responses(
    (status = 200, content_type = "application/x-ndjson", body = MediumTold),
    (status = "default", body = ApiError)))]
pub async fn medium_add_file(
    State(api): State<Api>,
    Body(request): Body<MediumAdd>,
) -> Result<Response, Refusal> {
    let MediumAdd { path, name, force } = request;
    if !path.starts_with('/') {
        return Err(ApiError::usage(format!("the path '{path}' is not absolute")).into());
    }
    let name = name.map_or_else(|| library::name_from(&path), Ok)?;
    medium_add(&api.published().media, &name)?;
    let (opened, is_open) = oneshot::channel();
    spawn(move || drop(opened.send(Source::open(path.as_ref(), force))))?;
    let source = is_open.await.unwrap_or_else(|_| Err(given_up()))?;
    if source.path().starts_with(&api.info.data) {
        let path = source.path().display();
        return Err(ApiError::usage(format!("{path} lies in the node's own data directory")).into());
    }
    let (lines, body) = Channel::<Bytes>::new(LINES_MAX);
    tokio::spawn(add(api, source, name, lines));
    let head = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((head, AnswerBody::new(body)).into_response())
}

/// Nothing is left of a medium that did not become known.
async fn add(api: Api, source: Source, name: MediumName, mut lines: Sender<Bytes>) {
    let last = match added(&api, source, name, &mut lines).await {
        Ok(name) => {
            let published = api.published();
            let medium = published.media.get(&name).map(|it| medium_view(&published, it));
            medium.map_or_else(|| MediumTold::Failed(no_medium(&name)), MediumTold::Done)
        }
        Err(error) => MediumTold::Failed(error),
    };
    // Who hung up does not want to know.
    let _ = lines.send_data(line(&last)).await;
}

async fn added(
    api: &Api,
    source: Source,
    name: MediumName,
    lines: &mut Sender<Bytes>,
) -> Result<MediumName, ApiError> {
    let (media, uuid) = (api.info.media.clone(), api.world.uuid());
    let medium = copied(api, source, (name.clone(), uuid), lines).await?;
    let known = api.change(Change::Optical(OpticalChange::MediumAdd(medium))).await;
    let (placed, is_placed) = oneshot::channel();
    spawn(move || {
        let result = match known {
            Ok(_) => library::place(&media, uuid),
            Err(error) => {
                library::discard(&media, uuid);
                Err(error)
            }
        };
        drop(placed.send(result));
    })?;
    is_placed.await.unwrap_or_else(|_| Err(given_up()))?;
    Ok(name)
}

/// Copies on a thread of its own, and passes on how far it is.
async fn copied(
    api: &Api,
    source: Source,
    id: (MediumName, uuid::Uuid),
    lines: &mut Sender<Bytes>,
) -> Result<Medium, ApiError> {
    let (tell, mut told) = mpsc::channel(LINES_MAX);
    let (ended, mut end) = oneshot::channel();
    let is_wanted = Arc::new(AtomicBool::new(true));
    let (media, go_on) = (api.info.media.clone(), is_wanted.clone());
    spawn(move || {
        let tell = |line| {
            // What there is no room for is followed by something newer.
            let _ = tell.try_send(line);
            go_on.load(Ordering::Relaxed)
        };
        drop(ended.send(source.copy(&media, id, &tell)));
    })?;
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            copied = &mut end => return copied.unwrap_or_else(|_| Err(given_up())),
            Some(progress) = told.recv() => {
                if tokio::time::Instant::now() < next {
                    continue;
                }
                next = tokio::time::Instant::now() + LINE_EVERY;
                let is_heard = lines.send_data(line(&progress)).await.is_ok();
                is_wanted.store(is_heard, Ordering::Relaxed);
            }
            () = api.closing.closed() => {
                is_wanted.store(false, Ordering::Relaxed);
                return end.await.unwrap_or_else(|_| Err(given_up()));
            }
        }
    }
}

fn line(told: &MediumTold) -> Bytes {
    let mut line = serde_json::to_vec(told).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
    let thread = world::spawn("viaduct-media", work);
    thread.map(drop).map_err(|error| ApiError::failed(format!("cannot start a thread: {error}")))
}

fn given_up() -> ApiError {
    ApiError::failed("the copy was given up")
}
