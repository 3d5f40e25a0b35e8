//! Opening what an owner before has left: root, pages of the map, journal, and a look at data that
//! may or may not be there.
//!
//! Whoever opens has synced everything below first (see `journal`), and nothing of the owner before
//! runs any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::journal::{
    Accepted, Full, Journal, Record, Replay, Replayed, Serial, Spot, Start,
};
use super::super::map::Place;
use super::super::memory::Memory;
use super::super::numbers::NumberMap;
use super::super::page::{Flaw, Page};
use super::super::root::{About, Frozen, Missed, Root, RootLayer, Site};
use super::super::shape::Shape;
use super::super::space::Space;
use super::super::sums::Known;
use super::checkpoint::{Checkpoint, Rooted};
use super::fold::Folds;
use super::gate::Gates;
use super::layers::{LayerId, Layers, PageId, page_of_map};
use super::load::Loads;
use super::regions::{Opened, Regions, regions_of};
use super::{Growth, LayerNumber, Owner};

/// Pages that are none of the journal, one behind the other, before it is taken for ended: what was
/// lost may be known to have been durable only by a page far behind it.
pub const LOOK_BEHIND_PAGES: u64 = 8;

/// An LU that is being opened.
pub struct Opening {
    site: Site,
    /// Higher than that of any owner before.
    epoch: u64,
    root: Root,
    layers: Layers,
    replay: Replay,
}

/// Everything was read but data.
pub struct Read {
    site: Site,
    epoch: u64,
    root: Root,
    layers: Layers,
    replayed: Replayed,
}

/// Why an LU cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    #[error("{} cannot be read: {flaw}", page_of_map(*.id))]
    Map { id: PageId, flaw: Flaw },
    #[error("its map names slab {}, extent {}, twice or without having it", .0.slab, .0.extent)]
    Place(Place),
    #[error("its journal is full; it has to be made longer")]
    Journal(#[from] Full),
    #[error("page {0} of its journal cannot be read, and later ones can")]
    Rotten(u64),
    #[error("its root is older than its journal: the newest root cannot be read")]
    Outdated,
    #[error("its journal is of a later time than the labels of its pool: a disk is an old copy")]
    Epoch,
}

impl Opening {
    /// The root of a new LU, with nothing in it. No page in the ring is of this LU.
    pub fn root_of_new(about: About, ring: Vec<Place>, layer: LayerId, epoch: u64) -> Root {
        let start = Start { page: 0, epoch, next: 1, sealed: 1 };
        let (number, below, frozen, chunks) = (1, None, Frozen::default(), BTreeMap::new());
        let layers = vec![RootLayer { number, id: layer, below, frozen, chunks, extents: 0 }];
        // It has few slabs, and nothing in them but what it names itself: no need to say so.
        let (beyond, used, opened, missed) = (Default::default(), None, Default::default(), None);
        let (turn, top, brought) = (1, number, 0);
        Root { about, turn, start, ring, top, layers, beyond, used, opened, missed, brought }
    }

    /// `epoch` is higher than that of any owner before. Pages of maps are counted in `memory`.
    pub fn new(site: Site, epoch: u64, root: Root, memory: &Arc<Memory>) -> Self {
        let layers = Layers::new(site.shape, &root, memory);
        let replay = Replay::new(site.owner(), root.start);
        Self { site, epoch, root, layers, replay }
    }

    /// Every page of the map, with its place.
    pub fn pages(&self) -> Vec<(PageId, Spot)> {
        self.layers.wanted()
    }

    /// Whether all of them have to be read: the root is of an older form.
    pub fn needs_all(&self) -> bool {
        self.root.used.is_none()
    }

    pub fn load(&mut self, id: PageId, page: &Page) -> Result<(), Unopened> {
        load(&mut self.layers, id, page, self.root.turn)
    }

    /// Where the page of the journal is that is to be read next, until [`Opening::replay`] says
    /// that it was not one.
    pub fn journal_page(&self) -> Spot {
        self.behind(0)
    }

    /// Where the page is that is so far behind the end of the journal, as it was found.
    pub fn behind(&self, pages: u64) -> Spot {
        let ring = self.root.ring_pages(&self.site);
        self.root.ring_spot(&self.site, (self.replay.wants() + pages) % ring)
    }

    pub fn replay(&mut self, page: &Page) -> bool {
        self.replay.push(page)
    }

    /// Looks at the page that was found there: no crash leaves one that knows of more. True: it is
    /// one of the journal, so that those behind it have to be looked at too.
    pub fn check_behind(&self, pages: u64, page: &Page) -> Result<bool, Unopened> {
        use super::super::journal::Behind;
        match self.replay.behind(pages, page) {
            Behind::Nothing => Ok(false),
            Behind::Page => Ok(true),
            Behind::More => Err(Unopened::Rotten(self.replay.wants())),
            Behind::Later => Err(Unopened::Outdated),
        }
    }

