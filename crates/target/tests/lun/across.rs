//! Task sets of one nexus on several cores: whatever order words arrive in, an ORDERED task runs
//! alone, a HEAD OF QUEUE task is not overtaken, and an ACA stops all of them.
//!
//! The cores are a script's: a step is something that happens on one of them, or one word that
//! arrives there.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use proptest::prelude::*;
use target::lun::admit::{
    Aborted, Across, Attribute, Entered, Fault, Heard, NotAdmitted, Peer, TaskSet, Which, Word,
};

use crate::kit::poll;

use Attribute::{Aca, HeadOfQueue, Ordered, Simple};

const CORES: usize = 3;
const LIMIT: u32 = 32;

/// What is on its way to a core.
#[derive(Default)]
struct Letters(Mutex<VecDeque<(Word, Arc<AtomicBool>)>>);

struct Way(Arc<Letters>);

impl Peer for Way {
    fn tell(&self, word: Word) -> Heard {
        let heard = Arc::new(AtomicBool::new(false));
        self.0.0.lock().unwrap().push_back((word, heard.clone()));
        Box::pin(std::future::poll_fn(move |_| match heard.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }
}

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

struct Told<'a> {
    core: usize,
    number: usize,
    attribute: Attribute,
    entered: Rc<Entered<'a>>,
    turn: Option<Later<'a, Result<(), Aborted>>>,
    began: bool,
    /// It failed, and leaves when everybody knows.
    fault: Option<(Later<'a, ()>, Option<usize>)>,
}

impl Told<'_> {
    /// Stands in the order of the queue.
    fn is_queued(&self) -> bool {
        matches!(self.attribute, Simple | Ordered)
    }
}

struct Story<'a> {
    sets: &'a [TaskSet; CORES],
    letters: [Arc<Letters>; CORES],
    across: Arc<Across>,
    joined: usize,
    hearing: Vec<(Later<'a, ()>, Arc<AtomicBool>)>,
    tasks: Vec<Told<'a>>,
    next: usize,
    /// Faults with NACA and ends of the condition so far.
    changes: usize,
    /// The condition that everybody knows of, by the change that made it.
    in_force: bool,
    /// There may be one somewhere.
    possible: bool,
}

impl<'a> Story<'a> {
    fn new(sets: &'a [TaskSet; CORES]) -> Self {
        let mut story = Self {
            sets,
            letters: Default::default(),
            across: Arc::default(),
            joined: 0,
            hearing: Vec::new(),
            tasks: Vec::new(),
            next: 0,
            changes: 0,
            in_force: false,
            possible: false,
        };
        story.join();
        story.join();
        story
    }

    fn join(&mut self) {
        let Some(set) = self.sets.get(self.joined) else { return };
        set.join(&self.across, Arc::new(Way(self.letters[self.joined].clone())));
        self.joined += 1;
    }

    fn enter(&mut self, core: usize, attribute: Attribute) {
        if core >= self.joined {
            return;
        }
        let number = self.next;
        self.next += 1;
        let there = self.tasks.iter().filter(|task| task.core == core).count();
        let has_aca_task = self.tasks.iter().any(|task| task.attribute == Aca);
        let sets = self.sets;
        let entered = match sets[core].enter(number as u64, attribute) {
            Ok(entered) => Rc::new(entered),
            Err(NotAdmitted::Full) => return assert_eq!(there, LIMIT as usize),
            Err(why) => {
                assert!(why == NotAdmitted::NoAca || self.possible);
                assert!(why == NotAdmitted::AcaActive || !self.in_force);
                let is_let_in = attribute == Aca && self.in_force && !has_aca_task;
                return assert!(!is_let_in, "{attribute:?} on {core}: {why}");
            }
        };
        assert!(attribute == Aca || !self.in_force, "{attribute:?} during an ACA on {core}");
        assert!(attribute != Aca || self.possible && !has_aca_task);
        let own = entered.clone();
        let turn: Later<'a, _> = Box::pin(async move { own.turn().await });
        let (began, fault, turn) = (false, None, Some(turn));
        self.tasks.push(Told { core, number, attribute, entered, turn, began, fault });
    }

    fn deliver(&mut self, core: usize) -> bool {
        let letter = self.letters[core].0.lock().unwrap().pop_front();
        let Some((word, heard)) = letter else { return false };
        let set = &self.sets[core];
        set.hear(word);
        self.hearing.push((Box::pin(async move { set.heard(word).await }), heard));
        true
    }

    /// Polls everything until nothing changes any more.
    fn settle(&mut self) {
        let begun: Vec<usize> =
            self.tasks.iter().filter(|task| task.began).map(|task| task.number).collect();
        loop {
            let before = (self.hearing.len(), self.tasks.len());
            let mut turned = false;
            self.hearing.retain_mut(|(hearing, heard)| {
                let is_pending = poll(hearing.as_mut()).is_pending();
                heard.fetch_or(!is_pending, Ordering::Relaxed);
                is_pending
            });
            for task in &mut self.tasks {
                let Some(turn) = &mut task.turn else { continue };
                if let Poll::Ready(outcome) = poll(turn.as_mut()) {
                    assert_eq!(outcome.is_err(), task.entered.aborted().is_some());
                    (task.turn, turned) = (None, true);
                }
            }
            self.end_faults();
            if !turned && before == (self.hearing.len(), self.tasks.len()) {
                break;
            }
        }
        for task in &mut self.tasks {
            task.began = task.entered.is_enabled();
        }
        self.check(&begun);
    }

