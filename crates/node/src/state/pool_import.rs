//! A pool that is taken over with its LUs, as its disks tell of them: what is refused, and what it
//! becomes in the configuration.
//!
//! Everything of it becomes known at once, or nothing. What its disks say was read a moment ago;
//! what the plane then finds must be that, or it is refused there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cluster::Step;
use jiff::Timestamp;
use model::lu::serial_of;
use model::{
    ApiError, Backing, BlockSize, Cache, Config, GroupName, Leftover, Limits, Lu, LuName, Pool,
    PoolImport, PoolName, PoolPv, PoolSettings, PvGroup, PvPlace, PvStanding, Snapshot,
    SnapshotName, SnapshotRef,
};
use uuid::Uuid;

use super::Mark;
use super::ops::some_of;
use super::pool_force::{force_mark, wanted_group};
use super::pool_pvs::Ended;
use super::pools::{Found, check_disk, check_paths, gives_way};
use crate::datadir::pool_file;
use crate::engine::{SeenAbout, SeenDisk, SeenLayer, SeenLu, SeenNow, SeenPool};
use crate::records::Record;

/// A pool that is to be taken over.
#[derive(Debug, Clone)]
pub struct Takeover {
    pub request: PoolImport,
    pub seen: SeenPool,
    /// What was found on its disks, in their order.
    pub found: Vec<Found>,
    /// Where the node's own disks of pools are.
    pub own: PathBuf,
    pub now: Timestamp,
}

/// The pool with this name or UUID.
pub fn choose(seen: Vec<SeenPool>, which: &str) -> Result<SeenPool, ApiError> {
    let is_it = |pool: &SeenPool| pool.name == which || pool.uuid.to_string() == which;
    let mut all: Vec<SeenPool> = seen.into_iter().filter(is_it).collect();
    if all.len() > 1 {
        let uuids: Vec<String> = all.iter().map(|pool| pool.uuid.to_string()).collect();
        let message = format!("there are {} pools '{which}': {}", all.len(), uuids.join(", "));
        return Err(ApiError::conflict(message).then("name one of them by its UUID"));
    }
    all.pop().ok_or_else(|| {
        ApiError::not_found(format!("no pool '{which}' was found")).then(
            "viaduct pool import without a name lists those that were; --pv and --dir say where \
             to look",
        )
    })
}

/// What of it stands in the way, whatever it shall be called; also if it is to be forced.
pub fn refusal(config: &Config, seen: &SeenPool, is_forced: bool) -> Option<ApiError> {
    if let Some(own) = config.pools.iter().find(|pool| pool.uuid == seen.uuid) {
        let name = &own.name;
        let message = format!("pool '{}' is pool '{name}' of this node already", seen.name);
        return Some(ApiError::conflict(message).then(format!("viaduct pool show {name}")));
    }
    let lacks_nothing = || {
        let message = format!("pool '{}' lacks nothing that other disks have", seen.name);
        ApiError::conflict(message).then("import it without --force")
    };
    match (is_forced, seen.groups.is_empty()) {
        (true, false) => None,
        (true, true) => Some(seen.problem.clone().unwrap_or_else(lacks_nothing)),
        (false, _) => seen.problem.clone(),
    }
}

/// The configuration with the pool and its LUs.
pub fn import(
    config: &Config,
    takeover: &Takeover,
    uuid: impl FnMut() -> Uuid,
) -> Result<(Config, Vec<Mark>), ApiError> {
    let Takeover { request, seen, .. } = takeover;
    if let Some(error) = refusal(config, seen, request.force.is_some()) {
        return Err(error);
    }
    let name = name_of(request, seen)?;
    let mut next = config.clone();
    let mut marks = vec![
        Mark::Record(Record::Pool(seen.uuid), Some(seen.record.clone())),
        Mark::Record(Record::Copies(seen.uuid), None),
        force_mark(seen.uuid, wanted_group(request, seen)?.as_ref())?,
        Mark::Made(seen.uuid),
    ];
    if let Some(other) = config.pool(&name) {
        if !gives_way(config, other) {
            let message = format!("there is another pool '{name}' on this node");
            return Err(ApiError::conflict(message)
                .then(format!("viaduct pool import {} --as NAME", seen.uuid)));
        }
        next.pools.retain(|pool| pool.name != name);
        marks.push(Mark::Leftover(other.uuid, Leftover::Pool { pool: other.clone() }));
    }
    let pool = pool(config, takeover, name, uuid)?;
    let lus = lus(config, takeover, &pool.name)?;
    for lu in &lus {
        // What clients of another node have reserved is not known, and what is kept here is older.
        marks.extend([Mark::Record(Record::Lu(lu.uuid), None), Mark::Made(lu.uuid)]);
    }
    let left = Leftover::Lu { pool: seen.uuid };
    marks.extend(seen.unfinished.iter().map(|lu| Mark::Leftover(*lu, left.clone())));
    next.pools.push(pool);
    next.lus.extend(lus);
    Ok((next, marks))
}

