//! Scrubbing a pool in the background: labels and tables, then one LU after the other, by their
//! UUIDs, in small steps and at the rate that the pool's settings say.
//!
//! What it has come to is in `kv` behind each LU: a node that starts goes on with the next one, and
//! the result stays to be seen. Only who cancels it ends it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::ErrorKind;
use model::scrub::{Scrub, ScrubFinding, ScrubOutcome, ScrubState};
use model::{ApiError, LuName, Pool, Severity, Size, Subject};
use rt::Time;
use rt::sync::Notify;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volume::pool::check::{self, Finding, Of};
use volume::pool::disks::Outcome;
use volume::pool::home;
use volume::pool::scrub::{Cursor, Damage, Depth, Step};

use super::lus::PoolStore;
use super::{OpenPool, Pools, ended};
use crate::engine::{Context, Report, ScrubWish};
use crate::records::{Record, Records};
use crate::world::wall_clock;

/// The version of the form that this program writes.
const VERSION: u32 = 1;

/// What is read at a time, unless the rate says less.
const STEP_BYTES: u64 = 4 << 20;

/// How long it is waited for LUs that are just being opened, and how often.
const OPENING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Reasons why something was left out that are kept.
const LEFT_OUT_MAX: usize = 20;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    scrub: Scrub,
    /// LUs up to this one were read.
    after: Option<Uuid>,
}

/// The scrub of an open pool, on the core where that lives.
pub(super) struct Scrubber {
    pool: Rc<home::Pool>,
    records: Arc<dyn Records>,
    of: Record,
    /// The one that is under way, or the last one.
    scrub: RefCell<Option<Scrub>>,
    after: Cell<Option<Uuid>>,
    is_running: Cell<bool>,
    is_cancelled: Cell<bool>,
    /// The pool is about to be closed.
    is_closing: Cell<bool>,
    changed: Notify,
}

/// How far a walk over all LUs is.
struct Walk<'a> {
    me: &'a Scrubber,
    context: &'a Context,
    open: &'a OpenPool,
    /// Until then LUs may be about to be opened.
    opening: Time,
    /// In slabs: of all LUs, and of those that were read.
    slabs: u64,
    slabs_read: u64,
}

impl Scrubber {
    /// With what is known of the last one. What cannot be read is not worth the pool.
    pub(super) async fn new(context: &Context, spec: &Pool, pool: Rc<home::Pool>) -> Rc<Self> {
        let (records, of) = (context.records.clone(), Record::Scrub(spec.uuid));
        let reader = records.clone();
        let read = pool.core().blocking(move || reader.read(of)).await;
        let value = read.and_then(Result::ok).flatten();
        let kept = value.and_then(|value| serde_json::from_slice::<Kept>(&value).ok());
        let (scrub, after) = match kept.filter(|kept| kept.version == VERSION) {
            Some(Kept { scrub, after, .. }) => (Some(scrub), after),
            None => (None, None),
        };
        Rc::new(Self {
            pool,
            records,
            of,
            scrub: RefCell::new(scrub),
            after: Cell::new(after),
            is_running: Cell::new(false),
            is_cancelled: Cell::new(false),
            is_closing: Cell::new(false),
            changed: Notify::new(),
        })
    }

    /// The one that is under way, or the last one.
    pub(super) fn scrub(&self) -> Option<Scrub> {
        self.scrub.borrow().clone()
    }

    /// Goes on with what was under way when the node ended.
    pub(super) fn come_back(self: &Rc<Self>, context: &Context, open: &Arc<OpenPool>) {
        if self.scrub.borrow().as_ref().is_some_and(Scrub::is_running) {
            self.spawn(context, open);
        }
    }

