//! A pool at home: its labels and slab tables, and who gets which slab. It lives on one core; LUs
//! ask it for slabs by message, and seldom.
//!
//! A grant is in the slab table, durably, before it is told to anybody. The label carries the epoch
//! of the pool, which grows with every opening and is durable before anything is written under it:
//! owners of LUs have it as theirs, so that no owner ever has the epoch of one before.

mod copies;
mod damage;
mod doubt;
mod find;
mod force;
mod forced;
mod look;
mod lost;
mod members;
mod missed;
mod outdated;
mod room;
mod said;
mod scrub;
mod split;
mod split_off;
mod stale;
mod table;
mod tables;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use block::Error;
use rt::sync::{Notify, Turns};
use rt::{Core, Placed};

use super::disks::{Backing, Disks, Shared};
use super::label::{Label, Unlabelled};
use super::lineage::Lineage;
use super::memory::Memory;
use super::page::{Flaw, Header, Owner, PAGE_BYTES};
use super::places::{Copy, GROUP_NUMBERS, Home, State, numbers_of};
use super::root::Site;
use super::shape::{Layout, Shape, Unfit};
use super::slabs::{Grant, Slab};
use table::Table;

pub use copies::Whither;
pub use damage::{Damaged, Damages};
pub use find::{Found, Terms, read_ends, read_label};
pub use force::{CopyAbout, Unforced};
pub use forced::{CopyHere, GroupAbout};
pub use look::TableFlaw;
pub use lost::LostDisk;
pub use members::DiskUse;
pub use scrub::Looked;
pub use split_off::{SplitOff, decided};
pub use stale::{GroupBehind, Noted, Registry};

/// An LU may be opened so often while its pool is.
const OPENINGS_BITS: u32 = 32;

/// The epoch of an LU's first owner under this one of its pool.
pub fn first_epoch(epoch: u64) -> u64 {
    epoch << OPENINGS_BITS
}

/// The epoch of the pool under which an LU's owner has this one.
pub fn pool_epoch(owner: u64) -> u64 {
    owner >> OPENINGS_BITS
}

/// What a new pool is.
#[derive(Clone, Debug)]
pub struct NewPool {
    pub id: Owner,
    pub name: String,
    pub shape: Shape,
}

/// A disk that is to be one of a pool.
pub struct NewDisk {
    pub backing: Arc<dyn Backing>,
    pub pv: [u8; 16],
    /// Its failure group, below [`GROUP_NUMBERS`](super::places::GROUP_NUMBERS).
    pub group: u16,
}

/// Where there is one group only.
impl From<(Arc<dyn Backing>, [u8; 16])> for NewDisk {
    fn from((backing, pv): (Arc<dyn Backing>, [u8; 16])) -> Self {
        Self { backing, pv, group: 0 }
    }
}

/// An LU as the slab tables know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The one with its root. `None`: its creation or its deletion was cut short.
    pub first: Option<u32>,
    pub slabs: Vec<u32>,
    /// Taken back, and perhaps not so on their disks: nobody's until the pool is opened again.
    pub leaving: Vec<u32>,
    /// Failure groups in which its copy has missed something, or has no first slab.
    pub stale: Vec<u16>,
}

