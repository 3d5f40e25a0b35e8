//! The handles of one LU on their cores, and how what they share reaches each of them.
//!
//! A handle never leaves its core; the store holds its address and asks it to do something there.
//! The list of members lies in the store under the store's own lock, because what else must change
//! together with it differs from store to store. A member does not keep its handle alive.

use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::Reply;
use crate::{Core, Placed};

/// Names a handle in the whole process, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleId(u64);

impl HandleId {
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The address of a handle.
pub struct Member<H> {
    id: HandleId,
    placed: Arc<Placed<Weak<H>>>,
}

impl<H> Clone for Member<H> {
    fn clone(&self) -> Self {
        Self { id: self.id, placed: self.placed.clone() }
    }
}

impl<H: 'static> Member<H> {
    pub fn new(core: &Core, id: HandleId, handle: &Rc<H>) -> Self {
        Self { id, placed: Arc::new(Placed::new(core, Rc::new(Rc::downgrade(handle)))) }
    }

    pub fn id(&self) -> HandleId {
        self.id
    }

    /// Calls `f` with the handle on its core, in the order of these calls, and then runs what it
    /// returned. The reply is None where handle or core are gone.
    pub fn call<F>(&self, f: impl FnOnce(Rc<H>) -> F + Send + 'static) -> Reply<()>
    where
        F: Future<Output = ()> + 'static,
    {
        self.placed.call(move |handle| {
            let work = handle.upgrade().map(f);
            async move {
                if let Some(work) = work {
                    work.await;
                }
            }
        })
    }
}

/// Runs `f` with every handle and waits until each has done it.
pub async fn each<H, F>(members: Vec<Member<H>>, f: impl Fn(Rc<H>) -> F + Clone + Send + 'static)
where
    H: 'static,
    F: Future<Output = ()> + 'static,
{
    let replies: Vec<_> = members.iter().map(|member| member.call(f.clone())).collect();
    for reply in replies {
        // None: the handle is gone, which is as good.
        let _ = reply.await;
    }
}
