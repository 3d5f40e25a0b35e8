//! A core's handle of a file: the fast path, and where requests leave it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use block::{Asked, Completion, Device, Geometry, Op, Outcome, Request, RequestBuf, Watch};
use rt::handles::{Closes, Gate, HandleId, Span};
use rt::{Core, File};

use super::FileStore;
use crate::Store;

/// What the LU knows of one core's handle. It outlives its device for as long as something that was
/// asked of it is under way, because others must still be excluded from that.
pub(super) struct Handle {
    pub(super) id: HandleId,
    pub(super) store: Arc<FileStore>,
    pub(super) core: Core,
    pub(super) file: File,
    pub(super) geometry: Cell<Geometry>,
    pub(super) gate: Rc<Gate>,
    unit_mask: u64,
    memory_align: usize,
    watch: Watch,
}

impl Handle {
    pub(super) fn new(store: Arc<FileStore>, core: &Core, id: HandleId) -> Self {
        Self {
            id,
            core: core.clone(),
            file: store.handle.on(core),
            geometry: Cell::new(store.geometry),
            gate: Rc::default(),
            unit_mask: store.unit - 1,
            memory_align: store.memory_align,
            watch: Watch::new(),
            store,
        }
    }

    /// The store has a size that may be new.
    pub(super) fn look(&self) {
        let size = self.store.size();
        let geometry = self.geometry.get();
        self.geometry.set(geometry.with_size(size));
        if geometry.size != size {
            self.watch.notify();
        }
    }

    /// Waits until no request in the span is under way, reads included.
    pub(super) async fn quiet(&self, span: Span) {
        self.gate.settled(span).await;
        self.file.quiet(span.start, span.len()).await;
    }

    /// Whether the file takes this request as it is.
    #[inline]
    fn suits(&self, request: &Request<'_>) -> bool {
        request.len != 0
            && (request.offset | request.len) & self.unit_mask == 0
            && (self.memory_align == 1 || request.data.is_aligned(self.memory_align))
    }

    /// Whether the ends of the span are where the file can be written.
    pub(super) fn is_whole(&self, span: Span) -> bool {
        (span.start | span.end) & self.unit_mask == 0
    }

    fn begin_slowly(self: &Rc<Self>, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.geometry.get().check(request) {
            return asked.now(Err(error));
        }
        if request.op == Op::Flush {
            if self.store.geometry.read_only {
                return asked.now(Ok(0));
            }
            self.file.sync(asked.later());
            return None;
        }
        if request.len == 0 {
            return asked.now(Ok(0));
        }
        let (me, buf) = (self.clone(), request.to_buf());
        match request.op {
            Op::Read => {
                self.core.answer(asked, async move { me.read_bounced(&buf.as_request()).await })
            }
            Op::CompareAndWrite { fua } | Op::OrWrite { fua } => {
                self.core.answer(asked, async move { me.exclusive_step(&buf, fua).await })
            }
            Op::Status => self.core.answer(asked, async move { me.status(&buf).await }),
            _ => {
                self.change(buf, asked.later());
                None
            }
        }
    }
}

impl Closes for Handle {
    fn id(&self) -> HandleId {
        self.id
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    async fn settled(&self, span: Span) {
        self.gate.settled(span).await;
        self.file.drained(span.start, span.len()).await;
    }

    fn change(self: &Rc<Self>, buf: RequestBuf, done: Completion) {
        let request = buf.as_request();
        let span = Span::new(request.offset, request.len);
        if self.gate.is_closed(span) {
            return self.gate.hold(buf, done);
        }
        if let Op::Write { fua, .. } = request.op
            && self.suits(&request)
        {
            return self.file.write(request.offset, &request.data, fua, done);
        }
        // One that must be exclusive waits for its turn with a ticket; any other counts from now
        // on.
        let busy = self.is_whole(span).then(|| self.gate.enter(span));
        let me = self.clone();
        self.core.spawn(async move {
            let outcome = me.change_range(&buf, span).await;
            drop(busy);
            done.finish(outcome);
        });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.store.ledger.leave(self.id);
    }
}

/// The device of a core.
pub(super) struct FileDevice {
    handle: Rc<Handle>,
}

impl FileDevice {
    pub(super) fn new(handle: Rc<Handle>) -> Self {
        Self { handle }
    }
}

impl Device for FileDevice {
    fn geometry(&self) -> Geometry {
        self.handle.geometry.get()
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        let handle = &self.handle;
        if !handle.geometry.get().suits(request) || !handle.suits(request) {
            return handle.begin_slowly(request, asked);
        }
        match request.op {
            Op::Write { .. } if !handle.gate.is_open() => {
                return handle.begin_slowly(request, asked);
            }
            Op::Write { fua, .. } => {
                handle.file.write(request.offset, &request.data, fua, asked.later());
            }
            _ => handle.file.read(request.offset, &request.data, asked.later()),
        }
        None
    }

    fn watch(&self) -> &Watch {
        &self.handle.watch
    }
}

impl Drop for FileDevice {
    fn drop(&mut self) {
        let handle = self.handle.clone();
        let core = handle.core.clone();
        core.spawn(async move { handle.ended().await });
    }
}
