//! iSCSI on the data plane: a server on every core, a door for each address, and what they show.
//!
//! | what | one per | file |
//! |---|---|---|
//! | [`Targets`]: who may log in where and sees what, an immutable snapshot | node | `targets` |
//! | [`CoreHost`]: live sessions, and the handles of LUs | core | `host` |
//! | [`Owner`]: the shared state of an LU, and the way of its changes | LU | `owner` |
//!
//! A change of what is shown is a new snapshot, brought to every core; the newest one wins, so none
//! has to wait for another.

mod host;
mod owner;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::MappingSpec;
use front::iscsi::{Door, Place, Server, Sessions, Settings};
use model::reservation::Reservations;
use model::status::{AdapterState, IscsiSession};
use model::{AdapterId, ApiError, MappingId};
use rt::net::Address;
use rt::{Placed, Remote};
use target::lun::{Change, Identity};
use uuid::Uuid;

use super::Lu;
use crate::engine::{AdapterStatus, Context};
use host::CoreHost;
use owner::Owner;
use targets::{Lun, Targets};

/// The target port of the node, and its portal group: there is one of each.
const PORT: u16 = 1;

/// Everything of iSCSI on a node.
pub(super) struct Iscsi {
    cores: Vec<Remote>,
    hosts: Vec<Arc<Placed<CoreHost>>>,
    /// They listen for as long as they are here.
    doors: Vec<Placed<Door>>,
    portals: Vec<SocketAddr>,
    sessions: Arc<Sessions>,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    targets: Arc<Targets>,
    /// LUs that have a shared state, because they were mapped.
    owners: BTreeMap<Uuid, Arc<Placed<Owner>>>,
}

impl Iscsi {
    /// Opens the doors. An address that cannot be listened on is an error with the address.
    pub fn start(
        context: &Context,
        cores: &[Remote],
    ) -> Result<Self, (SocketAddr, std::io::Error)> {
        let sessions = Arc::new(Sessions::default());
        let mut hosts = Vec::new();
        let mut places = Vec::new();
        for remote in cores {
            let (sessions, report) = (sessions.clone(), context.report.clone());
            let placed = remote.call(move |core| async move {
                let host = CoreHost::new(&core, report);
                let settings = Settings { portal_group_tag: PORT, ..Settings::default() };
                let server = Server::new(&core, host.clone(), sessions, settings);
                let count = server.count();
                let place: Place = (Arc::new(Placed::new(&core, server)), count);
                (Arc::new(Placed::new(&core, host)), place)
            });
            // A core that ended at once has said why already.
            let Some((host, place)) = placed.wait() else { continue };
            hosts.push(host);
            places.push(place);
        }
        let shown = Mutex::default();
        let cores = cores.to_vec();
        let (doors, portals) = (Vec::new(), Vec::new());
        let mut iscsi = Self { cores, hosts, doors, portals, sessions, shown };
        for &address in &context.iscsi {
            iscsi.listen(address, places.clone()).map_err(|error| (address, error))?;
        }
        iscsi.shown().targets = Arc::new(Targets::new(iscsi.portals.clone()));
        Ok(iscsi)
    }

