//! What an initiator sends: commands with their data, and requests that are none.

use super::tasks::{REQUEST_NUMBER_MASK, REQUEST_TAG, Sequence};
use super::{Initiator, Management, Request, RequestKind, TaskId};
use crate::iscsi::digest::Digest;
use crate::iscsi::head::{Head, Trailer};
use crate::iscsi::serial::is_before;
use crate::iscsi::target::Direction;
use crate::iscsi::text;
use std::collections::VecDeque;
use wire::iscsi::{
    CDB_BYTES, DataOut, LogoutReason, LogoutRequest, NopOut, Pdu, RESERVED_TAG, ScsiCommand,
    TaskFunction, TaskManagementRequest, TextRequest, Uint24, flag, key,
};
use zerocopy::FromBytes;

/// Requests waiting to be sent at which nothing more is read.
const CONTROLS_MAX: usize = 64;

/// A command to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCommand<'a> {
    pub lun: [u8; 8],
    /// At most 16 bytes.
    pub cdb: &'a [u8],
    /// One of [`attribute`](wire::iscsi::attribute).
    pub attribute: u8,
    pub direction: Direction,
    /// Bytes of data, whichever way they go.
    pub length: u32,
}

/// A command cannot be taken now: the window or our own room is used up, or nobody is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no command can be sent now; one of those under way must end first")]
pub struct NotNow;

/// A task management request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManagementTag(pub(super) u32);

/// The data of a PDU that [`Initiator::next_pdu`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Send this behind the head, padding and digest included. Often empty.
    Bytes(&'a [u8]),
    /// Send these bytes of what the command writes, then a [`Trailer`].
    DataOut { task: TaskId, offset: u32, length: u32 },
}

#[derive(Clone, Copy)]
enum Item {
    Control,
    Command { id: TaskId, cmd_sn: u32 },
    Data(TaskId),
}

/// A PDU that is no command's. They all have their numbers where a NOP-Out has them.
struct Control {
    header: NopOut,
    data: Vec<u8>,
    is_login: bool,
}

pub(super) struct Output {
    queue: VecDeque<Item>,
    controls: VecDeque<Control>,
    segment: Vec<u8>,
}

impl Output {
    pub fn new(commands: u16) -> Self {
        let queue = VecDeque::with_capacity(2 * usize::from(commands) + CONTROLS_MAX);
        Self { queue, controls: VecDeque::new(), segment: Vec::new() }
    }

    pub fn is_full(&self) -> bool {
        self.controls.len() >= CONTROLS_MAX
    }

    pub fn push_data(&mut self, id: TaskId) {
        self.queue.push_back(Item::Data(id));
    }

    fn push_control<P: Pdu>(&mut self, pdu: &P, data: Vec<u8>, cmd_sn: u32) {
        let mut header = NopOut::read_from_bytes(pdu.as_bytes()).expect("headers have one size");
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        assert!(length <= Uint24::MAX, "a request of {length} bytes");
        header.data_segment_length = Uint24::new(length);
        header.cmd_sn = cmd_sn.into();
        let is_login = P::OPCODE == wire::iscsi::Opcode::LOGIN_REQUEST;
        self.controls.push_back(Control { header, data, is_login });
        self.queue.push_back(Item::Control);
    }
}

impl Initiator {
    /// Sends a command; data to be written is asked for by [`next_pdu`](Self::next_pdu).
    pub fn command(&mut self, command: &NewCommand<'_>) -> Result<TaskId, NotNow> {
        if !self.can_command() {
            return Err(NotNow);
        }
        let (id, task) = self.tasks.begin().ok_or(NotNow)?;
        let cdb = command.cdb;
        assert!(cdb.len() <= CDB_BYTES, "a CDB of {} bytes", cdb.len());
        task.cdb[..cdb.len()].copy_from_slice(cdb);
        task.lun = command.lun;
        task.length = command.length;
        task.flags = command.attribute
            | match command.direction {
                Direction::None => 0,
                Direction::In => flag::READ,
                Direction::Out => flag::WRITE,
            };
        let cmd_sn = self.cmd_sn;
        task.cmd_sn = cmd_sn;
        self.cmd_sn = cmd_sn.wrapping_add(1);
        self.output.queue.push_back(Item::Command { id, cmd_sn });
        Ok(id)
    }

    /// Whether [`command`](Self::command) would take one now.
    pub fn can_command(&self) -> bool {
        let is_open = !is_before(self.max_cmd_sn, self.cmd_sn);
        self.is_open() && is_open && self.tasks.has_room()
    }

    /// Commands under way.
    pub fn command_count(&self) -> usize {
        self.tasks.count()
    }

