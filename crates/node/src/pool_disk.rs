//! A disk of a pool: a file or a device, opened as those of LUs are. A node serves pools from such
//! disks, and they are looked at without one.

use std::rc::Rc;
use std::sync::Arc;

use block::Device;
use rt::Core;
use store::Store;
use volume::pool::disks::Backing;

pub struct PoolDisk {
    pub store: Arc<dyn Store>,
    /// Its path, as an operator knows it.
    pub name: String,
}

impl Backing for PoolDisk {
    fn device(&self, core: &Core) -> Rc<dyn Device> {
        self.store.clone().device(core)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
