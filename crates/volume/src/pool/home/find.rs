//! Finding a pool on its disks, and opening it: first what the labels say is read, so that whoever
//! keeps records of pools can compare, and only then anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Device, Error, Request};
use rt::Core;

use super::super::disks::{Backing, Shared, read_page};
use super::super::label::{End, Label, Unlabelled};
use super::super::page::{Flaw, Owner, PAGE_BYTES};
use super::super::shape::{Layout, Shape};
use super::outdated::outdated;
use super::split_off::decided;
use super::table::Table;
use super::{Pool, PoolError, Registry};

/// The disks of one pool, all of them, as their labels say.
pub struct Found {
    core: Core,
    /// In the order of their groups and UUIDs.
    disks: Vec<(Arc<dyn Backing>, Label, Layout)>,
    /// What the labels at their fronts say.
    fronts: BTreeMap<[u8; 16], u64>,
    /// The label that was written last.
    newest: Label,
    /// How many are not here.
    absent: u16,
    /// Disks that have left.
    left: Vec<(Arc<dyn Backing>, Label)>,
    /// No failure group that is all here has everything.
    is_behind: bool,
}

/// On what terms a pool is opened.
#[derive(Default)]
pub struct Terms {
    /// The pool gets a higher epoch than this.
    pub epoch: u64,
    /// Also where disks are missing, as long as a failure group is whole.
    pub may_lack: bool,
    /// What else remembers stale copies.
    pub registry: Option<Rc<dyn Registry>>,
}

impl Found {
    pub fn id(&self) -> Owner {
        self.newest.pool
    }

    pub fn name(&self) -> &str {
        &self.newest.pool_name
    }

    pub fn shape(&self) -> Shape {
        self.newest.shape
    }

    /// Of the last time that it was opened.
    pub fn epoch(&self) -> u64 {
        self.newest.epoch
    }

    /// The labels of its disks.
    pub fn labels(&self) -> impl Iterator<Item = &Label> {
        self.disks.iter().map(|(_, label, _)| label)
    }

    /// Whether the pool was used without this disk, so that it does not know of everything.
    pub fn is_outdated(&self, label: &Label) -> bool {
        label.epoch < self.newest.missed
    }

    /// Disks that are old copies. None has the newest label at its front before all have it at
    /// their ends, but one that is about to join, of which the others know nothing.
    pub fn old_copies(&self) -> impl Iterator<Item = &Label> {
        let front = |label: &Label| self.fronts.get(&label.pv).copied().unwrap_or(0);
        let newest = self.labels().max_by_key(|label| front(label));
        let is_joining = |one: &Label| {
            let others = || self.labels().filter(|label| label.pv != one.pv);
            others().all(|it| it.epoch < front(one) && it.members < one.members)
        };
        let joining = newest.filter(|label| is_joining(label)).map(|label| label.pv);
        let others = self.labels().filter(move |label| Some(label.pv) != joining);
        let last = others.map(front).max().unwrap_or(0);
        // Who was away when it was forced does not know of that.
        let is_away = |label: &Label| self.is_outdated(label) || label.epoch < self.newest.forced;
        self.labels().filter(move |label| label.epoch < last && !is_away(label))
    }

    /// Others, which are not here, may have more: it is not opened unless it is forced.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Refuses that.
    pub fn must_have_everything(&self) -> Result<(), PoolError> {
        let (wanted, found) = (self.newest.members, self.disks.len());
        (!self.is_behind).then_some(()).ok_or(PoolError::Behind { wanted, found })
    }

    /// Those that are not here may have LUs that nobody here knows of.
    pub fn may_know_less(&self) -> bool {
        self.is_behind || self.newest.forced > 0 && self.absent > 0
    }

    pub(super) fn newest_label(&self) -> &Label {
        &self.newest
    }

    /// How many of its disks are not here. The others are enough.
    pub fn absent(&self) -> u16 {
        self.absent
    }

    /// Opens it, with an epoch higher than any that its disks or the caller know of. Nobody else
    /// has it open.
    pub async fn open(self, known_epoch: u64) -> Result<Rc<Pool>, PoolError> {
        self.open_on(Terms { epoch: known_epoch, ..Terms::default() }).await
    }

