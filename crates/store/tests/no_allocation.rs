//! No request allocates once pools have grown to what the load needs: counted by the allocator of
//! this test's own program, on the core's own thread.

#![allow(clippy::unwrap_used)]

#[path = "../../../xtask/src/bench/allocator.rs"]
mod allocator;

use std::cell::Cell;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use block::{Asked, Buffer, Device, Op, Outcome, Request, SglBuf, Sink, Way};
use rt::sync::Notify;
use rt::{Config, Core};
use store::file::Options;
use store::{FileStore, MemoryStore, NullStore, Store};

const SIZE: u64 = 8 << 20;
const DEPTH: u64 = 16;
const ROUNDS: u64 = 200;

/// A block's memory as a client may give it.
fn lists() -> Vec<(&'static str, SglBuf)> {
    let buffer = Buffer::zeroed(64 << 10);
    vec![
        ("one part", buffer.scattered([0..4096, 0..0])),
        ("three parts", buffer.scattered([8192..9216, 4096..5120, 16_384..18_432])),
        ("odd parts", buffer.scattered([20_001..20_101, 30_003..33_999])),
    ]
}

/// Counts answers, and says when all have come.
struct Tally {
    way: Rc<Way>,
    left: Cell<u64>,
    all: Notify,
}

impl Tally {
    fn new() -> Rc<Self> {
        Rc::new_cyclic(|me: &Weak<Self>| Self {
            way: Way::to(me.clone() as Weak<dyn Sink>),
            left: Cell::new(0),
            all: Notify::new(),
        })
    }

    fn answered(&self, outcome: Outcome) {
        assert_eq!(outcome, Ok(4096));
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            self.all.notify();
        }
    }
}

impl Sink for Tally {
    fn complete(&self, _: u64, outcome: Outcome) {
        self.answered(outcome);
    }
}

/// Rounds of requests that are in flight together.
async fn load(device: &Rc<dyn Device>, op: Op, list: &SglBuf, tally: &Rc<Tally>, rounds: u64) {
    for round in 0..rounds {
        tally.left.set(DEPTH);
        for n in 0..DEPTH {
            let offset = (round * DEPTH + n) * 4096 % SIZE;
            let request = Request { op, ..Request::write(offset, list.sgl()) };
            if let Some(outcome) = device.begin(&request, Asked::by(&tally.way, n)) {
                tally.answered(outcome);
            }
        }
        tally.all.until(|| tally.left.get() == 0).await;
    }
}

async fn count(core: Core, store: Arc<dyn Store>, what: &str) {
    let (device, tally) = (store.device(&core), Tally::new());
    for (name, list) in lists() {
        for op in [Op::Write { fua: false, atomic: false }, Op::Read] {
            load(&device, op, &list, &tally, 40).await;
            let before = allocator::of_this_thread();
            load(&device, op, &list, &tally, ROUNDS).await;
            let count = allocator::of_this_thread() - before;
            assert_eq!(count, 0, "{what}, {name}, {}", op.name());
        }
    }
}

fn on_a_core<F: Future<Output = ()> + 'static>(f: impl FnOnce(Core) -> F) {
    Core::block_on(&Config::new("count"), f).unwrap();
}

#[test]
fn memory_and_null() {
    on_a_core(|core| async move {
        let memory = MemoryStore::new(SIZE, 512).unwrap();
        // Chunks are made when they are first written.
        let fill = Buffer::zeroed(1 << 20);
        for at in (0..SIZE).step_by(1 << 20) {
            let device = memory.clone().device(&core);
            device.io(&Request::write(at, fill.sgl())).await.unwrap();
        }
        count(core.clone(), memory, "memory").await;
        count(core.clone(), NullStore::new(SIZE, 512).unwrap(), "null").await;
    });
}

async fn count_file(core: Core, directory: &str, page_cache: bool) {
    let path = Path::new(directory).join(format!("viaduct-count-{:x}", core.random()));
    std::fs::write(&path, vec![1; SIZE as usize]).unwrap();
    let options = Options { page_cache, ..Options::default() };
    let store = FileStore::open(&core, &path, options, || {}).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    count(core, store, directory).await;
}

#[test]
fn files_direct_and_cached() {
    on_a_core(|core| async move {
        count_file(core.clone(), "/var/tmp", false).await;
        count_file(core.clone(), "/var/tmp", true).await;
        count_file(core, "/dev/shm", true).await;
    });
}
