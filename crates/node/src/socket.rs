//! Sockets for clients: in the run directory, mode 0660, owned so that a QEMU that is not root can
//! connect.
//!
//! A socket is bound under another name, given its owner and mode, and then renamed into its place.
//! So nobody ever connects to one with the wrong rights, and what a killed node left there is
//! replaced in the same moment.

use std::io;
use std::path::{Path, PathBuf};

use model::limits::SOCKET_PATH_BYTES_MAX;
use model::{AdapterId, ApiError};

use crate::owner::Ownership;
use crate::world::{self, UnixListener};

/// Owner and group may connect, nobody else.
pub const CLIENT_SOCKET_MODE: u32 = 0o660;

/// A socket as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSpec {
    pub path: PathBuf,
    pub mode: u32,
    pub ownership: Ownership,
}

/// The socket of an adapter.
pub fn path_of(run: &Path, adapter: &AdapterId) -> PathBuf {
    run.join(format!("{adapter}.sock"))
}

/// Refuses a path that does not fit a socket address, in its temporary form too.
pub fn check_path(path: &Path) -> Result<(), ApiError> {
    let length = world::new_name(path).as_os_str().len();
    if length <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    let room = SOCKET_PATH_BYTES_MAX - (length - path.as_os_str().len());
    Err(ApiError::usage(format!(
        "the socket path {} has {} bytes; Linux allows {room} here",
        path.display(),
        path.as_os_str().len()
    ))
    .then("use a data directory with a shorter path (viaduct up --data DIR), or a shorter name"))
}

/// Binds a listening socket and puts it into its place.
pub fn bind(spec: &SocketSpec) -> Result<UnixListener, ApiError> {
    check_path(&spec.path)?;
    let failed = |what: &str, error: io::Error| {
        ApiError::failed(format!("cannot {what} socket {}: {error}", spec.path.display()))
    };
    let new = world::new_name(&spec.path);
    world::remove_file(&new).map_err(|error| failed("replace", error))?;
    let listener = world::bind_unix(&new).map_err(|error| failed("bind", error))?;
    if let Err(error) = give(&new, spec) {
        let owner = format!("{:?}:{:?}", spec.ownership.uid, spec.ownership.gid);
        return Err(failed("set owner and mode of", error).then(format!(
            "run viaduct as root to give sockets to {owner}, or leave out --socket-owner"
        )));
    }
    world::rename(&new, &spec.path).map_err(|error| failed("name", error))?;
    Ok(listener)
}

fn give(path: &Path, spec: &SocketSpec) -> io::Result<()> {
    let Ownership { uid, gid, required } = spec.ownership;
    match world::give_owner(path, uid, gid) {
        Err(error) if required => return Err(error),
        // Without root the default group can be set only by its members; the owner can still
        // connect.
        _ => {}
    }
    world::set_mode(path, spec.mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_replaces_what_a_dead_node_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm1-2.sock");
        let spec = SocketSpec {
            path: path.clone(),
            mode: CLIENT_SOCKET_MODE,
            ownership: Ownership::default(),
        };
        let dead = bind(&spec).unwrap();
        drop(dead);
        assert!(UnixStream::connect(&path).is_err());
        let _listener = bind(&spec).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(world::access_of(&path).unwrap().mode, 0o660);
        assert_eq!(world::names_in(directory.path()).unwrap(), ["vm1-2.sock"]);
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused_with_its_length() {
        let path = PathBuf::from(format!("/{}/vm1-2.sock", "d".repeat(100)));
        let error = check_path(&path).unwrap_err();
        assert!(error.message.contains("has 112 bytes; Linux allows 102"), "{error}");
    }
}
