//! The layers under the conformance suite, over a plain device in memory, and what they are for.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use block::completion::Waiting;
use block::conformance::{Bench, Boxed, Report, Shape, Subject, run};
use block::{
    Answer, Asked, Buffer, Device, ErrorKind, Geometry, Keeps, Op, OpSet, Outcome, Request, Watch,
    step,
};
use rt::{Config, Core};

use super::{Action, Budget, Delay, Delays, Drive, Fault, Limit, Make, Requests, Rule, Switches};

/// Bytes of one core, answered in place.
struct Plain {
    bytes: RefCell<Vec<u8>>,
    geometry: Geometry,
    watch: Watch,
    asked: Cell<u32>,
}

impl Plain {
    fn new(size: u64, block_size: u32) -> Rc<Self> {
        let steps = OpSet::COMPARE_AND_WRITE | OpSet::OR_WRITE;
        let ops = steps | OpSet::DISCARD | OpSet::WRITE_ZEROES;
        let exclusive_max = 8 * block_size;
        Rc::new(Self {
            bytes: RefCell::new(vec![0; size as usize]),
            geometry: Geometry { ops, exclusive_max, ..Geometry::plain(size, block_size) },
            watch: Watch::new(),
            asked: Cell::new(0),
        })
    }
}

impl Device for Plain {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        self.asked.set(self.asked.get() + 1);
        if let Err(error) = self.geometry.check(request) {
            return asked.now(Err(error));
        }
        let mut bytes = self.bytes.borrow_mut();
        let range = request.offset as usize..(request.offset + request.len) as usize;
        match request.op {
            Op::Read => request.data.copy_in(0, &bytes[range]),
            Op::Write { .. } => request.data.copy_out(0, &mut bytes[range]),
            Op::CompareAndWrite { .. } | Op::OrWrite { .. } => {
                let mut data = vec![0; request.data.len()];
                request.data.copy_out(0, &mut data);
                return asked.now(step::modify(request.op, &data, &mut bytes[range]).map(|()| 0));
            }
            Op::Discard | Op::WriteZeroes { .. } => bytes[range].fill(0),
            _ => {}
        }
        asked.now(Ok(request.data.len() as u64))
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

struct LayerBench<F> {
    core: Core,
    make: F,
}

struct Layer(Rc<dyn Device>);

impl Subject for Layer {
    fn device(&self) -> Rc<dyn Device> {
        self.0.clone()
    }
}

impl<F: Fn(&Core, Rc<dyn Device>) -> Rc<dyn Device>> Bench for LayerBench<F> {
    fn make(&self, shape: Shape) -> Boxed<'_, Option<Box<dyn Subject>>> {
        let fits = shape.size <= 1 << 24 && !shape.read_only;
        let made = fits.then(|| {
            let lower = Plain::new(shape.size, shape.block_size);
            Box::new(Layer((self.make)(&self.core, lower))) as Box<dyn Subject>
        });
        Box::pin(async { made })
    }

    fn pause(&self) -> Boxed<'_, ()> {
        Box::pin(self.core.sleep(Duration::from_micros(100)))
    }
}

/// What a device of one core, one size and few operations cannot be asked.
const SKIPPED: [&str; 13] = [
    "far_end",
    "read_only",
    "seen_elsewhere",
    "status",
    "copy",
    "overlapping_writes_elsewhere",
    "neighbours_elsewhere",
    "power_cut",
    "compare_excludes_elsewhere",
    "or_excludes_elsewhere",
    "resize",
    "resize_elsewhere",
    "resize_under_load",
];

fn on_a_core<T: 'static, F: Future<Output = T> + 'static>(f: impl FnOnce(Core) -> F) -> T {
    Core::block_on(&Config::new("volume"), f).unwrap()
}

fn suite(make: impl Fn(&Core, Rc<dyn Device>) -> Rc<dyn Device> + 'static) -> Report {
    on_a_core(|core| async move { run(&LayerBench { core, make }).await })
}

#[test]
fn delays_conform() {
    let short = Delays { reads: Duration::from_micros(20), others: Duration::from_micros(30) };
    let writes = Delays { reads: Duration::ZERO, others: Duration::from_micros(50) };
    for delays in [Delays::default(), short, writes] {
        suite(move |core, lower| Delay::new(core, lower, delays)).expect(&SKIPPED);
    }
}

