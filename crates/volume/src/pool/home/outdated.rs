//! Disks that were missing when the pool was used. What they say of an LU is outdated, as far as
//! others have a copy with everything: whoever has no such copy has not used the LU, and then it is
//! as it was on those that were missing.
//!
//! A copy has everything if its age is the highest one and all disks of its failure group are
//! there. No LU is opened without one, see [`Pool::must_have_copy`].

use std::collections::BTreeMap;

use super::super::label::Label;
use super::super::owner::ALL_REGIONS;
use super::super::places::{Copy, Home, State};
use super::super::shape::GRANTS_PER_PAGE;
use super::super::slabs::Slab;
use super::copies::grant_at;
use super::stale::STALE;
use super::{Pool, PoolError};

/// How often the pool was used without each of these disks, and without those that others were
/// without.
pub(super) fn outdated(labels: &[&Label]) -> Vec<u16> {
    let mut times: Vec<Option<u16>> = vec![None; labels.len()];
    for time in 0.. {
        let left = || (0..labels.len()).filter(|index| times[*index].is_none());
        let Some(newest) = left().max_by_key(|it| (labels[*it].epoch, labels[*it].missed)) else {
            break;
        };
        let missed = labels[newest].missed.min(labels[newest].epoch);
        let same: Vec<usize> = left().filter(|it| labels[*it].epoch >= missed).collect();
        same.into_iter().for_each(|index| times[index] = Some(time));
    }
    times.into_iter().flatten().collect()
}

/// What the first slabs of LUs say: group and age of each copy.
type Firsts = BTreeMap<[u8; 16], Vec<(u16, u32)>>;

impl Pool {
    /// Takes into account what disks say that were missing, those first that were longest here.
    pub(super) fn settle_outdated(
        &self,
        outdated: &[u32],
        told: &mut dyn FnMut(Result<Home, PoolError>),
    ) {
        let firsts = self.all_firsts();
        let known = self.lus.borrow().clone();
        for &disk in outdated {
            let level = self.tables.borrow()[disk as usize].outdated;
            for home in self.homes_on(disk) {
                let Some(grant) = grant_at(&self.tables.borrow(), home) else { continue };
                if self.shared.places.state(grant.number, home).is_some() {
                    // The only good copy of its LU, which others have not used without it.
                    continue;
                }
                // Of an LU that was removed meanwhile nobody else has anything. Since the pool was
                // forced nobody may have anything of one that was not.
                let is_there = known.get(&grant.lu).is_some_and(|granted| granted.first.is_some());
                match (is_there || self.forced.get() > 0)
                    && level <= self.last_used(grant.lu, &firsts)
                {
                    true => self.settle(home).transpose().into_iter().for_each(&mut *told),
                    false => self.take_outdated(home),
                }
            }
        }
    }

    fn all_firsts(&self) -> Firsts {
        let tables = self.tables.borrow();
        let mut firsts = Firsts::new();
        for table in tables.iter().filter(|table| table.is_here()) {
            for slab in &table.slabs {
                if let Slab::Granted(grant) = slab
                    && grant.is_first
                {
                    firsts.entry(grant.lu).or_default().push((table.label.group, grant.age));
                }
            }
        }
        firsts
    }

    /// What is more outdated than this was missing when the LU was used.
    fn last_used(&self, lu: [u8; 16], firsts: &Firsts) -> u16 {
        let all = firsts.get(&lu).map(Vec::as_slice).unwrap_or_default();
        let newest = self.newest_age(lu, all.iter().map(|(_, age)| *age));
        let groups = all.iter().filter(|(_, age)| *age == newest).map(|(group, _)| *group);
        let tables = self.tables.borrow();
        let whole = groups.filter(|group| self.is_all_here(*group));
        let level = |group: u16| {
            let own = tables.iter().filter(|it| it.is_here() && it.label.group == group);
            own.map(|table| table.outdated).max().unwrap_or(0)
        };
        whole.map(level).min().unwrap_or(u16::MAX)
    }

    /// All disks of a failure group are here.
    pub(super) fn is_all_here(&self, group: u16) -> bool {
        self.absent.borrow().get(&Some(group)).is_none_or(|count| *count == 0)
    }

    /// A slab of a disk that was missing when its LU was used: its copy may lack something, if it
    /// is still what it was. Otherwise it is nobody's.
    pub(super) fn take_outdated(&self, home: Home) {
        let mut tables = self.tables.borrow_mut();
        let Some(grant) = grant_at(&tables, home) else { return };
        let group = tables[home.disk as usize].label.group;
        let known: Vec<Copy> = self.shared.places.all(grant.number).collect();
        let is_same = |copy: &Copy| {
            let there = grant_at(&tables, copy.home);
            let is_its = there.is_some_and(|it| (it.lu, it.is_first) == (grant.lu, grant.is_first));
            is_its && copy.group != group
        };
        let is_still = !known.is_empty() && known.iter().all(is_same);
        let (copy, places) = (Copy { home, group, state: State::Broken }, &self.shared.places);
        let knows = tables[home.disk as usize].label.knows();
        let is_known = places.is_left(grant.number, group)
            || places.is_left_to_anybody(grant.number) && self.knew_missed(grant.lu, knows);
        if !is_still || !places.add(grant.number, copy) {
            tables[home.disk as usize].free(home.index);
        } else if !is_known {
            places.touch(grant.number, ALL_REGIONS);
        }
    }

