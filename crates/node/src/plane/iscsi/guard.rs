//! Wrong logins are slowed down: who has failed to prove itself too often is refused for a while.
//!
//! Failures are counted by address and initiator, so that neither a right login from elsewhere nor
//! another initiator of the same host is hurt; and by address alone, with a higher limit, for
//! whoever tries one name after another. There is one guard for all cores, behind a lock that only
//! logins take.
//!
//! ```text
//!   some failures ──FAILURES_MAX──▶ refused for PAUSE ──▶ one more try ──fails──▶ refused again
//!        ╰──────────── WINDOW without one, or a success ──▶ forgotten ◀──────────────╯
//! ```
//!
//! Unknown names do not count: they learn nothing, and a host may be asked in at any time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rt::Core;
use rt::net::Address;
use wire::iscsi::LoginStatus;

/// Failures of one initiator from one address, and of all initiators from one.
const FAILURES_MAX: u32 = 5;
const SITE_FAILURES_MAX: u32 = 50;
/// How long without a failure until all are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// How long logins are refused then.
pub(super) const PAUSE: Duration = Duration::from_secs(30);
/// Pairs of address and initiator that are remembered: beyond it the oldest is forgotten.
const KEPT_MAX: usize = 4096;

/// Initiators that are told this try again later.
pub(super) const REFUSED_BY_GUARD: LoginStatus = LoginStatus::SERVICE_UNAVAILABLE;

/// What an operator is to be told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It, as it is.
    Tell,
    /// That from now on such logins are refused: whose, in words.
    Pause { failures: u32, who: &'static str },
    /// Nothing: it was told before.
    Quiet,
}

#[derive(Default)]
pub(super) struct Guard {
    kept: Mutex<HashMap<Who, Record>>,
}

/// An initiator at an address, or everybody there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Who {
    site: String,
    initiator: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Record {
    failures: u32,
    last: Duration,
}

impl Record {
    fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) >= WINDOW
    }

    fn is_refused(&self, now: Duration, most: u32) -> bool {
        self.failures >= most && now.saturating_sub(self.last) < PAUSE
    }
}

impl Guard {
    fn kept(&self) -> MutexGuard<'_, HashMap<Who, Record>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an initiator at this address may try to prove itself.
    pub fn admits(&self, site: &str, initiator: &str, now: Duration) -> bool {
        let kept = self.kept();
        let is_refused = |(who, most): (Who, u32)| {
            kept.get(&who).is_some_and(|record| record.is_refused(now, most))
        };
        !both(site, initiator).into_iter().any(is_refused)
    }

    /// It has failed to.
    pub fn failed(&self, site: &str, initiator: &str, now: Duration) -> Verdict {
        let mut kept = self.kept();
        let mut verdict = Verdict::Tell;
        let words = ["its logins are", "all logins from there are"];
        for ((who, most), words) in both(site, initiator).into_iter().zip(words) {
            make_room(&mut kept, now);
            let record = kept.entry(who).or_default();
            if record.is_stale(now) {
                *record = Record::default();
            }
            record.failures += 1;
            record.last = now;
            verdict = match record.failures {
                failures if failures == most => Verdict::Pause { failures, who: words },
                failures if failures > most && verdict == Verdict::Tell => Verdict::Quiet,
                _ => verdict,
            };
        }
        verdict
    }

    pub fn succeeded(&self, site: &str, initiator: &str) {
        let [(who, _), _] = both(site, initiator);
        self.kept().remove(&who);
    }
}

/// What is counted of a login, with how often it may fail.
fn both(site: &str, initiator: &str) -> [(Who, u32); 2] {
    let who = |initiator: Option<&str>| Who {
        site: site.to_owned(),
        initiator: initiator.map(str::to_owned),
    };
    [(who(Some(initiator)), FAILURES_MAX), (who(None), SITE_FAILURES_MAX)]
}

fn make_room(kept: &mut HashMap<Who, Record>, now: Duration) {
    if kept.len() < KEPT_MAX {
        return;
    }
    kept.retain(|_, record| !record.is_stale(now));
    while kept.len() >= KEPT_MAX {
        let oldest = kept.iter().min_by_key(|(_, record)| record.last).map(|(who, _)| who.clone());
        let Some(oldest) = oldest else { return };
        kept.remove(&oldest);
    }
}

/// Where a connection comes from: an address, or the network of an IPv6 address, in which a host
/// may choose any.
pub(super) fn site(peer: &Address) -> String {
    match peer {
        Address::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => ip.to_string(),
                None => format!("{:x?}", &ip.segments()[..4]),
            },
        },
        Address::Unix(_) => peer.to_string(),
    }
}

pub(super) fn now(core: &Core) -> Duration {
    Duration::from_nanos(core.turn_time().as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_fails_too_often_is_refused_for_a_while_and_told_of_once() {
        let guard = Guard::default();
        for second in 1..5 {
            assert_eq!(guard.failed("a", "x", at(second)), Verdict::Tell);
            assert!(guard.admits("a", "x", at(second)));
        }
        let paused = guard.failed("a", "x", at(5));
        assert_eq!(paused, Verdict::Pause { failures: 5, who: "its logins are" });
        assert!(!guard.admits("a", "x", at(34)));
        assert!(guard.admits("b", "x", at(34)), "the right one elsewhere");
        assert!(guard.admits("a", "y", at(34)), "another one of the same host");
        assert!(guard.admits("a", "x", at(35)));
        assert_eq!(guard.failed("a", "x", at(36)), Verdict::Quiet);
        assert!(!guard.admits("a", "x", at(65)), "one more is enough");
        guard.succeeded("a", "x");
        assert_eq!(guard.failed("a", "x", at(67)), Verdict::Tell);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let guard = Guard::default();
        for round in 0..20 {
            assert_eq!(guard.failed("a", "x", at(60 * round)), Verdict::Tell);
        }
    }

    #[test]
    fn an_address_that_tries_names_is_refused_as_a_whole() {
        let guard = Guard::default();
        let names: Vec<String> = (0..50).map(|name| name.to_string()).collect();
        for name in &names[..49] {
            assert_eq!(guard.failed("a", name, at(1)), Verdict::Tell);
        }
        let paused = guard.failed("a", &names[49], at(1));
        assert_eq!(paused, Verdict::Pause { failures: 50, who: "all logins from there are" });
        assert!(!guard.admits("a", "never seen", at(2)) && guard.admits("b", "0", at(2)));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let guard = Guard::default();
        for name in 0..2 * KEPT_MAX as u64 {
            guard.failed(&name.to_string(), "x", Duration::from_millis(name));
        }
        assert!(guard.kept().len() <= KEPT_MAX);
    }

    #[test]
    fn a_network_is_one_site() {
        let of = |text: &str| site(&Address::Tcp(text.parse().unwrap()));
        assert_eq!(of("10.0.0.1:1"), of("10.0.0.1:2"));
        assert_eq!(of("10.0.0.1:1"), of("[::ffff:10.0.0.1]:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(of("[fd00::1]:1"), of("[fd00::2]:1"));
        assert_ne!(of("[fd00::1]:1"), of("[fd00:0:0:1::1]:1"));
    }
}
