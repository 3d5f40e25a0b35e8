//! The rules of change: one method per service action, in the order and with the refusals of SPC-4
//! 5.13.
//!
//! A change is judged completely before anything is touched, so a refusal leaves no trace.

use std::collections::BTreeSet;

use super::super::access::Access;
use super::super::nexus::{Initiator, NexusId, PortId};
use super::{Held, Kind, REGISTRANTS_MAX, Reservations};

/// What a nexus asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// REGISTER. `new_key` 0 takes the registration back.
    Register {
        key: u64,
        new_key: u64,
        /// Register these initiator ports too (SPEC_I_PT).
        also: Option<Vec<Initiator>>,
        /// At every port of the target (ALL_TG_PT).
        all_ports: bool,
        through_power_loss: bool,
    },
    /// REGISTER AND IGNORE EXISTING KEY.
    RegisterAnyway {
        new_key: u64,
        all_ports: bool,
        through_power_loss: bool,
    },
    Reserve {
        key: u64,
        kind: Kind,
    },
    Release {
        key: u64,
        kind: Kind,
    },
    Clear {
        key: u64,
    },
    /// PREEMPT; with `abort` PREEMPT AND ABORT, asked for by the task with this tag. A type is
    /// needed only where the reservation changes hands.
    Preempt {
        key: u64,
        victim: u64,
        kind: Option<Kind>,
        abort: Option<u64>,
    },
    /// REGISTER AND MOVE.
    Move {
        key: u64,
        new_key: u64,
        to: NexusId,
        unregister: bool,
        through_power_loss: bool,
    },
    /// RESERVE(6), RESERVE(10): the simple reservation.
    ReserveUnit,
    /// RELEASE(6), RELEASE(10).
    ReleaseUnit,
}

/// Why it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Mistake {
    #[error("conflicts with a registration or reservation; read the keys and register first")]
    Conflict,
    #[error("the reservation is of another type; release it with the type it was made with")]
    OtherKind,
    #[error("more than {REGISTRANTS_MAX} registrants; take unused registrations back first")]
    NoRoom,
    /// SPEC_I_PT where a registration is changed or taken back.
    #[error("others can be registered only together with a new registration")]
    AlsoOnRegistered,
    #[error("the key to preempt is 0, and not every registrant holds the reservation")]
    NoVictim,
    #[error("the reservation would change hands, and it is not said of which type it is to be")]
    NoKind,
    #[error("the key of the registrant to move to is 0")]
    NoKey,
    #[error("the reservation would move to the nexus that holds it")]
    MoveToSelf,
    #[error("there is no such port to move the reservation to")]
    NoSuchPort,
}

/// What registrants are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    ReservationsPreempted,
    ReservationsReleased,
    RegistrationsPreempted,
}

/// What else is to be done for a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub notices: Vec<(NexusId, Notice)>,
    /// Whose tasks are to end.
    pub abort: Vec<NexusId>,
}

impl Reservations {
    /// Judges and applies; `access` says which ports there are.
    pub fn apply(
        &mut self,
        nexus: &NexusId,
        action: Action,
        access: &Access,
    ) -> Result<Done, Mistake> {
        let is_simple = matches!(action, Action::ReserveUnit | Action::ReleaseUnit);
        // SPC-2 5.5.1: the simple reservation shuts out the other kind, whoever holds it.
        if !is_simple && self.unit_holder.is_some() {
            return Err(Mistake::Conflict);
        }
        match action {
            Action::Register { key, new_key, also, all_ports, through_power_loss } => {
                let ports = if all_ports { access.siblings(nexus.port()) } else { Vec::new() };
                self.register(nexus, (key, new_key), also, (&ports, through_power_loss))
            }
            Action::RegisterAnyway { new_key, all_ports, through_power_loss } => {
                let ports = if all_ports { access.siblings(nexus.port()) } else { Vec::new() };
                let all = everywhere([nexus.initiator()], nexus.port(), &ports);
                let any = all.iter().any(|it| self.registrants.contains_key(it));
                if new_key == 0 && !any {
                    return Ok(Done::default());
                }
                self.set_keys(nexus, all, new_key, through_power_loss)
            }
            Action::Reserve { key, kind } => self.reserve(nexus, key, kind),
            Action::Release { key, kind } => self.release(nexus, key, kind),
            Action::Clear { key } => self.clear(nexus, key),
            Action::Preempt { key, victim, kind, abort } => {
                let mut done = self.preempt(nexus, key, victim, kind)?;
                if abort.is_none() {
                    done.abort.clear();
                }
                Ok(done)
            }
            Action::Move { key, new_key, to, unregister, through_power_loss } => {
                self.check(nexus, key)?;
                self.may_give(nexus, &to, new_key, access)?;
                self.give(nexus, to, new_key, unregister);
                self.through_power_loss = through_power_loss;
                Ok(Done::default())
            }
            Action::ReserveUnit => self.reserve_unit(nexus),
            Action::ReleaseUnit => self.leave_unit(nexus),
        }
    }

