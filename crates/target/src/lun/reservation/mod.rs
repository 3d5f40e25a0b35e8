//! Who may use an LU: registrants with keys, the reservation that one or all of them hold, and the
//! simple reservation of a whole unit from before there were keys.
//!
//! The rules are those of SPC-4 5.13 (persistent reservations) and 5.9 (with SPC-2 5.5, the simple
//! reservation); NVMe reservations are the same six types with other numbers. One machine with one
//! owner: [`Reservations::apply`] is the only way to change it, everybody else reads a copy.
//!
//! Not here: parameter lists and codes of a protocol, and how the others learn of a change.

mod apply;
mod permits;

use std::collections::BTreeMap;

use super::nexus::NexusId;

pub use apply::{Action, Done, Mistake, Notice};
pub use permits::{Class, ClassSet, Standing};

/// How many nexuses may be registered with one LU.
pub const REGISTRANTS_MAX: usize = 1_024;

/// The type of a persistent reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    WriteExclusive,
    ExclusiveAccess,
    WriteExclusiveRegistrantsOnly,
    ExclusiveAccessRegistrantsOnly,
    WriteExclusiveAllRegistrants,
    ExclusiveAccessAllRegistrants,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// Every registrant holds it.
    pub const fn is_all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// What it allows depends on being registered, so its end concerns the registrants.
    pub const fn is_for_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }
}

/// The persistent reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub kind: Kind,
    /// `None` when every registrant holds it.
    pub holder: Option<NexusId>,
}

/// What is kept across restarts: plain data, so that whoever stores it chooses the form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedReservations {
    pub registrants: Vec<(NexusId, u64)>,
    pub held: Option<Held>,
    pub generation: u32,
    /// To survive loss of power, as the last registration asked for (APTPL).
    pub through_power_loss: bool,
    pub unit_holder: Option<NexusId>,
}

/// All reservations of one LU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    registrants: BTreeMap<NexusId, u64>,
    held: Option<Held>,
    generation: u32,
    through_power_loss: bool,
    unit_holder: Option<NexusId>,
}

impl Reservations {
    /// Nobody has registered or reserved.
    pub fn new() -> Self {
        Self::default()
    }

    /// As it was saved, less what makes no sense: a file may say anything.
    pub fn restore(saved: SavedReservations) -> Self {
        let registrants: BTreeMap<NexusId, u64> = saved
            .registrants
            .into_iter()
            .filter(|&(_, key)| key != 0)
            .take(REGISTRANTS_MAX)
            .collect();
        let held = saved.held.filter(|held| match &held.holder {
            Some(holder) => !held.kind.is_all_registrants() && registrants.contains_key(holder),
            None => held.kind.is_all_registrants() && !registrants.is_empty(),
        });
        // Both kinds at once cannot come about: the persistent one has the say.
        let unit_holder = saved.unit_holder.filter(|_| registrants.is_empty());
        Self {
            registrants,
            held,
            generation: saved.generation,
            through_power_loss: saved.through_power_loss,
            unit_holder,
        }
    }

    /// What is left after a loss of power: everything persistent, if it was asked for, counted
    /// from 0 again (SPC-4 6.15.2).
    pub fn after_power_loss(mut self) -> Self {
        if !self.through_power_loss {
            return Self::new();
        }
        self.generation = 0;
        self.unit_holder = None;
        self
    }

    /// The simple reservation ends; says whether there was one. `of`: only if this nexus holds it.
    pub fn release_unit(&mut self, of: Option<&NexusId>) -> bool {
        let ends = self.unit_holder.is_some() && (of.is_none() || self.unit_holder.as_ref() == of);
        if ends {
            self.unit_holder = None;
        }
        ends
    }

    pub fn save(&self) -> SavedReservations {
        SavedReservations {
            registrants: self
                .registrants
                .iter()
                .map(|(nexus, &key)| (nexus.clone(), key))
                .collect(),
            held: self.held.clone(),
            generation: self.generation,
            through_power_loss: self.through_power_loss,
            unit_holder: self.unit_holder.clone(),
        }
    }

    /// Counts the changes of registrations.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn through_power_loss(&self) -> bool {
        self.through_power_loss
    }

    /// Who holds the simple reservation.
    pub fn unit_holder(&self) -> Option<&NexusId> {
        self.unit_holder.as_ref()
    }

    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// The key of the holder, as a listing shows it: 0 when every registrant holds.
    pub fn holder_key(&self) -> Option<u64> {
        let holder = self.held.as_ref()?.holder.as_ref();
        Some(holder.and_then(|holder| self.key_of(holder)).unwrap_or(0))
    }

    pub fn registrants(&self) -> impl ExactSizeIterator<Item = (&NexusId, u64)> {
        self.registrants.iter().map(|(nexus, &key)| (nexus, key))
    }

    pub fn key_of(&self, nexus: &NexusId) -> Option<u64> {
        self.registrants.get(nexus).copied()
    }

    /// Holds the persistent reservation, alone or with the other registrants.
    pub fn is_holder(&self, nexus: &NexusId) -> bool {
        match &self.held {
            None => false,
            Some(Held { holder: Some(holder), .. }) => holder == nexus,
            Some(Held { holder: None, .. }) => self.registrants.contains_key(nexus),
        }
    }

    pub fn standing(&self, nexus: &NexusId) -> Standing {
        if self.is_holder(nexus) {
            Standing::Holder
        } else if self.registrants.contains_key(nexus) {
            Standing::Registered
        } else {
            Standing::Outsider
        }
    }

    /// What this nexus may do now.
    pub fn permits(&self, nexus: &NexusId) -> ClassSet {
        match &self.unit_holder {
            Some(holder) => permits::under_unit_reservation(holder == nexus),
            None => permits::under(self.held.as_ref().map(|held| held.kind), self.standing(nexus)),
        }
    }
}
