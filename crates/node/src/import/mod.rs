//! `lu create --from`: an image becomes the data of an LU that nobody knows yet.
//!
//! | module | holds |
//! |---|---|
//! | [`header`] | what an image must not say of itself |
//! | [`nbd`] | images in formats of their own, through a confined program |
//! | here | where an image's data lie, how they are copied, and that they arrived |
//!
//! Data go through the LU's own device, as a client's would, and what is zero is not written. The
//! copy is made durable, read again from the disk and compared. The LU becomes known only then; of
//! one that never does, a note in `kv` that was made before its file says that it is to be deleted.
//!
//! The copy is a task of a core that waits for rings; what may block runs on threads made for it.

pub mod header;
mod nbd;

use std::path::{Path, PathBuf};

use block::extent::ExtentState;
use block::{Buffer, Device, Request, Waiting};
use model::image::{ImageUse, format_of};
use model::medium::Progress;
use model::{ApiError, BlockSize, ImportTold, LuName, Size};
use rt::{Core, File, FileHandle, OpenOptions};
use uuid::Uuid;

use crate::probe::{self, Kind};
use crate::world;

/// What is read and written at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// A part of a piece that is all zero is not written.
const HOLE_BYTES: usize = 64 << 10;
/// Extents of a file that are asked for at a time.
const EXTENTS_MAX: usize = 64;

/// An LU that is to be made of an image.
#[derive(Debug, Clone)]
pub struct Import {
    pub uuid: Uuid,
    pub name: LuName,
    /// The image.
    pub path: PathBuf,
    /// The image's own when absent.
    pub size: Option<Size>,
    pub block_size: BlockSize,
    /// The pool that the LU shall be in.
    pub pool: Option<Uuid>,
    /// Grant it all of its space at once.
    pub thick: bool,
    /// The node's own: no image lies here.
    pub data: PathBuf,
}

/// Takes word of progress; false when nobody wants the LU any more.
pub type Tell<'a> = &'a dyn Fn(ImportTold) -> bool;

/// An image that can be read.
pub struct Image {
    core: Core,
    path: String,
    size: u64,
    form: Form,
}

enum Form {
    Raw(File),
    Other(nbd::Opened),
}

impl Image {
    /// Looks at an image and opens it. `directory` is made for a program that helps, and removed
    /// with it.
    pub async fn open(core: &Core, import: &Import, directory: PathBuf) -> Result<Self, ApiError> {
        let (path, data) = (import.path.clone(), import.data.clone());
        let found = core.blocking(move || look(&path, &data)).await;
        let Found { path, size, format, handle } = found.unwrap_or_else(|| Err(given_up()))?;
        let driver = format.and_then(header::driver);
        let (size, form) = match driver {
            None => (size, Form::Raw(handle.on(core))),
            Some(driver) => {
                let opened = nbd::Opened::open(core, (&path, driver), directory).await?;
                (opened.size, Form::Other(opened))
            }
        };
        Ok(Self { core: core.clone(), path, size, form })
    }

    /// The size of an LU that holds it.
    pub fn lu_size(&self, import: &Import) -> Result<Size, ApiError> {
        let block = u64::from(import.block_size.bytes());
        let least = Size(self.size.next_multiple_of(block).max(model::limits::LU_SIZE_MIN));
        match import.size {
            Some(size) if size < least => Err(ApiError::usage(format!(
                "the image {} has {least}, more than the {size} of LU '{}'",
                self.path, import.name
            ))
            .then("leave out --size, or make it larger")),
            size => Ok(size.unwrap_or(least)),
        }
    }

    /// The next stretch at or after this offset that may hold data.
    async fn next_data(&self, mut at: u64) -> Result<Option<(u64, u64)>, ApiError> {
        while at < self.size {
            let (length, is_zero) = match &self.form {
                Form::Raw(file) => self.extent_of(file, at).await?,
                Form::Other(opened) => opened.extent(at).await?,
            };
            let end = at + length.clamp(1, self.size - at);
            if !is_zero {
                return Ok(Some((at, end)));
            }
            at = end;
        }
        Ok(None)
    }

    async fn extent_of(&self, file: &File, at: u64) -> Result<(u64, bool), ApiError> {
        let (handle, range) = (file.handle().clone(), at..self.size);
        let extents = self.core.blocking(move || handle.extents(range, EXTENTS_MAX)).await;
        let first = extents.and_then(Result::ok).and_then(|extents| extents.first().copied());
        // A filesystem that does not say has data everywhere.
        Ok(first.map_or((self.size - at, false), |it| (it.len, it.state != ExtentState::Data)))
    }

    /// Reads a piece; what lies beyond the image is zero.
    async fn read(&self, at: u64, buffer: &Buffer) -> Result<(), ApiError> {
        let there = (self.size - at).min(buffer.len() as u64) as usize;
        buffer.sgl().slice(there, buffer.len() - there).fill_zero();
        match &self.form {
            Form::Raw(file) => {
                let (waiting, done) = Waiting::new();
                file.read(at, &buffer.sgl().slice(0, there), done);
                let read = waiting.outcome().await;
                read.map(drop).map_err(|error| {
                    ApiError::failed(format!("{} cannot be read: {error}", self.path))
                })
            }
            Form::Other(opened) if there == buffer.len() => opened.read(at, buffer).await,
            Form::Other(opened) => {
                let short = Buffer::zeroed(there);
                opened.read(at, &short).await?;
                buffer.sgl().slice(0, there).copy_from(&short.sgl());
                Ok(())
            }
        }
    }

