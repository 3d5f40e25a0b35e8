//! What only simulated machines do: crash, lose power, be cut off, go wrong on demand; and do it
//! again, exactly.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use block::completion::Waiting;
use block::{Buffer, Completion, ErrorKind, Outcome};

use super::{Fault, Harm, Host, On, Options, Random, World};
use crate::net::{Address, Listener, Stream};
use crate::{Core, File, FileHandle, OpenOptions};

const CREATE: OpenOptions = OpenOptions { create: true, ..OpenOptions::write() };

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

async fn outcome(ask: impl FnOnce(Completion)) -> Outcome {
    let (waiting, done) = Waiting::new();
    ask(done);
    waiting.outcome().await
}

async fn write(file: &File, offset: u64, byte: u8, len: usize) -> Outcome {
    let buffer = Buffer::from_bytes(&vec![byte; len]);
    outcome(|done| file.write(offset, &buffer.sgl(), false, done)).await
}

async fn read(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, block::Error> {
    let buffer = Buffer::zeroed(len);
    outcome(|done| file.read(offset, &buffer.sgl(), done)).await.map(|_| buffer.to_vec())
}

/// A file whose name survives a power loss.
fn made(host: &Host, path: &str) -> FileHandle {
    let file = host.open(path, CREATE).unwrap();
    host.open("/", OpenOptions::read()).unwrap().sync().unwrap();
    file
}

fn port(host: &Host, port: u16) -> Address {
    Address::Tcp((host.ip(), port).into())
}

// ---- determinism --------------------------------------------------------------------------------

/// A bit of everything: disk, network, workers, timers, crashes.
fn busy_world(seed: u64) -> u64 {
    let world = World::new(seed, Options::swarm(seed));
    let (a, b) = (world.host("a"), world.host("b"));
    let mut chaos = Random::new(seed);
    for round in 0..6 {
        let server = b.core();
        let address = port(&b, 4000 + round);
        let listen_at = address.clone();
        server.clone().spawn(async move {
            let listener = Listener::bind(&server, &listen_at).unwrap();
            while let Ok(stream) = listener.accept().await {
                let mut bytes = [0; 100];
                while let Ok(1..) = stream.recv_bytes(&mut bytes).await {}
            }
        });
        let client = a.core();
        let peer = a.core().remote();
        client.clone().spawn(async move {
            let name = "/data";
            let handle = client.blocking(move || FileHandle::open(name.as_ref(), CREATE));
            let Some(Ok(handle)) = handle.await else { return };
            let file = handle.on(&client);
            let stream = Stream::connect(&client, &address).await;
            for number in 0.. {
                let sector = client.random() % 64;
                let _ = write(&file, sector * 512, number as u8, 1024).await;
                if let Ok(stream) = &stream {
                    let _ = stream.send_bytes(&[number as u8; 300]).await;
                }
                if number % 5 == 0 {
                    let _ = outcome(|done| file.sync(done)).await;
                    let _ = peer.call(|core| async move { core.now() }).await;
                }
                client.sleep(Duration::from_micros(client.random() % 500)).await;
            }
        });
        world.run_for(millis(chaos.below(40)));
        match chaos.below(5) {
            0 => a.kill(),
            1 => a.lose_power(),
            2 => b.kill(),
            3 => b.lose_power(),
            _ => world.cut(&a, &b),
        }
    }
    world.run_for(millis(10));
    world.fingerprint()
}

#[test]
fn a_seed_is_one_run() {
    let runs: Vec<u64> = (0..12).map(busy_world).collect();
    // Another thread, other memory, other core slots: the same runs.
    let again = std::thread::spawn(|| (0..12).map(busy_world).collect::<Vec<u64>>());
    assert_eq!(runs, again.join().unwrap());
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), runs.len());
}

#[test]
fn a_world_may_end_in_the_middle_of_everything() {
    let held = Rc::new(());
    for seed in 0..20 {
        let world = World::new(seed, Options::default());
        let host = world.host("a");
        let core = host.core();
        let (kept, inside) = (held.clone(), host.clone());
        core.clone().spawn(async move {
            let handle = inside.open("/f", CREATE).unwrap();
            let file = handle.on(&core);
            let waiting = handle.clone();
            handle.try_lock(0..1, true).unwrap();
            let other = inside.open("/f", CREATE).unwrap();
            let locked = core.blocking(move || other.lock(0..1, true).is_err());
            for n in 0..20 {
                let (waiting, done) = Waiting::new();
                file.write(n, &Buffer::zeroed(512).sgl(), true, done);
                drop(waiting);
            }
            let _ = locked.await;
            drop((kept, waiting));
        });
        world.run_for(Duration::from_micros(seed * 30));
    }
    assert_eq!(Rc::strong_count(&held), 1);
}

