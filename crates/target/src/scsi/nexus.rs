//! One nexus on one core: the LUNs behind it, and the way of a command from its CDB to its answer.
//!
//! ```text
//! parse: LUN → place, CDB → row, usage mask, lengths          no side effects, nothing allocated
//! execute: task set → attention → reservation → access →
//!          operation → medium → write protection → the command
//! ```
//!
//! A read or write that finds nothing in its way takes the short path: one look at the member, one
//! request for the device. Everything else is boxed, so that the future of a command stays small.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use block::{Op, Request, Sgl};
use wire::scsi::{AdditionalSense, LogicalUnitNumber, Opcode, Status};

use super::answer::{Answer, Data, Task};
use super::context::{Context, byte_range};
use super::env::Env;
use super::parsed::{CDB_BYTES, Parsed, Place};
use super::row::{Row, Run, Transfer};
use super::sense::Sense;
use super::unit::{Kind, TargetPort, Unit};
use super::{obstacle, sbc, spc, table};
use crate::lun::Interlock;
use crate::lun::NexusId;
use crate::lun::admit::{Entered, Fault, NotAdmitted};
use crate::lun::attention::Attention;
use crate::lun::map::{Map, MapError};

pub struct Nexus {
    id: NexusId,
    port: TargetPort,
    env: Rc<dyn Env>,
    units: RefCell<Map<Rc<Unit>>>,
    traffic: Traffic,
}

/// What has passed through a nexus here.
#[derive(Debug, Default)]
pub struct Traffic {
    commands: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Traffic {
    #[inline]
    fn count(&self, bytes_in: usize, bytes_out: usize) {
        self.commands.set(self.commands.get() + 1);
        self.bytes_in.set(self.bytes_in.get() + bytes_in as u64);
        self.bytes_out.set(self.bytes_out.get() + bytes_out as u64);
    }

    /// Commands that units have executed.
    pub fn commands(&self) -> u64 {
        self.commands.get()
    }

    /// Bytes for the initiator (data-in).
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Bytes of the initiator (data-out).
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }
}

impl Nexus {
    pub fn new(id: NexusId, port: TargetPort, env: Rc<dyn Env>) -> Rc<Self> {
        Rc::new(Self { id, port, env, units: RefCell::default(), traffic: Traffic::default() })
    }

    /// Shows a unit under this number; the others report that there is something new.
    pub fn map(&self, number: u16, unit: Rc<Unit>) -> Result<(), MapError> {
        self.units.borrow_mut().insert(number, unit)?;
        self.tell_luns_changed(Some(number));
        Ok(())
    }

    pub fn unmap(&self, number: u16) -> Option<Rc<Unit>> {
        let unit = self.units.borrow_mut().remove(number)?;
        self.tell_luns_changed(None);
        Some(unit)
    }

