//! The control queue: task management, and asynchronous notification (5.6.6.2).
//!
//! A nexus that several queues use has a task set on each core that serves one of them. A function
//! that ends or asks about tasks is brought to each of these, and [`gather`] makes one answer of
//! theirs; what changes the unit's state reaches every core by itself and is asked for once.

use wire::virtio::scsi::{
    ControlType, Notification, NotificationResponse, Response, TaskFunction, TaskManagement,
    asynchronous,
};
use zerocopy::FromBytes;

use super::request::lun_of;
use crate::scsi::{self, TaskManagement as Scsi};

/// A control request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Manage(Function),
    /// Which of these kinds of notification there are.
    Query {
        requested: u32,
    },
    /// From now on these kinds are wanted, of this LUN.
    Subscribe {
        lun: [u8; 8],
        requested: u32,
    },
    /// Understood as far as that this is its answer.
    Refused(Response),
}

/// A task management function, and where it has to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    pub lun: [u8; 8],
    pub what: Scsi,
    /// On every core that serves the nexus, not on one for all.
    pub everywhere: bool,
    /// Tasks that it ends are ended by the nexus itself.
    pub aborts: bool,
}

impl Control {
    /// Kinds of notification that can be subscribed to.
    pub const NOTIFICATIONS: u32 = asynchronous::MEDIA_CHANGE | asynchronous::EXTERNAL_REQUEST;

    /// How long its response is.
    pub const fn response_bytes(control_type: ControlType) -> usize {
        match control_type {
            ControlType::AN_QUERY | ControlType::AN_SUBSCRIBE => size_of::<NotificationResponse>(),
            _ => size_of::<Response>(),
        }
    }
}

/// Reads a control request; none where it is too short for what it says it is.
pub fn parse(bytes: &[u8]) -> Option<(ControlType, Control)> {
    let (first, _) = bytes.split_first_chunk::<4>()?;
    let control_type = ControlType(u32::from_le_bytes(*first));
    let control = match control_type {
        ControlType::TMF => manage(&TaskManagement::read_from_prefix(bytes).ok()?.0),
        ControlType::AN_QUERY | ControlType::AN_SUBSCRIBE => {
            let asked = Notification::read_from_prefix(bytes).ok()?.0;
            notification(control_type, &asked)
        }
        _ => Control::Refused(Response::FAILURE),
    };
    Some((control_type, control))
}

fn manage(asked: &TaskManagement) -> Control {
    // Which nexus is clear without an address.
    let is_of_nexus = TaskFunction(asked.subtype.get()) == TaskFunction::I_T_NEXUS_RESET;
    let lun = match lun_of(asked.lun) {
        Some(lun) => lun,
        None if is_of_nexus => [0; 8],
        None => return Control::Refused(Response::BAD_TARGET),
    };
    let tag = asked.id.get();
    let (what, everywhere, aborts) = match TaskFunction(asked.subtype.get()) {
        TaskFunction::ABORT_TASK => (Scsi::AbortTask { tag }, true, true),
        TaskFunction::ABORT_TASK_SET => (Scsi::AbortTaskSet, true, true),
        TaskFunction::CLEAR_TASK_SET => (Scsi::ClearTaskSet, true, true),
        TaskFunction::CLEAR_ACA => (Scsi::ClearAca, true, true),
        TaskFunction::QUERY_TASK => (Scsi::QueryTask { tag }, true, false),
        TaskFunction::QUERY_TASK_SET => (Scsi::QueryTaskSet, true, false),
        TaskFunction::LOGICAL_UNIT_RESET => (Scsi::LogicalUnitReset, false, false),
        TaskFunction::I_T_NEXUS_RESET => (Scsi::NexusReset, false, false),
        _ => return Control::Refused(Response::FUNCTION_REJECTED),
    };
    Control::Manage(Function { lun, what, everywhere, aborts })
}

fn notification(control_type: ControlType, asked: &Notification) -> Control {
    let Some(lun) = lun_of(asked.lun) else { return Control::Refused(Response::BAD_TARGET) };
    let requested = asked.event_requested.get();
    match control_type {
        ControlType::AN_QUERY => Control::Query { requested },
        _ => Control::Subscribe { lun, requested },
    }
}

/// The answer of all cores together: whoever had the task decides.
pub fn gather(answers: impl IntoIterator<Item = scsi::Response>) -> scsi::Response {
    use scsi::Response as Of;
    let weight = |answer: &Of| match answer {
        Of::NoTask => 0,
        Of::Complete => 1,
        Of::Event(_) | Of::Succeeded => 2,
        Of::IncorrectLun => 3,
        Of::Failed => 4,
    };
    answers.into_iter().max_by_key(weight).unwrap_or(Of::Failed)
}

pub fn response_of(answer: scsi::Response) -> Response {
    match answer {
        // To abort what has ended is no mistake (SAM-5 7.2).
        scsi::Response::Complete | scsi::Response::NoTask => Response::OK,
        scsi::Response::Succeeded | scsi::Response::Event(_) => Response::FUNCTION_SUCCEEDED,
        scsi::Response::IncorrectLun => Response::INCORRECT_LUN,
        scsi::Response::Failed => Response::TARGET_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::super::request::address_of;
    use super::*;

    fn tmf(subtype: u32, lun: [u8; 8]) -> Control {
        let asked = TaskManagement {
            control_type: ControlType::TMF.0.into(),
            subtype: subtype.into(),
            lun,
            id: 77.into(),
        };
        parse(asked.as_bytes()).unwrap().1
    }

    #[test]
    fn every_function_of_the_standard_is_known() {
        for function in TaskFunction::ALL {
            let control = tmf(function.0, address_of(3));
            let Control::Manage(known) = control else { panic!("{function}: {control:?}") };
            assert_eq!(known.lun, [0, 3, 0, 0, 0, 0, 0, 0]);
            let is_of_state = [TaskFunction::LOGICAL_UNIT_RESET, TaskFunction::I_T_NEXUS_RESET];
            assert_eq!(known.everywhere, !is_of_state.contains(function), "{function}");
        }
        assert_eq!(tmf(8, address_of(0)), Control::Refused(Response::FUNCTION_REJECTED));
        assert_eq!(tmf(0, [3; 8]), Control::Refused(Response::BAD_TARGET));
    }

    #[test]
    fn what_is_cut_or_unknown_is_no_request() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0; 23]), None);
        assert_eq!(parse(&[1, 0, 0, 0, 1]), None);
        let unknown = parse(&[9, 0, 0, 0]).unwrap();
        assert_eq!(unknown, (ControlType(9), Control::Refused(Response::FAILURE)));
        assert_eq!(Control::response_bytes(ControlType(9)), 1);
        assert_eq!(Control::response_bytes(ControlType::AN_QUERY), 5);
    }

    #[test]
    fn one_core_that_had_the_task_is_enough() {
        use scsi::Response::{Complete, Failed, NoTask, Succeeded};
        assert_eq!(gather([NoTask, Complete, NoTask]), Complete);
        assert_eq!(gather([Complete, Succeeded, Complete]), Succeeded);
        assert_eq!(gather([NoTask, NoTask]), NoTask);
        assert_eq!(gather([Complete, Failed]), Failed);
        assert_eq!(gather([]), Failed);
        assert_eq!(response_of(NoTask), Response::OK);
        assert_eq!(response_of(Succeeded), Response::FUNCTION_SUCCEEDED);
    }
}
