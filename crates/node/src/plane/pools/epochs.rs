//! What is known here of a pool, against what its disks say.
//!
//! Every opening writes a new epoch to the labels. Before it does, the node keeps that number in
//! `kv`, durably, and when it has done so that all labels have it: so each disk has a number from
//! the one to the other, however often an opening was cut short. Disks with more were used by
//! another node, or this store is an old copy; disks with less are an old copy themselves. Either
//! way what is here and what is there do not belong together, and nothing is written.

use std::ops::RangeInclusive;
use std::sync::Arc;

use model::{ApiError, Pool};
use rt::Core;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volume::pool::home::Found;
use volume::pool::label::Label;

use super::disks;
use crate::engine::Context;
use crate::records::{Record, Records};

/// The version of the form that this program writes.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// What may have been written.
    epoch: u64,
    /// What all disks have, or more.
    opened: u64,
}

/// A pool is about to be made: it begins with the first epoch.
pub(super) async fn begin(context: &Context, core: &Core, spec: &Pool) -> Result<(), ApiError> {
    write(context, core, spec, 0..=1).await
}

/// A pool was found where it was to be made. Of one that nothing is known of, what its disks say is
/// taken as it is: a document with it was restored here.
pub(super) async fn adopt(
    context: &Context,
    core: &Core,
    spec: &Pool,
    found: &Found,
) -> Result<(), ApiError> {
    match read(context, core, spec).await? {
        Some(_) => Ok(()),
        None => {
            let least = found.labels().map(|label| label.epoch).min().unwrap_or(0);
            write(context, core, spec, least..=found.epoch()).await
        }
    }
}

/// What every disk has that was there when the pool was last opened.
pub(super) async fn oldest(context: &Context, core: &Core, spec: &Pool) -> Result<u64, ApiError> {
    Ok(read(context, core, spec).await?.map_or(0, |known| *known.start()))
}

/// A pool is about to be opened: refuses disks that do not fit what is known, and keeps what they
/// will say. Answers with the last epoch that a disk may have which is not here.
pub(super) async fn check(
    context: &Context,
    core: &Core,
    spec: &Pool,
    found: &Found,
) -> Result<u64, ApiError> {
    let known = fit(context, core, spec, found).await?;
    let last = *known.end();
    // A disk that was about to join may have the last one.
    write(context, core, spec, *known.start()..=last.max(found.epoch()) + 1).await?;
    Ok(last)
}

/// The same of one that is about to be forced. Answers with the epoch that its labels get.
pub(super) async fn force(
    context: &Context,
    core: &Core,
    spec: &Pool,
    found: &Found,
) -> Result<u64, ApiError> {
    let known = fit(context, core, spec, found).await?;
    let epoch = found.forced_epoch(*known.end());
    write(context, core, spec, *known.start()..=epoch).await?;
    Ok(epoch)
}

/// Refuses disks that do not fit what is known, which it answers with.
async fn fit(
    context: &Context,
    core: &Core,
    spec: &Pool,
    found: &Found,
) -> Result<Known, ApiError> {
    let name = &spec.name;
    if found.id() != spec.uuid.into_bytes() {
        let message = format!("the disks of pool '{name}' are those of pool '{}'", found.name());
        return Err(ApiError::failed(message).then("put its own disks back"));
    }
    let known = read(context, core, spec).await?.unwrap_or(0..=0);
    let last = *known.end();
    for label in found.labels() {
        let Some(disk) = path_of(context, spec, Uuid::from_bytes(label.pv)) else {
            let message = format!("pool '{name}' has a disk in it that is not known here");
            return Err(ApiError::failed(message).then("put its own disks back"));
        };
        if label.epoch > last {
            return Err(ApiError::failed(format!(
                "{disk} of pool '{name}' is newer than what this node knows: it tells of {} \
                 openings, and {last} are known here; another node has used it, or the data \
                 directory is an old copy",
                label.epoch
            ))
            .then(
                "put the newest copy of the data directory back; to go on with what the disks \
                 hold, start a node on a new data directory and import them there: viaduct pool \
                 import",
            ));
        }
        // The others know that it was missing.
        if label.epoch < *known.start() && !found.is_outdated(label) {
            return Err(ApiError::failed(format!(
                "{disk} of pool '{name}' is older than what this node knows: it tells of {} \
                 openings, and {last} are known here; it is an old copy",
                label.epoch
            ))
            .then(
                "put the disk back that was used last; to go on with what the disks hold, restore \
                 config.json into a new data directory (docs/pools.md)",
            ));
        }
    }
    Ok(known)
}

/// A pool is open: every disk says so.
pub(super) async fn opened(
    context: &Context,
    core: &Core,
    spec: &Pool,
    epoch: u64,
) -> Result<(), ApiError> {
    write(context, core, spec, epoch..=epoch).await
}

fn path_of(context: &Context, spec: &Pool, pv: Uuid) -> Option<String> {
    let pv = spec.pvs.iter().find(|it| it.uuid == pv)?;
    Some(disks::path_of(context, pv).to_string_lossy().into_owned())
}

/// What the disks may say.
type Known = RangeInclusive<u64>;

async fn read(context: &Context, core: &Core, spec: &Pool) -> Result<Option<Known>, ApiError> {
    let (records, of) = (context.records.clone(), Record::Pool(spec.uuid));
    let read = core.blocking(move || records.read(of)).await;
    let Some(value) = read.unwrap_or_else(|| Err(given_up()))? else { return Ok(None) };
    let damaged = || {
        ApiError::failed(format!("what is kept of pool '{}' cannot be read", spec.name))
            .then("use the release of viaduct that wrote it, or a later one")
    };
    let kept: Kept = serde_json::from_slice(&value).map_err(|_| damaged())?;
    match kept.version {
        VERSION => Ok(Some(kept.opened..=kept.epoch)),
        _ => Err(damaged()),
    }
}

/// What is to be known of a pool that is taken over as its disks are.
pub(super) fn record_of(labels: &[Label]) -> Result<Vec<u8>, ApiError> {
    let epochs = || labels.iter().map(|label| label.epoch);
    encoded(epochs().min().unwrap_or(0)..=epochs().max().unwrap_or(0))
}

fn encoded(known: Known) -> Result<Vec<u8>, ApiError> {
    let (opened, epoch) = known.into_inner();
    let kept = serde_json::to_vec(&Kept { version: VERSION, epoch, opened });
    kept.map_err(|error| ApiError::failed(error.to_string()))
}

async fn write(context: &Context, core: &Core, spec: &Pool, known: Known) -> Result<(), ApiError> {
    note(&context.records, core, spec.uuid, known).await
}

/// Disks of a pool are about to say this, or say it.
pub(super) async fn note(
    records: &Arc<dyn Records>,
    core: &Core,
    pool: Uuid,
    known: Known,
) -> Result<(), ApiError> {
    let kept = encoded(known)?;
    let (records, of) = (records.clone(), Record::Pool(pool));
    let written = core.blocking(move || records.write(of, kept)).await;
    written.unwrap_or_else(|| Err(given_up()))
}

fn given_up() -> ApiError {
    ApiError::failed("the work was given up")
}
