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
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::MappingSpec;
use front::iscsi::{Door, Place, Server, Sessions, Settings};
use model::reservation::Reservations;
use model::status::{AdapterState, IscsiSession};
use model::{AdapterId, ApiError, MappingId};
use rt::net::Address;
use rt::sync::{Answer, Reply, reply};
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
    /// LUs whose state is just being made, with who waits for it.
    making: BTreeMap<Uuid, Vec<Answer<()>>>,
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
        self.own(lu).await?;
        let lun = Lun {
            device: mapping.device,
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
        let asked = self.everywhere(|host| async move { host.sessions() }).await;
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
        self.everywhere(move |host| async move { host.forget(uuid) }).await;
    }

    /// Sees to it that an LU has a shared state. It may be mapped to two clients at once, and must
    /// have one owner all the same: the second waits for what the first makes.
    async fn own(&self, lu: &Lu) -> Result<(), ApiError> {
        let uuid = lu.spec.uuid;
        loop {
            match self.claim(uuid) {
                Claim::Owned => return Ok(()),
                Claim::Ours => break,
                // Whether it was made is looked at again.
                Claim::Others(settled) => drop(settled.await),
            }
        }
        let made = self.make(lu).await;
        let mut shown = self.shown();
        let waiting = shown.making.remove(&uuid).unwrap_or_default();
        let done = made.map(|owner| drop(shown.owners.insert(uuid, owner)));
        drop(shown);
        waiting.into_iter().for_each(|waiting| waiting.give(()));
        done
    }

    fn claim(&self, uuid: Uuid) -> Claim {
        let mut shown = self.shown();
        if shown.owners.contains_key(&uuid) {
            return Claim::Owned;
        }
        match shown.making.entry(uuid) {
            Entry::Vacant(entry) => {
                entry.insert(Vec::new());
                Claim::Ours
            }
            Entry::Occupied(mut waiting) => {
                let (answer, settled) = reply();
                waiting.get_mut().push(answer);
                Claim::Others(settled)
            }
        }
    }

    /// Makes the shared state of an LU, and a handle on every core, before anybody can change it.
    async fn make(&self, lu: &Lu) -> Result<Arc<Placed<Owner>>, ApiError> {
        let uuid = lu.spec.uuid;
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
        let (store, way) = (lu.store.clone(), owner.clone());
        let held = self.everywhere(move |host| {
            let handle = (store.clone(), identity.clone(), view.clone(), way.clone());
            async move { host.hold(uuid, handle) }
        });
        match held.await.into_iter().all(|done| done.is_some()) {
            true => Ok(owner),
            false => Err(ended()),
        }
    }

    async fn install(&self, targets: Arc<Targets>) {
        self.everywhere(move |host| host.install(targets.clone())).await;
    }

    /// Runs something on every core: all are asked before the first answer is waited for. A core
    /// that has ended answers nothing.
    async fn everywhere<R, F>(
        &self,
        f: impl Fn(Rc<CoreHost>) -> F + Clone + Send + 'static,
    ) -> Vec<Option<R>>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        let asked: Vec<_> = self.hosts.iter().map(|host| host.call(f.clone())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await);
        }
        answers
    }
}

/// Who makes the shared state of an LU.
enum Claim {
    /// It is there.
    Owned,
    Ours,
    /// Somebody else, who will have done it, or failed to.
    Others(Reply<()>),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
