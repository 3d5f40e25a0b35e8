//! A simulated node: several cores, messages that take their time, a store that fails now and then,
//! places that come and go. Whatever the order: a change that is answered is stored and in force
//! everywhere, and a change that is refused has never been.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use proptest::prelude::*;
use target::lun::access::Access;
use target::lun::admit::{Aborted, Attribute, Entered};
use target::lun::attention::Attention;
use target::lun::owner::{CHANGES_MAX, Order, Owner, Place};
use target::lun::reservation::{Action, Kind};
use target::lun::{
    Change, Handle, Local, Member, NexusId, Outage, Persistent, Refusal, ResetKind, Settled, State,
    Update,
};

use crate::kit::{config, handle_of, join, nexus};

const CORES: u32 = 3;
const NEXUSES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, Asked),
    /// A task begins for a nexus at a core, and the oldest one there ends.
    Begin(u32, usize),
    End(u32),
    Deliver(u32),
    /// A core looks which updates are in force by now.
    Look(u32),
    Store(bool),
    Join(u32),
    Leave(u32),
    /// The owner is lost with all that it knew, and another one begins. What was on its way to the
    /// store has arrived or not.
    TakeOver(bool),
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Register(u64),
    Reserve,
    Preempt(u64),
    Reset,
    Lost,
    Resized,
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        3 => (0_u64..3).prop_map(Asked::Register),
        2 => Just(Asked::Reserve),
        3 => (1_u64..3).prop_map(Asked::Preempt),
        1 => Just(Asked::Reset),
        1 => Just(Asked::Lost),
        1 => Just(Asked::Resized),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..NEXUSES, asked()).prop_map(|(by, asked)| Step::Ask(by, asked)),
        3 => (0..CORES, 0..NEXUSES).prop_map(|(core, of)| Step::Begin(core, of)),
        3 => (0..CORES).prop_map(Step::End),
        8 => (0..CORES).prop_map(Step::Deliver),
        6 => (0..CORES).prop_map(Step::Look),
        6 => prop::bool::weighted(0.8).prop_map(Step::Store),
        1 => (0..CORES).prop_map(Step::Join),
        1 => (0..CORES).prop_map(Step::Leave),
        1 => any::<bool>().prop_map(Step::TakeOver),
    ]
}

/// A core with a handle, and what is on its way to it.
struct Core {
    handle: Rc<Handle>,
    members: [&'static Member; NEXUSES],
    tasks: VecDeque<Entered<'static>>,
    inbox: VecDeque<Update>,
    settling: Vec<(u64, Settled)>,
}

struct Node {
    owner: Owner<usize>,
    cores: [Option<Core>; CORES as usize],
    /// Every change, and what it was answered.
    asked: Vec<(Change, Option<Result<u64, Refusal>>)>,
    /// What the owner began with.
    first: State,
    epoch: u32,
    /// What lies in the store, and what is on its way there.
    stored: Persistent,
    storing: Option<Persistent>,
    /// By version the first that was answered with it, and whether all its tasks had left by then.
    makers: BTreeMap<u64, (usize, bool)>,
    names: [NexusId; NEXUSES],
}

impl Node {
    fn new() -> Self {
        let names = [nexus("0", 1), nexus("1", 1), nexus("2", 2)];
        let first = State::new(config());
        let mut node = Self {
            owner: Owner::new(first.clone()),
            stored: first.persistent(),
            first,
            epoch: 0,
            cores: Default::default(),
            asked: Vec::new(),
            storing: None,
            makers: BTreeMap::new(),
            names,
        };
        (0..CORES).for_each(|at| node.join(at));
        node
    }

    fn join(&mut self, at: u32) {
        if self.cores[at as usize].is_some() {
            return;
        }
        let view = self.owner.join(Place(at));
        let handle = handle_of(view, Local::new(State::new(config())));
        // Tasks lend from their member, and the test keeps both in one place.
        let member = |name| -> &'static Member { Box::leak(Box::new(join(&handle, name))) };
        let members = self.names.each_ref().map(member);
        let (tasks, inbox, settling) = (VecDeque::new(), VecDeque::new(), Vec::new());
        self.cores[at as usize] = Some(Core { handle, members, tasks, inbox, settling });
    }

    fn carry_out(&mut self, orders: Vec<Order<usize>>) {
        for order in orders {
            match order {
                Order::Store(persistent) => assert!(self.storing.replace(persistent).is_none()),
                Order::Install { at, update } => {
                    let core = self.cores[at.0 as usize].as_mut();
                    core.expect("only to places that are there").inbox.push_back(update);
                }
                Order::Answer { ticket, reply } => {
                    let version = reply.map(|reply| reply.version);
                    if let Ok(version) = version {
                        self.check_in_force(ticket, version);
                    }
                    let answer = self.asked[ticket].1.replace(version);
                    assert!(answer.is_none(), "answered twice");
                }
            }
        }
    }

