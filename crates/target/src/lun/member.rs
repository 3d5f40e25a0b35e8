//! What one nexus has at one LU on one core: its task set, what it has to be told, and what the
//! shared view means for it, worked out when a view is installed so that a command only looks.

use std::cell::{Cell, RefCell};
use std::rc::Weak;
use std::sync::Arc;

use super::access::{AccessSet, AccessState};
use super::admit::{Aborted, Leaving, TaskSet, Which};
use super::attention::{Attention, AttentionSet, Attentions, MediumEvents};
use super::change::{Effect, Telling, Update};
use super::nexus::NexusId;
use super::reservation::{Class, ClassSet, Standing};
use super::view::View;

/// What stands between a nexus and the medium, beside reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hindrance(u8);

impl Hindrance {
    pub const NONE: Self = Self(0);
    pub const STOPPED: Self = Self(1);
    pub const NO_MEDIUM: Self = Self(1 << 1);
    /// Formatting, sanitizing, or a sanitize that failed.
    pub const OPERATION: Self = Self(1 << 2);
    /// The port is in a state in which neither reads nor writes run.
    pub const ACCESS: Self = Self(1 << 3);

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn of(view: &View, access: AccessState) -> Self {
        let all = [
            (Self::STOPPED, !view.started),
            (Self::NO_MEDIUM, !view.medium.is_loaded()),
            (Self::OPERATION, view.operation.is_some()),
            (Self::ACCESS, !AccessSet::ACTIVE.contains(access)),
        ];
        Self(all.into_iter().filter(|it| it.1).fold(0, |bits, it| bits | it.0.0))
    }
}

/// Whoever wants to know at once what a nexus is told at the next occasion. Called while an update
/// is installed, so it takes a note and does the rest later.
pub trait Listener {
    fn told(&self, what: AttentionSet, medium: MediumEvents);
}

pub struct Member {
    nexus: NexusId,
    attentions: Arc<Attentions>,
    tasks: TaskSet,
    permits: Cell<ClassSet>,
    standing: Cell<Standing>,
    access: Cell<AccessState>,
    hindrance: Cell<Hindrance>,
    listener: RefCell<Option<Weak<dyn Listener>>>,
}

impl Member {
    pub(super) fn new(
        nexus: NexusId,
        attentions: Arc<Attentions>,
        tasks_max: u32,
        view: &View,
    ) -> Self {
        let access = view.access.state_at(nexus.port());
        Self {
            permits: Cell::new(view.reservations.permits(&nexus)),
            standing: Cell::new(view.reservations.standing(&nexus)),
            access: Cell::new(access),
            hindrance: Cell::new(Hindrance::of(view, access)),
            tasks: TaskSet::new(tasks_max),
            listener: RefCell::default(),
            attentions,
            nexus,
        }
    }

    /// Nothing to tell, no conflict, nothing in the way: the command may go to the device.
    #[inline]
    pub fn is_clear_for(&self, class: Class) -> bool {
        self.attentions.is_empty()
            && self.permits.get().contains(class)
            && self.hindrance.get().is_none()
    }

    /// No reservation conflict.
    #[inline]
    pub fn permits(&self, class: Class) -> bool {
        self.permits.get().contains(class)
    }

    pub fn nexus(&self) -> &NexusId {
        &self.nexus
    }

    /// From now on this one hears of every update, instead of whoever did before.
    pub fn set_listener(&self, listener: Weak<dyn Listener>) {
        self.listener.replace(Some(listener));
    }

    pub fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    pub fn attentions(&self) -> &Attentions {
        &self.attentions
    }

    pub fn standing(&self) -> Standing {
        self.standing.get()
    }

    pub fn access(&self) -> AccessState {
        self.access.get()
    }

    pub fn hindrance(&self) -> Hindrance {
        self.hindrance.get()
    }

    /// Takes an update over, and says which tasks are to leave before it is in force. The first
    /// one of a successor may stand for others, stored by an owner that was lost before anybody
    /// heard of them. Whoever lost its registration by one of these may have been preempted, and
    /// whoever preempted it may find that out and rely on it.
    pub(super) fn install(&self, update: &Update, is_successor: bool) -> Leaving {
        let view = &update.view;
        let was_registered = self.standing.get() != Standing::Outsider;
        let access = view.access.state_at(self.nexus.port());
        self.permits.set(view.reservations.permits(&self.nexus));
        self.standing.set(view.reservations.standing(&self.nexus));
        self.access.set(access);
        self.hindrance.set(Hindrance::of(view, access));
        let mut told = AttentionSet::NONE;
        let mut medium = MediumEvents::NONE;
        let mut leaving = Leaving::default();
        if is_successor && was_registered && self.standing.get() == Standing::Outsider {
            told.insert(Attention::RegistrationsPreempted);
            leaving = self.tasks.abort(Which::All, Aborted::WithStatus);
        }
        for effect in update.effects.iter() {
            match effect {
                Effect::Attention { to, what } if to.contains(&self.nexus) => told.insert(*what),
                Effect::Medium(what) => medium = medium.then(*what),
                Effect::ClearAca { of } if of.contains(&self.nexus) => {
                    leaving.extend(self.tasks.clear_aca().1);
                }
                Effect::AbortTasks { of, by, telling } if of.contains(&self.nexus) => {
                    let own = by.as_ref().filter(|by| by.nexus == self.nexus);
                    let which = own.and_then(|by| by.task).map_or(Which::All, Which::AllBut);
                    let telling = if own.is_some() { Telling::Nothing } else { *telling };
                    let aborted = self.tasks.abort(
                        which,
                        match telling {
                            Telling::Status => Aborted::WithStatus,
                            Telling::Attention | Telling::Nothing => Aborted::Silently,
                        },
                    );
                    if telling == Telling::Attention && !aborted.is_empty() {
                        told.insert(Attention::CommandsCleared);
                    }
                    leaving.extend(aborted);
                }
                Effect::Attention { .. }
                | Effect::ClearAca { .. }
                | Effect::AbortTasks { .. }
                | Effect::Wish { .. } => {}
            }
        }
        self.attentions.raise_at(view.version, told, medium);
        let listener = self.listener.borrow().as_ref().and_then(Weak::upgrade);
        if let Some(listener) = listener
            && !(told.is_empty() && medium == MediumEvents::NONE)
        {
            listener.told(told, medium);
        }
        leaving
    }
}
