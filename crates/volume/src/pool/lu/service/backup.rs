//! Copies of root and maps for a backup, while the LU is used: see `owner::copy`.

use std::rc::Rc;
use std::time::Duration;

use block::{Error, ErrorKind};

use super::super::super::map::MapPage;
use super::super::super::owner::{PageId, page_of_map};
use super::super::super::page::Page;
use super::super::super::root::Site;
use super::super::closed;
use super::super::open::{LuError, read_root_pages};
use super::Service;

/// Pages of a step.
const PAGES_PER_STEP: usize = if cfg!(test) { 1 } else { 256 };
/// Pages that are read while nobody may write a root: they are soon read.
const HELD_PAGES: usize = if cfg!(test) { 1 } else { 64 };
/// How long to wait for what is just being written.
const PAUSE: Duration = Duration::from_millis(2);
const TRIES: u32 = 50;

/// What a step has read.
#[derive(Debug, Default)]
pub struct Copied {
    /// Of the copy, for the next step.
    pub number: u64,
    pub first_slab: u32,
    /// Of maps; with the last step of the root too, its head before its body.
    pub pages: Vec<Page>,
    /// What could not be read.
    pub lacks: Vec<String>,
    pub is_last: bool,
}

impl Service {
    /// The next pages for the backup of this number, or the first ones of a new one. The last step
    /// has those that everything before it is found from.
    pub(in super::super) async fn back_up(
        self: Rc<Self>,
        number: Option<u64>,
    ) -> Result<Copied, Error> {
        self.must_serve()?;
        let number = match number {
            Some(number) => number,
            None => {
                // What is in the journal only is in no backup; without a new root it is older.
                self.renew_root().await;
                self.must_serve()?;
                self.owner.borrow_mut().begin_copy()
            }
        };
        self.must_be(number)?;
        self.begin();
        let copied = self.copy_some(number).await;
        let is_its = self.owner().is_copying(number);
        if is_its && !matches!(copied, Ok(Copied { is_last: false, .. })) {
            self.tell(|owner| owner.end_copy());
        }
        self.end();
        copied.and_then(|copied| if is_its { Ok(copied) } else { Err(overtaken()) })
    }

    fn must_be(&self, number: u64) -> Result<(), Error> {
        if self.owner().is_copying(number) { Ok(()) } else { Err(overtaken()) }
    }

    async fn copy_some(self: &Rc<Self>, number: u64) -> Result<Copied, Error> {
        let first_slab = self.owner().site().first_slab;
        let mut copied = Copied { number, first_slab, ..Copied::default() };
        let some = self.owner.borrow_mut().next_copies((PAGES_PER_STEP, HELD_PAGES));
        if !some.is_empty() {
            self.copy_pages(some, &mut copied).await?;
            return Ok(copied);
        }
        let site = self.owner.borrow_mut().hold_roots().ok_or_else(closed)?;
        while self.owner().settled_turn().is_none() {
            self.must_serve()?;
            self.must_be(number)?;
            self.core.sleep(PAUSE).await;
        }
        let last = self.owner.borrow_mut().last_copies();
        self.copy_pages(last, &mut copied).await?;
        let left = self.owner.borrow_mut().last_copies().into_iter();
        copied.lacks.extend(left.map(|id| lacks(id, &"it is written all the time")));
        self.copy_root(&site, &mut copied).await?;
        copied.is_last = true;
        Ok(copied)
    }

    async fn copy_root(&self, site: &Site, copied: &mut Copied) -> Result<(), Error> {
        match read_root_pages(&self.disks, site).await {
            Ok(pages) => copied.pages.extend(pages),
            Err(LuError::Disk(error)) => return Err(error),
            Err(error) => copied.lacks.push(error.to_string()),
        }
        Ok(())
    }

    async fn copy_pages(
        &self,
        ids: impl IntoIterator<Item = PageId>,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        for id in ids {
            self.must_serve()?;
            match self.copy_page(id).await? {
                Some(Ok(page)) => copied.pages.push(page),
                Some(Err(lacks)) => copied.lacks.push(lacks),
                None => self.owner.borrow_mut().copy_later(id),
            }
        }
        Ok(())
    }

    /// A page as it is on disk. None: there is none now.
    async fn copy_page(&self, id: PageId) -> Result<Option<Result<Page, String>>, Error> {
        let form = self.form();
        for _ in 0..TRIES {
            let Some(lies) = self.owner().lies(id) else { return Ok(None) };
            let page = self.disks.read_page(lies.at).await?;
            let read = MapPage::decode(&page, form, (&lies.layer, id.1), lies.turn);
            let still = self.owner().lies(id);
            match read {
                Ok(_) if still.is_some_and(|it| it.at == lies.at) => return Ok(Some(Ok(page))),
                Err(flaw) if still == Some(lies) => {
                    return Ok(Some(Err(lacks(id, &flaw))));
                }
                _ => self.core.sleep(PAUSE).await,
            }
        }
        Ok(None)
    }
}

fn overtaken() -> Error {
    Error::new(ErrorKind::Busy).note("another backup has begun")
}

/// What is not in the backup.
fn lacks(id: PageId, why: &dyn std::fmt::Display) -> String {
    format!("{} cannot be read: {why}", page_of_map(id))
}
