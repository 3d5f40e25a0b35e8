//! What is, as opposed to what is wanted: the node, its devices, its adapters and the sessions on
//! them. The `View` types join a wanted object with its state; they are what listings show.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::chap::Chap;
use crate::client::Client;
use crate::event::Subject;
use crate::lu::Lu;
use crate::mapping::{AdapterId, Mapping, MappingId};
use crate::name::{Iqn, LuName};
use crate::size::Size;

/// Something that is not as it should be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    pub subject: Subject,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The devices of the last run are being brought back.
    Starting,
    Running,
    /// Draining; no change is taken.
    Stopping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
        })
    }
}

/// Memory for what LUs of pools know of where their blocks lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapMemory {
    pub used: Size,
    pub limit: Size,
    /// What had to go to make room, since the node was started.
    pub let_go: Size,
}

/// A node at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    pub node: Uuid,
    pub version: String,
    pub pid: u32,
    pub data: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Addresses that iSCSI is served on.
    #[serde(default)]
    pub iscsi: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    pub uptime_s: u64,
    pub phase: Phase,
    /// Revision of the desired state.
    pub revision: u64,
    /// Steps that lie between what is wanted and what is.
    pub steps_pending: u64,
    pub cores: u32,
    #[serde(default)]
    pub map_memory: MapMemory,
    #[serde(default)]
    pub pools: u64,
    pub lus: u64,
    #[serde(default)]
    pub drives: u64,
    pub clients: u64,
    pub mappings: u64,
    /// Sessions of clients with adapters.
    pub sessions: u64,
    pub problems: Vec<Problem>,
}

/// State of the device behind an LU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LuState {
    /// Being brought up.
    Pending,
    Online,
    /// Requests of clients fail in its store, which can still be read; the problem says why.
    /// Online again when requests of the same kinds succeed.
    Degraded,
    /// It could not be opened, or its store cannot be read; the problem says why. It is tried
    /// again.
    Failed,
}

impl fmt::Display for LuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LuState::Pending => "pending",
            LuState::Online => "online",
            LuState::Degraded => "degraded",
            LuState::Failed => "failed",
        })
    }
}

/// State of one adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdapterState {
    /// Being brought up, or waiting for its LU.
    Pending,
    /// Waiting for its client.
    Listening,
    /// A client is there, its rings are not running.
    Connected,
    /// A client is there and its rings are running, or it has logged in.
    Running,
    /// The client did something that cannot be served; the problem says what.
    Broken,
    /// The adapter could not be opened; the problem says why. It is tried again.
    Failed,
}

impl AdapterState {
    pub fn has_session(self) -> bool {
        matches!(self, AdapterState::Connected | AdapterState::Running | AdapterState::Broken)
    }
}

impl fmt::Display for AdapterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AdapterState::Pending => "pending",
            AdapterState::Listening => "listening",
            AdapterState::Connected => "connected",
            AdapterState::Running => "running",
            AdapterState::Broken => "broken",
            AdapterState::Failed => "failed",
        })
    }
}

/// A client's connection to a vhost-user adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Process at the other end of the socket, where the kernel says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_pid: Option<u32>,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Features that both sides agreed on, by their names.
    pub features: Vec<String>,
    pub queues_running: u16,
    pub memory_regions: u16,
    /// Requests survive a death of the node.
    pub inflight_tracking: bool,
    /// A migration is logging dirty pages.
    pub logging: bool,
}

/// A session of an initiator with an iSCSI adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IscsiSession {
    /// The name that it logged in with, in normal form.
    pub initiator: String,
    /// The initiator's part of the session's identity: 12 hexadecimal digits.
    pub isid: String,
    /// The target's part of it (TSIH).
    pub tsih: u16,
    pub connections: Vec<IscsiConnection>,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// What was agreed on beside the defaults, as it is negotiated: `HeaderDigest=CRC32C`.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// Counts since it began, where they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<SessionIo>,
}

/// A connection of an iSCSI session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IscsiConnection {
    pub cid: u16,
    /// Address of the initiator.
    pub peer: String,
    /// Address of ours that it came to.
    pub portal: String,
}

/// What went over a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionIo {
    pub commands: u64,
    /// Bytes sent to the initiator.
    pub bytes_read: u64,
    /// Bytes taken from it.
    pub bytes_written: u64,
}

/// An LU with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LuView {
    #[serde(flatten)]
    pub lu: Lu,
    pub state: LuState,
    /// Where the blocks are, when that is a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes that the backing takes, where that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Size>,
    pub mapped_to: Vec<MappingId>,
    /// How far it is brought into its pool, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought: Option<Brought>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// How far an LU is brought from where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Brought {
    pub bytes: Size,
    pub of: Size,
    pub percent: u8,
}

/// A mapping with the state of its adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MappingView {
    #[serde(flatten)]
    pub mapping: Mapping,
    pub state: AdapterState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Name of the iSCSI target that it is at.
    /// It is a drive's, and not an LU's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_drive: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A client with its mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientView {
    #[serde(flatten)]
    pub client: Client,
    /// Its iSCSI adapter, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iscsi: Option<IscsiView>,
    pub mappings: Vec<MappingView>,
}

/// The iSCSI adapter of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IscsiView {
    pub adapter: AdapterId,
    pub target: String,
    /// Addresses that it is served on.
    pub portals: Vec<String>,
    pub sessions: Vec<IscsiSession>,
}

/// Which tool a connection is printed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectFor {
    Qemu,
    Libvirt,
    OpenIscsi,
}

/// What to run on the client's side, ready to paste.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Lines for the tool that was asked for.
    pub text: String,
    /// What else to know or do, a paragraph each.
    pub notes: Vec<String>,
    pub adapters: Vec<ConnectionAdapter>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<ConnectionHost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iscsi: Option<ConnectionTarget>,
}

/// The facts behind a [`Connection`] to a vhost-user-scsi adapter, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionHost {
    pub adapter: AdapterId,
    pub socket: String,
    /// Request queues.
    pub queues: u16,
    pub luns: Vec<ConnectionLun>,
}

/// The facts behind a [`Connection`] to a vhost-user-blk adapter, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionAdapter {
    pub adapter: AdapterId,
    pub lu: LuName,
    pub socket: String,
    pub queues: u16,
    pub block_size: u32,
    pub read_only: bool,
    pub serial: String,
}

/// The facts behind a [`Connection`] to an iSCSI target, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionTarget {
    pub adapter: AdapterId,
    pub target: String,
    pub portals: Vec<String>,
    pub initiators: Vec<Iqn>,
    /// How the client must prove itself; its secret is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Chap>,
    pub luns: Vec<ConnectionLun>,
}

/// A LUN of a [`ConnectionTarget`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionLun {
    pub lun: u16,
    pub lu: LuName,
    pub block_size: u32,
    pub read_only: bool,
    pub serial: String,
    /// What Linux calls the disk, the same over all paths (`scsi_id`, multipath).
    pub wwid: String,
}
