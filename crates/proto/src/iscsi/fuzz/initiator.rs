//! A target of the worst kind, against an initiator that does what initiators do.

use super::{INITIATOR, Script, TARGET, pdu_bytes, with_text};
use crate::iscsi::initiator::{Config, Event, Initiator, NewCommand, Segment, TaskId};
use crate::iscsi::{Direction, HEADER_BYTES_MAX, Head, SessionKind, Wishes, text};
use std::collections::HashMap;
use wire::iscsi::{
    AsyncMessage, DataIn, LoginResponse, LogoutReply, NopIn, R2t, Reject, ScsiCommand,
    ScsiResponse, TaskFunction, TaskManagementResponse, TextResponse, flag, key,
};
use zerocopy::FromBytes;

struct Session {
    initiator: Initiator,
    line: Vec<u8>,
    stat_sn: u32,
    max_cmd_sn: u32,
    /// Commands that were sent, as their target sees them.
    sent: Vec<Sent>,
    /// How many bytes each command may move.
    lengths: HashMap<TaskId, u32>,
    done: usize,
}

struct Sent {
    tag: u32,
    flags: u8,
    length: u32,
    /// Bytes moved, DataSN, R2TSN.
    moved: u32,
    data_sn: u32,
    r2t_sn: u32,
}

/// Runs a script; how many commands came to their end.
pub fn initiator(script: &[u8]) -> usize {
    let mut script = Script(script);
    let mut session = Session::begin(&mut script);
    while let Some(step) = script.next() {
        match step % 8 {
            0..2 => session.ask(&mut script),
            7 if step > 0xf0 => session.line.extend_from_slice(script.take(20)),
            _ => session.say(step >> 3, &mut script),
        }
        session.send();
        session.read();
    }
    session.done
}

impl Session {
    fn begin(script: &mut Script<'_>) -> Self {
        let config = Config {
            wishes: Wishes {
                max_recv_data_segment_length: 2048,
                max_burst_length: 1024,
                first_burst_length: 512,
                ..Wishes::default()
            },
            name: INITIATOR.into(),
            isid: [1; 6],
            kind: SessionKind::Normal { target: TARGET.into() },
            chap: None,
            commands: 5,
        };
        let mut session = Self {
            initiator: Initiator::new(config, [1; 33]),
            line: Vec::new(),
            stat_sn: 1,
            max_cmd_sn: 8,
            sent: Vec::new(),
            lengths: HashMap::new(),
            done: 0,
        };
        session.send();
        if !script.one_in(8) {
            session.log_in(script);
        }
        session
    }

    /// What a target may answer to a login, right or not.
    fn log_in(&mut self, script: &mut Script<'_>) {
        let mut answers = Vec::new();
        for (name, value) in [
            (key::HEADER_DIGEST, key::NONE),
            (key::DATA_DIGEST, key::NONE),
            (key::DEFAULT_TIME2WAIT, "2"),
            (key::DEFAULT_TIME2RETAIN, "0"),
            (key::ERROR_RECOVERY_LEVEL, "0"),
            (key::MAX_CONNECTIONS, "1"),
            (key::INITIAL_R2T, if script.one_in(2) { key::YES } else { key::NO }),
            (key::IMMEDIATE_DATA, if script.one_in(2) { key::NO } else { key::YES }),
            (key::MAX_BURST_LENGTH, "1024"),
            (key::FIRST_BURST_LENGTH, "512"),
            (key::MAX_OUTSTANDING_R2T, "2"),
            (key::DATA_PDU_IN_ORDER, key::YES),
            (key::DATA_SEQUENCE_IN_ORDER, key::YES),
            (key::TASK_REPORTING, key::RFC3720),
            (key::ISCSI_PROTOCOL_LEVEL, "1"),
        ] {
            let value = if script.one_in(64) { key::REJECT } else { value };
            text::push(&mut answers, name, value);
        }
        for (flags, text) in [(0x81, &[][..]), (0x87, &answers)] {
            let response = LoginResponse {
                flags,
                tsih: 1.into(),
                stat_sn: self.stat_sn.into(),
                exp_cmd_sn: 1.into(),
                max_cmd_sn: self.max_cmd_sn.into(),
                ..LoginResponse::default()
            };
            self.stat_sn += 1;
            self.line.extend(with_text(&response, text));
            self.read();
            self.send();
        }
    }

