//! The target's side of a connection, which is a session.
//!
//! ```text
//!            ╭──────────── login ────────────╮
//!   accepted ──▶ texts ──▶ Admit ──▶ LoggedIn ──▶ commands ──▶ Logout ──▶ Ended
//!                  ╰── refused ─────────────────── violation ───────────────╯
//!
//!   Command ──▶ accept ──▶ DataOut … ──▶ DataEnd ──▶ the owner runs it ──▶ respond ──▶ next_pdu
//!      ╰────────────── no data from the initiator ───────╯      ╰──▶ abort (nothing is sent)
//! ```
//!
//! The owner calls [`handle_input`](Target::handle_input) until it is [`Idle`](Event::Idle), and
//! takes PDUs from [`next_pdu`](Target::next_pdu) when it can send. Everything else is a command of
//! the owner's. `tasks` is the slab, `data_out` what initiators send, `output` what they are sent,
//! `commands` the rest of the full feature phase, `login` and `text` the negotiation.

mod commands;
mod data_out;
mod login;
mod manage;
mod output;
mod tasks;
mod text_exchange;

pub use commands::{Answer, Command, Direction};
pub use data_out::{DataFault, DataOut};
pub use login::LOGIN_REQUESTS_MAX;
pub use manage::{AsyncMessage, Management, ManagementId};
pub use output::{CONTROL_BYTES_MAX, CONTROLS_MAX, Segment};
pub use tasks::{IMMEDIATE_MAX, WINDOW_MAX};
pub use text_exchange::TEXT_ANSWER_BYTES_MAX;

use super::accounts::{Accounts, Admission, Admit, SessionKind};
use super::chap::Nonce;
use super::digest::Digest;
use super::error::{Ended, Violation};
use super::parameters::{LOGIN_SEGMENT_BYTES, Parameters, Wishes};
use super::receive::{Fate, Receiver, Stage};
use data_out::Incoming;
use login::Login;
use manage::Managements;
use output::Output;
use std::rc::Rc;
use tasks::Tasks;
use text_exchange::TextExchange;
use wire::iscsi::{Header, Opcode, RejectReason};

/// What a target is like; the same for all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub wishes: Wishes,
    /// Of the portal that the connection came in through.
    pub portal_group_tag: u16,
    pub alias: Option<String>,
    /// Commands that an initiator may have under way: 1 to [`WINDOW_MAX`].
    pub window: u16,
}

/// A SCSI command of this session. It names the command until it is aborted or its answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId(u32);

/// What came of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes of the input are done with.
    pub consumed: usize,
    pub event: Event,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing more until `needed` bytes, those that were not consumed among them, are there. Never
    /// more than [`HEADER_BYTES_MAX`](super::HEADER_BYTES_MAX).
    Idle { needed: usize },
    /// Nothing more is taken before PDUs are taken from [`Target::next_pdu`], or before the owner
    /// has accepted the data of the command that it was told of.
    Blocked,
    /// The login waits for [`Target::admit`] to answer [`Target::admission`].
    Admit,
    /// The full feature phase has begun.
    LoggedIn,
    /// A command; [`Target::command`] is all of it. When it `receives` data, the owner is to
    /// [`accept`](Target::accept) that; otherwise it may run.
    Command { task: TaskId, receives: bool },
    /// Data of a command follows in the input, or is still to be read: put it where it belongs and
    /// tell [`Target::handle_placed`].
    DataOut(DataOut),
    /// All data of the command that was accepted is here, or will never be.
    DataEnd { task: TaskId, fault: Option<DataFault> },
    /// Task management: do it, abort what it aborts, and [`manage`](Target::manage) the answer.
    Manage(ManagementId),
    /// The initiator has answered our [`ping`](Target::ping).
    Pong,
    /// The initiator logs out: abort all [`tasks`](Target::tasks), and then
    /// [`settle_logout`](Target::settle_logout). It is told so when no task is left.
    Logout,
    /// It is over: abort all tasks, send what [`Target::next_pdu`] still has, close the connection.
    /// [`Target::ended`] says why.
    Ended,
}

