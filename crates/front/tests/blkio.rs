//! A real front end without a guest: the `blkio` crate drives an adapter over a memory store.
//! Its interface takes raw addresses, hence the `unsafe` in a test.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use front::vhost_user::{Adapter, Blk, Notice, Observer, Spec};
use rt::{Config, Core, Remote};
use store::{MemoryStore, Store};
use target::virtio_blk::Id;

#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Observer for Notices {
    fn notice(&self, adapter: &str, notice: Notice) {
        self.0.lock().unwrap().push(format!("{adapter}: {notice:?}"));
    }
}

impl Notices {
    fn contain(&self, what: &str) -> bool {
        self.0.lock().unwrap().iter().any(|notice| notice.contains(what))
    }
}

struct Server {
    _dir: tempfile::TempDir,
    path: PathBuf,
    cores: Vec<Remote>,
    adapter: Option<Adapter<Blk>>,
    store: Arc<MemoryStore>,
    notices: Arc<Notices>,
}

const SIZE: u64 = 64 << 20;

impl Server {
    fn start(queues: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.sock");
        let cores: Vec<Remote> =
            (0..2).map(|n| rt::os::start(Config::new(format!("core{n}"))).unwrap()).collect();
        let store = MemoryStore::new(SIZE, 512).unwrap();
        let (notices, lu) = (Arc::new(Notices::default()), store.clone());
        let spec = Spec {
            name: "client-2".into(),
            cores: cores.clone(),
            observer: notices.clone(),
            device: Blk {
                queues,
                read_only: false,
                writeback: Arc::new(true.into()),
                id: Id::new("serial-of-the-lu"),
                open: Box::new(move |core| lu.clone().device(core)),
            },
        };
        let socket = UnixListener::bind(&path).unwrap();
        let adapter = Adapter::start(&cores[0], socket, spec).wait().unwrap().unwrap();
        Self { _dir: dir, path, cores, adapter: Some(adapter), store, notices }
    }

    fn connect(&self, queues: i32) -> (Blkio, Vec<Blkioq>) {
        let mut blkio = Blkio::new("virtio-blk-vhost-user").unwrap();
        blkio.set_str("path", self.path.to_str().unwrap()).unwrap();
        blkio.connect().unwrap();
        blkio.set_i32("num-queues", queues).unwrap();
        let started = blkio.start().unwrap();
        (blkio, started.queues)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.adapter.take();
        for core in &self.cores {
            core.send(Core::stop);
        }
    }
}

fn wait(queue: &mut Blkioq, count: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut space = [const { MaybeUninit::<Completion>::uninit() }; 64];
        let got = queue.do_io(&mut space, 1, None, None).unwrap();
        // SAFETY: the call says how many it has filled.
        all.extend(space.into_iter().take(got).map(|entry| unsafe { entry.assume_init() }));
    }
    all
}

fn all_good(completions: &[Completion]) {
    for completion in completions {
        assert_eq!(completion.ret, 0, "request {}", completion.user_data);
    }
}

#[test]
fn what_is_written_is_read_on_every_queue() {
    let server = Server::start(4);
    let (mut blkio, mut queues) = server.connect(4);
    assert_eq!(blkio.get_u64("capacity").unwrap(), SIZE);
    let region = blkio.alloc_mem_region(1 << 20).unwrap();
    blkio.map_mem_region(&region).unwrap();
    let base = region.addr as *mut u8;
    const BLOCK: usize = 4096;
    for round in 0..20u64 {
        for (number, queue) in queues.iter_mut().enumerate() {
            for slot in 0..32usize {
                // SAFETY: within the region.
                let at = unsafe { base.add(slot * BLOCK) };
                // SAFETY: as above.
                unsafe {
                    at.cast::<u64>().write_volatile(round << 32 | (number * 32 + slot) as u64)
                };
                let offset = ((number * 32 + slot) * BLOCK) as u64;
                queue.write(offset, at, BLOCK, slot, ReqFlags::empty());
            }
            all_good(&wait(queue, 32));
        }
        for number in 0..queues.len() {
            // Another queue reads what this one has written.
            let queue = &mut queues[(number + 1) % 4];
            for slot in 0..32usize {
                let offset = ((number * 32 + slot) * BLOCK) as u64;
                // SAFETY: within the region.
                let at = unsafe { base.add((64 + slot) * BLOCK) };
                queue.read(offset, at, BLOCK, slot, ReqFlags::empty());
            }
            all_good(&wait(queue, 32));
            for slot in 0..32usize {
                // SAFETY: within the region.
                let value = unsafe { base.add((64 + slot) * BLOCK).cast::<u64>().read_volatile() };
                assert_eq!(value, round << 32 | (number * 32 + slot) as u64);
            }
        }
    }
    let info = server.adapter.as_ref().unwrap().info().wait().unwrap();
    let info = info.session.unwrap();
    assert_eq!((info.queues.len(), info.peer), (4, std::process::id() as i32));
    for queue in &info.queues {
        let requests: u64 = queue.stats.iter().map(|stats| stats.requests).sum();
        assert_eq!((requests, queue.in_flight), (20 * 64, 0));
    }
    let homes: Vec<_> = info.queues.iter().map(|queue| queue.core).collect();
    assert!(homes[0] == homes[2] && homes[1] == homes[3] && homes[0] != homes[1]);
}

#[test]
fn zeroes_discards_flushes_and_errors() {
    let server = Server::start(1);
    let (mut blkio, mut queues) = server.connect(1);
    let region = blkio.alloc_mem_region(1 << 16).unwrap();
    blkio.map_mem_region(&region).unwrap();
    let at = region.addr as *mut u8;
    let queue = &mut queues[0];
    // SAFETY: within the region.
    unsafe { at.write_bytes(0xab, 1 << 16) };
    queue.write(0, at, 1 << 16, 0, ReqFlags::empty());
    all_good(&wait(queue, 1));
    queue.write_zeroes(4096, 4096, 1, ReqFlags::empty());
    queue.discard(8192, 4096, 2, ReqFlags::empty());
    all_good(&wait(queue, 2));
    queue.flush(3, ReqFlags::empty());
    queue.read(0, at, 1 << 14, 4, ReqFlags::empty());
    all_good(&wait(queue, 2));
    // SAFETY: within the region.
    let bytes = unsafe { std::slice::from_raw_parts(at, 1 << 14) };
    assert!(bytes[4096..12288].iter().all(|byte| *byte == 0));
    assert!(bytes[..4096].iter().chain(&bytes[12288..]).all(|byte| *byte == 0xab));
    queue.read(SIZE, at, 4096, 5, ReqFlags::empty());
    assert!(wait(queue, 1)[0].ret < 0);
    assert!(server.notices.contain("OutOfRange") || server.notices.contain("beyond the end"));
}

#[test]
fn a_second_front_end_is_refused_and_the_first_goes_on() {
    let server = Server::start(1);
    let (mut blkio, mut queues) = server.connect(1);
    let region = blkio.alloc_mem_region(4096).unwrap();
    blkio.map_mem_region(&region).unwrap();
    let mut second = Blkio::new("virtio-blk-vhost-user").unwrap();
    second.set_str("path", server.path.to_str().unwrap()).unwrap();
    assert!(second.connect().is_err());
    assert!(server.notices.contain("Refused"));
    queues[0].read(0, region.addr as *mut u8, 4096, 0, ReqFlags::empty());
    all_good(&wait(&mut queues[0], 1));
    drop((queues, blkio));
    let (_blkio, _queues) = server.connect(1);
    assert_eq!(server.store.size(), SIZE);
}
