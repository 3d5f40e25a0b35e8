//! The way of a change to the owner of an LU's state and back.
//!
//! A node takes it by message to the owning core, and to every core that has a handle. [`Local`]
//! is the way when everything is on one core: what it does, in this order, is what any other ledger
//! must do.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::change::{Change, Effect, Refusal, Reply};
use super::handle::{Handle, Settled};
use super::state::{Persistent, State};
use super::view::View;

pub trait Ledger {
    /// Whether what it is given to be stored outlives the process. Where it does not, nothing may be
    /// promised to last through loss of power.
    fn keeps(&self) -> bool {
        true
    }

    /// Answered once the change is stored, every handle has the new view, and the tasks that it
    /// ends have left. The change happens even if nobody waits for the answer.
    fn change(&self, change: Change) -> Pin<Box<dyn Future<Output = Result<Reply, Refusal>>>>;
}

/// The ledger of a single core.
pub struct Local {
    state: RefCell<State>,
    handles: RefCell<Vec<Weak<Handle>>>,
    stored: RefCell<Option<Persistent>>,
    wishes: RefCell<Vec<u16>>,
}

impl Local {
    pub fn new(state: State) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(state),
            handles: RefCell::default(),
            stored: RefCell::default(),
            wishes: RefCell::default(),
        })
    }

    /// The view that a new handle begins with.
    pub fn view(&self) -> Arc<View> {
        self.state.borrow().view()
    }

    /// From now on this handle gets every update.
    pub fn attach(&self, handle: &Rc<Handle>) {
        let mut handles = self.handles.borrow_mut();
        handles.retain(|it| it.strong_count() > 0);
        handles.push(Rc::downgrade(handle));
    }

    /// What was last given to be stored.
    pub fn stored(&self) -> Option<Persistent> {
        self.stored.borrow().clone()
    }

    /// The groups that clients would like to be optimized, since the last look.
    pub fn take_wishes(&self) -> Vec<u16> {
        self.wishes.take()
    }

    /// Applies at once; what is left to do is to wait.
    pub fn apply(&self, change: Change) -> (Result<Reply, Refusal>, Vec<Settled>) {
        let applied = self.state.borrow_mut().apply(change);
        if applied.persist.is_some() {
            self.stored.replace(applied.persist);
        }
        let Some(update) = applied.update else { return (applied.reply, Vec::new()) };
        let wish = |effect: &Effect| match effect {
            Effect::Wish { group } => Some(*group),
            _ => None,
        };
        let mut wishes = self.wishes.borrow_mut();
        wishes.extend(update.effects.iter().filter_map(wish));
        wishes.sort_unstable();
        wishes.dedup();
        drop(wishes);
        let handles: Vec<Rc<Handle>> =
            self.handles.borrow().iter().filter_map(Weak::upgrade).collect();
        (applied.reply, handles.iter().map(|handle| handle.install(&update)).collect())
    }
}

impl Ledger for Local {
    fn change(&self, change: Change) -> Pin<Box<dyn Future<Output = Result<Reply, Refusal>>>> {
        let (reply, settled) = self.apply(change);
        Box::pin(async move {
            for settled in settled {
                settled.done().await;
            }
            reply
        })
    }
}
