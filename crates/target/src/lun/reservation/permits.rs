//! Which commands conflict with which reservation: one table.
//!
//! SPC-4 table 33, SBC-3 table 13 and NVMe 2.0 figure 80 list every command; what they say comes
//! down to five classes, and the row of a command names its class. A nexus keeps the set of classes
//! that it may use, so the check of a command is one bit.

use super::Kind;

/// What a command does, as far as reservations care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Never conflicts: who are you, what is mapped, what went wrong, and RELEASE, which for
    /// anybody but the holder does nothing.
    Always,
    /// Looks at neither data nor settings (TEST UNIT READY, capacity, states of ports): conflicts
    /// only with the simple reservation of another nexus.
    Look,
    /// Takes data or settings out.
    Read,
    /// Changes data, settings, or what others may do.
    Write,
    /// PERSISTENT RESERVE IN and OUT: conflict with any simple reservation, the own one too (SPC-2
    /// 5.5.1). What else OUT needs is judged when the change is applied.
    Persistent,
}

impl Class {
    pub const ALL: [Self; 5] =
        [Self::Always, Self::Look, Self::Read, Self::Write, Self::Persistent];
}

/// What a nexus is to the persistent reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    #[default]
    Outsider,
    Registered,
    Holder,
}

/// The classes of command that a nexus may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSet(u8);

impl ClassSet {
    const fn of(classes: &[Class]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < classes.len() {
            bits |= 1 << classes[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    #[inline]
    pub const fn contains(self, class: Class) -> bool {
        self.0 & 1 << class as u8 != 0
    }
}

use Class::{Always, Look, Persistent, Read, Write};

const FULL: ClassSet = ClassSet::of(&[Always, Look, Read, Write, Persistent]);
const READ: ClassSet = ClassSet::of(&[Always, Look, Read, Persistent]);
const NONE: ClassSet = ClassSet::of(&[Always, Look, Persistent]);

/// By type: what an outsider may, what a registrant who does not hold it may. The holder may all.
const TABLE: [(Kind, ClassSet, ClassSet); 6] = [
    (Kind::WriteExclusive, READ, READ),
    (Kind::ExclusiveAccess, NONE, NONE),
    (Kind::WriteExclusiveRegistrantsOnly, READ, FULL),
    (Kind::ExclusiveAccessRegistrantsOnly, NONE, FULL),
    (Kind::WriteExclusiveAllRegistrants, READ, FULL),
    (Kind::ExclusiveAccessAllRegistrants, NONE, FULL),
];

/// What may be done under a persistent reservation, or under none.
pub fn under(kind: Option<Kind>, standing: Standing) -> ClassSet {
    let row = TABLE.iter().find(|(of, _, _)| Some(*of) == kind);
    match (row, standing) {
        (None, _) | (Some(_), Standing::Holder) => FULL,
        (Some((_, outsider, _)), Standing::Outsider) => *outsider,
        (Some((_, _, registered)), Standing::Registered) => *registered,
    }
}

/// What may be done under the simple reservation of a unit.
pub const fn under_unit_reservation(holder: bool) -> ClassSet {
    if holder { ClassSet::of(&[Always, Look, Read, Write]) } else { ClassSet::of(&[Always]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_kind_once_and_in_order() {
        let kinds: Vec<Kind> = TABLE.iter().map(|row| row.0).collect();
        assert_eq!(kinds, Kind::ALL);
    }
}
