//! iSCSI over TCP: a connection is a session is a nexus, on one core from its first byte to its
//! last.
//!
//! ```text
//!   socket ─▶ Inbox ─▶ proto::iscsi::Target ─▶ Command ─▶ scsi::Nexus ─▶ block::Device
//!   socket ◀─ Outbox ◀──────────┘◀──────────── respond ◀──────┘
//! ```
//!
//! Two tasks serve a connection: one receives and begins commands, one sends whatever is there to
//! be sent as one operation. Data never passes the machine: what a client writes is received where
//! the device reads it, what it reads is sent from where the device has put it.
//!
//! | file | holds |
//! |---|---|
//! | `door` | listening, and spreading connections over the cores |
//! | `connection` | a connection's life, and its receiving half |
//! | `farewell` | how it is ended from this side |
//! | `command` | a SCSI command and task management, from PDU to answer |
//! | `outbox` | its sending half |
//! | `pool` | memory of a core |
//! | `sessions` | which sessions exist on all cores: reinstatement |
//!
//! Not here: what may log in and what it sees, which a [`Host`] says.

mod command;
mod connection;
mod door;
mod farewell;
mod outbox;
mod pool;
mod sessions;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use proto::iscsi::{Accounts, Ended, Session, Wishes};
use rt::net::Address;
use target::scsi::Nexus;
use wire::iscsi::LoginStatus;

pub use door::{Door, Place, Server};
pub use sessions::{SESSIONS_MAX, Sessions};

/// What the node says to the connections of one core.
pub trait Host {
    /// Who may log in over this connection.
    fn accounts(&self, ends: &Ends) -> Rc<dyn Accounts>;

    /// A session begins: what does it see? An error is the status that refuses the login.
    fn enter(&self, session: &Session, ends: &Ends) -> Result<Rc<Nexus>, LoginStatus>;

    /// A session has ended, and every command of it. Done when everybody knows.
    fn leave(&self, nexus: Rc<Nexus>) -> Pin<Box<dyn Future<Output = ()>>>;

    fn notice(&self, notice: Notice);
}

/// The two ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    pub peer: Address,
    /// The address of ours that it came to.
    pub portal: Address,
}

/// Something that an operator may want to know.
#[derive(Clone, Debug)]
pub enum Notice {
    LoggedIn {
        session: Session,
        ends: Ends,
    },
    /// `initiator` and `target` as far as it has said who it is and what it wants.
    Ended {
        initiator: Option<String>,
        target: Option<String>,
        ends: Ends,
        why: Why,
    },
}

/// Why a connection is over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Why {
    #[error(transparent)]
    Protocol(#[from] Ended),
    #[error("the initiator has closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Failed(String),
    #[error("no login within {} s", LOGIN_LIMIT.as_secs())]
    LoginTooSlow,
    #[error("the initiator does not answer")]
    Silent,
    #[error("it was replaced by a new session of the same initiator")]
    Replaced,
    #[error("its target was taken away, or it did not log out when it was asked to")]
    Dropped,
}

/// How a session is ended from this side (RFC 7143, 11.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Its initiator is asked to log out; what it has not done after [`LOGOUT_LIMIT`] is dropped.
    Logout,
    /// Its initiator is told that it ends now.
    Drop,
}

/// How a server is set up; the same on all cores.
#[derive(Clone, Debug)]
pub struct Settings {
    pub wishes: Wishes,
    /// Commands that a session may have under way.
    pub window: u16,
    /// Also the relative port number of the target port (RFC 7143, 4.4.1).
    pub portal_group_tag: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { wishes: Wishes::default(), window: 128, portal_group_tag: 1 }
    }
}

/// Commands that a connection begins before the others of its core have their turn.
pub const COMMANDS_PER_TURN: u32 = 8;
/// How long a login may take.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);
/// A connection from which nothing was heard so long is asked whether it is there, and closed when
/// it has not answered after as long again.
const QUIET_LIMIT: Duration = Duration::from_secs(15);
/// How long an initiator that is asked to log out has for it.
pub const LOGOUT_LIMIT: Duration = Duration::from_secs(5);
/// How long an initiator has to take what it is sent last.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Memory for data of one session at which it begins no more commands.
const SESSION_BYTES_MAX: usize = 16 << 20;
/// And at which a write is refused as one too many: the data of those before it is still to come.
const RECEIVING_BYTES_MAX: u64 = 128 << 20;
