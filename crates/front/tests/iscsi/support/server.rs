//! A server on its cores: one target with one LUN, for one initiator.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use front::iscsi::{self, Door, Ends, Farewell, Notice, Sessions, Settings, Why};
use proto::iscsi::{Accounts, Authentication, Portal, Refusal, Session, SessionKind, TargetRecord};
use rt::net::Address;
use rt::{Core, Placed, Remote};
use store::{MemoryStore, Store};
use target::lun::admit::{Aborted, Which};
use target::lun::attention::AttentionSet;
use target::lun::{
    Caching, Config, Handle, Identity, Local, Medium, Modes, NexusId, PortId, State, meter,
};
use target::scsi::persist::transport_id;
use target::scsi::{self, Env, Kind, Nexus, TargetPort, Unit};
use wire::iscsi::LoginStatus;
use wire::scsi::reservation::Protocol;

use super::client::{INITIATOR, TARGET};
use super::disk::Disk;

pub const DISK_BYTES: u64 = 16 << 20;

/// How a server is made.
#[derive(Clone)]
pub struct Setup {
    pub settings: Settings,
    pub authentication: Authentication,
    /// Initiators that ask for the target are sent there.
    pub moved: Option<String>,
    /// Answers of the disk come so late, at most.
    pub late: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        let (settings, authentication) = (Settings::default(), Authentication::None);
        Self { settings, authentication, moved: None, late: Duration::ZERO }
    }
}

/// A server, as its tests see it.
pub struct Server {
    pub address: Address,
    pub sessions: Arc<Sessions>,
    cores: Vec<Arc<Placed<Host>>>,
    _door: Placed<Door>,
}

/// What the server says and serves on one core.
struct Host {
    setup: Setup,
    env: Rc<Spawner>,
    disk: Rc<Disk>,
    local: Rc<Local>,
    handle: Rc<Handle>,
    nexuses: RefCell<Vec<Rc<Nexus>>>,
    notices: RefCell<Vec<Notice>>,
    /// Sessions that have begun, ever.
    entered: Cell<usize>,
}

struct Spawner(Core);

impl Env for Spawner {
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>) {
        self.0.spawn(work);
    }
}

impl Server {
    pub async fn start(cores: &[Remote], setup: Setup) -> Self {
        let sessions = Arc::new(Sessions::default());
        let store = MemoryStore::new(DISK_BYTES, 512).unwrap();
        let (mut hosts, mut places) = (Vec::new(), Vec::new());
        for core in cores {
            let (sessions, store, setup) = (sessions.clone(), store.clone(), setup.clone());
            let made = core.call(move |core| async move {
                let settings = setup.settings.clone();
                let host = Host::new(&core, store, setup);
                let server = iscsi::Server::new(&core, host.clone(), sessions, settings);
                let count = server.count();
                (Arc::new(Placed::new(&core, host)), (Arc::new(Placed::new(&core, server)), count))
            });
            let (host, place) = made.await.unwrap();
            hosts.push(host);
            places.push(place);
        }
        let opened = cores[0].call(move |core| async move {
            let door = Door::open(&core, &"127.0.0.1:0".parse().unwrap(), places).unwrap();
            let address = door.address().clone();
            (Placed::new(&core, Rc::new(door)), address)
        });
        let (door, address) = opened.await.unwrap();
        Self { address, sessions, cores: hosts, _door: door }
    }

    async fn each<T: Send + 'static>(
        &self,
        f: impl Fn(&Host) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for core in &self.cores {
            let f = f.clone();
            all.push(core.call(move |host| async move { f(&host) }).await.unwrap());
        }
        all
    }

    pub async fn hold(&self) {
        self.each(|host| host.disk.is_held.set(true)).await;
    }

    pub async fn release(&self) {
        self.each(|host| host.disk.release()).await;
    }

    /// Requests that the disk holds back.
    pub async fn held(&self) -> usize {
        self.each(|host| host.disk.held()).await.into_iter().sum()
    }

    /// Bytes that the disk was asked to read.
    pub async fn read_bytes(&self) -> u64 {
        self.each(|host| host.disk.read.get()).await.into_iter().sum()
    }

    /// The most requests that began while nothing else on their core had its turn.
    pub async fn most_in_turn(&self) -> u64 {
        let each = self.each(|host| host.disk.most_in_turn.get()).await;
        each.into_iter().max().unwrap_or(0)
    }

    /// How many commands of a kind were timed, and how long they took together.
    pub async fn times(&self, kind: meter::Kind) -> (u64, Duration) {
        let times = self.each(move |host| host.handle.meter().times()[kind as usize]).await;
        let count = times.iter().flat_map(|times| times.buckets).sum();
        (count, Duration::from_nanos(times.iter().map(|times| times.sum_ns).sum()))
    }

    pub async fn requests(&self) -> u64 {
        self.each(|host| host.disk.requests.get()).await.into_iter().sum()
    }

    /// Sessions that have begun on each core.
    pub async fn entered(&self) -> Vec<usize> {
        self.each(|host| host.entered.get()).await
    }

    /// Why connections have ended since the last look.
    pub async fn ends(&self) -> Vec<Why> {
        let notices = self.each(|host| host.notices.take()).await;
        let why = |notice| match notice {
            Notice::Ended { why, .. } => Some(why),
            Notice::LoggedIn { .. } => None,
        };
        notices.into_iter().flatten().filter_map(why).collect()
    }

    pub async fn take_away_lun(&self) {
        for core in &self.cores {
            core.call(|host| async move { host.take_away_lun().await }).await.unwrap();
        }
    }

    pub fn farewell(&self, how: Farewell) {
        self.sessions.end(how, |_, _| true);
    }
}

