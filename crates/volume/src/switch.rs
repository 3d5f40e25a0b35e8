//! A switch: what is below the handles of an LU becomes something else, on all cores at one
//! instant, while clients use them.
//!
//! ```text
//!   open ── hold ─▶ held: what comes waits ── let go ─▶ open, over the same device or another one
//! ```
//!
//! Between the two whoever exchanges sees to it that the old device has ended what it was asked,
//! and that this is durable: a flush that comes later is one of the new device only. That takes as
//! long as a flush; clients see a request that took so long, and nothing else.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{
    Asked, Completion, Device, ErrorKind, Geometry, Health, Outcome, Request, RequestBuf, Watch,
};
use rt::Core;
use rt::handles::{HandleId, Member, each};

use crate::Drive;

/// Makes the device of a core.
pub type Make = Arc<dyn Fn(&Core) -> Rc<dyn Device> + Send + Sync>;

/// The switches of an LU, of which each handle has one.
pub struct Switches {
    state: Mutex<State>,
}

struct State {
    make: Make,
    is_held: bool,
    members: Vec<Member<Inner>>,
}

struct Switch(Rc<Inner>);

struct Inner {
    id: HandleId,
    core: Core,
    switches: Arc<Switches>,
    lower: Rc<Drive>,
    is_held: Cell<bool>,
    waiting: RefCell<VecDeque<(RequestBuf, Completion)>>,
}

impl Switches {
    pub fn new(make: Make) -> Arc<Self> {
        let state = State { make, is_held: false, members: Vec::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for this core.
    pub fn device(self: &Arc<Self>, core: &Core) -> Rc<dyn Device> {
        let mut state = self.state();
        let device = (state.make)(core);
        let inner = Rc::new(Inner {
            id: HandleId::fresh(),
            core: core.clone(),
            switches: self.clone(),
            lower: Drive::new(core, device.geometry().block_size),
            is_held: Cell::new(state.is_held),
            waiting: RefCell::default(),
        });
        inner.put(device);
        state.members.push(Member::new(core, inner.id, &inner));
        Rc::new(Switch(inner))
    }

    /// From when this returns nothing new reaches the device below.
    pub async fn hold(&self) {
        let members = {
            let mut state = self.state();
            state.is_held = true;
            state.members.clone()
        };
        let hold = |switch: Rc<Inner>| async move { switch.is_held.set(true) };
        each(members, hold).await;
    }

    /// What was held goes on, over another device of the same block size if one is given.
    pub async fn let_go(&self, to: Option<Make>) {
        let members = {
            let mut state = self.state();
            state.is_held = false;
            if let Some(to) = &to {
                state.make = to.clone();
            }
            state.members.clone()
        };
        each(members, move |switch: Rc<Inner>| {
            if let Some(make) = &to {
                switch.put(make(&switch.core));
            }
            switch.go_on();
            std::future::ready(())
        })
        .await;
    }
}

impl Inner {
    fn put(&self, device: Rc<dyn Device>) {
        let before = self.lower.exchange(Some(device));
        before.expect("whoever exchanges gives one of the same block size");
    }

    fn go_on(self: &Rc<Self>) {
        self.is_held.set(false);
        for (request, done) in self.waiting.take() {
            let lower: Rc<dyn Device> = self.lower.clone();
            self.core.spawn_now(async move {
                done.finish(lower.io(&request.as_request()).await);
            });
        }
    }
}

impl Device for Switch {
    fn geometry(&self) -> Geometry {
        self.0.lower.geometry()
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if !self.0.is_held.get() {
            return self.0.lower.begin(request, asked);
        }
        self.0.waiting.borrow_mut().push_back((request.to_buf(), asked.later()));
        None
    }

    fn watch(&self) -> &Watch {
        self.0.lower.watch()
    }

    fn health(&self) -> Health {
        self.0.lower.health()
    }

    fn hasten(&self) {
        self.0.lower.hasten();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.switches.state().members.retain(|member| member.id() != self.id);
        // Nobody waits for them any more who could be told anything else.
        for (_, done) in self.waiting.take() {
            done.finish(Err(ErrorKind::Aborted.into()));
        }
    }
}
