//! Tasks: futures in pooled memory, polled on their core, woken without reference counts.
//!
//! A task lives in a block of memory, its future behind a header. Blocks come in sizes, each with a
//! list of spare ones, and stay headers until the core ends: steady load allocates nothing, and
//! queues and lists are links from header to header. What is too large for any block is boxed.
//!
//! A waker is three numbers in one word (generation, core, index of the block): cloning and
//! dropping it costs nothing, and waking a task that has ended finds another generation and does
//! nothing. A waker may be used on any thread; away from its core it sends a letter.
//!
//! All the `unsafe` of the executor is here and in `mailbox`; both run under Miri.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::offset_of;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::core::wake;

/// Names a task in a word: generation (16 bits), core (16), index of its block (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRef(u64);

impl TaskRef {
    const fn first(core: u16, index: u32) -> Self {
        Self((core as u64) << 32 | index as u64)
    }

    /// The next task in the same block.
    const fn next(self) -> Self {
        Self(self.0.wrapping_add(1 << 48))
    }

    pub(crate) const fn core(self) -> u16 {
        (self.0 >> 32) as u16
    }

    const fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn waker(self) -> Waker {
        let data = ptr::without_provenance(self.0 as usize);
        // SAFETY: the table's functions read the word as a number and never follow it.
        unsafe { Waker::new(data, &WAKER) }
    }
}

const _: () = assert!(size_of::<usize>() == 8, "a waker packs its task into one 64-bit word");

static WAKER: RawWakerVTable = RawWakerVTable::new(
    |data| RawWaker::new(data, &WAKER),
    |data| wake(TaskRef(data.addr() as u64)),
    |data| wake(TaskRef(data.addr() as u64)),
    |_| {},
);

/// What stands at the head of every block, from its allocation to the end of the core.
struct Header {
    /// The task here, or the next one.
    task: Cell<TaskRef>,
    state: Cell<State>,
    class: u8,
    /// What can be done with the future, if there is one.
    future: Cell<&'static Actions>,
    /// The next in the ready queue or among the spare ones.
    next: Cell<Option<Block>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No task, or one that is just ending. It may still be in the ready queue.
    Vacant,
    Waiting,
    /// In the ready queue.
    Ready,
}

/// What can be done with a future of unknown type.
struct Actions {
    poll: unsafe fn(Block) -> After,
    end: unsafe fn(Block) -> After,
}

static NOTHING: Actions = Actions { poll: |_| After::Waits, end: |_| After::Waits };

/// What has become of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Waits,
    /// Ended, and its block can be used again.
    Ended,
    /// Ended, and its block can be used again once it has come out of the ready queue.
    EndedInQueue,
}

/// A header with a future behind it.
#[repr(C)]
struct Filled<F> {
    header: Header,
    future: F,
}

/// A block of a [`Tasks`], which frees none before its own end: so headers can always be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block(NonNull<Header>);

impl Block {
    #[inline]
    fn header<'a>(self) -> &'a Header {
        // SAFETY: blocks are used by their `Tasks` alone, on its thread and during its life, when
        // every one of them has a header. A header is only ever shared and changed through cells.
        unsafe { self.0.as_ref() }
    }

    /// Where a future lies, or would.
    #[inline]
    const fn future<F>(self) -> *mut F {
        self.0.as_ptr().wrapping_byte_add(offset_of!(Filled<F>, future)).cast()
    }

    /// # Safety
    /// The block holds a living `F` that is not being polled.
    #[inline]
    unsafe fn poll<F: Future<Output = ()>>(self) -> After {
        let waker = self.header().task.get().waker();
        // SAFETY: promised by the caller; the future never moves until it is dropped in its place.
        let future = unsafe { Pin::new_unchecked(&mut *self.future::<F>()) };
        if future.poll(&mut Context::from_waker(&waker)).is_pending() {
            return After::Waits;
        }
        // SAFETY: as above; nobody polls it any more.
        unsafe { self.end::<F>() }
    }

