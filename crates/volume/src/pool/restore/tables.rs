//! Pages of slab tables of which neither place can be read.
//!
//! A slab that was given back may have been granted anew, to anybody, so of a page of a table the
//! backup is right only if nothing that matters has changed since. That is known where:
//!
//! - the pool was not opened and no disk has joined or left since: then no number of a slab was
//!   granted twice, and all that has a later one is missed by its LU;
//! - no slab has come and gone on the other disks, so that none has been there meanwhile;
//! - no LU has begun in one of these slabs since: its root would be there;
//! - every LU then has all that its maps and its journal name. The check looks at that last.
//!
//! Copies in other failure groups have ages, which grow while no table says so any more: there a
//! disk without its table is replaced.

use super::super::backup::BackedDisk;
use super::super::check::Of;
use super::super::home::{PoolError, TableFlaw, first_epoch};
use super::super::inspect::uuid;
use super::super::shape::GRANTS_PER_PAGE;
use super::super::slabs::{self, Grant, Slab};
use super::{Plan, Refused};

/// A page of a disk of the backup.
#[derive(Clone, Copy)]
struct Lost {
    slot: usize,
    disk: usize,
    page: usize,
}

impl Plan<'_> {
    /// Lays pages of slab tables over those that are lost. True: there are some, which count if the
    /// check finds nothing then.
    pub(super) async fn tables(&mut self) -> Result<bool, Refused> {
        let (pool, flaws) = self.look().await?;
        pool.close().await?;
        let lost: Vec<(String, u64)> = flaws
            .iter()
            .filter_map(|flaw| match flaw {
                TableFlaw::Error(PoolError::Table { disk, page, .. }) => {
                    Some((disk.clone(), *page))
                }
                _ => None,
            })
            .collect();
        if lost.is_empty() {
            return Ok(false);
        }
        let all = match self.all_lost(&lost).await? {
            Ok(all) => all,
            Err(why) => {
                self.refuse_tables(lost, &why);
                return Ok(false);
            }
        };
        all.iter().for_each(|lost| self.lay(*lost));
        // What contradicts itself then was not as the backup has it.
        let (pool, flaws) = self.look().await?;
        pool.close().await?;
        let is_odd = |flaw: &&TableFlaw| {
            matches!(flaw, TableFlaw::Error(_) | TableFlaw::Left { .. } | TableFlaw::Firsts { .. })
        };
        if flaws.iter().any(|flaw| is_odd(&flaw)) {
            let why = "slabs would have two places; they have moved since the backup";
            self.refuse_tables(lost, why);
            self.take_tables_off();
            return Ok(false);
        }
        all.into_iter().for_each(|lost| self.tell_of(lost));
        Ok(true)
    }

    fn refuse_tables(&mut self, lost: Vec<(String, u64)>, why: &str) {
        for (disk, page) in lost {
            self.refuse(Of::Disk(disk), format!("page {page} of its slab table: {why}"));
        }
    }

    /// The pages in the backup, if nothing that is known speaks against them.
    async fn all_lost(&self, lost: &[(String, u64)]) -> Result<Result<Vec<Lost>, String>, Refused> {
        if let Some(why) = self.has_changed().await? {
            return Ok(Err(why));
        }
        let mut all = Vec::new();
        for (name, page) in lost {
            let slot = self.disks.iter().position(|it| it.overlay.below().name() == name);
            let found = slot.and_then(|slot| Some((slot, self.backed(self.disks[slot].pv?)?)));
            let Some((slot, disk)) = found else {
                return Ok(Err("the backup does not have the disk".to_owned()));
            };
            let page = *page as usize;
            if self.backup.disks[disk].table.len() <= page {
                return Ok(Err("the backup does not have the page".to_owned()));
            }
            all.push(Lost { slot, disk, page });
        }
        for lost in &all {
            if let Some(why) = self.stranger(lost).await? {
                return Ok(Err(why));
            }
        }
        Ok(self.come_and_gone(&all).await?.map_or(Ok(all), Err))
    }

    fn backed(&self, pv: [u8; 16]) -> Option<usize> {
        self.backup.disks.iter().position(|disk| disk.label.pv == pv)
    }

    /// Whether the pool was opened or its disks have changed since the backup.
    async fn has_changed(&self) -> Result<Option<String>, Refused> {
        let Some(found) = self.find().await else {
            return Ok(Some("the pool is not all here".into()));
        };
        let labels: Vec<_> = found.labels().cloned().collect();
        let epoch = self.backup.epoch();
        let groups = labels.iter().any(|label| label.group != labels[0].group);
        let is_same = labels.iter().all(|label| label.epoch == epoch)
            && self.backup.disks.iter().all(|disk| disk.label.epoch == epoch)
            && labels.len() == self.backup.disks.len();
        Ok(if found.absent() > 0 {
            Some("not all disks of the pool are here".to_owned())
        } else if groups {
            Some("another failure group has copies: take the disk out, and add it anew".to_owned())
        } else if !is_same {
            Some(format!(
                "the pool was opened, or its disks have changed, since the backup was taken: it is \
                 of opening {epoch}, and the disks are of {}",
                found.epoch()
            ))
        } else {
            None
        })
    }

    /// An LU that has begun there since.
    async fn stranger(&self, lost: &Lost) -> Result<Option<String>, Refused> {
        let backed = &self.backup.disks[lost.disk];
        let since = first_epoch(self.backup.epoch());
        for (index, slab) in places(backed, lost.page) {
            let own = match slab {
                Slab::Granted(Grant { lu, is_first: true, .. }) => Some(lu),
                _ => None,
            };
            for page in self.roots_at(lost.slot, backed, index).await? {
                if Some(page.owner) != own && page.epoch >= since {
                    return Ok(Some(format!(
                        "the root of LU {} lies in a slab that was not its when the backup was \
                         taken",
                        uuid(page.owner)
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Whether slabs have left another disk again since.
    async fn come_and_gone(&self, lost: &[Lost]) -> Result<Option<String>, Refused> {
        let (pool, _) = self.look().await?;
        let mut gone = None;
        for (disk, backed) in self.backup.disks.iter().enumerate() {
            let now = pool.places_on(backed.label.pv);
            let is_lost = |index: u32| {
                let page = index as usize / GRANTS_PER_PAGE as usize;
                lost.iter().any(|lost| (lost.disk, lost.page) == (disk, page))
            };
            let is_sole = self.backup.disks.len() == 1;
            let changed = backed.places().zip(now).any(|((index, then), now)| {
                let (before, after) = (then.generation(), now.generation());
                let is_new = matches!(now, Slab::Granted(_)) && after == before + 1;
                !is_lost(index) && after != before && !is_new
            });
            if changed && !is_sole {
                let pv = uuid(backed.label.pv);
                gone = Some(format!("slabs have come and gone on disk {pv} since the backup"));
            }
        }
        pool.close().await?;
        Ok(gone)
    }

    fn lay(&self, Lost { disk, page, .. }: Lost) {
        let backed = &self.backup.disks[disk];
        let image = &backed.table[page].page;
        for at in backed.layout.table_places(page as u64) {
            self.put(backed.label.pv, at, image);
        }
    }

    fn tell_of(&mut self, Lost { slot, disk, page }: Lost) {
        let backed = &self.backup.disks[disk];
        let firsts = places(backed, page).filter_map(|(_, slab)| match slab {
            Slab::Granted(Grant { lu, is_first: true, .. }) => Some(uuid(lu)),
            _ => None,
        });
        let firsts: Vec<String> = firsts.collect();
        let lus = match firsts.is_empty() {
            true => String::new(),
            false => format!(
                "; LUs that begin there, of which one that was removed since is back: {}",
                firsts.join(", ")
            ),
        };
        let of = Of::Disk(self.disks[slot].overlay.below().name().to_owned());
        self.restore(of, format!("page {page} of its slab table{lus}"));
    }

    fn take_tables_off(&self) {
        for slot in &self.disks {
            let kind = slabs::KIND;
            slot.overlay.pages().retain(|_, page| page.says().0.kind != kind);
        }
    }
}

/// The places of a page of a table.
fn places(disk: &BackedDisk, page: usize) -> impl Iterator<Item = (u32, Slab)> + '_ {
    let per_page = GRANTS_PER_PAGE as usize;
    disk.places().skip(page * per_page).take(per_page)
}
