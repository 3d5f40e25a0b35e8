//! Snapshots of LUs of pools: taken, gone back to, and let go in the background.
//!
//! A layer that is frozen and not wanted is let go: it was a snapshot that was removed, one that
//! was never made known, or what an LU was before it went back to a snapshot. What was frozen a
//! moment ago is pending until it is wanted, or until nobody will ever want it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use block::{Error, ErrorKind};
use cluster::OriginSpec;
use model::{ApiError, LuName, Size};
use rt::{Core, Remote};
use uuid::Uuid;
use volume::pool::lu::{Folded, LayerAbout, View, snapshot_all};
use volume::pool::owner::LayerId;

use super::lus::{MAKE_ROOM, PoolStore};
use super::{OpenPool, Pools, ended};
use crate::engine::Removal;
use crate::world::{Machine, World};

/// When to look again for layers that somebody still uses.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long who takes a snapshot waits until its name is on the disks too.
const NAMING_LIMIT: Duration = Duration::from_secs(5);

/// What is wanted of an LU's layers.
#[derive(Default)]
pub(super) struct Layers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    wanted: BTreeMap<LayerId, String>,
    /// How often each is about to become a snapshot.
    pending: BTreeMap<LayerId, usize>,
    /// What is let go, or will be as soon as nobody uses it.
    going: BTreeMap<LayerId, Going>,
    is_swept: bool,
    /// Something has changed since whoever sweeps looked.
    is_changed: bool,
}

/// A layer that nobody wants any more.
#[derive(Clone, Default)]
struct Going {
    /// Of the snapshot that it was.
    name: String,
    /// Extents that it had, and has, when they were counted.
    extents: Option<(u64, u64)>,
    /// Something still uses it.
    waits: bool,
}

impl Layers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, layer: LayerId) {
        *self.lock().pending.entry(layer).or_default() += 1;
    }

    fn forget(&self, layer: LayerId) {
        let mut inner = self.lock();
        if let Some(count) = inner.pending.get_mut(&layer) {
            *count -= 1;
            inner.pending.retain(|_, count| *count > 0);
        }
        inner.is_changed = true;
    }

    /// How far a layer is gone.
    fn note(&self, layer: LayerId, folded: &Result<Folded, Error>, extents: u64) {
        let mut inner = self.lock();
        let Some(going) = inner.going.get_mut(&layer) else { return };
        match folded {
            Ok(Folded::Gone) => {
                inner.going.remove(&layer);
            }
            Ok(Folded::Left(_)) => {
                going.waits = false;
                going.extents =
                    going.extents.map(|(all, left)| (all, left.saturating_sub(extents)));
            }
            Err(_) => going.waits = true,
        }
    }

    fn is_unneeded(&self, layer: &LayerAbout) -> bool {
        let inner = self.lock();
        let is_kept = inner.wanted.contains_key(&layer.id) || inner.pending.contains_key(&layer.id);
        layer.frozen.is_some() && !is_kept
    }
}

impl PoolStore {
    /// These layers are wanted; others are let go, by a task on this core.
    pub(in crate::plane) fn keep(self: &Arc<Self>, core: &Remote, wanted: &BTreeMap<Uuid, String>) {
        {
            let mut inner = self.layers.lock();
            let wanted = wanted.iter().map(|(id, name)| (id.into_bytes(), name.clone()));
            let before = std::mem::replace(&mut inner.wanted, wanted.collect());
            let wanted: BTreeSet<LayerId> = inner.wanted.keys().copied().collect();
            // Who asks from now on is told of them, although nobody has looked at them yet.
            let gone = before.into_iter().filter(|(id, _)| !wanted.contains(id));
            inner.going.extend(gone.map(|(id, name)| (id, Going { name, ..Going::default() })));
            inner.pending.retain(|layer, _| !wanted.contains(layer));
        }
        self.sweep(core);
    }

    /// Says on disk what its snapshots are called, for whoever has nothing but the disks. What
    /// cannot be said within a while is said by whoever sweeps.
    pub(in crate::plane) async fn name_snapshots(&self, core: &Core) {
        if core.timeout(NAMING_LIMIT, self.name_all()).await.is_none_or(|named| named.is_err()) {
            tracing::debug!(lu = %self.name(), "snapshots get their names later");
        }
    }

