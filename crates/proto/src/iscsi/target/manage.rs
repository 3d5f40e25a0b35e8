//! Task management, asynchronous messages, and the end of a logout.
//!
//! The answer to a task management request comes after everything that is said about the tasks it
//! affects (RFC 7143, 4.2.3.3): it is held back until the owner has answered or aborted them.

use super::output::StatSn;
use super::tasks::Task;
use super::{Event, Target, TaskId};
use crate::iscsi::error::Ended;
use crate::iscsi::serial::is_before;
use wire::iscsi::{
    AsyncEvent, AsyncMessage as AsyncPdu, Header, LogoutReason, LogoutResponse, RESERVED_TAG,
    TaskFunction, TaskManagementRequest, TaskManagementResponse, TaskResponse, flag,
};

/// A task management request that waits for the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManagementId(u32);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Management {
    pub function: TaskFunction,
    pub lun: [u8; 8],
    /// Of ABORT TASK and QUERY TASK: the task, with the owner.
    pub task: Option<TaskId>,
}

/// Something to tell the initiator (RFC 7143, 11.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncMessage<'a> {
    /// An event of a logical unit.
    Scsi { lun: [u8; 8], sense: &'a [u8] },
    /// It should log out within so many seconds.
    RequestLogout { within_s: u16 },
    /// This connection, and with it the session, ends now; it may come again after `wait_s`.
    Drop { wait_s: u16 },
    /// It should negotiate parameters again within so many seconds.
    RequestNegotiation { within_s: u16 },
}

/// A logout that waits for the last command, and for the owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logout {
    pub tag: u32,
    pub reason: LogoutReason,
    /// Whoever is told of the end knows of it.
    pub is_settled: bool,
}

#[derive(Default)]
pub(super) struct Managements {
    pending: Vec<Pending>,
    next: u32,
}

struct Pending {
    id: ManagementId,
    asked: Management,
    tag: u32,
    cmd_sn: u32,
    holds_credit: bool,
    answer: Option<TaskResponse>,
}

impl Pending {
    /// Whether this task is aborted by it: one that came before it (RFC 7143, 4.2.3.3).
    fn affects(&self, id: TaskId, task: &Task) -> bool {
        let is_earlier = is_before(task.cmd_sn, self.cmd_sn) || !task.holds_credit;
        let is_of_unit = task.lun == self.asked.lun;
        match self.asked.function {
            TaskFunction::ABORT_TASK => self.asked.task == Some(id),
            TaskFunction::ABORT_TASK_SET
            | TaskFunction::CLEAR_TASK_SET
            | TaskFunction::LOGICAL_UNIT_RESET => is_earlier && is_of_unit,
            TaskFunction::TARGET_WARM_RESET
            | TaskFunction::TARGET_COLD_RESET
            | TaskFunction::I_T_NEXUS_RESET => is_earlier,
            _ => false,
        }
    }
}

impl Target {
    /// A request that is not answered yet.
    pub fn management(&self, id: ManagementId) -> Option<Management> {
        self.managements.pending.iter().find(|it| it.id == id).map(|it| it.asked)
    }

    /// The tasks of this session that the request aborts and that are still with the owner.
    pub fn affected(&self, id: ManagementId) -> Vec<TaskId> {
        let Some(pending) = self.managements.pending.iter().find(|it| it.id == id) else {
            return Vec::new();
        };
        let of_owner = self.tasks.all().filter(|(_, task)| task.is_with_owner());
        of_owner.filter(|(id, task)| pending.affects(*id, task)).map(|(id, _)| id).collect()
    }

    /// Answers a request. The answer leaves when the last of the affected tasks has been answered
    /// or aborted.
    pub fn manage(&mut self, id: ManagementId, response: TaskResponse) {
        if let Some(pending) = self.managements.pending.iter_mut().find(|it| it.id == id) {
            pending.answer = Some(response);
            self.after_owner();
        }
    }

