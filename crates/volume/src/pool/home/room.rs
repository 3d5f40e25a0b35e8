//! What a pool has left, and how its LUs hear of that.
//!
//! An LU has some slabs ahead of what it writes, and fewer the less there is left for each: those
//! that nobody writes would have what others need. One that gets none waits a moment for what is
//! given back when they hear of it.

use std::time::Duration;

use super::stale::groups_of;
use super::table::Table;
use super::{Pool, PoolError};

/// How long an LU waits for others to give slabs back: one writes a root, and the pool a table.
const GIVEN_BACK_WAIT: Duration = Duration::from_secs(1);

/// What its LUs were told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// So many slabs are free. None: nobody tells them.
    free: Option<u64>,
    /// One got none since.
    was_refused: bool,
}

impl Told {
    fn is_news(self, free: u64) -> bool {
        let differs = |told: u64| told != free && (free >= 2 * told || 2 * free <= told);
        self.free.is_none_or(differs) || self.was_refused && free > 0
    }
}

impl Pool {
    /// Slabs that the pool has, and those of them that are free: as many as the failure group has
    /// that has the fewest. A disk that leaves has those only that are still used.
    pub fn slabs(&self) -> (u64, u64) {
        let tables = self.tables.borrow();
        let of = |group: u16, count: fn(&Table) -> u64| -> u64 {
            tables.iter().filter(|table| table.label.group == group).map(count).sum()
        };
        let least = |count: fn(&Table) -> u64| {
            groups_of(&tables).into_iter().map(|group| of(group, count)).min().unwrap_or(0)
        };
        (least(|table| (table.used() + table.room()).into()), least(|table| table.room().into()))
    }

    /// Slabs that are free, for each LU.
    pub fn share(&self) -> u64 {
        self.slabs().1 / (self.lus.borrow().len() as u64).max(1)
    }

    /// Waits until far fewer or far more slabs are free than when this was asked last, for who
    /// tells all LUs of their [share](Self::share) then. False: the pool was closed.
    pub async fn news_of_room(&self) -> bool {
        let is_news = || self.told.get().is_news(self.slabs().1);
        self.room.until(|| self.is_closed() || is_news()).await;
        self.told.set(Told { free: Some(self.slabs().1), was_refused: false });
        !self.is_closed()
    }

    /// Gives slabs to an LU that is used; also such as others do not need.
    pub(in super::super) async fn grant_some(
        &self,
        lu: [u8; 16],
        count: u64,
    ) -> Result<Vec<u32>, PoolError> {
        let granted = self.grant(lu, count, false).await;
        let told = self.told.get();
        let has_others = self.lus.borrow().len() > 1;
        if !matches!(granted, Err(PoolError::Full)) || told.free.is_none() || !has_others {
            return granted;
        }
        let is_any = || self.slabs().1 > 0 || self.is_closed();
        let _ = self.core.timeout(GIVEN_BACK_WAIT, self.room.until(is_any)).await;
        let granted = self.grant(lu, count, false).await;
        let was_refused = matches!(granted, Err(PoolError::Full)) && self.slabs().1 == 0;
        let told = self.told.get();
        self.told.set(Told { was_refused: told.was_refused || was_refused, ..told });
        granted
    }
}
