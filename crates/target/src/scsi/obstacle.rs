//! What may stand between a command and its unit, in the order in which a client is told.

use wire::scsi::{AdditionalSense, SenseKey, Status};

use super::answer::Answer;
use super::nexus::Nexus;
use super::parsed::Parsed;
use super::row::{Row, Traits};
use super::sense::Sense;
use super::unit::Unit;
use crate::lun::Interlock;
use crate::lun::View;
use crate::lun::access::AccessState;
use crate::lun::attention::Attention;
use crate::lun::operation::{Operation, OperationKind, Stage};
use crate::lun::reservation::Class;

pub fn check(nexus: &Nexus, unit: &Unit, parsed: &Parsed) -> Result<(), Answer> {
    let view = unit.view();
    let row = parsed.row;
    if !row.traits.contains(Traits::QUIET) {
        attention(nexus, unit, &view)?;
    }
    reservation(unit, parsed.class(), &view)?;
    if !row.access.contains(unit.member.access()) {
        return Err(Answer::check(access(unit.member.access())));
    }
    if let Some(operation) = &view.operation
        && let Some(sense) = operation_in(operation, row)
    {
        return Err(Answer::check(sense));
    }
    if row.traits.contains(Traits::MEDIUM) {
        medium(&view)?;
    }
    if row.traits.contains(Traits::WRITES) && unit.is_write_protected() {
        let code = AdditionalSense::WRITE_PROTECTED;
        return Err(Answer::check(Sense::new(SenseKey::DATA_PROTECT, code)));
    }
    Ok(())
}

/// Tells the most urgent attention. Under an interlock it stays until REQUEST SENSE takes it
/// (SPC-4 7.5.8, UA_INTLCK_CTRL).
fn attention(nexus: &Nexus, unit: &Unit, view: &View) -> Result<(), Answer> {
    let attentions = unit.member.attentions();
    let what = match view.modes.control.interlock {
        Interlock::Clear => attentions.take(),
        Interlock::Keep | Interlock::KeepAndRaise => attentions.first(),
    };
    if what == Some(Attention::ReportedLunsChanged) {
        nexus.told_luns();
    }
    what.map_or(Ok(()), |what| Err(Answer::check(sense_of(what))))
}

fn reservation(unit: &Unit, class: Class, view: &View) -> Result<(), Answer> {
    if unit.member.permits(class) {
        return Ok(());
    }
    if view.modes.control.interlock == Interlock::KeepAndRaise {
        unit.member.attentions().raise(Attention::PreviousReservationConflict);
    }
    Err(Answer::status(Status::RESERVATION_CONFLICT))
}

/// The unit attention condition that an attention is.
pub fn sense_of(what: Attention) -> Sense {
    use AdditionalSense as Code;
    let code = match what {
        Attention::PowerOn => Code::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
        Attention::Reset => Code::BUS_DEVICE_RESET_FUNCTION_OCCURRED,
        Attention::NexusLost => Code::I_T_NEXUS_LOSS_OCCURRED,
        Attention::IdentityChanged => Code::INQUIRY_DATA_HAS_CHANGED,
        Attention::ReportedLunsChanged => Code::REPORTED_LUNS_DATA_HAS_CHANGED,
        Attention::MediumChanged => Code::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED,
        Attention::MediumRemovalRequested => Code::OPERATOR_MEDIUM_REMOVAL_REQUEST,
        Attention::CapacityChanged => Code::CAPACITY_DATA_HAS_CHANGED,
        Attention::ModesChanged => Code::MODE_PARAMETERS_CHANGED,
        Attention::ReservationsPreempted => Code::RESERVATIONS_PREEMPTED,
        Attention::ReservationsReleased => Code::RESERVATIONS_RELEASED,
        Attention::RegistrationsPreempted => Code::REGISTRATIONS_PREEMPTED,
        Attention::AccessChanged => Code::ASYMMETRIC_ACCESS_STATE_CHANGED,
        Attention::CommandsCleared => Code::COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
        Attention::ThresholdReached => Code::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
        Attention::PreviousBusy => Code::PREVIOUS_BUSY_STATUS,
        Attention::PreviousReservationConflict => Code::PREVIOUS_RESERVATION_CONFLICT_STATUS,
        Attention::PreviousTaskSetFull => Code::PREVIOUS_TASK_SET_FULL_STATUS,
    };
    Sense::new(SenseKey::UNIT_ATTENTION, code)
}

fn access(state: AccessState) -> Sense {
    use AdditionalSense as Code;
    let code = match state {
        AccessState::Transitioning => {
            Code::LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION
        }
        AccessState::Standby => Code::LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE,
        AccessState::Unavailable
        | AccessState::Offline
        | AccessState::Optimized
        | AccessState::NonOptimized => {
            Code::LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE
        }
    };
    Sense::new(SenseKey::NOT_READY, code)
}

/// What an operation that runs, or has failed, says to a command; nothing to those that it lets
/// through.
fn operation_in(operation: &Operation, row: &Row) -> Option<Sense> {
    let lets = match operation.stage {
        Stage::Running { .. } => row.traits.contains(Traits::DURING),
        // A failed format is over: what is on the medium is undefined, but there.
        Stage::Failed if operation.kind == OperationKind::Format => true,
        Stage::Failed => row.traits.contains(Traits::FAILED),
    };
    (!lets).then(|| sense_of_operation(operation))
}

/// For commands that it does not let through, and for REQUEST SENSE.
pub fn sense_of_operation(operation: &Operation) -> Sense {
    use AdditionalSense as Code;
    match (operation.stage, operation.kind) {
        (Stage::Running { progress }, OperationKind::Format) => {
            let code = Code::LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS;
            Sense::new(SenseKey::NOT_READY, code).with_progress(progress)
        }
        (Stage::Running { progress }, OperationKind::Sanitize) => {
            let code = Code::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS;
            Sense::new(SenseKey::NOT_READY, code).with_progress(progress)
        }
        (Stage::Failed, OperationKind::Format) => {
            Sense::new(SenseKey::MEDIUM_ERROR, Code::FORMAT_COMMAND_FAILED)
        }
        (Stage::Failed, OperationKind::Sanitize) => {
            Sense::new(SenseKey::MEDIUM_ERROR, Code::SANITIZE_COMMAND_FAILED)
        }
    }
}

/// Whether there is a medium to work on.
pub fn medium(view: &View) -> Result<(), Sense> {
    use AdditionalSense as Code;
    let code = match (view.medium.open, view.medium.present) {
        (true, _) => Code::MEDIUM_NOT_PRESENT_TRAY_OPEN,
        (false, false) => Code::MEDIUM_NOT_PRESENT,
        (false, true) if !view.started => {
            Code::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED
        }
        (false, true) => return Ok(()),
    };
    Err(Sense::new(SenseKey::NOT_READY, code))
}
