//! The io_uring of a core, and the slots of what it has in flight.
//!
//! A slot keeps everything that the kernel may touch until the operation's completion: the list of
//! parts (which is the iovec itself), the pin on their memory, the file. So whoever asked may be
//! dropped at any time. Entries are pushed into the submission queue and handed over once per turn;
//! when the queue is full it is handed over at once, and what the kernel does not take then waits
//! in a backlog.

use std::any::Any;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use block::{Completion, Error, MemPin, Part, Sgl};
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::event::EventFd;
use super::file::OsFile;
use crate::core::{Core, Doorbell as CoreDoorbell, Driver as CoreDriver};
use crate::poller::PollerId;

/// Completions looked at in one gulp.
const GULP: usize = 64;
/// Most parts that one vectored call takes (`IOV_MAX`).
const PARTS_MAX: usize = 1024;
/// Most bytes that one call moves: the kernel cuts at 2 GiB less a page, this is well below.
const BYTES_MAX: usize = 1 << 30;

/// How long a core that ends waits for the kernel to let go of its memory.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// So many bytes of transfers are handed over at once, not at the end of the turn: nothing of a
/// batch reaches the disk until the kernel has prepared all of it, and meanwhile the disk idles.
const UNSENT_MAX: usize = 16 << 10;
/// The same while the kernel has so many transfers that no disk idles: one call for several costs
/// it less, and so does telling the disk of them once.
const UNSENT_BUSY_MAX: usize = 32 << 10;
const BUSY_MIN: u32 = 8;

const IORING_ENTER_GETEVENTS: u32 = 1;

pub struct Driver {
    inner: RefCell<Inner>,
    in_flight: Cell<u32>,
    /// Transfers that have begun and not ended.
    transfers: Cell<u32>,
    /// Those of them that were pushed since the queue was last handed over, and their bytes.
    unsent: Cell<(u32, usize)>,
    drains: RefCell<Vec<Drain>>,
    pub(crate) counters: Counters,
    pub(crate) doorbell: Rc<EventFd>,
}

/// What the loop counts about itself.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) enters: Cell<u64>,
    pub(crate) sleeps: Cell<u64>,
    pub(crate) operations: Cell<u64>,
}

/// How another thread wakes a core: an eventfd, or a message from ring to ring.
pub(crate) struct Doorbell {
    event: EventFd,
    ring: AtomicI32,
}

impl Doorbell {
    pub(crate) fn ring(&self) {
        let sent = Core::with_current(|core| {
            let CoreDriver::Os(driver) = &core.driver else { return false };
            driver.message(self.ring.load(Ordering::Relaxed), self.event.as_raw_fd());
            true
        });
        if sent != Some(true) {
            self.event.signal();
        }
    }
}

struct Inner {
    queue: Queue,
    ops: Ops,
}

struct Queue {
    ring: IoUring,
    /// What did not fit into the ring.
    backlog: VecDeque<squeue::Entry>,
}

struct Ops {
    list: Vec<Op>,
    /// First of the free slots; each names the next.
    free: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// In lines of the cache, so that an operation without data touches one.
#[repr(C, align(64))]
struct Op {
    what: What,
    /// The parts still to move; their storage is used again by the next operation of this slot.
    parts: Vec<Part>,
}

#[repr(u8)]
enum What {
    Free {
        next: u32,
    },
    /// Bytes between memory and a file.
    Transfer(Transfer),
    /// Anything with one answer and no data: sync, allocate.
    Plain {
        done: Completion,
        _file: Option<Rc<OsFile>>,
    },
    /// A task waits for the raw result.
    Future(Waited),
    /// A read of an eventfd, repeated for as long as its owner wants.
    Event(Event),
    /// A message to another core's ring; on failure its eventfd is rung.
    Message(RawFd),
}

struct Transfer {
    done: Completion,
    file: Rc<OsFile>,
    pin: Option<MemPin>,
    write: Option<WriteFlags>,
    offset: u64,
    left: usize,
    total: usize,
}

/// How a write is done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteFlags {
    /// Answered when durable.
    pub(crate) durable: bool,
}

struct Event {
    value: Box<u64>,
    fd: Rc<EventFd>,
    then: Then,
}

enum Waited {
    Pending { waker: Option<Waker>, _keep: Option<Rc<dyn Any>> },
    Done(i32),
    Abandoned { _keep: Option<Rc<dyn Any>> },
}

