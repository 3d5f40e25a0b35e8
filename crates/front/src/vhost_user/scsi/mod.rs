//! A SCSI host: LUNs behind one nexus, which come and go while the guest runs.
//!
//! | what | where |
//! |---|---|
//! | request queues, on all cores | `request` |
//! | task management, notifications asked for | `control` |
//! | what happens at LUNs, told to the driver | `events` |
//! | the order of commands on different cores | `order` |
//!
//! The nexus of an adapter is one [`Nexus`] on each core, made by whoever makes the adapter, who
//! also maps LUNs there and then says so with [`Adapter::plugged`]. All of them share attentions;
//! each has a task set of its own, which SIMPLE commands share with nobody. ORDERED, HEAD OF QUEUE
//! and ACA mean what they say among the commands of all cores, because whoever maps LUNs has
//! [`join`]ed their sets: such a command is announced to the other cores before it begins.
//!
//! The control and the event queue live at home, the first request queue on the core after it. The
//! in-flight area covers all of them. After a restart, what is found on a request queue runs again
//! if that does no harm (`request`); task management is not carried out again, because the tasks
//! that it is about are not back yet (`control`); buffers for events are filled when there is
//! something to tell.

mod control;
mod events;
mod order;
mod request;

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::stats::OpStats;
use rt::Core;
use rt::sync::Reply;
use target::lun::Listener;
use target::lun::attention::{AttentionSet, MediumEvents};
use target::scsi::{Nexus, Unit};
use target::virtio_scsi::{Events, Happening, Host, Settings, Sizes, Subscriptions};
use wire::scsi::LogicalUnitNumber;
use wire::virtio::scsi::{CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, feature};
use zerocopy::IntoBytes;

use super::adapter::Adapter;
use super::kind::{Face, Function, FunctionSetup, Kind, Units};
use super::queue::Queue;
use super::ring::{Buffers, Chain};
use super::session::{SEG_MAX, Session};
use control::ControlQueue;
use events::EventQueue;
pub use order::join;
use request::RequestQueue;

/// Commands that a driver is told to have at one LUN at most.
const TASKS_AT_LUN: u32 = 128;

/// The nexus of an adapter on a core: the same one each time.
pub type Enter = Box<dyn Fn(&Core) -> Rc<Nexus> + Send + Sync>;

/// A SCSI host to serve.
pub struct Scsi {
    /// Request queues.
    pub queues: u16,
    pub enter: Enter,
}

/// What the queues of a session share.
#[derive(Default)]
pub struct Shared {
    /// Functions under way that abort tasks for the driver itself.
    aborting: AtomicU32,
    subscriptions: Mutex<Subscriptions>,
}

/// The host of one session.
pub struct ScsiFace {
    host: Host,
    nexus: Rc<Nexus>,
    shared: Arc<Shared>,
    listeners: BTreeMap<u16, Rc<Ear>>,
}

/// A queue of one of three kinds.
pub enum ScsiQueue {
    Request(RequestQueue),
    Control(ControlQueue),
    Event(EventQueue),
}

#[derive(Clone)]
pub struct ScsiRules {
    sizes: Sizes,
    shared: Arc<Shared>,
}

impl Shared {
    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Adapter<Scsi> {
    /// There is a unit at a LUN now, on every core.
    pub fn plugged(&self, number: u16) -> Reply<()> {
        self.with_session(move |session| {
            session.listen_to(number);
            session.tell(move |events| events.post(number, Happening::Plugged));
        })
    }

    /// There is none any more, on any core.
    pub fn unplugged(&self, number: u16) -> Reply<()> {
        self.with_session(move |session| {
            let mut face = session.face().borrow_mut();
            face.listeners.remove(&number);
            face.shared.subscriptions().forget(number);
            drop(face);
            session.tell(move |events| events.post(number, Happening::Unplugged));
        })
    }
}

impl Session<Scsi> {
    /// Tells the driver. False: it has no event queue.
    fn tell(&self, what: impl FnOnce(&mut Events) + Send + 'static) -> bool {
        let Some(queue) = self.queue(EVENT_QUEUE) else { return false };
        // It is told in its turn; nobody waits for that.
        drop(queue.call(move |queue| async move {
            if let ScsiQueue::Event(events) = queue.function() {
                events.add(&queue, what);
            }
        }));
        true
    }

