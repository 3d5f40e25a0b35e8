//! Memory for maps: one budget for all LUs of a node.
//!
//! Whatever of a map is kept so that it need not be read again is counted as long as it is there
//! ([`Held`]). Nobody ever waits for memory: what a request needs is read, and counted. When that
//! is too much LUs let go of what nobody has looked at for a while, one LU after the other, as a
//! clock goes round: a page that was looked at since the hand was there last stays, once.
//!
//! What has changed cannot go before a checkpoint has it: so that there is not too much of that,
//! checkpoints begin when it is a part of the budget, and changes of more wait for those.
//!
//! Not here: which pages an LU lets go of (`owner::pages`), and how it does that (`lu::service`).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rt::sync::Reply;

/// The budget of a node, unless it is told another one.
pub const DEFAULT_BYTES: usize = 48 << 20;

/// A sweep begins when only one part in so many of the budget is left, and ends when twice as much
/// is.
const SPARE_PARTS: usize = 16;
/// A checkpoint begins when one part in so many has changed.
const CHANGED_PARTS: usize = 2;
/// And while one is under way so much more may change: it is there twice, as it is now and as it is
/// to be written.
const CHANGED_MEANWHILE_PARTS: usize = 6;
/// Where a sweep has found nothing another one begins when it is one part in so many more.
const AGAIN_PARTS: usize = 64;

/// Keeps pages in memory, and can let go of some.
pub trait Keeper: Send + Sync {
    /// Lets go of so many bytes, or what there is of pages that nobody has looked at since this was
    /// asked last, and says how many these were.
    fn let_go(&self, bytes: usize) -> Reply<usize>;
}

/// What is used of the budget, and by whom.
pub struct Memory {
    limit: usize,
    used: AtomicUsize,
    /// In pages that have changed.
    changed: AtomicUsize,
    keepers: Mutex<Keepers>,
    keepers_count: AtomicUsize,
    is_sweeping: AtomicBool,
    /// What sweeps have freed.
    swept: AtomicU64,
    /// What was ever used together.
    ever: AtomicUsize,
    /// What that will be before another sweep begins: the last one has found too little.
    again: AtomicUsize,
}

#[derive(Default)]
struct Keepers {
    all: Vec<Weak<dyn Keeper>>,
    next: usize,
}

/// Bytes that are counted until this is dropped.
#[derive(Default)]
pub struct Held(Option<(Arc<Memory>, AtomicUsize)>);

impl Held {
    /// Counts so many more, if any are counted.
    pub fn grow(&self, bytes: usize) {
        if let Some((memory, held)) = &self.0 {
            held.fetch_add(bytes, Ordering::Relaxed);
            memory.count(bytes);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.as_ref().map(|(_, bytes)| bytes)).finish()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((memory, bytes)) = &self.0 {
            memory.used.fetch_sub(bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl Memory {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            changed: AtomicUsize::new(0),
            keepers: Mutex::default(),
            keepers_count: AtomicUsize::new(0),
            is_sweeping: AtomicBool::new(false),
            swept: AtomicU64::new(0),
            ever: AtomicUsize::new(0),
            again: AtomicUsize::new(0),
        }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What was let go altogether because there was too much.
    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }

    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.count(bytes);
        Held(Some((self.clone(), AtomicUsize::new(bytes))))
    }

    fn count(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.ever.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes more are in pages that have changed, or less.
    pub(super) fn count_changed(&self, more: isize) {
        match more < 0 {
            true => self.changed.fetch_sub(more.unsigned_abs(), Ordering::Relaxed),
            false => self.changed.fetch_add(more.unsigned_abs(), Ordering::Relaxed),
        };
    }

    /// Whether so much that has changed is more than one LU's part of what may be, while a
    /// checkpoint of the LU is under way or not.
    #[inline]
    pub(super) fn is_crowded(&self, changed: usize, meanwhile: bool) -> bool {
        let parts = if meanwhile { CHANGED_MEANWHILE_PARTS } else { CHANGED_PARTS };
        let most = self.limit / parts;
        let count = self.keepers_count.load(Ordering::Relaxed).max(1);
        let is_much = changed > 0 && self.changed.load(Ordering::Relaxed) >= most;
        is_much && changed.saturating_mul(count) >= most
    }

    /// Something may go that could not go before.
    pub(super) fn may_go(&self) {
        self.again.store(0, Ordering::Relaxed);
    }

    pub(super) fn join(&self, keeper: Weak<dyn Keeper>) {
        let mut keepers = self.keepers();
        keepers.all.retain(|keeper| keeper.strong_count() > 0);
        keepers.all.push(keeper);
        self.keepers_count.store(keepers.all.len(), Ordering::Relaxed);
    }

    /// What brings it back below the budget, to be run on any core, if that is due.
    #[inline]
    pub(super) fn sweep(self: &Arc<Self>) -> Option<impl Future<Output = ()> + use<>> {
        let begins = self.limit - self.limit / SPARE_PARTS;
        let is_due = self.ever.load(Ordering::Relaxed) >= self.again.load(Ordering::Relaxed);
        let is_due = is_due && self.used() > begins;
        if !is_due || self.is_sweeping.swap(true, Ordering::Acquire) {
            return None;
        }
        let sweeping = Sweeping(self.clone());
        Some(async move { sweeping.0.go_round().await })
    }

    /// Everybody is asked in turn. Whoever gave nothing is asked again, because what was looked at
    /// has its second chance then.
    async fn go_round(&self) {
        let enough = self.limit - 2 * (self.limit / SPARE_PARTS);
        let mut in_vain = 0;
        while self.used() > enough && in_vain < 2 * self.keepers_count.load(Ordering::Relaxed) {
            let Some(keeper) = self.next_keeper() else { break };
            let asked = keeper.let_go(self.used() - enough);
            drop(keeper);
            // None: its core has ended.
            let freed = asked.await.unwrap_or_default();
            self.swept.fetch_add(freed as u64, Ordering::Relaxed);
            in_vain = if freed == 0 { in_vain + 1 } else { 0 };
        }
        let again = self.ever.load(Ordering::Relaxed) + self.limit / AGAIN_PARTS;
        let is_in_vain = self.used() > enough;
        self.again.store(if is_in_vain { again } else { 0 }, Ordering::Relaxed);
    }

    fn next_keeper(&self) -> Option<Arc<dyn Keeper>> {
        let mut keepers = self.keepers();
        keepers.all.retain(|keeper| keeper.strong_count() > 0);
        self.keepers_count.store(keepers.all.len(), Ordering::Relaxed);
        let at = keepers.next % keepers.all.len().max(1);
        keepers.next = at + 1;
        keepers.all.get(at)?.upgrade()
    }

    fn keepers(&self) -> MutexGuard<'_, Keepers> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one sweep that is under way.
struct Sweeping(Arc<Memory>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.0.is_sweeping.store(false, Ordering::Release);
    }
}
