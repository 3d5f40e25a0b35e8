//! The rest of an LU's shared state: medium, power, modes, access, operations, and what a reset or
//! the loss of a nexus takes away.

use std::sync::Arc;

use proptest::prelude::*;
use target::lun::access::{Access, AccessSet, AccessState, Altered, Group, Port};
use target::lun::admit::{Aborted, Attribute};
use target::lun::attention::{Attention, MediumEvent};
use target::lun::operation::{Job, OperationKind};
use target::lun::reservation::{Action, Class, Kind, Standing};
use target::lun::{
    AccessChange, Applied, Audience, Caching, Change, Control, Effect, Hindrance, Medium,
    MediumChange, ModeChange, Modes, NexusId, OperationChange, Outage, PortId, Refusal, ResetKind,
    State,
};

use crate::kit::{config, join, nexus, now, unit};

fn attentions(applied: &Applied) -> Vec<(Audience, Attention)> {
    let effects = applied.update.iter().flat_map(|update| update.effects.iter());
    let told = |effect: &Effect| match effect {
        Effect::Attention { to, what } => Some((to.clone(), *what)),
        _ => None,
    };
    effects.filter_map(told).collect()
}

fn eject(by: Option<&NexusId>, force: bool) -> Change {
    Change::Medium(MediumChange::Eject { by: by.cloned(), force })
}

fn prevent(nexus: &NexusId, prevent: bool) -> Change {
    Change::Prevent { nexus: nexus.clone(), prevent }
}

#[test]
fn a_medium_stays_in_while_anybody_forbids_to_take_it_out() {
    let mut state = State::new(config());
    let (a, b) = (nexus("a", 1), nexus("b", 1));
    for nexus in [&a, &b, &b] {
        state.apply(prevent(nexus, true)).reply.unwrap();
    }
    for change in [eject(Some(&a), false), eject(Some(&a), true), eject(None, false)] {
        let applied = state.apply(change);
        assert_eq!(applied.reply, Err(Refusal::Prevented));
        assert_eq!((applied.update, applied.persist), (None, None));
    }
    state.apply(prevent(&a, false)).reply.unwrap();
    assert_eq!(state.apply(eject(Some(&a), false)).reply, Err(Refusal::Prevented));
    state.apply(eject(None, true)).reply.unwrap();
    assert_eq!(state.view().medium, Medium { present: true, open: true });
    assert!(state.view().preventing.contains(&b), "the operator's force unlocks nothing");

    let loaded = state.apply(Change::Medium(MediumChange::Load { by: Some(a.clone()) }));
    let others = vec![(Audience::AllBut(a.clone()), Attention::MediumChanged)];
    assert_eq!(attentions(&loaded), others, "who loaded it knows");
    let again = state.apply(Change::Medium(MediumChange::Load { by: Some(a.clone()) }));
    assert_eq!(again.update, None, "it was in");
    state.apply(Change::NexusLost { nexus: b, tell: true }).reply.unwrap();
    state.apply(eject(Some(&a), false)).reply.unwrap();
    // It was taken out of the tray, so drawing that in brings nothing.
    assert_eq!(attentions(&state.apply(Change::Medium(MediumChange::TakenOut))), []);
    let empty = state.apply(Change::Medium(MediumChange::Load { by: Some(a.clone()) }));
    assert_eq!(attentions(&empty), []);
    assert_eq!(state.view().medium, Medium { present: false, open: false });
    let exchange = |present| Change::Medium(MediumChange::Exchanged { present });
    assert_eq!(attentions(&state.apply(exchange(false))), []);
    assert!(!state.view().medium.is_loaded());
    let all = vec![(Audience::All, Attention::MediumChanged)];
    assert_eq!(attentions(&state.apply(exchange(true))), all);
    assert!(state.view().medium.is_loaded());
}

fn medium_events(applied: &Applied) -> Vec<MediumEvent> {
    let effects = applied.update.iter().flat_map(|update| update.effects.iter());
    let told = |effect: &Effect| match effect {
        Effect::Medium(what) => Some(*what),
        _ => None,
    };
    effects.filter_map(told).collect()
}