    /// The number of the page behind the end of the journal, if that looks like one of it that a
    /// crash has cut off, or that has rotted: nobody can tell.
    pub fn torn(&self, page: &Page) -> Option<u64> {
        self.replay.is_torn(page).then(|| self.replay.wants())
    }

    pub fn read(self) -> Read {
        let Self { site, epoch, root, mut layers, replay } = self;
        if root.used.is_none() {
            layers.count_extents();
        }
        Read { site, epoch, root, layers, replayed: replay.end() }
    }
}

fn load(layers: &mut Layers, id: PageId, page: &Page, turn: u64) -> Result<(), Unopened> {
    // Whether its places are used is looked at when all of them are known.
    layers.load(id, page, turn, |_| true).map_err(|flaw| {
        layers.give_up(id);
        Unopened::Map { id, flaw }
    })
}

impl Read {
    /// Pages of the map that records are about and that were not read yet, with their places.
    pub fn pages(&self) -> Vec<(PageId, Spot)> {
        let layers = &self.layers;
        let mut there: BTreeSet<LayerNumber> = layers.ids().map(|(number, _)| number).collect();
        let (mut top, mut ids) = (layers.top_number(), BTreeSet::new());
        for record in self.replayed.all() {
            match *record {
                Record::Written { block, .. } | Record::Zeroed { block, .. } => {
                    ids.insert((top, layers.form().locate(block).0));
                }
                Record::Folded { layer, into, extent, .. } => {
                    let number = extent / layers.form().extents();
                    ids.extend(into.into_iter().chain([layer]).map(|layer| (layer, number)));
                }
                // As it is done when they are taken.
                Record::Branched { from, number, .. } => {
                    if there.contains(&from) && number > from && there.insert(number) {
                        top = number;
                    }
                }
                Record::Dropped { layer } if layer != top => drop(there.remove(&layer)),
                Record::Dropped { .. } | Record::Void { .. } => {}
                Record::Opened { .. } | Record::Closed { .. } => {}
            }
        }
        let absent = ids.into_iter().filter(|id| layers.is_absent(*id));
        absent.filter_map(|id| Some((id, layers.spot_of_page(id)?))).collect()
    }

    pub fn load(&mut self, id: PageId, page: &Page) -> Result<(), Unopened> {
        load(&mut self.layers, id, page, self.root.turn)
    }

    /// Blocks whose data has to be looked at.
    pub fn doubtful(&self) -> Vec<Spot> {
        self.replayed.doubtful().collect()
    }

    /// Records of the journal that were found.
    pub fn records(&self) -> usize {
        self.replayed.records()
    }

    /// The LU, with these slabs. `is_there` says whether a doubtful block has this sum. Who only
    /// wants to look may go on where an extent is named twice.
    pub fn open(
        self,
        slabs: &[u32],
        is_there: impl Fn(Spot, u32) -> bool,
        contradicts: impl FnMut(Unopened) -> Result<(), Unopened>,
    ) -> Result<(Owner, Known), Unopened> {
        let Self { site, epoch, root, mut layers, replayed } = self;
        if epoch <= replayed.epoch {
            return Err(Unopened::Epoch);
        }
        let (accepted, refused) = replayed.settle(is_there);
        let of = (site.owner(), epoch, root.ring_pages(&site));
        let journal = Journal::resume(of, &replayed, &refused)?;
        let mut known = Known::by(site.shape, &accepted);
        let missed = root.missed.as_ref().map(|it| missed_since(it, (&site, &root), &accepted));
        let Taken { mut unsealed, folded, mut freed, branched, touched, opened } =
            take_over((&mut layers, root.opened.clone()), accepted, &journal, root.about.size);
        known.doubt(site.shape, &opened.open);
        // Whatever a refused record names waits for its void, whatever else has freed it.
        let last = journal.next_serial() - 1;
        unsealed.extend(blocks_of(&refused).map(|block| (block, last)));
        let doubtful: BTreeSet<Place> = replayed.doubtful().map(|it| layers.place_of(it)).collect();
        freed.retain(|(serial, place)| !journal.is_sealed(*serial) && !doubtful.contains(place));
        freed.extend(doubtful.into_iter().map(|place| (last, place)));
        let named = [layers.places(), root.own_places(&site)].concat();
        let used = Used { summed: root.used.as_deref(), touched, named, freed };
        let space = space(site.shape, slabs, used, contradicts)?;
        let (layers_of, opened_of) = (Vec::new(), Regions::new());
        let rooted =
            Rooted::of(Root { layers: layers_of, used: None, opened: opened_of, missed, ..root });
        let owner = Owner {
            journal,
            layers,
            space,
            gates: Gates::default(),
            recorded: BTreeMap::new(),
            direct: NumberMap::default(),
            serials: NumberMap::default(),
            lost: VecDeque::new(),
            voided: 0,
            unsealed,
            for_seal: BTreeMap::new(),
            for_room: VecDeque::new(),
            is_journal_full: false,
            is_pressed: false,
            is_cramped: false,
            changes: VecDeque::new(),
            for_change: VecDeque::new(),
            changing: None,
            branched,
            folds: Folds::new(folded),
            loads: Loads::default(),
            opened,
            flushes: Vec::new(),
            syncing: None,
            syncs_begun: 1,
            syncs_ended: 1,
            quiescing: NumberMap::default(),
            growth: Growth::default(),
            may_have_surplus: true,
            surplus: Vec::new(),
            site,
            rooted,
            checkpoint: Checkpoint::None,
            orders: Vec::new(),
        };
        Ok((owner, known))
    }
}

