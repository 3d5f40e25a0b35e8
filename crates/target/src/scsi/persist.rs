//! PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16): the reservations of `lun` in the words of
//! SCSI. What a parameter list may say is judged here, what it leads to is judged there.

pub mod transport_id;

use wire::scsi::cdb;
use wire::scsi::opcode::{PersistentReserveOut as Service, SERVICE_ACTION_MASK};
use wire::scsi::reservation::{
    ALL_TG_PT, APTPL, Capabilities, FullStatus, R_HOLDER, RegisterAndMove, ReservationDescriptor,
    ReservationType as Type, ReserveInHeader, ReserveOut, SPEC_I_PT, UNREG, capability,
};
use zerocopy::{FromBytes, IntoBytes};

use super::context::Context;
use super::row::Boxed;
use super::sense::Sense;
use crate::lun::reservation::{Action, Kind, Reservations};
use crate::lun::{Change, Initiator, NexusId, PortId};

/// The types by their codes, in the order of [`Kind::ALL`].
const TYPES: [(Kind, Type); 6] = [
    (Kind::WriteExclusive, Type::WRITE_EXCLUSIVE),
    (Kind::ExclusiveAccess, Type::EXCLUSIVE_ACCESS),
    (Kind::WriteExclusiveRegistrantsOnly, Type::WRITE_EXCLUSIVE_REGISTRANTS_ONLY),
    (Kind::ExclusiveAccessRegistrantsOnly, Type::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY),
    (Kind::WriteExclusiveAllRegistrants, Type::WRITE_EXCLUSIVE_ALL_REGISTRANTS),
    (Kind::ExclusiveAccessAllRegistrants, Type::EXCLUSIVE_ACCESS_ALL_REGISTRANTS),
];

/// ALLOW COMMANDS 001b: TEST UNIT READY passes every type; nothing is said of others.
const ALLOWS_TEST_UNIT_READY: u8 = 0x10;

/// The byte that holds scope and type in the CDB.
const SCOPE_TYPE_AT: u16 = 2;
/// Where fields of the parameter lists lie.
const MOVE_PORT_AT: u16 = 18;
const OUT_FLAGS_AT: u16 = 20;
const MOVE_ID_LENGTH_AT: u16 = 20;
/// Behind the basic parameter list: a length, then the transport IDs.
const LIST_BYTES: usize = size_of::<ReserveOut>();
const IDS_AT: usize = LIST_BYTES + 4;

pub fn read_keys(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    Ok(keys(&context.unit.view().reservations))
}

pub fn read_reservation(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    Ok(reservation(&context.unit.view().reservations))
}

pub fn report_capabilities(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    Ok(capabilities(&context.unit.view().reservations, context.unit.handle().keeps()))
}

pub fn read_full_status(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    Ok(full_status(&context.unit.view().reservations))
}

pub fn out<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        let nexus = context.nexus.id().clone();
        let action = action(&context.cdb(), &list, context.entered.tag())?;
        let promises = matches!(
            action,
            Action::Register { through_power_loss: true, .. }
                | Action::RegisterAnyway { through_power_loss: true, .. }
                | Action::Move { through_power_loss: true, .. }
        );
        // SPC-4 6.16.3: APTPL where it cannot be done.
        if promises && !context.unit.handle().keeps() {
            return Err(Sense::parameter(OUT_FLAGS_AT).into());
        }
        context.change(Change::Reserve { nexus, action }).await?;
        Ok(Vec::new())
    })
}

fn keys(reservations: &Reservations) -> Vec<u8> {
    let keys: Vec<u8> = reservations.registrants().flat_map(|(_, key)| key.to_be_bytes()).collect();
    with_header(reservations, keys)
}

fn reservation(reservations: &Reservations) -> Vec<u8> {
    let Some(held) = reservations.held() else { return with_header(reservations, Vec::new()) };
    let descriptor = ReservationDescriptor {
        key: reservations.holder_key().unwrap_or(0).into(),
        scope_type: code(held.kind),
        ..ReservationDescriptor::default()
    };
    with_header(reservations, descriptor.as_bytes().to_vec())
}

fn capabilities(reservations: &Reservations, keeps: bool) -> Vec<u8> {
    let through_power_loss = if keeps { capability::PTPL } else { 0 };
    let active = if reservations.through_power_loss() { capability::PTPL_ACTIVE } else { 0 };
    // Byte 4 has the bit of each type with its number, byte 5 that of type 8 and up.
    let mask = TYPES.iter().fold(0_u16, |mask, (_, code)| mask | 1 << code.0);
    Capabilities {
        length: (size_of::<Capabilities>() as u16).into(),
        flags2: capability::CRH | capability::SIP | capability::ATP | through_power_loss,
        flags3: capability::TMV | ALLOWS_TEST_UNIT_READY | active,
        type_mask: mask.swap_bytes().into(),
        ..Capabilities::default()
    }
    .as_bytes()
    .to_vec()
}

