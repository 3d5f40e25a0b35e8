//! Each change of the desired state, as a pure function from one configuration to the next. What a
//! change refuses, it refuses with the name of the thing and the next thing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::config::{ConfigRestore, RestoreOutcome};
use model::image::format_of;
use model::lu::{Forced, serial_of};
use model::{
    ApiError, Backing, Chap, Client, ClientChange, ClientName, Config, Leftover, Limits,
    LimitsChange, Lu, LuAdopt, LuCreate, LuName, LuResize, MapRequest, Mapping, Pool, Redirect,
    Size, Slot, Via,
};
use uuid::Uuid;

use super::Mark;
use super::migrations;
use super::optical::kind_and_name;
use super::pools::{self, no_pool, user_of};
use super::snapshots;
use crate::probe::{Holder, Kind, Probe};

/// Names in a message before it says "and more".
const NAMES_SHOWN: usize = 5;

/// Names for a message, however many there are.
pub fn some_of(names: &[&str]) -> String {
    let more = if names.len() > NAMES_SHOWN { " and more" } else { "" };
    names[..names.len().min(NAMES_SHOWN)].join(", ") + more
}

pub fn no_lu(name: &LuName) -> ApiError {
    ApiError::not_found(format!("there is no LU '{name}'"))
        .then("viaduct lu ls shows those that are there")
}

pub fn no_client(name: &ClientName) -> ApiError {
    ApiError::not_found(format!("there is no client '{name}'"))
        .then(format!("viaduct client ls shows those that are there; viaduct client create {name}"))
}

pub fn lu_create(config: &Config, request: &LuCreate, uuid: Uuid) -> Result<Config, ApiError> {
    let lu = Lu {
        name: request.name.clone(),
        uuid,
        size: request.size,
        block_size: request.block_size,
        serial: request.serial.clone().unwrap_or_else(|| serial_of(uuid)),
        shareable: request.shareable,
        cache: request.cache,
        removable: request.removable,
        read_only: false,
        limits: request.limits,
        backing: request.place(config.default_pool().map(|pool| &pool.name))?,
        thick: request.thick,
        snapshots: Vec::new(),
        origin: None,
        migration: None,
        forced: None,
        outdated: false,
    };
    lu.validate_new_size()?;
    if let Some(pool) = lu.backing.pool() {
        config.pool(pool).ok_or_else(|| no_pool(pool))?;
    }
    add_lu(config, lu)
}

/// Takes over an image or device that holds data. What it holds does not matter, as long as it is
/// the disk itself and not a file format around one.
pub fn lu_adopt(
    config: &Config,
    request: &LuAdopt,
    probe: &Probe,
    uuid: Uuid,
) -> Result<Config, ApiError> {
    let path = &probe.path;
    if probe.kind == Kind::Other {
        return Err(ApiError::usage(format!(
            "{path} is neither a regular file nor a block device"
        )));
    }
    if let Some(format) = format_of(&probe.head) {
        let name = format.name;
        return Err(ApiError::usage(format!(
            "{path} is a {name} image; only raw images and block devices can be adopted"
        ))
        .then(format!("qemu-img convert -O raw {path} NEW, then viaduct lu adopt NEW")));
    }
    let taken = |lu: &&Lu| lu.adopted_path() == Some(path);
    if let Some(lu) = config.lus.iter().find(taken) {
        return Err(ApiError::conflict(format!("{path} is adopted already, as LU '{}'", lu.name)));
    }
    if let Some(user) = user_of(config, path) {
        return Err(ApiError::conflict(format!("{path} is in use: {user}")));
    }
    if let Some(holder) = probe.holder {
        return Err(held(path, holder));
    }
    if probe.is_read_only && !request.read_only {
        return Err(ApiError::conflict(format!("{path} cannot be written"))
            .then("adopt it --read-only, or make it writable for the node"));
    }
    let lu = Lu {
        name: request.name.clone().map_or_else(|| name_from(path), Ok)?,
        uuid,
        size: adopted_size(probe, request.block_size.bytes())?,
        block_size: request.block_size,
        serial: request.serial.clone().unwrap_or_else(|| serial_of(uuid)),
        shareable: request.shareable,
        cache: request.cache,
        removable: request.removable,
        read_only: request.read_only,
        limits: request.limits,
        backing: Backing::Adopted { path: path.clone() },
        snapshots: Vec::new(),
        thick: false,
        origin: None,
        migration: None,
        forced: None,
        outdated: false,
    };
    add_lu(config, lu)
}