#[test]
fn the_button_opens_the_tray_or_asks_those_who_lock_it() {
    use MediumEvent::{Loaded, RemovalRequested, Removed};
    let mut state = State::new(config());
    let (a, b) = (nexus("a", 1), nexus("b", 1));
    let button = || Change::Medium(MediumChange::Button);
    let load = |by: Option<&NexusId>| Change::Medium(MediumChange::Load { by: by.cloned() });
    let exchange = |present| Change::Medium(MediumChange::Exchanged { present });
    let persistently = |prevent| Change::PreventPersistently { nexus: b.clone(), prevent };
    let steps: [(Change, bool, &[MediumEvent]); 12] = [
        (button(), true, &[Removed]),
        (button(), true, &[]),
        (load(Some(&a)), false, &[Loaded]),
        (prevent(&a, true), false, &[]),
        (button(), false, &[RemovalRequested]),
        (eject(None, true), true, &[Removed]),
        (exchange(true), false, &[Loaded]),
        (exchange(true), false, &[Loaded]),
        (prevent(&a, false), false, &[]),
        (persistently(true), false, &[]),
        (button(), false, &[RemovalRequested]),
        // What a client does itself needs no asking.
        (eject(Some(&a), false), true, &[Removed]),
    ];
    for (step, (change, open, events)) in steps.into_iter().enumerate() {
        let applied = state.apply(change);
        assert!(applied.reply.is_ok(), "step {step}");
        assert_eq!(medium_events(&applied), events, "step {step}");
        assert_eq!(state.view().medium.open, open, "step {step}");
    }
    state.apply(load(None)).reply.unwrap();
    let stored = state.persistent();
    assert_eq!(stored.preventing_persistently, std::slice::from_ref(&b));
    let mut restored = State::restore(Default::default(), stored, Outage::Restart, 1);
    assert_eq!(medium_events(&restored.apply(button())), [RemovalRequested]);
    restored.apply(Change::NexusLost { nexus: b.clone(), tell: true }).reply.unwrap();
    assert_eq!(medium_events(&restored.apply(button())), [Removed]);
    state.apply(Change::Reset { kind: ResetKind::LogicalUnit, by: Some(a) }).reply.unwrap();
    assert_eq!(medium_events(&state.apply(button())), [Removed]);
}

#[test]
fn modes_are_told_to_the_others_and_only_saved_ones_outlive_a_reset() {
    let mut state = State::new(config());
    let a = nexus("a", 1);
    let mode = |write_back, write_protect: Option<bool>, save| {
        let caching = Some(Caching { write_back, read_cache_off: false });
        let control =
            write_protect.map(|write_protect| Control { write_protect, ..Control::default() });
        Change::Mode { nexus: Some(a.clone()), modes: ModeChange { caching, control, save } }
    };
    let told = vec![(Audience::AllBut(a.clone()), Attention::ModesChanged)];
    assert_eq!(attentions(&state.apply(mode(true, None, true))), told);
    assert_eq!(attentions(&state.apply(mode(true, None, true))), [], "nothing has changed");
    assert_eq!(attentions(&state.apply(mode(true, Some(true), false))), told);
    assert!(state.view().modes.control.write_protect && state.view().modes.caching.write_back);
    let reset = Change::Reset { kind: ResetKind::LogicalUnit, by: None };
    let stored = state.apply(reset).persist.unwrap();
    let modes =
        Modes { caching: Caching { write_back: true, ..Caching::default() }, ..Modes::default() };
    assert_eq!(state.view().modes, modes);
    assert_eq!((stored.modes, stored.saved_modes), (modes, modes));
}

/// What is saved without a change of what is current must be stored all the same.
#[test]
fn saving_what_is_current_is_stored() {
    let mut state = State::new(config());
    let caching = Some(Caching { write_back: true, read_cache_off: false });
    let mode = |save| Change::Mode {
        nexus: Some(nexus("a", 1)),
        modes: ModeChange { caching, control: None, save },
    };
    state.apply(mode(false)).reply.unwrap();
    let applied = state.apply(mode(true));
    assert!(applied.update.unwrap().effects.is_empty(), "nobody is told");
    assert!(applied.persist.unwrap().saved_modes.caching.write_back);
}

fn begun(kind: OperationKind, may_exit: bool) -> OperationChange {
    OperationChange::Begin { kind, job: Arc::new(Job::Erase), may_exit }
}

