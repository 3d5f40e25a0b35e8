//! What only the real machine has: every test runs a core on the test's own thread. What it shares
//! with its twin is in `twin_tests`.

use std::cell::Cell;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use block::completion::Waiting;
use block::{Buffer, Completion, Outcome, Sink, Way};
use io_uring::opcode;

use super::event::{EventFd, EventWatch};
use super::ring::Submitted;
use super::socket::{Listener, Stream};
use super::*;
use crate::{Config, Core, FileHandle, OpenOptions, Poller, PollerId, Remote, Spin};

fn run<T: 'static, F: Future<Output = T> + 'static>(f: impl FnOnce(Core) -> F) -> T {
    Core::block_on(&Config::new("test"), f).unwrap()
}

fn temp_file() -> (std::path::PathBuf, FileHandle) {
    let path = std::env::temp_dir().join(format!("viaduct-rt-{:x}", random()));
    let options = OpenOptions { create_new: true, ..OpenOptions::write() };
    let file = FileHandle::open(&path, options).unwrap();
    std::fs::remove_file(&path).unwrap();
    (path, file)
}

async fn outcome(ask: impl FnOnce(Completion)) -> Outcome {
    let (waiting, done) = Waiting::new();
    ask(done);
    waiting.outcome().await
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

#[test]
fn a_submission_queue_that_is_exactly_full_goes_on() {
    for count in [7u32, 8, 9, 16, 17, 1000] {
        let config = Config { submissions: 8, ..Config::new("full") };
        let answers = Core::block_on(&config, |core| async move {
            let (_, handle) = temp_file();
            handle.set_len(4096).unwrap();
            let file = handle.on(&core);
            let sink = Rc::new(Count::default());
            let way = Way::to(Rc::downgrade(&sink) as Weak<dyn Sink>);
            let buffer = Buffer::zeroed(512);
            for tag in 0..count {
                let done = Completion::new(way.clone(), u64::from(tag));
                file.read(0, &buffer.sgl(), done);
            }
            while sink.answers.get() < count {
                core.sleep(Duration::from_micros(100)).await;
            }
            assert_eq!(sink.errors.get(), 0);
            sink.answers.get()
        });
        assert_eq!(answers.unwrap(), count);
    }
}

#[test]
fn a_dropped_future_keeps_its_memory_until_the_kernel_is_done() {
    run(|core| async move {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let kept = Rc::new(Cell::new([0u8; 8]));
        let at = kept.as_ptr().cast();
        let entry = opcode::Read::new(io_uring::types::Fd(reader.as_raw_fd()), at, 8).build();
        let mut read = Box::pin(Submitted::new(&core, entry, Some(kept.clone())));
        assert!(core.timeout(Duration::from_millis(5), &mut read).await.is_none());
        drop(read);
        assert!(Rc::strong_count(&kept) == 2, "the kernel may still write there");
        while Rc::strong_count(&kept) == 2 {
            core.sleep(Duration::from_micros(100)).await;
        }
        writer.write_all(b"too late").unwrap();
        core.sleep(Duration::from_millis(1)).await;
        assert_eq!(kept.get(), [0; 8]);
    });
}

#[test]
fn a_core_that_ends_gives_back_what_is_in_flight() {
    let kept = Rc::new(Cell::new([0u8; 8]));
    let (inside, (reader, _writer)) = (kept.clone(), UnixStream::pair().unwrap());
    run(|core| async move {
        let at = inside.as_ptr().cast();
        let entry = opcode::Read::new(io_uring::types::Fd(reader.as_raw_fd()), at, 8).build();
        let mut read = Box::pin(Submitted::new(&core, entry, Some(inside)));
        assert!(core.timeout(Duration::from_millis(1), &mut read).await.is_none());
        core.spawn(async move {
            let _ = read.await;
        });
    });
    assert_eq!(Rc::strong_count(&kept), 1);
}

#[test]
fn an_idle_core_uses_exactly_no_cpu() {
    const WINDOWS: usize = 4;
    let cpu_of =
        |remote: &Remote| remote.call(|_| async { thread::cpu_time_nanos() }).wait().unwrap();
    let remote = start(Config::new("idle")).unwrap();
    // Some life first: files and timers.
    remote
        .call(|core| async move {
            let (_, handle) = temp_file();
            let buffer = Buffer::zeroed(512);
            let file = handle.on(&core);
            outcome(|done| file.write(0, &buffer.sgl(), false, done)).await.unwrap();
            core.sleep(Duration::from_millis(2)).await;
        })
        .wait()
        .unwrap();
    let sleeps_of =
        |remote: &Remote| remote.call(|core| async move { core.stats().sleeps }).wait().unwrap();
    // The lowest of some windows: a host that takes this CPU away makes a short look a long one,
    // and a core that does not sleep uses much in every window.
    let window = || {
        let (before, sleeps) = (cpu_of(&remote), sleeps_of(&remote));
        std::thread::sleep(Duration::from_millis(300));
        (cpu_of(&remote) - before, sleeps_of(&remote) - sleeps)
    };
    let windows: Vec<(u64, u64)> = (0..WINDOWS).map(|_| window()).collect();
    // The questions themselves cost something; a core that looked once in a while would have slept
    // more often than it was asked.
    let is_idle = |(cpu_ns, sleeps): &(u64, u64)| *sleeps <= 2 && *cpu_ns < 2_000_000;
    assert!(windows.iter().any(is_idle), "ns of CPU and sleeps while idle: {windows:?}");
    remote.send(Core::stop);
}

#[test]
fn a_storm_of_messages_between_cores_loses_none() {
    const EACH: u64 = 20_000;
    let cores: Vec<Remote> =
        (0..3).map(|n| start(Config::new(format!("storm{n}"))).unwrap()).collect();
    let arrived = Arc::new(AtomicU64::new(0));
    let (tell, told) = mpsc::channel();
    for from in &cores {
        let (to, arrived, tell) = (cores.clone(), arrived.clone(), tell.clone());
        from.send(move |core| {
            let core = core.clone();
            core.clone().spawn(async move {
                for number in 0..EACH {
                    let (arrived, tell) = (arrived.clone(), tell.clone());
                    to[(number % 3) as usize].send(move |_| {
                        if arrived.fetch_add(1, Ordering::Relaxed) + 1 == 3 * EACH {
                            tell.send(()).unwrap();
                        }
                    });
                    if number % 7 == 0 {
                        core.sleep(Duration::from_micros(1)).await;
                    }
                }
            });
        });
    }
    told.recv_timeout(Duration::from_secs(60)).expect("every message arrives");
    for core in &cores {
        core.send(Core::stop);
    }
}

#[test]
fn a_waker_works_from_any_thread_and_a_dead_core_answers_nobody() {
    let remote = start(Config::new("wakers")).unwrap();
    let (answer, reply) = crate::sync::reply();
    let waiting = remote.call(|_| reply);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        answer.give("from a thread");
    });
    assert_eq!(waiting.wait(), Some(Some("from a thread")));
    let never = remote.call(|_| std::future::pending::<()>());
    remote.send(Core::stop);
    assert_eq!(never.wait(), None);
    assert_eq!(remote.call(|_| async {}).wait(), None, "sent to a core that has ended");
}

