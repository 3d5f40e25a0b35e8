//! The library: media, each a file in the data directory that a drive can be given.
//!
//! | module | holds |
//! |---|---|
//! | [`content`] | what is on a disc |
//! | here | how a file becomes a medium, and a medium's file |
//!
//! A file is copied under another name, sparse, hashed on the way, made durable, read again from
//! the disk and compared; then it becomes known, and takes its name. So a name says that the copy
//! is whole, and what a killed node leaves is told by whether it became known: [`tidy`] gives it
//! its name, or deletes it.
//!
//! Everything here may block for as long as a disk does, and runs on threads made for it.

pub mod content;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use model::image::{HEAD_BYTES, format_of};
use model::limits::MEDIUM_SIZE_MAX;
use model::medium::{MEDIUM_BLOCK_BYTES, MediumFormat, MediumTold, Progress};
use model::{ApiError, Medium, MediumName, Size};
use rt::{FileHandle, FileKind, OpenOptions};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::datadir::PRIVATE_FILE;
use crate::{hex, world};
use content::{BLOCK, Content, content};

/// What is read and written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// A part of a piece that is all zero is not written.
const HOLE_BYTES: usize = 64 << 10;
/// What direct I/O wants of memory everywhere.
const ALIGNMENT: usize = 4096;

/// The file of a medium.
pub fn path(media: &Path, uuid: Uuid) -> PathBuf {
    media.join(format!("{uuid}.iso"))
}

/// A file that may become a medium.
#[derive(Debug)]
pub struct Source {
    /// Without links and dots.
    path: PathBuf,
    file: FileHandle,
    bytes: u64,
    content: Content,
}

/// Takes lines of progress; false when nobody wants the medium any more.
pub type Tell<'a> = &'a dyn Fn(MediumTold) -> bool;

/// The name of a medium of a file that has no other.
pub fn name_from(path: &str) -> Result<MediumName, ApiError> {
    let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    stem.parse().map_err(|error| {
        ApiError::usage(format!("no name can be made of {path}: {error}"))
            .then(format!("viaduct media add {path} --name NAME"))
    })
}

