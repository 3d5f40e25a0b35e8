//! Where LUs live: files in the data directory, adopted images and devices, memory, nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::DeviceSpec;
use model::lu::Backing;
use model::{ApiError, Cache, Limits, Severity, Size, Subject};
use rt::{Core, FileHandle, OpenOptions};
use store::file::Options;
use store::{FileStore, MemoryStore, NullStore, Store};
use uuid::Uuid;

use crate::engine::{Context, Made, Report, Tell};
use crate::import::{self, Image, Import};
use crate::world;

/// Permissions of an LU's file: the node's own.
const FILE_MODE: u32 = 0o600;

pub(super) fn path(directory: &Path, uuid: Uuid) -> PathBuf {
    directory.join(format!("{uuid}.img"))
}

/// Makes a sparse file under another name and then names it, so that a killed node leaves either
/// none or a whole one.
pub(super) fn create(path: &Path, size: u64) -> Result<Made, ApiError> {
    let failed = |error: io::Error| {
        ApiError::failed(format!("the file {} cannot be made: {error}", path.display()))
            .then("check space and limits of the filesystem that holds the data directory")
    };
    if FileHandle::open(path, OpenOptions::read()).is_ok() {
        return Ok(Made::WasThere);
    }
    let new = world::new_name(path);
    world::remove_file(&new).map_err(failed)?;
    let options = OpenOptions { create_new: true, mode: FILE_MODE, ..OpenOptions::write() };
    let file = FileHandle::open(&new, options).map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    file.sync().map_err(failed)?;
    world::rename(&new, path).map_err(failed)?;
    Ok(Made::New)
}

pub(super) fn remove(path: &Path) -> Result<(), ApiError> {
    world::remove_file(path).map_err(|error| {
        ApiError::failed(format!("the file {} cannot be removed: {error}", path.display()))
    })
}

/// Bytes that an LU's file takes.
pub(super) fn allocated(directory: &Path, spec: &DeviceSpec) -> Option<Size> {
    let path = match &spec.backing {
        Backing::File => path(directory, spec.uuid),
        Backing::Adopted { path } => PathBuf::from(path),
        Backing::Pool { .. } | Backing::Memory | Backing::Null => return None,
    };
    let file = FileHandle::open(&path, OpenOptions::read()).ok()?;
    Some(Size(file.info().ok()?.allocated))
}

/// Opens what is below an LU. It waits for as long as a dead process's requests take, and says so
/// once.
pub(super) async fn open(
    context: &Context,
    core: &Core,
    spec: &DeviceSpec,
) -> Result<Arc<dyn Store>, ApiError> {
    let failed = |error: block::Error| {
        ApiError::failed(format!("LU {} cannot be opened: {error}", spec.name))
    };
    let block_size = spec.block_size.bytes();
    let path = match &spec.backing {
        Backing::Memory => return Ok(MemoryStore::new(spec.size.0, block_size).map_err(failed)?),
        Backing::Null => return Ok(NullStore::new(spec.size.0, block_size).map_err(failed)?),
        Backing::File => path(&context.lus, spec.uuid),
        Backing::Adopted { path } => PathBuf::from(path),
        Backing::Pool { pool } => {
            return Err(ApiError::failed(format!("LU {} is not in pool '{pool}'", spec.name)));
        }
    };
    let options = Options {
        size: Some(spec.size.0),
        block_size,
        read_only: spec.read_only,
        shareable: spec.shareable,
        node: number(context.node),
        page_cache: false,
    };
    let report = context.report.clone();
    let waiting = || {
        report(Report {
            severity: Severity::Warning,
            subject: Subject::Lu(spec.name.clone()),
            kind: "waiting-for-old-requests",
            message: format!(
                "requests of this node's former process to {} have not ended yet; LU {} is served \
                 as soon as they have",
                path.display(),
                spec.name
            ),
            next: Some("look at the disk below if this lasts".to_owned()),
        });
    };
    match FileStore::open(core, &path, options, waiting).await {
        Ok(store) => Ok(store),
        Err(error) => Err(ApiError::failed(format!("LU {} cannot be opened: {error}", spec.name))),
    }
}

/// Makes the file of an LU out of an image. Its handle is closed when this answers.
pub(super) async fn import(
    context: &Context,
    core: &Core,
    import: &Import,
    tell: &Tell,
) -> Result<Size, ApiError> {
    let directory = import::directory(&context.lus, import.uuid);
    let image = Image::open(core, import, directory).await?;
    let size = image.lu_size(import)?;
    let spec = DeviceSpec {
        uuid: import.uuid,
        name: import.name.clone(),
        serial: String::new(),
        size,
        block_size: import.block_size,
        cache: Cache::Writeback,
        limits: Limits::default(),
        read_only: false,
        removable: false,
        shareable: false,
        backing: Backing::File,
        pool: None,
        snapshots: BTreeMap::new(),
        thick: false,
        outdated: false,
        origin: None,
        migration: None,
    };
    let file = path(&context.lus, import.uuid);
    let made = core.blocking(move || create(&file, size.0)).await;
    let made = made.unwrap_or_else(|| Err(ApiError::failed("the work was given up")))?;
    if made == Made::WasThere {
        return Err(ApiError::failed(format!("LU {} has a file already", import.name)));
    }
    let device = open(context, core, &spec).await?.device(core);
    image.copy(&*device, tell).await?;
    Ok(size)
}

/// The number under which a node locks images: part of its identity, the same in every run.
pub(super) fn number(node: Uuid) -> u32 {
    let (low, high) = node.as_u64_pair();
    (low ^ high) as u32 ^ ((low ^ high) >> 32) as u32
}
