//! Checksums of blocks: what is read is compared with them, what is written changes them, and their
//! pages are read when somebody needs one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Error, Sgl};

use super::super::journal::Spot;
use super::super::owner::Unread;
use super::super::page::Page;
use super::super::places::Home;
use super::super::shape::BLOCK_BYTES;
use super::super::sums::{KIND, SumPage, Sums, SumsId, sums_of};
use super::Disks;
use super::copies::unread;
use super::straight::Ours;

/// Pages that are written at one time: others want the disks too.
const SAVES_MAX: usize = 8;

/// Where blocks have their sums: pages, with the place of the first block in each and how many have
/// theirs there. None in a pool without.
pub type SumPages = Vec<(Arc<SumPage>, usize, usize)>;

/// A page of checksums on disk.
#[derive(Debug, Default)]
pub struct SumsSeen {
    /// Where it was written anew, as other copies have it.
    pub homes: Vec<Home>,
    /// A place of it has rotted in all copies; true: it was written anew from what is known.
    pub rotten: Option<bool>,
}

/// Whether blocks are what was written: as far as they have sums, from this one on.
pub(super) fn are_right((pages, first): (&SumPages, usize), data: &Sgl<'_>) -> bool {
    let places = pages
        .iter()
        .flat_map(|(page, first, count)| (*first..first + count).map(move |index| (page, index)));
    let mut places = places.skip(first).zip(sums_of(data));
    places.all(|((page, index), sum)| page.allows(index, sum))
}

/// Whether anything is known of a block: its sum is this one of those.
pub(super) fn is_known((pages, index): (&SumPages, usize)) -> bool {
    let mut left = index;
    for (page, first, count) in pages {
        if left < *count {
            return page.is_known(first + left);
        }
        left -= count;
    }
    false
}

impl Disks {
    /// Writes data, at all places of a slab, and its sums where those are kept.
    pub async fn write_data(&self, at: Spot, data: &Sgl<'_>) -> Result<(), Error> {
        if self.shared().sums.is_none() {
            return self.write(at, data).await;
        }
        let ours = self.ours(data);
        let written = self.write_ours(at, &ours).await;
        self.let_go(ours);
        written
    }

    /// The same of what nobody changes meanwhile.
    pub async fn write_ours(&self, at: Spot, ours: &Ours) -> Result<(), Error> {
        if self.shared().sums.is_none() {
            return self.write(at, &ours.sgl()).await;
        }
        let _guard = self.passage.guard();
        let (first, count) = (u64::from(at.block), ours.sums().len() as u64);
        // Read before, so that nothing is written whose sum cannot be kept.
        let pages = self.sum_pages(at, count).await?;
        let _locked = self.shared().locks.lock(at.slab, first, count).await;
        let written = self.write_all(at, &ours.sgl()).await;
        // Of a write that has failed nobody knows what is there.
        let mut sums = ours.sums().iter().map(|sum| written.is_ok().then_some(*sum));
        for (page, first, count) in &pages {
            page.set(*first, sums.by_ref().take(*count));
        }
        written
    }

    /// Whether what was read of whole blocks has their sums, as far as there are any.
    pub(super) async fn is_right(&self, at: Spot, data: &Sgl<'_>) -> Result<bool, Error> {
        if self.shared().sums.is_none() {
            return Ok(true);
        }
        let pages = self.sum_pages(at, data.len() as u64 / BLOCK_BYTES).await?;
        Ok(are_right((&pages, 0), data))
    }

    pub(super) async fn sum_pages(&self, at: Spot, count: u64) -> Result<SumPages, Error> {
        let Some(sums) = &self.shared().sums else { return Ok(SumPages::new()) };
        let mut pages = SumPages::with_capacity(1);
        for (id, first, count) in SumsId::of(at, count) {
            let page = self.sum_page(sums, id).await?;
            pages.push((page, first, count));
        }
        Ok(pages)
    }

    async fn sum_page(&self, sums: &Sums, id: SumsId) -> Result<Arc<SumPage>, Error> {
        if let Some(page) = sums.get(id) {
            return Ok(page);
        }
        let _alone = sums.locks.lock(id.slab, id.page.into(), 1).await;
        if let Some(page) = sums.get(id) {
            return Ok(page);
        }
        self.load_sums(sums, id).await
    }

    /// Reads a page. The caller is alone with it, and it is not in memory.
    async fn load_sums(&self, sums: &Sums, id: SumsId) -> Result<Arc<SumPage>, Error> {
        // Who is nowhere now may be back.
        self.shared().places.get(id.slab).ok_or_else(|| unread(id.places(sums.of().1)[0]))?;
        let mut places = [None, None];
        for (place, at) in places.iter_mut().zip(id.places(sums.of().1)) {
            *place = match self.read_page(at).await {
                Ok(page) => Some(page),
                Err(error) if error.is_bad_sector() => None,
                // What it says counts when it can be read again.
                Err(error) => return Err(error.note("the checksums of blocks cannot be read")),
            };
        }
        Ok(sums.insert(id, SumPage::decode(id, sums.of(), places)))
    }

