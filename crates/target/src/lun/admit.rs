//! The task set: which of the tasks of one nexus at one LU may run now (SAM-5 clause 8), and how
//! they are ended before their time.
//!
//! ```text
//!              nothing in its way                     leave
//!   enter ───────────────────────────────▶ enabled ─────────▶ gone
//!     │                                       ▲
//!     └──▶ dormant ── older ones have left ───┘
//!             └────── aborted: told at once, leaves
//! ```
//!
//! Only the first task of the queue can be the next to become enabled, so a few counts decide.
//! A SIMPLE task that finds no other kind in the set costs taking a slot from a list and putting
//! it back. Slots are kept, so nothing is allocated once the set has been as full as it gets; a
//! dormant task is a slot with a waker.
//!
//! Work that has been handed to the device cannot be called back. An enabled task that is aborted
//! learns of it when it looks, and whoever aborted it waits until it has left: after that nothing
//! of it will happen any more (SAM-5 7.1). For the same reason an ACA stops tasks that have not
//! begun; those that have may end.
//!
//! Not here: order across nexuses, of which there is none (TST 001b).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The most tasks of one nexus at one LU that a set may be made for.
pub const TASKS_MAX: u32 = 4_096;

/// How a task wants to be ordered among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Attribute {
    #[default]
    Simple,
    /// After all older ones, before all younger ones.
    Ordered,
    /// At once, before all that have not begun.
    HeadOfQueue,
    /// While everything else is stopped by an auto contingent allegiance.
    Aca,
}

/// Why a task was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotAdmitted {
    #[error("the task set is full; wait for the answer to a command")]
    Full,
    #[error("stopped by an auto contingent allegiance; clear it")]
    AcaActive,
    #[error("an ACA task, and no auto contingent allegiance")]
    NoAca,
}

/// How an aborted task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aborted {
    /// Its client knows, or is told otherwise: no answer.
    Silently,
    /// With the status that says so (TAS).
    WithStatus,
}

/// Which tasks to abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Tag(u64),
    All,
    /// All but the one that asks.
    AllBut(u64),
}

impl Which {
    fn matches(self, tag: u64) -> bool {
        match self {
            Self::Tag(it) => it == tag,
            Self::All => true,
            Self::AllBut(it) => it != tag,
        }
    }
}

/// What a failed command does to the others of its nexus (the QERR field of the control mode page;
/// as task sets are per nexus, "all" and "of this nexus" are the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The command asked for an auto contingent allegiance (NACA).
    pub aca: bool,
    /// The others are aborted.
    pub abort_others: bool,
}

pub struct TaskSet {
    inner: RefCell<Inner>,
}

/// A place in the set; leaving is dropping it.
pub struct Entered<'a> {
    set: &'a TaskSet,
    slot: u32,
}

/// Tasks that were aborted and have not left yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving(Vec<(u32, u32)>);

const NO_SLOT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Dormant,
    Enabled,
}

struct Slot {
    tag: u64,
    /// Tells this use of the slot from earlier ones.
    serial: u32,
    /// The next free slot.
    next: u32,
    attribute: Attribute,
    phase: Phase,
    aborted: Option<Aborted>,
    waker: Option<Waker>,
}

struct Inner {
    slots: Vec<Slot>,
    free: u32,
    limit: u32,
    /// Tasks in the set.
    len: u32,
    /// Dormant tasks, oldest first.
    dormant: VecDeque<u32>,
    /// Enabled SIMPLE and ORDERED tasks.
    running: u32,
    /// Of these ORDERED: one at most.
    running_ordered: u32,
    running_head: u32,
    running_aca: u32,
    aca: bool,
    /// Nothing is in the way of a SIMPLE task.
    open: bool,
    /// Who waits for tasks to leave.
    drains: Vec<Waker>,
}

impl TaskSet {
    /// A set for this many tasks at a time, at least one and at most [`TASKS_MAX`].
    pub fn new(limit: u32) -> Self {
        let inner = Inner {
            slots: Vec::new(),
            free: NO_SLOT,
            limit: limit.clamp(1, TASKS_MAX),
            len: 0,
            dormant: VecDeque::new(),
            running: 0,
            running_ordered: 0,
            running_head: 0,
            running_aca: 0,
            aca: false,
            open: true,
            drains: Vec::new(),
        };
        Self { inner: RefCell::new(inner) }
    }