pub struct Target {
    config: Config,
    accounts: Rc<dyn Accounts>,
    parameters: Parameters,
    phase: Phase,
    session: Option<Session>,
    receiver: Receiver,
    incoming: Option<Incoming>,
    /// The header of the PDU whose data is collected.
    collecting: Option<Header>,
    tasks: Tasks,
    managements: Managements,
    text: TextExchange,
    output: Output,
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    advertised_max_cmd_sn: u32,
    /// Immediate commands under way.
    immediate: u16,
    ping: Option<u32>,
    pings: u32,
    logout: Option<manage::Logout>,
    /// The owner is yet to be told that the session has begun.
    is_new: bool,
    ended: Option<Ended>,
}

enum Phase {
    Login(Box<Login>),
    /// Waits for the owner.
    Asked(Box<Login>),
    FullFeature,
}

/// Who is logged in to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub initiator: String,
    pub isid: [u8; 6],
    pub tsih: u16,
    pub cid: u16,
    pub kind: SessionKind,
}

impl Target {
    /// A connection was accepted. `nonce` is random.
    pub fn new(config: Config, accounts: Rc<dyn Accounts>, nonce: Nonce) -> Self {
        assert!((1..=WINDOW_MAX).contains(&config.window), "a window of {}", config.window);
        let slots = config.window + IMMEDIATE_MAX;
        let login = Login::new(&config, nonce);
        Self {
            config,
            accounts,
            parameters: Parameters::of_login(),
            phase: Phase::Login(Box::new(login)),
            session: None,
            receiver: Receiver::new(LOGIN_SEGMENT_BYTES),
            incoming: None,
            collecting: None,
            tasks: Tasks::new(slots),
            managements: Managements::default(),
            text: TextExchange::default(),
            output: Output::new(slots),
            stat_sn: 0,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            advertised_max_cmd_sn: 0,
            immediate: 0,
            ping: None,
            pings: 0,
            logout: None,
            is_new: false,
            ended: None,
        }
    }

