//! The io_uring of a core, and the slots of what it has in flight.
//!
//! A slot keeps everything that the kernel may touch until the operation's completion: the list of
//! parts (which is the iovec itself), the pin on their memory, the file. So whoever asked may be
//! dropped at any time. Entries are pushed into the submission queue and handed over once per turn;
//! when the queue is full it is handed over at once, and what the kernel does not take then waits
//! in a backlog.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
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

const IORING_ENTER_GETEVENTS: u32 = 1;

pub struct Driver {
    ring: RefCell<IoUring>,
    ops: RefCell<Ops>,
    backlog: RefCell<VecDeque<squeue::Entry>>,
    in_flight: Cell<u32>,
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

#[derive(Default)]
struct Ops {
    list: Vec<Op>,
    free: Vec<u32>,
}

struct Op {
    what: What,
    /// The parts still to move; their storage is used again by the next operation of this slot.
    parts: Vec<Part>,
    pin: Option<MemPin>,
}

enum What {
    Free,
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
    Event {
        value: Box<u64>,
        fd: Rc<EventFd>,
        then: Then,
    },
    /// A message to another core's ring; on failure its eventfd is rung.
    Message(RawFd),
}

struct Transfer {
    done: Completion,
    file: Rc<OsFile>,
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
            ring: RefCell::new(ring),
            ops: RefCell::default(),
            backlog: RefCell::default(),
            in_flight: Cell::new(0),
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
        let transfer = Transfer { done, file: file.clone(), write, offset, left: total, total };
        let mut ops = self.ops.borrow_mut();
        let index = ops.take(What::Free);
        let op = &mut ops.list[index as usize];
        op.parts.extend(data.parts());
        op.pin = data.pin().cloned();
        let entry = transfer_entry(&transfer, &op.parts);
        op.what = What::Transfer(transfer);
        drop(ops);
        self.push(entry.user_data(u64::from(index)));
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// An operation on a file that answers with zero or an error.
    pub(crate) fn plain(&self, file: &Rc<OsFile>, entry: squeue::Entry, done: Completion) {
        self.plain_on(Some(file.clone()), entry, done);
    }

    /// Nothing, to the kernel and back: for measurements of everything around an operation.
    pub(crate) fn nop(&self, done: Completion) {
        self.plain_on(None, opcode::Nop::new().build(), done);
    }

