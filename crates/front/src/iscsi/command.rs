//! A SCSI command and task management, from PDU to answer.
//!
//! A command that sends data waits in its slot until the data is there. Then it runs as an `async
//! fn` that is polled in place; a read that the device answers at once never becomes a task.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use block::Sgl;
use model::stats::{LATENCY_BUCKETS, latency_bucket};
use proto::iscsi::{Answer, DataFault, ManagementId, TaskId};
use rt::Time;
use target::lun::admit::Attribute;
use target::lun::meter::{BUCKETS_MAX, Kind};
use target::scsi::{
    self, Data, Nexus, Parsed, Response, SENSE_BYTES, Sense, Task, TaskManagement, Work,
};
use wire::iscsi::{TaskFunction, TaskResponse, attribute};
use wire::scsi::{AdditionalSense, SenseKey, Status};

use super::RECEIVING_BYTES_MAX;
use super::connection::Connection;
use super::pool::Held;

const _: () = assert!(LATENCY_BUCKETS <= BUCKETS_MAX);

/// The commands of a connection that have memory, by the places of their tasks.
#[derive(Default)]
pub(super) struct Commands {
    slots: RefCell<Vec<Slot>>,
    /// Task management under way that ends all tasks of a unit, or of all units.
    ending: RefCell<Vec<(ManagementId, Option<[u8; 8]>)>>,
    /// Commands that came behind it: they are not to be ended by it, so they wait.
    behind: RefCell<VecDeque<Ready>>,
}

#[derive(Default)]
enum Slot {
    #[default]
    Free,
    /// Data is still to come. When it is here, who runs the command has everything.
    Receiving(Waiting),
    /// Answered; the data is still to be sent.
    Answered(Option<Held>),
}

/// A command whose data is coming in.
struct Waiting {
    task: TaskId,
    parsed: Result<Parsed, scsi::Answer>,
    memory: Held,
}

/// A command that can run.
struct Ready {
    task: TaskId,
    /// When all of it was here.
    at: Time,
    lun: [u8; 8],
    parsed: Parsed,
    tag: u32,
    attribute: Attribute,
    out: Option<Held>,
    into: Option<Held>,
}

impl Commands {
    fn put(&self, task: TaskId, slot: Slot) -> Slot {
        let mut slots = self.slots.borrow_mut();
        if task.index() >= slots.len() {
            slots.resize_with(task.index() + 1, Slot::default);
        }
        std::mem::replace(&mut slots[task.index()], slot)
    }

    /// Whether a command for this unit has to wait.
    #[inline]
    fn waits(&self, lun: [u8; 8]) -> bool {
        let ending = self.ending.borrow();
        !ending.is_empty() && ending.iter().any(|(_, of)| of.is_none_or(|it| it == lun))
    }

    /// It is not to run any more. False: it did not wait.
    fn forget_behind(&self, task: TaskId) -> bool {
        let mut behind = self.behind.borrow_mut();
        let before = behind.len();
        behind.retain(|ready| ready.task != task);
        behind.len() < before
    }

    /// Calls with the memory for the data that a command is sent.
    pub fn with_memory<T>(&self, task: TaskId, f: impl FnOnce(&mut Held) -> T) -> Option<T> {
        match self.slots.borrow_mut().get_mut(task.index()) {
            Some(Slot::Receiving(waiting)) => Some(f(&mut waiting.memory)),
            _ => None,
        }
    }

    /// Calls with the data of an answer; the last call gives the memory back to `sent`.
    pub fn with_answer(&self, task: TaskId, f: impl FnOnce(&mut Held) -> bool) -> Option<Held> {
        let mut slots = self.slots.borrow_mut();
        let Some(Slot::Answered(data)) = slots.get_mut(task.index()) else { return None };
        let is_last = data.as_mut().is_some_and(f);
        if is_last { data.take() } else { None }
    }
}

