//! Space for LUs that are thick: granted before it is needed, all of it or nothing.

use std::fmt;
use std::rc::Rc;

use block::{Error, ErrorKind};

use super::super::home::{Pool, PoolError};
use super::super::owner::{Owner, Room};
use super::service::Service;
use super::{Lu, closed};

const MIB: u64 = 1 << 20;

/// There is not so much space in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Bytes of the slabs that were wanted, and of those that are free.
    pub wanted: u64,
    pub free: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, free) = (self.wanted / MIB, self.free / MIB);
        let missing = wanted.saturating_sub(free);
        write!(f, "it needs {wanted}MiB more, and the pool has {free}MiB: {missing}MiB are missing")
    }
}

impl std::error::Error for Short {}

/// Why slabs are not granted all at once.
#[derive(Debug, thiserror::Error)]
pub enum Ungranted {
    #[error(transparent)]
    Short(#[from] Short),
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Pool {
    /// Gives an LU so many slabs, or none.
    pub async fn grant_all(
        &self,
        lu: [u8; 16],
        count: u64,
        first: bool,
    ) -> Result<Vec<u32>, Ungranted> {
        let bytes = |slabs: u64| slabs * self.shape().slab_bytes();
        let short = |free: u64| Short { wanted: bytes(count), free: bytes(free) };
        let (_, free) = self.slabs();
        if free < count {
            return Err(short(free).into());
        }
        let slabs = self.grant(lu, count, first).await?;
        if (slabs.len() as u64) < count {
            self.take_back(lu, &slabs).await?;
            return Err(short(slabs.len() as u64).into());
        }
        Ok(slabs)
    }
}

impl Lu {
    /// See [`Service::make_room`].
    pub(super) async fn make_room(&self, room: Room) -> Result<(), Error> {
        self.ask(move |service| service.make_room(room)).await
    }

    /// What was reserved is not needed.
    pub(super) async fn unmake_room(&self) -> Result<(), Error> {
        let look = |service: Rc<Service>| async move {
            service.tell(Owner::look_for_surplus);
            Ok(())
        };
        self.ask(look).await
    }
}

impl Service {
    /// Sees to it that a thick LU has room for this. What it has then is kept until something of
    /// the LU becomes less.
    pub(super) async fn make_room(self: Rc<Self>, room: Room) -> Result<(), Error> {
        loop {
            let lacks = self.owner().lacks(room);
            if lacks == 0 {
                return Ok(());
            }
            let lu = self.lu();
            let granted =
                self.pool().call(move |pool| async move { pool.grant_all(lu, lacks, false).await });
            let granted = granted.await.ok_or_else(closed)?.map_err(|error| {
                let kind = match error {
                    Ungranted::Short(_) | Ungranted::Pool(PoolError::Full) => ErrorKind::NoSpace,
                    Ungranted::Pool(_) => ErrorKind::Medium,
                };
                Error::new(kind).note(error.to_string())
            })?;
            self.tell(|owner| owner.reserved(&granted));
        }
    }
}
