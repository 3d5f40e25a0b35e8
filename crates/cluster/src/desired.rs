//! [`Desired`]: the pools, devices, drives and mappings that a node shall run. It is read off the
//! configuration, whole, each time that changes; what is not mapped is open all the same, so that a
//! broken backing is known before a guest needs it.

use std::collections::{BTreeMap, BTreeSet};

use model::target::target_name;
use model::{
    Backing, BlockSize, Cache, Chap, Client, Config, Drive, Iqn, Limits, Lu, LuName, Mapping,
    MappingId, Medium, MediumName, Migration, Pool, Redirect, Secret, Secrets, Size, SocketOwner,
    Via,
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
    pub limits: Limits,
    pub read_only: bool,
    pub removable: bool,
    pub shareable: bool,
    pub backing: Backing,
    /// It has the space of its pool at once that it can ever need.
    pub thick: bool,
    /// The pool that it is in.
    pub pool: Option<Uuid>,
    /// The layers of its pool that are snapshots of it, with their names.
    pub snapshots: BTreeMap<Uuid, String>,
    /// Size and snapshots are what its pool says when it is opened, not what is said here.
    pub outdated: bool,
    /// What it is a clone of.
    pub origin: Option<OriginSpec>,
    /// On its way into a pool.
    pub migration: Option<MigrationSpec>,
}

/// How a device gets into a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSpec {
    pub pool: Uuid,
    /// Where it was. None: it is there yet.
    pub from: Option<Backing>,
    /// The size that it had there.
    pub size: Size,
    pub rate: Size,
}

/// A snapshot of another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginSpec {
    pub device: Uuid,
    pub snapshot: Uuid,
}

/// A drive as it shall be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveSpec {
    pub uuid: Uuid,
    pub name: LuName,
    pub serial: String,
    pub medium: Option<MediumSpec>,
    /// The drive of the node that this one is.
    pub device: Option<String>,
}

/// A medium as it shall be in a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumSpec {
    pub name: MediumName,
    /// None: there is no such medium in the library of this node, and it cannot be loaded.
    pub image: Option<MediumImage>,
}

/// Which image it is, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediumImage {
    pub uuid: Uuid,
    pub size: Size,
}

/// A mapping as it shall be open: an LU or a drive at a LUN of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSpec {
    pub id: MappingId,
    pub via: Via,
    /// The device or the drive that it serves.
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
    /// Where logins are sent instead.
    pub redirect: Option<Redirect>,
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
    /// Pools that were asked for and are not made yet.
    pub new_pools: &'a BTreeSet<Uuid>,
    /// The library of the node.
    pub media: &'a BTreeMap<MediumName, Medium>,
    /// The cluster's part in target names.
    pub cluster: &'a str,
}

/// What a node shall run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub revision: u64,
    pub pools: BTreeMap<Uuid, Pool>,
    /// Those of them that were asked for just now: the others were made once.
    pub new_pools: BTreeSet<Uuid>,
    pub devices: BTreeMap<Uuid, DeviceSpec>,
    pub drives: BTreeMap<Uuid, DriveSpec>,
    pub mappings: BTreeMap<MappingId, MappingSpec>,
}

impl DeviceSpec {
    pub fn of(config: &Config, lu: &Lu) -> DeviceSpec {
        DeviceSpec {
            uuid: lu.uuid,
            name: lu.name.clone(),
            serial: lu.serial.clone(),
            size: lu.size,
            block_size: lu.block_size,
            cache: lu.cache,
            limits: lu.limits,
            read_only: lu.read_only,
            removable: lu.removable,
            shareable: lu.shareable,
            backing: lu.backing.clone(),
            thick: lu.thick,
            pool: config.pool_of(lu).map(|pool| pool.uuid),
            snapshots: (lu.snapshots.iter())
                .map(|snapshot| (snapshot.uuid, snapshot.name.to_string()))
                .collect(),
            outdated: lu.outdated,
            origin: lu.origin.as_ref().and_then(|origin| {
                let lu = config.lu(&origin.lu)?;
                let snapshot = lu.snapshot(&origin.snapshot)?.uuid;
                Some(OriginSpec { device: lu.uuid, snapshot })
            }),
            migration: lu.migration.as_ref().and_then(|it| {
                let pool = config.pool(&it.pool)?.uuid;
                let Migration { from, size, rate, .. } = it.clone();
                Some(MigrationSpec { pool, from, size, rate })
            }),
        }
    }
}

impl DriveSpec {
    pub fn of(source: Source<'_>, drive: &Drive) -> DriveSpec {
        let image = |name: &MediumName| {
            let Medium { uuid, size, .. } = source.media.get(name)?;
            Some(MediumImage { uuid: *uuid, size: *size })
        };
        let medium = |name: &MediumName| MediumSpec { name: name.clone(), image: image(name) };
        DriveSpec {
            uuid: drive.uuid,
            name: drive.name.clone(),
            serial: drive.serial.clone(),
            medium: drive.medium.as_ref().map(medium),
            device: drive.device.clone(),
        }
    }

