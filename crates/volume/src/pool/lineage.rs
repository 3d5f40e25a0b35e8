//! Which ids stand in the pages of a pool.
//!
//! A pool that was split off from another one has its pages, and nobody writes all of them anew.
//! So they go on to say what they said there: the id of the first pool of that line, its origin,
//! and ids of LUs as they were. But no two pools and no two LUs may have one id where both are
//! seen. So outside of pages a pool has its own id, and each of its LUs the one in the pages,
//! turned by what the ids of the two pools differ in. A pool of no other origin turns nothing.
//!
//! The boundary is here, and it is crossed where slab tables ([`slabs`](super::slabs)) and the
//! roots and journals of LUs ([`Site`](super::root::Site)) are read and written: whoever else
//! speaks of a pool or an LU uses the ids that are seen. Ids of layers are the same on both sides:
//! they say something only together with their LU.

use super::page::Owner;

/// What a pool is called in its pages, and what its LUs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    origin: Owner,
    turn: Owner,
}

impl Lineage {
    /// Of this pool, with pages of that one: of itself, if it was not split off.
    pub fn new(pool: Owner, origin: Owner) -> Self {
        Self { origin, turn: xor(pool, origin) }
    }

    /// The pool itself.
    pub fn pool(&self) -> Owner {
        xor(self.origin, self.turn)
    }

    /// The pool that its pages name.
    pub fn origin(&self) -> Owner {
        self.origin
    }

    /// What pages call this LU; and back.
    pub fn turned(&self, lu: Owner) -> Owner {
        xor(lu, self.turn)
    }
}

fn xor(one: Owner, other: Owner) -> Owner {
    std::array::from_fn(|byte| one[byte] ^ other[byte])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_turned_there_and_back_over_any_number_of_splits() {
        let (first, second, third, lu) = ([1; 16], [2; 16], [7; 16], [0x51; 16]);
        assert_eq!(Lineage::new(first, first).turned(lu), lu);
        let split = Lineage::new(second, first);
        let seen = split.turned(lu);
        assert_ne!(seen, lu);
        assert_eq!((split.pool(), split.origin(), split.turned(seen)), (second, first, lu));
        let again = Lineage::new(third, first);
        assert!(![lu, seen].contains(&again.turned(lu)));
        assert_eq!(again.turned(again.turned(lu)), lu);
    }
}