    /// The same on other terms.
    pub async fn open_on(self, terms: Terms) -> Result<Rc<Pool>, PoolError> {
        self.must_have_everything()?;
        if self.absent > 0 && !terms.may_lack {
            let (wanted, found) = (self.newest.members, self.disks.len());
            return Err(PoolError::Missing { wanted, found });
        }
        let (absent, forced) = (self.absent, self.newest.forced);
        let is_first = self.newest.epoch == forced;
        // What a process that was killed has written may be read here and yet be lost later: also
        // that a disk has left, before others say so.
        for (disk, label) in &self.left {
            let of = |error| PoolError::Disk { disk: disk.name().to_owned(), error };
            disk.device(&self.core).io(&Request::flush()).await.map_err(of)?;
            if label.becomes.is_some_and(|becomes| becomes.pool == label.pool) {
                // It is the other pool's now, and does not say so yet.
                let label = Label { becomes: None, ..label.clone() };
                write_label(&*disk.device(&self.core), &label).await.map_err(of)?;
            }
        }
        let pool = self.unopened(terms.epoch);
        pool.registry.replace(terms.registry);
        pool.sync_these(&pool.members()).await?;
        pool.read_tables().await?;
        pool.mark_outdated().await?;
        if is_first && absent > 0 {
            pool.outdo_absent().await?;
        }
        let lus: Vec<[u8; 16]> = pool.lus().into_keys().collect();
        pool.free_unheld(&lus).await?;
        pool.mark_half_granted().await?;
        pool.note_lacking_all();
        pool.leave_to_absent();
        pool.note_whole_groups();
        pool.count_members();
        let failed = |(_, error)| error;
        pool.write_labels(&pool.members()).await.map_err(failed)?;
        if absent > 0 {
            // Known only when all that are here have the epoch: none of them is taken for missing.
            pool.missed.set(pool.epoch());
            pool.write_labels(&pool.members()).await.map_err(failed)?;
        } else if forced > 0 {
            // Only now as well: what is unknown to some is kept until none of them is outdated.
            pool.end_force().await?;
        }
        Ok(pool)
    }

    /// The same before anything of it was read or written.
    pub(super) fn unopened(self, known_epoch: u64) -> Rc<Pool> {
        let Self { core, disks, newest, absent, fronts: _, left, is_behind: _ } = self;
        let (mut all, mut tables) = (Vec::new(), Vec::new());
        let outdated = outdated(&disks.iter().map(|(_, label, _)| label).collect::<Vec<_>>());
        for ((backing, label, layout), outdated) in disks.into_iter().zip(outdated) {
            let is_behind = label.is_behind || outdated > 0;
            let as_of = label.as_of.or(Some(label.epoch).filter(|_| outdated > 0));
            let label = Label { is_behind, as_of, becomes: None, ..label };
            let mut table = Table::new(backing.name(), label, layout);
            table.outdated = outdated;
            tables.push(table);
            all.push((backing, layout));
        }
        let epoch = newest.epoch.max(known_epoch) + 1;
        let lineage = newest.lineage();
        let shared = Shared::new(all, (lineage.origin(), newest.shape));
        let what = (lineage, newest.pool_name, newest.shape);
        let pool = Pool::new(&core, what, shared, tables, epoch);
        pool.missed.set(newest.missed);
        pool.forces.set(newest.forces);
        pool.forced.set(newest.forced);
        pool.count_absent(absent);
        let became = left.iter().filter(|(_, label)| label.was_of(&newest.pool));
        pool.became.borrow_mut().extend(became.map(|(_, label)| (label.group, label.pool)));
        pool.abandoned.borrow_mut().extend(left.iter().map(|(_, label)| label.pv));
        pool
    }
}

impl Pool {
    /// Looks which pool these disks are, without writing anything.
    pub async fn find(core: &Core, backings: Vec<Arc<dyn Backing>>) -> Result<Found, PoolError> {
        let found = Self::find_some(core, backings).await?;
        found.must_have_everything().map(|()| found)
    }

    /// The same, also where what is here lacks something that others have.
    pub async fn find_some(
        core: &Core,
        backings: Vec<Arc<dyn Backing>>,
    ) -> Result<Found, PoolError> {
        let mut labels: Vec<(Arc<dyn Backing>, Label)> = Vec::new();
        let mut fronts = BTreeMap::new();
        for backing in backings {
            let (label, front) = read_label(core, &backing).await?;
            fronts.extend(front.map(|epoch| (label.pv, epoch)));
            if let Some((other, _)) = labels.iter().find(|(_, known)| known.pv == label.pv) {
                let (disk, other) = (backing.name().to_owned(), other.name().to_owned());
                return Err(PoolError::Twice { disk, other });
            }
            labels.push((backing, label));
        }
        let mut labels = decided(labels);
        let has_gone = gone(&labels);
        let members = labels.iter().map(|(_, label)| label).filter(|label| !has_gone(label));
        let newest = members.max_by_key(|label| (label.epoch, label.missed, label.forced));
        let Some(newest) = newest.cloned() else {
            return Err(PoolError::Missing { wanted: 1, found: 0 });
        };
        // One that has left is counted by those that do not know it yet.
        let left_in = |label: &Label| match label.was.filter(|_| !label.has_left()) {
            Some(was) => was.epoch,
            None => label.epoch,
        };
        let is_counted = |label: &Label| !has_gone(label) || left_in(label) > newest.epoch;
        let counted = labels.iter().filter(|(_, label)| is_counted(label)).count();
        let left = labels.extract_if(.., |(_, label)| has_gone(label)).collect();
        let is_all = counted == usize::from(newest.members);
        let absent = newest.members.saturating_sub(counted as u16);
        let is_current = |label: &&Label| label.epoch >= newest.missed;
        let current: Vec<&Label> = labels.iter().map(|(_, it)| it).filter(is_current).collect();
        let (wanted, found) = (newest.members, labels.len());
        if counted > usize::from(wanted) {
            let is_replaced = current.len() == usize::from(wanted);
            let mut outdated = labels.iter().filter(|(_, label)| !is_current(&label));
            return Err(match outdated.next().filter(|_| is_replaced) {
                Some((backing, _)) => PoolError::Replaced { disk: backing.name().to_owned() },
                None => PoolError::Missing { wanted, found },
            });
        }
        // Where all are here, each LU has what it needs, or says what it lacks.
        let is_behind = !is_all && !has_whole_group(&current, has_everything);
        if is_behind && !has_whole_group(&current, |_| true) {
            return Err(PoolError::Missing { wanted, found });
        }
        // Those that know everything come first.
        labels.sort_by_key(|(_, label)| (label.epoch < newest.missed, label.group, label.pv));
        let mut disks = Vec::new();
        for (backing, label) in labels {
            let disk = backing.name().to_owned();
            if label.pool != newest.pool {
                let (found, wanted) = (label.pool_name, newest.pool_name);
                return Err(PoolError::OtherPool { disk, found, wanted });
            }
            let is = backing.device(core).geometry().size;
            if is < label.size {
                return Err(PoolError::Shrunk { disk, was: label.size, is });
            }
            let layout = Layout::new(label.shape, label.size)
                .map_err(|error| PoolError::Unfit { disk, error })?;
            disks.push((backing, label, layout));
        }
        Ok(Found { core: core.clone(), disks, fronts, newest, absent, left, is_behind })
    }

