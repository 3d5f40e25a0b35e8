//! Taking a backup, step by step: whoever takes the steps has the pace, and may stop at any time.

use std::collections::VecDeque;
use std::sync::Arc;

use block::Error;

use super::super::disks::Looker;
use super::super::home::{Granted, Pool, PoolError};
use super::super::inspect::uuid;
use super::super::journal::Spot;
use super::super::lu::{Copied, Lu, LuError, read_root_pages};
use super::super::map::{Form, MapPage};
use super::super::owner::{LayerId, Opening, PageId, Unopened};
use super::super::page::{Header, Page};
use super::super::root::{Root, Site};
use super::form::{Part, Writer};

/// What a step gives at least, as long as there is more.
const STEP_BYTES: usize = 1 << 20;
/// Pages of an LU that nobody has open, of a step.
const PAGES_PER_STEP: usize = 256;
/// Times that an LU is begun anew because it was opened, closed or changed meanwhile.
const TRIES: u32 = 16;

/// A backup that is being taken.
pub struct Taking {
    writer: Writer,
    made: u64,
    is_open: bool,
    stage: Stage,
    lus: VecDeque<[u8; 16]>,
    /// What LUs have in slabs, of those that are done.
    bytes: u64,
    pub lacks: Vec<Lack>,
}

/// Something that is not in the backup, because it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub lu: [u8; 16],
    pub what: String,
}

enum Stage {
    Disks,
    Lus(Option<Box<Under>>),
    Closed,
}

/// The LU that is being read.
struct Under {
    id: [u8; 16],
    way: Way,
    tries: u32,
}

enum Way {
    /// By those who have it open, as this copy, when they have begun.
    Open(Option<u64>),
    Closed(Box<Closed>),
}

/// An LU that nobody has open, as its root says.
struct Closed {
    granted: Granted,
    site: Site,
    root: Vec<Page>,
    header: Header,
    layers: Vec<(u32, LayerId)>,
    turn: u64,
    left: VecDeque<(PageId, Spot)>,
}

impl Taking {
    /// Of a pool that is open. `made`: when, in seconds since 1970.
    pub fn new(made: u64) -> Self {
        let (writer, stage, lus) = (Writer::default(), Stage::Disks, VecDeque::new());
        Self { writer, made, is_open: true, stage, lus, bytes: 0, lacks: Vec::new() }
    }

    /// Of one that is only looked at, and of which no slab table is damaged.
    pub fn of_looked(made: u64) -> Self {
        Self { is_open: false, ..Self::new(made) }
    }

