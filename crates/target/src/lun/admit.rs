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
//! A nexus that several cores serve has a set on each. SIMPLE tasks run as if theirs were the only
//! one; the other kinds, and an ACA, concern all of them (`across`, `joined`).
//!
//! Not here: order across nexuses, of which there is none (TST 001b).

mod across;
mod joined;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use across::Joined;
pub use across::{Across, Heard, Peer, Told, Turn, Word};

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
    /// There are others of the same nexus at the same LU.
    joined: OnceCell<Joined>,
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

type Wakers = std::iter::Chain<std::option::IntoIter<Waker>, std::vec::IntoIter<Waker>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Dormant,
    /// At the head, until the other sets have heard of it.
    Holding,
    Enabled,
}

/// What a task has to do with the other sets of its nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing.
    Own,
    /// It cannot begin before they have made way.
    Asked(Turn),
    /// They have.
    Made(Turn),
    /// It is no task but a gate: the task is in another set.
    Gate(Turn),
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
    way: Way,
    waker: Option<Waker>,
}

impl Slot {
    fn is_task(&self) -> bool {
        self.phase != Phase::Free && !matches!(self.way, Way::Gate(_))
    }
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
    /// HEAD OF QUEUE tasks in other sets.
    holds: Vec<Turn>,
    /// Nothing is in the way of a SIMPLE task.
    open: bool,
    /// Who waits for tasks to leave, or for gates.
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
            holds: Vec::new(),
            open: true,
            drains: Vec::new(),
        };
        let (aborted, joined) = (Cell::new(0), OnceCell::new());
        Self { inner: RefCell::new(inner), aborted, joined }
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
            self.enter_slowly(&mut inner, tag, attribute)?
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
        inner.slots.iter().any(|slot| slot.is_task() && which.matches(slot.tag))
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
        if let Some(joined) = self.joined.get() {
            // Whoever has it cleared waits for the others himself.
            drop(joined.set_aca(false));
        }
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

    #[cold]
    fn enter_slowly(
        &self,
        inner: &mut Inner,
        tag: u64,
        attribute: Attribute,
    ) -> Result<u32, NotAdmitted> {
        let joined = self.joined.get();
        let phase = match attribute {
            Attribute::Aca if !inner.aca => return Err(NotAdmitted::NoAca),
            Attribute::Aca if inner.running_aca > 0 => return Err(NotAdmitted::AcaActive),
            Attribute::Aca => {
                joined.map_or(Ok(()), Joined::begin_aca)?;
                Phase::Enabled
            }
            _ if inner.aca => return Err(NotAdmitted::AcaActive),
            Attribute::HeadOfQueue if joined.is_some() => Phase::Holding,
            Attribute::HeadOfQueue => Phase::Enabled,
            Attribute::Simple => Phase::Dormant,
            Attribute::Ordered
                if inner.running == 0 && inner.running_head == 0 && joined.is_none() =>
            {
                // Nothing dormant either: it would be running.
                Phase::Enabled
            }
            Attribute::Ordered => Phase::Dormant,
        };
        let slot = inner.take(tag, attribute, phase);
        if matches!(attribute, Attribute::Ordered | Attribute::HeadOfQueue)
            && let Some(joined) = joined
        {
            inner.slots[slot as usize].way = Way::Asked(joined.take_turn(attribute));
        }
        match phase {
            Phase::Dormant => inner.dormant.push_back(slot),
            _ => inner.count(attribute, 1),
        }
        inner.look();
        Ok(slot)
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
        let present = slots.filter(|(slot, _)| slot.is_task());
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
            let Some(wakers) = self.inner.borrow_mut().enable_next() else { return };
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes a task out that is anything but a SIMPLE one among SIMPLE ones.
    #[cold]
    fn take_out(&self, at: u32) {
        let mut inner = self.inner.borrow_mut();
        let way = std::mem::replace(&mut inner.slots[at as usize].way, Way::Own);
        let is_gate = matches!(way, Way::Gate(_));
        inner.len += u32::from(is_gate);
        let (attribute, phase, aborted) = inner.free(at);
        if aborted {
            self.aborted.set(self.aborted.get() - 1);
        }
        match phase {
            Phase::Enabled | Phase::Holding => inner.count(attribute, -1),
            // Given up before its turn came.
            Phase::Dormant | Phase::Free => inner.dormant.retain(|&it| it != at),
        }
        inner.look();
        let is_awaited = aborted || is_gate;
        let drains = if is_awaited { std::mem::take(&mut inner.drains) } else { Vec::new() };
        drop(inner);
        self.leave_others(attribute, way);
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
        if self.set.joined.get().is_some() {
            self.wait_for_others().await?;
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
    /// the command (NACA) and by the LU (QERR). Wait for the other sets before it is answered.
    pub fn fault(&self, fault: Fault) -> Told {
        let was_aca = self.attribute() == Attribute::Aca;
        // SAM-5 5.10: whoever was aborted has nothing to say any more.
        if self.aborted().is_some() || !fault.aca && !fault.abort_others && !was_aca {
            return Told::default();
        }
        let told = self.tell_fault(fault, was_aca);
        let is_other = |at: u32, _: &Slot| fault.abort_others && at != self.slot;
        let _ = self.set.abort_if(Aborted::Silently, is_other, |inner| {
            // SAM-5 5.10.3: an ACA task that fails without NACA ends the condition.
            inner.aca = fault.aca || inner.aca && !was_aca;
        });
        told
    }

    fn attribute(&self) -> Attribute {
        self.set.inner.borrow().slots[self.slot as usize].attribute
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
        let (serial, next, aborted, way, waker) = (0, NO_SLOT, None, Way::Own, None);
        self.slots.push(Slot { tag, serial, next, attribute, phase, aborted, way, waker });
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
            && self.holds.is_empty()
            && self.dormant.is_empty();
    }

    /// Enables the oldest dormant task if nothing is in its way; says whom to wake.
    fn enable_next(&mut self) -> Option<Wakers> {
        if self.aca || self.running_head > 0 || self.running_ordered > 0 || !self.holds.is_empty() {
            return None;
        }
        let at = *self.dormant.front()?;
        let Slot { attribute, way, .. } = self.slots[at as usize];
        let is_early = self.running > 0 || matches!(way, Way::Asked(_));
        if attribute == Attribute::Ordered && is_early {
            return None;
        }
        self.dormant.pop_front();
        self.count(attribute, 1);
        let slot = &mut self.slots[at as usize];
        slot.phase = Phase::Enabled;
        let of_task = slot.waker.take();
        self.look();
        let of_gate = matches!(way, Way::Gate(_)).then(|| std::mem::take(&mut self.drains));
        Some(of_task.into_iter().chain(of_gate.unwrap_or_default()))
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
