//! [`Actual`]: what a node runs now, as far as it knows. It changes in one way only, by steps that
//! succeeded, so that what the planner believes and what was done cannot drift apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use model::{AdapterId, Leftover, MappingId, Pool, PoolPv, PvStanding};
use uuid::Uuid;

use crate::desired::{DeviceSpec, DriveSpec, MappingSpec};
use crate::plan::{Plan, Step};

/// What a step works on. Two steps on one part never run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A device and the file under it, or a drive.
    Device(Uuid),
    /// The way of a device into its pool.
    Migration(Uuid),
    Pool(Uuid),
    /// A disk of a pool.
    Pv(Uuid),
    Mapping(MappingId),
    /// The door of an adapter that has LUNs of its own.
    Adapter(AdapterId),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Device(uuid) => write!(f, "device {uuid}"),
            Part::Migration(uuid) => write!(f, "the way of device {uuid} into its pool"),
            Part::Pool(uuid) => write!(f, "pool {uuid}"),
            Part::Pv(uuid) => write!(f, "disk {uuid}"),
            Part::Mapping(id) => write!(f, "mapping {id}"),
            Part::Adapter(id) => write!(f, "adapter {id}"),
        }
    }
}

/// What a node runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// LUs whose file in the data directory or whose part of a pool was made, and pools whose disks
    /// were labelled. Kept durably: what was made once and is gone is never made anew, because an
    /// empty disk is worse than none.
    pub made: BTreeSet<Uuid>,
    /// LUs, media and pools that were removed, and what is still to be deleted of them. Kept
    /// durably: what no record names is never deleted.
    pub leftovers: BTreeMap<Uuid, Leftover>,
    /// With the standings that their disks have. One that is withdrawn has left.
    pub pools: BTreeMap<Uuid, Pool>,
    pub devices: BTreeMap<Uuid, DeviceSpec>,
    pub drives: BTreeMap<Uuid, DriveSpec>,
    pub mappings: BTreeMap<MappingId, MappingSpec>,
    /// Adapters that clients can connect to; of those that wait for their LUNs first.
    pub listening: BTreeSet<AdapterId>,
    /// Steps under way, by the part they work on.
    pub busy: BTreeMap<Part, Step>,
    /// Parts whose last step failed, and when they are tried again.
    pub failed: BTreeMap<Part, Duration>,
}

impl Actual {
    /// Marks a step as under way.
    pub fn begin(&mut self, step: &Step) {
        if let Step::LeavePv { pool, pv, .. } = step {
            // Nothing is granted there from now on, also if this fails.
            self.stand(*pool, pv, PvStanding::Leaving { slabs: 0 });
        }
        self.busy.insert(step.part(), step.clone());
    }

    /// Takes note that a step was done.
    pub fn apply(&mut self, step: &Step) {
        self.busy.remove(&step.part());
        self.failed.remove(&step.part());
        match step {
            Step::CreateBacking { device } => {
                self.made.insert(device.uuid);
            }
            Step::OpenDevice { device } | Step::EnterPool { device } => {
                // Whoever has it open knows what it is.
                let device = DeviceSpec { outdated: false, ..device.clone() };
                self.devices.insert(device.uuid, device);
            }
            // What is kept of the end of these decides.
            Step::MakePart { .. } => {}
            Step::RemoveMoved { lu, .. } => {
                self.leftovers.remove(&Leftover::moved_key(*lu));
            }
            Step::Resize { .. }
            | Step::SetCache { .. }
            | Step::SetLimits { .. }
            | Step::SetRate { .. }
            | Step::SetSnapshots { .. }
            | Step::Bring { .. } => self.apply_to_device(step),
            Step::OpenDrive { drive } | Step::Exchange { drive } => {
                self.drives.insert(drive.uuid, drive.clone());
            }
            Step::CloseDevice { uuid, .. } => {
                self.devices.remove(uuid);
                self.drives.remove(uuid);
            }
            Step::RemoveBacking { uuid, .. } => {
                self.made.remove(uuid);
                self.leftovers.remove(uuid);
            }
            Step::MakePool { .. }
            | Step::OpenPool { .. }
            | Step::SetPool { .. }
            | Step::ClosePool { .. }
            | Step::RemovePool { .. }
            | Step::JoinPv { .. }
            | Step::LeavePv { .. }
            | Step::KeepPv { .. }
            | Step::SplitGroup { .. }
            | Step::ForgetPv { .. } => self.apply_to_pool(step),
            Step::OpenMapping { mapping, .. } => {
                self.mappings.insert(mapping.id.clone(), mapping.clone());
            }
            Step::CloseMapping { id, .. } => {
                self.mappings.remove(id);
                if !self.mappings.keys().any(|other| other.adapter == id.adapter) {
                    self.listening.remove(&id.adapter);
                }
            }
            Step::Listen { id, .. } => {
                self.listening.insert(id.clone());
            }
        }
    }

