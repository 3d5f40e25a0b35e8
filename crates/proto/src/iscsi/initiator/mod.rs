//! The initiator's side of a connection, which is a session.
//!
//! ```text
//!   new ──▶ login requests ──▶ LoggedIn ──▶ command, manage, ping, discover ──▶ logout ──▶ Ended
//!   command ──▶ next_pdu (header, immediate and unsolicited data) ──▶ R2T ──▶ next_pdu (data)
//!           ╰─▶ DataIn … ──▶ Done
//! ```
//!
//! It is used as the [`Target`](super::Target) is: input goes through `handle_input` until it is
//! idle, PDUs come from `next_pdu`, data stays with the owner. `login` is the login, `commands`
//! what is sent, `input` what arrives.

mod commands;
mod input;
mod login;
mod tasks;

pub use commands::{ManagementTag, NewCommand, NotNow, Segment};
pub use login::{Chap, LOGIN_RESPONSES_MAX};
pub use tasks::{COMMANDS_MAX, R2TS_MAX};

use super::accounts::SessionKind;
use super::chap::Nonce;
use super::digest::Digest;
use super::error::{Ended, Violation};
use super::parameters::{LOGIN_SEGMENT_BYTES, Parameters, Wishes};
use super::receive::{Fate, Receiver, Stage};
use super::serial::is_before;
use commands::Output;
use login::Login;
use tasks::{Task, Tasks};
use wire::iscsi::{
    AsyncEvent, Header, LogoutReason, Opcode, RejectReason, ScsiResponseCode, TaskFunction,
    TaskResponse,
};

/// What an initiator is and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub wishes: Wishes,
    pub name: String,
    pub isid: [u8; 6],
    pub kind: SessionKind,
    pub chap: Option<Chap>,
    /// Most commands under way, whatever window the target opens: 1 to [`COMMANDS_MAX`].
    pub commands: u16,
}

/// A command of this session, until it is done.
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
    /// Nothing more until `needed` bytes, those that were not consumed among them, are there.
    Idle {
        needed: usize,
    },
    /// Nothing more is taken before PDUs are taken from [`Initiator::next_pdu`].
    Blocked,
    LoggedIn,
    /// Data of a command follows in the input, or is still to be read: put it where it belongs and
    /// tell [`Initiator::handle_placed`].
    DataIn(DataIn),
    /// A command is over. Its sense data is [`Initiator::sense`] until the next call.
    Done {
        task: TaskId,
        outcome: Outcome,
    },
    /// [`Initiator::take_aborted`] has the commands that are over with it.
    Managed {
        tag: ManagementTag,
        response: TaskResponse,
    },
    /// The target has answered our [`ping`](Initiator::ping).
    Pong,
    /// [`Initiator::take_found`] has the answer to [`discover`](Initiator::discover).
    Found,
    /// The target tells something. Sense data of a SCSI event is [`Initiator::sense`].
    Told {
        event: AsyncEvent,
        parameters: [u16; 3],
    },
    /// The target refused a PDU of ours.
    Rejected {
        reason: RejectReason,
        refused: Refused,
    },
    /// It is over; [`Initiator::ended`] says why.
    Ended,
}

/// Data of a command is coming in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataIn {
    pub task: TaskId,
    /// Where in the command's data these bytes belong.
    pub offset: u32,
    pub length: u32,
}

/// What the target has refused, and will not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The PDU that began this command. The command is over when it is
    /// [forgotten](Initiator::forget); where only its data was damaged, its answer may follow.
    Command(TaskId),
    Management(ManagementTag),
    Discovery,
    Ping,
    Logout,
    /// Data of a command, which is answered itself, or something that nobody waits for.
    Other,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Anything but COMMAND_COMPLETED: there is no status.
    pub response: ScsiResponseCode,
    pub status: u8,
    /// Bytes of data-in that arrived.
    pub received: u32,
    pub residual: Residual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    None,
    /// So many bytes fewer than expected were transferred.
    Underflow(u32),
    /// So many bytes more would have been transferred.
    Overflow(u32),
}

/// A target that was found, with its addresses as they are to be used: `host:port,group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub addresses: Vec<String>,
}

