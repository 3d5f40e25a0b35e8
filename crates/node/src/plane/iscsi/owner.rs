//! The shared state of an LU on the core that owns it, and the way of a change: applied, brought to
//! every core, answered when all have it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use block::Device;
use model::Cache;
use model::reservation::{self as words, ReservationKey, ReservationType};
use rt::sync::Notify;
use rt::{Core, Placed};
use store::Store;
use target::lun::access::{Access, AccessState, Altered, Group, Port};
use target::lun::reservation::Kind;
use target::lun::{
    Caching, Change, Config, Initiator, Ledger, Medium, Modes, NexusId, PortId, Refusal, Reply,
    State, Update, View,
};
use uuid::Uuid;
use wire::scsi::reservation::{ISCSI_NAME_AND_ISID, IscsiTransportId, Protocol};

use super::PORT;
use super::host::CoreHost;

pub(super) struct Owner {
    uuid: Uuid,
    state: RefCell<State>,
    hosts: Vec<Arc<Placed<CoreHost>>>,
    /// A change is being applied and sent: the next one waits, so that all cores see one order.
    busy: Cell<bool>,
    free: Notify,
}

impl Owner {
    pub fn new(
        core: &Core,
        uuid: Uuid,
        (store, cache): (Arc<dyn Store>, Cache),
        hosts: Vec<Arc<Placed<CoreHost>>>,
    ) -> Rc<Self> {
        let write_back = cache == Cache::Writeback;
        let caching = Caching { write_back, ..Caching::default() };
        let modes = Modes { caching, ..Modes::default() };
        let state = State::new(Config { modes, access: access(), medium: Medium::LOADED });
        let state = RefCell::new(state);
        let (busy, free) = (Cell::new(false), Notify::new());
        let owner = Rc::new(Self { uuid, state, hosts, busy, free });
        let device = store.device(core);
        core.spawn(watch(Rc::downgrade(&owner), device));
        owner
    }

    pub fn view(&self) -> Arc<View> {
        self.state.borrow().view()
    }

    pub async fn change(self: Rc<Self>, change: Change) -> Result<Reply, Refusal> {
        self.free.until(|| !self.busy.replace(true)).await;
        let applied = self.state.borrow_mut().apply(change);
        let uuid = self.uuid;
        let send = |update: Update| {
            let to = |host: &Arc<Placed<CoreHost>>| {
                let update = update.clone();
                host.call(move |host| host.update(uuid, update))
            };
            self.hosts.iter().map(to).collect::<Vec<_>>()
        };
        let sent = applied.update.map(send).unwrap_or_default();
        self.busy.set(false);
        self.free.notify();
        for done in sent {
            // A core that has ended shows nothing to anybody.
            done.await;
        }
        applied.reply
    }

    /// What is reserved, in the words of the model.
    pub fn reservations(&self) -> words::Reservations {
        let view = self.view();
        let reservations = &view.reservations;
        words::Reservations {
            generation: reservations.generation(),
            through_power_loss: reservations.through_power_loss(),
            held: reservations.held().map(|held| words::Held {
                kind: type_of(held.kind),
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

/// Tells clients of another size.
async fn watch(owner: Weak<Owner>, device: Rc<dyn Device>) {
    let mut size = device.geometry().size;
    let mut seen = device.watch().version();
    loop {
        seen = device.watch().changed(seen).await;
        let Some(owner) = owner.upgrade() else { return };
        let now = device.geometry().size;
        if std::mem::replace(&mut size, now) != now {
            // A resize is never refused.
            let _ = owner.change(Change::Resized).await;
        }
    }
}

/// The only way to an LU of a single node.
fn access() -> Access {
    let ports = vec![Port { id: PortId(PORT), target: u32::from(PORT) }];
    let (state, altered) = (AccessState::Optimized, Altered::Never);
    Access { groups: vec![Group { id: PORT, state, preferred: false, altered, ports }] }
}

/// The way to an owner from any core.
pub(super) struct ToOwner(pub Arc<Placed<Owner>>);

impl Ledger for ToOwner {
    /// Reservations live in memory: a node that starts again has none.
    fn keeps(&self) -> bool {
        false
    }

    fn change(&self, change: Change) -> Pin<Box<dyn Future<Output = Result<Reply, Refusal>>>> {
        let reply = self.0.call(|owner| owner.change(change));
        Box::pin(async move { reply.await.unwrap_or(Err(Refusal::Unavailable)) })
    }
}

fn nexus(nexus: &NexusId) -> words::Nexus {
    words::Nexus { initiator: name_of(nexus.initiator()), port: nexus.port().0 }
}

/// An initiator port as people write it.
fn name_of(initiator: &Initiator) -> String {
    let bytes = initiator.bytes();
    let text = bytes.get(size_of::<IscsiTransportId>()..).unwrap_or_default();
    if bytes.first() == Some(&(ISCSI_NAME_AND_ISID | Protocol::ISCSI.0)) {
        return String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
    }
    super::hex(bytes)
}

fn type_of(kind: Kind) -> ReservationType {
    match kind {
        Kind::WriteExclusive => ReservationType::WriteExclusive,
        Kind::ExclusiveAccess => ReservationType::ExclusiveAccess,
        Kind::WriteExclusiveRegistrantsOnly => ReservationType::WriteExclusiveRegistrantsOnly,
        Kind::ExclusiveAccessRegistrantsOnly => ReservationType::ExclusiveAccessRegistrantsOnly,
        Kind::WriteExclusiveAllRegistrants => ReservationType::WriteExclusiveAllRegistrants,
        Kind::ExclusiveAccessAllRegistrants => ReservationType::ExclusiveAccessAllRegistrants,
    }
}
