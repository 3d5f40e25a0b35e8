//! The messages of a client in their order, and what must hold of the answers.

use std::collections::BTreeMap;

use wire::nbd::{
    BASE_ALLOCATION, Command, ExportInfo, Extent, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Hello,
    INFO_EXPORT, INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader, OptionKind,
    OptionReply, OptionReplyKind, REPLY_FLAG_DONE, REPLY_TYPE_ERROR_BIT, REQUEST_MAGIC, ReplyChunk,
    ReplyKind, Request, SIMPLE_REPLY_MAGIC, STATE_ZERO, STRUCTURED_REPLY_MAGIC,
};
use zerocopy::{FromBytes, IntoBytes};

pub const HELLO_BYTES: usize = size_of::<Hello>();
pub const OPTION_REPLY_BYTES: usize = size_of::<OptionReply>();
pub const CHUNK_BYTES: usize = size_of::<ReplyChunk>();

/// Longest data of an option's reply, or of a chunk that is not what was read.
pub const PAYLOAD_MAX: u32 = 64 << 10;

/// The server breaks the protocol, or refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it speaks no NBD that is known here")]
    Hello,
    #[error("it sent {0} where something else was due")]
    Unexpected(&'static str),
    #[error("it refuses option {0}")]
    Refused(OptionKind),
    #[error("it sent {0} bytes, more than fit")]
    TooLong(u32),
    #[error("it answers with error {0}")]
    Failed(u32),
}

/// From the first byte to an open export.
#[derive(Debug, Default)]
pub struct Negotiation {
    size: Option<u64>,
    context: Option<u32>,
    is_structured: bool,
}

impl Negotiation {
    /// What to send to a server that greets so: everything up to the opening of its only export.
    pub fn greet(&self, hello: &[u8; HELLO_BYTES]) -> Result<Vec<u8>, Error> {
        let hello = Hello::read_from_bytes(hello).map_err(|_| Error::Hello)?;
        let is_known = hello.init_magic == INIT_MAGIC && hello.option_magic == OPTION_MAGIC;
        if !is_known || hello.flags.get() & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(Error::Hello);
        }
        let flags = u32::from(FLAG_FIXED_NEWSTYLE | hello.flags.get() & FLAG_NO_ZEROES);
        let mut bytes = flags.to_be_bytes().to_vec();
        option(&mut bytes, OptionKind::STRUCTURED_REPLY, &[]);
        // The export without a name, and one query.
        let mut query = [0_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat();
        query.extend_from_slice(&(BASE_ALLOCATION.len() as u32).to_be_bytes());
        query.extend_from_slice(BASE_ALLOCATION.as_bytes());
        option(&mut bytes, OptionKind::SET_META_CONTEXT, &query);
        option(&mut bytes, OptionKind::GO, &[0; 6]);
        Ok(bytes)
    }

    /// How many bytes of data follow this reply to an option.
    pub fn expect(&self, reply: &[u8; OPTION_REPLY_BYTES]) -> Result<usize, Error> {
        let reply = OptionReply::read_from_bytes(reply).map_err(|_| Error::Hello)?;
        if reply.magic != OPTION_REPLY_MAGIC {
            return Err(Error::Unexpected("no reply to an option"));
        }
        match reply.length.get() {
            length if length > PAYLOAD_MAX => Err(Error::TooLong(length)),
            length => Ok(length as usize),
        }
    }

    /// Takes a reply with its data. The size of the export, when it is open.
    pub fn handle_reply(
        &mut self,
        reply: &[u8; OPTION_REPLY_BYTES],
        data: &[u8],
    ) -> Result<Option<u64>, Error> {
        let reply = OptionReply::read_from_bytes(reply).map_err(|_| Error::Hello)?;
        let option = OptionKind(reply.option.get());
        match (option, OptionReplyKind(reply.kind.get())) {
            (OptionKind::STRUCTURED_REPLY, OptionReplyKind::ACK) => self.is_structured = true,
            (OptionKind::SET_META_CONTEXT, OptionReplyKind::META_CONTEXT) => {
                let id = data.first_chunk::<4>().ok_or(Error::Unexpected("half a context"))?;
                self.context = Some(u32::from_be_bytes(*id));
            }
            (OptionKind::SET_META_CONTEXT, OptionReplyKind::ACK) => {}
            (OptionKind::GO, OptionReplyKind::INFO) => {
                if let Ok(info) = ExportInfo::read_from_bytes(data)
                    && info.kind == INFO_EXPORT
                {
                    self.size = Some(info.size.get());
                }
            }
            (OptionKind::GO, OptionReplyKind::ACK) if self.is_structured => {
                return self.size.map(Some).ok_or(Error::Unexpected("no size"));
            }
            _ => return Err(Error::Refused(option)),
        }
        Ok(None)
    }

    /// Whether it tells where there is nothing.
    pub fn tells_holes(&self) -> bool {
        self.context.is_some()
    }
}

fn option(bytes: &mut Vec<u8>, option: OptionKind, data: &[u8]) {
    let header = OptionHeader {
        magic: OPTION_MAGIC.into(),
        option: option.0.into(),
        length: (data.len() as u32).into(),
    };
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
}

/// A request to read.
pub fn read(offset: u64, length: u32) -> Vec<u8> {
    request(Command::READ, offset, length)
}

/// A request to say what is where.
pub fn status(offset: u64, length: u32) -> Vec<u8> {
    request(Command::BLOCK_STATUS, offset, length)
}

