//! Looking at a pool without opening it: what its slab tables say, the bad with the good, and
//! nothing is written.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::journal::Spot;
use super::super::page::Flaw;
use super::super::places::{Copy, State};
use super::super::shape::{BLOCK_BYTES, GRANTS_PER_PAGE};
use super::super::slabs::{Grant, Slab};
use super::tables::newest_of;
use super::{Found, Pool, PoolError, ReadPage, Registry};

/// What is wrong with slab tables.
#[derive(Debug)]
pub enum TableFlaw {
    /// The table cannot be read there, or contradicts another one.
    Error(PoolError),
    /// One place of a page is bad; the other one counts.
    Place { disk: String, page: u64, place: usize, flaw: Flaw },
    /// Both places are good and do not say the same: the newer one counts.
    Unlike { disk: String, page: u64 },
    /// A slab has moved elsewhere, and is still granted where it was.
    Left { disk: String, index: u32 },
    /// An LU has two slabs that are its first.
    Firsts { lu: [u8; 16], slabs: [u32; 2] },
}

/// Hears of them.
type Told<'a> = &'a mut dyn FnMut(TableFlaw);

/// The first slab of each LU.
type Firsts = BTreeMap<[u8; 16], u32>;

impl Found {
    /// The pool with everything that its tables say. It is not open: LUs may be looked at, and
    /// nothing may be written. Whoever has looked closes it.
    pub async fn look(self, told: Told<'_>) -> Rc<Pool> {
        self.look_with(None, told).await
    }

    /// The same with what else is known of copies.
    pub(super) async fn look_with(
        self,
        registry: Option<Rc<dyn Registry>>,
        told: Told<'_>,
    ) -> Rc<Pool> {
        let pool = self.unopened(0);
        pool.registry.replace(registry);
        let mut firsts = Firsts::new();
        for disk in pool.members() {
            let layout = pool.layout(disk);
            for page in 0..layout.table_pages() {
                let (turn, slabs) = match pool.read_places(disk, page).await {
                    Ok(read) => pool.look_at_page((disk, page), read, told),
                    Err(error) => {
                        told(TableFlaw::Error(error));
                        continue;
                    }
                };
                pool.tables.borrow_mut()[disk as usize].turns[page as usize] = turn;
                let start = (page * GRANTS_PER_PAGE) as u32;
                for (index, slab) in (start..layout.slabs()).zip(slabs) {
                    pool.tables.borrow_mut()[disk as usize].load(index, slab);
                    look_for_firsts(slab, &mut firsts, told);
                }
            }
        }
        pool.settle_all(&mut |settled| match settled {
            Ok(left) => told(TableFlaw::Left { disk: pool.name_of(left.disk), index: left.index }),
            Err(error) => told(TableFlaw::Error(error)),
        });
        pool.find_stale();
        pool
    }
}

impl Pool {
    /// The disk that a block of a slab is on, and the byte there.
    pub fn whereabouts(&self, at: Spot) -> Option<(String, u64)> {
        let home = self.shared.places.get(at.slab)?;
        let start = self.layout(home.disk).slab(home.index)?;
        Some((self.name_of(home.disk), start + u64::from(at.block) * BLOCK_BYTES))
    }

    /// Every place of a block that counts: on which disk, and the byte there.
    pub fn places_of(&self, at: Spot) -> Vec<([u8; 16], u64)> {
        let whole = self.shared.places.all(at.slab).filter(|copy| copy.state == State::Whole);
        let place = |copy: Copy| {
            let start = self.layout(copy.home.disk).slab(copy.home.index)?;
            let pv = self.tables.borrow()[copy.home.disk as usize].label.pv;
            Some((pv, start + u64::from(at.block) * BLOCK_BYTES))
        };
        whole.filter_map(place).collect()
    }

    /// What counts of two places: which, with its turn, and what it says.
    fn look_at_page(
        &self,
        (disk, page): (u32, u64),
        mut read: Vec<ReadPage>,
        told: Told<'_>,
    ) -> ((usize, u64), Vec<Slab>) {
        let counts = newest_of(&read);
        let disk = self.name_of(disk);
        match (&counts, &read[0], &read[1]) {
            (Err(flaw), ..) => {
                told(TableFlaw::Error(PoolError::Table { disk, page, flaw: *flaw }));
            }
            (Ok(_), Err(flaw), _) => {
                told(TableFlaw::Place { disk, page, place: 0, flaw: *flaw });
            }
            (Ok(_), _, Err(flaw)) => {
                told(TableFlaw::Place { disk, page, place: 1, flaw: *flaw });
            }
            (Ok(_), Ok((_, one)), Ok((_, other))) if one != other => {
                told(TableFlaw::Unlike { disk, page });
            }
            _ => {}
        }
        let read = counts.and_then(|place| Ok((place, read.swap_remove(place)?)));
        read.map_or(((1, 0), Vec::new()), |(place, (header, slabs))| ((place, header.turn), slabs))
    }
}

fn look_for_firsts(slab: Slab, firsts: &mut Firsts, told: Told<'_>) {
    let Slab::Granted(Grant { lu, number, is_first: true, .. }) = slab else { return };
    if let Some(other) = firsts.insert(lu, number).filter(|other| *other != number) {
        told(TableFlaw::Firsts { lu, slabs: [other, number] });
    }
}