/// What an eventfd's signal means.
#[derive(Clone)]
pub(crate) enum Then {
    /// Letters in the mailbox.
    Mail,
    Activate(PollerId),
    Call(Rc<dyn Fn()>),
    /// The owner is gone: the next signal ends it.
    Stop,
}

/// Part of a file on this core.
#[derive(Clone)]
pub(crate) struct FileRange {
    pub(crate) file: Rc<OsFile>,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Look at reads too.
    pub(crate) reads: bool,
}

/// Someone waits until no transfer of this range is in flight.
struct Drain {
    range: FileRange,
    waker: Option<Waker>,
    id: u64,
}

impl Driver {
    pub(crate) fn new(submissions: u32) -> io::Result<(Self, Doorbell)> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(submissions.saturating_mul(4))
            .setup_clamp()
            .build(submissions)
            .map_err(explain)?;
        let doorbell = EventFd::new()?;
        let shared =
            Doorbell { event: doorbell.try_clone()?, ring: AtomicI32::new(ring.as_raw_fd()) };
        let driver = Self {
            inner: RefCell::new(Inner {
                queue: Queue { ring, backlog: VecDeque::new() },
                ops: Ops { list: Vec::new(), free: NONE },
            }),
            in_flight: Cell::new(0),
            transfers: Cell::new(0),
            unsent: Cell::new((0, 0)),
            drains: RefCell::default(),
            counters: Counters::default(),
            doorbell: Rc::new(doorbell),
        };
        Ok((driver, shared))
    }

    /// Operations whose completion the loop should look out for (eventfd reads are not counted).
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    // ---- asking -------------------------------------------------------------------------------

    /// Moves bytes between a file and memory.
    pub(crate) fn transfer(
        &self,
        file: &Rc<OsFile>,
        write: Option<WriteFlags>,
        offset: u64,
        data: &Sgl<'_>,
        done: Completion,
    ) {
        let total = data.len();
        let (file, pin) = (file.clone(), data.pin().cloned());
        let transfer = Transfer { done, file, pin, write, offset, left: total, total };
        self.start(|op| {
            op.parts.extend(data.parts());
            let entry = transfer_entry(&transfer, &op.parts);
            op.fill(What::Transfer(transfer));
            entry
        });
        self.more_in_flight();
        self.transfers.set(self.transfers.get() + 1);
        let (count, bytes) = self.unsent.get();
        let (count, bytes) = (count + 1, bytes + total);
        self.unsent.set((count, bytes));
        let is_busy = self.transfers.get() - count >= BUSY_MIN;
        if bytes >= if is_busy { UNSENT_BUSY_MAX } else { UNSENT_MAX } {
            let _ = self.enter();
        }
    }

    /// An operation on a file that answers with zero or an error.
    pub(crate) fn plain(&self, file: &Rc<OsFile>, entry: squeue::Entry, done: Completion) {
        self.plain_on(Some(file.clone()), entry, done);
    }

    /// Nothing, to the kernel and back: for measurements of everything around an operation.
    pub(crate) fn nop(&self, done: Completion) {
        self.plain_on(None, opcode::Nop::new().build(), done);
    }

    #[inline]
    fn plain_on(&self, file: Option<Rc<OsFile>>, entry: squeue::Entry, done: Completion) {
        self.start(|op| {
            op.fill(What::Plain { done, _file: file });
            entry
        });
        self.more_in_flight();
    }

    /// A raw operation for a task to wait on. Dropping the future cancels the operation; what it
    /// uses is kept until the kernel has let go.
    pub(crate) fn submit(&self, entry: squeue::Entry, keep: Option<Rc<dyn Any>>) -> u32 {
        let waited = What::Future(Waited::Pending { waker: None, _keep: keep });
        let index = self.start(|op| {
            op.fill(waited);
            entry
        });
        self.more_in_flight();
        index
    }

    /// Goes on reading an eventfd until [`Driver::unwatch`].
    pub(crate) fn watch(&self, fd: &Rc<EventFd>, then: Then) -> u32 {
        let value = Box::new(0u64);
        let mut event = Event { value, fd: fd.clone(), then };
        self.start(|op| {
            let entry = event.entry();
            op.fill(What::Event(event));
            entry
        })
    }

    pub(crate) fn unwatch(&self, index: u32) {
        if let What::Event(event) = &mut self.inner.borrow_mut().ops.list[index as usize].what {
            event.then = Then::Stop;
        }
        self.cancel(index);
    }

    fn cancel(&self, index: u32) {
        let entry = opcode::AsyncCancel::new(u64::from(index)).build();
        self.push(entry.user_data(UNHEARD).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Rings another core's doorbell from this one.
    fn message(&self, ring: RawFd, event: RawFd) {
        self.start(|op| {
            op.fill(What::Message(event));
            opcode::MsgRingData::new(types::Fd(ring), 0, UNHEARD, None).build()
        });
    }

    /// Pushes an entry whose operation has a slot of its own.
    #[inline(always)]
    fn start(&self, fill: impl FnOnce(&mut Op) -> squeue::Entry) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let (index, op) = inner.ops.take();
        let entry = fill(op).user_data(u64::from(index));
        self.push_to(inner, entry);
        index
    }

    fn push(&self, entry: squeue::Entry) {
        self.push_to(self.inner.borrow_mut(), entry);
    }

    #[inline(always)]
    fn push_to(&self, mut inner: RefMut<'_, Inner>, entry: squeue::Entry) {
        self.counters.operations.set(self.counters.operations.get() + 1);
        if !inner.queue.push(&entry) {
            drop(inner);
            self.push_when_full(entry);
        }
    }

    /// The kernel may refuse to take the queue while it has completions that nobody has taken; then
    /// the entry waits for the next turn.
    #[cold]
    #[inline(never)]
    fn push_when_full(&self, entry: squeue::Entry) {
        let _ = self.enter();
        let queue = &mut self.inner.borrow_mut().queue;
        if !queue.push(&entry) {
            queue.backlog.push_back(entry);
        }
    }

    // ---- talking to the kernel ----------------------------------------------------------------

    /// Hands over what was pushed, if anything, and lets the kernel post completions it holds back.
    #[inline]
    pub(crate) fn flush(&self) {
        if self.inner.borrow_mut().queue.wants_enter() {
            let _ = self.enter();
        }
    }

    /// Entries that the kernel has not taken yet.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.inner.borrow().queue.backlog.is_empty()
    }

    /// Whether the kernel has something for us, without asking it.
    pub(crate) fn has_news(&self) -> bool {
        let ring = &mut self.inner.borrow_mut().queue.ring;
        ring.submission().taskrun() || !ring.completion().is_empty()
    }

    /// One system call: hands over the queue and runs what the kernel has held back, without
    /// waiting.
    fn enter(&self) -> io::Result<usize> {
        self.counters.enters.set(self.counters.enters.get() + 1);
        self.unsent.set((0, 0));
        let ring = &mut self.inner.borrow_mut().queue.ring;
        let pending = ring.submission().len() as u32;
        // SAFETY: entries in the queue are valid as `Queue::push` says; no argument is passed.
        unsafe {
            ring.submitter().enter::<libc::sigset_t>(pending, 0, IORING_ENTER_GETEVENTS, None)
        }
    }

    /// Sleeps until a completion or the time limit.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        self.counters.enters.set(self.counters.enters.get() + 1);
        self.counters.sleeps.set(self.counters.sleeps.get() + 1);
        self.unsent.set((0, 0));
        let ring = &self.inner.borrow().queue.ring;
        let result = match limit {
            None => ring.submitter().submit_and_wait(1),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        if let Err(error) = result {
            const NORMAL: [i32; 4] = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
            let errno = error.raw_os_error().unwrap_or(0);
            assert!(NORMAL.contains(&errno), "io_uring_enter failed for good: {error}");
        }
    }

    /// Takes completions and answers who asked. True: there were some.
    #[inline]
    pub(crate) fn reap(&self, core: &Core) -> bool {
        let nothing = self.inner.borrow_mut().queue.ring.completion().is_empty();
        !nothing && self.reap_some(core)
    }

    fn reap_some(&self, core: &Core) -> bool {
        let mut worked = false;
        loop {
            let mut space = [const { MaybeUninit::<cqueue::Entry>::uninit() }; GULP];
            let mut inner = self.inner.borrow_mut();
            let entries = inner.queue.ring.completion().fill(&mut space);
            drop(inner);
            for entry in entries.iter() {
                worked |= self.complete(core, entry.user_data(), entry.result());
            }
            if entries.len() < GULP {
                return worked;
            }
        }
    }

    /// True where somebody was waiting for this.
    fn complete(&self, core: &Core, user_data: u64, result: i32) -> bool {
        if user_data == UNHEARD {
            return true;
        }
        let index = user_data as u32;
        let mut inner = self.inner.borrow_mut();
        let ops = &mut inner.ops;
        let op = &mut ops.list[index as usize];
        match &mut op.what {
            What::Transfer(transfer) => {
                if transfer.moved(result, &mut op.parts) {
                    let entry = transfer_entry(transfer, &op.parts);
                    self.push_to(inner, entry.user_data(user_data));
                    return true;
                }
                op.parts.clear();
                let What::Transfer(transfer) = ops.free(index) else { unreachable!() };
                drop(inner);
                self.transferred(transfer, result);
            }
            What::Plain { .. } => {
                let What::Plain { done, .. } = ops.free(index) else { unreachable!() };
                drop(inner);
                self.less_in_flight();
                done.finish(if result < 0 {
                    Err(Error::from_errno(-result, "file operation"))
                } else {
                    Ok(0)
                });
            }
            What::Future(waited) => {
                let waited = mem::replace(waited, Waited::Done(result));
                let abandoned = matches!(waited, Waited::Abandoned { .. });
                let free = abandoned.then(|| ops.free(index));
                drop((inner, free));
                self.less_in_flight();
                match waited {
                    Waited::Pending { waker, .. } => waker.into_iter().for_each(Waker::wake),
                    Waited::Abandoned { .. } => {}
                    Waited::Done(_) => unreachable!("one completion per operation"),
                }
            }
            What::Event(event) => {
                let then = event.then.clone();
                if matches!(then, Then::Stop) || (result < 0 && result != -libc::EINTR) {
                    let event = ops.free(index);
                    drop((inner, event));
                    return false;
                }
                let entry = event.entry();
                self.push_to(inner, entry.user_data(user_data));
                signalled(core, &then);
            }
            What::Message(event) => {
                let event = *event;
                let _ = ops.free(index);
                drop(inner);
                if result < 0 {
                    // Older kernels refuse messages to such a ring now and then.
                    super::event::signal(event);
                }
                return false;
            }
            What::Free { .. } => unreachable!("a completion for a free slot"),
        }
        true
    }

    #[inline]
    fn transferred(&self, transfer: Transfer, result: i32) {
        self.less_in_flight();
        self.transfers.set(self.transfers.get() - 1);
        let outcome = transfer.outcome(result);
        // Whoever is answered has the memory for himself again.
        drop(transfer.pin);
        transfer.done.finish(outcome);
        self.look_at_drains();
    }

    #[inline(always)]
    fn more_in_flight(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    fn less_in_flight(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }

    // ---- the end ------------------------------------------------------------------------------

    /// Cancels everything and waits until the kernel has let go of all memory. What a hanging store
    /// does not give back within the limit is leaked: freeing it would be worse.
    pub(crate) fn close(&self, core: &Core) {
        if let CoreDoorbell::Os(bell) = &core.0.post.doorbell {
            bell.ring.store(-1, Ordering::Relaxed);
        }
        for op in self.inner.borrow_mut().ops.list.iter_mut() {
            if let What::Event(event) = &mut op.what {
                event.then = Then::Stop;
            }
        }
        let deadline = super::clock() + CLOSE_LIMIT;
        while self.inner.borrow().ops.busy() > 0 && super::clock() < deadline {
            self.flush();
            let all = types::CancelBuilder::any().all();
            // Nothing to cancel and too late to cancel are both fine: the completions tell.
            let _ = self.inner.borrow().queue.ring.submitter().register_sync_cancel(None, all);
            self.wait(Some(Duration::from_millis(1)));
            self.reap(core);
        }
        if self.inner.borrow().ops.busy() > 0 {
            mem::forget(mem::take(&mut self.inner.borrow_mut().ops.list));
        }
    }

    // ---- waiting for quiet --------------------------------------------------------------------

    /// Whether a transfer of this range is in flight.
    fn is_busy(&self, range: &FileRange) -> bool {
        self.inner.borrow().ops.list.iter().any(|op| match &op.what {
            What::Transfer(transfer) => {
                (range.reads || transfer.write.is_some())
                    && Rc::ptr_eq(&transfer.file, &range.file)
                    && transfer.overlaps(range.offset, range.len)
            }
            _ => false,
        })
    }

    /// Resolves when no transfer of this range is in flight on this core. New ones are the caller's
    /// to hold back.
    pub(crate) async fn settled(core: Core, range: FileRange) {
        let driver = core.os();
        let mut entry = DrainEntry { driver, id: None };
        std::future::poll_fn(|cx| {
            if !driver.is_busy(&range) {
                return Poll::Ready(());
            }
            let mut drains = driver.drains.borrow_mut();
            let waker = Some(cx.waker().clone());
            match drains.iter_mut().find(|drain| Some(drain.id) == entry.id) {
                Some(drain) => drain.waker = waker,
                None => {
                    let id = drains.iter().map(|drain| drain.id + 1).max().unwrap_or(0);
                    drains.push(Drain { range: range.clone(), waker, id });
                    entry.id = Some(id);
                }
            }
            Poll::Pending
        })
        .await;
    }

    #[cfg(test)]
    pub(super) fn waiting_for_quiet(&self) -> usize {
        self.drains.borrow().len()
    }

    #[inline]
    fn look_at_drains(&self) {
        if self.drains.borrow().is_empty() {
            return;
        }
        let mut quiet = Vec::new();
        for drain in self.drains.borrow_mut().iter_mut() {
            if !self.is_busy(&drain.range) {
                quiet.extend(drain.waker.take());
            }
        }
        quiet.into_iter().for_each(Waker::wake);
    }
}