    pub fn id(&self) -> &NexusId {
        &self.id
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn port(&self) -> &TargetPort {
        &self.port
    }

    /// The units with their numbers, in order.
    pub fn units(&self) -> Vec<(u16, Rc<Unit>)> {
        self.units.borrow().iter().map(|(number, unit)| (number, unit.clone())).collect()
    }

    /// Somebody waits until all commands have ended.
    pub fn hasten(&self) {
        self.units().iter().for_each(|(_, unit)| unit.device().hasten());
    }

    pub fn unit_at(&self, lun: [u8; 8]) -> Option<Rc<Unit>> {
        let number = LogicalUnitNumber(lun).number()?;
        self.units.borrow().get(u16::try_from(number).ok()?).cloned()
    }

    /// Understands a command. An error is its answer, given without any effect.
    #[inline]
    pub fn parse(&self, lun: [u8; 8], cdb: &[u8]) -> Result<Parsed, Answer> {
        let place = self.place(lun);
        let bytes = padded(cdb);
        let row = match row_for(&place, &bytes) {
            Ok(row) => row,
            Err(sense) => return Err(refused(&place, sense)),
        };
        let mut parsed = Parsed::new(place, row, bytes);
        match parsed.measure() {
            Ok(()) => Ok(parsed),
            Err(sense) => Err(refused(&parsed.place, sense)),
        }
    }

    /// Runs a command. Dropping the future abandons the answer, not what the device has begun.
    #[inline]
    pub async fn execute(&self, parsed: &Parsed, task: Task, data: Data<'_>) -> Answer {
        let Place::Unit(unit) = &parsed.place else { return self.execute_nowhere(parsed, data) };
        let entered = match unit.member.tasks().enter(task.tag, task.attribute) {
            Ok(entered) => entered,
            Err(why) => return not_admitted(unit, why),
        };
        if !entered.is_enabled()
            && let Err(how) = entered.turn().await
        {
            return Answer::aborted(how);
        }
        let answer = match direct(unit, parsed, data) {
            Some(request) => {
                let outcome = unit.device().io(&request).await;
                unit.count(&request, &outcome);
                match outcome {
                    Ok(_) if request.op == Op::Read => {
                        Answer::data(request.data.len(), request.data.len() as u64)
                    }
                    Ok(_) => Answer::data(0, request.len),
                    Err(error) => Answer::of_error(&error, request.op.is_write()),
                }
            }
            None => Box::pin(self.execute_rarely(unit, parsed, &entered, data)).await,
        };
        self.traffic.count(answer.len, data.out.len());
        let answer = match answer.sense {
            Some(_) => failed(unit, parsed, &entered, answer).await,
            None => answer,
        };
        entered.aborted().map_or(answer, Answer::aborted)
    }

    async fn execute_rarely(
        &self,
        unit: &Unit,
        parsed: &Parsed,
        entered: &Entered<'_>,
        data: Data<'_>,
    ) -> Answer {
        // Aborted between its turn and now, by somebody who was woken first.
        if let Some(how) = entered.aborted() {
            return Answer::aborted(how);
        }
        if let Err(answer) = obstacle::check(self, unit, parsed) {
            return answer;
        }
        let context = Context { nexus: self, unit, parsed, entered, data };
        let outcome = match parsed.row.run {
            Run::Blocks => return sbc::transfer::run(&context).await.unwrap_or_else(|it| it),
            Run::Tell(tell) => tell(&context).map_err(Answer::from),
            Run::Act(act) => act(&context).await,
        };
        match outcome {
            Ok(bytes) => deliver(&bytes, parsed, data),
            Err(answer) => answer,
        }
    }

    /// What is answered where no unit is: that there is none, and which there are (SPC-4 6.4.1).
    #[cold]
    fn execute_nowhere(&self, parsed: &Parsed, data: Data<'_>) -> Answer {
        let well_known = matches!(parsed.place, Place::WellKnown);
        let bytes = match parsed.row.opcode {
            Opcode::INQUIRY => spc::inquiry::nowhere(self, parsed, well_known),
            Opcode::REPORT_LUNS => spc::luns::report(self, parsed),
            Opcode::REQUEST_SENSE => Ok(spc::sense::nowhere(parsed, well_known)),
            _ => Ok(Vec::new()),
        };
        match bytes {
            Ok(bytes) => deliver(&bytes, parsed, data),
            Err(sense) => Answer::check(sense),
        }
    }

    fn place(&self, lun: [u8; 8]) -> Place {
        match self.unit_at(lun) {
            Some(unit) => Place::Unit(unit),
            None if lun == LogicalUnitNumber::REPORT_LUNS.0 => Place::WellKnown,
            None => Place::Nothing,
        }
    }

    pub(super) fn env(&self) -> &Rc<dyn Env> {
        &self.env
    }

    /// Every unit but the new one has this to tell.
    fn tell_luns_changed(&self, new: Option<u16>) {
        for (number, unit) in self.units.borrow().iter() {
            if Some(number) != new {
                unit.member.attentions().raise(Attention::ReportedLunsChanged);
            }
        }
    }

    /// The client knows, by a list or by one unit, so no unit has to tell any more (LUICLR, SPC-4
    /// 7.8.7).
    pub fn told_luns(&self) {
        for (_, unit) in self.units.borrow().iter() {
            unit.member.attentions().remove(Attention::ReportedLunsChanged);
        }
    }
}

/// The CDB with zeroes behind it, or without what is behind the longest there is.
#[inline]
fn padded(cdb: &[u8]) -> [u8; CDB_BYTES] {
    match cdb.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut bytes = [0; CDB_BYTES];
            bytes[..cdb.len()].copy_from_slice(cdb);
            bytes
        }
    }
}

fn row_for(place: &Place, bytes: &[u8; CDB_BYTES]) -> Result<&'static Row, Sense> {
    let opcode = Opcode(bytes[0]);
    let is_known_here = match place {
        Place::Unit(_) => true,
        Place::WellKnown => NOWHERE.contains(&opcode) || opcode == Opcode::TEST_UNIT_READY,
        Place::Nothing => NOWHERE.contains(&opcode),
    };
    if !is_known_here {
        return Err(Sense::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED));
    }
    let row = match place {
        Place::Unit(unit) => table::find(unit.settings.kind, bytes).filter(|row| row.is_of(unit)),
        Place::WellKnown | Place::Nothing => table::find(Kind::Disk, bytes),
    };
    let Some(row) = row else { return Err(unknown(place, bytes)) };
    match row.usage.stray(*bytes) {
        None => Ok(row),
        Some((byte, bit)) => Err(Sense::field_bit(byte, bit)),
    }
}

