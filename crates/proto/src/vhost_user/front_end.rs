//! The front end's side of the vhost-user socket: what a VMM does, for tests and for our own
//! client.
//!
//! One request is under way at a time; each ends in exactly one [`Response`]. Requests that have no
//! answer of their own ask for an acknowledgement once REPLY_ACK is negotiated; before that they
//! are done when they are sent, and nobody knows how they went.

use super::error::{Error, Subject, Violation};
use super::framing::{Received, Receiver, Sender, Transmit, check_flags};
use super::request::{self, InflightArea, Request};
use super::table::{self, Answer, Row};
use wire::vhost_user::{
    FrontEndRequest, Header, INFLIGHT_PACKED_BYTES, Inflight, Log, VringState, header_flag,
    protocol_feature,
};
use zerocopy::FromBytes;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Response<F> {
    /// Carried out; or sent, where there is no acknowledgement.
    Done,
    /// The back end did not do it.
    Refused,
    /// To GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_MAX_MEM_SLOTS.
    Number(u64),
    /// To GET_VRING_BASE.
    VringBase(u16),
    /// To GET_CONFIG: exactly as many bytes as were asked for.
    Config(Vec<u8>),
    /// To GET_INFLIGHT_FD.
    Inflight(InflightArea, F),
}

/// A session as front end.
pub struct FrontEnd<F> {
    receiver: Receiver<F>,
    sender: Sender<F>,
    discarded: Vec<F>,
    protocol_features: u64,
    under_way: Option<UnderWay>,
    failed: Option<Error>,
}

struct UnderWay {
    row: &'static Row,
    /// Without an answer to come, the request ends when it is sent.
    awaits_answer: bool,
    payload_size: usize,
}

impl<F> Default for FrontEnd<F> {
    fn default() -> Self {
        Self {
            receiver: Receiver::new(),
            sender: Sender::new(),
            discarded: Vec::new(),
            protocol_features: 0,
            under_way: None,
            failed: None,
        }
    }
}

impl<F> FrontEnd<F> {
    /// Takes what was read from the socket: at most [`wanted`](Self::wanted) bytes, and the file
    /// descriptors that came with them.
    pub fn handle_input(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        if self.failed.is_some() {
            self.discarded.extend(fds);
            return;
        }
        if let Received::Header(header) = self.receiver.push(bytes, fds, &mut self.discarded) {
            match self.check_header(&header) {
                Ok(()) => self.receiver.expect_payload(header.size.get() as usize),
                Err(violation) => self.fail(subject(&header), violation),
            }
        }
    }