    fn plain_on(&self, file: Option<Rc<OsFile>>, entry: squeue::Entry, done: Completion) {
        let index = self.ops.borrow_mut().take(What::Plain { done, _file: file });
        self.push(entry.user_data(u64::from(index)));
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A raw operation for a task to wait on. Dropping the future cancels the operation; what it
    /// uses is kept until the kernel has let go.
    pub(crate) fn submit(&self, entry: squeue::Entry, keep: Option<Rc<dyn Any>>) -> u32 {
        let waited = What::Future(Waited::Pending { waker: None, _keep: keep });
        let index = self.ops.borrow_mut().take(waited);
        self.push(entry.user_data(u64::from(index)));
        self.in_flight.set(self.in_flight.get() + 1);
        index
    }

    /// Goes on reading an eventfd until [`Driver::unwatch`].
    pub(crate) fn watch(&self, fd: &Rc<EventFd>, then: Then) -> u32 {
        let value = Box::new(0u64);
        let mut ops = self.ops.borrow_mut();
        let index = ops.take(What::Event { value, fd: fd.clone(), then });
        let entry = ops.list[index as usize].event_entry();
        drop(ops);
        if let Some(entry) = entry {
            self.push(entry.user_data(u64::from(index)));
        }
        index
    }

    pub(crate) fn unwatch(&self, index: u32) {
        if let Some(Op { what: What::Event { then, .. }, .. }) =
            self.ops.borrow_mut().list.get_mut(index as usize)
        {
            *then = Then::Stop;
        }
        self.cancel(index);
    }

    fn cancel(&self, index: u32) {
        let entry = opcode::AsyncCancel::new(u64::from(index)).build();
        self.push(entry.user_data(UNHEARD).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Rings another core's doorbell from this one.
    fn message(&self, ring: RawFd, event: RawFd) {
        let index = self.ops.borrow_mut().take(What::Message(event));
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, UNHEARD, None).build();
        self.push(entry.user_data(u64::from(index)));
    }

    fn push(&self, entry: squeue::Entry) {
        self.counters.operations.set(self.counters.operations.get() + 1);
        if !self.backlog.borrow().is_empty() {
            self.backlog.borrow_mut().push_back(entry);
            return;
        }
        if self.try_push(&entry) {
            return;
        }
        // The queue is exactly full: hand it over now. The kernel may refuse while it has
        // completions that nobody has taken; then the entry waits for the next turn.
        let _ = self.enter();
        if !self.try_push(&entry) {
            self.backlog.borrow_mut().push_back(entry);
        }
    }

    fn try_push(&self, entry: &squeue::Entry) -> bool {
        let mut ring = self.ring.borrow_mut();
        // SAFETY: what the entry points to is kept in its operation's slot until its completion.
        unsafe { ring.submission().push(entry) }.is_ok()
    }

    // ---- talking to the kernel ----------------------------------------------------------------

    /// Hands over what was pushed, if anything, and lets the kernel post completions it holds back.
    pub(crate) fn flush(&self) {
        while let Some(entry) = self.backlog.borrow().front() {
            if !self.try_push(entry) {
                break;
            }
            self.backlog.borrow_mut().pop_front();
        }
        let (pending, held) = {
            let mut ring = self.ring.borrow_mut();
            let queue = ring.submission();
            (queue.len(), queue.taskrun() || queue.cq_overflow())
        };
        if pending > 0 || held {
            let _ = self.enter();
        }
    }

    /// Entries that the kernel has not taken yet.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.borrow().is_empty()
    }

    /// Whether the kernel has something for us, without asking it.
    pub(crate) fn has_news(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        ring.submission().taskrun() || !ring.completion().is_empty()
    }

    /// One system call: hands over the queue and runs what the kernel has held back, without
    /// waiting.
    fn enter(&self) -> io::Result<usize> {
        self.counters.enters.set(self.counters.enters.get() + 1);
        let mut ring = self.ring.borrow_mut();
        let pending = ring.submission().len() as u32;
        // SAFETY: entries in the queue are valid as `push` says; no argument is passed.
        unsafe {
            ring.submitter().enter::<libc::sigset_t>(pending, 0, IORING_ENTER_GETEVENTS, None)
        }
    }

    /// Sleeps until a completion or the time limit.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        self.counters.enters.set(self.counters.enters.get() + 1);
        self.counters.sleeps.set(self.counters.sleeps.get() + 1);
        let ring = self.ring.borrow();
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
    pub(crate) fn reap(&self, core: &Core) -> bool {
        let mut worked = false;
        loop {
            let mut space = [const { MaybeUninit::<cqueue::Entry>::uninit() }; GULP];
            let mut ring = self.ring.borrow_mut();
            let entries = ring.completion().fill(&mut space);
            drop(ring);
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
        let mut ops = self.ops.borrow_mut();
        let op = &mut ops.list[index as usize];
        match &mut op.what {
            What::Transfer(transfer) => {
                if transfer.moved(result, &mut op.parts) {
                    let entry = transfer_entry(transfer, &op.parts);
                    drop(ops);
                    self.push(entry.user_data(user_data));
                    return true;
                }
                let What::Transfer(transfer) = ops.free(index) else { unreachable!() };
                drop(ops);
                self.less_in_flight();
                let outcome = transfer.outcome(result);
                transfer.done.finish(outcome);
                self.look_at_drains();
            }
            What::Plain { .. } => {
                let What::Plain { done, .. } = ops.free(index) else { unreachable!() };
                drop(ops);
                self.less_in_flight();
                done.finish(if result < 0 {
                    Err(Error::from_errno(-result, "file operation"))
                } else {
                    Ok(0)
                });
            }
            What::Future(waited) => {
                match std::mem::replace(waited, Waited::Done(result)) {
                    Waited::Pending { waker: Some(waker), .. } => waker.wake(),
                    Waited::Pending { waker: None, .. } => {}
                    Waited::Abandoned { .. } => drop(ops.free(index)),
                    Waited::Done(_) => unreachable!("one completion per operation"),
                }
                self.less_in_flight();
            }
            What::Event { then, .. } => {
                let then = then.clone();
                if matches!(then, Then::Stop) || (result < 0 && result != -libc::EINTR) {
                    drop(ops.free(index));
                    return false;
                }
                let entry = op.event_entry();
                drop(ops);
                if let Some(entry) = entry {
                    self.push(entry.user_data(user_data));
                }
                signalled(core, &then);
            }
            What::Message(event) => {
                let event = *event;
                drop(ops.free(index));
                if result < 0 {
                    // Older kernels refuse messages to such a ring now and then.
                    super::event::signal(event);
                }
                return false;
            }
            What::Free => unreachable!("a completion for a free slot"),
        }
        true
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
        for op in self.ops.borrow_mut().list.iter_mut() {
            if let What::Event { then, .. } = &mut op.what {
                *then = Then::Stop;
            }
        }
        let deadline = super::clock() + CLOSE_LIMIT;
        while self.ops.borrow().busy() > 0 && super::clock() < deadline {
            self.flush();
            let all = types::CancelBuilder::any().all();
            // Nothing to cancel and too late to cancel are both fine: the completions tell.
            let _ = self.ring.borrow().submitter().register_sync_cancel(None, all);
            self.wait(Some(Duration::from_millis(1)));
            self.reap(core);
        }
        if self.ops.borrow().busy() > 0 {
            std::mem::forget(self.ops.take());
        }
    }

    // ---- waiting for quiet --------------------------------------------------------------------

    /// Whether a transfer of this range is in flight.
    fn is_busy(&self, range: &FileRange) -> bool {
        self.ops.borrow().list.iter().any(|op| match &op.what {
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

impl Op {
    fn event_entry(&mut self) -> Option<squeue::Entry> {
        let What::Event { value, fd, .. } = &mut self.what else { return None };
        let value: *mut u64 = &mut **value;
        Some(opcode::Read::new(types::Fd(fd.as_raw_fd()), value.cast(), 8).build())
    }
}

impl Ops {
    fn busy(&self) -> usize {
        self.list.len() - self.free.len()
    }

    #[inline]
    fn take(&mut self, what: What) -> u32 {
        if let Some(index) = self.free.pop() {
            self.list[index as usize].what = what;
            return index;
        }
        self.list.push(Op { what, parts: Vec::new(), pin: None });
        (self.list.len() - 1) as u32
    }

    #[inline]
    fn free(&mut self, index: u32) -> What {
        let op = &mut self.list[index as usize];
        op.parts.clear();
        op.pin = None;
        self.free.push(index);
        std::mem::replace(&mut op.what, What::Free)
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
        let mut ops = self.core.os().ops.borrow_mut();
        let What::Future(waited) = &mut ops.list[index as usize].what else {
            unreachable!("the slot is held until its result is taken")
        };
        match waited {
            Waited::Pending { waker, .. } => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Waited::Done(result) => {
                let result = *result;
                drop(ops.free(index));
                drop(ops);
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
        let mut ops = self.core.os().ops.borrow_mut();
        let What::Future(waited) = &mut ops.list[index as usize].what else { return };
        match std::mem::replace(waited, Waited::Done(0)) {
            Waited::Pending { _keep, .. } => {
                *waited = Waited::Abandoned { _keep };
                drop(ops);
                self.core.os().cancel(index);
            }
            _ => drop(ops.free(index)),
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
