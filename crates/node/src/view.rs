//! What is wanted joined with what is, for listings and status. The picture that the control thread
//! publishes says what was begun and what failed; the engine's snapshot says what goes on inside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use cluster::Part;
use model::pool::{Evacuation, GroupBehind, MemberState, PoolAlert, PoolDisk};
use model::status::{
    AdapterState, Brought, ClientView, IscsiView, LuState, LuView, MappingView, Phase, Problem,
};
use model::target::target_name;
use model::{
    Backing, Client, Config, Drive, DriveView, Lu, Mapping, MappingId, MediumName, Pool, PoolPv,
    PoolView, PvGroup, PvPlace, PvStanding, Secrets, Size, Subject, Tray, Via,
};
use uuid::Uuid;
use volume::pool::home;

use crate::datadir::{lu_file, pool_file};
use crate::engine::{AdapterStatus, BroughtStatus, Health, PoolStatus, PvUse, Snapshot, Trouble};
use crate::reconcile::Failure;
use crate::room::{self, Room};
use crate::socket;
use crate::state::Media;
use crate::state::optical::no_medium;

/// The control thread's picture of the node.
#[derive(Debug, Clone)]
pub struct Published {
    pub config: Arc<Config>,
    /// The library of the node.
    pub media: Arc<Media>,
    pub phase: Phase,
    pub steps_pending: u64,
    pub failures: BTreeMap<Part, Failure>,
    pub pools: BTreeSet<Uuid>,
    /// Disks that have left pools, and have their labels still.
    pub left: Vec<(Uuid, PoolPv)>,
    /// Pools that LUs were removed from that have their space still, one for each of these.
    pub lus_left: Vec<Uuid>,
    pub devices: BTreeSet<Uuid>,
    pub mappings: BTreeSet<MappingId>,
    /// Only for who asks for them by name.
    pub secrets: Arc<Secrets>,
    /// The cluster's part in target names.
    pub cluster: String,
}

impl Default for Published {
    fn default() -> Published {
        Published {
            config: Arc::default(),
            media: Arc::default(),
            phase: Phase::Starting,
            steps_pending: 0,
            failures: BTreeMap::new(),
            pools: BTreeSet::new(),
            left: Vec::new(),
            lus_left: Vec::new(),
            devices: BTreeSet::new(),
            mappings: BTreeSet::new(),
            secrets: Arc::default(),
            cluster: String::new(),
        }
    }
}

/// Everything that a view is made of.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    pub published: &'a Published,
    pub snapshot: &'a Snapshot,
    pub lus: &'a Path,
    pub pools: &'a Path,
    pub run: &'a Path,
}

