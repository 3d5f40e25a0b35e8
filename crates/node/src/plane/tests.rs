//! The data plane by itself: real cores, no node around it.

use std::path::Path;
use std::sync::mpsc;

use block::ErrorKind;
use cluster::DeviceSpec;
use model::{Backing, BlockSize, Cache, Limits, MappingId, Size, Via};

use super::*;
use crate::engine::{Health, Reporter};
use crate::owner::Ownership;
use crate::records::{Record, Records};
use crate::socket::CLIENT_SOCKET_MODE;

fn start(lus: &Path, report: Reporter) -> Plane {
    let (lus, cores, iscsi) = (lus.to_owned(), Vec::new(), Vec::new());
    let records = Arc::new(Forgetful);
    let (node, boot) = (Uuid::nil(), String::new());
    let (media, pools) = (lus.clone(), lus.clone());
    let map_memory = Size::mib(1);
    let context =
        Context { node, lus, pools, media, cores, map_memory, iscsi, report, records, boot };
    Plane::start(context, Spin::default()).unwrap()
}

/// Keeps nothing.
struct Forgetful;

impl Records for Forgetful {
    fn read(&self, _: Record) -> Result<Option<Vec<u8>>, ApiError> {
        Ok(None)
    }

    fn write(&self, _: Record, _: Vec<u8>) -> Result<(), ApiError> {
        Ok(())
    }
}

fn wait_for<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> T {
    let (sender, answers) = mpsc::channel();
    begin(Done::new(move |answer| sender.send(answer).unwrap()));
    answers.recv().unwrap().unwrap()
}

fn device(backing: Backing, size: u64) -> DeviceSpec {
    DeviceSpec {
        uuid: Uuid::max(),
        name: "web1".parse().unwrap(),
        serial: "serial".to_owned(),
        size: Size(size),
        block_size: BlockSize::default(),
        cache: Cache::default(),
        limits: Limits::default(),
        read_only: false,
        removable: false,
        shareable: false,
        backing,
        pool: None,
        snapshots: BTreeMap::new(),
        thick: false,
        outdated: false,
        origin: None,
        migration: None,
    }
}

fn mapping(run: &Path, device: Uuid, slot: u16) -> (MappingSpec, SocketSpec) {
    let adapter = AdapterId { client: "vm1".parse().unwrap(), slot: slot.try_into().unwrap() };
    let (mode, ownership) = (CLIENT_SOCKET_MODE, Ownership::default());
    let socket = SocketSpec { path: socket::path_of(run, &adapter), mode, ownership };
    let (id, via) = (MappingId { adapter, lun: 0 }, Via::VhostUserBlk);
    let spec = MappingSpec { id, via, device, read_only: false, socket_owner: None, iscsi: None };
    (spec, socket)
}

/// The file below an LU is cut off under it, and comes back.
#[test]
fn the_health_of_a_real_store_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    let (sender, reports) = mpsc::channel();
    let plane = start(directory.path(), Arc::new(move |report| drop(sender.send(report))));
    let spec = device(Backing::Adopted { path: path.to_string_lossy().into_owned() }, 1 << 20);
    wait_for(|done| plane.open_device(&spec, done));
    let status = || wait_for::<Snapshot>(|done| plane.snapshot(done)).devices[&spec.uuid].clone();
    assert_eq!((status().health, status().problem), (Health::Works, None));

    file.set_len(0).unwrap();
    plane.lu(spec.uuid).unwrap().health.failed(&ErrorKind::Medium.into());
    assert_eq!(reports.recv().unwrap().kind, "lu-failed");
    assert_eq!(status().health, Health::Failed);
    let message = status().problem.unwrap().message;
    assert!(message.contains("file is shorter than the device"), "{message}");

    file.set_len(1 << 20).unwrap();
    let report = reports.recv().unwrap();
    assert_eq!((report.kind, report.message.as_str()), ("lu-online", "LU web1 works again"));
    assert_eq!((status().health, status().problem), (Health::Works, None));
    wait_for(|done| plane.stop(done));
}

/// Runs something on a core and waits for what it gives.
fn on<T: Send + 'static>(core: &Remote, f: impl FnOnce(&Core) -> T + Send + 'static) -> T {
    let (sender, answers) = mpsc::channel();
    assert!(core.send(move |core| drop(sender.send(f(core)))));
    answers.recv().unwrap()
}

/// A core that is held up gets all the questions before the first one is answered.
#[test]
fn adapters_are_asked_all_at_once() {
    const ADAPTERS: u16 = 40;
    let directory = tempfile::tempdir().unwrap();
    let plane = start(directory.path(), Arc::new(|_| {}));
    let spec = device(Backing::Null, 1 << 20);
    wait_for(|done| plane.open_device(&spec, done));
    for slot in 2..2 + ADAPTERS {
        let (mapping, socket) = mapping(directory.path(), spec.uuid, slot);
        wait_for(|done| plane.open_mapping(&mapping, Some(&socket), done));
    }
    let cores = plane.0.cores.clone();
    let last = &cores[cores.len() - 1];
    let there = u64::from(ADAPTERS) / cores.len() as u64;
    for listing in 0..2 {
        let before = on(last, Core::messages);
        let (open, gate) = mpsc::channel::<()>();
        last.send(move |_| assert!(gate.recv().is_err(), "opened by dropping"));
        let (sender, answers) = mpsc::channel();
        match listing {
            0 => plane.snapshot(Done::new(move |answer| sender.send(answer.is_ok()).unwrap())),
            _ => plane.stats(Done::new(move |answer| sender.send(answer.is_ok()).unwrap())),
        }
        if cores.len() > 1 {
            // The first core has read the call, and by the second time it has asked.
            (0..2).for_each(|_| on(&cores[0], |_| ()));
        }
        let (sender, counts) = mpsc::channel();
        last.send(move |core| sender.send(core.messages()).unwrap());
        drop(open);
        let asked = counts.recv().unwrap() - before;
        assert!(cores.len() == 1 || asked >= there, "{asked} of {there} were asked");
        assert!(answers.recv().unwrap());
    }
    wait_for(|done| plane.stop(done));
}
