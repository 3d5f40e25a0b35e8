//! What the iSCSI connections of one core see: their sessions, and the handles of LUs there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use front::iscsi::{Ends, Host, Notice, Why};
use jiff::Timestamp;
use model::status::{IscsiConnection, IscsiSession, SessionIo};
use model::{AdapterId, Severity, Subject};
use proto::iscsi::{Accounts, Authentication, Ended, Refusal, Session, SessionKind, TargetRecord};
use rt::Core;
use rt::net::Address;
use target::lun::admit::{Aborted, Which};
use target::lun::attention::AttentionSet;
use target::lun::{NexusId, PortId};
use target::scsi::persist::transport_id;
use target::scsi::{Nexus, Settings, TargetPort, Unit};
use wire::iscsi::LoginStatus;
use wire::scsi::reservation::Protocol;

use super::super::spawner::Spawner;
use super::super::units::{Handles, ISCSI_PORT};
use super::guard::{self, Guard, PAUSE, REFUSED_BY_GUARD, Verdict};
use super::targets::{Book, Lun, Target, Targets};
use crate::engine::{Report, Reporter};
use crate::hex;
use crate::world::wall_clock;

/// Commands that a nexus may have at one LU.
const TASKS_MAX: u32 = 256;

pub(super) struct CoreHost {
    env: Rc<Spawner>,
    report: Reporter,
    book: Rc<Book>,
    guard: Arc<Guard>,
    handles: Rc<Handles>,
    live: RefCell<Vec<Rc<Live>>>,
}

/// A session that is logged in.
struct Live {
    adapter: AdapterId,
    target: String,
    session: Session,
    ends: Ends,
    since: Timestamp,
    nexus: Rc<Nexus>,
    /// What it sees.
    luns: RefCell<BTreeMap<u16, Lun>>,
}

/// What an initiator at one address is told: nothing, after it was wrong too often.
struct Visitor {
    book: Rc<Book>,
    guard: Arc<Guard>,
    core: Core,
    site: String,
    portal: Address,
}

impl Accounts for Visitor {
    fn authentication(
        &self,
        initiator: &str,
        target: Option<&str>,
    ) -> Result<Authentication, Refusal> {
        if !self.guard.admits(&self.site, initiator, guard::now(&self.core)) {
            return Err(Refusal::Status(REFUSED_BY_GUARD));
        }
        let authentication = self.book.authentication(initiator, target)?;
        // Before anything is proved, because libiscsi follows no later answer; what it tells is
        // known to everybody who sees the client log in.
        let moved = target.and_then(|it| self.book.targets().get(it)?.moved_from(&self.portal));
        moved.map_or(Ok(authentication), Err)
    }

    fn targets(&self, initiator: &str) -> Vec<TargetRecord> {
        Accounts::targets(&*self.book, initiator)
    }
}

impl CoreHost {
    pub fn new(handles: Rc<Handles>, guard: Arc<Guard>, report: Reporter) -> Rc<Self> {
        Rc::new(Self {
            env: Rc::new(Spawner(handles.core().clone())),
            report,
            book: Rc::default(),
            guard,
            handles,
            live: RefCell::default(),
        })
    }

    pub fn core(&self) -> &Core {
        &self.env.0
    }

    /// From now on this is what is seen. Done when nothing runs any more at LUNs that went.
    pub async fn install(self: Rc<Self>, targets: Arc<Targets>) {
        if !self.book.turn_to(targets) {
            return;
        }
        let live: Vec<Rc<Live>> = self.live.borrow().clone();
        for one in live {
            self.show(&one).await;
        }
    }

    /// Makes a session see what its target has.
    async fn show(&self, one: &Live) {
        let targets = self.book.targets();
        let wanted = targets.get(&one.target).map(|it| it.luns.clone()).unwrap_or_default();
        let shown = one.luns.replace(wanted.clone());
        for (number, _) in shown.iter().filter(|(number, lun)| wanted.get(number) != Some(lun)) {
            // What runs there is answered: its initiator has not asked for its end.
            let Some(unit) = one.nexus.unmap(*number) else { continue };
            let tasks = unit.member().tasks();
            unit.left(tasks.abort(Which::All, Aborted::WithStatus)).await;
        }
        for (number, lun) in wanted.iter().filter(|(number, lun)| shown.get(number) != Some(lun)) {
            self.map(&one.nexus, *number, lun);
        }
    }

    fn map(&self, nexus: &Nexus, number: u16, lun: &Lun) {
        let Some(handle) = self.handles.get(lun.device) else { return };
        let settings = Settings {
            kind: lun.kind,
            removable: lun.removable,
            read_only: lun.read_only,
            tasks_max: TASKS_MAX,
        };
        let attentions = handle.attentions(AttentionSet::NONE);
        let unit = Unit::new(nexus.id().clone(), handle, attentions, settings);
        // The model has a limit below the nexus's.
        let _ = nexus.map(number, unit);
    }

    pub fn sessions(&self) -> Vec<(AdapterId, IscsiSession)> {
        let view = |one: &Rc<Live>| {
            let traffic = one.nexus.traffic();
            let session = IscsiSession {
                initiator: one.session.initiator.clone(),
                isid: hex(one.session.isid),
                tsih: one.session.tsih,
                connections: vec![IscsiConnection {
                    cid: one.session.cid,
                    peer: one.ends.peer.to_string(),
                    portal: one.ends.portal.to_string(),
                }],
                since: one.since,
                parameters: Vec::new(),
                io: Some(SessionIo {
                    commands: traffic.commands(),
                    bytes_read: traffic.bytes_in(),
                    bytes_written: traffic.bytes_out(),
                }),
            };
            (one.adapter.clone(), session)
        };
        self.live.borrow().iter().map(view).collect()
    }

