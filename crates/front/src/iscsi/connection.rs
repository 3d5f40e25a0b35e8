//! A connection's life: login, commands, end; and its receiving half.
//!
//! Everything here is of one core. The machine is borrowed for a call at a time, never across one
//! to the outside.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use block::Sgl;
use proto::iscsi::{
    Admission, CHALLENGE_BYTES, Config, DataOut, Digest, Event, Nonce, Refusal, SessionKind, Target,
};
use rt::net::{Inbox, Stream};
use rt::sync::Notify;
use rt::{Core, Placed};
use target::scsi::Nexus;
use wire::iscsi::LoginStatus;

use super::command::Commands;
use super::outbox;
use super::pool::{Held, Pool};
use super::sessions::{Entry, Sessions};
use super::{
    COMMANDS_PER_TURN, Ends, Host, LOGIN_LIMIT, Notice, QUIET_LIMIT, SESSION_BYTES_MAX, Settings,
    Why,
};

/// What all connections of a core use.
pub(super) struct Shared {
    pub core: Core,
    pub host: Rc<dyn Host>,
    pub sessions: Arc<Sessions>,
    pub settings: Settings,
    pub pool: Rc<Pool>,
}

pub(super) struct Connection {
    pub shared: Rc<Shared>,
    pub stream: Stream,
    pub machine: RefCell<Target>,
    pub commands: Commands,
    pub nexus: RefCell<Option<Rc<Nexus>>>,
    /// Bytes of buffers that commands hold.
    pub account: Rc<Cell<usize>>,
    /// There may be something to send.
    pub to_send: Notify,
    /// The machine may take more, or less memory is held.
    pub resumed: Notify,
    /// Commands that run.
    pub running: Cell<usize>,
    /// The kernel is sending.
    pub is_sending: Cell<bool>,
    /// Nothing more can be sent.
    pub is_deaf: Cell<bool>,
    /// Nothing is read, for want of memory that commands have which run.
    waits_for_disk: Cell<bool>,
    /// Nothing more will be given to be sent.
    pub is_over: Cell<bool>,
    ends: Ends,
    why: RefCell<Option<Why>>,
    entry: RefCell<Option<Entry>>,
    /// When something last arrived, in seconds of the core's clock.
    heard: Cell<u64>,
}

/// What the receiving half waits for.
enum Wait {
    Input,
    /// Data that is to be received where it belongs.
    Data(DataOut),
    Blocked,
    Admission,
    Logout,
    Ended,
    /// Others are to have their turn.
    Turn,
}

/// Serves a connection until its end.
pub(super) async fn serve(shared: Rc<Shared>, stream: Stream) {
    let core = shared.core.clone();
    let (Ok(peer), Ok(portal)) = (stream.peer(), stream.local()) else { return };
    let connection = Rc::new(Connection::new(shared, stream, Ends { peer, portal }));
    let watch = core.spawn_task(watch(connection.clone()));
    let sending = core.spawn_task(outbox::run(connection.clone()));
    let received = connection.receive().await;
    if let Err(error) = received {
        connection.end(match error.kind() {
            io::ErrorKind::UnexpectedEof => Why::Closed,
            _ => Why::Failed(error.to_string()),
        });
        connection.stream.shutdown();
    }
    connection.over();
    connection.abort_all();
    connection.resumed.until(|| connection.running.get() == 0).await;
    connection.is_over.set(true);
    connection.to_send.notify();
    sending.await;
    connection.stream.shutdown();
    watch.cancel();
    connection.leave().await;
}

impl Connection {
    fn new(shared: Rc<Shared>, stream: Stream, ends: Ends) -> Self {
        let settings = &shared.settings;
        let config = Config {
            wishes: settings.wishes,
            portal_group_tag: settings.portal_group_tag,
            alias: None,
            window: settings.window,
        };
        let machine = Target::new(config, shared.host.accounts(&ends), nonce(&shared.core));
        Self {
            heard: Cell::new(seconds(&shared.core)),
            commands: Commands::default(),
            machine: RefCell::new(machine),
            stream,
            ends,
            shared,
            nexus: RefCell::default(),
            account: Rc::default(),
            to_send: Notify::new(),
            resumed: Notify::new(),
            running: Cell::new(0),
            is_sending: Cell::new(false),
            is_deaf: Cell::new(false),
            waits_for_disk: Cell::new(false),
            is_over: Cell::new(false),
            why: RefCell::default(),
            entry: RefCell::default(),
        }
    }

