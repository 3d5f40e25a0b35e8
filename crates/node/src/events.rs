//! The log of what happened: the last so many events, in memory, with ids that rise over restarts
//! too.
//!
//! Ids are reserved from `kv` in blocks, so that an event costs no write and a listener that
//! remembers an id is never told an old one twice. What was logged before a restart is in the
//! journal, through `tracing`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kv::{Kv, Outcome, Transaction};
use model::event::EventPage;
use model::limits::{EVENTS_KEPT_MAX, EVENTS_PER_PAGE_MAX};
use model::{ApiError, Event, Severity};
use uuid::Uuid;

use crate::engine::Report;
use crate::state::unavailable;

/// Ids that one write to `kv` reserves.
const IDS_PER_BLOCK: u64 = 1000;

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
    use std::time::Duration;

    use kv::Embedded;
    use kv::backing::MemoryBacking;
    use model::Subject;

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
