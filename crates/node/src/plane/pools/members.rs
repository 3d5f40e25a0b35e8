//! Disks that join an open pool and that leave it, while its LUs are used.
//!
//! | step | what is durable behind it | a crash behind it |
//! |---|---|---|
//! | the configuration names the disk | *joining*, and that it was asked for here | it is prepared |
//! | the epoch that its label will have is kept | | the same, with the next one |
//! | `prepare` | its label knows of itself | others do not: it is prepared anew |
//! | `admit` | all labels say how many there are | it is opened with them |
//! | the configuration says *member* | | |
//!
//! | step | what is durable behind it | a crash behind it |
//! |---|---|---|
//! | the configuration says *leaving* | that nothing is granted there | its slabs go on moving |
//! | the slabs move, one by one | each | the others move |
//! | the epoch is kept; `dismiss` | its label says so, then those of the others | it is out already |
//! | the configuration names it no more | what is left: its labels | they are taken off |
//! | `forget` | | |
//!
//! One thing is done to the disks of a pool at a time, but slabs may move meanwhile. A disk that
//! others wait for the place of waits for room itself, and goes on when there is some.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::ErrorKind;
use model::{ApiError, PoolPv, Severity, Size, Subject};
use rt::sync::{Notify, Turns};
use uuid::Uuid;
use volume::pool::home::{self, NewDisk};

use super::lost::counts_others;
use super::lus::tell_of_room;
use super::{OpenPool, Pools, disks, ended, failed};
use crate::engine::{Context, Report, Trouble};

/// When to look again for slabs that could not move.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// So often in a row nothing could move before that is told.
const LOOKS_BEFORE_TOLD: u32 = 6;

/// What is done to the disks of an open pool, on the core where it lives.
pub(super) struct Members {
    pool: Rc<home::Pool>,
    /// One disk joins, or is dismissed.
    changes: Turns,
    /// Disks whose slabs are moving.
    leaving: RefCell<BTreeMap<Uuid, Leaving>>,
    /// The pool is about to be closed.
    is_closing: Cell<bool>,
    changed: Notify,
}

#[derive(Default)]
struct Leaving {
    /// It stays, if that is possible still.
    is_wanted_back: bool,
    is_dismissed: bool,
    /// Why nothing moves now.
    waits: Option<Trouble>,
}

/// How a look at the slabs of a disk has ended.
enum Looked {
    Empty,
    /// Some slabs have moved.
    Moved,
    /// None has.
    Stuck(Trouble),
}

impl Members {
    pub(super) fn new(pool: Rc<home::Pool>) -> Rc<Self> {
        Rc::new(Self {
            pool,
            changes: Turns::default(),
            leaving: RefCell::default(),
            is_closing: Cell::new(false),
            changed: Notify::new(),
        })
    }

    pub(super) fn pool(&self) -> &Rc<home::Pool> {
        &self.pool
    }

    /// No slab moves any more when this returns.
    pub(super) async fn begin_closing(&self) {
        self.is_closing.set(true);
        self.changed.until(|| self.leaving.borrow().is_empty()).await;
    }

    /// Why disks do not get empty.
    pub(super) fn waits(&self) -> BTreeMap<Uuid, Trouble> {
        let leaving = self.leaving.borrow();
        leaving.iter().filter_map(|(pv, it)| Some((*pv, it.waits.clone()?))).collect()
    }

    /// The number of a disk that has not left.
    fn number(&self, pv: Uuid) -> Option<u32> {
        let pv = pv.into_bytes();
        self.pool.disks_used().iter().find(|disk| disk.pv == pv)?;
        self.pool.disk(pv)
    }

    fn must_end(&self, pv: Uuid) -> bool {
        let is_wanted_back = |it: &Leaving| it.is_wanted_back && !it.is_dismissed;
        self.is_closing.get() || self.leaving.borrow().get(&pv).is_none_or(is_wanted_back)
    }

