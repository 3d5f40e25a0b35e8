//! Disks that join a pool, and that leave it when nothing is on them any more.
//!
//! Each change has an epoch of its own, so that it is known which labels say how many disks there
//! are. Whoever keeps records of the pool writes them between the two steps of each:
//!
//! | step | a crash behind it leaves |
//! |---|---|
//! | `prepare` | a disk with an empty table, whose label knows of itself; the others do not |
//! | *the records name the disk* | all that are named say, at least the new one, how many there are |
//! | `admit` | all say so |
//! | `dismiss` | one that says that it has left, and others that may not know it yet |
//! | *the records do not name it* | those that are named know it |
//! | `forget` | its labels are gone |

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use super::super::label::Label;
use super::super::shape::Layout;
use super::super::slabs::Slab;
use super::stale::groups_of;
use super::table::{Standing, Table};
use super::{NewDisk, Pool, PoolError, label_of};

/// What a disk of a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    pub pv: [u8; 16],
    pub slabs: u64,
    /// Slabs that LUs can be granted: none of a disk that leaves.
    pub free: u64,
    /// Slabs that LUs have.
    pub used: u64,
}

impl Pool {
    /// Its disks that have not left.
    pub fn disks_used(&self) -> Vec<DiskUse> {
        let tables = self.tables.borrow();
        let of = |table: &Table| DiskUse {
            pv: table.label.pv,
            slabs: table.slabs.len() as u64,
            free: table.room().into(),
            used: table.used().into(),
        };
        tables.iter().filter(|table| is_staying(table)).map(of).collect()
    }

    /// The number of a disk.
    pub fn disk(&self, pv: [u8; 16]) -> Option<u32> {
        let is_it = |disk: &u32| self.tables.borrow()[*disk as usize].label.pv == pv;
        self.members().into_iter().find(is_it)
    }

    /// Makes an empty disk of the pool. Nothing is granted there yet. The epoch that its label gets
    /// is the next one: whoever remembers epochs has written it down.
    pub async fn prepare(&self, disk: impl Into<NewDisk>) -> Result<u32, PoolError> {
        let NewDisk { backing, pv, group } = disk.into();
        let _changing = self.changing().await;
        self.disks()?;
        let size = backing.device(&self.core).geometry().size;
        let layout = Layout::new(self.shape, size)
            .map_err(|error| PoolError::Unfit { disk: backing.name().to_owned(), error })?;
        let name = backing.name().to_owned();
        let label = label_of((self.lineage, &self.name, self.shape), (pv, group, size));
        // Whether it is can be told when it is admitted.
        let label = Label { is_behind: true, ..label };
        let disk = self.shared.add(backing, layout).await;
        let mut table = Table::new(&name, label, layout);
        table.standing = Standing::Leaving;
        self.tables.borrow_mut().push(table);
        self.count_members();
        let prepared = self.label_anew(disk).await;
        match prepared {
            Ok(()) => drop(self.abandoned.borrow_mut().remove(&pv)),
            Err(_) => {
                self.let_go(disk).await;
                self.count_members();
            }
        }
        prepared.map(|()| disk)
    }

    async fn label_anew(&self, disk: u32) -> Result<(), PoolError> {
        self.next_epoch().await?;
        self.blank(&[disk]).await?;
        self.write_labels(&[disk]).await.map_err(|(_, error)| error)
    }

    /// Labels are about to get another epoch. Whoever keeps records of them knows it before.
    pub(super) async fn next_epoch(&self) -> Result<(), PoolError> {
        let next = self.epoch() + 1;
        self.tell_epochs(self.settled.get()..=next).await?;
        self.shared.epoch.store(next, Ordering::Release);
        Ok(())
    }

    /// All labels have the epoch.
    pub(super) async fn settle_epoch(&self) -> Result<(), PoolError> {
        let epoch = self.epoch();
        self.settled.set(epoch);
        self.tell_epochs(epoch..=epoch).await
    }

    async fn tell_epochs(&self, all: RangeInclusive<u64>) -> Result<(), PoolError> {
        let registry = self.registry.borrow().clone();
        let Some(registry) = registry else { return Ok(()) };
        registry.epochs(all).await.map_err(PoolError::Registry)
    }

