//! LUs that are brought into a pool: how fast, and what is told when that does not go on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use block::{Error, ErrorKind};
use model::{ApiError, LuName, PoolName, Severity, Size, Subject};
use rt::Core;
use volume::pool::disks::Backing;
use volume::pool::lu::Brought;
use volume::pool::root::{self, SOURCE_NAME_BYTES_MAX};

use super::lus::PoolStore;
use super::pace::Pace;
use crate::engine::{BroughtStatus, Report, Reporter, Trouble};

/// Bytes that are brought at a time: so many are in memory.
const BYTES_AT_A_TIME: u64 = 4 << 20;

/// When to try again what could not be brought.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What an LU of a pool is brought from.
#[derive(Clone)]
pub(in crate::plane) struct Source {
    /// As an operator knows it.
    pub name: String,
    pub size: Size,
    /// Bytes a second at most; 0 is any.
    pub rate: Size,
    /// Nothing was ever written to the LU in its pool.
    pub is_new: bool,
    /// When it is to be opened.
    pub disk: Option<Arc<dyn Backing>>,
}

/// How an LU of a pool is being brought there.
pub(super) struct Bringing {
    pool: PoolName,
    from: String,
    pub(super) pace: Pace,
    waits: Mutex<Option<Trouble>>,
}

impl Source {
    /// As it is written down in the pool.
    pub(super) fn about(&self) -> root::Source {
        let mut end = self.name.len().min(SOURCE_NAME_BYTES_MAX);
        while !self.name.is_char_boundary(end) {
            end -= 1;
        }
        root::Source { size: self.size.bytes(), name: self.name[..end].to_owned() }
    }
}

impl Bringing {
    pub(super) fn new(pool: PoolName, source: &Source) -> Bringing {
        let (from, pace) = (source.name.clone(), Pace::new(source.rate));
        Bringing { pool, from, pace, waits: Mutex::default() }
    }

    fn waits(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it does not go on.
    fn trouble(&self, lu: &LuName, error: &Error, left: u64) -> Trouble {
        let (pool, from, left) = (&self.pool, &self.from, Size(left));
        if error.kind() == ErrorKind::NoSpace {
            return Trouble {
                message: format!(
                    "LU {lu} is not brought on into pool '{pool}', which is full: up to {left} of \
                     {from} are missing"
                ),
                next: Some(format!(
                    "viaduct pool add-pv {pool}, or remove LUs; it goes on by itself"
                )),
            };
        }
        Trouble {
            message: format!("LU {lu} is not brought on into pool '{pool}' from {from}: {error}"),
            next: Some(
                "look at that disk; what cannot be read there can be written, and everything else \
                 goes on"
                    .to_owned(),
            ),
        }
    }
}

impl PoolStore {
    /// Brings it, until that is done or it is closed.
    pub(in crate::plane) async fn bring(
        &self,
        report: &Reporter,
        core: &Core,
    ) -> Result<(), ApiError> {
        let Some(bringing) = &self.bringing else { return Ok(()) };
        let mut told = None;
        loop {
            let began = core.now();
            let most = (BYTES_AT_A_TIME / self.extent).max(1) as usize;
            let extents = bringing.pace.extents(self.extent).min(most);
            let (done, bytes) = self.lu().bring(extents).await;
            match done {
                Ok(Brought::Done) => return Ok(()),
                Ok(Brought::Part { .. }) => {
                    bringing.waits().take();
                    bringing.pace.rest(core, bytes, began).await;
                }
                Err(error) if error.kind() == ErrorKind::Offline => {
                    let message = format!("LU {} is not open any more", self.name());
                    return Err(ApiError::not_now(message));
                }
                Err(error) if error.kind() == ErrorKind::Busy => core.sleep(LOOK_AGAIN).await,
                Err(error) => {
                    let left = self.brought().await.map_or(0, |it| it.of.0 - it.bytes.0);
                    let trouble = bringing.trouble(self.name(), &error, left);
                    *bringing.waits() = Some(trouble.clone());
                    if told.replace(error.kind()) != Some(error.kind()) {
                        report(self.waits(trouble));
                    }
                    core.sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    fn waits(&self, Trouble { message, next }: Trouble) -> Report {
        let (severity, subject) = (Severity::Warning, Subject::Lu(self.name().clone()));
        Report { severity, subject, kind: "lu-migration-waits", message, next }
    }

    /// How far it is brought, if it is.
    pub(in crate::plane) async fn brought(&self) -> Option<BroughtStatus> {
        let bringing = self.bringing.as_ref()?;
        let Brought::Part { done, of } = self.lu().brought().await.ok()? else { return None };
        let waits = bringing.waits().clone();
        Some(BroughtStatus { bytes: Size(done), of: Size(of), waits })
    }

    /// Is brought at most so fast from now on.
    pub(in crate::plane) fn set_rate(&self, to: Size) {
        if let Some(bringing) = &self.bringing {
            bringing.pace.set(to);
        }
    }
}