impl Picture<'_> {
    pub fn lu(&self, lu: &Lu) -> LuView {
        let part = Part::Device(lu.uuid);
        let is_open = self.published.devices.contains(&lu.uuid);
        let failures = &self.published.failures;
        // Without its pool it is nowhere.
        let pool = self.config().pool_of(lu).map(|pool| Part::Pool(pool.uuid));
        let failure = failures.get(&part).or_else(|| failures.get(&pool?));
        // Of the way into a pool nothing fails that clients would see.
        let of_way = failures.get(&Part::Migration(lu.uuid));
        let status = self.snapshot.devices.get(&lu.uuid);
        let subject = || Subject::Lu(lu.name.clone());
        let trouble = status.and_then(|status| status.problem.as_ref());
        let waits = status.and_then(|status| status.brought.as_ref()?.waits.as_ref());
        let trouble = trouble.or(waits);
        let health = status.map(|status| status.health).unwrap_or_default();
        let state = match (is_open, failure, health) {
            (true, _, Health::Works) => LuState::Online,
            (true, _, Health::Degraded) => LuState::Degraded,
            (true, _, Health::Failed) | (false, Some(_), _) => LuState::Failed,
            (false, None, _) => LuState::Pending,
        };
        let path = match &lu.backing {
            Backing::File => Some(lu_file(self.lus, lu.uuid).to_string_lossy().into_owned()),
            Backing::Adopted { path } => Some(path.clone()),
            Backing::Pool { .. } | Backing::Memory | Backing::Null => None,
        };
        LuView {
            lu: lu.clone(),
            state,
            path,
            allocated: status.and_then(|status| status.allocated),
            mapped_to: self.config().mappings_of_lu(&lu.name).map(Mapping::id).collect(),
            brought: status.and_then(|status| status.brought.as_ref()).map(brought),
            problem: problem(failure.or(of_way), trouble, subject),
        }
    }

    pub fn pool(&self, pool: &Pool) -> PoolView {
        let is_open = self.published.pools.contains(&pool.uuid);
        let failure = self.published.failures.get(&Part::Pool(pool.uuid));
        let status = self.snapshot.pools.get(&pool.uuid).filter(|_| is_open);
        let state = match (is_open, failure) {
            (true, _) => LuState::Online,
            (false, Some(_)) => LuState::Failed,
            (false, None) => LuState::Pending,
        };
        // Each failure group has one copy: the pool has what the smallest of them has.
        let groups: BTreeSet<u16> = pool.pvs.iter().map(|pv| pv.group.number).collect();
        let of_group = |group: u16, of: fn(&PvUse) -> u64| -> Option<u64> {
            let own = pool.pvs.iter().filter(|pv| pv.group.number == group);
            let here = own.filter_map(|pv| status?.disks.get(&pv.uuid)).map(of);
            here.reduce(|sum, one| sum + one)
        };
        let sum = |of: fn(&PvUse) -> u64| {
            let least = groups.iter().filter_map(|group| of_group(*group, of)).min();
            status.map(|_| Size(least.unwrap_or_default()))
        };
        let (free, granted) = (sum(|disk| disk.free.bytes()), sum(|disk| disk.used.bytes()));
        // What is free on a disk that leaves is nobody's.
        let size = sum(|disk| disk.free.bytes() + disk.used.bytes());
        let lus = || self.config().lus_in(&pool.name);
        let left = self.published.left.iter().filter(|(of, _)| *of == pool.uuid).map(|(_, pv)| pv);
        let promised = Size(lus().map(|lu| lu.size.bytes()).sum());
        let view = PoolView {
            pool: pool.clone(),
            state,
            size,
            free,
            granted,
            promised,
            overcommit: size.map(|size| ratio(promised, size)),
            lus: lus().map(|lu| lu.name.clone()).collect(),
            disks: pool.pvs.iter().chain(left).map(|pv| self.pool_disk(pool, pv, status)).collect(),
            alerts: Vec::new(),
            removals: status.map(|status| status.removals.clone()).unwrap_or_default(),
            behind: status.map(|status| behind(pool, status)).unwrap_or_default(),
            scrub: status.and_then(|status| status.scrub.clone()),
            problem: problem(failure, None, || Subject::Pool(pool.name.clone())),
        };
        let Space { alerts, problems } = Space::of(&view);
        let problem = view.problem.clone().or_else(|| problems.into_iter().next());
        PoolView { alerts, problem, ..view }
    }

    /// A pool can have too little in more than one way.
    fn pool_problems(&self, pool: &Pool) -> Vec<Problem> {
        let view = self.pool(pool);
        let more = Space::of(&view).problems;
        let more = more.into_iter().filter(|problem| Some(problem) != view.problem.as_ref());
        view.problem.iter().cloned().chain(more).collect()
    }

    fn pool_disk(&self, pool: &Pool, pv: &PoolPv, status: Option<&PoolStatus>) -> PoolDisk {
        let slab = pool.slab_size.bytes();
        let path = match &pv.place {
            PvPlace::Path { path } => path.clone(),
            PvPlace::File { .. } => pool_file(self.pools, pv.uuid).to_string_lossy().into_owned(),
            PvPlace::Missing => pv.to_string(),
        };
        let found = status.and_then(|status| status.disks.get(&pv.uuid));
        let (size, free) = found.map(|disk| (disk.size, disk.free)).unzip();
        let failure = self.published.failures.get(&Part::Pv(pv.uuid));
        let waits = status.and_then(|status| status.waits.get(&pv.uuid));
        let is_missing = status.is_some() && found.is_none() && pv.standing == PvStanding::Member;
        let missing = is_missing.then(|| missing(pool, &path));
        PoolDisk {
            uuid: pv.uuid,
            path,
            size,
            free,
            state: match pv.standing {
                PvStanding::Member if is_missing => MemberState::Missing,
                PvStanding::Member => MemberState::Member,
                PvStanding::Joining => MemberState::Joining,
                PvStanding::Leaving { .. } | PvStanding::Withdrawn | PvStanding::Splitting => {
                    MemberState::Leaving
                }
            },
            group: pv.group.name.clone(),
            evacuation: found.and_then(|disk| evacuation(pv.standing, disk.used, slab)),
            problem: problem(failure, waits.or(missing.as_ref()), || {
                Subject::Pool(pool.name.clone())
            }),
        }
    }

    pub fn drive(&self, drive: &Drive) -> DriveView {
        let is_open = self.published.devices.contains(&drive.uuid);
        let failure = self.published.failures.get(&Part::Device(drive.uuid));
        let status = self.snapshot.drives.get(&drive.uuid).cloned().unwrap_or_default();
        let subject = || Subject::Drive(drive.name.clone());
        let is_missing = |name: &&MediumName| !self.published.media.contains_key(*name);
        let missing = drive.medium.as_ref().filter(is_missing).map(no_medium);
        let missing = missing.map(|error| Trouble { message: error.message, next: error.next });
        let missing = missing.or(status.problem);
        let state = match (is_open, failure, &missing) {
            (true, None, None) => LuState::Online,
            (true, ..) => LuState::Degraded,
            (false, Some(_), _) => LuState::Failed,
            (false, None, _) => LuState::Pending,
        };
        DriveView {
            drive: drive.clone(),
            state,
            tray: if status.is_open { Tray::Open } else { Tray::Closed },
            loaded: status.is_loaded,
            locked_by: status.locked_by,
            mapped_to: self.config().mappings_of_lu(&drive.name).map(Mapping::id).collect(),
            problem: problem(failure, missing.as_ref(), subject),
        }
    }

    pub fn mapping(&self, mapping: &Mapping) -> MappingView {
        let (id, adapter) = (mapping.id(), mapping.adapter());
        let is_open = self.published.mappings.contains(&id);
        let failure = self.published.failures.get(&Part::Mapping(id));
        let status = self.snapshot.adapters.get(&adapter);
        let state = match (is_open, failure, status) {
            (true, _, Some(status)) => status.state,
            (true, _, None) => AdapterState::Listening,
            (false, Some(_), _) => AdapterState::Failed,
            (false, None, _) => AdapterState::Pending,
        };
        let trouble = status.and_then(|status| status.problem.as_ref());
        let (socket, target) = match mapping.via {
            Via::VhostUserBlk | Via::VhostUserScsi => {
                (Some(socket::path_of(self.run, &adapter).to_string_lossy().into_owned()), None)
            }
            Via::Iscsi => (None, Some(self.target(mapping))),
        };
        MappingView {
            mapping: mapping.clone(),
            is_drive: self.config().drive(&mapping.lu).is_some(),
            state,
            socket,
            target,
            session: status.and_then(|status| status.session.clone()),
            problem: problem(failure, trouble, || Subject::Adapter(adapter.clone())),
        }
    }

    fn target(&self, mapping: &Mapping) -> String {
        target_name(&self.published.cluster, &mapping.client)
    }

    pub fn client(&self, client: &Client) -> ClientView {
        let mappings = || self.config().mappings_of_client(&client.name);
        let target = mappings().find(|mapping| mapping.via == Via::Iscsi);
        ClientView {
            client: client.clone(),
            iscsi: target.map(|mapping| self.iscsi(mapping)),
            mappings: mappings().map(|mapping| self.mapping(mapping)).collect(),
        }
    }

    /// The adapter of an iSCSI mapping.
    fn iscsi(&self, mapping: &Mapping) -> IscsiView {
        let adapter = mapping.adapter();
        let status = self.snapshot.adapters.get(&adapter);
        IscsiView {
            adapter,
            target: self.target(mapping),
            portals: self.portals(),
            sessions: status.map(|status| status.sessions.clone()).unwrap_or_default(),
        }
    }

    /// Addresses that iSCSI is served on.
    pub fn portals(&self) -> Vec<String> {
        self.snapshot.portals.iter().map(ToString::to_string).collect()
    }

    /// Everything that is not as it should be.
    pub fn problems(&self) -> Vec<Problem> {
        let pools = self.config().pools.iter().flat_map(|pool| self.pool_problems(pool));
        let lus = self.config().lus.iter().filter_map(|lu| self.lu(lu).problem);
        let drives = self.config().drives.iter().filter_map(|drive| self.drive(drive).problem);
        let mappings = self.config().mappings.iter();
        let disks = self.config().pools.iter().flat_map(|pool| self.pool(pool).disks);
        pools
            .chain(disks.filter_map(|disk| disk.problem))
            .chain(lus)
            .chain(drives)
            .chain(mappings.filter_map(|mapping| self.mapping(mapping).problem))
            .chain(self.problems_of_removed())
            .collect()
    }

    /// Why what was removed is not all gone.
    fn problems_of_removed(&self) -> impl Iterator<Item = Problem> {
        let config = self.config();
        let is_removed = move |part: &Part| match part {
            Part::Device(uuid) => {
                let mut known = config.lus.iter().map(|lu| lu.uuid);
                let mut drives = config.drives.iter().map(|drive| drive.uuid);
                !known.any(|it| it == *uuid) && !drives.any(|it| it == *uuid)
            }
            Part::Pool(uuid) => config.pools.iter().all(|pool| pool.uuid != *uuid),
            _ => false,
        };
        let failures = self.published.failures.iter();
        let failures = failures.filter(move |(part, _)| is_removed(part));
        failures.filter_map(|(_, failure)| problem(Some(failure), None, || Subject::Node))
    }

    /// LUs that are as they should be.
    pub fn lus_online(&self) -> u64 {
        let lus = self.config().lus.iter();
        lus.filter(|lu| self.lu(lu).state == LuState::Online).count() as u64
    }

    /// Sessions of clients with adapters.
    pub fn sessions(&self) -> u64 {
        self.snapshot.adapters.values().map(AdapterStatus::sessions).sum()
    }

    fn config(&self) -> &Config {
        &self.published.config
    }
}

