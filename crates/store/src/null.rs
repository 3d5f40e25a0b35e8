//! A device that does nothing, as fast as possible: reads leave the buffer as it is, writes are
//! forgotten. It measures everything above it, and says so ([`Keeps::Nothing`]).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Asked, Device, Error, ErrorKind, Geometry, Keeps, OpSet, Outcome, Request, Watch};
use rt::Core;
use rt::handles::{HandleId, Member, each};

use crate::{Boxed, Store};

pub struct NullStore {
    block_size: u32,
    state: Mutex<State>,
}

struct State {
    size: u64,
    members: Vec<Member<Null>>,
}

impl NullStore {
    /// The size must be a multiple of the block size.
    pub fn new(size: u64, block_size: u32) -> Result<Arc<Self>, Error> {
        check_size(size, block_size)?;
        let state = Mutex::new(State { size, members: Vec::new() });
        Ok(Arc::new(Self { block_size, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of an LU is a whole number of blocks.
pub(crate) fn check_size(size: u64, block_size: u32) -> Result<(), Error> {
    if size.is_multiple_of(u64::from(block_size)) {
        return Ok(());
    }
    let note = format!("{size} bytes are not a whole number of blocks of {block_size} bytes");
    Err(Error::new(ErrorKind::Invalid).note(note))
}

impl Store for NullStore {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        let id = HandleId::fresh();
        let mut state = self.state();
        let geometry = Geometry {
            ops: OpSet::DISCARD | OpSet::WRITE_ZEROES,
            volatile_cache: false,
            keeps: Keeps::Nothing,
            ..Geometry::plain(state.size, self.block_size)
        };
        let device = Rc::new(Null {
            store: self.clone(),
            id,
            geometry: Cell::new(geometry),
            watch: Watch::new(),
        });
        state.members.push(Member::new(core, id, &device));
        drop(state);
        device
    }

    fn size(&self) -> u64 {
        self.state().size
    }

    fn resize<'a>(self: Arc<Self>, _: &'a Core, size: u64) -> Boxed<'a, Result<(), Error>> {
        Box::pin(async move {
            check_size(size, self.block_size)?;
            let members = {
                let mut state = self.state();
                state.size = size;
                state.members.clone()
            };
            each(members, move |device: Rc<Null>| async move { device.look() }).await;
            Ok(())
        })
    }
}

struct Null {
    store: Arc<NullStore>,
    id: HandleId,
    geometry: Cell<Geometry>,
    watch: Watch,
}

impl Null {
    fn look(&self) {
        self.geometry.set(self.geometry.get().with_size(self.store.size()));
        self.watch.notify();
    }
}

impl Device for Null {
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        // Read twice, so that the quick look loads two fields and copies nothing.
        if self.geometry.get().suits(request) {
            return asked.now(Ok(request.len));
        }
        asked.now(self.geometry.get().check(request).map(|()| 0))
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        self.store.state().members.retain(|member| member.id() != self.id);
    }
}
