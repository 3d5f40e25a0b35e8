//! The outcome of all changes so far: what everybody but the owner knows of an LU's shared state.
//!
//! A view is never changed, only replaced. Its big parts are shared with the view before.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::Access;
use super::nexus::NexusId;
use super::operation::Operation;
use super::reservation::Reservations;

/// Settings that clients may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    pub caching: Caching,
    pub control: Control,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    /// Writes may be answered before they would survive loss of power (WCE).
    pub write_back: bool,
    /// Reads go to the medium (RCD).
    pub read_cache_off: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// D_SENSE
    pub descriptor_sense: bool,
    /// SWP
    pub write_protect: bool,
    /// QERR
    pub error_queue: ErrorQueue,
    /// TAS
    pub task_aborted_status: bool,
    /// UA_INTLCK_CTRL
    pub interlock: Interlock,
}

/// What CHECK CONDITION does to the other tasks of the nexus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorQueue {
    #[default]
    Continue,
    AbortAll,
    AbortOfNexus,
}

impl ErrorQueue {
    /// Task sets are per nexus, so both kinds of abort are one.
    pub const fn aborts(self) -> bool {
        !matches!(self, Self::Continue)
    }
}

/// When an attention that was told is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interlock {
    /// Once told.
    #[default]
    Clear,
    /// Only by a command that asks for it.
    Keep,
    /// So too, and a command that is turned away raises one.
    KeepAndRaise,
}

/// A medium that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medium {
    pub present: bool,
    /// The tray is out.
    pub open: bool,
}

impl Medium {
    pub const LOADED: Self = Self { present: true, open: false };

    pub const fn is_loaded(self) -> bool {
        self.present && !self.open
    }
}

/// All that the handles of one LU share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows with every change, and from owner to owner: what is newer has the larger one.
    pub version: u64,
    pub reservations: Arc<Reservations>,
    pub modes: Modes,
    /// What a reset brings back.
    pub saved_modes: Modes,
    pub access: Arc<Access>,
    /// Who forbids to take the medium out.
    pub preventing: Arc<BTreeSet<NexusId>>,
    /// Who wants to be asked before the operator takes it out.
    pub preventing_persistently: Arc<BTreeSet<NexusId>>,
    pub started: bool,
    pub medium: Medium,
    pub operation: Option<Operation>,
}

/// How many changes an owner can make: as many as these bits can count.
const CHANGES_BITS: u32 = 32;

impl View {
    pub(super) fn first_version(epoch: u32) -> u64 {
        (u64::from(epoch) << CHANGES_BITS) + 1
    }

    /// Which of the owners that the LU has had made this view.
    pub(super) fn epoch(&self) -> u64 {
        self.version >> CHANGES_BITS
    }
}
