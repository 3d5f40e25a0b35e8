//! Disks that are lost while the pool is used: what cannot be written counts as missing, as if the
//! pool had been opened without it, and is taken back when it can be written again.
//!
//! ```text
//!            its table cannot be written,              its labels are what they were
//!            and another group is all there            and everything can be written
//!   member ─────────────────────────────────▶ lost ─────────────────────────────────▶ member
//!              all others say durably that            ▲     what it has counts
//!              it missed this epoch: then its         │     as outdated
//!              places are nobody's                    │
//!                     missing when the pool was opened, and here now
//! ```
//!
//! An LU of which it has the only good copy keeps its places there, for what can still be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::disks::Backing;
use super::super::label::{End, Label};
use super::super::page::Owner;
use super::super::places::{Copy, State};
use super::super::shape::Layout;
use super::copies::grant_at;
use super::table::{Standing, Table};
use super::{Pool, PoolError, read_label};

/// A disk that could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostDisk {
    pub disk: u32,
    pub pv: [u8; 16],
    /// As an operator knows it.
    pub name: String,
}

impl Pool {
    pub(super) fn is_lost(&self, disk: u32) -> bool {
        self.tables.borrow()[disk as usize].standing == Standing::Lost
    }

    /// Disks that could not be written.
    pub fn lost(&self) -> Vec<LostDisk> {
        let tables = self.tables.borrow();
        let all = (0..).zip(tables.iter()).filter(|(_, it)| it.standing == Standing::Lost);
        let of = |(disk, table): (u32, &Table)| LostDisk {
            disk,
            pv: table.label.pv,
            name: table.name.clone(),
        };
        all.map(of).collect()
    }

    /// Waits until some are lost; none when the pool was closed.
    pub async fn losses(&self) -> Option<Vec<LostDisk>> {
        self.losing.until(|| !self.lost().is_empty() || self.is_closed()).await;
        (!self.is_closed()).then(|| self.lost())
    }

    /// Something of an LU's own could not be written: it is written again when somebody has opened
    /// it again.
    pub(in super::super) fn lu_failed(&self, lu: Owner) {
        self.failed.borrow_mut().insert(lu);
        self.failing.notify();
    }

    /// LUs that have failed since this was asked last.
    pub fn take_failed(&self) -> BTreeSet<Owner> {
        self.failed.take()
    }

    /// Waits until some have; none when the pool was closed.
    pub async fn failures(&self) -> Option<BTreeSet<Owner>> {
        self.failing.until(|| !self.failed.borrow().is_empty() || self.is_closed()).await;
        (!self.is_closed()).then(|| self.take_failed())
    }

    /// The number of a disk that was lost.
    pub(super) fn lost_disk(&self, pv: [u8; 16]) -> Option<u32> {
        let tables = self.tables.borrow();
        let is_it = |disk: &u32| tables[*disk as usize].label.pv == pv && self.is_lost(*disk);
        (0..tables.len() as u32).find(is_it)
    }

    /// Goes on without a disk that cannot be written. An error: there is no failure group that can
    /// do without it, or it cannot be said. The caller changes the tables.
    pub(super) async fn lose(&self, disk: u32) -> Result<(), PoolError> {
        if !self.can_lose(disk) {
            return Err(PoolError::LastCopy { disk: self.name_of(disk) });
        }
        self.outdo(disk).await?;
        let lus: Vec<[u8; 16]> = self.lus().into_keys().collect();
        let _ending = self.end_doubt(&lus, &self.others_than(disk)).await?;
        let before = self.stand(disk, Standing::Lost);
        let told = self.tell_of_lost().await;
        if told.is_err() {
            // Others may say that it is missing; then they will say that it is back.
            self.stand(disk, before);
            self.count_members();
            return told;
        }
        self.leave_lost(disk).await;
        Ok(())
    }

    async fn tell_of_lost(&self) -> Result<(), PoolError> {
        self.next_epoch().await?;
        self.missed.set(self.epoch());
        self.count_members();
        self.write_labels(&self.members()).await.map_err(|(_, error)| error)?;
        self.settle_epoch().await
    }

