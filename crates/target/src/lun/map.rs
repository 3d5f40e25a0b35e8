//! Which LUs a client sees at a port, by number. There is one map for each client's own port, so
//! what is not in it does not exist for that client.

use std::collections::BTreeMap;

/// The highest number: what flat addressing can say.
pub const NUMBER_MAX: u16 = 16_383;

/// LUs by number, in order.
#[derive(Clone, Debug)]
pub struct Map<T> {
    units: BTreeMap<u16, T>,
}

/// Why an LU was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("number {0} is past {NUMBER_MAX}, the highest there can be; choose a lower one")]
    TooHigh(u16),
    #[error("number {0} is taken; unmap it first or choose another one")]
    Taken(u16),
}

impl<T> Map<T> {
    pub fn new() -> Self {
        Self { units: BTreeMap::new() }
    }

    pub fn insert(&mut self, number: u16, unit: T) -> Result<(), MapError> {
        if number > NUMBER_MAX {
            return Err(MapError::TooHigh(number));
        }
        if self.units.contains_key(&number) {
            return Err(MapError::Taken(number));
        }
        self.units.insert(number, unit);
        Ok(())
    }

    pub fn remove(&mut self, number: u16) -> Option<T> {
        self.units.remove(&number)
    }

    #[inline]
    pub fn get(&self, number: u16) -> Option<&T> {
        self.units.get(&number)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        self.units.iter().map(|(&number, unit)| (number, unit))
    }

    pub fn len(&self) -> usize {
        self.units.len()
    }

    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_unit_and_none_is_past_the_highest() {
        let mut map = Map::new();
        for number in [NUMBER_MAX, 0, 256] {
            assert_eq!(map.insert(number, number), Ok(()));
            assert_eq!(map.insert(number, 1), Err(MapError::Taken(number)));
        }
        assert_eq!(map.insert(NUMBER_MAX + 1, 1), Err(MapError::TooHigh(NUMBER_MAX + 1)));
        let all: Vec<_> = map.iter().collect();
        assert_eq!(all, [(0, &0), (256, &256), (NUMBER_MAX, &NUMBER_MAX)]);
        assert_eq!((map.remove(256), map.remove(256), map.len()), (Some(256), None, 2));
        assert_eq!((map.get(256), map.get(0)), (None, Some(&0)));
    }
}