fn name_of(request: &PoolImport, seen: &SeenPool) -> Result<PoolName, ApiError> {
    request.name.clone().map_or_else(|| seen.name.parse(), Ok).map_err(|error| {
        ApiError::usage(error.to_string())
            .then(format!("viaduct pool import {} --as NAME", seen.uuid))
    })
}

fn pool(
    config: &Config,
    takeover: &Takeover,
    name: PoolName,
    mut uuid: impl FnMut() -> Uuid,
) -> Result<Pool, ApiError> {
    let Takeover { request, seen, found, own, .. } = takeover;
    // That it holds a pool is why it is taken.
    let taken = |_: &str| (true, String::new());
    found.iter().try_for_each(|it| check_disk(config, it, taken))?;
    check_paths(found)?;
    let groups = groups(request, seen)?;
    let pv = |disk: &SeenDisk| {
        let place = match pool_file(own, disk.uuid).to_str() == Some(&disk.path) {
            true => PvPlace::File { size: disk.size },
            false => PvPlace::Path { path: disk.path.clone() },
        };
        let (group, standing) = (groups[&disk.group].clone(), PvStanding::Member);
        PoolPv { uuid: disk.uuid, place, group, standing }
    };
    let here = seen.disks.iter().map(pv);
    let away = away(seen).into_iter().map(|number| PoolPv {
        // Its own is not known.
        uuid: uuid(),
        place: PvPlace::Missing,
        group: groups[&number].clone(),
        standing: PvStanding::Member,
    });
    let pool = Pool {
        name,
        uuid: seen.uuid,
        slab_size: seen.slab_size,
        extent_size: seen.extent_size,
        checksums: seen.checksums,
        settings: PoolSettings::default(),
        pvs: here.chain(away).collect(),
        becomes: None,
    };
    pool.validate()?;
    Ok(pool)
}

/// The groups of disks that are not here: where nobody knows, one that none of the others is in.
pub(super) fn away(seen: &SeenPool) -> Vec<u16> {
    let known =
        seen.disks.iter().map(|disk| disk.group).chain(seen.missing.iter().flatten().copied());
    let known: BTreeSet<u16> = known.collect();
    let other = (0..=u16::MAX).find(|number| !known.contains(number)).unwrap_or_default();
    seen.missing.iter().map(|group| group.unwrap_or(other)).collect()
}

/// Failure groups have numbers on disk. Their names are those that were given, or made up where
/// there are several.
pub(super) fn groups(
    request: &PoolImport,
    seen: &SeenPool,
) -> Result<BTreeMap<u16, PvGroup>, ApiError> {
    let mut names: BTreeMap<u16, Option<GroupName>> = BTreeMap::new();
    names.extend(away(seen).into_iter().map(|number| (number, None)));
    for disk in &seen.disks {
        let given = request.pvs.iter().find(|pv| pv.path == disk.path);
        let given = given.and_then(|pv| pv.group.clone());
        let known = names.entry(disk.group).or_default();
        if let (Some(known), Some(given)) = (&known, &given)
            && known != given
        {
            let message = format!("{} is in one failure group with disks of {known}", disk.path);
            return Err(ApiError::usage(message).then("give disks of one group one name"));
        }
        *known = known.take().or(given);
    }
    let is_one = names.len() == 1;
    let named = |(number, name): (u16, Option<GroupName>)| {
        let made_up = || (!is_one).then(|| format!("group{number}").parse().ok()).flatten();
        (number, PvGroup { number, name: name.or_else(made_up) })
    };
    let groups: BTreeMap<u16, PvGroup> = names.into_iter().map(named).collect();
    let distinct: BTreeSet<&Option<GroupName>> = groups.values().map(|it| &it.name).collect();
    if distinct.len() < groups.len() {
        return Err(ApiError::usage("disks of different failure groups were given one name")
            .then("viaduct pool import without a name lists the disks with their groups"));
    }
    Ok(groups)
}

