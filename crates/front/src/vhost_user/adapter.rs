//! One adapter: one socket, one client, one device; one session at a time.
//!
//! A second front end on the socket is refused and reported: two of them on one disk is a mistake
//! that nobody wants to find out about later. One that comes back while its predecessor's requests
//! are still being drained waits for its turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use model::stats::OpStats;
use rt::os::machine::UnixListener;
use rt::os::socket::{Listener, Peer, Stream};
use rt::sync::{Notify, Reply};
use rt::{Core, Placed, Remote, Task};

use super::kind::{Kind, Units};
use super::ring::Fault;
use super::session::{DRAIN_LIMIT, Past, Session};

/// A front end that hangs up and comes back at once may be seen at the door before its old
/// connection is seen to end.
const REFUSE_AFTER: Duration = Duration::from_millis(20);
/// After a connection could not be taken for want of something.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What an adapter serves, and how.
pub struct Spec<K> {
    /// Names the adapter in notices: client and slot.
    pub name: String,
    /// Cores for the queues, in turn, from the adapter's own on.
    pub cores: Vec<Remote>,
    pub observer: Arc<dyn Observer>,
    pub device: K,
}

/// How long things may take before somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A stopping queue waits for its store; the answer to the front end is held longer, if need
    /// be.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { drain: DRAIN_LIMIT }
    }
}

/// Who is told what happens on an adapter.
pub trait Observer: Send + Sync {
    fn notice(&self, adapter: &str, notice: Notice);
}

/// What happened.
#[derive(Debug)]
pub enum Notice {
    Connected {
        pid: i32,
    },
    Disconnected {
        pid: i32,
    },
    /// A second front end while the first is there.
    Refused {
        pid: i32,
        holder: i32,
    },
    /// The front end broke the protocol or cannot be served; the session has ended.
    Broken {
        why: String,
    },
    /// Something the front end asked for cannot be done, and why.
    Failed {
        why: String,
    },
    /// The driver broke its ring.
    Fault {
        queue: u16,
        fault: Fault,
    },
    /// A request failed in the store.
    Store {
        queue: u16,
        error: block::Error,
    },
    /// A stopping queue waits for its store.
    Waiting {
        queue: u16,
        in_flight: u32,
        seconds: u64,
    },
}

/// What an adapter is doing, for listings.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub session: Option<SessionInfo>,
    /// Counts of queues that are no more.
    pub past: Vec<OpStats>,
    /// The same by LU, of devices that have several.
    pub past_units: Units,
}

#[derive(Clone, Debug)]
pub struct SessionInfo {
    pub peer: i32,
    /// Negotiated features, by name.
    pub features: Vec<&'static str>,
    pub memory_regions: usize,
    pub inflight_tracking: bool,
    pub logging: bool,
    pub queues: Vec<QueueInfo>,
}

#[derive(Clone, Debug)]
pub struct QueueInfo {
    pub index: u16,
    pub core: rt::CoreId,
    pub in_flight: u32,
    pub stats: Vec<OpStats>,
    /// The same by LU, of devices that have several.
    pub units: Units,
}

/// A serving adapter; dropping it ends it without waiting.
pub struct Adapter<K: Kind> {
    server: Placed<Server<K>>,
}

impl<K: Kind> Adapter<K> {
    /// Serves on a listening socket, at home on this core.
    pub fn start(home: &Remote, socket: UnixListener, spec: Spec<K>) -> Reply<io::Result<Self>> {
        Self::start_with(home, socket, spec, Limits::default())
    }

    pub fn start_with(
        home: &Remote,
        socket: UnixListener,
        spec: Spec<K>,
        limits: Limits,
    ) -> Reply<io::Result<Self>> {
        home.call(move |core| async move {
            let listener = Listener::new(&core, socket)?;
            let server = Rc::new(Server {
                core: core.clone(),
                spec: Arc::new(spec),
                limits,
                current: RefCell::new(None),
                past: Rc::default(),
                accepting: RefCell::new(None),
            });
            let accepting = core.spawn_task(accept(Rc::downgrade(&server), listener));
            *server.accepting.borrow_mut() = Some(accepting);
            Ok(Self { server: Placed::new(&core, server) })
        })
    }

