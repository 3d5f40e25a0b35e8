//! Restoring what is damaged of a pool's metadata from a backup, from the disks alone, while nobody
//! has it open.
//!
//! A page comes back only where what the disks still say proves that the backup has it as it counts
//! now. Everything that is left damaged is found by [`check`], as it would be without a backup; why
//! the backup was of no use for it is told with it.
//!
//! | what | is as the backup has it if |
//! |---|---|
//! | label | the disk's own slab table, or roots of LUs on it, are those of one disk of the backup, and not older. Its epoch is that of the other disks, unless they have been used without it since |
//! | slab table | no disk has joined or left and the pool was not opened since, and every LU then has all that its maps name |
//! | root | the other head is that of the turn before: no later one was ever written |
//! | body of a root | the head is the one of the backup |
//! | page of a map | the root is the one of the backup; or the layer was frozen then and nothing below it has been let go since; or its other place has not been written since |
//!
//! Where a page counts is told by the root, and it never leaves its two places as long as its layer
//! is there: they are written in turn. So of a page that was written since, the other place is
//! younger than the backup.
//!
//! Who has nothing better may ask for LUs to be what the backup says though nothing proves it: see
//! [`as_of`].
//!
//! Nothing is written before all of it is known: see [`overlay`]. Pages of LUs come first, then
//! their heads, and labels last: a disk that is restored half is still one that nobody opens.

mod as_of;
mod labels;
mod lus;
mod overlay;
mod rebuild;
mod tables;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Error, Request};
use rt::Core;

use super::backup::{Backup, Unread};
use super::check::{Finding, Of, Progress, Report, Severity, check};
use super::disks::Backing;
use super::home::{Found, Pool, PoolError, TableFlaw};
use super::label;
use super::page::{PAGE_BYTES, Page};
use super::root::HEAD;
use overlay::{Laid, Overlay};

pub use as_of::{AsOf, Outcome};
pub use rebuild::Lost;

/// What is asked for beside the disks.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// How often the pool was opened, as its node knows it, where no label says it any more.
    pub epoch: Option<u64>,
    /// LUs, by name or UUID, that are to be as the backup has them if nothing else helps.
    pub as_of: Vec<String>,
}

/// Why nothing is restored at all.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Backup(#[from] Unread),
    #[error("{disk} is of pool '{pool}', and the backup is of pool '{of}'")]
    OtherPool { disk: String, pool: String, of: String },
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("{disk}: {error}")]
    Disk { disk: String, error: Error },
    #[error("the backup cannot be read any more: {0}")]
    File(Error),
    #[error("LU '{lu}' would be damaged all the same, so nothing is written: {what}")]
    Damaged { lu: String, what: String },
    #[error("the backup has no LU '{0}'")]
    Unknown(String),
    #[error("the backup has several LUs '{0}': give a UUID")]
    Several(String),
}

/// Something that the backup has, or of which it is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub of: Of,
    pub what: String,
}

/// A disk, with what it is in its pool as far as that is known.
struct Slot {
    overlay: Arc<Overlay>,
    pv: Option<[u8; 16]>,
}

/// What is to be written, and what came of everything else.
pub struct Plan<'a> {
    core: Core,
    backup: &'a Backup,
    disks: Vec<Slot>,
    /// What comes back.
    pub restored: Vec<Told>,
    /// What does not, and why.
    pub refused: Vec<Told>,
    /// LUs that were to be as the backup has them.
    pub as_of: Vec<AsOf>,
    /// Pages that are blank, durably, before any other one is written: of which disk, and where.
    blanks: Vec<([u8; 16], u64)>,
    /// What is right and wrong when it is written.
    pub report: Report,
}

