//! The machine that every change of an LU's shared state passes through. It has one owner, which
//! stores what it says to store, brings the update to every handle, and then gives the reply.
//!
//! A change that changes nothing and concerns nobody has no update.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::{Access, Altered};
use super::attention::{Attention, MediumEvent};
use super::change::{
    Aborter, AccessChange, Applied, Audience, Change, Effect, MediumChange, ModeChange,
    OperationChange, Refusal, Reply, ResetKind, Telling, Update,
};
use super::nexus::NexusId;
use super::operation::{Operation, OperationKind, Stage};
use super::reservation::{Action, Done, Notice, Reservations, SavedReservations};
use super::view::{Medium, Modes, View};

/// How many nexuses may lock the medium of one LU.
pub const PREVENTING_MAX: usize = 1_024;

/// An LU as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub modes: Modes,
    pub access: Access,
    pub medium: Medium,
}

/// What must not be forgotten: plain data, so that whoever stores it chooses the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistent {
    pub reservations: SavedReservations,
    pub modes: Modes,
    pub saved_modes: Modes,
    pub preventing: Vec<NexusId>,
    pub preventing_persistently: Vec<NexusId>,
    pub started: bool,
    pub medium: Medium,
    /// One that was under way is to be taken up again, or ended as failed, by whoever restores it.
    pub operation: Option<Operation>,
}

/// What lies between storing and restoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// A process was replaced or another node took over: clients are not to notice.
    Restart,
    /// The LU was without power as far as clients can tell.
    PowerLoss,
}

/// The shared state of one LU.
#[derive(Clone, Debug)]
pub struct State {
    view: View,
}

type Outcome = Result<Vec<Effect>, Refusal>;

impl State {
    pub fn new(config: Config) -> Self {
        let view = View {
            version: View::first_version(0),
            reservations: Arc::default(),
            modes: config.modes,
            saved_modes: config.modes,
            access: Arc::new(config.access),
            preventing: Arc::default(),
            preventing_persistently: Arc::default(),
            started: true,
            medium: config.medium,
            operation: None,
        };
        Self { view }
    }

    /// As it was stored. Access states are measured, not stored. `epoch` is larger than that of any
    /// owner before, so that no handle takes what this one says for old.
    pub fn restore(access: Access, stored: Persistent, outage: Outage, epoch: u32) -> Self {
        let reservations = Reservations::restore(stored.reservations);
        let config = Config { modes: stored.saved_modes, access, medium: stored.medium };
        let mut state = Self::new(config);
        state.view.version = View::first_version(epoch);
        state.view.operation = stored.operation;
        state.view.reservations = Arc::new(match outage {
            Outage::Restart => reservations,
            Outage::PowerLoss => reservations.after_power_loss(),
        });
        if outage == Outage::Restart {
            state.view.modes = stored.modes;
            state.view.started = stored.started;
            let some = |all: Vec<_>| Arc::new(all.into_iter().take(PREVENTING_MAX).collect());
            state.view.preventing = some(stored.preventing);
            state.view.preventing_persistently = some(stored.preventing_persistently);
        }
        state
    }

    pub fn view(&self) -> Arc<View> {
        Arc::new(self.view.clone())
    }

    pub fn persistent(&self) -> Persistent {
        Persistent {
            reservations: self.view.reservations.save(),
            modes: self.view.modes,
            saved_modes: self.view.saved_modes,
            preventing: self.view.preventing.iter().cloned().collect(),
            preventing_persistently: self.view.preventing_persistently.iter().cloned().collect(),
            started: self.view.started,
            medium: self.view.medium,
            operation: self.view.operation.clone(),
        }
    }

    pub fn apply(&mut self, change: Change) -> Applied {
        let before = self.clone();
        let passing = matches!(change, Change::Operation(OperationChange::Progress(_)));
        match self.judge(change) {
            Err(refusal) => {
                *self = before;
                Applied { reply: Err(refusal), update: None, persist: None }
            }
            Ok(effects) => {
                let stored = before.view != self.view && !passing;
                let moved = before.view != self.view || !effects.is_empty();
                if moved {
                    self.view.version += 1;
                }
                let update = moved.then(|| Update { view: self.view(), effects: effects.into() });
                let reply = Ok(Reply { version: self.view.version });
                Applied { reply, update, persist: stored.then(|| self.persistent()) }
            }
        }
    }

