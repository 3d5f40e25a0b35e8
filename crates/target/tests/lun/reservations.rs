//! The machine of reservations against the naive model: every service action with every type and
//! standing, and long random stories with several initiators, ports, targets and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use target::lun::access::{Access, Group, Port};
use target::lun::attention::Attention;
use target::lun::reservation::{Action, Class, Held, Kind, Mistake, REGISTRANTS_MAX};
use target::lun::{
    Applied, Audience, Change, Config, Effect, Initiator, NexusId, Outage, Persistent, PortId,
    Refusal, State, Telling,
};

use crate::kit::{config, nexus};
use crate::model::{Ask, Command, Model, Nexus, Outcome, TYPES, Told, Verdict};

/// Ports of two targets, the first of them with two groups.
const TARGETS: [&[u8]; 2] = [&[1, 2], &[3]];
const INITIATORS: u8 = 3;

fn access() -> Access {
    let port = |id: u16, target| Port { id: PortId(id), target };
    let group = |id, ports| Group {
        id,
        state: Default::default(),
        preferred: false,
        altered: Default::default(),
        ports,
    };
    Access { groups: vec![group(1, vec![port(1, 0), port(3, 1)]), group(2, vec![port(2, 0)])] }
}

fn id((initiator, port): Nexus) -> NexusId {
    static INITIATORS: LazyLock<Vec<Initiator>> = LazyLock::new(|| {
        let named = |at| Initiator::new(format!("initiator-{at}").as_bytes()).unwrap();
        (0..3).map(named).collect()
    });
    NexusId::new(INITIATORS[usize::from(initiator)].clone(), PortId(port.into()))
}

fn nexuses() -> impl Iterator<Item = Nexus> {
    (0..INITIATORS).flat_map(|initiator| (1..=3).map(move |port| (initiator, port)))
}

fn kind(code: u8) -> Kind {
    Kind::ALL[TYPES.iter().position(|it| *it == code).unwrap()]
}

fn action(ask: &Ask) -> Action {
    let spec = |some: &Vec<u8>| {
        let name = |it: &u8| Initiator::new(format!("initiator-{it}").as_bytes()).unwrap();
        some.iter().map(name).collect()
    };
    match *ask {
        Ask::Register { ignore: false, key, sark, spec: ref also, all, aptpl } => {
            Action::Register {
                key,
                new_key: sark,
                also: also.as_ref().map(spec),
                all_ports: all,
                through_power_loss: aptpl,
            }
        }
        Ask::Register { sark, all, aptpl, .. } => {
            Action::RegisterAnyway { new_key: sark, all_ports: all, through_power_loss: aptpl }
        }
        Ask::Reserve { key, kind: code } => Action::Reserve { key, kind: kind(code) },
        Ask::Release { key, kind: code } => Action::Release { key, kind: kind(code) },
        Ask::Clear { key } => Action::Clear { key },
        Ask::Preempt { key, sark, kind: code, abort } => {
            let kind = TYPES.contains(&code).then(|| kind(code));
            Action::Preempt { key, victim: sark, kind, abort: abort.then_some(77) }
        }
        Ask::Move { key, sark, to, unreg, aptpl } => Action::Move {
            key,
            new_key: sark,
            to: id(to),
            unregister: unreg,
            through_power_loss: aptpl,
        },
        Ask::Reserve6 => Action::ReserveUnit,
        Ask::Release6 => Action::ReleaseUnit,
    }
}

fn verdict(applied: &Applied) -> Verdict {
    match applied.reply {
        Ok(_) => Verdict::Good,
        Err(Refusal::Reservation(mistake)) => match mistake {
            Mistake::Conflict => Verdict::Conflict,
            Mistake::OtherKind => Verdict::InvalidRelease,
            Mistake::AlsoOnRegistered | Mistake::NoKind => Verdict::InvalidCdb,
            Mistake::NoVictim | Mistake::NoKey | Mistake::MoveToSelf | Mistake::NoSuchPort => {
                Verdict::InvalidParameter
            }
            Mistake::NoRoom => panic!("so few cannot be too many"),
        },
        Err(other) => panic!("not about reservations: {other}"),
    }
}