    /// Writes what has changed of the sums of these slabs. It is durable behind the next sync.
    pub async fn save_sums(self: &Rc<Self>, is_one: impl Fn(u32) -> bool) -> Result<(), Error> {
        let Some(sums) = &self.shared().sums else { return Ok(()) };
        let all: Rc<RefCell<Vec<SumsId>>> = Rc::new(RefCell::new(sums.unwritten(is_one)));
        let writer = |_| {
            let (me, all) = (self.clone(), all.clone());
            self.core.spawn_task(async move {
                loop {
                    let Some(id) = all.borrow_mut().pop() else { return Ok(()) };
                    me.save_page(id).await?;
                }
            })
        };
        let writers: Vec<_> = (0..SAVES_MAX).map(writer).collect();
        let mut saved = Ok(());
        for writer in writers {
            saved = saved.and(writer.await);
        }
        saved
    }

    async fn save_page(&self, id: SumsId) -> Result<(), Error> {
        let Some(sums) = &self.shared().sums else { return Ok(()) };
        let page = self.sum_page(sums, id).await?;
        let _alone = sums.locks.lock(id.slab, id.page.into(), 1).await;
        self.save(sums, id, &page).await
    }

    /// The same for one who is alone with it.
    async fn save(&self, sums: &Sums, id: SumsId, page: &SumPage) -> Result<(), Error> {
        let Some((at, image)) = page.image(id, sums.of()) else { return Ok(()) };
        let written = self.write_page(at, &image).await;
        page.is_written(written.is_ok());
        written
    }

    /// Looks at both places of a page as they are on disk, in all copies.
    pub async fn verify_sums(&self, id: SumsId) -> Result<SumsSeen, Error> {
        let mut seen = SumsSeen::default();
        let Some(sums) = &self.shared().sums else { return Ok(seen) };
        let _alone = sums.locks.lock(id.slab, id.page.into(), 1).await;
        let ((pool, shape), mut rotten) = (sums.of(), Vec::new());
        let number = id.number(shape);
        for at in id.places(shape) {
            // What was there before anything was written is nothing, and looks like anything.
            let was = Cell::new(None);
            let check = |page: &Page| {
                if page.was(KIND, &pool, number) {
                    was.set(Some(page.says().0.turn));
                }
                page.check(KIND, &pool, number).map(drop)
            };
            match self.verify_page(at, check).await?.page() {
                Ok((_, homes)) => seen.homes.extend(homes),
                Err(Unread::Disk) => rotten.push(u64::MAX),
                Err(Unread::Flaw(_)) => rotten.extend(was.get()),
            }
        }
        if !rotten.is_empty() {
            seen.rotten = Some(self.renew_sums(sums, id, &rotten).await?);
        }
        Ok(seen)
    }

    /// Writes a page anew of which places have rotted that had these turns, if it is known what it
    /// is. The caller is alone with it.
    async fn renew_sums(&self, sums: &Sums, id: SumsId, rotten: &[u64]) -> Result<bool, Error> {
        let here = sums.get(id);
        let is_here = here.is_some();
        let page = match here {
            Some(page) => page,
            None => self.load_sums(sums, id).await?,
        };
        // The journal knows what a crash has cut off; otherwise only an older one may be missed.
        let is_known = is_here || page.is_dirty();
        if !is_known && rotten.iter().any(|turn| *turn > page.turn().max(1)) {
            return Ok(false);
        }
        // Neither place of a page is written before the other is durable.
        self.sync().await?;
        for _ in 0..2 {
            page.make_dirty();
            self.save(sums, id, &page).await?;
            // One of them is always whole.
            self.sync().await?;
        }
        Ok(true)
    }

    /// Brings the pages of a slab to a place of it that fills, as they are.
    pub async fn fill_sums(&self, slab: u32, to: Home) -> Result<(), Error> {
        self.each_page(slab, async |at| self.fill((at, 2), to).await).await
    }

    /// Makes the pages of a slab the same at its places that are in doubt.
    pub async fn make_sums_same(&self, slab: u32) -> Result<(), Error> {
        self.each_page(slab, async |at| self.make_same(at, 2).await).await
    }

    /// Goes over the pages of a slab, each with the two places that it has.
    async fn each_page(
        &self,
        slab: u32,
        work: impl AsyncFn(Spot) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(sums) = &self.shared().sums else { return Ok(()) };
        let shape = sums.of().1;
        for page in 0..shape.sum_pages() as u32 {
            let _alone = sums.locks.lock(slab, page.into(), 1).await;
            work(SumsId { slab, page }.places(shape)[0]).await?;
        }
        Ok(())
    }

    /// Takes the sums of blocks anew of which none is known. The caller has their locks.
    pub async fn take_sums(&self, at: Spot, count: u64) -> Result<(), Error> {
        let pages = self.sum_pages(at, count).await?;
        let buffer = Buffer::zeroed((count * BLOCK_BYTES) as usize);
        self.read_any(at, &buffer, &SumPages::new()).await?;
        let data = buffer.sgl();
        let mut sums = sums_of(&data);
        for (page, first, count) in &pages {
            for index in *first..first + count {
                let sum = sums.next();
                if !page.is_known(index) {
                    page.set(index, [sum]);
                }
            }
        }
        Ok(())
    }

    /// The pages of these regions, which stay in memory as long as somebody has them.
    pub async fn sums_of_regions(
        &self,
        slab: u32,
        regions: u64,
    ) -> Result<Vec<Arc<SumPage>>, Error> {
        let Some(sums) = &self.shared().sums else { return Ok(Vec::new()) };
        let mut pages = Vec::new();
        for id in sums.pages_of(slab, regions) {
            pages.push(self.sum_page(sums, id).await?);
        }
        Ok(pages)
    }
}
