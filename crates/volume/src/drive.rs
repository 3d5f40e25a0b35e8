//! A drive: whatever medium is in it, or none.
//!
//! Media come and go under one handle, so that what stands above (units, nexuses, their LUNs)
//! stays. A drive without a medium has no blocks, so every request is out of range. That a medium
//! is present, locked or ejected is not known here: it is part of the state that all cores share
//! (`target::lun`), and each core's drive follows it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;

use block::{Asked, Device, Error, ErrorKind, Geometry, Health, Outcome, Request, Watch};
use rt::Core;

pub struct Drive {
    core: Core,
    block_size: u32,
    medium: RefCell<Option<Rc<dyn Device>>>,
    /// Shared with the task that follows the medium, which must not keep the drive.
    watch: Rc<Watch>,
}

impl Drive {
    pub fn new(core: &Core, block_size: u32) -> Rc<Self> {
        let (core, watch) = (core.clone(), Rc::default());
        Rc::new(Self { core, block_size, medium: RefCell::default(), watch })
    }

    /// Puts a medium in, or none, and gives back the one that was in. What was asked of that one
    /// goes on to its end.
    pub fn exchange(
        self: &Rc<Self>,
        medium: Option<Rc<dyn Device>>,
    ) -> Result<Option<Rc<dyn Device>>, Error> {
        let size = medium.as_ref().map_or(self.block_size, |it| it.geometry().block_size);
        if size != self.block_size {
            let note = format!("a medium of blocks of {size}, not {} bytes", self.block_size);
            return Err(Error::new(ErrorKind::Invalid).note(note));
        }
        let former = self.medium.replace(medium.clone());
        self.watch.notify();
        if let Some(medium) = medium {
            let seen = (self.watch.version(), medium.watch().version());
            self.core.spawn(follow(Rc::downgrade(self), self.watch.clone(), medium, seen));
        }
        Ok(former)
    }

    fn holds(&self, medium: &Rc<dyn Device>) -> bool {
        self.medium.borrow().as_ref().is_some_and(|held| Rc::ptr_eq(held, medium))
    }
}

/// Tells what changes about a medium for as long as it is in the drive.
async fn follow(
    drive: Weak<Drive>,
    watch: Rc<Watch>,
    medium: Rc<dyn Device>,
    (mut own, mut seen): (u64, u64),
) {
    while drive.upgrade().is_some_and(|drive| drive.holds(&medium)) {
        let mut exchanged = pin!(watch.changed(own));
        let mut changed = pin!(medium.watch().changed(seen));
        poll_fn(|cx| {
            if let Poll::Ready(version) = exchanged.as_mut().poll(cx) {
                own = version;
                return Poll::Ready(());
            }
            changed.as_mut().poll(cx).map(|version| {
                seen = version;
                watch.notify();
                own = watch.version();
            })
        })
        .await;
    }
}

impl Device for Drive {
    fn geometry(&self) -> Geometry {
        let medium = self.medium.borrow();
        medium.as_ref().map_or(Geometry::plain(0, self.block_size), |medium| medium.geometry())
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        match &*self.medium.borrow() {
            Some(medium) => medium.begin(request, asked),
            None => asked.now(self.geometry().check(request).map(|()| 0)),
        }
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn health(&self) -> Health {
        let medium = self.medium.borrow();
        medium.as_ref().map_or(Health::Good, |medium| medium.health())
    }

    fn hasten(&self) {
        if let Some(medium) = &*self.medium.borrow() {
            medium.hasten();
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // Whoever follows lets go of the medium.
        self.watch.notify();
    }
}
