//! Labels of which neither end can be read.
//!
//! Which disk it is, is told by what else lies on it; what its label says, by the others. A disk
//! gets the epoch that the others have if the pool was not used without any disk since the backup,
//! or if it was used with this one: its slab table says so. Otherwise it gets that of the backup:
//! the others know that it was missing, and it is brought up to date when the pool is opened.

use super::super::backup::{BackedDisk, Backup};
use super::super::check::Of;
use super::super::disks::read_page;
use super::super::home::{pool_epoch, read_ends};
use super::super::inspect::uuid;
use super::super::label::{End, Label};
use super::super::page::{Header, Page, newest};
use super::super::root::{BODY, HEAD, Site};
use super::super::shape::{BLOCK_BYTES, Layout};
use super::super::slabs::{self, Grant, Slab};
use super::{Plan, Refused};

/// What a disk without a label has of one of the backup.
#[derive(Clone, Copy, Debug, Default)]
struct Traces {
    /// Grants and roots that are the same.
    same: usize,
    /// The last epoch in which something was written there.
    epoch: u64,
}

/// Why it is not that one.
type Unlike = String;

/// What a disk is to be.
struct Match {
    slot: usize,
    disk: usize,
    traces: Traces,
}

impl Plan<'_> {
    /// Gives labels to disks that have none. `openings`: how often the pool was opened, if somebody
    /// knows.
    pub(super) async fn labels(&mut self, openings: Option<u64>) -> Result<(), Refused> {
        let (mut known, mut bare) = (Vec::new(), Vec::new());
        for slot in 0..self.disks.len() {
            let below = self.disks[slot].overlay.below().clone();
            let ends = read_ends(&self.core, &below).await?;
            let newest = ends.into_iter().flatten().max_by_key(|label| label.epoch);
            let Some(label) = newest else {
                bare.push(slot);
                continue;
            };
            if label.pool != self.backup.id {
                let (disk, pool) = (below.name().to_owned(), label.pool_name);
                let of = self.backup.name.clone();
                return Err(Refused::OtherPool { disk, pool, of });
            }
            self.disks[slot].pv = Some(label.pv);
            known.push(label);
        }
        if bare.is_empty() {
            return Ok(());
        }
        let matches = self.matches(&bare, &known).await?;
        let last = newest_label(&known).cloned();
        let wants = last.as_ref().map_or_else(
            || newest_of(self.backup).map_or(0, |label| label.members),
            |label| label.members,
        );
        let here = known.iter().filter(|label| !label.has_left()).count() + bare.len();
        if here != usize::from(wants) {
            let what = format!(
                "the pool has {wants} disks, and {here} were named: its labels are restored when \
                 all of them are here"
            );
            self.refuse(Of::Pool, what);
            return Ok(());
        }
        for found in matches {
            match self.label_for(&found, (last.as_ref(), &known), openings) {
                Ok(label) => self.label(found.slot, label),
                Err(why) => self.refuse(self.of_disk(found.slot), why),
            }
        }
        Ok(())
    }

    /// Which of the disks of the backup these are.
    async fn matches(&mut self, bare: &[usize], known: &[Label]) -> Result<Vec<Match>, Refused> {
        let backup = self.backup;
        let is_missing = |disk: &&BackedDisk| known.iter().all(|it| it.pv != disk.label.pv);
        let mut matches: Vec<Match> = Vec::new();
        for &slot in bare {
            let (mut fit, mut why) = (Vec::new(), Vec::new());
            for (disk, backed) in backup.disks.iter().enumerate().filter(|(_, it)| is_missing(it)) {
                match self.traces(slot, backed).await? {
                    Ok(traces) => fit.push(Match { slot, disk, traces }),
                    Err(unlike) => why.push(unlike),
                }
            }
            // A disk that nothing was ever written to is like any other one.
            let most = fit.iter().map(|it| it.traces.same).max().unwrap_or(0);
            fit.retain(|it| it.traces.same == most);
            let what = match (fit.len(), why.len()) {
                (1, _) => {
                    matches.extend(fit);
                    continue;
                }
                (0, 0) => "its labels cannot be read, and no disk of the backup is missing".into(),
                (0, _) => format!("it is not the disk of the backup: {}", why.join("; ")),
                (_, _) => "it may be more than one of the disks that are missing".to_owned(),
            };
            self.refuse(self.of_disk(slot), what);
        }
        let disks: Vec<usize> = matches.iter().map(|it| it.disk).collect();
        let is_sole = |one: &Match| disks.iter().filter(|disk| **disk == one.disk).count() == 1;
        let (sole, twice): (Vec<Match>, Vec<Match>) = matches.into_iter().partition(is_sole);
        for Match { slot, .. } in twice {
            let what = "it looks like another disk that was named; one of them is a copy";
            self.refuse(self.of_disk(slot), what.to_owned());
        }
        Ok(sole)
    }

    /// What a disk has of one of the backup.
    async fn traces(
        &self,
        slot: usize,
        backed: &BackedDisk,
    ) -> Result<Result<Traces, Unlike>, Refused> {
        let below = self.disks[slot].overlay.below();
        let size = below.device(&self.core).geometry().size;
        if size != backed.label.size {
            return Ok(Err(format!("it has {size} bytes, and that one {}", backed.label.size)));
        }
        let (mut traces, mut is_read) = (Traces::default(), false);
        for (number, table) in (0..).zip(&backed.table) {
            let places = backed.layout.table_places(number);
            let [one, other] =
                [self.page(slot, places[0]).await?, self.page(slot, places[1]).await?];
            let pool = backed.label.lineage();
            let read = [&one, &other].map(|page| slabs::decode(page, &pool, number));
            let which = newest([0, 1].map(|it| read[it].as_ref().map(|it| it.0).map_err(|it| *it)));
            let Some(Ok((header, slabs))) = which.ok().map(|which| &read[which]) else { continue };
            is_read = true;
            if header.turn < table.page.says().0.turn {
                return Ok(Err("its slab table is older than the backup".to_owned()));
            }
            traces.epoch = traces.epoch.max(header.epoch);
            for (now, then) in slabs.iter().zip(&table.slabs) {
                match (now, then) {
                    _ if now.generation() < then.generation() => {
                        return Ok(Err("its slab table is older, or another one".to_owned()));
                    }
                    (Slab::Granted(now), Slab::Granted(then))
                        if now.generation == then.generation =>
                    {
                        if (now.lu, now.number) != (then.lu, then.number) {
                            return Ok(Err("its slab table is another one".to_owned()));
                        }
                        traces.same += 1;
                    }
                    _ => {}
                }
            }
        }
        let firsts = backed.places().filter_map(|(index, slab)| match slab {
            Slab::Granted(grant) if grant.is_first => Some((index, grant)),
            _ => None,
        });
        for (index, grant) in firsts {
            let found = self.roots_at(slot, backed, index).await?;
            let own = found.into_iter().filter(|header| header.owner == grant.lu);
            if let Some(newest) = own.max_by_key(|header| (header.epoch, header.turn)) {
                if self.is_older(&grant, newest.turn) {
                    return Ok(Err("a root on it is older than the backup".to_owned()));
                }
                traces.same += 1;
                traces.epoch = traces.epoch.max(pool_epoch(newest.epoch));
            }
        }
        match is_read || traces.same > 0 {
            true => Ok(Ok(traces)),
            false => Ok(Err("nothing on it tells of this pool".to_owned())),
        }
    }

    /// One of two heads may be damaged too.
    fn is_older(&self, grant: &Grant, turn: u64) -> bool {
        let backed = self.backup.lus.get(&grant.lu).and_then(|lu| lu.turn());
        backed.is_some_and(|backed| turn + 1 < backed)
    }

    /// Pages of roots at the beginning of a slab, with the LUs that they are of as owners.
    pub(super) async fn roots_at(
        &self,
        slot: usize,
        backed: &BackedDisk,
        index: u32,
    ) -> Result<Vec<Header>, Refused> {
        let Some(start) = backed.layout.slab(index) else { return Ok(Vec::new()) };
        let mut pages = Vec::new();
        for block in Site::begins(backed.layout.shape()) {
            let page = self.page(slot, start + block * BLOCK_BYTES).await?;
            let (header, _) = page.says();
            if page.is_whole() && [HEAD, BODY].contains(&header.kind) {
                let owner = backed.label.lineage().turned(header.owner);
                pages.push(Header { owner, ..header });
            }
        }
        Ok(pages)
    }

    pub(super) async fn page(&self, slot: usize, at: u64) -> Result<Page, Refused> {
        let below = self.disks[slot].overlay.below();
        let of = |error| Refused::Disk { disk: below.name().to_owned(), error };
        read_page(&*below.device(&self.core), at).await.map_err(of)
    }

    /// What the label of a disk says.
    fn label_for(
        &self,
        found: &Match,
        (last, known): (Option<&Label>, &[Label]),
        openings: Option<u64>,
    ) -> Result<Label, String> {
        let backed = &self.backup.disks[found.disk].label;
        let written = found.traces.epoch;
        let groups = self.backup.disks.iter().any(|it| it.label.group != backed.group);
        let Some(last) = last else {
            if groups {
                return Err(
                    "no label of the pool can be read, so nobody knows which failure group has \
                     everything"
                        .to_owned(),
                );
            }
            let all = newest_of(self.backup).unwrap_or(backed);
            let epoch = all.epoch.max(written).max(openings.unwrap_or(0));
            return Ok(Label { epoch, missed: all.missed, ..backed.clone() });
        };
        if written > last.epoch {
            return Err("it was used later than the other disks, which are old copies".to_owned());
        }
        let mate = newest_label(known.iter().filter(|label| label.group == backed.group));
        let was_counted = newest_of(self.backup).is_some_and(|it| it.members == last.members);
        let group_members = match mate {
            Some(mate) => mate.group_members,
            None if was_counted => backed.group_members,
            None => {
                return Err("disks have joined or left since, and nobody else is in its failure \
                            group"
                    .to_owned());
            }
        };
        let is_behind = mate.map_or(groups || backed.is_behind, |mate| mate.is_behind);
        // What it has missed since nobody knows.
        let as_of = if is_behind { backed.as_of.or(Some(1)) } else { None };
        let was_here = last.missed <= backed.epoch || written >= last.missed;
        let (epoch, missed) = match was_here {
            true => (last.epoch, last.missed),
            false => (backed.epoch, backed.missed),
        };
        let (members, forces, forced) = (last.members, last.forces, last.forced);
        Ok(Label {
            members,
            group_members,
            is_behind,
            as_of,
            epoch,
            missed,
            forces,
            forced,
            ..backed.clone()
        })
    }

    fn label(&mut self, slot: usize, label: Label) {
        let of = self.of_disk(slot);
        let (pv, epoch) = (uuid(label.pv), label.epoch);
        let Ok(layout) = Layout::new(label.shape, label.size) else { return };
        self.disks[slot].pv = Some(label.pv);
        for (end, at) in [End::Front, End::Back].into_iter().zip(layout.labels()) {
            self.put(label.pv, at, &label.encode(end));
        }
        self.restore(of, format!("its label: disk {pv}, of opening {epoch} of the pool"));
    }

    fn of_disk(&self, slot: usize) -> Of {
        Of::Disk(self.disks[slot].overlay.below().name().to_owned())
    }
}

fn newest_of(backup: &Backup) -> Option<&Label> {
    newest_label(backup.disks.iter().map(|disk| &disk.label))
}

/// Of labels of disks that have not left.
fn newest_label<'a>(labels: impl IntoIterator<Item = &'a Label>) -> Option<&'a Label> {
    let members = labels.into_iter().filter(|label| !label.has_left());
    members.max_by_key(|label| (label.epoch, label.missed))
}
