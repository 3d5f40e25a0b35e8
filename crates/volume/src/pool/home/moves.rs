//! A slab that moves to another disk: what the pool does of it. Its LU brings the blocks there, and
//! says when.
//!
//! The new place is nobody's on disk until everything is there. Then it is granted, with a
//! generation higher than the old one's, and the old one is taken back: whoever opens the pool in
//! between finds two, and goes on with the new one.

use super::super::places::Home;
use super::super::slabs::{Grant, Slab};
use super::table::Table;
use super::{Pool, PoolError};

impl Pool {
    /// Takes another place for a slab of an LU, on another disk: the one that is wanted, or the
    /// roomiest. From now on it is written at both.
    pub async fn begin_move(
        &self,
        lu: [u8; 16],
        number: u32,
        to: Option<u32>,
    ) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        let from = self.grant_at(&self.tables.borrow(), lu, number)?.0;
        // The grant of its new place may be on the disk, or not: it is written at both.
        if self.shared.places.second(number).is_some() {
            return Err(PoolError::TwoPlaces(number));
        }
        let mut tables = self.tables.borrow_mut();
        let disks = (0..tables.len() as u32).filter(|disk| to.is_none_or(|to| to == *disk));
        let room = |disk: &u32| tables[*disk as usize].room();
        let disk = disks.filter(|disk| *disk != from.disk && room(disk) > 0).max_by_key(room);
        let disk = disk.ok_or(PoolError::Full)?;
        let index = tables[disk as usize].take(|generation| Slab::Filling { generation });
        let index = index.expect("one is free");
        self.shared.places.add(number, Home { disk, index });
        Ok(())
    }

    /// The new place has everything, durably: it is granted, durably too.
    pub async fn commit_move(&self, lu: [u8; 16], number: u32) -> Result<(), PoolError> {
        let granted = self.change(|tables| {
            let (Ok((_, old)), Some((to, _))) =
                (self.grant_at(tables, lu, number), self.shared.places.second(number))
            else {
                return Vec::new();
            };
            let slab = &mut tables[to.disk as usize].slabs[to.index as usize];
            let generation = slab.generation().max(old.generation) + 1;
            *slab = Slab::Granted(Grant { generation, ..old });
            vec![(to, ())]
        });
        granted.await?.pop().ok_or(PoolError::NoLu(lu))
    }

    /// Nobody is on the way to the place that the slab has left.
    pub async fn end_move(&self, lu: [u8; 16], number: u32, from: Home) -> Result<(), PoolError> {
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
    pub async fn abort_move(&self, to: Home) {
        let _changing = self.changing().await;
        let table = &mut self.tables.borrow_mut()[to.disk as usize];
        if let Slab::Filling { .. } = table.slabs[to.index as usize] {
            table.free(to.index);
        }
    }

    /// Where a slab of an LU is read, and its grant there.
    fn grant_at(
        &self,
        tables: &[Table],
        lu: [u8; 16],
        number: u32,
    ) -> Result<(Home, Grant), PoolError> {
        let home = self.shared.places.get(number).ok_or(PoolError::NoLu(lu))?;
        match tables[home.disk as usize].slabs[home.index as usize] {
            Slab::Granted(grant) if (grant.lu, grant.number) == (lu, number) => Ok((home, grant)),
            _ => Err(PoolError::NoLu(lu)),
        }
    }
}
