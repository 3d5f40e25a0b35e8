//! LUs of a pool on simulated disks: the suite of every device, and a load whose every block is
//! known, over processes that are killed and disks that lose power.

mod brings;
mod cost;
mod crashes;
mod deaths;
mod doubts;
mod durable;
mod failures;
pub(in crate::pool) mod families;
mod forces;
mod groups;
mod members;
mod memory;
mod missed;
mod pool_forces;
mod regions;
mod resizes;
mod rooms;
mod scrub;
mod split_offs;
mod splits;
mod sums;
mod thicks;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::conformance::{self, Bench, Boxed, Job, Report, Subject};
use block::{Asked, Buffer, Device, Geometry, Op, Outcome, Request, Watch};
use rt::sim::{Disk, Host, Options, World};
use rt::{Core, File, FileHandle, OpenOptions, Remote};

use super::super::disks::Backing;
use super::super::home::{NewDisk, NewPool, Pool, PoolError};
use super::super::owner::LayerId;
use super::super::places::State;
use super::super::root::{About, Base, Source};
use super::super::shape::Shape;
use super::*;

const POOL: [u8; 16] = [1; 16];
const LU: [u8; 16] = [2; 16];
const BASE: LayerId = [3; 16];
const DISK_BYTES: u64 = 256 << 20;

/// A disk of a simulated machine as it is.
struct Plain {
    file: File,
    size: u64,
    watch: Watch,
}

