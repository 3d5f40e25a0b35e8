//! A core: one thread's executor, and the handle by which everything on it is reached.
//!
//! [`Core`] is cheap to clone and stays on its thread; [`Remote`] is its address for everyone else.
//! What differs between the real machine and the simulated one stands behind `Driver`.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::mailbox::Mailbox;
use crate::os;
use crate::placed::Places;
use crate::poller::{Poller, PollerId, Pollers};
use crate::sim;
use crate::task::{TaskRef, Tasks};
use crate::timer::{Sleep, Time, Timers};

/// Cores of one process. Simulated ones have numbers of their own above these.
pub const CORES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub(crate) u16);

/// A handle to the core that this thread is.
#[derive(Clone)]
pub struct Core(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    id: CoreId,
    /// Where wakers find it.
    slot: u16,
    pub(crate) tasks: Tasks,
    pub(crate) timers: Timers,
    pub(crate) pollers: Pollers,
    pub(crate) places: Places,
    pub(crate) post: Arc<Post>,
    pub(crate) driver: Driver,
    pub(crate) stopping: Cell<bool>,
    /// The clock as it was when this turn began.
    pub(crate) now: Cell<Time>,
    messages: Cell<u64>,
}

/// What a core asks for clock and kernel: the real machine or the simulated one.
#[allow(clippy::large_enum_variant)] // one per core; the real one is used in place
pub(crate) enum Driver {
    Os(os::Driver),
    Sim(sim::Driver),
}

/// How a sleeping core is woken.
pub(crate) enum Doorbell {
    Os(os::Doorbell),
    Sim(sim::Doorbell),
}

/// The part of a core that other threads see.
pub(crate) struct Post {
    id: CoreId,
    slot: u16,
    pub(crate) mailbox: Mailbox<Letter>,
    pub(crate) doorbell: Doorbell,
    closed: AtomicBool,
}

pub(crate) enum Letter {
    Run(Box<dyn FnOnce(&Core) + Send>),
    Wake(TaskRef),
}

/// Which cores exist, for wakers that are used away from theirs. Not on any request's path.
static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { os: Vec::new(), sim: BTreeMap::new(), sim_next: SIM_SLOTS });

struct Registry {
    os: Vec<Option<Arc<Post>>>,
    /// Slots go round here, so that a waker which outlives its world does not wake another's task.
    sim: BTreeMap<u16, Arc<Post>>,
    sim_next: u16,
}

/// Simulated cores have the slots from here on.
const SIM_SLOTS: u16 = 0x8000;

thread_local! {
    /// The core whose code runs on this thread now; null on threads that are none.
    static CURRENT: Cell<*const Inner> = const { Cell::new(std::ptr::null()) };
}

impl Core {
    pub(crate) fn new(driver: Driver, doorbell: Doorbell) -> std::io::Result<Self> {
        let post = register(doorbell)?;
        let now = driver.clock();
        Ok(Self(Rc::new(Inner {
            id: post.id,
            slot: post.slot,
            tasks: Tasks::new(post.slot),
            timers: Timers::default(),
            pollers: Pollers::default(),
            places: Places::default(),
            post,
            driver,
            stopping: Cell::new(false),
            now: Cell::new(now),
            messages: Cell::new(0),
        })))
    }

    pub fn id(&self) -> CoreId {
        self.0.id
    }

    /// The core that runs the calling code, if any does.
    pub(crate) fn with_current<T>(f: impl FnOnce(&Inner) -> T) -> Option<T> {
        let current = CURRENT.try_with(Cell::get).ok()?;
        // SAFETY: `enter` holds the core alive for as long as the pointer is set.
        unsafe { current.as_ref() }.map(f)
    }

