//! Walking over everything that the LU has, while it is used: see `pool::scrub`.
//!
//! Whoever reads a place is on the way there as clients are: what the map names now is not used for
//! something else before he has arrived. Pages of maps and of checksums that are read for this
//! alone leave memory again behind it.
//!
//! Of metadata that is rotten at all its places, what is in memory is as good: the owner writes it
//! anew, elsewhere, with a checkpoint that needs none of what is rotten.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::Error;

use super::super::super::check::{Finding, Of, Severity};
use super::super::super::disks::{Bad, Seen, Verified};
use super::super::super::home::Pool;
use super::super::super::journal::{self, Spot};
use super::super::super::map::MapPage;
use super::super::super::owner::{LayerId, LayerNumber, Lies, PageId, page_of_map};
use super::super::super::page::{Flaw, Page};
use super::super::super::passage::Guard;
use super::super::super::places::Home;
use super::super::super::root::{About, BODY, HEAD, Head};
use super::super::super::scrub::{Cursor, Damage, Depth, Step};
use super::super::super::shape::BLOCK_BYTES;
use super::super::super::sums::SumsId;
use super::Service;

/// Extents that are read at one time: others want the disks too.
const READERS_MAX: usize = 4;
/// Blocks that are read at one time by each of these.
const RUN_BLOCKS: u64 = 128;
/// Pages of the journal, of maps without their data, and slabs with their checksums, in a step.
const PAGES_PER_STEP: usize = 64;
/// Times that it is tried to read what is just being written. It is written anew all the time then.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(4);
/// How long to wait for a checkpoint, which may want space that nobody has.
const CHECKPOINT: Duration = Duration::from_secs(30);

/// What those have in common who read extents of a page.
#[derive(Default)]
struct Reads {
    /// Still to be read.
    extents: RefCell<VecDeque<usize>>,
    /// Pages of checksums that were not in memory before.
    sums: RefCell<Vec<SumsId>>,
}

/// What was read of an extent, in pieces.
type Read = Vec<Verified>;

/// Blocks that were not as they should be.
struct Found {
    layer: LayerId,
    /// Of the LU.
    block: u64,
    bad: Bad,
}

/// A step that is under way.
struct Walk {
    service: Rc<Service>,
    step: Step,
    depth: Depth,
    most: u64,
    found: Vec<Found>,
}

impl Service {
    /// Goes on from there, for about so many bytes.
    pub(in super::super) async fn scrub(
        self: Rc<Self>,
        from: Cursor,
        (depth, bytes): (Depth, u64),
    ) -> Result<Step, Error> {
        self.must_serve()?;
        self.begin();
        let (step, found) = (Step::default(), Vec::new());
        let mut walk = Walk { service: self.clone(), step, depth, most: bytes, found };
        let gone = walk.go(from).await;
        let named = walk.name_disks().await;
        self.end();
        walk.step.next = gone?;
        named?;
        Ok(walk.step)
    }

    pub(in super::super) fn must_serve(&self) -> Result<(), Error> {
        let may = self.is_serving() && self.failed.borrow().is_none();
        if may { Ok(()) } else { Err(self.why_not()) }
    }

    /// A page of a map, and nothing that it names is used for something else as long as the guard
    /// is there. None: there is no such page.
    async fn page_held(
        self: &Rc<Self>,
        id: PageId,
    ) -> Result<Option<(Arc<MapPage>, Guard)>, Error> {
        loop {
            // First: whoever looks later than somebody lets go finds nothing there.
            let guard = self.scrubbing.guard();
            if let Some(page) = self.owner().page_here(id) {
                return Ok(Some((page, guard)));
            }
            drop(guard);
            if !self.owner().is_absent(id) {
                return Ok(None);
            }
            let ticket = self.new_ticket()?;
            self.tell(|owner| owner.fetch(ticket, id));
            self.found(ticket).await?;
        }
    }

    /// A new root, durably, with everything that is in memory. False: it is not to be had now.
    pub(super) async fn renew_root(self: &Rc<Self>) -> bool {
        self.renew_root_with(self.about()).await
    }

