//! The cluster's store: one small, strongly consistent database of keys and values behind one
//! trait.
//!
//! | module | holds |
//! |---|---|
//! | here | the trait [`Kv`] with its words: revision, entry, transaction, watch, lease |
//! | [`embedded`] | the store of a single node, on redb |
//! | [`backing`] | what redb writes to: a file seen through a small trait, and its crashing twin |
//! | [`conformance`] | the suite that every implementation of the trait passes |
//!
//! The words are etcd's, because a cluster of several nodes stands on etcd and a node must not
//! notice the difference: every successful transaction that changes something has the next
//! *revision*; an entry knows the revision that made it and the one that changed it last; a watch
//! tells every change from a revision on, in order. Calls block, as a thread of the control plane
//! may; the data path never calls here.

pub mod backing;
pub mod conformance;
pub mod embedded;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use backing::Backing;
pub use embedded::Embedded;

/// Counts the changes of the whole store. The first change has revision 1.
pub type Revision = u64;

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Largest value in bytes; etcd's default request limit with room for the rest of a request.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Most comparisons and most operations of one transaction: etcd's default.
pub const TRANSACTION_OPERATIONS_MAX: usize = 128;

/// Most entries in one page of a range.
pub const RANGE_ENTRIES_MAX: usize = 1000;

/// Shortest lease; less is shorter than a renewal may take.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// The revision that made the key.
    pub create_revision: Revision,
    /// The revision that changed it last.
    pub mod_revision: Revision,
    pub lease: Option<LeaseId>,
}

/// Part of the keys with a common prefix, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// There are more; ask again after the last key of this page.
    pub more: bool,
    /// The revision that this page was read at.
    pub revision: Revision,
}

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent { key: String },
    /// The key was last changed at this revision.
    ModRevision { key: String, revision: Revision },
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Put { key: String, value: Vec<u8>, lease: Option<LeaseId> },
    Delete { key: String },
}

/// Changes that are made together, if all comparisons hold, or not at all. A key may be changed
/// only once in a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub compare: Vec<Compare>,
    pub operations: Vec<Operation>,
}

impl Transaction {
    pub fn new() -> Transaction {
        Transaction::default()
    }

    pub fn absent(mut self, key: impl Into<String>) -> Transaction {
        self.compare.push(Compare::Absent { key: key.into() });
        self
    }

    pub fn unchanged(mut self, key: impl Into<String>, revision: Revision) -> Transaction {
        self.compare.push(Compare::ModRevision { key: key.into(), revision });
        self
    }

    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Transaction {
        let (key, value) = (key.into(), value.into());
        self.operations.push(Operation::Put { key, value, lease: None });
        self
    }

    pub fn delete(mut self, key: impl Into<String>) -> Transaction {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable. The revision is the old one when there was nothing to change.
    Committed { revision: Revision },
    /// A comparison did not hold; nothing was changed.
    Refused { revision: Revision },
}

/// One change as a watch tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: String,
    /// The new value, or none when the key was deleted.
    pub value: Option<Vec<u8>>,
}

/// Names a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Called when a watch may have news: short, from any thread, perhaps without need.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// Changes from a revision on. Dropping it ends it.
pub trait Watch: Send {
    /// The changes since the last call, oldest first, never part of a revision.
    fn poll(&mut self) -> Result<Vec<Change>, Error>;
}

/// The store.
pub trait Kv: Send + Sync {
    /// The revision of the last change; 0 when there was none.
    fn revision(&self) -> Result<Revision, Error>;

    fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Keys that begin with `prefix` and come after `after`, at most `limit` of them and at most
    /// [`RANGE_ENTRIES_MAX`].
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error>;

    fn transact(&self, transaction: &Transaction) -> Result<Outcome, Error>;

    /// Tells every change at or after `from` of keys that begin with `prefix`. What is too long ago
    /// to be told is [`Error::Compacted`], here or at a later poll that came too late.
    fn watch(&self, prefix: &str, from: Revision, notify: Notify) -> Result<Box<dyn Watch>, Error>;

    /// A lease that ends `ttl` after its last renewal, and takes the keys put under it along.
    fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error>;

    fn lease_renew(&self, lease: LeaseId) -> Result<(), Error>;

    /// Ends a lease now.
    fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error>;
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the store was written in format {found}, and this program knows formats up to {known}; \
         start the release that wrote it, or a later one"
    )]
    NewerFormat { found: u32, known: u32 },
    #[error("the store is damaged: {0}; restore the configuration into a new data directory")]
    Damaged(String),
    #[error("the store failed earlier and takes no more changes; restart the node")]
    Stopped,
    #[error("the store could not be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("{what} of {found} is over the limit of {max}")]
    Limit { what: &'static str, found: usize, max: usize },
    #[error("'{0}' is not a key: it must not be empty")]
    Key(String),
    #[error("a transaction changes key '{0}' twice")]
    Twice(String),
    #[error("changes before revision {oldest} are forgotten; read the state anew")]
    Compacted { oldest: Revision },
    #[error("lease {0} has ended", lease.0)]
    LeaseEnded { lease: LeaseId },
}

/// Reads every page of a prefix. The caller knows that nobody writes there meanwhile, or checks.
pub fn range_all(kv: &dyn Kv, prefix: &str) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.key.clone());
        let page = kv.range(prefix, after.as_deref(), RANGE_ENTRIES_MAX)?;
        entries.extend(page.entries);
        if !page.more {
            return Ok(entries);
        }
    }
}

/// Refuses what no implementation takes.
pub(crate) fn check(transaction: &Transaction) -> Result<(), Error> {
    let counts = [
        ("the number of comparisons", transaction.compare.len()),
        ("the number of operations", transaction.operations.len()),
    ];
    for (what, found) in counts {
        if found > TRANSACTION_OPERATIONS_MAX {
            return Err(Error::Limit { what, found, max: TRANSACTION_OPERATIONS_MAX });
        }
    }
    let mut changed = std::collections::BTreeSet::new();
    for operation in &transaction.operations {
        let (key, size) = match operation {
            Operation::Put { key, value, .. } => (key, value.len()),
            Operation::Delete { key } => (key, 0),
        };
        check_key(key)?;
        if size > VALUE_BYTES_MAX {
            return Err(Error::Limit { what: "a value", found: size, max: VALUE_BYTES_MAX });
        }
        if !changed.insert(key) {
            return Err(Error::Twice(key.clone()));
        }
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::Key(key.to_owned())),
        1..=KEY_BYTES_MAX => Ok(()),
        found => Err(Error::Limit { what: "a key", found, max: KEY_BYTES_MAX }),
    }
}
