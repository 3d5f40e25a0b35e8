//! Copies of LUs in the failure groups of a pool: those that have missed something are remembered
//! in `kv`, so that none of them is taken for whole when it is all that is found, and brought up to
//! date while their LUs are used.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::{Error, ErrorKind};
use model::{ApiError, LuName, Pool, Severity, Subject};
use rt::Core;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volume::pool::home::{self, Noted, Registry};
use volume::pool::lu::Mended;

use super::lus::PoolStore;
use super::{OpenPool, epochs};
use crate::engine::{Context, Report};
use crate::records::{Record, Records};

/// The version of the form that this program writes.
const VERSION: u32 = 1;

/// When to try again what could not be done.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Slabs of an LU that are brought up to date before others have their turn.
const SLABS_AT_A_TIME: u64 = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// By LU: copies that are younger have missed something.
    ages: BTreeMap<Uuid, u32>,
}

/// What `kv` knows of the copies of a pool.
pub(super) struct Copies {
    core: Core,
    records: Arc<dyn Records>,
    pool: Uuid,
    ages: RefCell<BTreeMap<Uuid, u32>>,
}

impl Copies {
    pub(super) async fn read(
        context: &Context,
        core: &Core,
        spec: &Pool,
    ) -> Result<Rc<Self>, ApiError> {
        let (records, of) = (context.records.clone(), Record::Copies(spec.uuid));
        let reader = records.clone();
        let read = core.blocking(move || reader.read(of)).await;
        let value = read.unwrap_or_else(|| Err(ApiError::failed("the work was given up")))?;
        let damaged = || {
            let name = &spec.name;
            ApiError::failed(format!("what is kept of the copies of pool '{name}' is not readable"))
                .then("use the release of viaduct that wrote it, or a later one")
        };
        let ages = match value {
            None => BTreeMap::new(),
            Some(value) => {
                let kept: Kept = serde_json::from_slice(&value).map_err(|_| damaged())?;
                if kept.version != VERSION {
                    return Err(damaged());
                }
                kept.ages
            }
        };
        Ok(Rc::new(Self { core: core.clone(), records, pool: spec.uuid, ages: RefCell::new(ages) }))
    }
}

impl Registry for Copies {
    fn age(&self, lu: [u8; 16]) -> u32 {
        self.ages.borrow().get(&Uuid::from_bytes(lu)).copied().unwrap_or_default()
    }

    fn note(&self, all: Vec<([u8; 16], Option<u32>)>) -> Noted<'_> {
        Box::pin(async move {
            let mut ages = self.ages.borrow().clone();
            for (lu, age) in all {
                let lu = Uuid::from_bytes(lu);
                match age {
                    Some(age) => drop(ages.insert(lu, age)),
                    None => drop(ages.remove(&lu)),
                }
            }
            if ages == *self.ages.borrow() {
                return Ok(());
            }
            let kept = serde_json::to_vec(&Kept { version: VERSION, ages: ages.clone() });
            let kept = kept.map_err(|error| failed(error.to_string()))?;
            let (records, of) = (self.records.clone(), Record::Copies(self.pool));
            let written = self.core.blocking(move || records.write(of, kept)).await;
            let written = written.ok_or_else(|| failed("the work was given up".to_owned()))?;
            written.map_err(|error| failed(error.message))?;
            self.ages.replace(ages);
            Ok(())
        })
    }

    fn epochs(&self, all: RangeInclusive<u64>) -> Noted<'_> {
        Box::pin(async move {
            let noted = epochs::note(&self.records, &self.core, self.pool, all).await;
            noted.map_err(|error| failed(error.message))
        })
    }
}

fn failed(why: String) -> Error {
    Error::new(ErrorKind::Medium).note(why)
}

/// Brings copies up to date, for as long as the pool is open.
pub(super) async fn mend(context: Context, open: Arc<OpenPool>, pool: Rc<home::Pool>) {
    let mut told = BTreeSet::new();
    while pool.lacking().await {
        while pool.groups().len() > 1 && !pool.is_closed() {
            let lus: Vec<(Uuid, Arc<PoolStore>)> =
                open.lus().iter().map(|(uuid, lu)| (*uuid, lu.clone())).collect();
            let (mut lack, mut moves) = (false, false);
            for (uuid, lu) in lus {
                let mended = mend_some(&context, (&open, &pool), (uuid, &lu), &mut told).await;
                lack |= mended.is_some();
                moves |= mended == Some(true);
            }
            if !lack && settle(&pool).await {
                break;
            }
            if !moves {
                pool.core().sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// None: all copies of the LU have everything. False: nothing could be done about that now.
async fn mend_some(
    context: &Context,
    (open, pool): (&OpenPool, &home::Pool),
    (uuid, lu): (Uuid, &PoolStore),
    told: &mut BTreeSet<Uuid>,
) -> Option<bool> {
    let (id, name) = (uuid.into_bytes(), lu.name());
    let report = |severity, message| {
        let (subject, kind, next) = (Subject::Lu(name.clone()), "copies", None);
        (context.report)(Report { severity, subject, kind, message, next });
    };
    let everything = || format!("all copies of LU {name} have everything again");
    let slabs = pool.lacks(id, 0).0;
    if slabs == 0 && pool.stale_groups(id).is_empty() {
        // What lacked nothing but a place has it.
        if told.contains(&uuid) && settle(pool).await {
            told.remove(&uuid);
            report(Severity::Info, everything());
        }
        return None;
    }
    if told.insert(uuid) {
        report(Severity::Warning, lacking(name, slabs));
    }
    let slab = open.spec.slab_size.bytes();
    let most = open.catch_up_pace.bytes(SLABS_AT_A_TIME * slab) / slab;
    let most = most.max(1);
    match lu.lu().mend(most as usize).await {
        Ok(Mended { bytes, .. }) => {
            open.catch_up_pace.keep_rate(pool.core(), bytes, || !pool.is_closed()).await;
            Some(true)
        }
        Err(error) => {
            tracing::debug!(%error, lu = %name, "its copies are tried again");
            Some(false)
        }
    }
}

/// Failure groups with everything are known as such before that is told, so that whoever waits for
/// it may take the others away. False: it is to be tried again.
async fn settle(pool: &home::Pool) -> bool {
    let settled = pool.settle_groups().await;
    settled.inspect_err(|error| tracing::debug!(%error, "labels are tried again")).is_ok()
}

fn lacking(name: &LuName, slabs: usize) -> String {
    match slabs {
        0 => format!("a copy of LU {name} has missed something; it is brought up to date"),
        1 => format!("one slab of LU {name} is not in all failure groups; it is brought there"),
        many => {
            format!(
                "{many} slabs of LU {name} are not in all failure groups; they are brought there"
            )
        }
    }
}
