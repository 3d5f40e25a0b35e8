//! The shared state of an LU on the core that owns it: `target`'s machine of changes, carried out.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use block::{Device, Watch};
use model::reservation::{self as words, ReservationKey};
use rt::sync::{Answer, Reply, reply};
use rt::{Core, Placed, Task};
use target::lun::access::{Access, AccessState, Altered, Group, Port};
use target::lun::owner::{Order, Owner as Machine, Place};
use target::lun::{
    self, Change, Initiator, Ledger, Modes, NexusId, PortId, Refusal, State, Update, View,
};
use wire::scsi::reservation::{ISCSI_NAME_AND_ISID, IscsiTransportId, Protocol};

use super::super::everywhere::Everywhere;
use super::keeper::Keeper;
use super::{Handles, ISCSI_PORT, VHOST_USER_PORT, record};
use crate::hex;

pub(super) type Outcome = Result<lun::Reply, Refusal>;

pub(super) struct Owner {
    core: Core,
    machine: RefCell<Machine<Answer<Outcome>>>,
    places: Everywhere<Handles>,
    keeper: Keeper,
    watching: Cell<Option<Task<()>>>,
    /// Tells of every change of the view, and of the owner's end.
    changes: Rc<Watch>,
}

impl Owner {
    /// With the view that every handle begins with.
    pub fn new(
        core: &Core,
        (keeper, state): (Keeper, State),
        places: Everywhere<Handles>,
    ) -> (Rc<Self>, Arc<View>) {
        let mut machine = Machine::new(state);
        for (_, at) in places.each().iter().zip(0..) {
            machine.join(Place(at));
        }
        let view = machine.view();
        let (core, machine) = (core.clone(), RefCell::new(machine));
        let watching = Cell::new(None);
        let changes = Rc::default();
        (Rc::new(Self { core, machine, places, keeper, watching, changes }), view)
    }

    /// Every core has a handle.
    pub fn begin(self: &Rc<Self>, open: &dyn Fn(&Core) -> Rc<dyn Device>) {
        let task = watch(Rc::downgrade(self), open(&self.core));
        self.watching.set(Some(self.core.spawn_task(task)));
    }

    /// The operator has set this.
    pub fn configure(&self, modes: Modes) {
        self.keeper.configure(modes);
    }

    /// Asks for a change. Changes are judged in the order in which this is called.
    pub fn ask(self: Rc<Self>, change: Change) -> Reply<Outcome> {
        let (ticket, outcome) = reply();
        self.step(|machine| machine.change(ticket, change));
        outcome
    }

    fn step(
        self: &Rc<Self>,
        step: impl FnOnce(&mut Machine<Answer<Outcome>>) -> Vec<Order<Answer<Outcome>>>,
    ) {
        let (former, orders, version) = {
            let mut machine = self.machine.borrow_mut();
            let former = machine.view().version;
            let orders = step(&mut machine);
            (former, orders, machine.view().version)
        };
        if version != former {
            self.changes.notify();
        }
        self.carry_out(orders);
    }

    fn carry_out(self: &Rc<Self>, orders: Vec<Order<Answer<Outcome>>>) {
        for order in orders {
            match order {
                Order::Answer { ticket, reply } => ticket.give(reply),
                Order::Install { at, update } => self.install(at, update),
                Order::Store(state) => {
                    let owner = self.clone();
                    self.core.spawn(async move {
                        let is_kept = owner.keeper.keep(&owner.core, state).await;
                        owner.step(|machine| machine.stored(is_kept));
                    });
                }
            }
        }
    }

