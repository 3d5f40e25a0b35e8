//! The owner of a target: it accepts all data, keeps it, answers what the test tells it to, and
//! reads what the target sends, always through the same calls that the front end uses.

use super::{Digests, Received, TARGET, decode};
use proto::iscsi::{
    Accounts, Admission, Answer, Authentication, Config, DataFault, Digest, Event,
    HEADER_BYTES_MAX, Head, Portal, Refusal, Segment, SessionKind, Target, TargetRecord, TaskId,
    Wishes,
};
use std::collections::HashMap;
use std::rc::Rc;
use wire::iscsi::LoginStatus;

const NONCE: [u8; 33] = [0x5a; 33];

pub fn config() -> Config {
    Config { wishes: Wishes::default(), portal_group_tag: 1, alias: None, window: 8 }
}

/// One initiator, some targets.
pub struct Known {
    pub authentication: Authentication,
    pub targets: Vec<TargetRecord>,
}

impl Default for Known {
    fn default() -> Self {
        let portals = vec![
            Portal { address: "192.0.2.1:3260".parse().unwrap(), group_tag: 1 },
            Portal { address: "[2001:db8::1]:3261".parse().unwrap(), group_tag: 2 },
        ];
        let targets = vec![TargetRecord { name: TARGET.into(), portals }];
        Self { authentication: Authentication::None, targets }
    }
}

impl Accounts for Known {
    fn authentication(
        &self,
        initiator: &str,
        target: Option<&str>,
    ) -> Result<Authentication, Refusal> {
        if initiator != super::INITIATOR {
            return Err(Refusal::Status(LoginStatus::AUTHORIZATION_FAILURE));
        }
        match target {
            Some("iqn.2026-11.org.viaduct:moved") => {
                Err(Refusal::Moved { address: "[2001:db8::9]:3260".into(), permanently: false })
            }
            Some(name) if !self.targets.iter().any(|it| it.name == name) => {
                Err(Refusal::Status(LoginStatus::NOT_FOUND))
            }
            _ => Ok(self.authentication.clone()),
        }
    }

    fn targets(&self, _initiator: &str) -> Vec<TargetRecord> {
        self.targets.clone()
    }
}

pub struct Host {
    pub target: Target,
    pub admission: Admission,
    pub digests: Digests,
    /// Events but Idle, DataOut and Admit.
    pub events: Vec<Event>,
    /// Data that has arrived, by task.
    pub data: HashMap<TaskId, Vec<u8>>,
    /// What the commands have read.
    pub reads: HashMap<TaskId, Vec<u8>>,
    /// Bytes of each command that are accepted at most.
    pub accepts: u32,
    /// Most bytes that a read from the socket gives.
    pub chunk: usize,
    /// The stream is cut once more, before this byte of it.
    pub cut: Option<usize>,
    /// Commands are done at once, on this disk: READ and WRITE with addresses in bytes.
    pub disk: Option<Vec<u8>>,
    input: Vec<u8>,
    pub longest_wait: usize,
}

impl Host {
    pub fn new(config: Config, known: Known) -> Self {
        Self {
            target: Target::new(config, Rc::new(known), NONCE),
            admission: Admission::Granted { tsih: 0x77 },
            digests: Digests::default(),
            events: Vec::new(),
            data: HashMap::new(),
            reads: HashMap::new(),
            accepts: u32::MAX,
            chunk: usize::MAX,
            cut: None,
            disk: None,
            input: Vec::new(),
            longest_wait: 0,
        }
    }

    /// A session that begins with the operational stage and agrees on `keys`.
    pub fn logged_in(config: Config, keys: &[(&str, &str)]) -> Self {
        let mut host = Self::new(config, Known::default());
        let pairs = [&super::NAMES[..], keys].concat();
        let answers = host.send(&super::plain(&super::login(1, Some(3)), &super::text(&pairs)));
        assert_eq!(answers[0].view::<wire::iscsi::LoginResponse>().status.get(), 0);
        assert_eq!(std::mem::take(&mut host.events), [Event::LoggedIn]);
        let parameters = host.target.parameters();
        host.digests = Digests { header: parameters.header_digest, data: parameters.data_digest };
        host
    }

    /// Bytes arrive; what the target has to say to them.
    pub fn send(&mut self, bytes: &[u8]) -> Vec<Received> {
        self.arrive(bytes);
        self.receive()
    }

    /// Bytes arrive, in pieces.
    pub fn arrive(&mut self, bytes: &[u8]) {
        let cut = self.cut.filter(|cut| *cut < bytes.len());
        self.cut = self.cut.map(|cut| cut.wrapping_sub(bytes.len()));
        let (first, second) = bytes.split_at(cut.unwrap_or(0));
        self.arrive_chunked(first);
        self.arrive_chunked(second);
    }

