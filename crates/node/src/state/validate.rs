//! What must hold of every configuration as a whole: names are unique, references lead somewhere,
//! slots are free, an LU that is not shareable has one client. Checked before every commit, so that
//! a document that is restored passes the same gate as a command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use model::limits::{CLIENTS_MAX, DRIVES_MAX, LUS_MAX, MAPPINGS_MAX, POOLS_MAX};
use model::{
    AdapterId, ApiError, Client, ClientName, Config, LuName, Mapping, MappingId, Slot, Via,
};

/// Refuses a configuration that contradicts itself.
pub fn config(config: &Config) -> Result<(), ApiError> {
    limits(config)?;
    pools(config)?;
    lus(config)?;
    super::snapshots::validate(config)?;
    clients(config)?;
    mappings(config)
}

fn limits(config: &Config) -> Result<(), ApiError> {
    let counts = [
        ("pools", config.pools.len(), POOLS_MAX),
        ("LUs", config.lus.len(), LUS_MAX),
        ("drives", config.drives.len(), DRIVES_MAX),
        ("clients", config.clients.len(), CLIENTS_MAX),
        ("mappings", config.mappings.len(), MAPPINGS_MAX),
    ];
    for (what, count, max) in counts {
        if count > max {
            return Err(ApiError::conflict(format!("{count} {what} are more than {max}")));
        }
    }
    Ok(())
}

/// A disk is in one pool and nowhere else.
fn pools(config: &Config) -> Result<(), ApiError> {
    let (mut names, mut uuids, mut paths) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for pool in &config.pools {
        pool.validate()?;
        if !names.insert(&pool.name) {
            return Err(ApiError::conflict(format!("there are two pools '{}'", pool.name)));
        }
        let own = std::iter::once(pool.uuid);
        for uuid in own.chain(pool.pvs.iter().map(|pv| pv.uuid)) {
            if !uuids.insert(uuid) {
                return Err(ApiError::conflict(format!(
                    "pool '{}' or a disk of it has UUID {uuid}, as has another",
                    pool.name
                )));
            }
        }
        for path in pool.paths() {
            if let Some(other) = paths.insert(path, format!("pool '{}'", pool.name)) {
                let message = format!("pool '{}' has disk {path}, as has {other}", pool.name);
                return Err(
                    ApiError::conflict(message).then("viaduct pv ls shows the disks that are free")
                );
            }
        }
    }
    for lu in &config.lus {
        if uuids.contains(&lu.uuid) {
            let message = format!("LU '{}' has the UUID of a pool or of its disk", lu.name);
            return Err(ApiError::conflict(message));
        }
        if let Some(pool) = lu.backing.pool()
            && !names.contains(pool)
        {
            return Err(ApiError::conflict(format!(
                "LU '{}' is in pool '{pool}', which does not exist",
                lu.name
            )));
        }
        if let Some(pool) = lu.migration.as_ref().map(|it| &it.pool)
            && !names.contains(pool)
        {
            return Err(ApiError::conflict(format!(
                "LU '{}' is on its way into pool '{pool}', which does not exist",
                lu.name
            )));
        }
        if let Some(path) = lu.adopted_path()
            && let Some(pool) = paths.get(path)
        {
            return Err(ApiError::conflict(format!(
                "LU '{}' is {path}, a disk of {pool}",
                lu.name
            )));
        }
    }
    Ok(())
}

fn lus(config: &Config) -> Result<(), ApiError> {
    let (mut names, mut uuids) = (BTreeSet::new(), BTreeMap::new());
    let (mut serials, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for lu in &config.lus {
        lu.validate()?;
        if !names.insert(&lu.name) {
            return Err(ApiError::conflict(format!("there are two LUs '{}'", lu.name)));
        }
        unique(&mut uuids, lu.uuid, &lu.name, "UUID")?;
        unique(&mut serials, &lu.serial, &lu.name, "serial")?;
        if let Some(path) = lu.adopted_path() {
            unique(&mut paths, path, &lu.name, "path")?;
        }
    }
    // A drive is mapped by name as an LU is, and known to clients in the same ways.
    for drive in &config.drives {
        drive.validate()?;
        if !names.insert(&drive.name) {
            let name = &drive.name;
            return Err(ApiError::conflict(format!("two LUs or drives have the name '{name}'")));
        }
        unique(&mut uuids, drive.uuid, &drive.name, "UUID")?;
        unique(&mut serials, &drive.serial, &drive.name, "serial")?;
    }
    Ok(())
}

fn unique<'a, T: Ord + Display + Copy>(
    seen: &mut BTreeMap<T, &'a LuName>,
    value: T,
    name: &'a LuName,
    what: &str,
) -> Result<(), ApiError> {
    match seen.insert(value, name) {
        None => Ok(()),
        Some(other) => {
            Err(ApiError::conflict(format!("'{name}' has {what} {value}, as has '{other}'")))
        }
    }
}