#[test]
fn operations_come_one_after_the_other() {
    let (local, handle) = unit();
    let member = join(&handle, &nexus("a", 1));
    let change = |change| local.apply(Change::Operation(change)).0;
    let begin = |kind| begun(kind, false);
    assert_eq!(change(OperationChange::Progress(1)), Err(Refusal::NoOperation));
    assert_eq!(change(OperationChange::End { failed: false }), Err(Refusal::NoOperation));
    change(begin(OperationKind::Format)).unwrap();
    assert!(member.hindrance().contains(Hindrance::OPERATION) && !member.is_clear_for(Class::Read));
    change(OperationChange::Progress(700)).unwrap();
    change(OperationChange::Progress(300)).unwrap();
    assert_eq!(handle.view().operation.clone().unwrap().progress(), Some(700), "never back");
    let busy = Refusal::Busy(OperationKind::Format);
    assert_eq!(change(begin(OperationKind::Sanitize)), Err(busy));
    assert_eq!(change(OperationChange::ExitFailure), Err(Refusal::NoOperation));
    change(OperationChange::End { failed: true }).unwrap();
    assert_eq!(handle.view().operation.clone().unwrap().progress(), None);
    change(begin(OperationKind::Sanitize)).unwrap();
    now(handle.change(Change::Reset { kind: ResetKind::LogicalUnit, by: None })).unwrap();
    assert!(handle.view().operation.clone().unwrap().is_running(), "a reset ends no sanitize");
    change(OperationChange::End { failed: true }).unwrap();
    assert_eq!(change(OperationChange::ExitFailure), Err(Refusal::MayNotExit));
    assert!(matches!(change(begin(OperationKind::Format)), Err(Refusal::Busy(_))));
    change(begun(OperationKind::Sanitize, true)).unwrap();
    change(OperationChange::End { failed: true }).unwrap();
    change(OperationChange::ExitFailure).unwrap();
    assert_eq!(handle.view().operation, None);
    assert_eq!(member.hindrance(), Hindrance::NONE);
}

#[test]
fn progress_is_told_and_not_stored() {
    let mut state = State::new(config());
    let kind = OperationKind::Sanitize;
    let begin = begun(kind, false);
    assert!(state.apply(Change::Operation(begin)).persist.unwrap().operation.is_some());
    let step = state.apply(Change::Operation(OperationChange::Progress(9)));
    assert!(step.update.is_some() && step.persist.is_none());
}

fn access(states: [AccessState; 2]) -> Access {
    let port = |id, target| Port { id: PortId(id), target };
    let group =
        |id, state, ports| Group { id, state, preferred: id == 1, altered: Altered::Never, ports };
    let here = vec![port(1, 0), port(2, 9)];
    let there = vec![port(3, 0)];
    Access { groups: vec![group(10, states[0], here), group(20, states[1], there)] }
}

#[test]
fn states_of_access_are_told_when_they_change_and_seen_by_target() {
    use AccessState::{NonOptimized, Optimized, Standby};
    let (local, handle) = unit();
    let members = [1, 2, 3].map(|port| join(&handle, &nexus("a", port)));
    let set = |states| local.apply(Change::Access(AccessChange::Set(access(states)))).0.unwrap();
    let told = || members.each_ref().map(|member| member.attentions().take().is_some());
    set([Optimized, NonOptimized]);
    assert_eq!(told(), [true; 3]);
    set([Optimized, NonOptimized]);
    assert_eq!(told(), [false; 3]);
    set([NonOptimized, Standby]);
    assert_eq!(told(), [true; 3]);
    let states = members.each_ref().map(|member| member.access());
    assert_eq!(states, [NonOptimized, NonOptimized, Standby]);
    assert!(members[1].is_clear_for(Class::Write) && !members[2].is_clear_for(Class::Read));
    assert!(!AccessSet::ACTIVE.contains(Standby));

    let view = handle.view();
    let seen = |port| {
        let groups = view.access.seen_from(PortId(port)).into_iter();
        let ports = |group: Group| group.ports.iter().map(|it| it.id.0).collect::<Vec<_>>();
        groups.map(|group| (group.id, group.altered, ports(group))).collect::<Vec<_>>()
    };
    let (own, other) = ((10, Altered::Implicit, vec![1]), (20, Altered::Implicit, vec![3]));
    assert_eq!(seen(1), [own.clone(), other.clone()]);
    assert_eq!(seen(3), [own, other]);
    assert_eq!(seen(2), [(10, Altered::Implicit, vec![2])]);
    assert_eq!(seen(4), []);
    assert_eq!(view.access.siblings(PortId(3)), [PortId(1), PortId(3)]);
    assert_eq!(view.access.siblings(PortId(7)), [PortId(7)]);

    let wish = |port, group| {
        let change = AccessChange::Wish { nexus: nexus("a", port), group };
        local.apply(Change::Access(change)).0.map(|_| ())
    };
    assert_eq!(wish(1, 20), Ok(()));
    assert_eq!(wish(2, 20), Err(Refusal::NoSuchGroup), "of another client");
    assert_eq!(wish(1, 30), Err(Refusal::NoSuchGroup));
    assert_eq!(local.take_wishes(), [20]);
    assert_eq!(local.take_wishes(), []);
    assert_eq!(handle.view().access.state_at(PortId(3)), Standby, "a wish changes nothing");
}

