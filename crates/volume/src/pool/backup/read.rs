//! What a backup says: everything but pages of maps, which are read when somebody asks for them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use block::{Buffer, Device, Error, Request};
use rt::Core;

use super::super::disks::Backing;
use super::super::label::{End, Label};
use super::super::map;
use super::super::owner::LayerId;
use super::super::page::{Owner, PAGE_BYTES, Page};
use super::super::root::{BODY, HEAD, Root, Site};
use super::super::shape::Layout;
use super::super::slabs::{self, Slab};
use super::form::{Part, Reader, Unfit};

/// What is read of the file at a time.
const PIECE_BYTES: u64 = 256 << 10;

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("{file}: {why}")]
    Unfit { file: String, why: Unfit },
    #[error("{file}: {error}")]
    Disk { file: String, error: Error },
}

/// A backup that was read, and found whole.
pub struct Backup {
    pub id: Owner,
    pub name: String,
    /// When it was begun, in seconds since 1970.
    pub made: u64,
    pub(in super::super) disks: Vec<BackedDisk>,
    pub(in super::super) lus: BTreeMap<Owner, BackedLu>,
    file: Rc<dyn Device>,
}

/// A disk as it was.
pub struct BackedDisk {
    pub label: Label,
    pub layout: Layout,
    /// Pages of its table, in their order.
    pub table: Vec<BackedTable>,
}

pub struct BackedTable {
    pub page: Page,
    pub slabs: Vec<Slab>,
}

/// An LU as it was under one root.
#[derive(Default)]
pub struct BackedLu {
    pub first_slab: u32,
    head: Option<Page>,
    body: Vec<Page>,
    /// Where the page is in the file, by layer and number.
    maps: BTreeMap<(LayerId, u64), u64>,
    /// Nothing of it was still to come.
    is_whole: bool,
}

impl BackedDisk {
    /// Each place of the table, with its number.
    pub fn places(&self) -> impl Iterator<Item = (u32, Slab)> + '_ {
        let all = self.table.iter().flat_map(|table| table.slabs.iter().copied());
        (0..self.layout.slabs()).zip(all)
    }
}

impl BackedLu {
    /// That of its root.
    pub fn turn(&self) -> Option<u64> {
        self.head.as_ref().filter(|_| self.is_whole).map(|head| head.says().0.turn)
    }

    /// Pages of its maps.
    #[cfg(test)]
    pub fn maps(&self) -> impl Iterator<Item = ((LayerId, u64), u64)> + '_ {
        self.maps.iter().map(|(id, at)| (*id, *at))
    }

    /// Its root: the head, the pages of the body, and what they say.
    pub fn root(&self, site: &Site) -> Option<(&Page, &[Page], Root)> {
        let head = self.head.as_ref().filter(|_| self.is_whole)?;
        let read = site.newest([head, head]).ok()?;
        Some((head, &self.body, read.root(site, &self.body).ok()?))
    }
}

impl Backup {
    /// Reads all of it; nothing is believed of one that is not whole.
    pub async fn read(core: &Core, backing: &Arc<dyn Backing>) -> Result<Self, Unread> {
        let file = || backing.name().to_owned();
        let device = backing.device(core);
        let size = device.geometry().size;
        let (mut reader, mut said) = (Reader::default(), Said::default());
        let unfit = |why| Unread::Unfit { file: file(), why };
        for at in (0..size).step_by(PIECE_BYTES as usize) {
            let len = PIECE_BYTES.min(size - at);
            let bytes = read_at(&*device, at, len).await;
            let bytes = bytes.map_err(|error| Unread::Disk { file: file(), error })?;
            let mut odd = None;
            let mut take = |at, part| said.take(at, part).unwrap_or_else(|| odd = Some(at));
            reader.push(&bytes, &mut take).map_err(unfit)?;
            if let Some(at) = odd {
                return Err(unfit(Unfit::Rotten(at)));
            }
        }
        reader.end().map_err(unfit)?;
        let Said { pool, disks, lus, .. } = said;
        let (id, name, made) = pool.ok_or_else(|| unfit(Unfit::Other))?;
        Ok(Self { id, name, made, disks, lus, file: device })
    }

    /// A page of a map of this LU.
    pub(in super::super) async fn map_page(
        &self,
        lu: &BackedLu,
        id: (LayerId, u64),
    ) -> Result<Option<Page>, Error> {
        let Some(at) = lu.maps.get(&id) else { return Ok(None) };
        let page = PAGE_BYTES as u64;
        let start = at / page * page;
        let len = (2 * page).min(self.file.geometry().size - start);
        let bytes = read_at(&*self.file, start, len).await?;
        let bytes = bytes.get((at - start) as usize..).and_then(|rest| rest.first_chunk());
        // It was whole when the backup was read.
        Ok(bytes.map(Page::of_bytes).filter(Page::is_whole))
    }

    /// Of all its disks the highest: it was taken when the pool was opened so often.
    pub(in super::super) fn epoch(&self) -> u64 {
        self.disks.iter().map(|disk| disk.label.epoch).max().unwrap_or(0)
    }
}

/// What was said so far.
#[derive(Default)]
struct Said {
    pool: Option<(Owner, String, u64)>,
    disks: Vec<BackedDisk>,
    lus: BTreeMap<Owner, BackedLu>,
    lu: Owner,
}

impl Said {
    /// None: it is not what may follow.
    fn take(&mut self, at: u64, part: Part) -> Option<()> {
        match part {
            Part::Pool { id, name, made, .. } => self.pool = Some((id, name, made)),
            Part::Disk { label, .. } => {
                let label = Label::decode(&label, End::Front).ok()?;
                let layout = Layout::new(label.shape, label.size).ok()?;
                self.disks.push(BackedDisk { label, layout, table: Vec::new() });
            }
            Part::Table(page) => {
                let disk = self.disks.last_mut()?;
                let (pool, number) = (disk.label.lineage(), disk.table.len() as u64);
                let (_, slabs) = slabs::decode(&page, &pool, number).ok()?;
                disk.table.push(BackedTable { page, slabs });
            }
            Part::Lu { id, first_slab } => {
                self.lu = id;
                self.lus.insert(id, BackedLu { first_slab, ..BackedLu::default() });
            }
            Part::Page(page) => self.page(at, page)?,
            Part::Lacks(_) => {}
            Part::LuEnd { .. } => self.lus.get_mut(&self.lu)?.is_whole = true,
        }
        Some(())
    }

    fn page(&mut self, at: u64, page: Page) -> Option<()> {
        let (header, _) = page.says();
        let lu = self.lus.get_mut(&self.lu)?;
        if !page.is_whole() {
            return None;
        }
        match header.kind {
            // A body follows its head.
            HEAD => (lu.head, lu.body) = (Some(page), Vec::new()),
            BODY => lu.body.push(page),
            map::KIND => drop(lu.maps.insert((header.owner, header.number), at)),
            _ => return None,
        }
        Some(())
    }
}

async fn read_at(device: &dyn Device, at: u64, len: u64) -> Result<Vec<u8>, Error> {
    let buffer = Buffer::zeroed(len as usize);
    device.io(&Request::read(at, buffer.sgl())).await?;
    Ok(buffer.to_vec())
}