fn clients(config: &Config) -> Result<(), ApiError> {
    let mut names = BTreeSet::new();
    let mut identities: BTreeMap<&str, &str> = BTreeMap::new();
    for client in &config.clients {
        client.validate()?;
        if !names.insert(&client.name) {
            return Err(ApiError::conflict(format!("there are two clients '{}'", client.name)));
        }
        let iqns = client.iqns.iter().map(model::Iqn::as_str);
        for identity in iqns.chain(client.nqns.iter().map(model::Nqn::as_str)) {
            if let Some(other) = identities.insert(identity, client.name.as_str()) {
                let name = &client.name;
                let message = if other == name.as_str() {
                    format!("client '{name}' has the name {identity} twice")
                } else {
                    format!("client '{name}' has the name {identity}, as has client '{other}'")
                };
                return Err(ApiError::conflict(message)
                    .then(format!("viaduct client show {other}; a name belongs to one client")));
            }
        }
    }
    Ok(())
}

fn mappings(config: &Config) -> Result<(), ApiError> {
    // Whether it is shareable, and whether it is a drive.
    let lus = config.lus.iter().map(|lu| (&lu.name, (lu.shareable, false)));
    let drives = config.drives.iter().map(|drive| (&drive.name, (drive.shareable, true)));
    let things: BTreeMap<_, _> = lus.chain(drives).collect();
    let clients: BTreeMap<&ClientName, &Client> =
        config.clients.iter().map(|client| (&client.name, client)).collect();
    let (mut places, mut pairs) = (Places::default(), BTreeSet::new());
    let mut users: BTreeMap<&LuName, &str> = BTreeMap::new();
    for mapping in &config.mappings {
        let (name, client) = (&mapping.lu, &mapping.client);
        let Some(&(is_shareable, is_drive)) = things.get(name) else {
            return Err(ApiError::conflict(format!("the mapped LU '{name}' does not exist")));
        };
        let thing = if is_drive { "drive" } else { "LU" };
        if is_drive && !mapping.via.has_drives() {
            let via = mapping.via;
            return Err(ApiError::usage(format!(
                "drive '{name}' cannot be mapped via {via}, which \
                                                has disks only"
            ))
            .then(format!("viaduct map {name} --to {client} --via iscsi")));
        }
        let Some(owner) = clients.get(client) else {
            return Err(ApiError::conflict(format!("the mapped client '{client}' does not exist")));
        };
        if mapping.via == Via::Iscsi && owner.iqns.is_empty() {
            return Err(no_iqn(client));
        }
        places.take(mapping)?;
        if !pairs.insert((name, client, mapping.via)) {
            return Err(ApiError::conflict(format!(
                "{thing} '{name}' is mapped to client '{client}' already"
            )));
        }
        if let Some(other) = users.insert(name, client.as_str())
            && other != client.as_str()
            && !is_shareable
        {
            let article = if is_drive { "a drive" } else { "an LU" };
            return Err(ApiError::conflict(format!(
                "{thing} '{name}' is not shareable and is mapped to '{other}' already"
            ))
            .then(format!(
                "viaduct unmap {name} --from {other}, or use {article} made --shareable"
            )));
        }
    }
    Ok(())
}

fn no_iqn(client: &ClientName) -> ApiError {
    ApiError::conflict(format!(
        "client '{client}' has no iSCSI name, by which its initiator would be known"
    ))
    .then(format!(
        "viaduct client add-iqn {client} NAME; /etc/iscsi/initiatorname.iscsi on the client says \
         which"
    ))
}

/// Which places are taken: an adapter has one transport, a LUN one LU, and a client one target.
#[derive(Default)]
struct Places<'a> {
    adapters: BTreeMap<AdapterId, Via>,
    luns: BTreeMap<MappingId, &'a LuName>,
    targets: BTreeMap<&'a ClientName, Slot>,
}

impl<'a> Places<'a> {
    fn take(&mut self, mapping: &'a Mapping) -> Result<(), ApiError> {
        let Mapping { lu, client, via, slot, lun, .. } = mapping;
        if *lun >= via.luns() {
            return Err(ApiError::usage(match via.luns() {
                1 => format!("a {via} adapter has only LUN 0, not {lun}"),
                luns => format!("{via} has LUN 0 to {}, not {lun}", luns - 1),
            }));
        }
        let holder = self.luns.insert(mapping.id(), lu);
        let other_via = self.adapters.insert(mapping.adapter(), *via).filter(|other| other != via);
        match (other_via, holder) {
            (None, None) => {}
            (Some(other), _) => {
                return Err(ApiError::conflict(format!(
                    "slot {slot} of client '{client}' has an adapter for {other}"
                )));
            }
            (None, Some(holder)) => {
                let place = match via.luns() {
                    1 => format!("slot {slot}"),
                    _ => format!("LUN {lun} at slot {slot}"),
                };
                return Err(ApiError::conflict(format!(
                    "{place} of client '{client}' is taken by LU '{holder}'"
                )));
            }
        }
        if *via == Via::Iscsi
            && let Some(other) = self.targets.insert(client, *slot)
            && other != *slot
        {
            return Err(ApiError::conflict(format!(
                "client '{client}' has its iSCSI adapter at slot {other}, and cannot have one at \
                 slot {slot} too"
            ))
            .then("leave out --slot, and choose among its LUNs with --lun"));
        }
        Ok(())
    }
}
