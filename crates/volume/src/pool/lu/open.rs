//! Making an LU, and opening what is there of one.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use block::Error;
use rt::handles::Ledger;
use rt::{Core, Placed};

use super::super::disks::{Backing, Disks, Looker, Shared, Unlike};
use super::super::home::{Granted, Pool, PoolError, Tenure};
use super::super::journal::{RING_PAGES_MIN, Spot};
use super::super::map::Place;
use super::super::memory::Memory;
use super::super::owner::{
    LOOK_BEHIND_PAGES, LayerId, Opening, Owner, Regions, Unopened, extents_of_new,
};
use super::super::page::{Flaw, Page};
use super::super::places::State;
use super::super::root::{About, Base, Head, Root, Site, Source};
use super::super::shape::{BLOCK_BYTES, Shape};
use super::super::sums::Known;
use super::Lu;
use super::below::{Below, Depths};
use super::service::{Parts, Service};
use super::snapshots::{Readers, View};
use super::thick::{Short, Ungranted};
use super::witness::Copies;

/// The journal of an LU is one part in so many of its size.
const RING_PARTS: u64 = 1 << 14;
const RING_BYTES_MIN: u64 = 256 << 10;
const RING_BYTES_MAX: u64 = 64 << 20;

/// Pages of the journal that are read at one time: at first enough for one that is short, and
/// then many.
const AHEAD_PAGES_MIN: u64 = 2 * LOOK_BEHIND_PAGES;
const AHEAD_PAGES_MAX: u64 = 8 * LOOK_BEHIND_PAGES;

/// An LU that is to be.
#[derive(Clone, Debug)]
pub struct NewLu {
    pub id: [u8; 16],
    /// The name of its first layer.
    pub layer: LayerId,
    pub about: About,
}

/// Why an LU cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum LuError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Unopened(#[from] Unopened),
    #[error("its root cannot be read: {0}")]
    Root(Flaw),
    #[error("a disk of its pool: {0}")]
    Disk(Error),
    #[error("{0} bytes are not a multiple of 4096")]
    Size(u64),
    #[error(transparent)]
    Short(#[from] Short),
    #[error("it is a clone of a snapshot of LU {lu:02x?}, and is opened with that", lu = .0.lu)]
    Base(Base),
    #[error("it is being brought from {}, of {} bytes, and is opened with that", .0.name, .0.size)]
    Source(Source),
}

impl From<Error> for LuError {
    fn from(error: Error) -> Self {
        Self::Disk(error)
    }
}

/// What an LU is opened with, once, on whichever core.
pub struct Seat {
    shared: Arc<Shared>,
    pool: Arc<Placed<Pool>>,
    site: Site,
    slabs: Vec<u32>,
    /// Failure groups where the LU's copy does not have everything.
    stale: Vec<u16>,
    /// How often the LU was forced.
    forces: u32,
    tenure: Tenure,
    base: Option<Arc<View>>,
    source: Option<Arc<dyn Backing>>,
    memory: Arc<Memory>,
}