    /// A disk becomes one of the pool, and whoever waits for room hears of it.
    pub(super) async fn join(
        &self,
        context: &Context,
        open: &OpenPool,
        pv: &PoolPv,
        is_new: bool,
    ) -> Result<(), ApiError> {
        let spec = &open.spec;
        let failed = |error| failed(spec, "cannot have another disk", error);
        let _turn = self.changes.take().await;
        let core = self.pool.core();
        let disk = match self.number(pv.uuid) {
            Some(disk) => disk,
            None => {
                if !is_new {
                    return Err(not_added(open, &disks::path_of(context, pv).to_string_lossy()));
                }
                // It had left, and has not been let go yet.
                if let Some(left) = self.pool.disk(pv.uuid.into_bytes()) {
                    self.pool.forget(left).await.map_err(failed)?;
                }
                if counts_others(open, &self.pool) {
                    // It was admitted, and could not be used when the pool was opened.
                    let given_up = self.pool.abandon(pv.uuid.into_bytes(), pv.group.number).await;
                    given_up.map_err(failed)?;
                }
                disks::make_file(context, core, pv).await?;
                let backing = disks::open_backing(context, core, spec, pv).await?;
                let new = NewDisk { backing, pv: pv.uuid.into_bytes(), group: pv.group.number };
                self.pool.prepare(new).await.map_err(failed)?
            }
        };
        self.pool.admit(disk).await.map_err(failed)?;
        tell_of_room(open).await;
        Ok(())
    }

    /// Brings what is on a disk to the others, and takes it out of the pool.
    pub(super) async fn leave(
        &self,
        context: &Context,
        open: &OpenPool,
        pv: &PoolPv,
    ) -> Result<(), ApiError> {
        let Some(disk) = self.pool.disk(pv.uuid.into_bytes()) else {
            return self.abandon(open, pv).await;
        };
        // Who could not tell all others is on his way out all the same.
        let is_dismissed = self.number(pv.uuid).is_none();
        self.leaving.borrow_mut().insert(pv.uuid, Leaving { is_dismissed, ..Leaving::default() });
        self.pool.retire(disk, true);
        let left = self.empty_and_dismiss(context, open, (pv, disk)).await;
        self.leaving.borrow_mut().remove(&pv.uuid);
        self.changed.notify();
        left
    }

    /// A disk is not missed any more without which the pool was opened.
    async fn abandon(&self, open: &OpenPool, pv: &PoolPv) -> Result<(), ApiError> {
        let _turn = self.changes.take().await;
        // One that was not certain to join may never have been counted.
        let is_missed = pv.standing.is_certain() || counts_others(open, &self.pool);
        if self.pool.absent() == 0 || !is_missed {
            return Ok(());
        }
        let abandoned = self.pool.abandon(pv.uuid.into_bytes(), pv.group.number).await;
        abandoned.map_err(|error| failed(&open.spec, "cannot let a disk go", error))
    }

    async fn empty_and_dismiss(
        &self,
        context: &Context,
        open: &OpenPool,
        (pv, disk): (&PoolPv, u32),
    ) -> Result<(), ApiError> {
        let path = disks::path_of(context, pv).to_string_lossy().into_owned();
        let (mut stuck, mut is_told) = (0, false);
        loop {
            if self.pool.disk(pv.uuid.into_bytes()).is_none() {
                // It was lost meanwhile.
                return self.abandon(open, pv).await;
            }
            match self.move_some(open, (pv.uuid, disk), &path).await? {
                Looked::Empty => {
                    if self.dismiss(open, (pv.uuid, disk)).await? {
                        return Ok(());
                    }
                }
                Looked::Moved => {
                    stuck = 0;
                    if std::mem::take(&mut is_told) {
                        self.wait_for(pv.uuid, None);
                        let message = format!("what is on {path} moves again");
                        (context.report)(report(open, Severity::Info, message, None));
                    }
                    continue;
                }
                Looked::Stuck(trouble) => {
                    stuck += 1;
                    if stuck >= LOOKS_BEFORE_TOLD {
                        self.wait_for(pv.uuid, Some(trouble.clone()));
                        let Trouble { message, next } = trouble;
                        if !std::mem::replace(&mut is_told, true) {
                            (context.report)(report(open, Severity::Warning, message, next));
                        }
                    }
                }
            }
            self.pool.core().sleep(LOOK_AGAIN).await;
        }
    }

