//! Pollers: rings in memory that a client writes and a core looks at without asking the kernel.
//!
//! A poller is *active* (looked at every turn, its client told not to notify) or *armed* (its
//! client notifies through an eventfd that the core reads). It becomes armed when it has been idle
//! for the spin bound, so that a busy core does not go on looking at quiet rings, and a core with
//! nothing active sleeps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::timer::Time;

pub trait Poller {
    /// Takes a bounded number of requests. True: found work.
    fn turn(&self) -> bool;
    /// Once per turn in which `Core::publish_soon` was called for it: makes answers visible and
    /// notifies the client.
    fn publish(&self);
    /// Asks the client to notify. True: more has come meanwhile, do not sleep.
    fn arm(&self) -> bool;
    /// Asks the client not to notify.
    fn disarm(&self);
}

/// Names a poller of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

struct Slot {
    poller: Rc<dyn Poller>,
    generation: u32,
    active: Cell<bool>,
    worked: Cell<Time>,
}

#[derive(Default)]
pub(crate) struct Pollers {
    slots: RefCell<Vec<Option<Rc<Slot>>>>,
    active: RefCell<Vec<Rc<Slot>>>,
    /// The list that a turn walks while the other one may change.
    walk: RefCell<Vec<Rc<Slot>>>,
    /// Those with answers to publish at the end of this turn.
    dirty: RefCell<Vec<Rc<dyn Poller>>>,
    /// The list that is being published while the other one may change.
    publishing: RefCell<Vec<Rc<dyn Poller>>>,
    generation: Cell<u32>,
}

impl Pollers {
    /// Adds a poller as active: its ring may hold requests already.
    pub(crate) fn add(&self, poller: Rc<dyn Poller>, now: Time) -> PollerId {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let slot =
            Rc::new(Slot { poller, generation, active: Cell::new(true), worked: Cell::new(now) });
        self.active.borrow_mut().push(slot.clone());
        let mut slots = self.slots.borrow_mut();
        let index = slots.iter().position(Option::is_none).unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        slots[index] = Some(slot);
        PollerId { index: index as u32, generation }
    }

    pub(crate) fn remove(&self, id: PollerId) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(entry) = slots.get_mut(id.index as usize) else { return false };
        if entry.as_ref().is_none_or(|slot| slot.generation != id.generation) {
            return false;
        }
        let slot = entry.take().expect("looked at just now");
        slot.active.set(false);
        self.active.borrow_mut().retain(|other| !Rc::ptr_eq(other, &slot));
        true
    }

    /// Its client has notified.
    pub(crate) fn activate(&self, id: PollerId, now: Time) {
        let slot = match self.slots.borrow().get(id.index as usize) {
            Some(Some(slot)) if slot.generation == id.generation => slot.clone(),
            _ => return,
        };
        if !slot.active.replace(true) {
            slot.worked.set(now);
            slot.poller.disarm();
            self.active.borrow_mut().push(slot);
        }
    }

    pub(crate) fn publish_soon(&self, poller: Rc<dyn Poller>) {
        self.dirty.borrow_mut().push(poller);
    }

    #[inline]
    pub(crate) fn publish(&self) {
        if self.dirty.borrow().is_empty() {
            return;
        }
        let mut list = self.publishing.take();
        std::mem::swap(&mut list, &mut self.dirty.borrow_mut());
        for poller in list.drain(..) {
            poller.publish();
        }
        *self.publishing.borrow_mut() = list;
    }

    /// Before sleep: every client is asked to notify. True: more came meanwhile, do not sleep.
    pub(crate) fn arm_all(&self) -> bool {
        let active = self.active.take();
        let mut more = Vec::new();
        for slot in active {
            if !slot.active.get() {
                continue;
            }
            if slot.poller.arm() {
                slot.poller.disarm();
                more.push(slot);
            } else {
                slot.active.set(false);
            }
        }
        let found = !more.is_empty();
        self.active.borrow_mut().append(&mut more);
        found
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.active.borrow().is_empty()
    }

    /// One look at every active poller; those idle since before `idle_since` are armed. True: work.
    pub(crate) fn turn(&self, now: Time, idle_since: Time) -> bool {
        if self.is_quiet() {
            return false;
        }
        let mut walk = self.walk.take();
        walk.clone_from(&self.active.borrow());
        let mut worked = false;
        let mut rest = false;
        for slot in &walk {
            if !slot.active.get() {
                continue;
            }
            if slot.poller.turn() {
                slot.worked.set(now);
                worked = true;
            } else if slot.worked.get() < idle_since {
                if slot.poller.arm() {
                    slot.poller.disarm();
                    slot.worked.set(now);
                    worked = true;
                } else {
                    slot.active.set(false);
                    rest = true;
                }
            }
        }
        if rest {
            self.active.borrow_mut().retain(|slot| slot.active.get());
        }
        walk.clear();
        *self.walk.borrow_mut() = walk;
        worked
    }
}
