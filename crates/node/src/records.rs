//! What is kept of each LU's shared state, across restarts: a value for each LU in `kv`, under
//! `/lu/UUID/state`. What is in it is the plane's business; when it is kept and forgotten is said
//! here.
//!
//! A value may be written once more for an LU that was just removed, by a session that ends. It is
//! swept away at the next start.

use std::collections::BTreeSet;
use std::sync::Arc;

use kv::{Kv, Transaction, range_all};
use model::ApiError;
use uuid::Uuid;

use crate::state::unavailable;

const PREFIX: &str = "/lu/";
const STATE: &str = "/state";

/// Where the plane keeps what must not be forgotten. Every call may block.
pub trait Records: Send + Sync {
    fn read(&self, lu: Uuid) -> Result<Option<Vec<u8>>, ApiError>;
    /// Durable when it returns.
    fn write(&self, lu: Uuid, value: Vec<u8>) -> Result<(), ApiError>;
}

#[derive(Clone)]
pub struct KvRecords(Arc<dyn Kv>);

impl KvRecords {
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self(kv)
    }

    /// Forgets LUs that are not there any more.
    pub fn sweep(&self, present: &BTreeSet<Uuid>) -> Result<(), ApiError> {
        for entry in range_all(self.0.as_ref(), PREFIX).map_err(unavailable)? {
            let lu = entry.key.strip_prefix(PREFIX).and_then(|key| key.strip_suffix(STATE));
            let lu = lu.and_then(|lu| Uuid::parse_str(lu).ok());
            if lu.is_some_and(|lu| !present.contains(&lu)) {
                let gone = Transaction::new().delete(&entry.key);
                self.0.transact(&gone).map_err(unavailable)?;
            }
        }
        Ok(())
    }
}

impl Records for KvRecords {
    fn read(&self, lu: Uuid) -> Result<Option<Vec<u8>>, ApiError> {
        let entry = self.0.get(&key(lu)).map_err(unavailable)?;
        Ok(entry.map(|entry| entry.value))
    }

    fn write(&self, lu: Uuid, value: Vec<u8>) -> Result<(), ApiError> {
        let transaction = Transaction::new().put(key(lu), value);
        self.0.transact(&transaction).map(drop).map_err(unavailable)
    }
}

fn key(lu: Uuid) -> String {
    format!("{PREFIX}{lu}{STATE}")
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
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(records.read(one).unwrap(), None);
        records.write(one, b"first".to_vec()).unwrap();
        records.write(one, b"second".to_vec()).unwrap();
        records.write(other, b"other".to_vec()).unwrap();
        records.sweep(&[one].into()).unwrap();
        assert_eq!(records.read(one).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(records.read(other).unwrap(), None);
    }
}
