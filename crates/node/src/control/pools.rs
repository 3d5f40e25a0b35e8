//! Changes of pools, on their way into the configuration.

use cluster::Step;
use model::lu::Forced;
use model::{
    ApiError, Config, LuName, PoolCreate, PoolName, PoolSettingsChange, PoolSplit, PvAdd, PvGroup,
    Severity, Subject,
};
use uuid::Uuid;

use super::{Control, Prepared, none};
use crate::engine::{ForceDone, Made, Report, SeenNow, SeenPool};
use crate::state::pool_force::force_mark;
use crate::state::pool_import::Takeover;
use crate::state::pools::Found;
use crate::state::{ops, pool_force, pool_import, pool_pvs, pool_split, pools};

/// A change of pools.
#[derive(Debug, Clone)]
pub enum PoolChange {
    /// With what was found on its disks.
    Create(PoolCreate, Vec<Found>),
    Set(PoolName, PoolSettingsChange),
    Remove(PoolName),
    /// With what was found on its disks, and what is known of them if one leaves.
    AddPvs(PoolName, PvAdd, Vec<Found>, Option<pool_pvs::Load>),
    RemovePv(PoolName, String, pool_pvs::Wish),
    /// A failure group leaves; with what is known of the others, nothing while it is not open.
    Split(PoolName, PoolSplit, Option<pool_split::Others>),
    Import(Box<Takeover>),
    /// It is to be opened with this failure group, which lacks something.
    Force(PoolName, PvGroup),
}

impl Control {
    pub(super) fn prepare_pool(
        &self,
        config: &Config,
        change: PoolChange,
    ) -> Result<Prepared, ApiError> {
        match change {
            PoolChange::Create(request, found) => {
                let uuid = || self.parts.world.uuid();
                let (next, marks) = pools::pool_create(config, &request, &found, uuid)?;
                let message = format!("pool '{}' was made", request.name);
                let name = request.name;
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-created", message) })
            }
            PoolChange::Set(name, change) => {
                let next = pools::pool_set(config, &name, change)?;
                let message = format!("pool '{name}' has other settings");
                Ok(Prepared::pool(next, name, "pool-changed", message))
            }
            PoolChange::Remove(name) => {
                let (next, marks) = pools::pool_remove(config, &name)?;
                let message = format!("pool '{name}' was removed");
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-removed", message) })
            }
            PoolChange::AddPvs(name, request, found, load) => {
                let uuid = || self.parts.world.uuid();
                let found = (&found[..], load);
                let (next, marks) = pool_pvs::add(config, &name, &request, found, uuid)?;
                let message = match request.replaces {
                    Some(old) => format!("disk {old} of pool '{name}' is being replaced"),
                    None => format!("disks are being added to pool '{name}'"),
                };
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-disk-added", message) })
            }
            PoolChange::RemovePv(name, which, wish) => {
                let next = pool_pvs::remove(config, &name, &which, wish)?;
                let (kind, message) = match wish {
                    pool_pvs::Wish::Leave(_) => {
                        ("pool-disk-leaves", format!("disk {which} is leaving pool '{name}'"))
                    }
                    pool_pvs::Wish::Stay => {
                        ("pool-disk-stays", format!("disk {which} stays in pool '{name}'"))
                    }
                };
                Ok(Prepared::pool(next, name, kind, message))
            }
            PoolChange::Split(name, request, others) => {
                let uuid = || self.parts.world.uuid();
                let (next, group) = pool_split::split(config, &name, &request, (others, uuid))?;
                let becomes = request.name.map(|new| format!(" as pool '{new}'"));
                let becomes = becomes.unwrap_or_default();
                let message = format!("{group} is being split off pool '{name}'{becomes}");
                Ok(Prepared::pool(next, name, "pool-splits", message))
            }
            PoolChange::Force(name, group) => {
                let is_open = |uuid: Uuid| self.reconciler.actual().pools.contains_key(&uuid);
                let (next, marks) = pool_force::pool_force(config, &name, (&group, is_open))?;
                let message = format!("pool '{name}' is to go on with what {group} has of it");
                Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-to-be-forced", message) })
            }
            PoolChange::Import(takeover) => self.prepare_takeover(config, &takeover),
        }
    }

