//! The log of what happened: the last so many events, in memory, with ids that rise over restarts
//! too.
//!
//! What clients and stores bring about can come many times a second, as with a front end that
//! tries to connect again and again; of those the first few in a minute are told, and at its end
//! the last one, with how many were left out.
//!
//! Ids are reserved from `kv` in blocks, so that an event costs no write and a listener that
//! remembers an id is never told an old one twice. What was logged before a restart is in the
//! journal, through `tracing`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kv::{Kv, Outcome, Transaction};
use model::event::EventPage;
use model::limits::{EVENTS_KEPT_MAX, EVENTS_PER_PAGE_MAX};
use model::{ApiError, Event, Severity, Subject};
use uuid::Uuid;

use crate::engine::Report;
use crate::state::unavailable;

/// Ids that one write to `kv` reserves.
const IDS_PER_BLOCK: u64 = 1000;

/// Events of one kind about one subject that are told in one [`REPEAT_WINDOW`].
pub const REPEATS_MAX: u32 = 5;
pub const REPEAT_WINDOW: Duration = Duration::from_secs(60);

/// The log. Clones are the same log.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Mutex<Log>>,
}

struct Log {
    kv: Arc<dyn Kv>,
    key: String,
    next_id: u64,
    reserved: u64,
    kept: VecDeque<Event>,
    listeners: Vec<Listener>,
    /// What happened lately by itself, by subject and kind. A window that is over is taken out.
    windows: BTreeMap<(Subject, &'static str), Window>,
}

/// How often one thing happened since it first did.
struct Window {
    ends: Duration,
    told: u32,
    left_out: u32,
    /// The last one that was left out.
    last: Option<Report>,
}

/// Called after every event; short, and not from within the log.
pub type Listener = Arc<dyn Fn() + Send + Sync>;

impl Events {
    /// Begins the log of this run.
    pub fn open(kv: Arc<dyn Kv>, node: Uuid) -> Result<Events, ApiError> {
        let key = format!("/node/{node}/events");
        let next_id = reserve(kv.as_ref(), &key)?;
        let log = Log {
            kv,
            key,
            next_id,
            reserved: next_id + IDS_PER_BLOCK,
            kept: VecDeque::new(),
            listeners: Vec::new(),
            windows: BTreeMap::new(),
        };
        Ok(Events { inner: Arc::new(Mutex::new(log)) })
    }

    /// Adds an event, and says it in the program's own log too.
    pub fn record(&self, time: Timestamp, report: Report) {
        say(&report);
        let listeners = {
            let mut log = self.lock();
            let id = log.take_id();
            let Report { severity, subject, kind, message, next } = report;
            let kind = kind.to_owned();
            log.kept.push_back(Event { id, time, severity, subject, kind, message, next });
            if log.kept.len() > EVENTS_KEPT_MAX {
                log.kept.pop_front();
            }
            log.listeners.clone()
        };
        listeners.iter().for_each(|listener| listener());
    }

    /// Adds an event that came about by itself, unless there were too many of its kind lately.
    pub fn observe(&self, now: Duration, time: Timestamp, report: Report) {
        self.tell_left_out(now, time);
        let admitted = self.lock().admit(now, report);
        if let Some(report) = admitted {
            self.record(time, report);
        }
    }

    /// Tells what was left out of windows that are over.
    pub fn tell_left_out(&self, now: Duration, time: Timestamp) {
        let is_over = |_: &_, window: &mut Window| window.ends <= now;
        let over: Vec<_> = self.lock().windows.extract_if(.., is_over).collect();
        for (_, Window { left_out, last, .. }) in over {
            let Some(mut report) = last else { continue };
            let seconds = REPEAT_WINDOW.as_secs();
            report.message += &format!(
                " (the last of {left_out} such events that were left out within {seconds} s)"
            );
            self.record(time, report);
        }
    }

    /// When something that was left out is to be told.
    pub fn wake_at(&self) -> Option<Duration> {
        let log = self.lock();
        log.windows.values().filter(|window| window.left_out > 0).map(|window| window.ends).min()
    }

