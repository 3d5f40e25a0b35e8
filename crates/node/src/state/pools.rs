//! The changes of pools: what they refuse, and why.
//!
//! What a disk holds and who uses it was found a moment ago. Whether that is still so is seen again
//! when the disk is opened, under its locks; here the operator is told before anything is written.

use std::collections::BTreeMap;

use model::pool::DEFAULT_POOL;
use model::pv::{PvState, PvView};
use model::{
    ApiError, Config, Leftover, Lu, Pool, PoolCreate, PoolName, PoolPv, PoolSettingsChange,
    PvPlace, PvStanding, Size,
};
use uuid::Uuid;
use volume::pool::shape::{Layout, Shape};

use super::Mark;
use super::ops::some_of;
use crate::probe::{Kind, Probe};

pub fn no_pool(name: &PoolName) -> ApiError {
    ApiError::not_found(format!("there is no pool '{name}'"))
        .then("viaduct pool ls shows those that are there; viaduct pool create makes one")
}

/// A disk or file that a pool is to be made of, as it was found.
#[derive(Debug, Clone)]
pub struct Found {
    pub probe: Probe,
    pub view: PvView,
}

impl Found {
    pub(super) fn place(&self) -> PvPlace {
        PvPlace::Path { path: self.probe.path.clone() }
    }
}

pub fn pool_create(
    config: &Config,
    request: &PoolCreate,
    found: &[Found],
    mut uuid: impl FnMut() -> Uuid,
) -> Result<(Config, Vec<Mark>), ApiError> {
    let name = &request.name;
    if config.pool(name).is_some() {
        return Err(ApiError::conflict(format!("pool '{name}' exists already")).then(format!(
            "choose another name; viaduct pool show {name} shows the one there is"
        )));
    }
    let places = match (request.size, found) {
        (Some(size), []) => vec![(PvPlace::File { size }, size)],
        (None, [_, ..]) => {
            let (name, is_forced) = (&request.name, request.force);
            let wish =
                |path: &str| (is_forced, format!("viaduct pool create {name} --pv {path} --force"));
            found.iter().try_for_each(|it| check_disk(config, it, wish))?;
            check_paths(found)?;
            found.iter().map(|it| (it.place(), Size(it.probe.size))).collect()
        }
        _ => {
            return Err(ApiError::usage(format!(
                "say which disks pool '{name}' shall have, or how large its file shall be"
            ))
            .then(format!("viaduct pool create {name} --pv DISK, or --size 100G")));
        }
    };
    let mut pool = request.pool(uuid(), Vec::new());
    let groups = request.pvs.iter().map(|it| it.group.as_ref());
    for ((place, _), group) in places.iter().zip(groups.chain(std::iter::repeat(None))) {
        let (group, standing) = (pool.group(group), PvStanding::Member);
        pool.pvs.push(PoolPv { uuid: uuid(), place: place.clone(), group, standing });
    }
    pool.validate()?;
    places.iter().try_for_each(|(place, size)| slabs_of(&pool, place, *size).map(drop))?;
    let mut next = config.clone();
    let marks = vec![Mark::Making(pool.uuid)];
    next.pools.push(pool);
    Ok((next, marks))
}

/// How a pool cuts its disks up.
pub fn shape_of(pool: &Pool) -> Result<Shape, ApiError> {
    let shape = Shape::new(pool.slab_size.bytes(), pool.extent_size.bytes())
        .map_err(|error| ApiError::usage(format!("pool '{}': {error}", pool.name)))?;
    Ok(if pool.checksums { shape.with_sums() } else { shape })
}

/// How many slabs of a pool fit on a disk of this size.
pub(super) fn slabs_of(pool: &Pool, place: &PvPlace, size: Size) -> Result<u64, ApiError> {
    let name = &pool.name;
    let layout = Layout::new(shape_of(pool)?, size.bytes()).map_err(|error| {
        let what = match place {
            PvPlace::Path { path } => path.clone(),
            PvPlace::File { size } => format!("a file of {size}"),
            PvPlace::Missing => "a disk that is missing".to_owned(),
        };
        ApiError::usage(format!("{what} cannot be in pool '{name}': {error}"))
    })?;
    Ok(layout.slabs().into())
}

/// Refuses a disk that is in use, and one that holds data unless that may be lost.
pub(super) fn check_disk(
    config: &Config,
    found: &Found,
    wish: impl Fn(&str) -> (bool, String),
) -> Result<(), ApiError> {
    let Found { probe, view } = found;
    let path = &probe.path;
    if probe.kind == Kind::Other {
        return Err(ApiError::usage(format!(
            "{path} is neither a regular file nor a block device"
        )));
    }
    let free = "viaduct pv ls shows the disks that are free";
    if let Some(user) = user_of(config, path).or_else(|| view.used_by.first().cloned()) {
        return Err(ApiError::conflict(format!("{path} is in use: {user}")).then(free));
    }
    if probe.holder.is_some() {
        let message = format!("{path} is in use: another node, a QEMU or a pool holds its lock");
        return Err(ApiError::conflict(message).then("stop its user first"));
    }
    if probe.is_read_only || view.read_only {
        return Err(ApiError::conflict(format!("{path} cannot be written"))
            .then("make it writable for the node, or choose another disk"));
    }
    let (is_forced, forcing) = wish(path);
    match view.state {
        PvState::Free => Ok(()),
        PvState::Used => Err(ApiError::conflict(format!("{path} is in use")).then(free)),
        PvState::Data if is_forced => Ok(()),
        PvState::Data => {
            let message = format!("{path} holds data: {}", view.holds.join(", "));
            Err(ApiError::conflict(message).then(format!(
                "choose another disk; {forcing} takes it, and what it holds is lost"
            )))
        }
        PvState::Unknown => {
            let why = view.problem.clone().unwrap_or_else(|| "it does not answer".to_owned());
            Err(ApiError::failed(format!("{path} cannot be looked at: {why}")))
        }
    }
}

