//! Copies that have missed something.
//!
//! An LU has a copy in each failure group. Of each copy an age is known, kept with the grant of the
//! LU's first slab there: the highest one is that of those that have everything. A copy that misses
//! a write is marked before the write is answered: all others become older, durably on their disks
//! and in whatever keeps records of the pool, so that it is known also by who finds nothing but the
//! stale copy. One that has been brought up to date gets the age of the others.

use std::pin::Pin;

use block::Error;

use super::super::places::{Copy, Home, State};
use super::super::shape::GRANTS_PER_PAGE;
use super::super::slabs::{Grant, Slab};
use super::copies::grant_at;
use super::table::{Standing, Table};
use super::{Granted, Pool, PoolError};

/// The age of a copy that says of itself that it is stale.
const STALE: u16 = u16::MAX;

/// Something to wait for, on the pool's core.
pub type Noted<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Remembers, beside the disks, which copies have missed something.
pub trait Registry {
    /// Copies of this LU that are younger than this are stale; 0: nothing is known of any.
    fn age(&self, lu: [u8; 16]) -> u16;

    /// The same is known of these LUs from now on, durably when it is done. None: all copies are
    /// the same again.
    fn note(&self, all: Vec<([u8; 16], Option<u16>)>) -> Noted<'_>;
}

impl Pool {
    /// The failure groups of its disks, in order.
    pub fn groups(&self) -> Vec<u16> {
        groups_of(&self.tables.borrow())
    }

    /// The failure groups where an LU's copy is stale, or is none.
    pub fn stale_groups(&self, lu: [u8; 16]) -> Vec<u16> {
        let stale = |granted: &Granted| granted.stale.clone();
        self.lus.borrow().get(&lu).map(stale).unwrap_or_default()
    }

    /// Refuses an LU of which no copy is here that has everything.
    pub fn must_have_copy(&self, lu: [u8; 16], granted: &Granted) -> Result<(), PoolError> {
        match self.groups().iter().all(|group| granted.stale.contains(group)) {
            true => Err(PoolError::NoCopy(lu)),
            false => Ok(()),
        }
    }