    /// Says of copies on disks that were missing that they are stale, before those disks are taken
    /// for others again, and writes the tables of these anew.
    pub(super) async fn mark_outdated(&self) -> Result<(), PoolError> {
        let outdated: Vec<u32> = {
            let is_outdated = |disk: &u32| self.tables.borrow()[*disk as usize].outdated > 0;
            self.members().into_iter().filter(is_outdated).collect()
        };
        let lus: Vec<[u8; 16]> = self.lus.borrow().keys().copied().collect();
        let (mut younger, mut alone) = (Vec::new(), Vec::new());
        for lu in lus {
            let stale = self.stale_groups(lu);
            let is_broken = |group: u16| {
                let is_such = |copy: Copy| copy.group == group && copy.state == State::Broken;
                self.any_slab(lu, is_such)
            };
            // What one says that lacks something counts too: that its slabs are of one time.
            let is_said = |group: &u16| {
                !stale.contains(group) || self.undecided.borrow().contains(&(lu, *group))
            };
            let groups = self.groups().into_iter().filter(is_said);
            let broken: Vec<u16> = groups.filter(|group| is_broken(*group)).collect();
            if !broken.is_empty() {
                broken.iter().for_each(|group| self.take_out(lu, *group));
                self.undecided.borrow_mut().retain(|(of, it)| *of != lu || !broken.contains(it));
                let is_last = broken.iter().all(|group| stale.contains(group))
                    && self.groups().iter().all(|it| self.stale_groups(lu).contains(it));
                match is_last {
                    // Nobody is here who would be older.
                    true => alone.push((lu, broken)),
                    false => younger.push((lu, self.next_age(lu)?, broken)),
                }
            }
        }
        self.note(younger.iter().map(|(lu, age, _)| (*lu, Some(*age))).collect()).await?;
        let (mut current, mut stale) = (Vec::new(), Vec::new());
        for (lu, age, broken) in younger {
            stale.extend(self.with_age(lu, STALE, &broken));
            let others = self.stale_groups(lu);
            let groups = self.groups().into_iter().filter(|group| !others.contains(group));
            current.extend(self.with_age(lu, age, &groups.collect::<Vec<_>>()));
        }
        for (lu, broken) in alone {
            stale.extend(self.with_age(lu, STALE, &broken));
        }
        // Those first that can be written.
        for changed in [current, stale] {
            self.write_changed(changed.into_iter().map(|(home, _)| home)).await?;
        }
        let all = outdated.iter().flat_map(|&disk| {
            let slabs = 0..self.layout(disk).slabs();
            slabs.step_by(GRANTS_PER_PAGE as usize).map(move |index| Home { disk, index })
        });
        self.write_changed(all.collect::<Vec<_>>().into_iter()).await?;
        let mut tables = self.tables.borrow_mut();
        outdated.iter().for_each(|disk| tables[*disk as usize].outdated = 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::shape::Shape;
    use super::*;

    fn label((epoch, missed): (u64, u64)) -> Label {
        Label {
            pool: [1; 16],
            origin: [1; 16],
            pool_name: "pool".to_owned(),
            pv: [2; 16],
            members: 1,
            group: 0,
            group_members: 1,
            shape: Shape::default(),
            size: 1 << 30,
            epoch,
            missed,
            is_behind: false,
            becomes: None,
            was: None,
            forces: 0,
            forced: 0,
            as_of: None,
        }
    }

    #[test]
    fn disks_are_as_outdated_as_the_pool_was_used_without_them() {
        let check = |said: &[(u64, u64)], times: &[u16]| {
            let labels: Vec<Label> = said.iter().copied().map(label).collect();
            assert_eq!(outdated(&labels.iter().collect::<Vec<_>>()), times, "{said:?}");
        };
        check(&[], &[]);
        check(&[(5, 0), (6, 0)], &[0, 0]);
        check(&[(5, 0), (6, 6)], &[1, 0]);
        check(&[(9, 7), (6, 5), (4, 2)], &[0, 1, 2]);
        check(&[(9, 7), (6, 4), (4, 2)], &[0, 1, 1]);
        // It makes no sense.
        check(&[(3, 9), (2, 0)], &[0, 1]);
    }
}