// ---- crashes ------------------------------------------------------------------------------------

#[test]
fn a_power_loss_keeps_what_was_synced_and_some_of_the_rest() {
    let mut left = BTreeSet::new();
    for seed in 0..60 {
        let world = World::new(seed, Options::default());
        let host = world.host("a");
        let file = made(&host, "/f");
        let core = host.core();
        world.block_on(&core, move |core| async move {
            let file = file.on(&core);
            write(&file, 0, 1, 4096).await.unwrap();
            outcome(|done| file.sync(done)).await.unwrap();
            write(&file, 0, 2, 4096).await.unwrap();
            let buffer = Buffer::from_bytes(&[3; 512]);
            outcome(|done| file.write(8192, &buffer.sgl(), true, done)).await.unwrap();
        });
        host.lose_power();
        let mut bytes = [0; 8704];
        host.open("/f", OpenOptions::read()).unwrap().read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes[8192..], [3; 512], "durable when answered");
        assert!(bytes[..4096].iter().all(|byte| [1, 2].contains(byte)));
        left.insert(bytes[..4096].iter().filter(|byte| **byte == 2).count() / 512);
    }
    assert!(left.contains(&0) && left.contains(&8) && left.len() > 3, "{left:?}");
}

#[test]
fn names_that_nobody_synced_may_vanish() {
    let mut found = BTreeSet::new();
    for seed in 0..40 {
        let world = World::new(seed, Options::default());
        let host = world.host("a");
        made(&host, "/synced");
        host.open("/new", CREATE).unwrap().sync().unwrap();
        host.kill();
        assert!(host.open("/new", OpenOptions::read()).is_ok(), "a kill loses nothing");
        host.lose_power();
        assert!(host.open("/synced", OpenOptions::read()).is_ok());
        found.insert(host.open("/new", OpenOptions::read()).is_ok());
    }
    assert_eq!(found.len(), 2);
}

/// Kills a process with writes in flight and starts the next; what it finds when it holds the lock
/// is what there will ever be.
fn kill_with_writes_in_flight(seed: u64) -> (Duration, usize, bool) {
    let world = World::new(seed, Options::swarm(seed));
    let host = world.host("a");
    let handle = host.open("/f", CREATE).unwrap();
    handle.set_len(64 << 10).unwrap();
    handle.try_lock(0..1, true).unwrap();
    let core = host.core();
    let answered = Rc::new(Cell::new(0u64));
    let (count, inside) = (answered.clone(), core.clone());
    core.spawn(async move {
        let file = Rc::new(handle.on(&inside));
        for n in 0..16 {
            let (file, count) = (file.clone(), count.clone());
            inside.spawn(async move {
                write(&file, n * 4096, 1, 4096).await.unwrap();
                count.set(count.get() | 1 << n);
            });
        }
    });
    world.run_while(millis(1000), || answered.get().count_ones() < 5);
    host.kill();
    let killed_at = world.now();
    let core = host.core();
    let (first, locked_at, last) = world
        .block_on(&core, |core| async move {
            let (mut first, mut last) = (vec![0; 64 << 10], vec![0; 64 << 10]);
            let handle = core.blocking(|| {
                let handle = FileHandle::open("/f".as_ref(), OpenOptions::write()).unwrap();
                handle.lock(0..1, true).unwrap();
                handle
            });
            let handle = handle.await.unwrap();
            let locked_at = core.now();
            handle.read_at(&mut first, 0).unwrap();
            core.sleep(Duration::from_secs(100)).await;
            handle.read_at(&mut last, 0).unwrap();
            (first, locked_at, last)
        })
        .unwrap();
    assert!(first == last, "seed {seed}: a dead process wrote under a lock of its successor");
    for n in (0..16).filter(|n| answered.get() & 1 << n != 0) {
        let range = n * 4096..(n + 1) * 4096;
        assert!(
            first[range].iter().all(|byte| *byte == 1),
            "seed {seed}: an answered write is gone"
        );
    }
    let landed = first.chunks(4096).filter(|block| block.iter().all(|byte| *byte == 1)).count();
    let torn = first.chunks(4096).any(|block| {
        let ones = block.iter().filter(|byte| **byte == 1).count();
        ones > 0 && ones < 4096
    });
    (locked_at - host.clock_at(killed_at), landed - answered.get().count_ones() as usize, torn)
}