impl Host {
    fn new(core: &Core, store: Arc<MemoryStore>, setup: Setup) -> Rc<Self> {
        let disk = Disk::new(core, store.device(core));
        disk.late.set(setup.late);
        let caching = Caching { write_back: true, ..Caching::default() };
        let modes = Modes { caching, ..Modes::default() };
        let config = Config { modes, access: Default::default(), medium: Medium::LOADED };
        let local = Local::new(State::new(config));
        let identity = Identity { uuid: [7; 16], serial: "test".to_owned(), company: None };
        let handle = Handle::new(disk.clone(), identity, local.view(), local.clone());
        local.attach(&handle);
        Rc::new(Self {
            setup,
            env: Rc::new(Spawner(core.clone())),
            disk,
            local,
            handle,
            nexuses: RefCell::default(),
            notices: RefCell::default(),
            entered: Cell::default(),
        })
    }

    async fn take_away_lun(&self) {
        let nexuses = self.nexuses.borrow().clone();
        for nexus in nexuses {
            let Some(unit) = nexus.unmap(0) else { continue };
            let tasks = unit.member().tasks();
            let leaving = tasks.abort(Which::All, Aborted::WithStatus);
            tasks.left(leaving).await;
        }
    }
}

impl iscsi::Host for Host {
    fn accounts(&self, _: &Ends) -> Rc<dyn Accounts> {
        Rc::new(Book(self.setup.clone()))
    }

    fn enter(&self, session: &Session, _: &Ends) -> Result<Rc<Nexus>, LoginStatus> {
        let initiator = transport_id::iscsi(&session.initiator, session.isid).unwrap();
        let id = NexusId::new(initiator, PortId(1));
        let port = TargetPort { protocol: Protocol::ISCSI, device_name: TARGET.to_owned() };
        let nexus = Nexus::new(id.clone(), port, self.env.clone());
        let settings =
            scsi::Settings { kind: Kind::Disk, removable: false, read_only: false, tasks_max: 256 };
        let attentions = self.handle.attentions(AttentionSet::NONE);
        let unit = Unit::new(id, self.handle.clone(), attentions, settings);
        nexus.map(0, unit).unwrap();
        nexus.told_luns();
        self.nexuses.borrow_mut().push(nexus.clone());
        self.entered.set(self.entered.get() + 1);
        assert!(self.local.stored().is_none(), "nothing here is to be stored");
        Ok(nexus)
    }

    fn leave(&self, nexus: Rc<Nexus>) -> Pin<Box<dyn Future<Output = ()>>> {
        self.nexuses.borrow_mut().retain(|one| !Rc::ptr_eq(one, &nexus));
        Box::pin(async move {
            nexus.lose(true).await;
        })
    }

    fn notice(&self, notice: Notice) {
        self.notices.borrow_mut().push(notice);
    }
}

struct Book(Setup);

impl Accounts for Book {
    fn authentication(&self, name: &str, target: Option<&str>) -> Result<Authentication, Refusal> {
        match (&self.0.moved, target) {
            (Some(address), Some(_)) => {
                Err(Refusal::Moved { address: address.clone(), permanently: false })
            }
            (_, Some(target)) if target != TARGET || !name.starts_with(INITIATOR) => {
                Err(Refusal::Status(LoginStatus::NOT_FOUND))
            }
            _ => Ok(self.0.authentication.clone()),
        }
    }

    fn targets(&self, _: &str) -> Vec<TargetRecord> {
        let portal = Portal { address: "10.0.0.1:3260".parse().unwrap(), group_tag: 1 };
        vec![TargetRecord { name: TARGET.to_owned(), portals: vec![portal] }]
    }
}

/// Sessions to a target of this name, for those who look at a login from outside.
pub fn normal() -> SessionKind {
    SessionKind::Normal { target: TARGET.to_owned() }
}
