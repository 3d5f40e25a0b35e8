//! Files and disks of simulated machines under the suite: other timing with every seed, and power
//! that can be cut.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::conformance::{Bench, Job, Report, Shape, Subject, run};
use block::{Device, Error};
use rt::sim::{Disk, Host, Options as WorldOptions, World};
use rt::{Core, Remote};

use super::make_image;
use crate::file::Options;
use crate::{Boxed, FileStore, Store};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A file in the machine's own filesystem.
    File,
    /// A disk that writes in blocks of so many bytes, and can lose its power.
    Disk { logical_block: u32 },
}

struct WorldBench {
    world: Rc<World>,
    host: Host,
    core: Core,
    other: Remote,
    kind: Kind,
    block_sizes: &'static [u32],
    next: Cell<u32>,
}

impl Bench for WorldBench {
    fn make(&self, shape: Shape) -> Boxed<'_, Option<Box<dyn Subject>>> {
        Box::pin(async move {
            let Shape { size, block_size, read_only } = shape;
            let path = PathBuf::from(format!("/images/{}", self.next.replace(self.next.get() + 1)));
            let mut disk = None;
            match self.kind {
                Kind::Disk { logical_block } => {
                    let new = self.world.disk(size);
                    new.set_logical_block(logical_block);
                    new.set_unit(logical_block);
                    new.attach(&self.host, path.clone());
                    disk = Some(new);
                }
                Kind::File => {
                    let path = path.clone();
                    let made = self.core.blocking(move || make_image(&path, size));
                    made.await.expect("a worker");
                }
            }
            let options = Options { block_size, read_only, ..Options::default() };
            let open = FileStore::open(&self.core, &path, options, || panic!("nobody has it"));
            let store = open.await.expect("an image");
            let device = store.clone().device(&self.core);
            let (core, other) = (self.core.clone(), self.other.clone());
            Some(Box::new(Simulated { store, device, core, other, disk }) as Box<dyn Subject>)
        })
    }

    fn pause(&self) -> Boxed<'_, ()> {
        Box::pin(self.core.sleep(Duration::from_millis(1)))
    }

    fn block_sizes(&self) -> &[u32] {
        self.block_sizes
    }
}

struct Simulated {
    store: Arc<FileStore>,
    device: Rc<dyn Device>,
    core: Core,
    other: Remote,
    disk: Option<Disk>,
}

impl Subject for Simulated {
    fn device(&self) -> Rc<dyn Device> {
        self.device.clone()
    }

    fn elsewhere(&self, job: Job) -> Option<Boxed<'static, ()>> {
        Some(super::elsewhere(&self.other, self.store.clone(), job))
    }

    fn resize(&self, size: u64) -> Option<Boxed<'_, Result<(), Error>>> {
        self.disk.is_none().then(|| self.store.clone().resize(&self.core, size))
    }

    fn power_cut(&self) -> Option<Boxed<'_, ()>> {
        let disk = self.disk.as_ref()?;
        Some(Box::pin(async { disk.lose_power() }))
    }
}

fn suite(seed: u64, kind: Kind, block_sizes: &'static [u32]) -> Report {
    let world = Rc::new(World::new(seed, WorldOptions::swarm(seed)));
    let host = world.host("host");
    let (core, other) = (host.core(), host.core().remote());
    let inside = world.clone();
    let report = world.block_on(&core, |core| async move {
        let next = Cell::new(0);
        run(&WorldBench { world: inside, host, core, other, kind, block_sizes, next }).await
    });
    report.expect("the suite ends")
}

/// Worlds that the suite is run in: each takes a second or two.
const SEEDS: u64 = 2;

#[test]
fn simulated_files_conform() {
    for seed in 0..SEEDS {
        suite(seed, Kind::File, &[512]).expect(&["copy", "power_cut"]);
    }
}

#[test]
fn simulated_disks_conform_and_survive_power_cuts() {
    for seed in 0..SEEDS {
        let kind = Kind::Disk { logical_block: 512 };
        suite(seed, kind, &[512]).expect(&FIXED_SIZE);
    }
}

/// Blocks of the LU are smaller than what the disk can write.
#[test]
fn simulated_disks_of_larger_blocks_conform_and_survive_power_cuts() {
    for seed in 0..SEEDS {
        let kind = Kind::Disk { logical_block: 4096 };
        suite(seed, kind, &[512]).expect(&FIXED_SIZE);
    }
}

const FIXED_SIZE: [&str; 4] = ["copy", "resize", "resize_elsewhere", "resize_under_load"];