fn outcome(applied: &Applied) -> Outcome {
    let mut outcome = Outcome::default();
    let concerned =
        |to: &Audience| nexuses().filter(|at| to.contains(&id(*at))).collect::<Vec<_>>();
    for effect in applied.update.iter().flat_map(|update| update.effects.iter()) {
        match effect {
            Effect::Attention { to, what } => {
                let told = match what {
                    Attention::ReservationsPreempted => Told::ReservationsPreempted,
                    Attention::ReservationsReleased => Told::ReservationsReleased,
                    Attention::RegistrationsPreempted => Told::RegistrationsPreempted,
                    other => panic!("{other:?} is not about reservations"),
                };
                for at in concerned(to) {
                    assert!(outcome.told.insert((at, told)), "told twice");
                }
            }
            Effect::AbortTasks { of, by, telling } => {
                assert!(*telling == Telling::Attention && by.as_ref().unwrap().task == Some(77));
                outcome.aborted.extend(concerned(of));
            }
            Effect::ClearAca { of } => assert!(matches!(of, Audience::These(_))),
            Effect::Medium(_) => panic!("no medium moved"),
            Effect::Wish { .. } => panic!("nobody wished"),
        }
    }
    outcome
}

/// Machine and model, side by side.
#[derive(Clone)]
struct Pair {
    state: State,
    model: Model,
    /// What was last given to be stored.
    stored: Persistent,
}

impl Pair {
    fn new() -> Self {
        let state = State::new(Config { access: access(), ..config() });
        let targets = TARGETS.iter().map(|ports| ports.to_vec()).collect();
        Self { stored: state.persistent(), state, model: Model { targets, ..Model::default() } }
    }

    fn ask(&mut self, at: Nexus, ask: &Ask) -> Verdict {
        let before = self.state.view();
        let change = Change::Reserve { nexus: id(at), action: action(ask) };
        let applied = self.state.apply(change);
        let (expected, effects) = self.model.ask(at, ask);
        assert_eq!(verdict(&applied), expected, "{at:?} asks {ask:?}");
        assert_eq!(outcome(&applied), effects, "{at:?} asks {ask:?}");
        if expected != Verdict::Good {
            assert_eq!(self.state.view(), before, "a refusal leaves no trace");
        }
        self.keep(applied);
        self.compare();
        expected
    }

    fn keep(&mut self, applied: Applied) {
        self.stored = applied.persist.unwrap_or(self.stored.clone());
        assert_eq!(self.stored, self.state.persistent(), "what changed was given to be stored");
    }

    fn restart(&mut self, outage: Outage) {
        self.state = State::restore(access(), self.stored.clone(), outage, 1);
        if outage == Outage::PowerLoss {
            self.model.power_loss();
        }
        self.stored = self.state.persistent();
        self.compare();
    }

    fn compare(&self) {
        let view = self.state.view();
        let ours = &view.reservations;
        let registrants: BTreeMap<NexusId, u64> =
            ours.registrants().map(|(nexus, key)| (nexus.clone(), key)).collect();
        let expected = self.model.keys.iter().map(|(at, key)| (id(*at), *key)).collect();
        assert_eq!(registrants, expected);
        let held = self.model.reservation;
        let held = held.map(|(code, holder)| Held { kind: kind(code), holder: holder.map(id) });
        assert_eq!(ours.held(), held.as_ref());
        assert_eq!(ours.generation(), self.model.generation);
        assert_eq!(ours.through_power_loss(), self.model.aptpl);
        assert_eq!(ours.unit_holder(), self.model.reserved.map(id).as_ref());
        for at in nexuses() {
            let id = id(at);
            assert_eq!(ours.is_holder(&id), self.model.holds(at), "{at:?}");
            let permits = ours.permits(&id);
            for (class, command) in CLASSES {
                let may = permits.contains(class);
                assert_eq!(may, self.model.may(at, command), "{at:?} {command:?}");
            }
        }
    }
}

const CLASSES: [(Class, Command); 5] = [
    (Class::Always, Command::Inquiry),
    (Class::Look, Command::TestUnitReady),
    (Class::Read, Command::Read),
    (Class::Write, Command::Write),
    (Class::Persistent, Command::PersistentReserve),
];

