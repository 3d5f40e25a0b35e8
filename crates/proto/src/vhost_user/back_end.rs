//! The back end's side of the vhost-user socket.
//!
//! ```text
//!   socket ──▶ handle_input ──▶ [one message] ──▶ poll_request ──▶ owner acts
//!   socket ◀── transmit ◀────── [one answer]  ◀── reply ◀───────── owner is done
//! ```
//!
//! One request is with the owner at a time; the next one is read ahead but not looked at before the
//! answer to the first is given and sent. That is the order the protocol demands, it is what lets
//! GET_VRING_BASE take as long as a ring needs to drain, and it bounds what a front end can make us
//! hold to one message in, one request, and one message out.
//!
//! What only concerns the negotiation is answered here and never reaches the owner: SET_OWNER,
//! GET_FEATURES, both PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_MAX_MEM_SLOTS.

use super::declared::Declared;
use super::error::{Error, Subject, Violation};
use super::framing::{Received, Receiver, Sender, Transmit, check_flags};
use super::memory::MemoryRegion;
use super::request::{self, InflightArea, Request};
use super::ring::{Ring, RingSet};
use super::table::{self, Answer, Row};
use wire::vhost_user::{
    CONFIG_BYTES_MAX, FrontEndRequest, Header, VringState, header_flag, protocol_feature,
    virtio_feature,
};
use zerocopy::{FromBytes, IntoBytes};

/// What a back end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Virtio features of the device. PROTOCOL_FEATURES and LOG_ALL are added.
    pub features: u64,
    /// Some of [`PROTOCOL_FEATURES`](super::PROTOCOL_FEATURES).
    pub protocol_features: u64,
    /// Rings of the device, at most [`RING_COUNT_MAX`](super::RING_COUNT_MAX).
    pub ring_count: u16,
    /// Largest size of a ring: a power of two.
    pub ring_size_max: u16,
    /// Memory regions that may be declared at a time.
    pub mem_slots_max: usize,
}

/// A request for the owner, to be answered with [`BackEnd::reply`].
#[derive(Debug)]
pub struct Inbound<F> {
    pub ticket: Ticket,
    pub request: Request<F>,
    /// Rings that run from now on. If they cannot, the answer is [`Reply::Failed`].
    pub starts: RingSet,
    /// Rings that ran until now: nothing more is taken from them. Before the answer to
    /// GET_VRING_BASE and RESET_DEVICE their requests must also have ended. How far each of them
    /// got is to be said with [`BackEnd::ring_stopped`].
    pub stops: RingSet,
}

