//! An LU of a pool in the small server.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use block::{Device, Error};
use rt::{Core, Placed, Remote};
use store::{Boxed, Store};
use volume::pool::home::Pool;
use volume::pool::lu::Lu;
use volume::pool::shape::Shape;

use crate::Result;
use crate::site::{add, fill, format};

struct PoolStore {
    lu: Arc<Lu>,
    /// As long as the LU is used.
    _pool: Placed<Pool>,
}

/// Makes the file a pool, and an LU of this size in it that is written and sealed.
pub fn open(core: &Remote, path: &Path, size: u64) -> Result<Arc<dyn Store>> {
    let path = path.to_owned();
    let made = core.call(move |core| async move {
        let made = make(&core, &path, size).await;
        made.map_err(|error| error.to_string())
    });
    Ok(made.wait().ok_or("the core has ended")??)
}

async fn make(core: &Core, path: &Path, size: u64) -> Result<Arc<PoolStore>> {
    let pool = format(core, path, Shape::default()).await?;
    let lu = add(core, &pool, size).await?;
    fill(&*lu.device(core), size).await?;
    Ok(Arc::new(PoolStore { lu, _pool: Placed::new(core, pool) }))
}

impl Store for PoolStore {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        self.lu.device(core)
    }

    fn size(&self) -> u64 {
        self.lu.size()
    }

    fn resize<'a>(
        self: Arc<Self>,
        core: &'a Core,
        size: u64,
    ) -> Boxed<'a, std::result::Result<(), Error>> {
        // A task of its own: it must not stop half-way when nobody waits any more.
        Box::pin(core.spawn_task(async move { Ok(self.lu.resize(size).await?) }))
    }
}
