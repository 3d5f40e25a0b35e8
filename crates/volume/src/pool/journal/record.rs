//! Records of the journal, and the pages that carry them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::map::Place;
use super::super::page::PAYLOAD_BYTES;

/// Counts the records of an LU, from 1.
pub type Serial = u64;

/// Counts the layers of an LU, from 1: a child has a higher number than its parent.
pub type LayerNumber = u32;

/// In a record the number of what lies below the lowest layer, and is none of the LU's.
pub const BELOW: LayerNumber = 0;

/// Most blocks that one record can say are written: those of the largest extent that fit.
pub const RUN_BLOCKS_MAX: usize = 512;

/// A block in a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    pub slab: u32,
    pub block: u32,
}

/// What has changed in the map of an LU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// These blocks lie here, one behind the other, if each has its sum (CRC32C).
    Written { block: u64, at: Spot, sums: Vec<u32> },
    /// These blocks read zero.
    Zeroed { block: u64, count: u64 },
    /// What was the top layer is frozen, and a new one with this number and name stands on `from`:
    /// records behind this one are about that.
    Branched { from: LayerNumber, number: LayerNumber, top: [u8; 16] },
    /// What a layer says of an extent is its child's, whose blocks there lie at this place from now
    /// on. Nobody's if it has no child.
    Folded { layer: LayerNumber, into: Option<LayerNumber>, extent: u64, place: Option<Place> },
    /// The layer is gone; it says nothing any more.
    Dropped { layer: LayerNumber },
    /// These regions of a slab may be overwritten in place, so that its copies may differ there.
    Opened { slab: u32, regions: u64 },
    /// They are not, and all copies have the same there.
    Closed { slab: u32, regions: u64 },
    /// Of a record these blocks were not there when an owner looked, and never will have been.
    Void { of: Serial, block: u64, count: u64 },
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct PageHead {
    /// The serial of the first record.
    first: U64,
    /// Every record before this one is durable, and so are its data.
    mark: U64,
    count: U16,
    reserved: [u8; 6],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawRecord {
    kind: u8,
    reserved: u8,
    /// Of sums behind this.
    sums: U16,
    at: U32,
    slab: U32,
    layer: U32,
    block: U64,
    count: U64,
}

const WRITTEN: u8 = 1;
const ZEROED: u8 = 2;
const VOID: u8 = 3;
const BRANCHED: u8 = 4;
const FOLDED: u8 = 5;
const DROPPED: u8 = 6;
const OPENED: u8 = 7;
const CLOSED: u8 = 8;

/// No slab and no extent has this number.
const NOWHERE: u32 = u32::MAX;

const HEAD_BYTES: usize = size_of::<PageHead>();
const RECORD_BYTES: usize = size_of::<RawRecord>();
const SUM_BYTES: usize = size_of::<u32>();

impl Record {
    /// Bytes that it takes in a page.
    pub fn bytes(&self) -> usize {
        let sums = if let Self::Written { sums, .. } = self { sums.len() } else { 0 };
        RECORD_BYTES + sums * SUM_BYTES
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let nothing = RawRecord::new_zeroed_record();
        let (raw, sums): (RawRecord, &[u32]) = match self {
            Self::Written { block, at, sums } => {
                let count = u16::try_from(sums.len()).expect("at most RUN_BLOCKS_MAX");
                let place = (at.slab.into(), at.block.into());
                let raw = RawRecord {
                    kind: WRITTEN,
                    sums: count.into(),
                    slab: place.0,
                    at: place.1,
                    block: (*block).into(),
                    count: u64::from(count).into(),
                    ..nothing
                };
                (raw, sums)
            }
            Self::Zeroed { block, count } => {
                let (block, count) = ((*block).into(), (*count).into());
                (RawRecord { kind: ZEROED, block, count, ..nothing }, &[])
            }
            Self::Branched { from, number, top } => {
                // The name takes the place of a range, the number that of a spot.
                let (low, high) = top.split_at(size_of::<U64>());
                let word = |bytes| U64::read_from_bytes(bytes).expect("half a name");
                let (block, count) = (word(low), word(high));
                let (layer, at) = ((*from).into(), (*number).into());
                (RawRecord { kind: BRANCHED, layer, at, block, count, ..nothing }, &[])
            }
            Self::Folded { layer, into, extent, place } => {
                let nowhere = Place { slab: NOWHERE, extent: NOWHERE };
                let place = place.unwrap_or(nowhere);
                let raw = RawRecord {
                    kind: FOLDED,
                    layer: (*layer).into(),
                    slab: place.slab.into(),
                    at: place.extent.into(),
                    block: (*extent).into(),
                    // The child takes the place of a count.
                    count: u64::from(into.unwrap_or(0)).into(),
                    ..nothing
                };
                (raw, &[])
            }
            Self::Dropped { layer } => {
                (RawRecord { kind: DROPPED, layer: (*layer).into(), ..nothing }, &[])
            }
            Self::Opened { slab, regions } | Self::Closed { slab, regions } => {
                let kind = if matches!(self, Self::Opened { .. }) { OPENED } else { CLOSED };
                let (slab, block) = ((*slab).into(), (*regions).into());
                (RawRecord { kind, slab, block, ..nothing }, &[])
            }
            Self::Void { of, block, count } => {
                let (block, count) = ((*block).into(), (*count).into());
                // The serial takes the place of a spot.
                let (low, high) = (*of as u32, (*of >> 32) as u32);
                let (slab, at) = (low.into(), high.into());
                (RawRecord { kind: VOID, slab, at, block, count, ..nothing }, &[])
            }
        };
        into.extend_from_slice(raw.as_bytes());
        sums.iter().for_each(|sum| into.extend_from_slice(&sum.to_le_bytes()));
    }

    /// The first record of these bytes, and what is behind it.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (raw, rest) = RawRecord::read_from_prefix(bytes).ok()?;
        if let Some(record) = Self::of_others(&raw) {
            return Some((record, rest));
        }
        let (block, count) = (raw.block.get(), raw.count.get());
        block.checked_add(count)?;
        match raw.kind {
            WRITTEN => {
                let len = usize::from(raw.sums.get());
                if len == 0 || len > RUN_BLOCKS_MAX || count != len as u64 {
                    return None;
                }
                let (sums, rest) = rest.split_at_checked(len * SUM_BYTES)?;
                let (sums, _) = sums.as_chunks::<SUM_BYTES>();
                let sums = sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
                let at = Spot { slab: raw.slab.get(), block: raw.at.get() };
                at.block.checked_add(len as u32)?;
                Some((Self::Written { block, at, sums }, rest))
            }
            ZEROED => Some((Self::Zeroed { block, count }, rest)),
            VOID => {
                let of = u64::from(raw.at.get()) << 32 | u64::from(raw.slab.get());
                Some((Self::Void { of, block, count }, rest))
            }
            _ => None,
        }
    }

    /// The same, if it is not about blocks.
    fn of_others(raw: &RawRecord) -> Option<Self> {
        let layer = raw.layer.get();
        match raw.kind {
            BRANCHED => {
                let mut top = [0; 16];
                top[..8].copy_from_slice(raw.block.as_bytes());
                top[8..].copy_from_slice(raw.count.as_bytes());
                Some(Self::Branched { from: layer, number: raw.at.get(), top })
            }
            FOLDED => {
                let place = Place { slab: raw.slab.get(), extent: raw.at.get() };
                let place = (place.slab != NOWHERE).then_some(place);
                let into = LayerNumber::try_from(raw.count.get()).ok()?;
                let (into, extent) = ((into != 0).then_some(into), raw.block.get());
                Some(Self::Folded { layer, into, extent, place })
            }
            DROPPED => Some(Self::Dropped { layer }),
            OPENED => Some(Self::Opened { slab: raw.slab.get(), regions: raw.block.get() }),
            CLOSED => Some(Self::Closed { slab: raw.slab.get(), regions: raw.block.get() }),
            _ => None,
        }
    }
}

