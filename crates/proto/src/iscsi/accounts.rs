//! What the owner of a target knows: who may log in, with which proof, and what they may see.

use super::chap::{Account, Algorithm};
use std::net::SocketAddr;
use wire::iscsi::LoginStatus;

/// The owner's side of a target's logins. Answers come from a snapshot, at once; what must be asked
/// of others (is there already such a session?) is [`Admit`].
pub trait Accounts {
    /// How `initiator` must prove itself before it may log in to `target`, or to a discovery
    /// session. Both names are in normal form.
    fn authentication(
        &self,
        initiator: &str,
        target: Option<&str>,
    ) -> Result<Authentication, Refusal>;

    /// The targets that `initiator` may see, each with the portals to reach it through. Asked only
    /// of initiators that have proved themselves.
    fn targets(&self, initiator: &str) -> Vec<TargetRecord>;
}

/// What a side must prove before a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing.
    None,
    Chap(Chap),
}

/// CHAP for one initiator and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chap {
    /// What the initiator must know.
    pub initiator: Account,
    /// What we show when the initiator challenges us (mutual CHAP).
    pub target: Option<Account>,
    /// Allowed algorithms: [`ALGORITHMS`](super::ALGORITHMS), or some of them.
    pub algorithms: &'static [Algorithm],
}

/// An initiator is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Any status but SUCCESS and the two TARGET_MOVED.
    Status(LoginStatus),
    /// Try there: `host[:port]`, IPv6 addresses in brackets (RFC 7143, 13.8).
    Moved { address: String, permanently: bool },
}

/// A target in an answer to SendTargets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRecord {
    pub name: String,
    pub portals: Vec<Portal>,
}

/// Where a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    pub address: SocketAddr,
    pub group_tag: u16,
}

/// The question that ends a login: an initiator has proved itself and agreed on parameters; may the
/// session begin?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// In normal form.
    pub initiator: String,
    pub isid: [u8; 6],
    /// Not zero: the connection wants to join a session that exists. There is one connection per
    /// session, so it can only be refused: TOO_MANY_CONNECTIONS, or SESSION_DOES_NOT_EXIST.
    pub tsih: u16,
    pub kind: SessionKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    Discovery,
    /// To this target, in normal form. A session of the same initiator, ISID and portal group that
    /// exists already is reinstated: the owner ends it first (RFC 7143, 6.3.5).
    Normal {
        target: String,
    },
}

/// The answer to [`Admit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Let in. The handle is not zero.
    Granted {
        tsih: u16,
    },
    Refused(Refusal),
}
