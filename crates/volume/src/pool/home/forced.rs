//! A pool of which only failure groups are left that lack something: what is here of it, and how
//! it is opened with that all the same.
//!
//! | step | a crash behind it leaves |
//! |---|---|
//! | whoever keeps records knows the epoch that labels will have | a pool that is refused |
//! | labels say that it is forced, those of one group also that it is not behind | a pool that is forced if all of that group say so; otherwise it is refused |
//! | LUs that can be used have an age that no other copy ever had | the same |
//! | it is opened, as any other without some disks | |
//!
//! What is true from then on, until all disks have been here at once:
//!
//! - A disk that comes back does not count for any LU that was used without it: its age is lower,
//!   and it has missed an epoch. What only it has of others counts: nobody has used those.
//! - An LU that nobody here knows was removed by nobody. A disk that comes back keeps it; it does
//!   not, as any other outdated disk, take it for gone. So whoever removes an LU meanwhile has to
//!   remember that, and to do it again then, see [`Pool::may_be_elsewhere`].
//! - The numbers of new slabs are of a range that no group gives and none gave when the pool was
//!   forced before: others may know of slabs that are not known here.
//! - The group is not taken for behind, whatever it lacks: the pool is opened with it again.

use std::collections::BTreeMap;
use std::rc::Rc;

use model::limits::GROUPS_MAX;

use super::super::label::Label;
use super::super::places::{Copy, GROUP_NUMBERS, numbers_of};
use super::find::has_whole_group;
use super::look::TableFlaw;
use super::stale::{LACKING, STEP, age_after};
use super::{Found, Pool, PoolError, Registry, Unforced};

/// Ranges of numbers that no failure group gives: groups have lower numbers.
const RANGES: u16 = GROUP_NUMBERS - GROUPS_MAX as u16;

/// What a failure group has of an LU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyHere {
    /// All of it, as far as is known here.
    Whole,
    /// It has missed something.
    Stale,
    /// It has not been brought there yet: so many slabs that are known of here are not there.
    Lacks(u64),
}

/// A failure group that is all here, and what it has of LUs that are known here. What it says
/// nothing of is not there at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAbout {
    pub group: u16,
    pub lus: BTreeMap<[u8; 16], CopyHere>,
}

impl GroupAbout {
    /// The better one of two has more LUs that can be used, and then lacks less.
    fn rank(&self) -> (usize, u64, u16) {
        let unfit = self.lus.values().filter(|copy| **copy != CopyHere::Whole);
        let lacking = unfit.clone().map(|copy| match copy {
            CopyHere::Lacks(slabs) => *slabs,
            CopyHere::Whole | CopyHere::Stale => 0,
        });
        (usize::MAX - (self.lus.len() - unfit.count()), lacking.sum(), self.group)
    }
}

impl Found {
    /// Failure groups that have all their disks here, none of which has missed an opening.
    pub fn whole_groups(&self) -> Vec<u16> {
        let current: Vec<&Label> = self.labels().filter(|label| !self.is_outdated(label)).collect();
        let mut groups: Vec<u16> = current.iter().map(|label| label.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|group| has_whole_group(&current, |label| label.group == *group));
        groups
    }

    /// What the failure groups that are all here have of LUs, the best one first. Whatever else is
    /// known of copies counts too.
    pub async fn groups(
        self,
        registry: Option<Rc<dyn Registry>>,
    ) -> Result<Vec<GroupAbout>, PoolError> {
        let whole = self.whole_groups();
        let mut failed = None;
        let mut told = |flaw| {
            if let TableFlaw::Error(error) = flaw {
                failed.get_or_insert(error);
            }
        };
        let pool = self.look_with(registry, &mut told).await;
        let about = |group: u16| {
            let lus = pool.lus().into_keys();
            let lus = lus.filter_map(|lu| Some((lu, pool.copy_here(lu, group)?))).collect();
            GroupAbout { group, lus }
        };
        let mut groups: Vec<GroupAbout> = whole.into_iter().map(about).collect();
        groups.sort_by_key(GroupAbout::rank);
        pool.close().await?;
        failed.map_or(Ok(groups), Err)
    }

    /// The epoch that labels get if it is forced, where this one is known.
    pub fn forced_epoch(&self, known: u64) -> u64 {
        self.epoch().max(known) + u64::from(STEP)
    }

