//! Snapshots of an LU: taken under load, read as devices, gone back to, deleted, and stood upon by
//! clones.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use block::{Device, Error};
use rt::Core;
use rt::handles::{Ledger, Member, Span, Ticket, each};

use super::super::map::MapPage;
use super::super::owner::{LayerId, LayerNumber, Room};
use super::super::root::Base;
use super::below::Depths;
use super::handle::Handle;
use super::service::{Folded, LayerAbout, Viewed};
use super::{Alone, Lu, closed};

impl Lu {
    /// Freezes what is there under a new layer of this name, and says which layer that is. Writes
    /// wait meanwhile.
    pub async fn snapshot(self: &Arc<Self>, top: LayerId) -> Result<LayerId, Error> {
        let frozen = snapshot_all(&[(self.clone(), top)]).await?;
        Ok(frozen[0])
    }

    /// What the LU reads from now on is what this snapshot is. The answer is the layer that nobody
    /// needs any more.
    pub async fn roll_back(self: &Arc<Self>, to: LayerId, top: LayerId) -> Result<LayerId, Error> {
        let _alone = self.alone()?;
        let ticket = self.hold().await;
        let left = self.ask(move |service| service.roll_back(to, top)).await;
        self.forget_pages().await;
        drop(ticket);
        self.ask(|service| service.flush()).await?;
        left
    }

    /// Says on disk what a snapshot is called.
    pub async fn name_layer(&self, layer: LayerId, name: String) -> Result<(), Error> {
        self.ask(move |service| service.name_layer(layer, name)).await
    }

    /// Lets some extents of a layer go that nobody needs. Call it until it is gone: whoever does
    /// that has the pace. After a crash it is called again.
    pub async fn fold(&self, layer: LayerId, extents: usize) -> Result<Folded, Error> {
        self.ask(move |service| service.fold(layer, extents)).await
    }

    /// Every layer, the oldest first.
    pub async fn layers(&self) -> Result<Vec<LayerAbout>, Error> {
        self.ask(|service| async move { Ok(service.layers()) }).await
    }

    /// Extents in which each layer has blocks of its own: looks at all of the map.
    pub async fn extents_of_layers(&self) -> Result<Vec<(LayerId, u64)>, Error> {
        self.ask(|service| async move { Ok(service.extents_of_layers()) }).await
    }

    /// A snapshot, to be read. It is not deleted before this is dropped.
    pub async fn view(self: &Arc<Self>, id: LayerId) -> Result<Arc<View>, Error> {
        let viewed = self.ask(move |service| async move { service.open_view(id) }).await?;
        Ok(Arc::new(View { lu: self.clone(), id, viewed }))
    }

    /// Holds all writes back until what is given is dropped.
    async fn hold(&self) -> Ticket<Handle> {
        Ticket::take(&self.ledger, None, Span::ALL).await
    }

    /// Nobody writes on before everybody looks into the new layer.
    async fn forget_pages(&self) {
        let forget = |handle: Rc<Handle>| async move { handle.forget_pages() };
        each(self.ledger.members(), forget).await;
    }
}

/// Snapshots of several LUs at one instant, each with the name of its new layer: a write that is
/// answered before another one begins is not missing where that is. They survive loss of power.
/// Where one fails, those that were taken are layers that nobody needs.
pub async fn snapshot_all(lus: &[(Arc<Lu>, LayerId)]) -> Result<Vec<LayerId>, Error> {
    let order = in_order(lus.iter().map(|(lu, _)| lu));
    let _alone = all_alone(&order)?;
    // While others still write: it may take a while.
    for (lu, _) in lus {
        if let Err(error) = lu.make_room(Room::Layer).await {
            for (lu, _) in lus {
                lu.unmake_room().await?;
            }
            return Err(error);
        }
    }
    let held = hold_all(&order).await;
    let freeze = |(lu, top): &(Arc<Lu>, LayerId)| {
        let top = *top;
        lu.owner.call(move |service| service.snapshot(top))
    };
    let asked: Vec<_> = lus.iter().map(freeze).collect();
    let mut frozen = Vec::new();
    for answer in asked {
        frozen.push(answer.await.unwrap_or_else(|| Err(closed())));
    }
    for (lu, _) in lus {
        lu.forget_pages().await;
    }
    drop(held);
    for (lu, _) in lus {
        lu.ask(|service| service.flush()).await?;
    }
    frozen.into_iter().collect()
}