/// Aborts what runs for this nexus at all its units.
async fn abort_running(nexus: &Nexus) {
    for (number, _) in nexus.units() {
        let lun = wire::scsi::LogicalUnitNumber::new(number).0;
        nexus.manage(lun, TaskManagement::AbortTaskSet).await;
    }
}

impl Connection {
    /// The session is over, or logs out: what has not begun never will.
    pub fn abort_all(self: &Rc<Self>) {
        let tasks: Vec<TaskId> = self.machine.borrow().tasks().collect();
        tasks.into_iter().for_each(|task| self.abort_waiting(task));
        if self.running.get() > 0
            && let Some(nexus) = self.nexus.borrow().clone()
        {
            let connection = self.clone();
            self.shared.core.spawn(async move {
                abort_running(&nexus).await;
                connection.resumed.notify();
            });
        }
    }

    /// A command has arrived.
    #[inline]
    pub fn begin(self: &Rc<Self>, task: TaskId, receives: bool) {
        let Some(nexus) = self.nexus.borrow().clone() else { return };
        let mut machine = self.machine.borrow_mut();
        let Some(command) = machine.command(task) else { return };
        let (tag, lun) = (command.tag, command.lun);
        let attribute = attribute_of(command.attribute);
        let expected = u64::from(command.expected);
        let parsed = nexus.parse(command.lun, command.cdb);
        if receives {
            let parsed = parsed.and_then(|it| it.accepts(expected).map(|()| it));
            let parsed = parsed.and_then(|it| self.has_room_for(it.data_out_len()).map(|()| it));
            let want = parsed.as_ref().map_or(0, |parsed| parsed.data_out_len().min(expected));
            let memory = self.shared.pool.take(want as usize, &self.account);
            self.commands.put(task, Slot::Receiving(Waiting { task, parsed, memory }));
            let is_here = machine.accept(task, want as u32);
            drop(machine);
            if is_here {
                self.data_end(task, None);
            }
            return;
        }
        drop(machine);
        match parsed {
            Err(answer) => self.answer(task, &answer, None),
            Ok(parsed) => {
                let len = parsed.data_in_len().min(expected) as usize;
                let into = (len > 0).then(|| self.shared.pool.take(len, &self.account));
                let at = self.shared.core.turn_time();
                self.run(nexus, Ready { task, at, lun, parsed, tag, attribute, out: None, into });
            }
        }
    }

    /// Data that is still to come is let in up to a limit: it cannot be refused by not reading.
    fn has_room_for(&self, bytes: u64) -> Result<(), scsi::Answer> {
        match self.account.get() as u64 + bytes > RECEIVING_BYTES_MAX {
            true => Err(scsi::Answer::status(Status::TASK_SET_FULL)),
            false => Ok(()),
        }
    }

    /// The data of a command is here, or will never be.
    pub fn data_end(self: &Rc<Self>, task: TaskId, fault: Option<DataFault>) {
        let Slot::Receiving(Waiting { parsed, memory, .. }) = self.commands.put(task, Slot::Free)
        else {
            return;
        };
        let (tag, lun, attribute) = {
            let machine = self.machine.borrow();
            let Some(command) = machine.command(task) else { return };
            (command.tag, command.lun, attribute_of(command.attribute))
        };
        let Some(nexus) = self.nexus.borrow().clone() else { return };
        match (parsed, fault) {
            (Err(answer), _) => self.answer(task, &answer, None),
            (Ok(_), Some(fault)) => {
                let code = AdditionalSense(fault.additional_sense());
                let sense = Sense::new(SenseKey::ABORTED_COMMAND, code);
                self.answer(task, &scsi::Answer::check(sense), None);
            }
            (Ok(parsed), None) => {
                let (at, out) = (self.shared.core.turn_time(), Some(memory));
                self.run(nexus, Ready { task, at, lun, parsed, tag, attribute, out, into: None });
            }
        }
    }