    async fn begin(
        self: &Rc<Self>,
        context: &Context,
        open: &Arc<OpenPool>,
    ) -> Result<(), ApiError> {
        let name = &open.spec.name;
        if self.is_running.get() || self.is_closing.get() {
            return Err(ApiError::conflict(format!("pool '{name}' is being scrubbed"))
                .then(format!("viaduct pool show {name}, or pool scrub {name} --cancel")));
        }
        self.is_running.set(true);
        self.is_cancelled.set(false);
        let before = self.scrub.replace(Some(Scrub::begin(wall_clock())));
        let before = (before, self.after.take());
        // Also when the node ends in the next moment.
        if let Err(error) = self.keep().await {
            self.scrub.replace(before.0);
            self.after.set(before.1);
            self.is_running.set(false);
            self.changed.notify();
            return Err(error);
        }
        self.spawn(context, open);
        report(context, open, Severity::Info, format!("pool '{name}' is being scrubbed"), None);
        Ok(())
    }

    fn spawn(self: &Rc<Self>, context: &Context, open: &Arc<OpenPool>) {
        self.is_running.set(true);
        let (me, context, open) = (self.clone(), context.clone(), open.clone());
        self.pool.core().spawn(async move {
            me.run(&context, &open).await;
            me.is_running.set(false);
            me.changed.notify();
        });
    }

    async fn cancel(&self) {
        self.is_cancelled.set(true);
        self.changed.until(|| !self.is_running.get()).await;
    }

    /// Nothing is read any more when this returns, until the pool is open again.
    pub(super) async fn begin_closing(&self) {
        self.is_closing.set(true);
        self.changed.until(|| !self.is_running.get()).await;
    }

    fn must_end(&self) -> bool {
        self.is_cancelled.get() || self.is_closing.get()
    }

    fn change(&self, f: impl FnOnce(&mut Scrub)) {
        if let Some(scrub) = &mut *self.scrub.borrow_mut() {
            f(scrub);
        }
    }

    async fn keep(&self) -> Result<(), ApiError> {
        let Some(scrub) = self.scrub() else { return Ok(()) };
        let kept = Kept { version: VERSION, scrub, after: self.after.get() };
        let kept = serde_json::to_vec(&kept);
        let kept = kept.map_err(|error| ApiError::failed(error.to_string()))?;
        let (records, of) = (self.records.clone(), self.of);
        let written = self.pool.core().blocking(move || records.write(of, kept)).await;
        written.unwrap_or_else(|| Err(ended()))
    }

    async fn keep_or_warn(&self) {
        if let Err(error) = self.keep().await {
            tracing::warn!(%error, "how far a scrub is was not kept");
        }
    }

    async fn run(&self, context: &Context, open: &OpenPool) {
        let lus: BTreeMap<Uuid, u64> = self
            .pool
            .lus()
            .into_iter()
            .map(|(id, granted)| (Uuid::from_bytes(id), granted.slabs.len() as u64))
            .collect();
        let is_read = |lu: &Uuid| self.after.get().is_some_and(|after| *lu <= after);
        let slabs = |all: &mut dyn Iterator<Item = (&Uuid, &u64)>| all.map(|(_, it)| it).sum();
        let mut walk = Walk {
            me: self,
            context,
            open,
            opening: self.pool.core().now() + OPENING,
            slabs: slabs(&mut lus.iter()),
            slabs_read: slabs(&mut lus.iter().filter(|(lu, _)| is_read(lu))),
        };
        if self.after.get().is_none() {
            walk.disks().await;
        }
        for (lu, slabs) in lus {
            if is_read(&lu) {
                continue;
            }
            if self.must_end() || !walk.lu(lu, slabs).await {
                break;
            }
            walk.slabs_read += slabs;
            self.after.set(Some(lu));
            self.keep_or_warn().await;
        }
        if !self.is_closing.get() || self.is_cancelled.get() {
            self.end(context, open).await;
        }
    }

    async fn end(&self, context: &Context, open: &OpenPool) {
        let is_cancelled = self.is_cancelled.get();
        self.change(|scrub| {
            scrub.ended = Some(wall_clock());
            scrub.state = if is_cancelled { ScrubState::Cancelled } else { ScrubState::Done };
            scrub.percent = if is_cancelled { scrub.percent } else { 100 };
        });
        self.keep_or_warn().await;
        let Some(scrub) = self.scrub() else { return };
        let severity = match (scrub.is_bad(), scrub.sum() == "nothing") {
            (true, _) => Severity::Error,
            (false, true) => Severity::Info,
            (false, false) => Severity::Warning,
        };
        let (name, sum) = (&open.spec.name, scrub.sum());
        let how = if is_cancelled { "was cancelled" } else { "is done" };
        let next = (severity > Severity::Info).then(|| format!("viaduct pool show {name}"));
        report(context, open, severity, format!("the scrub of pool '{name}' {how}: {sum}"), next);
    }
}