/// To hundredths, which is what anybody looks at.
fn ratio(promised: Size, size: Size) -> f64 {
    (promised.bytes() as f64 / size.bytes().max(1) as f64 * 100.0).round() / 100.0
}

fn brought(status: &BroughtStatus) -> Brought {
    let BroughtStatus { bytes, of, .. } = *status;
    Brought { bytes, of, percent: percent(bytes.bytes(), of.bytes()) }
}

/// Of nothing, all is done.
fn percent(done: u64, of: u64) -> u8 {
    (done * 100).checked_div(of).unwrap_or(100) as u8
}

/// How far failure groups are that lack something.
fn behind(pool: &Pool, status: &PoolStatus) -> Vec<GroupBehind> {
    let group = |it: &home::GroupBehind| {
        let PvGroup { number, name } = pool.group_numbered(it.group);
        let left = Size(it.lacking * pool.slab_size.bytes());
        GroupBehind { number, name, left, percent: percent(it.slabs - it.lacking, it.slabs) }
    };
    status.behind.iter().map(group).collect()
}

/// How far a disk is that is leaving, with so much on it still.
fn evacuation(standing: PvStanding, used: Size, slab: u64) -> Option<Evacuation> {
    let PvStanding::Leaving { slabs } = standing else { return None };
    let slabs_left = used.bytes() / slab.max(1);
    // More may have come between the wish and the moment from which nothing was granted there.
    let slabs = slabs.max(slabs_left);
    let done = slabs - slabs_left;
    Some(Evacuation {
        slabs,
        slabs_left,
        bytes: Size(slabs.saturating_mul(slab)),
        bytes_left: used,
        percent: percent(done, slabs),
    })
}

