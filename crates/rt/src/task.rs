//! Tasks: futures in pooled memory, polled on their core, woken without reference counts.
//!
//! A task lives in a block of memory out of free lists by size, so that steady load allocates
//! nothing. A waker is three numbers in one word (core, generation, index): cloning and dropping it
//! costs nothing, and waking a task that has ended finds another generation and does nothing. A
//! waker may be used on any thread; away from its core it sends a letter.
//!
//! All the `unsafe` of the executor is here and in `mailbox`; both run under Miri.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::core::wake;

/// Names a task in a word: core (16 bits), generation (16), index (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRef(u64);

impl TaskRef {
    pub(crate) const fn core(self) -> u16 {
        (self.0 >> 48) as u16
    }

    const fn generation(self) -> u16 {
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

/// What stands before a future in its block.
struct Header {
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<Header>),
    layout: Layout,
}

#[repr(C)]
struct Block<F> {
    header: Header,
    future: F,
}

/// # Safety
/// `header` heads a live `Block<F>` that is not being polled.
unsafe fn poll_block<F: Future<Output = ()>>(
    header: NonNull<Header>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    // SAFETY: promised by the caller; the block never moves, so the future is pinned.
    unsafe { Pin::new_unchecked(&mut (*header.cast::<Block<F>>().as_ptr()).future) }.poll(cx)
}

/// # Safety
/// `header` heads a live `Block<F>`; its future is not used again.
unsafe fn drop_block<F>(header: NonNull<Header>) {
    // SAFETY: promised by the caller.
    unsafe { ptr::drop_in_place(&mut (*header.cast::<Block<F>>().as_ptr()).future) };
}

struct Slot {
    generation: u16,
    /// In the ready queue already.
    queued: bool,
    block: Option<NonNull<Header>>,
}

pub(crate) struct Tasks {
    core: u16,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    ready: RefCell<VecDeque<TaskRef>>,
    pool: Pool,
    live: Cell<usize>,
}

impl Tasks {
    pub(crate) fn new(core: u16) -> Self {
        Self {
            core,
            slots: RefCell::default(),
            free: RefCell::default(),
            ready: RefCell::default(),
            pool: Pool::default(),
            live: Cell::new(0),
        }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let (task, _) = self.place(future);
        self.push(task);
    }

    /// Polls once in place; only what then waits stays as a task.
    #[inline]
    pub(crate) fn spawn_now(&self, future: impl Future<Output = ()> + 'static) {
        let (task, block) = self.place(future);
        self.poll(task, block);
    }

