//! What an operator wants of an LU's layers: snapshots, the way back to one, and their end.

use std::rc::Rc;
use std::sync::Arc;

use block::{Error, ErrorKind};

use super::super::super::map::MapPage;
use super::super::super::owner::{LayerId, LayerNumber, Room};
use super::super::super::root::{Frozen, LAYERS_MAX, SNAPSHOT_NAME_BYTES_MAX};
use super::{Service, Ticket};

/// A layer of an LU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerAbout {
    pub id: LayerId,
    /// Which one it stands on.
    pub below: Option<LayerId>,
    /// None: it is the one that is written into.
    pub frozen: Option<Frozen>,
    /// Layers that stand on it.
    pub above: usize,
}

/// A layer that is read, as long as this is there.
pub(in super::super) struct Viewed {
    pub layer: LayerNumber,
    pub size: u64,
    _held: Arc<()>,
}

/// How far a layer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    Gone,
    /// So many pages of its map are left.
    Left(u64),
}

impl Service {
    /// Freezes the top layer, and says which that is.
    pub(in super::super) async fn snapshot(self: Rc<Self>, top: LayerId) -> Result<LayerId, Error> {
        self.clone().make_room(Room::Layer).await?;
        let frozen = self.check_new(top)?;
        let ticket = self.ticket_of_change()?;
        self.tell(|owner| owner.snapshot(ticket, top));
        self.done(ticket).await?;
        Ok(frozen)
    }

    /// What the LU reads is what this layer was; what it has read until now is a layer that nobody
    /// needs, and the answer.
    pub(in super::super) async fn roll_back(
        self: Rc<Self>,
        to: LayerId,
        top: LayerId,
    ) -> Result<LayerId, Error> {
        self.clone().make_room(Room::Layer).await?;
        let left = self.check_new(top)?;
        let to = self.frozen(to)?;
        self.check_size(to)?;
        let ticket = self.ticket_of_change()?;
        // Others may have the same asked for; nobody stands on it before it is done.
        self.wanted_layers.borrow_mut().push(to);
        self.tell(|owner| owner.roll_back(ticket, to, top));
        let done = self.done(ticket).await;
        let mut wanted = self.wanted_layers.borrow_mut();
        if let Some(at) = wanted.iter().position(|it| *it == to) {
            wanted.swap_remove(at);
        }
        done.map(|()| left)
    }

