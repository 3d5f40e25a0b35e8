//! Another size for an LU. It grows at any time; it becomes smaller when nothing of what would be
//! cut off is written, so that nothing is ever lost by it.
//!
//! ```text
//!   tail closed on every handle ─▶ is it unwritten? ─▶ size told ─▶ size durable ─▶ tail open
//! ```
//!
//! A write to the tail has ended before the look, or is held back and finds the new end when it
//! goes on. What lies behind the end of an LU reads zero by its map, always: so what it grows by
//! later reads zero too.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use block::{Error, ErrorKind};
use rt::handles::{Span, Ticket, each};

use super::super::map::{Run, resolve};
use super::super::owner::{LayerNumber, Room};
use super::super::root::About;
use super::super::shape::BLOCK_BYTES;
use super::Lu;
use super::handle::Handle;
use super::service::Service;

/// Pages of a map that are looked at before others have a turn.
const PAGES_PER_TURN: usize = 64;

/// Why an LU does not get another size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresized {
    /// Where the last block ends that is written.
    #[error("it is written up to byte {0}")]
    Written(u64),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<Unresized> for Error {
    fn from(unresized: Unresized) -> Self {
        match unresized {
            Unresized::Failed(error) => error,
            written @ Unresized::Written(_) => Self::new(ErrorKind::Busy).note(written.to_string()),
        }
    }
}

impl Lu {
    /// Gives the LU another size. Every handle has it when this is answered, and it is durable.
    pub async fn resize(self: &Arc<Self>, size: u64) -> Result<(), Unresized> {
        let _alone = self.alone()?;
        if size == 0 || !size.is_multiple_of(BLOCK_BYTES) {
            let note = format!("{size} bytes are not a multiple of {BLOCK_BYTES}");
            return Err(Error::new(ErrorKind::Invalid).note(note).into());
        }
        let old = self.size();
        if size >= old {
            self.make_room(Room::Size(size)).await?;
            self.keep_size(size).await?;
            self.tell_size(size).await;
            return Ok(());
        }
        if self.depths.below().is_some() {
            let note = "it is being brought into its pool, and can become smaller after that";
            return Err(Error::new(ErrorKind::Busy).note(note).into());
        }
        let tail = Span { start: size, end: u64::MAX };
        let _ticket = Ticket::take(&self.ledger, None, tail).await;
        let written = self.ask(move |service| service.written_from(size / BLOCK_BYTES)).await?;
        if let Some(end) = written {
            return Err(Unresized::Written(end * BLOCK_BYTES));
        }
        self.tell_size(size).await;
        let kept = self.keep_size(size).await;
        if kept.is_err() {
            self.tell_size(old).await;
        }
        Ok(kept?)
    }

    /// Says on disk how large it is.
    async fn keep_size(&self, size: u64) -> Result<(), Error> {
        self.ask(move |service| {
            let about = About { size, ..service.about() };
            service.describe(about)
        })
        .await
    }

    async fn tell_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
        let look = |handle: Rc<Handle>| async move { handle.look() };
        each(self.ledger.members(), look).await;
    }
}

impl Service {
    /// Where the last block ends that is written in the LU's present state, from this one on.
    async fn written_from(self: Rc<Self>, first: u64) -> Result<Option<u64>, Error> {
        let form = self.form();
        let blocks = self.shape().blocks_per_extent();
        let (first_page, _, _) = form.locate(first);
        let pages = self.clone().pages_from(None, first_page).await?;
        for (count, number) in (1..).zip(pages.into_iter().rev()) {
            let stack = self.clone().stack(None, number).await?;
            for extent in (0..form.extents()).rev() {
                let start = (number * form.extents() + extent) * blocks;
                let (mut at, mut last) = (start.max(first), None);
                while at < start + blocks {
                    let pages = stack.iter().map(|page| &**page);
                    let run = resolve(pages, extent as usize, at - start, start + blocks - at);
                    at += run.count();
                    if let Run::Written { .. } = run {
                        last = Some(at);
                    }
                }
                if last.is_some() {
                    return Ok(last);
                }
            }
            if count % PAGES_PER_TURN == 0 {
                self.core().yield_now().await;
            }
        }
        Ok(None)
    }

    /// Numbers of pages of the map that some layer has, from this one on: of the LU's present
    /// state, or of a layer that is looked at.
    pub(super) async fn pages_from(
        self: Rc<Self>,
        view: Option<LayerNumber>,
        first: u64,
    ) -> Result<BTreeSet<u64>, Error> {
        let mut pages = self.own_pages_from(view, first);
        if let Some(base) = self.base() {
            pages.extend(base.pages_from(first).await?);
        }
        Ok(pages)
    }
}