/// The refusal of an image that somebody has in a way that excludes us.
fn held(path: &str, holder: Holder) -> ApiError {
    let (who, next) = match holder {
        Holder::Node => (
            "another viaduct node serves it",
            "viaduct lu rm on that node first, which keeps the data of an adopted image; if both \
             nodes shall write it, adopt it --shareable on both",
        ),
        Holder::Other => (
            "a QEMU or another program holds its image lock",
            "stop its user, or adopt it --shareable if both shall write it",
        ),
    };
    ApiError::conflict(format!("{path} is in use: {who}")).then(next)
}

fn name_from(path: &str) -> Result<LuName, ApiError> {
    let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    stem.parse().map_err(|error| {
        ApiError::usage(format!("no name can be made of {path}: {error}"))
            .then(format!("viaduct lu adopt {path} --name NAME"))
    })
}

/// The size of an adopted image: whole blocks, because rounding would hide or invent data.
pub fn adopted_size(probe: &Probe, block_size: u32) -> Result<Size, ApiError> {
    let (path, size, block) = (&probe.path, probe.size, u64::from(block_size));
    if size.is_multiple_of(block) {
        return Ok(Size(size));
    }
    let error = ApiError::usage(format!(
        "the size of {path}, {size} bytes, is not a multiple of the block size {block}"
    ));
    Err(match probe.kind {
        Kind::File => error.then(format!("truncate -s {} {path}", size.next_multiple_of(block))),
        _ => error.then("adopt it with --block-size 512"),
    })
}

/// Whether an LU could have this name.
pub fn lu_name_is_free(config: &Config, name: &LuName) -> Result<(), ApiError> {
    if config.drive(name).is_some() {
        return Err(ApiError::conflict(format!("drive '{name}' exists already"))
            .then("choose another name: LUs and drives share them, as they are mapped by name"));
    }
    if config.lu(name).is_some() {
        return Err(ApiError::conflict(format!("LU '{name}' exists already"))
            .then(format!("choose another name; viaduct lu show {name} shows the one there is")));
    }
    Ok(())
}

pub(super) fn add_lu(config: &Config, lu: Lu) -> Result<Config, ApiError> {
    lu_name_is_free(config, &lu.name)?;
    lu.validate()?;
    if let Some(other) = config.lus.iter().find(|other| other.serial == lu.serial) {
        return Err(ApiError::conflict(format!(
            "serial {} is that of LU '{}'; a guest would take both for one disk",
            lu.serial, other.name
        )));
    }
    let mut next = config.clone();
    next.lus.push(lu);
    Ok(next)
}

/// Changes the size of an LU. `found` is what an adopted backing has now.
pub fn lu_resize(
    config: &Config,
    name: &LuName,
    request: &LuResize,
    found: Option<&Probe>,
) -> Result<Config, ApiError> {
    let lu = config.lu(name).ok_or_else(|| no_lu(name))?;
    if lu.outdated {
        let message = format!("nobody knows how large LU '{name}' is before it is open");
        return Err(ApiError::not_now(message).then(format!("viaduct lu show {name} says why")));
    }
    let size = match (&lu.backing, request.size, found) {
        (Backing::Adopted { path }, Some(_), _) => {
            return Err(ApiError::usage(format!(
                "LU '{name}' is adopted; its size is that of {path}"
            ))
            .then(format!("resize {path} itself, then run viaduct lu resize {name}")));
        }
        (Backing::Adopted { .. }, None, Some(probe)) => adopted_size(probe, lu.block_size.bytes())?,
        (_, Some(size), _) => size,
        (_, None, _) => {
            return Err(ApiError::usage(format!("say which size LU '{name}' shall have"))
                .then(format!("viaduct lu resize {name} --size {}", Size(lu.size.bytes() * 2))));
        }
    };
    // In a pool nothing is cut off that is written.
    let cuts_off = size < lu.size && lu.backing.pool().is_none();
    if cuts_off && !request.shrink {
        return Err(ApiError::conflict(format!(
            "{size} is less than the {} that LU '{name}' has; what lies behind it would be lost",
            lu.size
        ))
        .then(format!("viaduct lu resize {name} --shrink, after the guest gave up that space")));
    }
    let mut next = config.clone();
    for lu in next.lus.iter_mut().filter(|lu| lu.name == *name) {
        lu.size = size;
        lu.validate_new_size()?;
        lu.validate()?;
    }
    Ok(next)
}

