//! Attentions: each thing that there is to tell is told to each whom it concerns, once, in order of
//! urgency, and never more than there are things.

use std::sync::Arc;

use proptest::prelude::*;
use target::lun::attention::{
    ATTENTIONS_MAX, Attention, AttentionSet, Attentions, MediumEvent, MediumEvents,
};
use target::lun::reservation::{Action, Kind};
use target::lun::{Caching, Change, MediumChange, ModeChange, NexusId, ResetKind};

use crate::kit::{join, nexus, now, unit};

/// What happened, and to which of three nexuses it is news.
fn happening() -> impl Strategy<Value = (usize, usize)> {
    (0_usize..9, 0_usize..3)
}

fn changes(what: usize, nexus: &NexusId, toggle: bool) -> (Vec<Change>, Attention, bool) {
    let nexus = nexus.clone();
    let all = |change, what| (vec![change], what, true);
    let reset = |kind| Change::Reset { kind, by: Some(nexus.clone()) };
    match what {
        0 => all(Change::Resized, Attention::CapacityChanged),
        1 => all(Change::IdentityChanged, Attention::IdentityChanged),
        2 => all(Change::ThresholdReached, Attention::ThresholdReached),
        3 => all(reset(ResetKind::LogicalUnit), Attention::Reset),
        4 => all(reset(ResetKind::Power), Attention::PowerOn),
        5 => {
            let change = MediumChange::Exchanged { present: true };
            all(Change::Medium(change), Attention::MediumChanged)
        }
        6 => {
            let caching = Some(Caching { write_back: toggle, read_cache_off: false });
            let modes = ModeChange { caching, control: None, save: true };
            (vec![Change::Mode { nexus: Some(nexus), modes }], Attention::ModesChanged, false)
        }
        7 => {
            let eject = MediumChange::Eject { by: Some(nexus.clone()), force: false };
            let load = MediumChange::Load { by: Some(nexus) };
            let both = vec![Change::Medium(eject), Change::Medium(load)];
            (both, Attention::MediumChanged, false)
        }
        _ => (vec![Change::NexusLost { nexus, tell: true }], Attention::NexusLost, false),
    }
}

/// The queue, the naive way: a list.
#[derive(Default)]
struct List(Vec<Attention>);

impl List {
    fn raise(&mut self, what: Attention) {
        const LEVELS: [Attention; 3] = [Attention::PowerOn, Attention::Reset, Attention::NexusLost];
        if let Some(level) = LEVELS.iter().position(|it| *it == what) {
            if LEVELS[..level].iter().any(|higher| self.0.contains(higher)) {
                return;
            }
            self.0.retain(|it| !LEVELS[level..].contains(it));
        }
        if !self.0.contains(&what) {
            self.0.push(what);
        }
    }

    fn take(&mut self) -> Option<Attention> {
        let first = *self.0.iter().min()?;
        self.0.retain(|it| *it != first);
        Some(first)
    }
}

proptest! {
    #[test]
    fn each_nexus_is_told_each_thing_that_concerns_it_once(
        happenings in prop::collection::vec((happening(), prop::option::of(0_usize..3)), 1..60)
    ) {
        let (_, handle) = unit();
        let names = [nexus("a", 1), nexus("a", 2), nexus("b", 1)];
        let members = names.each_ref().map(|name| join(&handle, name));
        let mut lists: [List; 3] = Default::default();
        let mut write_back = false;
        for ((what, by), asks) in happenings {
            write_back ^= what == 6;
            let (changes, attention, to_all) = changes(what, &names[by], write_back);
            for change in changes {
                now(handle.change(change)).unwrap();
            }
            for (at, list) in lists.iter_mut().enumerate() {
                let only_own = attention == Attention::NexusLost;
                if to_all || (at == by) == only_own {
                    list.raise(attention);
                }
            }
            for (list, member) in lists.iter().zip(&members) {
                prop_assert_eq!(member.attentions().is_empty(), list.0.is_empty());
                prop_assert!(member.attentions().pending().iter().count() <= ATTENTIONS_MAX);
            }
            if let Some(at) = asks {
                prop_assert_eq!(members[at].attentions().take(), lists[at].take());
            }
        }
        for (list, member) in lists.iter_mut().zip(&members) {
            while let Some(expected) = list.take() {
                prop_assert_eq!(member.attentions().take(), Some(expected));
            }
            prop_assert_eq!(member.attentions().take(), None);
        }
    }

    /// One nexus on several cores: each core installs every update in order, in its own time; the
    /// nexus hears of each update once, however the cores are ahead of each other.
    #[test]
    fn several_cores_raise_an_update_once(
        turns in prop::collection::vec((0_usize..3, any::<bool>()), 1..80)
    ) {
        const UPDATES: u64 = 12;
        let shared = Attentions::new(AttentionSet::NONE, 0);
        let told: AttentionSet = [Attention::CapacityChanged].into_iter().collect();
        let mut cores = [0_u64; 3];
        let (mut raised, mut heard) = (0, 0);
        for (core, asks) in turns {
            if cores[core] < UPDATES {
                let newest = cores.iter().max().copied().unwrap();
                cores[core] += 1;
                raised += u32::from(cores[core] > newest && shared.is_empty());
                shared.raise_at(cores[core], told, MediumEvents::NONE);
            }
            if asks {
                heard += u32::from(shared.take().is_some());
            }
        }
        heard += u32::from(shared.take().is_some());
        prop_assert_eq!(heard, raised);
    }
}