    /// Runs code as this core: wakers used inside find their tasks without a letter.
    pub(crate) fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Leave(*const Inner);
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _leave = Leave(CURRENT.replace(Rc::as_ptr(&self.0)));
        f()
    }

    /// The clock, read now.
    pub fn now(&self) -> Time {
        self.0.driver.clock()
    }

    /// The clock as this turn of the loop read it: free, and exact enough for statistics.
    #[inline]
    pub fn turn_time(&self) -> Time {
        self.0.now.get()
    }

    /// Random bits, from the kernel or from the seed of the simulation.
    pub fn random(&self) -> u64 {
        match &self.0.driver {
            Driver::Os(_) => os::random(),
            Driver::Sim(driver) => driver.random(),
        }
    }

    /// Starts a task; it is polled in this turn or the next.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.0.tasks.spawn(future);
    }

    /// Polls at once, and makes a task of what then waits: the way of a request.
    #[inline]
    pub fn spawn_now(&self, future: impl Future<Output = ()> + 'static) {
        self.0.tasks.spawn_now(future);
    }

    /// Starts a task whose result can be awaited and which can be cancelled.
    pub fn spawn_task<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let shared = Rc::new(TaskShared {
            result: RefCell::new(None),
            waiter: RefCell::new(None),
            runner: RefCell::new(None),
            cancelled: Cell::new(false),
        });
        let mut future = Box::pin(future);
        let state = shared.clone();
        self.spawn(std::future::poll_fn(move |cx| {
            if state.cancelled.get() {
                return Poll::Ready(());
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    *state.result.borrow_mut() = Some(result);
                    if let Some(waiter) = state.waiter.take() {
                        waiter.wake();
                    }
                    Poll::Ready(())
                }
                Poll::Pending => {
                    *state.runner.borrow_mut() = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }));
        Task { shared }
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    pub fn sleep_until(&self, deadline: Time) -> Sleep {
        self.0.timers.sleep_until(deadline)
    }

    /// The future's result, or None when the time is over first.
    pub async fn timeout<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let mut sleep = std::pin::pin!(self.sleep(limit));
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            sleep.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Lets everything else that is ready run first.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Adds a ring to look at. It starts active: it may hold requests already.
    pub fn add_poller(&self, poller: Rc<dyn Poller>) -> PollerId {
        self.0.pollers.add(poller, self.now())
    }

    /// A removed poller is not called again.
    pub fn remove_poller(&self, id: PollerId) {
        self.0.pollers.remove(id);
    }

    /// Looks at the poller again: its client has notified.
    pub fn activate_poller(&self, id: PollerId) {
        self.0.pollers.activate(id, self.0.now.get());
    }

    /// Publishes the poller's answers at the end of this turn: once per turn and poller.
    #[inline]
    pub fn publish_soon(&self, poller: Rc<dyn Poller>) {
        self.0.pollers.publish_soon(poller);
    }

    /// Runs something that blocks on a thread made for that, and waits for it as a task.
    pub fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> crate::sync::Reply<T> {
        match &self.0.driver {
            Driver::Os(_) => os::thread::blocking(f),
            Driver::Sim(driver) => driver.blocking(f),
        }
    }

    /// Asks the kernel for nothing: what an operation costs besides its work, for measurements.
    pub fn nop(&self, done: block::Completion) {
        match &self.0.driver {
            Driver::Os(driver) => driver.nop(done),
            Driver::Sim(_) => self.spawn(async move { done.finish(Ok(0)) }),
        }
    }

    pub fn remote(&self) -> Remote {
        Remote { post: self.0.post.clone() }
    }

    /// Letters that this core has taken so far: zero per request on a request's path.
    pub fn messages(&self) -> u64 {
        self.0.messages.get()
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.0.tasks.live()
    }

    /// Ends the core's loop after this turn; its tasks are dropped.
    pub fn stop(&self) {
        self.0.stopping.set(true);
    }

    /// Reads the letters. True: there were some.
    pub(crate) fn read_mail(&self) -> bool {
        if self.0.post.mailbox.is_empty() {
            return false;
        }
        for letter in self.0.post.mailbox.take() {
            match letter {
                Letter::Run(f) => {
                    self.0.messages.set(self.0.messages.get() + 1);
                    f(self);
                }
                Letter::Wake(task) => self.0.tasks.push(task),
            }
        }
        true
    }

    /// Drops what is left: tasks, letters, the place in the registry.
    pub(crate) fn end(&self) {
        block::completion::at_the_end(|| {
            self.0.tasks.clear();
            self.0.places.clear();
            // What was dropped may have started tasks once more.
            self.0.tasks.clear();
        });
        self.0.post.close();
        let mut registry = registry();
        match &self.0.driver {
            Driver::Os(_) => registry.os[usize::from(self.0.slot)] = None,
            Driver::Sim(_) => drop(registry.sim.remove(&self.0.slot)),
        }
    }

    #[inline]
    pub(crate) fn os(&self) -> &os::Driver {
        match &self.0.driver {
            Driver::Os(driver) => driver,
            Driver::Sim(_) => wrong_machine(),
        }
    }

    /// The simulated machine under this core, if it is one's.
    pub(crate) fn sim(&self) -> Option<&sim::Driver> {
        self.0.sim()
    }
}

impl Inner {
    pub(crate) fn sim(&self) -> Option<&sim::Driver> {
        match &self.driver {
            Driver::Os(_) => None,
            Driver::Sim(driver) => Some(driver),
        }
    }
}