#[test]
fn messages_carry_descriptors_and_survive_small_reads() {
    run(|core| async move {
        let path = std::env::temp_dir().join(format!("viaduct-sock-{:x}", random()));
        let listener = Listener::bind(&core, &path).unwrap();
        let client = Stream::connect(&core, &path).unwrap();
        let server = listener.accept().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(server.peer().unwrap().pid, std::process::id() as i32);
        let event = EventFd::new().unwrap();
        client.send(b"hello", &[event.as_raw_fd()]).await.unwrap();
        let (mut fds, mut bytes) = (Vec::new(), [0; 3]);
        assert_eq!(server.recv(&mut bytes, &mut fds).await.unwrap(), 3);
        assert_eq!(fds.len(), 1);
        assert_eq!(server.recv(&mut bytes, &mut fds).await.unwrap(), 2);
        assert_eq!(&bytes[..2], b"lo");
        drop(client);
        assert_eq!(server.recv(&mut bytes, &mut fds).await.unwrap(), 0);
        let heard = Rc::new(crate::sync::Notify::new());
        let tell = heard.clone();
        let watch = EventWatch::call(&core, fds.remove(0).into(), move || tell.notify());
        for _ in 0..3 {
            event.signal();
            heard.notified().await;
        }
        drop(watch);
    });
}

