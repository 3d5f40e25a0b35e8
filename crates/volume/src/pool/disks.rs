//! The disks of a pool as one core sees them: what is read at the place of a slab, and written at
//! all of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Answer, Buffer, Device, Error, ErrorKind, Request, Sgl};
use rt::{Core, CoreId, Placed};

use super::journal::Spot;
use super::page::{PAGE_BYTES, Page};
use super::passage::Passage;
use super::places::{Home, Locks, Places, Second};
use super::shape::{BLOCK_BYTES, Layout};

/// What a disk of a pool lies on: gives each core its device.
pub trait Backing: Send + Sync {
    fn device(&self, core: &Core) -> Rc<dyn Device>;

    /// As an operator knows it.
    fn name(&self) -> &str;
}

/// What all cores share of a pool's disks.
pub struct Shared {
    pub places: Places,
    pub locks: Locks,
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
        let (places, locks) = (Places::default(), Locks::default());
        Arc::new(Self { places, locks, layouts, names, held })
    }

    /// The disks for this core; none when they were let go.
    pub fn on(self: &Arc<Self>, core: &Core) -> Rc<Disks> {
        let mut held = self.lock();
        if let Some(disks) = held.cores.get(&core.id()).and_then(|placed| placed.here(core)) {
            return disks;
        }
        let devices: Vec<_> = held.backings.iter().map(|backing| backing.device(core)).collect();
        let is_closed = devices.is_empty();
        let (passage, spare) = (Rc::default(), RefCell::default());
        let disks = Rc::new(Disks { shared: self.clone(), devices, passage, spare });
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
    /// Who is writing where the slab was when they looked.
    passage: Rc<Passage>,
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
    /// The device to read a block from, and where it is on that.
    #[inline]
    pub fn locate(&self, at: Spot) -> Result<(&dyn Device, u64), Error> {
        let home = self.shared.places.get(at.slab);
        home.and_then(|home| self.find(home, at)).ok_or_else(|| {
            Error::new(ErrorKind::Medium).note(format!("slab {} is on no disk", at.slab))
        })
    }

    /// The device to write a block to, if that is only one.
    #[inline]
    pub fn locate_sole(&self, at: Spot) -> Option<(&dyn Device, u64)> {
        self.find(self.shared.places.sole(at.slab)?, at)
    }

    #[inline]
    fn find(&self, home: Home, at: Spot) -> Option<(&dyn Device, u64)> {
        let start = self.shared.layouts[home.disk as usize].slab(home.index)?;
        let device = self.devices.get(home.disk as usize)?;
        Some((&**device, start + u64::from(at.block) * BLOCK_BYTES))
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Waits until everybody has arrived who is writing now.
    pub async fn quiet(&self) {
        self.passage.over().await;
    }

    /// Writes whole blocks of a slab, at all its places.
    pub async fn write(&self, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        let _guard = self.passage.guard();
        if let Some((device, offset)) = self.locate_sole(at) {
            return device.io(&Request::write(offset, *data)).await.map(drop);
        }
        // A client may change its memory meanwhile, and all places shall have the same.
        let copy = Buffer::zeroed(data.len());
        copy.sgl().copy_from(data);
        let (first, count) = (u64::from(at.block), data.len() as u64 / BLOCK_BYTES);
        let _locked = self.shared.locks.lock(at.slab, first, count).await;
        let (device, offset) = self.locate(at)?;
        let written = device.ask(&Request::write(offset, copy.sgl()));
        let Some((home, state)) = self.shared.places.second(at.slab) else {
            return written.outcome().await.map(drop);
        };
        let too = match (state, self.find(home, at)) {
            (Second::Broken, _) | (_, None) => Ok(()),
            (_, Some((device, offset))) => {
                device.ask(&Request::write(offset, copy.sgl())).outcome().await.map(drop)
            }
        };
        written.outcome().await?;
        match state {
            Second::Whole => too,
            // It is not needed yet, and never will be.
            Second::Filling | Second::Broken => {
                if too.is_err() {
                    self.shared.places.mark(at.slab, Second::Broken);
                }
                Ok(())
            }
        }
    }

    /// Brings blocks of a slab from its first place to its second one. The caller has their locks.
    pub async fn fill(&self, at: Spot, count: u64) -> Result<(), Error> {
        let second = self.shared.places.second(at.slab);
        let Some((to, to_offset)) = second.and_then(|(home, _)| self.find(home, at)) else {
            return Err(Error::new(ErrorKind::Medium).note("the slab has no second place"));
        };
        let (from, offset) = self.locate(at)?;
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        from.io(&Request::read(offset, buffer.sgl())).await?;
        to.io(&Request::write(to_offset, buffer.sgl())).await.map(drop)
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
        let buffer = self.buffer();
        buffer.write(0, page.bytes());
        self.write(at, &buffer.sgl()).await?;
        self.give_back(buffer);
        Ok(())
    }

    /// A page of a disk itself.
    pub async fn read_own(&self, disk: u32, offset: u64) -> Result<Page, Error> {
        self.read_page_of(&*self.devices[disk as usize], offset).await
    }

    pub async fn write_own(&self, disk: u32, offset: u64, page: &Page) -> Result<(), Error> {
        let buffer = self.buffer();
        buffer.write(0, page.bytes());
        self.devices[disk as usize].io(&Request::write(offset, buffer.sgl())).await?;
        self.give_back(buffer);
        Ok(())
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
