//! The store of a single node, on redb. It has the semantics of the cluster's store, revisions,
//! watches and leases included, so that a node that joins a cluster later finds nothing new.
//!
//! A transaction is durable when it is answered: redb commits with a sync, and its two commit slots
//! with checksums make a torn commit the last complete one. Five tables:
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`, `revision`, `lease` (next), `oldest` (revision in `log`) | number |
//! | `keys` | key | create revision, mod revision, lease or 0, value |
//! | `log` | revision, index | key, value or none; the last [`HISTORY_REVISIONS_MAX`] revisions |
//! | `leases` | lease | time to live in milliseconds |
//! | `lease_keys` | lease, key | nothing |
//!
//! Leases count from when the store was opened: a node that was away cannot know better, and
//! waiting one lease time too long is safe. They are looked at on every call, so nothing here needs
//! a thread.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};

use crate::backing::Backing;
use crate::{
    Change, Compare, Entry, Error, Kv, LEASE_TTL_MIN, LeaseId, Notify, Operation, Outcome, Page,
    RANGE_ENTRIES_MAX, Revision, Transaction, Watch, check,
};

/// The format of the tables that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// Revisions that a watch can look back.
pub const HISTORY_REVISIONS_MAX: u64 = 10_000;

/// Changes in one answer of a watch, give or take the last revision.
const CHANGES_PER_POLL: usize = 1000;

/// Memory that redb may use for pages; the whole store is a few megabytes.
const CACHE_BYTES: usize = 8 << 20;

/// create revision, mod revision, lease or 0, value
type KeyRow = (u64, u64, u64, &'static [u8]);

/// revision and index in it
type LogKey = (u64, u32);

/// key, and value unless it was deleted
type LogRow = (&'static str, Option<&'static [u8]>);

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const KEYS: TableDefinition<&str, KeyRow> = TableDefinition::new("keys");
const LOG: TableDefinition<LogKey, LogRow> = TableDefinition::new("log");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease_keys");

/// Time since some fixed point that never goes back and counts while the machine sleeps.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The embedded store. Clones are the same store.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    clock: Clock,
    deadlines: Mutex<BTreeMap<LeaseId, Deadline>>,
    watchers: Mutex<Watchers>,
}

#[derive(Clone, Copy)]
struct Deadline {
    ttl: Duration,
    at: Duration,
}

#[derive(Default)]
struct Watchers {
    next: u64,
    by_id: BTreeMap<u64, Notify>,
}

impl Embedded {
    /// Makes a new store, whatever the backing held. Death on the way leaves what
    /// [`Embedded::open`] refuses, so the caller makes it under another name and renames it when
    /// this has returned.
    pub fn create(backing: impl Backing, clock: Clock) -> Result<Embedded, Error> {
        backing.resize(0)?;
        Embedded::new(backing, clock)
    }

    /// Opens a store that was made before.
    pub fn open(backing: impl Backing, clock: Clock) -> Result<Embedded, Error> {
        if backing.size()? == 0 {
            return Err(Error::Damaged("its file is empty".to_owned()));
        }
        Embedded::new(backing, clock)
    }

    fn new(backing: impl Backing, clock: Clock) -> Result<Embedded, Error> {
        backing.provide();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(Bridge(backing))
            .map_err(|error| fault(error.into()))?;
        prepare(&database)?;
        let deadlines = Mutex::new(read_leases(&database, clock())?);
        let watchers = Mutex::new(Watchers::default());
        Ok(Embedded { shared: Arc::new(Shared { database, clock, deadlines, watchers }) })
    }
}

/// Makes the tables, or checks the format of those that are there.
fn prepare(database: &Database) -> Result<(), Error> {
    let write = begin(database)?;
    {
        let mut meta = write.open_table(META).map_err(store)?;
        let found = number(&meta, "format")?;
        if found > u64::from(FORMAT_VERSION) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(Error::NewerFormat { found, known: FORMAT_VERSION });
        }
        if found == u64::from(FORMAT_VERSION) {
            return Ok(());
        }
        meta.insert("format", u64::from(FORMAT_VERSION)).map_err(store)?;
        write.open_table(KEYS).map_err(store)?;
        write.open_table(LOG).map_err(store)?;
        write.open_table(LEASES).map_err(store)?;
        write.open_table(LEASE_KEYS).map_err(store)?;
    }
    write.commit().map_err(store)
}

fn read_leases(database: &Database, now: Duration) -> Result<BTreeMap<LeaseId, Deadline>, Error> {
    let read = database.begin_read().map_err(store)?;
    let leases = read.open_table(LEASES).map_err(store)?;
    let mut deadlines = BTreeMap::new();
    for row in leases.iter().map_err(store)? {
        let (lease, ttl) = row.map_err(store)?;
        let ttl = Duration::from_millis(ttl.value());
        deadlines.insert(LeaseId(lease.value()), Deadline { ttl, at: now + ttl });
    }
    Ok(deadlines)
}

impl Kv for Embedded {
    fn revision(&self) -> Result<Revision, Error> {
        self.shared.expire()?;
        let read = self.shared.database.begin_read().map_err(store)?;
        number(&read.open_table(META).map_err(store)?, "revision")
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.shared.expire()?;
        let read = self.shared.database.begin_read().map_err(store)?;
        let keys = read.open_table(KEYS).map_err(store)?;
        let row = keys.get(key).map_err(store)?;
        Ok(row.map(|row| entry(key, row.value())))
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.shared.expire()?;
        let read = self.shared.database.begin_read().map_err(store)?;
        let revision = number(&read.open_table(META).map_err(store)?, "revision")?;
        let keys = read.open_table(KEYS).map_err(store)?;
        let limit = limit.min(RANGE_ENTRIES_MAX);
        let start = after.unwrap_or(prefix).max(prefix);
        let mut page = Page { entries: Vec::new(), more: false, revision };
        for row in keys.range(start..).map_err(store)? {
            let (key, value) = row.map_err(store)?;
            let key = key.value();
            if !key.starts_with(prefix) {
                break;
            }
            if after == Some(key) {
                continue;
            }
            if page.entries.len() == limit {
                page.more = true;
                break;
            }
            page.entries.push(entry(key, value.value()));
        }
        Ok(page)
    }

    fn transact(&self, transaction: &Transaction) -> Result<Outcome, Error> {
        check(transaction)?;
        self.shared.expire()?;
        self.shared.transact(transaction)
    }

    fn watch(&self, prefix: &str, from: Revision, notify: Notify) -> Result<Box<dyn Watch>, Error> {
        let id = self.shared.watchers().add(notify);
        let (shared, prefix) = (Arc::clone(&self.shared), prefix.to_owned());
        let watch = EmbeddedWatch { shared, id, prefix, next: from.max(1) };
        watch.check_history()?;
        Ok(Box::new(watch))
    }

    fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.shared.expire()?;
        let ttl = ttl.max(LEASE_TTL_MIN);
        let write = begin(&self.shared.database)?;
        let lease;
        {
            let mut meta = write.open_table(META).map_err(store)?;
            lease = number(&meta, "lease")? + 1;
            meta.insert("lease", lease).map_err(store)?;
            let mut leases = write.open_table(LEASES).map_err(store)?;
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            leases.insert(lease, ttl_ms).map_err(store)?;
        }
        write.commit().map_err(store)?;
        let deadline = Deadline { ttl, at: (self.shared.clock)() + ttl };
        self.shared.deadlines().insert(LeaseId(lease), deadline);
        Ok(LeaseId(lease))
    }

    fn lease_renew(&self, lease: LeaseId) -> Result<(), Error> {
        self.shared.expire()?;
        let now = (self.shared.clock)();
        match self.shared.deadlines().get_mut(&lease) {
            Some(deadline) => deadline.at = now + deadline.ttl,
            None => return Err(Error::LeaseEnded { lease }),
        }
        Ok(())
    }

    fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.shared.expire()?;
        if !self.shared.deadlines().contains_key(&lease) {
            return Err(Error::LeaseEnded { lease });
        }
        self.shared.end_leases(&[lease])
    }
}

impl Shared {
    fn transact(&self, transaction: &Transaction) -> Result<Outcome, Error> {
        let write = begin(&self.database)?;
        let before = number(&write.open_table(META).map_err(store)?, "revision")?;
        if !holds(&write, &transaction.compare)? {
            return Ok(Outcome::Refused { revision: before });
        }
        let mut change = Changes::new(&write, before + 1)?;
        for operation in &transaction.operations {
            match operation {
                Operation::Put { key, value, lease } => change.put(key, value, *lease)?,
                Operation::Delete { key } => change.delete(key)?,
            }
        }
        let changed = change.finish()?;
        if !changed {
            return Ok(Outcome::Committed { revision: before });
        }
        write.commit().map_err(store)?;
        self.notify();
        Ok(Outcome::Committed { revision: before + 1 })
    }

    /// Ends the leases whose time has come.
    fn expire(&self) -> Result<(), Error> {
        let now = (self.clock)();
        let ended: Vec<LeaseId> = {
            let deadlines = self.deadlines();
            let ended = deadlines.iter().filter(|(_, deadline)| deadline.at <= now);
            ended.map(|(lease, _)| *lease).collect()
        };
        if ended.is_empty() { Ok(()) } else { self.end_leases(&ended) }
    }

    fn end_leases(&self, ended: &[LeaseId]) -> Result<(), Error> {
        let write = begin(&self.database)?;
        let revision = number(&write.open_table(META).map_err(store)?, "revision")?;
        let mut change = Changes::new(&write, revision + 1)?;
        for lease in ended {
            for key in change.keys_of(*lease)? {
                change.delete(&key)?;
            }
            let mut leases = write.open_table(LEASES).map_err(store)?;
            leases.remove(lease.0).map_err(store)?;
        }
        let changed = change.finish()?;
        write.commit().map_err(store)?;
        self.deadlines().retain(|lease, _| !ended.contains(lease));
        if changed {
            self.notify();
        }
        Ok(())
    }

    fn notify(&self) {
        let watchers: Vec<Notify> = self.watchers().by_id.values().cloned().collect();
        for notify in watchers {
            notify();
        }
    }

    fn deadlines(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Deadline>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchers {
    fn add(&mut self, notify: Notify) -> u64 {
        self.next += 1;
        self.by_id.insert(self.next, notify);
        self.next
    }
}

/// The changes of one revision, being written.
struct Changes<'t> {
    revision: Revision,
    count: u32,
    keys: redb::Table<'t, &'static str, KeyRow>,
    log: redb::Table<'t, LogKey, LogRow>,
    lease_keys: redb::Table<'t, (u64, &'static str), ()>,
    write: &'t WriteTransaction,
}

impl<'t> Changes<'t> {
    fn new(write: &'t WriteTransaction, revision: Revision) -> Result<Changes<'t>, Error> {
        Ok(Changes {
            revision,
            count: 0,
            keys: write.open_table(KEYS).map_err(store)?,
            log: write.open_table(LOG).map_err(store)?,
            lease_keys: write.open_table(LEASE_KEYS).map_err(store)?,
            write,
        })
    }

    fn put(&mut self, key: &str, value: &[u8], lease: Option<LeaseId>) -> Result<(), Error> {
        if let Some(lease) = lease {
            let leases = self.write.open_table(LEASES).map_err(store)?;
            if leases.get(lease.0).map_err(store)?.is_none() {
                return Err(Error::LeaseEnded { lease });
            }
        }
        let before = self.before(key)?;
        let created = before.map_or(self.revision, |(created, _)| created);
        self.unlease(key, before)?;
        let lease = lease.map_or(0, |lease| lease.0);
        if lease != 0 {
            self.lease_keys.insert((lease, key), ()).map_err(store)?;
        }
        self.keys.insert(key, (created, self.revision, lease, value)).map_err(store)?;
        self.record(key, Some(value))
    }

    fn delete(&mut self, key: &str) -> Result<(), Error> {
        let before = self.before(key)?;
        if before.is_none() {
            return Ok(());
        }
        self.unlease(key, before)?;
        self.keys.remove(key).map_err(store)?;
        self.record(key, None)
    }

    /// The revision that made a key, and its lease or 0.
    fn before(&self, key: &str) -> Result<Option<(Revision, u64)>, Error> {
        let row = self.keys.get(key).map_err(store)?;
        Ok(row.map(|row| (row.value().0, row.value().2)))
    }

    fn unlease(&mut self, key: &str, before: Option<(Revision, u64)>) -> Result<(), Error> {
        if let Some((_, lease)) = before
            && lease != 0
        {
            self.lease_keys.remove((lease, key)).map_err(store)?;
        }
        Ok(())
    }

    fn record(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        self.log.insert((self.revision, self.count), (key, value)).map_err(store)?;
        self.count += 1;
        Ok(())
    }

    fn keys_of(&self, lease: LeaseId) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        for row in self.lease_keys.range((lease.0, "")..(lease.0 + 1, "")).map_err(store)? {
            let (key, _) = row.map_err(store)?;
            keys.push(key.value().1.to_owned());
        }
        Ok(keys)
    }

    /// Counts the revision and forgets the oldest; false when nothing was changed.
    fn finish(mut self) -> Result<bool, Error> {
        if self.count == 0 {
            return Ok(false);
        }
        let mut meta = self.write.open_table(META).map_err(store)?;
        meta.insert("revision", self.revision).map_err(store)?;
        let oldest = self.revision.saturating_sub(HISTORY_REVISIONS_MAX) + 1;
        if number(&meta, "oldest")?.max(1) < oldest {
            meta.insert("oldest", oldest).map_err(store)?;
            self.log.retain_in(..(oldest, 0), |_, _| false).map_err(store)?;
        }
        Ok(true)
    }
}

struct EmbeddedWatch {
    shared: Arc<Shared>,
    id: u64,
    prefix: String,
    /// The first revision that was not told.
    next: Revision,
}

impl EmbeddedWatch {
    fn check_history(&self) -> Result<(), Error> {
        let read = self.shared.database.begin_read().map_err(store)?;
        let oldest = number(&read.open_table(META).map_err(store)?, "oldest")?;
        if self.next < oldest { Err(Error::Compacted { oldest }) } else { Ok(()) }
    }
}

impl Watch for EmbeddedWatch {
    fn poll(&mut self) -> Result<Vec<Change>, Error> {
        self.shared.expire()?;
        self.check_history()?;
        let read = self.shared.database.begin_read().map_err(store)?;
        let log = read.open_table(LOG).map_err(store)?;
        let mut changes: Vec<Change> = Vec::new();
        for row in log.range((self.next, 0)..).map_err(store)? {
            let (at, what) = row.map_err(store)?;
            let ((revision, _), (key, value)) = (at.value(), what.value());
            if changes.len() >= CHANGES_PER_POLL && revision >= self.next {
                (self.shared.watchers().by_id.get(&self.id)).inspect(|notify| notify());
                break;
            }
            self.next = revision + 1;
            if key.starts_with(&self.prefix) {
                let value = value.map(<[u8]>::to_vec);
                changes.push(Change { revision, key: key.to_owned(), value });
            }
        }
        Ok(changes)
    }
}

impl Drop for EmbeddedWatch {
    fn drop(&mut self) {
        self.shared.watchers().by_id.remove(&self.id);
    }
}

fn holds(write: &WriteTransaction, compare: &[Compare]) -> Result<bool, Error> {
    let keys = write.open_table(KEYS).map_err(store)?;
    for compare in compare {
        let (key, expected) = match compare {
            Compare::Absent { key } => (key, None),
            Compare::ModRevision { key, revision } => (key, Some(*revision)),
        };
        let row = keys.get(key.as_str()).map_err(store)?;
        if row.map(|row| row.value().1) != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

fn begin(database: &Database) -> Result<WriteTransaction, Error> {
    database.begin_write().map_err(store)
}

fn number(meta: &impl ReadableTable<&'static str, u64>, key: &str) -> Result<u64, Error> {
    Ok(meta.get(key).map_err(store)?.map_or(0, |value| value.value()))
}

fn entry(key: &str, row: (u64, u64, u64, &[u8])) -> Entry {
    let (create_revision, mod_revision, lease, value) = row;
    Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        create_revision,
        mod_revision,
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

fn store(error: impl Into<redb::Error>) -> Error {
    fault(error.into())
}

fn fault(error: redb::Error) -> Error {
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Error::Damaged(error.to_string())
        }
        redb::Error::Io(error) => Error::Io(error),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => Error::Stopped,
        redb::Error::UpgradeRequired(found) => {
            Error::Damaged(format!("its pages have the old form {found}"))
        }
        other => Error::Damaged(other.to_string()),
    }
}

/// redb's view of a backing.
struct Bridge<B>(B);

impl<B> fmt::Debug for Bridge<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backing")
    }
}

impl<B: Backing> StorageBackend for Bridge<B> {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.resize(len)?;
        self.0.provide();
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, data)
    }
}

#[cfg(test)]
mod tests;
