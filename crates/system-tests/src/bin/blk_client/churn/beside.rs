//! What is done to a pool beside the load, while its servers are killed: LUs and snapshots come and
//! go, disks leave and join again, and those of a failure group are away for some lives of the
//! server, so that it has missed something when they are back.
//!
//! A command may be cut short by the kill and may be right to refuse: what comes of it is seen by
//! what the pool says later, and by what the load finds.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use system_tests::blk_client::Churned;
use system_tests::{Context, Error, Result};

/// An LU, snapshots or a disk come or go in one of so many rounds.
const EVERY: u64 = 2;
/// Rounds from one look at the pool to the next.
const LOOK_EVERY: u32 = 4;
/// When nothing lacks anything, the disks of a group go away in one of so many looks.
const AWAY_EVERY: u64 = 2;
/// Lives of the server without them, at most.
const AWAY_LIVES: u64 = 6;
/// The LU that comes and goes, and the snapshot.
const CHURNED: &str = "churned";
const PASSING: &str = "passing";
const PATIENCE: Duration = Duration::from_secs(60);

/// To what it is done.
#[derive(clap::Args)]
pub struct Subjects {
    /// The pool that an LU comes and goes in.
    #[arg(long)]
    pool: String,
    /// The LUs behind the sockets, if snapshots of them come and go.
    #[arg(long = "lu")]
    pub lus: Vec<String>,
    /// Disks of the pool that come and go, as PATH@GROUP.
    #[arg(long = "disk", value_parser = disk)]
    disks: Vec<Disk>,
}

#[derive(Clone)]
struct Disk {
    path: String,
    group: String,
}

pub struct Beside<'a> {
    program: &'a str,
    subjects: &'a Subjects,
    /// Nothing lacks anything or moves, as far as was seen and nothing was begun since.
    is_whole: bool,
    is_behind: bool,
    leaving: Option<&'a Disk>,
    left: Option<&'a Disk>,
    /// Whose disks are away, and for how many lives.
    away: Option<(&'a str, u64)>,
}

fn disk(text: &str) -> std::result::Result<Disk, String> {
    let (path, group) = text.rsplit_once('@').ok_or("PATH@GROUP")?;
    Ok(Disk { path: path.to_owned(), group: group.to_owned() })
}

impl<'a> Beside<'a> {
    pub fn new(program: &'a str, subjects: &'a Subjects) -> Self {
        let (is_whole, is_behind) = (false, false);
        Self { program, subjects, is_whole, is_behind, leaving: None, left: None, away: None }
    }

    /// Begins something, or nothing. Whoever kills the server waits for it then.
    pub fn begin(&mut self, round: u32, random: u64) -> Result<Option<Child>> {
        if !random.is_multiple_of(EVERY) {
            return Ok(None);
        }
        let (random, comes) = (random / EVERY, round.is_multiple_of(2));
        match random % 3 {
            1 if !self.subjects.lus.is_empty() => {
                let verb = if comes { "create" } else { "rm" };
                let names = self.snapshots(PASSING);
                self.start(&[&["snapshot", verb], &strs(&names)[..]].concat()).map(Some)
            }
            2 if !self.subjects.disks.is_empty() => self.exchange(random / 3),
            _ if comes => {
                let (pool, size) = (&self.subjects.pool, format!("{}M", 64 + random % 4096));
                self.start(&["lu", "create", CHURNED, "--size", &size, "--pool", pool]).map(Some)
            }
            _ => self.start(&["lu", "rm", CHURNED]).map(Some),
        }
    }

    /// A disk that has left joins again; if none has, one begins to leave.
    fn exchange(&mut self, random: u64) -> Result<Option<Child>> {
        let pool = &self.subjects.pool;
        if let Some(Disk { path, group }) = self.left.take() {
            let disk = format!("{path}@{group}");
            return self.start(&["pool", "add-pv", pool, "--pv", &disk]).map(Some);
        }
        if !std::mem::take(&mut self.is_whole) {
            return Ok(None);
        }
        let disks = &self.subjects.disks;
        let disk = &disks[random as usize % disks.len()];
        self.start(&["pool", "rm-pv", pool, &disk.path, "--no-wait"]).map(Some)
    }