#[test]
fn limits_conform() {
    let some = |iops, mib| model::Limits {
        iops: Some(iops),
        bandwidth: Some(model::Size::mib(mib)),
        burst_ms: Some(10),
    };
    for limits in [model::Limits::default(), some(20_000, 500), some(2_000_000, 20_000)] {
        let budget = std::sync::Arc::new(Budget::new(limits));
        suite(move |core, lower| Limit::new(core, lower, budget.clone())).expect(&SKIPPED);
    }
}

#[test]
fn a_fault_without_rules_conforms() {
    suite(|core, lower| Fault::new(core, lower, 1)).expect(&SKIPPED);
}

#[test]
fn a_drive_with_a_medium_conforms() {
    let loaded = |core: &Core, lower: Rc<dyn Device>| -> Rc<dyn Device> {
        let drive = Drive::new(core, lower.geometry().block_size);
        drive.exchange(Some(lower)).unwrap();
        drive
    };
    suite(loaded).expect(&SKIPPED);
}

#[test]
fn media_come_and_go_under_a_drive() {
    on_a_core(|core| async move {
        let drive = Drive::new(&core, 2048);
        assert_eq!(drive.geometry(), Geometry::plain(0, 2048));
        assert_eq!(read(&*drive, 0, 2048).await, Err(ErrorKind::OutOfRange));
        assert_eq!(ask(&*drive, &Request::flush()).await, Ok(0));
        let wrong = drive.exchange(Some(Plain::new(1 << 16, 512))).err().unwrap();
        assert_eq!(wrong.kind(), ErrorKind::Invalid);

        let (first, second) = (Plain::new(1 << 16, 2048), Plain::new(1 << 17, 2048));
        write(&*first, 0, 1, 2048).await.unwrap();
        write(&*second, 0, 2, 2048).await.unwrap();
        let seen = drive.watch().version();
        assert!(drive.exchange(Some(first.clone())).unwrap().is_none());
        assert_ne!(drive.watch().version(), seen);
        assert_eq!(read(&*drive, 0, 2048).await, Ok(vec![1; 2048]));

        let slow = Delays { reads: Duration::from_millis(2), ..Delays::default() };
        let slow = Delay::new(&core, first.clone(), slow);
        drop(drive.exchange(Some(slow)).unwrap());
        let buffer = Buffer::zeroed(2048);
        let waiting = later(&*drive, &Request::read(0, buffer.sgl()));
        let former = drive.exchange(Some(second.clone())).unwrap();
        assert_eq!(drive.geometry().size, 1 << 17);
        assert_eq!(read(&*drive, 0, 2048).await, Ok(vec![2; 2048]));
        assert_eq!(waiting.outcome().await, Ok(2048), "what was asked goes on to its end");
        assert_eq!(buffer.to_vec(), [1; 2048]);
        drop(former);

        // What changes about the medium in the drive is told, and of the one that was in no more.
        for (medium, told) in [(&second, true), (&first, false), (&second, true)] {
            core.yield_now().await;
            let seen = drive.watch().version();
            medium.watch().notify();
            core.yield_now().await;
            assert_eq!(drive.watch().version() != seen, told);
        }
        drop(drive.exchange(None).unwrap());
        core.yield_now().await;
        assert_eq!(Rc::strong_count(&second), 1, "a medium that is out is let go");
        drive.exchange(Some(second.clone())).unwrap();
        drop(drive);
        core.yield_now().await;
        core.yield_now().await;
        assert_eq!(Rc::strong_count(&second), 1, "also by a drive that is gone");
    });
}

async fn ask(device: &dyn Device, request: &Request<'_>) -> Outcome {
    device.io(request).await
}

async fn write(device: &dyn Device, offset: u64, byte: u8, len: usize) -> Outcome {
    let buffer = Buffer::from_bytes(&vec![byte; len]);
    device.io(&Request::write(offset, buffer.sgl())).await
}

async fn read(device: &dyn Device, offset: u64, len: usize) -> Result<Vec<u8>, ErrorKind> {
    let buffer = Buffer::zeroed(len);
    let outcome = device.io(&Request::read(offset, buffer.sgl())).await;
    outcome.map(|_| buffer.to_vec()).map_err(|error| error.kind())
}

