//! Copies that have missed something.
//!
//! An LU has a copy in each failure group. Of each copy an age is known, kept with the grant of the
//! LU's first slab there: the highest one is that of those that have everything. A copy that misses
//! a write is marked before the write is answered: all others become older, durably on their disks
//! and in whatever keeps records of the pool, so that it is known also by who finds nothing but the
//! stale copy. One that has been brought up to date gets the age of the others.

use std::ops::RangeInclusive;
use std::pin::Pin;

use block::Error;

use super::super::owner::ALL_REGIONS;
use super::super::places::{Copy, Home, State};
use super::super::slabs::{Grant, Slab};
use super::copies::grant_at;
use super::table::Table;
use super::{Granted, Pool, PoolError};

/// The age of a copy that says of itself that it is stale.
pub(super) const STALE: u32 = u32::MAX;

/// The copy has slabs that are as good as those of this age, and lacks others.
pub(super) const LACKING: u32 = 1 << 31;

/// So much higher are epochs and ages of what is forced than any that are known: others may have
/// gone on elsewhere.
pub(super) const STEP: u32 = 1 << 16;

/// A failure group that lacks some slabs of those that LUs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBehind {
    pub group: u16,
    pub slabs: u64,
    pub lacking: u64,
}

/// Something to wait for, on the pool's core.
pub type Noted<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Remembers, beside the disks, which copies have missed something.
pub trait Registry {
    /// Copies of this LU that are younger than this are stale; 0: nothing is known of any.
    fn age(&self, lu: [u8; 16]) -> u32;

    /// The same is known of these LUs from now on, durably when it is done. None: all copies are
    /// the same again.
    fn note(&self, all: Vec<([u8; 16], Option<u32>)>) -> Noted<'_>;