    /// The same, with something else that the LU is.
    pub(super) async fn renew_root_with(self: &Rc<Self>, about: About) -> bool {
        let renewed = self.core.timeout(CHECKPOINT, self.clone().describe(about));
        renewed.await.is_some_and(|done| done.is_ok())
    }

    /// Reads extents of a page of a map until there are none left.
    async fn read_extents(
        self: Rc<Self>,
        id: PageId,
        reads: Rc<Reads>,
    ) -> Result<Vec<(usize, Read)>, Error> {
        let (mut all, blocks) = (Vec::new(), self.shape.blocks_per_extent());
        loop {
            let Some(extent) = reads.extents.borrow_mut().pop_front() else { return Ok(all) };
            self.must_serve()?;
            let Some((page, _guard)) = self.page_held(id).await? else { continue };
            let Some(place) = page.place(extent) else { continue };
            let mut read = Read::new();
            for (first, count) in page.written(extent) {
                for piece in (first..first + count).step_by(RUN_BLOCKS as usize) {
                    let block = u64::from(place.extent) * blocks + piece;
                    let at = Spot { slab: place.slab, block: block as u32 };
                    let count = (first + count - piece).min(RUN_BLOCKS);
                    reads.sums.borrow_mut().extend(self.absent_sums(at, count));
                    read.push(self.disks.verify(at, count).await?);
                }
            }
            all.push((extent, read));
        }
    }

    /// Pages of checksums of these blocks that are not in memory.
    fn absent_sums(&self, at: Spot, count: u64) -> impl Iterator<Item = SumsId> {
        let sums = self.disks.shared().sums.iter();
        sums.flat_map(move |sums| {
            SumsId::of(at, count).map(|(id, ..)| id).filter(|id| !sums.has(*id))
        })
    }
}

impl Walk {
    async fn go(&mut self, from: Cursor) -> Result<Option<Cursor>, Error> {
        match from {
            Cursor::Root => {
                self.root().await?;
                Ok(Some(Cursor::Journal(0)))
            }
            Cursor::Journal(page) => self.journal(page).await.map(Some),
            Cursor::Sums(slab) => self.sums(slab).await.map(Some),
            Cursor::Map { number, layer, extent } => self.maps((number, layer), extent).await,
        }
    }

    fn add(&mut self, severity: Severity, what: String) {
        let (id, name) = (self.service.lu, Some(self.service.about().name));
        self.step.findings.push(Finding { severity, of: Of::Lu { id, name }, what });
    }

    /// What was the case, and is not any more, or still is.
    fn add_mended(&mut self, is_mended: bool, what: &str) {
        match is_mended {
            true => self.add(Severity::Mended, format!("{what}; it is written anew")),
            false => self.add(Severity::Damaged, what.to_owned()),
        }
    }

    /// A page that was not good at some of its places.
    async fn add_homes(&mut self, homes: Vec<Home>, what: &str) -> Result<(), Error> {
        if homes.is_empty() {
            return Ok(());
        }
        let disks = self.names(homes).await?.join(", ");
        self.add_mended(true, &format!("{what} was not as it should be on {disks}"));
        Ok(())
    }

    async fn names(&self, homes: Vec<Home>) -> Result<Vec<String>, Error> {
        let names = async move |pool: Rc<Pool>| Ok(pool.names_of(&homes));
        self.service.of_pool(names).await
    }

    /// What was found, with the names of disks.
    async fn name_disks(&mut self) -> Result<(), Error> {
        for Found { layer, block, bad } in std::mem::take(&mut self.found) {
            let Bad { count, outcome, homes, .. } = bad;
            let disks = self.names(homes).await?;
            self.step.damage.push(Damage { outcome, layer, block, count, disks });
        }
        Ok(())
    }

    async fn page(
        &mut self,
        at: Spot,
        check: impl Fn(&Page) -> Result<(), Flaw>,
    ) -> Result<Seen, Error> {
        let _guard = self.service.scrubbing.guard();
        self.step.bytes += BLOCK_BYTES;
        self.service.disks.verify_page(at, check).await
    }

