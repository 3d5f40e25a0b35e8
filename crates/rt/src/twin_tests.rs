//! What holds on the real machine and on the simulated one: each test runs on both, on the
//! simulated one with many seeds.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use block::completion::Waiting;
use block::extent::ExtentState;
use block::{Buffer, Completion, ErrorKind, Outcome, Part, Sgl, Sink, Way};

use crate::net::{Address, Listener, Stream};
use crate::sim::{Options, World};
use crate::{Allocate, Config, Core, FileHandle, OpenOptions, Remote};

/// A machine to run a test on.
trait Machine {
    /// More bytes than a connection buffers.
    const BULK: usize;
    fn run<F: Future<Output = ()> + 'static>(f: impl Fn(Core, Remote) -> F + Clone + 'static);
    fn remove(path: &Path);
}

struct Real;

impl Machine for Real {
    const BULK: usize = 32 << 20;

    fn run<F: Future<Output = ()> + 'static>(f: impl Fn(Core, Remote) -> F + Clone + 'static) {
        let peer = crate::os::start(Config::new("peer")).unwrap();
        let other = peer.clone();
        Core::block_on(&Config::new("twin"), move |core| f(core, other)).unwrap();
        peer.send(Core::stop);
    }

    fn remove(path: &Path) {
        std::fs::remove_file(path).unwrap();
    }
}

struct Simulated;

const SEEDS: u64 = 20;

impl Machine for Simulated {
    const BULK: usize = 1 << 20;

    fn run<F: Future<Output = ()> + 'static>(f: impl Fn(Core, Remote) -> F + Clone + 'static) {
        for seed in 0..SEEDS {
            let world = World::new(seed, Options::swarm(seed));
            let host = world.host("twin");
            let (core, peer) = (host.core(), host.core().remote());
            let ended = world.block_on(&core, |core| f(core, peer));
            assert!(ended.is_some(), "seed {seed}: it waits for ever");
        }
    }

    fn remove(_: &Path) {}
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod os {
            $(#[test] fn $name() { super::$name::<super::Real>(); })*
        }
        mod sim {
            $(#[test] fn $name() { super::$name::<super::Simulated>(); })*
        }
    };
}

on_both![
    sleeps_end_in_order_and_timeouts_cut,
    tasks_give_results_and_can_be_cancelled,
    transfers_of_every_shape_and_short_files,
    long_lists_are_moved_whole,
    more_requests_than_a_queue_takes_are_all_answered,
    a_dropped_wait_keeps_its_memory_until_the_answer,
    holes_zeroes_and_sizes,
    files_are_opened_as_asked,
    direct_transfers_want_alignment,
    writes_in_flight_can_be_waited_for,
    locks_of_other_descriptions_are_seen_and_waited_for,
    letters_come_in_order_and_wake,
    blocking_work_gives_its_result,
    an_answer_that_never_comes_is_told,
    bytes_arrive_in_order_in_both_directions_at_once,
    a_stream_ends_when_its_peer_lets_go,
    nobody_listens,
    an_accept_that_is_dropped_loses_no_connection,
    a_receive_that_is_dropped_lets_go_of_its_memory,
    a_slow_reader_holds_its_sender_up,
    a_shutdown_is_heard_on_both_sides,
    unix_sockets_are_streams_too,
];

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn new_path(core: &Core) -> PathBuf {
    std::env::temp_dir().join(format!("viaduct-twin-{:x}", core.random()))
}

fn temp_file<M: Machine>(core: &Core) -> FileHandle {
    let path = new_path(core);
    let options = OpenOptions { create_new: true, ..OpenOptions::write() };
    let file = FileHandle::open(&path, options).unwrap();
    M::remove(&path);
    file
}

async fn outcome(ask: impl FnOnce(Completion)) -> Outcome {
    let (waiting, done) = Waiting::new();
    ask(done);
    waiting.outcome().await
}

fn pattern(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(31) / 7 + salt) as u8).collect()
}

// ---- tasks and time -----------------------------------------------------------------------------

fn sleeps_end_in_order_and_timeouts_cut<M: Machine>() {
    M::run(|core, _| async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        for wait in [40, 10, 20] {
            let (core, order, handle) = (core.clone(), order.clone(), core.clone());
            handle.spawn(async move {
                core.sleep(millis(wait)).await;
                order.borrow_mut().push(wait);
            });
        }
        let before = core.now();
        let never = core.timeout(millis(200), std::future::pending::<()>()).await;
        assert!(never.is_none());
        assert!(core.now() - before >= millis(200));
        assert_eq!(order.take(), [10, 20, 40]);
        assert_eq!(core.timeout(millis(50), async { 7 }).await, Some(7));
    });
}

