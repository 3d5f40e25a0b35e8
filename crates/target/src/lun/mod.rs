//! What a logical unit is to all who use it, in the words of no protocol: who may see it, who has
//! reserved it, through which ports it is reached how well, what it has to tell each of its clients,
//! and in which order their tasks run. SCSI and NVMe are two encodings of this one state.
//!
//! Three layers, from shared to private:
//!
//! | what | one per | where |
//! |---|---|---|
//! | [`State`]: the machine that every change passes through | LU | its owner |
//! | [`View`]: the outcome, immutable; [`Handle`] holds the newest | LU and core | everywhere |
//! | [`Member`]: task set, attentions, what the view means for one nexus | nexus, LU and core | everywhere |
//!
//! A change goes to the owner through a [`Ledger`] and is answered once every handle has installed
//! its outcome. [`Local`] is the ledger of a single core, and the reference for every other;
//! [`owner::Owner`] is what a ledger of several cores does at the owner's end.
//!
//! Not here: bytes of any protocol (`scsi`), sessions (`proto`), the disk itself (`block`).

pub mod access;
pub mod admit;
pub mod attention;
mod change;
mod handle;
mod ledger;
pub mod map;
mod member;
pub mod meter;
mod nexus;
pub mod operation;
pub mod owner;
pub mod reservation;
mod state;
mod view;

pub use change::{
    Aborter, AccessChange, Applied, Audience, Change, Effect, MediumChange, ModeChange,
    OperationChange, Refusal, Reply, ResetKind, Telling, Update,
};
pub use handle::{Handle, Identity, Settled};
pub use ledger::{Ledger, Local};
pub use member::{Hindrance, Listener, Member};
pub use nexus::{INITIATOR_BYTES_MAX, Initiator, NexusId, PortId};
pub use state::{Config, Outage, PREVENTING_MAX, Persistent, State};
pub use view::{Caching, Control, ErrorQueue, Interlock, Medium, Modes, View};
