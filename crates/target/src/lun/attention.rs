//! What an LU has to tell one nexus at the next occasion: unit attentions, asynchronous events.
//!
//! The queue of a nexus is a set of bits, one for each thing there is to tell: that makes it
//! bounded and free of doubles by construction, and "nothing to tell" one load. The bit numbers are
//! the order of telling. A nexus that is served by several cores shares one queue: each core
//! raises what an update brought, and the version of the update makes that once only.
//!
//! Beside it lies what happened to the medium, for a client that asks instead of being told.
//!
//! Not here: how a protocol says it.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Something to tell, most urgent first (SAM-5 5.14: a reset says more than what it reset).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Attention {
    /// The LU is new to this nexus, or was without power.
    PowerOn,
    /// The LU, or the whole target, was reset.
    Reset,
    /// This nexus was lost and is back.
    NexusLost,
    IdentityChanged,
    ReportedLunsChanged,
    MediumChanged,
    MediumRemovalRequested,
    CapacityChanged,
    ModesChanged,
    ReservationsPreempted,
    ReservationsReleased,
    RegistrationsPreempted,
    AccessChanged,
    /// Tasks of this nexus were aborted by another one, and it was not told in any other way.
    CommandsCleared,
    ThresholdReached,
    PreviousBusy,
    PreviousReservationConflict,
    PreviousTaskSetFull,
}

/// How many things there are to tell: the most that a queue can hold.
pub const ATTENTIONS_MAX: usize = Attention::ALL.len();

impl Attention {
    pub const ALL: [Self; 18] = [
        Self::PowerOn,
        Self::Reset,
        Self::NexusLost,
        Self::IdentityChanged,
        Self::ReportedLunsChanged,
        Self::MediumChanged,
        Self::MediumRemovalRequested,
        Self::CapacityChanged,
        Self::ModesChanged,
        Self::ReservationsPreempted,
        Self::ReservationsReleased,
        Self::RegistrationsPreempted,
        Self::AccessChanged,
        Self::CommandsCleared,
        Self::ThresholdReached,
        Self::PreviousBusy,
        Self::PreviousReservationConflict,
        Self::PreviousTaskSetFull,
    ];

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Several things to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionSet(u32);

impl AttentionSet {
    pub const NONE: Self = Self(0);

    /// The levels of reset: one of them silences those below it.
    const LEVELS: [Attention; 3] = [Attention::PowerOn, Attention::Reset, Attention::NexusLost];

    pub fn insert(&mut self, what: Attention) {
        self.0 |= what.bit();
    }

    pub fn remove(&mut self, what: Attention) {
        self.0 &= !what.bit();
    }

    pub const fn contains(self, what: Attention) -> bool {
        self.0 & what.bit() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Attention> {
        Attention::ALL.into_iter().filter(move |&what| self.contains(what))
    }

    /// Of the levels of reset only the highest is worth telling.
    fn settled(self) -> Self {
        let Some(highest) = Self::LEVELS.into_iter().find(|&level| self.contains(level)) else {
            return self;
        };
        let lower = Self::LEVELS.into_iter().filter(|&level| level > highest);
        Self(lower.fold(self.0, |bits, level| bits & !level.bit()))
    }
}

impl FromIterator<Attention> for AttentionSet {
    fn from_iter<I: IntoIterator<Item = Attention>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |bits, what| bits | what.bit()))
    }
}

/// Something that happened to the medium, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MediumEvent {
    Removed,
    Loaded,
    /// Somebody would like to take it out, and a client forbids it.
    RemovalRequested,
}

/// What happened to the medium since somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediumEvents(u8);

impl MediumEvents {
    pub const NONE: Self = Self(0);
    const ALL: [MediumEvent; 3] =
        [MediumEvent::Removed, MediumEvent::Loaded, MediumEvent::RemovalRequested];

    /// Once a medium comes or goes, what was before is of no interest any more. Of an exchange
    /// the new medium is told and not that the old one is gone: some hosts (Linux of 2021) take a
    /// removal for a wish to eject, and would eject the new one.
    pub const fn then(self, what: MediumEvent) -> Self {
        match what {
            MediumEvent::Removed | MediumEvent::Loaded => Self(1 << what as u8),
            MediumEvent::RemovalRequested => Self(self.0 | 1 << what as u8),
        }
    }

    pub fn iter(self) -> impl Iterator<Item = MediumEvent> {
        Self::ALL.into_iter().filter(move |&what| self.0 & 1 << what as u8 != 0)
    }
}

/// What is to be told to one nexus about one LU, on whatever core it asks.
#[derive(Debug, Default)]
pub struct Attentions {
    pending: AtomicU32,
    medium: AtomicU8,
    /// The newest update whose attentions are in, so that of several cores only one raises them.
    version: AtomicU64,
}

impl Attentions {
    /// The queue of a nexus that has just been made, at this version of the LU's view.
    pub fn new(first: AttentionSet, version: u64) -> Self {
        let pending = AtomicU32::new(first.settled().0);
        Self { pending, version: AtomicU64::new(version), ..Self::default() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }

    pub fn pending(&self) -> AttentionSet {
        AttentionSet(self.pending.load(Ordering::Acquire))
    }

    /// The most urgent one, which stays.
    pub fn first(&self) -> Option<Attention> {
        self.pending().iter().next()
    }

    /// Takes the most urgent one out: it is told now.
    pub fn take(&self) -> Option<Attention> {
        loop {
            let what = self.first()?;
            if self.remove(what) {
                return Some(what);
            }
        }
    }

    /// Takes this one out; says whether it was in.
    pub fn remove(&self, what: Attention) -> bool {
        self.pending.fetch_and(!what.bit(), Ordering::AcqRel) & what.bit() != 0
    }

    /// Something that concerns this nexus alone, not an update of the LU.
    pub fn raise(&self, what: Attention) {
        self.add([what].into_iter().collect());
    }

    /// What the update of this version brought. The first core that installs it raises it; each
    /// core installs in order, so whatever is newer than the last one seen is new.
    pub fn raise_at(&self, version: u64, what: AttentionSet, medium: MediumEvents) {
        if self.version.fetch_max(version, Ordering::AcqRel) >= version {
            return;
        }
        if !what.is_empty() {
            self.add(what);
        }
        if medium != MediumEvents::NONE {
            let merge = |told| Some(medium.iter().fold(MediumEvents(told), MediumEvents::then).0);
            // The closure always gives a value, so the update cannot fail.
            let _ = self.medium.fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
        }
    }

    /// Takes out what happened to the medium first: it is told now.
    pub fn take_medium_event(&self) -> Option<MediumEvent> {
        loop {
            let what = MediumEvents(self.medium.load(Ordering::Acquire)).iter().next()?;
            let bit = 1 << what as u8;
            if self.medium.fetch_and(!bit, Ordering::AcqRel) & bit != 0 {
                return Some(what);
            }
        }
    }

    fn add(&self, what: AttentionSet) {
        let merge = |pending| Some(AttentionSet(pending | what.0).settled().0);
        // The closure always gives a value, so the update cannot fail.
        let _ = self.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
    }
}
