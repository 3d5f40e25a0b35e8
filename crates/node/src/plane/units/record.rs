//! The form in which the shared state of an LU is kept: JSON, written down in `docs/format.md`.
//!
//! A nexus stands in it once, and everything else names it by its place in the list.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ApiError;
use model::reservation::ReservationType;
use serde::{Deserialize, Serialize};
use target::lun::operation::{Job, Operation, OperationKind, Stage};
use target::lun::reservation::{Held, Kind, SavedReservations};
use target::lun::{
    Caching, Control, ErrorQueue, Initiator, Interlock, Medium, Modes, NexusId, Persistent, PortId,
};

const VERSION: u32 = 1;

/// What was kept of an LU, and when.
#[derive(Debug)]
pub struct Kept {
    pub state: Persistent,
    /// The machine has started once for each of these.
    pub boot: String,
    /// Counts the owners that the LU has had.
    pub epoch: u32,
    /// What the operator had set, which wins over what clients have chosen when it is changed.
    pub configured: Modes,
}

#[derive(Serialize, Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    boot: String,
    epoch: u32,
    nexuses: Vec<Nexus>,
    registrants: Vec<(usize, u64)>,
    held: Option<HeldBy>,
    generation: u32,
    through_power_loss: bool,
    unit_holder: Option<usize>,
    configured: ModeRecord,
    modes: ModeRecord,
    saved_modes: ModeRecord,
    preventing: Vec<usize>,
    preventing_persistently: Vec<usize>,
    started: bool,
    medium_present: bool,
    medium_open: bool,
    operation: Option<OperationRecord>,
}

/// Each byte of the initiator port's name is one character.
#[derive(Serialize, Deserialize)]
struct Nexus {
    initiator: String,
    port: u16,
}

