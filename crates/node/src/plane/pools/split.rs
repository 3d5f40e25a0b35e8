//! Failure groups that leave a pool as a whole, while its LUs are used.
//!
//! | step | what is durable behind it | a crash behind it |
//! |---|---|---|
//! | the configuration says *splitting* of its disks | that it is to leave | it leaves |
//! | `split` | its labels say that it has left, then those of the others | it is out already |
//! | nobody is on the way to its disks | | the process with its requests has ended |
//! | the configuration names the disks no more | what is left: their labels | they are taken off |
//! | `forget_pv` of each | | |
//!
//! A group that becomes a pool:
//!
//! | step | what is durable behind it | a crash behind it |
//! |---|---|---|
//! | the configuration says *splitting*, and what it becomes | that it is to be that pool | it becomes it |
//! | `announce_split` | its labels say so | the same |
//! | writes of all LUs wait, what was answered is durable | | the same |
//! | `split_off` | the instant: its disks are the pool's | it is out already |
//! | nobody is on the way to its disks, and writes go on | | the process with its requests has ended |
//! | its disks are looked at | | the same |
//! | the configuration has the pool with its LUs | all of it | |

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::{Error, ErrorKind};
use model::{ApiError, Pool, PoolBecomes, PoolPv};
use rt::Core;
use uuid::Uuid;
use volume::pool::home::{self, PoolError, SplitOff};
use volume::pool::lu::{Lu, still};

use super::disks::path_of;
use super::{OpenPool, Pools, failed, sight};
use crate::engine::{Context, SeenPool};

/// LUs may just be opened or changed: so often it is tried again, and after so long.
const STILL_TRIES: u32 = 50;
const STILL_RETRY: Duration = Duration::from_millis(100);

/// The same of disks that somebody is still letting go of.
const LOOK_TRIES: u32 = 50;

impl Pools {
    pub(in crate::plane) async fn split_group(
        &self,
        pool: Uuid,
        pvs: Vec<PoolPv>,
    ) -> Result<(), ApiError> {
        let open = self.pool(pool)?;
        let Some(group) = pvs.first().map(|pv| pv.group.number) else { return Ok(()) };
        let spec = open.spec.clone();
        open.at_home(async move |home: Rc<home::Pool>| {
            let split = home.split(group, pvs.len()).await;
            split.map_err(|error| failed(&spec, "cannot let a failure group go", error))
        })
        .await?;
        let lus: Vec<_> = open.lus().values().cloned().collect();
        for lu in lus {
            // One that was closed meanwhile has waited for that too.
            let _ = lu.lu().quiet().await;
        }
        Ok(())
    }

    /// A failure group becomes a pool with what all LUs are at one instant; gives what that is.
    pub(in crate::plane) async fn split_off(
        &self,
        context: &Context,
        core: &Core,
        (pool, pvs): (Uuid, Vec<PoolPv>),
        becomes: PoolBecomes,
    ) -> Result<SeenPool, ApiError> {
        let open = self.pool(pool)?;
        let group = pvs.first().map(|pv| pv.group.number).unwrap_or_default();
        let (id, name) = (becomes.uuid.into_bytes(), becomes.name.to_string());
        let new = SplitOff { group, disks: pvs.len(), id, name };
        let mut tries = 0;
        while !split_now(&open, &new, tries + 1 == STILL_TRIES).await? {
            tries += 1;
            core.sleep(STILL_RETRY).await;
        }
        look(context, core, &pvs, &becomes).await
    }
}

/// Lets the group go while nothing is written. False: an LU was just being opened or changed, or
/// what a crash has left in doubt was not settled yet, and that is no error unless it is the last
/// try.
async fn split_now(open: &OpenPool, new: &SplitOff, is_last: bool) -> Result<bool, ApiError> {
    let (spec, own) = (open.spec.clone(), new.clone());
    let announced = open.at_home(async move |home: Rc<home::Pool>| {
        took(&spec, home.announce_split(&own).await, is_last)
    });
    if !announced.await? {
        return Ok(false);
    }
    let stores: Vec<_> = open.lus().values().cloned().collect();
    let lus: Vec<Arc<Lu>> = stores.iter().map(|store| store.lu().clone()).collect();
    let held = match still(&lus).await {
        Ok(held) => held,
        // One that was closed meanwhile is none of those that are open.
        Err(error) if is_passing(&error) && !is_last => return Ok(false),
        Err(error) => {
            let message = format!("not all LUs of pool '{}' can be held: {error}", open.spec.name);
            return Err(ApiError::failed(message).then("viaduct lu ls shows what is wrong"));
        }
    };
    let (spec, new) = (open.spec.clone(), new.clone());
    let open_lus: Vec<[u8; 16]> = lus.iter().map(|lu| lu.id()).collect();
    let split = open.at_home(async move |home: Rc<home::Pool>| {
        took(&spec, home.split_off(&new, &open_lus).await, is_last)
    });
    let is_split = split.await?;
    // What runs by itself may be on the way to its disks.
    for lu in lus.iter().filter(|_| is_split) {
        let _ = lu.quiet().await;
    }
    drop(held);
    Ok(is_split)
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::Offline)
}

/// What the new pool is, when everybody has let go of its disks.
async fn look(
    context: &Context,
    core: &Core,
    pvs: &[PoolPv],
    becomes: &PoolBecomes,
) -> Result<SeenPool, ApiError> {
    let mut tries = 0;
    loop {
        let paths = pvs.iter().map(|pv| path_of(context, pv)).collect();
        let mut seen = sight::look(context, core, paths).await;
        let is_it = |pool: &SeenPool| pool.uuid == becomes.uuid && pool.problem.is_none();
        let found = seen.pools.iter().position(is_it).filter(|_| seen.unread.is_empty());
        if let Some(found) = found {
            return Ok(seen.pools.swap_remove(found));
        }
        tries += 1;
        if tries == LOOK_TRIES {
            let problem = seen.pools.into_iter().find_map(|pool| pool.problem);
            let unread = seen.unread.into_iter().next().map(|(_, error)| error);
            let missing = || ApiError::failed(format!("pool '{}' is not found", becomes.name));
            return Err(unread.or(problem).unwrap_or_else(missing));
        }
        core.sleep(STILL_RETRY).await;
    }
}

/// Whether that is done. False: it cannot be yet.
fn took(spec: &Pool, done: Result<(), PoolError>, is_last: bool) -> Result<bool, ApiError> {
    match done {
        Ok(()) => Ok(true),
        Err(PoolError::Opening(_) | PoolError::GroupLacks(_)) if !is_last => Ok(false),
        Err(error) => Err(failed(spec, "cannot let a failure group become a pool", error)),
    }
}