#[test]
fn writes_of_a_killed_process_land_late_or_never_and_hold_its_lock() {
    let runs: Vec<_> = (0..60).map(kill_with_writes_in_flight).collect();
    assert!(runs.iter().any(|(waited, ..)| *waited > millis(100)), "some land late");
    assert!(runs.iter().any(|(_, landed, _)| *landed > 0), "some land");
    assert!(runs.iter().any(|(_, landed, _)| *landed < 11), "some do not");
    assert!(runs.iter().any(|(.., torn)| *torn), "some land in part");
}

#[test]
fn a_crash_falls_between_any_two_calls_of_a_worker() {
    let mut steps = BTreeSet::new();
    for seed in 0..80 {
        let world = World::new(seed, Options::default());
        let host = world.host("a");
        let core = host.core();
        let after = Arc::new(AtomicU64::new(0));
        let failed = after.clone();
        let work = core.blocking(move || {
            let file = FileHandle::open("/f".as_ref(), CREATE)?;
            for step in 1..=4u8 {
                file.write_at(&[step; 512], 0).inspect_err(|_| {
                    failed.store(u64::from(step), Ordering::Relaxed);
                })?;
            }
            file.sync()
        });
        drop(work);
        world.run_for(Duration::from_micros(seed * 7));
        host.kill();
        let mut bytes = [0; 512];
        let found = host.open("/f", OpenOptions::read()).and_then(|f| f.read_at(&mut bytes, 0));
        let step = if found.is_ok() { u64::from(bytes[0]) } else { 0 };
        if after.load(Ordering::Relaxed) > 0 {
            assert_eq!(after.load(Ordering::Relaxed), step + 1, "failed, and not done");
        }
        steps.insert(step);
    }
    assert_eq!(steps, BTreeSet::from([0, 1, 2, 3, 4]));
}

#[test]
fn the_work_of_a_dead_process_ends_even_if_it_would_not() {
    let world = World::new(1, Options::default());
    let host = world.host("a");
    let core = host.core();
    let work = core.blocking(|| {
        loop {
            let _ = FileHandle::open("/f".as_ref(), CREATE);
        }
    });
    world.run_for(millis(1));
    host.kill();
    drop::<crate::sync::Reply<()>>(work);
    assert_eq!(world.block_on(&host.core(), |_| async { 3 }), Some(3));
}

#[test]
fn a_panic_in_a_worker_is_the_tests() {
    let world = World::new(1, Options::default());
    let core = world.host("a").core();
    drop(core.blocking(|| panic!("found a bug")));
    let run = std::panic::AssertUnwindSafe(|| world.run_for(millis(10)));
    let panic = std::panic::catch_unwind(run).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"found a bug"));
}

#[test]
fn nothing_of_a_killed_process_runs_on() {
    let world = World::new(4, Options::default());
    let host = world.host("a");
    let core = host.core();
    let handle = host.open("/f", CREATE).unwrap();
    let remote = core.remote();
    let turns = Rc::new(Cell::new(0));
    let (count, inside) = (turns.clone(), core.clone());
    core.spawn(async move {
        loop {
            inside.sleep(millis(1)).await;
            count.set(count.get() + 1);
        }
    });
    world.run_for(millis(50));
    assert!((40..=50).contains(&turns.get()), "{}", turns.get());
    host.kill();
    let before = turns.get();
    world.run_for(millis(50));
    assert_eq!(turns.get(), before);
    assert!(!remote.send(|_| panic!("nobody is there")));
    assert!(handle.write_at(b"x", 0).is_err(), "its descriptor is closed");
    assert!(world.block_on(&core, |_| async {}).is_none());
}