/// Blocks whose records were refused. They go to the same place when they are written again: what
/// is left there of the data that was refused, and a part of what is written, could be just that.
fn blocks_of(voids: &[Record]) -> impl Iterator<Item = u64> {
    voids.iter().flat_map(|void| match *void {
        Record::Void { block, count, .. } => block..block + count,
        _ => 0..0,
    })
}

/// What copies may lack by now. What is written of the root's own, and of maps, nobody says.
fn missed_since(
    missed: &Missed,
    (site, root): (&Site, &Root),
    accepted: &[(Serial, Accepted)],
) -> Missed {
    let (mut missed, shape) = (missed.clone(), site.shape);
    let mut add = |slab, regions| *missed.regions.entry(slab).or_default() |= regions;
    let extent = |place: Place| {
        let blocks = shape.blocks_per_extent();
        (place.slab, regions_of(shape, u64::from(place.extent) * blocks, blocks))
    };
    for (_, it) in accepted {
        match it {
            Accepted::Written { at, sums, .. } => {
                add(at.slab, regions_of(shape, at.block.into(), sums.len() as u64));
            }
            // Also if they were closed since.
            Accepted::Other(Record::Opened { slab, regions }) => add(*slab, *regions),
            Accepted::Other(Record::Folded { place: Some(place), .. }) => {
                let (slab, regions) = extent(*place);
                add(slab, regions);
            }
            Accepted::Other(_) => {}
        }
    }
    root.opened.iter().for_each(|(slab, regions)| add(*slab, *regions));
    let chunks = root.layers.iter().flat_map(|layer| layer.chunks.values());
    let own = root.own_places(site).into_iter();
    for (slab, regions) in own.chain(chunks.map(|chunk| chunk.place)).map(extent) {
        add(slab, regions);
    }
    missed
}

impl Known {
    /// What the journal says, in a pool that keeps sums.
    fn by(shape: Shape, accepted: &[(Serial, Accepted)]) -> Self {
        let mut known = Self::default();
        if shape.has_sums() {
            accepted.iter().for_each(|(_, it)| known.learn(shape, it));
        }
        known
    }

    /// What a change says of sums, in its turn.
    fn learn(&mut self, shape: Shape, accepted: &Accepted) {
        match *accepted {
            Accepted::Written { at, ref sums, .. } => {
                let spots = (at.block..).map(|block| Spot { block, ..at });
                self.sums.extend(spots.zip(sums.iter().copied()));
            }
            // They are in their pages since.
            Accepted::Other(Record::Closed { slab, regions }) => {
                self.sums.retain(|at, _| !is_in(shape, *at, slab, regions));
            }
            // Its blocks have been copied, and no record has their sums.
            Accepted::Other(Record::Folded { place: Some(place), .. }) => {
                let blocks = shape.blocks_per_extent();
                let regions = regions_of(shape, u64::from(place.extent) * blocks, blocks);
                *self.doubtful.entry(place.slab).or_default() |= regions;
            }
            Accepted::Other(_) => {}
        }
    }

    /// These regions may have been overwritten.
    fn doubt(&mut self, shape: Shape, open: &Regions) {
        if !shape.has_sums() {
            return;
        }
        for (slab, regions) in open {
            *self.doubtful.entry(*slab).or_default() |= regions;
        }
        let doubtful = &self.doubtful;
        self.sums.retain(|at, _| {
            let regions = doubtful.get(&at.slab).copied().unwrap_or_default();
            !is_in(shape, *at, at.slab, regions)
        });
    }
}

