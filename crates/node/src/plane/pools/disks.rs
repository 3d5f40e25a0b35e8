//! The disks of pools: files and devices, opened as those of LUs are, under the same locks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Buffer, Device, Request};
use model::{ApiError, Pool, PoolPv, PvPlace, Severity, Subject};
use rt::Core;
use store::file::{OpenError, Options};
use store::{FileStore, Store};
use volume::pool::disks::Backing;
use volume::pool::label::{End, Label};
use volume::pool::page::{PAGE_BYTES, Page};

use super::super::lus;
use crate::datadir::pool_file;
use crate::engine::{Context, Report};
use crate::pool_disk::PoolDisk;

fn path_of(context: &Context, pv: &PoolPv) -> PathBuf {
    match &pv.place {
        PvPlace::Path { path } => PathBuf::from(path),
        PvPlace::File { .. } => pool_file(&context.pools, pv.uuid),
    }
}

/// Makes those that are files of ours, unless they are there.
pub(super) async fn make_files(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<(), ApiError> {
    for pv in &spec.pvs {
        let PvPlace::File { size } = pv.place else { continue };
        let path = path_of(context, pv);
        let made = core.blocking(move || lus::create(&path, size.bytes())).await;
        made.unwrap_or_else(|| Err(given_up()))?;
    }
    Ok(())
}

/// Opens all of them, in their order. It waits for as long as a dead process's requests take, and
/// says so once.
pub(super) async fn open(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<Vec<Arc<dyn Backing>>, ApiError> {
    let mut disks: Vec<Arc<dyn Backing>> = Vec::new();
    for pv in &spec.pvs {
        let path = path_of(context, pv);
        let store = open_one(context, core, spec, &path).await.map_err(|error| {
            let message = format!("pool '{}' cannot use its disk: {error}", spec.name);
            ApiError::failed(message)
                .then("bring the disk back, or end who uses it; the pool is tried again by itself")
        })?;
        disks.push(Arc::new(PoolDisk { store, name: path.display().to_string() }));
    }
    Ok(disks)
}

async fn open_one(
    context: &Context,
    core: &Core,
    spec: &Pool,
    path: &Path,
) -> Result<Arc<FileStore>, OpenError> {
    let options = Options { node: lus::number(context.node), ..Options::default() };
    let report = context.report.clone();
    let waiting = || {
        report(Report {
            severity: Severity::Warning,
            subject: Subject::Pool(spec.name.clone()),
            kind: "waiting-for-old-requests",
            message: format!(
                "requests of this node's former process to {} have not ended yet; pool {} is \
                 opened as soon as they have",
                path.display(),
                spec.name
            ),
            next: Some("look at the disk below if this lasts".to_owned()),
        });
    };
    FileStore::open(core, path, options, waiting).await
}

/// Takes the labels of a pool off its disks, and deletes files of ours.
pub(super) async fn give_up(context: &Context, core: &Core, spec: &Pool) -> Result<(), ApiError> {
    for pv in &spec.pvs {
        let path = path_of(context, pv);
        if let PvPlace::File { .. } = pv.place {
            let removed = core.blocking(move || lus::remove(&path)).await;
            removed.unwrap_or_else(|| Err(given_up()))?;
            continue;
        }
        match open_one(context, core, spec, &path).await {
            Ok(store) => {
                let device = store.device(core);
                let wiped = wipe(&*device, &spec.uuid.into_bytes()).await;
                wiped.map_err(|error| {
                    let path = path.display();
                    ApiError::failed(format!("the label cannot be taken off {path}: {error}"))
                })?;
            }
            // Who has taken the disk away keeps it.
            Err(OpenError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ApiError::failed(error.to_string())),
        }
    }
    Ok(())
}

/// Overwrites both labels, where they are those of this pool.
async fn wipe(device: &dyn Device, pool: &[u8; 16]) -> Result<(), block::Error> {
    let size = device.geometry().size;
    let Some(last) = (size / PAGE_BYTES as u64).checked_sub(1) else { return Ok(()) };
    for (end, at) in [(End::Front, 0), (End::Back, last * PAGE_BYTES as u64)] {
        let buffer = Buffer::zeroed(PAGE_BYTES);
        device.io(&Request::read(at, buffer.sgl())).await?;
        let bytes = buffer.to_vec();
        let page = Page::of_bytes(bytes.first_chunk().expect("a page was read"));
        let is_its = Label::decode(&page, end).is_ok_and(|label| label.pool == *pool);
        if is_its {
            let blank = Buffer::zeroed(PAGE_BYTES);
            device.io(&Request::write(at, blank.sgl())).await?;
        }
    }
    device.io(&Request::flush()).await.map(drop)
}

fn given_up() -> ApiError {
    ApiError::failed("the work was given up")
}
