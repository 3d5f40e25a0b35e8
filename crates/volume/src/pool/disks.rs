//! The disks of a pool as one core sees them, and which place each slab number has on them.
//!
//! Maps name numbers of slabs. Where a number lies is looked up here, by every core for every
//! request and without a lock: places are atomics in chunks that are made once and stay. A slab
//! that is moved gets another place under the same number.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use block::{Answer, Buffer, Device, Error, ErrorKind, Request};
use rt::{Core, CoreId, Placed};

use super::journal::Spot;
use super::page::{PAGE_BYTES, Page};
use super::shape::{BLOCK_BYTES, Layout};

/// Numbers in one chunk of the table.
const CHUNK_NUMBERS: usize = 4096;
const CHUNKS_MAX: usize = 4096;
/// Slabs of a pool: 256 TiB of the default size.
pub const SLABS_MAX: u32 = (CHUNK_NUMBERS * CHUNKS_MAX) as u32;

/// What a disk of a pool lies on: gives each core its device.
pub trait Backing: Send + Sync {
    fn device(&self, core: &Core) -> Rc<dyn Device>;

    /// As an operator knows it.
    fn name(&self) -> &str;
}

/// A slab on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    /// Which of the pool's disks.
    pub disk: u32,
    pub index: u32,
}

type Chunk = Box<[AtomicU64]>;

/// Where the slabs are.
pub struct Places(Box<[OnceLock<Chunk>]>);

impl Default for Places {
    fn default() -> Self {
        Self((0..CHUNKS_MAX).map(|_| OnceLock::new()).collect())
    }
}

impl Places {
    pub fn get(&self, number: u32) -> Option<Home> {
        let chunk = self.0.get(number as usize / CHUNK_NUMBERS)?.get()?;
        // Zero is nowhere: what is kept is one more than the disk's number.
        let word = chunk[number as usize % CHUNK_NUMBERS].load(Ordering::Acquire);
        let disk = ((word >> 32) as u32).checked_sub(1)?;
        Some(Home { disk, index: word as u32 })
    }

    /// Panics where a number is beyond [`SLABS_MAX`].
    pub fn set(&self, number: u32, home: Option<Home>) {
        let new = || (0..CHUNK_NUMBERS).map(|_| AtomicU64::new(0)).collect();
        let chunk = self.0[number as usize / CHUNK_NUMBERS].get_or_init(new);
        let word = home.map_or(0, |home| u64::from(home.disk + 1) << 32 | u64::from(home.index));
        chunk[number as usize % CHUNK_NUMBERS].store(word, Ordering::Release);
    }
}

/// What all cores share of a pool's disks.
pub struct Shared {
    pub places: Places,
    pub layouts: Vec<Layout>,
    names: Vec<String>,
    held: Mutex<HeldDisks>,
}

/// What keeps the disks, until they are let go.
struct HeldDisks {
    backings: Vec<Arc<dyn Backing>>,
    /// Each core's.
    cores: BTreeMap<CoreId, Placed<Disks>>,
}

impl Shared {
    pub fn new(disks: Vec<(Arc<dyn Backing>, Layout)>) -> Arc<Self> {
        let (backings, layouts): (Vec<Arc<dyn Backing>>, _) = disks.into_iter().unzip();
        let names = backings.iter().map(|backing| backing.name().to_owned()).collect();
        let held = Mutex::new(HeldDisks { backings, cores: BTreeMap::new() });
        Arc::new(Self { places: Places::default(), layouts, names, held })
    }

    /// The disks for this core; none when they were let go.
    pub fn on(self: &Arc<Self>, core: &Core) -> Rc<Disks> {
        let mut held = self.lock();
        if let Some(disks) = held.cores.get(&core.id()).and_then(|placed| placed.here(core)) {
            return disks;
        }
        let devices: Vec<_> = held.backings.iter().map(|backing| backing.device(core)).collect();
        let is_closed = devices.is_empty();
        let disks = Rc::new(Disks { shared: self.clone(), devices, spare: RefCell::default() });
        if !is_closed {
            held.cores.insert(core.id(), Placed::new(core, disks.clone()));
        }
        disks
    }