    /// The next bytes of the file, of the pool on its own core; none when there are no more. `open`
    /// gives the LUs that are open.
    pub async fn step(
        &mut self,
        pool: &Pool,
        open: impl Fn([u8; 16]) -> Option<Arc<Lu>>,
    ) -> Result<Option<Vec<u8>>, PoolError> {
        while self.writer.waiting() < STEP_BYTES {
            match &mut self.stage {
                Stage::Disks => {
                    self.disks(pool).await?;
                    self.stage = Stage::Lus(None);
                }
                Stage::Lus(None) => match self.lus.pop_front() {
                    Some(id) => {
                        let way = Way::Open(None);
                        let under = Under { id, way, tries: 0 };
                        self.stage = Stage::Lus(Some(Box::new(under)));
                    }
                    None => {
                        self.writer.close();
                        self.stage = Stage::Closed;
                    }
                },
                Stage::Lus(under) => {
                    let under = under.take().expect("it was looked at");
                    let next = self.lu(pool, *under, &open).await;
                    self.stage = Stage::Lus(next.map(Box::new));
                }
                Stage::Closed => break,
            }
        }
        let bytes = self.writer.take();
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// Labels and slab tables, and which LUs there are.
    async fn disks(&mut self, pool: &Pool) -> Result<(), PoolError> {
        let lus = pool.lus();
        let slabs: usize = lus.values().map(|granted| granted.slabs.len()).sum();
        let bytes = slabs as u64 * pool.shape().slab_bytes();
        let (id, name, made) = (pool.id(), pool.name().to_owned(), self.made);
        self.writer.put(&Part::Pool { id, name, made, bytes });
        for said in pool.said(self.is_open).await? {
            self.writer.put(&Part::Disk { name: said.name, label: said.label });
            said.table.into_iter().for_each(|page| self.writer.put(&Part::Table(page)));
        }
        self.lus = lus.into_keys().collect();
        Ok(())
    }

    /// Goes on with an LU. None: that was the last of it.
    async fn lu(
        &mut self,
        pool: &Pool,
        mut under: Under,
        open: impl Fn([u8; 16]) -> Option<Arc<Lu>>,
    ) -> Option<Under> {
        let id = under.id;
        // It is gone, or was never there.
        let granted = pool.granted(id).filter(|granted| granted.first.is_some())?;
        let done = match (under.way, open(id)) {
            (Way::Open(number), Some(lu)) => self.open_lu(id, &lu, number).await,
            (Way::Open(_), None) => self.begin_closed(pool, id, granted.clone()).await,
            (Way::Closed(closed), None) => self.closed_lu(pool, id, closed).await,
            (Way::Closed(_), Some(_)) => Ok(Some(Way::Open(None))),
        };
        match done {
            Ok(Some(way)) => Some(Under { way, ..under }),
            Ok(None) => {
                let slabs = pool.granted(id).map_or(0, |granted| granted.slabs.len());
                self.bytes += slabs as u64 * pool.shape().slab_bytes();
                self.writer.put(&Part::LuEnd { bytes: self.bytes });
                None
            }
            Err(_) if under.tries < TRIES => {
                (under.way, under.tries) = (Way::Open(None), under.tries + 1);
                Some(under)
            }
            Err(why) => {
                let first_slab = granted.first.unwrap_or_default();
                self.writer.put(&Part::Lu { id, first_slab });
                self.lacks(id, why);
                None
            }
        }
    }

    fn lacks(&mut self, lu: [u8; 16], what: String) {
        self.writer.put(&Part::Lacks(what.clone()));
        self.lacks.push(Lack { lu, what });
    }

    async fn open_lu(
        &mut self,
        id: [u8; 16],
        lu: &Arc<Lu>,
        number: Option<u64>,
    ) -> Result<Option<Way>, String> {
        let copied = lu.back_up(number).await.map_err(|error| error.to_string())?;
        let Copied { number: now, first_slab, pages, lacks, is_last } = copied;
        if number.is_none() {
            self.writer.put(&Part::Lu { id, first_slab });
        }
        pages.into_iter().for_each(|page| self.writer.put(&Part::Page(page)));
        lacks.into_iter().for_each(|what| self.lacks(id, what));
        Ok((!is_last).then_some(Way::Open(Some(now))))
    }

    async fn begin_closed(
        &mut self,
        pool: &Pool,
        id: [u8; 16],
        granted: Granted,
    ) -> Result<Option<Way>, String> {
        let first_slab = granted.first.unwrap_or_default();
        let site = pool.site(id, first_slab);
        let disks = pool.disks().map_err(|error| error.to_string())?;
        self.writer.put(&Part::Lu { id, first_slab });
        let read = read_root_pages(&disks, &site).await;
        let parts = read.and_then(|pages| Ok((decoded(&site, &pages)?, pages)));
        let (root, pages) = match parts {
            Ok(found) => found,
            Err(error) => {
                self.lacks(id, error.to_string());
                return Ok(None);
            }
        };
        let (header, turn) = (pages[0].says().0, root.turn);
        let layers = root.layers.iter().map(|layer| (layer.number, layer.id)).collect();
        let left = Opening::new(site, u64::MAX, root, &Arc::default()).pages().into();
        let root = pages;
        let closed = Closed { granted, site, root, header, layers, turn, left };
        Ok(Some(Way::Closed(Box::new(closed))))
    }

    async fn closed_lu(
        &mut self,
        pool: &Pool,
        id: [u8; 16],
        mut closed: Box<Closed>,
    ) -> Result<Option<Way>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let disks = pool.disks().map_err(|error| text(&error))?;
        let form = Form::new(closed.site.shape);
        let some = closed.left.len().min(PAGES_PER_STEP);
        let (mut pages, mut lacks) = (Vec::new(), Vec::new());
        let take = |(layer, number): PageId, page: Page| {
            let owner = closed.layers.iter().find(|(other, _)| *other == layer);
            let owner = owner.map_or([0; 16], |(_, id)| *id);
            match MapPage::decode(&page, form, (&owner, number), closed.turn) {
                Ok(_) => pages.push(page),
                Err(flaw) => lacks.push(Unopened::Map { id: (layer, number), flaw }.to_string()),
            }
            Ok::<_, Error>(())
        };
        let looker = Looker::new(&disks);
        looker.read_pages(closed.left.drain(..some), take).await.map_err(|error| text(&error))?;
        if !closed.left.is_empty() {
            self.put(id, pages, lacks);
            return Ok(Some(Way::Closed(closed)));
        }
        // Whoever has used it meanwhile may have used its pages for something else.
        let now = read_root_pages(&disks, &closed.site).await.map_err(|error| text(&error))?;
        let is_still = pool.granted(id).as_ref() == Some(&closed.granted);
        if now[0].says().0 != closed.header || !is_still {
            return Err(format!("LU {} changes all the time", uuid(id)));
        }
        pages.extend(closed.root);
        self.put(id, pages, lacks);
        Ok(None)
    }

    fn put(&mut self, id: [u8; 16], pages: Vec<Page>, lacks: Vec<String>) {
        pages.into_iter().for_each(|page| self.writer.put(&Part::Page(page)));
        lacks.into_iter().for_each(|what| self.lacks(id, what));
    }
}

fn decoded(site: &Site, pages: &[Page]) -> Result<Root, LuError> {
    let head = site.newest([&pages[0], &pages[0]]).map_err(LuError::Root)?;
    head.root(site, &pages[1..]).map_err(LuError::Root)
}