/// Gives an LU other limits.
pub fn lu_limits(config: &Config, name: &LuName, change: LimitsChange) -> Result<Config, ApiError> {
    config.lu(name).ok_or_else(|| no_lu(name))?;
    let mut next = config.clone();
    for lu in next.lus.iter_mut().filter(|lu| lu.name == *name) {
        lu.limits = lu.limits.changed(change);
        // A burst alone is left over from a limit.
        if lu.limits.iops.is_none() && lu.limits.bandwidth.is_none() && change.burst_ms.is_none() {
            lu.limits = Limits::default();
        }
        lu.validate()?;
    }
    Ok(next)
}

/// Notes what an LU was made of when no copy with everything was to be had.
pub fn lu_forced(config: &Config, name: &LuName, forced: Forced) -> Result<Config, ApiError> {
    config.lu(name).ok_or_else(|| no_lu(name))?;
    let mut next = config.clone();
    for lu in next.lus.iter_mut().filter(|lu| lu.name == *name) {
        lu.forced = Some(forced.clone());
    }
    Ok(next)
}

pub fn lu_remove(config: &Config, name: &LuName) -> Result<(Config, Vec<Mark>), ApiError> {
    let lu = config.lu(name).ok_or_else(|| no_lu(name))?;
    if let Some(mapping) = config.mappings_of_lu(name).next() {
        let client = &mapping.client;
        return Err(ApiError::conflict(format!(
            "LU '{name}' is mapped to client '{client}' at slot {}",
            mapping.slot
        ))
        .then(format!("viaduct unmap {name} --from {client}")));
    }
    snapshots::lu_has_none(lu)?;
    let marks = leftovers(config, lu).collect();
    let mut next = config.clone();
    next.lus.retain(|lu| lu.name != *name);
    Ok((next, marks))
}

fn leftovers(config: &Config, lu: &Lu) -> impl Iterator<Item = Mark> {
    leftover(config, lu).into_iter().chain(migrations::left_elsewhere(config, lu))
}

/// Only what a node made is deleted with its LU.
fn leftover(config: &Config, lu: &Lu) -> Option<Mark> {
    let left = match &lu.backing {
        Backing::File => Leftover::File,
        Backing::Pool { .. } => Leftover::Lu { pool: config.pool_of(lu)?.uuid },
        Backing::Adopted { .. } | Backing::Memory | Backing::Null => return None,
    };
    Some(Mark::Leftover(lu.uuid, left))
}

pub fn client_create(config: &Config, client: &Client) -> Result<Config, ApiError> {
    let name = &client.name;
    if config.client(name).is_some() {
        return Err(ApiError::conflict(format!("client '{name}' exists already"))
            .then(format!("choose another name; viaduct client show {name}")));
    }
    if client.chap.is_some() {
        return Err(ApiError::usage(format!("client '{name}' is made before its CHAP"))
            .then(format!("viaduct client create {name}, then viaduct client chap {name}")));
    }
    let mut next = config.clone();
    next.clients.push(client.clone());
    super::validate::config(&next)?;
    Ok(next)
}

