//! Messages in and out, byte by byte: a [`Receiver`] that collects one message with its file
//! descriptors, and a [`Sender`] that gives one away.
//!
//! Why the receiver says how much it wants: file descriptors belong to a byte of the stream, and
//! the kernel hands them over with whatever piece of it was read. Only when a read cannot reach
//! past the end of a message is it certain whose they are. So the owner never reads more than
//! `Receiver::wanted`: a header first, then exactly the payload it announces.

use super::error::Violation;
use wire::vhost_user::{
    HEADER_BYTES, Header, MEM_TABLE_REGIONS_MAX, PAYLOAD_BYTES_MAX, header_flag,
};
use zerocopy::{FromBytes, IntoBytes};

/// Most file descriptors that any message carries.
pub const FDS_PER_MESSAGE_MAX: usize = MEM_TABLE_REGIONS_MAX;

const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// What is to be sent now. The file descriptors go with the first byte, and may be closed once
/// [`Sender::handle_transmitted`] has given them back.
#[derive(Debug)]
pub struct Transmit<'a, F> {
    pub bytes: &'a [u8],
    pub fds: &'a [F],
}

/// What a piece of input completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Partial,
    /// The header; call [`Receiver::expect_payload`] when it is acceptable.
    Header(Header),
    Message,
}

/// Checks the part of a header that is the same for every message in one direction.
pub(super) fn check_flags(header: &Header, is_reply: bool) -> Result<(), Violation> {
    let flags = header.flags.get();
    let known = header_flag::VERSION_MASK | header_flag::REPLY | header_flag::NEED_REPLY;
    if flags & header_flag::VERSION_MASK != header_flag::VERSION {
        return Err(Violation::Version(flags & header_flag::VERSION_MASK));
    }
    if flags & !known != 0 {
        return Err(Violation::Flags(flags & !known));
    }
    match (flags & header_flag::REPLY != 0, is_reply) {
        (true, false) => Err(Violation::ReplyFlagSet),
        (false, true) => Err(Violation::ReplyFlagMissing),
        _ => Ok(()),
    }
}

/// Collects one message.
pub(super) struct Receiver<F> {
    bytes: [u8; MESSAGE_BYTES_MAX],
    received: usize,
    /// Bytes of the message as far as they are known: the header, and then the whole.
    expected: usize,
    fds: Vec<F>,
    /// All that came, also those beyond the limit that were not kept.
    fd_count: usize,
}

impl<F> Receiver<F> {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; MESSAGE_BYTES_MAX],
            received: 0,
            expected: HEADER_BYTES,
            fds: Vec::new(),
            fd_count: 0,
        }
    }

    /// How many bytes may be read now; zero while a complete message waits to be taken.
    pub(super) fn wanted(&self) -> usize {
        self.expected - self.received
    }

    /// Takes at most [`wanted`](Self::wanted) bytes and the file descriptors that came with them.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        fds: impl IntoIterator<Item = F>,
        discarded: &mut Vec<F>,
    ) -> Received {
        assert!(bytes.len() <= self.wanted(), "more bytes than wanted");
        for fd in fds {
            self.fd_count = self.fd_count.saturating_add(1);
            if self.fds.len() < FDS_PER_MESSAGE_MAX {
                self.fds.push(fd);
            } else {
                discarded.push(fd);
            }
        }
        if bytes.is_empty() {
            return Received::Partial;
        }
        self.bytes[self.received..][..bytes.len()].copy_from_slice(bytes);
        self.received += bytes.len();
        match self.header() {
            Some(header) if self.received == HEADER_BYTES => Received::Header(header),
            Some(_) if self.received == self.expected => Received::Message,
            _ => Received::Partial,
        }
    }

    /// Accepts the header: this much payload belongs to it.
    pub(super) fn expect_payload(&mut self, size: usize) {
        assert!(self.received == HEADER_BYTES && size <= PAYLOAD_BYTES_MAX);
        self.expected = HEADER_BYTES + size;
    }

    /// Makes room for the next message. File descriptors that nobody took are given up.
    pub(super) fn clear(&mut self, discarded: &mut Vec<F>) {
        self.received = 0;
        self.expected = HEADER_BYTES;
        self.fd_count = 0;
        discarded.append(&mut self.fds);
    }

    pub(super) fn take_fds(&mut self) -> Vec<F> {
        std::mem::take(&mut self.fds)
    }

    pub(super) fn header(&self) -> Option<Header> {
        let bytes = self.bytes[..self.received].get(..HEADER_BYTES)?;
        Header::read_from_bytes(bytes).ok()
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES.min(self.received)..self.received]
    }

    pub(super) fn fd_count(&self) -> usize {
        self.fd_count
    }

    /// Bytes received and expected, unless nothing of the next message has come.
    pub(super) fn partial(&self) -> Option<(usize, usize)> {
        let inside = self.received > 0 && self.received < self.expected;
        inside.then_some((self.received, self.expected))
    }
}

/// Gives one message away.
pub(super) struct Sender<F> {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<F>,
}

impl<F> Sender<F> {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0, fds: Vec::new() }
    }

    pub(super) fn queue(&mut self, header: Header, payload: &[u8], fds: Vec<F>) {
        assert!(self.is_empty(), "one message at a time");
        assert!(payload.len() == header.size.get() as usize);
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(payload);
        self.fds = fds;
    }

    pub(super) fn handle_transmitted(&mut self, count: usize, discarded: &mut Vec<F>) {
        assert!(count <= self.bytes.len() - self.sent, "more bytes sent than were given");
        if count == 0 {
            return;
        }
        self.sent += count;
        discarded.append(&mut self.fds);
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    pub(super) fn clear(&mut self, discarded: &mut Vec<F>) {
        self.bytes.clear();
        self.sent = 0;
        discarded.append(&mut self.fds);
    }

    pub(super) fn transmit(&self) -> Option<Transmit<'_, F>> {
        let bytes = &self.bytes[self.sent..];
        (!bytes.is_empty()).then_some(Transmit { bytes, fds: &self.fds })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
