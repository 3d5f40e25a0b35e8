//! What the plane keeps across restarts: a value for each LU and each pool in `kv`. What is in it
//! is the plane's business; when it is kept and forgotten is said here.
//!
//! | key | value |
//! |---|---|
//! | `/lu/UUID/state` | the LU's reservations and modes |
//! | `/pool/UUID/epoch` | the epoch that the pool was last opened with |
//! | `/pool/UUID/copies` | which copies of its LUs have missed something |
//! | `/pool/UUID/scrub` | how far its scrub is, or what the last one has come to |
//! | `/pool/UUID/force` | the failure group that it is to be forced with; gone when that was told |
//!
//! A value may be written once more for an LU that was just removed, by a session that ends. It is
//! swept away at the next start.

use std::collections::BTreeSet;
use std::sync::Arc;

use kv::{Kv, Transaction, range_all};
use model::ApiError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::unavailable;

/// Before the UUID in a key, and behind it.
const KEYS: [(&str, &str); 5] = [
    ("/lu/", "/state"),
    ("/pool/", "/epoch"),
    ("/pool/", "/copies"),
    ("/pool/", "/scrub"),
    ("/pool/", "/force"),
];

/// What a value is kept of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    Lu(Uuid),
    Pool(Uuid),
    /// The copies in a pool.
    Copies(Uuid),
    /// The scrub of a pool.
    Scrub(Uuid),
    /// That a pool is to be forced, and with what: a [`ForceWish`].
    Force(Uuid),
}

/// A pool is to be opened with this failure group, whatever others have that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceWish {
    version: u32,
    pub group: u16,
}

impl ForceWish {
    /// The version of the form that this program writes.
    const VERSION: u32 = 1;

    pub fn new(group: u16) -> Self {
        Self { version: Self::VERSION, group }
    }

    pub fn encode(&self) -> Result<Vec<u8>, ApiError> {
        serde_json::to_vec(self).map_err(|error| ApiError::failed(error.to_string()))
    }

    /// None: another release has written it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let wish: Self = serde_json::from_slice(value).ok()?;
        (wish.version == Self::VERSION).then_some(wish)
    }
}

/// Where the plane keeps what must not be forgotten. Every call may block.
pub trait Records: Send + Sync {
    fn read(&self, of: Record) -> Result<Option<Vec<u8>>, ApiError>;
    /// Durable when it returns.
    fn write(&self, of: Record, value: Vec<u8>) -> Result<(), ApiError>;
}

#[derive(Clone)]
pub struct KvRecords(Arc<dyn Kv>);

impl KvRecords {
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self(kv)
    }

    /// Forgets LUs and pools that are not there any more.
    pub fn sweep(&self, present: &BTreeSet<Uuid>) -> Result<(), ApiError> {
        for (before, behind) in KEYS {
            for entry in range_all(self.0.as_ref(), before).map_err(unavailable)? {
                let uuid = entry.key.strip_prefix(before).and_then(|key| key.strip_suffix(behind));
                let uuid = uuid.and_then(|uuid| Uuid::parse_str(uuid).ok());
                if uuid.is_some_and(|uuid| !present.contains(&uuid)) {
                    let gone = Transaction::new().delete(&entry.key);
                    self.0.transact(&gone).map_err(unavailable)?;
                }
            }
        }
        Ok(())
    }
}

impl Records for KvRecords {
    fn read(&self, of: Record) -> Result<Option<Vec<u8>>, ApiError> {
        let entry = self.0.get(&key(of)).map_err(unavailable)?;
        Ok(entry.map(|entry| entry.value))
    }

    fn write(&self, of: Record, value: Vec<u8>) -> Result<(), ApiError> {
        let transaction = Transaction::new().put(key(of), value);
        self.0.transact(&transaction).map(drop).map_err(unavailable)
    }
}

/// Where it is kept.
pub fn key(of: Record) -> String {
    let ((before, behind), uuid) = match of {
        Record::Lu(uuid) => (KEYS[0], uuid),
        Record::Pool(uuid) => (KEYS[1], uuid),
        Record::Copies(uuid) => (KEYS[2], uuid),
        Record::Scrub(uuid) => (KEYS[3], uuid),
        Record::Force(uuid) => (KEYS[4], uuid),
    };
    format!("{before}{uuid}{behind}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kv::Embedded;
    use kv::backing::MemoryBacking;

    use super::*;

    #[test]
    fn what_was_written_is_read_until_its_lu_is_gone() {
        let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
        let kv = Embedded::create(MemoryBacking::default(), clock).unwrap();
        let records = KvRecords::new(Arc::new(kv));
        let (one, other) = (Record::Lu(Uuid::from_u128(1)), Record::Lu(Uuid::from_u128(2)));
        let (pool, old) = (Record::Pool(Uuid::from_u128(1)), Record::Pool(Uuid::from_u128(3)));
        assert_eq!(records.read(one).unwrap(), None);
        records.write(one, b"first".to_vec()).unwrap();
        records.write(one, b"second".to_vec()).unwrap();
        records.write(other, b"other".to_vec()).unwrap();
        records.write(pool, b"pool".to_vec()).unwrap();
        records.write(old, b"old".to_vec()).unwrap();
        records.sweep(&[Uuid::from_u128(1)].into()).unwrap();
        assert_eq!(records.read(pool).unwrap().as_deref(), Some(&b"pool"[..]));
        assert_eq!(records.read(old).unwrap(), None);
        assert_eq!(records.read(one).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(records.read(other).unwrap(), None);
    }
}
