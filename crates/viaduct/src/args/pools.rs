//! What can be asked of pools.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use model::{PoolName, PvAt, Size};
use uuid::Uuid;

use super::{Bandwidth, SettingArgs};

#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Make a pool
    Create(PoolCreate),
    /// List pools
    Ls,
    /// Show one pool
    Show { name: PoolName },
    /// Change the thresholds and rates of a pool, also while it is in use
    Set(PoolSet),
    /// Remove a pool that has no LUs
    Rm {
        name: PoolName,
        /// Also with LUs in it that were left out when it was imported
        #[arg(long)]
        force: bool,
    },
    /// Add disks to a pool, also while it is used
    AddPv(PoolAddPv),
    /// Take a disk out of a pool, also while it is used: what is on it goes to the others first
    RmPv(PoolRmPv),
    /// Bring what is on a disk of a pool to another one, and take it out
    ReplacePv(PoolReplacePv),
    /// Take a failure group out of a pool, also while it is used: the others have everything
    Split {
        name: PoolName,
        /// Its name; of one without a name its number
        group: String,
        /// It becomes a pool of this name, with all LUs as they are at one instant: web is NEW-web
        /// there. Otherwise its disks are free
        #[arg(long = "as", value_name = "NEW")]
        new: Option<PoolName>,
    },
    /// Show what is left of a pool of which only failure groups are here that lack something; with
    /// --yes go on with one of them
    Force {
        name: PoolName,
        /// The failure group to go on with [default: the best one]
        #[arg(long)]
        group: Option<String>,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Take over a pool of another node, or list those that are found
    Import(PoolImport),
    /// Read all of a pool while it is used, and mend what another place knows better
    Scrub(PoolScrub),
    /// Check what a pool says of itself: one that is open by its name, otherwise by its disks
    Check(PoolCheck),
    /// Write the metadata of a pool to a file: of one that is open by its name, while it is used,
    /// otherwise by its disks
    Backup(PoolBackup),
    /// Restore damaged metadata from a backup, where that is known to be right, on disks that no
    /// node has open
    Restore(PoolRestore),
    /// Show what lies on a disk of a pool that no node has open
    Inspect(PoolInspect),
}

#[derive(Debug, Args)]
pub struct PoolCheck {
    /// The name of a pool that is open, or every disk or file of one that no node has open. What is
    /// no file here and has no slash is a name
    #[arg(required = true, value_name = "NAME|PATH")]
    pub paths: Vec<PathBuf>,
}

impl PoolCheck {
    /// The pool that it is, if it was named.
    pub fn name(&self) -> Option<PoolName> {
        pool_named(&self.paths)
    }
}

/// A pool by its name, if what was given is no path.
fn pool_named(paths: &[PathBuf]) -> Option<PoolName> {
    let [path] = paths else { return None };
    let name = path.to_str().filter(|name| !name.contains('/') && !path.exists())?;
    name.parse().ok()
}