    /// # Safety
    /// The block holds a living `F` that is not being polled. It is not used again.
    #[inline]
    unsafe fn end<F>(self) -> After {
        let header = self.header();
        // First the task and then its future: what the drop wakes or spawns meets no half of it.
        header.task.set(header.task.get().next());
        let state = header.state.replace(State::Vacant);
        // SAFETY: promised by the caller, and done once because the block is vacant now.
        unsafe { ptr::drop_in_place(self.future::<F>()) };
        if state == State::Ready { After::EndedInQueue } else { After::Ended }
    }
}

/// Work that has waited, and what becomes of its output. A struct and not an `async` block, which
/// would hold `work` twice.
struct Then<W, T> {
    work: W,
    then: Option<T>,
}

impl<W: Future, T: FnOnce(W::Output)> Future for Then<W, T> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `work` is pinned for as long as `self` is, and `then` is not pinned.
        let (work, then) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.work), &mut this.then)
        };
        work.poll(cx).map(|output| {
            let then = then.take().expect("set when it waited, and called once");
            then(output);
        })
    }
}

/// The smallest block; each class is twice the one before.
const CLASS_MIN_BYTES: usize = 128;
const CLASSES: usize = 7;
/// A line of the cache: as few as possible are touched for one task.
const BLOCK_ALIGN: usize = 64;

/// The class of blocks that `Filled<F>` fits into; none for what is to be boxed.
const fn class_of<F>() -> Option<usize> {
    let layout = Layout::new::<Filled<F>>();
    let units = layout.size().div_ceil(CLASS_MIN_BYTES);
    let class = units.next_power_of_two().trailing_zeros() as usize;
    if class < CLASSES && layout.align() <= BLOCK_ALIGN { Some(class) } else { None }
}

fn class_layout(class: usize) -> Layout {
    Layout::from_size_align(CLASS_MIN_BYTES << class, BLOCK_ALIGN).expect("a small constant")
}

pub(crate) struct Tasks {
    core: u16,
    table: Table,
    ready: Queue,
    spare: [Cell<Option<Block>>; CLASSES],
    live: Cell<usize>,
}

impl Tasks {
    pub(crate) fn new(core: u16) -> Self {
        Self {
            core,
            table: Table::default(),
            ready: Queue::default(),
            spare: Default::default(),
            live: Cell::new(0),
        }
    }

    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(&self, future: F) {
        let block = match const { class_of::<F>() } {
            Some(class) => self.place(class, future),
            None => self.place_boxed(future),
        };
        self.queue(block);
    }