    fn check_in_force(&mut self, ticket: usize, version: u64) {
        let mut is_settled = true;
        for core in self.cores.iter().flatten() {
            assert!(core.handle.view().version >= version, "not everywhere");
            let of_it = core.settling.iter().filter(|(of, _)| *of == version);
            is_settled &= of_it.clone().all(|(_, settled)| settled.is_done());
        }
        // Who made this version, and not who found nothing to change in it; the first is nobody's.
        if version == self.first.view().version {
            return;
        }
        let maker = self.makers.entry(version).or_insert((ticket, is_settled));
        if ticket < maker.0 {
            *maker = (ticket, is_settled);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask(by, asked) => {
                let change = change(&self.names[by], asked);
                self.asked.push((change.clone(), None));
                let orders = self.owner.change(self.asked.len() - 1, change);
                self.carry_out(orders);
            }
            Step::Begin(at, of) => {
                if let Some(core) = &mut self.cores[at as usize] {
                    let tasks = core.members[of].tasks();
                    core.tasks.extend(tasks.enter(1, Attribute::Simple));
                }
            }
            Step::End(at) => {
                if let Some(core) = &mut self.cores[at as usize] {
                    core.tasks.pop_front();
                }
            }
            Step::Deliver(at) => {
                if let Some(core) = &mut self.cores[at as usize]
                    && let Some(update) = core.inbox.pop_front()
                {
                    let version = update.view.version;
                    core.settling.push((version, core.handle.install(&update)));
                    let orders = self.owner.installed(Place(at), version);
                    self.carry_out(orders);
                }
            }
            Step::Look(at) => {
                let Some(core) = &mut self.cores[at as usize] else { return };
                let done: Vec<u64> = core
                    .settling
                    .extract_if(.., |(_, settled)| settled.is_done())
                    .map(|(version, _)| version)
                    .collect();
                for version in done {
                    let orders = self.owner.settled(Place(at), version);
                    self.carry_out(orders);
                }
            }
            Step::Store(works) => {
                let Some(persistent) = self.storing.take() else { return };
                if works {
                    self.stored = persistent;
                }
                let orders = self.owner.stored(works);
                self.carry_out(orders);
            }
            Step::Join(at) => self.join(at),
            Step::TakeOver(arrived) => self.take_over(arrived),
            Step::Leave(at) => {
                if self.cores[at as usize].take().is_some() {
                    let orders = self.owner.leave(Place(at));
                    self.carry_out(orders);
                }
            }
        }
    }

    /// The store has what the first of the changes led to, none missing, and among them all that
    /// were answered; another owner goes on from there.
    fn take_over(&mut self, arrived: bool) {
        let storing = self.storing.take();
        self.stored = storing.filter(|_| arrived).unwrap_or(self.stored.clone());
        let promised = self.asked.iter().rposition(|(_, answer)| matches!(answer, Some(Ok(_))));
        let mut state = self.first.clone();
        let mut found = promised.is_none() && state.persistent() == self.stored;
        for (at, (change, answer)) in self.asked.drain(..).enumerate() {
            if answer != Some(Err(Refusal::Unavailable)) {
                state.apply(change);
            }
            found |= Some(at) >= promised && state.persistent() == self.stored;
        }
        assert!(found, "something is missing in the store");

        self.epoch += 1;
        let outage = Outage::Restart;
        self.first = State::restore(Access::default(), self.stored.clone(), outage, self.epoch);
        self.owner = Owner::new(self.first.clone());
        self.makers.clear();
        for at in 0..CORES {
            if self.cores[at as usize].is_some() {
                let order = self.owner.resume(Place(at));
                self.carry_out(vec![order]);
            }
        }
    }