impl Seat {
    /// For one that is being brought from there.
    pub fn over(self, source: Arc<dyn Backing>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// For a clone of this snapshot.
    pub fn on(self, base: Arc<View>) -> Self {
        Self { base: Some(base), ..self }
    }

    /// The LU's owner, by what is on its disks.
    pub(super) async fn owner(&self, disks: &Disks) -> Result<Owner, LuError> {
        let Self { pool, site, slabs, stale, forces, tenure, memory, .. } = self;
        // A failure group that was leaving has left before anything is read.
        let changed = async |pool: Rc<Pool>| {
            pool.changed().await;
            pool.share()
        };
        let share = pool.call(changed).await.ok_or(PoolError::Closed)?;
        if tenure.is_again {
            // The pool has synced what owners before it have left, and nobody what this one has.
            disks.sync().await?;
        }
        let whence = Whence { site: *site, epoch: tenure.epoch, slabs, all: false, memory };
        let Left { mut owner, known, unlike, .. } = read_left(disks, whence, Err).await?;
        owner.has_share(share);
        if !unlike.is_empty() {
            disks.make_alike(unlike).await?;
            // The copy that had it may be stale before anything else is synced.
            disks.sync().await?;
        }
        if let Some(sums) = &disks.shared().sums {
            sums.begin(slabs, known, memory);
        }
        know_missed((disks, pool), &mut owner, (slabs, *forces, tenure.is_again)).await?;
        doubt_regions(disks, (slabs, stale), owner.regions());
        Ok(owner)
    }

    pub(super) fn tenure(self) -> Tenure {
        self.tenure
    }
}

impl Pool {
    /// Makes an LU.
    pub async fn create_lu(self: &Rc<Self>, new: NewLu) -> Result<Seat, LuError> {
        let NewLu { id, layer, about } = new;
        // One that is brought has the size that it had, and so have its clones.
        let has_size = about.source.is_some() || about.base.is_some();
        let unit = if has_size { about.block_size.into() } else { BLOCK_BYTES };
        if about.size == 0 || !about.size.is_multiple_of(unit) {
            return Err(LuError::Size(about.size));
        }
        let shape = self.shape();
        let tenure = self.tenure(id)?;
        let (extents, epoch) = (shape.extents_per_slab(), tenure.epoch);
        let ring = ring_extents(shape, about.size);
        // The root has an extent too, and something shall be left for data.
        let wanted = match about.thick {
            true => extents_of_new(shape, about.size, ring),
            false => ring + 2,
        };
        let slabs = match self.grant_all(id, wanted.div_ceil(extents), true).await {
            Ok(slabs) => slabs,
            Err(error) => {
                let is_thick = about.thick;
                drop(tenure);
                self.revoke(id).await?;
                return Err(match error {
                    Ungranted::Short(short) if is_thick => short.into(),
                    Ungranted::Short(_) => PoolError::Full.into(),
                    Ungranted::Pool(error) => error.into(),
                });
            }
        };
        let places = slabs.iter().flat_map(|&slab| {
            (0..extents).map(move |extent| Place { slab, extent: extent as u32 })
        });
        let ring: Vec<Place> = places.skip(1).take(ring as usize).collect();
        let root = Opening::root_of_new(about, ring, layer, epoch);
        let site = self.site(id, slabs[0]);
        let written = write_root(&self.shared.on(self.core()), &site, &root, epoch).await;
        drop(tenure);
        if let Err(error) = written {
            self.revoke(id).await?;
            return Err(error.into());
        }
        self.seat(id)
    }

    /// What the LU's next owner needs. An error if somebody has the LU open, or is about to.
    pub fn seat(self: &Rc<Self>, id: [u8; 16]) -> Result<Seat, LuError> {
        self.seat_of(id, Self::tenure)
    }

    /// The same for one whose owner has failed, and is there until the next one is.
    pub(super) fn seat_again(self: &Rc<Self>, id: [u8; 16]) -> Result<Seat, LuError> {
        self.seat_of(id, Self::tenure_again)
    }

    fn seat_of(
        self: &Rc<Self>,
        id: [u8; 16],
        tenure: impl FnOnce(&Self, [u8; 16]) -> Result<Tenure, PoolError>,
    ) -> Result<Seat, LuError> {
        let granted = self.granted(id).unwrap_or_default();
        let first_slab = granted.first.filter(|first| granted.slabs.contains(first));
        let first_slab = first_slab.ok_or(PoolError::NoLu(id))?;
        self.must_have_copy(id, &granted)?;
        let site = self.site(id, first_slab);
        let pool = Arc::new(Placed::new(self.core(), self.clone()));
        let (shared, tenure) = (self.shared.clone(), tenure(self, id)?);
        let Granted { slabs, stale, .. } = granted;
        let (base, source, memory, forces) = (None, None, self.memory(), self.forces_of(id));
        Ok(Seat { shared, pool, site, slabs, stale, forces, tenure, base, source, memory })
    }

