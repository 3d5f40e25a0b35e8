//! Blocking work: a thread of its own that runs only when it is handed the turn.
//!
//! Each call that blocks hands the turn back, lets time pass and waits to be given it again, so
//! that other things happen, and crashes fall, between any two of them. Exactly one thread runs at
//! any moment: the world's, or one worker's.
//!
//! The work of a killed process cannot be stopped where it stands, but nothing that it does counts
//! any more: every call fails. It is run to its end at once.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::room::{Event, ProcessId, Room, State, WorkId};
use crate::os::thread::WORKERS_MAX;

type Job = Box<dyn FnOnce() + Send>;

/// Calls that a dead process's work may make before it is ended by force.
const DEAD_CALLS_MAX: u32 = 1000;

/// All work of a world.
#[derive(Default)]
pub(super) struct Works {
    list: BTreeMap<WorkId, Work>,
    /// For each process: work that waits for one of its threads.
    queues: BTreeMap<ProcessId, VecDeque<WorkId>>,
}

struct Work {
    process: ProcessId,
    /// Not started yet.
    job: Option<Job>,
    baton: Arc<Baton>,
}

/// Who may run: the world, or this worker.
#[derive(Default)]
struct Baton {
    state: Mutex<Turn>,
    passed: Condvar,
}

#[derive(Default)]
struct Turn {
    worker: bool,
    ended: bool,
    panic: Option<Box<dyn Any + Send>>,
    dead: bool,
}

