//! The back-end channel: the socket, handed over with SET_BACKEND_REQ_FD, on which the back end is
//! the one that asks ("Back-end communication"). Of what it may ask, only CONFIG_CHANGE_MSG is
//! here: it is how a change of capacity reaches a running guest.
//!
//! Changes coalesce: the front end reads the configuration when it is told, so one message after
//! the last change is enough, and a front end that does not answer cannot make us hold more than
//! that. A device whose rings are all stopped must stay silent ("Suspended device state"); QEMU
//! would ignore the message then. It is kept until a ring runs again.

use super::error::{Error, Subject, Violation};
use super::framing::{Received, Receiver, Sender, Transmit, check_flags};
use super::request;
use wire::vhost_user::{BackEndRequest, Header, header_flag};

/// The back end's side: sends.
pub struct BackEndChannel<F> {
    reply_ack: bool,
    suspended: bool,
    changed: bool,
    awaits_ack: bool,
    link: Link<F>,
}

impl<F> BackEndChannel<F> {
    /// With `reply_ack` (it is negotiated) every message asks for an acknowledgement.
    pub fn new(reply_ack: bool) -> Self {
        Self {
            reply_ack,
            suspended: false,
            changed: false,
            awaits_ack: false,
            link: Link::new(true),
        }
    }

    /// Takes what was read from the channel: at most [`wanted`](Self::wanted) bytes, and file
    /// descriptors, none of which belong there.
    pub fn handle_input(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        self.link.handle_input(bytes, fds);
    }

    /// So many bytes of [`transmit`](Self::transmit) were sent.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.link.handle_transmitted(count);
        self.start();
    }

    /// The configuration space has changed.
    pub fn config_changed(&mut self) {
        self.changed = true;
        self.start();
    }

    /// Whether all rings are stopped.
    pub fn set_suspended(&mut self, suspended: bool) {
        self.suspended = suspended;
        self.start();
    }

    /// The front end's acknowledgement of a message, zero for success. An error means that the
    /// channel is of no further use; the session may go on without it.
    pub fn poll_acknowledged(&mut self) -> Result<Option<u64>, Error> {
        if self.link.poll_message()?.is_none() {
            return Ok(None);
        }
        if !self.awaits_ack {
            return Err(self.link.fail(Violation::Unsolicited));
        }
        let result = request::read_u64(self.link.receiver.payload());
        self.link.next_message();
        self.awaits_ack = false;
        self.start();
        Ok(Some(result))
    }

    /// A file descriptor that should be closed.
    pub fn poll_discarded(&mut self) -> Option<F> {
        self.link.discarded.pop()
    }

    /// What is to be sent now.
    pub fn transmit(&self) -> Option<Transmit<'_, F>> {
        self.link.sender.transmit()
    }

    /// How many bytes may be read from the channel now, and no more.
    pub fn wanted(&self) -> usize {
        self.link.wanted()
    }

    fn start(&mut self) {
        let free = self.link.sender.is_empty() && !self.awaits_ack && self.link.failed.is_none();
        if self.changed && !self.suspended && free {
            let need_reply = if self.reply_ack { header_flag::NEED_REPLY } else { 0 };
            self.link.send(need_reply, &[]);
            self.changed = false;
            self.awaits_ack = self.reply_ack;
        }
    }
}

/// The front end's side: receives.
pub struct FrontEndChannel<F> {
    link: Link<F>,
}

impl<F> Default for FrontEndChannel<F> {
    fn default() -> Self {
        Self { link: Link::new(false) }
    }
}

impl<F> FrontEndChannel<F> {
    /// Takes what was read from the channel: at most [`wanted`](Self::wanted) bytes.
    pub fn handle_input(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        self.link.handle_input(bytes, fds);
    }