    /// What an LU says of itself, whether it is open or not.
    pub async fn describe_lu(&self, id: [u8; 16]) -> Result<About, LuError> {
        let granted = self.granted(id).unwrap_or_default();
        let first_slab = granted.first.ok_or(PoolError::NoLu(id))?;
        let site = self.site(id, first_slab);
        Ok(read_root(&*self.disks()?, &site).await?.about)
    }
}

/// Where somebody may have been overwriting copies, one of each is read until the others are like
/// it: where there is one of a group with everything, that one, because the LU cannot be without
/// it if it cannot be written.
fn doubt_regions(disks: &Disks, (slabs, stale): (&[u32], &[u16]), open: &Regions) {
    let places = &disks.shared().places;
    // What was open under an owner before, in this process, is not open under this one.
    slabs.iter().for_each(|slab| places.set_closed(*slab, u64::MAX));
    for (&number, regions) in open {
        let whole = places.all(number).filter(|copy| copy.state == State::Whole);
        let kept = whole.min_by_key(|copy| (stale.contains(&copy.group), copy.group));
        places.touch(number, *regions);
        places.doubt(number, kept.map(|copy| copy.home));
    }
}

/// Tells the pool what copies lack, as the owner before has left it, if any do. From then on it is
/// known.
async fn know_missed(
    (disks, pool): (&Disks, &Placed<Pool>),
    owner: &mut Owner,
    (slabs, forces, is_again): (&[u32], u32, bool),
) -> Result<(), LuError> {
    let (shared, missed, lu) = (disks.shared().clone(), owner.take_missed(), owner.site().lu);
    let since = if slabs.iter().any(|slab| shared.places.is_lacking(*slab)) {
        let known = pool.call(async move |pool| pool.know_missed(lu, missed, !is_again)).await;
        known.ok_or(PoolError::Closed)?
    } else {
        shared.epoch.load(Ordering::Acquire)
    };
    owner.ask_witness(Box::new(Copies { shared, since, forces }));
    Ok(())
}

/// Extents of the journal of an LU that is made with this size.
fn ring_extents(shape: Shape, size: u64) -> u64 {
    let bytes = (size / RING_PARTS).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
    bytes.div_ceil(shape.extent_bytes())
}

/// Bytes that an LU of this size is granted when it is made thick.
pub fn thick_bytes(shape: Shape, size: u64) -> u64 {
    let extents = extents_of_new(shape, size, ring_extents(shape, size));
    extents.div_ceil(shape.extents_per_slab()) * shape.slab_bytes()
}

impl Lu {
    /// Opens an LU, with its owner on this core. Nobody else has it open.
    pub async fn open(core: &Core, seat: Seat) -> Result<Arc<Self>, LuError> {
        let disks = seat.shared.on(core);
        let owner = seat.owner(&disks).await?;
        let Seat { shared, pool, site, tenure, base, source, memory, .. } = seat;
        let About { size, block_size, base: wanted, source: ref from, .. } = *owner.about();
        let own = below(from.as_ref(), source)?;
        if let Some(wanted) = wanted.filter(|it| base.as_ref().map(|base| base.is()) != Some(*it)) {
            return Err(LuError::Base(wanted));
        }
        // Of one that stands on nothing nobody is asked.
        let base = base.filter(|_| wanted.is_some());
        let ledger: Arc<Ledger<_>> = Arc::default();
        let readers = Readers::new(ledger.clone(), base.as_deref());
        let depths = Depths::new(own, base.clone());
        let has_failed = Arc::new(AtomicBool::new(false));
        let (lu, shape) = (site.lu, site.shape);
        let parts = Parts {
            lu,
            shape,
            disks,
            pool,
            readers: readers.clone(),
            owner,
            base,
            depths: depths.clone(),
            has_failed: has_failed.clone(),
            memory: memory.clone(),
            tenure,
        };
        let service = Service::new(core, parts);
        service.settle();
        let lu = Arc::new(Self {
            id: lu,
            shape,
            block_size,
            size: AtomicU64::new(size),
            shared,
            owner: Placed::new(core, service),
            ledger,
            readers,
            depths,
            memory: memory.clone(),
            has_failed,
            is_closed: AtomicBool::new(false),
            is_changing: AtomicBool::new(false),
        });
        let keeper: Weak<Self> = Arc::downgrade(&lu);
        memory.join(keeper);
        Ok(lu)
    }
}

/// What an LU lies over that says so. One that does not say so lies over nothing, whatever was
/// thought.
fn below(
    source: Option<&Source>,
    backing: Option<Arc<dyn Backing>>,
) -> Result<Option<Below>, LuError> {
    let Some(Source { size, .. }) = source else { return Ok(None) };
    let lacking = || LuError::Source(source.cloned().expect("asked before"));
    Ok(Some(Below { backing: backing.ok_or_else(lacking)?, size: *size }))
}

async fn write_root(disks: &Disks, site: &Site, root: &Root, epoch: u64) -> Result<(), Error> {
    let (body, (at, head)) = root.encode(site, epoch);
    for (at, page) in body {
        disks.write_page(at, &page).await?;
    }
    disks.sync().await?;
    disks.write_page(at, &head).await?;
    disks.sync().await
}

/// Where everything of an LU is to be found.
pub struct Whence<'a> {
    pub site: Site,
    /// Higher than that of any owner before.
    pub epoch: u64,
    pub slabs: &'a [u32],
    /// Every page of its maps is read, not only what is needed to go on.
    pub all: bool,
    /// Where they are counted.
    pub memory: &'a Arc<Memory>,
}