    /// A disk counts as missing, or does not any more. Gives what it was.
    fn stand(&self, disk: u32, standing: Standing) -> Standing {
        let table = &mut self.tables.borrow_mut()[disk as usize];
        let before = std::mem::replace(&mut table.standing, standing);
        let mut absent = self.absent.borrow_mut();
        let count = absent.entry(Some(table.label.group)).or_default();
        match (before, standing) {
            (Standing::Lost, Standing::Lost) => {}
            (_, Standing::Lost) => *count += 1,
            (Standing::Lost, _) => *count = count.saturating_sub(1),
            _ => {}
        }
        before
    }

    /// Whether a failure group that has everything is there without this disk.
    pub(in super::super) fn can_lose(&self, disk: u32) -> bool {
        let tables = self.tables.borrow();
        let lost = tables[disk as usize].label.group;
        let is_all = |group: u16| {
            let mut own = tables.iter().filter(|it| it.is_here() && it.label.group == group);
            self.is_all_here(group) && own.all(|it| !it.label.is_behind)
        };
        let groups = super::stale::groups_of(&tables);
        tables[disk as usize].is_here() && groups.into_iter().any(|it| it != lost && is_all(it))
    }

    fn others_than(&self, disk: u32) -> Vec<u16> {
        let mut others = self.groups();
        others.retain(|group| *group != self.group_of(disk));
        others
    }

    /// Nobody writes there any more, and nobody has to.
    async fn leave_lost(&self, disk: u32) {
        let others = self.others_than(disk);
        let trusted = |lu| (lu, self.to_trust(lu, &others));
        let trusted: Vec<_> = self.lus().into_keys().map(trusted).collect();
        for home in self.homes_on(disk) {
            let Some(grant) = grant_at(&self.tables.borrow(), home) else { continue };
            let has_other = self
                .granted(grant.lu)
                .is_none_or(|granted| self.must_have_copy(grant.lu, &granted).is_ok());
            if has_other {
                let (group, state) = (self.group_of(disk), State::Broken);
                self.shared.places.lose(grant.number, Copy { home, group, state });
            }
        }
        trusted.into_iter().for_each(|(lu, group)| self.trust(lu, group));
        self.shared.set_aside(disk, !self.is_needed(disk)).await;
        self.losing.notify();
        self.note_all_lacking();
        self.look_at_copies();
        self.tell_watcher();
    }

    /// Slabs have places there.
    pub(super) fn is_needed(&self, disk: u32) -> bool {
        let tables = self.tables.borrow();
        self.homes_on(disk).into_iter().any(|home| {
            let number = grant_at(&tables, home).map(|grant| grant.number);
            number.is_some_and(|number| self.shared.places.state(number, home).is_some())
        })
    }

    /// A disk is here that was missing when the pool was opened: it counts as lost, and is taken
    /// back. Gives its number.
    pub async fn take_in(&self, backing: Arc<dyn Backing>) -> Result<u32, PoolError> {
        let _changing = self.changing().await;
        self.disks()?;
        let (label, _) = read_label(&self.core, &backing).await?;
        let layout = self.must_be_missing(&backing, &label)?;
        let mut table = Table::new(backing.name(), label, layout);
        table.standing = Standing::Lost;
        {
            // One that was missed somewhere is missed there.
            let (mut absent, group) = (self.absent.borrow_mut(), Some(table.label.group));
            if absent.get(&group).is_none_or(|count| *count == 0) {
                *absent.entry(None).or_default() -= 1;
                *absent.entry(group).or_default() += 1;
            }
        }
        let disk = self.shared.add(backing, layout).await;
        self.tables.borrow_mut().push(table);
        self.shared.set_aside(disk, true).await;
        for page in 0..layout.table_pages() {
            if let Err(error) = self.load_table(disk, page).await {
                self.let_go(disk).await;
                return Err(error);
            }
        }
        let back = self.be_back(disk).await;
        self.losing.notify();
        back.map(|()| disk)
    }

