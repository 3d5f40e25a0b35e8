//! Disks that are to join pools and to leave them: what is refused, and why; and what becomes of
//! the configuration when they have.

use cluster::Step;
use model::{ApiError, Config, Leftover, Pool, PoolName, PoolPv, PvAdd, PvPlace, PvStanding, Size};
use uuid::Uuid;

use super::Mark;
use super::ops::some_of;
use super::pool_split::must_be_whole;
use super::pools::{Found, check_disk, check_paths, no_pool, slabs_of};

/// Disks of a pool, as far as they matter for who leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Slabs of LUs on the disk that is to leave.
    pub used: u64,
    /// Slabs of LUs on disks that are leaving already.
    pub used_by_others: u64,
    /// Slabs that are free on those of its group that stay.
    pub free: u64,
}

/// Adds disks, lets disks stay that were to leave, and lets one leave for them.
pub fn add(
    config: &Config,
    name: &PoolName,
    request: &PvAdd,
    (found, load): (&[Found], Option<Load>),
    mut uuid: impl FnMut() -> Uuid,
) -> Result<(Config, Vec<Mark>), ApiError> {
    let mut pool = config.pool(name).ok_or_else(|| no_pool(name))?.clone();
    must_be_whole(&pool)?;
    let what = match request.replaces.as_deref() {
        Some(old) => format!("replace-pv {name} {old}"),
        None => format!("add-pv {name}"),
    };
    let (mut marks, mut slabs) = (Vec::new(), 0);
    let (places, groups) = match (request.size, found) {
        (Some(size), []) => (vec![(PvPlace::File { size }, size)], vec![None]),
        (None, [_, ..]) => {
            check_paths(found)?;
            let place = |it: &Found| (it.place(), Size(it.probe.size));
            let groups = request.pvs.iter().map(|it| it.group.as_ref()).collect();
            (found.iter().map(place).collect(), groups)
        }
        _ => {
            return Err(ApiError::usage(format!(
                "say which disks pool '{name}' shall have too, or how large a file"
            ))
            .then(format!("viaduct pool add-pv {name} --pv DISK, or --size 100G")));
        }
    };
    for (at, ((place, size), group)) in places.into_iter().zip(groups).enumerate() {
        if let Some(found) = found.get(at) {
            if let Some(known) = pool.find_pv(&found.probe.path).cloned() {
                pool.stand(&known, known_again(name, &known)?);
                continue;
            }
            let path_wish = |path: &str| {
                let flag = if request.replaces.is_some() { "" } else { "--pv " };
                (request.force, format!("viaduct pool {what} {flag}{path} --force"))
            };
            check_disk(config, found, path_wish)?;
        }
        slabs += slabs_of(&pool, &place, size)?;
        // Who comes for another one is of its group; disks of a pool whose only group has a name
        // are of that.
        let old = request.replaces.as_deref().and_then(|old| pool.find_pv(old));
        let group = match group {
            None if old.is_some() => old.expect("asked before").group.clone(),
            None if pool.pvs.iter().all(|pv| pv.group == pool.pvs[0].group) => {
                pool.pvs[0].group.clone()
            }
            group => pool.group(group),
        };
        if let Some(old) = old.filter(|old| old.group != group) {
            let message = format!("disk {old} is of {}, and not of {group}", old.group);
            return Err(ApiError::conflict(message)
                .then(format!("name the new disk without a group: viaduct pool {what} NEW")));
        }
        let pv = PoolPv { uuid: uuid(), place, group, standing: PvStanding::Joining };
        marks.push(Mark::Making(pv.uuid));
        pool.pvs.push(pv);
    }
    if let Some(old) = &request.replaces {
        let load = load.map(|load| Load { free: load.free + slabs, ..load });
        leave(&mut pool, old, load)?;
    }
    pool.validate()?;
    Ok((with(config, pool), marks))
}

/// What a disk becomes that is added and is of the pool already.
fn known_again(name: &PoolName, pv: &PoolPv) -> Result<PvStanding, ApiError> {
    match pv.standing {
        PvStanding::Leaving { .. } => Ok(PvStanding::Member),
        PvStanding::Withdrawn => {
            Err(ApiError::not_now(format!("disk {pv} is just being taken out of pool '{name}'"))
                .then("run the command again in a moment"))
        }
        PvStanding::Member | PvStanding::Joining | PvStanding::Splitting => {
            Err(ApiError::conflict(format!("disk {pv} is in pool '{name}' already"))
                .then(format!("viaduct pool show {name} lists its disks")))
        }
    }
}

/// Lets a disk leave, or stay after all.
pub fn remove(
    config: &Config,
    name: &PoolName,
    which: &str,
    wish: Wish,
) -> Result<Config, ApiError> {
    let mut pool = config.pool(name).ok_or_else(|| no_pool(name))?.clone();
    must_be_whole(&pool)?;
    match wish {
        Wish::Leave(load) => leave(&mut pool, which, load)?,
        Wish::Stay => {
            let pv = known(&pool, which)?.clone();
            let PvStanding::Leaving { .. } = pv.standing else {
                return Err(ApiError::conflict(format!("disk {pv} is not leaving pool '{name}'"))
                    .then(format!("viaduct pool show {name} lists its disks")));
            };
            pool.stand(&pv, PvStanding::Member);
        }
    }
    Ok(with(config, pool))
}