fn tasks_give_results_and_can_be_cancelled<M: Machine>() {
    M::run(|core, _| async move {
        let other = core.clone();
        let task = core.spawn_task(async move {
            other.yield_now().await;
            7
        });
        assert_eq!(task.await, 7);
        let held = Rc::new(());
        let kept = held.clone();
        let task = core.spawn_task(async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        core.yield_now().await;
        task.cancel();
        core.yield_now().await;
        assert_eq!(Rc::strong_count(&held), 1);
    });
}

fn letters_come_in_order_and_wake<M: Machine>() {
    const COUNT: u64 = 500;
    M::run(|core, peer| async move {
        let next = Arc::new(AtomicU64::new(0));
        let (answer, reply) = crate::sync::reply();
        let mut answer = Some(answer);
        for number in 0..COUNT {
            let (next, answer) = (next.clone(), answer.take_if(|_| number == COUNT - 1));
            peer.send(move |_| {
                assert_eq!(next.fetch_add(1, Ordering::Relaxed), number);
                if let Some(answer) = answer {
                    answer.give(());
                }
            });
            if number % 97 == 0 {
                core.sleep(Duration::from_micros(10)).await;
            }
        }
        assert_eq!(reply.await, Some(()));
        let here = core.remote();
        let there = peer.call(move |peer| async move {
            peer.sleep(millis(1)).await;
            here.call(|core| async move { core.id() }).await
        });
        assert_eq!(there.await, Some(Some(core.id())));
    });
}

fn blocking_work_gives_its_result<M: Machine>() {
    M::run(|core, peer| async move {
        let path = new_path(&core);
        let name = path.clone();
        let work = core.blocking(move || {
            let options = OpenOptions { create: true, ..OpenOptions::write() };
            let file = FileHandle::open(&name, options).unwrap();
            file.write_at(b"from a worker", 5).unwrap();
            file.sync().unwrap();
            // A worker may wait for a core.
            let id = peer.call(|core| async move { core.id() }).wait();
            (file, id == Some(peer.id()))
        });
        let (file, right) = work.await.unwrap();
        M::remove(&path);
        assert!(right);
        let mut bytes = [0; 13];
        file.read_at(&mut bytes, 5).unwrap();
        assert_eq!(&bytes, b"from a worker");
        let many: Vec<_> = (0..40).map(|n| core.blocking(move || n)).collect();
        for (n, work) in many.into_iter().enumerate() {
            assert_eq!(work.await, Some(n));
        }
    });
}

fn an_answer_that_never_comes_is_told<M: Machine>() {
    M::run(|_, peer| async move {
        let never = peer.call(|_| std::future::pending::<()>());
        peer.send(Core::stop);
        assert_eq!(never.await, None);
        assert_eq!(peer.call(|_| async {}).await, None, "sent to a core that has ended");
    });
}

// ---- files --------------------------------------------------------------------------------------

fn transfers_of_every_shape_and_short_files<M: Machine>() {
    M::run(|core, _| async move {
        let handle = temp_file::<M>(&core);
        handle.set_len(1 << 20).unwrap();
        let file = handle.on(&core);
        let bytes = pattern(10_000, 0);
        let buffer = Buffer::from_bytes(&bytes);
        let write = outcome(|done| file.write(100, &buffer.sgl(), true, done));
        assert_eq!(write.await, Ok(10_000));
        assert_eq!(outcome(|done| file.sync(done)).await, Ok(0));
        let back = Buffer::zeroed(10_000);
        let read = outcome(|done| file.read(100, &back.sgl(), done)).await;
        assert_eq!((read, back.to_vec()), (Ok(10_000), bytes));
        let empty = outcome(|done| file.read(100, &Sgl::empty(), done)).await;
        assert_eq!(empty, Ok(0));
        let beyond = outcome(|done| file.read((1 << 20) - 512, &back.sgl(), done)).await;
        let error = beyond.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Medium);
        assert!(error.to_string().contains("shorter than the device"), "{error}");
        let grown = outcome(|done| file.write((1 << 20) + 5, &buffer.sgl(), false, done)).await;
        assert_eq!(grown, Ok(10_000));
        assert_eq!(handle.info().unwrap().size, (1 << 20) + 5 + 10_000);
        assert_eq!(core.stats().in_flight, 0);
    });
}

