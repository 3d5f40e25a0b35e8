//! Failure groups that are to leave pools: what is refused, and why; and what becomes of the
//! configuration when they have.

use cluster::Step;
use model::{ApiError, Config, Leftover, Pool, PoolName, PoolPv, PvGroup, PvStanding};
use uuid::Uuid;

use super::Mark;
use super::ops::some_of;
use super::pool_pvs::{Ended, with};
use super::pools::no_pool;

/// What is known of the disks of a pool, as far as it matters for who leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Disks without which it is used.
    pub missing: Vec<Uuid>,
    /// Groups that lack something.
    pub behind: Vec<u16>,
}

/// Lets a failure group leave, of which the others have everything.
pub fn split(
    config: &Config,
    name: &PoolName,
    which: &str,
    others: Option<Others>,
) -> Result<(Config, PvGroup), ApiError> {
    let mut pool = config.pool(name).ok_or_else(|| no_pool(name))?.clone();
    let group = pool.find_group(which).cloned().ok_or_else(|| no_group(&pool, which))?;
    if pool.group_pvs(&group).all(|pv| pv.standing == PvStanding::Splitting) {
        // It does so already.
        return Ok((config.clone(), group));
    }
    if !pool.has_copies() {
        let message = format!("{group} is the only failure group of pool '{name}'");
        return Err(ApiError::conflict(message).then(format!(
            "viaduct pool add-pv {name} --pv DISK@OTHER mirrors it; viaduct pool rm {name} removes \
             the pool"
        )));
    }
    if let Some(pv) = pool.pvs.iter().find(|pv| !pv.standing.is_member()) {
        let message = format!("disk {pv} is about to join pool '{name}' or to leave it");
        return Err(ApiError::not_now(message)
            .then(format!("viaduct pool show {name} tells how far it is")));
    }
    let others = others.ok_or_else(|| {
        ApiError::not_now(format!("pool '{name}' is not open"))
            .then(format!("viaduct pool show {name} says why"))
    })?;
    have_everything(&pool, &group, &others)?;
    let leaving: Vec<PoolPv> = pool.group_pvs(&group).cloned().collect();
    leaving.iter().for_each(|pv| pool.stand(pv, PvStanding::Splitting));
    Ok((with(config, pool), group))
}

/// Refuses a group to leave if the others lack something.
fn have_everything(pool: &Pool, group: &PvGroup, others: &Others) -> Result<(), ApiError> {
    let name = &pool.name;
    let mut stay = pool.pvs.iter().filter(|pv| pv.group.number != group.number);
    if let Some(pv) = stay.clone().find(|pv| others.missing.contains(&pv.uuid)) {
        let message =
            format!("disk {pv} of {} is missing, and {group} has what is on it", pv.group);
        return Err(ApiError::conflict(message)
            .then(format!("bring it back, or viaduct pool replace-pv {name} {pv} NEW")));
    }
    if let Some(pv) = stay.find(|pv| others.behind.contains(&pv.group.number)) {
        let message = format!("{} of pool '{name}' does not have everything yet", pv.group);
        return Err(ApiError::not_now(message)
            .then(format!("viaduct pool show {name} tells how far it is")));
    }
    Ok(())
}

fn no_group(pool: &Pool, which: &str) -> ApiError {
    let mut all: Vec<String> = pool.pvs.iter().map(|pv| pv.group.call()).collect();
    all.sort();
    all.dedup();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    ApiError::not_found(format!("pool '{}' has no failure group {which}", pool.name))
        .then(format!("it has {}", some_of(&all)))
}

/// Refuses changes of a pool that a failure group is just leaving.
pub(super) fn must_be_whole(pool: &Pool) -> Result<(), ApiError> {
    let Some(pv) = pool.pvs.iter().find(|pv| pv.standing == PvStanding::Splitting) else {
        return Ok(());
    };
    let message = format!("{} is just leaving pool '{}'", pv.group, pool.name);
    Err(ApiError::not_now(message).then("run the command again in a moment"))
}

/// What becomes of the configuration when a group has left; with what is told of it.
pub fn ended(config: &Config, step: &Step) -> Option<Ended> {
    let Step::SplitGroup { pool, group, .. } = step else { return None };
    let mut pool = config.pools.iter().find(|it| it.uuid == *pool)?.clone();
    let has_left = |pv: &PoolPv| pv.standing == PvStanding::Splitting;
    let left: Vec<PoolPv> = pool.pvs.extract_if(.., |pv| has_left(pv)).collect();
    let marks = left.into_iter().map(|pv| {
        let pool = pool.uuid;
        Mark::Leftover(pv.uuid, Leftover::Pv { pool, pv })
    });
    let marks = marks.collect();
    let event = ("pool-split", format!("{group} has left pool '{}'", pool.name));
    Some((with(config, pool), marks, event))
}
