//! A failure group that leaves the pool and is a pool of its own from then on, with all LUs as they
//! were at one instant.
//!
//! | step | a crash behind it leaves |
//! |---|---|
//! | its labels say what it is about to become, and which of its disks decides | the pool as it was |
//! | writes of all LUs wait; what was answered is durable | the same |
//! | the label of the disk that decides is that of the new pool | both pools: the other disks of the group are those of the new one, whatever they say |
//! | so are those of the others | the same |
//! | its places are nobody's; nothing is written there any more | the same |
//! | the labels of the other groups count it no more | the same, as everybody knows |
//! | writes go on | |
//!
//! So there is one page whose write makes the new pool. Nothing that is asked for later than the
//! instant comes there: whoever opens this pool after a crash knows the group as one that has left,
//! or, where the disk that decides is not here, uses none of its disks. What runs by itself, as a
//! checkpoint, may be cut off there at any point, as by a crash, and the new pool's journals know
//! that. Pages are not written anew: see [`lineage`](super::super::lineage).

use super::super::label::{Becomes, Label, Was};
use super::super::page::Owner;
use super::{Pool, PoolError};

/// How often the label of a disk is tried to be written that is the new pool's already.
const LABEL_TRIES: u32 = 3;

/// A failure group of so many disks that is to be a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitOff {
    pub group: u16,
    pub disks: usize,
    pub id: Owner,
    pub name: String,
}

/// Disks that were about to become those of another pool, as what they are: they may still say that
/// they are to. Of one it cannot be said, because the disk that decides is not here: that is none
/// of either.
pub fn decided<T>(mut labels: Vec<(T, Label)>) -> Vec<(T, Label)> {
    let said: Vec<Label> = labels.iter().map(|(_, label)| label.clone()).collect();
    labels.retain_mut(|(_, label)| {
        let Some(Becomes { pool, by }) = label.becomes else { return true };
        let Some(decides) = said.iter().find(|other| other.pv == by) else { return false };
        if decides.pool == pool && decides.was_of(&label.pool) {
            let Label { pv, size, becomes, .. } = *label;
            *label = Label { pv, size, becomes, ..decides.clone() };
        }
        true
    });
    labels
}

impl Pool {
    /// Refuses what cannot become a pool.
    pub fn can_split_off(&self, new: &SplitOff) -> Result<(), PoolError> {
        self.can_split(new.group, new.disks)?;
        let absent = self.absent_of(new.group, new.disks);
        if absent > 0 {
            let found = self.members().len();
            return Err(PoolError::Missing { wanted: found as u16 + absent, found });
        }
        match self.has_everything(new.group) {
            true => Ok(()),
            false => Err(PoolError::GroupLacks(new.group)),
        }
    }

    /// The group is about to become a pool: so its labels say. Nothing else is different until it
    /// does. Once more, it does nothing.
    pub async fn announce_split(&self, new: &SplitOff) -> Result<(), PoolError> {
        let _changing = self.changing_groups().await;
        self.disks()?;
        if self.is_split_off(new) || self.is_announced(new) {
            return Ok(());
        }
        self.can_split_off(new)?;
        self.announce(new).await
    }

