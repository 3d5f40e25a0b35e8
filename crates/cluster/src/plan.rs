//! [`plan()`]: from what is wanted and what is to the steps between them.
//!
//! The steps come in the order in which they can be done: mappings close before their devices,
//! devices before their files are deleted and before their pool closes; pools open before the
//! devices in them, files are made before devices open, devices before their mappings. A
//! vhost-user-scsi adapter lets nobody in before all of its LUNs are there, as far as they can be:
//! to a guest that goes on after a restart, one that is missing is a disk that failed. An adapter
//! is one thing at a time: what is mapped there in another way than wanted closes before anything
//! opens there. A step that cannot begin yet says what it waits for. What is under way is not
//! planned again, and what failed waits for its time; both are reasons to wait, never reasons to
//! forget.
//!
//! ```text
//!   close mapping → close device → remove backing → close pool → remove pool
//!   make pool → open pool → join disk → empty disk
//!               open pool → create backing
//!     → open device → resize, set cache, set limits → open mapping → listen
//!       open drive → exchange medium ──────────────────────┘
//! ```
//!
//! LUs on their way into a pool: `migrate`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use model::{
    AdapterId, Backing, Cache, Leftover, Limits, LuName, MappingId, Pool, PoolBecomes, PoolName,
    PoolPv, PoolSettings, PvGroup, PvStanding, Size, SocketOwner, Via,
};
use uuid::Uuid;

use crate::actual::{Actual, Part};
use crate::desired::{Desired, DeviceSpec, DriveSpec, MappingSpec, OriginSpec};

/// One thing to do. Doing it twice is as good as doing it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    CloseMapping {
        id: MappingId,
        device: Uuid,
    },
    /// A drive is closed in the same way.
    CloseDevice {
        uuid: Uuid,
        name: LuName,
    },
    RemoveBacking {
        uuid: Uuid,
        /// The pool that its slabs go back to. None: it has a file, or its pool goes as a whole.
        pool: Option<Uuid>,
    },
    ClosePool {
        uuid: Uuid,
        name: PoolName,
    },
    /// Takes its disks out of a pool that was removed.
    RemovePool {
        pool: Pool,
    },
    /// Labels its disks if it is new; otherwise they are found, or it fails.
    MakePool {
        pool: Pool,
        is_new: bool,
    },
    OpenPool {
        pool: Pool,
    },
    SetPool {
        uuid: Uuid,
        name: PoolName,
        to: PoolSettings,
    },
    /// A disk becomes one of an open pool. It is labelled if that was asked for just now.
    JoinPv {
        pool: Uuid,
        name: PoolName,
        pv: PoolPv,
        is_new: bool,
    },
    /// Brings what is on a disk to the others of its pool, and then takes it out.
    LeavePv {
        pool: Uuid,
        name: PoolName,
        pv: PoolPv,
    },
    /// A disk that was to leave stays.
    KeepPv {
        pool: Uuid,
        name: PoolName,
        pv: PoolPv,
    },
    /// Takes a failure group out of a pool, of which the others have everything; it may become a
    /// pool itself.
    SplitGroup {
        pool: Uuid,
        name: PoolName,
        group: PvGroup,
        pvs: Vec<PoolPv>,
        becomes: Option<PoolBecomes>,
    },
    /// Takes the label off a disk that has left its pool.
    ForgetPv {
        pool: Uuid,
        pv: PoolPv,
    },
    CreateBacking {
        device: DeviceSpec,
    },
    /// Makes the part of a pool that an LU is to be brought into, over what it is in.
    MakePart {
        device: DeviceSpec,
    },
    /// Serves an open LU from its pool, over what it was in.
    EnterPool {
        device: DeviceSpec,
    },
    /// Brings what is there into the pool.
    Bring {
        uuid: Uuid,
        name: LuName,
    },
    /// How fast.
    SetRate {
        uuid: Uuid,
        name: LuName,
        to: Size,
    },
    /// Deletes what an LU has left where it is not any more.
    RemoveMoved {
        lu: Uuid,
        from: Moved,
    },
    OpenDevice {
        device: DeviceSpec,
    },
    Resize {
        uuid: Uuid,
        name: LuName,
        from: Size,
        to: Size,
    },
    SetCache {
        uuid: Uuid,
        name: LuName,
        to: Cache,
    },
    SetLimits {
        uuid: Uuid,
        name: LuName,
        to: Limits,
    },
    /// Other snapshots are wanted than before.
    SetSnapshots {
        uuid: Uuid,
        name: LuName,
        to: BTreeMap<Uuid, String>,
    },
    OpenDrive {
        drive: DriveSpec,
    },
    /// Puts into an open drive what the spec says: another medium, or none.
    Exchange {
        drive: DriveSpec,
    },
    OpenMapping {
        mapping: MappingSpec,
        lu: LuName,
    },
    Listen {
        id: AdapterId,
        socket_owner: Option<SocketOwner>,
    },
}

