//! Task management (SAM-5 7): one task, all tasks of a nexus, a unit, a nexus.
//!
//! Task sets are per nexus (TST 001b), so CLEAR TASK SET is ABORT TASK SET. A function is answered
//! when the tasks that it ends have left: after that nothing of them will happen any more.

use wire::scsi::LogicalUnitNumber;

use super::nexus::Nexus;
use super::obstacle;
use super::sense::Sense;
use crate::lun::admit::{Aborted, Which};
use crate::lun::{Change, ResetKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagement {
    AbortTask {
        tag: u64,
    },
    AbortTaskSet,
    ClearTaskSet,
    ClearAca,
    LogicalUnitReset,
    /// Every unit of this nexus is reset; its LUN means nothing.
    TargetReset,
    /// This nexus, at all its units, begins anew; its LUN means nothing.
    NexusReset,
    QueryTask {
        tag: u64,
    },
    QueryTaskSet,
    QueryAsyncEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    Complete,
    /// To the queries: yes.
    Succeeded,
    /// To QUERY ASYNCHRONOUS EVENT: yes, this.
    Event(Sense),
    /// There is no such task; whoever aborts it has what it wants.
    NoTask,
    IncorrectLun,
    /// The owner of the unit's state cannot be reached.
    Failed,
}

impl Nexus {
    pub async fn manage(&self, lun: [u8; 8], function: TaskManagement) -> Response {
        match function {
            TaskManagement::TargetReset => self.reset_target().await,
            TaskManagement::NexusReset => self.lose(true).await,
            _ => self.manage_unit(lun, function).await,
        }
    }

    /// The nexus has ended, or begins anew: what it held at its units is given back. Whoever comes
    /// in its name is told, or not.
    pub async fn lose(&self, tell: bool) -> Response {
        let mut response = Response::Complete;
        for (_, unit) in self.units() {
            let lost = Change::NexusLost { nexus: self.id().clone(), tell };
            if unit.handle.change(lost).await.is_err() {
                response = Response::Failed;
            }
        }
        response
    }

    async fn manage_unit(&self, lun: [u8; 8], function: TaskManagement) -> Response {
        let Some(unit) = self.unit_at(lun) else {
            // A task of the unit that reports LUNs is answered before anybody could abort it.
            let well_known = lun == LogicalUnitNumber::REPORT_LUNS.0;
            return if well_known { Response::NoTask } else { Response::IncorrectLun };
        };
        let tasks = unit.member.tasks();
        match function {
            TaskManagement::AbortTask { tag } => {
                let leaving = tasks.abort(Which::Tag(tag), Aborted::Silently);
                if leaving.is_empty() {
                    return Response::NoTask;
                }
                unit.left(leaving).await;
                Response::Complete
            }
            TaskManagement::AbortTaskSet | TaskManagement::ClearTaskSet => {
                let leaving = tasks.abort(Which::All, Aborted::Silently);
                unit.left(leaving).await;
                Response::Complete
            }
            TaskManagement::ClearAca => {
                let (_, leaving) = tasks.clear_aca();
                unit.left(leaving).await;
                Response::Complete
            }
            TaskManagement::LogicalUnitReset => {
                let by = Some(self.id().clone());
                let reset = Change::Reset { kind: ResetKind::LogicalUnit, by };
                let reply = unit.handle.change(reset).await;
                reply.map_or(Response::Failed, |_| Response::Complete)
            }
            TaskManagement::QueryTask { tag } => answer_to(tasks.contains(Which::Tag(tag))),
            TaskManagement::QueryTaskSet => answer_to(tasks.contains(Which::All)),
            TaskManagement::QueryAsyncEvent => {
                let first = unit.member.attentions().first().map(obstacle::sense_of);
                first.map_or(Response::Complete, Response::Event)
            }
            // Of no single unit.
            TaskManagement::TargetReset | TaskManagement::NexusReset => Response::Complete,
        }
    }

    async fn reset_target(&self) -> Response {
        let mut response = Response::Complete;
        for (_, unit) in self.units() {
            let by = Some(self.id().clone());
            let reset = Change::Reset { kind: ResetKind::LogicalUnit, by };
            if unit.handle.change(reset).await.is_err() {
                response = Response::Failed;
            }
        }
        response
    }
}

fn answer_to(yes: bool) -> Response {
    if yes { Response::Succeeded } else { Response::Complete }
}
