//! Whether the store of an LU works, as the requests of clients and a test read find it.
//!
//! Nobody looks at a store that fails nothing. From the first failure on it is looked at once a
//! second, until it works again; and soon after failures end, so that what succeeds from then on is
//! seen to come after them:
//!
//! ```text
//!              a request fails                  a test read fails
//!   works ───────────────────────▶ degraded ───────────────────────▶ failed
//!     ▲                               │                                │
//!     ├─ a request of every kind ─────┘                                │
//!     │  that failed has succeeded since                               │
//!     └─ the test read works again ────────────────────────────────────┘
//! ```
//!
//! Of a write there is no test but a client's: nothing is written to a disk that nobody asked for.
//! How many requests there were and failed is read from the counters that the queues keep anyway.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use block::mem::Buffer;
use block::{Device, Error, Request};
use model::stats::{OpKind, OpStats};
use model::{Severity, Subject};
use rt::Core;
use uuid::Uuid;

use super::notices::{advice, is_of_store};
use super::{Inner, Lu, Plane};
use crate::engine::{Health, Report, Trouble};

/// How often a store that has failed is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Failures have ended when there was none for so long.
const SETTLES: Duration = Duration::from_millis(50);

const KINDS: usize = OpKind::ALL.len();

/// The health of one LU's store.
pub(super) struct Watch {
    begin: Begin,
    state: Mutex<State>,
}

/// Begins to look at the store.
pub(super) type Begin = Box<dyn Fn(Look) + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    UntilWell,
    WhenSettled,
}

#[derive(Default)]
struct State {
    health: Health,
    told: Health,
    is_watched: bool,
    is_settling: bool,
    /// Failures that were noted, and how many of them the last look knew.
    noted: u64,
    judged: u64,
    error: Option<Error>,
    /// Why the last test read failed.
    unreadable: Option<Error>,
    kinds: [Seen; KINDS],
}

/// What the last look saw of one kind of requests.
#[derive(Clone, Copy, Default)]
struct Seen {
    done: u64,
    failed: u64,
    is_failing: bool,
    /// Failures had ended by then: what is done beyond what was seen has come after them, and is
    /// not of those that were under way beside them.
    is_settled: bool,
}

impl Watch {
    pub(super) fn new(begin: Begin) -> Watch {
        Watch { begin, state: Mutex::default() }
    }

