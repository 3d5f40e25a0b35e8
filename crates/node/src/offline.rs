//! Looking at the disks of a pool without a node: they are opened for reading only, or to be
//! restored, under the locks that a node opens them with, so that nobody changes them meanwhile.

mod backup;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use model::ApiError;
use model::check::{
    CheckCounts, CheckFinding, CheckSeverity, Inspected, InspectedField, PoolCheck,
};
use model::medium::Progress;
use rt::{Config, Core};
use store::FileStore;
use store::file::{OpenError, Options};
use uuid::Uuid;
use volume::pool::check::{self, Counts, Finding, Of, Report, Severity};
use volume::pool::disks::Backing;
use volume::pool::inspect::{self, Section};

use crate::pool_disk::PoolDisk;
use crate::world;

pub use backup::{Receiver, Restoring, backup, restore};

/// Checks the pool that these disks are. `told` hears how far it is, in bytes that LUs have.
pub fn check(paths: Vec<PathBuf>, told: impl FnMut(Progress)) -> Result<PoolCheck, ApiError> {
    let checking = async move |core: Core, tell: Teller| {
        let disks = open(&core, &paths).await?;
        Ok(check::check(&core, disks, |progress| tell.progress(progress)).await)
    };
    heard(checking, told).map(shown)
}

/// What is to be looked at.
#[derive(Debug, Clone, Copy)]
pub enum Sight {
    /// The labels and the slab table of one disk.
    Disk,
    /// The page of one disk that this byte is in.
    At(u64),
    /// Where everything of an LU is.
    Lu(Uuid),
}

/// Shows what lies on the disks of a pool.
pub fn inspect(paths: Vec<PathBuf>, sight: Sight) -> Result<Vec<Inspected>, ApiError> {
    let looking = move |core: Core| async move {
        let disks = open(&core, &paths).await?;
        let seen = match (sight, &disks[..]) {
            (Sight::Lu(id), _) => inspect::lu(&core, disks, id.into_bytes()).await,
            (Sight::Disk, [disk]) => inspect::disk(&core, disk).await,
            (Sight::At(offset), [disk]) => {
                inspect::at(&core, disk, offset).await.map(|section| vec![section])
            }
            (Sight::Disk | Sight::At(_), _) => {
                return Err(ApiError::usage("one disk is looked at at a time")
                    .then("name one, or an LU that all of them have: --lu UUID"));
            }
        };
        seen.map_err(|error| ApiError::failed(error.to_string()))
    };
    let seen = on_a_core(looking, || ())?;
    Ok(seen.into_iter().map(section).collect())
}

fn section(Section { title, fields }: Section) -> Inspected {
    let field = |(name, value)| InspectedField { name, value };
    Inspected { title, fields: fields.into_iter().map(field).collect() }
}

/// Does something on a core of its own, and meanwhile something here.
fn on_a_core<T, F>(
    work: impl FnOnce(Core) -> F + Send + 'static,
    meanwhile: impl FnOnce(),
) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + 'static,
{
    let core = rt::os::start(Config::new("offline"));
    let core = core.map_err(|error| ApiError::failed(format!("cannot start: {error}")))?;
    let reply = core.call(work);
    meanwhile();
    let done = reply.wait();
    core.send(Core::stop);
    done.unwrap_or_else(|| Err(ApiError::failed("the work was given up")))
}

/// Tells another thread how far a check is.
struct Teller(mpsc::Sender<Progress>);

impl Teller {
    fn progress(&self, of: check::Progress) {
        // Who asked may have given up.
        let _ = self.0.send(Progress { bytes: of.bytes, of: of.of });
    }
}

/// Does work on a core, and tells here how far it is.
fn heard<T, F>(
    work: impl FnOnce(Core, Teller) -> F + Send + 'static,
    mut told: impl FnMut(Progress),
) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + 'static,
{
    let (tell, hear) = mpsc::channel();
    on_a_core(
        move |core| work(core, Teller(tell)),
        || {
            while let Ok(progress) = hear.recv() {
                told(progress);
            }
        },
    )
}