    /// Hears of what happens at a LUN.
    fn listen_to(self: &Rc<Self>, number: u16) {
        let mut face = self.face().borrow_mut();
        let Some(unit) = face.nexus.unit_at(LogicalUnitNumber::new(number).0) else { return };
        let session = Rc::downgrade(self);
        let ear = Rc::new(Ear { session, number, unit: Rc::downgrade(&unit) });
        let listener: Rc<dyn Listener> = ear.clone();
        unit.member().set_listener(Rc::downgrade(&listener));
        face.listeners.insert(number, ear);
    }
}

/// Hears what one unit tells the nexus.
struct Ear {
    session: Weak<Session<Scsi>>,
    number: u16,
    unit: Weak<Unit>,
}

impl Listener for Ear {
    fn told(&self, what: AttentionSet, medium: MediumEvents) {
        let (Some(session), Some(unit)) = (self.session.upgrade(), self.unit.upgrade()) else {
            return;
        };
        let wanted = session.face().borrow().shared.subscriptions().wanted(self.number);
        for happening in Happening::of(unit.kind(), wanted, what, medium) {
            let number = self.number;
            session.tell(move |events| events.post(number, happening));
        }
    }
}

impl Kind for Scsi {
    type Face = ScsiFace;
    type Function = ScsiQueue;

    const FEATURE_NAMES: &'static [(u64, &'static str)] =
        &[(feature::HOTPLUG, "hotplug"), (feature::CHANGE, "change")];

    fn ring_count(&self) -> u16 {
        FIRST_REQUEST_QUEUE + self.queues
    }

    fn face(&self, core: &Core) -> ScsiFace {
        let settings =
            Settings { queue_count: self.queues, seg_max: SEG_MAX, tasks_max: TASKS_AT_LUN };
        ScsiFace {
            host: Host::new(settings),
            nexus: (self.enter)(core),
            shared: Arc::default(),
            listeners: BTreeMap::new(),
        }
    }

    fn function(setup: FunctionSetup<'_, Self>) -> ScsiQueue {
        match setup.index {
            CONTROL_QUEUE => ScsiQueue::Control(ControlQueue::new(setup)),
            EVENT_QUEUE => ScsiQueue::Event(EventQueue::default()),
            _ => ScsiQueue::Request(RequestQueue::new(setup)),
        }
    }

    fn turn_of(index: u16) -> usize {
        usize::from(index.saturating_sub(EVENT_QUEUE))
    }

    async fn attend(session: Weak<Session<Self>>) {
        let Some(session) = session.upgrade() else { return };
        let units = session.face().borrow().nexus.units();
        units.into_iter().for_each(|(number, _)| session.listen_to(number));
    }

    /// LUNs may have come and gone: the driver looks at all of them.
    fn resumed(session: &Session<Self>) -> bool {
        session.tell(Events::miss)
    }

    /// What the driver held is given back, as at the end of a session of any transport. Linux takes
    /// whatever a drive tells for another medium, so who cannot have lost anything is told nothing.
    async fn leave(session: &Session<Self>, may_come_back: bool) {
        let nexus = session.face().borrow().nexus.clone();
        nexus.lose(may_come_back).await;
    }
}

impl Face for ScsiFace {
    type Rules = ScsiRules;

    fn features(&self) -> u64 {
        self.host.features()
    }

    fn set_features(&mut self, _: u64) {}

    fn config(&self) -> Vec<u8> {
        self.host.config().as_bytes().to_vec()
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), String> {
        self.host.write_config(offset, bytes).map_err(|error| error.to_string())
    }

    fn reset(&mut self) {
        self.host.reset();
        *self.shared.subscriptions() = Subscriptions::default();
    }

    fn rules(&self) -> ScsiRules {
        ScsiRules { sizes: self.host.sizes(), shared: self.shared.clone() }
    }
}

impl Function for ScsiQueue {
    type Rules = ScsiRules;
    type Slot = ();

    #[inline]
    fn begin(&self, queue: &Queue<Self>, chain: Chain, buffers: &Buffers, again: bool) {
        match self {
            Self::Request(requests) => requests.begin(queue, chain, buffers, again),
            Self::Control(control) => control.begin(queue, chain, buffers, again),
            Self::Event(events) => events.begin(queue, chain, buffers),
        }
    }

    fn set_rules(&self, rules: ScsiRules) {
        if let Self::Request(requests) = self {
            requests.set_rules(rules);
        }
    }

    fn hasten(&self) {
        if let Self::Request(requests) = self {
            requests.hasten();
        }
    }

    fn stats(&self) -> Vec<OpStats> {
        match self {
            Self::Request(requests) => requests.stats(),
            Self::Control(_) | Self::Event(_) => Vec::new(),
        }
    }

    fn units(&self) -> Units {
        match self {
            Self::Request(requests) => requests.units(),
            Self::Control(_) | Self::Event(_) => Units::new(),
        }
    }

    #[inline]
    fn wants_more(&self) -> bool {
        match self {
            Self::Request(_) | Self::Control(_) => true,
            Self::Event(events) => events.has_news(),
        }
    }
}