    fn prepare_takeover(
        &self,
        config: &Config,
        takeover: &pool_import::Takeover,
    ) -> Result<Prepared, ApiError> {
        let uuid = || self.parts.world.uuid();
        let (next, marks) = pool_import::import(config, takeover, uuid)?;
        let pool = next.pools.iter().find(|pool| pool.uuid == takeover.seen.uuid);
        let name = pool.map(|pool| pool.name.clone());
        let name = name.ok_or_else(|| ApiError::failed("nothing was imported"))?;
        let lus = next.lus_in(&name).count();
        let message = format!("pool '{name}' was imported with {lus} LUs");
        Ok(Prepared { marks, ..Prepared::pool(next, name, "pool-imported", message) })
    }

    /// A pool is open. If it was forced, that is told before the wish is forgotten: otherwise
    /// nobody might ever hear of it. And no wish may be found one day when others are missing: one
    /// that came while the pool was being opened, or when it lacked nothing any more, ends as well.
    pub(super) fn pool_opened(&mut self, step: &Step, made: Option<&Made>) -> Result<(), ApiError> {
        let Step::OpenPool { pool } = step else { return Ok(()) };
        if let Some(Made::Forced(ForceDone { group, is_forced: true })) = made {
            let (name, group) = (&pool.name, pool.group_numbered(*group));
            let message = format!(
                "pool '{name}' goes on with what {group} has of it; what only others had is not \
                 there until they are back"
            );
            let (subject, kind) = (Subject::Pool(name.clone()), "pool-forced");
            self.report(Report { severity: Severity::Warning, subject, kind, message, next: None });
        }
        self.parts.state.mark(force_mark(pool.uuid, None)?)
    }

    /// Begins a step of pools and their disks.
    pub(super) fn begin_in_pool(&self, step: &Step) {
        let engine = &self.parts.engine;
        match step {
            Step::MakePool { pool, is_new } => {
                engine.make_pool(pool, *is_new, self.done(step, Some));
            }
            Step::OpenPool { pool } => {
                let made = |done: Option<ForceDone>| done.map(Made::Forced);
                engine.open_pool(pool, self.done(step, made));
            }
            Step::SetPool { uuid, to, .. } => engine.set_pool(*uuid, *to, self.done(step, none)),
            Step::ClosePool { uuid, .. } => engine.close_pool(*uuid, self.done(step, none)),
            Step::RemovePool { pool } => engine.remove_pool(pool, self.done(step, none)),
            Step::JoinPv { pool, pv, is_new, .. } => {
                engine.join_pv(*pool, pv, *is_new, self.done(step, none));
            }
            Step::LeavePv { pool, pv, .. } => engine.leave_pv(*pool, pv, self.done(step, none)),
            Step::KeepPv { pool, pv, .. } => engine.keep_pv(*pool, pv, self.done(step, none)),
            Step::ForgetPv { pool, pv } => engine.forget_pv(*pool, pv, self.done(step, none)),
            Step::SplitGroup { pool, pvs, becomes, .. } => {
                let made = |seen: Option<SeenPool>| seen.map(|it| Made::Pool(Box::new(it)));
                engine.split_group(*pool, pvs, becomes.as_ref(), self.done(step, made));
            }
            _ => unreachable!("{step}: not of a pool"),
        }
    }
}

/// What an LU is of which that was not known.
pub(super) fn found(now: Option<SeenNow>) -> Option<Made> {
    now.map(Made::Lu)
}

/// An LU was made what a copy had of it.
pub(super) fn prepare_forced(
    config: &Config,
    name: LuName,
    forced: Forced,
) -> Result<Prepared, ApiError> {
    let message = format!(
        "LU '{name}' is from now on what failure group {} has of it; what others had is lost",
        forced.group
    );
    let next = ops::lu_forced(config, &name, forced)?;
    Ok(Prepared::lu(next, name, "lu-forced", message))
}