    fn wait_for(&self, pv: Uuid, trouble: Option<Trouble>) {
        if let Some(leaving) = self.leaving.borrow_mut().get_mut(&pv) {
            leaving.waits = trouble;
        }
    }

    /// Moves what can be moved of what is on a disk now.
    async fn move_some(
        &self,
        open: &OpenPool,
        (pv, disk): (Uuid, u32),
        path: &str,
    ) -> Result<Looked, ApiError> {
        let slabs = self.pool.slabs_on(disk);
        if slabs.is_empty() {
            return Ok(Looked::Empty);
        }
        let (count, mut moved, mut full, mut closed) = (slabs.len(), 0, false, BTreeSet::new());
        for (lu, number) in slabs {
            if self.must_end(pv) {
                return Err(stays(open, path));
            }
            let lu = Uuid::from_bytes(lu);
            let store = open.lus().get(&lu).cloned();
            let Some(store) = store else {
                closed.insert(lu);
                continue;
            };
            let brought = store.lu().move_slab(number, disk, None).await;
            match brought.map_err(|error| (error.kind(), error)) {
                Ok(bytes) => {
                    moved += 1;
                    let core = self.pool.core();
                    open.move_pace.keep_rate(core, bytes, || !self.must_end(pv)).await;
                }
                Err((ErrorKind::NoSpace, _)) => {
                    full = true;
                    break;
                }
                // It was given back meanwhile, or it is just being used for something else.
                Err((ErrorKind::Invalid | ErrorKind::Busy | ErrorKind::Offline, _)) => {}
                Err((_, error)) => {
                    let lu = store.name();
                    return Err(ApiError::failed(format!(
                        "what LU {lu} has on {path} cannot be brought to another disk of pool \
                         '{}': {error}",
                        open.spec.name
                    ))
                    .then("look at the disks of the pool; it is tried again by itself"));
                }
            }
        }
        Ok(match moved {
            0 => Looked::Stuck(trouble(open, path, count, full, &closed)),
            _ => Looked::Moved,
        })
    }

    /// Takes an empty disk out; false if it is not empty any more.
    async fn dismiss(&self, open: &OpenPool, (pv, disk): (Uuid, u32)) -> Result<bool, ApiError> {
        let _turn = self.changes.take().await;
        if self.must_end(pv) {
            return Err(stays(open, &pv.to_string()));
        }
        if !self.pool.slabs_on(disk).is_empty() {
            return Ok(false);
        }
        // From here on it does not come back.
        if let Some(leaving) = self.leaving.borrow_mut().get_mut(&pv) {
            leaving.is_dismissed = true;
        }
        let dismissed = self.pool.dismiss(disk).await;
        dismissed.map_err(|error| failed(&open.spec, "cannot let a disk go", error))?;
        Ok(true)
    }

    /// A disk that was leaving stays, unless it has left.
    pub(super) fn keep(&self, pv: Uuid) {
        if let Some(leaving) = self.leaving.borrow_mut().get_mut(&pv) {
            if leaving.is_dismissed {
                return;
            }
            leaving.is_wanted_back = true;
        }
        if let Some(disk) = self.number(pv) {
            self.pool.retire(disk, false);
        }
    }

    /// Takes the labels off a disk that has left; true if it was here.
    pub(super) async fn forget(&self, open: &OpenPool, pv: Uuid) -> Result<bool, ApiError> {
        let _turn = self.changes.take().await;
        if self.number(pv).is_some() {
            let name = &open.spec.name;
            return Err(ApiError::failed(format!("pool '{name}' has its disk {pv} still")));
        }
        let Some(disk) = self.pool.disk(pv.into_bytes()) else { return Ok(false) };
        let forgotten = self.pool.forget(disk).await;
        forgotten.map_err(|error| failed(&open.spec, "cannot take its label off", error))?;
        Ok(true)
    }
}

