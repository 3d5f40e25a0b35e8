//! The handles of one LU on their cores, and how a store reaches each of them.
//!
//! A handle is an `Rc` that never leaves its thread; others know it by a number and reach it with a
//! message to its core, which looks the number up in its thread's table. The list of a store's
//! members lies in the store, under the store's own lock, because what else must change together
//! with it differs from store to store.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};

use rt::sync::Reply;
use rt::{Core, Remote};

thread_local! {
    static HANDLES: RefCell<BTreeMap<HandleId, Weak<dyn Any>>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// Names a handle in the whole process, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HandleId(u64);

impl HandleId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The handle, on its own thread.
    pub(crate) fn find<H: 'static>(self) -> Option<Rc<H>> {
        let found = HANDLES.try_with(|handles| handles.borrow().get(&self)?.upgrade());
        found.ok().flatten()?.downcast().ok()
    }

    /// Called when the handle goes.
    pub(crate) fn forget(self) {
        // At thread exit the table may be gone before the last handle is.
        let _ = HANDLES.try_with(|handles| handles.borrow_mut().remove(&self));
    }
}

/// The address of a handle.
#[derive(Clone)]
pub(crate) struct Member {
    id: HandleId,
    remote: Remote,
}

impl Member {
    /// Makes a handle known to its thread.
    pub(crate) fn new<H: 'static>(core: &Core, id: HandleId, handle: &Rc<H>) -> Self {
        let handle: Weak<H> = Rc::downgrade(handle);
        HANDLES.with(|handles| handles.borrow_mut().insert(id, handle));
        Self { id, remote: core.remote() }
    }

    pub(crate) fn id(&self) -> HandleId {
        self.id
    }

    /// Runs `f` with the handle on its core. The reply is None where handle or core are gone.
    pub(crate) fn call<H, F>(&self, f: impl FnOnce(Rc<H>) -> F + Send + 'static) -> Reply<()>
    where
        H: 'static,
        F: Future<Output = ()> + 'static,
    {
        let id = self.id;
        self.remote.call(move |_| async move {
            if let Some(handle) = id.find::<H>() {
                f(handle).await;
            }
        })
    }
}

/// Runs `f` with every handle and waits until each has done it.
pub(crate) async fn each<H, F>(
    members: Vec<Member>,
    f: impl Fn(Rc<H>) -> F + Clone + Send + 'static,
) where
    H: 'static,
    F: Future<Output = ()> + 'static,
{
    let replies: Vec<_> = members.iter().map(|member| member.call(f.clone())).collect();
    for reply in replies {
        // None: the handle is gone, which is as good.
        let _ = reply.await;
    }
}
