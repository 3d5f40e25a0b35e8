//! The machine beside the data path: small files, directories, owners, listening sockets.
//!
//! Calls here block and are for the control plane. What must survive a crash is written under
//! another name, made durable and renamed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::{FileHandle, OpenOptions};

/// The wall clock, in nanoseconds since 1970: for people, never for decisions.
pub fn wall_clock_nanos() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

pub use std::net::TcpListener;
pub use std::os::unix::net::UnixListener;
pub use std::thread::JoinHandle;

/// This process.
pub fn process_id() -> u32 {
    std::process::id()
}

/// Binds a listening socket that was not there.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(path)
}

/// Holds the calling thread up, which is never a core.
pub fn sleep(time: Duration) {
    std::thread::sleep(time);
}

pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// Makes a directory and those above it; one that is there is left as it is.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::DirBuilder::new().mode(mode).create(path)
        }
        other => other,
    }
}

/// Replaces a file as a whole: whoever reads it finds the old content or the new, also after a
/// crash.
pub fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = new_name(path);
    remove_file(&new)?;
    let options = OpenOptions { create_new: true, mode, ..OpenOptions::write() };
    let file = FileHandle::open(&new, options)?;
    file.write_at(content, 0)?;
    file.sync()?;
    rename(&new, path)
}

/// The name under which a file is made before it takes its place.
pub fn new_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    path.with_file_name(format!(".{name}.new"))
}

/// Renames a file and makes that durable.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(parent) => FileHandle::open(parent, OpenOptions::read())?.sync(),
        None => Ok(()),
    }
}

/// Removes a file; that it is gone already is success.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes an empty directory; that it is gone already is success.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The content of a small text file; none when there is no such file.
pub fn read_text(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in a directory.
pub fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(path)?;
    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Where a symbolic link leads.
pub fn link_target(path: &Path) -> io::Result<PathBuf> {
    fs::read_link(path)
}

/// A path without links and dots.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Who owns a file and what its mode bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

pub fn access_of(path: &Path) -> io::Result<Access> {
    let data = fs::metadata(path)?;
    Ok(Access { uid: data.uid(), gid: data.gid(), mode: data.mode() & 0o7777 })
}

/// Gives a file another owner, where there is one to give, and never more than asked.
pub fn give_owner(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    chown(path, uid, gid)
}

pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The user that this process runs as.
pub fn own_uid() -> u32 {
    // The kernel gives the entries of a process in /proc to its effective user.
    fs::metadata("/proc/self").map_or(u32::MAX, |data| data.uid())
}

/// Bytes that ordinary users can still write to the file system that a path is on.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero, and there is room for what is written.
    let result = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes are such a struct, and the call has filled it.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(read_text(&path).unwrap(), None);
        replace_file(&path, b"a long first text", 0o600).unwrap();
        // What a crash left half written is no obstacle.
        fs::write(new_name(&path), b"half").unwrap();
        replace_file(&path, b"short", 0o600).unwrap();
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("short"));
        assert_eq!(access_of(&path).unwrap().mode, 0o600);
        assert_eq!(names_in(directory.path()).unwrap(), ["config.json"]);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
    }
}
