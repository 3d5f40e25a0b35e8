//! Tells an operator when more of a pool is promised to LUs than its settings allow, and when that
//! is over. Only changes that are asked for here make it so; they are looked at when they are made.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use model::{Severity, Subject};
use uuid::Uuid;

use super::Api;
use crate::engine::Report;
use crate::room;

/// The pools of which that was told. Clones are the same.
#[derive(Clone, Default)]
pub struct Promises(Arc<Mutex<BTreeSet<Uuid>>>);

impl Promises {
    pub(super) async fn look(&self, api: &Api) {
        let is_watched = |pool: &model::Pool| pool.settings.overcommit_percent > 0;
        let published = api.published();
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if told.is_empty() && !published.config.pools.iter().any(is_watched) {
            return;
        }
        // Without it nothing is known of sizes; the next change looks again.
        let Ok(snapshot) = api.snapshot().await else { return };
        let picture = api.picture(&published, &snapshot);
        for pool in &published.config.pools {
            let view = picture.pool(pool);
            let Some(size) = view.size else { continue };
            let trouble = room::overcommitted(&pool.name, (view.promised, size), pool.settings);
            if let Some(report) = self.told(pool, trouble) {
                api.tell(report);
            }
        }
    }

    /// What is new.
    fn told(&self, pool: &model::Pool, trouble: Option<crate::engine::Trouble>) -> Option<Report> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (severity, kind, message, next) = match trouble {
            Some(trouble) if told.insert(pool.uuid) => {
                (Severity::Warning, "pool-overcommitted", trouble.message, trouble.next)
            }
            None if told.remove(&pool.uuid) => {
                let message = format!("no more of pool '{}' is promised than it may", pool.name);
                (Severity::Info, "pool-promises-fit", message, None)
            }
            _ => return None,
        };
        Some(Report { severity, subject: Subject::Pool(pool.name.clone()), kind, message, next })
    }
}