/// Every question that there is with these keys, from this nexus.
fn every_ask() -> Vec<Ask> {
    let keys = [0, 1, 2, 3];
    let flags = [false, true];
    let mut all_asks = vec![Ask::Reserve6, Ask::Release6];
    for key in keys {
        all_asks.push(Ask::Clear { key });
        for kind in TYPES {
            all_asks.push(Ask::Reserve { key, kind });
            all_asks.push(Ask::Release { key, kind });
            for (sark, abort) in keys.into_iter().flat_map(|sark| flags.map(|it| (sark, it))) {
                all_asks.push(Ask::Preempt { key, sark, kind, abort });
            }
        }
        for (sark, flag) in keys.into_iter().flat_map(|sark| flags.map(|it| (sark, it))) {
            for (spec, all) in [(0, false), (1, true), (2, false), (2, true), (0, true)] {
                let spec = [None, Some(vec![]), Some(vec![1, 2])][spec].clone();
                all_asks.push(Ask::Register { ignore: false, key, sark, spec, all, aptpl: flag });
                let anyway =
                    Ask::Register { ignore: true, key: 0, sark, spec: None, all, aptpl: flag };
                if key == 0 {
                    all_asks.push(anyway);
                }
            }
            for to in [(0, 1), (1, 1), (2, 3), (1, 9)] {
                all_asks.push(Ask::Move { key, sark, to, unreg: flag, aptpl: !flag });
            }
        }
    }
    all_asks
}