    fn apply_to_device(&mut self, step: &Step) {
        let (Step::Resize { uuid, .. }
        | Step::SetCache { uuid, .. }
        | Step::SetLimits { uuid, .. }
        | Step::SetRate { uuid, .. }
        | Step::SetSnapshots { uuid, .. }
        | Step::Bring { uuid, .. }) = step
        else {
            return;
        };
        let Some(device) = self.devices.get_mut(uuid) else { return };
        match step {
            Step::Resize { to, .. } => device.size = *to,
            Step::SetCache { to, .. } => device.cache = *to,
            Step::SetLimits { to, .. } => device.limits = *to,
            Step::SetSnapshots { to, .. } => device.snapshots.clone_from(to),
            Step::SetRate { to, .. } => {
                device.migration.iter_mut().for_each(|migration| migration.rate = *to);
            }
            _ => device.migration = None,
        }
    }

    fn apply_to_pool(&mut self, step: &Step) {
        match step {
            Step::MakePool { pool, .. } => {
                self.made.insert(pool.uuid);
            }
            Step::OpenPool { pool } => {
                self.pools.insert(pool.uuid, pool.clone());
                for pv in pool.pvs.iter().filter(|pv| !pv.standing.is_certain()) {
                    self.stand(pool.uuid, pv, PvStanding::Joining);
                }
            }
            Step::JoinPv { pool, pv, .. } | Step::KeepPv { pool, pv, .. } => {
                self.stand(*pool, pv, PvStanding::Member);
            }
            Step::LeavePv { pool, pv, .. } => self.stand(*pool, pv, PvStanding::Withdrawn),
            Step::SplitGroup { pool, pvs, .. } => {
                pvs.iter().for_each(|pv| self.stand(*pool, pv, PvStanding::Withdrawn));
            }
            Step::ForgetPv { pv, .. } => {
                self.made.remove(&pv.uuid);
                self.leftovers.remove(&pv.uuid);
            }
            Step::SetPool { uuid, to, .. } => {
                if let Some(pool) = self.pools.get_mut(uuid) {
                    pool.settings = *to;
                }
            }
            Step::ClosePool { uuid, .. } => {
                self.pools.remove(uuid);
            }
            Step::RemovePool { pool } => {
                self.made.remove(&pool.uuid);
                self.leftovers.remove(&pool.uuid);
            }
            _ => {}
        }
    }

    fn stand(&mut self, pool: Uuid, pv: &PoolPv, standing: PvStanding) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.stand(pv, standing);
        }
    }

    /// Devices and drives that are open.
    pub fn open(&self) -> impl Iterator<Item = Uuid> {
        self.devices.keys().chain(self.drives.keys()).copied()
    }

    /// Whether a device or a drive is open.
    pub fn is_open(&self, uuid: Uuid) -> bool {
        self.devices.contains_key(&uuid) || self.drives.contains_key(&uuid)
    }

    /// Takes note that a step failed and when to try again.
    pub fn fail(&mut self, step: &Step, retry_at: Duration) {
        self.busy.remove(&step.part());
        self.failed.insert(step.part(), retry_at);
    }

    /// Forgets failures of parts that a plan has nothing to do for any more.
    pub fn prune(&mut self, plan: &Plan) {
        let planned: BTreeSet<Part> = plan.steps.iter().map(|p| p.step.part()).collect();
        self.failed.retain(|part, _| planned.contains(part));
    }
}
