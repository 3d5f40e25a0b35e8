//! What an initiator receives in the full feature phase: numbers, data, statuses, requests to send,
//! answers.

use super::tasks::Sequence;
use super::{
    Event, Found, Incoming, Initiator, Management, ManagementTag, Outcome, Refused, RequestKind,
    Residual, TaskId,
};
use crate::iscsi::error::{Ended, Violation};
use crate::iscsi::receive::Fate;
use crate::iscsi::serial::is_before;
use crate::iscsi::text;
use wire::iscsi::{
    AsyncEvent, AsyncMessage, DataIn as DataInPdu, Header, LogoutReply, LogoutResponse, NopIn,
    NopOut, Opcode, Pdu, R2t, RESERVED_TAG, Reject, RejectReason, ScsiCommand, ScsiResponse,
    ScsiResponseCode, TaskFunction, TaskManagementResponse, TaskResponse, TextResponse, flag, key,
};
use zerocopy::FromBytes;

/// Longest answer to a text request that is taken.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Initiator {
    pub(super) fn handle_header(&mut self, header: &Header) -> Result<Fate, Violation> {
        let opcode = header.opcode();
        let nop: &NopIn = header.view();
        let takes_number = match opcode {
            Opcode::DATA_IN => header.flags & flag::STATUS != 0,
            Opcode::NOP_IN => nop.initiator_task_tag.get() != RESERVED_TAG,
            Opcode::R2T => false,
            Opcode::SCSI_RESPONSE
            | Opcode::TASK_MANAGEMENT_RESPONSE
            | Opcode::TEXT_RESPONSE
            | Opcode::LOGOUT_RESPONSE
            | Opcode::ASYNC_MESSAGE
            | Opcode::REJECT => true,
            _ => return Err(Violation::Opcode { opcode }),
        };
        if takes_number {
            self.take_status(nop.stat_sn.get())?;
        }
        self.take_window(nop);
        match opcode {
            Opcode::DATA_IN => self.handle_data_in(header.view()),
            Opcode::R2T => self.handle_r2t(header.view()),
            _ => Ok(Fate::Collected),
        }
    }

    /// Statuses come one after the other (RFC 7143, 4.2.2.2).
    pub(super) fn take_status(&mut self, stat_sn: u32) -> Result<(), Violation> {
        let expected = self.exp_stat_sn;
        if stat_sn != expected {
            return Err(Violation::StatusLost { stat_sn, expected });
        }
        self.exp_stat_sn = expected.wrapping_add(1);
        Ok(())
    }

    /// The window only grows (4.2.2.1).
    pub(super) fn take_window(&mut self, pdu: &NopIn) {
        let (exp, max) = (pdu.exp_cmd_sn.get(), pdu.max_cmd_sn.get());
        if !is_before(max, exp.wrapping_sub(1)) && is_before(self.max_cmd_sn, max) {
            self.max_cmd_sn = max;
        }
    }

    fn handle_data_in(&mut self, pdu: &DataInPdu) -> Result<Fate, Violation> {
        let id = TaskId(pdu.initiator_task_tag.get());
        let length = pdu.data_segment_length.get();
        // Forgotten commands may still be answered.
        let Some(task) = self.tasks.find(id) else { return Ok(Fate::Discarded) };
        let offset = pdu.buffer_offset.get();
        let fits = task.flags & flag::READ != 0
            && offset == task.received
            && u64::from(offset) + u64::from(length) <= u64::from(task.length);
        if !fits || pdu.data_sn.get() != task.data_in_sn {
            return Err(Violation::DataRange);
        }
        task.data_in_sn = task.data_in_sn.wrapping_add(1);
        task.received += length;
        let done = (pdu.flags & flag::STATUS != 0).then(|| Outcome {
            response: ScsiResponseCode::COMMAND_COMPLETED,
            status: pdu.status,
            received: task.received,
            residual: residual(pdu.flags, pdu.residual_count.get()),
        });
        self.incoming = Some(Incoming { task: id, offset, left: length, done });
        Ok(Fate::Placed)
    }

    pub(super) fn handle_data_in_end(&mut self) -> Option<Event> {
        let Incoming { task, done, .. } = self.incoming.take()?;
        let outcome = done.filter(|_| self.tasks.get(task).is_some())?;
        self.sense.clear();
        self.tasks.end(task);
        Some(Event::Done { task, outcome })
    }

    fn handle_r2t(&mut self, pdu: &R2t) -> Result<Fate, Violation> {
        let id = TaskId(pdu.initiator_task_tag.get());
        let (offset, length) = (pdu.buffer_offset.get(), pdu.desired_data_transfer_length.get());
        let Some(task) = self.tasks.find(id) else { return Ok(Fate::Discarded) };
        let end = u64::from(offset) + u64::from(length);
        let is_sound = task.flags & flag::WRITE != 0
            && pdu.data_segment_length.get() == 0
            && pdu.r2t_sn.get() == task.r2t_sn
            && pdu.target_transfer_tag.get() != RESERVED_TAG
            && (1..=self.parameters.max_burst_length).contains(&length)
            && end <= u64::from(task.length);
        task.r2t_sn = task.r2t_sn.wrapping_add(1);
        let transfer_tag = pdu.target_transfer_tag.get();
        let sequence = Sequence { transfer_tag, offset, end: offset.wrapping_add(length) };
        if !is_sound || !task.push_sequence(sequence) {
            return Err(Violation::DataRange);
        }
        if !task.queued {
            task.queued = true;
            self.output.push_data(id);
        }
        Ok(Fate::Discarded)
    }

    pub(super) fn handle_collected(
        &mut self,
        header: &Header,
        data: &[u8],
    ) -> Result<Option<Event>, Violation> {
        match header.opcode() {
            Opcode::SCSI_RESPONSE => self.handle_response(header.view(), data),
            Opcode::NOP_IN => self.handle_nop_in(header.view()),
            Opcode::ASYNC_MESSAGE => self.handle_async(header.view(), data),
            Opcode::TEXT_RESPONSE => self.handle_text(header.view(), data),
            Opcode::REJECT => self.handle_reject(header.view(), data),
            Opcode::LOGOUT_RESPONSE => self.handle_logout(header.view()),
            _ => {
                let pdu: &TaskManagementResponse = header.view();
                let tag = pdu.initiator_task_tag.get();
                let is_management = |kind| matches!(kind, RequestKind::Management(_));
                let kind = self.answered(tag, is_management)?;
                let response = TaskResponse(pdu.response);
                if let RequestKind::Management(asked) = kind {
                    self.end_aborted(&asked, response);
                }
                Ok(Some(Event::Managed { tag: ManagementTag(tag), response }))
            }
        }
    }

    fn handle_response(
        &mut self,
        pdu: &ScsiResponse,
        data: &[u8],
    ) -> Result<Option<Event>, Violation> {
        let id = TaskId(pdu.initiator_task_tag.get());
        let Some(task) = self.tasks.get(id) else { return Ok(None) };
        let outcome = Outcome {
            response: ScsiResponseCode(pdu.response),
            status: pdu.status,
            received: task.received,
            residual: residual(pdu.flags, pdu.residual_count.get()),
        };
        self.keep_sense(data)?;
        self.tasks.end(id);
        Ok(Some(Event::Done { task: id, outcome }))
    }

    /// Length in two bytes, then sense data (11.4.7).
    fn keep_sense(&mut self, data: &[u8]) -> Result<(), Violation> {
        self.sense.clear();
        let Some((length, rest)) = data.split_first_chunk() else {
            return if data.is_empty() { Ok(()) } else { Err(Violation::Field("SenseLength")) };
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let sense = rest.get(..length).ok_or(Violation::Field("SenseLength"))?;
        self.sense.extend_from_slice(sense);
        Ok(())
    }

    fn handle_nop_in(&mut self, pdu: &NopIn) -> Result<Option<Event>, Violation> {
        let (tag, transfer) = (pdu.initiator_task_tag.get(), pdu.target_transfer_tag.get());
        if tag != RESERVED_TAG {
            let is_ping = |kind| matches!(kind, RequestKind::Ping | RequestKind::Filler);
            let kind = self.answered(tag, is_ping)?;
            return Ok((kind == RequestKind::Ping).then_some(Event::Pong));
        }
        if transfer != RESERVED_TAG {
            let pong = NopOut {
                opcode: NopOut::OPCODE.0 | flag::IMMEDIATE,
                flags: flag::FINAL,
                lun: pdu.lun,
                initiator_task_tag: RESERVED_TAG.into(),
                target_transfer_tag: transfer.into(),
                ..NopOut::default()
            };
            self.push_control(&pong, Vec::new());
        }
        Ok(None)
    }

    fn handle_async(
        &mut self,
        pdu: &AsyncMessage,
        data: &[u8],
    ) -> Result<Option<Event>, Violation> {
        let event = AsyncEvent(pdu.async_event);
        self.sense.clear();
        if event == AsyncEvent::SCSI_EVENT {
            self.keep_sense(data)?;
        }
        if [AsyncEvent::CONNECTION_DROP, AsyncEvent::SESSION_DROP].contains(&event) {
            self.end(Ended::Dropped);
        }
        let parameters = [pdu.parameter1.get(), pdu.parameter2.get(), pdu.parameter3.get()];
        Ok(Some(Event::Told { event, parameters }))
    }

    fn handle_text(&mut self, pdu: &TextResponse, data: &[u8]) -> Result<Option<Event>, Violation> {
        let (tag, transfer) = (pdu.initiator_task_tag.get(), pdu.target_transfer_tag.get());
        if self.found_text.len() + data.len() > TEXT_BYTES_MAX {
            return Err(Violation::TextLength { max: TEXT_BYTES_MAX });
        }
        self.found_text.extend_from_slice(data);
        if pdu.flags & flag::FINAL == 0 {
            let is_known = self.requests.iter().any(|it| it.tag == tag);
            if transfer == RESERVED_TAG || !is_known {
                return Err(Violation::Tag);
            }
            self.push_text(tag, transfer, Vec::new());
            return Ok(None);
        }
        self.answered(tag, |kind| kind == RequestKind::Text)?;
        let text = std::mem::take(&mut self.found_text);
        self.found = found(&text)?;
        Ok(Some(Event::Found))
    }

    fn handle_reject(&mut self, pdu: &Reject, data: &[u8]) -> Result<Option<Event>, Violation> {
        let Ok((bad, _)) = Header::read_from_prefix(data) else {
            return Err(Violation::Field("header of the rejected PDU"));
        };
        let tag = bad.initiator_task_tag.get();
        let is_command = bad.opcode() == ScsiCommand::OPCODE;
        let task = Some(TaskId(tag)).filter(|id| is_command && self.tasks.get(*id).is_some());
        let request = self.answered(tag, |_| !is_command).ok();
        let refused = match (task, request) {
            (Some(task), _) => Refused::Command(task),
            (None, Some(RequestKind::Management(_))) => Refused::Management(ManagementTag(tag)),
            (None, Some(RequestKind::Text)) => Refused::Discovery,
            (None, Some(RequestKind::Ping)) => Refused::Ping,
            (None, Some(RequestKind::Logout(_))) => Refused::Logout,
            (None, Some(RequestKind::Filler) | None) => Refused::Other,
        };
        if refused == Refused::Discovery {
            self.found_text.clear();
        }
        Ok(Some(Event::Rejected { reason: RejectReason(pdu.reason), refused }))
    }

    /// What a task management function has ended is answered by nothing else.
    fn end_aborted(&mut self, asked: &Management, response: TaskResponse) {
        // Statuses come in order, so a task that the target does not know was never begun there.
        let is_gone = asked.function == TaskFunction::ABORT_TASK
            && response == TaskResponse::TASK_DOES_NOT_EXIST;
        self.aborted.clear();
        if response == TaskResponse::FUNCTION_COMPLETE || is_gone {
            let all = self.tasks.all().filter(|(id, task)| asked.ends(*id, task));
            self.aborted.extend(all.map(|(id, _)| id));
        }
        for id in &self.aborted {
            self.tasks.end(*id);
        }
    }

    fn handle_logout(&mut self, pdu: &LogoutReply) -> Result<Option<Event>, Violation> {
        let tag = pdu.initiator_task_tag.get();
        let kind = self.answered(tag, |kind| matches!(kind, RequestKind::Logout(_)))?;
        match (kind, LogoutResponse(pdu.response)) {
            (RequestKind::Logout(reason), LogoutResponse::CLOSED) => {
                self.end(Ended::Logout { reason });
                Ok(Some(Event::Ended))
            }
            _ => Err(Violation::Field("response to a logout")),
        }
    }

    /// The request of this tag has its answer.
    fn answered(
        &mut self,
        tag: u32,
        is_expected: impl Fn(RequestKind) -> bool,
    ) -> Result<RequestKind, Violation> {
        let at = self.requests.iter().position(|it| it.tag == tag && is_expected(it.kind));
        Ok(self.requests.swap_remove(at.ok_or(Violation::Tag)?).kind)
    }
}

fn residual(flags: u8, count: u32) -> Residual {
    match (flags & flag::OVERFLOW != 0, flags & flag::UNDERFLOW != 0) {
        (true, _) => Residual::Overflow(count),
        (false, true) => Residual::Underflow(count),
        (false, false) => Residual::None,
    }
}

/// Targets and their addresses; an address belongs to the name before it (appendix C).
fn found(text: &[u8]) -> Result<Vec<Found>, Violation> {
    let mut all: Vec<Found> = Vec::new();
    for pair in text::pairs(text) {
        let (name, value) = pair?;
        match name {
            key::TARGET_NAME => all.push(Found { name: value.into(), addresses: Vec::new() }),
            key::TARGET_ADDRESS => match all.last_mut() {
                Some(target) => target.addresses.push(value.into()),
                None => return Err(Violation::KeyMissing { key: key::TARGET_NAME }),
            },
            key::SEND_TARGETS => return Err(Violation::KeyRefused { key: key::SEND_TARGETS }),
            _ => {}
        }
    }
    Ok(all)
}
