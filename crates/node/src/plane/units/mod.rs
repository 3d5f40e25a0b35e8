//! The LUs of a node as every command set sees them, whatever their clients come through: one owner
//! of what is shared, one handle on each core.
//!
//! | what | one per | file |
//! |---|---|---|
//! | [`Units`]: which LUs have an owner, and who is just making one | node | here |
//! | [`Owner`]: the shared state of an LU, and the way of its changes | LU | `owner` |
//! | [`Handles`]: the LUs of a core, for the nexuses there | core | `handles` |
//! | [`Keeper`]: what of it outlives the process, in the form of `record` | LU | `keeper` |
//!
//! An LU gets its owner when it is first mapped, and keeps it until its device is closed.

mod handles;
mod keeper;
mod owner;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::Device;
use model::reservation::Reservations;
use model::stats::{OpKind, OpStats};
use model::{ApiError, Cache};
use rt::sync::{Answer, Reply, reply};
use rt::{Core, Placed, Remote};
use target::lun::{Caching, Change, Identity, Medium, ModeChange, Modes, View};
use uuid::Uuid;

use super::Lu;
use super::everywhere::Everywhere;
use crate::engine::Context;
pub(super) use handles::Handles;
use keeper::{Book, Keeper};
pub(super) use owner::name_of;
use owner::{Outcome, Owner, ToOwner};

/// The relative port number of the node's iSCSI portals.
pub(super) const ISCSI_PORT: u16 = 1;

/// That of its vhost-user adapters: who comes through which one is told by the initiator port.
pub(super) const VHOST_USER_PORT: u16 = 2;

/// Makes a device's handle for a core.
pub(super) type Open = Arc<dyn Fn(&Core) -> Rc<dyn Device> + Send + Sync>;

/// An LU as it begins.
#[derive(Clone)]
pub(super) struct Spec {
    pub uuid: Uuid,
    pub name: String,
    pub serial: String,
    pub modes: Modes,
    pub medium: Medium,
    /// Clients are told when its size changes; those of a drive are told of another medium.
    pub grows: bool,
    pub open: Open,
    pub failed: Option<Failed>,
}

/// Takes note of a failure of the device.
pub(super) type Failed = Arc<dyn Fn(&block::Error) + Send + Sync>;

impl From<&Lu> for Spec {
    fn from(lu: &Lu) -> Self {
        let health = lu.health.clone();
        Self {
            uuid: lu.spec.uuid,
            name: lu.spec.name.to_string(),
            serial: lu.spec.serial.clone(),
            modes: modes(lu.spec.cache),
            medium: Medium { present: lu.drive.is_none() || lu.store.size() > 0, open: false },
            grows: lu.drive.is_none(),
            open: lu.opener(),
            failed: Some(Arc::new(move |error| health.note(error))),
        }
    }
}

/// What the operator's settings are to clients.
fn modes(cache: Cache) -> Modes {
    let write_back = cache == Cache::Writeback;
    let caching = Caching { write_back, ..Caching::default() };
    Modes { caching, ..Modes::default() }
}

/// Every LU that has a shared state.
pub(super) struct Units {
    book: Book,
    handles: Everywhere<Handles>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    owners: BTreeMap<Uuid, Arc<Placed<Owner>>>,
    /// LUs whose state is just being made, with who waits for it.
    making: BTreeMap<Uuid, Vec<Answer<()>>>,
}

impl Units {
    pub fn new(context: &Context, cores: &[Remote]) -> Self {
        let handles = Everywhere::new(cores, Handles::new);
        Self { book: context.into(), handles, known: Mutex::default() }
    }

