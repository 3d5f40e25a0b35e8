//! The disks of a pool as one core sees them: each by itself here, slabs and their copies in
//! `copies`.

mod copies;
mod look;
mod straight;
mod sums;
mod verify;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Buffer, Device, Error, ErrorKind, Request, Sgl};
use rt::{Core, CoreId, Placed};

use super::home::{Pool, PoolError};
use super::journal::Spot;
use super::locks::Locks;
use super::page::{Owner, PAGE_BYTES, Page};
use super::passage::Passage;
use super::places::{Home, Places};
use super::shape::{BLOCK_BYTES, Layout, Shape};
use super::sums::Sums;

pub use copies::Reading;
pub use look::{Looker, Unlike};
pub use straight::{Ours, Straight};
pub use verify::{Bad, Outcome, Seen, Verified};

/// What a disk of a pool lies on: gives each core its device.
pub trait Backing: Send + Sync {
    fn device(&self, core: &Core) -> Rc<dyn Device>;

    /// As an operator knows it.
    fn name(&self) -> &str;
}

/// What all cores share of a pool's disks.
#[derive(Default)]
pub struct Shared {
    pub places: Places,
    pub locks: Locks,
    /// In a pool that keeps checksums.
    pub sums: Option<Sums>,
    /// Of the pool, as labels say it or are about to.
    pub epoch: AtomicU64,
    /// How many are about to go by copies that are in doubt.
    ending_doubts: AtomicU64,
    shape: Shape,
    held: Mutex<HeldDisks>,
}

/// As long as this is kept, what is read in doubt is durable where it is written.
pub struct EndingDoubt(Arc<Shared>);

