//! The root of an LU: what it is called, how large it is, where its journal lies and where pages of
//! its maps do. Everything else of an LU is found from here.
//!
//! ```text
//!   first extent of the LU's first slab
//!   │ head │ head │ body … │ body … │         and, where that is not enough, extents of its own
//! ```
//!
//! There are two, written in turn. A head is one page, so it is there or it is not; its body is
//! durable before the head is written. So a head that is good while its body, or a page of a map
//! that it names, is not, is no sign of a crash: it is an error, and what was before is not taken
//! in its place.

use std::collections::BTreeMap;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::inspect::uuid;
use super::journal::{LayerNumber, Spot, Start};
use super::lineage::Lineage;
use super::map::Place;
use super::owner::{Chunk, Chunks, LayerId, Regions};
use super::page::{Flaw, Header, Kind, Owner, PAYLOAD_BYTES, Page};
use super::shape::Shape;

pub(super) const HEAD: Kind = Kind(*b"VDrh");
pub(super) const BODY: Kind = Kind(*b"VDrb");

/// Longest name of an LU, in bytes.
pub const LU_NAME_BYTES_MAX: usize = 64;

/// Longest name of a snapshot, in bytes.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 64;

/// Longest name of what an LU is brought from, in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 1024;

/// Most layers of an LU.
pub const LAYERS_MAX: usize = 1024;

/// What an LU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub name: String,
    pub size: u64,
    pub block_size: u32,
    /// It has the space at once that it can ever need.
    pub thick: bool,
    /// What its lowest layer stands on, if it is a clone.
    pub base: Option<Base>,
    /// What it is being brought from. Only the body of a root says it.
    pub source: Option<Source>,
}

/// A disk or a file that is none of the pool's, as it was when the LU was begun on it: what no
/// layer says of a block is what that has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What is behind that reads zero.
    pub size: u64,
    /// For people who have to find it; at most [`SOURCE_NAME_BYTES_MAX`] bytes.
    pub name: String,
}

/// A frozen layer of another LU of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub lu: Owner,
    pub layer: LayerId,
}

/// A layer of an LU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootLayer {
    pub number: LayerNumber,
    pub id: LayerId,
    /// Which one it stands on: one with a lower number.
    pub below: Option<LayerNumber>,
    pub frozen: Frozen,
    pub chunks: Chunks,
    /// Extents in which it has blocks of its own; 0 in a root that does not say what is used.
    pub extents: u64,
}

/// What is said of a frozen layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Of the LU at that time; 0 of the layer that is not frozen.
    pub size: u64,
    /// Of the snapshot that it is; empty if it is none.
    pub name: String,
    /// It is being folded into another one: some of what it was is there, and it is no snapshot
    /// any more, whatever its name.
    pub is_going: bool,
}

/// Said with the size of a frozen layer.
const GOING: u64 = 1 << 63;

/// The root as a checkpoint leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub about: About,
    /// Counts the roots that were written.
    pub turn: u64,
    pub start: Start,
    /// Extents of the journal's ring, in its order.
    pub ring: Vec<Place>,
    /// The layer that is written into.
    pub top: LayerNumber,
    /// In the order of their numbers.
    pub layers: Vec<RootLayer>,
    /// Extents for what of each body has no room beside the heads.
    pub beyond: [Vec<Place>; 2],
    /// Which extents of its slabs are used, as [`Space`](super::space::Space) says it in short.
    /// None: an older form, in which only maps tell.
    pub used: Option<Vec<u8>>,
    /// Regions of slabs in which copies may differ.
    pub opened: Regions,
    /// What copies may lack that do not have everything. None: nobody knows.
    pub missed: Option<Missed>,
    /// Extents from the first one on of which nothing is needed any more from what the LU is
    /// brought from.
    pub brought: u64,
}

/// What may be lacking in copies of an LU that missed writes before its root was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// A place lacks nothing else if its disk was in the pool in this epoch, or later.
    pub since: u64,
    /// How often the LU was forced: copies of before may have anything.
    pub forces: u32,
    pub regions: Regions,
}

/// A head that was read, with what its body will add.
#[derive(Clone, Debug)]
pub struct Head {
    which: usize,
    header: Header,
    root: Root,
    pages: u32,
    ring: u32,
    layers: u16,
    flags: u16,
}

