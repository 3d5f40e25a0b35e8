//! LUs that take no more writes because something of their own could not be written: they are
//! opened again as soon as it can be, while their clients use them.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{LuName, Severity, Subject};
use uuid::Uuid;
use volume::pool::home;

use super::OpenPool;
use crate::engine::{Context, Report};

/// How often it is tried.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Opens them again, for as long as the pool is open.
pub(super) async fn go_on(context: Context, open: Arc<OpenPool>, pool: Rc<home::Pool>) {
    let mut failed = BTreeSet::new();
    loop {
        if failed.is_empty() {
            match pool.failures().await {
                Some(some) => failed = some,
                None => return,
            }
        }
        pool.core().sleep(LOOK_AGAIN).await;
        failed.extend(pool.take_failed());
        let mut left = BTreeSet::new();
        for id in failed {
            let Some(lu) = open.lus().get(&Uuid::from_bytes(id)).cloned() else { continue };
            match lu.lu().reopen().await {
                Ok(()) => {
                    (context.report)(reopened(lu.name()));
                    // What could not be let go can be; a snapshot that was refused may be there.
                    lu.sweep(&pool.core().remote());
                }
                Err(error) => {
                    tracing::debug!(%error, lu = %lu.name(), "an LU cannot be written yet");
                    left.insert(id);
                }
            }
        }
        failed = left;
    }
}

fn reopened(lu: &LuName) -> Report {
    Report {
        severity: Severity::Info,
        subject: Subject::Lu(lu.clone()),
        kind: "lu-reopened",
        message: format!("LU {lu} takes writes again; what was answered before is there"),
        next: None,
    }
}
