//! VPD page third-party copy (SPC-4 7.8.17): which copies there are, and their limits.

use wire::scsi::Opcode;
use wire::scsi::copy::{CopyDescriptorType as Kind, RodType};
use wire::scsi::vpd::CopyDescriptor;
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::table::TABLE;
use super::COPY_BYTES_MAX;
use super::extended::{CSCDS_MAX, DESCRIPTOR_BYTES_MAX, DESCRIPTORS, SEGMENTS_MAX};
use super::token::RANGES_MAX;

/// TOKEN_IN and TOKEN_OUT of a ROD type.
const TOKEN_IN: u8 = 0x02;
const TOKEN_OUT: u8 = 0x01;
/// Bytes of the description of a ROD type.
const ROD_TYPE_BYTES: usize = 64;

pub fn third_party_copy(context: &Context<'_>) -> Vec<u8> {
    let block = u64::from(context.unit.block_size);
    let mut page = Vec::new();
    let mut limits = vec![0; 6];
    limits.extend((RANGES_MAX as u16).to_be_bytes());
    // Tokens do not end by lying about.
    limits.extend([0; 8]);
    limits.extend((COPY_BYTES_MAX / block).to_be_bytes());
    limits.extend((COPY_BYTES_MAX / block).to_be_bytes());
    push(&mut page, Kind::BLOCK_ROD_TOKEN_LIMITS, &limits);
    push(&mut page, Kind::SUPPORTED_COMMANDS, &commands());
    let mut parameters = vec![0; 4];
    parameters.extend((CSCDS_MAX as u16).to_be_bytes());
    parameters.extend((SEGMENTS_MAX as u16).to_be_bytes());
    parameters.extend((DESCRIPTOR_BYTES_MAX as u32).to_be_bytes());
    parameters.extend([0; 16]);
    push(&mut page, Kind::PARAMETER_DATA, &parameters);
    push(
        &mut page,
        Kind::SUPPORTED_DESCRIPTORS,
        &[&[DESCRIPTORS.len() as u8], &DESCRIPTORS[..]].concat(),
    );
    push(&mut page, Kind::SUPPORTED_CSCD_IDS, &[0; 2]);
    push(&mut page, Kind::SUPPORTED_ROD_TYPES, &rod_types());
    let tasks = context.unit.settings.tasks_max.to_be_bytes();
    let segment = (COPY_BYTES_MAX as u32).to_be_bytes();
    let mut general = [tasks, tasks, segment].concat();
    general.push(block.ilog2() as u8);
    general.resize(32, 0);
    push(&mut page, Kind::GENERAL_COPY_OPERATIONS, &general);
    page
}

/// The commands and their service actions, as the table has them.
fn commands() -> Vec<u8> {
    let mut commands = vec![0];
    for opcode in [Opcode::THIRD_PARTY_COPY_OUT, Opcode::THIRD_PARTY_COPY_IN] {
        let rows = TABLE.iter().filter(|row| row.opcode == opcode);
        let actions: Vec<u8> = rows.filter_map(|row| row.service_action).collect();
        commands.extend([opcode.0, actions.len() as u8]);
        commands.extend(actions);
    }
    commands[0] = commands.len() as u8 - 1;
    commands
}

fn rod_types() -> Vec<u8> {
    let types = [(RodType::ACCESS_UPON_REFERENCE, TOKEN_IN | TOKEN_OUT), (RodType::ZERO, TOKEN_IN)];
    let mut bytes = vec![0; 2];
    bytes.extend(((types.len() * ROD_TYPE_BYTES) as u16).to_be_bytes());
    for (kind, flags) in types {
        let at = bytes.len();
        bytes.extend(kind.0.to_be_bytes());
        bytes.push(flags);
        bytes.resize(at + ROD_TYPE_BYTES, 0);
    }
    bytes
}

/// A descriptor, padded to a multiple of four.
fn push(page: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let len = (size_of::<CopyDescriptor>() + body.len()).next_multiple_of(4);
    let header = CopyDescriptor {
        kind: kind.0.into(),
        length: ((len - size_of::<CopyDescriptor>()) as u16).into(),
    };
    let at = page.len();
    page.extend_from_slice(header.as_bytes());
    page.extend_from_slice(body);
    page.resize(at + len, 0);
}