    /// Polls once in place; only what then waits stays as a task.
    #[inline]
    pub(crate) fn spawn_now<F: Future<Output = ()> + 'static>(&self, future: F) {
        let Some(class) = (const { class_of::<F>() }) else {
            return self.poll(self.place_boxed(future));
        };
        let block = self.place(class, future);
        // SAFETY: it was placed just now, and until it has waited nobody else polls it.
        let after = unsafe { block.poll::<F>() };
        self.settle(block, after);
    }

    /// Begins a request: polls `work` in place and gives its output. What waits stays as a task,
    /// and hands its output to what `later` makes of `asked`.
    #[inline]
    pub(crate) fn begin<W, T, A>(
        &self,
        work: W,
        asked: A,
        later: impl FnOnce(A) -> T,
    ) -> Option<(A, W::Output)>
    where
        W: Future + 'static,
        T: FnOnce(W::Output) + 'static,
    {
        match const { class_of::<Then<W, T>>() } {
            Some(class) => self.begin_in(class, work, asked, later),
            None => {
                let class = const { class_of::<Then<Pin<Box<W>>, T>>() };
                self.begin_in(class.expect("what follows is small"), Box::pin(work), asked, later)
            }
        }
    }

    #[inline]
    fn begin_in<W, T, A>(
        &self,
        class: usize,
        work: W,
        asked: A,
        later: impl FnOnce(A) -> T,
    ) -> Option<(A, W::Output)>
    where
        W: Future + 'static,
        T: FnOnce(W::Output) + 'static,
    {
        let block = self.place(class, Then::<W, T> { work, then: None });
        let waker = block.header().task.get().waker();
        // SAFETY: it was placed just now, and until it has waited nobody else polls it.
        let future = unsafe { &mut *block.future::<Then<W, T>>() };
        // SAFETY: it never moves until it is dropped in its place.
        let work = unsafe { Pin::new_unchecked(&mut future.work) };
        let Poll::Ready(output) = work.poll(&mut Context::from_waker(&waker)) else {
            future.then = Some(later(asked));
            return None;
        };
        // SAFETY: as above; nobody polls it any more.
        let after = unsafe { block.end::<Then<W, T>>() };
        self.settle(block, after);
        Some((asked, output))
    }

    fn place_boxed(&self, future: impl Future<Output = ()> + 'static) -> Block {
        let future = Box::pin(future);
        let class = const { class_of::<Pin<Box<()>>>() }.expect("a pointer fits");
        self.place(class, future)
    }

    /// Puts a future that fits into a block of its class.
    #[inline]
    fn place<F: Future<Output = ()> + 'static>(&self, class: usize, future: F) -> Block {
        let block = match self.spare[class].get() {
            Some(block) => {
                self.spare[class].set(block.header().next.get());
                block
            }
            None => self.grow(class),
        };
        // SAFETY: a spare block has room and no future; from here on it is this task's.
        unsafe { block.future::<F>().write(future) };
        let header = block.header();
        header.future.set(const { &Actions { poll: Block::poll::<F>, end: Block::end::<F> } });
        header.state.set(State::Waiting);
        self.live.set(self.live.get() + 1);
        block
    }

    #[cold]
    fn grow(&self, class: usize) -> Block {
        let layout = class_layout(class);
        // SAFETY: the layout is not of size zero.
        let memory = unsafe { alloc(layout) }.cast::<Header>();
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        let index = u32::try_from(self.table.len()).expect("memory ends before these numbers do");
        let header = Header {
            task: Cell::new(TaskRef::first(self.core, index)),
            state: Cell::new(State::Vacant),
            class: class as u8,
            future: Cell::new(&NOTHING),
            next: Cell::new(None),
        };
        // SAFETY: just allocated, large enough for a header in every class.
        unsafe { memory.write(header) };
        self.table.push(Block(memory));
        Block(memory)
    }

    /// Queues a task to be polled, unless it is queued already or has ended.
    #[inline]
    pub(crate) fn push(&self, task: TaskRef) {
        let Some(block) = self.table.at(task.index()) else { return };
        let header = block.header();
        if header.task.get() == task && header.state.get() == State::Waiting {
            self.queue(block);
        }
    }

    #[inline]
    fn queue(&self, block: Block) {
        block.header().state.set(State::Ready);
        self.ready.push(block);
    }

    /// Polls what was ready when the call began. True: there was something.
    #[inline]
    pub(crate) fn run(&self) -> bool {
        let mut next = self.ready.take();
        let found = next.is_some();
        while let Some(block) = next {
            let header = block.header();
            next = header.next.get();
            if header.state.get() == State::Vacant {
                self.give_back(block);
                continue;
            }
            header.state.set(State::Waiting);
            self.poll(block);
        }
        found
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    #[inline]
    fn poll(&self, block: Block) {
        let actions = block.header().future.get();
        // SAFETY: these are the actions of the future in the block, which is there because the
        // block is not vacant. A task is polled by its core's loop or by who makes it, never from
        // within its own poll.
        let after = unsafe { (actions.poll)(block) };
        self.settle(block, after);
    }

    #[inline]
    fn settle(&self, block: Block, after: After) {
        if after != After::Waits {
            self.live.set(self.live.get() - 1);
        }
        if after == After::Ended {
            self.give_back(block);
        }
    }

    #[inline]
    fn give_back(&self, block: Block) {
        let header = block.header();
        let spare = &self.spare[usize::from(header.class)];
        header.next.set(spare.replace(Some(block)));
    }

    /// Drops every task, for a core that ends. Tasks that dropping spawns are dropped too.
    pub(crate) fn clear(&self) {
        let mut found = true;
        while std::mem::take(&mut found) {
            for block in self.table.blocks() {
                if block.header().state.get() != State::Vacant {
                    found = true;
                    let actions = block.header().future.get();
                    // SAFETY: these are the actions of the future in the block; no task is running.
                    let after = unsafe { (actions.end)(block) };
                    self.settle(block, after);
                }
            }
        }
        let mut next = self.ready.take();
        while let Some(block) = next {
            next = block.header().next.get();
            self.give_back(block);
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.clear();
        for block in self.table.blocks() {
            let layout = class_layout(usize::from(block.header().class));
            // SAFETY: allocated with the layout of its class; no future is left, and nobody else
            // knows the block.
            unsafe { dealloc(block.0.as_ptr().cast(), layout) };
        }
    }
}

/// All blocks by their index.
#[derive(Default)]
struct Table(UnsafeCell<Vec<Block>>);

impl Table {
    #[inline]
    fn at(&self, index: usize) -> Option<Block> {
        // SAFETY: one thread, and each borrow ends within its own method, which calls nobody.
        unsafe { &*self.0.get() }.get(index).copied()
    }

    /// Also those that are added meanwhile.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        (0..).map_while(|index| self.at(index))
    }

    fn len(&self) -> usize {
        // SAFETY: as in `at`.
        unsafe { &*self.0.get() }.len()
    }

    fn push(&self, block: Block) {
        // SAFETY: as in `at`.
        unsafe { &mut *self.0.get() }.push(block);
    }
}