    fn nexus(&self, session: &Session, name: &str, target: &Target) -> Option<Rc<Nexus>> {
        let initiator = transport_id::iscsi(&session.initiator, session.isid)?;
        let id = NexusId::new(initiator, PortId(ISCSI_PORT));
        let port = TargetPort { protocol: Protocol::ISCSI, device_name: name.to_owned() };
        let nexus = Nexus::new(id, port, self.env.clone());
        for (number, lun) in &target.luns {
            self.map(&nexus, *number, lun);
        }
        // It has seen none of them before.
        nexus.told_luns();
        Some(nexus)
    }

    /// What the guard makes of the end of a connection.
    fn lock_out(&self, why: &Why, peer: &Address, initiator: &str) -> Verdict {
        let Why::Protocol(Ended::Refused { status, .. }) = why else { return Verdict::Tell };
        match *status {
            LoginStatus::AUTHENTICATION_FAILURE => {
                self.guard.failed(&guard::site(peer), initiator, guard::now(self.core()))
            }
            REFUSED_BY_GUARD => Verdict::Quiet,
            _ => Verdict::Tell,
        }
    }

    fn tell(&self, severity: Severity, kind: &'static str, message: String, next: Option<&str>) {
        let next = next.map(str::to_owned);
        (self.report)(Report { severity, subject: Subject::Node, kind, message, next });
    }
}

impl Host for CoreHost {
    fn accounts(&self, ends: &Ends) -> Rc<dyn Accounts> {
        Rc::new(Visitor {
            book: self.book.clone(),
            guard: self.guard.clone(),
            core: self.core().clone(),
            site: guard::site(&ends.peer),
            portal: ends.portal.clone(),
        })
    }

    fn enter(&self, session: &Session, ends: &Ends) -> Result<Rc<Nexus>, LoginStatus> {
        let SessionKind::Normal { target: name } = &session.kind else {
            return Err(LoginStatus::SESSION_TYPE_NOT_SUPPORTED);
        };
        let targets = self.book.targets();
        let target = targets.get(name).ok_or(LoginStatus::NOT_FOUND)?;
        let nexus = self.nexus(session, name, target).ok_or(LoginStatus::INITIATOR_ERROR)?;
        self.live.borrow_mut().push(Rc::new(Live {
            adapter: target.adapter.clone(),
            target: name.to_owned(),
            session: session.clone(),
            ends: ends.clone(),
            since: wall_clock(),
            nexus: nexus.clone(),
            luns: RefCell::new(target.luns.clone()),
        }));
        Ok(nexus)
    }

    fn leave(&self, nexus: Rc<Nexus>) -> Pin<Box<dyn Future<Output = ()>>> {
        self.live.borrow_mut().retain(|one| !Rc::ptr_eq(&one.nexus, &nexus));
        Box::pin(async move {
            nexus.lose(true).await;
        })
    }

    fn notice(&self, notice: Notice) {
        match notice {
            Notice::LoggedIn { session, ends } => {
                self.guard.succeeded(&guard::site(&ends.peer), &session.initiator);
                if let SessionKind::Normal { target } = session.kind {
                    let message =
                        format!("{} logged in to {target} from {}", session.initiator, ends.peer);
                    self.tell(Severity::Info, "iscsi-login", message, None);
                }
            }
            Notice::Ended { initiator, target, ends, why } => {
                let who = initiator.as_deref().unwrap_or("an initiator without a name");
                let what = target.map_or_else(String::new, |target| format!(" with {target}"));
                let peer = &ends.peer;
                match self.lock_out(&why, peer, who) {
                    Verdict::Tell => {
                        let (severity, kind, next) = gravity(&why);
                        let message =
                            format!("the iSCSI session of {who} from {peer}{what} ended: {why}");
                        self.tell(severity, kind, message, next);
                    }
                    Verdict::Pause { failures, who: paused } => {
                        let message = format!(
                            "{failures} logins of {who} from {peer}{what} failed: {paused} refused \
                             for {} s, and again after each that fails",
                            PAUSE.as_secs()
                        );
                        let next = "check name and secret on that host (viaduct connect CLIENT \
                                    --for open-iscsi, viaduct client chap CLIENT); if nobody \
                                    knows it, keep it away from the network of the portals";
                        self.tell(Severity::Warning, "iscsi-logins-paused", message, Some(next));
                    }
                    Verdict::Quiet => {}
                }
            }
        }
    }
}

/// What a client is told whose logins are sent elsewhere.
const MOVED: [LoginStatus; 2] =
    [LoginStatus::TARGET_MOVED_TEMPORARILY, LoginStatus::TARGET_MOVED_PERMANENTLY];

/// How much an end matters to an operator, and what can be done about it.
fn gravity(why: &Why) -> (Severity, &'static str, Option<&'static str>) {
    match why {
        Why::Protocol(Ended::Logout { .. }) | Why::Replaced | Why::Dropped => {
            (Severity::Info, "iscsi-logout", None)
        }
        Why::Closed => (Severity::Info, "iscsi-closed", None),
        Why::Protocol(Ended::Refused { status, .. }) if MOVED.contains(status) => {
            (Severity::Info, "iscsi-redirected", None)
        }
        Why::Protocol(Ended::Refused { .. }) => (
            Severity::Warning,
            "iscsi-login-refused",
            Some("viaduct client ls shows which initiator names are known; check name and secret"),
        ),
        Why::Protocol(_) => (Severity::Warning, "iscsi-violation", None),
        Why::Failed(_) | Why::LoginTooSlow | Why::Silent => {
            (Severity::Warning, "iscsi-lost", Some("look at the network and at the initiator"))
        }
    }
}