    /// Everything that is under way comes to its end.
    fn settle(&mut self) {
        for _ in 0..4 * CHANGES_MAX {
            let inboxes = self.cores.iter().flatten().map(|core| core.inbox.len());
            if self.owner.is_idle() && inboxes.sum::<usize>() == 0 {
                return;
            }
            self.take(Step::Store(true));
            for at in 0..CORES {
                let turn = [Step::Deliver(at), Step::End(at), Step::Look(at)];
                turn.into_iter().for_each(|step| self.take(step));
            }
        }
        panic!("it never ends");
    }
}

fn change(nexus: &NexusId, asked: Asked) -> Change {
    let nexus = nexus.clone();
    let kind = Kind::WriteExclusiveRegistrantsOnly;
    match asked {
        Asked::Register(new_key) => Change::Reserve {
            nexus,
            action: Action::RegisterAnyway { new_key, all_ports: false, through_power_loss: false },
        },
        Asked::Reserve => Change::Reserve { nexus, action: Action::Reserve { key: 1, kind } },
        Asked::Preempt(victim) => {
            let (kind, abort) = (Some(kind), Some(99));
            Change::Reserve { nexus, action: Action::Preempt { key: 1, victim, kind, abort } }
        }
        Asked::Reset => Change::Reset { kind: ResetKind::LogicalUnit, by: Some(nexus) },
        Asked::Lost => Change::NexusLost { nexus, tell: true },
        Asked::Resized => Change::Resized,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_answered_is_in_force_and_what_is_refused_never_was(
        steps in prop::collection::vec(step(), 1..150)
    ) {
        let mut node = Node::new();
        for step in steps {
            node.take(step);
        }
        node.settle();
        // The same changes, less those that could not be stored, one after the other on one core.
        let mut alone = node.first.clone();
        for (change, answer) in node.asked.iter() {
            let answer = answer.expect("everything is answered");
            if answer == Err(Refusal::Unavailable) {
                continue;
            }
            let reply = alone.apply(change.clone()).reply;
            prop_assert_eq!(reply.map(|reply| reply.version), answer);
        }
        prop_assert!(node.makers.values().all(|(_, settled)| *settled), "tasks still ran");
        prop_assert_eq!(alone.view(), node.owner.view());
        prop_assert_eq!(alone.persistent(), node.stored);
        for core in node.cores.iter().flatten() {
            prop_assert_eq!(core.handle.view(), alone.view());
        }
    }
}

/// A task that is to be aborted may itself wait for a change: that one must not wait for the first.
#[test]
fn a_change_does_not_wait_for_the_tasks_that_another_one_ends() {
    let mut node = Node::new();
    let register = Asked::Register(1);
    node.take(Step::Ask(0, register));
    node.take(Step::Store(true));
    node.take(Step::Ask(1, Asked::Register(2)));
    node.take(Step::Store(true));
    node.settle();
    node.take(Step::Begin(0, 1));
    node.take(Step::Ask(0, Asked::Preempt(2)));
    node.take(Step::Ask(1, register));
    for _ in 0..2 {
        node.take(Step::Store(true));
        (0..CORES).for_each(|at| node.take(Step::Deliver(at)));
        (0..CORES).for_each(|at| node.take(Step::Look(at)));
    }
    let answered = |node: &Node, at: usize| node.asked[at].1.is_some();
    assert!(!answered(&node, 2) && answered(&node, 3));
    node.take(Step::End(0));
    node.take(Step::Look(0));
    assert!(answered(&node, 2));
}

/// PREEMPT AND ABORT was stored, and its owner was lost before anybody heard of it. The victim's
/// tasks end all the same: who asked may see that the key is gone, and rely on it.
#[test]
fn a_successor_ends_the_tasks_of_whom_its_predecessor_preempted() {
    let mut node = Node::new();
    for (at, asked) in [(0, Asked::Register(1)), (1, Asked::Register(2))] {
        node.take(Step::Ask(at, asked));
        node.take(Step::Store(true));
        node.settle();
    }
    node.take(Step::Begin(0, 0));
    node.take(Step::Begin(0, 1));
    node.take(Step::Ask(0, Asked::Preempt(2)));
    node.take(Step::TakeOver(true));
    node.take(Step::Deliver(0));
    let core = node.cores[0].as_ref().unwrap();
    let aborted: Vec<_> = core.tasks.iter().map(Entered::aborted).collect();
    assert_eq!(aborted, [None, Some(Aborted::WithStatus)]);
    assert!(core.members[0].attentions().is_empty());
    let told = core.members[1].attentions().take();
    assert_eq!(told, Some(Attention::RegistrationsPreempted));
}

#[test]
fn changes_beyond_the_limit_are_refused_at_once() {
    let mut owner = Owner::new(State::new(config()));
    let a = nexus("a", 1);
    let mut ask = |ticket| owner.change(ticket, change(&a, Asked::Register(ticket as u64 + 1)));
    assert!(matches!(ask(0)[..], [Order::Store(_)]));
    for ticket in 1..=CHANGES_MAX {
        assert_eq!(ask(ticket), []);
    }
    let refused = Order::Answer { ticket: 7, reply: Err(Refusal::Unavailable) };
    assert_eq!(ask(7), [refused]);
}