    /// Messages to one core arrive in the order in which they were sent.
    fn install(self: &Rc<Self>, at: Place, update: Update) {
        let (uuid, version) = (self.keeper.uuid(), update.view.version);
        let Some(place) = self.places.each().get(at.0 as usize) else { return };
        let (answer, installed) = reply();
        let settled = place.call(move |handles| handles.install(uuid, &update, answer));
        let owner = self.clone();
        self.core.spawn(async move {
            if installed.await.is_some() {
                owner.step(|machine| machine.installed(at, version));
            }
            let is_settled = settled.await.is_some();
            // A core that has ended shows nothing to anybody.
            owner.step(|machine| match is_settled {
                true => machine.settled(at, version),
                false => machine.leave(at),
            });
        });
    }

    pub fn view(&self) -> Arc<View> {
        self.machine.borrow().view()
    }

    /// The view, once it has another version than this one. None: the owner is gone.
    pub fn changed(self: Rc<Self>, seen: u64) -> impl Future<Output = Option<Arc<View>>> {
        let (owner, changes) = (Rc::downgrade(&self), self.changes.clone());
        async move {
            loop {
                let at = changes.version();
                let view = owner.upgrade()?.view();
                if view.version != seen {
                    return Some(view);
                }
                changes.changed(at).await;
            }
        }
    }

    /// What is reserved, in the words of the model.
    pub fn reservations(&self) -> words::Reservations {
        let view = self.view();
        let reservations = &view.reservations;
        words::Reservations {
            generation: reservations.generation(),
            through_power_loss: reservations.through_power_loss(),
            held: reservations.held().map(|held| words::Held {
                kind: record::type_of(held.kind),
                holder: held.holder.as_ref().map(nexus),
            }),
            unit_holder: reservations.unit_holder().map(nexus),
            registrants: reservations
                .registrants()
                .map(|(of, key)| words::Registrant { nexus: nexus(of), key: ReservationKey(key) })
                .collect(),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(watching) = self.watching.take() {
            watching.cancel();
        }
        self.changes.notify();
    }
}

/// Tells clients of another size.
async fn watch(owner: Weak<Owner>, device: Rc<dyn Device>) {
    let mut size = device.geometry().size;
    let mut seen = device.watch().version();
    loop {
        seen = device.watch().changed(seen).await;
        let Some(owner) = owner.upgrade() else { return };
        let now = device.geometry().size;
        if std::mem::replace(&mut size, now) != now {
            // It is never refused, and nobody waits for it.
            drop(owner.ask(Change::Resized));
        }
    }
}

/// The ways to an LU of a single node, all of them good.
pub(super) fn access() -> Access {
    let group = |port: u16| {
        let ports = vec![Port { id: PortId(port), target: u32::from(port) }];
        let (state, altered) = (AccessState::Optimized, Altered::Never);
        Group { id: port, state, preferred: false, altered, ports }
    };
    Access { groups: [ISCSI_PORT, VHOST_USER_PORT].map(group).into() }
}

/// The way to an owner from any core.
pub(super) struct ToOwner(pub Arc<Placed<Owner>>);

impl Ledger for ToOwner {
    fn change(&self, change: Change) -> Pin<Box<dyn Future<Output = Outcome>>> {
        let outcome = self.0.call(|owner| owner.ask(change));
        Box::pin(async move { outcome.await.flatten().unwrap_or(Err(Refusal::Unavailable)) })
    }
}

fn nexus(nexus: &NexusId) -> words::Nexus {
    words::Nexus { initiator: name_of(nexus.initiator()), port: nexus.port().0 }
}

/// An initiator port as people write it.
pub(in crate::plane) fn name_of(initiator: &Initiator) -> String {
    let bytes = initiator.bytes();
    let text = bytes.get(size_of::<IscsiTransportId>()..).unwrap_or_default();
    if bytes.first() == Some(&(ISCSI_NAME_AND_ISID | Protocol::ISCSI.0)) {
        return String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
    }
    // Of a guest's virtual adapter: a SAS address (SPC-4 table 507).
    match bytes.get(4..12).filter(|_| bytes[0] == Protocol::SAS.0) {
        Some(address) => format!("naa.{}", hex(address)),
        None => hex(bytes),
    }
}