    /// The command was aborted: whatever still comes for it is thrown away.
    pub fn forget(&mut self, id: TaskId) {
        self.tasks.end(id);
    }

    /// Asks for task management, ahead of all commands that wait at the target. When it is answered
    /// [`take_aborted`](Self::take_aborted) has the commands that it has ended.
    pub fn manage(
        &mut self,
        function: TaskFunction,
        lun: [u8; 8],
        task: Option<TaskId>,
    ) -> ManagementTag {
        let asked = Management { function, lun, task, cmd_sn: self.cmd_sn };
        let tag = self.request(RequestKind::Management(asked));
        let named = task.and_then(|id| Some((id, self.tasks.get(id)?.cmd_sn)));
        let pdu = TaskManagementRequest {
            opcode: TaskManagementRequest::OPCODE.0 | flag::IMMEDIATE,
            function: flag::FINAL | function.0,
            lun,
            initiator_task_tag: tag.into(),
            referenced_task_tag: named.map_or(RESERVED_TAG, |(id, _)| id.0).into(),
            ref_cmd_sn: named.map_or(0, |(_, cmd_sn)| cmd_sn).into(),
            ..TaskManagementRequest::default()
        };
        self.push_control(&pdu, Vec::new());
        ManagementTag(tag)
    }

    /// Asks the target whether it is there.
    pub fn ping(&mut self) {
        let tag = self.request(RequestKind::Ping);
        let pdu = NopOut {
            opcode: NopOut::OPCODE.0 | flag::IMMEDIATE,
            flags: flag::FINAL,
            initiator_task_tag: tag.into(),
            target_transfer_tag: RESERVED_TAG.into(),
            ..NopOut::default()
        };
        self.push_control(&pdu, Vec::new());
    }

    /// Asks for all targets that we may see; in a normal session for the addresses of its target.
    pub fn discover(&mut self) {
        let tag = self.request(RequestKind::Text);
        let is_discovery = self.config.kind == crate::iscsi::SessionKind::Discovery;
        let mut data = Vec::new();
        text::push(&mut data, key::SEND_TARGETS, if is_discovery { key::ALL } else { "" });
        self.push_text(tag, RESERVED_TAG, data);
    }

    pub(super) fn push_text(&mut self, tag: u32, transfer_tag: u32, data: Vec<u8>) {
        let pdu = TextRequest {
            opcode: TextRequest::OPCODE.0 | flag::IMMEDIATE,
            flags: flag::FINAL,
            initiator_task_tag: tag.into(),
            target_transfer_tag: transfer_tag.into(),
            ..TextRequest::default()
        };
        self.push_control(&pdu, data);
    }

    /// Ends the session in good order. Commands under way are aborted by it.
    pub fn logout(&mut self) {
        let reason = LogoutReason::CLOSE_SESSION;
        let tag = self.request(RequestKind::Logout(reason));
        let pdu = LogoutRequest {
            opcode: LogoutRequest::OPCODE.0 | flag::IMMEDIATE,
            reason: flag::FINAL | reason.0,
            initiator_task_tag: tag.into(),
            ..LogoutRequest::default()
        };
        self.push_control(&pdu, Vec::new());
    }