pub fn client_remove(config: &Config, name: &ClientName) -> Result<Config, ApiError> {
    config.client(name).ok_or_else(|| no_client(name))?;
    if let Some(mapping) = config.mappings_of_client(name).next() {
        let lu = &mapping.lu;
        let thing = kind_and_name(config, lu);
        return Err(ApiError::conflict(format!("client '{name}' has {thing} mapped"))
            .then(format!("viaduct unmap {lu} --from {name}")));
    }
    let mut next = config.clone();
    next.clients.retain(|client| client.name != *name);
    Ok(next)
}

/// Changes who a client is.
pub fn client_change(
    config: &Config,
    name: &ClientName,
    change: &ClientChange,
) -> Result<Config, ApiError> {
    let client = config.client(name).ok_or_else(|| no_client(name))?;
    if let Some(iqn) = change.remove_iqns.iter().find(|iqn| !client.iqns.contains(iqn)) {
        return Err(ApiError::not_found(format!("client '{name}' has no iSCSI name {iqn}"))
            .then(format!("viaduct client show {name} shows those that it has")));
    }
    let mut iqns = client.iqns.clone();
    iqns.retain(|iqn| !change.remove_iqns.contains(iqn));
    iqns.extend(change.add_iqns.iter().filter(|iqn| !client.iqns.contains(iqn)).cloned());
    let mut mappings = config.mappings_of_client(name);
    if iqns.is_empty() && mappings.any(|mapping| mapping.via == Via::Iscsi) {
        return Err(ApiError::conflict(format!(
            "client '{name}' has LUs mapped via iscsi and needs an iSCSI name for them"
        ))
        .then(format!("viaduct client add-iqn {name} NAME first, or unmap them")));
    }
    let mut next = config.clone();
    for client in next.clients.iter_mut().filter(|client| client.name == *name) {
        client.iqns.clone_from(&iqns);
    }
    super::validate::config(&next)?;
    Ok(next)
}

/// From now on a client proves itself in this way, or need not.
pub fn client_chap(
    config: &Config,
    name: &ClientName,
    chap: Option<&Chap>,
) -> Result<Config, ApiError> {
    config.client(name).ok_or_else(|| no_client(name))?;
    let mut next = config.clone();
    for client in next.clients.iter_mut().filter(|client| client.name == *name) {
        client.chap = chap.cloned();
    }
    Ok(next)
}

/// From now on logins of a client are sent there, or let in.
pub fn client_redirect(
    config: &Config,
    name: &ClientName,
    redirect: Option<&Redirect>,
) -> Result<Config, ApiError> {
    let client = config.client(name).ok_or_else(|| no_client(name))?;
    if client.iqns.is_empty() && redirect.is_some() {
        return Err(ApiError::conflict(format!(
            "client '{name}' has no iSCSI name to log in with"
        ))
        .then(format!("viaduct client add-iqn {name} NAME")));
    }
    let mut next = config.clone();
    for client in next.clients.iter_mut().filter(|client| client.name == *name) {
        client.redirect = redirect.cloned();
    }
    Ok(next)
}

pub fn map(config: &Config, request: &MapRequest) -> Result<(Config, Mapping), ApiError> {
    let (name, client) = (&request.lu, &request.client);
    config.device(name).ok_or_else(|| no_lu(name))?;
    config.client(client).ok_or_else(|| no_client(client))?;
    let slot = slot_for(config, request)?;
    let mapping = Mapping {
        lu: name.clone(),
        client: client.clone(),
        via: request.via,
        slot,
        lun: lun_for(config, request, slot)?,
        read_only: request.read_only,
    };
    let mut next = config.clone();
    next.mappings.push(mapping.clone());
    super::validate::config(&next)?;
    Ok((next, mapping))
}