    /// So many bytes of [`transmit`](Self::transmit) were sent.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.link.handle_transmitted(count);
    }

    /// True when the back end says that its configuration has changed; acknowledged at once,
    /// because reading the new configuration is a request of its own.
    pub fn poll_config_change(&mut self) -> Result<bool, Error> {
        if !self.link.sender.is_empty() {
            return Ok(false);
        }
        let Some(header) = self.link.poll_message()? else { return Ok(false) };
        self.link.next_message();
        if header.flags.get() & header_flag::NEED_REPLY != 0 {
            self.link.send(header_flag::REPLY, &0_u64.to_ne_bytes());
        }
        Ok(true)
    }

    /// A file descriptor that should be closed.
    pub fn poll_discarded(&mut self) -> Option<F> {
        self.link.discarded.pop()
    }

    /// What is to be sent now.
    pub fn transmit(&self) -> Option<Transmit<'_, F>> {
        self.link.sender.transmit()
    }

    /// How many bytes may be read from the channel now, and no more.
    pub fn wanted(&self) -> usize {
        self.link.wanted()
    }
}

/// What both sides have: CONFIG_CHANGE_MSG in one direction, its acknowledgement in the other.
struct Link<F> {
    /// What arrives here are replies.
    takes_replies: bool,
    receiver: Receiver<F>,
    sender: Sender<F>,
    discarded: Vec<F>,
    failed: Option<Error>,
}

impl<F> Link<F> {
    fn new(takes_replies: bool) -> Self {
        Self {
            takes_replies,
            receiver: Receiver::new(),
            sender: Sender::new(),
            discarded: Vec::new(),
            failed: None,
        }
    }

    fn handle_input(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        if self.failed.is_some() {
            self.discarded.extend(fds);
            return;
        }
        if let Received::Header(header) = self.receiver.push(bytes, fds, &mut self.discarded) {
            match self.check_header(&header) {
                Ok(()) => self.receiver.expect_payload(header.size.get() as usize),
                Err(violation) => drop(self.fail(violation)),
            }
        }
    }

    fn handle_transmitted(&mut self, count: usize) {
        self.sender.handle_transmitted(count, &mut self.discarded);
    }

    /// The header of a complete message.
    fn poll_message(&mut self) -> Result<Option<Header>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.receiver.wanted() > 0 {
            return Ok(None);
        }
        match self.receiver.fd_count() {
            0 => Ok(self.receiver.header()),
            count => Err(self.fail(Violation::FileDescriptors { count, min: 0, max: 0 })),
        }
    }

    fn next_message(&mut self) {
        self.receiver.clear(&mut self.discarded);
    }

    fn send(&mut self, flags: u32, payload: &[u8]) {
        let size = u32::try_from(payload.len()).expect("a message is short");
        let header = Header {
            request: BackEndRequest::CONFIG_CHANGE_MSG.0.into(),
            flags: (header_flag::VERSION | flags).into(),
            size: size.into(),
        };
        self.sender.queue(header, payload, Vec::new());
    }

    fn fail(&mut self, violation: Violation) -> Error {
        let header = self.receiver.header();
        let request = header.map(|header| BackEndRequest(header.request.get()));
        let error = Error { subject: request.map_or(Subject::Header, Subject::BackEnd), violation };
        self.receiver.clear(&mut self.discarded);
        self.sender.clear(&mut self.discarded);
        self.failed = Some(error.clone());
        error
    }

    fn wanted(&self) -> usize {
        if self.failed.is_some() { 0 } else { self.receiver.wanted() }
    }

    fn check_header(&self, header: &Header) -> Result<(), Violation> {
        check_flags(header, self.takes_replies)?;
        if BackEndRequest(header.request.get()) != BackEndRequest::CONFIG_CHANGE_MSG {
            return Err(Violation::Unsupported);
        }
        let size = header.size.get();
        let (expected, name) = match self.takes_replies {
            true => (size_of::<u64>(), "8"),
            false => (0, "none"),
        };
        if size as usize != expected {
            return Err(Violation::PayloadSize { size, expected: name });
        }
        Ok(())
    }
}
