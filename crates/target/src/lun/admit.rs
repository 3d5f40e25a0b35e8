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

use std::cell::{Cell, RefCell};
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
    /// Tasks in the set that somebody has aborted: mostly none, which is quickly seen.
    aborted: Cell<u32>,
}

/// A place in the set; leaving is dropping it.
pub struct Entered<'a> {
    set: &'a TaskSet,
    slot: u32,
    /// A SIMPLE task that found nothing in its way.
    at_once: bool,
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
    next_free: u32,
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
            next_free: NO_SLOT,
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
        Self { inner: RefCell::new(inner), aborted: Cell::new(0) }
    }

    /// Lets a task in; [`Entered::turn`] says when it may begin.
    #[inline]
    pub fn enter(&self, tag: u64, attribute: Attribute) -> Result<Entered<'_>, NotAdmitted> {
        let mut inner = self.inner.borrow_mut();
        if inner.len >= inner.limit {
            return Err(NotAdmitted::Full);
        }
        let at_once = inner.open && attribute == Attribute::Simple;
        let slot = if at_once {
            inner.running += 1;
            inner.take(tag, attribute, Phase::Enabled)
        } else {
            inner.enter_slowly(tag, attribute)?
        };
        Ok(Entered { set: self, slot, at_once })
    }

    /// Aborts, and says whom to wait for: see [`TaskSet::left`].
    pub fn abort(&self, which: Which, how: Aborted) -> Leaving {
        let is_meant = |_: u32, slot: &Slot| which.matches(slot.tag);
        self.abort_if(how, is_meant, |_| {})
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
        let had = self.has_aca();
        let is_meant = |_: u32, slot: &Slot| slot.attribute == Attribute::Aca;
        let leaving = self.abort_if(Aborted::Silently, is_meant, |inner| inner.aca = false);
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

    /// Aborts the tasks that are meant and changes what stops the others, in one step.
    fn abort_if(
        &self,
        how: Aborted,
        is_meant: impl Fn(u32, &Slot) -> bool,
        change: impl FnOnce(&mut Inner),
    ) -> Leaving {
        let mut leaving = Vec::new();
        let mut wakers = Vec::new();
        let mut inner = self.inner.borrow_mut();
        let slots = inner.slots.iter_mut().zip(0_u32..);
        let present = slots.filter(|(slot, _)| slot.phase != Phase::Free);
        for (slot, at) in present.filter(|(slot, at)| is_meant(*at, slot)) {
            if slot.aborted.is_none() {
                slot.aborted = Some(how);
                self.aborted.set(self.aborted.get() + 1);
            }
            leaving.push((at, slot.serial));
            wakers.extend(slot.waker.take());
        }
        change(&mut inner);
        inner.look();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        self.advance();
        Leaving(leaving)
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

    /// Takes a task out that is anything but a SIMPLE one among SIMPLE ones.
    #[cold]
    fn take_out(&self, at: u32) {
        let mut inner = self.inner.borrow_mut();
        let (attribute, phase, aborted) = inner.free(at);
        if aborted {
            self.aborted.set(self.aborted.get() - 1);
        }
        match phase {
            Phase::Enabled => inner.count(attribute, -1),
            // Given up before its turn came.
            _ => inner.dormant.retain(|&it| it != at),
        }
        inner.look();
        let drains = if aborted { std::mem::take(&mut inner.drains) } else { Vec::new() };
        drop(inner);
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

    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.at_once || self.set.inner.borrow().slots[self.slot as usize].phase == Phase::Enabled
    }

    /// Whether somebody has aborted it, and how it is to end. Look before the answer is given.
    #[inline]
    pub fn aborted(&self) -> Option<Aborted> {
        if self.set.aborted.get() == 0 {
            return None;
        }
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
        // SAM-5 5.10: whoever was aborted has nothing to say any more.
        if self.aborted().is_some() {
            return;
        }
        let is_other = |at: u32, _: &Slot| fault.abort_others && at != self.slot;
        let _ = self.set.abort_if(Aborted::Silently, is_other, |inner| {
            let was_aca = inner.slots[self.slot as usize].attribute == Attribute::Aca;
            // SAM-5 5.10.3: an ACA task that fails without NACA ends the condition.
            inner.aca = fault.aca || inner.aca && !was_aca;
        });
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
        if self.at_once && inner.open && self.set.aborted.get() == 0 {
            inner.free(self.slot);
            inner.running -= 1;
            return;
        }
        drop(inner);
        self.set.take_out(self.slot);
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
        let at = self.next_free;
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return self.grow(tag, attribute, phase);
        };
        self.next_free = slot.next;
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

    /// Frees the slot; says what was in it, and whether it had been aborted.
    #[inline]
    fn free(&mut self, at: u32) -> (Attribute, Phase, bool) {
        let slot = &mut self.slots[at as usize];
        let left = (slot.attribute, slot.phase, slot.aborted.take().is_some());
        slot.phase = Phase::Free;
        slot.serial = slot.serial.wrapping_add(1);
        slot.waker = None;
        slot.next = self.next_free;
        self.next_free = at;
        self.len -= 1;
        left
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