    /// Tells the initiator something it did not ask for.
    pub fn tell(&mut self, message: AsyncMessage<'_>) {
        let mut pdu = AsyncPdu {
            flags: flag::FINAL,
            initiator_task_tag: RESERVED_TAG.into(),
            ..AsyncPdu::default()
        };
        let mut data = Vec::new();
        match message {
            AsyncMessage::Scsi { lun, sense } => {
                pdu.async_event = AsyncEvent::SCSI_EVENT.0;
                pdu.lun = lun;
                let length = u16::try_from(sense.len()).expect("sense data is short");
                data.extend_from_slice(&length.to_be_bytes());
                data.extend_from_slice(sense);
            }
            AsyncMessage::RequestLogout { within_s } => {
                pdu.async_event = AsyncEvent::LOGOUT_REQUEST.0;
                pdu.parameter3 = within_s.into();
            }
            AsyncMessage::Drop { wait_s } => {
                pdu.async_event = AsyncEvent::SESSION_DROP.0;
                pdu.parameter2 = wait_s.into();
            }
            AsyncMessage::RequestNegotiation { within_s } => {
                pdu.async_event = AsyncEvent::PARAMETER_NEGOTIATION.0;
                pdu.parameter3 = within_s.into();
            }
        }
        self.output.push_control(&pdu, data, StatSn::Takes);
        if matches!(message, AsyncMessage::Drop { .. }) {
            self.end(Ended::Dropped);
        }
    }

    pub(super) fn handle_management(&mut self, header: &Header) -> Option<Event> {
        let pdu: &TaskManagementRequest = header.view();
        let function = TaskFunction(pdu.function & flag::FUNCTION_MASK);
        let named = self.tasks.by_tag(pdu.referenced_task_tag.get());
        let task = named.filter(|id| self.tasks.get(*id).is_some_and(Task::is_with_owner));
        let id = ManagementId(self.managements.next);
        self.managements.next = self.managements.next.wrapping_add(1);
        self.managements.pending.push(Pending {
            id,
            asked: Management { function, lun: pdu.lun, task },
            tag: pdu.initiator_task_tag.get(),
            cmd_sn: pdu.cmd_sn.get(),
            holds_credit: !header.is_immediate(),
            answer: None,
        });
        let at_once = match function {
            // In order and alone on its connection, what has no task any more was answered.
            TaskFunction::ABORT_TASK | TaskFunction::QUERY_TASK if task.is_none() => {
                Some(TaskResponse::TASK_DOES_NOT_EXIST)
            }
            TaskFunction::TASK_REASSIGN => Some(TaskResponse::REASSIGNMENT_NOT_SUPPORTED),
            _ if function.name().is_none() => Some(TaskResponse::FUNCTION_NOT_SUPPORTED),
            // RFC 7144, 5.1: only when negotiated.
            _ if function >= TaskFunction::QUERY_TASK
                && self.parameters.iscsi_protocol_level < 2 =>
            {
                Some(TaskResponse::FUNCTION_NOT_SUPPORTED)
            }
            _ => None,
        };
        let Some(response) = at_once else { return Some(Event::Manage(id)) };
        self.manage(id, response);
        None
    }

    /// A command has left the owner, or a request was answered: answers that were held back may go.
    #[inline]
    pub(super) fn after_owner(&mut self) {
        if !self.managements.pending.is_empty() {
            self.release_managements();
        }
        let is_settled = self.logout.is_some_and(|logout| logout.is_settled);
        if is_settled && self.tasks.with_owner == 0 {
            self.release_logout();
        }
    }

    /// Whoever is told of a session's end knows of it: the answer to the logout may go when the
    /// last command has left. An initiator that has it may count on what the session held being
    /// free (SAM-5 6.3.4: the nexus is lost).
    pub fn settle_logout(&mut self) {
        if let Some(logout) = &mut self.logout {
            logout.is_settled = true;
        }
        self.after_owner();
    }

    #[cold]
    fn release_managements(&mut self) {
        let tasks = &self.tasks;
        let is_free = |pending: &Pending| {
            let holds =
                |(id, task): (TaskId, &Task)| task.is_with_owner() && pending.affects(id, task);
            pending.answer.is_some() && !tasks.all().any(holds)
        };
        let (free, held) = std::mem::take(&mut self.managements.pending)
            .into_iter()
            .partition::<Vec<_>, _>(is_free);
        self.managements.pending = held;
        for pending in free {
            let reply = TaskManagementResponse {
                flags: flag::FINAL,
                response: pending.answer.map_or(0, |answer| answer.0),
                initiator_task_tag: pending.tag.into(),
                ..TaskManagementResponse::default()
            };
            if pending.holds_credit {
                self.max_cmd_sn = self.max_cmd_sn.wrapping_add(1);
            } else {
                self.immediate -= 1;
            }
            self.output.push_control(&reply, Vec::new(), StatSn::Takes);
        }
    }

    #[cold]
    fn release_logout(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if let Some(Logout { tag, reason, .. }) = self.logout {
            self.push_logout_response(tag, LogoutResponse::CLOSED);
            self.end(Ended::Logout { reason });
        }
    }
}