#[derive(Debug, Args)]
pub struct PoolBackup {
    /// The name of a pool that is open, or every disk or file of one that no node has open. What is
    /// no file here and has no slash is a name
    #[arg(required = true, value_name = "NAME|PATH")]
    pub paths: Vec<PathBuf>,
    /// The file, which is replaced when the backup is whole; - is the standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

impl PoolBackup {
    /// The pool that it is, if it was named.
    pub fn name(&self) -> Option<PoolName> {
        pool_named(&self.paths)
    }
}

#[derive(Debug, Args)]
pub struct PoolRestore {
    /// What viaduct pool backup has written
    pub file: PathBuf,
    /// A disk or file of the pool; all of them are given
    #[arg(long, required = true, value_name = "PATH", num_args = 1..)]
    pub pv: Vec<PathBuf>,
    /// Tell what would be restored, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A damaged LU that nothing else helps, by the name that it had then or by its UUID: it gets
    /// the maps that the backup has of it. What was written since is lost, or stands where they
    /// name something else
    #[arg(long, value_name = "LU", num_args = 1..)]
    pub as_of_backup: Vec<String>,
    /// How often the pool was opened, as its node knows it: for a pool of which no label can be
    /// read, where the node says that its disks are older than what it knows
    #[arg(long, value_name = "NUMBER")]
    pub openings: Option<u64>,
}

#[derive(Debug, Args)]
pub struct PoolScrub {
    pub name: PoolName,
    /// Bytes a second that it reads, from now on: see pool set --scrub-rate
    #[arg(long, value_name = "SIZE|off", conflicts_with = "cancel")]
    pub rate: Option<Bandwidth>,
    /// End the one that is under way
    #[arg(long)]
    pub cancel: bool,
    /// Return at once; viaduct pool show tells how far it is
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct PoolInspect {
    /// A disk or file of the pool; with --lu all of them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The page that this byte is in, instead of label and slab table
    #[arg(long, value_name = "OFFSET", conflicts_with = "lu")]
    pub at: Option<u64>,
    /// Where everything of this LU is: root, journal, pages of maps
    #[arg(long, value_name = "UUID")]
    pub lu: Option<Uuid>,
}

#[derive(Debug, Args)]
pub struct PoolCreate {
    pub name: PoolName,
    /// A disk or a file that is there, and its failure group; may be given several times
    #[arg(
        long,
        value_name = "PATH[@GROUP]",
        required_unless_present = "size",
        conflicts_with = "size"
    )]
    pub pv: Vec<PvAt>,
    /// A sparse file of this size in the data directory
    #[arg(long)]
    pub size: Option<Size>,
    /// What an LU is given at a time [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    pub slab_size: Option<Size>,
    /// What an LU cuts that into [default: 256KiB]
    #[arg(long, value_name = "SIZE")]
    pub extent_size: Option<Size>,
    /// Keep a checksum of each block, and compare it when the block is read
    #[arg(long)]
    pub checksums: bool,
    /// Take disks that hold data, which is lost
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct PoolImport {
    /// The pool, by name or UUID. Without one, those that are found are listed
    pub pool: Option<String>,
    /// A disk or a file to look at, and what its failure group is to be called; may be given
    /// several times. Without it, every disk is looked at that nobody uses
    #[arg(long, value_name = "PATH[@GROUP]")]
    pub pv: Vec<PvAt>,
    /// A directory in which every file is looked at; may be given several times
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// Call it this here
    #[arg(long = "as", value_name = "NAME", requires = "pool")]
    pub name: Option<PoolName>,
    /// Put this before the names of its LUs
    #[arg(long, requires = "pool")]
    pub prefix: Option<String>,
    /// Leave an LU where it is, by name or UUID; may be given several times
    #[arg(long, value_name = "LU", requires = "pool")]
    pub without: Vec<String>,
    /// Of a pool of which only failure groups are here that lack something, show what is left; with
    /// --yes take it over and go on with one of them
    #[arg(long, requires = "pool")]
    pub force: bool,
    /// The failure group to go on with [default: the best one]
    #[arg(long, requires = "force")]
    pub group: Option<String>,
    /// Do it
    #[arg(long, requires = "force")]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct PoolSet {
    pub name: PoolName,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(Debug, Args)]
pub struct PoolAddPv {
    pub name: PoolName,
    /// A disk or a file that is there, and its failure group; may be given several times. One that
    /// is leaving the pool stays
    #[arg(
        long,
        value_name = "PATH[@GROUP]",
        required_unless_present = "size",
        conflicts_with = "size"
    )]
    pub pv: Vec<PvAt>,
    /// A sparse file of this size in the data directory
    #[arg(long)]
    pub size: Option<Size>,
    /// Take disks that hold data, which is lost
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct PoolRmPv {
    pub name: PoolName,
    /// The disk, by path or UUID
    #[arg(value_name = "PV")]
    pub pv: String,
    /// It stays after all
    #[arg(long)]
    pub cancel: bool,
    /// Return at once; viaduct pool show tells how far it is
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct PoolReplacePv {
    pub name: PoolName,
    /// The disk that leaves, by path or UUID
    #[arg(value_name = "OLD")]
    pub old: String,
    /// A disk or a file that is there, and its failure group
    #[arg(value_name = "NEW[@GROUP]", required_unless_present = "size", conflicts_with = "size")]
    pub new: Option<PvAt>,
    /// A sparse file of this size in the data directory, instead of NEW
    #[arg(long)]
    pub size: Option<Size>,
    /// Take a disk that holds data, which is lost
    #[arg(long)]
    pub force: bool,
    /// Return when NEW is there; viaduct pool show tells how far OLD is
    #[arg(long)]
    pub no_wait: bool,
}
