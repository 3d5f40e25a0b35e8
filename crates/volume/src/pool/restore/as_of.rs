//! LUs that are to be what the backup says of them, though nothing proves that they still are: who
//! asks for that names them, and has nothing better.
//!
//! An LU is taken only if it is damaged and nothing else helps. It gets the maps of the backup in
//! the slabs that it has now, see [`rebuild`](super::rebuild), a root of a turn of its own that
//! names them, and an empty journal. What must hold whatever happens:
//!
//! - It names no block that was ever another LU's. Data counts only in slabs that were its all the
//!   time, which the slab tables prove: the grant is the one of the backup, by its generation, at
//!   every place. A copy that was brought to another place has only what was used then, so it
//!   proves nothing. Everything else reads zero: a map has no word for what is lost. (A table that
//!   came back from the same backup before may be wrong of slabs that have come and gone in
//!   between; the one that comes back now is asked for alone.)
//! - In its own slabs an extent may have been freed and used again since, so a block may hold what
//!   was written to another one of the same LU, or a page of a map of its own. Checksums know what
//!   was written as data last, and where: of what else lies there now, reading fails.
//! - Its copies are the same. All were current then and are now, and none has missed anything in
//!   between: their ages say so. Where a crash may have left them different is known by the journal
//!   that is lost, so that without checksums all is in doubt, and one copy becomes all others'.
//! - No page of its journal is taken for a new one: the new journal begins behind the last one,
//!   with an epoch that is higher than that of any owner so far, and lower than that of the next.
//! - Nobody who stands on its snapshots is changed unasked: all of these are named too. The layer
//!   that is written into gets a new name, so that a snapshot that became of it since is not taken
//!   for it.
//!
//! Both heads of its root are blanked, durably, before anything else of it is written, and one is
//! written when all else is durable. So a crash in between leaves an LU that cannot be opened, and
//! is taken when the command is given again.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use block::ErrorKind;

use super::super::backup::BackedLu;
use super::super::check::{Finding, Of, Severity};
use super::super::home::{Granted, Pool, PoolError, TableFlaw, first_epoch};
use super::super::inspect::uuid;
use super::super::journal::{self, RING_PAGES_MIN, Start};
use super::super::label::Label;
use super::super::lu::{LuError, Whence, read_left, read_root};
use super::super::owner::{LayerId, Unopened, page_of_map};
use super::super::page::{Flaw, Owner, PAGE_BYTES, Page};
use super::super::root::{BODY, Base, HEAD, Root, Site};
use super::super::slabs::{Grant, Slab};
use super::lus::Damaged;
use super::rebuild::{Ground, Lost, Rebuilding, Rebuilt, Stamp};
use super::{Plan, Refused};

/// Why copies are not known to be the same.
const MISSED: &str = "a failure group has missed something since the backup was taken, or lacks \
                      something, and nothing tells what";

/// An LU that was asked for, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    pub lu: [u8; 16],
    pub name: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is what the backup says. Its maps, those of snapshots too, name so many bytes; of some of
    /// them nothing is to be had.
    Taken { bytes: u64, lost: Vec<Lost> },
    /// What was damaged of it is known to be right as it comes back.
    Proven,
    /// Nothing of its own is changed; it stands on an LU that is.
    Above,
    /// Nothing is changed of it, because of this.
    Refused(String),
}

/// An LU of the backup that was asked for.
pub(super) struct Named<'a> {
    id: Owner,
    name: String,
    backed: &'a BackedLu,
}

/// Why one is not taken.
enum Not {
    /// There is no need.
    Sound,
    Fit(String),
    /// Nothing can be said at all.
    Failed(Refused),
}

impl From<Refused> for Not {
    fn from(refused: Refused) -> Self {
        Self::Failed(refused)
    }
}

impl From<PoolError> for Not {
    fn from(error: PoolError) -> Self {
        Self::Fit(error.to_string())
    }
}

fn unfit<T>(why: impl Into<String>) -> Result<T, Not> {
    Err(Not::Fit(why.into()))
}

/// What came of looking at each that was asked for.
type Tried<'a> = Vec<(Named<'a>, Result<Rebuilt, Not>)>;

