//! The LUs of one core, for the nexuses there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use block::Device;
use rt::Core;
use rt::sync::Answer;
use target::lun::{Handle, Identity, Update, View};
use uuid::Uuid;

use super::owner::ToOwner;

pub(in crate::plane) struct Handles {
    core: Core,
    by_uuid: RefCell<HashMap<Uuid, Rc<Handle>>>,
}

impl Handles {
    pub fn new(core: &Core) -> Rc<Self> {
        Rc::new(Self { core: core.clone(), by_uuid: RefCell::default() })
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn get(&self, uuid: Uuid) -> Option<Rc<Handle>> {
        self.by_uuid.borrow().get(&uuid).cloned()
    }

    pub(super) fn hold(
        &self,
        uuid: Uuid,
        open: &dyn Fn(&Core) -> Rc<dyn Device>,
        (identity, view): (Identity, Arc<View>),
        ledger: Rc<ToOwner>,
    ) -> Rc<Handle> {
        let handle = Handle::new(open(&self.core), identity, view, ledger);
        self.by_uuid.borrow_mut().insert(uuid, handle.clone());
        handle
    }

    /// Takes up what was under way when a former process ended.
    pub(super) fn resume(&self, uuid: Uuid) {
        let Some(handle) = self.get(uuid) else { return };
        self.core.spawn(async move { target::scsi::resume(&handle).await });
    }

    pub(super) fn forget(&self, uuid: Uuid) {
        self.by_uuid.borrow_mut().remove(&uuid);
    }

    /// Takes over a change of an LU's state, and says so; done when the tasks that it ends have
    /// left.
    pub(super) fn install(
        &self,
        uuid: Uuid,
        update: &Update,
        installed: Answer<()>,
    ) -> impl Future<Output = ()> + use<> {
        let settled = self.get(uuid).map(|handle| handle.install(update));
        installed.give(());
        async move {
            if let Some(settled) = settled {
                settled.done().await;
            }
        }
    }
}
