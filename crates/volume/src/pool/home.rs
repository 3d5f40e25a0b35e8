//! A pool at home: its labels and slab tables, and who gets which slab. It lives on one core; LUs
//! ask it for slabs by message, and seldom.
//!
//! A grant is in the slab table, durably, before it is told to anybody. The label carries the epoch
//! of the pool, which grows with every opening and is durable before anything is written under it:
//! owners of LUs have it as theirs, so that no owner ever has the epoch of one before.

mod copies;
mod damage;
mod find;
mod look;
mod members;
mod scrub;
mod stale;
mod table;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use block::Error;
use rt::sync::Notify;
use rt::{Core, Placed};

use super::disks::{Backing, Disks, Shared};
use super::label::{End, Label, Unlabelled};
use super::memory::Memory;
use super::page::{Flaw, Header, Owner, PAGE_BYTES, newest};
use super::places::{Copy, Home, SLABS_MAX, State};
use super::shape::{GRANTS_PER_PAGE, Layout, Shape, Unfit};
use super::slabs::{self, Grant, Slab, TableHeader};
use table::{Standing, Table};

pub use copies::Whither;
pub use damage::{Damaged, Damages};
pub use find::{Found, Terms, read_ends, read_label};
pub use look::TableFlaw;
pub use members::DiskUse;
pub use scrub::Looked;
pub use stale::{Noted, Registry};

/// An LU may be opened so often while its pool is.
const OPENINGS_BITS: u32 = 32;

/// The epoch of an LU's first owner under this one of its pool.
pub fn first_epoch(epoch: u64) -> u64 {
    epoch << OPENINGS_BITS
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
    #[error("the pool has {wanted} disks, and {found} are here")]
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
    #[error("LU {0:02x?} is open: close it first")]
    Open([u8; 16]),
    #[error("the pool was closed")]
    Closed,
}

/// The one change of the tables that is under way.
struct Changing<'a>(&'a Pool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.is_changing.set(false);
        self.0.changed.notify();
    }
}

/// The right to be the owner of an LU, until it is dropped.
pub struct Tenure {
    /// Higher than that of any owner before.
    pub epoch: u64,
    /// There was one before since the pool was opened.
    pub is_again: bool,
    _held: Arc<()>,
}

/// Who owned an LU since the pool was opened.
#[derive(Default)]
struct Owned {
    times: u64,
    by: Weak<()>,
}

/// What one place of a page of a table says.
type ReadPage = Result<(Header, Vec<Slab>), Flaw>;

fn newest_of(read: &[ReadPage]) -> Result<usize, Flaw> {
    newest([0, 1].map(|place| read[place].as_ref().map(|it| it.0).map_err(|flaw| *flaw)))
}

