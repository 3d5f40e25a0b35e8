//! Disks as they would be: what lies on them, with pages over it that are not written yet. So what
//! is to be written is read by all that opens a pool before any of it is.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Asked, Device, Error, ErrorKind, Geometry, Op, Outcome, Request, Watch};
use rt::Core;

use super::super::disks::Backing;
use super::super::page::{PAGE_BYTES, Page};

/// By where they lie on the disk.
pub type Pages = BTreeMap<u64, Page>;

/// A disk with pages over it.
pub struct Overlay {
    below: Arc<dyn Backing>,
    pages: Mutex<Pages>,
}

impl Overlay {
    pub fn new(below: Arc<dyn Backing>) -> Arc<Self> {
        Arc::new(Self { below, pages: Mutex::default() })
    }

    pub fn below(&self) -> &Arc<dyn Backing> {
        &self.below
    }

    pub fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An overlay as pools take it.
pub struct Laid(pub Arc<Overlay>);

impl Backing for Laid {
    fn device(&self, core: &Core) -> Rc<dyn Device> {
        Rc::new(OnCore { below: self.0.below.device(core), overlay: self.0.clone() })
    }

    fn name(&self) -> &str {
        self.0.below.name()
    }
}

struct OnCore {
    below: Rc<dyn Device>,
    overlay: Arc<Overlay>,
}

impl Device for OnCore {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if !matches!(request.op, Op::Read | Op::Flush) {
            let error = Error::new(ErrorKind::ReadOnly).note("it is only looked at");
            return asked.now(Err(error));
        }
        let pages = self.overlay.pages();
        let end = request.offset + request.len;
        let first = (request.offset + 1).saturating_sub(PAGE_BYTES as u64);
        match pages.range(first..end.max(first)).next() {
            None => {
                drop(pages);
                self.below.begin(request, asked)
            }
            // Metadata is read page by page.
            Some((at, page)) if (*at, PAGE_BYTES as u64) == (request.offset, request.len) => {
                request.data.copy_in(0, page.bytes());
                asked.now(Ok(PAGE_BYTES as u64))
            }
            Some(_) => {
                let error = Error::new(ErrorKind::Unsupported).note("a part of what is laid over");
                asked.now(Err(error))
            }
        }
    }

    fn watch(&self) -> &Watch {
        self.below.watch()
    }
}