    pub(in super::super) async fn name_layer(
        self: Rc<Self>,
        layer: LayerId,
        name: String,
    ) -> Result<(), Error> {
        if name.len() > SNAPSHOT_NAME_BYTES_MAX {
            let note = format!("'{name}' is longer than {SNAPSHOT_NAME_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::Invalid).note(note));
        }
        let (layer, ticket) = (self.frozen(layer)?, self.ticket()?);
        self.tell(|owner| owner.name_layer(ticket, layer, name));
        self.done(ticket).await
    }

    /// Lets some of a layer go. It cannot be read any more from the first call on.
    pub(in super::super) async fn fold(
        self: Rc<Self>,
        layer: LayerId,
        extents: usize,
    ) -> Result<Folded, Error> {
        let busy = |note: &str| Err(Error::new(ErrorKind::Busy).note(note.to_owned()));
        let Some(number) = self.owner.borrow().layers().number(layer) else {
            return Ok(Folded::Gone);
        };
        if self.owner.borrow().layers().top_number() == number {
            return busy("the LU's present state is not a snapshot");
        }
        if self.is_viewed(number) || self.wanted_layers.borrow().contains(&number) {
            return busy("the snapshot is in use");
        }
        if self.owner.borrow().is_brought_into(number) {
            return busy("the snapshot is the one that the LU is being brought into");
        }
        if self.owner.borrow().layers().above(number).count() > 1 {
            return busy("more than one state of the LU stands on the snapshot");
        }
        let is_other = self.going.get().is_some_and(|other| other != number);
        if is_other || self.is_folding.replace(true) {
            return busy("a snapshot is being deleted");
        }
        self.going.set(Some(number));
        let done = self.fold_some(number, extents).await;
        self.is_folding.set(false);
        done
    }

    async fn fold_some(
        self: &Rc<Self>,
        layer: LayerNumber,
        extents: usize,
    ) -> Result<Folded, Error> {
        let (ticket, is_last) = (self.ticket()?, self.pages_left(layer) == 0);
        match is_last {
            true => self.tell(|owner| owner.drop_layer(ticket, layer)),
            false => self.tell(|owner| owner.fold(ticket, layer, extents)),
        }
        self.done(ticket).await?;
        if is_last {
            self.going.set(None);
            return Ok(Folded::Gone);
        }
        Ok(Folded::Left(self.pages_left(layer) as u64))
    }

    pub(in super::super) fn layers(&self) -> Vec<LayerAbout> {
        let owner = self.owner.borrow();
        let layers = owner.layers();
        let about = |(number, own): (LayerNumber, LayerId)| LayerAbout {
            id: own,
            below: layers.below(number).and_then(|below| layers.id(below)),
            frozen: layers.frozen(number).cloned(),
            above: layers.above(number).count(),
        };
        layers.ids().map(about).collect()
    }

    /// Extents in which each layer has blocks of its own.
    pub(in super::super) fn extents_of_layers(&self) -> Vec<(LayerId, u64)> {
        let owner = self.owner.borrow();
        let layers = owner.layers();
        layers.ids().map(|(number, id)| (id, layers.extents_of(number))).collect()
    }

    /// Somebody reads a layer from now on; with the LU's size at its time.
    pub(in super::super) fn open_view(&self, layer: LayerId) -> Result<Viewed, Error> {
        let number = self.frozen(layer)?;
        let size = self.owner.borrow().layers().frozen(number).map_or(0, |frozen| frozen.size);
        let held = Arc::new(());
        let mut views = self.views.borrow_mut();
        views.retain(|(_, view)| view.strong_count() > 0);
        views.push((number, Arc::downgrade(&held)));
        Ok(Viewed { layer: number, size, _held: held })
    }

    fn is_viewed(&self, layer: LayerNumber) -> bool {
        let views = self.views.borrow();
        views.iter().any(|(number, view)| *number == layer && view.strong_count() > 0)
    }

    /// The pages of the map with this number, from the top, or from a layer that is looked at.
    pub(in super::super) async fn stack(
        self: Rc<Self>,
        view: Option<LayerNumber>,
        number: u64,
    ) -> Result<Vec<Arc<MapPage>>, Error> {
        // One that is looked at was there before; that its record was, the owner has to know.
        if let Some(view) = view
            && self.owner().layers().frozen(view).is_none()
        {
            return Err(Error::new(ErrorKind::Medium).note("the snapshot has not come about"));
        }
        let here = self.owner.borrow_mut().stack(view, number);
        self.look_at_memory();
        let mut pages = match here {
            Some(pages) => pages,
            None => {
                self.ended.until(|| !self.is_still.get()).await;
                if let Some(heir) = self.heir.get() {
                    return Box::pin(heir.clone().stack(view, number)).await;
                }
                self.look(view, number).await?
            }
        };
        if let Some(base) = &self.base {
            pages.extend(base.stack(number).await?);
        }
        Ok(pages)
    }

    /// The same for those that have to be read first.
    async fn look(
        self: &Rc<Self>,
        view: Option<LayerNumber>,
        number: u64,
    ) -> Result<Vec<Arc<MapPage>>, Error> {
        // Also of an LU that has failed: what was written is read as long as its disks can be.
        let ticket = self.new_ticket()?;
        self.tell(|owner| owner.look(ticket, view, number));
        self.found(ticket).await
    }

    /// Pages that the owner was asked for.
    pub(super) async fn found(&self, ticket: Ticket) -> Result<Vec<Arc<MapPage>>, Error> {
        let found = self.wait(ticket, |waiter| match (&waiter.found, &waiter.done) {
            (Some(found), _) => Some(found.clone()),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, _) => None,
        });
        let found = found.await;
        self.forget(ticket);
        found
    }

    /// Whether there may be another layer of this name; with the one that is the top now.
    fn check_new(&self, top: LayerId) -> Result<LayerId, Error> {
        let owner = self.owner.borrow();
        let layers = owner.layers();
        if layers.count() >= LAYERS_MAX {
            let note = format!("the LU has {LAYERS_MAX} layers; delete a snapshot");
            return Err(Error::new(ErrorKind::Busy).note(note));
        }
        if layers.number(top).is_some() {
            return Err(Error::new(ErrorKind::Invalid).note("the LU has a layer of this name"));
        }
        Ok(layers.id(layers.top_number()).expect("there is a top"))
    }

    /// What is behind the end of an LU reads zero, and so it must after going back.
    fn check_size(&self, to: LayerNumber) -> Result<(), Error> {
        let owner = self.owner.borrow();
        let (is, was) = (owner.about().size, owner.layers().frozen(to).map_or(0, |it| it.size));
        if was <= is {
            return Ok(());
        }
        let note = format!("the LU had {was} bytes then and has {is}; make it larger first");
        Err(Error::new(ErrorKind::Invalid).note(note))
    }

    /// The number of a frozen layer that is not about to go.
    fn frozen(&self, layer: LayerId) -> Result<LayerNumber, Error> {
        let owner = self.owner.borrow();
        // Also one of which only an owner before knows that it was letting it go.
        let is_frozen = |number: &LayerNumber| {
            owner.layers().frozen(*number).is_some_and(|frozen| !frozen.is_going)
        };
        let number = owner.layers().number(layer).filter(is_frozen);
        let is_going = |number: &LayerNumber| self.going.get() == Some(*number);
        number
            .filter(|number| !is_going(number))
            .ok_or_else(|| Error::new(ErrorKind::Invalid).note("the LU has no such snapshot"))
    }

    fn pages_left(&self, layer: LayerNumber) -> usize {
        self.owner.borrow().layers().pages_left(layer)
    }
}