    /// Lets a task in; [`Entered::turn`] says when it may begin.
    #[inline]
    pub fn enter(&self, tag: u64, attribute: Attribute) -> Result<Entered<'_>, NotAdmitted> {
        let mut inner = self.inner.borrow_mut();
        if inner.len >= inner.limit {
            return Err(NotAdmitted::Full);
        }
        let slot = if inner.open && attribute == Attribute::Simple {
            inner.running += 1;
            inner.take(tag, attribute, Phase::Enabled)
        } else {
            inner.enter_slowly(tag, attribute)?
        };
        Ok(Entered { set: self, slot })
    }

    /// Aborts, and says whom to wait for: see [`TaskSet::left`].
    pub fn abort(&self, which: Which, how: Aborted) -> Leaving {
        let (leaving, wakers) = self.inner.borrow_mut().abort(which, how);
        wakers.into_iter().for_each(Waker::wake);
        leaving
    }

    /// Whether such a task is in the set.
    pub fn contains(&self, which: Which) -> bool {
        let inner = self.inner.borrow();
        inner.slots.iter().any(|slot| slot.phase != Phase::Free && which.matches(slot.tag))
    }

    pub fn len(&self) -> usize {
        self.inner.borrow().len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An auto contingent allegiance stops the set.
    pub fn has_aca(&self) -> bool {
        self.inner.borrow().aca
    }

    /// Ends the auto contingent allegiance and aborts the task that ran in it; says whether there
    /// was one.
    pub fn clear_aca(&self) -> (bool, Leaving) {
        let mut inner = self.inner.borrow_mut();
        let had = std::mem::take(&mut inner.aca);
        let (leaving, wakers) =
            inner.abort_if(Aborted::Silently, |slot| slot.attribute == Attribute::Aca);
        inner.look();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        self.advance();
        (had, leaving)
    }

    /// Whether all of these have left.
    pub fn have_left(&self, leaving: &Leaving) -> bool {
        let inner = self.inner.borrow();
        !leaving.0.iter().any(|&(slot, serial)| inner.is_in(slot, serial))
    }

    /// Waits until all of these have left.
    pub async fn left(&self, leaving: Leaving) {
        poll_fn(|cx| {
            if self.have_left(&leaving) {
                return Poll::Ready(());
            }
            let drains = &mut self.inner.borrow_mut().drains;
            if !drains.iter().any(|waker| waker.will_wake(cx.waker())) {
                drains.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Enables what may run now. Wakers are called while the set is not borrowed: they may come
    /// back to it.
    fn advance(&self) {
        loop {
            let Some(waker) = self.inner.borrow_mut().enable_next() else { return };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    #[cold]
    fn left_slowly(&self, drains: Vec<Waker>) {
        drains.into_iter().for_each(Waker::wake);
        self.advance();
    }
}

impl Entered<'_> {
    /// Waits for this task's turn. An error: it was aborted before.
    #[inline]
    pub async fn turn(&self) -> Result<(), Aborted> {
        if self.is_enabled() {
            return self.aborted().map_or(Ok(()), Err);
        }
        self.wait_for_turn().await
    }

    pub fn tag(&self) -> u64 {
        self.set.inner.borrow().slots[self.slot as usize].tag
    }

    pub fn is_enabled(&self) -> bool {
        self.set.inner.borrow().slots[self.slot as usize].phase == Phase::Enabled
    }

    /// Whether somebody has aborted it, and how it is to end. Look before the answer is given.
    #[inline]
    pub fn aborted(&self) -> Option<Aborted> {
        self.set.inner.borrow().slots[self.slot as usize].aborted
    }

    /// Resolves when somebody aborts it: for what waits for anything but the device.
    pub async fn until_aborted(&self) -> Aborted {
        poll_fn(|cx| match self.aborted() {
            Some(how) => Poll::Ready(how),
            None => {
                self.leave_waker(cx.waker());
                Poll::Pending
            }
        })
        .await
    }

    /// The command ends with CHECK CONDITION. Whether this ends others, or stops them, is said by
    /// the command (NACA) and by the LU (QERR).
    pub fn fault(&self, fault: Fault) {
        let mut inner = self.set.inner.borrow_mut();
        let own = &inner.slots[self.slot as usize];
        // SAM-5 5.10: whoever was aborted has nothing to say any more.
        if own.aborted.is_some() {
            return;
        }
        let (tag, serial, was_aca) = (own.tag, own.serial, own.attribute == Attribute::Aca);
        if fault.aca {
            inner.aca = true;
        } else if was_aca {
            // SAM-5 5.10.3: an ACA task that fails without NACA ends the condition.
            inner.aca = false;
        }
        let mut wakers = Vec::new();
        if fault.abort_others {
            let other = |slot: &Slot| (slot.tag, slot.serial) != (tag, serial);
            wakers = inner.abort_if(Aborted::Silently, other).1;
        }
        inner.look();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        self.set.advance();
    }

    async fn wait_for_turn(&self) -> Result<(), Aborted> {
        poll_fn(|cx| {
            if let Some(how) = self.aborted() {
                return Poll::Ready(Err(how));
            }
            if self.is_enabled() {
                return Poll::Ready(Ok(()));
            }
            self.leave_waker(cx.waker());
            Poll::Pending
        })
        .await
    }

    fn leave_waker(&self, waker: &Waker) {
        let mut inner = self.set.inner.borrow_mut();
        let kept = &mut inner.slots[self.slot as usize].waker;
        if kept.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        let mut inner = self.set.inner.borrow_mut();
        let was_simple = inner.leave(self.slot);
        if was_simple && inner.open {
            return;
        }
        inner.look();
        let drains = std::mem::take(&mut inner.drains);
        drop(inner);
        self.set.left_slowly(drains);
    }
}

impl Inner {
    #[cold]
    fn enter_slowly(&mut self, tag: u64, attribute: Attribute) -> Result<u32, NotAdmitted> {
        let phase = match attribute {
            Attribute::Aca if !self.aca => return Err(NotAdmitted::NoAca),
            Attribute::Aca if self.running_aca > 0 => return Err(NotAdmitted::AcaActive),
            Attribute::Aca => Phase::Enabled,
            _ if self.aca => return Err(NotAdmitted::AcaActive),
            Attribute::HeadOfQueue => Phase::Enabled,
            Attribute::Simple => Phase::Dormant,
            Attribute::Ordered if self.running == 0 && self.running_head == 0 => {
                // Nothing dormant either: it would be running.
                Phase::Enabled
            }
            Attribute::Ordered => Phase::Dormant,
        };
        let slot = self.take(tag, attribute, phase);
        match phase {
            Phase::Enabled => self.count(attribute, 1),
            _ => self.dormant.push_back(slot),
        }
        self.look();
        Ok(slot)
    }

    #[inline]
    fn take(&mut self, tag: u64, attribute: Attribute, phase: Phase) -> u32 {
        self.len += 1;
        let at = self.free;
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return self.grow(tag, attribute, phase);
        };
        self.free = slot.next;
        slot.tag = tag;
        slot.attribute = attribute;
        slot.phase = phase;
        at
    }

    #[cold]
    fn grow(&mut self, tag: u64, attribute: Attribute, phase: Phase) -> u32 {
        let slot =
            Slot { tag, serial: 0, next: NO_SLOT, attribute, phase, aborted: None, waker: None };
        self.slots.push(slot);
        self.slots.len() as u32 - 1
    }

    /// Frees the slot; says whether it was a SIMPLE task that ran and nobody looks for.
    #[inline]
    fn leave(&mut self, at: u32) -> bool {
        let slot = &mut self.slots[at as usize];
        let (attribute, phase) = (slot.attribute, slot.phase);
        let plain = slot.aborted.take().is_none() && attribute == Attribute::Simple;
        slot.phase = Phase::Free;
        slot.serial = slot.serial.wrapping_add(1);
        slot.waker = None;
        slot.next = self.free;
        self.free = at;
        self.len -= 1;
        match phase {
            Phase::Enabled if attribute == Attribute::Simple => self.running -= 1,
            Phase::Enabled => self.count(attribute, -1),
            // Given up before its turn came.
            _ => self.dormant.retain(|&it| it != at),
        }
        plain && phase == Phase::Enabled
    }

    fn count(&mut self, attribute: Attribute, by: i32) {
        let counts: &mut [&mut u32] = match attribute {
            Attribute::Simple => &mut [&mut self.running],
            Attribute::Ordered => &mut [&mut self.running, &mut self.running_ordered],
            Attribute::HeadOfQueue => &mut [&mut self.running_head],
            Attribute::Aca => &mut [&mut self.running_aca],
        };
        for count in counts {
            **count = count.checked_add_signed(by).expect("every task is counted in and out once");
        }
    }

    /// Sets `open` anew.
    fn look(&mut self) {
        self.open = !self.aca
            && self.running_head == 0
            && self.running_ordered == 0
            && self.dormant.is_empty();
    }

    /// Enables the oldest dormant task if nothing is in its way.
    fn enable_next(&mut self) -> Option<Option<Waker>> {
        if self.aca || self.running_head > 0 || self.running_ordered > 0 {
            return None;
        }
        let at = *self.dormant.front()?;
        let attribute = self.slots[at as usize].attribute;
        if attribute == Attribute::Ordered && self.running > 0 {
            return None;
        }
        self.dormant.pop_front();
        self.count(attribute, 1);
        let slot = &mut self.slots[at as usize];
        slot.phase = Phase::Enabled;
        let waker = slot.waker.take();
        self.look();
        Some(waker)
    }

    fn abort(&mut self, which: Which, how: Aborted) -> (Leaving, Vec<Waker>) {
        self.abort_if(how, |slot| which.matches(slot.tag))
    }

    fn abort_if(
        &mut self,
        how: Aborted,
        is_meant: impl Fn(&Slot) -> bool,
    ) -> (Leaving, Vec<Waker>) {
        let mut leaving = Vec::new();
        let mut wakers = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.phase != Phase::Free && is_meant(slot) {
                slot.aborted.get_or_insert(how);
                leaving.push((at as u32, slot.serial));
                wakers.extend(slot.waker.take());
            }
        }
        (Leaving(leaving), wakers)
    }

    fn is_in(&self, at: u32, serial: u32) -> bool {
        self.slots
            .get(at as usize)
            .is_some_and(|slot| slot.phase != Phase::Free && slot.serial == serial)
    }
}

impl Leaving {
    /// Wait for these too.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