#[test]
fn two_processes_on_a_host_die_alone() {
    let world = World::new(5, Options::default());
    let host = world.host("a");
    let (first, second) = (host.new_process(), host.new_process());
    let core = second.core();
    let file = first.open("/f", CREATE).unwrap();
    file.try_lock(0..10, true).unwrap();
    let other = second.open("/f", CREATE).unwrap();
    assert!(other.is_locked(0..10).unwrap());
    first.kill();
    assert!(!other.is_locked(0..10).unwrap());
    assert_eq!(world.block_on(&core, |_| async { 3 }), Some(3));
}

#[test]
fn a_frozen_process_misses_its_time() {
    let world = World::new(6, Options::default());
    let host = world.host("a");
    let core = host.core();
    host.process().freeze(Duration::from_secs(5));
    let late = world.block_on(&core, |core| async move {
        let before = core.now();
        core.sleep(millis(10)).await;
        core.now() - before
    });
    assert!(world.now().as_nanos() >= 5_000_000_000);
    assert!(late.unwrap() >= millis(10));
}

#[test]
fn clocks_differ_and_drift() {
    let world = World::new(7, Options::default());
    let (a, b) = (world.host("a"), world.host("b"));
    b.set_clock(Duration::from_secs(1), 400);
    let (core_a, core_b) = (a.core(), b.core());
    let (start_a, start_b) = (core_a.now(), core_b.now());
    assert_ne!(start_a, start_b);
    world.run_for(Duration::from_secs(1000));
    let (passed_a, passed_b) = (core_a.now() - start_a, core_b.now() - start_b);
    assert_eq!(passed_a, Duration::from_secs(1000));
    assert_eq!(passed_b, millis(1_000_400));
    let slept = world.block_on(&core_b, |core| async move {
        let before = core.now();
        core.sleep(Duration::from_secs(10)).await;
        core.now() - before
    });
    assert!((Duration::from_secs(10)..Duration::from_millis(10_001)).contains(&slept.unwrap()));
}

// ---- disks --------------------------------------------------------------------------------------

#[test]
fn faults_befall_what_they_were_planned_for() {
    let world = World::new(8, Options::default());
    let host = world.host("a");
    let handle = host.open("/f", CREATE).unwrap();
    handle.set_len(1 << 20).unwrap();
    let disk = host.disk("/f").unwrap();
    let core = host.core();
    let spoil = disk.clone();
    world
        .block_on(&core, |core| async move {
            let file = handle.on(&core);
            spoil.fault(Fault {
                range: 4096..8192,
                ..Fault::once(On::Write, Harm::Errno(libc::EIO))
            });
            write(&file, 0, 1, 4096).await.unwrap();
            let error = write(&file, 4096, 1, 4096).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Medium);
            assert!(error.to_string().contains("write at 4096"), "{error}");
            write(&file, 4096, 1, 4096).await.unwrap();

            spoil.fault(Fault::once(On::Write, Harm::Errno(libc::ENOSPC)));
            let full = write(&file, 0, 9, 4096).await.unwrap_err();
            assert_eq!(full.kind(), ErrorKind::NoSpace);
            assert_eq!(read(&file, 0, 4096).await.unwrap(), [1; 4096], "nothing was written");

            spoil.fault(Fault::once(On::Write, Harm::Lost));
            write(&file, 0, 2, 4096).await.unwrap();
            assert_eq!(read(&file, 0, 4096).await.unwrap(), [1; 4096]);

            spoil.fault(Fault::once(On::Write, Harm::Misdirected(65536)));
            write(&file, 0, 3, 4096).await.unwrap();
            assert_eq!(read(&file, 0, 4096).await.unwrap(), [1; 4096]);
            assert_eq!(read(&file, 65536, 4096).await.unwrap(), [3; 4096]);

            spoil.fault(Fault::once(On::Read, Harm::Decay));
            assert_ne!(read(&file, 0, 4096).await.unwrap(), [1; 4096]);

            spoil.fault(Fault::always(On::Any, Harm::Errno(libc::EIO)));
            assert!(read(&file, 0, 4096).await.is_err());
            assert!(outcome(|done| file.sync(done)).await.is_err());
            assert!(file.handle().sync().is_err() && file.handle().read_at(&mut [0], 0).is_err());
            spoil.heal();
            assert!(read(&file, 0, 4096).await.is_ok());
        })
        .unwrap();
}

