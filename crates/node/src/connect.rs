//! What to run on the client's side, ready to paste, for all that a client is given: QEMU arguments
//! or libvirt XML for its vhost-user disks and SCSI hosts and its iSCSI target, open-iscsi commands
//! for the target; with notes on what else must be so for the connection to work.
//!
//! | module | holds |
//! |---|---|
//! | here | the facts, and which tool prints which of them |
//! | [`qemu`], [`libvirt`], [`open_iscsi`] | the text for each tool |
//! | [`notes`] | sockets and their rights, portals, secrets |

mod libvirt;
mod notes;
mod open_iscsi;
mod qemu;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::status::{
    ClientView, ConnectFor, Connection, ConnectionAdapter, ConnectionHost, ConnectionLun,
    ConnectionTarget, MappingView,
};
use model::{AdapterId, ApiError, Config, Via};
use uuid::Uuid;

use crate::hex;

/// Queues worth asking for: one for each core of the node, and never more than this.
const QUEUES_MAX: u32 = 8;

/// Stands for an address that the node does not know: it listens on all of them.
const UNKNOWN_ADDRESS: &str = "ADDRESS";

/// Where iSCSI is expected when the node serves none now (RFC 7143 13.8).
const ISCSI_PORT: u16 = 3260;

/// The connection of a client. `cores` is how many cores the node serves with.
pub fn connection(
    config: &Config,
    client: &ClientView,
    wanted: ConnectFor,
    cores: u32,
) -> Result<Connection, ApiError> {
    let name = &client.client.name;
    if client.mappings.is_empty() {
        return Err(ApiError::not_found(format!("client '{name}' has no LU mapped"))
            .then(format!("viaduct map LU --to {name} --via vhost-user-blk")));
    }
    let queues = cores.clamp(1, QUEUES_MAX) as u16;
    let adapters: Vec<ConnectionAdapter> =
        client.mappings.iter().filter_map(|mapping| adapter(config, mapping, queues)).collect();
    let hosts = hosts(config, client, queues);
    let iscsi = target(config, client);
    let text = match (wanted, &iscsi) {
        (ConnectFor::Qemu, iscsi) => qemu::text(&adapters, &hosts, iscsi.as_ref()),
        (ConnectFor::Libvirt, iscsi) => libvirt::text(name, &adapters, &hosts, iscsi.as_ref()),
        (ConnectFor::OpenIscsi, Some(iscsi)) => open_iscsi::text(iscsi),
        (ConnectFor::OpenIscsi, None) => {
            return Err(ApiError::not_found(format!("client '{name}' has no LU mapped via iscsi"))
                .then(format!("viaduct map LU --to {name} --via iscsi")));
        }
    };
    let sockets: Vec<&str> = adapters
        .iter()
        .map(|it| it.socket.as_str())
        .chain(hosts.iter().map(|it| it.socket.as_str()))
        .collect();
    let notes = notes::notes(client, wanted, &sockets, iscsi.as_ref());
    Ok(Connection { text, notes, adapters, hosts, iscsi })
}

fn adapter(config: &Config, view: &MappingView, queues: u16) -> Option<ConnectionAdapter> {
    let mapping = &view.mapping;
    let lu = config.lu(&mapping.lu).filter(|_| mapping.via == Via::VhostUserBlk)?;
    Some(ConnectionAdapter {
        adapter: mapping.adapter(),
        lu: lu.name.clone(),
        socket: view.socket.clone()?,
        queues,
        block_size: lu.block_size.bytes(),
        read_only: mapping.read_only || lu.read_only,
        serial: lu.serial.clone(),
    })
}

/// The SCSI hosts of a guest, in the order of their slots.
fn hosts(config: &Config, client: &ClientView, queues: u16) -> Vec<ConnectionHost> {
    let mut hosts: BTreeMap<AdapterId, ConnectionHost> = BTreeMap::new();
    for view in client.mappings.iter().filter(|view| view.mapping.via == Via::VhostUserScsi) {
        let (adapter, Some(socket)) = (view.mapping.adapter(), view.socket.clone()) else {
            continue;
        };
        let empty = ConnectionHost { adapter: adapter.clone(), socket, queues, luns: Vec::new() };
        // A drive needs nothing said on the guest's side.
        hosts.entry(adapter).or_insert(empty).luns.extend(lun(config, view));
    }
    hosts.into_values().collect()
}

fn lun(config: &Config, view: &MappingView) -> Option<ConnectionLun> {
    let mapping = &view.mapping;
    let lu = config.lu(&mapping.lu)?;
    Some(ConnectionLun {
        lun: mapping.lun,
        lu: lu.name.clone(),
        block_size: lu.block_size.bytes(),
        read_only: mapping.read_only || lu.read_only,
        serial: lu.serial.clone(),
        wwid: wwid(lu.uuid),
    })
}

fn target(config: &Config, client: &ClientView) -> Option<ConnectionTarget> {
    let iscsi = client.iscsi.as_ref()?;
    let luns = client.mappings.iter().filter(|view| view.mapping.via == Via::Iscsi);
    Some(ConnectionTarget {
        adapter: iscsi.adapter.clone(),
        target: iscsi.target.clone(),
        portals: iscsi.portals.clone(),
        initiators: client.client.iqns.clone(),
        chap: client.client.chap.clone(),
        luns: luns.filter_map(|view| lun(config, view)).collect(),
    })
}

/// `scsi_id`'s way of writing what INQUIRY says: the type of the name and then the name.
fn wwid(uuid: Uuid) -> String {
    let naa = target::scsi::naa(uuid.as_bytes(), None);
    format!("3{}", hex(naa))
}

/// Where a client reaches a target: host without brackets, and port. One that listens on all
/// addresses has an address that only the administrator knows.
struct Reached {
    host: String,
    port: u16,
}

impl Reached {
    fn at(portal: &str) -> Reached {
        match portal.parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_unspecified() => {
                Reached { host: address.ip().to_string(), port: address.port() }
            }
            Ok(address) => Reached { host: UNKNOWN_ADDRESS.to_owned(), port: address.port() },
            Err(_) => Reached { host: UNKNOWN_ADDRESS.to_owned(), port: ISCSI_PORT },
        }
    }

    /// All portals of a target; at least one.
    fn all(target: &ConnectionTarget) -> Vec<Reached> {
        match target.portals[..] {
            [] => vec![Reached::at("")],
            _ => target.portals.iter().map(|portal| Reached::at(portal)).collect(),
        }
    }

    fn first(target: &ConnectionTarget) -> Reached {
        Reached::at(target.portals.first().map_or("", String::as_str))
    }
}

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Reached { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The name that the client logs in with, where it may choose.
fn initiator(target: &ConnectionTarget) -> &str {
    target.initiators.first().map_or("", model::Iqn::as_str)
}

fn if_read_only(read_only: bool) -> &'static str {
    if read_only { ", read-only" } else { "" }
}