    /// Lets go of the disks, when no LU uses them any more. They are closed when every core has
    /// done so too, and whatever else still knows them.
    pub async fn close(&self) {
        let cores = {
            let mut held = self.lock();
            held.backings.clear();
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

    pub fn name(&self, disk: u32) -> &str {
        &self.names[disk as usize]
    }

    fn lock(&self) -> MutexGuard<'_, HeldDisks> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disks of a pool, on one core.
pub struct Disks {
    shared: Arc<Shared>,
    devices: Vec<Rc<dyn Device>>,
    spare: RefCell<Vec<Buffer>>,
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

/// Buffers of a page that are kept for the next one.
const SPARE_MAX: usize = 32;

/// Pages that are read at one time, by one who wants many.
const READS_MAX: usize = 32;

impl Disks {
    /// The device that has a block, and where it is on that.
    #[inline]
    pub fn locate(&self, at: Spot) -> Result<(&dyn Device, u64), Error> {
        let place = self.shared.places.get(at.slab).and_then(|Home { disk, index }| {
            let start = self.shared.layouts[disk as usize].slab(index)?;
            Some((&**self.devices.get(disk as usize)?, start + u64::from(at.block) * BLOCK_BYTES))
        });
        place.ok_or_else(|| {
            Error::new(ErrorKind::Medium).note(format!("slab {} is on no disk", at.slab))
        })
    }

    pub async fn read_page(&self, at: Spot) -> Result<Page, Error> {
        let (device, offset) = self.locate(at)?;
        self.read_page_of(device, offset).await
    }

    /// Pages, several at a time, each taken in its turn with what was said of it.
    pub async fn read_pages<T, E: From<Error>>(
        &self,
        all: impl IntoIterator<Item = (T, Spot)>,
        mut take: impl FnMut(T, Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut all = all.into_iter();
        let mut under_way: VecDeque<(T, Answer, Buffer)> = VecDeque::new();
        loop {
            while under_way.len() < READS_MAX
                && let Some((which, at)) = all.next()
            {
                let (device, offset) = self.locate(at)?;
                let buffer = self.buffer();
                let answer = device.ask(&Request::read(offset, buffer.sgl()));
                under_way.push_back((which, answer, buffer));
            }
            let Some((which, answer, buffer)) = under_way.pop_front() else { return Ok(()) };
            answer.outcome().await?;
            let page = page_of(&buffer);
            self.give_back(buffer);
            take(which, page)?;
        }
    }

    pub async fn write_page(&self, at: Spot, page: &Page) -> Result<(), Error> {
        let (device, offset) = self.locate(at)?;
        self.write_page_of(device, offset, page).await
    }

    /// A page of a disk itself.
    pub async fn read_own(&self, disk: u32, offset: u64) -> Result<Page, Error> {
        self.read_page_of(&*self.devices[disk as usize], offset).await
    }

    pub async fn write_own(&self, disk: u32, offset: u64, page: &Page) -> Result<(), Error> {
        self.write_page_of(&*self.devices[disk as usize], offset, page).await
    }

    /// What was answered before is durable.
    pub async fn sync(&self) -> Result<(), Error> {
        let flush = Request::flush();
        let asked: Vec<_> = self.devices.iter().map(|device| device.ask(&flush)).collect();
        let mut synced = Ok(());
        for answer in asked {
            synced = synced.and(answer.outcome().await.map(drop));
        }
        synced
    }

    async fn read_page_of(&self, device: &dyn Device, offset: u64) -> Result<Page, Error> {
        let buffer = self.buffer();
        let page = read_page_into(device, offset, &buffer).await?;
        self.give_back(buffer);
        Ok(page)
    }

    async fn write_page_of(
        &self,
        device: &dyn Device,
        offset: u64,
        page: &Page,
    ) -> Result<(), Error> {
        let buffer = self.buffer();
        buffer.write(0, page.bytes());
        device.io(&Request::write(offset, buffer.sgl())).await?;
        self.give_back(buffer);
        Ok(())
    }

    fn buffer(&self) -> Buffer {
        self.spare.borrow_mut().pop().unwrap_or_else(|| Buffer::zeroed(PAGE_BYTES))
    }

    fn give_back(&self, buffer: Buffer) {
        let mut spare = self.spare.borrow_mut();
        // One that an operation still holds, because nobody waited for its end, is not used again.
        if spare.len() < SPARE_MAX && buffer.is_unshared() {
            spare.push(buffer);
        }
    }
}
