//! vhost-user-scsi on the data plane: SCSI hosts of guests, with LUs at their LUNs.
//!
//! | what | one per | file |
//! |---|---|---|
//! | [`VhostScsi`]: the adapters, what is at their LUNs, and their doors | node | here |
//! | [`CoreHost`]: the nexuses of adapters | core | `host` |
//!
//! An adapter has its LUNs from the first one on, and lets its guest in when it is told to listen:
//! a guest that goes on after a restart must find all of them.

mod host;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use front::vhost_user::{Adapter, Enter, Info, Scsi, Spec, Units, add_units};
use model::{AdapterId, ApiError, MappingId};
use rt::Remote;
use target::lun::Change;
use target::scsi::Settings;
use uuid::Uuid;

use super::everywhere::Everywhere;
use super::notices::Notices;
use super::units;
use crate::engine::{AdapterStatus, Context, Reporter};
use crate::socket::{self, SocketSpec};
use host::{CoreHost, nexus_id};

/// Commands that a nexus may have at one LU.
pub(super) const TASKS_MAX: u32 = 256;

/// Request queues that a guest may use: QEMU makes as many as the guest has CPUs.
const QUEUES_MAX: u16 = 128;

/// Everything of vhost-user-scsi on a node.
pub(super) struct VhostScsi {
    cores: Vec<Remote>,
    units: Arc<units::Units>,
    hosts: Everywhere<CoreHost>,
    report: Reporter,
    /// Adapters take turns in where their first queue lives.
    next_home: AtomicUsize,
    adapters: Mutex<BTreeMap<AdapterId, Luns>>,
}

/// An adapter.
#[derive(Default)]
struct Luns {
    devices: BTreeMap<u16, Uuid>,
    door: Option<Arc<Door>>,
}

/// An adapter that listens.
struct Door {
    adapter: Adapter<Scsi>,
    socket: SocketSpec,
    notices: Arc<Notices>,
}

/// What is asked of the units that are to be shown.
#[derive(Clone)]
pub(super) struct Shown {
    pub device: Uuid,
    pub settings: Settings,
}

impl VhostScsi {
    pub fn new(context: &Context, cores: &[Remote], units: Arc<units::Units>) -> Self {
        let hosts = Everywhere::beside(units.handles(), |handles| {
            let host = CoreHost::new(handles);
            (host.core().clone(), host)
        });
        Self {
            cores: cores.to_vec(),
            units,
            hosts,
            report: context.report.clone(),
            next_home: AtomicUsize::new(0),
            adapters: Mutex::default(),
        }
    }

