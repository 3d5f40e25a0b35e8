//! Damage that was found in a pool, told to the operator.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{Severity, Subject};
use uuid::Uuid;
use volume::pool::home::{self, Damaged};

use super::OpenPool;
use crate::engine::{Context, Report};

/// What is found in this time is told together.
const GATHERING: Duration = Duration::from_secs(1);

/// Tells of damage, for as long as the pool is open.
pub(super) async fn tell(context: Context, open: Arc<OpenPool>, pool: Rc<home::Pool>) {
    while let Some(damages) = pool.damages().await {
        for (damaged, blocks) in damages {
            (context.report)(report(&open, &damaged, blocks));
        }
        pool.core().sleep(GATHERING).await;
    }
}

fn report(open: &OpenPool, damaged: &Damaged, blocks: u64) -> Report {
    let Damaged { lu, disk, is_mended } = damaged;
    let name = lu.and_then(|lu| {
        let lus = open.lus();
        lus.get(&Uuid::from_bytes(lu)).map(|lu| lu.name().clone())
    });
    let subject = name.map_or(Subject::Pool(open.spec.name.clone()), Subject::Lu);
    let blocks = if blocks == 1 { "a block".to_owned() } else { format!("{blocks} blocks") };
    let found = format!("{blocks} on {disk} could not be read as written");
    let (severity, message, next) = match is_mended {
        true => (
            Severity::Warning,
            format!("{found}, and were written anew as another copy has them"),
            "have an eye on the disk; viaduct pool replace-pv takes another one",
        ),
        false => (
            Severity::Error,
            format!("{found}, and no other copy has them: reading them fails"),
            "write them again, from a backup, and replace the disk",
        ),
    };
    Report { severity, subject, kind: "damaged-blocks", message, next: Some(next.to_owned()) }
}