    /// The owner of the initiator does something.
    fn ask(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0..10 if self.initiator.can_command() => {
                let direction = [Direction::In, Direction::Out, Direction::None][script.below(3)];
                let length = script.word() & 0x1fff;
                let command =
                    NewCommand { lun: [0; 8], cdb: &[0x28; 10], attribute: 1, direction, length };
                let task = self.initiator.command(&command).expect("it was just asked");
                self.lengths.insert(task, length);
            }
            10 => drop(self.initiator.manage(TaskFunction::ABORT_TASK_SET, [0; 8], None)),
            11..13 => self.initiator.ping(),
            13 => self.initiator.discover(),
            14 => {
                if let Some(task) = self.lengths.keys().next().copied() {
                    self.initiator.forget(task);
                    self.lengths.remove(&task);
                }
            }
            _ => {}
        }
    }

    /// The target says something that is often right.
    fn say(&mut self, step: u8, script: &mut Script<'_>) {
        self.max_cmd_sn += 1;
        self.stat_sn += 1;
        if self.sent.is_empty() || step >= 30 {
            let bytes = self.rare(script);
            self.line.extend(bytes);
            return;
        }
        let at = script.below(self.sent.len());
        let command = &mut self.sent[at];
        let (reads, writes) = (command.flags & flag::READ != 0, command.flags & flag::WRITE != 0);
        let left = command.length - command.moved;
        let length = if script.one_in(32) { script.word() & 0x7ff } else { left.min(900) };
        let is_odd = script.one_in(32);
        let offset = if is_odd { script.word() } else { command.moved };
        command.moved += length.min(left);
        let numbers = (self.stat_sn - 1, self.max_cmd_sn);
        let is_last = command.moved == command.length;
        let bytes = if reads && left > 0 && step < 24 {
            self.stat_sn -= u32::from(!is_last);
            let pdu = command.data_in(offset, is_last, numbers);
            pdu_bytes(&pdu, length as usize, false, script)
        } else if writes && left > 0 && step < 20 {
            self.stat_sn -= 1;
            pdu_bytes(&command.r2t(offset, length.min(1024), numbers), 0, false, script)
        } else {
            let pdu = ScsiResponse {
                initiator_task_tag: command.tag.into(),
                stat_sn: numbers.0.into(),
                exp_cmd_sn: 1.into(),
                max_cmd_sn: numbers.1.into(),
                ..ScsiResponse::default()
            };
            self.sent.remove(at);
            pdu_bytes(&pdu, 0, false, script)
        };
        self.line.extend(bytes);
    }

    fn rare(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let stat_sn = (self.stat_sn - 1).into();
        let initiator_task_tag = if script.below(8) > 0 { u32::MAX } else { script.word() }.into();
        let length = script.below(70);
        match script.below(64) {
            0..52 => {
                self.stat_sn -= 1;
                let target_transfer_tag = script.word().into();
                let pdu =
                    NopIn { stat_sn, initiator_task_tag, target_transfer_tag, ..NopIn::default() };
                pdu_bytes(&pdu, length, false, script)
            }
            52..54 => {
                let pdu = TextResponse { stat_sn, initiator_task_tag, ..TextResponse::default() };
                pdu_bytes(&pdu, length, false, script)
            }
            54..58 => {
                let async_event = script.below(7) as u8;
                let pdu = AsyncMessage { stat_sn, async_event, ..AsyncMessage::default() };
                pdu_bytes(&pdu, length, false, script)
            }
            58..60 => {
                let pdu = Reject { stat_sn, reason: 4, ..Reject::default() };
                pdu_bytes(&pdu, 48, false, script)
            }
            60 => {
                let pdu = LogoutReply { stat_sn, initiator_task_tag, ..LogoutReply::default() };
                pdu_bytes(&pdu, 0, false, script)
            }
            _ => {
                let pdu = TaskManagementResponse {
                    stat_sn,
                    initiator_task_tag,
                    ..TaskManagementResponse::default()
                };
                pdu_bytes(&pdu, 0, false, script)
            }
        }
    }

    fn send(&mut self) {
        let mut head = Head::new();
        while let Some(segment) = self.initiator.next_pdu(&mut head) {
            if let Segment::DataOut { task, offset, length } = segment {
                // A command that was forgotten sends nothing more.
                let most = self.lengths[&task];
                assert!(offset + length <= most);
            }
            let header = ScsiCommand::read_from_prefix(head.as_bytes()).expect("a header").0;
            if header.opcode == 1 {
                self.sent.push(Sent {
                    tag: header.initiator_task_tag.get(),
                    flags: header.flags,
                    length: header.expected_data_transfer_length.get(),
                    moved: 0,
                    data_sn: 0,
                    r2t_sn: 0,
                });
            }
        }
    }

    fn read(&mut self) {
        loop {
            let progress = self.initiator.handle_input(&self.line);
            self.line.drain(..progress.consumed);
            match progress.event {
                Event::Idle { needed } => {
                    assert!(needed > self.line.len() && needed <= HEADER_BYTES_MAX);
                    return;
                }
                Event::DataIn(data) => {
                    assert!(data.offset + data.length <= self.lengths[&data.task]);
                    let count = self.line.len().min(data.length as usize);
                    let bytes: Vec<u8> = self.line.drain(..count).collect();
                    let digest = self.initiator.incoming_digest().update(&bytes);
                    self.initiator.handle_placed(count as u32, digest);
                    if count == 0 {
                        return;
                    }
                }
                Event::Done { task, outcome } => {
                    let length = self.lengths.remove(&task).expect("it was sent once");
                    assert!(outcome.received <= length);
                    self.done += 1;
                }
                Event::Blocked => self.send(),
                Event::Ended => {
                    assert!(self.initiator.ended().is_some() && !self.initiator.can_command());
                    return;
                }
                _ => {}
            }
        }
    }
}

impl Sent {
    fn data_in(&mut self, offset: u32, is_last: bool, (stat_sn, max): (u32, u32)) -> DataIn {
        self.data_sn += 1;
        DataIn {
            flags: 0x80 | u8::from(is_last),
            initiator_task_tag: self.tag.into(),
            target_transfer_tag: u32::MAX.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: 1.into(),
            max_cmd_sn: max.into(),
            data_sn: (self.data_sn - 1).into(),
            buffer_offset: offset.into(),
            ..DataIn::default()
        }
    }

    fn r2t(&mut self, offset: u32, length: u32, (stat_sn, max): (u32, u32)) -> R2t {
        self.r2t_sn += 1;
        R2t {
            initiator_task_tag: self.tag.into(),
            target_transfer_tag: 5.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: 1.into(),
            max_cmd_sn: max.into(),
            r2t_sn: (self.r2t_sn - 1).into(),
            buffer_offset: offset.into(),
            desired_data_transfer_length: length.into(),
            ..R2t::default()
        }
    }
}
