//! Commands that are waited for: a slab with a fixed number of places, made once.
//!
//! A command that is answered frees its place at the target's side at once; its place here stays
//! until whoever asked has taken the answer.

use std::task::{Context, Poll, Waker};

use block::{Sgl, SglBuf};
use proto::iscsi::initiator::TaskId;

use super::{Answer, Failure};

/// Names a wait until its answer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitId {
    index: usize,
    /// A place is used again and again.
    turn: u64,
}

pub(super) struct Waits {
    places: Vec<Wait>,
    free: Vec<usize>,
    /// By place of the command in the machine: who waits for it.
    of_tasks: Box<[Option<(TaskId, usize)>]>,
}

#[derive(Default)]
struct Wait {
    turn: u64,
    state: State,
    /// The memory of the command, until it is answered.
    data: Option<SglBuf>,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    Waiting(Option<Waker>),
    /// Nobody wants the answer.
    Abandoned,
    Answered(Result<Answer, Failure>),
}

impl Waits {
    pub fn new(commands: u16) -> Self {
        let of_tasks = vec![None; usize::from(commands)].into();
        Self { places: Vec::new(), free: Vec::new(), of_tasks }
    }

    pub fn begin(&mut self, task: TaskId, data: &Sgl<'_>) -> WaitId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Wait::default());
            self.places.len() - 1
        });
        let place = &mut self.places[index];
        place.turn += 1;
        place.state = State::Waiting(None);
        place.data = (!data.is_empty()).then(|| data.to_buf());
        self.of_tasks[task.index()] = Some((task, index));
        WaitId { index, turn: place.turn }
    }

    /// Calls with the memory of a command.
    pub fn with_data<T>(&self, task: TaskId, f: impl FnOnce(&Sgl<'_>) -> T) -> Option<T> {
        let (_, index) = self.of_tasks[task.index()].filter(|(other, _)| *other == task)?;
        Some(f(&self.places[index].data.as_ref()?.sgl()))
    }

    /// The command is over.
    pub fn finish(&mut self, task: TaskId, answer: Result<Answer, Failure>) {
        let known = self.of_tasks[task.index()].take_if(|(other, _)| *other == task);
        if let Some((_, index)) = known {
            self.settle(index, answer);
        }
    }

    pub fn fail_all(&mut self, failure: &Failure) {
        let of_tasks = std::mem::take(&mut self.of_tasks);
        for (_, index) in of_tasks.iter().copied().flatten() {
            self.settle(index, Err(failure.clone()));
        }
        self.of_tasks = vec![None; of_tasks.len()].into();
    }

    fn settle(&mut self, index: usize, answer: Result<Answer, Failure>) {
        let place = &mut self.places[index];
        place.data = None;
        match std::mem::replace(&mut place.state, State::Answered(answer)) {
            State::Waiting(waker) => waker.into_iter().for_each(Waker::wake),
            State::Abandoned => self.release(index),
            State::Free | State::Answered(_) => unreachable!("a command is answered once"),
        }
    }

    pub fn poll(&mut self, id: WaitId, cx: &Context<'_>) -> Poll<Result<Answer, Failure>> {
        let place = &mut self.places[id.index];
        assert!(place.turn == id.turn, "polled after it was ready");
        if let State::Waiting(waker) = &mut place.state {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let State::Answered(answer) = std::mem::take(&mut place.state) else {
            unreachable!("whoever polls has not given it up")
        };
        self.release(id.index);
        Poll::Ready(answer)
    }

    /// Nobody wants the answer any more, or it was taken.
    pub fn abandon(&mut self, id: WaitId) {
        let place = &mut self.places[id.index];
        match place.state {
            _ if place.turn != id.turn => {}
            State::Waiting(_) => place.state = State::Abandoned,
            State::Answered(_) => self.release(id.index),
            State::Free | State::Abandoned => {}
        }
    }

    fn release(&mut self, index: usize) {
        self.places[index].state = State::Free;
        self.places[index].turn += 1;
        self.free.push(index);
    }
}
