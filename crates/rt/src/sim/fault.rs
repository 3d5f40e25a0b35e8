//! Faults on demand: which operations on which part of a disk go wrong, how, and how often.

use std::ops::Range;

use super::random::Random;

/// Which operations a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Any,
    Read,
    Write,
    Sync,
    Allocate,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The operation fails with this errno (positive); a failed write may have been done in part.
    Errno(i32),
    /// A write is answered and never done.
    Lost,
    /// A write is done elsewhere, this many bytes further on.
    Misdirected(u64),
    /// A bit of what is read is wrong, on the disk too from now on.
    Decay,
}

/// Something that goes wrong for as long as it is planned.
#[derive(Clone, Debug)]
pub struct Fault {
    pub on: On,
    /// Operations that touch these bytes; a sync touches all.
    pub range: Range<u64>,
    pub harm: Harm,
    /// How many of a million such operations.
    pub ppm: u32,
    /// How often at most.
    pub times: u32,
}

impl Fault {
    /// Always, everywhere, for ever.
    pub const fn always(on: On, harm: Harm) -> Self {
        Self { on, range: 0..u64::MAX, harm, ppm: 1_000_000, times: u32::MAX }
    }

    pub const fn once(on: On, harm: Harm) -> Self {
        Self { times: 1, ..Self::always(on, harm) }
    }
}

/// What is to become of an operation.
pub(super) fn befalls(
    faults: &mut Vec<Fault>,
    on: On,
    range: &Range<u64>,
    random: &mut Random,
) -> Option<Harm> {
    let hit = faults.iter_mut().find(|fault| {
        let touches =
            on == On::Sync || fault.range.start < range.end && range.start < fault.range.end;
        (fault.on == On::Any || fault.on == on) && touches && random.chance(fault.ppm)
    })?;
    let harm = hit.harm;
    hit.times -= 1;
    faults.retain(|fault| fault.times > 0);
    let possible = match harm {
        Harm::Errno(_) => true,
        Harm::Lost | Harm::Misdirected(_) => on == On::Write,
        Harm::Decay => on == On::Read,
    };
    possible.then_some(harm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_befalls_what_it_names_as_often_as_it_says() {
        let mut random = Random::new(1);
        let once = Fault { range: 100..200, ..Fault::once(On::Write, Harm::Errno(5)) };
        let mut faults = vec![once];
        assert_eq!(befalls(&mut faults, On::Read, &(0..1000), &mut random), None);
        assert_eq!(befalls(&mut faults, On::Write, &(200..300), &mut random), None);
        assert_eq!(befalls(&mut faults, On::Write, &(0..101), &mut random), Some(Harm::Errno(5)));
        assert_eq!(befalls(&mut faults, On::Write, &(0..101), &mut random), None);
        let mut often = vec![Fault { ppm: 250_000, ..Fault::always(On::Any, Harm::Errno(28)) }];
        let hits =
            (0..4000).filter(|_| befalls(&mut often, On::Sync, &(0..0), &mut random).is_some());
        assert!((800..1200).contains(&hits.count()));
    }
}