    /// From now on it can be opened with this failure group, whatever others have that are not
    /// here. That is written with this epoch, see [`Found::forced_epoch`], and nothing else is.
    pub async fn force(self, group: u16, epoch: u64) -> Result<(), Unforced> {
        if !self.is_behind() {
            return Err(Unforced::Current);
        }
        if !self.whole_groups().contains(&group) {
            return Err(match self.labels().any(|label| label.group == group) {
                true => Unforced::NotHere(group),
                false => Unforced::NoCopy(group),
            });
        }
        // Who was about to join or to leave may have said so to some only.
        let members = self.newest_label().members;
        let pool = self.unopened(epoch - 1);
        // Those that are outdated are told when it is opened: until then that is to be seen.
        let is_current = |disk: &u32| pool.tables.borrow()[*disk as usize].outdated == 0;
        let current: Vec<u32> = pool.members().into_iter().filter(is_current).collect();
        for &disk in &current {
            let label = &mut pool.tables.borrow_mut()[disk as usize].label;
            label.is_behind &= label.group != group;
            label.members = members;
        }
        if pool.forced.get() == 0 || pool.forced.get() < pool.missed.get() {
            pool.forces.set(pool.forces.get().wrapping_add(1));
        }
        pool.forced.set(epoch);
        let written = pool.write_labels(&current).await.map_err(|(_, error)| error);
        pool.close().await?;
        written.map_err(Unforced::Pool)
    }
}

impl Pool {
    /// It was forced, and not all disks that may know more have been here since. An LU that is
    /// removed may be on those.
    pub fn waits_for_others(&self) -> bool {
        self.forced.get() > 0 && self.absent() > 0
    }

    /// It waits for disks that may have this LU, which was not made since it does.
    pub fn may_be_elsewhere(&self, lu: [u8; 16]) -> bool {
        let first = self.granted(lu).and_then(|granted| granted.first);
        let is_new = |range: u16| first.is_some_and(|first| numbers_of(range).contains(&first));
        self.forced_numbers().is_some_and(|range| !is_new(range))
    }

    /// The range of numbers for slabs that are granted while others may know of slabs that are not
    /// known here.
    pub(super) fn forced_numbers(&self) -> Option<u16> {
        let range = self.forces.get().wrapping_sub(1) % RANGES;
        self.waits_for_others().then_some(GROUPS_MAX as u16 + range)
    }

    /// The pool is about to be used for the first time since it was forced: copies of LUs that are
    /// current count more than any that are not here.
    pub(super) async fn outdo_absent(&self) -> Result<(), PoolError> {
        let (mut ages, mut changed) = (Vec::new(), Vec::new());
        for (lu, granted) in self.lus() {
            if granted.first.is_none() || self.must_have_copy(lu, &granted).is_err() {
                continue;
            }
            ages.push((lu, Some(self.forced_age(lu)?)));
        }
        self.note(ages.clone()).await?;
        for (lu, age) in ages {
            let stale = self.stale_groups(lu);
            let current = self.groups().into_iter().filter(|group| !stale.contains(group));
            let current: Vec<u16> = current.collect();
            let before = self.with_age(lu, age.unwrap_or_default(), &current);
            changed.extend(before.into_iter().map(|(home, _)| home));
        }
        self.write_changed(changed.into_iter()).await
    }

    /// Higher than that of any other copy.
    pub(super) fn forced_age(&self, lu: [u8; 16]) -> Result<u32, PoolError> {
        age_after(lu, self.highest_known(lu), STEP)
    }

    /// All disks are here, and say so with this epoch: those of the groups that lack something are
    /// behind again, and what is on none of them was removed.
    pub(super) async fn end_force(&self) -> Result<(), PoolError> {
        self.forced.set(0);
        self.groups().into_iter().for_each(|group| self.note_behind(group));
        self.write_labels(&self.members()).await.map_err(|(_, error)| error)
    }

    /// None: nothing of it is there.
    fn copy_here(&self, lu: [u8; 16], group: u16) -> Option<CopyHere> {
        let granted = self.granted(lu)?;
        let first = {
            let tables = self.tables.borrow();
            let mut firsts = self.firsts(&tables, lu).into_iter();
            firsts.find(|(home, _)| tables[home.disk as usize].label.group == group)
        };
        let is_there = |slab: &&u32| {
            let is_such = |copy: Copy| copy.group == group;
            self.shared.places.all(**slab).any(is_such)
        };
        let there = granted.slabs.iter().filter(is_there).count();
        let lacking = (granted.slabs.len() - there) as u64;
        let is_stale = granted.stale.contains(&group);
        let is_good = |age: u32| age & !LACKING == self.highest_known(lu);
        match first {
            None => (there > 0).then_some(CopyHere::Lacks(lacking.max(1))),
            Some((_, grant)) if is_stale && !is_good(grant.age) => Some(CopyHere::Stale),
            Some(_) if is_stale || lacking > 0 => Some(CopyHere::Lacks(lacking)),
            Some(_) => Some(CopyHere::Whole),
        }
    }
}