impl Device for Plain {
    fn geometry(&self) -> Geometry {
        Geometry::plain(self.size, 512)
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.geometry().check(request) {
            return asked.now(Err(error));
        }
        match request.op {
            Op::Read => self.file.read(request.offset, &request.data, asked.later()),
            Op::Write { fua, .. } => {
                self.file.write(request.offset, &request.data, fua, asked.later());
            }
            _ => self.file.sync(asked.later()),
        }
        None
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

pub(super) struct OnFile {
    handle: FileHandle,
    name: String,
    size: u64,
}

impl Backing for OnFile {
    fn device(&self, core: &Core) -> Rc<dyn Device> {
        let (file, size) = (self.handle.on(core), self.size);
        Rc::new(Plain { file, size, watch: Watch::new() })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Opens a disk. It waits for what a process that was killed still has in the kernel.
pub(super) async fn backing(core: &Core, path: &Path, direct: bool) -> Arc<dyn Backing> {
    let (name, path) = (path.display().to_string(), path.to_owned());
    let opened = core.blocking(move || {
        let options = OpenOptions { direct, ..OpenOptions::write() };
        let handle = FileHandle::open(&path, options)?;
        handle.lock(0..1, true)?;
        let size = handle.info()?.size;
        std::io::Result::Ok((handle, size))
    });
    let (handle, size) = opened.await.expect("a worker").expect("a disk");
    Arc::new(OnFile { handle, name, size })
}

pub(in crate::pool) fn new_pool() -> NewPool {
    let shape = Shape::new(4 << 20, 64 << 10).unwrap();
    NewPool { id: POOL, name: "pool".to_owned(), shape }
}

pub(in crate::pool) fn new_pool_with_sums() -> NewPool {
    let new = new_pool();
    NewPool { shape: new.shape.with_sums(), ..new }
}

pub(in crate::pool) fn about(size: u64, block_size: u32) -> About {
    About { name: "disk".to_owned(), size, block_size, thick: false, base: None, source: None }
}

/// An LU of a pool on one disk.
async fn new_lu(core: &Core, (path, new): (&str, NewPool), size: u64) -> (Rc<Pool>, Arc<Lu>) {
    let disks = vec![(backing(core, Path::new(path), true).await, [9; 16])];
    let pool = Pool::format(core, new, disks).await.unwrap();
    let lu = first_lu(core, &pool, size).await;
    (pool, lu)
}

/// The first LU of a pool.
async fn first_lu(core: &Core, pool: &Rc<Pool>, size: u64) -> Arc<Lu> {
    let new = NewLu { id: LU, layer: BASE, about: about(size, 512) };
    Lu::open(core, pool.create_lu(new).await.unwrap()).await.unwrap()
}

/// Empty disks of a host.
fn attached<const N: usize>(world: &World, host: &Host, paths: [&str; N], bytes: u64) -> [Disk; N] {
    paths.map(|path| {
        let disk = world.disk(bytes);
        disk.attach(host, path);
        disk
    })
}

/// The host's process is killed, or it loses power and its disks with it.
fn crash(world: &World, host: &Host, disks: &[Disk], power: bool) {
    match power {
        true => {
            host.lose_power();
            world.run_for(Duration::from_micros(1));
            disks.iter().for_each(Disk::lose_power);
        }
        false => host.kill(),
    }
    world.run_for(Duration::from_micros(1));
}

struct PoolBench {
    world: Rc<World>,
    host: Host,
    core: Core,
    other: Remote,
    next: Cell<u32>,
    /// What the disk writes in one step: an LU's block is not more than that.
    block_size: [u32; 1],
}

impl Bench for PoolBench {
    fn make(&self, shape: conformance::Shape) -> Boxed<'_, Option<Box<dyn Subject>>> {
        Box::pin(async move {
            let conformance::Shape { size, block_size, read_only } = shape;
            if read_only || !size.is_multiple_of(BLOCK_BYTES) {
                return None;
            }
            let path = PathBuf::from(format!("/dev/{}", self.next.replace(self.next.get() + 1)));
            let disk = self.world.disk(DISK_BYTES);
            disk.set_unit(self.block_size[0]);
            disk.attach(&self.host, path.clone());
            let backing = backing(&self.core, &path, false).await;
            let pool = Pool::format(&self.core, new_pool(), vec![(backing.clone(), [9; 16])]);
            let about = about(size, block_size);
            let seat = pool.await.unwrap().create_lu(NewLu { id: LU, layer: BASE, about }).await;
            let lu = Lu::open(&self.core, seat.unwrap()).await.unwrap();
            let device = RefCell::new(lu.device(&self.core));
            let (core, other, lu) = (self.core.clone(), self.other.clone(), RefCell::new(lu));
            Some(Box::new(PoolLu { lu, device, core, other, disk, backing }) as Box<dyn Subject>)
        })
    }

    fn pause(&self) -> Boxed<'_, ()> {
        Box::pin(self.core.sleep(Duration::from_millis(1)))
    }

    fn block_sizes(&self) -> &[u32] {
        &self.block_size
    }
}

struct PoolLu {
    lu: RefCell<Arc<Lu>>,
    device: RefCell<Rc<dyn Device>>,
    core: Core,
    other: Remote,
    disk: Disk,
    backing: Arc<dyn Backing>,
}

impl Subject for PoolLu {
    fn device(&self) -> Rc<dyn Device> {
        self.device.borrow().clone()
    }

    fn elsewhere(&self, job: Job) -> Option<Boxed<'static, ()>> {
        let lu = self.lu.borrow().clone();
        let reply = self.other.call(move |core| async move { job(lu.device(&core)).await });
        Some(Box::pin(async { reply.await.expect("the other core goes on") }))
    }

    fn power_cut(&self) -> Option<Boxed<'_, ()>> {
        Some(Box::pin(async {
            self.disk.lose_power();
            let pool = Pool::open(&self.core, vec![self.backing.clone()]).await.unwrap();
            let lu = Lu::open(&self.core, pool.seat(LU).unwrap()).await.unwrap();
            self.device.replace(lu.device(&self.core));
            self.lu.replace(lu);
        }))
    }
}