    /// The events after a certain one; all that are kept for 0.
    pub fn after(&self, after: u64, limit: usize) -> EventPage {
        let log = self.lock();
        let limit = limit.min(EVENTS_PER_PAGE_MAX);
        let newer = log.kept.iter().filter(|event| event.id > after);
        let events: Vec<Event> = newer.take(limit).cloned().collect();
        let oldest = log.kept.front().map_or(log.next_id, |event| event.id);
        EventPage {
            last: events.last().map_or(after, |event| event.id),
            missed: after != 0 && after + 1 < oldest,
            events,
        }
    }

    /// The last events, at most `limit`.
    pub fn last(&self, limit: usize) -> EventPage {
        let log = self.lock();
        let skipped = log.kept.len().saturating_sub(limit.min(EVENTS_PER_PAGE_MAX));
        let events: Vec<Event> = log.kept.iter().skip(skipped).cloned().collect();
        let last = events.last().map_or(log.next_id.saturating_sub(1), |event| event.id);
        EventPage { events, last, missed: false }
    }

    pub fn listen(&self, listener: Listener) {
        self.lock().listeners.push(listener);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// The report, if it is to be told now.
    fn admit(&mut self, now: Duration, report: Report) -> Option<Report> {
        let key = (report.subject.clone(), report.kind);
        let window = self.windows.entry(key).or_insert_with(|| Window {
            ends: now + REPEAT_WINDOW,
            told: 0,
            left_out: 0,
            last: None,
        });
        if window.told < REPEATS_MAX {
            window.told += 1;
            return Some(report);
        }
        window.left_out += 1;
        window.last = Some(report);
        None
    }

    fn take_id(&mut self) -> u64 {
        if self.next_id == self.reserved {
            match reserve(self.kv.as_ref(), &self.key) {
                Ok(start) => {
                    self.next_id = start.max(self.next_id);
                    self.reserved = self.next_id + IDS_PER_BLOCK;
                }
                // Without kv the ids go on; after a restart some would come again.
                Err(error) => {
                    tracing::warn!(%error, "event ids could not be reserved");
                    self.reserved += IDS_PER_BLOCK;
                }
            }
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

fn reserve(kv: &dyn Kv, key: &str) -> Result<u64, ApiError> {
    loop {
        let entry = kv.get(key).map_err(unavailable)?;
        let parsed = entry.as_ref().and_then(|e| std::str::from_utf8(&e.value).ok()?.parse().ok());
        let start: u64 = parsed.unwrap_or(1);
        let next = (start + IDS_PER_BLOCK).to_string();
        let transaction = match &entry {
            Some(entry) => Transaction::new().unchanged(key, entry.mod_revision).put(key, next),
            None => Transaction::new().absent(key).put(key, next),
        };
        if let Outcome::Committed { .. } = kv.transact(&transaction).map_err(unavailable)? {
            return Ok(start);
        }
    }
}

fn say(report: &Report) {
    let Report { severity, subject, kind, message, next } = report;
    let next = next.as_deref().unwrap_or("");
    match severity {
        Severity::Info => tracing::info!(%subject, kind, "{message}"),
        Severity::Warning => tracing::warn!(%subject, kind, next, "{message}"),
        Severity::Error => tracing::error!(%subject, kind, next, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kv::Embedded;
    use kv::backing::MemoryBacking;

    use super::*;

    fn store() -> Arc<dyn Kv> {
        let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
        Arc::new(Embedded::create(MemoryBacking::new(), clock).unwrap())
    }

    fn open(kv: &Arc<dyn Kv>) -> Events {
        Events::open(Arc::clone(kv), Uuid::nil()).unwrap()
    }

    fn record(events: &Events, count: usize) {
        for _ in 0..count {
            events.record(
                Timestamp::UNIX_EPOCH,
                Report {
                    severity: Severity::Info,
                    subject: Subject::Node,
                    kind: "test",
                    message: "it happened".to_owned(),
                    next: None,
                },
            );
        }
    }

    fn ids(page: &EventPage) -> Vec<u64> {
        page.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn events_are_told_in_order_and_in_pages() {
        let events = open(&store());
        record(&events, 5);
        assert_eq!(ids(&events.after(0, 3)), [1, 2, 3]);
        let page = events.after(3, 3);
        assert_eq!((ids(&page), page.last, page.missed), (vec![4, 5], 5, false));
        let none = events.after(5, 3);
        assert_eq!((ids(&none), none.last), (vec![], 5));
        assert_eq!(ids(&events.last(2)), [4, 5]);
        assert_eq!(open(&store()).last(5).last, 0);
    }

    #[test]
    fn ids_rise_over_a_restart_and_over_blocks() {
        let kv = store();
        let first = open(&kv);
        record(&first, IDS_PER_BLOCK as usize + 2);
        let last = first.last(1).last;
        assert_eq!(last, IDS_PER_BLOCK + 2);
        let second = open(&kv);
        record(&second, 1);
        assert_eq!(second.last(1).last, 2 * IDS_PER_BLOCK + 1);
    }

    #[test]
    fn the_oldest_go_first_and_that_is_told() {
        let events = open(&store());
        record(&events, EVENTS_KEPT_MAX + 10);
        assert!(events.after(3, 1).missed);
        assert!(!events.after(10, 1).missed);
        assert_eq!(ids(&events.after(3, 1)), [11]);
        assert_eq!(events.after(0, usize::MAX).events.len(), EVENTS_PER_PAGE_MAX);
    }

    fn refused(client: &str, pid: u32) -> Report {
        Report {
            severity: Severity::Warning,
            subject: Subject::Client(client.parse().unwrap()),
            kind: "client-refused",
            message: format!("process {pid} tried"),
            next: None,
        }
    }

    fn messages(events: &Events) -> Vec<String> {
        events.after(0, usize::MAX).events.into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn what_happens_all_the_time_is_told_a_few_times_a_minute() {
        let events = open(&store());
        let time = Timestamp::UNIX_EPOCH;
        let at = Duration::from_millis;
        // A front end that tries again every 100 ms, for a minute less one try.
        for n in 0..599 {
            events.observe(at(n * 100), time, refused("vm1", n as u32));
        }
        assert_eq!(messages(&events).len(), 5);
        assert_eq!(events.wake_at(), Some(REPEAT_WINDOW));
        events.tell_left_out(REPEAT_WINDOW - at(1), time);
        assert_eq!(messages(&events).len(), 5);
        // Nothing else needs to happen for the rest to be told.
        events.tell_left_out(REPEAT_WINDOW, time);
        let told = messages(&events);
        assert_eq!(
            told[4..],
            [
                "process 4 tried",
                "process 598 tried (the last of 594 such events that were left out within 60 s)"
            ]
        );
        assert_eq!(events.wake_at(), None);
        events.observe(REPEAT_WINDOW, time, refused("vm1", 700));
        assert_eq!(messages(&events).last().unwrap(), "process 700 tried");
    }

    #[test]
    fn other_kinds_and_subjects_are_told_meanwhile() {
        let events = open(&store());
        let time = Timestamp::UNIX_EPOCH;
        for pid in 0..100 {
            events.observe(Duration::ZERO, time, refused("vm1", pid));
        }
        events.observe(Duration::ZERO, time, refused("vm2", 1000));
        let broken = Report { kind: "queue-broken", ..refused("vm1", 1001) };
        events.observe(Duration::ZERO, time, broken);
        let told = messages(&events);
        assert_eq!(told[5..], ["process 1000 tried", "process 1001 tried"]);
        // What somebody asked for is always told.
        for pid in 0..10 {
            events.record(time, refused("vm1", pid));
        }
        assert_eq!(messages(&events).len(), 17);
        // Few enough leave nothing to be told later.
        let few = open(&store());
        (0..5).for_each(|pid| few.observe(Duration::ZERO, time, refused("vm1", pid)));
        few.tell_left_out(2 * REPEAT_WINDOW, time);
        assert_eq!((messages(&few).len(), few.wake_at()), (5, None));
    }

    #[test]
    fn listeners_hear_of_every_event() {
        let events = open(&store());
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        events.listen(Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        record(&events, 3);
        assert_eq!(heard.load(Ordering::SeqCst), 3);
    }
}