#[test]
fn a_hanging_disk_answers_when_it_goes_on() {
    let world = World::new(9, Options::default());
    let host = world.host("a");
    let file = host.open("/f", CREATE).unwrap().on(&host.core());
    let disk = host.disk("/f").unwrap();
    disk.hang();
    let core = file.core().clone();
    let done = Rc::new(Cell::new(false));
    let tell = done.clone();
    core.spawn(async move {
        write(&file, 0, 1, 8192).await.unwrap();
        tell.set(true);
    });
    world.run_for(Duration::from_secs(1000));
    assert!(!done.get());
    disk.go_on();
    assert!(world.run_while(millis(100), || !done.get()));
    let mut bytes = [0; 8192];
    disk.read(0, &mut bytes);
    assert_eq!(bytes, [1; 8192]);
}

#[test]
fn a_shared_disk_has_power_and_memory_of_its_own() {
    for seed in 0..20 {
        let world = World::new(seed, Options::default());
        let (a, b) = (world.host("a"), world.host("b"));
        let disk = world.disk(1 << 20);
        disk.attach(&a, "/dev/san");
        disk.attach(&b, "/dev/san");
        let (on_a, on_b) = (
            a.open("/dev/san", OpenOptions::write()).unwrap(),
            b.open("/dev/san", OpenOptions::write()).unwrap(),
        );
        on_a.try_lock(0..1, true).unwrap();
        on_b.try_lock(0..1, true).unwrap();
        on_a.write_at(&[7; 4096], 0).unwrap();
        a.lose_power();
        let mut bytes = [0; 4096];
        on_b.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 4096], "the array did not lose power");
        assert!(disk.unsettled() > 0);
        let file = on_b.on(&b.core());
        let core = file.core().clone();
        let waiting = Rc::new(RefCell::new(None));
        let answer = waiting.clone();
        core.spawn(async move {
            *answer.borrow_mut() = Some(write(&file, 4096, 8, 4096).await);
        });
        world.run_for(Duration::from_micros(15));
        disk.lose_power();
        assert_eq!(disk.unsettled(), 0);
        world.run_for(millis(100));
        let answer = waiting.take().expect("who waits is told");
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Medium);
        let (info, end) = (on_b.info().unwrap(), on_b.write_at(&[0; 512], 1 << 20));
        assert_eq!((info.size, end.is_err()), (1 << 20, true));
    }
}

// ---- network ------------------------------------------------------------------------------------

/// A connection between two hosts, with what each end hears of it.
struct Line {
    world: World,
    a: Host,
    b: Host,
    heard_by_a: Rc<RefCell<Vec<io::Result<usize>>>>,
    heard_by_b: Rc<RefCell<Vec<io::Result<usize>>>>,
}

type Heard = Rc<RefCell<Vec<io::Result<usize>>>>;

fn listen_on(core: &Core, stream: Rc<Stream>, heard: &Heard) {
    let heard = heard.clone();
    core.spawn(async move {
        loop {
            let got = stream.recv_bytes(&mut [0; 64]).await;
            let over = !matches!(got, Ok(1..));
            heard.borrow_mut().push(got);
            if over {
                return;
            }
        }
    });
}

impl Line {
    /// `a` sends a byte every 10 ms; `b` answers nothing.
    fn new(seed: u64, options: Options) -> Self {
        let world = World::new(seed, options);
        let (a, b) = (world.host("a"), world.host("b"));
        let (heard_by_a, heard_by_b) = (Heard::default(), Heard::default());
        let (server, client, address) = (b.core(), a.core(), port(&b, 3260));
        let (heard, listen_at) = (heard_by_b.clone(), address.clone());
        server.clone().spawn(async move {
            let listener = Listener::bind(&server, &listen_at).unwrap();
            let stream = listener.accept().await.unwrap();
            listen_on(&server, Rc::new(stream), &heard);
            std::future::pending::<()>().await;
        });
        world.run_for(millis(1));
        let heard = heard_by_a.clone();
        client.clone().spawn(async move {
            let stream = Rc::new(Stream::connect(&client, &address).await.unwrap());
            listen_on(&client, stream.clone(), &heard);
            while stream.send_bytes(b"x").await.is_ok() {
                client.sleep(millis(10)).await;
            }
        });
        world.run_for(millis(500));
        assert!(heard_by_b.borrow().len() > 20 && heard_by_a.borrow().is_empty());
        Self { world, a, b, heard_by_a, heard_by_b }
    }

