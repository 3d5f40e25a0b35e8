//! The loop of a core: turn, spin, sleep.
//!
//! One turn takes completions, letters, due timers, ready tasks and a bounded number of requests of
//! every active ring, then hands everything new to the kernel with at most one system call. After
//! work the core goes on looking for up to the spin bound, without system calls, because sleeping
//! and waking costs more than a short wait; but only while that pays: a moving share of spins that
//! found work decides, and below a quarter the core sleeps at once and tries a spin now and then.
//! With nothing to look at it sleeps in the kernel and uses no CPU at all.

use std::cell::Cell;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use super::ring::Then;
use super::{Driver, clock, thread};
use crate::core::{Core, Doorbell as CoreDoorbell, Driver as CoreDriver, Remote};
use crate::os::config::{Config, SPIN_MAX};
use crate::timer::Time;

/// Starts a core on a thread of its own. Its loop runs until [`Core::stop`].
pub fn start(config: Config) -> io::Result<Remote> {
    let (tell, told) = mpsc::channel();
    let name = config.name.clone();
    thread::spawn(&name, move || match prepare(&config) {
        Ok(core) => {
            let _ = tell.send(Ok(core.remote()));
            run(&core, &config);
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    })?;
    told.recv().map_err(|_| io::Error::other("the core's thread ended while it started"))?
}

fn prepare(config: &Config) -> io::Result<Core> {
    if let Some(cpu) = config.cpu {
        thread::pin_to_cpu(cpu)?;
    }
    new_core(config)
}

/// A core of the calling thread, for tests and benchmarks that drive it themselves.
pub(crate) fn new_core(config: &Config) -> io::Result<Core> {
    let (driver, doorbell) = Driver::new(config.submissions)?;
    let core = Core::new(CoreDriver::Os(driver), CoreDoorbell::Os(doorbell))?;
    let bell = core.os().doorbell.clone();
    core.os().watch(&bell, Then::Mail);
    Ok(core)
}

/// Runs the core's loop on the calling thread until it is stopped.
pub(crate) fn run(core: &Core, config: &Config) {
    let spinner = Spinner::new(config.spin.bound.min(SPIN_MAX));
    core.enter(|| {
        while !core.0.stopping.get() {
            let now = clock();
            core.0.now.set(now);
            if turn(core, spinner.idle_since(now)) {
                spinner.worked(now);
                continue;
            }
            if spinner.go_on(now) {
                std::hint::spin_loop();
                continue;
            }
            sleep(core, &spinner);
        }
        core.end();
        core.os().close(core);
    });
}

/// One turn. True: found work.
#[inline]
fn turn(core: &Core, idle_since: Time) -> bool {
    let driver = core.os();
    let now = core.0.now.get();
    let mut worked = driver.reap(core);
    worked |= core.read_mail();
    if core.0.timers.next().is_some_and(|due| due <= now) {
        worked |= core.0.timers.fire(now);
    }
    worked |= core.0.tasks.run();
    worked |= core.0.pollers.turn(now, idle_since);
    core.0.pollers.publish();
    driver.flush();
    worked || core.0.tasks.has_ready()
}

fn sleep(core: &Core, spinner: &Spinner) {
    let driver = core.os();
    if core.0.pollers.arm_all()
        || driver.has_news()
        || driver.has_backlog()
        || core.0.tasks.has_ready()
    {
        spinner.worked(clock());
        return;
    }
    if !core.0.post.mailbox.sleep() {
        return;
    }
    let limit = core.0.timers.next().map(|due| due - clock());
    driver.wait(limit);
    core.0.post.mailbox.awake();
    spinner.woke(clock());
}

/// Below this share of spins that found work, spinning stops (in 1/256).
const SHARE_MIN: u32 = 64;
/// While it does not pay, one sleep in so many is preceded by a trial spin.
const TRIAL_EVERY: u32 = 16;

/// Decides how long to look before sleeping.
struct Spinner {
    bound: Duration,
    last_work: Cell<Time>,
    /// Looking since `last_work` without having found anything yet.
    spinning: Cell<bool>,
    /// Moving share of spins that found work, in 1/256.
    share: Cell<u32>,
    sleeps: Cell<u32>,
}

impl Spinner {
    fn new(bound: Duration) -> Self {
        Self {
            bound,
            last_work: Cell::new(clock()),
            spinning: Cell::new(false),
            share: Cell::new(256),
            sleeps: Cell::new(0),
        }
    }

    /// Rings without work since then are given back to their clients' notifications.
    fn idle_since(&self, now: Time) -> Time {
        Time::from_nanos(now.as_nanos().saturating_sub(self.bound.as_nanos() as u64))
    }

    fn worked(&self, now: Time) {
        self.last_work.set(now);
        if self.spinning.replace(false) {
            self.share.set(self.share.get() + (256 - self.share.get()) / 8);
        }
    }

    fn woke(&self, now: Time) {
        self.last_work.set(now);
        self.spinning.set(false);
    }

    /// Nothing was found: look again, or sleep?
    fn go_on(&self, now: Time) -> bool {
        if !self.spinning.get() {
            let pays = self.share.get() >= SHARE_MIN;
            let trial = self.sleeps.get().is_multiple_of(TRIAL_EVERY);
            if self.bound.is_zero() || !(pays || trial) {
                self.sleeps.set(self.sleeps.get().wrapping_add(1));
                return false;
            }
            self.spinning.set(true);
        }
        if now - self.last_work.get() < self.bound {
            return true;
        }
        self.spinning.set(false);
        self.share.set(self.share.get() - self.share.get() / 8);
        self.sleeps.set(self.sleeps.get().wrapping_add(1));
        false
    }
}

/// What a core has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub system_calls: u64,
    pub sleeps: u64,
    pub operations: u64,
    pub messages: u64,
    pub tasks: u64,
    /// Operations that the kernel has not answered yet.
    pub in_flight: u32,
}

impl Core {
    pub fn stats(&self) -> Stats {
        let CoreDriver::Os(driver) = &self.0.driver else {
            return Stats {
                messages: self.messages(),
                tasks: self.tasks() as u64,
                in_flight: self.sim().map_or(0, crate::sim::Driver::in_flight),
                ..Stats::default()
            };
        };
        let counters = &driver.counters;
        Stats {
            system_calls: counters.enters.get(),
            sleeps: counters.sleeps.get(),
            operations: counters.operations.get(),
            messages: self.messages(),
            tasks: self.tasks() as u64,
            in_flight: driver.in_flight(),
        }
    }

    /// Runs an `async fn` to its end on a fresh core of the calling thread: for tests.
    pub fn block_on<T: 'static, F>(config: &Config, f: impl FnOnce(Core) -> F) -> io::Result<T>
    where
        F: Future<Output = T> + 'static,
    {
        let core = new_core(config)?;
        let result = std::rc::Rc::new(Cell::new(None));
        let (out, future, handle) = (result.clone(), f(core.clone()), core.clone());
        core.spawn(async move {
            out.set(Some(future.await));
            handle.stop();
        });
        run(&core, config);
        Ok(result.take().expect("the loop runs until the future has ended"))
    }
}
