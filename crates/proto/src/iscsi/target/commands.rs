//! The full feature phase: command numbering, SCSI commands and their answers, NOPs, logout, and
//! what is refused.

use super::manage::Logout;
use super::output::StatSn;
use super::tasks::{AnswerState, State, Task};
use super::{Event, Target, TaskId};
use crate::iscsi::accounts::SessionKind;
use crate::iscsi::error::{Ended, Violation};
use crate::iscsi::receive::Fate;
use crate::iscsi::serial::{is_before, is_within};
use crate::iscsi::target::IMMEDIATE_MAX;
use wire::iscsi::{
    AHS_HEADER_BYTES, AhsHeader, AhsType, CDB_BYTES, CDB_BYTES_MAX, Header, LogoutReason,
    LogoutReply, LogoutRequest, LogoutResponse, NopIn, NopOut, Opcode, PAD_BYTES, RESERVED_TAG,
    RejectReason, ScsiCommand, attribute, flag,
};
use zerocopy::FromBytes;

/// A SCSI command as the initiator sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    pub lun: [u8; 8],
    pub cdb: &'a [u8],
    /// One of [`attribute`].
    pub attribute: u8,
    pub direction: Direction,
    /// Bytes that the initiator expects to be transferred.
    pub expected: u32,
    pub tag: u32,
    pub is_immediate: bool,
}

/// Which way the data of a command goes, as its initiator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    None,
    In,
    Out,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// SCSI status.
    pub status: u8,
    /// Bytes moved: of data-in, so many are sent; of data-out, so many were used.
    pub moved: u32,
    /// Bytes that it would have moved had the initiator expected as many.
    pub wanted: u64,
    pub sense: &'a [u8],
}

/// What counting a PDU in gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// It took a place in the window.
    Window,
    Immediate,
    /// Not in the window, or the session is over: as if it never came (RFC 7143, 4.2.2.1).
    Ignored,
}

