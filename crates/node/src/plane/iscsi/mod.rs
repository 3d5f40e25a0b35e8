//! iSCSI on the data plane: a server on every core, a door for each address, and what they show.
//!
//! | what | one per | file |
//! |---|---|---|
//! | [`Targets`]: who may log in where and sees what, an immutable snapshot | node | `targets` |
//! | [`CoreHost`]: live sessions | core | `host` |
//! | [`Guard`]: who was wrong too often | node | `guard` |
//!
//! A change of what is shown is a new snapshot, brought to every core; the newest one wins, so none
//! has to wait for another.

mod guard;
mod host;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::MappingSpec;
use front::iscsi::{Door, Farewell, Place, Server, Sessions, Settings};
use model::status::{AdapterState, IscsiSession};
use model::{AdapterId, ApiError, MappingId};
use rt::net::Address;
use rt::{Placed, Remote};

use super::Lu;
use super::everywhere::Everywhere;
use super::units::{ISCSI_PORT, Units};
use crate::engine::{AdapterStatus, Context};
use guard::Guard;
use host::CoreHost;
use targets::{Lun, Targets};

/// Everything of iSCSI on a node.
pub(super) struct Iscsi {
    units: Arc<Units>,
    hosts: Everywhere<CoreHost>,
    /// They listen for as long as they are here.
    doors: Vec<Placed<Door>>,
    portals: Vec<SocketAddr>,
    sessions: Arc<Sessions>,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    targets: Arc<Targets>,
}

impl Iscsi {
    /// Opens the doors. An address that cannot be listened on is an error with the address.
    pub fn start(
        context: &Context,
        cores: &[Remote],
        units: Arc<Units>,
    ) -> Result<Self, (SocketAddr, std::io::Error)> {
        let sessions = Arc::new(Sessions::default());
        let (report, guard) = (context.report.clone(), Arc::<Guard>::default());
        let hosts = Everywhere::beside(units.handles(), move |handles| {
            let core = handles.core().clone();
            (core, CoreHost::new(handles, guard.clone(), report.clone()))
        });
        let beside = sessions.clone();
        let servers = hosts.each().iter().filter_map(|host| {
            let sessions = beside.clone();
            let place = host.call(async move |host| {
                let settings = Settings { portal_group_tag: ISCSI_PORT, ..Settings::default() };
                let core = host.core().clone();
                let server = Server::new(&core, host, sessions, settings);
                let count = server.count();
                (Arc::new(Placed::new(&core, server)), count)
            });
            place.wait()
        });
        let places: Vec<Place> = servers.collect();
        let (doors, portals, shown) = (Vec::new(), Vec::new(), Mutex::default());
        let mut iscsi = Self { units, hosts, doors, portals, sessions, shown };
        for &address in &context.iscsi {
            iscsi.listen(&cores[0], address, places.clone()).map_err(|error| (address, error))?;
        }
        iscsi.shown().targets = Arc::new(Targets::new(iscsi.portals.clone()));
        Ok(iscsi)
    }

    fn listen(
        &mut self,
        home: &Remote,
        address: SocketAddr,
        places: Vec<Place>,
    ) -> std::io::Result<()> {
        let opened = home.call(move |core| async move {
            let door = Door::open(&core, &Address::Tcp(address), places)?;
            let at = door.address().clone();
            Ok((Placed::new(&core, Rc::new(door)), at))
        });
        let ended = || Err(std::io::Error::other("its core ended"));
        let (door, at): (_, Address) = opened.wait().unwrap_or_else(ended)?;
        self.doors.push(door);
        if let Address::Tcp(at) = at {
            self.portals.push(at);
        }
        Ok(())
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn portals(&self) -> Vec<SocketAddr> {
        self.portals.clone()
    }

    /// Shows an LU at a LUN.
    pub async fn open(&self, mapping: &MappingSpec, lu: &Lu) -> Result<(), ApiError> {
        let Some(spec) = &mapping.iscsi else {
            return Err(ApiError::failed(format!("mapping {} names no target", mapping.id)));
        };
        self.units.own(lu.into()).await?;
        let lun = Lun {
            device: mapping.device,
            kind: lu.kind,
            read_only: mapping.read_only || lu.spec.read_only,
            removable: lu.spec.removable,
        };
        let (before, targets) = {
            let mut shown = self.shown();
            let next = Arc::new(shown.targets.with(&mapping.id, spec, lun));
            (std::mem::replace(&mut shown.targets, next.clone()), next)
        };
        self.install(targets.clone()).await;
        let asked = |of: &Targets| of.get(&spec.target)?.asks_to_leave().cloned();
        let asks = asked(&targets);
        if asks.is_some() && asks != asked(&before) {
            // New ones find the redirection, so nobody comes back.
            self.sessions.end(Farewell::Logout, |_, target| target == spec.target);
        }
        Ok(())
    }

    /// Takes a LUN away: what runs there is ended, and with the last one its target's sessions.
    pub async fn close(&self, id: &MappingId) {
        let targets = {
            let mut shown = self.shown();
            shown.targets = Arc::new(shown.targets.without(id));
            shown.targets.clone()
        };
        self.install(targets.clone()).await;
        self.sessions.end(Farewell::Drop, |_, target| targets.get(target).is_none());
    }

    /// Is this an adapter of ours?
    pub fn has(&self, id: &AdapterId) -> bool {
        self.shown().targets.all().any(|(_, target)| target.adapter == *id)
    }

    /// The adapters with their live sessions.
    pub async fn adapters(&self) -> BTreeMap<AdapterId, AdapterStatus> {
        let asked = self.hosts.call(|host| async move { host.sessions() }).await;
        let targets = self.shown().targets.clone();
        let none = |target: &targets::Target| (target.adapter.clone(), Vec::new());
        let mut adapters: BTreeMap<_, Vec<_>> = targets.all().map(|(_, it)| none(it)).collect();
        for (adapter, session) in asked.into_iter().flatten().flatten() {
            adapters.entry(adapter).or_default().push(session);
        }
        let status = |sessions: Vec<IscsiSession>| {
            let is_idle = sessions.is_empty();
            let state = if is_idle { AdapterState::Listening } else { AdapterState::Running };
            AdapterStatus { state, session: None, sessions, problem: None }
        };
        adapters.into_iter().map(|(id, sessions)| (id, status(sessions))).collect()
    }

    /// Ends every session, and waits until nothing of them runs. Initiators are asked to log out
    /// first, so that what they have under way comes to its end.
    pub async fn stop(&self) {
        self.sessions.close();
        self.sessions.end(Farewell::Logout, |_, _| true);
        self.sessions.gone().await;
        let targets = {
            let mut shown = self.shown();
            shown.targets = Arc::new(shown.targets.empty());
            shown.targets.clone()
        };
        self.install(targets).await;
    }

    async fn install(&self, targets: Arc<Targets>) {
        self.hosts.call(move |host| host.install(targets.clone())).await;
    }
}