/// The right to answer one request.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a request without an answer holds up the session"]
pub struct Ticket(u64);

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a, F> {
    /// Done. For every request but GET_VRING_BASE, GET_CONFIG and GET_INFLIGHT_FD.
    Done,
    /// Refused, and as if never asked. Where the protocol knows no such answer the session ends.
    Failed,
    /// To GET_VRING_BASE: the ring is drained; this is its next available index.
    VringBase(u16),
    /// To GET_CONFIG: the whole configuration space of the device, whatever part was asked for.
    Config(&'a [u8]),
    /// To GET_INFLIGHT_FD: the area that was made.
    Inflight(InflightArea, F),
}

/// A session as back end.
pub struct BackEnd<F> {
    offer: Offer,
    declared: Declared,
    receiver: Receiver<F>,
    sender: Sender<F>,
    discarded: Vec<F>,
    asked: Option<Asked>,
    requests: u64,
    failed: Option<Error>,
}

/// The request that the owner has not answered yet.
struct Asked {
    row: &'static Row,
    ticket: u64,
    need_reply: bool,
    payload: Vec<u8>,
    before: Declared,
}

impl<F> BackEnd<F> {
    pub fn new(offer: Offer) -> Self {
        offer.assert_valid();
        Self {
            offer,
            declared: Declared::new(&offer),
            receiver: Receiver::new(),
            sender: Sender::new(),
            discarded: Vec::new(),
            asked: None,
            requests: 0,
            failed: None,
        }
    }

    /// Takes what was read from the socket: at most [`wanted`](Self::wanted) bytes, and the file
    /// descriptors that came with them. Then call the `poll_*` methods.
    pub fn handle_input(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        if self.failed.is_some() {
            self.discarded.extend(fds);
            return;
        }
        if let Received::Header(header) = self.receiver.push(bytes, fds, &mut self.discarded) {
            match check_header(&header) {
                Ok(()) => self.receiver.expect_payload(header.size.get() as usize),
                Err(violation) => self.fail(subject(&header), violation),
            }
        }
    }

    /// The front end has closed the connection. An error when it did so inside a message.
    pub fn handle_end_of_stream(&mut self) -> Result<(), Error> {
        if let Some((received, expected)) = self.receiver.partial() {
            let subject = self.receiver.header().as_ref().map_or(Subject::Header, subject);
            self.fail(subject, Violation::Truncated { received, expected });
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// So many bytes of [`transmit`](Self::transmit) were sent, its file descriptors with them.
    /// Then call the `poll_*` methods.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.sender.handle_transmitted(count, &mut self.discarded);
    }

    /// A ring of [`Inbound::stops`] has stopped, and this is its next available index: where it
    /// goes on when it is enabled again, and what GET_VRING_BASE returns when it comes later. Front
    /// ends do both: they disable a ring before they ask for its base.
    pub fn ring_stopped(&mut self, ring: u16, base: u16) {
        let index = usize::from(ring);
        if let Some(asked) = &mut self.asked {
            asked.before.rings[index].base = base;
        }
        // A ring that RESET_DEVICE has emptied starts anew.
        let declared = &mut self.declared.rings[index];
        if declared.num > 0 {
            declared.base = base;
        }
    }

    /// Answers a request. Then call [`transmit`](Self::transmit) and the `poll_*` methods.
    pub fn reply(&mut self, ticket: Ticket, reply: Reply<'_, F>) {
        let asked = self.asked.take().expect("a ticket is given once, with a request");
        assert!(asked.ticket == ticket.0, "the ticket of another session");
        match (asked.row.answer, reply) {
            (Answer::Ack, Reply::Done) => self.acknowledge(&asked, 0),
            (Answer::Log, Reply::Done) => self.send(asked.row.code, &asked.payload, None),
            (Answer::VringState, Reply::VringBase(base)) => self.send_vring_base(&asked, base),
            (Answer::Config, Reply::Config(space)) => self.send_config(&asked, space),
            (Answer::Inflight, Reply::Inflight(area, fd)) => {
                self.send_inflight(&asked, &area, Some(fd));
            }
            (_, Reply::Failed) => self.refuse(asked),
            _ => panic!("{} is not answered like this", asked.row.code),
        }
    }

    /// The next request for the owner, when it is its turn. An error ends the session.
    pub fn poll_request(&mut self) -> Result<Option<Inbound<F>>, Error> {
        loop {
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            let busy = self.asked.is_some() || !self.sender.is_empty();
            if busy || self.receiver.wanted() > 0 {
                return Ok(None);
            }
            let header = self.receiver.header().expect("a complete message has a header");
            match self.dispatch(&header) {
                Ok(Some(inbound)) => return Ok(Some(inbound)),
                Ok(None) => {}
                Err(violation) => self.fail(subject(&header), violation),
            }
        }
    }

    /// A file descriptor that is no longer needed here and should be closed.
    pub fn poll_discarded(&mut self) -> Option<F> {
        self.discarded.pop()
    }

    /// What is to be sent now; tell [`handle_transmitted`](Self::handle_transmitted) how much was.
    pub fn transmit(&self) -> Option<Transmit<'_, F>> {
        self.sender.transmit()
    }

    /// How many bytes may be read from the socket now, and no more. Zero while a message waits for
    /// its turn, and after an error.
    pub fn wanted(&self) -> usize {
        if self.failed.is_some() { 0 } else { self.receiver.wanted() }
    }

    /// Virtio features that the front end has set.
    pub fn features(&self) -> u64 {
        self.declared.features
    }

    /// Protocol features that the front end has set.
    pub fn protocol_features(&self) -> u64 {
        self.declared.protocol_features
    }

    /// Whether writes to guest memory are to be logged.
    pub fn is_logging(&self) -> bool {
        self.declared.features & virtio_feature::LOG_ALL != 0
    }

    /// What is declared about every ring, in the order of their indexes.
    pub fn rings(&self) -> &[Ring] {
        &self.declared.rings
    }

    /// The memory regions that are declared now.
    pub fn memory(&self) -> &[MemoryRegion] {
        self.declared.memory.regions()
    }

    /// Turns the message in the receiver into a request, and answers it when it is not the owner's.
    fn dispatch(&mut self, header: &Header) -> Result<Option<Inbound<F>>, Violation> {
        let row = table::find(code(header)).expect("the header was checked");
        let (min, max) = row.fds;
        let count = self.receiver.fd_count();
        if !(min..=max).contains(&count) {
            return Err(Violation::FileDescriptors { count, min, max });
        }
        let mut fds = self.receiver.take_fds();
        let parsed = Request::parse(row, self.receiver.payload(), &mut fds);
        self.discarded.append(&mut fds);
        let payload = self.receiver.payload().to_vec();
        self.receiver.clear(&mut self.discarded);
        let request = parsed?;
        let before = self.declared.clone();
        let checked = self.declared.check(&self.offer, row, &request);
        if let Err(violation) = checked.and_then(|()| self.declared.apply(&self.offer, &request)) {
            self.discarded.extend(request.encode().fds);
            return Err(violation);
        }
        self.requests += 1;
        let need_reply = header.flags.get() & header_flag::NEED_REPLY != 0;
        let asked = Asked { row, ticket: self.requests, need_reply, payload, before };
        if self.answer_alone(&asked, &request) {
            return Ok(None);
        }
        let was = RingSet::running(&asked.before.rings);
        let is = RingSet::running(&self.declared.rings);
        let ticket = Ticket(asked.ticket);
        self.asked = Some(asked);
        Ok(Some(Inbound { ticket, request, starts: is.minus(&was), stops: was.minus(&is) }))
    }

    fn answer_alone(&mut self, asked: &Asked, request: &Request<F>) -> bool {
        let number = match request {
            Request::SetOwner | Request::SetProtocolFeatures(_) => {
                self.acknowledge(asked, 0);
                return true;
            }
            Request::GetConfig { offset, size, .. }
                if u64::from(*offset) + u64::from(*size) > CONFIG_BYTES_MAX as u64 =>
            {
                self.send(asked.row.code, &[], None);
                return true;
            }
            Request::GetFeatures => self.offer.all_features(),
            Request::GetProtocolFeatures => self.offer.protocol_features,
            Request::GetQueueNum => u64::from(self.offer.ring_count),
            Request::GetMaxMemSlots => self.offer.mem_slots_max as u64,
            _ => return false,
        };
        self.send(asked.row.code, &number.to_ne_bytes(), None);
        true
    }

    /// The answer that REPLY_ACK adds: zero for success.
    fn acknowledge(&mut self, asked: &Asked, result: u64) {
        let negotiated = self.declared.protocol_features & protocol_feature::REPLY_ACK != 0;
        if negotiated && asked.need_reply {
            self.send(asked.row.code, &result.to_ne_bytes(), None);
        }
    }

    fn refuse(&mut self, asked: Asked) {
        let negotiated = self.declared.protocol_features & protocol_feature::REPLY_ACK != 0;
        match asked.row.answer {
            Answer::Ack if negotiated && asked.need_reply => self.acknowledge(&asked, 1),
            // "Uses zero length of payload to indicate an error."
            Answer::Config => self.send(asked.row.code, &[], None),
            // An area of size zero is how other back ends say that they have none.
            Answer::Inflight => self.send_inflight(&asked, &InflightArea::default(), None),
            _ => self.fail(Subject::FrontEnd(asked.row.code), Violation::Refused),
        }
        self.declared = asked.before;
    }

    fn send_vring_base(&mut self, asked: &Asked, base: u16) {
        let (mut state, _) = VringState::read_from_prefix(&asked.payload)
            .expect("the table has checked the size of the request");
        state.num = u32::from(base).into();
        self.declared.rings[state.index.get() as usize].base = base;
        self.send(asked.row.code, state.as_bytes(), None);
    }

    /// Exactly the size asked for; what lies beyond the end of the device's space reads as zero.
    fn send_config(&mut self, asked: &Asked, space: &[u8]) {
        let (header, _) = request::read_config(&asked.payload).expect("it was parsed before");
        let (offset, flags) = (header.offset.get(), header.flags.get());
        let from = space.get(request::config_offset(offset) as usize..).unwrap_or_default();
        let mut bytes = vec![0; header.size.get() as usize];
        let known = from.len().min(bytes.len());
        bytes[..known].copy_from_slice(&from[..known]);
        // The answer repeats the offset as the front end wrote it.
        self.send(asked.row.code, &request::write_config(offset, flags, &bytes), None);
    }

    /// As long as the front end's own struct is.
    fn send_inflight(&mut self, asked: &Asked, area: &InflightArea, fd: Option<F>) {
        let mut payload = request::write_inflight(area);
        payload.truncate(asked.payload.len());
        self.send(asked.row.code, &payload, fd);
    }

    fn send(&mut self, code: FrontEndRequest, payload: &[u8], fd: Option<F>) {
        let size = u32::try_from(payload.len()).expect("an answer is short");
        let flags = header_flag::VERSION | header_flag::REPLY;
        let header = Header { request: code.0.into(), flags: flags.into(), size: size.into() };
        self.sender.queue(header, payload, fd.into_iter().collect());
    }

    fn fail(&mut self, subject: Subject, violation: Violation) {
        self.failed = Some(Error { subject, violation });
        self.receiver.clear(&mut self.discarded);
        self.sender.clear(&mut self.discarded);
    }
}

fn code(header: &Header) -> FrontEndRequest {
    FrontEndRequest(header.request.get())
}

fn subject(header: &Header) -> Subject {
    Subject::FrontEnd(code(header))
}

/// Everything that can be known before the payload is read.
fn check_header(header: &Header) -> Result<(), Violation> {
    check_flags(header, false)?;
    let row = table::find(code(header)).ok_or(Violation::Unsupported)?;
    let size = header.size.get();
    if !row.payload.accepts(size as usize) {
        return Err(Violation::PayloadSize { size, expected: row.payload.describe() });
    }
    Ok(())
}