impl RawRecord {
    fn new_zeroed_record() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

/// The records of one page, as it is being filled.
#[derive(Debug)]
pub struct Filling {
    first: Serial,
    count: u16,
    records: Vec<u8>,
}

impl Filling {
    pub fn new(first: Serial) -> Self {
        Self { first, count: 0, records: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> u64 {
        u64::from(self.count)
    }

    /// The serial that the next record gets.
    pub fn next(&self) -> Serial {
        self.first + u64::from(self.count)
    }

    pub fn has_room_for(&self, record: &Record) -> bool {
        HEAD_BYTES + self.records.len() + record.bytes() <= PAYLOAD_BYTES && self.count < u16::MAX
    }

    pub fn push(&mut self, record: &Record) {
        assert!(self.has_room_for(record), "whoever pushes looks for room first");
        record.encode(&mut self.records);
        self.count += 1;
    }

    pub fn payload(&self, mark: Serial) -> Vec<u8> {
        let head = PageHead {
            first: self.first.into(),
            mark: mark.into(),
            count: self.count.into(),
            reserved: [0; 6],
        };
        [head.as_bytes(), &self.records].concat()
    }
}

/// What a page of the journal says.
#[derive(Debug, PartialEq, Eq)]
pub struct Carried {
    pub first: Serial,
    pub mark: Serial,
    pub records: Vec<Record>,
}

/// `None`: it contradicts itself, which no owner writes.
pub fn carried(payload: &[u8]) -> Option<Carried> {
    let (head, mut rest) = PageHead::read_from_prefix(payload).ok()?;
    let mut records = Vec::new();
    for _ in 0..head.count.get() {
        let (record, behind) = Record::decode(rest)?;
        records.push(record);
        rest = behind;
    }
    let first = head.first.get();
    first.checked_add(u64::from(head.count.get()))?;
    Some(Carried { first, mark: head.mark.get(), records })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Option<Place>> {
        let place = (0..1_u32 << 24, any::<u32>());
        proptest::option::of(place.prop_map(|(slab, extent)| Place { slab, extent }))
    }

    fn record() -> impl Strategy<Value = Record> {
        let range = || (0..1_u64 << 50, 1..1_u64 << 40);
        let sums = proptest::collection::vec(any::<u32>(), 1..RUN_BLOCKS_MAX);
        prop_oneof![
            (0..1_u64 << 50, any::<u32>(), 0..1_u32 << 20, sums).prop_map(
                |(block, slab, at, sums)| {
                    Record::Written { block, at: Spot { slab, block: at }, sums }
                }
            ),
            range().prop_map(|(block, count)| Record::Zeroed { block, count }),
            any::<(u32, u32, [u8; 16])>().prop_map(|(from, number, top)| Record::Branched {
                from,
                number,
                top
            }),
            (any::<u32>(), proptest::option::of(1..u32::MAX), any::<u64>(), place()).prop_map(
                |(layer, into, extent, place)| { Record::Folded { layer, into, extent, place } }
            ),
            any::<u32>().prop_map(|layer| Record::Dropped { layer }),
            any::<(u32, u64)>().prop_map(|(slab, regions)| Record::Opened { slab, regions }),
            any::<(u32, u64)>().prop_map(|(slab, regions)| Record::Closed { slab, regions }),
            (any::<u64>(), range()).prop_map(|(of, (block, count))| Record::Void {
                of,
                block,
                count
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_a_page_carries_is_what_was_put_in(
            all: Vec<u8>,
            records in proptest::collection::vec(record(), 0..8),
        ) {
            let mut filling = Filling::new(7);
            let fit: Vec<Record> = records
                .into_iter()
                .filter(|record| {
                    let fits = filling.has_room_for(record);
                    if fits {
                        filling.push(record);
                    }
                    fits
                })
                .collect();
            let carried = carried(&filling.payload(5)).unwrap();
            prop_assert_eq!(filling.next(), 7 + fit.len() as u64);
            prop_assert_eq!(carried, Carried { first: 7, mark: 5, records: fit });
            // Whatever bytes there are, they are looked at without panic.
            super::carried(&all);
        }
    }

    #[test]
    fn the_longest_record_fits_a_page() {
        let sums = vec![0; RUN_BLOCKS_MAX];
        let record = Record::Written { block: 0, at: Spot { slab: 0, block: 0 }, sums };
        assert!(Filling::new(1).has_room_for(&record));
    }
}
