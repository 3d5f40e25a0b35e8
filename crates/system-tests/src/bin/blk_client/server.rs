//! The server as a child of the client, so that it can be killed and followed at once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use system_tests::{Context, Result};

pub struct Server {
    command: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Server {
    pub fn start(command: &[String], log: &Path) -> Result<Self> {
        let (command, log) = (command.to_vec(), log.to_path_buf());
        let child = spawn(&command, &log)?;
        Ok(Self { command, log, child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; returns when the process is reaped, and how long that took.
    pub fn kill(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(begin.elapsed())
    }

    /// The successor of a killed one.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.command, &self.log)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It fails only when the process has ended.
        drop(self.kill());
    }
}

fn spawn(command: &[String], log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let (program, arguments) = command.split_first().context(|| "no server to start".into())?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context(|| format!("start {program}"))
}
