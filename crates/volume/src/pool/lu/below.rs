//! What an LU lies over while it is brought into the pool: a disk or a file that is none of the
//! pool's, and is never written. What no layer says of a block is read there.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Device, Error, Request, Sgl};
use rt::Core;
use rt::handles::Span;

use super::super::disks::Backing;
use super::snapshots::View;

/// How far an LU is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// Nothing lies below it.
    Done,
    /// So many bytes, of so many.
    Part { done: u64, of: u64 },
}

/// What lies below an LU.
#[derive(Clone)]
pub(super) struct Below {
    pub backing: Arc<dyn Backing>,
    /// What is behind that reads zero.
    pub size: u64,
}

/// The same on one core.
pub(super) struct Under {
    pub device: Rc<dyn Device>,
    pub size: u64,
}

impl Under {
    /// Reads what is there from a byte of it on.
    pub async fn read(&self, span: Span, data: &Sgl<'_>) -> Result<(), Error> {
        let within = (span.end.min(self.size) - span.start) as usize;
        data.slice(within, data.len() - within).fill_zero();
        let data = data.slice(0, within);
        self.device.io(&Request::read(span.start, data)).await.map(drop)
    }
}

impl Below {
    pub fn on(&self, core: &Core) -> Under {
        Under { device: self.backing.device(core), size: self.size }
    }
}

/// What lies below the layers of an LU: its own, or that of what it is a clone of.
pub(super) struct Depths {
    own: Mutex<Option<Below>>,
    base: Option<Arc<View>>,
}

impl Depths {
    pub fn new(own: Option<Below>, base: Option<Arc<View>>) -> Arc<Self> {
        Arc::new(Self { own: Mutex::new(own), base })
    }

    /// What is read below the lowest layer of all.
    pub fn below(&self) -> Option<Below> {
        self.own().or_else(|| self.base.as_ref()?.depths().below())
    }

    /// What this LU itself is brought from.
    pub fn own(&self) -> Option<Below> {
        self.lock().clone()
    }

    /// It is brought.
    pub fn end(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Below>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
