//! The nexuses of vhost-user-scsi adapters on one core.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use front::vhost_user;
use model::AdapterId;
use rt::Core;
use target::lun::admit::Across;
use target::lun::attention::{AttentionSet, Attentions};
use target::lun::{NexusId, PortId};
use target::scsi::persist::transport_id;
use target::scsi::{Nexus, TargetPort, TaskManagement, Unit};
use uuid::Uuid;
use wire::scsi::LogicalUnitNumber;
use wire::scsi::reservation::Protocol;

use super::super::spawner::Spawner;
use super::super::units::{Handles, VHOST_USER_PORT};
use super::Shown;

pub struct CoreHost {
    handles: Rc<Handles>,
    env: Rc<Spawner>,
    nexuses: RefCell<HashMap<AdapterId, Rc<Nexus>>>,
}

/// What the cores share of one nexus at one LU.
#[derive(Clone)]
pub struct Shared {
    attentions: Arc<Attentions>,
    across: Arc<Across>,
}

impl CoreHost {
    pub fn new(handles: Rc<Handles>) -> Rc<Self> {
        let env = Rc::new(Spawner(handles.core().clone()));
        Rc::new(Self { handles, env, nexuses: RefCell::default() })
    }

    pub fn core(&self) -> &Core {
        self.handles.core()
    }

    /// The nexus of an adapter, made when it is first asked for.
    pub fn nexus(&self, adapter: &AdapterId) -> Rc<Nexus> {
        if let Some(nexus) = self.nexuses.borrow().get(adapter) {
            return nexus.clone();
        }
        let port = TargetPort { protocol: Protocol::SAS, device_name: String::new() };
        let nexus = Nexus::new(nexus_id(adapter), port, self.env.clone());
        self.nexuses.borrow_mut().insert(adapter.clone(), nexus.clone());
        nexus
    }

    /// What all cores share of a new nexus at an LU.
    pub fn shared(&self, uuid: Uuid) -> Option<Shared> {
        let attentions = self.handles.get(uuid)?.attentions(AttentionSet::NONE);
        Some(Shared { attentions, across: Arc::default() })
    }

    /// Shows an LU. False: it is not here, or the LUN is taken.
    /// The others tell that there is something new, unless all of it is.
    pub fn map(
        &self,
        (adapter, number): (&AdapterId, u16),
        is_new: bool,
        shown: Shown,
        shared: Shared,
    ) -> bool {
        let Some(handle) = self.handles.get(shown.device) else { return false };
        let nexus = self.nexus(adapter);
        let Shared { attentions, across } = shared;
        let unit = Unit::new(nexus.id().clone(), handle, attentions, shown.settings);
        vhost_user::join(self.core(), &unit, &across);
        let is_mapped = nexus.map(number, unit).is_ok();
        if is_new {
            nexus.told_luns();
        }
        is_mapped
    }

    /// Takes an LU away, once nothing of the nexus runs there any more.
    pub async fn unmap(self: Rc<Self>, adapter: AdapterId, number: u16) {
        let nexus = self.nexus(&adapter);
        nexus.manage(LogicalUnitNumber::new(number).0, TaskManagement::AbortTaskSet).await;
        nexus.unmap(number);
    }

    pub fn forget(&self, adapter: &AdapterId) {
        self.nexuses.borrow_mut().remove(adapter);
    }
}

/// The nexus of an adapter: its initiator port is known by an address as SAS has them, made of the
/// names of client and slot, so that it is the same for life and on every node.
pub fn nexus_id(adapter: &AdapterId) -> NexusId {
    NexusId::new(transport_id::sas(address_of(adapter)), PortId(VHOST_USER_PORT))
}

/// NAA locally assigned (SPC-4 7.8.6.6.4): of 64 bits the first four are 3h, the rest is ours.
fn address_of(adapter: &AdapterId) -> u64 {
    const LOCALLY_ASSIGNED: u64 = 3 << 60;
    // FNV-1a.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = adapter.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, step);
    LOCALLY_ASSIGNED | hash >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(client: &str, slot: u16) -> AdapterId {
        AdapterId { client: client.parse().unwrap(), slot: slot.try_into().unwrap() }
    }

    #[test]
    fn each_adapter_has_a_name_for_life() {
        let all = [adapter("vm1", 2), adapter("vm1", 3), adapter("vm2", 2)].map(|it| nexus_id(&it));
        assert_eq!(all[0], nexus_id(&adapter("vm1", 2)));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
        // Written down by reservations that outlive a process: it must never change.
        let bytes = all[0].initiator().bytes();
        assert_eq!(
            (bytes[0], &bytes[4..12]),
            (6, &address_of(&adapter("vm1", 2)).to_be_bytes()[..])
        );
        assert_eq!(address_of(&adapter("vm1", 2)), 0x388c_d137_2055_8490);
    }
}