/// A waiter's place in the list: given up with its future, because it holds the file.
struct DrainEntry<'a> {
    driver: &'a Driver,
    id: Option<u64>,
}

impl Drop for DrainEntry<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.driver.drains.borrow_mut().retain(|drain| drain.id != id);
        }
    }
}

/// Marks completions that nobody waits for.
const UNHEARD: u64 = u64::MAX;

fn signalled(core: &Core, then: &Then) {
    match then {
        // The letters themselves are read in every turn.
        Then::Mail | Then::Stop => {}
        Then::Activate(poller) => core.activate_poller(*poller),
        Then::Call(f) => f(),
    }
}

fn transfer_entry(transfer: &Transfer, parts: &[Part]) -> squeue::Entry {
    let fd = types::Fd(transfer.file.fd());
    let flags = match transfer.write {
        Some(WriteFlags { durable: true }) => libc::RWF_DSYNC,
        _ => 0,
    };
    let offset = transfer.offset;
    if let [part] = parts
        && part.len() <= BYTES_MAX
    {
        let len = part.len() as u32;
        return match transfer.write {
            Some(_) => {
                opcode::Write::new(fd, part.at(), len).offset(offset).rw_flags(flags).build()
            }
            None => opcode::Read::new(fd, part.at(), len).offset(offset).build(),
        };
    }
    let vectors = parts.as_ptr().cast::<libc::iovec>();
    let mut bytes = 0usize;
    let count = parts
        .iter()
        .take(PARTS_MAX)
        .take_while(|part| {
            bytes = bytes.saturating_add(part.len());
            bytes <= BYTES_MAX
        })
        .count()
        .max(1) as u32;
    match transfer.write {
        Some(_) => opcode::Writev::new(fd, vectors, count).offset(offset).rw_flags(flags).build(),
        None => opcode::Readv::new(fd, vectors, count).offset(offset).build(),
    }
}