/// Where an LU has left something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    File,
    /// Its slabs of this pool.
    Pool(Uuid),
    /// The pool itself is gone.
    Nowhere,
}

/// Why a step cannot begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A step on the same part is under way.
    Busy(Part),
    /// It failed, and is tried again at this time.
    Retry(Duration),
    /// An earlier step of this plan must be done.
    Earlier(Part),
}

/// A step with the reason why it cannot begin, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub step: Step,
    pub wait: Option<Wait>,
}

/// The steps from what is to what is wanted. Empty when there is nothing left to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The revision of the desired state that this leads to.
    pub revision: u64,
    pub steps: Vec<Planned>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps that can begin now.
    pub fn ready(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|planned| planned.wait.is_none()).map(|planned| &planned.step)
    }

    /// When the first of the failed steps is to be tried again.
    pub fn retry_at(&self) -> Option<Duration> {
        let times = self.steps.iter().filter_map(|planned| match planned.wait {
            Some(Wait::Retry(at)) => Some(at),
            _ => None,
        });
        times.min()
    }
}

/// What leads from `actual` to `desired` at the time `now`.
pub fn plan(desired: &Desired, actual: &Actual, now: Duration) -> Plan {
    let mut planner = Planner { desired, actual, now, steps: Vec::new() };
    planner.close_mappings();
    planner.close_devices();
    planner.remove_backings();
    planner.close_pools();
    planner.remove_pools();
    planner.forget_pvs();
    planner.open_pools();
    planner.change_pools();
    planner.open_devices();
    planner.open_drives();
    planner.open_mappings();
    planner.listen();
    Plan { revision: desired.revision, steps: planner.steps }
}

struct Planner<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    now: Duration,
    steps: Vec<Planned>,
}

