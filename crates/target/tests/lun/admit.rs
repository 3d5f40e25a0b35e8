//! The task set against its rules, told the naive way: after every step, who may run is worked out
//! anew from the list of tasks.

use proptest::prelude::*;
use target::lun::admit::{
    Aborted, Attribute, Entered, Fault, Leaving, NotAdmitted, TASKS_MAX, TaskSet, Which,
};

use crate::kit::{Woken, now, poll};

use Attribute::{Aca, HeadOfQueue, Ordered, Simple};

const LIMIT: u32 = 6;

/// A task as the rules see it.
struct Told<'a> {
    entered: Entered<'a>,
    tag: u64,
    attribute: Attribute,
    began: bool,
    aborted: bool,
}

struct Story<'a> {
    set: &'a TaskSet,
    tasks: Vec<Told<'a>>,
    aca: bool,
    next_tag: u64,
    leaving: Vec<(Leaving, Vec<u64>)>,
}

impl<'a> Story<'a> {
    fn enter(&mut self, attribute: Attribute) {
        let expected = if self.tasks.len() >= LIMIT as usize {
            Err(NotAdmitted::Full)
        } else if attribute == Aca && !self.aca {
            Err(NotAdmitted::NoAca)
        } else if attribute != Aca && self.aca
            || self.tasks.iter().any(|task| attribute == Aca && task.attribute == Aca)
        {
            Err(NotAdmitted::AcaActive)
        } else {
            Ok(())
        };
        let tag = self.next_tag;
        self.next_tag += 1;
        let entered = self.set.enter(tag, attribute);
        assert_eq!(entered.as_ref().map(|_| ()).map_err(|&error| error), expected);
        if let Ok(entered) = entered {
            let (began, aborted) = (false, false);
            self.tasks.push(Told { entered, tag, attribute, began, aborted });
        }
    }

    /// SAM-5 8.6: what is in the way of the task at this place.
    fn may_begin(&self, at: usize) -> bool {
        let blocks = |other: usize| {
            let attribute = self.tasks[other].attribute;
            match self.tasks[at].attribute {
                _ if other == at => false,
                Aca | HeadOfQueue => false,
                Simple => attribute == HeadOfQueue || other < at && attribute == Ordered,
                Ordered => attribute == HeadOfQueue || attribute != Aca && other < at,
            }
        };
        let stopped = self.aca && self.tasks[at].attribute != Aca;
        !stopped && !(0..self.tasks.len()).any(blocks)
    }

    /// Tasks become enabled in the order of the queue, each seeing those before it.
    fn settle(&mut self) {
        for at in 0..self.tasks.len() {
            self.tasks[at].began |= self.may_begin(at);
        }
        for task in &self.tasks {
            assert_eq!(
                task.entered.is_enabled(),
                task.began,
                "{} of {:?}",
                task.tag,
                self.set.len()
            );
            assert_eq!(task.entered.aborted().is_some(), task.aborted);
            let turn = poll(task.entered.turn());
            assert_eq!(turn.is_ready(), task.began || task.aborted);
        }
        assert_eq!(self.set.len(), self.tasks.len());
        assert_eq!(self.set.has_aca(), self.aca);
        for (leaving, tags) in &self.leaving {
            let gone = !self.tasks.iter().any(|task| tags.contains(&task.tag));
            assert_eq!(self.set.have_left(leaving), gone);
        }
    }