impl EndingDoubt {
    pub fn new(shared: &Arc<Shared>) -> Self {
        shared.ending_doubts.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for EndingDoubt {
    fn drop(&mut self) {
        self.0.ending_doubts.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What keeps the disks, until they are let go.
#[derive(Default)]
struct HeldDisks {
    /// By their numbers, of which none is used again.
    disks: Vec<Option<(Arc<dyn Backing>, Layout)>>,
    /// Those where nothing is that has to be durable.
    aside: BTreeSet<u32>,
    /// Each core's.
    cores: BTreeMap<CoreId, Placed<Disks>>,
    /// Is told of copies that have missed something.
    pool: Option<Arc<Placed<Pool>>>,
    is_closed: bool,
}

impl Shared {
    pub fn new(disks: Vec<(Arc<dyn Backing>, Layout)>, (pool, shape): (Owner, Shape)) -> Arc<Self> {
        let sums = shape.has_sums().then(|| Sums::new(pool, shape));
        let disks = disks.into_iter().map(Some).collect();
        let held = Mutex::new(HeldDisks { disks, ..HeldDisks::default() });
        Arc::new(Self { held, sums, shape, ..Self::default() })
    }

    /// The disks for this core; none when they were let go.
    pub fn on(self: &Arc<Self>, core: &Core) -> Rc<Disks> {
        let mut held = self.lock();
        if let Some(disks) = held.cores.get(&core.id()).and_then(|placed| placed.here(core)) {
            return disks;
        }
        let mounted = |disk: &Option<(Arc<dyn Backing>, Layout)>| {
            disk.as_ref().map(|(backing, layout)| (backing.device(core), *layout))
        };
        let mounted = RefCell::new(held.disks.iter().map(mounted).collect());
        let (passage, spare, spare_ours) = Default::default();
        let (core_of, shared) = (core.clone(), self.clone());
        let aside = RefCell::new(held.aside.clone());
        let disks =
            Rc::new(Disks { core: core_of, shared, mounted, aside, passage, spare, spare_ours });
        if !held.is_closed {
            held.cores.insert(core.id(), Placed::new(core, disks.clone()));
        }
        disks
    }

    /// Another disk, known to every core when this returns; with its number.
    pub async fn add(&self, backing: Arc<dyn Backing>, layout: Layout) -> u32 {
        let number = {
            let mut held = self.lock();
            held.disks.push(Some((backing.clone(), layout)));
            held.disks.len() - 1
        };
        self.on_all(move |disks| disks.mount(number, &backing, layout)).await;
        number as u32
    }

    /// Lets go of a disk where no slab has a place any more.
    pub async fn remove(&self, disk: u32) {
        self.lock().disks[disk as usize] = None;
        self.on_all(move |disks| disks.mounted.borrow_mut()[disk as usize] = None).await;
    }

    /// Nothing is on this disk that has to be durable, or there is again.
    pub async fn set_aside(&self, disk: u32, is_aside: bool) {
        let set = move |aside: &mut BTreeSet<u32>| match is_aside {
            true => drop(aside.insert(disk)),
            false => drop(aside.remove(&disk)),
        };
        set(&mut self.lock().aside);
        self.on_all(move |disks| set(&mut disks.aside.borrow_mut())).await;
    }

    async fn on_all(&self, f: impl Fn(&Disks) + Clone + Send + 'static) {
        let told: Vec<_> = {
            let held = self.lock();
            let tell = |placed: &Placed<Disks>| {
                let f = f.clone();
                placed.call(move |disks| {
                    f(&disks);
                    std::future::ready(())
                })
            };
            held.cores.values().map(tell).collect()
        };
        for reply in told {
            // None: the core has ended.
            let _ = reply.await;
        }
    }

    /// Lets go of the disks, when no LU uses them any more. They are closed when every core has
    /// done so too, and whatever else still knows them.
    pub async fn close(&self) {
        let cores = {
            let mut held = self.lock();
            held.disks.clear();
            held.is_closed = true;
            held.pool = None;
            std::mem::take(&mut held.cores)
        };
        let gone: Vec<_> = cores
            .into_values()
            .map(|placed| {
                let remote = placed.remote().clone();
                drop(placed);
                // Behind the letter that lets go of them.
                remote.call(|_| std::future::ready(()))
            })
            .collect();
        for reply in gone {
            // None: the core has ended.
            let _ = reply.await;
        }
    }

    /// Whose disks they are.
    pub fn belong_to(&self, pool: Placed<Pool>) {
        self.lock().pool = Some(Arc::new(pool));
    }

    fn is_ending_doubt(&self) -> bool {
        self.ending_doubts.load(Ordering::SeqCst) > 0
    }

    /// See [`Pool::mark_stale`].
    async fn mark_stale(&self, number: u32, home: Home) -> Result<(), PoolError> {
        let pool = self.lock().pool.clone().ok_or(PoolError::Closed)?;
        let marked = pool.call(move |pool| async move { pool.mark_stale(number, home).await });
        marked.await.unwrap_or(Err(PoolError::Closed))
    }

    /// See [`Pool::note_damage`]. Nobody waits for that.
    fn note_damage(&self, places: Vec<Home>, found: (u64, bool)) {
        if !places.is_empty()
            && let Some(pool) = self.lock().pool.clone()
        {
            drop(pool.call(move |pool| async move { pool.note_damage(&places, found) }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HeldDisks> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk on a core, and where things are on it.
type Mounted = (Rc<dyn Device>, Layout);

/// The disks of a pool, on one core.
pub struct Disks {
    core: Core,
    shared: Arc<Shared>,
    /// By their numbers.
    mounted: RefCell<Vec<Option<Mounted>>>,
    /// Those where nothing is that has to be durable.
    aside: RefCell<BTreeSet<u32>>,
    /// Who is writing, or reading a page, where the slab was when they looked.
    passage: Rc<Passage>,
    spare: Spare<Buffer>,
    spare_ours: Spare<Ours>,
}

/// What lies in memory of a page each, kept for the next one who needs such.
struct Spare<T>(RefCell<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Spare<T> {
    fn take(&self, len: usize, new: impl FnOnce(usize) -> T) -> T {
        let spare = if len == PAGE_BYTES { self.0.borrow_mut().pop() } else { None };
        spare.unwrap_or_else(|| new(len))
    }

    fn keep(&self, one: T, buffer: impl FnOnce(&T) -> &Buffer) {
        let (mut spare, buffer) = (self.0.borrow_mut(), buffer(&one));
        // One that an operation still holds, because nobody waited for its end, is not used again.
        if buffer.len() == PAGE_BYTES && spare.len() < SPARE_MAX && buffer.is_unshared() {
            spare.push(one);
        }
    }
}

/// A page of a disk that is not known to be one of a pool yet.
pub async fn read_page(device: &dyn Device, offset: u64) -> Result<Page, Error> {
    read_page_into(device, offset, &Buffer::zeroed(PAGE_BYTES)).await
}

async fn read_page_into(device: &dyn Device, offset: u64, buffer: &Buffer) -> Result<Page, Error> {
    device.io(&Request::read(offset, buffer.sgl())).await?;
    Ok(page_of(buffer))
}

fn page_of(buffer: &Buffer) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    buffer.read(0, &mut bytes);
    Page::of_bytes(&bytes)
}

fn gone() -> Error {
    Error::new(ErrorKind::Offline).note("the disk was removed")
}

/// Buffers of a page that are kept for the next one.
const SPARE_MAX: usize = 32;

impl Disks {
    /// The device of the block's one place, and where it is on that, if that is all there is to
    /// know of it.
    #[inline]
    pub fn locate_plain(&self, at: Spot) -> Option<(Rc<dyn Device>, u64)> {
        self.find(self.plain(at.slab)?, at)
    }

    /// The one place of a slab that has neither copies nor checksums.
    #[inline]
    fn plain(&self, slab: u32) -> Option<Home> {
        if self.has_sums() { None } else { self.shared.places.sole(slab) }
    }

    #[inline]
    pub fn has_sums(&self) -> bool {
        self.shared.sums.is_some()
    }

    /// Blocks of the slab are overwritten without a word to anybody.
    pub fn is_plain(&self, slab: u32) -> bool {
        self.plain(slab).is_some()
    }

    #[inline]
    fn find(&self, home: Home, at: Spot) -> Option<(Rc<dyn Device>, u64)> {
        let mounted = self.mounted.borrow();
        let (device, layout) = mounted.get(home.disk as usize)?.as_ref()?;
        let start = layout.slab(home.index)?;
        Some((device.clone(), start + u64::from(at.block) * BLOCK_BYTES))
    }

    fn mount(&self, number: usize, backing: &Arc<dyn Backing>, layout: Layout) {
        let mut mounted = self.mounted.borrow_mut();
        // A core that has just come knows it.
        if mounted.len() == number {
            mounted.push(Some((backing.device(&self.core), layout)));
        }
    }

    /// A disk itself.
    fn own(&self, disk: u32) -> Result<Rc<dyn Device>, Error> {
        let mounted = self.mounted.borrow();
        let found = mounted.get(disk as usize).and_then(Option::as_ref);
        found.map(|(device, _)| device.clone()).ok_or_else(gone)
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until everybody has arrived who is writing now, or reading a page.
    pub async fn quiet(&self) {
        self.passage.over().await;
    }

    pub async fn read_page(&self, at: Spot) -> Result<Page, Error> {
        // Whoever lets go of the place waits for this too.
        let _guard = self.passage.guard();
        let mut read = None;
        self.read_pages([((), at)], |(), page| {
            read = Some(page);
            Ok::<_, Error>(())
        })
        .await?;
        Ok(read.expect("one was asked for"))
    }

    pub async fn write_page(&self, at: Spot, page: &Page) -> Result<(), Error> {
        let buffer = self.buffer();
        buffer.write(0, page.bytes());
        self.write(at, &buffer.sgl()).await?;
        self.give_back(buffer);
        Ok(())
    }

    /// A page of a disk itself.
    pub async fn read_own(&self, disk: u32, offset: u64) -> Result<Page, Error> {
        self.read_page_of(&*self.own(disk)?, offset).await
    }

    pub async fn write_own(&self, disk: u32, offset: u64, page: &Page) -> Result<(), Error> {
        let buffer = self.buffer();
        buffer.write(0, page.bytes());
        self.own(disk)?.io(&Request::write(offset, buffer.sgl())).await?;
        self.give_back(buffer);
        Ok(())
    }

    /// What was answered before is durable.
    pub async fn sync(&self) -> Result<(), Error> {
        self.sync_each().await.pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The same; gives the disks of which it cannot be said.
    pub async fn sync_each(&self) -> Vec<(u32, Error)> {
        let aside = self.aside.borrow().clone();
        self.sync_some(|disk| !aside.contains(&disk)).await
    }

    /// The same of some disks.
    pub async fn sync_some(&self, is_one: impl Fn(u32) -> bool) -> Vec<(u32, Error)> {
        let flush = Request::flush();
        let asked: Vec<_> = {
            let mounted = self.mounted.borrow();
            let ask = |(disk, it): (u32, &Option<Mounted>)| {
                it.as_ref().map(|(device, _)| (disk, device.ask(&flush)))
            };
            let all = (0..).zip(mounted.iter()).filter(|(disk, _)| is_one(*disk));
            all.filter_map(ask).collect()
        };
        let mut failed = Vec::new();
        for (disk, answer) in asked {
            if let Err(error) = answer.outcome().await {
                failed.push((disk, error));
            }
        }
        failed
    }

    async fn read_page_of(&self, device: &dyn Device, offset: u64) -> Result<Page, Error> {
        let buffer = self.buffer();
        let page = read_page_into(device, offset, &buffer).await?;
        self.give_back(buffer);
        Ok(page)
    }

    fn buffer(&self) -> Buffer {
        self.spare.take(PAGE_BYTES, Buffer::zeroed)
    }

    /// A copy of blocks, which one gives back who has no more use for it.
    pub fn copy_of(&self, data: &Sgl<'_>) -> Buffer {
        let copy = self.spare.take(data.len(), Buffer::zeroed);
        copy.sgl().copy_from(data);
        copy
    }

    pub fn give_back(&self, buffer: Buffer) {
        self.spare.keep(buffer, |buffer| buffer);
    }
}