/// SAM-5 6.3.3 and 6.3.4: what stays and what goes.
#[test]
fn a_reset_and_a_loss_take_away_what_they_should() {
    for lost in [false, true] {
        let (local, handle) = unit();
        let (a, b) = (nexus("a", 1), nexus("b", 1));
        let (at_a, at_b) = (join(&handle, &a), join(&handle, &b));
        local.apply(prevent(&a, true)).0.unwrap();
        local.apply(prevent(&b, true)).0.unwrap();
        local.apply(Change::Power { start: false }).0.unwrap();
        let reserve = Change::Reserve { nexus: a.clone(), action: Action::ReserveUnit };
        local.apply(reserve).0.unwrap();
        assert!(!at_b.permits(Class::Look) && !at_a.is_clear_for(Class::Look));
        let (of_a, of_b) = (
            at_a.tasks().enter(1, Attribute::Simple).unwrap(),
            at_b.tasks().enter(1, Attribute::Ordered).unwrap(),
        );
        let change = match lost {
            true => Change::NexusLost { nexus: a.clone(), tell: true },
            false => Change::Reset { kind: ResetKind::LogicalUnit, by: Some(b.clone()) },
        };
        let (reply, settled) = local.apply(change);
        reply.unwrap();
        assert!(at_b.permits(Class::Write), "the simple reservation has ended");
        assert_eq!(of_a.aborted(), Some(Aborted::Silently));
        assert_eq!(of_b.aborted(), (!lost).then_some(Aborted::Silently));
        assert!(!settled.iter().all(target::lun::Settled::is_done));
        drop((of_a, of_b));
        assert!(settled.iter().all(target::lun::Settled::is_done));
        let told = if lost { Attention::NexusLost } else { Attention::Reset };
        assert_eq!(at_a.attentions().take(), Some(told));
        assert_eq!(at_b.attentions().take(), (!lost).then_some(told));
        assert!(at_a.attentions().is_empty() && at_b.attentions().is_empty());
        let view = handle.view();
        assert!(!view.preventing.contains(&a));
        assert_eq!(view.preventing.contains(&b), lost);
        assert_eq!(view.started, !lost);
    }
}

#[test]
fn aborted_by_another_nexus_is_said_when_it_is_asked_for() {
    let (local, handle) = unit();
    let (a, b) = (nexus("a", 1), nexus("b", 1));
    let (at_a, at_b) = (join(&handle, &a), join(&handle, &b));
    let control = Some(Control { task_aborted_status: true, ..Control::default() });
    let modes = ModeChange { control, ..ModeChange::default() };
    local.apply(Change::Mode { nexus: Some(b.clone()), modes }).0.unwrap();
    at_a.attentions().take();
    let (of_a, of_b) = (
        at_a.tasks().enter(1, Attribute::Simple).unwrap(),
        at_b.tasks().enter(1, Attribute::Simple).unwrap(),
    );
    let reset = Change::Reset { kind: ResetKind::LogicalUnit, by: Some(b) };
    local.apply(reset).0.unwrap();
    assert_eq!(of_a.aborted(), Some(Aborted::WithStatus));
    assert_eq!(of_b.aborted(), Some(Aborted::Silently));
}