    /// The operator takes everything away from everybody.
    pub fn clear_all(&mut self) -> Done {
        self.unit_holder = None;
        if self.registrants.is_empty() {
            return Done::default();
        }
        self.forget_all(None)
    }

    /// SPC-4 5.13.7, the table of REGISTER.
    fn register(
        &mut self,
        nexus: &NexusId,
        (key, new_key): (u64, u64),
        also: Option<Vec<Initiator>>,
        (ports, through_power_loss): (&[PortId], bool),
    ) -> Result<Done, Mistake> {
        let own = everywhere([nexus.initiator()], nexus.port(), ports);
        match self.key_of(nexus) {
            None if key != 0 => Err(Mistake::Conflict),
            None if new_key == 0 => Ok(Done::default()),
            None => {
                let others = also.iter().flatten();
                let all = everywhere(others.chain([nexus.initiator()]), nexus.port(), ports);
                let is_new = |it: &NexusId| !self.registrants.contains_key(it);
                let all = all.into_iter().filter(is_new).collect();
                self.set_keys(nexus, all, new_key, through_power_loss)
            }
            Some(registered) if registered != key => Err(Mistake::Conflict),
            Some(_) if also.is_some() => Err(Mistake::AlsoOnRegistered),
            // At each other port as if it had been asked for there: another key stays.
            Some(_) => {
                let all = own.into_iter().filter(|it| self.key_of(it) == Some(key)).collect();
                self.set_keys(nexus, all, new_key, through_power_loss)
            }
        }
    }

    /// Gives all of these the key, or takes their registrations back when it is 0.
    fn set_keys(
        &mut self,
        by: &NexusId,
        all: BTreeSet<NexusId>,
        key: u64,
        through_power_loss: bool,
    ) -> Result<Done, Mistake> {
        let mut done = Done::default();
        if key == 0 {
            self.registrants.retain(|it, _| !all.contains(it));
            done = self.settle(by);
        } else {
            self.room_for(all.iter())?;
            self.registrants.extend(all.into_iter().map(|it| (it, key)));
        }
        self.through_power_loss = through_power_loss;
        self.count();
        Ok(done)
    }

    fn reserve(&mut self, nexus: &NexusId, key: u64, kind: Kind) -> Result<Done, Mistake> {
        self.check(nexus, key)?;
        match &self.held {
            None => self.held = Some(Held::by(nexus, kind)),
            Some(held) if held.kind == kind && self.is_holder(nexus) => {}
            Some(_) => return Err(Mistake::Conflict),
        }
        Ok(Done::default())
    }

    fn release(&mut self, nexus: &NexusId, key: u64, kind: Kind) -> Result<Done, Mistake> {
        self.check(nexus, key)?;
        if !self.is_holder(nexus) {
            return Ok(Done::default());
        }
        match self.held.take_if(|held| held.kind == kind) {
            None => Err(Mistake::OtherKind),
            Some(held) => Ok(self.released(&held, nexus)),
        }
    }

    fn clear(&mut self, nexus: &NexusId, key: u64) -> Result<Done, Mistake> {
        self.check(nexus, key)?;
        Ok(self.forget_all(Some(nexus)))
    }

    /// SPC-4 5.13.11.2: the victim's key decides whether the reservation changes hands or
    /// registrations are merely taken away.
    fn preempt(
        &mut self,
        nexus: &NexusId,
        key: u64,
        victim: u64,
        kind: Option<Kind>,
    ) -> Result<Done, Mistake> {
        self.check(nexus, key)?;
        let takes = self.held.is_some() && self.holder_key() == Some(victim);
        if victim == 0 && !takes {
            return Err(Mistake::NoVictim);
        }
        if takes && kind.is_none() {
            return Err(Mistake::NoKind);
        }
        let is_victim = |(it, of): (&NexusId, u64)| {
            if takes { it != nexus && (victim == 0 || of == victim) } else { of == victim }
        };
        let gone: Vec<NexusId> =
            self.registrants().filter(|&it| is_victim(it)).map(|(it, _)| it.clone()).collect();
        if gone.is_empty() && !takes {
            return Err(Mistake::Conflict);
        }
        self.registrants.retain(|it, _| !gone.contains(it));
        let mut done = Done::default();
        if let (true, Some(kind)) = (takes, kind) {
            let former = self.held.replace(Held::by(nexus, kind));
            if former.is_some_and(|held| held.kind != kind) {
                done = self.tell_registrants(Notice::ReservationsReleased, nexus);
            }
        } else {
            // The last of all registrants may have taken its own registration away.
            self.settle(nexus);
        }
        let others = gone.iter().filter(|&it| it != nexus);
        done.notices.extend(others.map(|it| (it.clone(), Notice::RegistrationsPreempted)));
        done.abort = gone;
        self.count();
        Ok(done)
    }