/// What an operator should know of the space of a pool.
#[derive(Default)]
struct Space {
    alerts: Vec<PoolAlert>,
    problems: Vec<Problem>,
}

impl Space {
    fn of(view: &PoolView) -> Space {
        let Some((size, free)) = view.size.zip(view.free) else { return Space::default() };
        let (name, settings) = (&view.pool.name, view.pool.settings);
        let room = Room::of(size, free, settings);
        let short = room.trouble(name, free, settings);
        let promised = room::overcommitted(name, (view.promised, size), settings);
        let is_too_much = promised.as_ref().map(|_| PoolAlert::Overcommitted);
        let problem = |Trouble { message, next }| Problem {
            subject: Subject::Pool(name.clone()),
            message,
            next,
        };
        Space {
            alerts: room.alert().into_iter().chain(is_too_much).collect(),
            problems: short.into_iter().chain(promised).map(problem).collect(),
        }
    }
}

/// A pool is used without one of its disks.
fn missing(pool: &Pool, path: &str) -> Trouble {
    Trouble {
        message: format!("pool '{}' is used without {path}, which is missing", pool.name),
        next: Some(format!("bring it back, or viaduct pool replace-pv {} {path} NEW", pool.name)),
    }
}

fn problem(
    failure: Option<&Failure>,
    trouble: Option<&Trouble>,
    subject: impl Fn() -> Subject,
) -> Option<Problem> {
    if let Some(Failure { error, .. }) = failure {
        let (message, next) = (error.message.clone(), error.next.clone());
        return Some(Problem { subject: subject(), message, next });
    }
    let Trouble { message, next } = trouble?.clone();
    Some(Problem { subject: subject(), message, next })
}