    async fn name_all(&self) -> Result<(), Error> {
        for layer in self.lu().layers().await? {
            self.name_one(&layer).await?;
        }
        Ok(())
    }

    async fn name_one(&self, layer: &LayerAbout) -> Result<(), Error> {
        let named = self.layers.lock().wanted.get(&layer.id).cloned();
        match (named, &layer.frozen) {
            (Some(name), Some(frozen)) if frozen.name != name => {
                self.lu().name_layer(layer.id, name).await
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sweep(self: &Arc<Self>, core: &Remote) {
        let mut inner = self.layers.lock();
        inner.is_changed = true;
        if !std::mem::replace(&mut inner.is_swept, true) {
            let me = self.clone();
            core.send(move |core| {
                let sweeper = core.clone();
                core.spawn(async move { me.sweep_all(sweeper).await });
            });
        }
    }

    async fn sweep_all(&self, core: Core) {
        loop {
            self.layers.lock().is_changed = false;
            let is_done = match self.sweep_once(&core).await {
                Ok(is_done) => is_done,
                // It is closed, or written no more; whoever opens it again looks again.
                Err(error) => {
                    tracing::debug!(%error, lu = %self.name(), "layers stay until it is opened");
                    true
                }
            };
            {
                let mut inner = self.layers.lock();
                if is_done && !inner.is_changed {
                    inner.is_swept = false;
                    return;
                }
            }
            if !is_done {
                core.sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Lets layers go that nobody wants; false if some are in use.
    async fn sweep_once(&self, core: &Core) -> Result<bool, Error> {
        let mut is_done = true;
        let layers = self.lu().layers().await?;
        self.count_unneeded(&layers).await?;
        for layer in layers {
            self.name_one(&layer).await?;
            if self.layers.is_unneeded(&layer) {
                is_done &= self.let_go(core, layer.id).await?;
            }
        }
        Ok(is_done)
    }

    /// Notes what is to be let go, with what it holds.
    async fn count_unneeded(&self, layers: &[LayerAbout]) -> Result<(), Error> {
        let unneeded: Vec<_> = layers.iter().filter(|it| self.layers.is_unneeded(it)).collect();
        let is_counted = {
            let mut inner = self.layers.lock();
            inner.going.retain(|id, _| unneeded.iter().any(|layer| layer.id == *id));
            for layer in &unneeded {
                let name = layer.frozen.as_ref().map_or_else(String::new, |it| it.name.clone());
                inner.going.entry(layer.id).or_insert(Going { name, ..Going::default() });
            }
            inner.going.values().all(|going| going.extents.is_some())
        };
        if is_counted {
            return Ok(());
        }
        let counts = self.lu().extents_of_layers().await?;
        let mut inner = self.layers.lock();
        for (layer, extents) in counts {
            if let Some(going) = inner.going.get_mut(&layer) {
                going.extents.get_or_insert((extents, extents));
            }
        }
        Ok(())
    }

    async fn let_go(&self, core: &Core, layer: LayerId) -> Result<bool, Error> {
        loop {
            let (began, extents) = (core.now(), self.pace.extents(self.extent));
            let folded = self.lu().fold(layer, extents).await;
            self.layers.note(layer, &folded, extents as u64);
            match folded {
                Ok(Folded::Gone) => return Ok(true),
                Ok(Folded::Left(_)) => {
                    let bytes = self.size_of(extents as u64).bytes();
                    self.pace.rest(core, bytes, began).await;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::NoSpace) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is being let go of it, and how much of that is left.
    pub(super) fn removals(&self) -> Vec<Removal> {
        let inner = self.layers.lock();
        let removal = |going: &Going| Removal {
            lu: self.name().clone(),
            snapshot: going.name.parse().ok(),
            size: going.extents.map(|(all, _)| self.size_of(all)),
            left: going.extents.map(|(_, left)| self.size_of(left)),
            waits: going.waits,
        };
        inner.going.values().map(removal).collect()
    }

    /// The layer that is written into now.
    async fn top(&self) -> Result<LayerId, Error> {
        let layers = self.lu().layers().await?;
        let top = layers.into_iter().find(|layer| layer.frozen.is_none());
        top.map(|layer| layer.id).ok_or_else(|| ErrorKind::Offline.into())
    }

    /// What each layer holds.
    pub(in crate::plane) async fn sizes(&self) -> Result<BTreeMap<Uuid, Size>, ApiError> {
        let layers = self.lu().extents_of_layers().await;
        let layers = layers.map_err(|error| self.failed("be read", &error))?;
        let size = |(id, extents)| (Uuid::from_bytes(id), self.size_of(extents));
        Ok(layers.into_iter().map(size).collect())
    }

    fn failed(&self, what: &str, error: &Error) -> ApiError {
        let message = format!("snapshots of LU {} cannot {what}: {error}", self.name());
        match error.kind() {
            ErrorKind::NoSpace => ApiError::conflict(message).then(MAKE_ROOM),
            ErrorKind::Busy => ApiError::not_now(message).then("run the command again"),
            _ => ApiError::failed(message).then("viaduct event ls shows what is wrong"),
        }
    }
}

impl Pools {
    /// An LU of whichever pool that is open.
    pub(in crate::plane) fn open_lu_of(&self, uuid: Uuid) -> Result<Arc<PoolStore>, ApiError> {
        let pools: Vec<_> = self.open_pools().values().cloned().collect();
        let found = pools.iter().find_map(|pool| pool.lus().get(&uuid).cloned());
        found.ok_or_else(|| {
            ApiError::not_now("the LU is not open").then("viaduct lu ls shows what is wrong")
        })
    }

    /// The snapshot that a clone stands on.
    pub(super) async fn view(
        &self,
        pool: &OpenPool,
        clone: &LuName,
        origin: OriginSpec,
    ) -> Result<Arc<View>, ApiError> {
        let of = pool.lus().get(&origin.device).cloned();
        let of = of.ok_or_else(|| {
            ApiError::not_now(format!("LU {clone} is a clone of an LU that is not open"))
        })?;
        of.lu().view(origin.snapshot.into_bytes()).await.map_err(|error| {
            let message = format!("LU {clone} cannot be opened on its snapshot of {}", of.name());
            ApiError::failed(format!("{message}: {error}"))
        })
    }

    /// Freezes LUs all at one instant, and says which layers hold what they were.
    pub(in crate::plane) async fn take_snapshots(
        &self,
        uuids: &[Uuid],
    ) -> Result<Vec<Uuid>, ApiError> {
        let stores = uuids.iter().map(|uuid| self.open_lu_of(*uuid));
        let stores: Vec<_> = stores.collect::<Result<_, _>>()?;
        let mut tops = Vec::new();
        for store in &stores {
            tops.push(store.top().await.map_err(|error| store.failed("be taken", &error))?);
        }
        let pending = || stores.iter().zip(&tops);
        pending().for_each(|(store, top)| store.layers.wait_for(*top));
        let new = |store: &Arc<PoolStore>| (store.lu().clone(), Machine.uuid().into_bytes());
        let lus: Vec<_> = stores.iter().map(new).collect();
        match snapshot_all(&lus).await {
            Ok(frozen) if frozen == tops => Ok(frozen.into_iter().map(Uuid::from_bytes).collect()),
            taken => {
                pending().for_each(|(store, top)| store.layers.forget(*top));
                let store = stores.first().ok_or_else(ended)?;
                let error = taken.err().unwrap_or_else(|| {
                    Error::new(ErrorKind::Busy).note("another snapshot was taken meanwhile")
                });
                Err(store.failed("be taken", &error))
            }
        }
    }

    /// A layer that was frozen did not become a snapshot.
    pub(in crate::plane) fn forget_snapshot(&self, core: &Remote, lu: Uuid, layer: Uuid) {
        if let Ok(store) = self.open_lu_of(lu) {
            store.layers.forget(layer.into_bytes());
            store.sweep(core);
        }
    }

    pub(in crate::plane) async fn roll_back(
        &self,
        core: &Remote,
        lu: Uuid,
        to: Uuid,
    ) -> Result<(), ApiError> {
        let store = self.open_lu_of(lu)?;
        let top = Machine.uuid().into_bytes();
        let back = store.lu().roll_back(to.into_bytes(), top).await;
        back.map_err(|error| store.failed("be gone back to", &error))?;
        store.sweep(core);
        Ok(())
    }
}
