//! Disks that a pool has lost while it is used, or that were missing when it was opened: they are
//! told of, and taken back as soon as they can be written again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{PoolPv, Severity, Subject};
use uuid::Uuid;
use volume::pool::home::{self, LostDisk, PoolError};

use super::{OpenPool, disks};
use crate::engine::{Context, Report};

/// How often it is tried to take disks back.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Takes disks back, for as long as the pool is open.
pub(super) async fn take_back(context: Context, open: Arc<OpenPool>, pool: Rc<home::Pool>) {
    let mut told = BTreeSet::new();
    while !pool.is_closed() {
        if !is_missed(&pool) && pool.losses().await.is_none() {
            return;
        }
        for LostDisk { disk, pv, name } in pool.lost() {
            if told.insert(disk) {
                (context.report)(missing(&open, &name));
            }
            if is_back(&open, &name, pool.rejoin(disk).await).is_some() {
                told.remove(&disk);
                welcome((&context, &open), &pool, (pv, disk, &name));
            }
        }
        if is_missed(&pool) {
            take_in(&context, &open, &pool).await;
        }
        pool.core().sleep(LOOK_AGAIN).await;
    }
}

/// Disks were missing when the pool was opened, and may come back while it is used. Where it was
/// forced, what they have is sorted out when it is opened again.
fn is_missed(pool: &home::Pool) -> bool {
    usize::from(pool.absent()) > pool.lost().len() && !pool.waits_for_others()
}

/// Whether a disk was missing when the pool was opened, as far as it is one of its disks, and
/// still is.
pub(super) fn is_away(pool: &home::Pool, pv: &PoolPv) -> bool {
    let pv = pv.uuid.into_bytes();
    pool.disk(pv).is_none() && !pool.has_left(pv) && pool.lost().iter().all(|it| it.pv != pv)
}

fn away<'a>(open: &'a OpenPool, pool: &home::Pool) -> Vec<&'a PoolPv> {
    disks::certain(&open.spec).filter(|pv| is_away(pool, pv)).collect()
}

/// Whether more disks are missed than are known to be missing.
pub(super) fn counts_others(open: &OpenPool, pool: &home::Pool) -> bool {
    usize::from(pool.absent()) > away(open, pool).len() + pool.lost().len()
}

/// Takes those back that were missing when the pool was opened.
async fn take_in(context: &Context, open: &OpenPool, pool: &Rc<home::Pool>) {
    for pv in away(open, pool) {
        let Ok(backing) = disks::open_backing(context, pool.core(), &open.spec, pv).await else {
            continue;
        };
        let name = backing.name().to_owned();
        if let Some(disk) = is_back(open, &name, pool.take_in(backing).await) {
            welcome((context, open), pool, (pv.uuid.into_bytes(), disk, &name));
        }
    }
}

fn is_back<T>(open: &OpenPool, disk: &str, back: Result<T, PoolError>) -> Option<T> {
    let log = |error: &PoolError| {
        tracing::debug!(%error, pool = %open.spec.name, disk, "a disk is not back");
    };
    back.inspect_err(log).ok()
}

fn welcome(
    (context, open): (&Context, &OpenPool),
    pool: &home::Pool,
    (pv, disk, name): ([u8; 16], u32, &str),
) {
    (context.report)(back(open, name));
    // Whoever wanted to take it out still does.
    let pv = open.spec.pvs.iter().find(|it| it.uuid == Uuid::from_bytes(pv));
    pool.retire(disk, pv.is_some_and(|pv| pv.standing.is_going()));
}

fn missing(open: &OpenPool, disk: &str) -> Report {
    let name = &open.spec.name;
    Report {
        severity: Severity::Error,
        subject: Subject::Pool(name.clone()),
        kind: "disk-missing",
        message: format!(
            "pool '{name}' is used without {disk}, which cannot be written; other failure groups \
             have what is on it"
        ),
        next: Some(format!(
            "it is taken back when it can be written again; or viaduct pool replace-pv {name} \
             {disk} NEW"
        )),
    }
}

fn back(open: &OpenPool, disk: &str) -> Report {
    Report {
        severity: Severity::Info,
        subject: Subject::Pool(open.spec.name.clone()),
        kind: "disk-back",
        message: format!(
            "{disk} of pool '{}' is back, and gets what it has missed",
            open.spec.name
        ),
        next: None,
    }
}
