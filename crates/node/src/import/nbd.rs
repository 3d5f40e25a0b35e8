//! An image in a format of its own, read through a confined `qemu-nbd`.
//!
//! The program may open the image and nothing else that is not a library, has limited memory and
//! time, and speaks NBD on a socket in a directory that only the node enters. What it sends is
//! bytes of strangers twice over, and is read as such (`proto::nbd`).

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use block::Buffer;
use model::ApiError;
use proto::nbd::{self, Chunk, Negotiation, Piece, Told};
use rt::Core;
use rt::net::{Address, Stream};
use rt::os::child::{Child, Confined, Ended, find_program};
use rt::sync::Reply;
use wire::nbd::ReplyKind;

use super::given_up;
use crate::world;

const PROGRAM: &str = "qemu-nbd";
const CHECKER: &str = "qemu-img";
/// Address space of the program; a qcow2 image may want tables of a few dozen MiB.
const MEMORY_MAX: u64 = 4 << 30;
const FILES_MAX: u64 = 64;
/// How long the program may take to listen, and to answer a request.
const START_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const ASK_EVERY: Duration = Duration::from_millis(200);
const DIRECTORY_MODE: u32 = 0o700;
pub(super) const SOCKET: &str = "s";
/// What is asked about at a time.
const STATUS_BYTES: u64 = 1 << 30;

/// An image that is open in a program.
pub struct Opened {
    core: Core,
    stream: Stream,
    pub size: u64,
    tells_holes: bool,
    child: Option<Program>,
    path: String,
    driver: &'static str,
}

/// What is dropped in this order, by a thread that may block.
struct Program {
    _child: Child,
    _directory: Directory,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let child = self.child.take();
        // It is done, whether anybody waits for it or not.
        drop(self.core.blocking(move || drop(child)));
    }
}

/// A directory of the node's own, gone when it is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        let _ = world::remove_file(&self.0.join(SOCKET));
        let _ = world::remove_directory(&self.0);
    }
}

