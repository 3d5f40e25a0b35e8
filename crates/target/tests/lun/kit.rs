//! What the tests share: nexuses with short names, an LU on one core, and a look at futures.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use block::{Asked, Device, Geometry, Outcome, Request, Watch};
use target::lun::access::Access;
use target::lun::attention::AttentionSet;
use target::lun::{
    Config, Handle, Identity, Initiator, Local, Medium, Member, Modes, NexusId, PortId, State, View,
};

/// A disk that nobody reads.
struct Quiet(Watch);

impl Device for Quiet {
    fn geometry(&self) -> Geometry {
        Geometry::plain(1 << 20, 512)
    }

    fn begin(&self, _: &Request<'_>, _: Asked<'_>) -> Option<Outcome> {
        unreachable!("the tests of shared state do no I/O")
    }

    fn watch(&self) -> &Watch {
        &self.0
    }
}

pub fn nexus(initiator: &str, port: u16) -> NexusId {
    NexusId::new(Initiator::new(initiator.as_bytes()).unwrap(), PortId(port))
}

pub fn config() -> Config {
    Config { modes: Modes::default(), access: Access::default(), medium: Medium::LOADED }
}

/// An LU on one core.
pub fn unit() -> (Rc<Local>, Rc<Handle>) {
    let local = Local::new(State::new(config()));
    let handle = handle_of(local.view(), local.clone());
    local.attach(&handle);
    (local, handle)
}

pub fn handle_of(view: Arc<View>, ledger: Rc<Local>) -> Rc<Handle> {
    let identity = Identity { uuid: [7; 16], serial: "7".into(), company: None };
    Handle::new(Rc::new(Quiet(Watch::new())), identity, view, ledger)
}

pub fn join(handle: &Handle, nexus: &NexusId) -> Rc<Member> {
    handle.join(nexus.clone(), handle.attentions(AttentionSet::NONE), 16)
}

/// Polls once.
pub fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What must be done at once.
pub fn now<F: Future>(future: F) -> F::Output {
    match poll(future) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("not at once"),
    }
}

/// Counts how often it was woken.
pub struct Woken(Arc<Count>);

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn times(&self) -> u32 {
        self.0.0.load(Ordering::Relaxed)
    }

    pub fn poll<F: Future>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.0.clone().into()))
    }
}