    fn abort(&mut self, is_meant: impl Fn(&Told<'_>) -> bool) -> Vec<u64> {
        let meant = self.tasks.iter_mut().filter(|task| is_meant(task));
        meant
            .map(|task| {
                task.aborted = true;
                task.tag
            })
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Attribute),
    Leave(usize),
    Fault(usize, Fault),
    AbortOne(usize),
    AbortAllBut(Option<usize>),
    ClearAca,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = any::<(bool, bool)>();
    prop_oneof![
        8 => Just(Step::Enter(Simple)),
        4 => Just(Step::Enter(Ordered)),
        2 => Just(Step::Enter(HeadOfQueue)),
        1 => Just(Step::Enter(Aca)),
        10 => (0_usize..8).prop_map(Step::Leave),
        1 => (0_usize..8, fault).prop_map(|(at, (aca, abort_others))| {
            Step::Fault(at, Fault { aca, abort_others })
        }),
        1 => (0_usize..8).prop_map(Step::AbortOne),
        1 => prop::option::of(0_usize..8).prop_map(Step::AbortAllBut),
        2 => Just(Step::ClearAca),
    ]
}

fn take(story: &mut Story<'_>, step: Step) {
    let count = story.tasks.len();
    match step {
        Step::Enter(attribute) => story.enter(attribute),
        // Only those that run, or were aborted, end.
        Step::Leave(at) => {
            let ends = |task: &Told<'_>| task.began || task.aborted;
            if story.tasks.get(at).is_some_and(ends) {
                story.tasks.remove(at);
            }
        }
        Step::Fault(at, fault) if at < count && story.tasks[at].began => {
            let task = &story.tasks[at];
            assert!(task.entered.fault(fault).is_empty());
            if task.aborted {
                return;
            }
            let (tag, was_aca) = (task.tag, task.attribute == Aca);
            story.aca = fault.aca || story.aca && !was_aca;
            if fault.abort_others {
                story.abort(|task| task.tag != tag);
            }
            story.tasks.remove(at);
        }
        Step::AbortOne(at) if at < count => {
            let tag = story.tasks[at].tag;
            let leaving = story.set.abort(Which::Tag(tag), Aborted::Silently);
            let tags = story.abort(|task| task.tag == tag);
            story.leaving.push((leaving, tags));
        }
        Step::AbortAllBut(at) => {
            let but = at.and_then(|at| story.tasks.get(at)).map(|task| task.tag);
            let which = but.map_or(Which::All, Which::AllBut);
            let leaving = story.set.abort(which, Aborted::WithStatus);
            let tags = story.abort(|task| Some(task.tag) != but);
            story.leaving.push((leaving, tags));
        }
        Step::ClearAca => {
            let (had, leaving) = story.set.clear_aca();
            assert_eq!(had, story.aca);
            story.aca = false;
            let tags = story.abort(|task| task.attribute == Aca);
            story.leaving.push((leaving, tags));
        }
        Step::Fault(..) | Step::AbortOne(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn who_may_run_is_what_the_rules_say(steps in prop::collection::vec(step(), 1..120)) {
        let set = TaskSet::new(LIMIT);
        let (tasks, leaving) = (Vec::new(), Vec::new());
        let mut story = Story { set: &set, tasks, aca: false, next_tag: 0, leaving };
        for step in steps {
            take(&mut story, step);
            story.settle();
        }
        // Whatever happened, with everybody gone the set is as new.
        take(&mut story, Step::ClearAca);
        story.settle();
        while let Some(at) = story.tasks.iter().position(|task| task.began || task.aborted) {
            story.tasks.remove(at);
            story.settle();
        }
        prop_assert!(set.is_empty() && story.tasks.is_empty());
        prop_assert!(set.enter(1, Simple).is_ok_and(|task| task.is_enabled()));
    }
}

#[test]
fn a_dormant_task_is_woken_by_its_turn_and_by_its_abort() {
    let set = TaskSet::new(8);
    let first = set.enter(1, Simple).unwrap();
    let ordered = set.enter(2, Ordered).unwrap();
    let last = set.enter(3, Simple).unwrap();
    let (second, third) = (Woken::new(), Woken::new());
    let mut turn_of_second = Box::pin(ordered.turn());
    let mut turn_of_third = Box::pin(last.turn());
    assert!(second.poll(turn_of_second.as_mut()).is_pending());
    assert!(third.poll(turn_of_third.as_mut()).is_pending());
    drop(first);
    assert_eq!((second.times(), third.times()), (1, 0));
    assert_eq!(second.poll(turn_of_second.as_mut()).map(|it| it.is_ok()), true.into());
    let leaving = set.abort(Which::Tag(3), Aborted::WithStatus);
    assert_eq!(third.times(), 1);
    let drained = Woken::new();
    let mut left = Box::pin(set.left(leaving));
    assert!(drained.poll(left.as_mut()).is_pending());
    assert_eq!(third.poll(turn_of_third.as_mut()), Err(Aborted::WithStatus).into());
    drop(turn_of_third);
    drop(last);
    assert_eq!(drained.times(), 1);
    assert!(drained.poll(left.as_mut()).is_ready());
}

#[test]
fn who_waits_for_something_else_learns_of_its_abort() {
    let set = TaskSet::new(8);
    let task = set.enter(1, Simple).unwrap();
    let woken = Woken::new();
    let mut aborted = Box::pin(task.until_aborted());
    assert!(woken.poll(aborted.as_mut()).is_pending());
    assert!(set.abort(Which::Tag(2), Aborted::Silently).is_empty());
    let _ = set.abort(Which::AllBut(1), Aborted::Silently);
    assert_eq!(woken.times(), 0);
    let _ = set.abort(Which::All, Aborted::Silently);
    assert_eq!(woken.times(), 1);
    assert_eq!(now(aborted), Aborted::Silently);
}

#[test]
fn a_set_has_room_for_one_at_least_and_never_for_more_than_the_most() {
    let set = TaskSet::new(0);
    let only = set.enter(1, Ordered).unwrap();
    assert_eq!(set.enter(2, Simple).err(), Some(NotAdmitted::Full));
    drop(only);
    let set = TaskSet::new(u32::MAX);
    let all: Vec<Entered<'_>> =
        (0..TASKS_MAX.into()).map(|tag| set.enter(tag, Simple).unwrap()).collect();
    assert_eq!(set.enter(0, HeadOfQueue).err(), Some(NotAdmitted::Full));
    assert!(all.iter().all(Entered::is_enabled));
}