impl Source {
    /// Looks at a file: what is no disc image, or one that was cut off, is refused unless forced.
    pub fn open(path: &Path, force: bool) -> Result<Source, ApiError> {
        let shown = path.display();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ApiError::not_found(format!("there is no file {shown}"))
                .then(
                    "give the absolute path of an image, or of a drive with a disc, on this node",
                ),
            _ => ApiError::failed(format!("cannot read {shown}: {error}")),
        };
        let path = world::canonical(path).map_err(failed)?;
        let file = FileHandle::open(&path, OpenOptions::read()).map_err(failed)?;
        let info = file.info().map_err(failed)?;
        if info.kind == FileKind::Other {
            return Err(ApiError::usage(format!(
                "{shown} is neither a regular file nor a block device"
            )));
        }
        let bytes = info.size;
        if bytes == 0 || bytes > MEDIUM_SIZE_MAX {
            let max = Size(MEDIUM_SIZE_MAX);
            return Err(ApiError::usage(format!(
                "{shown} has {bytes} bytes; a medium has 1 to {max}"
            )));
        }
        let mut head = vec![0; HEAD_BYTES.min(bytes as usize)];
        file.read_at(&mut head, 0).map_err(failed)?;
        if let Some(format) = format_of(&head) {
            let name = format.name;
            return Err(ApiError::usage(format!("{shown} is a {name} image; media are raw"))
                .then(format!("qemu-img convert -O raw {shown} NEW, then viaduct media add NEW")));
        }
        let mut error = None;
        let content = content(&mut |at| block(&file, bytes, at, &mut error));
        if let Some(error) = error {
            return Err(failed(error));
        }
        let source = Source { path, file, bytes, content };
        if force { Ok(source) } else { source.refuse_odd() }
    }

    fn refuse_odd(self) -> Result<Source, ApiError> {
        let path = self.path.display();
        let force = format!("viaduct media add {path} --force takes it as it is");
        if self.content.format == MediumFormat::Unknown {
            return Err(ApiError::usage(format!(
                "{path} is no disc image: it has neither an ISO 9660 nor a UDF volume"
            ))
            .then(force));
        }
        match self.content.volume_bytes {
            Some(volume) if volume > self.bytes => Err(ApiError::usage(format!(
                "{path} was cut off: it has {} bytes, and its volume {volume}",
                self.bytes
            ))
            .then(format!("fetch it again; {force}"))),
            _ => Ok(self),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the file into the library, where it has no name yet. What comes of it is to be
    /// [placed](place) or [thrown away](discard).
    pub fn copy(
        self,
        media: &Path,
        (name, uuid): (MediumName, Uuid),
        tell: Tell<'_>,
    ) -> Result<Medium, ApiError> {
        let target = path(media, uuid);
        let sha256 = self.copied(&target, tell).inspect_err(|_| discard(media, uuid))?;
        let size = self.bytes.next_multiple_of(u64::from(MEDIUM_BLOCK_BYTES));
        let Content { format, label, boots, .. } = self.content;
        let padding = (size - self.bytes) as u32;
        Ok(Medium { name, uuid, size: Size(size), padding, sha256, format, label, boots })
    }

    fn copied(&self, target: &Path, tell: Tell<'_>) -> Result<String, ApiError> {
        let new = world::new_name(target);
        let shown = self.path.display();
        let reading = |error| ApiError::failed(format!("cannot read {shown}: {error}"));
        let writing = |error| {
            ApiError::failed(format!("the copy of {shown} cannot be written: {error}"))
                .then("make room on the filesystem of the data directory")
        };
        world::remove_file(&new).map_err(writing)?;
        let options = OpenOptions { create_new: true, mode: PRIVATE_FILE, ..OpenOptions::write() };
        let copy = FileHandle::open(&new, options).map_err(writing)?;
        let of = self.bytes;
        copy.set_len(of.next_multiple_of(u64::from(MEDIUM_BLOCK_BYTES))).map_err(writing)?;
        let mut piece = vec![0; PIECE_BYTES];
        let (mut at, mut hash) = (0, Sha256::new());
        while at < of {
            go_on(tell(MediumTold::Copying(Progress { bytes: at, of })))?;
            let piece = &mut piece[..PIECE_BYTES.min((of - at) as usize)];
            self.file.read_at(piece, at).map_err(reading)?;
            hash.update(&*piece);
            for (part, begin) in piece.chunks(HOLE_BYTES).zip((at..).step_by(HOLE_BYTES)) {
                if part.iter().any(|byte| *byte != 0) {
                    copy.write_at(part, begin).map_err(writing)?;
                }
            }
            at += piece.len() as u64;
        }
        copy.sync().map_err(writing)?;
        let copied = hash.finalize();
        let again = verified(&new, copy, of, tell)?;
        if copied[..] != again[..] {
            return Err(ApiError::failed(format!(
                "the copy of {shown} reads back different from what was written"
            ))
            .then("check the disk and the memory of this machine"));
        }
        Ok(hex(copied))
    }
}

/// A block of the source; where there is none, or where it cannot be read, none.
fn block(
    file: &FileHandle,
    bytes: u64,
    at: u64,
    error: &mut Option<io::Error>,
) -> Option<[u8; BLOCK]> {
    let begin = at.checked_mul(BLOCK as u64)?;
    if begin.checked_add(BLOCK as u64)? > bytes {
        return None;
    }
    let mut block = [0; BLOCK];
    match file.read_at(&mut block, begin) {
        Ok(()) => Some(block),
        Err(why) => {
            *error = Some(why);
            None
        }
    }
}

/// Reads a copy again, past the page cache where the filesystem lets one, and hashes it.
fn verified(
    path: &Path,
    copy: FileHandle,
    of: u64,
    tell: Tell<'_>,
) -> Result<impl AsRef<[u8]> + std::ops::Index<std::ops::RangeFull, Output = [u8]>, ApiError> {
    let failed =
        |error: io::Error| ApiError::failed(format!("the copy cannot be read again: {error}"));
    let direct = OpenOptions { direct: true, ..OpenOptions::read() };
    let direct = FileHandle::open(path, direct).ok();
    let mut memory = vec![0; PIECE_BYTES + ALIGNMENT];
    let begin = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let piece = &mut memory[begin..begin + PIECE_BYTES];
    let (mut at, mut hash) = (0, Sha256::new());
    while at < of {
        go_on(tell(MediumTold::Verifying(Progress { bytes: at, of })))?;
        let piece = &mut piece[..PIECE_BYTES.min((of - at) as usize)];
        // Only whole pieces suit direct I/O everywhere.
        let is_direct = piece.len() == PIECE_BYTES
            && direct.as_ref().is_some_and(|direct| direct.read_at(piece, at).is_ok());
        if !is_direct {
            copy.read_at(piece, at).map_err(failed)?;
        }
        hash.update(&*piece);
        at += piece.len() as u64;
    }
    Ok(hash.finalize())
}

fn go_on(is_wanted: bool) -> Result<(), ApiError> {
    match is_wanted {
        true => Ok(()),
        false => Err(ApiError::not_now("nobody waits for the medium any more")),
    }
}

/// A copy became known: from now on it has its name.
pub fn place(media: &Path, uuid: Uuid) -> Result<(), ApiError> {
    let path = path(media, uuid);
    world::rename(&world::new_name(&path), &path)
        .map_err(|error| ApiError::failed(format!("cannot name {}: {error}", path.display())))
}

/// A copy will never be known. What cannot be deleted now is deleted at the next start.
pub fn discard(media: &Path, uuid: Uuid) {
    if let Err(error) = world::remove_file(&world::new_name(&path(media, uuid))) {
        tracing::warn!(%error, %uuid, "a copy that nobody wants stays until the next start");
    }
}

pub fn remove(media: &Path, uuid: Uuid) -> Result<(), ApiError> {
    let path = path(media, uuid);
    world::remove_file(&path)
        .map_err(|error| ApiError::failed(format!("cannot remove {}: {error}", path.display())))
}

/// Ends what a former process had begun: copies that became known get their names, others go.
pub fn tidy(media: &Path, known: &BTreeSet<Uuid>) -> Result<(), ApiError> {
    let failed =
        |error: io::Error| ApiError::failed(format!("cannot tidy {}: {error}", media.display()));
    for name in world::names_in(media).map_err(failed)? {
        let uuid = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".iso.new"));
        let Some(uuid) = uuid.and_then(|uuid| Uuid::parse_str(uuid).ok()) else { continue };
        let is_there = FileHandle::open(&path(media, uuid), OpenOptions::read()).is_ok();
        if known.contains(&uuid) && !is_there {
            place(media, uuid)?;
        } else {
            world::remove_file(&media.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