    /// Opens a pool from its disks.
    pub async fn open(core: &Core, backings: Vec<Arc<dyn Backing>>) -> Result<Rc<Self>, PoolError> {
        Self::find(core, backings).await?.open(0).await
    }
}

/// Tells which of these disks have left the pool that the others are.
fn gone<T>(labels: &[(T, Label)]) -> impl Fn(&Label) -> bool + use<T> {
    let members = labels.iter().map(|(_, label)| label).filter(|label| !label.has_left());
    let pools: BTreeSet<Owner> = members.map(|label| label.pool).collect();
    move |label| label.has_left() || pools.iter().any(|pool| label.was_of(pool))
}

/// Whether there is a failure group with all its disks, each of which is such a one.
pub(super) fn has_whole_group(labels: &[&Label], is_such: impl Fn(&Label) -> bool) -> bool {
    let is_whole = |label: &&Label| {
        let of_group = |other: &&&Label| other.group == label.group && is_such(other);
        let of_group = labels.iter().filter(of_group).count();
        label.group_members > 0 && of_group >= usize::from(label.group_members)
    };
    labels.iter().any(is_whole)
}

/// Whoever opened the pool without the others would take what it does not know for gone.
fn has_everything(label: &Label) -> bool {
    !label.is_behind
}

/// The label of a disk, the newer of those at its two ends; and the epoch of the one at its front.
pub async fn read_label(
    core: &Core,
    backing: &Arc<dyn Backing>,
) -> Result<(Label, Option<u64>), PoolError> {
    let found = read_ends(core, backing).await?;
    let front = found[0].as_ref().ok().map(|label| label.epoch);
    let newest = found.iter().flatten().max_by_key(|label| label.epoch).cloned();
    let why = || found.iter().find_map(|label| label.clone().err());
    let why = || why().unwrap_or(Unlabelled::Flaw(Flaw::Blank));
    let newest = newest.ok_or_else(|| {
        let disk = backing.name().to_owned();
        PoolError::Unlabelled { disk, error: why() }
    });
    Ok((newest?, front))
}

/// Writes both labels of a disk, that at its end first, durably.
async fn write_label(device: &dyn Device, label: &Label) -> Result<(), Error> {
    let size = device.geometry().size.min(label.size);
    for (end, at) in [(End::Back, last_page(size)), (End::Front, 0)] {
        let buffer = Buffer::from_bytes(label.encode(end).bytes());
        device.io(&Request::write(at, buffer.sgl())).await?;
        device.io(&Request::flush()).await?;
    }
    Ok(())
}

/// What stands where the two labels of a disk are, the one at its front first.
pub async fn read_ends(
    core: &Core,
    backing: &Arc<dyn Backing>,
) -> Result<[Result<Label, Unlabelled>; 2], PoolError> {
    let device = backing.device(core);
    let of = |error| PoolError::Disk { disk: backing.name().to_owned(), error };
    let size = device.geometry().size;
    let last = last_page(size);
    let front = read_page(&*device, 0).await.map_err(of)?;
    let back = read_page(&*device, last).await.map_err(of)?;
    Ok([Label::decode(&front, End::Front), Label::decode(&back, End::Back)])
}

fn last_page(size: u64) -> u64 {
    (size / PAGE_BYTES as u64).saturating_sub(1) * PAGE_BYTES as u64
}
