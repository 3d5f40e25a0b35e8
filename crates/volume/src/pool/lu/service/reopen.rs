//! One owner's service after another, while the LU is used: see `lu::reopen`.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use block::Error;

use super::super::super::home::{Pool, PoolError};
use super::super::super::root::About;
use super::super::open::{LuError, Seat};
use super::{Owner, Parts, Service, Stage};

impl Service {
    /// From here on it begins nothing, until it gives way or goes on; what it has begun has ended
    /// then. It has failed.
    pub(in super::super) async fn stand_still(&self) {
        self.is_still.set(true);
        self.ended.notify();
        self.ended.until(|| self.under_way.get() == 0).await;
    }

    /// Nobody comes after it for now: what can be read is.
    pub(in super::super) fn go_on(&self) {
        self.is_still.set(false);
        self.ended.notify();
    }

    /// The service of an owner that knows what is on the disks. It begins nothing but to read.
    pub(in super::super) async fn next(self: &Rc<Self>) -> Result<Rc<Self>, LuError> {
        let (lu, slabs) = (self.lu, self.slabs());
        let seat = async move |pool: Rc<Pool>| -> Result<Seat, LuError> {
            pool.retract_again(slabs).await?;
            pool.seat_again(lu)
        };
        let seat = self.pool.call(seat).await;
        let seat = seat.ok_or(PoolError::Closed)??;
        let owner = seat.owner(&self.disks).await?;
        Ok(self.heir_with(owner, seat))
    }

    fn heir_with(&self, owner: Owner, seat: Seat) -> Rc<Self> {
        let base = self.base.clone().filter(|_| owner.about().base.is_some());
        let parts = Parts {
            lu: self.lu,
            shape: self.shape,
            disks: self.disks.clone(),
            pool: self.pool.clone(),
            readers: self.readers.clone(),
            owner,
            base,
            depths: self.depths.clone(),
            has_failed: self.has_failed.clone(),
            memory: self.memory.clone(),
            tenure: seat.tenure(),
        };
        let heir = Self::new(&self.core, parts);
        heir.failed.replace(self.failed.borrow().clone());
        heir.postponed.replace(Some(Vec::new()));
        // Whoever moves slabs waits.
        heir.is_moving.set(true);
        heir.counts.set(self.counts.get());
        heir
    }

    /// Whoever asks this one is answered by that one.
    pub(in super::super) fn give_way(&self, heir: &Rc<Self>) {
        heir.views.replace(self.views.take());
        self.tenure.take();
        self.stage.set(Stage::Closed);
        let _ = self.heir.set(heir.clone());
        self.go_on();
    }

    /// Nobody goes by what the owner before has said. The LU has this size, whatever was asked for
    /// and refused since. An error: it has failed as well, or somebody closes the LU.
    pub(in super::super) async fn take_over(self: &Rc<Self>, size: u64) -> Result<(), Error> {
        if self.stage.get() != Stage::Serving {
            return Err(self.why_not());
        }
        if self.about().source.is_none() {
            self.depths.end();
        }
        self.failed.take();
        self.is_moving.set(false);
        self.settle();
        let postponed = self.postponed.take().unwrap_or_default();
        postponed.into_iter().for_each(|order| self.carry_out(order));
        self.ended.notify();
        // What can be read cannot always be written; without room for a root it can be.
        self.renew_root_with(About { size, ..self.about() }).await;
        self.must_serve()?;
        self.has_failed.store(false, Ordering::Release);
        Ok(())
    }
}