/// Why a pool is not opened, or cannot give what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("{disk}: {error}")]
    Disk { disk: String, error: Error },
    #[error("{disk} is unfit for this pool: {error}")]
    Unfit { disk: String, error: Unfit },
    #[error("{disk} has no label that can be read: {error}")]
    Unlabelled { disk: String, error: Unlabelled },
    #[error("{disk} is of pool '{found}', not of '{wanted}'")]
    OtherPool { disk: String, found: String, wanted: String },
    #[error("{disk} and {other} are the same disk of the pool; one of them is a copy: remove it")]
    Twice { disk: String, other: String },
    #[error("{disk} had {was} bytes when it was last used and has {is} now: a part is missing")]
    Shrunk { disk: String, was: u64, is: u64 },
    #[error("only {found} of the pool's {wanted} disks found here")]
    Missing { wanted: u16, found: usize },
    #[error(
        "the pool has {wanted} disks, and the {found} that are here lack some of what others have"
    )]
    Behind { wanted: u16, found: usize },
    #[error("{disk} was replaced in the pool by another disk, and is none of its own any more")]
    Replaced { disk: String },
    #[error("{disk}: page {page} of its slab table cannot be read: {flaw}")]
    Table { disk: String, page: u64, flaw: Flaw },
    #[error("slab {number} is on {disk} and on {other}")]
    Contradiction { number: u32, disk: String, other: String },
    #[error("{disk} has slabs of LUs, or is the pool's last disk")]
    InUse { disk: String },
    #[error("the pool has no free slab")]
    Full,
    #[error("slab {0} has two places until the pool is opened again")]
    TwoPlaces(u32),
    #[error("slab {0} has no such place")]
    NoPlace(u32),
    #[error("{disk} has the only copy that is up to date")]
    LastCopy { disk: String },
    #[error("failure group {0} is the only one of the pool")]
    LastGroup(u16),
    #[error("failure group {0} does not have everything")]
    GroupLacks(u16),
    #[error("no copy of LU {0:02x?} that has everything is here")]
    NoCopy([u8; 16]),
    #[error("a copy of LU {0:02x?} is not all there")]
    NotWhole([u8; 16]),
    #[error(
        "copies of LU {0:02x?} have missed something too often without being brought up to date"
    )]
    TooOld([u8; 16]),
    #[error("the records of the pool cannot be written: {0}")]
    Registry(Error),
    #[error("LU {0:02x?} is not in this pool")]
    NoLu([u8; 16]),
    #[error("LU {0:02x?} is just being made or opened")]
    Opening([u8; 16]),
    #[error("LU {0:02x?} is open: close it first")]
    Open([u8; 16]),
    #[error("the pool was closed")]
    Closed,
}

/// The right to be the owner of an LU, until it is dropped.
pub struct Tenure {
    /// Higher than that of any owner before.
    pub epoch: u64,
    /// There was one before since the pool was opened.
    pub is_again: bool,
    _held: Arc<()>,
    /// None: what an owner before has left is settled.
    settling: Option<Arc<()>>,
}

impl Tenure {
    /// Failure groups may leave from now on.
    pub fn settled(&mut self) {
        self.settling = None;
    }
}

/// Who owned an LU since the pool was opened.
#[derive(Default)]
struct Owned {
    times: u64,
    by: Weak<()>,
}

/// What one place of a page of a table says.
type ReadPage = Result<(Header, Vec<Slab>), Flaw>;

pub struct Pool {
    core: Core,
    pub shared: Arc<Shared>,
    /// None when it was closed.
    disks: RefCell<Option<Rc<Disks>>>,
    lineage: Lineage,
    name: String,
    shape: Shape,
    /// The last one that all its disks have: LUs have owners of no later one, so that a disk with
    /// less than an LU tells of is an old copy.
    settled: Cell<u64>,
    /// The last epoch in which a disk was missing.
    missed: Cell<u64>,
    /// How often it was forced, and the epoch of that until all disks have been here since.
    forces: Cell<u16>,
    forced: Cell<u64>,
    /// Disks that are not here, by their groups as far as those are known.
    absent: RefCell<BTreeMap<Option<u16>, u16>>,
    /// Disks that nobody waits for any more.
    abandoned: RefCell<BTreeSet<[u8; 16]>>,
    tables: RefCell<Vec<Table>>,
    lus: RefCell<BTreeMap<[u8; 16], Granted>>,
    /// Where to look for the next number that is not in use, of those of each group: one that is
    /// has a place.
    next_numbers: RefCell<[u32; GROUP_NUMBERS as usize]>,
    /// Generations of places whose grants may be on their disks, and do not count: by number.
    retracted: RefCell<BTreeMap<u32, u32>>,
    /// Copies of LUs that may be current by what the disks say, and are not.
    undecided: RefCell<BTreeSet<([u8; 16], u16)>>,
    /// Ages of LUs' copies that may be on disks where they could not be written.
    doubted: RefCell<BTreeSet<([u8; 16], u32)>>,
    owned: RefCell<BTreeMap<[u8; 16], Owned>>,
    /// Of LUs that are open without a disk, or were: since which epoch it is known what they wrote.
    missed_since: RefCell<BTreeMap<[u8; 16], u64>>,
    /// Failure groups that others still count, and whose disks are another pool.
    became: RefCell<BTreeSet<(u16, Owner)>>,
    /// Held for each LU that is being made or opened.
    settling: Arc<()>,
    /// One change of the tables at a time.
    changes: Turns,
    /// Hears of every change of what is free.
    watcher: RefCell<Option<Watcher>>,
    told: Cell<room::Told>,
    /// For whoever waits until something is free.
    room: Notify,
    registry: RefCell<Option<Rc<dyn Registry>>>,
    /// For the maps of its LUs.
    memory: RefCell<Arc<Memory>>,
    /// Copies of LUs may lack something.
    may_lack: Cell<bool>,
    mending: Notify,
    losing: Notify,
    /// LUs that have failed, since somebody has looked.
    failed: RefCell<BTreeSet<Owner>>,
    failing: Notify,
    damages: RefCell<Damages>,
    damaged: Notify,
}