    /// Takes what has arrived and is not consumed yet, up to the next event. Call it again, with
    /// what is left, until it is idle or blocked.
    #[inline]
    pub fn handle_input(&mut self, bytes: &[u8]) -> Progress {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            if self.ended.is_some() {
                return Progress { consumed: bytes.len(), event: Event::Ended };
            }
            let step = match self.receiver.stage() {
                Stage::Header => self.step_header(rest),
                Stage::Data { fate: Fate::Placed, .. } => self.step_placed(),
                Stage::Data { .. } => self.step_data(rest),
                Stage::Tail => self.step_tail(rest),
            };
            consumed += step.consumed;
            if let Some(event) = step.event {
                return Progress { consumed, event };
            }
        }
    }

    /// `count` bytes of the [`data_out`](Self::data_out) that is coming in are where they belong,
    /// and consumed. `digest` is [`incoming_digest`](Self::incoming_digest) fed with them; it
    /// matters only when [`data_digest`](Self::data_digest) says so.
    pub fn handle_placed(&mut self, count: u32, digest: Digest) {
        self.receiver.placed(count, digest);
        if let Some(incoming) = &mut self.incoming {
            incoming.keep = incoming.keep.saturating_sub(count);
            incoming.offset = incoming.offset.wrapping_add(count);
        }
    }

    /// The digest over the data segment that is coming in, so far.
    pub fn incoming_digest(&self) -> Digest {
        self.receiver.digest()
    }

    /// The question that [`Event::Admit`] stands for.
    pub fn admission(&self) -> Option<Admit> {
        match &self.phase {
            Phase::Asked(login) => Some(login.question()),
            _ => None,
        }
    }

    /// The owner's answer to it.
    pub fn admit(&mut self, admission: &Admission) {
        let Phase::Asked(login) = std::mem::replace(&mut self.phase, Phase::FullFeature) else {
            panic!("nobody asked for admission");
        };
        self.finish_login(*login, admission);
    }

    /// What was agreed on; before the end of the login, what holds without agreement.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Who has logged in.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The name of the initiator as far as it is known during the login, for the owner's record.
    pub fn initiator(&self) -> Option<&str> {
        match (&self.session, &self.phase) {
            (Some(session), _) => Some(&session.initiator),
            (None, Phase::Login(login) | Phase::Asked(login)) => login.initiator(),
            (None, Phase::FullFeature) => None,
        }
    }

    /// The target that the session is with, or that the login asks for.
    pub fn target(&self) -> Option<&str> {
        match (&self.session, &self.phase) {
            (Some(Session { kind: SessionKind::Normal { target }, .. }), _) => Some(target),
            (None, Phase::Login(login) | Phase::Asked(login)) => login.target(),
            _ => None,
        }
    }

    /// Commands that may be under way at a time, immediate ones among them.
    pub fn task_slots(&self) -> usize {
        usize::from(self.config.window + IMMEDIATE_MAX)
    }

    /// Why it is over.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    fn step_header(&mut self, bytes: &[u8]) -> Step {
        if self.output.is_full() {
            return Step::event(Event::Blocked);
        }
        if matches!(self.phase, Phase::Asked(_)) {
            return Step::event(Event::Admit);
        }
        if std::mem::take(&mut self.is_new) {
            return Step::event(Event::LoggedIn);
        }
        let arrived = match self.receiver.header(bytes) {
            Ok(Ok(arrived)) => arrived,
            Ok(Err(needed)) => return Step::event(Event::Idle { needed }),
            Err(violation) => return self.refuse_header(bytes, violation),
        };
        let header = arrived.header;
        if header.opcode() == Opcode::DATA_OUT && self.is_too_early(header) {
            return Step::event(Event::Blocked);
        }
        let (fate, event) = match self.phase {
            Phase::FullFeature => self.handle_header(header, arrived.ahs),
            _ => self.handle_login_header(header),
        };
        self.receiver.expect(header, fate);
        if self.ended.is_some() {
            return Step::event(Event::Ended);
        }
        let event = match (header.data_bytes(), event) {
            (0, None) => self.handle_segment_end(true),
            (_, event) => event,
        };
        Step { consumed: arrived.length, event }
    }

    /// A header that cannot be right. When its own digest was wrong, it is not even known what it
    /// was; otherwise the initiator is told before the connection is closed.
    fn refuse_header(&mut self, bytes: &[u8], violation: Violation) -> Step {
        let is_known = violation != Violation::HeaderDigest;
        if let (true, Phase::FullFeature, Ok((header, _))) =
            (is_known, &self.phase, <Header as zerocopy::FromBytes>::read_from_prefix(bytes))
        {
            self.reject(&header, RejectReason::PROTOCOL_ERROR);
        }
        self.end(Ended::Violation(violation));
        Step::event(Event::Ended)
    }

    fn step_placed(&mut self) -> Step {
        let incoming = self.incoming.as_ref().expect("placed data belongs to a task");
        let task = self.tasks.get(incoming.task).filter(|task| task.is_with_owner());
        if task.is_some_and(|task| !task.data_out.accepted) {
            return Step::event(Event::Blocked);
        }
        match self.data_out() {
            Some(data) => Step::event(Event::DataOut(data)),
            None => {
                self.receiver.discard();
                Step::default()
            }
        }
    }

    fn step_data(&mut self, bytes: &[u8]) -> Step {
        match self.receiver.take(bytes) {
            0 => Step::event(Event::Idle { needed: 1 }),
            consumed => Step { consumed, event: None },
        }
    }

    fn step_tail(&mut self, bytes: &[u8]) -> Step {
        match self.receiver.tail(bytes) {
            Some((consumed, is_intact)) => {
                Step { consumed, event: self.handle_segment_end(is_intact) }
            }
            None => Step::event(Event::Idle { needed: self.receiver.tail_bytes() }),
        }
    }

    /// The data segment of a PDU is over.
    fn handle_segment_end(&mut self, is_intact: bool) -> Option<Event> {
        let Some(header) = self.collecting.take() else {
            return self.handle_data_out_end(is_intact);
        };
        if !is_intact {
            // What was asked is not known, and a gap in CmdSN cannot be closed at this level.
            self.reject(&header, RejectReason::DATA_DIGEST_ERROR);
            self.end(Ended::Violation(Violation::DataDigest { opcode: header.opcode() }));
            return Some(Event::Ended);
        }
        let data = self.receiver.collected();
        let event = match self.phase {
            Phase::FullFeature => self.handle_collected(&header, &data),
            _ => self.handle_login(&header, &data),
        };
        self.receiver.give_back(data);
        if self.ended.is_some() { Some(Event::Ended) } else { event }
    }

    fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }
}

/// A step of reading.
#[derive(Default)]
struct Step {
    consumed: usize,
    event: Option<Event>,
}

impl Step {
    fn event(event: Event) -> Self {
        Self { consumed: 0, event: Some(event) }
    }
}