impl Walk<'_> {
    /// Labels and slab tables.
    async fn disks(&self) {
        match self.me.pool.scrub().await {
            Ok(looked) => {
                self.me.change(|scrub| scrub.read.0 += looked.bytes);
                self.tell_metadata(&looked.findings);
                looked.findings.into_iter().for_each(|finding| self.add(finding, None));
            }
            Err(error) => self.leave_out(format!("labels and slab tables: {error}")),
        }
    }

    /// All of an LU. False: it is to end.
    async fn lu(&self, lu: Uuid, slabs: u64) -> bool {
        let core = self.me.pool.core();
        let store = loop {
            if let Some(store) = self.open.lus().get(&lu).cloned() {
                break store;
            }
            if self.me.must_end() {
                return false;
            }
            if core.now() >= self.opening {
                self.closed_lu(lu).await;
                return true;
            }
            core.sleep(LOOK_AGAIN).await;
        };
        let extents = store.lu().extents_of_layers().await.unwrap_or_default();
        let all: u64 = extents.iter().map(|(_, extents)| extents).sum();
        let (mut cursor, mut read) = (Cursor::default(), 0);
        loop {
            if self.me.must_end() {
                return false;
            }
            let (began, bytes) = (core.now(), self.open.scrub_pace.bytes(STEP_BYTES));
            let step = match store.lu().scrub(cursor, (Depth::Everything, bytes)).await {
                Ok(step) => step,
                Err(error) => {
                    let is_gone =
                        error.kind() == ErrorKind::Offline && !self.open.lus().contains_key(&lu);
                    if !is_gone {
                        self.leave_out(format!("the rest of LU {}: {error}", store.name()));
                    }
                    return !self.me.is_closing.get();
                }
            };
            read += step.extents;
            let (bytes, next) = (step.bytes, step.next);
            self.note(&store, step, (slabs, read.min(all), all)).await;
            let Some(next) = next else { return true };
            cursor = next;
            self.open.scrub_pace.rest(core, bytes, began).await;
        }
    }

    /// An LU that is not open has no data that anybody could look at.
    async fn closed_lu(&self, lu: Uuid) {
        let Some(report) = check::closed_lu(&self.me.pool, lu.into_bytes()).await else { return };
        self.tell_metadata(&report.findings);
        report.findings.into_iter().for_each(|finding| self.add(finding, None));
        self.leave_out(format!("the data of LU {lu}, which is not open"));
    }

    fn leave_out(&self, what: String) {
        self.me.change(|scrub| {
            if scrub.left_out.len() < LEFT_OUT_MAX {
                scrub.left_out.push(what);
            }
        });
    }

    /// What a step has found, and how far the LU is.
    async fn note(&self, store: &PoolStore, step: Step, (slabs, read, all): (u64, u64, u64)) {
        self.me.change(|scrub| {
            scrub.read.0 += step.bytes;
            let part = u128::from(slabs) * u128::from(read) / u128::from(all.max(1));
            let far = u128::from(self.slabs_read) + part;
            scrub.percent = (far * 100 / u128::from(self.slabs.max(1))).min(99) as u8;
        });
        let name = store.name();
        self.tell_metadata(&step.findings);
        step.findings.into_iter().for_each(|finding| self.add(finding, Some(name)));
        if step.damage.is_empty() {
            return;
        }
        self.tell_differing(name, &step.damage);
        let layers = store.lu().layers().await.unwrap_or_default();
        let top = layers.iter().find(|layer| layer.frozen.is_none()).map(|layer| layer.id);
        for Damage { outcome, layer, block, count, disks } in step.damage {
            let finding = ScrubFinding {
                outcome: match outcome {
                    Outcome::Mended => ScrubOutcome::Mended,
                    Outcome::Differing => ScrubOutcome::Differing,
                    Outcome::Lost => ScrubOutcome::Lost,
                },
                lu: Some(name.clone()),
                snapshot: (Some(layer) != top).then(|| Uuid::from_bytes(layer)),
                offset: Some(block * 4096),
                size: Some(Size(count * 4096)),
                disks,
                what: None,
            };
            self.me.change(|scrub| scrub.add(finding));
        }
    }

    /// What is wrong with metadata.
    fn add(&self, Finding { severity, of, what }: Finding, lu: Option<&LuName>) {
        let (name, disks) = match of {
            Of::Disk(disk) => (None, vec![disk]),
            Of::Lu { name, .. } => (name.and_then(|name| name.parse().ok()), Vec::new()),
            Of::Pool => (None, Vec::new()),
        };
        let finding = ScrubFinding {
            outcome: match severity {
                check::Severity::Mended => ScrubOutcome::Mended,
                check::Severity::Damaged => ScrubOutcome::Lost,
            },
            lu: lu.cloned().or(name),
            snapshot: None,
            offset: None,
            size: None,
            disks,
            what: Some(what),
        };
        self.me.change(|scrub| scrub.add(finding));
    }

    /// Of blocks that are mended or lost is told by who finds any, also without a scrub.
    fn tell_differing(&self, lu: &LuName, damage: &[Damage]) {
        let differing = damage.iter().filter(|it| it.outcome == Outcome::Differing);
        let blocks: u64 = differing.clone().map(|it| it.count).sum();
        let Some(first) = differing.min_by_key(|it| it.block) else { return };
        let blocks = if blocks == 1 { "a block".to_owned() } else { format!("{blocks} blocks") };
        let message = format!(
            "{blocks} of LU {lu}, from byte {} on, differ on {}, and nothing tells which of them \
             is right",
            first.block * 4096,
            first.disks.join(" and ")
        );
        (self.context.report)(Report {
            severity: Severity::Error,
            subject: Subject::Lu(lu.clone()),
            kind: "differing-blocks",
            message,
            next: Some("compare them with a backup, and write them again".to_owned()),
        });
    }

    fn tell_metadata(&self, findings: &[Finding]) {
        let Some(first) = findings.iter().max_by_key(|it| it.severity) else { return };
        let severity = match first.severity {
            check::Severity::Mended => Severity::Warning,
            check::Severity::Damaged => Severity::Error,
        };
        let of = match &first.of {
            Of::Disk(disk) => disk.clone(),
            Of::Lu { name: Some(name), .. } => format!("LU {name}"),
            Of::Lu { id, .. } => format!("LU {}", Uuid::from_bytes(*id)),
            Of::Pool => "the pool".to_owned(),
        };
        let others = findings.len() - 1;
        let more = if others > 0 { format!(", and {others} more") } else { String::new() };
        (self.context.report)(Report {
            severity,
            subject: Subject::Pool(self.open.spec.name.clone()),
            kind: "damaged-metadata",
            message: format!("{of}: {}{more}", first.what),
            next: Some(format!("viaduct pool show {}", self.open.spec.name)),
        });
    }
}

fn report(
    context: &Context,
    open: &OpenPool,
    severity: Severity,
    message: String,
    next: Option<String>,
) {
    let subject = Subject::Pool(open.spec.name.clone());
    (context.report)(Report { severity, subject, kind: "scrub", message, next });
}

impl Pools {
    /// Begins to scrub an open pool, or ends that.
    pub(in crate::plane) async fn scrub(
        &self,
        context: &Context,
        pool: Uuid,
        wish: ScrubWish,
    ) -> Result<(), ApiError> {
        let (open, context) = (self.pool(pool)?, context.clone());
        let mine = open.clone();
        let done = open.scrubber.call(move |scrubber: Rc<Scrubber>| async move {
            match wish {
                ScrubWish::Begin => scrubber.begin(&context, &mine).await,
                ScrubWish::Cancel => {
                    scrubber.cancel().await;
                    Ok(())
                }
            }
        });
        done.await.unwrap_or_else(|| Err(ended()))
    }
}
