//! `lu create --from`: told line by line, as `media add` is. What is wrong with the image is
//! answered as everywhere.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http_body_util::channel::Sender;
use model::{ApiError, ImportTold, LuImport, LuName, Size};
use uuid::Uuid;

use super::Api;
use super::adding::{Relay, line, lines};
use super::routes::{Body, Refusal, lu_view};
use crate::control::{Change, ImportChange};
use crate::engine::Done;
use crate::import::Import;
use crate::state::ops::lu_name_is_free;

/// Makes an LU out of an image of the node: raw, qcow2, VMDK or VHDX. The answer is one line of
/// JSON for each step: `copying` and `verifying` with bytes, then `done` with the LU, or `failed`.
#[utoipa::path(post, path = "/v1/imports", tag = "lu", request_body = LuImport, responses(
    (status = 200, content_type = "application/x-ndjson", body = ImportTold),
    (status = "default", body = ApiError)))]
pub async fn lu_import(
    State(api): State<Api>,
    Body(request): Body<LuImport>,
) -> Result<Response, Refusal> {
    if !request.path.starts_with('/') {
        return Err(ApiError::usage(format!("the path '{}' is not absolute", request.path)).into());
    }
    request.limits.validate()?;
    lu_name_is_free(&api.published().config, &request.name)?;
    let uuid = api.world.uuid();
    api.change(Change::LuImport(request.name.clone(), uuid, ImportChange::Begin)).await?;
    let (mut relay, tell, ended) = Relay::new();
    let import = Import {
        uuid,
        name: request.name.clone(),
        path: request.path.clone().into(),
        size: request.size,
        block_size: request.block_size,
        data: api.info.data.clone(),
    };
    // An import that nobody waits for any more has ended all the same.
    let done = Done::new(move |answer| drop(ended.send(answer)));
    api.engine.import(&import, Box::new(tell), done);
    if let Err(error) = relay.begun(&api).await {
        give_up(&api, &request.name, uuid).await;
        return Err(error.into());
    }
    let (lines, answer) = lines();
    tokio::spawn(import_to_end(api, (request, uuid), relay, lines));
    Ok(answer)
}

async fn import_to_end(
    api: Api,
    (request, uuid): (LuImport, Uuid),
    relay: Relay<ImportTold, Size>,
    mut lines: Sender<Bytes>,
) {
    let name = request.name.clone();
    let result = match relay.run(&api, &mut lines).await {
        Ok(size) => {
            let end = ImportChange::End(request.create(size));
            api.change(Change::LuImport(name.clone(), uuid, end)).await
        }
        Err(error) => Err(error),
    };
    let is_there = api.published().config.lus.iter().any(|lu| lu.uuid == uuid);
    let last = match result {
        Ok(_) => match lu_view(&api, &name).await {
            Ok(view) => ImportTold::Done(Box::new(view)),
            Err(error) => ImportTold::Failed(error),
        },
        Err(error) => {
            if !is_there {
                give_up(&api, &name, uuid).await;
            }
            ImportTold::Failed(error)
        }
    };
    // Who hung up does not want to know.
    let _ = lines.send_data(line(&last)).await;
}

/// What was copied is deleted; by the next start, if this node takes no changes any more.
async fn give_up(api: &Api, name: &LuName, uuid: Uuid) {
    let change = Change::LuImport(name.clone(), uuid, ImportChange::GiveUp);
    if let Err(error) = api.change(change).await {
        tracing::warn!(%error, %name, "what an import left stays until the next start");
    }
}