    /// Refuses a disk that is not missed, and what cannot be told while the pool is used.
    fn must_be_missing(
        &self,
        backing: &Arc<dyn Backing>,
        label: &Label,
    ) -> Result<Layout, PoolError> {
        let disk = backing.name().to_owned();
        let is_known = {
            let tables = self.tables.borrow();
            let mut here = tables.iter().filter(|table| table.standing != Standing::Gone);
            here.any(|table| table.label.pv == label.pv) || self.has_left(label.pv)
        };
        let is_its = label.pool == self.id() && !label.has_left() && label.becomes.is_none();
        let is_missed = {
            let absent = self.absent.borrow();
            let is_such = |group| absent.get(&group).is_some_and(|count| *count > 0);
            label.epoch < self.missed.get() && (is_such(Some(label.group)) || is_such(None))
        };
        if is_known || !is_its || !is_missed || self.forced.get() > 0 {
            return Err(PoolError::Replaced { disk });
        }
        let is = backing.device(&self.core).geometry().size;
        if is < label.size {
            return Err(PoolError::Shrunk { disk, was: label.size, is });
        }
        Layout::new(label.shape, label.size).map_err(|error| PoolError::Unfit { disk, error })
    }

    /// A disk that was lost can be written again: from now on it is one of the pool as it was, with
    /// copies that are outdated.
    pub async fn rejoin(&self, disk: u32) -> Result<(), PoolError> {
        let _changing = self.changing().await;
        self.disks()?;
        if self.is_lost(disk) { self.be_back(disk).await } else { Ok(()) }
    }

    async fn be_back(&self, disk: u32) -> Result<(), PoolError> {
        let epoch = self.must_be_its_own(disk).await?;
        // Before anything has a place there that is to be durable.
        self.shared.set_aside(disk, false).await;
        self.stand(disk, Standing::Member);
        {
            let table = &mut self.tables.borrow_mut()[disk as usize];
            (table.outdated, table.label.as_of) = (1, table.label.as_of.or(Some(epoch)));
        }
        let mut settled = Ok(());
        self.settle_outdated(&[disk], &mut |told| {
            if let Err(error) = told {
                settled = Err(error);
            }
        });
        self.find_stale_in(&[self.group_of(disk)]);
        let back = match settled {
            Ok(()) => self.tell_of_return(disk).await,
            failed => failed,
        };
        if back.is_err() {
            self.stand(disk, Standing::Lost);
            self.count_members();
            self.leave_lost(disk).await;
            return back;
        }
        self.leave_to_absent();
        self.note_all_lacking();
        self.look_at_copies();
        self.tell_watcher();
        Ok(())
    }

    async fn tell_of_return(&self, disk: u32) -> Result<(), PoolError> {
        self.mark_outdated().await?;
        self.free_unheld(&self.lus().into_keys().collect::<Vec<_>>()).await?;
        self.next_epoch().await?;
        self.note_behind(self.group_of(disk));
        self.count_members();
        self.write_labels(&self.members()).await.map_err(|(_, error)| error)?;
        self.settle_epoch().await
    }

    /// Whoever has used it in between has left his label. Gives its epoch.
    async fn must_be_its_own(&self, disk: u32) -> Result<u64, PoolError> {
        let places = self.layout(disk).labels();
        let of = |error| self.of(disk, error);
        let mut found = Vec::new();
        for end in [End::Front, End::Back] {
            let page = self.disks()?.read_own(disk, places[end as usize]).await.map_err(of)?;
            found.extend(Label::decode(&page, end));
        }
        let is_own = |label: &Label| {
            let own = &self.tables.borrow()[disk as usize].label;
            (label.pool, label.pv) == (self.id(), own.pv) && label.epoch <= self.epoch()
        };
        let epoch = found.iter().map(|label| label.epoch).min();
        let epoch = epoch.filter(|_| found.iter().all(is_own));
        epoch.ok_or_else(|| PoolError::Replaced { disk: self.name_of(disk) })
    }
}
