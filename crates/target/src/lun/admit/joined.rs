//! A task set as one of several of its nexus: what it tells the others, and what it does when one
//! of them tells it something.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::across::{Across, Joined, Peer, Told, Turn, Word};
use super::{Aborted, Attribute, Entered, Fault, Inner, Phase, TaskSet, Way, Which};

impl TaskSet {
    /// Makes this set one of those that share this; `peer` is how the others reach it. Once, and
    /// before any task is in it.
    pub fn join(&self, across: &Arc<Across>, peer: Arc<dyn Peer>) {
        let (joined, words) = Joined::new(across, peer);
        assert!(self.joined.set(joined).is_ok(), "a set joins others once");
        words.into_iter().for_each(|word| self.hear(word));
    }

    /// Another set has to say this. Answer it when [`TaskSet::heard`] says so.
    pub fn hear(&self, word: Word) {
        match word {
            Word::Hold(turn) => {
                let mut inner = self.inner.borrow_mut();
                if !inner.holds.contains(&turn) {
                    inner.holds.push(turn);
                }
                inner.look();
            }
            Word::Close(turn) => self.inner.borrow_mut().put_gate(turn),
            Word::Open(turn) => {
                let mut inner = self.inner.borrow_mut();
                inner.holds.retain(|it| *it != turn);
                inner.look();
                let gate = inner.gate(turn);
                drop(inner);
                if let Some(gate) = gate {
                    return self.take_out(gate);
                }
            }
            Word::Look => {
                let aca = self.joined.get().is_some_and(Joined::has_aca);
                let mut inner = self.inner.borrow_mut();
                inner.aca = aca;
                inner.look();
            }
            Word::Abort => drop(self.abort(Which::All, Aborted::Silently)),
        }
        self.advance();
    }

    /// Resolves when a word is in force here.
    pub async fn heard(&self, word: Word) {
        let Word::Close(turn) = word else { return };
        poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            match inner.gate(turn).map(|at| inner.slots[at as usize].phase) {
                // Whoever closed it has given up meanwhile.
                None | Some(Phase::Enabled) => Poll::Ready(()),
                Some(_) => {
                    inner.drains.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// The others have made way.
    fn let_pass(&self, at: u32, turn: Turn) {
        let mut inner = self.inner.borrow_mut();
        let slot = &mut inner.slots[at as usize];
        slot.way = Way::Made(turn);
        if slot.phase == Phase::Holding {
            slot.phase = Phase::Enabled;
        }
        drop(inner);
        self.advance();
    }

    /// Tells the others that a task has left, if they were told of it.
    pub(super) fn leave_others(&self, attribute: Attribute, way: Way) {
        let Some(joined) = self.joined.get() else { return };
        match way {
            Way::Asked(turn) | Way::Made(turn) => joined.give_back(turn),
            Way::Own if attribute == Attribute::Aca => joined.end_aca(),
            Way::Own | Way::Gate(_) => {}
        }
    }
}

impl Entered<'_> {
    /// Waits until the other sets have made way for a task that concerns them.
    pub(super) async fn wait_for_others(&self) -> Result<(), Aborted> {
        let way = self.set.inner.borrow().slots[self.slot as usize].way;
        let (Way::Asked(turn), Some(joined)) = (way, self.set.joined.get()) else {
            return Ok(());
        };
        let mut made = Box::pin(joined.make_way(turn));
        poll_fn(|cx| {
            if let Some(how) = self.aborted() {
                return Poll::Ready(Err(how));
            }
            self.leave_waker(cx.waker());
            made.as_mut().poll(cx).map(Ok)
        })
        .await?;
        self.set.let_pass(self.slot, turn);
        Ok(())
    }

    /// What a failed command means for the other sets.
    pub(super) fn tell_fault(&self, fault: Fault, was_aca: bool) -> Told {
        let Some(joined) = self.set.joined.get() else { return Told::default() };
        let mut told = Told::default();
        if fault.aca || was_aca {
            told.extend(joined.set_aca(fault.aca));
        }
        if fault.abort_others {
            told.extend(joined.abort_others());
        }
        told
    }
}

impl Inner {
    /// A gate goes where an ORDERED task would: behind everything but tasks whose turn is later.
    fn put_gate(&mut self, turn: Turn) {
        if self.gate(turn).is_some() {
            return;
        }
        let slot = self.take(0, Attribute::Ordered, Phase::Dormant);
        // It is no task of this set.
        self.len -= 1;
        self.slots[slot as usize].way = Way::Gate(turn);
        let is_later = |&at: &u32| matches!(self.slots[at as usize].way, Way::Asked(_));
        let at = self.dormant.iter().position(is_later).unwrap_or(self.dormant.len());
        self.dormant.insert(at, slot);
        self.look();
    }

    fn gate(&self, turn: Turn) -> Option<u32> {
        let is_it = |&at: &u32| self.slots[at as usize].way == Way::Gate(turn);
        (0..self.slots.len() as u32).find(is_it)
    }
}
