//! A store that becomes another one under its clients: that of an LU which is in no pool, so that
//! it can be brought into one while it is used.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Device, Error, Request};
use rt::Core;
use store::{Boxed, Store};
use volume::{Make, Switches};

pub(super) struct Swap {
    switches: Arc<Switches>,
    now: Mutex<Arc<dyn Store>>,
}

impl Swap {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Swap> {
        Arc::new(Swap { switches: Switches::new(maker(&store)), now: Mutex::new(store) })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<dyn Store>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is now.
    pub(super) fn now(&self) -> Arc<dyn Store> {
        self.lock().clone()
    }

    /// Is that store from now on: everything that was asked of the one before has ended there, and
    /// is durable. Otherwise it stays what it was.
    pub(super) async fn exchange(&self, core: &Core, to: Arc<dyn Store>) -> Result<(), Error> {
        let before = self.now();
        self.switches.hold().await;
        before.clone().settled(core).await;
        let ended = flush(&*before.device(core)).await;
        if ended.is_ok() {
            *self.lock() = to.clone();
        }
        self.switches.let_go(ended.is_ok().then(|| maker(&to))).await;
        ended
    }
}

async fn flush(device: &dyn Device) -> Result<(), Error> {
    match device.geometry().read_only {
        true => Ok(()),
        false => device.io(&Request::flush()).await.map(drop),
    }
}

fn maker(store: &Arc<dyn Store>) -> Make {
    let store = store.clone();
    Arc::new(move |core| store.clone().device(core))
}

impl Store for Swap {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        self.switches.device(core)
    }

    fn size(&self) -> u64 {
        self.now().size()
    }

    fn resize<'a>(self: Arc<Self>, core: &'a Core, size: u64) -> Boxed<'a, Result<(), Error>> {
        self.now().resize(core, size)
    }
}