    #[inline]
    fn run(self: &Rc<Self>, nexus: Rc<Nexus>, ready: Ready) {
        if self.commands.waits(ready.lun) {
            return self.commands.behind.borrow_mut().push_back(ready);
        }
        self.running.set(self.running.get() + 1);
        let connection = self.clone();
        self.shared.core.spawn_now(async move {
            let Ready { task, at, parsed, tag, attribute, out, into, .. } = ready;
            let data = Data {
                out: out.as_ref().map_or(Sgl::empty(), Held::sgl),
                into: into.as_ref().map_or(Sgl::empty(), Held::sgl),
            };
            let order = Task { tag: u64::from(tag), attribute };
            let answer = nexus.execute(&parsed, order, data).await;
            connection.running.set(connection.running.get() - 1);
            count_time(&parsed, connection.shared.core.turn_time() - at);
            connection.answer(task, &answer, into);
        });
    }

    /// Answers a command.
    fn answer(&self, task: TaskId, answer: &scsi::Answer, into: Option<Held>) {
        let mut machine = self.machine.borrow_mut();
        if answer.silent {
            self.commands.put(task, Slot::Free);
            machine.abort(task);
        } else {
            let mut sense = [0; SENSE_BYTES];
            let len = answer.sense.map_or(0, |it| it.encode(&mut sense));
            let wanted = answer.full;
            let used = if answer.sense.is_none() { wanted } else { 0 };
            let used = u32::try_from(used).unwrap_or(u32::MAX);
            let moved = if into.is_some() { answer.len as u32 } else { used };
            let data = into.filter(|_| moved > 0).map(|mut data| {
                data.truncate(moved as usize);
                data
            });
            self.commands.put(task, Slot::Answered(data));
            let sense = &sense[..len];
            machine.respond(task, &Answer { status: answer.status.0, moved, wanted, sense });
        }
        drop(machine);
        self.to_send.notify();
        if self.running.get() == 0 {
            self.resumed.notify();
        }
    }

    /// Aborts a command that has not begun.
    fn abort_waiting(&self, task: TaskId) {
        let is_receiving = matches!(
            self.commands.slots.borrow().get(task.index()),
            Some(Slot::Receiving(waiting)) if waiting.task == task
        );
        if is_receiving {
            self.commands.put(task, Slot::Free);
        }
        if is_receiving || self.commands.forget_behind(task) {
            self.machine.borrow_mut().abort(task);
        }
    }

    /// A request that ended tasks is answered: what waited behind it may run.
    fn go_on_behind(self: &Rc<Self>, nexus: &Rc<Nexus>) {
        let behind = self.commands.behind.take();
        behind.into_iter().for_each(|ready| self.run(nexus.clone(), ready));
    }

    /// Does what a task management request asks for.
    pub fn manage(self: &Rc<Self>, id: ManagementId) {
        let Some(nexus) = self.nexus.borrow().clone() else { return };
        let connection = self.clone();
        self.running.set(self.running.get() + 1);
        if let Some(asked) = self.machine.borrow().management(id) {
            let units = ended_units(asked.function, asked.lun);
            self.commands.ending.borrow_mut().extend(units.map(|units| (id, units)));
        }
        self.shared.core.spawn(async move {
            let response = connection.run_management(&nexus, id).await;
            connection.machine.borrow_mut().manage(id, response);
            connection.commands.ending.borrow_mut().retain(|(other, _)| *other != id);
            connection.go_on_behind(&nexus);
            connection.running.set(connection.running.get() - 1);
            connection.to_send.notify();
            connection.resumed.notify();
        });
    }