/// What an owner before has left, and what it took to find that.
pub struct Left {
    pub owner: Owner,
    pub known: Known,
    pub map_pages: usize,
    pub records: usize,
    /// A page of the journal that ends it and is not whole.
    pub torn: Option<u64>,
    /// What was found that is not the same in all copies.
    pub unlike: Vec<Unlike>,
}

/// Reads what the owner before has left. Everything was synced since it ended. `flawed` hears of
/// what is wrong, and may go on without it: then what is given is only fit to be looked at.
pub async fn read_left(
    disks: &Disks,
    whence: Whence<'_>,
    mut flawed: impl FnMut(Unopened) -> Result<(), Unopened>,
) -> Result<Left, LuError> {
    let Whence { site, epoch, slabs, all, memory } = whence;
    let looker = Looker::new(disks);
    let root = read_root_by(&looker, &site).await?;
    let mut opening = Opening::new(site, epoch, root, memory);
    let pages = if all || opening.needs_all() { opening.pages() } else { Vec::new() };
    let mut map_pages = pages.len();
    let take = |id, page| match opening.load(id, &page) {
        Err(why) => flawed(why).map_err(LuError::from),
        Ok(()) => Ok(()),
    };
    looker.read_pages(pages, take).await?;
    let torn = replay(&looker, &mut opening, &mut flawed).await?;
    let mut read = opening.read();
    let pages = read.pages();
    map_pages += pages.len();
    let take = |id, page| match read.load(id, &page) {
        Err(why) => flawed(why).map_err(LuError::from),
        Ok(()) => Ok(()),
    };
    looker.read_pages(pages, take).await?;
    let records = read.records();
    looker.read_doubtful(read.doubtful()).await?;
    let (owner, known) = read.open(slabs, |at, sum| looker.has(at, sum), flawed)?;
    Ok(Left { owner, known, map_pages, records, torn, unlike: looker.unlike() })
}

