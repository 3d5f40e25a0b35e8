//! What can happen to the shared state of an LU, and what comes of it: plain data that may be sent
//! from core to core and from node to node.

use std::sync::Arc;

use super::access::Access;
use super::attention::{Attention, MediumEvent};
use super::nexus::NexusId;
use super::operation::{Job, OperationKind};
use super::reservation::{Action, Mistake};
use super::state::Persistent;
use super::view::{Caching, Control, View};

/// Something that is asked of the owner of an LU's state, or has happened to the LU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Reserve {
        nexus: NexusId,
        action: Action,
    },
    /// The operator takes every reservation and registration away.
    ClearReservations,
    /// By a nexus, or by the operator.
    Mode {
        nexus: Option<NexusId>,
        modes: ModeChange,
    },
    /// Forbids, or allows again, to take the medium out.
    Prevent {
        nexus: NexusId,
        prevent: bool,
    },
    /// Takes the eject button away, or gives it back: a removal is asked for instead. Clients may
    /// still take the medium out themselves.
    PreventPersistently {
        nexus: NexusId,
        prevent: bool,
    },
    /// START STOP UNIT without the medium.
    Power {
        start: bool,
    },
    Medium(MediumChange),
    Access(AccessChange),
    Operation(OperationChange),
    Reset {
        kind: ResetKind,
        by: Option<NexusId>,
    },
    /// A nexus has ended and nobody will come back as the same one.
    NexusLost {
        nexus: NexusId,
        /// Whoever comes in its name is told.
        tell: bool,
    },
    /// The device has another size.
    Resized,
    /// What the LU says about itself has changed.
    IdentityChanged,
    /// A pool behind the LU has reached a limit that it warns of.
    ThresholdReached,
}

/// Settings to change; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeChange {
    pub caching: Option<Caching>,
    pub control: Option<Control>,
    /// They outlive a reset.
    pub save: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediumChange {
    /// By a nexus, or by the operator, who may insist although a client forbids it.
    Eject { by: Option<NexusId>, force: bool },
    /// The operator presses the button: where nobody forbids it the tray opens, else clients learn
    /// of the wish. Which of the two is in the view.
    Button,
    /// Draws the tray in.
    Load { by: Option<NexusId> },
    /// What lay in the open tray is there no more.
    TakenOut,
    /// Another medium, or none.
    Exchanged { present: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessChange {
    /// The node has measured anew.
    Set(Access),
    /// A client would like this group to be optimized.
    Wish { nexus: NexusId, group: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationChange {
    Begin {
        kind: OperationKind,
        job: Arc<Job>,
        may_exit: bool,
    },
    /// In 65,536ths.
    Progress(u16),
    End {
        failed: bool,
    },
    /// Leave the failure mode of a sanitize.
    ExitFailure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// By task management, of the LU or of the whole target.
    LogicalUnit,
    /// The LU begins anew.
    Power,
}

/// The change was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The version of the view that has it.
    pub version: u64,
}

/// The change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Reservation(#[from] Mistake),
    #[error("a client forbids to take the medium out; ask it to unlock, or force it")]
    Prevented,
    #[error("too many clients lock the medium; unlock one of them first")]
    NoRoom,
    #[error("{0:?} is under way, or has failed; wait for its end, or sanitize anew")]
    Busy(OperationKind),
    #[error("no such operation is under way")]
    NoOperation,
    #[error("the failed sanitize may only be left by another sanitize")]
    MayNotExit,
    #[error("there is no such port group; list them anew")]
    NoSuchGroup,
    #[error("the owner of the LU's state does not answer; try again")]
    Unavailable,
}

/// Something that handles do when they install the view that comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Attention {
        to: Audience,
        what: Attention,
    },
    AbortTasks {
        of: Audience,
        by: Option<Aborter>,
        telling: Telling,
    },
    ClearAca {
        of: Audience,
    },
    /// Something happened to the medium, for every nexus that asks.
    Medium(MediumEvent),
    /// For the node, not for handles: a client would like this group to be optimized.
    Wish {
        group: u16,
    },
}

/// How a nexus learns that another one has aborted its tasks. Its own doing it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Each task ends with the status that says so (TAS).
    Status,
    /// An attention, if there were any.
    Attention,
    /// By what else it is told.
    Nothing,
}

/// Who has tasks aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aborter {
    pub nexus: NexusId,
    /// Its own task that asks for it, which goes on.
    pub task: Option<u64>,
}

/// Whom an effect concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    All,
    AllBut(NexusId),
    These(Vec<NexusId>),
}

impl Audience {
    pub fn contains(&self, nexus: &NexusId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(one) => one != nexus,
            Self::These(some) => some.contains(nexus),
        }
    }

    /// All but this one, if there is one.
    pub fn others(nexus: Option<NexusId>) -> Self {
        nexus.map_or(Self::All, Self::AllBut)
    }
}

/// What every handle is to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub view: Arc<View>,
    pub effects: Arc<[Effect]>,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub reply: Result<Reply, Refusal>,
    /// For every handle, before the reply is given.
    pub update: Option<Update>,
    /// To be stored, before anything else is done.
    pub persist: Option<Persistent>,
}
