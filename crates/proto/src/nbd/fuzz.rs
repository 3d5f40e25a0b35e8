//! A hostile server: bytes taken as a script of its answers, run against the client's machine as
//! its owner runs it, with its promises checked. The property tests run it on random scripts, the
//! fuzz target on those that a fuzzer finds.

use wire::nbd::{
    ExportInfo, Extent, Hello, INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionKind,
    OptionReply, OptionReplyKind, ReplyChunk, ReplyKind, STRUCTURED_REPLY_MAGIC,
};
use zerocopy::IntoBytes;

use super::*;

/// What the owner asks for at a time.
const ASKED: (u64, u32) = (4096, 64 << 10);

/// Numbers that mean something somewhere: lengths, limits, offsets.
const WORDS: [u64; 12] =
    [0, 1, 4, 8, 12, 4095, 4096, 64 << 10, (64 << 10) + 1, 1 << 31, u32::MAX as u64, u64::MAX];

/// How far a script has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub is_open: bool,
    /// Pieces of data and extents that were taken.
    pub pieces: u32,
    pub extents: u32,
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn is_odd(&mut self) -> bool {
        self.next() % 16 == 1
    }

    fn word(&mut self) -> u64 {
        match usize::from(self.next()) {
            at if at < WORDS.len() => WORDS[at],
            other => other as u64,
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.next()) % of.len()]
    }

    /// Bytes of the script, then zeroes.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (own, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        let mut bytes = own.to_vec();
        bytes.resize(count, 0);
        bytes
    }

    fn hello(&mut self) -> Hello {
        let magic = if self.is_odd() { self.word() } else { INIT_MAGIC };
        let flags = if self.is_odd() { self.word() as u16 } else { 3 };
        Hello { init_magic: magic.into(), option_magic: OPTION_MAGIC.into(), flags: flags.into() }
    }

    fn option_reply(&mut self) -> (OptionReply, Vec<u8>) {
        const OPTIONS: [OptionKind; 3] =
            [OptionKind::STRUCTURED_REPLY, OptionKind::SET_META_CONTEXT, OptionKind::GO];
        const KINDS: [OptionReplyKind; 4] = [
            OptionReplyKind::ACK,
            OptionReplyKind::INFO,
            OptionReplyKind::META_CONTEXT,
            OptionReplyKind(1 << 31 | 3),
        ];
        let (option, kind) = (self.pick(&OPTIONS), self.pick(&KINDS));
        let data = match kind {
            OptionReplyKind::INFO if !self.is_odd() => {
                let (size, flags) = (self.word().into(), 1.into());
                ExportInfo { kind: 0.into(), size, flags }.as_bytes().to_vec()
            }
            OptionReplyKind::ACK => Vec::new(),
            _ => {
                let count = usize::from(self.next());
                self.bytes(count)
            }
        };
        let length = if self.is_odd() { self.word() as u32 } else { data.len() as u32 };
        let magic = if self.is_odd() { self.word() } else { OPTION_REPLY_MAGIC };
        let reply = OptionReply {
            magic: magic.into(),
            option: option.0.into(),
            kind: kind.0.into(),
            length: length.into(),
        };
        (reply, data)
    }

    fn chunk(&mut self, offset: u64, kinds: &[ReplyKind]) -> [u8; CHUNK_BYTES] {
        let kind = self.pick(kinds);
        let cookie = if self.is_odd() { self.word() } else { offset };
        let length = match kind {
            _ if self.is_odd() => self.word() as u32,
            ReplyKind::OFFSET_HOLE => 12,
            ReplyKind::NONE => 0,
            ReplyKind::BLOCK_STATUS => 4 + 8 * u32::from(self.next() % 4),
            _ => self.word() as u32,
        };
        let chunk = ReplyChunk {
            magic: STRUCTURED_REPLY_MAGIC.into(),
            flags: u16::from(self.next() % 2).into(),
            kind: kind.0.into(),
            cookie: cookie.into(),
            length: length.into(),
        };
        let mut bytes = [0; CHUNK_BYTES];
        bytes.copy_from_slice(chunk.as_bytes());
        if self.is_odd() {
            bytes[0] ^= self.next();
        }
        bytes
    }
}

