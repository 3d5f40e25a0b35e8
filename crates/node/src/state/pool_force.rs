//! Pools of which only failure groups are here that lack something: what is left of those that are
//! found on disks, and the wish to go on with that.

use std::collections::BTreeMap;

use model::pool::{GroupRemains, LuRemains, RemainsState};
use model::{ApiError, Config, PoolForce, PoolImport, PoolName, PoolRemains, PvGroup, Size};
use uuid::Uuid;
use volume::pool::home::{CopyHere, GroupAbout};

use super::Mark;
use super::ops::some_of;
use super::pool_import::{away, groups};
use super::pools::no_pool;
use crate::engine::SeenPool;
use crate::records::{ForceWish, Record};

/// A pool is to be opened with this failure group, whatever others have that are not here.
pub fn pool_force(
    config: &Config,
    name: &PoolName,
    (group, is_open): (&PvGroup, impl Fn(Uuid) -> bool),
) -> Result<(Config, Vec<Mark>), ApiError> {
    let pool = config.pool(name).ok_or_else(|| no_pool(name))?;
    if is_open(pool.uuid) {
        return Err(pool_is_open(name));
    }
    Ok((config.clone(), vec![force_mark(pool.uuid, Some(group))?]))
}

pub fn pool_is_open(name: &PoolName) -> ApiError {
    ApiError::conflict(format!("pool '{name}' is open"))
        .then("viaduct lu force NAME is for an LU of it of which no copy with everything is here")
}

/// That this is wished, or that nothing is.
pub fn force_mark(pool: Uuid, group: Option<&PvGroup>) -> Result<Mark, ApiError> {
    let wish = group.map(|group| ForceWish::new(group.number).encode()).transpose()?;
    Ok(Mark::Record(Record::Force(pool), wish))
}

/// The failure group that it is to be forced with, if that is wanted: the one that was named, or
/// the best one.
pub(super) fn wanted_group(
    request: &PoolImport,
    seen: &SeenPool,
) -> Result<Option<PvGroup>, ApiError> {
    let Some(PoolForce { group: which }) = &request.force else { return Ok(None) };
    let groups = groups(request, seen)?;
    let whole = || seen.groups.iter().filter_map(|about| groups.get(&about.group));
    let is_it = |group: &&PvGroup| match which {
        Some(which) => group.call() == *which || group.number.to_string() == *which,
        None => true,
    };
    if let Some(group) = whole().find(is_it) {
        return Ok(Some(group.clone()));
    }
    let (name, which) = (&seen.name, which.as_deref().unwrap_or_default());
    let message = match groups.values().find(is_it) {
        Some(group) => format!("not all disks of {group} of pool '{name}' are here"),
        None => format!("pool '{name}' has no failure group {which}"),
    };
    let all: Vec<String> = whole().map(PvGroup::call).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Err(ApiError::not_found(message).then(format!("here with all its disks is {}", some_of(&all))))
}

/// What is left of a pool that can be forced: first of the failure group that it would be forced
/// with.
pub fn remains(request: &PoolImport, seen: &SeenPool) -> Result<PoolRemains, ApiError> {
    let wanted = wanted_group(request, seen)?.map(|group| group.number);
    let groups = groups(request, seen)?;
    let mut missing: BTreeMap<u16, usize> = BTreeMap::new();
    away(seen).into_iter().for_each(|group| *missing.entry(group).or_default() += 1);
    let called = |(number, count): (u16, usize)| match count {
        1 => format!("a disk of {}", groups[&number]),
        _ => format!("{count} disks of {}", groups[&number]),
    };
    let missing = missing.into_iter().map(called).collect();
    let mut names: BTreeMap<Uuid, String> = BTreeMap::new();
    let known = seen.groups.iter().flat_map(|about| about.lus.keys());
    names.extend(known.map(|lu| (Uuid::from_bytes(*lu), Uuid::from_bytes(*lu).to_string())));
    let named = seen.lus.iter().filter_map(|lu| Some((lu.uuid, lu.about.as_ref().ok()?)));
    names.extend(named.map(|(uuid, about)| (uuid, about.name.clone())));
    let mut lus: Vec<(String, Uuid)> = names.into_iter().map(|(uuid, name)| (name, uuid)).collect();
    lus.sort();
    let mut left: Vec<&GroupAbout> = seen.groups.iter().collect();
    left.sort_by_key(|about| Some(about.group) != wanted);
    let left = left.into_iter().map(|about| {
        let group = groups.get(&about.group).map(PvGroup::call).unwrap_or_default();
        group_remains(group, about, (seen.slab_size, &lus))
    });
    Ok(PoolRemains { pool: seen.name.clone(), missing, groups: left.collect() })
}

/// What a failure group has of these LUs.
pub fn group_remains(
    group: String,
    about: &GroupAbout,
    (slab_size, lus): (Size, &[(String, Uuid)]),
) -> GroupRemains {
    let lu = |(name, uuid): &(String, Uuid)| {
        let (state, lacking) = match about.lus.get(uuid.as_bytes()) {
            Some(CopyHere::Whole) => (RemainsState::Whole, None),
            Some(CopyHere::Stale) => (RemainsState::Stale, None),
            Some(CopyHere::Lacks(slabs)) => (RemainsState::Lacking, Some(*slabs)),
            None => (RemainsState::Unknown, None),
        };
        let lacking = lacking.map(|slabs| Size(slabs.saturating_mul(slab_size.bytes())));
        LuRemains { lu: name.clone(), state, lacking }
    };
    GroupRemains { group, lus: lus.iter().map(lu).collect() }
}
