//! The changes of snapshots and clones: what they refuse, and why.
//!
//! A snapshot is on the disks before it is here, and it is one when it is here: what is on the
//! disks without a name is let go when its LU is opened. The other way round it is not here any
//! more before anything of it is let go.

use std::collections::BTreeSet;

use model::limits::SNAPSHOTS_PER_LU_MAX;
use model::lu::serial_of;
use model::{ApiError, Backing, CloneCreate, Config, Lu, LuName, Snapshot, SnapshotRef};
use uuid::Uuid;

use super::ops::{add_lu, no_lu, some_of};

pub fn no_snapshot(snapshot: &SnapshotRef) -> ApiError {
    let lu = &snapshot.lu;
    ApiError::not_found(format!("there is no snapshot '{snapshot}'"))
        .then(format!("viaduct snapshot ls {lu} shows those that are there"))
}

/// A snapshot that is there, with its LU.
pub fn find<'a>(
    config: &'a Config,
    wanted: &SnapshotRef,
) -> Result<(&'a Lu, &'a Snapshot), ApiError> {
    let lu = config.lu(&wanted.lu).ok_or_else(|| no_lu(&wanted.lu))?;
    let snapshot = lu.snapshot(&wanted.snapshot).ok_or_else(|| no_snapshot(wanted))?;
    Ok((lu, snapshot))
}

/// The LUs of which snapshots of these names may be taken.
pub fn may_be_taken<'a>(
    config: &'a Config,
    wanted: &[SnapshotRef],
) -> Result<Vec<&'a Lu>, ApiError> {
    if wanted.is_empty() {
        return Err(ApiError::usage("name a snapshot to take: LU@NAME"));
    }
    let mut seen = BTreeSet::new();
    let check = |wanted: &SnapshotRef| {
        let name = &wanted.lu;
        let lu = config.lu(name).ok_or_else(|| no_lu(name))?;
        if !matches!(lu.backing, Backing::Pool { .. }) {
            let message = format!("LU '{name}' is in no pool, and only there snapshots are taken");
            return Err(ApiError::conflict(message)
                .then("viaduct lu create NAME --pool POOL makes one that is"));
        }
        if lu.snapshot(&wanted.snapshot).is_some() {
            return Err(ApiError::conflict(format!("snapshot '{wanted}' exists already"))
                .then("choose another name, or remove that one: viaduct snapshot rm"));
        }
        if lu.snapshots.len() >= SNAPSHOTS_PER_LU_MAX {
            let message = format!("LU '{name}' has {SNAPSHOTS_PER_LU_MAX} snapshots");
            return Err(ApiError::conflict(message).then("remove some: viaduct snapshot rm"));
        }
        if !seen.insert(name.clone()) {
            return Err(ApiError::usage(format!("LU '{name}' is named twice")));
        }
        Ok(lu)
    };
    wanted.iter().map(check).collect()
}

/// Snapshots that were taken all at one instant.
pub fn add(config: &Config, taken: &[(LuName, Snapshot)]) -> Result<Config, ApiError> {
    let refs: Vec<SnapshotRef> = taken
        .iter()
        .map(|(lu, it)| SnapshotRef { lu: lu.clone(), snapshot: it.name.clone() })
        .collect();
    may_be_taken(config, &refs)?;
    let mut next = config.clone();
    for (name, snapshot) in taken {
        let lu = next.lus.iter_mut().find(|lu| lu.name == *name).ok_or_else(|| no_lu(name))?;
        lu.snapshots.push(snapshot.clone());
    }
    Ok(next)
}

pub fn remove(config: &Config, wanted: &SnapshotRef) -> Result<Config, ApiError> {
    find(config, wanted)?;
    let clones: Vec<&str> = clones_of(config, wanted).map(|lu| lu.name.as_str()).collect();
    if let Some(first) = clones.first() {
        let message = format!("snapshot '{wanted}' has clones: {}", some_of(&clones));
        return Err(ApiError::conflict(message).then(format!("viaduct lu rm {first}")));
    }
    let mut next = config.clone();
    for lu in next.lus.iter_mut().filter(|lu| lu.name == wanted.lu) {
        lu.snapshots.retain(|snapshot| snapshot.name != wanted.snapshot);
    }
    Ok(next)
}

/// An LU that begins as a snapshot of another one.
pub fn clone(config: &Config, request: &CloneCreate, uuid: Uuid) -> Result<Config, ApiError> {
    let (lu, snapshot) = find(config, &request.of)?;
    let clone = Lu {
        name: request.name.clone(),
        uuid,
        size: snapshot.size,
        serial: request.serial.clone().unwrap_or_else(|| serial_of(uuid)),
        shareable: request.shareable,
        limits: request.limits,
        thick: request.thick,
        snapshots: Vec::new(),
        origin: Some(request.of.clone()),
        migration: None,
        forced: None,
        outdated: false,
        ..lu.clone()
    };
    add_lu(config, clone)
}

pub fn clones_of<'a>(config: &'a Config, of: &'a SnapshotRef) -> impl Iterator<Item = &'a Lu> {
    config.lus.iter().filter(move |lu| lu.origin.as_ref() == Some(of))
}

