//! What the task sets of one nexus at one LU have in common, where it has one on each of several
//! cores: whose turn it is among the tasks that concern all of them, and whether an auto contingent
//! allegiance stops them all.
//!
//! A SIMPLE task never comes here. An ORDERED one takes a turn when it enters its own set. When its
//! turn has come it has every other set closed: there a gate stands in the queue as an ORDERED task
//! would, and is reached when what came before it has left. With all gates reached, and nothing
//! older left in its own set, the task begins; with the task the gates leave. A HEAD OF QUEUE task
//! waits for nobody: it begins when the other sets have heard that nothing else may begin.
//!
//! Nothing can wait in a circle: turns are taken in the order of every queue, one set of gates
//! stands at a time, before any task whose turn comes later; and a gate waits for tasks that have
//! begun, or that only HEAD OF QUEUE tasks are in the way of.
//!
//! The list has a lock, which is held for a few instructions, by these tasks only.
//!
//! Not here: how a word gets to another core ([`Peer`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::{Attribute, NotAdmitted};

/// The task set of another core. Words to one core arrive in the order in which they were sent,
/// also by different ones, one after the other.
pub trait Peer: Send + Sync {
    /// Has [`TaskSet::hear`](super::TaskSet::hear) called there at once; resolves when what it
    /// returned does, or when the set is gone.
    fn tell(&self, word: Word) -> Heard;
}

pub type Heard = Pin<Box<dyn Future<Output = ()>>>;

/// What one set tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A HEAD OF QUEUE task is about to begin: nothing else may until it has left.
    Hold(Turn),
    /// The turn of an ORDERED task has come; heard when its gate is reached.
    Close(Turn),
    /// That task has left.
    Open(Turn),
    /// The auto contingent allegiance may have come or gone.
    Look,
    /// A fault ends all tasks.
    Abort,
}

/// The turn of a task that concerns all sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u64);

/// Words on their way to the other sets.
#[derive(Default)]
#[must_use = "it is in force when every other set has heard it"]
pub struct Told(Vec<Heard>);

impl Told {
    /// There is nobody else.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Waits until everybody has heard it.
    pub async fn all(self) {
        for heard in self.0 {
            heard.await;
        }
    }
}

/// What the sets share.
#[derive(Default)]
pub struct Across {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: Vec<(PeerId, Arc<dyn Peer>)>,
    next: u64,
    /// In the order in which they were taken; at most as many as there are tasks in all sets.
    turns: VecDeque<Taken>,
    aca: bool,
    /// A task runs in it.
    aca_task: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerId(u64);

struct Taken {
    turn: Turn,
    of: PeerId,
    attribute: Attribute,
    /// The others were told.
    begun: bool,
    waker: Option<Waker>,
}

impl Taken {
    fn word(&self) -> Word {
        match self.attribute {
            Attribute::HeadOfQueue => Word::Hold(self.turn),
            _ => Word::Close(self.turn),
        }
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn tell_others(&self, me: PeerId, word: Word) -> Told {
        let others = self.peers.iter().filter(|(id, _)| *id != me);
        Told(others.map(|(_, peer)| peer.tell(word)).collect())
    }
}

/// The place of a set among the others, until it is dropped.
pub(super) struct Joined {
    across: Arc<Across>,
    me: PeerId,
}

impl Joined {
    /// Joins, and says what has been told to the others already.
    pub fn new(across: &Arc<Across>, peer: Arc<dyn Peer>) -> (Self, Vec<Word>) {
        let mut inner = across.lock();
        let me = PeerId(inner.number());
        inner.peers.push((me, peer));
        let begun = inner.turns.iter().filter(|taken| taken.begun).map(Taken::word);
        let words = begun.chain([Word::Look]).collect();
        drop(inner);
        (Self { across: across.clone(), me }, words)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.across.lock()
    }

    pub fn take_turn(&self, attribute: Attribute) -> Turn {
        let mut inner = self.lock();
        let turn = Turn(inner.number());
        let (of, begun, waker) = (self.me, false, None);
        inner.turns.push_back(Taken { turn, of, attribute, begun, waker });
        turn
    }

    /// Waits for its turn, and until the others have made way.
    pub async fn make_way(&self, turn: Turn) {
        poll_fn(|cx| self.poll_first(turn, cx.waker())).await;
        let told = {
            let mut inner = self.lock();
            let taken = inner.turns.iter_mut().find(|taken| taken.turn == turn);
            // Who joins from now on is told on joining.
            let word = taken.map(|taken| {
                taken.begun = true;
                taken.word()
            });
            word.map(|word| inner.tell_others(self.me, word)).unwrap_or_default()
        };
        told.all().await;
    }

    fn poll_first(&self, turn: Turn, waker: &Waker) -> Poll<()> {
        let mut inner = self.lock();
        let is_ordered = |taken: &&mut Taken| taken.attribute == Attribute::Ordered;
        let first = inner.turns.iter_mut().find(is_ordered).map(|taken| taken.turn);
        let Some(own) = inner.turns.iter_mut().find(|taken| taken.turn == turn) else {
            return Poll::Ready(());
        };
        if own.attribute != Attribute::Ordered || first == Some(turn) {
            own.waker = None;
            return Poll::Ready(());
        }
        own.waker = Some(waker.clone());
        Poll::Pending
    }

    /// The task has left.
    pub fn give_back(&self, turn: Turn) {
        let mut inner = self.lock();
        let Some(at) = inner.turns.iter().position(|taken| taken.turn == turn) else { return };
        let taken = inner.turns.remove(at);
        if taken.is_some_and(|taken| taken.begun) {
            // Before the next one can tell them anything, and nobody waits for it.
            drop(inner.tell_others(self.me, Word::Open(turn)));
        }
        let wakers: Vec<_> =
            inner.turns.iter_mut().filter_map(|taken| taken.waker.take()).collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn has_aca(&self) -> bool {
        self.lock().aca
    }

    pub fn set_aca(&self, aca: bool) -> Told {
        let mut inner = self.lock();
        inner.aca = aca;
        inner.tell_others(self.me, Word::Look)
    }

    /// The one task that may run in the auto contingent allegiance, on whatever core.
    pub fn begin_aca(&self) -> Result<(), NotAdmitted> {
        let mut inner = self.lock();
        match (inner.aca, inner.aca_task) {
            (false, _) => Err(NotAdmitted::NoAca),
            (true, true) => Err(NotAdmitted::AcaActive),
            (true, false) => {
                inner.aca_task = true;
                Ok(())
            }
        }
    }

    pub fn end_aca(&self) {
        self.lock().aca_task = false;
    }

    pub fn abort_others(&self) -> Told {
        self.lock().tell_others(self.me, Word::Abort)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let me = self.me;
        let mut inner = self.lock();
        inner.peers.retain(|(id, _)| *id != me);
        inner.turns.retain(|taken| taken.of != me);
    }
}

impl Across {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