/// The slot that a mapping gets. All LUs that a client has via iSCSI are at one adapter; via
/// vhost-user-scsi they are at its first one, unless a slot is named; everything else has an
/// adapter of its own.
fn slot_for(config: &Config, request: &MapRequest) -> Result<Slot, ApiError> {
    let client = &request.client;
    let mappings = || config.mappings_of_client(client);
    let alike = mappings().filter(|mapping| mapping.via == request.via && mapping.via.luns() > 1);
    let slots: BTreeSet<Slot> = alike.map(|mapping| mapping.slot).collect();
    let named = request.slot.filter(|_| request.via == Via::VhostUserScsi);
    let target = match named {
        Some(named) => slots.get(&named).copied(),
        None => slots.first().copied(),
    };
    let taken: BTreeSet<Slot> = mappings().map(|mapping| mapping.slot).collect();
    let free = Slot::lowest_free(&taken);
    match (request.slot, target) {
        // What contradicts the adapter that there is, is refused when the whole is looked at.
        (slot, Some(target)) => Ok(slot.unwrap_or(target)),
        (Some(slot), None) if taken.contains(&slot) => {
            let error = ApiError::conflict(format!("slot {slot} of client '{client}' is taken"));
            Err(match free {
                Some(free) => error.then(format!("slot {free} is the lowest free one")),
                None => error,
            })
        }
        (Some(slot), None) => Ok(slot),
        (None, None) => free.ok_or_else(|| {
            ApiError::conflict(format!("all slots of client '{client}' are taken"))
                .then(format!("viaduct client show {client}; unmap an LU that is not needed"))
        }),
    }
}

fn lun_for(config: &Config, request: &MapRequest, slot: Slot) -> Result<u16, ApiError> {
    let (client, via) = (&request.client, request.via);
    let at_adapter = config.mappings_of_client(client).filter(|mapping| mapping.slot == slot);
    let taken: BTreeMap<u16, &LuName> =
        at_adapter.map(|mapping| (mapping.lun, &mapping.lu)).collect();
    let free = (0..via.luns()).find(|lun| !taken.contains_key(lun));
    let Some(lun) = request.lun else {
        // An adapter with one LUN is taken as a whole, which is said by its slot.
        return free.or((via.luns() == 1).then_some(0)).ok_or_else(|| {
            ApiError::conflict(format!("all {} LUNs of client '{client}' are taken", via.luns()))
                .then(format!("viaduct client show {client}; unmap an LU that is not needed"))
        });
    };
    match (taken.get(&lun), free) {
        (Some(holder), Some(free)) => Err(ApiError::conflict(format!(
            "LUN {lun} at slot {slot} of client '{client}' is taken by LU '{holder}'"
        ))
        .then(format!("LUN {free} is the lowest free one"))),
        _ => Ok(lun),
    }
}

/// Takes an LU away from a client; by which transport must be said only where there are two.
pub fn unmap(
    config: &Config,
    lu: &LuName,
    client: &ClientName,
    via: Option<Via>,
) -> Result<(Config, Mapping), ApiError> {
    config.device(lu).ok_or_else(|| no_lu(lu))?;
    config.client(client).ok_or_else(|| no_client(client))?;
    let is_meant =
        |mapping: &&Mapping| mapping.client == *client && via.is_none_or(|via| mapping.via == via);
    let found: Vec<&Mapping> = config.mappings_of_lu(lu).filter(is_meant).collect();
    let mapping = match found[..] {
        [mapping] => mapping.clone(),
        [] => {
            let by = via.map(|via| format!(" via {via}")).unwrap_or_default();
            let thing = kind_and_name(config, lu);
            return Err(ApiError::not_found(format!(
                "{thing} is not mapped to client '{client}'{by}"
            ))
            .then("viaduct mapping ls shows what is mapped"));
        }
        [one, other, ..] => {
            let (one, other) = (one.via, other.via);
            let thing = kind_and_name(config, lu);
            return Err(ApiError::conflict(format!(
                "{thing} is mapped to client '{client}' via {one} and via {other}"
            ))
            .then(format!("viaduct unmap {lu} --from {client} --via {one}, or --via {other}")));
        }
    };
    let mut next = config.clone();
    next.mappings.retain(|other| *other != mapping);
    Ok((next, mapping))
}