impl Planner<'_> {
    fn close_mappings(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (id, mapping) in &actual.mappings {
            let wanted = desired.mappings.get(id);
            let stays = wanted.is_some_and(|wanted| wanted.is_change_in_place(mapping));
            if stays && !self.device_closes(mapping.device) {
                continue;
            }
            self.push(Step::CloseMapping { id: id.clone(), device: mapping.device }, None);
        }
    }

    fn close_devices(&mut self) {
        let actual = self.actual;
        // A mapping that is just being opened holds its device too.
        let users: Vec<&MappingSpec> = open_or_opening(actual).collect();
        let devices = actual.devices.values().map(|device| (device.uuid, &device.name));
        let drives = actual.drives.values().map(|drive| (drive.uuid, &drive.name));
        for (uuid, name) in devices.chain(drives) {
            if !self.device_closes(uuid) {
                continue;
            }
            let user = users.iter().find(|mapping| mapping.device == uuid);
            let wait = user.map(|mapping| Wait::Earlier(Part::Mapping(mapping.id.clone())));
            let clone = clones(actual, uuid).next();
            let wait = wait.or(clone.map(|clone| Wait::Earlier(Part::Device(clone))));
            self.push(Step::CloseDevice { uuid, name: name.clone() }, wait);
        }
    }

    fn remove_backings(&mut self) {
        let actual = self.actual;
        for (uuid, leftover) in &actual.leftovers {
            let pool = match leftover {
                Leftover::File => None,
                // Of a pool that goes, nothing has to be given back.
                Leftover::Lu { pool } => self.desired.pools.contains_key(pool).then_some(*pool),
                Leftover::Pool { .. } | Leftover::Pv { .. } => continue,
                &Leftover::Moved { lu, pool } => {
                    self.remove_moved(lu, pool);
                    continue;
                }
            };
            // Never, whatever the notes say, the file of an LU that is wanted.
            if self.desired.devices.contains_key(uuid) {
                continue;
            }
            let is_open = actual.devices.contains_key(uuid);
            let wait = is_open.then_some(Wait::Earlier(Part::Device(*uuid)));
            let wait = wait.or(pool.and_then(|pool| self.wait_for_pool(pool)));
            self.push(Step::RemoveBacking { uuid: *uuid, pool }, wait);
        }
    }

    fn close_pools(&mut self) {
        let actual = self.actual;
        for (uuid, pool) in &actual.pools {
            if !self.pool_closes(*uuid) {
                continue;
            }
            let user = users_of_pool(actual, *uuid).next();
            let wait = user.map(|user| Wait::Earlier(Part::Device(user)));
            self.push(Step::ClosePool { uuid: *uuid, name: pool.name.clone() }, wait);
        }
    }

    fn remove_pools(&mut self) {
        let actual = self.actual;
        for (uuid, leftover) in &actual.leftovers {
            let Leftover::Pool { pool } = leftover else { continue };
            if self.desired.pools.contains_key(uuid) {
                continue;
            }
            let is_open = actual.pools.contains_key(uuid);
            let wait = is_open.then_some(Wait::Earlier(Part::Pool(*uuid)));
            self.push(Step::RemovePool { pool: pool.clone() }, wait);
        }
    }

    fn forget_pvs(&mut self) {
        let actual = self.actual;
        for (uuid, leftover) in &actual.leftovers {
            let Leftover::Pv { pool, pv } = leftover else { continue };
            let is_its = |pool: &Pool| pool.standing(*uuid).is_some();
            if self.desired.pools.values().any(is_its) {
                continue;
            }
            let is_busy = actual.busy.contains_key(&Part::Pool(*pool));
            let wait = is_busy.then_some(Wait::Earlier(Part::Pool(*pool)));
            self.push(Step::ForgetPv { pool: *pool, pv: pv.clone() }, wait);
        }
    }

    fn open_pools(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (uuid, pool) in &desired.pools {
            let closes = self.pool_closes(*uuid);
            if let Some(open) = actual.pools.get(uuid).filter(|_| !closes) {
                if open.settings != pool.settings {
                    let (uuid, name, to) = (*uuid, pool.name.clone(), pool.settings);
                    self.push(Step::SetPool { uuid, name, to }, None);
                }
                continue;
            }
            let earlier = Wait::Earlier(Part::Pool(*uuid));
            let closes = closes.then(|| earlier.clone());
            let is_unmade = !actual.made.contains(uuid);
            if is_unmade {
                let is_new = desired.new_pools.contains(uuid);
                self.push(Step::MakePool { pool: pool.clone(), is_new }, closes.clone());
            }
            let wait = closes.or(is_unmade.then_some(earlier));
            self.push(Step::OpenPool { pool: pool.clone() }, wait);
        }
    }

    /// Disks of open pools that join, leave, or stay after all. Room that is to come comes first.
    fn change_pools(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (uuid, pool) in &desired.pools {
            let Some(open) = actual.pools.get(uuid).filter(|_| !self.pool_closes(*uuid)) else {
                continue;
            };
            let (name, wait) = (&pool.name, self.wait_for_pool(*uuid));
            let is_joining = |pv: &&PoolPv| {
                let is_in = open.standing(pv.uuid) == Some(PvStanding::Member);
                pv.standing == PvStanding::Joining && !is_in
            };
            let splits = |pv: &&PoolPv| {
                let has_left = open.standing(pv.uuid) == Some(PvStanding::Withdrawn);
                pv.standing == PvStanding::Splitting && !has_left
            };
            if let Some(PoolPv { group, .. }) = pool.pvs.iter().find(splits) {
                let (uuid, name, group) = (*uuid, name.clone(), group.clone());
                let pvs = pool.group_pvs(&group).cloned().collect();
                let becomes = pool.becomes.clone();
                let split = Step::SplitGroup { pool: uuid, name, group, pvs, becomes };
                self.push(split, wait.clone());
            }
            let joining = pool.pvs.iter().find(is_joining);
            let joining = joining.map(|pv| Wait::Earlier(Part::Pv(pv.uuid)));
            for pv in &pool.pvs {
                let is = open.standing(pv.uuid);
                let (uuid, name, pv) = (*uuid, name.clone(), pv.clone());
                let has_left = is == Some(PvStanding::Withdrawn);
                match pv.standing {
                    PvStanding::Joining if is_joining(&&pv) => {
                        let is_new = desired.new_pools.contains(&pv.uuid);
                        self.push(Step::JoinPv { pool: uuid, name, pv, is_new }, wait.clone());
                    }
                    PvStanding::Leaving { .. } | PvStanding::Withdrawn if !has_left => {
                        let wait = wait.clone().or(joining.clone());
                        self.push(Step::LeavePv { pool: uuid, name, pv }, wait);
                    }
                    PvStanding::Member if is.is_some_and(|it| it.is_going()) && !has_left => {
                        self.push(Step::KeepPv { pool: uuid, name, pv }, None);
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a step waits for that works in this pool.
    fn wait_for_pool(&self, pool: Uuid) -> Option<Wait> {
        let is_open = self.actual.pools.contains_key(&pool) && !self.pool_closes(pool);
        let part = Part::Pool(pool);
        let is_at_rest = is_open && !self.actual.busy.contains_key(&part);
        (!is_at_rest).then_some(Wait::Earlier(part))
    }

    fn open_devices(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (uuid, device) in &desired.devices {
            let open = actual.devices.get(uuid).filter(|_| !self.device_closes(*uuid));
            if let Some(open) = open {
                self.change_device(device, open);
                continue;
            }
            let earlier = Wait::Earlier(Part::Device(*uuid));
            let closes = actual.devices.contains_key(uuid).then(|| earlier.clone());
            let closes = closes.or(device.pool.and_then(|pool| self.wait_for_pool(pool)));
            let closes = closes.or(self.wait_for_origin(device));
            let is_ours = matches!(device.backing, Backing::File | Backing::Pool { .. });
            let is_unmade = is_ours && !actual.made.contains(uuid);
            if is_unmade {
                self.push(Step::CreateBacking { device: device.clone() }, closes.clone());
            }
            let wait = closes.or(is_unmade.then_some(earlier));
            self.push(Step::OpenDevice { device: device.clone() }, wait);
        }
    }

    /// A clone is opened on what it is a clone of.
    fn wait_for_origin(&self, device: &DeviceSpec) -> Option<Wait> {
        let OriginSpec { device: origin, .. } = device.origin?;
        let is_open = self.actual.devices.contains_key(&origin) && !self.device_closes(origin);
        let part = Part::Device(origin);
        let is_at_rest = is_open && !self.actual.busy.contains_key(&part);
        (!is_at_rest).then_some(Wait::Earlier(part))
    }

    fn change_device(&mut self, device: &DeviceSpec, open: &DeviceSpec) {
        let (uuid, name) = (device.uuid, device.name.clone());
        if device.enters(open) {
            // Everything else is changed there.
            let wait = device.pool.and_then(|pool| self.wait_for_pool(pool));
            return self.push(Step::EnterPool { device: device.clone() }, wait);
        }
        self.migrate_device(device, open);
        let resizes = device.size != open.size;
        if resizes {
            let (from, to) = (open.size, device.size);
            self.push(Step::Resize { uuid, name: name.clone(), from, to }, None);
        }
        if device.cache != open.cache {
            let wait = resizes.then_some(Wait::Earlier(Part::Device(uuid)));
            self.push(Step::SetCache { uuid, name: name.clone(), to: device.cache }, wait);
        }
        if device.limits != open.limits {
            let is_second = resizes || device.cache != open.cache;
            let wait = is_second.then_some(Wait::Earlier(Part::Device(uuid)));
            self.push(Step::SetLimits { uuid, name: name.clone(), to: device.limits }, wait);
        }
        if device.snapshots != open.snapshots {
            let (snapshots, migration) = (open.snapshots.clone(), open.migration.clone());
            let outdated = open.outdated;
            let is_later = DeviceSpec { snapshots, migration, outdated, ..device.clone() } != *open;
            let wait = is_later.then_some(Wait::Earlier(Part::Device(uuid)));
            self.push(Step::SetSnapshots { uuid, name, to: device.snapshots.clone() }, wait);
        }
    }

    fn open_drives(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (uuid, drive) in &desired.drives {
            let closes = self.device_closes(*uuid);
            match actual.drives.get(uuid) {
                Some(open) if !closes && open == drive => {}
                Some(_) if !closes => self.push(Step::Exchange { drive: drive.clone() }, None),
                _ => {
                    let wait = closes.then_some(Wait::Earlier(Part::Device(*uuid)));
                    self.push(Step::OpenDrive { drive: drive.clone() }, wait);
                }
            }
        }
    }

    fn open_mappings(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        // Whatever is still to be done to a device, or is being done, comes before its mappings.
        let planned = self.steps.iter().map(|planned| planned.step.part());
        let busy = actual.busy.keys().filter(|part| matches!(part, Part::Device(_)));
        let unsettled: BTreeSet<Part> = planned.chain(busy.cloned()).collect();
        for (id, mapping) in &desired.mappings {
            let Some(name) = desired.name(mapping.device) else { continue };
            let (own, below) = (Part::Mapping(id.clone()), Part::Device(mapping.device));
            let closes = unsettled.contains(&own);
            if actual.mappings.get(id) == Some(mapping) && !closes {
                continue;
            }
            let is_open = actual.is_open(mapping.device);
            let wait = if closes {
                Some(Wait::Earlier(own))
            } else if !is_open || unsettled.contains(&below) {
                Some(Wait::Earlier(below))
            } else {
                let other = at_adapter(actual, id).find(|other| !other.is_alike(mapping));
                other.map(|other| Wait::Earlier(Part::Mapping(other.id.clone())))
            };
            let (mapping, lu) = (mapping.clone(), name.clone());
            self.push(Step::OpenMapping { mapping, lu }, wait);
        }
    }

    fn listen(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        let wanted = desired.mappings.values().filter(|it| it.via == Via::VhostUserScsi);
        let mut seen = BTreeSet::new();
        for mapping in wanted {
            let id = &mapping.id.adapter;
            if actual.listening.contains(id) || !seen.insert(id) {
                continue;
            }
            let at_adapter = || desired.mappings.values().filter(|it| it.id.adapter == *id);
            let is_open = |it: &MappingSpec| actual.mappings.get(&it.id) == Some(it);
            // What failed is tried again, and the others do not wait for it.
            let has_failed = |it: &MappingSpec| {
                let parts = [Part::Mapping(it.id.clone()), Part::Device(it.device)];
                parts.iter().any(|part| actual.failed.contains_key(part))
            };
            let missing = at_adapter().find(|it| !is_open(it) && !has_failed(it));
            let missing =
                missing.or_else(|| at_adapter().all(|it| !is_open(it)).then_some(mapping));
            let wait = missing.map(|it| Wait::Earlier(Part::Mapping(it.id.clone())));
            let socket_owner = mapping.socket_owner.clone();
            self.push(Step::Listen { id: id.clone(), socket_owner }, wait);
        }
    }

    /// Whether an open device or drive is to be closed: for good, or to be opened in another way.
    fn device_closes(&self, uuid: Uuid) -> bool {
        let (desired, actual) = (self.desired, self.actual);
        if let Some(open) = actual.devices.get(&uuid) {
            let wanted = desired.devices.get(&uuid);
            return wanted.is_none_or(|wanted| !wanted.is_change_in_place(open))
                || open.pool.is_some_and(|pool| self.pool_closes(pool))
                || open.origin.is_some_and(|origin| self.device_closes(origin.device));
        }
        let Some(open) = actual.drives.get(&uuid) else { return false };
        let wanted = desired.drives.get(&uuid);
        wanted.is_none_or(|wanted| !wanted.is_change_in_place(open))
    }

    /// Whether an open pool is to be closed: for good, or to be opened in another way.
    fn pool_closes(&self, uuid: Uuid) -> bool {
        let open = self.actual.pools.get(&uuid);
        let is_alike = |open: &Pool, wanted: &Pool| {
            let Pool { pvs, settings, becomes, .. } = wanted.clone();
            Pool { pvs, settings, becomes, ..open.clone() } == *wanted
        };
        let wanted = self.desired.pools.get(&uuid);
        open.is_some_and(|open| wanted.is_none_or(|wanted| !is_alike(open, wanted)))
    }

    fn push(&mut self, step: Step, wait: Option<Wait>) {
        let part = step.part();
        let busy = self.actual.busy.contains_key(&part).then(|| Wait::Busy(part.clone()));
        let retry = self.actual.failed.get(&part).filter(|at| **at > self.now);
        let wait = busy.or(wait).or(retry.map(|at| Wait::Retry(*at)));
        self.steps.push(Planned { step, wait });
    }
}

/// What stands on snapshots of a device and is open, or just being opened.
fn clones(actual: &Actual, device: Uuid) -> impl Iterator<Item = Uuid> {
    let opening = actual.busy.values().filter_map(|step| match step {
        Step::OpenDevice { device } => Some(device),
        _ => None,
    });
    let all = actual.devices.values().chain(opening);
    all.filter(move |it| it.origin.is_some_and(|origin| origin.device == device)).map(|it| it.uuid)
}

/// What is open in a pool, or just being worked on there.
fn users_of_pool(actual: &Actual, pool: Uuid) -> impl Iterator<Item = Uuid> {
    let open = actual.devices.values().map(|device| (device.uuid, device.pool));
    let busy = actual.busy.values().filter_map(|step| match step {
        Step::CreateBacking { device }
        | Step::OpenDevice { device }
        | Step::MakePart { device }
        | Step::EnterPool { device } => Some((device.uuid, device.pool)),
        Step::RemoveMoved { lu, from: Moved::Pool(pool) } => Some((*lu, Some(*pool))),
        Step::RemoveBacking { uuid, pool } => Some((*uuid, *pool)),
        _ => None,
    });
    open.chain(busy).filter(move |(_, of)| *of == Some(pool)).map(|(uuid, _)| uuid)
}

/// Mappings that are just being opened.
fn opening(actual: &Actual) -> impl Iterator<Item = &MappingSpec> {
    actual.busy.values().filter_map(|step| match step {
        Step::OpenMapping { mapping, .. } => Some(mapping),
        _ => None,
    })
}

fn open_or_opening(actual: &Actual) -> impl Iterator<Item = &MappingSpec> {
    actual.mappings.values().chain(opening(actual))
}

/// The same at the adapter that `id` names, wherever there.
fn at_adapter<'a>(actual: &'a Actual, id: &MappingId) -> impl Iterator<Item = &'a MappingSpec> {
    let adapter = id.adapter.clone();
    let [first, last] = [0, u16::MAX].map(|lun| MappingId { adapter: adapter.clone(), lun });
    let open = actual.mappings.range(first..=last).map(|(_, mapping)| mapping);
    open.chain(opening(actual).filter(move |mapping| mapping.id.adapter == adapter))
}

impl Step {
    /// Whether it may take hours, so that nobody waits for it.
    pub fn is_long(&self) -> bool {
        matches!(self, Step::LeavePv { .. } | Step::Bring { .. })
    }

    /// What the step works on.
    pub fn part(&self) -> Part {
        match self {
            Step::CloseMapping { id, .. } => Part::Mapping(id.clone()),
            Step::OpenMapping { mapping, .. } => Part::Mapping(mapping.id.clone()),
            Step::Listen { id, .. } => Part::Adapter(id.clone()),
            Step::CloseDevice { uuid, .. }
            | Step::RemoveBacking { uuid, .. }
            | Step::Resize { uuid, .. }
            | Step::SetCache { uuid, .. }
            | Step::SetLimits { uuid, .. }
            | Step::SetRate { uuid, .. }
            | Step::SetSnapshots { uuid, .. } => Part::Device(*uuid),
            Step::CreateBacking { device }
            | Step::OpenDevice { device }
            | Step::EnterPool { device } => Part::Device(device.uuid),
            Step::MakePart { device } => Part::Migration(device.uuid),
            Step::Bring { uuid, .. } => Part::Migration(*uuid),
            Step::RemoveMoved { lu, .. } => Part::Device(Leftover::moved_key(*lu)),
            Step::OpenDrive { drive } | Step::Exchange { drive } => Part::Device(drive.uuid),
            Step::ClosePool { uuid, .. } | Step::SetPool { uuid, .. } => Part::Pool(*uuid),
            Step::KeepPv { pool, .. } | Step::SplitGroup { pool, .. } => Part::Pool(*pool),
            Step::JoinPv { pv, .. } | Step::LeavePv { pv, .. } | Step::ForgetPv { pv, .. } => {
                Part::Pv(pv.uuid)
            }
            Step::MakePool { pool, .. } | Step::OpenPool { pool } | Step::RemovePool { pool } => {
                Part::Pool(pool.uuid)
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CloseMapping { id, .. } => write!(f, "close mapping {id}"),
            Step::CloseDevice { name, .. } => write!(f, "close device {name}"),
            Step::RemoveBacking { uuid, pool: Some(_) } => {
                write!(f, "give the slabs of removed {uuid} back")
            }
            Step::RemoveBacking { uuid, .. } => write!(f, "delete the file of removed {uuid}"),
            Step::ClosePool { name, .. } => write!(f, "close pool {name}"),
            Step::RemovePool { pool } => write!(f, "take the disks out of pool {}", pool.name),
            Step::MakePool { pool, is_new: true } => write!(f, "make pool {}", pool.name),
            Step::MakePool { pool, .. } => write!(f, "find pool {}", pool.name),
            Step::OpenPool { pool } => write!(f, "open pool {}", pool.name),
            Step::JoinPv { name, pv, .. } => write!(f, "add disk {pv} to pool {name}"),
            Step::LeavePv { name, pv, .. } => write!(f, "take disk {pv} out of pool {name}"),
            Step::KeepPv { name, pv, .. } => write!(f, "keep disk {pv} in pool {name}"),
            Step::SplitGroup { name, group, becomes: None, .. } => {
                write!(f, "split {group} off pool {name}")
            }
            Step::SplitGroup { name, group, becomes: Some(new), .. } => {
                write!(f, "split {group} off pool {name} as pool {}", new.name)
            }
            Step::ForgetPv { pv, .. } => write!(f, "take the label off disk {pv}"),
            Step::SetPool { name, .. } => write!(f, "change the settings of pool {name}"),
            Step::CreateBacking { device: DeviceSpec { name, size, pool: Some(_), .. } } => {
                write!(f, "make {name} in its pool ({size})")
            }
            Step::CreateBacking { device } => {
                write!(f, "make the file of {} ({})", device.name, device.size)
            }
            Step::MakePart { device } => {
                write!(f, "make what {} is brought into ({})", device.name, device.size)
            }
            Step::EnterPool { device } => {
                write!(f, "serve {} from {} ({})", device.name, device.backing, device.size)
            }
            Step::Bring { name, .. } => write!(f, "bring {name} into its pool"),
            Step::SetRate { name, .. } => write!(f, "set how fast {name} is brought into its pool"),
            Step::RemoveMoved { lu, .. } => write!(f, "delete what {lu} has left"),
            Step::OpenDevice { device } => {
                write!(f, "open device {} ({})", device.name, device.backing)
            }
            Step::Resize { name, from, to, .. } => {
                write!(f, "resize device {name} from {from} to {to}")
            }
            Step::SetCache { name, to, .. } => write!(f, "set the cache of device {name} to {to}"),
            Step::SetLimits { name, .. } => write!(f, "set the limits of device {name}"),
            Step::SetSnapshots { name, to, .. } => {
                write!(f, "keep {} snapshots of device {name}", to.len())
            }
            Step::OpenDrive { drive } => write!(f, "open drive {}", drive.name),
            Step::Exchange { drive: DriveSpec { name, medium: Some(medium), .. } } => {
                write!(f, "load {} into drive {name}", medium.name)
            }
            Step::Exchange { drive } => write!(f, "take the medium out of drive {}", drive.name),
            Step::OpenMapping { mapping, lu } => {
                write!(f, "open {} mapping {} of {lu}", mapping.via, mapping.id)
            }
            Step::Listen { id, .. } => write!(f, "listen for the client of adapter {id}"),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Busy(part) => write!(f, "a step on {part} is under way"),
            Wait::Retry(at) => write!(f, "tried again at {:.1} s", at.as_secs_f64()),
            Wait::Earlier(part) => write!(f, "waits for {part}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}: {} steps", self.revision, self.steps.len())?;
        for Planned { step, wait } in &self.steps {
            write!(f, "\n  {step}")?;
            if let Some(wait) = wait {
                write!(f, " ({wait})")?;
            }
        }
        Ok(())
    }
}

mod migrate;
#[cfg(test)]
mod tests;