impl Baton {
    /// Lets the worker run until it gives the turn back. True: it has ended.
    fn hand_over(&self) -> bool {
        let mut turn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        turn.worker = !turn.ended;
        self.passed.notify_all();
        while turn.worker {
            turn = self.passed.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        let panic = turn.panic.take().filter(|_| !turn.dead);
        let ended = turn.ended;
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        ended
    }

    /// Gives the turn back and waits for the next.
    fn give_back(&self) {
        let mut turn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        turn.worker = false;
        self.passed.notify_all();
        while !turn.worker {
            turn = self.passed.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for_first(&self) {
        let mut turn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !turn.worker {
            turn = self.passed.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, panic: Option<Box<dyn Any + Send>>) {
        let mut turn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        turn.worker = false;
        turn.ended = true;
        turn.panic = panic;
        self.passed.notify_all();
    }

    fn is_dead(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).dead
    }

    fn kill(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).dead = true;
    }
}

/// The work that a thread does.
#[derive(Clone)]
struct Mine {
    room: Arc<Room>,
    process: ProcessId,
    id: WorkId,
    baton: Arc<Baton>,
    dead_calls: Rc<Cell<u32>>,
}

thread_local! {
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// Queues work; it starts at a time that is drawn, when the process has a thread for it.
pub(super) fn start(room: &Arc<Room>, process: ProcessId, job: Job) {
    let refused = room.with(|state| {
        if !state.is_alive(process) {
            return Some(job);
        }
        let id = WorkId(state.serial());
        let work = Work { process, job: Some(job), baton: Arc::default() };
        state.works.list.insert(id, work);
        let running = state.works.list.values().filter(|work| work.process == process).count();
        let queue = state.works.queues.entry(process).or_default();
        if running - queue.len() > WORKERS_MAX {
            queue.push_back(id);
        } else {
            let delay = state.options.blocking.draw(&mut state.random);
            state.push_after(delay, Event::Work(id));
        }
        None
    });
    drop(refused);
}

/// Gives a worker the turn, from the world's thread.
pub(super) fn go_on(room: &Arc<Room>, id: WorkId) {
    let found = room.with(|state| {
        let thaw = state.thaw_of(id)?;
        if thaw > state.now {
            state.push(thaw, Event::Work(id));
            return None;
        }
        state.works.take_turn(id)
    });
    let Some((process, job, baton)) = found else { return };
    if let Some(job) = job {
        launch(room.clone(), process, id, baton.clone(), job);
    }
    if baton.hand_over() {
        room.with(|state| state.work_ended(id));
    }
}

fn launch(room: Arc<Room>, process: ProcessId, id: WorkId, baton: Arc<Baton>, job: Job) {
    let spawned = thread::Builder::new().name("sim-worker".to_owned()).spawn(move || {
        MINE.set(Some(Mine { room, process, id, baton: baton.clone(), dead_calls: Rc::default() }));
        baton.wait_for_first();
        let panic = catch_unwind(AssertUnwindSafe(job)).err();
        MINE.set(None);
        baton.end(panic);
    });
    spawned.expect("the machine under the simulation has a thread left");
}

/// Runs the work of a dead process to its end; what has not started never does.
pub(super) fn drain(room: &Arc<Room>, process: ProcessId) {
    let works = room.with(|state| state.works.remove_process(process));
    for work in works {
        if work.job.is_some() {
            continue;
        }
        work.baton.kill();
        while !work.baton.hand_over() {}
    }
}

impl Works {
    fn take_turn(&mut self, id: WorkId) -> Option<(ProcessId, Option<Job>, Arc<Baton>)> {
        let work = self.list.get_mut(&id)?;
        Some((work.process, work.job.take(), work.baton.clone()))
    }

    fn remove_process(&mut self, process: ProcessId) -> Vec<Work> {
        self.queues.remove(&process);
        let mine: Vec<WorkId> = self
            .list
            .iter()
            .filter(|(_, work)| work.process == process)
            .map(|(id, _)| *id)
            .collect();
        mine.into_iter().filter_map(|id| self.list.remove(&id)).collect()
    }
}

impl State {
    fn thaw_of(&self, id: WorkId) -> Option<crate::Time> {
        let process = self.works.list.get(&id)?.process;
        Some(self.processes.get(&process)?.frozen_until)
    }

    /// A thread is free for the next.
    fn work_ended(&mut self, id: WorkId) {
        let Some(work) = self.works.list.remove(&id) else { return };
        let next = self.works.queues.get_mut(&work.process).and_then(VecDeque::pop_front);
        self.wake_workers(next.into_iter().collect());
    }

    pub(super) fn wake_workers(&mut self, works: Vec<WorkId>) {
        for work in works {
            let delay = self.options.blocking.draw(&mut self.random);
            self.push_after(delay, Event::Work(work));
        }
    }
}

/// The simulated process whose work this thread does.
pub(super) fn place() -> Option<(Arc<Room>, ProcessId)> {
    MINE.with_borrow(|mine| mine.as_ref().map(|mine| (mine.room.clone(), mine.process)))
}

pub(super) fn current() -> Option<WorkId> {
    MINE.with_borrow(|mine| mine.as_ref().map(|mine| mine.id))
}

/// In a worker: lets time pass. An error: the process has been killed meanwhile.
pub(super) fn pause() -> io::Result<()> {
    let Some(mine) = MINE.with_borrow(Clone::clone) else { return Ok(()) };
    mine.alive()?;
    mine.room.with(|state| state.wake_workers(vec![mine.id]));
    mine.baton.give_back();
    mine.alive()
}

/// In a worker: waits for an event that somebody else plans. Elsewhere nobody would ever come.
pub(super) fn wait_to_be_woken() -> io::Result<()> {
    let Some(mine) = MINE.with_borrow(Clone::clone) else {
        return Err(io::Error::new(
            io::ErrorKind::Deadlock,
            "waiting for a lock stops a simulated core for ever: ask for it in Core::blocking",
        ));
    };
    mine.alive()?;
    mine.baton.give_back();
    mine.alive()
}

impl Mine {
    fn alive(&self) -> io::Result<()> {
        if !self.baton.is_dead() {
            return Ok(());
        }
        self.dead_calls.set(self.dead_calls.get() + 1);
        if self.dead_calls.get() > DEAD_CALLS_MAX && !thread::panicking() {
            resume_unwind(Box::new("the work of a killed process went on for ever"));
        }
        Err(io::Error::other("the process has been killed"))
    }
}

/// In a worker: lets the world go on until it is so. False: it will never be, the process is dead.
/// Elsewhere it does nothing.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    while current().is_some() && !is_so() {
        if pause().is_err() {
            return false;
        }
    }
    true
}
