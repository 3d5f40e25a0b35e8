//! Backups of a pool's metadata without a node, and restoring from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use block::Request;
use jiff::Timestamp;
use model::ApiError;
use model::backup::{
    BackupLack, PoolBackup, PoolRestore, RestoreLost, RestoreLu, RestoreOutcome, RestoreTold,
};
use model::check::{CheckFinding, CheckSeverity};
use model::medium::Progress;
use rt::Core;
use store::file::OpenError;
use uuid::Uuid;
use volume::pool::backup::{Backup, Part, Reader, Taking, Unfit};
use volume::pool::disks::Backing;
use volume::pool::home::{Pool, PoolError, TableFlaw};
use volume::pool::restore::{AsOf, Lost, Outcome, Plan, Refused, Told, Wanted};

use super::{Teller, finding, heard, on_a_core, open, open_all, open_file, parts_of};

/// Pieces of a backup that wait for whoever writes them.
const PIECES_MAX: usize = 4;

/// Whatever takes a backup has it checked while it comes: what was written is what can be read.
pub struct Receiver {
    reader: Reader,
    told: PoolBackup,
    progress: Progress,
    lu: Uuid,
}

impl Default for Receiver {
    fn default() -> Self {
        let (name, uuid, lacks) = (String::new(), Uuid::nil(), Vec::new());
        let made = Timestamp::UNIX_EPOCH;
        let told = PoolBackup { name, uuid, made, disks: 0, lus: 0, bytes: 0, lacks };
        let progress = Progress { bytes: 0, of: 0 };
        Self { reader: Reader::default(), told, progress, lu: uuid }
    }
}

impl Receiver {
    /// The next bytes of the file; how far it is, in bytes that LUs have.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, ApiError> {
        let Self { reader, told, progress, lu } = self;
        told.bytes += bytes.len() as u64;
        let heard = |_, part| match part {
            Part::Pool { id, name, made, bytes } => {
                (told.uuid, told.name, told.made) = (Uuid::from_bytes(id), name, time(made));
                progress.of = bytes;
            }
            Part::Disk { .. } => told.disks += 1,
            Part::Lu { id, .. } => *lu = Uuid::from_bytes(id),
            Part::Lacks(what) => told.lacks.push(BackupLack { lu: *lu, what }),
            Part::LuEnd { bytes } => {
                told.lus += 1;
                progress.bytes = bytes;
            }
            Part::Table(_) | Part::Page(_) => {}
        };
        reader.push(bytes, heard).map_err(broken)?;
        Ok(self.progress)
    }

    /// Nothing more comes.
    pub fn end(self) -> Result<PoolBackup, ApiError> {
        self.reader.end().map_err(broken)?;
        Ok(self.told)
    }
}

/// When a backup says that it was taken.
fn time(seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).ok();
    seconds.and_then(|it| Timestamp::from_second(it).ok()).unwrap_or_default()
}

fn broken(why: Unfit) -> ApiError {
    ApiError::failed(format!("the backup did not arrive whole: {why}"))
        .then("run the command again; the log of the node says more (journalctl -u viaduct)")
}

/// Takes a backup of the pool that these disks are; each piece of the file is given to `write`.
/// `made`: when, in seconds since 1970.
pub fn backup(
    paths: Vec<PathBuf>,
    made: u64,
    mut write: impl FnMut(&[u8]) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let (tell, hear) = mpsc::sync_channel(PIECES_MAX);
    let taking = move |core: Core| async move { take(&core, &paths, made, tell).await };
    let mut written = Ok(());
    let taken = on_a_core(taking, || {
        while let Ok(bytes) = hear.recv() {
            let bytes: Vec<u8> = bytes;
            written = write(&bytes);
            if written.is_err() {
                // Whoever sends notices that nobody hears.
                return drop(hear);
            }
        }
    });
    written.and(taken)
}

