//! What the disks of a pool say of it, for a backup: as it is on them while nobody changes it.

use super::super::label::End;
use super::super::page::Page;
use super::super::slabs::{self, Slab, TableHeader};
use super::{Pool, PoolError};

/// A disk: its name, its label as at the front, and its slab table.
pub struct Said {
    pub name: String,
    pub label: Page,
    pub table: Vec<Page>,
}

impl Pool {
    /// All disks at one instant: of a pool that is open what is written to them next, of one that
    /// is only looked at what was found.
    pub async fn said(&self, is_open: bool) -> Result<Vec<Said>, PoolError> {
        let _changing = self.changing().await;
        self.disks()?;
        Ok(self.members().into_iter().map(|disk| self.said_of(disk, is_open)).collect())
    }

    /// The places of a disk's slab table.
    pub fn places_on(&self, pv: [u8; 16]) -> Vec<Slab> {
        let tables = self.tables.borrow();
        let found = tables.iter().find(|table| table.label.pv == pv);
        found.map_or(Vec::new(), |table| table.slabs.clone())
    }

    fn said_of(&self, disk: u32, is_open: bool) -> Said {
        let table = &self.tables.borrow()[disk as usize];
        let mut label = table.label.clone();
        if is_open {
            (label.epoch, label.missed) = (self.settled.get(), self.missed.get());
            (label.forces, label.forced) = (self.forces.get(), self.forced.get());
        }
        let page = |page: u64| {
            let (pool, (_, turn), epoch) = (self.lineage, table.turns[page as usize], label.epoch);
            slabs::encode(TableHeader { pool, page, turn, epoch }, table.page_of(page))
        };
        let pages = (0..table.layout.table_pages()).map(page).collect();
        Said { name: table.name.clone(), label: label.encode(End::Front), table: pages }
    }
}