/// Commands that are answered where there is no unit.
const NOWHERE: [Opcode; 3] = [Opcode::INQUIRY, Opcode::REPORT_LUNS, Opcode::REQUEST_SENSE];

#[cold]
fn unknown(place: &Place, bytes: &[u8; CDB_BYTES]) -> Sense {
    let kind = match place {
        Place::Unit(unit) => unit.settings.kind,
        Place::WellKnown | Place::Nothing => Kind::Disk,
    };
    // Where the operation code is one of ours it is the service action that is not.
    match table::knows(kind, Opcode(bytes[0])) && table::find(kind, bytes).is_none() {
        true => Sense::field(1),
        false => Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE),
    }
}

#[cold]
fn refused(place: &Place, sense: Sense) -> Answer {
    Answer::check(sense.in_format(place.wants_descriptors()))
}

/// The request of a read or write that nothing stands in the way of.
#[inline]
fn direct<'a>(unit: &Unit, parsed: &Parsed, data: Data<'a>) -> Option<Request<'a>> {
    if !matches!(parsed.row.run, Run::Blocks) || !unit.member.is_clear_for(parsed.row.class) {
        return None;
    }
    let (offset, len) = byte_range(unit, parsed.lba, parsed.count).ok()?;
    let (op, data) = match parsed.row.transfer {
        Transfer::BlocksIn if !parsed.is_fua() => (Op::Read, data.into),
        Transfer::BlocksOut => {
            let view = unit.view();
            if unit.is_protected(&view) {
                return None;
            }
            let fua = parsed.is_fua() || !view.modes.caching.write_back;
            (Op::Write { fua, atomic: false }, data.out)
        }
        _ => return None,
    };
    let data = cut(data, len)?;
    Some(Request { op, offset, len, data })
}

/// The first so many bytes, at least one; none where there are fewer.
#[inline]
fn cut(data: Sgl<'_>, len: u64) -> Option<Sgl<'_>> {
    let len = usize::try_from(len).ok()?;
    (len > 0 && len <= data.len()).then(|| data.slice(0, len))
}

/// Puts data-in where it goes, as far as the CDB allows and there is room.
fn deliver(bytes: &[u8], parsed: &Parsed, data: Data<'_>) -> Answer {
    if parsed.data_out_len() > 0 {
        return Answer::data(0, parsed.data_out_len());
    }
    let full = (bytes.len() as u64).min(parsed.data_in_len());
    let len = bytes.len().min(data.into.len()).min(full as usize);
    data.into.copy_in(0, &bytes[..len]);
    Answer::data(len, full)
}

#[cold]
fn not_admitted(unit: &Unit, why: NotAdmitted) -> Answer {
    match why {
        NotAdmitted::Full => {
            if unit.view().modes.control.interlock == Interlock::KeepAndRaise {
                unit.member.attentions().raise(Attention::PreviousTaskSetFull);
            }
            Answer::status(Status::TASK_SET_FULL)
        }
        NotAdmitted::AcaActive => Answer::status(Status::ACA_ACTIVE),
        // SAM-5 8.6.5.
        NotAdmitted::NoAca => {
            let sense = Sense::illegal(AdditionalSense::INVALID_MESSAGE_ERROR);
            let descriptor = unit.view().modes.control.descriptor_sense;
            Answer::check(sense.in_format(descriptor))
        }
    }
}

/// A CHECK CONDITION leaves: in the format that the client wants, and with what it does to the
/// other tasks, on this core and on others.
#[cold]
fn failed(
    unit: &Unit,
    parsed: &Parsed,
    entered: &Entered<'_>,
    answer: Answer,
) -> impl Future<Output = Answer> + use<> {
    let control = unit.view().modes.control;
    let abort_others = control.error_queue.aborts();
    let told = entered.fault(Fault { aca: parsed.is_naca(), abort_others });
    let sense = answer.sense.map(|sense| sense.in_format(control.descriptor_sense));
    async move {
        if !told.is_empty() {
            told.all().await;
        }
        Answer { sense, ..answer }
    }
}