/// Called on the pool's core; it must not wait for anything.
type Watcher = Rc<dyn Fn(&Pool)>;

impl Pool {
    /// Makes a pool of disks.
    pub async fn format(
        core: &Core,
        new: NewPool,
        disks: Vec<impl Into<NewDisk>>,
    ) -> Result<Rc<Self>, PoolError> {
        let NewPool { id, name, shape } = new;
        let lineage = Lineage::new(id, id);
        let (mut all, mut tables) = (Vec::new(), Vec::new());
        for NewDisk { backing, pv, group } in disks.into_iter().map(Into::into) {
            let size = backing.device(core).geometry().size;
            let layout = Layout::new(shape, size)
                .map_err(|error| PoolError::Unfit { disk: backing.name().to_owned(), error })?;
            let label = label_of((lineage, &name, shape), (pv, group, size));
            tables.push(Table::new(backing.name(), label, layout));
            all.push((backing, layout));
        }
        let shared = Shared::new(all, (id, shape));
        let pool = Self::new(core, (lineage, name, shape), shared, tables, 1);
        let disks: Vec<u32> = pool.members();
        pool.count_members();
        pool.blank(&disks).await?;
        pool.write_labels(&disks).await.map_err(|(_, error)| error)?;
        Ok(pool)
    }

    /// Writes empty tables, and blanks where labels will be: nothing of a pool that was here before
    /// is left to be found.
    async fn blank(&self, disks: &[u32]) -> Result<(), PoolError> {
        self.unlabel(disks).await?;
        for _ in 0..2 {
            for &disk in disks {
                for page in 0..self.layout(disk).table_pages() {
                    self.write_table(disk, page).await?;
                }
            }
            self.sync_these(disks).await?;
        }
        Ok(())
    }

    async fn unlabel(&self, disks: &[u32]) -> Result<(), PoolError> {
        let blank = super::page::Page::of_bytes(&[0; PAGE_BYTES]);
        for &disk in disks {
            for at in self.layout(disk).labels() {
                self.write(disk, at, &blank).await?;
            }
        }
        self.sync_these(disks).await
    }

    fn new(
        core: &Core,
        (lineage, name, shape): (Lineage, String, Shape),
        shared: Arc<Shared>,
        tables: Vec<Table>,
        epoch: u64,
    ) -> Rc<Self> {
        let disks = RefCell::new(Some(shared.on(core)));
        shared.epoch.store(epoch, Ordering::Release);
        let pool = Rc::new(Self {
            core: core.clone(),
            shared,
            disks,
            lineage,
            name,
            shape,
            settled: Cell::new(epoch),
            missed: Cell::new(0),
            forces: Cell::new(0),
            forced: Cell::new(0),
            absent: RefCell::default(),
            abandoned: RefCell::default(),
            tables: RefCell::new(tables),
            lus: RefCell::default(),
            next_numbers: RefCell::default(),
            retracted: RefCell::default(),
            undecided: RefCell::default(),
            doubted: RefCell::default(),
            owned: RefCell::default(),
            missed_since: RefCell::default(),
            became: RefCell::default(),
            settling: Arc::default(),
            changes: Turns::default(),
            watcher: RefCell::default(),
            told: Cell::default(),
            room: Notify::new(),
            registry: RefCell::default(),
            memory: RefCell::default(),
            may_lack: Cell::new(true),
            mending: Notify::new(),
            losing: Notify::new(),
            failed: RefCell::default(),
            failing: Notify::new(),
            damages: RefCell::default(),
            damaged: Notify::new(),
        });
        pool.shared.belong_to(Placed::new(core, pool.clone()));
        pool
    }