fn full_status(reservations: &Reservations) -> Vec<u8> {
    let mut all = Vec::new();
    for (nexus, key) in reservations.registrants() {
        let id = nexus.initiator().bytes();
        let kind = reservations.held().filter(|_| reservations.is_holder(nexus));
        let descriptor = FullStatus {
            key: key.into(),
            flags: if kind.is_some() { R_HOLDER } else { 0 },
            scope_type: kind.map_or(0, |held| code(held.kind)),
            relative_port: nexus.port().0.into(),
            additional_length: (id.len() as u32).into(),
            ..FullStatus::default()
        };
        all.extend_from_slice(descriptor.as_bytes());
        all.extend_from_slice(id);
    }
    with_header(reservations, all)
}

fn with_header(reservations: &Reservations, rest: Vec<u8>) -> Vec<u8> {
    let header = ReserveInHeader {
        generation: reservations.generation().into(),
        additional_length: (rest.len() as u32).into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(rest);
    bytes
}

/// SCOPE is that of the LU, which is 0.
fn code(kind: Kind) -> u8 {
    TYPES[kind as usize].1.0
}

/// What the command with this CDB and parameter list asks for.
fn action(cdb: &cdb::PersistentReserveOut, list: &[u8], tag: u64) -> Result<Action, Sense> {
    let service = Service(cdb.service_action & SERVICE_ACTION_MASK);
    if service == Service::REGISTER_AND_MOVE {
        return relocation(list);
    }
    let Ok((basic, rest)) = ReserveOut::read_from_prefix(list) else {
        return Err(Sense::parameter_length());
    };
    let (key, new_key) = (basic.key.get(), basic.service_action_key.get());
    let (all_ports, through_power_loss) = (basic.flags & ALL_TG_PT != 0, basic.flags & APTPL != 0);
    let also = if basic.flags & SPEC_I_PT == 0 {
        if !rest.is_empty() {
            return Err(Sense::parameter_length());
        }
        None
    } else if service == Service::REGISTER {
        Some(initiators(list)?)
    } else {
        // SPC-4 6.16.3: only REGISTER registers others.
        return Err(Sense::parameter(OUT_FLAGS_AT));
    };
    let kind = || kind_of(cdb.scope_type);
    let needed = || kind().ok_or(Sense::field(SCOPE_TYPE_AT));
    let preempt = |abort| Action::Preempt { key, victim: new_key, kind: kind(), abort };
    Ok(match service {
        Service::REGISTER => Action::Register { key, new_key, also, all_ports, through_power_loss },
        Service::REGISTER_AND_IGNORE_EXISTING_KEY => {
            Action::RegisterAnyway { new_key, all_ports, through_power_loss }
        }
        Service::RESERVE => Action::Reserve { key, kind: needed()? },
        Service::RELEASE => Action::Release { key, kind: needed()? },
        Service::CLEAR => Action::Clear { key },
        Service::PREEMPT => preempt(None),
        Service::PREEMPT_AND_ABORT => preempt(Some(tag)),
        // Reservations are not lost here, so there is none to replace.
        _ => return Err(Sense::field_bit(1, 4)),
    })
}

/// Of scope LU, and one of the six.
fn kind_of(scope_type: u8) -> Option<Kind> {
    TYPES.iter().find(|(_, code)| code.0 == scope_type).map(|(kind, _)| *kind)
}

/// REGISTER AND MOVE has a parameter list of its own (SPC-4 6.16.4).
fn relocation(list: &[u8]) -> Result<Action, Sense> {
    let Ok((basic, ids)) = RegisterAndMove::read_from_prefix(list) else {
        return Err(Sense::parameter_length());
    };
    if basic.transport_id_length.get() as usize != ids.len() {
        return Err(Sense::parameter_length());
    }
    let (id, len) = transport_id::parse(ids).ok_or(Sense::parameter(LIST_BYTES as u16))?;
    if len != ids.len() {
        return Err(Sense::parameter(MOVE_ID_LENGTH_AT));
    }
    let port = basic.relative_port.get();
    if port == 0 {
        return Err(Sense::parameter(MOVE_PORT_AT));
    }
    Ok(Action::Move {
        key: basic.key.get(),
        new_key: basic.service_action_key.get(),
        to: NexusId::new(id, PortId(port)),
        unregister: basic.flags & UNREG != 0,
        through_power_loss: basic.flags & APTPL != 0,
    })
}

/// The initiator ports that a REGISTER names.
fn initiators(list: &[u8]) -> Result<Vec<Initiator>, Sense> {
    let Some((length, mut rest)) = list[LIST_BYTES..].split_first_chunk::<4>() else {
        return Err(Sense::parameter_length());
    };
    if u32::from_be_bytes(*length) as usize != rest.len() {
        return Err(Sense::parameter_length());
    }
    let mut all = Vec::new();
    while !rest.is_empty() {
        let at = list.len() - rest.len();
        let wrong = Sense::parameter(u16::try_from(at).unwrap_or(IDS_AT as u16));
        let (id, len) = transport_id::parse(rest).ok_or(wrong)?;
        all.push(id);
        rest = &rest[len..];
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
