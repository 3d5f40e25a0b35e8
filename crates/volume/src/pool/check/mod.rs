//! Checking a pool from its disks alone, while nobody has it open: labels, slab tables, and of each
//! LU root, maps and journal. Everything is read by what opens a pool and its LUs, so what is clean
//! here opens, and what is not says why. Nothing is written, not even a higher epoch.
//!
//! It goes on behind what it finds, as far as what is left makes sense: without a disk no LU can be
//! judged, without its root nothing of an LU can.
//!
//! Not here: data of clients, and pools that are in use (see `scrub`).

mod lus;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::sync::Arc;

use rt::Core;

use super::disks::Backing;
use super::home::{Pool, PoolError, TableFlaw, read_ends};
use super::page::Owner;

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// UUID and name, if any label says them.
    pub pool: Option<(Owner, String)>,
    pub counts: Counts,
    pub findings: Vec<Finding>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub disks: u64,
    /// Of all disks, and those of them that LUs have.
    pub slabs: u64,
    pub slabs_granted: u64,
    pub lus: u64,
    pub layers: u64,
    pub map_pages: u64,
    /// Of LUs: with data, maps, journals and roots in them.
    pub extents_used: u64,
    /// Records of journals that a checkpoint does not have yet.
    pub records: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub of: Of,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A crash leaves this, or there is a second place that is good: opening the pool mends it.
    Mended,
    /// Something is lost, or would be refused.
    Damaged,
}

/// What something was found of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    Pool,
    Disk(String),
    Lu { id: [u8; 16], name: Option<String> },
}

impl Counts {
    pub fn add(&mut self, more: Self) {
        let all = [
            (&mut self.disks, more.disks),
            (&mut self.slabs, more.slabs),
            (&mut self.slabs_granted, more.slabs_granted),
            (&mut self.lus, more.lus),
            (&mut self.layers, more.layers),
            (&mut self.map_pages, more.map_pages),
            (&mut self.extents_used, more.extents_used),
            (&mut self.records, more.records),
        ];
        all.into_iter().for_each(|(count, more)| *count += more);
    }
}

impl Report {
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damaged)
    }

    fn add(&mut self, severity: Severity, of: Of, what: impl fmt::Display) {
        self.findings.push(Finding { severity, of, what: what.to_string() });
    }
}

/// How far it is, in bytes of slabs that LUs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub bytes: u64,
    pub of: u64,
}

/// Checks the pool that these disks are. Nobody has them open for writing.
pub async fn check(
    core: &Core,
    backings: Vec<Arc<dyn Backing>>,
    told: impl FnMut(Progress),
) -> Report {
    let mut report = Report::default();
    report.counts.disks = backings.len() as u64;
    for backing in &backings {
        labels(core, backing, &mut report).await;
    }
    let are_labelled = !report.is_damaged();
    let found = match Pool::find(core, backings).await {
        Ok(found) => found,
        Err(error) => {
            // What is said of a label that nobody can read is enough.
            let is_said = matches!(error, PoolError::Unlabelled { .. } | PoolError::Disk { .. });
            if are_labelled || !is_said {
                report.add(Severity::Damaged, Of::Pool, error);
            }
            return report;
        }
    };
    report.pool = Some((found.id(), found.name().to_owned()));
    if found.absent() > 0 {
        let what = format!("{} of its disks are not here", found.absent());
        report.add(Severity::Damaged, Of::Pool, what);
    }
    let pool = found.look(&mut |flaw| tables(flaw, &mut report)).await;
    let (slabs, free) = pool.slabs();
    report.counts.slabs = slabs;
    report.counts.slabs_granted = slabs - free;
    lus::check(&pool, &mut report, told).await;
    // Nothing of it is open: what it knows of the disks is let go.
    if let Err(error) = pool.close().await {
        report.add(Severity::Damaged, Of::Pool, error);
    }
    report
}

/// Checks an LU that nobody has open, of a pool that is. None: somebody has opened it meanwhile, or
/// it is gone.
pub async fn closed_lu(pool: &Pool, id: [u8; 16]) -> Option<Report> {
    let (granted, mut report) = (pool.granted(id)?, Report::default());
    report.counts.lus = 1;
    lus::check_lu(pool, (id, granted.clone()), &mut report).await;
    let is_still = pool.granted(id) == Some(granted) && pool.tenure(id).is_ok();
    is_still.then_some(report)
}

/// Looks at both labels of a disk.
async fn labels(core: &Core, backing: &Arc<dyn Backing>, report: &mut Report) {
    let of = || Of::Disk(backing.name().to_owned());
    let ends = match read_ends(core, backing).await {
        Ok(ends) => ends,
        Err(error) => return report.add(Severity::Damaged, of(), error),
    };
    let what = |end: &str, why: &dyn fmt::Display| {
        format!("its label at the {end} cannot be read: {why}; the other one can")
    };
    let known = match &ends {
        [Ok(front), Ok(back)] => {
            // What changes of a label does so under another epoch, at one end after the other.
            let are_same = match front.epoch == back.epoch {
                true => front == back,
                false => {
                    let has_become = back.was_of(&front.pool);
                    (front.pool == back.pool || has_become) && front.pv == back.pv
                }
            };
            if !are_same {
                let what = "its two labels do not say the same, which no crash leaves";
                report.add(Severity::Damaged, of(), what);
            }
            front
        }
        [Err(why), Ok(label)] => {
            report.add(Severity::Mended, of(), what("front", why));
            label
        }
        [Ok(label), Err(why)] => {
            report.add(Severity::Mended, of(), what("end", why));
            label
        }
        [Err(why), Err(other)] => {
            let what = format!("neither of its labels can be read: {why}; at the end: {other}");
            return report.add(Severity::Damaged, of(), what);
        }
    };
    report.pool.get_or_insert_with(|| (known.pool, known.pool_name.clone()));
}

fn tables(flaw: TableFlaw, report: &mut Report) {
    match flaw {
        TableFlaw::Error(error) => report.add(Severity::Damaged, Of::Pool, error),
        TableFlaw::Place { disk, page, place, flaw } => {
            let which = ["first", "second"][place];
            let what = format!(
                "page {page} of its slab table cannot be read at its {which} place: {flaw}; the \
                 other one can"
            );
            report.add(Severity::Mended, Of::Disk(disk), what);
        }
        TableFlaw::Unlike { disk, page } => {
            let what = format!(
                "the two places of page {page} of its slab table do not say the same: a crash came \
                 between, and the newer one counts"
            );
            report.add(Severity::Mended, Of::Disk(disk), what);
        }
        TableFlaw::Left { disk, index } => {
            let what = format!("place {index} of its slab table is of a slab that has moved away");
            report.add(Severity::Mended, Of::Disk(disk), what);
        }
        TableFlaw::Firsts { lu, slabs: [one, other] } => {
            let what = format!("slabs {one} and {other} both say that they are its first");
            report.add(Severity::Damaged, Of::Lu { id: lu, name: None }, what);
        }
    }
}