    /// Calls something with each piece that may hold data, in order.
    async fn pieces<F: Future<Output = Result<(), ApiError>>>(
        &self,
        block: u64,
        mut f: impl FnMut(u64, Buffer) -> F,
    ) -> Result<(), ApiError> {
        let mut at = 0;
        while let Some((begin, end)) = self.next_data(at).await? {
            let unit = (HOLE_BYTES as u64).max(block);
            at = begin / unit * unit;
            let end = end.next_multiple_of(unit).min(self.size.next_multiple_of(block));
            while at < end {
                let piece = Buffer::zeroed(PIECE_BYTES.min(end - at) as usize);
                self.read(at, &piece).await?;
                let length = piece.len() as u64;
                f(at, piece).await?;
                at += length;
            }
        }
        Ok(())
    }

    /// Copies everything into a device that reads zero, makes it durable, and compares.
    pub async fn copy(&self, device: &dyn Device, tell: Tell<'_>) -> Result<(), ApiError> {
        let (block, of) = (u64::from(device.geometry().block_size), self.size);
        // Also of an image without any data.
        let begin = || go_on(tell(ImportTold::Copying(Progress { bytes: 0, of })));
        begin()?;
        if let Form::Other(opened) = &self.form {
            opened.check(begin).await?;
        }
        self.pieces(block, async |at, piece| {
            go_on(tell(ImportTold::Copying(Progress { bytes: at.min(of), of })))?;
            write(device, at, &piece).await
        })
        .await?;
        device.io(&Request::flush()).await.map_err(|error| not_written(&error))?;
        self.pieces(block, async |at, piece| {
            go_on(tell(ImportTold::Verifying(Progress { bytes: at.min(of), of })))?;
            let copy = Buffer::zeroed(piece.len());
            let read = device.io(&Request::read(at, copy.sgl())).await;
            read.map_err(|error| {
                ApiError::failed(format!("the copy cannot be read again: {error}"))
            })?;
            match copy.sgl().first_difference(&piece.to_vec()) {
                None => Ok(()),
                Some(offset) => Err(ApiError::failed(format!(
                    "the copy of {} differs from it at byte {}",
                    self.path,
                    at + offset as u64
                ))
                .then("was the image written meanwhile? Else check disk and memory")),
            }
        })
        .await
    }
}

/// Writes the parts of a piece that are not zero.
async fn write(device: &dyn Device, at: u64, piece: &Buffer) -> Result<(), ApiError> {
    let bytes = piece.to_vec();
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    let mut begin = 0;
    while begin < bytes.len() {
        let parts = bytes[begin..].chunks(HOLE_BYTES);
        let zeroes: usize = parts.clone().take_while(|it| is_zero(it)).map(<[u8]>::len).sum();
        let rest = bytes[begin + zeroes..].chunks(HOLE_BYTES);
        let data: usize = rest.take_while(|it| !is_zero(it)).map(<[u8]>::len).sum();
        begin += zeroes;
        if data > 0 {
            let request = Request::write(at + begin as u64, piece.sgl().slice(begin, data));
            device.io(&request).await.map_err(|error| not_written(&error))?;
            begin += data;
        }
    }
    Ok(())
}

fn not_written(error: &block::Error) -> ApiError {
    ApiError::failed(format!("the copy cannot be written: {error}"))
        .then("make room on the filesystem of the data directory")
}

fn go_on(is_wanted: bool) -> Result<(), ApiError> {
    match is_wanted {
        true => Ok(()),
        false => Err(ApiError::not_now("nobody waits for the LU any more")),
    }
}

fn given_up() -> ApiError {
    ApiError::failed("the work was given up")
}

/// What there is to import.
struct Found {
    path: String,
    size: u64,
    format: Option<&'static str>,
    handle: FileHandle,
}

/// Looks at an image, and refuses what cannot be taken.
fn look(path: &Path, data: &Path) -> Result<Found, ApiError> {
    let found = probe::probe(path, ImageUse::of(true, false))?;
    let path = found.path;
    if found.kind == Kind::Other {
        return Err(ApiError::usage(format!(
            "{path} is neither a regular file nor a block device"
        )));
    }
    if Path::new(&path).starts_with(data) {
        return Err(ApiError::usage(format!("{path} lies in the node's own data directory")));
    }
    if found.holder.is_some() {
        return Err(ApiError::conflict(format!("{path} is being written by somebody"))
            .then("stop who uses it, or import a copy"));
    }
    let failed = |error| ApiError::failed(format!("cannot read {path}: {error}"));
    let handle = FileHandle::open(Path::new(&path), OpenOptions::read()).map_err(failed)?;
    let mut head = vec![0; header::BYTES.min(found.size as usize)];
    handle.read_at(&mut head, 0).map_err(failed)?;
    let format = format_of(&head).map(|format| format.name);
    if let Some(format) = format {
        header::check(&path, format, &head)?;
    }
    if found.size == 0 {
        return Err(ApiError::usage(format!("{path} is empty")));
    }
    Ok(Found { size: found.size, path, format, handle })
}

/// Where the program that helps with an import has its socket.
pub fn directory(lus: &Path, uuid: Uuid) -> PathBuf {
    let simple = uuid.simple().to_string();
    lus.join(format!("{DIRECTORY_BEGIN}{}", &simple[..12]))
}

const DIRECTORY_BEGIN: &str = ".import-";

/// Removes what programs of a former process left.
pub fn tidy(lus: &Path) -> std::io::Result<()> {
    for name in world::names_in(lus)?.iter().filter(|name| name.starts_with(DIRECTORY_BEGIN)) {
        let directory = lus.join(name);
        world::remove_file(&directory.join(nbd::SOCKET))?;
        world::remove_directory(&directory)?;
    }
    Ok(())
}
