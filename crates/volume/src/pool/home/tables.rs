//! Slab tables and labels on their disks: how they are changed, and read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rt::sync::Turn;

use super::super::label::{End, Label};
use super::super::page::{Flaw, Page, newest};
use super::super::places::{Copy, Home, SLABS_MAX, State};
use super::super::shape::GRANTS_PER_PAGE;
use super::super::slabs::{self, Grant, Slab, TableHeader};
use super::copies::grant_at;
use super::table::{Table, Twin};
use super::{Pool, PoolError, ReadPage};

/// How often a page of a table is tried to be written before its disk counts as lost.
const WRITE_TRIES: u32 = 3;
const WRITE_RETRY: Duration = Duration::from_millis(50);

/// When to look again whether LUs are still being opened.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What has gone wrong, with the disk.
type Unwritten = (u32, PoolError);

impl Pool {
    /// Changes the tables, writes what has changed, and gives what was said of that. A disk that
    /// cannot be written is lost, where the pool can be without it: nothing is said of that one.
    /// Where it cannot, slabs are nobody's until the pool is opened again.
    pub(super) async fn change<T>(
        &self,
        f: impl FnOnce(&mut Vec<Table>) -> Vec<(Home, T)>,
    ) -> Result<Vec<T>, PoolError> {
        self.change_in_turns(|tables| vec![f(tables)]).await
    }

    /// The same of changes that are written one after the other.
    pub(super) async fn change_in_turns<T>(
        &self,
        f: impl FnOnce(&mut Vec<Table>) -> Vec<Vec<(Home, T)>>,
    ) -> Result<Vec<T>, PoolError> {
        let _changing = self.changing().await;
        let _disks = self.disks()?;
        let turns = f(&mut self.tables.borrow_mut());
        let mut lost = None;
        let written = self.write_turns(&turns, &mut lost).await;
        self.tell_watcher();
        written?;
        let is_here = |(home, _): &(Home, T)| !self.is_lost(home.disk);
        let said = turns.into_iter().flatten().filter(is_here).map(|(_, said)| said);
        let said: Vec<T> = said.collect();
        match lost {
            Some(error) if said.is_empty() => Err(error),
            _ => Ok(said),
        }
    }

