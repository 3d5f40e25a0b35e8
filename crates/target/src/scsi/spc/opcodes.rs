//! REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4 6.35, 6.36): the table of
//! commands, told to the client.

use wire::scsi::Opcode;
use wire::scsi::cdb::{Maintenance, flag};
use wire::scsi::opcodes::{
    CTDP, CommandDescriptor, NOT_SUPPORTED, ONE_CTDP, OneCommand, REPORT_ALL, REPORT_EITHER,
    REPORT_OPCODE, REPORT_SERVICE_ACTION, SERVACTV, SUPPORTED, TaskManagementFunctions, Timeouts,
    function,
};
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::row::Row;
use super::super::sense::Sense;
use super::super::table;
use super::push;

pub fn report(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Maintenance = context.cdb();
    let with_timeouts = cdb.options & flag::RCTD != 0;
    let option = cdb.options & 0x07;
    if option == REPORT_ALL {
        return Ok(all(context, with_timeouts));
    }
    let mut rows = rows(context).filter(|row| row.opcode == Opcode(cdb.requested_opcode));
    let first = rows.clone().next();
    let has_actions = first.is_some_and(|row| row.service_action.is_some());
    let wanted = cdb.requested_service_action.get();
    let found = match option {
        REPORT_OPCODE if has_actions => return Err(Sense::field(2)),
        REPORT_OPCODE => first,
        REPORT_SERVICE_ACTION if first.is_some() && !has_actions => return Err(Sense::field(2)),
        REPORT_SERVICE_ACTION => rows.find(|row| row.service_action.map(u16::from) == Some(wanted)),
        REPORT_EITHER if has_actions => {
            rows.find(|row| row.service_action.map(u16::from) == Some(wanted))
        }
        REPORT_EITHER => first.filter(|_| wanted == 0),
        _ => return Err(Sense::field(2)),
    };
    Ok(one(found, with_timeouts))
}

fn rows<'a>(context: &Context<'a>) -> impl Iterator<Item = &'static Row> + Clone + use<'a> {
    let unit = context.unit;
    table::rows(unit.settings.kind).filter(move |row| row.is_of(unit))
}

fn all(context: &Context<'_>, with_timeouts: bool) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for row in rows(context) {
        let timeouts = if with_timeouts { CTDP } else { 0 };
        let servactv = if row.service_action.is_some() { SERVACTV } else { 0 };
        let descriptor = CommandDescriptor {
            opcode: row.opcode.0,
            service_action: u16::from(row.service_action.unwrap_or(0)).into(),
            flags: timeouts | servactv,
            cdb_length: u16::from(row.usage.len).into(),
            ..CommandDescriptor::default()
        };
        push(&mut bytes, &descriptor);
        if with_timeouts {
            push(&mut bytes, &timeouts_of(row));
        }
    }
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn one(row: Option<&Row>, with_timeouts: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(row) = row else {
        push(&mut bytes, &OneCommand { support: NOT_SUPPORTED, ..OneCommand::default() });
        return bytes;
    };
    let header = OneCommand {
        support: SUPPORTED | if with_timeouts { ONE_CTDP } else { 0 },
        cdb_length: u16::from(row.usage.len).into(),
        ..OneCommand::default()
    };
    push(&mut bytes, &header);
    bytes.extend(row.usage.map(row.opcode, row.service_action));
    if with_timeouts {
        push(&mut bytes, &timeouts_of(row));
    }
    bytes
}

fn timeouts_of(row: &Row) -> Timeouts {
    Timeouts {
        length: (size_of::<Timeouts>() as u16 - 2).into(),
        nominal_s: row.timeout_s.0.into(),
        recommended_s: row.timeout_s.1.into(),
        ..Timeouts::default()
    }
}

pub fn task_management(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Maintenance = context.cdb();
    let mut functions = TaskManagementFunctions {
        flags: function::ABORT_TASK
            | function::ABORT_TASK_SET
            | function::CLEAR_ACA
            | function::CLEAR_TASK_SET
            | function::LOGICAL_UNIT_RESET
            | function::QUERY_TASK,
        flags1: function::QUERY_ASYNC_EVENT | function::QUERY_TASK_SET | function::I_T_NEXUS_RESET,
        ..TaskManagementFunctions::default()
    };
    if cdb.options & flag::REPD == 0 {
        return Ok(functions.as_bytes()[..4].to_vec());
    }
    functions.additional_length = (size_of::<TaskManagementFunctions>() - 4) as u8;
    Ok(functions.as_bytes().to_vec())
}
