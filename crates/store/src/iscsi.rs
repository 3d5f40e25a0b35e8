//! Sessions with iSCSI targets: the initiator's machine of `proto` on a connection of a core.
//!
//! ```text
//!   Session::open ──▶ begin ──▶ Pending ──▶ Answer          one task receives, one sends
//!                 ──▶ manage, ping, discover, told ──▶ logout
//! ```
//!
//! Many commands are under way at once, and none allocates in steady state. Data is received where
//! a command wants it and sent from where it lies; a command that nobody waits for any more keeps
//! its memory pinned until the target has answered it. A session that is lost fails everything that
//! waits, and is not opened again here: a path's owner decides when. Not here either: devices made
//! of a session, discovery of paths, choosing among them.

mod receive;
mod send;
mod waits;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use block::Sgl;
use proto::iscsi::initiator::{
    Config, Found, Initiator, ManagementTag, NewCommand, NotNow, Outcome, TaskId,
};
use proto::iscsi::{CHALLENGE_BYTES, Direction, Ended, Nonce, Parameters};
use rt::Core;
use rt::net::{Address, Stream};
use rt::sync::Notify;
use wire::iscsi::{AsyncEvent, RejectReason, TaskFunction, TaskResponse};

use waits::{WaitId, Waits};

/// How long connecting and logging in may take together.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);
/// A target from which nothing was heard so long is asked whether it is there, and given up when it
/// has said nothing after as long again.
const QUIET_LIMIT: Duration = Duration::from_secs(10);
/// What targets tell and nobody listens to: the oldest are forgotten.
const TOLD_MAX: usize = 32;

/// A SCSI command. Its data goes one way at most.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    pub lun: [u8; 8],
    /// At most 16 bytes.
    pub cdb: &'a [u8],
    /// One of [`attribute`](wire::iscsi::attribute).
    pub attribute: u8,
    pub out: Sgl<'a>,
    pub into: Sgl<'a>,
}

/// What the target says of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    pub sense: Option<Box<[u8]>>,
}

/// Why a command or request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the target rejects the request: {0}")]
    Rejected(RejectReason),
    /// By task management of ours.
    #[error("the command was aborted")]
    Aborted,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error(transparent)]
    Protocol(Ended),
    #[error("cannot connect to {address}: {why}")]
    Unreachable { address: Address, why: String },
    #[error("the target has closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Failed(String),
    #[error("no login within {} s", LOGIN_LIMIT.as_secs())]
    LoginTooSlow,
    #[error("the target does not answer")]
    Silent,
    #[error("the session was given up")]
    GivenUp,
}

/// Something that a target tells without being asked (RFC 7143, 11.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub event: AsyncEvent,
    pub parameters: [u16; 3],
    /// Of a SCSI event.
    pub sense: Box<[u8]>,
}

/// A session that is logged in, until it is [lost](Session::lost). Dropping it closes the
/// connection; [`logout`](Session::logout) ends it in good order.
pub struct Session(Rc<Inner>);

struct Inner {
    stream: Stream,
    machine: RefCell<Initiator>,
    waits: RefCell<Waits>,
    /// There may be something to send.
    to_send: Notify,
    /// The machine takes input again.
    unblocked: Notify,
    /// Anything that others wait for: the window, an answer, the end.
    changed: Notify,
    is_logged_in: Cell<bool>,
    lost: RefCell<Option<Lost>>,
    managed: RefCell<Vec<(ManagementTag, Option<Managed>)>>,
    told: RefCell<VecDeque<Told>>,
    pings: Cell<Asked>,
    discoveries: Cell<Asked>,
    discovery: Cell<Option<Result<Vec<Found>, RejectReason>>>,
    logout: Cell<Option<RejectReason>>,
    /// Nothing has arrived since somebody looked.
    is_quiet: Cell<bool>,
}

/// What a task management request has come to.
type Managed = Result<TaskResponse, RejectReason>;

/// Requests of one kind, of which one is under way at a time.
#[derive(Clone, Copy, Default)]
struct Asked {
    is_under_way: bool,
    /// How many have been answered or refused.
    answered: u64,
}

impl Session {
    /// Connects and logs in.
    pub async fn open(core: &Core, address: &Address, config: Config) -> Result<Self, Lost> {
        let opened = core.timeout(LOGIN_LIMIT, Self::log_in(core, address, config));
        opened.await.unwrap_or(Err(Lost::LoginTooSlow))
    }