impl<'a> Plan<'a> {
    /// The LUs that are asked for by what they were called, or by UUID.
    pub(super) fn named(&self, asked: &[String]) -> Result<Vec<Named<'a>>, Refused> {
        let backup = self.backup;
        let known = |(id, backed): (&Owner, &'a BackedLu)| {
            let disk = backup.disks.first()?;
            let (shape, lineage) = (disk.layout.shape(), disk.label.lineage());
            let site = Site { lu: *id, shape, first_slab: backed.first_slab, lineage };
            let name = backed.root(&site).map(|(_, _, root)| root.about.name);
            Some((*id, name.unwrap_or_default(), backed))
        };
        let known: Vec<_> = backup.lus.iter().filter_map(known).collect();
        let mut found: Vec<Named<'a>> = Vec::new();
        for asked in asked {
            let is_it = |(id, name, _): &&(Owner, String, &BackedLu)| {
                name == asked || uuid(*id) == asked.to_lowercase()
            };
            let mut all = known.iter().filter(is_it);
            let Some((id, name, backed)) = all.next() else {
                return Err(Refused::Unknown(asked.clone()));
            };
            if all.next().is_some() {
                return Err(Refused::Several(asked.clone()));
            }
            if found.iter().all(|other| other.id != *id) {
                found.push(Named { id: *id, name: name.clone(), backed });
            }
        }
        Ok(found)
    }

    /// Lays over the disks what makes these LUs what the backup says.
    pub(super) async fn as_of(&mut self, named: Vec<Named<'a>>) -> Result<(), Refused> {
        if named.is_empty() {
            return Ok(());
        }
        let why = match self.find().await {
            Some(found) if found.absent() == 0 => self.has_missed(found.labels()).then_some(MISSED),
            _ => Some("not all disks of the pool are here"),
        };
        if let Some(why) = why {
            self.refuse_all(named, why);
            return Ok(());
        }
        let (pool, flaws) = self.look().await?;
        let is_odd =
            |flaw: &TableFlaw| matches!(flaw, TableFlaw::Error(_) | TableFlaw::Firsts { .. });
        let mut done = Ok(());
        if flaws.iter().any(is_odd) {
            self.refuse_all(named, "slab tables are damaged, and nobody knows which slabs are its");
        } else {
            done = self.as_of_in(&pool, named).await;
        }
        pool.close().await?;
        done
    }

    /// Whether a failure group lacks something, or did when the backup was taken, or a disk was
    /// missing in between.
    fn has_missed<'l>(&self, now: impl Iterator<Item = &'l Label>) -> bool {
        let said = |label: &Label| (label.missed, label.forces, label.is_behind);
        let now = now.map(said).max();
        let then = self.backup.disks.iter().map(|disk| said(&disk.label)).max();
        let is_behind = |said: Option<(u64, u16, bool)>| said.is_some_and(|said| said.2);
        now != then || is_behind(now)
    }

    /// None of them is taken.
    pub(super) fn refuse_all(&mut self, named: Vec<Named<'_>>, why: &str) {
        let refused = |Named { id, name, .. }| {
            let outcome = Outcome::Refused(why.to_owned());
            AsOf { lu: id, name, outcome }
        };
        self.as_of.extend(named.into_iter().map(refused));
    }

    async fn as_of_in(&mut self, pool: &Rc<Pool>, named: Vec<Named<'a>>) -> Result<(), Refused> {
        let mut tried = Tried::new();
        for named in named {
            let rebuilt = match self.rebuilt(pool, &named).await {
                Err(Not::Failed(refused)) => return Err(refused),
                rebuilt => rebuilt,
            };
            tried.push((named, rebuilt));
        }
        let bases = bases(pool).await?;
        while let Some((at, why)) = in_the_way(pool, &tried, &bases).await? {
            tried[at].1 = unfit(why);
        }
        let taken = tried.iter().filter(|(_, rebuilt)| rebuilt.is_ok());
        let above = standing(taken.map(|(named, _)| named.id).collect(), &bases);
        for (named, rebuilt) in tried {
            let outcome = match rebuilt {
                Ok(rebuilt) => self.take(pool, named.id, rebuilt).await?,
                Err(Not::Sound) if above.contains(&named.id) => Outcome::Above,
                Err(Not::Sound) if self.comes_back(named.id) => Outcome::Proven,
                Err(Not::Sound) => Outcome::Refused("it is not damaged".to_owned()),
                Err(Not::Fit(why)) => Outcome::Refused(why),
                Err(Not::Failed(refused)) => return Err(refused),
            };
            self.as_of.push(AsOf { lu: named.id, name: named.name, outcome });
        }
        Ok(())
    }

    /// Whether something of an LU was lost, and is restored.
    fn comes_back(&self, id: Owner) -> bool {
        self.restored.iter().any(|told| is_of(&told.of, id))
    }

    /// An LU as it is to be.
    async fn rebuilt(&self, pool: &Rc<Pool>, named: &Named<'a>) -> Result<Rebuilt, Not> {
        let (id, backed) = (named.id, named.backed);
        let granted = pool.granted(id).filter(|granted| granted.first.is_some());
        let Some(granted) = granted else { return unfit("the pool does not have it any more") };
        if granted.first != Some(backed.first_slab) {
            return unfit("it began elsewhere when the backup was taken");
        }
        let site = pool.site(id, backed.first_slab);
        let Some((_, _, then)) = backed.root(&site) else {
            return unfit("the backup has no root of it");
        };
        must_be_damaged(pool, &granted, site).await?;
        if let Some(source) = &then.about.source {
            return unfit(format!(
                "it was being brought from {} when the backup was taken",
                source.name
            ));
        }
        if then.ring_pages(&site) < RING_PAGES_MIN {
            return unfit("its root in the backup makes no sense");
        }
        let kept = self.kept(pool, id)?;
        let lu = Damaged { site, pool, disks: pool.disks()?, backed };
        let stamp = self.stamp(&lu, &then).await?;
        let next = then.start.next;
        let ground = Ground { site, slabs: granted.slabs, kept };
        let Some(mut rebuilding) = Rebuilding::begin(ground, then, stamp) else {
            return unfit("its first slab is not its");
        };
        for wanted in rebuilding.wanted() {
            let (page_id, layer, _) = wanted;
            let page = self.backup.map_page(backed, (layer, page_id.1)).await;
            let page = page.map_err(Refused::File)?;
            if page.and_then(|page| rebuilding.take(wanted, page).ok()).is_none() {
                return unfit(format!("the backup does not have {}", page_of_map(page_id)));
            }
        }
        if !rebuilding.settle() {
            return unfit("its slabs have no room for its maps");
        }
        let page = self.journal_end(&lu, &rebuilding, stamp.epoch).await?;
        let start = Start { page, epoch: stamp.epoch, next, sealed: next };
        let has_others = pool.groups().len() > 1 && !pool.shape().has_sums();
        match rebuilding.end(start, has_others) {
            Some(rebuilt) => Ok(rebuilt),
            None => unfit("its slabs have no room for its root"),
        }
    }

    /// Slabs of an LU that are granted to it wherever they lie as they were then: nobody else has
    /// had them since. An error: a copy has missed something, so that one is older, or was.
    fn kept(&self, pool: &Pool, id: Owner) -> Result<BTreeSet<u32>, Not> {
        let of_lu = |slab: &Slab| match *slab {
            Slab::Granted(grant) if grant.lu == id => Some(grant),
            _ => None,
        };
        let age = |grant: Grant| grant.is_first.then_some(grant.age);
        let places = self.backup.disks.iter().flat_map(|disk| disk.places());
        let then: BTreeSet<u32> =
            places.filter_map(|(_, slab)| of_lu(&slab)).filter_map(age).collect();
        let (mut now, mut kept, mut moved) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for pv in self.disks.iter().filter_map(|slot| slot.pv) {
            let backed = self.backup.disks.iter().find(|disk| disk.label.pv == pv);
            let mut before = backed.into_iter().flat_map(|disk| disk.places());
            for slab in pool.places_on(pv) {
                let before = before.next().and_then(|(_, slab)| of_lu(&slab));
                let Some(grant) = of_lu(&slab) else { continue };
                let id = |grant: Grant| (grant.number, grant.generation);
                let is_same = before.map(id) == Some(id(grant));
                if is_same { &mut kept } else { &mut moved }.insert(grant.number);
                now.extend(age(grant));
            }
        }
        if now.len() != 1 || now != then {
            return unfit(MISSED);
        }
        kept.retain(|number| !moved.contains(number));
        match kept.is_empty() {
            true => unfit("none of its slabs is where it was when the backup was taken"),
            false => Ok(kept),
        }
    }

    /// What is newer than all that an owner of the LU has left of its root, and older than what the
    /// next one writes.
    async fn stamp(&self, lu: &Damaged<'_>, then: &Root) -> Result<Stamp, Not> {
        let mut last = then.turn;
        for block in Site::begins(lu.site.shape) {
            let at = journal::Spot { slab: lu.site.first_slab, block: block as u32 };
            let page = self.read(lu, at).await?;
            let (header, _) = page.says();
            let is_own = [HEAD, BODY].contains(&header.kind) && header.owner == lu.site.owner();
            if is_own && page.is_whole() {
                last = last.max(header.turn);
            }
        }
        let Some(turn) = last.checked_add(1) else {
            return unfit("no later root than its last one can be written");
        };
        let epoch = first_epoch(lu.pool.epoch()) - 1;
        let random = [self.core.random().to_le_bytes(), self.core.random().to_le_bytes()];
        let mut top = LayerId::default();
        top.copy_from_slice(random.as_flattened());
        Ok(Stamp { turn, epoch, top })
    }

    /// The number of a page of the journal behind all that lie in its ring.
    async fn journal_end(
        &self,
        lu: &Damaged<'_>,
        rebuilding: &Rebuilding,
        epoch: u64,
    ) -> Result<u64, Not> {
        let mut end = 0;
        for at in rebuilding.ring() {
            let page = self.read(lu, at).await?;
            let (header, _) = page.says();
            let is_own = header.kind == journal::KIND && header.owner == lu.site.owner();
            if !is_own || !page.is_whole() {
                continue;
            }
            if header.epoch > epoch {
                return unfit(Unopened::Epoch.to_string());
            }
            end = end.max(header.number.saturating_add(1));
        }
        Ok(end)
    }

    /// Lays an LU over the disks.
    async fn take(&mut self, pool: &Pool, id: Owner, lu: Rebuilt) -> Result<Outcome, Refused> {
        self.take_off(pool, id);
        let Rebuilt { root, pages, head, bytes, lost } = lu;
        let site = pool.site(id, head.0.slab);
        let blank = Page::of_bytes(&[0; PAGE_BYTES]);
        for at in site.heads() {
            for (pv, offset) in pool.places_of(at) {
                self.put(pv, offset, &blank);
                self.blanks.push((pv, offset));
            }
        }
        for (at, page) in pages.iter().chain([&head]) {
            for (pv, offset) in pool.places_of(*at) {
                if self.on_disk(pv, offset).await?.as_ref() != Some(page) {
                    self.put(pv, offset, page);
                }
            }
        }
        let spots = (0..root.ring_pages(&site)).map(|page| root.ring_spot(&site, page));
        for (pv, offset) in spots.flat_map(|at| pool.places_of(at)) {
            // Whoever opens the LU reads it.
            if self.on_disk(pv, offset).await?.is_none() {
                self.put(pv, offset, &blank);
            }
        }
        Ok(Outcome::Taken { bytes, lost })
    }

    /// What a disk has there; none: it cannot read that.
    async fn on_disk(&self, pv: [u8; 16], at: u64) -> Result<Option<Page>, Refused> {
        let Some(slot) = self.disks.iter().position(|slot| slot.pv == Some(pv)) else {
            return Ok(None);
        };
        match self.page(slot, at).await {
            Ok(page) => Ok(Some(page)),
            Err(Refused::Disk { error, .. }) if error.kind() == ErrorKind::Medium => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Nothing of an LU is laid over the disks any more.
    fn take_off(&mut self, pool: &Pool, id: Owner) {
        self.restored.retain(|told| !is_of(&told.of, id));
        self.refused.retain(|told| !is_of(&told.of, id));
        let slabs = pool.granted(id).unwrap_or_default().slabs;
        let starts =
            slabs.into_iter().flat_map(|slab| pool.places_of(journal::Spot { slab, block: 0 }));
        for (pv, start) in starts {
            let own = start..start + pool.shape().stride();
            if let Some(slot) = self.disks.iter().find(|slot| slot.pv == Some(pv)) {
                slot.overlay.pages().retain(|at, _| !own.contains(at));
            }
        }
    }

    /// Nothing is written at all if one of these is damaged all the same.
    pub(super) fn must_be_right(&self) -> Result<(), Refused> {
        let is_taken = |it: &&AsOf| matches!(it.outcome, Outcome::Taken { .. });
        for AsOf { lu, name, .. } in self.as_of.iter().filter(is_taken) {
            let is_damage = |it: &&Finding| it.severity == Severity::Damaged && is_of(&it.of, *lu);
            if let Some(finding) = self.report.findings.iter().find(is_damage) {
                let (lu, what) = (name.clone(), finding.what.clone());
                return Err(Refused::Damaged { lu, what });
            }
        }
        Ok(())
    }
}

fn is_of(of: &Of, lu: Owner) -> bool {
    matches!(of, Of::Lu { id, .. } if *id == lu)
}

/// Refuses an LU of which everything can be read, and one that something else is wrong with than
/// damage.
async fn must_be_damaged(pool: &Pool, granted: &Granted, site: Site) -> Result<(), Not> {
    pool.must_have_copy(site.lu, granted)?;
    let (disks, tenure) = (pool.disks()?, pool.tenure(site.lu)?);
    let (epoch, slabs, memory) = (tenure.epoch, &granted.slabs[..], &Default::default());
    let whence = Whence { site, epoch, slabs, all: true, memory };
    let why = match read_left(&disks, whence, Err).await {
        Ok(_) => return Err(Not::Sound),
        Err(why) => why,
    };
    let is_newer = |flaw: Flaw| matches!(flaw, Flaw::Newer(_));
    let is_damage = match &why {
        LuError::Root(flaw) => !is_newer(*flaw),
        LuError::Unopened(Unopened::Map { flaw, .. }) => !is_newer(*flaw),
        LuError::Unopened(Unopened::Place(_) | Unopened::Rotten(_) | Unopened::Outdated) => true,
        LuError::Unopened(Unopened::Epoch | Unopened::Journal(_)) => false,
        LuError::Disk(error) => error.kind() == ErrorKind::Medium,
        _ => false,
    };
    if is_damage { Ok(()) } else { unfit(why.to_string()) }
}

/// What LUs stand on, of those whose root can be read.
async fn bases(pool: &Pool) -> Result<BTreeMap<Owner, Base>, Refused> {
    let mut bases = BTreeMap::new();
    for (id, granted) in pool.lus() {
        let Some(first_slab) = granted.first else { continue };
        let root = read_root(&*pool.disks()?, &pool.site(id, first_slab)).await;
        bases.extend(root.ok().and_then(|root| root.about.base).map(|base| (id, base)));
    }
    Ok(bases)
}

/// The LUs that stand on one of these, or on another one that does.
fn standing(mut on: BTreeSet<Owner>, bases: &BTreeMap<Owner, Base>) -> BTreeSet<Owner> {
    let mut all = BTreeSet::new();
    loop {
        let stand = |(id, base): (&Owner, &Base)| on.contains(&base.lu).then_some(*id);
        let more: BTreeSet<Owner> = bases.iter().filter_map(stand).collect();
        if more.is_subset(&all) {
            return all;
        }
        all.extend(more.iter().copied());
        on.extend(more);
    }
}

/// One that cannot be taken because of another one, and why.
async fn in_the_way(
    pool: &Pool,
    tried: &Tried<'_>,
    bases: &BTreeMap<Owner, Base>,
) -> Result<Option<(usize, String)>, Refused> {
    let find = |id: Owner| tried.iter().find(|(named, _)| named.id == id);
    let taken = |id: Owner| find(id).and_then(|(_, rebuilt)| rebuilt.as_ref().ok());
    for (at, (named, rebuilt)) in tried.iter().enumerate() {
        let Ok(rebuilt) = rebuilt else { continue };
        if let Some(Base { lu, layer }) = rebuilt.root.about.base {
            let is_there = match taken(lu) {
                Some(base) => base.has_frozen(layer),
                None => has_frozen(pool, lu, layer).await?,
            };
            if !is_there {
                let why = format!("it stands on a snapshot of LU {} that is gone", uuid(lu));
                return Ok(Some((at, why)));
            }
        }
        for other in standing(BTreeSet::from([named.id]), bases) {
            let base = bases.get(&other).filter(|base| base.lu == named.id);
            let why = if find(other).is_none() {
                "would read something else then: name it too"
            } else if base.is_some_and(|base| !rebuilt.has_frozen(base.layer)) {
                "stands on a snapshot that was taken since the backup"
            } else {
                continue;
            };
            return Ok(Some((at, format!("LU {}, its clone, {why}", uuid(other)))));
        }
    }
    Ok(None)
}

/// Whether an LU as it is has this snapshot.
async fn has_frozen(pool: &Pool, lu: Owner, layer: LayerId) -> Result<bool, Refused> {
    let granted = pool.granted(lu).unwrap_or_default();
    let Some(first_slab) = granted.first else { return Ok(false) };
    if pool.must_have_copy(lu, &granted).is_err() {
        return Ok(false);
    }
    let (disks, tenure) = (pool.disks()?, pool.tenure(lu)?);
    let (site, epoch, memory) = (pool.site(lu, first_slab), tenure.epoch, &Default::default());
    let whence = Whence { site, epoch, slabs: &granted.slabs, all: false, memory };
    let Ok(left) = read_left(&disks, whence, Err).await else { return Ok(false) };
    let layers = left.owner.layers();
    let frozen = layers.number(layer).and_then(|number| layers.frozen(number));
    Ok(frozen.is_some_and(|frozen| !frozen.is_going))
}
