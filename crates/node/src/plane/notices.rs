//! What adapters notice, turned into reports for the operator: named, with the next thing to do.
//!
//! A failing store fails many requests a second; it is reported when it begins and then at most
//! once in a while, with how many there were.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::ErrorKind;
use front::vhost_user::{Notice, Observer};
use jiff::Timestamp;
use model::{AdapterId, LuName, Severity, Subject};

use super::health::Watch;
use crate::engine::{Report, Reporter, Trouble};
use crate::world::wall_clock;

/// Store errors of one adapter are reported at most this often.
const STORE_REPORT_SECONDS: i64 = 10;

pub(super) struct Notices {
    adapter: AdapterId,
    report: Reporter,
    /// The one LU behind the adapter, where there is only one.
    lu: Option<(LuName, Arc<Watch>)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Timestamp,
    problem: Option<Trouble>,
    broken: bool,
    store_reported: Option<Timestamp>,
    store_failures: u64,
}

impl Notices {
    pub(super) fn new(
        adapter: AdapterId,
        lu: LuName,
        report: Reporter,
        health: Arc<Watch>,
    ) -> Self {
        Self { adapter, report, lu: Some((lu, health)), state: Mutex::default() }
    }

    /// Of an adapter with LUNs, whose requests fail in words of SCSI.
    pub(super) fn of_adapter(adapter: AdapterId, report: Reporter) -> Self {
        Self { adapter, report, lu: None, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn since(&self) -> Timestamp {
        self.state().since
    }

    pub(super) fn problem(&self) -> Option<Trouble> {
        self.state().problem.clone()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state().broken
    }

    fn tell(&self, severity: Severity, kind: &'static str, message: String, next: Option<&str>) {
        let subject = Subject::Adapter(self.adapter.clone());
        let next = next.map(str::to_owned);
        if severity != Severity::Info {
            self.state().problem = Some(Trouble { message: message.clone(), next: next.clone() });
        }
        (self.report)(Report { severity, subject, kind, message, next });
    }

    fn connected(&self, pid: i32) {
        {
            let mut state = self.state();
            *state = State { since: wall_clock(), ..State::default() };
        }
        let message = format!("client {} connected (process {pid})", self.adapter.client);
        self.tell(Severity::Info, "client-connected", message, None);
    }

    fn store_failed(&self, queue: u16, error: &block::Error) {
        let Some((lu, health)) = &self.lu else { return };
        health.note(error);
        let now = wall_clock();
        let failures = {
            let mut state = self.state();
            state.store_failures += 1;
            let due = state
                .store_reported
                .is_none_or(|last| now.as_second() - last.as_second() >= STORE_REPORT_SECONDS);
            if !due {
                return;
            }
            state.store_reported = Some(now);
            std::mem::take(&mut state.store_failures)
        };
        let (kind, next) = advice(error.kind());
        let message = format!(
            "LU {lu} failed a request of client {} on queue {queue}: {error} ({failures} so far)",
            self.adapter.client
        );
        self.tell(Severity::Error, kind, message, next);
    }
}

/// Whether it says something about the store, rather than about the request or the client.
pub(super) fn is_of_store(kind: ErrorKind) -> bool {
    use ErrorKind::{Medium, NoSpace, Offline, Timeout};
    matches!(kind, Medium | NoSpace | Offline | Timeout)
}

/// What an operator can do about a store's failure.
pub(super) fn advice(kind: ErrorKind) -> (&'static str, Option<&'static str>) {
    match kind {
        ErrorKind::NoSpace => (
            "store-full",
            Some(
                "free space in the LU's pool, or on the filesystem of its file; the client may go \
                 on then",
            ),
        ),
        ErrorKind::Medium | ErrorKind::Offline | ErrorKind::Timeout => (
            "store-failed",
            Some("look at the kernel's log for the disk below, and at viaduct lu show"),
        ),
        ErrorKind::Memory => (
            "client-memory-gone",
            Some("the client took back memory it had shared; restart the client"),
        ),
        ErrorKind::Lost => ("request-lost", Some("this is a bug of Viaduct; please report it")),
        ErrorKind::OutOfRange
        | ErrorKind::Misaligned
        | ErrorKind::Invalid
        | ErrorKind::ReadOnly
        | ErrorKind::Unsupported
        | ErrorKind::Miscompare { .. }
        | ErrorKind::Busy
        | ErrorKind::Aborted => ("request-failed", None),
    }
}

impl Observer for Notices {
    fn notice(&self, _: &str, notice: Notice) {
        let client = &self.adapter.client;
        match notice {
            Notice::Connected { pid } => self.connected(pid),
            Notice::Disconnected { pid } => self.tell(
                Severity::Info,
                "client-disconnected",
                format!("client {client} disconnected (process {pid})"),
                None,
            ),
            Notice::Refused { pid, holder } => self.tell(
                Severity::Warning,
                "client-refused",
                format!(
                    "process {pid} tried to use the socket of client {client}, which process \
                     {holder} uses"
                ),
                Some("give each virtual machine a client of its own: viaduct client create"),
            ),
            Notice::Broken { why } => self.tell(
                Severity::Error,
                "session-ended",
                format!("the session of client {client} was ended: {why}"),
                Some("if the client is up to date, please report this"),
            ),
            Notice::Failed { why } => self.tell(
                Severity::Error,
                "request-refused",
                format!("client {client} asked for something that cannot be done: {why}"),
                Some(&format!("viaduct connect {client} prints a command line that works")),
            ),
            Notice::Fault { queue, fault } => {
                let message = format!("queue {queue} of client {client} is broken: {fault}");
                let next = "reset the device or restart the client; its other devices go on";
                self.tell(Severity::Error, "queue-broken", message, Some(next));
                self.state().broken = true;
            }
            Notice::Store { queue, error } => self.store_failed(queue, &error),
            Notice::Waiting { queue, in_flight, seconds } => self.tell(
                Severity::Warning,
                "store-slow",
                format!(
                    "{} answered {in_flight} requests of client {client} (queue {queue}) for \
                     {seconds} s; the client waits for its device to stop",
                    match &self.lu {
                        Some((lu, _)) => format!("LU {lu} has not"),
                        None => format!("the LUs of adapter {} have not", self.adapter),
                    }
                ),
                Some("look at the disk below the LU; the client goes on when it answers"),
            ),
        }
    }
}
