//! Every store under the conformance suite, with its second handle on a core of its own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::conformance::{Bench, Job, Report, Shape, Subject, run};
use block::{Device, Error};
use rt::{Config, Core, Remote};

use super::{Boxed, MemoryStore, NullStore, Store};

type Make = Box<dyn Fn(Shape) -> Option<Arc<dyn Store>>>;

struct StoreBench {
    core: Core,
    other: Remote,
    make: Make,
}

impl Bench for StoreBench {
    fn make(&self, shape: Shape) -> Boxed<'_, Option<Box<dyn Subject>>> {
        let made = (self.make)(shape).map(|store| {
            let device = store.clone().device(&self.core);
            let (core, other) = (self.core.clone(), self.other.clone());
            Box::new(StoreSubject { store, device, core, other }) as Box<dyn Subject>
        });
        Box::pin(async { made })
    }

    fn pause(&self) -> Boxed<'_, ()> {
        Box::pin(self.core.sleep(Duration::from_millis(1)))
    }
}

struct StoreSubject {
    store: Arc<dyn Store>,
    device: Rc<dyn Device>,
    core: Core,
    other: Remote,
}

impl Subject for StoreSubject {
    fn device(&self) -> Rc<dyn Device> {
        self.device.clone()
    }

    fn elsewhere(&self, job: Job) -> Option<Boxed<'static, ()>> {
        let store = self.store.clone();
        let reply = self.other.call(move |core| async move { job(store.device(&core)).await });
        Some(Box::pin(async { reply.await.expect("the other core goes on") }))
    }

    fn resize(&self, size: u64) -> Option<Boxed<'_, Result<(), Error>>> {
        Some(self.store.clone().resize(&self.core, size))
    }
}

/// Runs the suite on a core of this thread, with another one beside it.
pub(crate) fn conformance(make: impl Fn(Shape) -> Option<Arc<dyn Store>> + 'static) -> Report {
    let other = rt::os::start(Config::new("other")).expect("a core");
    let report = Core::block_on(&Config::new("suite"), |core| async move {
        let bench = StoreBench { core, other, make: Box::new(make) };
        let report = run(&bench).await;
        bench.other.send(Core::stop);
        report
    });
    report.expect("a core")
}

#[test]
fn memory_conforms() {
    let report = conformance(|shape| {
        let writable = !shape.read_only;
        writable.then(|| MemoryStore::new(shape.size, shape.block_size).unwrap() as Arc<dyn Store>)
    });
    report.expect(&["read_only", "power_cut"]);
}

#[test]
fn null_promises_nothing_more_than_it_keeps() {
    let report = conformance(|shape| {
        let writable = !shape.read_only;
        writable.then(|| NullStore::new(shape.size, shape.block_size).unwrap() as Arc<dyn Store>)
    });
    assert!(report.failed.is_empty(), "{:#?}", report.failed);
    let passed = ["geometry", "range_edges", "alignment", "zero_length", "resize_elsewhere"];
    for test in passed {
        assert!(report.passed.contains(&test), "{test}");
    }
}
