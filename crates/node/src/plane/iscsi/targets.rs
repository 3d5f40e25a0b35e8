//! Who may log in where, and what is seen there: a snapshot that every core reads, and the answers
//! to logins out of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use cluster::{ChapSpec, IscsiSpec};
use model::{AdapterId, MappingId, Redirect};
use proto::iscsi::{
    ALGORITHMS, Account, Accounts, Authentication, Chap, Portal, Refusal, Secret, TargetRecord,
};
use rt::net::Address;
use target::scsi::Kind;
use uuid::Uuid;
use wire::iscsi::LoginStatus;

use super::super::units::ISCSI_PORT;

/// All targets of a node, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    pub version: u64,
    portals: Vec<SocketAddr>,
    by_name: BTreeMap<String, Target>,
}

/// A target: the adapter of one client.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub adapter: AdapterId,
    spec: IscsiSpec,
    pub luns: BTreeMap<u16, Lun>,
}

/// What is at a LUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lun {
    pub device: Uuid,
    pub kind: Kind,
    pub read_only: bool,
    pub removable: bool,
}

impl Targets {
    pub fn new(portals: Vec<SocketAddr>) -> Self {
        Self { portals, ..Self::default() }
    }

    pub fn get(&self, name: &str) -> Option<&Target> {
        self.by_name.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = (&String, &Target)> {
        self.by_name.iter()
    }

    /// The next snapshot, with an LU at a LUN.
    pub fn with(&self, id: &MappingId, spec: &IscsiSpec, lun: Lun) -> Self {
        let mut next = self.next();
        let target = next.by_name.entry(spec.target.clone()).or_insert_with(|| Target {
            adapter: id.adapter.clone(),
            spec: spec.clone(),
            luns: BTreeMap::new(),
        });
        target.spec = spec.clone();
        target.luns.insert(id.lun, lun);
        next
    }

    /// The next snapshot, without what is at a LUN; a target without LUNs goes.
    pub fn without(&self, id: &MappingId) -> Self {
        let mut next = self.next();
        next.by_name.retain(|_, target| {
            if target.adapter == id.adapter {
                target.luns.remove(&id.lun);
            }
            !target.luns.is_empty()
        });
        next
    }

    /// The next snapshot, with nothing.
    pub fn empty(&self) -> Self {
        Self { by_name: BTreeMap::new(), ..self.next() }
    }

    fn next(&self) -> Self {
        Self { version: self.version + 1, ..self.clone() }
    }

    /// The targets of an initiator: those of one client, because a name belongs to one.
    fn of<'a>(&'a self, initiator: &'a str) -> impl Iterator<Item = (&'a String, &'a Target)> {
        self.all().filter(move |(_, target)| target.admits(initiator))
    }
}

impl Target {
    fn admits(&self, initiator: &str) -> bool {
        self.spec.initiators.iter().any(|iqn| iqn.as_str() == initiator)
    }

    /// Where a login that came to this portal of ours is sent instead.
    pub fn moved_from(&self, portal: &Address) -> Option<Refusal> {
        let redirect = self.spec.redirect.as_ref()?;
        let to = redirect.to.address();
        // Whoever is sent there is let in there.
        let is_there = *portal == Address::Tcp(to);
        let moved = Refusal::Moved { address: to.to_string(), permanently: redirect.permanently };
        (!is_there).then_some(moved)
    }

    /// Whether sessions are to leave that began before logins were sent elsewhere.
    pub fn asks_to_leave(&self) -> Option<&Redirect> {
        self.spec.redirect.as_ref().filter(|redirect| redirect.now)
    }

    fn authentication(&self) -> Authentication {
        match &self.spec.chap {
            None => Authentication::None,
            Some(ChapSpec { initiator, target }) => Authentication::Chap(Chap {
                initiator: account(initiator),
                target: target.as_ref().map(account),
                algorithms: &ALGORITHMS,
            }),
        }
    }
}

fn account(known: &cluster::Account) -> Account {
    Account { name: known.name.clone(), secret: Secret::new(known.secret.bytes()) }
}

/// The newest snapshot on one core.
#[derive(Default)]
pub(super) struct Book(RefCell<Arc<Targets>>);

impl Book {
    pub fn targets(&self) -> Arc<Targets> {
        self.0.borrow().clone()
    }

    /// False: there is a newer one already.
    pub fn turn_to(&self, targets: Arc<Targets>) -> bool {
        let mut known = self.0.borrow_mut();
        let is_newer = targets.version >= known.version;
        if is_newer {
            *known = targets;
        }
        is_newer
    }
}

impl Accounts for Book {
    fn authentication(
        &self,
        initiator: &str,
        target: Option<&str>,
    ) -> Result<Authentication, Refusal> {
        let targets = self.targets();
        let found = match target {
            // Who is unknown may ask what there is, and is told nothing.
            None => {
                let first = targets.of(initiator).next();
                return Ok(first.map_or(Authentication::None, |(_, it)| it.authentication()));
            }
            Some(name) => targets.get(name).filter(|target| target.admits(initiator)),
        };
        // A target that an initiator may not use does not exist for it.
        found.map(Target::authentication).ok_or(Refusal::Status(LoginStatus::NOT_FOUND))
    }

    fn targets(&self, initiator: &str) -> Vec<TargetRecord> {
        let targets = self.targets();
        // An initiator that is given no address uses the one that it asked (RFC 7143, appendix C).
        let portals = targets.portals.iter().filter(|at| !at.ip().is_unspecified());
        let portals: Vec<Portal> =
            portals.map(|&address| Portal { address, group_tag: ISCSI_PORT }).collect();
        let record =
            |(name, _): (&String, _)| TargetRecord { name: name.clone(), portals: portals.clone() };
        targets.of(initiator).map(record).collect()
    }
}
