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

use std::sync::Arc;

use super::super::disks::Backing;
use super::super::label::Label;
use super::super::shape::Layout;
use super::super::slabs::Slab;
use super::table::{Standing, Table};
use super::{Pool, PoolError};

impl Pool {
    /// The number of a disk.
    pub fn disk(&self, pv: [u8; 16]) -> Option<u32> {
        let is_it = |disk: &u32| self.tables.borrow()[*disk as usize].label.pv == pv;
        self.members().into_iter().find(is_it)
    }

    /// Makes an empty disk of the pool of one that nobody else uses; what is on it is gone. Nothing
    /// is granted there yet. The epoch that its label gets is the next one: whoever remembers
    /// epochs has written it down.
    pub async fn prepare(&self, backing: Arc<dyn Backing>, pv: [u8; 16]) -> Result<u32, PoolError> {
        let _changing = self.changing().await;
        self.disks()?;
        let size = backing.device(&self.core).geometry().size;
        let layout = Layout::new(self.shape, size)
            .map_err(|error| PoolError::Unfit { disk: backing.name().to_owned(), error })?;
        let (name, members) = (backing.name().to_owned(), self.members().len() as u16 + 1);
        let (pool, pool_name, shape) = (self.id, self.name.clone(), self.shape);
        let label = Label { pool, pool_name, pv, members, group: 0, shape, size, epoch: 0 };
        let disk = self.shared.add(backing, layout).await;
        let mut table = Table::new(&name, label, layout);
        table.standing = Standing::Leaving;
        self.tables.borrow_mut().push(table);
        self.epoch.set(self.epoch.get() + 1);
        let prepared = match self.blank(&[disk]).await {
            Ok(()) => self.write_labels(&[disk]).await,
            failed => failed,
        };
        if prepared.is_err() {
            self.let_go(disk).await;
        }
        prepared.map(|()| disk)
    }

    /// What was prepared is a disk like all others.
    pub async fn admit(&self, disk: u32) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        self.count_members();
        self.write_labels(&self.members()).await?;
        self.tables.borrow_mut()[disk as usize].standing = Standing::Member;
        self.tell_watcher();
        Ok(())
    }

    /// Grants nothing on a disk any more, or does again.
    pub fn retire(&self, disk: u32, is_leaving: bool) {
        let standing = if is_leaving { Standing::Leaving } else { Standing::Member };
        self.tables.borrow_mut()[disk as usize].standing = standing;
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
        let is_last = self.members().len() == 1;
        if !is_empty || is_last {
            return Err(PoolError::InUse { disk: self.name_of(disk) });
        }
        self.epoch.set(self.epoch.get() + 1);
        self.tables.borrow_mut()[disk as usize].label.members = 0;
        self.write_labels(&[disk]).await?;
        self.count_members();
        let others: Vec<u32> = self.members().into_iter().filter(|it| *it != disk).collect();
        self.write_labels(&others).await
    }

    /// Takes the labels off a disk that was dismissed, and lets go of it.
    pub async fn forget(&self, disk: u32) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let unlabelled = self.unlabel(&[disk]).await;
        self.let_go(disk).await;
        self.tell_watcher();
        unlabelled
    }

    async fn let_go(&self, disk: u32) {
        self.tables.borrow_mut()[disk as usize].leave();
        self.shared.remove(disk).await;
    }

    /// Every label is to say how many disks there are that have not left.
    pub(super) fn count_members(&self) {
        let mut tables = self.tables.borrow_mut();
        let stays = |table: &Table| table.standing != Standing::Gone && !table.label.has_left();
        let count = tables.iter().filter(|table| stays(table)).count() as u16;
        tables.iter_mut().filter(|table| stays(table)).for_each(|it| it.label.members = count);
    }
}