    async fn receive(self: &Rc<Self>) -> io::Result<()> {
        let mut inbox = Inbox::new();
        loop {
            let wait = self.feed(&mut inbox);
            if self.machine.borrow().has_pdus() {
                self.to_send.notify();
            }
            match wait {
                Wait::Input => {
                    arrived(inbox.fill(&self.stream).await?)?;
                }
                Wait::Data(data) => self.receive_data(data).await?,
                // What it waits for will never be sent.
                Wait::Blocked if self.is_deaf.get() => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Wait::Blocked => {
                    self.waits_for_disk.set(self.running.get() > 0);
                    self.resumed.notified().await;
                    self.waits_for_disk.set(false);
                }
                Wait::Admission => self.admit().await,
                Wait::Logout => self.log_out().await,
                Wait::Ended => return Ok(()),
                Wait::Turn => self.shared.core.yield_now().await,
            }
            self.heard.set(seconds(&self.shared.core));
        }
    }

    /// Whether memory comes back without anything being read: what is there may all be of commands
    /// whose data is still to come.
    fn frees_memory(&self) -> bool {
        self.running.get() > 0 || self.is_sending.get() || self.machine.borrow().has_pdus()
    }

    /// Takes from the inbox what can be taken.
    fn feed(self: &Rc<Self>, inbox: &mut Inbox) -> Wait {
        let mut begun = 0;
        loop {
            if begun == COMMANDS_PER_TURN {
                return Wait::Turn;
            }
            if self.account.get() > SESSION_BYTES_MAX && self.frees_memory() {
                return Wait::Blocked;
            }
            let progress = self.machine.borrow_mut().handle_input(inbox.bytes());
            inbox.consume(progress.consumed);
            match progress.event {
                Event::Idle { .. } => return Wait::Input,
                Event::DataOut(data) if inbox.is_empty() => return Wait::Data(data),
                Event::DataOut(data) => {
                    let count = inbox.len().min(data.length as usize);
                    self.place(data, &inbox.bytes()[..count]);
                    inbox.consume(count);
                }
                Event::Blocked => return Wait::Blocked,
                Event::Admit => return Wait::Admission,
                Event::Ended => return Wait::Ended,
                Event::LoggedIn => self.logged_in(),
                Event::Command { task, receives } => {
                    self.begin(task, receives);
                    begun += 1;
                }
                Event::DataEnd { task, fault } => self.data_end(task, fault),
                Event::Manage(id) => self.manage(id),
                Event::Logout => return Wait::Logout,
                Event::Pong => {}
            }
        }
    }

    /// Puts data that has arrived where it belongs.
    fn place(&self, data: DataOut, bytes: &[u8]) {
        let at = data.offset as usize;
        self.commands.with_memory(data.task, |memory| memory.sgl().copy_in(at, bytes));
        self.placed(bytes.len(), |digest| digest.update(bytes));
    }

    fn placed(&self, count: usize, feed: impl FnOnce(Digest) -> Digest) {
        let mut machine = self.machine.borrow_mut();
        let mut digest = machine.incoming_digest();
        if machine.data_digest() {
            digest = feed(digest);
        }
        machine.handle_placed(count as u32, digest);
    }

    /// Receives data where it belongs.
    async fn receive_data(&self, data: DataOut) -> io::Result<()> {
        let (at, len) = (data.offset as usize, data.length as usize);
        let place = |memory: &mut Held| memory.sgl().slice(at, len).to_buf();
        let place = self.commands.with_memory(data.task, place);
        let place = place.expect("data is only asked for where there is memory for it");
        let count = arrived(self.stream.recv(&place.sgl()).await?)?;
        self.placed(count, |digest| digest_of(digest, &place.sgl().slice(0, count)));
        Ok(())
    }

    /// Answers the question whether the session may begin.
    async fn admit(self: &Rc<Self>) {
        let Some(admit) = self.machine.borrow().admission() else { return };
        let admission = match self.decide(&admit).await {
            Ok(tsih) => Admission::Granted { tsih },
            Err(status) => Admission::Refused(Refusal::Status(status)),
        };
        self.machine.borrow_mut().admit(&admission);
        self.to_send.notify();
    }

