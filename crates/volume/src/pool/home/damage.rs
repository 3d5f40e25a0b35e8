//! Blocks that were not what was written, or could not be read: whoever finds some says so here,
//! and somebody tells the operator.

use std::collections::BTreeMap;

use super::super::places::Home;
use super::Pool;
use super::copies::grant_at;

/// Kinds of damage that wait to be told, at most: others are not told of by themselves.
const KINDS_MAX: usize = 1024;

/// Where damage was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    /// Whose slab it is in.
    pub lu: Option<[u8; 16]>,
    pub disk: String,
    /// It was written anew, as another copy has it; otherwise no copy has it.
    pub is_mended: bool,
}

/// How many blocks of each.
pub type Damages = BTreeMap<Damaged, u64>;

impl Pool {
    /// Somebody has found blocks damaged at these places of a slab.
    pub fn note_damage(&self, places: &[Home], (blocks, is_mended): (u64, bool)) {
        let tables = self.tables.borrow();
        let mut damages = self.damages.borrow_mut();
        for place in places {
            let Some(table) = tables.get(place.disk as usize) else { continue };
            let lu = grant_at(&tables, *place).map(|grant| grant.lu);
            let damaged = Damaged { lu, disk: table.name.clone(), is_mended };
            if damages.len() < KINDS_MAX || damages.contains_key(&damaged) {
                *damages.entry(damaged).or_default() += blocks;
            }
        }
        self.damaged.notify();
    }

    /// Waits for damage; none when the pool was closed.
    pub async fn damages(&self) -> Option<Damages> {
        self.damaged.until(|| !self.damages.borrow().is_empty() || self.is_closed()).await;
        let found = self.damages.take();
        (!found.is_empty()).then_some(found)
    }
}
