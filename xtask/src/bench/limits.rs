//! Limits of a process that hundreds of devices need raised.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Result;

/// As many open files as this process may have at most.
pub fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