pub fn disconnect() -> Vec<u8> {
    request(Command::DISC, 0, 0)
}

/// One request is under way at a time, so its offset names it.
fn request(command: Command, offset: u64, length: u32) -> Vec<u8> {
    let request = Request {
        magic: REQUEST_MAGIC.into(),
        flags: 0.into(),
        command: command.0.into(),
        cookie: offset.into(),
        offset: offset.into(),
        length: length.into(),
    };
    request.as_bytes().to_vec()
}

/// The head of a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Nothing more comes after its payload.
    pub is_last: bool,
    pub kind: ReplyKind,
    /// Bytes of payload.
    pub length: u32,
}

impl Chunk {
    /// Understands a chunk of the answer to the request at this offset.
    pub fn of(bytes: &[u8; CHUNK_BYTES], offset: u64) -> Result<Self, Error> {
        let chunk = ReplyChunk::read_from_bytes(bytes).map_err(|_| Error::Hello)?;
        if chunk.magic == SIMPLE_REPLY_MAGIC {
            return Err(Error::Unexpected("a simple reply"));
        }
        if chunk.magic != STRUCTURED_REPLY_MAGIC || chunk.cookie != offset {
            return Err(Error::Unexpected("an answer to nothing"));
        }
        let is_last = chunk.flags.get() & REPLY_FLAG_DONE != 0;
        Ok(Self { is_last, kind: ReplyKind(chunk.kind.get()), length: chunk.length.get() })
    }

    pub const fn is_error(&self) -> bool {
        self.kind.0 & REPLY_TYPE_ERROR_BIT != 0
    }

    /// The error that the payload of one tells.
    pub fn error(payload: &[u8]) -> Error {
        let number = payload.first_chunk::<4>().map_or(0, |it| u32::from_be_bytes(*it));
        Error::Failed(number)
    }
}

/// Where the payload of a chunk of a READ belongs, within what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These many bytes of data follow the offset.
    Data {
        at: usize,
        length: usize,
    },
    Zeroes {
        at: usize,
        length: usize,
    },
}

/// Understands the begin of a READ's payload: eight bytes of data's chunk, all twelve of a hole's.
pub fn piece(chunk: &Chunk, payload: &[u8], asked: (u64, u32)) -> Result<Piece, Error> {
    let odd = Error::Unexpected("data that were not asked for");
    let offset = payload.first_chunk::<8>().ok_or(odd.clone())?;
    let at = u64::from_be_bytes(*offset).checked_sub(asked.0).ok_or(odd.clone())?;
    let length = match chunk.kind {
        ReplyKind::OFFSET_DATA => chunk.length.checked_sub(8),
        ReplyKind::OFFSET_HOLE => {
            payload.get(8..12).and_then(|it| it.try_into().ok()).map(u32::from_be_bytes)
        }
        _ => None,
    };
    let length = length.ok_or(odd.clone())?;
    if at.checked_add(u64::from(length)).is_none_or(|end| end > u64::from(asked.1)) {
        return Err(odd);
    }
    let (at, length) = (at as usize, length as usize);
    Ok(match chunk.kind {
        ReplyKind::OFFSET_DATA => Piece::Data { at, length },
        _ => Piece::Zeroes { at, length },
    })
}

/// What pieces have told of a READ: each byte must be told once (NBD protocol, structured replies).
/// Counting them would take a byte that was told twice for one that never was.
#[derive(Debug, Default)]
pub struct Told {
    /// First bytes and ends; none touches another.
    runs: BTreeMap<usize, usize>,
}

impl Told {
    pub fn add(&mut self, piece: &Piece) -> Result<(), Error> {
        let (Piece::Data { at, length } | Piece::Zeroes { at, length }) = *piece;
        let (mut start, mut end) = (at, at + length);
        let before = self.runs.range(..=at).next_back().map(|(start, end)| (*start, *end));
        let behind = self.runs.range(at..).next().map(|(start, end)| (*start, *end));
        let overlaps = before.is_some_and(|(_, before)| before > start)
            || behind.is_some_and(|(behind, _)| behind < end);
        if overlaps || length == 0 {
            return Err(Error::Unexpected("data that were told twice, or none"));
        }
        if let Some((first, _)) = before.filter(|(_, before)| *before == start) {
            start = first;
        }
        if let Some((first, last)) = behind.filter(|(behind, _)| *behind == end) {
            self.runs.remove(&first);
            end = last;
        }
        self.runs.insert(start, end);
        Ok(())
    }

    /// Whether so many bytes have been told, from the first on.
    pub fn is_all(&self, length: usize) -> bool {
        self.runs.get(&0) == Some(&length) || length == 0
    }
}

/// The extents of a BLOCK_STATUS: length, and whether it is all zero.
pub fn extents(payload: &[u8]) -> Result<Vec<(u32, bool)>, Error> {
    let odd = || Error::Unexpected("half an extent");
    // The context comes first; there is only one.
    let (extents, rest) =
        <[Extent]>::ref_from_prefix(payload.get(4..).ok_or_else(odd)?).map_err(|_| odd())?;
    if !rest.is_empty() || extents.iter().any(|extent| extent.length == 0) {
        return Err(odd());
    }
    let told = |it: &Extent| (it.length.get(), it.flags.get() & STATE_ZERO != 0);
    Ok(extents.iter().map(told).collect())
}