#[test]
fn what_happened_to_a_medium_is_told_once_and_until_it_is_overtaken() {
    use MediumEvent::{Loaded, RemovalRequested, Removed};
    let asked = Attentions::new(AttentionSet::NONE, 7);
    let mut version = 7;
    let mut happens = |events: &[MediumEvent]| {
        version += 1;
        let events = events.iter().fold(MediumEvents::NONE, |all, one| all.then(*one));
        asked.raise_at(version, AttentionSet::NONE, events);
        // By another core, which installs the same update.
        asked.raise_at(version, AttentionSet::NONE, events);
    };
    let cases: [(&[&[MediumEvent]], &[MediumEvent]); 5] = [
        (&[&[Loaded]], &[Loaded]),
        (&[&[RemovalRequested], &[RemovalRequested]], &[RemovalRequested]),
        (&[&[Loaded], &[RemovalRequested], &[Removed]], &[Removed]),
        (&[&[Removed], &[RemovalRequested], &[Loaded]], &[Loaded]),
        (&[&[Removed], &[Loaded, RemovalRequested]], &[Loaded, RemovalRequested]),
    ];
    for (updates, told) in cases {
        updates.iter().for_each(|events| happens(events));
        for what in told {
            assert_eq!(asked.take_medium_event(), Some(*what));
        }
        assert_eq!(asked.take_medium_event(), None);
    }
    assert!(asked.is_empty(), "nobody is told who does not ask");
}

/// Who leads to what: the tests of the machine look at effects, this one at what arrives.
#[test]
fn registrants_are_told_what_was_taken_from_them() {
    let (_, handle) = unit();
    let names = [nexus("a", 1), nexus("b", 1), nexus("c", 1)];
    let [a, b, c] = names.each_ref().map(|name| join(&handle, name));
    let ask = |at: usize, action| {
        now(handle.change(Change::Reserve { nexus: names[at].clone(), action })).unwrap();
    };
    let register =
        |new_key| Action::RegisterAnyway { new_key, all_ports: false, through_power_loss: false };
    let kind = Kind::WriteExclusiveRegistrantsOnly;
    ask(0, register(1));
    ask(1, register(2));
    ask(0, Action::Reserve { key: 1, kind });
    ask(0, Action::Release { key: 1, kind });
    assert_eq!(b.attentions().take(), Some(Attention::ReservationsReleased));
    ask(1, Action::Preempt { key: 2, victim: 1, kind: Some(kind), abort: None });
    assert_eq!(a.attentions().take(), Some(Attention::RegistrationsPreempted));
    ask(0, register(1));
    ask(0, Action::Clear { key: 1 });
    assert_eq!(b.attentions().take(), Some(Attention::ReservationsPreempted));
    for member in [a, b, c] {
        assert!(member.attentions().is_empty(), "{:?}", member.nexus());
    }
}

/// A nexus that begins on a second core after an update does not hear of it there again.
#[test]
fn a_second_core_joins_without_repeating() {
    let (_, handle) = unit();
    let name = nexus("a", 1);
    let shared = handle.attentions([Attention::PowerOn].into_iter().collect());
    let _first = handle.join(name.clone(), Arc::clone(&shared), 4);
    assert_eq!(shared.take(), Some(Attention::PowerOn));
    now(handle.change(Change::Resized)).unwrap();
    assert_eq!(shared.take(), Some(Attention::CapacityChanged));
    let second = handle.join(name, Arc::clone(&shared), 4);
    assert!(second.attentions().is_empty());
    now(handle.change(Change::Resized)).unwrap();
    assert_eq!(shared.take(), Some(Attention::CapacityChanged));
    assert_eq!(shared.take(), None);
}
