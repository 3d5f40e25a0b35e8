//! Copies that a crash has left in doubt, where the one goes that others were to be made like.
//!
//! ```text
//!   what was read is in the others, durably ─▶ that one is stale, durably ─▶ nobody reads it,
//!        and from here on before it is read                                  another one counts
//! ```
//!
//! Until then what is read is written to the others first, so that whoever opens the LU after a
//! crash at any moment finds the same, whichever copy he goes by. Power may fail as well: then only
//! what is durable is there.

use super::super::disks::EndingDoubt;
use super::super::places::{Copy, State};
use super::{Pool, PoolError};

impl Pool {
    /// The copy of one of these LUs is about to go, of which others may be in doubt: what was read
    /// of it is durable in these groups, and what is read as long as this is kept.
    pub(super) async fn end_doubt(
        &self,
        lus: &[[u8; 16]],
        groups: &[u16],
    ) -> Result<Option<EndingDoubt>, PoolError> {
        let is_doubtful = |lu: &[u8; 16]| self.any_slab(*lu, |it| it.state == State::Doubtful);
        if !lus.iter().any(is_doubtful) {
            return Ok(None);
        }
        let ending = EndingDoubt::new(&self.shared);
        let mut members = self.members();
        members.retain(|disk| groups.contains(&self.group_of(*disk)));
        self.sync_these(&members).await?;
        Ok(Some(ending))
    }

    /// Of these groups, where none has a whole copy, one that is in doubt and is as good.
    pub(super) fn to_trust(&self, lu: [u8; 16], groups: &[u16]) -> Option<u16> {
        if groups.iter().any(|group| self.is_whole_in(lu, *group)) {
            return None;
        }
        let is_good = |copy: Copy| matches!(copy.state, State::Whole | State::Doubtful);
        let all_good =
            |group: &u16| self.all_slabs(lu, |copy| copy.group == *group && is_good(copy));
        groups.iter().copied().find(all_good)
    }

    /// It is read from now on, and nobody reads the one that was.
    pub(super) fn trust(&self, lu: [u8; 16], trusted: Option<u16>) {
        for number in self.granted(lu).unwrap_or_default().slabs {
            for copy in self.shared.places.all(number).filter(|it| Some(it.group) == trusted) {
                self.shared.places.mark(number, copy.home, (State::Doubtful, State::Whole));
            }
        }
    }
}