    /// The group becomes a pool. Nothing is asked of any of these LUs meanwhile, and what was
    /// answered is durable; no other LU is open. Background work may be on the way to its disks
    /// when this returns: nobody opens the new pool before that has arrived. After an error, it is
    /// one of this pool as before. Once more, it does nothing.
    pub async fn split_off(&self, new: &SplitOff, still: &[Owner]) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        self.disks()?;
        if self.is_split_off(new) {
            return self.tell_again(new).await;
        }
        self.can_split_off(new)?;
        self.must_be_still(still)?;
        if !self.is_announced(new) {
            self.announce(new).await?;
            self.can_split_off(new)?;
        }
        if let Err(error) = self.label_as_other(new).await {
            // It stays, and whether that can be said is seen when it is tried once more.
            let _ = self.withdraw(new.group).await;
            return Err(error);
        }
        self.forget_group(new.group).await;
        self.tell_others(new.group, new.disks).await
    }

    /// The group has left already: by what its disks said when the pool was opened, or because
    /// nobody misses any disk of it.
    fn is_split_off(&self, new: &SplitOff) -> bool {
        let is_gone = self.absent_of(new.group, new.disks) == 0 || self.has_become(new);
        self.known_of(new.group).is_empty() && is_gone
    }

    fn has_become(&self, new: &SplitOff) -> bool {
        self.became.borrow().contains(&(new.group, new.id))
    }

    fn is_announced(&self, new: &SplitOff) -> bool {
        let (tables, own) = (self.tables.borrow(), self.known_of(new.group));
        let becomes = |disk: &u32| tables[*disk as usize].label.becomes.map(|it| it.pool);
        !own.is_empty() && own.iter().all(|disk| becomes(disk) == Some(new.id))
    }

    async fn announce(&self, new: &SplitOff) -> Result<(), PoolError> {
        let own = self.known_of(new.group);
        let Some(first) = own.first() else { return Ok(()) };
        let by = self.tables.borrow()[*first as usize].label.pv;
        self.say_of(&own, Some(Becomes { pool: new.id, by })).await
    }

    async fn say_of(&self, disks: &[u32], becomes: Option<Becomes>) -> Result<(), PoolError> {
        self.next_epoch().await?;
        for disk in disks {
            self.tables.borrow_mut()[*disk as usize].label.becomes = becomes;
        }
        self.write_all_labels().await?;
        self.settle_epoch().await
    }

    /// An LU that somebody is just making or opening may be half there.
    fn must_be_still(&self, still: &[Owner]) -> Result<(), PoolError> {
        let owned = self.owned.borrow();
        let mut open = owned.iter().filter(|(_, owned)| owned.by.strong_count() > 0);
        match open.find(|(lu, _)| !still.contains(lu)) {
            Some((lu, _)) => Err(PoolError::Opening(*lu)),
            None => Ok(()),
        }
    }

    /// Its disks have the label of the new pool: the one first that decides. After an error none of
    /// them may be taken for one of the new pool yet.
    async fn label_as_other(&self, new: &SplitOff) -> Result<(), PoolError> {
        self.next_epoch().await?;
        let mut own = self.known_of(new.group);
        let before: Vec<Label> = {
            let mut tables = self.tables.borrow_mut();
            let is_by = |label: &Label| label.becomes.is_some_and(|it| it.by == label.pv);
            own.sort_by_key(|disk| !is_by(&tables[*disk as usize].label));
            let mut become_other = |disk: &u32| {
                let label = &mut tables[*disk as usize].label;
                let other = self.label_of_other(new, label);
                std::mem::replace(label, other)
            };
            own.iter().map(&mut become_other).collect()
        };
        let (first, others) = own.split_at(1);
        if let Err((_, error)) = self.write_labels(first).await {
            let mut tables = self.tables.borrow_mut();
            let all = own.iter().zip(before);
            all.for_each(|(disk, label)| tables[*disk as usize].label = label);
            return Err(error);
        }
        // From here on they are the new pool's. One that cannot be written says so when somebody
        // opens that.
        for _ in 0..LABEL_TRIES {
            if self.write_labels(others).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    fn label_of_other(&self, new: &SplitOff, own: &Label) -> Label {
        let members = new.disks as u16;
        Label {
            pool: new.id,
            origin: self.lineage.origin(),
            pool_name: new.name.clone(),
            members,
            group_members: members,
            is_behind: false,
            becomes: None,
            was: Some(Was { pool: self.id(), epoch: self.epoch() }),
            ..own.clone()
        }
    }

    /// It does not become a pool. The disk comes first that decides: as long as that may say
    /// another thing, the others go where it goes.
    async fn withdraw(&self, group: u16) -> Result<(), PoolError> {
        let own = self.known_of(group);
        self.next_epoch().await?;
        let first = {
            let mut tables = self.tables.borrow_mut();
            let by = own.iter().find_map(|disk| tables[*disk as usize].label.becomes);
            let is_by = |disk: &u32| by.is_some_and(|it| it.by == tables[*disk as usize].label.pv);
            let first: Vec<u32> = own.iter().copied().filter(is_by).collect();
            first.iter().for_each(|disk| tables[*disk as usize].label.becomes = None);
            first
        };
        // One that cannot be written is missed by the others from now on.
        let _ = self.write_labels(&first).await;
        self.say_of(&own, None).await
    }

    /// That it has left may not be said by all others yet.
    async fn tell_again(&self, new: &SplitOff) -> Result<(), PoolError> {
        if self.has_become(new) {
            self.next_epoch().await?;
        } else if self.settled.get() == self.epoch() {
            return Ok(());
        }
        self.tell_others(new.group, new.disks).await?;
        self.became.borrow_mut().retain(|it| *it != (new.group, new.id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::shape::Shape;
    use super::*;

    const POOLS: [Owner; 3] = [[1; 16], [2; 16], [3; 16]];

    fn label(pv: u8, pool: usize, becomes: Option<(usize, u8)>) -> ((), Label) {
        let becomes = becomes.map(|(pool, by)| Becomes { pool: POOLS[pool], by: [by; 16] });
        let label = Label {
            pool: POOLS[pool],
            origin: POOLS[0],
            pool_name: format!("pool{pool}"),
            pv: [pv; 16],
            members: 2,
            group: 1,
            group_members: 2,
            shape: Shape::default(),
            size: u64::from(pv) << 30,
            epoch: 7 + pool as u64,
            missed: 0,
            is_behind: false,
            as_of: None,
            becomes,
            was: (pool > 0).then_some(Was { pool: POOLS[0], epoch: 8 }),
            forces: 0,
            forced: 0,
        };
        ((), label)
    }

    #[test]
    fn disks_go_where_the_one_goes_that_decides() {
        let pools = |labels: &[((), Label)]| -> Vec<(u8, Owner)> {
            decided(labels.to_vec()).iter().map(|(_, label)| (label.pv[0], label.pool)).collect()
        };
        let (one, other) = (label(4, 0, Some((1, 4))), label(5, 0, Some((1, 4))));
        let both = [one.clone(), other.clone()];
        assert_eq!(pools(&both), [(4, POOLS[0]), (5, POOLS[0])]);
        // It decides by what it is, not by what it is about to be.
        let gone = [label(4, 1, None), other.clone()];
        assert_eq!(pools(&gone), [(4, POOLS[1]), (5, POOLS[1])]);
        let (_, turned) = decided(gone.to_vec()).remove(1);
        assert_eq!((turned.size, turned.pool_name.as_str()), (5 << 30, "pool1"));
        assert_eq!((turned.epoch, turned.becomes), (8, other.1.becomes), "it is to be written");
        // Nobody knows, and it is of neither.
        assert_eq!(pools(std::slice::from_ref(&other)), []);
        assert_eq!(pools(&[label(6, 0, None), other.clone()]), [(6, POOLS[0])]);
        // It has become another one since, which says nothing of this split.
        assert_eq!(pools(&[label(4, 2, None), other.clone()])[1], (5, POOLS[0]));
        assert_eq!(pools(&[label(4, 0, None), other])[1], (5, POOLS[0]));
    }
}
