//! `lu create --from`: told line by line, as `media add` is. What is wrong with the image is
//! answered as everywhere.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http_body_util::channel::Sender;
use model::{ApiError, ImportTold, LuImport, LuName, Size};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::adding::{Relay, given_up, line, lines};
use super::routes::{Body, Refusal, lu_view};
use super::{Api, must_be_absolute};
use crate::control::{Change, ImportChange};
use crate::engine::Done;
use crate::import::Import;
use crate::state::ops::lu_name_is_free;
use crate::state::pools::no_pool;

/// Imports at one time: each may have a program of its own.
pub const IMPORTS_MAX: usize = 4;

/// Places for imports. Clones are the same.
#[derive(Clone)]
pub struct Imports(Arc<Semaphore>);

impl Default for Imports {
    fn default() -> Imports {
        Imports(Arc::new(Semaphore::new(IMPORTS_MAX)))
    }
}

/// Makes an LU out of an image of the node: raw, qcow2, VMDK or VHDX. The answer is one line of
/// JSON for each step: `copying` and `verifying` with bytes, then `done` with the LU, or `failed`.
#[utoipa::path(post, path = "/v1/imports", tag = "lu", request_body = LuImport, responses(
    (status = 200, content_type = "application/x-ndjson", body = ImportTold),
    (status = "default", body = ApiError)))]
pub async fn lu_import(
    State(api): State<Api>,
    Body(mut request): Body<LuImport>,
) -> Result<Response, Refusal> {
    must_be_absolute(&request.path)?;
    request.limits.validate()?;
    let pool = {
        let config = &api.published().config;
        lu_name_is_free(config, &request.name)?;
        let known = |name| config.pool(&name).ok_or_else(|| no_pool(&name));
        let named = request.settle(config.default_pool().map(|pool| &pool.name))?;
        named.map(known).transpose()?.map(|pool| pool.uuid)
    };
    let place = api.imports.0.clone().try_acquire_owned().map_err(|_| {
        ApiError::not_now(format!("{IMPORTS_MAX} imports are under way"))
            .then("run the command again when one of them has ended")
    })?;
    let ((lines, answer), (tell, begun)) = (lines(), oneshot::channel());
    // A task of its own: who hangs up, however early, must not stop it half way.
    tokio::spawn(async move {
        import(&api, (request, pool), lines, tell).await;
        drop(place);
    });
    begun.await.unwrap_or_else(|_| Err(given_up()))?;
    Ok(answer)
}

/// `tell` hears whether it has begun to copy.
async fn import(
    api: &Api,
    (request, pool): (LuImport, Option<Uuid>),
    mut lines: Sender<Bytes>,
    tell: oneshot::Sender<Result<(), ApiError>>,
) {
    let (name, uuid) = (request.name.clone(), api.world.uuid());
    let relay = match begin(api, &request, (uuid, pool)).await {
        Ok(relay) => relay,
        Err(error) => return drop(tell.send(Err(error))),
    };
    // Who hung up is noticed at the first line.
    let _ = tell.send(Ok(()));
    let result = match relay.run(api, &mut lines).await {
        Ok(size) => {
            let end = ImportChange::End(request.create(size));
            api.change(Change::LuImport(name.clone(), uuid, pool, end)).await
        }
        Err(error) => Err(error),
    };
    let is_there = api.published().config.lus.iter().any(|lu| lu.uuid == uuid);
    let last = match result {
        Ok(_) => match lu_view(api, &name).await {
            Ok(view) => ImportTold::Done(Box::new(view)),
            Err(error) => ImportTold::Failed(error),
        },
        Err(error) => {
            if !is_there {
                give_up(api, &name, (uuid, pool)).await;
            }
            ImportTold::Failed(error)
        }
    };
    // Who hung up does not want to know.
    let _ = lines.send_data(line(&last)).await;
}

/// Notes that there will be a file, and begins to copy.
async fn begin(
    api: &Api,
    request: &LuImport,
    (uuid, pool): (Uuid, Option<Uuid>),
) -> Result<Relay<ImportTold, Size>, ApiError> {
    let name = &request.name;
    api.change(Change::LuImport(name.clone(), uuid, pool, ImportChange::Begin)).await?;
    let (mut relay, tell, ended) = Relay::new();
    let import = Import {
        uuid,
        name: name.clone(),
        path: request.path.clone().into(),
        size: request.size,
        block_size: request.block_size,
        pool,
        thick: request.thick,
        data: api.info.data.clone(),
    };
    // An import that nobody waits for any more has ended all the same.
    let done = Done::new(move |answer| drop(ended.send(answer)));
    api.engine.import(&import, Box::new(tell), done);
    if let Err(error) = relay.begun(api).await {
        give_up(api, name, (uuid, pool)).await;
        return Err(error);
    }
    Ok(relay)
}

/// What was copied is deleted; by the next start, if this node takes no changes any more.
async fn give_up(api: &Api, name: &LuName, (uuid, pool): (Uuid, Option<Uuid>)) {
    let change = Change::LuImport(name.clone(), uuid, pool, ImportChange::GiveUp);
    if let Err(error) = api.change(change).await {
        tracing::warn!(%error, %name, "what an import left stays until the next start");
    }
}