    /// One that looks at an LU of this plane from its first core.
    pub(super) fn of(plane: Weak<Inner>, uuid: Uuid) -> Watch {
        Watch::new(Box::new(move |look| {
            let (Some(inner), plane) = (plane.upgrade(), plane.clone()) else { return };
            inner.cores[0].send(move |core| match look {
                Look::UntilWell => core.spawn(look_until_well(plane, uuid, core.clone())),
                Look::WhenSettled => core.spawn(look_when_settled(plane, uuid, core.clone())),
            });
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request failed, perhaps because of the store.
    pub(super) fn note(&self, error: &Error) {
        if is_of_store(error.kind()) {
            self.failed(error);
        }
    }

    /// A request failed in the store.
    pub(super) fn failed(&self, error: &Error) {
        let (watches, settles) = {
            let mut state = self.state();
            state.noted += 1;
            state.error = Some(error.clone());
            if state.health == Health::Works {
                state.health = Health::Degraded;
            }
            let watched = std::mem::replace(&mut state.is_watched, true);
            (!watched, !std::mem::replace(&mut state.is_settling, true))
        };
        if watches {
            (self.begin)(Look::UntilWell);
        }
        if settles {
            (self.begin)(Look::WhenSettled);
        }
    }

    /// Whether no failure was noted since so many were: the next one begins to settle anew.
    fn has_settled(&self, noted: u64) -> bool {
        let mut state = self.state();
        state.is_settling = state.noted != noted;
        !state.is_settling
    }

    pub(super) fn health(&self) -> Health {
        self.state().health
    }

    /// What is wrong, if something is.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let state = self.state();
        let error = state.unreadable.as_ref().or(state.error.as_ref())?;
        let next = advice(error.kind()).1.unwrap_or("viaduct event ls shows when it began");
        let (message, again) = match state.health {
            Health::Works => return None,
            Health::Degraded => {
                (format!("{} of clients fail: {error}", state.kinds()), "such a request succeeds")
            }
            Health::Failed => (format!("its store cannot be read: {error}"), "a test read works"),
        };
        Some(Trouble { message, next: Some(format!("{next}; it is online again when {again}")) })
    }

    /// Whether the store works: nobody looks at it until the next failure.
    fn is_left_alone(&self) -> bool {
        let mut state = self.state();
        state.is_watched = state.health != Health::Works;
        !state.is_watched
    }

    fn noted(&self) -> u64 {
        self.state().noted
    }

    /// Judges by what the counters say, read after so many failures were noted, and by a test read.
    /// The health if it is another than was told before.
    fn look(
        &self,
        when: Look,
        noted: u64,
        ops: &[OpStats],
        test: Result<(), Error>,
    ) -> Option<Health> {
        let mut state = self.state();
        let is_fresh = noted != std::mem::replace(&mut state.judged, noted);
        let has_settled = when == Look::WhenSettled && noted == state.noted;
        for (seen, op) in state.kinds.iter_mut().zip(ops) {
            seen.look(op, is_fresh, has_settled);
        }
        if state.unreadable.is_some() && test.is_ok() && !is_fresh {
            state.kinds.iter_mut().for_each(|kind| kind.is_failing = false);
        }
        state.unreadable = test.err();
        let is_well = !is_fresh && noted == state.noted && !state.is_failing();
        state.health = match &state.unreadable {
            Some(_) => Health::Failed,
            None if is_well => Health::Works,
            None => Health::Degraded,
        };
        if state.health == Health::Works {
            state.error = None;
        }
        let health = state.health;
        (std::mem::replace(&mut state.told, health) != health).then_some(health)
    }
}

impl Seen {
    fn look(&mut self, op: &OpStats, is_fresh: bool, has_settled: bool) {
        let done = self.done.max(op.requests.saturating_sub(op.errors));
        let failed = self.failed.max(op.errors);
        let fails = is_fresh && failed > self.failed;
        if fails {
            self.is_failing = true;
        } else if self.is_settled && done > self.done {
            self.is_failing = false;
        }
        let is_settled = !fails || has_settled;
        *self = Seen { done, failed, is_settled, ..*self };
    }
}

impl State {
    fn is_failing(&self) -> bool {
        self.kinds.iter().any(|kind| kind.is_failing)
    }

    /// The kinds of requests that fail, in words.
    fn kinds(&self) -> String {
        let failing = OpKind::ALL.iter().zip(self.kinds).filter(|(_, seen)| seen.is_failing);
        let names: Vec<&str> = failing.map(|(kind, _)| kind.label()).collect();
        if names.is_empty() {
            "requests".to_owned()
        } else {
            format!("{} requests", names.join(", "))
        }
    }
}

async fn look_until_well(plane: Weak<Inner>, uuid: Uuid, core: Core) {
    while look(&plane, uuid, &core).await == Some(false) {
        core.sleep(LOOK_EVERY).await;
    }
}

async fn look_when_settled(plane: Weak<Inner>, uuid: Uuid, core: Core) {
    let watched = || plane.upgrade().and_then(|inner| Plane(inner).lu(uuid));
    while let Some(noted) = watched().map(|lu| lu.health.noted()) {
        core.sleep(SETTLES).await;
        let Some(lu) = watched() else { return };
        if lu.health.has_settled(noted) {
            let Some(plane) = plane.upgrade().map(Plane) else { return };
            look_once(&plane, uuid, &lu, (&core, Look::WhenSettled)).await;
            return;
        }
    }
}

/// Whether it works, and is looked at no longer. Nothing if the LU is gone.
async fn look(plane: &Weak<Inner>, uuid: Uuid, core: &Core) -> Option<bool> {
    let plane = plane.upgrade().map(Plane)?;
    let lu = plane.lu(uuid)?;
    look_once(&plane, uuid, &lu, (core, Look::UntilWell)).await;
    Some(lu.health.is_left_alone())
}

/// Looks once, and tells of another health.
async fn look_once(plane: &Plane, uuid: Uuid, lu: &Arc<Lu>, (core, when): (&Core, Look)) {
    let noted = lu.health.noted();
    let stats = plane.device_stats(uuid, lu).await;
    let test = test_read(core, lu).await;
    if let Some(health) = lu.health.look(when, noted, &stats.ops, test) {
        (plane.0.context.report)(report(lu, health));
    }
}

/// Reads the first block.
async fn test_read(core: &Core, lu: &Lu) -> Result<(), Error> {
    let device = lu.store.clone().device(core);
    let block = Buffer::zeroed(lu.spec.block_size.bytes() as usize);
    (&*device as &dyn Device).io(&Request::read(0, block.sgl())).await.map(drop)
}

fn report(lu: &Arc<Lu>, health: Health) -> Report {
    let name = &lu.spec.name;
    let (severity, kind, state) = match health {
        Health::Works => (Severity::Info, "lu-online", "works again"),
        Health::Degraded => (Severity::Warning, "lu-degraded", "is degraded"),
        Health::Failed => (Severity::Error, "lu-failed", "has failed"),
    };
    let (why, next) = match lu.health.trouble() {
        Some(Trouble { message, next }) => (format!(": {message}"), next),
        None => (String::new(), None),
    };
    let message = format!("LU {name} {state}{why}");
    Report { severity, subject: Subject::Lu(name.clone()), kind, message, next }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use block::ErrorKind;

    use super::*;

    /// A watch, how often it began to look of either kind, and counters of reads and writes.
    struct Bench {
        watch: Watch,
        begun: Arc<[AtomicU32; 2]>,
        ops: Vec<OpStats>,
    }

    impl Bench {
        fn new() -> Bench {
            let begun = Arc::<[AtomicU32; 2]>::default();
            let counters = begun.clone();
            let begin = move |look| {
                counters[look as usize].fetch_add(1, Ordering::SeqCst);
            };
            let ops = OpKind::ALL.map(OpStats::new).into();
            Bench { watch: Watch::new(Box::new(begin)), begun, ops }
        }

        /// How often it began to look until well, and when settled.
        fn begun(&self) -> [u32; 2] {
            [0, 1].map(|look: usize| self.begun[look].load(Ordering::SeqCst))
        }

        fn does(&mut self, kind: OpKind) {
            self.ops[kind as usize].record(512, 1, true);
        }

        fn fails(&mut self, kind: OpKind, why: ErrorKind) {
            self.watch.failed(&why.into());
            self.ops[kind as usize].record(512, 1, false);
        }

        fn look(&self) -> Option<Health> {
            self.watch.look(Look::UntilWell, self.watch.noted(), &self.ops, Ok(()))
        }

        fn settles(&self) -> Option<Health> {
            assert!(self.watch.has_settled(self.watch.noted()));
            self.watch.look(Look::WhenSettled, self.watch.noted(), &self.ops, Ok(()))
        }

        fn look_and_cannot_read(&self) -> Option<Health> {
            let unreadable = Err(ErrorKind::Medium.into());
            self.watch.look(Look::UntilWell, self.watch.noted(), &self.ops, unreadable)
        }

        fn message(&self) -> String {
            self.watch.trouble().unwrap().message
        }
    }

    #[test]
    fn a_full_store_is_degraded_until_a_write_succeeds() {
        let mut bench = Bench::new();
        bench.does(OpKind::Write);
        assert_eq!((bench.watch.health(), bench.watch.trouble()), (Health::Works, None));
        bench.fails(OpKind::Write, ErrorKind::NoSpace);
        bench.fails(OpKind::Write, ErrorKind::NoSpace);
        assert_eq!(bench.watch.health(), Health::Degraded, "at once");
        assert_eq!(bench.begun(), [1, 1]);
        assert_eq!(bench.look(), Some(Health::Degraded));
        assert!(bench.message().starts_with("write requests of clients fail: "));
        let next = bench.watch.trouble().unwrap().next.unwrap();
        assert!(next.contains("free space") && next.contains("online again when"), "{next}");
        // Neither time nor reads tell that there is room again.
        bench.does(OpKind::Read);
        assert_eq!((bench.look(), bench.look()), (None, None));
        assert_eq!(bench.watch.health(), Health::Degraded);
        bench.does(OpKind::Write);
        assert_eq!(bench.look(), Some(Health::Works));
        assert_eq!(bench.watch.trouble(), None);
        assert!(bench.watch.is_left_alone());
        bench.fails(OpKind::Write, ErrorKind::NoSpace);
        assert_eq!(bench.begun(), [2, 1], "it is looked at again");
    }

    #[test]
    fn a_write_soon_after_failures_ended_comes_after_them() {
        let mut bench = Bench::new();
        for _ in 0..2 {
            bench.fails(OpKind::Write, ErrorKind::NoSpace);
            assert!(!bench.watch.has_settled(bench.watch.noted() - 1), "there was one meanwhile");
            bench.settles();
            bench.does(OpKind::Write);
        }
        assert_eq!(bench.begun(), [1, 2], "failures end several times until it works");
        assert_eq!((bench.look(), bench.watch.is_left_alone()), (Some(Health::Works), true));
    }

    #[test]
    fn a_write_that_was_under_way_beside_failures_does_not_come_after_them() {
        for is_seen_before in [false, true] {
            let mut bench = Bench::new();
            bench.fails(OpKind::Write, ErrorKind::NoSpace);
            if is_seen_before {
                bench.look();
            }
            bench.does(OpKind::Write);
            bench.settles();
            assert_eq!((bench.look(), bench.watch.health()), (None, Health::Degraded));
            bench.does(OpKind::Write);
            assert_eq!(bench.look(), Some(Health::Works), "seen before: {is_seen_before}");
        }
    }

    #[test]
    fn a_store_that_cannot_be_read_has_failed_until_it_can() {
        let mut bench = Bench::new();
        bench.fails(OpKind::Flush, ErrorKind::Offline);
        assert_eq!(bench.look_and_cannot_read(), Some(Health::Failed));
        assert!(bench.message().starts_with("its store cannot be read: "));
        assert_eq!((bench.look_and_cannot_read(), bench.watch.health()), (None, Health::Failed));
        assert_eq!(bench.look(), Some(Health::Works));
    }

    #[test]
    fn a_failure_between_counting_and_judging_is_not_forgotten() {
        let mut bench = Bench::new();
        bench.fails(OpKind::Read, ErrorKind::Medium);
        bench.look();
        bench.does(OpKind::Read);
        let noted = bench.watch.noted();
        let ops = bench.ops.clone();
        bench.fails(OpKind::Read, ErrorKind::Medium);
        assert_eq!(bench.watch.look(Look::UntilWell, noted, &ops, Ok(())), None);
        assert_eq!(bench.watch.health(), Health::Degraded);
        assert_eq!(bench.look(), None);
        assert_eq!(bench.begun()[0], 1, "and looked at all the while");
    }

    #[test]
    fn what_a_client_does_wrong_is_not_the_stores_fault() {
        let mut bench = Bench::new();
        bench.ops[OpKind::Read as usize].record(512, 1, false);
        bench.fails(OpKind::Write, ErrorKind::Timeout);
        bench.settles();
        bench.does(OpKind::Write);
        bench.does(OpKind::Read);
        bench.ops[OpKind::Other as usize].record(0, 1, false);
        assert_eq!(bench.look(), Some(Health::Works));
    }
}
