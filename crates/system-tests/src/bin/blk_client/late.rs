//! A store that applies requests late: those of one control group wait in the kernel.
//!
//! The server is put into the group before it is given requests, its successor is not; so requests
//! of the dead process wait while those of the living one pass at once, and whoever does not wait
//! is overtaken by the past. (dm-delay delays all alike: there nothing can overtake, and only the
//! times tell.) The group's own count of requests tells when the device got them.

use std::fs;
use std::path::{Path, PathBuf};

use system_tests::{Context, Result};

/// So few bytes a second that nothing moves; the kernel takes no less.
const HELD: &str = "rbps=2 wbps=2";
const FREE: &str = "rbps=max wbps=max";

#[derive(Clone)]
pub struct Lane {
    dir: PathBuf,
    /// MAJOR:MINOR
    device: String,
}

impl Lane {
    pub fn new(dir: &Path, device: &str) -> Self {
        Self { dir: dir.to_path_buf(), device: device.to_owned() }
    }

    /// What the process asks of the device from now on goes this way.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    pub fn hold(&self) -> Result<()> {
        self.write("io.max", &format!("{} {HELD}", self.device))
    }

    pub fn release(&self) -> Result<()> {
        self.write("io.max", &format!("{} {FREE}", self.device))
    }

    /// Requests that have come through to the device.
    pub fn passed(&self) -> Result<u64> {
        let path = self.dir.join("io.stat");
        let text = fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{} ", self.device)));
        let words = line.unwrap_or_default().split(' ').filter_map(|word| word.split_once('='));
        let counts = words.filter(|(name, _)| ["rios", "wios"].contains(name));
        Ok(counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).context(|| format!("write {text:?} to {}", path.display()))
    }
}