    /// Whether an open drive can take on this spec without being closed: only the medium changes.
    pub fn is_change_in_place(&self, open: &DriveSpec) -> bool {
        DriveSpec { medium: open.medium.clone(), ..self.clone() } == *open
    }
}

impl DeviceSpec {
    /// Whether an open device can take on this spec without being closed: only size, cache mode,
    /// limits, snapshots and the way into a pool change under a client.
    pub fn is_change_in_place(&self, open: &DeviceSpec) -> bool {
        let DeviceSpec { size, cache, limits, outdated, .. } = *open;
        let (snapshots, migration) = (open.snapshots.clone(), open.migration.clone());
        let (backing, pool) = match self.enters(open) {
            true => (open.backing.clone(), open.pool),
            false => (self.backing.clone(), self.pool),
        };
        let same = DeviceSpec { size, cache, limits, snapshots, migration, ..self.clone() };
        DeviceSpec { backing, pool, outdated, ..same } == *open
    }

    /// Whether a device that is open where it was shall be in its pool from now on.
    pub fn enters(&self, open: &DeviceSpec) -> bool {
        let from = self.migration.as_ref().and_then(|it| it.from.as_ref());
        open.pool.is_none() && from == Some(&open.backing)
    }

    /// The device as it is where it comes from.
    pub fn before(&self) -> Option<DeviceSpec> {
        let MigrationSpec { from, size, .. } = self.migration.as_ref()?;
        let (backing, size) = (from.clone()?, *size);
        Some(DeviceSpec { backing, size, pool: None, migration: None, ..self.clone() })
    }

    /// Its part of the pool that it is to be brought into, while it is elsewhere.
    pub fn to_be(&self) -> Option<DeviceSpec> {
        let migration = self.migration.as_ref().filter(|it| it.from.is_none())?;
        Some(DeviceSpec { pool: Some(migration.pool), ..self.clone() })
    }
}

impl MappingSpec {
    /// Whether an open mapping can take on this spec without being closed: only where logins are
    /// sent changes.
    pub fn is_change_in_place(&self, open: &MappingSpec) -> bool {
        self.id == open.id
            && self.device == open.device
            && self.read_only == open.read_only
            && self.is_alike(open)
    }

    /// Whether an adapter can have both at once.
    pub fn is_alike(&self, other: &MappingSpec) -> bool {
        let iscsi = |mapping: &MappingSpec| {
            mapping.iscsi.as_ref().map(|iscsi| IscsiSpec { redirect: None, ..iscsi.clone() })
        };
        self.via == other.via
            && self.socket_owner == other.socket_owner
            && iscsi(self) == iscsi(other)
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
            redirect: client.redirect.clone(),
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
    /// The name of a device or a drive that is wanted.
    pub fn name(&self, uuid: Uuid) -> Option<&LuName> {
        let drive = || self.drives.get(&uuid).map(|drive| &drive.name);
        self.devices.get(&uuid).map(|device| &device.name).or_else(drive)
    }

    /// What the only node of a configuration runs: all of it. A mapping whose LU, drive or client
    /// is missing cannot be in a configuration that was validated, and is left out.
    pub fn of(source: Source<'_>) -> Desired {
        let config = source.config;
        let lus: BTreeMap<&LuName, &Lu> = config.lus.iter().map(|lu| (&lu.name, lu)).collect();
        let clients: BTreeMap<_, _> =
            config.clients.iter().map(|client| (&client.name, client)).collect();
        let drives: BTreeMap<&LuName, &Drive> =
            config.drives.iter().map(|drive| (&drive.name, drive)).collect();
        let spec = |mapping: &Mapping| {
            let (lu, drive) = (lus.get(&mapping.lu), drives.get(&mapping.lu));
            let device = lu.map(|lu| lu.uuid).or_else(|| drive.map(|drive| drive.uuid))?;
            let client = clients.get(&mapping.client)?;
            let (socket_owner, iscsi) = match mapping.via {
                Via::VhostUserBlk | Via::VhostUserScsi => (client.socket_owner.clone(), None),
                Via::Iscsi => (None, Some(IscsiSpec::of(source, client))),
            };
            Some(MappingSpec {
                id: mapping.id(),
                via: mapping.via,
                device,
                read_only: mapping.read_only || lu.is_none_or(|lu| lu.read_only),
                socket_owner,
                iscsi,
            })
        };
        let mappings = config.mappings.iter().filter_map(spec);
        Desired {
            revision: config.revision,
            pools: config.pools.iter().map(|pool| (pool.uuid, pool.clone())).collect(),
            new_pools: source.new_pools.clone(),
            devices: (config.lus.iter()).map(|lu| (lu.uuid, DeviceSpec::of(config, lu))).collect(),
            drives: (config.drives.iter())
                .map(|drive| (drive.uuid, DriveSpec::of(source, drive)))
                .collect(),
            mappings: mappings.map(|mapping| (mapping.id.clone(), mapping)).collect(),
        }
    }
}