/// Replays the journal, and looks at what is behind its end.
async fn replay(
    looker: &Looker<'_>,
    opening: &mut Opening,
    flawed: &mut impl FnMut(Unopened) -> Result<(), Unopened>,
) -> Result<Option<u64>, LuError> {
    let mut ahead = AHEAD_PAGES_MIN;
    loop {
        let spots: Vec<Spot> = (0..ahead).map(|pages| opening.behind(pages)).collect();
        let pages = read_all(looker, spots).await?;
        let taken = pages.iter().take_while(|page| opening.replay(page)).count();
        let rest = &pages[taken..];
        if rest.len() as u64 >= LOOK_BEHIND_PAGES {
            let torn = opening.torn(&rest[0]);
            look_behind(looker, opening, rest.to_vec(), flawed).await?;
            return Ok(torn);
        }
        ahead = AHEAD_PAGES_MAX;
    }
}

/// Looks at the pages behind the end, of which the first ones were read, as far as there are any.
async fn look_behind(
    looker: &Looker<'_>,
    opening: &Opening,
    mut pages: Vec<Page>,
    flawed: &mut impl FnMut(Unopened) -> Result<(), Unopened>,
) -> Result<(), LuError> {
    let (mut behind, mut others) = (0, 0);
    loop {
        for page in pages {
            match opening.check_behind(behind, &page) {
                Ok(is_page) => others = if is_page { 0 } else { others + 1 },
                // One such page says it all.
                Err(why) => return Ok(flawed(why)?),
            }
            if others == LOOK_BEHIND_PAGES {
                return Ok(());
            }
            behind += 1;
        }
        let spots = (behind..behind + AHEAD_PAGES_MAX).map(|pages| opening.behind(pages));
        pages = read_all(looker, spots.collect()).await?;
    }
}

async fn read_all(looker: &Looker<'_>, all: Vec<Spot>) -> Result<Vec<Page>, Error> {
    let mut pages = Vec::with_capacity(all.len());
    let take = |(), page| {
        pages.push(page);
        Ok::<_, Error>(())
    };
    looker.read_pages(all.into_iter().map(|at| ((), at)), take).await?;
    Ok(pages)
}

/// What the root says that counts.
pub async fn read_root(disks: &Disks, site: &Site) -> Result<Root, LuError> {
    read_root_by(&Looker::new(disks), site).await
}

async fn read_root_by(looker: &Looker<'_>, site: &Site) -> Result<Root, LuError> {
    let head = read_head(looker, site).await?;
    let body = head.body(site).ok_or(LuError::Root(Flaw::Rotten))?;
    let root = head.root(site, &read_all(looker, body).await?).map_err(LuError::Root)?;
    // Under good checksums: somebody else's idea of this form.
    let is_sound = root.ring_pages(site) >= RING_PAGES_MIN;
    is_sound.then_some(root).ok_or(LuError::Root(Flaw::Rotten))
}

/// The pages of the root that counts, its head first.
pub async fn read_root_pages(disks: &Disks, site: &Site) -> Result<Vec<Page>, LuError> {
    let looker = Looker::new(disks);
    let mut heads = read_all(&looker, site.heads().to_vec()).await?;
    let head = site.newest([&heads[0], &heads[1]]).map_err(LuError::Root)?;
    let body = head.body(site).ok_or(LuError::Root(Flaw::Rotten))?;
    let mut pages = vec![heads.swap_remove(head.which())];
    pages.extend(read_all(&looker, body).await?);
    head.root(site, &pages[1..]).map_err(LuError::Root)?;
    Ok(pages)
}

async fn read_head(looker: &Looker<'_>, site: &Site) -> Result<Head, LuError> {
    let heads = read_all(looker, site.heads().to_vec()).await?;
    site.newest([&heads[0], &heads[1]]).map_err(LuError::Root)
}

/// What stands where the two heads are.
pub async fn read_heads(disks: &Disks, site: &Site) -> Result<Vec<Page>, Error> {
    read_all(&Looker::new(disks), site.heads().to_vec()).await
}