impl<'a> Plan<'a> {
    /// Looks what is damaged, and what of that comes back. Nobody has the disks open for writing,
    /// and nothing is written.
    pub async fn make(
        core: &Core,
        backings: Vec<Arc<dyn Backing>>,
        (backup, wanted): (&'a Backup, Wanted),
        told: impl FnMut(Progress),
    ) -> Result<Self, Refused> {
        let slot = |below| Slot { overlay: Overlay::new(below), pv: None };
        let disks = backings.into_iter().map(slot).collect();
        let (restored, refused, report) = (Vec::new(), Vec::new(), Report::default());
        let (core, as_of, blanks) = (core.clone(), Vec::new(), Vec::new());
        let mut plan = Plan { core, backup, disks, restored, refused, as_of, blanks, report };
        let named = plan.named(&wanted.as_of)?;
        plan.labels(wanted.epoch).await?;
        let by_labels = plan.restored.len();
        let has_tables = match plan.find().await {
            Some(_) => {
                let has_tables = plan.tables().await?;
                plan.lus().await?;
                has_tables
            }
            None => false,
        };
        match has_tables {
            // All LUs have to be right by it as they are.
            true => plan.refuse_all(named, "a slab table comes back: give the command again then"),
            false => plan.as_of(named).await?,
        }
        plan.report = check(&plan.core, plan.laid(), told).await;
        if has_tables && plan.report.is_damaged() {
            plan.withdraw(by_labels).await;
        }
        plan.must_be_right().map(|()| plan)
    }

    /// A slab table counts only if all LUs are right by it; and what was restored of these, it was
    /// restored by that.
    async fn withdraw(&mut self, kept: usize) {
        for slot in &self.disks {
            let mut pages = slot.overlay.pages();
            pages.retain(|_, page| page.says().0.kind == label::KIND);
        }
        self.restored.truncate(kept);
        let is_damage = |it: &&Finding| it.severity == Severity::Damaged;
        let first = self.report.findings.iter().find(is_damage);
        let why = first.map_or(String::new(), |finding| format!(": {}", finding.what));
        let what = format!(
            "the slab table is not taken from the backup, because with it not everything would be \
             right{why}"
        );
        self.refuse(Of::Pool, what);
        self.report = check(&self.core, self.laid(), |_| ()).await;
    }

    /// Everything comes back or was right, and nothing is left damaged.
    pub fn is_good(&self) -> bool {
        !self.report.is_damaged()
    }

    /// How many pages are written.
    pub fn pages(&self) -> usize {
        self.disks.iter().map(|slot| slot.overlay.pages().len()).sum()
    }

    /// Writes it, durably, to these disks, which are the same ones in the same order.
    pub async fn write(&self, backings: &[Arc<dyn Backing>]) -> Result<(), Refused> {
        let is_label = |page: &Page| page.says().0.kind == label::KIND;
        let is_end = |page: &Page| is_label(page) && page.says().0.number != 0;
        let is_head = |page: &Page| page.says().0.kind == HEAD;
        let steps: [&dyn Fn(&Page) -> bool; 4] =
            [&|page| !is_label(page) && !is_head(page), &is_head, &is_end, &|page| {
                is_label(page) && !is_end(page)
            }];
        let blank = Page::of_bytes(&[0; PAGE_BYTES]);
        let own = |pv| self.blanks.iter().filter(move |(other, _)| Some(*other) == pv);
        let blanks = |slot: &Slot| own(slot.pv).map(|(_, at)| (*at, blank.clone())).collect();
        self.write_step(backings, &blanks).await?;
        for is_now in steps {
            let some = |slot: &Slot| {
                let pages = slot.overlay.pages();
                let some = pages.iter().filter(|(_, page)| is_now(page));
                some.map(|(at, page)| (*at, page.clone())).collect()
            };
            self.write_step(backings, &some).await?;
        }
        Ok(())
    }

    /// Writes some pages of each disk, durably.
    async fn write_step(
        &self,
        backings: &[Arc<dyn Backing>],
        some: &dyn Fn(&Slot) -> Vec<(u64, Page)>,
    ) -> Result<(), Refused> {
        for (slot, backing) in self.disks.iter().zip(backings) {
            self.write_some(backing, some(slot)).await.map_err(|error| {
                let disk = backing.name().to_owned();
                Refused::Disk { disk, error }
            })?;
        }
        Ok(())
    }

    async fn write_some(
        &self,
        backing: &Arc<dyn Backing>,
        pages: Vec<(u64, Page)>,
    ) -> Result<(), Error> {
        if pages.is_empty() {
            return Ok(());
        }
        let device = backing.device(&self.core);
        for (at, page) in pages {
            let buffer = Buffer::from_bytes(page.bytes());
            device.io(&Request::write(at, buffer.sgl())).await?;
        }
        device.io(&Request::flush()).await.map(drop)
    }

    fn laid(&self) -> Vec<Arc<dyn Backing>> {
        let laid = |slot: &Slot| Arc::new(Laid(slot.overlay.clone())) as Arc<dyn Backing>;
        self.disks.iter().map(laid).collect()
    }

    /// The pool as it would be, if there is one then; the check says why there is none.
    async fn find(&self) -> Option<Found> {
        Pool::find(&self.core, self.laid()).await.ok()
    }

    /// The same, looked at.
    async fn look(&self) -> Result<(Rc<Pool>, Vec<TableFlaw>), PoolError> {
        let found = Pool::find(&self.core, self.laid()).await?;
        let mut flaws = Vec::new();
        let pool = found.look(&mut |flaw| flaws.push(flaw)).await;
        Ok((pool, flaws))
    }

    fn restore(&mut self, of: Of, what: String) {
        self.restored.push(Told { of, what });
    }

    fn refuse(&mut self, of: Of, what: String) {
        self.refused.push(Told { of, what });
    }

    /// Lays a page over this byte of a disk.
    fn put(&self, pv: [u8; 16], at: u64, page: &Page) {
        let slot = self.disks.iter().find(|slot| slot.pv == Some(pv));
        if let Some(slot) = slot {
            slot.overlay.pages().insert(at, page.clone());
        }
    }
}
