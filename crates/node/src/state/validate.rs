//! What must hold of every configuration as a whole: names are unique, references lead somewhere,
//! slots are free, an LU that is not shareable has one client. Checked before every commit, so that
//! a document that is restored passes the same gate as a command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use model::limits::{CLIENTS_MAX, LUS_MAX, MAPPINGS_MAX};
use model::{ApiError, Backing, Config, LuName};

/// Refuses a configuration that contradicts itself.
pub fn config(config: &Config) -> Result<(), ApiError> {
    limits(config)?;
    lus(config)?;
    clients(config)?;
    mappings(config)
}

fn limits(config: &Config) -> Result<(), ApiError> {
    let counts = [
        ("LUs", config.lus.len(), LUS_MAX),
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
        if let Backing::Adopted { path } = &lu.backing {
            unique(&mut paths, path, &lu.name, "path")?;
        }
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
            Err(ApiError::conflict(format!("LU '{name}' has {what} {value}, as has LU '{other}'")))
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
                return Err(ApiError::conflict(format!(
                    "client '{}' has the name {identity}, as has client '{other}'",
                    client.name
                )));
            }
        }
    }
    Ok(())
}

fn mappings(config: &Config) -> Result<(), ApiError> {
    let lus: BTreeMap<_, _> = config.lus.iter().map(|lu| (&lu.name, lu)).collect();
    let clients: BTreeSet<_> = config.clients.iter().map(|client| &client.name).collect();
    let (mut slots, mut pairs) = (BTreeMap::new(), BTreeSet::new());
    let mut users: BTreeMap<&LuName, &str> = BTreeMap::new();
    for mapping in &config.mappings {
        let (name, client, slot) = (&mapping.lu, &mapping.client, mapping.slot);
        let Some(lu) = lus.get(name) else {
            return Err(ApiError::conflict(format!("the mapped LU '{name}' does not exist")));
        };
        if !clients.contains(client) {
            return Err(ApiError::conflict(format!("the mapped client '{client}' does not exist")));
        }
        if mapping.lun != 0 {
            return Err(ApiError::usage(format!(
                "a {} adapter has only LUN 0, not {}",
                mapping.via, mapping.lun
            )));
        }
        if let Some(other) = slots.insert((client, slot), name) {
            return Err(ApiError::conflict(format!(
                "slot {slot} of client '{client}' is taken by LU '{other}'"
            )));
        }
        if !pairs.insert((name, client, mapping.via)) {
            return Err(ApiError::conflict(format!(
                "LU '{name}' is mapped to client '{client}' already"
            )));
        }
        if let Some(other) = users.insert(name, client.as_str())
            && other != client.as_str()
            && !lu.shareable
        {
            return Err(ApiError::conflict(format!(
                "LU '{name}' is not shareable and is mapped to '{other}' already"
            ))
            .then(format!("viaduct unmap {name} --from {other}, or use an LU made --shareable")));
        }
    }
    Ok(())
}
