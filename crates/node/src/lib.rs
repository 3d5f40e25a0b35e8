//! A node: the desired state, the reconciler that makes it real, and the API that shows and changes
//! it. Wiring only; what a device, a transport or a plan *is* lies in the crates below.
//!
//! ```text
//!   CLI, web ── REST (api) ──▶ control ──▶ state ──▶ kv
//!                 │  ▲            │ ▲
//!        snapshot │  │ published  │ │ done, reports
//!                 ▼  │            ▼ │
//!               engine ◀──────────── reconcile (cluster::plan)
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`engine`] | the trait that the data plane implements: start, and tell when done |
//! | [`engine::recorder`] | an engine that only takes notes, for tests |
//! | [`plane`] | the engine: cores, stores, adapters |
//! | [`state`] | the desired state in `kv`, and every change to it, validated |
//! | [`reconcile`] | which step next: plan, steps under way, failures and their retries |
//! | [`control`] | the one thread that owns state and reconciler, and what others see of it |
//! | [`import`] | an image as the data of a new LU |
//! | [`library`] | media: how a file becomes one, what is on it |
//! | [`pv`] | the disks of the machine, and what is on them |
//! | [`records`] | what is kept of each LU's reservations and modes, and of each pool's epoch |
//! | [`default_pool`] | the pool that a fresh data directory gets |
//! | [`room`] | how much room a pool has left |
//! | [`events`] | the bounded log of what happened |
//! | [`view`] | what is wanted joined with what is |
//! | [`connect`] | what to run on the client's side |
//! | [`metrics`] | the Prometheus text |
//! | [`api`] | REST on a Unix socket and, read-only, on TCP |
//! | [`datadir`] | layout, lock and format of the data directory |
//! | [`socket`], [`owner`], [`tcp`] | sockets for clients, users and groups, addresses |
//! | [`probe`], [`world`] | images, clock and files |
//! | [`offline`] | the disks of a pool that no node has open |
//! | `pool_disk` | one of these, or of a pool that is served |
//! | [`run`] | a node from start to stop |
//!
//! tokio runs in `api` only, on a thread of its own. The control thread takes one message at a time
//! and never waits for the data plane, so neither can wedge the other.

pub mod api;
pub mod connect;
pub mod control;
pub mod datadir;
pub mod default_pool;
pub mod engine;
pub mod events;
pub mod import;
pub mod library;
pub mod metrics;
pub mod offline;
pub mod owner;
pub mod plane;
mod pool_disk;
pub mod probe;
pub mod pv;
pub mod reconcile;
pub mod records;
pub mod room;
pub mod run;
pub mod socket;
pub mod state;
pub mod tcp;
pub mod view;
pub mod world;

pub use default_pool::DefaultPool;
pub use engine::Engine;
pub use plane::Plane;
pub use run::{Node, Options};

/// Bytes in hexadecimal digits, without anything between them.
fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