impl Transfer {
    fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.offset < offset.saturating_add(len)
            && offset < self.offset.saturating_add(self.left as u64)
    }

    /// Takes what was moved off the parts. True: there is more to do, ask again.
    #[inline]
    fn moved(&mut self, result: i32, parts: &mut Vec<Part>) -> bool {
        if result == -libc::EINTR || result == -libc::EAGAIN {
            return true;
        }
        if result <= 0 || result as usize >= self.left {
            return false;
        }
        self.moved_some(result as usize, parts);
        true
    }

    #[cold]
    fn moved_some(&mut self, mut bytes: usize, parts: &mut Vec<Part>) {
        self.left -= bytes;
        self.offset += bytes as u64;
        let whole = parts
            .iter()
            .take_while(|part| {
                let whole = part.len() <= bytes;
                bytes -= if whole { part.len() } else { 0 };
                whole
            })
            .count();
        parts.drain(..whole);
        if let Some(first) = parts.first_mut() {
            *first = Part::new(first.at().wrapping_add(bytes), first.len() - bytes);
        }
    }

    #[inline]
    fn outcome(&self, result: i32) -> block::Outcome {
        if result < 0 || (result == 0 && self.left > 0) {
            return Err(self.failed(result));
        }
        Ok(self.total as u64)
    }

    #[cold]
    fn failed(&self, result: i32) -> Error {
        let what = if self.write.is_some() { "write" } else { "read" };
        let note = format!("{what} at {} of {}", self.offset, self.file.path().display());
        if result == 0 {
            // The file ends before the device does: somebody has cut it.
            return Error::from_errno(libc::EIO, note).note("file is shorter than the device");
        }
        Error::from_errno(-result, note)
    }
}

