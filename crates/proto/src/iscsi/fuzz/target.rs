//! An initiator of the worst kind, after its login, and an owner who answers in any order.

use super::{INITIATOR, Numbers, Script, TARGET, login_request, pdu_bytes, with_text};
use crate::iscsi::{
    Accounts, Admission, Answer, AsyncMessage, Authentication, Config, DataOut, Ended, Event,
    HEADER_BYTES_MAX, Head, IMMEDIATE_MAX, Refusal, Segment, Target, TargetRecord, TaskId, Wishes,
    text,
};
use std::collections::HashMap;
use std::rc::Rc;
use wire::iscsi::{
    DataOut as DataOutPdu, LogoutRequest, NopOut, Opcode, R2t, ScsiCommand, Snack,
    TaskManagementRequest, TaskResponse, TextRequest, flag, key,
};
use zerocopy::FromBytes;

const WINDOW: u16 = 6;

/// What a script got to, so that tests can tell whether it got anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub commands: usize,
    pub written: usize,
    pub faults: usize,
    pub managements: usize,
    pub answers: usize,
    pub rejects: usize,
    pub has_ended: bool,
}

struct Open;

impl Accounts for Open {
    fn authentication(&self, _: &str, _: Option<&str>) -> Result<Authentication, Refusal> {
        Ok(Authentication::None)
    }

    fn targets(&self, _: &str) -> Vec<TargetRecord> {
        vec![TargetRecord { name: TARGET.into(), portals: Vec::new() }]
    }
}

struct Session {
    target: Target,
    line: Vec<u8>,
    digests: bool,
    cmd_sn: u32,
    tag: u32,
    /// R2Ts that were seen: tags, offset and length.
    asked: Vec<R2t>,
    /// Commands that may be answered, and how much data of each was accepted and has come.
    ready: Vec<TaskId>,
    wants: HashMap<TaskId, (u32, u32)>,
    numbers: Numbers,
    reached: Reached,
}

/// Runs a script.
pub fn target(script: &[u8]) -> Reached {
    let mut script = Script(script);
    let mut session = Session::begin(&mut script);
    while let Some(step) = script.next() {
        match step % 16 {
            0..10 => session.say(step, &mut script),
            10..12 => session.answer(&mut script),
            12..15 => session.send(if step & 16 == 0 { usize::MAX } else { script.below(4) }),
            _ => session.interfere(&mut script),
        }
        session.read();
        session.check();
    }
    session.reached.has_ended = session.target.ended().is_some();
    session.reached
}

impl Session {
    fn begin(script: &mut Script<'_>) -> Self {
        let config = Config {
            wishes: Wishes { max_recv_data_segment_length: 8192, ..Wishes::default() },
            portal_group_tag: 1,
            alias: None,
            window: WINDOW,
        };
        let digests = script.one_in(3);
        let choice = |chosen: bool| if chosen { key::YES } else { key::NO };
        let digest = if digests { key::CRC32C } else { key::NONE };
        let mut login = Vec::new();
        for (name, value) in [
            (key::INITIATOR_NAME, INITIATOR),
            (key::SESSION_TYPE, if script.one_in(16) { key::DISCOVERY } else { key::NORMAL }),
            (key::TARGET_NAME, TARGET),
            (key::HEADER_DIGEST, digest),
            (key::DATA_DIGEST, digest),
            (key::INITIAL_R2T, choice(script.one_in(2))),
            (key::IMMEDIATE_DATA, choice(script.below(4) > 0)),
            (key::MAX_BURST_LENGTH, "1024"),
            (key::FIRST_BURST_LENGTH, "512"),
            (key::MAX_OUTSTANDING_R2T, "3"),
            (key::ISCSI_PROTOCOL_LEVEL, "2"),
        ] {
            text::push(&mut login, name, value);
        }
        let mut target = Target::new(config, Rc::new(Open), [7; 33]);
        let bytes = with_text(&login_request(0x87), &login);
        let asked = target.handle_input(&bytes);
        assert_eq!((asked.consumed, asked.event), (bytes.len(), Event::Admit));
        target.admit(&Admission::Granted { tsih: 1 });
        assert_eq!(target.handle_input(&[]).event, Event::LoggedIn);
        assert!(target.next_pdu(&mut Head::new()).is_some());
        Self {
            target,
            line: Vec::new(),
            digests,
            cmd_sn: 1,
            tag: 1,
            asked: Vec::new(),
            ready: Vec::new(),
            wants: HashMap::new(),
            numbers: Numbers::default(),
            reached: Reached::default(),
        }
    }