    /// Each label has one of these epochs, but those of disks that are not here: known durably when
    /// it is done.
    fn epochs(&self, all: RangeInclusive<u64>) -> Noted<'_>;
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
        let has_all = |group: &u16| !granted.stale.contains(group) && self.is_all_here(*group);
        match self.groups().iter().any(has_all) {
            true => Ok(()),
            false => Err(PoolError::NoCopy(lu)),
        }
    }

    /// Something could not be written at this place of a slab: the LU's copy there is not read any
    /// more, by anybody and whatever happens, when this is done. An error: no other copy has
    /// everything, or it cannot be said.
    pub async fn mark_stale(&self, number: u32, home: Home) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let is_here = self.tables.borrow()[home.disk as usize].is_here();
        if !is_here && self.shared.places.state(number, home).is_none() {
            // Nobody looks there any more.
            return Ok(());
        }
        let (lu, group) = {
            let tables = self.tables.borrow();
            let grant = grant_at(&tables, home).filter(|grant| grant.number == number);
            let lu = grant.ok_or(PoolError::NoPlace(number))?.lu;
            (lu, tables[home.disk as usize].label.group)
        };
        let stale = self.stale_groups(lu);
        // Where nobody knows whether the disks say that it is current, they are told.
        if stale.contains(&group) && !self.undecided.borrow().contains(&(lu, group)) {
            // It was being brought up to date.
            self.break_place(number, home);
            return Ok(());
        }
        // One that was stale and has everything by now counts from here on.
        let mut others = self.groups();
        others.retain(|other| *other != group);
        let trusted = self.to_trust(lu, &others);
        let is_whole = |other: &u16| self.is_whole_in(lu, *other) || Some(*other) == trusted;
        let whole: Vec<u16> = others.iter().copied().filter(is_whole).collect();
        if whole.is_empty() {
            return Err(PoolError::LastCopy { disk: self.name_of(home.disk) });
        }
        others.retain(|other| whole.contains(other) || !stale.contains(other));
        let _ending = self.end_doubt(&[lu], &others).await?;
        let age = self.next_age(lu)?;
        self.note(vec![(lu, Some(age))]).await?;
        self.set_current(lu, age, &others).await?;
        self.take_out(lu, group);
        self.trust(lu, trusted);
        self.undecided.borrow_mut().remove(&(lu, group));
        // It is known already, but the stale copy may be all that is found one day.
        let _ = self.set_age(lu, STALE, &[group]).await;
        Ok(())
    }

    /// The copies in these groups have this age, durably, and are not stale.
    async fn set_current(&self, lu: [u8; 16], age: u32, groups: &[u16]) -> Result<(), PoolError> {
        let is_stale = |group: &u16| self.stale_groups(lu).contains(group);
        let stale: Vec<_> = groups.iter().filter(|it| is_stale(it)).map(|it| (lu, *it)).collect();
        self.undecided.borrow_mut().extend(stale.iter().copied());
        self.set_age(lu, age, groups).await?;
        self.undecided.borrow_mut().retain(|it| !stale.contains(it));
        if let Some(granted) = self.lus.borrow_mut().get_mut(&lu) {
            granted.stale.retain(|group| !groups.contains(group));
        }
        Ok(())
    }

    /// The LU's copy in this group has everything, durably.
    pub async fn mark_current(&self, lu: [u8; 16], group: u16) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        if !self.is_whole_in(lu, group) {
            return Err(PoolError::NotWhole(lu));
        }
        self.set_current(lu, self.age(lu), &[group]).await?;
        // One that is not here may be older.
        if self.stale_groups(lu).is_empty() && self.absent() == 0 {
            self.note(vec![(lu, None)]).await?;
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
        let groups = self.groups_to_fill();
        let slabs = self.granted(lu).unwrap_or_default().slabs;
        let all = slabs.iter().flat_map(|slab| groups.iter().map(|group| (*slab, *group)));
        let mut lacking = all.filter(|(slab, group)| !self.is_whole(*slab, *group));
        let some: Vec<(u32, u16)> = lacking.by_ref().take(most).collect();
        (lacking.count() + some.len(), some)
    }

    /// Failure groups in which something is missing that could be there, or was until now: of so
    /// many slabs of LUs, so many.
    pub fn behind(&self) -> Vec<GroupBehind> {
        let lus = self.lus.borrow();
        let is_stale = |group: u16| lus.values().any(|granted| granted.stale.contains(&group));
        let is_labelled = |group: u16| {
            let tables = self.tables.borrow();
            tables.iter().any(|it| it.is_here() && it.label.group == group && it.label.is_behind)
        };
        let of = |group: u16| {
            let slabs = || lus.values().flat_map(|granted| &granted.slabs);
            let lacking = slabs().filter(|slab| !self.is_whole(**slab, group)).count() as u64;
            GroupBehind { group, slabs: slabs().count() as u64, lacking }
        };
        // Of others nobody has to look at every slab. One that lacks nothing any more counts until
        // that is said on its disks: before, the pool cannot be without the others.
        let behind =
            self.groups_to_fill().into_iter().filter(|it| is_stale(*it) || is_labelled(*it));
        behind.map(of).collect()
    }

    /// Failure groups that slabs can be brought to, as far as there is room.
    fn groups_to_fill(&self) -> Vec<u16> {
        let tables = self.tables.borrow();
        let takes = |group: &u16| tables.iter().any(|it| it.label.group == *group && it.takes());
        groups_of(&tables).into_iter().filter(takes).collect()
    }

    /// Whether everything of a slab is in a failure group.
    pub(in super::super) fn is_whole(&self, slab: u32, group: u16) -> bool {
        let is_such = |copy: Copy| copy.group == group && copy.state == State::Whole;
        self.shared.places.all(slab).any(is_such)
    }

    /// Says of failure groups that have everything that they do, durably: from then on the pool can
    /// be opened with any of them alone.
    pub async fn settle_groups(&self) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let behind = self.note_whole_groups();
        // In case this fails others are tried with them.
        let written = self.write_labels(&behind).await.map_err(|(_, error)| error);
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
        for disk in &behind {
            let label = &mut tables[*disk as usize].label;
            (label.is_behind, label.as_of) = (false, None);
        }
        behind
    }

    /// A group whose disks have changed is behind, unless it has everything. One that the pool was
    /// forced with is not, until others are here.
    pub(super) fn note_behind(&self, group: u16) {
        let (is_behind, is_forced) = (!self.has_everything(group), self.waits_for_others());
        for disk in self.members() {
            let label = &mut self.tables.borrow_mut()[disk as usize].label;
            if label.group == group {
                label.is_behind = is_behind && (label.is_behind || !is_forced);
                label.as_of = label.as_of.filter(|_| is_behind);
            }
        }
    }

    pub(super) fn group_of(&self, disk: u32) -> u16 {
        self.tables.borrow()[disk as usize].label.group
    }

    /// Whether all of every LU is in this failure group.
    pub(super) fn has_everything(&self, group: u16) -> bool {
        let is_stale = |granted: &Granted| granted.stale.contains(&group);
        let lus = self.lus.borrow();
        let mut lus_here = lus.iter();
        lus_here.all(|(lu, granted)| !is_stale(granted) && self.is_whole_in(*lu, group))
    }

    /// Whether every slab of an LU has a good place in this group.
    pub(super) fn is_whole_in(&self, lu: [u8; 16], group: u16) -> bool {
        self.all_slabs(lu, |copy| copy.group == group && copy.state == State::Whole)
    }

    /// Whether every slab of an LU has such a place.
    pub(super) fn all_slabs(&self, lu: [u8; 16], is_such: impl Fn(Copy) -> bool) -> bool {
        let lus = self.lus.borrow();
        let mut slabs = lus.get(&lu).into_iter().flat_map(|granted| &granted.slabs);
        slabs.all(|slab| self.shared.places.all(*slab).any(&is_such))
    }

    pub(super) async fn note(&self, all: Vec<([u8; 16], Option<u32>)>) -> Result<(), PoolError> {
        let registry = self.registry.borrow().clone();
        let Some(registry) = registry else { return Ok(()) };
        registry.note(all).await.map_err(PoolError::Registry)
    }

    /// Nothing is read or written in this copy any more.
    pub(super) fn take_out(&self, lu: [u8; 16], group: u16) {
        let mut lus = self.lus.borrow_mut();
        let Some(granted) = lus.get_mut(&lu) else { return };
        for &number in &granted.slabs {
            for copy in self.shared.places.all(number).filter(|copy| copy.group == group) {
                self.break_place(number, copy.home);
            }
        }
        granted.stale.push(group);
        granted.stale.sort_unstable();
        granted.stale.dedup();
        drop(lus);
        self.look_at_copies();
    }

    /// The place has missed something, whatever it was.
    fn break_place(&self, number: u32, home: Home) {
        for state in [State::Whole, State::Filling, State::Doubtful] {
            self.shared.places.mark(number, home, (state, State::Broken));
        }
    }

    /// The highest age of an LU's copies.
    pub(super) fn age(&self, lu: [u8; 16]) -> u32 {
        self.age_in(&self.tables.borrow(), lu)
    }

    pub(super) fn age_in(&self, tables: &[Table], lu: [u8; 16]) -> u32 {
        highest(self.firsts(tables, lu).into_iter().map(|(_, grant)| grant.age))
    }

    /// The same of copies that say this, as whoever else knows of it says. That counts where
    /// disks are not here: otherwise who kept a higher age died before any copy had it, and so
    /// before anybody went on without another one.
    pub(super) fn newest_age(&self, lu: [u8; 16], said: impl Iterator<Item = u32>) -> u32 {
        let said = highest(said);
        if self.absent() == 0 {
            return said;
        }
        said.max(self.noted_age(lu))
    }

    /// That of which whoever keeps records beside the disks knows.
    pub(super) fn noted_age(&self, lu: [u8; 16]) -> u32 {
        self.registry.borrow().as_ref().map_or(0, |registry| registry.age(lu))
    }

    /// Failure groups where the LU has no first slab do not have everything.
    pub(super) fn note_lacking(&self, lu: [u8; 16]) {
        let has: Vec<u16> = {
            let tables = self.tables.borrow();
            let group = |home: Home| tables[home.disk as usize].label.group;
            self.firsts(&tables, lu).into_iter().map(|(home, _)| group(home)).collect()
        };
        let lacking = self.groups().into_iter().filter(|group| !has.contains(group));
        lacking.for_each(|group| self.is_lacking(lu, group));
    }

    pub(super) fn note_all_lacking(&self) {
        let lus: Vec<[u8; 16]> = self.lus.borrow().keys().copied().collect();
        lus.into_iter().for_each(|lu| self.note_lacking(lu));
    }

    /// Says of copies in this group that lack slabs that they do, durably.
    pub(super) async fn mark_lacking(&self, group: u16) -> Result<(), PoolError> {
        let lus: Vec<[u8; 16]> = self.lus.borrow().keys().copied().collect();
        for lu in lus {
            if !self.stale_groups(lu).contains(&group) && !self.is_whole_in(lu, group) {
                self.say_lacking(lu, group).await?;
            }
        }
        Ok(())
    }

    async fn say_lacking(&self, lu: [u8; 16], group: u16) -> Result<(), PoolError> {
        self.is_lacking(lu, group);
        self.set_age(lu, self.age(lu) | LACKING, &[group]).await
    }

    /// A crash may have cut short how a slab was granted, or given back. Of copies that count those
    /// lack it that do not know of it, and say so, durably, if another one has everything. Either
    /// way the pool cannot be without the others before it has been brought there.
    pub(super) async fn mark_half_granted(&self) -> Result<(), PoolError> {
        for (lu, granted) in self.lus() {
            let counts = |group: &u16| !granted.stale.contains(group) && self.is_all_here(*group);
            let counting = self.groups().into_iter().filter(counts);
            let (whole, lacking): (Vec<u16>, Vec<u16>) =
                counting.partition(|group| self.is_whole_in(lu, *group));
            // What has no first slab is no LU, and nobody brings it anywhere.
            for group in lacking.into_iter().filter(|_| granted.first.is_some()) {
                if !whole.is_empty() {
                    self.say_lacking(lu, group).await?;
                }
                self.note_behind(group);
            }
        }
        Ok(())
    }

    /// Says of copies that have missed something, and do not say so, that they are stale: of LUs of
    /// which no other one is here, before nobody waits for that any more.
    pub(super) async fn mark_last_stale(&self) -> Result<(), PoolError> {
        for (lu, granted) in self.lus() {
            if self.must_have_copy(lu, &granted).is_ok() {
                continue;
            }
            let silent: Vec<u16> = {
                let tables = self.tables.borrow();
                let firsts = self.firsts(&tables, lu).into_iter();
                let silent = firsts.filter(|(_, grant)| grant.age < LACKING);
                silent.map(|(home, _)| tables[home.disk as usize].label.group).collect()
            };
            let is_stale = |group: &u16| granted.stale.contains(group);
            let silent: Vec<u16> = silent.into_iter().filter(is_stale).collect();
            self.set_age(lu, STALE, &silent).await?;
        }
        Ok(())
    }

    /// A copy does not have everything. What it has is good, until it misses something.
    fn is_lacking(&self, lu: [u8; 16], group: u16) {
        if let Some(granted) = self.lus.borrow_mut().get_mut(&lu)
            && !granted.stale.contains(&group)
        {
            granted.stale.push(group);
            granted.stale.sort_unstable();
            self.undecided.borrow_mut().insert((lu, group));
        }
    }

    pub(super) fn next_age(&self, lu: [u8; 16]) -> Result<u32, PoolError> {
        age_after(lu, self.age(lu).max(self.doubted_age(lu)), 1)
    }

    /// The highest age that a copy may say of itself on its disk though it does not have it.
    pub(super) fn doubted_age(&self, lu: [u8; 16]) -> u32 {
        let doubted = self.doubted.borrow();
        doubted.iter().filter(|(other, _)| *other == lu).map(|(_, age)| *age).max().unwrap_or(0)
    }

    /// Where the LU's first slab is granted.
    pub(super) fn firsts(&self, tables: &[Table], lu: [u8; 16]) -> Vec<(Home, Grant)> {
        let first = self.lus.borrow().get(&lu).and_then(|granted| granted.first);
        let all = first.into_iter().flat_map(|first| self.shared.places.all(first));
        all.filter_map(|copy| Some((copy.home, grant_at(tables, copy.home)?))).collect()
    }

    /// Sets the age of the copies in these groups, durably. Where that fails they have it or not,
    /// and what is written next says what they had.
    pub(super) async fn set_age(
        &self,
        lu: [u8; 16],
        age: u32,
        groups: &[u16],
    ) -> Result<(), PoolError> {
        let before = self.with_age(lu, age, groups);
        let written = self.write_changed(before.iter().map(|(home, _)| *home)).await;
        if age < LACKING {
            let mut doubted = self.doubted.borrow_mut();
            match written {
                Ok(()) => doubted.retain(|(other, said)| *other != lu || *said > age),
                Err(_) => drop(doubted.insert((lu, age))),
            }
        }
        if written.is_err() {
            let mut tables = self.tables.borrow_mut();
            for (home, grant) in before {
                tables[home.disk as usize].slabs[home.index as usize] = Slab::Granted(grant);
            }
        }
        written
    }

    /// What a disk says that is about to be lost must not count more than those that are left,
    /// where it is not known what it says.
    pub(super) async fn outdo(&self, disk: u32) -> Result<(), PoolError> {
        let (doubted, lost) = (self.doubted.borrow().clone(), self.group_of(disk));
        for (lu, age) in doubted {
            let stale = self.stale_groups(lu);
            let mut others = self.groups();
            others.retain(|it| *it != lost && !stale.contains(it) && self.is_whole_in(lu, *it));
            if !others.is_empty() {
                self.set_age(lu, age, &others).await?;
            }
        }
        Ok(())
    }

    /// The same, to be written; gives what was there.
    pub(super) fn with_age(&self, lu: [u8; 16], age: u32, groups: &[u16]) -> Vec<(Home, Grant)> {
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
        self.find_stale_in(&self.groups());
    }

    /// The same of these groups, as far as it is not known.
    pub(super) fn find_stale_in(&self, groups: &[u16]) {
        let lus: Vec<[u8; 16]> = self.lus.borrow().keys().copied().collect();
        for lu in lus {
            let firsts: Vec<(u16, u32)> = {
                let tables = self.tables.borrow();
                let group = |home: Home| tables[home.disk as usize].label.group;
                let firsts = self.firsts(&tables, lu);
                firsts.into_iter().map(|(home, grant)| (group(home), grant.age)).collect()
            };
            let newest = self.newest_age(lu, firsts.iter().map(|(_, age)| *age));
            let stale = self.stale_groups(lu);
            for &group in groups.iter().filter(|group| !stale.contains(group)) {
                if firsts.contains(&(group, newest | LACKING)) {
                    self.is_lacking(lu, group);
                } else if !firsts.contains(&(group, newest)) {
                    self.take_out(lu, group);
                }
            }
        }
    }

    /// What copies have missed before the pool was opened is not known, before their LU says it.
    pub(super) fn note_lacking_all(&self) {
        let places = &self.shared.places;
        let is_broken = |slab: u32| places.all(slab).any(|copy| copy.state == State::Broken);
        let lus = self.lus.borrow();
        let slabs = lus.values().flat_map(|granted| granted.slabs.iter().copied());
        slabs.filter(|slab| is_broken(*slab)).for_each(|slab| places.touch(slab, ALL_REGIONS));
    }

    pub(super) fn any_slab(&self, lu: [u8; 16], is_such: impl Fn(Copy) -> bool) -> bool {
        let lus = self.lus.borrow();
        let mut slabs = lus.get(&lu).into_iter().flat_map(|granted| &granted.slabs);
        slabs.any(|slab| self.shared.places.all(*slab).any(&is_such))
    }
}

/// The age that copies of an LU have which go on where others have this one.
pub(super) fn age_after(lu: [u8; 16], age: u32, by: u32) -> Result<u32, PoolError> {
    age.checked_add(by).filter(|age| *age < LACKING).ok_or(PoolError::TooOld(lu))
}

/// The groups of disks that have not left.
pub(super) fn groups_of(tables: &[Table]) -> Vec<u16> {
    let own = tables.iter().filter(|table| table.is_here() && !table.label.has_left());
    let mut groups: Vec<u16> = own.map(|table| table.label.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Of ages of copies that have everything.
fn highest(ages: impl Iterator<Item = u32>) -> u32 {
    ages.filter(|age| *age < LACKING).max().unwrap_or(0)
}