/// Nothing is written to some LUs as long as this is there.
pub struct Still<'a> {
    _alone: Vec<Alone<'a>>,
    _held: Vec<Ticket<Handle>>,
}

/// Holds all writes to these LUs back. What they have answered is durable then.
pub async fn still(lus: &[Arc<Lu>]) -> Result<Still<'_>, Error> {
    let order = in_order(lus.iter());
    let alone = all_alone(&order)?;
    let held = hold_all(&order).await;
    for lu in lus {
        lu.ask(|service| service.flush()).await?;
    }
    Ok(Still { _alone: alone, _held: held })
}

/// Always in one order: two who hold several never wait for each other.
fn in_order<'a>(lus: impl Iterator<Item = &'a Arc<Lu>>) -> Vec<&'a Arc<Lu>> {
    let mut order: Vec<&Arc<Lu>> = lus.collect();
    order.sort_by_key(|lu| lu.id);
    order
}

fn all_alone<'a>(order: &[&'a Arc<Lu>]) -> Result<Vec<Alone<'a>>, Error> {
    order.iter().map(|lu| lu.alone()).collect()
}

async fn hold_all(order: &[&Arc<Lu>]) -> Vec<Ticket<Handle>> {
    let mut held = Vec::with_capacity(order.len());
    for lu in order {
        held.push(lu.hold().await);
    }
    held
}

/// A snapshot that is being read.
pub struct View {
    lu: Arc<Lu>,
    id: LayerId,
    viewed: Viewed,
}

impl View {
    /// The snapshot as a device of this core.
    pub fn device(self: &Arc<Self>, core: &Core) -> Rc<dyn Device> {
        self.lu.device_of(core, Some(self.clone()))
    }

    pub fn size(&self) -> u64 {
        self.viewed.size
    }

    /// What a clone of it stands on.
    pub fn is(&self) -> Base {
        Base { lu: self.lu.id, layer: self.id }
    }

    /// The pages of its map with this number, from the top.
    pub(super) fn stack(
        &self,
        number: u64,
    ) -> impl Future<Output = Result<Vec<Arc<MapPage>>, Error>> + use<> {
        let (layer, lu) = (Some(self.viewed.layer), self.lu.clone());
        async move { lu.ask(move |service| service.stack(layer, number)).await }
    }

    /// Numbers of pages of its map, from this one on.
    pub(super) fn pages_from(
        &self,
        first: u64,
    ) -> impl Future<Output = Result<BTreeSet<u64>, Error>> + use<> {
        let (layer, lu) = (Some(self.layer()), self.lu.clone());
        async move { lu.ask(move |service| service.pages_from(layer, first)).await }
    }

    /// What lies below the LU that it is of.
    pub(super) fn depths(&self) -> &Depths {
        &self.lu.depths
    }

    pub(super) fn layer(&self) -> LayerNumber {
        self.viewed.layer
    }
}

/// Who looks into the layers of an LU: its own handles, and those of its clones.
pub(super) struct Readers {
    own: Arc<Ledger<Handle>>,
    clones: Mutex<Vec<Weak<Self>>>,
}

impl Readers {
    pub(super) fn new(own: Arc<Ledger<Handle>>, base: Option<&View>) -> Arc<Self> {
        let readers = Arc::new(Self { own, clones: Mutex::default() });
        if let Some(base) = base {
            let mut clones = base.lu.readers.clones();
            clones.retain(|clone| clone.strong_count() > 0);
            clones.push(Arc::downgrade(&readers));
        }
        readers
    }

    pub(super) fn members(&self) -> Vec<Member<Handle>> {
        let mut members = self.own.members();
        // Not under the lock: clones have clones.
        let clones = self.clones().clone();
        let clones = clones.iter().filter_map(Weak::upgrade);
        members.extend(clones.flat_map(|clone| clone.members()));
        members
    }

    fn clones(&self) -> MutexGuard<'_, Vec<Weak<Self>>> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
