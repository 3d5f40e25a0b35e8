//! Slabs that move to another disk while the LU is used: written at both places from a moment on,
//! filled extent by extent, and then read at the new one.
//!
//! ```text
//!   begin ─▶ quiet ─▶ fill, extent by extent ── sync ──▶ whole ─▶ granted ─▶ first ─▶ quiet ─▶ end
//! ```
//!
//! Nobody waits for more than the copy of one extent. Before the grant of the new place the old one
//! is what counts, behind it the new one: a crash loses nothing in between, because what is written
//! then is at both.

use std::rc::Rc;

use block::{Error, ErrorKind};
use rt::handles::each;

use super::super::super::home::{Pool, PoolError};
use super::super::super::map::Place;
use super::super::super::places::Second;
use super::super::closed;
use super::super::handle::Handle;
use super::{Service, Stage};

impl Service {
    /// Brings a slab of the LU to another disk: this one, or the roomiest. One at a time.
    pub(in super::super) async fn move_slab(
        self: Rc<Self>,
        number: u32,
        to: Option<u32>,
    ) -> Result<(), Error> {
        if self.stage.get() != Stage::Serving {
            return Err(closed());
        }
        if self.is_moving.replace(true) {
            return Err(Error::new(ErrorKind::Busy).note("a slab of the LU is moving"));
        }
        self.begin();
        let moved = self.move_now(number, to).await;
        self.is_moving.set(false);
        self.end();
        moved
    }

    async fn move_now(self: &Rc<Self>, number: u32, to: Option<u32>) -> Result<(), Error> {
        let lu = self.lu;
        // Its owner does not give it back meanwhile.
        if !self.owner.borrow_mut().space().pin(number) {
            return Err(Error::new(ErrorKind::Invalid).note(format!("the LU has no slab {number}")));
        }
        let moved =
            match self.of_pool(async move |pool| pool.begin_move(lu, number, to).await).await {
                Ok(()) => self.move_begun(number).await,
                Err(error) => Err(error),
            };
        self.owner.borrow_mut().space().unpin();
        moved
    }

    async fn move_begun(self: &Rc<Self>, number: u32) -> Result<(), Error> {
        let (lu, places) = (self.lu, &self.disks.shared().places);
        let (Some(from), Some((to, _))) = (places.get(number), places.second(number)) else {
            return Err(Error::new(ErrorKind::Invalid).note("the slab is not moving"));
        };
        if let Err(error) = self.fill(number).await {
            places.set(number, Some(from));
            self.all_quiet().await;
            let aborted = self.of_pool(async move |pool| {
                pool.abort_move(to).await;
                Ok(())
            });
            return aborted.await.and(Err(error));
        }
        // Where this fails the slab has two places until the pool is opened again.
        self.of_pool(async move |pool| pool.commit_move(lu, number).await).await?;
        {
            let _locked = self.lock_all(number).await;
            places.set(number, Some(to));
        }
        self.all_quiet().await;
        self.of_pool(async move |pool| pool.end_move(lu, number, from).await).await
    }

    /// Brings everything to the second place of a slab.
    async fn fill(&self, number: u32) -> Result<(), Error> {
        // Whoever has looked before writes at the first place only.
        self.all_quiet().await;
        let shared = self.disks.shared();
        let blocks = self.shape.blocks_per_extent();
        for extent in 0..self.shape.extents_per_slab() as u32 {
            if self.stage.get() != Stage::Serving {
                return Err(closed());
            }
            let first = u64::from(extent) * blocks;
            let _locked = shared.locks.lock(number, first, blocks).await;
            // What is not used now is written at both places before it is read.
            if self.owner.borrow_mut().space().is_used(Place { slab: number, extent }) {
                let at = super::Spot { slab: number, block: first as u32 };
                self.disks.fill(at, blocks).await?;
            }
        }
        self.disks.sync().await?;
        let _locked = self.lock_all(number).await;
        match shared.places.mark(number, Second::Whole) {
            true => Ok(()),
            false => {
                let note = "the disk that a slab is moving to cannot be written";
                Err(Error::new(ErrorKind::Medium).note(note))
            }
        }
    }

    async fn lock_all(&self, number: u32) -> super::super::super::places::Locked<'_> {
        let blocks = self.shape.blocks_per_extent() * self.shape.extents_per_slab();
        self.disks.shared().locks.lock(number, 0, blocks).await
    }

    /// Waits until everybody has arrived who is on the way to a place of this LU.
    async fn all_quiet(&self) {
        let over = |handle: Rc<Handle>| async move {
            handle.passage().over().await;
            handle.disks.quiet().await;
        };
        each(self.readers.members(), over).await;
        self.disks.quiet().await;
    }

    async fn of_pool<F>(
        &self,
        ask: impl FnOnce(Rc<Pool>) -> F + Send + 'static,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), PoolError>> + 'static,
    {
        let answer = self.pool.call(ask).await;
        answer.ok_or_else(closed)?.map_err(|error| match error {
            PoolError::Full => Error::new(ErrorKind::NoSpace).note("no other disk has a free slab"),
            error => Error::new(ErrorKind::Medium).note(error.to_string()),
        })
    }
}
