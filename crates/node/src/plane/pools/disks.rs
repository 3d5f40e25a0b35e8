//! The disks of pools: files and devices, opened as those of LUs are, under the same locks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Buffer, Device, Request};
use model::{ApiError, Pool, PoolName, PoolPv, PvPlace, Severity, Subject};
use rt::Core;
use store::file::{OpenError, Options};
use store::{FileStore, Store};
use uuid::Uuid;
use volume::pool::disks::Backing;
use volume::pool::home::{self, Found, PoolError};
use volume::pool::label::{End, Label};
use volume::pool::page::{PAGE_BYTES, Page};

use super::super::lus;
use crate::datadir::pool_file;
use crate::engine::{Context, Report};
use crate::pool_disk::PoolDisk;

pub(super) fn path_of(context: &Context, pv: &PoolPv) -> PathBuf {
    match &pv.place {
        PvPlace::Path { path } => PathBuf::from(path),
        PvPlace::File { .. } => pool_file(&context.pools, pv.uuid),
        // Nothing is opened there.
        PvPlace::Missing => PathBuf::from(pv.to_string()),
    }
}

/// Makes those that are files of ours, unless they are there.
pub(super) async fn make_files(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<(), ApiError> {
    for pv in certain(spec) {
        make_file(context, core, pv).await?;
    }
    Ok(())
}

/// Makes it if it is a file of ours, unless it is there.
pub(super) async fn make_file(context: &Context, core: &Core, pv: &PoolPv) -> Result<(), ApiError> {
    let PvPlace::File { size } = pv.place else { return Ok(()) };
    let path = path_of(context, pv);
    let made = core.blocking(move || lus::create(&path, size.bytes())).await;
    made.unwrap_or_else(|| Err(given_up())).map(drop)
}

/// Those that have labels, unless something is wrong.
pub(super) fn certain(spec: &Pool) -> impl Iterator<Item = &PoolPv> {
    spec.pvs.iter().filter(|pv| pv.standing.is_certain())
}

/// Opens those that have labels, in their order. It waits for as long as a dead process's requests
/// take, and says so once.
pub(super) async fn open(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<Vec<Arc<dyn Backing>>, ApiError> {
    let mut disks: Vec<Arc<dyn Backing>> = Vec::new();
    for pv in certain(spec) {
        disks.push(open_backing(context, core, spec, pv).await?);
    }
    Ok(disks)
}

/// The same; of a pool with several failure groups also without some of them. Gives what was wrong
/// with those.
pub(super) async fn open_some(
    context: &Context,
    core: &Core,
    spec: &Pool,
) -> Result<(Vec<Arc<dyn Backing>>, Vec<String>), ApiError> {
    let (mut disks, mut lost) = (Vec::new(), Vec::new());
    for pv in certain(spec) {
        match open_backing(context, core, spec, pv).await {
            Ok(disk) => disks.push(disk),
            Err(error) if spec.has_copies() => lost.push(error),
            Err(error) => return Err(error),
        }
    }
    if disks.is_empty()
        && let Some(error) = lost.pop()
    {
        return Err(error);
    }
    Ok((disks, lost.into_iter().map(|error| error.message).collect()))
}

/// The disk that is in the way, if others may do without it.
pub(super) fn unusable(error: &PoolError) -> Option<String> {
    match error {
        PoolError::Disk { disk, .. }
        | PoolError::Unlabelled { disk, .. }
        | PoolError::OtherPool { disk, .. }
        | PoolError::Replaced { disk }
        | PoolError::Shrunk { disk, .. } => Some(disk.clone()),
        _ => None,
    }
}

pub(super) async fn open_backing(
    context: &Context,
    core: &Core,
    spec: &Pool,
    pv: &PoolPv,
) -> Result<Arc<dyn Backing>, ApiError> {
    if pv.place == PvPlace::Missing {
        let name = &spec.name;
        return Err(ApiError::failed(format!(
            "a disk of pool '{name}' was not here to be imported"
        ))
        .then(format!("viaduct pool replace-pv {name} {} NEW", pv.uuid)));
    }
    let path = path_of(context, pv);
    let store = open_one(context, core, &spec.name, &path).await.map_err(|error| {
        let message = format!("pool '{}' cannot use its disk: {error}", spec.name);
        ApiError::failed(message)
            .then("bring the disk back, or end who uses it; the pool is tried again by itself")
    })?;
    Ok(Arc::new(PoolDisk { store, name: path.display().to_string() }))
}

/// Looks which pool these disks are. If others are missing, those that were about to join are too:
/// whoever died may have admitted them, and then the labels count them, also where other failure
/// groups have everything. Labels that are older than `oldest` are of an attempt before the pool
/// was last opened. What is found may lack something.
pub(super) async fn find(
    context: &Context,
    core: &Core,
    spec: &Pool,
    (certain, oldest): (Vec<Arc<dyn Backing>>, u64),
) -> Result<Found, PoolError> {
    match home::Pool::find_some(core, certain.clone()).await {
        Err(PoolError::Missing { .. }) => {}
        Ok(found) if found.absent() > 0 => {}
        found => return found,
    }
    let mut joining = Vec::new();
    for pv in spec.pvs.iter().filter(|pv| !pv.standing.is_certain()) {
        let Ok(backing) = open_backing(context, core, spec, pv).await else { continue };
        let ends = home::read_ends(core, &backing).await;
        let is_its = |label: &Label| {
            let is_its = label.pool == spec.uuid.into_bytes() && label.pv == pv.uuid.into_bytes();
            is_its && label.epoch >= oldest
        };
        if ends.is_ok_and(|ends| ends.iter().flatten().any(is_its)) {
            joining.push(backing);
        }
    }
    loop {
        let all = certain.iter().chain(&joining).cloned().collect();
        let found = home::Pool::find_some(core, all).await;
        let in_the_way = found.as_ref().err().and_then(unusable);
        let before = joining.len();
        joining.retain(|it| in_the_way.as_deref() != Some(it.name()));
        if joining.len() == before {
            return found;
        }
    }
}

async fn open_one(
    context: &Context,
    core: &Core,
    pool: &PoolName,
    path: &Path,
) -> Result<Arc<FileStore>, OpenError> {
    let options = Options { node: lus::number(context.node), ..Options::default() };
    let report = context.report.clone();
    let waiting = || {
        report(Report {
            severity: Severity::Warning,
            subject: Subject::Pool(pool.clone()),
            kind: "waiting-for-old-requests",
            message: format!(
                "requests of this node's former process to {} have not ended yet; pool {pool} \
                 uses it as soon as they have",
                path.display(),
            ),
            next: Some("look at the disk below if this lasts".to_owned()),
        });
    };
    FileStore::open(core, path, options, waiting).await
}

/// Takes the labels of a pool off its disks, and deletes files of ours.
pub(super) async fn give_up(context: &Context, core: &Core, spec: &Pool) -> Result<(), ApiError> {
    for pv in &spec.pvs {
        give_up_one(context, core, (spec.uuid, &spec.name), pv).await?;
    }
    Ok(())
}

/// The same of one of them.
pub(super) async fn give_up_one(
    context: &Context,
    core: &Core,
    (pool, name): (Uuid, &PoolName),
    pv: &PoolPv,
) -> Result<(), ApiError> {
    let path = path_of(context, pv);
    if pv.place == PvPlace::Missing {
        return Ok(());
    }
    if let PvPlace::File { .. } = pv.place {
        let removed = core.blocking(move || lus::remove(&path)).await;
        return removed.unwrap_or_else(|| Err(given_up()));
    }
    match open_one(context, core, name, &path).await {
        Ok(store) => {
            let device = store.device(core);
            wipe(&*device, (pool, pv.uuid)).await.map_err(|error| {
                let path = path.display();
                ApiError::failed(format!("the label cannot be taken off {path}: {error}"))
            })
        }
        // Who has taken the disk away keeps it.
        Err(OpenError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ApiError::failed(error.to_string())),
    }
}

/// Overwrites both labels, where they are those of this disk of this pool.
async fn wipe(device: &dyn Device, (pool, pv): (Uuid, Uuid)) -> Result<(), block::Error> {
    let (pool, pv) = (pool.into_bytes(), pv.into_bytes());
    let size = device.geometry().size;
    let Some(last) = (size / PAGE_BYTES as u64).checked_sub(1) else { return Ok(()) };
    for (end, at) in [(End::Front, 0), (End::Back, last * PAGE_BYTES as u64)] {
        let buffer = Buffer::zeroed(PAGE_BYTES);
        device.io(&Request::read(at, buffer.sgl())).await?;
        let bytes = buffer.to_vec();
        let page = Page::of_bytes(bytes.first_chunk().expect("a page was read"));
        let label = Label::decode(&page, end);
        let is_its = label.is_ok_and(|label| label.pool == pool && label.pv == pv);
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