impl Event {
    fn entry(&mut self) -> squeue::Entry {
        let value: *mut u64 = &mut *self.value;
        opcode::Read::new(types::Fd(self.fd.as_raw_fd()), value.cast(), 8).build()
    }
}

impl Op {
    /// Fills a slot that was taken.
    #[inline(always)]
    fn fill(&mut self, what: What) {
        // There is nothing to drop, which the compiler would look for.
        mem::forget(mem::replace(&mut self.what, what));
    }
}

impl Queue {
    /// False: the ring is full, or what came before still waits.
    #[inline(always)]
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to is kept in its operation's slot until its completion.
        self.backlog.is_empty() && unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    #[inline]
    fn wants_enter(&mut self) -> bool {
        if !self.backlog.is_empty() {
            self.push_backlog();
        }
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    #[cold]
    fn push_backlog(&mut self) {
        let mut submission = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }
}

impl Ops {
    fn busy(&self) -> usize {
        self.list.iter().filter(|op| !matches!(op.what, What::Free { .. })).count()
    }

    /// A slot to be filled.
    #[inline(always)]
    fn take(&mut self) -> (u32, &mut Op) {
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        let op = &mut self.list[index as usize];
        let What::Free { next } = op.what else { unreachable!("in the list of free ones") };
        self.free = next;
        (index, op)
    }

