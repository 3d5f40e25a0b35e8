//! LUs on their way into a pool, while clients use them.
//!
//! ```text
//!   wanted ─▶ make part ─▶ (kept: it is in the pool, over what it was in) ─▶ enter pool ─▶ bring
//!                │                             │                                              │
//!             cancel                 a restart opens it there          (kept: it is only there)
//!                                                                                             │
//!                                                          what it was in is let go of ◀──────┘
//! ```
//!
//! What is kept between the steps decides: before that says that the LU is in the pool nothing was
//! ever written there, and after that nothing is written anywhere else by who starts anew. The one
//! who runs writes to the old place until he enters the pool, and to the new one from then on.

use model::{Backing, Leftover};
use uuid::Uuid;

use super::{Moved, Planner, Step, Wait};
use crate::actual::Part;
use crate::desired::DeviceSpec;

impl Planner<'_> {
    /// What is to be done for an open device that is on its way into a pool.
    pub(super) fn migrate_device(&mut self, device: &DeviceSpec, open: &DeviceSpec) {
        let (uuid, name) = (device.uuid, device.name.clone());
        if let Some(part) = device.to_be() {
            let wait = part.pool.and_then(|pool| self.wait_for_pool(pool));
            return self.push(Step::MakePart { device: part }, wait);
        }
        let (Some(wanted), Some(is)) = (&device.migration, &open.migration) else { return };
        if wanted.rate != is.rate {
            let (name, to) = (name.clone(), wanted.rate);
            self.push(Step::SetRate { uuid, name, to }, None);
        }
        self.push(Step::Bring { uuid, name }, None);
    }

    pub(super) fn remove_moved(&mut self, lu: Uuid, pool: Option<Uuid>) {
        let (desired, actual) = (self.desired, self.actual);
        // Never, whatever the notes say, where an LU is that is wanted, or comes from.
        let is_there = |device: &DeviceSpec| match pool {
            Some(_) => device.pool == pool || device.to_be().is_some_and(|part| part.pool == pool),
            None => {
                let from = device.before().map(|before| before.backing);
                device.backing == Backing::File || from == Some(Backing::File)
            }
        };
        if desired.devices.get(&lu).is_some_and(is_there) {
            return;
        }
        let from = match pool {
            None => Moved::File,
            Some(pool) if desired.pools.contains_key(&pool) => Moved::Pool(pool),
            Some(_) => Moved::Nowhere,
        };
        let is_open_there = |open: &DeviceSpec| match pool {
            Some(_) => open.pool == pool,
            None => is_there(open),
        };
        let is_open = actual.devices.get(&lu).is_some_and(is_open_there);
        let making = Part::Migration(lu);
        let is_busy = actual.busy.contains_key(&making);
        let wait = is_open.then_some(Wait::Earlier(Part::Device(lu)));
        let wait = wait.or(is_busy.then_some(Wait::Earlier(making)));
        let wait = match from {
            Moved::Pool(pool) => wait.or(self.wait_for_pool(pool)),
            Moved::File | Moved::Nowhere => wait,
        };
        debug_assert!(self.actual.leftovers.contains_key(&Leftover::moved_key(lu)));
        self.push(Step::RemoveMoved { lu, from }, wait);
    }
}