/// Runs a script. Panics where the machine breaks a promise.
pub fn client(script: &[u8]) -> Reached {
    let mut script = Script(script);
    let mut reached = Reached::default();
    let Ok(()) = open(&mut script) else { return reached };
    reached.is_open = true;
    while !script.0.is_empty() {
        let is_status = script.next() % 3 == 0;
        let done = match is_status {
            true => ask_status(&mut script, &mut reached),
            false => read_some(&mut script, &mut reached),
        };
        if done.is_err() {
            break;
        }
    }
    reached
}

fn open(script: &mut Script<'_>) -> Result<(), Error> {
    let mut negotiation = Negotiation::default();
    let mut hello = [0; HELLO_BYTES];
    hello.copy_from_slice(script.hello().as_bytes());
    assert!(!negotiation.greet(&hello)?.is_empty());
    loop {
        if script.0.is_empty() {
            return Err(Error::Hello);
        }
        let (reply, data) = script.option_reply();
        let mut bytes = [0; OPTION_REPLY_BYTES];
        bytes.copy_from_slice(reply.as_bytes());
        let count = negotiation.expect(&bytes)?;
        assert!(count <= PAYLOAD_MAX as usize);
        let mut data = data;
        data.resize(count, 0);
        if negotiation.handle_reply(&bytes, &data)?.is_some() {
            return Ok(());
        }
    }
}

/// Reads as the owner does, and checks that nothing belongs outside of what was asked for.
fn read_some(script: &mut Script<'_>, reached: &mut Reached) -> Result<(), Error> {
    const KINDS: [ReplyKind; 5] = [
        ReplyKind::OFFSET_DATA,
        ReplyKind::OFFSET_HOLE,
        ReplyKind::NONE,
        ReplyKind::BLOCK_STATUS,
        ReplyKind(1 << 15 | 1),
    ];
    let mut told = Told::default();
    while !script.0.is_empty() {
        let chunk = Chunk::of(&script.chunk(ASKED.0, &KINDS), ASKED.0)?;
        let is_data = chunk.kind == ReplyKind::OFFSET_DATA && chunk.length >= 8;
        if !is_data && chunk.length > PAYLOAD_MAX {
            return Err(Error::TooLong(chunk.length));
        }
        let mut payload = match is_data {
            true => script.bytes(8),
            false => script.bytes(chunk.length as usize),
        };
        if !script.is_odd() && payload.len() >= 8 {
            payload[..8].copy_from_slice(&(ASKED.0 + script.word() % 8192).to_be_bytes());
        }
        if chunk.is_error() {
            return Err(Chunk::error(&payload));
        }
        if chunk.kind != ReplyKind::NONE || chunk.length != 0 {
            let piece = piece(&chunk, &payload, ASKED)?;
            told.add(&piece)?;
            let (Piece::Data { at, length } | Piece::Zeroes { at, length }) = piece;
            assert!(at.checked_add(length).is_some_and(|end| end <= ASKED.1 as usize));
            reached.pieces += 1;
        }
        if chunk.is_last {
            return Ok(());
        }
    }
    Ok(())
}

fn ask_status(script: &mut Script<'_>, reached: &mut Reached) -> Result<(), Error> {
    const KINDS: [ReplyKind; 3] =
        [ReplyKind::BLOCK_STATUS, ReplyKind::NONE, ReplyKind(1 << 15 | 1)];
    while !script.0.is_empty() {
        let chunk = Chunk::of(&script.chunk(ASKED.0, &KINDS), ASKED.0)?;
        if chunk.length > PAYLOAD_MAX {
            return Err(Error::TooLong(chunk.length));
        }
        let payload = script.bytes(chunk.length as usize);
        if chunk.is_error() {
            return Err(Chunk::error(&payload));
        }
        if chunk.kind == ReplyKind::BLOCK_STATUS {
            let told = extents(&payload)?;
            assert!(told.iter().all(|(length, _)| *length > 0));
            assert_eq!(4 + told.len() * size_of::<Extent>(), payload.len());
            reached.extents += told.len() as u32;
        }
        if chunk.is_last {
            return Ok(());
        }
    }
    Ok(())
}