    fn end_faults(&mut self) {
        let mut at = 0;
        while let Some(task) = self.tasks.get_mut(at) {
            match task.fault.as_mut().map(|(told, aca)| (poll(told.as_mut()).is_ready(), *aca)) {
                Some((true, aca)) => {
                    self.in_force |= aca == Some(self.changes);
                    drop(self.tasks.remove(at));
                }
                _ => at += 1,
            }
        }
    }

    fn check(&self, begun: &[usize]) {
        let newly = |task: &&Told<'_>| task.began && !begun.contains(&task.number);
        for task in self.tasks.iter().filter(newly).filter(|task| task.is_queued()) {
            let name = format!("{:?} {} on {}", task.attribute, task.number, task.core);
            assert!(!self.in_force, "{name} begins during an ACA");
            for other in self.tasks.iter().filter(|other| other.number != task.number) {
                let met = format!("{name} meets {:?} {}", other.attribute, other.number);
                let is_older = other.number < task.number && other.is_queued();
                let was_begun = begun.contains(&other.number);
                assert!(other.attribute != HeadOfQueue || !was_begun, "{met}");
                let is_ordered = [task, other].iter().any(|it| it.attribute == Ordered);
                assert!(!(is_ordered && other.is_queued() && other.began), "{met}");
                assert!(!(task.attribute == Ordered && is_older), "{met}, which is older");
                let is_same = other.core == task.core && other.attribute == Ordered;
                assert!(!(is_same && is_older), "{met}, which is older there");
            }
        }
        let acas = self.tasks.iter().filter(|task| task.attribute == Aca).count();
        assert!(acas <= 1);
    }

    fn fault(&mut self, at: usize, fault: Fault) {
        let Some(task) = self.tasks.get_mut(at) else { return };
        let is_over = task.entered.aborted().is_some() || task.fault.is_some();
        if !task.began || task.turn.is_some() || is_over {
            return;
        }
        let told = task.entered.fault(fault);
        let ends = task.attribute == Aca && !fault.aca;
        if fault.aca || ends {
            self.changes += 1;
            self.in_force &= !ends;
        }
        self.possible |= fault.aca;
        let aca = fault.aca.then_some(self.changes);
        self.tasks[at].fault = Some((Box::pin(told.all()), aca));
    }

    fn clear_aca(&mut self) {
        for set in &self.sets[..self.joined] {
            let _ = set.clear_aca();
        }
        self.changes += 1;
        self.in_force = false;
    }

    fn leave(&mut self, at: usize) -> bool {
        let ends = |task: &Told<'_>| {
            let is_turned = task.turn.is_none() && task.fault.is_none();
            is_turned && (task.began || task.entered.aborted().is_some())
        };
        let is_over = self.tasks.get(at).is_some_and(ends);
        if is_over {
            drop(self.tasks.remove(at));
        }
        is_over
    }

    /// Everything arrives, and whoever can end does.
    fn end(&mut self) {
        self.clear_aca();
        self.settle();
        loop {
            let delivered = (0..CORES).filter(|&core| self.deliver(core)).count();
            self.settle();
            let left = (0..self.tasks.len()).any(|at| self.leave(at));
            self.settle();
            if delivered == 0 && !left {
                break;
            }
        }
        let stuck: Vec<_> =
            self.tasks.iter().map(|it| (it.attribute, it.number, it.core)).collect();
        assert!(stuck.is_empty() && self.hearing.is_empty(), "{stuck:?}");
        for set in self.sets {
            assert!(set.is_empty() && !set.has_aca());
            assert!(set.enter(0, Simple).is_ok_and(|task| task.is_enabled()));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter(usize, Attribute),
    Deliver(usize),
    Leave(usize),
    Fault(usize, Fault),
    Abort(usize),
    ClearAca,
    Join,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = any::<(bool, bool)>();
    const KINDS: &[Attribute] = &[Simple, Simple, Simple, Ordered, Ordered, HeadOfQueue, Aca];
    prop_oneof![
        14 => (0..CORES, prop::sample::select(KINDS)).prop_map(|(at, it)| Step::Enter(at, it)),
        14 => (0..CORES).prop_map(Step::Deliver),
        10 => (0_usize..8).prop_map(Step::Leave),
        2 => (0_usize..8, fault).prop_map(|(at, (aca, abort_others))| {
            Step::Fault(at, Fault { aca, abort_others })
        }),
        1 => (0_usize..8).prop_map(Step::Abort),
        1 => Just(Step::ClearAca),
        1 => Just(Step::Join),
    ]
}

fn take(story: &mut Story<'_>, step: Step) {
    match step {
        Step::Enter(core, attribute) => story.enter(core, attribute),
        Step::Deliver(core) => drop(story.deliver(core)),
        Step::Leave(at) => drop(story.leave(at)),
        Step::Fault(at, fault) => story.fault(at, fault),
        Step::Abort(at) => {
            let task = story.tasks.get(at).map(|task| (task.core, task.number as u64));
            if let Some((core, tag)) = task {
                let _ = story.sets[core].abort(Which::Tag(tag), Aborted::Silently);
            }
        }
        Step::ClearAca => story.clear_aca(),
        Step::Join => story.join(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn order_holds_across_cores(steps in prop::collection::vec(step(), 1..150)) {
        let sets = [LIMIT; CORES].map(TaskSet::new);
        let mut story = Story::new(&sets);
        for step in steps {
            take(&mut story, step);
            story.settle();
        }
        while story.joined < CORES {
            story.join();
        }
        story.end();
    }
}