/// Makes a whole document the desired state. It never takes data away unless that was asked for.
pub fn restore(
    config: &Config,
    request: &ConfigRestore,
) -> Result<(Config, Vec<Mark>, RestoreOutcome), ApiError> {
    let mut next = request.config.clone();
    Config::check_version(next.version)?;
    next.version = model::config::CONFIG_VERSION;
    next.sort();
    let mut gone_snapshots = Vec::new();
    for lu in &mut next.lus {
        if let Some(old) = config.lus.iter().find(|old| old.uuid == lu.uuid) {
            check_change(old, lu)?;
            // Only the node knows how far it is.
            lu.migration.clone_from(&old.migration);
            gone_snapshots.extend(snapshots::restore(old, lu));
        }
    }
    for pool in &mut next.pools {
        if let Some(old) = config.pools.iter().find(|old| old.uuid == pool.uuid) {
            *pool = pools::restored(old, pool)?;
        }
    }
    let uuids: BTreeSet<Uuid> = next.lus.iter().map(|lu| lu.uuid).collect();
    let gone: Vec<&Lu> = config.lus.iter().filter(|lu| !uuids.contains(&lu.uuid)).collect();
    let uuids: BTreeSet<Uuid> = next.pools.iter().map(|pool| pool.uuid).collect();
    let gone_pools: Vec<&Pool> =
        config.pools.iter().filter(|pool| !uuids.contains(&pool.uuid)).collect();
    if !request.prune {
        not_there("LUs", gone.iter().map(|lu| lu.name.as_str()))?;
        let missed = gone_pools.iter().filter(|pool| !pools::gives_way(config, pool));
        not_there("pools", missed.map(|pool| pool.name.as_str()))?;
        not_there("snapshots", gone_snapshots.iter().map(String::as_str))?;
    }
    let pools = gone_pools
        .into_iter()
        .map(|pool| Mark::Leftover(pool.uuid, Leftover::Pool { pool: pool.clone() }));
    let marks = gone.iter().flat_map(|lu| leftovers(config, lu)).chain(pools).collect();
    let outcome = count(config, &next);
    Ok((next, marks, outcome))
}

/// Refuses a document that lacks some of what is here.
fn not_there<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ApiError> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = some_of(&names);
    Err(ApiError::conflict(format!(
        "the document does not have the {what} {names}, which are here"
    ))
    .then("viaduct config restore --prune removes them with their data"))
}

/// What may not change about an LU that is there.
fn check_change(old: &Lu, new: &Lu) -> Result<(), ApiError> {
    let name = &old.name;
    let differs = |what: &str| {
        let message = format!("the document gives LU '{name}' another {what} than it has");
        Err(ApiError::conflict(message))
    };
    if new.name != old.name {
        return differs("name");
    }
    if new.backing != old.backing {
        return differs("backing");
    }
    if new.block_size != old.block_size {
        return differs("block size");
    }
    if new.origin != old.origin {
        return differs("origin");
    }
    if new.thick != old.thick {
        return differs("provisioning");
    }
    if new.size < old.size {
        let message = format!(
            "the document gives LU '{name}' {}, less than the {} that it has",
            new.size, old.size
        );
        return Err(ApiError::conflict(message)
            .then(format!("viaduct lu resize {name} --size {} --shrink first", new.size)));
    }
    Ok(())
}

fn count(old: &Config, new: &Config) -> RestoreOutcome {
    let mut outcome = RestoreOutcome::default();
    tally(&mut outcome, &old.pools, &new.pools, |a, b| a.name == b.name);
    tally(&mut outcome, &old.lus, &new.lus, |a, b| a.name == b.name);
    tally(&mut outcome, &old.drives, &new.drives, |a, b| a.name == b.name);
    tally(&mut outcome, &old.clients, &new.clients, |a, b| a.name == b.name);
    let same = |a: &Mapping, b: &Mapping| a.id() == b.id();
    tally(&mut outcome, &old.mappings, &new.mappings, same);
    outcome
}

fn tally<T: PartialEq>(
    outcome: &mut RestoreOutcome,
    old: &[T],
    new: &[T],
    same: impl Fn(&T, &T) -> bool,
) {
    for item in new {
        match old.iter().find(|other| same(other, item)) {
            None => outcome.added += 1,
            Some(other) if other != item => outcome.changed += 1,
            Some(_) => {}
        }
    }
    let is_gone = |item: &&T| !new.iter().any(|other| same(other, item));
    outcome.removed += old.iter().filter(is_gone).count() as u32;
}
