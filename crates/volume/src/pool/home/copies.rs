//! Another place for a slab, and one less: what the pool does of it. Its LU brings the blocks
//! there, and says when.
//!
//! A new place is nobody's on disk until everything is there. Then it is granted, with a generation
//! higher than that of the one in the same failure group, if it is there in its stead; and that one
//! is taken back. Whoever opens the pool in between finds two of one group, and goes on with the
//! new one.

use std::collections::BTreeSet;

use super::super::places::{Copy, Home, State};
use super::super::slabs::{Grant, Slab};
use super::stale::{LACKING, STALE};
use super::table::Table;
use super::{Pool, PoolError};

/// Where another place of a slab is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whither {
    /// In the stead of the one on this disk: on that one, or the roomiest of the same group.
    From { disk: u32, to: Option<u32> },
    /// In this failure group, where it has none.
    Group(u16),
}

impl Pool {
    /// Takes another place for a slab of an LU. From now on it is written there too.
    pub async fn begin_place(
        &self,
        lu: [u8; 16],
        number: u32,
        whither: Whither,
    ) -> Result<Home, PoolError> {
        let _changing = self.changing().await;
        let mut tables = self.tables.borrow_mut();
        self.grant_of(&tables, lu, number)?;
        let (group, has) = match whither {
            Whither::From { disk, .. } => (tables[disk as usize].label.group, 1),
            Whither::Group(group) => (group, 0),
        };
        // The grant of another one may be on its disk, or not: it is written there too.
        if self.shared.places.all(number).filter(|copy| copy.group == group).count() != has {
            return Err(PoolError::TwoPlaces(number));
        }
        let may_be = |disk: &u32| match whither {
            Whither::From { disk: from, to } => *disk != from && to.is_none_or(|to| to == *disk),
            Whither::Group(_) => true,
        };
        let is_of_group = |disk: &u32| tables[*disk as usize].label.group == group;
        let room = |disk: &u32| tables[*disk as usize].room();
        let disks = (0..tables.len() as u32).filter(|disk| is_of_group(disk) && may_be(disk));
        let disk = disks.filter(|disk| room(disk) > 0).max_by_key(room).ok_or(PoolError::Full)?;
        let index = tables[disk as usize].take(|generation| Slab::Filling { generation });
        let home = Home { disk, index: index.expect("one is free") };
        self.shared.places.add(number, Copy { home, group, state: State::Filling });
        Ok(home)
    }

    /// The new place has everything, durably: it is granted, durably too. Where that fails, the
    /// grant may be on its disk or not: see [`Pool::retract_place`].
    pub async fn commit_place(&self, lu: [u8; 16], number: u32, to: Home) -> Result<(), PoolError> {
        let granted = self.change(|tables| {
            let Ok(known) = self.grant_of(tables, lu, number) else { return Vec::new() };
            let group = tables[to.disk as usize].label.group;
            let stead = self.shared.places.all(number).filter(|copy| copy.group == group);
            let stead = stead.filter_map(|copy| grant_at(tables, copy.home)).next();
            let age = stead.map_or_else(|| self.first_age(tables, lu, group), |grant| grant.age);
            // Its group may have left meanwhile.
            let Some(slab) = tables[to.disk as usize].slabs.get_mut(to.index as usize) else {
                return Vec::new();
            };
            let before = stead.map_or(0, |grant| grant.generation);
            let retracted = self.retracted.borrow().get(&number).copied().unwrap_or_default();
            let generation = slab.generation().max(before).max(retracted) + 1;
            *slab = Slab::Granted(Grant { generation, age, ..known });
            vec![(to, ())]
        });
        granted.await?.pop().ok_or(PoolError::NoLu(lu))
    }

    /// The age of a copy of which this is the first that is there: it lacks others.
    fn first_age(&self, tables: &[Table], lu: [u8; 16], group: u16) -> u32 {
        let has_missed = |copy: Copy| copy.group == group && copy.state == State::Broken;
        if self.any_slab(lu, has_missed) {
            return STALE;
        }
        // Whoever misses something there makes the others older.
        self.undecided.borrow_mut().insert((lu, group));
        self.age_in(tables, lu) | LACKING
    }

    /// A place that could not be granted does not count, whatever is on its disk: the one in the
    /// same group has a higher generation from now on, or the next one that comes there.
    pub async fn retract_place(&self, number: u32, to: Home) -> Result<(), PoolError> {
        let retracted = self.change(|tables| {
            let table = &mut tables[to.disk as usize];
            let group = table.label.group;
            // None: its group has left.
            let Some(slab) = table.slabs.get_mut(to.index as usize) else { return Vec::new() };
            let generation = slab.generation();
            if let Slab::Granted(_) = slab {
                *slab = Slab::Filling { generation };
            }
            self.retracted.borrow_mut().insert(number, generation);
            let mut stead = self.shared.places.all(number).filter(|copy| copy.group == group);
            let stead = stead.find(|copy| copy.home != to);
            let Some(home) = stead.map(|copy| copy.home) else { return Vec::new() };
            match &mut tables[home.disk as usize].slabs[home.index as usize] {
                Slab::Granted(grant) => grant.generation = grant.generation.max(generation) + 1,
                Slab::Free { .. } | Slab::Filling { .. } => return Vec::new(),
            }
            vec![(home, ())]
        });
        retracted.await.map(drop)
    }

    /// The same of those of an LU's slabs of which it is not known whether it was done: it is when
    /// this returns, and they are written again.
    pub async fn retract_again(&self, slabs: BTreeSet<u32>) -> Result<(), PoolError> {
        let places = &self.shared.places;
        for number in slabs.into_iter().filter(|number| places.is_stopped(*number)) {
            let homes = |_: &mut Vec<Table>| places.all(number).map(|it| (it.home, ())).collect();
            self.change(homes).await?;
            places.go_on(number);
        }
        Ok(())
    }

    /// Nobody is on the way to the place that the slab has left.
    pub async fn end_place(&self, lu: [u8; 16], number: u32, from: Home) -> Result<(), PoolError> {
        let freed = self.change(|tables| {
            let table = &mut tables[from.disk as usize];
            if !table.is_granted(from.index, (lu, number)) {
                return Vec::new();
            }
            table.free(from.index);
            vec![(from, ())]
        });
        freed.await.map(drop)
    }

    /// The slab stays where it is, and nobody is on the way to the other place.
    pub async fn abort_place(&self, to: Home) {
        let _changing = self.changing().await;
        let table = &mut self.tables.borrow_mut()[to.disk as usize];
        if let Some(Slab::Filling { .. }) = table.slabs.get(to.index as usize) {
            table.free(to.index);
        }
    }

    /// What is granted of a slab of an LU, at one of its places.
    fn grant_of(&self, tables: &[Table], lu: [u8; 16], number: u32) -> Result<Grant, PoolError> {
        let grants = self.shared.places.all(number).filter_map(|copy| grant_at(tables, copy.home));
        let mut own = grants.filter(|grant| (grant.lu, grant.number) == (lu, number));
        own.next().ok_or(PoolError::NoLu(lu))
    }
}

pub(super) fn grant_at(tables: &[Table], home: Home) -> Option<Grant> {
    match tables.get(home.disk as usize)?.slabs.get(home.index as usize)? {
        Slab::Granted(grant) => Some(*grant),
        Slab::Free { .. } | Slab::Filling { .. } => None,
    }
}