/// Blocks in the order in which they came.
#[derive(Default)]
struct Queue {
    first: Cell<Option<Block>>,
    last: Cell<Option<Block>>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    #[inline]
    fn push(&self, block: Block) {
        block.header().next.set(None);
        match self.last.replace(Some(block)) {
            Some(last) => last.header().next.set(Some(block)),
            None => self.first.set(Some(block)),
        }
    }

    /// Takes all; the first one leads to the others.
    #[inline]
    fn take(&self) -> Option<Block> {
        self.last.set(None);
        self.first.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn pending_until(flag: &Rc<Cell<bool>>) -> impl Future<Output = ()> + 'static {
        let flag = flag.clone();
        std::future::poll_fn(move |_| if flag.get() { Poll::Ready(()) } else { Poll::Pending })
    }

    fn queued(tasks: &Tasks) -> usize {
        std::iter::successors(tasks.ready.first.get(), |block| block.header().next.get()).count()
    }

    #[test]
    fn blocks_are_used_again_and_futures_dropped_once() {
        let tasks = Tasks::new(0);
        let flag = Rc::new(Cell::new(true));
        for _ in 0..100 {
            tasks.spawn_now(pending_until(&flag));
        }
        assert_eq!((tasks.live(), Rc::strong_count(&flag)), (0, 1));
        assert_eq!(tasks.table.len(), 1);
    }

    #[test]
    fn a_stale_waker_wakes_nobody() {
        let tasks = Tasks::new(0);
        let flag = Rc::new(Cell::new(false));
        tasks.spawn_now(pending_until(&flag));
        let first = TaskRef::first(0, 0);
        tasks.push(first);
        tasks.push(first);
        assert_eq!(queued(&tasks), 1, "queued once");
        flag.set(true);
        assert!(tasks.run());
        assert_eq!(tasks.live(), 0);
        flag.set(false);
        tasks.spawn_now(pending_until(&flag));
        tasks.push(first);
        assert!(!tasks.run(), "the slot is another task's now");
        tasks.clear();
        assert_eq!(Rc::strong_count(&flag), 1);
    }

    #[test]
    fn large_and_aligned_futures_work() {
        #[repr(align(64))]
        struct Wide([u8; 20_000]);
        let tasks = Tasks::new(0);
        let sum = Rc::new(Cell::new(0u64));
        let (wide, out) = (Wide([1; 20_000]), sum.clone());
        tasks.spawn(async move {
            std::future::ready(()).await;
            assert_eq!(ptr::from_ref(&wide).addr() % 64, 0);
            out.set(wide.0.iter().map(|byte| u64::from(*byte)).sum());
        });
        assert!(tasks.run());
        assert_eq!(sum.get(), 20_000);
    }
}