    /// The root as it is on disk; where that is not what it should be another one is written.
    async fn root(&mut self) -> Result<(), Error> {
        {
            let mut owner = self.service.owner.borrow_mut();
            let space = owner.space();
            self.step.counts.lus = 1;
            self.step.counts.extents_used = space.extents() - space.free_extents();
            self.step.counts.layers = owner.layers().count() as u64;
        }
        let Some(flaws) = self.root_flaws().await? else { return Ok(()) };
        if flaws.is_empty() {
            return Ok(());
        }
        // Each has another place.
        let is_renewed = self.service.renew_root().await && self.service.renew_root().await;
        let is_mended = is_renewed && self.root_flaws().await?.is_none_or(|flaws| flaws.is_empty());
        flaws.iter().for_each(|flaw| self.add_mended(is_mended, flaw));
        Ok(())
    }

    /// What is wrong with it at all places; none: it is written anew all the time.
    async fn root_flaws(&mut self) -> Result<Option<Vec<String>>, Error> {
        for _ in 0..TRIES {
            self.service.must_serve()?;
            let before = self.service.owner().settled_turn();
            if let Some(turn) = before {
                let (findings, flaws) = (self.step.findings.len(), self.heads(turn).await?);
                if self.service.owner().settled_turn() == before {
                    return Ok(Some(flaws));
                }
                // What was found of one that was just being written says nothing.
                self.step.findings.truncate(findings);
            }
            self.service.core.sleep(PAUSE).await;
        }
        Ok(None)
    }

    async fn heads(&mut self, turn: u64) -> Result<Vec<String>, Error> {
        let site = self.service.owner().site();
        let (mut flaws, mut heads) = (Vec::new(), Vec::new());
        for (which, at) in (0..).zip(site.heads()) {
            let is_newest = which == turn % 2;
            let check = |page: &Page| {
                let header = page.check(HEAD, &site.owner(), which)?;
                // Its place is for this turn, and what is there is of another one.
                let is_other = is_newest && header.turn != turn;
                if is_other { Err(Flaw::Later) } else { Ok(()) }
            };
            match self.page(at, check).await?.page() {
                Ok((page, homes)) => {
                    self.add_homes(homes, &format!("head {which} of its root")).await?;
                    heads.push((is_newest, page));
                }
                // The other one was not written before the second root was.
                Err(_) if !is_newest && turn == 1 => {}
                Err(why) => flaws.push(format!("head {which} of its root cannot be read: {why}")),
            }
        }
        let newest = heads.iter().find(|(is_newest, _)| *is_newest).map(|(_, page)| page);
        if let Some(head) = newest.and_then(|page| site.newest([page, page]).ok()) {
            flaws.extend(self.body(head).await?);
        }
        Ok(flaws)
    }

    async fn body(&mut self, head: Head) -> Result<Vec<String>, Error> {
        let (site, mut pages, mut flaws) = (self.service.owner().site(), Vec::new(), Vec::new());
        for (number, at) in (0..).zip(head.body(&site).unwrap_or_default()) {
            let check = |page: &Page| page.check(BODY, &site.owner(), number).map(drop);
            let what = format!("page {number} of the body of its root");
            match self.page(at, check).await?.page() {
                Ok((page, homes)) => {
                    self.add_homes(homes, &what).await?;
                    pages.push(page);
                }
                Err(why) => flaws.push(format!("{what} cannot be read: {why}")),
            }
        }
        if flaws.is_empty()
            && let Err(flaw) = head.root(&site, &pages)
        {
            flaws.push(format!("the body of its root cannot be read: {flaw}"));
        }
        Ok(flaws)
    }

