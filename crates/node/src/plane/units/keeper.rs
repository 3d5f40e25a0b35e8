//! How the state of an LU outlives the process, and what has become of it meanwhile.
//!
//! A process that ends takes its iSCSI sessions with it: what goes with their nexuses is over when
//! the next one begins. A machine that has started anew is loss of power.

use std::cell::Cell;
use std::sync::Arc;

use model::{ApiError, Severity, Subject};
use rt::Core;
use target::lun::{Change, Config, Modes, NexusId, Outage, Persistent, State};
use uuid::Uuid;
use wire::scsi::reservation::Protocol;

use super::record::{self, Kept};
use super::{Spec, owner};
use crate::engine::{Context, Report, Reporter};
use crate::records::{Record, Records};

/// The part of a TransportID's first byte that names its protocol (SPC-4 7.6.4).
const PROTOCOL_MASK: u8 = 0x0f;

/// What every LU needs of the node to keep its state.
#[derive(Clone)]
pub(super) struct Book {
    pub records: Arc<dyn Records>,
    pub boot: Arc<str>,
    pub report: Reporter,
}

impl From<&Context> for Book {
    fn from(context: &Context) -> Self {
        let (records, report) = (context.records.clone(), context.report.clone());
        Self { records, boot: context.boot.as_str().into(), report }
    }
}

/// Keeps the state of one LU.
pub(super) struct Keeper {
    book: Book,
    uuid: Uuid,
    name: String,
    epoch: u32,
    configured: Cell<Modes>,
}

impl Keeper {
    /// With the state that was kept, or the one that an LU begins with.
    pub async fn open(core: &Core, book: Book, spec: &Spec) -> Result<(Self, State), ApiError> {
        let (records, uuid) = (book.records.clone(), spec.uuid);
        let read = core.blocking(move || records.read(Record::Lu(uuid))).await;
        let read = read.unwrap_or_else(|| Err(ApiError::failed("the work was given up")));
        let kept = read.and_then(|bytes| bytes.map(|bytes| record::decode(&bytes)).transpose());
        let kept = kept.map_err(|error| ApiError {
            message: format!("LU {}: {}", spec.name, error.message),
            ..error
        })?;
        let epoch = kept.as_ref().map_or(0, |kept| kept.epoch.saturating_add(1));
        let state = match kept {
            Some(kept) => restored(kept, &book.boot, epoch, spec.modes),
            None => {
                let (modes, access) = (spec.modes, owner::access());
                State::new(Config { modes, access, medium: spec.medium })
            }
        };
        let configured = Cell::new(spec.modes);
        Ok((Self { book, uuid, name: spec.name.clone(), epoch, configured }, state))
    }

    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The operator has set this.
    pub fn configure(&self, modes: Modes) {
        self.configured.set(modes);
    }

    /// Whether it is durable now. If it is not, the client is told that its change was not made,
    /// and the operator why.
    pub async fn keep(&self, core: &Core, state: Persistent) -> bool {
        let Book { records, boot, report } = &self.book;
        let (boot, configured) = (boot.to_string(), self.configured.get());
        let kept = record::encode(&Kept { state, boot, epoch: self.epoch, configured });
        let (records, uuid) = (records.clone(), self.uuid);
        let written = core.blocking(move || records.write(Record::Lu(uuid), kept)).await;
        match written {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                report(Report {
                    severity: Severity::Error,
                    subject: Subject::Node,
                    kind: "lu-state-not-kept",
                    message: format!(
                        "reservations and modes of LU {} cannot be kept, so that a client's \
                         change was refused: {}",
                        self.name, error.message
                    ),
                    next: error.next,
                });
                false
            }
            None => false,
        }
    }
}

fn restored(kept: Kept, boot: &str, epoch: u32, configured: Modes) -> State {
    let outage = if kept.boot == boot { Outage::Restart } else { Outage::PowerLoss };
    let Persistent { preventing, preventing_persistently, .. } = &kept.state;
    let reserving = &kept.state.reservations.unit_holder;
    let nexuses = preventing.iter().chain(preventing_persistently).chain(reserving);
    let lost: Vec<NexusId> = nexuses.filter(|nexus| is_iscsi(nexus)).cloned().collect();
    let mut stored = kept.state;
    if kept.configured != configured {
        (stored.modes, stored.saved_modes) = (configured, configured);
    }
    let mut state = State::restore(owner::access(), stored, outage, epoch);
    for nexus in lost {
        // It is never refused, and there is nobody yet to tell.
        state.apply(Change::NexusLost { nexus, tell: true });
    }
    state
}

fn is_iscsi(nexus: &NexusId) -> bool {
    let first = nexus.initiator().bytes().first();
    first.is_some_and(|first| first & PROTOCOL_MASK == Protocol::ISCSI.0)
}
