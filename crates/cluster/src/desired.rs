//! [`Desired`]: the devices and adapters that a node shall run. It is read off the configuration,
//! whole, each time that changes; what is not mapped is open all the same, so that a broken backing
//! is known before a guest needs it.

use std::collections::BTreeMap;

use model::{AdapterId, Backing, BlockSize, Cache, Config, Lu, LuName, Size, SocketOwner, Via};
use uuid::Uuid;

/// A device as it shall be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    pub uuid: Uuid,
    pub name: LuName,
    pub serial: String,
    pub size: Size,
    pub block_size: BlockSize,
    pub cache: Cache,
    pub read_only: bool,
    pub removable: bool,
    pub shareable: bool,
    pub backing: Backing,
}

/// An adapter as it shall be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterSpec {
    pub id: AdapterId,
    pub via: Via,
    /// The device that it serves.
    pub device: Uuid,
    pub read_only: bool,
    pub socket_owner: Option<SocketOwner>,
}

/// What a node shall run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub revision: u64,
    pub devices: BTreeMap<Uuid, DeviceSpec>,
    pub adapters: BTreeMap<AdapterId, AdapterSpec>,
}

impl From<&Lu> for DeviceSpec {
    fn from(lu: &Lu) -> DeviceSpec {
        DeviceSpec {
            uuid: lu.uuid,
            name: lu.name.clone(),
            serial: lu.serial.clone(),
            size: lu.size,
            block_size: lu.block_size,
            cache: lu.cache,
            read_only: lu.read_only,
            removable: lu.removable,
            shareable: lu.shareable,
            backing: lu.backing.clone(),
        }
    }
}

impl DeviceSpec {
    /// Whether an open device can take on this spec without being closed: only the size and the
    /// cache mode change under a client.
    pub fn is_change_in_place(&self, open: &DeviceSpec) -> bool {
        DeviceSpec { size: open.size, cache: open.cache, ..self.clone() } == *open
    }
}

impl Desired {
    /// What the only node of a configuration runs: all of it. A mapping whose LU or client is
    /// missing cannot be in a configuration that was validated, and is left out.
    pub fn of(config: &Config) -> Desired {
        let by_name: BTreeMap<&LuName, &Lu> = config.lus.iter().map(|lu| (&lu.name, lu)).collect();
        let owners: BTreeMap<_, _> =
            config.clients.iter().map(|client| (&client.name, &client.socket_owner)).collect();
        let adapter = |mapping: &model::Mapping| {
            let lu = by_name.get(&mapping.lu)?;
            let owner = owners.get(&mapping.client)?;
            Some(AdapterSpec {
                id: mapping.adapter(),
                via: mapping.via,
                device: lu.uuid,
                read_only: mapping.read_only || lu.read_only,
                socket_owner: (*owner).clone(),
            })
        };
        Desired {
            revision: config.revision,
            devices: config.lus.iter().map(|lu| (lu.uuid, DeviceSpec::from(lu))).collect(),
            adapters: config
                .mappings
                .iter()
                .filter_map(adapter)
                .map(|adapter| (adapter.id.clone(), adapter))
                .collect(),
        }
    }
}
