//! The state of LUs over the end of a process, and of the machine.

use std::sync::atomic::{AtomicBool, Ordering};

use block::{Buffer, Op, Request};
use model::Size;
use model::stats::latency_bucket;
use rt::{Config, Spin};
use store::{MemoryStore, Store};
use target::lun::operation::{Job, OperationKind};
use target::lun::reservation::{Action, Kind};
use target::lun::{Initiator, NexusId, OperationChange, PortId, meter};

use super::*;
use crate::engine::Reporter;
use crate::records::{Record, Records};

const SIZE: u64 = 1 << 20;
const LU: Uuid = Uuid::from_u128(7);

/// Records in memory, of which writing can fail.
#[derive(Default)]
struct Paper {
    kept: Mutex<BTreeMap<Record, Vec<u8>>>,
    is_full: AtomicBool,
}

impl Records for Paper {
    fn read(&self, of: Record) -> Result<Option<Vec<u8>>, ApiError> {
        Ok(self.kept.lock().unwrap().get(&of).cloned())
    }

    fn write(&self, of: Record, value: Vec<u8>) -> Result<(), ApiError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(ApiError::failed("no space is left"));
        }
        self.kept.lock().unwrap().insert(of, value);
        Ok(())
    }
}

/// What a machine keeps when a process ends.
struct Disk {
    paper: Arc<Paper>,
    store: Arc<MemoryStore>,
}

impl Disk {
    fn new() -> Self {
        Self { paper: Arc::default(), store: MemoryStore::new(SIZE, 512).unwrap() }
    }

    fn process(&self, boot: &str) -> Process {
        self.process_with(boot, Cache::Writeback, Arc::new(|_| {}))
    }

    fn process_with(&self, boot: &str, cache: Cache, report: Reporter) -> Process {
        let context = Context {
            node: Uuid::nil(),
            lus: "/nowhere".into(),
            pools: "/nowhere".into(),
            media: "/nowhere".into(),
            cores: Vec::new(),
            map_memory: Size::mib(1),
            iscsi: Vec::new(),
            report,
            records: self.paper.clone(),
            boot: boot.to_owned(),
        };
        let start = |name: &str| {
            rt::os::start(Config { spin: Spin::default(), ..Config::new(name) }).unwrap()
        };
        let cores = vec![start("one"), start("other")];
        let units = Arc::new(Units::new(&context, &cores));
        let store = self.store.clone();
        let spec = Spec {
            uuid: LU,
            name: "web1".to_owned(),
            serial: "serial".to_owned(),
            modes: modes(cache),
            medium: Medium::LOADED,
            grows: true,
            open: Arc::new(move |core| store.clone().device(core)),
            failed: None,
        };
        let process = Process { cores, units };
        process.run(async move |units| units.own(spec).await).unwrap();
        process
    }
}

struct Process {
    cores: Vec<Remote>,
    units: Arc<Units>,
}

impl Process {
    fn run<T: Send + 'static>(&self, f: impl AsyncFnOnce(Arc<Units>) -> T + Send + 'static) -> T {
        let units = self.units.clone();
        self.cores[0].call(move |_| async move { f(units).await }).wait().unwrap()
    }

    fn change(&self, change: Change) -> Result<(), ApiError> {
        self.run(async move |units| units.change(LU, change).await)
    }

    fn reserved(&self) -> Reservations {
        self.run(async |units| units.reservations().await).remove(&LU).unwrap()
    }

    /// Whether writes may be answered early, as each core sees it.
    fn write_back(&self) -> Vec<bool> {
        let seen = self.run(async |units| {
            let view = async |handles: Rc<Handles>| handles.get(LU).unwrap().view();
            units.handles.call(view).await
        });
        seen.into_iter().map(|view| view.unwrap().modes.caching.write_back).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for core in &self.cores {
            core.send(Core::stop);
        }
    }
}

/// An initiator port over iSCSI.
fn iscsi(name: &str) -> NexusId {
    let name = [b"\x45\0\0\x10", name.as_bytes()].concat();
    NexusId::new(Initiator::new(&name).unwrap(), PortId(ISCSI_PORT))
}

fn register(nexus: &NexusId, through_power_loss: bool) -> Change {
    let action = Action::RegisterAnyway { new_key: 5, all_ports: false, through_power_loss };
    Change::Reserve { nexus: nexus.clone(), action }
}

#[test]
fn what_was_counted_on_all_cores_is_added_up() {
    let process = Disk::new().process("monday");
    let stats = process.run(async |units| {
        let use_it = async |handles: Rc<Handles>| {
            let handle = handles.get(LU).unwrap();
            handle.meter().count(Op::Read, 512, Ok(()));
            handle.meter().took(meter::Kind::Read, 5_000, latency_bucket(5_000));
        };
        units.handles.call(use_it).await;
        units.stats(LU).await
    });
    let read = &stats[OpKind::Read as usize];
    assert_eq!((read.requests, read.bytes, read.latency_sum_ns), (2, 1024, 10_000));
    assert_eq!(read.latency_counts[latency_bucket(5_000)], 2);
    assert_eq!(stats[OpKind::Write as usize], OpStats::new(OpKind::Write));
}