impl Driver {
    #[inline]
    fn clock(&self) -> Time {
        match self {
            Self::Os(_) => os::clock(),
            Self::Sim(driver) => driver.clock(),
        }
    }
}

#[cold]
fn wrong_machine() -> ! {
    panic!("eventfds and sockets with descriptors exist on the real machine only")
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register(doorbell: Doorbell) -> std::io::Result<Arc<Post>> {
    let mut registry = registry();
    let (id, slot) = match &doorbell {
        Doorbell::Os(_) => {
            let slot = registry.os.iter().position(Option::is_none).unwrap_or(registry.os.len());
            (CoreId(slot as u16), slot)
        }
        Doorbell::Sim(bell) => (bell.core_id(), usize::from(registry.free_sim_slot())),
    };
    if matches!(doorbell, Doorbell::Os(_)) && slot == CORES_MAX {
        return Err(std::io::Error::other(format!("more than {CORES_MAX} cores in one process")));
    }
    let (mailbox, closed) = (Mailbox::new(), AtomicBool::new(false));
    let post = Arc::new(Post { id, slot: slot as u16, mailbox, doorbell, closed });
    registry.put(post.clone());
    Ok(post)
}

impl Registry {
    fn free_sim_slot(&mut self) -> u16 {
        loop {
            let slot = self.sim_next;
            self.sim_next = slot.checked_add(1).unwrap_or(SIM_SLOTS);
            if !self.sim.contains_key(&slot) {
                return slot;
            }
        }
    }

    fn put(&mut self, post: Arc<Post>) {
        let slot = usize::from(post.slot);
        if post.slot >= SIM_SLOTS {
            self.sim.insert(post.slot, post);
        } else if slot == self.os.len() {
            self.os.push(Some(post));
        } else {
            self.os[slot] = Some(post);
        }
    }

    fn find(&self, slot: u16) -> Option<Arc<Post>> {
        if slot >= SIM_SLOTS {
            return self.sim.get(&slot).cloned();
        }
        self.os.get(usize::from(slot)).cloned().flatten()
    }
}

/// Wakes a task from wherever the caller is.
#[inline]
pub(crate) fn wake(task: TaskRef) {
    let here = Core::with_current(|core| {
        let mine = core.slot == task.core();
        if mine {
            core.tasks.push(task);
        }
        mine
    });
    if here != Some(true) {
        wake_elsewhere(task);
    }
}

#[cold]
fn wake_elsewhere(task: TaskRef) {
    let post = registry().find(task.core());
    if let Some(post) = post {
        post.send(Letter::Wake(task));
    }
}

impl Post {
    /// False: the core has ended.
    fn send(&self, letter: Letter) -> bool {
        if self.mailbox.push(letter) {
            match &self.doorbell {
                Doorbell::Os(bell) => bell.ring(),
                Doorbell::Sim(bell) => bell.ring(),
            }
        }
        if !self.closed.load(Ordering::SeqCst) {
            return true;
        }
        // The core may have looked for the last time before this letter came.
        drop(self.mailbox.take());
        false
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        drop(self.mailbox.take());
    }
}

/// The address of a core, for any thread.
#[derive(Clone)]
pub struct Remote {
    post: Arc<Post>,
}

impl Remote {
    pub fn id(&self) -> CoreId {
        self.post.id
    }

    /// Runs `f` on that core. False: the core has ended, and `f` may have been dropped.
    pub fn send(&self, f: impl FnOnce(&Core) + Send + 'static) -> bool {
        self.post.send(Letter::Run(Box::new(f)))
    }

    /// Runs an `async fn` there and hands its result to any thread's code.
    pub fn call<T, F>(&self, f: impl FnOnce(Core) -> F + Send + 'static) -> crate::sync::Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (answer, reply) = crate::sync::reply();
        self.send(move |core| {
            let future = f(core.clone());
            core.spawn(async move { answer.give(future.await) });
        });
        reply
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.post.id.0)
    }
}

struct TaskShared<T> {
    result: RefCell<Option<T>>,
    waiter: RefCell<Option<Waker>>,
    runner: RefCell<Option<Waker>>,
    cancelled: Cell<bool>,
}

/// A running task. Dropping the handle lets it run on; [`Task::cancel`] ends it.
pub struct Task<T> {
    shared: Rc<TaskShared<T>>,
}

impl<T> Task<T> {
    /// Drops the future at its next turn.
    pub fn cancel(self) {
        self.shared.cancelled.set(true);
        if let Some(runner) = self.shared.runner.take() {
            runner.wake();
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.shared.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                *self.shared.waiter.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