async fn take(
    core: &Core,
    paths: &[PathBuf],
    made: u64,
    tell: mpsc::SyncSender<Vec<u8>>,
) -> Result<(), ApiError> {
    let disks = open(core, paths).await?;
    for disk in &disks {
        // What a process that was killed has written may be read and yet be lost later.
        let synced = disk.device(core).io(&Request::flush()).await;
        synced.map_err(|error| ApiError::failed(format!("{}: {error}", disk.name())))?;
    }
    let found = Pool::find(core, disks).await;
    let found = found.map_err(|error| match error {
        PoolError::Missing { .. } | PoolError::Behind { .. } => {
            ApiError::usage(error.to_string()).then("name every disk of the pool")
        }
        error => damaged(error),
    })?;
    if found.absent() > 0 {
        let message = format!("{} disks of pool '{}' were not named", found.absent(), found.name());
        return Err(ApiError::usage(message).then("name every disk of the pool"));
    }
    let mut failed = None;
    let mut told = |flaw| {
        if let TableFlaw::Error(error) = flaw {
            failed.get_or_insert(error);
        }
    };
    let pool = found.look(&mut told).await;
    if let Some(error) = failed {
        return Err(damaged(error));
    }
    let mut taking = Taking::of_looked(made);
    while let Some(bytes) = taking.step(&pool, |_| None).await.map_err(damaged)? {
        if tell.send(bytes).is_err() {
            break;
        }
    }
    pool.close().await.map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> ApiError {
    ApiError::failed(error.to_string())
        .then("viaduct pool check PATH... tells what is damaged; no backup is made of that")
}

const ANOTHER: &str = "use another backup of this pool";

/// What to restore.
pub struct Restoring {
    pub file: PathBuf,
    pub disks: Vec<PathBuf>,
    pub dry_run: bool,
    /// How often the pool was opened, as its node knows it.
    pub epoch: Option<u64>,
    /// LUs, by name or UUID, that are to be as the backup has them.
    pub as_of: Vec<String>,
}

/// Restores what a backup has of what is damaged. `told` hears how far it is with looking at what
/// comes of that, in bytes that LUs have.
pub fn restore(wanted: Restoring, told: impl FnMut(Progress)) -> Result<PoolRestore, ApiError> {
    heard(async move |core: Core, tell| bring_back(&core, wanted, tell).await, told)
}

async fn bring_back(core: &Core, wanted: Restoring, tell: Teller) -> Result<PoolRestore, ApiError> {
    let Restoring { file, disks: paths, dry_run, epoch, as_of } = wanted;
    let file = open_backup(core, &file).await?;
    let unusable =
        |error: &dyn std::fmt::Display| ApiError::failed(error.to_string()).then(ANOTHER);
    let backup = Backup::read(core, &file).await.map_err(|error| unusable(&error))?;
    let disks = open_all(core, &paths, dry_run).await?;
    let asked = (&backup, Wanted { epoch, as_of });
    let plan = Plan::make(core, disks.clone(), asked, |progress| tell.progress(progress)).await;
    let plan = plan.map_err(|error| match error {
        Refused::Unknown(_) | Refused::Several(_) => ApiError::usage(error.to_string())
            .then("name an LU as it was called when the backup was taken, or by its UUID"),
        error => ApiError::failed(error.to_string()),
    })?;
    if !dry_run {
        plan.write(&disks).await.map_err(|error| {
            ApiError::failed(error.to_string()).then("run the command again: nothing is done twice")
        })?;
    }
    let is_damage = |finding: &CheckFinding| finding.severity == CheckSeverity::Damaged;
    let (damaged, pages) = (!plan.is_good(), plan.pages() as u64);
    Ok(PoolRestore {
        name: backup.name.clone(),
        uuid: Uuid::from_bytes(backup.id),
        made: time(backup.made),
        dry_run,
        damaged,
        pages,
        restored: plan.restored.into_iter().map(shown).collect(),
        refused: plan.refused.into_iter().map(shown).collect(),
        as_of_backup: plan.as_of.into_iter().map(shown_lu).collect(),
        findings: plan.report.findings.into_iter().map(finding).filter(is_damage).collect(),
    })
}

fn shown(Told { of, what }: Told) -> RestoreTold {
    let (disk, lu, lu_name) = parts_of(of);
    RestoreTold { disk, lu, lu_name, what }
}

fn shown_lu(AsOf { lu, name, outcome }: AsOf) -> RestoreLu {
    let shown = |Lost { from, to, before }| RestoreLost { from, to, before };
    let outcome = match outcome {
        Outcome::Taken { bytes, lost } => {
            let lost_bytes = lost.iter().map(|it| it.to - it.from).sum();
            let lost = lost.into_iter().map(shown).collect();
            RestoreOutcome::Restored { bytes, lost_bytes, lost }
        }
        Outcome::Proven => RestoreOutcome::Proven,
        Outcome::Above => RestoreOutcome::Clone,
        Outcome::Refused(why) => RestoreOutcome::Refused { why },
    };
    RestoreLu { lu: Uuid::from_bytes(lu), lu_name: name, outcome }
}

/// The backup, as a disk that is read.
async fn open_backup(core: &Core, path: &Path) -> Result<Arc<dyn Backing>, ApiError> {
    match open_file(core, path, true).await? {
        Ok(file) => Ok(file),
        Err(OpenError::Size { size, .. }) => {
            let message = format!(
                "{} is no backup that is whole: it has {size} bytes; it was cut off",
                path.display()
            );
            Err(ApiError::failed(message).then(ANOTHER))
        }
        Err(error) => Err(ApiError::failed(error.to_string())),
    }
}
