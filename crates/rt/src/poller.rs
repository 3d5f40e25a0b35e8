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
    /// In a list of active ones, perhaps only until that is looked at again.
    listed: Cell<bool>,
    worked: Cell<Time>,
}

#[derive(Default)]
pub(crate) struct Pollers {
    slots: RefCell<Vec<Option<Rc<Slot>>>>,
    /// Looked at in every turn. A turn takes the list, and what becomes active meanwhile makes a
    /// new one.
    active: RefCell<Vec<Rc<Slot>>>,
    /// Some in the list are not active any more.
    stale: Cell<bool>,
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
        let slot = Rc::new(Slot {
            poller,
            generation,
            active: Cell::new(true),
            listed: Cell::new(true),
            worked: Cell::new(now),
        });
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
        drop(slots);
        slot.active.set(false);
        // It may be in a list that is being walked, too.
        self.stale.set(true);
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
            if !slot.listed.replace(true) {
                self.active.borrow_mut().push(slot);
            }
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
        let mut found = false;
        self.walk(|slot| found |= self.arm(slot));
        found
    }

    /// Asks a client to notify. True: more came meanwhile.
    fn arm(&self, slot: &Slot) -> bool {
        let more = slot.poller.arm();
        if more {
            slot.poller.disarm();
        } else {
            slot.active.set(false);
            self.stale.set(true);
        }
        more
    }

    /// Looks at every active poller. The list is taken meanwhile, because anything may happen.
    #[inline]
    fn walk(&self, mut look: impl FnMut(&Slot)) {
        let mut list = self.active.take();
        for slot in &list {
            if slot.active.get() {
                look(slot);
            }
        }
        if self.stale.take() {
            list.retain(|slot| {
                slot.listed.set(slot.active.get());
                slot.listed.get()
            });
        }
        let mut added = self.active.replace(list);
        if !added.is_empty() {
            self.active.borrow_mut().append(&mut added);
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.active.borrow().is_empty()
    }

    /// One look at every active poller; those idle since before `idle_since` are armed. True: work.
    #[inline]
    pub(crate) fn turn(&self, now: Time, idle_since: Time) -> bool {
        if self.is_quiet() {
            return false;
        }
        let mut worked = false;
        self.walk(|slot| {
            if slot.poller.turn() || (slot.worked.get() < idle_since && self.arm(slot)) {
                slot.worked.set(now);
                worked = true;
            }
        });
        worked
    }
}