    /// Something could not be written at this place of a slab: the LU's copy there is not read any
    /// more, by anybody and whatever happens, when this is done. An error: no other copy has
    /// everything, or it cannot be said.
    pub async fn mark_stale(&self, number: u32, home: Home) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let (lu, group) = {
            let tables = self.tables.borrow();
            let grant = grant_at(&tables, home).filter(|grant| grant.number == number);
            let lu = grant.ok_or(PoolError::NoPlace(number))?.lu;
            (lu, tables[home.disk as usize].label.group)
        };
        let mut stale = self.stale_groups(lu);
        // Where nobody knows whether the disks say that it is current, they are told.
        if stale.contains(&group) && !self.undecided.borrow().contains(&(lu, group)) {
            // It was being brought up to date.
            self.shared.places.mark(number, home, (State::Whole, State::Broken));
            return Ok(());
        }
        let is_whole = |other: &u16| {
            let is_such = |copy: Copy| copy.group == *other && copy.state == State::Whole;
            *other != group && self.all_slabs(lu, is_such)
        };
        let whole: Vec<u16> = self.groups().into_iter().filter(is_whole).collect();
        if whole.is_empty() {
            return Err(PoolError::LastCopy { disk: self.name_of(home.disk) });
        }
        // One that was stale may have everything again, and nobody has said so yet.
        let caught_up = stale.extract_if(.., |other| whole.contains(other));
        let caught_up: Vec<([u8; 16], u16)> = caught_up.map(|other| (lu, other)).collect();
        let age = self.next_age(lu)?;
        self.note(vec![(lu, Some(age))]).await?;
        stale.push(group);
        let current = self.groups().into_iter().filter(|group| !stale.contains(group));
        self.undecided.borrow_mut().extend(&caught_up);
        self.set_age(lu, age, &current.collect::<Vec<_>>()).await?;
        self.undecided.borrow_mut().retain(|it| !caught_up.contains(it));
        if let Some(granted) = self.lus.borrow_mut().get_mut(&lu) {
            granted.stale.retain(|other| !caught_up.contains(&(lu, *other)));
        }
        self.take_out(lu, group);
        self.undecided.borrow_mut().remove(&(lu, group));
        // It is known already, but the stale copy may be all that is found one day.
        let _ = self.set_age(lu, STALE, &[group]).await;
        Ok(())
    }

    /// The LU's copy in this group has everything, durably.
    pub async fn mark_current(&self, lu: [u8; 16], group: u16) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        if !self.all_slabs(lu, |copy| copy.group == group && copy.state == State::Whole) {
            return Err(PoolError::NotWhole(lu));
        }
        self.undecided.borrow_mut().insert((lu, group));
        self.set_age(lu, self.age(lu), &[group]).await?;
        self.undecided.borrow_mut().remove(&(lu, group));
        let is_last = {
            let mut lus = self.lus.borrow_mut();
            let granted = lus.get_mut(&lu).ok_or(PoolError::NoLu(lu))?;
            granted.stale.retain(|other| *other != group);
            granted.stale.is_empty()
        };
        if is_last {
            // All are the same from here on, whichever of them are found.
            self.note(vec![(lu, None)]).await?;
            self.set_age(lu, 0, &self.groups()).await?;
        }
        Ok(())
    }

    /// Waits until copies may lack something. False: the pool was closed.
    pub async fn lacking(&self) -> bool {
        self.mending.until(|| self.may_lack.get() || self.is_closed()).await;
        self.may_lack.set(false);
        !self.is_closed()
    }

    /// Whoever brings copies up to date looks whether they lack something.
    pub fn look_at_copies(&self) {
        self.may_lack.set(true);
        self.mending.notify();
    }

    /// Slabs of an LU that are not whole in a failure group where they could be: how many, and some
    /// of them.
    pub fn lacks(&self, lu: [u8; 16], most: usize) -> (usize, Vec<(u32, u16)>) {
        let groups: Vec<u16> = {
            let tables = self.tables.borrow();
            let takes = |group: &u16| {
                tables.iter().any(|table| table.label.group == *group && table.takes())
            };
            groups_of(&tables).into_iter().filter(takes).collect()
        };
        let slabs = self.granted(lu).unwrap_or_default().slabs;
        let all = slabs.iter().flat_map(|slab| groups.iter().map(|group| (*slab, *group)));
        let mut lacking = all.filter(|(slab, group)| {
            let is_such = |copy: Copy| copy.group == *group && copy.state == State::Whole;
            !self.shared.places.all(*slab).any(is_such)
        });
        let some: Vec<(u32, u16)> = lacking.by_ref().take(most).collect();
        (lacking.count() + some.len(), some)
    }

    /// Says of failure groups that have everything that they do, durably: from then on the pool can
    /// be opened with any of them alone.
    pub async fn settle_groups(&self) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let behind = self.note_whole_groups();
        // In case this fails others are tried with them.
        let written = self.write_labels(&behind).await;
        if written.is_err() {
            let mut tables = self.tables.borrow_mut();
            behind.iter().for_each(|disk| tables[*disk as usize].label.is_behind = true);
        }
        written
    }

    /// The same in memory only. Gives the disks of those groups that were behind.
    pub(super) fn note_whole_groups(&self) -> Vec<u32> {
        let is_behind = |disk: &u32| self.tables.borrow()[*disk as usize].label.is_behind;
        let mut behind: Vec<u32> = self.members().into_iter().filter(is_behind).collect();
        behind.retain(|disk| self.has_everything(self.group_of(*disk)));
        let mut tables = self.tables.borrow_mut();
        behind.iter().for_each(|disk| tables[*disk as usize].label.is_behind = false);
        behind
    }

    /// Groups whose disks have changed are behind, unless they have everything.
    pub(super) fn note_groups_behind(&self) {
        for disk in self.members() {
            let is_behind = !self.has_everything(self.group_of(disk));
            self.tables.borrow_mut()[disk as usize].label.is_behind = is_behind;
        }
    }

    fn group_of(&self, disk: u32) -> u16 {
        self.tables.borrow()[disk as usize].label.group
    }

    /// Whether all of every LU is in this failure group.
    fn has_everything(&self, group: u16) -> bool {
        let is_whole = |copy: Copy| copy.group == group && copy.state == State::Whole;
        let is_stale = |granted: &Granted| granted.stale.contains(&group);
        let lus = self.lus.borrow();
        let mut lus_here = lus.iter();
        lus_here.all(|(lu, granted)| !is_stale(granted) && self.all_slabs(*lu, is_whole))
    }

    /// Whether each slab of an LU has such a copy.
    fn all_slabs(&self, lu: [u8; 16], is_such: impl Fn(Copy) -> bool) -> bool {
        let lus = self.lus.borrow();
        let mut slabs = lus.get(&lu).into_iter().flat_map(|granted| &granted.slabs);
        slabs.all(|slab| self.shared.places.all(*slab).any(&is_such))
    }

    async fn note(&self, all: Vec<([u8; 16], Option<u16>)>) -> Result<(), PoolError> {
        let registry = self.registry.borrow().clone();
        let Some(registry) = registry else { return Ok(()) };
        registry.note(all).await.map_err(PoolError::Registry)
    }

    /// Nothing is read or written in this copy any more.
    fn take_out(&self, lu: [u8; 16], group: u16) {
        let mut lus = self.lus.borrow_mut();
        let Some(granted) = lus.get_mut(&lu) else { return };
        for &number in &granted.slabs {
            for copy in self.shared.places.all(number).filter(|copy| copy.group == group) {
                for state in [State::Whole, State::Filling] {
                    self.shared.places.mark(number, copy.home, (state, State::Broken));
                }
            }
        }
        granted.stale.push(group);
        granted.stale.sort_unstable();
        granted.stale.dedup();
        drop(lus);
        self.look_at_copies();
    }

    /// The highest age of an LU's copies.
    fn age(&self, lu: [u8; 16]) -> u16 {
        let tables = self.tables.borrow();
        let ages = self.firsts(&tables, lu).into_iter().map(|(_, grant)| grant.age);
        ages.filter(|age| *age != STALE).max().unwrap_or(0)
    }

    fn next_age(&self, lu: [u8; 16]) -> Result<u16, PoolError> {
        let next = self.age(lu).checked_add(1).filter(|age| *age != STALE);
        next.ok_or(PoolError::TooOld(lu))
    }

    /// Where the LU's first slab is granted.
    fn firsts(&self, tables: &[Table], lu: [u8; 16]) -> Vec<(Home, Grant)> {
        let first = self.lus.borrow().get(&lu).and_then(|granted| granted.first);
        let all = first.into_iter().flat_map(|first| self.shared.places.all(first));
        all.filter_map(|copy| Some((copy.home, grant_at(tables, copy.home)?))).collect()
    }

    /// Sets the age of the copies in these groups, durably. Where that fails they have it or not,
    /// and what is written next says what they had.
    async fn set_age(&self, lu: [u8; 16], age: u16, groups: &[u16]) -> Result<(), PoolError> {
        let before = self.with_age(lu, age, groups);
        let written = self.write_changed(before.iter().map(|(home, _)| *home)).await;
        if written.is_err() {
            let mut tables = self.tables.borrow_mut();
            for (home, grant) in before {
                tables[home.disk as usize].slabs[home.index as usize] = Slab::Granted(grant);
            }
        }
        written
    }

    /// The same, to be written; gives what was there.
    fn with_age(&self, lu: [u8; 16], age: u16, groups: &[u16]) -> Vec<(Home, Grant)> {
        let mut tables = self.tables.borrow_mut();
        let mut firsts = self.firsts(&tables, lu);
        firsts.retain(|(home, _)| groups.contains(&tables[home.disk as usize].label.group));
        for (home, grant) in &firsts {
            let slab = Slab::Granted(Grant { age, ..*grant });
            tables[home.disk as usize].slabs[home.index as usize] = slab;
        }
        firsts
    }

    /// When all tables were read: which copies are stale, as they or whoever else knows it say, and
    /// are not to be read.
    pub(super) fn find_stale(&self) {
        let registry = self.registry.borrow().clone();
        let lus: Vec<[u8; 16]> = self.lus.borrow().keys().copied().collect();
        for lu in lus {
            let known = registry.as_ref().map_or(0, |registry| registry.age(lu));
            let newest = self.age(lu).max(known);
            let firsts: Vec<(u16, u16)> = {
                let tables = self.tables.borrow();
                let group = |home: Home| tables[home.disk as usize].label.group;
                let firsts = self.firsts(&tables, lu);
                firsts.into_iter().map(|(home, grant)| (group(home), grant.age)).collect()
            };
            for group in self.groups() {
                if !firsts.contains(&(group, newest)) {
                    self.take_out(lu, group);
                }
            }
        }
    }

    /// What a disk says of a slab that was missing when the pool was used: it has a copy that may
    /// lack something, if the slab is still what it was. False: the slab is nobody's.
    pub(super) fn take_outdated(&self, tables: &[Table], grant: &Grant, home: Home) -> bool {
        let group = tables[home.disk as usize].label.group;
        let known: Vec<Copy> = self.shared.places.all(grant.number).collect();
        let is_same = |copy: &Copy| {
            let there = grant_at(tables, copy.home);
            let is_its = there.is_some_and(|it| (it.lu, it.is_first) == (grant.lu, grant.is_first));
            is_its && copy.group != group
        };
        let is_still = !known.is_empty() && known.iter().all(is_same);
        let copy = Copy { home, group, state: State::Broken };
        is_still && self.shared.places.add(grant.number, copy)
    }

    /// Says of copies on disks that were missing that they are stale, before those disks are taken
    /// for others again, and writes the tables of these anew.
    pub(super) async fn mark_outdated(&self) -> Result<(), PoolError> {
        let outdated: Vec<u32> = {
            let is_outdated = |disk: &u32| self.tables.borrow()[*disk as usize].is_outdated;
            self.members().into_iter().filter(is_outdated).collect()
        };
        let lus: Vec<[u8; 16]> = self.lus.borrow().keys().copied().collect();
        let mut younger = Vec::new();
        for lu in lus {
            let stale = self.stale_groups(lu);
            let is_broken = |group: u16| {
                let is_such = |copy: Copy| copy.group == group && copy.state == State::Broken;
                self.any_slab(lu, is_such)
            };
            let groups = self.groups().into_iter().filter(|group| !stale.contains(group));
            let broken: Vec<u16> = groups.filter(|group| is_broken(*group)).collect();
            if !broken.is_empty() {
                broken.iter().for_each(|group| self.take_out(lu, *group));
                younger.push((lu, self.next_age(lu)?, broken));
            }
        }
        self.note(younger.iter().map(|(lu, age, _)| (*lu, Some(*age))).collect()).await?;
        let mut changed = Vec::new();
        for (lu, age, broken) in younger {
            changed.extend(self.with_age(lu, STALE, &broken));
            let stale = self.stale_groups(lu);
            let current = self.groups().into_iter().filter(|group| !stale.contains(group));
            changed.extend(self.with_age(lu, age, &current.collect::<Vec<_>>()));
        }
        self.write_changed(changed.into_iter().map(|(home, _)| home)).await?;
        let all = outdated.iter().flat_map(|&disk| {
            let slabs = 0..self.layout(disk).slabs();
            slabs.step_by(GRANTS_PER_PAGE as usize).map(move |index| Home { disk, index })
        });
        self.write_changed(all.collect::<Vec<_>>().into_iter()).await?;
        let mut tables = self.tables.borrow_mut();
        outdated.iter().for_each(|disk| tables[*disk as usize].is_outdated = false);
        Ok(())
    }

    fn any_slab(&self, lu: [u8; 16], is_such: impl Fn(Copy) -> bool) -> bool {
        let lus = self.lus.borrow();
        let mut slabs = lus.get(&lu).into_iter().flat_map(|granted| &granted.slabs);
        slabs.any(|slab| self.shared.places.all(*slab).any(&is_such))
    }
}

pub(super) fn groups_of(tables: &[Table]) -> Vec<u16> {
    let own = tables.iter().filter(|table| table.standing != Standing::Gone);
    let mut groups: Vec<u16> = own.map(|table| table.label.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}