fn long_lists_are_moved_whole<M: Machine>() {
    M::run(|core, _| async move {
        let file = temp_file::<M>(&core).on(&core);
        let bytes = pattern(24_000, 3);
        let buffer = Buffer::from_bytes(&bytes);
        let whole = buffer.sgl();
        let base = whole.single().unwrap();
        let parts: Vec<Part> =
            (0..3000).map(|n| Part::new(base.at().wrapping_add(n * 8), 8)).collect();
        // SAFETY: the parts lie in `buffer`, whose pin is given.
        let list = unsafe { Sgl::new(&parts, whole.pin().unwrap()) };
        assert_eq!(outcome(|done| file.write(0, &list, false, done)).await, Ok(24_000));
        let back = Buffer::zeroed(24_000);
        outcome(|done| file.read(0, &back.sgl(), done)).await.unwrap();
        assert_eq!(back.to_vec(), bytes);
    });
}

/// Counts answers; stands for a front end.
#[derive(Default)]
struct Count {
    answers: Cell<u32>,
    errors: Cell<u32>,
}

impl Sink for Count {
    fn complete(&self, _: u64, outcome: Outcome) {
        self.answers.set(self.answers.get() + 1);
        self.errors.set(self.errors.get() + u32::from(outcome.is_err()));
    }
}

fn more_requests_than_a_queue_takes_are_all_answered<M: Machine>() {
    const COUNT: u32 = 1000;
    M::run(|core, _| async move {
        let handle = temp_file::<M>(&core);
        handle.set_len(4096).unwrap();
        let file = handle.on(&core);
        let sink = Rc::new(Count::default());
        let way = Way::to(Rc::downgrade(&sink) as Weak<dyn Sink>);
        let buffer = Buffer::zeroed(512);
        for tag in 0..COUNT {
            file.read(0, &buffer.sgl(), Completion::new(way.clone(), u64::from(tag)));
        }
        assert_eq!(sink.answers.get(), 0, "never answered from within the call");
        while sink.answers.get() < COUNT {
            core.sleep(Duration::from_micros(100)).await;
        }
        assert_eq!(sink.errors.get(), 0);
    });
}

fn a_dropped_wait_keeps_its_memory_until_the_answer<M: Machine>() {
    M::run(|core, _| async move {
        let file = temp_file::<M>(&core).on(&core);
        let buffer = Buffer::from_bytes(&[7; 4096]);
        let (waiting, done) = Waiting::new();
        file.write(0, &buffer.sgl(), true, done);
        drop(waiting);
        assert!(!buffer.is_unshared(), "the kernel may still read there");
        while !buffer.is_unshared() {
            core.sleep(Duration::from_micros(100)).await;
        }
        let mut back = [0; 4096];
        file.handle().read_at(&mut back, 0).unwrap();
        assert_eq!(back, [7; 4096]);
    });
}

fn holes_zeroes_and_sizes<M: Machine>() {
    M::run(|core, _| async move {
        let handle = temp_file::<M>(&core);
        let file = handle.on(&core);
        let data = Buffer::from_bytes(&pattern(64 << 10, 1));
        outcome(|done| file.write(64 << 10, &data.sgl(), false, done)).await.unwrap();
        handle.sync().unwrap();
        let states = |handle: &FileHandle| {
            let extents = handle.extents(0..128 << 10, 10).unwrap();
            extents.iter().map(|extent| (extent.len >> 10, extent.state)).collect::<Vec<_>>()
        };
        let (hole, full) = (ExtentState::Hole, ExtentState::Data);
        assert_eq!(states(&handle), [(64, hole), (64, full)]);
        let (at, len) = (80 << 10, 16 << 10);
        let punched = outcome(|done| file.allocate(Allocate::PunchHole, at, len, done)).await;
        assert_eq!(punched, Ok(0));
        assert_eq!(states(&handle), [(64, hole), (16, full), (16, hole), (32, full)]);
        assert_eq!(handle.extents(0..128 << 10, 1).unwrap().len(), 1);
        handle.allocate(Allocate::ZeroRange, 100 << 10, 3000).unwrap();
        let mut back = vec![1; 64 << 10];
        handle.read_at(&mut back, 64 << 10).unwrap();
        let mut expected = data.to_vec();
        expected[16 << 10..32 << 10].fill(0);
        expected[36 << 10..(36 << 10) + 3000].fill(0);
        assert!(back == expected);
        let before = handle.info().unwrap().allocated;
        handle.allocate(Allocate::Reserve, 0, 256 << 10).unwrap();
        let info = handle.info().unwrap();
        assert_eq!(info.size, 256 << 10);
        assert!(info.allocated >= 256 << 10 && before < 256 << 10, "{before} {info:?}");
        handle.set_len(70 << 10).unwrap();
        handle.set_len(128 << 10).unwrap();
        handle.read_at(&mut back, 64 << 10).unwrap();
        assert!(back[..6 << 10] == expected[..6 << 10]);
        assert!(back[6 << 10..].iter().all(|byte| *byte == 0), "what was cut off is gone");
        let nothing = file.handle().allocate(Allocate::PunchHole, 0, 0);
        assert!(nothing.is_err());
    });
}

