//! Checking a pool that is open: what `pool check` reads of one that is not, by those who know what
//! is just being written.

use std::rc::Rc;
use std::sync::Arc;

use block::ErrorKind;
use model::ApiError;
use model::check::PoolCheck;
use uuid::Uuid;
use volume::pool::check::{Finding, Of, Report, Severity, closed_lu};
use volume::pool::home;
use volume::pool::scrub::{Cursor, Depth};

use super::lus::PoolStore;
use super::{OpenPool, Pools};
use crate::offline::shown;

/// What is read at a time.
const STEP_BYTES: u64 = 4 << 20;

impl Pools {
    pub(in crate::plane) async fn check(&self, uuid: Uuid) -> Result<PoolCheck, ApiError> {
        let open = self.pool(uuid)?;
        let mine = open.clone();
        open.at_home(async move |home| {
            let report = check(&mine, &home).await;
            Ok(PoolCheck { is_open: true, ..shown(report) })
        })
        .await
    }
}

async fn check(open: &OpenPool, home: &Rc<home::Pool>) -> Report {
    let pool = Some((home.id(), home.name().to_owned()));
    let mut report = Report { pool, ..Report::default() };
    let (slabs, free) = home.slabs();
    report.counts.disks = home.disks_used().len() as u64;
    (report.counts.slabs, report.counts.slabs_granted) = (slabs, slabs - free);
    match home.scrub().await {
        Ok(looked) => report.findings.extend(looked.findings),
        Err(error) => {
            let (severity, of) = (Severity::Damaged, Of::Pool);
            report.findings.push(Finding { severity, of, what: error.to_string() });
        }
    }
    if home.absent() > 0 {
        let what = format!("{} of its disks are not here", home.absent());
        report.findings.push(Finding { severity: Severity::Damaged, of: Of::Pool, what });
    }
    for id in home.lus().into_keys() {
        let store = open.lus().get(&Uuid::from_bytes(id)).cloned();
        match store {
            Some(store) => check_lu(open, (id, &store), &mut report).await,
            None => {
                let Some(closed) = closed_lu(home, id).await else { continue };
                report.counts.add(closed.counts);
                report.findings.extend(closed.findings);
            }
        }
        home.core().yield_now().await;
    }
    report
}

async fn check_lu(open: &OpenPool, (id, store): ([u8; 16], &Arc<PoolStore>), report: &mut Report) {
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        match store.lu().scrub(from, (Depth::Metadata, STEP_BYTES)).await {
            Ok(step) => {
                report.counts.add(step.counts);
                report.findings.extend(step.findings);
                cursor = step.next;
            }
            Err(error) => {
                // One that is just being closed has nothing that is wrong.
                let is_gone = !open.lus().contains_key(&Uuid::from_bytes(id));
                if error.kind() != ErrorKind::Offline || !is_gone {
                    let of = Of::Lu { id, name: Some(store.name().to_string()) };
                    let (severity, what) = (Severity::Damaged, error.to_string());
                    report.findings.push(Finding { severity, of, what });
                }
                return;
            }
        }
    }
}
