//! `pool backup`, the metadata of a pool in a file, and `pool restore`, what that brings back.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use model::ApiError;
use model::backup::{
    BackupLack, PoolBackup, PoolRestore, RestoreLost, RestoreLu, RestoreOutcome, RestoreTold,
};
use model::check::CheckFinding;
use node::api::backups::seconds;
use node::datadir::PRIVATE_FILE;
use node::offline::{self, Receiver, Restoring};
use node::world;

use crate::args::{self, Format};
use crate::check::{of, of_finding};
use crate::client::Client;
use crate::commands::Done;
use crate::output::{counted, list, show, table};
use crate::progress::Bar;

/// What is taken, on its way into the file.
struct Taker {
    bar: Bar,
    receiver: Receiver,
    file: Target,
}

/// Where it goes. A file gets its name when everything is in it.
enum Target {
    Output(std::io::Stdout),
    File { file: File, new: PathBuf, path: PathBuf },
}

pub fn backup(args::PoolBackup { paths, out }: args::PoolBackup, format: Format) -> Done {
    let mut taker = Taker::new(&out)?;
    let made = seconds(world::wall_clock());
    let taken = offline::backup(paths, made, |bytes| taker.take(bytes));
    taker.end(taken, &out, format)
}

/// The same of a pool that a node has open.
pub fn backup_open(node: &Client, arguments: args::PoolBackup, format: Format) -> Done {
    let Some(name) = arguments.name() else {
        return Err(ApiError::usage("name one pool, or the disks of one"));
    };
    let mut taker = Taker::new(&arguments.out)?;
    let path = format!("/v1/pools/{name}/backup");
    let taken = node.pieces(&path, |bytes| taker.take(bytes));
    taker.end(taken, &arguments.out, format)
}

impl Taker {
    fn new(out: &Path) -> Result<Self, ApiError> {
        let file = match out.to_str() {
            Some("-") => Target::Output(std::io::stdout()),
            _ => Target::begin(out)?,
        };
        Ok(Self { bar: Bar::new()?, receiver: Receiver::default(), file })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        let progress = self.receiver.push(bytes)?;
        self.bar.draw("backup", progress);
        self.file.write(bytes)
    }

    fn end(self, taken: Done, out: &Path, format: Format) -> Done {
        let Self { bar, receiver, file } = self;
        bar.finish();
        let is_output = matches!(file, Target::Output(_));
        let taken = match taken.and_then(|()| receiver.end()) {
            Ok(taken) => taken,
            Err(error) => {
                file.give_up();
                return Err(error);
            }
        };
        file.end()?;
        if !is_output {
            show(format, &taken, |taken| told(taken, out))?;
        }
        match taken.lacks.len() {
            0 => Ok(()),
            count => Err(ApiError::failed(format!(
                "{} of pool '{}' could not be read and {} not in the backup",
                counted(count, "part"),
                taken.name,
                if count == 1 { "is" } else { "are" },
            ))
            .then(format!("viaduct pool check {} tells more", taken.name))),
        }
    }
}

