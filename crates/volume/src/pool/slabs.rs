//! The slab table of a disk: to whom each slab was granted. A pool is opened from these tables
//! alone when nothing else is left of it.
//!
//! A grant is written here, durably, before the slab is used. Its generation grows with every grant
//! of the slab, so that what an earlier owner has left in it is never taken for the present one's.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::lineage::Lineage;
use super::page::{Flaw, Header, Kind, Page};
use super::shape::GRANTS_PER_PAGE;

pub(super) const KIND: Kind = Kind(*b"VDst");

/// A slab that belongs to an LU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub lu: [u8; 16],
    /// Of all slabs of the pool.
    pub number: u32,
    pub generation: u32,
    /// The LU's first: its root is in it.
    pub is_first: bool,
    /// Of the LU's copy in the failure group of this disk, said by the grant of its first slab:
    /// copies that are older than another one have missed something, and are not read.
    pub age: u32,
}

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slab {
    /// Nobody's; with the generation of its last grant, 0 if there was none.
    Free {
        generation: u32,
    },
    Granted(Grant),
    /// To be granted when everything is there that is at another place of this number. On disk it
    /// is nobody's until then.
    Filling {
        generation: u32,
    },
}

impl Slab {
    /// Of the last grant that stands on the disk, 0 if there was none.
    pub fn generation(self) -> u32 {
        match self {
            Self::Free { generation } | Self::Filling { generation } => generation,
            Self::Granted(grant) => grant.generation,
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawGrant {
    lu: [u8; 16],
    number: U32,
    generation: U32,
    state: u8,
    reserved: [u8; 3],
    age: U32,
}

pub(super) const GRANT_BYTES: usize = size_of::<RawGrant>();

const FREE: u8 = 0;
const GRANTED: u8 = 1;
const FIRST: u8 = 2;

/// A page of the table. It has all its places; those behind the last slab of the disk are free.
pub fn encode(header: TableHeader, slabs: &[Slab]) -> Page {
    assert!(slabs.len() as u64 <= GRANTS_PER_PAGE, "a page has {GRANTS_PER_PAGE} places");
    let TableHeader { pool, page, turn, epoch } = header;
    let header = Header { kind: KIND, owner: pool.origin(), number: page, turn, epoch };
    let raw = |slab| raw(slab, &pool).as_bytes().to_vec();
    let payload: Vec<u8> = slabs.iter().flat_map(raw).collect();
    Page::new(header, &payload)
}

/// Which page of a table, and of which turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableHeader {
    pub pool: Lineage,
    pub page: u64,
    pub turn: u64,
    pub epoch: u64,
}

/// What stands in a page that was read as this one of the pool.
pub fn decode(page: &Page, pool: &Lineage, number: u64) -> Result<(Header, Vec<Slab>), Flaw> {
    let header = page.check(KIND, &pool.origin(), number)?;
    let (grants, _) = page.payload().as_chunks::<GRANT_BYTES>();
    let slab = |bytes: &[u8; GRANT_BYTES]| {
        let raw = RawGrant::read_from_bytes(bytes).expect("of its size");
        let (number, generation) = (raw.number.get(), raw.generation.get());
        match raw.state {
            FREE => Ok(Slab::Free { generation }),
            GRANTED | FIRST => {
                let (is_first, age) = (raw.state == FIRST, raw.age.get());
                let lu = pool.turned(raw.lu);
                Ok(Slab::Granted(Grant { lu, number, generation, is_first, age }))
            }
            // Under a good checksum: somebody else's idea of this form.
            _ => Err(Flaw::Rotten),
        }
    };
    let slabs = grants.iter().map(slab).collect::<Result<_, _>>()?;
    Ok((header, slabs))
}

fn raw(slab: &Slab, pool: &Lineage) -> RawGrant {
    let free = RawGrant {
        lu: [0; 16],
        number: U32::ZERO,
        generation: U32::ZERO,
        state: FREE,
        reserved: [0; 3],
        age: U32::ZERO,
    };
    match *slab {
        Slab::Free { generation } | Slab::Filling { generation } => {
            RawGrant { generation: generation.into(), ..free }
        }
        Slab::Granted(Grant { lu, number, generation, is_first, age }) => RawGrant {
            lu: pool.turned(lu),
            number: number.into(),
            generation: generation.into(),
            state: if is_first { FIRST } else { GRANTED },
            age: age.into(),
            ..free
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_was_granted() {
        let pool = Lineage::new([9; 16], [1; 16]);
        let header = TableHeader { pool, page: 3, turn: 9, epoch: 2 };
        let grant = Grant { lu: [5; 16], number: 77, generation: 3, is_first: true, age: 9 };
        let slabs = [
            Slab::Free { generation: 4 },
            Slab::Granted(grant),
            Slab::Granted(Grant { is_first: false, ..grant }),
        ];
        let filling = [&slabs[..], &[Slab::Filling { generation: 2 }]].concat();
        let page = encode(header, &filling);
        let (read, all) = decode(&page, &pool, 3).unwrap();
        assert_eq!((read.turn, read.epoch), (9, 2));
        assert_eq!(all.len() as u64, GRANTS_PER_PAGE);
        assert_eq!(all[..3], slabs);
        assert_eq!(all[3], Slab::Free { generation: 2 });
        assert!(all[4..].iter().all(|slab| *slab == Slab::Free { generation: 0 }));
        assert_eq!(decode(&page, &pool, 4), Err(Flaw::OtherNumber(3)));
        // The pool that it was split off from calls the LU otherwise.
        let origin = Lineage::new([1; 16], [1; 16]);
        let (_, others) = decode(&page, &origin, 3).unwrap();
        assert_eq!(others[1], Slab::Granted(Grant { lu: [5 ^ 9 ^ 1; 16], ..grant }));
        let other = Lineage::new([2; 16], [2; 16]);
        assert_eq!(decode(&page, &other, 3), Err(Flaw::OtherOwner));
    }
}
