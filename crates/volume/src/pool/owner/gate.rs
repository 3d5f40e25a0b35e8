//! Extents with something under way: writes may be there together, a discard is there alone.

use std::collections::VecDeque;

use super::super::numbers::NumberMap;
use super::Wish;

#[derive(Default)]
pub(super) struct Gates(NumberMap<u64, Gate>);

#[derive(Default)]
struct Gate {
    inside: u32,
    is_alone: bool,
    waiting: VecDeque<(bool, Wish)>,
}

impl Gates {
    /// Gives the wish back if it may go in now; else it waits.
    pub fn enter(&mut self, extent: u64, alone: bool, wish: Wish) -> Option<Wish> {
        let gate = self.0.entry(extent).or_default();
        let is_open = gate.inside == 0 || !alone && !gate.is_alone && gate.waiting.is_empty();
        if !is_open {
            gate.waiting.push_back((alone, wish));
            return None;
        }
        gate.inside += 1;
        gate.is_alone = alone;
        Some(wish)
    }

    /// One goes out. Those who waited for that have to enter again, in this order.
    pub fn leave(&mut self, extent: u64) -> Vec<Wish> {
        let gate = self.0.get_mut(&extent).expect("somebody is inside");
        gate.inside -= 1;
        if gate.inside > 0 {
            return Vec::new();
        }
        let gate = self.0.remove(&extent).expect("found above");
        gate.waiting.into_iter().map(|(_, wish)| wish).collect()
    }
}