    /// Pages of the journal, of which a reader would need each.
    async fn journal(&mut self, from: u64) -> Result<Cursor, Error> {
        let (mut from, lu, mut rotten) = (from, self.service.lu, Vec::new());
        for _ in 0..PAGES_PER_STEP {
            let next = self.service.owner().journal_page(from);
            let Some((number, at, epoch)) = next else {
                self.renew_journal(rotten).await;
                return Ok(Cursor::Sums(0));
            };
            let check = |page: &Page| {
                let header = page.check(journal::KIND, &lu, number)?;
                if header.epoch == epoch { Ok(()) } else { Err(Flaw::Later) }
            };
            let seen = self.page(at, check).await?;
            // What nobody needs any more may be something else by now.
            if self.service.owner().journal_page(number).map(|it| it.0) == Some(number) {
                let what = format!("page {number} of its journal");
                match seen.page() {
                    Ok((page, homes)) => {
                        let records = journal::said(&page).map_or(0, |(.., all)| all.len());
                        self.step.counts.records += records as u64;
                        self.add_homes(homes, &what).await?;
                    }
                    Err(why) => rotten.push(format!("{what} cannot be read: {why}")),
                }
            }
            from = number + 1;
        }
        self.renew_journal(rotten).await;
        Ok(Cursor::Journal(from))
    }

    /// What the journal says is in memory, and then in maps: nobody needs those pages.
    async fn renew_journal(&mut self, rotten: Vec<String>) {
        if rotten.is_empty() {
            return;
        }
        let is_renewed = self.service.renew_root().await;
        for what in rotten {
            match is_renewed {
                true => self.add(Severity::Mended, format!("{what}; a checkpoint has replaced it")),
                false => self.add(Severity::Damaged, what),
            }
        }
    }

    /// Pages of checksums.
    async fn sums(&mut self, from: u32) -> Result<Cursor, Error> {
        let data = Cursor::Map { number: 0, layer: 0, extent: 0 };
        if self.service.disks.shared().sums.is_none() {
            return Ok(data);
        }
        let all = self.service.slabs();
        let mut slabs = all.range(from..);
        for slab in slabs.by_ref().take(PAGES_PER_STEP) {
            self.service.must_serve()?;
            self.sums_of(*slab).await?;
        }
        Ok(slabs.next().map_or(data, |slab| Cursor::Sums(*slab)))
    }

    async fn sums_of(&mut self, slab: u32) -> Result<(), Error> {
        // It is the LU's as long as somebody is on the way.
        let _guard = self.service.scrubbing.guard();
        if !self.service.slabs().contains(&slab) {
            return Ok(());
        }
        let shape = self.service.shape;
        for page in 0..shape.sum_pages() as u32 {
            let id = SumsId { slab, page };
            let blocks = id.blocks(shape);
            let seen = self.service.disks.verify_sums(id).await?;
            self.step.bytes += 2 * BLOCK_BYTES;
            let what = format!(
                "a page of checksums, of blocks {} to {} of slab {slab},",
                blocks.start,
                blocks.end - 1
            );
            self.add_homes(seen.homes, &what).await?;
            if let Some(is_mended) = seen.rotten {
                self.add_mended(is_mended, &format!("{what} has rotted"));
            }
        }
        Ok(())
    }

    /// Pages of maps, and what they speak of.
    async fn maps(
        &mut self,
        mut from: (u64, LayerNumber),
        mut extent: usize,
    ) -> Result<Option<Cursor>, Error> {
        let mut pages = 0;
        while self.step.bytes < self.most && pages < PAGES_PER_STEP {
            self.service.must_serve()?;
            let Some(id) = self.service.owner().page_from(from) else { return Ok(None) };
            let (layer, number) = id;
            if (number, layer) != from {
                extent = 0;
            }
            if extent == 0 {
                pages += 1;
                self.step.counts.map_pages += 1;
            }
            let is_good = extent > 0 || self.map_page(id).await?;
            if is_good
                && self.depth == Depth::Everything
                && let Some(extent) = self.data(id, extent).await?
            {
                return Ok(Some(Cursor::Map { number, layer, extent }));
            }
            (from, extent) = ((number, layer.saturating_add(1)), 0);
        }
        Ok(Some(Cursor::Map { number: from.0, layer: from.1, extent }))
    }