    fn last(heard: &Heard) -> Option<io::ErrorKind> {
        heard.borrow().last()?.as_ref().err().map(io::Error::kind)
    }

    fn bytes(heard: &Heard) -> usize {
        heard.borrow().iter().flatten().sum()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_a_cut_link_held_back_arrives_when_it_is_mended() {
    let line = Line::new(10, Options::default());
    line.world.cut(&line.a, &line.b);
    line.world.run_for(millis(100));
    let before = Line::bytes(&line.heard_by_b);
    line.world.run_for(10 * SECOND);
    assert_eq!(Line::bytes(&line.heard_by_b), before);
    assert_eq!(Line::last(&line.heard_by_a), None, "not given up yet");
    line.world.mend(&line.a, &line.b);
    line.world.run_for(SECOND);
    assert!(Line::bytes(&line.heard_by_b) > before + 1000);
}

#[test]
fn a_sender_gives_up_and_its_peer_does_not_know() {
    for both in [false, true] {
        let line = Line::new(11, Options::default());
        // Cut this way the bytes arrive and nothing that says so comes back.
        line.world.cut(&line.b, &line.a);
        if both {
            line.world.cut(&line.a, &line.b);
        }
        line.world.run_for(59 * SECOND);
        assert_eq!(Line::last(&line.heard_by_a), None);
        line.world.run_for(10 * SECOND);
        assert_eq!(Line::last(&line.heard_by_a), Some(io::ErrorKind::TimedOut));
        assert_eq!(Line::last(&line.heard_by_b), None, "half a connection");
        let waited = line.heard_by_b.borrow().len();
        line.world.run_for(1000 * SECOND);
        assert!(line.heard_by_b.borrow().len() <= waited + 1);
    }
}

#[test]
fn a_killed_process_is_heard_of_and_a_dark_host_is_not() {
    let line = Line::new(12, Options::default());
    line.b.kill();
    line.world.run_for(SECOND);
    assert!(!line.heard_by_a.borrow().is_empty(), "the kernel closed it");

    let line = Line::new(13, Options::default());
    line.b.lose_power();
    line.world.run_for(30 * SECOND);
    assert!(line.heard_by_a.borrow().is_empty(), "nobody says anything");
    drop(line.b.core());
    line.world.run_for(SECOND);
    assert_eq!(Line::last(&line.heard_by_a), Some(io::ErrorKind::ConnectionReset));

    let line = Line::new(14, Options::default());
    line.a.lose_power();
    line.world.run_for(10_000 * SECOND);
    let heard = line.heard_by_b.borrow();
    assert!(heard.iter().all(Result::is_ok), "who only listens waits for ever");
}

#[test]
fn a_dark_host_is_not_reachable_and_a_restarted_one_listens_again() {
    let world = World::new(15, Options::default());
    let (a, b) = (world.host("a"), world.host("b"));
    let address = port(&b, 1);
    let connect = |address: Address| {
        let core = a.core();
        world.block_on(&core, |core| async move {
            Stream::connect(&core, &address).await.map(drop).map_err(|error| error.kind())
        })
    };
    b.core();
    assert_eq!(connect(address.clone()), Some(Err(io::ErrorKind::ConnectionRefused)));
    b.lose_power();
    assert_eq!(connect(address.clone()), Some(Err(io::ErrorKind::TimedOut)));
    for _ in 0..2 {
        let (server, at) = (b.core(), address.clone());
        server.clone().spawn(async move {
            let listener = Listener::bind(&server, &at).unwrap();
            while listener.accept().await.is_ok() {}
        });
        world.run_for(millis(1));
        assert_eq!(connect(address.clone()), Some(Ok(())));
        b.kill();
    }
    let nowhere = Address::Tcp("203.0.113.9:1".parse().unwrap());
    assert_eq!(connect(nowhere), Some(Err(io::ErrorKind::HostUnreachable)));
}

#[test]
fn swarms_differ() {
    let kinds: BTreeSet<String> =
        (0..50).map(|seed| format!("{:?}", Options::swarm(seed))).collect();
    assert_eq!(kinds.len(), 50);
}
