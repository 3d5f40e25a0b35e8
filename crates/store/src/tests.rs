//! Every store under the conformance suite, with its second handle on a core of its own.

mod simulated;

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::conformance::{Bench, Job, Report, Shape, Subject, run};
use block::{Device, Error};
use rt::{Config, Core, FileHandle, OpenOptions, Remote};

use super::{Boxed, MemoryStore, NullStore, Store};

type Made = Boxed<'static, Option<Arc<dyn Store>>>;

struct StoreBench {
    core: Core,
    other: Remote,
    make: Box<dyn Fn(Core, Shape) -> Made>,
    resizes: bool,
}

impl Bench for StoreBench {
    fn make(&self, shape: Shape) -> Boxed<'_, Option<Box<dyn Subject>>> {
        let made = (self.make)(self.core.clone(), shape);
        Box::pin(async move {
            let store = made.await?;
            let device = store.clone().device(&self.core);
            let (core, other, resizes) = (self.core.clone(), self.other.clone(), self.resizes);
            let subject = StoreSubject { store, device, core, other, resizes };
            Some(Box::new(subject) as Box<dyn Subject>)
        })
    }

    fn pause(&self) -> Boxed<'_, ()> {
        Box::pin(self.core.sleep(Duration::from_millis(1)))
    }
}

/// Does a job with a handle of the store on another core.
fn elsewhere(other: &Remote, store: Arc<dyn Store>, job: Job) -> Boxed<'static, ()> {
    let reply = other.call(move |core| async move { job(store.device(&core)).await });
    Box::pin(async { reply.await.expect("the other core goes on") })
}

struct StoreSubject {
    store: Arc<dyn Store>,
    device: Rc<dyn Device>,
    core: Core,
    other: Remote,
    resizes: bool,
}

impl Subject for StoreSubject {
    fn device(&self) -> Rc<dyn Device> {
        self.device.clone()
    }

    fn elsewhere(&self, job: Job) -> Option<Boxed<'static, ()>> {
        Some(elsewhere(&self.other, self.store.clone(), job))
    }

    fn resize(&self, size: u64) -> Option<Boxed<'_, Result<(), Error>>> {
        self.resizes.then(|| self.store.clone().resize(&self.core, size))
    }
}

/// Makes a sparse image; blocks the calling thread.
pub(crate) fn make_image(path: &Path, size: u64) {
    let options = OpenOptions { create_new: true, ..OpenOptions::write() };
    FileHandle::open(path, options).and_then(|file| file.set_len(size)).expect("an image");
}

/// Runs the suite on a core of this thread, with another one beside it.
pub(crate) fn conformance(resizes: bool, make: impl Fn(Core, Shape) -> Made + 'static) -> Report {
    let other = rt::os::start(Config::new("other")).expect("a core");
    let report = Core::block_on(&Config::new("suite"), |core| async move {
        let bench = StoreBench { core, other, make: Box::new(make), resizes };
        let report = run(&bench).await;
        bench.other.send(Core::stop);
        report
    });
    report.expect("a core")
}

#[test]
fn memory_conforms() {
    let report = conformance(true, |_, Shape { size, block_size, read_only }| {
        let made = move || MemoryStore::new(size, block_size).unwrap() as Arc<dyn Store>;
        Box::pin(async move { (!read_only).then(made) })
    });
    report.expect(&["read_only", "power_cut"]);
}

#[test]
fn null_promises_nothing_more_than_it_keeps() {
    let report = conformance(true, |_, Shape { size, block_size, read_only }| {
        let made = move || NullStore::new(size, block_size).unwrap() as Arc<dyn Store>;
        Box::pin(async move { (!read_only).then(made) })
    });
    assert!(report.failed.is_empty(), "{:#?}", report.failed);
    let passed = ["geometry", "range_edges", "alignment", "zero_length", "resize_elsewhere"];
    for test in passed {
        assert!(report.passed.contains(&test), "{test}");
    }
}