fn lus(config: &Config, takeover: &Takeover, pool: &PoolName) -> Result<Vec<Lu>, ApiError> {
    let Takeover { request, seen, now, .. } = takeover;
    let wanted = wanted(request, seen)?;
    let mut lus = Vec::new();
    for (uuid, about) in &wanted {
        let name = format!("{}{}", request.prefix.as_deref().unwrap_or_default(), about.name);
        let name: LuName = name.parse().map_err(|error| {
            ApiError::usage(format!("{error}")).then("choose another --prefix, or none")
        })?;
        let block_size = BlockSize::try_from(about.block_size);
        let block_size =
            block_size.map_err(|error| ApiError::failed(format!("LU '{name}': {error}")))?;
        let outdated = seen.lus.iter().any(|lu| lu.uuid == *uuid && lu.outdated);
        lus.push(Lu {
            name,
            uuid: *uuid,
            size: about.size,
            block_size,
            serial: serial_of(*uuid),
            shareable: false,
            cache: Cache::default(),
            removable: false,
            read_only: false,
            limits: Limits::default(),
            backing: Backing::Pool { pool: pool.clone() },
            thick: about.thick,
            snapshots: snapshots(&about.layers, &stood_upon(&wanted, *uuid), *now),
            origin: None,
            migration: None,
            forced: None,
            outdated,
        });
    }
    names_are_free(config, &lus, seen)?;
    let origins: Vec<_> =
        wanted.iter().map(|it| origin(it, &lus, seen)).collect::<Result<_, _>>()?;
    lus.iter_mut().zip(origins).for_each(|(lu, origin)| lu.origin = origin);
    Ok(lus)
}

/// The LUs that are to be taken over. Refused where one of them cannot be opened, unless that is
/// only because others have the rest of it.
fn wanted<'a>(
    request: &PoolImport,
    seen: &'a SeenPool,
) -> Result<Vec<(Uuid, &'a SeenAbout)>, ApiError> {
    let is_it = |lu: &SeenLu, which: &String| {
        let is_named = lu.about.as_ref().is_ok_and(|about| about.name == *which);
        is_named || lu.uuid.to_string() == *which
    };
    let is_known = |which: &&String| seen.lus.iter().any(|lu| is_it(lu, which));
    if let Some(other) = request.without.iter().find(|which| !is_known(which)) {
        let message = format!("pool '{}' has no LU {other} to be left out", seen.name);
        return Err(ApiError::not_found(message).then("viaduct pool import -o json lists its LUs"));
    }
    // Too little of it is here to tell what it is, or to use it: as of one of which nothing is.
    let is_gone = |lu: &SeenLu| request.force.is_some() && lu.outdated && lu.about.is_err();
    let is_left = |lu: &SeenLu| is_gone(lu) || request.without.iter().any(|which| is_it(lu, which));
    let is_wanted = |lu: &&SeenLu| !is_left(lu);
    let wanted = || seen.lus.iter().filter(is_wanted);
    let bad = |lu: &SeenLu| lu.about.as_ref().err().map(|why| (lu.uuid, why.clone()));
    let bad: Vec<(Uuid, String)> = wanted().filter_map(bad).collect();
    if let Some((uuid, why)) = bad.first() {
        let others =
            if bad.len() > 1 { format!(", and {} more", bad.len() - 1) } else { String::new() };
        let message =
            format!("pool '{}' has an LU that cannot be opened, {uuid}{others}: {why}", seen.name);
        return Err(ApiError::conflict(message).then(format!(
            "viaduct pool check with all of its disks says more; --without {uuid} leaves it where \
             it is"
        )));
    }
    Ok(wanted().filter_map(|lu| Some((lu.uuid, lu.about.as_ref().ok()?))).collect())
}

/// Layers of an LU that clones stand on.
fn stood_upon(wanted: &[(Uuid, &SeenAbout)], lu: Uuid) -> BTreeSet<Uuid> {
    let bases = wanted.iter().filter_map(|(_, about)| about.base);
    bases.filter(|(of, _)| *of == lu).map(|(_, layer)| layer).collect()
}

