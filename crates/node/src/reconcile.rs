//! Which step next: the desired state, what runs, what is under way and what failed, in one machine
//! without thread, clock or I/O. Whoever drives it begins the steps it names and tells it how they
//! ended.
//!
//! A step that fails is tried again, at first after a second, then less and less often; a change of
//! what is wanted tries everything at once. A step that never ends keeps only its own device or
//! mapping waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::{Actual, Desired, Part, Plan, Step, Wait, plan};
use model::{ApiError, Leftover};
use uuid::Uuid;

/// Steps under way at one time.
pub const STEPS_IN_FLIGHT_MAX: usize = 64;

/// Wait before the first retry of a failed step, doubled each time up to the longest.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
pub const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Why a part is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub error: ApiError,
    pub attempts: u32,
}

/// What the end of a step means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Done after it had failed before.
    Recovered,
    /// Failed for the first time, or for another reason than before.
    Failed,
    /// Failed as before.
    FailedAgain,
}

/// How far a few parts are from what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    Yes,
    NotYet,
    /// Nothing more happens until the next retry.
    Failed(ApiError),
}

/// The reconciler of one node.
pub struct Reconciler {
    desired: Desired,
    actual: Actual,
    failures: BTreeMap<Part, Failure>,
    plan: Plan,
}

impl Reconciler {
    /// A node that has just started: nothing runs, and these files are known.
    pub fn new(made: BTreeSet<Uuid>, leftovers: BTreeMap<Uuid, Leftover>) -> Reconciler {
        Reconciler {
            desired: Desired::default(),
            actual: Actual { made, leftovers, ..Actual::default() },
            failures: BTreeMap::new(),
            plan: Plan::default(),
        }
    }

    /// From now on this is wanted; what is in `made` is there, and what is in `leftovers` was
    /// removed.
    pub fn want(
        &mut self,
        desired: Desired,
        made: &BTreeSet<Uuid>,
        leftovers: &BTreeMap<Uuid, Leftover>,
    ) {
        self.desired = desired;
        self.actual.made.extend(made);
        self.actual.leftovers.clone_from(leftovers);
        self.actual.failed.clear();
    }

    /// The steps to begin now. They count as under way from here on.
    pub fn next(&mut self, now: Duration) -> Vec<Step> {
        self.plan = plan(&self.desired, &self.actual, now);
        self.actual.prune(&self.plan);
        let planned: BTreeSet<Part> = self.plan.steps.iter().map(|p| p.step.part()).collect();
        self.failures.retain(|part, _| planned.contains(part));
        let room = STEPS_IN_FLIGHT_MAX.saturating_sub(self.actual.busy.len());
        let mut steps: Vec<Step> = Vec::new();
        for step in self.plan.ready() {
            // One step for each part: a second one that looks ready waits for the next plan.
            let is_first = !self.actual.busy.contains_key(&step.part());
            if steps.len() < room && is_first {
                self.actual.begin(step);
                steps.push(step.clone());
            }
        }
        steps
    }

    /// Takes note of how a step ended.
    pub fn ended(&mut self, step: &Step, result: Result<(), ApiError>, now: Duration) -> Ended {
        let part = step.part();
        let before = self.failures.remove(&part);
        let error = match result {
            Ok(()) => {
                self.actual.apply(step);
                return if before.is_some() { Ended::Recovered } else { Ended::Done };
            }
            Err(error) => error,
        };
        let attempts = before.as_ref().map_or(1, |failure| failure.attempts.saturating_add(1));
        let is_news = before.is_none_or(|failure| failure.error != error);
        self.failures.insert(part, Failure { error, attempts });
        self.actual.fail(step, now + retry_after(attempts));
        if is_news { Ended::Failed } else { Ended::FailedAgain }
    }

    /// What has failed of these parts is tried at once: the reason is gone.
    pub fn hurry(&mut self, parts: &BTreeSet<Part>) {
        self.actual.failed.retain(|part, _| !parts.contains(part));
    }

    /// When to ask for steps again, if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        self.plan.retry_at()
    }

    /// How far these parts are, as of the last call of [`Reconciler::next`].
    pub fn settled(&self, parts: &BTreeSet<Part>) -> Settled {
        let steps = self.plan.steps.iter().filter(|planned| parts.contains(&planned.step.part()));
        let waits: Vec<Option<&Wait>> = steps.map(|planned| planned.wait.as_ref()).collect();
        let is_busy = parts.iter().any(|part| self.actual.busy.contains_key(part));
        if waits.is_empty() && !is_busy {
            return Settled::Yes;
        }
        if is_busy || waits.iter().any(Option::is_none) {
            return Settled::NotYet;
        }
        let failure = parts.iter().find_map(|part| self.failures.get(part));
        failure.map_or(Settled::NotYet, |failure| Settled::Failed(failure.error.clone()))
    }

    /// Whether everything that can be done now is done, but for what may take hours.
    pub fn is_quiet(&self) -> bool {
        self.actual.busy.values().all(Step::is_long) && self.plan.ready().all(Step::is_long)
    }

    pub fn steps_pending(&self) -> usize {
        self.plan.steps.len()
    }

    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    pub fn actual(&self) -> &Actual {
        &self.actual
    }

    pub fn failures(&self) -> &BTreeMap<Part, Failure> {
        &self.failures
    }
}