    /// The initiator says something that is often right.
    fn say(&mut self, step: u8, script: &mut Script<'_>) {
        let opcode = if step & 0x80 == 0 { 0 } else { flag::IMMEDIATE };
        let tag = if script.one_in(12) { script.word() } else { self.tag };
        let sn = if script.one_in(24) { script.word() } else { self.cmd_sn };
        let counts = opcode == 0;
        let digests = self.digests;
        let bytes = match step % 10 {
            0..4 => {
                self.tag += 1;
                let (flags, length) = (script.word() as u8, script.word() & 0x1fff);
                let flags = if step & 0x10 == 0 { flags } else { [0xa1, 0xc1][script.below(2)] };
                let pdu = ScsiCommand {
                    opcode: Opcode::SCSI_COMMAND.0 | opcode,
                    flags,
                    initiator_task_tag: tag.into(),
                    expected_data_transfer_length: length.into(),
                    cmd_sn: sn.into(),
                    ..ScsiCommand::default()
                };
                let data = if flags & flag::WRITE == 0 { 0 } else { script.word() & 0x3ff };
                pdu_bytes(&pdu, data as usize, digests, script)
            }
            4..7 => return self.say_data(script),
            7 => {
                let pdu = NopOut {
                    opcode: Opcode::NOP_OUT.0 | opcode,
                    initiator_task_tag: script.word().into(),
                    target_transfer_tag: script.word().into(),
                    cmd_sn: sn.into(),
                    exp_stat_sn: script.word().into(),
                    ..NopOut::default()
                };
                let data = script.word() & 0x3ff;
                pdu_bytes(&pdu, data as usize, digests, script)
            }
            8 => {
                let pdu = TaskManagementRequest {
                    opcode: Opcode::TASK_MANAGEMENT_REQUEST.0 | opcode,
                    function: flag::FINAL | (script.word() as u8 & 15),
                    initiator_task_tag: tag.into(),
                    referenced_task_tag: self.tag.saturating_sub(script.word() & 7).into(),
                    cmd_sn: sn.into(),
                    ..TaskManagementRequest::default()
                };
                pdu_bytes(&pdu, 0, digests, script)
            }
            _ => return self.say_rare(script, sn),
        };
        self.cmd_sn += u32::from(counts);
        self.line.extend(bytes);
    }

    fn say_data(&mut self, script: &mut Script<'_>) {
        let digests = self.digests;
        let asked = match self.asked.len() {
            0 => None,
            _ if script.one_in(4) => None,
            _ => Some(self.asked.remove(0)),
        };
        let (transfer, tag, offset, length) = match asked {
            Some(r2t) => (
                r2t.target_transfer_tag.get(),
                r2t.initiator_task_tag.get(),
                r2t.buffer_offset.get(),
                r2t.desired_data_transfer_length.get(),
            ),
            None => (u32::MAX, self.tag - 1, script.word() & 0x1ff, script.word() & 0x1ff),
        };
        let length = if script.one_in(8) { script.word() & 0x3ff } else { length };
        let pdu = DataOutPdu {
            flags: if script.one_in(6) { 0 } else { flag::FINAL },
            initiator_task_tag: tag.into(),
            target_transfer_tag: transfer.into(),
            data_sn: if script.one_in(12) { script.word() } else { 0 }.into(),
            buffer_offset: offset.into(),
            ..DataOutPdu::default()
        };
        let bytes = pdu_bytes(&pdu, length as usize, digests, script);
        self.line.extend(bytes);
    }

    fn say_rare(&mut self, script: &mut Script<'_>, sn: u32) {
        let digests = self.digests;
        let bytes = match script.below(16) {
            0..8 => {
                let pdu = TextRequest {
                    flags: [0x80, 0x80, 0, 0x40, 0xc0][script.below(5)],
                    initiator_task_tag: 5.into(),
                    target_transfer_tag: script.word().into(),
                    cmd_sn: sn.into(),
                    ..TextRequest::default()
                };
                self.cmd_sn += 1;
                let length = script.below(64);
                pdu_bytes(&pdu, length, digests, script)
            }
            8..12 => pdu_bytes(&Snack::default(), 0, digests, script),
            12 => {
                let pdu = LogoutRequest {
                    reason: 0x80 | script.below(4) as u8,
                    cmd_sn: sn.into(),
                    ..LogoutRequest::default()
                };
                self.cmd_sn += 1;
                pdu_bytes(&pdu, 0, digests, script)
            }
            _ => script.take(50).to_vec(),
        };
        self.line.extend(bytes);
    }