    /// SPC-4 5.13.8: only a reservation with one holder can be moved, and only by it.
    fn may_give(
        &self,
        nexus: &NexusId,
        to: &NexusId,
        new_key: u64,
        access: &Access,
    ) -> Result<(), Mistake> {
        if self.held.as_ref().is_none_or(|held| held.holder.as_ref() != Some(nexus)) {
            return Err(Mistake::Conflict);
        }
        if new_key == 0 {
            return Err(Mistake::NoKey);
        }
        if to == nexus {
            return Err(Mistake::MoveToSelf);
        }
        if !access.has_port(to.port()) {
            return Err(Mistake::NoSuchPort);
        }
        self.room_for([to])
    }

    fn give(&mut self, nexus: &NexusId, to: NexusId, new_key: u64, unregister: bool) {
        self.registrants.insert(to.clone(), new_key);
        if let Some(held) = &mut self.held {
            held.holder = Some(to);
        }
        if unregister {
            self.registrants.remove(nexus);
        }
        self.count();
    }

    fn reserve_unit(&mut self, nexus: &NexusId) -> Result<Done, Mistake> {
        if self.unit_holder.as_ref().is_some_and(|holder| holder != nexus) {
            return Err(Mistake::Conflict);
        }
        if self.registrants.is_empty() {
            self.unit_holder = Some(nexus.clone());
            return Ok(Done::default());
        }
        self.yields_to(nexus)
    }

    fn leave_unit(&mut self, nexus: &NexusId) -> Result<Done, Mistake> {
        if self.registrants.is_empty() {
            self.release_unit(Some(nexus));
            return Ok(Done::default());
        }
        self.yields_to(nexus)
    }

    /// SPC-4 5.13.3 (CRH): while anybody is registered, the simple reservation does nothing for
    /// those who may use the LU under the persistent one anyway, and conflicts for everybody else.
    fn yields_to(&self, nexus: &NexusId) -> Result<Done, Mistake> {
        let for_registrants = self.held.as_ref().is_some_and(|held| held.kind.is_for_registrants());
        let may = for_registrants && self.registrants.contains_key(nexus);
        if may || self.is_holder(nexus) { Ok(Done::default()) } else { Err(Mistake::Conflict) }
    }

    /// Whoever is not registered, or gives another key, has no say.
    fn check(&self, nexus: &NexusId, key: u64) -> Result<(), Mistake> {
        if self.key_of(nexus) == Some(key) { Ok(()) } else { Err(Mistake::Conflict) }
    }

    fn room_for<'a>(&self, all: impl IntoIterator<Item = &'a NexusId>) -> Result<(), Mistake> {
        let new = all.into_iter().filter(|it| !self.registrants.contains_key(*it)).count();
        if self.registrants.len() + new > REGISTRANTS_MAX {
            return Err(Mistake::NoRoom);
        }
        Ok(())
    }

    /// Ends the reservation when nobody who holds it is registered any more.
    fn settle(&mut self, by: &NexusId) -> Done {
        let registrants = &self.registrants;
        let ended = self.held.take_if(|held| match &held.holder {
            Some(holder) => !registrants.contains_key(holder),
            None => registrants.is_empty(),
        });
        ended.map_or_else(Done::default, |held| self.released(&held, by))
    }

    fn released(&self, held: &Held, by: &NexusId) -> Done {
        if held.kind.is_for_registrants() {
            self.tell_registrants(Notice::ReservationsReleased, by)
        } else {
            Done::default()
        }
    }

    fn forget_all(&mut self, by: Option<&NexusId>) -> Done {
        self.count();
        self.held = None;
        let gone = std::mem::take(&mut self.registrants).into_keys().filter(|it| Some(it) != by);
        let notices = gone.map(|it| (it, Notice::ReservationsPreempted)).collect();
        Done { notices, abort: Vec::new() }
    }

    fn tell_registrants(&self, what: Notice, by: &NexusId) -> Done {
        let others = self.registrants.keys().filter(|&it| it != by);
        Done { notices: others.map(|it| (it.clone(), what)).collect(), abort: Vec::new() }
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }
}

impl Held {
    fn by(nexus: &NexusId, kind: Kind) -> Self {
        Self { kind, holder: (!kind.is_all_registrants()).then(|| nexus.clone()) }
    }
}

/// These initiator ports at this port of ours and at the others.
fn everywhere<'a>(
    initiators: impl IntoIterator<Item = &'a Initiator>,
    port: PortId,
    others: &[PortId],
) -> BTreeSet<NexusId> {
    let at_each = |initiator: &Initiator| {
        let at = |port| NexusId::new(initiator.clone(), port);
        others.iter().copied().chain([port]).map(at).collect::<Vec<_>>()
    };
    initiators.into_iter().flat_map(at_each).collect()
}