    async fn decide(self: &Rc<Self>, admit: &proto::iscsi::Admit) -> Result<u16, LoginStatus> {
        if admit.tsih != 0 {
            return Err(LoginStatus::SESSION_DOES_NOT_EXIST);
        }
        let placed = Arc::new(Placed::new(&self.shared.core, self.clone()));
        let end =
            move |why| drop(placed.call(move |old: Rc<Self>| async move { old.leave_by(why) }));
        let entry = self.shared.sessions.enter(admit, end).await?;
        let tsih = entry.tsih;
        if let SessionKind::Normal { .. } = admit.kind {
            let session = proto::iscsi::Session {
                initiator: admit.initiator.clone(),
                isid: admit.isid,
                tsih,
                cid: 0,
                kind: admit.kind.clone(),
            };
            let nexus = self.shared.host.enter(&session, &self.ends)?;
            self.nexus.replace(Some(nexus));
        }
        self.entry.replace(Some(entry));
        Ok(tsih)
    }

    fn logged_in(&self) {
        let session = self.machine.borrow().session().cloned();
        if let Some(session) = session {
            let ends = self.ends.clone();
            self.shared.host.notice(Notice::LoggedIn { session, ends });
        }
    }

    /// The first reason counts, and the machine's before the ends that follow from it.
    pub fn end(&self, why: Why) {
        if self.machine.borrow().ended().is_none() {
            self.why.borrow_mut().get_or_insert(why);
        }
    }

    fn over(&self) {
        if let Some(entry) = &*self.entry.borrow() {
            entry.over();
        }
    }

    /// Ends the nexus before the logout is answered: who has the answer finds free what it held.
    async fn log_out(self: &Rc<Self>) {
        self.abort_all();
        self.resumed.until(|| self.running.get() == 0).await;
        self.lose_nexus().await;
        self.machine.borrow_mut().settle_logout();
        self.to_send.notify();
    }

    async fn lose_nexus(&self) {
        let nexus = self.nexus.take();
        if let Some(nexus) = nexus {
            self.shared.host.leave(nexus).await;
        }
    }

    /// The next session of this name waits for the entry, and so for the end of the nexus.
    async fn leave(&self) {
        self.lose_nexus().await;
        let machine = self.machine.borrow();
        let protocol = machine.ended().cloned().map(Why::Protocol);
        let why = self.why.take().or(protocol).unwrap_or(Why::Closed);
        let initiator = machine.initiator().map(str::to_owned);
        let target = machine.target().map(str::to_owned);
        let ends = self.ends.clone();
        self.shared.host.notice(Notice::Ended { initiator, target, ends, why });
        self.entry.take();
    }

    /// What of the machine's has a session by now.
    pub fn is_logged_in(&self) -> bool {
        self.machine.borrow().session().is_some()
    }
}

/// Ends a login that takes too long, and a session whose initiator is silent.
async fn watch(connection: Rc<Connection>) {
    let core = connection.shared.core.clone();
    core.sleep(LOGIN_LIMIT).await;
    if !connection.is_logged_in() {
        connection.end(Why::LoginTooSlow);
        return connection.stream.shutdown();
    }
    loop {
        core.sleep(QUIET_LIMIT).await;
        let is_quiet = seconds(&core) - connection.heard.get() >= QUIET_LIMIT.as_secs();
        if !is_quiet || connection.waits_for_disk.get() {
            continue;
        }
        if !connection.machine.borrow_mut().ping() {
            connection.end(Why::Silent);
            return connection.stream.shutdown();
        }
        connection.to_send.notify();
    }
}

fn arrived(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

fn seconds(core: &Core) -> u64 {
    core.turn_time().as_nanos() / 1_000_000_000
}

fn nonce(core: &Core) -> Nonce {
    let mut nonce = [0; 1 + CHALLENGE_BYTES];
    for chunk in nonce.chunks_mut(size_of::<u64>()) {
        chunk.copy_from_slice(&core.random().to_ne_bytes()[..chunk.len()]);
    }
    nonce
}

/// Feeds a digest with memory that is never borrowed.
pub(super) fn digest_of(digest: Digest, bytes: &Sgl<'_>) -> Digest {
    digest.update_by(bytes.len(), |at, piece| bytes.copy_out(at, piece))
}
