//! Persistent and simple reservations as the standards' clauses read, done the naive way: lists,
//! numbers, and one look at everything for every question. It shares no code with the machine and
//! names types by their SCSI codes, so that the two can only agree by both being right.

use std::collections::BTreeSet;

/// An initiator and a port.
pub type Nexus = (u8, u8);

/// The SCSI codes of the types.
pub const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];

const REGISTRANTS_ONLY: [u8; 2] = [5, 6];
const ALL_REGISTRANTS: [u8; 2] = [7, 8];
const WRITE_EXCLUSIVE: [u8; 3] = [1, 5, 7];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Conflict,
    InvalidRelease,
    InvalidCdb,
    InvalidParameter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    ReservationsPreempted,
    ReservationsReleased,
    RegistrationsPreempted,
}

#[derive(Clone, Debug)]
pub enum Ask {
    Register { ignore: bool, key: u64, sark: u64, spec: Option<Vec<u8>>, all: bool, aptpl: bool },
    Reserve { key: u64, kind: u8 },
    Release { key: u64, kind: u8 },
    Clear { key: u64 },
    Preempt { key: u64, sark: u64, kind: u8, abort: bool },
    Move { key: u64, sark: u64, to: Nexus, unreg: bool, aptpl: bool },
    Reserve6,
    Release6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Inquiry,
    TestUnitReady,
    Read,
    Write,
    PersistentReserve,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub told: BTreeSet<(Nexus, Told)>,
    pub aborted: BTreeSet<Nexus>,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub keys: Vec<(Nexus, u64)>,
    /// Type and, unless all registrants hold it, holder.
    pub reservation: Option<(u8, Option<Nexus>)>,
    pub generation: u32,
    pub aptpl: bool,
    pub reserved: Option<Nexus>,
    /// Targets, each with its ports.
    pub targets: Vec<Vec<u8>>,
}

impl Model {
    pub fn key(&self, nexus: Nexus) -> Option<u64> {
        self.keys.iter().find(|(it, _)| *it == nexus).map(|(_, key)| *key)
    }

    pub fn holds(&self, nexus: Nexus) -> bool {
        match self.reservation {
            Some((kind, _)) if ALL_REGISTRANTS.contains(&kind) => self.key(nexus).is_some(),
            Some((_, holder)) => holder == Some(nexus),
            None => false,
        }
    }

    /// SPC-4 table 33 and SPC-2 table 10, command by command.
    pub fn may(&self, nexus: Nexus, command: Command) -> bool {
        if let Some(holder) = self.reserved {
            return match command {
                Command::Inquiry => true,
                Command::PersistentReserve => false,
                _ => holder == nexus,
            };
        }
        let Some((kind, _)) = self.reservation else { return true };
        if matches!(command, Command::Inquiry | Command::TestUnitReady | Command::PersistentReserve)
        {
            return true;
        }
        let with_registrants = REGISTRANTS_ONLY.contains(&kind) || ALL_REGISTRANTS.contains(&kind);
        self.holds(nexus)
            || with_registrants && self.key(nexus).is_some()
            || command == Command::Read && WRITE_EXCLUSIVE.contains(&kind)
    }

    pub fn power_loss(&mut self) {
        self.reserved = None;
        self.generation = 0;
        if !self.aptpl {
            self.keys.clear();
            self.reservation = None;
        }
    }

    pub fn clear_by_operator(&mut self) -> Outcome {
        let told = self.keys.iter().map(|(it, _)| (*it, Told::ReservationsPreempted)).collect();
        if !self.keys.is_empty() {
            self.generation += 1;
        }
        self.keys.clear();
        self.reservation = None;
        self.reserved = None;
        Outcome { told, ..Outcome::default() }
    }

    pub fn ask(&mut self, nexus: Nexus, ask: &Ask) -> (Verdict, Outcome) {
        let mut outcome = Outcome::default();
        let verdict = match ask {
            Ask::Reserve6 | Ask::Release6 => self.simple(nexus, matches!(ask, Ask::Reserve6)),
            _ if self.reserved.is_some() => Verdict::Conflict,
            Ask::Register { .. } => self.register(nexus, ask, &mut outcome),
            Ask::Reserve { key, .. }
            | Ask::Release { key, .. }
            | Ask::Clear { key }
            | Ask::Preempt { key, .. }
            | Ask::Move { key, .. }
                if self.key(nexus) != Some(*key) =>
            {
                Verdict::Conflict
            }
            Ask::Reserve { kind, .. } => self.reserve(nexus, *kind),
            Ask::Release { kind, .. } => self.release(nexus, *kind, &mut outcome),
            Ask::Clear { .. } => {
                for (other, _) in std::mem::take(&mut self.keys) {
                    if other != nexus {
                        outcome.told.insert((other, Told::ReservationsPreempted));
                    }
                }
                self.reservation = None;
                self.generation += 1;
                Verdict::Good
            }
            Ask::Preempt { sark, kind, abort, .. } => {
                let verdict = self.preempt(nexus, *sark, *kind, &mut outcome);
                if !abort {
                    outcome.aborted.clear();
                }
                verdict
            }
            Ask::Move { sark, to, unreg, aptpl, .. } => {
                self.transfer(nexus, *sark, *to, (*unreg, *aptpl))
            }
        };
        (verdict, outcome)
    }

