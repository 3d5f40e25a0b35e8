//! Roots of LUs, and pages of their maps.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use block::{Error, ErrorKind};

use super::super::backup::BackedLu;
use super::super::check::{Of, closed_lu};
use super::super::disks::{Disks, Looker};
use super::super::home::Pool;
use super::super::journal::{LayerNumber, Spot};
use super::super::lu::read_root;
use super::super::map::{Form, MapPage, Place};
use super::super::owner::{LayerId, Opening, PageId, page_of_map};
use super::super::page::{Flaw, PAGE_BYTES, Page};
use super::super::root::{BODY, HEAD, Root, RootLayer, Site};
use super::{Plan, Refused};

/// An LU that is damaged.
pub(super) struct Damaged<'a> {
    pub site: Site,
    pub pool: &'a Rc<Pool>,
    pub disks: Rc<Disks>,
    pub backed: &'a BackedLu,
}

/// A page of a map that cannot be read.
struct Lost {
    id: PageId,
    at: Spot,
    flaw: Flaw,
}

/// What the root says now, and what that of the backup did.
struct Roots<'a> {
    now: &'a Root,
    then: &'a Root,
    /// They are the same one.
    is_same: bool,
}

impl Plan<'_> {
    /// Restores what is damaged of LUs.
    pub(super) async fn lus(&mut self) -> Result<(), Refused> {
        let (pool, _) = self.look().await?;
        let mut done = Ok(());
        for (id, granted) in pool.lus() {
            let Some(first_slab) = granted.first else { continue };
            let is_damaged = closed_lu(&pool, id).await.is_some_and(|report| report.is_damaged());
            if !is_damaged {
                continue;
            }
            if let Err(error) = pool.must_have_copy(id, &granted) {
                self.refuse(Of::Lu { id, name: None }, error.to_string());
                continue;
            }
            let site = pool.site(id, first_slab);
            done = self.lu(&pool, site).await;
            if done.is_err() {
                break;
            }
        }
        pool.close().await?;
        done
    }

    async fn lu(&mut self, pool: &Rc<Pool>, site: Site) -> Result<(), Refused> {
        let backup = self.backup;
        let of = Of::Lu { id: site.lu, name: None };
        let Some(backed) = backup.lus.get(&site.lu) else {
            self.refuse(of, "the backup has nothing of it".to_owned());
            return Ok(());
        };
        if backed.first_slab != site.first_slab {
            self.refuse(of, "it began elsewhere when the backup was taken".to_owned());
            return Ok(());
        }
        let disks = pool.disks()?;
        let damaged = Damaged { site, pool, disks, backed };
        self.root(&damaged).await?;
        match read_root(&damaged.disks, &site).await {
            Ok(root) => self.maps(&damaged, root).await,
            // The check says it too.
            Err(_) => Ok(()),
        }
    }

    /// Restores the root if it is damaged, and the one of the backup is the last that was written.
    async fn root(&mut self, lu: &Damaged<'_>) -> Result<(), Refused> {
        let (site, of) = (lu.site, Of::Lu { id: lu.site.lu, name: None });
        let Some((head, body, then)) = lu.backed.root(&site) else {
            self.refuse(of, "the backup has no root of it".to_owned());
            return Ok(());
        };
        let [one, other] = site.heads();
        let heads = [self.read(lu, one).await?, self.read(lu, other).await?];
        let which = (then.turn % 2) as usize;
        let check = |which: usize| heads[which].check(HEAD, &site.owner(), which as u64);
        let is_there = heads[which] == *head && site.newest([&heads[0], &heads[1]]).is_ok();
        if !is_there {
            let is_damaged = check(which).is_err() || check(1 - which).is_err();
            let is_last = matches!(check(which), Err(Flaw::Blank | Flaw::Rotten))
                && check(1 - which).is_ok_and(|other| other.turn + 1 == then.turn);
            if !is_last {
                if is_damaged && read_root(&lu.disks, &site).await.is_err() {
                    let what = format!(
                        "its root: the backup has that of turn {}, and nothing says that no later \
                         one was written",
                        then.turn
                    );
                    self.refuse(of, what);
                }
                return Ok(());
            }
        }
        let read = site.newest([head, head]).ok().and_then(|head| head.body(&site));
        let Some(spots) = read else { return Ok(()) };
        let mut count = 0;
        for (number, (at, page)) in (0..).zip(spots.into_iter().zip(body)) {
            let found = self.read(lu, at).await?;
            let is_good = found.check(BODY, &site.owner(), number).is_ok() && found == *page;
            if !is_good {
                self.put_all(lu, at, page);
                count += 1;
            }
        }
        if !is_there {
            self.put_all(lu, site.heads()[which], head);
        }
        let what = match (is_there, count) {
            (true, 0) => return Ok(()),
            (true, count) => format!("{count} pages of the body of its root, whose head is there"),
            (false, count) => format!(
                "its root, of turn {}, with {count} pages of its body: the other one is of the \
                 turn before",
                then.turn
            ),
        };
        self.restore(Of::Lu { id: site.lu, name: Some(then.about.name) }, what);
        Ok(())
    }

    /// Restores pages of its maps.
    async fn maps(&mut self, lu: &Damaged<'_>, now: Root) -> Result<(), Refused> {
        let (site, name) = (lu.site, now.about.name.clone());
        let form = Form::new(site.shape);
        let layers: BTreeMap<LayerNumber, RootLayer> =
            now.layers.iter().map(|layer| (layer.number, layer.clone())).collect();
        let pages = Opening::new(site, u64::MAX, now.clone(), &Arc::default()).pages();
        let mut lost = Vec::new();
        for (id, at) in pages {
            let page = self.read(lu, at).await?;
            let owner = layers.get(&id.0).map_or([0; 16], |layer| layer.id);
            if let Err(flaw) = MapPage::decode(&page, form, (&owner, id.1), now.turn) {
                lost.push(Lost { id, at, flaw });
            }
        }
        let Some((head, _, then)) = lu.backed.root(&site) else { return Ok(()) };
        let is_same = self.read(lu, site.heads()[(now.turn % 2) as usize]).await? == *head;
        for lost in lost {
            let Some(layer) = layers.get(&lost.id.0) else { continue };
            let roots = Roots { now: &now, then: &then, is_same };
            let bytes = form.extents() * site.shape.extent_bytes();
            let from = lost.id.1 * bytes;
            let to = (from + bytes).min(layer.frozen.size.max(now.about.size));
            let what = format!(
                "{}, of bytes {from} to {to}{}",
                page_of_map(lost.id),
                match &layer.frozen.name[..] {
                    "" => String::new(),
                    name => format!(" of snapshot {name}"),
                }
            );
            let of = Of::Lu { id: site.lu, name: Some(name.clone()) };
            let proven = match lost.flaw {
                Flaw::Blank | Flaw::Rotten => self.proven(lu, (layer.id, &lost), roots).await?,
                // Somebody has written that, and meant it.
                _ => Err("the backup is not asked for what was written there"),
            };
            match proven {
                Ok((page, why)) => {
                    self.put_all(lu, lost.at, &page);
                    self.restore(of, format!("{what}: {why}"));
                }
                Err(why) => self.refuse(of, format!("{what} cannot be read: {}; {why}", lost.flaw)),
            }
        }
        Ok(())
    }

    /// The page as it counts, and why; or why the backup is of no use.
    async fn proven(
        &self,
        lu: &Damaged<'_>,
        (layer, lost): (LayerId, &Lost),
        Roots { now, then, is_same }: Roots<'_>,
    ) -> Result<Result<(Page, &'static str), &'static str>, Refused> {
        let (number, page_number) = lost.id;
        let page = self.backup.map_page(lu.backed, (layer, page_number)).await;
        let Some(page) = page.map_err(Refused::File)? else {
            return Ok(Err("the backup does not have it"));
        };
        let form = Form::new(lu.site.shape);
        let turn = now.turn.min(then.turn);
        if MapPage::decode(&page, form, (&layer, page_number), turn).is_err() {
            return Ok(Err("that of the backup is of another time than its root"));
        }
        if is_same {
            return Ok(Ok((page, "nothing was written to maps since the backup")));
        }
        let of = |root: &Root| {
            place_of(root, (number, layer), page_number, lu.site.shape.pages_per_chunk())
        };
        let (Some(at), Some(was)) = (of(now), of(then)) else {
            return Ok(Err("the backup does not say where it was"));
        };
        if at != was {
            return Ok(Err("it was written since the backup"));
        }
        if is_untouched(now, then, number) {
            return Ok(Ok((page, "its layer was frozen then, and nothing below it is gone since")));
        }
        if now.layers.iter().any(|it| it.number == number && it.frozen.is_going) {
            return Ok(Err("its layer is being let go"));
        }
        // The other one of its two places.
        let other = self.read(lu, Spot { block: lost.at.block ^ 1, ..lost.at }).await?;
        let is_older = MapPage::decode(&other, form, (&layer, page_number), page.says().0.turn);
        Ok(match is_older {
            Ok(_) => Ok((page, "its other place was not written since the backup")),
            Err(_) => Err("its other place does not say that it was not written since the backup"),
        })
    }

    /// A page of an LU. One that its disk cannot read is blank: it may be written again.
    pub(super) async fn read(&self, lu: &Damaged<'_>, at: Spot) -> Result<Page, Refused> {
        let mut found = Page::of_bytes(&[0; PAGE_BYTES]);
        let take = |(), page| {
            found = page;
            Ok::<_, Error>(())
        };
        match Looker::new(&lu.disks).read_pages([((), at)], take).await {
            Err(error) if error.kind() != ErrorKind::Medium => {
                let places = lu.pool.whereabouts(at);
                let disk = places.map_or("a disk of the pool".to_owned(), |(disk, _)| disk);
                Err(Refused::Disk { disk, error })
            }
            _ => Ok(found),
        }
    }

    /// At every place that counts.
    fn put_all(&self, lu: &Damaged<'_>, at: Spot, page: &Page) {
        for (pv, offset) in lu.pool.places_of(at) {
            self.put(pv, offset, page);
        }
    }
}