/// The snapshots of an LU. A layer without a name is one where a clone stands on it; and of two
/// with one name, which is only so while the older one is being removed, the newer one keeps it.
fn snapshots(layers: &[SeenLayer], stood_upon: &BTreeSet<Uuid>, now: Timestamp) -> Vec<Snapshot> {
    let mut names = BTreeSet::new();
    let mut snapshot = |layer: &SeenLayer| {
        let name: Option<SnapshotName> = layer.name.parse().ok();
        let name = name.filter(|name| names.insert(name.clone()));
        let is_kept = !layer.name.is_empty() || stood_upon.contains(&layer.uuid);
        let made_up = || format!("layer-{}", &layer.uuid.simple().to_string()[..8]).parse().ok();
        let name = name.or_else(|| is_kept.then(made_up).flatten())?;
        Some(Snapshot { name, uuid: layer.uuid, size: layer.size, taken: now })
    };
    let mut snapshots: Vec<Snapshot> = layers.iter().rev().filter_map(&mut snapshot).collect();
    snapshots.reverse();
    snapshots
}

/// Refuses names of which there would be two.
fn names_are_free(config: &Config, lus: &[Lu], seen: &SeenPool) -> Result<(), ApiError> {
    let mut names = BTreeMap::new();
    for lu in lus {
        if let Some(other) = names.insert(&lu.name, lu.uuid) {
            let message =
                format!("pool '{}' has two LUs '{}': {other} and {}", seen.name, lu.name, lu.uuid);
            return Err(ApiError::conflict(message).then("leave one of them out: --without UUID"));
        }
    }
    let is_taken = |lu: &&Lu| config.device(&lu.name).is_some();
    let taken: Vec<&str> = lus.iter().filter(is_taken).map(|lu| lu.name.as_str()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let message =
        format!("names of LUs of pool '{}' are taken here: {}", seen.name, some_of(&taken));
    Err(ApiError::conflict(message)
        .then(format!("viaduct pool import {} --prefix {}-", seen.uuid, seen.name)))
}

/// The snapshot that an LU is a clone of.
fn origin(
    (uuid, about): &(Uuid, &SeenAbout),
    lus: &[Lu],
    seen: &SeenPool,
) -> Result<Option<SnapshotRef>, ApiError> {
    let Some((of, layer)) = about.base else { return Ok(None) };
    let lu = lus.iter().find(|lu| lu.uuid == of);
    let snapshot = lu.and_then(|lu| Some((lu, lu.snapshots.iter().find(|it| it.uuid == layer)?)));
    let Some((lu, snapshot)) = snapshot else {
        let (pool, name) = (&seen.name, &about.name);
        let why = match lu {
            Some(_) => "of which what is here does not have that snapshot",
            None => "which is left out",
        };
        let message = format!("LU '{name}' of pool '{pool}' is a clone of LU {of}, {why}");
        return Err(ApiError::conflict(message).then(format!("leave it out too: --without {uuid}")));
    };
    Ok(Some(SnapshotRef { lu: lu.name.clone(), snapshot: snapshot.name.clone() }))
}

/// What becomes of the configuration when an LU was opened of which only an outdated copy was known
/// when it was imported; with what is told of it.
pub fn opened(config: &Config, step: &Step, (is, now): (SeenNow, Timestamp)) -> Option<Ended> {
    let Step::OpenDevice { device } = step else { return None };
    let mut next = config.clone();
    let lu = next.lus.iter_mut().find(|lu| lu.uuid == device.uuid)?;
    let origins = config.lus.iter().filter_map(|lu| lu.origin.as_ref());
    let stood_upon = origins.filter(|origin| origin.lu == lu.name);
    let stood_upon = stood_upon.filter_map(|origin| lu.snapshot(&origin.snapshot));
    let stood_upon: BTreeSet<Uuid> = stood_upon.map(|snapshot| snapshot.uuid).collect();
    let mut snapshots = snapshots(&is.layers, &stood_upon, now);
    for snapshot in &mut snapshots {
        if let Some(known) = lu.snapshots.iter().find(|known| known.uuid == snapshot.uuid) {
            snapshot.clone_from(known);
        }
    }
    (lu.size, lu.snapshots, lu.outdated) = (is.size, snapshots, false);
    let message = format!(
        "LU '{}' was imported from a copy that had missed something; it is open, has {} and {} \
         snapshots",
        lu.name,
        lu.size,
        lu.snapshots.len()
    );
    Some((next, Vec::new(), ("lu-found", message)))
}
