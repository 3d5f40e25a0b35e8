//! Opening what an owner before has left: root, pages of the map, journal, and a look at data that
//! may or may not be there.
//!
//! Whoever opens has synced everything below first (see `journal`), and nothing of the owner before
//! runs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::super::journal::{Accepted, Full, Journal, Replay, Replayed, Serial, Spot, Start};
use super::super::map::Place;
use super::super::page::{Flaw, Owner as Whose, Page};
use super::super::shape::Shape;
use super::super::space::Space;
use super::Owner;
use super::checkpoint::{Checkpoint, Root};
use super::gate::Gates;
use super::layers::{LayerId, Layers, PageId};

/// What an LU is that is opened, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub lu: Whose,
    pub shape: Shape,
    /// Higher than that of any owner before.
    pub epoch: u32,
    /// Pages of the journal.
    pub ring: u64,
}

/// An LU that is being opened.
pub struct Opening {
    identity: Identity,
    layers: Layers,
    replay: Replay,
}

/// Everything was read but data.
pub struct Read {
    identity: Identity,
    layers: Layers,
    replayed: Replayed,
}

/// Why an LU cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    #[error("a page of its map cannot be read: {0}")]
    Map(#[from] Flaw),
    #[error("its map names slab {}, extent {}, twice or without having it", .0.slab, .0.extent)]
    Place(Place),
    #[error("its journal is full; it has to be made longer")]
    Journal(#[from] Full),
}

impl Opening {
    /// A new LU, with nothing in it.
    pub fn root_of_new(identity: Identity, layer: LayerId) -> Root {
        let start = Start { page: 0, epoch: identity.epoch, next: 1, sealed: 1 };
        Root { layers: vec![(layer, BTreeMap::new())], start }
    }

    pub fn new(identity: Identity, root: Root) -> Self {
        let layers = Layers::new(identity.shape, root.layers);
        Self { identity, layers, replay: Replay::new(identity.lu, root.start) }
    }

    /// The pages of the map to read, with their places.
    pub fn pages(&self) -> Vec<(PageId, Spot)> {
        self.layers.wanted()
    }

    pub fn load(&mut self, id: PageId, page: &Page) -> Result<(), Unopened> {
        Ok(self.layers.load(id, page)?)
    }

    /// The page of the journal to read next, until [`Opening::replay`] says that it was the last.
    pub fn journal_page(&self) -> u64 {
        self.replay.wants()
    }

    pub fn replay(&mut self, page: &Page) -> bool {
        self.replay.push(page)
    }

    pub fn read(self) -> Read {
        let Self { identity, layers, replay } = self;
        Read { identity, layers, replayed: replay.end() }
    }
}

impl Read {
    /// Blocks whose data has to be looked at.
    pub fn doubtful(&self) -> Vec<Spot> {
        self.replayed.doubtful().collect()
    }

    /// The LU, with these slabs. `sum_of` gives the sum of a doubtful block's data.
    pub fn open(self, slabs: &[u32], sum_of: impl Fn(Spot) -> u32) -> Result<Owner, Unopened> {
        let Self { identity, mut layers, replayed } = self;
        let (accepted, refused) = replayed.settle(sum_of);
        let Identity { lu, shape, epoch, ring } = identity;
        let journal = Journal::resume((lu, epoch, ring), &replayed, &refused)?;
        let mut unsealed = HashMap::new();
        let mut freed: Vec<(Serial, Place)> = Vec::new();
        for (serial, accepted) in accepted {
            let (block, count) = match accepted {
                Accepted::Written { block, at, count } => {
                    let place = layers.place_of(at);
                    layers.settle(block, place);
                    layers.write(block, count);
                    (block, count)
                }
                Accepted::Zeroed { block, count } => {
                    let place = layers.zero(block, count);
                    freed.extend(place.map(|place| (serial, place)));
                    (block, count)
                }
                Accepted::Frozen { top } => {
                    layers.push(top);
                    unsealed.clear();
                    continue;
                }
            };
            if !journal.is_sealed(serial) {
                unsealed.extend((block..block + count).map(|block| (block, serial)));
            }
        }
        // Whatever a refused record names waits for its void, whatever else has freed it.
        let last = journal.next_serial() - 1;
        let doubtful: BTreeSet<Place> =
            replayed.doubtful().map(|spot| layers.place_of(spot)).collect();
        freed.retain(|(serial, place)| !journal.is_sealed(*serial) && !doubtful.contains(place));
        freed.extend(doubtful.into_iter().map(|place| (last, place)));
        let space = space(shape, slabs, &layers, freed)?;
        Ok(Owner {
            journal,
            layers,
            space,
            gates: Gates::default(),
            recorded: BTreeMap::new(),
            direct: HashMap::new(),
            unsealed,
            for_seal: BTreeMap::new(),
            for_room: VecDeque::new(),
            snapshot: None,
            for_snapshot: VecDeque::new(),
            freezing: None,
            flushes: Vec::new(),
            syncing: None,
            syncs_begun: 1,
            syncs_ended: 1,
            quiescing: HashMap::new(),
            checkpoint: Checkpoint::None,
            orders: Vec::new(),
        })
    }
}

fn space(
    shape: Shape,
    slabs: &[u32],
    layers: &Layers,
    freed: Vec<(Serial, Place)>,
) -> Result<Space, Unopened> {
    let mut space = Space::new(shape);
    slabs.iter().for_each(|slab| space.grant(*slab));
    if let Some(place) = layers.places().into_iter().find(|place| !space.claim(*place)) {
        return Err(Unopened::Place(place));
    }
    for (serial, place) in freed {
        // One that is used again is not free at all.
        if space.claim(place) {
            space.give_back(serial, place);
        }
    }
    Ok(space)
}