    async fn run_management(&self, nexus: &Nexus, id: ManagementId) -> TaskResponse {
        let Some(asked) = self.machine.borrow().management(id) else {
            return TaskResponse::FUNCTION_REJECTED;
        };
        let tag = asked.task.and_then(|task| {
            let machine = self.machine.borrow();
            machine.command(task).map(|command| u64::from(command.tag))
        });
        let Some(function) = function_of(asked.function, tag.unwrap_or_default()) else {
            return TaskResponse::FUNCTION_NOT_SUPPORTED;
        };
        let affected = self.machine.borrow().affected(id);
        let waited = affected.len();
        affected.into_iter().for_each(|task| self.abort_waiting(task));
        let response = nexus.manage(asked.lun, function).await;
        match response {
            Response::Complete => TaskResponse::FUNCTION_COMPLETE,
            Response::Succeeded => TaskResponse::FUNCTION_SUCCEEDED,
            Response::Event(_) => TaskResponse::FUNCTION_SUCCEEDED,
            // It was aborted before it began.
            Response::NoTask if waited > 0 => TaskResponse::FUNCTION_COMPLETE,
            Response::NoTask => TaskResponse::TASK_DOES_NOT_EXIST,
            Response::IncorrectLun => TaskResponse::LUN_DOES_NOT_EXIST,
            Response::Failed => TaskResponse::FUNCTION_REJECTED,
        }
    }
}

#[inline]
fn count_time(parsed: &Parsed, taken: Duration) {
    let Some(unit) = parsed.unit() else { return };
    let ns = taken.as_nanos() as u64;
    unit.handle().meter().took(kind_of(parsed), ns, latency_bucket(ns));
}

fn kind_of(parsed: &Parsed) -> Kind {
    match parsed.work() {
        Work::Read => Kind::Read,
        Work::Write => Kind::Write,
        Work::Flush => Kind::Flush,
        Work::Discard => Kind::Discard,
        Work::WriteSame => Kind::WriteZeroes,
        Work::Other => Kind::Other,
    }
}

/// Whose tasks a function ends, if it ends all of them: those of this unit, or of all.
fn ended_units(function: TaskFunction, lun: [u8; 8]) -> Option<Option<[u8; 8]>> {
    match function {
        TaskFunction::ABORT_TASK_SET
        | TaskFunction::CLEAR_TASK_SET
        | TaskFunction::LOGICAL_UNIT_RESET => Some(Some(lun)),
        TaskFunction::TARGET_WARM_RESET
        | TaskFunction::TARGET_COLD_RESET
        | TaskFunction::I_T_NEXUS_RESET => Some(None),
        _ => None,
    }
}

/// The SCSI function that a request names, with the tag of the task if it names one.
fn function_of(function: TaskFunction, tag: u64) -> Option<TaskManagement> {
    Some(match function {
        TaskFunction::ABORT_TASK => TaskManagement::AbortTask { tag },
        TaskFunction::ABORT_TASK_SET => TaskManagement::AbortTaskSet,
        TaskFunction::CLEAR_TASK_SET => TaskManagement::ClearTaskSet,
        TaskFunction::CLEAR_ACA => TaskManagement::ClearAca,
        TaskFunction::LOGICAL_UNIT_RESET => TaskManagement::LogicalUnitReset,
        TaskFunction::TARGET_WARM_RESET | TaskFunction::TARGET_COLD_RESET => {
            TaskManagement::TargetReset
        }
        TaskFunction::I_T_NEXUS_RESET => TaskManagement::NexusReset,
        TaskFunction::QUERY_TASK => TaskManagement::QueryTask { tag },
        TaskFunction::QUERY_TASK_SET => TaskManagement::QueryTaskSet,
        TaskFunction::QUERY_ASYNCHRONOUS_EVENT => TaskManagement::QueryAsyncEvent,
        _ => return None,
    })
}

fn attribute_of(code: u8) -> Attribute {
    match code {
        attribute::ORDERED => Attribute::Ordered,
        attribute::HEAD_OF_QUEUE => Attribute::HeadOfQueue,
        attribute::ACA => Attribute::Aca,
        // Untagged ones too (RFC 7143, 11.3.1): an initiator without tags has one at a time.
        _ => Attribute::Simple,
    }
}