#[derive(Serialize, Deserialize)]
struct HeldBy {
    kind: ReservationType,
    holder: Option<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeRecord {
    write_back: bool,
    read_cache_off: bool,
    descriptor_sense: bool,
    write_protect: bool,
    task_aborted_status: bool,
    error_queue: u8,
    interlock: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationRecord {
    sanitize: bool,
    failed: bool,
    may_exit: bool,
    overwrite: Option<Overwrite>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Overwrite {
    block: Vec<u8>,
    passes: u8,
    invert: bool,
}

const KINDS: [(Kind, ReservationType); 6] = [
    (Kind::WriteExclusive, ReservationType::WriteExclusive),
    (Kind::ExclusiveAccess, ReservationType::ExclusiveAccess),
    (Kind::WriteExclusiveRegistrantsOnly, ReservationType::WriteExclusiveRegistrantsOnly),
    (Kind::ExclusiveAccessRegistrantsOnly, ReservationType::ExclusiveAccessRegistrantsOnly),
    (Kind::WriteExclusiveAllRegistrants, ReservationType::WriteExclusiveAllRegistrants),
    (Kind::ExclusiveAccessAllRegistrants, ReservationType::ExclusiveAccessAllRegistrants),
];

/// In the order of their numbers in the record, which are those of the mode page's fields.
const ERROR_QUEUES: [ErrorQueue; 3] =
    [ErrorQueue::Continue, ErrorQueue::AbortAll, ErrorQueue::AbortOfNexus];
const INTERLOCKS: [Interlock; 3] = [Interlock::Clear, Interlock::Keep, Interlock::KeepAndRaise];

/// A type of reservation in the words of the model.
pub fn type_of(kind: Kind) -> ReservationType {
    let row = KINDS.iter().find(|(ours, _)| *ours == kind);
    row.expect("every kind has a row").1
}

pub fn encode(kept: &Kept) -> Vec<u8> {
    let state = &kept.state;
    let (mut nexuses, mut places) = (Vec::new(), BTreeMap::new());
    let mut place = |nexus: &NexusId| {
        *places.entry(nexus.clone()).or_insert_with(|| {
            let bytes = nexus.initiator().bytes();
            let initiator = bytes.iter().map(|&byte| char::from(byte)).collect();
            nexuses.push(Nexus { initiator, port: nexus.port().0 });
            nexuses.len() - 1
        })
    };
    let SavedReservations { registrants, held, generation, through_power_loss, unit_holder } =
        &state.reservations;
    let record = Record {
        version: VERSION,
        boot: kept.boot.clone(),
        epoch: kept.epoch,
        registrants: registrants.iter().map(|(nexus, key)| (place(nexus), *key)).collect(),
        held: held.as_ref().map(|held| HeldBy {
            kind: type_of(held.kind),
            holder: held.holder.as_ref().map(&mut place),
        }),
        generation: *generation,
        through_power_loss: *through_power_loss,
        unit_holder: unit_holder.as_ref().map(&mut place),
        configured: modes_record(&kept.configured),
        modes: modes_record(&state.modes),
        saved_modes: modes_record(&state.saved_modes),
        preventing: state.preventing.iter().map(&mut place).collect(),
        preventing_persistently: state.preventing_persistently.iter().map(&mut place).collect(),
        started: state.started,
        medium_present: state.medium.present,
        medium_open: state.medium.open,
        operation: state.operation.as_ref().map(operation_record),
        nexuses,
    };
    serde_json::to_vec(&record).expect("names and numbers have a form in JSON")
}

fn modes_record(modes: &Modes) -> ModeRecord {
    let Modes { caching, control } = modes;
    let number = |at: Option<usize>| at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
    ModeRecord {
        write_back: caching.write_back,
        read_cache_off: caching.read_cache_off,
        descriptor_sense: control.descriptor_sense,
        write_protect: control.write_protect,
        task_aborted_status: control.task_aborted_status,
        error_queue: number(ERROR_QUEUES.iter().position(|it| *it == control.error_queue)),
        interlock: number(INTERLOCKS.iter().position(|it| *it == control.interlock)),
    }
}

fn operation_record(operation: &Operation) -> OperationRecord {
    let overwrite = match &*operation.job {
        Job::Erase => None,
        Job::Overwrite { block, passes, invert } => {
            Some(Overwrite { block: block.clone(), passes: *passes, invert: *invert })
        }
    };
    OperationRecord {
        sanitize: operation.kind == OperationKind::Sanitize,
        failed: operation.stage == Stage::Failed,
        may_exit: operation.may_exit,
        overwrite,
    }
}

pub fn decode(bytes: &[u8]) -> Result<Kept, ApiError> {
    let damaged = |why: &dyn std::fmt::Display| {
        ApiError::failed(format!("what was kept of its reservations and modes is damaged: {why}"))
            .then("restore config.json into a new data directory (viaduct config restore)")
    };
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    if version > VERSION {
        return Err(ApiError::failed(format!(
            "what was kept of its reservations and modes has form {version}, and this program \
             knows forms up to {VERSION}"
        ))
        .then("start the release that wrote it, or a later one"));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    restored(record).ok_or_else(|| damaged(&"it names what is not in it"))
}

/// `None` when it contradicts itself.
fn restored(record: Record) -> Option<Kept> {
    let nexuses: Option<Vec<NexusId>> = record.nexuses.iter().map(nexus).collect();
    let nexuses = nexuses?;
    let at = |place: usize| nexuses.get(place).cloned();
    let all = |places: Vec<usize>| places.into_iter().map(at).collect::<Option<Vec<_>>>();
    let maybe = |place: Option<usize>| match place {
        None => Some(None),
        Some(place) => at(place).map(Some),
    };
    let registrants = record.registrants.into_iter().map(|(place, key)| Some((at(place)?, key)));
    let held = match record.held {
        None => None,
        Some(held) => {
            let row = KINDS.iter().find(|(_, word)| *word == held.kind)?;
            Some(Held { kind: row.0, holder: maybe(held.holder)? })
        }
    };
    let state = Persistent {
        reservations: SavedReservations {
            registrants: registrants.collect::<Option<Vec<_>>>()?,
            held,
            generation: record.generation,
            through_power_loss: record.through_power_loss,
            unit_holder: maybe(record.unit_holder)?,
        },
        modes: modes(&record.modes)?,
        saved_modes: modes(&record.saved_modes)?,
        preventing: all(record.preventing)?,
        preventing_persistently: all(record.preventing_persistently)?,
        started: record.started,
        medium: Medium { present: record.medium_present, open: record.medium_open },
        operation: record.operation.map(operation),
    };
    let configured = modes(&record.configured)?;
    Some(Kept { state, boot: record.boot, epoch: record.epoch, configured })
}

fn nexus(nexus: &Nexus) -> Option<NexusId> {
    let bytes: Result<Vec<u8>, _> = nexus.initiator.chars().map(u8::try_from).collect();
    Some(NexusId::new(Initiator::new(&bytes.ok()?)?, PortId(nexus.port)))
}

fn modes(record: &ModeRecord) -> Option<Modes> {
    let caching = Caching { write_back: record.write_back, read_cache_off: record.read_cache_off };
    let control = Control {
        descriptor_sense: record.descriptor_sense,
        write_protect: record.write_protect,
        error_queue: *ERROR_QUEUES.get(usize::from(record.error_queue))?,
        task_aborted_status: record.task_aborted_status,
        interlock: *INTERLOCKS.get(usize::from(record.interlock))?,
    };
    Some(Modes { caching, control })
}

fn operation(record: OperationRecord) -> Operation {
    let overwrite =
        |it: Overwrite| Job::Overwrite { block: it.block, passes: it.passes, invert: it.invert };
    Operation {
        kind: if record.sanitize { OperationKind::Sanitize } else { OperationKind::Format },
        job: Arc::new(record.overwrite.map_or(Job::Erase, overwrite)),
        stage: if record.failed { Stage::Failed } else { Stage::Running { progress: 0 } },
        may_exit: record.may_exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8], port: u16) -> NexusId {
        NexusId::new(Initiator::new(name).unwrap(), PortId(port))
    }

    fn kept() -> Kept {
        let (one, other) = (named(b"\x45\0iqn.a,i,0x01\xff", 1), named(b"b", 2));
        let held = Held { kind: Kind::WriteExclusiveRegistrantsOnly, holder: Some(other.clone()) };
        let reservations = SavedReservations {
            registrants: vec![(one.clone(), u64::MAX), (other.clone(), 7)],
            held: Some(held),
            generation: 9,
            through_power_loss: true,
            unit_holder: Some(one.clone()),
        };
        let control = Control {
            error_queue: ErrorQueue::AbortOfNexus,
            interlock: Interlock::KeepAndRaise,
            write_protect: true,
            ..Control::default()
        };
        let modes = Modes { control, ..Modes::default() };
        let state = Persistent {
            reservations,
            modes,
            saved_modes: Modes::default(),
            preventing: vec![other],
            preventing_persistently: vec![one],
            started: false,
            medium: Medium { present: true, open: true },
            operation: Some(Operation {
                kind: OperationKind::Sanitize,
                job: Arc::new(Job::Overwrite { block: vec![1, 2], passes: 3, invert: true }),
                stage: Stage::Failed,
                may_exit: true,
            }),
        };
        Kept { state, boot: "boot".to_owned(), epoch: 4, configured: Modes::default() }
    }

    #[test]
    fn what_is_kept_is_what_was() {
        let (before, after) = (kept(), decode(&encode(&kept())).unwrap());
        assert_eq!(before.state, after.state);
        let rest = |kept: &Kept| (kept.boot.clone(), kept.epoch, kept.configured);
        assert_eq!(rest(&before), rest(&after));
    }

    #[test]
    fn damage_and_newer_forms_are_named() {
        let text = String::from_utf8(encode(&kept())).unwrap();
        let said = |text: &str| decode(text.as_bytes()).unwrap_err().to_string();
        assert!(said(&text.replace("\"version\":1", "\"version\":2")).contains("form 2"));
        assert!(said(&text[1..]).contains("damaged"));
        let strange =
            [("[0,18446744073709551615]", "[5,1]"), ("\"error_queue\":2", "\"error_queue\":3")];
        for (from, to) in strange {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(said(&changed).contains("not in it"), "{to}");
        }
    }
}