#[test]
fn a_late_write_is_applied_late_and_not_before_its_answer_is_due() {
    on_a_core(|core| async move {
        let lower = Plain::new(1 << 16, 512);
        let others = Duration::from_millis(20);
        let delay = Delay::new(&core, lower.clone(), Delays { others, ..Delays::default() });
        let start = core.now();
        let mut first = pin!(write(&*delay, 0, 1, 512));
        let mut second = pin!(write(&*delay, 512, 2, 512));
        let both = async {
            core.timeout(Duration::ZERO, first.as_mut()).await;
            core.timeout(Duration::ZERO, second.as_mut()).await;
            assert_eq!(read(&*delay, 0, 1024).await.unwrap(), [0; 1024], "reads are on time");
            assert_eq!(lower.asked.get(), 1);
            (first.await, second.await)
        };
        assert_eq!(both.await, (Ok(512), Ok(512)));
        assert!(core.now() - start >= others);
        assert_eq!(read(&*delay, 0, 1024).await.unwrap(), [[1; 512], [2; 512]].concat());
    });
}

/// Asks for what cannot be answered in place.
fn later(device: &dyn Device, request: &Request<'_>) -> Waiting {
    match device.ask(request) {
        Answer::Later(waiting) => waiting,
        Answer::Now(outcome) => panic!("answered in place: {outcome:?}"),
    }
}

#[test]
fn a_delay_that_is_dropped_answers_what_waits() {
    on_a_core(|core| async move {
        let delays = Delays { others: Duration::from_millis(5), ..Delays::default() };
        let lower = Plain::new(1 << 16, 512);
        let delay = Delay::new(&core, lower.clone(), delays);
        let waiting = later(&*delay, &Request::plain(Op::Discard, 0, 512));
        drop(delay);
        assert_eq!(waiting.outcome().await, Ok(0), "the line is served to its end");
        assert_eq!(lower.asked.get(), 1);
    });
}

#[test]
fn rules_choose_by_kind_range_and_number() {
    on_a_core(|core| async move {
        let fault = Fault::new(&core, Plain::new(1 << 16, 512), 1);
        let seen = fault.watch().version();
        fault.add(Rule {
            range: 4096..8192,
            skip: 1,
            count: 2,
            ..Rule::always(Requests::Writes, Action::Fail(ErrorKind::NoSpace))
        });
        assert_eq!(fault.geometry().keeps, Keeps::Nothing);
        assert_ne!(fault.watch().version(), seen);
        let kind = |outcome: Outcome| outcome.err().map(|error| error.kind());
        let full = Some(ErrorKind::NoSpace);
        for (offset, len, wanted) in [
            (0, 4096, None),
            (8192, 512, None),
            (3584, 1024, None),
            (3584, 1024, full),
            (7680, 512, full),
            (4096, 512, None),
        ] {
            assert_eq!(kind(write(&*fault, offset, 9, len).await), wanted, "{len} at {offset}");
        }
        assert_eq!(read(&*fault, 7680, 512).await.unwrap(), [0; 512], "it was not written");
        assert!(ask(&*fault, &Request::flush()).await.is_ok());
        fault.add(Rule::always(Requests::Flushes, Action::Fail(ErrorKind::Offline)));
        assert_eq!(kind(ask(&*fault, &Request::flush()).await), Some(ErrorKind::Offline));
        let beyond = kind(write(&*fault, 1 << 16, 1, 512).await);
        assert_eq!(beyond, Some(ErrorKind::OutOfRange), "the device's own word comes first");
        fault.clear();
        assert_eq!(fault.geometry().keeps, Keeps::Data);
        assert!(ask(&*fault, &Request::flush()).await.is_ok());
    });
}

#[test]
fn chance_is_the_same_for_the_same_seed() {
    let failed = |seed| {
        on_a_core(move |core| async move {
            let fault = Fault::new(&core, Plain::new(1 << 16, 512), seed);
            let action = Action::Fail(ErrorKind::Medium);
            fault.add(Rule { per_mille: 250, ..Rule::always(Requests::Reads, action) });
            let mut failed = Vec::new();
            for round in 0..400 {
                if read(&*fault, 0, 512).await.is_err() {
                    failed.push(round);
                }
            }
            failed
        })
    };
    assert_eq!(failed(7), failed(7));
    assert_ne!(failed(7), failed(8));
    assert!((60..140).contains(&failed(7).len()), "about a quarter");
}