    /// Takes no more connections, lets everything in flight be answered, ends the session.
    pub fn close(&self) -> Reply<()> {
        self.server.call(|server| async move {
            if let Some(accepting) = server.accepting.take() {
                accepting.cancel();
            }
            let current = server.current.borrow().clone();
            if let Some(current) = current {
                current.session.end();
                current.ended().await;
            }
        })
    }

    pub fn info(&self) -> Reply<Info> {
        self.server.call(|server| async move {
            loop {
                let before = server.past.borrow().queues;
                let current = server.current.borrow().clone();
                let session = match &current {
                    Some(current) => Some(current.session.info(current.peer.pid).await),
                    None => None,
                };
                let Past { stats, units, queues } = server.past.borrow().clone();
                // A queue that has ended meanwhile would be counted twice.
                if queues == before {
                    return Info { session, past: stats, past_units: units };
                }
            }
        })
    }

    /// Does something with the session, if there is one.
    pub(super) fn with_session(
        &self,
        f: impl FnOnce(&Rc<Session<K>>) + Send + 'static,
    ) -> Reply<()> {
        self.server.call(|server| async move {
            let current = server.current.borrow().clone();
            if let Some(current) = current {
                f(&current.session);
            }
        })
    }
}

struct Server<K: Kind> {
    core: Core,
    spec: Arc<Spec<K>>,
    limits: Limits,
    current: RefCell<Option<Rc<Connection<K>>>>,
    past: Rc<RefCell<Past>>,
    accepting: RefCell<Option<Task<()>>>,
}

impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.cancel();
        }
        if let Some(current) = self.current.take() {
            current.session.end();
        }
    }
}

struct Connection<K: Kind> {
    peer: Peer,
    session: Rc<Session<K>>,
    over: Cell<bool>,
    ended: Notify,
}

impl<K: Kind> Connection<K> {
    async fn ended(&self) {
        self.ended.until(|| self.over.get()).await;
    }

    /// Who is at the other end; None once the session is over, if it is about to be.
    async fn holder(&self, core: &Core) -> Option<i32> {
        let held = self.session.is_held().await;
        if held && core.timeout(REFUSE_AFTER, self.session.ending()).await.is_none() {
            return Some(self.peer.pid);
        }
        self.ended().await;
        None
    }
}

async fn accept<K: Kind>(server: Weak<Server<K>>, listener: Listener) {
    loop {
        let accepted = listener.accept().await;
        let Some(now) = server.upgrade() else { return };
        let (core, current) = (now.core.clone(), now.current.borrow().clone());
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // No descriptor or no memory is left: others may give some back.
                now.notice(Notice::Failed { why: format!("nobody can connect: {error}") });
                drop(now);
                core.sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Not held while this waits: an adapter that is dropped is to end.
        drop(now);
        let peer = stream.peer().unwrap_or(Peer { pid: 0, uid: 0, gid: 0 });
        let holder = match &current {
            Some(current) => current.holder(&core).await,
            None => None,
        };
        let Some(server) = server.upgrade() else { return };
        match holder {
            Some(holder) => server.notice(Notice::Refused { pid: peer.pid, holder }),
            None => server.serve(stream, peer),
        }
    }
}

impl<K: Kind> Server<K> {
    fn notice(&self, notice: Notice) {
        self.spec.observer.notice(&self.spec.name, notice);
    }

    fn serve(self: &Rc<Self>, stream: Stream, peer: Peer) {
        let session =
            Session::new(&self.core, self.spec.clone(), self.limits, stream, self.past.clone());
        let connection = Rc::new(Connection {
            peer,
            session: session.clone(),
            over: Cell::new(false),
            ended: Notify::new(),
        });
        *self.current.borrow_mut() = Some(connection.clone());
        self.notice(Notice::Connected { pid: peer.pid });
        let server = Rc::downgrade(self);
        let spec = self.spec.clone();
        self.core.spawn(async move {
            if let Err(why) = session.run().await {
                spec.observer.notice(&spec.name, Notice::Broken { why });
            }
            spec.observer.notice(&spec.name, Notice::Disconnected { pid: peer.pid });
            if let Some(server) = server.upgrade() {
                *server.current.borrow_mut() = None;
            }
            connection.over.set(true);
            connection.ended.notify();
        });
    }
}