fn suite(seed: u64, block_size: u32) -> Report {
    let world = Rc::new(World::new(seed, Options::swarm(seed)));
    let host = world.host("host");
    let (core, other) = (host.core(), host.core().remote());
    let inside = world.clone();
    let report = world.block_on(&core, |core| async move {
        let (next, block_size) = (Cell::new(0), [block_size]);
        conformance::run(&PoolBench { world: inside, host, core, other, next, block_size }).await
    });
    report.expect("the suite ends")
}

#[test]
fn lus_of_a_pool_conform() {
    let skipped = ["read_only", "copy", "resize", "resize_elsewhere", "resize_under_load"];
    for (seed, block_size) in [(0, 512), (1, 4096), (2, 512)] {
        suite(seed, block_size).expect(&skipped);
    }
}

#[test]
fn what_was_closed_is_offline_and_opens_again() {
    let world = World::new(3, Options::swarm(3));
    let (host, disk) = (world.host("host"), world.disk(DISK_BYTES));
    disk.attach(&host, "/dev/disk");
    let (core, other) = (host.core(), host.core().remote());
    let done = world.block_on(&core, |core| async move {
        let (pool, lu) = new_lu(&core, ("/dev/disk", new_pool()), 1 << 30).await;
        let (device, data) = (lu.device(&core), Buffer::from_bytes(&[7; 4096]));
        device.io(&Request::write(8192, data.sgl())).await.unwrap();
        assert!(matches!(pool.revoke(LU).await, Err(PoolError::Open(LU))));
        let elsewhere = lu.clone();
        let refused = other.call(move |core| async move {
            let device = elsewhere.device(&core);
            let read = || {
                let device = device.clone();
                async move {
                    let into = Buffer::zeroed(4096);
                    device.io(&Request::read(8192, into.sgl())).await.map_err(|it| it.kind())
                }
            };
            // By way of the owner, then straight, then not at all.
            let [slow, fast] = [read().await, read().await];
            elsewhere.close().await;
            let read = [slow, fast, read().await];
            (read, elsewhere.device(&core).io(&Request::flush()).await.map_err(|it| it.kind()))
        });
        let (read, flushed) = refused.await.unwrap();
        assert_eq!(read, [Ok(4096), Ok(4096), Err(ErrorKind::Offline)]);
        assert_eq!(flushed, Err(ErrorKind::Offline));
        for request in [Request::write(0, data.sgl()), Request::read(8192, data.sgl())] {
            let refused = device.io(&request).await.map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::Offline));
        }
        let snapshot = lu.snapshot([5; 16]).await.map_err(|error| error.kind());
        assert_eq!(snapshot, Err(ErrorKind::Offline));
        // Also while the old one is still known.
        let again = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        let into = Buffer::zeroed(4096);
        again.device(&core).io(&Request::read(8192, into.sgl())).await.unwrap();
        assert_eq!(into.to_vec(), [7; 4096]);
        again.close().await;
        pool.revoke(LU).await.unwrap();
        let (all, free) = pool.slabs();
        assert_eq!(all, free);
    });
    done.expect("it ends");
}

#[test]
fn an_lu_of_a_full_pool_closes_and_opens() {
    let world = World::new(4, Options::default());
    let (host, disk) = (world.host("host"), world.disk(16 << 20));
    disk.attach(&host, "/dev/disk");
    let core = host.core();
    let done = world.block_on(&core, |core| async move {
        let (pool, lu) = new_lu(&core, ("/dev/disk", new_pool()), 1 << 30).await;
        let (device, data) = (lu.device(&core), Buffer::from_bytes(&[7; 4096]));
        let mut at = 0;
        while device.io(&Request::write(at, data.sgl())).await.is_ok() {
            at += 64 << 10;
        }
        lu.close().await;
        let again = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        let into = Buffer::zeroed(4096);
        again.device(&core).io(&Request::read(at - (64 << 10), into.sgl())).await.unwrap();
        assert_eq!(into.to_vec(), [7; 4096]);
    });
    done.expect("it ends");
}
