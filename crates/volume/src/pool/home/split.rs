//! A failure group that leaves the pool as a whole, while its LUs are used: the others go on with
//! what they have, which is everything.
//!
//! | step | a crash behind it leaves |
//! |---|---|
//! | its labels say that it may lack something | a group that no pool is opened with alone |
//! | its labels say that it has left, with the next epoch | where some do: a group that is used with what it has, and leaves again; where all do: a pool without it |
//! | those of the others count it no more | the same, as everybody knows |
//! | its places are nobody's | |
//!
//! Everything is written there until the last of its labels says that it has left. So whatever of
//! it is found after a crash has missed nothing, and what says that it has left is never read.

use super::table::{Standing, Table};
use super::{Pool, PoolError};

impl Pool {
    /// Refuses what cannot leave: a failure group of so many disks.
    pub fn can_split(&self, group: u16, disks: usize) -> Result<(), PoolError> {
        let others = self.groups().into_iter().filter(|it| *it != group);
        let others: Vec<u16> = others.collect();
        if others.is_empty() {
            return Err(PoolError::LastGroup(group));
        }
        let is_all = |group: &u16| self.is_all_here(*group) && self.has_everything(*group);
        if let Some(lacks) = others.into_iter().find(|group| !is_all(group)) {
            return Err(PoolError::GroupLacks(lacks));
        }
        match self.absent() - self.absent_of(group, disks) {
            0 => Ok(()),
            absent => {
                let found = self.members().len();
                Err(PoolError::Missing { wanted: found as u16 + absent, found })
            }
        }
    }

    /// The same, and lets it go. Its disks are nobody's then, and their labels say so; requests may
    /// be on the way there still. Once more, it does nothing.
    pub async fn split(&self, group: u16, disks: usize) -> Result<(), PoolError> {
        // What a crash has left in doubt may be read there, and nowhere else.
        let _changing = self.changing_groups().await;
        self.disks()?;
        if self.known_of(group).is_empty() && self.absent_of(group, disks) == 0 {
            return Ok(());
        }
        self.can_split(group, disks)?;
        self.tell_that_it_lacks(group).await?;
        // A disk of the others may have been lost over that.
        self.can_split(group, disks)?;
        self.tell_group(group).await?;
        self.tell_others(group, disks).await?;
        self.forget_group(group).await;
        Ok(())
    }

    async fn tell_that_it_lacks(&self, group: u16) -> Result<(), PoolError> {
        self.next_epoch().await?;
        for disk in self.known_of(group) {
            self.tables.borrow_mut()[disk as usize].label.is_behind = true;
        }
        // In case it stays after all.
        self.look_at_copies();
        self.write_all_labels().await?;
        self.settle_epoch().await
    }

    /// Its disks say that they have left. Those that cannot be written are missed by the others, as
    /// any that is lost, and forgotten with the group.
    async fn tell_group(&self, group: u16) -> Result<(), PoolError> {
        self.next_epoch().await?;
        loop {
            let mut own = self.known_of(group);
            own.retain(|disk| !self.is_lost(*disk));
            for disk in &own {
                self.tables.borrow_mut()[*disk as usize].label.members = 0;
            }
            let Err((disk, error)) = self.write_labels(&own).await else { return Ok(()) };
            // It is counted as missing, and would be again if it came back.
            self.tables.borrow_mut()[disk as usize].label.members = 1;
            self.lose(disk).await.map_err(|_| error)?;
        }
    }

    pub(super) async fn tell_others(&self, group: u16, disks: usize) -> Result<(), PoolError> {
        let missed = self.absent_of(group, disks);
        if missed > 0 {
            let mut absent = self.absent.borrow_mut();
            let own = absent.remove(&Some(group)).unwrap_or(0);
            let unknown = absent.entry(None).or_default();
            *unknown = unknown.saturating_sub(missed.saturating_sub(own));
            // One that turns up again is known to be none of them.
            self.missed.set(self.epoch());
        }
        self.count_members();
        loop {
            let own = self.known_of(group);
            let others: Vec<u32> =
                self.members().into_iter().filter(|disk| !own.contains(disk)).collect();
            let Err((disk, error)) = self.write_labels(&others).await else { break };
            self.lose(disk).await.map_err(|_| error)?;
        }
        self.settle_epoch().await
    }

    /// Nobody looks there any more.
    pub(super) async fn forget_group(&self, group: u16) {
        let mut all = Vec::new();
        for (lu, granted) in self.lus.borrow_mut().iter_mut() {
            for &number in &granted.slabs {
                self.shared.places.forget_group(number, group);
            }
            granted.stale.retain(|stale| *stale != group);
            if granted.stale.is_empty() {
                all.push((*lu, None));
            }
        }
        self.leave_to_absent();
        self.undecided.borrow_mut().retain(|(_, of)| *of != group);
        if self.absent() == 0 {
            // What is known of one that is no more does no harm.
            let _ = self.note(all).await;
        }
        for disk in self.known_of(group) {
            self.let_go(disk).await;
        }
        self.look_at_copies();
        self.tell_watcher();
    }

    /// Its disks that were not let go, those that are lost with them.
    pub(super) fn known_of(&self, group: u16) -> Vec<u32> {
        let tables = self.tables.borrow();
        let is_its = |table: &Table| table.label.group == group && table.standing != Standing::Gone;
        (0..).zip(tables.iter()).filter(|(_, it)| is_its(it)).map(|(disk, _)| disk).collect()
    }

    /// How many disks of a group are missed that has so many. Where nobody knows of which group
    /// those are that are not here, those may be its.
    pub(super) fn absent_of(&self, group: u16, disks: usize) -> u16 {
        let absent = self.absent.borrow();
        let count = |group: Option<u16>| absent.get(&group).copied().unwrap_or(0);
        let here = self.known_of(group).into_iter().filter(|disk| !self.is_lost(*disk)).count();
        (count(Some(group)) + count(None)).min(disks.saturating_sub(here) as u16)
    }
}