/// Refuses what is named twice, by whatever paths.
pub(super) fn check_paths(found: &[Found]) -> Result<(), ApiError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for Found { probe, view } in found {
        let path = probe.path.as_str();
        for identity in std::iter::once(path).chain(view.wwid.as_deref()) {
            if let Some(other) = seen.insert(identity, path) {
                let message = format!("{path} and {other} are one disk");
                return Err(ApiError::usage(message).then("name each disk once"));
            }
        }
    }
    Ok(())
}

/// What of ours uses a disk.
pub fn user_of(config: &Config, path: &str) -> Option<String> {
    let lu = config.lus.iter().find(|lu| lu.adopted_path() == Some(path));
    let pool = config.pools.iter().find(|pool| pool.paths().any(|it| it == path));
    lu.map(|lu| format!("LU {}", lu.name))
        .or_else(|| pool.map(|pool| format!("pool {}", pool.name)))
}

/// Gives a pool other settings.
pub fn pool_set(
    config: &Config,
    name: &PoolName,
    change: PoolSettingsChange,
) -> Result<Config, ApiError> {
    config.pool(name).ok_or_else(|| no_pool(name))?;
    let mut next = config.clone();
    for pool in next.pools.iter_mut().filter(|pool| pool.name == *name) {
        pool.settings = pool.settings.changed(change);
        pool.validate()?;
    }
    Ok(next)
}

/// Whether a document may leave out a pool that is here: the one that a fresh node makes by itself
/// holds nothing as long as no LU is in it, and would keep a saved one from being brought back.
pub fn gives_way(config: &Config, pool: &Pool) -> bool {
    let is_files = pool.paths().next().is_none();
    let is_empty = config.lus_in(&pool.name).next().is_none();
    pool.name.as_str() == DEFAULT_POOL && is_files && is_empty
}

/// A pool that a document has and that is here: its settings and the names of its failure groups
/// are as in the document, and where its disks are is known here. A disk that was missing when the
/// pool was imported is what the document says. Refused where they are not the same disks.
pub fn restored(here: &Pool, document: &Pool) -> Result<Pool, ApiError> {
    let differs = || {
        let message = format!("the document has pool '{}' otherwise than it is", document.name);
        ApiError::conflict(message)
            .then(format!("viaduct pool show {} shows what it is", here.name))
    };
    let mut missing = here.pvs.iter().filter(|pv| pv.place == PvPlace::Missing).count();
    let restored = |said: &PoolPv| match here.pvs.iter().find(|pv| pv.uuid == said.uuid) {
        Some(pv) if pv.group.number != said.group.number => None,
        Some(pv) => Some(PoolPv { group: said.group.clone(), ..pv.clone() }),
        None => {
            missing = missing.checked_sub(1)?;
            Some(said.clone())
        }
    };
    let pvs: Option<Vec<PoolPv>> = document.pvs.iter().map(restored).collect();
    let pvs = pvs.ok_or_else(differs)?;
    let is_said = |pv: &PoolPv| {
        let is_it = |other: &PoolPv| other.uuid == pv.uuid;
        pv.place == PvPlace::Missing || pvs.iter().any(is_it)
    };
    let shape = |of: &Pool| (of.name.clone(), of.slab_size, of.extent_size, of.checksums);
    let is_same = shape(here) == shape(document);
    if !is_same || pvs.len() != here.pvs.len() || !here.pvs.iter().all(is_said) {
        return Err(differs());
    }
    Ok(Pool { settings: document.settings, pvs, ..here.clone() })
}

/// Takes a pool away that has no LUs.
pub fn pool_remove(config: &Config, name: &PoolName) -> Result<(Config, Vec<Mark>), ApiError> {
    let pool = config.pool(name).ok_or_else(|| no_pool(name))?;
    let lus: Vec<&str> = config.lus_in(name).map(|lu| lu.name.as_str()).collect();
    if let Some(first) = lus.first() {
        return Err(ApiError::conflict(format!("pool '{name}' has LUs: {}", some_of(&lus)))
            .then(format!("viaduct lu rm {first}")));
    }
    let is_coming = |lu: &&Lu| lu.migration.as_ref().is_some_and(|it| it.pool == *name);
    if let Some(Lu { name: lu, .. }) = config.lus.iter().find(is_coming) {
        let message = format!("LU '{lu}' is on its way into pool '{name}'");
        return Err(ApiError::conflict(message).then(format!("viaduct lu migrate {lu} --cancel")));
    }
    let leftover = Leftover::Pool { pool: Pool::clone(pool) };
    let mut marks = vec![Mark::Leftover(pool.uuid, leftover)];
    // What was to join is not awaited any more.
    let joining = pool.pvs.iter().filter(|pv| !pv.standing.is_certain());
    marks.extend(joining.map(|pv| Mark::Gone(pv.uuid)));
    let mut next = config.clone();
    next.pools.retain(|pool| pool.name != *name);
    Ok((next, marks))
}