fn files_are_opened_as_asked<M: Machine>() {
    M::run(|core, _| async move {
        let path = new_path(&core);
        let kind = |options| FileHandle::open(&path, options).map(drop).map_err(|e| e.kind());
        let create_new = OpenOptions { create_new: true, ..OpenOptions::write() };
        assert_eq!(kind(OpenOptions::write()), Err(std::io::ErrorKind::NotFound));
        assert_eq!(kind(create_new), Ok(()));
        assert_eq!(kind(create_new), Err(std::io::ErrorKind::AlreadyExists));
        assert_eq!(kind(OpenOptions { create: true, ..OpenOptions::write() }), Ok(()));
        let read_only = FileHandle::open(&path, OpenOptions::read()).unwrap();
        M::remove(&path);
        assert!(read_only.write_at(b"x", 0).is_err());
        assert!(read_only.set_len(10).is_err());
        let buffer = Buffer::zeroed(512);
        let file = read_only.on(&core);
        let refused = outcome(|done| file.write(0, &buffer.sgl(), false, done)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnly);
        let short = read_only.read_at(&mut [0; 1], 0).unwrap_err();
        assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

fn direct_transfers_want_alignment<M: Machine>() {
    M::run(|core, _| async move {
        let path = new_path(&core);
        let options = OpenOptions { create_new: true, direct: true, ..OpenOptions::write() };
        let opened = FileHandle::open(&path, options);
        M::remove(&path);
        // Some filesystems have no direct I/O; then there is nothing to see here.
        let Ok(handle) = opened else { return };
        if handle.info().unwrap().direct_offset_align == 0 {
            return;
        }
        let file = handle.on(&core);
        let buffer = Buffer::from_bytes(&pattern(8192, 9));
        let whole = outcome(|done| file.write(4096, &buffer.sgl(), false, done)).await;
        assert_eq!(whole, Ok(8192));
        let crooked = buffer.sgl().slice(0, 1000);
        let refused = outcome(|done| file.write(4096, &crooked, false, done)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        let back = Buffer::zeroed(8192);
        outcome(|done| file.read(4096, &back.sgl(), done)).await.unwrap();
        assert_eq!(back.to_vec(), pattern(8192, 9));
    });
}

fn writes_in_flight_can_be_waited_for<M: Machine>() {
    M::run(|core, _| async move {
        let file = temp_file::<M>(&core).on(&core);
        let sink = Rc::new(Count::default());
        let way = Way::to(Rc::downgrade(&sink) as Weak<dyn Sink>);
        let buffer = Buffer::from_bytes(&[5; 8192]);
        for n in 0..16 {
            file.write(n * 8192, &buffer.sgl(), n % 4 == 0, Completion::new(way.clone(), n));
        }
        file.drained(1 << 20, 4096).await;
        file.drained(0, 16 * 8192).await;
        assert_eq!((sink.answers.get(), sink.errors.get()), (16, 0));
        file.read(0, &buffer.sgl(), Completion::new(way.clone(), 16));
        file.drained(0, u64::MAX).await;
        assert_eq!(sink.answers.get(), 16, "reads are not waited for");
        file.quiet(0, u64::MAX).await;
        assert_eq!((sink.answers.get(), sink.errors.get()), (17, 0));
    });
}

fn locks_of_other_descriptions_are_seen_and_waited_for<M: Machine>() {
    M::run(|core, _| async move {
        let path = new_path(&core);
        let options = OpenOptions { create: true, ..OpenOptions::write() };
        let first = FileHandle::open(&path, options).unwrap();
        let second = FileHandle::open(&path, options).unwrap();
        M::remove(&path);
        first.set_len(4096).unwrap();
        first.try_lock(100..101, true).unwrap();
        assert!(second.is_locked(100..101).unwrap());
        let error = second.try_lock(100..101, false).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        second.try_lock(101..200, true).unwrap();
        first.unlock(100..101).unwrap();
        second.try_lock(100..101, false).unwrap();
        first.try_lock(100..101, false).unwrap();
        assert!(first.try_lock(100..101, true).is_err());
        let (waiting, order) = (first.clone(), Arc::new(AtomicU64::new(0)));
        let seen = order.clone();
        let locked = core.blocking(move || {
            waiting.lock(100..101, true).unwrap();
            seen.load(Ordering::SeqCst)
        });
        core.sleep(millis(20)).await;
        order.store(1, Ordering::SeqCst);
        drop(second);
        assert_eq!(locked.await, Some(1), "locked when the other description was closed");
    });
}

// ---- sockets ------------------------------------------------------------------------------------

fn local() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

async fn pair(core: &Core) -> (Stream, Stream) {
    let listener = Listener::bind(core, &local()).unwrap();
    let address = listener.address().unwrap();
    let other = core.clone();
    let connecting = core.spawn_task(async move { Stream::connect(&other, &address).await });
    let accepted = listener.accept().await.unwrap();
    let connected = connecting.await.unwrap();
    assert_eq!(accepted.peer().unwrap(), connected.local().unwrap());
    (connected, accepted)
}

/// Sends a pattern in lists of odd shapes.
async fn send_all(core: Core, stream: Rc<Stream>, total: usize, salt: u32) {
    let bytes = pattern(total, salt);
    let buffer = Buffer::from_bytes(&bytes);
    let whole = buffer.sgl();
    let base = whole.single().unwrap().at();
    let mut done = 0;
    while done < total {
        let len = (core.random() % 50_000 + 1).min((total - done) as u64) as usize;
        let cut = len / 3;
        let parts = [
            Part::new(base.wrapping_add(done), cut),
            Part::new(base.wrapping_add(done + cut), len - cut),
        ];
        // SAFETY: the parts lie in `buffer`, whose pin is given.
        let list = unsafe { Sgl::new(&parts, whole.pin().unwrap()) };
        stream.send(&list).await.unwrap();
        done += len;
    }
}

async fn expect_all(core: Core, stream: Rc<Stream>, total: usize, salt: u32) {
    let buffer = Buffer::zeroed(total);
    let mut done = 0;
    while done < total {
        let len = (core.random() % 70_000 + 1).min((total - done) as u64) as usize;
        let part = buffer.sgl().slice(done, len);
        match core.random() % 3 {
            0 => {
                stream.recv_exact(&part).await.unwrap();
                done += len;
            }
            _ => done += stream.recv(&part).await.unwrap(),
        }
    }
    assert!(buffer.to_vec() == pattern(total, salt));
}

fn bytes_arrive_in_order_in_both_directions_at_once<M: Machine>() {
    const TOTAL: usize = 300_000;
    M::run(|core, _| async move {
        let (client, server) = pair(&core).await;
        let (client, server) = (Rc::new(client), Rc::new(server));
        let tasks = [
            core.spawn_task(send_all(core.clone(), client.clone(), TOTAL, 1)),
            core.spawn_task(send_all(core.clone(), server.clone(), TOTAL, 2)),
            core.spawn_task(expect_all(core.clone(), client.clone(), TOTAL, 2)),
            core.spawn_task(expect_all(core.clone(), server.clone(), TOTAL, 1)),
        ];
        for task in tasks {
            task.await;
        }
        assert_eq!(core.stats().in_flight, 0);
    });
}

fn a_stream_ends_when_its_peer_lets_go<M: Machine>() {
    M::run(|core, _| async move {
        let (client, server) = pair(&core).await;
        client.send_bytes(b"last words").await.unwrap();
        drop(client);
        let heard = Buffer::zeroed(10);
        server.recv_exact(&heard.sgl()).await.unwrap();
        assert_eq!(heard.to_vec(), b"last words");
        assert_eq!(server.recv_bytes(&mut [0; 5]).await.unwrap(), 0);
        let early = server.recv_exact(&heard.sgl()).await.unwrap_err();
        assert_eq!(early.kind(), std::io::ErrorKind::UnexpectedEof);
        // The first send may still be taken; the peer's kernel answers it with a reset.
        let mut result = Ok(());
        for _ in 0..100 {
            result = server.send_bytes(&[0; 1000]).await;
            if result.is_err() {
                break;
            }
            core.sleep(millis(5)).await;
        }
        assert!(result.is_err(), "nobody is there");
    });
}

fn nobody_listens<M: Machine>() {
    M::run(|core, _| async move {
        let listener = Listener::bind(&core, &local()).unwrap();
        let address = listener.address().unwrap();
        let again = Listener::bind(&core, &address).map(drop).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AddrInUse);
        drop(listener);
        let refused = Stream::connect(&core, &address).await.map(drop).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let foreign = Address::Tcp("192.0.2.1:1".parse().unwrap());
        assert!(Listener::bind(&core, &foreign).is_err());
    });
}

fn an_accept_that_is_dropped_loses_no_connection<M: Machine>() {
    M::run(|core, _| async move {
        let listener = Listener::bind(&core, &local()).unwrap();
        assert!(core.timeout(millis(5), listener.accept()).await.is_none());
        let address = listener.address().unwrap();
        let client = Stream::connect(&core, &address).await.unwrap();
        client.send_bytes(b"hello").await.unwrap();
        core.sleep(millis(5)).await;
        let server = listener.accept().await.unwrap();
        let heard = Buffer::zeroed(5);
        server.recv_exact(&heard.sgl()).await.unwrap();
        assert_eq!(heard.to_vec(), b"hello");
    });
}

fn a_receive_that_is_dropped_lets_go_of_its_memory<M: Machine>() {
    M::run(|core, _| async move {
        let (client, server) = pair(&core).await;
        let buffer = Buffer::zeroed(100);
        let sgl = buffer.sgl();
        assert!(core.timeout(millis(2), server.recv(&sgl)).await.is_none());
        while !buffer.is_unshared() {
            core.sleep(Duration::from_micros(100)).await;
        }
        client.send_bytes(b"too late").await.unwrap();
        core.sleep(millis(5)).await;
        assert_eq!(buffer.to_vec(), [0; 100]);
    });
}

fn a_slow_reader_holds_its_sender_up<M: Machine>() {
    M::run(|core, _| async move {
        let (client, server) = pair(&core).await;
        let handle = core.clone();
        let sending = core.spawn_task(async move {
            let piece = Buffer::zeroed(1 << 20);
            for _ in 0..M::BULK >> 20 {
                client.send(&piece.sgl()).await.unwrap();
            }
            handle.now()
        });
        core.sleep(millis(300)).await;
        let began = core.now();
        let buffer = Buffer::zeroed(1 << 20);
        let mut got = 0;
        while got < M::BULK {
            got += server.recv(&buffer.sgl()).await.unwrap();
        }
        assert!(sending.await > began, "it all went into buffers");
        assert_eq!(server.recv(&buffer.sgl()).await.unwrap(), 0);
    });
}

fn unix_sockets_are_streams_too<M: Machine>() {
    M::run(|core, _| async move {
        let path = new_path(&core);
        let address = Address::Unix(path.clone());
        let listener = Listener::bind(&core, &address).unwrap();
        assert_eq!(listener.address().unwrap(), address);
        let other = (core.clone(), address.clone());
        let connecting = core.spawn_task(async move { Stream::connect(&other.0, &other.1).await });
        let server = listener.accept().await.unwrap();
        let client = connecting.await.unwrap();
        M::remove(&path);
        client.send_bytes(b"knock").await.unwrap();
        let heard = Buffer::zeroed(5);
        server.recv_exact(&heard.sgl()).await.unwrap();
        assert_eq!(heard.to_vec(), b"knock");
        assert_eq!(client.peer().unwrap(), address);
        let long = Address::Unix(format!("/{}", "x".repeat(200)).into());
        assert!(Stream::connect(&core, &long).await.is_err());
    });
}

fn a_shutdown_is_heard_on_both_sides<M: Machine>() {
    M::run(|core, _| async move {
        let (client, server) = pair(&core).await;
        let server = std::rc::Rc::new(server);
        let other = server.clone();
        let receiving = core.spawn_task(async move {
            let buffer = Buffer::zeroed(10);
            other.recv(&buffer.sgl()).await.is_ok_and(|count| count > 0)
        });
        core.sleep(millis(5)).await;
        server.shutdown();
        assert!(!receiving.await, "it hears of the end");
        let buffer = Buffer::zeroed(10);
        assert!(!client.recv(&buffer.sgl()).await.is_ok_and(|count| count > 0));
    });
}
