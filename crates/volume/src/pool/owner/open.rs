//! Opening what an owner before has left: root, pages of the map, journal, and a look at data that
//! may or may not be there.
//!
//! Whoever opens has synced everything below first (see `journal`), and nothing of the owner before
//! runs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::super::journal::{
    Accepted, Full, Journal, Record, Replay, Replayed, Serial, Spot, Start,
};
use super::super::map::Place;
use super::super::page::{Flaw, Page};
use super::super::root::{About, Frozen, Root, RootLayer, Site};
use super::super::space::Space;
use super::checkpoint::{Checkpoint, Rooted};
use super::fold::Folds;
use super::gate::Gates;
use super::layers::{LayerId, Layers, PageId};
use super::{Growth, Owner};

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
    #[error("page {} of the map of its layer {} cannot be read: {flaw}", .id.1, .id.0)]
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
        let layers = vec![RootLayer { number, id: layer, below, frozen, chunks }];
        Root { about, turn: 1, start, ring, top: number, layers, beyond: Default::default() }
    }

    /// `epoch` is higher than that of any owner before.
    pub fn new(site: Site, epoch: u64, root: Root) -> Self {
        let layers = Layers::new(site.shape, &root);
        let replay = Replay::new(site.lu, root.start);
        Self { site, epoch, root, layers, replay }
    }

    /// The pages of the map to read, with their places.
    pub fn pages(&self) -> Vec<(PageId, Spot)> {
        self.layers.wanted()
    }

    pub fn load(&mut self, id: PageId, page: &Page) -> Result<(), Unopened> {
        let loaded = self.layers.load(id, page, self.root.turn);
        loaded.map_err(|flaw| Unopened::Map { id, flaw })
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
        let Self { site, epoch, root, layers, replay } = self;
        Read { site, epoch, root, layers, replayed: replay.end() }
    }
}

impl Read {
    /// Blocks whose data has to be looked at.
    pub fn doubtful(&self) -> Vec<Spot> {
        self.replayed.doubtful().collect()
    }

    /// Records of the journal that were found.
    pub fn records(&self) -> usize {
        self.replayed.records()
    }

    /// The LU, with these slabs. `sum_of` gives the sum of a doubtful block's data. Who only wants
    /// to look may go on where an extent is named twice.
    pub fn open(
        self,
        slabs: &[u32],
        sum_of: impl Fn(Spot) -> u32,
        contradicts: impl FnMut(Unopened) -> Result<(), Unopened>,
    ) -> Result<Owner, Unopened> {
        let Self { site, epoch, root, mut layers, replayed } = self;
        if epoch <= replayed.epoch {
            return Err(Unopened::Epoch);
        }
        let (accepted, refused) = replayed.settle(sum_of);
        let ring = root.ring_pages(&site);
        let journal = Journal::resume((site.lu, epoch, ring), &replayed, &refused)?;
        let Taken { unsealed, mut freed, branched } =
            take_over(&mut layers, accepted, &journal, root.about.size);
        // Whatever a refused record names waits for its void, whatever else has freed it.
        let last = journal.next_serial() - 1;
        let doubtful: BTreeSet<Place> =
            replayed.doubtful().map(|spot| layers.place_of(spot)).collect();
        freed.retain(|(serial, place)| !journal.is_sealed(*serial) && !doubtful.contains(place));
        freed.extend(doubtful.into_iter().map(|place| (last, place)));
        let own = [&root.ring[..], &root.beyond[0], &root.beyond[1], &[site.place()]].concat();
        let places = [layers.places(), own].concat();
        let space = space(site.shape, slabs, (places, freed), contradicts)?;
        let root = Root { layers: Vec::new(), ..root };
        let rooted = Rooted { root, described: Vec::new(), describing: Vec::new() };
        Ok(Owner {
            journal,
            layers,
            space,
            gates: Gates::default(),
            recorded: BTreeMap::new(),
            direct: HashMap::new(),
            serials: HashMap::new(),
            lost: VecDeque::new(),
            unsealed,
            for_seal: BTreeMap::new(),
            for_room: VecDeque::new(),
            is_journal_full: false,
            changes: VecDeque::new(),
            for_change: VecDeque::new(),
            changing: None,
            branched,
            folds: Folds::default(),
            flushes: Vec::new(),
            syncing: None,
            syncs_begun: 1,
            syncs_ended: 1,
            quiescing: HashMap::new(),
            growth: Growth::Possible,
            pace: 1,
            is_behind: false,
            may_have_surplus: true,
            site,
            rooted,
            checkpoint: Checkpoint::None,
            orders: Vec::new(),
        })
    }
}

/// What is left to be known of records that are in the map.
#[derive(Default)]
struct Taken {
    unsealed: HashMap<u64, Serial>,
    freed: Vec<(Serial, Place)>,
    /// The last record of a new layer.
    branched: Serial,
}

/// Does in the map what has come about.
fn take_over(
    layers: &mut Layers,
    accepted: Vec<(Serial, Accepted)>,
    journal: &Journal,
    size: u64,
) -> Taken {
    let mut taken = Taken::default();
    for (serial, accepted) in accepted {
        let (block, count) = match accepted {
            Accepted::Written { block, at, count } => {
                let place = layers.place_of(at);
                layers.settle(block, place);
                layers.write(block, count);
                (block, count)
            }
            Accepted::Other(Record::Zeroed { block, count }) => {
                taken.freed.extend(layers.zero(block, count).map(|place| (serial, place)));
                (block, count)
            }
            Accepted::Other(record) => {
                taken.freed.extend(layers.apply(&record, size).map(|place| (serial, place)));
                if let Record::Branched { .. } = record {
                    taken.unsealed.clear();
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

fn space(
    shape: super::super::shape::Shape,
    slabs: &[u32],
    (used, freed): (Vec<Place>, Vec<(Serial, Place)>),
    mut contradicts: impl FnMut(Unopened) -> Result<(), Unopened>,
) -> Result<Space, Unopened> {
    let mut space = Space::new(shape);
    slabs.iter().for_each(|slab| space.grant(*slab));
    for place in used {
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