    fn listen(&mut self, address: SocketAddr, places: Vec<Place>) -> std::io::Result<()> {
        let opened = self.cores[0].call(move |core| async move {
            let door = Door::open(&core, &Address::Tcp(address), places)?;
            let at = door.address().clone();
            Ok((Placed::new(&core, std::rc::Rc::new(door)), at))
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
        self.own(lu).await?;
        let lun = Lun {
            device: mapping.device,
            lu: lu.spec.name.clone(),
            read_only: mapping.read_only || lu.spec.read_only,
            removable: lu.spec.removable,
        };
        let targets = {
            let mut shown = self.shown();
            shown.targets = Arc::new(shown.targets.with(&mapping.id, spec, lun));
            shown.targets.clone()
        };
        self.install(targets).await;
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
        self.sessions.end(|_, target| targets.get(target).is_none());
    }

    /// Is this an adapter of ours?
    pub fn has(&self, id: &AdapterId) -> bool {
        self.shown().targets.all().any(|(_, target)| target.adapter == *id)
    }

    /// The adapters with their live sessions.
    pub async fn adapters(&self) -> BTreeMap<AdapterId, AdapterStatus> {
        let ask = |host: &Arc<Placed<CoreHost>>| host.call(|host| async move { host.sessions() });
        let asked: Vec<_> = self.hosts.iter().map(ask).collect();
        let targets = self.shown().targets.clone();
        let none = |target: &targets::Target| (target.adapter.clone(), Vec::new());
        let mut adapters: BTreeMap<_, Vec<_>> = targets.all().map(|(_, it)| none(it)).collect();
        for sessions in asked {
            for (adapter, session) in sessions.await.unwrap_or_default() {
                adapters.entry(adapter).or_default().push(session);
            }
        }
        let status = |sessions: Vec<IscsiSession>| {
            let is_idle = sessions.is_empty();
            let state = if is_idle { AdapterState::Listening } else { AdapterState::Running };
            AdapterStatus { state, session: None, sessions, problem: None }
        };
        adapters.into_iter().map(|(id, sessions)| (id, status(sessions))).collect()
    }

    /// Ends every session, and waits until nothing of them runs.
    pub async fn stop(&self) {
        let targets = {
            let mut shown = self.shown();
            shown.targets = Arc::new(shown.targets.empty());
            shown.targets.clone()
        };
        self.install(targets).await;
        self.sessions.end(|_, _| true);
    }

    pub async fn reservations(&self) -> BTreeMap<Uuid, Reservations> {
        let owners = self.shown().owners.clone();
        let asked: Vec<_> = owners
            .iter()
            .map(|(uuid, owner)| (*uuid, owner.call(|owner| async move { owner.reservations() })))
            .collect();
        let mut all = BTreeMap::new();
        for (uuid, reservations) in asked {
            all.extend(reservations.await.map(|it| (uuid, it)));
        }
        all
    }

    pub async fn clear_reservations(&self, uuid: Uuid) -> Result<(), ApiError> {
        let owner = self.shown().owners.get(&uuid).cloned();
        let Some(owner) = owner else { return Ok(()) };
        let cleared = owner.call(|owner| owner.change(Change::ClearReservations));
        match cleared.await {
            Some(Ok(_)) => Ok(()),
            Some(Err(refusal)) => Err(ApiError::failed(refusal.to_string())),
            None => Err(ApiError::failed("the core that owns the LU's state has ended")),
        }
    }

    /// The device is closed: nothing maps it any more.
    pub async fn forget(&self, uuid: Uuid) {
        let owner = self.shown().owners.remove(&uuid);
        if owner.is_none() {
            return;
        }
        let asked: Vec<_> = self
            .hosts
            .iter()
            .map(|host| host.call(move |host| async move { host.forget(uuid) }))
            .collect();
        for done in asked {
            done.await;
        }
    }

    /// Makes the shared state of an LU, and a handle on every core, before anybody can change it.
    async fn own(&self, lu: &Lu) -> Result<(), ApiError> {
        let uuid = lu.spec.uuid;
        if self.shown().owners.contains_key(&uuid) {
            return Ok(());
        }
        let (hosts, store, cache) = (self.hosts.clone(), lu.store.clone(), lu.spec.cache);
        let home = &self.cores[uuid.as_u128() as usize % self.cores.len()];
        let made = home.call(move |core| async move {
            let owner = Owner::new(&core, uuid, (store, cache), hosts);
            let view = owner.view();
            (Arc::new(Placed::new(&core, owner)), view)
        });
        let ended = || ApiError::failed("the core that owns the LU's state has ended");
        let (owner, view) = made.await.ok_or_else(ended)?;
        let identity =
            Identity { uuid: uuid.into_bytes(), serial: lu.spec.serial.clone(), company: None };
        let asked: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                let (store, view) = (lu.store.clone(), view.clone());
                let (identity, owner) = (identity.clone(), owner.clone());
                host.call(move |host| async move { host.hold(uuid, store, identity, view, owner) })
            })
            .collect();
        for done in asked {
            done.await.ok_or_else(ended)?;
        }
        self.shown().owners.insert(uuid, owner);
        Ok(())
    }

    async fn install(&self, targets: Arc<Targets>) {
        let asked: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                let targets = targets.clone();
                host.call(move |host| host.install(targets))
            })
            .collect();
        for done in asked {
            done.await;
        }
    }
}
