//! Limits on simulated cores: what is given in any time at all, to whom, and that everybody gets
//! it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::{
    Asked, Buffer, Device, ErrorKind, Geometry, Keeps, Op, OpSet, Outcome, Request, Watch,
};
use model::{Limits, Size};
use proptest::prelude::*;
use rt::sim::{Options, World};
use rt::{Core, Time};

use super::{Budget, HASTE_MAX, Limit};

/// What was let through: when, on which core, how many bytes.
type Log = Rc<RefCell<Vec<(Time, usize, u64)>>>;

/// Answers in place, and notes when.
struct Noting {
    core: Core,
    number: usize,
    log: Log,
    watch: Watch,
}

impl Device for Noting {
    fn geometry(&self) -> Geometry {
        let (keeps, ops) = (Keeps::Nothing, OpSet::DISCARD);
        Geometry { keeps, ops, ..Geometry::plain(1 << 30, 512) }
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.geometry().check(request) {
            return asked.now(Err(error));
        }
        let bytes = request.data.len() as u64;
        self.log.borrow_mut().push((self.core.now(), self.number, bytes));
        asked.now(Ok(bytes))
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

/// Cores of one machine with a handle each of one limited LU.
struct Bench {
    world: World,
    budget: Arc<Budget>,
    log: Log,
    handles: Vec<(Core, Rc<Limit>)>,
}

impl Bench {
    fn new(cores: usize, limits: Limits) -> Self {
        let world = World::new(7, Options::default());
        let (host, log) = (world.host("node"), Log::default());
        let budget = Arc::new(Budget::new(limits));
        let handle = |number| {
            let core = host.core();
            let (log, watch) = (log.clone(), Watch::new());
            let lower = Rc::new(Noting { core: core.clone(), number, log, watch });
            let limit = Limit::new(&core, lower, budget.clone());
            (core, limit)
        };
        let handles = (0..cores).map(handle).collect();
        // A machine that has run for a while, so that everything is saved up.
        world.run_for(Duration::from_secs(10_000));
        Self { world, budget, log, handles }
    }

    /// Asks on a core, after a while; the answer is noted by nobody but the log.
    fn ask(&self, core: usize, after: Duration, request: (Op, usize)) {
        let (core, limit) = self.handles[core].clone();
        let (op, bytes) = request;
        core.clone().spawn(async move {
            core.sleep(after).await;
            let buffer = Buffer::zeroed(bytes);
            let len = bytes as u64;
            let device: &dyn Device = &*limit;
            let outcome = device.io(&Request { op, offset: 0, len, data: buffer.sgl() }).await;
            assert_eq!(outcome, Ok(len));
        });
    }

    fn writes(&self, core: usize, count: usize, bytes: usize) {
        for _ in 0..count {
            self.ask(core, Duration::ZERO, (WRITE, bytes));
        }
    }

    fn quiet(&self, limit: Duration) -> bool {
        self.world.run_until_quiet(limit)
    }

    fn set(&self, limits: Limits) {
        self.budget.set(limits, self.handles[0].0.now());
    }
}

const WRITE: Op = Op::Write { fua: false, atomic: false };

fn iops(iops: u32, burst_ms: u32) -> Limits {
    Limits { iops: Some(iops), bandwidth: None, burst_ms: Some(burst_ms) }
}

fn bandwidth(bytes: u64, burst_ms: u32) -> Limits {
    Limits { iops: None, bandwidth: Some(Size(bytes)), burst_ms: Some(burst_ms) }
}

/// The most that any stretch of the log has over what `rate` gives in that time, in bytes or
/// requests.
fn excess(log: &[(Time, usize, u64)], rate: u64, of: impl Fn(u64) -> u64) -> i128 {
    let mut most = 0;
    for (at, &(begin, ..)) in log.iter().enumerate() {
        let mut sum = 0;
        for &(end, _, bytes) in &log[at..] {
            sum += i128::from(of(bytes));
            let given = (end - begin).as_nanos() * u128::from(rate) / 1_000_000_000;
            most = most.max(sum - given as i128);
        }
    }
    most
}

#[test]
fn a_full_queue_gets_its_rate_and_the_burst_once() {
    let bench = Bench::new(1, iops(100, 500));
    bench.writes(0, 250, 4096);
    let begin = bench.handles[0].0.now();
    assert!(bench.quiet(Duration::from_secs(60)));
    let log = bench.log.borrow();
    let within = |time: Duration| log.iter().filter(|(at, ..)| *at - begin <= time).count();
    assert_eq!(log.len(), 250);
    assert!((50..=52).contains(&within(Duration::from_millis(10))), "the burst at once");
    assert!((149..=152).contains(&within(Duration::from_secs(1))), "and then the rate");
    let held = bench.budget.held();
    assert!((198..=200).contains(&held.requests), "{held:?}");
    // 10 ms, 20 ms, ... 2 s.
    assert!((200..=202).contains(&held.time.as_secs()), "{held:?}");
}

#[test]
fn cores_with_lines_take_turns() {
    let bench = Bench::new(3, iops(1000, 10));
    for core in 0..3 {
        bench.writes(core, if core == 0 { 3000 } else { 300 }, 512);
    }
    assert!(bench.quiet(Duration::from_secs(10)));
    let log = bench.log.borrow();
    let of = |core| log.iter().take(600).filter(|(_, at, _)| *at == core).count();
    for core in 0..3 {
        assert!((180..=220).contains(&of(core)), "core {core} has {} of 600", of(core));
    }
    assert_eq!(log.len(), 3600);
}

#[test]
fn flushes_and_refusals_pass_and_a_discard_is_a_request_without_bytes() {
    let bench = Bench::new(1, bandwidth(1 << 20, 10));
    bench.writes(0, 4, 1 << 20);
    let (core, limit) = bench.handles[0].clone();
    let passed = bench.world.block_on(&core, |core| async move {
        let begin = core.now();
        let device: &dyn Device = &*limit;
        device.io(&Request::flush()).await.unwrap();
        let far = Request::plain(Op::Discard, 1 << 40, 512);
        assert_eq!(device.io(&far).await.unwrap_err().kind(), ErrorKind::OutOfRange);
        core.now() - begin
    });
    assert!(passed.unwrap() < Duration::from_millis(1), "{passed:?}");
    assert!(bench.quiet(Duration::from_secs(10)));
    drop(bench);

    let bench = Bench::new(1, bandwidth(1 << 20, 10));
    let begin = bench.world.now();
    let limit = bench.handles[0].1.clone();
    let discarded = bench.world.block_on(&bench.handles[0].0, |_| async move {
        let device: &dyn Device = &*limit;
        device.io(&Request::plain(Op::Discard, 0, 1 << 29)).await
    });
    assert_eq!(discarded, Some(Ok(0)));
    assert!(bench.world.now() - begin < Duration::from_millis(10));
}

#[test]
fn another_limit_is_in_force_for_those_that_wait_too() {
    let bench = Bench::new(2, iops(10, 10));
    bench.writes(0, 500, 512);
    bench.writes(1, 500, 512);
    bench.world.run_for(Duration::from_secs(5));
    assert!((50..=53).contains(&bench.log.borrow().len()), "{}", bench.log.borrow().len());
    bench.set(iops(100, 10));
    bench.world.run_for(Duration::from_secs(2));
    let passed = bench.log.borrow().len();
    assert!((245..=256).contains(&passed), "{passed}");
    bench.set(Limits::default());
    bench.world.run_for(Duration::from_millis(60));
    assert_eq!(bench.log.borrow().len(), 1000, "without limits nobody waits");
}

#[test]
fn who_waits_for_the_end_does_not_wait_for_the_budget_and_pays_later() {
    let bench = Bench::new(1, iops(10, 10));
    let hasten = |bench: &Bench| {
        bench.handles[0].0.clone().spawn({
            let limit = bench.handles[0].1.clone();
            async move { limit.hasten() }
        })
    };
    bench.writes(0, 200, 512);
    bench.world.run_for(Duration::from_millis(50));
    hasten(&bench);
    bench.world.run_for(Duration::from_millis(10));
    assert_eq!(bench.log.borrow().len(), 200);
    // 200 requests at 10 a second are paid for in 20 s.
    bench.writes(0, 1, 512);
    bench.world.run_for(Duration::from_secs(19));
    assert_eq!(bench.log.borrow().len(), 200);
    bench.world.run_for(Duration::from_secs(2));
    assert_eq!(bench.log.borrow().len(), 201);
    // Whoever does that all the time gains a minute, once.
    for _ in 0..10 {
        bench.writes(0, 1000, 512);
        bench.world.run_for(Duration::from_millis(10));
        hasten(&bench);
        bench.world.run_for(Duration::from_millis(90));
    }
    let (given, most) = (bench.log.borrow().len(), 201 + 10 * HASTE_MAX.as_secs() as usize + 12);
    assert!((800..=most).contains(&given), "{given}");
}

#[derive(Clone, Debug)]
struct Ask {
    core: usize,
    after_us: u64,
    blocks: usize,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = (0..3_usize, 0..300_000_u64, 1..256_usize);
    let ask = ask.prop_map(|(core, after_us, blocks)| Ask { core, after_us, blocks });
    proptest::collection::vec(ask, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Over any time: at most burst and rate; and nobody waits longer than all that there is takes.
    #[test]
    fn no_stretch_of_time_gives_more_than_burst_and_rate(
        asks in asks(),
        rate in prop_oneof![Just(10_u64), 10..5000_u64],
        by_bytes: bool,
        both: bool,
        burst_ms in prop_oneof![Just(10_u32), 10..500_u32],
    ) {
        let bytes_rate = rate * 16384;
        let limits = Limits {
            iops: (both || !by_bytes).then_some(rate as u32),
            bandwidth: (both || by_bytes).then_some(Size(bytes_rate)),
            burst_ms: Some(burst_ms),
        };
        let bench = Bench::new(3, limits);
        let mut cost = Duration::ZERO;
        for Ask { core, after_us, blocks } in &asks {
            let bytes = blocks * 512;
            bench.ask(*core, Duration::from_micros(*after_us), (WRITE, bytes));
            let longest = 1.0_f64.max(bytes as f64 / 16384.0) / rate as f64;
            cost += Duration::from_secs_f64(longest);
        }
        prop_assert!(bench.quiet(cost + Duration::from_secs(1)), "somebody waits too long");
        let log = bench.log.borrow();
        prop_assert_eq!(log.len(), asks.len());
        // With both limits one request a core may be late to the other; a nanosecond is rounded.
        let late = if both { 3 } else { 0 };
        let burst = |rate: u64| i128::from(rate) * i128::from(burst_ms) / 1000;
        if limits.iops.is_some() {
            let most = burst(rate).max(1) + late + 1;
            prop_assert!(excess(&log, rate, |_| 1) <= most);
        }
        if limits.bandwidth.is_some() {
            let longest = log.iter().map(|(.., bytes)| i128::from(*bytes)).max().unwrap_or(0);
            let most = burst(bytes_rate).max(longest) + late * longest + 512;
            prop_assert!(excess(&log, bytes_rate, |bytes| bytes) <= most);
        }
    }
}