impl Opened {
    /// Starts the program on an image that was [checked](super::header::check).
    pub async fn open(
        core: &Core,
        (path, driver): (&str, &'static str),
        directory: PathBuf,
    ) -> Result<Self, ApiError> {
        let of = path.to_owned();
        let started = core.blocking(move || start((&of, driver), directory)).await;
        let (program, mut ended, socket) = started.unwrap_or_else(|| Err(given_up()))?;
        let connected = connect(core, &Address::Unix(socket), &mut ended).await;
        let (core, child, path) = (core.clone(), Some(program), path.to_owned());
        let stream = connected.map_err(|said| {
            ApiError::failed(format!("{path} cannot be opened as {driver}: {said}"))
        })?;
        let mut opened = Self { core, stream, size: 0, tells_holes: false, child, path, driver };
        let negotiated = opened.core.clone().timeout(ANSWER_LIMIT, opened.negotiate()).await;
        (opened.size, opened.tells_holes) =
            negotiated.unwrap_or(Err(Broken::Late)).map_err(|error| opened.broken(error))?;
        Ok(opened)
    }

    /// Asks whether the image is whole: one that was cut off reads as zeroes where it ends.
    /// `go_on` is asked every now and then.
    pub async fn check(&self, go_on: impl Fn() -> Result<(), ApiError>) -> Result<(), ApiError> {
        let (path, driver) = (self.path.clone(), self.driver);
        let started = self.core.blocking(move || {
            let program = program(CHECKER, (&path, driver))?;
            let arguments = ["check", "-f", driver, &path].map(str::to_owned).into();
            let confined = Confined { arguments, ..confined(program, &path) };
            confined.start().map_err(cannot_run)
        });
        let (child, mut ended) = started.await.unwrap_or_else(|| Err(given_up()))?;
        loop {
            go_on()?;
            let ended = self.core.timeout(ASK_EVERY, Pin::new(&mut ended)).await;
            let Some(Ended { code, said }) = ended.map(Option::unwrap_or_default) else { continue };
            drop(child);
            return match code {
                // Well, or well but for space that is not used, or nothing is known of the format.
                Some(0 | 3 | 63) => Ok(()),
                _ => Err(ApiError::usage(format!("{} is damaged: {said}", self.path))
                    .then(format!("fetch it again; qemu-img check {} tells more", self.path))),
            };
        }
    }

    async fn negotiate(&self) -> Result<(u64, bool), Broken> {
        let mut negotiation = Negotiation::default();
        let hello = self.receive::<{ nbd::HELLO_BYTES }>().await?;
        self.stream.send_bytes(&negotiation.greet(&hello)?).await?;
        loop {
            let reply = self.receive::<{ nbd::OPTION_REPLY_BYTES }>().await?;
            let data = self.receive_some(negotiation.expect(&reply)?).await?;
            if let Some(size) = negotiation.handle_reply(&reply, &data)? {
                return Ok((size, negotiation.tells_holes()));
            }
        }
    }

    /// Fills the buffer.
    pub async fn read(&self, offset: u64, buffer: &Buffer) -> Result<(), ApiError> {
        let work = self.try_read(offset, buffer);
        let read = self.core.timeout(ANSWER_LIMIT, work).await;
        read.unwrap_or(Err(Broken::Late)).map_err(|error| self.broken(error))
    }

    async fn try_read(&self, offset: u64, buffer: &Buffer) -> Result<(), Broken> {
        let length = buffer.len() as u32;
        self.stream.send_bytes(&nbd::read(offset, length)).await?;
        // What no chunk tells of would be what was in the buffer before.
        let mut told = Told::default();
        loop {
            let chunk = Chunk::of(&self.receive().await?, offset)?;
            match chunk.kind {
                ReplyKind::OFFSET_DATA if chunk.length >= 8 => {
                    let head = self.receive::<8>().await?;
                    let piece = nbd::piece(&chunk, &head, (offset, length))?;
                    told.add(&piece)?;
                    let Piece::Data { at, length } = piece else { continue };
                    self.stream.recv_exact(&buffer.sgl().slice(at, length)).await?;
                }
                ReplyKind::NONE if chunk.length == 0 => {}
                _ => {
                    let payload = self.receive_payload(&chunk).await?;
                    let piece = nbd::piece(&chunk, &payload, (offset, length))?;
                    told.add(&piece)?;
                    let Piece::Zeroes { at, length } = piece else { continue };
                    buffer.sgl().slice(at, length).fill_zero();
                }
            }
            if chunk.is_last {
                return if told.is_all(buffer.len()) { Ok(()) } else { Err(Broken::Short) };
            }
        }
    }

    /// How many bytes from here are alike, and whether they are all zero.
    pub async fn extent(&self, offset: u64) -> Result<(u64, bool), ApiError> {
        if !self.tells_holes {
            return Ok((self.size - offset, false));
        }
        let extents = self.core.timeout(ANSWER_LIMIT, self.status(offset)).await;
        let extents = extents.unwrap_or(Err(Broken::Late)).map_err(|error| self.broken(error))?;
        let Some((_, zero)) = extents.first().copied() else {
            return Ok((self.size - offset, false));
        };
        let alike = extents.iter().take_while(|(_, it)| *it == zero);
        let length: u64 = alike.map(|(length, _)| u64::from(*length)).sum();
        Ok((length.min(self.size - offset), zero))
    }

    async fn status(&self, offset: u64) -> Result<Vec<(u32, bool)>, Broken> {
        let length = STATUS_BYTES.min(self.size - offset) as u32;
        self.stream.send_bytes(&nbd::status(offset, length)).await?;
        let mut extents = Vec::new();
        loop {
            let chunk = Chunk::of(&self.receive().await?, offset)?;
            let payload = self.receive_payload(&chunk).await?;
            if chunk.kind == ReplyKind::BLOCK_STATUS {
                extents = nbd::extents(&payload)?;
            }
            if chunk.is_last {
                return Ok(extents);
            }
        }
    }

    /// The payload of a chunk that is not what was read; that of an error is one.
    async fn receive_payload(&self, chunk: &Chunk) -> Result<Vec<u8>, Broken> {
        if chunk.length > nbd::PAYLOAD_MAX {
            return Err(nbd::Error::TooLong(chunk.length).into());
        }
        let payload = self.receive_some(chunk.length as usize).await?;
        if chunk.is_error() {
            return Err(Chunk::error(&payload).into());
        }
        Ok(payload)
    }

    async fn receive<const N: usize>(&self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        let buffer = Buffer::zeroed(N);
        self.stream.recv_exact(&buffer.sgl()).await?;
        buffer.read(0, &mut bytes);
        Ok(bytes)
    }

    async fn receive_some(&self, count: usize) -> Result<Vec<u8>, Broken> {
        let buffer = Buffer::zeroed(count);
        self.stream.recv_exact(&buffer.sgl()).await?;
        Ok(buffer.to_vec())
    }

    fn broken(&self, error: Broken) -> ApiError {
        ApiError::failed(format!("{} cannot be read through {PROGRAM}: {error}", self.path))
            .then(format!("qemu-img check {} says whether it is damaged", self.path))
    }
}

/// Starts the program; where it will listen.
fn start(
    (path, driver): (&str, &str),
    directory: PathBuf,
) -> Result<(Program, Reply<Ended>, PathBuf), ApiError> {
    let program = program(PROGRAM, (path, driver))?;
    world::make_directory(&directory, DIRECTORY_MODE).map_err(cannot_run)?;
    let directory = Directory(directory);
    let socket = directory.0.join(SOCKET);
    let at = socket.to_string_lossy();
    let arguments = ["--read-only", "--shared=1", "--format", driver, "--socket", &at, path];
    let confined = Confined {
        arguments: arguments.map(str::to_owned).into(),
        sockets: vec![directory.0.clone()],
        ..confined(program, path)
    };
    let (child, ended) = confined.start().map_err(cannot_run)?;
    Ok((Program { _child: child, _directory: directory }, ended, socket))
}

fn program(name: &str, (path, driver): (&str, &str)) -> Result<PathBuf, ApiError> {
    find_program(name).ok_or_else(|| {
        ApiError::failed(format!("{path} is a {driver} image, and {name} is not installed"))
            .then("install it (Debian: apt install qemu-utils), or convert the image to raw")
    })
}

fn cannot_run(error: io::Error) -> ApiError {
    ApiError::failed(format!("cannot run a program for the image: {error}"))
}

/// What a program for this image may do, without its arguments.
fn confined(program: PathBuf, path: &str) -> Confined {
    // Its own libraries lie there, where it was not installed by the system.
    let home = program.parent().map(Path::to_path_buf);
    Confined {
        program,
        arguments: Vec::new(),
        environment: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
        reads: [PathBuf::from(path)].into_iter().chain(home).collect(),
        sockets: Vec::new(),
        memory_max: MEMORY_MAX,
        files_max: FILES_MAX,
    }
}

/// Connects as soon as the program listens; an error is what it said instead.
async fn connect(
    core: &Core,
    address: &Address,
    ended: &mut Reply<Ended>,
) -> Result<Stream, String> {
    let deadline = core.now() + START_LIMIT;
    loop {
        match Stream::connect(core, address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if core.now() >= deadline => return Err(error.to_string()),
            Err(_) => {}
        }
        if let Some(ended) = core.timeout(LOOK_EVERY, Pin::new(&mut *ended)).await {
            let said = ended.map(|ended| ended.said).unwrap_or_default();
            return Err(if said.is_empty() { "it ended at once".to_owned() } else { said });
        }
    }
}

/// Why nothing more comes of a program.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Protocol(#[from] nbd::Error),
    #[error("it does not answer within {} s", ANSWER_LIMIT.as_secs())]
    Late,
    #[error("it sent less than it was asked for")]
    Short,
}