/// Where a page of a map lies by a root: its chunk, and which of the two places counts.
fn place_of(
    root: &Root,
    (number, id): (LayerNumber, LayerId),
    page: u64,
    per_chunk: u64,
) -> Option<(Place, bool)> {
    let layer = root.layers.iter().find(|layer| (layer.number, layer.id) == (number, id))?;
    let chunk = layer.chunks.get(&(page / per_chunk))?;
    Some((chunk.place, *chunk.pages.get(&page)?))
}

/// Whether a layer was frozen when the backup was taken, and nothing was folded into it since: what
/// it stands on is there as it was.
fn is_untouched(now: &Root, then: &Root, number: LayerNumber) -> bool {
    if [now.about.source.is_some(), then.about.source.is_some()].contains(&true) {
        return false;
    }
    let chain = |root: &Root| {
        let find = |number| root.layers.iter().find(|layer| layer.number == number).cloned();
        let below = |layer: &RootLayer| layer.below.and_then(find);
        let all = std::iter::successors(find(number), below);
        all.map(|layer| (layer.id, layer.frozen.is_going)).collect::<Vec<_>>()
    };
    let is_frozen = number != now.top && number != then.top;
    let chain_now = chain(now);
    is_frozen && chain_now == chain(then) && chain_now.iter().all(|(_, is_going)| !is_going)
}