#[test]
fn a_loss_of_power_keeps_what_was_to_be_kept() {
    let mut state = State::new(config());
    let a = nexus("a", 1);
    let kind = Kind::ExclusiveAccess;
    for action in [
        Action::RegisterAnyway { new_key: 3, all_ports: false, through_power_loss: true },
        Action::Reserve { key: 3, kind },
    ] {
        state.apply(Change::Reserve { nexus: a.clone(), action }).reply.unwrap();
    }
    state.apply(prevent(&a, true)).reply.unwrap();
    state.apply(Change::Power { start: false }).reply.unwrap();
    let stored = state.persistent();
    let restore = |outage| State::restore(Access::default(), stored.clone(), outage, 1).view();
    let (restart, power) = (restore(Outage::Restart), restore(Outage::PowerLoss));
    for view in [&restart, &power] {
        assert_eq!(view.reservations.standing(&a), Standing::Holder);
    }
    assert_eq!((restart.reservations.generation(), power.reservations.generation()), (1, 0));
    assert_eq!((restart.started, power.started), (false, true));
    assert_eq!((restart.preventing.len(), power.preventing.len()), (1, 0));
}

/// A nexus that joins later sees what one sees that was there all the time.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Reserve(u8, Kind),
    Register(u8, u64),
    Prevent(u8, bool),
    Power(bool),
    Eject,
    Load,
    Access(AccessState),
    Begin,
    End(bool),
    Reset,
    Lost(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let state = prop::sample::select(vec![
        AccessState::Optimized,
        AccessState::Standby,
        AccessState::Transitioning,
    ]);
    prop_oneof![
        3 => (0_u8..2, prop::sample::select(&Kind::ALL[..])).prop_map(|(at, kind)| Happens::Reserve(at, kind)),
        3 => (0_u8..2, 0_u64..3).prop_map(|(at, key)| Happens::Register(at, key)),
        1 => (0_u8..2, any::<bool>()).prop_map(|(at, prevent)| Happens::Prevent(at, prevent)),
        1 => any::<bool>().prop_map(Happens::Power),
        1 => Just(Happens::Eject),
        1 => Just(Happens::Load),
        1 => state.prop_map(Happens::Access),
        1 => Just(Happens::Begin),
        1 => any::<bool>().prop_map(Happens::End),
        1 => Just(Happens::Reset),
        1 => (0_u8..2).prop_map(Happens::Lost),
    ]
}

fn change(happens: Happens, view: &target::lun::View) -> Change {
    let at = |at: u8| nexus(&at.to_string(), u16::from(at) + 1);
    match happens {
        Happens::Reserve(by, kind) => {
            let key = view.reservations.key_of(&at(by)).unwrap_or(1);
            Change::Reserve { nexus: at(by), action: Action::Reserve { key, kind } }
        }
        Happens::Register(by, new_key) => Change::Reserve {
            nexus: at(by),
            action: Action::RegisterAnyway { new_key, all_ports: false, through_power_loss: true },
        },
        Happens::Prevent(by, prevent) => Change::Prevent { nexus: at(by), prevent },
        Happens::Power(start) => Change::Power { start },
        Happens::Eject => eject(None, true),
        Happens::Load => Change::Medium(MediumChange::Load { by: None }),
        Happens::Access(state) => {
            Change::Access(AccessChange::Set(access([state, AccessState::Optimized])))
        }
        Happens::Begin => {
            let kind = OperationKind::Sanitize;
            Change::Operation(begun(kind, true))
        }
        Happens::End(failed) => Change::Operation(OperationChange::End { failed }),
        Happens::Reset => Change::Reset { kind: ResetKind::LogicalUnit, by: None },
        Happens::Lost(by) => Change::NexusLost { nexus: at(by), tell: true },
    }
}

proptest! {
    #[test]
    fn who_joins_late_sees_what_the_others_see(all in prop::collection::vec(happens(), 1..40)) {
        let (local, handle) = unit();
        let names = [nexus("0", 1), nexus("1", 2), nexus("2", 3)];
        let early = names.each_ref().map(|name| join(&handle, name));
        for happens in all {
            let before = handle.view();
            let (reply, settled) = local.apply(change(happens, &before));
            prop_assert!(settled.iter().all(target::lun::Settled::is_done));
            let view = handle.view();
            prop_assert_eq!(&view, &local.view());
            let moved = view.version - before.version;
            prop_assert!(moved <= 1);
            if let Ok(reply) = reply {
                prop_assert_eq!(reply.version, view.version);
            } else {
                prop_assert_eq!(&view, &before);
            }
            for (name, early) in names.iter().zip(&early) {
                let late = join(&handle, name);
                prop_assert_eq!(late.standing(), early.standing());
                prop_assert_eq!(late.access(), early.access());
                prop_assert_eq!(late.hindrance(), early.hindrance());
                for class in Class::ALL {
                    prop_assert_eq!(late.permits(class), early.permits(class));
                }
            }
        }
    }
}