fn is_in(shape: Shape, at: Spot, slab: u32, regions: u64) -> bool {
    at.slab == slab && regions_of(shape, at.block.into(), 1) & regions != 0
}

impl Owner {
    /// Extents that are used though nothing names them, where all pages of the maps were read: an
    /// owner leaves none.
    pub fn unnamed_extents(&self) -> u64 {
        let root = &self.rooted.root;
        let own = 1 + root.ring.len() + root.beyond.iter().map(Vec::len).sum::<usize>();
        let named = (own + self.layers.places().len()) as u64;
        let space = &self.space;
        let used = space.extents() - space.free_extents() - space.waiting_extents();
        used.saturating_sub(named)
    }
}

/// What is left to be known of records that are in the map.
#[derive(Default)]
struct Taken {
    unsealed: NumberMap<u64, Serial>,
    /// See [`Folds`].
    folded: BTreeMap<u64, Serial>,
    freed: Vec<(Serial, Place)>,
    /// The last record of a new layer.
    branched: Serial,
    /// Extents of which what the root says may not be so any more.
    touched: BTreeSet<Place>,
    opened: Opened,
}

/// Does in the map what has come about.
fn take_over(
    (layers, opened): (&mut Layers, Regions),
    accepted: Vec<(Serial, Accepted)>,
    journal: &Journal,
    size: u64,
) -> Taken {
    let mut taken = Taken { opened: Opened::new(opened), ..Taken::default() };
    for (serial, accepted) in accepted {
        let (block, count) = match accepted {
            Accepted::Written { block, at, sums } => {
                let count = sums.len() as u64;
                let place = layers.place_of(at);
                taken.touched.extend(layers.places_at(layers.extent_of(block), None));
                taken.touched.insert(place);
                layers.settle(block, place);
                layers.write(block, count);
                (block, count)
            }
            Accepted::Other(Record::Zeroed { block, count }) => {
                taken.touched.extend(layers.places_at(layers.extent_of(block), None));
                taken.freed.extend(layers.zero(block, count).map(|place| (serial, place)));
                (block, count)
            }
            Accepted::Other(record) => {
                taken.opened.apply(&record);
                if let Record::Folded { extent, place, .. } = record {
                    taken.touched.extend(layers.places_at(extent, Some(&record)));
                    taken.touched.extend(place);
                }
                if !journal.is_sealed(serial) {
                    taken.folded.extend(layers.freshen(&record).map(|extent| (extent, serial)));
                }
                taken.freed.extend(layers.apply(&record, size).map(|place| (serial, place)));
                if let Record::Branched { .. } = record {
                    taken.unsealed.clear();
                    taken.folded.clear();
                    taken.branched = serial;
                }
                continue;
            }
        };
        if !journal.is_sealed(serial) {
            layers.set_fresh(block, true);
            taken.unsealed.extend((block..block + count).map(|block| (block, serial)));
        }
    }
    taken
}

/// What is known of the extents of the LU.
struct Used<'a> {
    /// By the root, at its time; none if it does not say.
    summed: Option<&'a [u8]>,
    /// By records since.
    touched: BTreeSet<Place>,
    /// By the root itself and by those pages of maps that are here: all that records are about, and
    /// without a root that says more, all.
    named: Vec<Place>,
    freed: Vec<(Serial, Place)>,
}

/// What a record has touched is used if something names it now. Everything else is as it was.
fn space(
    shape: Shape,
    slabs: &[u32],
    Used { summed, touched, named, freed }: Used<'_>,
    mut contradicts: impl FnMut(Unopened) -> Result<(), Unopened>,
) -> Result<Space, Unopened> {
    let mut space = match Space::decode(shape, slabs, summed.unwrap_or_default()) {
        Ok(space) => space,
        Err(place) => {
            contradicts(Unopened::Place(place))?;
            Space::decode(shape, slabs, &[]).expect("it names nothing")
        }
    };
    touched.iter().for_each(|place| space.disclaim(*place));
    if summed.is_some() {
        // Taken out here and put in again below: what is named twice is noticed by either.
        for place in named.iter().filter(|place| !touched.contains(place)) {
            if !space.is_used(*place) {
                contradicts(Unopened::Place(*place))?;
            }
            space.disclaim(*place);
        }
    }
    for place in named {
        if !space.claim(place) {
            contradicts(Unopened::Place(place))?;
        }
    }
    for (serial, place) in freed {
        // One that is used again is not free at all.
        if space.claim(place) {
            space.give_back(serial, place);
        }
    }
    Ok(space)
}