#[test]
fn torn_and_lost_writes() {
    on_a_core(|core| async move {
        let fault = Fault::new(&core, Plain::new(1 << 16, 512), 1);
        write(&*fault, 0, 1, 2048).await.unwrap();
        let torn = Rule::always(Requests::Writes, Action::Tear { bytes: 700 });
        fault.add(Rule { count: 1, ..torn });
        let outcome = write(&*fault, 512, 2, 1536).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Medium);
        let bytes = read(&*fault, 0, 2048).await.unwrap();
        assert_eq!(bytes, [vec![1; 512], vec![2; 700], vec![1; 836]].concat());
        fault.clear();
        fault.add(Rule::always(Requests::Writes, Action::Lose));
        assert_eq!(write(&*fault, 0, 3, 512).await, Ok(512));
        assert_eq!(ask(&*fault, &Request::plain(Op::Discard, 0, 512)).await, Ok(0));
        assert_eq!(read(&*fault, 0, 512).await.unwrap(), [1; 512]);
    });
}

#[test]
fn what_hangs_goes_on_when_it_is_released_or_ends_with_the_device() {
    on_a_core(|core| async move {
        let lower = Plain::new(1 << 16, 512);
        let fault = Fault::new(&core, lower.clone(), 1);
        fault.add(Rule { count: 1, ..Rule::always(Requests::Writes, Action::Hang) });
        let buffer = Buffer::from_bytes(&[5; 512]);
        let waiting = later(&*fault, &Request::write(0, buffer.sgl()));
        fault.clear();
        assert_eq!((fault.hanging(), lower.asked.get()), (1, 0));
        assert_eq!(fault.geometry().keeps, Keeps::Nothing, "a write may still come");
        assert!(!buffer.is_unshared());
        fault.release();
        assert_eq!(waiting.outcome().await, Ok(512));
        assert_eq!(fault.geometry().keeps, Keeps::Data);
        assert_eq!(read(&*fault, 0, 512).await.unwrap(), [5; 512]);

        fault.add(Rule::always(Requests::All, Action::Hang));
        let waiting = later(&*fault, &Request::flush());
        drop(fault);
        assert_eq!(waiting.outcome().await.unwrap_err().kind(), ErrorKind::Aborted);
    });
}

thread_local! {
    /// What is made below a switch: makers go from core to core, devices do not.
    static BELOW: RefCell<Option<Rc<dyn Device>>> = const { RefCell::new(None) };
}

fn maker(device: Rc<dyn Device>) -> Make {
    BELOW.set(Some(device));
    std::sync::Arc::new(|_| BELOW.with_borrow(|it| it.clone().unwrap()))
}

#[test]
fn a_switch_that_is_held_now_and_then_conforms() {
    let switch = |core: &Core, lower: Rc<dyn Device>| {
        let switches = Switches::new(maker(lower));
        let (device, within) = (switches.device(core), core.clone());
        core.spawn(async move {
            for _ in 0..50 {
                switches.hold().await;
                within.sleep(Duration::from_micros(30)).await;
                switches.let_go(None).await;
                within.sleep(Duration::from_micros(30)).await;
            }
        });
        device
    };
    suite(switch).expect(&SKIPPED);
}

#[test]
fn what_comes_while_a_switch_is_held_goes_to_the_new_device() {
    on_a_core(|core| async move {
        let (old, new) = (Plain::new(1 << 16, 512), Plain::new(1 << 17, 512));
        let switches = Switches::new(maker(old.clone()));
        let [one, other] = [switches.device(&core), switches.device(&core)];
        write(&*one, 0, 1, 512).await.unwrap();
        switches.hold().await;
        let (asked, seen) = (old.asked.get(), one.watch().version());
        let late = switches.device(&core);
        let data = Buffer::from_bytes(&[2; 512]);
        let held = [&one, &other, &late].map(|it| later(&**it, &Request::write(512, data.sgl())));
        core.sleep(Duration::from_millis(1)).await;
        assert_eq!((old.asked.get(), new.asked.get()), (asked, 0), "nobody is asked");
        switches.let_go(Some(maker(new.clone()))).await;
        for held in held {
            assert_eq!(held.outcome().await, Ok(512));
        }
        assert_eq!((old.asked.get(), new.asked.get()), (asked, 3));
        assert_ne!(one.watch().version(), seen, "clients are told of its size");
        for device in [one, other, late, switches.device(&core)] {
            assert_eq!(device.geometry().size, 1 << 17);
            assert_eq!(read(&*device, 512, 512).await, Ok(vec![2; 512]));
        }
        BELOW.take();
        assert_eq!(Rc::strong_count(&old), 1, "the old one is let go");
        // It stays what it is, if nothing else is given.
        BELOW.set(Some(new.clone()));
        let device = switches.device(&core);
        switches.hold().await;
        let held = later(&*device, &Request::flush());
        drop(device);
        switches.let_go(None).await;
        assert!(held.outcome().await.is_err(), "nobody waits for it any more");
    });
}