#[test]
fn reservations_outlive_the_process() {
    let (disk, nexus) = (Disk::new(), iscsi("iqn.a,i,0x1"));
    let first = disk.process("monday");
    first.change(register(&nexus, false)).unwrap();
    let action = Action::Reserve { key: 5, kind: Kind::WriteExclusive };
    first.change(Change::Reserve { nexus: nexus.clone(), action }).unwrap();
    let before = first.reserved();
    assert!(before.held.is_some());
    drop(first);
    assert_eq!(disk.process("monday").reserved(), before);
    assert!(
        disk.process("tuesday").reserved().is_empty(),
        "power was lost, and they without APTPL"
    );

    let second = disk.process("tuesday");
    second.change(register(&nexus, true)).unwrap();
    drop(second);
    assert_eq!(disk.process("wednesday").reserved().registrants.len(), 1);
}

#[test]
fn what_a_session_held_ends_with_its_process() {
    let (disk, nexus) = (Disk::new(), iscsi("iqn.a,i,0x1"));
    let guest = NexusId::new(Initiator::new(b"\x0aguest").unwrap(), PortId(9));
    let first = disk.process("monday");
    let action = Action::ReserveUnit;
    first.change(Change::Reserve { nexus: nexus.clone(), action }).unwrap();
    for nexus in [nexus, guest] {
        first.change(Change::Prevent { nexus, prevent: true }).unwrap();
    }
    assert!(first.reserved().unit_holder.is_some());
    drop(first);
    let second = disk.process("monday");
    assert_eq!(second.reserved().unit_holder, None);
    let preventing = second.run(async |units| {
        let view = async |handles: Rc<Handles>| handles.get(LU).unwrap().view();
        units.handles.call(view).await.remove(0).unwrap().preventing.len()
    });
    assert_eq!(preventing, 1, "the guest does not notice a new process, and still holds its lock");
}

#[test]
fn the_operators_new_setting_wins() {
    let disk = Disk::new();
    let quiet: Reporter = Arc::new(|_| {});
    let first = disk.process_with("monday", Cache::Writeback, quiet.clone());
    let caching = Some(Caching::default());
    let chosen = ModeChange { caching, control: None, save: true };
    first.change(Change::Mode { nexus: Some(iscsi("iqn.a,i,0x1")), modes: chosen }).unwrap();
    assert_eq!(first.write_back(), [false, false]);
    drop(first);
    let second = disk.process_with("monday", Cache::Writeback, quiet.clone());
    assert_eq!(second.write_back(), [false, false], "what the client has chosen stays");
    second.run(async |units| units.set_cache(LU, Cache::Writethrough).await).unwrap();
    second.run(async |units| units.set_cache(LU, Cache::Writeback).await).unwrap();
    assert_eq!(second.write_back(), [true, true]);
    drop(second);
    let third = disk.process_with("monday", Cache::Writethrough, quiet);
    assert_eq!(third.write_back(), [false, false], "changed while nobody ran");
}

#[test]
fn what_cannot_be_kept_is_refused_and_told() {
    let (disk, nexus) = (Disk::new(), iscsi("iqn.a,i,0x1"));
    let (sender, reports) = std::sync::mpsc::channel();
    let report: Reporter = Arc::new(move |report| drop(sender.send(report)));
    let process = disk.process_with("monday", Cache::Writeback, report);
    disk.paper.is_full.store(true, Ordering::Relaxed);
    process.change(register(&nexus, true)).unwrap_err();
    assert!(process.reserved().is_empty());
    let message = reports.recv().unwrap().message;
    assert!(message.contains("web1") && message.contains("no space is left"), "{message}");
    disk.paper.is_full.store(false, Ordering::Relaxed);
    process.change(register(&nexus, true)).unwrap();
    assert_eq!(process.reserved().registrants.len(), 1);
}

#[test]
fn an_erasure_under_way_is_taken_up_again() {
    let disk = Disk::new();
    let first = disk.process("monday");
    let store = disk.store.clone();
    let written = first.cores[0].call(move |core| async move {
        let data = Buffer::from_bytes(&[7; 4096]);
        let op = Op::Write { fua: false, atomic: false };
        let request = Request { op, offset: 0, len: 4096, data: data.sgl() };
        (&*store.device(&core) as &dyn Device).io(&request).await
    });
    written.wait().unwrap().unwrap();
    // Begun, and killed before any of it was done.
    let (kind, job) = (OperationKind::Sanitize, Arc::new(Job::Erase));
    let begin = OperationChange::Begin { kind, job, may_exit: false };
    first.change(Change::Operation(begin)).unwrap();
    drop(first);

    let second = disk.process("tuesday");
    let store = disk.store.clone();
    let read = second.run(async move |units| {
        let handles = units.handles.each()[0].call(async |handles| {
            let handle = handles.get(LU).unwrap();
            let core = handles.core().clone();
            while handle.view().operation.is_some() {
                core.yield_now().await;
            }
            let into = Buffer::from_bytes(&[1; 4096]);
            let request = Request { op: Op::Read, offset: 0, len: 4096, data: into.sgl() };
            (&*store.device(&core) as &dyn Device).io(&request).await.unwrap();
            let mut bytes = vec![1; 4096];
            into.sgl().copy_out(0, &mut bytes);
            bytes
        });
        handles.await
    });
    assert!(read.unwrap().iter().all(|&byte| byte == 0));
}