fn retry_after(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    (RETRY_FIRST * (1 << doublings)).min(RETRY_LONGEST)
}

#[cfg(test)]
mod tests {
    use model::{Config, Secrets};

    use super::*;

    fn wanted() -> Desired {
        let config: Config = serde_json::from_str(
            r#"{"version":1,"revision":3,
                "lus":[{"name":"a","uuid":"00000000-0000-0000-0000-00000000000a",
                        "size":"1GiB","serial":"a","backing":{"kind":"file"}}],
                "clients":[{"name":"vm1"}],
                "mappings":[{"lu":"a","client":"vm1","via":"vhost-user-blk","slot":2}]}"#,
        )
        .unwrap();
        let (secrets, media, new_pools) = (&Secrets::new(), &BTreeMap::new(), &BTreeSet::new());
        let config = &config;
        Desired::of(cluster::Source { config, secrets, new_pools, media, cluster: "test" })
    }

    fn reconciler() -> Reconciler {
        let mut reconciler = Reconciler::new(BTreeSet::new(), BTreeMap::new());
        reconciler.want(wanted(), &BTreeSet::new(), &BTreeMap::new());
        reconciler
    }

    fn parts() -> BTreeSet<Part> {
        let desired = wanted();
        let devices = desired.devices.keys().map(|uuid| Part::Device(*uuid));
        devices.chain(desired.mappings.keys().cloned().map(Part::Mapping)).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn steps_come_one_after_the_other_and_end() {
        let mut reconciler = reconciler();
        let mut seen = Vec::new();
        loop {
            let steps = reconciler.next(at(0));
            if steps.is_empty() {
                break;
            }
            assert_eq!(reconciler.settled(&parts()), Settled::NotYet);
            assert_eq!(reconciler.next(at(0)), [], "nothing is begun twice");
            for step in steps {
                seen.push(step.to_string());
                assert_eq!(reconciler.ended(&step, Ok(()), at(0)), Ended::Done);
            }
        }
        assert_eq!(
            seen,
            [
                "make the file of a (1GiB)",
                "open device a (file)",
                "open vhost-user-blk mapping vm1-2 of a"
            ]
        );
        assert_eq!(reconciler.settled(&parts()), Settled::Yes);
        assert!(reconciler.is_quiet());
    }

    #[test]
    fn failures_are_told_once_and_tried_less_and_less_often() {
        let mut reconciler = reconciler();
        let (mut now, mut waits) = (0, Vec::new());
        for attempt in 0..9 {
            let steps = reconciler.next(at(now));
            assert_eq!(steps.len(), 1, "at {now}");
            let error = ApiError::failed("disk full");
            let ended = reconciler.ended(&steps[0], Err(error), at(now));
            assert_eq!(ended, if attempt == 0 { Ended::Failed } else { Ended::FailedAgain });
            assert_eq!(reconciler.next(at(now)), []);
            assert_eq!(
                reconciler.settled(&parts()),
                Settled::Failed(ApiError::failed("disk full"))
            );
            let next = reconciler.wake_at().unwrap().as_secs();
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let steps = reconciler.next(at(now));
        assert_eq!(reconciler.ended(&steps[0], Ok(()), at(now)), Ended::Recovered);
    }

    #[test]
    fn another_wish_tries_at_once_and_forgets_what_is_not_wanted() {
        let mut reconciler = reconciler();
        let steps = reconciler.next(at(0));
        reconciler.ended(&steps[0], Err(ApiError::failed("no")), at(0));
        assert_eq!(reconciler.next(at(0)), []);
        reconciler.want(wanted(), &BTreeSet::new(), &BTreeMap::new());
        let again = reconciler.next(at(0));
        assert_eq!(again.len(), 1);
        reconciler.ended(&again[0], Err(ApiError::failed("no")), at(0));
        reconciler.want(Desired::default(), &BTreeSet::new(), &BTreeMap::new());
        assert_eq!(reconciler.next(at(0)), []);
        assert!(reconciler.failures().is_empty());
        assert_eq!(reconciler.settled(&parts()), Settled::Yes);
    }

    #[test]
    fn only_so_many_steps_are_under_way() {
        let mut desired = wanted();
        let one = desired.devices.values().next().unwrap().clone();
        for number in 0..200u128 {
            let uuid = Uuid::from_u128(1000 + number);
            desired.devices.insert(uuid, cluster::DeviceSpec { uuid, ..one.clone() });
        }
        let mut reconciler = Reconciler::new(BTreeSet::new(), BTreeMap::new());
        reconciler.want(desired, &BTreeSet::new(), &BTreeMap::new());
        let first = reconciler.next(at(0));
        assert_eq!(first.len(), STEPS_IN_FLIGHT_MAX);
        reconciler.ended(&first[0], Ok(()), at(0));
        assert_eq!(reconciler.next(at(0)).len(), 1);
    }
}