    async fn log_in(core: &Core, address: &Address, config: Config) -> Result<Self, Lost> {
        let stream = Stream::connect(core, address).await.map_err(|error| Lost::Unreachable {
            address: address.clone(),
            why: error.to_string(),
        })?;
        let session = Self(Rc::new(Inner::new(core, stream, config)));
        let inner = &session.0;
        core.spawn(receive::run(inner.clone()));
        core.spawn(send::run(inner.clone()));
        inner.changed.until(|| inner.is_logged_in.get() || inner.is_over()).await;
        inner.check()?;
        core.spawn(watch(core.clone(), Rc::downgrade(inner)));
        Ok(session)
    }

    /// What was agreed on.
    pub fn parameters(&self) -> Parameters {
        *self.0.machine.borrow().parameters()
    }

    /// Why the session is over.
    pub fn lost(&self) -> Option<Lost> {
        self.0.lost.borrow().clone()
    }

    /// Commands that the target has not answered.
    pub fn command_count(&self) -> usize {
        self.0.machine.borrow().command_count()
    }

    /// Sends a command if the target takes one now.
    pub fn begin(&self, command: &Command<'_>) -> Result<Pending, NotNow> {
        let (direction, data) = match (command.out.is_empty(), command.into.is_empty()) {
            (true, true) => (Direction::None, Sgl::empty()),
            (true, false) => (Direction::In, command.into),
            (false, true) => (Direction::Out, command.out),
            (false, false) => panic!("a command whose data goes both ways"),
        };
        if self.0.is_over() {
            return Err(NotNow);
        }
        let length = u32::try_from(data.len()).expect("a command of at most 4 GiB");
        let Command { lun, cdb, attribute, .. } = *command;
        let new = NewCommand { lun, cdb, attribute, direction, length };
        let task = self.0.machine.borrow_mut().command(&new)?;
        let wait = self.0.waits.borrow_mut().begin(task, &data);
        self.0.to_send.notify();
        Ok(Pending { inner: self.0.clone(), task, wait })
    }

    /// Runs a command, after others if the target takes none now.
    pub async fn command(&self, command: &Command<'_>) -> Result<Answer, Failure> {
        let inner = &self.0;
        loop {
            inner.changed.until(|| inner.can_command() || inner.is_over()).await;
            inner.check()?;
            // Others that waited may have been quicker.
            if let Ok(pending) = self.begin(command) {
                return pending.await;
            }
        }
    }

    /// Task management. Commands that it has ended fail with [`Failure::Aborted`].
    pub async fn manage(
        &self,
        function: TaskFunction,
        lun: [u8; 8],
        task: Option<TaskId>,
    ) -> Result<TaskResponse, Failure> {
        let inner = &self.0;
        inner.check()?;
        let tag = inner.machine.borrow_mut().manage(function, lun, task);
        inner.managed.borrow_mut().push((tag, None));
        inner.to_send.notify();
        inner.changed.until(|| inner.is_managed(tag) || inner.is_over()).await;
        let mut managed = inner.managed.borrow_mut();
        let at = managed.iter().position(|(other, _)| *other == tag);
        match at.and_then(|at| managed.swap_remove(at).1) {
            Some(answer) => answer.map_err(Failure::Rejected),
            None => inner.check().map(|()| TaskResponse::FUNCTION_REJECTED).map_err(Failure::from),
        }
    }

    /// Asks the target whether it is there.
    pub async fn ping(&self) -> Result<(), Failure> {
        Ok(self.0.ask(&self.0.pings, Initiator::ping).await?)
    }

    /// All targets that we may see; in a normal session the addresses of its target.
    pub async fn discover(&self) -> Result<Vec<Found>, Failure> {
        self.0.ask(&self.0.discoveries, Initiator::discover).await?;
        self.0.discovery.take().unwrap_or(Ok(Vec::new())).map_err(Failure::Rejected)
    }

    /// The next thing that the target tells: whoever uses a session listens, because a target that
    /// asks for a logout ends the session itself after a while.
    pub async fn told(&self) -> Result<Told, Lost> {
        let inner = &self.0;
        inner.changed.until(|| !inner.told.borrow().is_empty() || inner.is_over()).await;
        match inner.told.borrow_mut().pop_front() {
            Some(told) => Ok(told),
            None => Err(self.lost().unwrap_or(Lost::GivenUp)),
        }
    }