impl Target {
    /// A command that was told of and is not yet answered or aborted.
    #[inline]
    pub fn command(&self, id: TaskId) -> Option<Command<'_>> {
        let task = self.tasks.get(id).filter(|task| task.is_with_owner())?;
        Some(Command {
            lun: task.lun,
            cdb: task.extended_cdb.as_deref().unwrap_or(&task.cdb),
            attribute: task.flags & flag::ATTRIBUTE_MASK,
            direction: task.direction(),
            expected: task.expected,
            tag: task.tag,
            is_immediate: !task.holds_credit,
        })
    }

    /// The commands with the owner: told of, neither answered nor aborted.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.all().filter(|(_, task)| task.is_with_owner()).map(|(id, _)| id)
    }

    /// Answers a command, whose data-out has ended. [`next_pdu`](Self::next_pdu) gives the PDUs.
    #[inline]
    pub fn respond(&mut self, id: TaskId, answer: &Answer<'_>) {
        let Some(task) = self.tasks.find(id).filter(|task| task.is_with_owner()) else { return };
        assert!(task.state == State::Running, "answered before its data has ended");
        let expected = if task.direction() == Direction::None { 0 } else { task.expected };
        let moved = answer.moved.min(expected);
        let residual = if answer.wanted > u64::from(expected) {
            (flag::OVERFLOW, u32::try_from(answer.wanted - u64::from(expected)).unwrap_or(u32::MAX))
        } else if moved < expected {
            (flag::UNDERFLOW, expected - moved)
        } else {
            (0, 0)
        };
        task.answer = AnswerState {
            status: answer.status,
            flags: residual.0,
            residual: residual.1,
            length: if task.reads() { moved } else { 0 },
            sense: (!answer.sense.is_empty()).then(|| answer.sense.into()),
            ..AnswerState::default()
        };
        task.state = State::Answering;
        self.tasks.with_owner -= 1;
        self.output.push_answer(id);
        self.after_owner();
    }

    /// Nothing is answered to this command: a task management function, a logout or the end of the
    /// session has aborted it. Data that is still to come for it is thrown away.
    pub fn abort(&mut self, id: TaskId) {
        let Some(task) = self.tasks.find(id).filter(|task| task.is_with_owner()) else { return };
        let is_incoming = self.incoming.is_some_and(|it| it.task == id);
        let drains = task.data_out.is_open() || is_incoming;
        if drains {
            task.state = State::Draining;
        }
        self.tasks.with_owner -= 1;
        if drains {
            self.tasks.draining += 1;
            if let Some(incoming) = self.incoming.as_mut().filter(|it| it.task == id) {
                incoming.keep = 0;
            }
        } else {
            self.end_task(id);
            self.tell_window();
        }
        self.after_owner();
    }

    /// Asks the initiator whether it is there. False when it was asked before and has not answered.
    pub fn ping(&mut self) -> bool {
        if self.ping.is_some() {
            return false;
        }
        // Any value but the reserved tag.
        self.pings = self.pings.wrapping_add(1) & !(1 << 31);
        self.ping = Some(self.pings);
        self.push_nop_in(self.pings);
        true
    }

    #[inline]
    pub(super) fn handle_header(&mut self, header: &Header, ahs: &[u8]) -> (Fate, Option<Event>) {
        if self.tasks.draining > 0 {
            self.release_drained(header.view::<NopOut>().exp_stat_sn.get());
        }
        let opcode = header.opcode();
        if opcode == Opcode::SCSI_COMMAND {
            return self.handle_command(header, ahs);
        }
        if opcode == Opcode::DATA_OUT {
            return (self.handle_data_out(header), None);
        }
        (self.handle_rare(header, ahs), None)
    }

    fn handle_rare(&mut self, header: &Header, ahs: &[u8]) -> Fate {
        let allowed_in_discovery = [Opcode::TEXT_REQUEST, Opcode::LOGOUT_REQUEST];
        let reason = match header.opcode() {
            // RFC 7143, 4.3: a discovery session is for SendTargets and logout only.
            opcode if self.is_discovery() && !allowed_in_discovery.contains(&opcode) => {
                RejectReason::COMMAND_NOT_SUPPORTED
            }
            Opcode::NOP_OUT
            | Opcode::TEXT_REQUEST
            | Opcode::LOGOUT_REQUEST
            | Opcode::TASK_MANAGEMENT_REQUEST
                if ahs.is_empty() =>
            {
                return self.collect(header);
            }
            Opcode::SNACK_REQUEST => RejectReason::SNACK_REJECT,
            Opcode::LOGIN_REQUEST => {
                self.end(Ended::Violation(Violation::Opcode { opcode: header.opcode() }));
                RejectReason::PROTOCOL_ERROR
            }
            _ if !ahs.is_empty() => RejectReason::INVALID_PDU_FIELD,
            _ => RejectReason::COMMAND_NOT_SUPPORTED,
        };
        self.reject(header, reason);
        Fate::Discarded
    }

    /// Counts a request in, and collects its data.
    fn collect(&mut self, header: &Header) -> Fate {
        let is_management = header.opcode() == Opcode::TASK_MANAGEMENT_REQUEST;
        if is_management && header.is_immediate() && self.immediate >= IMMEDIATE_MAX {
            self.reject(header, RejectReason::IMMEDIATE_COMMAND_REJECT);
            return Fate::Discarded;
        }
        let counted = self.count(header);
        match counted {
            Counted::Ignored => return Fate::Discarded,
            // It is over as soon as it is answered, and that is bounded by what may wait to be sent.
            Counted::Window if !is_management => self.max_cmd_sn = self.max_cmd_sn.wrapping_add(1),
            Counted::Immediate if is_management => self.immediate += 1,
            Counted::Window | Counted::Immediate => {}
        }
        self.collecting = Some(*header);
        Fate::Collected
    }

    pub(super) fn handle_collected(&mut self, header: &Header, data: &[u8]) -> Option<Event> {
        match header.opcode() {
            Opcode::NOP_OUT => self.handle_nop_out(header, data),
            Opcode::TEXT_REQUEST => self.handle_text(header, data),
            Opcode::LOGOUT_REQUEST => self.handle_logout(header),
            _ => self.handle_management(header),
        }
    }

    /// CmdSN (RFC 7143, 4.2.2.1). On the only connection commands come in order, so a gap means that
    /// one was lost, which this recovery level cannot mend.
    #[inline]
    fn count(&mut self, header: &Header) -> Counted {
        if self.logout.is_some() {
            return Counted::Ignored;
        }
        if header.is_immediate() {
            return Counted::Immediate;
        }
        let cmd_sn = header.view::<NopOut>().cmd_sn.get();
        let expected = self.exp_cmd_sn;
        if !is_within(cmd_sn, expected, self.max_cmd_sn) {
            return Counted::Ignored;
        }
        if cmd_sn != expected {
            self.reject(header, RejectReason::PROTOCOL_ERROR);
            self.end(Ended::Violation(Violation::CommandLost { cmd_sn, expected }));
            return Counted::Ignored;
        }
        self.exp_cmd_sn = expected.wrapping_add(1);
        Counted::Window
    }

    #[inline]
    fn handle_command(&mut self, header: &Header, ahs: &[u8]) -> (Fate, Option<Event>) {
        if header.is_immediate() && self.immediate >= IMMEDIATE_MAX {
            self.reject(header, RejectReason::IMMEDIATE_COMMAND_REJECT);
            return (Fate::Discarded, None);
        }
        let counted = self.count(header);
        if counted == Counted::Ignored {
            return (Fate::Discarded, None);
        }
        let holds_credit = counted == Counted::Window;
        match self.begin_command(header, ahs, holds_credit) {
            Ok((fate, event)) => (fate, Some(event)),
            Err(reason) => {
                // It is over, and counts as received (RFC 7143, 11.17.1).
                if holds_credit {
                    self.max_cmd_sn = self.max_cmd_sn.wrapping_add(1);
                }
                self.reject(header, reason);
                (Fate::Discarded, None)
            }
        }
    }

    #[inline]
    fn begin_command(
        &mut self,
        header: &Header,
        ahs: &[u8],
        holds_credit: bool,
    ) -> Result<(Fate, Event), RejectReason> {
        let command: &ScsiCommand = header.view();
        let tag = command.initiator_task_tag.get();
        let writes = command.flags & flag::WRITE != 0;
        let reads = command.flags & flag::READ != 0;
        let immediate = header.data_bytes();
        if self.is_discovery() || (reads && writes) {
            return Err(RejectReason::COMMAND_NOT_SUPPORTED);
        }
        let attribute = command.flags & flag::ATTRIBUTE_MASK;
        if tag == RESERVED_TAG || attribute > attribute::ACA || (immediate > 0 && !writes) {
            return Err(RejectReason::INVALID_PDU_FIELD);
        }
        if self.tasks.has_tag(tag) {
            return Err(RejectReason::TASK_IN_PROGRESS);
        }
        let extended = if ahs.is_empty() { None } else { Some(extended_cdb(command, ahs)?) };
        let task = self
            .tasks
            .begin(command, holds_credit)
            .expect("the window and the limit of immediate commands leave a place");
        if !holds_credit {
            self.immediate += 1;
        }
        let begun = self.tasks.find(task).expect("it was just made");
        begun.extended_cdb = extended;
        let is_final = command.flags & flag::FINAL != 0;
        let receives = writes && (begun.expected > 0 || immediate > 0 || !is_final);
        if !receives {
            begun.state = State::Running;
            return Ok((Fate::Discarded, Event::Command { task, receives }));
        }
        let fate = self.begin_data_out(task, header);
        Ok((fate, Event::Command { task, receives }))
    }

    fn handle_nop_out(&mut self, header: &Header, data: &[u8]) -> Option<Event> {
        let pdu: &NopOut = header.view();
        let (tag, transfer) = (pdu.initiator_task_tag.get(), pdu.target_transfer_tag.get());
        if tag == RESERVED_TAG {
            if transfer != RESERVED_TAG && self.ping == Some(transfer) {
                self.ping = None;
                return Some(Event::Pong);
            }
            return None;
        }
        // As much of the ping data as the initiator can receive (RFC 7143, 11.19).
        let most = self.parameters.max_send_data_segment_length as usize;
        let reply = NopIn {
            flags: flag::FINAL,
            initiator_task_tag: tag.into(),
            target_transfer_tag: RESERVED_TAG.into(),
            ..NopIn::default()
        };
        self.output.push_control(&reply, data[..data.len().min(most)].to_vec(), StatSn::Takes);
        None
    }

    fn handle_logout(&mut self, header: &Header) -> Option<Event> {
        let pdu: &LogoutRequest = header.view();
        let tag = pdu.initiator_task_tag.get();
        let reason = LogoutReason(pdu.reason & flag::REASON_MASK);
        let cid = self.session.as_ref().map_or(0, |session| session.cid);
        match reason {
            LogoutReason::CLOSE_CONNECTION if pdu.cid.get() != cid => {
                self.push_logout_response(tag, LogoutResponse::CID_NOT_FOUND);
            }
            LogoutReason::CLOSE_SESSION | LogoutReason::CLOSE_CONNECTION => {
                self.logout = Some(Logout { tag, reason, is_settled: false });
                return Some(Event::Logout);
            }
            LogoutReason::REMOVE_FOR_RECOVERY => {
                self.push_logout_response(tag, LogoutResponse::RECOVERY_NOT_SUPPORTED);
            }
            _ => self.reject(header, RejectReason::INVALID_PDU_FIELD),
        }
        None
    }

    pub(super) fn push_logout_response(&mut self, tag: u32, response: LogoutResponse) {
        let reply = LogoutReply {
            flags: flag::FINAL,
            response: response.0,
            initiator_task_tag: tag.into(),
            ..LogoutReply::default()
        };
        self.output.push_control(&reply, Vec::new(), StatSn::Takes);
    }

    pub(super) fn push_nop_in(&mut self, transfer_tag: u32) {
        let nop = NopIn {
            flags: flag::FINAL,
            initiator_task_tag: RESERVED_TAG.into(),
            target_transfer_tag: transfer_tag.into(),
            ..NopIn::default()
        };
        self.output.push_control(&nop, Vec::new(), StatSn::Tells);
    }

    pub(super) fn is_discovery(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.kind == SessionKind::Discovery)
    }

    /// The place is free, the window one wider.
    #[inline]
    pub(super) fn end_task(&mut self, id: TaskId) {
        if self.tasks.end(id).holds_credit {
            self.max_cmd_sn = self.max_cmd_sn.wrapping_add(1);
        } else {
            self.immediate -= 1;
        }
    }

    /// An initiator that was told of a closed window learns that it is open from any PDU; if none
    /// is on its way it needs one.
    pub(super) fn tell_window(&mut self) {
        let is_shut = is_before(self.advertised_max_cmd_sn, self.exp_cmd_sn);
        let is_open = !is_before(self.max_cmd_sn, self.exp_cmd_sn);
        if is_shut && is_open && self.output.is_empty() {
            self.push_nop_in(RESERVED_TAG);
        }
    }

    /// Whoever has seen the answer to a task management request sends no data for what it aborted.
    #[cold]
    fn release_drained(&mut self, exp_stat_sn: u32) {
        let is_over = |task: &Task| task.drained_by.is_some_and(|it| is_before(it, exp_stat_sn));
        let over: Vec<TaskId> = self
            .tasks
            .all()
            .filter(|(id, task)| {
                is_over(task) && !self.incoming.is_some_and(|incoming| incoming.task == *id)
            })
            .map(|(id, _)| id)
            .collect();
        for id in over {
            self.end_task(id);
        }
        self.tell_window();
    }
}

impl Task {
    pub fn direction(&self) -> Direction {
        match (self.reads(), self.writes()) {
            (true, _) => Direction::In,
            (false, true) => Direction::Out,
            (false, false) => Direction::None,
        }
    }
}

/// The whole CDB when part of it is in an additional header segment (RFC 7143, 11.2.2.3).
fn extended_cdb(command: &ScsiCommand, ahs: &[u8]) -> Result<Box<[u8]>, RejectReason> {
    let malformed = RejectReason::INVALID_PDU_FIELD;
    let (header, rest) = AhsHeader::ref_from_prefix(ahs).map_err(|_| malformed)?;
    // The length counts the reserved byte, too.
    let length = usize::from(header.ahs_length.get()).checked_sub(1).ok_or(malformed)?;
    let is_only = ahs.len() == (AHS_HEADER_BYTES + length).next_multiple_of(PAD_BYTES);
    let is_cdb = AhsType(header.ahs_type & flag::OPCODE_MASK) == AhsType::EXTENDED_CDB;
    if !is_only || !is_cdb || length == 0 || CDB_BYTES + length > CDB_BYTES_MAX {
        return Err(malformed);
    }
    Ok([&command.cdb[..], &rest[..length]].concat().into())
}