/// How long a node that was killed may have requests in the kernel, and its locks with them, before
/// it counts as one that runs.
const FORMER_LIMIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

async fn open(core: &Core, paths: &[PathBuf]) -> Result<Vec<Arc<dyn Backing>>, ApiError> {
    open_all(core, paths, true).await
}

async fn open_all(
    core: &Core,
    paths: &[PathBuf],
    read_only: bool,
) -> Result<Vec<Arc<dyn Backing>>, ApiError> {
    let mut disks = Vec::new();
    for path in paths {
        disks.push(open_disk(core, path, read_only).await?);
    }
    Ok(disks)
}

async fn open_disk(
    core: &Core,
    path: &Path,
    read_only: bool,
) -> Result<Arc<dyn Backing>, ApiError> {
    let name = path.display().to_string();
    let begun = core.now();
    let opened = loop {
        match open_file(core, path, read_only).await? {
            Err(OpenError::Served { .. }) if core.now() - begun < FORMER_LIMIT => {
                core.sleep(LOOK_AGAIN).await;
            }
            opened => break opened,
        }
    };
    match opened {
        Ok(disk) => Ok(disk),
        Err(OpenError::Served { .. }) => {
            let next = match read_only {
                true => {
                    "stop that node first; pool check and pool backup ask it if the pool is named"
                }
                false => "stop that node first; what it can mend by itself it does while it runs",
            };
            Err(ApiError::not_now(format!("a node has {name} open")).then(next))
        }
        // What a store advises is for a disk of an LU.
        Err(OpenError::Size { size, .. }) => {
            let message =
                format!("{name} is no disk of a pool: it has {size} bytes, no whole pages");
            Err(ApiError::usage(message)
                .then("viaduct pool show NAME lists the disks of a pool, while its node runs"))
        }
        Err(error) => Err(ApiError::failed(error.to_string())),
    }
}

async fn open_file(
    core: &Core,
    path: &Path,
    read_only: bool,
) -> Result<Result<Arc<dyn Backing>, OpenError>, ApiError> {
    let name = path.display().to_string();
    let path = world::canonical(path)
        .map_err(|error| ApiError::not_found(format!("cannot look at {name}: {error}")))?;
    // One who only reads is as a node that does; no node has this number but by chance.
    let node = rt::os::random() as u32;
    let options = Options { read_only, node, ..Options::default() };
    let opened = FileStore::open(core, &path, options, || ()).await;
    Ok(opened.map(|store| Arc::new(PoolDisk { store, name }) as Arc<dyn Backing>))
}

/// The report as it is shown.
pub(crate) fn shown(report: Report) -> PoolCheck {
    let damaged = report.is_damaged();
    let Report { pool, counts, findings } = report;
    let (uuid, name) = pool.unzip();
    let Counts { disks, slabs, slabs_granted, lus, layers, map_pages, extents_used, records } =
        counts;
    let journal_records = records;
    let counts = CheckCounts {
        disks,
        slabs,
        slabs_granted,
        lus,
        layers,
        map_pages,
        extents_used,
        journal_records,
    };
    let findings = findings.into_iter().map(finding).collect();
    let (uuid, is_open) = (uuid.map(Uuid::from_bytes), false);
    PoolCheck { name, uuid, damaged, is_open, counts, findings }
}

fn finding(Finding { severity, of, what }: Finding) -> CheckFinding {
    let severity = match severity {
        Severity::Mended => CheckSeverity::Mended,
        Severity::Damaged => CheckSeverity::Damaged,
    };
    let (disk, lu, lu_name) = parts_of(of);
    CheckFinding { severity, disk, lu, lu_name, what }
}

/// What something is of: a disk, an LU with its name, or the pool.
fn parts_of(of: Of) -> (Option<String>, Option<Uuid>, Option<String>) {
    match of {
        Of::Pool => (None, None, None),
        Of::Disk(disk) => (Some(disk), None, None),
        Of::Lu { id, name } => (None, Some(Uuid::from_bytes(id)), name),
    }
}