    /// The owner answers or aborts one of the commands that are ready.
    fn answer(&mut self, script: &mut Script<'_>) {
        if self.ready.is_empty() {
            return;
        }
        let task = self.ready.remove(script.below(self.ready.len()));
        if script.one_in(6) {
            self.target.abort(task);
            return;
        }
        let (moved, wanted) = (script.word() & 0x1fff, u64::from(script.word()));
        let sense_bytes = if script.one_in(5) { 18 } else { 0 };
        let sense = script.take(sense_bytes);
        let status = if sense.is_empty() { 0 } else { 2 };
        self.target.respond(task, &Answer { status, moved, wanted, sense });
    }

    /// The owner takes PDUs to be sent.
    fn send(&mut self, count: usize) {
        let mut head = Head::new();
        for _ in 0..count {
            let Some(segment) = self.target.next_pdu(&mut head) else { return };
            if let Segment::DataIn { length, .. } = segment {
                assert!(length > 0 && length <= 8192);
            }
            let header = head.as_bytes();
            self.numbers.check(header);
            match Opcode(header[0]) {
                Opcode::R2T => {
                    let r2t = R2t::read_from_prefix(header).expect("a head is a header").0;
                    let length = r2t.desired_data_transfer_length.get();
                    assert!(length > 0 && length <= 1024);
                    self.asked.push(r2t);
                }
                Opcode::REJECT => self.reached.rejects += 1,
                Opcode::DATA_IN | Opcode::SCSI_RESPONSE => self.reached.answers += 1,
                _ => {}
            }
        }
    }

    /// Something happens that the initiator did not ask for.
    fn interfere(&mut self, script: &mut Script<'_>) {
        match script.below(32) {
            0..12 => drop(self.target.ping()),
            12..24 => {
                let tasks: Vec<TaskId> = self.target.tasks().collect();
                if !tasks.is_empty() {
                    self.target.abort(tasks[script.below(tasks.len())]);
                }
            }
            24..31 => self.target.tell(AsyncMessage::RequestLogout { within_s: 1 }),
            _ => self.target.tell(AsyncMessage::Drop { wait_s: 0 }),
        }
    }

    fn read(&mut self) {
        loop {
            let progress = self.target.handle_input(&self.line);
            assert!(progress.consumed <= self.line.len());
            self.line.drain(..progress.consumed);
            match progress.event {
                Event::Idle { needed } => {
                    assert!(needed > self.line.len() && needed <= HEADER_BYTES_MAX);
                    return;
                }
                Event::Command { task, receives } => {
                    self.reached.commands += 1;
                    let expected = self.target.command(task).map_or(0, |it| it.expected);
                    let want = if expected % 3 == 1 { expected / 2 } else { expected };
                    self.wants.insert(task, (want, 0));
                    if !receives || self.target.accept(task, want) {
                        self.ready.push(task);
                    }
                }
                Event::DataOut(data) => {
                    if !self.place(data) {
                        return;
                    }
                }
                Event::DataEnd { task, fault } => {
                    let (want, has) = self.wants[&task];
                    assert!(fault.is_some() || has == want, "{has} of {want} bytes");
                    self.reached.faults += usize::from(fault.is_some());
                    self.reached.written += usize::from(fault.is_none());
                    self.ready.push(task);
                }
                Event::Manage(id) => {
                    self.reached.managements += 1;
                    for task in self.target.affected(id) {
                        self.target.abort(task);
                    }
                    self.target.manage(id, TaskResponse::FUNCTION_COMPLETE);
                }
                Event::Logout => {
                    let tasks: Vec<TaskId> = self.target.tasks().collect();
                    tasks.into_iter().for_each(|task| self.target.abort(task));
                    assert_eq!(self.target.ended(), None);
                    self.target.settle_logout();
                    assert!(matches!(self.target.ended(), Some(Ended::Logout { .. })));
                }
                Event::Pong => {}
                Event::Blocked | Event::Ended => return,
                Event::Admit | Event::LoggedIn => panic!("a login after the login"),
            }
        }
    }

    /// Data lands in order, within what was accepted.
    fn place(&mut self, data: DataOut) -> bool {
        let (want, has) = self.wants.get_mut(&data.task).expect("it was accepted");
        assert!(data.offset == *has && data.offset + data.length <= *want);
        let count = self.line.len().min(data.length as usize);
        *has += count as u32;
        let bytes: Vec<u8> = self.line.drain(..count).collect();
        let digest = self.target.incoming_digest().update(&bytes);
        self.target.handle_placed(count as u32, digest);
        count > 0
    }

    fn check(&self) {
        let most = usize::from(WINDOW + IMMEDIATE_MAX);
        assert!(self.target.tasks().count() <= most);
        for task in self.target.tasks() {
            assert!(self.target.command(task).is_some());
        }
        if let Some(ended) = self.target.ended() {
            assert!(!ended.to_string().is_empty());
        }
    }
}
