//! A change reaches every handle before it is answered.

use std::pin::pin;
use std::task::{Context, Waker};

use target::lun::admit::{Aborted, Attribute};
use target::lun::attention::Attention;
use target::lun::reservation::{Action, Class, Kind};
use target::lun::{Change, Local, ResetKind, State};

use crate::kit::{config, handle_of, join, nexus, now, unit};

fn reserve(nexus: &target::lun::NexusId, action: Action) -> Change {
    Change::Reserve { nexus: nexus.clone(), action }
}

fn register(new_key: u64) -> Action {
    Action::RegisterAnyway { new_key, all_ports: false, through_power_loss: false }
}

#[test]
fn preempt_and_abort_is_answered_when_the_victims_tasks_have_left() {
    let (_, handle) = unit();
    let (a, b) = (nexus("a", 1), nexus("b", 1));
    let (at_a, at_b) = (join(&handle, &a), join(&handle, &b));
    now(handle.change(reserve(&a, register(1)))).unwrap();
    now(handle.change(reserve(&b, register(2)))).unwrap();
    let kind = Kind::WriteExclusive;
    now(handle.change(reserve(&b, Action::Reserve { key: 2, kind }))).unwrap();
    assert!(!at_a.permits(Class::Write) && at_a.permits(Class::Read));

    let own = at_a.tasks().enter(9, Attribute::Simple).unwrap();
    let write = at_b.tasks().enter(5, Attribute::Simple).unwrap();
    let preempt = Action::Preempt { key: 1, victim: 2, kind: Some(kind), abort: Some(9) };
    let mut change = pin!(handle.change(reserve(&a, preempt)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(change.as_mut().poll(&mut cx).is_pending());
    assert!(at_a.permits(Class::Write) && !at_b.permits(Class::Write));
    assert_eq!((own.aborted(), write.aborted()), (None, Some(Aborted::Silently)));
    drop(write);
    assert!(change.as_mut().poll(&mut cx).is_ready());
    assert_eq!(at_b.attentions().take(), Some(Attention::RegistrationsPreempted));
    assert_eq!(at_b.attentions().take(), Some(Attention::CommandsCleared));
    assert_eq!(at_b.attentions().take(), None);
    assert!(at_a.attentions().is_empty());
}

/// What has been installed is not installed again: nothing that came after it is aborted.
#[test]
fn an_update_that_comes_twice_does_nothing_the_second_time() {
    let mut state = State::new(config());
    let handle = handle_of(state.view(), Local::new(state.clone()));
    let member = join(&handle, &nexus("a", 1));
    let reset = Change::Reset { kind: ResetKind::LogicalUnit, by: None };
    let update = state.apply(reset).update.unwrap();
    assert!(handle.install(&update).is_done());
    assert_eq!(member.attentions().take(), Some(Attention::Reset));
    let task = member.tasks().enter(1, Attribute::Simple).unwrap();
    assert!(handle.install(&update).is_done());
    assert_eq!((task.aborted(), member.attentions().take()), (None, None));
}