    fn simple(&mut self, nexus: Nexus, reserve: bool) -> Verdict {
        if !self.keys.is_empty() {
            let (kind, _) = self.reservation.unwrap_or((0, None));
            let shared = REGISTRANTS_ONLY.contains(&kind) || ALL_REGISTRANTS.contains(&kind);
            let harmless = self.holds(nexus) || shared && self.key(nexus).is_some();
            return if harmless { Verdict::Good } else { Verdict::Conflict };
        }
        match (reserve, self.reserved) {
            (true, None) => self.reserved = Some(nexus),
            (true, Some(holder)) if holder != nexus => return Verdict::Conflict,
            (false, Some(holder)) if holder == nexus => self.reserved = None,
            _ => {}
        }
        Verdict::Good
    }

    fn register(&mut self, nexus: Nexus, ask: &Ask, outcome: &mut Outcome) -> Verdict {
        let Ask::Register { ignore, key, sark, spec, all, aptpl } = ask else { unreachable!() };
        let registered = self.key(nexus);
        if !ignore {
            match registered {
                None if *key != 0 => return Verdict::Conflict,
                None if *sark == 0 => return Verdict::Good,
                Some(own) if own != *key => return Verdict::Conflict,
                Some(_) if spec.is_some() => return Verdict::InvalidCdb,
                _ => {}
            }
        }
        let ports: Vec<u8> = match self.targets.iter().find(|ports| ports.contains(&nexus.1)) {
            Some(ports) if *all => ports.clone(),
            _ => vec![nexus.1],
        };
        let initiators: Vec<u8> = match spec {
            Some(others) if !ignore => others.iter().copied().chain([nexus.0]).collect(),
            _ => vec![nexus.0],
        };
        let mut touched = false;
        for initiator in initiators {
            for &port in &ports {
                let at = (initiator, port);
                let judged_alone = *ignore || self.key(at).unwrap_or(0) == *key;
                if !judged_alone {
                    continue;
                }
                touched |= *sark != 0 || self.key(at).is_some();
                self.keys.retain(|(it, _)| *it != at);
                if *sark != 0 {
                    self.keys.push((at, *sark));
                }
            }
        }
        if touched {
            self.generation += 1;
            self.aptpl = *aptpl;
        }
        self.end_if_nobody_holds(nexus, outcome);
        Verdict::Good
    }

    fn end_if_nobody_holds(&mut self, by: Nexus, outcome: &mut Outcome) {
        let held = self.keys.iter().any(|(it, _)| self.holds(*it));
        if let (Some((kind, _)), false) = (self.reservation, held) {
            self.reservation = None;
            self.tell_release(kind, by, outcome);
        }
    }

    fn tell_release(&self, kind: u8, by: Nexus, outcome: &mut Outcome) {
        if kind >= 5 {
            for (other, _) in self.keys.iter().filter(|(it, _)| *it != by) {
                outcome.told.insert((*other, Told::ReservationsReleased));
            }
        }
    }

    fn reserve(&mut self, nexus: Nexus, kind: u8) -> Verdict {
        match self.reservation {
            None => {
                self.reservation = Some((kind, (kind < 7).then_some(nexus)));
                Verdict::Good
            }
            Some((same, _)) if same == kind && self.holds(nexus) => Verdict::Good,
            Some(_) => Verdict::Conflict,
        }
    }

    fn release(&mut self, nexus: Nexus, kind: u8, outcome: &mut Outcome) -> Verdict {
        if !self.holds(nexus) {
            return Verdict::Good;
        }
        if self.reservation.unwrap().0 != kind {
            return Verdict::InvalidRelease;
        }
        self.reservation = None;
        self.tell_release(kind, nexus, outcome);
        Verdict::Good
    }

    fn preempt(&mut self, by: Nexus, sark: u64, kind: u8, outcome: &mut Outcome) -> Verdict {
        let all = self.reservation.is_some_and(|(kind, _)| ALL_REGISTRANTS.contains(&kind));
        let of_one_holder = self.keys.iter().any(|(it, key)| self.holds(*it) && *key == sark);
        let takes_over = if all { sark == 0 } else { of_one_holder };
        if sark == 0 && !all {
            return Verdict::InvalidParameter;
        }
        let meant = |key: u64| sark == 0 || key == sark;
        let mut gone: Vec<Nexus> =
            self.keys.iter().filter(|(_, key)| meant(*key)).map(|(it, _)| *it).collect();
        if gone.is_empty() {
            return Verdict::Conflict;
        }
        if takes_over {
            if !TYPES.contains(&kind) {
                return Verdict::InvalidCdb;
            }
            gone.retain(|it| *it != by);
        }
        self.keys.retain(|(it, _)| !gone.contains(it));
        if takes_over {
            let (former, _) = self.reservation.unwrap();
            self.reservation = Some((kind, (kind < 7).then_some(by)));
            if former != kind {
                for (rest, _) in self.keys.iter().filter(|(it, _)| *it != by) {
                    outcome.told.insert((*rest, Told::ReservationsReleased));
                }
            }
        } else if self.keys.is_empty() {
            self.reservation = None;
        }
        for it in gone {
            outcome.aborted.insert(it);
            if it != by {
                outcome.told.insert((it, Told::RegistrationsPreempted));
            }
        }
        self.generation += 1;
        Verdict::Good
    }

    fn transfer(
        &mut self,
        from: Nexus,
        sark: u64,
        to: Nexus,
        (unreg, aptpl): (bool, bool),
    ) -> Verdict {
        match self.reservation {
            Some((kind, Some(holder))) if holder == from => {
                if !self.targets.iter().flatten().any(|port| *port == to.1)
                    || sark == 0
                    || to == from
                {
                    return Verdict::InvalidParameter;
                }
                self.keys.retain(|(it, _)| *it != to && !(unreg && *it == from));
                self.keys.push((to, sark));
                self.reservation = Some((kind, Some(to)));
                self.aptpl = aptpl;
                self.generation += 1;
                Verdict::Good
            }
            _ => Verdict::Conflict,
        }
    }
}