pub struct Initiator {
    config: Config,
    parameters: Parameters,
    login: Option<Box<Login>>,
    receiver: Receiver,
    incoming: Option<Incoming>,
    collecting: Option<Header>,
    tasks: Tasks,
    output: Output,
    requests: Vec<Request>,
    next_tag: u32,
    cmd_sn: u32,
    max_cmd_sn: u32,
    exp_stat_sn: u32,
    tsih: u16,
    sense: Vec<u8>,
    found_text: Vec<u8>,
    found: Vec<Found>,
    aborted: Vec<TaskId>,
    is_new: bool,
    ended: Option<Ended>,
}

/// Data that is coming in, and the status that comes with it.
#[derive(Clone, Copy)]
struct Incoming {
    task: TaskId,
    offset: u32,
    left: u32,
    done: Option<Outcome>,
}

/// A request of ours that is no command and waits for its answer.
#[derive(Clone, Copy)]
struct Request {
    tag: u32,
    kind: RequestKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Management(Management),
    Ping,
    /// A ping that only takes a CmdSN.
    Filler,
    Text,
    Logout(LogoutReason),
}

/// What was asked of a target's task manager.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Management {
    function: TaskFunction,
    lun: [u8; 8],
    task: Option<TaskId>,
    cmd_sn: u32,
}

impl Management {
    /// Whether it ends this command: one that came before it (RFC 7143, 4.2.3.3).
    fn ends(&self, id: TaskId, task: &Task) -> bool {
        let is_earlier = is_before(task.cmd_sn, self.cmd_sn);
        match self.function {
            TaskFunction::ABORT_TASK => self.task == Some(id),
            TaskFunction::ABORT_TASK_SET
            | TaskFunction::CLEAR_TASK_SET
            | TaskFunction::LOGICAL_UNIT_RESET => is_earlier && task.lun == self.lun,
            TaskFunction::TARGET_WARM_RESET
            | TaskFunction::TARGET_COLD_RESET
            | TaskFunction::I_T_NEXUS_RESET => is_earlier,
            _ => false,
        }
    }
}

impl TaskId {
    /// Its place among the commands of the session, below the number that it was made for; another
    /// command's when it has ended.
    pub const fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

impl Initiator {
    /// A connection was made. `nonce` is random. The first request is there to be sent.
    pub fn new(mut config: Config, nonce: Nonce) -> Self {
        let r2ts = &mut config.wishes.max_outstanding_r2t;
        *r2ts = (*r2ts).min(R2TS_MAX as u32);
        assert!((1..=COMMANDS_MAX).contains(&config.commands), "{} commands", config.commands);
        let mut initiator = Self {
            parameters: Parameters::of_login(),
            login: None,
            receiver: Receiver::new(LOGIN_SEGMENT_BYTES),
            incoming: None,
            collecting: None,
            tasks: Tasks::new(config.commands),
            output: Output::new(config.commands),
            requests: Vec::new(),
            next_tag: 0,
            cmd_sn: 1,
            max_cmd_sn: 0,
            exp_stat_sn: 0,
            tsih: 0,
            sense: Vec::new(),
            found_text: Vec::new(),
            found: Vec::new(),
            aborted: Vec::new(),
            is_new: false,
            ended: None,
            config,
        };
        let login = Login::new(&initiator.config, nonce);
        initiator.begin_login(login);
        initiator
    }