/// An LU goes only without snapshots: somebody wanted to keep those.
pub fn lu_has_none(lu: &Lu) -> Result<(), ApiError> {
    let Some(first) = lu.snapshots.first() else { return Ok(()) };
    let (name, count) = (&lu.name, lu.snapshots.len());
    let plural = if count == 1 { "" } else { "s" };
    Err(ApiError::conflict(format!("LU '{name}' has {count} snapshot{plural}"))
        .then(format!("remove them first: viaduct snapshot rm {name}@{}", first.name)))
}

/// Takes snapshots out of a document that are not there any more, and names those that it does not
/// have.
pub fn restore(is: &Lu, document: &mut Lu) -> Vec<String> {
    let has = |lu: &Lu, uuid: Uuid| lu.snapshots.iter().any(|snapshot| snapshot.uuid == uuid);
    document.snapshots.retain(|snapshot| has(is, snapshot.uuid));
    let gone = is.snapshots.iter().filter(|snapshot| !has(document, snapshot.uuid));
    gone.map(|snapshot| format!("{}@{}", is.name, snapshot.name)).collect()
}

/// Snapshots have names and layers of their own, and every clone has its origin in its own pool.
pub fn validate(config: &Config) -> Result<(), ApiError> {
    for lu in &config.lus {
        let names: BTreeSet<_> = lu.snapshots.iter().map(|it| &it.name).collect();
        let layers: BTreeSet<_> = lu.snapshots.iter().map(|it| it.uuid).collect();
        if names.len() < lu.snapshots.len() || layers.len() < lu.snapshots.len() {
            let message = format!("LU '{}' has two snapshots of one name or UUID", lu.name);
            return Err(ApiError::conflict(message));
        }
        if !lu.snapshots.is_empty() && !matches!(lu.backing, Backing::Pool { .. }) {
            let message = format!("LU '{}' has snapshots and is in no pool", lu.name);
            return Err(ApiError::conflict(message));
        }
        let Some(origin) = &lu.origin else { continue };
        let (of, _) = find(config, origin)?;
        if of.backing != lu.backing {
            let message = format!("LU '{}' is not in the pool of '{origin}', its origin", lu.name);
            return Err(ApiError::conflict(message));
        }
    }
    // A circle would have no end that could be opened.
    let above = |lu: &Lu| config.lu(&lu.origin.as_ref()?.lu);
    for lu in &config.lus {
        let mut chain = std::iter::successors(above(lu), |it| above(it)).take(config.lus.len());
        if chain.any(|it| it.name == lu.name) {
            return Err(ApiError::conflict(format!("LU '{}' is a clone of itself", lu.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        serde_json::from_str(
            r#"{"version":2,"revision":3,
                "pools":[{"name":"fast","uuid":"00000000-0000-0000-0000-0000000000f0",
                          "pvs":[{"uuid":"00000000-0000-0000-0000-0000000000f1",
                                  "place":{"kind":"file","size":"1GiB"}}]}],
                "lus":[{"name":"a","uuid":"00000000-0000-0000-0000-00000000000a",
                        "size":"1GiB","serial":"a","backing":{"kind":"pool","pool":"fast"},
                        "snapshots":[{"name":"one","uuid":"00000000-0000-0000-0000-000000000001",
                                      "size":"1GiB","taken":"2026-11-21T12:00:00Z"}]}]}"#,
        )
        .unwrap()
    }

    fn snapshot(name: &str) -> SnapshotRef {
        name.parse().unwrap()
    }

    fn clone_of(of: &str, name: &str) -> CloneCreate {
        let (serial, limits) = (None, model::Limits::default());
        CloneCreate {
            of: snapshot(of),
            name: name.parse().unwrap(),
            serial,
            shareable: false,
            limits,
            thick: false,
        }
    }

    #[test]
    fn what_is_stood_upon_stays() {
        let config = clone(&config(), &clone_of("a@one", "b"), Uuid::from_u128(11)).unwrap();
        validate(&config).unwrap();
        let refused = remove(&config, &snapshot("a@one")).unwrap_err();
        assert!(refused.message.contains("has clones: b"), "{refused}");
        let mut config = config;
        config.lus.retain(|lu| lu.name.as_str() != "b");
        let config = remove(&config, &snapshot("a@one")).unwrap();
        assert!(config.lus[0].snapshots.is_empty());
        assert!(lu_has_none(&config.lus[0]).is_ok());
    }

    #[test]
    fn no_lu_is_a_clone_of_itself() {
        let mut config = clone(&config(), &clone_of("a@one", "b"), Uuid::from_u128(11)).unwrap();
        let own = config.lus[0].snapshots[0].clone();
        config.lus[1].snapshots.push(Snapshot { uuid: Uuid::from_u128(2), ..own });
        validate(&config).unwrap();
        config.lus[0].origin = Some(snapshot("b@one"));
        let refused = validate(&config).unwrap_err();
        assert!(refused.message.contains("clone of itself"), "{refused}");
    }

    #[test]
    fn a_document_brings_no_snapshot_back_and_says_which_it_lacks() {
        let is = config().lus[0].clone();
        let mut document = is.clone();
        document.snapshots[0].uuid = Uuid::from_u128(99);
        assert_eq!(restore(&is, &mut document), ["a@one"]);
        assert!(document.snapshots.is_empty());
        assert!(restore(&is, &mut is.clone()).is_empty());
    }
}
