//! One LU on one core: its device, who it is, the newest view, and the nexuses that use it here.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use block::Device;

use super::admit::Leaving;
use super::attention::{AttentionSet, Attentions};
use super::change::{Change, Refusal, Reply, Update};
use super::ledger::Ledger;
use super::member::Member;
use super::meter::Meter;
use super::nexus::NexusId;
use super::view::View;

/// Who an LU is, for life, on every node and through every protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uuid: [u8; 16],
    /// What people read; by default the UUID in hexadecimal digits.
    pub serial: String,
    /// The IEEE company id of the cluster, if it has one.
    pub company: Option<[u8; 3]>,
}

pub struct Handle {
    device: Rc<dyn Device>,
    identity: Identity,
    view: RefCell<Arc<View>>,
    ledger: Rc<dyn Ledger>,
    members: RefCell<Vec<Weak<Member>>>,
    meter: Meter,
}

/// Tasks that must leave before an update is in force on this core.
#[must_use = "an update is in force only when the tasks that it ends have left"]
#[derive(Default)]
pub struct Settled {
    leaving: Vec<(Rc<Member>, Leaving)>,
}

impl Handle {
    /// The handle must be made known to whoever brings updates before anybody else sees it.
    pub fn new(
        device: Rc<dyn Device>,
        identity: Identity,
        view: Arc<View>,
        ledger: Rc<dyn Ledger>,
    ) -> Rc<Self> {
        let view = RefCell::new(view);
        let (members, meter) = (RefCell::default(), Meter::default());
        Rc::new(Self { device, identity, view, ledger, members, meter })
    }

    /// A nexus begins to use the LU here. It is told of every update until its member is dropped.
    /// A nexus on several cores brings the same attentions to each.
    pub fn join(&self, nexus: NexusId, attentions: Arc<Attentions>, tasks_max: u32) -> Rc<Member> {
        let member = Rc::new(Member::new(nexus, attentions, tasks_max, &self.view.borrow()));
        let mut members = self.members.borrow_mut();
        members.retain(|it| it.strong_count() > 0);
        members.push(Rc::downgrade(&member));
        member
    }

    /// Attentions for a nexus that joins now.
    pub fn attentions(&self, first: AttentionSet) -> Arc<Attentions> {
        Arc::new(Attentions::new(first, self.view.borrow().version))
    }

    pub fn device(&self) -> &Rc<dyn Device> {
        &self.device
    }

    /// What was done at the device here.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Whether changes outlive the process.
    pub fn keeps(&self) -> bool {
        self.ledger.keeps()
    }

    /// Asks for a change; answered once every handle has it.
    pub fn change(&self, change: Change) -> Pin<Box<dyn Future<Output = Result<Reply, Refusal>>>> {
        self.ledger.change(change)
    }

    /// Takes an update over. One that is not newer than what is known is ignored, so that a handle
    /// made while an update was on its way is safe.
    pub fn install(&self, update: &Update) -> Settled {
        if update.view.version <= self.view.borrow().version {
            return Settled::default();
        }
        let former = self.view.replace(update.view.clone());
        let is_successor = former.epoch() != update.view.epoch();
        // Waking tasks may make members come and go.
        let members: Vec<Rc<Member>> =
            self.members.borrow().iter().filter_map(Weak::upgrade).collect();
        let install = |member: Rc<Member>| {
            let leaving = member.install(update, is_successor);
            (!leaving.is_empty()).then_some((member, leaving))
        };
        let settled = Settled { leaving: members.into_iter().filter_map(install).collect() };
        if !settled.leaving.is_empty() {
            self.device.hasten();
        }
        settled
    }
}

impl Settled {
    pub fn is_done(&self) -> bool {
        self.leaving.iter().all(|(member, leaving)| member.tasks().have_left(leaving))
    }

    pub async fn done(self) {
        for (member, leaving) in self.leaving {
            member.tasks().left(leaving).await;
        }
    }
}