    /// What was prepared is a disk like all others.
    pub async fn admit(&self, disk: u32) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        self.count_members();
        self.note_behind(self.group_of(disk));
        self.write_all_labels().await?;
        self.settle_epoch().await?;
        self.tables.borrow_mut()[disk as usize].standing = Standing::Member;
        // It may be the first one of its failure group.
        self.note_all_lacking();
        self.look_at_copies();
        self.tell_watcher();
        Ok(())
    }

    /// Grants nothing on a disk any more, or does again.
    pub fn retire(&self, disk: u32, is_leaving: bool) {
        let standing = if is_leaving { Standing::Leaving } else { Standing::Member };
        {
            let table = &mut self.tables.borrow_mut()[disk as usize];
            // Nobody comes back who was dismissed.
            if is_staying(table) {
                table.standing = standing;
            }
        }
        self.tell_watcher();
    }

    /// The slabs that are on a disk, each with its LU.
    pub fn slabs_on(&self, disk: u32) -> Vec<([u8; 16], u32)> {
        let tables = self.tables.borrow();
        let granted = tables[disk as usize].slabs.iter().filter_map(|slab| match slab {
            Slab::Granted(grant) => Some((grant.lu, grant.number)),
            Slab::Free { .. } | Slab::Filling { .. } => None,
        });
        granted.collect()
    }

    /// Says on all disks that this one has left, on which nothing is.
    pub async fn dismiss(&self, disk: u32) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let is_empty = {
            let mut tables = self.tables.borrow_mut();
            let table = &mut tables[disk as usize];
            table.standing = Standing::Leaving;
            table.is_empty()
        };
        let others: Vec<u32> = self.members().into_iter().filter(|it| *it != disk).collect();
        let is_last = !others.iter().any(|it| is_staying(&self.tables.borrow()[*it as usize]));
        if !is_empty || is_last {
            return Err(PoolError::InUse { disk: self.name_of(disk) });
        }
        self.next_epoch().await?;
        self.tables.borrow_mut()[disk as usize].label.members = 0;
        self.write_labels(&[disk]).await.map_err(|(_, error)| error)?;
        self.count_members();
        self.write_labels(&others).await.map_err(|(_, error)| error)?;
        self.settle_epoch().await?;
        self.abandoned.borrow_mut().insert(self.tables.borrow()[disk as usize].label.pv);
        Ok(())
    }

    /// Takes the labels off a disk that was dismissed, and lets go of it.
    pub async fn forget(&self, disk: u32) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let unlabelled = self.unlabel(&[disk]).await;
        self.let_go(disk).await;
        self.tell_watcher();
        unlabelled
    }

    pub(super) async fn let_go(&self, disk: u32) {
        self.tables.borrow_mut()[disk as usize].leave();
        self.shared.remove(disk).await;
    }

    /// Every label is to say how many disks there are that have not left.
    pub(super) fn count_members(&self) {
        let mut tables = self.tables.borrow_mut();
        let groups: Vec<u16> =
            tables.iter().filter(|it| is_staying(it)).map(|table| table.label.group).collect();
        let absent = self.absent.borrow();
        let all = groups.len() as u16 + absent.values().sum::<u16>();
        for Table { label, .. } in tables.iter_mut().filter(|table| is_staying(table)) {
            let here = groups.iter().filter(|group| **group == label.group).count() as u16;
            let absent = absent.get(&Some(label.group)).copied().unwrap_or_default();
            (label.members, label.group_members) = (all, here + absent);
        }
    }

    /// How many of its disks are not here.
    pub fn absent(&self) -> u16 {
        self.absent.borrow().values().sum()
    }

    /// Those that are not here, by their groups as far as those are known.
    pub fn missing(&self) -> Vec<Option<u16>> {
        let absent = self.absent.borrow();
        let of = |(group, count): (&Option<u16>, &u16)| vec![*group; usize::from(*count)];
        absent.iter().flat_map(of).collect()
    }

    /// Whether nobody waits for this disk any more.
    pub fn has_left(&self, pv: [u8; 16]) -> bool {
        self.abandoned.borrow().contains(&pv)
    }

    /// This disk, of this group, which is not here, is not missed any more. The epoch grows, as
    /// when a disk leaves.
    pub async fn abandon(&self, pv: [u8; 16], group: u16) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        if self.has_left(pv) {
            return Ok(());
        }
        let lost = self.lost_disk(pv);
        if let Some(disk) = lost.filter(|disk| self.is_needed(*disk)) {
            return Err(PoolError::LastCopy { disk: self.name_of(disk) });
        }
        let found = {
            let absent = self.absent.borrow();
            let is_missed = |group: &Option<u16>| absent.get(group).is_some_and(|count| *count > 0);
            [Some(group), None].into_iter().find(is_missed)
        };
        let Some(of) = found else { return Ok(()) };
        // Before the group counts as whole again.
        self.mark_lacking(group).await?;
        self.mark_last_stale().await?;
        let count = |more: i16| {
            let mut absent = self.absent.borrow_mut();
            let count = absent.entry(of).or_default();
            *count = count.saturating_add_signed(more);
        };
        count(-1);
        if let Err(error) = self.tell_of_abandoned(group).await {
            count(1);
            return Err(error);
        }
        self.abandoned.borrow_mut().insert(pv);
        self.leave_to_absent();
        if let Some(disk) = lost {
            self.let_go(disk).await;
        }
        Ok(())
    }

    async fn tell_of_abandoned(&self, group: u16) -> Result<(), PoolError> {
        self.next_epoch().await?;
        self.missed.set(self.epoch());
        self.count_members();
        self.note_behind(group);
        self.write_all_labels().await?;
        self.settle_epoch().await
    }

    /// So many disks are not here: how many of each group, as far as another one of it is.
    pub(super) fn count_absent(&self, count: u16) {
        let tables = self.tables.borrow();
        let mut absent = BTreeMap::new();
        let mut left = count;
        for group in groups_of(&tables) {
            let own = || tables.iter().filter(|table| table.label.group == group);
            let said = own().map(|table| table.label.group_members).max().unwrap_or(0);
            let lacks = said.saturating_sub(own().count() as u16).min(left);
            left -= lacks;
            absent.insert(Some(group), lacks);
        }
        absent.insert(None, left);
        self.absent.replace(absent);
    }
}

fn is_staying(table: &Table) -> bool {
    table.is_here() && !table.label.has_left()
}
