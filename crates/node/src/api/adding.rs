//! `media add`: a request that takes as long as a copy does, and tells how far it is.
//!
//! What is wrong from the start is answered as everywhere. Then the answer is a line of JSON for
//! each step of the way (NDJSON), the last of which says how it ended. Who hangs up ends the copy.
//! What an import of an LU has in common with it is here too.

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
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::optical::medium_view;
use super::routes::{Body, Refusal};
use super::{Api, must_be_absolute, on_thread, spawn};
use crate::control::{Change, OpticalChange};
use crate::library::{self, Source};
use crate::state::optical::{medium_add, no_medium};

/// Time between two lines of progress; without one, who hung up would not be noticed.
const LINE_EVERY: Duration = Duration::from_millis(200);

/// What threads that copy media are called.
const THREAD: &str = "viaduct-media";

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
    must_be_absolute(&path)?;
    let name = name.map_or_else(|| library::name_from(&path), Ok)?;
    medium_add(&api.published().media, &name)?;
    let source = on_thread(THREAD, move || Source::open(path.as_ref(), force)).await?;
    if source.path().starts_with(&api.info.data) {
        let path = source.path().display();
        return Err(ApiError::usage(format!("{path} lies in the node's own data directory")).into());
    }
    let (lines, answer) = lines();
    tokio::spawn(add(api, source, name, lines));
    Ok(answer)
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
    let place = move || match known {
        Ok(_) => library::place(&media, uuid),
        Err(error) => {
            library::discard(&media, uuid);
            Err(error)
        }
    };
    on_thread(THREAD, place).await?;
    Ok(name)
}

/// Copies on a thread of its own, and passes on how far it is.
async fn copied(
    api: &Api,
    source: Source,
    id: (MediumName, uuid::Uuid),
    lines: &mut Sender<Bytes>,
) -> Result<Medium, ApiError> {
    let (relay, tell, ended) = Relay::new();
    let media = api.info.media.clone();
    spawn(THREAD, move || drop(ended.send(source.copy(&media, id, &tell))))?;
    relay.run(api, lines).await
}

/// The way of what is told from who works to who asked.
pub(super) struct Relay<T, R> {
    told: mpsc::Receiver<T>,
    end: oneshot::Receiver<Result<R, ApiError>>,
    is_wanted: Arc<AtomicBool>,
}

impl<T: Serialize + Send, R> Relay<T, R> {
    /// The relay; what tells it, and answers whether to go on; and where the end is said.
    pub(super) fn new()
    -> (Self, impl Fn(T) -> bool + Send + use<T, R>, oneshot::Sender<Result<R, ApiError>>) {
        let (tell, told) = mpsc::channel(LINES_MAX);
        let (ended, end) = oneshot::channel();
        let is_wanted = Arc::new(AtomicBool::new(true));
        let go_on = is_wanted.clone();
        let tell = move |line| {
            // What there is no room for is followed by something newer.
            let _ = tell.try_send(line);
            go_on.load(Ordering::Relaxed)
        };
        (Self { told, end, is_wanted }, tell, ended)
    }

    /// Whether something was told before the end.
    pub(super) async fn begun(&mut self, api: &Api) -> Result<(), ApiError> {
        tokio::select! {
            biased;
            Some(_) = self.told.recv() => Ok(()),
            ended = &mut self.end => match ended.unwrap_or_else(|_| Err(given_up())) {
                Ok(_) => Err(given_up()),
                Err(error) => Err(error),
            },
            () = api.closing.closed() => {
                self.is_wanted.store(false, Ordering::Relaxed);
                Err(given_up())
            }
        }
    }

    pub(super) async fn run(mut self, api: &Api, lines: &mut Sender<Bytes>) -> Result<R, ApiError> {
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                ended = &mut self.end => return ended.unwrap_or_else(|_| Err(given_up())),
                Some(progress) = self.told.recv() => {
                    if tokio::time::Instant::now() < next {
                        continue;
                    }
                    next = tokio::time::Instant::now() + LINE_EVERY;
                    let is_heard = lines.send_data(line(&progress)).await.is_ok();
                    self.is_wanted.store(is_heard, Ordering::Relaxed);
                }
                () = api.closing.closed() => {
                    self.is_wanted.store(false, Ordering::Relaxed);
                    return self.end.await.unwrap_or_else(|_| Err(given_up()));
                }
            }
        }
    }
}

/// An answer that comes line by line.
pub(super) fn lines() -> (Sender<Bytes>, Response) {
    let (lines, body) = Channel::<Bytes>::new(LINES_MAX);
    let head = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (lines, (head, AnswerBody::new(body)).into_response())
}

pub(super) fn line(told: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(told).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

pub(super) fn given_up() -> ApiError {
    ApiError::failed("the copy was given up")
}