/// Every service action × type × (registered, holder, neither) × class of command: from each of the
/// situations below, each question is asked by each nexus, and everything compared.
#[test]
fn every_action_for_every_type_and_standing() {
    let register =
        |sark| Ask::Register { ignore: true, key: 0, sark, spec: None, all: false, aptpl: false };
    let mut situations: Vec<Vec<(Nexus, Ask)>> = vec![
        vec![],
        vec![((0, 1), Ask::Reserve6)],
        vec![((0, 1), register(1))],
        vec![((0, 1), register(1)), ((1, 1), register(2)), ((0, 2), register(1))],
    ];
    for kind in TYPES {
        let reserve = ((0, 1), Ask::Reserve { key: 1, kind });
        for second in [1, 2] {
            situations.push(vec![
                ((0, 1), register(1)),
                ((1, 1), register(second)),
                ((2, 3), register(3)),
                reserve.clone(),
            ]);
        }
        situations.push(vec![((0, 1), register(1)), reserve]);
    }
    let asks = every_ask();
    let mut seen = BTreeSet::new();
    for situation in situations {
        let mut begin = Pair::new();
        for (by, first) in &situation {
            assert_eq!(begin.ask(*by, first), Verdict::Good);
        }
        for at in [(0, 1), (0, 2), (1, 1), (2, 2)] {
            for ask in &asks {
                seen.insert(format!("{:?}", begin.clone().ask(at, ask)));
            }
        }
    }
    assert_eq!(seen.len(), 5, "every kind of answer was given: {seen:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Nexus, Ask),
    Restart(Outage),
    Reset,
    Lost(Nexus),
    ClearByOperator,
}

fn at() -> impl Strategy<Value = Nexus> {
    (0..INITIATORS, 1_u8..=3)
}

fn ask() -> impl Strategy<Value = Ask> {
    let key = || 0_u64..=3;
    let code = || prop::sample::select(&TYPES[..]);
    let spec = prop::option::weighted(0.2, prop::collection::vec(0..INITIATORS, 0..3));
    let register = (any::<(bool, bool, bool)>(), key(), key(), spec);
    prop_oneof![
        6 => register.prop_map(|((ignore, all, aptpl), key, sark, spec)| {
            let spec = spec.filter(|_| !ignore);
            Ask::Register { ignore, key, sark, spec, all, aptpl }
        }),
        4 => (key(), code()).prop_map(|(key, kind)| Ask::Reserve { key, kind }),
        3 => (key(), code()).prop_map(|(key, kind)| Ask::Release { key, kind }),
        1 => key().prop_map(|key| Ask::Clear { key }),
        5 => (key(), key(), prop_oneof![9 => code(), 1 => Just(0)], any::<bool>())
            .prop_map(|(key, sark, kind, abort)| Ask::Preempt { key, sark, kind, abort }),
        3 => (key(), key(), (0..INITIATORS, 1_u8..=4), any::<(bool, bool)>()).prop_map(
            |(key, sark, to, (unreg, aptpl))| Ask::Move { key, sark, to, unreg, aptpl }
        ),
        1 => Just(Ask::Reserve6),
        1 => Just(Ask::Release6),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let outage = prop_oneof![Just(Outage::Restart), Just(Outage::PowerLoss)];
    prop_oneof![
        30 => (at(), ask()).prop_map(|(at, ask)| Step::Ask(at, ask)),
        2 => outage.prop_map(Step::Restart),
        1 => Just(Step::Reset),
        2 => at().prop_map(Step::Lost),
        1 => Just(Step::ClearByOperator),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn machine_and_model_tell_the_same_story(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Ask(at, ask) => {
                    // A client that knows its key, as they mostly do.
                    pair.ask(at, &ask);
                    if let Some(own) = pair.model.key(at) {
                        pair.ask(at, &with_key(ask, own));
                    }
                }
                Step::Restart(outage) => pair.restart(outage),
                Step::Reset => {
                    let kind = target::lun::ResetKind::LogicalUnit;
                    let applied = pair.state.apply(Change::Reset { kind, by: Some(id((0, 1))) });
                    pair.model.reserved = None;
                    pair.keep(applied);
                    pair.compare();
                }
                Step::Lost(at) => {
                    let applied = pair.state.apply(Change::NexusLost { nexus: id(at), tell: true });
                    pair.model.reserved = pair.model.reserved.filter(|it| *it != at);
                    pair.keep(applied);
                    pair.compare();
                }
                Step::ClearByOperator => {
                    let applied = pair.state.apply(Change::ClearReservations);
                    assert_eq!(outcome(&applied), pair.model.clear_by_operator());
                    pair.keep(applied);
                    pair.compare();
                }
            }
        }
    }
}

fn with_key(mut ask: Ask, own: u64) -> Ask {
    match &mut ask {
        Ask::Register { key, .. }
        | Ask::Reserve { key, .. }
        | Ask::Release { key, .. }
        | Ask::Clear { key }
        | Ask::Preempt { key, .. }
        | Ask::Move { key, .. } => *key = own,
        Ask::Reserve6 | Ask::Release6 => {}
    }
    ask
}

#[test]
fn one_registrant_too_many_is_refused_and_nothing_is_registered() {
    let mut state = State::new(config());
    let register = |state: &mut State, name: &str, also: Option<Vec<Initiator>>| {
        let action = Action::Register {
            key: 0,
            new_key: 5,
            also,
            all_ports: false,
            through_power_loss: false,
        };
        state.apply(Change::Reserve { nexus: nexus(name, 1), action }).reply
    };
    for number in 0..REGISTRANTS_MAX - 1 {
        register(&mut state, &format!("n{number}"), None).unwrap();
    }
    let two = Some(vec![Initiator::new(b"x").unwrap()]);
    let full = Err(Refusal::Reservation(Mistake::NoRoom));
    assert_eq!(register(&mut state, "y", two), full);
    assert_eq!(state.view().reservations.registrants().len(), REGISTRANTS_MAX - 1);
    register(&mut state, "y", None).unwrap();
    assert_eq!(register(&mut state, "z", None), full);
}

/// A stored form may say anything; what it says must still make sense together.
#[test]
fn nonsense_is_not_restored() {
    let mut stored = State::new(config()).persistent();
    let held =
        |kind, holder: Option<&str>| Some(Held { kind, holder: holder.map(|name| nexus(name, 1)) });
    for (registrants, held, restored) in [
        (vec![("a", 1)], held(Kind::WriteExclusive, Some("a")), true),
        (vec![("a", 1)], held(Kind::WriteExclusive, Some("b")), false),
        (vec![("a", 0)], held(Kind::WriteExclusive, Some("a")), false),
        (vec![("a", 1)], held(Kind::WriteExclusive, None), false),
        (vec![("a", 1)], held(Kind::WriteExclusiveAllRegistrants, Some("a")), false),
        (vec![("a", 1)], held(Kind::WriteExclusiveAllRegistrants, None), true),
        (vec![], held(Kind::ExclusiveAccessAllRegistrants, None), false),
    ] {
        let key = |(name, key): &(&str, u64)| (nexus(name, 1), *key);
        stored.reservations.registrants = registrants.iter().map(key).collect();
        stored.reservations.held = held.clone();
        stored.reservations.unit_holder = Some(nexus("a", 1));
        let state = State::restore(Access::default(), stored.clone(), Outage::Restart, 1);
        let view = state.view();
        assert_eq!(view.reservations.held().is_some(), restored, "{held:?}");
        let free = view.reservations.registrants().len() == 0;
        assert_eq!(view.reservations.unit_holder().is_some(), free);
    }
}