    fn arrive_chunked(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.chunk) {
            self.input.extend_from_slice(piece);
            self.read();
        }
    }

    /// What has arrived is handled as far as it goes.
    pub fn read(&mut self) {
        let mut at = 0;
        loop {
            let progress = self.target.handle_input(&self.input[at..]);
            at += progress.consumed;
            match progress.event {
                Event::Idle { needed } => {
                    assert!(needed > self.input.len() - at && needed <= HEADER_BYTES_MAX);
                    self.longest_wait = self.longest_wait.max(self.input.len() - at);
                    break;
                }
                Event::DataOut(_) => match self.place(at) {
                    0 => break,
                    count => at += count,
                },
                Event::Admit => {
                    let question = self.target.admission().unwrap();
                    let is_known = question.kind == SessionKind::Discovery
                        || question.kind == SessionKind::Normal { target: TARGET.into() };
                    assert!(is_known && question.initiator == super::INITIATOR);
                    self.target.admit(&self.admission.clone());
                }
                Event::Command { task, receives } => {
                    self.note(progress.event);
                    if receives {
                        self.data.insert(task, Vec::new());
                        if self.target.accept(task, self.accepts) {
                            self.note(Event::DataEnd { task, fault: None });
                        }
                    }
                }
                Event::Ended | Event::Blocked => {
                    if self.events.last() != Some(&progress.event) {
                        self.events.push(progress.event);
                    }
                    break;
                }
                event => self.note(event),
            }
        }
        self.input.drain(..at);
    }

    /// Keeps an event for the test, or does what it asks for.
    fn note(&mut self, event: Event) {
        match (event, self.disk.is_some()) {
            (Event::Command { receives: true, .. }, true) => {}
            (Event::Command { task, .. } | Event::DataEnd { task, fault: None }, true) => {
                self.run(task);
            }
            (Event::Logout, true) => self.target.settle_logout(),
            _ => self.events.push(event),
        }
    }

    fn run(&mut self, task: TaskId) {
        let command = self.target.command(task).unwrap();
        let at = u32::from_be_bytes(command.cdb[2..6].try_into().unwrap()) as usize;
        let expected = command.expected as usize;
        let disk = self.disk.as_mut().unwrap();
        let moved = match command.cdb[0] {
            0x28 => {
                self.reads.insert(task, disk[at..at + expected].to_vec());
                expected as u32
            }
            0x2a => {
                let data = self.data.remove(&task).unwrap_or_default();
                assert_eq!(data.len(), expected);
                disk[at..at + expected].copy_from_slice(&data);
                expected as u32
            }
            _ => 0,
        };
        let answer = Answer { status: 0, moved, wanted: u64::from(moved), sense: &[] };
        self.target.respond(task, &answer);
    }

    /// Moves data to its command, as much as is there.
    fn place(&mut self, at: usize) -> usize {
        let wanted = self.target.data_out().unwrap();
        let there = &self.input[at..];
        let count = there.len().min(wanted.length as usize);
        let memory = self.data.entry(wanted.task).or_default();
        assert_eq!(memory.len(), wanted.offset as usize, "data comes in order");
        memory.extend_from_slice(&there[..count]);
        let digest = self.target.incoming_digest().update(&there[..count]);
        self.target.handle_placed(count as u32, digest);
        count
    }

    /// The only command in the events, which are taken.
    #[track_caller]
    pub fn command(&mut self) -> TaskId {
        match std::mem::take(&mut self.events)[..] {
            [Event::Command { task, .. }] => task,
            ref events => panic!("{events:?}"),
        }
    }

    /// The only command in the events, whose data has come to its end.
    #[track_caller]
    pub fn written(&mut self) -> (TaskId, Option<DataFault>) {
        match std::mem::take(&mut self.events)[..] {
            [Event::Command { task, .. }, Event::DataEnd { task: ended, fault }]
                if task == ended =>
            {
                (task, fault)
            }
            ref events => panic!("{events:?}"),
        }
    }

    /// The command has read this; what the initiator is sent.
    pub fn respond_read(&mut self, task: TaskId, data: &[u8]) -> Vec<Received> {
        self.respond_read_unsent(task, data);
        self.receive()
    }

    pub fn respond_read_unsent(&mut self, task: TaskId, data: &[u8]) {
        self.reads.insert(task, data.to_vec());
        let moved = data.len() as u32;
        let answer = Answer { status: 0, moved, wanted: data.len() as u64, sense: &[] };
        self.target.respond(task, &answer);
    }

    /// Everything that the target has to send, as PDUs.
    pub fn receive(&mut self) -> Vec<Received> {
        decode(&self.transmit(), self.digests)
    }

    /// Everything that the target has to send.
    pub fn transmit(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut head = Head::new();
        while let Some(segment) = self.target.next_pdu(&mut head) {
            bytes.extend_from_slice(head.as_bytes());
            match segment {
                Segment::Bytes(data) => bytes.extend_from_slice(data),
                Segment::DataIn { task, offset, length } => {
                    let (from, to) = (offset as usize, (offset + length) as usize);
                    let data = &self.reads[&task][from..to];
                    bytes.extend_from_slice(data);
                    let digest = Digest::new().update(data);
                    bytes.extend_from_slice(self.target.trailer(length, digest).as_bytes());
                }
            }
        }
        assert!(!self.target.has_pdus());
        bytes
    }
}