    #[cold]
    fn grow(&mut self) {
        self.free = self.list.len() as u32;
        self.list.push(Op { what: What::Free { next: NONE }, parts: Vec::new() });
    }

    #[inline(always)]
    fn free(&mut self, index: u32) -> What {
        let free = What::Free { next: self.free };
        let what = mem::replace(&mut self.list[index as usize].what, free);
        self.free = index;
        what
    }
}

/// The result of a raw operation.
pub(crate) struct Submitted {
    core: Core,
    index: Option<u32>,
}

impl Submitted {
    pub(crate) fn new(core: &Core, entry: squeue::Entry, keep: Option<Rc<dyn Any>>) -> Self {
        Self { core: core.clone(), index: Some(core.os().submit(entry, keep)) }
    }
}

impl Future for Submitted {
    type Output = i32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i32> {
        let index = self.index.expect("polled after its result");
        let mut inner = self.core.os().inner.borrow_mut();
        let What::Future(waited) = &mut inner.ops.list[index as usize].what else {
            unreachable!("the slot is held until its result is taken")
        };
        match waited {
            Waited::Pending { waker, .. } => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Waited::Done(result) => {
                let result = *result;
                let _ = inner.ops.free(index);
                drop(inner);
                self.index = None;
                Poll::Ready(result)
            }
            Waited::Abandoned { .. } => unreachable!("abandoned by drop only"),
        }
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        let mut inner = self.core.os().inner.borrow_mut();
        let What::Future(waited) = &mut inner.ops.list[index as usize].what else { return };
        match mem::replace(waited, Waited::Done(0)) {
            Waited::Pending { _keep, .. } => {
                *waited = Waited::Abandoned { _keep };
                drop(inner);
                self.core.os().cancel(index);
            }
            _ => drop(inner.ops.free(index)),
        }
    }
}

/// Says which switch forbids io_uring, because "not permitted" alone helps nobody.
fn explain(error: io::Error) -> io::Error {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let hint = match (error.raw_os_error(), switch.trim()) {
        (Some(libc::EPERM), "1") => {
            "kernel.io_uring_disabled=1 allows it to the group in kernel.io_uring_group only: \
             run as a member of that group, or set the sysctl to 0"
        }
        (Some(libc::EPERM), "2") => {
            "kernel.io_uring_disabled=2 forbids it to everyone: set the sysctl to 0"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp filter or security module forbids it: allow io_uring_setup, io_uring_enter \
             and io_uring_register in the container's or unit's profile"
        }
        (Some(libc::ENOSYS), _) => {
            "this kernel or sandbox has none: Linux 6.1 or newer is needed, with \
             CONFIG_IO_URING, and a container profile that allows it"
        }
        (Some(libc::EINVAL), _) => "the kernel is too old: Linux 6.1 or newer is needed",
        (Some(libc::ENOMEM), _) => "no memory for its rings: raise the memory or memlock limit",
        (Some(libc::EMFILE | libc::ENFILE), _) => "no file descriptor is left: raise LimitNOFILE",
        _ => "unexpected",
    };
    io::Error::new(error.kind(), format!("io_uring cannot be set up: {error}: {hint}"))
}