    fn adapters(&self) -> MutexGuard<'_, BTreeMap<AdapterId, Luns>> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self, id: &AdapterId) -> Option<Arc<Door>> {
        self.adapters().get(id)?.door.clone()
    }

    /// Is this an adapter of ours?
    pub fn has(&self, id: &AdapterId) -> bool {
        self.adapters().contains_key(id)
    }

    /// Shows what has an owner and handles already at a LUN.
    pub async fn open(&self, id: &MappingId, shown: Shown) -> Result<(), ApiError> {
        let (adapter, number) = (&id.adapter, id.lun);
        let is_open = |known: &Luns| known.devices.contains_key(&number);
        if self.adapters().get(adapter).is_some_and(is_open) {
            return Ok(());
        }
        let device = shown.device;
        let first = &self.hosts.each()[0];
        let shared = first.call(async move |host| host.shared(device)).await.flatten();
        let not_owned = || ApiError::failed(format!("device {device} has no owner"));
        let shared = shared.ok_or_else(not_owned)?;
        let of = adapter.clone();
        // Whoever is let in later has seen no other list of LUNs.
        let is_new = self.door(adapter).is_none();
        let mapped = self.hosts.call(move |host| {
            let is_mapped = host.map((&of, number), is_new, shown.clone(), shared.clone());
            async move { is_mapped }
        });
        if mapped.await.contains(&Some(false)) {
            return Err(ApiError::failed(format!("LUN {number} of adapter {adapter} is taken")));
        }
        let door = {
            let mut adapters = self.adapters();
            let luns = adapters.entry(adapter.clone()).or_default();
            luns.devices.insert(number, device);
            luns.door.clone()
        };
        if let Some(door) = door {
            door.adapter.plugged(number).await;
        }
        Ok(())
    }

    /// Lets the guest in.
    pub async fn listen(&self, id: &AdapterId, socket: &SocketSpec) -> Result<(), ApiError> {
        if self.door(id).is_some() {
            return Ok(());
        }
        let listener = socket::bind(socket)?;
        let notices = Arc::new(Notices::of_adapter(id.clone(), self.report.clone()));
        let (hosts, of) = (self.hosts.clone(), id.clone());
        let enter: Enter = Box::new(move |core| {
            let host = hosts.each().iter().find_map(|host| host.here(core));
            host.expect("every core that serves has a host").nexus(&of)
        });
        let spec = Spec {
            name: id.to_string(),
            cores: self.cores.clone(),
            observer: notices.clone(),
            device: Scsi { queues: QUEUES_MAX, enter },
        };
        let home = self.next_home.fetch_add(1, Ordering::Relaxed) % self.cores.len();
        let started = Adapter::start(&self.cores[home], listener, spec).await;
        let started = started.unwrap_or_else(|| Err(std::io::Error::other("its core ended")));
        let adapter = started
            .map_err(|error| ApiError::failed(format!("adapter {id} cannot be served: {error}")))?;
        let door = Arc::new(Door { adapter, socket: socket.clone(), notices });
        if let Some(luns) = self.adapters().get_mut(id) {
            luns.door = Some(door);
        }
        Ok(())
    }

    /// Takes a LUN away: what runs there is ended, and the guest is told. With the last one the
    /// door closes. Says what was counted of devices, if it did.
    pub async fn close(&self, id: &MappingId) -> Units {
        let (adapter, number) = (&id.adapter, id.lun);
        let (device, door) = {
            let mut adapters = self.adapters();
            let Some(luns) = adapters.get_mut(adapter) else { return Units::new() };
            let device = luns.devices.remove(&number);
            let is_last = luns.devices.is_empty();
            let door = luns.door.clone();
            if is_last {
                adapters.remove(adapter);
            }
            (device, door.map(|door| (door, is_last)))
        };
        let mut counted = Units::new();
        if let Some((door, true)) = &door {
            counted = self.shut(door).await;
        }
        let of = adapter.clone();
        self.hosts.call(move |host| host.unmap(of.clone(), number)).await;
        if let Some((door, false)) = &door {
            door.adapter.unplugged(number).await;
        }
        if let Some(device) = device {
            // What cannot be told to an owner that has ended is over with it.
            let lost = Change::NexusLost { nexus: nexus_id(adapter), tell: true };
            drop(self.units.change(device, lost).await);
        }
        if !self.has(adapter) {
            let of = adapter.clone();
            self.hosts
                .call(move |host| {
                    host.forget(&of);
                    async {}
                })
                .await;
        }
        counted
    }

    async fn shut(&self, door: &Door) -> Units {
        // Nobody new finds the socket; who is connected is served to the end.
        let _ = crate::world::remove_file(&door.socket.path);
        door.adapter.close().await;
        let info = door.adapter.info().await.unwrap_or_default();
        counted(&info)
    }

    /// The adapters that listen, with their sessions.
    pub async fn statuses(&self) -> BTreeMap<AdapterId, AdapterStatus> {
        let mut statuses = BTreeMap::new();
        for (id, door) in self.doors() {
            let info = door.adapter.info().await.unwrap_or_default();
            statuses.insert(id, super::adapter_status(&door.notices, info));
        }
        statuses
    }

    /// What was counted, by device. All adapters are asked before this returns.
    pub fn stats(&self) -> impl Future<Output = Units> + use<> {
        let asked: Vec<_> = self.doors().iter().map(|(_, door)| door.adapter.info()).collect();
        async move {
            let mut all = Units::new();
            for info in asked {
                add_units(&mut all, &counted(&info.await.unwrap_or_default()));
            }
            all
        }
    }

    fn doors(&self) -> Vec<(AdapterId, Arc<Door>)> {
        let adapters = self.adapters();
        adapters.iter().filter_map(|(id, luns)| Some((id.clone(), luns.door.clone()?))).collect()
    }

    /// Ends every session, and waits until nothing of them runs.
    pub async fn stop(&self) {
        for (_, door) in self.doors() {
            self.shut(&door).await;
        }
    }
}

/// All that an adapter has counted.
fn counted(info: &Info) -> Units {
    let mut units = info.past_units.clone();
    for queue in info.session.iter().flat_map(|session| &session.queues) {
        add_units(&mut units, &queue.units);
    }
    units
}