pub struct Pool {
    core: Core,
    pub shared: Arc<Shared>,
    /// None when it was closed.
    disks: RefCell<Option<Rc<Disks>>>,
    id: Owner,
    name: String,
    shape: Shape,
    epoch: Cell<u64>,
    /// The last one that all its disks have: LUs have owners of no later one, so that a disk with
    /// less than an LU tells of is an old copy.
    settled: Cell<u64>,
    /// The last epoch in which a disk was missing.
    missed: Cell<u64>,
    /// Disks that are not here, by their groups as far as those are known.
    absent: RefCell<BTreeMap<Option<u16>, u16>>,
    tables: RefCell<Vec<Table>>,
    lus: RefCell<BTreeMap<[u8; 16], Granted>>,
    /// Where to look for the next number that is not in use: one that is has a place.
    next_number: Cell<u32>,
    /// Generations of places whose grants may be on their disks, and do not count: by number.
    retracted: RefCell<BTreeMap<u32, u32>>,
    /// Copies of LUs that may be current by what the disks say, and are not.
    undecided: RefCell<BTreeSet<([u8; 16], u16)>>,
    owned: RefCell<BTreeMap<[u8; 16], Owned>>,
    /// One change of the tables at a time.
    is_changing: Cell<bool>,
    changed: Notify,
    /// Hears of every change of what is free.
    watcher: RefCell<Option<Watcher>>,
    registry: RefCell<Option<Rc<dyn Registry>>>,
    /// For the maps of its LUs.
    memory: RefCell<Arc<Memory>>,
    /// Copies of LUs may lack something.
    may_lack: Cell<bool>,
    mending: Notify,
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
        let (mut all, mut tables) = (Vec::new(), Vec::new());
        for NewDisk { backing, pv, group } in disks.into_iter().map(Into::into) {
            let size = backing.device(core).geometry().size;
            let layout = Layout::new(shape, size)
                .map_err(|error| PoolError::Unfit { disk: backing.name().to_owned(), error })?;
            let label = label_of((id, &name, shape), (pv, group, size));
            tables.push(Table::new(backing.name(), label, layout));
            all.push((backing, layout));
        }
        let shared = Shared::new(all, (id, shape));
        let pool = Self::new(core, (id, name, shape), shared, tables, 1);
        let disks: Vec<u32> = pool.members();
        pool.count_members();
        pool.blank(&disks).await?;
        pool.write_labels(&disks).await?;
        Ok(pool)
    }

    /// Writes empty tables, and blanks where labels will be: nothing of a pool that was here before
    /// is left to be found.
    async fn blank(&self, disks: &[u32]) -> Result<(), PoolError> {
        self.unlabel(disks).await?;
        for &disk in disks {
            for page in 0..self.layout(disk).table_pages() {
                self.write_table(disk, page).await?;
                self.write_table(disk, page).await?;
            }
        }
        self.sync().await
    }

    async fn unlabel(&self, disks: &[u32]) -> Result<(), PoolError> {
        let blank = super::page::Page::of_bytes(&[0; PAGE_BYTES]);
        for &disk in disks {
            for at in self.layout(disk).labels() {
                self.write(disk, at, &blank).await?;
            }
        }
        self.sync().await
    }

    fn new(
        core: &Core,
        (id, name, shape): (Owner, String, Shape),
        shared: Arc<Shared>,
        tables: Vec<Table>,
        epoch: u64,
    ) -> Rc<Self> {
        let disks = RefCell::new(Some(shared.on(core)));
        let pool = Rc::new(Self {
            core: core.clone(),
            shared,
            disks,
            id,
            name,
            shape,
            epoch: Cell::new(epoch),
            settled: Cell::new(epoch),
            missed: Cell::new(0),
            absent: RefCell::default(),
            tables: RefCell::new(tables),
            lus: RefCell::default(),
            next_number: Cell::new(0),
            retracted: RefCell::default(),
            undecided: RefCell::default(),
            owned: RefCell::default(),
            is_changing: Cell::new(false),
            changed: Notify::new(),
            watcher: RefCell::default(),
            registry: RefCell::default(),
            memory: RefCell::default(),
            may_lack: Cell::new(true),
            mending: Notify::new(),
            damages: RefCell::default(),
            damaged: Notify::new(),
        });
        pool.shared.belong_to(Placed::new(core, pool.clone()));
        pool
    }

    pub fn id(&self) -> Owner {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Higher than that of any time before that it was open, and than before its disks changed.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
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
        let (held, is_again) = (Arc::new(()), owned.times > 0);
        *owned = Owned { times: owned.times + 1, by: Arc::downgrade(&held) };
        let epoch = first_epoch(self.settled.get()) + owned.times;
        Ok(Tenure { epoch, is_again, _held: held })
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
        self.damaged.notify();
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

    /// Slabs that the pool has, and those of them that are free: as many as the failure group has
    /// that has the fewest. A disk that leaves has those only that are still used.
    pub fn slabs(&self) -> (u64, u64) {
        let tables = self.tables.borrow();
        let of = |group: u16, count: fn(&Table) -> u64| -> u64 {
            tables.iter().filter(|table| table.label.group == group).map(count).sum()
        };
        let least = |count: fn(&Table) -> u64| {
            stale::groups_of(&tables).into_iter().map(|group| of(group, count)).min().unwrap_or(0)
        };
        (least(|table| (table.used() + table.room()).into()), least(|table| table.room().into()))
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
            let stale = self.stale_groups(lu);
            let takes = |group: &u16| {
                let is_one = |table: &Table| table.label.group == *group && table.takes();
                !stale.contains(group) && tables.iter().any(is_one)
            };
            let groups: Vec<u16> = stale::groups_of(tables).into_iter().filter(takes).collect();
            let (mut changed, mut slabs) = (Vec::new(), 0);
            while slabs < count
                && let Some(disks) = roomiest(tables, &groups)
                && let Some(number) = self.free_number()
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
        let slabs: Vec<u32> = granted.iter().map(|(number, _)| *number).collect();
        if slabs.is_empty() { Err(PoolError::Full) } else { Ok(slabs) }
    }

    /// Takes all slabs of an LU back, which is not open.
    pub async fn revoke(&self, lu: [u8; 16]) -> Result<(), PoolError> {
        if self.owned.borrow().get(&lu).is_some_and(|owned| owned.by.strong_count() > 0) {
            return Err(PoolError::Open(lu));
        }
        let numbers = self.granted(lu).unwrap_or_default().slabs;
        self.take_back(lu, &numbers).await?;
        self.lus.borrow_mut().remove(&lu);
        Ok(())
    }

    /// Takes slabs of an LU back, of which its owner says that nobody uses them or ever will.
    pub async fn take_back(&self, lu: [u8; 16], numbers: &[u32]) -> Result<(), PoolError> {
        let first = self.granted(lu).unwrap_or_default().first;
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
            granted.slabs.retain(|number| !numbers.contains(number));
        }
        Ok(())
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

    fn free_number(&self) -> Option<u32> {
        let next = self.next_number.get();
        let is_free = |number: &u32| !self.shared.places.is_known(*number);
        let found = (next..SLABS_MAX).chain(0..next).find(is_free)?;
        self.next_number.set(found + 1);
        Some(found)
    }

    /// Changes the tables, writes what has changed, and gives what was said of that. What cannot be
    /// written leaves slabs that are nobody's until the pool is opened again.
    async fn change<T>(
        &self,
        f: impl FnOnce(&mut Vec<Table>) -> Vec<(Home, T)>,
    ) -> Result<Vec<T>, PoolError> {
        self.change_in_turns(|tables| vec![f(tables)]).await
    }

    /// The same of changes that are written one after the other.
    async fn change_in_turns<T>(
        &self,
        f: impl FnOnce(&mut Vec<Table>) -> Vec<Vec<(Home, T)>>,
    ) -> Result<Vec<T>, PoolError> {
        let _changing = self.changing().await;
        let _disks = self.disks()?;
        let turns = f(&mut self.tables.borrow_mut());
        let mut written = Ok(());
        for changed in &turns {
            if written.is_ok() {
                written = self.write_changed(changed.iter().map(|(home, _)| *home)).await;
            }
        }
        self.tell_watcher();
        written?;
        Ok(turns.into_iter().flatten().map(|(_, said)| said).collect())
    }

    fn tell_watcher(&self) {
        let watcher = self.watcher.borrow().clone();
        if let Some(watcher) = watcher {
            watcher(self);
        }
    }

    /// Waits until nobody changes the tables; nobody else does until this is dropped.
    async fn changing(&self) -> Changing<'_> {
        self.changed.until(|| !self.is_changing.get()).await;
        self.is_changing.set(true);
        Changing(self)
    }

    async fn write_changed(&self, changed: impl Iterator<Item = Home>) -> Result<(), PoolError> {
        let page = |home: Home| (home.disk, u64::from(home.index) / GRANTS_PER_PAGE);
        let pages: BTreeSet<(u32, u64)> = changed.map(page).collect();
        // What counts is durable at one place before it is at both: so there is always one, and a
        // page that rots later has a twin that says the same.
        for _ in 0..2 {
            for &(disk, page) in &pages {
                self.write_table(disk, page).await?;
            }
            if !pages.is_empty() {
                self.sync().await?;
            }
        }
        Ok(())
    }

    /// Writes a page of a table at the place that was not written last.
    async fn write_table(&self, disk: u32, page: u64) -> Result<(), PoolError> {
        let (image, at) = {
            let tables = self.tables.borrow();
            let table = &tables[disk as usize];
            let (place, turn) = table.turns[page as usize];
            let (pool, epoch) = (self.id, self.epoch.get());
            let header = TableHeader { pool, page, turn: turn + 1, epoch };
            let at = table.layout.table_places(page)[1 - place];
            (slabs::encode(header, table.page_of(page)), at)
        };
        self.write(disk, at, &image).await?;
        let (place, turn) = &mut self.tables.borrow_mut()[disk as usize].turns[page as usize];
        (*place, *turn) = (1 - *place, *turn + 1);
        Ok(())
    }

    async fn read_tables(&self) -> Result<(), PoolError> {
        let mut doubtful = BTreeSet::new();
        for disk in self.members() {
            let layout = self.layout(disk);
            for page in 0..layout.table_pages() {
                let (place, turn, slabs, is_whole) = self.read_table(disk, page).await?;
                self.tables.borrow_mut()[disk as usize].turns[page as usize] = (place, turn);
                if !is_whole {
                    doubtful.insert((disk, page));
                }
                let start = (page * GRANTS_PER_PAGE) as u32;
                for (index, slab) in (start..layout.slabs()).zip(slabs) {
                    if let Some(left) = self.take_slab(Home { disk, index }, slab)? {
                        doubtful.insert((left.disk, u64::from(left.index) / GRANTS_PER_PAGE));
                    }
                }
            }
        }
        self.find_stale();
        // A write was cut short, or one of two has rotted: both are good again. Or a slab has left.
        for (disk, page) in doubtful {
            self.write_table(disk, page).await?;
        }
        Ok(())
    }

    /// Takes what a table says of a slab. Gives a place that a slab has left.
    fn take_slab(&self, home: Home, slab: Slab) -> Result<Option<Home>, PoolError> {
        let mut tables = self.tables.borrow_mut();
        tables[home.disk as usize].load(home.index, slab);
        let Slab::Granted(grant) = slab else { return Ok(None) };
        if tables[home.disk as usize].is_outdated {
            if !self.take_outdated(&tables, &grant, home) {
                tables[home.disk as usize].free(home.index);
            }
            return Ok(None);
        }
        let left = self.settle(&mut tables, &grant, home)?;
        if let Some(left) = left {
            tables[left.disk as usize].free(left.index);
        }
        Ok(left)
    }

    /// Takes a slab into account that a table names. Of two places of one slab the one counts that
    /// was granted later: it was whole then. The other one is what it has left.
    fn settle(
        &self,
        tables: &mut [Table],
        grant: &Grant,
        home: Home,
    ) -> Result<Option<Home>, PoolError> {
        let number = grant.number;
        let contradicts = |tables: &[Table], other: Home| {
            let name = |home: Home| tables[home.disk as usize].name.clone();
            Err(PoolError::Contradiction { number, disk: name(home), other: name(other) })
        };
        if number >= SLABS_MAX {
            return contradicts(tables, home);
        }
        let group = tables[home.disk as usize].label.group;
        let copy = Copy { home, group, state: State::Whole };
        let known: Vec<Copy> = self.shared.places.all(number).collect();
        for other in &known {
            let is_same = copies::grant_at(tables, other.home).is_some_and(|first| {
                let is_one = (first.lu, first.is_first) == (grant.lu, grant.is_first);
                is_one && (other.group != group || first.generation != grant.generation)
            });
            if !is_same {
                return contradicts(tables, other.home);
            }
        }
        if known.is_empty() {
            self.list(grant.lu, number, grant.is_first);
        }
        let before = known.into_iter().find(|other| other.group == group);
        let is_newer = |other: &Copy| {
            let first = copies::grant_at(tables, other.home);
            first.is_some_and(|first| first.generation > grant.generation)
        };
        match before {
            Some(other) if is_newer(&other) => return Ok(Some(home)),
            Some(other) => self.shared.places.remove(number, other.home),
            None => {}
        }
        if !self.shared.places.add(number, copy) {
            return contradicts(tables, home);
        }
        Ok(before.map(|other| other.home))
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
    async fn read_places(&self, disk: u32, page: u64) -> Result<Vec<ReadPage>, PoolError> {
        let places = self.layout(disk).table_places(page);
        let mut read = Vec::new();
        for at in places {
            let image =
                self.disks()?.read_own(disk, at).await.map_err(|error| self.of(disk, error))?;
            read.push(slabs::decode(&image, &self.id, page));
        }
        Ok(read)
    }

    /// Writes labels with the pool's epoch, the one at the end of each disk first.
    async fn write_labels(&self, disks: &[u32]) -> Result<(), PoolError> {
        for end in [End::Back, End::Front] {
            for &disk in disks {
                let (label, at) = {
                    let table = &self.tables.borrow()[disk as usize];
                    let (epoch, missed) = (self.epoch.get(), self.missed.get());
                    let label = Label { epoch, missed, ..table.label.clone() };
                    (label, table.layout.labels()[end as usize])
                };
                self.write(disk, at, &label.encode(end)).await?;
            }
            self.sync().await?;
        }
        Ok(())
    }

    fn layout(&self, disk: u32) -> Layout {
        self.tables.borrow()[disk as usize].layout
    }

    /// The numbers of its disks.
    fn members(&self) -> Vec<u32> {
        let tables = self.tables.borrow();
        let is_member = |disk: &u32| tables[*disk as usize].standing != Standing::Gone;
        (0..tables.len() as u32).filter(is_member).collect()
    }

    async fn write(&self, disk: u32, at: u64, page: &super::page::Page) -> Result<(), PoolError> {
        self.disks()?.write_own(disk, at, page).await.map_err(|error| self.of(disk, error))
    }

    async fn sync(&self) -> Result<(), PoolError> {
        let of = |error| PoolError::Disk { disk: self.name.clone(), error };
        self.disks()?.sync().await.map_err(of)
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
    (pool, name, shape): (Owner, &str, Shape),
    (pv, group, size): ([u8; 16], u16, u64),
) -> Label {
    let (pool_name, members, group_members) = (name.to_owned(), 1, 1);
    let (epoch, missed, is_behind) = (0, 0, false);
    Label {
        pool,
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
