//! Bringing an LU from where it was before: whoever asks for some of it has the pace.

use std::rc::Rc;

use block::{Buffer, Error, ErrorKind, Request};
use rt::handles::each;

use super::super::super::journal::Spot;
use super::super::super::owner::{Bringing, Fetched, Ticket};
use super::super::super::shape::BLOCK_BYTES;
use super::super::below::{Brought, Under};
use super::super::handle::Handle;
use super::Service;

/// So often the root says how far the LU is: whoever opens it after a crash looks again at what was
/// behind that.
const KEPT_EVERY_BYTES: u64 = 16 << 20;

/// What was read below an extent.
struct Read {
    data: Buffer,
    fetched: Fetched,
    /// Why some of it was not.
    failed: Option<Error>,
}

impl Service {
    /// Brings so many extents; with how many bytes were read for that. An error: one of them could
    /// not be, and others may.
    pub(in super::super) async fn bring(
        self: Rc<Self>,
        most: usize,
    ) -> (Result<Brought, Error>, u64) {
        let Some(below) = self.depths.own() else { return (Ok(Brought::Done), 0) };
        if self.is_bringing.replace(true) {
            let busy = Error::new(ErrorKind::Busy).note("the LU is being brought");
            return (Err(busy), 0);
        }
        let (under, before) = (Rc::new(below.on(&self.core)), self.fetched_bytes.get());
        let done = self.bring_some(under, most).await;
        self.is_bringing.set(false);
        (done, self.fetched_bytes.get() - before)
    }

    /// How far the LU is.
    pub(in super::super) fn brought(&self) -> Brought {
        let owner = self.owner.borrow();
        let (Some(below), Some(bringing)) = (self.depths.own(), owner.bringing()) else {
            return Brought::Done;
        };
        let done = (bringing.done() * self.shape.extent_bytes()).min(below.size);
        Brought::Part { done, of: below.size }
    }

    async fn bring_some(self: &Rc<Self>, under: Rc<Under>, most: usize) -> Result<Brought, Error> {
        let extents = self.owner.borrow_mut().next_to_bring(most);
        if extents.is_empty() {
            self.end_bringing().await?;
            return Ok(Brought::Done);
        }
        let tasks: Vec<_> = extents
            .into_iter()
            .map(|extent| {
                let (me, under) = (self.clone(), under.clone());
                self.core.spawn_task(async move { me.bring_extent(&under, extent).await })
            })
            .collect();
        let mut done = Ok(());
        for task in tasks {
            done = done.and(task.await);
        }
        self.keep_brought().await?;
        done.map(|()| self.brought())
    }

    async fn bring_extent(self: &Rc<Self>, under: &Under, extent: u64) -> Result<(), Error> {
        let (number, ..) = self.form().locate(extent * self.shape.blocks_per_extent());
        // Whoever looks finds it in memory then. What cannot be read is said when it counts.
        let _ = self.clone().stack(None, number).await;
        let needs_nothing = self.owner.borrow().is_brought_anyway(extent);
        let Read { data, fetched, failed } = match needs_nothing {
            true => Read::of_nothing(),
            false => self.fetch(under, extent).await,
        };
        let ticket = self.ticket()?;
        self.fetched.borrow_mut().insert(ticket, data);
        self.tell(|owner| owner.bring(ticket, extent, fetched));
        let done = self.done(ticket).await;
        self.fetched.borrow_mut().remove(&ticket);
        match (done, failed) {
            (Err(error), Some(why)) if error.kind() == ErrorKind::Medium => Err(why),
            (done, _) => done,
        }
    }

    /// Reads what lies below an extent: nobody ever changes that.
    async fn fetch(&self, under: &Under, extent: u64) -> Read {
        let start = extent * self.shape.extent_bytes();
        let len = self.shape.extent_bytes().min(under.size - start);
        self.fetched_bytes.set(self.fetched_bytes.get() + len);
        let data = Buffer::zeroed(self.shape.extent_bytes() as usize);
        let part = |from: u64, len: u64| {
            let data = data.sgl().slice(from as usize, len as usize).to_buf();
            let device = under.device.clone();
            async move { device.io(&Request::read(start + from, data.sgl())).await }
        };
        let (mut unread, mut failed) = (Vec::new(), part(0, len).await.err());
        if failed.is_some() {
            // Most of it can be read perhaps.
            for block in 0..len.div_ceil(BLOCK_BYTES) {
                let from = block * BLOCK_BYTES;
                if let Err(error) = part(from, BLOCK_BYTES.min(len - from)).await {
                    unread.push(block);
                    failed = Some(error);
                }
            }
        }
        let is_zero = data.to_vec().chunks(BLOCK_BYTES as usize).all(|block| {
            // Without a way out in between it is many at a time.
            block.iter().fold(0, |all, byte| all | byte) == 0
        });
        let failed = failed.filter(|_| !unread.is_empty());
        Read { data, fetched: Fetched { is_zero, unread }, failed }
    }

    /// Writes what was fetched where it is to lie.
    pub(super) async fn write_fetched(
        self: Rc<Self>,
        ticket: Ticket,
        to: Spot,
        runs: Vec<(u64, u64)>,
    ) {
        let data = self.fetched.borrow().get(&ticket).map(|data| data.sgl().to_buf());
        let mut is_done = data.is_some();
        for (first, count) in runs {
            let Some(data) = &data else { break };
            let (from, len) = ((first * BLOCK_BYTES) as usize, (count * BLOCK_BYTES) as usize);
            let spot = Spot { block: to.block + first as u32, ..to };
            is_done &= self.disks.write_data(spot, &data.sgl().slice(from, len)).await.is_ok();
        }
        self.tell(|owner| owner.copied(ticket, is_done));
    }

    async fn keep_brought(self: &Rc<Self>) -> Result<(), Error> {
        let done = self.owner.borrow().bringing().map_or(0, Bringing::done);
        let every = KEPT_EVERY_BYTES.div_ceil(self.shape.extent_bytes());
        if done < self.kept_brought.get() + every {
            return Ok(());
        }
        self.kept_brought.set(done);
        let ticket = self.ticket()?;
        self.tell(|owner| owner.keep_brought(ticket));
        self.done(ticket).await
    }

    /// Everything is brought: from here on nothing is below.
    async fn end_bringing(self: &Rc<Self>) -> Result<(), Error> {
        let ticket = self.ticket()?;
        self.tell(|owner| owner.end_bringing(ticket));
        self.done(ticket).await?;
        self.depths.end();
        let look = |handle: Rc<Handle>| async move {
            handle.look_below();
            handle.passage().over().await;
        };
        each(self.readers.members(), look).await;
        Ok(())
    }
}

impl Read {
    fn of_nothing() -> Self {
        Self { data: Buffer::zeroed(0), fetched: Fetched::default(), failed: None }
    }
}