    /// Takes what has arrived and is not consumed yet, up to the next event. Call it again, with
    /// what is left, until it is idle or blocked.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Progress {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            if self.ended.is_some() {
                return Progress { consumed: bytes.len(), event: Event::Ended };
            }
            let (count, event) = match self.receiver.stage() {
                Stage::Header => self.step_header(rest),
                Stage::Data { fate: Fate::Placed, .. } => (0, self.step_placed()),
                Stage::Data { .. } => match self.receiver.take(rest) {
                    0 => (0, Some(Event::Idle { needed: 1 })),
                    count => (count, None),
                },
                Stage::Tail => self.step_tail(rest),
            };
            consumed += count;
            if let Some(event) = event {
                return Progress { consumed, event };
            }
        }
    }

    /// `count` bytes of the [`data_in`](Self::data_in) that is coming in are where they belong, and
    /// consumed. `digest` is [`incoming_digest`](Self::incoming_digest) fed with them; it matters
    /// only when [`data_digest`](Self::data_digest) says so.
    pub fn handle_placed(&mut self, count: u32, digest: Digest) {
        self.receiver.placed(count, digest);
        if let Some(incoming) = &mut self.incoming {
            incoming.left = incoming.left.saturating_sub(count);
            incoming.offset = incoming.offset.wrapping_add(count);
        }
    }

    /// The digest over the data segment that is coming in, so far.
    pub fn incoming_digest(&self) -> Digest {
        self.receiver.digest()
    }

    /// Data that is coming in now: `length` bytes are left of it. Nothing when the command was
    /// forgotten meanwhile.
    pub fn data_in(&self) -> Option<DataIn> {
        let incoming = self.incoming.filter(|it| it.left > 0)?;
        self.tasks.get(incoming.task)?;
        Some(DataIn { task: incoming.task, offset: incoming.offset, length: incoming.left })
    }

    /// Whether data segments carry digests.
    pub fn data_digest(&self) -> bool {
        self.parameters.data_digest
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The handle that the target has given to the session.
    pub fn tsih(&self) -> u16 {
        self.tsih
    }

    /// Sense data of the last event that has some.
    pub fn sense(&self) -> &[u8] {
        &self.sense
    }

    pub fn take_found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.found)
    }

    /// The commands that the task management function which was just answered has ended: nothing
    /// more comes for them.
    pub fn take_aborted(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.aborted)
    }

    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    fn step_header(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        if self.output.is_full() {
            return (0, Some(Event::Blocked));
        }
        if std::mem::take(&mut self.is_new) {
            return (0, Some(Event::LoggedIn));
        }
        let arrived = match self.receiver.header(bytes) {
            Ok(Ok(arrived)) => arrived,
            Ok(Err(needed)) => return (0, Some(Event::Idle { needed })),
            Err(violation) => return (0, Some(self.violated(violation))),
        };
        let header = arrived.header;
        let handled = match (&self.login, arrived.ahs.is_empty()) {
            (_, false) => Err(Violation::Ahs),
            (Some(_), true) if header.opcode() != Opcode::LOGIN_RESPONSE => {
                Err(Violation::Opcode { opcode: header.opcode() })
            }
            (Some(_), true) => Ok(Fate::Collected),
            (None, true) => self.handle_header(header),
        };
        let fate = match handled {
            Ok(fate) => fate,
            Err(violation) => return (0, Some(self.violated(violation))),
        };
        if fate == Fate::Collected {
            self.collecting = Some(*header);
        }
        self.receiver.expect(header, fate);
        let event = if header.data_bytes() == 0 { self.handle_segment_end(true) } else { None };
        (arrived.length, event)
    }

    fn step_placed(&mut self) -> Option<Event> {
        match self.data_in() {
            Some(data) => Some(Event::DataIn(data)),
            None => {
                self.receiver.discard();
                None
            }
        }
    }

    fn step_tail(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        match self.receiver.tail(bytes) {
            Some((consumed, is_intact)) => (consumed, self.handle_segment_end(is_intact)),
            None => (0, Some(Event::Idle { needed: self.receiver.tail_bytes() })),
        }
    }

    fn handle_segment_end(&mut self, is_intact: bool) -> Option<Event> {
        if !is_intact {
            let opcode = self.collecting.map_or(Opcode::DATA_IN, |header| header.opcode());
            return Some(self.violated(Violation::DataDigest { opcode }));
        }
        let Some(header) = self.collecting.take() else { return self.handle_data_in_end() };
        let data = self.receiver.collected();
        let handled = match self.login.take() {
            Some(login) => self.handle_login(login, &header, &data),
            None => self.handle_collected(&header, &data),
        };
        self.receiver.give_back(data);
        match handled {
            Ok(_) if self.ended.is_some() => Some(Event::Ended),
            Ok(event) => event,
            Err(violation) => Some(self.violated(violation)),
        }
    }

    fn violated(&mut self, violation: Violation) -> Event {
        self.end(Ended::Violation(violation));
        Event::Ended
    }

    fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }
}
