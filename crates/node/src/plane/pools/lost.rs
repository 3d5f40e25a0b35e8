//! Disks that a pool has lost while it is used: they are told of, and taken back as soon as they
//! can be written again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{Severity, Subject};
use uuid::Uuid;
use volume::pool::home::{self, LostDisk};

use super::OpenPool;
use crate::engine::{Context, Report};

/// How often it is tried to take disks back.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Takes disks back, for as long as the pool is open.
pub(super) async fn take_back(context: Context, open: Arc<OpenPool>, pool: Rc<home::Pool>) {
    let mut told = BTreeSet::new();
    while let Some(lost) = pool.losses().await {
        for LostDisk { disk, pv, name } in lost {
            if told.insert(disk) {
                (context.report)(missing(&open, &name));
            }
            if let Err(error) = pool.rejoin(disk).await {
                tracing::debug!(%error, pool = %open.spec.name, "a disk is not back");
                continue;
            }
            told.remove(&disk);
            (context.report)(back(&open, &name));
            // Whoever wanted to take it out still does.
            let pv = open.spec.pvs.iter().find(|it| it.uuid == Uuid::from_bytes(pv));
            pool.retire(disk, pv.is_some_and(|pv| pv.standing.is_going()));
        }
        pool.core().sleep(LOOK_AGAIN).await;
    }
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
        message: format!("{disk} of pool '{}' can be written again", open.spec.name),
        next: None,
    }
}
