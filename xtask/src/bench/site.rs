//! What the benchmarks of pools stand on: a pool on one file, and LUs in it.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Device, Request};
use rt::{Config, Core};
use store::file::Options;
use store::{FileStore, Store};
use volume::pool::disks::Backing;
use volume::pool::home::{NewPool, Pool};
use volume::pool::lu::{Lu, NewLu};
use volume::pool::root::About;
use volume::pool::shape::Shape;

use crate::Result;

pub const BLOCK: u64 = 4096;
pub const DEPTH: u64 = 32;
pub const LU_BYTES: u64 = 1 << 40;

/// A file as a disk of a pool.
pub struct OnFile(pub Arc<FileStore>);

impl Backing for OnFile {
    fn device(&self, core: &Core) -> Rc<dyn Device> {
        self.0.clone().device(core)
    }

    fn name(&self) -> &str {
        "the file of the pool"
    }
}

pub fn on_core<T, F>(f: impl FnOnce(Core) -> F) -> Result<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    Core::block_on(&Config::new("pool"), f)?
}

pub async fn store(core: &Core, path: &Path, size: Option<u64>) -> Result<Arc<FileStore>> {
    let options = Options { size, block_size: 512, ..Options::default() };
    Ok(FileStore::open(core, path, options, || {}).await?)
}

pub async fn backing(core: &Core, path: &Path) -> Result<Arc<dyn Backing>> {
    Ok(Arc::new(OnFile(store(core, path, None).await?)))
}

/// Makes the file a pool.
pub async fn format(core: &Core, path: &Path, shape: Shape) -> Result<Rc<Pool>> {
    let new = NewPool { id: [1; 16], name: "bench".to_owned(), shape };
    Ok(Pool::format(core, new, vec![(backing(core, path).await?, [2; 16])]).await?)
}

/// Another LU, which nothing that was in the file before belongs to.
pub async fn add(core: &Core, pool: &Rc<Pool>, size: u64) -> Result<Arc<Lu>> {
    let id = (u128::from(core.random()) << 64 | u128::from(core.random())).to_le_bytes();
    add_as(core, pool, id, size).await
}

pub async fn add_as(core: &Core, pool: &Rc<Pool>, id: [u8; 16], size: u64) -> Result<Arc<Lu>> {
    let name = "lu".to_owned();
    let about = About { name, size, block_size: 512, base: None, thick: false, source: None };
    let seat = pool.create_lu(NewLu { id, layer: [3; 16], about }).await?;
    Ok(Lu::open(core, seat).await?)
}

/// Writes what steady requests go to, and seals it.
pub async fn fill(device: &dyn Device, bytes: u64) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let data = Buffer::from_bytes(&vec![0x5a; PIECE as usize]);
    for at in (0..bytes).step_by(PIECE as usize) {
        device.io(&Request::write(at, data.sgl())).await?;
    }
    // One makes it durable, the next ones let marks follow.
    for _ in 0..3 {
        device.io(&Request::flush()).await?;
    }
    Ok(())
}

/// Does something so many times, [`DEPTH`] at a time.
pub async fn for_each<F>(
    core: &Core,
    count: u64,
    work: impl Fn(u64) -> F + Clone + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    let next = Rc::new(Cell::new(0));
    let worker = |_| {
        let (next, work) = (next.clone(), work.clone());
        core.spawn_task(async move {
            while next.get() < count {
                work(next.replace(next.get() + 1)).await?;
            }
            Result::<()>::Ok(())
        })
    };
    let workers: Vec<_> = (0..DEPTH).map(worker).collect();
    for worker in workers {
        worker.await?;
    }
    Ok(())
}