    fn judge(&mut self, change: Change) -> Outcome {
        let all = |what| Ok(vec![Effect::Attention { to: Audience::All, what }]);
        match change {
            Change::Reserve { nexus, action } => self.reserve(nexus, action),
            Change::ClearReservations => {
                let done = Arc::make_mut(&mut self.view.reservations).clear_all();
                Ok(notices(done))
            }
            Change::Mode { nexus, modes } => Ok(self.mode(nexus, modes)),
            Change::Prevent { nexus, prevent } => {
                set_lock(&mut self.view.preventing, nexus, prevent)
            }
            Change::PreventPersistently { nexus, prevent } => {
                set_lock(&mut self.view.preventing_persistently, nexus, prevent)
            }
            Change::Power { start } => {
                self.view.started = start;
                Ok(Vec::new())
            }
            Change::Medium(change) => self.medium(change),
            Change::Access(change) => self.access(change),
            Change::Operation(change) => self.operation(change),
            Change::Reset { kind, by } => Ok(self.reset(kind, by)),
            Change::NexusLost { nexus, tell } => Ok(self.lose(nexus, tell)),
            Change::Resized => all(Attention::CapacityChanged),
            Change::IdentityChanged => all(Attention::IdentityChanged),
            Change::ThresholdReached => all(Attention::ThresholdReached),
        }
    }

    fn reserve(&mut self, nexus: NexusId, action: Action) -> Outcome {
        let task = match &action {
            Action::Preempt { abort, .. } => *abort,
            _ => None,
        };
        let reservations = Arc::make_mut(&mut self.view.reservations);
        let mut done = reservations.apply(&nexus, action, &self.view.access)?;
        let abort = std::mem::take(&mut done.abort);
        let mut effects = notices(done);
        if !abort.is_empty() {
            let of = Audience::These(abort);
            effects.push(Effect::ClearAca { of: of.clone() });
            let by = Some(Aborter { nexus, task });
            let telling = self.telling(Telling::Attention);
            effects.push(Effect::AbortTasks { of, by, telling });
        }
        Ok(effects)
    }

    fn mode(&mut self, nexus: Option<NexusId>, change: ModeChange) -> Vec<Effect> {
        let former = self.view.modes;
        let change_in = |modes: &mut Modes| {
            modes.caching = change.caching.unwrap_or(modes.caching);
            modes.control = change.control.unwrap_or(modes.control);
        };
        change_in(&mut self.view.modes);
        if change.save {
            change_in(&mut self.view.saved_modes);
        }
        if self.view.modes == former {
            return Vec::new();
        }
        vec![Effect::Attention { to: Audience::others(nexus), what: Attention::ModesChanged }]
    }

    fn medium(&mut self, change: MediumChange) -> Outcome {
        let medium = &mut self.view.medium;
        let was_loaded = medium.is_loaded();
        let is_locked = !self.view.preventing.is_empty();
        let changed_for = |to| Effect::Attention { to, what: Attention::MediumChanged };
        let mut effects = Vec::new();
        match change {
            MediumChange::Eject { by, force } => {
                if is_locked && !(force && by.is_none()) {
                    return Err(Refusal::Prevented);
                }
                medium.open = true;
            }
            MediumChange::Button if !is_locked && self.view.preventing_persistently.is_empty() => {
                medium.open = true;
            }
            MediumChange::Button => {
                effects.push(Effect::Medium(MediumEvent::RemovalRequested));
            }
            MediumChange::Load { by } => {
                medium.open = false;
                if medium.present && !was_loaded {
                    effects.push(changed_for(Audience::others(by)));
                    effects.push(Effect::Medium(MediumEvent::Loaded));
                }
            }
            MediumChange::TakenOut => medium.present = false,
            MediumChange::Exchanged { present } => {
                *medium = Medium { present, open: false };
                if present {
                    effects.push(changed_for(Audience::All));
                    effects.push(Effect::Medium(MediumEvent::Loaded));
                }
            }
        }
        if was_loaded && !medium.is_loaded() {
            effects.push(Effect::Medium(MediumEvent::Removed));
        }
        Ok(effects)
    }

    fn access(&mut self, change: AccessChange) -> Outcome {
        match change {
            AccessChange::Set(mut access) => {
                let mut differs = false;
                for group in &mut access.groups {
                    let former = self.view.access.groups.iter().find(|it| it.id == group.id);
                    let same = former.filter(|it| it.state == group.state);
                    differs |= same.is_none();
                    group.altered = match (former, same) {
                        (_, Some(same)) => same.altered,
                        (None, None) => Altered::Never,
                        (Some(_), None) => Altered::Implicit,
                    };
                }
                differs |= access.groups.len() != self.view.access.groups.len();
                self.view.access = Arc::new(access);
                let what = Attention::AccessChanged;
                let tell = Effect::Attention { to: Audience::All, what };
                Ok(differs.then_some(tell).into_iter().collect())
            }
            AccessChange::Wish { nexus, group } => {
                let seen = self.view.access.seen_from(nexus.port());
                if !seen.iter().any(|it| it.id == group) {
                    return Err(Refusal::NoSuchGroup);
                }
                Ok(vec![Effect::Wish { group }])
            }
        }
    }

