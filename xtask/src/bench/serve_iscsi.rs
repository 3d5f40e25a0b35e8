//! iSCSI in the small server: one target with one LUN on every core, for whoever comes.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use front::iscsi::{self, Door, Ends, Notice, Place, Sessions, Settings, Why};
use proto::iscsi::{Accounts, Authentication, Ended, Refusal, Session, TargetRecord};
use rt::net::Address;
use rt::{Core, Placed, Remote};
use store::Store;
use target::lun::attention::AttentionSet;
use target::lun::{
    Caching, Config, Handle, Identity, Local, Medium, Modes, NexusId, PortId, State,
};
use target::scsi::persist::transport_id;
use target::scsi::{self, Env, Kind, Nexus, TargetPort, Unit};
use wire::iscsi::LoginStatus;
use wire::scsi::reservation::Protocol;

use crate::Result;

pub const TARGET: &str = "iqn.2026-11.org.viaduct.bench:small";
/// Commands that a session may have at the LUN.
const TASKS_MAX: u32 = 256;

pub struct Portal {
    address: Address,
    faces: Vec<Placed<Face>>,
    _door: Placed<Door>,
}

/// What is served on one core.
struct Face {
    env: Rc<Spawner>,
    handle: Rc<Handle>,
    /// Nobody else keeps it.
    _local: Rc<Local>,
}

struct Spawner(Core);

impl Env for Spawner {
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>) {
        self.0.spawn(work);
    }
}

impl Portal {
    pub fn open(cores: &[Remote], store: &Arc<dyn Store>) -> Result<Self> {
        let sessions = Arc::new(Sessions::default());
        let (mut faces, mut places): (Vec<_>, Vec<Place>) = (Vec::new(), Vec::new());
        for core in cores {
            let (sessions, store) = (sessions.clone(), store.clone());
            let made = core.call(move |core| async move {
                let face = Face::new(&core, store);
                let server = iscsi::Server::new(&core, face.clone(), sessions, Settings::default());
                let count = server.count();
                (Placed::new(&core, face), (Arc::new(Placed::new(&core, server)), count))
            });
            let (face, place) = made.wait().ok_or("the core has ended")?;
            faces.push(face);
            places.push(place);
        }
        let home = cores.first().ok_or("no core")?;
        let opened = home.call(move |core| async move {
            let door = Door::open(&core, &Address::Tcp(([127, 0, 0, 1], 0).into()), places)?;
            let address = door.address().clone();
            Ok::<_, std::io::Error>((Placed::new(&core, Rc::new(door)), address))
        });
        let (_door, address) = opened.wait().ok_or("the core has ended")??;
        Ok(Self { address, faces, _door })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Requests so far, by core.
    pub fn requests(&self) -> Result<Vec<u64>> {
        let count = |face: &Placed<Face>| {
            let counted = face.call(async |face| {
                face.handle.meter().read().iter().map(|counts| counts.requests).sum()
            });
            counted.wait().ok_or_else(|| "the core has ended".into())
        };
        self.faces.iter().map(count).collect()
    }
}

impl Face {
    fn new(core: &Core, store: Arc<dyn Store>) -> Rc<Self> {
        let caching = Caching { write_back: true, ..Caching::default() };
        let modes = Modes { caching, ..Modes::default() };
        let config = Config { modes, access: Default::default(), medium: Medium::LOADED };
        let local = Local::new(State::new(config));
        let identity = Identity { uuid: [7; 16], serial: "bench".to_owned(), company: None };
        let handle = Handle::new(store.device(core), identity, local.view(), local.clone());
        local.attach(&handle);
        Rc::new(Self { env: Rc::new(Spawner(core.clone())), handle, _local: local })
    }
}

impl iscsi::Host for Face {
    fn accounts(&self, _: &Ends) -> Rc<dyn Accounts> {
        Rc::new(Everybody)
    }

    fn enter(&self, session: &Session, _: &Ends) -> std::result::Result<Rc<Nexus>, LoginStatus> {
        let initiator = transport_id::iscsi(&session.initiator, session.isid);
        let id = NexusId::new(initiator.ok_or(LoginStatus::INITIATOR_ERROR)?, PortId(1));
        let port = TargetPort { protocol: Protocol::ISCSI, device_name: TARGET.to_owned() };
        let nexus = Nexus::new(id.clone(), port, self.env.clone());
        let settings = scsi::Settings {
            kind: Kind::Disk,
            removable: false,
            read_only: false,
            tasks_max: TASKS_MAX,
        };
        let attentions = self.handle.attentions(AttentionSet::NONE);
        let unit = Unit::new(id, self.handle.clone(), attentions, settings);
        nexus.map(0, unit).map_err(|_| LoginStatus::TARGET_ERROR)?;
        nexus.told_luns();
        Ok(nexus)
    }

    fn leave(&self, nexus: Rc<Nexus>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            nexus.lose(true).await;
        })
    }

    /// What goes wrong is told; a benchmark whose sessions end measures nothing.
    fn notice(&self, notice: Notice) {
        if let Notice::Ended { why, .. } = notice
            && !matches!(why, Why::Closed | Why::Protocol(Ended::Logout { .. }))
        {
            eprintln!("a session ended: {why}");
        }
    }
}

struct Everybody;

impl Accounts for Everybody {
    fn authentication(
        &self,
        _: &str,
        _: Option<&str>,
    ) -> std::result::Result<Authentication, Refusal> {
        Ok(Authentication::None)
    }

    fn targets(&self, _: &str) -> Vec<TargetRecord> {
        Vec::new()
    }
}