    /// A page as it is on disk. False: it cannot be read, and is not in memory.
    async fn map_page(&mut self, id: PageId) -> Result<bool, Error> {
        let form = self.service.form();
        for _ in 0..TRIES {
            let Some(lies) = self.service.owner().lies(id) else { return Ok(true) };
            let Lies { at, layer, turn } = lies;
            let check = |page: &Page| MapPage::decode(page, form, (&layer, id.1), turn).map(drop);
            let seen = self.page(at, check).await?;
            // Otherwise another one counts, or none.
            let is_same = |it: &Lies| (it.at, it.layer) == (at, layer);
            let Some(still) = self.service.owner().lies(id).filter(is_same) else { continue };
            let what = page_of_map(id);
            match seen.page() {
                Ok((_, homes)) => self.add_homes(homes, &what).await?,
                // With the second root behind that one it may lie there again, written anew.
                Err(_) if still.turn != turn => continue,
                Err(why) => {
                    return Ok(self.anew(id, &format!("{what} cannot be read: {why}")).await);
                }
            }
            return Ok(true);
        }
        Ok(true)
    }

    async fn anew(&mut self, id: PageId, what: &str) -> bool {
        let is_here = self.service.owner.borrow_mut().write_anew(id);
        let is_mended = is_here && self.service.renew_root().await;
        self.add_mended(is_mended, what);
        is_here
    }

    /// Reads what a page says from this extent on, as far as this step goes. Gives where the next
    /// one begins.
    async fn data(&mut self, id: PageId, from: usize) -> Result<Option<usize>, Error> {
        let was_absent = self.service.owner().is_absent(id);
        let held = match self.service.page_held(id).await {
            Ok(held) => held,
            Err(error) => {
                self.service.must_serve()?;
                self.add(Severity::Damaged, error.to_string());
                return Ok(None);
            }
        };
        let Some((page, guard)) = held else { return Ok(None) };
        let (mut extents, mut planned, mut extent) = (VecDeque::new(), self.step.bytes, from);
        let end = self.service.form().extents() as usize;
        // One at least, however short the step is.
        while extent < end && (planned < self.most || extents.is_empty()) {
            let blocks: u64 = page.written(extent).iter().map(|(_, count)| count).sum();
            if blocks > 0 {
                extents.push_back(extent);
                planned += blocks * BLOCK_BYTES;
            }
            extent += 1;
        }
        drop(guard);
        let read = self.read(id, extents).await;
        // Nobody else gets to use it between these.
        drop(page);
        if was_absent {
            self.service.owner.borrow_mut().let_page_go(id);
        }
        read?;
        Ok((extent < end).then_some(extent))
    }

    async fn read(&mut self, id: PageId, extents: VecDeque<usize>) -> Result<(), Error> {
        let reads = Rc::new(Reads { extents: RefCell::new(extents), ..Reads::default() });
        let reader = |_| {
            let read = self.service.clone().read_extents(id, reads.clone());
            self.service.core.spawn_task(read)
        };
        let readers: Vec<_> = (0..READERS_MAX).map(reader).collect();
        let mut read = Vec::new();
        let mut failed = Ok(());
        for reader in readers {
            match reader.await {
                Ok(some) => read.extend(some),
                Err(error) => failed = Err(error),
            }
        }
        if let Some(sums) = &self.service.disks.shared().sums {
            reads.sums.take().into_iter().for_each(|id| sums.let_go(id));
        }
        read.sort_by_key(|(extent, _)| *extent);
        let form = self.service.form();
        let layer = self.service.owner().layers().id(id.0).unwrap_or_default();
        for (extent, runs) in read {
            self.step.extents += 1;
            let start = (id.1 * form.extents() + extent as u64) * form.blocks();
            for Verified { bytes, bad } in runs {
                self.step.bytes += bytes;
                self.found.extend(bad.into_iter().map(|bad| {
                    let block = start + u64::from(bad.block) % form.blocks();
                    Found { layer, block, bad }
                }));
            }
        }
        failed
    }
}