    /// Writes what has changed, turn by turn. Says why a disk was lost.
    async fn write_turns<T>(
        &self,
        turns: &[Vec<(Home, T)>],
        lost: &mut Option<PoolError>,
    ) -> Result<(), PoolError> {
        for changed in turns {
            let mut tries = 0;
            loop {
                let here = changed.iter().map(|(home, _)| *home);
                let here = here.filter(|home| !self.is_lost(home.disk));
                let Err((disk, error)) = self.write_pages(here).await else { break };
                tries += 1;
                if tries < WRITE_TRIES {
                    self.core.sleep(WRITE_RETRY).await;
                } else if self.lose(disk).await.is_ok() {
                    (tries, *lost) = (0, Some(error));
                } else {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn tell_watcher(&self) {
        self.room.notify();
        let watcher = self.watcher.borrow().clone();
        if let Some(watcher) = watcher {
            watcher(self);
        }
    }

    /// Waits until nobody changes the tables; nobody else does until this is dropped.
    pub(super) async fn changing(&self) -> Turn<'_> {
        self.changes.take().await
    }

    /// Waits for the end of a change that is under way.
    pub(in super::super) async fn changed(&self) {
        drop(self.changing().await);
    }

    /// One change while no LU is being opened or made. Whoever begins to do so waits for the end of
    /// the change.
    pub(super) async fn changing_groups(&self) -> Turn<'_> {
        loop {
            let turn = self.changing().await;
            if Arc::strong_count(&self.settling) == 1 {
                return turn;
            }
            drop(turn);
            self.core.sleep(LOOK_AGAIN).await;
        }
    }

    /// Writes the pages of tables where these slabs are.
    pub(super) async fn write_changed(
        &self,
        changed: impl Iterator<Item = Home>,
    ) -> Result<(), PoolError> {
        self.write_pages(changed).await.map_err(|(_, error)| error)
    }

    async fn write_pages(&self, changed: impl Iterator<Item = Home>) -> Result<(), Unwritten> {
        let page = |home: Home| (home.disk, u64::from(home.index) / GRANTS_PER_PAGE);
        let pages: BTreeSet<(u32, u64)> = changed.map(page).collect();
        let disks: BTreeSet<u32> = pages.iter().map(|(disk, _)| *disk).collect();
        // What counts is durable at one place before it is at both: so there is always one, and a
        // page that rots later has a twin that says the same.
        for _ in 0..2 {
            for &(disk, page) in &pages {
                self.write_table(disk, page).await.map_err(|error| (disk, error))?;
            }
            self.sync_disks(&disks).await?;
        }
        Ok(())
    }

    /// Writes a page of a table at the place that was not written last.
    pub(super) async fn write_table(&self, disk: u32, page: u64) -> Result<(), PoolError> {
        self.settle_twin(disk, Twin::Page(page)).await?;
        let (image, at) = {
            let tables = self.tables.borrow();
            let table = &tables[disk as usize];
            let (place, turn) = table.turns[page as usize];
            let (pool, epoch) = (self.lineage, self.epoch());
            let header = TableHeader { pool, page, turn: turn + 1, epoch };
            let at = table.layout.table_places(page)[1 - place];
            (slabs::encode(header, table.page_of(page)), at)
        };
        self.write(disk, at, &image).await?;
        let (place, turn) = &mut self.tables.borrow_mut()[disk as usize].turns[page as usize];
        (*place, *turn) = (1 - *place, *turn + 1);
        Ok(())
    }

    pub(super) async fn read_tables(&self) -> Result<(), PoolError> {
        let mut doubtful = BTreeSet::new();
        for disk in self.members() {
            let layout = self.layout(disk);
            for page in 0..layout.table_pages() {
                if !self.load_table(disk, page).await? {
                    doubtful.insert((disk, page));
                }
            }
        }
        let mut failed = None;
        self.settle_all(&mut |settled| match settled {
            Ok(left) => drop(doubtful.insert((left.disk, u64::from(left.index) / GRANTS_PER_PAGE))),
            Err(error) => drop(failed.get_or_insert(error)),
        });
        failed.map_or(Ok(()), Err)?;
        self.find_stale();
        // A write was cut short, or one of two has rotted: both are good again. Or a slab has left.
        for (disk, page) in doubtful {
            self.write_table(disk, page).await?;
        }
        Ok(())
    }

    /// Reads a page of a table. False: its two places do not say the same.
    pub(super) async fn load_table(&self, disk: u32, page: u64) -> Result<bool, PoolError> {
        let (place, turn, slabs, is_whole) = self.read_table(disk, page).await?;
        let table = &mut self.tables.borrow_mut()[disk as usize];
        table.turns[page as usize] = (place, turn);
        let start = (page * GRANTS_PER_PAGE) as u32;
        let slabs = (start..table.layout.slabs()).zip(slabs);
        slabs.for_each(|(index, slab)| table.load(index, slab));
        Ok(is_whole)
    }

    /// Takes everything into account that the tables say. Tells of places that slabs have left, and
    /// of contradictions.
    pub(super) fn settle_all(&self, told: &mut dyn FnMut(Result<Home, PoolError>)) {
        let mut outdated = Vec::new();
        for disk in self.members() {
            if self.tables.borrow()[disk as usize].outdated > 0 {
                outdated.push(disk);
                continue;
            }
            for home in self.homes_on(disk) {
                self.settle(home).transpose().into_iter().for_each(&mut *told);
            }
        }
        outdated.sort_by_key(|disk| self.tables.borrow()[*disk as usize].outdated);
        if !outdated.is_empty() {
            self.settle_outdated(&outdated, told);
        }
    }

    /// Where there are slabs that somebody has.
    pub(super) fn homes_on(&self, disk: u32) -> Vec<Home> {
        let tables = self.tables.borrow();
        let slabs = (0..).zip(&tables[disk as usize].slabs);
        let granted = slabs.filter(|(_, slab)| matches!(slab, Slab::Granted(_)));
        granted.map(|(index, _)| Home { disk, index }).collect()
    }

    /// Takes a slab into account that a table names. Of two places of one slab the one counts that
    /// was granted later: it was whole then. The other one is what it has left, and is told.
    pub(super) fn settle(&self, home: Home) -> Result<Option<Home>, PoolError> {
        let mut tables = self.tables.borrow_mut();
        let Some(grant) = grant_at(&tables, home) else { return Ok(None) };
        let number = grant.number;
        let contradicts = |tables: &[Table], other: Home| {
            let name = |home: Home| tables[home.disk as usize].name.clone();
            Err(PoolError::Contradiction { number, disk: name(home), other: name(other) })
        };
        if number >= SLABS_MAX {
            return contradicts(&tables, home);
        }
        let group = tables[home.disk as usize].label.group;
        let known: Vec<Copy> = self.shared.places.all(number).collect();
        for other in &known {
            let is_same = grant_at(&tables, other.home).is_some_and(|first| {
                let is_one = (first.lu, first.is_first) == (grant.lu, grant.is_first);
                is_one && (other.group != group || first.generation != grant.generation)
            });
            if !is_same {
                return contradicts(&tables, other.home);
            }
        }
        if known.is_empty() {
            self.list(grant.lu, number, grant.is_first);
        }
        let before = known.into_iter().find(|other| other.group == group);
        let is_newer = |grant: Grant| move |other: &Grant| other.generation > grant.generation;
        let left = match before {
            Some(other) if grant_at(&tables, other.home).as_ref().is_some_and(is_newer(grant)) => {
                Some(home)
            }
            Some(other) => {
                self.shared.places.remove(number, other.home);
                Some(other.home)
            }
            None => None,
        };
        let copy = Copy { home, group, state: State::Whole };
        if left != Some(home) && !self.shared.places.add(number, copy) {
            return contradicts(&tables, home);
        }
        if let Some(left) = left {
            tables[left.disk as usize].free(left.index);
        }
        Ok(left)
    }

    async fn read_table(
        &self,
        disk: u32,
        page: u64,
    ) -> Result<(usize, u64, Vec<Slab>, bool), PoolError> {
        let mut read = self.read_places(disk, page).await?;
        let flaw = |flaw| PoolError::Table { disk: self.name_of(disk), page, flaw };
        let place = newest_of(&read).map_err(flaw)?;
        let is_whole = matches!(&read[..], [Ok((_, one)), Ok((_, other))] if one == other);
        let (header, slabs) = read.swap_remove(place).map_err(flaw)?;
        Ok((place, header.turn, slabs, is_whole))
    }

    /// What stands at both places of a page of a table.
    pub(super) async fn read_places(
        &self,
        disk: u32,
        page: u64,
    ) -> Result<Vec<ReadPage>, PoolError> {
        let places = self.layout(disk).table_places(page);
        let mut read = Vec::new();
        for at in places {
            let image =
                self.disks()?.read_own(disk, at).await.map_err(|error| self.of(disk, error))?;
            read.push(slabs::decode(&image, &self.lineage, page));
        }
        Ok(read)
    }

    /// Writes the labels of all that have not left; one that cannot be written is lost, where the
    /// pool can be without it.
    pub(super) async fn write_all_labels(&self) -> Result<(), PoolError> {
        while let Err((disk, error)) = self.write_labels(&self.members()).await {
            self.lose(disk).await.map_err(|_| error)?;
        }
        Ok(())
    }

    /// One of two is about to be written: the other one is durable when this is done.
    pub(super) async fn settle_twin(&self, disk: u32, twin: Twin) -> Result<(), PoolError> {
        let is_unsynced = self.tables.borrow()[disk as usize].unsynced.contains(&twin);
        if is_unsynced {
            self.sync_these(&[disk]).await?;
        }
        self.tables.borrow_mut()[disk as usize].unsynced.insert(twin);
        Ok(())
    }

    /// Writes labels with the pool's epoch, the one at the end of each disk first.
    pub(super) async fn write_labels(&self, disks: &[u32]) -> Result<(), Unwritten> {
        for end in [End::Back, End::Front] {
            for &disk in disks {
                let (label, at) = {
                    let table = &self.tables.borrow()[disk as usize];
                    let (epoch, missed) = (self.epoch(), self.missed.get());
                    let (forces, forced) = (self.forces.get(), self.forced.get());
                    let label = Label { epoch, missed, forces, forced, ..table.label.clone() };
                    (label, table.layout.labels()[end as usize])
                };
                let settled = self.settle_twin(disk, Twin::Label).await;
                settled.map_err(|error| (disk, error))?;
                let written = self.write(disk, at, &label.encode(end)).await;
                written.map_err(|error| (disk, error))?;
            }
            self.sync_disks(&disks.iter().copied().collect()).await?;
        }
        Ok(())
    }

    pub(super) async fn write(&self, disk: u32, at: u64, page: &Page) -> Result<(), PoolError> {
        self.disks()?.write_own(disk, at, page).await.map_err(|error| self.of(disk, error))
    }

    /// What was written to these disks is durable.
    pub(super) async fn sync_disks(&self, disks: &BTreeSet<u32>) -> Result<(), Unwritten> {
        let own = self.disks().map_err(|error| (0, error))?;
        let twins = |disk: u32| self.tables.borrow()[disk as usize].unsynced.clone();
        let before: Vec<(u32, _)> = disks.iter().map(|disk| (*disk, twins(*disk))).collect();
        let mut failed = own.sync_some(|disk| disks.contains(&disk)).await;
        for (disk, twins) in before {
            if !failed.iter().any(|(other, _)| *other == disk) {
                let unsynced = &mut self.tables.borrow_mut()[disk as usize].unsynced;
                unsynced.retain(|twin| !twins.contains(twin));
            }
        }
        let failed = failed.pop();
        failed.map_or(Ok(()), |(disk, error)| Err((disk, self.of(disk, error))))
    }
}

pub(super) fn newest_of(read: &[ReadPage]) -> Result<usize, Flaw> {
    newest([0, 1].map(|place| read[place].as_ref().map(|it| it.0).map_err(|flaw| *flaw)))
}
