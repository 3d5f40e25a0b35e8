//! The owner's part of a ledger: which changes are under way, who has to install what, and when a
//! change may be answered. Messages are somebody else's; this machine says which to send.
//!
//! ```text
//!   change ─▶ judged ─▶ stored ─▶ installed, then settled, at every place ─▶ answered
//!               │          │
//!               └ refused  └ not stored: as if it had never been asked for
//! ```
//!
//! Changes are judged one at a time, each when the one before it has been stored, so that what
//! cannot be stored can be taken back. They do not wait for each other to settle: one that has to
//! wait until tasks have left must not stop the change that such a task is waiting for. One that
//! finds nothing to change waits only until what it found is installed.
//!
//! Not here: time. Whoever carries the messages declares a place gone, and only when nothing there
//! can touch the LU any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::change::{Change, Refusal, Reply, Update};
use super::state::{Persistent, State};
use super::view::View;

/// How many changes of one LU may wait to be judged; more are refused, to be tried again.
pub const CHANGES_MAX: usize = 1_024;

/// Where handles of the LU are: a core of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

/// What the owner wants done. Orders for one place are carried out in the order they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order<T> {
    /// Then call [`Owner::stored`].
    Store(Persistent),
    /// Then call [`Owner::installed`], and when the tasks that it ends have left
    /// [`Owner::settled`].
    Install {
        at: Place,
        update: Update,
    },
    Answer {
        ticket: T,
        reply: Result<Reply, Refusal>,
    },
}

/// The owner of one LU's shared state. A ticket is whatever leads back to who asked.
pub struct Owner<T> {
    state: State,
    /// With the version of the view that each has installed.
    places: BTreeMap<Place, u64>,
    waiting: VecDeque<(T, Change)>,
    storing: Option<Storing<T>>,
    rounds: Vec<Round<T>>,
}

struct Storing<T> {
    /// What to go back to.
    before: State,
    ticket: T,
    reply: Reply,
    update: Option<Update>,
}

struct Round<T> {
    version: u64,
    unsettled: BTreeSet<Place>,
    ticket: T,
    reply: Reply,
}

impl<T> Owner<T> {
    pub fn new(state: State) -> Self {
        let (waiting, rounds) = (VecDeque::new(), Vec::new());
        Self { state, places: BTreeMap::new(), waiting, storing: None, rounds }
    }

    /// A place has handles that an owner before this one gave their views.
    #[must_use]
    pub fn resume(&mut self, place: Place) -> Order<T> {
        self.places.insert(place, 0);
        Order::Install { at: place, update: Update { view: self.view(), effects: [].into() } }
    }

    /// A place begins, with this view, to get every update.
    pub fn join(&mut self, place: Place) -> Arc<View> {
        let view = self.view();
        self.places.insert(place, view.version);
        view
    }

    /// A place has no handle any more, or nothing there can reach the LU any more.
    #[must_use]
    pub fn leave(&mut self, place: Place) -> Vec<Order<T>> {
        self.places.remove(&place);
        self.rounds.iter_mut().for_each(|round| _ = round.unsettled.remove(&place));
        self.finished()
    }

    #[must_use]
    pub fn change(&mut self, ticket: T, change: Change) -> Vec<Order<T>> {
        if self.waiting.len() >= CHANGES_MAX {
            return vec![Order::Answer { ticket, reply: Err(Refusal::Unavailable) }];
        }
        self.waiting.push_back((ticket, change));
        self.judge()
    }

    /// What was to be stored has been, or could not be.
    #[must_use]
    pub fn stored(&mut self, done: bool) -> Vec<Order<T>> {
        let Some(storing) = self.storing.take() else { return Vec::new() };
        let mut orders = if done {
            self.spread(storing.ticket, storing.reply, storing.update)
        } else {
            self.state = storing.before;
            let (ticket, reply) = (storing.ticket, Err(Refusal::Unavailable));
            vec![Order::Answer { ticket, reply }]
        };
        orders.extend(self.judge());
        orders
    }

    /// This place judges commands by the view of this version.
    #[must_use]
    pub fn installed(&mut self, place: Place, version: u64) -> Vec<Order<T>> {
        if let Some(installed) = self.places.get_mut(&place) {
            *installed = version.max(*installed);
        }
        self.finished()
    }

    /// At this place the tasks have left that the update of this version ends.
    #[must_use]
    pub fn settled(&mut self, place: Place, version: u64) -> Vec<Order<T>> {
        for round in self.rounds.iter_mut().filter(|round| round.version == version) {
            round.unsettled.remove(&place);
        }
        self.finished()
    }

    /// The newest view that anybody may see.
    pub fn view(&self) -> Arc<View> {
        self.storing.as_ref().map_or(&self.state, |storing| &storing.before).view()
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.storing.is_none() && self.rounds.is_empty()
    }

    fn judge(&mut self) -> Vec<Order<T>> {
        let mut orders = Vec::new();
        while self.storing.is_none() {
            let Some((ticket, change)) = self.waiting.pop_front() else { break };
            let before = self.state.clone();
            let applied = self.state.apply(change);
            match (applied.reply, applied.persist) {
                (Err(refusal), _) => orders.push(Order::Answer { ticket, reply: Err(refusal) }),
                (Ok(reply), None) => orders.extend(self.spread(ticket, reply, applied.update)),
                (Ok(reply), Some(persist)) => {
                    let update = applied.update;
                    self.storing = Some(Storing { before, ticket, reply, update });
                    orders.push(Order::Store(persist));
                }
            }
        }
        orders
    }

    fn spread(&mut self, ticket: T, reply: Reply, update: Option<Update>) -> Vec<Order<T>> {
        let mut round = Round { version: reply.version, unsettled: BTreeSet::new(), ticket, reply };
        let mut orders = Vec::new();
        if let Some(update) = update {
            round.unsettled = self.places.keys().copied().collect();
            let install = |&at: &Place| Order::Install { at, update: update.clone() };
            orders = self.places.keys().map(install).collect();
        }
        self.rounds.push(round);
        orders.extend(self.finished());
        orders
    }

    fn finished(&mut self) -> Vec<Order<T>> {
        let oldest = self.places.values().min().copied().unwrap_or(u64::MAX);
        let is_done = |round: &mut Round<T>| round.unsettled.is_empty() && oldest >= round.version;
        let done = self.rounds.extract_if(.., is_done);
        done.map(|round| Order::Answer { ticket: round.ticket, reply: Ok(round.reply) }).collect()
    }
}
