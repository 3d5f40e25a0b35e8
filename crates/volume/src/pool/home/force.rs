//! An LU of which no copy that has everything is to be had any more: what others there are, and how
//! one of them becomes what the LU is from now on.
//!
//! | step | a crash behind it leaves |
//! |---|---|
//! | everything that the copy says of the LU is read, and fits what there is of it | |
//! | whoever keeps records knows a higher age than that of any other copy | an LU that is closed, as before |
//! | the copy has that age | the LU as this copy has it; others are stale for good |
//! | slabs that it knows nothing of go back to the pool | |
//!
//! A disk that comes back later has a lower age, or missed the epoch; either way it does not count.

use std::sync::Arc;

use super::super::lu::{Left, LuError, Whence, read_left};
use super::super::owner::ALL_REGIONS;
use super::super::places::{Copy, State};
use super::stale::{LACKING, STALE, STEP};
use super::{Pool, PoolError};

/// What is known of a copy of an LU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyAbout {
    pub group: u16,
    /// It has everything.
    pub is_current: bool,
    /// All disks of its failure group are here.
    pub is_here: bool,
    /// How often others went on without it; unknown of one that only says that it is stale.
    pub missed: Option<u32>,
    /// Slabs that the LU has, as far as is known here, and those of them that it lacks.
    pub slabs: u64,
    pub lacking: u64,
}

impl CopyAbout {
    /// The better one of two has missed less, and then lacks less.
    fn rank(&self) -> (bool, u32, u64) {
        (!self.is_here, self.missed.unwrap_or(u32::MAX), self.lacking)
    }
}

/// Why a copy does not become the current one.
#[derive(Debug, thiserror::Error)]
pub enum Unforced {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("a copy that has everything is here")]
    Current,
    #[error("failure group {0} has no copy of it")]
    NoCopy(u16),
    #[error("disks of failure group {0} are missing, which may have parts of it")]
    NotHere(u16),
    #[error("the copy of failure group {group} cannot be used: {why}")]
    Unfit { group: u16, why: LuError },
}

/// How often others went on, who are so much older: once where it was forced.
fn times(older: u32) -> u32 {
    older / STEP + older % STEP
}

impl Pool {
    /// The copies of an LU that are here, wholly or in part, the best one first.
    pub fn copies(&self, lu: [u8; 16]) -> Result<Vec<CopyAbout>, PoolError> {
        let granted = self.granted(lu).filter(|granted| granted.first.is_some());
        let granted = granted.ok_or(PoolError::NoLu(lu))?;
        let newest = self.highest_known(lu);
        let firsts = {
            let tables = self.tables.borrow();
            let group = |disk: u32| tables[disk as usize].label.group;
            let firsts = self.firsts(&tables, lu).into_iter();
            firsts.map(|(home, grant)| (group(home.disk), grant.age)).collect::<Vec<_>>()
        };
        let about = |(group, age): (u16, u32)| {
            let is_there = |slab: &&u32| self.shared.places.all(**slab).any(|it| it.group == group);
            let (all, there) = (granted.slabs.len(), granted.slabs.iter().filter(is_there).count());
            let is_here = self.is_all_here(group);
            CopyAbout {
                group,
                is_current: is_here && !granted.stale.contains(&group),
                is_here,
                missed: (age != STALE).then(|| times(newest.saturating_sub(age & !LACKING))),
                slabs: all as u64,
                lacking: (all - there) as u64,
            }
        };
        let mut copies: Vec<CopyAbout> = firsts.into_iter().map(about).collect();
        copies.sort_by_key(CopyAbout::rank);
        Ok(copies)
    }

    /// The LU is from now on what its copy in this failure group has of it. Nobody has it open.
    /// Refused as long as a copy is here that has everything, and if the copy names slabs that it
    /// lacks.
    pub async fn force(&self, lu: [u8; 16], group: u16) -> Result<(), Unforced> {
        self.can_force(lu, group)?;
        let tenure = self.tenure(lu)?;
        let before = self.take_alone(lu, group);
        let mut forced = self.must_be_readable(lu, (group, tenure.epoch)).await;
        let _changing = self.changing().await;
        if forced.is_ok() {
            // A disk may have come or gone meanwhile.
            forced = self.can_force(lu, group);
        }
        if forced.is_ok() {
            forced = self.tell_of_forced(lu, group).await.map_err(Unforced::Pool);
        }
        if forced.is_err() {
            self.take_back_states(before);
            return forced;
        }
        self.set_others_aside(lu, group);
        self.free_unheld(&[lu]).await?;
        self.look_at_copies();
        self.tell_watcher();
        Ok(())
    }