    /// The next PDU to be sent: its header in `head`, its data in what is returned. PDUs must be
    /// sent in the order in which they are taken.
    pub fn next_pdu(&mut self, head: &mut Head) -> Option<Segment<'_>> {
        loop {
            match *self.output.queue.front()? {
                Item::Control => {
                    self.output.queue.pop_front();
                    self.control_pdu(head);
                    return Some(Segment::Bytes(&self.output.segment));
                }
                Item::Command { id, cmd_sn } => {
                    self.output.queue.pop_front();
                    if self.tasks.get(id).is_none() {
                        self.filler_pdu(cmd_sn, head);
                        return Some(Segment::Bytes(&[]));
                    }
                    return Some(self.command_pdu(id, head));
                }
                Item::Data(id) => match self.data_pdu(id, head) {
                    Some((offset, length)) => {
                        return Some(Segment::DataOut { task: id, offset, length });
                    }
                    None => drop(self.output.queue.pop_front()),
                },
            }
        }
    }

    /// Whether [`next_pdu`](Self::next_pdu) may have something.
    pub fn has_pdus(&self) -> bool {
        !self.output.queue.is_empty()
    }

    /// What is to be sent behind `length` bytes of [`Segment::DataOut`].
    pub fn trailer(&self, length: u32, digest: Digest) -> Trailer {
        Trailer::new(length, self.parameters.data_digest.then_some(digest))
    }

    /// A request that is not counted says which command comes next, so that the target knows which
    /// came before it (RFC 7143, 4.2.2.1).
    pub(super) fn push_control<P: Pdu>(&mut self, pdu: &P, data: Vec<u8>) {
        self.output.push_control(pdu, data, self.cmd_sn);
    }

    pub(super) fn is_open(&self) -> bool {
        self.login.is_none() && self.ended.is_none()
    }

    pub(super) fn request(&mut self, kind: RequestKind) -> u32 {
        // Any value but the reserved tag.
        self.next_tag = self.next_tag.wrapping_add(1) & REQUEST_NUMBER_MASK;
        let tag = REQUEST_TAG | self.next_tag;
        self.requests.push(Request { tag, kind });
        tag
    }

    fn control_pdu(&mut self, head: &mut Head) {
        let control = self.output.controls.pop_front().expect("one stands in the queue");
        let mut header = control.header;
        header.exp_stat_sn = self.exp_stat_sn.into();
        let is_sealed = !control.is_login;
        head.set(&header, is_sealed && self.parameters.header_digest);
        let mut segment = control.data;
        let with_digest = is_sealed && self.parameters.data_digest;
        let digest = with_digest.then(|| Digest::new().update(&segment));
        let trailer = Trailer::new(segment.len() as u32, digest);
        segment.extend_from_slice(trailer.as_bytes());
        self.output.segment = segment;
    }

    fn command_pdu(&mut self, id: TaskId, head: &mut Head) -> Segment<'_> {
        let parameters = &self.parameters;
        let task = self.tasks.find(id).expect("it was just looked for");
        let mut pdu = ScsiCommand {
            flags: task.flags | flag::FINAL,
            lun: task.lun,
            initiator_task_tag: id.0.into(),
            expected_data_transfer_length: task.length.into(),
            cmd_sn: task.cmd_sn.into(),
            exp_stat_sn: self.exp_stat_sn.into(),
            cdb: task.cdb,
            ..ScsiCommand::default()
        };
        let mut immediate = 0;
        if task.flags & flag::WRITE != 0 {
            let unsolicited = task.length.min(parameters.first_burst_length);
            if parameters.immediate_data {
                immediate = unsolicited.min(parameters.max_send_data_segment_length);
            }
            if !parameters.initial_r2t && immediate < unsolicited {
                pdu.flags &= !flag::FINAL;
                let (offset, end) = (immediate, unsolicited);
                task.push_sequence(Sequence { transfer_tag: RESERVED_TAG, offset, end });
                task.queued = true;
                self.output.queue.push_front(Item::Data(id));
            }
        }
        pdu.data_segment_length = Uint24::new(immediate);
        head.set(&pdu, parameters.header_digest);
        match immediate {
            0 => Segment::Bytes(&[]),
            length => Segment::DataOut { task: id, offset: 0, length },
        }
    }

    /// A ping in place of a command that was forgotten before it was sent: its CmdSN is taken, and
    /// a gap would end the session.
    fn filler_pdu(&mut self, cmd_sn: u32, head: &mut Head) {
        let tag = self.request(RequestKind::Filler);
        let pdu = NopOut {
            flags: flag::FINAL,
            initiator_task_tag: tag.into(),
            target_transfer_tag: RESERVED_TAG.into(),
            cmd_sn: cmd_sn.into(),
            exp_stat_sn: self.exp_stat_sn.into(),
            ..NopOut::default()
        };
        head.set(&pdu, self.parameters.header_digest);
    }

    /// The next PDU of the sequence that a task is sending: offset and length of its data.
    fn data_pdu(&mut self, id: TaskId, head: &mut Head) -> Option<(u32, u32)> {
        let task = self.tasks.find(id)?;
        if task.sequence_count == 0 {
            task.queued = false;
            return None;
        }
        let sequence = &mut task.sequences[0];
        let offset = sequence.offset;
        let left = sequence.end - offset;
        let length = left.min(self.parameters.max_send_data_segment_length & !3);
        sequence.offset += length;
        let is_last = length == left;
        let pdu = DataOut {
            flags: if is_last { flag::FINAL } else { 0 },
            data_segment_length: Uint24::new(length),
            lun: task.lun,
            initiator_task_tag: id.0.into(),
            target_transfer_tag: sequence.transfer_tag.into(),
            exp_stat_sn: self.exp_stat_sn.into(),
            data_sn: task.data_out_sn.into(),
            buffer_offset: offset.into(),
            ..DataOut::default()
        };
        task.data_out_sn = task.data_out_sn.wrapping_add(1);
        if is_last {
            task.pop_sequence();
        }
        head.set(&pdu, self.parameters.header_digest);
        Some((offset, length))
    }
}