    /// While no server runs, disks go away and come back.
    pub fn between(&mut self, random: u64) -> Result<()> {
        match self.away {
            Some((group, 0)) => self.bring_back(group)?,
            Some((group, lives)) => self.away = Some((group, lives - 1)),
            None if std::mem::take(&mut self.is_whole) && random.is_multiple_of(AWAY_EVERY) => {
                let disks = &self.subjects.disks;
                let group = disks[random as usize / 8 % disks.len()].group.as_str();
                for disk in disks.iter().filter(|disk| disk.group == group) {
                    fs::rename(&disk.path, away(disk))?;
                }
                self.away = Some((group, random / 64 % AWAY_LIVES));
            }
            None => {}
        }
        Ok(())
    }

    fn bring_back(&mut self, group: &str) -> Result<()> {
        for disk in self.subjects.disks.iter().filter(|disk| disk.group == group) {
            fs::rename(away(disk), &disk.path)?;
        }
        self.away = None;
        Ok(())
    }

    /// Looks at the pool every so often, and counts what has come about.
    pub fn look(&mut self, round: u32, told: &mut Churned) -> Result<()> {
        if self.subjects.disks.is_empty() || !round.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        let shown = self.say(&["pool", "show", &self.subjects.pool, "-o", "json"])?;
        let shown: serde_json::Value =
            serde_json::from_str(&shown).context(|| format!("pool show: {shown}"))?;
        let states = shown["disks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let state = |disk: &Disk| {
            let one = states.iter().find(|it| it["path"] == disk.path.as_str());
            one.and_then(|it| it["state"].as_str())
        };
        let is_behind = shown["behind"].as_array().is_some_and(|groups| !groups.is_empty());
        let disks = self.subjects.disks.iter();
        self.is_whole = !is_behind && disks.clone().all(|disk| state(disk) == Some("member"));
        told.caught_up += u64::from(self.is_behind && self.is_whole);
        self.is_behind = is_behind || self.is_behind && !self.is_whole;
        self.left = disks.clone().find(|disk| state(disk).is_none());
        let before = self.leaving.take();
        told.left += u64::from(before.is_some_and(|disk| state(disk).is_none()));
        self.leaving = disks.clone().find(|disk| state(disk) == Some("leaving"));
        Ok(())
    }

    /// Whether copies have missed something, or a disk is leaving.
    pub fn has_to_move(&self) -> bool {
        self.is_behind || self.leaving.is_some()
    }

    /// Whether it goes on without what is away: then the server must be stopped first.
    pub fn is_missed(&self) -> bool {
        self.away.is_some()
    }

    /// Until everything is there, and nothing of what came and went is left.
    pub fn finish(&mut self, told: &mut Churned) -> Result<()> {
        self.command(&["lu", "rm", CHURNED])?;
        for name in self.snapshots(PASSING) {
            self.command(&["snapshot", "rm", &name])?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.subjects.disks.is_empty() && !self.is_whole {
            self.look(0, told)?;
            if self.left.is_some()
                && let Some(mut adding) = self.exchange(0)?
            {
                adding.wait()?;
            }
            if Instant::now() > deadline {
                return Err(Error::new("the pool does not get whole again"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The names of one snapshot of each LU.
    pub fn snapshots(&self, name: &str) -> Vec<String> {
        self.subjects.lus.iter().map(|lu| format!("{lu}@{name}")).collect()
    }

    fn start(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.spawn()?)
    }

    /// A command that is right whether or not what it names is there, once the server answers.
    pub fn command(&self, arguments: &[&str]) -> Result<()> {
        self.say(arguments).map(drop)
    }

    fn say(&self, arguments: &[&str]) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = Command::new(self.program).args(arguments).output()?;
            match output.status.code() {
                Some(0 | 3) => return Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                _ if Instant::now() > deadline => {
                    let error = String::from_utf8_lossy(&output.stderr);
                    return Err(Error::new(format!("viaduct {arguments:?}: {error}")));
                }
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

fn away(disk: &Disk) -> PathBuf {
    format!("{}.away", disk.path).into()
}

pub fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}
