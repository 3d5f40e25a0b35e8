//! [`Desired`]: the devices and mappings that a node shall run. It is read off the configuration,
//! whole, each time that changes; what is not mapped is open all the same, so that a broken backing
//! is known before a guest needs it.

use std::collections::BTreeMap;

use model::target::target_name;
use model::{
    Backing, BlockSize, Cache, Chap, Client, Config, Iqn, Lu, LuName, Mapping, MappingId, Secret,
    Secrets, Size, SocketOwner, Via,
};
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

/// A mapping as it shall be open: an LU at a LUN of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSpec {
    pub id: MappingId,
    pub via: Via,
    /// The device that it serves.
    pub device: Uuid,
    pub read_only: bool,
    /// Of vhost-user sockets.
    pub socket_owner: Option<SocketOwner>,
    /// What the adapter of an iSCSI mapping is. Open mappings of one adapter have it in common.
    pub iscsi: Option<IscsiSpec>,
}

/// An iSCSI adapter as it shall be: a target of its own for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiSpec {
    pub target: String,
    /// Who may log in, in the order of the names.
    pub initiators: Vec<Iqn>,
    pub chap: Option<ChapSpec>,
    /// CHAP is wanted and its secret is not here: nobody may log in, and no engine sees this.
    pub lacks_secret: bool,
}

/// How both sides prove themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChapSpec {
    /// What the client must know.
    pub initiator: Account,
    /// What the node shows to a client that asks for it (mutual CHAP).
    pub target: Option<Account>,
}

/// A name and the secret that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub secret: Secret,
}

/// What a node runs is read off these.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub config: &'a Config,
    pub secrets: &'a Secrets,
    /// The cluster's part in target names.
    pub cluster: &'a str,
}

/// What a node shall run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub revision: u64,
    pub devices: BTreeMap<Uuid, DeviceSpec>,
    pub mappings: BTreeMap<MappingId, MappingSpec>,
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

impl IscsiSpec {
    /// The adapter of a client.
    pub fn of(source: Source<'_>, client: &Client) -> IscsiSpec {
        let chap = client.chap.as_ref().map(|chap| chap_spec(source.secrets, client, chap));
        let mut initiators = client.iqns.clone();
        initiators.sort();
        IscsiSpec {
            target: target_name(source.cluster, &client.name),
            initiators,
            lacks_secret: chap.as_ref().is_some_and(Option::is_none),
            chap: chap.flatten(),
        }
    }
}

/// Names and secrets together; none when a secret is missing.
fn chap_spec(secrets: &Secrets, client: &Client, chap: &Chap) -> Option<ChapSpec> {
    let secrets = secrets.get(&client.name)?;
    let initiator = Account { name: chap.name.clone(), secret: secrets.secret.clone() };
    let target = match &chap.mutual_name {
        Some(name) => Some(Account { name: name.clone(), secret: secrets.mutual_secret.clone()? }),
        None => None,
    };
    Some(ChapSpec { initiator, target })
}

impl Desired {
    /// What the only node of a configuration runs: all of it. A mapping whose LU or client is
    /// missing cannot be in a configuration that was validated, and is left out.
    pub fn of(source: Source<'_>) -> Desired {
        let config = source.config;
        let lus: BTreeMap<&LuName, &Lu> = config.lus.iter().map(|lu| (&lu.name, lu)).collect();
        let clients: BTreeMap<_, _> =
            config.clients.iter().map(|client| (&client.name, client)).collect();
        let spec = |mapping: &Mapping| {
            let lu = lus.get(&mapping.lu)?;
            let client = clients.get(&mapping.client)?;
            let (socket_owner, iscsi) = match mapping.via {
                Via::VhostUserBlk => (client.socket_owner.clone(), None),
                Via::Iscsi => (None, Some(IscsiSpec::of(source, client))),
            };
            Some(MappingSpec {
                id: mapping.id(),
                via: mapping.via,
                device: lu.uuid,
                read_only: mapping.read_only || lu.read_only,
                socket_owner,
                iscsi,
            })
        };
        let mappings = config.mappings.iter().filter_map(spec);
        Desired {
            revision: config.revision,
            devices: config.lus.iter().map(|lu| (lu.uuid, DeviceSpec::from(lu))).collect(),
            mappings: mappings.map(|mapping| (mapping.id.clone(), mapping)).collect(),
        }
    }
}
