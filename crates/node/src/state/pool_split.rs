//! Failure groups that are to leave pools: what is refused, and why; and what becomes of the
//! configuration when they have.

use std::path::PathBuf;

use cluster::Step;
use jiff::Timestamp;
use model::{
    ApiError, Config, Leftover, LuName, Pool, PoolBecomes, PoolImport, PoolName, PoolPv, PoolSplit,
    PvGroup, PvStanding,
};
use uuid::Uuid;

use super::Mark;
use super::ops::some_of;
use super::pool_import::{Takeover, import};
use super::pool_pvs::{Ended, with};
use super::pools::no_pool;
use crate::engine::SeenPool;

/// What is known of the disks of a pool, as far as it matters for who leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Disks without which it is used.
    pub missing: Vec<Uuid>,
    /// Groups that lack something.
    pub behind: Vec<u16>,
}

/// Lets a failure group leave, of which the others have everything. It may become a pool, which
/// gets a UUID now.
pub fn split(
    config: &Config,
    name: &PoolName,
    request: &PoolSplit,
    (others, uuid): (Option<Others>, impl FnOnce() -> Uuid),
) -> Result<(Config, PvGroup), ApiError> {
    let which = &request.group;
    let mut pool = config.pool(name).ok_or_else(|| no_pool(name))?.clone();
    let group = pool.find_group(which).cloned().ok_or_else(|| no_group(&pool, which))?;
    if pool.group_pvs(&group).all(|pv| pv.standing == PvStanding::Splitting) {
        // It does so already.
        let becomes = pool.becomes.as_ref().map(|becomes| &becomes.name);
        let is_same = becomes == request.name.as_ref();
        return if is_same { Ok((config.clone(), group)) } else { Err(is_leaving(&pool, &group)) };
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
    if let Some(new) = &request.name {
        can_be_pool(config, (&pool, &group), new, &others)?;
    }
    pool.becomes = request.name.clone().map(|name| PoolBecomes { uuid: uuid(), name });
    let leaving: Vec<PoolPv> = pool.group_pvs(&group).cloned().collect();
    leaving.iter().for_each(|pv| pool.stand(pv, PvStanding::Splitting));
    Ok((with(config, pool), group))
}

/// Refuses a group that cannot be a pool of this name.
fn can_be_pool(
    config: &Config,
    (pool, group): (&Pool, &PvGroup),
    new: &PoolName,
    known: &Others,
) -> Result<(), ApiError> {
    let name = &pool.name;
    if config.pool(new).is_some() {
        return Err(ApiError::conflict(format!("there is a pool '{new}' on this node")).then(
            format!("choose another name: viaduct pool split {name} {} --as OTHER", group.call()),
        ));
    }
    if let Some(pv) = pool.group_pvs(group).find(|pv| known.missing.contains(&pv.uuid)) {
        let message = format!("disk {pv} of {group} is missing, and pool '{new}' would lack it");
        return Err(ApiError::conflict(message)
            .then("bring it back, or split the group off without --as, and its disks are free"));
    }
    if known.behind.contains(&group.number) {
        let message = format!("{group} of pool '{name}' does not have everything yet");
        return Err(ApiError::not_now(message)
            .then(format!("viaduct pool show {name} tells how far it is")));
    }
    for lu in config.lus_in(name) {
        if lu.migration.is_some() {
            let lu = &lu.name;
            let message = format!("LU '{lu}' is just being brought into pool '{name}'");
            return Err(ApiError::not_now(message)
                .then(format!("viaduct lu show {lu} tells how far it is")));
        }
        let own = format!("{}{}", prefix_of(new), lu.name);
        let own: LuName = own.parse().map_err(|error| {
            ApiError::usage(format!("LU '{}' would have no name in pool '{new}': {error}", lu.name))
                .then("choose a shorter name for the pool")
        })?;
        if config.device(&own).is_some() {
            let message = format!("LU '{}' would be '{own}', and there is one", lu.name);
            return Err(ApiError::conflict(message).then("choose another name for the pool"));
        }
    }
    Ok(())
}

/// What stands before the names of LUs in a pool that was split off.
fn prefix_of(new: &PoolName) -> String {
    format!("{new}-")
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

pub fn no_group(pool: &Pool, which: &str) -> ApiError {
    let mut all: Vec<String> = pool.pvs.iter().map(|pv| pv.group.call()).collect();
    all.sort();
    all.dedup();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    ApiError::not_found(format!("pool '{}' has no failure group {which}", pool.name))
        .then(format!("it has {}", some_of(&all)))
}

/// Refuses changes of a pool that a failure group is just leaving.
pub(super) fn must_be_whole(pool: &Pool) -> Result<(), ApiError> {
    let leaving = pool.pvs.iter().find(|pv| pv.standing == PvStanding::Splitting);
    leaving.map_or(Ok(()), |pv| Err(is_leaving(pool, &pv.group)))
}

fn is_leaving(pool: &Pool, group: &PvGroup) -> ApiError {
    ApiError::not_now(format!("{group} is just leaving pool '{}'", pool.name))
        .then("run the command again in a moment")
}

/// What becomes of the configuration when a group has left; with what is told of it. `seen`: the
/// pool that it is now.
pub fn ended(
    config: &Config,
    step: &Step,
    (seen, now): (Option<SeenPool>, Timestamp),
) -> Option<Ended> {
    let Step::SplitGroup { pool, group, becomes, .. } = step else { return None };
    let mut pool = config.pools.iter().find(|it| it.uuid == *pool)?.clone();
    let has_left = |pv: &PoolPv| pv.standing == PvStanding::Splitting;
    let left: Vec<PoolPv> = pool.pvs.extract_if(.., |pv| has_left(pv)).collect();
    pool.becomes = None;
    let (uuid, has_left) = (pool.uuid, format!("{group} has left pool '{}'", pool.name));
    let next = with(config, pool);
    let Some(becomes) = becomes else {
        let marks = left.into_iter().map(|pv| {
            let pool = uuid;
            Mark::Leftover(pv.uuid, Leftover::Pv { pool, pv })
        });
        return Some((next, marks.collect(), ("pool-split", has_left)));
    };
    let PoolBecomes { uuid, name } = becomes;
    let adopted = adopt(&next, &left, becomes, (seen?, now));
    Some(match adopted {
        Ok((adopted, marks)) => {
            let lus = adopted.lus_in(name).count();
            let message = format!("{has_left}, and is pool '{name}' with {lus} LUs");
            (adopted, marks, ("pool-split", message))
        }
        Err(error) => {
            let message = format!(
                "{has_left}, and is a pool that is not of this node yet: {}; viaduct pool import \
                 {uuid} --as NAME --prefix PREFIX takes it over",
                error.message
            );
            (next, Vec::new(), ("pool-split", message))
        }
    })
}

/// The group is a pool of the node, as if it had been imported.
fn adopt(
    config: &Config,
    left: &[PoolPv],
    PoolBecomes { uuid, name }: &PoolBecomes,
    (seen, now): (SeenPool, Timestamp),
) -> Result<(Config, Vec<Mark>), ApiError> {
    let request = PoolImport {
        pool: uuid.to_string(),
        name: Some(name.clone()),
        prefix: Some(prefix_of(name)),
        ..PoolImport::default()
    };
    // Nothing has to be known of disks that the node had.
    let (found, own) = (Vec::new(), PathBuf::new());
    let takeover = Takeover { request, seen, found, own, now };
    let (mut next, marks) = import(config, &takeover, Uuid::nil)?;
    let own = next.pools.iter_mut().filter(|pool| pool.uuid == *uuid);
    for pv in own.flat_map(|pool| &mut pool.pvs) {
        let known = left.iter().find(|left| left.uuid == pv.uuid);
        let known = known.ok_or_else(|| ApiError::failed(format!("disk {pv} was not its")))?;
        pv.place = known.place.clone();
    }
    Ok((next, marks))
}