    fn operation(&mut self, change: OperationChange) -> Outcome {
        let current = &mut self.view.operation;
        match (change, current.as_mut()) {
            (OperationChange::Begin { .. }, Some(running)) if running.is_running() => {
                return Err(Refusal::Busy(running.kind));
            }
            // Only a sanitize may follow one that failed.
            (OperationChange::Begin { kind: OperationKind::Format, .. }, Some(failed))
                if failed.kind == OperationKind::Sanitize =>
            {
                return Err(Refusal::Busy(failed.kind));
            }
            (OperationChange::Begin { kind, job, may_exit }, _) => {
                let stage = Stage::Running { progress: 0 };
                *current = Some(Operation { kind, job, stage, may_exit });
            }
            (OperationChange::Progress(done), Some(Operation { stage, .. })) => {
                let Stage::Running { progress } = stage else { return Err(Refusal::NoOperation) };
                *progress = done.max(*progress);
            }
            (OperationChange::End { failed }, Some(running)) if running.is_running() => {
                if failed {
                    running.stage = Stage::Failed;
                } else {
                    *current = None;
                }
            }
            (OperationChange::ExitFailure, Some(failed)) if !failed.is_running() => {
                if !failed.may_exit {
                    return Err(Refusal::MayNotExit);
                }
                *current = None;
            }
            _ => return Err(Refusal::NoOperation),
        }
        Ok(Vec::new())
    }

    /// SAM-5 6.3.3. Persistent reservations stay, and so does what a sanitize is doing.
    fn reset(&mut self, kind: ResetKind, by: Option<NexusId>) -> Vec<Effect> {
        // As it was asked for before the reset forgets it.
        let telling = self.telling(Telling::Nothing);
        Arc::make_mut(&mut self.view.reservations).release_unit(None);
        self.view.modes = self.view.saved_modes;
        self.view.preventing = Arc::default();
        self.view.preventing_persistently = Arc::default();
        self.view.started = true;
        let what = match kind {
            ResetKind::LogicalUnit => Attention::Reset,
            ResetKind::Power => Attention::PowerOn,
        };
        let by = by.map(|nexus| Aborter { nexus, task: None });
        vec![
            Effect::ClearAca { of: Audience::All },
            Effect::AbortTasks { of: Audience::All, by, telling },
            Effect::Attention { to: Audience::All, what },
        ]
    }

    fn telling(&self, otherwise: Telling) -> Telling {
        if self.view.modes.control.task_aborted_status { Telling::Status } else { otherwise }
    }

    /// SAM-5 6.3.4.
    fn lose(&mut self, nexus: NexusId, tell: bool) -> Vec<Effect> {
        if self.view.reservations.unit_holder() == Some(&nexus) {
            Arc::make_mut(&mut self.view.reservations).release_unit(Some(&nexus));
        }
        for locks in [&mut self.view.preventing, &mut self.view.preventing_persistently] {
            if locks.contains(&nexus) {
                Arc::make_mut(locks).remove(&nexus);
            }
        }
        let of = Audience::These(vec![nexus.clone()]);
        let by = Some(Aborter { nexus, task: None });
        let told = Effect::Attention { to: of.clone(), what: Attention::NexusLost };
        let mut effects = vec![
            Effect::ClearAca { of: of.clone() },
            Effect::AbortTasks { of, by, telling: Telling::Nothing },
        ];
        effects.extend(tell.then_some(told));
        effects
    }
}

/// Locks or unlocks the medium in the name of a nexus.
fn set_lock(locks: &mut Arc<BTreeSet<NexusId>>, nexus: NexusId, prevent: bool) -> Outcome {
    let locks = Arc::make_mut(locks);
    if !prevent {
        locks.remove(&nexus);
    } else if locks.len() < PREVENTING_MAX || locks.contains(&nexus) {
        locks.insert(nexus);
    } else {
        return Err(Refusal::NoRoom);
    }
    Ok(Vec::new())
}

/// What registrants are told, each thing once for all whom it concerns.
fn notices(done: Done) -> Vec<Effect> {
    let kinds = [
        (Notice::ReservationsPreempted, Attention::ReservationsPreempted),
        (Notice::ReservationsReleased, Attention::ReservationsReleased),
        (Notice::RegistrationsPreempted, Attention::RegistrationsPreempted),
    ];
    let told = |notice| {
        let meant = done.notices.iter().filter(move |(_, it)| *it == notice);
        meant.map(|(nexus, _)| nexus.clone()).collect::<Vec<_>>()
    };
    kinds
        .into_iter()
        .map(|(notice, what)| (told(notice), what))
        .filter(|(to, _)| !to.is_empty())
        .map(|(to, what)| Effect::Attention { to: Audience::These(to), what })
        .collect()
}