    fn can_force(&self, lu: [u8; 16], group: u16) -> Result<(), Unforced> {
        let copies = self.copies(lu)?;
        if copies.iter().any(|copy| copy.is_current) {
            return Err(Unforced::Current);
        }
        let copy = copies.iter().find(|copy| copy.group == group);
        let is_here = copy.ok_or(Unforced::NoCopy(group))?.is_here;
        is_here.then_some(()).ok_or(Unforced::NotHere(group))
    }

    /// Higher ages are not known of any copy.
    pub(super) fn highest_known(&self, lu: [u8; 16]) -> u32 {
        self.age(lu).max(self.noted_age(lu)).max(self.doubted_age(lu))
    }

    /// Only this copy is read. Gives what the places were before.
    pub(in super::super) fn take_alone(&self, lu: [u8; 16], group: u16) -> Vec<(u32, Copy)> {
        let mut before = Vec::new();
        for number in self.granted(lu).unwrap_or_default().slabs {
            for copy in self.shared.places.all(number) {
                let state = if copy.group == group { State::Whole } else { State::Broken };
                self.shared.places.mark(number, copy.home, (copy.state, state));
                before.push((number, copy));
            }
        }
        before
    }

    fn take_back_states(&self, before: Vec<(u32, Copy)>) {
        for (number, Copy { home, state, .. }) in before {
            if let Some(is) = self.shared.places.state(number, home) {
                self.shared.places.mark(number, home, (is, state));
            }
        }
    }

    /// Reads what whoever opens the LU reads, and all its maps.
    async fn must_be_readable(
        &self,
        lu: [u8; 16],
        (group, epoch): (u16, u64),
    ) -> Result<(), Unforced> {
        let left = self.read_alone(lu, (group, epoch), true).await;
        left.map(drop).map_err(|why| Unforced::Unfit { group, why })
    }

    /// Reads what a copy says of its LU that was [taken alone](Pool::take_alone): all its maps too,
    /// or what it takes to know names and layers.
    pub(in super::super) async fn read_alone(
        &self,
        lu: [u8; 16],
        (group, epoch): (u16, u64),
        all: bool,
    ) -> Result<Left, LuError> {
        let granted = self.granted(lu).ok_or(PoolError::NoLu(lu))?;
        let first_slab = granted.first.ok_or(PoolError::NoLu(lu))?;
        let mut slabs = granted.slabs;
        slabs.retain(|slab| self.is_whole(*slab, group));
        let site = self.site(lu, first_slab);
        let memory = &Arc::default();
        let whence = Whence { site, epoch, slabs: &slabs, all, memory };
        read_left(&*self.disks()?, whence, Err).await
    }

    async fn tell_of_forced(&self, lu: [u8; 16], group: u16) -> Result<(), PoolError> {
        let age = self.forced_age(lu)?;
        self.note(vec![(lu, Some(age))]).await?;
        self.set_age(lu, age, &[group]).await
    }

    /// Others have missed something, and it is not known what.
    fn set_others_aside(&self, lu: [u8; 16], group: u16) {
        for number in self.granted(lu).unwrap_or_default().slabs {
            let places = &self.shared.places;
            places.touch(number, ALL_REGIONS);
            for copy in places.all(number).filter(|copy| self.is_lost(copy.home.disk)) {
                places.lose(number, copy);
            }
        }
        for other in self.groups().into_iter().filter(|other| *other != group) {
            self.take_out(lu, other);
        }
        self.undecided.borrow_mut().retain(|it| *it != (lu, group));
        if let Some(granted) = self.lus.borrow_mut().get_mut(&lu) {
            granted.stale.retain(|stale| *stale != group);
        }
    }

    /// Slabs of which copies with everything know nothing are none of these LUs: others that have
    /// missed something have them.
    pub(super) async fn free_unheld(&self, lus: &[[u8; 16]]) -> Result<(), PoolError> {
        for &lu in lus {
            let Some(granted) = self.granted(lu) else { continue };
            if self.must_have_copy(lu, &granted).is_err() {
                continue;
            }
            let counts =
                |copy: &Copy| copy.state != State::Broken && !granted.stale.contains(&copy.group);
            let is_unheld = |slab: &u32| !self.shared.places.all(*slab).any(|it| counts(&it));
            let unheld: Vec<u32> = granted.slabs.iter().copied().filter(is_unheld).collect();
            let homes = unheld.iter().flat_map(|slab| self.shared.places.all(*slab));
            let homes: Vec<_> = homes.map(|copy| copy.home).collect();
            for home in &homes {
                self.tables.borrow_mut()[home.disk as usize].free(home.index);
            }
            // One that is lost hears of it when it is back.
            let here = homes.into_iter().filter(|home| !self.is_lost(home.disk));
            self.write_changed(here).await?;
            unheld.iter().for_each(|slab| self.shared.places.clear(*slab));
            if let Some(granted) = self.lus.borrow_mut().get_mut(&lu) {
                granted.slabs.retain(|slab| !unheld.contains(slab));
            }
        }
        Ok(())
    }
}