    /// What each core has.
    pub fn handles(&self) -> &Everywhere<Handles> {
        &self.handles
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that an LU has an owner, and a handle on every core. It may be mapped to two
    /// clients at once, and must have one owner all the same: the second waits for what the first
    /// makes.
    pub async fn own(&self, spec: Spec) -> Result<(), ApiError> {
        let uuid = spec.uuid;
        loop {
            match self.claim(uuid) {
                Claim::Owned => return Ok(()),
                Claim::Ours => break,
                // Whether it was made is looked at again.
                Claim::Others(settled) => drop(settled.await),
            }
        }
        let made = self.make(spec).await;
        let mut known = self.known();
        let waiting = known.making.remove(&uuid).unwrap_or_default();
        let done = made.map(|owner| drop(known.owners.insert(uuid, owner)));
        drop(known);
        waiting.into_iter().for_each(|waiting| waiting.give(()));
        done
    }

    fn claim(&self, uuid: Uuid) -> Claim {
        let mut known = self.known();
        if known.owners.contains_key(&uuid) {
            return Claim::Owned;
        }
        match known.making.entry(uuid) {
            Entry::Vacant(entry) => {
                entry.insert(Vec::new());
                Claim::Ours
            }
            Entry::Occupied(mut waiting) => {
                let (answer, settled) = reply();
                waiting.get_mut().push(answer);
                Claim::Others(settled)
            }
        }
    }

    /// Nothing is changed before every core has a handle: it would not learn of it.
    async fn make(&self, spec: Spec) -> Result<Arc<Placed<Owner>>, ApiError> {
        let uuid = spec.uuid;
        let (places, of, book) = (self.handles.clone(), spec.clone(), self.book.clone());
        let at = uuid.as_u128() as usize % self.handles.each().len();
        let made = self.handles.each()[at].remote().call(move |core| async move {
            let kept = Keeper::open(&core, book, &of).await?;
            let (owner, view) = Owner::new(&core, kept, places);
            Ok((Arc::new(Placed::new(&core, owner)), view))
        });
        let (owner, view) = made.await.unwrap_or_else(|| Err(ended()))?;
        let identity =
            Identity { uuid: uuid.into_bytes(), serial: spec.serial.clone(), company: None };
        let (open, failed, way) = (spec.open.clone(), spec.failed.clone(), owner.clone());
        let held = self.handles.call(move |handles| {
            let ledger = Rc::new(ToOwner(way.clone()));
            let handle =
                handles.hold(uuid, open.as_ref(), (identity.clone(), view.clone()), ledger);
            if let Some(failed) = failed.clone() {
                handle.meter().tell(move |error| failed(error));
            }
            async {}
        });
        let is_held = held.await.into_iter().all(|done| done.is_some());
        let open = spec.open;
        let begun = owner.call(async move |owner| {
            if spec.grows {
                owner.begin(open.as_ref());
            }
        });
        if !is_held || begun.await.is_none() {
            return Err(ended());
        }
        // What a former process was erasing goes on here.
        drop(self.handles.each()[at].call(async move |handles| handles.resume(uuid)));
        Ok(owner)
    }

    /// Something is asked of the owner of an LU, or has happened to the LU. Without an owner nobody
    /// needs to know.
    pub async fn change(&self, uuid: Uuid, change: Change) -> Result<(), ApiError> {
        self.ask(uuid, |owner| owner.ask(change)).await
    }

    async fn ask(
        &self,
        uuid: Uuid,
        ask: impl FnOnce(Rc<Owner>) -> Reply<Outcome> + Send + 'static,
    ) -> Result<(), ApiError> {
        let owner = self.known().owners.get(&uuid).cloned();
        let Some(owner) = owner else { return Ok(()) };
        match owner.call(ask).await.flatten() {
            Some(Ok(_)) => Ok(()),
            Some(Err(refusal)) => Err(ApiError::failed(refusal.to_string())),
            None => Err(ended()),
        }
    }

    /// The shared state of an LU, where it has an owner.
    pub async fn view(&self, uuid: Uuid) -> Option<Arc<View>> {
        let owner = self.known().owners.get(&uuid).cloned()?;
        owner.call(async move |owner| owner.view()).await
    }

    /// That state, once it has another version than this one; none once it is given up.
    pub fn changed(
        &self,
        uuid: Uuid,
        seen: u64,
    ) -> impl Future<Output = Option<Arc<View>>> + use<> {
        let owner = self.known().owners.get(&uuid).cloned();
        async move { owner?.call(move |owner| owner.changed(seen)).await.flatten() }
    }

    /// The operator has set the cache mode. It wins over what clients had chosen, and they are
    /// told.
    pub async fn set_cache(&self, uuid: Uuid, cache: Cache) -> Result<(), ApiError> {
        let configured = modes(cache);
        let caching = Some(configured.caching);
        let modes = ModeChange { caching, control: None, save: true };
        self.ask(uuid, move |owner| {
            owner.configure(configured);
            owner.ask(Change::Mode { nexus: None, modes })
        })
        .await
    }

    /// What clients have done at an LU, on all cores. How long it took is in it where it was done
    /// over iSCSI.
    pub async fn stats(&self, uuid: Uuid) -> Vec<OpStats> {
        let counts = self.handles.call(move |handles| async move {
            handles.get(uuid).map(|handle| (handle.meter().read(), handle.meter().times()))
        });
        let mut sum: Vec<OpStats> = OpKind::ALL.map(OpStats::new).into();
        for (counts, times) in counts.await.into_iter().flatten().flatten() {
            for (sum, (counts, times)) in sum.iter_mut().zip(counts.into_iter().zip(times)) {
                sum.requests += counts.requests;
                sum.bytes += counts.bytes;
                sum.errors += counts.errors;
                sum.latency_sum_ns += times.sum_ns;
                for (sum, count) in sum.latency_counts.iter_mut().zip(times.buckets) {
                    *sum += count;
                }
            }
        }
        sum
    }

    pub async fn reservations(&self) -> BTreeMap<Uuid, Reservations> {
        let owners = self.known().owners.clone();
        let asked: Vec<_> = owners
            .iter()
            .map(|(uuid, owner)| (*uuid, owner.call(|owner| async move { owner.reservations() })))
            .collect();
        let mut all = BTreeMap::new();
        for (uuid, reservations) in asked {
            all.extend(reservations.await.map(|it| (uuid, it)));
        }
        all
    }

    /// The device is closed: nothing maps it any more.
    pub async fn forget(&self, uuid: Uuid) {
        let owner = self.known().owners.remove(&uuid);
        if owner.is_none() {
            return;
        }
        self.handles.call(move |handles| async move { handles.forget(uuid) }).await;
    }
}

/// Who makes the shared state of an LU.
enum Claim {
    /// It is there.
    Owned,
    Ours,
    /// Somebody else, who will have done it, or failed to.
    Others(Reply<()>),
}

fn ended() -> ApiError {
    ApiError::failed("the core that owns the LU's state has ended")
}