/// What is wanted of a disk that is in a pool.
#[derive(Debug, Clone, Copy)]
pub enum Wish {
    /// With what is known of the others; nothing while the pool is not open.
    Leave(Option<Load>),
    Stay,
}

fn leave(pool: &mut Pool, which: &str, load: Option<Load>) -> Result<(), ApiError> {
    let (name, pv) = (pool.name.clone(), known(pool, which)?.clone());
    let standing = match pv.standing {
        PvStanding::Joining => PvStanding::Withdrawn,
        // It does so already.
        PvStanding::Leaving { .. } | PvStanding::Withdrawn | PvStanding::Splitting => {
            return Ok(());
        }
        PvStanding::Member => {
            let stays = |it: &&PoolPv| !it.standing.is_going() && it.group == pv.group;
            if pool.pvs.iter().filter(stays).count() < 2 {
                let message = format!("disk {pv} is the last one of pool '{name}'");
                return Err(ApiError::conflict(message).then(format!(
                    "viaduct pool replace-pv {name} {pv} NEW brings what is on it to another one; \
                     viaduct pool rm {name} removes the pool"
                )));
            }
            let load = load.ok_or_else(|| {
                ApiError::not_now(format!("pool '{name}' is not open"))
                    .then(format!("viaduct pool show {name} says why"))
            })?;
            has_room(pool, &pv, load)?;
            PvStanding::Leaving { slabs: load.used }
        }
    };
    pool.stand(&pv, standing);
    Ok(())
}

/// Refuses a disk to leave if the others have no room for what is on it.
fn has_room(pool: &Pool, pv: &PoolPv, load: Load) -> Result<(), ApiError> {
    let Load { used, used_by_others, free } = load;
    let missing = (used + used_by_others).saturating_sub(free);
    if missing == 0 {
        return Ok(());
    }
    let name = &pool.name;
    let [used, free, missing] = [used, free.saturating_sub(used_by_others), missing]
        .map(|slabs| Size(slabs.saturating_mul(pool.slab_size.bytes())));
    let message = format!(
        "LUs have {used} on disk {pv}, and the other disks of pool '{name}' have {free} free: \
         {missing} are missing"
    );
    Err(ApiError::conflict(message).then(format!(
        "viaduct pool add-pv {name} --pv DISK first, or viaduct pool replace-pv {name} {pv} NEW"
    )))
}

/// The disk that is named by path or UUID.
fn known<'a>(pool: &'a Pool, which: &str) -> Result<&'a PoolPv, ApiError> {
    pool.find_pv(which).ok_or_else(|| {
        let all: Vec<String> = pool.pvs.iter().map(name_of).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        ApiError::not_found(format!("pool '{}' has no disk {which}", pool.name))
            .then(format!("it has {}", some_of(&all)))
    })
}

/// As an operator may name it.
fn name_of(pv: &PoolPv) -> String {
    match &pv.place {
        PvPlace::Path { path } => path.clone(),
        PvPlace::File { .. } | PvPlace::Missing => pv.uuid.to_string(),
    }
}

pub(super) fn with(config: &Config, pool: Pool) -> Config {
    let mut next = config.clone();
    next.pools.retain(|other| other.uuid != pool.uuid);
    next.pools.push(pool);
    next
}

/// What becomes of the configuration, and what is told of it.
pub type Ended = (Config, Vec<Mark>, (&'static str, String));

/// The same when a disk has joined or left.
pub fn ended(config: &Config, step: &Step) -> Option<Ended> {
    let (Step::JoinPv { pool, pv, .. } | Step::LeavePv { pool, pv, .. }) = step else {
        return None;
    };
    let mut pool = config.pools.iter().find(|it| it.uuid == *pool)?.clone();
    let (name, standing) = (pool.name.clone(), pool.standing(pv.uuid)?);
    match (step, standing) {
        (Step::JoinPv { .. }, PvStanding::Joining) => {
            pool.stand(pv, PvStanding::Member);
            let event = ("pool-disk-joined", format!("disk {pv} is in pool '{name}'"));
            Some((with(config, pool), vec![Mark::Made(pv.uuid)], event))
        }
        (Step::LeavePv { .. }, PvStanding::Leaving { .. } | PvStanding::Withdrawn) => {
            let left = Leftover::Pv { pool: pool.uuid, pv: pv.clone() };
            pool.pvs.retain(|it| it.uuid != pv.uuid);
            let event = ("pool-disk-left", format!("disk {pv} has left pool '{name}'"));
            Some((with(config, pool), vec![Mark::Leftover(pv.uuid, left)], event))
        }
        // It was to stay, and that came too late: it joins again.
        (Step::LeavePv { .. }, PvStanding::Member) => {
            pool.stand(pv, PvStanding::Joining);
            let message = format!("disk {pv} had left pool '{name}', and joins it again");
            Some((with(config, pool), vec![Mark::Making(pv.uuid)], ("pool-disk-left", message)))
        }
        _ => None,
    }
}

/// Whether the end of a step is of no interest: it was to end.
pub fn was_to_end(config: &Config, step: &Step) -> bool {
    let Step::LeavePv { pool, pv, .. } = step else { return false };
    let pool = config.pools.iter().find(|it| it.uuid == *pool);
    let standing = pool.and_then(|pool| pool.standing(pv.uuid));
    standing.is_none_or(|standing| !standing.is_going())
}