    /// So many bytes of [`transmit`](Self::transmit) were sent, its file descriptors with them.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.sender.handle_transmitted(count, &mut self.discarded);
    }

    /// Starts a request. Only when [`is_ready`](Self::is_ready).
    pub fn send(&mut self, request: Request<F>) {
        assert!(self.is_ready(), "one request at a time");
        let reply_ack = self.protocol_features & protocol_feature::REPLY_ACK != 0;
        if let Request::SetProtocolFeatures(features) = request {
            self.protocol_features = features;
        }
        let message = request.encode();
        let row = table::find(message.code).expect("every request has a row");
        let need_reply = reply_ack && row.answer == Answer::Ack;
        let flag = if need_reply { header_flag::NEED_REPLY } else { 0 };
        let size = u32::try_from(message.payload.len()).expect("a request is short");
        let header = Header {
            request: message.code.0.into(),
            flags: (header_flag::VERSION | flag).into(),
            size: size.into(),
        };
        self.sender.queue(header, &message.payload, message.fds);
        self.under_way = Some(UnderWay {
            row,
            awaits_answer: need_reply || row.answer != Answer::Ack,
            payload_size: message.payload.len(),
        });
    }

    /// How the request under way ended, once it has. An error ends the session.
    pub fn poll_response(&mut self) -> Result<Option<Response<F>>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let complete = self.receiver.wanted() == 0;
        match self.under_way.take_if(|it| self.sender.is_empty() && it.awaits_answer == complete) {
            None => Ok(None),
            Some(it) if !it.awaits_answer => Ok(Some(Response::Done)),
            Some(it) => match self.parse(it.row) {
                Ok(response) => Ok(Some(response)),
                Err(violation) => {
                    self.fail(Subject::FrontEnd(it.row.code), violation);
                    self.poll_response()
                }
            },
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

    /// How many bytes may be read from the socket now, and no more.
    pub fn wanted(&self) -> usize {
        if self.failed.is_some() { 0 } else { self.receiver.wanted() }
    }

    /// No request is under way.
    pub fn is_ready(&self) -> bool {
        self.failed.is_none() && self.under_way.is_none()
    }

    fn parse(&mut self, row: &Row) -> Result<Response<F>, Violation> {
        let max = usize::from(row.answer == Answer::Inflight);
        let count = self.receiver.fd_count();
        if count > max {
            return Err(Violation::FileDescriptors { count, min: 0, max });
        }
        let fd = self.receiver.take_fds().pop();
        let response = parse_response(row.answer, self.receiver.payload(), fd);
        self.receiver.clear(&mut self.discarded);
        response
    }

    fn check_header(&self, header: &Header) -> Result<(), Violation> {
        check_flags(header, true)?;
        let Some(it) = self.under_way.as_ref().filter(|it| it.awaits_answer) else {
            return Err(Violation::Unsolicited);
        };
        let expected = Subject::FrontEnd(it.row.code);
        if subject(header) != expected {
            return Err(Violation::ReplyMismatch { expected });
        }
        let size = header.size.get();
        match expected_size(it.row.answer, it.payload_size, size as usize) {
            Ok(()) => Ok(()),
            Err(expected) => Err(Violation::PayloadSize { size, expected }),
        }
    }

    fn fail(&mut self, subject: Subject, violation: Violation) {
        self.failed = Some(Error { subject, violation });
        self.receiver.clear(&mut self.discarded);
        self.sender.clear(&mut self.discarded);
    }
}

fn subject(header: &Header) -> Subject {
    Subject::FrontEnd(FrontEndRequest(header.request.get()))
}

/// Whether an answer may have this size; what belongs there if not.
fn expected_size(answer: Answer, request_size: usize, size: usize) -> Result<(), &'static str> {
    let (fits, expected) = match answer {
        Answer::Ack | Answer::U64 => (size == size_of::<u64>(), "8"),
        Answer::VringState => (size == size_of::<VringState>(), "8"),
        Answer::Config => (size == 0 || size == request_size, "as many as in the request, or none"),
        Answer::Inflight => {
            (size == size_of::<Inflight>() || size == INFLIGHT_PACKED_BYTES, "24 or 20")
        }
        Answer::Log => (size <= size_of::<Log>(), "at most 16"),
    };
    if fits { Ok(()) } else { Err(expected) }
}

fn parse_response<F>(
    answer: Answer,
    payload: &[u8],
    fd: Option<F>,
) -> Result<Response<F>, Violation> {
    Ok(match answer {
        Answer::Ack if request::read_u64(payload) != 0 => Response::Refused,
        Answer::Ack | Answer::Log => Response::Done,
        Answer::U64 => Response::Number(request::read_u64(payload)),
        Answer::VringState => {
            let (state, _) = VringState::read_from_prefix(payload).expect("the size was checked");
            let base = state.num.get();
            Response::VringBase(u16::try_from(base).map_err(|_| Violation::RingBase(base))?)
        }
        Answer::Config if payload.is_empty() => Response::Refused,
        Answer::Config => Response::Config(request::read_config(payload)?.1.to_vec()),
        Answer::Inflight => match (request::read_inflight(payload), fd) {
            (area, Some(fd)) if area.mmap_size > 0 => Response::Inflight(area, fd),
            _ => Response::Refused,
        },
    })
}
