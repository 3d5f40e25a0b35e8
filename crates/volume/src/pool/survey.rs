//! What the disks of a pool say of it and of its LUs, for whoever has nothing else: all that it
//! takes to open both elsewhere. Everything is read by what opens a pool and its LUs, as far as
//! names and layers need it, and nothing is written.
//!
//! Not here: whether every page of a map is good, which is asked of [`check`](super::check).

use std::rc::Rc;
use std::sync::Arc;

use super::home::{Found, Granted, Pool, PoolError, TableFlaw, first_epoch};
use super::label::Label;
use super::lu::{Left, LuError, Whence, read_left};
use super::owner::{LayerId, Layers, Unopened};
use super::root::{About, Frozen};

/// LUs that are read side by side.
const LUS_AT_A_TIME: usize = 16;

/// What is said of a pool.
#[derive(Debug)]
pub struct Survey {
    /// Of the disks that are here.
    pub labels: Vec<Label>,
    /// Those that are not here, by their groups as far as those are known. The others are enough.
    pub missing: Vec<Option<u16>>,
    /// Those that are old copies.
    pub old: Vec<Label>,
    pub lus: Vec<Surveyed>,
    /// LUs that were being made or removed. What they have is nobody's. None where disks that are
    /// not here may have the rest of them.
    pub unfinished: Vec<[u8; 16]>,
}

/// What is said of an LU.
#[derive(Debug)]
pub struct Surveyed {
    pub id: [u8; 16],
    /// Or why it could not be opened.
    pub said: Result<Said, Unsaid>,
}

/// What an LU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub about: About,
    /// Its frozen layers, the oldest first.
    pub frozen: Vec<(LayerId, Frozen)>,
    /// So says a copy that has missed something: none that has everything is here.
    pub is_outdated: bool,
}

/// Why nothing is said of an LU.
#[derive(Debug, thiserror::Error)]
pub enum Unsaid {
    #[error(transparent)]
    Lu(#[from] LuError),
    #[error("slabs {} and {} both say that they are its first", .0[0], .0[1])]
    Firsts([u32; 2]),
    #[error(
        "no copy of it that has everything is here, and what is here does not tell what it is: {0}"
    )]
    Part(LuError),
}

impl Unsaid {
    /// The LU was used later than a disk of its pool says that it was opened.
    pub fn is_later(&self) -> bool {
        matches!(self, Unsaid::Lu(LuError::Unopened(Unopened::Epoch)))
    }
}

/// Reads what a pool is that nobody has open. An error: it could not be opened.
pub async fn survey(found: Found) -> Result<Survey, PoolError> {
    let labels: Vec<Label> = found.labels().cloned().collect();
    let old = found.old_copies().cloned().collect();
    let may_know_less = found.may_know_less();
    // Each of its disks had this one when its LUs were last opened, or is known to have missed it.
    let current = labels.iter().filter(|label| !found.is_outdated(label));
    let oldest = current.map(|label| label.epoch).min().unwrap_or(0);
    let (mut failed, mut twice) = (None, Vec::new());
    let mut told = |flaw| match flaw {
        TableFlaw::Error(error) => drop(failed.get_or_insert(error)),
        TableFlaw::Firsts { lu, slabs } => twice.push((lu, slabs)),
        TableFlaw::Place { .. } | TableFlaw::Unlike { .. } | TableFlaw::Left { .. } => {}
    };
    let pool = found.look(&mut told).await;
    let (missing, lus, unfinished) = (pool.missing(), Vec::new(), Vec::new());
    let mut survey = Survey { labels, missing, old, lus, unfinished };
    if failed.is_none() {
        let lus: Vec<_> = pool.lus().into_iter().collect();
        for some in lus.chunks(LUS_AT_A_TIME) {
            let tasks: Vec<_> = some
                .iter()
                .filter_map(|(id, granted)| {
                    let Some(first_slab) = granted.first else {
                        survey.unfinished.extend((!may_know_less).then_some(*id));
                        return None;
                    };
                    let said = said(pool.clone(), (*id, first_slab), granted.clone(), oldest);
                    Some((*id, pool.core().spawn_task(said)))
                })
                .collect();
            for (id, task) in tasks {
                let said = task.await;
                let twice = twice.iter().find(|(lu, _)| *lu == id);
                let said = twice.map_or(said, |(_, slabs)| Err(Unsaid::Firsts(*slabs)));
                survey.lus.push(Surveyed { id, said });
            }
        }
    }
    // Nothing of it is open: what it knows of the disks is let go.
    pool.close().await?;
    failed.map_or(Ok(survey), Err)
}

async fn said(
    pool: Rc<Pool>,
    (lu, first_slab): ([u8; 16], u32),
    granted: Granted,
    oldest: u64,
) -> Result<Said, Unsaid> {
    let epoch = first_epoch(oldest + 1);
    if pool.must_have_copy(lu, &granted).is_err() {
        return said_by_best(&pool, lu, epoch).await.map_err(Unsaid::Part);
    }
    let site = pool.site(lu, first_slab);
    let (slabs, memory) = (&granted.slabs[..], &Arc::default());
    let whence = Whence { site, epoch, slabs, all: false, memory };
    let disks = pool.disks().map_err(LuError::from)?;
    Ok(said_in(read_left(&disks, whence, Err).await?, false))
}

/// What the best one says of its copies that are here, all of which have missed something.
async fn said_by_best(pool: &Pool, lu: [u8; 16], epoch: u64) -> Result<Said, LuError> {
    let best = pool.copies(lu)?.into_iter().find(|copy| copy.is_here);
    let group = best.ok_or(PoolError::NoCopy(lu))?.group;
    pool.take_alone(lu, group);
    Ok(said_in(pool.read_alone(lu, (group, epoch), false).await?, true))
}

fn said_in(Left { owner, .. }: Left, is_outdated: bool) -> Said {
    let layers: &Layers = owner.layers();
    let frozen = layers.ids().filter_map(|(number, id)| Some((id, layers.frozen(number)?.clone())));
    Said { about: owner.about().clone(), frozen: frozen.collect(), is_outdated }
}

#[cfg(test)]
mod tests;
