//! What a file says about itself before it is adopted: its kind, size and first bytes, and whether
//! someone holds it. Reading only; the locks are taken when the device is opened.

use std::io;
use std::path::Path;

use model::ApiError;
use model::image::{HEAD_BYTES, ImageUse};
use rt::{FileHandle, FileKind, OpenOptions};

use crate::world;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The path without links and dots.
    pub path: String,
    pub kind: Kind,
    pub size: u64,
    /// The first bytes, as many as there are up to [`HEAD_BYTES`].
    pub head: Vec<u8>,
    /// Someone uses the image in a way that excludes ours.
    pub is_held: bool,
    /// It cannot be opened for writing.
    pub is_read_only: bool,
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    BlockDevice,
    Other,
}

/// Looks at a file. It may block for as long as the file's store does.
pub fn probe(path: &Path, usage: ImageUse) -> Result<Probe, ApiError> {
    let shown = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ApiError::not_found(format!("there is no file {shown}"))
            .then("give the absolute path of a raw image or a block device on this node"),
        _ => ApiError::failed(format!("cannot look at {shown}: {error}")),
    };
    let path = world::canonical(path).map_err(failed)?;
    let (handle, is_read_only) = match FileHandle::open(&path, OpenOptions::write()) {
        Ok(handle) => (handle, false),
        Err(_) => (FileHandle::open(&path, OpenOptions::read()).map_err(failed)?, true),
    };
    let info = handle.info().map_err(failed)?;
    let kind = match info.kind {
        FileKind::Regular => Kind::File,
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::Other => Kind::Other,
    };
    let mut head = vec![0; HEAD_BYTES.min(info.size as usize)];
    if kind != Kind::Other {
        handle.read_at(&mut head, 0).map_err(failed)?;
    }
    let mut is_held = false;
    for byte in usage.conflicts() {
        is_held |= handle.is_locked(byte..byte + 1).map_err(failed)?;
    }
    Ok(Probe {
        path: path.to_string_lossy().into_owned(),
        kind,
        size: info.size,
        head,
        is_held,
        is_read_only: is_read_only || info.read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_seen_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        std::fs::write(&path, [7; 8192]).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let usage = ImageUse::of(false, false);
        let found = probe(&link, usage).unwrap();
        assert_eq!((found.kind, found.size, found.head.len()), (Kind::File, 8192, HEAD_BYTES));
        assert!(!found.is_held);

        // Another user of the image, as QEMU does it.
        let other = FileHandle::open(&path, OpenOptions::write()).unwrap();
        for byte in usage.locks() {
            other.try_lock(byte..byte + 1, false).unwrap();
        }
        assert!(probe(&path, usage).unwrap().is_held);
        // Who only reads and shares everything disturbs nobody.
        assert!(!probe(&path, ImageUse::of(true, true)).unwrap().is_held);
        drop(other);
        assert!(!probe(&path, usage).unwrap().is_held);
    }

    #[test]
    fn what_is_not_there_or_no_disk_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let usage = ImageUse::of(false, false);
        let error = probe(&directory.path().join("none"), usage).unwrap_err();
        assert_eq!(error.kind, model::ErrorKind::NotFound);
        assert_eq!(probe(directory.path(), usage).unwrap().kind, Kind::Other);
    }
}