/// Disks that had left when it was said that they stay join again.
pub(super) async fn come_back(
    context: &Context,
    open: &Arc<OpenPool>,
    members: &Members,
) -> Result<(), ApiError> {
    // One that is missing has not left, and comes back as what it was.
    if members.pool.absent() > 0 {
        return Ok(());
    }
    for pv in open.spec.pvs.iter().filter(|pv| pv.standing.is_member()) {
        if members.number(pv.uuid).is_none() {
            members.join(context, open, pv, true).await?;
        }
    }
    Ok(())
}

impl Pools {
    pub(in crate::plane) async fn join_pv(
        &self,
        context: &Context,
        pool: Uuid,
        pv: PoolPv,
        is_new: bool,
    ) -> Result<(), ApiError> {
        let (open, context) = (self.pool(pool)?, context.clone());
        let mine = open.clone();
        let joined = open.members.call(move |members: Rc<Members>| async move {
            members.join(&context, &mine, &pv, is_new).await
        });
        joined.await.unwrap_or_else(|| Err(ended()))
    }

    pub(in crate::plane) async fn leave_pv(
        &self,
        context: &Context,
        pool: Uuid,
        pv: PoolPv,
    ) -> Result<(), ApiError> {
        let (open, context) = (self.pool(pool)?, context.clone());
        let mine = open.clone();
        let left = open.members.call(move |members: Rc<Members>| async move {
            members.leave(&context, &mine, &pv).await
        });
        left.await.unwrap_or_else(|| Err(ended()))
    }

    pub(in crate::plane) async fn keep_pv(&self, pool: Uuid, pv: Uuid) -> Result<(), ApiError> {
        let open = self.pool(pool)?;
        let kept = open.members.call(async move |members: Rc<Members>| members.keep(pv));
        kept.await.ok_or_else(ended)?;
        tell_of_room(&open).await;
        Ok(())
    }

    pub(in crate::plane) async fn forget_pv(
        &self,
        context: &Context,
        core: &rt::Core,
        pool: Uuid,
        pv: &PoolPv,
    ) -> Result<(), ApiError> {
        if let Ok(open) = self.pool(pool) {
            let (mine, uuid) = (open.clone(), pv.uuid);
            let forgotten = open
                .members
                .call(move |members: Rc<Members>| async move { members.forget(&mine, uuid).await });
            forgotten.await.unwrap_or_else(|| Err(ended()))?;
        }
        let name = self.pool(pool).map(|open| open.spec.name.clone());
        let name = name.unwrap_or_else(|_| "unknown".parse().expect("it is a name"));
        disks::give_up_one(context, core, (pool, &name), pv).await
    }
}

fn report(open: &OpenPool, severity: Severity, message: String, next: Option<String>) -> Report {
    let subject = Subject::Pool(open.spec.name.clone());
    Report { severity, subject, kind: "pool-disk-waits", message, next }
}

/// Why nothing moves.
fn trouble(
    open: &OpenPool,
    path: &str,
    count: usize,
    is_full: bool,
    closed: &BTreeSet<Uuid>,
) -> Trouble {
    let name = &open.spec.name;
    let size = Size(count as u64 * open.spec.slab_size.bytes());
    let (why, next) = match closed.first() {
        _ if is_full => (
            "the other disks are full".to_owned(),
            format!(
                "viaduct pool add-pv {name}, or remove LUs; it goes on by itself. viaduct pool \
                 rm-pv {name} {path} --cancel keeps the disk"
            ),
        ),
        Some(lu) => (
            format!("LU {lu} is not open"),
            "viaduct lu ls shows what is wrong; it goes on by itself".to_owned(),
        ),
        None => ("its LUs are being changed".to_owned(), "it goes on by itself".to_owned()),
    };
    let message = format!("disk {path} of pool '{name}' still holds {size} of LUs: {why}");
    Trouble { message, next: Some(next) }
}

/// Its slabs do not move any more, because somebody wants that.
fn stays(open: &OpenPool, disk: &str) -> ApiError {
    ApiError::not_now(format!("disk {disk} stays in pool '{}' for now", open.spec.name))
}

fn not_added(open: &OpenPool, path: &str) -> ApiError {
    let name = &open.spec.name;
    ApiError::conflict(format!("{path} is not a disk of pool '{name}', and was not added here"))
        .then(format!("viaduct pool rm-pv {name} {path}, then add it again"))
}