/// A poller over a counter that a client raises.
struct Ring {
    left: Cell<u32>,
    done: Cell<u32>,
    armed: Cell<bool>,
}

impl Poller for Ring {
    fn turn(&self) -> bool {
        assert!(!self.armed.get(), "an armed ring is not looked at");
        let found = self.left.get() > 0;
        if found {
            self.left.set(self.left.get() - 1);
            self.done.set(self.done.get() + 1);
        }
        found
    }

    fn publish(&self) {}

    fn arm(&self) -> bool {
        self.armed.set(true);
        self.left.get() > 0
    }

    fn disarm(&self) {
        self.armed.set(false);
    }
}

#[test]
fn a_ring_is_looked_at_when_its_client_notifies_and_not_before() {
    run(|core| async move {
        let ring =
            Rc::new(Ring { left: Cell::new(3), done: Cell::new(0), armed: Cell::new(false) });
        let id: PollerId = core.add_poller(ring.clone());
        let kick = EventFd::new().unwrap();
        let watch = EventWatch::activate(&core, kick.try_clone().unwrap(), id);
        core.sleep(Duration::from_millis(5)).await;
        assert_eq!((ring.done.get(), ring.armed.get()), (3, true));
        ring.left.set(2);
        core.sleep(Duration::from_millis(2)).await;
        assert_eq!(ring.done.get(), 3, "nobody notified");
        kick.signal();
        core.sleep(Duration::from_millis(5)).await;
        assert_eq!((ring.done.get(), ring.armed.get()), (5, true));
        core.remove_poller(id);
        ring.left.set(1);
        kick.signal();
        core.sleep(Duration::from_millis(2)).await;
        assert_eq!(ring.done.get(), 5);
        drop(watch);
    });
}

#[test]
fn spinning_can_be_switched_off() {
    let config = Config { spin: Spin { bound: Duration::ZERO }, ..Config::new("nospin") };
    let sleeps = Core::block_on(&config, |core| async move {
        for _ in 0..50 {
            core.sleep(Duration::from_micros(300)).await;
        }
        core.stats().sleeps
    });
    assert!(sleeps.unwrap() >= 45);
}

#[test]
fn waiting_for_quiet_sees_reads_and_waiting_for_writes_does_not() {
    run(|core| async move {
        let (_, handle) = temp_file();
        handle.set_len(1 << 20).unwrap();
        let (file, other) = (handle.on(&core), handle.on(&core));
        let buffer = Buffer::zeroed(8192);
        let ended = |future: &mut std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
        };
        let waits = |file: &crate::File, reads: bool, offset: u64| {
            let file = file.clone();
            let mut future: std::pin::Pin<Box<dyn Future<Output = ()>>> = match reads {
                true => Box::pin(async move { file.quiet(offset, 512).await }),
                false => Box::pin(async move { file.drained(offset, 512).await }),
            };
            ended(&mut future).is_pending()
        };
        for write in [false, true] {
            let (waiting, done) = Waiting::new();
            match write {
                true => file.write(4096, &buffer.sgl(), false, done),
                false => file.read(4096, &buffer.sgl(), done),
            }
            for (offset, overlaps) in [(0, false), (4096, true), (12_000, true), (12_288, false)] {
                assert_eq!(waits(&file, true, offset), overlaps, "{offset}");
                assert_eq!(waits(&file, false, offset), overlaps && write, "{offset}");
                assert!(!waits(&other, true, offset), "of another handle");
            }
            file.quiet(0, u64::MAX).await;
            assert!(!waits(&file, true, 4096));
            assert_eq!(core.os().waiting_for_quiet(), 0, "who gave up is forgotten");
            assert_eq!(waiting.outcome().await, Ok(8192));
        }
    });
}