    #[inline]
    fn place<F: Future<Output = ()> + 'static>(&self, future: F) -> (TaskRef, NonNull<Header>) {
        let layout = Layout::new::<Block<F>>();
        let block = self.pool.take(layout).cast::<Block<F>>();
        let header = Header { poll: poll_block::<F>, drop: drop_block::<F>, layout };
        // SAFETY: the pool gave a block of this layout that nobody else has.
        unsafe { block.as_ptr().write(Block { header, future }) };
        let block = block.cast::<Header>();
        self.live.set(self.live.get() + 1);
        let mut slots = self.slots.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => index,
            None => {
                slots.push(Slot { generation: 0, queued: false, block: None });
                (slots.len() - 1) as u32
            }
        };
        let slot = &mut slots[index as usize];
        slot.block = Some(block);
        let word = u64::from(self.core) << 48 | u64::from(slot.generation) << 32 | u64::from(index);
        (TaskRef(word), block)
    }

    /// Queues a task to be polled, unless it is queued already or has ended.
    #[inline]
    pub(crate) fn push(&self, task: TaskRef) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(task.index()) else { return };
        if slot.generation == task.generation() && slot.block.is_some() && !slot.queued {
            slot.queued = true;
            self.ready.borrow_mut().push_back(task);
        }
    }

    /// Polls what was ready when the call began. True: there was something.
    #[inline]
    pub(crate) fn run(&self) -> bool {
        let count = self.ready.borrow().len();
        for _ in 0..count {
            let Some(task) = self.ready.borrow_mut().pop_front() else { break };
            let block = {
                let mut slots = self.slots.borrow_mut();
                let slot = &mut slots[task.index()];
                if slot.generation != task.generation() {
                    continue;
                }
                slot.queued = false;
                slot.block
            };
            if let Some(block) = block {
                self.poll(task, block);
            }
        }
        count > 0
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    #[inline]
    fn poll(&self, task: TaskRef, block: NonNull<Header>) {
        let waker = task.waker();
        let mut cx = Context::from_waker(&waker);
        // SAFETY: the slot holds the block until `end`, and a task is polled only from its core's
        // loop or in place before anyone knows of it, never from within its own poll.
        let poll = unsafe { (block.as_ref().poll)(block, &mut cx) };
        if poll.is_ready() {
            self.end(task.index(), block);
        }
    }

    #[inline]
    fn end(&self, index: usize, block: NonNull<Header>) {
        {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[index];
            slot.block = None;
            slot.queued = false;
            slot.generation = slot.generation.wrapping_add(1);
        }
        // SAFETY: the slot let go of the block above, so this is its last use. Dropping the future
        // may spawn or wake; no borrow is held.
        unsafe {
            (block.as_ref().drop)(block);
            self.pool.give(block.cast(), block.as_ref().layout);
        }
        self.free.borrow_mut().push(index as u32);
        self.live.set(self.live.get() - 1);
    }

    /// Drops every task, for a core that ends. Tasks that dropping spawns are dropped too.
    pub(crate) fn clear(&self) {
        loop {
            let found = {
                let slots = self.slots.borrow();
                slots.iter().enumerate().find_map(|(index, slot)| Some((index, slot.block?)))
            };
            let Some((index, block)) = found else { break };
            self.end(index, block);
        }
        self.ready.borrow_mut().clear();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Smallest block; each class is twice the one before.
const CLASS_MIN_BYTES: usize = 64;
const CLASSES: usize = 8;
const BLOCK_ALIGN: usize = 16;
/// Spare blocks that a class keeps; more go back to the allocator.
const SPARE_MAX: usize = 4096;

/// Free lists of blocks by size class.
#[derive(Default)]
struct Pool {
    spare: RefCell<[Vec<NonNull<u8>>; CLASSES]>,
}

impl Pool {
    #[inline]
    fn class(layout: Layout) -> Option<usize> {
        let units = layout.size().div_ceil(CLASS_MIN_BYTES).max(1);
        let class = units.next_power_of_two().trailing_zeros() as usize;
        (class < CLASSES && layout.align() <= BLOCK_ALIGN).then_some(class)
    }

    fn class_layout(class: usize) -> Layout {
        Layout::from_size_align(CLASS_MIN_BYTES << class, BLOCK_ALIGN).expect("a small constant")
    }

    #[inline]
    fn take(&self, layout: Layout) -> NonNull<u8> {
        let Some(class) = Self::class(layout) else { return allocate(layout) };
        let spare = self.spare.borrow_mut()[class].pop();
        spare.unwrap_or_else(|| allocate(Self::class_layout(class)))
    }

    /// # Safety
    /// `block` came from `take` with this layout and is not used again.
    #[inline]
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        let Some(class) = Self::class(layout) else {
            // SAFETY: `take` allocated exactly this layout.
            return unsafe { dealloc(block.as_ptr(), layout) };
        };
        let mut spare = self.spare.borrow_mut();
        if spare[class].len() < SPARE_MAX {
            return spare[class].push(block);
        }
        // SAFETY: `take` allocated the layout of this class.
        unsafe { dealloc(block.as_ptr(), Self::class_layout(class)) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, spare) in self.spare.get_mut().iter_mut().enumerate() {
            for block in spare.drain(..) {
                // SAFETY: spare blocks of a class were allocated with its layout.
                unsafe { dealloc(block.as_ptr(), Self::class_layout(class)) };
            }
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here is of size zero: a block has a header.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn pending_until(flag: &Rc<Cell<bool>>) -> impl Future<Output = ()> + 'static {
        let flag = flag.clone();
        std::future::poll_fn(move |_| if flag.get() { Poll::Ready(()) } else { Poll::Pending })
    }

    #[test]
    fn blocks_are_used_again_and_futures_dropped_once() {
        let tasks = Tasks::new(0);
        let flag = Rc::new(Cell::new(true));
        for _ in 0..100 {
            tasks.spawn_now(pending_until(&flag));
        }
        assert_eq!((tasks.live(), Rc::strong_count(&flag)), (0, 1));
        assert_eq!(tasks.pool.spare.borrow().iter().map(Vec::len).sum::<usize>(), 1);
        assert_eq!(tasks.slots.borrow().len(), 1);
    }

    #[test]
    fn a_stale_waker_wakes_nobody() {
        let tasks = Tasks::new(0);
        let flag = Rc::new(Cell::new(false));
        let (first, block) = tasks.place(pending_until(&flag));
        tasks.poll(first, block);
        tasks.push(first);
        tasks.push(first);
        assert_eq!(tasks.ready.borrow().len(), 1, "queued once");
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