impl Target {
    fn begin(path: &Path) -> Result<Self, ApiError> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let (new, path) = (PathBuf::from(new), path.to_owned());
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE_FILE);
        match options.open(&new) {
            Ok(file) => Ok(Self::File { file, new, path }),
            Err(error) => Err(unwritten(&new, &error)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        match self {
            Self::Output(output) => output.write_all(bytes).map_err(|error| {
                ApiError::failed(format!("the standard output takes no more: {error}"))
            }),
            Self::File { file, new, .. } => {
                file.write_all(bytes).map_err(|error| unwritten(new, &error))
            }
        }
    }

    /// Everything is in it.
    fn end(self) -> Result<(), ApiError> {
        match self {
            Self::Output(mut output) => output.flush().map_err(|error| {
                ApiError::failed(format!("the standard output takes no more: {error}"))
            }),
            Self::File { file, new, path } => {
                let named = file.sync_all().and_then(|()| std::fs::rename(&new, &path));
                named.map_err(|error| unwritten(&path, &error))
            }
        }
    }

    fn give_up(self) {
        if let Self::File { new, .. } = self {
            // What is left of it has another name than a backup.
            let _ = std::fs::remove_file(new);
        }
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> ApiError {
    ApiError::failed(format!("cannot write {}: {error}", path.display()))
        .then("name a file that can be written: --out FILE")
}

fn told(taken: &PoolBackup, out: &Path) -> String {
    let mut text = format!(
        "pool {}: {} and {} in {}, {} bytes\n",
        taken.name,
        counted(taken.disks, "disk"),
        counted(taken.lus, "LU"),
        out.display(),
        taken.bytes
    );
    if !taken.lacks.is_empty() {
        let row = |lack: &BackupLack| [format!("LU {}", lack.lu), lack.what.clone()];
        let rows: Vec<_> = taken.lacks.iter().map(row).collect();
        text.push_str(&table(["OF", "NOT IN THE BACKUP"], &rows));
    }
    text
}

pub fn restore(arguments: args::PoolRestore, format: Format) -> Done {
    let args::PoolRestore { file, pv: disks, dry_run, as_of_backup: as_of, openings: epoch } =
        arguments;
    let bar = Bar::new()?;
    let wanted = Restoring { file, disks, dry_run, epoch, as_of };
    let restored = offline::restore(wanted, |progress| bar.draw("checking", progress));
    bar.finish();
    let restored = restored?;
    show(format, &restored, report)?;
    let refused = restored.as_of_backup.iter().filter(|lu| why_not(lu).is_some()).count();
    match (restored.findings.len(), refused) {
        (0, 0) => Ok(()),
        (0, count) => Err(ApiError::failed(format!(
            "{count} {} not as the backup has {}",
            if count == 1 { "LU is" } else { "LUs are" },
            if count == 1 { "it" } else { "them" },
        ))
        .then("leave out what is refused, or do what it says; everything else is done")),
        (count, _) => Err(ApiError::failed(format!(
            "pool '{}' has {} that the backup is of no use for",
            restored.name,
            counted(count, "damage")
        ))
        .then(
            "try an other backup of the pool; what none of them proves to be right is restored \
             from a backup of the data, or if there is none with --as-of-backup: see \
             docs/pools.md",
        )),
    }
}

/// Ranges of an LU that are shown; all of them are in the other formats.
const RANGES_SHOWN: usize = 10;

fn why_not(lu: &RestoreLu) -> Option<&String> {
    match &lu.outcome {
        RestoreOutcome::Refused { why } => Some(why),
        RestoreOutcome::Restored { .. } | RestoreOutcome::Proven | RestoreOutcome::Clone => None,
    }
}

/// What became of an LU that has the maps of the backup, line by line.
fn as_of(lu: &RestoreLu, made: &str) -> Vec<String> {
    let (bytes, lost_bytes, lost) = match &lu.outcome {
        RestoreOutcome::Refused { .. } => return Vec::new(),
        RestoreOutcome::Proven => {
            return vec!["it comes back as it was last, which is better".to_owned()];
        }
        RestoreOutcome::Clone => {
            return vec!["its own maps are as they were; it is a clone of one above".to_owned()];
        }
        RestoreOutcome::Restored { bytes, lost_bytes, lost } => (bytes, lost_bytes, lost),
    };
    let mut lines = vec![format!(
        "its maps are those of {made}, and name {bytes} bytes, of which {lost_bytes} are lost; \
         what was written since is lost, or stands where they name something else"
    )];
    let range = |RestoreLost { from, to, before }: &RestoreLost| match before {
        Some(snapshot) => {
            format!("bytes {from} to {to} read zero, as far as written before snapshot {snapshot}")
        }
        None => format!("bytes {from} to {to} read zero"),
    };
    lines.extend(lost.iter().take(RANGES_SHOWN).map(range));
    if lost.len() > RANGES_SHOWN {
        lines.push(format!("{} more ranges read zero: see -o json", lost.len() - RANGES_SHOWN));
    }
    lines
}

fn report(restored: &PoolRestore) -> String {
    let done = match (restored.pages, restored.dry_run) {
        (0, _) => "nothing".to_owned(),
        (pages, true) => format!("{pages} pages would be written"),
        (pages, false) => format!("{pages} pages were written"),
    };
    let mut text = list(&[
        ("pool", restored.name.clone()),
        ("uuid", restored.uuid.to_string()),
        ("backup of", restored.made.to_string()),
        ("restored", done),
        ("damaged", restored.findings.len().to_string()),
    ]);
    let heading = if restored.dry_run { "WOULD BE RESTORED" } else { "RESTORED" };
    let rows = |all: &[RestoreTold]| -> Vec<[String; 2]> {
        let of = |it: &RestoreTold| of(it.disk.as_ref(), it.lu, it.lu_name.as_ref());
        all.iter().map(|it| [of(it), it.what.clone()]).collect()
    };
    let damage = |it: &CheckFinding| [of_finding(it), it.what.clone()];
    let (made, lus) = (restored.made.to_string(), &restored.as_of_backup);
    // Of one that the backup has no root of no name is known.
    let name = |lu: &'_ RestoreLu| Some(lu.lu_name.clone()).filter(|name| !name.is_empty());
    let of_lu = |lu: &RestoreLu| of(None, Some(lu.lu), name(lu).as_ref());
    let taken = |lu: &RestoreLu| {
        as_of(lu, &made).into_iter().map(|line| [of_lu(lu), line]).collect::<Vec<_>>()
    };
    let not_taken = |lu: &RestoreLu| why_not(lu).map(|why| [of_lu(lu), why.clone()]);
    let as_of_heading =
        if restored.dry_run { "WOULD BE AS OF THE BACKUP" } else { "AS OF THE BACKUP" };
    let parts = [
        (heading, rows(&restored.restored)),
        (as_of_heading, lus.iter().flat_map(taken).collect()),
        ("STAYS AS IT IS", lus.iter().filter_map(not_taken).collect()),
        ("NOT AS THE BACKUP HAS IT", rows(&restored.refused)),
        ("STILL DAMAGED", restored.findings.iter().map(damage).collect()),
    ];
    for (heading, rows) in parts {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table(["OF", heading], &rows));
        }
    }
    text
}