/// Bytes that a layer takes in a body, with a name of so many bytes, and so many pages and chunks.
pub fn body_bytes(name: u64, pages: u64, chunks: u64) -> u64 {
    LAYER_BYTES + name + chunks * CHUNK_BYTES + pages * size_of::<U16>() as u64
}

/// Bytes in which a body says where copies may differ, and what they may lack, of so many slabs.
pub fn regions_bytes(slabs: u64) -> u64 {
    2 * (size_of::<U32>() as u64 + slabs * (size_of::<U32>() + size_of::<U64>()) as u64)
        + (size_of::<U64>() + size_of::<U32>()) as u64
}

/// Whose root, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    pub lu: Owner,
    pub shape: Shape,
    pub first_slab: u32,
    /// Of its pool.
    pub lineage: Lineage,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHead {
    size: U64,
    start_page: U64,
    start_next: U64,
    start_sealed: U64,
    start_epoch: U64,
    block_size: U16,
    flags: U16,
    pages: U32,
    ring: U32,
    layers: U16,
    name_len: U16,
    beyond: [U16; 2],
    top: U32,
    /// Zeroes: it stands on nothing.
    base_lu: Owner,
    base_layer: LayerId,
    name: [u8; LU_NAME_BYTES_MAX],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawPlace {
    slab: U32,
    extent: U32,
}

/// The LU is thick.
const THICK: u16 = 1;
/// The body says which extents are used, and of each layer how many.
const SUMMED: u16 = 2;
/// The body says in which regions copies may differ.
const OPENED: u16 = 4;
/// The body says what the LU is brought from: whoever does not know that would read zero there.
const SOURCED: u16 = 8;
/// The body says what copies may lack. Others are not known here.
const MISSED: u16 = 16;

/// Layers are counted from 1.
const NO_LAYER: LayerNumber = 0;

const PLACE_BYTES: usize = size_of::<RawPlace>();
/// Of a layer without its name: ID, number, what it stands on, size, length of the name, chunks,
/// extents.
const LAYER_BYTES: u64 = 16 + 4 + 4 + 8 + 2 + 4 + 8;
/// Of what is used: how many bytes.
pub const USED_HEAD_BYTES: u64 = size_of::<U32>() as u64;
/// Of a chunk without its pages: number, place, how many pages.
const CHUNK_BYTES: u64 = 8 + PLACE_BYTES as u64 + 2;
/// Extents that a head can name.
const BEYOND_MAX: usize = (PAYLOAD_BYTES - size_of::<RawHead>()) / PLACE_BYTES;

impl Site {
    /// What its pages call the LU.
    pub fn owner(&self) -> Owner {
        self.lineage.turned(self.lu)
    }

    /// Where the two heads are.
    pub fn heads(&self) -> [Spot; 2] {
        [0, 1].map(|block| Spot { slab: self.first_slab, block })
    }

    /// The extent that heads and short bodies lie in.
    pub fn place(&self) -> Place {
        Place { slab: self.first_slab, extent: 0 }
    }

    /// Blocks of the first extent where a root begins: both heads, and both bodies.
    pub fn begins(shape: Shape) -> [u64; 4] {
        [0, 1, 2, 2 + (shape.blocks_per_extent() - 2) / 2]
    }

    /// Pages of a body that have room beside the heads.
    fn pages_beside(&self) -> u64 {
        (self.shape.blocks_per_extent() - 2) / 2
    }

    /// Where a page of a body is, of which this much lies beyond.
    fn body_spot(&self, which: usize, page: u64, beyond: &[Place]) -> Option<Spot> {
        let beside = self.pages_beside();
        if page < beside {
            let block = 2 + which as u64 * beside + page;
            return Some(Spot { slab: self.first_slab, block: block as u32 });
        }
        let (blocks, page) = (self.shape.blocks_per_extent(), page - beside);
        let place = beyond.get((page / blocks) as usize)?;
        let block = u64::from(place.extent) * blocks + page % blocks;
        Some(Spot { slab: place.slab, block: block as u32 })
    }

    /// Of two heads as they were read the one that counts.
    pub fn newest(&self, heads: [&Page; 2]) -> Result<Head, Flaw> {
        let checked = [0, 1].map(|which| heads[which].check(HEAD, &self.owner(), which as u64));
        let which = super::page::newest(checked)?;
        let header = checked[which]?;
        let head = Head::decode((which, header), &self.lineage, heads[which].payload());
        head.ok_or(Flaw::Rotten)
    }

    /// Of two heads the one that was one and is not whole.
    pub fn torn(&self, heads: [&Page; 2]) -> Option<usize> {
        (0..2).find(|which| heads[*which].was(HEAD, &self.owner(), *which as u64))
    }
}

impl Root {
    /// Whether its layers stand on each other, and one of them is the top.
    fn is_sound(&self) -> bool {
        let numbers: Vec<LayerNumber> = self.layers.iter().map(|layer| layer.number).collect();
        let is_sound = |layer: &RootLayer| match layer.below {
            Some(below) => below < layer.number && numbers.contains(&below),
            None => layer.number != NO_LAYER,
        };
        let are_sorted = numbers.is_sorted_by(|one, other| one < other);
        are_sorted && numbers.contains(&self.top) && self.layers.iter().all(is_sound)
    }

    /// Which of the two places it has.
    fn which(&self) -> usize {
        (self.turn % 2) as usize
    }

    /// Extents that it lies in itself, and the journal.
    pub fn own_places(&self, site: &Site) -> Vec<Place> {
        [&self.ring[..], &self.beyond[0], &self.beyond[1], &[site.place()]].concat()
    }

    /// Pages of the journal's ring.
    pub fn ring_pages(&self, site: &Site) -> u64 {
        self.ring.len() as u64 * site.shape.blocks_per_extent()
    }

    /// Where a page of the ring lies.
    pub fn ring_spot(&self, site: &Site, page: u64) -> Spot {
        let blocks = site.shape.blocks_per_extent();
        let place = self.ring[(page / blocks) as usize];
        let block = u64::from(place.extent) * blocks + page % blocks;
        Spot { slab: place.slab, block: block as u32 }
    }

    /// Makes room for the body, and so many more pages in it, with extents from `take`. False:
    /// there was none to be had.
    pub fn make_room(
        &mut self,
        site: &Site,
        more: usize,
        mut take: impl FnMut() -> Option<Place>,
    ) -> bool {
        let bytes = self.body(site).len() + more * size_of::<U16>();
        let pages = bytes.div_ceil(PAYLOAD_BYTES) as u64;
        let beyond = pages.saturating_sub(site.pages_beside());
        let wanted = beyond.div_ceil(site.shape.blocks_per_extent()) as usize;
        let which = self.which();
        while self.beyond[which].len() < wanted {
            let is_full = self.beyond.iter().map(Vec::len).sum::<usize>() >= BEYOND_MAX;
            let Some(place) = (!is_full).then(&mut take).flatten() else { return false };
            self.beyond[which].push(place);
        }
        true
    }

    /// The pages of its body, and its head.
    pub fn encode(&self, site: &Site, epoch: u64) -> (Vec<(Spot, Page)>, (Spot, Page)) {
        let (which, turn, owner) = (self.which(), self.turn, site.owner());
        let body = self.body(site);
        let page = |(number, payload): (u64, &[u8])| {
            let at = site.body_spot(which, number, &self.beyond[which]).expect("room was made");
            (at, Page::new(Header { kind: BODY, owner, number, turn, epoch }, payload))
        };
        let pages: Vec<_> = (0..).zip(body.chunks(PAYLOAD_BYTES)).map(page).collect();
        let head = Header { kind: HEAD, owner, number: which as u64, turn, epoch };
        let head = Page::new(head, &self.head(site, pages.len() as u32));
        (pages, (site.heads()[which], head))
    }

    fn flags(&self) -> u16 {
        let thick = if self.about.thick { THICK } else { 0 };
        let summed = if self.used.is_some() { SUMMED } else { 0 };
        let opened = if self.opened.is_empty() { 0 } else { OPENED };
        let missed = if self.missed.is_some() { MISSED } else { 0 };
        thick | summed | opened | missed | if self.about.source.is_some() { SOURCED } else { 0 }
    }

    fn head(&self, site: &Site, pages: u32) -> Vec<u8> {
        let mut name = [0; LU_NAME_BYTES_MAX];
        name[..self.about.name.len()].copy_from_slice(self.about.name.as_bytes());
        let raw = RawHead {
            size: self.about.size.into(),
            start_page: self.start.page.into(),
            start_next: self.start.next.into(),
            start_sealed: self.start.sealed.into(),
            start_epoch: self.start.epoch.into(),
            block_size: (self.about.block_size as u16).into(),
            flags: self.flags().into(),
            pages: pages.into(),
            ring: (self.ring.len() as u32).into(),
            layers: (self.layers.len() as u16).into(),
            name_len: (self.about.name.len() as u16).into(),
            beyond: [0, 1].map(|which| (self.beyond[which].len() as u16).into()),
            top: self.top.into(),
            base_lu: self.about.base.map_or([0; 16], |base| site.lineage.turned(base.lu)),
            base_layer: self.about.base.map_or([0; 16], |base| base.layer),
            name,
        };
        let mut bytes = raw.as_bytes().to_vec();
        self.beyond.iter().flatten().for_each(|place| put_place(&mut bytes, *place));
        bytes
    }

    fn body(&self, site: &Site) -> Vec<u8> {
        let per_chunk = site.shape.pages_per_chunk();
        let mut bytes = Vec::new();
        self.ring.iter().for_each(|place| put_place(&mut bytes, *place));
        for RootLayer { number, id, below, frozen, chunks, extents } in &self.layers {
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&below.unwrap_or(NO_LAYER).to_le_bytes());
            let going = if frozen.is_going { GOING } else { 0 };
            bytes.extend_from_slice(&(frozen.size | going).to_le_bytes());
            bytes.extend_from_slice(&(frozen.name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(frozen.name.as_bytes());
            if self.used.is_some() {
                bytes.extend_from_slice(&extents.to_le_bytes());
            }
            bytes.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
            for (chunk, Chunk { place, pages }) in chunks {
                bytes.extend_from_slice(&chunk.to_le_bytes());
                put_place(&mut bytes, *place);
                bytes.extend_from_slice(&(pages.len() as u16).to_le_bytes());
                for (page, second) in pages {
                    let word = (page - chunk * per_chunk) << 1 | u64::from(*second);
                    bytes.extend_from_slice(&(word as u16).to_le_bytes());
                }
            }
        }
        if let Some(used) = &self.used {
            bytes.extend_from_slice(&(used.len() as u32).to_le_bytes());
            bytes.extend_from_slice(used);
        }
        if !self.opened.is_empty() {
            put_regions(&mut bytes, &self.opened);
        }
        if let Some(Source { size, name }) = &self.about.source {
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&self.brought.to_le_bytes());
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        if let Some(Missed { since, forces, regions }) = &self.missed {
            bytes.extend_from_slice(&since.to_le_bytes());
            bytes.extend_from_slice(&forces.to_le_bytes());
            put_regions(&mut bytes, regions);
        }
        bytes
    }
}

impl Head {
    fn decode((which, header): (usize, Header), pool: &Lineage, payload: &[u8]) -> Option<Self> {
        let (raw, mut rest) = RawHead::read_from_prefix(payload).ok()?;
        let name = raw.name.get(..usize::from(raw.name_len.get()))?;
        let name = str::from_utf8(name).ok()?.to_owned();
        let mut beyond = [Vec::new(), Vec::new()];
        for (places, count) in beyond.iter_mut().zip(raw.beyond) {
            for _ in 0..count.get() {
                places.push(take_place(&mut rest)?);
            }
        }
        let base = Base { lu: pool.turned(raw.base_lu), layer: raw.base_layer };
        let base = (raw.base_lu != [0; 16]).then_some(base);
        let flags = raw.flags.get();
        if flags & !(THICK | SUMMED | OPENED | SOURCED | MISSED) != 0 {
            return None;
        }
        let (size, block_size) = (raw.size.get(), raw.block_size.get().into());
        let (thick, source) = (flags & THICK != 0, None);
        let about = About { name, size, block_size, thick, base, source };
        let start = Start {
            page: raw.start_page.get(),
            epoch: raw.start_epoch.get(),
            next: raw.start_next.get(),
            sealed: raw.start_sealed.get(),
        };
        let (turn, top) = (header.turn, raw.top.get());
        let (ring, layers) = (Vec::new(), Vec::new());
        let (used, opened, missed, brought) = (None, Regions::new(), None, 0);
        let root =
            Root { about, turn, start, ring, top, layers, beyond, used, opened, missed, brought };
        let (pages, ring, layers) = (raw.pages.get(), raw.ring.get(), raw.layers.get());
        Some(Self { which, header, root, pages, ring, layers, flags })
    }

    /// Which of the two it is.
    pub fn which(&self) -> usize {
        self.which
    }

    /// What a head says by itself, in words.
    pub fn fields(header: Header, page: &Page, pool: &Lineage) -> Vec<(&'static str, String)> {
        let which = (header.number % 2) as usize;
        let Some(head) = Self::decode((which, header), pool, page.payload()) else {
            return Vec::new();
        };
        let has = |flag| head.flags & flag != 0;
        let from = if has(SOURCED) { "what the body says" } else { "nothing" };
        let missed = has(MISSED).then(|| ("copies lack", "what the body says".to_owned()));
        let Root { about, start, top, beyond, .. } = head.root;
        let base = about.base.map_or("nothing".to_owned(), |Base { lu, layer }| {
            format!("layer {} of LU {}", uuid(layer), uuid(lu))
        });
        let Start { page, epoch, next, sealed } = start;
        let said = vec![
            ("name", about.name),
            ("size", about.size.to_string()),
            ("block size", about.block_size.to_string()),
            ("stands on", base),
            ("is brought from", from.to_owned()),
            ("journal from page", format!("{page} of epoch {epoch}")),
            ("next serial", next.to_string()),
            ("sealed before", sealed.to_string()),
            ("pages of the body", head.pages.to_string()),
            ("extents of the ring", head.ring.to_string()),
            ("layers", head.layers.to_string()),
            ("top layer", top.to_string()),
            ("extents beyond", format!("{:?}", beyond.map(|places| places.len()))),
        ];
        said.into_iter().chain(missed).collect()
    }

    /// Where the pages of its body are. `None`: it names fewer extents than they need.
    pub fn body(&self, site: &Site) -> Option<Vec<Spot>> {
        let beyond = &self.root.beyond[self.which];
        (0..u64::from(self.pages)).map(|page| site.body_spot(self.which, page, beyond)).collect()
    }

    /// The root, with the pages of its body.
    pub fn root(self, site: &Site, pages: &[Page]) -> Result<Root, Flaw> {
        let Self { header, mut root, ring, layers, flags, .. } = self;
        let has = |flag| flags & flag != 0;
        let per_chunk = site.shape.pages_per_chunk();
        let mut body = Vec::with_capacity(pages.len() * PAYLOAD_BYTES);
        for (number, page) in (0..).zip(pages) {
            let found = page.check(BODY, &header.owner, number)?;
            if (found.turn, found.epoch) != (header.turn, header.epoch) {
                return Err(Flaw::Later);
            }
            body.extend_from_slice(page.payload());
        }
        let mut rest = &body[..];
        let parts = (|| {
            let ring = (0..ring).map(|_| take_place(&mut rest)).collect::<Option<_>>()?;
            let layer = |_| take_layer(&mut rest, per_chunk, has(SUMMED));
            let layers = (0..layers).map(layer).collect::<Option<_>>()?;
            let used = if has(SUMMED) { Some(take_used(&mut rest)?) } else { None };
            let opened = if has(OPENED) { take_regions(&mut rest)? } else { Regions::new() };
            let source = if has(SOURCED) { Some(take_source(&mut rest)?) } else { None };
            let missed = if has(MISSED) { Some(take_missed(&mut rest)?) } else { None };
            Some((ring, layers, used, opened, source, missed))
        })();
        // Under good checksums: somebody else's idea of this form.
        let (ring, layers, used, opened, source, missed) = parts.ok_or(Flaw::Rotten)?;
        (root.ring, root.layers, root.used, root.opened) = (ring, layers, used, opened);
        root.missed = missed;
        if let Some((source, brought)) = source {
            (root.about.source, root.brought) = (Some(source), brought);
        }
        root.is_sound().then_some(root).ok_or(Flaw::Rotten)
    }
}

fn put_place(bytes: &mut Vec<u8>, place: Place) {
    let raw = RawPlace { slab: place.slab.into(), extent: place.extent.into() };
    bytes.extend_from_slice(raw.as_bytes());
}

fn put_regions(bytes: &mut Vec<u8>, all: &Regions) {
    bytes.extend_from_slice(&(all.len() as u32).to_le_bytes());
    for (slab, regions) in all {
        bytes.extend_from_slice(&slab.to_le_bytes());
        bytes.extend_from_slice(&regions.to_le_bytes());
    }
}

fn take<T: FromBytes>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = T::read_from_prefix(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

fn take_place(bytes: &mut &[u8]) -> Option<Place> {
    let RawPlace { slab, extent } = take(bytes)?;
    Some(Place { slab: slab.get(), extent: extent.get() })
}

fn take_used(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let len = take::<U32>(bytes)?.get();
    let (used, rest) = bytes.split_at_checked(len as usize)?;
    *bytes = rest;
    Some(used.to_vec())
}

fn take_missed(bytes: &mut &[u8]) -> Option<Missed> {
    let (since, forces) = (take::<U64>(bytes)?.get(), take::<U32>(bytes)?.get());
    Some(Missed { since, forces, regions: take_regions(bytes)? })
}

fn take_regions(bytes: &mut &[u8]) -> Option<Regions> {
    let count = take::<U32>(bytes)?.get();
    let one = |_| Some((take::<U32>(bytes)?.get(), take::<U64>(bytes)?.get()));
    (0..count).map(one).collect()
}

fn take_source(bytes: &mut &[u8]) -> Option<(Source, u64)> {
    let (size, brought) = (take::<U64>(bytes)?.get(), take::<U64>(bytes)?.get());
    let len = take::<U16>(bytes)?.get();
    let (name, rest) = bytes.split_at_checked(usize::from(len))?;
    *bytes = rest;
    let name = str::from_utf8(name).ok().filter(|it| it.len() <= SOURCE_NAME_BYTES_MAX)?.to_owned();
    Some((Source { size, name }, brought))
}

fn take_layer(bytes: &mut &[u8], per_chunk: u64, is_summed: bool) -> Option<RootLayer> {
    let id: LayerId = take(bytes)?;
    let (number, below) = (take::<U32>(bytes)?.get(), take::<U32>(bytes)?.get());
    let below = (below != NO_LAYER).then_some(below);
    let (size, name_len) = (take::<U64>(bytes)?.get(), take::<U16>(bytes)?.get());
    let (name, rest) = bytes.split_at_checked(usize::from(name_len))?;
    *bytes = rest;
    let name = str::from_utf8(name).ok().filter(|it| it.len() <= SNAPSHOT_NAME_BYTES_MAX)?;
    let is_going = size & GOING != 0;
    let frozen = Frozen { size: size & !GOING, name: name.to_owned(), is_going };
    let extents = if is_summed { take::<U64>(bytes)?.get() } else { 0 };
    let chunks: U32 = take(bytes)?;
    let mut all = Chunks::new();
    for _ in 0..chunks.get() {
        let chunk: U64 = take(bytes)?;
        let place = take_place(bytes)?;
        let count: U16 = take(bytes)?;
        let mut pages = BTreeMap::new();
        for _ in 0..count.get() {
            let word = u64::from(take::<U16>(bytes)?.get());
            let page = chunk.get().checked_mul(per_chunk)?.checked_add(word >> 1)?;
            pages.insert(page, word & 1 != 0);
        }
        all.insert(chunk.get(), Chunk { place, pages });
    }
    Some(RootLayer { number, id, below, frozen, chunks: all, extents })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn site() -> Site {
        let shape = Shape::new(4 << 20, 64 << 10).unwrap();
        // No LU below has an id that is turned to nothing.
        let lineage = Lineage::new([4; 16], *b"sixteen not same");
        Site { lu: [7; 16], shape, first_slab: 9, lineage }
    }

    fn place() -> impl Strategy<Value = Place> {
        any::<(u32, u32)>().prop_map(|(slab, extent)| Place { slab, extent })
    }

    fn chunk() -> impl Strategy<Value = (u64, Chunk)> {
        let per_chunk = site().shape.pages_per_chunk();
        let pages = proptest::collection::btree_map(0..per_chunk, any::<bool>(), 0..9);
        (0..1_u64 << 40, place(), pages).prop_map(move |(number, place, pages)| {
            let pages = pages.into_iter().map(|(page, it)| (number * per_chunk + page, it));
            (number, Chunk { place, pages: pages.collect() })
        })
    }

    fn root() -> impl Strategy<Value = Root> {
        let chunks = proptest::collection::vec(chunk(), 0..200);
        let chunks = chunks.prop_map(|all| all.into_iter().collect::<Chunks>());
        let layers = proptest::collection::vec((any::<(LayerId, u32)>(), chunks), 1..5);
        let layers = layers.prop_map(|all| {
            let layer = |(number, ((id, below), chunks)): (u32, ((LayerId, u32), Chunks))| {
                let below = Some(below % number).filter(|below| *below != NO_LAYER);
                let (size, name) = (u64::from(number) << 33, "x".repeat(id[0] as usize % 65));
                let frozen = Frozen { size, name, is_going: id[1] % 2 == 0 };
                RootLayer { number, id, below, frozen, chunks, extents: 0 }
            };
            (1..).zip(all).map(layer).collect::<Vec<_>>()
        });
        let ring = proptest::collection::vec(place(), 0..9);
        let used = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9_000));
        let all = (any::<u64>(), any::<(u64, u64, u64, u64)>(), ring, layers, used);
        all.prop_map(|(turn, (page, epoch, next, sealed), ring, mut layers, used)| Root {
            about: About {
                name: "dïsk".to_owned(),
                size: turn / 3,
                block_size: 512,
                thick: turn % 3 == 0,
                base: (turn % 2 == 0).then_some(Base { lu: [turn as u8 | 1; 16], layer: [3; 16] }),
                source: (turn % 5 < 2)
                    .then(|| Source { size: next, name: "/dev/ö".repeat(turn as usize % 100) }),
            },
            brought: if turn % 5 < 2 { page } else { 0 },
            turn,
            start: Start { page, epoch, next, sealed },
            ring,
            top: layers.len() as u32,
            layers: {
                let extents = if used.is_some() { turn / 7 } else { 0 };
                layers.iter_mut().for_each(|layer| layer.extents = extents);
                layers
            },
            beyond: [Vec::new(), Vec::new()],
            used,
            opened: (0..turn as u32 % 9).map(|slab| (slab * 3, turn | 1)).collect(),
            missed: (turn % 7 < 3).then(|| Missed {
                since: next,
                forces: epoch as u32,
                regions: (0..turn as u32 % 900).map(|slab| (slab * 5, turn | 2)).collect(),
            }),
        })
    }

    /// What is found where pages were put.
    fn read(pages: &BTreeMap<Spot, Page>) -> Result<Root, Flaw> {
        let blank = Page::of_bytes(&[0; 4096]);
        let at = |spot: &Spot| pages.get(spot).unwrap_or(&blank).clone();
        let heads = site().heads().map(|spot| at(&spot));
        let head = site().newest([&heads[0], &heads[1]])?;
        let body = head.body(&site()).ok_or(Flaw::Rotten)?;
        head.root(&site(), &body.iter().map(at).collect::<Vec<_>>())
    }

    fn write(root: &mut Root, pages: &mut BTreeMap<Spot, Page>) {
        let mut extents = (1..).map(|extent| Place { slab: 9, extent });
        let taken = root.beyond.iter().flatten().count();
        assert!(root.make_room(&site(), 0, || extents.nth(taken)));
        let (body, head) = root.encode(&site(), 3);
        pages.extend(body);
        pages.insert(head.0, head.1);
    }

    proptest! {
        #[test]
        fn the_last_root_is_found(mut first in root(), mut second in root(), bit: u16) {
            second.turn = first.turn.saturating_add(1);
            prop_assume!(second.turn > first.turn);
            let mut pages = BTreeMap::new();
            write(&mut first, &mut pages);
            prop_assert_eq!(read(&pages), Ok(first.clone()));
            second.beyond = first.beyond.clone();
            write(&mut second, &mut pages);
            prop_assert_eq!(read(&pages), Ok(second.clone()));
            // Whatever becomes of a page of the body, nothing older is taken instead.
            let (body, _) = second.encode(&site(), 3);
            if let Some((spot, page)) = body.get(usize::from(bit) % body.len().max(1)) {
                let mut bytes = *page.bytes();
                bytes[usize::from(bit) % 4096] ^= 1;
                pages.insert(*spot, Page::of_bytes(&bytes));
                prop_assert!(read(&pages).is_err());
            }
        }
    }
}