    /// Logs out; commands under way are aborted by it.
    pub async fn logout(&self) -> Result<(), Failure> {
        let inner = &self.0;
        inner.check()?;
        inner.machine.borrow_mut().logout();
        inner.to_send.notify();
        inner.changed.until(|| inner.is_over() || inner.logout.get().is_some()).await;
        match self.lost() {
            None | Some(Lost::Protocol(Ended::Logout { .. })) => match inner.logout.take() {
                Some(reason) => Err(Failure::Rejected(reason)),
                None => Ok(()),
            },
            Some(lost) => Err(lost.into()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.end(Lost::GivenUp);
    }
}

/// A command under way. Dropping it gives up the answer, not the command.
#[must_use = "an answer is waited for"]
pub struct Pending {
    inner: Rc<Inner>,
    task: TaskId,
    wait: WaitId,
}

impl Pending {
    /// Its name for task management.
    pub fn task(&self) -> TaskId {
        self.task
    }
}

impl Future for Pending {
    type Output = Result<Answer, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.waits.borrow_mut().poll(self.wait, cx)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.inner.waits.borrow_mut().abandon(self.wait);
    }
}

impl Inner {
    fn new(core: &Core, stream: Stream, config: Config) -> Self {
        let commands = config.commands;
        Self {
            stream,
            machine: RefCell::new(Initiator::new(config, nonce(core))),
            waits: RefCell::new(Waits::new(commands)),
            to_send: Notify::new(),
            unblocked: Notify::new(),
            changed: Notify::new(),
            is_logged_in: Cell::new(false),
            lost: RefCell::default(),
            managed: RefCell::default(),
            told: RefCell::default(),
            pings: Cell::default(),
            discoveries: Cell::default(),
            discovery: Cell::default(),
            logout: Cell::default(),
            is_quiet: Cell::new(false),
        }
    }

    fn is_over(&self) -> bool {
        self.lost.borrow().is_some()
    }

    fn check(&self) -> Result<(), Lost> {
        match &*self.lost.borrow() {
            Some(lost) => Err(lost.clone()),
            None => Ok(()),
        }
    }

    fn can_command(&self) -> bool {
        self.machine.borrow().can_command()
    }

    fn is_managed(&self, tag: ManagementTag) -> bool {
        self.managed.borrow().iter().any(|(other, answer)| *other == tag && answer.is_some())
    }

    /// Waits its turn, asks, and waits for the answer.
    async fn ask(&self, asked: &Cell<Asked>, ask: impl Fn(&mut Initiator)) -> Result<(), Lost> {
        self.changed.until(|| !asked.get().is_under_way || self.is_over()).await;
        self.check()?;
        let before = asked.get().answered;
        asked.set(Asked { is_under_way: true, answered: before });
        ask(&mut self.machine.borrow_mut());
        self.to_send.notify();
        self.changed.until(|| asked.get().answered != before || self.is_over()).await;
        match asked.get().answered != before {
            true => Ok(()),
            false => self.check(),
        }
    }

    fn answered(&self, asked: &Cell<Asked>) {
        asked.set(Asked { is_under_way: false, answered: asked.get().answered + 1 });
    }

    /// The first reason counts. Everything that waits is told.
    fn end(&self, lost: Lost) {
        {
            let mut place = self.lost.borrow_mut();
            if place.is_some() {
                return;
            }
            *place = Some(lost.clone());
        }
        self.stream.shutdown();
        self.waits.borrow_mut().fail_all(&Failure::Lost(lost));
        for waiting in [&self.changed, &self.to_send, &self.unblocked] {
            waiting.notify();
        }
    }
}

/// Asks a target that is silent whether it is there, and gives it up when it stays silent.
async fn watch(core: Core, inner: Weak<Inner>) {
    let mut was_asked = false;
    loop {
        core.sleep(QUIET_LIMIT).await;
        let Some(inner) = inner.upgrade().filter(|inner| !inner.is_over()) else { return };
        let is_quiet = inner.is_quiet.replace(true);
        if is_quiet && was_asked {
            return inner.end(Lost::Silent);
        }
        was_asked = is_quiet;
        if is_quiet {
            inner.machine.borrow_mut().ping();
            inner.to_send.notify();
        }
    }
}

fn nonce(core: &Core) -> Nonce {
    let mut nonce = [0; 1 + CHALLENGE_BYTES];
    for chunk in nonce.chunks_mut(size_of::<u64>()) {
        chunk.copy_from_slice(&core.random().to_ne_bytes()[..chunk.len()]);
    }
    nonce
}
