//! What a file says about itself before it is adopted: its kind, size and first bytes, and whether
//! someone holds it. Reading only; the locks are taken when the device is opened.

use std::io;
use std::path::Path;

use model::ApiError;
use model::image::{HEAD_BYTES, ImageUse};
use rt::{FileHandle, FileKind, OpenOptions};
use store::file::NODE_LOCKS;

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
    /// Who uses the image in a way that excludes ours.
    pub holder: Option<Holder>,
    /// It cannot be opened for writing.
    pub is_read_only: bool,
}

/// Who has an image. Which process it is cannot be said: the locks belong to open files, and the
/// kernel names no process for those, neither with F_OFD_GETLK nor in /proc/locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A node of Viaduct: this one, another, or one that was killed and whose requests have not
    /// ended.
    Node,
    /// A QEMU, or another program that locks images as QEMU does.
    Other,
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
    let holder = holder(&handle, usage).map_err(failed)?;
    Ok(Probe {
        path: path.to_string_lossy().into_owned(),
        kind,
        size: info.size,
        head,
        holder,
        is_read_only: is_read_only || info.read_only,
    })
}

fn holder(handle: &FileHandle, usage: ImageUse) -> io::Result<Option<Holder>> {
    for byte in usage.conflicts() {
        if handle.is_locked(byte..byte + 1)? {
            let is_node = handle.is_locked(NODE_LOCKS)?;
            return Ok(Some(if is_node { Holder::Node } else { Holder::Other }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use store::FileStore;
    use store::file::Options;

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
        assert_eq!(found.holder, None);

        // Another user of the image, as QEMU does it.
        let other = FileHandle::open(&path, OpenOptions::write()).unwrap();
        for byte in usage.locks() {
            other.try_lock(byte..byte + 1, false).unwrap();
        }
        assert_eq!(probe(&path, usage).unwrap().holder, Some(Holder::Other));
        // Who only reads and shares everything disturbs nobody.
        assert_eq!(probe(&path, ImageUse::of(true, true)).unwrap().holder, None);
        drop(other);
        assert_eq!(probe(&path, usage).unwrap().holder, None);
    }

    #[test]
    fn a_node_that_serves_an_image_is_told_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        std::fs::write(&path, [7; 8192]).unwrap();
        let core = rt::os::start(rt::Config::new("test")).unwrap();
        let serve = |options: Options| {
            let path = path.clone();
            let opened = core.call(move |core| async move {
                FileStore::open(&core, &path, options, || ()).await.map_err(|e| e.to_string())
            });
            opened.wait().unwrap().unwrap()
        };
        for node in [0, 7, u32::MAX] {
            let alone = serve(Options { node, ..Options::default() });
            for usage in [ImageUse::of(false, false), ImageUse::of(false, true)] {
                assert_eq!(probe(&path, usage).unwrap().holder, Some(Holder::Node), "{node}");
            }
            drop(alone);
            let shared =
                serve(Options { node, shareable: true, block_size: 4096, ..Options::default() });
            let holder = |shareable| probe(&path, ImageUse::of(false, shareable)).unwrap().holder;
            assert_eq!((holder(true), holder(false)), (None, Some(Holder::Node)));
            drop(shared);
        }
        core.send(rt::Core::stop);
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
