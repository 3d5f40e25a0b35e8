//! What an LU does by itself for a while, refusing most commands meanwhile: formatting and
//! sanitizing, with progress, and the failure that a sanitize leaves behind.

use std::sync::Arc;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    Format,
    Sanitize,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In 65,536ths of the whole.
    Running { progress: u16 },
    /// Ended with an error. A sanitize that failed leaves what it may have left; nobody may read it
    /// until another sanitize succeeds, or a client ends the failure mode where it was allowed to.
    Failed,
}

/// What is done to the medium: enough to do it once more from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Blocks read zero afterwards, and their space is given back where that is possible.
    Erase,
    Overwrite {
        block: Vec<u8>,
        passes: u8,
        /// Every second pass writes the complement.
        invert: bool,
    },
}

/// An operation that runs, or has failed and is not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: OperationKind,
    pub job: Arc<Job>,
    pub stage: Stage,
    /// A failed sanitize may be left without another one (SBC-4: ALLOW UNRESTRICTED SANITIZE EXIT).
    pub may_exit: bool,
}

impl Operation {
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }

    /// In 65,536ths, while it runs.
    pub fn progress(&self) -> Option<u16> {
        match self.stage {
            Stage::Running { progress } => Some(progress),
            Stage::Failed => None,
        }
    }
}
