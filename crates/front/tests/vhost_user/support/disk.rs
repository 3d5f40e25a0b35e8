//! A disk in memory that writes down what it is asked, in the order in which it is asked, and that
//! answers at once or when the test says so, and how.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use block::{
    Asked, Completion, Device, ErrorKind, Geometry, Op, OpSet, Outcome, Request, RequestBuf, Watch,
};
use front::vhost_user::Open;
use rt::{Core, CoreId, Placed};

use super::PATIENCE;

/// What the disk was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub op: Op,
    pub offset: u64,
    pub len: u64,
    pub core: CoreId,
}

/// How a request that waits is to end.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Do,
    Fail(ErrorKind),
    /// A read that has filled so many bytes before it fails.
    FillAndFail(usize, ErrorKind),
}

pub struct Disk {
    state: Mutex<State>,
    begun: Condvar,
}

struct State {
    bytes: Vec<u8>,
    journal: Vec<Entry>,
    holding: bool,
    handles: Vec<Placed<Handle>>,
}

impl Disk {
    pub fn new(size: usize) -> Arc<Self> {
        let state =
            State { bytes: vec![0; size], journal: Vec::new(), holding: false, handles: vec![] };
        Arc::new(Self { state: Mutex::new(state), begun: Condvar::new() })
    }

    /// For an adapter's `Spec`.
    pub fn open(self: &Arc<Self>) -> Open {
        let disk = self.clone();
        Box::new(move |core| {
            let handle = Rc::new(Handle {
                disk: disk.clone(),
                core: core.clone(),
                held: RefCell::default(),
                watch: Watch::new(),
            });
            disk.state().handles.push(Placed::new(core, handle.clone()));
            handle
        })
    }

    /// From now on requests wait to be answered, or do not.
    pub fn hold(&self, holding: bool) {
        self.state().holding = holding;
    }

    /// Everything it was ever asked.
    pub fn journal(&self) -> Vec<Entry> {
        self.state().journal.clone()
    }

    /// Waits until it was asked so often in all.
    pub fn wait_begun(&self, count: usize) {
        let state = self.state();
        let (state, timeout) = self
            .begun
            .wait_timeout_while(state, PATIENCE, |state| state.journal.len() < count)
            .unwrap();
        assert!(!timeout.timed_out(), "{} of {count} requests came", state.journal.len());
    }

    /// Ends the request that came as this one in all; it must be waiting.
    pub fn answer(&self, number: usize, how: How) {
        assert!(self.each(move |handle| handle.answer(number, how)).contains(&true));
    }

    /// Ends everything that waits, and holds nothing from now on.
    pub fn answer_all(&self) {
        self.hold(false);
        self.each(|handle| handle.answer_all());
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        self.state().bytes[offset..offset + len].to_vec()
    }

    pub fn fill(&self, offset: usize, bytes: &[u8]) {
        self.state().bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub fn resize(&self, size: usize) {
        self.state().bytes.resize(size, 0);
        self.each(|handle| handle.watch.notify());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Does something with the handle of every core that still runs.
    fn each<T: Send + 'static>(&self, f: impl Fn(&Handle) -> T + Clone + Send + 'static) -> Vec<T> {
        let handles = std::mem::take(&mut self.state().handles);
        let asked: Vec<_> = handles
            .iter()
            .map(|handle| {
                let f = f.clone();
                handle.call(move |handle| async move { f(&handle) })
            })
            .collect();
        let answers = asked.into_iter().filter_map(|reply| reply.wait()).collect();
        self.state().handles.extend(handles);
        answers
    }
}

struct Handle {
    disk: Arc<Disk>,
    core: Core,
    held: RefCell<VecDeque<Held>>,
    watch: Watch,
}

struct Held {
    number: usize,
    request: RequestBuf,
    done: Completion,
}

impl Device for Handle {
    fn geometry(&self) -> Geometry {
        let size = self.disk.state().bytes.len() as u64;
        Geometry { ops: OpSet::DISCARD | OpSet::WRITE_ZEROES, ..Geometry::plain(size, 512) }
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.geometry().check(request) {
            return asked.now(Err(error));
        }
        let mut state = self.disk.state();
        let &Request { op, offset, len, .. } = request;
        state.journal.push(Entry { op, offset, len, core: self.core.id() });
        let number = state.journal.len() - 1;
        let outcome = if state.holding {
            let (request, done) = (request.to_buf(), asked.later());
            self.held.borrow_mut().push_back(Held { number, request, done });
            None
        } else {
            asked.now(perform(&mut state.bytes, request, How::Do))
        };
        drop(state);
        self.disk.begun.notify_all();
        outcome
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Handle {
    fn answer(&self, number: usize, how: How) -> bool {
        let position = self.held.borrow().iter().position(|held| held.number == number);
        let held = position.and_then(|position| self.held.borrow_mut().remove(position));
        held.map(|held| self.end(held, how)).is_some()
    }

    fn answer_all(&self) {
        for held in self.held.take() {
            self.end(held, How::Do);
        }
    }

    fn end(&self, held: Held, how: How) {
        let outcome = perform(&mut self.disk.state().bytes, &held.request.as_request(), how);
        held.done.finish(outcome);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A process that is killed answers nothing more.
        std::mem::forget(self.held.take());
    }
}

fn perform(disk: &mut [u8], request: &Request<'_>, how: How) -> Outcome {
    let range = request.offset as usize..(request.offset + request.len) as usize;
    match (how, request.op) {
        (How::Fail(kind), _) => return Err(kind.into()),
        (How::FillAndFail(count, kind), _) => {
            request.data.copy_in(0, &disk[range][..count]);
            return Err(kind.into());
        }
        (How::Do, Op::Read) => request.data.copy_in(0, &disk[range]),
        (How::Do, Op::Write { .. }) => request.data.copy_out(0, &mut disk[range]),
        (How::Do, Op::Discard | Op::WriteZeroes { .. }) => disk[range].fill(0),
        (How::Do, _) => {}
    }
    Ok(request.len)
}