    pub fn id(&self) -> Owner {
        self.lineage.pool()
    }

    /// Where the root of an LU lies that begins in this slab.
    pub(super) fn site(&self, lu: Owner, first_slab: u32) -> Site {
        Site { lu, shape: self.shape, first_slab, lineage: self.lineage }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Higher than that of any time before that it was open, and than before its disks changed.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Makes somebody the owner of an LU.
    pub fn tenure(&self, lu: [u8; 16]) -> Result<Tenure, PoolError> {
        let mut all = self.owned.borrow_mut();
        let owned = all.entry(lu).or_default();
        if owned.by.strong_count() > 0 {
            return Err(PoolError::Open(lu));
        }
        Ok(self.next_tenure(owned, Arc::new(())))
    }

    /// Makes who owns an LU its owner once more. Nobody else is that in between.
    pub fn tenure_again(&self, lu: [u8; 16]) -> Result<Tenure, PoolError> {
        let mut all = self.owned.borrow_mut();
        let owned = all.entry(lu).or_default();
        let held = owned.by.upgrade().ok_or(PoolError::Closed)?;
        Ok(self.next_tenure(owned, held))
    }

    fn next_tenure(&self, owned: &mut Owned, held: Arc<()>) -> Tenure {
        let is_again = owned.times > 0;
        *owned = Owned { times: owned.times + 1, by: Arc::downgrade(&held) };
        let epoch = first_epoch(self.settled.get()) + owned.times;
        Tenure { epoch, is_again, _held: held, settling: Some(self.settling.clone()) }
    }

    /// Lets go of the disks, so that others may use them, or this process may open the pool again.
    /// Every LU was closed, and is dropped with its devices: they keep what they use of a disk.
    pub async fn close(&self) -> Result<(), PoolError> {
        let is_open = |(_, owned): &(&[u8; 16], &Owned)| owned.by.strong_count() > 0;
        if let Some((lu, _)) = self.owned.borrow().iter().find(is_open) {
            return Err(PoolError::Open(*lu));
        }
        let changing = self.changing().await;
        self.disks.take();
        self.mending.notify();
        self.losing.notify();
        self.failing.notify();
        self.damaged.notify();
        self.room.notify();
        drop(changing);
        self.shared.close().await;
        Ok(())
    }

    /// Its disks were let go.
    pub fn is_closed(&self) -> bool {
        self.disks.borrow().is_none()
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    /// From now on this is told whenever slabs were granted or taken back.
    pub fn watch(&self, watcher: impl Fn(&Pool) + 'static) {
        self.watcher.replace(Some(Rc::new(watcher)));
    }

    /// LUs that are opened from now on keep their maps in this.
    pub fn keep_maps_in(&self, memory: Arc<Memory>) {
        self.memory.replace(memory);
    }

    pub(super) fn memory(&self) -> Arc<Memory> {
        self.memory.borrow().clone()
    }

    /// The LUs that have slabs.
    pub fn lus(&self) -> BTreeMap<[u8; 16], Granted> {
        self.lus.borrow().clone()
    }

    /// How many LUs are in it.
    pub fn lu_count(&self) -> u64 {
        let lus = self.lus.borrow();
        lus.values().filter(|granted| granted.first.is_some()).count() as u64
    }

    /// What this LU has.
    pub fn granted(&self, lu: [u8; 16]) -> Option<Granted> {
        self.lus.borrow().get(&lu).cloned()
    }

    /// Gives an LU so many slabs, or fewer when there are not so many. Each has a place in every
    /// failure group where the LU's copy is not stale.
    pub async fn grant(
        &self,
        lu: [u8; 16],
        count: u64,
        first: bool,
    ) -> Result<Vec<u32>, PoolError> {
        let granted = self.change(|tables| {
            let groups = self.groups_that_take(tables, lu);
            let numbers = self.group_of_numbers(tables, &groups);
            let (mut changed, mut slabs) = (Vec::new(), 0);
            while slabs < count
                && let Some(disks) = roomiest(tables, &groups)
                && let Some(number) = self.free_number(numbers)
            {
                let is_first = first && slabs == 0;
                for disk in disks {
                    let table = &mut tables[disk as usize];
                    let grant =
                        |before| Grant { lu, number, generation: before + 1, is_first, age: 0 };
                    let index = table.take(|generation| Slab::Granted(grant(generation)));
                    let home = Home { disk, index: index.expect("one is free") };
                    let (group, state) = (table.label.group, State::Whole);
                    self.shared.places.add(number, Copy { home, group, state });
                    changed.push((home, (number, is_first)));
                }
                slabs += 1;
            }
            changed
        });
        let mut granted = granted.await?;
        granted.dedup_by_key(|(number, _)| *number);
        granted.iter().for_each(|(number, is_first)| self.list(lu, *number, *is_first));
        self.note_lacking(lu);
        let slabs: Vec<u32> = granted.iter().map(|(number, _)| *number).collect();
        if self.absent() > 0 {
            self.note_reused(&slabs);
        }
        if slabs.is_empty() { Err(PoolError::Full) } else { Ok(slabs) }
    }

    /// Takes all slabs of an LU back, which is not open.
    pub async fn revoke(&self, lu: [u8; 16]) -> Result<(), PoolError> {
        if self.owned.borrow().get(&lu).is_some_and(|owned| owned.by.strong_count() > 0) {
            return Err(PoolError::Open(lu));
        }
        let Granted { slabs, leaving, .. } = self.granted(lu).unwrap_or_default();
        self.take_back(lu, &[slabs, leaving].concat()).await?;
        self.lus.borrow_mut().remove(&lu);
        // What is known of one that is no more does no harm.
        let _ = self.note(vec![(lu, None)]).await;
        Ok(())
    }

    /// Takes slabs of an LU back, of which its owner says that nobody uses them or ever will.
    pub async fn take_back(&self, lu: [u8; 16], numbers: &[u32]) -> Result<(), PoolError> {
        let first = self.granted(lu).unwrap_or_default().first;
        // Whoever opens the LU before that is written does not have them any more.
        self.list_leaving(lu, numbers);
        let freed = self.change_in_turns(|tables| {
            let (mut firsts, mut others) = (Vec::new(), Vec::new());
            for &number in numbers {
                // What has no first one is taken for an LU by nobody.
                let changed = if first == Some(number) { &mut firsts } else { &mut others };
                for Copy { home, .. } in self.shared.places.all(number) {
                    // One that is free already could not be written before.
                    if tables[home.disk as usize].is_granted(home.index, (lu, number)) {
                        tables[home.disk as usize].free(home.index);
                    }
                    changed.push((home, number));
                }
            }
            vec![firsts, others]
        });
        freed.await?.into_iter().for_each(|number| self.shared.places.clear(number));
        if let Some(granted) = self.lus.borrow_mut().get_mut(&lu) {
            granted.leaving.retain(|number| !numbers.contains(number));
        }
        Ok(())
    }

    fn list_leaving(&self, lu: [u8; 16], numbers: &[u32]) {
        if let Some(granted) = self.lus.borrow_mut().get_mut(&lu) {
            let leaving = granted.slabs.extract_if(.., |number| numbers.contains(number));
            granted.leaving.extend(leaving);
        }
    }

    /// An LU has another slab.
    fn list(&self, lu: [u8; 16], number: u32, is_first: bool) {
        let mut lus = self.lus.borrow_mut();
        let lu = lus.entry(lu).or_default();
        lu.slabs.push(number);
        if is_first {
            lu.first = Some(number);
        }
    }

    /// The failure groups where an LU is given slabs: all that have everything of it.
    fn groups_that_take(&self, tables: &[Table], lu: [u8; 16]) -> Vec<u16> {
        let stale = self.stale_groups(lu);
        let is_known = self.lus.borrow().contains_key(&lu);
        let takes =
            |group: u16| tables.iter().any(|table| table.label.group == group && table.takes());
        let mut groups = stale::groups_of(tables);
        groups.retain(|group| !stale.contains(group) && (is_known || takes(*group)));
        groups
    }

    /// Of these groups the one that gives a number: it knows all of its own.
    fn group_of_numbers(&self, tables: &[Table], groups: &[u16]) -> u16 {
        if let Some(numbers) = self.forced_numbers() {
            return numbers;
        }
        let found = groups.iter().find(|group| self.is_all_here(**group)).or(groups.first());
        found.copied().unwrap_or_else(|| stale::groups_of(tables).first().copied().unwrap_or(0))
    }

    fn free_number(&self, group: u16) -> Option<u32> {
        let (all, mut next) = (numbers_of(group), self.next_numbers.borrow_mut());
        let next = &mut next[usize::from(group % GROUP_NUMBERS)];
        let start = all.start + *next;
        let is_free = |number: &u32| !self.shared.places.is_known(*number);
        let found = (start..all.end).chain(all.start..start).find(is_free)?;
        *next = (found - all.start + 1) % (all.end - all.start);
        Some(found)
    }

    fn layout(&self, disk: u32) -> Layout {
        self.tables.borrow()[disk as usize].layout
    }

    /// The numbers of its disks.
    fn members(&self) -> Vec<u32> {
        let tables = self.tables.borrow();
        let is_member = |disk: &u32| tables[*disk as usize].is_here();
        (0..tables.len() as u32).filter(is_member).collect()
    }

    async fn sync_these(&self, disks: &[u32]) -> Result<(), PoolError> {
        let disks = disks.iter().copied().collect();
        self.sync_disks(&disks).await.map_err(|(_, error)| error)
    }

    pub(super) fn disks(&self) -> Result<Rc<Disks>, PoolError> {
        self.disks.borrow().clone().ok_or(PoolError::Closed)
    }

    fn of(&self, disk: u32, error: Error) -> PoolError {
        PoolError::Disk { disk: self.name_of(disk), error }
    }

    /// The disks of these places, each once.
    pub fn names_of(&self, homes: &[Home]) -> Vec<String> {
        let disks: BTreeSet<u32> = homes.iter().map(|home| home.disk).collect();
        disks.into_iter().map(|disk| self.name_of(disk)).collect()
    }

    fn name_of(&self, disk: u32) -> String {
        self.tables.borrow()[disk as usize].name.clone()
    }
}

/// The label of a disk that joins. How many disks there are is counted later.
fn label_of(
    (lineage, name, shape): (Lineage, &str, Shape),
    (pv, group, size): ([u8; 16], u16, u64),
) -> Label {
    let (pool, origin) = (lineage.pool(), lineage.origin());
    let (pool_name, members, group_members) = (name.to_owned(), 1, 1);
    let (epoch, missed, is_behind, becomes, was) = (0, 0, false, None, None);
    let (forces, forced, as_of) = (0, 0, None);
    Label {
        pool,
        origin,
        pool_name,
        pv,
        members,
        group,
        group_members,
        shape,
        size,
        epoch,
        missed,
        is_behind,
        as_of,
        becomes,
        was,
        forces,
        forced,
    }
}

/// In each of these groups the disk with the most room; none when one of them has no room.
fn roomiest(tables: &[Table], groups: &[u16]) -> Option<Vec<u32>> {
    let in_group = |group: &u16| {
        let disks = (0..tables.len()).filter(|disk| tables[*disk].label.group == *group);
        let disk = disks.max_by_key(|disk| tables[*disk].room())?;
        (tables[disk].room() > 0).then_some(disk as u32)
    };
    if groups.is_empty() { None } else { groups.iter().map(in_group).collect() }
}
